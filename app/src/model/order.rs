//! The nodes of a machine in the order in which they are drawn, with their lanes. Pure.
//!
//! A node's last child goes on in its lane; the others branch off to the right and end before
//! it. So a lane is the number of branchings between the node and the base, and no two lines cross.
//! The way from Now to the base is the leftmost lane.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use snaptree_core::snapshot::{self, ImageId, Machine, NodeRef, Snapshot, SnapshotId};

/// A row of the tree: a snapshot keeps its name here when it becomes a ghost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Node {
    /// A snapshot, or the ghost of one.
    Snapshot(SnapshotId),
    /// The current state.
    Now,
}

impl Node {
    /// As core names it.
    pub fn in_core(self, machine: &Machine) -> NodeRef {
        match self {
            Self::Now => NodeRef::Now,
            Self::Snapshot(id) if machine.ghosts.contains_key(&id) => NodeRef::Ghost(id),
            Self::Snapshot(id) => NodeRef::Snapshot(id),
        }
    }
}

impl From<NodeRef> for Node {
    fn from(node: NodeRef) -> Self {
        match node {
            NodeRef::Now => Self::Now,
            NodeRef::Snapshot(id) | NodeRef::Ghost(id) => Self::Snapshot(id),
        }
    }
}

/// A node and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct TreeNode {
    /// Which.
    pub key: Node,
    /// The node that it is drawn under, as a number in [`Tree::nodes`].
    pub parent: Option<usize>,
    /// 0 is the leftmost.
    pub lane: u32,
    /// Distance from the base, which is 1.
    pub level: u32,
    /// How many nodes hang from it.
    pub children: u32,
    /// Whether it was deleted.
    pub ghost: bool,
    /// Whether Now stands on it.
    pub on_way: bool,
}

/// All nodes, in drawing order.
#[derive(Debug, Default)]
pub struct Tree {
    /// In drawing order: every node after its parent.
    pub nodes: Vec<TreeNode>,
    place: HashMap<Node, usize>,
    owner: HashMap<ImageId, usize>,
}

/// The snapshot, alive or a ghost.
pub fn snapshot(machine: &Machine, id: SnapshotId) -> Option<&Snapshot> {
    machine.snapshots.get(&id).or_else(|| machine.ghosts.get(&id).map(|g| &g.snapshot))
}

impl Tree {
    /// The tree of a machine, ghosts included.
    pub fn of(machine: &Machine) -> Self {
        let shown = Shown::of(machine);
        let order = shown.order();
        let mut tree = Self::default();
        for (index, lane) in order {
            let parent = shown.parent[index].map(|p| tree.place[&shown.keys[p]]);
            let key = shown.keys[index];
            tree.place.insert(key, tree.nodes.len());
            tree.nodes.push(TreeNode {
                key,
                parent,
                lane,
                level: parent.map_or(1, |p| tree.nodes[p].level + 1),
                children: shown.children[index].len() as u32,
                ghost: matches!(key, Node::Snapshot(id) if machine.ghosts.contains_key(&id)),
                on_way: shown.on_way[index],
            });
        }
        for (image, index) in shown.owner {
            tree.owner.insert(image, tree.place[&shown.keys[index]]);
        }
        tree
    }

    /// Where a node stands.
    pub fn place(&self, key: Node) -> Option<usize> {
        self.place.get(&key).copied()
    }

    /// The node that an image is.
    pub fn owner(&self, image: ImageId) -> Option<usize> {
        self.owner.get(&image).copied()
    }

    /// How many snapshots there are, ghosts not counted.
    pub fn snapshots(&self) -> usize {
        self.nodes.iter().filter(|n| !n.ghost && n.key != Node::Now).count()
    }
}

/// The nodes before they are ordered.
#[derive(Default)]
struct Shown {
    keys: Vec<Node>,
    taken: Vec<DateTime<Utc>>,
    parent: Vec<Option<usize>>,
    children: Vec<Vec<usize>>,
    on_way: Vec<bool>,
    owner: HashMap<ImageId, usize>,
    roots: Vec<usize>,
}

impl Shown {
    fn of(machine: &Machine) -> Self {
        let core = snapshot::Tree::of(machine);
        let mut shown = Self::default();
        for row in core.rows() {
            let index = shown.keys.len();
            let (key, taken) = match row.node {
                NodeRef::Snapshot(id) | NodeRef::Ghost(id) => {
                    (Node::Snapshot(id), snapshot(machine, id).map_or(DateTime::<Utc>::MIN_UTC, |s| s.taken))
                }
                NodeRef::Now => (Node::Now, DateTime::<Utc>::MAX_UTC),
            };
            shown.owner.extend(core.images_of(row.node).into_iter().flat_map(|i| i.values()).map(|image| (*image, index)));
            match row.parent {
                Some(parent) => shown.children[parent].push(index),
                None => shown.roots.push(index),
            }
            shown.keys.push(key);
            shown.taken.push(taken);
            shown.parent.push(row.parent);
            shown.children.push(Vec::new());
            shown.on_way.push(row.on_path);
        }
        shown
    }

    /// Numbers of nodes with their lanes, in drawing order.
    fn order(&self) -> Vec<(usize, u32)> {
        let height = self.heights();
        // The child that goes on in the lane comes last: the way to Now, else the tallest, else the newest.
        let sorted = |of: &[usize]| {
            let mut of = of.to_vec();
            of.sort_by_key(|i| (self.on_way[*i], height[*i], self.taken[*i], self.keys[*i]));
            if let [others @ .., _] = of.as_mut_slice() {
                others.sort_by_key(|i| (self.taken[*i], self.keys[*i]));
            }
            of
        };
        let mut order = Vec::with_capacity(self.keys.len());
        let mut todo: Vec<(usize, u32)> = sorted(&self.roots).into_iter().map(|i| (i, 0)).rev().collect();
        while let Some((node, lane)) = todo.pop() {
            order.push((node, lane));
            let children = sorted(&self.children[node]);
            for (n, child) in children.iter().enumerate().rev() {
                let goes_on = n + 1 == children.len();
                todo.push((*child, if goes_on { lane } else { lane + 1 }));
            }
        }
        order
    }

    /// The longest way up from each node; without recursion, for trees of any depth.
    fn heights(&self) -> Vec<u32> {
        let mut height = vec![0; self.keys.len()];
        let mut order = Vec::with_capacity(self.keys.len());
        let mut todo = self.roots.clone();
        while let Some(i) = todo.pop() {
            order.push(i);
            todo.extend(&self.children[i]);
        }
        for i in order.into_iter().rev() {
            height[i] = self.children[i].iter().map(|c| height[*c] + 1).max().unwrap_or(0);
        }
        height
    }
}
