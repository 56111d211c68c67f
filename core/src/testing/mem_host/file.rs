//! One open file, and a lock.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::MemHost;
use super::state::{FileChange, FileState, State};
use crate::host_file::{Access, HostFile, HostLock};
use crate::testing::pages::PAGE;
use crate::units::ByteCount;

#[derive(Debug)]
pub(super) struct MemFile {
    host: MemHost,
    id: u64,
    path: PathBuf,
    writable: bool,
    lock: Mutex<Access>,
}

impl MemFile {
    /// A handle whose lock is taken already.
    pub(super) fn new(host: MemHost, id: u64, path: &Path, access: Access) -> Self {
        Self { host, id, path: path.into(), writable: access == Access::Write, lock: Mutex::new(access) }
    }

    fn with<T>(&self, work: impl FnOnce(&mut FileState) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.host.state();
        state.alive()?;
        work(self.file(&mut state)?)
    }

    fn file<'a>(&self, state: &'a mut State) -> io::Result<&'a mut FileState> {
        state.files.get_mut(&self.id).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn change(&self, change: FileChange) -> io::Result<()> {
        let mut state = self.host.state();
        state.alive()?;
        if !self.writable {
            return Err(ErrorKind::PermissionDenied.into());
        }
        if let FileChange::Write { offset, bytes } = &change {
            if state.crashes_now() {
                // Killed in the middle of a write: whole pages before the kill are in the kernel.
                let end = (offset + bytes.len() as u64 / 2) / PAGE * PAGE;
                let done = bytes[..end.saturating_sub(*offset) as usize].to_vec();
                self.file(&mut state)?.change(FileChange::Write { offset: *offset, bytes: done });
            } else if let Some(capacity) = state.capacity {
                let more = self.file(&mut state)?.now.missing_pages(*offset, bytes.len() as u64) * PAGE;
                if more > 0 && state.used_bytes() + more > capacity {
                    state.step()?;
                    return Err(ErrorKind::StorageFull.into());
                }
            }
        }
        state.step()?;
        self.file(&mut state)?.change(change);
        Ok(())
    }
}

impl HostFile for MemFile {
    fn path(&self) -> &Path {
        &self.path
    }
    fn len(&self) -> io::Result<u64> {
        self.with(|file| Ok(file.now.len()))
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|file| {
            if offset.checked_add(buf.len() as u64).is_none_or(|end| end > file.now.len()) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            file.now.read(buf, offset);
            Ok(())
        })
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.change(FileChange::Write { offset, bytes: buf.to_vec() })
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(FileChange::SetLen(len))
    }
    fn flush(&self) -> io::Result<()> {
        let mut state = self.host.state();
        state.step()?;
        self.file(&mut state)?.flush();
        Ok(())
    }
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<bool> {
        if !self.host.state().can_punch {
            return Ok(false);
        }
        self.change(FileChange::Punch { offset, len })?;
        Ok(true)
    }
    fn held_bytes(&self) -> io::Result<ByteCount> {
        self.with(|file| Ok(ByteCount(file.now.held_pages() * PAGE)))
    }
    fn relock(&self, access: Access) -> io::Result<()> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.host.state();
        state.alive()?;
        state.lock_file(self.id, Some(*lock), access)?;
        *lock = access;
        Ok(())
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        let access = *self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.host.state();
        if let Ok(file) = self.file(&mut state) {
            file.unlock(access);
            file.handles -= 1;
        }
        state.collect();
    }
}

/// A lock on a file, until it is dropped.
#[derive(Debug)]
pub(super) struct MemLock(#[expect(dead_code, reason = "held for its lock")] MemFile);

impl MemLock {
    pub(super) fn new(file: MemFile) -> Self {
        Self(file)
    }
}

impl HostLock for MemLock {}
