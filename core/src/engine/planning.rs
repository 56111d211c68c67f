//! The plan of merges: windows are kept beside the library's list, sizes are sampled into each machine's history, and
//! the plan is made anew when what it follows from has changed.
//!
//! ```text
//! windows.json: windows, pins ──> occurrences ─┐
//! history.jsonl ──> growth, rates ─────────────┼──> window::plan ──> PlanState ──> clients, agent
//! machines: merges due, free space ────────────┘          └──> agent.json: what is expected of which window
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::worker::Engine;
use super::{Answer, MachineState, Place, Refusal};
use crate::clock::zone;
use crate::cost::{Growth, SizeSample};
use crate::host_file::read_file;
use crate::snapshot::{DiskId, MachineId, Tree};
use crate::store::{History, HistoryRecord};
use crate::units::{ByteCount, ByteRate};
use crate::window::{
    DueMerge, MaintenanceWindow, MergeOption, MergePlan, Occurrence, OccurrenceKey, PlanFinding, PlanInput, PlanParameters,
    PlanThresholds, PlanVolume, WindowId, occurrences, plan, plan_findings,
};

/// The file of the windows.
const WINDOWS: &str = "windows.json";
const WINDOWS_FORMAT: &str = "snaptree-windows";
/// The file of what is expected of windows, and what came of it.
const AGENT: &str = "agent.json";
const AGENT_FORMAT: &str = "snaptree-agent";
/// Held by the one agent of a library.
pub(super) const AGENT_LOCK: &str = "agent.lock";
/// The longest of them that is looked at.
const LIMIT: u64 = 16 << 20;

/// So far is planned ahead.
const HORIZON: TimeDelta = TimeDelta::days(28);
/// Sizes are sampled this often, and not again after a shorter time at a start.
const SAMPLE_EVERY: TimeDelta = TimeDelta::hours(1);
const SAMPLE_AT_START: TimeDelta = TimeDelta::minutes(10);
/// The plan is made again after so long, even if nothing has changed; and not sooner where something has.
const PLAN_EVERY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3));
/// So long after the start machines that aren't counted yet are waited for.
const COUNT_PATIENCE: Duration = Duration::from_secs(20);
/// What was begun is remembered for so long after its window.
const KEPT: TimeDelta = TimeDelta::days(2);
/// A volume's history is told in at most so many points.
const MOST_POINTS: usize = 400;

/// When merging is allowed, and what is planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanState {
    /// The windows.
    pub windows: Vec<MaintenanceWindow>,
    /// What somebody has put where.
    pub pins: Vec<Pin>,
    /// It is planned until then.
    pub until: DateTime<Utc>,
    /// When the windows take place until then, in order.
    pub occurrences: Vec<Occurrence>,
    /// The plan.
    pub plan: MergePlan,
    /// What somebody should look at.
    pub findings: Vec<PlanFinding>,
    /// What the forecast of each volume stands on, as in the plan.
    pub volumes: Vec<VolumeHistory>,
    /// What runs the plan.
    pub agent: AgentState,
}

/// A merge that somebody has put into a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Of which machine.
    pub machine: MachineId,
    /// Of which disk.
    pub disk: DiskId,
    /// Where.
    pub occurrence: OccurrenceKey,
}

/// What was seen of a volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeHistory {
    /// Names it.
    pub id: String,
    /// Below this, machines stop.
    pub floor: ByteCount,
    /// What was free when, oldest first.
    pub free: Vec<(DateTime<Utc>, ByteCount)>,
    /// How it grows, and on how much history that stands.
    pub growth: Growth,
}

/// Who carries the plan out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentState {
    /// When an agent was last at work on this library.
    pub seen: Option<DateTime<Utc>>,
    /// Whether one is at work now.
    pub is_at_work: bool,
    /// Windows that were over before anybody carried out what was planned for them.
    pub missed: Vec<Expected>,
}

/// A merge that was planned for a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Of which machine.
    pub machine: MachineId,
    /// Of which disk.
    pub disk: DiskId,
    /// In which window.
    pub occurrence: OccurrenceKey,
    /// When that ends.
    pub end: DateTime<Utc>,
}

/// What an agent has begun in a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Begun {
    pub machine: MachineId,
    pub occurrence: OccurrenceKey,
    /// When the window ends.
    pub end: DateTime<Utc>,
    pub limit: Option<ByteRate>,
    /// The machine was shut down for it, and is to be up again by the end.
    pub is_down: bool,
    /// There is nothing left to do for it in this window.
    pub is_over: bool,
}

/// All of `windows.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowsFile {
    format: String,
    version: u32,
    windows: Vec<MaintenanceWindow>,
    pins: Vec<Pin>,
}

impl Default for WindowsFile {
    fn default() -> Self {
        Self { format: WINDOWS_FORMAT.into(), version: 1, windows: Vec::new(), pins: Vec::new() }
    }
}

/// All of `agent.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentFile {
    format: String,
    version: u32,
    /// When an agent was last at work.
    pub seen: Option<DateTime<Utc>>,
    /// What is planned, and not begun.
    pub expected: Vec<Expected>,
    /// What was planned, and never begun.
    pub missed: Vec<Expected>,
    /// What an agent has begun, lately.
    pub begun: Vec<Begun>,
}

impl Default for AgentFile {
    fn default() -> Self {
        let none = Vec::new();
        Self { format: AGENT_FORMAT.into(), version: 1, seen: None, expected: none.clone(), missed: none, begun: Vec::new() }
    }
}

/// What the worker keeps of it.
#[derive(Debug, Default)]
pub(super) struct Planning {
    file: WindowsFile,
    pub(super) agent: AgentFile,
    /// Checksums of the two files.
    seen: (u32, u32),
    /// An agent is at work.
    has_agent: bool,
    /// Something has changed since the last plan.
    pub stale: bool,
    last: Option<Duration>,
    samples: BTreeMap<MachineId, Vec<SizeSample>>,
    /// Machines of which it was seen once whether their sizes are to be sampled.
    looked_at: BTreeSet<MachineId>,
    pub state: Option<Arc<PlanState>>,
}

impl Engine {
    /// Every second: samples sizes, and makes the plan where that is due.
    pub(super) fn look_at_plan(&mut self) {
        if self.only.is_some() {
            self.sample_sizes();
            return;
        }
        self.read_plan_files();
        self.look_for_agent();
        self.sample_sizes();
        let now = self.options.clock.elapsed();
        let wait = if self.planning.stale { PLAN_EVERY.1 } else { PLAN_EVERY.0 };
        let is_due = self.planning.last.is_none_or(|last| now >= last + wait);
        let counting = || self.machines.values().any(|entry| entry.remote.is_none() && entry.sight.is_behind());
        if is_due && (now > COUNT_PATIENCE || self.planning.last.is_some() || !counting()) {
            self.planning.last = Some(now);
            self.planning.stale = false;
            self.make_plan();
        }
    }

    /// What another process has changed.
    fn read_plan_files(&mut self) {
        let sum = |name: &str| {
            let path = self.library.folder().join(name);
            read_file(&*self.options.host, &path, LIMIT).map_or(0, |bytes| crc32c::crc32c(&bytes))
        };
        let seen = (sum(WINDOWS), sum(AGENT));
        if seen == self.planning.seen {
            return;
        }
        let read = (self.library.read_beside(WINDOWS, WINDOWS_FORMAT), self.library.read_beside(AGENT, AGENT_FORMAT));
        for problem in [read.0.as_ref().err(), read.1.as_ref().err()].into_iter().flatten() {
            self.problems.push(problem.to_string());
            self.library_changed = true;
        }
        let planning = &mut self.planning;
        planning.file = read.0.unwrap_or_default().unwrap_or_default();
        planning.agent = read.1.unwrap_or_default().unwrap_or_default();
        (planning.seen, planning.stale) = (seen, true);
    }

    fn look_for_agent(&mut self) {
        let is_at_work = self.options.host.is_locked(&self.library.folder().join(AGENT_LOCK));
        let planning = &mut self.planning;
        if std::mem::replace(&mut planning.has_agent, is_at_work) != is_at_work {
            (planning.stale, planning.last) = (true, None);
        }
    }

    fn change_windows(&mut self, change: impl FnOnce(&mut WindowsFile)) -> Result<(), Refusal> {
        self.planning.file = self.library.change_beside(WINDOWS, WINDOWS_FORMAT, change)?;
        self.make_plan();
        Ok(())
    }

    pub(super) fn change_agent(&mut self, change: impl FnOnce(&mut AgentFile)) -> Result<(), Refusal> {
        self.planning.agent = self.library.change_beside(AGENT, AGENT_FORMAT, change)?;
        Ok(())
    }

    /// Makes a window, or changes it.
    pub(super) fn set_window(&mut self, window: MaintenanceWindow) -> Result<Answer, Refusal> {
        let name = window.name.clone();
        let mut is_new = true;
        self.change_windows(|file| match file.windows.iter_mut().find(|known| known.id == window.id) {
            Some(known) => {
                *known = window;
                is_new = false;
            }
            None => file.windows.push(window),
        })?;
        Ok(Answer::Done(format!("the window {name} is {}", if is_new { "made" } else { "changed" })))
    }

    /// Forgets a window.
    pub(super) fn remove_window(&mut self, id: WindowId) -> Result<Answer, Refusal> {
        if !self.planning.file.windows.iter().any(|window| window.id == id) {
            return Err(Refusal::rule("there is no such window"));
        }
        self.change_windows(|file| {
            file.windows.retain(|window| window.id != id);
            file.pins.retain(|pin| pin.occurrence.window != id);
        })?;
        Ok(Answer::Done("the window is gone; what was planned for it is planned anew".into()))
    }

    /// Puts a merge somewhere, or leaves it to the planner.
    pub(super) fn pin_merge(
        &mut self,
        machine: MachineId,
        disk: DiskId,
        occurrence: Option<OccurrenceKey>,
    ) -> Result<Answer, Refusal> {
        if let Some(key) = occurrence {
            let entry = self.machines.get(&machine).ok_or_else(|| Refusal::rule("there is no such machine"))?;
            let name = &entry.machine.name;
            if !Tree::of(&entry.machine).runs().iter().any(|run| run.disk == disk) {
                return Err(Refusal::rule(format!("no merge is due for {disk} of {name}")));
            }
            let windows = &self.planning.file.windows;
            let window = windows.iter().find(|window| window.id == key.window);
            let window = window.ok_or_else(|| Refusal::rule("there is no such window"))?;
            if !window.scope.covers(machine) {
                return Err(Refusal::rule(format!("the window {} isn't for {name}", window.name)));
            }
            let now = self.options.clock.now();
            let mut times = occurrences(windows, &zone(), now, now + HORIZON).into_iter();
            if !times.any(|time| time.key == key && time.end > now) {
                let text = format!("the window {} doesn't take place then, or is over", window.name);
                return Err(Refusal::rule(text));
            }
        }
        self.change_windows(|file| {
            file.pins.retain(|pin| (pin.machine, &pin.disk) != (machine, &disk));
            file.pins.extend(occurrence.map(|occurrence| Pin { machine, disk, occurrence }));
        })?;
        Ok(Answer::Done(if occurrence.is_some() { "it is planned there".into() } else { "the planner chooses again".into() }))
    }

    /// Missed windows were read.
    pub(super) fn forget_missed(&mut self) -> Result<Answer, Refusal> {
        self.change_agent(|file| file.missed.clear())?;
        self.make_plan();
        Ok(Answer::Done("missed windows are forgotten".into()))
    }

    /// Adds the sizes of the machines that nobody else has to their histories, where that is due.
    fn sample_sizes(&mut self) {
        let now = self.options.clock.now();
        let host = self.options.host.clone();
        for (id, entry) in &mut self.machines {
            if entry.place != Place::Library {
                continue;
            }
            let history = History::of(&host, &entry.dir);
            let samples = self.planning.samples.entry(*id).or_insert_with(|| samples_of(&history));
            let is_due = |wait| samples.last().is_none_or(|last: &SizeSample| now >= last.at + wait);
            if entry.remote.is_some() {
                // Its owner samples it.
                if is_due(SAMPLE_EVERY) {
                    let known = samples.len();
                    *samples = samples_of(&history);
                    self.planning.stale |= samples.len() != known;
                }
                continue;
            }
            if entry.sight.is_behind() {
                continue;
            }
            let is_new = self.planning.looked_at.insert(*id);
            let wait = if is_new { SAMPLE_AT_START } else { SAMPLE_EVERY };
            if !is_due(wait) {
                continue;
            }
            let images = entry.sight.files.iter().map(|(image, file)| (*image, file.held)).collect();
            let sample = SizeSample { at: now, images, free: entry.volume.free };
            let SizeSample { at, images, free } = sample.clone();
            // Where it can't be written, such as on a full volume, there is one sample less.
            if history.append(&HistoryRecord::Sizes { at, images, free }).is_ok() {
                samples.push(sample);
                self.planning.stale = true;
            } else {
                entry.problems = vec!["its history can't be written".into()];
            }
        }
    }

    /// Makes the plan, and tells it.
    pub(super) fn make_plan(&mut self) {
        self.sample_sizes();
        let now = self.options.clock.now();
        let until = now + HORIZON;
        let states: Vec<Arc<MachineState>> =
            self.machines.values().filter(|entry| entry.place == Place::Library).map(super::entry::Entry::state).collect();
        let planned = occurrences(&self.planning.file.windows, &zone(), now, until);
        let mut volumes: Vec<(PlanVolume, VolumeHistory)> = Vec::new();
        let mut work = Vec::new();
        for state in &states {
            if volumes.iter().all(|(volume, _)| volume.id != state.volume.id) {
                volumes.push(self.volume(state, &states));
            }
            work.extend(self.due_merges(state));
        }
        let (volumes, histories): (Vec<_>, Vec<_>) = volumes.into_iter().unzip();
        let parameters = PlanParameters::default();
        let input = PlanInput { now, until, occurrences: planned.clone(), volumes, work, parameters };
        let plan = plan(&input);
        let findings = plan_findings(&plan, &PlanThresholds::default());
        self.expect(&plan, &planned, now);
        let planning = &mut self.planning;
        let state = Arc::new(PlanState {
            windows: planning.file.windows.clone(),
            pins: planning.file.pins.clone(),
            until,
            occurrences: planned,
            plan,
            findings,
            volumes: histories,
            agent: AgentState {
                seen: planning.agent.seen,
                is_at_work: planning.has_agent,
                missed: planning.agent.missed.clone(),
            },
        });
        planning.state = Some(state.clone());
        self.outbox.publish(&super::Event::Plan(state));
    }

    /// A volume, from all machines on it.
    fn volume(&self, of: &MachineState, states: &[Arc<MachineState>]) -> (PlanVolume, VolumeHistory) {
        let here = || states.iter().filter(|state| state.volume.id == of.volume.id);
        let mut samples: Vec<SizeSample> =
            here().filter_map(|state| self.planning.samples.get(&state.machine.id)).flatten().cloned().collect();
        samples.sort_by_key(|sample| sample.at);
        samples.dedup_by_key(|sample| sample.at);
        let growth = Growth::of_volume(&samples);
        let floor = here().map(|state| state.machine.settings.pause_free).max().unwrap_or_default();
        let free = here().map(|state| state.volume.free).min().unwrap_or_default();
        let id = of.volume.id.clone();
        let every = samples.len().div_ceil(MOST_POINTS).max(1);
        let points = samples.iter().rev().step_by(every).map(|sample| (sample.at, sample.free));
        let mut points: Vec<_> = points.collect();
        points.reverse();
        let calibration = of.calibration.clone();
        let history = VolumeHistory { id: id.clone(), floor, free: points, growth: growth.clone() };
        (PlanVolume { id, free, floor, growth, calibration }, history)
    }

    fn due_merges(&self, state: &MachineState) -> Vec<DueMerge> {
        let (machine, facts) = (&state.machine, state.facts());
        let samples = self.planning.samples.get(&machine.id).map(Vec::as_slice).unwrap_or_default();
        let due = |run: crate::snapshot::Run| {
            let pin = self.planning.file.pins.iter().find(|pin| (pin.machine, &pin.disk) == (machine.id, &run.disk));
            let leaf = machine.now.images.get(&run.disk);
            DueMerge {
                machine: machine.id,
                volume: state.volume.id.clone(),
                running: state.power.is_up(),
                guest: state.guest,
                options: MergeOption::all(&facts, &run.disk, &run.images),
                growth: leaf.map_or_else(Growth::default, |leaf| Growth::of_leaf(samples, *leaf)),
                pinned: pin.map(|pin| pin.occurrence),
                disk: run.disk,
            }
        };
        Tree::of(machine).runs().into_iter().map(due).collect()
    }

    /// Keeps what is expected of the next windows, and notes those that were missed.
    fn expect(&mut self, plan: &MergePlan, occurrences: &[Occurrence], now: DateTime<Utc>) {
        let end_of = |key: OccurrenceKey| occurrences.iter().find(|o| o.key == key).map(|o| o.end);
        let mut expected = Vec::new();
        for merge in &plan.merges {
            let Some(piece) = merge.pieces.first() else { continue };
            let Some(end) = end_of(piece.occurrence) else { continue };
            let (machine, disk, occurrence) = (merge.machine, merge.disk.clone(), piece.occurrence);
            expected.push(Expected { machine, disk, occurrence, end });
        }
        let still_due = |e: &Expected| plan.merges.iter().any(|merge| (merge.machine, &merge.disk) == (e.machine, &e.disk));
        let was_used = |e: &Expected| {
            let mut begun = self.planning.agent.begun.iter();
            begun.any(|begun| (begun.machine, begun.occurrence) == (e.machine, e.occurrence))
        };
        let over = |e: &&Expected| e.end <= now && still_due(e) && !was_used(e);
        let missed: Vec<Expected> = self.planning.agent.expected.iter().filter(over).cloned().collect();
        if missed.is_empty() && expected == self.planning.agent.expected {
            return;
        }
        // Another process may be just at it; then this one has nothing to add.
        let _ = self.change_agent(|file| {
            file.missed.extend(missed.into_iter().filter(|m| !file.missed.contains(m)).collect::<Vec<_>>());
            file.expected = expected;
            file.begun.retain(|begun| !begun.is_over || begun.end + KEPT > now);
        });
    }
}

fn samples_of(history: &History) -> Vec<SizeSample> {
    let sizes = |record| match record {
        HistoryRecord::Sizes { at, images, free } => Some(SizeSample { at, images, free }),
        HistoryRecord::Merge { .. } => None,
    };
    history.read().unwrap_or_default().into_iter().filter_map(sizes).collect()
}
