//! Taking a snapshot, in two halves around the pause.
//!
//! ```text
//! prepare_take ─> (pause, switch to the new leaves, resume; save memory) ─> publish_take
//!      └────────────────────────────────────────────────────────────────> abandon_take
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{MachineStore, Result};
use crate::disk::Image;
use crate::snapshot::{DiskId, ImageId, SnapshotId};
use crate::units::ByteCount;

/// A disk's old and new leaf.
#[derive(Debug, Clone)]
pub struct PreparedLeaf {
    /// The leaf that will be the node's image; its identifier is pinned.
    pub old: Arc<dyn Image>,
    /// Its new child, complete and durable, open for writing, empty.
    pub new: Arc<dyn Image>,
    /// The new one's identifier.
    pub image: ImageId,
}

/// A take that is prepared.
#[derive(Debug)]
pub struct Prepared {
    /// The node that it will be.
    pub snapshot: SnapshotId,
    /// Its label.
    pub label: String,
    /// A note.
    pub note: String,
    /// Per disk, the leaves.
    pub leaves: BTreeMap<DiskId, PreparedLeaf>,
    /// The folder of its files, absolute; it exists.
    pub folder: PathBuf,
    /// Where the memory is to be written, absolute.
    pub memory_path: PathBuf,
    /// Where the picture of the screen is to be written, absolute.
    pub screen_path: PathBuf,
}

#[expect(unused_variables, reason = "to be written")]
impl MachineStore {
    /// Creates the new leaves, completely and durably. `open_leaves` are the leaves of a running machine; those
    /// that are missing are opened here. Refused before anything is touched when the label, the depth or
    /// the free space (`memory` bytes and the new leaves) don't allow it.
    pub fn prepare_take(
        &mut self,
        label: &str,
        note: &str,
        open_leaves: &BTreeMap<DiskId, Arc<dyn Image>>,
        memory: ByteCount,
    ) -> Result<Prepared> {
        todo!()
    }
    /// Freezes old leaves that aren't frozen yet, and publishes the node. `memory` and `screen` say what was written to
    /// the prepared paths (bytes held by the memory file; whether there is a picture); both durable.
    pub fn publish_take(
        &mut self,
        prepared: &Prepared,
        memory: Option<ByteCount>,
        screen: bool,
        taken: DateTime<Utc>,
    ) -> Result<SnapshotId> {
        todo!()
    }
    /// Gives the take up. Where the machine has switched to the new leaves (`switched`), they stay Now's and the old ones
    /// are retained: a merge is due. Otherwise the new ones are removed and the old ones go on as leaves.
    pub fn abandon_take(&mut self, prepared: Prepared, switched: bool) -> Result<()> {
        todo!()
    }
}
