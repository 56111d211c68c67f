//! `journal.json`: what is under way, while an operation spans files. Plain data; paths are relative to
//! the machine's folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::snapshot::{
    DiskId, FileMove, Growth, ImageId, ImageRecord, Machine, MachineId, SnapshotId, SwitchRecord, path_problem,
};

/// All of `journal.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JournalFile {
    /// Always [`JOURNAL_FORMAT`].
    pub format: String,
    /// Version of this shape, 1.
    pub version: u32,
    /// The machine that it is about.
    pub machine: MachineId,
    /// What is under way.
    pub entry: Journal,
}

pub(super) const JOURNAL_FORMAT: &str = "snaptree-journal";

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
    /// Images that then grow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grown: Vec<Growth>,
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
    /// Whether every new leaf is complete; before that the machine can't have gone on in them.
    pub complete: bool,
}

impl Journal {
    /// What is wrong with it for a machine in this state, if anything: a journal is hostile input. Paths must stay inside
    /// the folder, and no file that the manifest needs is removed or moved away.
    pub(super) fn problem(&self, machine: &Machine) -> Option<String> {
        let needed = |file: &Path| machine.images.values().any(|record| record.file == file);
        let removed = |file: &&PathBuf| needed(file);
        let (paths, taken_away): (Vec<&PathBuf>, Option<&PathBuf>) = match self {
            Self::Create(record) => (record.files.iter().collect(), None),
            Self::Change(record) => {
                let committed = machine.generation > record.generation;
                let away = record.removes.iter().chain(record.moves.iter().map(|file| &file.from)).filter(|_| committed);
                let undone = record.created.iter().filter(|_| !committed);
                let moves = record.moves.iter().flat_map(|file| [&file.from, &file.to]);
                (record.created.iter().chain(&record.removes).chain(moves).collect(), away.chain(undone).find(removed))
            }
            Self::Take(record) => {
                let mut new = record.leaves.values().map(|leaf| &leaf.record.file);
                if !record.folder.starts_with("Snapshots") || record.folder.components().count() != 2 {
                    return Some(format!("folder {} must lie in Snapshots", record.folder.display()));
                }
                let old = machine.generation <= record.generation;
                (new.clone().chain([&record.folder]).collect(), new.find(|file| old && needed(file)))
            }
            Self::Switch(record) => {
                let files = &record.files;
                let parent = files.parent.iter().map(|(file, _)| file);
                (
                    files.run.iter().chain(&files.children).map(|file| &file.file).chain([&files.kept]).chain(parent).collect(),
                    None,
                )
            }
        };
        let bad = paths.iter().find_map(|path| path_problem(path).map(|problem| format!("{} {problem}", path.display())));
        bad.or_else(|| taken_away.map(|file| format!("{} belongs to the machine and can't be taken away", file.display())))
    }
}
