//! What a merge does to an image: give up stretches, and their space.

use std::sync::PoisonError;

use super::geometry::{Blocks, Geometry};
use super::image::VhdImage;
use super::write::{Writer, entry_patch};
use crate::disk::{DiskError, Image, Presence, Released, Result, joined};
use crate::units::ByteCount;

/// Neighbouring space that is punched in one call, while reads wait.
const PUNCHED_AT_ONCE: u64 = 16 << 20;

/// Released space that wasn't punched yet.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Bytes in the file.
    length: u64,
    /// The offset on the disk that it held.
    disk_offset: u64,
    /// A whole block with its bitmap: its place can be used again.
    whole: bool,
}

impl Writer {
    /// Nothing of this range of the file is to be punched any more.
    pub(super) fn forget_released(&mut self, offset: u64, length: u64) {
        let inside: Vec<u64> = self.released.range(offset..offset + length).map(|(&at, _)| at).collect();
        for at in inside {
            self.released.remove(&at);
        }
    }

    fn add_released(&mut self, released: &mut Released, offset: u64, part: Part) {
        self.forget_released(offset, part.length);
        self.released.insert(offset, part);
        released.host_ranges.push((offset, part.length));
    }
}

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
            let part = Part { length: blocks.length(), disk_offset: first, whole: true };
            w.add_released(released, place, part);
            return Ok(());
        }
        let patch = self.bits_patch(place, start, length, false)?;
        self.apply(w, vec![patch], true)?;
        let part = Part { length, disk_offset: offset, whole: false };
        w.add_released(released, place + blocks.bitmap_length() + start, part);
        Ok(())
    }

    pub(super) fn punch_released(&self, released: &Released) -> Result<ByteCount> {
        let mut w = self.settled();
        if !self.is_writable() {
            return Err(self.refused("it is open for reading only"));
        }
        let held = || self.raw.host().held_bytes().map_err(|e| DiskError::io(self.raw.path(), "ask for the space it takes", e));
        let before = held()?;
        let mut ranges = &released.host_ranges[..];
        while let Some(&(first, length)) = ranges.first() {
            // Neighbours in the file go together, as far as that doesn't keep others waiting.
            let mut end = first + length;
            let count = ranges.iter().take_while(|(offset, length)| {
                let joins = *offset == first || (*offset == end && offset + length - first <= PUNCHED_AT_ONCE);
                end = if joins { offset + length } else { end };
                joins
            });
            let (group, rest) = ranges.split_at(count.count().max(1));
            ranges = rest;
            self.punch_group(&mut w, group)?;
        }
        Ok(before.saturating_sub(held()?))
    }

    fn punch_group(&self, w: &mut Writer, group: &[(u64, u64)]) -> Result<()> {
        // Nobody reads or overwrites at an old place behind this.
        let g = self.geometry.write().unwrap_or_else(PoisonError::into_inner);
        let (mut holes, mut free) = (Vec::new(), Vec::new());
        for &(offset, length) in group {
            // What isn't known any more went with its whole block.
            let Some(part) = w.released.get(&offset).copied().filter(|part| part.length == length) else { continue };
            w.released.remove(&offset);
            if part.whole {
                free.push(offset);
                holes.push((offset, length));
            } else {
                let extents = self.locate(&g, part.disk_offset, part.length)?;
                let unused = extents.iter().filter(|extent| !matches!(extent.presence, Presence::Data { .. }));
                holes.extend(unused.map(|extent| (offset + extent.offset - part.disk_offset, extent.length)));
            }
        }
        for (offset, length) in joined(&holes) {
            self.raw.host().punch_hole(offset, length).map_err(|e| DiskError::io(self.raw.path(), "punch a hole", e))?;
        }
        if let Some(space) = &mut w.space {
            free.into_iter().for_each(|place| space.free(place));
        }
        Ok(())
    }
}
