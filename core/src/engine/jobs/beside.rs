//! What works on a thread of its own, since one file may be terabytes: bringing images in, converting them, looking into them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::chain::Inspection;
use crate::clock::SharedClock;
use crate::diagnose::Diagnosis;
use crate::engine::admission::job_state;
use crate::engine::entry::Active;
use crate::engine::worker::SubscriberId;
use crate::engine::{Answer, JobAction, JobKind, JobPhase, JobState, Plan, Refusal, RepairView, RequestId};
use crate::snapshot::{Machine, MachineId};
use crate::units::ByteCount;

use super::{Context, Job, Step};

/// What the thread and the worker share.
#[derive(Debug, Default)]
struct Shared {
    done: AtomicU64,
    total: AtomicU64,
    paused: AtomicBool,
    cancelled: AtomicBool,
}

/// What the thread is told, and tells.
pub(super) struct Control(Arc<Shared>);

/// What the thread has come to.
pub(in crate::engine) enum Outcome {
    /// A machine is in the library, there.
    Imported(PathBuf, Box<Machine>),
    /// A sentence says it.
    Done(String),
    /// What would be done.
    Planned(Box<Plan>),
    /// What was seen.
    Inspected(Box<Inspection>),
    /// What was found in a folder.
    Diagnosed(Box<Diagnosis>),
    /// What a repair would do.
    RepairPlanned(Box<RepairView>),
}

type Ended = Result<Outcome, Refusal>;

/// A thread's job.
pub(in crate::engine) struct Beside {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Ended>>,
    active: Active,
    /// What is said when it is asked to end.
    kept: &'static str,
    /// Whether its progress is told to everybody.
    is_told: bool,
    told: Duration,
}

/// What it has come to.
pub(in crate::engine) enum BesideEnd {
    Progress(Box<JobState>),
    Ended(Option<Box<JobState>>, (SubscriberId, RequestId), Box<Ended>),
}

/// The work is the thread's: there is nothing to step.
struct OnThread;

impl Job for OnThread {
    fn step(&mut self, _context: &mut Context<'_>) -> Result<Step, Refusal> {
        Ok(Step::More)
    }
}

impl Control {
    /// Tells how far it is, and waits while it shall wait; `false` where it shall end.
    pub fn go_on(&self, done: ByteCount, total: ByteCount) -> bool {
        self.0.done.store(done.0, Ordering::Relaxed);
        self.0.total.store(total.0, Ordering::Relaxed);
        while self.0.paused.load(Ordering::Relaxed) && !self.0.cancelled.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
        !self.0.cancelled.load(Ordering::Relaxed)
    }
}

impl Beside {
    pub(super) fn start(
        (kind, title): (JobKind, String),
        kept: &'static str,
        from: (SubscriberId, RequestId),
        clock: &SharedClock,
        work: impl FnOnce(&Control) -> Ended + Send + 'static,
    ) -> Result<Self, Refusal> {
        let mut state = job_state(MachineId::new(), kind, true);
        state.title = title;
        let shared = Arc::new(Shared::default());
        let control = Control(shared.clone());
        let thread = thread::Builder::new().name("beside".into()).spawn(move || work(&control));
        let thread = thread.map_err(|error| Refusal::failed(format!("a thread for it could not be started: {error}")))?;
        let active = Active::new(Box::new(OnThread), state, from, clock.elapsed());
        Ok(Self { shared, thread: Some(thread), active, kept, is_told: true, told: Duration::ZERO })
    }

    /// The same without being a job that people see: it only looks.
    pub(super) fn quietly(mut self) -> Self {
        self.is_told = false;
        self
    }

    /// The same where it can't be stopped in between.
    pub(super) fn unstoppable(mut self) -> Self {
        self.active.state.pausable = false;
        self
    }

    /// The name under which it is paused and cancelled.
    pub fn machine(&self) -> MachineId {
        self.active.state.machine
    }

    pub fn steer(&mut self, action: JobAction) -> Result<Answer, Refusal> {
        if !self.active.state.pausable {
            return Err(Refusal::rule("this job can't be stopped in between; it ends by itself"));
        }
        let (phase, text) = match action {
            JobAction::Pause => (JobPhase::Paused, "it waits".into()),
            JobAction::Resume => (JobPhase::Running, "it goes on".into()),
            JobAction::Cancel => (JobPhase::Running, format!("it will be cancelled; {}", self.kept)),
        };
        self.shared.paused.store(phase == JobPhase::Paused, Ordering::Relaxed);
        if action == JobAction::Cancel {
            self.shared.cancelled.store(true, Ordering::Relaxed);
        }
        self.active.state.phase = phase;
        Ok(Answer::Done(text))
    }

    /// What has come of it since the last call, if it is worth telling.
    pub fn poll(&mut self, now: Duration) -> Option<BesideEnd> {
        let state = &mut self.active.state;
        state.done = ByteCount(self.shared.done.load(Ordering::Relaxed));
        state.total = ByteCount(self.shared.total.load(Ordering::Relaxed));
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            let joined = self.thread.take()?.join();
            let ended = joined.unwrap_or_else(|_| Err(Refusal::failed("it broke off: an error in the program")));
            let state = &mut self.active.state;
            state.phase = match &ended {
                Ok(Outcome::Imported(_, machine)) => JobPhase::Done(format!("{} is in the library", machine.name)),
                Ok(Outcome::Done(text)) => JobPhase::Done(text.clone()),
                Ok(_) => JobPhase::Done(String::new()),
                Err(refusal) if self.shared.cancelled.load(Ordering::Relaxed) => JobPhase::Cancelled(refusal.reason.clone()),
                Err(refusal) => JobPhase::Failed(refusal.reason.clone()),
            };
            if let Ok(Outcome::Imported(_, machine)) = &ended {
                state.machine = machine.id;
            }
            let state = self.is_told.then(|| Box::new(state.clone()));
            return Some(BesideEnd::Ended(state, self.active.from, Box::new(ended)));
        }
        if !self.is_told || now < self.told + Duration::from_millis(100) {
            return None;
        }
        self.told = now;
        self.active.measure(now, None);
        Some(BesideEnd::Progress(Box::new(self.active.state.clone())))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.shared.cancelled.store(true, Ordering::Relaxed);
            let _ = thread.join();
        }
    }
}
