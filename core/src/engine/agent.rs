//! The agent: carries the plan out while nobody looks. A client of its own engine, by the same commands as everybody.
//!
//! ```text
//! a window is open, and a merge is planned in it:
//!   machine off, or a live window:           Merge (it ends in time by itself)
//!   machine runs, and may be shut down:      Stop ─> Merge ─> Start, up by the window's end
//! ```
//!
//! What has begun stands in `agent.json` before anything is done, so that an agent that is killed goes on where it was:
//! above all, a machine that was shut down is started again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use crossbeam_channel::Receiver;

use super::planning::{AGENT_LOCK, Begun};
use super::{
    Answer, Command, Engine, EngineOptions, Event, MachineState, Mode, PlanState, Power, Refusal, Request, RequestId,
    SubscriberId,
};
use crate::clock::SharedClock;
use crate::cost::MergeMode;
use crate::host_file::HostLock;
use crate::snapshot::MachineId;
use crate::window::{OccurrenceKey, PlanParameters};

/// A start that failed is tried again after so long.
const START_AGAIN: Duration = Duration::from_secs(10);
/// How often it is noted that an agent is at work.
const SEEN_EVERY: Duration = Duration::from_secs(600);
/// A live merge ends so long before its window.
const LIVE_MARGIN: TimeDelta = TimeDelta::seconds(2);
/// How soon it looks again.
const LOOK: Duration = Duration::from_millis(200);

/// Carries out the plan of a library.
pub struct Agent {
    pub(super) engine: Engine,
    clock: SharedClock,
    me: SubscriberId,
    events: Receiver<Event>,
    /// Held for as long as it works.
    _lock: Box<dyn HostLock>,
    machines: BTreeMap<MachineId, Arc<MachineState>>,
    plan: Option<Arc<PlanState>>,
    answers: BTreeMap<RequestId, Result<Answer, Refusal>>,
    requests: u64,
    doing: Vec<Doing>,
    /// What was begun once isn't begun again in the same window.
    tried: BTreeSet<(MachineId, OccurrenceKey)>,
    /// What another agent had begun was taken up.
    has_rejoined: bool,
    seen: Option<Duration>,
    /// What it has done, in words, for whoever runs it.
    said: Vec<String>,
}

/// A machine that is at its turn.
struct Doing {
    begun: Begun,
    volume: String,
    step: Step,
}

enum Step {
    ShutDown(RequestId),
    Merge(RequestId),
    Start { request: Option<RequestId>, not_before: Duration },
}

impl Agent {
    /// An agent on a library, to be driven by [`Agent::tick`]. Refused where another one is at work on it.
    pub fn new(options: EngineOptions) -> Result<Self, Refusal> {
        let (host, clock) = (options.host.clone(), options.clock.clone());
        let mut engine = Engine::new(options)?;
        let path = engine.library.folder().join(AGENT_LOCK);
        let lock = host.lock(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => Refusal::rule("another agent is at work on this library"),
            _ => Refusal::failed(format!("{}: {error}", path.display())),
        })?;
        let (me, events) = engine.subscribe();
        engine.look_around();
        Ok(Self {
            engine,
            clock,
            me,
            events,
            _lock: lock,
            machines: BTreeMap::new(),
            plan: None,
            answers: BTreeMap::new(),
            requests: 0,
            doing: Vec::new(),
            tried: BTreeSet::new(),
            has_rejoined: false,
            seen: None,
            said: Vec::new(),
        })
    }

    /// Does a bounded amount of work; returns how long nothing needs to be done.
    pub fn tick(&mut self) -> Duration {
        let idle = self.engine.tick();
        self.hear();
        self.note_seen();
        for doing in std::mem::take(&mut self.doing) {
            let still = self.advance(doing);
            self.doing.extend(still);
        }
        if self.machines.values().all(|state| state.power != Power::Starting) && self.plan.is_some() {
            if !std::mem::replace(&mut self.has_rejoined, true) {
                self.rejoin();
            }
            while self.begin_next() {}
        }
        idle.min(LOOK)
    }

    /// Ends it: a merge under way ends between two steps, and what was moved stays moved. Whoever comes next goes on.
    pub fn leave(mut self) {
        self.engine.shut_down();
    }

    /// What it has done since this was asked last, in words.
    pub fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }

    /// Whether it is in the middle of something.
    pub fn is_busy(&self) -> bool {
        !self.doing.is_empty()
    }

    fn hear(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Machine(state) => {
                    self.machines.insert(state.machine.id, state);
                }
                Event::Gone(id) => {
                    self.machines.remove(&id);
                }
                Event::Plan(plan) => self.plan = Some(plan),
                Event::Answer { request, answer } => {
                    self.answers.insert(request, answer);
                }
                Event::Library(_) | Event::Job(_) | Event::Live { .. } => {}
            }
        }
    }

    fn note_seen(&mut self) {
        let elapsed = self.clock.elapsed();
        if self.seen.is_none_or(|seen| elapsed >= seen + SEEN_EVERY) {
            self.seen = Some(elapsed);
            let now = self.clock.now();
            let noted = self.engine.change_agent(|file| file.seen = Some(now));
            self.told(noted);
        }
    }

    /// What can't be written down is said; the next look tries again.
    fn told(&mut self, outcome: Result<(), Refusal>) {
        self.said.extend(outcome.err().map(|refusal| refusal.reason));
    }

    fn say(&mut self, machine: MachineId, what: &str) {
        let name = self.machines.get(&machine).map_or_else(|| machine.to_string(), |state| state.machine.name.clone());
        self.said.push(format!("{name}: {what}"));
    }

    pub(super) fn ask(&mut self, command: Command) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.engine.submit(self.me, Request { id, command, mode: Mode::Do, expected_generation: None });
        id
    }

    fn is_up(&self, machine: MachineId) -> bool {
        self.machines.get(&machine).is_some_and(|state| state.power.is_up())
    }

    /// By when a merge must have let go.
    fn until(begun: &Begun) -> DateTime<Utc> {
        let start = TimeDelta::milliseconds((PlanParameters::default().start_seconds * 1000.0) as i64);
        begun.end - if begun.is_down { start } else { LIVE_MARGIN }
    }

    fn ask_to_merge(&mut self, begun: &Begun) -> Step {
        let until = Some(Self::until(begun));
        Step::Merge(self.ask(Command::Merge { machine: begun.machine, disk: None, limit: begun.limit, until }))
    }

    /// What another agent, or this one before it was killed, has begun and not ended.
    fn rejoin(&mut self) {
        let open: Vec<Begun> = self.engine.planning.agent.begun.iter().filter(|begun| !begun.is_over).cloned().collect();
        for begun in open {
            let Some(state) = self.machines.get(&begun.machine) else { continue };
            let volume = state.volume.id.clone();
            let has_time = self.clock.now() < Self::until(&begun);
            self.tried.insert((begun.machine, begun.occurrence));
            let step = match (begun.is_down, self.is_up(begun.machine), has_time) {
                (true, true, true) => Step::ShutDown(self.ask(Command::Stop(begun.machine))),
                (true, false, false) => Step::Start { request: None, not_before: Duration::ZERO },
                (_, _, true) => self.ask_to_merge(&begun),
                _ => {
                    self.end(&begun);
                    continue;
                }
            };
            self.say(begun.machine, "goes on with what was begun before");
            self.doing.push(Doing { begun, volume, step });
        }
    }

    /// Begins the merge that comes next on a volume where nothing is under way. `false` where there is none.
    fn begin_next(&mut self) -> bool {
        let Some(plan) = self.plan.clone() else { return false };
        let now = self.clock.now();
        let mut next: Option<(DateTime<Utc>, Begun, String)> = None;
        for merge in &plan.plan.merges {
            let Some(piece) = merge.pieces.first() else { continue };
            let Some(occurrence) = plan.occurrences.iter().find(|o| o.key == piece.occurrence) else { continue };
            let is_down = occurrence.mode == MergeMode::Stopped && self.is_up(merge.machine);
            let (machine, end, limit) = (merge.machine, occurrence.end, occurrence.limit);
            let begun = Begun { machine, occurrence: occurrence.key, end, limit, is_down, is_over: false };
            let is_open = occurrence.start() <= now && now < Self::until(&begun);
            let is_busy = self.doing.iter().any(|doing| doing.volume == merge.volume || doing.begun.machine == machine);
            if is_open
                && !is_busy
                && !self.tried.contains(&(machine, occurrence.key))
                && self.machines.contains_key(&machine)
                && next.as_ref().is_none_or(|(start, ..)| piece.start < *start)
            {
                next = Some((piece.start, begun, merge.volume.clone()));
            }
        }
        let Some((_, begun, volume)) = next else { return false };
        self.tried.insert((begun.machine, begun.occurrence));
        let record = begun.clone();
        if let Err(refusal) = self.engine.change_agent(|file| file.begun.push(record)) {
            // Without the record a machine that is shut down might stay so.
            self.say(begun.machine, &refusal.reason);
            return true;
        }
        let step = if begun.is_down {
            self.say(begun.machine, "is shut down for its merge");
            Step::ShutDown(self.ask(Command::Stop(begun.machine)))
        } else {
            self.say(begun.machine, "its merge begins");
            self.ask_to_merge(&begun)
        };
        self.doing.push(Doing { begun, volume, step });
        true
    }

    /// One look at a machine that is at its turn; `None` once it is done.
    fn advance(&mut self, doing: Doing) -> Option<Doing> {
        let Doing { begun, volume, step } = doing;
        let machine = begun.machine;
        let step = match step {
            Step::ShutDown(request) => match self.answers.remove(&request) {
                None => Step::ShutDown(request),
                Some(Ok(_)) => self.ask_to_merge(&begun),
                Some(Err(refusal)) => {
                    self.say(machine, &format!("it can't be shut down: {}", refusal.reason));
                    Step::Start { request: None, not_before: Duration::ZERO }
                }
            },
            Step::Merge(request) => match self.answers.remove(&request) {
                None => Step::Merge(request),
                Some(answer) => {
                    let text = match answer {
                        Ok(Answer::Done(text)) => text,
                        Ok(_) => "its merge has ended".into(),
                        Err(refusal) => format!("its merge has ended: {}", refusal.reason),
                    };
                    self.say(machine, &text);
                    Step::Start { request: None, not_before: Duration::ZERO }
                }
            },
            Step::Start { request: None, not_before } => {
                if !begun.is_down || self.is_up(machine) || !self.machines.contains_key(&machine) {
                    self.end(&begun);
                    return None;
                }
                let request = (self.clock.elapsed() >= not_before).then(|| self.ask(Command::Start(machine)));
                Step::Start { request, not_before }
            }
            Step::Start { request: Some(request), not_before } => match self.answers.remove(&request) {
                None => Step::Start { request: Some(request), not_before },
                Some(Ok(_)) => {
                    self.say(machine, "runs again");
                    self.end(&begun);
                    return None;
                }
                Some(Err(refusal)) => {
                    self.say(machine, &format!("it can't be started yet: {}", refusal.reason));
                    Step::Start { request: None, not_before: self.clock.elapsed() + START_AGAIN }
                }
            },
        };
        Some(Doing { begun, volume, step })
    }

    /// It is over, for this window.
    fn end(&mut self, begun: &Begun) {
        let (machine, key) = (begun.machine, begun.occurrence);
        let ended = self.engine.change_agent(|file| {
            for known in file.begun.iter_mut().filter(|known| (known.machine, known.occurrence) == (machine, key)) {
                known.is_over = true;
            }
        });
        self.told(ended);
        self.engine.make_plan();
    }
}
