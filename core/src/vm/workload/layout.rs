//! Which page and which piece of disk is what.
//!
//! ```text
//! memory   header │ workers │ palette │ cells │ gallery │ disk table │ page table │ data pages
//! disks    disk 0: gallery, then units;  the other disks: units   (a unit is 4 KiB)
//! ```
//!
//! The machine uses at most [`MOST_UNITS`] units, so that their table fits into memory; on larger disks they lie in
//! extents of 2 MiB that are spread over the whole disk. Where they lie follows from the sizes of the disks alone.

use std::ops::Range;

use super::super::{Result, VmError};
use super::state::ENTRIES_PER_PAGE;
use crate::memory::{MAX_PAGES, PAGE_SIZE};

/// Bytes of a unit of disk.
pub(super) const UNIT: usize = 4096;
/// Most units that a machine uses, all disks together (256 MiB).
const MOST_UNITS: u64 = 1 << 16;
/// Units that lie together on a disk of which only a part is used (2 MiB).
const EXTENT_UNITS: u64 = 512;
/// Most disks.
pub(super) const MOST_DISKS: usize = 64;
/// Least memory (1 MiB).
const LEAST_PAGES: u64 = 256;

/// Threads that write memory.
pub(super) const MEMORY_WORKERS: usize = 2;
/// Threads that write disks.
pub(super) const DISK_WORKERS: usize = 2;
/// Tiles of the gallery.
pub(super) const TILES: u64 = 16;

pub(super) const HEADER_PAGE: u64 = 0;
/// State pages: memory workers, disk workers, the picture's.
const WORKER_PAGES: u64 = 1;
pub(super) const PICTURE_WORKER: usize = MEMORY_WORKERS + DISK_WORKERS;
pub(super) const PALETTE_PAGE: u64 = WORKER_PAGES + PICTURE_WORKER as u64 + 1;
pub(super) const CELL_PAGES: Range<u64> = PALETTE_PAGE + 1..PALETTE_PAGE + 5;
pub(super) const GALLERY_PAGES: Range<u64> = CELL_PAGES.end..CELL_PAGES.end + TILES;

/// The page in which a worker keeps its state.
pub(super) const fn worker_page(worker: usize) -> u64 {
    WORKER_PAGES + worker as u64
}

/// The used part of one disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DiskLayout {
    /// Units of all disks before.
    first: u64,
    /// Units of this one.
    units: u64,
    /// Units that would fit on it.
    capacity: u64,
}

/// Where the units lie on the disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Units {
    disks: Vec<DiskLayout>,
}

impl Units {
    /// From the disks' sizes in bytes.
    pub(super) fn new(sizes: &[u64]) -> Result<Self> {
        if sizes.len() > MOST_DISKS {
            return Err(VmError::Refused(format!("{} disks, at most {MOST_DISKS} are possible", sizes.len())));
        }
        let capacities: Vec<u64> = sizes.iter().map(|size| size / UNIT as u64).collect();
        let everything = capacities.iter().fold(0u64, |sum, capacity| sum.saturating_add(*capacity)) <= MOST_UNITS;
        let most = MOST_UNITS / sizes.len().max(1) as u64 / EXTENT_UNITS * EXTENT_UNITS;
        let mut first = 0;
        let place = |capacity: u64| {
            let units = if everything { capacity } else { capacity.min(most) };
            let disk = DiskLayout { first, units, capacity };
            first += units;
            disk
        };
        Ok(Self { disks: capacities.into_iter().map(place).collect() })
    }

    /// Units of all disks.
    pub(super) fn total(&self) -> u64 {
        self.disks.last().map_or(0, |disk| disk.first + disk.units)
    }

    /// The gallery's units, one a tile.
    pub(super) fn gallery(&self) -> Range<u64> {
        0..self.disks.first().map_or(0, |disk| TILES.min(disk.units / 2))
    }

    /// The units that a disk worker owns.
    pub(super) fn of_worker(&self, worker: usize) -> Range<u64> {
        share(self.gallery().end..self.total(), worker, DISK_WORKERS)
    }

    /// The disk of a unit, and its offset there.
    pub(super) fn place(&self, unit: u64) -> (usize, u64) {
        let disk = self.disks.partition_point(|disk| disk.first + disk.units <= unit);
        let DiskLayout { first, units, capacity } = self.disks[disk];
        let within = unit - first;
        if units == capacity {
            return (disk, within * UNIT as u64);
        }
        let (extents, places) = (units / EXTENT_UNITS, capacity / EXTENT_UNITS);
        let extent = (within / EXTENT_UNITS) * places / extents;
        (disk, (extent * EXTENT_UNITS + within % EXTENT_UNITS) * UNIT as u64)
    }

    /// How many units from this one on lie side by side, at most `most`.
    pub(super) fn contiguous(&self, unit: u64, most: u64) -> u64 {
        let disk = self.disks[self.place(unit).0];
        let within = unit - disk.first;
        let run = if disk.units == disk.capacity { disk.units - within } else { EXTENT_UNITS - within % EXTENT_UNITS };
        run.min(most)
    }
}

/// One worker's part of a range.
fn share(range: Range<u64>, worker: usize, workers: usize) -> Range<u64> {
    let (count, worker, workers) = (range.end - range.start, worker as u64, workers as u64);
    range.start + count * worker / workers..range.start + count * (worker + 1) / workers
}

/// What each page of memory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) pages: u64,
    pub(super) units: Units,
    /// Expected content of the units.
    pub(super) unit_table: u64,
    /// Expected content of the data pages.
    pub(super) page_table: u64,
    /// The data pages, which fill the rest.
    pub(super) data: Range<u64>,
}

impl Layout {
    /// From the memory's size in bytes and those of the disks.
    pub(super) fn new(memory: u64, disks: &[u64]) -> Result<Self> {
        let pages = memory / PAGE_SIZE as u64;
        if !memory.is_multiple_of(PAGE_SIZE as u64) || !(LEAST_PAGES..=MAX_PAGES).contains(&pages) {
            return Err(VmError::Refused(format!(
                "{memory} bytes of memory: it must be a multiple of 4 KiB from 1 MiB to 1 TiB"
            )));
        }
        let units = Units::new(disks)?;
        let unit_table = GALLERY_PAGES.end;
        let page_table = unit_table + units.total().div_ceil(ENTRIES_PER_PAGE as u64);
        let rest = pages - page_table;
        let tables = rest.div_ceil(ENTRIES_PER_PAGE as u64 + 1);
        Ok(Self { pages, units, unit_table, page_table, data: page_table + tables..pages })
    }

    /// The data pages that a memory worker owns.
    pub(super) fn of_worker(&self, worker: usize) -> Range<u64> {
        share(self.data.clone(), worker, MEMORY_WORKERS)
    }
}
