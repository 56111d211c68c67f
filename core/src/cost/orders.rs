//! What the same merge would move in other orders.

use serde::{Deserialize, Serialize};

use super::Census;
use crate::snapshot::ImageId;
use crate::units::{ByteCount, ByteRate};

/// Data bytes that merging one run moves, by the order in which it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeOrders {
    /// Each image into the one below, from the top down: what was moved once moves again.
    pub newest_first: ByteCount,
    /// Each image into the base, from the bottom up: what is hidden later moves too.
    pub oldest_first: ByteCount,
    /// All at once into the best target.
    pub one_pass: ByteCount,
    /// Virtual size of the disk, which the figures belong to.
    pub disk_size: ByteCount,
}

impl MergeOrders {
    /// The same shares on a disk of another size.
    pub fn scaled_to(&self, disk_size: ByteCount) -> Self {
        let _ = disk_size;
        todo!()
    }

    /// Seconds at a rate: newest first, oldest first, one pass.
    pub fn seconds_at(&self, rate: ByteRate) -> [f64; 3] {
        let _ = rate;
        todo!()
    }
}

/// The orders of a run (bottom to top); any chain may be asked for, as if all its snapshots were deleted.
pub fn merge_orders(census: &Census, run: &[ImageId]) -> Option<MergeOrders> {
    let _ = (census, run);
    todo!()
}
