//! Plans that can be read.

use std::collections::BTreeSet;

use super::*;
use crate::cost::{Basis, MergeLoad, MergeWork};

/// Hours that so many GB take in 9 of 10 cases, the machine stopped.
fn p90(gb: u64) -> f64 {
    let work = MergeWork { bytes: gb * GB, stretches: 100, merges: 1 };
    taught().estimate(work, MergeLoad::Stopped).expect("it was taught").p90 / 3600.0
}

fn starts(merge: &PlannedMerge) -> Vec<f64> {
    merge.pieces.iter().map(|piece| (hours_until(piece.start) * 100.0).round() / 100.0).collect()
}

#[test]
fn a_merge_fits_with_time_to_spare() {
    let input = input(vec![due(1, 36)], vec![occurrence(1, 10.0, 12.0)]);
    let plan = planned(&input);
    let merge = &plan.merges[0];
    let Verdict::Fits { spare_seconds } = merge.verdict else { panic!("{merge:?}") };
    let batch = p90(36) * 3600.0 * PlanParameters::default().batch.0 as f64 / (36.0 * GB as f64);
    assert!((spare_seconds - (7200.0 - p90(36) * 3600.0 - batch)).abs() < 1.0, "{spare_seconds}");
    assert_eq!((starts(merge), merge.bytes, merge.pieces[0].resumes), (vec![10.0], ByteCount(36 * GB), None));
    assert_eq!((merge.deadline, merge.latest_safe_start, merge.is_late), (None, None, false));
    assert_eq!((&merge.reason, plan.verdict(machine(1))), (&Some(OrderReason::OnlyOne), merge.verdict));
    assert_eq!(plan.verdict(machine(2)), Verdict::NothingDue);
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<MergePlan>(&text).unwrap().merges[0].pieces, merge.pieces);
    let text = serde_json::to_string(&input).unwrap();
    assert_eq!(serde_json::from_str::<PlanInput>(&text).unwrap(), input);
}

#[test]
fn a_piece_starts_exactly_with_its_window_however_odd_the_time_is_now() {
    for odd in [1, 280_818_404, 719_181_596, 999_999_999] {
        let mut input = input(vec![due(1, 400)], vec![occurrence(1, 2.0, 3.0), occurrence(2, 100.0, 103.0)]);
        input.now += TimeDelta::nanoseconds(odd);
        let merge = &planned(&input).merges[0];
        let (first, second) = (&merge.pieces[0], &merge.pieces[1]);
        assert_eq!((first.start, second.start), (after(2.0), after(100.0)), "{odd} ns");
        assert!(matches!(merge.verdict, Verdict::NeedsWindows { resumes, .. } if resumes == after(100.0)), "{:?}", merge.verdict);
    }
}

#[test]
fn one_that_is_too_long_is_split_and_nothing_moves_twice() {
    let plan =
        planned(&input(vec![due(1, 400)], vec![occurrence(1, 2.0, 3.0), occurrence(2, 20.0, 20.5), occurrence(3, 50.0, 52.0)]));
    let merge = &plan.merges[0];
    let Verdict::NeedsWindows { windows, pauses, resumes, .. } = merge.verdict else { panic!("{merge:?}") };
    assert_eq!((windows, resumes, starts(merge)), (2, after(20.0), vec![2.0, 20.0]));
    assert!(pauses < after(3.0) && pauses > after(2.99), "{pauses}");
    assert!(merge.pieces[0].bytes.0 > 250 * GB && merge.pieces[1].bytes.0 > 30 * GB, "{merge:?}");
    // With fewer hours than it needs, it isn't begun at all.
    let plan = planned(&input(vec![due(1, 400)], vec![occurrence(1, 2.0, 3.0)]));
    let Verdict::FitsNoWindow { needs_seconds, windows_seconds } = plan.merges[0].verdict else { panic!("{plan:?}") };
    assert!((needs_seconds - p90(400) * 3600.0).abs() < 1.0 && windows_seconds == 3600.0);
    assert!(plan.merges[0].pieces.is_empty());
    // Nor for less than a batch.
    let plan = planned(&input(vec![due(1, 36)], vec![occurrence(1, 2.0, 2.0002), occurrence(2, 5.0, 9.0)]));
    assert_eq!(starts(&plan.merges[0]), [5.0]);
}

#[test]
fn no_windows_nothing_known_and_windows_of_others() {
    let plan = planned(&input(vec![due(1, 36)], vec![]));
    assert_eq!(plan.merges[0].verdict, Verdict::NoWindows);
    let other = Occurrence { scope: Scope::Machines(BTreeSet::from([machine(9)])), ..occurrence(1, 2.0, 9.0) };
    let plan = planned(&input(vec![due(1, 36)], vec![other]));
    assert_eq!(plan.merges[0].verdict, Verdict::NoWindows);
    let mut unknown = input(vec![due(1, 36)], vec![occurrence(1, 2.0, 9.0)]);
    unknown.volumes[0].calibration = Calibration::default();
    assert_eq!(planned(&unknown).merges[0].verdict, Verdict::TimeUnknown);
}

#[test]
fn a_guest_costs_time_and_a_stopped_window_saves_it() {
    // A guest that writes much: three hours are too short live, but not stopped.
    let busy = DueMerge { running: true, guest: Some(ByteRate(80e6)), ..due(1, 600) };
    let live = vec![occurrence(1, 2.0, 5.0)];
    let plan = planned(&input(vec![busy.clone()], live.clone()));
    let Verdict::FitsOnlyStopped { windows: 1, is_planned: false, .. } = plan.merges[0].verdict else { panic!("{plan:?}") };
    let merge = &plan.merges[0];
    let (live_time, idle) = (merge.time.expect("known"), merge.idle_time.expect("known"));
    assert!(live_time.p50 > 1.3 * idle.p50 && live_time.basis == Basis::OtherMode(10) && idle.basis == Basis::Merges(10));

    let stopped = vec![Occurrence { mode: MergeMode::Stopped, ..live[0].clone() }];
    let plan = planned(&input(vec![busy], stopped.clone()));
    let merge = &plan.merges[0];
    let Verdict::FitsOnlyStopped { windows: 1, spare_seconds, is_planned: true } = merge.verdict else { panic!("{plan:?}") };
    // Down at the window's start, merging five minutes later, up three minutes after the end.
    let (down, up) = merge.pieces[0].down.expect("it is shut down");
    assert_eq!((down, merge.pieces[0].start), (after(2.0), after(2.0) + TimeDelta::minutes(5)));
    assert!(((up - merge.pieces[0].p90_end).as_seconds_f64() - 180.0).abs() < 0.01);
    let left = (after(5.0) - up).as_seconds_f64() - spare_seconds;
    assert!((0.1..3.0).contains(&left), "a batch is left beside what is to spare: {left}");
    // One that it is too short for pauses so that the machine is up by its end.
    let long = DueMerge { running: true, ..due(1, 1800) };
    let day = |n: u64| Occurrence { mode: MergeMode::Stopped, ..occurrence(n, 24.0 * n as f64, 24.0 * n as f64 + 3.0) };
    let plan = planned(&input(vec![long], (0..6).map(day).collect()));
    let pieces = &plan.merges[0].pieces;
    assert!(pieces.len() >= 2, "{plan:?}");
    for piece in &pieces[..pieces.len() - 1] {
        let spare = (piece.occurrence.start + TimeDelta::hours(3) - piece.down.expect("it is shut down").1).as_seconds_f64();
        assert!((0.1..3.0).contains(&spare), "{spare}");
    }
    // A machine that doesn't run needs none of it.
    let plan = planned(&input(vec![due(1, 36)], stopped));
    assert!(matches!(plan.merges[0].verdict, Verdict::Fits { .. }) && plan.merges[0].pieces[0].down.is_none());
}

#[test]
fn two_disks_of_a_machine_are_one_shutdown() {
    let disk = |n: u64| DueMerge { running: true, machine: machine(1), disk: DiskId(format!("disk{n}")), ..due(n, 36) };
    let window = Occurrence { mode: MergeMode::Stopped, ..occurrence(1, 2.0, 5.0) };
    let plan = planned(&input(vec![disk(1), disk(2)], vec![window]));
    let (first, second) = (&plan.merges[0].pieces[0], &plan.merges[1].pieces[0]);
    assert_eq!((first.p90_end, first.start), (second.start, after(2.0) + TimeDelta::minutes(5)));
}

#[test]
fn a_limit_is_kept() {
    let limit = Some(ByteRate(20e6));
    let plan = planned(&input(vec![due(1, 36)], vec![Occurrence { limit, ..occurrence(1, 2.0, 9.0) }]));
    let piece = &plan.merges[0].pieces[0];
    assert_eq!((piece.p50_end - piece.start).num_seconds(), 1800);
    assert!(plan.merges[0].time.expect("known").p90 < 600.0, "what the volume can do is still said");
}

#[test]
fn what_gives_space_back_comes_before_what_needs_it() {
    let needy = |comes_back| {
        let mut needy = due(1, 20);
        needy.options[0].scratch = ByteCount(30 * GB);
        needy.options[0].comes_back = comes_back;
        needy
    };
    let mut tight = input(vec![needy(ByteCount::ZERO), due(2, 36)], vec![occurrence(1, 2.0, 4.0)]);
    tight.volumes[0].free = ByteCount(15 * GB);
    let plan = planned(&tight);
    assert!(plan.merges[1].pieces[0].start < plan.merges[0].pieces[0].start);
    assert_eq!(plan.merges[0].reason, Some(OrderReason::AfterSpaceOf { merge: 1 }));
    // Without the other, it never fits.
    tight.work.pop();
    let plan = planned(&tight);
    let wont = Verdict::WontFitInFreeSpace { needs: ByteCount(30 * GB), free: ByteCount(15 * GB), at: after(2.0) };
    assert_eq!((plan.merges[0].verdict, plan.merges[0].pieces.len()), (wont, 0));
    // Another target that needs less space is taken, though it moves more.
    tight.work[0].options.push(option(11, 25));
    assert_eq!(planned(&tight).merges[0].target, Some(ImageId(id(11))));
    // With room enough, the one that moves less.
    tight.volumes[0].free = ByteCount(50 * GB);
    assert_eq!(planned(&tight).merges[0].target, Some(ImageId(id(10))));
}

#[test]
fn a_filling_volume_has_a_deadline() {
    let mut filling =
        input(vec![due(1, 36)], vec![occurrence(1, 10.0, 12.0), occurrence(2, 60.0, 62.0), occurrence(3, 140.0, 142.0)]);
    filling.volumes[0].growth = growing(10 * GB);
    filling.volumes[0].free = ByteCount(55 * GB);
    let plan = planned(&filling);
    let merge = &plan.merges[0];
    let (full, deadline) = (&plan.volumes[0].full, merge.deadline.expect("it fills"));
    assert_eq!(full.safe, Some(deadline));
    assert!((5.0..5.6).contains(&(hours_until(full.middle.expect("it fills")) / 24.0)), "{full:?}");
    assert!((60.0..130.0).contains(&hours_until(deadline)), "{deadline}");
    // The second window is the last that makes it.
    let latest = merge.latest_safe_start.expect("there is one");
    assert!((60.0..62.0).contains(&hours_until(latest)) && hours_until(latest) + p90(36) < 62.0, "{latest}");
    assert_eq!((starts(merge), merge.is_late), (vec![10.0], false));
    assert_eq!(merge.if_skipped, *full);
    // It gives 18 GB back, which is nearly two days.
    let gained =
        hours_until(plan.volumes[0].full_as_planned.middle.expect("it fills")) - hours_until(full.middle.expect("it fills"));
    assert!((40.0..46.0).contains(&gained), "{gained}");
    let points = &plan.volumes[0].points;
    let at_end = points.iter().filter(|point| point.at == merge.pieces[0].p90_end).collect::<Vec<_>>();
    assert_eq!(at_end.len(), 2);
    assert_eq!(at_end[1].planned.p50.0.abs_diff(at_end[0].planned.p50.0 + 18 * GB), 0);
    assert_eq!((points[0].planned.p50, points[0].without.p50), (ByteCount(55 * GB), ByteCount(55 * GB)));
    assert!(points.is_sorted_by_key(|point| point.at) && points.last().map(|p| p.at) == Some(filling.until));

    // Less free space never gives a later deadline, nor a later safe start.
    let mut before = (DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MAX_UTC);
    for free in (0..60).rev() {
        filling.volumes[0].free = ByteCount(free * GB);
        let merge = &planned(&filling).merges[0];
        let deadline = merge.deadline.expect("it fills");
        let latest = merge.latest_safe_start.unwrap_or(now());
        assert!(deadline <= before.0 && latest <= before.1, "{free} GB");
        before = (deadline, latest);
    }
    assert_eq!(before.0, now());
}

#[test]
fn the_earlier_deadline_goes_first_and_then_fewer_bytes() {
    let windows = || vec![occurrence(1, 10.0, 14.0)];
    let order = |plan: &MergePlan| plan.merges.iter().map(|m| m.pieces[0].start).collect::<Vec<_>>();
    let mut both = input(vec![due(1, 50), due(2, 40)], windows());
    let plan = planned(&both);
    assert!(order(&plan)[1] < order(&plan)[0]);
    assert_eq!(plan.merges[1].reason, Some(OrderReason::FewestBytes));
    assert_eq!(plan.merges[0].reason, Some(OrderReason::WaitsFor { merge: 1 }));
    // The first needs space that is soon no longer there.
    both.volumes[0].growth = growing(10 * GB);
    both.work[0].options[0].scratch = ByteCount(60 * GB);
    let plan = planned(&both);
    assert!(order(&plan)[0] < order(&plan)[1] && plan.merges[0].deadline < plan.merges[1].deadline);
    assert!(matches!(plan.merges[0].reason, Some(OrderReason::EarliestDeadline { .. })), "{:?}", plan.merges[0].reason);
    // Volumes don't wait for each other.
    let mut apart = input(vec![due(1, 50), DueMerge { volume: "other".into(), ..due(2, 40) }], windows());
    apart.volumes.push(PlanVolume { id: "other".into(), ..apart.volumes[0].clone() });
    assert_eq!(order(&planned(&apart)), [after(10.0), after(10.0)]);
}

#[test]
fn it_stays_where_it_was_put() {
    let windows = vec![occurrence(1, 10.0, 12.0), occurrence(2, 30.0, 31.0), occurrence(3, 50.0, 51.0)];
    let put = |gb, key| DueMerge { pinned: Some(key), ..due(1, gb) };
    let plan = planned(&input(vec![put(36, windows[1].key), due(2, 20)], windows.clone()));
    assert_eq!((starts(&plan.merges[0]), starts(&plan.merges[1])), (vec![30.0], vec![10.0]));
    assert_eq!(plan.merges[0].reason, Some(OrderReason::Pinned));
    // Too long for it, it goes on in the next, but never begins earlier.
    let plan = planned(&input(vec![put(400, windows[1].key)], windows.clone()));
    assert_eq!(starts(&plan.merges[0]), [30.0, 50.0]);
    // Too long for all that follow: why not is said, though the first window would do.
    let plan = planned(&input(vec![put(500, windows[2].key)], windows.clone()));
    let Verdict::FitsNoWindow { windows_seconds, .. } = plan.merges[0].verdict else { panic!("{plan:?}") };
    assert_eq!(windows_seconds, 3600.0);
    // A window that isn't any more.
    let gone = OccurrenceKey { window: WindowId(id(77)), start: after(10.0) };
    let plan = planned(&input(vec![put(36, gone)], windows));
    assert!(matches!(plan.merges[0].verdict, Verdict::FitsNoWindow { .. }) && plan.merges[0].pieces.is_empty());
}

#[test]
fn what_grows_moves_more_later() {
    let growing = DueMerge { running: true, guest: Some(ByteRate(1e6)), growth: growing(5 * GB), ..due(1, 36) };
    let at = |hours: f64, grows: bool| {
        let mut merge = growing.clone();
        merge.options[0].grows = grows;
        planned(&input(vec![merge], vec![occurrence(1, hours, hours + 5.0)])).merges[0].clone()
    };
    let (soon, late) = (at(0.0, true), at(96.0, true));
    assert_eq!((soon.bytes.0, at(96.0, false).bytes.0), (36 * GB, 36 * GB));
    assert!((55 * GB..57 * GB).contains(&late.bytes.0), "{}", late.bytes.0);
    assert!(late.time.expect("known").p50 > 1.4 * soon.time.expect("known").p50);
}

#[test]
fn a_window_is_shared_where_each_has_another_of_its_own() {
    // Two merges of 1.5 windows; the first window is for both, the others are for one each.
    let for_one = |n: u64, from: f64| {
        let scope = Scope::Machines(BTreeSet::from([machine(n)]));
        Occurrence { scope, ..occurrence(n, from, from + p90(100)) }
    };
    let windows = vec![occurrence(9, 2.0, 2.0 + p90(100) * 1.01), for_one(1, 10.0), for_one(2, 20.0)];
    let plan = planned(&input(vec![due(1, 148), due(2, 148)], windows));
    let places = plan.merges.iter().map(|m| m.pieces.iter().map(|p| p.occurrence.window.0.as_u128()).collect::<Vec<_>>());
    assert_eq!(places.collect::<Vec<_>>(), [[1009, 1001], [1009, 1002]]);
}

#[test]
fn many_merges_in_windows_too_short_for_them_are_planned_in_no_time() {
    let work = (0..7).map(|n| DueMerge { options: vec![option(n * 10, 100 + 7 * n), option(n * 10 + 1, 120)], ..due(n, 1) });
    let windows = (0..12).map(|n| occurrence(n, 10.0 * n as f64, 10.0 * n as f64 + 0.13)).collect();
    let plan = planned(&input(work.collect(), windows));
    let done = plan.merges.iter().filter(|m| !m.pieces.is_empty()).count();
    assert!((4..7).contains(&done), "{done}");
}

#[test]
fn an_open_window_is_used_from_now_on() {
    let plan = planned(&input(vec![due(1, 36)], vec![occurrence(1, -3.0, 2.0)]));
    assert_eq!(starts(&plan.merges[0]), [0.0]);
}

#[test]
fn two_hundred_machines_are_planned() {
    let mut rng = Random::new(200);
    let mut work: Vec<DueMerge> = (0..200).map(|n| due(n, 1 + rng.below(60))).collect();
    for (n, due) in work.iter_mut().enumerate() {
        due.running = n % 2 == 0;
        due.volume = if n % 3 == 0 { "other" } else { "data" }.into();
    }
    let windows = (0..28).map(|n| occurrence(n, 6.0 * n as f64 + 1.0, 6.0 * n as f64 + 4.0)).collect();
    let mut input = input(work, windows);
    input.volumes.push(PlanVolume { id: "other".into(), ..input.volumes[0].clone() });
    let plan = planned(&input);
    assert!(plan.merges.iter().all(|m| matches!(m.verdict, Verdict::Fits { .. } | Verdict::NeedsWindows { .. })), "{plan:?}");
}
