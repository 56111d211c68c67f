//! An open image: where its data is, and reading it.
//!
//! Three locks, taken in this order:
//! ```text
//! writer    one change of metadata at a time: allocation, header; a flush commits apart from it
//! geometry  shared for the length of a read or overwrite; alone when a block loses its place
//! pages     for the moment of a look at BAT or bitmap
//! ```

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock};

use uuid::Uuid;

use super::bat::{BatEntry, BlockState, Geometry};
use super::format::{BITMAP_BLOCK_SIZE, Guid, MIB, PAGE, PAGE_SIZE, REGION_TABLE_OFFSETS};
use super::header::Headers;
use super::log;
use super::metadata::{MetadataTable, Parameters};
use super::region::{Region, Regions};
use super::sector_bitmap::runs;
use super::write::{LONG_ZEROS, TRIMMED, Writer};
use crate::disk::pages::{Page, Pages, Patches, RawFile};
use crate::disk::pending::{Pending, fits};
use crate::disk::{
    DiskError, DiskErrorKind, Extent, Image, ImageFormat, ImageInfo, ImageType, MetadataItem, ParentTarget, Presence, Released,
    Result, Structure,
};
use crate::disk::{check_range, check_sectors};
use crate::host_file::{Access, SharedHost};
use crate::locks::{lock, lock_shared};
use crate::units::ByteCount;

/// How often somebody who only looks tries to open a file that is being written.
const LOOKS: usize = 8;

/// An open VHDX file.
#[derive(Debug)]
pub struct VhdxImage {
    pub(super) host: SharedHost,
    pub(super) raw: RawFile,
    pub(super) writable: AtomicBool,
    pub(super) info: RwLock<ImageInfo>,
    pub(super) geometry: RwLock<Arc<Geometry>>,
    pub(super) pages: Mutex<Pages>,
    pub(super) writer: Mutex<Writer>,
    /// A commit apart from the writer's lock has ended.
    pub(super) committed: Condvar,
    /// This opening won't change the DataWriteGuid any more.
    pub(super) data_id_settled: AtomicBool,
}

/// Whether the file starts as a VHDX file does (2.2.1).
pub(super) fn check_signature(raw: &RawFile) -> Result<()> {
    let mut signature = [0; 8];
    let right = raw.len() >= MIB && raw.read(&mut signature, 0, "read the file identifier").is_ok();
    if !right || signature != *b"vhdxfile" {
        return Err(DiskError::invalid(raw.path(), 0, "Signature", "isn't \"vhdxfile\""));
    }
    Ok(())
}

pub(super) fn describe(parameters: &Parameters, data_write_guid: Guid) -> ImageInfo {
    let kind = match (&parameters.locator, parameters.leave_allocated) {
        (Some(_), _) => ImageType::Differencing,
        (None, true) => ImageType::Fixed,
        (None, false) => ImageType::Dynamic,
    };
    ImageInfo {
        format: ImageFormat::Vhdx,
        kind,
        virtual_size: ByteCount(parameters.virtual_size),
        logical_sector_size: parameters.logical_sector_size,
        physical_sector_size: parameters.physical_sector_size,
        block_size: ByteCount(parameters.block_size),
        disk_id: parameters.disk_id,
        data_write_id: data_write_guid.into(),
        former_id: None,
        parent: parameters.locator.as_ref().and_then(|locator| locator.link().ok()),
    }
}

impl VhdxImage {
    /// Opens a file; see [`super::open`].
    pub fn open(host: &SharedHost, path: &Path, access: Access) -> Result<Arc<Self>> {
        let file = host.open(path, access).map_err(|e| DiskError::io(path, "open the image", e))?;
        let open = || Self::open_file(host, RawFile::new(file.clone())?, access);
        if access == Access::Look {
            // Whoever writes it may replace the log meanwhile.
            let header = || Some(Headers::read(&RawFile::new(file.clone()).ok()?).ok()?.current.sequence_number);
            let mut before = header();
            for _ in 1..LOOKS {
                let (opened, after) = (open(), header());
                if after == before {
                    return opened;
                }
                before = after;
            }
        }
        open()
    }

    fn open_file(host: &SharedHost, mut raw: RawFile, access: Access) -> Result<Arc<Self>> {
        check_signature(&raw)?;
        let mut headers = Headers::read(&raw)?;
        let writable = access == Access::Write;
        if headers.log_in_use() {
            let overlay = log::read(&raw, log_region(&headers), headers.current.log_guid)?;
            if writable {
                // What the log makes of the file must open: else the file stays as it is.
                let mut replayed = RawFile::new(raw.host().clone())?;
                replayed.set_overlay(overlay);
                let looked_at = Self::assemble(host, replayed, headers.clone(), false)?;
                looked_at.apply_pending()?;
                log::replay(&raw, looked_at.raw.overlay())?;
                let mut header = headers.current;
                header.log_guid = Guid::ZERO;
                headers.replace(&raw, header)?;
            } else {
                raw.set_overlay(overlay);
            }
        }
        let image = Self::assemble(host, raw, headers, writable)?;
        image.apply_pending()?;
        Ok(image)
    }

    /// Reads regions and metadata of a file whose log is empty or laid over it.
    pub(super) fn assemble(host: &SharedHost, raw: RawFile, headers: Headers, writable: bool) -> Result<Arc<Self>> {
        let log = log_region(&headers);
        let regions = Regions::read(&raw, log)?;
        let mut pages = Pages::default();
        let table = MetadataTable::read(&raw, &mut pages, regions.metadata)?;
        let parameters = table.parameters(&raw, &mut pages)?;
        let sector_size = u64::from(parameters.logical_sector_size);
        let geometry = Geometry {
            virtual_size: parameters.virtual_size,
            block_size: parameters.block_size,
            sector_size,
            chunk_ratio: Geometry::chunk_ratio(sector_size, parameters.block_size),
            has_parent: parameters.locator.is_some(),
            leave_allocated: parameters.leave_allocated,
            regions,
            log,
        };
        let bat = geometry.regions.bat;
        if geometry.entry_count() * 8 > bat.length {
            let problem = format!("of the BAT region is {}, but {} entries are needed", bat.length, geometry.entry_count());
            return Err(DiskError::invalid(raw.path(), bat.offset, "Length", problem));
        }
        if writable && (log.length < MIB || log.end() > raw.len()) {
            let text = "it has no room for a log, and can only be read";
            return Err(DiskError::at(raw.path(), log.offset, DiskErrorKind::Unsupported(text.into())));
        }
        let pending = Pending::new(host, raw.path());
        Ok(Arc::new(Self {
            host: host.clone(),
            writable: writable.into(),
            info: describe(&parameters, headers.current.data_write_guid).into(),
            geometry: Arc::new(geometry).into(),
            pages: pages.into(),
            writer: Writer::new(headers, table, parameters, pending).into(),
            committed: Condvar::new(),
            data_id_settled: false.into(),
            raw,
        }))
    }

    /// What changes make of the tables and the metadata must open as well.
    fn check_changes(&self, writer: &Writer, changes: &[Patches]) -> Result<()> {
        let g = self.geometry();
        let tables = (REGION_TABLE_OFFSETS[0], MIB);
        let touches = |(start, end): (u64, u64), (offset, bytes): &&(u64, Vec<u8>)| {
            *offset < end && offset + bytes.len() as u64 > start && !bytes.is_empty()
        };
        let metadata = (g.regions.metadata.offset, g.regions.metadata.end());
        let mut told = changes.iter().flatten().filter(|patch| touches(tables, patch) || touches(metadata, patch)).peekable();
        if told.peek().is_none() {
            return Ok(());
        }
        let mut changed = RawFile::new(self.raw.host().clone())?;
        changed.set_overlay(self.raw.overlay().clone());
        told.try_for_each(|(offset, bytes)| changed.lay_over(*offset, bytes))?;
        Self::assemble(&self.host, changed, writer.headers.clone(), false).map(drop)
    }

    /// Applies what a killed process of this boot had acknowledged: into the file if we may, in memory otherwise.
    fn apply_pending(&self) -> Result<()> {
        let mut writer = self.settled();
        let changes = writer.pending.read(writer.headers.current.file_write_guid.0)?;
        if !changes.iter().all(|patches| fits(patches, &self.raw, REGION_TABLE_OFFSETS[0])) {
            return Err(DiskError::invalid(self.raw.path(), 0, "side file", "has changes outside the image's metadata"));
        }
        self.check_changes(&writer, &changes)?;
        for patches in changes {
            lock(&self.pages).patch(&self.raw, &patches)?;
            if self.is_writable() && lock(&self.pages).dirty_count() >= writer.dirty_limit() {
                self.raw.flush()?;
                self.commit(&mut writer)?;
            }
        }
        if self.is_writable() {
            // The header of a commit before the kill may not be durable yet.
            if lock(&self.pages).dirty_count() > 0 {
                self.raw.flush()?;
                self.commit(&mut writer)?;
            }
            writer.pending.remove()?;
        }
        Ok(())
    }

    pub(super) fn invalid(&self, offset: u64, field: &'static str, problem: impl Into<String>) -> DiskError {
        DiskError::invalid(self.raw.path(), offset, field, problem)
    }

    pub(super) fn refused(&self, reason: impl Into<String>) -> DiskError {
        DiskError::refused(self.raw.path(), reason)
    }

    pub(super) fn geometry(&self) -> Arc<Geometry> {
        lock_shared(&self.geometry).clone()
    }

    /// A block's BAT entry, checked.
    pub(super) fn entry(&self, g: &Geometry, block: u64) -> Result<(BatEntry, BlockState)> {
        let place = g.payload_entry(block);
        let page = lock(&self.pages).page(&self.raw, place / PAGE * PAGE)?;
        self.checked_entry(g, block, entry_in(&page, place))
    }

    pub(super) fn checked_entry(&self, g: &Geometry, block: u64, entry: BatEntry) -> Result<(BatEntry, BlockState)> {
        let place = g.payload_entry(block);
        let Some(state) = entry.state() else {
            return Err(self.invalid(place, "State", format!("of block {block} is {}", entry.0 & 7)));
        };
        if state == BlockState::PartiallyPresent && !g.has_parent {
            return Err(self.invalid(place, "State", format!("of block {block} is PARTIALLY_PRESENT without a parent")));
        }
        if entry.is_placed() {
            let mut problem = g.place_problem(entry, g.shown_length(block), self.raw.len());
            if problem.is_some() {
                // Another process may have made the file longer since.
                let mut last = [0];
                let end = entry.offset().saturating_add(g.shown_length(block)) - 1;
                let _ = self.raw.read(&mut last, end, "read a block's end");
                problem = g.place_problem(entry, g.shown_length(block), self.raw.len());
            }
            if let Some(problem) = problem {
                return Err(self.invalid(place, "FileOffsetMB", format!("of block {block} {problem}")));
            }
        }
        Ok((entry, state))
    }

    /// Where the bitmap of a block's chunk stands, if there is one.
    pub(super) fn bitmap_place(&self, g: &Geometry, block: u64) -> Result<Option<u64>> {
        let place = g.bitmap_entry(block);
        let page = lock(&self.pages).page(&self.raw, place / PAGE * PAGE)?;
        self.checked_bitmap(g, place, entry_in(&page, place))
    }

    /// The place that the BAT entry of a sector bitmap block names, if it names one, checked.
    pub(super) fn checked_bitmap(&self, g: &Geometry, place: u64, entry: BatEntry) -> Result<Option<u64>> {
        match entry.0 & 7 {
            0 => return Ok(None),
            6 => {}
            state => return Err(self.invalid(place, "State", format!("of a sector bitmap block is {state}, must be 0 or 6"))),
        }
        match g.place_problem(entry, BITMAP_BLOCK_SIZE, self.raw.len()) {
            Some(problem) => Err(self.invalid(place, "FileOffsetMB", format!("of a sector bitmap block {problem}"))),
            None => Ok(Some(entry.offset())),
        }
    }

    /// Bits of `length` bytes of the disk from `offset` on, all in one chunk: the bytes that hold them, the first
    /// bit in these, and how many.
    fn bits(&self, g: &Geometry, block: u64, offset: u64, length: u64) -> Result<(Vec<u8>, usize, usize)> {
        let bitmap = self.bitmap_place(g, block)?.ok_or_else(|| {
            self.invalid(
                g.bitmap_entry(block),
                "State",
                format!("of the sector bitmap of block {block} is 0, but the block is PARTIALLY_PRESENT"),
            )
        })?;
        let (first, count) = (g.bit(offset), length / g.sector_size);
        let mut bytes = vec![0; ((first + count).div_ceil(8) - first / 8) as usize];
        lock(&self.pages).read(&self.raw, &mut bytes, bitmap + first / 8)?;
        Ok((bytes, (first % 8) as usize, count as usize))
    }

    /// Runs of sectors of a partial block: (stands in the file, offset on the disk, length).
    pub(super) fn partial_runs(&self, g: &Geometry, block: u64, offset: u64, length: u64) -> Result<Vec<(bool, u64, u64)>> {
        let (bytes, first, count) = self.bits(g, block, offset, length)?;
        let mut at = offset;
        let runs = runs(&bytes, first, count).into_iter().map(|(set, sectors)| {
            let run = (set, at, sectors as u64 * g.sector_size);
            at += run.2;
            run
        });
        Ok(runs.collect())
    }

    /// [`Image::extents`] for a range that may end past the disk.
    pub(super) fn locate(&self, g: &Geometry, offset: u64, length: u64) -> Result<Vec<Extent>> {
        let mut found: Vec<Extent> = Vec::new();
        let mut add = |offset, length, presence| Extent::push(&mut found, Extent { offset, length, presence });
        let end = offset.saturating_add(length);
        let shown_end = end.min(g.virtual_size);
        let mut bat: Option<(u64, Arc<Page>)> = None;
        let mut at = offset;
        while at < shown_end {
            let block = at / g.block_size;
            let piece = ((block + 1) * g.block_size).min(shown_end) - at;
            let place = g.payload_entry(block);
            let page = match &bat {
                Some((offset, page)) if *offset == place / PAGE * PAGE => page,
                _ => &bat.insert((place / PAGE * PAGE, lock(&self.pages).page(&self.raw, place / PAGE * PAGE)?)).1,
            };
            let (entry, state) = self.checked_entry(g, block, entry_in(page, place))?;
            let in_file = |at: u64| Presence::Data { host_offset: entry.offset() + at % g.block_size };
            match state {
                BlockState::NotPresent => add(at, piece, Presence::Absent),
                BlockState::Zero => add(at, piece, Presence::Zero),
                BlockState::FullyPresent => add(at, piece, in_file(at)),
                BlockState::PartiallyPresent => {
                    for (present, at, length) in self.partial_runs(g, block, at, piece)? {
                        add(at, length, if present { in_file(at) } else { Presence::Absent });
                    }
                }
            }
            at += piece;
        }
        if at < end {
            add(at, end - at, Presence::Zero);
        }
        Ok(found)
    }

    /// Refuses what isn't whole sectors inside the disk.
    pub(super) fn check_range(&self, g: &Geometry, offset: u64, length: u64) -> Result<()> {
        check_range(self.raw.path(), (offset, length), g.sector_size, g.virtual_size)
    }
}

pub(super) fn log_region(headers: &Headers) -> Region {
    Region { offset: headers.current.log_offset.get(), length: headers.current.log_length.get().into() }
}

pub(super) fn entry_in(page: &Page, place: u64) -> BatEntry {
    let at = place as usize % PAGE_SIZE;
    BatEntry(u64::from_le_bytes(page[at..at + 8].try_into().expect("8 bytes")))
}

impl Image for VhdxImage {
    fn path(&self) -> PathBuf {
        self.raw.path().to_owned()
    }
    fn info(&self) -> ImageInfo {
        lock_shared(&self.info).clone()
    }
    fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Acquire)
    }
    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>> {
        let g = lock_shared(&self.geometry);
        check_sectors(self.raw.path(), (offset, length), g.sector_size)?;
        self.locate(&g, offset, length)
    }
    fn read_host(&self, buf: &mut [u8], host_offset: u64) -> Result<()> {
        self.raw.read(buf, host_offset, "read data")
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let g = lock_shared(&self.geometry);
        self.check_range(&g, offset, buf.len() as u64)?;
        let extents = self.locate(&g, offset, buf.len() as u64)?;
        self.raw.read_extents(buf, offset, &extents)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.write(buf, offset)
    }
    fn write_zeroes(&self, offset: u64, length: u64) -> Result<()> {
        self.zero(offset, length, LONG_ZEROS)
    }
    fn trim(&self, offset: u64, length: u64) -> Result<()> {
        self.zero(offset, length, TRIMMED)
    }
    fn flush(&self) -> Result<()> {
        self.flush_all(false)
    }
    fn flush_logged(&self) -> Result<()> {
        self.flush_all(true)
    }
    fn grow(&self, virtual_size: ByteCount) -> Result<()> {
        self.grow_to(virtual_size.0)
    }
    fn freeze(&self) -> Result<()> {
        self.close_for_writing()
    }
    fn thaw(&self) -> Result<Arc<dyn Image>> {
        Ok(self.raw.reopened(|| Self::open(&self.host, self.raw.path(), Access::Write))?)
    }
    fn pin_data_write_id(&self) -> Result<Uuid> {
        self.pin_data_id()
    }
    fn held_bytes(&self) -> Result<ByteCount> {
        Ok(self.raw.held_bytes()? + ByteCount(lock(&self.writer).pending.held_bytes()))
    }
    fn check(&self) -> Result<Vec<String>> {
        self.check_structure()
    }
    fn structures(&self) -> Result<Vec<Structure>> {
        self.parts()
    }
    fn optional_items(&self) -> Result<Vec<MetadataItem>> {
        let writer = lock(&self.writer);
        writer.table.unknown(&self.raw, &mut lock(&self.pages))
    }
    fn release(&self, stretches: &[(u64, u64)]) -> Result<Released> {
        self.release_stretches(stretches)
    }
    fn punch(&self, released: Released) -> Result<ByteCount> {
        self.punch_released(&released)
    }
    fn set_data_write_id(&self, id: Uuid) -> Result<()> {
        self.replace_data_id(id)
    }
    fn set_linkage(&self, linkage: Uuid, linkage2: Option<Uuid>) -> Result<()> {
        self.replace_linkage(linkage, linkage2)
    }
    fn set_parent(&self, parent: &ParentTarget) -> Result<()> {
        self.replace_parent(parent)
    }
    fn become_base(&self) -> Result<()> {
        self.drop_parent()
    }
    fn take_identity_of(&self, other: &dyn Image) -> Result<()> {
        self.take_identity(other)
    }
}

impl Drop for VhdxImage {
    fn drop(&mut self) {
        // What can't be written now is in the side file.
        let _ = self.close_quietly();
    }
}
