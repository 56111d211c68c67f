//! What somebody should look at: figures only; the texts are the program's.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{MachineFacts, MergeCost, MergeTotal, deletion_cost, merges_due, node_cost};
use crate::snapshot::{NodeRef, SnapshotId, Tree};
use crate::units::ByteCount;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Should be looked at.
    Warning,
    /// Soon machines stop or data is at risk.
    Urgent,
}

/// The one thing to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Carry out the merges that are due.
    Merge,
    /// Delete these snapshots (and merge).
    Delete(Vec<SnapshotId>),
    /// Look at a snapshot.
    Show(SnapshotId),
    /// Empty the trash.
    EmptyTrash,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Now's chain is deep.
    ChainTooDeep {
        /// Images in the chain.
        depth: u32,
        /// From here on it is advised against.
        warn_depth: u32,
        /// Images a read, mean, where counted.
        read_mean: Option<f64>,
        /// What the action would make of the depth.
        depth_after: u32,
        /// And of the images a read.
        read_mean_after: Option<f64>,
    },
    /// A snapshot is old: it is not a backup.
    SnapshotTooOld {
        /// The oldest one.
        snapshot: SnapshotId,
        /// Its age.
        age_hours: u64,
        /// From here on it is warned about.
        warn_age_hours: u32,
        /// How many are past that age.
        count: u32,
    },
    /// Merges are due.
    MergeDue {
        /// The sum.
        total: MergeTotal,
    },
    /// The volume is short.
    DiskFilling {
        /// Free bytes.
        free: ByteCount,
        /// Bytes in the trash of this machine that would come back.
        trash: ByteCount,
    },
    /// A merge that is due needs more than is free.
    MergeWontFit {
        /// What it needs.
        scratch: ByteCount,
        /// What there is.
        free: ByteCount,
    },
    /// The machine is paused, because less is free on its volume than it needs.
    NoRoom {
        /// Free bytes.
        free: ByteCount,
        /// With so many it goes on.
        go_on_free: ByteCount,
        /// What can be freed now.
        freeable: Freeable,
    },
    /// The trash holds much.
    TrashHolds {
        /// Bytes.
        bytes: ByteCount,
        /// Files.
        files: u32,
    },
}

/// What of a machine can be freed now, on a volume that is short.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Freeable {
    /// Bytes in the trash: they come back at once.
    pub trash: ByteCount,
    /// The merges that are due and fit into what is free, added up.
    pub merges: MergeTotal,
    /// Bytes of snapshots that nothing stands on: deleting these frees them at once.
    pub deletable: ByteCount,
    /// These snapshots, the one that holds most first.
    pub snapshots: Vec<SnapshotId>,
}

/// One thing that somebody should look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is, with its figures.
    pub kind: FindingKind,
    /// The one thing to do about it.
    pub action: Option<Action>,
}

/// The trash is mentioned from this share of what the machine's images hold.
const TRASH_SHARE: u64 = 10;

/// Everything found about a machine, the worst first.
pub fn advise(facts: &MachineFacts<'_>, now: DateTime<Utc>) -> Vec<Finding> {
    let tree = Tree::of(facts.machine);
    let due = merges_due(facts);
    let mut findings: Vec<Finding> = [chain_depth(facts, &tree), volume(facts), trash(facts), age(facts, now)]
        .into_iter()
        .flatten()
        .chain(merges(facts, &due))
        .collect();
    findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
    findings
}

fn chain_depth(facts: &MachineFacts<'_>, tree: &Tree<'_>) -> Option<Finding> {
    let settings = &facts.machine.settings;
    let before = node_cost(facts, NodeRef::Now, &[])?;
    if before.depth < settings.warn_depth.max(2) {
        return None;
    }
    let severity = if before.depth >= settings.max_depth { Severity::Urgent } else { Severity::Warning };
    let runs: Vec<_> = tree.runs().into_iter().map(|r| r.images).collect();
    let merged = node_cost(facts, NodeRef::Now, &runs)?;
    let (action, after) = if merged.depth < settings.warn_depth {
        (Some(Action::Merge), merged)
    } else {
        // The oldest ones that only one branch reads through, as many as it takes.
        let count = (merged.depth - settings.warn_depth.max(2) + 1) as usize;
        let mut candidates: Vec<SnapshotId> = tree
            .path_from_now()
            .into_iter()
            .filter(|id| facts.machine.snapshots.get(id).is_some_and(|s| !s.protected))
            .filter(|id| branches(facts, tree, *id) == 1)
            .collect();
        candidates.reverse();
        candidates.truncate(count);
        match deletion_cost(facts, &candidates, false).filter(|_| !candidates.is_empty()) {
            Some(cost) => (Some(Action::Delete(candidates)), cost.after),
            None => (None, merged),
        }
    };
    let kind = FindingKind::ChainTooDeep {
        depth: before.depth,
        warn_depth: settings.warn_depth,
        read_mean: before.read_mean,
        depth_after: after.depth,
        read_mean_after: after.read_mean,
    };
    Some(Finding { severity, kind, action })
}

/// What hangs from a snapshot: snapshots, and Now.
fn branches(facts: &MachineFacts<'_>, tree: &Tree<'_>, id: SnapshotId) -> usize {
    tree.children(Some(id)).len() + usize::from(facts.machine.now.parent == Some(id))
}

fn age(facts: &MachineFacts<'_>, now: DateTime<Utc>) -> Option<Finding> {
    let limit = facts.machine.settings.warn_age_hours;
    let hours = |taken: DateTime<Utc>| u64::try_from((now - taken).num_hours()).unwrap_or(0);
    let old: Vec<_> = facts.machine.snapshots.iter().filter(|(_, s)| hours(s.taken) >= u64::from(limit)).collect();
    let (oldest, snapshot) = old.iter().min_by_key(|(_, s)| s.taken)?;
    let kind = FindingKind::SnapshotTooOld {
        snapshot: **oldest,
        age_hours: hours(snapshot.taken),
        warn_age_hours: limit,
        count: old.len() as u32,
    };
    Some(Finding { severity: Severity::Note, kind, action: Some(Action::Show(**oldest)) })
}

fn merges(facts: &MachineFacts<'_>, due: &[MergeCost]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (fit, wont): (Vec<MergeCost>, Vec<MergeCost>) = due.iter().cloned().partition(|m| m.fits);
    if !fit.is_empty() {
        let kind = FindingKind::MergeDue { total: MergeTotal::of(facts, &fit) };
        findings.push(Finding { severity: Severity::Note, kind, action: Some(Action::Merge) });
    }
    if let Some(scratch) = wont.iter().map(|m| m.scratch).max() {
        let action = (!facts.machine.trash.is_empty()).then_some(Action::EmptyTrash);
        let kind = FindingKind::MergeWontFit { scratch, free: facts.volume.free };
        findings.push(Finding { severity: Severity::Warning, kind, action });
    }
    findings
}

fn volume(facts: &MachineFacts<'_>) -> Option<Finding> {
    let free = facts.volume.free;
    let settings = &facts.machine.settings;
    let severity = match free {
        f if f < settings.urgent_free => Severity::Urgent,
        f if f < settings.warn_free => Severity::Warning,
        _ => return None,
    };
    let trash = trash_bytes(facts);
    let action = (trash > ByteCount::ZERO).then_some(Action::EmptyTrash);
    Some(Finding { severity, kind: FindingKind::DiskFilling { free, trash }, action })
}

fn trash(facts: &MachineFacts<'_>) -> Option<Finding> {
    let bytes = trash_bytes(facts);
    let held: ByteCount = facts.files.values().map(|f| f.held).sum();
    if bytes == ByteCount::ZERO || bytes.0 < held.0 / TRASH_SHARE {
        return None;
    }
    let kind = FindingKind::TrashHolds { bytes, files: facts.machine.trash.len() as u32 };
    Some(Finding { severity: Severity::Note, kind, action: Some(Action::EmptyTrash) })
}

/// That the machine is paused for want of room, and what to do first: what costs least and is enough, or gives most back.
pub fn no_room(facts: &MachineFacts<'_>) -> Finding {
    let freeable = freeable(facts);
    let (free, go_on_free) = (facts.volume.free, facts.machine.settings.go_on_free());
    let ways = [
        (freeable.trash, Action::EmptyTrash),
        (freeable.merges.comes_back, Action::Merge),
        (freeable.deletable, Action::Delete(freeable.snapshots.clone())),
    ];
    let enough = ways.iter().find(|(back, _)| *back > ByteCount::ZERO && free + *back >= go_on_free);
    let most = || ways.iter().filter(|(back, _)| *back > ByteCount::ZERO).rev().max_by_key(|(back, _)| *back);
    let action = enough.or_else(most).map(|(_, action)| action.clone());
    Finding { severity: Severity::Urgent, kind: FindingKind::NoRoom { free, go_on_free, freeable }, action }
}

/// What can be freed now.
pub fn freeable(facts: &MachineFacts<'_>) -> Freeable {
    let machine = facts.machine;
    let fit: Vec<MergeCost> = merges_due(facts).into_iter().filter(|merge| merge.fits).collect();
    let mut stood_on: BTreeSet<SnapshotId> = machine.snapshots.values().filter_map(|snapshot| snapshot.parent).collect();
    stood_on.extend(machine.ghosts.values().filter_map(|ghost| ghost.snapshot.parent));
    stood_on.extend(machine.now.parent);
    let free = |id: &SnapshotId| Some((deletion_cost(facts, &[*id], false)?.frees, *id)).filter(|(frees, _)| frees.0 > 0);
    let tips = machine.snapshots.iter().filter(|(id, snapshot)| !snapshot.protected && !stood_on.contains(id));
    let mut tips: Vec<(ByteCount, SnapshotId)> = tips.filter_map(|(id, _)| free(id)).collect();
    tips.sort_by_key(|(frees, _)| std::cmp::Reverse(*frees));
    Freeable {
        trash: trash_bytes(facts),
        merges: MergeTotal::of(facts, &fit),
        deletable: tips.iter().map(|(frees, _)| *frees).sum(),
        snapshots: tips.into_iter().map(|(_, id)| id).collect(),
    }
}

fn trash_bytes(facts: &MachineFacts<'_>) -> ByteCount {
    facts.machine.trash.iter().map(|t| t.held).sum()
}
