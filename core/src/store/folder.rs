//! A folder of images that isn't ours: looked at in place; nothing is written.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::foreign::{Naming, chain_error, family, machine_of, newest_leaf};
use super::machine_store::MANIFEST;
use super::{MachineStore, Result, StoreError, hyperv_tree};
use crate::chain::{Folder, ParentState};
use crate::host_file::SharedHost;
use crate::hyperv;
use crate::snapshot::{ImageId, Machine, MachineId, validate};

/// What a folder holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FolderView {
    /// The one of this program whose folder it is; or those of Hyper-V's configurations, and one for each base image that
    /// none of these has. Paths are relative to the folder.
    pub machines: Vec<Machine>,
    /// How many processors a machine has, where a configuration says so.
    pub processors: BTreeMap<MachineId, u32>,
    /// What couldn't be read or doesn't fit together, in words.
    pub problems: Vec<String>,
}

/// Looks at a folder and the folders inside it: its images as trees, with the names and dates of Hyper-V's configurations
/// where there are any. The identifiers are the same each time for the same files.
pub fn open_folder(host: &SharedHost, path: &Path) -> Result<FolderView> {
    if host.exists(&path.join(MANIFEST)) {
        return Ok(FolderView { machines: vec![MachineStore::look(host, path)?], ..FolderView::default() });
    }
    let folder = Folder::scan(host, path)?;
    let root = host.canonical(path).map_err(|error| StoreError::io(path, "find the folder", error))?;
    let mut view = FolderView::default();
    view.problems.extend(folder.unreadable.iter().map(|(file, problem)| format!("{}: {problem}", file.display())));
    let found = hyperv::read(host, path, &folder)?;
    view.problems.extend(found.problems);
    let mut shown = BTreeSet::new();
    for machine in &found.machines {
        match hyperv_tree::build(host, &folder, &root, machine, &|path| stable_id(&("hyperv", path))) {
            Ok(built) => {
                shown.extend(built.images);
                view.problems.extend(built.problems);
                let processors = machine.now.config.processors;
                view.processors.extend((processors > 0).then_some((built.machine.id, processors)));
                view.machines.push(built.machine);
            }
            Err(error) => view.problems.push(error.to_string()),
        }
    }
    for index in 0..folder.images.len() {
        view.problems.extend(chain_error(&folder, index).map(|error| error.to_string()));
        let chain = folder.chain_of(index).unwrap_or_default();
        let is_left = !shown.contains(&index) && chain.iter().any(|image| shown.contains(image));
        if is_left {
            let file = folder.images[index].path.display();
            view.problems.push(format!("{file}: no configuration names it, and nothing that one names reads through it"));
        }
        if folder.images[index].parent == ParentState::Base && !shown.contains(&index) {
            match machine_at(host, &folder, &root, index) {
                Ok(machine) => view.machines.push(machine),
                Err(error) => view.problems.push(error.to_string()),
            }
        }
    }
    Ok(view)
}

fn machine_at(host: &SharedHost, folder: &Folder, root: &Path, base: usize) -> Result<Machine> {
    let sources = family(host, folder, base);
    let places: Vec<(ImageId, PathBuf)> = sources
        .iter()
        .map(|source| {
            let file = source.path.strip_prefix(root).unwrap_or(&source.path).to_owned();
            (ImageId(stable_id(&("image", &source.path))), file)
        })
        .collect();
    let path = &folder.images[base].path;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let id = MachineId(stable_id(&("machine", path)));
    let created = sources.first().map_or(DateTime::UNIX_EPOCH, |source| source.modified);
    let Some(now) = newest_leaf(&sources) else {
        return Err(StoreError::refused(path, "no image could be the machine's current state"));
    };
    let machine =
        machine_of(Naming { id, name, created: DateTime::<Utc>::max(created, DateTime::UNIX_EPOCH) }, &sources, &places, now)?;
    validate(&machine).map_err(|problems| StoreError::invalid(path, "its images don't make a tree", problems.join("; ")))?;
    Ok(machine)
}

/// The same for the same value, on every run.
fn stable_id(value: &impl Hash) -> Uuid {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, value).hash(&mut hasher);
        hasher.finish()
    };
    uuid::Builder::from_custom_bytes(((u128::from(half(0)) << 64) | u128::from(half(1))).to_be_bytes()).into_uuid()
}
