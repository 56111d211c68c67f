//! Jobs get their steps here, and their ends are told.

use std::sync::Arc;
use std::time::Duration;

use super::entry::Entry;
use super::jobs::{BesideEnd, Context, Outcome, Report, Step};
use super::worker::Engine;
use super::{Answer, Event, JobKind, JobPhase, Place, Refusal};
use crate::snapshot::MachineId;
use crate::vm::Ended;

/// How often a running machine's screen is shown.
const LIVE_EVERY: Duration = Duration::from_millis(150);

/// At most one part in so many of the time goes into pictures.
const LIVE_SHARE: u32 = 4;

/// How often a running machine's leaves are counted anew.
const COUNT_EVERY: Duration = Duration::from_secs(3);

/// How often a job's progress is told.
const TELL_EVERY: Duration = Duration::from_millis(100);

impl Engine {
    /// One step of every job. Whether another one could follow at once.
    pub(super) fn step_jobs(&mut self) -> bool {
        let ids: Vec<_> = self.machines.iter().filter(|(_, entry)| entry.job.is_some()).map(|(id, _)| *id).collect();
        let mut busy = false;
        for id in ids {
            busy |= self.step_job(id);
        }
        busy
    }

    fn step_job(&mut self, id: MachineId) -> bool {
        let now = self.options.clock.elapsed();
        let Some(entry) = self.machines.get_mut(&id) else { return false };
        let Entry { job: Some(active), owned: Some(owned), sight, calibration, volume, .. } = entry else { return false };
        if active.is_paused() || now < active.not_before {
            return false;
        }
        let mut report =
            Report { title: active.state.title.clone(), done: active.state.done, total: active.state.total, latency: None };
        let step =
            active.job.step(&mut Context { options: &self.options, owned, sight, calibration, volume, report: &mut report });
        let now = self.options.clock.elapsed();
        active.state.title = report.title;
        // Progress never goes back, whatever a job reports.
        active.state.done = active.state.done.max(report.done);
        active.state.total = report.total.max(active.state.done);
        active.state.pausable = active.job.is_pausable();
        active.measure(now, report.latency);
        match step {
            Ok(Step::More) => {
                if now >= active.told + TELL_EVERY {
                    active.told = now;
                    let event = Event::Job(active.state.clone());
                    self.outbox.publish(&event);
                }
                true
            }
            Ok(Step::Wait(time)) => {
                active.not_before = now + time;
                let event = Event::Job(active.state.clone());
                self.outbox.publish(&event);
                false
            }
            Ok(Step::Done(answer, text)) => {
                self.end_job(id, JobPhase::Done(text), Ok(answer));
                true
            }
            Err(refusal) => {
                self.end_job(id, JobPhase::Failed(refusal.reason.clone()), Err(refusal));
                true
            }
        }
    }

    /// Lets the job under way wait, so that another one can begin.
    pub(super) fn suspend_job(&mut self, id: MachineId) -> Result<(), Refusal> {
        let Some(entry) = self.machines.get_mut(&id) else { return Ok(()) };
        let Entry { job: Some(active), owned: Some(owned), sight, calibration, volume, .. } = entry else { return Ok(()) };
        let mut report = Report::default();
        let mut context = Context { options: &self.options, owned, sight, calibration, volume, report: &mut report };
        match active.job.suspend(&mut context) {
            Ok(true) => {
                entry.waiting = entry.job.take();
                Ok(())
            }
            Ok(false) => Err(Refusal::rule("the machine is busy; wait for its job, or cancel it")),
            Err(refusal) => {
                self.end_job(id, JobPhase::Failed(refusal.reason.clone()), Err(refusal));
                Ok(())
            }
        }
    }

    /// What waited goes on, unless this process owns the machine no longer.
    pub(super) fn resume_job(&mut self, id: MachineId) {
        let now = self.options.clock.elapsed();
        let Some(entry) = self.machines.get_mut(&id) else { return };
        let Some(mut active) = entry.waiting.take() else { return };
        let stopped = self.only.is_some() && entry.owned.is_none();
        active.skip_to(now);
        entry.job = Some(active);
        if stopped {
            self.cancel_job(id);
        } else if let Err(refusal) = self.own(id) {
            self.end_job(id, JobPhase::Failed(refusal.reason.clone()), Err(refusal));
        }
    }

    /// A job has ended: the machine's new state is told first, then the job's end, then the answer.
    fn end_job(&mut self, id: MachineId, phase: JobPhase, answer: Result<Answer, Refusal>) {
        let Some(entry) = self.machines.get_mut(&id) else { return };
        let Some(mut active) = entry.job.take() else { return };
        if let Some(owned) = &entry.owned {
            let replaces_now = matches!(active.state.kind, JobKind::Apply | JobKind::UndoApply);
            if replaces_now && matches!(phase, JobPhase::Done(_)) {
                // How the last one ended says nothing about this one.
                entry.failed = None;
                owned.store.note_end(None);
            }
            let machine = owned.store.machine().clone();
            let running = owned.running.is_some();
            if !running {
                // Nobody needs the lock; whoever comes next takes it.
                entry.owned = None;
            }
            entry.sight.forget_layouts();
            entry.refresh(machine);
        }
        let (dir, place) = (entry.dir.clone(), entry.place.clone());
        let machine = (*entry.machine).clone();
        self.take_in(&dir, place, machine);
        if active.state.kind == super::JobKind::Merge {
            self.calibrate(id);
        }
        self.publish_changes();
        active.state.phase = phase;
        active.state.left = None;
        self.outbox.publish(&Event::Job(active.state));
        self.outbox.answer(active.from, answer);
        self.resume_job(id);
    }

    /// Ends a machine's job between two steps.
    pub(super) fn cancel_job(&mut self, id: MachineId) {
        let Some(entry) = self.machines.get_mut(&id) else { return };
        let Entry { job: Some(active), owned, sight, calibration, volume, .. } = entry else { return };
        let mut report = Report::default();
        let kept = match owned {
            Some(owned) => {
                let mut context = Context { options: &self.options, owned, sight, calibration, volume, report: &mut report };
                active.job.cancel(&mut context)
            }
            None => Ok("the machine was stopped; what was done stays done".into()),
        };
        let (phase, refusal) = match kept {
            Ok(kept) => (JobPhase::Cancelled(kept.clone()), Refusal::failed(format!("cancelled: {kept}"))),
            Err(refusal) => (JobPhase::Failed(refusal.reason.clone()), refusal),
        };
        self.end_job(id, phase, Err(refusal));
    }

    pub(super) fn cancel_jobs(&mut self) {
        let ids: Vec<_> = self.machines.iter().filter(|(_, entry)| entry.job.is_some()).map(|(id, _)| *id).collect();
        for id in ids {
            self.cancel_job(id);
        }
        for job in &mut self.beside {
            let _ = job.steer(super::JobAction::Cancel);
        }
        self.beside.clear();
    }

    /// What works on threads of their own tells is passed on.
    pub(super) fn step_beside(&mut self) -> bool {
        let now = self.options.clock.elapsed();
        let mut ended = Vec::new();
        for (index, job) in self.beside.iter_mut().enumerate() {
            match job.poll(now) {
                None => {}
                Some(BesideEnd::Progress(state)) => self.outbox.publish(&Event::Job(*state)),
                Some(end) => ended.push((index, end)),
            }
        }
        for (index, end) in ended.into_iter().rev() {
            let job = self.beside.remove(index);
            if let BesideEnd::Ended(state, from, result) = end {
                let answer = result.map(|outcome| match outcome {
                    Outcome::Imported(dir, machine) => {
                        let id = machine.id;
                        self.take_in(&dir, Place::Library, *machine);
                        self.library_changed = true;
                        Answer::Created(id)
                    }
                    Outcome::Done(text) => Answer::Done(text),
                    Outcome::Planned(plan) => Answer::Plan(plan),
                    Outcome::Inspected(seen) => Answer::Inspected(seen),
                    Outcome::Diagnosed(found) => Answer::Diagnosed(found),
                    Outcome::RepairPlanned(view) => Answer::RepairPlanned(view),
                });
                self.publish_changes();
                if let Some(state) = state {
                    self.outbox.publish(&Event::Job(*state));
                }
                self.outbox.answer(from, answer);
            }
            drop(job);
        }
        false
    }

    /// Shows the screens of machines that run here; returns how long until the next picture.
    pub(super) fn step_live(&mut self) -> Duration {
        let now = self.options.clock.elapsed();
        let mut wait = if self.beside.is_empty() { Duration::from_secs(1) } else { TELL_EVERY };
        if let Some(starting) = self.starting_wait() {
            self.watch_starting();
            wait = wait.min(starting);
        }
        let (mut events, mut ended) = (Vec::new(), Vec::new());
        for (id, entry) in &mut self.machines {
            if let Some(active) = &entry.job
                && !active.is_paused()
            {
                wait = wait.min(active.not_before.saturating_sub(now));
            }
            let Some(running) = entry.owned.as_mut().and_then(|owned| owned.running.as_mut()) else { continue };
            let due = (entry.last_live + LIVE_EVERY).saturating_sub(now);
            if !due.is_zero() {
                wait = wait.min(due);
                continue;
            }
            entry.last_live = now;
            wait = wait.min(LIVE_EVERY);
            if let Some(how) = running.guest.ended() {
                ended.push((*id, how));
                continue;
            }
            if self.outbox.is_heard() {
                let screen = Arc::new(running.guest.frame().encode());
                events.push(Event::Live { machine: *id, screen, counters: running.guest.counters() });
                // Where a picture takes long, most of the time is left to everything else.
                let cost = self.options.clock.elapsed().saturating_sub(now);
                entry.last_live = now + cost * LIVE_SHARE;
            }
            let problem = running.guest.problem();
            if problem != entry.failed {
                if problem.is_some() {
                    running.guest.pause();
                    running.paused = true;
                }
                entry.problems = problem.iter().cloned().collect();
                entry.failed = problem;
                entry.changed = true;
            }
            running.measure(now);
            if now >= entry.last_count + COUNT_EVERY && entry.job.is_none() {
                entry.last_count = now;
                let leaves: Vec<_> = entry.machine.now.images.values().copied().collect();
                entry.sight.look_again_at(&entry.machine, leaves);
            }
        }
        for event in events {
            self.outbox.publish(&event);
        }
        for (id, how) in ended {
            self.guest_ended(id, how);
        }
        wait
    }

    /// The machine has ended by itself: it is off.
    fn guest_ended(&mut self, id: MachineId, how: Ended) {
        let job = |engine: &Self| engine.machines.get(&id).and_then(|entry| Some(entry.job.as_ref()?.state.kind));
        if job(self) == Some(JobKind::Stop) {
            // That is what it waits for.
            return;
        }
        // When one has ended, the one that waits for it goes on.
        while job(self).is_some() {
            self.cancel_job(id);
        }
        let Some(entry) = self.machines.get_mut(&id) else { return };
        let Some(mut owned) = entry.owned.take() else { return };
        let stopped = owned.stop();
        if let Ended::Failed(why) = &how {
            // Whoever asks later has not been told.
            owned.store.note_end(Some(why));
        }
        let machine = owned.store.machine().clone();
        drop(owned);
        entry.refresh(machine);
        entry.failed = match (how, stopped) {
            (_, Err(refusal)) => Some(refusal.reason),
            (Ended::Failed(why), Ok(())) => Some(why),
            (Ended::ShutDown, Ok(())) => None,
        };
        self.publish_changes();
    }

    /// Whether a machine runs, here or elsewhere.
    pub fn is_running(&self, id: MachineId) -> bool {
        self.machines.get(&id).is_some_and(|entry| entry.state().power.is_up())
    }
}
