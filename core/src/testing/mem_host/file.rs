//! One open file, and a lock.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::state::{FileChange, FileState, State};
use super::{Door, MemHost};
use crate::host_file::{Access, HostFile, HostLock};
use crate::locks::lock;
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
                self.write_part(&mut state, *offset, bytes, bytes.len() as u64 / 2)?;
            } else if let Some(fits) = self.what_fits(&mut state, *offset, bytes.len() as u64)? {
                state.step(Door::Write)?;
                self.write_part(&mut state, *offset, bytes, fits)?;
                state.faults_met += 1;
                return Err(ErrorKind::StorageFull.into());
            }
        }
        state.step(Door::Write)?;
        self.file(&mut state)?.change(change);
        state.note_use();
        Ok(())
    }

    /// Where the volume has no room for the whole write: how many of its bytes there is room for.
    fn what_fits(&self, state: &mut State, offset: u64, length: u64) -> io::Result<Option<u64>> {
        let Some(capacity) = state.capacity else { return Ok(None) };
        let missing = self.file(state)?.now.missing_pages(offset, length) * PAGE;
        let free = capacity.saturating_sub(if missing == 0 { 0 } else { state.used_bytes() });
        if missing <= free {
            return Ok(None);
        }
        let pages = &self.file(state)?.now;
        let mut fits = 0;
        while fits < length && pages.missing_pages(offset, fits + 1) * PAGE <= free {
            fits = (offset + fits + 1).next_multiple_of(PAGE) - offset;
        }
        Ok(Some(fits.min(length)))
    }

    /// Writes the whole pages among the first `length` bytes.
    fn write_part(&self, state: &mut State, offset: u64, bytes: &[u8], length: u64) -> io::Result<()> {
        let end = (offset + length) / PAGE * PAGE;
        let bytes = bytes[..end.saturating_sub(offset) as usize].to_vec();
        self.file(state)?.change(FileChange::Write { offset, bytes });
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
        self.host.state().meet(Door::Read)?;
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
        if let Err(error) = state.step(Door::Flush) {
            if state.failed_flush_drops && !state.crashed {
                self.file(&mut state)?.drop_unflushed();
            }
            return Err(error);
        }
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
        let mut lock = lock(&self.lock);
        let mut state = self.host.state();
        state.alive()?;
        state.lock_file(self.id, Some(*lock), access)?;
        *lock = access;
        Ok(())
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        let access = *lock(&self.lock);
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
