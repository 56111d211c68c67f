//! Memory saved by QEMU while the guest goes on: a page that isn't saved yet is saved before it changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process::Process;
use super::qmp;
use crate::disk::{self, DiskError};
use crate::host_file::HostFile;
use crate::memory::{SaveProgress, SaveReport};
use crate::units::{ByteCount, ByteRate};
use crate::vm::{MemorySave, Result, VmError};

/// How often QEMU is asked.
const POLL: Duration = Duration::from_millis(2);
/// How long a step waits for progress.
const STEP: Duration = Duration::from_millis(20);
/// How long it may take until writes are tracked, and until a save before is forgotten.
const TRACKING: Duration = Duration::from_secs(10);

/// Whether memory can be saved while the guest runs; why not, in QEMU's words.
pub(super) fn prepare(process: &Process) -> Result<Option<String>> {
    process.ask("migrate-set-parameters", json!({"max-bandwidth": 0}))?;
    let on = |name: &str| json!({"capabilities": [{"capability": name, "state": true}]});
    process.ask("migrate-set-capabilities", on("events"))?;
    match process.ask("migrate-set-capabilities", on("background-snapshot")) {
        Ok(_) => Ok(None),
        Err(qmp::QmpError::Refused { reason, .. }) => Ok(Some(reason)),
        Err(error) => Err(error.into()),
    }
}

/// What QEMU says of the save or load under way.
pub(super) struct Migration(Value);

impl Migration {
    pub fn of(process: &Process) -> qmp::Result<Self> {
        process.ask("query-migrate", json!({})).map(Self)
    }

    fn status(&self) -> &str {
        self.0["status"].as_str().unwrap_or_default()
    }

    pub fn is_completed(&self) -> bool {
        self.status() == "completed"
    }

    /// Whether it has begun and hasn't ended.
    pub fn is_under_way(&self) -> bool {
        !matches!(self.status(), "" | "none" | "completed" | "failed" | "cancelled")
    }

    /// Why it came to nothing.
    pub fn failure(&self) -> Option<String> {
        let reason = || self.0["error-desc"].as_str().unwrap_or("QEMU gives no reason").to_owned();
        matches!(self.status(), "failed" | "cancelled" | "cancelling").then(reason)
    }

    fn ram(&self, name: &str) -> u64 {
        self.0["ram"][name].as_u64().unwrap_or(0)
    }

    /// Whether the first pages are saved: from then on every other is saved before it changes.
    fn is_tracking(&self) -> bool {
        self.ram("normal") + self.ram("duplicate") > 0
    }
}

/// A file of memory that QEMU has written.
#[derive(Debug)]
pub(super) struct Saved {
    pub file: Arc<dyn HostFile>,
    /// It couldn't be made durable: what is read from it may not be what was written.
    spoiled: AtomicBool,
}

impl Saved {
    pub fn is_right(&self) -> bool {
        !self.spoiled.load(Ordering::Relaxed)
    }

    /// Makes it durable.
    pub fn flush(&self) -> disk::Result<()> {
        self.file.flush().map_err(|error| {
            self.spoiled.store(true, Ordering::Relaxed);
            DiskError::io(self.file.path(), "flush the saved memory", error)
        })
    }
}

/// A save under way; it is given up when this is dropped before its end.
pub(super) struct Save {
    process: Arc<Process>,
    saved: Arc<Saved>,
    began: Instant,
    memory: ByteCount,
    done: ByteCount,
    ended: Option<Duration>,
}

impl Save {
    /// Begins, while the guest stands still. It may go on when this returns: its memory is saved as it is now. Where
    /// writes can't be tracked, all of it is saved before this returns.
    pub fn begin(process: &Arc<Process>, file: Arc<dyn HostFile>, memory: ByteCount, live: bool) -> Result<Self> {
        let until = Instant::now() + TRACKING;
        forgotten(process)?;
        let address = json!({"transport": "file", "filename": file.path(), "offset": 0});
        process.ask("migrate", json!({"channels": [{"channel-type": "main", "addr": address}]}))?;
        let saved = Arc::new(Saved { file, spoiled: AtomicBool::new(false) });
        let save = Self { process: process.clone(), saved, began: Instant::now(), memory, done: ByteCount::ZERO, ended: None };
        loop {
            let migration = Migration::of(process)?;
            if let Some(reason) = migration.failure() {
                return Err(VmError::Refused(format!("QEMU can't save its memory: {reason}")));
            }
            if migration.is_completed() || (live && migration.is_tracking()) {
                return Ok(save);
            }
            if live && Instant::now() > until {
                return Err(VmError::Refused("QEMU doesn't begin to save its memory".into()));
            }
            thread::sleep(POLL);
        }
    }

    /// The file that it is written to.
    pub fn saved(&self) -> Arc<Saved> {
        self.saved.clone()
    }

    fn wrong(&self, text: impl Into<String>) -> DiskError {
        DiskError::refused(self.saved.file.path(), text)
    }
}

/// Waits until QEMU has forgotten the save before: one right after its end would hang it.
pub(super) fn forgotten(process: &Process) -> Result<()> {
    let until = Instant::now() + TRACKING;
    while is_yankable(process)? {
        if Instant::now() > until {
            return Err(VmError::Refused("QEMU doesn't forget the save before".into()));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Whether a save or load of before is still known to QEMU.
fn is_yankable(process: &Process) -> qmp::Result<bool> {
    let instances = process.ask("query-yank", json!({}))?;
    Ok(instances.as_array().is_some_and(|all| all.iter().any(|instance| instance["type"] == "migration")))
}

impl MemorySave for Save {
    fn step(&mut self, _budget: ByteCount) -> disk::Result<SaveProgress> {
        let until = Instant::now() + STEP;
        while self.ended.is_none() {
            let migration = Migration::of(&self.process).map_err(|error| self.wrong(error.to_string()))?;
            if let Some(reason) = migration.failure() {
                return Err(self.wrong(format!("QEMU can't save its memory: {reason}")));
            }
            if migration.is_completed() {
                self.saved.flush()?;
                self.done = self.memory;
                self.ended = Some(self.began.elapsed());
                break;
            }
            // QEMU counts its own memory, such as the screen's, too.
            let (total, left) = (migration.ram("total"), migration.ram("remaining"));
            let share = total.saturating_sub(left) as f64 / total.max(1) as f64;
            self.done = self.done.max(ByteCount((self.memory.0 as f64 * share) as u64)).min(self.memory);
            if Instant::now() >= until {
                break;
            }
            thread::sleep(POLL);
        }
        let elapsed = self.ended.unwrap_or_else(|| self.began.elapsed());
        let rate = ByteRate(self.done.0 as f64 / elapsed.as_secs_f64().max(1e-9));
        Ok(SaveProgress { done: self.done, total: self.memory, rate, finished: self.ended.is_some() })
    }

    fn report(&self) -> SaveReport {
        let file = ByteCount(self.saved.file.len().unwrap_or(0));
        let elapsed = self.ended.unwrap_or_else(|| self.began.elapsed());
        SaveReport { memory: self.memory, file, elapsed, ..SaveReport::default() }
    }
}

impl Drop for Save {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // The guest goes on unharmed; a QEMU that is gone has nothing to give up.
            let _ = self.process.ask("migrate_cancel", json!({}));
        }
    }
}
