//! The full tree: snapshots, ghosts and Now with the links that deletions don't change. What the
//! tree shows as a parent is the nearest ancestor in it that isn't deleted.

use std::collections::{BTreeMap, BTreeSet};

use super::{Machine, SnapshotId};

/// Parents in the full tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forest {
    /// Of every snapshot and ghost.
    pub parents: BTreeMap<SnapshotId, Option<SnapshotId>>,
    /// Of Now.
    pub now: Option<SnapshotId>,
}

impl Forest {
    /// Reads the links out of a manifest. Links to nodes that don't exist are dropped.
    pub fn of(machine: &Machine) -> Self {
        let exists = |id: &SnapshotId| machine.snapshots.contains_key(id) || machine.ghosts.contains_key(id);
        let mut parents: BTreeMap<_, _> = machine.snapshots.iter().map(|(id, node)| (*id, node.parent)).collect();
        parents.extend(machine.ghosts.iter().map(|(id, ghost)| (*id, ghost.snapshot.parent)));
        let mut now = machine.now.parent;
        for (id, ghost) in &machine.ghosts {
            for child in ghost.children.iter().filter(|child| machine.snapshots.contains_key(child)) {
                parents.insert(*child, Some(*id));
            }
            if ghost.was_parent_of_now {
                now = Some(*id);
            }
        }
        for parent in parents.values_mut() {
            *parent = parent.filter(exists);
        }
        Self { parents, now: now.filter(exists) }
    }

    /// Writes the links back, to the nodes that the manifest has now.
    pub fn write(&self, machine: &mut Machine) {
        let live: BTreeSet<_> = machine.snapshots.keys().copied().collect();
        let mut nearest = self.nearest(|id| live.contains(&id));
        for (id, node) in &mut machine.snapshots {
            node.parent = nearest(self.parent(*id));
        }
        machine.now.parent = nearest(self.now);
        drop(nearest);
        let mut children: BTreeMap<SnapshotId, Vec<SnapshotId>> = BTreeMap::new();
        for (id, parent) in &self.parents {
            if let Some(parent) = parent {
                children.entry(*parent).or_default().push(*id);
            }
        }
        for (id, ghost) in &mut machine.ghosts {
            ghost.snapshot.parent = self.parent(*id);
            ghost.children = children.remove(id).unwrap_or_default();
            ghost.was_parent_of_now = self.now == Some(*id);
        }
    }

    /// The parent of a snapshot or ghost.
    pub fn parent(&self, id: SnapshotId) -> Option<SnapshotId> {
        self.parents.get(&id).copied().flatten()
    }

    /// Finds, from a start downwards, the first node for which `wanted` holds; what was found once is known for all on the way.
    pub fn nearest(&self, wanted: impl Fn(SnapshotId) -> bool) -> impl FnMut(Option<SnapshotId>) -> Option<SnapshotId> {
        let mut known: BTreeMap<SnapshotId, Option<SnapshotId>> = BTreeMap::new();
        move |start| {
            let (mut path, mut at) = (Vec::new(), start);
            let found = loop {
                let Some(id) = at.filter(|_| path.len() <= self.parents.len()) else { break None };
                if let Some(found) = known.get(&id) {
                    break *found;
                }
                if wanted(id) {
                    break at;
                }
                path.push(id);
                at = self.parent(id);
            };
            known.extend(path.into_iter().map(|id| (id, found)));
            found
        }
    }

    /// Takes a node out; what hung from it hangs from its parent.
    pub fn splice(&mut self, id: SnapshotId) {
        let parent = self.parents.remove(&id).flatten();
        for link in self.parents.values_mut().chain([&mut self.now]) {
            if *link == Some(id) {
                *link = parent;
            }
        }
    }

    /// A node that hangs from itself by some way, if there is one.
    pub fn circle(&self) -> Option<SnapshotId> {
        let mut sound: BTreeSet<SnapshotId> = BTreeSet::new();
        for start in self.parents.keys() {
            let mut path = BTreeSet::new();
            let mut at = Some(*start);
            while let Some(id) = at {
                if sound.contains(&id) {
                    break;
                }
                if !path.insert(id) {
                    return Some(id);
                }
                at = self.parent(id);
            }
            sound.extend(path);
        }
        None
    }
}
