//! What goes to the trash, what comes back, and what is gone for good. Nothing here decides by the kind
//! of operation: what no node needs goes, and what a node needs comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::change::{Change, FileMove, Stamp};
use super::{Forest, Ghost, ImageId, ImageRecord, Machine, TrashItem, TrashReason};

/// The trash's folder in the machine's folder.
pub(crate) const TRASH: &str = "Deleted";

/// Memory and pictures that a snapshot or Now owns.
pub(super) fn owned_files(machine: &Machine) -> BTreeSet<PathBuf> {
    let nodes = machine.snapshots.values();
    let of_nodes = nodes.flat_map(|node| node.memory.iter().map(|memory| &memory.file).chain(&node.screen));
    of_nodes.chain(machine.now.memory.iter().map(|memory| &memory.file)).cloned().collect()
}

/// Moves to the trash every image that no node is and nothing reads through, again and again until there is none,
/// and every file that a node owned before and none owns now.
pub(super) fn collect(before: &Machine, change: &mut Change, reason: TrashReason, stamp: &Stamp<'_>) {
    let next = &mut change.machine;
    let mut readers: BTreeMap<ImageId, usize> = BTreeMap::new();
    for parent in next.images.values().filter_map(|record| record.parent) {
        *readers.entry(parent).or_default() += 1;
    }
    let nodes = next.snapshots.values().map(|node| &node.images).chain([&next.now.images]);
    let kept: BTreeSet<ImageId> = nodes.flat_map(BTreeMap::values).copied().collect();
    let idle = |id: &ImageId, readers: &BTreeMap<_, usize>| !kept.contains(id) && readers.get(id).is_none_or(|n| *n == 0);
    let mut goes: Vec<ImageId> = next.images.keys().copied().filter(|id| idle(id, &readers)).collect();
    let mut items: Vec<(PathBuf, Option<(ImageId, ImageRecord)>)> = Vec::new();
    while let Some(id) = goes.pop() {
        let Some(record) = next.images.remove(&id) else { continue };
        if let Some(parent) = record.parent {
            readers.entry(parent).and_modify(|n| *n = n.saturating_sub(1));
            if idle(&parent, &readers) {
                goes.push(parent);
            }
        }
        items.push((record.file.clone(), Some((id, record))));
    }
    let owned = owned_files(next);
    items.extend(owned_files(before).difference(&owned).map(|file| (file.clone(), None)));
    for (original, image) in items {
        let file = place_in_trash(&next.trash, stamp, &original);
        change.moves.push(FileMove { from: original.clone(), to: file.clone() });
        let held = (stamp.held)(&original);
        next.trash.push(TrashItem { file, original, held, removed: stamp.now, reason, action: stamp.action, image });
    }
    let images = &next.images;
    next.merges.retain(|merge| merge.run.iter().all(|image| images.contains_key(image)));
    prune(next);
}

/// `Deleted/<action>_<path with underscores>`, with a number where that is taken.
fn place_in_trash(trash: &[TrashItem], stamp: &Stamp<'_>, original: &Path) -> PathBuf {
    let parts: Vec<_> = original.iter().map(|part| part.to_string_lossy()).collect();
    let flat = parts.join("_");
    let action = stamp.action.simple();
    let names = std::iter::once(format!("{action}_{flat}")).chain((2u64..).map(|n| format!("{action}_{n}_{flat}")));
    let mut places = names.map(|name| Path::new(TRASH).join(name));
    places.find(|place| !trash.iter().any(|item| item.file == *place)).unwrap_or_default()
}

/// Puts images (with all that they read through) and files back from the trash. What is in place already stays there.
pub(super) fn restore(change: &mut Change, images: impl Iterator<Item = ImageId>, files: impl Iterator<Item = PathBuf>) {
    let mut wanted: Vec<ImageId> = images.collect();
    while let Some(id) = wanted.pop() {
        let of_image = |item: &TrashItem| item.image.as_ref().is_some_and(|(other, _)| *other == id);
        if change.machine.images.contains_key(&id) {
            continue;
        }
        if let Some((id, record)) = take_out(change, of_image).and_then(|item| item.image) {
            wanted.extend(record.parent);
            change.machine.images.insert(id, record);
            change.restored.push(id);
        }
    }
    for file in files {
        take_out(change, |item| item.image.is_none() && item.original == file);
    }
}

fn take_out(change: &mut Change, wanted: impl Fn(&TrashItem) -> bool) -> Option<TrashItem> {
    let at = change.machine.trash.iter().position(wanted)?;
    let item = change.machine.trash.remove(at);
    change.moves.push(FileMove { from: item.file.clone(), to: item.original.clone() });
    Some(item)
}

fn in_trash(machine: &Machine, id: ImageId) -> Option<&ImageRecord> {
    machine.trash.iter().filter_map(|item| item.image.as_ref()).find(|(other, _)| *other == id).map(|(_, record)| record)
}

/// Walks from an image down to the first one that isn't in the trash; `None` if the way ends in nothing.
fn first_in_place(machine: &Machine, image: ImageId) -> Option<Option<ImageId>> {
    let mut at = Some(image);
    for _ in 0..=machine.trash.len() {
        match at {
            Some(id) if machine.images.contains_key(&id) => return Some(Some(id)),
            Some(id) => at = in_trash(machine, id)?.parent,
            None => return Some(None),
        }
    }
    None
}

/// Whether an image is in place, or can be put back with all that it reads through.
pub(super) fn is_available(machine: &Machine, image: ImageId) -> bool {
    first_in_place(machine, image).is_some()
}

/// Whether an image in the trash reads through one of these, which are in place.
pub(super) fn waits_for(machine: &Machine, image: ImageId, sources: &[ImageId]) -> bool {
    matches!(first_in_place(machine, image), Some(Some(id)) if sources.contains(&id))
}

/// Why a deleted snapshot can't be put back, if it can't.
pub(super) fn why_lost(machine: &Machine, ghost: &Ghost) -> Option<&'static str> {
    if ghost.sealed {
        Some("a merge of its images has started")
    } else if !ghost.snapshot.images.values().all(|image| is_available(machine, *image)) {
        Some("some of its images, or images that it reads through, are no longer on disk")
    } else {
        None
    }
}

/// Forgets what is gone for good: ghosts without bytes, memory and pictures of ghosts that were removed, an apply
/// that can't be undone any more.
pub(super) fn prune(machine: &mut Machine) {
    let owned = owned_files(machine);
    let trash = &machine.trash;
    let there = |file: &PathBuf| owned.contains(file) || trash.iter().any(|item| item.image.is_none() && item.original == *file);
    for ghost in machine.ghosts.values_mut() {
        let node = &mut ghost.snapshot;
        node.memory = node.memory.take().filter(|memory| there(&memory.file));
        node.screen = node.screen.take().filter(there);
    }
    if let Some(applied) = &mut machine.applied {
        applied.now.memory = applied.now.memory.take().filter(|memory| there(&memory.file));
    }
    let machine_ref = &*machine;
    let lost = |applied: &super::AppliedRecord| !applied.now.images.values().all(|image| is_available(machine_ref, *image));
    if machine.applied.as_ref().is_some_and(lost) {
        machine.applied = None;
    }
    let holds = |ghost: &Ghost| {
        let node = &ghost.snapshot;
        let mut images = node.images.values();
        images.any(|id| machine.images.contains_key(id) || in_trash(machine, *id).is_some())
            || node.images.is_empty() && (node.memory.is_some() || node.screen.is_some())
    };
    let empty: Vec<_> = machine.ghosts.iter().filter(|(_, ghost)| !holds(ghost)).map(|(id, _)| *id).collect();
    let mut forest = Forest::of(machine);
    for id in empty {
        let parent = forest.parent(id);
        forest.splice(id);
        machine.ghosts.remove(&id);
        if let Some(applied) = machine.applied.as_mut().filter(|applied| applied.now.parent == Some(id)) {
            applied.now.parent = parent;
        }
    }
    forest.write(machine);
}
