//! Take a snapshot.

use egui::Ui;
use snaptree_core::engine::{Command, Plan, RequestId};
use snaptree_core::snapshot::MachineId;

use super::{Foot, facts, field, focus_first, refuse};
use crate::action::Action;
use crate::model::{MachineEntry, Model};
use crate::text::{self, When};
use crate::widgets;

/// What is typed.
#[derive(Debug, Clone, PartialEq)]
pub struct Take {
    pub machine: MachineId,
    label: String,
    note: String,
    memory: bool,
    pub(super) plan: Option<RequestId>,
}

impl Take {
    /// With a label that isn't taken yet.
    pub fn new(machine: &MachineEntry, when: When) -> Self {
        let label = free_label(machine, &when.now.with_timezone(&when.zone).format("%-d %b %H:%M").to_string());
        Self { machine: machine.state.machine.id, label, note: String::new(), memory: machine.is_up(), plan: None }
    }

    /// What it asks for.
    pub fn command(&self) -> Command {
        Command::Take { machine: self.machine, label: self.label.trim().into(), note: self.note.clone(), memory: self.memory }
    }

    pub(super) fn show(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        let Some(machine) = model.machine(Some(self.machine)) else { return };
        let name = field(ui, "Label", &mut self.label, "Before the update");
        focus_first(ui, &name, &self.label);
        field(ui, "Note", &mut self.note, "Why it is taken (may stay empty)");
        if machine.is_up() {
            ui.checkbox(&mut self.memory, "With memory, so that the machine can go on from this instant");
        }
        let mut says = Vec::new();
        if let Some(Ok(Plan::Take { depth, memory, free, pause, .. })) = self.plan.and_then(|id| model.jobs.plan(id)) {
            says.push(format!("The chain is {depth} deep afterwards, with {} free on the volume.", text::bytes(*free)));
            if self.memory && memory.0 > 0 {
                let memory = text::bytes(*memory);
                let stands_still = machine.state.outside.as_ref().and_then(|outside| outside.stands_still_to_save.as_ref());
                let about = pause.map(|pause| format!(", about {}", text::short_duration(pause))).unwrap_or_default();
                says.push(match stands_still {
                    None => format!("{memory} of memory are saved while the machine runs on."),
                    Some(why) => format!("The machine stands still while {memory} of memory are saved{about}: {why}."),
                });
            }
        }
        if !machine.is_up() {
            says.push("The machine is off: disks and configuration are kept, there is no memory to save.".into());
        } else if !self.memory {
            says.push("Disks only: applying it is like starting after a power cut.".into());
        }
        facts(ui, says);
        if self.memory
            && let Some(command) = machine.state.outside.as_ref().and_then(|outside| outside.remedy.as_ref())
        {
            widgets::remedy(ui, command);
        }
        foot.label = "Take snapshot".into();
        foot.action = Some(Action::Send(self.command()));
        refuse(foot, model, self.plan);
        if foot.refused.is_none() {
            foot.refused = label_refused(machine, &self.label, None);
        }
    }
}

/// Why a label can't be used.
pub(super) fn label_refused(machine: &MachineEntry, label: &str, own: Option<&str>) -> Option<String> {
    let label = label.trim();
    if label.is_empty() {
        return Some("A snapshot needs a label.".into());
    }
    let taken = machine.state.machine.snapshots.values().any(|s| s.label == label);
    (taken && own != Some(label)).then(|| format!("There is a snapshot called “{label}” already."))
}

/// A label like `wanted` that is free.
pub(super) fn free_label(machine: &MachineEntry, wanted: &str) -> String {
    let taken = |l: &str| machine.state.machine.snapshots.values().any(|s| s.label == l);
    if !taken(wanted) {
        return wanted.into();
    }
    (2..).map(|n| format!("{wanted} ({n})")).find(|l| !taken(l)).unwrap_or_default()
}
