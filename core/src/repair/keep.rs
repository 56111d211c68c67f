//! A file system that keeps the way back of every change before it makes it.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::kept::{Back, Kept};
use crate::host_file::{Access, Host, HostEntry, HostFile, HostLock, SharedHost, read_file};
use crate::units::ByteCount;

/// A file that is replaced or removed is kept whole up to this length: a side file is, an image is renamed instead.
const MAX_WHOLE: u64 = 32 << 20;
/// What is overwritten is kept in pieces of at most this length.
const PIECE: u64 = 4 << 20;

/// The host, with everything kept that changes inside the folder. What is outside can't be changed through it.
#[derive(Debug)]
pub(super) struct Keeper {
    host: SharedHost,
    root: PathBuf,
    kept: Kept,
}

impl Keeper {
    pub fn shared(host: &SharedHost, root: &Path, kept: &Kept) -> SharedHost {
        Arc::new(Self { host: host.clone(), root: root.into(), kept: kept.clone() })
    }

    fn inside(&self, path: &Path) -> io::Result<PathBuf> {
        let outside = || io::Error::new(ErrorKind::InvalidInput, format!("{} is outside of the folder", path.display()));
        let folder = self.host.canonical(path.parent().ok_or_else(outside)?)?;
        let place = folder.join(path.file_name().ok_or_else(outside)?);
        place.strip_prefix(&self.root).map(Path::to_owned).map_err(|_| outside())
    }

    /// Keeps a whole file that is about to go.
    fn keep_whole(&self, path: &Path) -> io::Result<()> {
        let bytes = read_file(&*self.host, path, MAX_WHOLE)?;
        self.kept.keep(&Back::Restore { file: self.inside(path)? }, &bytes)
    }
}

impl Host for Keeper {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn HostFile>> {
        let file = self.host.open(path, access)?;
        if access != Access::Write {
            return Ok(file);
        }
        let place = self.inside(path)?;
        let is_new = self.kept.is_new(&place);
        Ok(if is_new { file } else { Arc::new(KeptFile { place, file, kept: self.kept.clone() }) })
    }
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn HostFile>> {
        if self.host.exists(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let place = self.inside(path)?;
        self.kept.keep(&Back::Remove { file: place.clone() }, &[])?;
        // Nothing in it is worth being kept.
        self.kept.note_new(place);
        self.host.create_new(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let back = Back::Rename { from: self.inside(from)?, to: self.inside(to)? };
        if self.host.exists(to) {
            self.remove_file(to)?;
        }
        self.kept.keep(&back, &[])?;
        self.host.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let place = self.inside(path)?;
        if !self.kept.is_new(&place) {
            self.keep_whole(path)?;
        }
        self.host.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        Err(io::Error::new(ErrorKind::Unsupported, format!("a repair removes no folder: {}", path.display())))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if self.host.exists(path) {
            return Ok(());
        }
        let above = path.parent().ok_or(ErrorKind::InvalidInput)?;
        self.create_dir_all(above)?;
        self.kept.keep(&Back::RemoveFolder { file: self.inside(path)? }, &[])?;
        self.host.create_dir_all(path)?;
        // What is renamed into it must not be lost with it.
        self.host.flush_dir(above)
    }
    fn flush_dir(&self, path: &Path) -> io::Result<()> {
        self.host.flush_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<HostEntry>> {
        self.host.list(path)
    }
    fn modified(&self, path: &Path) -> io::Result<SystemTime> {
        self.host.modified(path)
    }
    fn exists(&self, path: &Path) -> bool {
        self.host.exists(path)
    }
    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        self.host.canonical(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<ByteCount> {
        self.host.free_bytes(path)
    }
    fn volume(&self, path: &Path) -> io::Result<String> {
        self.host.volume(path)
    }
    fn boot_id(&self) -> String {
        self.host.boot_id()
    }
    fn flushes(&self) -> bool {
        self.host.flushes()
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn HostLock>> {
        self.host.lock(path)
    }
    fn is_locked(&self, path: &Path) -> bool {
        self.host.is_locked(path)
    }
}

/// A file of which everything is kept that is overwritten.
#[derive(Debug)]
struct KeptFile {
    place: PathBuf,
    file: Arc<dyn HostFile>,
    kept: Kept,
}

impl KeptFile {
    /// Keeps the bytes of a range as far as the file reaches, and its length where that changes.
    fn keep(&self, from: u64, to: u64, new_length: u64) -> io::Result<()> {
        let length = self.file.len()?;
        let to = to.min(length);
        let mut bytes = Vec::new();
        for offset in (from..to).step_by(PIECE as usize) {
            bytes.resize((to - offset).min(PIECE) as usize, 0);
            self.file.read_exact_at(&mut bytes, offset)?;
            self.kept.keep(&Back::Bytes { file: self.place.clone(), offset }, &bytes)?;
        }
        if new_length != length {
            self.kept.keep(&Back::Length { file: self.place.clone(), length }, &[])?;
        }
        Ok(())
    }
}

impl HostFile for KeptFile {
    fn path(&self) -> &Path {
        self.file.path()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let end = offset + buf.len() as u64;
        self.keep(offset, end, end.max(self.file.len()?))?;
        self.file.write_all_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.keep(len, u64::MAX, len)?;
        self.file.set_len(len)
    }
    fn flush(&self) -> io::Result<()> {
        self.file.flush()
    }
    /// As where the file system can't: zeros are written instead, and what was there is kept.
    fn punch_hole(&self, _offset: u64, _len: u64) -> io::Result<bool> {
        Ok(false)
    }
    fn held_bytes(&self) -> io::Result<ByteCount> {
        self.file.held_bytes()
    }
    fn relock(&self, access: Access) -> io::Result<()> {
        self.file.relock(access)
    }
}
