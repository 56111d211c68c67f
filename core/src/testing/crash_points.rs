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
