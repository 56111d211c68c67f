//! Several images become one: a new file beside, and then names. The files that it is made of stay as they were, kept under
//! other names.

use std::path::{Path, PathBuf};

use super::{RepairError, Result};
use crate::chain::{Chain, Gate};
use crate::disk::{self, Image};
use crate::host_file::{Access, SharedHost};

/// Bytes copied at once.
const CHUNK: u64 = 4 << 20;

/// Makes one image of `into` and of the images of `run` below it, in place of `into`. They go into the folder `away`.
pub(super) fn merge(host: &SharedHost, root: &Path, run: &[PathBuf], into: &Path, away: &Path) -> Result<()> {
    let name = into.file_name().unwrap_or_default().to_string_lossy();
    let merged = into.with_file_name(format!(".{name}.merged"));
    let chain = Chain::open(host, into, Access::Read, &Gate::new([root.to_owned()]))?;
    let images = chain.images();
    let first = images.len().checked_sub(run.len() + 1).filter(|first| *first > 0);
    let Some(first) =
        first.filter(|first| images[*first..].iter().map(|image| image.path()).eq(run.iter().cloned().chain([into.to_owned()])))
    else {
        return Err(RepairError::Refused(format!("{} doesn't read through the images that were planned", into.display())));
    };
    let (below, top) = (&images[first - 1], &images[images.len() - 1]);
    let (info, size) = (top.info(), top.info().virtual_size);
    let new = disk::create_child(host, &merged, &**below, Some(info.block_size))?;
    if new.info().virtual_size < size {
        new.grow(size)?;
    }
    copy(&chain, first, &*new)?;
    new.take_identity_of(&**top)?;
    new.flush()?;
    new.set_data_write_id(info.data_write_id)?;
    new.forget_former_id()?;
    new.freeze()?;
    drop((new, images, chain));
    let io = |path: &Path, error| RepairError::io("rename", path, error);
    for (at, file) in run.iter().map(PathBuf::as_path).chain([into]).enumerate() {
        for file in disk::side_files(file).into_iter().chain([file.to_owned()]).filter(|file| host.exists(file)) {
            let kept = away.join(format!("{at}-{}", file.file_name().unwrap_or_default().to_string_lossy()));
            host.rename(&file, &kept).map_err(|error| io(&file, error))?;
            host.flush_dir(file.parent().unwrap_or(root)).map_err(|error| io(&file, error))?;
        }
    }
    host.flush_dir(away).map_err(|error| io(away, error))?;
    host.rename(&merged, into).map_err(|error| io(&merged, error))?;
    host.flush_dir(into.parent().unwrap_or(root)).map_err(|error| io(into, error))
}

/// Copies what the images from `first` on hold, zeros as zeros.
fn copy(chain: &Chain, first: usize, new: &dyn Image) -> Result<()> {
    let size = chain.virtual_size().0;
    let mut buf = Vec::new();
    let mut at = 0;
    while at < size {
        let length = CHUNK.min(size - at);
        for stretch in chain.stretches(at, length)? {
            if stretch.owner.is_none_or(|owner| usize::from(owner) < first) {
                continue;
            }
            if stretch.zero {
                new.write_zeroes(stretch.offset, stretch.length)?;
            } else {
                buf.resize(stretch.length as usize, 0);
                chain.read_at(&mut buf, stretch.offset)?;
                new.write_at(&buf, stretch.offset)?;
            }
        }
        at += length;
    }
    Ok(())
}
