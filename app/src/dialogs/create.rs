//! Create a machine.

use egui::Ui;
use snaptree_core::disk::ImageFormat;
use snaptree_core::engine::{Command, CreateMachine};
use snaptree_core::snapshot::{Hardware, MachineKind, WorkloadProfile};
use snaptree_core::units::ByteCount;

use super::hardware::{connections, processors};
use super::{Foot, facts, field, focus_first, name_refused};
use crate::action::Action;
use crate::model::Model;
use crate::text;
use crate::widgets::whole_number;

/// What is typed.
#[derive(Debug, Clone, PartialEq)]
pub struct Create {
    name: String,
    kind: MachineKind,
    hardware: Hardware,
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
        let (kind, hardware) = (MachineKind::Workload, Hardware { network: true, ..Hardware::default() });
        Self { name, kind, hardware, memory_mib: 64, disks_mib: vec![1024], format: ImageFormat::Vhdx, seed: 1 }
    }

    fn is_computer(&self) -> bool {
        self.kind == MachineKind::Qemu
    }

    /// What is usual for a kind, where nothing else was typed.
    fn choose(&mut self, kind: MachineKind) {
        let usual = |kind| if kind == MachineKind::Qemu { (2048, vec![20 << 10]) } else { (64, vec![1024]) };
        if (self.memory_mib, self.disks_mib.clone()) == usual(self.kind) {
            (self.memory_mib, self.disks_mib) = usual(kind);
        }
        self.kind = kind;
    }

    pub(super) fn show(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        let name = field(ui, "Name, which is also its folder's", &mut self.name, "WEB01");
        focus_first(ui, &name, &self.name);
        egui::Grid::new("create").num_columns(2).spacing([16.0, 8.0]).show(ui, |ui| {
            ui.label("Kind");
            ui.vertical(|ui| {
                let mut kind = self.kind;
                ui.radio_value(&mut kind, MachineKind::Workload, "Built in: writes and checks by itself, to try things out");
                ui.radio_value(&mut kind, MachineKind::Qemu, "QEMU: a computer that boots an operating system");
                if kind != self.kind {
                    self.choose(kind);
                }
            });
            ui.end_row();
            if self.is_computer() {
                processors(ui, &mut self.hardware);
            }
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
            if self.is_computer() {
                connections(ui, &mut self.hardware);
            } else {
                let label = ui.label("Seed");
                ui.add(whole_number(&mut self.seed, 0..=u64::MAX, 1, "")).labelled_by(label.id);
                ui.end_row();
            }
        });
        facts(ui, self.facts().map(str::to_owned));
        foot.label = "Create".into();
        foot.refused = self.refused(model);
        foot.action = Some(Action::Send(Command::Create(CreateMachine {
            name: self.name.trim().into(),
            kind: self.kind,
            memory: ByteCount::mib(self.memory_mib),
            disks: self.disks_mib.iter().map(|n| ByteCount::mib(*n)).collect(),
            format: self.format,
            hardware: self.is_computer().then(|| self.hardware.clone()),
            workload: WorkloadProfile { seed: self.seed, ..WorkloadProfile::default() },
        })));
    }

    fn facts(&self) -> [&'static str; 2] {
        if self.is_computer() {
            [
                "QEMU must be installed, 8.2 or later. The disks are served to it by the machine's own process, which goes on when this window is closed.",
                "The disks are empty: write an operating system to one, or import an image that has one.",
            ]
        } else {
            [
                "A built-in machine without an operating system: its threads write memory and disks, stamp what they write, and check every byte that they read.",
                "Its disks are files that grow as they are written; everything it does follows from the seed.",
            ]
        }
    }

    fn refused(&self, model: &Model) -> Option<String> {
        if let Some(refused) = name_refused(model, self.name.trim()) {
            return Some(refused);
        }
        if let Some(problem) = self.hardware.problem(self.disks_mib.len()).filter(|_| self.is_computer()) {
            return Some(format!("{}.", text::sentence(problem)));
        }
        let largest = self.format.largest_disk();
        let too_large = self.disks_mib.iter().any(|size| ByteCount::mib(*size) > largest);
        too_large.then(|| format!("A .{} file holds a disk of at most {} GiB.", self.format.extension(), largest.0 >> 30))
    }
}
