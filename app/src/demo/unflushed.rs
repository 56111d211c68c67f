//! The computer's file system, but nothing is flushed: the demo is disposable until it is complete, and a
//! start that finds it incomplete makes it anew. What is complete is flushed once, by [`flush_all`].

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use snaptree_core::host_file::{Access, Host, HostEntry, HostFile, HostLock, OsHost, SharedHost};
use snaptree_core::units::ByteCount;

/// Passes everything on but flushes.
#[derive(Debug)]
pub struct Unflushed(SharedHost);

impl Unflushed {
    /// To hand around.
    pub fn shared() -> SharedHost {
        Arc::new(Self(OsHost::shared()))
    }
}

/// Makes everything in a folder durable.
pub fn flush_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { flush_all(&entry.path())? } else { File::open(entry.path())?.sync_all()? }
    }
    OsHost.flush_dir(folder)
}

#[derive(Debug)]
struct UnflushedFile(Arc<dyn HostFile>);

impl HostFile for UnflushedFile {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.0.punch_hole(offset, len)
    }
    fn held_bytes(&self) -> io::Result<ByteCount> {
        self.0.held_bytes()
    }
    fn relock(&self, access: Access) -> io::Result<()> {
        self.0.relock(access)
    }
}

impl Host for Unflushed {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn HostFile>> {
        Ok(Arc::new(UnflushedFile(self.0.open(path, access)?)))
    }
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn HostFile>> {
        Ok(Arc::new(UnflushedFile(self.0.create_new(path)?)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.remove_dir_all(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }
    fn flush_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, path: &Path) -> io::Result<Vec<HostEntry>> {
        self.0.list(path)
    }
    fn modified(&self, path: &Path) -> io::Result<SystemTime> {
        self.0.modified(path)
    }
    fn exists(&self, path: &Path) -> bool {
        self.0.exists(path)
    }
    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        self.0.canonical(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<ByteCount> {
        self.0.free_bytes(path)
    }
    fn volume(&self, path: &Path) -> io::Result<String> {
        self.0.volume(path)
    }
    fn boot_id(&self) -> String {
        self.0.boot_id()
    }
    fn flushes(&self) -> bool {
        false
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn HostLock>> {
        self.0.lock(path)
    }
    fn is_locked(&self, path: &Path) -> bool {
        self.0.is_locked(path)
    }
}
