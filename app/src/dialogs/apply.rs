//! Continue from a snapshot.

use egui::Ui;
use snaptree_core::engine::{Command, Plan, RequestId};
use snaptree_core::snapshot::{MachineId, SnapshotId};

use super::take::{free_label, label_refused};
use super::{Foot, facts, field, refuse};
use crate::action::Action;
use crate::model::{MachineEntry, Model};
use crate::text::{self, When};

/// Which, and what happens to Now.
#[derive(Debug, Clone, PartialEq)]
pub struct Apply {
    machine: MachineId,
    snapshot: SnapshotId,
    keep_now: bool,
    safety: String,
    pub(super) plan: Option<RequestId>,
}

impl Apply {
    /// What Now holds is kept first, unless the person says otherwise.
    pub fn new(machine: &MachineEntry, snapshot: SnapshotId, when: When) -> Self {
        let label = machine.state.machine.snapshots.get(&snapshot).map_or("", |s| &s.label);
        let time = when.now.with_timezone(&when.zone).format("%-d %b %H:%M");
        let safety = free_label(machine, &format!("Before applying {label}, {time}"));
        Self { machine: machine.state.machine.id, snapshot, keep_now: true, safety, plan: None }
    }

    /// What it asks for.
    pub fn command(&self) -> Command {
        let safety = self.keep_now.then(|| self.safety.trim().to_owned());
        Command::Apply { machine: self.machine, snapshot: self.snapshot, safety }
    }

    pub(super) fn title(&self, model: &Model) -> String {
        let label = model
            .machine(Some(self.machine))
            .and_then(|m| m.state.machine.snapshots.get(&self.snapshot))
            .map(|s| s.label.clone());
        format!("Apply “{}”", label.unwrap_or_default())
    }

    pub(super) fn show(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        let Some(machine) = model.machine(Some(self.machine)) else { return };
        let Some(s) = machine.state.machine.snapshots.get(&self.snapshot) else {
            foot.label = "Apply".into();
            foot.refused = Some("This snapshot is gone.".into());
            return;
        };
        facts(ui, text::back_in_time(s, &model.when));
        ui.add_space(4.0);
        ui.checkbox(&mut self.keep_now, "Take a snapshot of Now first");
        if self.keep_now {
            field(ui, "Its label", &mut self.safety, "Before applying");
        } else {
            let held = match self.plan.and_then(|id| model.jobs.plan(id)) {
                Some(Ok(Plan::Apply { to_trash, .. })) if to_trash.0 > 0 => *to_trash,
                _ => machine.figures.now.held,
            };
            let hours = machine.state.machine.settings.trash_hours;
            facts(
                ui,
                [
                    format!("What Now holds ({}) goes to the trash, and leaves it after {hours} h.", text::bytes(held)),
                    "Undo brings it back until then.".into(),
                ],
            );
        }
        facts(ui, ["Nothing of any other branch changes.".to_owned()]);
        if machine.is_up() {
            facts(ui, ["The machine runs: it is stopped first.".to_owned()]);
        }
        foot.label = if self.keep_now { "Keep Now and apply" } else { "Apply without keeping Now" }.into();
        foot.danger = !self.keep_now;
        foot.action = Some(Action::Send(self.command()));
        refuse(foot, model, self.plan);
        if self.keep_now && foot.refused.is_none() {
            foot.refused = label_refused(machine, &self.safety, None);
        }
    }
}
