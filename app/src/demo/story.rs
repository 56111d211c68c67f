//! The demo's machines, made by really creating, running, taking, applying and deleting. Only the days are a story.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use snaptree_core::disk::ImageFormat;
use snaptree_core::engine::{Command, CreateMachine};
use snaptree_core::snapshot::{MachineId, MachineKind, SnapshotId, WorkloadProfile};
use snaptree_core::units::ByteCount;

use super::caller::Caller;
use super::clock::StoryClock;
use super::unflushed::Unflushed;
use super::{Progress, Tell, plan};

const DAY: i64 = 24;

/// A machine's part of the story.
struct Part {
    says: &'static str,
    /// Snapshots that it takes.
    snapshots: u32,
    tell: fn(&mut Story<'_>) -> Result<()>,
}

const PARTS: [Part; 6] = [
    Part { says: "WEB01: a running machine with its memory in every snapshot", snapshots: 4, tell: web01 },
    Part { says: "SQL02: a deep chain, and deleted snapshots that still hold their bytes", snapshots: 14, tell: sql02 },
    Part { says: "DB01: snapshots that come faster than they merge", snapshots: 5, tell: db01 },
    Part { says: "MAIL01: a running machine that may be disturbed for a minute a week", snapshots: 1, tell: mail01 },
    Part { says: "ARCHIVE: a merge that waits for a window too far away", snapshots: 3, tell: archive },
    Part { says: "FILES01: a dozen snapshots over a year, to be merged in one pass", snapshots: 12, tell: files01 },
];

/// Builds the demo's library in an empty folder; `tell` hears what is being done. Nothing is flushed.
pub fn build(library: &Path, tell: Tell<'_>) -> Result<()> {
    let clock = StoryClock::shared();
    let host = Unflushed::shared();
    let caller = Caller::start(library, host.clone(), clock.clone(), false)?;
    let of = PARTS.iter().map(|part| part.snapshots).sum();
    let mut story = Story { caller, clock, tell, progress: Progress { of, ..Progress::default() } };
    for part in &PARTS {
        story.progress.what = part.says.into();
        (story.tell)(story.progress.clone())?;
        (part.tell)(&mut story)?;
    }
    let Story { mut caller, .. } = story;
    plan::make_windows(&mut caller)?;
    let states = plan::states(&mut caller)?;
    // Its engine adds to the histories as well.
    drop(caller);
    plan::tell_sizes(&host, library, &states)
}

/// What is told, and how far it is.
struct Story<'a> {
    caller: Caller,
    clock: Arc<StoryClock>,
    tell: Tell<'a>,
    progress: Progress,
}

impl Story<'_> {
    fn create(&mut self, name: &str, seed: u64, memory_mib: u64, disk_mib: u64, profile: WorkloadProfile) -> Result<MachineId> {
        self.caller.create(CreateMachine {
            name: name.into(),
            kind: MachineKind::Workload,
            memory: ByteCount::mib(memory_mib),
            disks: vec![ByteCount::mib(disk_mib)],
            format: ImageFormat::Vhdx,
            hardware: None,
            workload: WorkloadProfile { seed, ..profile },
        })
    }

    fn take(&mut self, machine: MachineId, label: &str, note: &str, memory: bool) -> Result<SnapshotId> {
        let (taken, _) = self.caller.take(machine, label, note, memory)?;
        self.progress.done += 1;
        (self.tell)(self.progress.clone())?;
        Ok(taken)
    }

    /// A stopped machine works for a while, then a snapshot of its disk is taken.
    fn work_and_take(&mut self, machine: MachineId, milliseconds: u64, label: &str, note: &str) -> Result<SnapshotId> {
        self.caller.ask(Command::RunWorkload { machine, milliseconds, seed: None })?;
        self.take(machine, label, note, false)
    }

    /// A machine runs for so many generations of its picture, then a snapshot with its memory is taken.
    fn watch_and_take(&mut self, machine: MachineId, generations: u64, label: &str, note: &str) -> Result<SnapshotId> {
        self.caller.watch(machine, generations)?;
        self.take(machine, label, note, true)
    }

    fn delete(&mut self, machine: MachineId, snapshots: Vec<SnapshotId>) -> Result<()> {
        self.caller.ask(Command::Delete { machine, snapshots, subtree: false, free_now: false })?;
        Ok(())
    }
}

/// The machine to play with: it runs, and can be spoiled and brought back.
fn web01(story: &mut Story<'_>) -> Result<()> {
    story.clock.set_hours_ago(30);
    let web = story.create("WEB01", 7, 64, 2048, WorkloadProfile::default())?;
    story.caller.run(web)?;
    story.clock.set_hours_ago(28);
    story.watch_and_take(web, 4, "Installed", "Fresh from the installer.")?;
    story.clock.set_hours_ago(5);
    let before = story.watch_and_take(web, 6, "Before update", "Taken with its memory, while it ran.")?;
    story.clock.set_hours_ago(4);
    story.watch_and_take(web, 4, "Update tried", "Worked, but slow.")?;
    story.caller.ask(Command::Apply { machine: web, snapshot: before, safety: None })?;
    story.clock.set_hours_ago(1);
    story.watch_and_take(web, 5, "Second try", "")?;
    story.clock.set_hours_ago(0);
    story.caller.stop(web)
}

/// Deep, with deleted snapshots whose bytes are still there.
fn sql02(story: &mut Story<'_>) -> Result<()> {
    story.clock.set_hours_ago(130 * DAY);
    let profile = WorkloadProfile { disk_writes_per_second: 120, ..WorkloadProfile::default() };
    let sql = story.create("SQL02", 11, 16, 4096, profile)?;
    story.work_and_take(sql, 60_000, "Installed", "")?;
    story.clock.set_hours_ago(100 * DAY);
    let before = story.work_and_take(sql, 8_000, "Before SP1", "Keep until the audit is over.")?;
    story.caller.ask(Command::Protect { machine: sql, snapshot: before, protected: true })?;
    story.clock.set_hours_ago(99 * DAY);
    story.work_and_take(sql, 4_000, "SP1 tried", "")?;
    story.clock.set_hours_ago(97 * DAY);
    story.work_and_take(sql, 3_000, "SP1 and fix", "")?;
    story.caller.ask(Command::Apply { machine: sql, snapshot: before, safety: None })?;
    let mut nightly = Vec::new();
    for night in 0..8 {
        story.clock.set_hours_ago((60 - night) * DAY);
        nightly.push(story.work_and_take(sql, 5_000, &format!("Nightly {}", night + 1), "")?);
    }
    story.clock.set_hours_ago(51 * DAY);
    story.caller.run(sql)?;
    let migrated = story.watch_and_take(sql, 5, "After migration", "Migrated to the new array, keep until May.")?;
    story.clock.set_hours_ago(45 * DAY);
    story.watch_and_take(sql, 4, "Test branch", "")?;
    story.caller.ask(Command::Apply { machine: sql, snapshot: migrated, safety: None })?;
    story.caller.stop(sql)?;
    story.clock.set_hours_ago(20);
    story.delete(sql, nightly)?;
    story.clock.set_hours_ago(0);
    story.caller.ask(Command::RunWorkload { machine: sql, milliseconds: 6_000, seed: None })?;
    Ok(())
}

/// Snapshots come faster than they are merged.
fn db01(story: &mut Story<'_>) -> Result<()> {
    story.clock.set_hours_ago(12 * DAY);
    let profile = WorkloadProfile { disk_writes_per_second: 200, hot_share: 0.3, ..WorkloadProfile::default() };
    let db = story.create("DB01", 23, 16, 4096, profile)?;
    let mut weekly = Vec::new();
    for (day, label) in [(11, "Base load"), (9, "Before index"), (6, "After index"), (3, "Before month end"), (1, "Month end")] {
        story.clock.set_hours_ago(day * DAY);
        weekly.push(story.work_and_take(db, 15_000, label, "")?);
    }
    story.clock.set_hours_ago(10);
    story.delete(db, vec![weekly[1], weekly[2]])?;
    story.clock.set_hours_ago(0);
    Ok(())
}

/// What runs here has written more than can be merged in the minute a week that it may be disturbed.
fn mail01(story: &mut Story<'_>) -> Result<()> {
    story.clock.set_hours_ago(7 * DAY);
    let profile = WorkloadProfile { disk_writes_per_second: 100, hot_share: 0.2, ..WorkloadProfile::default() };
    let mail = story.create("MAIL01", 41, 16, 64, profile)?;
    let before = story.work_and_take(mail, 10_000, "Before moving the mailboxes", "")?;
    story.clock.set_hours_ago(2 * DAY);
    story.caller.ask(Command::RunWorkload { machine: mail, milliseconds: 60_000, seed: None })?;
    story.delete(mail, vec![before])?;
    story.clock.set_hours_ago(0);
    Ok(())
}

/// What is due here has its window when the volume will be full.
fn archive(story: &mut Story<'_>) -> Result<()> {
    story.clock.set_hours_ago(200 * DAY);
    let archive = story.create("ARCHIVE", 47, 16, 1024, WorkloadProfile { hot_share: 0.5, ..WorkloadProfile::default() })?;
    let mut years = Vec::new();
    for (year, label) in ["2022", "2023", "2024"].into_iter().enumerate() {
        story.clock.set_hours_ago((190 - 20 * year as i64) * DAY);
        years.push(story.work_and_take(archive, 20_000, label, "")?);
    }
    story.clock.set_hours_ago(30 * DAY);
    story.delete(archive, years[1..].to_vec())?;
    story.clock.set_hours_ago(0);
    Ok(())
}

/// The story that all this comes from: a dozen snapshots in a year, deleted together.
fn files01(story: &mut Story<'_>) -> Result<()> {
    story.clock.set_hours_ago(365 * DAY);
    let profile = WorkloadProfile { disk_writes_per_second: 300, hot_share: 0.5, ..WorkloadProfile::default() };
    let files = story.create("FILES01", 31, 16, 4096, profile)?;
    story.caller.ask(Command::RunWorkload { machine: files, milliseconds: 60_000, seed: None })?;
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
        story.clock.set_hours_ago((360 - 30 * month as i64) * DAY);
        taken.push(story.work_and_take(files, 8_000, label, "")?);
    }
    story.clock.set_hours_ago(2);
    story.delete(files, taken)?;
    story.clock.set_hours_ago(0);
    Ok(())
}
