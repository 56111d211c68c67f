//! One batch: what is copied, and what may be marked afterwards.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::survey::{Images, Piece, sweep};
use super::{Result, Rules};
use crate::disk::Presence;

/// A batch has at most this many pieces, however small they are.
const MAX_PIECES: usize = 1 << 14;
/// A batch looks at most this far, however empty the disk is.
const MAX_SPAN: u64 = 64 << 30;

/// Something that the target needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) offset: u64,
    pub(super) length: u64,
    /// Index of the newest owner.
    pub(super) source: usize,
    /// Where its data is in its file; `None` is zeros.
    pub(super) host_offset: Option<u64>,
    /// Whether the target says zeros here already, and that is what it needs.
    pub(super) done: bool,
}

/// What is copied before anything is marked.
#[derive(Debug)]
pub(super) struct Batch {
    /// Everything before this is done once the batch is.
    pub(super) end: u64,
    pub(super) moves: Vec<Move>,
    /// Per image of the run: stretches that it holds and that the target has once the batch is copied.
    /// Filled only above the target.
    pub(super) marks: Vec<Vec<(u64, u64)>>,
    /// Per image of the run: the images between the target and it of whose marks it hides some.
    pub(super) hides: Vec<BTreeSet<usize>>,
}

impl Batch {
    /// Data bytes that it copies.
    pub(super) fn data(&self) -> u64 {
        self.moves.iter().filter(|step| step.host_offset.is_some()).map(|step| step.length).sum()
    }

    /// Zero bytes that it writes.
    pub(super) fn zeros(&self) -> u64 {
        self.moves.iter().filter(|step| step.host_offset.is_none() && !step.done).map(|step| step.length).sum()
    }

    /// Separate stretches that it writes.
    pub(super) fn stretches(&self) -> u64 {
        let mut written = Vec::new();
        for step in self.moves.iter().filter(|step| !step.done) {
            join(&mut written, step.offset, step.length);
        }
        written.len() as u64
    }

    /// The next batch from `from`: at most `budget` data bytes (one grain at least), cut where blocks of
    /// `unit` bytes end if that is possible, and never inside a block that is zero as a whole above the target:
    /// such a mark can't be divided.
    pub(super) fn gather(
        images: &Images,
        target: usize,
        range: (u64, u64),
        budget: u64,
        unit: u64,
        rules: Rules,
    ) -> Result<Self> {
        let (from, size) = range;
        let (grain, unit) = (4096, unit.max(1));
        let budget = (budget / grain * grain).max(grain);
        let blocks: Vec<u64> = images.iter().map(|image| image.info().block_size.0.max(1)).collect();
        let mut batch = Self::empty(from, images.len());
        let (mut data, mut cut) = (0, false);
        // Set once the budget is used up inside a block that must not be divided.
        let mut until = None;
        let end = size.min(from.saturating_add(MAX_SPAN) / unit * unit);
        sweep(images, from, end, rules, |piece| {
            let mut length = piece.length;
            let source = piece.source(target, rules);
            let is_data = source.is_some_and(|source| matches!(piece.held[source], Presence::Data { .. }));
            let room = match (batch.moves.len() < MAX_PIECES, is_data) {
                (false, _) => 0,
                (true, true) => budget.saturating_sub(data),
                (true, false) => length,
            };
            if source.is_some() && until.is_none() && room < length {
                let at = piece.offset + room;
                until = Some(if at - at % unit > from { at } else { undivided(&piece, target, &blocks, at) });
            }
            if let Some(until) = until {
                length = length.min(until.saturating_sub(piece.offset));
                cut = length < piece.length;
            }
            if let Some(source) = source.filter(|_| length > 0) {
                let host_offset = match piece.held[source] {
                    Presence::Data { host_offset } => Some(host_offset),
                    _ => None,
                };
                data += if is_data { length } else { 0 };
                let done = host_offset.is_none() && piece.held[target] == Presence::Zero;
                batch.moves.push(Move { offset: piece.offset, length, source, host_offset, done });
                for above in target + 1..=source {
                    if piece.held[above] != Presence::Absent {
                        join(&mut batch.marks[above], piece.offset, length);
                        if above < source {
                            batch.hides[source].insert(above);
                        }
                    }
                }
            }
            batch.end = piece.offset + length;
            Ok(if cut { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        let whole = batch.end - batch.end % unit;
        if cut && whole > from {
            batch.cut_to(whole);
        }
        Ok(batch)
    }

    /// Nothing yet, of a run of so many images.
    pub(super) fn empty(end: u64, images: usize) -> Self {
        Self { end, moves: Vec::new(), marks: vec![Vec::new(); images], hides: vec![BTreeSet::new(); images] }
    }

    /// The images to be marked, in rounds: what hides marks of others comes after these; within a round nothing depends on
    /// the order.
    pub(super) fn rounds(&self) -> Vec<Vec<usize>> {
        let mut round_of = vec![0; self.marks.len()];
        let mut rounds: Vec<Vec<usize>> = Vec::new();
        for image in 0..self.marks.len() {
            round_of[image] = self.hides[image].iter().map(|below| round_of[*below] + 1).max().unwrap_or(0);
            if !self.marks[image].is_empty() {
                rounds.resize_with(rounds.len().max(round_of[image] + 1), Vec::new);
                rounds[round_of[image]].push(image);
            }
        }
        rounds
    }

    fn cut_to(&mut self, end: u64) {
        self.end = end;
        self.moves.retain_mut(|step| {
            step.length = step.length.min(end.saturating_sub(step.offset));
            step.length > 0
        });
        for marks in &mut self.marks {
            marks.retain_mut(|(offset, length)| {
                *length = (*length).min(end.saturating_sub(*offset));
                *length > 0
            });
        }
    }
}

/// Where a batch that is to end at `at` may: behind the blocks above the target that are zero there.
fn undivided(piece: &Piece<'_>, target: usize, blocks: &[u64], at: u64) -> u64 {
    let zero = (target + 1..blocks.len()).filter(|above| piece.held[*above] == Presence::Zero);
    zero.map(|above| at.next_multiple_of(blocks[above])).max().unwrap_or(at).max(at)
}

/// Adds a stretch, joined to the last one where they touch.
pub(super) fn join(stretches: &mut Vec<(u64, u64)>, offset: u64, length: u64) {
    match stretches.last_mut() {
        Some((last, last_length)) if *last + *last_length == offset => *last_length += length,
        _ => stretches.push((offset, length)),
    }
}
