//! What stands in a VHD file ("Virtual Hard Disk Image Format Specification 1.0"; its sections have names, no numbers).
//! Every number is big-endian; offsets in the file are bytes unless said otherwise.

use uuid::Uuid;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Unit of everything, in bytes.
pub const SECTOR: u64 = 512;
/// The same, for lengths of buffers.
pub const SECTOR_SIZE: usize = SECTOR as usize;
/// "Hard Disk Footer Format" of old programs is one byte shorter.
pub const SHORT_FOOTER: usize = 511;
/// Bytes of the dynamic disk header.
pub const HEADER_SIZE: usize = 1024;
/// The largest disk: what Hyper-V and Virtual PC allow.
pub const VIRTUAL_SIZE_MAX: u64 = 2040 << 30;
/// What a block may have, in bytes. Programs write 512 KiB and 2 MiB.
pub const BLOCK_SIZES: std::ops::RangeInclusive<u64> = (4 << 10)..=(256 << 20);
/// The usual block, in bytes.
pub const BLOCK_SIZE: u64 = 2 << 20;
/// A block's data is put on multiples of this, as Windows does.
pub const DATA_ALIGNMENT: u64 = 4096;
/// A BAT entry of a block without a place.
pub const UNUSED: u32 = 0xFFFF_FFFF;
/// No next structure ("Data Offset" of a fixed disk, and of a dynamic header).
pub const NOWHERE: u64 = u64::MAX;

/// "Disk Type".
pub const FIXED: u32 = 2;
/// "Disk Type".
pub const DYNAMIC: u32 = 3;
/// "Disk Type".
pub const DIFFERENCING: u32 = 4;

/// Hard Disk Footer Format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Footer {
    /// Must be [`Footer::COOKIE`].
    pub cookie: [u8; 8],
    /// Bit 1 must be set.
    pub features: U32,
    /// Must be [`VERSION`].
    pub version: U32,
    /// Where the dynamic header stands; [`NOWHERE`] for fixed disks.
    pub data_offset: U64,
    /// Seconds since 2000-01-01 UTC.
    pub time_stamp: U32,
    /// Who made it.
    pub creator_application: [u8; 4],
    /// In which version.
    pub creator_version: U32,
    /// On what.
    pub creator_host_os: [u8; 4],
    /// Bytes of the disk when it was made.
    pub original_size: U64,
    /// Bytes of the disk.
    pub current_size: U64,
    /// Old geometry.
    pub cylinders: U16,
    /// Old geometry.
    pub heads: u8,
    /// Old geometry: sectors of a track.
    pub sectors: u8,
    /// [`FIXED`], [`DYNAMIC`] or [`DIFFERENCING`].
    pub disk_type: U32,
    /// One's complement of the sum of all bytes with this field zero.
    pub checksum: U32,
    /// Children hold it.
    pub unique_id: [u8; 16],
    /// 1: the machine was saved.
    pub saved_state: u8,
    /// Kept as they are (blktap uses the first one).
    pub reserved: [u8; 387],
    /// Reserved as well; zeros, but while something of ours is under way.
    pub note: Note,
}

/// What we put into the footer's last reserved bytes for as long as it is needed. So it counts, or doesn't,
/// together with all the rest that the footer's one sector says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Note {
    /// [`Note::SIGNATURE`] where it is ours.
    pub signature: [u8; 8],
    /// The unique id before this one: children that still hold it are right.
    pub former_id: [u8; 16],
    /// A fixed disk was grown, and this sector of it has an old footer instead of zeros; its offset.
    pub old_footer: U64,
    /// Zeros.
    pub spare: [u8; 8],
}

/// "File Format Version" and "Header Version".
pub const VERSION: u32 = 0x0001_0000;

impl Footer {
    /// "Cookie".
    pub const COOKIE: [u8; 8] = *b"conectix";

    /// The id as a value.
    pub fn id(&self) -> Uuid {
        Uuid::from_bytes(self.unique_id)
    }

    /// The note, if it is ours.
    pub fn note(&self) -> Option<&Note> {
        Some(&self.note).filter(|note| note.signature == Note::SIGNATURE)
    }

    /// The id before this one, if it still counts.
    pub fn former_id(&self) -> Option<Uuid> {
        self.note().map(|note| Uuid::from_bytes(note.former_id)).filter(|id| !id.is_nil())
    }

    /// The sector of a fixed disk that must be zeros and isn't yet.
    pub fn old_footer(&self) -> Option<u64> {
        self.note().map(|note| note.old_footer.get()).filter(|offset| *offset != 0)
    }

    /// Sets or clears both.
    pub fn set_note(&mut self, former_id: Option<Uuid>, old_footer: Option<u64>) {
        if self.note().is_none() && former_id.is_none() && old_footer.is_none() {
            return;
        }
        let empty = former_id.is_none() && old_footer.is_none();
        self.note = Note {
            signature: if empty { [0; 8] } else { Note::SIGNATURE },
            former_id: former_id.unwrap_or_default().into_bytes(),
            old_footer: old_footer.unwrap_or(0).into(),
            spare: [0; 8],
        };
    }
}

impl Note {
    /// Says that it is ours.
    pub const SIGNATURE: [u8; 8] = *b"snaptree";
}

/// Dynamic Disk Header Format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DynamicHeader {
    /// Must be [`DynamicHeader::COOKIE`].
    pub cookie: [u8; 8],
    /// Must be [`NOWHERE`].
    pub data_offset: U64,
    /// Where the BAT stands.
    pub table_offset: U64,
    /// Must be [`VERSION`].
    pub version: U32,
    /// Entries of the BAT: as many as the disk has blocks, or more.
    pub max_table_entries: U32,
    /// Bytes of a block without its bitmap.
    pub block_size: U32,
    /// As the footer's.
    pub checksum: U32,
    /// The parent's unique id.
    pub parent_unique_id: [u8; 16],
    /// When the parent was last changed, as the footer's; 0 in what Windows writes.
    pub parent_time_stamp: U32,
    /// Zero.
    pub reserved: U32,
    /// UTF-16BE.
    pub parent_unicode_name: [u8; 512],
    /// Where the parent's paths stand.
    pub locators: [LocatorEntry; 8],
    /// Zeros.
    pub reserved2: [u8; 256],
}

impl DynamicHeader {
    /// "Cookie".
    pub const COOKIE: [u8; 8] = *b"cxsparse";
}

/// Parent Locator Entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LocatorEntry {
    /// What kind of path; zeros where there is none.
    pub platform_code: [u8; 4],
    /// What is reserved for it: bytes in Windows' files, sectors in the specification's words.
    pub data_space: U32,
    /// Bytes of the path.
    pub data_length: U32,
    /// Zero.
    pub reserved: U32,
    /// Where it stands.
    pub data_offset: U64,
}

impl LocatorEntry {
    /// No path.
    pub const NONE: Self = Self {
        platform_code: [0; 4],
        data_space: U32::ZERO,
        data_length: U32::ZERO,
        reserved: U32::ZERO,
        data_offset: U64::ZERO,
    };
}

const _: () = {
    assert!(size_of::<Footer>() == SECTOR_SIZE);
    assert!(size_of::<DynamicHeader>() == HEADER_SIZE);
    assert!(size_of::<LocatorEntry>() == 24);
};

/// "Checksum": of bytes whose checksum field is zero.
pub fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add((*byte).into()))
}

/// "CHS Calculation": cylinders, heads, sectors of a track.
pub fn geometry(size: u64) -> (u16, u8, u8) {
    let total = (size / SECTOR).min(65535 * 16 * 255);
    let (mut track, mut heads, mut cylinders_times_heads);
    if total >= 65535 * 16 * 63 {
        (track, heads) = (255, 16);
        cylinders_times_heads = total / track;
    } else {
        track = 17;
        cylinders_times_heads = total / track;
        heads = cylinders_times_heads.div_ceil(1024).max(4);
        if cylinders_times_heads >= heads * 1024 || heads > 16 {
            (track, heads) = (31, 16);
            cylinders_times_heads = total / track;
        }
        if cylinders_times_heads >= heads * 1024 {
            (track, heads) = (63, 16);
            cylinders_times_heads = total / track;
        }
    }
    ((cylinders_times_heads / heads) as u16, heads as u8, track as u8)
}

/// Rounds up to a power of two.
pub fn round_up(value: u64, to: u64) -> u64 {
    value.div_ceil(to) * to
}
