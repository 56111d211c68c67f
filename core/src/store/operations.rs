//! Operations on the tree of a machine whose lock we hold; each happens wholly or not at all.

use std::path::PathBuf;

use super::{MachineStore, Result};
use crate::snapshot::{Change, MergeRecord, SavedMemory, Settings, SnapshotId, TrashItem};
use crate::units::ByteCount;

#[expect(unused_variables, reason = "to be written")]
impl MachineStore {
    /// Continues from a snapshot: new leaves, its configuration, its memory. The machine is off.
    pub fn apply(&mut self, snapshot: SnapshotId) -> Result<()> {
        todo!()
    }
    /// Puts back what Now held before the last apply. The machine is off.
    pub fn undo_apply(&mut self) -> Result<()> {
        todo!()
    }
    /// Deletes snapshots; returns what was moved to the trash.
    pub fn delete(&mut self, snapshots: &[SnapshotId], subtree: bool, free_now: bool) -> Result<Vec<TrashItem>> {
        todo!()
    }
    /// Takes back the action that deleted this snapshot; returns the snapshots that are back.
    pub fn undelete(&mut self, snapshot: SnapshotId) -> Result<Vec<SnapshotId>> {
        todo!()
    }
    /// Gives a snapshot another label.
    pub fn rename(&mut self, snapshot: SnapshotId, label: &str) -> Result<()> {
        todo!()
    }
    /// Sets a snapshot's note.
    pub fn set_note(&mut self, snapshot: SnapshotId, note: &str) -> Result<()> {
        todo!()
    }
    /// Protects a snapshot from deletion, or no longer.
    pub fn protect(&mut self, snapshot: SnapshotId, protected: bool) -> Result<()> {
        todo!()
    }
    /// Changes the machine's settings.
    pub fn set_settings(&mut self, settings: Settings) -> Result<()> {
        todo!()
    }
    /// Empties the trash: everything, or what is older than the setting says; returns the bytes that came back.
    pub fn empty_trash(&mut self, all: bool) -> Result<ByteCount> {
        todo!()
    }
    /// The trash: what, how much, since when.
    pub fn trash_files(&self) -> &[TrashItem] {
        &self.machine.trash
    }
    /// The machine runs: Now's saved memory isn't needed any more.
    pub fn clear_memory(&mut self) -> Result<()> {
        todo!()
    }
    /// A path (absolute, its folder made) for the memory of a machine that is stopped and saved.
    pub fn new_memory_path(&self) -> Result<PathBuf> {
        todo!()
    }
    /// The memory was saved (durably) at a path from [`MachineStore::new_memory_path`].
    pub fn save_memory(&mut self, memory: SavedMemory) -> Result<()> {
        todo!()
    }
    /// A merge starts: recorded durably; what it dooms in the trash is removed first.
    pub fn begin_merge(&mut self, record: MergeRecord) -> Result<()> {
        todo!()
    }
    /// Carries out a change of the tree: journal, manifest, moves and removals.
    pub fn commit(&mut self, operation: &str, change: Change, created: Vec<PathBuf>) -> Result<()> {
        todo!()
    }
}
