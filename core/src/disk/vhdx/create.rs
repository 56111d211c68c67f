//! New files: everything in its place, flushed, and the folder's entry too.
//!
//! ```text
//! 0 identifier, headers, region tables │ 1 MiB log │ metadata │ BAT │ blocks
//! ```

use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::bat::{BatEntry, Geometry, entry_count};
use super::format::{BLOCK_SIZES, Guid, Header, MIB, REGION_TABLE_OFFSETS, VIRTUAL_SIZE_MAX, round_up};
use super::header::Headers;
use super::image::VhdxImage;
use super::metadata::{MetadataTable, Parameters};
use super::parent_locator::ParentLocator;
use super::region::{Region, Regions};
use crate::disk::pages::RawFile;
use crate::disk::parent_paths::ParentPaths;
use crate::disk::{CreateOptions, DiskError, Image, ImageType, Result, new_file};
use crate::host_file::SharedHost;
use crate::units::ByteCount;

const CREATOR: &str = "Snaptree";
/// Room for about 500 changed pages in one entry.
const LOG_LENGTH: u64 = 4 * MIB;
const DYNAMIC_BLOCK_SIZE: u64 = 32 * MIB;
const DIFFERENCING_BLOCK_SIZE: u64 = 2 * MIB;

/// Creates a fixed or dynamic image.
pub fn create(host: &SharedHost, path: &Path, options: &CreateOptions) -> Result<Arc<VhdxImage>> {
    let parameters = Parameters {
        block_size: options.block_size.map_or(DYNAMIC_BLOCK_SIZE, |size| size.0),
        leave_allocated: options.kind == ImageType::Fixed,
        virtual_size: options.virtual_size.0,
        disk_id: options.disk_id.unwrap_or_else(crate::fresh::uuid),
        logical_sector_size: options.logical_sector_size,
        physical_sector_size: options.physical_sector_size,
        locator: None,
    };
    if options.kind == ImageType::Differencing {
        return Err(DiskError::refused(path, "a differencing image needs a parent"));
    }
    create_file(host, path, &parameters)
}

/// Creates a differencing image.
pub fn create_child(host: &SharedHost, path: &Path, parent: &dyn Image, block_size: Option<ByteCount>) -> Result<Arc<VhdxImage>> {
    let info = parent.info();
    let parameters = Parameters {
        block_size: block_size.map_or(DIFFERENCING_BLOCK_SIZE, |size| size.0),
        leave_allocated: false,
        virtual_size: info.virtual_size.0,
        disk_id: info.disk_id,
        logical_sector_size: info.logical_sector_size,
        physical_sector_size: info.physical_sector_size,
        locator: Some(locator(host, path, &parent.path(), info.data_write_id)),
    };
    create_file(host, path, &parameters)
}

/// The locator of an image at `child` for a parent at `parent`.
pub fn locator(host: &SharedHost, child: &Path, parent: &Path, linkage: Uuid) -> ParentLocator {
    let paths = ParentPaths::new(host, child, parent);
    ParentLocator::new(linkage, paths.absolute, paths.relative)
}

fn check(path: &Path, parameters: &Parameters) -> Result<()> {
    let refuse = |reason: String| Err(DiskError::refused(path, reason));
    let Parameters { block_size, virtual_size, logical_sector_size, physical_sector_size, .. } = *parameters;
    if !block_size.is_power_of_two() || !BLOCK_SIZES.contains(&block_size) {
        return refuse(format!("a block of {block_size} bytes can't be: a power of two from 1 to 256 MiB"));
    }
    for size in [logical_sector_size, physical_sector_size] {
        if size != 512 && size != 4096 {
            return refuse(format!("sectors of {size} bytes can't be: 512 or 4096"));
        }
    }
    if virtual_size == 0 || virtual_size > VIRTUAL_SIZE_MAX || !virtual_size.is_multiple_of(logical_sector_size.into()) {
        return refuse(format!("a disk of {virtual_size} bytes can't be: whole sectors, at most 64 TiB"));
    }
    Ok(())
}

fn create_file(host: &SharedHost, path: &Path, parameters: &Parameters) -> Result<Arc<VhdxImage>> {
    check(path, parameters)?;
    new_file(host, path, |raw| write(raw, host, parameters))
}

fn write(raw: RawFile, host: &SharedHost, parameters: &Parameters) -> Result<Arc<VhdxImage>> {
    let ratio = Geometry::chunk_ratio(parameters.logical_sector_size.into(), parameters.block_size);
    let blocks = parameters.virtual_size.div_ceil(parameters.block_size);
    let bat_length = round_up(entry_count(blocks, ratio, parameters.locator.is_some()) * 8, MIB);
    let log = Region { offset: MIB, length: LOG_LENGTH };
    let metadata = Region { offset: log.end(), length: MIB };
    let bat = Region { offset: metadata.end(), length: bat_length };
    let regions = Regions::new(metadata, bat);
    let data = if parameters.leave_allocated { blocks * parameters.block_size } else { 0 };
    raw.extend(bat.end() + data)?;

    let mut identifier = b"vhdxfile".to_vec();
    identifier.extend(CREATOR.encode_utf16().flat_map(u16::to_le_bytes));
    raw.write(&identifier, 0, "write the file identifier")?;
    for offset in REGION_TABLE_OFFSETS {
        raw.write(&regions.encode(), offset, "write the region table")?;
    }
    let mut table = MetadataTable::new(metadata);
    for (id, flags, content) in parameters.items() {
        let patches = table.set_item(id, flags, &content);
        let patches = patches.ok_or_else(|| DiskError::refused(raw.path(), "the parent's path is too long"))?;
        for (offset, bytes) in patches {
            raw.write(&bytes, offset, "write the metadata")?;
        }
    }
    if parameters.leave_allocated {
        write_fixed_bat(&raw, bat, blocks, ratio, parameters.block_size)?;
    }
    let mut headers = Headers::new(Header {
        signature: Header::SIGNATURE,
        checksum: 0.into(),
        sequence_number: 0.into(),
        file_write_guid: Guid::random(),
        data_write_guid: Guid::random(),
        log_guid: Guid::ZERO,
        log_version: 0.into(),
        version: 1.into(),
        log_length: (LOG_LENGTH as u32).into(),
        log_offset: log.offset.into(),
    });
    let header = headers.current;
    headers.write(&raw, header)?;
    headers.write(&raw, header)?;
    raw.flush()?;
    VhdxImage::assemble(host, raw, headers, true)
}

/// Every block of a fixed image stands behind the one before.
fn write_fixed_bat(raw: &RawFile, bat: Region, blocks: u64, ratio: u64, block_size: u64) -> Result<()> {
    let mut bytes = Vec::new();
    let mut written = 0;
    for block in 0..blocks {
        if block > 0 && block.is_multiple_of(ratio) {
            bytes.extend(BatEntry::NOT_PRESENT.0.to_le_bytes());
        }
        bytes.extend(BatEntry::full(bat.end() + block * block_size).0.to_le_bytes());
        if bytes.len() as u64 >= MIB || block + 1 == blocks {
            raw.write(&bytes, bat.offset + written, "write the BAT")?;
            written += bytes.len() as u64;
            bytes.clear();
        }
    }
    Ok(())
}
