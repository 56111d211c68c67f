//! A machine that runs a Linux whose every count can be checked, in an engine driven by hand.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use snaptree_core::disk::{self, ImageFormat};
use snaptree_core::engine::{Answer, Command, CreateMachine};
use snaptree_core::host_file::Access;
use snaptree_core::snapshot::{Hardware, MachineId, MachineKind, SnapshotId, WorkloadProfile};
use snaptree_core::units::ByteCount;

use crate::driver::Driver;
use crate::guest::{Linux, Said, said};

/// Its memory.
pub const MEMORY: ByteCount = ByteCount::mib(160);
/// How long anything may take, emulated and on a busy computer.
const PATIENCE: Duration = Duration::from_secs(240);

/// The machine, and what drives it.
pub struct LinuxMachine {
    /// What the guest is made of.
    pub linux: Linux,
    /// The engine.
    pub driver: Driver,
    /// The machine.
    pub machine: MachineId,
    size: ByteCount,
}

impl LinuxMachine {
    /// Creates it with one disk that begins with an empty ext4 of `file_system` bytes.
    pub fn create(linux: Linux, mut driver: Driver, size: ByteCount, file_system: ByteCount) -> Result<Self> {
        let create = CreateMachine {
            name: "LINUX".into(),
            kind: MachineKind::Qemu,
            memory: MEMORY,
            disks: vec![size],
            format: ImageFormat::Vhdx,
            workload: WorkloadProfile::default(),
            hardware: Some(Hardware { boot: Some(linux.boot()), ..Hardware::default() }),
        };
        let Answer::Created(machine) = driver.done(Command::Create(create)) else { bail!("not created") };
        let files = driver.files(machine, None);
        let base = files.values().next().and_then(|files| files.first()).context("a base")?;
        let image = disk::open(driver.host(), base, ImageFormat::Vhdx, Access::Write)?;
        for (index, part) in linux.file_system(file_system.0)?.chunks(1 << 20).enumerate() {
            if part.iter().any(|byte| *byte != 0) {
                image.write_at(part, (index << 20) as u64)?;
            }
        }
        image.freeze()?;
        Ok(Self { linux, driver, machine, size })
    }

    /// One that an engine knows already.
    pub fn of(linux: Linux, driver: Driver, machine: MachineId, size: ByteCount) -> Self {
        Self { linux, driver, machine, size }
    }

    /// The file with what it says on its serial port.
    pub fn console_file(&mut self) -> PathBuf {
        self.driver.state(self.machine).folder.join("console.log")
    }

    /// What it has said on its serial port, from a place on.
    pub fn console(&mut self, from: usize) -> Result<String> {
        let path = self.console_file();
        let bytes = fs::read(path)?;
        Ok(String::from_utf8_lossy(&bytes[from.min(bytes.len())..]).into_owned())
    }

    /// How much it has said.
    pub fn console_length(&mut self) -> Result<usize> {
        Ok(self.console(0)?.len())
    }

    /// Lets the engine work until the guest has said something in particular after this place.
    pub fn hears<T>(&mut self, what: &str, from: usize, wanted: impl Fn(&[Said]) -> Option<T>) -> Result<T> {
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

    /// Starts it; how many records it has found.
    pub fn boots(&mut self) -> Result<u64> {
        self.driver.done(Command::Start(self.machine));
        self.hears("it has started", 0, |said| match said.first() {
            Some(Said::Ready(found)) => Some(*found),
            _ => None,
        })
    }

    /// Waits for so many more records after this place; the last one.
    pub fn writes(&mut self, more: usize, from: usize) -> Result<u64> {
        self.hears("records are written", from, |said| {
            let done = said.iter().filter(|said| matches!(said, Said::Done(..)));
            if done.count() >= more { last_done(said) } else { None }
        })
    }

    /// How many records stand on the disk of a node; the file system and each record must be right.
    pub fn records(&mut self, at: Option<SnapshotId>) -> Result<u64> {
        let chains = self.driver.chains(self.machine, at, Access::Look);
        let chain = chains.values().next().context("a disk")?;
        let mut content = vec![0; self.size.0 as usize];
        chain.read_at(&mut content, 0)?;
        self.linux.records(&content)
    }

    /// Nothing is wrong with the images of a node.
    pub fn images_are_right(&mut self, at: Option<SnapshotId>) -> Result<()> {
        for chain in self.driver.chains(self.machine, at, Access::Look).into_values() {
            for image in chain.images() {
                ensure!(image.check()? == [""; 0], "{}: {:?}", image.path().display(), image.check()?);
            }
        }
        Ok(())
    }
}

/// The record that was flushed last.
pub fn last_done(said: &[Said]) -> Option<u64> {
    said.iter().rev().find_map(|said| if let Said::Done(number, _) = said { Some(*number) } else { None })
}
