//! Order, lanes and collapsed ghosts, on made-up trees.

use std::collections::BTreeSet;
use std::path::Path;

use snaptree_core::snapshot::SnapshotId;

use super::rows::{Row, Rows};
use crate::model::fabricated::{self, Made};
use crate::model::{Node, Tree};

const fn made(label: &'static str, parent: Option<usize>, days_ago: u64, ghost: bool) -> Made {
    Made { label, parent, days_ago, held_mib: 16, memory_mib: 0, protected: false, ghost }
}

fn tree(made: &[Made], now_on: Option<usize>) -> Tree {
    Tree::of(&fabricated::machine("T", made, now_on, 16, Path::new("/nowhere")).machine)
}

fn id(number: usize) -> SnapshotId {
    fabricated::snapshot_id("T", number)
}

/// Each node as (number of the snapshot, lane), Now as 99.
fn places(tree: &Tree, count: usize) -> Vec<(usize, u32)> {
    let number = |n: Node| (0..count).find(|i| n == Node::Snapshot(id(*i))).unwrap_or(99);
    tree.nodes.iter().map(|n| (number(n.key), n.lane)).collect()
}

#[test]
fn the_way_to_now_stays_in_the_first_lane() {
    // 1 is taller and newer than 2, but Now stands on 2.
    let all = [made("base", None, 9, false), made("tall", Some(0), 5, false), made("now's", Some(0), 6, false)];
    let all = [all.as_slice(), &[made("taller", Some(1), 4, false)]].concat();
    let tree = tree(&all, Some(2));
    assert_eq!(places(&tree, 4), [(0, 0), (1, 1), (3, 1), (2, 0), (99, 0)]);
    let on_way: Vec<bool> = tree.nodes.iter().map(|n| n.on_way).collect();
    assert_eq!(on_way, [true, false, false, true, true]);
}

#[test]
fn every_branching_is_one_lane_further_right() {
    let all = [
        made("base", None, 9, false),
        made("branch", Some(0), 8, false),
        made("branch of the branch", Some(1), 7, false),
        made("it goes on", Some(1), 6, false),
        made("and on", Some(3), 5, false),
    ];
    let tree = tree(&all, Some(0));
    assert_eq!(places(&tree, 5), [(0, 0), (1, 1), (2, 2), (3, 1), (4, 1), (99, 0)]);
    let levels: Vec<u32> = tree.nodes.iter().map(|n| n.level).collect();
    assert_eq!(levels, [1, 2, 3, 3, 4, 2]);
}

#[test]
fn no_line_crosses_a_dot() {
    // A line from a parent goes straight down its child's lane: no node between them may stand there.
    let machine = fabricated::large(400, Path::new("/nowhere")).machine;
    let tree = Tree::of(&machine);
    assert_eq!(tree.nodes.len(), 401);
    for (i, node) in tree.nodes.iter().enumerate() {
        let Some(parent) = node.parent else { continue };
        assert!(parent < i, "node {i} stands before its parent");
        let crossed = tree.nodes[parent + 1..i].iter().any(|n| n.lane == node.lane && tree.nodes[parent].lane == node.lane);
        assert!(!crossed, "the line from {parent} to {i} crosses another node");
    }
}

#[test]
fn ghosts_in_a_line_share_a_row_until_it_is_opened() {
    let all = [
        made("base", None, 9, false),
        made("gone 1", Some(0), 8, true),
        made("gone 2", Some(1), 7, true),
        made("gone 3", Some(2), 6, true),
        made("kept", Some(3), 5, false),
    ];
    let tree = tree(&all, Some(4));
    let rows = Rows::of(&tree, &BTreeSet::new());
    assert_eq!(rows.rows, [Row::Node(0), Row::Ghosts(1, 3), Row::Node(4), Row::Node(5)]);
    assert_eq!(rows.row_of, [0, 1, 1, 1, 2, 3]);
    assert_eq!(rows.keys(&tree)[1], Node::Snapshot(id(1)));
    let opened = Rows::of(&tree, &BTreeSet::from([id(1)]));
    assert_eq!(opened.rows, (0..6).map(Row::Node).collect::<Vec<_>>());
    assert_eq!(opened.row_of, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_ghost_that_branches_ends_the_run() {
    let all = [
        made("base", None, 9, false),
        made("gone 1", Some(0), 8, true),
        made("gone, two read it", Some(1), 7, true),
        made("branch", Some(2), 6, false),
        made("gone 3", Some(2), 5, true),
        made("kept", Some(4), 4, false),
    ];
    let tree = tree(&all, Some(5));
    let rows = Rows::of(&tree, &BTreeSet::new());
    // The second ghost still belongs to the run: its lines to both children start at its row.
    assert_eq!(rows.rows, [Row::Node(0), Row::Ghosts(1, 2), Row::Node(3), Row::Node(4), Row::Node(5), Row::Node(6)]);
    assert_eq!(Row::Ghosts(1, 2).last(), 2);
}

#[test]
fn one_ghost_has_a_row_of_its_own() {
    let all = [made("base", None, 9, false), made("gone", Some(0), 8, true), made("kept", Some(1), 7, false)];
    let tree = tree(&all, Some(2));
    let rows = Rows::of(&tree, &BTreeSet::new());
    assert_eq!(rows.rows, (0..4).map(Row::Node).collect::<Vec<_>>());
}
