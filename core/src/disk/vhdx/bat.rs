//! The block allocation table (2.5): where each block stands. After every chunk's payload entries comes the
//! entry of the chunk's sector bitmap block.

use super::format::{HEADER_SECTION_SIZE, MIB, SECTORS_PER_CHUNK};
use super::region::{Region, Regions};

/// State of a payload block (2.5.1.1); the bitmap block's states are `NotPresent` and `FullyPresent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockState {
    /// The parent's content, or zeros where there is no parent.
    NotPresent,
    /// ZERO, UNMAPPED or UNDEFINED: zeros, whatever the parent has.
    Zero,
    /// All sectors stand in the file.
    FullyPresent,
    /// The sectors whose bits are set stand in the file, the others in the parent.
    PartiallyPresent,
}

/// An entry of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatEntry(pub u64);

impl BatEntry {
    /// An entry that names no place.
    pub const NOT_PRESENT: Self = Self(0);
    /// A block of zeros.
    pub const ZERO: Self = Self(2);

    /// A block whose sectors all stand at `offset` of the file (a multiple of 1 MiB).
    pub fn full(offset: u64) -> Self {
        Self(offset | 6)
    }

    /// A block of which some sectors stand at `offset` of the file (a multiple of 1 MiB).
    pub fn partial(offset: u64) -> Self {
        Self(offset | 7)
    }

    /// The state, if it is one.
    pub fn state(self) -> Option<BlockState> {
        match self.0 & 7 {
            0 => Some(BlockState::NotPresent),
            1..=3 => Some(BlockState::Zero),
            6 => Some(BlockState::FullyPresent),
            7 => Some(BlockState::PartiallyPresent),
            _ => None,
        }
    }

    /// Where the block stands in the file, in bytes.
    pub fn offset(self) -> u64 {
        self.0 & !(MIB - 1)
    }

    /// Whether the entry names a place in the file that is in use.
    pub fn is_placed(self) -> bool {
        self.0 & 7 >= 6
    }
}

/// Everything that turns an offset of the disk into a place in BAT, bitmap and file. Sizes in bytes.
#[derive(Debug, Clone)]
pub struct Geometry {
    /// What the disk shows.
    pub virtual_size: u64,
    /// From 1 to 256 MiB.
    pub block_size: u64,
    /// Logical sectors: 512 or 4096.
    pub sector_size: u64,
    /// Payload blocks for each sector bitmap block.
    pub chunk_ratio: u64,
    /// The image is differencing.
    pub has_parent: bool,
    /// The image is fixed: blocks keep their place.
    pub leave_allocated: bool,
    /// BAT and metadata.
    pub regions: Regions,
    /// The log.
    pub log: Region,
}

impl Geometry {
    /// Chunk ratio (2.5).
    pub fn chunk_ratio(sector_size: u64, block_size: u64) -> u64 {
        SECTORS_PER_CHUNK * sector_size / block_size
    }

    /// Number of payload blocks.
    pub fn block_count(&self) -> u64 {
        self.virtual_size.div_ceil(self.block_size)
    }

    /// Number of BAT entries (2.5).
    pub fn entry_count(&self) -> u64 {
        entry_count(self.block_count(), self.chunk_ratio, self.has_parent)
    }

    /// Where a block's BAT entry stands in the file.
    pub fn payload_entry(&self, block: u64) -> u64 {
        self.regions.bat.offset + (block + block / self.chunk_ratio) * 8
    }

    /// Where the BAT entry of the bitmap of a block's chunk stands in the file.
    pub fn bitmap_entry(&self, block: u64) -> u64 {
        let chunk = block / self.chunk_ratio;
        self.regions.bat.offset + (chunk * (self.chunk_ratio + 1) + self.chunk_ratio) * 8
    }

    /// Bytes of a block that the disk shows: the last one may be shorter.
    pub fn shown_length(&self, block: u64) -> u64 {
        self.virtual_size.saturating_sub(block * self.block_size).min(self.block_size)
    }

    /// The bit in the chunk's bitmap of a sector of the disk.
    pub fn bit(&self, offset: u64) -> u64 {
        offset / self.sector_size % SECTORS_PER_CHUNK
    }

    /// What is wrong with a place that a BAT entry names.
    pub fn place_problem(&self, entry: BatEntry, length: u64, file_length: u64) -> Option<String> {
        let offset = entry.offset();
        let end = offset.checked_add(length);
        if offset < HEADER_SECTION_SIZE {
            Some(format!("is {offset}, inside the headers"))
        } else if end.is_none_or(|end| end > file_length) {
            Some(format!("is {offset}: the block ends after the file"))
        } else if self.log.overlaps(offset, length) || self.regions.all().any(|region| region.overlaps(offset, length)) {
            Some(format!("is {offset}, inside a region or the log"))
        } else {
            None
        }
    }
}

/// Number of BAT entries for so many payload blocks.
pub fn entry_count(blocks: u64, chunk_ratio: u64, has_parent: bool) -> u64 {
    if has_parent { blocks.div_ceil(chunk_ratio) * (chunk_ratio + 1) } else { blocks + blocks.saturating_sub(1) / chunk_ratio }
}
