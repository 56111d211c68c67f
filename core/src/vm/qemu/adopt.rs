//! A guest whose owner was killed is taken over by the next one: QEMU waits for its disks' server meanwhile.
//!
//! ```text
//! owner killed ─> requests of the guest wait (reconnect delay) ─> server at the same socket ─> they are asked again
//!                 a delay that is over ─> the guest stands still (io-error) ─> cont, again and again until it runs
//! a save under way ─> given up;    a guest that stands still, and nobody has paused it ─> cont
//! ```

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::arguments::monitor;
use super::process::Process;
use super::save::Migration;
use crate::vm::{Result, VmError};

/// How long it may take until the guest runs: QEMU asks for its disks' server every 16 s at last.
const GO_ON: Duration = Duration::from_secs(60);
/// A guest that has run for so long without an error of its disks goes on.
const SETTLED: Duration = Duration::from_millis(300);
/// How often QEMU is asked.
const POLL: Duration = Duration::from_millis(20);

/// Connects to a QEMU that was left behind in this folder of sockets, if one is there.
pub(super) fn find(folder: &Path) -> Option<UnixStream> {
    UnixStream::connect(monitor(folder)).ok()
}

/// Whether a guest was left behind there by an owner that was killed. Not to be asked while it has an owner.
pub fn is_left(folder: &Path) -> bool {
    find(folder).is_some()
}

/// Ends a guest that was left behind, at once.
///
/// # Errors
/// Where it is there and doesn't end.
pub fn end_left(folder: &Path) -> Result<()> {
    let Some(stream) = find(folder) else { return Ok(()) };
    Process::adopt(stream)?.end();
    match find(folder) {
        None => Ok(()),
        Some(_) => Err(VmError::Refused("the QEMU that was left behind doesn't end".into())),
    }
}

/// What became of one whose monitor was connected to.
pub(super) enum Found {
    /// It has a guest that can go on.
    Guest(Process),
    /// It hadn't come so far that it had one, or had lost it; it is gone now.
    Nothing,
}

/// Takes it over; its disks are served already.
pub(super) fn adopt(stream: UnixStream) -> Result<Found> {
    let process = Process::adopt(stream)?;
    match status(&process)?.as_str() {
        "running" | "paused" | "io-error" | "postmigrate" | "finish-migrate" | "suspended" | "save-vm" => {
            Ok(Found::Guest(process))
        }
        _ => {
            process.end();
            Ok(Found::Nothing)
        }
    }
}

fn status(process: &Process) -> Result<String> {
    let status = process.ask("query-status", json!({}))?;
    Ok(status["status"].as_str().unwrap_or_default().to_owned())
}

/// Gives up a save that nobody waits for any more.
pub(super) fn forget_save(process: &Process) -> Result<()> {
    let until = Instant::now() + GO_ON;
    while Migration::of(process)?.is_under_way() {
        // Asked again and again: a save is at times not yet far enough to hear it.
        process.ask("migrate_cancel", json!({}))?;
        if Instant::now() > until {
            return Err(VmError::Refused("QEMU doesn't give up the save of before".into()));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Lets the guest go on, and returns when it does.
pub(super) fn go_on(process: &Process) -> Result<()> {
    let until = Instant::now() + GO_ON;
    let (mut since, mut refused) = (None, String::new());
    loop {
        let now = Instant::now();
        match status(process)?.as_str() {
            "running" => {
                if now >= *since.get_or_insert(now) + SETTLED {
                    // What its disks failed with meanwhile is over.
                    process.qmp.events();
                    return Ok(());
                }
            }
            status if now > until => {
                let seconds = GO_ON.as_secs();
                let text = format!("the guest that was left behind doesn't go on within {seconds} s ({status}) {refused}");
                return Err(VmError::Refused(text.trim_end().into()));
            }
            _ => {
                since = None;
                if let Err(error) = process.ask("cont", json!({})) {
                    refused = error.to_string();
                }
            }
        }
        thread::sleep(POLL);
    }
}
