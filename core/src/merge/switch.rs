//! The switch: the target takes the place of the top, so that the run is one image. It spans files; every
//! step can be repeated, and the journal says what is still to be done.
//!
//! ```text
//! the name of the top stays (usual):   final locator + identity -> rename over the top's file -> manifest -> remove the rest
//! the name of the target stays:        base or identity -> relink the children of the top -> manifest -> remove the rest
//! ```
//! The second is for a base, whose name people know, for a target in another folder than the top, and for a target
//! that a running machine writes to: it keeps the file that it has open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::copy::AT_ONCE_FROM;
use super::together::together;
use super::{MergeError, Result};
use crate::disk::{self, DiskError, Image, ImageFormat, ImageType, ParentTarget};
use crate::host_file::{Access, Host, SharedHost};
use crate::snapshot::{FileRef, ImageId, ImageRecord, Machine, Run, SwitchFiles, SwitchRecord};
use crate::units::ByteCount;

/// Checks that the run is one in this tree: each image reads through the one before, and nothing else does.
pub(super) fn check_run(machine: &Machine, run: &[ImageId]) -> Result<()> {
    let changed = |what: &str, id: &ImageId| Err(MergeError::Changed(format!("{what} (image {id})")));
    for id in run {
        if !machine.images.contains_key(id) {
            return changed("an image of the run is gone", id);
        }
    }
    for pair in run.windows(2) {
        let [below, above] = pair else { continue };
        if machine.images[above].parent != Some(*below) {
            return changed("an image no longer reads through the one below it", above);
        }
        if machine.images.values().filter(|record| record.parent == Some(*below)).count() != 1 {
            return changed("something else reads through an image of the run", below);
        }
        let nodes = machine.snapshots.values().map(|snapshot| &snapshot.images).chain([&machine.now.images]);
        if nodes.flat_map(|images| images.values()).any(|id| id == below) {
            return changed("an image of the run is a node's content again", below);
        }
    }
    Ok(())
}

/// The name that stays when `run[target]` takes the place of the top: the top's, so that no child changes, unless
/// the target is the base, is written to meanwhile, or can't be renamed there.
pub(super) fn kept_file(files: &[&Path], target: usize, first_has_parent: bool, is_written: bool) -> PathBuf {
    let (own, top) = (files[target], files[files.len() - 1]);
    let stays = (target == 0 && !first_has_parent) || is_written || own.parent() != top.parent();
    if stays { own.into() } else { top.into() }
}

/// Everything that reads directly through an image, the trash included, as the tree is now.
pub(super) fn children_of(machine: &Machine, image: ImageId) -> Vec<FileRef> {
    let reads = |record: &ImageRecord| record.parent == Some(image);
    let live = machine.images.values().filter(|record| reads(record)).map(|record| (record.file.clone(), record.format));
    let trash = machine.trash.iter().filter_map(|item| {
        let (_, record) = item.image.as_ref().filter(|(_, record)| reads(record))?;
        Some((item.file.clone(), record.format))
    });
    live.chain(trash).map(|(file, format)| FileRef { file, format }).collect()
}

/// What the switch of this run will do, from the tree, the files and the identifiers as they are now.
pub(super) fn record(
    host: &SharedHost,
    dir: &Path,
    machine: &Machine,
    run: &Run,
    target: usize,
    images: &[Arc<dyn Image>],
    is_written: bool,
) -> Result<SwitchRecord> {
    check_run(machine, &run.images)?;
    let records: Vec<&ImageRecord> = run.images.iter().map(|id| &machine.images[id]).collect();
    let files: Vec<&Path> = records.iter().map(|record| &*record.file).collect();
    let (top_id, top) = (run.images[run.images.len() - 1], &images[images.len() - 1]);
    let kept = kept_file(&files, target, records[0].parent.is_some(), is_written);
    let parent = match records[0].parent {
        None => None,
        Some(id) => {
            let below = machine.images.get(&id).ok_or_else(|| MergeError::Changed(format!("image {id} is gone")))?;
            let link = images[0].info().parent.unwrap_or_default();
            let found = disk::open(host, &dir.join(&below.file), below.format, Access::Look)?.info();
            let linkage = if link.accepts(&found) { found.data_write_id } else { link.linkage };
            Some((below.file.clone(), linkage))
        }
    };
    let children = if kept == top_file(&files) { Vec::new() } else { children_of(machine, top_id) };
    let run_files = records.iter().map(|record| FileRef { file: record.file.clone(), format: record.format }).collect();
    let data_write_id = top.info().data_write_id;
    let files = SwitchFiles { run: run_files, target, kept, parent, data_write_id, children };
    Ok(SwitchRecord { disk: run.disk.clone(), run: run.images.clone(), files })
}

fn top_file<'a>(files: &[&'a Path]) -> &'a Path {
    files[files.len() - 1]
}

/// How the switch gets at image files: those that a running machine has open are changed through what it has open.
pub(super) struct Hands<'a> {
    host: &'a SharedHost,
    open: Vec<(PathBuf, Arc<dyn Image>)>,
    /// What the machine writes to from the switch on, if it has it open.
    leaf: Option<Arc<dyn Image>>,
}

impl<'a> Hands<'a> {
    /// For a stopped machine, and after an interruption: every file is opened.
    pub(super) fn stopped(host: &'a SharedHost) -> Self {
        Self { host, open: Vec::new(), leaf: None }
    }

    /// For a running one: these are open.
    pub(super) fn live(host: &'a SharedHost, open: Vec<(PathBuf, Arc<dyn Image>)>, leaf: Arc<dyn Image>) -> Self {
        Self { host, open, leaf: Some(leaf) }
    }

    fn is_leaf(&self, image: &Arc<dyn Image>) -> bool {
        self.leaf.as_ref().is_some_and(|leaf| Arc::ptr_eq(leaf, image))
    }

    fn open(&self, path: &Path, format: ImageFormat) -> Result<Arc<dyn Image>> {
        match self.open.iter().find(|(open, _)| open == path) {
            Some((_, image)) => Ok(image.clone()),
            None => Ok(disk::open(self.host, path, format, Access::Write)?),
        }
    }
}

/// Brings the image files to where the manifest can name the merged one. May be repeated from any point.
pub(super) fn change_files(hands: &Hands<'_>, dir: &Path, files: &SwitchFiles) -> Result<()> {
    let host = hands.host;
    let top = files.run.last().ok_or_else(|| MergeError::Refused("the journal names no images".into()))?;
    let target = files.run.get(files.target).ok_or_else(|| MergeError::Refused("the journal names no target".into()))?;
    let (top_path, target_path, kept) = (dir.join(&top.file), dir.join(&target.file), dir.join(&files.kept));
    let renamed = kept != target_path && !host.exists(&target_path);
    if !renamed && host.exists(&top_path) {
        dress_target(hands, dir, files, &target_path, &top_path)?;
    }
    if kept != target_path {
        if !renamed {
            host.rename(&target_path, &kept).map_err(|source| io("rename", &target_path, source))?;
        }
        // It was frozen: a side file that has come back with the power holds nothing.
        for side in disk::side_files(&target_path).iter().filter(|side| host.exists(side)) {
            host.remove_file(side).map_err(|source| io("remove", side, source))?;
        }
        flush_dir(&**host, &kept)?;
    }
    for child in &files.children {
        let path = dir.join(&child.file);
        if host.exists(&path) {
            let image = hands.open(&path, child.format)?;
            image.set_parent(&ParentTarget { path: kept.clone(), data_write_id: files.data_write_id })?;
            // Now's leaf is written to still.
            if !hands.is_leaf(&image) {
                image.freeze()?;
            }
        }
    }
    forget_former_id(hands, &target_path, &kept, target.format)
}

/// The image above the target, which knew it by the identifier that it had, isn't read any more.
fn forget_former_id(hands: &Hands<'_>, target: &Path, kept: &Path, format: ImageFormat) -> Result<()> {
    if let Some((_, image)) = hands.open.iter().find(|(open, _)| open == target) {
        if image.is_writable() {
            image.forget_former_id()?;
            // Now's leaf is written to still.
            if !hands.is_leaf(image) {
                image.freeze()?;
            }
        }
        return Ok(());
    }
    if disk::open(hands.host, kept, format, Access::Look)?.info().former_id.is_some() {
        let image = disk::open(hands.host, kept, format, Access::Write)?;
        image.forget_former_id()?;
        image.freeze()?;
    }
    Ok(())
}

/// The target gets its final parent and the top's identity, and an empty log. Until it has the top's place, the image
/// above it accepts its new identifier beside the one that it has.
fn dress_target(hands: &Hands<'_>, dir: &Path, files: &SwitchFiles, target_path: &Path, top_path: &Path) -> Result<()> {
    let open = |place: usize| hands.open(&dir.join(&files.run[place].file), files.run[place].format);
    let (last, image) = (files.run.len() - 1, open(files.target)?);
    let own_id = image.info().data_write_id;
    image.set_data_write_id(own_id)?;
    if files.target < last {
        let above = open(files.target + 1)?;
        above.set_data_write_id(above.info().data_write_id)?;
        if own_id != files.data_write_id {
            above.set_linkage(own_id, Some(files.data_write_id))?;
        }
        above.freeze()?;
        let top = if files.target + 1 == last { above } else { open(last)? };
        if top.info().data_write_id != files.data_write_id {
            let problem = format!("is {}, the journal says {}", top.info().data_write_id, files.data_write_id);
            return Err(DiskError::invalid(top_path, 0, "DataWriteGuid", problem).into());
        }
        top.freeze()?;
        image.take_identity_of(&*top)?;
    }
    if files.target > 0 {
        match &files.parent {
            Some((file, id)) => image.set_parent(&ParentTarget { path: dir.join(file), data_write_id: *id })?,
            None if image.info().kind == ImageType::Differencing => image.become_base()?,
            None => {}
        }
    }
    if own_id != files.data_write_id {
        image.set_data_write_id(files.data_write_id)?;
    }
    // What a running machine has open is frozen once, after the last change of it.
    let changes_yet = image.info().former_id.is_some() && hands.open.iter().any(|(open, _)| open == target_path);
    if hands.is_leaf(&image) || changes_yet {
        image.flush()?
    } else {
        image.freeze()?
    }
    debug_assert_eq!(image.path(), target_path);
    Ok(())
}

/// Removes what nothing reads through any longer; returns the bytes that came back. May be repeated. The top goes first,
/// durably: as long as it is there, [`change_files`] takes all of the run to be there. The others go in any order.
pub(super) fn remove_files(host: &SharedHost, dir: &Path, files: &SwitchFiles) -> Result<ByteCount> {
    let target = files.run.get(files.target).map(|file| &file.file);
    let goes = |file: &&PathBuf| **file != files.kept && Some(*file) != target;
    let mut gone: Vec<PathBuf> = files.run.iter().map(|file| &file.file).filter(goes).map(|file| dir.join(file)).collect();
    let mut freed = ByteCount::ZERO;
    if let Some(topmost) = gone.pop() {
        freed += remove(&**host, &topmost)?;
    }
    // To give a file's place back takes time where it lies in many pieces.
    let at_once = gone.iter().map(|file| held(&**host, file)).sum::<ByteCount>() >= AT_ONCE_FROM;
    let removed = together(0..gone.len(), at_once, |place| remove_unflushed(&**host, &gone[place]))?;
    freed += removed.into_iter().map(|(_, freed)| freed).sum();
    gone.dedup_by(|one, other| one.parent() == other.parent());
    gone.iter().try_for_each(|file| flush_dir(&**host, file))?;
    Ok(freed)
}

/// Removes a file with what stands beside it, durably, if it is there; returns the bytes that came back.
pub(super) fn remove(host: &dyn Host, path: &Path) -> Result<ByteCount> {
    let freed = remove_unflushed(host, path)?;
    flush_dir(host, path)?;
    Ok(freed)
}

fn remove_unflushed(host: &dyn Host, path: &Path) -> Result<ByteCount> {
    let mut freed = ByteCount::ZERO;
    for file in disk::side_files(path).iter().map(|file| &**file).chain([path]).filter(|file| host.exists(file)) {
        freed += held(host, file);
        host.remove_file(file).map_err(|source| io("remove", file, source))?;
    }
    Ok(freed)
}

fn held(host: &dyn Host, file: &Path) -> ByteCount {
    host.open(file, Access::Look).and_then(|file| file.held_bytes()).unwrap_or_default()
}

fn flush_dir(host: &dyn Host, file: &Path) -> Result<()> {
    let dir = file.parent().unwrap_or(Path::new("."));
    host.flush_dir(dir).map_err(|source| io("flush the folder of", file, source))
}

pub(super) fn io(operation: &'static str, path: &Path, source: std::io::Error) -> MergeError {
    MergeError::Io { operation, path: path.into(), source }
}
