//! Pure: what a branch costs, what a merge would take, what to advise.
//!
//! Everything follows from the [`Census`]: for each set of images, how many bytes of the disk
//! exactly these images hold. From it the bytes of any merge, of any set of deletions, in any
//! order, are exact, without I/O.

use serde::{Deserialize, Serialize};

use crate::snapshot::ImageId;

/// What an image holds of a class of stretches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldAs {
    /// Data.
    Data,
    /// Explicit zeros, or beyond the image's end.
    Zero,
}

/// Stretches of a disk that exactly these images hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CensusClass {
    /// Index into [`Census::images`], rising, and how it is held.
    pub holders: Vec<(u16, HeldAs)>,
    /// Bytes of the disk.
    pub bytes: u64,
    /// Number of separate stretches.
    pub stretches: u64,
}

/// For one disk of a machine (all branches): which images hold how much of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// The images, in any order; each class points into this.
    pub images: Vec<ImageId>,
    /// Virtual size of each image, in the same order.
    pub sizes: Vec<u64>,
    /// The classes; their bytes add up to the largest size less what nobody holds.
    pub classes: Vec<CensusClass>,
}

/// What finished merges have taught about a volume: rates per mode.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Finished merges (and, before the first, a probe), newest last.
    pub samples: Vec<MergeSample>,
}

/// One finished merge, or a probe of the volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MergeSample {
    /// Data bytes moved.
    pub bytes: u64,
    /// Separate stretches moved.
    pub stretches: u64,
    /// How long it took, pauses not counted.
    pub seconds: f64,
    /// What had been estimated (the middle), in seconds.
    pub estimated_seconds: Option<f64>,
    /// Whether it is only a short probe of the volume.
    pub probe: bool,
}
