//! The full tree: snapshots, ghosts and Now with the links that deletions don't change.

use std::collections::BTreeMap;

use super::SnapshotId;

/// Parents in the full tree.
#[derive(Debug, Clone)]
#[expect(dead_code, reason = "to be written")]
pub(super) struct Forest {
    /// Of every snapshot and ghost.
    pub parents: BTreeMap<SnapshotId, Option<SnapshotId>>,
    /// Of Now.
    pub now: Option<SnapshotId>,
}
