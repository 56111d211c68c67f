//! A Linux on disks of ours: taken while it writes, gone back to, merged under it, and shut down. It checks itself (its memory,
//! and what it has written), and its file system is checked from outside.
#![cfg(unix)]

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use snaptree_core::disk::{self, ImageFormat};
use snaptree_core::engine::{Answer, Command, CreateMachine, Power};
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::snapshot::{Hardware, MachineId, MachineKind, SnapshotId, WorkloadProfile};
use snaptree_core::units::ByteCount;
use snaptree_tests::driver::Driver;
use snaptree_tests::guest::{Linux, Said, said};

const MEMORY: ByteCount = ByteCount::mib(160);
const SIZE: ByteCount = ByteCount::mib(64);
/// How long anything may take, emulated and on a busy computer.
const PATIENCE: Duration = Duration::from_secs(240);

struct Lab {
    linux: Linux,
    driver: Driver,
    machine: MachineId,
}

impl Lab {
    fn new() -> Result<Option<Self>> {
        let Some(linux) = Linux::prepare()? else { return Ok(None) };
        let mut driver = Driver::new();
        let create = CreateMachine {
            name: "LINUX".into(),
            kind: MachineKind::Qemu,
            memory: MEMORY,
            disks: vec![SIZE],
            format: ImageFormat::Vhdx,
            workload: WorkloadProfile::default(),
            hardware: Some(Hardware { boot: Some(linux.boot()), ..Hardware::default() }),
        };
        let Answer::Created(machine) = driver.done(Command::Create(create)) else { bail!("not created") };
        let files = driver.files(machine, None);
        let base = files.values().next().and_then(|files| files.first()).context("a base")?;
        let image = disk::open(&OsHost::shared(), base, ImageFormat::Vhdx, Access::Write)?;
        for (index, part) in linux.file_system(SIZE.0)?.chunks(1 << 20).enumerate() {
            if part.iter().any(|byte| *byte != 0) {
                image.write_at(part, (index << 20) as u64)?;
            }
        }
        image.freeze()?;
        Ok(Some(Self { linux, driver, machine }))
    }

    /// What it has said on its serial port, from a place on.
    fn console(&mut self, from: usize) -> Result<String> {
        let path = self.driver.state(self.machine).folder.join("console.log");
        let bytes = fs::read(path)?;
        Ok(String::from_utf8_lossy(&bytes[from.min(bytes.len())..]).into_owned())
    }

    /// Lets the engine work until the guest has said something in particular after this place.
    fn hears<T>(&mut self, what: &str, from: usize, wanted: impl Fn(&[Said]) -> Option<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            self.driver.pass(Duration::from_millis(50));
            let console = self.console(from)?;
            if let Some(found) = wanted(&said(&console)?) {
                return Ok(found);
            }
            let end: String = console.chars().rev().take(500).collect::<Vec<_>>().into_iter().rev().collect();
            let power = &self.driver.state(self.machine).power;
            ensure!(power.is_up(), "{what}: the machine is {power:?}; its console ends with {end:?}");
            ensure!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}; the console ends with {end:?}");
        }
    }

    /// Waits for so many more records after this place; the last one.
    fn writes(&mut self, more: usize, from: usize) -> Result<u64> {
        self.hears("records are written", from, |said| {
            let done: Vec<u64> = said.iter().filter(|said| matches!(said, Said::Done(..))).map(|said| number(*said)).collect();
            (done.len() >= more).then(|| done.last().copied()).flatten()
        })
    }

    fn console_length(&mut self) -> Result<usize> {
        Ok(self.console(0)?.len())
    }

    /// How many records stand on the disk of a node; the file system and each record must be right.
    fn records(&mut self, at: Option<SnapshotId>) -> Result<u64> {
        let chains = self.driver.chains(self.machine, at, Access::Look);
        let chain = chains.values().next().context("a disk")?;
        let mut content = vec![0; SIZE.0 as usize];
        chain.read_at(&mut content, 0)?;
        self.linux.records(&content)
    }

    fn images_are_right(&mut self, at: Option<SnapshotId>) -> Result<()> {
        for chain in self.driver.chains(self.machine, at, Access::Look).into_values() {
            for image in chain.images() {
                assert_eq!(image.check()?, [""; 0], "{}", image.path().display());
            }
        }
        Ok(())
    }
}

fn number(said: Said) -> u64 {
    match said {
        Said::Ready(number) | Said::Begin(number) | Said::Done(number, _) => number,
        Said::Bye => 0,
    }
}

/// Medians and the worst of the times that records took, in milliseconds.
fn times(said: &[Said]) -> String {
    let mut times: Vec<u64> =
        said.iter().filter_map(|said| if let Said::Done(_, took) = said { Some(*took) } else { None }).collect();
    times.sort_unstable();
    let ms = |index: usize| times.get(index).map_or(0.0, |took| *took as f64 / 1000.0);
    format!("{} records, median {:.1} ms, most {:.1} ms", times.len(), ms(times.len() / 2), ms(times.len().saturating_sub(1)))
}

#[test]
fn a_linux_goes_on_from_exactly_each_count_and_is_merged_under_its_writes() -> Result<()> {
    let Some(mut lab) = Lab::new()? else { return Ok(()) };
    let machine = lab.machine;
    lab.driver.done(Command::Start(machine));
    lab.hears("it has started", 0, |said| said.iter().find(|said| matches!(said, Said::Ready(0))).map(|_| ()))?;
    lab.writes(20, 0)?;
    let mut taken = Vec::new();
    for label in ["one", "two", "three"] {
        let (snapshot, latency) = lab.driver.take(machine, label, true);
        let latency = latency.context("it ran")?;
        println!("{label}: stood still for {:.1?}, saved {} in {:.1?}", latency.pause, latency.memory, latency.save);
        taken.push(snapshot);
        let from = lab.console_length()?;
        lab.writes(15, from)?;
    }
    for (snapshot, label) in [(taken[0], "one"), (taken[2], "three"), (taken[1], "two")] {
        let stored = lab.records(Some(snapshot))?;
        // So that nothing is said any more by the one that is left.
        lab.driver.done(Command::Pause(machine));
        let from = lab.console_length()?;
        lab.driver.done(Command::Apply { machine, snapshot, safety: None });
        assert_eq!(lab.driver.state(machine).power, Power::Running);
        let first = lab.hears("it goes on", from, |said| said.first().copied())?;
        // A record that is about to be written isn't there; one that wasn't said to be done may be.
        let right = match first {
            Said::Begin(number) => stored + 1 == number,
            Said::Done(number, _) => stored == number || stored + 1 == number,
            Said::Ready(_) | Said::Bye => false,
        };
        ensure!(right, "{label}: {stored} records on the disk, and it goes on with {first:?}");
        println!("{label}: {stored} records on the disk, and it goes on with {first:?}");
        // In steps of one, its memory checked by itself twice.
        lab.writes(40, from)?;
        let mut expected = number(first);
        for said in said(&lab.console(from)?)? {
            match said {
                Said::Begin(number) => expected = number,
                Said::Done(number, _) => ensure!(number == expected, "{label}: {number} after {expected}"),
                other => bail!("{label}: {other:?}"),
            }
        }
    }
    // The oldest goes; what it held is merged while the guest writes.
    let from = lab.console_length()?;
    lab.writes(30, from)?;
    println!("without a merge: {}", times(&said(&lab.console(from)?)?));
    lab.driver.delete(machine, &[taken[0]]);
    let from = lab.console_length()?;
    lab.driver.merge(machine);
    lab.writes(30, from)?;
    println!("with a merge: {}", times(&said(&lab.console(from)?)?));
    let from = lab.console_length()?;
    lab.driver.done(Command::Stop(machine));
    let last = said(&lab.console(0)?)?;
    ensure!(said(&lab.console(from)?)?.last() == Some(&Said::Bye), "its operating system has shut down: {:?}", last.last());
    assert_eq!(lab.driver.state(machine).power, Power::Off);
    let done = last.iter().rev().find_map(|said| if let Said::Done(number, _) = said { Some(*number) } else { None });
    assert_eq!(Some(lab.records(None)?), done, "every record is there, and no other");
    for at in [None, Some(taken[1]), Some(taken[2])] {
        lab.records(at)?;
        lab.images_are_right(at)?;
    }
    // And it boots from what it has left.
    lab.driver.done(Command::Start(machine));
    let found = lab.hears("it has started", 0, |said| match said.first() {
        Some(Said::Ready(found)) => Some(*found),
        _ => None,
    })?;
    assert_eq!(Some(found), done);
    lab.driver.done(Command::TurnOff(machine));
    Ok(())
}
