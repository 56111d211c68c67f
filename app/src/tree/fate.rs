//! What a deletion would do, row by row: played on the tree while the pointer rests on Delete.

use std::collections::HashMap;

use crate::model::Node;
use snaptree_core::cost::DeletionCost;
use snaptree_core::snapshot::ImageId;

use crate::model::{MachineEntry, Tree};

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It goes, and its bytes come back.
    Goes,
    /// What it holds moves into its child's image.
    Merges,
    /// It goes, but its bytes stay, since branches read them.
    Stays,
}

/// What becomes of each row, and where merges become due.
#[derive(Debug, Default)]
pub struct Played {
    /// By number of the node.
    pub rows: HashMap<usize, Fate>,
    /// Nodes whose line to their parent becomes due.
    pub due: Vec<usize>,
}

impl Played {
    /// What a deletion does to the rows.
    pub fn of(tree: &Tree, cost: &DeletionCost) -> Self {
        let mut played = Self::default();
        let place = |image: &ImageId| tree.owner(*image);
        for id in &cost.snapshots {
            if let Some(node) = tree.place(Node::Snapshot(*id)) {
                played.rows.insert(node, Fate::Goes);
            }
        }
        for disk in &cost.disks {
            for merge in &disk.merges {
                for pair in merge.run.windows(2) {
                    played.due.extend(place(&pair[1]));
                    played.set(place(&pair[0]), Fate::Merges);
                }
            }
            for retained in &disk.retained {
                played.set(place(&retained.image), Fate::Stays);
            }
        }
        played
    }

    fn set(&mut self, node: Option<usize>, fate: Fate) {
        if let Some(node) = node {
            let old = self.rows.entry(node).or_insert(fate);
            *old = (*old).max(fate);
        }
    }

    /// In a word, for the row's column.
    pub fn word(fate: Fate) -> &'static str {
        match fate {
            Fate::Goes => "goes",
            Fate::Merges => "merges upwards",
            Fate::Stays => "stays held",
        }
    }
}

/// The play for what the pointer rests on, if it rests on anything.
pub fn played(machine: &MachineEntry, what: &Option<(Vec<snaptree_core::snapshot::SnapshotId>, bool)>) -> Option<Played> {
    let (snapshots, subtree) = what.as_ref()?;
    let cost = machine.figures.deletion_now(snapshots, *subtree)?;
    Some(Played::of(&machine.tree, &cost))
}
