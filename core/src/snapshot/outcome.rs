//! What a deletion leads to, per image, before it is confirmed (design.md 2.3).

use serde::{Deserialize, Serialize};

use super::{DiskId, ImageId, Machine, Run, SavedMemory, SnapshotId, TrashItem, tree::NodeRef};

/// What becomes of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Nothing reads through it: the file goes to the trash, or is removed at once.
    FreesNow,
    /// Exactly one image reads through it: it is part of this run.
    Merges(Run),
    /// Two or more images read through it: it stays until one branch is left. The nodes that hold it.
    FreesNothing(Vec<NodeRef>),
}

/// What becomes of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOutcome {
    /// The disk.
    pub disk: DiskId,
    /// The image.
    pub image: ImageId,
    /// The snapshot or ghost that it is the content of, where that is known.
    pub of: Option<SnapshotId>,
    /// What becomes of it.
    pub fate: Fate,
}

/// What a deletion leads to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeletionOutcome {
    /// Everything that is deleted, parents first.
    pub snapshots: Vec<SnapshotId>,
    /// The images of the deleted snapshots, and every other one whose fate the deletion changes.
    pub images: Vec<ImageOutcome>,
    /// Runs that are due afterwards and weren't before, as they are then.
    pub runs: Vec<Run>,
    /// Saved memory that goes.
    pub memory: Vec<SavedMemory>,
    /// Pictures of the screen that go.
    pub screens: Vec<std::path::PathBuf>,
    /// What in the trash can no longer be undone once these runs are merged.
    pub doomed: Vec<TrashItem>,
}

/// What deleting these snapshots (with all that hangs from them) leads to. Unknown ones are ignored.
#[expect(unused_variables, reason = "to be written")]
pub fn deletion_outcome(machine: &Machine, snapshots: &[SnapshotId], subtree: bool) -> DeletionOutcome {
    todo!()
}
