//! Answers and plans, in words and as data.

use snaptree_core::cost::{DeletionCost, MergeCost, MergeTotal};
use snaptree_core::engine::{Answer, LatencyReport, Plan};
use snaptree_core::snapshot::{Machine, NodeRef};
use snaptree_core::units::ByteCount;
use snaptree_core::vm::VerifyReport;

use super::output::Output;
use super::words::{bytes, count, estimate, estimate_long, list, short_duration};
use super::{Done, Failure, json};

/// Says an answer. `machine` gives nodes their labels.
pub fn answer(output: &Output, machine: Option<&Machine>, answer: &Answer) -> Done {
    match answer {
        Answer::Done(text) => output.say(&json::Done { done: text.clone() }, || vec![sentence(text)]),
        Answer::Plan(plan) => output.say(&json::Planned { plan }, || lines(plan, machine)),
        Answer::Taken { snapshot, latency } => {
            output.say(&json::Taken { snapshot: *snapshot, latency: latency.as_ref().map(json::Latency::of) }, || {
                let mut lines = vec![format!("Taken: {snapshot}")];
                lines.extend(latency.as_ref().map(latency_line));
                lines
            });
        }
        Answer::Created(id) => output.say(&json::Created { machine: *id }, || vec![format!("Created: {id}")]),
        Answer::Verified(report) => return verified(output, report),
    }
    Ok(())
}

/// What taking cost the running machine.
fn latency_line(l: &LatencyReport) -> String {
    if l.memory == ByteCount::ZERO {
        return format!("The machine stood still for {}.", short_duration(l.pause));
    }
    format!(
        "The machine stood still for {}; saving {} of memory took {}, {} waited, {} at most.",
        short_duration(l.pause),
        bytes(l.memory),
        short_duration(l.save),
        count(usize::try_from(l.intercepted_writes).unwrap_or(usize::MAX), "write"),
        short_duration(l.longest_stall),
    )
}

fn verified(output: &Output, report: &VerifyReport) -> Done {
    output.say(report, || {
        let mut lines = vec![format!("Verified {} of disk and {} of memory.", bytes(report.disk), bytes(report.memory))];
        lines.extend(report.wrong.iter().map(|wrong| format!("wrong: {wrong}")));
        lines
    });
    match report.wrong.len() {
        0 => Ok(()),
        n => Err(Failure::failed(format!("{} found wrong", count(n, "place")))),
    }
}

/// A plan, one fact a line.
pub fn lines(plan: &Plan, machine: Option<&Machine>) -> Vec<String> {
    match plan {
        Plan::Take { images, depth, memory, free } => {
            let memory = match *memory {
                ByteCount::ZERO => "no memory is saved".into(),
                memory => format!("{} of memory are saved", bytes(memory)),
            };
            vec![format!("{}, chains of {depth}; {memory}; {} are free.", count(*images as usize, "new image"), bytes(*free))]
        }
        Plan::Apply { to_trash, memory } => {
            let mut lines = vec![if *memory {
                "The machine goes on at that instant, with its memory.".to_owned()
            } else {
                "Disks only: the machine is off, and starts as after a power cut.".to_owned()
            }];
            if *to_trash > ByteCount::ZERO {
                lines.push(format!("What Now holds, {}, goes to the trash.", bytes(*to_trash)));
            }
            lines
        }
        Plan::Delete(cost) => deletion(cost, machine),
        Plan::Merge { merges, total } => merge(merges, total),
        Plan::EmptyTrash { files: 0, .. } => vec!["The trash is empty.".into()],
        Plan::EmptyTrash { files, held } => {
            vec![format!("{} are removed for good, {} come back.", count(*files as usize, "file"), bytes(*held))]
        }
        Plan::Remove { folder: Some(folder), held } => {
            vec![format!("{} is deleted with all that is in it, {} come back.", folder.display(), bytes(*held))]
        }
        Plan::Remove { folder: None, .. } => vec!["The machine is forgotten; its files stay.".into()],
        Plan::Other => vec!["Nothing stands against it.".into()],
    }
}

fn merge(merges: &[MergeCost], total: &MergeTotal) -> Vec<String> {
    if merges.is_empty() {
        return vec!["No merge is due.".into()];
    }
    let line = |m: &MergeCost| {
        let fits = if m.fits { "" } else { ", which doesn't fit" };
        format!(
            "{}: {} images into 1, {} to move, {}, {} of scratch{fits}, {} come back",
            m.disk,
            m.run.len(),
            bytes(m.bytes.data),
            estimate(m.time),
            bytes(m.scratch),
            bytes(m.comes_back)
        )
    };
    let mut lines: Vec<String> = merges.iter().map(line).collect();
    lines.push(format!(
        "{}: {} to move, {}, {} come back.",
        count(merges.len(), "merge"),
        bytes(total.data),
        estimate_long(total.time),
        bytes(total.comes_back)
    ));
    lines
}

/// What a deletion leads to, one fact a line.
fn deletion(cost: &DeletionCost, machine: Option<&Machine>) -> Vec<String> {
    let mut lines = Vec::new();
    let names: Vec<String> = cost.snapshots.iter().map(|id| node_name(NodeRef::Snapshot(*id), machine)).collect();
    lines.push(format!("Deletes {}.", list(&names)));
    if cost.frees > ByteCount::ZERO {
        lines.push(format!("Frees {} when the trash is emptied.", bytes(cost.frees)));
    }
    if cost.merges.merges > 0 {
        lines.push(format!(
            "{} due: {} to move, {}, {} of scratch; {} come back.",
            match cost.merges.merges {
                1 => "1 merge becomes".into(),
                n => format!("{n} merges become"),
            },
            bytes(cost.merges.data),
            estimate_long(cost.merges.time),
            bytes(cost.merges.scratch),
            bytes(cost.merges.comes_back)
        ));
    }
    for kept in cost.disks.iter().flat_map(|disk| &disk.retained) {
        let by: Vec<String> = kept.by.iter().map(|node| node_name(*node, machine)).collect();
        lines.push(format!("{} stay: held by {}.", bytes(kept.held), list(&by)));
    }
    if cost.disks.iter().any(|disk| disk.uncounted) {
        lines.push("A disk is still being counted, so the bytes of its merge aren't known yet.".into());
    }
    if let (Some(before), Some(after)) = (cost.before.read_mean, cost.after.read_mean)
        && (before - after).abs() >= 0.05
    {
        let (deep, then) = (cost.before.depth, cost.after.depth);
        lines.push(format!("Now then has a depth of {then} (now {deep}) and reads {after:.1} images (now {before:.1})."));
    }
    lines
}

/// What deleting one snapshot would do, for a row of the tree.
pub fn deletion_short(cost: &DeletionCost) -> String {
    let retained: usize = cost.disks.iter().flat_map(|disk| &disk.retained).map(|r| r.by.len()).max().unwrap_or(0);
    if cost.disks.iter().any(|disk| disk.uncounted) {
        "merges, still being counted".into()
    } else if cost.merges.merges > 0 {
        format!("merges {}, {}", bytes(cost.merges.data), estimate(cost.merges.time))
    } else if retained > 0 {
        format!("frees nothing: {} hold it", count(retained, "branch").replace("branchs", "branches"))
    } else {
        format!("frees {}", bytes(cost.frees))
    }
}

/// A node as people know it.
pub fn node_name(node: NodeRef, machine: Option<&Machine>) -> String {
    let label = match node {
        NodeRef::Now => return "Now".into(),
        NodeRef::Snapshot(id) => machine.and_then(|m| m.snapshots.get(&id)).map(|s| s.label.clone()),
        NodeRef::Ghost(id) => machine.and_then(|m| m.ghosts.get(&id)).map(|g| format!("{} (deleted)", g.snapshot.label)),
    };
    label.unwrap_or_else(|| match node {
        NodeRef::Snapshot(id) | NodeRef::Ghost(id) => id.to_string(),
        NodeRef::Now => "Now".into(),
    })
}

/// "it runs" as a sentence.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return String::new() };
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    first.to_uppercase().chain(chars).collect::<String>() + end
}
