//! What the window and the command line hold: requests in, events out.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::worker::{Engine, EngineOptions, Inbox, SubscriberId, Waker};
use super::{Answer, Command, Event, Mode, Refusal, Request, RequestId};

/// A running engine. Dropping it ends the worker between two steps; machines that have
/// an owner process of their own run on.
pub struct EngineHandle {
    inbox: Sender<Inbox>,
    events: Receiver<Event>,
    id: SubscriberId,
    waker: Waker,
    worker: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts a worker thread on a library (created if it isn't there).
    pub fn start(options: EngineOptions) -> Result<EngineHandle, Refusal> {
        let mut engine = Self::new(options)?;
        // What is told first says already which machines have an owner.
        engine.look_around();
        let inbox = engine.inbox();
        let worker = thread::Builder::new().name("engine".into()).spawn(move || engine.run());
        let worker = worker.map_err(|error| Refusal::failed(format!("the worker thread could not be started: {error}")))?;
        EngineHandle::subscribe(inbox, Some(worker)).map_err(|error| Refusal::failed(error.to_string()))
    }
}

impl EngineHandle {
    pub(super) fn subscribe(inbox: Sender<Inbox>, worker: Option<JoinHandle<()>>) -> io::Result<Self> {
        let (sender, events) = unbounded();
        let (id_sender, id) = bounded(1);
        let waker: Waker = Arc::new(OnceLock::new());
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the engine's worker has ended");
        inbox.send(Inbox::Subscribe(id_sender, sender, waker.clone())).map_err(|_| gone())?;
        let id = id.recv().map_err(|_| gone())?;
        Ok(Self { inbox, events, id, waker, worker })
    }

    /// Sends a request; its answer comes as an event. An error means that the worker has ended.
    pub fn send(&self, request: Request) -> Result<(), Refusal> {
        let sent = self.inbox.send(Inbox::Request(self.id, request));
        sent.map_err(|_| Refusal::failed("the engine's worker has ended"))
    }

    /// What the engine says, from the whole state at the start on.
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// Sets what is called after events were sent (from the worker's thread). Once only.
    pub fn set_waker(&self, waker: Box<dyn Fn() + Send + Sync>) {
        let _ = self.waker.set(waker);
    }

    /// Sends a command and waits for its answer; every other event goes to `see`.
    pub fn call(&self, id: RequestId, command: Command, mode: Mode, mut see: impl FnMut(Event)) -> Result<Answer, Refusal> {
        self.send(Request { id, command, mode, expected_generation: None })?;
        loop {
            match self.events.recv() {
                Ok(Event::Answer { request, answer }) if request == id => return answer,
                Ok(event) => see(event),
                Err(_) => return Err(Refusal::failed("the engine's worker has ended")),
            }
        }
    }
}

impl EngineHandle {
    /// Messages that the worker hasn't heard yet, everybody's.
    pub(super) fn requests_waiting(&self) -> usize {
        self.inbox.len()
    }

    /// Listens no longer: the events end.
    pub(super) fn leave(&self) {
        let _ = self.inbox.send(Inbox::Unsubscribe(self.id));
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        self.leave();
        if let Some(worker) = self.worker.take() {
            let _ = self.inbox.send(Inbox::Quit);
            let _ = worker.join();
        }
    }
}
