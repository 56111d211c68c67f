//! The plan against a search that tries everything: which merge when, into which target, and where it pauses. The search
//! is written apart from the planner, and knows only what a plan is and how long a merge takes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::*;
use crate::cost::{MergeLoad, MergeWork};

/// Put where somebody wanted it, ended in time, ended at all, bytes (fewer is better).
type Score = (usize, usize, usize, i128);

/// Tries everything.
struct Everything<'a> {
    input: &'a PlanInput,
    /// Seconds that a merge takes in a window in 9 of 10 cases: by merge, target and window.
    seconds: Vec<Vec<Vec<Option<f64>>>>,
    /// Whether a merge may pause where it likes, not only where its window ends.
    anywhere: bool,
    best: Score,
    steps: u64,
}

#[derive(Clone)]
struct At {
    window: usize,
    time: f64,
    gained: f64,
    /// By merge: the target that it was begun with, and the share that is left.
    begun: Vec<Option<(usize, f64)>>,
    down: BTreeSet<MachineId>,
    score: Score,
}

const STEPS: u64 = 150_000;

impl<'a> Everything<'a> {
    fn of(input: &'a PlanInput) -> Self {
        let calibration = &input.volumes[0].calibration;
        let seconds = |due: &DueMerge, option: &MergeOption, window: &Occurrence| {
            let live = due.running && window.mode == MergeMode::Live;
            let load = if live { MergeLoad::Live(due.guest) } else { MergeLoad::Stopped };
            let work = MergeWork { bytes: option.bytes.0, stretches: option.stretches, merges: 1 };
            let taken = calibration.estimate(work, load).expect("it was taught").p90;
            let may = window.scope.covers(due.machine) && (option.live || !live);
            may.then(|| taken.max(window.limit.map_or(0.0, |limit| option.bytes.0 as f64 / limit.0)))
        };
        let windows = |due, option| input.occurrences.iter().map(|window| seconds(due, option, window)).collect();
        let all = input.work.iter().map(|due| due.options.iter().map(|option| windows(due, option)).collect()).collect();
        Self { input, seconds: all, anywhere: input.work.len() <= 3, best: (0, 0, 0, 0), steps: 0 }
    }

    fn search(&mut self) {
        let begun = vec![None; self.input.work.len()];
        self.go(At { window: 0, time: 0.0, gained: 0.0, begun, down: BTreeSet::new(), score: (0, 0, 0, 0) });
    }

    fn safely_free(&self, at: f64, gained: f64) -> f64 {
        let volume = &self.input.volumes[0];
        volume.free.0 as f64 + gained - volume.growth.added_along(Line::Safe, at / 86_400.0)
    }

    fn go(&mut self, at: At) {
        self.steps += 1;
        if at.begun.iter().all(|begun| begun.is_none_or(|(_, left)| left == 0.0)) {
            self.best = self.best.max(at.score);
        }
        // At best, all that is left ends in time with fewest bytes.
        let mut most = at.score;
        for (job, begun) in at.begun.iter().enumerate().filter(|(_, begun)| begun.is_none_or(|(_, left)| left > 0.0)) {
            let due = &self.input.work[job];
            let bytes = |o: usize| i128::from(due.options[o].bytes.0);
            let least = begun.map_or_else(|| (0..due.options.len()).map(bytes).min().unwrap(), |(option, _)| bytes(option));
            most = (most.0 + usize::from(due.pinned.is_some()), most.1 + 1, most.2 + 1, most.3 - least);
        }
        if at.window == self.input.occurrences.len() || self.steps > STEPS || most <= self.best {
            return;
        }
        for job in 0..self.input.work.len() {
            for option in 0..self.input.work[job].options.len() {
                self.give(&at, job, option);
            }
        }
        self.go(At { window: at.window + 1, down: BTreeSet::new(), ..at });
    }

    /// Gives time in this window to a merge, as much as there is, and also less.
    fn give(&mut self, at: &At, job: usize, option: usize) {
        let (due, window) = (&self.input.work[job], &self.input.occurrences[at.window]);
        let target = &due.options[option];
        let is_wrong = match at.begun[job] {
            None => due.pinned.is_some_and(|pinned| pinned != window.key),
            Some((begun_with, left)) => begun_with != option || left == 0.0,
        };
        let Some(seconds) = self.seconds[job][option][at.window].filter(|_| !is_wrong) else { return };
        let since = |time: DateTime<Utc>| (time - self.input.now).as_seconds_f64();
        let most = self.input.parameters.batch.0 as f64;
        // Half a second's worth, at least a mebibyte.
        let step = window.limit.map_or(most, |limit| most.min((limit.0 / 2.0).floor().max(f64::from(1 << 20))));
        let batch = (step / target.bytes.0 as f64).min(1.0);
        let stops = due.running && window.mode == MergeMode::Stopped;
        let mut start = at.time.max(since(window.start()));
        let mut end = since(window.end).min(since(self.input.until)) - batch * seconds;
        if stops {
            start += if at.down.contains(&due.machine) { 0.0 } else { self.input.parameters.shutdown_seconds };
            end -= self.input.parameters.start_seconds;
        }
        if end < start || target.scratch.0 as f64 > self.safely_free(start, at.gained) {
            return;
        }
        let left = at.begun[job].map_or(1.0, |(_, left)| left);
        let all = left.min((end - start) / seconds);
        let mut shares = vec![all];
        if self.anywhere {
            shares.extend((1..10).map(|n| f64::from(n) / 10.0).filter(|share| *share < all));
        }
        for share in shares {
            let ends = share == left;
            if !ends && share < batch {
                continue;
            }
            let mut next = at.clone();
            next.time = start + share * seconds;
            next.begun[job] = Some((option, if ends { 0.0 } else { left - share }));
            if stops {
                next.down.insert(due.machine);
            }
            if ends {
                let in_time = self.safely_free(next.time, at.gained) >= self.input.volumes[0].floor.0 as f64;
                next.score.0 += usize::from(due.pinned.is_some());
                next.score.1 += usize::from(in_time);
                next.score.2 += 1;
                next.score.3 -= i128::from(target.bytes.0);
                next.gained += target.comes_back.0 as f64;
            }
            self.go(next);
        }
    }
}

/// The same of a plan.
fn score(input: &PlanInput, plan: &MergePlan) -> Score {
    let done: Vec<_> = plan.merges.iter().zip(&input.work).filter(|(merge, _)| !merge.pieces.is_empty()).collect();
    let pinned = done.iter().filter(|(_, due)| due.pinned.is_some()).count();
    let bytes: i128 = done.iter().map(|(merge, _)| i128::from(merge.bytes.0)).sum();
    (pinned, done.iter().filter(|(merge, _)| !merge.is_late).count(), done.len(), -bytes)
}

fn case(rng: &mut Random) -> PlanInput {
    let windows = 1 + rng.below(4);
    let mut at = 0.0;
    let mut occurrences = Vec::new();
    for n in 0..windows {
        at += rng.below(40) as f64;
        let long = 0.05 + rng.below(60) as f64 / 100.0;
        let mut window = occurrence(n, at, at + long);
        at += long;
        if rng.chance(1, 3) {
            window.mode = MergeMode::Stopped;
        }
        if rng.chance(1, 3) {
            window.scope = Scope::Machines((0..5).filter(|_| rng.chance(1, 2)).map(machine).collect());
        }
        if rng.chance(1, 8) {
            window.limit = Some(ByteRate(30e6 + rng.below(60) as f64 * 1e6));
        }
        occurrences.push(window);
    }
    let work = (0..1 + rng.below(5)).map(|n| {
        let most = if rng.chance(1, 2) { 40 } else { 160 };
        let mut due = due(n, 1 + rng.below(most));
        due.machine = machine(rng.below(5));
        due.running = rng.chance(1, 2);
        due.guest = Some(ByteRate(rng.below(60) as f64 * 1e6));
        due.options[0].comes_back = ByteCount(rng.below(60) * GB);
        due.options[0].live = rng.chance(3, 4);
        if rng.chance(1, 2) {
            due.options[0].scratch = ByteCount(rng.below(40) * GB);
        }
        if rng.chance(1, 2) {
            // More to move, for less space or while it runs.
            let bytes = due.options[0].bytes + ByteCount(rng.below(30) * GB);
            due.options.push(MergeOption { bytes, comes_back: due.options[0].comes_back, ..option(n * 10 + 1, 1) });
        }
        if rng.chance(1, 8) {
            due.pinned = Some(occurrences[rng.below(windows) as usize].key);
        }
        due
    });
    let work = work.collect();
    let mut input = input(work, occurrences);
    input.parameters = PlanParameters { shutdown_seconds: 60.0, start_seconds: 40.0, ..input.parameters };
    input.volumes[0].free = ByteCount(GB + rng.below(50) * GB);
    if rng.chance(3, 4) {
        input.volumes[0].growth = growing(rng.below(20) * GB);
    }
    input
}

#[test]
fn no_other_plan_is_better() {
    let (began, mut cases, mut whole, mut tight, mut worse) = (Instant::now(), 0, 0, 0, Vec::new());
    for seed in 0..3000 {
        let mut rng = Random::new(seed);
        let input = case(&mut rng);
        let plan = planned(&input);
        let mut all = Everything::of(&input);
        all.search();
        cases += 1;
        whole += usize::from(all.steps <= STEPS);
        let found = score(&input, &plan);
        tight += usize::from(found.1 < input.work.len());
        if found < all.best {
            worse.push((seed, found, all.best));
        }
        if began.elapsed() > Duration::from_secs(120) {
            break;
        }
    }
    println!("{cases} cases, {whole} searched whole, in {tight} not all end in time; worse: {worse:?}");
    assert!(cases >= 300 && whole * 8 >= cases * 7 && tight * 5 > cases, "the cases say something");
    assert!(worse.is_empty(), "{} of {cases} are worse: {worse:?}", worse.len());
}
