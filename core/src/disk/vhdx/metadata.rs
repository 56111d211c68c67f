//! The metadata region (2.6): a table of items, and what the known ones say. Unknown items that aren't
//! required are kept.

use uuid::Uuid;
use zerocopy::{FromBytes, IntoBytes};

use super::format::{
    BLOCK_SIZES, FILE_PARAMETERS, Guid, HAS_PARENT, LEAVE_BLOCK_ALLOCATED, LOGICAL_SECTOR_SIZE, METADATA_ITEM_MAX,
    MetadataTableEntry, MetadataTableHeader, PARENT_LOCATOR, PHYSICAL_SECTOR_SIZE, TABLE_ENTRIES_MAX, TABLE_SIZE,
    VIRTUAL_DISK_ID, VIRTUAL_DISK_SIZE, VIRTUAL_SIZE_MAX,
};
use super::parent_locator::ParentLocator;
use super::region::Region;
use crate::disk::pages::{Pages, Patches, RawFile};
use crate::disk::{DiskError, DiskErrorKind, MetadataItem, Result};

/// What the known items say.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// Bytes, a power of two from 1 to 256 MiB.
    pub block_size: u64,
    /// Blocks keep their place (a fixed image).
    pub leave_allocated: bool,
    /// Bytes, a multiple of the logical sector size.
    pub virtual_size: u64,
    /// The disk's identifier.
    pub disk_id: Uuid,
    /// 512 or 4096.
    pub logical_sector_size: u32,
    /// 512 or 4096.
    pub physical_sector_size: u32,
    /// The parent of a differencing image (`HasParent`).
    pub locator: Option<ParentLocator>,
}

impl Parameters {
    /// The File Parameters item.
    pub fn file_parameters(&self) -> Vec<u8> {
        let leave = if self.leave_allocated { LEAVE_BLOCK_ALLOCATED } else { 0 };
        let parent = if self.locator.is_some() { HAS_PARENT } else { 0 };
        [(self.block_size as u32).to_le_bytes(), (leave | parent).to_le_bytes()].concat()
    }

    /// All items of a new file: identifier, flags, content.
    pub fn items(&self) -> Vec<(Uuid, u32, Vec<u8>)> {
        let required = MetadataTableEntry::IS_REQUIRED;
        let disk = required | MetadataTableEntry::IS_VIRTUAL_DISK;
        let mut items = vec![
            (FILE_PARAMETERS, required, self.file_parameters()),
            (VIRTUAL_DISK_SIZE, disk, self.virtual_size.to_le_bytes().to_vec()),
            (LOGICAL_SECTOR_SIZE, disk, self.logical_sector_size.to_le_bytes().to_vec()),
            (PHYSICAL_SECTOR_SIZE, disk, self.physical_sector_size.to_le_bytes().to_vec()),
            (VIRTUAL_DISK_ID, disk, Guid::from(self.disk_id).0.to_vec()),
        ];
        if let Some(locator) = &self.locator {
            items.push((PARENT_LOCATOR, required, locator.encode()));
        }
        items
    }
}

const KNOWN: [Uuid; 6] =
    [FILE_PARAMETERS, VIRTUAL_DISK_SIZE, VIRTUAL_DISK_ID, LOGICAL_SECTOR_SIZE, PHYSICAL_SECTOR_SIZE, PARENT_LOCATOR];

/// More than any program puts beside what the disk needs, all items together.
const UNKNOWN_BYTES_MAX: u64 = 16 << 20;

/// The table of items.
#[derive(Debug, Clone)]
pub struct MetadataTable {
    region: Region,
    entries: Vec<MetadataTableEntry>,
}

impl MetadataTable {
    /// An empty table, for a new file.
    pub fn new(region: Region) -> Self {
        Self { region, entries: Vec::new() }
    }

    /// Reads and checks the table.
    pub fn read(raw: &RawFile, pages: &mut Pages, region: Region) -> Result<Self> {
        let invalid = |field, problem: String| Err(DiskError::invalid(raw.path(), region.offset, field, problem));
        let mut bytes = vec![0; TABLE_SIZE];
        pages.read(raw, &mut bytes, region.offset)?;
        let Ok((header, rest)) = MetadataTableHeader::read_from_prefix(&bytes) else {
            return invalid("Metadata Table Header", "is too short".into());
        };
        let count = usize::from(header.entry_count.get());
        if header.signature != *b"metadata" {
            return invalid("Signature", "of the metadata table isn't \"metadata\"".into());
        }
        if count > TABLE_ENTRIES_MAX {
            return invalid("EntryCount", format!("of the metadata table is {count}, at most {TABLE_ENTRIES_MAX} are allowed"));
        }
        let Ok((entries, _)) = <[MetadataTableEntry]>::ref_from_prefix_with_elems(rest, count) else {
            return invalid("EntryCount", format!("of the metadata table is {count}"));
        };
        let mut taken: Vec<(u64, u64)> = Vec::with_capacity(count);
        let mut ids: Vec<(Guid, u32)> = Vec::with_capacity(count);
        for entry in entries {
            let id = Uuid::from(entry.item_id);
            let (offset, length) = (u64::from(entry.offset.get()), u64::from(entry.length.get()));
            let empty = offset == 0 && length == 0;
            if !empty && (offset < TABLE_SIZE as u64 || offset + length > region.length || entry.length.get() > METADATA_ITEM_MAX)
            {
                return invalid("Offset", format!("of metadata item {id} is {offset} with {length} bytes: outside the region"));
            }
            if !empty {
                taken.push((offset, offset + length));
            }
            let is_user = entry.flags.get() & 1;
            let known = is_user == 0 && KNOWN.contains(&id);
            if !known && entry.flags.get() & MetadataTableEntry::IS_REQUIRED != 0 {
                let text = format!("it has a required metadata item that this program doesn't know ({id})");
                return Err(DiskError::at(raw.path(), region.offset, DiskErrorKind::Unsupported(text)));
            }
            ids.push((entry.item_id, is_user));
        }
        taken.sort_unstable();
        if let Some(pair) = taken.windows(2).find(|pair| pair[0].1 > pair[1].0) {
            return invalid("Offset", format!("of a metadata item is {}, inside another item", pair[1].0));
        }
        ids.sort_unstable_by_key(|(guid, user)| (guid.0, *user));
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return invalid("ItemId", format!("{} stands twice in the metadata table", Uuid::from(pair[0].0)));
        }
        Ok(Self { region, entries: entries.to_vec() })
    }

    fn position(&self, id: Uuid, is_user: bool) -> Option<usize> {
        self.entries.iter().position(|entry| Uuid::from(entry.item_id) == id && (entry.flags.get() & 1 == 1) == is_user)
    }

    /// An item's content.
    pub fn item(&self, raw: &RawFile, pages: &mut Pages, id: Uuid) -> Result<Option<Vec<u8>>> {
        let Some(index) = self.position(id, false) else { return Ok(None) };
        self.content(raw, pages, &self.entries[index]).map(Some)
    }

    fn content(&self, raw: &RawFile, pages: &mut Pages, entry: &MetadataTableEntry) -> Result<Vec<u8>> {
        let mut bytes = vec![0; entry.length.get() as usize];
        pages.read(raw, &mut bytes, self.region.offset + u64::from(entry.offset.get()))?;
        Ok(bytes)
    }

    /// Items that this program doesn't know and that aren't required.
    pub fn unknown(&self, raw: &RawFile, pages: &mut Pages) -> Result<Vec<MetadataItem>> {
        let unknown = self.entries.iter().filter(|e| e.flags.get() & 1 == 1 || !KNOWN.contains(&e.item_id.into()));
        let bytes: u64 = unknown.clone().map(|entry| u64::from(entry.length.get())).sum();
        if bytes > UNKNOWN_BYTES_MAX {
            let text = format!("its unknown metadata items have {bytes} bytes, at most {UNKNOWN_BYTES_MAX} are kept");
            return Err(DiskError::at(raw.path(), self.region.offset, DiskErrorKind::Unsupported(text)));
        }
        unknown
            .map(|entry| {
                let content = self.content(raw, pages, entry)?;
                Ok(MetadataItem { id: entry.item_id.into(), flags: entry.flags.get(), content })
            })
            .collect()
    }

    /// What the known items say.
    pub fn parameters(&self, raw: &RawFile, pages: &mut Pages) -> Result<Parameters> {
        let place = |id| {
            let offset = self.position(id, false).map_or(0, |index| u64::from(self.entries[index].offset.get()));
            self.region.offset + offset
        };
        let wrong = |id, field, problem: String| DiskError::invalid(raw.path(), place(id), field, problem);
        let invalid = |id, field, problem: String| Err(wrong(id, field, problem));
        let mut fixed = |id, field, length: usize| match self.item(raw, pages, id)? {
            Some(bytes) if bytes.len() == length => Ok(bytes),
            Some(bytes) => {
                Err(DiskError::invalid(raw.path(), place(id), field, format!("has {} bytes, must have {length}", bytes.len())))
            }
            None => Err(DiskError::invalid(raw.path(), self.region.offset, field, "is missing")),
        };
        let u32_of = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("4 bytes"));
        let file = fixed(FILE_PARAMETERS, "File Parameters", 8)?;
        let (block_size, flags) = (u64::from(u32_of(&file[..4])), u32_of(&file[4..]));
        let size = fixed(VIRTUAL_DISK_SIZE, "Virtual Disk Size", 8)?;
        let virtual_size = u64::from_le_bytes(size.try_into().expect("8 bytes"));
        let disk_id = fixed(VIRTUAL_DISK_ID, "Virtual Disk ID", 16)?;
        let logical_sector_size = u32_of(&fixed(LOGICAL_SECTOR_SIZE, "Logical Sector Size", 4)?);
        let physical_sector_size = u32_of(&fixed(PHYSICAL_SECTOR_SIZE, "Physical Sector Size", 4)?);
        if !block_size.is_power_of_two() || !BLOCK_SIZES.contains(&block_size) {
            return invalid(FILE_PARAMETERS, "BlockSize", format!("is {block_size}, must be a power of two from 1 to 256 MiB"));
        }
        for (id, field, size) in [
            (LOGICAL_SECTOR_SIZE, "Logical Sector Size", logical_sector_size),
            (PHYSICAL_SECTOR_SIZE, "Physical Sector Size", physical_sector_size),
        ] {
            if size != 512 && size != 4096 {
                return invalid(id, field, format!("is {size}, must be 512 or 4096"));
            }
        }
        if virtual_size == 0 || virtual_size > VIRTUAL_SIZE_MAX || virtual_size % u64::from(logical_sector_size) != 0 {
            return invalid(
                VIRTUAL_DISK_SIZE,
                "Virtual Disk Size",
                format!("is {virtual_size}, must be whole sectors, at most 64 TiB"),
            );
        }
        let mut locator = None;
        if flags & HAS_PARENT != 0 {
            let Some(bytes) = self.item(raw, pages, PARENT_LOCATOR)? else {
                return invalid(FILE_PARAMETERS, "Parent Locator", "is missing, but HasParent is set".into());
            };
            let parsed = ParentLocator::parse(&bytes).and_then(|locator| locator.link().map(|_| locator));
            locator = Some(parsed.map_err(|problem| wrong(PARENT_LOCATOR, "Parent Locator", problem))?);
        }
        Ok(Parameters {
            block_size,
            leave_allocated: flags & LEAVE_BLOCK_ALLOCATED != 0,
            virtual_size,
            disk_id: Uuid::from_bytes_le(disk_id.try_into().expect("16 bytes")),
            logical_sector_size,
            physical_sector_size,
            locator,
        })
    }

    /// The changes that give an item new content. The table is changed at once; `None` when there is no room.
    pub fn set_item(&mut self, id: Uuid, flags: u32, content: &[u8]) -> Option<Patches> {
        let length = content.len() as u32;
        let index = match self.position(id, flags & 1 == 1) {
            Some(index) => index,
            None if self.entries.len() == TABLE_ENTRIES_MAX => return None,
            None => self.entries.len(),
        };
        let old = self.entries.get(index).copied();
        let offset = match old {
            Some(old) if length <= old.length.get() && old.offset.get() != 0 => old.offset.get(),
            _ => self.room(length)?,
        };
        let entry = MetadataTableEntry {
            item_id: id.into(),
            offset: offset.into(),
            length: length.into(),
            flags: flags.into(),
            reserved2: 0.into(),
        };
        match old {
            Some(_) => self.entries[index] = entry,
            None => self.entries.push(entry),
        }
        let mut patches = vec![(self.region.offset + u64::from(offset), content.to_vec())];
        patches.extend(self.table_patches(index));
        Some(patches)
    }

    /// The changes that take an item out.
    pub fn remove_item(&mut self, id: Uuid, is_user: bool) -> Patches {
        let Some(index) = self.position(id, is_user) else { return Vec::new() };
        self.entries.remove(index);
        let mut patches = self.table_patches(index);
        patches.push((self.entry_place(self.entries.len()), vec![0; size_of::<MetadataTableEntry>()]));
        patches
    }

    fn entry_place(&self, index: usize) -> u64 {
        self.region.offset + (size_of::<MetadataTableHeader>() + index * size_of::<MetadataTableEntry>()) as u64
    }

    /// The table's header, and the entries from `first` on.
    fn table_patches(&self, first: usize) -> Patches {
        let header = MetadataTableHeader {
            signature: *b"metadata",
            reserved: 0.into(),
            entry_count: (self.entries.len() as u16).into(),
            reserved2: [0; 20],
        };
        let mut patches = vec![(self.region.offset, header.as_bytes().to_vec())];
        if first < self.entries.len() {
            patches.push((self.entry_place(first), self.entries[first..].as_bytes().to_vec()));
        }
        patches
    }

    /// The first gap for an item, after the table.
    fn room(&self, length: u32) -> Option<u32> {
        let mut taken: Vec<(u64, u64)> =
            self.entries.iter().map(|e| (e.offset.get().into(), u64::from(e.offset.get()) + u64::from(e.length.get()))).collect();
        taken.sort_unstable();
        let mut at = TABLE_SIZE as u64;
        for (from, to) in taken {
            if at + u64::from(length) <= from {
                break;
            }
            at = at.max(to.next_multiple_of(8));
        }
        (at + u64::from(length) <= self.region.length && length <= METADATA_ITEM_MAX).then_some(at as u32)
    }
}
