//! What the file system holds, and what is left of it after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use super::{Door, Fault};
use crate::host_file::Access;
use crate::testing::Random;
use crate::testing::pages::{PAGE, Pages};

const SECTOR: usize = 512;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Dir,
    File(u64),
    Link(PathBuf),
}

/// A change of names that is made, or lost, as one.
#[derive(Debug, Clone)]
struct FolderChange {
    changes: Vec<(PathBuf, Option<Entry>)>,
    /// Folders that were not flushed since; durable once there are none.
    unflushed: BTreeSet<PathBuf>,
}

/// A change of a file's bytes that isn't durable yet.
#[derive(Debug, Clone)]
pub(super) enum FileChange {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
    Punch { offset: u64, len: u64 },
}

impl FileChange {
    fn apply(&self, pages: &mut Pages) {
        match self {
            Self::Write { offset, bytes } => pages.write(bytes, *offset),
            Self::SetLen(len) => pages.set_len(*len),
            Self::Punch { offset, len } => pages.punch(*offset, *len),
        }
    }

    /// Applies all, nothing, or (of a write) some sectors.
    fn apply_some(&self, pages: &mut Pages, random: &mut Random) {
        match (random.below(3), self) {
            (0, _) => {}
            (1, Self::Write { offset, bytes }) => {
                let mut at = 0;
                while at < bytes.len() {
                    let place = *offset + at as u64;
                    let end = bytes.len().min(at + SECTOR - (place as usize % SECTOR));
                    if random.chance(1, 2) {
                        pages.write(&bytes[at..end], place);
                    }
                    at = end;
                }
            }
            _ => self.apply(pages),
        }
    }
}

/// One file's bytes, and who has it open.
#[derive(Debug, Clone, Default)]
pub(super) struct FileState {
    pub(super) now: Pages,
    durable: Pages,
    unflushed: Vec<FileChange>,
    /// A flush has failed and dropped what it was to make durable: the kernel shows it, the volume never gets it.
    dropped: bool,
    pub(super) handles: u32,
    writers: u32,
    readers: u32,
}

impl FileState {
    pub(super) fn change(&mut self, change: FileChange) {
        change.apply(&mut self.now);
        self.unflushed.push(change);
    }

    pub(super) fn flush(&mut self) {
        if self.dropped {
            self.unflushed.drain(..).for_each(|change| change.apply(&mut self.durable));
        } else {
            self.unflushed.clear();
            self.durable = self.now.clone();
        }
    }

    /// What a flush that fails does where the kernel then takes the pages for clean.
    pub(super) fn drop_unflushed(&mut self) {
        self.dropped |= !self.unflushed.is_empty();
        self.unflushed.clear();
    }

    pub(super) fn unlock(&mut self, access: Access) {
        match access {
            Access::Look => {}
            Access::Read => self.readers -= 1,
            Access::Write => self.writers -= 1,
        }
    }
}

#[derive(Debug)]
pub(super) struct State {
    /// Names as the kernel has them.
    pub(super) entries: BTreeMap<PathBuf, Entry>,
    durable: BTreeMap<PathBuf, Entry>,
    unflushed: Vec<FolderChange>,
    pub(super) files: BTreeMap<u64, FileState>,
    next_file: u64,
    pub(super) boot: u64,
    pub(super) steps: u64,
    pub(super) faults: Vec<Fault>,
    pub(super) faults_met: u64,
    pub(super) failed_flush_drops: bool,
    pub(super) crash_at: Option<u64>,
    pub(super) crashed: bool,
    pub(super) capacity: Option<u64>,
    pub(super) peak: Option<u64>,
    pub(super) can_punch: bool,
}

impl State {
    pub(super) fn new() -> Self {
        let root = BTreeMap::from([(PathBuf::from("/"), Entry::Dir)]);
        Self {
            entries: root.clone(),
            durable: root,
            unflushed: Vec::new(),
            files: BTreeMap::new(),
            next_file: 1,
            boot: 1,
            steps: 0,
            faults: Vec::new(),
            faults_met: 0,
            failed_flush_drops: false,
            crash_at: None,
            crashed: false,
            capacity: None,
            peak: None,
            can_punch: true,
        }
    }

    /// Fails once the host has crashed.
    pub(super) fn alive(&self) -> io::Result<()> {
        if self.crashed { Err(io::Error::other("the host has crashed")) } else { Ok(()) }
    }

    /// Whether the next step is the one that crashes.
    pub(super) fn crashes_now(&self) -> bool {
        !self.crashed && self.crash_at.is_some_and(|step| step <= self.steps)
    }

    /// Counts a changing step; fails where a test wants it to.
    pub(super) fn step(&mut self, door: Door) -> io::Result<()> {
        self.alive()?;
        if self.crashes_now() {
            self.crashed = true;
            return self.alive();
        }
        self.steps += 1;
        self.meet(door)
    }

    /// Fails where a fault was ordered for this call.
    pub(super) fn meet(&mut self, door: Door) -> io::Result<()> {
        for index in 0..self.faults.len() {
            let fault = &mut self.faults[index];
            if fault.door.is_none_or(|hit| hit == door) {
                if fault.skip > 0 {
                    fault.skip -= 1;
                    continue;
                }
                let kind = fault.kind;
                if !fault.sticky {
                    self.faults.remove(index);
                }
                self.faults_met += 1;
                return Err(kind.into());
            }
        }
        Ok(())
    }

    /// Takes note of how much is used, where that is asked for.
    pub(super) fn note_use(&mut self) {
        if let Some(peak) = self.peak {
            self.peak = Some(peak.max(self.used_bytes()));
        }
    }

    /// Resolves links and `..`; what it names exists.
    pub(super) fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.resolve_within(path, 0)
    }

    fn resolve_within(&self, path: &Path, depth: u32) -> io::Result<PathBuf> {
        if depth > 40 {
            return Err(io::Error::other("too many links"));
        }
        let mut at = PathBuf::from("/");
        for component in path.components() {
            if !matches!(self.entries.get(&at), Some(Entry::Dir)) {
                return Err(ErrorKind::NotADirectory.into());
            }
            match component {
                Component::ParentDir => {
                    at.pop();
                }
                Component::Normal(name) => {
                    at.push(name);
                    if let Entry::Link(target) = self.entry(&at)? {
                        let dir = at.parent().unwrap_or(Path::new("/"));
                        at = self.resolve_within(&dir.join(target), depth + 1)?;
                    }
                }
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        Ok(at)
    }

    /// Where a name goes: its folder resolved, the name itself not.
    pub(super) fn place(&self, path: &Path) -> io::Result<PathBuf> {
        let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
        let dir = self.resolve(path.parent().unwrap_or(Path::new("/")))?;
        match self.entry(&dir)? {
            Entry::Dir => Ok(dir.join(name)),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn entry(&self, place: &Path) -> io::Result<&Entry> {
        self.entries.get(place).ok_or_else(|| ErrorKind::NotFound.into())
    }

    pub(super) fn file_id(&self, path: &Path) -> io::Result<u64> {
        self.alive()?;
        match self.entry(&self.resolve(path)?)? {
            Entry::File(id) => Ok(*id),
            _ => Err(ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn new_file(&mut self, place: PathBuf) -> u64 {
        let id = self.next_file;
        self.next_file += 1;
        self.files.insert(id, FileState::default());
        self.change_entries(vec![(place, Some(Entry::File(id)))]);
        id
    }

    /// Changes names; durable once their folders are flushed.
    pub(super) fn change_entries(&mut self, changes: Vec<(PathBuf, Option<Entry>)>) {
        let places: Vec<PathBuf> = changes.iter().map(|(path, _)| path.clone()).collect();
        self.change_entries_of(changes, &places);
    }

    /// The same, where only the folders of `places` must be flushed.
    pub(super) fn change_entries_of<'a>(
        &mut self,
        changes: Vec<(PathBuf, Option<Entry>)>,
        places: impl IntoIterator<Item = &'a PathBuf>,
    ) {
        let unflushed = places.into_iter().filter_map(|path| path.parent()).map(Path::to_owned).collect();
        apply(&changes, &mut self.entries);
        self.unflushed.push(FolderChange { changes, unflushed });
    }

    pub(super) fn flush_dir(&mut self, dir: &Path) {
        for mut change in std::mem::take(&mut self.unflushed) {
            change.unflushed.remove(dir);
            if change.unflushed.is_empty() {
                apply(&change.changes, &mut self.durable);
            } else {
                self.unflushed.push(change);
            }
        }
        self.collect();
    }

    /// Forgets files that no name and no open handle leads to, now or after a crash.
    pub(super) fn collect(&mut self) {
        let changes = self.unflushed.iter().flat_map(|change| &change.changes).filter_map(|(_, entry)| entry.as_ref());
        let named: BTreeSet<u64> = (self.entries.values().chain(self.durable.values()).chain(changes))
            .filter_map(|entry| if let Entry::File(id) = entry { Some(*id) } else { None })
            .collect();
        self.files.retain(|id, file| file.handles > 0 || named.contains(id));
    }

    /// Bytes of files that have a name or are open.
    pub(super) fn used_bytes(&self) -> u64 {
        let named: BTreeSet<&u64> =
            self.entries.values().filter_map(|entry| if let Entry::File(id) = entry { Some(id) } else { None }).collect();
        let used = self.files.iter().filter(|(id, file)| file.handles > 0 || named.contains(id));
        used.map(|(_, file)| file.now.held_pages() * PAGE).sum()
    }

    /// Whether a handle has it for writing.
    pub(super) fn is_locked(&self, id: u64) -> bool {
        self.files.get(&id).is_some_and(|file| file.writers > 0)
    }

    /// Takes a lock as `flock` does; `held` is what the same handle has already.
    pub(super) fn lock_file(&mut self, id: u64, held: Option<Access>, access: Access) -> io::Result<()> {
        let file = self.files.get_mut(&id).ok_or(ErrorKind::NotFound)?;
        let others_write = file.writers > u32::from(held == Some(Access::Write));
        let others_read = file.readers > u32::from(held == Some(Access::Read));
        match access {
            Access::Look => {}
            Access::Read if others_write => return Err(ErrorKind::WouldBlock.into()),
            Access::Write if others_write || others_read => return Err(ErrorKind::WouldBlock.into()),
            Access::Read => file.readers += 1,
            Access::Write => file.writers += 1,
        }
        if let Some(held) = held {
            file.unlock(held);
        }
        Ok(())
    }

    pub(super) fn after_kill(&self) -> Self {
        let mut files = self.files.clone();
        for file in files.values_mut() {
            (file.handles, file.writers, file.readers) = (0, 0, 0);
        }
        let mut after = Self {
            entries: self.entries.clone(),
            durable: self.durable.clone(),
            unflushed: self.unflushed.clone(),
            files,
            next_file: self.next_file,
            boot: self.boot,
            capacity: self.capacity,
            can_punch: self.can_punch,
            failed_flush_drops: self.failed_flush_drops,
            ..Self::new()
        };
        after.collect();
        after
    }

    pub(super) fn after_power_loss(&self, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut after = self.after_kill();
        after.boot += 1;
        after.entries = std::mem::take(&mut after.durable);
        let fate = random.below(4);
        for change in std::mem::take(&mut after.unflushed) {
            if keeps(fate, &mut random) {
                apply(&change.changes, &mut after.entries);
            }
        }
        // A name whose folder was lost is lost with it; folders sort before what is in them.
        let mut kept: BTreeMap<PathBuf, Entry> = BTreeMap::new();
        for (path, entry) in std::mem::take(&mut after.entries) {
            if path.parent().is_none_or(|dir| matches!(kept.get(dir), Some(Entry::Dir))) {
                kept.insert(path, entry);
            }
        }
        after.entries = kept.clone();
        after.durable = kept;
        for file in after.files.values_mut() {
            let fate = random.below(4);
            let mut pages = file.durable.clone();
            for change in std::mem::take(&mut file.unflushed) {
                match fate {
                    0 => {}
                    1 => change.apply(&mut pages),
                    _ => change.apply_some(&mut pages, &mut random),
                }
            }
            file.now = pages.clone();
            file.durable = pages;
            file.dropped = false;
        }
        after.collect();
        after
    }
}

/// Everything lost, everything kept, or each by chance.
fn keeps(fate: u64, random: &mut Random) -> bool {
    match fate {
        0 => false,
        1 => true,
        _ => random.chance(1, 2),
    }
}

fn apply(changes: &[(PathBuf, Option<Entry>)], entries: &mut BTreeMap<PathBuf, Entry>) {
    for (path, entry) in changes {
        match entry {
            Some(entry) => entries.insert(path.clone(), entry.clone()),
            None => entries.remove(path),
        };
    }
}
