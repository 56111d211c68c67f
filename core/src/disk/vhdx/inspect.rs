//! The parts of the file and what they say, for people.

use uuid::Uuid;

use super::format::{
    BAT_REGION, HEADER_OFFSETS, Header, METADATA_REGION, PAGE, PAGE_SIZE, PARENT_LOCATOR, REGION_TABLE_OFFSETS, TABLE_SIZE,
};
use super::image::VhdxImage;
use super::{header, region};
use crate::disk::{Result, Structure};
use crate::locks::lock;
use crate::units::ByteCount;

impl VhdxImage {
    pub(super) fn parts(&self) -> Result<Vec<Structure>> {
        let current = self.settled().headers.current;
        let mut parts = Vec::new();
        for (number, offset) in HEADER_OFFSETS.into_iter().enumerate() {
            let mut bytes = [0; PAGE_SIZE];
            self.raw.read(&mut bytes, offset, "read the header")?;
            let is_current = |found: &Header| found.sequence_number == current.sequence_number;
            let name = |is_current| format!("Header {}{}", number + 1, if is_current { ", the current one" } else { "" });
            parts.push(match header::parse(&bytes) {
                Some(found) => of_header(Structure::new(name(is_current(&found)), offset, PAGE), &found),
                None => Structure::new(name(false), offset, PAGE).say("Damaged", "its signature or checksum is wrong"),
            });
        }
        for (number, offset) in REGION_TABLE_OFFSETS.into_iter().enumerate() {
            let mut bytes = vec![0; TABLE_SIZE];
            self.raw.read(&mut bytes, offset, "read the region table")?;
            let mut part = Structure::new(format!("Region Table {}", number + 1), offset, TABLE_SIZE as u64);
            for entry in region::parse(&bytes).unwrap_or_default() {
                let place = format!("{} at byte {}", ByteCount(entry.length.get().into()), entry.file_offset);
                part = part.say(region_name(entry.guid.into()), place);
            }
            if part.says.is_empty() {
                part = part.say("Damaged", "its signature or checksum is wrong");
            }
            parts.push(part);
        }
        let g = self.geometry();
        if g.log.length > 0 {
            let says = if current.log_guid == super::format::Guid::ZERO { "empty" } else { "holds changes" };
            parts.push(Structure::new("Log", g.log.offset, g.log.length).say("It is", says));
        }
        let metadata = Structure::new("Metadata", g.regions.metadata.offset, g.regions.metadata.length);
        parts.push(self.of_metadata(metadata)?);
        let bat = Structure::new("Block Allocation Table", g.regions.bat.offset, g.regions.bat.length);
        parts.push(bat.say("Entries", g.entry_count()).say("Chunk ratio", g.chunk_ratio));
        Ok(parts)
    }

    fn of_metadata(&self, part: Structure) -> Result<Structure> {
        let w = self.settled();
        let p = &w.parameters;
        let mut part = part
            .say("Block Size", ByteCount(p.block_size))
            .say("Leave Blocks Allocated", yes(p.leave_allocated))
            .say("Has Parent", yes(p.locator.is_some()))
            .say("Virtual Disk Size", format!("{} ({} bytes)", ByteCount(p.virtual_size), p.virtual_size))
            .say("Virtual Disk ID", p.disk_id)
            .say("Sectors", format!("{} bytes, physically {}", p.logical_sector_size, p.physical_sector_size));
        for (key, value) in p.locator.iter().flat_map(|locator| locator.pairs()) {
            part = part.say(key, value);
        }
        for item in w.table.unknown(&self.raw, &mut lock(&self.pages))? {
            debug_assert_ne!(item.id, PARENT_LOCATOR);
            part = part.say(format!("Unknown item {}", item.id), format!("{} bytes", item.content.len()));
        }
        Ok(part)
    }
}

fn of_header(part: Structure, header: &Header) -> Structure {
    let id = |guid| Uuid::from(guid).to_string();
    part.say("SequenceNumber", header.sequence_number)
        .say("FileWriteGuid", id(header.file_write_guid))
        .say("DataWriteGuid", id(header.data_write_guid))
        .say("LogGuid", id(header.log_guid))
}

fn region_name(id: Uuid) -> String {
    match id {
        BAT_REGION => "BAT".into(),
        METADATA_REGION => "Metadata".into(),
        other => other.to_string(),
    }
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}
