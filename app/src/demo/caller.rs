//! An engine that is asked one thing after the other, and what it last said of each machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use snaptree_core::clock::SharedClock;
use snaptree_core::engine::{
    Answer, Command, CreateMachine, Engine, EngineHandle, EngineOptions, Event, LatencyReport, MachineState, Mode, Power,
    RequestId,
};
use snaptree_core::host_file::SharedHost;
use snaptree_core::snapshot::{MachineId, SnapshotId};
use snaptree_core::vm::VerifyReport;

/// Longest wait for something that should come at once.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Caller {
    engine: EngineHandle,
    machines: BTreeMap<MachineId, Arc<MachineState>>,
    requests: u64,
    /// The generation of the picture that a running machine showed last.
    picture: BTreeMap<MachineId, u64>,
}

impl Caller {
    /// On a library; with `in_owners`, machines run in owner processes as they do for the window.
    pub fn start(library: &Path, host: SharedHost, clock: SharedClock, in_owners: bool) -> Result<Self> {
        let executable = in_owners.then(std::env::current_exe).transpose().context("where this program lies")?;
        let engine = Engine::start(EngineOptions { host, clock, library: library.into(), executable })?;
        Ok(Self { engine, machines: BTreeMap::new(), requests: 0, picture: BTreeMap::new() })
    }

    fn see(&mut self, event: Event) {
        match event {
            Event::Machine(state) => {
                self.machines.insert(state.machine.id, state);
            }
            Event::Gone(id) => {
                self.machines.remove(&id);
            }
            Event::Live { machine, screen, .. } => {
                self.picture.insert(machine, screen.generation);
            }
            Event::Library(_) | Event::Plan(_) | Event::Job(_) | Event::Answer { .. } => {}
        }
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, command: Command) -> Result<Answer> {
        self.requests += 1;
        let mut seen = Vec::new();
        let answer = self.engine.call(RequestId(self.requests), command, Mode::Do, |event| seen.push(event));
        seen.into_iter().for_each(|event| self.see(event));
        Ok(answer?)
    }

    /// Creates a machine.
    pub fn create(&mut self, create: CreateMachine) -> Result<MachineId> {
        match self.ask(Command::Create(create))? {
            Answer::Created(id) => Ok(id),
            other => bail!("creating a machine was answered with {other:?}"),
        }
    }

    /// Takes a snapshot.
    pub fn take(
        &mut self,
        machine: MachineId,
        label: &str,
        note: &str,
        memory: bool,
    ) -> Result<(SnapshotId, Option<LatencyReport>)> {
        let take = Command::Take { machine, label: label.into(), note: note.into(), memory };
        match self.ask(take).with_context(|| format!("taking {label}"))? {
            Answer::Taken { snapshot, latency } => Ok((snapshot, latency)),
            other => bail!("taking a snapshot was answered with {other:?}"),
        }
    }

    /// Reads and compares every byte of a node.
    pub fn verify(&mut self, machine: MachineId, at: Option<SnapshotId>) -> Result<VerifyReport> {
        match self.ask(Command::Verify { machine, at })? {
            Answer::Verified(report) => Ok(report),
            other => bail!("verifying was answered with {other:?}"),
        }
    }

    /// Every machine of the library, by name.
    pub fn all(&mut self) -> Result<Vec<MachineId>> {
        self.ask(Command::Rescan)?;
        let mut named: Vec<_> = self.machines.values().map(|state| (state.machine.name.clone(), state.machine.id)).collect();
        named.sort();
        Ok(named.into_iter().map(|(_, id)| id).collect())
    }

    /// A machine by its name.
    pub fn find(&mut self, name: &str) -> Option<MachineId> {
        self.all().ok()?;
        self.machines.values().find(|state| state.machine.name == name).map(|state| state.machine.id)
    }

    /// Whether a machine neither runs nor is about to.
    pub fn is_off(&self, machine: MachineId) -> bool {
        self.machines.get(&machine).is_some_and(|state| matches!(state.power, Power::Off | Power::Saved | Power::Failed(_)))
    }

    /// What is known of a machine.
    pub fn state(&mut self, machine: MachineId) -> Result<Arc<MachineState>> {
        while let Ok(event) = self.engine.events().try_recv() {
            self.see(event);
        }
        self.machines.get(&machine).cloned().context("the machine is gone")
    }

    /// Waits until a machine is as it is wanted.
    pub fn wait_for(
        &mut self,
        machine: MachineId,
        what: &str,
        wanted: impl Fn(&Self, &MachineState) -> bool,
    ) -> Result<Arc<MachineState>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let state = self.state(machine)?;
            if wanted(self, &state) {
                return Ok(state);
            }
            let left = until.saturating_duration_since(Instant::now());
            let event = self.engine.events().recv_timeout(left).with_context(|| format!("waiting for {what}"))?;
            self.see(event);
        }
    }

    /// Waits until the files of a machine are counted.
    pub fn counted(&mut self, machine: MachineId) -> Result<Arc<MachineState>> {
        self.wait_for(machine, "the count of its blocks", |_, state| {
            let images = &state.machine.images;
            let known = |disk| {
                state
                    .census
                    .get(disk)
                    .is_some_and(|census| images.values().filter(|i| i.disk == *disk).count() == census.images.len())
            };
            images.keys().all(|id| state.files.contains_key(id))
                && state.machine.configuration.disks.iter().all(|disk| known(&disk.id))
        })
    }

    /// Lets a machine run until its picture has gone on by so many generations.
    pub fn watch(&mut self, machine: MachineId, generations: u64) -> Result<u64> {
        self.picture.remove(&machine);
        self.wait_for(machine, "its picture", |caller, _| caller.picture.contains_key(&machine))?;
        let from = self.picture[&machine];
        self.wait_for(machine, "its picture to go on", |caller, _| caller.picture[&machine] >= from + generations)?;
        Ok(self.picture[&machine])
    }

    /// Starts a machine and waits until it runs.
    pub fn run(&mut self, machine: MachineId) -> Result<()> {
        self.ask(Command::Start(machine))?;
        self.wait_for(machine, "the machine to run", |_, state| state.power == Power::Running)?;
        Ok(())
    }

    /// Stops a machine and waits until it is off.
    pub fn stop(&mut self, machine: MachineId) -> Result<()> {
        self.ask(Command::Stop(machine))?;
        self.wait_for(machine, "the machine to be off", |_, state| !state.power.is_up())?;
        Ok(())
    }
}
