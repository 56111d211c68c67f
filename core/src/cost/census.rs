//! Which images hold how much of a disk, and what hides it.

use serde::{Deserialize, Serialize};

use crate::disk::Extent;
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
    pub image: u16,
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
    pub upper: u16,
    /// Index of the image below that is hidden.
    pub lower: u16,
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
    pub parents: Vec<Option<u16>>,
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
        let _ = (size, extents);
        todo!()
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

/// Counts. The images may come in any order; one whose parent isn't among them counts as a base.
pub fn census_of(images: &[CensusImage<'_>]) -> Census {
    let _ = images;
    todo!()
}

impl Census {
    /// The images from the base to `leaf`; `None` if the census doesn't know the leaf.
    pub fn chain(&self, leaf: ImageId) -> Option<Vec<ImageId>> {
        let _ = leaf;
        todo!()
    }
}
