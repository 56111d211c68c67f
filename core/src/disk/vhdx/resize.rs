//! Another size of the disk. What is new is zero and owned by this image; the new size comes last, so that a
//! crash before it changes nothing that is shown.

use std::sync::Arc;

use super::bat::{BatEntry, Geometry, entry_count};
use super::format::{BITMAP_BLOCK_SIZE, MIB, PAGE, REGION_TABLE_OFFSETS, VIRTUAL_DISK_SIZE, VIRTUAL_SIZE_MAX, round_up};
use super::image::VhdxImage;
use super::metadata::Parameters;
use super::region::Region;
use super::write::{Writer, entry_patch};
use crate::disk::Result;
use crate::disk::pages::Patches;
use crate::locks::{lock, lock_alone};

impl VhdxImage {
    pub(super) fn grow_to(&self, size: u64) -> Result<()> {
        let mut w = self.settled();
        let g = self.geometry();
        if size < g.virtual_size {
            return Err(self.refused(format!("it has {} bytes already, more than {size}", g.virtual_size)));
        }
        self.begin(&mut w, true)?;
        self.resize(&mut w, size)
    }

    pub(super) fn resize(&self, w: &mut Writer, size: u64) -> Result<()> {
        let g = self.geometry();
        if size == 0 || size > VIRTUAL_SIZE_MAX || !size.is_multiple_of(g.sector_size) {
            return Err(self.refused(format!("a disk of {size} bytes can't be: whole sectors, at most 64 TiB")));
        }
        if size == g.virtual_size {
            return Ok(());
        }
        if size > g.virtual_size {
            self.make_zero_until(w, size)?;
        }
        let old = self.geometry();
        let new = Geometry { virtual_size: size, ..(*old).clone() };
        let parameters = Parameters { virtual_size: size, ..w.parameters.clone() };
        let index = parameters.items().into_iter().find(|(id, ..)| *id == VIRTUAL_DISK_SIZE);
        let patches = index.and_then(|(id, flags, content)| w.table.set_item(id, flags, &content));
        let patches = patches.ok_or_else(|| self.refused("its metadata has no room for the size"))?;
        self.apply_at_once(w, patches, Some(new.clone()))?;
        w.parameters = parameters;
        self.refresh_info(w);
        if size < old.virtual_size {
            self.free_from(w, &old, &new)?;
        }
        Ok(())
    }

    /// Zeros from the disk's end to `size`: the rest of the last block, then whole blocks.
    fn make_zero_until(&self, w: &mut Writer, size: u64) -> Result<()> {
        let old = self.geometry();
        let needed = entry_count(size.div_ceil(old.block_size), old.chunk_ratio, old.has_parent) * 8;
        if needed > old.regions.bat.length {
            self.move_bat(w, needed)?;
        }
        let wide = Geometry { virtual_size: size, ..(*self.geometry()).clone() };
        let shown = old.virtual_size % old.block_size;
        if shown > 0 {
            let last = old.block_count() - 1;
            self.zero_part(w, &wide, last, shown, wide.shown_length(last) - shown)?;
        }
        // Entries by the page, as there may be many.
        let (mut block, end) = (old.block_count(), wide.block_count());
        while block < end {
            let at = wide.payload_entry(block) / PAGE * PAGE;
            let mut page = *lock(&self.pages).page(&self.raw, at)?;
            let mut put = |place: u64, entry: BatEntry| {
                page[(place - at) as usize..][..8].copy_from_slice(&entry.0.to_le_bytes());
            };
            while block < end && wide.payload_entry(block) < at + PAGE {
                let entry = match wide.leave_allocated {
                    true => BatEntry::full(self.allocate(w, wide.block_size)?),
                    false => BatEntry::ZERO,
                };
                put(wide.payload_entry(block), entry);
                block += 1;
            }
            // Bitmap entries of chunks that are all new.
            let first_new = old.block_count().div_ceil(wide.chunk_ratio);
            for chunk in first_new..end.div_ceil(wide.chunk_ratio) {
                let place = wide.bitmap_entry(chunk * wide.chunk_ratio);
                if place >= at + PAGE {
                    break;
                }
                if place >= at && place + 8 <= wide.regions.bat.end() {
                    put(place, BatEntry::NOT_PRESENT);
                }
            }
            self.apply(w, vec![(at, page.to_vec())], false)?;
            self.commit_if_due(w)?;
        }
        Ok(())
    }

    /// A longer BAT elsewhere: copied and durable first, then named by both region tables in one log entry.
    fn move_bat(&self, w: &mut Writer, needed: u64) -> Result<()> {
        self.commit(w)?;
        let g = self.geometry();
        let length = round_up(needed, MIB);
        let place = self.allocate(w, length)?;
        let old = g.regions.bat;
        let mut piece = vec![0; MIB as usize];
        for done in (0..old.length).step_by(piece.len()) {
            self.raw.read(&mut piece, old.offset + done, "copy the BAT")?;
            self.raw.write(&piece, place + done, "copy the BAT")?;
        }
        let regions = g.regions.with_bat(Region { offset: place, length });
        let mut table = regions.encode();
        table.truncate(16 + 32 * regions.all().count());
        let patches = REGION_TABLE_OFFSETS.iter().map(|&offset| (offset, table.clone())).collect();
        w.freed.push((old.offset, old.length));
        self.apply_at_once(w, patches, Some(Geometry { regions, ..(*g).clone() }))
    }

    /// Gives up the blocks after a smaller disk's end.
    fn free_from(&self, w: &mut Writer, old: &Geometry, new: &Geometry) -> Result<()> {
        for block in new.block_count()..old.block_count() {
            let (entry, _) = self.entry(old, block)?;
            if entry != BatEntry::NOT_PRESENT {
                self.apply(w, vec![entry_patch(old.payload_entry(block), BatEntry::NOT_PRESENT)], true)?;
            }
            if entry.is_placed() {
                w.freed.push((entry.offset(), old.block_size));
                w.released.forget(entry.offset(), old.block_size);
            }
            let first_of_chunk = block.is_multiple_of(old.chunk_ratio);
            if first_of_chunk
                && old.has_parent
                && let Some(bitmap) = self.bitmap_place(old, block)?
            {
                self.apply(w, vec![entry_patch(old.bitmap_entry(block), BatEntry::NOT_PRESENT)], true)?;
                w.freed.push((bitmap, BITMAP_BLOCK_SIZE));
            }
            self.commit_if_due(w)?;
        }
        self.commit(w)
    }

    /// Changes of regions or metadata items: never in the side file, so committed alone, at once.
    pub(super) fn apply_at_once(&self, w: &mut Writer, patches: Patches, geometry: Option<Geometry>) -> Result<()> {
        if lock(&self.pages).dirty_count() > 0 {
            self.commit(w)?;
        }
        {
            let mut place = lock_alone(&self.geometry);
            lock(&self.pages).patch(&self.raw, &patches)?;
            if let Some(geometry) = geometry {
                *place = Arc::new(geometry);
            }
        }
        self.commit(w)
    }
}
