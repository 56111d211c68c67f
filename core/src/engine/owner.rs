//! The way to a running machine's owner, another process: started, connected to, spoken with.

use std::collections::HashMap;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::Sender;
use interprocess::local_socket::prelude::*;

use super::wire;
use super::worker::{Inbox, SubscriberId};
use super::{Event, Request, RequestId};
use crate::snapshot::MachineId;

/// How long an owner may take from its start until it answers: saved memory can be much to load.
pub(super) const START_LIMIT: Duration = Duration::from_secs(300);

/// What the owner's connection says.
#[derive(Debug)]
pub(super) enum OwnerNews {
    /// An event of the owner's engine.
    Event(Box<Event>),
    /// The connection has ended: the owner is gone.
    Closed,
}

/// A connection to a machine's owner.
pub(super) struct Connection {
    stream: Arc<LocalSocketStream>,
    next: u64,
    asked: HashMap<RequestId, (SubscriberId, RequestId)>,
}

impl Connection {
    /// Connects to the owner that listens on `socket`; what it says arrives in `inbox`.
    pub fn open(socket: &Path, machine: MachineId, inbox: Sender<Inbox>) -> io::Result<Self> {
        let stream = Arc::new(wire::connect(socket)?);
        let listening = stream.clone();
        thread::Builder::new().name("owner's events".into()).spawn(move || {
            while let Ok(event) = wire::receive(&mut &*listening, wire::EVENT_LIMIT) {
                if inbox.send(Inbox::Owner(machine, OwnerNews::Event(Box::new(event)))).is_err() {
                    return;
                }
            }
            let _ = inbox.send(Inbox::Owner(machine, OwnerNews::Closed));
        })?;
        Ok(Self { stream, next: 0, asked: HashMap::new() })
    }

    /// Passes a request on, under a name of this connection's own.
    pub fn ask(&mut self, from: SubscriberId, request: Request) -> io::Result<()> {
        self.next += 1;
        let id = RequestId(self.next);
        let asked = (from, request.id);
        wire::send(&mut &*self.stream, &Request { id, ..request }, wire::REQUEST_LIMIT)?;
        // What is answered is heard by this thread, later.
        self.asked.insert(id, asked);
        Ok(())
    }

    /// Who asked the request that is answered under this name.
    pub fn answered(&mut self, id: RequestId) -> Option<(SubscriberId, RequestId)> {
        self.asked.remove(&id)
    }

    /// Every request that wasn't answered.
    pub fn unanswered(&mut self) -> Vec<(SubscriberId, RequestId)> {
        self.asked.drain().map(|(_, asked)| asked).collect()
    }
}

/// An owner that is coming up.
pub(super) struct Starting {
    child: Child,
    log: PathBuf,
    /// Who waits for it.
    pub from: (SubscriberId, RequestId),
    /// When it was started (the clock's `elapsed`).
    pub since: Duration,
}

impl Starting {
    /// Starts `executable serve MACHINE --library LIBRARY`, which outlives this process.
    pub fn spawn(
        executable: &Path,
        library: &Path,
        machine: MachineId,
        socket: &Path,
        from: (SubscriberId, RequestId),
        since: Duration,
    ) -> io::Result<Self> {
        let log = socket.with_extension("log");
        let output = std::fs::File::create(&log)?;
        let mut command = std::process::Command::new(executable);
        command.arg("serve").arg(machine.to_string()).arg("--library").arg(library);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(Self { child: command.spawn()?, log, from, since })
    }

    /// Why it ended, if it has ended.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let mut text = String::new();
        if let Ok(mut log) = std::fs::File::open(&self.log) {
            let length = log.metadata().map_or(0, |metadata| metadata.len());
            let _ = log.seek(SeekFrom::Start(length.saturating_sub(2000)));
            let _ = log.take(2000).read_to_string(&mut text);
        }
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        Some(match last {
            // It has said it as a program of its own.
            Some(line) => line.trim().trim_start_matches("snaptree: ").to_owned(),
            None => format!("its owner process ended with {status}"),
        })
    }

    /// The process, to be reaped when it ends.
    pub fn into_child(self) -> Child {
        self.child
    }
}
