//! VHD images ("Virtual Hard Disk Image Format Specification 1.0").
//!
//! ```text
//! format           what stands in the file
//! footer, header, parent_locator, geometry, sector_bitmap    one part of it each
//! space            where new things go: to the footer's place
//! create, image    new files; an open one, and reading it
//! write            allocation, commit, flush, freeze     header_switch, resize, merge, check, inspect
//!
//! write ─> footer behind it, durable ─> payload in place ─> patches ─> side file ─> sectors (changed)
//! flush ─> payload durable ─> bitmaps durable ─> BAT durable ─> side file empty
//! what can't be done in one sector is written beside, and the footer, which is one sector, names it
//! ```
//!
//! A VHD has no room for a second identifier of its parent. Where identifiers change, the parent therefore says in the
//! footer's reserved bytes which one it had before, in the same sector and for as long as its children have that one.

use std::path::Path;
use std::sync::Arc;

use super::pages::RawFile;
use super::{CreateOptions, DiskError, Image, ImageFormat, Result};
use crate::host_file::{Access, SharedHost};
use crate::units::ByteCount;

mod check;
mod create;
mod footer;
mod format;
mod geometry;
mod header;
mod header_switch;
mod image;
mod inspect;
mod merge;
mod parent_locator;
mod resize;
mod sector_bitmap;
mod space;
#[cfg(test)]
mod tests;
mod write;

/// The largest disk.
pub const VIRTUAL_SIZE_MAX: ByteCount = ByteCount(format::VIRTUAL_SIZE_MAX);

/// Opens a VHD file. What a killed process left in the side file is applied: to the file when it is opened for writing,
/// in memory otherwise. Without a footer at its end the file is opened by the copy.
pub fn open(host: &SharedHost, path: &Path, access: Access) -> Result<Arc<dyn Image>> {
    Ok(image::VhdImage::open(host, path, access)?)
}

/// Creates a fixed or dynamic VHD file.
pub fn create(host: &SharedHost, path: &Path, options: &CreateOptions) -> Result<Arc<dyn Image>> {
    Ok(create::create(host, path, options)?)
}

/// Creates a differencing VHD file.
pub fn create_child(host: &SharedHost, path: &Path, parent: &dyn Image, block_size: Option<ByteCount>) -> Result<Arc<dyn Image>> {
    Ok(create::create_child(host, path, parent, block_size)?)
}

/// Whether the file is one by its footer; by the copy of it alone only if its name says so too, as what stands at the
/// beginning of a raw disk is for its guest to choose.
pub fn probe(host: &SharedHost, path: &Path) -> Result<()> {
    let file = host.open(path, Access::Look).map_err(|e| DiskError::io(path, "open the image", e))?;
    let raw = RawFile::new(file)?;
    let named = ImageFormat::of_name(path) == Some(ImageFormat::Vhd);
    if footer::at_the_end(&raw)?.is_some() || (named && footer::at_the_head(&raw)?.is_some()) {
        return Ok(());
    }
    Err(DiskError::invalid(path, raw.len().saturating_sub(format::SECTOR), "Cookie", "of the footer isn't \"conectix\""))
}
