//! What a deletion leads to, in bytes and minutes, before it happens.

use serde::{Deserialize, Serialize};

use std::collections::BTreeMap;

use super::{MachineFacts, MergeCost, MergeTotal, NodeCost, merge_cost, node_cost};
use crate::snapshot::{DiskId, Fate, ImageId, NodeRef, SnapshotId, Tree, deletion_outcome};
use crate::units::ByteCount;

/// An image that stays although no node is it any longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedImage {
    /// Which.
    pub image: ImageId,
    /// Bytes that its file takes.
    pub held: ByteCount,
    /// The nodes whose branches hold it.
    pub by: Vec<NodeRef>,
}

/// What a deletion does to one disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiskDeletion {
    /// Which disk.
    pub disk: DiskId,
    /// Images that nothing reads through: they go to the trash.
    pub freed: Vec<ImageId>,
    /// Their bytes.
    pub frees: ByteCount,
    /// Merges that become due.
    pub merges: Vec<MergeCost>,
    /// Images that stay and free nothing.
    pub retained: Vec<RetainedImage>,
    /// Whether bytes of a merge are unknown because the disk is still being counted.
    pub uncounted: bool,
}

/// What a deletion leads to. Of several nodes, what all of them together lead to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeletionCost {
    /// All nodes that go, those of a subtree included.
    pub snapshots: Vec<SnapshotId>,
    /// Disk by disk.
    pub disks: Vec<DiskDeletion>,
    /// Bytes that come back when the trash is emptied (or at once on request): images and saved memory.
    pub frees: ByteCount,
    /// The merges that become due, added up.
    pub merges: MergeTotal,
    /// Bytes that stay held by other branches.
    pub retained: ByteCount,
    /// Now, before.
    pub before: NodeCost,
    /// Now, once the merges are done.
    pub after: NodeCost,
}

impl DiskDeletion {
    fn of(disk: &DiskId) -> Self {
        Self {
            disk: disk.clone(),
            freed: Vec::new(),
            frees: ByteCount::ZERO,
            merges: Vec::new(),
            retained: Vec::new(),
            uncounted: false,
        }
    }
}

/// What deleting these snapshots leads to; `None` if one of them isn't there.
pub fn deletion_cost(facts: &MachineFacts<'_>, snapshots: &[SnapshotId], subtree: bool) -> Option<DeletionCost> {
    if !snapshots.iter().all(|s| facts.machine.snapshots.contains_key(s)) {
        return None;
    }
    let outcome = deletion_outcome(facts.machine, snapshots, subtree);
    let mut disks: BTreeMap<&DiskId, DiskDeletion> = BTreeMap::new();
    for image in &outcome.images {
        let disk = disks.entry(&image.disk).or_insert_with(|| DiskDeletion::of(&image.disk));
        let held = facts.held(image.image);
        match &image.fate {
            Fate::FreesNow => {
                disk.freed.push(image.image);
                disk.frees += held;
            }
            Fate::Merges(_) => {}
            Fate::FreesNothing(by) => disk.retained.push(RetainedImage { image: image.image, held, by: by.clone() }),
        }
    }
    for run in &outcome.runs {
        let disk = disks.entry(&run.disk).or_insert_with(|| DiskDeletion::of(&run.disk));
        match merge_cost(facts, &run.disk, &run.images) {
            Some(cost) => disk.merges.push(cost),
            None => disk.uncounted = true,
        }
    }
    let disks: Vec<DiskDeletion> = disks.into_values().collect();
    let merges: Vec<MergeCost> = disks.iter().flat_map(|d| d.merges.iter().cloned()).collect();
    let memory: ByteCount = outcome.memory.iter().map(|m| m.held).sum();

    // Afterwards, everything that is due is merged, whether it was due before or because of this.
    let mut merged: Vec<Vec<ImageId>> = outcome.runs.iter().map(|r| r.images.clone()).collect();
    for run in Tree::of(facts.machine).runs() {
        if !merged.iter().any(|m| m.iter().any(|i| run.images.contains(i))) {
            merged.push(run.images);
        }
    }
    Some(DeletionCost {
        snapshots: outcome.snapshots,
        frees: disks.iter().map(|d| d.frees).sum::<ByteCount>() + memory,
        merges: MergeTotal::of(facts, &merges),
        retained: disks.iter().flat_map(|d| &d.retained).map(|r| r.held).sum(),
        before: node_cost(facts, NodeRef::Now, &[]).unwrap_or_default(),
        after: node_cost(facts, NodeRef::Now, &merged).unwrap_or_default(),
        disks,
    })
}

/// A snapshot that is safe to delete right now: nothing reads through it, so that no merge is needed, no other branch
/// holds anything of it, and until the trash is emptied it can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SafeDeletion {
    /// Which.
    pub snapshot: SnapshotId,
    /// Bytes that come back.
    pub frees: ByteCount,
}

/// The snapshots that are safe to delete right now, each for itself, what frees most first; protected ones aren't among
/// them.
pub fn safe_to_delete(facts: &MachineFacts<'_>) -> Vec<SafeDeletion> {
    let open = facts.machine.snapshots.iter().filter(|(_, snapshot)| !snapshot.protected);
    let mut safe: Vec<SafeDeletion> = open
        .filter_map(|(id, _)| {
            let cost = deletion_cost(facts, &[*id], false)?;
            let frees_all = cost.disks.iter().all(|disk| disk.merges.is_empty() && disk.retained.is_empty() && !disk.uncounted);
            (frees_all && cost.frees > ByteCount::ZERO).then_some(SafeDeletion { snapshot: *id, frees: cost.frees })
        })
        .collect();
    safe.sort_by_key(|deletion| (std::cmp::Reverse(deletion.frees), deletion.snapshot));
    safe
}
