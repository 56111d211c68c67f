//! What a node of the tree holds and costs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MachineFacts, ReadCost};
use crate::snapshot::{DiskId, ImageId, NodeRef, SavedMemory};
use crate::units::ByteCount;

/// What a node holds and costs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeCost {
    /// Bytes that its own files take: its images and its saved memory.
    pub held: ByteCount,
    /// The deepest chain among its disks.
    pub depth: u32,
    /// Images that a plain stack consults per read, mean over all disks' data; `None` while being counted.
    pub read_mean: Option<f64>,
    /// 95th percentile of the worst disk; `None` while being counted.
    pub read_p95: Option<u32>,
    /// Share (0 to 1) of the disks whose first write must allocate; `None` while being counted.
    pub first_write: Option<f64>,
    /// Disk by disk, as far as they are counted.
    pub disks: BTreeMap<DiskId, ReadCost>,
}

/// What a node holds and costs; with `merged`, once these runs are one image each. `None` for a node that isn't there.
pub fn node_cost(facts: &MachineFacts<'_>, node: NodeRef, merged: &[Vec<ImageId>]) -> Option<NodeCost> {
    let machine = facts.machine;
    let (images, memory) = match node {
        NodeRef::Snapshot(id) => machine.snapshots.get(&id).map(|s| (&s.images, s.memory.as_ref()))?,
        NodeRef::Ghost(id) => machine.ghosts.get(&id).map(|g| (&g.snapshot.images, g.snapshot.memory.as_ref()))?,
        NodeRef::Now => (&machine.now.images, machine.now.memory.as_ref().filter(|m| !is_of_snapshot(facts, m))),
    };
    let there = || images.iter().filter(|(_, image)| machine.images.contains_key(image));
    let files: ByteCount = there().map(|(_, image)| facts.held(*image)).sum();
    let disks: BTreeMap<_, _> = there()
        .filter_map(|(disk, image)| Some((disk.clone(), facts.census.get(disk)?.read_cost_after(*image, merged)?)))
        .collect();
    let counted = there().count() == disks.len() && !disks.is_empty();
    let sizes = || disks.keys().map(|disk| facts.disk_size(disk).0 as f64);
    let first_write = mean(disks.values().map(|c| c.first_write), sizes());
    let read = mean(disks.values().map(|c| c.mean), disks.values().map(|c| c.allocated.0 as f64));
    Some(NodeCost {
        held: files + memory.map_or(ByteCount::ZERO, |m| m.held),
        depth: there().map(|(_, image)| depth(facts, *image, merged)).max().unwrap_or(0),
        read_mean: read.filter(|_| counted),
        read_p95: disks.values().map(|c| c.p95).max().filter(|_| counted),
        first_write: first_write.filter(|_| counted),
        disks,
    })
}

/// Whether the memory that Now continues from is a snapshot's own file.
fn is_of_snapshot(facts: &MachineFacts<'_>, memory: &SavedMemory) -> bool {
    facts.machine.snapshots.values().any(|s| s.memory.as_ref().is_some_and(|m| m.file == memory.file))
}

/// Images in the chain behind an image, from the manifest, a run among `merged` counting as one.
fn depth(facts: &MachineFacts<'_>, leaf: ImageId, merged: &[Vec<ImageId>]) -> u32 {
    let images = &facts.machine.images;
    let mut depth = 0;
    let mut above = None;
    let mut next = Some(leaf);
    // At most once through all images, should their links go in circles.
    for _ in 0..images.len() {
        let Some((image, record)) = next.and_then(|i| Some((i, images.get(&i)?))) else { break };
        let run = merged.iter().position(|run| run.contains(&image));
        if run.is_none() || run != above {
            depth += 1;
        }
        above = run;
        next = record.parent;
    }
    depth
}

/// The weighted mean; with no weight at all the largest value; `None` of nothing.
fn mean(values: impl Iterator<Item = f64> + Clone, weights: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let sum: f64 = weights.clone().sum();
    if sum > 0.0 {
        return Some(values.zip(weights).map(|(value, weight)| value * weight).sum::<f64>() / sum);
    }
    values.max_by(f64::total_cmp)
}
