//! `history.jsonl`: sizes over time and finished merges, one line each, only ever added to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Result;
use crate::host_file::SharedHost;
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
    },
}

/// The file.
#[derive(Debug, Clone)]
#[expect(dead_code, reason = "to be written")]
pub struct History {
    pub(super) host: SharedHost,
    pub(super) path: PathBuf,
}

#[expect(unused_variables, reason = "to be written")]
impl History {
    /// The history of the machine in a folder; needs no lock.
    pub fn of(host: &SharedHost, dir: &std::path::Path) -> Self {
        Self { host: host.clone(), path: dir.join("history.jsonl") }
    }
    /// Adds a line, durably.
    pub fn append(&self, record: &HistoryRecord) -> Result<()> {
        todo!()
    }
    /// The newest lines (at most the last 4 MiB), oldest first; what can't be read, such as a torn last line, is left out.
    pub fn read(&self) -> Result<Vec<HistoryRecord>> {
        todo!()
    }
}
