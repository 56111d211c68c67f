//! The socket, and a thread for each connection.

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::Export;
use super::flushes::Flushes;
use super::negotiate::negotiate;
use super::session::{self, Served};
use crate::locks::lock;

/// Connections at a time; further ones are hung up on.
const CONNECTIONS: usize = 64;
/// How long to wait before accepting again when that failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves exports until it is stopped or dropped.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    listener: UnixListener,
    exports: Vec<Export>,
    served: Vec<Arc<Served>>,
    stopping: AtomicBool,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: BTreeMap<u64, (Arc<UnixStream>, JoinHandle<()>)>,
}

impl Server {
    /// Serves the exports at `socket`, a new file of mode 0600. One that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// Where the path is too long for a socket, something else is there, or somebody listens on it.
    pub fn start(socket: &Path, exports: Vec<Export>) -> io::Result<Self> {
        let listener = listen(socket)?;
        let served = |export: &Export| {
            Arc::new(Served { export: export.clone(), flushes: Flushes::default(), failures: AtomicU64::new(0) })
        };
        let served = exports.iter().map(served).collect();
        let shared = Arc::new(Shared { listener, exports, served, stopping: AtomicBool::new(false), open: Mutex::default() });
        let accepting = shared.clone();
        let accepting = thread::Builder::new().name("nbd accept".into()).spawn(move || accepting.accept())?;
        Ok(Self { socket: socket.into(), shared, accepting: Some(accepting) })
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How many requests were answered with an error because a disk failed; one without room isn't meant.
    pub fn failures(&self) -> u64 {
        self.shared.served.iter().map(|served| served.failures.load(Ordering::SeqCst)).sum()
    }

    /// How many clients are connected.
    pub fn connections(&self) -> usize {
        self.shared.open().connections.len()
    }
}

impl Drop for Server {
    /// Hangs up on every client. No request is under way any more afterwards; what was acknowledged isn't flushed by this.
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // That wakes who waits for a connection.
        let _ = rustix::net::shutdown(&self.shared.listener, rustix::net::Shutdown::Both);
        let _ = std::fs::remove_file(&self.socket);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        let connections = std::mem::take(&mut self.shared.open().connections);
        for (stream, _) in connections.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for (_, thread) in connections.into_values() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Open> {
        lock(&self.open)
    }

    fn accept(self: Arc<Self>) {
        while !self.stopping.load(Ordering::SeqCst) {
            // One client that can't be served is no reason to stop serving the others.
            match self.listener.accept() {
                Ok((stream, _)) => self.attend(stream),
                Err(_) if self.stopping.load(Ordering::SeqCst) => return,
                Err(error) => {
                    tracing::warn!(%error, "a client of NBD could not be accepted");
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    fn attend(self: &Arc<Self>, stream: UnixStream) {
        if let Err(error) = check_user(&stream) {
            tracing::warn!(%error, "a client of NBD was hung up on");
            return;
        }
        // Held until the connection stands in the list: its thread takes it out again.
        let mut open = self.open();
        if open.connections.len() >= CONNECTIONS {
            tracing::warn!("a client of NBD was hung up on: there are {CONNECTIONS} already");
            return;
        }
        let (stream, number) = (Arc::new(stream), open.next);
        open.next += 1;
        let (shared, serving) = (self.clone(), stream.clone());
        let thread = thread::Builder::new().name("nbd client".into()).spawn(move || {
            if let Err(error) = shared.serve(&serving)
                && error.kind() == io::ErrorKind::InvalidData
            {
                tracing::warn!(%error, "a client of NBD was hung up on");
            }
            let _ = serving.shutdown(Shutdown::Both);
            shared.open().connections.remove(&number);
        });
        match thread {
            Ok(thread) => drop(open.connections.insert(number, (stream, thread))),
            Err(error) => tracing::warn!(%error, "a client of NBD could not be served"),
        }
    }

    fn serve(&self, stream: &Arc<UnixStream>) -> io::Result<()> {
        match negotiate(&mut &**stream, &self.exports)? {
            None => Ok(()),
            Some(agreed) => session::run(stream.clone(), self.served[agreed.export].clone(), agreed),
        }
    }
}

/// Only the user that this process runs as is served.
fn check_user(stream: &UnixStream) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let (theirs, ours) = (rustix::net::sockopt::socket_peercred(stream)?.uid, rustix::process::geteuid());
        if theirs != ours {
            let text = format!("it runs as user {}, not as {}", theirs.as_raw(), ours.as_raw());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    let _ = stream;
    Ok(())
}

/// A socket that only this user can open, from its first instant on.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let address = SocketAddrUnix::new(path).map_err(|_| {
        let text = format!("{} is too long for a socket's path: 107 bytes at most", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // The file that bind makes takes over the socket's own mode.
    rustix::fs::fchmod(&socket, 0o600.into())?;
    match rustix::net::bind(&socket, &address) {
        Err(rustix::io::Errno::ADDRINUSE) if is_left_over(path) => {
            std::fs::remove_file(path)?;
            rustix::net::bind(&socket, &address)?;
        }
        bound => bound?,
    }
    rustix::net::listen(&socket, CONNECTIONS as i32)?;
    Ok(socket.into())
}

/// Whether it is a socket that nobody listens on, such as a killed process leaves it.
fn is_left_over(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
