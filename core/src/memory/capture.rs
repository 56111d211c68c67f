//! Saves memory as it was at one instant while the guest goes on writing: copy before write.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::aside::Aside;
use super::format::{self, HEADER_BYTES, Header, IndexEntry, RECORD_PAGES, Trailer};
use super::{GuestMemory, PAGE_SIZE};
use crate::clock::SharedClock;
use crate::disk::{DiskError, Result};
use crate::host_file::HostFile;
use crate::units::{ByteCount, ByteRate};

/// How far saving has come.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SaveProgress {
    /// Bytes of memory that are saved (zero pages count, though they take no space). Only grows.
    pub done: ByteCount,
    /// Bytes of memory in all.
    pub total: ByteCount,
    /// Bytes of memory saved per second so far.
    pub rate: ByteRate,
    /// Whether the file is complete and durable.
    pub finished: bool,
}

/// What saving cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SaveReport {
    /// Bytes of memory.
    pub memory: ByteCount,
    /// Bytes of the file.
    pub file: ByteCount,
    /// Time from the begin of the capture to the durable file.
    pub elapsed: Duration,
    /// Guest writes that had to put a page's original aside first.
    pub intercepted_writes: u64,
    /// The longest that a guest write took because of it.
    pub longest_stall: Duration,
}

/// A page that is visited and needs no place in the file costs this share of a step's budget.
const VISIT_BYTES: u64 = 64;

/// Where the capture stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Records are being written.
    Saving,
    /// The file is complete and durable.
    Finished,
    /// A step has failed; the guest is not held up any longer.
    Failed,
}

/// Memory being saved. It must be driven by [`Capture::step`] until it is finished, or dropped: when the
/// place for originals is full, guest writes wait for it. Dropping it ends the capture and wakes them.
#[derive(Debug)]
pub struct Capture {
    memory: Arc<GuestMemory>,
    aside: Arc<Aside>,
    file: Arc<dyn HostFile>,
    clock: SharedClock,
    id: [u8; 16],
    started: Duration,
    ended: Option<Duration>,
    phase: Phase,
    /// Every page below is settled.
    cursor: u64,
    /// One bit a page: it was put aside by a guest write, and is in the file.
    drained: Vec<u64>,
    /// Drained pages at or above the cursor.
    drained_ahead: u64,
    held_pages: u64,
    index: Vec<IndexEntry>,
    /// Where the file ends.
    end: u64,
    /// The record being made, kept for its space.
    record: Vec<u8>,
}

impl Capture {
    /// Starts an epoch: what memory holds now is what will be saved. The guest must stand still during this
    /// call (well under a millisecond whatever the size) and may run afterwards. `file` is new and empty.
    /// One capture at a time: a second one is refused.
    pub fn begin(memory: &Arc<GuestMemory>, file: Arc<dyn HostFile>, id: Uuid, clock: SharedClock) -> Result<Self> {
        let started = clock.elapsed();
        let aside = Arc::new(Aside::new(clock.clone()));
        if !memory.begin_epoch(&aside) {
            return Err(DiskError::refused(file.path(), "this machine's memory is being saved already"));
        }
        Ok(Self {
            memory: memory.clone(),
            aside,
            file,
            clock,
            id: id.into_bytes(),
            started,
            ended: None,
            phase: Phase::Saving,
            cursor: 0,
            drained: Vec::new(),
            drained_ahead: 0,
            held_pages: 0,
            index: Vec::new(),
            end: 0,
            record: Vec::new(),
        })
    }

    /// Saves about `budget` bytes more: first what guest writes have put aside, then the rest. The last step
    /// flushes the file; its folder's entry is the caller's to flush.
    pub fn step(&mut self, budget: ByteCount) -> Result<SaveProgress> {
        match self.phase {
            Phase::Finished => return Ok(self.progress()),
            Phase::Failed => return Err(DiskError::refused(self.file.path(), "saving this memory has failed before")),
            Phase::Saving => {}
        }
        let stepped = self.save_some(budget.0);
        if stepped.is_err() {
            self.phase = Phase::Failed;
        }
        if self.phase != Phase::Saving {
            self.ended = Some(self.clock.elapsed());
            self.memory.end_epoch(&self.aside);
        }
        stepped.map(|()| self.progress())
    }

    /// How far it has come.
    pub fn progress(&self) -> SaveProgress {
        let page = PAGE_SIZE as u64;
        let done = ByteCount((self.cursor + self.drained_ahead) * page);
        let seconds = self.elapsed().as_secs_f64();
        let rate = ByteRate(if seconds > 0.0 { done.0 as f64 / seconds } else { 0.0 });
        SaveProgress { done, total: ByteCount(self.memory.pages() * page), rate, finished: self.phase == Phase::Finished }
    }

    /// What it has cost so far.
    pub fn report(&self) -> SaveReport {
        SaveReport {
            memory: ByteCount(self.memory.pages() * PAGE_SIZE as u64),
            file: ByteCount(self.end),
            elapsed: self.elapsed(),
            intercepted_writes: self.aside.intercepted(),
            longest_stall: self.aside.longest_stall(),
        }
    }

    fn elapsed(&self) -> Duration {
        self.ended.unwrap_or_else(|| self.clock.elapsed()).saturating_sub(self.started)
    }

    fn save_some(&mut self, budget: u64) -> Result<()> {
        if self.end == 0 {
            self.write_header()?;
        }
        let mut spent = 0;
        while spent < budget {
            let before = self.cursor;
            let drained = self.drain()?;
            let swept = if drained == 0 { self.sweep()? } else { 0 };
            spent += (drained + swept) * PAGE_SIZE as u64 + (self.cursor - before) * VISIT_BYTES;
            // Past the last page, no page has an original left to put aside: what waits now is all.
            if drained + swept == 0 && self.cursor == self.memory.pages() && self.drain()? == 0 {
                return self.finish();
            }
        }
        Ok(())
    }

    /// Saves some of what guest writes have put aside; how many pages.
    fn drain(&mut self) -> Result<u64> {
        let originals = self.aside.take(RECORD_PAGES);
        if originals.is_empty() {
            return Ok(0);
        }
        let numbers: Vec<u64> = originals.iter().map(|(number, _)| *number).collect();
        format::begin_record(&mut self.record);
        originals.iter().for_each(|(_, page)| self.record.extend_from_slice(&page[..]));
        self.write_record(&numbers)?;
        for number in numbers.iter().filter(|number| **number >= self.cursor) {
            let word = (number / 64) as usize;
            if self.drained.len() <= word {
                self.drained.resize(word + 1, 0);
            }
            self.drained[word] |= 1 << (number % 64);
            self.drained_ahead += 1;
        }
        Ok(originals.len() as u64)
    }

    /// Saves the next pages that nobody has written; how many of them have content.
    fn sweep(&mut self) -> Result<u64> {
        let (before, mut cursor, mut numbers) = (self.cursor, self.cursor, Vec::with_capacity(RECORD_PAGES));
        format::begin_record(&mut self.record);
        self.memory.sweep(&mut cursor, RECORD_PAGES, 16 * RECORD_PAGES as u64, &mut numbers, &mut self.record);
        if !numbers.is_empty() {
            self.write_record(&numbers)?;
        }
        let passed = (before..cursor).filter(|page| self.was_drained(*page)).count() as u64;
        self.drained_ahead -= passed;
        self.cursor = cursor;
        Ok(numbers.len() as u64)
    }

    fn was_drained(&self, page: u64) -> bool {
        self.drained.get((page / 64) as usize).is_some_and(|word| word & (1 << (page % 64)) != 0)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.end).map_err(|error| DiskError::io(self.file.path(), "save memory", error))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn write_header(&mut self) -> Result<()> {
        let mut header = Header {
            magic: format::HEADER_MAGIC,
            version: U32::new(format::VERSION),
            page_size: U32::new(PAGE_SIZE as u32),
            pages: U64::new(self.memory.pages()),
            id: self.id,
            reserved: [0; 20],
            checksum: U32::ZERO,
        };
        header.checksum = U32::new(crc32c::crc32c(header.as_bytes()));
        self.append(header.as_bytes())?;
        debug_assert_eq!(self.end, HEADER_BYTES);
        Ok(())
    }

    /// Writes the record that was begun, of these pages.
    fn write_record(&mut self, numbers: &[u64]) -> Result<()> {
        let checksum = format::end_record(&mut self.record, self.id, self.index.len() as u64, numbers);
        let (offset, pages) = (U64::new(self.end), U32::new(numbers.len() as u32));
        let record = std::mem::take(&mut self.record);
        self.append(&record)?;
        self.record = record;
        self.index.push(IndexEntry { offset, pages, checksum: U32::new(checksum) });
        self.held_pages += numbers.len() as u64;
        Ok(())
    }

    /// Index, trailer, flush. Each checksum vouches for its part, whatever order the volume wrote them in.
    fn finish(&mut self) -> Result<()> {
        // Nothing is put aside any longer, so the guest isn't held up by the flush.
        self.memory.end_epoch(&self.aside);
        let index = self.index.as_bytes().to_vec();
        let mut trailer = Trailer {
            magic: format::TRAILER_MAGIC,
            id: self.id,
            index: U64::new(self.end),
            records: U64::new(self.index.len() as u64),
            held_pages: U64::new(self.held_pages),
            index_checksum: U32::new(crc32c::crc32c(&index)),
            reserved: U64::ZERO,
            checksum: U32::ZERO,
        };
        trailer.checksum = U32::new(crc32c::crc32c(trailer.as_bytes()));
        self.append(&index)?;
        self.append(trailer.as_bytes())?;
        self.file.flush().map_err(|error| DiskError::io(self.file.path(), "flush the saved memory", error))?;
        self.phase = Phase::Finished;
        Ok(())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.memory.end_epoch(&self.aside);
    }
}

/// Saves the memory of a machine that stands still.
pub fn save(memory: &Arc<GuestMemory>, file: Arc<dyn HostFile>, id: Uuid, clock: SharedClock) -> Result<SaveReport> {
    let mut capture = Capture::begin(memory, file, id, clock)?;
    while !capture.step(ByteCount::mib(64))?.finished {}
    Ok(capture.report())
}
