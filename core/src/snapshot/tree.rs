//! Who hangs from whom, which images are kept, what reads through what, and the runs that are due.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{DiskId, Forest, ImageId, Machine, SnapshotId};

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

impl<'a> Tree<'a> {
    /// Looks at a machine that [`super::validate`] has passed.
    pub fn of(machine: &'a Machine) -> Self {
        let mut kept = BTreeMap::new();
        for (id, node) in &machine.snapshots {
            kept.extend(node.images.values().map(|image| (*image, NodeRef::Snapshot(*id))));
        }
        kept.extend(machine.now.images.values().map(|image| (*image, NodeRef::Now)));
        let mut child_images: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (id, record) in &machine.images {
            if let Some(parent) = record.parent {
                child_images.entry(parent).or_default().push(*id);
            }
        }
        let mut children: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (id, node) in &machine.snapshots {
            children.entry(node.parent).or_default().push(*id);
        }
        for list in children.values_mut() {
            list.sort_by_key(|id| (machine.snapshots[id].taken, *id));
        }
        Self { machine, forest: Forest::of(machine), kept, child_images, children }
    }

    /// The machine.
    pub fn machine(&self) -> &'a Machine {
        self.machine
    }

    /// The snapshots that hang from a snapshot (`None`: from nothing), oldest first.
    pub fn children(&self, of: Option<SnapshotId>) -> &[SnapshotId] {
        self.children.get(&of).map_or(&[], Vec::as_slice)
    }

    /// The snapshots below a snapshot, the nearest first.
    pub fn ancestors(&self, of: SnapshotId) -> Vec<SnapshotId> {
        self.path(self.machine.snapshots.get(&of).and_then(|node| node.parent))
    }

    /// A snapshot and all that hangs from it, parents first.
    pub fn subtree(&self, of: SnapshotId) -> Vec<SnapshotId> {
        let mut found = Vec::new();
        let mut stack = vec![of];
        while let Some(id) = stack.pop() {
            if found.len() >= self.machine.snapshots.len() {
                break;
            }
            found.push(id);
            stack.extend(self.children(Some(id)).iter().rev());
        }
        found
    }

    /// The snapshots from Now to the root, the nearest first.
    pub fn path_from_now(&self) -> Vec<SnapshotId> {
        self.path(self.machine.now.parent)
    }

    fn path(&self, start: Option<SnapshotId>) -> Vec<SnapshotId> {
        let mut path = Vec::new();
        let mut at = start;
        while let Some(id) = at.filter(|_| path.len() < self.machine.snapshots.len()) {
            path.push(id);
            at = self.machine.snapshots.get(&id).and_then(|node| node.parent);
        }
        path
    }

    /// Rows for drawing: snapshots, visible ghosts and Now; siblings oldest first, Now last.
    pub fn rows(&self) -> Vec<TreeRow> {
        let machine = self.machine;
        let ghosts: BTreeSet<_> = self.visible_ghosts().into_iter().collect();
        let shown = |id: SnapshotId| machine.snapshots.contains_key(&id) || ghosts.contains(&id);
        let node = |id: SnapshotId| if ghosts.contains(&id) { NodeRef::Ghost(id) } else { NodeRef::Snapshot(id) };
        let taken = |id: SnapshotId| {
            let ghost = || machine.ghosts.get(&id).map(|ghost| ghost.snapshot.taken);
            machine.snapshots.get(&id).map(|node| node.taken).or_else(ghost)
        };
        let mut on_path = BTreeSet::from([NodeRef::Now]);
        let mut nearest = self.forest.nearest(shown);
        let mut at = nearest(self.forest.now);
        while let Some(id) = at.filter(|id| on_path.insert(node(*id))) {
            at = nearest(self.forest.parent(id));
        }
        let mut hanging: BTreeMap<Option<SnapshotId>, Vec<NodeRef>> = BTreeMap::new();
        let mut ids: Vec<_> = self.forest.parents.keys().copied().filter(|id| shown(*id)).collect();
        ids.sort_by_key(|id| (taken(*id), *id));
        for id in ids {
            hanging.entry(nearest(self.forest.parent(id))).or_default().push(node(id));
        }
        hanging.entry(nearest(self.forest.now)).or_default().push(NodeRef::Now);
        let mut rows: Vec<TreeRow> = Vec::new();
        let mut stack: Vec<(NodeRef, Option<usize>)> = Vec::new();
        let push = |stack: &mut Vec<_>, of, row| {
            stack.extend(hanging.get(&of).into_iter().flatten().rev().map(|node| (*node, row)));
        };
        push(&mut stack, None, None);
        while let Some((node, parent)) = stack.pop() {
            let depth = parent.map_or(0, |row: usize| rows[row].depth + 1);
            rows.push(TreeRow { node, parent, depth, on_path: on_path.contains(&node) });
            if let NodeRef::Snapshot(id) | NodeRef::Ghost(id) = node {
                push(&mut stack, Some(id), Some(rows.len() - 1));
            }
        }
        rows
    }

    /// Ghosts that the tree shows: some of their bytes are in images that others read through.
    pub fn visible_ghosts(&self) -> Vec<SnapshotId> {
        let held = |image: &ImageId| self.machine.images.contains_key(image);
        let visible = self.machine.ghosts.iter().filter(|(_, ghost)| ghost.snapshot.images.values().any(held));
        visible.map(|(id, _)| *id).collect()
    }

    /// Deleted snapshots that hold bytes only in the trash.
    pub fn trashed_snapshots(&self) -> Vec<SnapshotId> {
        let visible: BTreeSet<_> = self.visible_ghosts().into_iter().collect();
        self.machine.ghosts.keys().copied().filter(|id| !visible.contains(id)).collect()
    }

    /// The images of a chain, the base first.
    pub fn chain(&self, leaf: ImageId) -> Vec<ImageId> {
        let mut chain = Vec::new();
        let mut at = Some(leaf);
        while let Some(id) = at.filter(|_| chain.len() <= self.machine.images.len()) {
            let Some(record) = self.machine.images.get(&id) else { break };
            chain.push(id);
            at = record.parent;
        }
        chain.reverse();
        chain
    }

    /// The images of a node, per disk; those of a ghost may be in the trash.
    pub fn images_of(&self, node: NodeRef) -> Option<&'a BTreeMap<DiskId, ImageId>> {
        match node {
            NodeRef::Now => Some(&self.machine.now.images),
            NodeRef::Snapshot(id) => self.machine.snapshots.get(&id).map(|node| &node.images),
            NodeRef::Ghost(id) => self.machine.ghosts.get(&id).map(|ghost| &ghost.snapshot.images),
        }
    }

    /// Number of images behind a node: the most of any of its disks.
    pub fn chain_depth(&self, node: NodeRef) -> usize {
        let images = self.images_of(node).into_iter().flat_map(BTreeMap::values);
        images.map(|image| self.chain(*image).len()).max().unwrap_or(0)
    }

    /// The node (snapshot or Now) that an image *is*; `None` for retained images.
    pub fn node_of(&self, image: ImageId) -> Option<NodeRef> {
        self.kept.get(&image).copied()
    }

    /// Images that no node is any longer, but that others read through.
    pub fn retained(&self) -> Vec<ImageId> {
        self.machine.images.keys().copied().filter(|id| !self.kept.contains_key(id)).collect()
    }

    /// The ghost whose image this retained one is, if it is still known.
    pub fn ghost_of(&self, image: ImageId) -> Option<SnapshotId> {
        let disk = &self.machine.images.get(&image)?.disk;
        let mut ghosts = self.machine.ghosts.iter();
        ghosts.find(|(_, ghost)| ghost.snapshot.images.get(disk) == Some(&image)).map(|(id, _)| *id)
    }

    /// The images that read directly through this one.
    pub fn child_images(&self, image: ImageId) -> &[ImageId] {
        self.child_images.get(&image).map_or(&[], Vec::as_slice)
    }

    /// Images that read directly through this one, and the branches that hold it by them.
    pub fn readers(&self, image: ImageId) -> Vec<Reader> {
        let reader = |image: &ImageId| Reader { image: *image, nodes: self.nearest_nodes(*image) };
        self.child_images(image).iter().map(reader).collect()
    }

    /// The nearest nodes at or above an image.
    fn nearest_nodes(&self, image: ImageId) -> Vec<NodeRef> {
        let (mut nodes, mut stack, mut seen) = (Vec::new(), vec![image], 0);
        while let Some(image) = stack.pop().filter(|_| seen <= self.machine.images.len()) {
            seen += 1;
            match self.kept.get(&image) {
                Some(node) => nodes.push(*node),
                None => stack.extend(self.child_images(image)),
            }
        }
        nodes.sort();
        nodes
    }

    /// What is due to be merged, by disk, then bottom up.
    pub fn runs(&self) -> Vec<Run> {
        let one_reader = |id: ImageId| !self.kept.contains_key(&id) && self.child_images(id).len() == 1;
        let mut runs = Vec::new();
        for (top, record) in &self.machine.images {
            let top_kept = self.kept.contains_key(top);
            if !top_kept && self.child_images(*top).len() < 2 {
                continue;
            }
            let mut images = vec![*top];
            let mut below = record.parent;
            while let Some(id) = below.filter(|id| one_reader(*id) && images.len() <= self.machine.images.len()) {
                images.push(id);
                below = self.machine.images.get(&id).and_then(|record| record.parent);
            }
            if images.len() > 1 {
                images.reverse();
                runs.push((self.chain(*top).len(), Run { disk: record.disk.clone(), images, top_kept }));
            }
        }
        runs.sort_by(|(a_depth, a), (b_depth, b)| (&a.disk, a_depth, &a.images).cmp(&(&b.disk, b_depth, &b.images)));
        runs.into_iter().map(|(_, run)| run).collect()
    }
}
