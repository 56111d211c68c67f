//! What is known, and what follows from it. No egui here: events go in, figures come out.
//!
//! ```text
//! Event ─> Model::apply ─> MachineEntry { state, tree, figures } ─> read by the frame
//! ```

mod beside;
#[cfg(test)]
pub mod fabricated;
mod figures;
mod jobs;
mod order;
#[cfg(test)]
mod tests;

pub use figures::{Figures, Question};
pub use jobs::{Jobs, Notice, is_ended};
pub use order::{Node, Tree, snapshot};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use snaptree_core::cost::Severity;
use snaptree_core::engine::{Event, LibraryState, MachineState, Place, PlanState, Power, Screen, WorkloadCounters};
use snaptree_core::snapshot::{MachineId, by_name};

use crate::text::{When, Zone};

/// A machine, with what follows from its state.
pub struct MachineEntry {
    pub state: Arc<MachineState>,
    pub tree: Rc<Tree>,
    pub figures: Figures,
    /// The screen and counters, while it runs.
    pub live: Option<(Arc<Screen>, WorkloadCounters)>,
}

impl MachineEntry {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.state.machine.name
    }

    /// Whether it runs or stands still with its memory in place.
    pub fn is_up(&self) -> bool {
        self.state.power.is_up() || self.state.power == Power::Starting
    }

    /// Whether its files may only be looked at.
    pub fn read_only(&self) -> bool {
        matches!(self.state.place, Place::Folder(_))
    }

    /// The folder with its images: its own, or the one that was opened.
    pub fn files_folder(&self) -> &Path {
        match &self.state.place {
            Place::Library => &self.state.folder,
            Place::Folder(folder) => folder,
        }
    }

    /// A file of the machine, whole path.
    pub fn path(&self, relative: &Path) -> PathBuf {
        self.state.folder.join(relative)
    }
}

/// Something that needs somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concern {
    /// A machine's finding, by its number.
    Machine(MachineId, usize),
    /// The plan's, by its number.
    Plan(usize),
    /// Windows that passed unused.
    Missed,
}

/// Everything that is known.
pub struct Model {
    pub library: Option<Arc<LibraryState>>,
    pub machines: BTreeMap<MachineId, MachineEntry>,
    pub jobs: Jobs,
    /// Maintenance windows, and the plan of all merges.
    pub plan: Option<Arc<PlanState>>,
    /// What dates are told against; set once a frame.
    pub when: When,
}

impl Model {
    /// Nothing is known yet.
    pub fn new(now: DateTime<Utc>, zone: impl Into<Zone>) -> Self {
        Self {
            library: None,
            machines: BTreeMap::new(),
            jobs: Jobs::default(),
            plan: None,
            when: When { now, zone: zone.into() },
        }
    }

    /// Takes an event in.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Library(library) => self.library = Some(library),
            Event::Machine(state) => self.set_machine(state),
            Event::Gone(id) => {
                self.machines.remove(&id);
            }
            Event::Plan(plan) => self.plan = Some(plan),
            Event::Job(job) => self.jobs.update(job),
            Event::Live { machine, screen, counters } => {
                if let Some(entry) = self.machines.get_mut(&machine) {
                    entry.live = Some((screen, counters));
                }
            }
            Event::Answer { request, answer } => self.jobs.answer(request, answer),
        }
    }

    fn set_machine(&mut self, state: Arc<MachineState>) {
        let id = state.machine.id;
        let old = self.machines.remove(&id);
        // The same tree and files: only power or a volume has changed, so what was derived stays.
        let (tree, live) = match old {
            Some(old) if Arc::ptr_eq(&old.state.machine, &state.machine) || old.state.machine == state.machine => {
                (old.tree, old.live)
            }
            Some(old) => (Rc::new(Tree::of(&state.machine)), old.live),
            None => (Rc::new(Tree::of(&state.machine)), None),
        };
        let running = state.power.is_up();
        let figures = Figures::new(state.clone(), self.when.now);
        let live = live.filter(|_| running);
        self.machines.insert(id, MachineEntry { state, tree, figures, live });
    }

    /// A machine.
    pub fn machine(&self, id: Option<MachineId>) -> Option<&MachineEntry> {
        self.machines.get(&id?)
    }

    /// The machines of the library, in its order.
    pub fn library_machines(&self) -> Vec<MachineId> {
        let mut ids: Vec<_> = self.machines.iter().filter(|(_, m)| !m.read_only()).map(|(id, _)| *id).collect();
        ids.sort_by(|a, b| by_name(self.machines[a].name(), self.machines[b].name()));
        ids
    }

    /// The opened folders, each with the machines found in it.
    pub fn folders(&self) -> Vec<(PathBuf, Vec<MachineId>)> {
        let Some(library) = &self.library else { return Vec::new() };
        let found = |folder: &PathBuf| {
            let is_here = |m: &&MachineEntry| matches!(&m.state.place, Place::Folder(f) if f == folder);
            self.machines.values().filter(is_here).map(|m| m.state.machine.id).collect()
        };
        library.folders.iter().map(|f| (f.clone(), found(f))).collect()
    }

    /// Whether everything that the library lists has been told.
    pub fn is_read(&self) -> bool {
        self.library.as_ref().is_some_and(|l| l.machines.iter().all(|id| self.machines.contains_key(id)))
    }

    /// Whether there is nothing to show yet: the first start.
    pub fn is_empty(&self) -> bool {
        self.library.as_ref().is_some_and(|l| l.folders.is_empty() && l.machines.is_empty()) && self.machines.is_empty()
    }

    /// What needs somebody, the worst first.
    pub fn attention(&self) -> Vec<Concern> {
        let mut all: Vec<(Severity, Concern)> =
            self.machine_concerns().into_iter().map(|(severity, id, i)| (severity, Concern::Machine(id, i))).collect();
        if let Some(plan) = &self.plan {
            let worth = plan.findings.iter().enumerate().filter(|(_, f)| f.severity > Severity::Note);
            all.extend(worth.map(|(i, f)| (f.severity, Concern::Plan(i))));
            all.extend((!plan.agent.missed.is_empty()).then_some((Severity::Warning, Concern::Missed)));
        }
        // Of those that are as urgent, a machine that waits comes first, then what the plan says.
        let rank = |concern: &Concern| match concern {
            Concern::Machine(id, _) if self.machines[id].state.power == Power::NoRoom => 0,
            Concern::Plan(_) | Concern::Missed => 1,
            Concern::Machine(..) => 2,
        };
        all.sort_by(|(a, first), (b, second)| b.cmp(a).then_with(|| rank(first).cmp(&rank(second))));
        all.into_iter().map(|(_, concern)| concern).collect()
    }

    /// The worst finding of each machine, the worst first.
    fn machine_concerns(&self) -> Vec<(Severity, MachineId, usize)> {
        let mut all: Vec<(Severity, MachineId, usize)> = Vec::new();
        for (id, machine) in &self.machines {
            let worth = machine.figures.findings.iter().enumerate().filter(|(_, f)| f.severity > Severity::Note);
            // One per machine: its worst.
            all.extend(worth.map(|(i, f)| (f.severity, *id, i)).max_by_key(|(s, _, i)| (*s, std::cmp::Reverse(*i))));
        }
        all.sort_by(|(a, first, _), (b, second, _)| {
            let names = || by_name(self.machines[first].name(), self.machines[second].name());
            b.cmp(a).then_with(names)
        });
        all
    }
}
