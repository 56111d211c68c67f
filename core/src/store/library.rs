//! The library: a folder with a folder for each machine.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{ImportControl, ImportRequest, MachineStore, Result};
use crate::clock::SharedClock;
use crate::disk::ImageFormat;
use crate::host_file::SharedHost;
use crate::snapshot::{Machine, MachineId, MachineKind, WorkloadProfile};
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

/// The library. Only a folder: several processes may use it at once.
#[derive(Clone)]
pub struct Library {
    pub(super) host: SharedHost,
    pub(super) clock: SharedClock,
    folder: PathBuf,
}

#[expect(unused_variables, reason = "to be written")]
impl Library {
    /// Opens the library, made if missing.
    pub fn open(host: &SharedHost, clock: &SharedClock, folder: &Path) -> Result<Self> {
        todo!()
    }
    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
    /// Its machines, but for those that were forgotten.
    pub fn scan(&self) -> Result<Scan> {
        todo!()
    }
    /// A machine by its name or identifier.
    pub fn find(&self, name: &str) -> Result<Found> {
        todo!()
    }
    /// A machine by its identifier.
    pub fn find_id(&self, id: MachineId) -> Result<Found> {
        todo!()
    }
    /// May a machine get this name?
    pub fn check_name(&self, name: &str) -> Result<()> {
        todo!()
    }
    /// Creates a machine with its base images; it is returned locked.
    pub fn create(&self, new: &NewMachine) -> Result<MachineStore> {
        todo!()
    }
    /// Brings images of others in as a machine; it is returned locked.
    pub fn import(&self, request: &ImportRequest, control: &mut dyn ImportControl) -> Result<MachineStore> {
        todo!()
    }
    /// Forgets a machine (its folder stays), or removes its folder too. `InUse` while somebody owns it.
    pub fn remove(&self, id: MachineId, delete_files: bool) -> Result<()> {
        todo!()
    }
    /// Takes a forgotten machine back, by its folder's name.
    pub fn remember(&self, name: &str) -> Result<Found> {
        todo!()
    }
    /// Folders that were opened to be looked at.
    pub fn opened_folders(&self) -> Result<Vec<PathBuf>> {
        todo!()
    }
    /// Remembers an opened folder.
    pub fn add_folder(&self, folder: &Path) -> Result<()> {
        todo!()
    }
    /// Forgets an opened folder.
    pub fn drop_folder(&self, folder: &Path) -> Result<()> {
        todo!()
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").field("folder", &self.folder).finish_non_exhaustive()
    }
}
