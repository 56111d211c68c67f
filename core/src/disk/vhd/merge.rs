//! What a merge does to an image: give up stretches, and their space.

use super::geometry::{Blocks, Geometry};
use super::image::VhdImage;
use super::write::{Writer, entry_patch};
use crate::disk::released::Part;
use crate::disk::{Image, Released, Result, joined};
use crate::locks::lock_alone;
use crate::units::ByteCount;

impl VhdImage {
    pub(super) fn release_stretches(&self, stretches: &[(u64, u64)]) -> Result<Released> {
        let mut w = self.settled();
        let g = self.geometry();
        for &(offset, length) in stretches {
            self.check_range(&g, offset, length)?;
        }
        self.begin(&mut w, false)?;
        let mut released = Released { host_ranges: Vec::new() };
        let Some(blocks) = &g.blocks else { return Ok(released) };
        for (offset, length) in joined(stretches) {
            let (mut at, end) = (offset, offset + length);
            while at < end {
                let piece = (blocks.size - at % blocks.size).min(end - at);
                self.release_part(&mut w, &g, blocks, (at, piece), &mut released)?;
                self.commit_if_due(&mut w)?;
                at += piece;
            }
        }
        Ok(released)
    }

    fn release_part(
        &self,
        w: &mut Writer,
        g: &Geometry,
        blocks: &Blocks,
        (offset, length): (u64, u64),
        released: &mut Released,
    ) -> Result<()> {
        let (block, start) = (offset / blocks.size, offset % blocks.size);
        let Some(place) = self.place(g, blocks, block)? else { return Ok(()) };
        let shown = g.shown_length(blocks, block);
        let whole = start == 0 && length >= shown;
        // Without a parent the rest of a block would have to be told from zeros: only whole ones can be given up.
        if !whole && !g.has_parent {
            return Ok(());
        }
        let first = block * blocks.size;
        let left = match whole {
            true => false,
            false => {
                let before = self.sector_runs(blocks, place, first, start)?;
                let after = self.sector_runs(blocks, place, offset + length, shown - start - length)?;
                before.iter().chain(&after).any(|run| run.0)
            }
        };
        if !left {
            self.apply(w, vec![entry_patch(blocks, block, None)], true)?;
            let part = Part { length: blocks.length(), disk_offset: first, is_whole: true };
            w.released.add(released, place, part);
            return Ok(());
        }
        let patch = self.bits_patch(place, start, length, false)?;
        self.apply(w, vec![patch], true)?;
        let part = Part { length, disk_offset: offset, is_whole: false };
        w.released.add(released, place + blocks.bitmap_length() + start, part);
        Ok(())
    }

    pub(super) fn punch_released(&self, released: &Released) -> Result<ByteCount> {
        let mut w = self.settled();
        if !self.is_writable() {
            return Err(self.refused("it is open for reading only"));
        }
        let before = self.raw.held_bytes()?;
        for group in released.groups() {
            // Nobody reads or overwrites at an old place behind this.
            let g = lock_alone(&self.geometry);
            let gone = w.released.take(group, |offset, length| self.locate(&g, offset, length))?;
            self.raw.punch(&gone.holes)?;
            if let Some(space) = &mut w.space {
                gone.places.into_iter().for_each(|(place, _)| space.free(place));
            }
        }
        Ok(before.saturating_sub(self.raw.held_bytes()?))
    }
}
