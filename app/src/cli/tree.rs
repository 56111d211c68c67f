//! `tree`: a machine's snapshots with lanes, sizes, costs and what deleting each would do.

use std::path::{Path, PathBuf};

use clap::Args;
use snaptree_core::cost::{
    DeletionCost, MachineFacts, MergeCost, MergeMode, MergeTotal, deletion_cost, merge_orders, merges_due, node_cost,
};
use snaptree_core::engine::{MachineState, Place, look_into};
use snaptree_core::host_file::OsHost;
use snaptree_core::snapshot::{ImageId, NodeRef, Snapshot, Tree as NodeTree, TreeRow};
use snaptree_core::units::ByteCount;

use super::answers::node_name;
use super::client::Client;
use super::graph::{Lanes, lanes};
use super::output::{Align, Output, table};
use super::{Common, Done, Failure, json};
use crate::text::{bytes, count, deletion_row, estimate_long, list};

/// Shows a machine's tree, or those of a folder.
#[derive(Debug, Args)]
pub struct Tree {
    /// The machine's name or identifier.
    #[arg(required_unless_present = "folder", conflicts_with = "folder")]
    name: Option<String>,
    /// A folder of Hyper-V's, or of images, that is looked at in place. Changes nothing.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

pub fn run(verb: &Tree, common: &Common, output: &Output) -> Done {
    match (&verb.name, &verb.folder) {
        (_, Some(folder)) => of_folder(folder, output),
        (Some(name), None) => {
            let state = Client::open(common)?.counted(name)?;
            let tree = tree(&state);
            output.say(&tree.json, || tree.lines());
            Ok(())
        }
        (None, None) => Err(Failure::usage("give a machine or --folder DIR")),
    }
}

fn of_folder(folder: &Path, output: &Output) -> Done {
    let look = look_into(&OsHost::shared(), folder)?;
    let trees: Vec<Shown> = look.machines.iter().map(tree).collect();
    let facts = trees.iter().zip(&look.machines).map(|(tree, machine)| json::FolderTree {
        tree: &tree.json,
        memory: machine.machine.configuration.memory,
        processors: machine.processors,
    });
    let data = json::FolderTrees { folder: folder.to_owned(), machines: facts.collect(), problems: look.problems };
    output.say(&data, || {
        let mut lines = Vec::new();
        for (shown, facts) in trees.iter().zip(&data.machines) {
            let memory = match facts.memory {
                ByteCount::ZERO => "memory not known".into(),
                known => format!("{} of memory", bytes(known)),
            };
            let processors = facts.processors.map_or_else(String::new, |n| format!("{}, ", count(n as usize, "processor")));
            lines.push(format!("{}: {processors}{memory}", shown.json.machine));
            lines.extend(shown.lines());
            lines.push(String::new());
        }
        lines.extend(data.problems.iter().cloned());
        lines
    });
    Ok(())
}

/// A tree, ready to be shown.
pub struct Shown {
    pub json: json::Tree,
    /// Whether it runs, in words.
    state: &'static str,
    lanes: Vec<Lanes>,
    /// What deleting would do, or why a ghost is still there, row by row.
    remarks: Vec<String>,
}

/// Everything about a machine's tree.
pub fn tree(state: &MachineState) -> Shown {
    let machine = &state.machine;
    let facts = state.facts();
    let nodes = NodeTree::of(machine);
    let rows = nodes.rows();
    let merges = merges_due(&facts);
    let due: Vec<ImageId> = nodes.runs().into_iter().flat_map(|run| run.images).collect();
    let mut remarks = Vec::with_capacity(rows.len());
    let shown = rows.iter().map(|row| {
        let (json, remark) = shown_row(&facts, &nodes, row, &rows, &due);
        remarks.push(remark);
        json
    });
    let json = json::Tree {
        machine: machine.name.clone(),
        id: machine.id,
        power: json::power(&state.power),
        generation: machine.generation,
        rows: shown.collect(),
        merges_due: MergeTotal::of(&facts, &merges),
        merges: merges.iter().map(|merge| self::due(&facts, merge)).collect(),
        past_error: json::PastErrors {
            stopped: facts.calibration.past_error(MergeMode::Stopped),
            live: facts.calibration.past_error(MergeMode::Live),
        },
        trash: machine.trash.iter().map(|item| item.held).sum(),
    };
    // Whether another program runs it can't be seen from its files.
    let state = if let Place::Folder(_) = state.place { "looked at in place" } else { json.power };
    Shown { json, state, lanes: lanes(&rows), remarks }
}

fn due(facts: &MachineFacts<'_>, merge: &MergeCost) -> json::Due {
    json::Due {
        disk: merge.disk.0.clone(),
        bytes: merge.bytes.data,
        scratch: merge.scratch,
        fits: merge.fits,
        comes_back: merge.comes_back,
        seconds: merge.time,
        orders: facts.census.get(&merge.disk).and_then(|census| merge_orders(census, &merge.run)),
    }
}

fn shown_row(
    facts: &MachineFacts<'_>,
    nodes: &NodeTree<'_>,
    row: &TreeRow,
    rows: &[TreeRow],
    due: &[ImageId],
) -> (json::Row, String) {
    let machine = facts.machine;
    let cost = node_cost(facts, row.node, &[]).unwrap_or_default();
    let id = match row.node {
        NodeRef::Snapshot(id) | NodeRef::Ghost(id) => Some(id),
        NodeRef::Now => None,
    };
    let parent = row.parent.and_then(|parent| match rows[parent].node {
        NodeRef::Snapshot(id) | NodeRef::Ghost(id) => Some(id),
        NodeRef::Now => None,
    });
    let ghost = id.and_then(|id| machine.ghosts.get(&id)).filter(|_| matches!(row.node, NodeRef::Ghost(_)));
    let snapshot: Option<&Snapshot> = match row.node {
        NodeRef::Snapshot(id) => machine.snapshots.get(&id),
        _ => ghost.map(|g| &g.snapshot),
    };
    let mut json = json::Row {
        node: match row.node {
            NodeRef::Snapshot(_) => "snapshot",
            NodeRef::Ghost(_) => "ghost",
            NodeRef::Now => "now",
        },
        id,
        label: snapshot.map_or_else(|| "Now".into(), |s| s.label.clone()),
        note: snapshot.map_or_else(String::new, |s| s.note.clone()),
        parent,
        on_path: row.on_path,
        taken: snapshot.map(|s| s.taken),
        held: cost.held,
        depth: cost.depth,
        read_mean: cost.read_mean,
        read_p95: cost.read_p95,
        first_write: cost.first_write,
        memory: snapshot.and_then(|s| s.memory.as_ref()).map(|m| m.held),
        protected: snapshot.is_some_and(|s| s.protected),
        deletion: None,
        ghost: None,
    };
    let remark = match (row.node, ghost) {
        (NodeRef::Now, _) => "you are here".into(),
        (_, Some(ghost)) => {
            let images: Vec<ImageId> =
                ghost.snapshot.images.values().copied().filter(|image| machine.images.contains_key(image)).collect();
            json.held = images.iter().map(|image| facts.held(*image)).sum();
            let merge_due = images.iter().any(|image| due.contains(image));
            let mut held_by: Vec<String> = images
                .iter()
                .flat_map(|image| nodes.readers(*image))
                .flat_map(|reader| reader.nodes)
                .map(|node| node_name(node, Some(machine)))
                .collect();
            held_by.sort();
            held_by.dedup();
            let why = if merge_due { "merge due".into() } else { format!("held by {}", list(&held_by)) };
            json.ghost = Some(json::Ghost { deleted: ghost.deleted, merge_due, held_by });
            format!("deleted, {} still held, {why}", bytes(json.held))
        }
        (NodeRef::Snapshot(id), None) => match deletion_cost(facts, &[id], false) {
            Some(cost) => {
                json.deletion = Some(deletion(&cost));
                deletion_row(&cost, json.protected, 0).text
            }
            None => String::new(),
        },
        (NodeRef::Ghost(_), None) => String::new(),
    };
    (json, remark)
}

fn deletion(cost: &DeletionCost) -> json::Deletion {
    json::Deletion {
        frees: cost.frees,
        moves: cost.merges.data,
        comes_back: cost.merges.comes_back,
        scratch: cost.merges.scratch,
        retained: cost.retained,
        seconds: cost.merges.time,
    }
}

impl Shown {
    /// In columns, for people.
    pub fn lines(&self) -> Vec<String> {
        let columns = [
            ("SNAPSHOT", Align::Left),
            ("TAKEN (UTC)", Align::Left),
            ("HELD", Align::Right),
            ("DEPTH", Align::Right),
            ("IMAGES/READ", Align::Right),
            ("95 %", Align::Right),
            ("FIRST WRITE", Align::Right),
            ("DELETING IT", Align::Left),
        ];
        let mut cells = Vec::new();
        for ((row, lanes), remark) in self.json.rows.iter().zip(&self.lanes).zip(&self.remarks) {
            cells.extend(lanes.before.iter().map(|lane| vec![lane.clone()]));
            let memory = if row.memory.is_some() && row.node == "snapshot" { " [memory]" } else { "" };
            cells.push(vec![
                format!("{} {}{memory}", lanes.row, row.label),
                row.taken.map_or_else(String::new, |taken| taken.format("%Y-%m-%d %H:%M").to_string()),
                bytes(row.held),
                row.depth.to_string(),
                row.read_mean.map_or_else(|| "-".into(), |mean| format!("{mean:.1}")),
                row.read_p95.map_or_else(|| "-".into(), |images| images.to_string()),
                row.first_write.map_or_else(|| "-".into(), |share| format!("{:.0} %", share * 100.0)),
                remark.clone(),
            ]);
        }
        let mut lines = table(&columns, &cells);
        let held: ByteCount = self.json.rows.iter().filter(|row| row.node != "now").map(|row| row.held).sum();
        let mut foot = format!("{} is {}. Snapshots hold {}", self.json.machine, self.state, bytes(held));
        if self.json.trash > ByteCount::ZERO {
            foot += &format!(", the trash {}", bytes(self.json.trash));
        }
        foot.push('.');
        lines.push(foot);
        let due = &self.json.merges_due;
        if due.merges > 0 {
            lines.push(format!(
                "Due: {}, {} to move, {}; {} come back.",
                count(due.merges as usize, "merge"),
                bytes(due.data),
                estimate_long(due.time),
                bytes(due.comes_back)
            ));
        }
        for merge in &self.json.merges {
            let Some(orders) = &merge.orders else { continue };
            lines.push(format!(
                "{}: {} in one pass; newest first would move {}, oldest first {}.",
                merge.disk,
                bytes(merge.bytes),
                bytes(orders.newest_first),
                bytes(orders.oldest_first)
            ));
        }
        let past = [("stopped", &self.json.past_error.stopped), ("live", &self.json.past_error.live)];
        for (mode, past) in past.iter().filter_map(|(mode, past)| Some((mode, past.as_ref()?))) {
            let merges = count(past.merges as usize, "merge");
            lines.push(format!("Past estimates ({mode}) were off by {:.0} %, the median of {merges}.", past.median * 100.0));
        }
        lines
    }
}
