//! `journal.json`: what is under way, while an operation spans files. Plain data; paths are relative to
//! the machine's folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::snapshot::{
    DiskId, FileMove, FileRef, Growth, ImageId, ImageRecord, Machine, MachineId, SnapshotId, SwitchFiles, SwitchRecord,
    path_problem, unique,
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
    #[serde(deserialize_with = "unique")]
    pub leaves: BTreeMap<DiskId, NewLeaf>,
    /// The folder of its memory and screen.
    pub folder: PathBuf,
    /// Whether every new leaf is complete; before that the machine can't have gone on in them.
    pub complete: bool,
}

impl Journal {
    /// What is wrong with it for a machine in this state, if anything: a journal is hostile input.
    pub(super) fn problem(&self, machine: &Machine) -> Option<String> {
        let bad = self.files().find_map(|file| path_problem(file).map(|problem| format!("{} {problem}", file.display())));
        bad.or_else(|| match self {
            Self::Create(_) => None,
            Self::Change(record) => {
                let others = |growth: &&Growth| !machine.now.images.values().any(|image| *image == growth.image);
                let wrong = record.grown.iter().find(others)?;
                Some(format!("the image {} isn't one that Now writes to, and can't grow", wrong.image))
            }
            Self::Take(record) => {
                let inside = record.folder.starts_with("Snapshots") && record.folder.components().count() == 2;
                (!inside).then(|| format!("folder {} must lie in Snapshots", record.folder.display()))
            }
            Self::Switch(record) => switch_problem(record, machine),
        })
    }

    /// Every file and folder that it names.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let (mut files, mut refs): (Vec<&PathBuf>, Vec<&FileRef>) = (Vec::new(), Vec::new());
        match self {
            Self::Create(record) => files.extend(&record.files),
            Self::Change(record) => {
                files.extend(record.created.iter().chain(&record.removes));
                files.extend(record.moves.iter().flat_map(|file| [&file.from, &file.to]));
            }
            Self::Take(record) => {
                files.extend(record.leaves.values().map(|leaf| &leaf.record.file).chain([&record.folder]));
            }
            Self::Switch(SwitchRecord { files: switch, .. }) => {
                files.extend(switch.parent.iter().map(|(file, _)| file).chain([&switch.kept]));
                refs.extend(switch.run.iter().chain(&switch.children));
            }
        }
        files.into_iter().chain(refs.into_iter().map(|file| &file.file)).map(PathBuf::as_path)
    }

    /// The files and folders that are removed or moved away when it is completed or undone on a machine in this state.
    /// A switch replaces its own run only, which [`Journal::problem`] checks.
    pub(super) fn taken_away(&self, machine: &Machine) -> Vec<&Path> {
        match self {
            Self::Create(_) | Self::Switch(_) => Vec::new(),
            Self::Change(record) if machine.generation > record.generation => {
                record.removes.iter().chain(record.moves.iter().map(|file| &file.from)).map(PathBuf::as_path).collect()
            }
            Self::Change(record) => record.created.iter().map(PathBuf::as_path).collect(),
            Self::Take(record) if machine.generation <= record.generation => {
                record.leaves.values().map(|leaf| &*leaf.record.file).chain([&*record.folder]).collect()
            }
            Self::Take(record) if machine.snapshots.contains_key(&record.snapshot) => Vec::new(),
            Self::Take(record) => vec![&record.folder],
        }
    }
}

/// Whether a switch, before the manifest or after it, is one of this machine: the files of a run that nothing else reads
/// through, and of its neighbours.
fn switch_problem(record: &SwitchRecord, machine: &Machine) -> Option<String> {
    let (SwitchFiles { run, target, kept, parent, children, .. }, ids) = (&record.files, &record.run);
    let wrong = |what: &str| Some(format!("the switch {what}"));
    let ([first, .., top], [.., top_file]) = (&ids[..], &run[..]) else { return wrong("has no run") };
    let Some(target_file) = run.get(*target).filter(|_| run.len() == ids.len()) else { return wrong("has no target") };
    if *kept != target_file.file && *kept != top_file.file {
        return wrong("keeps a name that is neither its target's nor its top's");
    }
    let images = &machine.images;
    let Some(top_record) = images.get(top) else { return wrong("is of images that aren't the machine's") };
    let sources = &ids[..ids.len() - 1];
    let published = !images.contains_key(first);
    let below = if published {
        if top_record.file != *kept || sources.iter().any(|id| images.contains_key(id)) {
            return wrong("is of other images than the manifest's");
        }
        let needed = |file: &FileRef| file.file != *kept && images.values().any(|record| record.file == file.file);
        if run.iter().any(needed) {
            return wrong("would remove an image that the machine needs");
        }
        top_record.parent
    } else {
        let same = |(id, file): (&ImageId, &FileRef)| {
            images.get(id).is_some_and(|own| own.file == file.file && own.format == file.format && own.disk == record.disk)
        };
        if !ids.iter().zip(run).all(same) {
            return wrong("is of other images than the manifest's");
        }
        let nodes = machine.snapshots.values().map(|node| &node.images).chain([&machine.now.images]);
        let is_node = nodes.flat_map(|images| images.values()).any(|id| sources.contains(id));
        let chained = ids.windows(2).all(|pair| images[&pair[1]].parent == Some(pair[0]));
        let readers = images.values().filter(|record| record.parent.is_some_and(|parent| sources.contains(&parent))).count();
        if is_node || !chained || readers != sources.len() {
            return wrong("is of a run that something else needs");
        }
        images[first].parent
    };
    if below.and_then(|id| images.get(&id)).map(|record| &record.file) != parent.as_ref().map(|(file, _)| file) {
        return wrong("names another parent than the manifest");
    }
    let in_trash = machine.trash.iter().filter_map(|item| Some((&item.file, item.image.as_ref()?.1.parent)));
    let readers: Vec<_> = images.values().map(|record| (&record.file, record.parent)).chain(in_trash).collect();
    if children.iter().any(|child| !readers.contains(&(&child.file, Some(*top)))) {
        return wrong("links an image that doesn't read through its top");
    }
    None
}
