//! Another size of the disk. What is new is zero and owned by this image; the new size comes last, so that a
//! crash before it changes nothing that is shown.

use std::sync::Arc;

use super::create::CREATOR;
use super::format::{DynamicHeader, FIXED, Footer, SECTOR, UNUSED, VIRTUAL_SIZE_MAX, geometry, round_up};
use super::geometry::{Blocks, Geometry};
use super::image::VhdImage;
use super::space::Space;
use super::write::{Content, Writer, entry_patch, new_block};
use crate::disk::{Image, Result};
use crate::locks::lock_alone;

impl VhdImage {
    pub(super) fn grow_to(&self, size: u64) -> Result<()> {
        let mut w = self.settled();
        let g = self.geometry();
        if size < g.virtual_size {
            return Err(self.refused(format!("it has {} bytes already, more than {size}", g.virtual_size)));
        }
        self.begin(&mut w, true)?;
        self.resize(&mut w, size)
    }

    pub(super) fn take_size(&self, other: &dyn Image) -> Result<()> {
        let info = other.info();
        let mut w = self.settled();
        if u64::from(info.logical_sector_size) != SECTOR {
            let (other, theirs) = (other.path(), info.logical_sector_size);
            return Err(self.refused(format!("its sectors have {SECTOR} bytes, those of {} have {theirs}", other.display())));
        }
        self.begin(&mut w, false)?;
        self.resize(&mut w, info.virtual_size.0)
    }

    fn resize(&self, w: &mut Writer, size: u64) -> Result<()> {
        let g = self.geometry();
        check_size(size).map_err(|reason| self.refused(reason))?;
        if size == g.virtual_size {
            return Ok(());
        }
        let Some(blocks) = &g.blocks else { return self.resize_fixed(w, &g, size) };
        let needed = blocks.count(size);
        if needed > blocks.entries {
            self.lengthen_table(w, blocks, needed)?;
        }
        if size > g.virtual_size {
            self.make_zero_until(w, size)?;
        }
        let old = self.geometry();
        // As many entries as blocks: others refuse a table that has more.
        match w.header {
            Some(header) if u64::from(header.max_table_entries.get()) != needed => {
                let header = DynamicHeader { max_table_entries: (needed as u32).into(), ..header };
                let footer = sized(&w.footers.current, size);
                self.switch_header(w, header, footer, None)?;
            }
            _ => {
                self.commit(w)?;
                self.put_footer(w, sized(&w.footers.current, size))?;
                self.set_geometry(w);
            }
        }
        if size < old.virtual_size {
            self.free_from(w, &old, needed)?;
        }
        Ok(())
    }

    fn set_geometry(&self, w: &Writer) {
        let geometry = Geometry::new(&w.footers.current, w.header.as_ref());
        *lock_alone(&self.geometry) = Arc::new(geometry);
    }

    /// A longer BAT, in its place where that has room to its sector's end; elsewhere otherwise, complete before the
    /// header names it. Blocks that stand behind the old one stay.
    fn lengthen_table(&self, w: &mut Writer, blocks: &Blocks, needed: u64) -> Result<()> {
        let Some(header) = w.header else { return Ok(()) };
        let room = (blocks.table_end() - blocks.table) / 4;
        self.commit(w)?;
        let header = if needed <= room {
            let unused: Vec<u8> = (blocks.entries..room).flat_map(|_| UNUSED.to_be_bytes()).collect();
            self.apply(w, vec![(blocks.entry(blocks.entries), unused)], false)?;
            DynamicHeader { max_table_entries: (room as u32).into(), ..header }
        } else {
            let length = round_up(needed * 4, SECTOR);
            let place = self.allocate(w, length)?;
            let mut done = 0;
            while done < length {
                let mut piece = vec![0xFF; (length - done).min(1 << 20) as usize];
                let known = (blocks.entries * 4).saturating_sub(done).min(piece.len() as u64) as usize;
                self.raw.read(&mut piece[..known], blocks.table + done, "copy the BAT")?;
                self.raw.write(&piece, place + done, "copy the BAT")?;
                done += piece.len() as u64;
            }
            DynamicHeader { max_table_entries: ((length / 4) as u32).into(), table_offset: place.into(), ..header }
        };
        let footer = w.footers.current;
        self.switch_header(w, header, footer, None)
    }

    /// A growth that was cut short leaves a table that has more entries than the disk has blocks, which others refuse. In what
    /// other programs have made it may be meant so.
    pub(super) fn shorten_table(&self, w: &mut Writer) -> Result<()> {
        let g = self.geometry();
        let (Some(blocks), Some(header), footer) = (&g.blocks, w.header, w.footers.current) else { return Ok(()) };
        let needed = blocks.count(g.virtual_size);
        if blocks.entries <= needed || footer.creator_application != CREATOR {
            return Ok(());
        }
        // What is wrong with its table is told by the first change: until then it can be read.
        if self.check_places(w, &g).is_err() {
            return Ok(());
        }
        self.begin(w, false)?;
        let header = DynamicHeader { max_table_entries: (needed as u32).into(), ..header };
        match self.switch_header(w, header, footer, None) {
            // It does no harm here: no reason not to open the image.
            Err(error) if error.is_full() && !w.failed => Ok(()),
            done => done,
        }
    }

    /// Zeros from the disk's end to `size`: the rest of the last block, then blocks of zeros, where something might
    /// show through.
    fn make_zero_until(&self, w: &mut Writer, size: u64) -> Result<()> {
        let old = self.geometry();
        let Some(blocks) = &old.blocks else { return Ok(()) };
        let wide = Geometry { virtual_size: size, ..(*old).clone() };
        let zeros = Content::Zeros { punched: 1 };
        let mut at = old.virtual_size;
        while at < size {
            let piece = (blocks.size - at % blocks.size).min(size - at);
            let block = at / blocks.size;
            if at.is_multiple_of(blocks.size) && self.place(&wide, blocks, block)?.is_none() {
                if wide.has_parent {
                    let place = self.allocate_block(w, blocks)?;
                    self.apply(w, new_block(blocks, block, place, (0, blocks.size)), false)?;
                }
            } else {
                self.store_locked(w, &wide, at, piece, zeros)?;
            }
            self.commit_if_due(w)?;
            at += piece;
        }
        Ok(())
    }

    /// Gives up the blocks after a smaller disk's end.
    fn free_from(&self, w: &mut Writer, old: &Geometry, first: u64) -> Result<()> {
        let Some(blocks) = &old.blocks else { return Ok(()) };
        for block in first..blocks.count(old.virtual_size) {
            let Some(place) = self.place(old, blocks, block)? else { continue };
            self.apply(w, vec![entry_patch(blocks, block, None)], true)?;
            w.released.forget(place, blocks.length());
            w.freed.push(place);
            self.commit_if_due(w)?;
        }
        self.commit(w)
    }

    /// A fixed disk's footer is where the disk ends, and there is no copy. The new one is put behind first; what it says
    /// includes that the old one's sector must be zeros.
    fn resize_fixed(&self, w: &mut Writer, g: &Geometry, size: u64) -> Result<()> {
        let old_place = w.footers.place;
        if size < g.virtual_size {
            self.put_footer(w, sized(&w.footers.current, size))?;
            self.set_geometry(w);
            w.failed = true;
            w.footers.put_at(&self.raw, size)?;
            self.raw.cut(size + SECTOR)?;
            self.raw.flush()?;
            (w.failed, w.space) = (false, Some(Space::new(size)));
            return Ok(());
        }
        if old_place != g.virtual_size {
            return Err(self.refused("something stands between the disk's end and the footer"));
        }
        let mut footer = sized(&w.footers.current, size);
        footer.set_note(footer.former_id(), Some(old_place));
        w.footers.place = size;
        let put = self.put_footer(w, footer);
        if put.is_err() {
            w.footers.place = old_place;
            return put;
        }
        w.space = Some(Space::new(size));
        self.finish_growth(w)
    }

    /// Makes the sector zeros where the footer stood before the disk grew.
    pub(super) fn finish_growth(&self, w: &mut Writer) -> Result<()> {
        let Some(offset) = w.footers.current.old_footer() else { return Ok(()) };
        debug_assert_eq!(w.footers.current.disk_type.get(), FIXED);
        self.raw.zero(offset, SECTOR)?;
        self.raw.flush()?;
        let mut footer = w.footers.current;
        footer.set_note(footer.former_id(), None);
        self.put_footer(w, footer)?;
        self.set_geometry(w);
        Ok(())
    }
}

/// Why a disk can't have this size.
pub(super) fn check_size(size: u64) -> std::result::Result<(), String> {
    if size == 0 || size > VIRTUAL_SIZE_MAX || !size.is_multiple_of(SECTOR) {
        return Err(format!("a VHD disk of {size} bytes can't be: whole sectors of 512, at most 2040 GiB"));
    }
    Ok(())
}

fn sized(footer: &Footer, size: u64) -> Footer {
    let (cylinders, heads, sectors) = geometry(size);
    Footer { current_size: size.into(), cylinders: cylinders.into(), heads, sectors, ..*footer }
}
