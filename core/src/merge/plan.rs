//! The plan of a merge: pure, a value that is shown and then executed unchanged.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{MergeError, Result};
use crate::cost::{MachineFacts, MergeBytes};
use crate::snapshot::{DiskId, ImageId};
use crate::units::ByteCount;

/// What merging a run into one of its images would take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The image into which everything would move.
    pub target: ImageId,
    /// What would move.
    pub bytes: MergeBytes,
    /// Free space that it needs before it starts to give space back.
    pub scratch: ByteCount,
    /// Whether that is free.
    pub fits: bool,
}

/// A merge, planned: X1..Xk become one image that plays the part of Xk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergePlan {
    /// The disk.
    pub disk: DiskId,
    /// X1..Xk, bottom to top. The last one's identifier stays.
    pub run: Vec<ImageId>,
    /// The image into which everything moves.
    pub target: ImageId,
    /// Data bytes to move; exact.
    pub data_bytes_to_move: ByteCount,
    /// Bytes to make zero in the target; exact where the images' sizes are equal.
    pub zero_bytes: ByteCount,
    /// Metadata that is written on the way (about).
    pub metadata_bytes: ByteCount,
    /// Separate stretches to move (about).
    pub stretches: u64,
    /// Free space that it needs before it starts to give space back.
    pub scratch: ByteCount,
    /// Why the scratch is more than a batch, in words; empty where it isn't.
    pub scratch_reasons: Vec<String>,
    /// Bytes that come back at the end (about).
    pub frees: ByteCount,
    /// The file that stays, relative to the machine's folder.
    pub kept_file: PathBuf,
    /// The files that are removed at the end, relative to the machine's folder.
    pub removed_files: Vec<PathBuf>,
    /// Whether the merged image, a differencing one so far, becomes a base.
    pub becomes_base: bool,
    /// Whether the children of the top have to be linked to another file name.
    pub relinks_children: bool,
    /// Every target that was weighed, bottom to top.
    pub candidates: Vec<Candidate>,
}

/// What every image of the run would take as the target, bottom to top. Refused where the run isn't one
/// (something outside reads through it), its disk isn't counted yet, or its images can't be merged.
pub fn candidates(facts: &MachineFacts<'_>, disk: &DiskId, run: &[ImageId]) -> Result<Vec<Candidate>> {
    let _ = (facts, disk, run);
    todo!()
}

/// Plans the merge of a run: the target that moves fewest bytes among those whose scratch fits; a merge
/// that has started keeps its target if it still fits. [`MergeError::NoSpace`] where none does.
pub fn plan(facts: &MachineFacts<'_>, disk: &DiskId, run: &[ImageId]) -> Result<MergePlan> {
    let _ = MergeError::Refused(String::new());
    let _ = candidates(facts, disk, run)?;
    todo!()
}
