//! The library: a folder with a folder for each machine.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::machine_store::{DISKS, JOURNAL, LOCK, MANIFEST, MANIFEST_FORMAT, SNAPSHOTS, TRASH, is_side_file, remove_trials};
use super::names::name_problem;
use super::{CreateRecord, Journal, MachineStore, Result, StoreError, json};
use crate::chain::unfinished;
use crate::clock::SharedClock;
use crate::disk::{self, CreateOptions, ImageFormat};
use crate::host_file::{Access, SharedHost};
use crate::snapshot::{
    Configuration, Context, DiskConfig, DiskId, Hardware, ImageId, ImageRecord, Machine, MachineId, MachineKind, Now, Settings,
    WorkloadProfile, by_name, rules,
};
use crate::units::ByteCount;

/// A new machine.
#[derive(Debug, Clone, PartialEq)]
pub struct NewMachine {
    /// Its name, which is also its folder's.
    pub name: String,
    /// What runs it.
    pub kind: MachineKind,
    /// Memory, a multiple of 4 KiB.
    pub memory: ByteCount,
    /// Sizes of its disks: `disk0`, `disk1`, ...
    pub disks: Vec<ByteCount>,
    /// Format of its disks.
    pub format: ImageFormat,
    /// How it behaves.
    pub workload: WorkloadProfile,
    /// What else it consists of, where QEMU runs it.
    pub hardware: Option<Hardware>,
}

/// A machine that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its folder.
    pub dir: PathBuf,
    /// Its manifest.
    pub machine: Machine,
}

/// What the library holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scan {
    /// The machines, by name.
    pub machines: Vec<Found>,
    /// What couldn't be read, in words.
    pub problems: Vec<String>,
}

const LIBRARY: &str = "library.json";
const LIBRARY_FORMAT: &str = "snaptree-library";
const LIBRARY_LOCK: &str = "library.lock";
/// What a publication that was cut short leaves.
const TEMPORARY_JOURNAL: &str = ".journal.json.new";
const TEMPORARY_MANIFEST: &str = ".machine.json.new";
/// What the name of a folder that is being removed starts with.
const REMOVED: &str = ".removed-";

/// All of `library.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LibraryFile {
    format: String,
    version: u32,
    /// Folders that were opened to be looked at.
    folders: Vec<PathBuf>,
    /// Names of machines' folders that were forgotten.
    forgotten: Vec<String>,
}

/// The library. Only a folder: several processes may use it at once.
#[derive(Clone)]
pub struct Library {
    pub(super) host: SharedHost,
    pub(super) clock: SharedClock,
    folder: PathBuf,
}

impl Library {
    /// Opens the library, made if missing. What a creation that was cut short has left is removed.
    pub fn open(host: &SharedHost, clock: &SharedClock, folder: &Path) -> Result<Self> {
        let wrong = |error| StoreError::io(folder, "make the library's folder", error);
        let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !host.exists(folder)).collect();
        if !missing.is_empty() {
            host.create_dir_all(folder).map_err(wrong)?;
        }
        for above in missing.into_iter().filter_map(Path::parent).filter(|above| !above.as_os_str().is_empty()) {
            host.flush_dir(above).map_err(wrong)?;
        }
        let folder = host.canonical(folder).map_err(wrong)?;
        remove_trials(&**host, &folder);
        let library = Self { host: host.clone(), clock: clock.clone(), folder };
        for name in library.folder_names()? {
            let dir = library.folder.join(&name);
            let _ = if name.starts_with(REMOVED) {
                host.remove_dir_all(&dir).map_err(wrong)
            } else {
                library.remove_unfinished(&dir)
            };
        }
        Ok(library)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn folder_names(&self) -> Result<Vec<String>> {
        let entries = self.host.list(&self.folder).map_err(|error| StoreError::io(&self.folder, "list the library", error))?;
        Ok(entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name).collect())
    }

    /// Its machines, but for those that were forgotten.
    pub fn scan(&self) -> Result<Scan> {
        let mut scan = Scan::default();
        let forgotten = self.read()?.forgotten;
        for name in self.folder_names()? {
            let dir = self.folder.join(&name);
            if name.starts_with(REMOVED) || forgotten.contains(&name) || !self.host.exists(&dir.join(MANIFEST)) {
                continue;
            }
            match MachineStore::look(&self.host, &dir) {
                Ok(machine) => match scan.machines.iter().find(|found: &&Found| found.machine.id == machine.id) {
                    Some(other) => {
                        let (dir, other) = (dir.display(), other.dir.display());
                        scan.problems.push(format!("{dir}: has the identifier of the machine in {other}; it looks like a copy"));
                    }
                    None => scan.machines.push(Found { dir, machine }),
                },
                Err(error) => scan.problems.push(error.to_string()),
            }
        }
        scan.machines.sort_by(|a, b| by_name(&a.machine.name, &b.machine.name));
        Ok(scan)
    }

    /// A machine by its name or identifier.
    pub fn find(&self, name: &str) -> Result<Found> {
        let machines = self.scan()?.machines;
        let by_name = machines.iter().position(|found| found.machine.name == name);
        let at = by_name.or_else(|| machines.iter().position(|found| found.machine.id.to_string() == name));
        let missing = || StoreError::refused(&self.folder, format!("there is no machine {name:?} in this library"));
        at.and_then(|at| machines.into_iter().nth(at)).ok_or_else(missing)
    }

    /// A machine by its identifier.
    pub fn find_id(&self, id: MachineId) -> Result<Found> {
        let missing = || StoreError::refused(&self.folder, format!("there is no machine {id} in this library"));
        self.scan()?.machines.into_iter().find(|found| found.machine.id == id).ok_or_else(missing)
    }

    /// May a machine get this name?
    pub fn check_name(&self, name: &str) -> Result<()> {
        let dir = self.folder.join(name);
        if let Some(problem) = name_problem(name) {
            return Err(StoreError::refused(&self.folder, format!("the name {name:?} {problem}")));
        }
        let used = |other: &String| other.to_lowercase() == name.to_lowercase();
        let taken = self.folder_names()?.into_iter().find(used).filter(|other| !self.is_empty_folder(&self.folder.join(other)));
        if taken.is_some() || self.scan()?.machines.iter().any(|found| used(&found.machine.name)) {
            return Err(StoreError::refused(&dir, "there is a machine or folder of this name already: choose another name"));
        }
        Ok(())
    }

    /// A folder in which a creation had only just begun.
    fn is_empty_folder(&self, dir: &Path) -> bool {
        let entries = self.host.list(dir).unwrap_or_default();
        self.host.exists(dir) && entries.iter().all(|entry| entry.name == LOCK || entry.name.ends_with(".new"))
    }

    /// Removes a folder whose machine was never complete, unless somebody works on it.
    fn remove_unfinished(&self, dir: &Path) -> Result<()> {
        if self.host.exists(&dir.join(MANIFEST)) || !self.host.exists(&dir.join(JOURNAL)) {
            return Ok(());
        }
        let _lock = self.host.lock(&dir.join(LOCK)).map_err(|error| StoreError::io(dir, "lock it", error))?;
        let journal = MachineStore::read_journal(&self.host, dir)?;
        let Journal::Create(record) = journal.entry else { return Ok(()) };
        let unfinished = !self.host.exists(&dir.join(MANIFEST)) && self.holds_only(dir, &record.files)?;
        if unfinished { discard(&self.host, &self.folder, dir) } else { Ok(()) }
    }

    /// Whether a folder holds nothing but these files and what a creation puts beside them: a journal may be a stranger's.
    fn holds_only(&self, dir: &Path, files: &[PathBuf]) -> Result<bool> {
        // A conversion has its file under another name until it is complete.
        let images: Vec<PathBuf> = files.iter().flat_map(|made| [made.clone(), unfinished(made)]).collect();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let path = dir.join(&folder);
            for entry in self.host.list(&path).map_err(|error| StoreError::io(&path, "list it", error))? {
                let file = folder.join(&entry.name);
                let own = [LOCK, JOURNAL, TEMPORARY_JOURNAL, TEMPORARY_MANIFEST].iter().any(|own| file == Path::new(own));
                if entry.is_dir && folder == Path::new("") && [DISKS, SNAPSHOTS, TRASH].contains(&&*entry.name) {
                    folders.push(file);
                } else if entry.is_dir || !(own || images.iter().any(|made| *made == file || is_side_file(&file, made))) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Creates a machine with its base images; it is returned locked.
    pub fn create(&self, new: &NewMachine) -> Result<MachineStore> {
        self.create_filled(new, &mut |path, disk| {
            Ok(disk::create(&self.host, path, disk.format, &CreateOptions::dynamic(disk.size)).map(drop)?)
        })
    }

    /// Creates a machine whose base images are made by `fill`: it is given each one's file, and what it must be.
    pub fn create_filled(
        &self,
        new: &NewMachine,
        fill: &mut dyn FnMut(&Path, &DiskConfig) -> Result<()>,
    ) -> Result<MachineStore> {
        self.check_name(&new.name)?;
        if !new.memory.0.is_multiple_of(4096) {
            return Err(StoreError::refused(&self.folder, "memory must be a multiple of 4096 bytes"));
        }
        if let Some(problem) = new.hardware.as_ref().and_then(|hardware| hardware.problem(new.disks.len())) {
            return Err(StoreError::refused(&self.folder, problem));
        }
        let largest = new.format.largest_disk();
        if let Some(size) = new.disks.iter().find(|size| **size > largest) {
            let extension = new.format.extension();
            let reason = format!("a .{extension} file holds a disk of at most {largest}, not of {size}");
            return Err(StoreError::refused(&self.folder, reason));
        }
        let created = self.clock.now();
        let disk = |(index, size): (usize, &ByteCount)| DiskConfig {
            id: DiskId(format!("disk{index}")),
            size: *size,
            format: new.format,
        };
        let disks: Vec<DiskConfig> = new.disks.iter().enumerate().map(disk).collect();
        let mut images = BTreeMap::new();
        let mut leaves = BTreeMap::new();
        for disk in &disks {
            let (id, file) = (ImageId::new(), Path::new(DISKS).join(format!("{}.{}", disk.id, disk.format.extension())));
            images.insert(id, ImageRecord { disk: disk.id.clone(), file, parent: None, format: new.format, created });
            leaves.insert(disk.id.clone(), id);
        }
        let machine = Machine {
            format: MANIFEST_FORMAT.into(),
            version: 1,
            id: MachineId::new(),
            name: new.name.clone(),
            kind: new.kind,
            created,
            generation: 0,
            configuration: Configuration {
                memory: new.memory,
                disks,
                workload: new.workload.clone(),
                hardware: new.hardware.clone(),
            },
            images,
            snapshots: BTreeMap::new(),
            now: Now { parent: None, images: leaves, memory: None },
            ghosts: BTreeMap::new(),
            trash: Vec::new(),
            merges: Vec::new(),
            applied: None,
            settings: Settings::default(),
        };
        let folder = NewFolder::begin(self, machine)?;
        let created = folder.fill_disks(fill);
        folder.finish(created)
    }

    /// Forgets a machine (its folder stays), or removes its folder too. `InUse` while somebody owns it.
    pub fn remove(&self, id: MachineId, delete_files: bool) -> Result<()> {
        let Found { dir, machine } = self.find_id(id)?;
        let _lock = self.host.lock(&dir.join(LOCK)).map_err(|error| StoreError::io(&dir, "lock the machine", error))?;
        rules::remove(&machine, &Context::default(), delete_files).map_err(|why| StoreError::rule(&dir, why))?;
        if !delete_files {
            let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return self.change(|file| file.forgotten.push(name));
        }
        discard(&self.host, &self.folder, &dir)
    }

    /// Takes a forgotten machine back, by its folder's name.
    pub fn remember(&self, name: &str) -> Result<Found> {
        let dir = self.folder.join(name);
        if name_problem(name).is_some() || !self.host.exists(&dir.join(MANIFEST)) {
            return Err(StoreError::refused(&self.folder, format!("there is no folder of a machine {name:?} in this library")));
        }
        let machine = MachineStore::look(&self.host, &dir)?;
        self.change(|file| file.forgotten.retain(|other| other != name))?;
        Ok(Found { dir, machine })
    }

    /// Folders that were opened to be looked at.
    pub fn opened_folders(&self) -> Result<Vec<PathBuf>> {
        Ok(self.read()?.folders)
    }

    /// Remembers an opened folder.
    pub fn add_folder(&self, folder: &Path) -> Result<()> {
        let folder = self.host.canonical(folder).map_err(|error| StoreError::io(folder, "find the folder", error))?;
        self.change(|file| {
            if !file.folders.contains(&folder) {
                file.folders.push(folder);
            }
        })
    }

    /// Forgets an opened folder.
    pub fn drop_folder(&self, folder: &Path) -> Result<()> {
        let canonical = self.host.canonical(folder).unwrap_or_else(|_| folder.to_owned());
        self.change(|file| file.folders.retain(|other| other != folder && *other != canonical))
    }

    /// A file beside the library's list, whose content another room defines; `None` if it isn't there.
    pub fn read_beside<T: DeserializeOwned>(&self, name: &str, format: &str) -> Result<Option<T>> {
        let path = self.folder.join(name);
        if self.host.exists(&path) { json::read(&*self.host, &path, format).map(Some) } else { Ok(None) }
    }

    /// Changes such a file, made if it isn't there, under the library's lock; returns what it says then.
    pub fn change_beside<T: Serialize + DeserializeOwned + Default>(
        &self,
        name: &str,
        format: &str,
        change: impl FnOnce(&mut T),
    ) -> Result<T> {
        let lock = self.folder.join(LIBRARY_LOCK);
        let _lock = self.host.lock(&lock).map_err(|error| StoreError::io(&lock, "lock the library", error))?;
        let mut file: T = self.read_beside(name, format)?.unwrap_or_default();
        change(&mut file);
        json::publish(&*self.host, &self.folder.join(name), &file, "publish a file of the library")?;
        Ok(file)
    }

    fn read(&self) -> Result<LibraryFile> {
        let path = self.folder.join(LIBRARY);
        if self.host.exists(&path) {
            return json::read(&*self.host, &path, LIBRARY_FORMAT);
        }
        Ok(LibraryFile { format: LIBRARY_FORMAT.into(), version: 1, folders: Vec::new(), forgotten: Vec::new() })
    }

    fn change(&self, change: impl FnOnce(&mut LibraryFile)) -> Result<()> {
        let path = self.folder.join(LIBRARY);
        let lock = self.folder.join(LIBRARY_LOCK);
        let _lock = self.host.lock(&lock).map_err(|error| StoreError::io(&lock, "lock the library", error))?;
        let mut file = self.read()?;
        change(&mut file);
        json::publish(&*self.host, &path, &file, "publish the library's list")
    }
}

/// Removes a machine's folder: at one instant it is no machine any more; what isn't removed then is with the next start.
fn discard(host: &SharedHost, library: &Path, dir: &Path) -> Result<()> {
    let away = library.join(format!("{REMOVED}{}", MachineId::new()));
    let wrong = |error| StoreError::io(dir, "remove the machine's folder", error);
    host.rename(dir, &away).and_then(|()| host.flush_dir(library)).map_err(wrong)?;
    host.remove_dir_all(&away).and_then(|()| host.flush_dir(library)).map_err(wrong)
}

/// A machine's folder that is being filled. Without its manifest it is nothing, and is removed by the next start.
pub(super) struct NewFolder {
    /// The folder, locked, its journal written; its manifest isn't there yet.
    pub store: MachineStore,
    library: PathBuf,
}

impl NewFolder {
    /// Makes the folder, and writes down what will be in it.
    pub fn begin(library: &Library, machine: Machine) -> Result<Self> {
        let (host, dir) = (&library.host, library.folder.join(&machine.name));
        let wrong = |error| StoreError::io(&dir, "make the machine's folder", error);
        host.create_dir_all(&dir).and_then(|()| host.flush_dir(&library.folder)).map_err(wrong)?;
        let lock = host.lock(&dir.join(LOCK)).map_err(wrong)?;
        let files = machine.images.values().map(|record| record.file.clone()).collect();
        let store = MachineStore::with(host, &library.clock, &dir, machine, lock);
        let mut folder = Self { store, library: library.folder.clone() };
        let made = folder.store.begin_journal(Journal::Create(CreateRecord { files })).and_then(|()| {
            for name in [DISKS, SNAPSHOTS, TRASH] {
                host.create_dir_all(&dir.join(name)).map_err(wrong)?;
            }
            host.flush_dir(&dir).map_err(wrong)
        });
        if made.is_err() {
            folder.remove();
        }
        made.map(|()| folder)
    }

    /// Has the base images of a new machine made.
    fn fill_disks(&self, fill: &mut dyn FnMut(&Path, &DiskConfig) -> Result<()>) -> Result<()> {
        let machine = self.store.machine();
        for disk in &machine.configuration.disks {
            if let Some(path) = machine.now.images.get(&disk.id).and_then(|image| self.store.image_path(*image)) {
                fill(&path, disk)?;
                let image = disk::open(&self.store.host, &path, disk.format, Access::Write)?;
                let found = image.info().virtual_size;
                if found != disk.size {
                    return Err(StoreError::refused(&path, format!("its disk has {found}, and {} was said", disk.size)));
                }
                image.freeze()?;
            }
        }
        Ok(())
    }

    /// Publishes the manifest where the filling went well; otherwise nothing of it stays.
    pub fn finish(mut self, filled: Result<()>) -> Result<MachineStore> {
        let machine = self.store.machine.clone();
        match filled.and_then(|()| self.store.publish(machine)) {
            Ok(()) => {
                self.store.forget_journal();
                Ok(self.store)
            }
            Err(error) => {
                self.remove();
                Err(error)
            }
        }
    }

    fn remove(&self) {
        // What can't be removed now is removed by the next start: the journal says that it is nothing.
        let _ = discard(&self.store.host, &self.library, &self.store.dir);
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").field("folder", &self.folder).finish_non_exhaustive()
    }
}
