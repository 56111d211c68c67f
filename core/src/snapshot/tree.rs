//! Who hangs from whom, which images are kept, what reads through what, and the runs that are due.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::forest::Forest;
use super::{DiskId, ImageId, Machine, SnapshotId};

/// A node of the tree as it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeRef {
    /// A snapshot.
    Snapshot(SnapshotId),
    /// A deleted snapshot whose bytes others still read through.
    Ghost(SnapshotId),
    /// The machine's current state.
    Now,
}

/// One row of the drawn tree, parents before children.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TreeRow {
    /// The node.
    pub node: NodeRef,
    /// Index of the row that it hangs from (ghosts included), if any.
    pub parent: Option<usize>,
    /// Number of rows above it on the way to the root.
    pub depth: usize,
    /// Whether it lies on the path from Now to the base.
    pub on_path: bool,
}

/// An image that reads directly through another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reader {
    /// The direct child image.
    pub image: ImageId,
    /// The nearest nodes, seen upwards through it, whose content depends on it.
    pub nodes: Vec<NodeRef>,
}

/// What one merge turns into a single image (merge.md, "What a run is").
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Run {
    /// The disk.
    pub disk: DiskId,
    /// X1..Xk, bottom to top; at least two.
    pub images: Vec<ImageId>,
    /// Whether Xk is a node's content; otherwise two or more images read through it.
    pub top_kept: bool,
}

/// Everything about a machine's tree that takes a look at all of it; built once per generation.
#[derive(Debug)]
pub struct Tree<'a> {
    machine: &'a Machine,
    forest: Forest,
    kept: BTreeMap<ImageId, NodeRef>,
    child_images: BTreeMap<ImageId, Vec<ImageId>>,
    children: BTreeMap<Option<SnapshotId>, Vec<SnapshotId>>,
}

#[expect(unused_variables, dead_code, reason = "to be written")]
impl<'a> Tree<'a> {
    /// Looks at a machine that [`super::validate`] has passed.
    pub fn of(machine: &'a Machine) -> Self {
        todo!()
    }
    /// The machine.
    pub fn machine(&self) -> &'a Machine {
        self.machine
    }
    /// The snapshots that hang from a snapshot (`None`: from nothing), oldest first.
    pub fn children(&self, of: Option<SnapshotId>) -> &[SnapshotId] {
        todo!()
    }
    /// The snapshots below a snapshot, the nearest first.
    pub fn ancestors(&self, of: SnapshotId) -> Vec<SnapshotId> {
        todo!()
    }
    /// A snapshot and all that hangs from it, parents first.
    pub fn subtree(&self, of: SnapshotId) -> Vec<SnapshotId> {
        todo!()
    }
    /// The snapshots from Now to the root, the nearest first.
    pub fn path_from_now(&self) -> Vec<SnapshotId> {
        todo!()
    }
    /// Rows for drawing: snapshots, visible ghosts and Now; siblings oldest first, Now last.
    pub fn rows(&self) -> Vec<TreeRow> {
        todo!()
    }
    /// Ghosts that the tree shows: some of their bytes are in images that others read through.
    pub fn visible_ghosts(&self) -> Vec<SnapshotId> {
        todo!()
    }
    /// Deleted snapshots that hold bytes only in the trash.
    pub fn trashed_snapshots(&self) -> Vec<SnapshotId> {
        todo!()
    }
    /// The images of a chain, the base first.
    pub fn chain(&self, leaf: ImageId) -> Vec<ImageId> {
        todo!()
    }
    /// Number of images behind a node: the most of any of its disks.
    pub fn chain_depth(&self, node: NodeRef) -> usize {
        todo!()
    }
    /// The node (snapshot or Now) that an image *is*; `None` for retained images.
    pub fn node_of(&self, image: ImageId) -> Option<NodeRef> {
        todo!()
    }
    /// Images that no node is any longer, but that others read through.
    pub fn retained(&self) -> Vec<ImageId> {
        todo!()
    }
    /// The ghost whose image this retained one is, if it is still known.
    pub fn ghost_of(&self, image: ImageId) -> Option<SnapshotId> {
        todo!()
    }
    /// Images that read directly through this one, and the branches that hold it by them.
    pub fn readers(&self, image: ImageId) -> Vec<Reader> {
        todo!()
    }
    /// What is due to be merged, by disk, then bottom up.
    pub fn runs(&self) -> Vec<Run> {
        todo!()
    }
}
