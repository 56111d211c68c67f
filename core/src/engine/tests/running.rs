//! A machine that runs.

use std::time::Duration;

use super::{Bench, quick};
use crate::engine::{Answer, Command, Power};
use crate::snapshot::WorkloadProfile;
use crate::units::ByteCount;

#[test]
fn a_running_machine_goes_back_to_exactly_the_instant() {
    let mut bench = Bench::new();
    let machine = bench.create(
        "m",
        ByteCount::mib(16),
        &[ByteCount::mib(32), ByteCount::mib(8)],
        WorkloadProfile { seed: 3, page_writes_per_second: 0, disk_writes_per_second: 0, hot_share: 0.5, frames_per_second: 50 },
    );
    bench.done(Command::Start(machine));
    bench.pass(Duration::from_millis(500));
    assert_eq!(bench.state(machine).power, Power::Running);
    let take = Command::Take { machine, label: "live".into(), note: String::new(), memory: true };
    let Answer::Taken { snapshot, latency: Some(latency) } = bench.done(take) else { panic!("not taken live") };
    assert!(latency.memory == ByteCount::mib(16) && latency.pause > Duration::ZERO, "{latency:?}");
    let kept = bench.verify(machine, Some(snapshot));
    assert!(kept.memory > ByteCount::ZERO && kept.disk > ByteCount::ZERO);
    bench.done(Command::BadUpdate(machine));
    bench.pass(Duration::from_millis(300));
    bench.done(Command::Apply { machine, snapshot, safety: Some("before".into()) });
    let state = bench.state(machine);
    assert_eq!(state.power, Power::Running, "it goes on from the saved memory");
    let before = state.machine.snapshots.values().find(|snapshot| snapshot.label == "before").expect("taken first");
    assert!(before.memory.is_some());
    bench.pass(Duration::from_millis(300));
    assert_eq!(bench.verify(machine, Some(snapshot)), kept, "the snapshot is as it was");
    bench.done(Command::Stop(machine));
    assert_eq!(bench.state(machine).power, Power::Off);
    bench.verify(machine, None);
}

#[test]
fn applying_without_memory_leaves_it_off() {
    let mut bench = Bench::new();
    let machine = bench.create("m", ByteCount::mib(16), &[ByteCount::mib(16)], quick());
    bench.done(Command::Start(machine));
    bench.pass(Duration::from_millis(200));
    let snapshot = bench.take(machine, "disks only", false);
    bench.done(Command::Apply { machine, snapshot, safety: None });
    assert_eq!(bench.state(machine).power, Power::Off);
    bench.verify(machine, None);
    bench.done(Command::Start(machine));
    bench.pass(Duration::from_millis(200));
    bench.done(Command::Stop(machine));
    bench.verify(machine, None);
}

#[test]
fn snapshots_with_memory_resume_a_stopped_machine() {
    let mut bench = Bench::new();
    let machine = bench.create("m", ByteCount::mib(16), &[ByteCount::mib(16)], quick());
    bench.done(Command::Start(machine));
    bench.pass(Duration::from_millis(300));
    let snapshot = bench.take(machine, "live", true);
    let kept = bench.verify(machine, Some(snapshot));
    bench.done(Command::Stop(machine));
    bench.done(Command::Apply { machine, snapshot, safety: None });
    assert_eq!(bench.state(machine).power, Power::Saved);
    assert_eq!(bench.verify(machine, None), kept);
    let mut bench = bench.reopen();
    bench.pass(Duration::from_millis(50));
    bench.done(Command::Start(machine));
    bench.pass(Duration::from_millis(200));
    assert_eq!(bench.state(machine).power, Power::Running);
    bench.done(Command::Stop(machine));
    assert_eq!(bench.verify(machine, Some(snapshot)), kept);
}

#[test]
fn a_snapshot_of_a_machine_that_stands_still_leaves_it_so() {
    let mut bench = Bench::new();
    let machine = bench.create("m", ByteCount::mib(16), &[ByteCount::mib(16)], quick());
    bench.done(Command::Start(machine));
    bench.done(Command::Pause(machine));
    bench.take(machine, "still", true);
    assert_eq!(bench.state(machine).power, Power::Paused);
    bench.done(Command::Resume(machine));
    bench.done(Command::Stop(machine));
}
