//! What there is to say about a merge, in one sentence's figures.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::plan::time;
use super::search::Found;
use super::volume::{Piece, Problem};
use crate::cost::{MergeLoad, MergeMode};
use crate::units::ByteCount;

/// Whether a merge fits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is due.
    NothingDue,
    /// It fits into one window.
    Fits {
        /// Seconds that are left in it, in 9 of 10 cases at least.
        spare_seconds: f64,
    },
    /// It doesn't fit into one window, but merges resume: nothing is moved twice.
    NeedsWindows {
        /// How many it takes.
        windows: u32,
        /// It pauses for the first time.
        pauses: DateTime<Utc>,
        /// And goes on.
        resumes: DateTime<Utc>,
        /// Seconds that are left in the last one.
        spare_seconds: f64,
    },
    /// While the machine runs it doesn't fit; stopped, it does. It is planned so where there are windows that stop it.
    FitsOnlyStopped {
        /// Windows that it takes.
        windows: u32,
        /// Seconds that are left in the last one.
        spare_seconds: f64,
        /// Whether the windows stop the machine; otherwise they would have to be changed for it.
        is_planned: bool,
    },
    /// All its windows together are too short, or others need them.
    FitsNoWindow {
        /// Seconds that it takes (in 9 of 10 cases at most).
        needs_seconds: f64,
        /// Seconds that its windows have for it, were it alone.
        windows_seconds: f64,
    },
    /// There is no window for it.
    NoWindows,
    /// How long merges take isn't known yet.
    TimeUnknown,
    /// It needs more space than is free, in every window.
    WontFitInFreeSpace {
        /// What it needs.
        needs: ByteCount,
        /// The most that will practically always be free at the start of one of its windows.
        free: ByteCount,
        /// The start of that window.
        at: DateTime<Utc>,
    },
}

impl Verdict {
    /// How bad it is.
    pub fn rank(&self) -> u8 {
        match self {
            Self::NothingDue => 0,
            Self::Fits { .. } => 1,
            Self::NeedsWindows { .. } => 2,
            Self::FitsOnlyStopped { .. } => 3,
            Self::FitsNoWindow { .. } => 4,
            Self::NoWindows => 5,
            Self::TimeUnknown => 6,
            Self::WontFitInFreeSpace { .. } => 7,
        }
    }
}

pub(super) fn of(problem: &Problem<'_>, found: &Found, job: usize) -> Verdict {
    let own: Vec<&Piece> = found.pieces.iter().filter(|piece| piece.job == job).collect();
    let (Some(first), Some(last)) = (own.first(), own.last()) else { return why_not(problem, found, job) };
    let spare_seconds = last.last - last.p90_end;
    let windows = own.len() as u32;
    if own.iter().any(|piece| piece.stops) && fit_alone(problem, job, Some(MergeMode::Live), None).is_none() {
        return Verdict::FitsOnlyStopped { windows, spare_seconds, is_planned: true };
    }
    match own.get(1) {
        None => Verdict::Fits { spare_seconds },
        Some(second) => Verdict::NeedsWindows {
            windows,
            pauses: time(problem, first.p90_end),
            resumes: time(problem, second.start),
            spare_seconds,
        },
    }
}

/// Why a merge isn't planned.
fn why_not(problem: &Problem<'_>, found: &Found, job: usize) -> Verdict {
    let j = &problem.jobs[job];
    if problem.learnt.is_none() {
        return Verdict::TimeUnknown;
    }
    let may = |slot: usize| problem.slots[slot].occurrence.scope.covers(j.due.machine);
    let slots = || (0..problem.slots.len()).filter(|slot| may(*slot));
    if slots().next().is_none() {
        return Verdict::NoWindows;
    }
    // Where somebody has put it, or else anywhere.
    let starts = || slots().filter(|slot| j.pinned.is_none_or(|pinned| pinned == *slot));
    let gained = |at: f64| -> f64 {
        let before = found.pieces.iter().filter(|piece| piece.ends && piece.p90_end <= at);
        before.map(|piece| problem.jobs[piece.job].options[piece.option].comes_back.0 as f64).sum()
    };
    let free_in = |slot: usize| {
        // After what else is done in that window.
        let ends = found.pieces.iter().filter(|piece| piece.slot == slot).map(|piece| piece.p90_end);
        let times = std::iter::once(problem.slots[slot].start).chain(ends);
        times.map(|at| (problem.free_at(at, gained(at)), at)).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default()
    };
    let needs_at = |at: f64| (0..j.options.len()).map(|o| problem.scratch_at(job, o, at)).min_by(f64::total_cmp).unwrap_or(0.0);
    let most = starts().map(free_in).max_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((free, at)) = most
        && starts().map(free_in).all(|(free, at)| needs_at(at) > free)
    {
        let bytes = |value: f64| ByteCount(value.max(0.0).ceil() as u64);
        return Verdict::WontFitInFreeSpace { needs: bytes(needs_at(at)), free: bytes(free), at: time(problem, at) };
    }
    if j.due.running
        && fit_alone(problem, job, None, None).is_none()
        && let Some((windows, spare_seconds)) = fit_alone(problem, job, None, Some(MergeLoad::Stopped))
    {
        return Verdict::FitsOnlyStopped { windows, spare_seconds, is_planned: false };
    }
    let load = if j.due.running { MergeLoad::Live(j.due.guest) } else { MergeLoad::Stopped };
    let needs_seconds = problem.pace(job, 0, 0.0, load, None).map_or(0.0, |pace| pace.p90);
    let windows_seconds = slots()
        .filter(|s| j.pinned.is_none_or(|pinned| *s >= pinned))
        .map(|s| problem.slots[s].end - problem.slots[s].start)
        .sum();
    Verdict::FitsNoWindow { needs_seconds, windows_seconds }
}

/// Whether a merge, were it alone, would end in its windows (of one mode; or as if all of them were for this load): how
/// many it takes, and the seconds left in the last.
fn fit_alone(problem: &Problem<'_>, job: usize, mode: Option<MergeMode>, load: Option<MergeLoad>) -> Option<(u32, f64)> {
    let j = &problem.jobs[job];
    let parameters = &problem.input.parameters;
    (0..j.options.len()).find_map(|option| {
        let (mut left, mut windows) = (1.0, 0);
        for (index, slot) in problem.slots.iter().enumerate() {
            let is_first = left < 1.0 || j.pinned.is_none_or(|pinned| pinned == index);
            let is_of_mode = mode.is_none_or(|mode| slot.occurrence.mode == mode);
            if !is_first || !is_of_mode || !slot.occurrence.scope.covers(j.due.machine) {
                continue;
            }
            let Some(here) = load.or_else(|| problem.load(job, option, index)) else { continue };
            let stops = j.due.running && here == MergeLoad::Stopped;
            let (shutdown, start) = if stops { (parameters.shutdown_seconds, parameters.start_seconds) } else { (0.0, 0.0) };
            let pace = problem.pace(job, option, slot.start, here, Some(index))?;
            let room = slot.end - slot.start - shutdown - start - pace.batch;
            if room < 0.0 || (room < pace.p90 * left && room < pace.batch) {
                continue;
            }
            windows += 1;
            if room >= pace.p90 * left {
                return Some((windows, room - pace.p90 * left));
            }
            left -= room / pace.p90;
        }
        None
    })
}

/// The last start that makes a deadline, using the windows up to it; without any window, at any time.
pub(super) fn latest_safe_start(problem: &Problem<'_>, job: usize, deadline: f64) -> Option<f64> {
    let j = &problem.jobs[job];
    let parameters = &problem.input.parameters;
    let load = if j.due.running && j.options[0].live { MergeLoad::Live(j.due.guest) } else { MergeLoad::Stopped };
    if !problem.slots.iter().any(|slot| slot.occurrence.scope.covers(j.due.machine)) {
        let pace = problem.pace(job, 0, deadline, load, None)?;
        return Some(deadline - pace.p90).filter(|start| *start >= 0.0);
    }
    let mut left = 1.0;
    for (index, slot) in problem.slots.iter().enumerate().rev() {
        if !slot.occurrence.scope.covers(j.due.machine) {
            continue;
        }
        // Into any target; for it, the one that moves fewest bytes of those that the window allows.
        let Some((option, here)) = (0..j.options.len()).find_map(|o| Some((o, problem.load(job, o, index)?))) else { continue };
        let pace = problem.pace(job, option, deadline, here, Some(index))?;
        let stops = problem.stops(job, index);
        let (shutdown, start) = if stops { (parameters.shutdown_seconds, parameters.start_seconds) } else { (0.0, 0.0) };
        let (from, to) = (slot.start + shutdown, (slot.end - start - pace.batch).min(deadline));
        if to - from < pace.batch.min(pace.p90 * left) {
            continue;
        }
        if pace.p90 * left <= to - from {
            return Some(to - pace.p90 * left);
        }
        left -= (to - from) / pace.p90;
    }
    None
}
