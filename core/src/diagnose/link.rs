//! What is wrong between an image and its parent. Pure, apart from asking where a path leads.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::Defect;
use crate::chain::{Folder, FolderImage, Gate, ParentState, parent_name};
use crate::disk::{ImageFormat, ImageInfo, ParentLink};
use crate::host_file::SharedHost;

/// An image's link to its parent, judged.
#[derive(Debug, Clone, Default)]
pub(super) struct Judged {
    /// Index of what stands in the parent's place, right or not.
    pub parent: Option<usize>,
    pub defect: Option<Defect>,
    /// Indexes of images that may be the parent as well.
    pub candidates: Vec<usize>,
    pub reason: Option<String>,
}

/// Judges the link of one image of a folder.
pub(super) fn judge(host: &SharedHost, folder: &Folder, gate: &Gate, index: usize) -> Judged {
    let image = &folder.images[index];
    let Some(link) = &image.info.parent else { return Judged::default() };
    let others = |wanted: &dyn Fn(&ImageInfo) -> bool| -> Vec<usize> {
        let is = |at: &usize| *at != index && wanted(&folder.images[*at].info);
        (0..folder.images.len()).filter(is).collect()
    };
    let accepted = |other: &ImageInfo| other.format == image.info.format && link.accepts(other);
    let same_disk = |other: &ImageInfo| is_same_disk(&image.info, other);
    match &image.parent {
        ParentState::Base => Judged::default(),
        ParentState::Found { index: parent } => {
            let named = gate.candidates(&**host, &image.path, link).unwrap_or_default();
            let mut judged = found(image, link, &folder.images[*parent], &named);
            let other_time = changed_since(host, link, &folder.images[*parent].path);
            let reasons: Vec<String> = judged.reason.into_iter().chain(other_time).collect();
            judged.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
            judged.parent = Some(*parent);
            judged.candidates = others(&accepted).into_iter().filter(|at| at != parent).collect();
            judged
        }
        ParentState::Changed { index: parent, .. } => {
            let (defect, reason) = changed(image, link, &folder.images[*parent]);
            let candidates = others(&same_disk).into_iter().filter(|at| at != parent).collect();
            Judged { parent: Some(*parent), defect: Some(defect), candidates, reason: Some(reason) }
        }
        ParentState::Missing { name, linkage } => {
            let unreadable = folder.unreadable.iter().find(|(path, _)| has_name(path, &file_name(link)));
            let reason = match unreadable {
                Some((path, problem)) => format!("its parent {} can't be read: {problem}", path.display()),
                None => format!("its parent {name} is gone: no image here has the identifier {linkage}"),
            };
            Judged { defect: Some(Defect::Orphaned), candidates: others(&same_disk), reason: Some(reason), parent: None }
        }
        ParentState::Outside { path } => {
            let reason = format!("its parent {} lies outside of this folder", path.display());
            Judged { defect: Some(Defect::Orphaned), candidates: others(&same_disk), reason: Some(reason), parent: None }
        }
    }
}

/// The identifier is right; the path and the size may not be.
fn found(image: &FolderImage, link: &ParentLink, parent: &FolderImage, named: &[PathBuf]) -> Judged {
    let (ours, theirs) = (image.info.virtual_size, parent.info.virtual_size);
    let (at, name) = (parent.path.display(), parent_name(link));
    // A child that is larger was itself resized, which is as it should be.
    let larger = (theirs > ours).then(|| format!("of its parent's disk of {theirs} only the first {ours} are read"));
    if named.contains(&parent.path) {
        return Judged { reason: larger, ..Judged::default() };
    }
    let (defect, what) = match has_name(&parent.path, &file_name(link)) {
        true => (Defect::Moved { parent: parent.path.clone() }, "was moved"),
        false => (Defect::Renamed { parent: parent.path.clone() }, "was renamed"),
    };
    let reason = format!("its parent {what}: the link says {name}, and {at} has the identifier {}", link.linkage);
    Judged { defect: Some(defect), reason: Some(reason), ..Judged::default() }
}

/// What is said where the parent's file isn't of the time that the child has of it. No defect: its identifier is right, and
/// copying a file is enough.
fn changed_since(host: &SharedHost, link: &ParentLink, parent: &Path) -> Option<String> {
    let then = DateTime::from_timestamp(link.parent_modified?, 0)?;
    let now = DateTime::<Utc>::from(host.modified(parent).ok()?);
    // Some file systems keep every other second only.
    let is_other = (now - then).num_seconds().abs() > 2;
    let shown = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S UTC").to_string();
    is_other.then(|| {
        let [then, now] = [then, now].map(shown);
        format!("its parent's file is of {now}, and was of {then} when the link was made: copied, or written to since")
    })
}

/// A file is in the parent's place, and its identifier is another one.
fn changed(image: &FolderImage, link: &ParentLink, parent: &FolderImage) -> (Defect, String) {
    let (at, path) = (parent.path.display(), parent.path.clone());
    let (ours, theirs) = (image.info.virtual_size, parent.info.virtual_size);
    let ids = format!("its identifier is {}, {} is expected", parent.info.data_write_id, link.linkage);
    if !is_same_disk(&image.info, &parent.info) {
        return (Defect::Replaced { parent: path }, format!("its parent {at} was replaced by another disk: {ids}"));
    }
    if theirs != ours {
        let sizes = format!("a disk of {theirs}, this one has {ours}");
        return (Defect::Resized { parent: path }, format!("its parent {at} was resized: {sizes}; {ids}"));
    }
    (Defect::WrittenUnder { parent: path }, format!("its parent {at} was written to under it: {ids}"))
}

/// Whether both are images of one disk. A VHD's identifier is all that it has.
fn is_same_disk(image: &ImageInfo, other: &ImageInfo) -> bool {
    image.format == other.format && image.format == ImageFormat::Vhdx && image.disk_id == other.disk_id
}

/// The parent's file name as the child has it.
fn file_name(link: &ParentLink) -> String {
    parent_name(link).rsplit(['\\', '/']).next().unwrap_or_default().to_owned()
}

fn has_name(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|own| own.eq_ignore_ascii_case(name))
}
