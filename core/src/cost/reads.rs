//! What a chain costs to read and to write.

use serde::{Deserialize, Serialize};

use super::Census;
use crate::snapshot::ImageId;
use crate::units::ByteCount;

/// What one chain costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReadCost {
    /// Images in the chain.
    pub depth: u32,
    /// Images that a plain stack consults per read, from the leaf down to the owner: mean over
    /// the bytes that some image holds as data. With no data at all it is the depth.
    pub mean: f64,
    /// The same, 95th percentile.
    pub p95: u32,
    /// Bytes of the disk that some image of the chain holds as data, visible from the leaf.
    pub allocated: ByteCount,
    /// Share of the disk (0 to 1) whose first write must allocate in the leaf: what the leaf doesn't hold as data
    /// (by sectors; blocks that are there in part count in part).
    pub first_write: f64,
}

impl Census {
    /// What the chain behind `leaf` costs. `None` if the census doesn't know it.
    pub fn read_cost(&self, leaf: ImageId) -> Option<ReadCost> {
        self.read_cost_after(leaf, &[])
    }

    /// The same once these runs (each bottom to top) are one image each.
    pub fn read_cost_after(&self, leaf: ImageId, merged: &[Vec<ImageId>]) -> Option<ReadCost> {
        let _ = (leaf, merged);
        todo!()
    }
}
