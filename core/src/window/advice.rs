//! What somebody should look at because of the plan: figures only; the texts are the program's.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{MergePlan, PlannedMerge, Verdict};
use crate::cost::{Severity, UsedUp};
use crate::snapshot::MachineId;
use crate::units::ByteCount;

/// From when on something is said; the defaults' sources stand beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanThresholds {
    /// A volume that may be full within so many hours is urgent. Default 72: a weekend, in which nobody looks.
    pub full_urgent_hours: u32,
    /// One that probably is full within so many hours is a warning. Default 336: two turns of a weekly window.
    pub full_warning_hours: u32,
}

impl Default for PlanThresholds {
    fn default() -> Self {
        Self { full_urgent_hours: 72, full_warning_hours: 336 }
    }
}

/// One thing that somebody should look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanFinding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is, with its figures.
    pub kind: PlanFindingKind,
    /// The one thing to do about it.
    pub action: PlanAction,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanFindingKind {
    /// A volume will be full.
    VolumeFills {
        /// Which.
        volume: String,
        /// When, if all is done as planned.
        full: UsedUp,
        /// When, if nothing is merged.
        full_without: UsedUp,
    },
    /// A merge is due that no window is long enough for, or that has none.
    NoWindowFits {
        /// The machine.
        machine: MachineId,
        /// The verdict, with its figures.
        verdict: Verdict,
        /// It must have ended by then.
        deadline: Option<DateTime<Utc>>,
    },
    /// A merge needs more space than is free at any of its windows.
    WontFit {
        /// The machine.
        machine: MachineId,
        /// What it needs.
        needs: ByteCount,
        /// What there is.
        free: ByteCount,
        /// When there is most.
        at: DateTime<Utc>,
    },
    /// A merge that fits now ends, as planned, only when the volume may be too full, or may no longer fit in its windows.
    MissesDeadline {
        /// The machine.
        machine: MachineId,
        /// It must have ended by then.
        deadline: DateTime<Utc>,
        /// It ends, in 9 of 10 cases at the latest; `None` where it isn't planned because it may not fit any longer.
        ends: Option<DateTime<Utc>>,
        /// The last start that would make it, where there is one.
        latest_safe_start: Option<DateTime<Utc>>,
    },
}

/// The one thing to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanAction {
    /// Look at the plan.
    ShowPlan,
    /// Merge this machine now.
    MergeNow(MachineId),
    /// Make a window, or change one, for this machine.
    AddWindow(MachineId),
    /// Give space back first: empty the trash, delete what is safe to delete.
    FreeSpace,
}

/// Everything found in a plan, the worst first.
pub fn plan_findings(plan: &MergePlan, thresholds: &PlanThresholds) -> Vec<PlanFinding> {
    let merges = plan.merges.iter().filter_map(|merge| merge_finding(merge, plan.made));
    let mut findings: Vec<PlanFinding> = volume_findings(plan, thresholds).into_iter().chain(merges).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

fn volume_findings(plan: &MergePlan, thresholds: &PlanThresholds) -> Vec<PlanFinding> {
    let within = |at: Option<DateTime<Utc>>, hours: u32| at.is_some_and(|at| at - plan.made < TimeDelta::hours(hours.into()));
    let volumes = plan.volumes.iter().filter_map(|volume| {
        let full = volume.full_as_planned;
        let severity =
            match (within(full.earliest, thresholds.full_urgent_hours), within(full.middle, thresholds.full_warning_hours)) {
                (true, _) => Severity::Urgent,
                (_, true) => Severity::Warning,
                _ => return None,
            };
        // Where the plan does something for it, that is to be looked at; otherwise nothing it has would help.
        let action = if full == volume.full { PlanAction::FreeSpace } else { PlanAction::ShowPlan };
        let kind = PlanFindingKind::VolumeFills { volume: volume.id.clone(), full, full_without: volume.full };
        Some(PlanFinding { severity, kind, action })
    });
    volumes.collect()
}

fn merge_finding(merge: &PlannedMerge, made: DateTime<Utc>) -> Option<PlanFinding> {
    let (machine, deadline) = (merge.machine, merge.deadline);
    let wont_fit = matches!(merge.verdict, Verdict::WontFitInFreeSpace { .. });
    if let Some(deadline) = deadline.filter(|deadline| merge.is_late || (wont_fit && *deadline > made)) {
        let (ends, latest_safe_start) = (merge.pieces.last().map(|piece| piece.p90_end), merge.latest_safe_start);
        let kind = PlanFindingKind::MissesDeadline { machine, deadline, ends, latest_safe_start };
        return Some(PlanFinding { severity: Severity::Urgent, kind, action: PlanAction::MergeNow(machine) });
    }
    if let Verdict::WontFitInFreeSpace { needs, free, at } = merge.verdict {
        let kind = PlanFindingKind::WontFit { machine, needs, free, at };
        return Some(PlanFinding { severity: Severity::Warning, kind, action: PlanAction::FreeSpace });
    }
    let is_unplanned = match merge.verdict {
        Verdict::FitsNoWindow { .. } | Verdict::NoWindows => true,
        Verdict::FitsOnlyStopped { is_planned, .. } => !is_planned,
        _ => false,
    };
    if !is_unplanned {
        return None;
    }
    let severity = if deadline.is_some() { Severity::Warning } else { Severity::Note };
    let kind = PlanFindingKind::NoWindowFits { machine, verdict: merge.verdict, deadline };
    Some(PlanFinding { severity, kind, action: PlanAction::AddWindow(machine) })
}
