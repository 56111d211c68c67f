//! What the engine says: whole new states, jobs, and one answer per request.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{LibraryState, MachineState, PlanState, RequestId};
use crate::chain::Inspection;
use crate::cost::{DeletionCost, MergeCost, MergeTotal};
use crate::diagnose::Diagnosis;
use crate::repair;
use crate::snapshot::{MachineId, SnapshotId};
use crate::units::{ByteCount, ByteRate};
use crate::vm::{Screen, VerifyReport, WorkloadCounters};

/// A job, unique in a library's engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub uuid::Uuid);

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the commands' names")]
pub enum JobKind {
    Create,
    Import,
    Convert,
    Repair,
    Take,
    Apply,
    UndoApply,
    Delete,
    Undelete,
    Merge,
    EmptyTrash,
    RunWorkload,
    Verify,
    Start,
    Stop,
    Remove,
    Edit,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobPhase {
    /// It works.
    Running,
    /// It waits for `Resume`.
    Paused,
    /// It ended well; the sentence says what came of it.
    Done(String),
    /// It was cancelled; the sentence says what was kept.
    Cancelled(String),
    /// It failed; the sentence says why, and what state things are in.
    Failed(String),
}

/// A job's whole state. `done` only grows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobState {
    /// Which job.
    pub id: JobId,
    /// On which machine.
    pub machine: MachineId,
    /// What it does.
    pub kind: JobKind,
    /// A few words, such as `Merging disk0: 3 images into 1`.
    pub title: String,
    /// Where it stands.
    pub phase: JobPhase,
    /// Bytes done.
    pub done: ByteCount,
    /// Bytes to do in all; zero where that isn't counted in bytes.
    pub total: ByteCount,
    /// The rate lately.
    pub rate: ByteRate,
    /// Time that it has worked (pauses not counted).
    pub elapsed: Duration,
    /// Time left at this rate, once there is one.
    pub left: Option<Duration>,
    /// Whether it can be paused and cancelled.
    pub pausable: bool,
    /// Figures about a take of a running machine.
    pub latency: Option<LatencyReport>,
}

/// What taking a snapshot cost the running machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyReport {
    /// How long it stood still.
    pub pause: Duration,
    /// How long saving memory took.
    pub save: Duration,
    /// Writes that had to wait for the original page to be saved first.
    pub intercepted_writes: u64,
    /// The longest such wait.
    pub longest_stall: Duration,
    /// Memory saved.
    pub memory: ByteCount,
}

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// A rule forbids it (exit status 3).
    Rule,
    /// It was tried and failed (exit status 1).
    Failed,
}

/// A "no", with the reason and what would make it possible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// Rule or failure.
    pub kind: RefusalKind,
    /// The reason, one sentence or two.
    pub reason: String,
}

impl Refusal {
    /// A rule forbids it.
    pub fn rule(reason: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Rule, reason: reason.into() }
    }

    /// It was tried and failed.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Failed, reason: reason.into() }
    }
}

/// What would be done: figures, which the window and the command line put into words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// Taking a snapshot.
    Take {
        /// Images that are created, one a disk.
        images: u32,
        /// Images in the deepest chain afterwards.
        depth: u32,
        /// Memory that is saved.
        memory: ByteCount,
        /// Free bytes of the volume.
        free: ByteCount,
        /// About how long the machine stands still, where its memory can't be saved while it runs.
        #[serde(default)]
        pause: Option<Duration>,
        /// The command that would have it saved while it runs, from the machine's next start on.
        #[serde(default)]
        remedy: Option<String>,
    },
    /// Applying one.
    Apply {
        /// What Now holds, which goes to the trash; zero where a snapshot of it is taken first.
        to_trash: ByteCount,
        /// Whether memory comes back too; otherwise the machine is off, as after a power cut.
        memory: bool,
    },
    /// Deleting.
    Delete(DeletionCost),
    /// Merging what is due.
    Merge {
        /// One by one.
        merges: Vec<MergeCost>,
        /// Together.
        total: MergeTotal,
    },
    /// Emptying the trash.
    EmptyTrash {
        /// Files that go.
        files: u32,
        /// Bytes that come back.
        held: ByteCount,
    },
    /// Removing a machine.
    Remove {
        /// The folder that goes, if files are deleted.
        folder: Option<PathBuf>,
        /// Bytes that come back.
        held: ByteCount,
    },
    /// Writing a disk to a new file.
    Convert {
        /// Bytes that are written at most.
        most: ByteCount,
    },
    /// Something that only the manifest is changed by, or that runs the machine.
    Other,
}

/// What a repair of a folder would do, and what can be taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepairView {
    /// What was found.
    pub found: Diagnosis,
    /// What would be done.
    pub plan: repair::Plan,
    /// Repairs of before, the oldest first.
    pub past: Vec<repair::Past>,
    /// Bytes that they keep, so that they can be taken back.
    pub kept: ByteCount,
}

/// The answer to a request that was carried out, or planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done; a sentence says what came of it.
    Done(String),
    /// What would be done (`Mode::WhatIf`).
    Plan(Box<Plan>),
    /// A snapshot was taken.
    Taken {
        /// Which.
        snapshot: SnapshotId,
        /// What it cost, where the machine ran.
        latency: Option<LatencyReport>,
    },
    /// A machine was created or imported.
    Created(MachineId),
    /// What a verification found.
    Verified(VerifyReport),
    /// What an image is inside.
    Inspected(Box<Inspection>),
    /// What the images of a folder are.
    Diagnosed(Box<Diagnosis>),
    /// What a repair of a folder would do.
    RepairPlanned(Box<RepairView>),
}

/// What the engine says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The library: which machines and folders there are.
    Library(Arc<LibraryState>),
    /// A machine, whole.
    Machine(Arc<MachineState>),
    /// A machine that is gone.
    Gone(MachineId),
    /// Maintenance windows, and the plan of all merges.
    Plan(Arc<PlanState>),
    /// A job, whole.
    Job(JobState),
    /// A running machine's screen and counters, a few times a second.
    Live {
        /// Which machine.
        machine: MachineId,
        /// Its screen.
        screen: Arc<Screen>,
        /// What it has done.
        counters: WorkloadCounters,
    },
    /// A request's answer. Exactly one for each, after every state that it changed.
    Answer {
        /// Which request.
        request: RequestId,
        /// The answer, or why not.
        answer: Result<Answer, Refusal>,
    },
}
