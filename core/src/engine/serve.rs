//! The owner of a running machine: an engine of its own, and a socket at which clients ask it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::Sender;
use interprocess::local_socket::prelude::*;

use super::handle::EngineHandle;
use super::worker::{Engine, EngineOptions, Inbox};
use super::{Refusal, wire};
use crate::snapshot::MachineId;
use crate::vm;

/// How long to wait before accepting again when that failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Requests that may wait for the engine; further ones stay in their clients' sockets.
const REQUESTS_WAITING: usize = 64;

/// Owns a machine from its start to its stop; returns when it is off and everything is flushed.
/// The machine's lock is held throughout, and clients are served on the machine's socket.
pub fn serve(options: EngineOptions, machine: MachineId) -> Result<(), Refusal> {
    let library = options.library.clone();
    let mut engine = Engine::new(EngineOptions { executable: None, ..options })?;
    engine.wait_for_machine(machine);
    engine.start_owned(machine)?;
    let failed = |what: &str, error: io::Error| Refusal::failed(format!("{what}: {error}"));
    let socket = wire::socket_path(&library, machine).map_err(|error| failed("the owner's socket", error))?;
    let listener = wire::listen(&socket).map_err(|error| failed(&format!("listening on {}", socket.display()), error))?;
    let inbox = engine.inbox();
    let accepting = thread::Builder::new().name("accept".into()).spawn(move || {
        for stream in listener.incoming() {
            // One client that can't be served is no reason to stop serving the others.
            let Ok(stream) = stream else {
                thread::sleep(ACCEPT_PAUSE);
                continue;
            };
            if let Err(error) = attend(stream, inbox.clone()) {
                tracing::warn!("a client could not be served: {error}");
            }
        }
    });
    accepting.map_err(|error| failed("the accepting thread", error))?;
    engine.run_until_off(machine);
    let _ = std::fs::remove_file(&socket);
    let _ = std::fs::remove_file(socket.with_extension("log"));
    Ok(())
}

/// Whether the machine's guest is still there after its owner was killed.
pub fn guest_is_left(library: &Path, machine: MachineId) -> bool {
    wire::guest_folder(library, machine).is_ok_and(|sockets| vm::is_left(&sockets))
}

/// Serves one client: a thread that reads its requests, and one that writes events to it.
fn attend(stream: LocalSocketStream, inbox: Sender<Inbox>) -> io::Result<()> {
    let stream = Arc::new(stream);
    let handle = Arc::new(EngineHandle::subscribe(inbox, None)?);
    let (reading, asked) = (handle.clone(), stream.clone());
    thread::Builder::new().name("client's requests".into()).spawn(move || {
        while let Ok(request) = wire::receive(&mut &*asked, wire::REQUEST_LIMIT) {
            // Whom nothing is told any more is hung up on.
            if Arc::strong_count(&reading) == 1 {
                break;
            }
            while reading.requests_waiting() > REQUESTS_WAITING {
                thread::sleep(Duration::from_millis(1));
            }
            if reading.send(request).is_err() {
                return;
            }
        }
        reading.leave();
    })?;
    thread::Builder::new().name("client's events".into()).spawn(move || {
        for event in handle.events().iter() {
            if wire::send(&mut &*stream, &event, wire::EVENT_LIMIT).is_err() {
                handle.leave();
                return;
            }
        }
    })?;
    Ok(())
}
