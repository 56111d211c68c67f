//! What a node of the tree holds and costs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MachineFacts, ReadCost};
use crate::snapshot::{DiskId, ImageId, SnapshotId};
use crate::units::ByteCount;

/// A row of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Node {
    /// A snapshot, or the ghost of one.
    Snapshot(SnapshotId),
    /// The current state.
    Now,
}

/// What a node holds and costs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeCost {
    /// Bytes that its own files take: its images and its saved memory.
    pub held: ByteCount,
    /// The deepest chain among its disks.
    pub depth: u32,
    /// Images that a plain stack consults per read, mean over all disks' data; `None` while being counted.
    pub read_mean: Option<f64>,
    /// 95th percentile of the worst disk; `None` while being counted.
    pub read_p95: Option<u32>,
    /// Share (0 to 1) of the disks whose first write must allocate; `None` while being counted.
    pub first_write: Option<f64>,
    /// Disk by disk, as far as they are counted.
    pub disks: BTreeMap<DiskId, ReadCost>,
}

/// What a node holds and costs; with `merged`, once these runs are one image each. `None` for a node that isn't there.
pub fn node_cost(facts: &MachineFacts<'_>, node: Node, merged: &[Vec<ImageId>]) -> Option<NodeCost> {
    let _ = (facts, node, merged);
    todo!()
}
