//! What a merge would move, need and give back.

use serde::{Deserialize, Serialize};

use super::{Census, Estimate, HeldAs, MachineFacts, MergeWork};
use crate::disk::ImageType;
use crate::snapshot::{DiskId, ImageId, Tree};
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
        let mut total = Self::default();
        let mut work = MergeWork::default();
        for merge in merges {
            total.merges += 1;
            total.data += merge.bytes.data;
            total.zero += merge.bytes.zero;
            total.scratch = total.scratch.max(merge.scratch);
            total.comes_back += merge.comes_back;
            work = work + merge.bytes.work();
        }
        total.time = if merges.is_empty() { None } else { facts.calibration.estimate(work) };
        total
    }
}

impl Census {
    /// The exact bytes of merging a run (bottom to top, each reading through the one before) into one of its
    /// images. `None` if the census doesn't know the run.
    pub fn merge_bytes(&self, run: &[ImageId], target: ImageId) -> Option<MergeBytes> {
        let path = self.path_of(run)?;
        Some(self.bytes_into(&path, run.iter().position(|i| *i == target)?))
    }

    /// The bytes of merging a path into the image at this place of it.
    fn bytes_into(&self, path: &[u32], target: usize) -> MergeBytes {
        let owned = self.owned(path);
        let top = owned.len() - 1;
        let mut bytes = MergeBytes::default();
        let mut stretches = 0.0;
        let mut held = 0;
        for (place, o) in owned.iter().enumerate() {
            held += self.held_data(path[place]);
            bytes.union.0 += o.data();
            if place != target {
                bytes.data.0 += o.data();
                // What lies beyond the top's end is cut off; beyond another's end the disk was grown since.
                bytes.zero.0 += o.zero() + if place == top { 0 } else { o.beyond() };
                stretches += o.stretches[HeldAs::Data as usize];
            }
        }
        bytes.stretches = stretches.round() as u64;
        bytes.shadowed = ByteCount(held).saturating_sub(bytes.union);
        bytes.growth = bytes.union.saturating_sub(ByteCount(self.held_data(path[target])));
        bytes
    }
}

/// Free space that merging a run into `target` needs: about one batch (or block) where the sources give space back
/// early, otherwise what they don't. A fixed source gives nothing back, nor does any where holes can't be punched.
/// Never more than the target grows. `None` if the census doesn't know the run.
pub fn scratch(facts: &MachineFacts<'_>, census: &Census, run: &[ImageId], target: ImageId) -> Option<ByteCount> {
    let path = census.path_of(run)?;
    let growth = census.merge_bytes(run, target)?.growth;
    let mut needed = BATCH;
    for (image, owned) in run.iter().zip(census.owned(&path)) {
        if *image == target || owned.data() == 0 {
            continue;
        }
        let file = facts.files.get(image);
        if !facts.volume.punches_holes || file.is_none_or(|f| f.kind == ImageType::Fixed) {
            needed += ByteCount(owned.data());
        } else if let Some(file) = file {
            needed = needed.max(file.block_size);
        }
    }
    Some(needed.min(growth))
}

/// What merging a run would take, into the best target, or that of a merge that has started. `None` while the disk isn't counted yet.
pub fn merge_cost(facts: &MachineFacts<'_>, disk: &DiskId, run: &[ImageId]) -> Option<MergeCost> {
    let census = facts.census.get(disk)?;
    let started: Vec<ImageId> = facts.machine.merges.iter().filter(|m| m.disk == *disk).map(|m| m.target).collect();
    // What fits comes first, then what has started, then what moves least.
    let rank = |m: &MergeCost| (!m.fits, !started.contains(&m.target), m.bytes.data, m.bytes.zero, m.scratch);
    let mut best: Option<MergeCost> = None;
    for (_, &target) in run.iter().enumerate().filter(|(place, _)| facts.may_be_target(run, *place)) {
        let bytes = census.merge_bytes(run, target)?;
        let scratch = scratch(facts, census, run, target)?;
        let sources: ByteCount = run.iter().filter(|i| **i != target).map(|i| facts.held(*i)).sum();
        let cost = MergeCost {
            disk: disk.clone(),
            run: run.to_vec(),
            target,
            bytes,
            scratch,
            fits: scratch <= facts.volume.free,
            comes_back: sources.saturating_sub(bytes.growth),
            time: facts.calibration.estimate(bytes.work()),
        };
        if best.as_ref().is_none_or(|b| rank(&cost) < rank(b)) {
            best = Some(cost);
        }
    }
    best
}

/// The merges that are due now (disks that aren't counted yet are left out).
pub fn merges_due(facts: &MachineFacts<'_>) -> Vec<MergeCost> {
    let runs = Tree::of(facts.machine).runs();
    runs.iter().filter_map(|run| merge_cost(facts, &run.disk, &run.images)).collect()
}
