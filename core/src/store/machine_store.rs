//! One machine's folder, opened and locked.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{History, Journal, Result};
use crate::clock::SharedClock;
use crate::host_file::{HostLock, SharedHost};
use crate::snapshot::{ImageId, Machine, SwitchRecord};
use crate::units::ByteCount;

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
    pub(super) pending: Option<SwitchRecord>,
    pub(super) recovered: Recovered,
    lock: Box<dyn HostLock>,
}

#[expect(unused_variables, reason = "to be written")]
impl MachineStore {
    /// Reads and validates the manifest: no lock, nothing written.
    pub fn look(host: &SharedHost, dir: &Path) -> Result<Machine> {
        todo!()
    }
    /// Takes the lock (`InUse` where another process has it) and completes or undoes what the journal says.
    /// A switch is left to the merge room: see [`MachineStore::pending_switch`].
    pub fn open(host: &SharedHost, clock: &SharedClock, dir: &Path) -> Result<Self> {
        todo!()
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
        todo!()
    }
    /// The file system.
    pub fn host(&self) -> &SharedHost {
        &self.host
    }
    /// What opening found and did about an operation that was cut short.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }
    /// A switch that was cut short. Until it is executed and [`MachineStore::clear_journal`] called, every operation is refused.
    pub fn pending_switch(&self) -> Option<&SwitchRecord> {
        self.pending.as_ref()
    }
    /// Publishes a manifest: validated, its generation one more than the present one's.
    pub fn publish(&mut self, machine: Machine) -> Result<()> {
        todo!()
    }
    /// Writes the journal, durably. Refused while there is one.
    pub fn begin_journal(&mut self, journal: Journal) -> Result<()> {
        todo!()
    }
    /// Removes the journal, durably.
    pub fn clear_journal(&mut self) -> Result<()> {
        todo!()
    }
    /// Files in the folder that nothing names.
    pub fn orphans(&self) -> Result<Vec<Orphan>> {
        todo!()
    }
    /// Sizes over time and finished merges.
    pub fn history(&self) -> History {
        todo!()
    }
}

impl fmt::Debug for MachineStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineStore").field("dir", &self.dir).finish_non_exhaustive()
    }
}
