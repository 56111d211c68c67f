//! What a repair keeps: for each change the way back, written and flushed before the change.
//!
//! A file of records; each is its length and checksum (u32, little-endian), a head in JSON that ends with a newline, and the
//! bytes that were there before. The checksum is of the record's place in the file, its length and the record. The last
//! record may be torn: then its change wasn't made. One that is damaged and has a whole one behind it is an error.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::{RepairError, Result};
use crate::host_file::{Access, HostFile, SharedHost};
use crate::locks::lock;

/// The longest record: more than any file that is kept whole.
const MAX_RECORD: u32 = 64 << 20;
/// Bytes that are searched at once.
const SEARCHED: u64 = 1 << 20;
/// Length and checksum.
const FRAME: u64 = 8;
/// How each head begins.
const HEAD: &[u8] = b"{\"back\":";

/// How one change is taken back. Paths are relative to the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "back", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Back {
    /// These bytes were there.
    Bytes { file: PathBuf, offset: u64 },
    /// The file was so long.
    Length { file: PathBuf, length: u64 },
    /// The file wasn't there.
    Remove { file: PathBuf },
    /// The folder wasn't there.
    RemoveFolder { file: PathBuf },
    /// The file was there, with these bytes.
    Restore { file: PathBuf },
    /// It was renamed.
    Rename { from: PathBuf, to: PathBuf },
}

impl Back {
    fn files(&self) -> Vec<&Path> {
        match self {
            Self::Bytes { file, .. } | Self::Length { file, .. } | Self::Remove { file } => vec![file],
            Self::RemoveFolder { file } | Self::Restore { file } => vec![file],
            Self::Rename { from, to } => vec![from, to],
        }
    }

    /// Takes the change back; once more does no harm.
    pub fn take_back(&self, host: &SharedHost, root: &Path, bytes: &[u8]) -> Result<()> {
        let done = |operation, file: &Path, done: std::io::Result<()>| {
            done.map_err(|error| RepairError::io(operation, &root.join(file), error))
        };
        // A folder that isn't there has nothing to be made durable: what was to be put into it wasn't.
        let flush_folder = |file: &Path| {
            let place = root.join(file);
            let folder = place.parent().unwrap_or(root);
            if host.exists(folder) { host.flush_dir(folder) } else { Ok(()) }
        };
        match self {
            Self::Bytes { file, offset } => {
                let put = || {
                    let open = host.open(&root.join(file), Access::Write)?;
                    open.write_all_at(bytes, *offset)?;
                    open.flush()
                };
                done("put back what was in", file, put())
            }
            Self::Length { file, length } => {
                let put = || {
                    let open = host.open(&root.join(file), Access::Write)?;
                    if open.len()? != *length {
                        open.set_len(*length)?;
                    }
                    open.flush()
                };
                done("put back the length of", file, put())
            }
            Self::Remove { file } => {
                let remove = || {
                    if host.exists(&root.join(file)) {
                        host.remove_file(&root.join(file))?;
                    }
                    flush_folder(file)
                };
                done("remove", file, remove())
            }
            Self::RemoveFolder { file } => {
                let remove = || {
                    let path = root.join(file);
                    // What others have put there stays.
                    if host.exists(&path) && host.list(&path)?.is_empty() {
                        host.remove_dir_all(&path)?;
                    }
                    flush_folder(file)
                };
                done("remove", file, remove())
            }
            Self::Restore { file } => {
                let put = || {
                    let path = root.join(file);
                    let open = if host.exists(&path) { host.open(&path, Access::Write)? } else { host.create_new(&path)? };
                    open.write_all_at(bytes, 0)?;
                    open.set_len(bytes.len() as u64)?;
                    open.flush()?;
                    flush_folder(file)
                };
                done("bring back", file, put())
            }
            Self::Rename { from, to } => {
                let rename = || {
                    if host.exists(&root.join(to)) && !host.exists(&root.join(from)) {
                        host.rename(&root.join(to), &root.join(from))?;
                    }
                    flush_folder(to)?;
                    flush_folder(from)
                };
                done("rename back", to, rename())
            }
        }
    }
}

/// The file of records, open.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    file: Arc<dyn HostFile>,
    end: Arc<Mutex<u64>>,
    /// Files that weren't there before.
    new: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Kept {
    pub fn create(host: &SharedHost, path: &Path) -> Result<Self> {
        let file = host.create_new(path).map_err(|error| RepairError::io("create", path, error))?;
        Ok(Self { file, end: Arc::default(), new: Arc::default() })
    }

    /// Notes that a file wasn't there before.
    pub fn note_new(&self, file: PathBuf) {
        lock(&self.new).insert(file);
    }

    /// Whether a file wasn't there before.
    pub fn is_new(&self, file: &Path) -> bool {
        lock(&self.new).contains(file)
    }

    /// Adds a record; it is durable afterwards.
    pub fn keep(&self, back: &Back, bytes: &[u8]) -> std::io::Result<()> {
        let mut record = serde_json::to_vec(back)?;
        record.push(b'\n');
        record.extend(bytes);
        let length = u32::try_from(record.len()).ok().filter(|length| *length <= MAX_RECORD);
        let length = length.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidInput, "too much to be kept"))?;
        let mut end = lock(&self.end);
        let framed = [&length.to_le_bytes()[..], &checksum(*end, &record).to_le_bytes(), &record].concat();
        self.file.write_all_at(&framed, *end)?;
        self.file.flush()?;
        *end += framed.len() as u64;
        Ok(())
    }

    /// Takes everything back, the last first. What is taken back is cut off, so that the same call goes on after a crash.
    pub fn take_all_back(host: &SharedHost, root: &Path, path: &Path) -> Result<()> {
        if !host.exists(path) {
            return Ok(());
        }
        let file = host.open(path, Access::Write).map_err(|error| RepairError::io("open", path, error))?;
        let places = places(path, &*file)?;
        // Everything is looked at before anything is changed.
        for place in &places {
            read(host, root, path, &*file, *place)?;
        }
        for place in places.iter().rev() {
            let (back, bytes) = read(host, root, path, &*file, *place)?;
            back.take_back(host, root, &bytes)?;
            let cut = file.set_len(place.0).and_then(|()| file.flush());
            cut.map_err(|error| RepairError::io("cut", path, error))?;
        }
        Ok(())
    }

    /// Where something was overwritten, and files that are new (whole), by the names that they have now.
    pub fn touched(host: &SharedHost, root: &Path, path: &Path) -> Result<BTreeSet<(PathBuf, u64, u64)>> {
        let file = host.open(path, Access::Look).map_err(|error| RepairError::io("open", path, error))?;
        let mut touched = BTreeSet::new();
        for place in places(path, &*file)? {
            match read(host, root, path, &*file, place)? {
                (Back::Bytes { file, offset }, bytes) => drop(touched.insert((file, offset, bytes.len() as u64))),
                (Back::Remove { file }, _) => drop(touched.insert((file, 0, u64::MAX))),
                (Back::Rename { from, to }, _) => {
                    let renamed = |(file, offset, length): (PathBuf, u64, u64)| {
                        (if file == from { to.clone() } else { file }, offset, length)
                    };
                    touched = touched.into_iter().map(renamed).collect();
                }
                _ => {}
            }
        }
        // A file that was new and is gone, as a side file is, tells nothing.
        touched.retain(|(file, ..)| host.exists(&root.join(file)));
        Ok(touched)
    }
}

/// Offset and length of each whole record.
fn places(path: &Path, file: &dyn HostFile) -> Result<Vec<(u64, u32)>> {
    let io = |error| RepairError::io("read", path, error);
    let end = file.len().map_err(io)?;
    let (mut at, mut places) = (0, Vec::new());
    while at + FRAME <= end {
        let mut frame = [0; FRAME as usize];
        file.read_exact_at(&mut frame, at).map_err(io)?;
        let [a, b, c, d, ..] = frame;
        let length = u32::from_le_bytes([a, b, c, d]);
        let next = at + FRAME + u64::from(length);
        let is_whole = (1..=MAX_RECORD).contains(&length) && next <= end && checked(path, file, at, length).is_ok();
        if !is_whole {
            break;
        }
        places.push((at, length));
        at = next;
    }
    match is_any_after(path, file, at, end)? {
        true => Err(RepairError::Invalid { path: path.into(), offset: at, problem: "the record is damaged".into() }),
        false => Ok(places),
    }
}

/// Whether a whole record begins behind a place.
fn is_any_after(path: &Path, file: &dyn HostFile, at: u64, end: u64) -> Result<bool> {
    let mut buf = Vec::new();
    // Pieces overlap, so that a head that is in two is found.
    let overlap = HEAD.len() as u64 - 1;
    let mut from = at + FRAME + 1;
    while from + overlap < end {
        buf.resize((end - from).min(SEARCHED + overlap) as usize, 0);
        file.read_exact_at(&mut buf, from).map_err(|error| RepairError::io("read", path, error))?;
        for place in buf.windows(HEAD.len()).enumerate().filter(|(_, head)| *head == HEAD).map(|(place, _)| from + place as u64) {
            let mut length = [0; 4];
            file.read_exact_at(&mut length, place - FRAME).map_err(|error| RepairError::io("read", path, error))?;
            let length = u32::from_le_bytes(length);
            let fits = length <= MAX_RECORD && place + u64::from(length) <= end;
            if fits && checked(path, file, place - FRAME, length).is_ok() {
                return Ok(true);
            }
        }
        from += SEARCHED;
    }
    Ok(false)
}

fn checksum(at: u64, record: &[u8]) -> u32 {
    let place = crc32c::crc32c(&at.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(place, &(record.len() as u64).to_le_bytes()), record)
}

fn checked(path: &Path, file: &dyn HostFile, at: u64, length: u32) -> Result<Vec<u8>> {
    let mut record = vec![0; length as usize + 4];
    file.read_exact_at(&mut record, at + 4).map_err(|error| RepairError::io("read", path, error))?;
    let sum = checksum(at, &record[4..]).to_le_bytes();
    if record[..4] != sum {
        return Err(RepairError::Invalid { path: path.into(), offset: at, problem: "the record's checksum is wrong".into() });
    }
    record.drain(..4);
    Ok(record)
}

/// A record is input: it may only be about files inside the folder, links resolved.
fn read(host: &SharedHost, root: &Path, path: &Path, file: &dyn HostFile, place: (u64, u32)) -> Result<(Back, Vec<u8>)> {
    let (at, length) = place;
    let mut record = checked(path, file, at, length)?;
    let invalid = |problem: String| RepairError::Invalid { path: path.into(), offset: at, problem };
    let head = record.iter().position(|byte| *byte == b'\n').ok_or_else(|| invalid("the record has no head".into()))?;
    let back: Back = serde_json::from_slice(&record[..head]).map_err(|error| invalid(error.to_string()))?;
    for file in back.files() {
        let plain = file.components().all(|part| matches!(part, Component::Normal(_))) && file.file_name().is_some();
        let place = root.join(file);
        let folder = place.ancestors().skip(1).find(|folder| host.exists(folder)).unwrap_or(root);
        let inside = |path: &Path| host.canonical(path).is_ok_and(|real| real.starts_with(root));
        if !plain || !inside(folder) || host.exists(&place) && !inside(&place) {
            return Err(invalid(format!("{} isn't a file inside the folder", file.display())));
        }
    }
    record.drain(..=head);
    Ok((back, record))
}
