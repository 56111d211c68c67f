//! The dynamic header, which names the BAT and the parent.

use zerocopy::{FromBytes, IntoBytes};

use super::format::{BLOCK_SIZES, DynamicHeader, Footer, HEADER_SIZE, SECTOR, VERSION, checksum};
use crate::disk::pages::RawFile;
use crate::disk::{DiskError, Result};

/// Its bytes, with its checksum.
pub fn encode(header: &DynamicHeader) -> Vec<u8> {
    let mut header = *header;
    header.checksum = 0.into();
    header.checksum = checksum(header.as_bytes()).into();
    header.as_bytes().to_vec()
}

/// Reads and checks the header that the footer names.
pub fn read(raw: &RawFile, footer: &Footer) -> Result<DynamicHeader> {
    let offset = footer.data_offset.get();
    let invalid = |field, problem: String| Err(DiskError::invalid(raw.path(), offset, field, problem));
    if !offset.is_multiple_of(SECTOR) || offset.checked_add(HEADER_SIZE as u64).is_none_or(|end| end > raw.len()) {
        return invalid("Data Offset", format!("of the footer is {offset}, where there is no header"));
    }
    let mut bytes = [0; HEADER_SIZE];
    raw.read(&mut bytes, offset, "read the dynamic header")?;
    let header = DynamicHeader::read_from_bytes(&bytes).expect("as long as it is");
    let mut summed = header;
    summed.checksum = 0.into();
    if header.cookie != DynamicHeader::COOKIE {
        return invalid("Cookie", "of the dynamic header isn't \"cxsparse\"".into());
    }
    if checksum(summed.as_bytes()) != header.checksum.get() {
        return invalid("Checksum", "of the dynamic header is wrong".into());
    }
    if header.version.get() >> 16 != VERSION >> 16 {
        return invalid("Header Version", format!("is {:#010x}, must be {VERSION:#010x}", header.version.get()));
    }
    let block_size = u64::from(header.block_size.get());
    if !block_size.is_power_of_two() || !BLOCK_SIZES.contains(&block_size) {
        return invalid("Block Size", format!("is {block_size}, must be a power of two from 4 KiB to 256 MiB"));
    }
    let (entries, blocks) = (u64::from(header.max_table_entries.get()), footer.current_size.get().div_ceil(block_size));
    if entries < blocks {
        return invalid("Max Table Entries", format!("is {entries}, but the disk has {blocks} blocks"));
    }
    let table = header.table_offset.get();
    if !table.is_multiple_of(SECTOR) || table.checked_add(entries * 4).is_none_or(|end| end > raw.len()) {
        return invalid("Table Offset", format!("is {table}, where there is no room for {entries} entries"));
    }
    Ok(header)
}
