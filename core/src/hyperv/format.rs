//! What stands in a data store of Hyper-V (format version 4.0). Everything is little-endian and packed; every checksum
//! is the CRC-32 of a structure with its checksum field zero.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Offsets of the two headers.
pub const HEADER_OFFSETS: [usize; 2] = [0, 4096];
/// Offset of the first object table.
pub const OBJECT_TABLE_OFFSET: usize = 8192;
/// The format's version that is read: 4.0.
pub const VERSION: u32 = 0x0400;

/// One of the two headers; of the valid ones that with the later sequence number counts.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Must be [`Header::SIGNATURE`].
    pub signature: U32,
    /// Of this structure.
    pub checksum: U32,
    /// Grows with every commit.
    pub sequence: U16,
    /// Must be [`VERSION`].
    pub version: U32,
    /// What the data means, to whoever wrote it.
    pub data_version: U32,
    /// Reserved.
    pub flags: U32,
    /// What objects are aligned to, in bytes.
    pub alignment: U32,
    /// Offset of the replay log.
    pub log_offset: U64,
    /// Length of the replay log in bytes, its data included.
    pub log_length: U64,
    /// Length of the log's header and entries in bytes.
    pub log_header_length: U32,
}

impl Header {
    /// First four bytes.
    pub const SIGNATURE: u32 = 0x0128_2014;
}

/// The replay log's beginning; its entries follow. Entries past `entries` are what earlier commits left.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogHeader {
    /// Must be [`LogHeader::SIGNATURE`].
    pub signature: U32,
    /// Of this structure.
    pub checksum: U32,
    /// Changes that aren't in their place yet; 0 after a clean end.
    pub entries: U32,
    /// Unknown; 0 in every file seen.
    pub unknown1: u8,
    /// How many entries the log has room for.
    pub entries_max: U32,
    /// Unknown; 0 in every file seen.
    pub unknown2: [u8; 17],
}

impl LogHeader {
    /// First four bytes.
    pub const SIGNATURE: u32 = 0x0111_0003;
}

/// A change: bytes and where they belong.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogEntry {
    /// Offset in the file of the bytes to replace.
    pub offset: U64,
    /// How many.
    pub length: U32,
    /// Offset in the log of the new bytes.
    pub data_offset: U64,
    /// Of this structure.
    pub checksum: U32,
    /// Of the new bytes.
    pub data_checksum: U32,
}

/// An object table's beginning; its entries follow.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ObjectTable {
    /// Must be [`ObjectTable::SIGNATURE`].
    pub signature: U32,
    /// How many entries follow.
    pub entries: U32,
}

impl ObjectTable {
    /// First four bytes.
    pub const SIGNATURE: u32 = 0x0111_0001;
}

/// Where an object is.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ObjectEntry {
    /// One of [`object`].
    pub kind: u8,
    /// Of this structure.
    pub checksum: U32,
    /// Offset of the object.
    pub offset: U64,
    /// Its length in bytes, aligned.
    pub length: U32,
    /// Bit 0: in use.
    pub flags: u8,
}

/// Kinds of objects. Others (free space, more logs, change tracking) hold no values.
pub mod object {
    /// Another object table.
    pub const OBJECT_TABLE: u8 = 1;
    /// A key table.
    pub const KEY_TABLE: u8 = 2;
    /// The bytes of one large value.
    pub const FILE: u8 = 3;
}

/// A key table's beginning; its entries fill the rest of the object.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct KeyTable {
    /// Must be [`KeyTable::SIGNATURE`].
    pub signature: U16,
    /// By which entries name the table; 0 is the root's and no table's.
    pub index: U16,
    /// Of several tables with one index the one with the largest counts.
    pub sequence: U16,
    /// Of this structure.
    pub checksum: U32,
}

impl KeyTable {
    /// First two bytes.
    pub const SIGNATURE: u16 = 2;
}

/// A key; its name (UTF-8 with a zero at the end) and its value follow, then unused bytes up to its length.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Key {
    /// One of [`kind`].
    pub kind: u8,
    /// Bit 0: the value is a [`FilePointer`]. Bits 1 and 2 mean nothing to a reader.
    pub flags: u8,
    /// Length in bytes with everything that belongs to it.
    pub length: U32,
    /// Index of the parent's table; 0 is the root.
    pub parent_table: U16,
    /// Offset of the parent in its table.
    pub parent_offset: U32,
    /// Of this structure, the name and the value.
    pub checksum: U32,
    /// The order among the parent's children.
    pub order: U32,
    /// Length of the name in bytes with the zero.
    pub name_length: u8,
}

impl Key {
    /// Flag: the value is a [`FilePointer`].
    pub const IN_FILE: u8 = 1;
}

/// Kinds of keys.
pub mod kind {
    /// An unused stretch.
    pub const FREE: u8 = 1;
    /// Signed, 8 bytes.
    pub const INT: u8 = 3;
    /// Unsigned, 8 bytes.
    pub const UINT: u8 = 4;
    /// Floating point, 8 bytes.
    pub const DOUBLE: u8 = 5;
    /// Length in bytes (4 bytes), then UTF-16.
    pub const TEXT: u8 = 6;
    /// Length in bytes (4 bytes), then bytes.
    pub const BYTES: u8 = 7;
    /// 0 is no; 4 bytes.
    pub const BOOL: u8 = 8;
    /// Has children; 12 bytes that mean nothing to a reader.
    pub const NODE: u8 = 9;
}

/// A value that stands elsewhere (2048 bytes and more).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FilePointer {
    /// How many bytes.
    pub length: U32,
    /// Offset of an object of the kind [`object::FILE`].
    pub offset: U64,
}

const _: () = {
    assert!(size_of::<Header>() == 46);
    assert!(size_of::<LogHeader>() == 34);
    assert!(size_of::<LogEntry>() == 28);
    assert!(size_of::<ObjectTable>() == 8);
    assert!(size_of::<ObjectEntry>() == 18);
    assert!(size_of::<KeyTable>() == 10);
    assert!(size_of::<Key>() == 21);
    assert!(size_of::<FilePointer>() == 12);
};

/// The checksum of a structure whose checksum field stands at `field`.
pub fn sealed(bytes: &[u8], field: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..field]);
    hasher.update(&[0; 4]);
    hasher.update(&bytes[field + 4..]);
    hasher.finalize()
}
