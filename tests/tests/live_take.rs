//! Snapshots of a machine that dirties memory and disks as fast as it can: each is of one instant, and the machine goes
//! on from exactly there, into the same future.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use snaptree_core::chain::{BlockDevice, Chain, Gate};
use snaptree_core::clock::SystemClock;
use snaptree_core::disk;
use snaptree_core::engine::{Command, Power};
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::snapshot::{MachineId, SnapshotId, WorkloadProfile};
use snaptree_core::units::ByteCount;
use snaptree_core::vm::Setup;
use snaptree_core::vm::workload::Workload;
use snaptree_tests::driver::Driver;

const MEMORY: ByteCount = ByteCount::mib(32);
const DISKS: [ByteCount; 3] = [ByteCount::mib(32), ByteCount::mib(8), ByteCount::mib(6)];
const FRAMES_PER_SECOND: u32 = 50;
/// Generations of the picture whose future is computed beside the engine.
const FUTURE: u64 = 16;

fn profile() -> WorkloadProfile {
    WorkloadProfile {
        seed: 20,
        page_writes_per_second: 0,
        disk_writes_per_second: 0,
        hot_share: 0.5,
        frames_per_second: FRAMES_PER_SECOND,
    }
}

/// What must come after a snapshot: generation and checksum of each picture, the snapshot's own first.
fn future(driver: &mut Driver, machine: MachineId, snapshot: SnapshotId) -> BTreeMap<u64, u32> {
    let (host, scratch) = (OsHost::shared(), tempfile::tempdir().expect("a folder"));
    let state = driver.state(machine);
    let node = &state.machine.snapshots[&snapshot];
    // On leaves of its own, so that the snapshot stays as it is.
    let mut disks: Vec<Arc<dyn BlockDevice>> = Vec::new();
    for config in &node.configuration.disks {
        let frozen = state.folder.join(&state.machine.images[&node.images[&config.id]].file);
        let leaf = scratch.path().join(format!("{}.avhdx", config.id));
        let parent = disk::open(&host, &frozen, config.format, Access::Look).expect("a frozen image");
        drop(disk::create_child(&host, &leaf, &*parent, None).expect("a leaf"));
        let gate = Gate::new([state.folder.clone(), scratch.path().to_path_buf()]);
        disks.push(Arc::new(Chain::open(&host, &leaf, Access::Write, &gate).unwrap_or_else(|error| panic!("{error}"))));
    }
    let memory = node.memory.as_ref().expect("saved memory");
    let saved_memory = Some(host.open(&state.folder.join(&memory.file), Access::Read).expect("the saved memory"));
    // Only the picture's future is asked for; what the others do doesn't change it.
    let mut configuration = node.configuration.clone();
    (configuration.workload.page_writes_per_second, configuration.workload.disk_writes_per_second) = (1, 1);
    let clock = SystemClock::shared();
    let workload = Workload::new(&Setup { configuration, disks, saved_memory, clock }).expect("it continues");
    let first = workload.frame();
    // The picture that was published shows the instant of the pause.
    let screen = node.screen.as_ref().expect("a picture");
    assert!(fs::read(state.folder.join(screen)).expect("the picture") == first.encode().png, "the picture is of another instant");
    let mut future = BTreeMap::from([(first.generation, first.checksum)]);
    for _ in 0..FUTURE {
        workload.run_for(Duration::from_secs(1) / FRAMES_PER_SECOND).expect("it runs");
        let frame = workload.frame();
        future.insert(frame.generation, frame.checksum);
    }
    assert!(future.len() as u64 > FUTURE / 2 && workload.wrong().is_empty(), "{:?}", workload.wrong());
    future
}

/// Goes on from a snapshot; how many pictures were compared with what must come.
fn go_on(driver: &mut Driver, machine: MachineId, snapshot: SnapshotId, future: &BTreeMap<u64, u32>) -> usize {
    driver.done(Command::Apply { machine, snapshot, safety: None });
    driver.screens.clear();
    let first = *future.keys().next().expect("the instant itself");
    driver.pass_until("the picture goes on", |driver| {
        driver.screens.iter().any(|(_, screen)| screen.generation > first + FUTURE / 2)
    });
    let mut compared = 0;
    for (_, screen) in &driver.screens {
        assert!(screen.generation >= first, "generation {} is before the instant {first}", screen.generation);
        if let Some(checksum) = future.get(&screen.generation) {
            assert_eq!(screen.checksum, *checksum, "generation {} is another picture", screen.generation);
            compared += 1;
        }
    }
    compared
}

#[test]
fn live_snapshots_are_of_one_instant_and_have_the_same_future() {
    let mut driver = Driver::new();
    let machine = driver.create("m", MEMORY, &DISKS, profile());
    driver.done(Command::Start(machine));
    let mut taken = Vec::new();
    for round in 0..5 {
        driver.pass(Duration::from_millis(250));
        let (snapshot, latency) = driver.take(machine, &format!("live {round}"), true);
        let latency = latency.expect("it ran");
        assert_eq!(latency.memory, MEMORY);
        assert!(latency.intercepted_writes > 0 && latency.pause > Duration::ZERO, "{latency:?}");
        println!("round {round}: {latency:?}");
        taken.push(snapshot);
    }
    let mut reports = Vec::new();
    for snapshot in &taken {
        let report = driver.verify(machine, Some(*snapshot));
        assert_eq!(report.memory, MEMORY, "every page");
        assert_eq!(report.disk, DISKS.into_iter().sum(), "every sector");
        reports.push(report);
    }
    for (snapshot, report) in taken.iter().zip(&reports) {
        let future = future(&mut driver, machine, *snapshot);
        assert_eq!(future.keys().next(), Some(&report.picture_generation));
        // Twice the same, by the machine on its own threads under full load.
        let compared = go_on(&mut driver, machine, *snapshot, &future) + go_on(&mut driver, machine, *snapshot, &future);
        assert!(compared >= 2, "{compared} pictures were compared");
    }
    for (snapshot, report) in taken.iter().zip(&reports) {
        assert_eq!(driver.verify(machine, Some(*snapshot)), *report, "a snapshot has changed");
    }
    driver.done(Command::Stop(machine));
    assert_eq!(driver.state(machine).power, Power::Off);
    driver.verify(machine, None);
    // Off, it is exactly the snapshot again, and the next start goes on from there.
    driver.done(Command::Apply { machine, snapshot: taken[2], safety: None });
    assert_eq!(driver.state(machine).power, Power::Saved);
    assert_eq!(driver.verify(machine, None), reports[2]);
}
