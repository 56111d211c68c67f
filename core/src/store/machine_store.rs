//! One machine's folder, opened and locked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::journal::{JOURNAL_FORMAT, JournalFile};
use super::reserve::RESERVE;
use super::{History, Journal, Result, StoreError, json, recovery};
use crate::clock::SharedClock;
use crate::host_file::{Access, Host, HostLock, SharedHost, publish_file, read_file};
use crate::snapshot::{ImageId, Machine, Snapshot, SwitchRecord, validate};
use crate::units::ByteCount;

/// What says that a folder is a machine of this program.
pub const MANIFEST: &str = "machine.json";
pub(super) const MANIFEST_FORMAT: &str = "snaptree-machine";
/// What stands in a machine's folder while an operation is under way, or was cut short.
pub const JOURNAL: &str = "journal.json";
pub(super) const LOCK: &str = "machine.lock";
pub(super) const HISTORY: &str = "history.jsonl";
/// What a machine that QEMU runs says on its serial port, in the machine's folder.
pub const CONSOLE: &str = "console.log";
/// Why its guest ended by itself, until it is started again.
pub(super) const ENDED: &str = "ended.txt";
pub(super) const DISKS: &str = "Virtual Hard Disks";
pub(super) const SNAPSHOTS: &str = "Snapshots";
pub(super) const TRASH: &str = "Deleted";

/// What opening a machine found and did about an operation that was cut short; a sentence each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered(pub Vec<String>);

/// A file in the machine's folder that nothing names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Relative to the machine's folder.
    pub file: PathBuf,
    /// Its length.
    pub len: ByteCount,
}

/// One machine's folder, its lock held.
pub struct MachineStore {
    pub(super) host: SharedHost,
    pub(super) clock: SharedClock,
    pub(super) dir: PathBuf,
    pub(super) machine: Machine,
    /// What `journal.json` says, as long as it is there.
    pub(super) journal: Option<Journal>,
    pub(super) recovered: Recovered,
    /// What is under way gives space back, and may use what is kept for that.
    pub(super) gives_back: bool,
    _lock: Box<dyn HostLock>,
}

/// How the names of files begin with which a volume is tried out, in a machine's or the library's folder.
pub const TRIAL: &str = ".probe-";

/// Removes what trying out a volume has left when it was cut short. Another process may be at it: then it goes later.
pub(super) fn remove_trials(host: &dyn Host, folder: &Path) {
    for entry in host.list(folder).unwrap_or_default() {
        if entry.name.starts_with(TRIAL) && !entry.is_dir {
            let _ = host.remove_file(&folder.join(entry.name));
        }
    }
}

impl MachineStore {
    /// Reads and validates the manifest: no lock, nothing written.
    pub fn look(host: &SharedHost, dir: &Path) -> Result<Machine> {
        let path = dir.join(MANIFEST);
        let machine: Machine = json::read(&**host, &path, MANIFEST_FORMAT)?;
        validate(&machine).map_err(|problems| StoreError::invalid(&path, "the manifest can't be right", problems.join("; ")))?;
        Ok(machine)
    }

    /// Takes the lock (`InUse` where another process has it) and completes or undoes what the journal says.
    /// A switch is left to the merge room: see [`MachineStore::pending_switch`].
    pub fn open(host: &SharedHost, clock: &SharedClock, dir: &Path) -> Result<Self> {
        if !host.exists(&dir.join(MANIFEST)) {
            return Err(StoreError::refused(dir, format!("it has no {MANIFEST}, so it isn't a machine")));
        }
        let lock = host.lock(&dir.join(LOCK)).map_err(|error| StoreError::io(dir, "lock the machine", error))?;
        let machine = Self::look(host, dir)?;
        let mut store = Self::with(host, clock, dir, machine, lock);
        store.check_places(None)?;
        for name in [MANIFEST, JOURNAL] {
            // What a publication that was cut short has left.
            let temporary = dir.join(format!(".{name}.new"));
            if host.exists(&temporary) {
                host.remove_file(&temporary).map_err(|error| StoreError::io(&temporary, "remove it", error))?;
            }
        }
        remove_trials(&**host, dir);
        let mut journal = None;
        if host.exists(&dir.join(JOURNAL)) {
            let read = Self::read_journal(host, dir)?;
            if read.machine != store.machine.id {
                return Err(StoreError::invalid(&dir.join(JOURNAL), "machine", "is another machine's"));
            }
            if let Some(problem) = read.entry.problem(&store.machine) {
                return Err(StoreError::invalid(&dir.join(JOURNAL), "entry", problem));
            }
            store.check_places(Some(&read.entry))?;
            journal = Some(read.entry);
        }
        store.keep_reserve();
        // What a killed process has published last counts from now on, so it mustn't be lost with the power any more.
        host.flush_dir(dir).map_err(|error| StoreError::io(dir, "flush the folder", error))?;
        if journal.is_some() {
            store.journal = journal;
            store.recovered.0 = recovery::recover(&mut store)?;
        }
        recovery::settle_merges(&store)?;
        Ok(store)
    }

    /// Whether another process owns the machine now.
    pub fn is_in_use(host: &SharedHost, dir: &Path) -> bool {
        // Nothing is created where nobody has ever opened it.
        host.exists(&dir.join(LOCK))
            && host.lock(&dir.join(LOCK)).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    pub(super) fn with(host: &SharedHost, clock: &SharedClock, dir: &Path, machine: Machine, lock: Box<dyn HostLock>) -> Self {
        let (host, clock, dir) = (host.clone(), clock.clone(), dir.to_owned());
        Self { host, clock, dir, machine, journal: None, recovered: Recovered::default(), gives_back: false, _lock: lock }
    }

    pub(super) fn read_journal(host: &SharedHost, dir: &Path) -> Result<JournalFile> {
        json::read(&**host, &dir.join(JOURNAL), JOURNAL_FORMAT)
    }

    /// All files lie inside the machine's folder, links resolved, and a journal takes away none that the machine needs.
    fn check_places(&self, journal: Option<&Journal>) -> Result<()> {
        let canonical = |path: &Path| self.host.canonical(path).map_err(|error| StoreError::io(path, "resolve links", error));
        let root = canonical(&self.dir)?;
        let mut resolved: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        let mut place = |file: &Path| -> Result<PathBuf> {
            let folder = file.parent().unwrap_or(Path::new(""));
            let real = match resolved.get(folder) {
                Some(real) => real,
                None => {
                    let there = folder.ancestors().find(|above| self.host.exists(&self.dir.join(above))).unwrap_or(Path::new(""));
                    let missing = folder.strip_prefix(there).unwrap_or(folder);
                    let real = canonical(&self.dir.join(there))?;
                    if !real.starts_with(&root) {
                        let problem = "is a link that leads out of the machine's folder";
                        return Err(StoreError::invalid(&self.dir.join(there), "folder", problem));
                    }
                    resolved.entry(folder.to_owned()).or_insert(real.join(missing))
                }
            };
            Ok(real.join(file.file_name().unwrap_or_default()))
        };
        if let Some(journal) = journal {
            let needed: BTreeSet<PathBuf> = self.needed_files().map(&mut place).collect::<Result<_>>()?;
            journal.files().try_for_each(|file| place(file).map(drop))?;
            for file in journal.taken_away(&self.machine) {
                let taken = place(file)?;
                // The first that isn't before the folder itself is inside it, if any is.
                if needed.range(taken.clone()..).next().is_some_and(|needed| needed.starts_with(&taken)) {
                    let problem = format!("{} belongs to the machine and can't be taken away", file.display());
                    return Err(StoreError::invalid(&self.dir.join(JOURNAL), "entry", problem));
                }
            }
            return Ok(());
        }
        for file in self.named_files().iter().map(PathBuf::as_path).chain([HISTORY, TRASH].map(Path::new)) {
            place(file)?;
            let path = self.dir.join(file);
            if self.host.exists(&path) && !canonical(&path)?.starts_with(&root) {
                return Err(StoreError::invalid(&path, "file", "is a link that leads out of the machine's folder"));
            }
        }
        Ok(())
    }

    /// The manifest.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The machine's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The absolute path of a file of the machine.
    pub fn path(&self, file: &Path) -> PathBuf {
        self.dir.join(file)
    }

    /// The absolute path of an image.
    pub fn image_path(&self, image: ImageId) -> Option<PathBuf> {
        self.machine.images.get(&image).map(|record| self.dir.join(&record.file))
    }

    /// The file system.
    pub fn host(&self) -> &SharedHost {
        &self.host
    }

    /// The clock.
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// What opening found and did about an operation that was cut short.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// A switch that was cut short. Until it is executed and [`MachineStore::clear_journal`] called, every other
    /// operation is refused.
    pub fn pending_switch(&self) -> Option<&SwitchRecord> {
        match &self.journal {
            Some(Journal::Switch(record)) => Some(record),
            _ => None,
        }
    }

    /// Publishes a manifest, validated; its generation becomes one more than the present one's.
    pub fn publish(&mut self, mut machine: Machine) -> Result<()> {
        let path = self.dir.join(MANIFEST);
        machine.generation = self.machine.generation + 1;
        validate(&machine)
            .map_err(|problems| StoreError::invalid(&path, "the next manifest can't be right", problems.join("; ")))?;
        let published = self.publish_json(MANIFEST, &machine, "publish the manifest");
        let Err(error) = published else {
            self.machine = machine;
            return Ok(());
        };
        // The new manifest may stand, without being durable: then what stands counts.
        let stands = Self::look(&self.host, &self.dir).is_ok_and(|found| found.generation == machine.generation);
        if stands {
            self.machine = machine;
            return if self.host.flush_dir(&self.dir).is_ok() { Ok(()) } else { Err(error) };
        }
        Err(error)
    }

    /// Replaces a file of the machine's; where there is no room for it, and space is to be given back, with what was kept.
    fn publish_json<T: Serialize>(&self, name: &str, value: &T, operation: &'static str) -> Result<()> {
        let publish = || json::publish(&*self.host, &self.dir.join(name), value, operation);
        match publish() {
            Err(error) if error.is_full() && self.gives_back && self.give_reserve() => publish(),
            published => published,
        }
    }

    /// Writes the journal, durably. Refused while there is one.
    pub fn begin_journal(&mut self, journal: Journal) -> Result<()> {
        if self.journal.is_some() {
            return Err(StoreError::refused(&self.dir, "another operation on this machine hasn't been completed; open it again"));
        }
        let written = self.write_journal(journal);
        if written.is_err() {
            // Nothing of the operation is done; a journal that stands nevertheless says so.
            let _ = self.clear_journal();
        }
        written
    }

    /// Replaces the journal, durably.
    pub(super) fn write_journal(&mut self, journal: Journal) -> Result<()> {
        let file = JournalFile { format: JOURNAL_FORMAT.into(), version: 1, machine: self.machine.id, entry: journal.clone() };
        self.publish_json(JOURNAL, &file, "write the journal")?;
        self.journal = Some(journal);
        Ok(())
    }

    /// Removes the journal, durably.
    pub fn clear_journal(&mut self) -> Result<()> {
        let path = self.dir.join(JOURNAL);
        let wrong = |error| StoreError::io(&path, "clear the journal", error);
        if self.host.exists(&path) {
            self.host.remove_file(&path).map_err(wrong)?;
        }
        self.host.flush_dir(&self.dir).map_err(wrong)?;
        self.journal = None;
        Ok(())
    }

    /// Removes the journal of an operation that is complete. If that fails, opening finds nothing left to do.
    pub(super) fn forget_journal(&mut self) {
        let _ = self.clear_journal();
        self.journal = None;
    }

    /// Every file that the manifest names.
    fn named_files(&self) -> BTreeSet<PathBuf> {
        let ghosts = self.machine.ghosts.values().flat_map(|ghost| own_files(&ghost.snapshot));
        self.needed_files().chain(ghosts).map(Path::to_owned).collect()
    }

    /// Every file that a node or an undo stands on. What a ghost had is in the trash, under another name.
    fn needed_files(&self) -> impl Iterator<Item = &Path> {
        let machine = &self.machine;
        let of_nodes = machine.snapshots.values().flat_map(own_files);
        let of_now = machine.now.memory.iter().map(|memory| &*memory.file);
        let images = machine.images.values().map(|record| &*record.file);
        images.chain(of_nodes).chain(of_now).chain(machine.trash.iter().map(|item| &*item.file))
    }

    /// Files in the folder that nothing names. An image's side files belong to it.
    pub fn orphans(&self) -> Result<Vec<Orphan>> {
        let named = self.named_files();
        let own = [MANIFEST, JOURNAL, LOCK, HISTORY, RESERVE, CONSOLE, ENDED].map(PathBuf::from);
        let mut orphans = Vec::new();
        let mut folders = vec![(PathBuf::new(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let path = self.dir.join(&folder);
            for entry in self.host.list(&path).map_err(|error| StoreError::io(&path, "list it", error))? {
                let file = folder.join(&entry.name);
                let side = named.range(..file.clone()).next_back().is_some_and(|image| is_side_file(&file, image));
                if entry.is_dir && depth < 4 {
                    folders.push((file, depth + 1));
                } else if !entry.is_dir && !named.contains(&file) && !own.contains(&file) && !side {
                    orphans.push(Orphan { file, len: ByteCount(entry.len) });
                }
            }
        }
        orphans.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(orphans)
    }

    /// Sizes over time and finished merges.
    pub fn history(&self) -> History {
        History::of(&self.host, &self.dir)
    }

    /// Leaves word of why the machine's guest has ended by itself, for whoever looks later; `None` takes that back. A machine
    /// is none the worse without.
    pub fn note_end(&self, why: Option<&str>) {
        let path = self.dir.join(ENDED);
        let noted = match why {
            Some(why) => publish_file(&*self.host, &path, format!("{why}\n").as_bytes()),
            None if self.host.exists(&path) => self.host.remove_file(&path),
            None => Ok(()),
        };
        if let Err(error) = noted {
            tracing::warn!(%error, "{}: why it has ended isn't remembered", path.display());
        }
    }

    /// Why the guest of the machine in this folder ended by itself, where it hasn't been started since.
    pub fn why_ended(host: &SharedHost, dir: &Path) -> Option<String> {
        const LONGEST: u64 = 16 << 10;
        let bytes = read_file(&**host, &dir.join(ENDED), LONGEST).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Bytes that a file takes; nothing where it can't be asked.
    pub(super) fn held(&self, file: &Path) -> ByteCount {
        let asked = self.host.open(&self.dir.join(file), Access::Look).and_then(|file| file.held_bytes());
        asked.unwrap_or_default()
    }

    /// Refuses before anything is touched where the volume lacks this much space.
    pub(super) fn check_space(&self, needed: ByteCount) -> Result<()> {
        match self.host.free_bytes(&self.dir) {
            Ok(free) if free < needed => {
                let short = needed - free;
                let reason = format!("{needed} are needed and {free} are free: free {short} first");
                Err(StoreError::refused(&self.dir, reason))
            }
            _ => Ok(()),
        }
    }
}

/// A node's memory and picture.
fn own_files(node: &Snapshot) -> impl Iterator<Item = &Path> {
    node.memory.iter().map(|memory| &memory.file).chain(&node.screen).map(PathBuf::as_path)
}

/// Whether a file stands beside an image as `<image's name>.<something>`.
pub(super) fn is_side_file(file: &Path, image: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (file_name, image_name) = (name(file), name(image));
    file.parent() == image.parent() && file_name.strip_prefix(&image_name).is_some_and(|rest| rest.starts_with('.'))
}

impl fmt::Debug for MachineStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineStore").field("dir", &self.dir).finish_non_exhaustive()
    }
}
