//! The parts of the file and what they say, for people.

use chrono::{DateTime, Utc};

use super::create::EPOCH;
use super::footer;
use super::format::{DIFFERENCING, DYNAMIC, DynamicHeader, FIXED, Footer, HEADER_SIZE, SECTOR};
use super::image::VhdImage;
use super::parent_locator;
use crate::disk::{Result, Structure};
use crate::units::ByteCount;

impl VhdImage {
    pub(super) fn parts(&self) -> Result<Vec<Structure>> {
        let (footers, header) = {
            let w = self.settled();
            (w.footers.clone(), w.header)
        };
        let mut parts = Vec::new();
        let is_fixed = footers.current.disk_type.get() == FIXED;
        if !is_fixed {
            parts.push(match footer::at_the_head(&self.raw)? {
                Some(copy) => describe("Footer, the copy at the head", 0, &copy),
                None => Structure::new("Footer, the copy at the head", 0, SECTOR).say("Damaged", "its checksum is wrong"),
            });
        }
        if let Some(header) = header.filter(|_| !is_fixed) {
            parts.extend(self.of_header(&footers.current, &header));
        }
        parts.push(match footer::at_the_end(&self.raw)? {
            Some((found, place)) => describe("Footer", place, &found),
            None => Structure::new("Footer", footers.place, 0).say("Missing", "the copy at the head is used"),
        });
        Ok(parts)
    }

    fn of_header(&self, footer: &Footer, header: &DynamicHeader) -> Vec<Structure> {
        let blocks = self.geometry().blocks;
        let mut part = Structure::new("Dynamic Disk Header", footer.data_offset.get(), HEADER_SIZE as u64)
            .say("Block Size", ByteCount(header.block_size.get().into()))
            .say("Max Table Entries", header.max_table_entries)
            .say("Table Offset", header.table_offset);
        if footer.disk_type.get() == DIFFERENCING {
            let name = parent_locator::name(header).unwrap_or_default();
            let id = uuid::Uuid::from_bytes(header.parent_unique_id);
            part = part.say("Parent Unique ID", id).say("Parent Unicode Name", name);
        }
        let mut parts = vec![part];
        parts.extend(parent_locator::each(&self.raw, header));
        if let Some(blocks) = blocks {
            let part = Structure::new("Block Allocation Table", blocks.table, blocks.table_end() - blocks.table);
            parts.push(part.say("Entries", blocks.entries).say("Bitmap of a block", ByteCount(blocks.bitmap_length())));
        }
        parts
    }
}

fn describe(name: &str, offset: u64, footer: &Footer) -> Structure {
    let kind = match footer.disk_type.get() {
        FIXED => "2, fixed".to_owned(),
        DYNAMIC => "3, dynamic".into(),
        DIFFERENCING => "4, differencing".into(),
        other => other.to_string(),
    };
    let made = DateTime::<Utc>::from_timestamp(EPOCH + i64::from(footer.time_stamp.get()), 0);
    let made = made.map_or_else(String::new, |at| at.format("%Y-%m-%d %H:%M:%S UTC").to_string());
    let text = |tag: &[u8]| String::from_utf8_lossy(tag).trim_end_matches(['\0', ' ']).to_owned();
    let (cylinders, heads, sectors) = (footer.cylinders, footer.heads, footer.sectors);
    let mut part = Structure::new(name, offset, SECTOR)
        .say("Disk Type", kind)
        .say("Current Size", format!("{} ({} bytes)", ByteCount(footer.current_size.get()), footer.current_size))
        .say("Disk Geometry", format!("{cylinders} cylinders, {heads} heads, {sectors} sectors of a track"))
        .say("Creator", format!("{}, {}", text(&footer.creator_application), text(&footer.creator_host_os)))
        .say("Time Stamp", made)
        .say("Unique Id", footer.id());
    if footer.saved_state != 0 {
        part = part.say("Saved State", footer.saved_state);
    }
    if let Some(former) = footer.former_id() {
        part = part.say("Unique Id before, still right for children", former);
    }
    part
}
