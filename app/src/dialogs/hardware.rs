//! What a machine that QEMU runs consists of; and for one that is known by its disks only: that QEMU runs it from now on.

use egui::Ui;
use snaptree_core::engine::Command;
use snaptree_core::snapshot::{DiskBus, Hardware as Parts, MachineId};
use snaptree_core::units::ByteCount;

use super::{Foot, facts};
use crate::action::Action;
use crate::model::{MachineEntry, Model};
use crate::text;
use crate::widgets::whole_number;

/// What it has, and what it shall have.
#[derive(Debug, Clone, PartialEq)]
pub struct Hardware {
    pub machine: MachineId,
    disks: usize,
    memory_mib: u64,
    parts: Parts,
    /// What it had, if QEMU ran it before.
    had: Option<(u64, Parts)>,
}

impl Hardware {
    /// As the machine has it, or as is usual.
    pub fn new(machine: &MachineEntry) -> Self {
        let configuration = &machine.state.machine.configuration;
        let (memory, disks) = (configuration.memory.0 >> 20, configuration.disks.len());
        let had = configuration.hardware.clone().map(|parts| (memory, parts));
        // What another program wrote may have no driver for virtio.
        let usual = || (2048, Parts { network: true, bus: DiskBus::Sata, ..Parts::default() });
        let (memory_mib, parts) = had.clone().unwrap_or_else(usual);
        Self { machine: machine.state.machine.id, disks, memory_mib, parts, had }
    }

    pub(super) fn show(&mut self, ui: &mut Ui, _: &Model, foot: &mut Foot) {
        egui::Grid::new("hardware").num_columns(2).spacing([16.0, 8.0]).show(ui, |ui| {
            processors(ui, &mut self.parts);
            let label = ui.label("Memory");
            ui.add(whole_number(&mut self.memory_mib, 1..=65_536, 16, " MiB")).labelled_by(label.id);
            ui.end_row();
            connections(ui, &mut self.parts);
        });
        let first = match &self.had {
            Some(_) => "Its snapshots keep what they had: applying one puts that back.",
            None => "QEMU runs it from now on. Nothing else may run on these disks: not the machine that they came from.",
        };
        facts(ui, [first.to_owned(), "QEMU must be installed, 8.2 or later.".into()]);
        foot.label = if self.had.is_some() { "Change".into() } else { "Let QEMU run it".into() };
        foot.unfilled = self.had.as_ref().is_some_and(|(memory, parts)| (*memory, parts) == (self.memory_mib, &self.parts));
        foot.refused = match self.parts.problem(self.disks) {
            Some(problem) => Some(format!("{}.", text::sentence(problem))),
            None => foot.unfilled.then(|| "Nothing is changed yet.".into()),
        };
        let (machine, memory) = (self.machine, ByteCount::mib(self.memory_mib));
        foot.action = Some(Action::Send(Command::SetHardware { machine, memory, hardware: self.parts.clone() }));
    }
}

/// A row with the number of processors.
pub(super) fn processors(ui: &mut Ui, parts: &mut Parts) {
    let label = ui.label("Processors");
    ui.add(whole_number(&mut parts.processors, 1..=255, 1, "")).labelled_by(label.id);
    ui.end_row();
}

/// Rows with what disks and network are connected to.
pub(super) fn connections(ui: &mut Ui, parts: &mut Parts) {
    ui.label("Disks on");
    ui.vertical(|ui| {
        ui.radio_value(&mut parts.bus, DiskBus::Virtio, "virtio, which is quick and needs a driver in the guest");
        ui.radio_value(&mut parts.bus, DiskBus::Sata, "SATA, which every guest knows");
    });
    ui.end_row();
    ui.label("Network");
    ui.checkbox(&mut parts.network, "A card behind your own connections");
    ui.end_row();
}
