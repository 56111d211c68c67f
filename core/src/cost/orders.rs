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
        let scale =
            |bytes: ByteCount| ByteCount((bytes.0 as f64 * disk_size.0 as f64 / self.disk_size.0.max(1) as f64).round() as u64);
        Self {
            newest_first: scale(self.newest_first),
            oldest_first: scale(self.oldest_first),
            one_pass: scale(self.one_pass),
            disk_size,
        }
    }

    /// Seconds at a rate: newest first, oldest first, one pass.
    pub fn seconds_at(&self, rate: ByteRate) -> [f64; 3] {
        [self.newest_first, self.oldest_first, self.one_pass].map(|bytes| bytes.0 as f64 / rate.0)
    }
}

/// The orders of a run (bottom to top); any chain may be asked for, as if all its snapshots were deleted.
pub fn merge_orders(census: &Census, run: &[ImageId]) -> Option<MergeOrders> {
    let path = census.path_of(run)?;
    let union = |from: usize| census.owned(&path[from..]).iter().map(|o| o.data()).sum::<u64>();
    let one_pass = run.iter().filter_map(|target| census.merge_bytes(run, *target)).map(|b| b.data).min()?;
    Some(MergeOrders {
        newest_first: ByteCount((1..path.len()).map(union).sum()),
        oldest_first: ByteCount(path.iter().skip(1).map(|i| census.held_data(*i)).sum()),
        one_pass,
        disk_size: ByteCount(census.sizes[*path.last()? as usize]),
    })
}
