//! The core: moves a run of open images into one of them, in bounded steps, knowing nothing of machines.
//! Under a running machine the chain lends the run ([`LiveRun`]), and [`super::live`] copies what is written meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::batch::Batch;
use super::shadowed::Shadowed;
use super::survey::{nothing_left, remaining};
use super::together::together;
use super::transfer::transfer;
use super::{MergeError, Result, Rule, Rules};
use crate::chain::LiveRun;
use crate::disk::{DiskError, Image, ImageType, Presence, Released};
use crate::units::ByteCount;

/// Where a merge stands. Every number only grows; what is counted is durable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Data bytes moved by this execution.
    pub moved: ByteCount,
    /// Data bytes that were to be moved when this execution began; exact.
    pub total: ByteCount,
    /// Bytes made zero by this execution.
    pub zeroed: ByteCount,
    /// Separate stretches written by this execution.
    pub stretches: u64,
    /// Bytes given back to the volume so far.
    pub given_back: ByteCount,
}

/// With so much to move, the images are worked on side by side.
pub(super) const AT_ONCE_FROM: ByteCount = ByteCount::mib(16);

#[derive(Debug)]
enum Phase {
    Identifiers,
    Sizes,
    Shadowed(Shadowed),
    /// Everything before this offset is done.
    Copy(u64),
    Copied,
}

/// A run of open images that is being moved into one of them. What the topmost image shows is the same
/// at every instant, durable or not, and other programs can open the chain between any two steps.
#[derive(Debug)]
pub struct RunMerge {
    pub(super) images: Vec<Arc<dyn Image>>,
    pub(super) target: usize,
    new_ids: Vec<Uuid>,
    pub(super) rules: Rules,
    /// The top's size in bytes: what is moved.
    pub(super) size: u64,
    /// The largest block of the run: batches end at such a block's end where they can.
    pub(super) unit: u64,
    phase: Phase,
    pub(super) progress: Progress,
    pub(super) buffers: Vec<Vec<u8>>,
    /// The chain that a machine uses meanwhile.
    pub(super) live: Option<LiveRun>,
    /// Whether several images are worked on side by side: where there is much to move, and nobody else uses them.
    at_once: bool,
    /// Whether the place of what is marked is given back at once.
    punches: bool,
}

impl RunMerge {
    /// For X1..Xk, bottom to top, all open for writing and by nobody else. `new_ids` are the new data-write
    /// identifiers of X1..X(k-1); after an interruption they must be the same again.
    pub fn new(images: Vec<Arc<dyn Image>>, target: usize, new_ids: Vec<Uuid>, rules: Rules) -> Result<Self> {
        check(&images, target, &new_ids)?;
        let info = images[images.len() - 1].info();
        let unit = images.iter().map(|image| image.info().block_size.0).max().unwrap_or(1);
        let size = info.virtual_size.0;
        let total = remaining(&images, size, target, rules)?.data;
        let progress = Progress { total, ..Progress::default() };
        let (phase, buffers) = (Phase::Identifiers, Vec::new());
        let at_once = total >= AT_ONCE_FROM;
        Ok(Self { images, target, new_ids, rules, size, unit, phase, progress, buffers, live: None, at_once, punches: true })
    }

    /// The same while a machine reads and writes through the run's chain. `target` is an index in the run.
    pub fn live(run: LiveRun, target: usize, new_ids: Vec<Uuid>, rules: Rules) -> Result<Self> {
        let merge = Self::new(run.images(), target, new_ids, rules)?;
        Ok(Self { live: Some(run), at_once: false, ..merge })
    }

    /// Whether the machine writes to the run itself.
    pub(super) fn is_written(&self) -> bool {
        self.live.as_ref().is_some_and(LiveRun::is_written)
    }

    /// Ends before the switch, and lends the images no longer.
    pub fn end(self) -> Result<()> {
        Ok(self.live.map_or(Ok(()), LiveRun::end)?)
    }

    /// Where it stands.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The images, bottom to top.
    pub(super) fn images(&self) -> &[Arc<dyn Image>] {
        &self.images
    }

    /// Does a bounded part of the work; at most about `budget` data bytes are moved, durably, and their old
    /// place is given back. `false` when nothing is left to do before the switch.
    pub fn step(&mut self, budget: ByteCount) -> Result<bool> {
        self.phase = match &mut self.phase {
            Phase::Identifiers => {
                self.flush_all()?;
                self.renew_identifiers()?;
                Phase::Sizes
            }
            Phase::Sizes => {
                self.grow()?;
                Phase::Shadowed(Shadowed::new(&self.images, self.target, self.size))
            }
            Phase::Shadowed(shadowed) => {
                let hidden = shadowed.step(&self.images, self.rules)?;
                let ended = shadowed.ended();
                self.drop_hidden(&hidden)?;
                if !ended {
                    return Ok(true);
                }
                if let Some(live) = &mut self.live {
                    live.route();
                }
                if self.is_written() {
                    // From now on the machine adds nothing to it.
                    self.progress.total = remaining(&self.images, self.size, self.target, self.rules)?.data;
                }
                Phase::Copy(0)
            }
            Phase::Copy(from) if *from >= self.size => Phase::Copied,
            Phase::Copy(from) => {
                let from = *from;
                Phase::Copy(self.batch(from, budget)?)
            }
            Phase::Copied => return Ok(false),
        };
        Ok(!matches!(self.phase, Phase::Copied))
    }

    /// Whether the target shows all that the run shows. Where it doesn't, the next step copies again.
    pub fn look_again(&mut self) -> Result<bool> {
        if !self.rules.keep(Rule::LookAgain) {
            return Ok(true);
        }
        let done = nothing_left(&self.images, self.size, self.target, self.rules)?;
        if !done && matches!(self.phase, Phase::Copied) {
            self.phase = Phase::Copy(0);
        }
        Ok(done)
    }

    /// What a killed process may have left unflushed becomes durable; and what this opening writes
    /// doesn't renew an identifier on its own.
    fn flush_all(&self) -> Result<()> {
        self.for_each(0..self.images.len(), |image| {
            let image = &self.images[image];
            image.flush()?;
            Ok(image.set_data_write_id(image.info().data_write_id)?)
        })
    }

    fn for_each(&self, images: impl IntoIterator<Item = usize>, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
        together(images, self.at_once, work).map(drop)
    }

    /// X1..X(k-1) get new identifiers, so that strays in backups no longer match. Each child learns the new
    /// one first and accepts the old one too, then the parents change, then the old ones are forgotten: a reader
    /// of `parent_linkage` alone is wrong only between the first two. Where a child has no room for a second one, it is
    /// the parent that remembers the old one, until the children have the new one: such a reader is wrong between these.
    fn renew_identifiers(&self) -> Result<()> {
        let new_id = |parent: usize| self.new_ids[parent];
        let old_id = |parent: usize| self.images[parent].info().data_write_id;
        let parents = 0..self.new_ids.len();
        if !self.rules.keep(Rule::Identifiers) {
            return self.for_each(parents, |parent| {
                self.images[parent].set_data_write_id(new_id(parent))?;
                Ok(self.images[parent + 1].set_linkage(new_id(parent), None)?)
            });
        }
        let changed: Vec<usize> = parents.clone().filter(|parent| old_id(*parent) != new_id(*parent)).collect();
        self.for_each(changed.clone(), |parent| Ok(self.images[parent + 1].set_linkage(new_id(parent), Some(old_id(parent)))?))?;
        self.for_each(changed, |parent| Ok(self.images[parent].set_data_write_id(new_id(parent))?))?;
        self.for_each(parents.clone(), |parent| {
            let child = &self.images[parent + 1];
            let link = child.info().parent;
            if link.is_none_or(|link| link.linkage != new_id(parent) || link.linkage2.is_some()) {
                child.set_linkage(new_id(parent), None)?;
            }
            Ok(())
        })?;
        self.for_each(parents, |parent| Ok(self.images[parent].forget_former_id()?))
    }

    /// What lies beyond the end of an image between the target and the top would hide what the target gets
    /// there. Images below the target keep their size: the target's explicit zeros hide theirs.
    fn grow(&self) -> Result<()> {
        if !self.rules.keep(Rule::Sizes) {
            return Ok(());
        }
        for image in &self.images[self.target..] {
            if image.info().virtual_size.0 < self.size {
                image.grow(ByteCount(self.size))?;
                image.flush()?;
            }
        }
        Ok(())
    }

    /// Per image, what nothing shows: its place comes back without copying.
    fn drop_hidden(&mut self, hidden: &[Vec<(u64, u64)>]) -> Result<()> {
        let places: Vec<usize> = (0..hidden.len()).filter(|place| !hidden[*place].is_empty()).collect();
        if places.is_empty() {
            return Ok(());
        }
        self.live.as_ref().map_or(Ok(()), LiveRun::flush_top)?;
        let given_back = together(places, self.at_once, |place| {
            let released = self.images[place].release(&hidden[place])?;
            self.images[place].flush()?;
            self.punch(place, released)
        })?;
        self.progress.given_back += given_back.into_iter().map(|(_, given_back)| given_back).sum();
        Ok(())
    }

    fn batch(&mut self, from: u64, budget: ByteCount) -> Result<u64> {
        if self.is_written() {
            return self.live_batch(from, budget);
        }
        let batch = Batch::gather(&self.images, self.target, (from, self.size), budget.0, self.unit, self.rules)?;
        let target = &self.images[self.target];
        if batch.moves.iter().any(|step| !step.done) {
            transfer(&self.images, self.target, &batch.moves, &mut self.buffers)?;
            if self.rules.keep(Rule::TargetFlush) {
                target.flush()?;
            }
        }
        // The switch removes the sources: what it leaves of them needn't come back before.
        self.punches = batch.end < self.size || self.live.is_some();
        self.mark_above(&batch)?;
        if !batch.moves.is_empty() {
            self.mark_below(from, batch.end)?;
        }
        self.progress.moved += ByteCount(batch.data());
        self.progress.zeroed += ByteCount(batch.zeros());
        self.progress.stretches += batch.stretches();
        Ok(batch.end)
    }

    /// What hides marks of another image is marked after that one's are durable, so that the newest owner goes last.
    fn mark_above(&mut self, batch: &Batch) -> Result<()> {
        let mut rounds = batch.rounds();
        if !self.rules.keep(Rule::ShadowFirst) {
            rounds.reverse();
        }
        rounds.into_iter().try_for_each(|round| self.mark_all(&round, &batch.marks))
    }

    /// Marks that don't depend on one another, per image; durable when it returns.
    fn mark_all(&mut self, images: &[usize], marks: &[Vec<(u64, u64)>]) -> Result<()> {
        let marked = images.iter().copied().filter(|image| !marks[*image].is_empty());
        let given_back = together(marked, self.at_once, |image| self.mark_image(image, &marks[image]))?;
        self.progress.given_back += given_back.into_iter().map(|(_, given_back)| given_back).sum();
        Ok(())
    }

    /// Below, marks only give space back: all that an image below holds up to `to`, the target has.
    /// A block that the batch ends in goes with the batch that ends it, for images that know only whole blocks.
    pub(super) fn mark_below(&mut self, from: u64, to: u64) -> Result<()> {
        let mut marks = vec![Vec::new(); self.images.len()];
        for (image, marks) in marks.iter_mut().enumerate().take(self.target) {
            let info = self.images[image].info();
            let block = info.block_size.0.max(1);
            let end = if to == self.size { info.virtual_size.0 } else { (to - to % block).min(info.virtual_size.0) };
            let start = (from - from % block).min(end);
            if info.kind == ImageType::Fixed || start == end {
                continue;
            }
            let held = self.images[image].extents(start, end - start)?;
            for extent in held.iter().filter(|extent| extent.presence != Presence::Absent) {
                super::batch::join(marks, extent.offset, extent.length);
            }
        }
        self.mark_all(&(0..self.target).collect::<Vec<_>>(), &marks)
    }

    pub(super) fn mark(&mut self, image: usize, stretches: &[(u64, u64)]) -> Result<()> {
        if !stretches.is_empty() {
            self.progress.given_back += self.mark_image(image, stretches)?;
        }
        Ok(())
    }

    /// Marks stretches of one image durably, then gives their place back; returns how much came back.
    fn mark_image(&self, image: usize, stretches: &[(u64, u64)]) -> Result<ByteCount> {
        if !self.rules.keep(Rule::PunchAfterMark) {
            self.punch_early(image, stretches)?;
        }
        let released = match &self.live {
            Some(live) => live.release(image, stretches)?,
            None => self.images[image].release(stretches)?,
        };
        self.images[image].flush()?;
        for (offset, length) in stretches {
            self.live.iter().for_each(|live| live.moved(*offset, *length));
        }
        self.punch(image, released)
    }

    /// The mark is durable. A read that may still hold the old place is done again.
    fn punch(&self, image: usize, released: Released) -> Result<ByteCount> {
        if !self.punches {
            return Ok(ByteCount::ZERO);
        }
        self.live.iter().for_each(LiveRun::readers_settled);
        Ok(self.images[image].punch(released)?)
    }

    /// The same, counted.
    pub(super) fn give_back(&mut self, image: usize, released: Released) -> Result<()> {
        self.progress.given_back += self.punch(image, released)?;
        Ok(())
    }

    /// What a merge without [`Rule::PunchAfterMark`] would do; for the test that this is caught.
    fn punch_early(&self, image: usize, stretches: &[(u64, u64)]) -> Result<()> {
        let mut host_ranges = Vec::new();
        for (offset, length) in stretches {
            for extent in self.images[image].extents(*offset, *length)? {
                if let Presence::Data { host_offset } = extent.presence {
                    host_ranges.push((host_offset, extent.length));
                }
            }
        }
        self.images[image].punch(Released { host_ranges })?;
        Ok(())
    }
}

fn check(images: &[Arc<dyn Image>], target: usize, new_ids: &[Uuid]) -> Result<()> {
    let Some(first) = images.first().filter(|_| images.len() > 1 && target < images.len() && new_ids.len() + 1 == images.len())
    else {
        return Err(MergeError::Refused("a run has two images or more, and its target is one of them".into()));
    };
    let sector = first.info().logical_sector_size;
    for (place, image) in images.iter().enumerate() {
        let info = image.info();
        let problem = if info.logical_sector_size != sector {
            format!("has sectors of {} bytes, {} are needed: such chains can't be merged", info.logical_sector_size, sector)
        } else if place > 0 && info.kind != ImageType::Differencing {
            "has no parent, and stands above another image of the run".into()
        } else if !image.is_writable() {
            "isn't open for writing".into()
        } else {
            continue;
        };
        return Err(DiskError::refused(&image.path(), problem).into());
    }
    let ids: BTreeSet<_> = new_ids.iter().collect();
    if ids.len() != new_ids.len() {
        return Err(MergeError::Refused("two images would get the same identifier".into()));
    }
    Ok(())
}
