//! `journal.json`: what is under way, while an operation spans files. Plain data; paths are relative to the machine's folder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::snapshot::{DiskId, FileMove, ImageId, ImageRecord, SnapshotId, SwitchRecord};

/// What is under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Journal {
    /// A machine is being created or imported: without a manifest, the folder is nothing.
    Create(CreateRecord),
    /// A change of the tree.
    Change(ChangeRecord),
    /// A snapshot is being taken.
    Take(TakeRecord),
    /// A merge puts its target in place (executed and recovered by the merge room).
    Switch(SwitchRecord),
}

/// A machine that is being created or imported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRecord {
    /// Files that are made for it.
    pub files: Vec<PathBuf>,
}

/// A change of the tree. Undone (`created` removed) while the manifest has `generation`, completed afterwards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeRecord {
    /// The manifest's generation before it.
    pub generation: u64,
    /// What it is, in a word, for messages.
    pub operation: String,
    /// Files that are made for it before the manifest is published.
    pub created: Vec<PathBuf>,
    /// Files that move once the manifest is published.
    pub moves: Vec<FileMove>,
    /// Files that are removed once the manifest is published.
    pub removes: Vec<PathBuf>,
    /// Images whose locators are then checked against their parents' places.
    pub restored: Vec<ImageId>,
}

/// A new leaf.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewLeaf {
    /// Its identifier.
    pub image: ImageId,
    /// Its record.
    pub record: ImageRecord,
}

/// A snapshot that is being taken. After a crash, new leaves that hold anything are where a running machine
/// went on: they become Now's, without a node; otherwise they are removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeRecord {
    /// The manifest's generation before it.
    pub generation: u64,
    /// The node that it will be.
    pub snapshot: SnapshotId,
    /// The new leaves.
    pub leaves: BTreeMap<DiskId, NewLeaf>,
    /// The folder of its memory and screen.
    pub folder: PathBuf,
}
