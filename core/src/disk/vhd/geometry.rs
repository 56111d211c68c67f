//! Where blocks, their bitmaps and the table of their places stand.

use super::format::{DATA_ALIGNMENT, DIFFERENCING, DynamicHeader, FIXED, Footer, SECTOR, UNUSED, round_up};

/// What the metadata says about places.
#[derive(Debug, Clone)]
pub struct Geometry {
    /// Bytes of the disk.
    pub virtual_size: u64,
    /// What isn't here is read from a parent.
    pub has_parent: bool,
    /// Where the blocks are, unless the disk is fixed.
    pub blocks: Option<Blocks>,
    /// A sector of a fixed disk that is zeros, whatever stands in the file.
    pub old_footer: Option<u64>,
}

/// Where the blocks are.
#[derive(Debug, Clone, Copy)]
pub struct Blocks {
    /// Bytes of a block's data.
    pub size: u64,
    /// Where the BAT stands.
    pub table: u64,
    /// Its entries.
    pub entries: u64,
}

impl Geometry {
    /// What footer and header say.
    pub fn new(footer: &Footer, header: Option<&DynamicHeader>) -> Self {
        let kind = footer.disk_type.get();
        Self {
            virtual_size: footer.current_size.get(),
            has_parent: kind == DIFFERENCING,
            blocks: header.filter(|_| kind != FIXED).map(|header| Blocks {
                size: header.block_size.get().into(),
                table: header.table_offset.get(),
                entries: header.max_table_entries.get().into(),
            }),
            old_footer: footer.old_footer(),
        }
    }

    /// Bytes of a block that the disk shows.
    pub fn shown_length(&self, blocks: &Blocks, block: u64) -> u64 {
        self.virtual_size.saturating_sub(block * blocks.size).min(blocks.size)
    }
}

impl Blocks {
    /// How many blocks a disk of this size has.
    pub fn count(&self, virtual_size: u64) -> u64 {
        virtual_size.div_ceil(self.size)
    }

    /// Bytes of a block's bitmap.
    pub fn bitmap_length(&self) -> u64 {
        round_up(self.size / SECTOR / 8, SECTOR)
    }

    /// Bytes of a block with its bitmap.
    pub fn length(&self) -> u64 {
        self.bitmap_length() + self.size
    }

    /// Where a block's entry stands.
    pub fn entry(&self, block: u64) -> u64 {
        self.table + block * 4
    }

    /// Where the BAT ends.
    pub fn table_end(&self) -> u64 {
        round_up(self.table + self.entries * 4, SECTOR)
    }

    /// The first place from `end` on where a block may stand: its data is aligned.
    pub fn aligned(&self, end: u64) -> u64 {
        round_up(end + self.bitmap_length(), DATA_ALIGNMENT) - self.bitmap_length()
    }
}

/// The place that a BAT entry names, in bytes.
pub fn place_of(entry: u32) -> Option<u64> {
    (entry != UNUSED).then(|| u64::from(entry) * SECTOR)
}
