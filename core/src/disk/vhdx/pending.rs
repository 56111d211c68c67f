//! The side file `<image>.pending`: changes of metadata that were acknowledged but are not in the image yet.
//!
//! A kill of the process must not lose them, a loss of power may: the payload that they speak of isn't durable
//! either. So the file carries the kernel's boot identifier. After a kill the next opening applies it;
//! after another boot it is discarded. It never needs a flush.
//!
//! ```text
//! "snappend", version u32, FileWriteGuid 16 bytes, length of the boot identifier u16, the boot identifier, CRC-32C u32
//! then for each change: length u32, CRC-32C u32, and that many bytes of patches: offset u64, length u32, bytes
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::Guid;
use super::metadata::Patches;
use super::pages::RawFile;
use crate::disk::{DiskError, Result};
use crate::host_file::{HostFile, SharedHost, read_file};

const SIGNATURE: &[u8; 8] = b"snappend";
const VERSION: u32 = 1;
/// More than is ever pending.
const LENGTH_MAX: u64 = 256 << 20;

/// The side file of one opening.
#[derive(Debug)]
pub struct Pending {
    host: SharedHost,
    path: PathBuf,
    boot_id: String,
    file: Option<Arc<dyn HostFile>>,
    length: u64,
}

impl Pending {
    /// The side file of an image; created when it is needed.
    pub fn new(host: &SharedHost, image: &Path) -> Self {
        let mut name = image.as_os_str().to_owned();
        name.push(".pending");
        Self { host: host.clone(), path: name.into(), boot_id: host.boot_id(), file: None, length: 0 }
    }

    /// The changes in the side file of an image whose FileWriteGuid is `file_write_guid`, if they are of this boot.
    pub fn read(&self, file_write_guid: Guid) -> Result<Vec<Patches>> {
        match read_file(&*self.host, &self.path, LENGTH_MAX) {
            Ok(bytes) => Ok(parse(&bytes, file_write_guid, &self.boot_id)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(DiskError::io(&self.path, "read the pending changes", error)),
        }
    }

    /// Adds one change; it survives a kill when this returns.
    pub fn append(&mut self, file_write_guid: Guid, patches: &Patches) -> Result<()> {
        let mut bytes = if self.length == 0 { self.header(file_write_guid) } else { Vec::new() };
        let body = encode(patches);
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(crc32c::crc32c(&body).to_le_bytes());
        bytes.extend(body);
        self.write(&bytes).map_err(|e| DiskError::io(&self.path, "write the pending changes", e))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => {
                if self.host.exists(&self.path) {
                    self.host.remove_file(&self.path)?;
                }
                self.file.insert(self.host.create_new(&self.path)?).clone()
            }
        };
        // A torn record behind the length is overwritten by the next one.
        file.write_all_at(bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn header(&self, file_write_guid: Guid) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(file_write_guid.0);
        bytes.extend((self.boot_id.len() as u16).to_le_bytes());
        bytes.extend(self.boot_id.as_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// The changes are in the image now.
    pub fn clear(&mut self) -> Result<()> {
        if self.length > 0
            && let Some(file) = &self.file
        {
            file.set_len(0).map_err(|e| DiskError::io(&self.path, "empty the pending changes", e))?;
            self.length = 0;
        }
        Ok(())
    }

    /// Takes the side file away; what it held is in the image.
    pub fn remove(&mut self) -> Result<()> {
        (self.file, self.length) = (None, 0);
        match self.host.remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DiskError::io(&self.path, "remove the pending changes", error))
            }
            _ => Ok(()),
        }
    }

    /// Bytes that it takes on the volume.
    pub fn held_bytes(&self) -> u64 {
        self.file.as_ref().and_then(|file| file.held_bytes().ok()).map_or(0, |bytes| bytes.0)
    }
}

/// Whether changes stay inside the file and off its headers: the side file may be a stranger's.
pub fn fits(patches: &Patches, raw: &RawFile) -> bool {
    patches.iter().all(|(offset, bytes)| {
        *offset >= super::format::REGION_TABLE_OFFSETS[0]
            && offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= raw.len())
    })
}

fn encode(patches: &Patches) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (offset, content) in patches {
        bytes.extend(offset.to_le_bytes());
        bytes.extend((content.len() as u32).to_le_bytes());
        bytes.extend(content);
    }
    bytes
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (part, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(part)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    take(bytes, 4).map(|part| u32::from_le_bytes(part.try_into().expect("4 bytes")))
}

/// All whole records; none where the header isn't right for this image and this boot.
fn parse(bytes: &[u8], file_write_guid: Guid, boot_id: &str) -> Vec<Patches> {
    let mut changes = Vec::new();
    let mut rest = bytes;
    if header_is_ours(&mut rest, bytes, file_write_guid, boot_id) != Some(true) {
        return changes;
    }
    while let Some(patches) = next_record(&mut rest) {
        changes.push(patches);
    }
    changes
}

fn header_is_ours(rest: &mut &[u8], all: &[u8], file_write_guid: Guid, boot_id: &str) -> Option<bool> {
    let right = take(rest, 8)? == SIGNATURE && take_u32(rest)? == VERSION && take(rest, 16)? == file_write_guid.0;
    let length = u16::from_le_bytes(take(rest, 2)?.try_into().ok()?);
    let right = right && take(rest, length.into())? == boot_id.as_bytes();
    let covered = all.len() - rest.len();
    Some(right && take_u32(rest)? == crc32c::crc32c(&all[..covered]))
}

fn next_record(rest: &mut &[u8]) -> Option<Patches> {
    let (length, crc) = (take_u32(rest)?, take_u32(rest)?);
    let mut body = take(rest, length as usize).filter(|body| crc32c::crc32c(body) == crc)?;
    let mut patches = Patches::new();
    while !body.is_empty() {
        let offset = u64::from_le_bytes(take(&mut body, 8)?.try_into().ok()?);
        let length = take_u32(&mut body)?;
        patches.push((offset, take(&mut body, length as usize)?.to_vec()));
    }
    Some(patches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_record_and_another_boot_are_ignored() {
        let guid = Guid([7; 16]);
        let host = crate::host_file::OsHost::shared();
        let dir = tempfile::tempdir().unwrap();
        let mut pending = Pending::new(&host, &dir.path().join("a.vhdx"));
        let changes: Vec<Patches> = vec![vec![(1, vec![1, 2, 3])], vec![(9, vec![4; 100]), (5, vec![])]];
        for change in &changes {
            pending.append(guid, change).unwrap();
        }
        assert_eq!(pending.read(guid).unwrap(), changes);
        assert_eq!(pending.read(Guid([8; 16])).unwrap(), Vec::<Patches>::new());
        let bytes = std::fs::read(&pending.path).unwrap();
        assert_eq!(parse(&bytes, guid, "another boot"), Vec::<Patches>::new());
        for length in 0..bytes.len() {
            let whole = parse(&bytes[..length], guid, &pending.boot_id);
            assert!(whole.len() < 2 && whole[..] == changes[..whole.len()], "cut at {length}");
        }
        pending.clear().unwrap();
        assert_eq!(pending.read(guid).unwrap(), Vec::<Patches>::new());
        pending.remove().unwrap();
        assert!(!host.exists(&pending.path));
    }
}
