//! A file system that tells a test of every change, as soon as the kernel has it: what a kill at that instant leaves.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use snaptree_core::host_file::{Access, Host, HostEntry, HostFile, HostLock, SharedHost};
use snaptree_core::locks::lock;
use snaptree_core::units::ByteCount;

/// What is told: the call, and the file or folder.
type Watcher = Box<dyn FnMut(&'static str, &Path) + Send>;

/// The file system, which tells nobody until it is asked to. Clones are handles of the same one.
#[derive(Clone)]
pub struct Doors {
    host: SharedHost,
    watcher: Arc<Mutex<Option<Watcher>>>,
}

impl fmt::Debug for Doors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Doors of {:?}", self.host)
    }
}

impl Doors {
    /// Around a file system.
    pub fn of(host: SharedHost) -> Self {
        Self { host, watcher: Arc::default() }
    }

    /// As the product's code takes it.
    pub fn shared(&self) -> SharedHost {
        Arc::new(self.clone())
    }

    /// From now on this is told of every change that was made, by the thread that made it. It must not change anything here.
    pub fn watch(&self, watcher: impl FnMut(&'static str, &Path) + Send + 'static) {
        *lock(&self.watcher) = Some(Box::new(watcher));
    }

    /// Nobody is told any longer.
    pub fn unwatch(&self) {
        *lock(&self.watcher) = None;
    }

    fn told<T>(&self, call: &'static str, path: &Path, done: io::Result<T>) -> io::Result<T> {
        let mut watcher = lock(&self.watcher);
        if let (Ok(_), Some(watcher)) = (&done, &mut *watcher) {
            watcher(call, path);
        }
        done
    }

    fn wrap(&self, file: Arc<dyn HostFile>) -> Arc<dyn HostFile> {
        Arc::new(DoorFile { doors: self.clone(), file })
    }
}

impl Host for Doors {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn HostFile>> {
        self.host.open(path, access).map(|file| self.wrap(file))
    }
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn HostFile>> {
        self.told("create", path, self.host.create_new(path)).map(|file| self.wrap(file))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.told("rename to", to, self.host.rename(from, to))
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.told("remove", path, self.host.remove_file(path))
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.told("remove", path, self.host.remove_dir_all(path))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.told("create", path, self.host.create_dir_all(path))
    }
    fn flush_dir(&self, path: &Path) -> io::Result<()> {
        self.told("flush", path, self.host.flush_dir(path))
    }
    fn list(&self, path: &Path) -> io::Result<Vec<HostEntry>> {
        self.host.list(path)
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
    fn lock(&self, path: &Path) -> io::Result<Box<dyn HostLock>> {
        self.host.lock(path)
    }
    fn is_locked(&self, path: &Path) -> bool {
        self.host.is_locked(path)
    }
}

#[derive(Debug)]
struct DoorFile {
    doors: Doors,
    file: Arc<dyn HostFile>,
}

impl HostFile for DoorFile {
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
        self.doors.told("write", self.path(), self.file.write_all_at(buf, offset))
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.doors.told("set the length of", self.path(), self.file.set_len(len))
    }
    fn flush(&self) -> io::Result<()> {
        self.doors.told("flush", self.path(), self.file.flush())
    }
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.doors.told("punch", self.path(), self.file.punch_hole(offset, len))
    }
    fn held_bytes(&self) -> io::Result<ByteCount> {
        self.file.held_bytes()
    }
    fn relock(&self, access: Access) -> io::Result<()> {
        self.file.relock(access)
    }
}
