//! What is found in a plan.

use super::*;
use crate::cost::Severity;

fn findings(input: &PlanInput) -> Vec<PlanFinding> {
    plan_findings(&planned(input), &PlanThresholds::default())
}

#[test]
fn where_all_is_well_nothing_is_said() {
    assert!(findings(&input(vec![due(1, 36)], vec![occurrence(1, 10.0, 12.0)])).is_empty());
    assert!(findings(&input(vec![], vec![])).is_empty());
}

#[test]
fn a_merge_without_a_window_wants_one() {
    let found = findings(&input(vec![due(1, 36)], vec![]));
    let kind = PlanFindingKind::NoWindowFits { machine: machine(1), verdict: Verdict::NoWindows, deadline: None };
    assert_eq!(found, [PlanFinding { severity: Severity::Note, kind, action: PlanAction::AddWindow(machine(1)) }]);
    let mut filling = input(vec![due(1, 400)], vec![occurrence(1, 10.0, 10.5)]);
    filling.volumes[0].growth = growing(GB);
    let found = findings(&filling);
    let [PlanFinding { severity: Severity::Warning, kind: PlanFindingKind::NoWindowFits { verdict, deadline, .. }, .. }] =
        &found[..]
    else {
        panic!("{found:?}")
    };
    assert!(matches!(verdict, Verdict::FitsNoWindow { .. }) && deadline.is_some());
}

#[test]
fn a_merge_that_does_not_fit_wants_space() {
    let mut tight = input(vec![due(1, 36)], vec![occurrence(1, 10.0, 12.0)]);
    tight.work[0].options[0].scratch = ByteCount(200 * GB);
    let found = findings(&tight);
    let kind =
        PlanFindingKind::WontFit { machine: machine(1), needs: ByteCount(200 * GB), free: ByteCount(100 * GB), at: after(10.0) };
    assert_eq!(found, [PlanFinding { severity: Severity::Warning, kind, action: PlanAction::FreeSpace }]);
}

#[test]
fn a_merge_that_comes_too_late_wants_to_be_done_now() {
    let misses = |found: &[PlanFinding]| {
        found.iter().find_map(|f| match f.kind {
            PlanFindingKind::MissesDeadline { deadline, ends, .. } => {
                assert_eq!((f.severity, f.action), (Severity::Urgent, PlanAction::MergeNow(machine(1))));
                Some((deadline, ends))
            }
            _ => None,
        })
    };
    // It may be full on Saturday morning; the window is on Sunday, when the merge may no longer fit.
    let mut late = input(vec![due(1, 36)], vec![occurrence(1, 72.0, 74.0)]);
    late.volumes[0].growth = growing(10 * GB);
    late.volumes[0].free = ByteCount(45 * GB);
    let (deadline, ends) = misses(&findings(&late)).expect("it is told");
    assert!(deadline < after(72.0) && ends.is_none());
    // It fits, but ends when the volume may be below its floor.
    late.occurrences = vec![occurrence(1, 36.0, 38.0)];
    late.volumes[0].floor = ByteCount(20 * GB);
    let (deadline, ends) = misses(&findings(&late)).expect("it is told");
    assert!(deadline < after(36.0) && ends.is_some_and(|ends| ends > after(36.0)), "{deadline} {ends:?}");
    // In time, it isn't late.
    late.occurrences = vec![occurrence(1, 1.0, 3.0)];
    assert_eq!(misses(&findings(&late)), None);
}

#[test]
fn a_volume_that_fills_is_told_in_time() {
    let mut fills = input(vec![due(1, 36)], vec![occurrence(1, 1.0, 3.0)]);
    fills.volumes[0].growth = growing(10 * GB);
    fills.volumes[0].free = ByteCount(55 * GB);
    let found = findings(&fills);
    let [PlanFinding { severity: Severity::Warning, action: PlanAction::ShowPlan, kind }] = &found[..] else {
        panic!("{found:?}")
    };
    let PlanFindingKind::VolumeFills { full, full_without, .. } = kind else { panic!("{kind:?}") };
    assert!(full.middle > full_without.middle);
    let text = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Vec<PlanFinding>>(&text).unwrap(), found);
    // Without any merge, only space helps; soon.
    fills.work.clear();
    fills.volumes[0].free = ByteCount(15 * GB);
    let found = findings(&fills);
    let [PlanFinding { severity: Severity::Urgent, action: PlanAction::FreeSpace, .. }] = &found[..] else { panic!("{found:?}") };
    // A volume that lasts for months is no finding.
    fills.volumes[0].free = ByteCount(900 * GB);
    assert!(findings(&fills).is_empty());
}
