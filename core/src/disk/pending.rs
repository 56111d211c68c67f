//! The side file `<image>.pending`: changes of metadata that were acknowledged but are not in the image yet.
//!
//! A kill of the process must not lose them, a loss of power may: the payload that they speak of isn't durable
//! either. So the file carries the kernel's boot identifier. After a kill the next opening applies it;
//! after another boot it is discarded. It never needs a flush.
//!
//! ```text
//! "snappend", version u32, key 16 bytes, length of the boot identifier u16, the boot identifier, CRC-32C u32
//! where the first change stands u64, CRC-32C of that u32
//! then for each change: length u32, CRC-32C u32, and that many bytes of patches: offset u64, length u32, bytes
//! ```
//!
//! A commit that ends while changes go on moves the first change; a quiet one empties the file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::pages::{Patches, RawFile};
use super::{DiskError, Result};
use crate::host_file::{HostFile, SharedHost, read_file};

/// What an image changes whenever another opening begins to write: VHDX the FileWriteGuid, VHD the unique id.
pub type Key = [u8; 16];

const SIGNATURE: &[u8; 8] = b"snappend";
const VERSION: u32 = 2;
/// With more than this in it, writes wait for a commit that empties it.
const FULL: u64 = 32 << 20;
/// More than it ever has: each thread that found it nearly full adds what one step changes, far less than a mebibyte.
const LENGTH_MAX: u64 = 2 * FULL;

/// The side file of one opening.
#[derive(Debug)]
pub struct Pending {
    host: SharedHost,
    path: PathBuf,
    boot_id: String,
    file: Option<Arc<dyn HostFile>>,
    length: u64,
    /// Where the place of the first change is told.
    head: u64,
    /// How long it was when the commit began that is under way.
    committing: u64,
}

impl Pending {
    /// The side file of an image; created when it is needed.
    pub fn new(host: &SharedHost, image: &Path) -> Self {
        let mut name = image.as_os_str().to_owned();
        name.push(".pending");
        Self { host: host.clone(), path: name.into(), boot_id: host.boot_id(), file: None, length: 0, head: 0, committing: 0 }
    }

    /// The changes in the side file of an image that has this key, if they are of this boot.
    pub fn read(&self, key: Key) -> Result<Vec<Patches>> {
        let mut emptied = 0;
        loop {
            match read_file(&*self.host, &self.path, LENGTH_MAX) {
                Ok(bytes) => return Ok(parse(&bytes, key, &self.boot_id)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                // Whoever writes the image emptied it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && emptied < 8 => emptied += 1,
                Err(error) => return Err(DiskError::io(&self.path, "read the pending changes", error)),
            }
        }
    }

    /// Adds one change; it survives a kill when this returns.
    pub fn append(&mut self, key: Key, patches: &Patches) -> Result<()> {
        let mut bytes = Vec::new();
        if self.length == 0 {
            bytes = self.header(key);
            self.head = bytes.len() as u64;
            bytes.extend(first(self.head + FIRST_LENGTH));
        }
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

    fn header(&self, key: Key) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(key);
        bytes.extend((self.boot_id.len() as u16).to_le_bytes());
        bytes.extend(self.boot_id.as_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// Whether it must be emptied before more is written.
    pub fn is_full(&self) -> bool {
        self.length > FULL
    }

    /// What it holds now is on its way into the image.
    pub fn begin_commit(&mut self) {
        self.committing = self.length;
    }

    /// What it held at [`Pending::begin_commit`] is in the image.
    pub fn end_commit(&mut self) -> Result<()> {
        let Some(file) = self.file.as_ref().filter(|_| self.committing > 0) else { return Ok(()) };
        let done = if self.length > self.committing {
            file.write_all_at(&first(self.committing), self.head)
        } else {
            file.set_len(0).map(|()| self.length = 0)
        };
        done.map_err(|e| DiskError::io(&self.path, "empty the pending changes", e))
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

/// Whether changes stay inside the file and behind its first headers: the side file may be a stranger's.
pub fn fits(patches: &Patches, raw: &RawFile, headers_end: u64) -> bool {
    patches.iter().all(|(offset, bytes)| {
        *offset >= headers_end && offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= raw.len())
    })
}

/// Bytes of [`first`].
const FIRST_LENGTH: u64 = 12;

/// Says where the first change stands.
fn first(at: u64) -> Vec<u8> {
    let mut bytes = at.to_le_bytes().to_vec();
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
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
fn parse(bytes: &[u8], key: Key, boot_id: &str) -> Vec<Patches> {
    let mut changes = Vec::new();
    let mut rest = bytes;
    if header_is_ours(&mut rest, bytes, key, boot_id) != Some(true) {
        return changes;
    }
    match first_record(&mut rest).and_then(|at| bytes.get(at as usize..)) {
        Some(records) if records.len() <= rest.len() => rest = records,
        _ => return changes,
    }
    while let Some(patches) = next_record(&mut rest) {
        changes.push(patches);
    }
    changes
}

fn header_is_ours(rest: &mut &[u8], all: &[u8], key: Key, boot_id: &str) -> Option<bool> {
    let right = take(rest, 8)? == SIGNATURE && take_u32(rest)? == VERSION && take(rest, 16)? == key;
    let length = u16::from_le_bytes(take(rest, 2)?.try_into().ok()?);
    let right = right && take(rest, length.into())? == boot_id.as_bytes();
    let covered = all.len() - rest.len();
    Some(right && take_u32(rest)? == crc32c::crc32c(&all[..covered]))
}

fn first_record(rest: &mut &[u8]) -> Option<u64> {
    let at = take(rest, 8)?;
    (take_u32(rest)? == crc32c::crc32c(at)).then(|| u64::from_le_bytes(at.try_into().expect("8 bytes")))
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
        let guid = [7; 16];
        let host = crate::host_file::OsHost::shared();
        let dir = tempfile::tempdir().unwrap();
        let mut pending = Pending::new(&host, &dir.path().join("a.vhdx"));
        let changes: Vec<Patches> = vec![vec![(1, vec![1, 2, 3])], vec![(9, vec![4; 100]), (5, vec![])]];
        for change in &changes {
            pending.append(guid, change).unwrap();
        }
        assert_eq!(pending.read(guid).unwrap(), changes);
        assert_eq!(pending.read([8; 16]).unwrap(), Vec::<Patches>::new());
        let bytes = std::fs::read(&pending.path).unwrap();
        assert_eq!(parse(&bytes, guid, "another boot"), Vec::<Patches>::new());
        for length in 0..bytes.len() {
            let whole = parse(&bytes[..length], guid, &pending.boot_id);
            assert!(whole.len() < 2 && whole[..] == changes[..whole.len()], "cut at {length}");
        }
        pending.begin_commit();
        let later: Patches = vec![(77, vec![5])];
        pending.append(guid, &later).unwrap();
        pending.end_commit().unwrap();
        assert_eq!(pending.read(guid).unwrap(), [later]);
        pending.begin_commit();
        pending.end_commit().unwrap();
        assert_eq!(pending.read(guid).unwrap(), Vec::<Patches>::new());
        pending.remove().unwrap();
        assert!(!host.exists(&pending.path));
    }
}
