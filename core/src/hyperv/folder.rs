//! A folder that Hyper-V wrote: which machines it has, which snapshots they have, and which files these are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::config::identifier;
use super::{Config, Role, Slot, load};
use crate::chain::{Folder, ParentState, find_files};
use crate::disk::Result;
use crate::host_file::SharedHost;

/// An image that a node names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Where the disk is attached.
    pub slot: Slot,
    /// Index of the image in [`Folder::images`].
    pub image: usize,
}

/// A machine's current state, or a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct HyperVNode {
    /// Its configuration's file.
    pub file: PathBuf,
    /// Its identifier.
    pub id: Uuid,
    /// What the configuration says.
    pub config: Config,
    /// The images that are here, in the order of their slots.
    pub images: Vec<Attached>,
    /// The snapshot that it hangs from.
    pub parent: Option<Uuid>,
}

/// A machine and its snapshots.
#[derive(Debug, Clone, PartialEq)]
pub struct HyperVMachine {
    /// The current state.
    pub now: HyperVNode,
    /// The snapshots, the oldest first.
    pub snapshots: Vec<HyperVNode>,
}

impl HyperVMachine {
    /// The snapshots and then Now.
    pub fn nodes(&self) -> impl Iterator<Item = &HyperVNode> {
        self.snapshots.iter().chain([&self.now])
    }
}

/// What Hyper-V's configurations in a folder say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HyperVFolder {
    /// The machines.
    pub machines: Vec<HyperVMachine>,
    /// What couldn't be read or found, in words.
    pub problems: Vec<String>,
}

/// Reads every configuration of a folder and the folders inside it, and finds the images that they name among those
/// that are here: by the file's name, as paths are those of the host. Nothing outside the folder is opened.
///
/// # Errors
/// Where the folder itself can't be listed.
pub fn read(host: &SharedHost, folder: &Path, images: &Folder) -> Result<HyperVFolder> {
    let mut found = HyperVFolder::default();
    let (mut machines, mut snapshots) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for file in find_files(host, folder, &is_configuration)? {
        let tree = match load(&**host, &file) {
            Ok(tree) => tree,
            Err(error) => {
                found.problems.push(error.to_string());
                continue;
            }
        };
        let in_name = file.file_stem().and_then(|stem| identifier(&stem.to_string_lossy()));
        let shown = file.display();
        let Some(config) = Config::of(&tree) else {
            found.problems.push(format!("{shown}: it isn't the configuration of a machine or a snapshot"));
            continue;
        };
        let Some(id) = config.id.or(in_name) else {
            found.problems.push(format!("{shown}: it has no identifier"));
            continue;
        };
        if !seen.insert(id) {
            found.problems.push(format!("{shown}: another configuration in this folder has the same identifier {id}"));
            continue;
        }
        let in_snapshots = file.parent().and_then(Path::file_name).is_some_and(|name| name.eq_ignore_ascii_case("Snapshots"));
        let role = config.role.unwrap_or(if in_snapshots { Role::Snapshot } else { Role::Machine });
        let attached = attach(images, &file, &config, &mut found.problems);
        let node = HyperVNode { file, id, config, images: attached, parent: None };
        match role {
            Role::Machine => machines.push(HyperVMachine { now: node, snapshots: Vec::new() }),
            Role::Snapshot => snapshots.push(node),
        }
    }
    for snapshot in snapshots {
        match owner(&machines, &snapshot, images) {
            Some(machine) => machines[machine].snapshots.push(snapshot),
            None => found.problems.push(format!(
                "{}: the machine of the snapshot {:?} isn't here",
                snapshot.file.display(),
                snapshot.config.name
            )),
        }
    }
    for machine in &mut machines {
        machine.snapshots.sort_by_key(|snapshot| (snapshot.config.created, snapshot.id));
        hang(machine, images, &mut found.problems);
    }
    found.machines = machines;
    Ok(found)
}

/// Configurations are named after their identifiers; caches hold copies of a part of them.
fn is_configuration(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    let named = path.file_stem().is_some_and(|stem| identifier(&stem.to_string_lossy()).is_some());
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let is_cache = folder.ends_with(" Cache");
    !is_cache && (extension.eq_ignore_ascii_case("vmcx") || extension.eq_ignore_ascii_case("xml") && named)
}

/// The image of each disk that a configuration names.
fn attach(images: &Folder, file: &Path, config: &Config, problems: &mut Vec<String>) -> Vec<Attached> {
    let mut attached: Vec<Attached> = Vec::new();
    for drive in &config.drives {
        let what = format!("{}: the disk {} of {:?} ({})", file.display(), drive.slot, config.name, drive.path);
        match find(images.images.iter().map(|image| &*image.path), &drive.path)[..] {
            [image] => attached.push(Attached { slot: drive.slot.clone(), image }),
            [] => {
                let unreadable = find(images.unreadable.iter().map(|(path, _)| &**path), &drive.path);
                problems.push(match unreadable.first() {
                    Some(at) => format!("{what} can't be read: {}", images.unreadable[*at].1),
                    None => format!("{what} isn't in this folder"),
                });
            }
            _ => problems.push(format!("{what} is in this folder more than once")),
        }
    }
    attached
}

/// Which files a path of the host may mean: those of its name; of several those that share most of the folders above.
fn find<'a>(files: impl Iterator<Item = &'a Path>, path: &str) -> Vec<usize> {
    let wanted: Vec<String> = path.split(['\\', '/']).rev().map(str::to_lowercase).collect();
    let shared = |file: &Path| {
        let parts = file.components().rev().map(|part| part.as_os_str().to_string_lossy().to_lowercase());
        parts.zip(&wanted).take_while(|(here, there)| here == *there).count()
    };
    let scores: Vec<usize> = files.map(shared).collect();
    let best = scores.iter().copied().max().unwrap_or(0);
    (0..scores.len()).filter(|at| best > 0 && scores[*at] == best).collect()
}

/// An image and those below it, as far as they are found.
fn below(images: &Folder, image: usize) -> impl Iterator<Item = usize> {
    let parent = |at: &usize| match images.images[*at].parent {
        ParentState::Found { index } => Some(index),
        _ => None,
    };
    // As many steps as there are images, at most: parents may lead in a circle.
    std::iter::successors(Some(image), parent).take(images.images.len())
}

/// The machine of a snapshot: the one that it names, or the one whose disks have the same base, or the only one.
fn owner(machines: &[HyperVMachine], snapshot: &HyperVNode, images: &Folder) -> Option<usize> {
    let named = machines.iter().position(|machine| snapshot.config.machine == Some(machine.now.id));
    let bases = |node: &HyperVNode| -> BTreeSet<usize> {
        node.images.iter().filter_map(|attached| below(images, attached.image).last()).collect()
    };
    let own = bases(snapshot);
    let related = || machines.iter().position(|machine| !bases(&machine.now).is_disjoint(&own));
    named.or_else(related).or_else(|| (machines.len() == 1).then_some(0))
}

/// Hangs every node of a machine from its parent.
fn hang(machine: &mut HyperVMachine, images: &Folder, problems: &mut Vec<String>) {
    let known: BTreeSet<Uuid> = machine.snapshots.iter().map(|snapshot| snapshot.id).collect();
    let mut node_of: BTreeMap<usize, Uuid> = BTreeMap::new();
    for snapshot in &machine.snapshots {
        for attached in &snapshot.images {
            node_of.entry(attached.image).or_insert(snapshot.id);
        }
    }
    let parent = |node: &HyperVNode| {
        let said = node.config.parent.filter(|parent| known.contains(parent) && *parent != node.id);
        let read = || {
            node.images.iter().find_map(|attached| {
                below(images, attached.image).skip(1).find_map(|image| node_of.get(&image)).filter(|id| **id != node.id)
            })
        };
        said.or_else(|| read().copied())
    };
    machine.now.parent = parent(&machine.now);
    let parents: BTreeMap<Uuid, Option<Uuid>> =
        machine.snapshots.iter().map(|snapshot| (snapshot.id, parent(snapshot))).collect();
    let is_circle = |id: Uuid| {
        let above = std::iter::successors(parents.get(&id).copied().flatten(), |at| parents.get(at).copied().flatten());
        above.take(parents.len()).any(|at| at == id)
    };
    for snapshot in &mut machine.snapshots {
        snapshot.parent = parents.get(&snapshot.id).copied().flatten();
        if is_circle(snapshot.id) {
            snapshot.parent = None;
            let (file, name) = (snapshot.file.display(), &snapshot.config.name);
            problems.push(format!("{file}: the parents of the snapshot {name:?} lead in a circle"));
        }
    }
}
