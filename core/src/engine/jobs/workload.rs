//! Running and verifying the built-in machine.

use std::sync::Arc;
use std::time::Duration;

use super::{Context, Job, Step};
use crate::chain::BlockDevice;
use crate::engine::{Answer, Refusal};
use crate::host_file::Access;
use crate::memory::{self, GuestMemory};
use crate::snapshot::SnapshotId;
use crate::units::ByteCount;
use crate::vm::workload::{Verifier, Workload};
use crate::vm::{Setup, VerifyReport};

use super::super::running::in_order;

/// Work of a stopped machine done in one step.
const SLICE: Duration = Duration::from_millis(100);

const RUNNING: &str = "Running the workload";

/// How often is looked whether there is room again.
const ROOM_AGAIN: Duration = Duration::from_millis(500);

/// Bytes verified in one step.
const STEP: ByteCount = ByteCount::mib(32);

pub(super) struct BadUpdate;

impl Job for BadUpdate {
    fn step(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        let running = context.owned.running.as_ref().ok_or_else(|| Refusal::rule("the machine doesn't run; start it first"))?;
        running.guest.bad_update().map_err(|error| Refusal::failed(error.to_string()))?;
        let text = "a bad update has scrambled its memory and its disk";
        Ok(Step::Done(Answer::Done(text.into()), text.into()))
    }
}

/// A stopped machine runs for a while, on the worker's thread.
pub(super) struct Run {
    time: Duration,
    seed: Option<u64>,
    done: Duration,
    at_work: Option<AtWork>,
}

struct AtWork {
    workload: Workload,
    disks: Vec<Arc<dyn BlockDevice>>,
}

impl Run {
    pub fn new(time: Duration, seed: Option<u64>) -> Self {
        Self { time, seed, done: Duration::ZERO, at_work: None }
    }

    fn begin(&self, context: &mut Context<'_>) -> Result<AtWork, Refusal> {
        let owned = &mut *context.owned;
        if owned.running.is_some() {
            return Err(Refusal::rule("the machine runs already; stop it first"));
        }
        let disks = owned.open_disks(Access::Write)?;
        let machine = owned.store.machine();
        let mut configuration = machine.configuration.clone();
        if let Some(seed) = self.seed {
            configuration.workload.seed = seed;
        }
        let saved_memory =
            machine.now.memory.as_ref().map(|memory| context.options.host.open(&owned.store.path(&memory.file), Access::Read));
        let saved_memory = saved_memory.transpose().map_err(|error| Refusal::failed(format!("the saved memory: {error}")))?;
        let setup = Setup { configuration, disks: in_order(machine, &disks), saved_memory, clock: context.options.clock.clone() };
        let workload = Workload::new(&setup).map_err(|error| Refusal::failed(error.to_string()))?;
        // From its first write on the disks are further than the saved memory, also if this process is killed.
        owned.store.clear_memory()?;
        Ok(AtWork { workload, disks: setup.disks })
    }

    /// Flushes the disks; memory is given up as when power is cut.
    fn end(&mut self) -> Result<String, Refusal> {
        let Some(AtWork { workload, disks }) = self.at_work.take() else { return Ok("it did not run".into()) };
        for disk in &disks {
            disk.flush()?;
        }
        let (counters, wrong) = (workload.counters(), workload.wrong());
        drop((workload, disks));
        match wrong.first() {
            Some(first) => Err(Refusal::failed(format!("it read back something wrong: {first}"))),
            None => Ok(format!("it ran: {} disk writes; {} read back and right", counters.disk_writes, counters.verified)),
        }
    }
}

impl Job for Run {
    fn step(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        let Some(AtWork { workload, .. }) = &self.at_work else {
            context.report.title = RUNNING.into();
            self.at_work = Some(self.begin(context)?);
            return Ok(Step::More);
        };
        if self.done < self.time {
            let slice = SLICE.min(self.time - self.done);
            let settings = &context.owned.store.machine().settings;
            let free = context.options.host.free_bytes(context.owned.store.dir());
            let short = free.is_ok_and(|free| free < settings.pause_free);
            let ran = if short { Ok(false) } else { workload.run_for(slice).map(|()| true) };
            return match ran {
                Ok(true) => {
                    context.report.title = RUNNING.into();
                    self.done += slice;
                    Ok(Step::More)
                }
                Err(error) if !error.is_full() => Err(Refusal::failed(error.to_string())),
                // As a machine that runs, it stands still until there is room, and does the same again.
                Ok(false) | Err(_) => {
                    context.report.title = "Waiting for room on the volume".into();
                    Ok(Step::Wait(ROOM_AGAIN))
                }
            };
        }
        let text = self.end()?;
        Ok(Step::Done(Answer::Done(text.clone()), text))
    }

    fn is_pausable(&self) -> bool {
        true
    }

    fn cancel(&mut self, _: &mut Context<'_>) -> Result<String, Refusal> {
        self.end()
    }
}

/// Reads every byte of a node and compares.
pub(super) struct Verify {
    at: Option<SnapshotId>,
    verifier: Option<Verifier>,
    resume: bool,
}

impl Verify {
    pub fn new(at: Option<SnapshotId>) -> Self {
        Self { at, verifier: None, resume: false }
    }

    fn begin(&mut self, context: &mut Context<'_>) -> Result<Verifier, Refusal> {
        let owned = &mut *context.owned;
        let machine = owned.store.machine();
        let (images, saved) = match self.at {
            None => (&machine.now.images, &machine.now.memory),
            Some(id) => {
                let snapshot = machine.snapshots.get(&id).ok_or_else(|| Refusal::rule("there is no such snapshot"))?;
                (&snapshot.images, &snapshot.memory)
            }
        };
        let memory = match saved {
            None => None,
            Some(saved) => Some(load(context.options, &owned.store.path(&saved.file))?),
        };
        let disks = match (&mut owned.running, self.at) {
            // A machine that runs is held still while it is read, so that everything is of one instant.
            (Some(running), None) => {
                self.resume = true;
                running.guest.pause();
                running.disks.clone()
            }
            _ => owned.open_images(images, Access::Look)?,
        };
        let disks = in_order(owned.store.machine(), &disks);
        Verifier::new(disks, memory).map_err(|error| Refusal::failed(error.to_string()))
    }

    fn go_on(&mut self, context: &mut Context<'_>) {
        if std::mem::take(&mut self.resume)
            && let Some(running) = context.owned.running.as_ref().filter(|running| !running.stands_still())
        {
            running.guest.resume();
        }
    }
}

fn load(options: &crate::engine::EngineOptions, path: &std::path::Path) -> Result<Arc<GuestMemory>, Refusal> {
    let file = options.host.open(path, Access::Look).map_err(|error| Refusal::failed(format!("{}: {error}", path.display())))?;
    Ok(Arc::new(memory::restore(&*file)?))
}

impl Job for Verify {
    fn step(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        let Some(verifier) = &mut self.verifier else {
            context.report.title = "Verifying every byte".into();
            let begun = self.begin(context);
            if begun.is_err() {
                self.go_on(context);
            }
            self.verifier = Some(begun?);
            return Ok(Step::More);
        };
        let stepped = verifier.step(STEP);
        let (done, total) = match stepped {
            Ok(progress) => progress,
            Err(error) => {
                self.go_on(context);
                return Err(Refusal::failed(error.to_string()));
            }
        };
        (context.report.done, context.report.total) = (done, total);
        if done < total {
            return Ok(Step::More);
        }
        let report: VerifyReport = verifier.report();
        self.go_on(context);
        let text = match report.wrong.first() {
            None => format!("every byte is right: {} of disk, {} of memory", report.disk, report.memory),
            Some(first) => format!("something is wrong: {first}"),
        };
        Ok(Step::Done(Answer::Verified(report), text))
    }

    fn is_pausable(&self) -> bool {
        self.verifier.is_some()
    }

    fn cancel(&mut self, context: &mut Context<'_>) -> Result<String, Refusal> {
        self.go_on(context);
        Ok("not everything was read".into())
    }
}
