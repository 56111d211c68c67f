//! Images of others as a machine's tree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::machine_store::MANIFEST_FORMAT;
use super::{Result, StoreError};
use crate::chain::{Folder, FolderImage, ParentState};
use crate::disk::{DiskError, DiskErrorKind, ImageInfo};
use crate::host_file::SharedHost;
use crate::snapshot::{
    Configuration, DiskConfig, DiskId, ImageId, ImageRecord, Machine, MachineId, MachineKind, Now, Settings, Snapshot,
    SnapshotId, WorkloadProfile,
};
use crate::units::ByteCount;

/// Memory of a machine of which only the disk is known.
pub const MEMORY_UNKNOWN: ByteCount = ByteCount::ZERO;

/// Bytes of a stranger's text that a label takes.
const LABEL_MAX: usize = 160;

/// An image of somebody else.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Its file.
    pub path: PathBuf,
    /// What it is.
    pub info: ImageInfo,
    /// Index of its parent, which stands before it.
    pub parent: Option<usize>,
    /// When it was last changed.
    pub modified: DateTime<Utc>,
}

/// Why an image's chain isn't whole, if it isn't.
pub(super) fn chain_error(folder: &Folder, index: usize) -> Option<DiskError> {
    let mut at = index;
    for _ in 0..=folder.images.len() {
        let FolderImage { path, parent, .. } = &folder.images[at];
        let kind = match parent {
            ParentState::Base => return None,
            ParentState::Found { index } => {
                at = *index;
                continue;
            }
            ParentState::Missing { name, linkage } => DiskErrorKind::ParentMissing { name: name.clone(), linkage: *linkage },
            ParentState::Changed { index, expected, found } => {
                let parent = folder.images[*index].path.clone();
                DiskErrorKind::ParentChanged { parent, expected: *expected, found: *found }
            }
            ParentState::Outside { path } => DiskErrorKind::OutsideGate(path.clone()),
        };
        return Some(DiskError::new(path, kind));
    }
    let kind = DiskErrorKind::Invalid { field: "parent locator", problem: "leads in a circle".into() };
    Some(DiskError::new(&folder.images[index].path, kind))
}

/// The images of one disk: all whose chain ends in this base, parents first.
pub(super) fn family(host: &SharedHost, folder: &Folder, base: usize) -> Vec<Source> {
    let mut chains: Vec<Vec<usize>> = (0..folder.images.len()).filter_map(|index| folder.chain_of(index)).collect();
    chains.retain(|chain| chain.first() == Some(&base));
    chains.sort_by_key(|chain| (chain.len(), chain.last().copied()));
    sources(host, folder, chains.iter().filter_map(|chain| chain.last().copied()))
}

/// These images of a folder, parents first.
pub(super) fn sources(host: &SharedHost, folder: &Folder, indexes: impl Iterator<Item = usize>) -> Vec<Source> {
    let mut place: BTreeMap<usize, usize> = BTreeMap::new();
    let mut out = Vec::new();
    for index in indexes {
        let image = &folder.images[index];
        let parent = match image.parent {
            ParentState::Found { index } => place.get(&index).copied(),
            _ => None,
        };
        let modified = host.modified(&image.path).map_or(DateTime::UNIX_EPOCH, DateTime::<Utc>::from);
        place.insert(index, out.len());
        out.push(Source { path: image.path.clone(), info: image.info.clone(), parent, modified });
    }
    out
}

/// The one that is Now: of those that nothing reads through, the one that was changed last.
pub(super) fn newest_leaf(sources: &[Source]) -> Option<usize> {
    let parents: BTreeSet<usize> = sources.iter().filter_map(|source| source.parent).collect();
    let leaves = (0..sources.len()).filter(|index| !parents.contains(index));
    leaves.max_by_key(|index| (sources[*index].modified, *index))
}

/// What a machine made of such images is called, and when it came.
pub(super) struct Naming {
    /// Its identifier.
    pub id: MachineId,
    /// Its name.
    pub name: String,
    /// When it came.
    pub created: DateTime<Utc>,
}

/// A machine with one disk: each image that isn't Now becomes a snapshot named after its file.
/// `places` are the identifiers and files (relative to the machine's folder) of the images.
pub(super) fn machine_of(naming: Naming, sources: &[Source], places: &[(ImageId, PathBuf)], now: usize) -> Result<Machine> {
    let disk = DiskId("disk0".into());
    let Naming { id, name, created } = naming;
    let configuration = |info: &ImageInfo| Configuration {
        memory: MEMORY_UNKNOWN,
        disks: vec![DiskConfig { id: disk.clone(), size: info.virtual_size, format: info.format }],
        hardware: None,
        workload: WorkloadProfile::default(),
    };
    let (Some(leaf), Some((leaf_id, _))) = (sources.get(now), places.get(now)) else {
        return Err(StoreError::refused(Path::new(&name), "there is no image that could be the machine's current state"));
    };
    // A snapshot has the identifier of its image: there is only one disk.
    let node = |index: usize| SnapshotId(places[index].0.0);
    let mut machine = Machine {
        format: MANIFEST_FORMAT.into(),
        version: 1,
        id,
        name,
        kind: MachineKind::Disks,
        created,
        generation: 0,
        configuration: configuration(&leaf.info),
        images: BTreeMap::new(),
        snapshots: BTreeMap::new(),
        now: Now { parent: leaf.parent.map(node), images: BTreeMap::from([(disk.clone(), *leaf_id)]), memory: None },
        ghosts: BTreeMap::new(),
        trash: Vec::new(),
        merges: Vec::new(),
        applied: None,
        settings: Settings::default(),
    };
    let mut labels = BTreeSet::new();
    for (index, (source, (image, file))) in sources.iter().zip(places).enumerate() {
        let parent = source.parent.map(|parent| places[parent].0);
        let record = ImageRecord { disk: disk.clone(), file: file.clone(), parent, format: source.info.format, created };
        machine.images.insert(*image, record);
        if index == now {
            continue;
        }
        let snapshot = Snapshot {
            label: label_of(&source.path, &mut labels),
            note: String::new(),
            taken: source.modified,
            parent: source.parent.map(node),
            images: BTreeMap::from([(disk.clone(), *image)]),
            configuration: configuration(&source.info),
            memory: None,
            screen: None,
            protected: false,
        };
        machine.snapshots.insert(node(index), snapshot);
    }
    Ok(machine)
}

/// The file's name without its ending, with a number where that is taken.
fn label_of(path: &Path, labels: &mut BTreeSet<String>) -> String {
    unique_label(&path.file_stem().unwrap_or_default().to_string_lossy(), "image", labels)
}

/// A text of a stranger as a label: what can't stand in one left out, with a number where it is taken.
pub(super) fn unique_label(text: &str, otherwise: &str, labels: &mut BTreeSet<String>) -> String {
    let mut label: String = text.chars().filter(|c| !c.is_control()).collect();
    // Room for a number, within the bytes that a label may have.
    label.truncate(label.floor_char_boundary(LABEL_MAX));
    let label = if label.trim().is_empty() { otherwise.to_owned() } else { label };
    let numbered = (2u64..).map(|n| format!("{label} ({n})"));
    let label = std::iter::once(label.clone()).chain(numbered).find(|label| !labels.contains(label)).unwrap_or_default();
    labels.insert(label.clone());
    label
}
