//! The built-in machine on its own threads, and the gate at which they stand still.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use uuid::Uuid;

use super::super::{Frame, Guest, MemorySave, Result, Setup, VmError, WorkloadCounters};
use super::{Pace, WORKERS, Workload};
use crate::host_file::HostFile;
use crate::locks::lock;
use crate::memory::Capture;

/// How often the machine flushes its disks.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// A worker that is further behind than this doesn't try to catch up.
const MOST_BEHIND: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct GateState {
    paused: bool,
    stopped: bool,
    /// It stands still because the volume was found full.
    full: bool,
    /// Workers that may be in the middle of a tick.
    inside: u32,
    problem: Option<String>,
}

/// Where workers wait while the machine stands still. They look at one flag between two ticks.
#[derive(Debug, Default)]
struct Gate {
    closed: AtomicBool,
    /// How often the machine was resumed.
    resumes: AtomicU64,
    state: Mutex<GateState>,
    changed: Condvar,
}

/// A worker between the gate and its leaving.
struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.inside -= 1;
        if state.inside == 0 {
            self.0.changed.notify_all();
        }
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        lock(&self.state)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, GateState>,
        condition: impl FnMut(&mut GateState) -> bool,
    ) -> MutexGuard<'a, GateState> {
        self.changed.wait_while(state, condition).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the machine stands still; `None` once it is stopped.
    fn enter(&self) -> Option<Inside<'_>> {
        let mut state = self.wait(self.lock(), |state| state.paused && !state.stopped);
        if state.stopped {
            return None;
        }
        state.inside += 1;
        Some(Inside(self))
    }

    /// Enters if the machine runs.
    fn enter_now(&self) -> Option<Inside<'_>> {
        let mut state = self.lock();
        if state.paused || state.stopped {
            return None;
        }
        state.inside += 1;
        Some(Inside(self))
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Sleeps; shorter when the machine stops or is about to stand still.
    fn sleep(&self, time: Duration) {
        let sleeping = |state: &mut GateState| !state.paused && !state.stopped;
        drop(self.changed.wait_timeout_while(self.lock(), time, sleeping));
    }

    fn change(&self, change: impl FnOnce(&mut GateState)) -> MutexGuard<'_, GateState> {
        let mut state = self.lock();
        change(&mut state);
        self.closed.store(state.paused || state.stopped, Ordering::Release);
        self.changed.notify_all();
        state
    }

    /// The volume was found full by what began when the machine had been resumed `then` times: it stands still until
    /// it is resumed. If it was resumed since, what failed is tried again first.
    fn stall(&self, then: u64) {
        drop(self.change(|state| {
            if self.resumes() == then {
                (state.paused, state.full) = (true, true);
            }
        }));
    }

    fn resume(&self) {
        drop(self.change(|state| {
            self.resumes.fetch_add(1, Ordering::AcqRel);
            (state.paused, state.full) = (false, false);
        }));
    }

    fn resumes(&self) -> u64 {
        self.resumes.load(Ordering::Acquire)
    }

    /// Something failed: the machine stands still for good.
    fn fail(&self, problem: String) {
        drop(self.change(|state| {
            state.stopped = true;
            state.problem.get_or_insert(problem);
        }));
    }
}

/// The machine running on its own threads.
#[derive(Debug)]
pub struct Running {
    pub(super) machine: Arc<Workload>,
    gate: Arc<Gate>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Running {
    /// Starts it.
    pub fn start(setup: Setup) -> Result<Self> {
        let machine = Arc::new(Workload::new(&setup)?);
        let running = Self { machine, gate: Arc::default(), threads: Mutex::default() };
        for worker in (0..WORKERS).filter(|worker| running.machine.pace(*worker) != Pace::Still) {
            running.spawn(format!("guest-{worker}"), move |machine, gate| work(machine, gate, worker))?;
        }
        running.spawn("guest-flush".into(), flush)?;
        Ok(running)
    }

    fn spawn(&self, name: String, body: impl FnOnce(&Workload, &Gate) -> Result<()> + Send + 'static) -> Result<()> {
        let (machine, gate) = (self.machine.clone(), self.gate.clone());
        let thread = Builder::new().name(name).spawn(move || {
            if let Err(error) = body(&machine, &gate) {
                gate.fail(error.to_string());
            }
        });
        let thread = thread.map_err(|error| VmError::Refused(format!("a thread of the machine can't be started: {error}")))?;
        lock(&self.threads).push(thread);
        Ok(())
    }

    /// What it read and found wrong, in words (the first few).
    pub fn wrong(&self) -> Vec<String> {
        self.machine.wrong()
    }

    fn end(&self) {
        drop(self.gate.change(|state| state.stopped = true));
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                self.gate.fail("a thread of the machine has panicked".into());
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A worker's life: ticks at its pace, until the machine is stopped.
fn work(machine: &Workload, gate: &Gate, worker: usize) -> Result<()> {
    let pace = machine.pace(worker);
    while let Some(inside) = gate.enter() {
        let mut began = machine.clock.elapsed();
        let mut ticks = 0u32;
        let mut inside = Some(inside);
        while !gate.is_closed() {
            if let Pace::PerSecond(rate) = pace {
                let due = began + Duration::from_secs_f64(f64::from(ticks) / rate);
                let now = machine.clock.elapsed();
                if now < due {
                    drop(inside.take());
                    gate.sleep(due - now);
                    inside = gate.enter_now();
                    continue;
                }
                if now - due > MOST_BEHIND {
                    (began, ticks) = (now, 0);
                }
            }
            if inside.is_none() {
                break;
            }
            let resumes = gate.resumes();
            match machine.tick(worker) {
                Ok(()) => ticks = ticks.wrapping_add(1),
                // Nothing of the tick counts: it is done again.
                Err(error) if error.is_full() => gate.stall(resumes),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Flushes the disks now and then. A flush changes nothing that the guest can see, so nobody waits for it to pause.
fn flush(machine: &Workload, gate: &Gate) -> Result<()> {
    loop {
        let state = gate.wait(gate.lock(), |state| state.paused && !state.stopped);
        if state.stopped {
            return Ok(());
        }
        drop(state);
        gate.sleep(FLUSH_EVERY);
        let resumes = gate.resumes();
        if !gate.is_closed() {
            match machine.flush() {
                Err(error) if error.is_full() => gate.stall(resumes),
                flushed => flushed?,
            }
        }
    }
}

impl Guest for Running {
    fn pause(&self) {
        let state = self.gate.change(|state| state.paused = true);
        drop(self.gate.wait(state, |state| state.paused && state.inside > 0));
    }

    fn resume(&self) {
        self.gate.resume();
    }

    fn met_full(&self) -> bool {
        self.gate.lock().full
    }

    fn stop(&self) -> Result<()> {
        self.end();
        self.machine.flush()
    }

    fn begin_capture(&self, file: Arc<dyn HostFile>, id: Uuid) -> Result<Box<dyn MemorySave>> {
        let state = self.gate.lock();
        if !(state.paused || state.stopped) || state.inside > 0 {
            return Err(VmError::Refused("memory can be saved only while the machine stands still".into()));
        }
        Ok(Box::new(Capture::begin(&self.machine.memory, file, id, self.machine.clock.clone())?))
    }

    fn frame(&self) -> Frame {
        self.machine.frame()
    }

    fn counters(&self) -> WorkloadCounters {
        self.machine.counters()
    }

    fn problem(&self) -> Option<String> {
        self.gate.lock().problem.clone()
    }

    fn bad_update(&self) -> Result<()> {
        let Some(_inside) = self.gate.enter_now() else {
            return Err(VmError::Refused("the machine stands still; resume it first".into()));
        };
        self.machine.bad_update()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_found_no_room_before_a_resume_does_not_close_the_gate_after_it() {
        let gate = Gate::default();
        let (one, other) = (gate.resumes(), gate.resumes());
        gate.stall(one);
        assert!(gate.is_closed() && gate.lock().full);
        gate.resume();
        gate.stall(other);
        assert!(!gate.is_closed() && !gate.lock().full, "it is tried again first");
        gate.stall(gate.resumes());
        assert!(gate.is_closed() && gate.lock().full);
    }
}
