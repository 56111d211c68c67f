//! From a leaf to its base, through the gate; and what makes two images parent and child.

use std::path::Path;
use std::sync::Arc;

use super::Gate;
use super::gate::parent_name;
use crate::disk::{self, DiskError, DiskErrorKind, Image, ImageFormat, ImageInfo, ImageType, ParentLink, Result};
use crate::host_file::{Access, SharedHost};

/// More images than this are no chain, but a mistake or an attack.
pub const MAX_DEPTH: usize = 1024;

/// The images behind a leaf as far as they were found.
#[derive(Debug)]
pub struct Trace {
    /// What was found, the leaf last.
    pub images: Vec<Arc<dyn Image>>,
    /// Why the first one's parent wasn't opened; `None` where the first one is a base.
    pub stopped: Option<DiskError>,
}

/// Opens a leaf and its parents as far as they can be found, checking identifiers: for a look at an
/// image whose parents may be missing. The leaf itself doesn't pass the gate.
///
/// # Errors
/// Where the leaf itself can't be opened.
pub fn trace(host: &SharedHost, leaf: &Path, access: Access, gate: &Gate) -> Result<Trace> {
    let path = host.canonical(leaf).map_err(|error| DiskError::io(leaf, "find the file", error))?;
    let format = disk::probe(host, &path)?;
    let mut images = vec![disk::open(host, &path, format, access)?];
    let mut paths = vec![path];
    let access = if access == Access::Look { Access::Look } else { Access::Read };
    let stopped = loop {
        let (child, path) = (&images[images.len() - 1], &paths[paths.len() - 1]);
        let info = child.info();
        let Some(link) = &info.parent else { break check_base(&info, path).err() };
        match open_parent(host, path, &info, link, access, gate, &paths) {
            Ok(parent) => {
                paths.push(parent.path());
                images.push(parent);
            }
            Err(error) => break Some(error),
        }
    };
    images.reverse();
    Ok(Trace { images, stopped })
}

fn open_parent(
    host: &SharedHost,
    child: &Path,
    info: &ImageInfo,
    link: &ParentLink,
    access: Access,
    gate: &Gate,
    below: &[std::path::PathBuf],
) -> Result<Arc<dyn Image>> {
    check_depth(below.len() + 1, child)?;
    let mut first_error = None;
    for path in gate.candidates(&**host, child, link)? {
        let result = if below.contains(&path) {
            let problem = format!("leads back to {}", path.display());
            Err(DiskError::new(child, DiskErrorKind::Invalid { field: "parent locator", problem }))
        } else {
            open_checked(host, &path, info, child, access)
        };
        match result {
            Ok(parent) => return Ok(parent),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| {
        let kind = DiskErrorKind::ParentMissing { name: parent_name(link), linkage: link.linkage };
        DiskError::new(child, kind)
    }))
}

fn open_checked(host: &SharedHost, path: &Path, child: &ImageInfo, child_path: &Path, access: Access) -> Result<Arc<dyn Image>> {
    let format: ImageFormat = child.format;
    let parent = disk::open(host, path, format, access)?;
    check_pair(&*parent, child, child_path)?;
    Ok(parent)
}

/// Whether a chain may have so many images.
pub(super) fn check_depth(depth: usize, path: &Path) -> Result<()> {
    if depth <= MAX_DEPTH {
        return Ok(());
    }
    Err(DiskError::refused(path, format!("its chain has more than {MAX_DEPTH} images")))
}

/// Whether the images are a chain, the base first.
pub(super) fn check_chain(images: &[Arc<dyn Image>]) -> Result<()> {
    let Some(base) = images.first() else {
        return Err(DiskError::refused(Path::new(""), "a chain has at least one image"));
    };
    check_depth(images.len(), &images[images.len() - 1].path())?;
    check_base(&base.info(), &base.path())?;
    images.windows(2).try_for_each(|pair| check_pair(&*pair[0], &pair[1].info(), &pair[1].path()))
}

fn check_base(info: &ImageInfo, path: &Path) -> Result<()> {
    match (&info.parent, info.kind) {
        (None, ImageType::Fixed | ImageType::Dynamic) => Ok(()),
        (None, ImageType::Differencing) => Err(DiskError::new(
            path,
            DiskErrorKind::Invalid { field: "parent locator", problem: "is missing in a differencing image".into() },
        )),
        (Some(link), _) => {
            let kind = DiskErrorKind::ParentMissing { name: parent_name(link), linkage: link.linkage };
            Err(DiskError::new(path, kind))
        }
    }
}

/// Whether a parent is what its child expects.
pub(super) fn check_pair(parent: &dyn Image, child: &ImageInfo, child_path: &Path) -> Result<()> {
    let Some(link) = &child.parent else {
        return Err(DiskError::refused(child_path, format!("it has no parent, so {} isn't it", parent.path().display())));
    };
    let info = parent.info();
    if !link.accepts(&info) {
        let (expected, found) = (link.linkage, info.data_write_id);
        return Err(DiskError::new(child_path, DiskErrorKind::ParentChanged { parent: parent.path(), expected, found }));
    }
    if info.logical_sector_size != child.logical_sector_size {
        let (theirs, ours) = (info.logical_sector_size, child.logical_sector_size);
        let text = format!("it has sectors of {ours} bytes, but its parent {} has {theirs}", parent.path().display());
        return Err(DiskError::new(child_path, DiskErrorKind::Unsupported(text)));
    }
    Ok(())
}
