//! The tree's lanes, as `git log --graph` draws them, the base at the top.

use snaptree_core::snapshot::{NodeRef, TreeRow};

/// What stands left of each row: lines that lead to it (without a row's text), and the row's own.
#[derive(Debug, PartialEq, Eq)]
pub struct Lanes {
    pub before: Vec<String>,
    pub row: String,
}

/// Lanes for rows in which each node is followed by all that hangs from it. The last child goes on in its
/// parent's lane; the others branch off to the right just before they are drawn.
pub fn lanes(rows: &[TreeRow]) -> Vec<Lanes> {
    let mut lane_of = vec![0; rows.len()];
    let mut last = vec![None; rows.len()];
    for (index, row) in rows.iter().enumerate() {
        if let Some(parent) = row.parent {
            last[parent] = Some(index);
        }
    }
    let mut drawn = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let branches = row.parent.is_some_and(|parent| last[parent] != Some(index));
        let lane = row.parent.map_or(0, |parent| lane_of[parent] + usize::from(branches));
        lane_of[index] = lane;
        let before = if branches { vec![format!("{}|\\", "| ".repeat(lane - 1))] } else { Vec::new() };
        let mark = match row.node {
            NodeRef::Snapshot(_) => 'o',
            NodeRef::Ghost(_) => ':',
            NodeRef::Now => '*',
        };
        drawn.push(Lanes { before, row: format!("{}{mark}", "| ".repeat(lane)) });
    }
    drawn
}
