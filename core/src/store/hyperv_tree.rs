//! Hyper-V's machines as ours: looked at in place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::foreign::unique_label;
use super::machine_store::MANIFEST_FORMAT;
use super::{Result, StoreError};
use crate::chain::{Folder, ParentState};
use crate::host_file::SharedHost;
use crate::hyperv::{HyperVMachine, HyperVNode};
use crate::snapshot::{
    Configuration, DiskConfig, DiskId, ImageId, ImageRecord, Machine, MachineId, MachineKind, Now, Settings, Snapshot,
    SnapshotId, WorkloadProfile, validate,
};

/// What is made of a machine of Hyper-V.
pub(super) struct Built {
    /// The machine.
    pub machine: Machine,
    /// Indexes of the images that it has.
    pub images: BTreeSet<usize>,
    /// What couldn't be shown, in words.
    pub problems: Vec<String>,
}

/// Makes a machine of ours of one of Hyper-V: the names, dates and parents that the configurations say. A disk that can't
/// be shown at a node is left out there, with the reason.
pub(super) fn build(
    host: &SharedHost,
    folder: &Folder,
    root: &Path,
    found: &HyperVMachine,
    stable: &dyn Fn(&Path) -> uuid::Uuid,
) -> Result<Built> {
    let mut builder = Builder { folder, disks: disks(folder, found), used: BTreeSet::new(), problems: Vec::new() };
    let mut contents: Vec<BTreeMap<DiskId, usize>> = found.snapshots.iter().map(|node| builder.content(node)).collect();
    let mut now = builder.content(&found.now);
    let images = |contents: &[BTreeMap<DiskId, usize>], now: &BTreeMap<DiskId, usize>| -> BTreeSet<usize> {
        let kept = contents.iter().flat_map(BTreeMap::values).chain(now.values());
        kept.flat_map(|image| folder.chain_of(*image).unwrap_or_default()).collect()
    };
    // Now can't be an image that others read through: it is written to.
    let readers = images(&contents, &now);
    now.retain(|disk, leaf| {
        let reader = readers.iter().find(|image| folder.images[**image].parent == ParentState::Found { index: *leaf });
        if let Some(reader) = reader {
            let [reader, leaf] = [*reader, *leaf].map(|image| folder.images[image].path.display());
            builder
                .problems
                .push(format!("{leaf}: {reader} reads through it, so the machine can't run on it as its disk {disk}"));
        }
        reader.is_none()
    });
    let images = images(&contents, &now);
    let image_id = |image: &usize| ImageId(stable(&folder.images[*image].path));
    let modified = |path: &Path| host.modified(path).map_or(DateTime::UNIX_EPOCH, DateTime::<Utc>::from);
    let created = found.now.config.created.unwrap_or(DateTime::UNIX_EPOCH);
    let ids = |content: &BTreeMap<DiskId, usize>| content.iter().map(|(disk, image)| (disk.clone(), image_id(image))).collect();
    let disk_of = |image: usize| folder.chain_of(image).and_then(|chain| builder.disks.get(chain.first()?).cloned());
    let records = images.iter().filter_map(|image| {
        let (at, parent) = (&folder.images[*image], &folder.images[*image].parent);
        let parent = if let ParentState::Found { index } = parent { Some(image_id(index)) } else { None };
        let file: PathBuf = at.path.strip_prefix(root).unwrap_or(&at.path).to_owned();
        Some((image_id(image), ImageRecord { disk: disk_of(*image)?, file, parent, format: at.info.format, created }))
    });
    let mut labels = BTreeSet::new();
    let snapshots = found.snapshots.iter().zip(&mut contents).map(|(node, content)| {
        let snapshot = Snapshot {
            label: unique_label(&node.config.name, "checkpoint", &mut labels),
            note: node.config.notes.clone(),
            taken: node.config.created.unwrap_or_else(|| modified(&node.file)),
            parent: node.parent.map(SnapshotId),
            images: ids(content),
            configuration: configuration(folder, node, content),
            memory: None,
            screen: None,
            protected: false,
        };
        (SnapshotId(node.id), snapshot)
    });
    let machine = Machine {
        format: MANIFEST_FORMAT.into(),
        version: 1,
        id: MachineId(stable(&found.now.file)),
        name: unique_label(&found.now.config.name, "machine", &mut BTreeSet::new()),
        kind: MachineKind::Disks,
        created,
        generation: 0,
        configuration: configuration(folder, &found.now, &now),
        images: records.collect(),
        snapshots: snapshots.collect(),
        now: Now { parent: found.now.parent.map(SnapshotId), images: ids(&now), memory: None },
        ghosts: BTreeMap::new(),
        trash: Vec::new(),
        merges: Vec::new(),
        applied: None,
        settings: Settings::default(),
    };
    let file = &found.now.file;
    validate(&machine).map_err(|problems| StoreError::invalid(file, "it doesn't make a tree", problems.join("; ")))?;
    Ok(Built { machine, images, problems: builder.problems })
}

/// A disk for each base: its name is the slot where the machine has it, or where a snapshot had it.
fn disks(folder: &Folder, found: &HyperVMachine) -> BTreeMap<usize, DiskId> {
    let mut disks: BTreeMap<usize, DiskId> = BTreeMap::new();
    for attached in [&found.now].into_iter().chain(&found.snapshots).flat_map(|node| &node.images) {
        let Some(base) = folder.chain_of(attached.image).and_then(|chain| chain.first().copied()) else { continue };
        if disks.contains_key(&base) {
            continue;
        }
        let name = attached.slot.to_string();
        let numbered = (2u64..).map(|n| format!("{name}_{n}"));
        let free = |name: &String| disks.values().all(|disk| disk.0 != *name);
        if let Some(name) = std::iter::once(name.clone()).chain(numbered).find(free) {
            disks.insert(base, DiskId(name));
        }
    }
    disks
}

struct Builder<'a> {
    folder: &'a Folder,
    /// By the base's index.
    disks: BTreeMap<usize, DiskId>,
    used: BTreeSet<usize>,
    problems: Vec<String>,
}

impl Builder<'_> {
    /// Which image a node is, for each of its disks that can be shown.
    fn content(&mut self, node: &HyperVNode) -> BTreeMap<DiskId, usize> {
        let mut content = BTreeMap::new();
        for attached in &node.images {
            let image = &self.folder.images[attached.image];
            let chain = self.folder.chain_of(attached.image);
            let disk = chain.and_then(|chain| self.disks.get(chain.first()?).cloned());
            let problem = match disk {
                None => "its chain is broken",
                Some(disk) if content.contains_key(&disk) => "another disk of it has the same base",
                Some(_) if self.used.contains(&attached.image) => "it is another node's too",
                Some(disk) => {
                    self.used.insert(attached.image);
                    content.insert(disk, attached.image);
                    continue;
                }
            };
            let (path, name) = (image.path.display(), &node.config.name);
            self.problems.push(format!("{path}: it isn't shown as the disk {} of {name:?}: {problem}", attached.slot));
        }
        content
    }
}

fn configuration(folder: &Folder, node: &HyperVNode, content: &BTreeMap<DiskId, usize>) -> Configuration {
    let disk = |(disk, image): (&DiskId, &usize)| {
        let info = &folder.images[*image].info;
        DiskConfig { id: disk.clone(), size: info.virtual_size, format: info.format }
    };
    Configuration {
        memory: node.config.memory,
        disks: content.iter().map(disk).collect(),
        workload: WorkloadProfile::default(),
        hardware: None,
    }
}
