//! New files: everything in its place, flushed, and the folder's entry too.
//!
//! ```text
//! 0 footer's copy │ header │ parent's paths │ BAT │ blocks │ footer
//! ```

use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::footer::Footers;
use super::format::{
    BLOCK_SIZE, BLOCK_SIZES, DIFFERENCING, DYNAMIC, DynamicHeader, FIXED, Footer, HEADER_SIZE, LocatorEntry, NOWHERE, Note,
    SECTOR, UNUSED, VERSION, geometry, round_up,
};
use super::image::VhdImage;
use super::resize::check_size;
use super::{header, parent_locator};
use crate::clock::SystemClock;
use crate::disk::pages::RawFile;
use crate::disk::parent_paths::ParentPaths;
use crate::disk::{CreateOptions, DiskError, Image, ImageType, Result, new_file};
use crate::host_file::SharedHost;
use crate::units::ByteCount;

/// Not one whose disks others size by their geometry.
pub(super) const CREATOR: [u8; 4] = *b"snap";
/// Windows.
const CREATOR_HOST: [u8; 4] = *b"Wi2k";
/// Footers count seconds from here: 2000-01-01.
pub(super) const EPOCH: i64 = 946_684_800;

/// Creates a fixed or dynamic image.
pub fn create(host: &SharedHost, path: &Path, options: &CreateOptions) -> Result<Arc<VhdImage>> {
    let refuse = |reason: &str| Err(DiskError::refused(path, reason));
    if options.logical_sector_size != SECTOR as u32 {
        return refuse(&format!("sectors of {} bytes can't be: VHD has 512", options.logical_sector_size));
    }
    let kind = match options.kind {
        ImageType::Fixed => FIXED,
        ImageType::Dynamic => DYNAMIC,
        ImageType::Differencing => return refuse("a differencing image needs a parent"),
    };
    create_file(host, path, kind, options.virtual_size.0, options.block_size, None)
}

/// Creates a differencing image.
pub fn create_child(host: &SharedHost, path: &Path, parent: &dyn Image, block_size: Option<ByteCount>) -> Result<Arc<VhdImage>> {
    create_file(host, path, DIFFERENCING, parent.info().virtual_size.0, block_size, Some(parent))
}

fn create_file(
    host: &SharedHost,
    path: &Path,
    kind: u32,
    size: u64,
    block_size: Option<ByteCount>,
    parent: Option<&dyn Image>,
) -> Result<Arc<VhdImage>> {
    let block_size = block_size.map_or(BLOCK_SIZE, |size| size.0);
    check_size(size).map_err(|reason| DiskError::refused(path, reason))?;
    if !block_size.is_power_of_two() || !BLOCK_SIZES.contains(&block_size) {
        let reason = format!("a block of {block_size} bytes can't be: a power of two from 4 KiB to 256 MiB");
        return Err(DiskError::refused(path, reason));
    }
    new_file(host, path, |raw| write(raw, host, kind, size, block_size, parent))
}

fn write(
    raw: RawFile,
    host: &SharedHost,
    kind: u32,
    size: u64,
    block_size: u64,
    parent: Option<&dyn Image>,
) -> Result<Arc<VhdImage>> {
    let mut end = if kind == FIXED { size } else { SECTOR + HEADER_SIZE as u64 };
    if kind != FIXED {
        let blocks = size.div_ceil(block_size);
        let mut header = new_header(blocks, block_size);
        if let Some(parent) = parent {
            header.parent_unique_id = parent.info().data_write_id.into_bytes();
            let paths = ParentPaths::new(host, raw.path(), &parent.path());
            let data = parent_locator::encode(&mut header, &parent.path(), &paths, end);
            raw.write(&data, end, "write the parent locator")?;
            end += data.len() as u64;
        }
        header.table_offset = end.into();
        raw.write(&header::encode(&header), SECTOR, "write the dynamic header")?;
        let table_end = end + round_up(blocks * 4, SECTOR);
        while end < table_end {
            let piece = (table_end - end).min(1 << 20);
            raw.write(&vec![UNUSED as u8; piece as usize], end, "write the BAT")?;
            end += piece;
        }
    }
    let mut footers = Footers { current: new_footer(kind, size, SystemClock::shared().now()), place: end, is_damaged: true };
    footers.repair(&raw)?;
    VhdImage::assemble(host, raw, footers, true)
}

fn new_header(blocks: u64, block_size: u64) -> DynamicHeader {
    DynamicHeader {
        cookie: DynamicHeader::COOKIE,
        data_offset: NOWHERE.into(),
        table_offset: 0.into(),
        version: VERSION.into(),
        max_table_entries: (blocks as u32).into(),
        block_size: (block_size as u32).into(),
        checksum: 0.into(),
        parent_unique_id: [0; 16],
        parent_time_stamp: 0.into(),
        reserved: 0.into(),
        parent_unicode_name: [0; 512],
        locators: [LocatorEntry::NONE; 8],
        reserved2: [0; 256],
    }
}

fn new_footer(kind: u32, size: u64, now: DateTime<Utc>) -> Footer {
    let (cylinders, heads, sectors) = geometry(size);
    Footer {
        cookie: Footer::COOKIE,
        features: 2.into(),
        version: VERSION.into(),
        data_offset: if kind == FIXED { NOWHERE } else { SECTOR }.into(),
        time_stamp: (now.timestamp().saturating_sub(EPOCH).clamp(0, u32::MAX.into()) as u32).into(),
        creator_application: CREATOR,
        creator_version: VERSION.into(),
        creator_host_os: CREATOR_HOST,
        original_size: size.into(),
        current_size: size.into(),
        cylinders: cylinders.into(),
        heads,
        sectors,
        disk_type: kind.into(),
        checksum: 0.into(),
        unique_id: crate::fresh::uuid().into_bytes(),
        saved_state: 0,
        reserved: [0; 387],
        note: Note { signature: [0; 8], former_id: [0; 16], old_footer: 0.into(), spare: [0; 8] },
    }
}
