//! What somebody should look at: figures only; the texts are the program's.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{MachineFacts, MergeTotal};
use crate::snapshot::SnapshotId;
use crate::units::ByteCount;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Should be looked at.
    Warning,
    /// Soon machines stop or data is at risk.
    Urgent,
}

/// The one thing to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Carry out the merges that are due.
    Merge,
    /// Delete these snapshots (and merge).
    Delete(Vec<SnapshotId>),
    /// Look at a snapshot.
    Show(SnapshotId),
    /// Empty the trash.
    EmptyTrash,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Now's chain is deep.
    ChainTooDeep {
        /// Images in the chain.
        depth: u32,
        /// From here on it is advised against.
        warn_depth: u32,
        /// Images a read, mean, where counted.
        read_mean: Option<f64>,
        /// What the action would make of the depth.
        depth_after: u32,
        /// And of the images a read.
        read_mean_after: Option<f64>,
    },
    /// A snapshot is old: it is not a backup.
    SnapshotTooOld {
        /// The oldest one.
        snapshot: SnapshotId,
        /// Its age.
        age_hours: u64,
        /// From here on it is warned about.
        warn_age_hours: u32,
        /// How many are past that age.
        count: u32,
    },
    /// Merges are due.
    MergeDue {
        /// The sum.
        total: MergeTotal,
    },
    /// The volume is short.
    DiskFilling {
        /// Free bytes.
        free: ByteCount,
        /// Bytes in the trash of this machine that would come back.
        trash: ByteCount,
    },
    /// A merge that is due needs more than is free.
    MergeWontFit {
        /// What it needs.
        scratch: ByteCount,
        /// What there is.
        free: ByteCount,
    },
    /// The trash holds much.
    TrashHolds {
        /// Bytes.
        bytes: ByteCount,
        /// Files.
        files: u32,
    },
}

/// One thing that somebody should look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is, with its figures.
    pub kind: FindingKind,
    /// The one thing to do about it.
    pub action: Option<Action>,
}

/// Everything found about a machine, the worst first.
pub fn advise(facts: &MachineFacts<'_>, now: DateTime<Utc>) -> Vec<Finding> {
    let _ = (facts, now);
    todo!()
}
