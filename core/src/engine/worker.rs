//! The worker: it owns the state. Requests are admitted here, jobs get their steps here, and
//! states are published from here. Driven by a thread ([`Engine::start`]) or by hand ([`Engine::tick`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::entry::Entry;
use super::jobs::Beside;
use super::owner::OwnerNews;
use super::planning::Planning;
use super::{Answer, Event, LibraryState, Refusal, Request, RequestId};
use crate::clock::SharedClock;
use crate::host_file::SharedHost;
use crate::snapshot::{MachineId, by_name};
use crate::store::Library;

/// What an engine stands on.
#[derive(Clone)]
pub struct EngineOptions {
    /// The file system.
    pub host: SharedHost,
    /// The clock.
    pub clock: SharedClock,
    /// The library's folder.
    pub library: PathBuf,
    /// The program whose `serve` verb owns running machines. `None`: machines run in this process.
    pub executable: Option<PathBuf>,
}

/// One who asks and listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(u64);

/// What asks on nobody's behalf: the engine's own doings.
pub(super) const NOBODY: (SubscriberId, RequestId) = (SubscriberId(0), RequestId(0));

/// What reaches the worker.
pub(super) enum Inbox {
    Request(SubscriberId, Request),
    Subscribe(Sender<SubscriberId>, Sender<Event>, Waker),
    Unsubscribe(SubscriberId),
    Owner(MachineId, OwnerNews),
    Quit,
}

/// Called after events were sent; set once by who listens.
pub(super) type Waker = Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>;

struct Subscriber {
    events: Sender<Event>,
    waker: Waker,
}

/// Events that may wait for one who listens slowly before pictures are left out.
const PICTURE_PATIENCE: usize = 16;
/// And before it counts as gone.
const PATIENCE: usize = 1 << 16;

/// Events go out here: to everybody, or as an answer to the one who asked.
#[derive(Default)]
pub(super) struct Outbox {
    subscribers: BTreeMap<SubscriberId, Subscriber>,
    next: u64,
}

impl Outbox {
    fn add(&mut self, events: Sender<Event>, waker: Waker) -> SubscriberId {
        self.next += 1;
        let id = SubscriberId(self.next);
        self.subscribers.insert(id, Subscriber { events, waker });
        id
    }

    /// Sends to one; one who is gone is forgotten, and so is one who has stopped listening without going.
    pub fn send(&mut self, to: SubscriberId, event: Event) {
        if let Some(subscriber) = self.subscribers.get(&to) {
            let waiting = subscriber.events.len();
            if waiting > PICTURE_PATIENCE && matches!(event, Event::Live { .. }) {
                return;
            }
            if waiting > PATIENCE || subscriber.events.send(event).is_err() {
                self.subscribers.remove(&to);
            } else if let Some(wake) = subscriber.waker.get() {
                wake();
            }
        }
    }

    /// Sends to everybody.
    pub fn publish(&mut self, event: &Event) {
        for id in self.subscribers.keys().copied().collect::<Vec<_>>() {
            self.send(id, event.clone());
        }
    }

    /// Whether anybody listens.
    pub fn is_heard(&self) -> bool {
        !self.subscribers.is_empty()
    }

    /// Listens no longer.
    fn remove(&mut self, id: SubscriberId) {
        self.subscribers.remove(&id);
    }

    /// Answers a request.
    pub fn answer(&mut self, (to, request): (SubscriberId, RequestId), answer: Result<Answer, Refusal>) {
        self.send(to, Event::Answer { request, answer });
    }
}

/// The engine. See [`Engine::start`].
pub struct Engine {
    pub(super) options: EngineOptions,
    pub(super) library: Library,
    pub(super) outbox: Outbox,
    pub(super) machines: BTreeMap<MachineId, Entry>,
    pub(super) folders: Vec<PathBuf>,
    pub(super) problems: Vec<String>,
    /// Jobs that are about no machine of the library yet, or about none at all.
    pub(super) beside: Vec<Beside>,
    /// Who waits for the first state of an owner that came up.
    pub(super) waiting_for_state: Vec<(MachineId, (SubscriberId, RequestId))>,
    /// Volumes whose speed was tried.
    pub(super) probed: BTreeSet<String>,
    /// The library's own list is to be published.
    pub(super) library_changed: bool,
    /// The only machine that this engine cares for, when it is a machine's owner.
    pub(super) only: Option<MachineId>,
    pub(super) planning: Planning,
    pub(super) sender: Sender<Inbox>,
    receiver: Receiver<Inbox>,
    next_look: Duration,
    pub(super) last_scan: Duration,
    quit: bool,
}

/// How often other processes' doings are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Time for looking at files between two requests.
const SIGHT_SLICE: Duration = Duration::from_millis(15);

impl Engine {
    /// An engine on a library (created if it isn't there), to be driven by [`Engine::tick`].
    pub fn new(options: EngineOptions) -> Result<Self, Refusal> {
        let library = Library::open(&options.host, &options.clock, &options.library)?;
        let (sender, receiver) = unbounded();
        let mut engine = Self {
            options,
            library,
            outbox: Outbox::default(),
            machines: BTreeMap::new(),
            folders: Vec::new(),
            problems: Vec::new(),
            beside: Vec::new(),
            waiting_for_state: Vec::new(),
            probed: BTreeSet::new(),
            library_changed: true,
            only: None,
            planning: Planning::default(),
            sender,
            receiver,
            next_look: Duration::ZERO,
            last_scan: Duration::ZERO,
            quit: false,
        };
        engine.scan()?;
        Ok(engine)
    }

    /// One who asks and listens; what it is told begins with the whole state.
    pub fn subscribe(&mut self) -> (SubscriberId, Receiver<Event>) {
        let (sender, events) = unbounded();
        (self.welcome(sender, Waker::default()), events)
    }

    /// Asks. The answer comes as an event.
    pub fn submit(&mut self, from: SubscriberId, request: Request) {
        let id = request.id;
        match self.admit(from, request) {
            Ok(Some(answer)) => {
                self.publish_changes();
                self.outbox.answer((from, id), Ok(answer));
            }
            Ok(None) => {}
            Err(refusal) => {
                self.publish_changes();
                self.outbox.answer((from, id), Err(refusal));
            }
        }
    }

    /// Does a bounded amount of work; returns how long nothing needs to be done.
    pub fn tick(&mut self) -> Duration {
        // No more than wait already: whoever asks without end doesn't keep the jobs from working.
        for message in self.receiver.try_iter().take(self.receiver.len()).collect::<Vec<_>>() {
            self.hear(message);
        }
        let now = self.options.clock.elapsed();
        if now >= self.next_look {
            self.next_look = now + LOOK_EVERY;
            self.look_around();
            self.look_at_plan();
        }
        let busy = self.step_jobs() | self.step_beside() | self.step_sight() | self.step_probes();
        let live = self.step_live().min(self.step_room());
        self.publish_changes();
        if busy { Duration::ZERO } else { live.min(self.next_look.saturating_sub(now)) }
    }

    pub(super) fn inbox(&self) -> Sender<Inbox> {
        self.sender.clone()
    }

    /// Works until told to end.
    pub(super) fn run(mut self) {
        while !self.quit {
            self.work();
        }
        self.shut_down();
    }

    /// Works until a machine that it owns is off and nobody waits for a job of it.
    pub(super) fn run_until_off(&mut self, machine: MachineId) {
        while !self.quit && self.machines.get(&machine).is_some_and(|entry| entry.owned.is_some()) {
            self.work();
        }
        self.shut_down();
        // What was said last is still on its way to the clients.
        thread::sleep(Duration::from_millis(50));
    }

    fn work(&mut self) {
        let idle = self.tick();
        // Being told to end may have been among what was heard just now: then there is nothing to wait for.
        if !self.quit
            && !idle.is_zero()
            && let Ok(message) = self.receiver.recv_timeout(idle)
        {
            self.hear(message);
        }
    }

    fn hear(&mut self, message: Inbox) {
        match message {
            Inbox::Request(from, request) => self.submit(from, request),
            Inbox::Subscribe(reply, events, waker) => {
                let id = self.welcome(events, waker);
                let _ = reply.send(id);
            }
            Inbox::Unsubscribe(id) => self.outbox.remove(id),
            Inbox::Owner(machine, news) => self.hear_owner(machine, news),
            Inbox::Quit => self.quit = true,
        }
    }

    fn welcome(&mut self, events: Sender<Event>, waker: Waker) -> SubscriberId {
        let id = self.outbox.add(events, waker);
        self.outbox.send(id, Event::Library(Arc::new(self.library_state())));
        for entry in self.machines.values() {
            self.outbox.send(id, Event::Machine(entry.state()));
            if let Some(active) = &entry.job {
                self.outbox.send(id, Event::Job(active.state.clone()));
            }
        }
        if let Some(plan) = &self.planning.state {
            self.outbox.send(id, Event::Plan(plan.clone()));
        }
        id
    }

    pub(super) fn library_state(&self) -> LibraryState {
        let mut machines: Vec<_> = self.machines.iter().map(|(id, entry)| (entry.machine.name.clone(), *id)).collect();
        machines.sort_by(|(a, first), (b, second)| by_name(a, b).then(first.cmp(second)));
        LibraryState {
            folder: self.library.folder().to_path_buf(),
            machines: machines.into_iter().map(|(_, id)| id).collect(),
            folders: self.folders.clone(),
            problems: self.problems.clone(),
        }
    }

    pub(super) fn publish_changes(&mut self) {
        if std::mem::take(&mut self.library_changed) {
            let event = Event::Library(Arc::new(self.library_state()));
            self.outbox.publish(&event);
        }
        for entry in self.machines.values_mut().filter(|entry| entry.changed) {
            entry.changed = false;
            self.planning.stale = true;
            self.outbox.publish(&Event::Machine(entry.state()));
        }
    }

    /// Looks at files and counts, for a short while. Whether something is left.
    fn step_sight(&mut self) -> bool {
        let began = self.options.clock.elapsed();
        let (mut counted, mut is_left) = (Vec::new(), false);
        for entry in self.machines.values_mut().filter(|entry| entry.remote.is_none() && entry.sight.is_behind()) {
            let open = entry.open_images();
            // In the middle of a job the manifest is further on than what was told last.
            let machine = entry.owned.as_ref().map_or(&*entry.machine, |owned| owned.store.machine());
            while entry.sight.is_behind() && !is_left {
                entry.changed |= entry.sight.advance(&self.options.host, &entry.dir, machine, &open);
                is_left = self.options.clock.elapsed() - began > SIGHT_SLICE;
            }
            if !entry.sight.is_behind() {
                entry.changed = true;
                counted.push(entry.machine.id);
            }
            if is_left {
                break;
            }
        }
        for id in counted {
            self.probe_volume(id);
        }
        is_left
    }

    pub(super) fn shut_down(&mut self) {
        self.cancel_jobs();
        for id in self.machines.keys().copied().collect::<Vec<_>>() {
            self.drop_probe(id);
        }
        for entry in self.machines.values_mut() {
            if let Some(mut owned) = entry.owned.take()
                && let Err(refusal) = owned.stop()
            {
                tracing::error!("{}: {refusal}", entry.machine.name);
            }
        }
        self.publish_changes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{Screen, WorkloadCounters};

    #[test]
    fn one_who_does_not_listen_costs_little() {
        let mut outbox = Outbox::default();
        let (sender, events) = unbounded();
        let id = outbox.add(sender, Waker::default());
        let screen = Arc::new(Screen { width: 0, height: 0, png: Vec::new(), generation: 0, checksum: 0 });
        let live = Event::Live { machine: MachineId::new(), screen, counters: WorkloadCounters::default() };
        for _ in 0..1000 {
            outbox.publish(&live);
        }
        assert_eq!(events.len(), PICTURE_PATIENCE + 1);
        let gone = Event::Gone(MachineId::new());
        for _ in 0..2 * PATIENCE {
            outbox.send(id, gone.clone());
        }
        assert_eq!(events.len(), PATIENCE + 1);
        assert!(!outbox.is_heard());
        assert!(events.iter().last().is_some(), "and the events come to an end");
    }
}
