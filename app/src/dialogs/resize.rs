//! A larger disk.

use egui::{ComboBox, Ui};
use snaptree_core::engine::Command;
use snaptree_core::snapshot::{Context, DiskId, MachineId, rules};
use snaptree_core::units::ByteCount;

use super::{Foot, facts};
use crate::action::Action;
use crate::model::{MachineEntry, Model};
use crate::text;
use crate::widgets::whole_number;

/// Which disk, and its new size.
#[derive(Debug, Clone, PartialEq)]
pub struct Resize {
    pub(super) machine: MachineId,
    disk: DiskId,
    size_mib: u64,
}

const MIB: u64 = 1 << 20;

impl Resize {
    /// Starts with the first disk, and the size that it has.
    pub fn new(entry: &MachineEntry) -> Option<Self> {
        let machine = &entry.state.machine;
        let first = machine.configuration.disks.first()?;
        Some(Self { machine: machine.id, disk: first.id.clone(), size_mib: first.size.0.div_ceil(MIB) })
    }

    pub(super) fn show(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        let Some(entry) = model.machine(Some(self.machine)) else { return };
        let machine = &entry.state.machine;
        let disks = &machine.configuration.disks;
        egui::Grid::new("resize").num_columns(2).spacing([16.0, 8.0]).show(ui, |ui| {
            let label = ui.label("Disk");
            let before = self.disk.clone();
            let chosen = ComboBox::from_id_salt("disk").selected_text(self.disk.to_string()).show_ui(ui, |ui| {
                for config in disks {
                    ui.selectable_value(
                        &mut self.disk,
                        config.id.clone(),
                        format!("{}, {}", config.id, text::bytes(config.size)),
                    );
                }
            });
            chosen.response.labelled_by(label.id);
            if self.disk != before
                && let Some(config) = disks.iter().find(|config| config.id == self.disk)
            {
                self.size_mib = config.size.0.div_ceil(MIB);
            }
            ui.end_row();
            let label = ui.label("New size");
            ui.add(whole_number(&mut self.size_mib, 1..=64 << 20, 64, " MiB")).labelled_by(label.id);
            ui.end_row();
        });
        let had = disks.iter().find(|config| config.id == self.disk).map(|config| config.size).unwrap_or_default();
        facts(
            ui,
            [
                format!("It has {} now. What is new reads as zeros, and takes no space before it is written.", text::bytes(had)),
                "Only Now grows: each snapshot keeps the size that it had, and applying one brings that back.".to_owned(),
            ],
        );
        let size = ByteCount(self.size_mib * MIB);
        foot.label = "Resize".into();
        let verdict = rules::resize(machine, &Context::default(), &self.disk, size);
        foot.refused = verdict.err().map(|why| why.to_string());
        foot.unfilled = size <= had;
        foot.action = Some(Action::Send(Command::Resize { machine: self.machine, disk: self.disk.clone(), size }));
    }
}
