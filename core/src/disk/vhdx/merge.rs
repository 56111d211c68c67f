//! What only a merge and its switch do to an image: give up stretches, change links and identity.

use uuid::Uuid;

use super::bat::{BatEntry, BlockState, Geometry};
use super::create::locator;
use super::format::{BITMAP_BLOCK_SIZE, MetadataTableEntry, PARENT_LOCATOR};
use super::image::VhdxImage;
use super::metadata::Parameters;
use super::parent_locator::ParentLocator;
use super::write::{Writer, entry_patch};
use crate::disk::released::Part;
use crate::disk::{Image, ParentTarget, Released, Result, joined};
use crate::locks::{lock, lock_alone};
use crate::units::ByteCount;

impl VhdxImage {
    pub(super) fn release_stretches(&self, stretches: &[(u64, u64)]) -> Result<Released> {
        let mut w = self.settled();
        let g = self.geometry();
        for &(offset, length) in stretches {
            self.check_range(&g, offset, length)?;
        }
        self.begin(&mut w, false)?;
        let mut released = Released { host_ranges: Vec::new() };
        if g.leave_allocated {
            return Ok(released);
        }
        for (offset, length) in joined(stretches) {
            let (mut at, end) = (offset, offset + length);
            while at < end {
                let (block, start) = (at / g.block_size, at % g.block_size);
                let piece = (g.block_size - start).min(end - at);
                self.release_part(&mut w, &g, block, (start, piece), &mut released)?;
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
        block: u64,
        (start, length): (u64, u64),
        released: &mut Released,
    ) -> Result<()> {
        let (entry, state) = self.entry(g, block)?;
        let shown = g.shown_length(block);
        let whole = start == 0 && length >= shown;
        let part = Part { length, disk_offset: block * g.block_size + start, is_whole: false };
        let others = [(0, start), (start + length, shown.saturating_sub(start + length))];
        match state {
            BlockState::NotPresent => Ok(()),
            BlockState::FullyPresent | BlockState::PartiallyPresent if whole => self.give_up(w, g, block, released),
            BlockState::Zero if whole => self.apply(w, vec![entry_patch(g.payload_entry(block), BatEntry::NOT_PRESENT)], true),
            // Without a parent there are no sector bits: only whole blocks can be given up.
            _ if !g.has_parent => Ok(()),
            BlockState::Zero => {
                let place = self.place_block(w, g, block)?;
                let patches = self.partial_patches(w, g, block, place, &others)?;
                self.apply(w, patches, true)
            }
            BlockState::FullyPresent => {
                let patches = self.partial_patches(w, g, block, entry.offset(), &others)?;
                self.apply(w, patches, true)?;
                w.released.add(released, entry.offset() + start, part);
                Ok(())
            }
            BlockState::PartiallyPresent => {
                let runs = self.partial_runs(g, block, block * g.block_size, shown)?;
                let (from, to) = (block * g.block_size + start, block * g.block_size + start + length);
                if !runs.iter().any(|&(present, at, length)| present && (at < from || at + length > to)) {
                    return self.give_up(w, g, block, released);
                }
                let patches = vec![self.bits_patch(g, block, start, length, false)?];
                self.apply(w, patches, true)?;
                w.released.add(released, entry.offset() + start, part);
                Ok(())
            }
        }
    }

    /// A block without anything left: no place, no bits.
    fn give_up(&self, w: &mut Writer, g: &Geometry, block: u64, released: &mut Released) -> Result<()> {
        let (entry, state) = self.entry(g, block)?;
        let mut patches = vec![entry_patch(g.payload_entry(block), BatEntry::NOT_PRESENT)];
        if state == BlockState::PartiallyPresent {
            patches.push(self.bits_patch(g, block, 0, g.block_size, false)?);
        }
        self.apply(w, patches, true)?;
        let part = Part { length: g.block_size, disk_offset: block * g.block_size, is_whole: true };
        w.released.add(released, entry.offset(), part);
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
                gone.places.into_iter().for_each(|(place, length)| space.free(place, length));
            }
        }
        Ok(before.saturating_sub(self.raw.held_bytes()?))
    }

    fn replace_locator(&self, w: &mut Writer, change: impl FnOnce(&mut ParentLocator)) -> Result<()> {
        let mut parameters = w.parameters.clone();
        let Some(locator) = &mut parameters.locator else {
            return Err(self.refused("it has no parent"));
        };
        change(locator);
        self.begin(w, false)?;
        let patches = w.table.set_item(PARENT_LOCATOR, MetadataTableEntry::IS_REQUIRED, &locator.encode());
        let patches = patches.ok_or_else(|| self.refused("its metadata has no room for the parent's path"))?;
        self.apply_at_once(w, patches, None)?;
        w.parameters = parameters;
        self.refresh_info(w);
        Ok(())
    }

    pub(super) fn replace_linkage(&self, linkage: Uuid, linkage2: Option<Uuid>) -> Result<()> {
        self.replace_locator(&mut self.settled(), |locator| locator.set_linkage(linkage, linkage2))
    }

    pub(super) fn replace_parent(&self, parent: &ParentTarget) -> Result<()> {
        let new = locator(&self.host, self.raw.path(), &parent.path, parent.data_write_id);
        self.replace_locator(&mut self.settled(), |locator| *locator = new)
    }

    pub(super) fn drop_parent(&self) -> Result<()> {
        let mut w = self.settled();
        let g = self.geometry();
        self.begin(&mut w, false)?;
        if !g.has_parent {
            return Ok(());
        }
        // Nothing stands below any longer, so zeros in place of what is absent show nothing new; block by
        // block, as all of them may not fit into one log entry. The last entry is the one that counts.
        for block in 0..g.block_count() {
            self.complete(&mut w, &g, block)?;
            let chunk_ends = (block + 1).is_multiple_of(g.chunk_ratio) || block + 1 == g.block_count();
            if chunk_ends && let Some(bitmap) = self.bitmap_place(&g, block)? {
                self.apply(&mut w, vec![entry_patch(g.bitmap_entry(block), BatEntry::NOT_PRESENT)], true)?;
                w.freed.push((bitmap, BITMAP_BLOCK_SIZE));
            }
            self.commit_if_due(&mut w)?;
        }
        let parameters = Parameters { leave_allocated: false, locator: None, ..w.parameters.clone() };
        let Some((id, flags, content)) = parameters.items().into_iter().next() else { return Ok(()) };
        let mut patches = w.table.set_item(id, flags, &content).unwrap_or_default();
        patches.extend(w.table.remove_item(PARENT_LOCATOR, false));
        let geometry = Geometry { has_parent: false, leave_allocated: false, ..(*g).clone() };
        self.apply_at_once(&mut w, patches, Some(geometry))?;
        w.parameters = parameters;
        self.refresh_info(&w);
        Ok(())
    }

    /// A partial block becomes a full one, with zeros for what is absent.
    fn complete(&self, w: &mut Writer, g: &Geometry, block: u64) -> Result<()> {
        let (entry, state) = self.entry(g, block)?;
        if state != BlockState::PartiallyPresent {
            return Ok(());
        }
        for (present, at, length) in self.partial_runs(g, block, block * g.block_size, g.shown_length(block))? {
            if !present {
                self.raw.punch_or_zero(entry.offset() + at % g.block_size, length)?;
            }
        }
        self.apply(w, vec![entry_patch(g.payload_entry(block), BatEntry::full(entry.offset()))], true)
    }

    pub(super) fn take_identity(&self, other: &dyn Image) -> Result<()> {
        let (info, items) = (other.info(), other.optional_items()?);
        let mut w = self.settled();
        let g = self.geometry();
        if u64::from(info.logical_sector_size) != g.sector_size {
            return Err(self.refused(format!(
                "its sectors have {} bytes, those of {} have {}",
                g.sector_size,
                other.path().display(),
                info.logical_sector_size
            )));
        }
        self.begin(&mut w, false)?;
        self.resize(&mut w, info.virtual_size.0)?;
        let parameters =
            Parameters { disk_id: info.disk_id, physical_sector_size: info.physical_sector_size, ..w.parameters.clone() };
        let mut patches = Vec::new();
        for (id, flags, content) in parameters.items() {
            patches.extend(w.table.set_item(id, flags, &content).unwrap_or_default());
        }
        self.apply_at_once(&mut w, patches, None)?;
        w.parameters = parameters;
        self.refresh_info(&w);

        let own = w.table.unknown(&self.raw, &mut lock(&self.pages))?;
        for item in own.iter().filter(|own| !items.contains(own)) {
            let patches = w.table.remove_item(item.id, item.flags & 1 == 1);
            self.apply_at_once(&mut w, patches, None)?;
        }
        for item in items.iter().filter(|item| !own.contains(item)) {
            let patches = w.table.set_item(item.id, item.flags, &item.content);
            let patches = patches.ok_or_else(|| self.refused("its metadata has no room for an item that is to be kept"))?;
            self.apply_at_once(&mut w, patches, None)?;
        }
        Ok(())
    }
}
