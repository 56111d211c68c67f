//! Which rows there are: a row per node, but runs of plain ghosts share one. Pure.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::model::Node;
use snaptree_core::snapshot::{MachineId, SnapshotId};

use crate::model::{MachineEntry, Tree};

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// A node, by its number in the tree.
    Node(usize),
    /// Ghosts in one line of descent: the first, and how many.
    Ghosts(usize, usize),
}

impl Row {
    /// The first node of the row: what it is selected by.
    pub fn first(self) -> usize {
        match self {
            Self::Node(i) | Self::Ghosts(i, _) => i,
        }
    }

    /// The last node of the row: what the next row's line comes from.
    pub fn last(self) -> usize {
        match self {
            Self::Node(i) => i,
            Self::Ghosts(i, n) => i + n - 1,
        }
    }

    /// All its nodes.
    pub fn nodes(self) -> std::ops::RangeInclusive<usize> {
        self.first()..=self.last()
    }
}

/// The rows of a tree.
#[derive(Debug, Default)]
pub struct Rows {
    pub rows: Vec<Row>,
    /// For each node, its row.
    pub row_of: Vec<usize>,
    /// The largest lane.
    pub lanes: u32,
}

/// Runs of ghosts from this length on share a row.
const COLLAPSE_FROM: usize = 2;

impl Rows {
    /// The rows of a tree, with the runs in `expanded` (by their first ghost) shown one by one.
    pub fn of(tree: &Tree, expanded: &BTreeSet<SnapshotId>) -> Self {
        let mut rows = Vec::new();
        let mut row_of = vec![0; tree.nodes.len()];
        let mut i = 0;
        while i < tree.nodes.len() {
            let length = run_length(tree, i);
            let is_open = matches!(tree.nodes[i].key, Node::Snapshot(id) if expanded.contains(&id));
            let row = if length >= COLLAPSE_FROM && !is_open { Row::Ghosts(i, length) } else { Row::Node(i) };
            // A run that is shown row by row is not collapsed again from its second ghost on.
            let take = if is_open { length.max(1) } else { 1 };
            if let Row::Ghosts(..) = row {
                row.nodes().for_each(|n| row_of[n] = rows.len());
                rows.push(row);
                i += length;
            } else {
                for (n, row) in row_of.iter_mut().enumerate().skip(i).take(take) {
                    *row = rows.len();
                    rows.push(Row::Node(n));
                }
                i += take;
            }
        }
        let lanes = tree.nodes.iter().map(|n| n.lane).max().unwrap_or(0);
        Self { rows, row_of, lanes }
    }

    /// The nodes by which rows are selected, in order.
    pub fn keys(&self, tree: &Tree) -> Vec<Node> {
        self.rows.iter().map(|r| tree.nodes[r.first()].key).collect()
    }
}

/// How many ghosts follow each other from here, each with one child, in one lane.
pub fn run_length(tree: &Tree, from: usize) -> usize {
    let nodes = &tree.nodes;
    if !nodes[from].ghost {
        return 0;
    }
    let mut to = from;
    while nodes[to].children == 1
        && nodes.get(to + 1).is_some_and(|n| n.ghost && n.parent == Some(to) && n.lane == nodes[from].lane)
    {
        to += 1;
    }
    to - from + 1
}

/// The rows of the machine that is shown, made again only when something has changed.
#[derive(Default)]
pub struct RowCache(Option<Cached>);

struct Cached {
    machine: MachineId,
    tree: Rc<Tree>,
    expanded: BTreeSet<SnapshotId>,
    rows: Rc<Rows>,
}

impl RowCache {
    /// The rows of a machine.
    pub fn rows(&mut self, machine: &MachineEntry, expanded: &BTreeSet<SnapshotId>) -> Rc<Rows> {
        let id = machine.state.machine.id;
        if let Some(c) = &self.0
            && c.machine == id
            && Rc::ptr_eq(&c.tree, &machine.tree)
            && c.expanded == *expanded
        {
            return c.rows.clone();
        }
        let rows = Rc::new(Rows::of(&machine.tree, expanded));
        self.0 = Some(Cached { machine: id, tree: machine.tree.clone(), expanded: expanded.clone(), rows: rows.clone() });
        rows
    }
}
