//! The plan of a merge: pure, a value that is shown and then executed unchanged.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::switch::{check_run, kept_file};
use super::{MergeError, Result};
use crate::cost::{BATCH, FileFacts, MachineFacts, MergeBytes, Scratch, scratch};
use crate::disk::ImageType;
use crate::snapshot::{ImageId, ImageRecord, Run};
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
    /// Data that is copied before its old place is given back.
    pub batch: ByteCount,
    /// Whether the scratch is free.
    pub fits: bool,
}

/// A merge, planned: X1..Xk become one image that plays the part of Xk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergePlan {
    /// X1..Xk, bottom to top. The last one's identifier stays.
    pub run: Run,
    /// The image into which everything moves.
    pub target: ImageId,
    /// Data bytes to move; exact.
    pub data_bytes_to_move: ByteCount,
    /// Bytes to make zero in the target (about, where the images' sizes differ).
    pub zero_bytes: ByteCount,
    /// Metadata that is written on the way (about).
    pub metadata_bytes: ByteCount,
    /// Separate stretches to move (about).
    pub stretches: u64,
    /// Free space that it needs before it starts to give space back.
    pub scratch: ByteCount,
    /// Why space doesn't come back on the way, in words; empty where it does.
    pub scratch_reasons: Vec<String>,
    /// Data that is copied before its old place is given back.
    pub batch: ByteCount,
    /// Bytes that come back by the end (about).
    pub frees: ByteCount,
    /// The file that stays, relative to the machine's folder.
    pub kept_file: PathBuf,
    /// The files that are gone at the end, relative to the machine's folder.
    pub removed_files: Vec<PathBuf>,
    /// Whether the target, a differencing image so far, becomes a base.
    pub becomes_base: bool,
    /// Whether the children of the top have to be linked to another file name.
    pub relinks_children: bool,
    /// Whether a running machine writes to the top.
    pub is_written: bool,
    /// Every target that was weighed, bottom to top.
    pub candidates: Vec<Candidate>,
}

impl MergePlan {
    /// Where the target stands in the run.
    pub(super) fn target_index(&self) -> Result<usize> {
        let place = self.run.images.iter().position(|image| *image == self.target);
        place.ok_or_else(|| MergeError::Refused("the plan's target isn't in its run".into()))
    }
}

/// What every image of the run would take as the target, bottom to top. Refused where the run isn't one (something
/// outside reads through it), isn't counted yet, or holds an image that something is wrong with.
pub fn candidates(facts: &MachineFacts<'_>, run: &Run) -> Result<Vec<Candidate>> {
    if run.images.len() < 2 {
        return Err(MergeError::Refused("a run has two images or more".into()));
    }
    check_run(facts.machine, &run.images)?;
    let uncounted = || MergeError::Refused(format!("the blocks of {} aren't counted yet: try again in a moment", run.disk));
    let census = facts.census.get(&run.disk).ok_or_else(uncounted)?;
    for image in &run.images {
        let file: &FileFacts = facts.files.get(image).ok_or_else(uncounted)?;
        if let Some(problem) = &file.problem {
            let path = facts.machine.images[image].file.display();
            return Err(MergeError::Refused(format!("{path} can't be merged: {problem}")));
        }
    }
    let weigh = |target: &ImageId| {
        let bytes = census.merge_bytes(&run.images, *target)?;
        let Scratch { bytes: scratch, batch } = scratch(facts, census, &run.images, *target)?;
        Some(Candidate { target: *target, bytes, scratch, batch, fits: scratch <= facts.volume.free })
    };
    let possible = run.images.iter().enumerate().filter(|(place, _)| facts.may_be_target(&run.images, *place));
    possible.map(|(_, target)| weigh(target).ok_or_else(uncounted)).collect()
}

/// Plans the merge of a run: the target that moves fewest bytes among those whose scratch fits; a merge
/// that has started keeps its target if it still fits. [`MergeError::NoSpace`] where none does.
pub fn plan(facts: &MachineFacts<'_>, run: &Run) -> Result<MergePlan> {
    let candidates = candidates(facts, run)?;
    let started = facts.machine.merges.iter().filter(|merge| merge.disk == run.disk).map(|merge| merge.target);
    let started: Vec<ImageId> = started.collect();
    let rank = |candidate: &&Candidate| {
        (!started.contains(&candidate.target), candidate.bytes.data, candidate.bytes.zero, candidate.scratch)
    };
    let fitting = candidates.iter().filter(|candidate| candidate.fits);
    match fitting.min_by_key(rank).map(|candidate| candidate.target) {
        Some(target) => describe(facts, run, target, candidates),
        None => Err(no_space(facts, &candidates)),
    }
}

/// Plans the merge of a run into a given image of it.
pub fn plan_into(facts: &MachineFacts<'_>, run: &Run, target: ImageId) -> Result<MergePlan> {
    let candidates = candidates(facts, run)?;
    if run.images.contains(&target) && !candidates.iter().any(|candidate| candidate.target == target) {
        return Err(MergeError::Refused("only the base can be the target while the machine writes to the top of the run".into()));
    }
    match candidates.iter().find(|candidate| candidate.target == target) {
        Some(candidate) if !candidate.fits => Err(no_space(facts, std::slice::from_ref(candidate))),
        _ => describe(facts, run, target, candidates),
    }
}

fn no_space(facts: &MachineFacts<'_>, candidates: &[Candidate]) -> MergeError {
    let needed = candidates.iter().map(|candidate| candidate.scratch).min().unwrap_or_default();
    MergeError::NoSpace { needed, free: facts.volume.free }
}

fn describe(facts: &MachineFacts<'_>, run: &Run, target: ImageId, candidates: Vec<Candidate>) -> Result<MergePlan> {
    let chosen = candidates.iter().find(|candidate| candidate.target == target).cloned();
    let place = run.images.iter().position(|image| *image == target);
    let (Some(chosen), Some(place)) = (chosen, place) else {
        return Err(MergeError::Refused("the target isn't in the run".into()));
    };
    let records: Vec<&ImageRecord> = run.images.iter().map(|image| &facts.machine.images[image]).collect();
    let files: Vec<&Path> = records.iter().map(|record| &*record.file).collect();
    let is_written = run.images.last().is_some_and(|top| facts.is_written(*top));
    let kept_file = kept_file(&files, place, records[0].parent.is_some(), is_written);
    let sources: ByteCount = run.images.iter().filter(|image| **image != target).map(|image| facts.held(*image)).sum();
    Ok(MergePlan {
        run: run.clone(),
        target,
        data_bytes_to_move: chosen.bytes.data,
        zero_bytes: chosen.bytes.zero,
        metadata_bytes: metadata(chosen.bytes.stretches, run.images.len()),
        stretches: chosen.bytes.stretches,
        scratch: chosen.scratch,
        scratch_reasons: reasons(facts, run, target, &chosen.bytes),
        batch: chosen.batch,
        frees: sources.saturating_sub(chosen.bytes.growth),
        removed_files: files.iter().filter(|file| **file != kept_file).map(PathBuf::from).collect(),
        relinks_children: kept_file != files[files.len() - 1] && !is_written,
        kept_file,
        becomes_base: place > 0 && records[0].parent.is_none(),
        is_written,
        candidates,
    })
}

/// For each stretch an entry and its log in the target and in one source; for each image bitmaps, header and locator.
fn metadata(stretches: u64, images: usize) -> ByteCount {
    ByteCount(stretches.saturating_mul(16 << 10)) + ByteCount::mib(images as u64)
}

/// Which sources give nothing back on the way, and why.
fn reasons(facts: &MachineFacts<'_>, run: &Run, target: ImageId, bytes: &MergeBytes) -> Vec<String> {
    let mut reasons = Vec::new();
    if bytes.data == ByteCount::ZERO {
        return reasons;
    }
    if !facts.volume.punches_holes {
        reasons.push("the volume can't give back space inside a file, so nothing comes back before the end".into());
    }
    for image in run.images.iter().filter(|image| **image != target) {
        let (record, file) = (&facts.machine.images[image], &facts.files[image]);
        let name = record.file.file_name().unwrap_or_default().to_string_lossy();
        if file.kind == ImageType::Fixed {
            reasons.push(format!("{name} has a fixed size and gives nothing back before the end"));
        } else if file.block_size > BATCH {
            reasons.push(format!("{name} has blocks of {} MiB and gives back whole blocks", file.block_size.0 >> 20));
        }
    }
    reasons
}
