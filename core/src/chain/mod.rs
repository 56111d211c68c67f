//! MANY images as one disk, found in one step through an owner map.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::disk::{Image, Result};
use crate::host_file::{Access, SharedHost};
use crate::units::ByteCount;

/// Which paths an image may name as its parent: only what lies inside folders that
/// the user opened. A parent locator is input from a stranger.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    roots: Vec<PathBuf>,
}

impl Gate {
    /// A gate that lets through what lies inside these folders, links resolved.
    pub fn new(roots: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { roots: roots.into_iter().collect() }
    }
}

/// A stretch of the disk and the image of the chain that owns its newest data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stretch {
    /// First byte on the virtual disk.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Index of the owner in the chain, the base being 0; `None` where nobody holds anything.
    pub owner: Option<u16>,
    /// Whether the owner says zeros.
    pub zero: bool,
}

/// The images behind one disk, from the base (index 0) to the leaf. May be used from several threads at once.
#[derive(Debug)]
pub struct Chain {
    _todo: (),
}

#[expect(unused_variables, clippy::missing_errors_doc, reason = "to be written")]
impl Chain {
    /// Opens the leaf and, through the gate, all its parents (always `Access::Read` or `Look`). Checks identifiers.
    pub fn open(host: &SharedHost, leaf: &Path, access: Access, gate: &Gate) -> Result<Self> {
        todo!()
    }
    /// A chain of images that are open already, the base first; identifiers are checked.
    pub fn from_images(images: Vec<Arc<dyn Image>>) -> Result<Self> {
        todo!()
    }
    /// The images, base first.
    pub fn images(&self) -> Vec<Arc<dyn Image>> {
        todo!()
    }
    /// Size of the disk: the leaf's.
    pub fn virtual_size(&self) -> ByteCount {
        todo!()
    }
    /// The leaf's logical sector size in bytes.
    pub fn logical_sector_size(&self) -> u32 {
        todo!()
    }
    /// Who owns what in a range, in order, without gaps.
    pub fn stretches(&self, offset: u64, length: u64) -> Result<Vec<Stretch>> {
        todo!()
    }
    /// Reads whole sectors.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        todo!()
    }
    /// Writes whole sectors to the leaf.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        todo!()
    }
    /// Zeroes whole sectors in the leaf.
    pub fn write_zeroes(&self, offset: u64, length: u64) -> Result<()> {
        todo!()
    }
    /// Everything acknowledged is durable afterwards, in every image with unflushed changes, lowest first.
    pub fn flush(&self) -> Result<()> {
        todo!()
    }
    /// Puts a new leaf (a child of the present one) on top; quick, no flush. Writes go to it from the return on.
    pub fn push_leaf(&self, leaf: Arc<dyn Image>) -> Result<()> {
        todo!()
    }
}
