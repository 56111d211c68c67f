//! What a deletion leads to, per image, before it is confirmed (design.md 2.3).

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::change::{self, Stamp};
use super::{DiskId, ImageId, Machine, NodeRef, Run, SavedMemory, SnapshotId, TrashItem, Tree};
use crate::units::ByteCount;

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
    pub screens: Vec<PathBuf>,
    /// What lies in the trash already and can no longer be undone once these runs are merged.
    pub doomed: Vec<TrashItem>,
}

/// What deleting these snapshots (with all that hangs from them) leads to. Unknown ones are ignored.
///
/// The deletion is carried out on a copy of the manifest, so that what is said is what will be.
pub fn deletion_outcome(machine: &Machine, snapshots: &[SnapshotId], subtree: bool) -> DeletionOutcome {
    let action = Uuid::nil();
    let stamp = Stamp { action, now: DateTime::UNIX_EPOCH, held: Box::new(|_| ByteCount::ZERO) };
    let next = change::delete(machine, snapshots, subtree, false, &stamp).machine;
    let (before, after) = (Tree::of(machine), Tree::of(&next));
    let (runs_before, runs_after) = (before.runs(), after.runs());
    let deleted = change::selection(machine, snapshots, subtree);

    let fate = |tree: &Tree<'_>, runs: &[Run], image: ImageId| {
        if !tree.machine().images.contains_key(&image) {
            return Some(Fate::FreesNow);
        }
        if tree.node_of(image).is_some() {
            return None;
        }
        let readers = tree.readers(image);
        if readers.len() > 1 {
            let mut holding: Vec<_> = readers.into_iter().flat_map(|reader| reader.nodes).collect();
            // The oldest first, Now last.
            holding.sort_by_key(|node| match node {
                NodeRef::Snapshot(id) | NodeRef::Ghost(id) => (false, machine.snapshots.get(id).map(|s| s.taken), *node),
                NodeRef::Now => (true, None, *node),
            });
            return Some(Fate::FreesNothing(holding));
        }
        runs.iter().find(|run| run.images.contains(&image)).cloned().map(Fate::Merges)
    };
    let owners = deleted.iter().filter_map(|id| Some((*id, machine.snapshots.get(id)?)));
    let of: BTreeMap<ImageId, SnapshotId> =
        owners.flat_map(|(id, node)| node.images.values().map(move |image| (*image, id))).collect();
    let mut images = Vec::new();
    for (image, record) in &machine.images {
        let Some(fate_after) = fate(&after, &runs_after, *image) else { continue };
        if of.contains_key(image) || fate(&before, &runs_before, *image).as_ref() != Some(&fate_after) {
            let of = of.get(image).copied().or_else(|| before.ghost_of(*image));
            images.push((
                before.chain(*image).len(),
                ImageOutcome { disk: record.disk.clone(), image: *image, of, fate: fate_after },
            ));
        }
    }
    images.sort_by(|(a_depth, a), (b_depth, b)| (&a.disk, a_depth, a.image).cmp(&(&b.disk, b_depth, b.image)));

    let runs: Vec<Run> = runs_after.into_iter().filter(|run| !runs_before.contains(run)).collect();
    let mut doomed: Vec<TrashItem> = Vec::new();
    for item in runs.iter().flat_map(|run| change::doomed_by_merge(&next, &run.images)) {
        if item.action != action && !doomed.contains(item) {
            doomed.push(item.clone());
        }
    }
    let goes =
        |file: &PathBuf| next.trash.iter().any(|item| item.action == action && item.image.is_none() && item.original == *file);
    let nodes = || deleted.iter().filter_map(|id| machine.snapshots.get(id));
    DeletionOutcome {
        images: images.into_iter().map(|(_, image)| image).collect(),
        runs,
        memory: nodes().filter_map(|node| node.memory.clone()).filter(|memory| goes(&memory.file)).collect(),
        screens: nodes().filter_map(|node| node.screen.clone()).filter(goes).collect(),
        doomed,
        snapshots: deleted,
    }
}
