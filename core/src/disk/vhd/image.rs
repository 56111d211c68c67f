//! An open image: where its data is, and reading it.
//!
//! Three locks, taken in this order:
//! ```text
//! writer    one change of metadata at a time: allocation, footer, header; a flush commits apart from it
//! geometry  shared for the length of a read or overwrite; alone when a block loses its place
//! pages     for the moment of a look at BAT or bitmap
//! ```

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock};

use uuid::Uuid;

use super::footer::Footers;
use super::format::{DynamicHeader, FIXED, Footer, HEADER_SIZE, SECTOR, SECTOR_SIZE};
use super::geometry::{Blocks, Geometry, place_of};
use super::sector_bitmap::runs;
use super::write::{LONG_ZEROS, TRIMMED, Writer};
use super::{header, parent_locator};
use crate::disk::pages::{Page, Pages, RawFile};
use crate::disk::pending::{Pending, fits};
use crate::disk::{
    DiskError, Extent, Image, ImageFormat, ImageInfo, ImageType, ParentLink, ParentTarget, Presence, Released, Result, Structure,
};
use crate::disk::{check_range, check_sectors};
use crate::host_file::{Access, SharedHost};
use crate::locks::{lock, lock_shared};
use crate::units::ByteCount;

/// Metadata by the sector: a bitmap shares its page with the data of other blocks.
pub type Sectors = Pages<SECTOR_SIZE>;
/// One of them.
pub type Sector = Page<SECTOR_SIZE>;

/// An open VHD file.
#[derive(Debug)]
pub struct VhdImage {
    pub(super) host: SharedHost,
    pub(super) raw: RawFile,
    pub(super) writable: AtomicBool,
    pub(super) info: RwLock<ImageInfo>,
    pub(super) geometry: RwLock<Arc<Geometry>>,
    pub(super) pages: Mutex<Sectors>,
    pub(super) writer: Mutex<Writer>,
    /// A commit apart from the writer's lock has ended.
    pub(super) committed: Condvar,
    /// This opening won't change the unique id any more.
    pub(super) id_settled: AtomicBool,
}

/// What footer and header say, in the room's words.
pub(super) fn describe(footer: &Footer, header: Option<&DynamicHeader>, link: Option<ParentLink>) -> ImageInfo {
    let kind = match (&link, footer.disk_type.get()) {
        (Some(_), _) => ImageType::Differencing,
        (None, FIXED) => ImageType::Fixed,
        (None, _) => ImageType::Dynamic,
    };
    ImageInfo {
        format: ImageFormat::Vhd,
        kind,
        virtual_size: ByteCount(footer.current_size.get()),
        logical_sector_size: SECTOR as u32,
        physical_sector_size: SECTOR as u32,
        block_size: ByteCount(header.map_or(super::format::BLOCK_SIZE, |header| header.block_size.get().into())),
        disk_id: Uuid::nil(),
        data_write_id: footer.id(),
        former_id: footer.former_id(),
        parent: link,
    }
}

impl VhdImage {
    /// Opens a file; see [`super::open`].
    pub fn open(host: &SharedHost, path: &Path, access: Access) -> Result<Arc<Self>> {
        let file = host.open(path, access).map_err(|e| DiskError::io(path, "open the image", e))?;
        let raw = RawFile::new(file)?;
        let footers = Footers::read(&raw)?;
        let image = Self::assemble(host, raw, footers, access == Access::Write)?;
        image.apply_pending()?;
        if access == Access::Write {
            image.put_right()?;
        }
        Ok(image)
    }

    /// Reads the header that the footer names.
    pub(super) fn assemble(host: &SharedHost, raw: RawFile, footers: Footers, writable: bool) -> Result<Arc<Self>> {
        let footer = footers.current;
        let header = if footer.disk_type.get() == FIXED { None } else { Some(header::read(&raw, &footer)?) };
        let geometry = Geometry::new(&footer, header.as_ref());
        let link = header.as_ref().filter(|_| geometry.has_parent).map(|header| parent_locator::read(&raw, header));
        let pending = Pending::new(host, raw.path());
        Ok(Arc::new(Self {
            host: host.clone(),
            writable: writable.into(),
            info: describe(&footer, header.as_ref(), link).into(),
            geometry: Arc::new(geometry).into(),
            pages: Sectors::default().into(),
            writer: Writer::new(footers, header, pending).into(),
            committed: Condvar::new(),
            id_settled: false.into(),
            raw,
        }))
    }

    /// Applies what a killed process of this boot had acknowledged: into the file if we may, in memory otherwise.
    fn apply_pending(&self) -> Result<()> {
        let mut writer = self.settled();
        let changes = writer.pending.read(writer.footers.current.unique_id)?;
        let footer = writer.footers.place;
        // Table and bitmaps: the header is never changed that way.
        let header = writer.footers.current.data_offset.get();
        let is_elsewhere = |(at, bytes): &(u64, Vec<u8>)| {
            let end = at.saturating_add(bytes.len() as u64);
            end <= footer && (end <= header || *at >= header + HEADER_SIZE as u64)
        };
        let changes_metadata =
            |patches: &Vec<(u64, Vec<u8>)>| patches.iter().all(is_elsewhere) && fits(patches, &self.raw, SECTOR);
        let blocks = self.geometry().blocks;
        if !changes.iter().all(|patches| blocks.is_some() && changes_metadata(patches)) {
            return Err(DiskError::invalid(self.raw.path(), 0, "side file", "has changes outside the image's metadata"));
        }
        for patches in changes {
            lock(&self.pages).patch(&self.raw, &patches)?;
            if self.is_writable() {
                self.commit_if_due(&mut writer)?;
            }
        }
        if self.is_writable() {
            if lock(&self.pages).dirty_count() > 0 {
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

    /// Where a block stands, checked; `None` where it has no place.
    pub(super) fn place(&self, g: &Geometry, blocks: &Blocks, block: u64) -> Result<Option<u64>> {
        let at = blocks.entry(block);
        let page = lock(&self.pages).page(&self.raw, at / SECTOR * SECTOR)?;
        self.checked_place(g, blocks, block, entry_in(&page, at))
    }

    pub(super) fn checked_place(&self, g: &Geometry, blocks: &Blocks, block: u64, entry: u32) -> Result<Option<u64>> {
        let Some(place) = place_of(entry) else { return Ok(None) };
        let wrong = |what: &str| Err(self.invalid(blocks.entry(block), "BAT entry", format!("of block {block} {what}")));
        // The last block of some programs is as short as the disk.
        let end = place + blocks.bitmap_length() + g.shown_length(blocks, block);
        if place < SECTOR {
            return wrong("names the footer's copy");
        }
        if place < blocks.table_end() && place + blocks.length() > blocks.table {
            return wrong("names the table itself");
        }
        if end > self.raw.len() {
            // Another process may have made the file longer since.
            let _ = self.raw.read(&mut [0], end - 1, "read a block's end");
            if end > self.raw.len() {
                return wrong(&format!("names byte {place}, but the file ends at {}", self.raw.len()));
            }
        }
        Ok(Some(place))
    }

    /// Runs of sectors of a block at `place`: (stands in the file, offset on the disk, length). All in one block.
    pub(super) fn sector_runs(&self, blocks: &Blocks, place: u64, offset: u64, length: u64) -> Result<Vec<(bool, u64, u64)>> {
        let (first, count) = (offset % blocks.size / SECTOR, length / SECTOR);
        let mut bytes = vec![0; ((first + count).div_ceil(8) - first / 8) as usize];
        lock(&self.pages).read(&self.raw, &mut bytes, place + first / 8)?;
        let mut at = offset;
        let runs = runs(&bytes, (first % 8) as usize, count as usize).into_iter().map(|(set, sectors)| {
            let run = (set, at, sectors as u64 * SECTOR);
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
        let shown_end = end.min(g.virtual_size).max(offset);
        match &g.blocks {
            Some(blocks) => self.locate_blocks(g, blocks, offset, shown_end, &mut add)?,
            None => locate_fixed(g, offset, shown_end, &mut add),
        }
        if shown_end < end {
            add(shown_end, end - shown_end, Presence::Zero);
        }
        Ok(found)
    }

    fn locate_blocks(
        &self,
        g: &Geometry,
        blocks: &Blocks,
        offset: u64,
        end: u64,
        add: &mut dyn FnMut(u64, u64, Presence),
    ) -> Result<()> {
        let mut bat: Option<(u64, Arc<Sector>)> = None;
        let mut at = offset;
        while at < end {
            let block = at / blocks.size;
            let piece = ((block + 1) * blocks.size).min(end) - at;
            let entry = blocks.entry(block);
            let sector = entry / SECTOR * SECTOR;
            let page = match &bat {
                Some((offset, page)) if *offset == sector => page,
                _ => &bat.insert((sector, lock(&self.pages).page(&self.raw, sector)?)).1,
            };
            match self.checked_place(g, blocks, block, entry_in(page, entry))? {
                None => add(at, piece, Presence::Absent),
                Some(place) => {
                    let data = place + blocks.bitmap_length();
                    for (present, at, length) in self.sector_runs(blocks, place, at, piece)? {
                        let host_offset = data + at % blocks.size;
                        add(at, length, if present { Presence::Data { host_offset } } else { Presence::Absent });
                    }
                }
            }
            at += piece;
        }
        Ok(())
    }

    /// Refuses what isn't whole sectors inside the disk.
    pub(super) fn check_range(&self, g: &Geometry, offset: u64, length: u64) -> Result<()> {
        check_range(self.raw.path(), (offset, length), SECTOR, g.virtual_size)
    }
}

fn locate_fixed(g: &Geometry, offset: u64, end: u64, add: &mut dyn FnMut(u64, u64, Presence)) {
    let mut at = offset;
    if let Some(zero) = g.old_footer.filter(|zero| (offset..end).contains(zero)) {
        if at < zero {
            add(at, zero - at, Presence::Data { host_offset: at });
        }
        add(zero, SECTOR, Presence::Zero);
        at = zero + SECTOR;
    }
    if at < end {
        add(at, end - at, Presence::Data { host_offset: at });
    }
}

pub(super) fn entry_in(page: &Sector, place: u64) -> u32 {
    let at = (place % SECTOR) as usize;
    u32::from_be_bytes(page[at..at + 4].try_into().expect("4 bytes"))
}

impl Image for VhdImage {
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
        check_sectors(self.raw.path(), (offset, length), SECTOR)?;
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
        self.flush_all()
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
        self.pin_id()
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
    fn release(&self, stretches: &[(u64, u64)]) -> Result<Released> {
        self.release_stretches(stretches)
    }
    fn punch(&self, released: Released) -> Result<ByteCount> {
        self.punch_released(&released)
    }
    fn set_data_write_id(&self, id: Uuid) -> Result<()> {
        self.replace_id(id)
    }
    fn forget_former_id(&self) -> Result<()> {
        self.forget_former()
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
        self.take_size(other)
    }
}

impl Drop for VhdImage {
    fn drop(&mut self) {
        // What can't be written now is in the side file.
        let _ = self.close_quietly();
    }
}
