//! A fixed span of the disk as sorted runs, each with its owner.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::chain::resolve::{Piece, Place};

/// Bytes of the disk that a page covers.
pub(super) const SPAN: u64 = 32 << 20;

/// What a page takes beside its runs.
const OVERHEAD: usize = 128;

const UNKNOWN: u16 = u16::MAX;
const NOBODY: u16 = u16::MAX - 1;
const NO_HOST: u64 = u64::MAX;

/// A run reaches to the start of the next one.
#[derive(Debug, Clone, Copy)]
struct Run {
    host: u64,
    start: u32,
    owner: u16,
}

impl Run {
    fn new(start: u32, place: Place) -> Self {
        let (owner, host) = match place {
            Place::Unknown => (UNKNOWN, NO_HOST),
            Place::Nobody => (NOBODY, NO_HOST),
            Place::Zero { owner } => (owner, NO_HOST),
            Place::Data { owner, host } => (owner, host),
        };
        Self { host, start, owner }
    }

    fn place(&self) -> Place {
        match (self.owner, self.host) {
            (UNKNOWN, _) => Place::Unknown,
            (NOBODY, _) => Place::Nobody,
            (owner, NO_HOST) => Place::Zero { owner },
            (owner, host) => Place::Data { owner, host },
        }
    }

    fn is_continued_by(&self, next: &Self) -> bool {
        self.place().advanced(u64::from(next.start - self.start)) == next.place()
    }
}

/// Who owns what in one span.
#[derive(Debug)]
pub(super) struct Page {
    runs: Vec<Run>,
    /// How many images of the chain its answers take into account, from the base.
    pub(super) depth: usize,
    /// Whether it was looked at since the last sweep.
    used: AtomicBool,
}

impl Page {
    pub(super) fn new(depth: usize) -> Self {
        Self { runs: vec![Run::new(0, Place::Unknown)], depth, used: AtomicBool::new(true) }
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        OVERHEAD + self.runs.capacity() * size_of::<Run>()
    }

    pub(super) fn run_count(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was touched since the last call.
    pub(super) fn take_used(&mut self) -> bool {
        std::mem::take(self.used.get_mut())
    }

    fn end_of(&self, index: usize) -> u32 {
        self.runs.get(index + 1).map_or(SPAN as u32, |next| next.start)
    }

    /// The runs of `start..end`, cut to it.
    pub(super) fn pieces(&self, start: u32, end: u32) -> impl Iterator<Item = (u32, u32, Place)> {
        let first = self.runs.partition_point(|run| run.start <= start).saturating_sub(1);
        (first..self.runs.len()).map_while(move |index| {
            let run = &self.runs[index];
            let (from, to) = (run.start.max(start), self.end_of(index).min(end));
            (from < to).then(|| (from, to, run.place().advanced(u64::from(from - run.start))))
        })
    }

    /// Sets what is known about `start..end`.
    pub(super) fn put(&mut self, start: u32, end: u32, place: Place) {
        if start >= end {
            return;
        }
        let first = self.runs.partition_point(|run| run.start <= start) - 1;
        let last = self.runs.partition_point(|run| run.start < end) - 1;
        let (head, tail, tail_end) = (self.runs[first], self.runs[last], self.end_of(last));
        let before = (head.start < start).then_some(head);
        let after = (end < tail_end).then(|| Run::new(end, tail.place().advanced(u64::from(end - tail.start))));
        let fresh = before.into_iter().chain([Run::new(start, place)]).chain(after);
        self.runs.splice(first..=last, fresh);
        for index in (first.saturating_sub(1)..(first + 3).min(self.runs.len() - 1)).rev() {
            if self.runs[index].is_continued_by(&self.runs[index + 1]) {
                self.runs.remove(index + 1);
            }
        }
    }

    /// Sets what is `Unknown` still, from `pieces` (in order, offsets of the disk); the page starts at `base`.
    pub(super) fn fill(&mut self, base: u64, pieces: &[Piece]) {
        let mut filled: Vec<Run> = Vec::with_capacity(self.runs.len() + pieces.len());
        let mut add = |start: u32, place: Place| {
            let run = Run::new(start, place);
            if !filled.last().is_some_and(|last: &Run| last.is_continued_by(&run)) {
                filled.push(run);
            }
        };
        for index in 0..self.runs.len() {
            let (run, end) = (self.runs[index], self.end_of(index));
            if run.place() != Place::Unknown {
                add(run.start, run.place());
                continue;
            }
            let (start, end) = (base + u64::from(run.start), base + u64::from(end));
            let mut at = start;
            let from = pieces.partition_point(|piece| piece.end() <= start);
            for piece in pieces[from..].iter().map_while(|piece| piece.clipped(start, end)) {
                if at < piece.offset {
                    add((at - base) as u32, Place::Unknown);
                }
                add((piece.offset - base) as u32, piece.place);
                at = piece.end();
            }
            if at < end {
                add((at - base) as u32, Place::Unknown);
            }
        }
        filled.shrink_to_fit();
        self.runs = filled;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    const GRAIN: u64 = SPAN / 256;

    fn plain(page: &Page) -> Vec<Place> {
        let mut cells = Vec::new();
        for (start, end, place) in page.pieces(0, SPAN as u32) {
            assert_eq!(u64::from(start), cells.len() as u64 * GRAIN, "a gap");
            for by in (0..u64::from(end - start)).step_by(GRAIN as usize) {
                cells.push(place.advanced(by));
            }
        }
        cells
    }

    fn place(random: &mut Random, start: u64) -> Place {
        let owner = random.below(3) as u16;
        match random.below(4) {
            0 => Place::Zero { owner },
            1 => Place::Nobody,
            // Often contiguous, so that runs join.
            _ => Place::Data { owner, host: start + (owner as u64) * SPAN },
        }
    }

    #[test]
    fn pages_behave_as_a_plain_list() {
        for seed in 0..30 {
            let mut random = Random::new(seed);
            let (mut page, mut cells) = (Page::new(1), vec![Place::Unknown; 256]);
            for _ in 0..100 {
                let first = random.below(256);
                let end = (first + 1 + random.below(20)).min(256);
                let (start, place) = (first * GRAIN, place(&mut random, first * GRAIN));
                let only_unknown = random.chance(1, 2);
                if only_unknown {
                    page.fill(7 * SPAN, &[Piece { offset: 7 * SPAN + start, length: (end - first) * GRAIN, place }]);
                } else {
                    page.put(start as u32, (end * GRAIN) as u32, place);
                }
                for cell in first..end {
                    if !only_unknown || cells[cell as usize] == Place::Unknown {
                        cells[cell as usize] = place.advanced((cell - first) * GRAIN);
                    }
                }
                assert_eq!(plain(&page), cells, "seed {seed}");
                assert!(page.runs.windows(2).all(|pair| !pair[0].is_continued_by(&pair[1])), "seed {seed}: not joined");
            }
        }
    }

    #[test]
    fn a_run_takes_16_bytes() {
        assert_eq!(size_of::<Run>(), 16);
    }
}
