//! The file `memory.stm`: saved memory. All numbers are little-endian.
//!
//! ```text
//! 0                  Header, 64 bytes
//! 64                 records, back to back: RecordHeader, its pages (4 KiB each), their numbers (u64 each)
//! Trailer.index      IndexEntry per record, in the file's order
//! length - 64        Trailer, 64 bytes
//! ```
//!
//! A page that no record holds is zero. No page is in two records; the order of pages is free. The trailer is
//! written last, so a file that was cut off, or never finished, has none. Pages are stored as they are:
//! compressing them takes longer than writing them.
//!
//! Checksums are CRC-32C. That of a structure is taken with its own `checksum` field zero.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::PAGE_SIZE;

pub(super) const HEADER_MAGIC: [u8; 8] = *b"SNAPTMEM";
pub(super) const RECORD_MAGIC: [u8; 4] = *b"MREC";
pub(super) const TRAILER_MAGIC: [u8; 8] = *b"SNAPTEND";
pub(super) const VERSION: u32 = 1;

/// Most pages of one record (1 MiB).
pub(super) const RECORD_PAGES: usize = 256;

/// The first 64 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    /// Must be "SNAPTMEM".
    pub(super) magic: [u8; 8],
    /// Must be 1.
    pub(super) version: U32,
    /// Bytes of a page; must be 4096.
    pub(super) page_size: U32,
    /// Pages of the machine's memory; at most 2^28.
    pub(super) pages: U64,
    /// What it was saved under; the trailer has the same.
    pub(super) id: [u8; 16],
    /// Must be zero.
    pub(super) reserved: [u8; 20],
    /// Of the 64 bytes.
    pub(super) checksum: U32,
}

/// Before the pages of a record and their numbers.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RecordHeader {
    /// Must be "MREC".
    pub(super) magic: [u8; 4],
    /// Number of pages, 1 to 256.
    pub(super) pages: U32,
    /// Position among the records, from 0.
    pub(super) sequence: U64,
    /// The header's `id`, so that a record of another file is noticed.
    pub(super) id: [u8; 16],
    /// Must be zero.
    pub(super) reserved: U32,
    /// Of the whole record: this header, pages, page numbers.
    pub(super) checksum: U32,
}

/// Where a record is.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct IndexEntry {
    /// Offset of its header in the file; must be where the record before ends.
    pub(super) offset: U64,
    /// Its number of pages, 1 to 256.
    pub(super) pages: U32,
    /// The same checksum as in the record.
    pub(super) checksum: U32,
}

/// The last 64 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Trailer {
    /// Must be "SNAPTEND".
    pub(super) magic: [u8; 8],
    /// The same as the header's.
    pub(super) id: [u8; 16],
    /// Offset of the index; must be where the last record ends.
    pub(super) index: U64,
    /// Number of records. The index must end where the trailer begins.
    pub(super) records: U64,
    /// Pages in all records together.
    pub(super) held_pages: U64,
    /// Of the index.
    pub(super) index_checksum: U32,
    /// Must be zero.
    pub(super) reserved: U64,
    /// Of the 64 bytes.
    pub(super) checksum: U32,
}

pub(super) const HEADER_BYTES: u64 = size_of::<Header>() as u64;
pub(super) const INDEX_ENTRY_BYTES: u64 = size_of::<IndexEntry>() as u64;
pub(super) const TRAILER_BYTES: u64 = size_of::<Trailer>() as u64;

const _: () = assert!(size_of::<Header>() == 64 && size_of::<RecordHeader>() == 40);
const _: () = assert!(size_of::<IndexEntry>() == 16 && size_of::<Trailer>() == 64);

/// Bytes of a record of so many pages.
pub(super) const fn record_bytes(pages: u64) -> u64 {
    size_of::<RecordHeader>() as u64 + pages * (8 + PAGE_SIZE as u64)
}

/// Begins a record in a buffer that was used before: room for the header. The pages are to be appended.
pub(super) fn begin_record(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(size_of::<RecordHeader>(), 0);
}

/// Completes a record with its page numbers and header; its checksum.
pub(super) fn end_record(buffer: &mut Vec<u8>, id: [u8; 16], sequence: u64, numbers: &[u64]) -> u32 {
    numbers.iter().for_each(|number| buffer.extend_from_slice(&number.to_le_bytes()));
    debug_assert_eq!(buffer.len() as u64, record_bytes(numbers.len() as u64));
    let mut header = RecordHeader {
        magic: RECORD_MAGIC,
        pages: U32::new(numbers.len() as u32),
        sequence: U64::new(sequence),
        id,
        reserved: U32::ZERO,
        checksum: U32::ZERO,
    };
    buffer[..size_of::<RecordHeader>()].copy_from_slice(header.as_bytes());
    let checksum = crc32c::crc32c(buffer);
    header.checksum = U32::new(checksum);
    buffer[..size_of::<RecordHeader>()].copy_from_slice(header.as_bytes());
    checksum
}
