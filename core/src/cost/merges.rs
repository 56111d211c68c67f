//! What a merge would move, need and give back.

use serde::{Deserialize, Serialize};

use super::census::Owned;
use super::{Census, Estimate, HeldAs, MachineFacts, MergeLoad, MergeWork};
use crate::disk::ImageType;
use crate::snapshot::{DiskId, ImageId, Tree};
use crate::units::ByteCount;

/// Data that a merge copies before it marks and gives back, where enough is free.
pub const BATCH: ByteCount = ByteCount::mib(256);

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
    /// How long it would take with the machine stopped: what is more is because of the guest.
    #[serde(default)]
    pub idle_time: Option<Estimate>,
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
        let estimate = |load| facts.calibration.estimate(work, load).filter(|_| !merges.is_empty());
        (total.time, total.idle_time) = (estimate(facts.load()), estimate(MergeLoad::Stopped));
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

/// Free space that a merge needs before it starts to give space back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scratch {
    /// How much, at most.
    pub bytes: ByteCount,
    /// Data that is copied before its old place is given back: the most that fits.
    pub batch: ByteCount,
}

/// Batches, the largest first; where little is free, a smaller one does.
pub const BATCHES: [ByteCount; 4] = [BATCH, ByteCount::mib(64), ByteCount::mib(16), ByteCount::mib(4)];
/// Space that is given out, and comes back, together.
const PAGE: u64 = 4096;
/// Zeros shorter than this are written.
const SHORT_ZEROS: u64 = 64 << 10;
/// What the log, the side file and the tables of one image take on the way, at least and at most.
const TABLES: (ByteCount, ByteCount) = (ByteCount::kib(512), ByteCount::mib(4));

/// Free space that merging a run into `target` needs, at most.
///
/// Where the sources give space back early that is a batch, or what is copied until a block ends that is given back
/// only whole. What they never give back comes on top: all that moves from a fixed image, or from any where holes can't be
/// punched, and what moves from holes, which are data to a reader and take no space. It is never more than the
/// target grows; but that, too, grows where it holds holes. Pages that are shared by several stretches, and tables, come
/// on top. `None` if the census doesn't know the run.
pub fn scratch(facts: &MachineFacts<'_>, census: &Census, run: &[ImageId], target: ImageId) -> Option<Scratch> {
    let path = census.path_of(run)?;
    let place = run.iter().position(|image| *image == target)?;
    let (bytes, punches) = (census.bytes_into(&path, place), facts.volume.punches_holes);
    // What a reader takes for data and takes no space, at most; a file's own tables may take a part of what is held.
    let held_data = |place: usize| ByteCount(census.held_data(path[place]));
    let holes = |place: usize| (held_data(place) + TABLES.1).saturating_sub(facts.held(run[place]));
    let owned = census.owned(&path);
    let zeros = written_zeros(facts, &owned, &bytes, run, place);
    let written = if punches { zeros } else { zeros + filled(facts, census, &path, run, place) };
    let growth = bytes.growth + holes(place).min(bytes.data.saturating_sub(bytes.growth)) + written;
    let (mut never, mut block) = (written, ByteCount::ZERO);
    for (index, owned) in owned.into_iter().enumerate() {
        let data = ByteCount(owned.data());
        if index == place || data == ByteCount::ZERO {
            continue;
        }
        let Some(file) = facts.files.get(&run[index]).filter(|file| punches && file.kind != ImageType::Fixed) else {
            never += data;
            continue;
        };
        if held_data(index) > facts.held(run[index]) {
            never += holes(index).min(data);
        }
        // From below the target, and from a base, whole blocks come back.
        if index < place || file.kind != ImageType::Differencing {
            block = block.max(file.block_size);
        }
    }
    let shared = ByteCount((2 * PAGE).saturating_mul(bytes.stretches).min(bytes.data.0.saturating_mul(7)));
    let tables = ByteCount(bytes.stretches.saturating_mul(4 * PAGE).min(TABLES.1.0 * run.len() as u64));
    let beside = shared + tables + ByteCount(TABLES.0.0 * run.len() as u64);
    let with = |batch: ByteCount| Scratch { bytes: (batch + block + never).min(growth) + beside, batch };
    let fits = BATCHES.into_iter().map(with).find(|scratch| scratch.bytes <= facts.volume.free);
    Some(fits.unwrap_or_else(|| with(BATCHES[BATCHES.len() - 1])))
}

/// Zeros that take space in the target: all where they can't be holes (its own too, when their block gets data),
/// otherwise those of short stretches.
fn written_zeros(facts: &MachineFacts<'_>, owned: &[Owned], bytes: &MergeBytes, run: &[ImageId], place: usize) -> ByteCount {
    let fixed = facts.files.get(&run[place]).is_none_or(|file| file.kind == ImageType::Fixed);
    if !facts.volume.punches_holes {
        let beyond = if place + 1 == owned.len() { 0 } else { owned[place].beyond() };
        return bytes.zero + ByteCount(owned[place].zero() + beyond);
    }
    if fixed {
        return bytes.zero;
    }
    let others = owned.iter().enumerate().filter(|(index, _)| *index != place);
    let stretches: f64 = others.map(|(_, owned)| owned.stretches[HeldAs::Zero as usize]).sum();
    ByteCount(SHORT_ZEROS.saturating_mul(stretches.ceil() as u64)).min(bytes.zero)
}

/// Zeros that are written into the blocks of a target that becomes a base, where no holes can be punched.
fn filled(facts: &MachineFacts<'_>, census: &Census, path: &[u32], run: &[ImageId], place: usize) -> ByteCount {
    let becomes_base = place > 0 && facts.machine.images.get(&run[0]).is_none_or(|image| image.parent.is_none());
    let Some(file) = facts.files.get(&run[place]).filter(|_| becomes_base) else { return ByteCount::ZERO };
    let stretches: u64 = path.iter().flat_map(|image| census.holdings(*image)).map(|held| held.stretches).sum();
    let absent = file.virtual_size.saturating_sub(census.bytes_into(path, place).union);
    ByteCount(file.block_size.0.saturating_mul(2 * stretches)).min(absent)
}

/// What merging a run would take, into the best target, or that of a merge that has started. `None` while the disk isn't counted yet.
pub fn merge_cost(facts: &MachineFacts<'_>, disk: &DiskId, run: &[ImageId]) -> Option<MergeCost> {
    let started: Vec<ImageId> = facts.machine.merges.iter().filter(|m| m.disk == *disk).map(|m| m.target).collect();
    // What fits comes first, then what has started, then what moves least.
    let rank = |m: &MergeCost| (!m.fits, !started.contains(&m.target), m.bytes.data, m.bytes.zero, m.scratch);
    merge_costs(facts, disk, run).into_iter().min_by_key(rank)
}

/// What merging a run (bottom to top) would take into each image that may be the target, bottom to top; none if the disk
/// isn't counted yet.
pub fn merge_costs(facts: &MachineFacts<'_>, disk: &DiskId, run: &[ImageId]) -> Vec<MergeCost> {
    let Some(census) = facts.census.get(disk) else { return Vec::new() };
    let load = facts.load();
    let costs = run.iter().enumerate().filter(|(place, _)| facts.may_be_target(run, *place)).filter_map(|(_, &target)| {
        let bytes = census.merge_bytes(run, target)?;
        let scratch = scratch(facts, census, run, target)?.bytes;
        let sources: ByteCount = run.iter().filter(|i| **i != target).map(|i| facts.held(*i)).sum();
        Some(MergeCost {
            disk: disk.clone(),
            run: run.to_vec(),
            target,
            bytes,
            scratch,
            fits: scratch <= facts.volume.free,
            comes_back: sources.saturating_sub(bytes.growth),
            time: facts.calibration.estimate(bytes.work(), load),
        })
    });
    costs.collect()
}

/// The merges that are due now (disks that aren't counted yet are left out).
pub fn merges_due(facts: &MachineFacts<'_>) -> Vec<MergeCost> {
    let runs = Tree::of(facts.machine).runs();
    runs.iter().filter_map(|run| merge_cost(facts, &run.disk, &run.images)).collect()
}
