//! For each operation: yes, or why not and what would make it possible. The window greys
//! actions by these functions, and the engine admits by the same ones.

use serde::{Deserialize, Serialize};

use super::{DiskId, Machine, SnapshotId};

/// Whether the machine runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerState {
    /// It is off (saved counts as off).
    #[default]
    Off,
    /// It runs, or stands still with its owner up.
    Running,
}

/// What a rule must know beside the manifest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Whether the machine runs.
    pub power: PowerState,
    /// Whether a job works on it.
    pub job_under_way: bool,
    /// Whether its files are only looked at.
    pub read_only: bool,
}

/// Why an operation is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason} {remedy}")]
pub struct WhyNot {
    /// The reason, one sentence.
    pub reason: String,
    /// What would make it possible, one sentence.
    pub remedy: String,
}

/// What a rule answers.
pub type Verdict = Result<(), WhyNot>;

/// May a snapshot be taken (with this label, where it is known yet)?
#[expect(unused_variables, reason = "to be written")]
pub fn take(machine: &Machine, context: &Context, label: Option<&str>) -> Verdict {
    todo!()
}
/// May the machine continue from this snapshot? (A running machine is stopped for it.)
#[expect(unused_variables, reason = "to be written")]
pub fn apply(machine: &Machine, context: &Context, snapshot: SnapshotId) -> Verdict {
    todo!()
}
/// May the last apply be undone?
#[expect(unused_variables, reason = "to be written")]
pub fn undo_apply(machine: &Machine, context: &Context) -> Verdict {
    todo!()
}
/// May these snapshots (with all that hangs from them) be deleted?
#[expect(unused_variables, reason = "to be written")]
pub fn delete(machine: &Machine, context: &Context, snapshots: &[SnapshotId], subtree: bool) -> Verdict {
    todo!()
}
/// May the deletion that took this snapshot be taken back?
#[expect(unused_variables, reason = "to be written")]
pub fn undelete(machine: &Machine, context: &Context, snapshot: SnapshotId) -> Verdict {
    todo!()
}
/// May this snapshot get this label (where it is known yet)?
#[expect(unused_variables, reason = "to be written")]
pub fn rename(machine: &Machine, context: &Context, snapshot: SnapshotId, label: Option<&str>) -> Verdict {
    todo!()
}
/// May this snapshot's note or protection be changed?
#[expect(unused_variables, reason = "to be written")]
pub fn edit(machine: &Machine, context: &Context, snapshot: SnapshotId) -> Verdict {
    todo!()
}
/// May the merges that are due (of one disk, or of all) be carried out?
#[expect(unused_variables, reason = "to be written")]
pub fn merge(machine: &Machine, context: &Context, disk: Option<&DiskId>) -> Verdict {
    todo!()
}
/// May the trash be emptied?
#[expect(unused_variables, reason = "to be written")]
pub fn empty_trash(machine: &Machine, context: &Context) -> Verdict {
    todo!()
}
/// May the machine be forgotten, or its files be deleted?
#[expect(unused_variables, reason = "to be written")]
pub fn remove(machine: &Machine, context: &Context, delete_files: bool) -> Verdict {
    todo!()
}
