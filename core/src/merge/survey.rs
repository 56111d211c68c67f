//! Where the data of a run is: one walk over all its images at once.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Result, Rule, Rules};
use crate::disk::{Extent, Image, Presence};
use crate::units::ByteCount;

/// A run of open images, bottom to top.
pub(super) type Images = [Arc<dyn Image>];

/// How much of the disk is asked for at once: bounds what a walk holds in memory.
const WINDOW: u64 = 256 << 20;

/// A stretch of the disk, and what each image of the run holds of it (bottom to top). `Data` names the
/// file offset of the stretch's first byte.
pub(super) struct Piece<'a> {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) held: &'a [Presence],
}

impl Piece<'_> {
    /// The newest image that holds anything here.
    pub(super) fn owner(&self) -> Option<usize> {
        newest(self.held)
    }

    /// Whose content the target needs: the newest owner's, unless that is the target.
    pub(super) fn source(&self, target: usize, rules: Rules) -> Option<usize> {
        match self.owner() {
            Some(owner) if owner == target && !rules.keep(Rule::Absent) => newest(&self.held[..target]),
            owner => owner.filter(|owner| *owner != target),
        }
    }
}

fn newest(held: &[Presence]) -> Option<usize> {
    held.iter().rposition(|presence| *presence != Presence::Absent)
}

fn advanced(presence: Presence, by: u64) -> Presence {
    match presence {
        Presence::Data { host_offset } => Presence::Data { host_offset: host_offset + by },
        other => other,
    }
}

/// What one image holds of `from..to`. What lies beyond its end is a zero that it owns.
fn extents(image: &dyn Image, from: u64, to: u64, rules: Rules) -> Result<Vec<Extent>> {
    let end = image.info().virtual_size.0.clamp(from, to);
    let mut extents = if end > from { image.extents(from, end - from)? } else { Vec::new() };
    if !rules.keep(Rule::Zeros) {
        for extent in extents.iter_mut().filter(|extent| extent.presence == Presence::Zero) {
            extent.presence = Presence::Absent;
        }
    }
    if to > end {
        let presence = if rules.keep(Rule::Sizes) && rules.keep(Rule::Zeros) { Presence::Zero } else { Presence::Absent };
        extents.push(Extent { offset: end, length: to - end, presence });
    }
    Ok(extents)
}

/// Walks over `from..to` in pieces within which no image's answer changes, until `visit` breaks.
pub(super) fn sweep(
    images: &Images,
    from: u64,
    to: u64,
    rules: Rules,
    mut visit: impl FnMut(Piece<'_>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut held = vec![Presence::Absent; images.len()];
    let mut at = from;
    while at < to {
        let window_end = to.min(at.saturating_add(WINDOW));
        let lists: Vec<_> = images.iter().map(|image| extents(&**image, at, window_end, rules)).collect::<Result<_>>()?;
        let mut next = vec![0; images.len()];
        while at < window_end {
            let mut end = window_end;
            for (image, list) in lists.iter().enumerate() {
                while list.get(next[image]).is_some_and(|extent| extent.offset + extent.length <= at) {
                    next[image] += 1;
                }
                held[image] = match list.get(next[image]) {
                    Some(extent) if extent.offset <= at => {
                        end = end.min(extent.offset + extent.length);
                        advanced(extent.presence, at - extent.offset)
                    }
                    _ => Presence::Absent,
                };
            }
            if visit(Piece { offset: at, length: end - at, held: &held })?.is_break() {
                return Ok(());
            }
            at = end;
        }
    }
    Ok(())
}

/// What is still to be moved into a target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Remaining {
    /// Data bytes to copy.
    pub(super) data: ByteCount,
    /// Bytes to make zero.
    pub(super) zero: ByteCount,
    /// Separate stretches.
    pub(super) stretches: u64,
}

/// Counts what is still to be moved into `target`; exact.
pub(super) fn remaining(images: &Images, size: u64, target: usize, rules: Rules) -> Result<Remaining> {
    let mut remaining = Remaining::default();
    let mut last_end = None;
    sweep(images, 0, size, rules, |piece| {
        let Some(source) = piece.source(target, rules) else { return Ok(ControlFlow::Continue(())) };
        match piece.held[source] {
            Presence::Data { .. } => remaining.data += ByteCount(piece.length),
            Presence::Zero if piece.held[target] == Presence::Zero => return Ok(ControlFlow::Continue(())),
            _ => remaining.zero += ByteCount(piece.length),
        }
        if last_end != Some(piece.offset) {
            remaining.stretches += 1;
        }
        last_end = Some(piece.offset + piece.length);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(remaining)
}

/// Whether the target alone shows what the whole run shows: nothing above it holds anything,
/// and nothing below holds what it lacks.
pub(super) fn nothing_left(images: &Images, size: u64, target: usize, rules: Rules) -> Result<bool> {
    let mut left = false;
    sweep(images, 0, size, rules, |piece| {
        left = piece.owner().is_some_and(|owner| owner != target);
        Ok(if left { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(!left)
}
