//! What runs a machine.
//!
//! ```text
//! start(setup) ─> running ─ pause ─> paused ─ resume ─> running ─ stop ─> (gone)
//!                             │  begin_capture, Chain::push_leaf, frame
//!                             └─ drained: no write is in flight, memory and disks are of one instant
//!        its operating system shuts down, or its process is killed ─> ended
//!        a write or a flush that finds the volume full ─> paused by itself (met_full); resume does it again
//! ```

#[cfg(unix)]
pub mod qemu;
pub mod workload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::chain::BlockDevice;
use crate::clock::SharedClock;
use crate::disk::{self, DiskError};
use crate::host_file::HostFile;
use crate::memory::{Capture, SaveProgress, SaveReport};
use crate::snapshot::{Configuration, MachineKind};
use crate::units::ByteCount;

/// Why a machine doesn't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A disk, or the file of saved memory, failed or is wrong.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// QEMU doesn't do what it was asked.
    #[cfg(unix)]
    #[error(transparent)]
    Qmp(#[from] qemu::qmp::QmpError),
    /// It can't be, and why.
    #[error("{0}")]
    Refused(String),
}

impl VmError {
    /// Whether there was no room on the volume.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Disk(error) if error.is_full())
    }
}

/// A result about a machine.
pub type Result<T, E = VmError> = std::result::Result<T, E>;

/// What a machine is started from.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Memory size, disks and behaviour.
    pub configuration: Configuration,
    /// Its disks, in the configuration's order.
    pub disks: Vec<Arc<dyn BlockDevice>>,
    /// Saved memory to continue from; without it the machine boots.
    pub saved_memory: Option<Arc<dyn HostFile>>,
    /// Tells the time.
    pub clock: SharedClock,
}

/// Where a machine that is a process of its own has what isn't in the library.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The folder of its sockets, which nobody else may enter; paths in it must be short enough for sockets.
    pub sockets: PathBuf,
    /// Where the serial port's output goes.
    pub console: Option<PathBuf>,
}

/// What is known of a running machine that is a process of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    /// The folder of its sockets.
    pub sockets: PathBuf,
    /// The socket at which a viewer (VNC) sees its screen.
    pub viewer: PathBuf,
    /// The file with what its serial port said.
    pub console: Option<PathBuf>,
    /// Whether the processor itself runs it; otherwise it is emulated, many times slower.
    pub accelerated: bool,
    /// Why its memory can't be saved while it runs, so that it stands still meanwhile; `None` where it can.
    pub stands_still_to_save: Option<String>,
    /// The command, one line, that lets this user have it saved while it runs, from the machine's next start on.
    #[serde(default)]
    pub remedy: Option<String>,
}

impl Outside {
    /// About how long it stands still while so much memory is saved; `None` where it goes on meanwhile. A guess, on the safe
    /// side: QEMU was seen to save 0.6 to 2 GiB in a second.
    pub fn pause_to_save(&self, memory: ByteCount) -> Option<Duration> {
        const RATE: f64 = (512 << 20) as f64;
        self.stands_still_to_save.as_ref().map(|_| Duration::from_secs_f64(0.1 + memory.0 as f64 / RATE))
    }
}

/// How a machine has ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Its operating system has shut down.
    ShutDown,
    /// What ran it is gone, and why.
    Failed(String),
}

/// A machine that runs, or stands still between [`Guest::pause`] and [`Guest::resume`]. Dropping it stops it without a flush.
pub trait Guest: Send + Sync {
    /// Lets it stand still, and returns when none of its writes is in flight. Quick.
    fn pause(&self);
    /// Lets it go on.
    fn resume(&self);
    /// Whether a write or a flush has found the volume full. It stands still by itself then, without an error for what
    /// runs in it and with nothing lost: when it is resumed, it does the same again.
    fn met_full(&self) -> bool;
    /// Asks its operating system to shut down, as a power button does; `false` where there is none, and nothing to ask.
    fn press_power_button(&self) -> Result<bool> {
        Ok(false)
    }
    /// Remembers, for who takes it over, that somebody has paused it, or lets it go on.
    fn remember_pause(&self, _paused: bool) {}
    /// Whether that was so when it was taken over.
    fn was_paused(&self) -> bool {
        false
    }
    /// How it has ended by itself, if it has: [`Guest::stop`] flushes its disks then.
    fn ended(&self) -> Option<Ended> {
        None
    }
    /// What is known of it where it is a process of its own.
    fn outside(&self) -> Option<Outside> {
        None
    }
    /// Ends it for good and flushes its disks. Memory can still be read and saved.
    fn stop(&self) -> Result<()>;
    /// Makes ready for [`Guest::begin_capture`] what would take time in the pause.
    fn ready_capture(&self) -> Result<()> {
        Ok(())
    }
    /// Starts saving its memory as it is now, into a new, empty file. Only while it stands still.
    fn begin_capture(&self, file: Arc<dyn HostFile>, id: Uuid) -> Result<Box<dyn MemorySave>>;
    /// What its screen shows now.
    fn frame(&self) -> Frame;
    /// Whether a picture takes longer than a pause should: then it is taken just before.
    fn frame_is_slow(&self) -> bool {
        false
    }
    /// What it has done since it was started.
    fn counters(&self) -> WorkloadCounters;
    /// What made it stand still for good, such as a disk that failed.
    fn problem(&self) -> Option<String>;
    /// Scrambles memory and disk visibly (the demo's "Bad update"). Refused while it stands still.
    fn bad_update(&self) -> Result<()>;
}

/// Memory being saved while the machine goes on; see [`Capture`].
pub trait MemorySave: Send {
    /// Saves about `budget` bytes more. To be called until it is finished, or dropped: guest writes may wait for it.
    fn step(&mut self, budget: ByteCount) -> disk::Result<SaveProgress>;
    /// What it has cost so far.
    fn report(&self) -> SaveReport;
}

impl MemorySave for Capture {
    fn step(&mut self, budget: ByteCount) -> disk::Result<SaveProgress> {
        Self::step(self, budget)
    }
    fn report(&self) -> SaveReport {
        Self::report(self)
    }
}

/// Starts a machine; it runs when this returns. Where an owner that was killed has left it running, it is taken over as it is.
pub fn start(kind: MachineKind, setup: Setup, places: &Places) -> Result<Arc<dyn Guest>> {
    match kind {
        MachineKind::Workload => Ok(Arc::new(workload::Running::start(setup)?)),
        #[cfg(unix)]
        MachineKind::Qemu => {
            if let Some(left) = qemu::Running::adopt(&setup, places)? {
                return Ok(Arc::new(left));
            }
            let qemu = qemu::Qemu::known(&places.sockets)?;
            Ok(Arc::new(qemu::Running::start(setup, &qemu, places)?))
        }
        #[cfg(not(unix))]
        MachineKind::Qemu => Err(VmError::Refused(format!("{places:?}: QEMU's disks are served over unix sockets only"))),
        MachineKind::Disks => Err(VmError::Refused("it has disks only; nothing here runs it".into())),
    }
}

/// Whether a guest was left behind in this folder of sockets by an owner that was killed. Not to be asked while it has one.
pub fn is_left(sockets: &Path) -> bool {
    #[cfg(unix)]
    return qemu::is_left(sockets);
    #[cfg(not(unix))]
    {
        let _ = sockets;
        false
    }
}

/// Ends a guest that was left behind, at once.
pub fn end_left(sockets: &Path) -> Result<()> {
    #[cfg(unix)]
    return qemu::end_left(sockets);
    #[cfg(not(unix))]
    {
        let _ = sockets;
        Ok(())
    }
}

/// What a screen shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Three bytes a pixel, row by row from the top.
    pub rgb: Vec<u8>,
    /// The picture's generation.
    pub generation: u64,
    /// A checksum of what is shown, counters that depend on timing left out.
    pub checksum: u32,
}

impl Frame {
    /// The same as a PNG file.
    pub fn encode(&self) -> Screen {
        let mut png = Vec::new();
        let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::NoFilter);
        if let Err(error) = encoder.write_image(&self.rgb, self.width, self.height, ExtendedColorType::Rgb8) {
            tracing::error!(%error, "a frame of {} x {} can't be encoded", self.width, self.height);
        }
        Screen { width: self.width, height: self.height, png, generation: self.generation, checksum: self.checksum }
    }
}

/// A picture of a machine's screen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Screen {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The picture as a PNG file.
    pub png: Vec<u8>,
    /// The picture's generation.
    pub generation: u64,
    /// A checksum of what is shown.
    pub checksum: u32,
}

/// What a running workload has done since it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadCounters {
    /// Memory pages written.
    pub page_writes: u64,
    /// Disk reads.
    pub disk_reads: u64,
    /// Disk writes.
    pub disk_writes: u64,
    /// Disk flushes.
    pub disk_flushes: u64,
    /// Bytes read back and found right.
    pub verified: ByteCount,
    /// Bytes found wrong.
    pub wrong: ByteCount,
    /// Mean time of a disk read.
    pub read_latency: Duration,
    /// Mean time of a disk write.
    pub write_latency: Duration,
}

/// What a verification has read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Disk bytes read and compared.
    pub disk: ByteCount,
    /// Memory bytes read and compared.
    pub memory: ByteCount,
    /// The generation of the picture found in memory, or stored with the disks.
    pub picture_generation: u64,
    /// Everything that was wrong, in words (the first few).
    pub wrong: Vec<String>,
}
