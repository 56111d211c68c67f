//! Images of others become a machine of ours.

use std::path::PathBuf;

use crate::units::ByteCount;

/// What to bring in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRequest {
    /// A leaf, or a folder with the images of one disk.
    pub path: PathBuf,
    /// The machine's name.
    pub name: String,
    /// Whether the originals are removed once the machine is complete.
    pub remove_originals: bool,
}

/// What an import reports, and asks.
pub trait ImportControl {
    /// Bytes copied so far, of all; `false` cancels.
    fn progress(&mut self, done: ByteCount, total: ByteCount) -> bool;
}

impl<F: FnMut(ByteCount, ByteCount) -> bool> ImportControl for F {
    fn progress(&mut self, done: ByteCount, total: ByteCount) -> bool {
        self(done, total)
    }
}
