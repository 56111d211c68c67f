//! Changing an image: what goes in place, what allocates, and how changed metadata becomes durable.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use uuid::Uuid;

use super::bat::{BatEntry, BlockState, Geometry};
use super::format::{BITMAP_BLOCK_SIZE, Guid, HEADER_SECTION_SIZE, PAGE, PAGE_SIZE};
use super::header::Headers;
use super::image::{VhdxImage, describe, entry_in};
use super::log;
use super::metadata::{MetadataTable, Parameters};
use super::sector_bitmap::fill;
use super::space::{Place, Space};
use crate::disk::pages::{Page, Patches};
use crate::disk::pending::Pending;
use crate::disk::released::Parts;
use crate::disk::{Image, Result};
use crate::locks::{lock, lock_alone, lock_shared, wait};

/// Zeros of this length or more are punched where blocks may lose their place: shorter ones are likely to be written again.
pub(super) const LONG_ZEROS: u64 = 64 << 10;
/// The same where nobody needs what was there: what a hole can be as short as.
pub(super) const TRIMMED: u64 = 4 << 10;
/// Metadata pages that one write to one block changes at most.
const MOST_PAGES: usize = 24;

/// What only one thread at a time may do something with.
#[derive(Debug)]
pub struct Writer {
    pub(super) headers: Headers,
    pub(super) table: MetadataTable,
    pub(super) parameters: Parameters,
    pub(super) pending: Pending,
    /// Known from the first change on.
    pub(super) space: Option<Space>,
    /// Blocks that are zero now, and the places they had; nothing to be done before the next commit.
    zeroed: Vec<(u64, u64)>,
    /// Places that are free from the next commit on.
    pub(super) freed: Vec<(u64, u64)>,
    /// What was released and not punched yet, by its offset in the file.
    pub(super) released: Parts,
    /// The FileWriteGuid was renewed by this opening.
    begun: bool,
    /// Which half of the log the next commit uses.
    second_half: bool,
    /// A commit is under way apart from this lock: headers and log belong to it.
    committing: bool,
    /// A commit failed: nobody knows what is durable, so nothing more is changed.
    failed: bool,
}

/// Metadata on its way into the file.
#[derive(Debug)]
struct Commit {
    pages: Vec<(u64, Arc<Page>)>,
    headers: Headers,
    /// Which half of the log it uses.
    second_half: bool,
    /// What was zeroed and freed before it.
    zeroed: Vec<(u64, u64)>,
    freed: Vec<(u64, u64)>,
    /// Whether the log stays in use when it ends: the pages stand in their places, and the next flush makes them durable.
    keeps_log: bool,
    /// How far it came.
    reached: Reached,
}

/// How far a commit came. A write that finds the volume full changes nothing that counts before the header names the
/// log, and nothing that the log doesn't hold afterwards: such a commit is done again. Of a header or a flush that
/// failed nobody knows what is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// The log is being written.
    Log,
    /// A header, or a flush.
    Doubt,
    /// The header names the log; the pages are being written.
    Pages,
}

impl Writer {
    pub(super) fn new(headers: Headers, table: MetadataTable, parameters: Parameters, pending: Pending) -> Self {
        Self {
            headers,
            table,
            parameters,
            pending,
            space: None,
            zeroed: Vec::new(),
            freed: Vec::new(),
            released: Parts::default(),
            begun: false,
            second_half: false,
            committing: false,
            failed: false,
        }
    }

    /// With so many changed pages a commit is due: half of what an entry holds, as one step may change several.
    pub(super) fn dirty_limit(&self) -> usize {
        (log::entry_capacity(self.headers.current.log_length.get().into()) / 2).max(1)
    }
}

/// What a block is to hold.
#[derive(Debug, Clone, Copy)]
enum Content<'a> {
    Bytes(&'a [u8]),
    /// Pieces of so many bytes or more become holes.
    Zeros {
        punched: u64,
    },
}

impl VhdxImage {
    /// To be called before any change: renews the FileWriteGuid, and for a change of what the disk shows the
    /// DataWriteGuid, once for each opening.
    pub(super) fn begin(&self, w: &mut Writer, shows: bool) -> Result<()> {
        if !self.is_writable() {
            return Err(self.refused("it is open for reading only"));
        }
        if w.failed {
            return Err(self.refused("a flush failed before: open it again to see what is there"));
        }
        if !w.begun && w.space.is_none() {
            // Where two blocks share a place, or one lies in a region, a change of one would damage the other.
            self.find_space(w, &self.geometry())?;
        }
        let renew = shows && !self.data_id_settled.load(Ordering::Acquire);
        if renew {
            return self.put_data_id(w, Guid::random());
        }
        if !w.begun {
            let id = w.headers.current.data_write_guid;
            return self.put_header(w, id);
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

    /// The writer's lock for a write: waits for a commit only where the write may need headers or log itself.
    fn for_write(&self) -> MutexGuard<'_, Writer> {
        let w = lock(&self.writer);
        let alone = !w.begun
            || !self.data_id_settled.load(Ordering::Acquire)
            || w.space.is_none()
            || w.pending.is_full()
            || lock(&self.pages).dirty_count() + MOST_PAGES >= w.dirty_limit();
        if alone { self.settle(w) } else { w }
    }

    fn put_header(&self, w: &mut Writer, data_write_guid: Guid) -> Result<()> {
        let mut header = w.headers.current;
        if !w.begun {
            header.file_write_guid = Guid::random();
        }
        header.data_write_guid = data_write_guid;
        w.failed = true;
        w.headers.replace(&self.raw, header)?;
        (w.failed, w.begun) = (false, true);
        Ok(())
    }

    fn put_data_id(&self, w: &mut Writer, id: Guid) -> Result<()> {
        self.put_header(w, id)?;
        lock_alone(&self.info).data_write_id = id.into();
        self.data_id_settled.store(true, Ordering::Release);
        Ok(())
    }

    pub(super) fn pin_data_id(&self) -> Result<Uuid> {
        let mut w = self.settled();
        self.begin(&mut w, true)?;
        Ok(w.headers.current.data_write_guid.into())
    }

    pub(super) fn replace_data_id(&self, id: Uuid) -> Result<()> {
        let mut w = self.settled();
        self.begin(&mut w, false)?;
        self.put_data_id(&mut w, id.into())
    }

    pub(super) fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_range(&self.geometry(), offset, buf.len() as u64)?;
        self.each_block(offset, buf.len() as u64, |g, block, start, length| {
            let from = (block * g.block_size + start - offset) as usize;
            let part = &buf[from..from + length as usize];
            if self.overwrite(part, block * g.block_size + start)? {
                return Ok(());
            }
            self.store(block, start, length, Content::Bytes(part))
        })
    }

    /// Pieces of `punched` bytes or more become holes.
    pub(super) fn zero(&self, offset: u64, length: u64, punched: u64) -> Result<()> {
        self.check_range(&self.geometry(), offset, length)?;
        self.each_block(offset, length, |_, block, start, length| self.store(block, start, length, Content::Zeros { punched }))
    }

    /// Zeros for a part of a block that the disk may not show yet.
    pub(super) fn zero_part(&self, w: &mut Writer, g: &Geometry, block: u64, start: u64, length: u64) -> Result<()> {
        self.store_locked(w, g, block, start, length, Content::Zeros { punched: LONG_ZEROS })
    }

    fn each_block(&self, offset: u64, length: u64, mut step: impl FnMut(&Geometry, u64, u64, u64) -> Result<()>) -> Result<()> {
        let g = self.geometry();
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let (block, start) = (at / g.block_size, at % g.block_size);
            let piece = (g.block_size - start).min(end - at);
            step(&g, block, start, piece)?;
            at += piece;
        }
        Ok(())
    }

    /// Writes over sectors that all stand in the file; `false` where they don't. One write, no change of metadata.
    fn overwrite(&self, part: &[u8], offset: u64) -> Result<bool> {
        // Held to the end: the place stays, and so does the right to write.
        let g = lock_shared(&self.geometry);
        if !self.data_id_settled.load(Ordering::Acquire) || !self.is_writable() {
            return Ok(false);
        }
        let extents = self.locate(&g, offset, part.len() as u64)?;
        self.raw.overwrite(part, &extents)
    }

    fn store(&self, block: u64, start: u64, length: u64, content: Content<'_>) -> Result<()> {
        let mut w = self.for_write();
        self.begin(&mut w, true)?;
        let g = self.geometry();
        self.store_locked(&mut w, &g, block, start, length, content)?;
        if self.is_due(&w) { self.commit_apart(self.settle(w), false) } else { Ok(()) }
    }

    fn store_locked(
        &self,
        w: &mut Writer,
        g: &Geometry,
        block: u64,
        start: u64,
        length: u64,
        content: Content<'_>,
    ) -> Result<()> {
        let (entry, state) = self.entry(g, block)?;
        let whole = start == 0 && length >= g.shown_length(block);
        let zeros = matches!(content, Content::Zeros { .. });
        match state {
            BlockState::Zero if zeros => return Ok(()),
            BlockState::NotPresent if zeros && !whole && !g.has_parent => return Ok(()),
            _ if zeros && whole && !g.leave_allocated => {
                self.apply(w, vec![entry_patch(g.payload_entry(block), BatEntry::ZERO)], entry.is_placed())?;
                if entry.is_placed() {
                    w.zeroed.push((block, entry.offset()));
                }
                return Ok(());
            }
            BlockState::FullyPresent | BlockState::PartiallyPresent => {
                self.put_content(g, entry.offset() + start, length, content)?;
                if state == BlockState::PartiallyPresent {
                    let patch = if whole {
                        entry_patch(g.payload_entry(block), BatEntry::full(entry.offset()))
                    } else {
                        self.bits_patch(g, block, start, length, true)?
                    };
                    self.apply(w, vec![patch], false)?;
                }
                return Ok(());
            }
            BlockState::NotPresent | BlockState::Zero => {}
        }
        let place = self.place_block(w, g, block)?;
        let partial = !whole && state == BlockState::NotPresent && g.has_parent;
        let stored = self.store_new(w, g, (block, place), (start, length), content, partial);
        if stored.is_err()
            && let Some(space) = w.space.as_mut().filter(|_| !w.failed)
        {
            // Such as a full volume: when the block is written again, it finds its place.
            space.keep(block, place);
        }
        stored
    }

    /// Writes the first bytes of a block that gets a place.
    fn store_new(
        &self,
        w: &mut Writer,
        g: &Geometry,
        (block, place): (u64, u64),
        (start, length): (u64, u64),
        content: Content<'_>,
        partial: bool,
    ) -> Result<()> {
        if let Content::Bytes(_) = content {
            self.put_content(g, place + start, length, content)?;
        }
        if !partial {
            return self.apply(w, vec![entry_patch(g.payload_entry(block), BatEntry::full(place))], false);
        }
        let patches = self.partial_patches(w, g, block, place, &[(start, length)])?;
        let entry = patches.iter().find(|(at, _)| *at == g.bitmap_entry(block)).map(|(_, bytes)| bytes[..].try_into());
        let new_bitmap = entry.and_then(std::result::Result::ok).map(|bytes| BatEntry(u64::from_le_bytes(bytes)).offset());
        let applied = self.apply(w, patches, false);
        if let (Err(_), Some(bitmap), Some(space)) = (&applied, new_bitmap, w.space.as_mut().filter(|_| !w.failed)) {
            space.free(bitmap, BITMAP_BLOCK_SIZE);
        }
        applied
    }

    fn put_content(&self, g: &Geometry, host_offset: u64, length: u64, content: Content<'_>) -> Result<()> {
        match content {
            Content::Bytes(bytes) => self.raw.write(bytes, host_offset, "write data"),
            Content::Zeros { punched } if length >= punched && !g.leave_allocated => self.raw.punch_or_zero(host_offset, length),
            Content::Zeros { .. } => self.raw.zero(host_offset, length),
        }
    }

    /// Patches that make a block PARTIALLY_PRESENT at `place`, with exactly these parts (start in the block, length)
    /// present: its bits are set from nothing.
    pub(super) fn partial_patches(
        &self,
        w: &mut Writer,
        g: &Geometry,
        block: u64,
        place: u64,
        parts: &[(u64, u64)],
    ) -> Result<Patches> {
        let mut patches = vec![entry_patch(g.payload_entry(block), BatEntry::partial(place))];
        let bitmap = match self.bitmap_place(g, block)? {
            Some(bitmap) => bitmap,
            None => {
                let bitmap = self.allocate(w, BITMAP_BLOCK_SIZE)?;
                patches.push(entry_patch(g.bitmap_entry(block), BatEntry::full(bitmap)));
                bitmap
            }
        };
        // A block's bits are whole bytes: there are 256 at least.
        let mut bytes = vec![0; (g.block_size / g.sector_size / 8) as usize];
        for (start, length) in parts {
            fill(&mut bytes, (start / g.sector_size) as usize, (length / g.sector_size) as usize, true);
        }
        patches.push((bitmap + g.bit(block * g.block_size) / 8, bytes));
        Ok(patches)
    }

    /// A patch that sets or clears the bits of a part of a partial block.
    pub(super) fn bits_patch(&self, g: &Geometry, block: u64, start: u64, length: u64, set: bool) -> Result<(u64, Vec<u8>)> {
        let bitmap = self.bitmap_place(g, block)?;
        let bitmap = bitmap.ok_or_else(|| self.invalid(g.bitmap_entry(block), "State", "of a needed sector bitmap is 0"))?;
        let (first, count) = (g.bit(block * g.block_size + start), length / g.sector_size);
        let mut bytes = vec![0; ((first + count).div_ceil(8) - first / 8) as usize];
        lock(&self.pages).read(&self.raw, &mut bytes, bitmap + first / 8)?;
        fill(&mut bytes, (first % 8) as usize, count as usize, set);
        Ok((bitmap + first / 8, bytes))
    }

    /// A zeroed place for a block.
    pub(super) fn place_block(&self, w: &mut Writer, g: &Geometry, block: u64) -> Result<u64> {
        match w.space.as_mut().and_then(|space| space.take_kept(block)) {
            Some(place) => self.prepare(place, g.block_size),
            None => self.allocate(w, g.block_size),
        }
    }

    /// A zeroed place of so many bytes.
    pub(super) fn allocate(&self, w: &mut Writer, length: u64) -> Result<u64> {
        let space = w.space.as_mut().ok_or_else(|| self.refused("what is free in it isn't known yet"))?;
        let place = space.allocate(length);
        self.prepare(place, length)
    }

    fn prepare(&self, place: Place, length: u64) -> Result<u64> {
        self.raw.extend(place.offset + length)?;
        if !place.is_fresh {
            self.raw.punch_or_zero(place.offset, length)?;
            lock(&self.pages).forget(place.offset, length);
        }
        Ok(place.offset)
    }

    /// Walks over the BAT for what is free.
    fn find_space(&self, w: &mut Writer, g: &Geometry) -> Result<()> {
        // A place that only a pending change gives up is not free.
        if lock(&self.pages).dirty_count() > 0 {
            self.commit(w)?;
        }
        let mut taken = vec![(0, HEADER_SECTION_SIZE), (g.log.offset, g.log.length)];
        taken.extend(g.regions.all().map(|region| (region.offset, region.length)));
        taken.extend(w.released.places());
        self.each_entry(g, |place, block, entry| {
            let length = match block {
                Some(block) => self.checked_entry(g, block, entry).map(|_| g.block_size)?,
                None => self.checked_bitmap(g, place, entry).map(|_| BITMAP_BLOCK_SIZE)?,
            };
            if entry.is_placed() {
                taken.push((entry.offset(), length));
            }
            Ok(())
        })?;
        let space = Space::new(taken, self.raw.len());
        w.space = Some(space.map_err(|offset| self.invalid(offset, "FileOffsetMB", "overlaps another block or region"))?);
        Ok(())
    }

    /// Walks over all BAT entries, unchecked: where each stands, its block (`None` for bitmap entries), and itself.
    pub(super) fn each_entry(&self, g: &Geometry, mut visit: impl FnMut(u64, Option<u64>, BatEntry) -> Result<()>) -> Result<()> {
        let (first, count) = (g.regions.bat.offset, g.entry_count());
        for index in (0..count).step_by(PAGE_SIZE / 8) {
            let page = lock(&self.pages).peek(&self.raw, first + index * 8)?;
            for index in index..(index + PAGE / 8).min(count) {
                let place = first + index * 8;
                let entry = entry_in(&page, place);
                let (chunk, inside) = (index / (g.chunk_ratio + 1), index % (g.chunk_ratio + 1));
                let block = chunk * g.chunk_ratio + inside;
                if inside == g.chunk_ratio {
                    visit(place, None, entry)?;
                } else if block < g.block_count() {
                    visit(place, Some(block), entry)?;
                }
            }
        }
        Ok(())
    }

    /// Makes changes of metadata: acknowledged when it returns. `alone` when a block loses its place.
    pub(super) fn apply(&self, w: &mut Writer, patches: Patches, alone: bool) -> Result<()> {
        w.pending.append(w.headers.current.file_write_guid.0, &patches)?;
        let _alone = alone.then(|| lock_alone(&self.geometry));
        let changed = lock(&self.pages).patch(&self.raw, &patches);
        // The side file says what memory doesn't.
        w.failed |= changed.is_err();
        changed
    }

    /// Whether there is as much to commit as there may be.
    fn is_due(&self, w: &Writer) -> bool {
        lock(&self.pages).dirty_count() >= w.dirty_limit() || w.pending.is_full()
    }

    pub(super) fn commit_if_due(&self, w: &mut Writer) -> Result<()> {
        if self.is_due(w) { self.commit(w) } else { Ok(()) }
    }

    /// Makes everything acknowledged durable, metadata through the log, which is empty afterwards; see [`log`]. The lock
    /// is held: for the middle of a change of several steps.
    pub(super) fn commit(&self, w: &mut Writer) -> Result<()> {
        let mut commit = self.begin_commit(w, false)?;
        let outcome = self.write_commit(&mut commit);
        self.end_commit(w, commit, outcome)
    }

    /// The same, while writes that change metadata go on: they are in the side file until the next commit.
    pub(super) fn commit_apart(&self, mut w: MutexGuard<'_, Writer>, keeps_log: bool) -> Result<()> {
        if w.pending.is_full() {
            return self.commit(&mut w);
        }
        let mut commit = self.begin_commit(&mut w, keeps_log)?;
        w.committing = true;
        drop(w);
        let outcome = self.write_commit(&mut commit);
        let mut w = lock(&self.writer);
        w.committing = false;
        self.committed.notify_all();
        self.end_commit(&mut w, commit, outcome)
    }

    fn begin_commit(&self, w: &mut Writer, keeps_log: bool) -> Result<Commit> {
        if w.failed {
            return Err(self.refused("a flush failed before: open it again to see what is there"));
        }
        debug_assert!(!w.committing, "a commit is under way");
        w.pending.begin_commit();
        let (pages, second_half) = (lock(&self.pages).dirty(), w.second_half);
        // The half that the header may name stays whole until it names the other one.
        w.second_half = second_half == pages.is_empty();
        Ok(Commit {
            pages,
            headers: w.headers.clone(),
            second_half,
            zeroed: std::mem::take(&mut w.zeroed),
            // The log may hold pages of a place that is given up: they must not come back over what is written there next.
            keeps_log: keeps_log && w.freed.is_empty(),
            freed: std::mem::take(&mut w.freed),
            reached: Reached::Log,
        })
    }

    fn write_commit(&self, commit: &mut Commit) -> Result<()> {
        let Commit { pages, headers, second_half, keeps_log, reached, .. } = commit;
        if pages.is_empty() {
            *reached = Reached::Doubt;
            self.raw.flush()?;
            return headers.empty_log(&self.raw);
        }
        let mut header = headers.current;
        let (log_offset, log_length) = (header.log_offset.get(), u64::from(header.log_length.get()));
        if pages.len() > log::entry_capacity(log_length) {
            return Err(self.refused(format!("{} changed pages don't fit into its log of {log_length} bytes", pages.len())));
        }
        let tail = if *second_half { log_length / 2 } else { 0 };
        header.log_guid = Guid::random();
        let entry = log::encode(header.log_guid, tail as u32, self.raw.len(), pages);
        self.raw.write(&entry, log_offset + tail, "write the log")?;
        *reached = Reached::Doubt;
        self.raw.flush()?;
        headers.write(&self.raw, header)?;
        self.raw.flush()?;
        *reached = Reached::Pages;
        for (offset, page) in &*pages {
            self.raw.write(&page[..], *offset, "write metadata")?;
        }
        if *keeps_log {
            return Ok(());
        }
        *reached = Reached::Doubt;
        self.raw.flush()?;
        headers.empty_log(&self.raw)
    }

    fn end_commit(&self, w: &mut Writer, commit: Commit, outcome: Result<()>) -> Result<()> {
        if let Err(error) = outcome {
            w.failed = !error.is_full() || commit.reached == Reached::Doubt;
            w.zeroed.splice(..0, commit.zeroed);
            w.freed.splice(..0, commit.freed);
            if commit.reached == Reached::Pages {
                // The log that the header names stays whole: the next commit uses the other half.
                w.headers = commit.headers;
            } else {
                w.second_half = commit.second_half;
            }
            return Err(error);
        }
        w.failed = true;
        w.headers = commit.headers;
        lock(&self.pages).written(&commit.pages);
        w.pending.end_commit()?;
        w.failed = false;
        if let Some(space) = &mut w.space {
            for (offset, length) in commit.freed {
                space.free(offset, length);
            }
            for &(block, offset) in &commit.zeroed {
                space.keep(block, offset);
            }
        }
        let block_size = w.parameters.block_size;
        for (_, offset) in commit.zeroed {
            // Space that doesn't come back now is zeroed when it is used again.
            let _ = self.raw.host().punch_hole(offset, block_size);
        }
        Ok(())
    }

    pub(super) fn flush_all(&self, keeps_log: bool) -> Result<()> {
        if !self.is_writable() {
            return Ok(());
        }
        let w = self.settled();
        if w.failed || lock(&self.pages).dirty_count() > 0 || w.headers.log_in_use() {
            return self.commit_apart(w, keeps_log);
        }
        drop(w);
        self.raw.flush()
    }

    /// Everything durable, log and side file empty.
    fn close(&self, w: &mut Writer) -> Result<()> {
        self.commit(w)?;
        if w.begun {
            let header = w.headers.current;
            w.headers.replace(&self.raw, header)?;
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

    /// Says the same in `info` as the parameters do.
    pub(super) fn refresh_info(&self, w: &Writer) {
        let info = describe(&w.parameters, w.headers.current.data_write_guid);
        *lock_alone(&self.info) = info;
    }
}

pub(super) fn entry_patch(place: u64, entry: BatEntry) -> (u64, Vec<u8>) {
    (place, entry.0.to_le_bytes().to_vec())
}
