//! VHDX images ([MS-VHDX]).
//!
//! ```text
//! format           what stands in the file
//! header, region, metadata, parent_locator, bat, sector_bitmap    one part of it each
//! log              replay, and entries for changed pages
//! space            free space inside the file
//! create, image    new files; an open one, and reading it
//! write            allocation, commit, flush, freeze     resize, merge, check, inspect
//!
//! write ─> payload in place ─> patches ─> side file ─> pages (changed)
//! flush ─> payload durable ─> log entry durable ─> pages in place ─> log empty, side file empty
//! ```

use std::path::Path;
use std::sync::Arc;

use super::pages::RawFile;
use super::{CreateOptions, DiskError, Image, Result};
use crate::host_file::{Access, SharedHost};
use crate::units::ByteCount;

mod bat;
mod check;
mod create;
mod format;
mod header;
mod image;
mod inspect;
mod log;
mod merge;
mod metadata;
mod parent_locator;
mod region;
mod resize;
mod sector_bitmap;
mod space;
#[cfg(test)]
mod tests;
mod write;

/// The largest disk.
pub const VIRTUAL_SIZE_MAX: ByteCount = ByteCount(format::VIRTUAL_SIZE_MAX);

/// Opens a VHDX file. A log that isn't empty is replayed: into the file when it is opened for
/// writing, in memory otherwise. The same holds for what a killed process left in the side file.
pub fn open(host: &SharedHost, path: &Path, access: Access) -> Result<Arc<dyn Image>> {
    Ok(image::VhdxImage::open(host, path, access)?)
}

/// Creates a fixed or dynamic VHDX file.
pub fn create(host: &SharedHost, path: &Path, options: &CreateOptions) -> Result<Arc<dyn Image>> {
    Ok(create::create(host, path, options)?)
}

/// Creates a differencing VHDX file.
pub fn create_child(host: &SharedHost, path: &Path, parent: &dyn Image, block_size: Option<ByteCount>) -> Result<Arc<dyn Image>> {
    Ok(create::create_child(host, path, parent, block_size)?)
}

/// Whether the file starts as a VHDX file does.
pub fn probe(host: &SharedHost, path: &Path) -> Result<()> {
    let file = host.open(path, Access::Look).map_err(|e| DiskError::io(path, "open the image", e))?;
    image::check_signature(&RawFile::new(file)?)
}
