//! Which images hold how much of a disk, and what hides it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::disk::{Extent, Presence};
use crate::snapshot::ImageId;

/// How an image holds a stretch of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldAs {
    /// Data.
    Data,
    /// Explicit zeros.
    Zero,
    /// Beyond the image's end: zeros that take no space.
    Beyond,
}

/// What one image holds of the disk, in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Index into [`Census::images`].
    pub image: u32,
    /// How it holds it.
    pub held_as: HeldAs,
    /// Bytes of the disk.
    pub bytes: u64,
    /// Number of separate stretches.
    pub stretches: u64,
}

/// What an image holds that another one hides: `upper` reads through `lower`, holds the same
/// bytes, and no image between the two does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cover {
    /// Index of the image that hides.
    pub upper: u32,
    /// Index of the image below that is hidden.
    pub lower: u32,
    /// How the lower one holds it.
    pub held_as: HeldAs,
    /// Bytes of the disk.
    pub bytes: u64,
    /// Number of separate stretches.
    pub stretches: u64,
}

/// For one disk of a machine (all branches): which images hold how much of it, and what hides it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// The images, parents before children; the rest points into this.
    pub images: Vec<ImageId>,
    /// Index of each image's parent, in the same order.
    pub parents: Vec<Option<u32>>,
    /// Virtual size of each image in bytes, in the same order.
    pub sizes: Vec<u64>,
    /// What each image holds, sorted by image.
    pub held: Vec<Holding>,
    /// What is hidden, sorted by `upper`, then `lower`.
    pub covers: Vec<Cover>,
}

/// One image's extents, reduced to what a census needs. Kept per image, so that a new count has to
/// read only the images that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    size: u64,
    /// End of each run and how it is held; runs follow each other without gaps, neighbours differ.
    runs: Vec<(u64, Option<HeldAs>)>,
}

impl Layout {
    /// From an image's size in bytes and its extents, in order and without gaps from 0 to the size.
    pub fn new(size: u64, extents: impl IntoIterator<Item = Extent>) -> Self {
        let mut runs: Vec<(u64, Option<HeldAs>)> = Vec::new();
        for extent in extents {
            let end = extent.offset.saturating_add(extent.length).min(size);
            let held_as = match extent.presence {
                Presence::Data { .. } => Some(HeldAs::Data),
                Presence::Zero => Some(HeldAs::Zero),
                Presence::Absent => None,
            };
            if end <= runs.last().map_or(0, |(last, _)| *last) {
                continue;
            }
            match runs.last_mut() {
                Some((last, kind)) if *kind == held_as => *last = end,
                _ => runs.push((end, held_as)),
            }
        }
        if runs.last().map_or(0, |(last, _)| *last) < size {
            runs.push((size, None));
        }
        Self { size, runs }
    }

    /// The run with this number: where it ends and how it is held. The last one never ends.
    fn run(&self, number: usize) -> (u64, Option<HeldAs>) {
        self.runs.get(number).copied().unwrap_or((u64::MAX, Some(HeldAs::Beyond)))
    }
}

/// An image, to whoever counts.
#[derive(Debug, Clone, Copy)]
pub struct CensusImage<'a> {
    /// Which.
    pub id: ImageId,
    /// The image that it reads through to.
    pub parent: Option<ImageId>,
    /// What it holds.
    pub layout: &'a Layout,
}

/// A growing sum over neighbouring stretches.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    bytes: u64,
    stretches: u64,
    end: u64,
}

impl Tally {
    fn add(&mut self, start: u64, end: u64) {
        self.bytes += end - start;
        if self.stretches == 0 || self.end != start {
            self.stretches += 1;
        }
        self.end = end;
    }
}

/// Counts. The images may come in any order; one whose parent isn't among them counts as a base.
pub fn census_of(images: &[CensusImage<'_>]) -> Census {
    let (order, parents) = parents_first(images);
    let images: Vec<_> = order.iter().map(|&i| images[i]).collect();
    let size = images.iter().map(|i| i.layout.size).max().unwrap_or(0);
    let count = images.len();

    let mut held = vec![[Tally::default(); 3]; count];
    let mut covers: Vec<Vec<(u32, HeldAs, Tally)>> = vec![Vec::new(); count];
    let mut runs = vec![0; count];
    let mut now: Vec<(u64, Option<HeldAs>)> = images.iter().map(|i| i.layout.run(0)).collect();
    let mut holder_below: Vec<Option<u32>> = vec![None; count];
    let mut start = 0;
    while start < size {
        let end = now.iter().map(|(end, _)| *end).min().unwrap_or(size).min(size);
        for index in 0..count {
            let below = parents[index].and_then(|p| now[p as usize].1.map_or(holder_below[p as usize], |_| Some(p)));
            holder_below[index] = below;
            let Some(held_as) = now[index].1 else { continue };
            held[index][held_as as usize].add(start, end);
            let Some(lower) = below else { continue };
            let Some(lower_as) = now[lower as usize].1 else { continue };
            let known = covers[index].iter().position(|(l, a, _)| *l == lower && *a == lower_as);
            let place = known.unwrap_or_else(|| {
                covers[index].push((lower, lower_as, Tally::default()));
                covers[index].len() - 1
            });
            covers[index][place].2.add(start, end);
        }
        for (index, image) in images.iter().enumerate() {
            while now[index].0 <= end {
                runs[index] += 1;
                now[index] = image.layout.run(runs[index]);
            }
        }
        start = end;
    }

    let holding = |(image, tallies): (usize, &[Tally; 3])| {
        let image = image as u32;
        HeldAs::ALL.into_iter().zip(*tallies).filter(|(_, t)| t.bytes > 0).map(move |(held_as, t)| Holding {
            image,
            held_as,
            bytes: t.bytes,
            stretches: t.stretches,
        })
    };
    let mut cover_list = Vec::new();
    for (upper, below) in covers.iter_mut().enumerate() {
        below.sort_by_key(|(lower, held_as, _)| (*lower, *held_as));
        let upper = upper as u32;
        cover_list.extend(below.iter().map(|&(lower, held_as, t)| Cover {
            upper,
            lower,
            held_as,
            bytes: t.bytes,
            stretches: t.stretches,
        }));
    }
    Census {
        sizes: images.iter().map(|i| i.layout.size).collect(),
        held: held.iter().enumerate().flat_map(holding).collect(),
        covers: cover_list,
        images: images.iter().map(|i| i.id).collect(),
        parents,
    }
}

/// An order with parents before children, and each one's parent in that order. Links that go in
/// circles are cut.
fn parents_first(images: &[CensusImage<'_>]) -> (Vec<usize>, Vec<Option<u32>>) {
    let given: HashMap<ImageId, usize> = images.iter().enumerate().map(|(i, image)| (image.id, i)).collect();
    let parent_of = |i: usize| images[i].parent.and_then(|p| given.get(&p).copied());
    let mut place: Vec<Option<u32>> = vec![None; images.len()];
    let mut on_path = vec![false; images.len()];
    let mut order = Vec::with_capacity(images.len());
    let mut parents = Vec::with_capacity(images.len());
    for first in 0..images.len() {
        let mut path = Vec::new();
        let mut next = Some(first);
        while let Some(i) = next.filter(|&i| place[i].is_none() && !on_path[i]) {
            on_path[i] = true;
            path.push(i);
            next = parent_of(i);
        }
        for i in path.into_iter().rev() {
            parents.push(parent_of(i).and_then(|p| place[p]));
            place[i] = Some(order.len() as u32);
            order.push(i);
        }
    }
    (order, parents)
}

/// What one image of a path owns: holds, and no image above it on the path does. By [`HeldAs`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Owned {
    pub bytes: [u64; 3],
    /// About: each stretch that is hidden in the middle makes one more, each hidden whole one less.
    pub stretches: [f64; 3],
}

impl Owned {
    pub fn data(&self) -> u64 {
        self.bytes[HeldAs::Data as usize]
    }
    pub fn zero(&self) -> u64 {
        self.bytes[HeldAs::Zero as usize]
    }
    pub fn beyond(&self) -> u64 {
        self.bytes[HeldAs::Beyond as usize]
    }
}

impl HeldAs {
    const ALL: [Self; 3] = [Self::Data, Self::Zero, Self::Beyond];
}

impl Census {
    /// The images from the base to `leaf`; `None` if the census doesn't know the leaf.
    pub fn chain(&self, leaf: ImageId) -> Option<Vec<ImageId>> {
        Some(self.path_to(leaf)?.into_iter().map(|i| self.images[i as usize]).collect())
    }

    /// As [`Census::chain`], as indices.
    pub(super) fn path_to(&self, leaf: ImageId) -> Option<Vec<u32>> {
        let mut next = Some(self.images.iter().position(|i| *i == leaf)? as u32);
        let mut path = Vec::new();
        while let Some(index) = next {
            path.push(index);
            // Parents stand before children; a census that came from elsewhere may lie.
            next = (*self.parents.get(index as usize)?).filter(|p| *p < index);
        }
        path.reverse();
        Some(path)
    }

    /// The indices of a run, bottom to top; `None` unless each image reads through the one before.
    pub(super) fn path_of(&self, run: &[ImageId]) -> Option<Vec<u32>> {
        let path = self.path_to(*run.last()?)?;
        let path = path.get(path.len().checked_sub(run.len())?..)?;
        let same = path.iter().zip(run).all(|(index, id)| self.images.get(*index as usize) == Some(id));
        same.then(|| path.to_vec())
    }

    /// What an image holds as data, in bytes.
    pub(super) fn held_data(&self, image: u32) -> u64 {
        self.holdings(image).filter(|h| h.held_as == HeldAs::Data).map(|h| h.bytes).sum()
    }

    pub(super) fn holdings(&self, image: u32) -> impl Iterator<Item = &Holding> {
        let from = self.held.partition_point(|h| h.image < image);
        self.held[from..].iter().take_while(move |h| h.image == image)
    }

    /// What each image of a path (rising indices, each the parent of the next) owns.
    pub(super) fn owned(&self, path: &[u32]) -> Vec<Owned> {
        let mut owned = vec![Owned::default(); path.len()];
        let mut length = vec![[0.0; 3]; path.len()];
        for (place, &image) in path.iter().enumerate() {
            for h in self.holdings(image) {
                let kind = h.held_as as usize;
                owned[place].bytes[kind] = h.bytes;
                owned[place].stretches[kind] = h.stretches as f64;
                length[place][kind] = h.bytes as f64 / h.stretches.max(1) as f64;
            }
        }
        for &upper in path {
            let from = self.covers.partition_point(|c| c.upper < upper);
            for c in self.covers[from..].iter().take_while(|c| c.upper == upper) {
                let (Ok(place), kind) = (path.binary_search(&c.lower), c.held_as as usize) else { continue };
                let share = c.bytes as f64 / c.stretches.max(1) as f64 / length[place][kind].max(1.0);
                owned[place].bytes[kind] = owned[place].bytes[kind].saturating_sub(c.bytes);
                owned[place].stretches[kind] += c.stretches as f64 * (1.0 - 2.0 * share.min(1.0));
            }
        }
        for o in &mut owned {
            for (stretches, bytes) in o.stretches.iter_mut().zip(o.bytes) {
                *stretches = if bytes == 0 { 0.0 } else { stretches.clamp(1.0, (bytes as f64 / 512.0).max(1.0)) };
            }
        }
        owned
    }
}
