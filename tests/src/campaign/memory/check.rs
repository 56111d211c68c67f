//! Whether machines are what they may be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use snaptree_core::chain::{Chain, Gate};
use snaptree_core::disk;
use snaptree_core::engine::{Answer, Command};
use snaptree_core::host_file::{Access, Host};
use snaptree_core::merge::complete_switch;
use snaptree_core::snapshot::{DiskId, ImageId, Machine, SnapshotId, Tree};
use snaptree_core::store::MachineStore;

use super::super::desk::{Desk, Outcome};
use super::super::model::{Disks, Now, Seen, State, which};
use super::{Expected, Round};
use crate::content::Content;
use crate::lab::LIBRARY;

impl Round<'_> {
    pub(super) fn end(&mut self) -> Result<(), String> {
        // A take that was cut short after the machine had gone on leaves a merge due, once its folder is opened.
        for at in 0..self.subjects.len() {
            drop(self.open_store(at)?);
        }
        self.desk.ask(Command::Rescan)?;
        for at in 0..self.subjects.len() {
            let all = Command::Merge { machine: self.subjects[at].id, disk: None, limit: None, until: None };
            self.desk.ask(Command::EmptyTrash { machine: self.subjects[at].id, all: true })?;
            let merged = self.desk.ask(all)?;
            self.desk.ask(Command::EmptyTrash { machine: self.subjects[at].id, all: true })?;
            self.power_lost = false;
            self.settle_unchanged(at)?;
            self.verify(at)?;
            let (store, _) = self.open_store(at)?;
            if !Tree::of(store.machine()).runs().is_empty() {
                return Err(format!("a merge is left, though nothing hinders it: {merged:?}"));
            }
            let trash = self.host.list(&store.path(Path::new("Deleted"))).map_err(|error| error.to_string())?;
            if !trash.is_empty() {
                return Err(format!("{trash:?} are left in the trash"));
            }
        }
        // What a process that was killed has tried out on the volume goes with the next start.
        self.desk = Desk::open(&self.host, &self.clock)?;
        let left: Vec<PathBuf> = self.host.files().into_iter().filter(|file| file.parent() == Some(Path::new(LIBRARY))).collect();
        let known = ["library.json", "library.lock"].map(|name| Path::new(LIBRARY).join(name));
        match left.iter().find(|file| !known.contains(file)) {
            Some(file) => Err(format!("{} is left", file.display())),
            None => Ok(()),
        }
    }

    /// What the built-in machine itself says of every byte.
    pub(super) fn verify(&mut self, at: usize) -> Result<(), String> {
        if !self.subjects[at].has_guest {
            return Ok(());
        }
        let machine = self.subjects[at].id;
        let nodes = self.snapshots(at)?.into_iter().map(|(_, id)| Some(id)).chain([None]);
        for node in nodes.collect::<Vec<_>>() {
            match self.desk.ask(Command::Verify { machine, at: node })? {
                Outcome::Answer(Answer::Verified(report)) if report.wrong.is_empty() => {
                    self.report.verified += report.disk.0 + report.memory.0;
                }
                other => return Err(format!("verifying {node:?} says {other:?}")),
            }
        }
        Ok(())
    }

    /// A machine's manifest, whatever fails on the volume just now.
    pub(super) fn look(&self, at: usize) -> Result<Machine, String> {
        MachineStore::look(&self.host.fork().shared(), &self.folder(at)).map_err(|error| error.to_string())
    }

    /// Labels and identifiers of a machine's snapshots, from its manifest.
    pub(super) fn snapshots(&self, at: usize) -> Result<Vec<(String, SnapshotId)>, String> {
        let machine = self.look(at)?;
        let mut found: Vec<_> = machine.snapshots.iter().map(|(id, node)| (node.label.clone(), *id)).collect();
        found.sort();
        Ok(found)
    }

    pub(super) fn pick(&mut self, at: usize) -> Result<(String, SnapshotId), String> {
        let found = self.snapshots(at)?;
        Ok(found[self.random.below(found.len() as u64) as usize].clone())
    }

    pub(super) fn folder(&self, at: usize) -> PathBuf {
        Path::new(LIBRARY).join(&self.subjects[at].name)
    }

    /// Opens a machine as the program does it before anything else, and makes what was left of Now durable, as its next
    /// start does.
    fn open_store(&self, at: usize) -> Result<(MachineStore, Seen), String> {
        let shared = self.host.shared();
        let clock: snaptree_core::clock::SharedClock = self.clock.clone();
        let mut store = MachineStore::open(&shared, &clock, &self.folder(at)).map_err(|error| error.to_string())?;
        complete_switch(&mut store).map_err(|error| error.to_string())?;
        for image in store.machine().now.images.values() {
            let path = store.image_path(*image).ok_or("Now has no image")?;
            let format = store.machine().images[image].format;
            let leaf = disk::open(&shared, &path, format, Access::Write).map_err(|error| error.to_string())?;
            leaf.flush().map_err(|error| error.to_string())?;
        }
        let gate = Gate::new([store.dir().to_path_buf()]);
        let read = |images: &BTreeMap<DiskId, ImageId>| -> Result<Disks, String> {
            let read = |image: &ImageId| {
                let path = store.image_path(*image).ok_or("a node has no image")?;
                let chain = Chain::open(&shared, &path, Access::Look, &gate).map_err(|error| error.to_string())?;
                Content::of(&chain).map_err(|error| error.to_string())
            };
            images.values().map(read).collect()
        };
        let mut nodes = BTreeMap::new();
        for node in store.machine().snapshots.values() {
            let disks = read(&node.images).map_err(|problem| format!("{}: {problem}", node.label))?;
            nodes.insert(node.label.clone(), disks);
        }
        let now = read(&store.machine().now.images).map_err(|problem| format!("Now: {problem}"))?;
        Ok((store, Seen { nodes, now }))
    }

    /// Checks a machine on which nothing was done but what changes no node.
    pub(super) fn settle_unchanged(&mut self, at: usize) -> Result<(), String> {
        let states = vec![self.subjects[at].state.clone()];
        let expected = Expected { done: false, states, worked: false, may_be_back: BTreeSet::new() };
        let name = self.subjects[at].name.clone();
        self.settle(at, expected).map_err(|problem| format!("{name}: {problem}"))
    }

    /// Opens and checks a machine after an operation, and takes over what it is.
    pub(super) fn settle(&mut self, at: usize, expected: Expected) -> Result<(), String> {
        if self.background.is_some_and(|(busy, _)| busy == at) {
            return Ok(());
        }
        let Expected { done, mut states, worked, may_be_back } = expected;
        let (store, seen) = self.open_store(at)?;
        self.report.verified += seen.bytes();
        let orphans = store.orphans().map_err(|error| error.to_string())?;
        if !orphans.is_empty() {
            return Err(format!("files that nothing names: {orphans:?}"));
        }
        for item in &store.machine().trash {
            if !self.host.exists(&store.path(&item.file)) {
                return Err(format!("{} is in the trash, but isn't there", item.file.display()));
            }
        }
        drop(store);
        if done {
            states.drain(..states.len() - 1);
        }
        let back: BTreeSet<String> = seen.nodes.keys().filter(|label| may_be_back.contains(*label)).cloned().collect();
        for state in &mut states {
            state.labels.extend(back.iter().cloned());
            if worked {
                state.now = Now::exactly(seen.now.clone());
            }
        }
        let subject = &mut self.subjects[at];
        let state = which(&seen, &subject.known, &states, self.power_lost)?;
        subject.state = State { labels: state.labels.clone(), now: Now::exactly(seen.now) };
        if worked {
            self.verify_now(at)?;
        }
        Ok(())
    }

    /// Only Now: what the machine wrote and what was acknowledged is there.
    fn verify_now(&mut self, at: usize) -> Result<(), String> {
        match self.desk.ask(Command::Verify { machine: self.subjects[at].id, at: None })? {
            Outcome::Answer(Answer::Verified(report)) if report.wrong.is_empty() => {
                self.report.verified += report.disk.0 + report.memory.0;
                Ok(())
            }
            other => Err(format!("verifying says {other:?}")),
        }
    }
}
