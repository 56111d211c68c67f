//! The simplest image that keeps every rule of [`Image`]: nothing durable, nothing clever.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use uuid::Uuid;

use super::pages::{PAGE, Pages};
use crate::disk::{
    CreateOptions, DiskError, Extent, Image, ImageFormat, ImageInfo, ImageType, ParentLink, ParentTarget, Presence, Released,
    Result,
};
use crate::locks::lock;
use crate::units::ByteCount;

/// Counts flushes of all images, so that a test sees their order.
static FLUSHES: AtomicU64 = AtomicU64::new(0);

/// An image in memory, of any block size.
#[derive(Debug)]
pub struct RamImage(Mutex<State>);

#[derive(Debug)]
struct State {
    path: PathBuf,
    info: ImageInfo,
    writable: bool,
    /// Whether this opening has renewed the data-write identifier.
    renewed: bool,
    blocks: BTreeMap<u64, Block>,
    bytes: Pages,
    /// Places of blocks that were punched whole.
    free: Vec<u64>,
    end: u64,
    unflushed: bool,
    last_flush: u64,
}

#[derive(Debug, Clone)]
enum Block {
    Zero,
    Full { place: u64 },
    Partial { place: u64, present: Vec<bool> },
}

/// Adds a stretch, joined to the one before where they are of one kind.
fn join(extents: &mut Vec<Extent>, next: Extent) {
    if next.length == 0 {
        return;
    }
    if let Some(last) = extents.last_mut() {
        let same = match (last.presence, next.presence) {
            (Presence::Data { host_offset: a }, Presence::Data { host_offset: b }) => a + last.length == b,
            (a, b) => a == b,
        };
        if same {
            last.length += next.length;
            return;
        }
    }
    extents.push(next);
}

impl State {
    fn size(&self) -> u64 {
        self.info.virtual_size.0
    }

    fn sector(&self) -> u64 {
        self.info.logical_sector_size.into()
    }

    fn block_size(&self) -> u64 {
        self.info.block_size.0
    }

    fn is_differencing(&self) -> bool {
        self.info.kind == ImageType::Differencing
    }

    fn check_range(&self, offset: u64, length: u64) -> Result<()> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size());
        if end.is_none() || !offset.is_multiple_of(self.sector()) || !length.is_multiple_of(self.sector()) {
            let size = self.size();
            return Err(DiskError::refused(&self.path, format!("{length} bytes at {offset} are no whole sectors of its {size}")));
        }
        Ok(())
    }

    fn check_writable(&self) -> Result<()> {
        if self.writable { Ok(()) } else { Err(DiskError::refused(&self.path, "it was opened for reading")) }
    }

    fn renew(&mut self) {
        if !std::mem::replace(&mut self.renewed, true) {
            self.info.data_write_id = Uuid::new_v4();
        }
        self.unflushed = true;
    }

    fn allocate(&mut self) -> u64 {
        self.free.pop().unwrap_or_else(|| {
            let place = self.end;
            self.end += self.block_size().next_multiple_of(PAGE);
            place
        })
    }

    /// Block number, offset in the block and length of each part of a range.
    fn parts(&self, offset: u64, length: u64) -> Vec<(u64, u64, u64)> {
        let (block_size, end) = (self.block_size(), offset + length);
        let mut parts = Vec::new();
        let mut at = offset;
        while at < end {
            let within = at % block_size;
            let part = (block_size - within).min(end - at);
            parts.push((at / block_size, within, part));
            at += part;
        }
        parts
    }

    fn extents(&self, offset: u64, length: u64) -> Vec<Extent> {
        let mut extents = Vec::new();
        let inside = length.min(self.size().saturating_sub(offset));
        for (block, within, length) in self.parts(offset, inside) {
            let offset = block * self.block_size() + within;
            match self.blocks.get(&block) {
                None => join(&mut extents, Extent { offset, length, presence: Presence::Absent }),
                Some(Block::Zero) => join(&mut extents, Extent { offset, length, presence: Presence::Zero }),
                Some(Block::Full { place }) => {
                    join(&mut extents, Extent { offset, length, presence: Presence::Data { host_offset: place + within } });
                }
                Some(Block::Partial { place, present }) => {
                    let sector = self.sector();
                    for index in within / sector..(within + length) / sector {
                        let host_offset = place + index * sector;
                        let presence = if present[index as usize] { Presence::Data { host_offset } } else { Presence::Absent };
                        let offset = block * self.block_size() + index * sector;
                        join(&mut extents, Extent { offset, length: sector, presence });
                    }
                }
            }
        }
        join(&mut extents, Extent { offset: offset + inside, length: length - inside, presence: Presence::Zero });
        extents
    }

    /// Writes into one block, giving it a place if it has none.
    fn write_part(&mut self, bytes: &[u8], block: u64, within: u64) {
        let (sector, block_size) = (self.sector(), self.block_size());
        let kept = match self.blocks.remove(&block) {
            None if self.is_differencing() => {
                Block::Partial { place: self.allocate(), present: vec![false; (block_size / sector) as usize] }
            }
            None | Some(Block::Zero) => Block::Full { place: self.allocate() },
            Some(kept) => kept,
        };
        let kept = match kept {
            Block::Partial { place, mut present } => {
                let last = (within + bytes.len() as u64) / sector;
                present[(within / sector) as usize..last as usize].fill(true);
                if present.iter().all(|bit| *bit) { Block::Full { place } } else { Block::Partial { place, present } }
            }
            other => other,
        };
        if let Block::Full { place } | Block::Partial { place, .. } = &kept {
            self.bytes.write(bytes, place + within);
        }
        self.blocks.insert(block, kept);
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        for (block, within, length) in self.parts(offset, bytes.len() as u64) {
            self.write_part(&bytes[done..done + length as usize], block, within);
            done += length as usize;
        }
    }

    fn zero(&mut self, offset: u64, length: u64) {
        for (block, within, length) in self.parts(offset, length) {
            let reaches_end = within + length == self.block_size() || block * self.block_size() + within + length == self.size();
            if within == 0 && reaches_end && self.info.kind != ImageType::Fixed {
                // As unkind as may be: the place is empty at once, and the next block gets it.
                let before = self.blocks.insert(block, Block::Zero);
                if let Some(Block::Full { place } | Block::Partial { place, .. }) = before {
                    self.bytes.punch(place, self.block_size());
                    self.free.push(place);
                }
            } else if !matches!(self.blocks.get(&block), Some(Block::Zero)) {
                self.write_part(&vec![0; length as usize], block, within);
            }
        }
    }

    fn resize(&mut self, size: u64) {
        let old = self.size();
        self.info.virtual_size = ByteCount(size);
        if size > old {
            self.zero(old, size - old);
        } else {
            self.blocks.split_off(&size.div_ceil(self.block_size()));
        }
    }

    fn release(&mut self, offset: u64, length: u64, released: &mut Released) {
        let (sector, block_size) = (self.sector(), self.block_size());
        for (block, within, length) in self.parts(offset, length) {
            let tail = block * block_size + within + length == self.size();
            let whole = within == 0 && (length == block_size || tail);
            match self.blocks.remove(&block) {
                None => {}
                Some(Block::Zero) if whole => {}
                Some(Block::Full { place } | Block::Partial { place, .. }) if whole => {
                    released.host_ranges.push((place, block_size));
                }
                Some(kept) if !self.is_differencing() => {
                    self.blocks.insert(block, kept);
                }
                Some(kept) => {
                    let (place, mut present) = match kept {
                        Block::Zero => (self.allocate(), vec![true; (block_size / sector) as usize]),
                        Block::Full { place } => (place, vec![true; (block_size / sector) as usize]),
                        Block::Partial { place, present } => (place, present),
                    };
                    present[(within / sector) as usize..((within + length) / sector) as usize].fill(false);
                    if present.iter().any(|bit| *bit) {
                        released.host_ranges.push((place + within, length));
                        self.blocks.insert(block, Block::Partial { place, present });
                    } else {
                        released.host_ranges.push((place, block_size));
                    }
                }
            }
        }
    }
}

impl RamImage {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    fn build(path: &Path, info: ImageInfo) -> Arc<Self> {
        let mut state = State {
            path: path.into(),
            info,
            writable: true,
            renewed: false,
            blocks: BTreeMap::new(),
            bytes: Pages::default(),
            free: Vec::new(),
            end: 1 << 20,
            unflushed: false,
            last_flush: 0,
        };
        if state.info.kind == ImageType::Fixed {
            for block in 0..state.size().div_ceil(state.block_size()) {
                let place = state.allocate();
                state.blocks.insert(block, Block::Full { place });
            }
        }
        Arc::new(Self(Mutex::new(state)))
    }

    /// An image without a parent. The usual block size is 2 MiB.
    pub fn create(path: impl AsRef<Path>, options: &CreateOptions) -> Arc<Self> {
        let info = ImageInfo {
            format: ImageFormat::Vhdx,
            kind: options.kind,
            virtual_size: options.virtual_size,
            logical_sector_size: options.logical_sector_size,
            physical_sector_size: options.physical_sector_size,
            block_size: options.block_size.unwrap_or(ByteCount::mib(2)),
            disk_id: options.disk_id.unwrap_or_else(Uuid::new_v4),
            data_write_id: Uuid::new_v4(),
            former_id: None,
            parent: None,
        };
        Self::build(path.as_ref(), info)
    }

    /// A differencing child of `parent`.
    pub fn create_child(path: impl AsRef<Path>, parent: &dyn Image, block_size: Option<ByteCount>) -> Arc<Self> {
        let parent_info = parent.info();
        let link = ParentLink {
            linkage: parent_info.data_write_id,
            absolute_path: Some(parent.path().display().to_string()),
            ..ParentLink::default()
        };
        let info = ImageInfo {
            kind: ImageType::Differencing,
            block_size: block_size.unwrap_or(ByteCount::mib(2)),
            data_write_id: Uuid::new_v4(),
            former_id: None,
            parent: Some(link),
            ..parent_info
        };
        Self::build(path.as_ref(), info)
    }

    /// Whether something was changed since the last flush.
    pub fn is_unflushed(&self) -> bool {
        self.state().unflushed
    }

    /// When this image was last flushed, as a number that rises with every flush of any image; 0 is never.
    pub fn last_flush(&self) -> u64 {
        self.state().last_flush
    }
}

impl Image for RamImage {
    fn path(&self) -> PathBuf {
        self.state().path.clone()
    }
    fn info(&self) -> ImageInfo {
        self.state().info.clone()
    }
    fn is_writable(&self) -> bool {
        self.state().writable
    }
    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>> {
        Ok(self.state().extents(offset, length))
    }
    fn read_host(&self, buf: &mut [u8], host_offset: u64) -> Result<()> {
        self.state().bytes.read(buf, host_offset);
        Ok(())
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let state = self.state();
        state.check_range(offset, buf.len() as u64)?;
        for extent in state.extents(offset, buf.len() as u64) {
            let start = (extent.offset - offset) as usize;
            let part = &mut buf[start..start + extent.length as usize];
            match extent.presence {
                Presence::Data { host_offset } => state.bytes.read(part, host_offset),
                Presence::Zero | Presence::Absent => part.fill(0),
            }
        }
        Ok(())
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let mut state = self.state();
        state.check_writable()?;
        state.check_range(offset, buf.len() as u64)?;
        state.renew();
        state.write(buf, offset);
        Ok(())
    }
    fn write_zeroes(&self, offset: u64, length: u64) -> Result<()> {
        let mut state = self.state();
        state.check_writable()?;
        state.check_range(offset, length)?;
        state.renew();
        state.zero(offset, length);
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        let mut state = self.state();
        state.unflushed = false;
        state.last_flush = FLUSHES.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(())
    }
    fn grow(&self, virtual_size: ByteCount) -> Result<()> {
        let mut state = self.state();
        state.check_writable()?;
        if virtual_size.0 < state.size() || !virtual_size.0.is_multiple_of(state.sector()) {
            return Err(DiskError::refused(&state.path, "it can only grow, by whole sectors"));
        }
        state.renew();
        state.resize(virtual_size.0);
        Ok(())
    }
    fn freeze(&self) -> Result<()> {
        self.flush()?;
        self.state().writable = false;
        Ok(())
    }
    fn pin_data_write_id(&self) -> Result<Uuid> {
        let mut state = self.state();
        state.check_writable()?;
        state.renew();
        Ok(state.info.data_write_id)
    }
    fn held_bytes(&self) -> Result<ByteCount> {
        Ok(ByteCount(self.state().bytes.held_pages() * PAGE))
    }
    fn check(&self) -> Result<Vec<String>> {
        let state = self.state();
        let mut places: Vec<u64> = state
            .blocks
            .values()
            .filter_map(|block| match block {
                Block::Full { place } | Block::Partial { place, .. } => Some(*place),
                Block::Zero => None,
            })
            .chain(state.free.iter().copied())
            .collect();
        places.sort_unstable();
        let shared = places.windows(2).filter(|pair| pair[1] - pair[0] < state.block_size());
        Ok(shared.map(|pair| format!("two blocks stand at {} and {}", pair[0], pair[1])).collect())
    }
    fn release(&self, stretches: &[(u64, u64)]) -> Result<Released> {
        let mut state = self.state();
        state.check_writable()?;
        let mut released = Released { host_ranges: Vec::new() };
        if state.info.kind != ImageType::Fixed {
            for (offset, length) in stretches {
                state.check_range(*offset, *length)?;
                state.release(*offset, *length, &mut released);
            }
        }
        Ok(released)
    }
    fn punch(&self, released: Released) -> Result<ByteCount> {
        let mut state = self.state();
        let before = state.bytes.held_pages();
        for (offset, length) in released.host_ranges {
            state.bytes.punch(offset, length);
            if length == state.block_size() {
                state.free.push(offset);
            }
        }
        Ok(ByteCount((before - state.bytes.held_pages()) * PAGE))
    }
    fn set_data_write_id(&self, id: Uuid) -> Result<()> {
        let mut state = self.state();
        state.check_writable()?;
        state.info.data_write_id = id;
        state.renewed = true;
        Ok(())
    }
    fn set_linkage(&self, linkage: Uuid, linkage2: Option<Uuid>) -> Result<()> {
        let mut state = self.state();
        state.check_writable()?;
        let path = state.path.clone();
        let link = state.info.parent.as_mut().ok_or_else(|| DiskError::refused(&path, "it has no parent"))?;
        (link.linkage, link.linkage2) = (linkage, linkage2);
        Ok(())
    }
    fn set_parent(&self, parent: &ParentTarget) -> Result<()> {
        self.set_linkage(parent.data_write_id, None)?;
        if let Some(link) = self.state().info.parent.as_mut() {
            (link.relative_path, link.volume_path) = (None, None);
            link.absolute_path = Some(parent.path.display().to_string());
        }
        Ok(())
    }
    fn become_base(&self) -> Result<()> {
        let mut state = self.state();
        state.check_writable()?;
        let sector = state.sector();
        let mut blocks = std::mem::take(&mut state.blocks);
        for block in blocks.values_mut() {
            if let Block::Partial { place, present } = block {
                for (index, _) in present.iter().enumerate().filter(|(_, bit)| !**bit) {
                    state.bytes.write(&vec![0; sector as usize], *place + index as u64 * sector);
                }
                *block = Block::Full { place: *place };
            }
        }
        state.blocks = blocks;
        state.info.kind = ImageType::Dynamic;
        state.info.parent = None;
        Ok(())
    }
    fn take_identity_of(&self, other: &dyn Image) -> Result<()> {
        let other = other.info();
        let mut state = self.state();
        state.check_writable()?;
        state.resize(other.virtual_size.0);
        state.info.disk_id = other.disk_id;
        state.info.physical_sector_size = other.physical_sector_size;
        Ok(())
    }
}
