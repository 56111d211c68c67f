//! Reads everything that the machine wrote, and compares.
//!
//! With memory, everything is known exactly: every unit must be of the very write that the table in memory names,
//! every data page too, and every state page must be whole.
//!
//! Without memory, each sector is checked for itself (checksum, disk, offset), all sectors of a unit must be of one
//! write (but for at most one write per worker that a kill has torn), and of the last boot's writes each names the
//! write that the same worker did before: that unit must hold that write or a later one. A lost last write of a unit
//! that no other write names isn't found; nor is a sector of foreign content or zeros where the machine never wrote.

use std::sync::Arc;

use super::super::{Result, VerifyReport, VmError};
use super::layout::{Layout, PICTURE_WORKER, UNIT, Units};
use super::stamp::{Found, NO_UNIT, SectorStamp, check_page, look_at_unit};
use super::state::{self, Header, WorkerState, is_state_page};
use super::{DISK_WORKERS, MOST_WORDS, READ_UNITS, read_units};
use crate::chain::BlockDevice;
use crate::memory::{GuestMemory, PAGE_SIZE};
use crate::units::ByteCount;

/// What is remembered of a unit where there is no memory.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    sequence: u32,
    boot: u32,
    previous_unit: u32,
    previous_sequence: u32,
}

/// Reads and verifies everything that the machine wrote.
#[derive(Debug)]
pub struct Verifier {
    disks: Vec<Arc<dyn BlockDevice>>,
    units: Units,
    memory: Option<(Arc<GuestMemory>, Layout)>,
    next_page: u64,
    next_unit: u64,
    seen: Vec<Seen>,
    torn: Vec<String>,
    report: VerifyReport,
}

impl Verifier {
    /// Of these disks (in the configuration's order), and of memory of the same instant if there is any.
    pub fn new(disks: Vec<Arc<dyn BlockDevice>>, memory: Option<Arc<GuestMemory>>) -> Result<Self> {
        let sizes: Vec<u64> = disks.iter().map(|disk| disk.size().0).collect();
        let mut report = VerifyReport::default();
        let memory = match memory {
            None => None,
            Some(memory) => {
                Header::load(&memory, &sizes).map_err(VmError::Refused)?;
                let layout = Layout::new(memory.pages() * PAGE_SIZE as u64, &sizes)?;
                let picture = WorkerState::load(&memory, PICTURE_WORKER);
                report.picture_generation = picture.map_or(0, |state| state.tick.get());
                Some((memory, layout))
            }
        };
        let units = Units::new(&sizes)?;
        Ok(Self { disks, units, memory, next_page: 0, next_unit: 0, seen: Vec::new(), torn: Vec::new(), report })
    }

    /// Reads about `budget` bytes more; bytes done and to do.
    pub fn step(&mut self, budget: ByteCount) -> Result<(ByteCount, ByteCount)> {
        let mut pieces = (budget.0 / PAGE_SIZE as u64).max(READ_UNITS);
        let pages = self.memory.as_ref().map_or(0, |(memory, _)| memory.pages());
        let end = pages.min(self.next_page + pieces);
        for page in self.next_page..end {
            self.verify_page(page);
        }
        pieces -= end - self.next_page;
        self.next_page = end;

        let total = self.units.total();
        let (start, end) = (self.next_unit, total.min(self.next_unit + pieces));
        if start < end {
            let mut found = Vec::new();
            read_units(&self.units, &self.disks, start..end, |unit, disk, offset, content| {
                found.push((unit, look_at_unit(content, disk, offset), crc32c::crc32c(content)));
            })?;
            found.into_iter().for_each(|(unit, found, checksum)| self.verify_unit(unit, found, checksum));
            self.next_unit = end;
            if end == total {
                self.verify_order();
            }
        }
        self.report.memory = ByteCount(self.next_page * PAGE_SIZE as u64);
        self.report.disk = ByteCount(self.next_unit * UNIT as u64);
        Ok((self.report.memory + self.report.disk, ByteCount(pages * PAGE_SIZE as u64 + total * UNIT as u64)))
    }

    /// What was found, when done equals to do.
    pub fn report(&self) -> VerifyReport {
        self.report.clone()
    }

    fn wrong(&mut self, words: String) {
        if self.report.wrong.len() < MOST_WORDS {
            self.report.wrong.push(words);
        }
    }

    fn verify_page(&mut self, page: u64) {
        let Some((memory, layout)) = &self.memory else { return };
        let checked = if is_state_page(layout, page) {
            state::check(memory, page)
        } else {
            let entry = state::entry(memory, layout.page_table, page - layout.data.start);
            memory.read(page, |content| check_page(content, page, entry.sequence.get(), entry.checksum.get()))
        };
        if let Err(words) = checked {
            self.wrong(words);
        }
    }

    fn verify_unit(&mut self, unit: u64, found: Found, checksum: u32) {
        let (disk, offset) = self.units.place(unit);
        if let Some((memory, layout)) = &self.memory {
            let entry = state::entry(memory, layout.unit_table, unit);
            if checksum != entry.checksum.get() {
                let holds = match found {
                    Found::Whole(stamp) | Found::Torn(stamp) => format!("write {}", stamp.sequence),
                    Found::Wrong(words) => words,
                    Found::Zero => "zeros".into(),
                    Found::Foreign => "something else".into(),
                };
                let expected = entry.sequence;
                self.wrong(format!("disk {disk}, byte {offset}: memory expects write {expected}, the disk holds {holds}"));
            }
            return;
        }
        let is_tile = self.units.gallery().contains(&unit);
        let mut seen = Seen::default();
        let mut see = |report: &mut VerifyReport, stamp: &SectorStamp| {
            seen = Seen {
                sequence: stamp.sequence.get(),
                boot: stamp.boot.get(),
                previous_unit: stamp.previous_unit.get(),
                previous_sequence: stamp.previous_sequence.get(),
            };
            if is_tile {
                report.picture_generation = report.picture_generation.max(stamp.tick.get());
            }
        };
        match found {
            Found::Zero | Found::Foreign => {}
            Found::Whole(stamp) => see(&mut self.report, &stamp),
            Found::Torn(stamp) => {
                see(&mut self.report, &stamp);
                self.torn.push(format!("disk {disk}, byte {offset}: sectors of different writes stand in one unit"));
            }
            Found::Wrong(words) => self.wrong(words),
        }
        self.seen.push(seen);
    }

    /// Without memory, once all is read: what one write says about another.
    fn verify_order(&mut self) {
        if self.memory.is_some() {
            return;
        }
        let torn = std::mem::take(&mut self.torn);
        if torn.len() > DISK_WORKERS + 1 {
            torn.into_iter().for_each(|words| self.wrong(words));
        }
        let last_boot = self.seen.iter().map(|seen| seen.boot).max().unwrap_or(0);
        let seen = std::mem::take(&mut self.seen);
        for later in seen.iter().filter(|seen| seen.boot == last_boot && seen.previous_unit != NO_UNIT) {
            let earlier = seen.get(later.previous_unit as usize).copied().unwrap_or_default();
            // Zero, or zeroed since.
            if earlier.sequence != 0 && earlier.sequence < later.previous_sequence {
                let (disk, offset) = self.units.place(u64::from(later.previous_unit));
                let (holds, expected) = (earlier.sequence, later.previous_sequence);
                self.wrong(format!(
                    "disk {disk}, byte {offset}: holds write {holds}, but write {expected} was done before a later one"
                ));
            }
        }
        self.seen = seen;
    }
}
