//! Several machines with several disks in one library: their jobs run side by side, and none sees another's bytes.

use std::collections::BTreeMap;

use snaptree_core::engine::{Command, JobKind, JobPhase, RequestId};
use snaptree_core::host_file::Access;
use snaptree_core::snapshot::{DiskId, MachineId, SnapshotId, Tree, WorkloadProfile};
use snaptree_core::units::{ByteCount, ByteRate};
use snaptree_tests::driver::Driver;
use snaptree_tests::witness::sha256_of_chain;

const MACHINES: u64 = 3;

type Hashes = BTreeMap<DiskId, String>;

fn hashes(driver: &mut Driver, machine: MachineId, at: Option<SnapshotId>) -> Hashes {
    let chains = driver.chains(machine, at, Access::Look);
    chains.iter().map(|(disk, chain)| (disk.clone(), sha256_of_chain(chain).expect("readable"))).collect()
}

/// Asks all at once, then waits for all.
fn all(driver: &mut Driver, machines: &[MachineId], command: impl Fn(MachineId) -> Command) {
    let asked: Vec<RequestId> = machines.iter().map(|machine| driver.submit(command(*machine))).collect();
    for id in asked {
        driver.wait(id).unwrap_or_else(|refusal| panic!("{refusal}"));
    }
}

/// Whether jobs of one kind of all machines were under way at one time.
fn overlapped(driver: &Driver, kind: JobKind) -> bool {
    let mut running: BTreeMap<MachineId, bool> = BTreeMap::new();
    driver.jobs.iter().filter(|job| job.kind == kind).any(|job| {
        running.insert(job.machine, job.phase == JobPhase::Running);
        running.values().filter(|running| **running).count() as u64 == MACHINES
    })
}

#[test]
fn jobs_on_several_machines_run_side_by_side() {
    let mut driver = Driver::new();
    let profile = |seed| WorkloadProfile { seed, disk_writes_per_second: 1500, ..WorkloadProfile::default() };
    let disks = |n: u64| vec![ByteCount::mib(16 + n), ByteCount::mib(9), ByteCount::mib(7 + n)];
    let create = |n| (format!("machine {n}"), disks(n), profile(100 + n));
    let machines: Vec<MachineId> = (0..MACHINES)
        .map(create)
        .map(|(name, disks, profile)| driver.create(&name, ByteCount::mib(4), &disks, profile))
        .collect();
    let run = |machine| Command::RunWorkload { machine, milliseconds: 600, seed: None };
    let take =
        |label: &'static str| move |machine| Command::Take { machine, label: label.into(), note: String::new(), memory: false };
    let mut was: BTreeMap<(MachineId, &str), Hashes> = BTreeMap::new();
    for label in ["one", "two", "three"] {
        all(&mut driver, &machines, run);
        all(&mut driver, &machines, take(label));
        for machine in &machines {
            was.insert((*machine, label), hashes(&mut driver, *machine, None));
        }
    }
    assert!(overlapped(&driver, JobKind::RunWorkload));
    let mut seen: Vec<&String> = was.values().flat_map(BTreeMap::values).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len() as u64, MACHINES * 3 * 3, "every disk was written in every round, each otherwise");

    for machine in &machines {
        let two = driver.labelled(*machine, "two");
        driver.delete(*machine, &[two]);
        assert_eq!(Tree::of(&driver.state(*machine).machine).runs().len(), 3, "one merge a disk");
    }
    // Slow enough that all are at it together; one is applied back afterwards.
    all(&mut driver, &machines, |machine| Command::Merge { machine, disk: None, limit: Some(ByteRate(4e6)), until: None });
    assert!(overlapped(&driver, JobKind::Merge));
    let one = driver.labelled(machines[1], "one");
    driver.done(Command::Apply { machine: machines[1], snapshot: one, safety: None });

    let mut driver = driver.reopen();
    driver.pass_until("the machines are found again", |driver| machines.iter().all(|machine| driver.known(*machine).is_some()));
    for machine in &machines {
        for label in ["one", "three"] {
            let id = driver.labelled(*machine, label);
            assert_eq!(hashes(&mut driver, *machine, Some(id)), was[&(*machine, label)], "{label} has changed");
            driver.verify(*machine, Some(id));
        }
        let now = if *machine == machines[1] { "one" } else { "three" };
        assert_eq!(hashes(&mut driver, *machine, None), was[&(*machine, now)]);
        assert!(Tree::of(&driver.state(*machine).machine).runs().is_empty());
    }
}
