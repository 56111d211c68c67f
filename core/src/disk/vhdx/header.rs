//! The two headers (2.2.2): which one is current, and how it is replaced so that one of them is always whole.

use std::path::Path;

use zerocopy::{FromBytes, IntoBytes};

use super::format::{Guid, HEADER_OFFSETS, Header, MIB, PAGE_SIZE, checksum};
use crate::disk::pages::RawFile;
use crate::disk::{DiskError, Result};

/// The current header and where it stands.
#[derive(Debug, Clone)]
pub struct Headers {
    /// What the current header says.
    pub current: Header,
    /// Which of the two places holds it.
    slot: usize,
}

impl Headers {
    /// Headers of a new file; nothing is written yet.
    pub fn new(current: Header) -> Self {
        Self { current, slot: 1 }
    }

    /// Finds the current header: of the valid ones that with the larger sequence number.
    pub fn read(raw: &RawFile) -> Result<Self> {
        let mut best: Option<Self> = None;
        for (slot, offset) in HEADER_OFFSETS.into_iter().enumerate() {
            let mut bytes = [0; PAGE_SIZE];
            raw.read(&mut bytes, offset, "read the header")?;
            let Some(header) = parse(&bytes) else { continue };
            // Both may carry the same number (disk2vhd writes such files): then they are the same.
            if best.as_ref().is_none_or(|best| header.sequence_number.get() > best.current.sequence_number.get()) {
                best = Some(Self { current: header, slot });
            }
        }
        let headers =
            best.ok_or_else(|| DiskError::invalid(raw.path(), HEADER_OFFSETS[0], "Header", "is damaged, and so is its copy"))?;
        check(raw.path(), HEADER_OFFSETS[headers.slot], &headers.current)?;
        Ok(headers)
    }

    /// Writes a changed header into the place that isn't current; durable with the next flush.
    pub fn write(&mut self, raw: &RawFile, header: Header) -> Result<()> {
        let mut header = header;
        header.sequence_number = self.current.sequence_number.get().wrapping_add(1).into();
        let slot = 1 - self.slot;
        raw.write(&encode(&header), HEADER_OFFSETS[slot], "write the header")?;
        *self = Self { current: header, slot };
        Ok(())
    }

    /// Replaces both headers, one after the other; durable when it returns.
    pub fn replace(&mut self, raw: &RawFile, header: Header) -> Result<()> {
        self.write(raw, header)?;
        raw.flush()?;
        self.write(raw, header)?;
        raw.flush()
    }

    /// Says that the log holds nothing that isn't durable in its place; durable with the next flush.
    pub fn empty_log(&mut self, raw: &RawFile) -> Result<()> {
        if !self.log_in_use() {
            return Ok(());
        }
        self.write(raw, Header { log_guid: Guid::ZERO, ..self.current })
    }

    /// Whether the log holds something.
    pub fn log_in_use(&self) -> bool {
        self.current.log_guid != Guid::ZERO
    }
}

/// A header's 4 KiB.
pub fn encode(header: &Header) -> [u8; PAGE_SIZE] {
    let mut bytes = [0; PAGE_SIZE];
    bytes[..size_of::<Header>()].copy_from_slice(header.as_bytes());
    let crc = checksum([&bytes, &[]]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The header in these 4 KiB, if signature and checksum are right.
pub fn parse(bytes: &[u8; PAGE_SIZE]) -> Option<Header> {
    let (header, _) = Header::read_from_prefix(bytes).ok()?;
    (header.signature == Header::SIGNATURE && header.checksum.get() == checksum([bytes, &[]])).then_some(header)
}

fn check(path: &Path, offset: u64, header: &Header) -> Result<()> {
    let invalid = |field, problem: String| Err(DiskError::invalid(path, offset, field, problem));
    if header.version.get() != 1 {
        return invalid("Version", format!("is {}, must be 1", header.version));
    }
    let (log_offset, log_length) = (header.log_offset.get(), u64::from(header.log_length.get()));
    if log_length % MIB != 0 {
        return invalid("LogLength", format!("is {log_length}, must be a multiple of 1 MiB"));
    }
    if log_length != 0 && (log_offset % MIB != 0 || log_offset < MIB || log_offset.checked_add(log_length).is_none()) {
        return invalid("LogOffset", format!("is {log_offset}, must be a multiple of 1 MiB and at least 1 MiB"));
    }
    if header.log_guid != Guid::ZERO && header.log_version.get() != 0 {
        return invalid("LogVersion", format!("is {}, must be 0", header.log_version));
    }
    if header.log_guid != Guid::ZERO && log_length == 0 {
        return invalid("LogLength", "is 0, but LogGuid says that the log holds something".into());
    }
    Ok(())
}
