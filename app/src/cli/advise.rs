//! `advise`: what somebody should look at.

use chrono::Utc;
use clap::Args;
use snaptree_core::cost::{Action, Severity};
use snaptree_core::engine::MachineState;
use snaptree_core::snapshot::{NodeRef, SnapshotId};

use super::answers::node_name;
use super::client::Client;
use super::output::{Align, Output, table};
use super::{Common, Done, json};
use crate::text;

/// Says what somebody should look at.
#[derive(Debug, Args)]
pub struct Advise {
    /// Only this machine.
    name: Option<String>,
}

pub fn run(verb: &Advise, common: &Common, output: &Output) -> Done {
    let mut client = Client::open(common)?;
    let machines = match &verb.name {
        Some(name) => vec![client.counted(name)?],
        None => {
            client.settle();
            client.all()?
        }
    };
    let now = Utc::now();
    let mut found: Vec<_> = machines.iter().flat_map(|state| state.advice(now).into_iter().map(move |f| (state, f))).collect();
    found.sort_by_key(|(_, finding)| std::cmp::Reverse(finding.severity));
    let data: Vec<json::Advice> = found
        .iter()
        .map(|(state, finding)| json::Advice {
            machine: state.machine.name.clone(),
            id: state.machine.id,
            finding: finding.clone(),
        })
        .collect();
    output.say(&data, || {
        if found.is_empty() {
            return vec!["Nothing needs you.".into()];
        }
        let columns = [("", Align::Left), ("MACHINE", Align::Left), ("FINDING", Align::Left), ("DO", Align::Left)];
        let rows: Vec<_> = found
            .iter()
            .map(|(state, finding)| {
                let severity = match finding.severity {
                    Severity::Note => "note",
                    Severity::Warning => "warning",
                    Severity::Urgent => "urgent",
                };
                let action = finding.action.as_ref().map_or_else(String::new, |action| button(action, state));
                vec![severity.to_owned(), state.machine.name.clone(), text::advice(finding, |id| label(id, state)).text, action]
            })
            .collect();
        table(&columns, &rows)
    });
    Ok(())
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
