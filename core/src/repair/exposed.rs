//! Where an image that is linked to a changed parent may show something else than before.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk::{self, Extent, Presence, Result};
use crate::host_file::{Access, SharedHost};
use crate::units::ByteCount;

/// Ranges that are listed at most.
const LISTED: usize = 32;
/// Stretches of the disk that are asked for at once.
const STEP: u64 = 16 << 30;

/// What an image reads from its parent: it doesn't hold it itself, and the parent does. Where the parent has changed, only
/// that may differ from what the image showed before. What a parent has given up since, as a base that was compacted,
/// reads as zeros and isn't in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposed {
    /// Bytes of the disk in all.
    pub bytes: ByteCount,
    /// Blocks of the image in which they are.
    pub blocks: u64,
    /// The first ranges, in the disk's order.
    pub ranges: Vec<Range>,
    /// Ranges that aren't listed.
    pub more: u64,
}

/// A range of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

impl Exposed {
    /// Looks at both images; what the parent reads through itself is as it was.
    ///
    /// # Errors
    /// Where one can't be opened, or doesn't say what it holds.
    pub(super) fn of(host: &SharedHost, child: &Path, parent: &Path) -> Result<Self> {
        let open = |path: &Path| disk::open(host, path, disk::probe(host, path)?, Access::Look);
        let (child, parent) = (open(child)?, open(parent)?);
        let info = child.info();
        let mut found = Finder { block: info.block_size.0.max(1), exposed: Self::default(), open: None, last_block: None };
        let is_absent = |extent: &Extent| extent.presence == Presence::Absent;
        for at in (0..info.virtual_size.0).step_by(STEP as usize) {
            for asked in child.extents(at, STEP.min(info.virtual_size.0 - at))?.iter().filter(|extent| is_absent(extent)) {
                for held in parent.extents(asked.offset, asked.length)?.iter().filter(|extent| !is_absent(extent)) {
                    found.add(held.offset, held.length);
                }
            }
        }
        found.close();
        Ok(found.exposed)
    }
}

struct Finder {
    block: u64,
    exposed: Exposed,
    /// The range under way.
    open: Option<Range>,
    last_block: Option<u64>,
}

impl Finder {
    fn add(&mut self, offset: u64, length: u64) {
        self.exposed.bytes += ByteCount(length);
        let (first, last) = (offset / self.block, (offset + length - 1) / self.block);
        self.exposed.blocks += last + 1 - first - u64::from(self.last_block == Some(first));
        self.last_block = Some(last);
        match &mut self.open {
            Some(range) if range.offset + range.length == offset => range.length += length,
            _ => {
                self.close();
                self.open = Some(Range { offset, length });
            }
        }
    }

    fn close(&mut self) {
        let Some(range) = self.open.take() else { return };
        if self.exposed.ranges.len() < LISTED {
            self.exposed.ranges.push(range);
        } else {
            self.exposed.more += 1;
        }
    }
}
