//! Delete snapshots: what comes back, when, and what it costs, before it is confirmed.

use egui::Ui;
use snaptree_core::engine::{Command, RequestId};
use snaptree_core::snapshot::{MachineId, SnapshotId};

use super::{Foot, facts, refuse};
use crate::action::Action;
use crate::model::Model;
use crate::text;
use crate::widgets::{caption, figure_line};

/// Which.
#[derive(Debug, Clone, PartialEq)]
pub struct Delete {
    machine: MachineId,
    snapshots: Vec<SnapshotId>,
    subtree: bool,
    free_now: bool,
    pub(super) plan: Option<RequestId>,
}

impl Delete {
    /// One, several, or one with all that hangs from it.
    pub fn new(machine: MachineId, snapshots: Vec<SnapshotId>, subtree: bool) -> Self {
        Self { machine, snapshots, subtree, free_now: false, plan: None }
    }

    /// What it asks for.
    pub fn command(&self) -> Command {
        Command::Delete {
            machine: self.machine,
            snapshots: self.snapshots.clone(),
            subtree: self.subtree,
            free_now: self.free_now,
        }
    }

    pub(super) fn title(&self, model: &Model) -> String {
        let Some(machine) = model.machine(Some(self.machine)) else { return "Delete".into() };
        let label = |id: &SnapshotId| machine.state.machine.snapshots.get(id).map(|s| s.label.clone()).unwrap_or_default();
        match self.snapshots.as_slice() {
            [one] if self.subtree => format!("Delete “{}” and all that hangs from it", label(one)),
            [one] => format!("Delete “{}”", label(one)),
            several => format!("Delete {} snapshots", several.len()),
        }
    }

    pub(super) fn show(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        foot.label = "Delete".into();
        foot.danger = true;
        let Some(machine) = model.machine(Some(self.machine)) else { return };
        let m = &machine.state.machine;
        let Some(cost) = machine.figures.deletion_now(&self.snapshots, self.subtree) else {
            foot.refused = Some("One of these snapshots is gone.".into());
            return;
        };
        let name = |n| crate::pages::node_name(machine, n);
        if cost.snapshots.len() > 1 {
            let labels: Vec<String> =
                cost.snapshots.iter().filter_map(|id| m.snapshots.get(id)).map(|s| s.label.clone()).collect();
            facts(ui, [format!("{} go: {}.", text::count(labels.len(), "snapshot"), text::list(&labels))]);
        }
        facts(ui, text::deletion(&cost, name, m.settings.trash_hours));
        if let Some(change) = text::reads_change(&cost) {
            facts(ui, [format!("Now, once all that is due is merged: {change}.")]);
        }
        let merges = cost.merges.merges > 0;
        let undo = match (merges, self.free_now && cost.frees.0 > 0) {
            (true, false) => "It can be undone until its merge has started, and as long as the trash isn't emptied.",
            (false, false) => "It can be undone as long as the trash isn't emptied.",
            (_, true) => "What is removed at once can't be brought back, so this can't be undone.",
        };
        facts(ui, [undo.to_owned()]);
        if cost.frees.0 > 0 {
            ui.add_space(2.0);
            ui.checkbox(&mut self.free_now, format!("Free {} at once, without the trash", text::bytes(cost.frees)));
        }
        let files = cost.disks.iter().flat_map(|d| &d.freed);
        let files: Vec<_> = files.filter_map(|i| Some((m.images.get(i)?, machine.figures.image_held(*i)))).collect();
        if !files.is_empty() {
            caption(ui, if self.free_now { "Files that are removed" } else { "Files that go to the trash" });
            for (image, held) in files.iter().take(6) {
                figure_line(ui, &image.file.display().to_string(), &text::bytes(*held), false);
            }
            if files.len() > 6 {
                ui.weak(format!("and {} more", files.len() - 6));
            }
        }
        foot.action = Some(Action::Send(self.command()));
        refuse(foot, model, self.plan);
    }
}
