//! A look at a folder: which images are in it, and which one is whose parent. Nothing is changed.

use std::path::{Path, PathBuf};

use serde::Serialize;
use uuid::Uuid;

use super::gate::parent_name;
use super::{Gate, MAX_DEPTH};
use crate::disk::{self, DiskError, DiskErrorKind, ImageFormat, ImageInfo, Result};
use crate::host_file::{Access, SharedHost};
use crate::units::ByteCount;

/// Folders inside folders are looked into so far.
const MAX_NESTING: u32 = 8;

/// One image of a folder.
#[derive(Debug, Clone, Serialize)]
pub struct FolderImage {
    /// Its file, links resolved.
    pub path: PathBuf,
    /// What it is.
    pub info: ImageInfo,
    /// Bytes that it takes on the volume.
    pub held: ByteCount,
    /// Its parent.
    pub parent: ParentState,
}

/// What is known of an image's parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ParentState {
    /// It has none.
    Base,
    /// The parent is here.
    Found {
        /// Its index in [`Folder::images`].
        index: usize,
    },
    /// No image of the folder is the parent.
    Missing {
        /// The parent's path as the child has it.
        name: String,
        /// The identifier that the child expects.
        linkage: Uuid,
    },
    /// The file that the path names was changed since the child was made.
    Changed {
        /// Its index in [`Folder::images`].
        index: usize,
        /// The identifier that the child expects.
        expected: Uuid,
        /// The identifier that the parent has.
        found: Uuid,
    },
    /// The path leads out of the folder, and no image inside has the identifier.
    Outside {
        /// Where it leads.
        path: PathBuf,
    },
}

/// The images of a folder and of the folders inside it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Folder {
    /// The images, sorted by path.
    pub images: Vec<FolderImage>,
    /// Files that have an image's extension and can't be read as one, with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
}

impl Folder {
    /// Looks at all files that are named as images are, without locks and without changing anything.
    ///
    /// # Errors
    /// Where the folder itself can't be listed.
    pub fn scan(host: &SharedHost, folder: &Path) -> Result<Self> {
        let root = host.canonical(folder).map_err(|error| DiskError::io(folder, "find the folder", error))?;
        let files = find_files(host, &root, &|path| ImageFormat::of_name(path).is_some())?;
        let mut found = Self::default();
        for path in files {
            match look(host, &path) {
                Ok((info, held)) => {
                    found.images.push(FolderImage { path, info, held, parent: ParentState::Base });
                }
                Err(error) => found.unreadable.push((path, error.kind.to_string())),
            }
        }
        let gate = Gate::new([root]);
        let states: Vec<ParentState> = found.images.iter().map(|image| found.parent_of(host, &gate, image)).collect();
        for (image, state) in found.images.iter_mut().zip(states) {
            image.parent = state;
        }
        Ok(found)
    }

    /// The images behind one of them, the base first; `None` where a parent is missing, changed or its own descendant.
    pub fn chain_of(&self, index: usize) -> Option<Vec<usize>> {
        let mut chain = vec![index];
        loop {
            match self.images.get(*chain.last()?)?.parent {
                ParentState::Base => break,
                ParentState::Found { index } if !chain.contains(&index) && chain.len() < MAX_DEPTH => chain.push(index),
                _ => return None,
            }
        }
        chain.reverse();
        Some(chain)
    }

    /// By path first, then by identifier: images that were moved are found as well.
    fn parent_of(&self, host: &SharedHost, gate: &Gate, image: &FolderImage) -> ParentState {
        let Some(link) = &image.info.parent else { return ParentState::Base };
        let named = gate.candidates(&**host, &image.path, link);
        let at = |path: &PathBuf| self.images.iter().position(|other| other.path == *path && other.path != image.path);
        let named_here: Vec<usize> = named.iter().flatten().filter_map(at).collect();
        let others = (0..self.images.len()).filter(|index| self.images[*index].path != image.path);
        let right = named_here.iter().copied().chain(others).find(|index| {
            let other = &self.images[*index].info;
            other.format == image.info.format && link.accepts(other)
        });
        let (expected, name) = (link.linkage, parent_name(link));
        match (right, named_here.first(), named) {
            (Some(index), ..) => ParentState::Found { index },
            (None, Some(&index), _) => ParentState::Changed { index, expected, found: self.images[index].info.data_write_id },
            (None, None, Err(error)) => match *error.kind {
                DiskErrorKind::OutsideGate(path) => ParentState::Outside { path },
                _ => ParentState::Missing { name, linkage: expected },
            },
            (None, None, Ok(_)) => ParentState::Missing { name, linkage: expected },
        }
    }
}

fn look(host: &SharedHost, path: &Path) -> Result<(ImageInfo, ByteCount)> {
    let image = disk::open(host, path, disk::probe(host, path)?, Access::Look)?;
    Ok((image.info(), image.held_bytes()?))
}

/// The wanted files in a folder and the folders inside it, links resolved, sorted.
///
/// # Errors
/// Where the folder itself can't be listed; one inside that can't be hides nothing of the rest.
pub fn find_files(host: &SharedHost, folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let root = host.canonical(folder).map_err(|error| DiskError::io(folder, "find the folder", error))?;
    let mut files = Vec::new();
    look_into(host, &root, &root, 0, wanted, &mut files)?;
    files.sort();
    files.dedup();
    Ok(files)
}

fn look_into(
    host: &SharedHost,
    root: &Path,
    folder: &Path,
    nesting: u32,
    wanted: &dyn Fn(&Path) -> bool,
    files: &mut Vec<PathBuf>,
) -> Result<()> {
    let entries = host.list(folder).map_err(|error| DiskError::io(folder, "list the folder", error))?;
    for entry in entries {
        // A link may lead anywhere: only what lies inside is looked at.
        let Ok(path) = host.canonical(&folder.join(&entry.name)) else { continue };
        if !path.starts_with(root) {
            continue;
        }
        if entry.is_dir {
            if nesting < MAX_NESTING && path.parent() == Some(folder) {
                let _ = look_into(host, root, &path, nesting + 1, wanted, files);
            }
        } else if wanted(&path) {
            files.push(path);
        }
    }
    Ok(())
}
