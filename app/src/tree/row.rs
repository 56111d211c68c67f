//! What a row says: gathered from the model, so that painting and the accessibility tree say the same.

use crate::model::Node;
use snaptree_core::cost::{Finding, FindingKind, NodeCost};
use snaptree_core::engine::Power;
use snaptree_core::snapshot::Snapshot;
use snaptree_core::units::ByteCount;
use std::rc::Rc;

use super::fate::{Fate, Played};
use super::rows::Row;
use crate::model::{MachineEntry, Model};
use crate::text::{self, Said};
use crate::theme::Tone;

/// A small word beside the name.
#[derive(Debug, Clone, PartialEq)]
pub struct Badge {
    pub text: String,
    pub tone: Tone,
}

/// A row in words.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowText {
    pub name: String,
    pub badges: Vec<Badge>,
    pub second: String,
    pub held: ByteCount,
    pub reads: Option<f64>,
    /// How long a read really takes, where somebody has measured it.
    pub measured: Option<std::time::Duration>,
    pub outcome: Said,
    /// It recedes: a ghost.
    pub weak: bool,
}

fn badge(text: impl Into<String>, tone: Tone) -> Badge {
    Badge { text: text.into(), tone }
}

/// Bytes that the nodes of a row hold.
pub fn held(machine: &MachineEntry, row: Row) -> ByteCount {
    row.nodes().filter_map(|n| cost(machine, n)).map(|c| c.held).sum()
}

/// What a node costs; ghosts hold what is left of their images.
pub fn cost(machine: &MachineEntry, node: usize) -> Option<Rc<NodeCost>> {
    machine.figures.node(machine.tree.nodes[node].key)
}

impl RowText {
    /// What a row says.
    pub fn of(model: &Model, machine: &MachineEntry, row: Row, played: Option<&Played>) -> Self {
        let node = &machine.tree.nodes[row.first()];
        let m = &machine.state.machine;
        let mut said = match (row, node.key) {
            (Row::Ghosts(..), _) => ghosts(model, machine, row),
            (Row::Node(_), Node::Now) => now(machine),
            (Row::Node(n), Node::Snapshot(id)) => match (m.snapshots.get(&id), m.ghosts.get(&id)) {
                (Some(s), _) => snapshot(model, machine, n, s),
                (None, Some(_)) => ghosts(model, machine, row),
                (None, None) => Self::default(),
            },
        };
        said.held = held(machine, row);
        if let Some(fate) = played.and_then(|p| row.nodes().filter_map(|n| p.rows.get(&n)).max()) {
            let tone = match fate {
                Fate::Goes => Tone::Good,
                Fate::Merges => Tone::Warn,
                Fate::Stays => Tone::Plain,
            };
            said.outcome = Said { text: Played::word(*fate).into(), detail: String::new(), tone };
        }
        said
    }

    /// The row's name for the accessibility tree.
    pub fn accessible(&self, row: Row, machine: &MachineEntry) -> String {
        let node = &machine.tree.nodes[row.first()];
        let kind = match (row, node.key, node.ghost) {
            (_, Node::Now, _) => "current state",
            (Row::Ghosts(..), ..) | (_, _, true) => "deleted",
            _ => "snapshot",
        };
        let place = format!("{} of {}", row.first() + 1, machine.tree.nodes.len());
        let mut parts = vec![self.name.clone(), kind.into(), place, text::bytes(self.held)];
        parts.extend(self.badges.iter().map(|b| b.text.clone()));
        if let Some(measured) = self.measured {
            parts.push(format!("{} a read, measured", text::short_duration(measured)));
        }
        if !self.outcome.text.is_empty() {
            parts.push(self.outcome.text.clone());
        }
        parts.join(", ")
    }
}

fn snapshot(model: &Model, machine: &MachineEntry, n: usize, s: &Snapshot) -> RowText {
    let node = &machine.tree.nodes[n];
    let Node::Snapshot(id) = node.key else { return RowText::default() };
    let settings = &machine.state.machine.settings;
    let mut badges = Vec::new();
    if (model.when.now - s.taken).num_hours() >= i64::from(settings.warn_age_hours) {
        // All are told, the one that the advice names stands out.
        let named = |f: &Finding| matches!(f.kind, FindingKind::SnapshotTooOld { snapshot, .. } if snapshot == id);
        let tone = if machine.figures.findings.iter().any(named) { Tone::Warn } else { Tone::Weak };
        badges.push(badge(model.when.age_short(s.taken), tone));
    }
    if s.protected {
        badges.push(badge("protected", Tone::Weak));
    }
    let kind = match &s.memory {
        Some(memory) => format!("memory {}", text::bytes(memory.held)),
        None => "disks only".into(),
    };
    let outcome = match machine.figures.deletion(id) {
        Some(cost) => text::deletion_row(&cost, s.protected, node.children),
        None => Said { text: "…".into(), tone: Tone::Weak, ..Said::default() },
    };
    RowText {
        name: s.label.clone(),
        badges,
        second: format!("{} · {kind}", model.when.brief(s.taken)),
        reads: cost(machine, n).and_then(|c| c.read_mean),
        outcome,
        ..RowText::default()
    }
}

fn now(machine: &MachineEntry) -> RowText {
    let power = &machine.state.power;
    let tone = match power {
        Power::NoRoom => Tone::Bad,
        _ if machine.is_up() => Tone::Good,
        _ => Tone::Weak,
    };
    let m = &machine.state.machine;
    let since = m.now.parent.and_then(|p| crate::model::snapshot(m, p)).map(|s| format!(" · since “{}”", s.label));
    let since = since.unwrap_or_else(|| if machine.tree.snapshots() == 0 { " · no snapshot yet".into() } else { String::new() });
    let live = machine.live.as_ref().map(|(_, counters)| counters);
    RowText {
        name: "Now".into(),
        badges: vec![badge(text::power(power), tone)],
        second: format!("you are here{since}"),
        reads: machine.figures.now.read_mean,
        measured: live.filter(|counters| counters.disk_reads > 0).map(|counters| counters.read_latency),
        ..RowText::default()
    }
}

fn ghosts(model: &Model, machine: &MachineEntry, row: Row) -> RowText {
    let m = &machine.state.machine;
    let all: Vec<_> = row
        .nodes()
        .filter_map(|n| match machine.tree.nodes[n].key {
            Node::Snapshot(id) => m.ghosts.get(&id),
            Node::Now => None,
        })
        .collect();
    let name = match all.as_slice() {
        [one] => one.snapshot.label.clone(),
        _ => text::count(all.len(), "deleted snapshot"),
    };
    let first = all.iter().map(|g| g.snapshot.taken).min().unwrap_or(model.when.now);
    let last = all.iter().map(|g| g.snapshot.taken).max().unwrap_or(model.when.now);
    let days = match (model.when.day(first), model.when.day(last)) {
        (a, b) if a == b => a,
        (a, b) => format!("{a} to {b}"),
    };
    let held = held(machine, row);
    let merge = all.iter().flat_map(|g| g.snapshot.images.values()).find_map(|image| machine.figures.merge_of(*image));
    let readers = row.nodes().map(|n| machine.tree.nodes[n].children).max().unwrap_or(0);
    let outcome = match merge {
        Some(merge) => {
            let time = text::estimate(merge.time).map(|t| format!(", {t}")).unwrap_or_default();
            Said {
                text: match merge.bytes.data.0 {
                    0 => "merge due, nothing to copy".into(),
                    _ => format!("merge due: {}{time}", text::bytes(merge.bytes.data)),
                },
                detail: format!("{} come back", text::bytes(merge.comes_back)),
                tone: Tone::Warn,
            }
        }
        None => Said { text: format!("held by {readers} branches"), detail: "until one is left".into(), tone: Tone::Plain },
    };
    let single = all.len() == 1;
    RowText {
        name,
        badges: if single { vec![badge("deleted", Tone::Weak)] } else { Vec::new() },
        second: format!("{} still held · {days}", text::bytes(held)),
        outcome,
        weak: true,
        ..RowText::default()
    }
}
