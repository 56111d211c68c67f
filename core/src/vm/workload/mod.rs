//! The built-in machine: no operating system, but memory, disks and a screen whose every byte can be verified.
//!
//! Its work is done by five workers: two write memory pages, two write the disks, one steps the picture and keeps the
//! gallery. A worker's work is a sequence of numbered *ticks*. Each worker owns its pages and units, and its random
//! numbers live in its own state page, so what it writes doesn't depend on how threads are scheduled: it follows from
//! the seed and the state. Between two ticks the state in memory is complete; a machine stands still only there.
//!
//! ```text
//! tick ─> read something back, compare it with the table ─> write something, stamped ─> table ─> state page
//! ```
//!
//! The table of what every unit of disk and every page must hold lies in memory itself. So memory and disks of one
//! instant can be verified against each other: a sector from before or after that instant is found.
//!
//! What the machine finds on a disk and didn't write itself it leaves alone.

#[cfg(test)]
mod full_tests;
mod layout;
mod picture;
mod running;
mod stamp;
mod state;
#[cfg(test)]
mod tests;
mod ticks;
mod verify;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use running::Running;
pub use verify::Verifier;

use self::layout::{DISK_WORKERS, Layout, MEMORY_WORKERS, PICTURE_WORKER, UNIT, Units};
use self::picture::Figures;
use self::stamp::{Found, Random, look_at_unit};
use self::state::{Entry, Header, WorkerState};
use super::{Frame, Result, Setup, VmError, WorkloadCounters};
use crate::chain::BlockDevice;
use crate::clock::SharedClock;
use crate::locks::lock;
use crate::memory::{self, GuestMemory, PAGE_SIZE};
use crate::snapshot::WorkloadProfile;
use crate::units::ByteCount;

const WORKERS: usize = PICTURE_WORKER + 1;
/// Findings that are kept in words.
const MOST_WORDS: usize = 16;
/// Units that are read at once where all are read (1 MiB).
const READ_UNITS: u64 = 256;

/// How fast a worker goes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pace {
    /// It has nothing to do.
    Still,
    /// So many ticks per second.
    PerSecond(f64),
    /// As fast as it can.
    Full,
}

/// What the machine has done since it was started.
#[derive(Debug, Default)]
struct Tally {
    page_writes: AtomicU64,
    disk_reads: AtomicU64,
    disk_writes: AtomicU64,
    disk_flushes: AtomicU64,
    verified: AtomicU64,
    wrong: AtomicU64,
    read_nanos: AtomicU64,
    write_nanos: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// How far a run without threads has come.
#[derive(Debug, Default)]
struct Run {
    time: Duration,
    ticks: [u64; WORKERS],
}

/// The machine as a value, without threads: for a run on a stopped machine, and what [`Running`] drives.
#[derive(Debug)]
pub struct Workload {
    layout: Layout,
    memory: Arc<GuestMemory>,
    disks: Vec<Arc<dyn BlockDevice>>,
    profile: WorkloadProfile,
    seed: u64,
    boot: u32,
    clock: SharedClock,
    workers: [Mutex<WorkerState>; WORKERS],
    tally: Tally,
    wrong: Mutex<Vec<String>>,
    run: Mutex<Run>,
}

impl Workload {
    /// Boots (rebuilding its tables from what the disks hold, as after a power cut), or continues from saved memory.
    /// With saved memory, the seed is the one in there.
    pub fn new(setup: &Setup) -> Result<Self> {
        let sizes: Vec<u64> = setup.disks.iter().map(|disk| disk.size().0).collect();
        let layout = Layout::new(setup.configuration.memory.0, &sizes)?;
        match &setup.saved_memory {
            None => Self::boot(setup, layout, &sizes),
            Some(file) => {
                let info = memory::inspect(&**file)?;
                if info.pages != layout.pages {
                    let reason = format!("the saved memory has {} pages, the machine {}", info.pages, layout.pages);
                    return Err(VmError::Refused(reason));
                }
                let memory = memory::restore(&**file)?;
                let header = Header::load(&memory, &sizes).map_err(VmError::Refused)?;
                Self::assemble(setup, layout, memory, &header)
            }
        }
    }

    fn assemble(setup: &Setup, layout: Layout, memory: GuestMemory, header: &Header) -> Result<Self> {
        let mut workers = Vec::with_capacity(WORKERS);
        for worker in 0..WORKERS {
            state::check(&memory, layout::worker_page(worker)).map_err(VmError::Refused)?;
            let state = WorkerState::load(&memory, worker);
            workers.push(Mutex::new(state.ok_or_else(|| VmError::Refused("a worker's state is missing".into()))?));
        }
        let workers = workers.try_into().map_err(|_| VmError::Refused("workers are missing".into()))?;
        Ok(Self {
            layout,
            memory: Arc::new(memory),
            disks: setup.disks.clone(),
            profile: setup.configuration.workload.clone(),
            seed: header.seed.get(),
            boot: header.boot.get(),
            clock: setup.clock.clone(),
            workers,
            tally: Tally::default(),
            wrong: Mutex::default(),
            run: Mutex::default(),
        })
    }

    fn boot(setup: &Setup, layout: Layout, sizes: &[u64]) -> Result<Self> {
        let memory = GuestMemory::new(layout.pages);
        let (mut boot, mut generation, mut wrong) = (0, 0, Vec::new());
        let (mut entries, mut blank_tiles, mut torn) = (Vec::new(), Vec::new(), Vec::new());
        read_units(&layout.units, &setup.disks, 0..layout.units.total(), |unit, disk, offset, content| {
            let is_tile = layout.units.gallery().contains(&unit);
            let mut sequence = 0;
            match look_at_unit(content, disk, offset) {
                ref found @ (Found::Whole(stamp) | Found::Torn(stamp)) => {
                    if matches!(found, Found::Torn(_)) {
                        torn.push(unit);
                    }
                    sequence = stamp.sequence.get();
                    boot = boot.max(stamp.boot.get());
                    generation = if is_tile { generation.max(stamp.tick.get()) } else { generation };
                }
                Found::Wrong(words) => wrong.push(words),
                Found::Zero if is_tile => blank_tiles.push(unit),
                Found::Zero | Found::Foreign => {}
            }
            entries.push(Entry::new(sequence, crc32c::crc32c(content)));
        })?;
        state::set_entries(&memory, layout.unit_table, 0, &entries);
        let (seed, boot) = (setup.configuration.workload.seed, boot.saturating_add(1));
        let header = Header::new(seed, boot, layout.pages, sizes);
        header.store(&memory);
        for worker in 0..WORKERS {
            let random = Random::from_parts([seed, u64::from(boot), worker as u64]);
            WorkerState::new(random, if worker == PICTURE_WORKER { generation } else { 0 }).store(&memory, worker);
        }
        let mut random = Random::from_parts([seed, u64::from(boot), 0x50f7]);
        picture::store_cells(&memory, &picture::soup(&mut random));
        picture::store_palette(&memory, &picture::palette(seed));
        let machine = Self::assemble(setup, layout, memory, &header)?;
        add(&machine.tally.wrong, (wrong.len() * UNIT) as u64);
        wrong.truncate(MOST_WORDS);
        *lock(&machine.wrong) = wrong;
        machine.mend(&torn)?;
        machine.hang_gallery(&blank_tiles)?;
        Ok(machine)
    }

    /// How fast a worker goes, and whether it has anything to do.
    fn pace(&self, worker: usize) -> Pace {
        let (rate, workers, idle) = if worker < MEMORY_WORKERS {
            (self.profile.page_writes_per_second, MEMORY_WORKERS, self.layout.of_worker(worker).is_empty())
        } else if worker < PICTURE_WORKER {
            let units = self.layout.units.of_worker(worker - MEMORY_WORKERS);
            (self.profile.disk_writes_per_second, DISK_WORKERS, units.is_empty())
        } else {
            (self.profile.frames_per_second, 1, self.profile.frames_per_second == 0)
        };
        match rate {
            _ if idle => Pace::Still,
            0 => Pace::Full,
            rate => Pace::PerSecond(f64::from(rate) / workers as f64),
        }
    }

    /// Does, on this thread and at full speed, what the running machine would do in `time` at its profile's rates
    /// (where a rate is 0: for that long). To be called again and again with small slices. Where the volume was found
    /// full, the next call goes on from there.
    pub fn run_for(&self, time: Duration) -> Result<()> {
        const SLICE: Duration = Duration::from_millis(10);
        let mut run = lock(&self.run);
        let end = run.time + time;
        while run.time < end {
            let slice = SLICE.min(end - run.time);
            let until = run.time + slice;
            let started = self.clock.elapsed();
            for worker in 0..WORKERS {
                let Pace::PerSecond(rate) = self.pace(worker) else { continue };
                while run.ticks[worker] < (until.as_secs_f64() * rate) as u64 {
                    self.tick(worker)?;
                    run.ticks[worker] += 1;
                }
            }
            run.time = until;
            let full: Vec<usize> = (0..WORKERS).filter(|worker| self.pace(*worker) == Pace::Full).collect();
            // The bound holds where the clock stands still.
            for _ in 0..slice.as_micros() {
                if full.is_empty() || self.clock.elapsed().saturating_sub(started) >= slice {
                    break;
                }
                full.iter().try_for_each(|worker| self.tick(*worker))?;
            }
        }
        Ok(())
    }

    /// Its memory, to be saved when the run ends.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// What its screen shows.
    pub fn frame(&self) -> Frame {
        let picture = lock(&self.workers[PICTURE_WORKER]);
        let (mut disk_writes, mut disk_reads) = (picture.writes.get(), picture.reads.get());
        for state in (MEMORY_WORKERS..PICTURE_WORKER).filter_map(|worker| WorkerState::load(&self.memory, worker)) {
            disk_writes += state.writes.get();
            disk_reads += state.reads.get();
        }
        picture::render(&self.memory, &Figures { generation: picture.tick.get(), disk_writes, disk_reads })
    }

    /// What it has done since `new`.
    pub fn counters(&self) -> WorkloadCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tally = &self.tally;
        let mean = |nanos, count: u64| Duration::from_nanos(get(nanos).checked_div(count).unwrap_or(0));
        let (disk_reads, disk_writes) = (get(&tally.disk_reads), get(&tally.disk_writes));
        WorkloadCounters {
            page_writes: get(&tally.page_writes),
            disk_reads,
            disk_writes,
            disk_flushes: get(&tally.disk_flushes),
            verified: ByteCount(get(&tally.verified)),
            wrong: ByteCount(get(&tally.wrong)),
            read_latency: mean(&tally.read_nanos, disk_reads),
            write_latency: mean(&tally.write_nanos, disk_writes),
        }
    }

    /// What it read and found wrong, in words (the first few).
    pub fn wrong(&self) -> Vec<String> {
        lock(&self.wrong).clone()
    }

    /// Flushes its disks.
    pub fn flush(&self) -> Result<()> {
        for disk in &self.disks {
            disk.flush()?;
            add(&self.tally.disk_flushes, 1);
        }
        Ok(())
    }

    /// Counts what a comparison found.
    fn note(&self, bytes: usize, found: Result<(), String>) {
        match found {
            Ok(()) => add(&self.tally.verified, bytes as u64),
            Err(words) => {
                add(&self.tally.wrong, bytes as u64);
                let mut wrong = lock(&self.wrong);
                if wrong.len() < MOST_WORDS {
                    wrong.push(words);
                }
            }
        }
    }
}

/// Reads a range of units, many at once, and shows each: unit, disk, offset there, content.
fn read_units(
    units: &Units,
    disks: &[Arc<dyn BlockDevice>],
    range: std::ops::Range<u64>,
    mut show: impl FnMut(u64, usize, u64, &[u8]),
) -> Result<()> {
    let mut buffer = vec![0; READ_UNITS as usize * UNIT];
    let mut unit = range.start;
    while unit < range.end {
        let count = units.contiguous(unit, READ_UNITS.min(range.end - unit));
        let (disk, offset) = units.place(unit);
        let part = &mut buffer[..count as usize * UNIT];
        disks[disk].read_at(part, offset)?;
        for (index, content) in part.chunks_exact(UNIT).enumerate() {
            show(unit + index as u64, disk, offset + (index * UNIT) as u64, content);
        }
        unit += count;
    }
    Ok(())
}

const _: () = assert!(UNIT == PAGE_SIZE);
