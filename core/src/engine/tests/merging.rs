//! A machine is merged while it runs, as fast as it can.

use std::time::Duration;

use super::{Bench, quick};
use crate::engine::{Answer, Command, JobAction, Mode, Power, RefusalKind};
use crate::snapshot::{MachineId, SnapshotId, Tree, WorkloadProfile};
use crate::units::{ByteCount, ByteRate};

const DISKS: [ByteCount; 2] = [ByteCount::mib(48), ByteCount::mib(16)];

/// It never rests.
fn busy() -> WorkloadProfile {
    WorkloadProfile { disk_writes_per_second: 0, page_writes_per_second: 0, ..quick() }
}

/// A machine that runs, with so many snapshots of its disks.
fn running(bench: &mut Bench, profile: WorkloadProfile, snapshots: usize) -> (MachineId, Vec<SnapshotId>) {
    let machine = bench.create("m", ByteCount::mib(16), &DISKS, profile);
    bench.done(Command::Start(machine));
    let mut taken = Vec::new();
    for index in 0..snapshots {
        bench.pass(Duration::from_millis(150));
        taken.push(bench.take(machine, &format!("s{index}"), index == 0));
    }
    bench.pass(Duration::from_millis(150));
    (machine, taken)
}

fn delete(bench: &mut Bench, machine: MachineId, snapshots: &[SnapshotId]) {
    bench.done(Command::Delete { machine, snapshots: snapshots.to_vec(), subtree: false, free_now: false });
}

fn runs(bench: &mut Bench, machine: MachineId) -> usize {
    Tree::of(&bench.state(machine).machine).runs().len()
}

fn depth(bench: &mut Bench, machine: MachineId) -> usize {
    let state = bench.state(machine);
    let leaf = *state.machine.now.images.values().next().expect("a disk");
    Tree::of(&state.machine).chain(leaf).len()
}

/// Merges what is due while the machine runs; afterwards every kept node is what it was, and the machine is right.
fn merge_and_compare(bench: &mut Bench, machine: MachineId, kept: &[SnapshotId]) {
    let was: Vec<_> = kept.iter().map(|snapshot| bench.content(machine, Some(*snapshot))).collect();
    assert_eq!(runs(bench, machine), DISKS.len());
    bench.done(Command::Merge { machine, disk: None, limit: None, until: None });
    assert_eq!(bench.state(machine).power, Power::Running);
    assert_eq!(runs(bench, machine), 0, "all is merged");
    bench.pass(Duration::from_millis(200));
    for (snapshot, was) in kept.iter().zip(was) {
        assert_eq!(bench.content(machine, Some(*snapshot)), was, "a kept snapshot");
    }
    let later = bench.take(machine, "later", false);
    bench.pass(Duration::from_millis(100));
    bench.done(Command::Stop(machine));
    for at in kept.iter().map(|kept| Some(*kept)).chain([Some(later), None]) {
        assert!(bench.verify(machine, at).disk > ByteCount::ZERO);
    }
    let problems = bench.state(machine).problems.clone();
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn what_lies_under_the_machine_is_merged_while_it_runs() {
    // In the middle, at the bottom, and up to what the machine writes to.
    for deleted in [1..3, 0..2, 2..4, 0..4] {
        let mut bench = Bench::new();
        let (machine, taken) = running(&mut bench, busy(), 4);
        delete(&mut bench, machine, &taken[deleted.clone()]);
        let kept: Vec<_> = taken.iter().enumerate().filter(|(n, _)| !deleted.contains(n)).map(|(_, id)| *id).collect();
        merge_and_compare(&mut bench, machine, &kept);
        let mut bench = bench.reopen();
        bench.pass(Duration::from_millis(20));
        assert_eq!(depth(&mut bench, machine), 2 + kept.len(), "{deleted:?}");
        for at in kept.iter().map(|kept| Some(*kept)).chain([None]) {
            bench.verify(machine, at);
        }
        bench.done(Command::Start(machine));
        bench.pass(Duration::from_millis(100));
        bench.done(Command::Stop(machine));
        bench.verify(machine, None);
    }
}

#[test]
fn other_commands_come_in_while_a_running_machine_is_merged() {
    let mut bench = Bench::new();
    let (machine, taken) = running(&mut bench, busy(), 4);
    delete(&mut bench, machine, &taken[1..]);
    let was = bench.content(machine, Some(taken[0]));
    let slow = Some(ByteRate(256.0 * 1024.0));
    let merge = bench.submit(Command::Merge { machine, disk: None, limit: slow, until: None }, Mode::Do);
    bench.pass(Duration::from_millis(300));
    let busy = bench.ask(Command::Merge { machine, disk: None, limit: None, until: None }).expect_err("one is under way");
    assert_eq!(busy.kind, RefusalKind::Rule);
    let with_memory = bench.take(machine, "in between", true);
    bench.pass(Duration::from_millis(200));
    let in_between = bench.take(machine, "again", false);
    bench.pass(Duration::from_millis(200));
    delete(&mut bench, machine, &[in_between]);
    bench.pass(Duration::from_millis(200));
    bench.done(Command::Pause(machine));
    bench.done(Command::Resume(machine));
    assert!(!bench.answers.contains_key(&merge), "it is still under way");
    // Without a limit for the rest.
    bench.done(Command::Job { machine, action: JobAction::Cancel });
    let cancelled = bench.wait(merge).expect_err("it was cancelled");
    assert!(cancelled.reason.contains("stay moved"), "{}", cancelled.reason);
    assert_eq!(bench.state(machine).power, Power::Running);
    let Answer::Done(text) = bench.done(Command::Merge { machine, disk: None, limit: None, until: None }) else {
        panic!("not done")
    };
    assert!(text.contains("merge"), "{text}");
    assert_eq!(runs(&mut bench, machine), 0);
    assert_eq!(bench.content(machine, Some(taken[0])), was);
    bench.done(Command::Apply { machine, snapshot: with_memory, safety: None });
    bench.pass(Duration::from_millis(100));
    assert_eq!(bench.state(machine).power, Power::Running, "it goes on from the saved memory");
    bench.done(Command::Stop(machine));
    for at in [Some(taken[0]), Some(with_memory), None] {
        bench.verify(machine, at);
    }
}

#[test]
fn a_machine_that_dies_while_it_is_merged_loses_nothing() {
    let mut cut = 0;
    for at in [20, 80, 200] {
        let mut bench = Bench::new();
        let (machine, taken) = running(&mut bench, quick(), 3);
        delete(&mut bench, machine, &taken[1..]);
        let was = bench.content(machine, Some(taken[0]));
        bench.submit(Command::Merge { machine, disk: None, limit: Some(ByteRate(100e3)), until: None }, Mode::Do);
        bench.pass(Duration::from_millis(at));
        let mut bench = bench.reopen();
        bench.pass(Duration::from_millis(20));
        assert_eq!(bench.state(machine).power, Power::Off);
        bench.verify(machine, None);
        cut += runs(&mut bench, machine);
        // Where there was little to move, it was complete.
        if runs(&mut bench, machine) > 0 {
            bench.done(Command::Merge { machine, disk: None, limit: None, until: None });
        }
        assert_eq!(bench.content(machine, Some(taken[0])), was);
        bench.verify(machine, Some(taken[0]));
        bench.verify(machine, None);
    }
    assert!(cut > 0, "each merge was complete before the machine died");
}

#[test]
fn a_merge_of_a_stopped_machine_gives_way_to_its_start_and_goes_on_live() {
    let mut bench = Bench::new();
    let (machine, taken) = running(&mut bench, busy(), 3);
    bench.done(Command::Stop(machine));
    delete(&mut bench, machine, &taken[1..]);
    let limit = Some(ByteRate(256.0 * 1024.0));
    let merge = bench.submit(Command::Merge { machine, disk: None, limit, until: None }, Mode::Do);
    bench.until("the merge to have moved something", |bench| bench.jobs.last().is_some_and(|job| job.done > ByteCount::ZERO));
    bench.done(Command::Start(machine));
    assert_eq!(bench.state(machine).power, Power::Running);
    assert!(!bench.answers.contains_key(&merge), "the merge isn't over");
    bench.pass(Duration::from_millis(300));
    // What was done stays done.
    bench.done(Command::Job { machine, action: JobAction::Cancel });
    let ended = bench.wait(merge).unwrap_err();
    assert!(ended.reason.contains("moved and stay moved"), "{ended}");
    bench.done(Command::Merge { machine, disk: None, limit: None, until: None });
    assert_eq!((runs(&mut bench, machine), bench.state(machine).power.clone()), (0, Power::Running));
    bench.done(Command::Stop(machine));
    bench.verify(machine, None);
    bench.verify(machine, Some(taken[0]));
}
