//! A run of the chain is merged while a machine reads and writes (merge.md, "The guest, meanwhile").
//!
//! The merge goes through the disk in grains. A grain is held while it is copied or marked: no write to it is in
//! flight then. What was copied and not marked yet is the mirrored range: writes there go to both sides, so that the
//! copy stays good and nothing has to be copied twice.
//!
//! ```text
//! held above the target:  in the mirrored range ─> leaf and target        elsewhere ─> leaf
//! held by nothing above:  ─> target, so that nothing is added to what is still to be moved
//! ```
//!
//! Only a run whose top is the leaf needs that; any other one is only read through, and its places may be given up
//! once [`LiveRun::readers_settled`] was called.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::owner_map::{Link, Links};
use super::resolve::{Piece, Place};
use super::{Chain, links};
use crate::disk::{DiskError, Image, Released, Result};
use crate::locks::{lock, lock_alone, lock_shared};
use crate::units::ByteCount;

/// What is copied or marked at a time, in bytes: a write waits for no more than one.
pub const GRAIN: u64 = 256 << 10;

/// Grains share so many locks.
const STRIPES: u64 = 128;

/// What a write waits for, and leaves behind.
#[derive(Debug, Default)]
struct Stripe {
    lock: RwLock<()>,
    written: AtomicBool,
}

/// Where writes go while the run under the leaf is merged.
#[derive(Debug)]
pub(super) struct Routing {
    /// Index of the merge's target in the chain.
    target: usize,
    stripes: Vec<Stripe>,
    mirrored_from: AtomicU64,
    mirrored_to: AtomicU64,
    /// Bytes that went to both sides.
    twice: AtomicU64,
    /// Bytes that the machine has written since it flushed, or since a batch began.
    unflushed: AtomicU64,
    flaw: Flaw,
}

/// A rule that is left out, so that a test can see that it is missed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Flaw {
    /// All rules are kept.
    #[default]
    None,
    /// What was copied isn't mirrored until it is marked.
    Mirror,
    /// A write to a grain while it is copied isn't noticed.
    Notice,
    /// A guest's flush covers the leaf alone.
    FlushAll,
    /// What the guest wrote isn't flushed before what it hides is dropped.
    TopFlush,
    /// A guest's flush doesn't cover marks.
    Marks,
    /// Places are given up while readers may be on their way to them.
    Readers,
}

/// A part of a write with one destination.
struct Part {
    offset: u64,
    length: u64,
    /// Whether an image above the target holds it.
    above: bool,
    mirrored: bool,
    /// Whether every byte stands in the image that it goes to already.
    in_place: bool,
}

/// What is written.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    Bytes(&'a [u8]),
    Zeros,
    /// Zeros, for what nobody needs any more.
    Trimmed,
}

impl Content<'_> {
    pub(super) fn put(self, image: &dyn Image, from: u64, length: u64, offset: u64) -> Result<()> {
        match self {
            Content::Bytes(bytes) => image.write_at(&bytes[from as usize..(from + length) as usize], offset),
            Content::Zeros => image.write_zeroes(offset, length),
            Content::Trimmed => image.trim(offset, length),
        }
    }
}

impl Routing {
    fn new(target: usize, flaw: Flaw) -> Self {
        let stripes = (0..STRIPES).map(|_| Stripe::default()).collect();
        let (mirrored_from, mirrored_to) = (AtomicU64::new(0), AtomicU64::new(0));
        let (twice, unflushed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { target, stripes, mirrored_from, mirrored_to, twice, unflushed, flaw }
    }

    /// All that the machine wrote so far is being flushed.
    pub(super) fn flushed(&self) {
        self.unflushed.store(0, Ordering::Relaxed);
    }

    /// The locks of a range, always in the same order.
    fn stripes(&self, offset: u64, length: u64) -> impl Iterator<Item = &Stripe> {
        let (first, last) = (offset / GRAIN, (offset + length.max(1) - 1) / GRAIN);
        let mut stripes: Vec<u64> = (first..=last).take(STRIPES as usize).map(|grain| grain % STRIPES).collect();
        stripes.sort_unstable();
        stripes.into_iter().map(|stripe| &self.stripes[stripe as usize])
    }

    /// Keeps the merge away from a range, and leaves word that it was written.
    fn share(&self, offset: u64, length: u64) -> Vec<RwLockReadGuard<'_, ()>> {
        let mut guards = Vec::with_capacity(2);
        for stripe in self.stripes(offset, length) {
            guards.push(lock_shared(&stripe.lock));
            stripe.written.store(self.flaw != Flaw::Notice, Ordering::Release);
        }
        guards
    }

    fn mirrored(&self) -> (u64, u64) {
        if self.flaw == Flaw::Mirror {
            return (0, 0);
        }
        (self.mirrored_from.load(Ordering::Acquire), self.mirrored_to.load(Ordering::Acquire))
    }

    fn parts(&self, pieces: &[Piece], leaf: usize) -> Vec<Part> {
        let (from, to) = self.mirrored();
        let mut parts: Vec<Part> = Vec::with_capacity(2);
        for piece in pieces {
            let (owner, data) = match piece.place {
                Place::Data { owner, .. } => (Some(usize::from(owner)), true),
                Place::Zero { owner } => (Some(usize::from(owner)), false),
                Place::Nobody | Place::Unknown => (None, false),
            };
            let above = owner.is_some_and(|owner| owner > self.target);
            let in_place = data && owner == Some(if above { leaf } else { self.target });
            let mut at = piece.offset;
            while at < piece.end() {
                let mirrored = above && (from..to).contains(&at);
                let until = [from, to].into_iter().find(|bound| *bound > at).unwrap_or(u64::MAX).min(piece.end());
                match parts.last_mut() {
                    Some(last) if (last.above, last.mirrored) == (above, mirrored) => {
                        last.length += until - at;
                        last.in_place &= in_place;
                    }
                    _ => parts.push(Part { offset: at, length: until - at, above, mirrored, in_place }),
                }
                at = until;
            }
        }
        parts
    }
}

impl Chain {
    /// Writes while the run under the leaf is merged.
    pub(super) fn write_routed(&self, routing: &Routing, content: Content<'_>, offset: u64, length: u64) -> Result<()> {
        let _stripes = routing.share(offset, length);
        routing.unflushed.fetch_add(length, Ordering::Relaxed);
        let before = self.changes.quiet();
        let mut pieces = Vec::with_capacity(4);
        let links = self.map.lookup(offset, length, &mut pieces)?;
        let leaf = links.len() - 1;
        for part in routing.parts(&pieces, leaf) {
            let put = |place: usize| {
                let result = content.put(&*links[place].image, part.offset - offset, part.length, part.offset);
                links[place].set_unflushed();
                result
            };
            let place = if part.above { leaf } else { routing.target };
            let mut result = put(place);
            if part.mirrored {
                routing.twice.fetch_add(part.length, Ordering::Relaxed);
                result = result.and_then(|()| put(routing.target));
            }
            let zeros = !matches!(content, Content::Bytes(_));
            if !part.in_place || zeros || result.is_err() || before.is_none_or(|before| !self.changes.none_since(before)) {
                if place == leaf {
                    self.map.update(part.offset, part.length);
                } else {
                    let block = links[place].image.info().block_size.0.max(1);
                    self.map.forget_range(part.offset, part.length, block);
                }
            }
            result?;
        }
        Ok(())
    }
}

/// A run of a chain that is being merged while the chain is in use. Dropped, it routes no longer.
#[derive(Debug)]
pub struct LiveRun {
    chain: Arc<Chain>,
    /// Where the run stands in the chain.
    run: Range<usize>,
    target: usize,
    routing: Option<Arc<Routing>>,
    flaw: Flaw,
}

/// A range that nothing is being written to, until it is dropped.
#[derive(Debug)]
pub struct Held<'a> {
    _guards: Vec<RwLockWriteGuard<'a, ()>>,
    written: Vec<&'a AtomicBool>,
}

impl Held<'_> {
    /// From now on, writes to the range are noticed.
    pub fn watch(&self) {
        self.written.iter().for_each(|written| written.store(false, Ordering::Release));
    }

    /// Whether something was written since [`Held::watch`].
    pub fn was_written(&self) -> bool {
        self.written.iter().any(|written| written.load(Ordering::Acquire))
    }
}

impl LiveRun {
    /// Opens the images of a run for writing in place (and the one above it, where `relinks` says that the switch
    /// changes that too): from then on the chain reads through these. `target` is an index in the run.
    ///
    /// # Errors
    /// Where one can't be opened; the chain has the same images as before then.
    pub fn begin(chain: &Arc<Chain>, run: Range<usize>, target: usize, relinks: bool) -> Result<Self> {
        let mut images = chain.images();
        let above = usize::from(relinks && run.end < images.len());
        if run.len() < 2 || run.end > images.len() || target >= run.len() {
            return Err(DiskError::refused(&images[images.len() - 1].path(), "no such run lies under it"));
        }
        let mut thawed: Vec<Arc<dyn Image>> = Vec::new();
        for place in run.start..run.end + above {
            if images[place].is_writable() {
                continue;
            }
            match images[place].thaw() {
                Ok(image) => {
                    thawed.push(image.clone());
                    images[place] = image;
                }
                Err(error) => {
                    thawed.iter().for_each(|image| drop(image.freeze()));
                    chain.reopen(images)?;
                    return Err(error);
                }
            }
        }
        chain.reopen(images)?;
        let target = run.start + target;
        let mut lent = lock(&chain.flushing);
        *lent += 1;
        let run = Self { chain: chain.clone(), run, target, routing: None, flaw: Flaw::default() };
        // What stands above the run is to be read by others, too.
        let flushed = chain.map.leaf().image.flush();
        drop(lent);
        match flushed {
            Ok(()) => Ok(run),
            Err(error) => {
                // As before: what was thawed is frozen again.
                let _ = run.end();
                Err(error)
            }
        }
    }

    /// The same with one rule left out.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn without(mut self, flaw: Flaw) -> Self {
        self.flaw = flaw;
        *lock(&self.chain.flaw) = flaw;
        self
    }

    /// The images of the run, bottom to top.
    pub fn images(&self) -> Vec<Arc<dyn Image>> {
        self.chain.images()[self.run.clone()].to_vec()
    }

    /// The image that reads through the top, unless that is the leaf.
    pub fn above(&self) -> Option<Arc<dyn Image>> {
        self.chain.images().get(self.run.end).cloned()
    }

    /// What the machine writes to after the switch: the merged image, where that takes the leaf's place.
    pub fn leaf(&self, merged: Option<&Arc<dyn Image>>) -> Arc<dyn Image> {
        merged.cloned().unwrap_or_else(|| self.chain.map.leaf().image.clone())
    }

    /// Whether writes go to the top of the run.
    pub fn is_written(&self) -> bool {
        self.run.end == self.chain.images().len()
    }

    /// From now on writes are routed, where they go to the run.
    pub fn route(&mut self) {
        if !self.is_written() || self.routing.is_some() {
            return;
        }
        let routing = Arc::new(Routing::new(self.target, self.flaw));
        *lock_alone(&self.chain.writers) = Some(routing.clone());
        self.routing = Some(routing);
    }

    /// Waits until nothing is being written to a range, and keeps it so.
    pub fn hold(&self, offset: u64, length: u64) -> Held<'_> {
        let stripes: Vec<&Stripe> = self.routing.iter().flat_map(|routing| routing.stripes(offset, length)).collect();
        Held {
            _guards: stripes.iter().map(|stripe| lock_alone(&stripe.lock)).collect(),
            written: stripes.iter().map(|stripe| &stripe.written).collect(),
        }
    }

    /// Makes `from..to` the mirrored range. The grain that it grows by is held.
    pub fn mirror(&self, from: u64, to: u64) {
        if let Some(routing) = &self.routing {
            routing.mirrored_from.store(from, Ordering::Release);
            routing.mirrored_to.store(to, Ordering::Release);
        }
    }

    /// Bytes that were written to both sides so far.
    pub fn written_twice(&self) -> ByteCount {
        ByteCount(self.routing.as_ref().map_or(0, |routing| routing.twice.load(Ordering::Relaxed)))
    }

    /// What the machine has written and not flushed, at most; a flush of the run's images writes that, too.
    pub fn unflushed(&self) -> ByteCount {
        ByteCount(self.routing.as_ref().map_or(0, |routing| routing.unflushed.load(Ordering::Relaxed)))
    }

    /// A batch begins, at whose end the images are flushed.
    pub fn begin_batch(&self) {
        self.routing.iter().for_each(|routing| routing.flushed());
    }

    /// Marks stretches of an image of the run. Where the machine writes to the run, what it writes to the target from now
    /// on counts only with the mark: a flush that follows covers it. Other flushes needn't wait for the mark's.
    ///
    /// # Errors
    /// Where the image's file fails.
    pub fn release(&self, image: usize, stretches: &[(u64, u64)]) -> Result<Released> {
        let links = self.chain.map.links();
        let link = &links[self.run.start + image];
        if self.flaw == Flaw::Marks || !self.is_written() {
            return link.image.release(stretches);
        }
        let _flushing = lock(&self.chain.flushing);
        let released = link.image.release(stretches);
        link.set_unflushed();
        released
    }

    /// What the machine wrote to the run so far is durable: what it hides can be dropped.
    ///
    /// # Errors
    /// Where a file fails.
    pub fn flush_top(&self) -> Result<()> {
        let top = &self.chain.map.links()[self.run.end - 1];
        if self.flaw == Flaw::TopFlush { Ok(()) } else { top.image.flush() }
    }

    /// Other images hold a range now than before.
    pub fn moved(&self, offset: u64, length: u64) {
        self.chain.map.forget_range(offset, length, 1);
    }

    /// Reads that may have looked up places before are done again: those that are given up can be punched.
    pub fn readers_settled(&self) {
        if self.flaw != Flaw::Readers {
            drop(self.chain.changes.begin());
        }
    }

    /// The merged image takes the run's place in the chain, and nothing is routed any longer.
    ///
    /// # Errors
    /// Where it doesn't fit there.
    pub fn switch(mut self, merged: Arc<dyn Image>) -> Result<()> {
        let mut images = self.chain.images();
        images.splice(self.run.clone(), [merged]);
        super::open::check_chain(&images)?;
        let mut writers = lock_alone(&self.chain.writers);
        let _change = self.chain.changes.begin();
        self.chain.map.replace(links(images));
        *writers = None;
        drop(writers);
        self.routing = None;
        Ok(())
    }

    /// Ends before the switch: the images are frozen again, and writes go to the leaf.
    ///
    /// # Errors
    /// Where an image can't be made complete for other readers; it stays open for writing.
    pub fn end(self) -> Result<()> {
        let images = self.chain.images();
        drop(self);
        let frozen = images.split_last().map_or(&[][..], |(_, below)| below);
        frozen.iter().filter(|image| image.is_writable()).try_for_each(|image| image.freeze())
    }
}

impl Drop for LiveRun {
    fn drop(&mut self) {
        if self.routing.take().is_some() {
            *lock_alone(&self.chain.writers) = None;
        }
        *lock(&self.chain.flushing) -= 1;
    }
}

impl Chain {
    /// The same images, some of them opened again.
    fn reopen(&self, images: Vec<Arc<dyn Image>>) -> Result<()> {
        let _writers = lock_alone(&self.writers);
        let old = self.map.links();
        if old.len() != images.len() {
            return Err(DiskError::refused(&old[old.len() - 1].image.path(), "the chain has changed meanwhile"));
        }
        let keep = |(link, image): (&Arc<Link>, Arc<dyn Image>)| {
            if Arc::ptr_eq(&link.image, &image) { link.clone() } else { Arc::new(Link::new(image)) }
        };
        let links: Links = old.iter().zip(images).map(keep).collect();
        let _change = self.changes.begin();
        self.map.replace(links);
        Ok(())
    }
}
