//! A batch of a run whose top a machine writes to. The chain keeps the machine's writes off a grain while that is
//! copied or marked, and mirrors what goes to grains in between; see [`crate::chain::LiveRun`].

use super::batch::{Batch, Move, join};
use super::survey::sweep;
use super::transfer::{Chunk, chunks, read, write_zeros};
use super::{Result, Rule, RunMerge};
use crate::chain::{GRAIN, LiveRun};
use crate::disk::{Presence, Released};
use crate::units::ByteCount;

use std::ops::ControlFlow;

/// What the target needs of one grain, and what images between it and the top hold there.
#[derive(Debug, Default)]
struct Grain {
    moves: Vec<Move>,
    /// Per image of the run.
    held: Vec<Vec<(u64, u64)>>,
}

impl RunMerge {
    /// The next batch from `from`; returns where it ends.
    pub(super) fn live_batch(&mut self, from: u64, budget: ByteCount) -> Result<u64> {
        let gather = |range: (u64, u64), budget: u64| {
            Batch::gather(&self.images, self.target, range, budget, self.unit.max(GRAIN), self.rules)
        };
        let mut batch = gather((from, self.size), budget.0.max(GRAIN))?;
        // Whole blocks of the top: what the machine makes zero as a whole isn't marked in parts.
        let end = batch.end.next_multiple_of(self.top_block()).min(self.size);
        while batch.end < end {
            let rest = gather((batch.end, end), u64::MAX)?;
            batch.moves.extend(rest.moves);
            batch.end = rest.end;
        }
        let mut grains: Vec<u64> = Vec::new();
        for step in &batch.moves {
            let first = grains.last().map_or(0, |last| last + 1).max(step.offset / GRAIN);
            grains.extend(first..=(step.offset + step.length - 1) / GRAIN);
        }
        let mut marks = vec![Vec::new(); self.images.len()];
        self.live.iter().for_each(LiveRun::begin_batch);
        self.mirror(from, from);
        for grain in &grains {
            let start = grain * GRAIN;
            self.copy_grain((start, (start + GRAIN).min(self.size)), from, &mut marks)?;
        }
        if self.rules.keep(Rule::TargetFlush) {
            self.images[self.target].flush()?;
        }
        self.mark_live(&grains, &marks)?;
        if !grains.is_empty() {
            self.mark_below(from, end)?;
        }
        self.mirror(end, end);
        Ok(end)
    }

    fn mirror(&self, from: u64, to: u64) {
        self.live.iter().for_each(|live| live.mirror(from, to));
    }

    /// What the target needs of a grain, as it is at this moment.
    fn look_at_grain(&self, (start, end): (u64, u64)) -> Result<Grain> {
        let mut grain = Grain { moves: Vec::new(), held: vec![Vec::new(); self.images.len()] };
        sweep(&self.images, start, end, self.rules, |piece| {
            if let Some(source) = piece.source(self.target, self.rules) {
                let host_offset = match piece.held[source] {
                    Presence::Data { host_offset } => Some(host_offset),
                    _ => None,
                };
                let done = host_offset.is_none() && piece.held[self.target] == Presence::Zero;
                grain.moves.push(Move { offset: piece.offset, length: piece.length, source, host_offset, done });
            }
            for above in self.target + 1..self.images.len() {
                if piece.held[above] != Presence::Absent {
                    join(&mut grain.held[above], piece.offset, piece.length);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(grain)
    }

    fn read_grain(&mut self, moves: &[Move]) -> Result<Vec<Chunk>> {
        let chunks = chunks(moves);
        self.buffers.resize_with(self.buffers.len().max(chunks.len()), Vec::new);
        for (chunk, buffer) in chunks.iter().zip(&mut self.buffers) {
            read(&self.images, chunk, buffer)?;
        }
        Ok(chunks)
    }

    /// Copies one grain. It is read before it is held, so that a write waits for the copy's write alone; what was
    /// written meanwhile is read again.
    fn copy_grain(&mut self, range: (u64, u64), from: u64, marks: &mut [Vec<(u64, u64)>]) -> Result<()> {
        let Some(live) = self.live.take() else { return Ok(()) };
        let copied = self.copy_held(&live, range, from, marks);
        self.live = Some(live);
        copied
    }

    fn copy_held(&mut self, live: &LiveRun, range: (u64, u64), from: u64, marks: &mut [Vec<(u64, u64)>]) -> Result<()> {
        let held = live.hold(range.0, range.1 - range.0);
        held.watch();
        let mut grain = self.look_at_grain(range)?;
        drop(held);
        let mut chunks = self.read_grain(&grain.moves)?;

        let held = live.hold(range.0, range.1 - range.0);
        if held.was_written() {
            grain = self.look_at_grain(range)?;
            chunks = self.read_grain(&grain.moves)?;
        }
        let target = &*self.images[self.target];
        for (chunk, buffer) in chunks.iter().zip(&self.buffers) {
            target.write_at(buffer, chunk.offset)?;
        }
        write_zeros(target, &grain.moves)?;
        live.moved(range.0, range.1 - range.0);
        live.mirror(from, range.1);
        drop(held);

        let copied = Batch { moves: grain.moves, ..Batch::empty(range.1, 0) };
        self.progress.moved += ByteCount(copied.data());
        self.progress.zeroed += ByteCount(copied.zeros());
        self.progress.stretches += copied.stretches();
        for (marks, held) in marks.iter_mut().zip(grain.held) {
            held.into_iter().for_each(|(offset, length)| join(marks, offset, length));
        }
        Ok(())
    }

    /// Lowest first, the top last, as [`RunMerge`] does; the top by grains that are held. Its marks are in the
    /// kernel when writes go on, and durable before anything is given back.
    fn mark_live(&mut self, grains: &[u64], marks: &[Vec<(u64, u64)>]) -> Result<()> {
        let top = self.images.len() - 1;
        let mut order: Vec<usize> = (self.target + 1..=top).collect();
        if !self.rules.keep(Rule::ShadowFirst) {
            order.reverse();
        }
        for image in order {
            if image == top {
                self.mark_top(grains)?;
            } else {
                self.mark(image, &marks[image])?;
            }
        }
        Ok(())
    }

    /// A block of the top, or a grain where that is more.
    fn top_block(&self) -> u64 {
        self.images[self.images.len() - 1].info().block_size.0.max(GRAIN)
    }

    fn mark_top(&mut self, grains: &[u64]) -> Result<()> {
        let (top, block) = (self.images.len() - 1, self.top_block());
        let (Some(live), image) = (&self.live, &self.images[top]) else { return Ok(()) };
        let mut blocks: Vec<u64> = grains.iter().map(|grain| grain * GRAIN / block).collect();
        blocks.dedup();
        let mut released = Released { host_ranges: Vec::new() };
        for start in blocks.into_iter().map(|index| index * block) {
            let length = block.min(self.size - start);
            let held = live.hold(start, length);
            let extents = image.extents(start, length)?;
            let mut stretches = Vec::new();
            for extent in extents.iter().filter(|extent| extent.presence != Presence::Absent) {
                join(&mut stretches, extent.offset, extent.length);
            }
            released.host_ranges.extend(live.release(top, &stretches)?.host_ranges);
            live.moved(start, length);
            drop(held);
        }
        image.flush()?;
        self.give_back(top, released)
    }
}
