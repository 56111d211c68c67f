//! The agent: merges in windows, in time, also after it was killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use crossbeam_channel::Receiver;

use super::planning::{local, look, now, open, window};
use super::quick;
use crate::cost::{MergeMode, merges_due};
use crate::engine::{Agent, Command, EngineOptions, Event, JobId, JobKind, JobPhase, MachineState, PlanState, Power};
use crate::snapshot::MachineId;
use crate::store::{History, HistoryRecord};
use crate::testing::{CrashMode, FakeClock, MemHost};
use crate::units::{ByteCount, ByteRate};
use crate::window::{MaintenanceWindow, When};

/// An agent at work on a library in memory, at a time that the test decides.
struct Watched {
    agent: Agent,
    events: Receiver<Event>,
    clock: Arc<FakeClock>,
    states: BTreeMap<MachineId, Arc<MachineState>>,
    plan: Option<Arc<PlanState>>,
    /// Bytes that each merge job has moved.
    moved: BTreeMap<JobId, ByteCount>,
    merging: bool,
}

impl Watched {
    fn new(host: &MemHost, clock: &Arc<FakeClock>) -> Self {
        let options = EngineOptions { host: host.shared(), clock: clock.clone(), library: "/library".into(), executable: None };
        let mut agent = Agent::new(options).unwrap();
        let (_, events) = agent.engine.subscribe();
        let (states, moved) = (BTreeMap::new(), BTreeMap::new());
        Self { agent, events, clock: clock.clone(), states, plan: None, moved, merging: false }
    }

    fn step(&mut self, by: Duration) {
        self.agent.tick();
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Machine(state) => {
                    self.states.insert(state.machine.id, state);
                }
                Event::Job(job) if job.kind == JobKind::Merge => {
                    self.merging = matches!(job.phase, JobPhase::Running | JobPhase::Paused);
                    self.moved.insert(job.id, job.done);
                }
                Event::Plan(plan) => self.plan = Some(plan),
                _ => {}
            }
        }
        self.clock.advance(by);
    }

    /// Until so many minutes after noon, in steps of a tenth of a second near windows.
    fn until(&mut self, minutes: f64, step: Duration) {
        let end = now() + TimeDelta::milliseconds((minutes * 60e3) as i64);
        while crate::clock::Clock::now(&*self.clock) < end {
            self.step(step);
        }
    }

    fn due(&self, machine: MachineId) -> ByteCount {
        merges_due(&self.states[&machine].facts()).iter().map(|merge| merge.bytes.data).sum()
    }

    fn power(&self, machine: MachineId) -> Power {
        self.states[&machine].power.clone()
    }
}

const SECOND: Duration = Duration::from_secs(1);
const TENTH: Duration = Duration::from_millis(100);

/// A machine with a merge of some mebibytes due; what it takes was learnt.
fn due(host: &MemHost, clock: &Arc<FakeClock>, windows: &[MaintenanceWindow]) -> MachineId {
    let mut bench = open(host, clock);
    let machine = bench.create("WEB01", ByteCount::mib(1), &[ByteCount::mib(16)], quick());
    bench.take(machine, "a", false);
    bench.work(machine, 60_000);
    let b = bench.take(machine, "b", false);
    bench.work(machine, 60_000);
    bench.done(Command::Delete { machine, snapshots: vec![b], subtree: false, free_now: false });
    let disk = bench.state(machine).machine.configuration.disks[0].id.clone();
    for window in windows {
        bench.done(Command::SetWindow(window.clone()));
    }
    let taught = HistoryRecord::Merge {
        at: now(),
        disk,
        bytes: 1 << 30,
        stretches: 100,
        seconds: 10.0,
        estimated_seconds: None,
        probe: false,
        live: false,
        guest_bytes: None,
    };
    History::of(&host.shared(), "/library/WEB01".as_ref()).append(&taught).unwrap();
    look(&mut bench, clock);
    machine
}

/// From so many minutes after noon, for so many.
fn minutes(name: &str, from: f64, length: f64) -> MaintenanceWindow {
    let at = |minutes: f64| local(now() + TimeDelta::milliseconds((minutes * 60e3) as i64));
    MaintenanceWindow { when: When::Once { from: at(from), to: at(from + length) }, ..window(name, 1, 1) }
}

#[test]
fn it_merges_when_the_window_is_open_and_not_before() {
    let (host, clock) = (MemHost::new(), FakeClock::noon());
    let machine = due(&host, &clock, &[minutes("Lunch", 30.0, 30.0)]);
    let mut watched = Watched::new(&host, &clock);
    watched.until(29.5, 5 * SECOND);
    let total = watched.due(machine);
    assert!(total > ByteCount::mib(1) && watched.moved.is_empty(), "{total}");
    watched.until(31.5, SECOND);
    assert_eq!(watched.due(machine), ByteCount::ZERO, "{:?}", watched.agent.said());
    assert_eq!(watched.moved.values().copied().sum::<ByteCount>(), total);
    watched.until(120.0, 5 * SECOND);
    assert!(watched.plan.as_ref().unwrap().agent.missed.is_empty() && !watched.agent.is_busy());
    let second = EngineOptions { host: host.shared(), clock, library: "/library".into(), executable: None };
    let refused = Agent::new(second).err().unwrap();
    assert_eq!(refused.reason, "another agent is at work on this library");
}

#[test]
fn a_window_that_is_too_short_pauses_it_and_the_next_goes_on() {
    let (host, clock) = (MemHost::new(), FakeClock::noon());
    let slow = |window: MaintenanceWindow| MaintenanceWindow { limit: Some(ByteRate(65536.0)), ..window };
    let machine = due(&host, &clock, &[slow(minutes("First", 10.0, 0.6)), slow(minutes("Second", 20.0, 60.0))]);
    for killed in [false, true] {
        let (host, clock) = (host.crash(CrashMode::Kill, 1), FakeClock::noon());
        let mut watched = Watched::new(&host, &clock);
        watched.until(9.9, 5 * SECOND);
        let total = watched.due(machine);
        watched.until(10.1, TENTH);
        assert!(watched.merging, "{:?}", watched.agent.said());
        let mut moved: ByteCount = ByteCount::ZERO;
        let mut host = host;
        if killed {
            // Its death between makes no difference.
            let before = watched.due(machine);
            host = host.crash(CrashMode::Kill, 2);
            watched = Watched::new(&host, &clock);
            watched.until(10.3, TENTH);
            moved = total.saturating_sub(watched.due(machine));
            assert!(watched.due(machine) <= before);
        }
        watched.until(11.0, TENTH);
        assert!(!watched.merging, "it has let go when the window is over");
        watched.until(19.9, 5 * SECOND);
        let left = watched.due(machine);
        assert!(left > ByteCount::ZERO && left < total, "{left} of {total} are left");
        if !killed {
            assert_eq!(watched.moved.values().copied().sum::<ByteCount>(), total.saturating_sub(left));
        }
        watched.until(30.0, SECOND);
        assert_eq!(watched.due(machine), ByteCount::ZERO, "{:?}", watched.agent.said());
        if !killed {
            assert_eq!(watched.moved.values().copied().sum::<ByteCount>(), total, "every byte is moved once");
        }
        assert!(moved <= total);
        assert!(watched.plan.as_ref().unwrap().agent.missed.is_empty());
    }
}

#[test]
fn a_stopped_window_brings_the_machine_up_again_also_if_the_agent_dies() {
    let (host, clock) = (MemHost::new(), FakeClock::noon());
    let stopped = MaintenanceWindow { mode: MergeMode::Stopped, limit: Some(ByteRate(65536.0)), ..minutes("Night", 30.0, 30.0) };
    let machine = due(&host, &clock, &[stopped]);
    for killed in [false, true] {
        let (mut host, clock) = (host.crash(CrashMode::Kill, 1), FakeClock::noon());
        let mut watched = Watched::new(&host, &clock);
        watched.agent.ask(Command::Start(machine));
        watched.until(1.0, SECOND);
        assert_eq!(watched.power(machine), Power::Running);
        watched.until(29.9, 5 * SECOND);
        assert_eq!(watched.power(machine), Power::Running);
        watched.until(30.5, TENTH);
        assert!(!watched.power(machine).is_up() && watched.merging, "{:?}", watched.agent.said());
        if killed {
            host = host.crash(CrashMode::Kill, 3);
            watched = Watched::new(&host, &clock);
        }
        watched.until(59.0, SECOND);
        assert_eq!(watched.power(machine), Power::Running, "{:?}", watched.agent.said());
        assert_eq!(watched.due(machine), ByteCount::ZERO, "{:?}", watched.agent.said());
    }
}
