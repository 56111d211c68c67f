//! What follows the manifest (moves, removals, links), and what opening does about an operation that was cut short.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::machine_store::{SNAPSHOTS, TRASH};
use super::{ChangeRecord, Journal, MachineStore, NewLeaf, Result, StoreError, TakeRecord};
use crate::disk::{self, Image, ParentTarget};
use crate::host_file::Access;
use crate::snapshot::{FileMove, Growth, ImageId, keep_on_new_leaves};

/// Completes or undoes what the journal says, and clears it; says what was done.
///
/// A process that was killed has left in the kernel what a loss of power still takes back. So the manifest that decides is
/// made durable first, and the folders of what is found done already are flushed like those of what is done now.
pub(super) fn recover(store: &mut MachineStore) -> Result<Vec<String>> {
    let mut said = Vec::new();
    match store.journal.clone() {
        None | Some(Journal::Switch(_)) => return Ok(said),
        Some(Journal::Create(_)) => {}
        Some(Journal::Change(record)) if store.machine.generation > record.generation => {
            complete(store, &record)?;
            said.push(format!("The operation {:?} was cut short; it was completed.", record.operation));
        }
        Some(Journal::Change(record)) => {
            remove_images(store, &record.created)?;
            said.push(format!("The operation {:?} was cut short before it took effect; it was undone.", record.operation));
        }
        Some(Journal::Take(record)) => said.extend(recover_take(store, &record)?),
    }
    store.clear_journal()?;
    Ok(said)
}

/// A machine that ran while it was merged, and was killed, may have written to images under its leaf, which nobody would
/// flush: neither its next start, that writes to its leaf alone, nor what it flushes then.
pub(super) fn settle_merges(store: &MachineStore) -> Result<()> {
    if store.pending_switch().is_some() {
        return Ok(());
    }
    let images = store.machine.merges.iter().flat_map(|merge| &merge.run);
    for image in images.filter(|image| store.machine.images.contains_key(image)) {
        let image = open_image(store, *image, Access::Write)?;
        image.flush()?;
        image.freeze()?;
    }
    Ok(())
}

fn recover_take(store: &mut MachineStore, record: &TakeRecord) -> Result<Option<String>> {
    if store.machine.generation > record.generation {
        if !store.machine.snapshots.contains_key(&record.snapshot) {
            remove_folder(store, &record.folder)?;
        }
        return Ok(None);
    }
    if record.complete && holds_anything(store, record)? {
        // A running machine went on in the new leaves: what it wrote there is its state.
        for image in store.machine.now.images.clone().into_values() {
            open_image(store, image, Access::Write)?.freeze()?;
        }
        let leaves = record.leaves.iter().map(|(disk, leaf)| (disk.clone(), (leaf.image, leaf.record.clone())));
        store.publish(keep_on_new_leaves(&store.machine, leaves.collect()).machine)?;
        remove_folder(store, &record.folder)?;
        return Ok(Some(
            "Taking a snapshot was cut short after the machine had gone on: nothing is lost, and a merge is due.".into(),
        ));
    }
    undo_take(store, record)?;
    Ok(Some("Taking a snapshot was cut short; it was undone.".into()))
}

/// Removes what a take has made.
pub(super) fn undo_take(store: &MachineStore, record: &TakeRecord) -> Result<()> {
    let files: Vec<_> = record.leaves.values().map(|leaf| leaf.record.file.clone()).collect();
    remove_images(store, &files)?;
    remove_folder(store, &record.folder)
}

/// Whether any of the new leaves owns anything: then the machine was switched to them. Undoing removes them only where none
/// does; those that are missing it has removed before it was cut short itself.
fn holds_anything(store: &MachineStore, record: &TakeRecord) -> Result<bool> {
    let path = |leaf: &NewLeaf| store.dir.join(&leaf.record.file);
    let (there, missing): (Vec<_>, Vec<_>) = record.leaves.values().partition(|leaf| store.host.exists(&path(leaf)));
    for leaf in there {
        if !owns_anything(&*disk::open(&store.host, &path(leaf), leaf.record.format, Access::Write)?)? {
            continue;
        }
        return match missing.first() {
            None => Ok(true),
            Some(gone) => Err(StoreError::refused(&path(gone), "the machine has written to it or beside it, and it is missing")),
        };
    }
    Ok(false)
}

fn owns_anything(image: &dyn Image) -> Result<bool> {
    const STRIDE: u64 = 1 << 30;
    let size = image.info().virtual_size.0;
    let mut offset = 0;
    while offset < size {
        let length = STRIDE.min(size - offset);
        if image.extents(offset, length)?.iter().any(|extent| extent.presence != disk::Presence::Absent) {
            return Ok(true);
        }
        offset += length;
    }
    Ok(false)
}

/// Opens one of the machine's images.
pub(super) fn open_image(store: &MachineStore, image: ImageId, access: Access) -> Result<std::sync::Arc<dyn Image>> {
    let Some(record) = store.machine.images.get(&image) else {
        return Err(StoreError::invalid(&store.dir, "image", format!("there is no image {image}")));
    };
    Ok(disk::open(&store.host, &store.dir.join(&record.file), record.format, access)?)
}

/// Removes images that were made for an operation that doesn't happen, with their side files.
pub(super) fn remove_images(store: &MachineStore, files: &[PathBuf]) -> Result<()> {
    let mut folders = BTreeSet::new();
    for file in files {
        let path = store.dir.join(file);
        folders.extend(path.parent().map(Path::to_owned));
        for path in [disk::side_files(&path), vec![path]].concat() {
            if store.host.exists(&path) {
                store.host.remove_file(&path).map_err(|error| StoreError::io(&path, "remove it", error))?;
            }
        }
    }
    flush(store, folders)
}

pub(super) fn remove_folder(store: &MachineStore, folder: &Path) -> Result<()> {
    let path = store.dir.join(folder);
    if store.host.exists(&path) {
        store.host.remove_dir_all(&path).map_err(|error| StoreError::io(&path, "remove it", error))?;
    }
    flush(store, BTreeSet::from([store.dir.join(SNAPSHOTS)]))
}

/// Makes changes of names in these folders durable; what isn't there has none.
fn flush(store: &MachineStore, folders: BTreeSet<PathBuf>) -> Result<()> {
    for folder in folders.into_iter().filter(|folder| store.host.exists(folder)) {
        store.host.flush_dir(&folder).map_err(|error| StoreError::io(&folder, "flush the folder", error))?;
    }
    Ok(())
}

/// Makes true what the published manifest says: files are moved and removed, locators lead to the parents. What is
/// done already is passed over, so that it can be called again.
pub(super) fn complete(store: &MachineStore, record: &ChangeRecord) -> Result<()> {
    let host = &store.host;
    let mut folders = BTreeSet::new();
    for FileMove { from, to } in &record.moves {
        let (from, to) = (store.dir.join(from), store.dir.join(to));
        folders.extend([&from, &to].into_iter().filter_map(|path| path.parent()).map(Path::to_owned));
        folders.extend(to.parent().and_then(Path::parent).map(Path::to_owned));
        // A moved image was frozen: a side file that has come back with the power holds nothing.
        for side in disk::side_files(&from).into_iter().filter(|side| host.exists(side)) {
            host.remove_file(&side).map_err(|error| StoreError::io(&side, "remove it", error))?;
        }
        if !host.exists(&from) {
            continue;
        }
        if host.exists(&to) {
            return Err(StoreError::refused(&to, format!("{} should go there, but something is there already", from.display())));
        }
        if let Some(folder) = to.parent().filter(|folder| !host.exists(folder)) {
            host.create_dir_all(folder).map_err(|error| StoreError::io(folder, "create the folder", error))?;
        }
        host.rename(&from, &to).map_err(|error| StoreError::io(&from, "move it", error))?;
    }
    for file in &record.removes {
        let path = store.dir.join(file);
        folders.extend(path.parent().map(Path::to_owned));
        if host.exists(&path) {
            host.remove_file(&path).map_err(|error| StoreError::io(&path, "remove it", error))?;
        }
    }
    flush(store, folders)?;
    for image in &record.restored {
        relink(store, *image)?;
    }
    for growth in &record.grown {
        grow(store, *growth)?;
    }
    remove_empty_folders(store, record)
}

fn grow(store: &MachineStore, Growth { image, size }: Growth) -> Result<()> {
    let image = open_image(store, image, Access::Write)?;
    if image.info().virtual_size < size {
        image.grow(size)?;
    }
    Ok(image.freeze()?)
}

/// Folders of memory and pictures that have become empty go.
fn remove_empty_folders(store: &MachineStore, record: &ChangeRecord) -> Result<()> {
    let left = record.moves.iter().map(|file| &file.from).chain(&record.removes);
    let folders: BTreeSet<&Path> = left.filter_map(|file| file.parent()).collect();
    for folder in folders.into_iter().filter(|folder| folder.parent() == Some(Path::new(SNAPSHOTS))) {
        if store.host.list(&store.dir.join(folder)).is_ok_and(|entries| entries.is_empty()) {
            remove_folder(store, folder)?;
        }
    }
    Ok(())
}

/// Lets an image's locator lead to where its parent is now, if it doesn't already.
fn relink(store: &MachineStore, image: ImageId) -> Result<()> {
    let Some(parent) = store.machine.images.get(&image).and_then(|record| record.parent) else { return Ok(()) };
    let Some(parent_path) = store.image_path(parent) else { return Ok(()) };
    let child = open_image(store, image, Access::Write)?;
    if leads_to(&*child, &parent_path) {
        child.flush()?;
        return Ok(child.freeze()?);
    }
    let parent_info = open_image(store, parent, Access::Look)?.info();
    let (data_write_id, link) = (parent_info.data_write_id, child.info().parent.unwrap_or_default());
    if !link.accepts(&parent_info) {
        let (expected, found) = (link.linkage, data_write_id);
        let kind = disk::DiskErrorKind::ParentChanged { parent: parent_path, expected, found };
        return Err(disk::DiskError::new(&child.path(), kind).into());
    }
    child.set_parent(&ParentTarget { path: parent_path, data_write_id })?;
    child.freeze()?;
    Ok(())
}

fn leads_to(child: &dyn Image, parent: &Path) -> bool {
    let path = child.path();
    let link = child.info().parent.and_then(|link| link.relative_path);
    let (Some(link), Some(folder)) = (link, path.parent()) else { return false };
    lexical(&folder.join(link.replace('\\', "/"))) == lexical(parent)
}

/// The path without `.` and `..`.
pub(super) fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// Whether what comes back from the trash can come back: the files are there, their places free, their parents unchanged.
pub(super) fn check_restore(store: &MachineStore, change: &crate::snapshot::Change) -> Result<()> {
    for FileMove { from, to } in change.moves.iter().filter(|file| file.from.starts_with(TRASH)) {
        if !store.host.exists(&store.dir.join(from)) {
            return Err(StoreError::refused(&store.dir.join(from), "it is no longer there, so nothing can be put back"));
        }
        if store.host.exists(&store.dir.join(to)) {
            return Err(StoreError::refused(&store.dir.join(to), "something else is there now, so nothing can be put back"));
        }
    }
    let place = |image: ImageId| {
        let record = change.machine.images.get(&image)?;
        let trashed = change.moves.iter().find(|file| file.to == record.file).map(|file| &file.from);
        Some((store.dir.join(trashed.unwrap_or(&record.file)), record))
    };
    for image in &change.restored {
        let Some((path, record)) = place(*image) else { continue };
        let child = disk::open(&store.host, &path, record.format, Access::Look)?.info();
        let Some((parent, parent_record)) = record.parent.and_then(place) else { continue };
        let found = disk::open(&store.host, &parent, parent_record.format, Access::Look)?.info();
        let link = child.parent.unwrap_or_default();
        if !link.accepts(&found) {
            let (expected, found) = (link.linkage, found.data_write_id);
            let kind = disk::DiskErrorKind::ParentChanged { parent, expected, found };
            return Err(disk::DiskError::new(&path, kind).into());
        }
    }
    Ok(())
}
