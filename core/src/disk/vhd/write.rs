//! Changing what an image holds: what goes in place, what allocates, and how changed metadata becomes durable.
//!
//! There is no log, so order is all. A sector's bit is durable only after its data, a block's place only after its
//! bitmap, and the footer stands behind a new block before anything of it is written:
//! ```text
//! footer behind ── flush ──> data ── flush ──> bitmaps ── flush ──> BAT ── flush
//! ```
//! Each bitmap and BAT sector says old or new, and any mixture of them is right.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use uuid::Uuid;

use super::footer::Footers;
use super::format::{DynamicHeader, Footer, HEADER_SIZE, SECTOR, UNUSED};
use super::geometry::{Blocks, Geometry, place_of};
use super::image::{Sector, VhdImage, describe, entry_in};
use super::sector_bitmap::fill;
use super::space::Space;
use crate::disk::pages::Patches;
use crate::disk::pending::Pending;
use crate::disk::released::Parts;
use crate::disk::{Image, ParentLink, Result};
use crate::locks::{lock, lock_alone, lock_shared, wait};

/// Zeros of this length or more become holes: shorter ones are likely to be written again.
pub(super) const LONG_ZEROS: u64 = 64 << 10;
/// The same where nobody needs what was there: what a hole can be as short as.
pub(super) const TRIMMED: u64 = 4 << 10;
/// With so many changed sectors a commit is due.
const DIRTY_MAX: usize = 1024;
/// Sectors of metadata that one write to one block changes at most.
const MOST_SECTORS: usize = 140;

/// What only one thread at a time may do something with.
#[derive(Debug)]
pub struct Writer {
    pub(super) footers: Footers,
    pub(super) header: Option<DynamicHeader>,
    pub(super) pending: Pending,
    /// Known from the first change on.
    pub(super) space: Option<Space>,
    /// Places of blocks that are free from the next commit on.
    pub(super) freed: Vec<u64>,
    /// What was released and not punched yet, by its offset in the file.
    pub(super) released: Parts,
    /// Where a header can be put meanwhile.
    pub(super) spare_header: Option<u64>,
    /// Something was changed by this opening.
    begun: bool,
    /// A commit is under way apart from this lock.
    committing: bool,
    /// A flush failed: nobody knows what is durable, so nothing more is changed.
    pub(super) failed: bool,
}

/// Metadata on its way into the file.
#[derive(Debug)]
struct Commit {
    sectors: Vec<(u64, Arc<Sector>)>,
    blocks: Option<Blocks>,
    freed: Vec<u64>,
    /// A flush, of which nobody knows what it made durable, was begun.
    in_doubt: bool,
}

impl Writer {
    pub(super) fn new(footers: Footers, header: Option<DynamicHeader>, pending: Pending) -> Self {
        Self {
            footers,
            header,
            pending,
            space: None,
            freed: Vec::new(),
            released: Parts::default(),
            spare_header: None,
            begun: false,
            committing: false,
            failed: false,
        }
    }
}

/// What sectors are to hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content<'a> {
    Bytes(&'a [u8]),
    /// Pieces of so many bytes or more become holes.
    Zeros {
        punched: u64,
    },
}

impl VhdImage {
    /// To be called before any change; before one of what the disk shows it renews the unique id, once for each opening.
    pub(super) fn begin(&self, w: &mut Writer, shows: bool) -> Result<()> {
        if !self.is_writable() {
            return Err(self.refused("it is open for reading only"));
        }
        if w.failed {
            return Err(self.refused("a flush failed before: open it again to see what is there"));
        }
        if w.space.is_none() {
            self.check_places(w, &self.geometry())?;
            w.space = Some(Space::new(w.footers.place));
        }
        w.begun = true;
        if shows && !self.id_settled.load(Ordering::Acquire) {
            let mut footer = w.footers.current;
            footer.unique_id = crate::fresh::uuid().into_bytes();
            footer.set_note(None, footer.old_footer());
            self.put_footer(w, footer)?;
            self.id_settled.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// The writer's lock, once no commit is under way.
    pub(super) fn settled(&self) -> MutexGuard<'_, Writer> {
        self.settle(lock(&self.writer))
    }

    fn settle<'a>(&'a self, mut w: MutexGuard<'a, Writer>) -> MutexGuard<'a, Writer> {
        while w.committing {
            w = wait(&self.committed, w);
        }
        w
    }

    /// The writer's lock for a write: waits for a commit only where the write may need one itself.
    fn for_write(&self) -> MutexGuard<'_, Writer> {
        let w = lock(&self.writer);
        let alone = !self.id_settled.load(Ordering::Acquire)
            || w.space.is_none()
            || w.pending.is_full()
            || lock(&self.pages).dirty_count() + MOST_SECTORS >= DIRTY_MAX;
        if alone { self.settle(w) } else { w }
    }

    /// Replaces the footer durably. Where the id changes, nothing may be left in the side file, which it keys.
    pub(super) fn put_footer(&self, w: &mut Writer, footer: Footer) -> Result<()> {
        if footer.unique_id != w.footers.current.unique_id {
            self.commit(w)?;
        }
        w.failed = true;
        w.footers.replace(&self.raw, footer)?;
        w.failed = false;
        self.refresh_info(w, None);
        Ok(())
    }

    /// Says the same in `info` as footer and header do; the link is the one before, if no new one is given.
    pub(super) fn refresh_info(&self, w: &Writer, link: Option<ParentLink>) {
        let mut info = lock_alone(&self.info);
        let link = link.or_else(|| info.parent.take()).filter(|_| self.geometry().has_parent);
        *info = describe(&w.footers.current, w.header.as_ref(), link);
    }

    pub(super) fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.change(offset, buf.len() as u64, |from, length| Content::Bytes(&buf[from as usize..(from + length) as usize]))
    }

    /// Pieces of `punched` bytes or more become holes.
    pub(super) fn zero(&self, offset: u64, length: u64, punched: u64) -> Result<()> {
        self.change(offset, length, |_, _| Content::Zeros { punched })
    }

    /// Block by block; `content` is asked for pieces by their place in the range.
    fn change<'a>(&self, offset: u64, length: u64, content: impl Fn(u64, u64) -> Content<'a>) -> Result<()> {
        let g = self.geometry();
        self.check_range(&g, offset, length)?;
        let unit = g.blocks.map_or(u64::MAX, |blocks| blocks.size);
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let piece = (unit - at % unit).min(end - at);
            let part = content(at - offset, piece);
            let overwritten = match part {
                Content::Bytes(bytes) => self.overwrite(bytes, at)?,
                Content::Zeros { .. } => false,
            };
            if !overwritten {
                self.store(at, piece, part)?;
            }
            at += piece;
        }
        Ok(())
    }

    /// Writes over sectors that all stand in the file; `false` where they don't. One write, no change of metadata.
    fn overwrite(&self, part: &[u8], offset: u64) -> Result<bool> {
        // Held to the end: the place stays, and so does the right to write.
        let g = lock_shared(&self.geometry);
        if !self.id_settled.load(Ordering::Acquire) || !self.is_writable() {
            return Ok(false);
        }
        let extents = self.locate(&g, offset, part.len() as u64)?;
        self.raw.overwrite(part, &extents)
    }

    fn store(&self, offset: u64, length: u64, content: Content<'_>) -> Result<()> {
        let mut w = self.for_write();
        self.begin(&mut w, true)?;
        let g = self.geometry();
        self.store_locked(&mut w, &g, offset, length, content)?;
        if is_due(self, &w) { self.commit_apart(self.settle(w)) } else { Ok(()) }
    }

    /// A piece of one block, which may lie behind the disk's end.
    pub(super) fn store_locked(
        &self,
        w: &mut Writer,
        g: &Geometry,
        offset: u64,
        length: u64,
        content: Content<'_>,
    ) -> Result<()> {
        let Some(blocks) = &g.blocks else { return self.put_content(offset, length, content, false) };
        let (block, start) = (offset / blocks.size, offset % blocks.size);
        let is_zeros = matches!(content, Content::Zeros { .. });
        let Some(place) = self.place(g, blocks, block)? else {
            // Without a parent, what isn't there is zeros.
            if is_zeros && !g.has_parent {
                return Ok(());
            }
            return self.store_new(w, g, blocks, block, (start, length), content);
        };
        self.put_content(place + blocks.bitmap_length() + start, length, content, true)?;
        let runs = self.sector_runs(blocks, place, offset, length)?;
        if runs.iter().all(|run| run.0) || (is_zeros && !g.has_parent) {
            return Ok(());
        }
        let patch = self.bits_patch(place, start, length, true)?;
        self.apply(w, vec![patch], false)
    }

    /// Writes the first sectors of a block that gets a place.
    fn store_new(
        &self,
        w: &mut Writer,
        g: &Geometry,
        blocks: &Blocks,
        block: u64,
        (start, length): (u64, u64),
        content: Content<'_>,
    ) -> Result<()> {
        let place = self.allocate_block(w, blocks)?;
        let stored = match content {
            Content::Bytes(_) => self.put_content(place + blocks.bitmap_length() + start, length, content, true),
            Content::Zeros { .. } => Ok(()),
        };
        // Without a parent all of it is there: some readers don't look at the bitmap then.
        let there = if g.has_parent { (start, length) } else { (0, blocks.size) };
        let stored = stored.and_then(|()| self.apply(w, new_block(blocks, block, place, there), false));
        if stored.is_err()
            && let Some(space) = w.space.as_mut().filter(|_| !w.failed)
        {
            // Such as a full volume: nothing names the place.
            space.free(place);
        }
        stored
    }

    pub(super) fn put_content(&self, host_offset: u64, length: u64, content: Content<'_>, may_punch: bool) -> Result<()> {
        match content {
            Content::Bytes(bytes) => self.raw.write(bytes, host_offset, "write data"),
            Content::Zeros { punched } if may_punch && length >= punched => self.raw.punch_or_zero(host_offset, length),
            Content::Zeros { .. } => self.raw.zero(host_offset, length),
        }
    }

    /// A patch that sets or clears the bits of a part of the block at `place`.
    pub(super) fn bits_patch(&self, place: u64, start: u64, length: u64, set: bool) -> Result<(u64, Vec<u8>)> {
        let (first, count) = (start / SECTOR, length / SECTOR);
        let mut bytes = vec![0; ((first + count).div_ceil(8) - first / 8) as usize];
        lock(&self.pages).read(&self.raw, &mut bytes, place + first / 8)?;
        fill(&mut bytes, (first % 8) as usize, count as usize, set);
        Ok((place + first / 8, bytes))
    }

    /// A place for a block, whose data is zeros.
    pub(super) fn allocate_block(&self, w: &mut Writer, blocks: &Blocks) -> Result<u64> {
        let footer = w.footers.place;
        let space = w.space.as_ref().ok_or_else(|| self.refused("what is free in it isn't known yet"))?;
        let (place, moves) = space.find_block(blocks, footer);
        self.make_room(w, place.offset + blocks.length(), moves)?;
        if !place.is_fresh {
            self.raw.punch_or_zero(place.offset, blocks.length())?;
            lock(&self.pages).forget(place.offset, blocks.length());
        }
        if let Some(space) = &mut w.space {
            space.take(place, blocks.length(), moves.is_some());
        }
        Ok(place.offset)
    }

    /// So many bytes behind everything; to be written over wholly.
    pub(super) fn allocate(&self, w: &mut Writer, length: u64) -> Result<u64> {
        let footer = w.footers.place;
        let space = w.space.as_ref().ok_or_else(|| self.refused("what is free in it isn't known yet"))?;
        let (place, moves) = space.find(length, footer);
        self.make_room(w, place.offset + length, moves)?;
        if let Some(space) = &mut w.space {
            space.take(place, length, moves.is_some());
        }
        Ok(place.offset)
    }

    fn make_room(&self, w: &mut Writer, end: u64, footer: Option<u64>) -> Result<()> {
        if end.max(footer.unwrap_or(0)) > u64::from(UNUSED) * SECTOR {
            return Err(self.refused("its file would be longer than 2 TiB, more than its table can name"));
        }
        let Some(footer) = footer else { return Ok(()) };
        let moved = w.footers.put_at(&self.raw, footer);
        // A volume that is full refuses the write, and nothing has happened.
        w.failed = moved.as_ref().is_err_and(|error| !error.is_full());
        moved
    }

    /// Walks over all BAT entries.
    pub(super) fn each_entry(&self, blocks: &Blocks, mut visit: impl FnMut(u64, u32) -> Result<()>) -> Result<()> {
        for sector in (blocks.table..blocks.table + blocks.entries * 4).step_by(SECTOR as usize) {
            let page = lock(&self.pages).peek(&self.raw, sector)?;
            let first = (sector - blocks.table) / 4;
            for block in first..(first + SECTOR / 4).min(blocks.entries) {
                visit(block, entry_in(&page, blocks.entry(block)))?;
            }
        }
        Ok(())
    }

    /// Where two blocks share a place, or one lies in the metadata or over the footer, a change of one would damage the
    /// other.
    pub(super) fn check_places(&self, w: &Writer, g: &Geometry) -> Result<()> {
        let Some(blocks) = &g.blocks else { return Ok(()) };
        let header = w.footers.current.data_offset.get();
        let (mut taken, count) = (Vec::new(), blocks.count(g.virtual_size));
        self.each_entry(blocks, |block, entry| {
            if let Some(place) = self.checked_place(g, blocks, block, entry)? {
                let end = place + blocks.bitmap_length() + g.shown_length(blocks, block);
                if block < count && end > w.footers.place {
                    return Err(self.invalid(blocks.entry(block), "BAT entry", format!("of block {block} lies over the footer")));
                }
                taken.push((place, end));
            }
            Ok(())
        })?;
        taken.extend([(0, SECTOR), (header, header + HEADER_SIZE as u64), (blocks.table, blocks.table_end())]);
        taken.sort_unstable();
        match taken.windows(2).find(|pair| pair[0].1 > pair[1].0) {
            Some(pair) => Err(self.invalid(pair[1].0, "BAT entry", "names a place that another one, or the metadata, has")),
            None => Ok(()),
        }
    }

    /// Makes changes of metadata: acknowledged when it returns. `alone` when a block loses its place or sectors.
    pub(super) fn apply(&self, w: &mut Writer, patches: Patches, alone: bool) -> Result<()> {
        w.pending.append(w.footers.current.unique_id, &patches)?;
        let _alone = alone.then(|| lock_alone(&self.geometry));
        let changed = lock(&self.pages).patch(&self.raw, &patches);
        // The side file says what memory doesn't.
        w.failed |= changed.is_err();
        changed
    }

    pub(super) fn commit_if_due(&self, w: &mut Writer) -> Result<()> {
        if is_due(self, w) { self.commit(w) } else { Ok(()) }
    }

    /// Makes everything acknowledged durable. The lock is held: for the middle of a change of several steps.
    pub(super) fn commit(&self, w: &mut Writer) -> Result<()> {
        let mut commit = self.begin_commit(w)?;
        let outcome = self.write_commit(&mut commit);
        self.end_commit(w, commit, outcome)
    }

    /// The same, while writes that change metadata go on: they are in the side file until the next commit.
    pub(super) fn commit_apart(&self, mut w: MutexGuard<'_, Writer>) -> Result<()> {
        if w.pending.is_full() {
            return self.commit(&mut w);
        }
        let mut commit = self.begin_commit(&mut w)?;
        w.committing = true;
        drop(w);
        let outcome = self.write_commit(&mut commit);
        let mut w = lock(&self.writer);
        w.committing = false;
        self.committed.notify_all();
        self.end_commit(&mut w, commit, outcome)
    }

    fn begin_commit(&self, w: &mut Writer) -> Result<Commit> {
        if w.failed {
            return Err(self.refused("a flush failed before: open it again to see what is there"));
        }
        debug_assert!(!w.committing, "a commit is under way");
        w.pending.begin_commit();
        Ok(Commit {
            sectors: lock(&self.pages).dirty(),
            blocks: self.geometry().blocks,
            freed: std::mem::take(&mut w.freed),
            in_doubt: false,
        })
    }

    fn write_commit(&self, commit: &mut Commit) -> Result<()> {
        let is_bat = |at: u64| commit.blocks.is_some_and(|blocks| (blocks.table..blocks.table_end()).contains(&at));
        let (bat, bitmaps): (Vec<_>, Vec<_>) = commit.sectors.iter().partition(|(at, _)| is_bat(*at));
        commit.in_doubt = true;
        self.raw.flush()?;
        for sectors in [bitmaps, bat].iter().filter(|sectors| !sectors.is_empty()) {
            // What a full volume refuses is written again, and what was written may be there already.
            commit.in_doubt = false;
            self.write_sectors(sectors)?;
            commit.in_doubt = true;
            self.raw.flush()?;
        }
        Ok(())
    }

    /// Neighbours together.
    fn write_sectors(&self, sectors: &[&(u64, Arc<Sector>)]) -> Result<()> {
        let neighbours = sectors.chunk_by(|a, b| a.0 + SECTOR == b.0);
        for group in neighbours {
            let bytes: Vec<u8> = group.iter().flat_map(|(_, sector)| sector.iter().copied()).collect();
            self.raw.write(&bytes, group[0].0, "write metadata")?;
        }
        Ok(())
    }

    fn end_commit(&self, w: &mut Writer, commit: Commit, outcome: Result<()>) -> Result<()> {
        if let Err(error) = outcome {
            w.failed = commit.in_doubt || !error.is_full();
            w.freed.splice(..0, commit.freed);
            return Err(error);
        }
        w.failed = true;
        lock(&self.pages).written(&commit.sectors);
        w.pending.end_commit()?;
        w.failed = false;
        if let Some(space) = &mut w.space {
            commit.freed.into_iter().for_each(|place| space.free(place));
        }
        Ok(())
    }

    pub(super) fn flush_all(&self) -> Result<()> {
        if !self.is_writable() {
            return Ok(());
        }
        let w = self.settled();
        if w.failed || lock(&self.pages).dirty_count() > 0 {
            return self.commit_apart(w);
        }
        drop(w);
        self.raw.flush()
    }

    /// Everything durable, the side file gone, and the footer right behind what is used.
    fn close(&self, w: &mut Writer) -> Result<()> {
        self.commit(w)?;
        let end = w.space.as_ref().map_or(w.footers.place, Space::end);
        let spare = w.spare_header.take().filter(|spare| spare + HEADER_SIZE as u64 == end);
        let end = spare.unwrap_or(end);
        if end < w.footers.place {
            w.failed = true;
            w.footers.put_at(&self.raw, end)?;
            self.raw.cut(end + SECTOR)?;
            self.raw.flush()?;
            (w.failed, w.space) = (false, None);
        }
        w.pending.remove()
    }

    pub(super) fn close_for_writing(&self) -> Result<()> {
        let mut w = self.settled();
        if !self.is_writable() {
            return Ok(());
        }
        // Overwrites that are under way end before.
        self.writable.store(false, Ordering::Release);
        drop(lock_alone(&self.geometry));
        let closed = self.close(&mut w);
        if closed.is_err() {
            self.writable.store(true, Ordering::Release);
            return closed;
        }
        self.raw.share()
    }

    pub(super) fn close_quietly(&self) -> Result<()> {
        let mut w = self.settled();
        if self.is_writable() && w.begun && !w.failed { self.close(&mut w) } else { Ok(()) }
    }

    pub(super) fn pin_id(&self) -> Result<Uuid> {
        let mut w = self.settled();
        self.begin(&mut w, true)?;
        Ok(w.footers.current.id())
    }
}

/// Whether there is as much to commit as there may be.
fn is_due(image: &VhdImage, w: &Writer) -> bool {
    lock(&image.pages).dirty_count() >= DIRTY_MAX || w.pending.is_full()
}

/// What makes a block be at `place`: its bits are set from nothing.
pub(super) fn new_block(blocks: &Blocks, block: u64, place: u64, (start, length): (u64, u64)) -> Patches {
    let mut bitmap = vec![0; blocks.bitmap_length() as usize];
    fill(&mut bitmap, (start / SECTOR) as usize, (length / SECTOR) as usize, true);
    vec![(place, bitmap), entry_patch(blocks, block, Some(place))]
}

pub(super) fn entry_patch(blocks: &Blocks, block: u64, place: Option<u64>) -> (u64, Vec<u8>) {
    let entry = place.map_or(UNUSED, |place| (place / SECTOR) as u32);
    debug_assert_eq!(place_of(entry), place);
    (blocks.entry(block), entry.to_be_bytes().to_vec())
}
