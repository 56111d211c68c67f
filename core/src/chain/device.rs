//! A disk as its user sees it: a guest, or a client of NBD.

use std::fmt;

use super::{Chain, STRETCHES_STEP};
use crate::disk;
use crate::units::ByteCount;

/// A disk, as the guest sees it. Whole sectors; several threads at once.
pub trait BlockDevice: Send + Sync + fmt::Debug {
    /// Size of the disk.
    fn size(&self) -> ByteCount;
    /// Bytes of a sector: 512 or 4096.
    fn sector_size(&self) -> u32 {
        512
    }
    /// Reads.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> disk::Result<()>;
    /// Writes.
    fn write_at(&self, buf: &[u8], offset: u64) -> disk::Result<()>;
    /// Zeroes.
    fn write_zeroes(&self, offset: u64, length: u64) -> disk::Result<()>;
    /// Zeroes what isn't needed any more, so that its space comes back.
    fn trim(&self, offset: u64, length: u64) -> disk::Result<()>;
    /// Makes everything acknowledged durable.
    fn flush(&self) -> disk::Result<()>;
    /// What a range consists of, in order, without gaps; it may end early. All of it is data where nothing more is known.
    fn layers(&self, offset: u64, length: u64) -> disk::Result<Vec<Layer>> {
        let _ = offset;
        Ok(vec![Layer { length, zero: false, depth: 1 }])
    }
}

/// A stretch of a disk, and which image of its chain holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Length in bytes.
    pub length: u64,
    /// Whether it is known to read as zeros, without a place for them.
    pub zero: bool,
    /// 1 is the leaf, 2 its parent and so on; 0 is nobody.
    pub depth: u16,
}

impl BlockDevice for Chain {
    fn size(&self) -> ByteCount {
        self.virtual_size()
    }
    fn sector_size(&self) -> u32 {
        self.logical_sector_size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> disk::Result<()> {
        Self::read_at(self, buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> disk::Result<()> {
        Self::write_at(self, buf, offset)
    }
    fn write_zeroes(&self, offset: u64, length: u64) -> disk::Result<()> {
        Self::write_zeroes(self, offset, length)
    }
    fn trim(&self, offset: u64, length: u64) -> disk::Result<()> {
        Self::trim(self, offset, length)
    }
    fn flush(&self) -> disk::Result<()> {
        Self::flush(self)
    }
    fn layers(&self, offset: u64, length: u64) -> disk::Result<Vec<Layer>> {
        self.check_range(offset, length)?;
        let links = self.map.links();
        let step = (STRETCHES_STEP - offset % STRETCHES_STEP).min(length);
        let stretches = Self::stretches_of(&links, offset, step)?;
        let depth = |owner: Option<u16>| owner.map_or(0, |owner| links.len() as u16 - owner);
        let layer = |s: super::Stretch| Layer { length: s.length, zero: s.zero, depth: depth(s.owner) };
        Ok(stretches.into_iter().map(layer).collect())
    }
}
