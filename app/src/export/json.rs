//! The plan as one document. Sizes are bytes, times are seconds, instants are RFC 3339 in UTC, identifiers are UUIDs.
//! Fields may be added in later versions; none is renamed or removed. What isn't known (yet) is `null`.

use chrono::{DateTime, Utc};
use serde::Serialize;
use snaptree_core::cost::{Band, Estimate, MergeMode, Severity, UsedUp};
use snaptree_core::engine::{Expected, PlanState};
use snaptree_core::snapshot::MachineId;
use snaptree_core::units::{ByteCount, ByteRate};
use snaptree_core::window::{
    FreePoint, MaintenanceWindow, OccurrenceKey, OrderReason, PlanAction, PlanFindingKind, PlannedMerge, Scope, Verdict,
    When as WindowWhen, WindowId,
};

use super::Span;
use crate::text::When;
use crate::text::plan::{self as words, Names, window_name};

/// A plan.
#[derive(Debug, Serialize)]
pub struct Document {
    /// When it was made, and until when it is planned.
    pub made: DateTime<Utc>,
    pub until: DateTime<Utc>,
    pub windows: Vec<Window>,
    /// Each merge that is due, whatever span was asked for; only its pieces are those of the span.
    pub merges: Vec<Merge>,
    pub volumes: Vec<Volume>,
    /// What somebody should look at, the worst first.
    pub findings: Vec<Finding>,
    /// What was planned for a window that is over, and never begun.
    pub missed: Vec<Missed>,
    /// When an agent was last at work.
    pub agent_seen: Option<DateTime<Utc>>,
}

/// A maintenance window.
#[derive(Debug, Serialize)]
pub struct Window {
    pub id: WindowId,
    pub name: String,
    /// `{weekly: {days, from, to}}` or `{once: {from, to}}`, in the computer's own time.
    pub when: WindowWhen,
    /// The names of its machines; `null` where it is for all.
    pub machines: Option<Vec<String>>,
    /// `live` or `stopped`.
    pub mode: MergeMode,
    /// Bytes a second.
    pub limit: Option<ByteRate>,
    pub enabled: bool,
    /// When it takes place next, within the plan.
    pub next: Option<DateTime<Utc>>,
    pub sentence: String,
}

/// A merge that is due.
#[derive(Debug, Serialize)]
pub struct Merge {
    pub machine: String,
    pub id: MachineId,
    pub disk: String,
    pub volume: String,
    /// `nothing_due`, `no_windows`, `time_unknown` or {`fits`|`needs_windows`|`fits_only_stopped`|`fits_no_window`|
    /// `wont_fit_in_free_space`: figures}.
    pub verdict: Verdict,
    pub sentence: String,
    pub pieces: Vec<Piece>,
    /// Where somebody has put it.
    pub pinned: Option<OccurrenceKey>,
    /// Bytes to move; free space that it needs; bytes that come back.
    pub bytes: ByteCount,
    pub scratch: ByteCount,
    pub comes_back: ByteCount,
    pub seconds: Option<Estimate>,
    /// The same with the machine stopped.
    pub stopped_seconds: Option<Estimate>,
    pub deadline: Option<DateTime<Utc>>,
    pub latest_safe_start: Option<DateTime<Utc>>,
    pub late: bool,
    /// When the volume is full if this one isn't done, and all others are.
    pub if_skipped: UsedUp,
    /// Why it is done when it is; a `merge` in it is a place in this list, from 0 on.
    pub reason: Option<OrderReason>,
    pub reason_sentence: Option<String>,
}

/// What is done of a merge in one window.
#[derive(Debug, Serialize)]
pub struct Piece {
    pub window: String,
    pub occurrence: OccurrenceKey,
    pub window_end: Option<DateTime<Utc>>,
    pub start: DateTime<Utc>,
    pub p50_end: DateTime<Utc>,
    /// Where it pauses, when it does.
    pub p90_end: DateTime<Utc>,
    pub bytes: ByteCount,
    pub resumes: Option<OccurrenceKey>,
    /// When a running machine is shut down, and by when it is up again.
    pub down_from: Option<DateTime<Utc>>,
    pub down_to: Option<DateTime<Utc>>,
}

/// A volume.
#[derive(Debug, Serialize)]
pub struct Volume {
    pub id: String,
    /// Below this, machines stop.
    pub floor: ByteCount,
    /// What was free last.
    pub free: Option<ByteCount>,
    /// Bytes a day.
    pub growth: Option<Band<ByteCount>>,
    /// What that stands on.
    pub samples: u32,
    pub history_from: Option<DateTime<Utc>>,
    pub history_to: Option<DateTime<Utc>>,
    /// When it is full if nothing is merged, and if all is merged as planned.
    pub full: UsedUp,
    pub full_as_planned: UsedUp,
    /// Free space over time.
    pub points: Vec<FreePoint>,
    pub sentence: String,
}

/// Something to look at.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub kind: PlanFindingKind,
    pub action: PlanAction,
    pub sentence: String,
}

/// A window that nobody used.
#[derive(Debug, Serialize)]
pub struct Missed {
    pub machine: String,
    pub id: MachineId,
    pub disk: String,
    pub window: String,
    pub occurrence: OccurrenceKey,
    pub end: DateTime<Utc>,
}

/// All of a plan; of pieces those in the span.
pub fn document(plan: &PlanState, names: Names<'_>, span: Span, when: &When) -> Document {
    Document {
        made: plan.plan.made,
        until: plan.until,
        windows: plan.windows.iter().map(|window| self::window(window, plan, names)).collect(),
        merges: plan.plan.merges.iter().map(|merge| self::merge(merge, plan, names, span, when)).collect(),
        volumes: volumes(plan, when),
        findings: findings(plan, names, when),
        missed: plan.agent.missed.iter().map(|missed| self::missed(missed, plan, names)).collect(),
        agent_seen: plan.agent.seen,
    }
}

fn findings(plan: &PlanState, names: Names<'_>, when: &When) -> Vec<Finding> {
    let finding = |found: &snaptree_core::window::PlanFinding| Finding {
        severity: found.severity,
        kind: found.kind.clone(),
        action: found.action,
        sentence: format!("{}.", words::finding(found, plan, names, when).text),
    };
    plan.findings.iter().map(finding).collect()
}

/// A window that nobody used.
pub fn missed(missed: &Expected, plan: &PlanState, names: Names<'_>) -> Missed {
    Missed {
        machine: names(missed.machine),
        id: missed.machine,
        disk: missed.disk.0.clone(),
        window: window_name(plan, missed.occurrence.window).to_owned(),
        occurrence: missed.occurrence,
        end: missed.end,
    }
}

/// A window.
pub fn window(window: &MaintenanceWindow, plan: &PlanState, names: Names<'_>) -> Window {
    let machines = match &window.scope {
        Scope::All => None,
        Scope::Machines(machines) => Some(machines.iter().map(|machine| names(*machine)).collect()),
    };
    Window {
        id: window.id,
        name: window.name.clone(),
        when: window.when.clone(),
        machines,
        mode: window.mode,
        limit: window.limit,
        enabled: window.enabled,
        next: plan.occurrences.iter().find(|occurrence| occurrence.key.window == window.id).map(|o| o.key.start),
        sentence: words::window(window, names),
    }
}

fn merge(merge: &PlannedMerge, plan: &PlanState, names: Names<'_>, span: Span, when: &When) -> Merge {
    let piece = |piece: &snaptree_core::window::PlannedPiece| Piece {
        window: window_name(plan, piece.occurrence.window).to_owned(),
        occurrence: piece.occurrence,
        window_end: plan.occurrences.iter().find(|o| o.key == piece.occurrence).map(|o| o.end),
        start: piece.start,
        p50_end: piece.p50_end,
        p90_end: piece.p90_end,
        bytes: piece.bytes,
        resumes: piece.resumes,
        down_from: piece.down.map(|down| down.0),
        down_to: piece.down.map(|down| down.1),
    };
    let pin = plan.pins.iter().find(|pin| (pin.machine, &pin.disk) == (merge.machine, &merge.disk));
    Merge {
        machine: names(merge.machine),
        id: merge.machine,
        disk: merge.disk.0.clone(),
        volume: merge.volume.clone(),
        verdict: merge.verdict,
        sentence: words::verdict(merge, plan, names, when),
        pieces: merge.pieces.iter().filter(|p| span.has(p)).map(piece).collect(),
        pinned: pin.map(|pin| pin.occurrence),
        bytes: merge.bytes,
        scratch: merge.scratch,
        comes_back: merge.comes_back,
        seconds: merge.time,
        stopped_seconds: merge.idle_time,
        deadline: merge.deadline,
        latest_safe_start: merge.latest_safe_start,
        late: merge.is_late,
        if_skipped: merge.if_skipped,
        reason: merge.reason.clone(),
        reason_sentence: words::reason(merge, plan, names, when),
    }
}

fn volumes(plan: &PlanState, when: &When) -> Vec<Volume> {
    let of = |outlook: &snaptree_core::window::VolumeOutlook| {
        let seen = plan.volumes.iter().find(|seen| seen.id == outlook.id);
        let growth = seen.map(|seen| seen.growth.clone()).unwrap_or_default();
        Volume {
            id: outlook.id.clone(),
            floor: outlook.floor,
            free: seen.and_then(|seen| seen.free.last()).map(|last| last.1),
            growth: growth.per_day(),
            samples: growth.samples,
            history_from: growth.history.map(|history| history.0),
            history_to: growth.history.map(|history| history.1),
            full: outlook.full,
            full_as_planned: outlook.full_as_planned,
            points: outlook.points.clone(),
            sentence: words::volume(outlook, plan, when),
        }
    };
    plan.plan.volumes.iter().map(of).collect()
}
