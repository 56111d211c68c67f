//! Answers and plans, in words and as data.

use std::time::Duration;

use snaptree_core::cost::{DeletionCost, MergeCost, MergeTotal};
use snaptree_core::engine::{Answer, LatencyReport, Plan};
use snaptree_core::snapshot::{Machine, NodeRef, Settings};
use snaptree_core::units::ByteCount;
use snaptree_core::vm::VerifyReport;

use super::output::Output;
use super::{Done, Failure, json};
use crate::model::Node;
use crate::text::{self, bytes, count, estimate, estimate_long, list, short_duration};

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
        // Only the window asks for it.
        Answer::Diagnosed(found) => output.say(found, || found.images.iter().map(|i| i.path.display().to_string()).collect()),
        Answer::RepairPlanned(view) => output.say(view, || view.plan.steps.iter().map(|step| step.words.clone()).collect()),
        Answer::Inspected(seen) => output.say(seen, || seen.images.iter().map(|i| i.path.display().to_string()).collect()),
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

/// What is said before a machine's memory is saved that can't be while it runs.
pub fn stands_still(pause: Duration, remedy: Option<&str>) -> Vec<String> {
    let about = short_duration(pause);
    let still = format!("It stands still for about {about}: its writes can't be tracked here while its memory is saved.");
    std::iter::once(still).chain(remedy.map(text::remedy)).collect()
}

/// A plan, one fact a line.
pub fn lines(plan: &Plan, machine: Option<&Machine>) -> Vec<String> {
    match plan {
        Plan::Take { images, depth, memory, free, pause, remedy } => {
            let memory = match *memory {
                ByteCount::ZERO => "no memory is saved".into(),
                memory => format!("{} of memory are saved", bytes(memory)),
            };
            let images = count(*images as usize, "new image");
            let mut lines = vec![format!("{images}, chains of {depth}; {memory}; {} are free.", bytes(*free))];
            lines.extend(pause.iter().flat_map(|pause| stands_still(*pause, remedy.as_deref())));
            lines
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
            let are = if *files == 1 { "is" } else { "are" };
            vec![format!("{} {are} removed for good, {} come back.", count(*files as usize, "file"), bytes(*held))]
        }
        Plan::Remove { folder: Some(folder), held } => {
            vec![format!("{} is deleted with all that is in it, {} come back.", folder.display(), bytes(*held))]
        }
        Plan::Remove { folder: None, .. } => vec!["The machine is forgotten; its files stay.".into()],
        Plan::Convert { most } => vec![format!("Up to {} are written.", bytes(*most))],
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
            estimate(m.time).unwrap_or_else(|| "time not known yet".into()),
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
    let names: Vec<String> = cost.snapshots.iter().map(|id| node_name(NodeRef::Snapshot(*id), machine)).collect();
    let trash_hours = machine.map_or_else(Settings::default, |m| m.settings.clone()).trash_hours;
    let mut lines = vec![format!("Deletes {}.", list(&names))];
    let name = |node: Node| machine.map_or_else(|| "another branch".into(), |m| node_name(node.in_core(m), machine));
    lines.extend(text::deletion(cost, name, trash_hours));
    lines.extend(text::reads_change(cost).map(|change| format!("Afterwards Now has {change}.")));
    lines
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
