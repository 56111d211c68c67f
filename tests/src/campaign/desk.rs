//! An engine in this process, driven by hand, on a volume in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use crossbeam_channel::Receiver;
use snaptree_core::clock::Clock;
use snaptree_core::engine::{
    Answer, Command, Engine, EngineOptions, Event, JobState, Mode, Refusal, Request, RequestId, SubscriberId,
};
use snaptree_core::testing::{FakeClock, MemHost};

use crate::lab::LIBRARY;

/// More ticks than any answer takes.
const MOST_TICKS: u32 = 200_000;
/// Time that passes in each tick.
const TICK: Duration = Duration::from_millis(1);

/// Goes on a little whenever it is asked, so that whatever is done takes time.
#[derive(Debug)]
struct Ticking(Arc<FakeClock>);

impl Clock for Ticking {
    fn now(&self) -> DateTime<Utc> {
        self.0.now()
    }
    fn elapsed(&self) -> Duration {
        self.0.advance(Duration::from_micros(1));
        self.0.elapsed()
    }
}

/// An engine and what it has said.
pub(super) struct Desk {
    engine: Engine,
    host: MemHost,
    clock: Arc<FakeClock>,
    me: SubscriberId,
    events: Receiver<Event>,
    answers: BTreeMap<RequestId, Result<Answer, Refusal>>,
    requests: u64,
    /// Every state of every job since it was last cleared.
    pub jobs: Vec<JobState>,
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    Answer(Answer),
    Refused(Refusal),
    /// The computer or the process ended first.
    Crashed,
}

impl Desk {
    pub fn open(host: &MemHost, clock: &Arc<FakeClock>) -> Result<Self, String> {
        let options = EngineOptions {
            host: host.shared(),
            clock: Arc::new(Ticking(clock.clone())),
            library: Path::new(LIBRARY).into(),
            executable: None,
        };
        let mut engine = Engine::new(options).map_err(|refusal| refusal.to_string())?;
        let (me, events) = engine.subscribe();
        let (host, clock) = (host.clone(), clock.clone());
        Ok(Self { engine, host, clock, me, events, answers: BTreeMap::new(), requests: 0, jobs: Vec::new() })
    }

    pub fn submit(&mut self, command: Command) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.engine.submit(self.me, Request { id, command, mode: Mode::Do, expected_generation: None });
        id
    }

    pub fn tick(&mut self) {
        self.engine.tick();
        self.clock.advance(TICK);
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Job(state) => self.jobs.push(state),
                Event::Answer { request, answer } => {
                    self.answers.insert(request, answer);
                }
                _ => {}
            }
        }
    }

    /// Works until the answer is there. What waits for room gets it.
    pub fn wait(&mut self, id: RequestId) -> Result<Outcome, String> {
        for _ in 0..MOST_TICKS {
            self.tick();
            if self.host.has_crashed() {
                return Ok(Outcome::Crashed);
            }
            if self.jobs.last().is_some_and(|job| job.title.starts_with("Waiting for room")) {
                self.host.heal();
                self.host.set_capacity(None);
            }
            match self.answers.remove(&id) {
                Some(Ok(answer)) => return Ok(Outcome::Answer(answer)),
                Some(Err(refusal)) => return Ok(Outcome::Refused(refusal)),
                None => {}
            }
        }
        Err("a request is never answered".into())
    }

    pub fn ask(&mut self, command: Command) -> Result<Outcome, String> {
        let id = self.submit(command);
        self.wait(id)
    }
}
