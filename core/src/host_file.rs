//! The only door to the host's file system: images, manifests, journals and
//! saved memory all pass here, so that tests can crash it, fill it or break it.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::SystemTime;

use crate::units::ByteCount;

/// One open file. All calls may come from several threads at once.
pub trait HostFile: Send + Sync + Debug {
    /// Where the file is (as it was opened; a rename doesn't change it).
    fn path(&self) -> &Path;
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Fills `buf` from `offset`; a file that ends before is `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf` at `offset`. When it returns, the kernel has the bytes
    /// (they survive a kill of this process, not a loss of power).
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or grows the file; new space reads as zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Returns when everything written before is durable, the length included.
    fn flush(&self) -> io::Result<()>;
    /// Gives the range's space back to the volume; it reads as zeros afterwards.
    /// `false` where the file system can't.
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<bool>;
    /// Bytes that the file takes on the volume.
    fn held_bytes(&self) -> io::Result<ByteCount>;
    /// Changes the lock that goes with this open file (`Write` to `Read` after a freeze).
    fn relock(&self, access: Access) -> io::Result<()>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// What an open file may be used for, and the lock that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading; takes no lock, for a look at files that may belong to others.
    Look,
    /// Reading, with a shared lock: nobody may open it for writing meanwhile.
    Read,
    /// Reading and writing, with an exclusive lock.
    Write,
}

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEntry {
    /// The name inside the folder.
    pub name: String,
    /// Whether it is a folder itself.
    pub is_dir: bool,
    /// The length in bytes (0 for folders).
    pub len: u64,
}

/// A lock on a file, held until it is dropped.
pub trait HostLock: Send + Sync + Debug {}

/// A file system.
pub trait Host: Send + Sync + Debug {
    /// Opens a file that exists: a regular one, as reading another kind can wait for ever or do something.
    /// A lock that somebody else holds is `WouldBlock`.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn HostFile>>;
    /// Creates a file that must not exist yet, and opens it for writing.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn HostFile>>;
    /// Renames atomically, over an existing file if there is one. Not durable before `flush_dir`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with everything in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Creates a folder and those above it.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder's entries durable.
    fn flush_dir(&self, path: &Path) -> io::Result<()>;
    /// Lists a folder, sorted by name.
    fn list(&self, path: &Path) -> io::Result<Vec<HostEntry>>;
    /// When the file's content was last changed, as far as the file system knows.
    fn modified(&self, path: &Path) -> io::Result<SystemTime> {
        Err(io::Error::new(io::ErrorKind::Unsupported, format!("time of change of {}", path.display())))
    }
    /// Whether something is there.
    fn exists(&self, path: &Path) -> bool;
    /// Resolves links and `..`; the path must exist.
    fn canonical(&self, path: &Path) -> io::Result<PathBuf>;
    /// Free bytes of the volume that holds `path`, for this user.
    fn free_bytes(&self, path: &Path) -> io::Result<ByteCount>;
    /// Names the volume that holds `path` (same text, same volume).
    fn volume(&self, path: &Path) -> io::Result<String>;
    /// Identifies this run of the kernel: what was written and not flushed is
    /// still there exactly while this stays the same.
    fn boot_id(&self) -> String;
    /// Whether a flush makes anything durable. Where it doesn't, no speed that is measured says how fast the volume is.
    fn flushes(&self) -> bool {
        true
    }
    /// Takes the exclusive lock on `path` (created if missing, a link isn't followed), or `WouldBlock`.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn HostLock>>;
    /// Whether somebody holds that lock at this instant; doesn't wait, and creates nothing.
    fn is_locked(&self, path: &Path) -> bool;
}

/// A file system that is handed around.
pub type SharedHost = Arc<dyn Host>;

/// Reads a whole file of at most `limit` bytes; a longer one is `InvalidData`.
pub fn read_file(host: &dyn Host, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = host.open(path, Access::Look)?;
    let len = file.len()?;
    if len > limit {
        let text = format!("{} has {len} bytes, at most {limit} are expected", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Replaces a file's content so that, whenever power is lost, either the old or the
/// new content is there, whole: a temporary file beside it, flush, rename, flush of the folder.
pub fn publish_file(host: &dyn Host, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir.join(format!(".{name}.new"));
    if host.exists(&temporary) {
        host.remove_file(&temporary)?;
    }
    let written = host.create_new(&temporary).and_then(|file| {
        file.write_all_at(bytes, 0)?;
        file.flush()
    });
    if let Err(error) = written.and_then(|()| host.rename(&temporary, path)) {
        let _ = host.remove_file(&temporary);
        return Err(error);
    }
    host.flush_dir(dir)
}

/// The computer's file system.
#[derive(Debug, Default)]
pub struct OsHost;

impl OsHost {
    /// The computer's file system, to hand around.
    pub fn shared() -> SharedHost {
        Arc::new(Self)
    }
}

#[derive(Debug)]
struct OsFile {
    path: PathBuf,
    file: File,
}

#[derive(Debug)]
struct OsLock(#[expect(dead_code, reason = "held for its lock")] File);
impl HostLock for OsLock {}

fn lock_error(error: fs::TryLockError) -> io::Error {
    match error {
        fs::TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        fs::TryLockError::Error(error) => error,
    }
}

impl HostFile for OsFile {
    fn path(&self) -> &Path {
        &self.path
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_exact_at(&self.file, buf, offset);
        #[cfg(windows)]
        {
            let (mut buf, mut offset) = (buf, offset);
            while !buf.is_empty() {
                match std::os::windows::fs::FileExt::seek_read(&self.file, buf, offset)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => (buf, offset) = (&mut buf[n..], offset + n as u64),
                }
            }
            Ok(())
        }
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::write_all_at(&self.file, buf, offset);
        #[cfg(windows)]
        {
            let (mut buf, mut offset) = (buf, offset);
            while !buf.is_empty() {
                let n = std::os::windows::fs::FileExt::seek_write(&self.file, buf, offset)?;
                (buf, offset) = (&buf[n..], offset + n as u64);
            }
            Ok(())
        }
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{FallocateFlags, fallocate};
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match fallocate(&self.file, flags, offset, len) {
                Ok(()) => Ok(true),
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (offset, len);
            Ok(false)
        }
    }
    fn held_bytes(&self) -> io::Result<ByteCount> {
        #[cfg(unix)]
        return Ok(ByteCount(std::os::unix::fs::MetadataExt::blocks(&self.file.metadata()?) * 512));
        #[cfg(not(unix))]
        Ok(ByteCount(self.file.metadata()?.len()))
    }
    fn relock(&self, access: Access) -> io::Result<()> {
        take_lock(&self.file, access)
    }
}

/// How often a lock that somebody has is tried again, and how long is waited in between.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// A child process that was just started has this process's locks until it runs its own program: what was
/// closed an instant ago can still look locked. So a lock is refused only when it stays taken.
fn take_lock(file: &File, access: Access) -> io::Result<()> {
    let attempt = || match access {
        Access::Look => file.unlock(),
        Access::Read => file.try_lock_shared().map_err(lock_error),
        Access::Write => file.try_lock().map_err(lock_error),
    };
    for _ in 1..LOCK_TRIES {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(LOCK_PAUSE),
            done => return done,
        }
    }
    attempt()
}

/// A folder, pipe, socket or device is refused.
fn check_regular(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, "it isn't a regular file")) }
}

/// Opens a regular file; never waits for the other end of a pipe that was put there in between.
fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, rustix::fs::OFlags::NONBLOCK.bits() as i32);
    let file = options.open(path)?;
    check_regular(&file.metadata()?)?;
    Ok(file)
}

impl Host for OsHost {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn HostFile>> {
        // Opening a device may do something already.
        check_regular(&fs::metadata(path)?)?;
        let file = open_regular(OpenOptions::new().read(true).write(access == Access::Write), path)?;
        take_lock(&file, access)?;
        Ok(Arc::new(OsFile { path: path.into(), file }))
    }
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn HostFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        take_lock(&file, Access::Write)?;
        Ok(Arc::new(OsFile { path: path.into(), file }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }
    fn flush_dir(&self, path: &Path) -> io::Result<()> {
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }
    fn list(&self, path: &Path) -> io::Result<Vec<HostEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let Ok(metadata) = fs::metadata(entry.path()) else { continue };
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_dir = metadata.is_dir();
            entries.push(HostEntry { name, is_dir, len: if is_dir { 0 } else { metadata.len() } });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
    fn modified(&self, path: &Path) -> io::Result<SystemTime> {
        fs::metadata(path)?.modified()
    }
    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        path.canonicalize()
    }
    fn free_bytes(&self, path: &Path) -> io::Result<ByteCount> {
        #[cfg(unix)]
        {
            let stat = rustix::fs::statvfs(path)?;
            Ok(ByteCount(stat.f_bavail * stat.f_frsize))
        }
        #[cfg(not(unix))]
        Err(io::Error::new(io::ErrorKind::Unsupported, format!("free space of {}", path.display())))
    }
    fn volume(&self, path: &Path) -> io::Result<String> {
        #[cfg(unix)]
        return Ok(format!("{:x}", std::os::unix::fs::MetadataExt::dev(&fs::metadata(path)?)));
        #[cfg(not(unix))]
        Ok(path.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned()).unwrap_or_default())
    }
    fn boot_id(&self) -> String {
        // Where the kernel doesn't tell, no run is taken for another one's.
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_or_else(|_| uuid::Uuid::new_v4().to_string(), |text| text.trim().to_owned())
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn HostLock>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => check_regular(&metadata)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = open_regular(OpenOptions::new().read(true).write(true).create(true).truncate(false), path)?;
        take_lock(&file, Access::Write)?;
        Ok(Box::new(OsLock(file)))
    }
    fn is_locked(&self, path: &Path) -> bool {
        open_regular(OpenOptions::new().read(true), path)
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, folder, outside) = (dir.path().join("pipe"), dir.path().join("folder"), dir.path().join("outside"));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        fs::create_dir(&folder).unwrap();
        let (device, link) = (dir.path().join("device"), dir.path().join("link"));
        std::os::unix::fs::symlink("/dev/zero", &device).unwrap();
        std::os::unix::fs::symlink(&outside, &link).unwrap();
        for path in [&pipe, &folder, &device] {
            for access in [Access::Look, Access::Read, Access::Write] {
                let error = OsHost.open(path, access).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{}: {error}", path.display());
            }
            assert!(OsHost.lock(path).is_err(), "{}", path.display());
        }
        assert!(OsHost.lock(&link).is_err() && !outside.exists(), "a lock isn't put where a link leads");
    }
}
