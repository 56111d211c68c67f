//! Who owns each stretch of the disk: a bounded, lazily filled cache of pages.
//!
//! A fill only ever sets what is `Unknown`, and a write always makes its range known; so a fill
//! that was resolved before a write can't hide that write. Where knowledge is forgotten (eviction,
//! [`OwnerMap::forget`]), the page's epoch moves on, and a fill from before is not kept.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::resolve::{Piece, Place, resolve};
use crate::disk::{Image, Result};
use crate::locks::{lock_alone, lock_shared};

mod page;

use page::{Page, SPAN};

/// What a first miss on a page resolves; the next one resolves all that is left, where runs are few.
const FIRST_FILL: u64 = 2 << 20;
const FEW_RUNS: usize = 64;
const EPOCHS: usize = 64;

/// One image of the chain.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) image: Arc<dyn Image>,
    unflushed: AtomicBool,
}

impl Link {
    /// Nobody knows what was done to a writable image before: it counts as unflushed.
    pub(super) fn new(image: Arc<dyn Image>) -> Self {
        let unflushed = AtomicBool::new(image.is_writable());
        Self { image, unflushed }
    }

    /// To be called after a change and before it is acknowledged.
    pub(super) fn set_unflushed(&self) {
        self.unflushed.store(true, Ordering::SeqCst);
    }

    /// What was changed is durable afterwards, by `flush` of the image.
    pub(super) fn flush(&self, flush: impl Fn(&dyn Image) -> Result<()>) -> Result<()> {
        // A frozen image was flushed when it was frozen.
        if self.unflushed.swap(false, Ordering::SeqCst) && self.image.is_writable() {
            return flush(&*self.image).inspect_err(|_| self.set_unflushed());
        }
        Ok(())
    }
}

/// The images, base first.
pub(super) type Links = Arc<[Arc<Link>]>;

/// What is asked for at every read and write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) size: u64,
    pub(super) sector: u32,
    leaf_block: u64,
    leaf_is_alone: bool,
}

impl Shape {
    fn of(links: &Links) -> Self {
        let info = links[links.len() - 1].image.info();
        Self {
            size: info.virtual_size.0,
            sector: info.logical_sector_size,
            leaf_block: info.block_size.0.max(1),
            leaf_is_alone: info.parent.is_none(),
        }
    }
}

#[derive(Debug)]
struct Inner {
    links: Links,
    shape: Shape,
    pages: HashMap<u64, Page>,
    /// Pages in the order in which the sweep looks at them.
    sweep: VecDeque<u64>,
    bytes: usize,
    limit: usize,
    epochs: [u64; EPOCHS],
}

/// The map of one chain, and its images.
#[derive(Debug)]
pub(super) struct OwnerMap(RwLock<Inner>);

/// Page number and the part of it, for each page that a range touches.
fn parts(offset: u64, length: u64) -> impl Iterator<Item = (u64, u32, u32)> {
    let end = offset + length;
    let mut at = offset;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let (page, start) = (at / SPAN, at % SPAN);
            let stop = SPAN.min(start + (end - at));
            at += stop - start;
            (page, start as u32, stop as u32)
        })
    })
}

impl Inner {
    fn epoch(&mut self, page: u64) -> &mut u64 {
        &mut self.epochs[page as usize % EPOCHS]
    }

    /// Changes a page, which is made if it isn't there, and keeps account of its memory.
    fn change_page(&mut self, number: u64, change: impl FnOnce(&mut Page)) {
        let depth = self.links.len();
        let before = self.pages.get(&number).map_or(0, Page::bytes);
        let page = self.pages.entry(number).or_insert_with(|| {
            self.sweep.push_back(number);
            Page::new(depth)
        });
        change(page);
        self.bytes = self.bytes - before + page.bytes();
        self.evict(number);
    }

    fn drop_page(&mut self, number: u64) {
        if let Some(page) = self.pages.remove(&number) {
            self.bytes -= page.bytes();
        }
        *self.epoch(number) += 1;
    }

    /// Gives memory back, from pages that weren't looked at for longest, but not from `keep`.
    fn evict(&mut self, keep: u64) {
        let mut looks = 2 * self.sweep.len();
        while self.bytes > self.limit && looks > 0 {
            looks -= 1;
            let Some(number) = self.sweep.pop_front() else { break };
            let Some(page) = self.pages.get_mut(&number) else { continue };
            if page.take_used() || number == keep {
                self.sweep.push_back(number);
            } else {
                self.drop_page(number);
            }
        }
    }

    fn forget(&mut self) {
        self.pages.clear();
        self.sweep.clear();
        self.bytes = 0;
        self.epochs.iter_mut().for_each(|epoch| *epoch += 1);
        self.shape = Shape::of(&self.links);
    }

    /// Takes the images into account that were put on top since the page was filled.
    fn overlay(&mut self, number: u64) -> Result<()> {
        let links = self.links.clone();
        let depth = self.pages.get(&number).map_or(links.len(), |page| page.depth);
        for (owner, link) in links.iter().enumerate().skip(depth) {
            let extents = link.image.extents(number * SPAN, SPAN)?;
            self.change_page(number, |page| {
                for extent in extents {
                    if let Some(place) = Place::of(extent.presence, owner as u16) {
                        let start = (extent.offset - number * SPAN) as u32;
                        page.put(start, start + extent.length as u32, place);
                    }
                }
                page.depth = owner + 1;
            });
        }
        Ok(())
    }

    /// Sets what the leaf says about a part of a page.
    fn take_from_leaf(&mut self, number: u64, start: u32, end: u32) {
        let (links, base) = (self.links.clone(), number * SPAN);
        let (owner, leaf) = (links.len() - 1, &links[links.len() - 1].image);
        let Ok(extents) = leaf.extents(base + u64::from(start), u64::from(end - start)) else {
            self.drop_page(number);
            return;
        };
        self.change_page(number, |page| {
            for extent in extents {
                let start = (extent.offset - base) as u32;
                let place = Place::of(extent.presence, owner as u16).unwrap_or(Place::Unknown);
                page.put(start, start + extent.length as u32, place);
            }
        });
    }

    /// Whether a write has changed more than its range: the rest of a block of the leaf that was
    /// absent as a whole, or zero as a whole.
    fn block_changed(&self, number: u64, start: u32, end: u32) -> bool {
        let leaf = self.links.len() - 1;
        let Some(page) = self.pages.get(&number) else { return false };
        page.pieces(start, end).any(|(_, _, place)| match place {
            Place::Nobody => self.shape.leaf_is_alone,
            Place::Zero { owner } => usize::from(owner) == leaf,
            Place::Data { .. } | Place::Unknown => false,
        })
    }
}

impl OwnerMap {
    /// A map that knows nothing yet. There must be at least one image.
    pub(super) fn new(links: Links, limit: usize) -> Self {
        let shape = Shape::of(&links);
        let (pages, sweep) = (HashMap::new(), VecDeque::new());
        Self(RwLock::new(Inner { links, shape, pages, sweep, bytes: 0, limit, epochs: [0; EPOCHS] }))
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        lock_shared(&self.0)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        lock_alone(&self.0)
    }

    pub(super) fn links(&self) -> Links {
        self.read().links.clone()
    }

    pub(super) fn leaf(&self) -> Arc<Link> {
        let inner = self.read();
        inner.links[inner.links.len() - 1].clone()
    }

    pub(super) fn shape(&self) -> Shape {
        self.read().shape
    }

    pub(super) fn bytes(&self) -> usize {
        self.read().bytes
    }

    /// The same images and one more on top: what is known stays known.
    pub(super) fn push(&self, links: Links) {
        let mut inner = self.write();
        inner.shape = Shape::of(&links);
        inner.links = links;
    }

    /// Other images: nothing is known any longer.
    pub(super) fn replace(&self, links: Links) {
        let mut inner = self.write();
        inner.links = links;
        inner.forget();
    }

    /// Nothing is known any longer.
    pub(super) fn forget(&self) {
        self.write().forget();
    }

    /// Nothing is known of a range any longer, rounded outwards to blocks of `block` bytes.
    pub(super) fn forget_range(&self, offset: u64, length: u64, block: u64) {
        let mut inner = self.write();
        let first = offset / block * block;
        let end = (offset + length).next_multiple_of(block).min(inner.shape.size);
        for (number, start, end) in parts(first, end - first) {
            if inner.pages.contains_key(&number) {
                inner.change_page(number, |page| page.put(start, end, Place::Unknown));
            }
            *inner.epoch(number) += 1;
        }
    }

    /// The leaf, and whether it holds data for all of a range already.
    pub(super) fn leaf_owns(&self, offset: u64, length: u64) -> (Arc<Link>, bool) {
        let inner = self.read();
        let leaf = inner.links.len() - 1;
        let owned = parts(offset, length).all(|(number, start, end)| {
            let page = inner.pages.get(&number).filter(|page| page.depth == inner.links.len());
            page.is_some_and(|page| {
                page.touch();
                page.pieces(start, end)
                    .all(|(_, _, place)| matches!(place, Place::Data { owner, .. } if usize::from(owner) == leaf))
            })
        });
        (inner.links[leaf].clone(), owned)
    }

    /// To be called after the leaf was changed there, before that is acknowledged. Asks the leaf under
    /// the lock, so that of two changes the later answer stands, whichever comes here first.
    pub(super) fn update(&self, offset: u64, length: u64) {
        let mut inner = self.write();
        let block = inner.shape.leaf_block;
        for (number, start, end) in parts(offset, length) {
            inner.take_from_leaf(number, start, end);
        }
        // The blocks that the range begins and ends in, and the pages that know of them.
        let (first, last) = (offset / block * block, (offset + length).next_multiple_of(block));
        for (number, start, end) in parts(first, last.min(inner.shape.size) - first) {
            if inner.block_changed(number, start, end) {
                inner.take_from_leaf(number, start, end);
            }
        }
    }

    /// The places of a range, in order, without gaps, and the images that they point into.
    pub(super) fn lookup(&self, offset: u64, length: u64, pieces: &mut Vec<Piece>) -> Result<Links> {
        'again: loop {
            pieces.clear();
            let mut links: Option<Links> = None;
            for (number, start, end) in parts(offset, length) {
                let of_page = self.lookup_page(number, start, end, pieces)?;
                if links.as_ref().is_some_and(|links| !Arc::ptr_eq(links, &of_page)) {
                    continue 'again;
                }
                links = Some(of_page);
            }
            return Ok(links.unwrap_or_else(|| self.links()));
        }
    }

    fn lookup_page(&self, number: u64, start: u32, end: u32, pieces: &mut Vec<Piece>) -> Result<Links> {
        let base = number * SPAN;
        loop {
            let (links, epoch, from, to) = {
                let inner = self.read();
                let page = inner.pages.get(&number);
                if page.is_some_and(|page| page.depth < inner.links.len()) {
                    drop(inner);
                    self.write().overlay(number)?;
                    continue;
                }
                let known = pieces.len();
                for (from, to, place) in page.into_iter().flat_map(|page| page.pieces(start, end)) {
                    if place == Place::Unknown {
                        pieces.truncate(known);
                        break;
                    }
                    pieces.push(Piece { offset: base + u64::from(from), length: u64::from(to - from), place });
                }
                if pieces.len() > known {
                    page.into_iter().for_each(Page::touch);
                    return Ok(inner.links.clone());
                }
                let epoch = inner.epochs[number as usize % EPOCHS];
                let (from, to) = match page {
                    Some(page) if page.run_count() <= FEW_RUNS => (base, base + SPAN),
                    _ => {
                        let (start, end) = (base + u64::from(start), base + u64::from(end));
                        (start / FIRST_FILL * FIRST_FILL, end.next_multiple_of(FIRST_FILL))
                    }
                };
                (inner.links.clone(), epoch, from, to)
            };
            let resolved = resolve(&links, from, to - from)?;
            let (start, end) = (base + u64::from(start), base + u64::from(end));
            pieces.extend(resolved.iter().filter_map(|piece| piece.clipped(start, end)));
            let mut inner = self.write();
            if Arc::ptr_eq(&links, &inner.links) && *inner.epoch(number) == epoch {
                inner.change_page(number, |page| page.fill(base, &resolved));
            }
            return Ok(links);
        }
    }
}
