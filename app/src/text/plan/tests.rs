use std::collections::BTreeSet;

use chrono::{NaiveDate, TimeDelta};
use snaptree_core::cost::{Estimate, Growth, MergeMode, Severity, UsedUp};
use snaptree_core::engine::{AgentState, Expected};
use snaptree_core::snapshot::DiskId;
use snaptree_core::units::{ByteCount, ByteRate};
use snaptree_core::window::{
    MaintenanceWindow, OrderReason, PlanAction, PlanFinding, PlanFindingKind, PlannedMerge, PlannedPiece, Scope, Verdict, When,
};

use super::dates::used_up;
use super::fabricated::{at, fits, full, grown, history, machine, names, nights, piece, plan, two_windows, unplanned, when};
use super::*;
use crate::theme::Tone;

fn said(merge: PlannedMerge) -> String {
    let state = plan(vec![merge]);
    verdict(&state.plan.merges[0], &state, &names, &when())
}

#[test]
fn a_merge_that_fits_says_when_how_long_and_what_if_it_is_skipped() {
    let skipped = "If it is skipped, the volume is full on Tue 2 Jun about 14:00.";
    assert_eq!(said(fits()), format!("Merge WEB01 Sat 22:00-01:10, window to 02:00, 50 min to spare. {skipped}"));
    // What makes no difference isn't said.
    let same = PlannedMerge { if_skipped: UsedUp::default(), ..fits() };
    assert_eq!(said(same), "Merge WEB01 Sat 22:00-01:10, window to 02:00, 50 min to spare.");
    let late = PlannedMerge { is_late: true, if_skipped: UsedUp::default(), ..fits() };
    let end = "That is too late: it should have ended by Mon 14:00; the last start in time is Sun 22:30.";
    assert!(said(late.clone()).ends_with(end), "{}", said(late));
}

#[test]
fn every_verdict_has_its_sentence() {
    assert_eq!(
        said(two_windows()),
        "Merge DB01 in 2 windows: Sat 22:00-01:30, then Sun 22:00-23:30, window to 02:00, 2 h 30 min to spare. \
         It pauses Sun 01:30 and resumes Sun 22:00: nothing is moved twice."
    );
    let stopped = Verdict::FitsOnlyStopped { windows: 1, spare_seconds: 3000.0, is_planned: true };
    let down = Some((at(30, 19, 55), at(30, 23, 13)));
    let piece = PlannedPiece { down, ..piece(30, (20, 0), 19.0 / 6.0, 31) };
    let merge = PlannedMerge { pieces: vec![piece], machine: machine(3), ..unplanned(stopped) };
    assert_eq!(
        said(merge),
        "Merge SQL02 Sat 22:00-01:10, window to 02:00, shut down Sat 21:55-01:13, 50 min to spare: it fits only stopped."
    );
    let free = (ByteCount::gib(12), ByteCount::gib(9), at(30, 20, 0));
    for (verdict, sentence) in [
        (
            Verdict::FitsOnlyStopped { windows: 1, spare_seconds: 3000.0, is_planned: false },
            "SQL02 fits only stopped: then it takes 1 window, with 50 min to spare, but its windows don't shut it down.",
        ),
        (
            Verdict::FitsNoWindow { needs_seconds: 36_000.0, windows_seconds: 7200.0 },
            "SQL02 fits no window: it needs up to 10 h, and its windows have 2 h until 25 Jun.",
        ),
        (
            Verdict::FitsNoWindow { needs_seconds: 3600.0, windows_seconds: 7200.0 },
            "SQL02 fits no window: it needs up to 1 h, and its windows have 2 h until 25 Jun, in stretches too short, or taken by \
             others.",
        ),
        (Verdict::NoWindows, "There is no window for SQL02: 31.0 GiB to move, 2 h 30 min, 12.0 GiB come back."),
        (Verdict::TimeUnknown, "How long SQL02 takes isn't known yet, so it isn't planned: 31.0 GiB to move."),
        (
            Verdict::WontFitInFreeSpace { needs: free.0, free: free.1, at: free.2 },
            "SQL02 won't fit in free space: it needs 12.0 GiB, and only 9.0 GiB are sure to be free Sat 22:00.",
        ),
        (Verdict::NothingDue, "Nothing is due for SQL02."),
    ] {
        assert_eq!(said(unplanned(verdict)), sentence);
    }
    let uncounted = PlannedMerge { target: None, ..unplanned(Verdict::TimeUnknown) };
    assert_eq!(said(uncounted), "SQL02 is still being counted.");
    let fills = PlannedMerge { if_skipped: full(33), ..unplanned(Verdict::NoWindows) };
    assert!(said(fills.clone()).ends_with(" The volume is full on Tue 2 Jun about 14:00."), "{}", said(fills));
}

#[test]
fn a_machine_with_two_disks_has_a_sentence_for_each_the_worse_first() {
    let other = PlannedMerge { disk: DiskId("disk1".into()), machine: machine(1), ..unplanned(Verdict::NoWindows) };
    let state = plan(vec![fits(), other]);
    let said = machine_verdict(machine(1), &state, &names, &when());
    assert!(said.starts_with("There is no window for WEB01 (disk1): "), "{said}");
    assert!(said.contains(" Merge WEB01 (disk0) Sat 22:00"), "{said}");
    assert_eq!(machine_verdict(machine(2), &state, &names, &when()), "Nothing is due for DB01.");
}

#[test]
fn a_verdict_in_short_stands_under_a_bar() {
    let spare_seconds = 3000.0;
    let (pauses, resumes) = (at(30, 23, 0), at(31, 20, 0));
    let stopped = |is_planned| Verdict::FitsOnlyStopped { windows: 1, spare_seconds, is_planned };
    for (verdict, short, shown) in [
        (Verdict::Fits { spare_seconds }, "fits, 50 min to spare", Tone::Good),
        (Verdict::Fits { spare_seconds: 0.0 }, "fits, nothing to spare", Tone::Good),
        (Verdict::NeedsWindows { windows: 3, pauses, resumes, spare_seconds }, "needs 3 windows, 50 min to spare", Tone::Warn),
        (stopped(true), "fits only stopped, 50 min to spare", Tone::Warn),
        (stopped(false), "fits only stopped, and isn't", Tone::Warn),
        (Verdict::FitsNoWindow { needs_seconds: 9.0, windows_seconds: 1.0 }, "fits no window", Tone::Bad),
        (Verdict::NoWindows, "no window", Tone::Warn),
        (Verdict::TimeUnknown, "time not known yet", Tone::Warn),
        (Verdict::NothingDue, "nothing due", Tone::Weak),
    ] {
        assert_eq!((short_verdict(&verdict).as_str(), tone(&verdict)), (short, shown));
    }
    let wont = Verdict::WontFitInFreeSpace { needs: ByteCount::gib(12), free: ByteCount::gib(9), at: at(30, 20, 0) };
    assert_eq!(short_verdict(&wont), "needs 12.0 GiB, 9.0 GiB free then");
}

#[test]
fn the_order_has_its_reason_with_names() {
    let why = |reason| {
        let merge = PlannedMerge { reason, ..two_windows() };
        let state = plan(vec![fits(), merge]);
        reason_of(&state)
    };
    fn reason_of(state: &snaptree_core::engine::PlanState) -> Option<String> {
        reason(&state.plan.merges[1], state, &names, &when())
    }
    assert_eq!(why(None), None);
    for (reason, said) in [
        (OrderReason::Pinned, "Somebody has put it there."),
        (
            OrderReason::AfterSpaceOf { merge: 0 },
            "It needs 2.0 GiB of free space, which it has only after WEB01 has given 12.0 GiB back.",
        ),
        (OrderReason::WaitsFor { merge: 0 }, "It waits for WEB01, which comes first: one merge at a time on a volume."),
        (OrderReason::EarliestDeadline { at: at(33, 12, 0) }, "It comes first: it must have ended by Tue 14:00."),
        (OrderReason::FewestBytes, "It comes first: it moves the fewest bytes of those that could."),
        (OrderReason::FitsBest, "It comes first: so more fits, or less is moved."),
        (OrderReason::OnlyOne, "It is the only merge on its volume."),
    ] {
        assert_eq!(why(Some(reason)).as_deref(), Some(said));
    }
}

#[test]
fn findings_have_figures_and_one_button() {
    let state = plan(vec![fits()]);
    let say = |kind, action| {
        let found = PlanFinding { severity: Severity::Urgent, kind, action };
        let said = finding(&found, &state, &names, &when());
        assert_eq!(said.tone, Tone::Bad);
        (said.text, said.button.expect("a button"))
    };
    let fills = |as_planned| PlanFindingKind::VolumeFills { volume: "data".into(), full: as_planned, full_without: full(33) };
    let tuesday = "full on Tue 2 Jun about 14:00, between Mon and Thu";
    assert_eq!(
        say(fills(UsedUp::default()), PlanAction::ShowPlan),
        (
            format!("The library's volume is not full within ten years, if all is merged as planned; otherwise {tuesday}"),
            "See plan"
        )
    );
    assert_eq!(
        say(fills(full(33)), PlanAction::FreeSpace),
        (format!("The library's volume is {tuesday}, whatever is merged"), "Free space…")
    );
    let (machine, deadline) = (machine(2), at(33, 12, 0));
    let no_window = PlanFindingKind::NoWindowFits { machine, verdict: Verdict::NoWindows, deadline: Some(deadline) };
    assert_eq!(
        say(no_window, PlanAction::AddWindow(machine)),
        ("DB01 has a merge due and no window for it, and must have ended by Tue 14:00".into(), "Add window…")
    );
    let too_long = Verdict::FitsNoWindow { needs_seconds: 9.0, windows_seconds: 1.0 };
    let no_window = PlanFindingKind::NoWindowFits { machine, verdict: too_long, deadline: None };
    assert_eq!(say(no_window, PlanAction::AddWindow(machine)).0, "DB01 has a merge due that fits no window");
    let wont = PlanFindingKind::WontFit { machine, needs: ByteCount::gib(12), free: ByteCount::gib(9), at: at(30, 20, 0) };
    assert_eq!(
        say(wont, PlanAction::FreeSpace).0,
        "DB01 needs 12.0 GiB of free space to merge, and only 9.0 GiB are sure to be free Sat 22:00"
    );
    let misses = |ends, latest_safe_start| PlanFindingKind::MissesDeadline { machine, deadline, ends, latest_safe_start };
    assert_eq!(
        say(misses(Some(at(34, 12, 0)), Some(at(32, 20, 0))), PlanAction::MergeNow(machine)),
        (
            "DB01 must have merged by Tue 14:00, and as planned it ends Wed 14:00; the last start in time is Mon 22:00".into(),
            "Merge…"
        )
    );
    assert_eq!(say(misses(None, None), PlanAction::MergeNow(machine)).0, "DB01 must have merged by Tue 14:00, and isn't planned");
}

#[test]
fn windows_are_told_as_people_say_them() {
    let told = |change: &dyn Fn(&mut MaintenanceWindow)| {
        let mut changed = nights();
        change(&mut changed);
        window(&changed, &names)
    };
    assert_eq!(told(&|_| {}), "Saturdays and Sundays 22:00 to 02:00, all machines, live");
    let limited = told(&|w| {
        w.limit = Some(ByteRate(50.0 * 1024.0 * 1024.0));
        w.mode = MergeMode::Stopped;
        w.enabled = false;
        w.scope = Scope::Machines(BTreeSet::from([machine(1), machine(2), machine(3)]));
    });
    assert_eq!(
        limited,
        "Saturdays and Sundays 22:00 to 02:00, DB01, SQL02 and WEB01, machines are shut down for it, at most 50.0 MiB/s, \
         switched off"
    );
    let days = |text: &str| {
        let parsed = text.split(' ').map(|day| day.parse().expect("a day")).collect::<Vec<_>>();
        told(&|w| {
            if let When::Weekly { days, .. } = &mut w.when {
                *days = parsed.clone();
            }
        })
    };
    assert!(days("fri mon tue wed thu").starts_with("Mondays to Fridays 22:00"));
    assert!(days("mon wed fri").starts_with("Mondays, Wednesdays and Fridays 22:00"));
    assert!(days("mon tue wed thu fri sat sun").starts_with("every day 22:00"));
    assert!(days("tue").starts_with("Tuesdays 22:00"));
    let once = |to_day, hour| {
        let date = |day, hour| NaiveDate::from_ymd_opt(2026, 6, day).and_then(|d| d.and_hms_opt(hour, 0, 0)).expect("a date");
        super::window::window_time(&When::Once { from: date(6, 22), to: date(to_day, hour) })
    };
    assert_eq!(once(7, 2), "Sat 6 Jun 2026 22:00 to 02:00");
    assert_eq!(once(8, 2), "Sat 6 Jun 2026 22:00 to Mon 8 Jun 2026 02:00");
}

#[test]
fn growth_says_how_much_history_it_has() {
    assert_eq!(growth(&grown(8, 19)), "8.0 GiB a day; 19 days of history, 20 samples");
    assert_eq!(growth(&history(2, 3)), "not known yet: 2 samples over 3 min");
    assert_eq!(growth(&Growth::default()), "not known yet: 0 samples");
}

#[test]
fn a_volume_says_what_is_free_how_it_grows_and_when_it_is_full() {
    let mut state = plan(vec![fits()]);
    let of = |state: &snaptree_core::engine::PlanState| volume(&state.plan.volumes[0], state, &when());
    let grows = "80.0 GiB free; growth 8.0 GiB a day; 19 days of history, 20 samples.";
    let full_on = "full on Tue 2 Jun about 14:00, between Mon and Thu";
    assert_eq!(
        of(&state),
        format!("{grows} If nothing is merged it is {full_on}; if all is merged as planned, not full within ten years.")
    );
    state.plan.volumes[0].full_as_planned = full(33);
    assert_eq!(of(&state), format!("{grows} It is {full_on}."));
    state.volumes[0].growth = history(2, 3);
    assert_eq!(of(&state), "80.0 GiB free; growth not known yet: 2 samples over 3 min.");
}

#[test]
fn a_date_is_as_exact_as_it_can_be_known_and_has_a_band() {
    let known = grown(8, 19);
    let say = |full: UsedUp| used_up(&full, &known, &when());
    assert_eq!(say(full(33)), "full on Tue 2 Jun about 14:00, between Mon and Thu");
    let of = |earliest: i64, middle: i64, late: i64| {
        let hours = |hours: i64| (hours >= 0).then(|| when().now + TimeDelta::hours(hours));
        UsedUp { earliest: hours(earliest), middle: hours(middle), late: hours(late), safe: None }
    };
    assert_eq!(say(of(1, 4, 9)), "full today about 18:00, between 15:00 and 23:00");
    assert_eq!(say(of(2, 4, 24)), "full today about 18:00, between today and Fri");
    assert_eq!(say(of(20 * 24, 40 * 24, 90 * 24)), "full about Tue 7 Jul, between 17 Jun and 26 Aug");
    assert_eq!(say(of(400 * 24, 500 * 24, 900 * 24)), "full about October 2027, between July 2027 and November 2028");
    assert_eq!(say(of(100, -1, -1)), "full on Mon 1 Jun about 18:00 at the earliest, probably not within ten years");
    assert_eq!(say(of(24, 100, -1)), "full on Mon 1 Jun about 18:00, Fri at the earliest");
    assert_eq!(say(of(0, 0, 9)), "full now");
    assert_eq!(say(UsedUp::default()), "not full within ten years");
    assert_eq!(used_up(&UsedUp::default(), &history(2, 3), &when()), "when it is full isn't known yet");
}

#[test]
fn days_that_are_near_need_only_their_name() {
    let days = [28, 29, 34, 35, 27].map(|d| super::dates::day(at(d, 12, 0), &when()));
    assert_eq!(days, ["today", "Fri", "Wed", "Thu 4 Jun", "Wed 27 May"]);
    assert_eq!(span(at(30, 20, 0), at(32, 8, 0), &when()), "Sat 22:00-Mon 10:00");
    assert_eq!(span(at(30, 20, 0), at(30, 20, 0) + TimeDelta::seconds(40), &when()), "Sat 22:00");
}

#[test]
fn a_live_merge_says_what_the_guest_costs() {
    let estimate = |p50: f64| Estimate { p50, ..fits().time.expect("known") };
    let said = |whole, idle| live(Some(estimate(whole)), Some(estimate(idle)));
    assert_eq!(said(270.0, 80.0).as_deref(), Some("3 min 10 s because of the guest, 1 min 20 s with the machine off"));
    assert_eq!((said(80.0, 80.0), live(Some(estimate(9.0)), None)), (None, None));
}

#[test]
fn missed_windows_and_the_agent_are_told() {
    let state = plan(vec![fits()]);
    let (start, end) = (at(23, 20, 0), at(24, 0, 0));
    let occurrence = snaptree_core::window::OccurrenceKey { window: nights().id, start };
    let expected = Expected { machine: machine(1), disk: DiskId("disk0".into()), occurrence, end };
    let said = "WEB01 was to be merged Sat 23 May 22:00-02:00 (Nights), and nobody did it";
    assert_eq!(missed(&expected, &state, &names, &when()), said);
    let seen = |minutes| AgentState { seen: Some(when().now - TimeDelta::minutes(minutes)), ..AgentState::default() };
    assert_eq!(agent(&AgentState { is_at_work: true, ..seen(200) }, &when()), "The agent is at work.");
    assert!(agent(&seen(0), &when()).starts_with("The agent was at work just now, and isn't"));
    assert_eq!(agent(&seen(200), &when()), "No agent is at work since 3 h: nothing is merged by itself.");
    assert!(agent(&AgentState::default(), &when()).starts_with("No agent has been at work here yet"));
}
