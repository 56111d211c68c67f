//! Create a machine.

use egui::Ui;
use snaptree_core::disk::ImageFormat;
use snaptree_core::engine::{Command, CreateMachine};
use snaptree_core::snapshot::{MachineKind, WorkloadProfile};
use snaptree_core::units::ByteCount;

use super::{Foot, facts, field, focus_first};
use crate::action::Action;
use crate::model::Model;
use crate::widgets::whole_number;

/// What is typed.
#[derive(Debug, Clone, PartialEq)]
pub struct Create {
    name: String,
    memory_mib: u64,
    disks_mib: Vec<u64>,
    format: ImageFormat,
    seed: u64,
}

impl Create {
    /// With a name that isn't taken yet.
    pub fn new(model: &Model) -> Self {
        let taken = |name: &str| model.machines.values().any(|m| m.name() == name);
        let name = (1..).map(|n| format!("VM{n:02}")).find(|n| !taken(n)).unwrap_or_default();
        Self { name, memory_mib: 64, disks_mib: vec![1024], format: ImageFormat::Vhdx, seed: 1 }
    }

    pub(super) fn show(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        let name = field(ui, "Name, which is also its folder's", &mut self.name, "WEB01");
        focus_first(ui, &name, &self.name);
        egui::Grid::new("create").num_columns(2).spacing([16.0, 8.0]).show(ui, |ui| {
            let label = ui.label("Memory");
            ui.add(whole_number(&mut self.memory_mib, 1..=65_536, 16, " MiB")).labelled_by(label.id);
            ui.end_row();
            let mut removed = None;
            let several = self.disks_mib.len() > 1;
            for (i, size) in self.disks_mib.iter_mut().enumerate() {
                let label = ui.label(format!("Disk {i}"));
                ui.horizontal(|ui| {
                    ui.add(whole_number(size, 4..=64 << 20, 16, " MiB")).labelled_by(label.id);
                    if several && ui.button("Remove").clicked() {
                        removed = Some(i);
                    }
                });
                ui.end_row();
            }
            if let Some(i) = removed {
                self.disks_mib.remove(i);
            }
            ui.label("");
            if self.disks_mib.len() < 8 && ui.button("Add a disk").clicked() {
                self.disks_mib.push(1024);
            }
            ui.end_row();
            ui.label("Format");
            ui.vertical(|ui| {
                ui.radio_value(&mut self.format, ImageFormat::Vhdx, "VHDX, which is recommended");
                ui.radio_value(&mut self.format, ImageFormat::Vhd, "VHD, for hosts before 2012: disks of 2040 GiB at most");
            });
            ui.end_row();
            let label = ui.label("Seed");
            ui.add(whole_number(&mut self.seed, 0..=u64::MAX, 1, "")).labelled_by(label.id);
            ui.end_row();
        });
        facts(
            ui,
            [
                "A built-in machine without an operating system: its threads write memory and disks, stamp what they write, and check every byte that they read.".to_owned(),
                "Its disks are files that grow as they are written; everything it does follows from the seed.".into(),
            ],
        );
        foot.label = "Create".into();
        foot.refused = self.refused(model);
        foot.action = Some(Action::Send(Command::Create(CreateMachine {
            name: self.name.trim().into(),
            kind: MachineKind::Workload,
            memory: ByteCount::mib(self.memory_mib),
            disks: self.disks_mib.iter().map(|n| ByteCount::mib(*n)).collect(),
            format: self.format,
            hardware: None,
            workload: WorkloadProfile { seed: self.seed, ..WorkloadProfile::default() },
        })));
    }

    fn refused(&self, model: &Model) -> Option<String> {
        let name = self.name.trim();
        if name.is_empty() {
            return Some("A machine needs a name.".into());
        }
        let largest = self.format.largest_disk();
        if self.disks_mib.iter().any(|size| ByteCount::mib(*size) > largest) {
            return Some(format!("A .{} file holds a disk of at most {} GiB.", self.format.extension(), largest.0 >> 30));
        }
        model.machines.values().any(|m| m.name() == name).then(|| format!("There is a machine called “{name}” already."))
    }
}
