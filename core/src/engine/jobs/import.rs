//! Bringing images of others in: copied on a thread of its own, since one file may be terabytes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock::SharedClock;
use crate::engine::admission::job_state;
use crate::engine::entry::Active;
use crate::engine::worker::SubscriberId;
use crate::engine::{Answer, ImportMode, JobAction, JobKind, JobPhase, JobState, Refusal, RequestId};
use crate::snapshot::{Machine, MachineId};
use crate::store::{ImportRequest, Library};
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

type Outcome = Result<(PathBuf, Machine), Refusal>;

/// An import under way.
pub(in crate::engine) struct Import {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Outcome>>,
    active: Active,
    told: Duration,
}

/// What an import has come to.
pub(in crate::engine) enum ImportEnd {
    Progress(Box<JobState>),
    Ended(Box<JobState>, (SubscriberId, RequestId), Box<Outcome>),
}

/// The work is the thread's: there is nothing to step.
struct OnThread;

impl Job for OnThread {
    fn step(&mut self, _context: &mut Context<'_>) -> Result<Step, Refusal> {
        Ok(Step::More)
    }
}

impl Import {
    pub fn start(
        library: &Library,
        path: PathBuf,
        name: String,
        mode: ImportMode,
        from: (SubscriberId, RequestId),
        clock: &SharedClock,
    ) -> Result<Self, Refusal> {
        let mut state = job_state(MachineId::new(), JobKind::Import, true);
        state.title = format!("Importing {name}");
        let request = ImportRequest { path, name, remove_originals: mode == ImportMode::Move };
        let shared = Arc::new(Shared::default());
        let (library, telling) = (library.clone(), shared.clone());
        let work = move || {
            let mut control = |done: ByteCount, total: ByteCount| {
                telling.done.store(done.0, Ordering::Relaxed);
                telling.total.store(total.0, Ordering::Relaxed);
                while telling.paused.load(Ordering::Relaxed) && !telling.cancelled.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(20));
                }
                !telling.cancelled.load(Ordering::Relaxed)
            };
            let store = library.import(&request, &mut control)?;
            Ok((store.dir().to_path_buf(), store.machine().clone()))
        };
        let thread = thread::Builder::new().name("import".into()).spawn(work);
        let thread = thread.map_err(|error| Refusal::failed(format!("the import's thread could not be started: {error}")))?;
        let active = Active::new(Box::new(OnThread), state, from, clock.elapsed());
        Ok(Self { shared, thread: Some(thread), active, told: Duration::ZERO })
    }

    /// The name under which it is paused and cancelled.
    pub fn machine(&self) -> MachineId {
        self.active.state.machine
    }

    pub fn steer(&mut self, action: JobAction) -> Result<Answer, Refusal> {
        let (phase, text) = match action {
            JobAction::Pause => (JobPhase::Paused, "it waits"),
            JobAction::Resume => (JobPhase::Running, "it goes on"),
            JobAction::Cancel => (JobPhase::Running, "it will be cancelled; the originals are untouched"),
        };
        self.shared.paused.store(phase == JobPhase::Paused, Ordering::Relaxed);
        if action == JobAction::Cancel {
            self.shared.cancelled.store(true, Ordering::Relaxed);
        }
        self.active.state.phase = phase;
        Ok(Answer::Done(text.into()))
    }

    /// What has come of it since the last call, if it is worth telling.
    pub fn poll(&mut self, now: Duration) -> Option<ImportEnd> {
        let state = &mut self.active.state;
        state.done = ByteCount(self.shared.done.load(Ordering::Relaxed));
        state.total = ByteCount(self.shared.total.load(Ordering::Relaxed));
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            let joined = self.thread.take()?.join();
            let outcome = joined.unwrap_or_else(|_| Err(Refusal::failed("the import broke off: an error in the program")));
            let state = &mut self.active.state;
            state.phase = match &outcome {
                Ok((_, machine)) => JobPhase::Done(format!("{} is in the library", machine.name)),
                Err(refusal) if self.shared.cancelled.load(Ordering::Relaxed) => JobPhase::Cancelled(refusal.reason.clone()),
                Err(refusal) => JobPhase::Failed(refusal.reason.clone()),
            };
            if let Ok((_, machine)) = &outcome {
                state.machine = machine.id;
            }
            return Some(ImportEnd::Ended(Box::new(state.clone()), self.active.from, Box::new(outcome)));
        }
        if now < self.told + Duration::from_millis(100) {
            return None;
        }
        self.told = now;
        self.active.measure(now, None);
        Some(ImportEnd::Progress(Box::new(self.active.state.clone())))
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.shared.cancelled.store(true, Ordering::Relaxed);
            let _ = thread.join();
        }
    }
}
