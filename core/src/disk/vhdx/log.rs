//! The log (2.3): finding what must be replayed, and writing entries.
//!
//! A commit uses the log for one entry:
//! ```text
//! entry into one half of the log ─ flush (payload too) ─ header with its LogGuid ─ flush
//!   ─ pages in place ─ flush ─ header without LogGuid (durable with the next flush)
//! ```
//! The next commit uses the other half, so the entry stays whole until nobody can need it. What only a running machine
//! waits for ends without the last line's flush and header: the next flush is that one too, and then the header names
//! the next entry, or none.

use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;
use zerocopy::{FromBytes, IntoBytes};

use super::format::{
    Guid, LogDataSector, LogDescriptor, LogEntryHeader, MIB, PAGE, PAGE_SIZE, REGION_TABLE_OFFSETS, checksum, round_up,
};
use super::region::Region;
use crate::disk::pages::{Overlay, Page, RawFile};
use crate::disk::{DiskError, DiskErrorKind, Result};

/// The largest offset that we follow: well above the largest disk and its metadata.
const FILE_SIZE_MAX: u64 = (65 << 40) + 512 * MIB;

/// The longest log that we replay, in bytes.
const LOG_REPLAY_MAX: u64 = 64 * MIB;

/// Pages of header and descriptors of an entry with this many descriptors.
fn descriptor_pages(count: usize) -> usize {
    (size_of::<LogEntryHeader>() + count * size_of::<LogDescriptor>()).div_ceil(PAGE_SIZE)
}

/// How many pages one entry in half a log of this length can carry.
pub fn entry_capacity(log_length: u64) -> usize {
    let pages = (log_length / 2 / PAGE) as usize;
    let mut count = pages.saturating_sub(1);
    while count > 0 && descriptor_pages(count) + count > pages {
        count -= 1;
    }
    count
}

/// An entry that carries these pages and stands at `tail` in the log, alone in its sequence.
pub fn encode(log_guid: Guid, tail: u32, file_length: u64, pages: &[(u64, Arc<Page>)]) -> Vec<u8> {
    let sequence_number = 1_u64;
    let head = descriptor_pages(pages.len()) * PAGE_SIZE;
    let mut bytes = vec![0; head + pages.len() * PAGE_SIZE];
    let header = LogEntryHeader {
        signature: *b"loge",
        checksum: 0.into(),
        entry_length: (bytes.len() as u32).into(),
        tail: tail.into(),
        sequence_number: sequence_number.into(),
        descriptor_count: (pages.len() as u32).into(),
        reserved: 0.into(),
        log_guid,
        flushed_file_offset: file_length.into(),
        last_file_offset: round_up(file_length, MIB).into(),
    };
    bytes[..64].copy_from_slice(header.as_bytes());
    let (front, data) = bytes.split_at_mut(head);
    for ((place, sector), (offset, page)) in front[64..].chunks_exact_mut(32).zip(data.chunks_exact_mut(PAGE_SIZE)).zip(pages) {
        let descriptor = LogDescriptor {
            signature: *b"desc",
            trailing_bytes: page[4092..].try_into().expect("4 bytes"),
            leading_bytes: page[..8].try_into().expect("8 bytes"),
            file_offset: (*offset).into(),
            sequence_number: sequence_number.into(),
        };
        place.copy_from_slice(descriptor.as_bytes());
        sector[..4].copy_from_slice(b"data");
        sector[4..8].copy_from_slice(&((sequence_number >> 32) as u32).to_le_bytes());
        sector[8..4092].copy_from_slice(&page[8..4092]);
        sector[4092..].copy_from_slice(&(sequence_number as u32).to_le_bytes());
    }
    let crc = checksum([&bytes, &[]]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// What the log says, if the header says that it holds something.
pub fn read(raw: &RawFile, log: Region, log_guid: Guid) -> Result<Overlay> {
    if log.length > LOG_REPLAY_MAX {
        let text = format!("its log has {} bytes, at most {LOG_REPLAY_MAX} are replayed", log.length);
        return Err(DiskError::at(raw.path(), log.offset, DiskErrorKind::Unsupported(text)));
    }
    if log.end() > raw.len() {
        return Err(DiskError::invalid(raw.path(), log.offset, "LogLength", "the log ends after the file"));
    }
    let mut bytes = vec![0; log.length as usize];
    raw.read(&mut bytes, log.offset, "read the log")?;
    let active = active_sequence(&bytes, log_guid).ok_or_else(|| {
        let problem = format!("is {}, but the log has no valid sequence of entries with it", Uuid::from(log_guid));
        DiskError::invalid(raw.path(), log.offset, "LogGuid", problem)
    })?;
    let mut overlay = Overlay::default();
    for entry in &active {
        if raw.len() < entry.flushed_file_offset {
            let problem = format!("is {}, but the file has only {} bytes", entry.flushed_file_offset, raw.len());
            return Err(DiskError::invalid(raw.path(), log.offset + entry.start as u64, "FlushedFileOffset", problem));
        }
        if entry.last_file_offset > FILE_SIZE_MAX {
            let problem = format!("is {}, more than any file needs", entry.last_file_offset);
            return Err(DiskError::invalid(raw.path(), log.offset + entry.start as u64, "LastFileOffset", problem));
        }
        overlay.length = entry.last_file_offset;
        entry.collect(&bytes, log, raw.path(), &mut overlay)?;
    }
    overlay.length = overlay.length.max(raw.len());
    Ok(overlay)
}

/// Writes what the log says into the file; durable when it returns.
pub fn replay(raw: &RawFile, overlay: &Overlay) -> Result<()> {
    // What the file grows by is zero already.
    for (&from, &to) in &overlay.zeros {
        let length = to.min(raw.len()).saturating_sub(from);
        if length > 0 {
            raw.punch_or_zero(from, length)?;
        }
    }
    raw.extend(overlay.length)?;
    for (&offset, page) in &overlay.pages {
        raw.write(&page[..], offset, "replay the log")?;
    }
    raw.flush()
}

/// A valid entry.
#[derive(Debug)]
struct Entry {
    start: usize,
    pages: usize,
    sequence_number: u64,
    tail: usize,
    descriptors: usize,
    flushed_file_offset: u64,
    last_file_offset: u64,
}

/// The entries to replay, oldest first: of all sequences that hold their head's tail that with the highest head.
fn active_sequence(log: &[u8], log_guid: Guid) -> Option<Vec<Entry>> {
    let count = log.len() / PAGE_SIZE;
    let mut entries: Vec<Option<Entry>> = (0..count).map(|page| parse(log, page * PAGE_SIZE, log_guid)).collect();
    let mut best: Option<(u64, Vec<usize>)> = None;
    for start in 0..count {
        let Some(first) = &entries[start] else { continue };
        let (mut sequence, mut head, mut used) = (vec![start], first, first.pages);
        loop {
            let next = (head.start / PAGE_SIZE + head.pages) % count;
            let Some(entry) = &entries[next] else { break };
            used += entry.pages;
            if Some(entry.sequence_number) != head.sequence_number.checked_add(1) || used > count {
                break;
            }
            sequence.push(next);
            head = entry;
        }
        let tail = sequence.iter().position(|&page| page * PAGE_SIZE == head.tail);
        if let Some(tail) = tail
            && best.as_ref().is_none_or(|(highest, _)| head.sequence_number > *highest)
        {
            best = Some((head.sequence_number, sequence.split_off(tail)));
        }
    }
    best.map(|(_, sequence)| sequence.into_iter().filter_map(|page| entries[page].take()).collect())
}

/// Page `index` of an entry at `start`; entries wrap around at the log's end.
fn entry_page(log: &[u8], start: usize, index: usize) -> &[u8] {
    let at = (start + index * PAGE_SIZE) % log.len();
    &log[at..at + PAGE_SIZE]
}

fn descriptor(log: &[u8], start: usize, index: usize) -> Option<LogDescriptor> {
    let at = size_of::<LogEntryHeader>() + index * size_of::<LogDescriptor>();
    let page = entry_page(log, start, at / PAGE_SIZE);
    LogDescriptor::read_from_prefix(&page[at % PAGE_SIZE..]).ok().map(|(descriptor, _)| descriptor)
}

fn parse(log: &[u8], start: usize, log_guid: Guid) -> Option<Entry> {
    let (header, _) = LogEntryHeader::read_from_prefix(&log[start..]).ok()?;
    let length = header.entry_length.get() as usize;
    let (tail, descriptors) = (header.tail.get() as usize, header.descriptor_count.get() as usize);
    let sequence = header.sequence_number.get();
    let right = header.signature == *b"loge"
        && header.log_guid == log_guid
        && sequence > 0
        && length > 0
        && length.is_multiple_of(PAGE_SIZE)
        && length <= log.len()
        && tail.is_multiple_of(PAGE_SIZE)
        && tail < log.len()
        && descriptors <= log.len() / size_of::<LogDescriptor>()
        && descriptor_pages(descriptors) * PAGE_SIZE <= length;
    if !right {
        return None;
    }
    // The parts before the checksum: a log of nothing but headers must not cost its square.
    let pages = length / PAGE_SIZE;
    let mut data_page = descriptor_pages(descriptors);
    for index in 0..descriptors {
        let descriptor = descriptor(log, start, index)?;
        if descriptor.sequence_number.get() != sequence {
            return None;
        }
        match &descriptor.signature {
            b"zero" => {}
            b"desc" if data_page < pages => {
                let sector = LogDataSector::ref_from_bytes(entry_page(log, start, data_page)).ok()?;
                let number = u64::from(sector.sequence_high.get()) << 32 | u64::from(sector.sequence_low.get());
                if sector.signature != *b"data" || number != sequence {
                    return None;
                }
                data_page += 1;
            }
            _ => return None,
        }
    }
    // No entry holds the start of another one: a log of nothing but starts must not cost its square.
    if (data_page..pages).any(|page| page > 0 && entry_page(log, start, page).starts_with(b"loge")) {
        return None;
    }
    let until_end = length.min(log.len() - start);
    if header.checksum.get() != checksum([&log[start..start + until_end], &log[..length - until_end]]) {
        return None;
    }
    Some(Entry {
        start,
        pages,
        sequence_number: sequence,
        tail,
        descriptors,
        flushed_file_offset: header.flushed_file_offset.get(),
        last_file_offset: header.last_file_offset.get(),
    })
}

impl Entry {
    /// Adds what the entry says to `overlay`.
    fn collect(&self, bytes: &[u8], log: Region, path: &Path, overlay: &mut Overlay) -> Result<()> {
        let place = log.offset + self.start as u64;
        let invalid = |field, problem: String| DiskError::invalid(path, place, field, problem);
        let mut data_page = descriptor_pages(self.descriptors);
        for index in 0..self.descriptors {
            let Some(descriptor) = descriptor(bytes, self.start, index) else { continue };
            let offset = descriptor.file_offset.get();
            let is_zero = &descriptor.signature == b"zero";
            let length = if is_zero { u64::from_le_bytes(descriptor.leading_bytes) } else { PAGE };
            if !offset.is_multiple_of(PAGE) || !length.is_multiple_of(PAGE) {
                return Err(invalid("FileOffset", format!("of a descriptor is {offset}, must be a multiple of 4 KiB")));
            }
            let end = offset.checked_add(length).filter(|&end| end <= FILE_SIZE_MAX);
            let end = end.ok_or_else(|| invalid("FileOffset", format!("of a descriptor is {offset}, past any file's end")))?;
            if offset < REGION_TABLE_OFFSETS[0] || log.overlaps(offset, length) {
                return Err(invalid("FileOffset", format!("of a descriptor is {offset}, inside the headers or the log")));
            }
            if is_zero {
                overlay.put_zeros(offset, end);
                continue;
            }
            let sector = entry_page(bytes, self.start, data_page);
            data_page += 1;
            let mut page = Box::new([0; PAGE_SIZE]);
            page[..8].copy_from_slice(&descriptor.leading_bytes);
            page[8..4092].copy_from_slice(&sector[8..4092]);
            page[4092..].copy_from_slice(&descriptor.trailing_bytes);
            overlay.put_page(offset, page);
            overlay.length = overlay.length.max(end);
        }
        Ok(())
    }
}
