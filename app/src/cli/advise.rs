//! `advise`: what somebody should look at, and what is safe to delete.

use std::cmp::Reverse;

use clap::Args;
use snaptree_core::cost::{Action, Finding, SafeDeletion, Severity, safe_to_delete};
use snaptree_core::engine::{Expected, MachineState, Place, PlanState};
use snaptree_core::snapshot::{MachineId, NodeRef, SnapshotId};
use snaptree_core::window::{PlanAction, PlanFinding, PlanFindingKind};

use super::answers::node_name;
use super::client::Client;
use super::output::{Align, Output, table};
use super::plan::{Known, now};
use super::{Common, Done, json};
use crate::text::When;
use crate::text::plan as words;
use crate::{export, text};

/// Says what somebody should look at, and what is safe to delete right now.
#[derive(Debug, Args)]
pub struct Advise {
    /// Only this machine.
    name: Option<String>,
}

pub fn run(verb: &Advise, common: &Common, output: &Output) -> Done {
    let mut client = Client::open(common)?;
    let plan = client.plan()?;
    let known = Known::of(&mut client)?;
    let machines = match &verb.name {
        Some(name) => vec![client.counted(name)?],
        None => client.all()?,
    };
    let (names, when) = (|id| known.name(id), now());
    let only = verb.name.as_ref().and(machines.first()).map(|state| (state.machine.id, state.volume.id.clone()));
    let plan = match &only {
        Some((machine, volume)) => about(&plan, *machine, volume),
        None => (*plan).clone(),
    };
    let mut found: Vec<Found> = plan_findings(&plan, &names, &when);
    found.extend(machines.iter().flat_map(|state| machine_findings(state, &when)));
    found.sort_by_key(|found| Reverse(found.data.severity));
    let safe: Vec<Found> = machines.iter().flat_map(|state| safe(state)).collect();
    let data: Vec<&json::Advice> = found.iter().chain(&safe).map(|found| &found.data).collect();
    output.say(&data, || {
        let columns = [("", Align::Left), ("MACHINE", Align::Left), ("FINDING", Align::Left), ("DO", Align::Left)];
        let row = |found: &Found| {
            let machine = found.data.machine.clone().unwrap_or_default();
            vec![said(found.data.severity).to_owned(), machine, found.text.clone(), found.verb.clone()]
        };
        let mut lines = match found.is_empty() {
            true => vec!["Nothing needs you.".to_owned()],
            false => table(&columns, &found.iter().map(row).collect::<Vec<_>>()),
        };
        lines.push(String::new());
        if safe.is_empty() {
            lines.push("No snapshot is safe to delete right now.".into());
            return lines;
        }
        lines.push(
            "Safe to delete right now: nothing reads through them, and until the trash is emptied it can be undone.".into(),
        );
        let columns = [("MACHINE", Align::Left), ("SNAPSHOT", Align::Left), ("DO", Align::Left)];
        let row = |found: &Found| vec![found.data.machine.clone().unwrap_or_default(), found.text.clone(), found.verb.clone()];
        lines.extend(table(&columns, &safe.iter().map(row).collect::<Vec<_>>()));
        lines
    });
    Ok(())
}

/// A finding as data, in words beside its machine's name, and the verb that does something about it.
struct Found {
    data: json::Advice,
    text: String,
    verb: String,
}

fn said(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Urgent => "urgent",
    }
}

fn plan_findings(plan: &PlanState, names: words::Names<'_>, when: &When) -> Vec<Found> {
    let finding = |found: &PlanFinding| {
        let text = words::finding(found, plan, names, when).text;
        let id = machine_of(&found.kind);
        let data = json::Advice {
            machine: id.map(names),
            id,
            severity: found.severity,
            kind: json::AdviceKind::Plan(found.kind.clone()),
            action: Some(json::AdviceAction::Plan(found.action)),
            sentence: format!("{text}."),
        };
        Found { data, text, verb: plan_verb(found.action, names) }
    };
    let missed = |missed: &Expected| {
        let text = words::missed(missed, plan, names, when);
        let data = json::Advice {
            machine: Some(names(missed.machine)),
            id: Some(missed.machine),
            severity: Severity::Warning,
            kind: json::AdviceKind::Other(json::OtherKind::MissedWindow(export::json::missed(missed, plan, names))),
            action: Some(json::AdviceAction::Plan(PlanAction::MergeNow(missed.machine))),
            sentence: format!("{text}."),
        };
        Found { data, text, verb: plan_verb(PlanAction::MergeNow(missed.machine), names) }
    };
    plan.findings.iter().map(finding).chain(plan.agent.missed.iter().map(missed)).collect()
}

fn machine_findings(state: &MachineState, when: &When) -> Vec<Found> {
    let name = &state.machine.name;
    let finding = |found: Finding| {
        let text = text::advice(&found, |id| label(id, state)).text;
        let verb = found.action.as_ref().map_or_else(String::new, |action| button(action, state));
        let data = json::Advice {
            machine: Some(name.clone()),
            id: Some(state.machine.id),
            severity: found.severity,
            kind: json::AdviceKind::Machine(found.kind),
            action: found.action.map(json::AdviceAction::Machine),
            sentence: format!("{name} {text}."),
        };
        Found { data, text, verb }
    };
    state.advice(when.now).into_iter().map(finding).collect()
}

/// What of a machine is safe to delete right now.
fn safe(state: &MachineState) -> Vec<Found> {
    if state.place != Place::Library {
        return Vec::new();
    }
    let name = &state.machine.name;
    let one = |deletion: SafeDeletion| {
        let label = label(deletion.snapshot, state);
        let action = Action::Delete(vec![deletion.snapshot]);
        let verb = button(&action, state);
        let text = format!("{label}, frees {}", text::bytes(deletion.frees));
        let kind = json::OtherKind::SafeToDelete { snapshot: deletion.snapshot, label: label.clone(), frees: deletion.frees };
        let data = json::Advice {
            machine: Some(name.clone()),
            id: Some(state.machine.id),
            severity: Severity::Note,
            kind: json::AdviceKind::Other(kind),
            action: Some(json::AdviceAction::Machine(action)),
            sentence: format!("{label} of {name} is safe to delete right now: {} come back.", text::bytes(deletion.frees)),
        };
        Found { data, text, verb }
    };
    safe_to_delete(&state.facts()).into_iter().map(one).collect()
}

/// The machine that a finding is about.
fn machine_of(kind: &PlanFindingKind) -> Option<MachineId> {
    match kind {
        PlanFindingKind::VolumeFills { .. } => None,
        PlanFindingKind::NoWindowFits { machine, .. }
        | PlanFindingKind::WontFit { machine, .. }
        | PlanFindingKind::MissesDeadline { machine, .. } => Some(*machine),
    }
}

/// Of the plan, what is about one machine or its volume.
fn about(plan: &PlanState, machine: MachineId, volume: &str) -> PlanState {
    let is_about = |kind: &PlanFindingKind| match kind {
        PlanFindingKind::VolumeFills { volume: of, .. } => of == volume,
        _ => machine_of(kind) == Some(machine),
    };
    let mut plan = plan.clone();
    plan.findings.retain(|finding| is_about(&finding.kind));
    plan.agent.missed.retain(|missed| missed.machine == machine);
    plan
}

/// The verb that does what the plan asks for.
fn plan_verb(action: PlanAction, names: words::Names<'_>) -> String {
    match action {
        PlanAction::ShowPlan => "plan".into(),
        PlanAction::MergeNow(machine) => format!("merge {}", quoted(&names(machine))),
        PlanAction::AddWindow(machine) => format!("window add NAME --machine {}", quoted(&names(machine))),
        // What is safe to delete stands below.
        PlanAction::FreeSpace => "trash empty NAME".into(),
    }
}

fn label(id: SnapshotId, state: &MachineState) -> String {
    node_name(NodeRef::Snapshot(id), Some(&state.machine))
}

/// The verb that does it.
fn button(action: &Action, state: &MachineState) -> String {
    let name = quoted(&state.machine.name);
    match action {
        Action::Merge => format!("merge {name}"),
        Action::Delete(snapshots) => {
            let labels: Vec<String> = snapshots.iter().map(|id| quoted(&label(*id, state))).collect();
            format!("snapshot delete {name} {}", labels.join(" "))
        }
        Action::Show(_) => format!("tree {name}"),
        Action::EmptyTrash => format!("trash empty {name}"),
    }
}

/// As a shell takes it as one word.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
