//! A machine that QEMU runs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use super::adopt;
use super::again::Again;
use super::arguments::{arguments, disks, monitor, viewer};
use super::find::{Acceleration, Qemu};
use super::permission::remedy;
use super::picture::picture;
use super::process::{AT_ONCE, Process, START};
use super::save::{Migration, Save, Saved, forgotten, prepare};
use crate::chain::BlockDevice;
use crate::disk::DiskError;
use crate::host_file::{Access, Host, HostFile, OsHost};
use crate::locks::lock;
use crate::nbd::{Export, Server};
use crate::snapshot::{Configuration, DiskConfig};
use crate::units::ByteCount;
use crate::vm::{Ended, Frame, Guest, MemorySave, Outside, Places, Result, Setup, VmError, WorkloadCounters};

/// For so long after a guest was taken over its disks may fail, and it goes on by itself: QEMU asks for their server every
/// 16 s at last.
const FORGIVES: Duration = Duration::from_secs(60);
/// How long loading saved memory may take.
const LOAD: Duration = Duration::from_secs(300);

/// A machine that QEMU runs, and its disks, which are served as long as this lives.
#[derive(Debug)]
pub struct Running {
    process: Arc<Process>,
    /// After the process: it is gone first.
    server: Server,
    disks: Vec<Arc<dyn BlockDevice>>,
    memory: ByteCount,
    outside: Outside,
    was_paused: bool,
    state: Mutex<State>,
    frames: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    full: bool,
    problem: Option<String>,
    /// It has said that it ends.
    shut_down: bool,
    /// It was told to stand still.
    paused: bool,
    /// Until then a disk that fails is one that QEMU hasn't found again yet, unless its server has said so.
    forgives_until: Option<Instant>,
    /// Where its memory stands as long as it hasn't run since that was saved.
    unchanged: Option<Arc<Saved>>,
}

impl Running {
    /// Starts it; it runs when this returns.
    ///
    /// # Errors
    /// What QEMU refuses, and saved memory that can't be loaded.
    pub fn start(setup: Setup, qemu: &Qemu, places: &Places) -> Result<Self> {
        let Setup { configuration, disks: devices, saved_memory, .. } = setup;
        let folder = &*places.sockets;
        let arguments = arguments(&configuration, qemu.acceleration, places, saved_memory.is_some())?;
        let server = serve(&configuration, &devices, folder)?;
        let process = Arc::new(Process::start(&qemu.program, &arguments, &monitor(folder), START)?);
        if let Some(file) = &saved_memory {
            load(&process, &**file)?;
        }
        let stands_still_to_save = prepare(&process)?;
        if saved_memory.is_some() {
            process.ask("cont", json!({}))?;
        }
        let outside = outside(places, qemu.acceleration == Acceleration::Kvm, stands_still_to_save);
        Ok(Self::of(process, server, devices, configuration.memory, outside, State::default()))
    }

    /// Takes over the guest that an owner which was killed has left, if there is one; it goes on when this returns, unless
    /// somebody has paused it.
    ///
    /// # Errors
    /// Where it is there and can't be taken over: it is left as it is.
    pub fn adopt(setup: &Setup, places: &Places) -> Result<Option<Self>> {
        let folder = &*places.sockets;
        let Some(monitor) = adopt::find(folder) else { return Ok(None) };
        // Without its disks it may not even answer.
        let server = serve(&setup.configuration, &setup.disks, folder)?;
        let adopt::Found::Guest(process) = adopt::adopt(monitor)? else { return Ok(None) };
        adopt::forget_save(&process)?;
        let stands_still_to_save = prepare(&process)?;
        let accelerated = process.ask("query-kvm", json!({}))?["enabled"] == true;
        let was_paused = OsHost.exists(&pause_mark(folder));
        if !was_paused {
            adopt::go_on(&process)?;
        }
        process.hold();
        let process = Arc::new(process);
        let outside = outside(places, accelerated, stands_still_to_save);
        let forgives_until = Some(Instant::now() + FORGIVES);
        let state = State { paused: was_paused, forgives_until, ..State::default() };
        Ok(Some(Self::of(process, server, setup.disks.clone(), setup.configuration.memory, outside, state)))
    }

    fn of(
        process: Arc<Process>,
        server: Server,
        disks: Vec<Arc<dyn BlockDevice>>,
        memory: ByteCount,
        outside: Outside,
        state: State,
    ) -> Self {
        let was_paused = state.paused;
        let (state, frames) = (Mutex::new(state), AtomicU64::new(0));
        Self { process, server, disks, memory, outside, was_paused, state, frames }
    }

    /// Leaves the guest without anybody, and its disks unserved, as a kill of this process would.
    #[cfg(any(test, feature = "testing"))]
    pub fn leave(self) {
        self.process.let_go();
    }

    /// Asks QEMU something that isn't provided for here.
    ///
    /// # Errors
    /// What QEMU refuses, and where it is gone.
    pub fn ask(&self, command: &str, arguments: serde_json::Value) -> Result<serde_json::Value> {
        Ok(self.process.ask(command, arguments)?)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.disks.iter().try_for_each(|disk| disk.flush())?)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Takes in what QEMU told of itself.
    fn listen(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        // Where no disk has failed, it was the way to them that wasn't there.
        let forgives = state.forgives_until.is_some_and(|until| Instant::now() < until) && self.server.failures() == 0;
        for event in self.process.qmp.events() {
            state.shut_down |= event.name == "SHUTDOWN";
            if event.name == "BLOCK_IO_ERROR" && event.data["action"] == "stop" {
                match event.data["nospace"].as_bool() {
                    Some(true) => state.full = true,
                    // Where it is told to stand still, it does it again when it goes on.
                    _ if forgives && state.paused => {}
                    _ if forgives => match self.process.ask("cont", json!({})) {
                        Ok(_) => {}
                        Err(error) => state.problem = Some(error.to_string()),
                    },
                    _ => state.problem = Some(format!("its disk failed: {}", event.data["reason"])),
                }
            }
        }
        state
    }

    fn told(&self, command: &str) {
        if let Err(error) = self.process.ask(command, json!({})) {
            self.state().problem = Some(error.to_string());
        }
    }
}

/// What is there while somebody has paused it.
fn pause_mark(folder: &Path) -> PathBuf {
    folder.join("paused")
}

fn outside(places: &Places, accelerated: bool, stands_still_to_save: Option<String>) -> Outside {
    let (sockets, console) = (places.sockets.clone(), places.console.clone());
    let remedy = stands_still_to_save.as_ref().and_then(|_| remedy()).map(str::to_owned);
    Outside { viewer: viewer(&sockets), sockets, console, accelerated, stands_still_to_save, remedy }
}

/// Whether it hasn't run since its memory was saved: QEMU doesn't save it again then.
fn has_stood_still(process: &Process) -> Result<bool> {
    Ok(process.ask("query-status", json!({}))?["status"] == "postmigrate")
}

/// Serves the disks at their socket.
fn serve(configuration: &Configuration, devices: &[Arc<dyn BlockDevice>], folder: &Path) -> Result<Server> {
    let export = |(disk, device): (&DiskConfig, &Arc<dyn BlockDevice>)| Export {
        name: disk.id.0.clone(),
        description: String::new(),
        device: device.clone(),
        read_only: false,
    };
    let exports = configuration.disks.iter().zip(devices).map(export).collect();
    let socket = disks(folder);
    let failed = |error| VmError::Refused(format!("serving its disks at {}: {error}", socket.display()));
    Server::start(&socket, exports).map_err(failed)
}

/// Has a QEMU that waits for memory take it from the file.
fn load(process: &Process, file: &dyn HostFile) -> Result<()> {
    let address = json!({"transport": "file", "filename": file.path(), "offset": 0});
    process.ask("migrate-incoming", json!({"channels": [{"channel-type": "main", "addr": address}]}))?;
    let until = Instant::now() + LOAD;
    loop {
        let migration = match Migration::of(process) {
            Ok(migration) => migration,
            // A file that can't be loaded ends it.
            Err(error) => {
                process.wait(AT_ONCE);
                return Err(match process.ended() {
                    Some(Ended::Failed(why)) => VmError::Refused(why),
                    _ => error.into(),
                });
            }
        };
        if migration.is_completed() {
            return Ok(());
        }
        if let Some(reason) = migration.failure() {
            return Err(VmError::Refused(format!("{} can't be loaded: {reason}", file.path().display())));
        }
        if Instant::now() > until {
            return Err(VmError::Refused(format!("{} isn't loaded after {} s", file.path().display(), LOAD.as_secs())));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

impl Guest for Running {
    fn pause(&self) {
        self.state().paused = true;
        self.told("stop");
    }
    fn resume(&self) {
        // What stopped it is met again where it is still there.
        let mut state = self.state();
        (state.full, state.problem, state.paused, state.unchanged) = (false, None, false, None);
        drop(state);
        self.told("cont");
    }
    fn met_full(&self) -> bool {
        self.listen().full
    }
    fn press_power_button(&self) -> Result<bool> {
        self.process.ask("system_powerdown", json!({}))?;
        Ok(true)
    }
    fn outside(&self) -> Option<Outside> {
        Some(self.outside.clone())
    }
    fn remember_pause(&self, paused: bool) {
        let mark = pause_mark(&self.outside.sockets);
        let there = OsHost.exists(&mark);
        let done = match paused {
            true if !there => OsHost.create_new(&mark).map(drop),
            false if there => OsHost.remove_file(&mark),
            _ => Ok(()),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "{}: whether it is paused isn't remembered", mark.display());
        }
    }
    fn was_paused(&self) -> bool {
        self.was_paused
    }
    fn ended(&self) -> Option<Ended> {
        // What it told before it ended is heard first.
        let shut_down = self.listen().shut_down;
        match self.process.ended()? {
            Ended::Failed(_) if shut_down => Some(Ended::ShutDown),
            how => Some(how),
        }
    }
    fn stop(&self) -> Result<()> {
        // No request of it is under way when it is gone, whether it stood still before or not.
        self.process.end();
        self.flush()
    }
    fn ready_capture(&self) -> Result<()> {
        if has_stood_still(&self.process)? && !self.state().unchanged.as_ref().is_some_and(|saved| saved.is_right()) {
            let text = "QEMU saves its memory only once while it stands still, and what it saved isn't at hand any more: resume \
                        it for a moment, or take its disks only";
            return Err(VmError::Refused(text.into()));
        }
        forgotten(&self.process)
    }
    fn begin_capture(&self, file: Arc<dyn HostFile>, _id: Uuid) -> Result<Box<dyn MemorySave>> {
        let live = self.outside.stands_still_to_save.is_none();
        let unchanged = self.state().unchanged.clone();
        if let Some(from) = unchanged.filter(|_| !live) {
            return Ok(Box::new(Again::begin(from, file, self.memory)?));
        }
        let save = Save::begin(&self.process, file.clone(), self.memory, live)?;
        if !live {
            // All of it is written; others may read it as long as this is kept.
            let failed = |error| DiskError::io(file.path(), "share the saved memory", error);
            file.relock(Access::Read).map_err(failed)?;
            self.state().unchanged = Some(save.saved());
        }
        Ok(Box::new(save))
    }
    fn frame(&self) -> Frame {
        let generation = self.frames.fetch_add(1, Ordering::Relaxed) + 1;
        picture(&self.process, &self.outside.sockets, generation).unwrap_or_else(|error| {
            tracing::warn!(%error, "no picture of a screen");
            Frame { width: 1, height: 1, rgb: vec![0; 3], generation: 0, checksum: 0 }
        })
    }
    fn frame_is_slow(&self) -> bool {
        true
    }
    fn counters(&self) -> WorkloadCounters {
        WorkloadCounters::default()
    }
    fn problem(&self) -> Option<String> {
        self.listen().problem.clone()
    }
    fn bad_update(&self) -> Result<()> {
        Err(VmError::Refused("only the built-in machine has a bad update".into()))
    }
}
