//! The region table (2.2.3): where BAT and metadata stand.

use uuid::Uuid;
use zerocopy::{FromBytes, IntoBytes};

use super::format::{
    BAT_REGION, METADATA_REGION, MIB, REGION_TABLE_OFFSETS, RegionTableEntry, RegionTableHeader, TABLE_ENTRIES_MAX, TABLE_SIZE,
    checksum,
};
use crate::disk::pages::RawFile;
use crate::disk::{DiskError, DiskErrorKind, Result};

/// A range of the file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

impl Region {
    /// First byte after it.
    pub fn end(self) -> u64 {
        self.offset + self.length
    }

    /// Whether a range touches it.
    pub fn overlaps(self, offset: u64, length: u64) -> bool {
        offset < self.end() && self.offset < offset.saturating_add(length)
    }
}

/// The regions of a file.
#[derive(Debug, Clone)]
pub struct Regions {
    /// The block allocation table.
    pub bat: Region,
    /// The metadata.
    pub metadata: Region,
    entries: Vec<RegionTableEntry>,
}

impl Regions {
    /// The regions of a new file.
    pub fn new(metadata: Region, bat: Region) -> Self {
        let entry = |guid: Uuid, region: Region| RegionTableEntry {
            guid: guid.into(),
            file_offset: region.offset.into(),
            length: (region.length as u32).into(),
            required: 1.into(),
        };
        Self { bat, metadata, entries: vec![entry(BAT_REGION, bat), entry(METADATA_REGION, metadata)] }
    }

    /// Reads the first table, or the second where the first is damaged. `log` mustn't be touched by any region.
    pub fn read(raw: &RawFile, log: Region) -> Result<Self> {
        let mut bytes = vec![0; TABLE_SIZE];
        for offset in REGION_TABLE_OFFSETS {
            raw.read(&mut bytes, offset, "read the region table")?;
            if let Some(entries) = parse(&bytes) {
                return Self::check(raw, offset, entries, log);
            }
        }
        Err(DiskError::invalid(raw.path(), REGION_TABLE_OFFSETS[0], "Region Table", "is damaged, and so is its copy"))
    }

    fn check(raw: &RawFile, table: u64, entries: Vec<RegionTableEntry>, log: Region) -> Result<Self> {
        let invalid = |field, problem: String| Err(DiskError::invalid(raw.path(), table, field, problem));
        let (mut bat, mut metadata) = (None, None);
        let mut taken = vec![log];
        for entry in &entries {
            let region = Region { offset: entry.file_offset.get(), length: entry.length.get().into() };
            let id = Uuid::from(entry.guid);
            if !region.offset.is_multiple_of(MIB) || region.offset < MIB {
                return invalid("FileOffset", format!("of region {id} is {}, must be a multiple of 1 MiB", region.offset));
            }
            if !region.length.is_multiple_of(MIB) || region.length == 0 {
                return invalid("Length", format!("of region {id} is {}, must be a multiple of 1 MiB", region.length));
            }
            if region.offset.checked_add(region.length).is_none_or(|end| end > raw.len()) {
                return invalid("FileOffset", format!("of region {id}: the region ends after the file"));
            }
            if taken.iter().any(|other| other.overlaps(region.offset, region.length)) {
                return invalid("FileOffset", format!("of region {id}: the region overlaps another one"));
            }
            taken.push(region);
            let known = match id {
                BAT_REGION => &mut bat,
                METADATA_REGION => &mut metadata,
                _ if entry.required.get() & 1 == 0 => continue,
                _ => {
                    let text = format!("it has a required region that this program doesn't know ({id})");
                    return Err(DiskError::at(raw.path(), table, DiskErrorKind::Unsupported(text)));
                }
            };
            if known.replace(region).is_some() {
                return invalid("Region Table", format!("has region {id} twice"));
            }
        }
        match (bat, metadata) {
            (Some(bat), Some(metadata)) => Ok(Self { bat, metadata, entries }),
            (None, _) => invalid("Region Table", "has no BAT region".into()),
            (_, None) => invalid("Region Table", "has no metadata region".into()),
        }
    }

    /// Every region, unknown ones included.
    pub fn all(&self) -> impl Iterator<Item = Region> {
        self.entries.iter().map(|entry| Region { offset: entry.file_offset.get(), length: entry.length.get().into() })
    }

    /// The same with the BAT elsewhere.
    pub fn with_bat(&self, bat: Region) -> Self {
        let mut moved = self.clone();
        moved.bat = bat;
        for entry in &mut moved.entries {
            if Uuid::from(entry.guid) == BAT_REGION {
                entry.file_offset = bat.offset.into();
                entry.length = (bat.length as u32).into();
            }
        }
        moved
    }

    /// A region table's 64 KiB.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; TABLE_SIZE];
        let header = RegionTableHeader {
            signature: *b"regi",
            checksum: 0.into(),
            entry_count: (self.entries.len() as u32).into(),
            reserved: 0.into(),
        };
        bytes[..16].copy_from_slice(header.as_bytes());
        for (place, entry) in bytes[16..].chunks_exact_mut(32).zip(&self.entries) {
            place.copy_from_slice(entry.as_bytes());
        }
        let crc = checksum([&bytes, &[]]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// The entries of a table whose signature, checksum and count are right.
pub fn parse(bytes: &[u8]) -> Option<Vec<RegionTableEntry>> {
    let (header, _) = RegionTableHeader::read_from_prefix(bytes).ok()?;
    let count = header.entry_count.get() as usize;
    if header.signature != *b"regi" || count > TABLE_ENTRIES_MAX || header.checksum.get() != checksum([bytes, &[]]) {
        return None;
    }
    bytes[16..].chunks_exact(32).take(count).map(|entry| RegionTableEntry::read_from_bytes(entry).ok()).collect()
}
