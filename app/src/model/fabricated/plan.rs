//! Merges that are due, windows, and the plan that the engine would make of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use chrono::{NaiveTime, TimeDelta, Utc, Weekday};
use snaptree_core::cost::{Calibration, Growth, MergeMode, MergeSample, SizeSample, VolumeState};
use snaptree_core::engine::{AgentState, Event, LibraryState, MachineState, Pin, PlanState, Power, VolumeHistory};
use snaptree_core::snapshot::Tree;
use snaptree_core::units::ByteCount;
use snaptree_core::window::{
    DueMerge, MaintenanceWindow, MergeOption, PlanInput, PlanParameters, PlanThresholds, PlanVolume, Scope, When, WindowId,
    occurrences, plan as make, plan_findings,
};

use super::{Made, machine, made, today, uuid};

/// At weekends 22:00 to 02:00; and Tuesdays 20:00 to 06:00, when machines may be shut down.
pub fn windows() -> Vec<MaintenanceWindow> {
    let time = |hour| NaiveTime::from_hms_opt(hour, 0, 0).expect("a time");
    let weekly = |name: &str, days, from, to, mode| MaintenanceWindow {
        id: WindowId(uuid(name)),
        name: name.into(),
        when: When::Weekly { days, from: time(from), to: time(to) },
        scope: Scope::All,
        mode,
        limit: None,
        enabled: true,
    };
    vec![
        weekly("Weekend night", vec![Weekday::Sat, Weekday::Sun], 22, 2, MergeMode::Live),
        weekly("Tuesday, long", vec![Weekday::Tue], 20, 6, MergeMode::Stopped),
    ]
}

/// A volume, what is free on it, and about how fast merges on it go.
type On = (&'static str, u64, f64);

/// A machine with deleted snapshots whose bytes are still held.
fn deep(name: &str, (volume, free_gib, mib_s): On, ghosts: &[u64], power: Power, folder: &Path) -> MachineState {
    let mut all = vec![made("Installed", None, 60, 40_000)];
    for (i, held) in ghosts.iter().enumerate() {
        all.push(Made { ghost: true, ..made("Nightly", Some(i), 30 - i as u64, *held) });
    }
    all.push(made("Kept", Some(ghosts.len()), 3, 900));
    let last = all.len() - 1;
    let mut state = machine(name, &all, Some(last), 1300, folder);
    state.power = power;
    state.volume = VolumeState { id: volume.into(), free: ByteCount::gib(free_gib), punches_holes: true };
    state.calibration = learnt(mib_s);
    state
}

/// Merges that went at about this rate.
fn learnt(mib_s: f64) -> Calibration {
    let sample = |(gib, off): (u64, f64), mode| {
        let usual = gib as f64 * 1024.0 / mib_s;
        MergeSample {
            bytes: gib << 30,
            stretches: gib * 64,
            seconds: if mode == MergeMode::Live { usual * off * 1.25 } else { usual * off },
            estimated_seconds: Some(usual),
            probe: false,
            mode,
            guest_bytes: (mode == MergeMode::Live).then_some(gib << 26),
        }
    };
    let past = [(3, 0.93), (9, 1.06), (5, 1.0), (12, 0.97), (4, 1.09), (8, 1.02)];
    Calibration { samples: [MergeMode::Stopped, MergeMode::Live].into_iter().flat_map(|m| past.map(|s| sample(s, m))).collect() }
}

/// Three machines on a volume that fills; one of them doesn't fit into one window.
pub fn three(folder: &Path) -> Vec<MachineState> {
    let on = ("data", 148, 4.0);
    vec![
        deep("SQL02", on, &[9000, 8000, 7000, 6000], Power::Running, folder),
        deep("BUILD-07", on, &[2000, 3000], Power::Off, folder),
        deep("ARCHIVE", on, &[30_000, 28_000, 20_000, 14_000, 9000], Power::Running, folder),
    ]
}

/// As many as a large library has, on four volumes.
pub fn many(count: usize, folder: &Path) -> Vec<MachineState> {
    let volumes = [("data", 90, 20.0), ("fast", 130, 20.0), ("archive", 170, 20.0), ("lab", 210, 20.0)];
    let one = |i: usize| {
        let power = if i.is_multiple_of(3) { Power::Off } else { Power::Running };
        deep(&format!("VM{:03}", i + 1), volumes[i % 4], &[300 + 70 * (i as u64 % 9), 500, 400], power, folder)
    };
    (0..count).map(one).collect()
}

/// What the engine would publish about these machines.
pub fn planned(machines: &[MachineState], windows: Vec<MaintenanceWindow>, pins: Vec<Pin>) -> PlanState {
    let (now, until) = (today(), today() + TimeDelta::days(28));
    let mut volumes: Vec<PlanVolume> = Vec::new();
    let mut histories = Vec::new();
    let mut work = Vec::new();
    for state in machines {
        let id = state.volume.id.clone();
        if volumes.iter().all(|v| v.id != id) {
            let samples = samples(state.volume.free);
            let growth = Growth::of_volume(&samples);
            let floor = state.machine.settings.pause_free;
            let free = samples.iter().map(|s| (s.at, s.free)).collect();
            histories.push(VolumeHistory { id: id.clone(), floor, free, growth: growth.clone() });
            volumes.push(PlanVolume { id, free: state.volume.free, floor, growth, calibration: state.calibration.clone() });
        }
        let facts = state.facts();
        let due = |run: snaptree_core::snapshot::Run| DueMerge {
            machine: state.machine.id,
            volume: state.volume.id.clone(),
            running: state.power.is_up(),
            guest: state.guest,
            options: MergeOption::all(&facts, &run.disk, &run.images),
            growth: Growth::default(),
            pinned: pins.iter().find(|p| (p.machine, &p.disk) == (state.machine.id, &run.disk)).map(|p| p.occurrence),
            disk: run.disk,
        };
        work.extend(Tree::of(&state.machine).runs().into_iter().map(due));
    }
    let occurrences = occurrences(&windows, &Utc, now, until);
    let input = PlanInput { now, until, occurrences: occurrences.clone(), volumes, work, parameters: PlanParameters::default() };
    let plan = make(&input);
    let findings = plan_findings(&plan, &PlanThresholds::default());
    PlanState { windows, pins, until, occurrences, plan, findings, volumes: histories, agent: AgentState::default() }
}

/// Nine days in which a volume lost about 8 GiB a day.
fn samples(free: ByteCount) -> Vec<SizeSample> {
    let at = |quarter: i64| {
        let noise = [0, 3, -2, 1, 4, -3][quarter as usize % 6];
        let lost = ByteCount::mib((quarter * 2048 + noise * 160).max(0) as u64);
        SizeSample { at: today() - TimeDelta::hours(6 * quarter), images: BTreeMap::new(), free: free + lost }
    };
    (0..36).rev().map(at).collect()
}

/// All that is said of these machines at the start.
pub fn told(machines: Vec<MachineState>, plan: PlanState) -> Vec<Event> {
    let library = LibraryState {
        folder: "/home/ana/.local/share/snaptree".into(),
        machines: machines.iter().map(|m| m.machine.id).collect(),
        ..LibraryState::default()
    };
    let mut events = vec![Event::Library(Arc::new(library))];
    events.extend(machines.into_iter().map(|m| Event::Machine(Arc::new(m))));
    events.push(Event::Plan(Arc::new(plan)));
    events
}
