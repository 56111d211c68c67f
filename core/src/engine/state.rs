//! What is known of the library and its machines, published whole.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::cost::{Calibration, Census, FileFacts, Finding, FindingKind, MachineFacts, VolumeState, advise, no_room};
use crate::snapshot::{DiskId, ImageId, Machine, MachineId};
use crate::units::ByteRate;
use crate::vm::Outside;

/// The library.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LibraryState {
    /// Its folder.
    pub folder: PathBuf,
    /// Its machines, by name.
    pub machines: Vec<MachineId>,
    /// Folders that were opened to be looked at.
    pub folders: Vec<PathBuf>,
    /// What couldn't be read, in words (file, offset, field).
    pub problems: Vec<String>,
}

/// Whose files a machine stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Ours: it can be changed.
    Library,
    /// A folder that was opened: read-only until it is adopted.
    Folder(PathBuf),
}

/// Whether a machine runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// Off.
    Off,
    /// Off, and the next start continues from saved memory.
    Saved,
    /// Its owner is coming up.
    Starting,
    /// It runs.
    Running,
    /// It stands still: a person has paused it.
    Paused,
    /// It stands still because its volume is nearly full, and goes on by itself when there is room.
    NoRoom,
    /// It stopped because something went wrong.
    Failed(String),
}

impl Power {
    /// Whether it runs, or stands still with its memory in place.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::NoRoom)
    }
}

/// A machine, whole. Rows, costs, outcomes and advice are computed from this by pure functions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineState {
    /// The manifest.
    pub machine: Arc<Machine>,
    /// The machine's folder.
    pub folder: PathBuf,
    /// Whose files these are.
    pub place: Place,
    /// Whether it runs.
    pub power: Power,
    /// Facts per image.
    pub files: BTreeMap<ImageId, FileFacts>,
    /// Per disk, which images hold how much of it. Missing while it is being counted.
    pub census: BTreeMap<DiskId, Arc<Census>>,
    /// What finished merges have taught on this volume.
    pub calibration: Calibration,
    /// The volume.
    pub volume: VolumeState,
    /// What its guest writes in a second, where it runs and that is known.
    #[serde(default)]
    pub guest: Option<ByteRate>,
    /// What is known of it where it runs as a process of its own.
    #[serde(default)]
    pub outside: Option<Outside>,
    /// Its volume is being probed: a first estimate is about to be known.
    #[serde(default)]
    pub probing: bool,
    /// How many processors it has, where a configuration of Hyper-V's says so.
    #[serde(default)]
    pub processors: Option<u32>,
    /// What is wrong with it, in words.
    pub problems: Vec<String>,
}

impl MachineState {
    /// What its costs follow from.
    pub fn facts(&self) -> MachineFacts<'_> {
        MachineFacts {
            machine: &self.machine,
            files: &self.files,
            census: &self.census,
            calibration: &self.calibration,
            volume: &self.volume,
            running: self.power.is_up(),
            guest: self.guest,
        }
    }

    /// Everything that somebody should look at, the worst first.
    pub fn advice(&self, now: DateTime<Utc>) -> Vec<Finding> {
        let mut findings = advise(&self.facts(), now);
        if self.power == Power::NoRoom {
            findings.retain(|finding| !matches!(finding.kind, FindingKind::DiskFilling { .. }));
            findings.insert(0, no_room(&self.facts()));
        }
        findings
    }
}
