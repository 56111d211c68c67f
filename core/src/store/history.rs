//! `history.jsonl`: sizes over time and finished merges, one line each, only ever added to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Result, StoreError};
use crate::host_file::{Access, SharedHost};
use crate::snapshot::{DiskId, ImageId};
use crate::units::ByteCount;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryRecord {
    /// Sizes at a time.
    Sizes {
        /// When.
        at: DateTime<Utc>,
        /// Bytes that each image takes.
        images: BTreeMap<ImageId, ByteCount>,
        /// Free bytes of the volume.
        free: ByteCount,
    },
    /// A finished merge, or a probe of the volume.
    Merge {
        /// When it ended.
        at: DateTime<Utc>,
        /// The disk.
        disk: DiskId,
        /// Data bytes moved.
        bytes: u64,
        /// Separate stretches moved.
        stretches: u64,
        /// How long it took, pauses not counted.
        seconds: f64,
        /// What had been estimated (the middle), in seconds.
        estimated_seconds: Option<f64>,
        /// Whether it is only a short probe.
        probe: bool,
        /// Whether the machine ran meanwhile (older lines don't say; then it counts as stopped).
        #[serde(default)]
        live: bool,
        /// Of a live merge: bytes that the guest wrote meanwhile, where they were counted.
        #[serde(default)]
        guest_bytes: Option<u64>,
    },
}

/// The newest bytes that are read.
const NEWEST: u64 = 4 << 20;

/// The file.
#[derive(Debug, Clone)]
pub struct History {
    host: SharedHost,
    path: PathBuf,
}

impl History {
    /// The history of the machine in a folder; needs no lock.
    pub fn of(host: &SharedHost, dir: &Path) -> Self {
        Self { host: host.clone(), path: dir.join("history.jsonl") }
    }

    /// Forgets everything.
    pub fn clear(&self) -> Result<()> {
        match self.host.remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::io(&self.path, "clear the history", error))
            }
            _ => Ok(()),
        }
    }

    /// Adds a line, durably. What a torn line before it has left is closed off first.
    pub fn append(&self, record: &HistoryRecord) -> Result<()> {
        let wrong = |error| StoreError::io(&self.path, "add to the history", error);
        let mut line = serde_json::to_vec(record).map_err(|error| wrong(error.into()))?;
        line.push(b'\n');
        let new = !self.host.exists(&self.path);
        let file =
            if new { self.host.create_new(&self.path) } else { self.host.open(&self.path, Access::Write) }.map_err(wrong)?;
        let len = file.len().map_err(wrong)?;
        if len > 0 {
            let mut last = [0];
            file.read_exact_at(&mut last, len - 1).map_err(wrong)?;
            if last != *b"\n" {
                line.insert(0, b'\n');
            }
        }
        file.write_all_at(&line, len).and_then(|()| file.flush()).map_err(wrong)?;
        match self.path.parent() {
            Some(dir) if new => self.host.flush_dir(dir).map_err(wrong),
            _ => Ok(()),
        }
    }

    /// The newest lines (of the last 4 MiB), oldest first; what can't be read, such as a torn last line, is left out.
    pub fn read(&self) -> Result<Vec<HistoryRecord>> {
        let wrong = |error| StoreError::io(&self.path, "read the history", error);
        if !self.host.exists(&self.path) {
            return Ok(Vec::new());
        }
        let file = self.host.open(&self.path, Access::Look).map_err(wrong)?;
        let len = file.len().map_err(wrong)?;
        let start = len.saturating_sub(NEWEST);
        let mut bytes = vec![0; (len - start) as usize];
        file.read_exact_at(&mut bytes, start).map_err(wrong)?;
        Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}
