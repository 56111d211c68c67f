//! What can be asked of the engine: plain values, the same in process and over a socket.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::chain::Target;
use crate::disk::ImageFormat;
use crate::repair;
use crate::snapshot::{Computer, DiskId, Hardware, MachineId, MachineKind, Settings, SnapshotId, WorkloadProfile};
use crate::units::{ByteCount, ByteRate};
use crate::window::{MaintenanceWindow, OccurrenceKey, WindowId};

/// Names a request, so that its answer finds back to it. Chosen by who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// Whether to do it or only to say what would be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Change nothing; answer with the plan, or with why it would be refused.
    WhatIf,
    /// Do it.
    Do,
}

/// One thing asked of the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Its name.
    pub id: RequestId,
    /// What is asked.
    pub command: Command,
    /// Do it, or only say what would be done.
    pub mode: Mode,
    /// The generation of the manifest that the asker has seen: if the tree has changed
    /// since, the request is refused, so that what was shown is what is done.
    pub expected_generation: Option<u64>,
}

/// A new machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateMachine {
    /// Its name, which is also its folder's.
    pub name: String,
    /// What runs it.
    pub kind: MachineKind,
    /// Memory, a multiple of 4 KiB.
    pub memory: ByteCount,
    /// Sizes of its disks.
    pub disks: Vec<ByteCount>,
    /// Format of its disks.
    pub format: ImageFormat,
    /// How it behaves.
    pub workload: WorkloadProfile,
    /// What else it consists of, where QEMU runs it.
    #[serde(default)]
    pub hardware: Option<Hardware>,
}

/// How images of others come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportMode {
    /// Copied into the library; the originals stay untouched.
    Copy,
    /// Moved into the library.
    Move,
}

/// A disk that is written to a new file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvertImage {
    /// The image that shows it.
    pub image: PathBuf,
    /// Whether that is a raw disk, whatever its bytes say.
    pub raw: bool,
    /// Where its parents may be, beside its own folder.
    pub folders: Vec<PathBuf>,
    /// The new file.
    pub to: PathBuf,
    /// What it shall be.
    pub target: Target,
}

/// A repair of a folder's images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairFolder {
    /// The folder.
    pub folder: PathBuf,
    /// What a person has decided.
    pub choices: repair::Choices,
    /// The plan that was shown, which is carried out; none to have it planned.
    pub plan: Option<Box<repair::Plan>>,
}

/// Images of others to bring in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Import {
    /// A chain's leaf, a folder with a disk's images, or one image of another program's format, which is converted.
    pub path: PathBuf,
    /// The machine's name.
    pub name: String,
    /// Copy or move.
    pub mode: ImportMode,
    /// What QEMU shall run it with; otherwise it is known by its disks.
    pub computer: Option<Computer>,
}

/// What to do with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobAction {
    /// Stop between two steps, keep everything, wait.
    Pause,
    /// Go on.
    Resume,
    /// Stop between two steps and end; what a merge has moved stays moved.
    Cancel,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Look at the library and the opened folders again.
    Rescan,
    /// Look at a folder of images, in place and read-only.
    OpenFolder(PathBuf),
    /// Forget an opened folder.
    CloseFolder(PathBuf),
    /// Create a machine.
    Create(CreateMachine),
    /// Bring images of others in as a machine.
    Import(Import),
    /// Write the disk that an image shows to a new file. A machine's disks may be read so too, where nothing writes them.
    Convert(ConvertImage),
    /// Look into an image, and into what it reads through.
    Inspect {
        /// The image.
        image: PathBuf,
        /// Where its parents may be, beside its own folder.
        folders: Vec<PathBuf>,
    },
    /// Say what each image of a folder is, and what is wrong with it.
    Diagnose(PathBuf),
    /// Put the links of a folder's images right.
    Repair(RepairFolder),
    /// Take the last repair of a folder back, byte for byte.
    UndoRepair(PathBuf),
    /// Free what the repairs of a folder keep: they can't be taken back any more.
    ForgetRepairs(PathBuf),
    /// Forget a machine, or remove its files too.
    Remove {
        /// Which.
        machine: MachineId,
        /// Whether its folder is deleted; otherwise the machine is only forgotten (its folder stays).
        delete_files: bool,
    },
    /// Start a machine; answered when it runs (its owner is up).
    Start(MachineId),
    /// Stop a running machine: flush its disks, end its owner. An operating system is asked to shut down, as by the power
    /// button; one that doesn't obey runs on.
    Stop(MachineId),
    /// The same at once, as by pulling the plug: what an operating system hasn't written is lost.
    TurnOff(MachineId),
    /// Stop its processor for a while.
    Pause(MachineId),
    /// And let it go on.
    Resume(MachineId),
    /// Take a snapshot.
    Take {
        /// Of which machine.
        machine: MachineId,
        /// Its label; unique in the machine.
        label: String,
        /// A note.
        note: String,
        /// Whether memory is saved (only when it runs).
        memory: bool,
    },
    /// Continue from a snapshot.
    Apply {
        /// Of which machine.
        machine: MachineId,
        /// Which snapshot.
        snapshot: SnapshotId,
        /// The label of a snapshot of Now that is taken first; `None` puts what Now held into the trash.
        safety: Option<String>,
    },
    /// Put back what Now held before the last apply.
    UndoApply(MachineId),
    /// Delete snapshots.
    Delete {
        /// Of which machine.
        machine: MachineId,
        /// Which.
        snapshots: Vec<SnapshotId>,
        /// Whether all that hangs from them goes too.
        subtree: bool,
        /// Whether files that nothing reads through are removed at once, instead of going to the trash.
        free_now: bool,
    },
    /// Take back a deletion (all of the action that deleted this ghost), while its merge hasn't started.
    Undelete {
        /// Of which machine.
        machine: MachineId,
        /// A ghost, or a snapshot whose images are in the trash.
        snapshot: SnapshotId,
    },
    /// Give a snapshot another label.
    Rename {
        /// Of which machine.
        machine: MachineId,
        /// Which.
        snapshot: SnapshotId,
        /// The new label.
        label: String,
    },
    /// Set a snapshot's note.
    SetNote {
        /// Of which machine.
        machine: MachineId,
        /// Which.
        snapshot: SnapshotId,
        /// The note.
        note: String,
    },
    /// Protect a snapshot from deletion, or no longer.
    Protect {
        /// Of which machine.
        machine: MachineId,
        /// Which.
        snapshot: SnapshotId,
        /// Whether.
        protected: bool,
    },
    /// Change the machine's settings.
    SetSettings {
        /// Of which machine.
        machine: MachineId,
        /// All of them.
        settings: Settings,
    },
    /// Change what a machine that QEMU runs consists of, or let QEMU run one that is known by its disks only.
    SetHardware {
        /// Which machine.
        machine: MachineId,
        /// Its memory, whole MiB.
        memory: ByteCount,
        /// What else it consists of.
        hardware: Hardware,
    },
    /// Make one of Now's disks larger.
    Resize {
        /// Of which machine.
        machine: MachineId,
        /// Which.
        disk: DiskId,
        /// Its new size.
        size: ByteCount,
    },
    /// Carry out the merges that are due.
    Merge {
        /// Of which machine.
        machine: MachineId,
        /// Only this disk.
        disk: Option<DiskId>,
        /// At most this fast.
        limit: Option<ByteRate>,
        /// It ends by then; what is left is due still, and nothing is moved twice.
        #[serde(default)]
        until: Option<DateTime<Utc>>,
    },
    /// Empty a machine's trash: everything, or only what is old enough.
    EmptyTrash {
        /// Of which machine.
        machine: MachineId,
        /// Everything, or only what is older than the setting says.
        all: bool,
    },
    /// Make a maintenance window, or change the one with this identifier.
    SetWindow(MaintenanceWindow),
    /// Forget a maintenance window, and what was put into it.
    RemoveWindow(WindowId),
    /// Put a merge into one taking place of a window; `None` leaves it to the planner again.
    PinMerge {
        /// Of which machine.
        machine: MachineId,
        /// Of which disk.
        disk: DiskId,
        /// Where it starts.
        occurrence: Option<OccurrenceKey>,
    },
    /// Make the plan of all merges anew, now.
    MakePlan,
    /// What is told of windows that nobody used has been read.
    ForgetMissed,
    /// Pause, resume or cancel a job.
    Job {
        /// Of which machine.
        machine: MachineId,
        /// What to do with its job.
        action: JobAction,
    },
    /// Scramble a workload's memory and disk visibly (the demo's "Bad update").
    BadUpdate(MachineId),
    /// Run a stopped workload for a while, as a job.
    RunWorkload {
        /// Which machine.
        machine: MachineId,
        /// For how long.
        milliseconds: u64,
        /// Another seed than the profile's.
        seed: Option<u64>,
    },
    /// Read and verify every byte of a workload's disks (and memory where it was saved).
    Verify {
        /// Which machine.
        machine: MachineId,
        /// At a snapshot, or Now.
        at: Option<SnapshotId>,
    },
}

impl Command {
    /// The machine that it is about, if it is about one that exists.
    pub fn machine(&self) -> Option<MachineId> {
        match self {
            Self::Rescan
            | Self::OpenFolder(_)
            | Self::CloseFolder(_)
            | Self::Create(_)
            | Self::Import(_)
            | Self::Convert(_)
            | Self::Inspect { .. }
            | Self::Diagnose(_)
            | Self::Repair(_)
            | Self::UndoRepair(_)
            | Self::ForgetRepairs(_)
            | Self::SetWindow(_)
            | Self::RemoveWindow(_)
            | Self::PinMerge { .. }
            | Self::MakePlan
            | Self::ForgetMissed => None,
            Self::Start(machine)
            | Self::Stop(machine)
            | Self::TurnOff(machine)
            | Self::Pause(machine)
            | Self::Resume(machine)
            | Self::UndoApply(machine)
            | Self::BadUpdate(machine)
            | Self::Remove { machine, .. }
            | Self::Take { machine, .. }
            | Self::Apply { machine, .. }
            | Self::Delete { machine, .. }
            | Self::Undelete { machine, .. }
            | Self::Rename { machine, .. }
            | Self::SetNote { machine, .. }
            | Self::Protect { machine, .. }
            | Self::SetSettings { machine, .. }
            | Self::SetHardware { machine, .. }
            | Self::Resize { machine, .. }
            | Self::Merge { machine, .. }
            | Self::EmptyTrash { machine, .. }
            | Self::Job { machine, .. }
            | Self::RunWorkload { machine, .. }
            | Self::Verify { machine, .. } => Some(*machine),
        }
    }
}
