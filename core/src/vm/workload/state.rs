//! The machine's state, all of it in its memory pages: header, workers, tables.
//!
//! A state page has 4080 bytes of content and a stamp at its end: its number and a checksum. One that was never
//! written is zero.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::{HEADER_PAGE, Layout, MOST_DISKS, worker_page};
use super::stamp::Random;
use crate::memory::{GuestMemory, PAGE_SIZE, Page};

/// Bytes of a state page that are content.
pub(super) const CONTENT: usize = PAGE_SIZE - 16;
/// Entries of a table in one page.
pub(super) const ENTRIES_PER_PAGE: usize = CONTENT / size_of::<Entry>();

const STATE_MAGIC: u32 = u32::from_le_bytes(*b"STAT");
const HEADER_MAGIC: [u8; 8] = *b"SNAPWORK";
const HEADER_VERSION: u32 = 1;

fn page_end(number: u64, page: &Page) -> [u8; 16] {
    let mut end = [0; 16];
    end[..8].copy_from_slice(&number.to_le_bytes());
    end[8..12].copy_from_slice(&STATE_MAGIC.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&page[..CONTENT]), &end[..12]);
    end[12..].copy_from_slice(&checksum.to_le_bytes());
    end
}

/// Changes a state page and stamps it.
pub(super) fn change<R>(memory: &GuestMemory, number: u64, change: impl FnOnce(&mut [u8]) -> R) -> R {
    memory.write(number, |page| {
        let result = change(&mut page[..CONTENT]);
        let end = page_end(number, page);
        page[CONTENT..].copy_from_slice(&end);
        result
    })
}

/// Looks at a state page.
pub(super) fn look<R>(memory: &GuestMemory, number: u64, look: impl FnOnce(&[u8]) -> R) -> R {
    memory.read(number, |page| look(&page[..CONTENT]))
}

/// Whether a state page is whole; if not, what is wrong.
pub(super) fn check(memory: &GuestMemory, number: u64) -> Result<(), String> {
    let right = memory.read(number, |page| page[CONTENT..] == page_end(number, page) || *page == [0; PAGE_SIZE]);
    if right { Ok(()) } else { Err(format!("page {number}, which holds the machine's state, doesn't match its checksum")) }
}

fn load<T: FromBytes>(memory: &GuestMemory, number: u64) -> Option<T> {
    look(memory, number, |content| T::read_from_prefix(content).ok().map(|(value, _)| value))
}

fn store<T: IntoBytes + Immutable>(memory: &GuestMemory, number: u64, value: &T) {
    change(memory, number, |content| content[..size_of::<T>()].copy_from_slice(value.as_bytes()));
}

/// What a unit of disk or a data page must hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Entry {
    /// How many times it was written; 0 is never.
    pub(super) sequence: U32,
    /// A unit's CRC-32C; a data page's own checksum.
    pub(super) checksum: U32,
}

impl Entry {
    pub(super) fn new(sequence: u32, checksum: u32) -> Self {
        Self { sequence: U32::new(sequence), checksum: U32::new(checksum) }
    }
}

fn entry_place(table: u64, index: u64) -> (u64, usize) {
    let per_page = ENTRIES_PER_PAGE as u64;
    (table + index / per_page, (index % per_page) as usize * size_of::<Entry>())
}

/// An entry of the table that starts at page `table`.
pub(super) fn entry(memory: &GuestMemory, table: u64, index: u64) -> Entry {
    let (page, at) = entry_place(table, index);
    look(memory, page, |content| Entry::read_from_prefix(&content[at..]).map(|(entry, _)| entry).unwrap_or_default())
}

/// Sets an entry.
pub(super) fn set_entry(memory: &GuestMemory, table: u64, index: u64, entry: Entry) {
    let (page, at) = entry_place(table, index);
    change(memory, page, |content| content[at..at + size_of::<Entry>()].copy_from_slice(entry.as_bytes()));
}

/// Sets the entries from `index` on.
pub(super) fn set_entries(memory: &GuestMemory, table: u64, mut index: u64, mut entries: &[Entry]) {
    while !entries.is_empty() {
        let (page, at) = entry_place(table, index);
        let count = entries.len().min((CONTENT - at) / size_of::<Entry>());
        let (now, later) = entries.split_at(count);
        change(memory, page, |content| content[at..at + size_of_val(now)].copy_from_slice(now.as_bytes()));
        (entries, index) = (later, index + count as u64);
    }
}

/// What the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    magic: [u8; 8],
    version: U32,
    /// How many times it has booted.
    pub(super) boot: U32,
    /// Everything follows from it.
    pub(super) seed: U64,
    pages: U64,
    disk_count: U64,
    disks: [U64; MOST_DISKS],
}

impl Header {
    /// Of a machine with so many pages and disks of these sizes (at most 64).
    pub(super) fn new(seed: u64, boot: u32, pages: u64, disks: &[u64]) -> Self {
        let mut sizes = [U64::ZERO; MOST_DISKS];
        sizes.iter_mut().zip(disks).for_each(|(place, size)| *place = U64::new(*size));
        Self {
            magic: HEADER_MAGIC,
            version: U32::new(HEADER_VERSION),
            boot: U32::new(boot),
            seed: U64::new(seed),
            pages: U64::new(pages),
            disk_count: U64::new(disks.len() as u64),
            disks: sizes,
        }
    }

    pub(super) fn store(&self, memory: &GuestMemory) {
        store(memory, HEADER_PAGE, self);
    }

    /// The header of a memory that belongs to disks of these sizes; if it doesn't, why.
    pub(super) fn load(memory: &GuestMemory, disks: &[u64]) -> Result<Self, String> {
        check(memory, HEADER_PAGE)?;
        let found = load::<Self>(memory, HEADER_PAGE).filter(|header| header.magic == HEADER_MAGIC);
        let found = found.ok_or("this memory isn't that of a built-in machine")?;
        if found.version.get() != HEADER_VERSION {
            return Err(format!(
                "this memory is of version {} of the built-in machine, expected is {HEADER_VERSION}",
                found.version
            ));
        }
        if found != Self::new(found.seed.get(), found.boot.get(), memory.pages(), disks) {
            return Err("this memory is of a machine with other sizes of memory or disks".into());
        }
        Ok(found)
    }
}

/// What a worker must remember from tick to tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct WorkerState {
    /// Ticks done; the picture's worker: its generation.
    pub(super) tick: U64,
    random: U64,
    /// Where its walk through its pages stands.
    pub(super) cursor: U64,
    /// Units or pages written.
    pub(super) writes: U64,
    /// Units or pages read.
    pub(super) reads: U64,
    /// The unit that it wrote last, or `NO_UNIT`, and which write that was.
    pub(super) previous_unit: U32,
    pub(super) previous_sequence: U32,
}

impl WorkerState {
    pub(super) fn new(random: Random, tick: u64) -> Self {
        Self {
            tick: U64::new(tick),
            random: U64::new(random.0),
            cursor: U64::ZERO,
            writes: U64::ZERO,
            reads: U64::ZERO,
            previous_unit: U32::new(super::stamp::NO_UNIT),
            previous_sequence: U32::ZERO,
        }
    }

    pub(super) fn load(memory: &GuestMemory, worker: usize) -> Option<Self> {
        load(memory, worker_page(worker))
    }

    pub(super) fn store(&self, memory: &GuestMemory, worker: usize) {
        store(memory, worker_page(worker), self);
    }

    pub(super) fn random(&self) -> Random {
        Random(self.random.get())
    }

    pub(super) fn set_random(&mut self, random: Random) {
        self.random = U64::new(random.0);
    }
}

/// State pages are everything below the data pages.
pub(super) fn is_state_page(layout: &Layout, page: u64) -> bool {
    page < layout.data.start
}
