//! Files and folders in memory that fail, fill up and crash when a test says so: the volume that every byte to an
//! image, a manifest, a journal or a memory file goes to in tests of faults.
//!
//! Per file the host keeps what the kernel has and what is durable, and the list of changes in
//! between; the same for folder entries. A power loss replays any part of these lists.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::host_file::{Access, Host, HostEntry, HostFile, HostLock, SharedHost};
use crate::locks::lock;
use crate::units::ByteCount;

mod file;
mod state;
#[cfg(test)]
mod tests;

use file::{MemFile, MemLock};
use state::{Entry, State};

/// How the computer, or the process, ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashMode {
    /// The process is killed: the kernel keeps everything, locks are gone, same boot.
    Kill,
    /// Power is lost: what wasn't flushed is lost, kept or torn at 512 bytes; another boot.
    PowerLoss,
}

/// A kind of call that a fault befalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Reads of bytes, opening, listing.
    Read,
    /// Writes, changes of length, holes.
    Write,
    /// Flushes of files and folders.
    Flush,
    /// Names: create, rename, remove, folders.
    Name,
}

/// A call that fails with nothing done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Which kind of call; `None` is any.
    pub door: Option<Door>,
    /// How many such calls still go well.
    pub skip: u64,
    /// How the call after them fails.
    pub kind: ErrorKind,
    /// Whether every such call from then on fails as well.
    pub sticky: bool,
}

/// A file system in memory. Clones are handles of the same one.
#[derive(Clone)]
pub struct MemHost(Arc<Mutex<State>>);

impl fmt::Debug for MemHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemHost")
    }
}

impl Default for MemHost {
    fn default() -> Self {
        Self::new()
    }
}

impl MemHost {
    /// An empty file system, with the folder `/`.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State::new())))
    }

    /// As the product's code takes it.
    pub fn shared(&self) -> SharedHost {
        Arc::new(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test thread that panicked must not hide its message behind others' panics.
        lock(&self.0)
    }

    /// Changing steps so far: every write, set_len, punch, flush, create, rename, remove and flush_dir is one.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Orders a fault, beside those that were ordered before.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Takes back every fault that was ordered; the capacity stays.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// How many calls have failed by an ordered fault, or because the volume was full.
    pub fn faults_met(&self) -> u64 {
        self.state().faults_met
    }

    /// Whether a flush that fails drops what it was to make durable, so that a later one that goes well doesn't cover
    /// it, as Linux does it (no, unless a test says so). What was dropped is shown until power is lost.
    pub fn set_failed_flush_drops(&self, drops: bool) {
        self.state().failed_flush_drops = drops;
    }

    /// From the step with this number on everything fails, so that the code under test comes to an
    /// end; of a write that is this step, a first part gets done. Then take [`MemHost::crash`].
    pub fn crash_at(&self, step: u64) {
        self.state().crash_at = Some(step);
    }

    /// Takes back a crash that wasn't reached.
    pub fn disarm(&self) {
        self.state().crash_at = None;
    }

    /// Whether the step of [`MemHost::crash_at`] was reached.
    pub fn has_crashed(&self) -> bool {
        self.state().crashed
    }

    /// Space for all files together; writes past it fail with `StorageFull`.
    pub fn set_capacity(&self, capacity: Option<ByteCount>) {
        self.state().capacity = capacity.map(|capacity| capacity.0);
    }

    /// Bytes that all files together take now.
    pub fn used(&self) -> ByteCount {
        ByteCount(self.state().used_bytes())
    }

    /// From now on the most that is used at any time is noted; see [`MemHost::peak`].
    pub fn watch_peak(&self) {
        let mut state = self.state();
        state.peak = Some(state.used_bytes());
    }

    /// The most that was used since [`MemHost::watch_peak`].
    pub fn peak(&self) -> ByteCount {
        ByteCount(self.state().peak.unwrap_or(0))
    }

    /// Whether holes can be punched (yes, unless a test says no).
    pub fn set_can_punch(&self, can_punch: bool) {
        self.state().can_punch = can_punch;
    }

    /// A symbolic link at `path` that leads to `target`.
    pub fn link(&self, path: &Path, target: &Path) -> io::Result<()> {
        let mut state = self.state();
        let place = state.place(path)?;
        state.change_entries(vec![(place, Some(Entry::Link(target.into())))]);
        Ok(())
    }

    /// Every file's path, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.state();
        let files = state.entries.iter().filter(|(_, entry)| matches!(entry, Entry::File(_)));
        files.map(|(path, _)| path.clone()).collect()
    }

    /// Another file system with the same content, unflushed changes included, and no faults or locks.
    pub fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.state().after_kill())))
    }

    /// Takes over another one's content, as a fork of it has it.
    pub fn become_like(&self, other: &Self) {
        let other = other.state().after_kill();
        *self.state() = other;
    }

    /// What is found after the crash. This file system stays as it is.
    pub fn crash(&self, mode: CrashMode, seed: u64) -> Self {
        let state = self.state();
        let after = match mode {
            CrashMode::Kill => state.after_kill(),
            CrashMode::PowerLoss => state.after_power_loss(seed),
        };
        Self(Arc::new(Mutex::new(after)))
    }

    fn open_id(&self, state: &mut State, id: u64, path: &Path, access: Access) -> io::Result<MemFile> {
        state.lock_file(id, None, access)?;
        if let Some(file) = state.files.get_mut(&id) {
            file.handles += 1;
        }
        Ok(MemFile::new(self.clone(), id, path, access))
    }
}

impl Host for MemHost {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn HostFile>> {
        let mut state = self.state();
        let id = state.file_id(path)?;
        state.meet(Door::Read)?;
        Ok(Arc::new(self.open_id(&mut state, id, path, access)?))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn HostFile>> {
        let mut state = self.state();
        state.alive()?;
        let place = state.place(path)?;
        if state.entries.contains_key(&place) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.step(Door::Name)?;
        let id = state.new_file(place);
        Ok(Arc::new(self.open_id(&mut state, id, path, Access::Write)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        let (from, to) = (state.place(from)?, state.place(to)?);
        let moved = state.entry(&from)?.clone();
        match (&moved, state.entries.get(&to)) {
            (Entry::Dir, Some(_)) | (_, Some(Entry::Dir)) if from != to => return Err(ErrorKind::AlreadyExists.into()),
            _ => {}
        }
        state.step(Door::Name)?;
        let mut changes = Vec::new();
        if from != to {
            let inside: Vec<_> = state.entries.iter().filter(|(path, _)| path.starts_with(&from)).collect();
            for (path, entry) in inside {
                let rest = path.strip_prefix(&from).unwrap_or(Path::new(""));
                let new = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                changes.push((path.clone(), None));
                changes.push((new, Some(entry.clone())));
            }
        }
        state.change_entries_of(changes, [&from, &to]);
        state.collect();
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        let place = state.place(path)?;
        if matches!(state.entry(&place)?, Entry::Dir) {
            return Err(ErrorKind::IsADirectory.into());
        }
        state.step(Door::Name)?;
        state.change_entries(vec![(place, None)]);
        state.collect();
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        let place = state.place(path)?;
        if !matches!(state.entry(&place)?, Entry::Dir) {
            return Err(ErrorKind::NotADirectory.into());
        }
        let inside: Vec<PathBuf> = state.entries.keys().filter(|path| path.starts_with(&place)).cloned().collect();
        // What is inside sorts after its folder: the last first.
        for path in inside.into_iter().rev() {
            state.step(Door::Name)?;
            state.change_entries(vec![(path, None)]);
        }
        state.collect();
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        let mut missing = Vec::new();
        let mut at = path;
        while state.resolve(at).is_err() {
            missing.push(at.file_name().ok_or(ErrorKind::InvalidInput)?.to_owned());
            at = at.parent().ok_or(ErrorKind::InvalidInput)?;
        }
        let mut made = state.resolve(at)?;
        if !matches!(state.entry(&made)?, Entry::Dir) {
            return Err(ErrorKind::NotADirectory.into());
        }
        for name in missing.into_iter().rev() {
            made.push(name);
            state.step(Door::Name)?;
            state.change_entries(vec![(made.clone(), Some(Entry::Dir))]);
        }
        Ok(())
    }

    fn flush_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        let dir = state.resolve(path)?;
        if !matches!(state.entry(&dir)?, Entry::Dir) {
            return Err(ErrorKind::NotADirectory.into());
        }
        state.step(Door::Flush)?;
        state.flush_dir(&dir);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<HostEntry>> {
        let mut state = self.state();
        state.alive()?;
        let dir = state.resolve(path)?;
        if !matches!(state.entry(&dir)?, Entry::Dir) {
            return Err(ErrorKind::NotADirectory.into());
        }
        state.meet(Door::Read)?;
        let mut entries = Vec::new();
        for inside in state.entries.keys().filter(|path| path.parent() == Some(&dir)) {
            let Ok(resolved) = state.resolve(inside) else { continue };
            let name = inside.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let len = match state.entry(&resolved)? {
                Entry::File(id) => Some(state.files.get(id).map_or(0, |file| file.now.len())),
                _ => None,
            };
            entries.push(HostEntry { name, is_dir: len.is_none(), len: len.unwrap_or(0) });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> bool {
        let state = self.state();
        state.alive().is_ok() && state.resolve(path).is_ok()
    }

    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        let state = self.state();
        state.alive()?;
        state.resolve(path)
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<ByteCount> {
        let state = self.state();
        state.alive()?;
        Ok(ByteCount(state.capacity.map_or(1 << 50, |capacity| capacity.saturating_sub(state.used_bytes()))))
    }

    fn volume(&self, _path: &Path) -> io::Result<String> {
        Ok("memory".into())
    }

    fn boot_id(&self) -> String {
        format!("boot-{}", self.state().boot)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn HostLock>> {
        let mut state = self.state();
        state.alive()?;
        let id = match state.resolve(path) {
            Ok(_) => state.file_id(path)?,
            Err(_) => {
                let place = state.place(path)?;
                state.step(Door::Name)?;
                state.new_file(place)
            }
        };
        Ok(Box::new(MemLock::new(self.open_id(&mut state, id, path, Access::Write)?)))
    }

    fn is_locked(&self, path: &Path) -> bool {
        let state = self.state();
        state.resolve(path).and_then(|_| state.file_id(path)).is_ok_and(|id| state.is_locked(id))
    }
}
