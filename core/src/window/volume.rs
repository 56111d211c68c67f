//! The merges and windows of one volume, as figures: seconds from now, shares of a merge.

use super::{DueMerge, MergeOption, Occurrence, PlanInput, PlanVolume};
use crate::cost::{Estimate, Learnt, Line, MergeLoad, MergeMode, MergeWork};
use crate::merge::RateLimit;

/// One taking place of a window, in seconds from now.
#[derive(Debug, Clone)]
pub(super) struct Slot<'a> {
    pub occurrence: &'a Occurrence,
    pub start: f64,
    pub end: f64,
}

/// One volume's part of the plan.
pub(super) struct Problem<'a> {
    pub input: &'a PlanInput,
    pub volume: &'a PlanVolume,
    /// `None`: nothing is known of how long merges take.
    pub learnt: Option<Learnt>,
    /// In the order of their starts.
    pub slots: Vec<Slot<'a>>,
    /// The merges, those to be done first in front.
    pub jobs: Vec<Job<'a>>,
}

/// A merge.
pub(super) struct Job<'a> {
    /// Its place in the input.
    pub place: usize,
    pub due: &'a DueMerge,
    /// Options by bytes, the fewest first.
    pub options: Vec<&'a MergeOption>,
    /// By slot, whether it may be worked on there.
    pub allowed: Vec<bool>,
    /// The slot that it was put into; one past the last if that doesn't take place.
    pub pinned: Option<usize>,
    /// Seconds from now: before this it is safe that the volume holds out and the merge still fits.
    pub deadline: Option<f64>,
    /// Which machine of the volume.
    pub machine: usize,
    /// By option and slot, what is known before it begins.
    ways: Vec<Vec<Way>>,
}

/// What a job could do in a slot with an option, were it begun now: never less than what it can do later.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    pace: Option<Pace>,
    /// Share of it that could be done in this slot and all later ones, were it alone.
    ahead: f64,
}

/// A merge that was begun: what it moves stands from then on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub option: usize,
    /// Seconds from now.
    pub at: f64,
    /// Share that is left.
    pub left: f64,
}

/// How long a whole merge takes somewhere, if it begins at some time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub p50: f64,
    pub p90: f64,
    /// A batch.
    pub batch: f64,
    /// The share of the merge that a batch is.
    pub batch_share: f64,
}

/// What is done of a merge in one slot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Piece {
    pub job: usize,
    pub option: usize,
    pub slot: usize,
    /// Seconds from now.
    pub start: f64,
    pub p50_end: f64,
    pub p90_end: f64,
    /// It must have ended or paused by then.
    pub last: f64,
    /// Share of the merge.
    pub share: f64,
    /// Whether the merge is done then.
    pub ends: bool,
    /// Whether the machine is shut down for it.
    pub stops: bool,
}

const DAY: f64 = 86_400.0;

impl<'a> Problem<'a> {
    pub fn of(input: &'a PlanInput, volume: &'a PlanVolume) -> Self {
        let seconds = |at: chrono::DateTime<chrono::Utc>| (at - input.now).as_seconds_f64();
        let horizon = seconds(input.until);
        let mut slots: Vec<Slot<'_>> = input
            .occurrences
            .iter()
            .map(|o| Slot { occurrence: o, start: seconds(o.start()).max(0.0), end: seconds(o.end).min(horizon) })
            .filter(|slot| slot.end > slot.start)
            .collect();
        slots.sort_by(|a, b| (a.start, a.end).partial_cmp(&(b.start, b.end)).unwrap_or(std::cmp::Ordering::Equal));
        let mut problem = Self { input, volume, learnt: volume.calibration.learn(), slots, jobs: Vec::new() };
        let mut machines = Vec::new();
        let mut jobs = Vec::new();
        for (place, due) in input.work.iter().enumerate().filter(|(_, due)| due.volume == volume.id && !due.options.is_empty()) {
            let machine = machines.iter().position(|m| *m == due.machine).unwrap_or_else(|| {
                machines.push(due.machine);
                machines.len() - 1
            });
            jobs.push(problem.job(place, due, machine));
        }
        // Earliest deadline first, then what moves least; what somebody has put somewhere is done there first.
        let rank = |job: &Job<'_>| (job.pinned.is_none(), job.deadline.unwrap_or(f64::INFINITY), job.options[0].bytes.0 as f64);
        jobs.sort_by(|a, b| rank(a).partial_cmp(&rank(b)).unwrap_or(std::cmp::Ordering::Equal));
        problem.jobs = jobs;
        for job in 0..problem.jobs.len() {
            problem.jobs[job].ways = (0..problem.jobs[job].options.len()).map(|option| problem.ways(job, option)).collect();
        }
        problem
    }

    fn job(&self, place: usize, due: &'a DueMerge, machine: usize) -> Job<'a> {
        let mut options: Vec<&MergeOption> = due.options.iter().collect();
        options.sort_by_key(|o| (o.bytes, o.scratch));
        let can_live = options.iter().any(|o| o.live);
        let covers = |o: &Occurrence| o.scope.covers(due.machine) && (!due.running || o.mode == MergeMode::Stopped || can_live);
        let pinned = due.pinned.map(|key| {
            let slot = self.slots.iter().position(|slot| slot.occurrence.key == key);
            slot.unwrap_or(self.slots.len())
        });
        let after_pin = |slot: usize| pinned.is_none_or(|pinned| slot >= pinned);
        let allowed = self.slots.iter().enumerate().map(|(i, slot)| covers(slot.occurrence) && after_pin(i)).collect();
        let needs = options.iter().map(|o| o.scratch).min().unwrap_or_default().max(self.volume.floor);
        let deadline = self.used_up(needs.0 as f64, 0.0);
        Job { place, due, options, allowed, pinned, deadline, machine, ways: Vec::new() }
    }

    fn ways(&self, job: usize, option: usize) -> Vec<Way> {
        let mut ways: Vec<Way> = (0..self.slots.len())
            .map(|slot| {
                let load = self.load(job, option, slot).filter(|_| self.jobs[job].allowed[slot]);
                Way { pace: load.and_then(|load| self.pace(job, option, 0.0, load, Some(slot))), ahead: 0.0 }
            })
            .collect();
        let mut ahead = 0.0;
        for slot in (0..ways.len()).rev() {
            ahead += self.share_in(job, slot, ways[slot].pace, 0.0);
            ways[slot].ahead = ahead;
        }
        ways
    }

    /// Seconds from now until, practically never earlier, less than `floor` is free, with `gained` bytes more.
    fn used_up(&self, floor: f64, gained: f64) -> Option<f64> {
        let room = self.volume.free.0 as f64 + gained - floor;
        if room < 0.0 {
            return Some(0.0);
        }
        let safe = self.volume.growth.uses_up(crate::units::ByteCount(room as u64), self.input.now).safe?;
        Some((safe - self.input.now).as_seconds_f64())
    }

    /// Bytes that are practically always free at a time, with `gained` bytes given back.
    pub fn free_at(&self, at: f64, gained: f64) -> f64 {
        self.volume.free.0 as f64 + gained - self.volume.growth.added_along(Line::Safe, at / DAY)
    }

    /// Whether a merge that ends then still keeps the volume from falling below its floor.
    pub fn is_in_time(&self, end: f64, gained: f64) -> bool {
        self.free_at(end, gained) >= self.volume.floor.0 as f64 || self.volume.growth.rate.is_none()
    }

    /// Free space that an option needs, if it begins then.
    pub fn scratch_at(&self, job: usize, option: usize, at: f64) -> f64 {
        let job = &self.jobs[job];
        let option = job.options[option];
        let grown = if option.scratch_grows { job.due.growth.added_along(Line::P90, at / DAY) } else { 0.0 };
        option.scratch.0 as f64 + grown
    }

    /// Bytes that an option moves if it begins then: the middle.
    pub fn bytes_at(&self, job: usize, option: usize, at: f64) -> u64 {
        self.work_at(job, option, at, Line::P50).bytes
    }

    fn work_at(&self, job: usize, option: usize, at: f64, line: Line) -> MergeWork {
        let job = &self.jobs[job];
        let option = job.options[option];
        let work = MergeWork { bytes: option.bytes.0, stretches: option.stretches, merges: 1 };
        if option.grows { work.grown_by(job.due.growth.added_along(line, at / DAY)) } else { work }
    }

    /// What a job shares the volume with in a slot; `None` if it can't be done there.
    pub fn load(&self, job: usize, option: usize, slot: usize) -> Option<MergeLoad> {
        let job = &self.jobs[job];
        match self.slots[slot].occurrence.mode {
            _ if !job.due.running => Some(MergeLoad::Stopped),
            MergeMode::Stopped => Some(MergeLoad::Stopped),
            MergeMode::Live => job.options[option].live.then_some(MergeLoad::Live(job.due.guest)),
        }
    }

    /// How long the whole merge takes if it begins then.
    pub fn estimate(&self, job: usize, option: usize, at: f64, load: MergeLoad) -> Option<Estimate> {
        let learnt = self.learnt.as_ref()?;
        let at_line = |line| learnt.estimate(self.work_at(job, option, at, line), load);
        let middle = at_line(Line::P50);
        if !self.jobs[job].options[option].grows {
            return Some(middle);
        }
        Some(Estimate { p10: at_line(Line::P10).p10.min(middle.p50), p90: at_line(Line::P90).p90, ..middle })
    }

    /// The pace of a merge in a slot that allows no more than its limit.
    pub fn pace(&self, job: usize, option: usize, at: f64, load: MergeLoad, slot: Option<usize>) -> Option<Pace> {
        let estimate = self.estimate(job, option, at, load)?;
        let limit = slot.and_then(|slot| self.slots[slot].occurrence.limit);
        let bytes = |line| self.work_at(job, option, at, line).bytes as f64;
        let slowest = |line| limit.map_or(0.0, |limit| bytes(line) / limit.0.max(1.0));
        let (p50, p90) = (estimate.p50.max(slowest(Line::P50)), estimate.p90.max(slowest(Line::P90)));
        // A merge that is held back takes smaller steps.
        let batch = RateLimit::new(limit).budget(self.input.parameters.batch);
        let batch_share = (batch.0 as f64 / bytes(Line::P90).max(1.0)).min(1.0);
        Some(Pace { p50, p90, batch: p90 * batch_share, batch_share })
    }

    /// What can be done of a job in a slot from `cursor` on, at most `most` of it: `None` if that isn't worth a start.
    /// `is_down`: the machine was already shut down in this slot.
    pub fn piece(&self, job: usize, begun: Option<Begun>, option: usize, slot: usize, from: From, most: f64) -> Option<Piece> {
        let load = self.load(job, option, slot)?;
        let stops = self.stops(job, slot);
        let window = &self.slots[slot];
        let parameters = &self.input.parameters;
        let shutdown = if stops && !from.is_down { parameters.shutdown_seconds } else { 0.0 };
        let start = from.cursor.max(window.start) + shutdown;
        let begun = begun.unwrap_or(Begun { option, at: start, left: 1.0 });
        let pace = match self.jobs[job].ways[option][slot].pace {
            Some(pace) if !self.jobs[job].options[option].grows => pace,
            _ => self.pace(job, option, begun.at, load, Some(slot))?,
        };
        let last = window.end - pace.batch - if stops { parameters.start_seconds } else { 0.0 };
        let room = last - start;
        if room < 0.0 || self.scratch_at(job, option, begun.at) > self.free_at(start, from.gained) {
            return None;
        }
        let wanted = begun.left.min(most);
        let (share, p90_end) = match pace.p90 * wanted <= room {
            true => (wanted, start + pace.p90 * wanted),
            false => (room / pace.p90, last),
        };
        let ends = share >= begun.left;
        if !ends && share < pace.batch_share {
            return None;
        }
        // Expected: it may be done where it wasn't counted on.
        let p50_end = (start + pace.p50 * if most < begun.left { share } else { begun.left }).min(p90_end);
        Some(Piece { job, option, slot, start, p50_end, p90_end, last, share, ends, stops })
    }

    /// Whether the machine is shut down for a merge in a slot.
    pub fn stops(&self, job: usize, slot: usize) -> bool {
        self.jobs[job].due.running && self.slots[slot].occurrence.mode == MergeMode::Stopped
    }

    /// Share of a job that could be done at most from a time on, in this slot and later ones, were it alone.
    pub fn ahead(&self, job: usize, option: usize, slot: usize, cursor: f64) -> f64 {
        let Some(way) = self.jobs[job].ways[option].get(slot) else { return 0.0 };
        let later = self.jobs[job].ways[option].get(slot + 1).map_or(0.0, |way| way.ahead);
        self.share_in(job, slot, way.pace, cursor) + later
    }

    /// Share of a job that could be done in a slot from a time on, were it alone there.
    fn share_in(&self, job: usize, slot: usize, pace: Option<Pace>, from: f64) -> f64 {
        let Some(pace) = pace else { return 0.0 };
        let (parameters, window) = (&self.input.parameters, &self.slots[slot]);
        // Another merge may have shut the machine down.
        let down = if self.stops(job, slot) { parameters.start_seconds } else { 0.0 };
        let room = window.end - from.max(window.start) - pace.batch - down;
        if room < 0.0 { 0.0 } else { room / pace.p90.max(1e-9) }
    }
}

/// From where on there is time in a slot, and what was given back until then.
#[derive(Debug, Clone, Copy)]
pub(super) struct From {
    pub cursor: f64,
    pub gained: f64,
    /// The machine was already shut down in this slot.
    pub is_down: bool,
}
