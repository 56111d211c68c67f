//! Merge what is due; empty the trash; remove a machine.

use egui::Ui;
use snaptree_core::cost::{MergeOrders, merge_orders};
use snaptree_core::engine::{Command, Plan, RequestId};
use snaptree_core::snapshot::MachineId;
use snaptree_core::units::{ByteCount, ByteRate};

use super::{Foot, facts, refuse};
use crate::action::Action;
use crate::model::{MachineEntry, Model};
use crate::text;
use crate::widgets::{caption, figure_line, whole_number};

/// Merge all that is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Merge {
    pub machine: MachineId,
    limited: bool,
    limit_mib: u32,
    /// What other orders would move, of the longest run.
    orders: Option<MergeOrders>,
    pub(super) plan: Option<RequestId>,
}

/// Other orders are told of runs from three images on (of two there is but one), and no longer ones than this.
const ORDERS_OF: std::ops::RangeInclusive<usize> = 3..=100;

impl Merge {
    /// Without a limit.
    pub fn new(entry: &MachineEntry) -> Self {
        let longest = entry.figures.due.iter().max_by_key(|merge| merge.run.len());
        let orders = longest.filter(|merge| ORDERS_OF.contains(&merge.run.len())).and_then(|merge| {
            let census = entry.state.census.get(&merge.disk)?;
            merge_orders(census, &merge.run)
        });
        Self { machine: entry.state.machine.id, limited: false, limit_mib: 50, orders, plan: None }
    }

    /// What it asks for.
    pub fn command(&self) -> Command {
        let limit = self.limited.then(|| ByteRate(ByteCount::mib(u64::from(self.limit_mib)).0 as f64));
        Command::Merge { machine: self.machine, disk: None, limit, until: None }
    }

    pub(super) fn show(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        foot.label = "Merge".into();
        let Some(machine) = model.machine(Some(self.machine)) else { return };
        let planned = match self.plan.and_then(|id| model.jobs.plan(id)) {
            Some(Ok(Plan::Merge { merges, total })) => Some((merges, total)),
            _ => None,
        };
        let (merges, total) = planned.unwrap_or((&machine.figures.due, &machine.figures.due_total));
        let guest = text::plan::live(total.time, total.idle_time).map(|part| format!(": {part}")).unwrap_or_default();
        facts(
            ui,
            [
                format!("{}, {}{guest}.", text::sentence(text::to_move(total.data)), text::estimate_long(total.time)),
                format!(
                    "{} of scratch at a time, with {} free. {} come back at the end.",
                    if total.scratch == ByteCount::ZERO { "Nothing".into() } else { text::bytes(total.scratch) },
                    text::bytes(machine.state.volume.free),
                    text::bytes(total.comes_back)
                ),
                "It can be paused, cancelled or interrupted at any time: what is moved stays moved, and the rest goes on later."
                    .into(),
                "From its start on, the deletions behind it can't be undone any more.".into(),
            ],
        );
        if self.limited {
            let seconds = total.data.0 as f64 / ByteCount::mib(u64::from(self.limit_mib.max(1))).0 as f64;
            let least = text::duration(std::time::Duration::from_secs_f64(seconds));
            facts(ui, [format!("At that limit it takes {least} at least.")]);
        }
        if total.zero.0 > 0 {
            facts(ui, [format!("Besides, {} of zeros are written.", text::bytes(total.zero))]);
        }
        caption(ui, "Disk by disk");
        let m = &machine.state.machine;
        for merge in merges.iter().take(8) {
            let into = m.images.get(&merge.target).map(|i| i.file.file_name().unwrap_or_default().to_string_lossy().into_owned());
            let left = format!("{}: {} images into {}", merge.disk, merge.run.len(), into.unwrap_or_default());
            let response = figure_line(ui, &left, &text::bytes(merge.bytes.data), false);
            let files = merge.run.iter().filter_map(|i| m.images.get(i)).map(|i| i.file.display().to_string());
            response.on_hover_text(files.collect::<Vec<_>>().join("\n"));
        }
        if let Some(orders) = &self.orders {
            caption(ui, "In which order");
            figure_line(ui, "All in one pass, as here", &text::bytes(orders.one_pass), false);
            figure_line(ui, "One by one, the oldest first", &text::bytes(orders.oldest_first), true);
            figure_line(ui, "One by one, the newest first", &text::bytes(orders.newest_first), true);
            ui.add_space(4.0);
            facts(ui, [text::orders(orders)]);
        }
        ui.add_space(4.0);
        ui.horizontal(|ui| {
            ui.checkbox(&mut self.limited, "At most");
            ui.add_enabled(self.limited, whole_number(&mut self.limit_mib, 1..=10_000, 1, " MiB/s"));
        });
        foot.action = Some(Action::Send(self.command()));
        refuse(foot, model, self.plan);
    }
}

/// A dialog with nothing to choose.
#[derive(Debug, Clone, PartialEq)]
pub struct Plain {
    pub machine: MachineId,
    pub(super) plan: Option<RequestId>,
}

impl Plain {
    /// About a machine.
    pub fn new(machine: MachineId) -> Self {
        Self { machine, plan: None }
    }

    pub(super) fn show_trash(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        foot.label = "Empty the trash".into();
        foot.danger = true;
        let Some(machine) = model.machine(Some(self.machine)) else { return };
        let m = &machine.state.machine;
        facts(
            ui,
            [
                format!("{} come back at once, of {}.", text::bytes(machine.figures.trash), text::count(m.trash.len(), "file")),
                "The deletions and applies that put them there can't be undone any more.".into(),
            ],
        );
        caption(ui, "Files");
        for item in m.trash.iter().take(8) {
            figure_line(ui, &item.original.display().to_string(), &text::bytes(item.held), false);
        }
        if m.trash.len() > 8 {
            ui.weak(format!("and {} more", m.trash.len() - 8));
        }
        foot.action = Some(Action::Send(Command::EmptyTrash { machine: self.machine, all: true }));
        refuse(foot, model, self.plan);
    }
}

/// Turn a machine off without asking its operating system.
pub(super) fn turn_off(ui: &mut Ui, machine: MachineId, foot: &mut Foot) {
    facts(
        ui,
        [
            "Its operating system isn't asked: what it has not written yet is lost, as after a power cut.".to_owned(),
            "What it has written is flushed, and no snapshot changes.".into(),
        ],
    );
    (foot.label, foot.danger) = ("Turn off".into(), true);
    foot.action = Some(Action::Send(Command::TurnOff(machine)));
}

/// Forget a machine, or delete its files too.
#[derive(Debug, Clone, PartialEq)]
pub struct Remove {
    pub machine: MachineId,
    delete_files: bool,
    pub(super) plan: Option<RequestId>,
}

impl Remove {
    /// Forgets only, unless the person says otherwise.
    pub fn new(machine: MachineId) -> Self {
        Self { machine, delete_files: false, plan: None }
    }

    /// What it asks for.
    pub fn command(&self) -> Command {
        Command::Remove { machine: self.machine, delete_files: self.delete_files }
    }

    pub(super) fn show(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        let Some(machine) = model.machine(Some(self.machine)) else { return };
        let folder = machine.state.folder.display().to_string();
        let all = machine.figures.held + machine.figures.trash;
        ui.radio_value(&mut self.delete_files, false, "Forget it, and leave its files");
        ui.radio_value(&mut self.delete_files, true, "Delete its files too");
        ui.add_space(4.0);
        if self.delete_files {
            let says = format!(
                "{} with all {} and {} are removed.",
                folder,
                text::count(machine.tree.snapshots(), "snapshot"),
                text::bytes(all)
            );
            facts(ui, [says, "This can't be undone.".into()]);
        } else {
            facts(ui, [format!("{folder} stays as it is, with {}. It can be opened again.", text::bytes(all))]);
        }
        foot.label = if self.delete_files { "Delete its files" } else { "Forget it" }.into();
        foot.danger = self.delete_files;
        foot.action = Some(Action::Send(self.command()));
        refuse(foot, model, self.plan);
    }
}
