//! Whose the images are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{NodeName, Role};
use crate::host_file::SharedHost;
use crate::hyperv::HyperVFolder;
use crate::snapshot::{ImageId, Machine, TrashReason};

/// Who names which image, and which go by themselves. Paths have their links resolved.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub named: BTreeMap<PathBuf, BTreeSet<NodeName>>,
    pub pending: BTreeMap<PathBuf, String>,
    /// Machines of which Hyper-V will merge what is left over.
    pub merging: BTreeSet<String>,
}

impl Claims {
    /// As Hyper-V's configurations say; images by their indexes in the folder.
    pub fn of_hyper_v(found: &HyperVFolder, path: &dyn Fn(usize) -> PathBuf) -> Self {
        let mut claims = Self::default();
        for machine in &found.machines {
            if machine.now.config.merge_pending {
                claims.merging.insert(machine.now.config.name.clone());
            }
            for node in machine.nodes() {
                let is_now = node.id == machine.now.id;
                let name =
                    NodeName { machine: machine.now.config.name.clone(), snapshot: (!is_now).then(|| node.config.name.clone()) };
                for attached in &node.images {
                    claims.named.entry(path(attached.image)).or_default().insert(name.clone());
                }
            }
        }
        claims
    }

    /// As a machine's manifest says.
    pub fn of_machine(host: &SharedHost, dir: &Path, machine: &Machine) -> Self {
        let mut claims = Self::default();
        let place = |file: &Path| host.canonical(&dir.join(file)).unwrap_or_else(|_| dir.join(file));
        let file = |image: &ImageId| machine.images.get(image).map(|record| place(&record.file));
        let snapshots = machine.snapshots.values().map(|snapshot| (Some(snapshot.label.clone()), &snapshot.images));
        for (snapshot, images) in snapshots.chain([(None, &machine.now.images)]) {
            for file in images.values().filter_map(file) {
                let name = NodeName { machine: machine.name.clone(), snapshot: snapshot.clone() };
                claims.named.entry(file).or_default().insert(name);
            }
        }
        for ghost in machine.ghosts.values() {
            for file in ghost.snapshot.images.values().filter_map(file) {
                let reason = format!("the snapshot {} is deleted; its merge is due", ghost.snapshot.label);
                claims.pending.entry(file).or_insert(reason);
            }
        }
        // As of a take that was cut short: Now has gone on in new leaves.
        for file in machine.images.keys().filter_map(file) {
            if !claims.named.contains_key(&file) {
                claims.pending.entry(file).or_insert("no snapshot is it any longer; its merge is due".into());
            }
        }
        for item in &machine.trash {
            let why = match item.reason {
                TrashReason::Deleted => "its snapshot was deleted",
                TrashReason::Applied => "it was replaced by an apply",
                TrashReason::Merged => "it was merged",
            };
            let when = item.removed.format("%Y-%m-%d %H:%M UTC");
            claims.pending.entry(place(&item.file)).or_insert(format!("in the trash since {when}: {why}"));
        }
        claims
    }

    /// Whose an image is, with the nodes that read through it. A base that nodes read through is no left-over, named or not:
    /// a chain needs one.
    pub fn role(&self, path: &Path, readers: &BTreeSet<NodeName>, is_base: bool) -> Role {
        let nodes = || readers.iter().cloned().collect();
        match (self.named.get(path), self.pending.get(path)) {
            (Some(named), _) => match named.first() {
                Some(node) if named.len() == 1 => Role::Owned { node: node.clone() },
                _ => Role::Shared { nodes: named.iter().cloned().collect() },
            },
            (None, Some(reason)) => Role::Pending { reason: reason.clone() },
            (None, None) if is_base && !readers.is_empty() => Role::Shared { nodes: nodes() },
            (None, None) => Role::LeftOver { nodes: nodes() },
        }
    }
}
