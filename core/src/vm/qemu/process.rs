//! QEMU's process, from its start to its end.

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::{Value, json};

use super::qmp::{self, Qmp};
use crate::locks::lock;
use crate::vm::{Ended, Result, VmError};

/// What QEMU does at once is given so long, on a computer that is busy.
pub(super) const AT_ONCE: Duration = Duration::from_secs(10);
/// How long it may take until its monitor listens.
pub(super) const START: Duration = Duration::from_secs(20);
/// How long one that was left behind may take to answer: it may wait for its disks, and asks for their server every 16 s
/// at last.
const ADOPT: Duration = Duration::from_secs(40);
/// So much of what it says is kept.
const SAID_MAX: usize = 4096;

/// A QEMU that runs; it is killed when this is dropped, unless it was found and isn't held yet.
#[derive(Debug)]
pub(super) struct Process {
    who: Who,
    held: AtomicBool,
    /// The end of what it said.
    said: Arc<Mutex<Vec<u8>>>,
    pub qmp: Qmp,
}

#[derive(Debug)]
enum Who {
    /// This process has started it.
    Child(Mutex<Child>),
    /// A process that was killed had started it: the kernel's handle of it, which never becomes another one's. Its
    /// connection ends a little before it does, and its sockets are there until then.
    Adopted(OwnedFd),
}

/// Keeps the end of what a process says until it ends.
fn keep(mut from: impl Read, said: &Mutex<Vec<u8>>) {
    let mut part = [0; 512];
    while let Ok(length @ 1..) = from.read(&mut part) {
        let mut said = lock(said);
        said.extend_from_slice(&part[..length]);
        let over = said.len().saturating_sub(SAID_MAX);
        said.drain(..over);
    }
}

impl Process {
    /// Starts it; its monitor can be asked when this returns, after `limit` at most.
    pub fn start(program: &Path, arguments: &[OsString], monitor: &Path, limit: Duration) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // What ends this process by the terminal doesn't end the machine.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let refused = |error: std::io::Error| VmError::Refused(format!("{} can't be started: {error}", program.display()));
        let mut child = command.spawn().map_err(refused)?;
        let said = Arc::new(Mutex::new(Vec::new()));
        if let Some(errors) = child.stderr.take() {
            let keeping = said.clone();
            thread::Builder::new().name("qemu".into()).spawn(move || keep(errors, &keeping)).map_err(refused)?;
        }
        let until = Instant::now() + limit;
        loop {
            // Its monitor's file can be there from another one that was killed.
            match Qmp::connect(monitor, Duration::from_millis(20)) {
                Ok(qmp) => return Ok(Self { who: Who::Child(Mutex::new(child)), held: AtomicBool::new(true), said, qmp }),
                Err(error) => {
                    let ended = child.try_wait().map_err(refused)?;
                    if ended.is_none() && Instant::now() < until {
                        continue;
                    }
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(match ended {
                        Some(status) => VmError::Refused(ended_with(&status.to_string(), &said)),
                        None => error.into(),
                    });
                }
            }
        }
    }

    /// Takes over one that another process has started, by a connection to its monitor.
    pub fn adopt(monitor: UnixStream) -> Result<Self> {
        let failed = |error: std::io::Error| VmError::Refused(format!("who has QEMU's monitor: {error}"));
        let peer = rustix::net::sockopt::socket_peercred(&monitor).map_err(|error| failed(error.into()))?;
        if peer.uid != rustix::process::geteuid() {
            return Err(VmError::Refused("QEMU's monitor is somebody else's".into()));
        }
        // Its number could have become another one's by then only if the connection had ended; then nothing is asked of it.
        let handle = rustix::process::pidfd_open(peer.pid, PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
        let qmp = Qmp::over(monitor).map_err(VmError::from)?;
        qmp.ask("qmp_capabilities", json!({}), ADOPT)?;
        Ok(Self { who: Who::Adopted(handle), held: AtomicBool::new(false), said: Arc::default(), qmp })
    }

    /// From now on it ends with this.
    pub fn hold(&self) {
        self.held.store(true, Ordering::Relaxed);
    }

    /// From now on it outlives this.
    #[cfg(any(test, feature = "testing"))]
    pub fn let_go(&self) {
        self.held.store(false, Ordering::Relaxed);
    }

    /// Asks for something that is done at once.
    pub fn ask(&self, command: &str, arguments: Value) -> qmp::Result<Value> {
        self.qmp.ask(command, arguments, AT_ONCE)
    }

    /// Whether it has ended, and how: its guest has shut down, or why.
    pub fn ended(&self) -> Option<Ended> {
        match &self.who {
            Who::Child(child) => {
                let status = lock(child).try_wait().ok()??;
                let failed = || Ended::Failed(ended_with(&status.to_string(), &self.said));
                Some(if status.success() { Ended::ShutDown } else { failed() })
            }
            Who::Adopted(_) => self.qmp.ended().map(|how| Ended::Failed(format!("QEMU has ended: {how}"))),
        }
    }

    /// Waits until it is gone, with all that it had open; whether it is.
    pub fn wait(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            let gone = match &self.who {
                Who::Child(child) => matches!(lock(child).try_wait(), Ok(Some(_))),
                // It can be read once the process has ended: pidfd_open(2).
                Who::Adopted(handle) => {
                    let mut handles = [PollFd::new(handle, PollFlags::IN)];
                    matches!(poll(&mut handles, Some(&Timespec::default())), Ok(1))
                }
            };
            if gone || Instant::now() >= until {
                return gone;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it now; it is gone when this returns.
    pub fn end(&self) {
        // It may be gone already.
        let _ = self.qmp.ask("quit", json!({}), Duration::from_secs(2));
        if !self.wait(Duration::from_secs(2)) {
            self.kill();
        }
    }

    fn kill(&self) {
        match &self.who {
            Who::Child(child) => {
                let _ = lock(child).kill();
                let _ = lock(child).wait();
            }
            Who::Adopted(handle) => {
                let _ = rustix::process::pidfd_send_signal(handle, Signal::KILL);
                self.wait(AT_ONCE);
            }
        }
    }
}

/// Lets a program that was started here stand still, or go on.
pub(super) fn stand_still(child: &Child, still: bool) {
    // It may have ended by itself; its number is kept until it is waited for.
    if let Some(pid) = Pid::from_raw(child.id() as i32) {
        let _ = rustix::process::kill_process(pid, if still { Signal::STOP } else { Signal::CONT });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.held.load(Ordering::Relaxed) {
            self.kill();
        }
    }
}

fn ended_with(status: &str, said: &Mutex<Vec<u8>>) -> String {
    let said = lock(said).clone();
    let text = String::from_utf8_lossy(&said);
    match text.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!("QEMU has ended ({status}): {}", line.trim()),
        None => format!("QEMU has ended ({status})"),
    }
}
