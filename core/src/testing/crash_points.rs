//! Crash at every step of an operation, reopen, compare.

use super::{CrashMode, MemHost, Random};

/// Where and how an operation was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashPoint {
    /// The changing step of the operation that was not done, counted from 0.
    pub step: u64,
    /// Steps of the whole operation; with `step` equal to it, the operation was complete.
    pub steps: u64,
    /// Killed, or power lost.
    pub mode: CrashMode,
    /// What decides which unflushed changes are kept.
    pub seed: u64,
}

/// How an operation is crashed at all of its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EveryStep<'a> {
    /// What the operation is called in the line that counts its crash points.
    pub name: &'a str,
    /// What everything random follows from.
    pub seed: u64,
    /// Losses of power at each step, each losing, keeping and tearing other writes; a kill comes on top.
    pub power_losses: u64,
    /// An operation with fewer steps isn't what it was meant to be.
    pub least_steps: u64,
    /// Where it has more steps, about so many are drawn by the seed, the last ones among them.
    pub most_points: u64,
}

/// Steps at the end of an operation that are always among those that are drawn.
const LAST: u64 = 8;

impl EveryStep<'_> {
    /// Runs `setup` once, then `operation` on a copy of its file system once for every changing step of it (or those that
    /// are drawn), crashing there, and `check` on what is found after a kill and after each loss of power. The last point
    /// is after the last step. Prints the number of points.
    pub fn crash<S, R>(
        &self,
        setup: impl FnOnce(&MemHost) -> S,
        operation: impl Fn(&MemHost, &S) -> R,
        check: impl Fn(&MemHost, &S, &R, CrashPoint),
    ) {
        let prepared = MemHost::new();
        let setup = setup(&prepared);
        let whole = prepared.fork();
        drop(operation(&whole, &setup));
        let steps = whole.steps();
        assert!(steps >= self.least_steps, "{} has only {steps} steps", self.name);
        let (mut random, mut points) = (Random::new(self.seed), 0);
        let (drawn, of) = (self.most_points.saturating_sub(LAST), steps.saturating_sub(LAST));
        for step in 0..=steps {
            if step > 0 && step < of && steps >= self.most_points && !random.chance(drawn, of) {
                continue;
            }
            points += 1;
            let host = prepared.fork();
            host.crash_at(step);
            let result = operation(&host, &setup);
            for salt in 0..=self.power_losses {
                let mode = if salt == 0 { CrashMode::Kill } else { CrashMode::PowerLoss };
                let seed = Random::new(self.seed ^ (step << 8) ^ salt).next_u64();
                let point = CrashPoint { step, steps, mode, seed };
                let _announce = Announce(point);
                check(&host.crash(mode, seed), &setup, &result, point);
            }
        }
        println!("crash points: {}: {points} of {} steps, x {}", self.name, steps + 1, self.power_losses + 1);
    }
}

/// Says where it happened when a check panics.
struct Announce(CrashPoint);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("at {:?}", self.0);
        }
    }
}

/// Runs `setup` once, then `operation` on a copy of its file system once for every changing step of
/// it and both crash modes (power loss with two seeds), crashing at that step, and `check` on what is found.
///
/// `operation` returns what it managed to do (such as the writes that were acknowledged); it must
/// come to an end when every host call fails. The last point of each mode is after its last step.
pub fn for_each_crash_point<S, R>(
    seed: u64,
    setup: impl FnOnce(&MemHost) -> S,
    operation: impl Fn(&MemHost, &S) -> R,
    check: impl Fn(&MemHost, &S, R, CrashPoint),
) {
    for_some_crash_points(seed, u64::MAX, setup, operation, check);
}

/// The same with at most about `limit` steps, chosen by the seed, where the operation has more;
/// the first and the last are always among them.
pub fn for_some_crash_points<S, R>(
    seed: u64,
    limit: u64,
    setup: impl FnOnce(&MemHost) -> S,
    operation: impl Fn(&MemHost, &S) -> R,
    check: impl Fn(&MemHost, &S, R, CrashPoint),
) {
    let prepared = MemHost::new();
    let setup = setup(&prepared);
    let whole = prepared.fork();
    drop(operation(&whole, &setup));
    let steps = whole.steps();
    let mut random = Random::new(seed);
    for step in 0..=steps {
        if steps > limit && step != 0 && step != steps && !random.chance(limit, steps) {
            continue;
        }
        for (mode, salt) in [(CrashMode::Kill, 0), (CrashMode::PowerLoss, 1), (CrashMode::PowerLoss, 2)] {
            let seed = Random::new(seed ^ (step << 8) ^ salt).next_u64();
            let point = CrashPoint { step, steps, mode, seed };
            let _announce = Announce(point);
            let host = prepared.fork();
            host.crash_at(step);
            let result = operation(&host, &setup);
            check(&host.crash(mode, seed), &setup, result, point);
        }
    }
}
