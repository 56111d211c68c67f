//! The volume gets short under a running machine.

use std::io::ErrorKind;
use std::time::Duration;

use super::Bench;
use crate::cost::{Action, FindingKind, Freeable};
use crate::engine::{Answer, Command, Mode, Power, RefusalKind};
use crate::snapshot::{MachineId, Settings, WorkloadProfile};
use crate::testing::{CrashMode, Door, Fault, MemHost};
use crate::units::ByteCount;

/// As fast as it can.
fn full_speed() -> WorkloadProfile {
    WorkloadProfile { seed: 4, page_writes_per_second: 200, disk_writes_per_second: 0, hot_share: 0.1, frames_per_second: 50 }
}

/// In one slice of a run it writes what fills some MiB.
fn steady() -> WorkloadProfile {
    WorkloadProfile { disk_writes_per_second: 4000, ..full_speed() }
}

fn create(host: &MemHost, workload: WorkloadProfile) -> (Bench, MachineId) {
    let mut bench = Bench::in_memory(host);
    let machine = bench.create("m", ByteCount::mib(8), &[ByteCount::mib(96)], workload);
    (bench, machine)
}

/// So much is free from now on.
fn leave_free(host: &MemHost, free: ByteCount) {
    host.set_capacity(Some(host.used() + free));
}

fn limit() -> ByteCount {
    Settings::default().pause_free
}

fn power(bench: &mut Bench, machine: MachineId) -> Power {
    bench.state(machine).power.clone()
}

fn until(bench: &mut Bench, machine: MachineId, wanted: &Power) {
    bench.until(&format!("{wanted:?}"), |bench| power(bench, machine) == *wanted);
}

/// Runs until it is paused for want of room.
fn until_short(bench: &mut Bench, host: &MemHost, machine: MachineId) {
    leave_free(host, limit() + ByteCount::mib(6));
    until(bench, machine, &Power::NoRoom);
}

/// It does nothing.
fn assert_still(bench: &mut Bench, machine: MachineId, why: &str) {
    bench.pass(Duration::from_millis(250));
    let writes = bench.live[&machine].disk_writes;
    bench.pass(Duration::from_millis(400));
    assert_eq!(bench.live[&machine].disk_writes, writes, "{why}");
}

/// What is said that can be freed now.
fn freeable(bench: &mut Bench, machine: MachineId) -> (Freeable, Option<Action>) {
    let state = bench.state(machine);
    let findings = state.advice(chrono::Utc::now());
    assert!(!findings.iter().any(|finding| matches!(finding.kind, FindingKind::DiskFilling { .. })), "said twice");
    match &findings[0].kind {
        FindingKind::NoRoom { go_on_free, freeable, .. } => {
            assert_eq!(*go_on_free, ByteCount::mib(250));
            (freeable.clone(), findings[0].action.clone())
        }
        other => panic!("{other:?}"),
    }
}

fn stop_and_verify(bench: &mut Bench, machine: MachineId) {
    bench.done(Command::Stop(machine));
    bench.verify(machine, None);
}

#[test]
fn a_machine_is_paused_before_its_volume_is_full_and_goes_on() {
    let host = MemHost::new();
    let (mut bench, machine) = create(&host, full_speed());
    bench.done(Command::Start(machine));
    until_short(&mut bench, &host, machine);
    assert_eq!(host.faults_met(), 0, "no write has found the volume full");
    assert_eq!(freeable(&mut bench, machine), (Freeable::default(), None), "there is nothing that could be freed");
    assert_still(&mut bench, machine, "it waits");
    let refusal = bench.ask(Command::Resume(machine)).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Rule);
    assert!(refusal.reason.contains("goes on by itself when 250 MiB are"), "{refusal}");

    // A little room isn't enough: it would stop again at once.
    leave_free(&host, limit() + ByteCount::mib(20));
    bench.pass(Duration::from_millis(1300));
    assert_eq!(power(&mut bench, machine), Power::NoRoom);
    leave_free(&host, limit() + ByteCount::mib(200));
    until(&mut bench, machine, &Power::Running);
    bench.pass(Duration::from_millis(200));
    assert_eq!(host.faults_met(), 0);
    host.set_capacity(None);
    stop_and_verify(&mut bench, machine);
}

#[test]
fn a_machine_runs_on_where_there_is_no_room_to_apply() {
    let host = MemHost::new();
    let (mut bench, machine) = create(&host, WorkloadProfile { page_writes_per_second: 0, frames_per_second: 0, ..full_speed() });
    let snapshot = bench.take(machine, "a", false);
    let set = Settings { pause_free: ByteCount::mib(1), ..Settings::default() };
    bench.done(Command::SetSettings { machine, settings: set });
    bench.done(Command::Start(machine));
    leave_free(&host, ByteCount::mib(9));
    let refusal = bench.ask(Command::Apply { machine, snapshot, safety: None }).unwrap_err();
    assert!(refusal.reason.contains("are needed and"), "{refusal}");
    assert_eq!(power(&mut bench, machine), Power::Running);
    host.set_capacity(None);
    stop_and_verify(&mut bench, machine);
}

#[test]
fn the_trash_is_emptied_before_the_machine_is_paused() {
    let host = MemHost::new();
    let (mut bench, machine) = create(&host, steady());
    let snapshot = bench.take(machine, "a", false);
    bench.work(machine, 5000);
    bench.done(Command::Apply { machine, snapshot, safety: None });
    let trash: ByteCount = bench.state(machine).machine.trash.iter().map(|item| item.held).sum();
    assert!(trash > ByteCount::mib(20), "{trash}");
    let settings = Settings { pause_free: ByteCount::mib(12), ..Settings::default() };
    bench.done(Command::SetSettings { machine, settings });
    bench.done(Command::Start(machine));
    leave_free(&host, ByteCount::mib(18));
    bench.until("the trash to be empty", |bench| {
        assert_eq!(power(bench, machine), Power::Running);
        bench.state(machine).machine.trash.is_empty()
    });
    assert_eq!(power(&mut bench, machine), Power::Running, "that was enough");
    assert_eq!(host.faults_met(), 0);
    until(&mut bench, machine, &Power::NoRoom);
    host.set_capacity(None);
    until(&mut bench, machine, &Power::Running);
    stop_and_verify(&mut bench, machine);
    bench.verify(machine, Some(snapshot));
}

#[test]
fn trash_that_is_not_enough_stays_and_is_told() {
    let host = MemHost::new();
    let (mut bench, machine) = create(&host, steady());
    let snapshot = bench.take(machine, "a", false);
    bench.work(machine, 1000);
    bench.done(Command::Apply { machine, snapshot, safety: None });
    let trash: ByteCount = bench.state(machine).machine.trash.iter().map(|item| item.held).sum();
    bench.done(Command::Start(machine));
    leave_free(&host, limit() - ByteCount(1));
    until(&mut bench, machine, &Power::NoRoom);
    let (can, action) = freeable(&mut bench, machine);
    assert_eq!((can.trash, action), (trash, Some(Action::EmptyTrash)));
    // It is the machine's owner who is asked for the rest.
    bench.done(Command::EmptyTrash { machine, all: true });
    assert_eq!(power(&mut bench, machine), Power::NoRoom);
    assert_eq!(freeable(&mut bench, machine).0.trash, ByteCount::ZERO);
    host.set_capacity(None);
    until(&mut bench, machine, &Power::Running);
    stop_and_verify(&mut bench, machine);
}

#[test]
fn a_merge_goes_on_while_the_machine_waits_and_lets_it_go_on() {
    let host = MemHost::new();
    let (mut bench, machine) = create(&host, steady());
    let mut taken = Vec::new();
    for label in ["a", "b", "c"] {
        bench.work(machine, 6000);
        taken.push(bench.take(machine, label, false));
    }
    // A branch that nothing stands on: it can be deleted.
    bench.work(machine, 500);
    let tip = bench.take(machine, "tip", false);
    bench.done(Command::Apply { machine, snapshot: taken[2], safety: None });
    bench.done(Command::EmptyTrash { machine, all: true });
    bench.done(Command::Delete { machine, snapshots: taken[..2].to_vec(), subtree: false, free_now: false });
    bench.done(Command::Start(machine));
    until_short(&mut bench, &host, machine);
    bench.until("the merge's cost", |bench| freeable(bench, machine).0.merges.merges == 1);
    let (can, action) = freeable(&mut bench, machine);
    assert_eq!((can.trash, action), (ByteCount::ZERO, Some(Action::Merge)));
    assert!(can.merges.comes_back > ByteCount::mib(8), "{can:?}");
    assert_eq!(can.snapshots, [tip]);
    assert!(can.deletable > ByteCount::mib(4), "{can:?}");

    // What the merge gives back is enough, and by far not all of it is needed.
    leave_free(&host, ByteCount::mib(250).saturating_sub(ByteCount(can.merges.comes_back.0 / 2)));
    assert_eq!(power(&mut bench, machine), Power::NoRoom);
    let merged = bench.done(Command::Merge { machine, disk: None, limit: None, until: None });
    assert!(matches!(&merged, Answer::Done(text) if text.starts_with("1 merge is done")), "{merged:?}");
    until(&mut bench, machine, &Power::Running);
    assert_eq!(host.faults_met(), 0);
    host.set_capacity(None);
    stop_and_verify(&mut bench, machine);
    bench.verify(machine, Some(taken[2]));
    bench.verify(machine, Some(tip));
}

#[test]
fn a_write_that_finds_the_volume_full_is_done_again() {
    let host = MemHost::new();
    let (mut bench, machine) = create(&host, full_speed());
    bench.done(Command::Start(machine));
    for _ in 0..3 {
        bench.pass(Duration::from_millis(150));
        // Another program fills the volume between two looks.
        host.set_capacity(Some(host.used()));
        until(&mut bench, machine, &Power::NoRoom);
        assert!(host.faults_met() > 0, "a write has found it full");
        assert_eq!(bench.state(machine).problems, Vec::<String>::new());
        // Killed now, nothing that was acknowledged is lost.
        let after = host.crash(CrashMode::Kill, 0);
        after.set_capacity(None);
        let mut other = Bench::in_memory(&after);
        other.verify(machine, None);
        host.set_capacity(None);
        until(&mut bench, machine, &Power::Running);
    }
    bench.verify(machine, None);
    stop_and_verify(&mut bench, machine);
}

#[test]
fn a_person_s_pause_is_not_overridden() {
    let host = MemHost::new();
    let (mut bench, machine) = create(&host, full_speed());
    bench.done(Command::Start(machine));
    until_short(&mut bench, &host, machine);
    bench.done(Command::Pause(machine));
    assert_eq!(power(&mut bench, machine), Power::Paused);
    host.set_capacity(None);
    bench.pass(Duration::from_millis(1300));
    assert_eq!(power(&mut bench, machine), Power::Paused, "there is room, but a person has paused it");
    assert_still(&mut bench, machine, "a person has paused it");
    bench.done(Command::Resume(machine));
    assert_eq!(power(&mut bench, machine), Power::Running);

    // A new leaf: what it writes needs room again, though it may have written all of its disk before.
    bench.take(machine, "before", false);
    until_short(&mut bench, &host, machine);
    bench.done(Command::Pause(machine));
    // The person wants it to go on, which it does by itself.
    let resumed = bench.done(Command::Resume(machine));
    assert_eq!(resumed, Answer::Done("it goes on by itself when there is room on its volume".into()));
    assert_eq!(power(&mut bench, machine), Power::NoRoom);
    bench.verify(machine, None);
    assert_still(&mut bench, machine, "verifying lets it stand");
    bench.take(machine, "still", false);
    assert_still(&mut bench, machine, "and so does taking a snapshot");
    assert_eq!(power(&mut bench, machine), Power::NoRoom);
    host.set_capacity(None);
    until(&mut bench, machine, &Power::Running);
    stop_and_verify(&mut bench, machine);
}

#[test]
fn a_machine_is_not_started_where_it_would_be_paused() {
    let host = MemHost::new();
    let (mut bench, machine) = create(&host, steady());
    let snapshot = bench.take(machine, "a", false);
    bench.work(machine, 1000);
    bench.done(Command::Apply { machine, snapshot, safety: None });
    leave_free(&host, limit() - ByteCount::mib(1));
    let run = Command::RunWorkload { machine, milliseconds: 100, seed: None };
    for command in [Command::Start(machine), run.clone()] {
        let id = bench.submit(command, Mode::WhatIf);
        let refusal = bench.wait(id).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Rule);
        assert!(refusal.reason.contains("199 MiB are free on its volume, and below 200 MiB it would be paused"), "{refusal}");
        assert!(refusal.reason.contains("in the trash"), "{refusal}");
    }
    bench.done(Command::EmptyTrash { machine, all: true });
    bench.done(run);
    // A run that was begun waits for room, and does all that it was asked.
    let id = bench.submit(Command::RunWorkload { machine, milliseconds: 3000, seed: None }, Mode::Do);
    host.set_capacity(Some(host.used()));
    bench.until("it to wait", |bench| bench.jobs.last().is_some_and(|job| job.title.starts_with("Waiting")));
    host.set_capacity(None);
    let ran = bench.wait(id).unwrap();
    assert!(matches!(&ran, Answer::Done(text) if text.starts_with("it ran:")), "{ran:?}");
    bench.verify(machine, None);
}

#[test]
fn a_snapshot_that_finds_no_room_is_completed_when_there_is_some() {
    let host = MemHost::new();
    let (mut bench, machine) = create(&host, full_speed());
    bench.done(Command::Start(machine));
    bench.pass(Duration::from_millis(200));
    let take = Command::Take { machine, label: "a".into(), note: String::new(), memory: true };
    let id = bench.submit(take, Mode::Do);
    // The machine has been switched to its new leaves; nothing of the memory is saved yet.
    bench.engine.tick();
    host.set_capacity(Some(host.used()));
    bench.until("it to wait", |bench| bench.jobs.last().is_some_and(|job| job.title.starts_with("Waiting")));
    until(&mut bench, machine, &Power::NoRoom);
    host.set_capacity(None);
    let taken = bench.wait(id).unwrap();
    let Answer::Taken { snapshot, .. } = taken else { panic!("{taken:?}") };
    until(&mut bench, machine, &Power::Running);
    let state = bench.state(machine);
    assert_eq!(state.machine.snapshots[&snapshot].memory, None, "its memory found no room");
    assert!(!host.files().iter().any(|file| file.ends_with("memory.saved")), "and leaves nothing behind");
    bench.verify(machine, Some(snapshot));
    bench.take(machine, "b", true);
    stop_and_verify(&mut bench, machine);
}

#[test]
fn a_machine_whose_disks_find_no_room_to_be_flushed_is_not_stopped() {
    let host = MemHost::new();
    let (mut bench, machine) = create(&host, full_speed());
    bench.done(Command::Start(machine));
    bench.pass(Duration::from_millis(150));
    host.inject(Fault { door: Some(Door::Write), skip: 0, kind: ErrorKind::StorageFull, sticky: true });
    until(&mut bench, machine, &Power::NoRoom);
    let refusal = bench.ask(Command::Stop(machine)).unwrap_err();
    assert!(refusal.reason.contains("too full to flush its disks"), "{refusal}");
    assert_eq!(power(&mut bench, machine), Power::NoRoom);
    host.heal();
    until(&mut bench, machine, &Power::Running);
    stop_and_verify(&mut bench, machine);
}
