//! A machine that QEMU runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use super::arguments::{arguments, disks, monitor, viewer};
use super::find::{Acceleration, Qemu};
use super::picture::picture;
use super::process::{AT_ONCE, Process, START};
use super::save::{Migration, Save, prepare};
use crate::chain::BlockDevice;
use crate::host_file::HostFile;
use crate::nbd::{Export, Server};
use crate::units::ByteCount;
use crate::vm::{Ended, Frame, Guest, MemorySave, Outside, Places, Result, Setup, VmError, WorkloadCounters};

/// How long loading saved memory may take.
const LOAD: Duration = Duration::from_secs(300);

/// A machine that QEMU runs, and its disks, which are served as long as this lives.
#[derive(Debug)]
pub struct Running {
    process: Arc<Process>,
    /// After the process: it is gone first.
    _server: Server,
    disks: Vec<Arc<dyn BlockDevice>>,
    memory: ByteCount,
    outside: Outside,
    state: Mutex<State>,
    frames: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    full: bool,
    problem: Option<String>,
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
        let export = |(disk, device): (&crate::snapshot::DiskConfig, &Arc<dyn BlockDevice>)| Export {
            name: disk.id.0.clone(),
            description: String::new(),
            device: device.clone(),
            read_only: false,
        };
        let exports = configuration.disks.iter().zip(&devices).map(export).collect();
        let socket = disks(folder);
        let failed = |error| VmError::Refused(format!("serving its disks at {}: {error}", socket.display()));
        let server = Server::start(&socket, exports).map_err(failed)?;
        let process = Arc::new(Process::start(&qemu.program, &arguments, &monitor(folder), START)?);
        if let Some(file) = &saved_memory {
            load(&process, &**file)?;
        }
        let stands_still_to_save = prepare(&process)?;
        if saved_memory.is_some() {
            process.ask("cont", json!({}))?;
        }
        let outside = Outside {
            sockets: folder.to_path_buf(),
            viewer: viewer(folder),
            console: places.console.clone(),
            accelerated: qemu.acceleration == Acceleration::Kvm,
            stands_still_to_save,
        };
        let (memory, frames) = (configuration.memory, AtomicU64::new(0));
        Ok(Self { process, _server: server, disks: devices, memory, outside, state: Mutex::default(), frames })
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what QEMU told of itself.
    fn listen(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        for event in self.process.qmp.events() {
            if event.name == "BLOCK_IO_ERROR" && event.data["action"] == "stop" {
                match event.data["nospace"].as_bool() {
                    Some(true) => state.full = true,
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
        self.told("stop");
    }
    fn resume(&self) {
        // What stopped it is met again where it is still there.
        *self.state() = State::default();
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
    fn ended(&self) -> Option<Ended> {
        self.process.ended()
    }
    fn stop(&self) -> Result<()> {
        // No request of it is under way when it is gone, whether it stood still before or not.
        self.process.end();
        self.flush()
    }
    fn begin_capture(&self, file: Arc<dyn HostFile>, _id: Uuid) -> Result<Box<dyn MemorySave>> {
        let live = self.outside.stands_still_to_save.is_none();
        Ok(Box::new(Save::begin(&self.process, file, self.memory, live)?))
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
