//! Taking a snapshot (design.md 2.1): prepare, a pause that holds only the switch, then memory in the background.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Context, Job, Step};
use crate::engine::{Answer, LatencyReport, Refusal};
use crate::host_file::publish_file;
use crate::store::Prepared;
use crate::units::ByteCount;
use crate::vm::{Frame, MemorySave};

/// Memory saved in one step: small enough that a request waits for it only briefly.
const STEP: ByteCount = ByteCount::mib(16);
/// How often is looked whether there is room again.
const ROOM_AGAIN: Duration = Duration::from_millis(500);

pub(super) struct Take {
    label: String,
    note: String,
    memory: bool,
    stage: Stage,
}

enum Stage {
    Begin,
    /// The machine has gone on; what the pause held is being written.
    Switched(Box<Switched>),
    Ended,
}

struct Switched {
    prepared: Prepared,
    save: Option<Box<dyn MemorySave>>,
    frame: Frame,
    taken: DateTime<Utc>,
    pause: Duration,
    flushed: bool,
    memory_error: Option<String>,
}

impl Take {
    pub fn new(label: String, note: String, memory: bool) -> Self {
        Self { label, note, memory, stage: Stage::Begin }
    }

    /// A stopped machine: its leaves are frozen as they are.
    fn take_stopped(&self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        let taken = context.options.clock.now();
        let store = &mut context.owned.store;
        let prepared = store.prepare_take(&self.label, &self.note, &Default::default(), ByteCount::ZERO)?;
        let snapshot = match store.publish_take(&prepared, None, false, taken) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                store.abandon_take(prepared, false)?;
                return Err(error.into());
            }
        };
        Ok(Step::Done(Answer::Taken { snapshot, latency: None }, format!("{} was taken, disks only", self.label)))
    }

    fn switch(&self, context: &mut Context<'_>) -> Result<Switched, Refusal> {
        let owned = &mut *context.owned;
        let Some(running) = &owned.running else { return Err(Refusal::failed("the machine has stopped")) };
        let memory = owned.store.machine().configuration.memory;
        let wanted = if self.memory { memory } else { ByteCount::ZERO };
        let prepared = owned.store.prepare_take(&self.label, &self.note, &running.leaves(), wanted)?;
        let switched = (|| {
            let file = match self.memory {
                true => Some(
                    context
                        .options
                        .host
                        .create_new(&prepared.memory_path)
                        .map_err(|error| Refusal::failed(format!("{}: {error}", prepared.memory_path.display())))?,
                ),
                false => None,
            };
            // What is flushed before the pause needn't be flushed after it.
            for chain in running.disks.values() {
                chain.flush()?;
            }
            if self.memory {
                running.guest.ready_capture()?;
            }
            let slow = running.guest.frame_is_slow();
            let before = slow.then(|| running.guest.frame());
            let clock = &context.options.clock;
            let taken = clock.now();
            let began = clock.elapsed();
            let known = running.guest.problem();
            running.guest.pause();
            let result = (|| {
                // A machine that may not stand still has no instant.
                if let Some(problem) = running.guest.problem().filter(|problem| known.as_ref() != Some(problem)) {
                    return Err(Refusal::failed(problem));
                }
                for (disk, leaf) in &prepared.leaves {
                    if let Some(chain) = running.disks.get(disk) {
                        chain.push_leaf(leaf.new.clone())?;
                    }
                }
                let save = file.map(|file| running.guest.begin_capture(file, prepared.snapshot.0)).transpose();
                Ok::<_, Refusal>((save, before.unwrap_or_else(|| running.guest.frame())))
            })();
            if !running.stands_still() {
                running.guest.resume();
            }
            let pause = clock.elapsed() - began;
            let (save, frame) = result?;
            let (save, memory_error) = match save {
                Ok(save) => (save, None),
                Err(error) => (None, Some(error.to_string())),
            };
            Ok::<_, Refusal>((save, frame, taken, pause, memory_error))
        })();
        match switched {
            Ok((save, frame, taken, pause, memory_error)) => {
                Ok(Switched { prepared, save, frame, taken, pause, flushed: false, memory_error })
            }
            Err(error) => {
                // Whether every disk has switched decides which images the machine goes on with.
                let leaves = owned.running.as_ref().map(|running| running.leaves()).unwrap_or_default();
                let switched =
                    prepared.leaves.iter().any(|(disk, leaf)| leaves.get(disk).is_some_and(|now| now.path() == leaf.new.path()));
                owned.store.abandon_take(prepared, switched)?;
                Err(error)
            }
        }
    }

    fn publish(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        let Stage::Switched(switched) = &mut self.stage else {
            return Err(Refusal::failed("the snapshot has ended already"));
        };
        let Switched { prepared, save, frame, taken, pause, memory_error, .. } = &mut **switched;
        let host = &*context.options.host;
        let report = save.as_ref().map(|save| save.report()).unwrap_or_default();
        if memory_error.is_some() && host.exists(&prepared.memory_path) {
            // What was saved of it is of no use, and takes room.
            let removed = host.remove_file(&prepared.memory_path);
            removed.map_err(|error| Refusal::failed(format!("{}: {error}", prepared.memory_path.display())))?;
        }
        let screen = publish_file(host, &prepared.screen_path, &frame.encode().png).is_ok();
        let memory = (self.memory && memory_error.is_none()).then_some(report.file);
        let snapshot = match context.owned.store.publish_take(prepared, memory, screen, *taken) {
            Ok(snapshot) => snapshot,
            Err(error) if error.is_full() => return Ok(wait_for_room(context)),
            Err(error) => {
                self.give_up(context)?;
                return Err(error.into());
            }
        };
        let latency = LatencyReport {
            pause: *pause,
            save: report.elapsed,
            intercepted_writes: report.intercepted_writes,
            longest_stall: report.longest_stall,
            memory: report.memory,
        };
        context.report.latency = Some(latency);
        let label = &self.label;
        let text = match memory_error {
            Some(error) => format!("{label} was taken with its disks only: its memory could not be saved ({error})"),
            None if self.memory => format!("{label} was taken with its memory; the machine stood still for {pause:.1?}"),
            None => format!("{label} was taken, disks only; the machine stood still for {pause:.1?}"),
        };
        self.stage = Stage::Ended;
        Ok(Step::Done(Answer::Taken { snapshot, latency: Some(latency) }, text))
    }

    /// No snapshot is kept; the machine goes on in the new leaves.
    fn give_up(&mut self, context: &mut Context<'_>) -> Result<(), Refusal> {
        if let Stage::Switched(switched) = std::mem::replace(&mut self.stage, Stage::Ended) {
            let Switched { prepared, save, .. } = *switched;
            drop(save);
            context.owned.store.abandon_take(prepared, true)?;
        }
        Ok(())
    }
}

/// The machine has gone on in the new leaves, and the rest finds no room: it is done when there is some.
fn wait_for_room(context: &mut Context<'_>) -> Step {
    context.report.title = "Waiting for room on the volume".into();
    Step::Wait(ROOM_AGAIN)
}

impl Job for Take {
    fn step(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        match &mut self.stage {
            Stage::Begin if context.owned.running.is_none() => self.take_stopped(context),
            Stage::Begin => {
                context.report.title = format!("Taking {}", self.label);
                let switched = self.switch(context)?;
                self.stage = Stage::Switched(Box::new(switched));
                Ok(Step::More)
            }
            Stage::Switched(switched) if !switched.flushed => {
                // Until the old leaves are durable, a guest's flush covers both; so this comes first.
                let flushed = switched.prepared.leaves.values().try_for_each(|leaf| leaf.old.flush());
                switched.flushed = flushed.is_ok();
                match flushed {
                    Ok(()) => Ok(Step::More),
                    Err(error) if error.is_full() => Ok(wait_for_room(context)),
                    Err(error) => {
                        self.give_up(context)?;
                        Err(error.into())
                    }
                }
            }
            Stage::Switched(switched) => {
                if let Some(save) = &mut switched.save {
                    match save.step(STEP) {
                        Ok(progress) => {
                            context.report.title = format!("Saving memory of {}", self.label);
                            (context.report.done, context.report.total) = (progress.done, progress.total);
                            if !progress.finished {
                                return Ok(Step::More);
                            }
                        }
                        Err(error) => {
                            switched.memory_error = Some(error.to_string());
                            switched.save = None;
                        }
                    }
                }
                self.publish(context)
            }
            Stage::Ended => Err(Refusal::failed("the snapshot has ended already")),
        }
    }

    fn is_pausable(&self) -> bool {
        // Guest writes may wait for the saver: it is never paused, only cancelled.
        false
    }

    fn cancel(&mut self, context: &mut Context<'_>) -> Result<String, Refusal> {
        self.give_up(context)?;
        Ok("no snapshot was kept; the machine goes on".into())
    }
}
