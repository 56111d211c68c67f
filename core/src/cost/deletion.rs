//! What a deletion leads to, in bytes and minutes, before it happens.

use serde::{Deserialize, Serialize};

use super::{MachineFacts, MergeCost, MergeTotal, Node, NodeCost};
use crate::snapshot::{DiskId, ImageId, SnapshotId};
use crate::units::ByteCount;

/// An image that stays although no node is it any longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedImage {
    /// Which.
    pub image: ImageId,
    /// Bytes that its file takes.
    pub held: ByteCount,
    /// The nodes whose branches hold it.
    pub by: Vec<Node>,
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

/// What deleting these snapshots leads to; `None` if one of them isn't there.
pub fn deletion_cost(facts: &MachineFacts<'_>, snapshots: &[SnapshotId], subtree: bool) -> Option<DeletionCost> {
    let _ = (facts, snapshots, subtree);
    todo!()
}
