//! The plan: which merge in which window, and what there is to say about it.

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::outlook::{VolumeOutlook, gains, outlook, used_up};
use super::search::{Found, search};
use super::verdict::{self, Verdict};
use super::volume::{Piece, Problem};
use super::{OccurrenceKey, PlanInput};
use crate::cost::{Estimate, MergeLoad, UsedUp};
use crate::snapshot::{DiskId, ImageId, MachineId};
use crate::units::ByteCount;

/// The plan of all merges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MergePlan {
    /// When it was made.
    pub made: DateTime<Utc>,
    /// Each merge that is due, in the order of the input.
    pub merges: Vec<PlannedMerge>,
    /// Each volume, in the order of the input.
    pub volumes: Vec<VolumeOutlook>,
}

/// What is planned for a merge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedMerge {
    /// The machine.
    pub machine: MachineId,
    /// The disk.
    pub disk: DiskId,
    /// The volume.
    pub volume: String,
    /// The verdict.
    pub verdict: Verdict,
    /// What is done when; nothing where it isn't planned.
    pub pieces: Vec<PlannedPiece>,
    /// The image that everything moves into: the one planned, otherwise the one that moves fewest bytes.
    pub target: Option<ImageId>,
    /// Data bytes to move, at the planned start (or now).
    pub bytes: ByteCount,
    /// Free space that it needs then.
    pub scratch: ByteCount,
    /// Bytes that come back at its end.
    pub comes_back: ByteCount,
    /// How long the whole of it takes as planned (or as the machine is now), without a window's limit.
    pub time: Option<Estimate>,
    /// How long it would take with the machine stopped: what is more is because of the guest.
    pub idle_time: Option<Estimate>,
    /// It must have ended by then: later, if nothing is merged, the volume may be below its floor, or the merge may no
    /// longer fit. `None`: no such time is known.
    pub deadline: Option<DateTime<Utc>>,
    /// The last start in a window that still makes the deadline; `None` where there is no deadline, or no such start.
    pub latest_safe_start: Option<DateTime<Utc>>,
    /// Whether the plan ends it only when the volume may be below its floor.
    pub is_late: bool,
    /// When the volume is full if all others are done as planned and this one isn't.
    pub if_skipped: UsedUp,
    /// Why it is done when it is; `None` where it isn't planned.
    pub reason: Option<OrderReason>,
}

/// What is done of a merge in one window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedPiece {
    /// In which.
    pub occurrence: OccurrenceKey,
    /// When it starts (with the machine down, where it is shut down for it).
    pub start: DateTime<Utc>,
    /// When it probably ends.
    pub p50_end: DateTime<Utc>,
    /// When it has ended in 9 of 10 cases; where it pauses, when it does.
    pub p90_end: DateTime<Utc>,
    /// Bytes that are moved at least; the last piece has what is left.
    pub bytes: ByteCount,
    /// Where it goes on, if it pauses.
    pub resumes: Option<OccurrenceKey>,
    /// When a machine that runs is shut down, and by when it is up again.
    pub down: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

/// Why a merge is done when it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderReason {
    /// Somebody has put it there.
    Pinned,
    /// It fits only after the space that another gave back.
    AfterSpaceOf {
        /// The other's place among the merges.
        merge: usize,
    },
    /// It waits for another that comes first on the same volume: one at a time.
    WaitsFor {
        /// The other's place among the merges.
        merge: usize,
    },
    /// It is the first: its deadline is the earliest of all that could be done then.
    EarliestDeadline {
        /// The deadline.
        at: DateTime<Utc>,
    },
    /// It is the first: among equals, it moves fewest bytes.
    FewestBytes,
    /// It is the first because so more fits, or less is moved.
    FitsBest,
    /// There is no other merge on the volume.
    OnlyOne,
}

impl MergePlan {
    /// The verdict on a machine: the worst of its merges'.
    pub fn verdict(&self, machine: MachineId) -> Verdict {
        let merges = self.merges.iter().filter(|merge| merge.machine == machine);
        merges.map(|merge| merge.verdict).max_by_key(Verdict::rank).unwrap_or(Verdict::NothingDue)
    }
}

/// Makes the plan: the same input always gives the same plan.
pub fn plan(input: &PlanInput) -> MergePlan {
    let mut merges: Vec<Option<PlannedMerge>> = vec![None; input.work.len()];
    let mut volumes = Vec::new();
    for volume in &input.volumes {
        let problem = Problem::of(input, volume);
        let found = search(&problem);
        volumes.push(outlook(&problem, &found.pieces));
        for job in 0..problem.jobs.len() {
            merges[problem.jobs[job].place] = Some(planned(&problem, &found, job));
        }
    }
    let unknown = input.work.iter().zip(merges);
    let merges = unknown.map(|(due, merge)| merge.unwrap_or_else(|| nothing_known(due))).collect();
    MergePlan { made: input.now, merges, volumes }
}

/// A merge without options, or on a volume that the input doesn't have.
fn nothing_known(due: &super::DueMerge) -> PlannedMerge {
    PlannedMerge {
        machine: due.machine,
        disk: due.disk.clone(),
        volume: due.volume.clone(),
        verdict: Verdict::TimeUnknown,
        pieces: Vec::new(),
        target: None,
        bytes: ByteCount::ZERO,
        scratch: ByteCount::ZERO,
        comes_back: ByteCount::ZERO,
        time: None,
        idle_time: None,
        deadline: None,
        latest_safe_start: None,
        is_late: false,
        if_skipped: UsedUp::default(),
        reason: None,
    }
}

fn planned(problem: &Problem<'_>, found: &Found, job: usize) -> PlannedMerge {
    let j = &problem.jobs[job];
    let own: Vec<Piece> = found.pieces.iter().filter(|piece| piece.job == job).copied().collect();
    let (option, at) = own.first().map_or((0, 0.0), |first| (first.option, first.start));
    let as_now = if j.due.running && j.options[option].live { MergeLoad::Live(j.due.guest) } else { MergeLoad::Stopped };
    let load = own.first().and_then(|first| problem.load(job, option, first.slot)).unwrap_or(as_now);
    let bytes = problem.bytes_at(job, option, at);
    let others = gains(problem, found.pieces.iter().filter(|piece| piece.job != job));
    let end = own.last().map(|last| last.p90_end);
    let gained_before = |end: f64| others.iter().filter(|(at, _)| *at <= end).map(|(_, bytes)| bytes).sum::<f64>();
    PlannedMerge {
        machine: j.due.machine,
        disk: j.due.disk.clone(),
        volume: j.due.volume.clone(),
        verdict: verdict::of(problem, found, job),
        pieces: pieces(problem, &own, bytes),
        target: Some(j.options[option].target),
        bytes: ByteCount(bytes),
        scratch: ByteCount(problem.scratch_at(job, option, at).ceil() as u64),
        comes_back: j.options[option].comes_back,
        time: problem.estimate(job, option, at, load),
        idle_time: problem.estimate(job, option, at, MergeLoad::Stopped),
        deadline: j.deadline.map(|deadline| time(problem, deadline)),
        latest_safe_start: j.deadline.and_then(|d| verdict::latest_safe_start(problem, job, d)).map(|at| time(problem, at)),
        is_late: end.is_some_and(|end| !problem.is_in_time(end, gained_before(end))),
        if_skipped: used_up(problem, &others),
        reason: own.first().map(|first| reason(problem, found, first)),
    }
}

/// An instant of the plan, to the millisecond: where a window starts, exactly that, whatever time it is now.
pub(super) fn time(problem: &Problem<'_>, seconds: f64) -> DateTime<Utc> {
    let after = TimeDelta::nanoseconds((seconds * 1e9) as i64);
    problem.input.now.checked_add_signed(after).map_or(DateTime::<Utc>::MAX_UTC, |at| at.round_subsecs(3))
}

fn pieces(problem: &Problem<'_>, own: &[Piece], bytes: u64) -> Vec<PlannedPiece> {
    let parameters = &problem.input.parameters;
    let key = |piece: &Piece| problem.slots[piece.slot].occurrence.key;
    let mut left = bytes;
    let mut planned = Vec::new();
    for (i, piece) in own.iter().enumerate() {
        let moved = if piece.ends { left } else { ((bytes as f64 * piece.share) as u64).min(left) };
        left -= moved;
        let down =
            (time(problem, piece.start - parameters.shutdown_seconds), time(problem, piece.p90_end + parameters.start_seconds));
        planned.push(PlannedPiece {
            occurrence: key(piece),
            start: time(problem, piece.start),
            p50_end: time(problem, piece.p50_end),
            p90_end: time(problem, piece.p90_end),
            bytes: ByteCount(moved),
            resumes: own.get(i + 1).map(key),
            down: piece.stops.then_some(down),
        });
    }
    planned
}

fn reason(problem: &Problem<'_>, found: &Found, first: &Piece) -> OrderReason {
    let job = &problem.jobs[first.job];
    if job.pinned.is_some() {
        return OrderReason::Pinned;
    }
    let place = |piece: &Piece| problem.jobs[piece.job].place;
    let before: Vec<&Piece> = found.pieces.iter().filter(|p| p.p90_end <= first.start && p.job != first.job).collect();
    let giver = before.iter().rev().find(|piece| piece.ends);
    if let Some(giver) = giver
        && problem.scratch_at(first.job, first.option, first.start) > problem.free_at(first.start, 0.0)
    {
        return OrderReason::AfterSpaceOf { merge: place(giver) };
    }
    if let Some(other) = before.iter().rev().find(|piece| piece.slot == first.slot) {
        return OrderReason::WaitsFor { merge: place(other) };
    }
    let later = || found.pieces.iter().filter(|p| p.start >= first.start && p.job != first.job).map(|p| &problem.jobs[p.job]);
    if problem.jobs.len() == 1 {
        return OrderReason::OnlyOne;
    }
    let deadline = |d: Option<f64>| d.unwrap_or(f64::INFINITY);
    match job.deadline {
        Some(at) if later().all(|other| at < deadline(other.deadline)) => OrderReason::EarliestDeadline { at: time(problem, at) },
        _ if later().all(|other| {
            deadline(job.deadline) <= deadline(other.deadline) && job.options[0].bytes <= other.options[0].bytes
        }) =>
        {
            OrderReason::FewestBytes
        }
        _ => OrderReason::FitsBest,
    }
}
