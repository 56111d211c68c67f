//! Windows and the plan of merges, as the engine keeps them.

use std::time::Duration;

use chrono::{DateTime, Local, NaiveDateTime, TimeDelta, Utc};

use super::super::{AgentState, PlanState};
use super::{Bench, quick};
use crate::clock::Clock;
use crate::cost::MergeMode;
use crate::engine::Command;
use crate::snapshot::MachineId;
use crate::store::{History, HistoryRecord};
use crate::testing::{FakeClock, MemHost};
use crate::units::ByteCount;
use crate::window::{MaintenanceWindow, Scope, Verdict, When, WindowId};

/// A library in memory with a machine whose merge is due, at a time that the test decides.
struct Planned {
    bench: Bench,
    clock: std::sync::Arc<FakeClock>,
    host: MemHost,
    machine: MachineId,
}

pub(super) fn open(host: &MemHost, clock: &std::sync::Arc<FakeClock>) -> Bench {
    Bench::at(tempfile::tempdir().unwrap(), host.shared(), "/library".into(), clock.clone())
}

/// Lets an engine look around.
pub(super) fn look(bench: &mut Bench, clock: &FakeClock) {
    for _ in 0..5 {
        bench.engine.tick();
        clock.advance(Duration::from_secs(2));
    }
    bench.hear();
}

impl Planned {
    fn new() -> Self {
        let (host, clock) = (MemHost::new(), FakeClock::noon());
        let mut bench = open(&host, &clock);
        let machine = bench.create("WEB01", ByteCount::mib(1), &[ByteCount::mib(64)], quick());
        bench.take(machine, "a", false);
        let b = bench.take(machine, "b", false);
        bench.done(Command::Delete { machine, snapshots: vec![b], subtree: false, free_now: false });
        let disk = bench.state(machine).machine.configuration.disks[0].id.clone();
        drop(bench);
        // What a merge has taught.
        let taught = HistoryRecord::Merge {
            at: now(),
            disk,
            bytes: 100 << 20,
            stretches: 10,
            seconds: 1.0,
            estimated_seconds: None,
            probe: false,
            live: false,
            guest_bytes: None,
        };
        History::of(&host.shared(), "/library/WEB01".as_ref()).append(&taught).unwrap();
        let mut planned = Self { bench: open(&host, &clock), clock, host, machine };
        planned.pass(0);
        planned
    }

    fn plan(&mut self) -> std::sync::Arc<PlanState> {
        self.bench.done(Command::MakePlan);
        self.bench.hear();
        self.bench.plan.clone().unwrap()
    }

    fn pass(&mut self, hours: i64) {
        self.clock.advance(TimeDelta::hours(hours).to_std().unwrap());
        look(&mut self.bench, &self.clock);
    }
}

pub(super) fn local(at: DateTime<Utc>) -> NaiveDateTime {
    at.with_timezone(&Local).naive_local()
}

pub(super) fn now() -> DateTime<Utc> {
    use crate::clock::Clock;
    FakeClock::noon().now()
}

/// In so many hours, for so many.
pub(super) fn window(name: &str, in_hours: i64, hours: i64) -> MaintenanceWindow {
    let (from, to) = (now() + TimeDelta::hours(in_hours), now() + TimeDelta::hours(in_hours + hours));
    MaintenanceWindow {
        id: WindowId::new(),
        name: name.into(),
        when: When::Once { from: local(from), to: local(to) },
        scope: Scope::All,
        mode: MergeMode::Live,
        limit: None,
        enabled: true,
    }
}

#[test]
fn a_merge_is_planned_into_a_window_and_can_be_put_into_another() {
    let mut planned = Planned::new();
    let machine = planned.machine;
    assert_eq!(planned.plan().plan.verdict(machine), Verdict::NoWindows);

    let (first, second) = (window("Tonight", 10, 2), window("Tomorrow", 34, 2));
    for window in [&first, &second] {
        planned.bench.done(Command::SetWindow(window.clone()));
    }
    let plan = planned.plan();
    assert_eq!((plan.windows.len(), plan.occurrences.len()), (2, 2));
    let piece = &plan.plan.merges[0].pieces[0];
    assert!(matches!(plan.plan.verdict(machine), Verdict::Fits { .. }), "{:?}", plan.plan.merges);
    assert_eq!(piece.occurrence, plan.occurrences[0].key);

    let (disk, other) = (plan.plan.merges[0].disk.clone(), plan.occurrences[1].key);
    planned.bench.done(Command::PinMerge { machine, disk: disk.clone(), occurrence: Some(other) });
    assert_eq!(planned.plan().plan.merges[0].pieces[0].occurrence, other);

    // Another process sees the same, and a window that changes there is seen here.
    let mut elsewhere = open(&planned.host, &planned.clock);
    look(&mut elsewhere, &planned.clock);
    elsewhere.done(Command::MakePlan);
    elsewhere.hear();
    let there = elsewhere.plan.clone().unwrap();
    assert_eq!((there.windows.len(), there.plan.merges[0].pieces[0].occurrence), (2, other));
    elsewhere.done(Command::RemoveWindow(second.id));
    planned.pass(0);
    let plan = planned.bench.plan.clone().unwrap();
    assert_eq!((plan.windows.len(), plan.pins.len()), (1, 0));
    assert_eq!(plan.plan.merges[0].pieces[0].occurrence.window, first.id);

    let refused = planned.bench.ask(Command::PinMerge { machine, disk, occurrence: Some(other) }).unwrap_err();
    assert_eq!(refused.reason, "there is no such window");
    let nameless = MaintenanceWindow { name: " ".into(), ..window("", 1, 1) };
    assert_eq!(planned.bench.ask(Command::SetWindow(nameless)).unwrap_err().reason, "the window has no name");
}

#[test]
fn sizes_are_sampled_at_the_start_and_every_hour() {
    let mut planned = Planned::new();
    let samples = |planned: &Planned| {
        let history = History::of(&planned.host.shared(), "/library/WEB01".as_ref()).read().unwrap();
        history.iter().filter(|record| matches!(record, HistoryRecord::Sizes { .. })).count()
    };
    assert_eq!(samples(&planned), 1);
    planned.pass(0);
    assert_eq!(samples(&planned), 1, "not at every look");
    planned.pass(1);
    assert_eq!(samples(&planned), 2);
    // A start soon after the last sample adds none, one later does.
    look(&mut open(&planned.host, &planned.clock), &planned.clock);
    assert_eq!(samples(&planned), 2);
    planned.clock.advance(Duration::from_secs(11 * 60));
    look(&mut open(&planned.host, &planned.clock), &planned.clock);
    assert_eq!(samples(&planned), 3);
    let plan = planned.plan();
    assert!(plan.volumes[0].growth.samples >= 2 && plan.volumes[0].free.len() >= 2, "{:?}", plan.volumes);
}

#[test]
fn what_an_owner_samples_is_in_the_plan_of_the_others() {
    let mut planned = Planned::new();
    let before = planned.plan().volumes[0].free.len();
    let state = planned.bench.state(planned.machine).clone();
    planned.bench.engine.machines.get_mut(&planned.machine).unwrap().remote = Some(state);
    planned.clock.advance(Duration::from_secs(2 * 3600));
    let sample =
        HistoryRecord::Sizes { at: planned.clock.now(), images: std::collections::BTreeMap::new(), free: ByteCount::gib(7) };
    History::of(&planned.host.shared(), "/library/WEB01".as_ref()).append(&sample).unwrap();
    planned.bench.engine.make_plan();
    planned.bench.hear();
    let free = planned.bench.plan.clone().unwrap().volumes[0].free.clone();
    assert_eq!((free.len(), free.last().unwrap().1), (before + 1, ByteCount::gib(7)));
}

#[test]
fn a_window_that_nobody_used_is_told_until_it_was_read() {
    let mut planned = Planned::new();
    let tonight = window("Tonight", 10, 2);
    planned.bench.done(Command::SetWindow(tonight.clone()));
    assert_eq!(planned.plan().agent, AgentState::default());
    // Nothing ran while it was open.
    planned.clock.advance(Duration::from_secs(20 * 3600));
    planned.bench = open(&planned.host, &planned.clock);
    planned.pass(0);
    let missed = planned.plan().agent.missed.clone();
    assert_eq!(missed.iter().map(|m| (m.machine, m.occurrence.window)).collect::<Vec<_>>(), [(planned.machine, tonight.id)]);
    planned.bench.done(Command::ForgetMissed);
    assert!(planned.plan().agent.missed.is_empty());
    planned.pass(0);
    assert!(planned.plan().agent.missed.is_empty(), "it isn't told again");
}
