//! Another label; a note.

use egui::{TextEdit, Ui};
use snaptree_core::engine::Command;
use snaptree_core::snapshot::{MachineId, SnapshotId};

use super::take::label_refused;
use super::{Foot, field, focus_first};
use crate::action::Action;
use crate::model::{MachineEntry, Model};

/// Another label.
#[derive(Debug, Clone, PartialEq)]
pub struct Rename {
    machine: MachineId,
    snapshot: SnapshotId,
    label: String,
}

impl Rename {
    /// Starts from the label that it has.
    pub fn new(machine: &MachineEntry, snapshot: SnapshotId) -> Self {
        let label = machine.state.machine.snapshots.get(&snapshot).map(|s| s.label.clone()).unwrap_or_default();
        Self { machine: machine.state.machine.id, snapshot, label }
    }

    pub(super) fn show(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        let response = field(ui, "Label", &mut self.label, "");
        focus_first(ui, &response, &self.label);
        let Some(machine) = model.machine(Some(self.machine)) else { return };
        let own = machine.state.machine.snapshots.get(&self.snapshot).map(|s| s.label.as_str());
        foot.label = "Rename".into();
        foot.refused = label_refused(machine, &self.label, own);
        let label = self.label.trim().to_owned();
        foot.action = Some(Action::Send(Command::Rename { machine: self.machine, snapshot: self.snapshot, label }));
    }
}

/// A note.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    machine: MachineId,
    snapshot: SnapshotId,
    note: String,
}

impl Note {
    /// Starts from the note that it has.
    pub fn new(machine: &MachineEntry, snapshot: SnapshotId) -> Self {
        let note = machine.state.machine.snapshots.get(&snapshot).map(|s| s.note.clone()).unwrap_or_default();
        Self { machine: machine.state.machine.id, snapshot, note }
    }

    pub(super) fn show(&mut self, ui: &mut Ui, foot: &mut Foot) {
        let edit = TextEdit::multiline(&mut self.note).desired_rows(5).desired_width(f32::INFINITY).margin(egui::vec2(8.0, 6.0));
        let response = ui.add(edit).accessible_name("Note");
        focus_first(ui, &response, "");
        foot.label = "Keep the note".into();
        foot.action =
            Some(Action::Send(Command::SetNote { machine: self.machine, snapshot: self.snapshot, note: self.note.clone() }));
    }
}
