//! What stands in a VHDX file, as [MS-VHDX] 2 lays it out. Everything is little-endian;
//! a GUID is stored with its first three fields little-endian.

use uuid::{Uuid, uuid};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// One KiB in bytes.
pub const KIB: u64 = 1 << 10;
/// One MiB in bytes: what regions, the log and blocks are aligned to.
pub const MIB: u64 = 1 << 20;
/// Unit of the log and of every logged change, in bytes.
pub use crate::disk::pages::{PAGE, PAGE_SIZE};

/// Offsets of the two headers (2.2.2), of 4 KiB each.
pub const HEADER_OFFSETS: [u64; 2] = [64 * KIB, 128 * KIB];
/// Offsets of the two region tables (2.2.3), of 64 KiB each.
pub const REGION_TABLE_OFFSETS: [u64; 2] = [192 * KIB, 256 * KIB];
/// Length of a region table, and of a metadata table.
pub const TABLE_SIZE: usize = 64 << 10;
/// The header section's length (2.2); nothing else may start before its end.
pub const HEADER_SECTION_SIZE: u64 = MIB;
/// Most entries of a region table or a metadata table.
pub const TABLE_ENTRIES_MAX: usize = 2047;
/// Largest virtual disk: 64 TiB.
pub const VIRTUAL_SIZE_MAX: u64 = 64 << 40;
/// Smallest and largest block.
pub const BLOCK_SIZES: std::ops::RangeInclusive<u64> = MIB..=256 * MIB;
/// Bits of one sector bitmap block: the sectors of a chunk.
pub const SECTORS_PER_CHUNK: u64 = 1 << 23;
/// Bytes of a sector bitmap block.
pub const BITMAP_BLOCK_SIZE: u64 = MIB;
/// Largest metadata item in bytes.
pub const METADATA_ITEM_MAX: u32 = 1 << 20;

/// The BAT's region.
pub const BAT_REGION: Uuid = uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08");
/// The metadata region.
pub const METADATA_REGION: Uuid = uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e");

/// File Parameters (2.6.2.1).
pub const FILE_PARAMETERS: Uuid = uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
/// Virtual Disk Size (2.6.2.2).
pub const VIRTUAL_DISK_SIZE: Uuid = uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8");
/// Virtual Disk ID (2.6.2.3).
pub const VIRTUAL_DISK_ID: Uuid = uuid!("beca12ab-b2e6-4523-93ef-c309e000c746");
/// Logical Sector Size (2.6.2.4).
pub const LOGICAL_SECTOR_SIZE: Uuid = uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f");
/// Physical Sector Size (2.6.2.5).
pub const PHYSICAL_SECTOR_SIZE: Uuid = uuid!("cda348c7-445d-4471-9cc9-e9885251c556");
/// Parent Locator (2.6.2.6).
pub const PARENT_LOCATOR: Uuid = uuid!("a8d35f2d-b30b-454d-abf7-d3d84834ab0c");
/// The only type of parent locator.
pub const LOCATOR_TYPE_VHDX: Uuid = uuid!("b04aefb7-d19e-4a81-b789-25b8e9445913");

/// `LeaveBlockAllocated` of the file parameters: the image is fixed.
pub const LEAVE_BLOCK_ALLOCATED: u32 = 1;
/// `HasParent` of the file parameters: the image is differencing.
pub const HAS_PARENT: u32 = 2;

/// A GUID as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// All zero.
    pub const ZERO: Self = Self([0; 16]);

    /// A new random one.
    pub fn random() -> Self {
        crate::fresh::uuid().into()
    }
}

impl From<Uuid> for Guid {
    fn from(id: Uuid) -> Self {
        Self(id.to_bytes_le())
    }
}

impl From<Guid> for Uuid {
    fn from(guid: Guid) -> Self {
        Self::from_bytes_le(guid.0)
    }
}

/// Header (2.2.2.1): the first 80 bytes of its 4 KiB, the rest is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Must be [`Header::SIGNATURE`].
    pub signature: [u8; 4],
    /// CRC-32C of the 4 KiB with this field zero.
    pub checksum: U32,
    /// The valid header with the larger number is current; compared unsigned.
    pub sequence_number: U64,
    /// Renewed before the first change of the file after an open.
    pub file_write_guid: Guid,
    /// Renewed before the first change of what the disk shows.
    pub data_write_guid: Guid,
    /// Which log entries count; zero when the log is empty.
    pub log_guid: Guid,
    /// Must be 0.
    pub log_version: U16,
    /// Must be 1.
    pub version: U16,
    /// Bytes, a multiple of 1 MiB.
    pub log_length: U32,
    /// Bytes, a multiple of 1 MiB, at least 1 MiB.
    pub log_offset: U64,
}

impl Header {
    /// "head"
    pub const SIGNATURE: [u8; 4] = *b"head";
}

/// Region Table Header (2.2.3.1).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RegionTableHeader {
    /// Must be "regi".
    pub signature: [u8; 4],
    /// CRC-32C of the 64 KiB with this field zero.
    pub checksum: U32,
    /// At most 2047.
    pub entry_count: U32,
    /// Must be 0.
    pub reserved: U32,
}

/// Region Table Entry (2.2.3.2).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RegionTableEntry {
    /// What the region is.
    pub guid: Guid,
    /// Bytes, a multiple of 1 MiB, at least 1 MiB.
    pub file_offset: U64,
    /// Bytes, a multiple of 1 MiB.
    pub length: U32,
    /// Bit 0: a reader that doesn't know the region must refuse the file.
    pub required: U32,
}

/// Metadata Table Header (2.6.1.1).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MetadataTableHeader {
    /// Must be "metadata".
    pub signature: [u8; 8],
    /// Must be 0.
    pub reserved: U16,
    /// At most 2047.
    pub entry_count: U16,
    /// Must be 0.
    pub reserved2: [u8; 20],
}

/// Metadata Table Entry (2.6.1.2).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MetadataTableEntry {
    /// What the item is.
    pub item_id: Guid,
    /// Bytes from the start of the metadata region, at least 64 KiB.
    pub offset: U32,
    /// Bytes, at most 1 MiB.
    pub length: U32,
    /// Bit 0 IsUser, bit 1 IsVirtualDisk, bit 2 IsRequired.
    pub flags: U32,
    /// Must be 0.
    pub reserved2: U32,
}

impl MetadataTableEntry {
    /// The item is about the disk, not about the file.
    pub const IS_VIRTUAL_DISK: u32 = 2;
    /// A reader that doesn't know the item must refuse the file.
    pub const IS_REQUIRED: u32 = 4;
}

/// Parent Locator Header (2.6.2.6.1).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LocatorHeader {
    /// Must be [`LOCATOR_TYPE_VHDX`].
    pub locator_type: Guid,
    /// Must be 0.
    pub reserved: U16,
    /// Number of entries that follow.
    pub key_value_count: U16,
}

/// Parent Locator Entry (2.6.2.6.2); offsets in bytes from the locator's start, lengths in bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LocatorEntry {
    /// Where the key stands.
    pub key_offset: U32,
    /// Where the value stands.
    pub value_offset: U32,
    /// Length of the key, UTF-16LE without a terminator.
    pub key_length: U16,
    /// Length of the value, UTF-16LE without a terminator.
    pub value_length: U16,
}

/// Log Entry Header (2.3.1.1).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogEntryHeader {
    /// Must be "loge".
    pub signature: [u8; 4],
    /// CRC-32C of the entry with this field zero.
    pub checksum: U32,
    /// Bytes, a multiple of 4 KiB.
    pub entry_length: U32,
    /// Offset in the log of the sequence's first entry that is still needed.
    pub tail: U32,
    /// More than 0; one more than the entry's before.
    pub sequence_number: U64,
    /// Number of descriptors that follow.
    pub descriptor_count: U32,
    /// Must be 0.
    pub reserved: U32,
    /// Must be the header's `log_guid`.
    pub log_guid: Guid,
    /// Bytes that the file had, durably, when the entry was written.
    pub flushed_file_offset: U64,
    /// Bytes that hold all that was allocated when the entry was written.
    pub last_file_offset: U64,
}

/// Zero Descriptor (2.3.1.2) and Data Descriptor (2.3.1.3), told apart by their signatures.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogDescriptor {
    /// "zero" or "desc".
    pub signature: [u8; 4],
    /// Data: the last 4 bytes of the page. Zero: must be 0.
    pub trailing_bytes: [u8; 4],
    /// Data: the first 8 bytes of the page. Zero: the length in bytes, a multiple of 4 KiB.
    pub leading_bytes: [u8; 8],
    /// Bytes, a multiple of 4 KiB.
    pub file_offset: U64,
    /// Must be the entry's.
    pub sequence_number: U64,
}

/// Log Data Sector (2.3.1.4).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LogDataSector {
    /// Must be "data".
    pub signature: [u8; 4],
    /// Upper half of the entry's sequence number.
    pub sequence_high: U32,
    /// Bytes 8..4092 of the page.
    pub data: [u8; 4084],
    /// Lower half of the entry's sequence number.
    pub sequence_low: U32,
}

const _: () = {
    assert!(size_of::<Header>() == 80);
    assert!(size_of::<RegionTableHeader>() == 16);
    assert!(size_of::<RegionTableEntry>() == 32);
    assert!(size_of::<MetadataTableHeader>() == 32);
    assert!(size_of::<MetadataTableEntry>() == 32);
    assert!(size_of::<LocatorHeader>() == 20);
    assert!(size_of::<LocatorEntry>() == 12);
    assert!(size_of::<LogEntryHeader>() == 64);
    assert!(size_of::<LogDescriptor>() == 32);
    assert!(size_of::<LogDataSector>() == PAGE_SIZE);
};

/// CRC-32C of a structure whose checksum stands in bytes 4..8, that field taken as zero.
pub fn checksum(parts: [&[u8]; 2]) -> u32 {
    let [first, second] = parts;
    let crc = crc32c::crc32c(&first[..4]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    let crc = crc32c::crc32c_append(crc, &first[8..]);
    crc32c::crc32c_append(crc, second)
}

/// `value` rounded up to a multiple of `unit`; saturates.
pub fn round_up(value: u64, unit: u64) -> u64 {
    value.checked_next_multiple_of(unit).unwrap_or(u64::MAX)
}
