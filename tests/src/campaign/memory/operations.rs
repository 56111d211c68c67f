//! What is asked of the engine.

use std::collections::BTreeSet;
use std::path::Path;

use snaptree_core::engine::{Command, JobAction, RefusalKind};
use snaptree_core::host_file::Host;
use snaptree_core::snapshot::{SnapshotId, Tree};
use snaptree_core::units::{ByteCount, ByteRate};

use super::super::desk::{Desk, Outcome};
use super::super::model::{Now, State};
use super::{Expected, MOST_NODES, Round};

impl Round<'_> {
    /// Asks; whether it was done. A failure without a fault is wrong.
    fn ask(&mut self, command: Command) -> Result<bool, String> {
        let met = self.host.faults_met();
        let text = format!("{command:?}");
        match self.desk.ask(command)? {
            Outcome::Answer(_) => Ok(true),
            Outcome::Refused(refusal)
                if refusal.kind == RefusalKind::Failed && self.host.faults_met() == met && !self.is_full() =>
            {
                Err(format!("{text} failed without a fault: {refusal}"))
            }
            Outcome::Refused(_) | Outcome::Crashed => Ok(false),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.host.free_bytes(Path::new("/")).is_ok_and(|free| free < ByteCount::gib(1))
    }

    pub(super) fn before(&self, at: usize) -> State {
        self.subjects[at].state.clone()
    }

    pub(super) fn same(&self, at: usize, done: bool) -> Expected {
        Expected { done, states: vec![self.before(at)], worked: false, may_be_back: BTreeSet::new() }
    }

    pub(super) fn changed(&self, at: usize, done: bool, after: State) -> Expected {
        Expected { done, states: vec![self.before(at), after], worked: false, may_be_back: BTreeSet::new() }
    }

    pub(super) fn write(&mut self, at: usize) -> Result<Expected, String> {
        let mut after = self.before(at);
        let done = match self.open_now(at) {
            Ok(chains) => self.scribble(&chains, &mut after.now),
            Err(_) => false,
        };
        Ok(Expected { done, states: vec![after], worked: false, may_be_back: BTreeSet::new() })
    }

    pub(super) fn work(&mut self, at: usize) -> Result<Expected, String> {
        let milliseconds = 20 + self.random.below(150);
        let done = self.ask(Command::RunWorkload { machine: self.subjects[at].id, milliseconds, seed: None })?;
        Ok(Expected { worked: true, ..self.same(at, done) })
    }

    pub(super) fn new_label(&mut self, at: usize) -> String {
        let subject = &mut self.subjects[at];
        subject.taken += 1;
        let label = format!("s{}", subject.taken);
        subject.known.insert(label.clone(), subject.state.now.acknowledged());
        label
    }

    pub(super) fn take(&mut self, at: usize) -> Result<Expected, String> {
        let label = self.new_label(at);
        let take = Command::Take { machine: self.subjects[at].id, label: label.clone(), note: String::new(), memory: false };
        let done = self.ask(take)?;
        let mut after = self.before(at);
        after.labels.insert(label);
        Ok(self.changed(at, done, after))
    }

    pub(super) fn apply(&mut self, at: usize) -> Result<Expected, String> {
        let (label, snapshot) = self.pick(at)?;
        let before = self.before(at);
        let safety = (self.random.chance(1, 3) && before.labels.len() < MOST_NODES).then(|| self.new_label(at));
        let done = self.ask(Command::Apply { machine: self.subjects[at].id, snapshot, safety: safety.clone() })?;
        let mut safe = before.clone();
        safe.labels.extend(safety);
        let subject = &mut self.subjects[at];
        let after = State { labels: safe.labels.clone(), now: Now::exactly(subject.known[&label].clone()) };
        // Where it was cut off, what was before may be what undoing brings back: that is found out when it is asked for.
        subject.undo = done.then(|| Now::exactly(before.now.acknowledged()));
        Ok(Expected { done, states: vec![before, safe, after], worked: false, may_be_back: BTreeSet::new() })
    }

    pub(super) fn undo_apply(&mut self, at: usize) -> Result<Expected, String> {
        let before = self.before(at);
        let Some(undone) = self.subjects[at].undo.clone() else { return Ok(self.same(at, false)) };
        let done = self.ask(Command::UndoApply(self.subjects[at].id))?;
        let after = State { labels: before.labels.clone(), now: undone };
        self.subjects[at].undo = done.then(|| Now::exactly(before.now.acknowledged()));
        Ok(self.changed(at, done, after))
    }

    pub(super) fn delete(&mut self, at: usize) -> Result<Expected, String> {
        let mut picked = vec![self.pick(at)?];
        if self.random.chance(1, 3) {
            picked.push(self.pick(at)?);
        }
        let (subtree, free_now) = (self.random.chance(1, 3), self.random.chance(1, 4));
        let machine = self.look(at)?;
        let tree = Tree::of(&machine);
        let mut after = self.before(at);
        for (_, id) in &picked {
            let gone = if subtree { tree.subtree(*id) } else { vec![*id] };
            for id in gone {
                after.labels.remove(&machine.snapshots[&id].label);
            }
        }
        let mut snapshots: Vec<SnapshotId> = picked.into_iter().map(|(_, id)| id).collect();
        snapshots.dedup();
        let done = self.ask(Command::Delete { machine: self.subjects[at].id, snapshots, subtree, free_now })?;
        Ok(self.changed(at, done, after))
    }

    pub(super) fn undelete(&mut self, at: usize) -> Result<Expected, String> {
        let machine = self.look(at)?;
        let mut ghosts: Vec<(String, SnapshotId)> =
            machine.ghosts.iter().map(|(id, ghost)| (ghost.snapshot.label.clone(), *id)).collect();
        ghosts.sort();
        if ghosts.is_empty() {
            return Ok(self.same(at, false));
        }
        let (label, snapshot) = ghosts[self.random.below(ghosts.len() as u64) as usize].clone();
        let done = self.ask(Command::Undelete { machine: self.subjects[at].id, snapshot })?;
        let mut after = self.before(at);
        after.labels.insert(label);
        let may_be_back = ghosts.into_iter().map(|(label, _)| label).collect();
        Ok(Expected { may_be_back, ..self.changed(at, done, after) })
    }

    pub(super) fn rename(&mut self, at: usize) -> Result<Expected, String> {
        let (old, snapshot) = self.pick(at)?;
        let label = self.new_label(at);
        let subject = &mut self.subjects[at];
        subject.known.insert(label.clone(), subject.known[&old].clone());
        let done = self.ask(Command::Rename { machine: self.subjects[at].id, snapshot, label: label.clone() })?;
        let mut after = self.before(at);
        after.labels.remove(&old);
        after.labels.insert(label);
        Ok(self.changed(at, done, after))
    }

    pub(super) fn empty_trash(&mut self, at: usize) -> Result<Expected, String> {
        let done = self.ask(Command::EmptyTrash { machine: self.subjects[at].id, all: true })?;
        if done {
            self.subjects[at].undo = None;
        }
        Ok(self.same(at, done))
    }

    pub(super) fn merge(&mut self, at: usize) -> Result<Expected, String> {
        let done = self.ask(Command::Merge { machine: self.subjects[at].id, disk: None, limit: None, until: None })?;
        Ok(self.same(at, done))
    }

    /// A merge that is paused, goes on, and is cancelled or not.
    pub(super) fn merge_cut_short(&mut self, at: usize) -> Result<Expected, String> {
        let machine = self.subjects[at].id;
        let limit = Some(ByteRate(2e6));
        let id = self.desk.submit(Command::Merge { machine, disk: None, limit, until: None });
        for action in [JobAction::Pause, JobAction::Resume, JobAction::Cancel] {
            for _ in 0..self.random.below(400) {
                self.desk.tick();
            }
            if action == JobAction::Cancel && self.random.chance(1, 2) {
                break;
            }
            // It may have ended already.
            self.desk.ask(Command::Job { machine, action })?;
        }
        let done = matches!(self.desk.wait(id)?, Outcome::Answer(_));
        Ok(self.same(at, done))
    }

    /// A merge begins, and goes on while something is done with another machine.
    pub(super) fn merge_beside(&mut self, at: usize) -> Result<Expected, String> {
        let id = self.desk.submit(Command::Merge {
            machine: self.subjects[at].id,
            disk: None,
            limit: Some(ByteRate(1e6)),
            until: None,
        });
        self.desk.tick();
        let other = (at + 1) % self.subjects.len();
        let take = Command::Take { machine: self.subjects[other].id, label: String::new(), note: String::new(), memory: false };
        // Refused, for its label: but it is asked in the midst of the other one's merge.
        self.desk.ask(take)?;
        for _ in 0..self.random.below(300) {
            self.desk.tick();
        }
        let expected = self.same(at, !self.host.has_crashed());
        self.background = Some((at, id));
        Ok(expected)
    }

    /// The program ends and starts; what was under way ends with it.
    pub(super) fn reopen(&mut self, at: usize) -> Result<Expected, String> {
        let opened = Desk::open(&self.host, &self.clock);
        let done = opened.is_ok();
        match opened {
            Ok(desk) => {
                self.desk = desk;
                if !self.host.has_crashed() {
                    // A machine whose manifest could not be read is looked at again.
                    self.host.heal();
                    self.host.disarm();
                    self.desk.ask(Command::Rescan)?;
                }
            }
            Err(_) if self.host.has_crashed() => return Ok(self.same(at, false)),
            Err(_) => {
                self.host.heal();
                self.host.disarm();
                self.desk = Desk::open(&self.host, &self.clock)?;
            }
        }
        self.ended = self.background.take().map(|(other, _)| other);
        Ok(self.same(at, done))
    }
}
