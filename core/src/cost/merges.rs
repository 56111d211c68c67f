//! What a merge would move, need and give back.

use serde::{Deserialize, Serialize};

use super::{Census, Estimate, MachineFacts, MergeWork};
use crate::snapshot::{DiskId, ImageId};
use crate::units::ByteCount;

/// Data that a merge copies before it marks and gives back: its scratch where holes can be punched.
pub const BATCH: ByteCount = ByteCount::mib(64);

/// The exact bytes of merging a run into one target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeBytes {
    /// Data bytes to move: owned by another image than the target.
    pub data: ByteCount,
    /// Bytes to make zero in the target: explicit zeros (or what lies beyond a lower image's end) owned by another image.
    pub zero: ByteCount,
    /// Bytes of the disk that the run holds as data, each counted once.
    pub union: ByteCount,
    /// Data bytes in images of the run that a newer image of the run hides: they come back without copying.
    pub shadowed: ByteCount,
    /// Bytes that the target newly has to hold as data (about: allocation is by blocks).
    pub growth: ByteCount,
    /// Separate stretches to move (about: neighbours of different owners are counted apart).
    pub stretches: u64,
}

/// A merge that is due, or would be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MergeCost {
    /// The disk.
    pub disk: DiskId,
    /// X1..Xk, bottom to top.
    pub run: Vec<ImageId>,
    /// The image that all moves into: the one that moves fewest bytes among those whose scratch fits.
    pub target: ImageId,
    /// What moves.
    pub bytes: MergeBytes,
    /// Free space that it needs before it starts to give space back.
    pub scratch: ByteCount,
    /// Whether the scratch fits in the volume's free space.
    pub fits: bool,
    /// Bytes that come back at the end (about).
    pub comes_back: ByteCount,
    /// How long it takes, where anything is known.
    pub time: Option<Estimate>,
}

/// Several merges, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct MergeTotal {
    /// How many.
    pub merges: u64,
    /// Data bytes to move.
    pub data: ByteCount,
    /// Bytes to make zero.
    pub zero: ByteCount,
    /// The largest scratch: they run one after the other.
    pub scratch: ByteCount,
    /// Bytes that come back.
    pub comes_back: ByteCount,
    /// How long it takes.
    pub time: Option<Estimate>,
}

impl MergeBytes {
    /// What the estimate needs of it.
    pub fn work(&self) -> MergeWork {
        MergeWork { bytes: self.data.0, stretches: self.stretches, merges: 1 }
    }
}

impl MergeTotal {
    /// Adds merges up.
    pub fn of(facts: &MachineFacts<'_>, merges: &[MergeCost]) -> Self {
        let _ = (facts, merges);
        todo!()
    }
}

impl Census {
    /// The exact bytes of merging a run (bottom to top, each reading through the one before) into one of its
    /// images. `None` if the census doesn't know the run.
    pub fn merge_bytes(&self, run: &[ImageId], target: ImageId) -> Option<MergeBytes> {
        let _ = (run, target);
        todo!()
    }
}

/// The scratch of moving `bytes` into `target`: about one batch where the sources give space back early,
/// otherwise what they don't. A fixed source gives nothing back, nor does any where holes can't be punched.
pub fn scratch(facts: &MachineFacts<'_>, census: &Census, run: &[ImageId], target: ImageId) -> Option<ByteCount> {
    let _ = (facts, census, run, target);
    todo!()
}

/// What merging a run would take, into the best target. `None` while the disk isn't counted yet.
pub fn merge_cost(facts: &MachineFacts<'_>, disk: &DiskId, run: &[ImageId]) -> Option<MergeCost> {
    let _ = (facts, disk, run);
    todo!()
}

/// The merges that are due now (disks that aren't counted yet are left out).
pub fn merges_due(facts: &MachineFacts<'_>) -> Vec<MergeCost> {
    let _ = facts;
    todo!()
}
