//! Operations on the tree as functions from one manifest to the next, with what they mean for files.
//! They assume that the rule of the same name has said yes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Configuration, DiskId, ImageId, ImageRecord, Machine, MergeRecord, Run, SavedMemory, SnapshotId, TrashItem};

/// A file that changes its place; both are relative to the machine's folder.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileMove {
    /// Where it is.
    pub from: PathBuf,
    /// Where it goes.
    pub to: PathBuf,
}

/// The next manifest, and what must follow for it to be true.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The next manifest (its generation not yet raised).
    pub machine: Machine,
    /// Files to move once it is published.
    pub moves: Vec<FileMove>,
    /// Files to remove once it is published (before the moves' time they lie where named).
    pub removes: Vec<PathBuf>,
    /// Images that came back from the trash: their locators are checked against their parents' places.
    pub restored: Vec<ImageId>,
}

/// Who does it and when.
pub struct Stamp<'a> {
    /// Names the action in ghosts and trash.
    pub action: Uuid,
    /// The time.
    pub now: DateTime<Utc>,
    /// Bytes that a file (relative to the machine's folder) takes.
    pub held: &'a dyn Fn(&Path) -> crate::units::ByteCount,
}

/// What [`take`] makes into a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// Its identifier.
    pub id: SnapshotId,
    /// Its label.
    pub label: String,
    /// A note.
    pub note: String,
    /// The instant whose state it is.
    pub taken: DateTime<Utc>,
    /// The configuration at that instant.
    pub configuration: Configuration,
    /// The memory, if it was saved.
    pub memory: Option<SavedMemory>,
    /// The picture of the screen.
    pub screen: Option<PathBuf>,
    /// Per disk, Now's new leaf.
    pub leaves: BTreeMap<DiskId, (ImageId, ImageRecord)>,
}

/// Which part of the trash to empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrashSelection {
    /// Everything.
    All,
    /// What went there before this time.
    Before(DateTime<Utc>),
    /// What one action put there.
    Action(Uuid),
}

/// Now becomes a node, and goes on in new leaves.
#[expect(unused_variables, reason = "to be written")]
pub fn take(machine: &Machine, taken: Taken) -> Change {
    todo!()
}
/// Now goes on in new leaves without a node: the old ones are retained, and a merge is due
/// (a take that failed after the machine had switched).
#[expect(unused_variables, reason = "to be written")]
pub fn keep_on_new_leaves(machine: &Machine, leaves: BTreeMap<DiskId, (ImageId, ImageRecord)>) -> Change {
    todo!()
}
/// Now continues from a snapshot in new leaves; what it held goes to the trash.
#[expect(unused_variables, reason = "to be written")]
pub fn apply(
    machine: &Machine,
    snapshot: SnapshotId,
    leaves: BTreeMap<DiskId, (ImageId, ImageRecord)>,
    stamp: &Stamp<'_>,
) -> Change {
    todo!()
}
/// Now is again what it was before the last apply; what it held meanwhile goes to the trash, and can be had back the same way.
#[expect(unused_variables, reason = "to be written")]
pub fn undo_apply(machine: &Machine, stamp: &Stamp<'_>) -> Change {
    todo!()
}
/// Snapshots become ghosts; files that nothing reads through go to the trash, or at once.
#[expect(unused_variables, reason = "to be written")]
pub fn delete(machine: &Machine, snapshots: &[SnapshotId], subtree: bool, free_now: bool, stamp: &Stamp<'_>) -> Change {
    todo!()
}
/// Takes back the whole action that deleted this ghost.
#[expect(unused_variables, reason = "to be written")]
pub fn undelete(machine: &Machine, ghost: SnapshotId) -> Change {
    todo!()
}
/// Changes a snapshot's label, note or protection.
#[expect(unused_variables, reason = "to be written")]
pub fn edit(machine: &Machine, snapshot: SnapshotId, change: impl FnOnce(&mut super::Snapshot)) -> Change {
    todo!()
}
/// Removes files from the trash, and what could only be undone with them.
#[expect(unused_variables, reason = "to be written")]
pub fn empty_trash(machine: &Machine, selection: TrashSelection) -> Change {
    todo!()
}
/// What in the trash can't be put back any more once this run's merge starts.
#[expect(unused_variables, reason = "to be written")]
pub fn doomed_by_merge<'a>(machine: &'a Machine, run: &[ImageId]) -> Vec<&'a TrashItem> {
    todo!()
}
/// A merge starts: the ghosts of X1..X(k-1) are sealed, and what it dooms in the trash is removed.
#[expect(unused_variables, reason = "to be written")]
pub fn begin_merge(machine: &Machine, record: MergeRecord) -> Change {
    todo!()
}
/// A merge has ended: Xk's record names `file` and has X1's parent, X1..X(k-1) are gone, ghosts without bytes too.
/// The files themselves are the switch's business.
#[expect(unused_variables, reason = "to be written")]
pub fn finish_merge(machine: &Machine, run: &Run, file: PathBuf) -> Change {
    todo!()
}
/// The machine runs: the memory that Now continued from isn't needed any more.
#[expect(unused_variables, reason = "to be written")]
pub fn clear_memory(machine: &Machine, stamp: &Stamp<'_>) -> Change {
    todo!()
}
/// The machine was stopped and its memory saved: the next start continues from it.
#[expect(unused_variables, reason = "to be written")]
pub fn save_memory(machine: &Machine, memory: SavedMemory, stamp: &Stamp<'_>) -> Change {
    todo!()
}
