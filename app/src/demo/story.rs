//! The demo's machines, made by really creating, running, taking, applying and deleting. Only the days are a story.

use std::path::Path;

use anyhow::Result;
use snaptree_core::disk::ImageFormat;
use snaptree_core::engine::{Command, CreateMachine};
use snaptree_core::snapshot::{MachineId, MachineKind, SnapshotId, WorkloadProfile};
use snaptree_core::units::ByteCount;

use super::caller::Caller;
use super::clock::StoryClock;

const DAY: i64 = 24;

/// Builds the demo's library in an empty folder; `tell` hears what is being done.
pub fn build(library: &Path, tell: &mut dyn FnMut(&str)) -> Result<()> {
    let clock = StoryClock::shared();
    let mut caller = Caller::start(library, clock.clone(), false)?;
    for part in [web01, sql02, db01, files01] {
        part(&mut caller, &clock, tell)?;
    }
    Ok(())
}

fn machine(name: &str, seed: u64, memory_mib: u64, disk: ByteCount, profile: WorkloadProfile) -> CreateMachine {
    CreateMachine {
        name: name.into(),
        kind: MachineKind::Workload,
        memory: ByteCount::mib(memory_mib),
        disks: vec![disk],
        format: ImageFormat::Vhdx,
        workload: WorkloadProfile { seed, ..profile },
    }
}

/// A stopped machine works for a while, then a snapshot of its disk is taken.
fn work_and_take(caller: &mut Caller, machine: MachineId, milliseconds: u64, label: &str, note: &str) -> Result<SnapshotId> {
    caller.ask(Command::RunWorkload { machine, milliseconds, seed: None })?;
    Ok(caller.take(machine, label, note, false)?.0)
}

/// A machine runs for so many generations of its picture, then a snapshot with its memory is taken.
fn watch_and_take(caller: &mut Caller, machine: MachineId, generations: u64, label: &str, note: &str) -> Result<SnapshotId> {
    caller.watch(machine, generations)?;
    Ok(caller.take(machine, label, note, true)?.0)
}

fn delete(caller: &mut Caller, machine: MachineId, snapshots: Vec<SnapshotId>) -> Result<()> {
    caller.ask(Command::Delete { machine, snapshots, subtree: false, free_now: false })?;
    Ok(())
}

/// The machine to play with: it runs, and can be spoiled and brought back.
fn web01(caller: &mut Caller, clock: &StoryClock, tell: &mut dyn FnMut(&str)) -> Result<()> {
    tell("WEB01: a running machine with its memory in every snapshot");
    clock.set_hours_ago(30);
    let web = caller.create(machine("WEB01", 7, 64, ByteCount::gib(2), WorkloadProfile::default()))?;
    caller.run(web)?;
    clock.set_hours_ago(28);
    watch_and_take(caller, web, 4, "Installed", "Fresh from the installer.")?;
    clock.set_hours_ago(5);
    let before = watch_and_take(caller, web, 6, "Before update", "Taken with its memory, while it ran.")?;
    clock.set_hours_ago(4);
    watch_and_take(caller, web, 4, "Update tried", "Worked, but slow.")?;
    caller.ask(Command::Apply { machine: web, snapshot: before, safety: None })?;
    clock.set_hours_ago(1);
    watch_and_take(caller, web, 5, "Second try", "")?;
    clock.set_hours_ago(0);
    caller.stop(web)
}

/// Deep, with deleted snapshots whose bytes are still there.
fn sql02(caller: &mut Caller, clock: &StoryClock, tell: &mut dyn FnMut(&str)) -> Result<()> {
    tell("SQL02: a deep chain, and deleted snapshots that still hold their bytes");
    clock.set_hours_ago(130 * DAY);
    let profile = WorkloadProfile { disk_writes_per_second: 120, ..WorkloadProfile::default() };
    let sql = caller.create(machine("SQL02", 11, 16, ByteCount::gib(4), profile))?;
    work_and_take(caller, sql, 60_000, "Installed", "")?;
    clock.set_hours_ago(100 * DAY);
    let before = work_and_take(caller, sql, 8_000, "Before SP1", "Keep until the audit is over.")?;
    caller.ask(Command::Protect { machine: sql, snapshot: before, protected: true })?;
    clock.set_hours_ago(99 * DAY);
    work_and_take(caller, sql, 4_000, "SP1 tried", "")?;
    clock.set_hours_ago(97 * DAY);
    work_and_take(caller, sql, 3_000, "SP1 and fix", "")?;
    caller.ask(Command::Apply { machine: sql, snapshot: before, safety: None })?;
    let mut nightly = Vec::new();
    for night in 0..8 {
        clock.set_hours_ago((60 - night) * DAY);
        nightly.push(work_and_take(caller, sql, 5_000, &format!("Nightly {}", night + 1), "")?);
    }
    clock.set_hours_ago(51 * DAY);
    caller.run(sql)?;
    let migrated = watch_and_take(caller, sql, 5, "After migration", "Migrated to the new array, keep until May.")?;
    clock.set_hours_ago(45 * DAY);
    watch_and_take(caller, sql, 4, "Test branch", "")?;
    caller.ask(Command::Apply { machine: sql, snapshot: migrated, safety: None })?;
    caller.stop(sql)?;
    clock.set_hours_ago(20);
    delete(caller, sql, nightly)?;
    clock.set_hours_ago(0);
    caller.ask(Command::RunWorkload { machine: sql, milliseconds: 6_000, seed: None })?;
    Ok(())
}

/// Snapshots come faster than they are merged.
fn db01(caller: &mut Caller, clock: &StoryClock, tell: &mut dyn FnMut(&str)) -> Result<()> {
    tell("DB01: snapshots that come faster than they merge");
    clock.set_hours_ago(12 * DAY);
    let profile = WorkloadProfile { disk_writes_per_second: 200, hot_share: 0.3, ..WorkloadProfile::default() };
    let db = caller.create(machine("DB01", 23, 16, ByteCount::gib(4), profile))?;
    let mut weekly = Vec::new();
    for (day, label) in [(11, "Base load"), (9, "Before index"), (6, "After index"), (3, "Before month end"), (1, "Month end")] {
        clock.set_hours_ago(day * DAY);
        weekly.push(work_and_take(caller, db, 15_000, label, "")?);
    }
    clock.set_hours_ago(10);
    delete(caller, db, vec![weekly[1], weekly[2]])?;
    clock.set_hours_ago(0);
    Ok(())
}

/// The story that all this comes from: a dozen snapshots in a year, deleted together.
fn files01(caller: &mut Caller, clock: &StoryClock, tell: &mut dyn FnMut(&str)) -> Result<()> {
    tell("FILES01: a dozen snapshots over a year, to be merged in one pass");
    clock.set_hours_ago(365 * DAY);
    let profile = WorkloadProfile { disk_writes_per_second: 300, hot_share: 0.5, ..WorkloadProfile::default() };
    let files = caller.create(machine("FILES01", 31, 16, ByteCount::gib(4), profile))?;
    caller.ask(Command::RunWorkload { machine: files, milliseconds: 60_000, seed: None })?;
    let months = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let mut taken = Vec::new();
    for (month, label) in months.into_iter().enumerate() {
        clock.set_hours_ago((360 - 30 * month as i64) * DAY);
        taken.push(work_and_take(caller, files, 8_000, label, "")?);
    }
    clock.set_hours_ago(2);
    delete(caller, files, taken)?;
    clock.set_hours_ago(0);
    Ok(())
}
