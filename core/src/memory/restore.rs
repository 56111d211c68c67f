//! Reads saved memory back, and verifies every byte of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use uuid::Uuid;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::format::{
    self, HEADER_BYTES, Header, INDEX_ENTRY_BYTES, IndexEntry, RECORD_PAGES, RecordHeader, TRAILER_BYTES, Trailer,
};
use super::{GuestMemory, MAX_PAGES, PAGE_SIZE};
use crate::disk::{DiskError, Result};
use crate::host_file::HostFile;

/// Entries of the index that are read at once.
const INDEX_PIECE: u64 = 1 << 14;

/// What a file of saved memory says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedInfo {
    /// The identifier that it was saved under.
    pub id: Uuid,
    /// Pages of the machine's memory.
    pub pages: u64,
    /// Pages that the file holds; the others are zero.
    pub held_pages: u64,
}

/// Reads the file's header and index only: whether it is complete, and what it holds.
pub fn inspect(file: &dyn HostFile) -> Result<SavedInfo> {
    Outline::read(file).map(|outline| outline.info)
}

/// Reads and verifies all of it.
pub fn restore(file: &dyn HostFile) -> Result<GuestMemory> {
    let outline = Outline::read(file)?;
    let memory = GuestMemory::new(outline.info.pages);
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, |n| n.get().min(4));
    let outcome = thread::scope(|scope| {
        let work = || -> Result<()> {
            let mut buffer = Vec::new();
            while let Some((sequence, entry)) = outline.next(&next) {
                if let Err(error) = restore_record(file, &outline, sequence, entry, &mut buffer, &memory) {
                    next.store(outline.index.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
            Ok(())
        };
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        others.into_iter().fold(work(), |outcome, other| match other.join() {
            Ok(theirs) => outcome.and(theirs),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    });
    outcome.map(|()| memory)
}

/// Header, index and trailer, found consistent with each other and with the file's length.
struct Outline {
    info: SavedInfo,
    index: Vec<IndexEntry>,
}

impl Outline {
    fn read(file: &dyn HostFile) -> Result<Self> {
        let path = file.path();
        let invalid = |offset, field, problem: String| Err(DiskError::invalid(path, offset, field, problem));
        let length = file.len().map_err(|error| DiskError::io(path, "read the saved memory's length", error))?;
        if length < HEADER_BYTES + TRAILER_BYTES {
            return invalid(0, "length", format!("is {length} bytes, must be at least {}", HEADER_BYTES + TRAILER_BYTES));
        }
        let header: Header = read_struct(file, 0, "read the saved memory's header")?;
        if header.magic != format::HEADER_MAGIC {
            return invalid(0, "header magic", "is not that of saved memory".into());
        }
        check_sum(file, 0, "header checksum", header.checksum, Header { checksum: U32::ZERO, ..header })?;
        if header.version.get() != format::VERSION {
            return invalid(8, "version", format!("is {}, must be {}", header.version, format::VERSION));
        }
        if header.page_size.get() as usize != PAGE_SIZE {
            return invalid(12, "page size", format!("is {}, must be {PAGE_SIZE}", header.page_size));
        }
        let pages = header.pages.get();
        if pages > MAX_PAGES {
            return invalid(16, "pages", format!("is {pages}, must be at most {MAX_PAGES}"));
        }

        let end = length - TRAILER_BYTES;
        let trailer: Trailer = read_struct(file, end, "read the saved memory's trailer")?;
        if trailer.magic != format::TRAILER_MAGIC {
            return invalid(end, "trailer magic", "is missing: the file was cut off or never finished".into());
        }
        check_sum(file, end, "trailer checksum", trailer.checksum, Trailer { checksum: U32::ZERO, ..trailer })?;
        if trailer.id != header.id {
            return invalid(end + 8, "trailer id", "is not the header's".into());
        }
        let (index_offset, records) = (trailer.index.get(), trailer.records.get());
        let index_end = records.checked_mul(INDEX_ENTRY_BYTES).and_then(|bytes| index_offset.checked_add(bytes));
        if index_end != Some(end) || index_offset < HEADER_BYTES {
            let problem = format!("says {records} records and an index at {index_offset}, which don't end at the trailer");
            return invalid(end + 24, "trailer", problem);
        }
        let index = read_index(file, &trailer)?;
        if trailer.held_pages.get() > pages {
            return invalid(end + 40, "held pages", format!("is {}, but the memory has only {pages}", trailer.held_pages));
        }
        let info = SavedInfo { id: Uuid::from_bytes(header.id), pages, held_pages: trailer.held_pages.get() };
        Ok(Self { info, index })
    }

    fn next(&self, next: &AtomicUsize) -> Option<(u64, &IndexEntry)> {
        let sequence = next.fetch_add(1, Ordering::Relaxed);
        self.index.get(sequence).map(|entry| (sequence as u64, entry))
    }
}

/// Reads the index. Its records must stand back to back between header and index, and add up to the pages held. It is read in
/// pieces, so that a long file of nothing costs nothing.
fn read_index(file: &dyn HostFile, trailer: &Trailer) -> Result<Vec<IndexEntry>> {
    let invalid = |offset, field, problem: String| Err(DiskError::invalid(file.path(), offset, field, problem));
    let (start, records) = (trailer.index.get(), trailer.records.get());
    let (mut index, mut found) = (Vec::new(), 0);
    let (mut offset, mut held) = (HEADER_BYTES, 0);
    let mut piece = Vec::new();
    while (index.len() as u64) < records {
        let left = records - index.len() as u64;
        let mut at = start + index.len() as u64 * INDEX_ENTRY_BYTES;
        piece.resize((left.min(INDEX_PIECE) * INDEX_ENTRY_BYTES) as usize, 0);
        read(file, &mut piece, at, "read the saved memory's index")?;
        found = crc32c::crc32c_append(found, &piece);
        let Ok(entries) = <[IndexEntry]>::ref_from_bytes(&piece) else {
            return invalid(at, "index", "is not whole".into());
        };
        for entry in entries {
            let pages = u64::from(entry.pages.get());
            if entry.offset.get() != offset {
                return invalid(at, "index offset", format!("is {}, must be {offset}", entry.offset));
            }
            if pages == 0 || pages > RECORD_PAGES as u64 {
                return invalid(at + 8, "index pages", format!("is {pages}, must be 1 to {RECORD_PAGES}"));
            }
            offset += format::record_bytes(pages);
            held += pages;
            at += INDEX_ENTRY_BYTES;
        }
        index.extend_from_slice(entries);
    }
    let end = start + records * INDEX_ENTRY_BYTES;
    if found != trailer.index_checksum.get() {
        return invalid(start, "index checksum", format!("is {found:08x}, must be {:08x}", trailer.index_checksum));
    }
    if offset != start {
        return invalid(end + 24, "index offset", format!("is {start}, must be {offset}, where the last record ends"));
    }
    if held != trailer.held_pages.get() {
        return invalid(end + 40, "held pages", format!("is {}, but the records hold {held}", trailer.held_pages));
    }
    Ok(index)
}

fn restore_record(
    file: &dyn HostFile,
    outline: &Outline,
    sequence: u64,
    entry: &IndexEntry,
    buffer: &mut Vec<u8>,
    memory: &GuestMemory,
) -> Result<()> {
    let (offset, pages) = (entry.offset.get(), entry.pages.get() as usize);
    let invalid = |at, field, problem: String| Err(DiskError::invalid(file.path(), at, field, problem));
    buffer.resize(format::record_bytes(pages as u64) as usize, 0);
    read(file, buffer, offset, "read saved pages")?;
    let Ok((header, rest)) = RecordHeader::mut_from_prefix(buffer) else {
        return invalid(offset, "record", "is not whole".into());
    };
    if header.magic != format::RECORD_MAGIC || header.pages != entry.pages {
        return invalid(offset, "record header", "is not what the index says".into());
    }
    if header.sequence.get() != sequence || header.id != *outline.info.id.as_bytes() {
        return invalid(offset + 8, "record sequence and id", format!("are not those of record {sequence} of this file"));
    }
    if header.checksum != entry.checksum {
        let problem = format!("is {:08x}, but {:08x} in the index", header.checksum, entry.checksum);
        return invalid(offset + 36, "record checksum", problem);
    }
    header.checksum = U32::ZERO;
    let found = crc32c::crc32c_append(crc32c::crc32c(header.as_bytes()), rest);
    if found != entry.checksum.get() {
        return invalid(offset, "record checksum", format!("is {found:08x}, must be {:08x}", entry.checksum));
    }
    let (content, numbers) = rest.split_at(pages * PAGE_SIZE);
    let numbers = numbers.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
    for (position, (number, content)) in numbers.zip(content.chunks_exact(PAGE_SIZE)).enumerate() {
        let at = offset + (size_of::<RecordHeader>() + pages * PAGE_SIZE + position * 8) as u64;
        if number >= memory.pages() {
            return invalid(at, "page number", format!("is {number}, must be below {}", memory.pages()));
        }
        if !memory.fill(number, content) {
            return invalid(at, "page number", format!("{number} is in the file twice"));
        }
    }
    Ok(())
}

fn read(file: &dyn HostFile, buffer: &mut [u8], offset: u64, operation: &'static str) -> Result<()> {
    file.read_exact_at(buffer, offset).map_err(|source| {
        let mut error = DiskError::io(file.path(), operation, source);
        error.offset = Some(offset);
        error
    })
}

fn read_struct<T: FromBytes + IntoBytes>(file: &dyn HostFile, offset: u64, operation: &'static str) -> Result<T> {
    let mut value = T::new_zeroed();
    read(file, value.as_mut_bytes(), offset, operation)?;
    Ok(value)
}

fn check_sum<T: IntoBytes + Immutable>(
    file: &dyn HostFile,
    offset: u64,
    field: &'static str,
    expected: U32,
    zeroed: T,
) -> Result<()> {
    let found = crc32c::crc32c(zeroed.as_bytes());
    if found != expected.get() {
        return Err(DiskError::invalid(file.path(), offset, field, format!("is {expected:08x}, must be {found:08x}")));
    }
    Ok(())
}
