//! A file's bytes as the formats see them: under what a replayed log says ([`Overlay`]), and for metadata through a
//! small cache of pages (VHDX: 4 KiB, VHD: one sector) that also keeps changed pages until they are written.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::{DiskError, DiskErrorKind, Extent, Presence, Result};
use crate::host_file::{Access, HostFile};
use crate::units::ByteCount;

/// VHDX logs and caches metadata by so many bytes.
pub const PAGE_SIZE: usize = 4096;
/// The same, to count with.
pub const PAGE: u64 = PAGE_SIZE as u64;

/// A page of the file.
pub type Page<const SIZE: usize = PAGE_SIZE> = [u8; SIZE];

/// Changes of metadata: an offset of the file, and the bytes there.
pub type Patches = Vec<(u64, Vec<u8>)>;

/// Unchanged pages that are kept for each open image, in bytes.
const CLEAN_BYTES_MAX: usize = 256 << 10;
/// Zeros are written in pieces of this size.
const ZERO_PIECE: usize = 1 << 20;

/// What a log says that wasn't replayed into the file: first the zeros, then the pages.
#[derive(Debug, Default, Clone)]
pub struct Overlay {
    /// Ranges that are zero: first byte to first byte after. None touches another.
    pub zeros: BTreeMap<u64, u64>,
    /// Pages by their offset.
    pub pages: BTreeMap<u64, Box<Page>>,
    /// The file's length afterwards, in bytes, if it grows.
    pub length: u64,
}

impl Overlay {
    /// Adds a page; it hides what was said before.
    pub fn put_page(&mut self, offset: u64, page: Box<Page>) {
        self.pages.insert(offset, page);
    }

    /// Adds a zero range of whole pages; it hides what was said before.
    pub fn put_zeros(&mut self, offset: u64, end: u64) {
        let hidden: Vec<u64> = self.pages.range(offset..end).map(|(&at, _)| at).collect();
        for at in hidden {
            self.pages.remove(&at);
        }
        let (mut from, mut to) = (offset, end);
        while let Some((&start, &stop)) = self.zeros.range(..=to).next_back().filter(|(_, stop)| **stop >= from) {
            self.zeros.remove(&start);
            (from, to) = (from.min(start), to.max(stop));
        }
        if from < to {
            self.zeros.insert(from, to);
        }
    }

    fn apply(&self, buf: &mut [u8], offset: u64) {
        let end = offset + buf.len() as u64;
        for (&from, &to) in self.zeros.range(..end).rev().take_while(|(_, to)| **to > offset) {
            buf[(from.max(offset) - offset) as usize..(to.min(end) - offset) as usize].fill(0);
        }
        for (&at, page) in self.pages.range(offset.saturating_sub(PAGE - 1)..end) {
            let (from, to) = (at.max(offset), (at + PAGE).min(end));
            buf[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&page[(from - at) as usize..(to - at) as usize]);
        }
    }
}

/// The file, with errors that say where.
#[derive(Debug)]
pub struct RawFile {
    file: Arc<dyn HostFile>,
    overlay: Overlay,
    length: AtomicU64,
}

impl RawFile {
    /// An open file.
    pub fn new(file: Arc<dyn HostFile>) -> Result<Self> {
        let length = file.len().map_err(|e| DiskError::io(file.path(), "ask for the length", e))?;
        Ok(Self { file, overlay: Overlay::default(), length: length.into() })
    }

    /// Lays a log's changes over the file; it is only read from then on.
    pub fn set_overlay(&mut self, overlay: Overlay) {
        self.length = self.len().max(overlay.length).into();
        self.overlay = overlay;
    }

    /// The same file with one more change laid over it; it is only read.
    pub fn lay_over(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset + bytes.len() as u64;
        for at in (offset / PAGE * PAGE..end).step_by(PAGE_SIZE) {
            let mut page = Box::new([0; PAGE_SIZE]);
            self.read(&mut page[..(self.len() - at).min(PAGE) as usize], at, "read what is changed")?;
            let (from, to) = (offset.max(at), end.min(at + PAGE));
            page[(from - at) as usize..(to - at) as usize]
                .copy_from_slice(&bytes[(from - offset) as usize..(to - offset) as usize]);
            self.overlay.pages.insert(at, page);
        }
        Ok(())
    }

    /// What is laid over it.
    pub fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// The host's file.
    pub fn host(&self) -> &Arc<dyn HostFile> {
        &self.file
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The file's length in bytes, as far as we know.
    pub fn len(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    fn error(&self, offset: u64, operation: &'static str, source: io::Error) -> DiskError {
        DiskError::at(self.path(), offset, DiskErrorKind::Io { operation, source })
    }

    /// Fills `buf`; a file that ends before is an error.
    pub fn read(&self, buf: &mut [u8], offset: u64, operation: &'static str) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        if end > self.len() {
            // Another process may have made it longer since.
            let length = self.file.len().map_err(|e| self.error(offset, operation, e))?;
            self.length.fetch_max(length, Ordering::AcqRel);
            if end > self.len() {
                return Err(self.error(offset, operation, io::ErrorKind::UnexpectedEof.into()));
            }
        }
        if self.overlay.length == 0 && self.overlay.pages.is_empty() && self.overlay.zeros.is_empty() {
            return self.file.read_exact_at(buf, offset).map_err(|e| self.error(offset, operation, e));
        }
        let real = self.file.len().map_err(|e| self.error(offset, operation, e))?;
        let inside = real.saturating_sub(offset).min(buf.len() as u64) as usize;
        self.file.read_exact_at(&mut buf[..inside], offset).map_err(|e| self.error(offset, operation, e))?;
        buf[inside..].fill(0);
        self.overlay.apply(buf, offset);
        Ok(())
    }

    /// Writes all of `buf`.
    pub fn write(&self, buf: &[u8], offset: u64, operation: &'static str) -> Result<()> {
        self.file.write_all_at(buf, offset).map_err(|e| self.error(offset, operation, e))?;
        self.length.fetch_max(offset + buf.len() as u64, Ordering::AcqRel);
        Ok(())
    }

    /// Fills `buf` with what the extents from `offset` of the disk on say; what is absent with zeros.
    pub fn read_extents(&self, buf: &mut [u8], offset: u64, extents: &[Extent]) -> Result<()> {
        for extent in extents {
            let from = (extent.offset - offset) as usize;
            let part = &mut buf[from..from + extent.length as usize];
            match extent.presence {
                Presence::Data { host_offset } => self.read(part, host_offset, "read data")?,
                Presence::Zero | Presence::Absent => part.fill(0),
            }
        }
        Ok(())
    }

    /// Writes over what stands in the file as one; `false` where it doesn't.
    pub fn overwrite(&self, buf: &[u8], extents: &[Extent]) -> Result<bool> {
        match extents {
            [Extent { presence: Presence::Data { host_offset }, .. }] => {
                self.write(buf, *host_offset, "write data").map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// Bytes that the file takes on the volume.
    pub fn held_bytes(&self) -> Result<ByteCount> {
        self.file.held_bytes().map_err(|e| DiskError::io(self.path(), "ask for the space it takes", e))
    }

    /// The lock becomes a shared one.
    pub fn share(&self) -> Result<()> {
        self.file.relock(Access::Read).map_err(|e| DiskError::io(self.path(), "share the lock", e))
    }

    /// Opens the same file anew while this one gives up its lock; it takes a shared one again where that fails.
    pub fn reopened<T>(&self, open: impl FnOnce() -> Result<T>) -> Result<T> {
        self.file.relock(Access::Look).map_err(|e| DiskError::io(self.path(), "give up the lock", e))?;
        open().inspect_err(|_| drop(self.file.relock(Access::Read)))
    }

    /// Everything written before is durable afterwards.
    pub fn flush(&self) -> Result<()> {
        self.file.flush().map_err(|e| DiskError::io(self.path(), "flush", e))
    }

    /// Makes the file at least this long; the new space reads as zeros.
    pub fn extend(&self, length: u64) -> Result<()> {
        if length > self.len() {
            self.file.set_len(length).map_err(|e| self.error(length, "extend the file", e))?;
            self.length.store(length, Ordering::Release);
        }
        Ok(())
    }

    /// Makes the file this long; nothing behind it is needed.
    pub fn cut(&self, length: u64) -> Result<()> {
        self.file.set_len(length).map_err(|e| self.error(length, "cut the file", e))?;
        self.length.store(length, Ordering::Release);
        Ok(())
    }

    /// Makes a range zero, by a hole where the file system can.
    pub fn punch_or_zero(&self, offset: u64, length: u64) -> Result<()> {
        if self.file.punch_hole(offset, length).map_err(|e| self.error(offset, "punch a hole", e))? {
            return Ok(());
        }
        self.zero(offset, length)
    }

    /// Punches holes.
    pub fn punch(&self, holes: &[(u64, u64)]) -> Result<()> {
        for &(offset, length) in holes {
            self.file.punch_hole(offset, length).map_err(|e| self.error(offset, "punch a hole", e))?;
        }
        Ok(())
    }

    /// Writes zeros.
    pub fn zero(&self, offset: u64, length: u64) -> Result<()> {
        let zeros = vec![0; (length as usize).min(ZERO_PIECE)];
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(zeros.len() as u64);
            self.write(&zeros[..piece as usize], offset + done, "write zeros")?;
            done += piece;
        }
        Ok(())
    }
}

/// Pages of metadata: changed ones until they are logged, and some unchanged ones.
#[derive(Debug, Default)]
pub struct Pages<const SIZE: usize = PAGE_SIZE> {
    dirty: BTreeMap<u64, Arc<Page<SIZE>>>,
    clean: HashMap<u64, (Arc<Page<SIZE>>, u64)>,
    tick: u64,
}

impl<const SIZE: usize> Pages<SIZE> {
    const LENGTH: u64 = SIZE as u64;

    /// The page at an offset of the file (a multiple of its size).
    pub fn page(&mut self, raw: &RawFile, offset: u64) -> Result<Arc<Page<SIZE>>> {
        self.tick += 1;
        if let Some(page) = self.dirty.get(&offset) {
            return Ok(page.clone());
        }
        if let Some((page, used)) = self.clean.get_mut(&offset) {
            *used = self.tick;
            return Ok(page.clone());
        }
        let page = read_page(raw, offset)?;
        self.keep(offset, page.clone());
        Ok(page)
    }

    /// The same without keeping it, for walks over everything.
    pub fn peek(&self, raw: &RawFile, offset: u64) -> Result<Arc<Page<SIZE>>> {
        match self.dirty.get(&offset).or_else(|| self.clean.get(&offset).map(|(page, _)| page)) {
            Some(page) => Ok(page.clone()),
            None => read_page(raw, offset),
        }
    }

    fn keep(&mut self, offset: u64, page: Arc<Page<SIZE>>) {
        if self.clean.len() >= CLEAN_BYTES_MAX / SIZE
            && let Some(oldest) = self.clean.iter().min_by_key(|(_, (_, used))| *used).map(|(&at, _)| at)
        {
            self.clean.remove(&oldest);
        }
        self.clean.insert(offset, (page, self.tick));
    }

    /// Reads metadata bytes.
    pub fn read(&mut self, raw: &RawFile, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let inside = (at % Self::LENGTH) as usize;
            let piece = (SIZE - inside).min(buf.len() - done);
            let page = self.page(raw, at - inside as u64)?;
            buf[done..done + piece].copy_from_slice(&page[inside..inside + piece]);
            done += piece;
        }
        Ok(())
    }

    /// Changes metadata bytes in memory. Nothing is changed if it fails.
    pub fn patch(&mut self, raw: &RawFile, patches: &[(u64, Vec<u8>)]) -> Result<()> {
        for (offset, bytes) in patches {
            for at in pages_of::<SIZE>(*offset, bytes.len() as u64) {
                if !self.dirty.contains_key(&at) {
                    let page = self.peek(raw, at)?;
                    self.clean.insert(at, (page, self.tick));
                }
            }
        }
        for (offset, bytes) in patches {
            for at in pages_of::<SIZE>(*offset, bytes.len() as u64) {
                if let Some((page, _)) = self.clean.remove(&at) {
                    self.dirty.entry(at).or_insert(page);
                }
                let page = Arc::make_mut(self.dirty.get_mut(&at).expect("read above"));
                let (from, to) = (at.max(*offset), (at + Self::LENGTH).min(offset + bytes.len() as u64));
                page[(from - at) as usize..(to - at) as usize]
                    .copy_from_slice(&bytes[(from - offset) as usize..(to - offset) as usize]);
            }
        }
        Ok(())
    }

    /// Changed pages, by their offset.
    pub fn dirty(&self) -> Vec<(u64, Arc<Page<SIZE>>)> {
        self.dirty.iter().map(|(&at, page)| (at, page.clone())).collect()
    }

    /// How many pages are changed.
    pub fn dirty_count(&self) -> usize {
        self.dirty.len()
    }

    /// These pages stand in the file now; what was changed again since stays changed.
    pub fn written(&mut self, pages: &[(u64, Arc<Page<SIZE>>)]) {
        for (offset, page) in pages {
            if self.dirty.get(offset).is_some_and(|now| Arc::ptr_eq(now, page)) {
                self.dirty.remove(offset);
                self.keep(*offset, page.clone());
            }
        }
    }

    /// Forgets what was read from a range of the file that was made zero.
    pub fn forget(&mut self, offset: u64, length: u64) {
        self.clean.retain(|&at, _| at + Self::LENGTH <= offset || at >= offset + length);
    }
}

fn pages_of<const SIZE: usize>(offset: u64, length: u64) -> impl Iterator<Item = u64> {
    (offset - offset % SIZE as u64..offset + length).step_by(SIZE)
}

fn read_page<const SIZE: usize>(raw: &RawFile, offset: u64) -> Result<Arc<Page<SIZE>>> {
    let mut page = [0; SIZE];
    raw.read(&mut page, offset, "read metadata")?;
    Ok(Arc::new(page))
}
