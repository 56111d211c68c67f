//! Power is lost under a Linux that writes and flushes: at rest, while a snapshot of it is taken, and while a merge goes on
//! under it. Its machine stands on a file system in memory, which knows of each change whether it was flushed; of those that
//! weren't, a power loss keeps some, drops some, and tears some. QEMU gets the disks by our server as always.
//!
//! What the guest said is flushed was said on its serial port after the flush had come back. So what stands on the port at
//! the instant of the loss must be on the disk afterwards, its journal replayed: no file system error, no record missing or
//! torn; and the guest boots from it, finds each of them, and goes on.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result, ensure};
use snaptree_core::clock::SystemClock;
use snaptree_core::engine::{Command, JobPhase};
use snaptree_core::host_file::{Access, Host};
use snaptree_core::locks::lock;
use snaptree_core::merge::complete_switch;
use snaptree_core::snapshot::{NodeRef, SnapshotId};
use snaptree_core::store::MachineStore;
use snaptree_core::testing::{CrashMode, MemHost, Random};
use snaptree_core::units::ByteCount;
use snaptree_tests::doors::Doors;
use snaptree_tests::driver::Driver;
use snaptree_tests::guest::{Linux, Said, said};
use snaptree_tests::lab;
use snaptree_tests::linux_machine::{LinuxMachine, last_done};
use tempfile::TempDir;

const SIZE: ByteCount = ByteCount::mib(32);
/// Of each loss, so many outcomes are looked at; with the last one, whose snapshots are looked at too, the guest goes on.
const OUTCOMES: u64 = 6;

/// In the midst of what power is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum During {
    Rest,
    Take,
    Merge,
}

/// What there was at the instant of a loss.
struct Loss {
    /// What the guest had said before.
    before: Vec<u8>,
    /// And by when the file system was seen.
    after: Vec<u8>,
    /// What was flushed, and what wasn't.
    host: MemHost,
}

/// A file system whose power goes after a change to come. QEMU's own files need folders that really exist.
#[derive(Clone, Default)]
struct Power {
    /// How many changes are left until then, and whether those of the guest count.
    left: Arc<Mutex<Option<(u64, bool)>>>,
    lost: Arc<Mutex<Option<Loss>>>,
    changes: Arc<Mutex<u64>>,
}

impl Power {
    fn watch(&self, doors: &Doors, host: &MemHost, console: &Path) {
        let (power, host, console) = (self.clone(), host.clone(), console.to_path_buf());
        // Commands are carried out by this thread, the guest's requests by others.
        let engine = thread::current().id();
        doors.watch(move |call, path| {
            if call == "create" {
                let _ = path.parent().map(fs::create_dir_all);
            }
            let is_engines = thread::current().id() == engine;
            *lock(&power.changes) += u64::from(is_engines);
            let mut left = lock(&power.left);
            match &mut *left {
                Some((0, _)) => {
                    *left = None;
                    *lock(&power.lost) = Some(Loss::now(&host, &console));
                }
                Some((left, guests_too)) => *left -= u64::from(is_engines || *guests_too),
                None => {}
            }
        });
    }

    fn lose_after(&self, changes: u64, guests_too: bool) {
        *lock(&self.left) = Some((changes, guests_too));
    }

    fn is_lost(&self) -> bool {
        lock(&self.lost).is_some()
    }
}

impl Loss {
    fn now(host: &MemHost, console: &Path) -> Self {
        let read = || fs::read(console).unwrap_or_default();
        let before = read();
        let host = host.fork();
        Self { before, host, after: read() }
    }

    /// The last record that was flushed, and the last one that was begun.
    fn records(&self) -> Result<(u64, u64)> {
        let all = |bytes: &[u8]| said(&String::from_utf8_lossy(bytes));
        let (before, after) = (all(&self.before)?, all(&self.after)?);
        let number = |said: &Said| match said {
            Said::Ready(number) | Said::Begin(number) | Said::Done(number, _) => *number,
            Said::Bye => 0,
        };
        let found = before.first().map_or(0, number);
        Ok((last_done(&before).unwrap_or(found), after.iter().map(number).max().unwrap_or(0)))
    }
}

/// The machine, its file system, and what its snapshots hold.
struct Lab {
    machine: LinuxMachine,
    host: MemHost,
    doors: Doors,
    power: Power,
    /// The machine's folder.
    folder: PathBuf,
    kept: BTreeMap<SnapshotId, u64>,
}

impl Lab {
    fn new(linux: Linux) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("snaptree-").tempdir()?;
        let host = MemHost::new();
        host.create_dir_all(folder.path())?;
        folder.path().ancestors().try_for_each(|folder| host.flush_dir(folder))?;
        let doors = Doors::of(host.shared());
        let driver = Driver::on(folder, doors.shared());
        let mut machine = LinuxMachine::create(linux, driver, SIZE, SIZE)?;
        let folder = machine.driver.state(machine.machine).folder.clone();
        fs::create_dir_all(&folder)?;
        let lab = Self { machine, host, doors, power: Power::default(), folder, kept: BTreeMap::new() };
        lab.watch();
        Ok(lab)
    }

    fn watch(&self) {
        self.power.watch(&self.doors, &self.host, &self.folder.join("console.log"));
    }

    /// Waits for a few records more.
    fn writes(&mut self, more: usize) -> Result<u64> {
        let from = self.machine.console_length()?;
        self.machine.writes(more, from)
    }

    fn take(&mut self, label: &str) -> Result<SnapshotId> {
        let (snapshot, _) = self.machine.driver.take(self.machine.machine, label, false);
        let records = self.machine.records(Some(snapshot))?;
        self.kept.insert(snapshot, records);
        Ok(snapshot)
    }

    /// Something to merge, with records in the middle.
    fn make_due(&mut self, label: &str) -> Result<()> {
        let first = self.take(&format!("{label}, below"))?;
        self.writes(12)?;
        self.take(&format!("{label}, above"))?;
        self.writes(6)?;
        self.machine.driver.delete(self.machine.machine, &[first]);
        self.kept.remove(&first);
        Ok(())
    }

    fn merge(&self) -> Command {
        Command::Merge { machine: self.machine.machine, disk: None, limit: None, until: None }
    }

    fn changes(&self) -> u64 {
        *lock(&self.power.changes)
    }

    /// Carries out a command until power is lost, which is at its end at last; whether that was before.
    fn is_cut_short(&mut self, command: Option<Command>, changes: u64) -> bool {
        let jobs = self.machine.driver.jobs.len();
        self.power.lose_after(changes, command.is_none());
        if let Some(command) = command {
            self.machine.driver.submit(command);
        }
        let power = self.power.clone();
        let has_ended = |driver: &Driver| driver.jobs[jobs..].iter().any(|job| job.phase != JobPhase::Running);
        self.machine.driver.pass_until("power is lost", |driver| power.is_lost() || has_ended(driver));
        *lock(&power.left) = None;
        let mut lost = lock(&power.lost);
        let cut_short = lost.is_some();
        lost.get_or_insert_with(|| Loss::now(&self.host, &self.folder.join("console.log")));
        cut_short
    }

    /// The power is gone: so are the engine and QEMU. What is left is looked at; the guest boots from the last outcome.
    fn comes_back(mut self, seed: u64) -> Result<(Self, u64)> {
        let loss = lock(&self.power.lost).take().context("a loss of power")?;
        self.doors.unwatch();
        let (flushed, begun) = loss.records()?;
        let Self { machine: LinuxMachine { linux, driver, machine, .. }, folder, kept, .. } = self;
        let held: TempDir = driver.end();
        let mut outcome = loss.host.clone();
        for number in 0..OUTCOMES {
            outcome = loss.host.crash(CrashMode::PowerLoss, seed * OUTCOMES + number);
            let snapshots = if number + 1 == OUTCOMES { kept.clone() } else { BTreeMap::new() };
            let found = look(&linux, &outcome, &folder, &snapshots).with_context(|| format!("outcome {number} of {seed}"))?;
            ensure!(
                (flushed..=begun).contains(&found),
                "outcome {number} of {seed}: {found} records are there, {flushed} were flushed and {begun} begun"
            );
        }
        let doors = Doors::of(outcome.shared());
        let mut driver = Driver::on(held, doors.shared());
        driver.pass_until("the machine is known", |driver| driver.known(machine).is_some());
        let snapshots = driver.state(machine).machine.snapshots.clone();
        let machine = LinuxMachine::of(linux, driver, machine, SIZE);
        self = Self { machine, host: outcome, doors, power: Power::default(), folder, kept };
        self.kept.retain(|snapshot, _| snapshots.contains_key(snapshot));
        self.watch();
        let found = self.machine.boots()?;
        ensure!((flushed..=begun).contains(&found), "it boots and finds {found} records; {flushed} were flushed, {begun} begun");
        Ok((self, flushed))
    }
}

/// Opens the machine as the program does, in a copy; how many records Now has. Snapshots have what they had.
fn look(linux: &Linux, host: &MemHost, folder: &Path, kept: &BTreeMap<SnapshotId, u64>) -> Result<u64> {
    let host = host.fork();
    let mut store = MachineStore::open(&host.shared(), &SystemClock::shared(), folder)?;
    complete_switch(&mut store)?;
    let records = |node| -> Result<u64> {
        let chain = lab::chain(&store, node, Access::Look).map_err(anyhow::Error::msg)?;
        let mut content = vec![0; SIZE.0 as usize];
        chain.read_at(&mut content, 0)?;
        linux.records(&content)
    };
    for (snapshot, expected) in kept {
        let found = records(NodeRef::Snapshot(*snapshot))?;
        ensure!(found == *expected, "a snapshot has {found} records, it had {expected}");
    }
    records(NodeRef::Now)
}

#[test]
fn nothing_flushed_is_lost_with_the_power() -> Result<()> {
    let Some(linux) = Linux::prepare()? else { return Ok(()) };
    let mut lab = Lab::new(linux)?;
    assert_eq!(lab.machine.boots()?, 0);
    lab.writes(10)?;
    // Once whole, which says how many changes of the engine there are to be cut off after.
    let before = lab.changes();
    lab.make_due("whole")?;
    let take = (lab.changes() - before) / 2;
    let before = lab.changes();
    let whole = lab.merge();
    lab.machine.driver.done(whole);
    let merge = lab.changes() - before;
    let mut random = Random::new(7);
    let mut cut_short = BTreeMap::from([("take", 0), ("merge", 0)]);
    let rounds = [During::Rest, During::Take, During::Merge, During::Take, During::Merge];
    for (seed, during) in rounds.into_iter().enumerate() {
        if during == During::Merge {
            lab.make_due(&format!("round {seed}"))?;
        }
        lab.writes(8)?;
        // Where the first of a kind had ended before, the second is cut off earlier for certain.
        let within = |kind, changes| if seed > 2 && cut_short[kind] == 0 { changes / 3 } else { changes };
        let (command, changes) = match during {
            During::Rest => (None, random.below(60)),
            During::Take => {
                let label = format!("round {seed}");
                (
                    Some(Command::Take { machine: lab.machine.machine, label, note: String::new(), memory: true }),
                    random.below(within("take", take)),
                )
            }
            During::Merge => (Some(lab.merge()), random.below(within("merge", merge))),
        };
        let is_short = lab.is_cut_short(command, changes);
        match during {
            During::Take => *cut_short.entry("take").or_default() += u32::from(is_short),
            During::Merge => *cut_short.entry("merge").or_default() += u32::from(is_short),
            During::Rest => {}
        }
        let (back, flushed) = lab.comes_back(seed as u64)?;
        lab = back;
        println!("{during:?}, after {changes} changes (of {take} or {merge}), cut short {is_short}: {flushed} were flushed");
    }
    ensure!(cut_short.values().all(|count| *count > 0), "{cut_short:?}: nothing was cut short");
    // What is due still is merged, with something more in case the last loss was after the merge's record; all is right.
    lab.make_due("at last")?;
    let flushed = lab.writes(8)?;
    let machine = lab.machine.machine;
    let rest = lab.merge();
    lab.machine.driver.done(rest);
    lab.writes(8)?;
    lab.machine.driver.done(Command::Stop(machine));
    ensure!(lab.machine.records(None)? >= flushed);
    lab.machine.images_are_right(None)?;
    for (snapshot, expected) in lab.kept.clone() {
        assert_eq!(lab.machine.records(Some(snapshot))?, expected);
        lab.machine.images_are_right(Some(snapshot))?;
    }
    Ok(())
}
