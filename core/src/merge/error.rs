//! Why a merge can't be planned or carried out.

use crate::disk::DiskError;
use crate::store::StoreError;
use crate::units::ByteCount;

/// A result of this room.
pub type Result<T, E = MergeError> = std::result::Result<T, E>;

/// Why a merge can't be planned or carried out.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A rule forbids it; nothing was touched.
    #[error("{0}")]
    Refused(String),
    /// No target's scratch fits.
    #[error("merging needs {needed} of free space on the volume, {free} are free")]
    NoSpace {
        /// What the cheapest target needs.
        needed: ByteCount,
        /// What is free.
        free: ByteCount,
    },
    /// The tree isn't what was planned for: plan again.
    #[error("the tree has changed since the merge was planned: {0}")]
    Changed(String),
    /// An image failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The machine's folder failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host's file system failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// With which file.
        path: std::path::PathBuf,
        /// The host's error.
        source: std::io::Error,
    },
}
