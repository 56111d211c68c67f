//! In which order, into which target, in which windows: the best that can be found for one volume.
//!
//! Where there are few merges, as there are in life, every order is tried that could be better than the best found so far,
//! beginning with the rule (earliest deadline first, fewest bytes first). Where there are many, or that would take too
//! long, it stays with what a few rules find. Better is, in this order: more of what somebody has put somewhere is there;
//! more merges end in time; more end at all; fewer bytes are moved. What doesn't end within the plan isn't begun.

use super::volume::{Begun, From, Piece, Problem};

/// So many merges are tried in every order.
const FEW: usize = 7;
/// So many steps are tried at most.
const STEPS: u32 = 20_000;
/// Rounding.
const NEARLY: f64 = 1e-9;

/// How good a plan is: the greater, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score {
    pinned: usize,
    in_time: usize,
    done: usize,
    bytes: std::cmp::Reverse<u64>,
}

/// The pieces of a plan, in the order of time.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub pieces: Vec<Piece>,
    pub score: Score,
}

/// Where a search stands.
#[derive(Debug, Clone)]
struct State {
    slot: usize,
    cursor: f64,
    gained: f64,
    begun: Vec<Option<Begun>>,
    done: Vec<bool>,
    /// Machines that are down in this slot.
    down: Vec<usize>,
    pieces: Vec<Piece>,
    score: Score,
}

impl State {
    fn start(problem: &Problem<'_>) -> Self {
        let jobs = problem.jobs.len();
        Self {
            slot: 0,
            cursor: 0.0,
            gained: 0.0,
            begun: vec![None; jobs],
            done: vec![false; jobs],
            down: Vec::new(),
            pieces: Vec::new(),
            score: Score { pinned: 0, in_time: 0, done: 0, bytes: std::cmp::Reverse(0) },
        }
    }

    fn next_slot(&mut self) {
        self.slot += 1;
        self.down.clear();
    }

    /// The piece that a job would get now, with an option or the one that it was begun with.
    fn piece(&self, problem: &Problem<'_>, job: usize, option: usize, most: f64) -> Option<Piece> {
        let j = &problem.jobs[job];
        let begun = self.begun[job];
        let waits = begun.is_none() && j.pinned.is_some_and(|pinned| pinned != self.slot);
        if self.done[job] || !j.allowed[self.slot] || waits || begun.is_some_and(|b| b.option != option) {
            return None;
        }
        let from = From { cursor: self.cursor, gained: self.gained, is_down: self.down.contains(&j.machine) };
        problem.piece(job, begun, option, self.slot, from, most)
    }

    fn take(&mut self, problem: &Problem<'_>, piece: Piece) {
        let job = &problem.jobs[piece.job];
        let begun = self.begun[piece.job].get_or_insert(Begun { option: piece.option, at: piece.start, left: 1.0 });
        begun.left -= piece.share;
        self.cursor = piece.p90_end;
        if piece.stops && !self.down.contains(&job.machine) {
            self.down.push(job.machine);
        }
        if piece.ends {
            self.done[piece.job] = true;
            self.score.done += 1;
            self.score.pinned += usize::from(job.pinned.is_some());
            self.score.in_time += usize::from(problem.is_in_time(piece.p90_end, self.gained));
            self.score.bytes.0 += job.options[piece.option].bytes.0;
            self.gained += job.options[piece.option].comes_back.0 as f64;
        }
        self.pieces.push(piece);
    }

    /// Whether there could still be time for a job to end.
    fn can_end(&self, problem: &Problem<'_>, job: usize) -> bool {
        let left = self.begun[job].map_or(1.0, |begun| begun.left);
        let options = match self.begun[job] {
            Some(begun) => begun.option..begun.option + 1,
            None => 0..problem.jobs[job].options.len(),
        };
        let pinned_is_past = self.begun[job].is_none() && problem.jobs[job].pinned.is_some_and(|pinned| pinned < self.slot);
        !pinned_is_past && options.into_iter().any(|o| problem.ahead(job, o, self.slot, self.cursor) >= left - NEARLY)
    }
}

/// The best plan for a volume that was found.
pub(super) fn search(problem: &Problem<'_>) -> Found {
    let jobs = problem.jobs.len();
    let by_rule: Vec<usize> = (0..jobs).collect();
    let mut by_bytes = by_rule.clone();
    by_bytes.sort_by_key(|j| (problem.jobs[*j].pinned.is_none(), problem.jobs[*j].options[0].bytes));
    let mut by_gain = by_rule.clone();
    by_gain.sort_by_key(|j| {
        let job = &problem.jobs[*j];
        (job.pinned.is_none(), std::cmp::Reverse(job.options.iter().map(|o| o.comes_back).max()))
    });
    let mut best = in_order(problem, &by_rule);
    if jobs > 1 {
        for order in [&by_bytes, &by_gain] {
            let other = in_order(problem, order);
            if other.score > best.score {
                best = other;
            }
        }
    }
    if jobs <= FEW && problem.learnt.is_some() {
        let mut steps = STEPS;
        every_order(problem, State::start(problem), &mut best, &mut steps);
    }
    best
}

/// Always the first of this order that can be done, into the best target that fits then. What doesn't end is left out,
/// and what is left is tried without it.
fn in_order(problem: &Problem<'_>, order: &[usize]) -> Found {
    let mut order = order.to_vec();
    loop {
        let mut state = State::start(problem);
        while state.slot < problem.slots.len() {
            let next = order.iter().find_map(|job| {
                if state.begun[*job].is_none() && !state.can_end(problem, *job) {
                    return None;
                }
                (0..problem.jobs[*job].options.len()).find_map(|option| state.piece(problem, *job, option, f64::INFINITY))
            });
            match next {
                Some(piece) => state.take(problem, piece),
                None => state.next_slot(),
            }
        }
        let unfinished = |job: &usize| state.begun[*job].is_some() && !state.done[*job];
        match order.iter().rposition(unfinished) {
            None => return Found { score: state.score, pieces: state.pieces },
            Some(place) => drop(order.remove(place)),
        }
    }
}

/// Tries everything that could be better than the best found so far.
fn every_order(problem: &Problem<'_>, state: State, best: &mut Found, steps: &mut u32) {
    if state.score > best.score && state.begun.iter().zip(&state.done).all(|(begun, done)| begun.is_none() || *done) {
        *best = Found { score: state.score, pieces: state.pieces.clone() };
    }
    if state.slot == problem.slots.len() || *steps == 0 || bound(problem, &state) <= best.score {
        return;
    }
    *steps -= 1;
    for job in 0..problem.jobs.len() {
        let options = match state.begun[job] {
            Some(begun) => begun.option..begun.option + 1,
            None => 0..problem.jobs[job].options.len(),
        };
        for option in options {
            let Some(piece) = state.piece(problem, job, option, f64::INFINITY) else { continue };
            let mut lengths = vec![piece];
            // Or no longer than it must, for the sake of what has no other window.
            let left = state.begun[job].map_or(1.0, |begun| begun.left);
            let must = left - problem.ahead(job, option, state.slot + 1, 0.0);
            if must > NEARLY && must < piece.share - NEARLY {
                lengths.extend(state.piece(problem, job, option, must + NEARLY));
            }
            for piece in lengths {
                let mut next = state.clone();
                next.take(problem, piece);
                every_order(problem, next, best, steps);
            }
        }
    }
    let mut next = state;
    next.next_slot();
    every_order(problem, next, best, steps);
}

/// The best that could become of a state.
fn bound(problem: &Problem<'_>, state: &State) -> Score {
    let mut score = state.score;
    for (job, j) in problem.jobs.iter().enumerate().filter(|(job, _)| !state.done[*job]) {
        if state.can_end(problem, job) {
            score.done += 1;
            score.in_time += 1;
            score.pinned += usize::from(j.pinned.is_some());
            let option = state.begun[job].map_or(0, |begun| begun.option);
            score.bytes.0 += j.options[option].bytes.0;
        } else if state.begun[job].is_some() {
            // It can't end any more, and shouldn't have been begun.
            return Score { pinned: 0, in_time: 0, done: 0, bytes: std::cmp::Reverse(u64::MAX) };
        }
    }
    score
}
