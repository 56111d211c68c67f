//! What a machine that QEMU runs consists of; and for one that is known by its disks only: that QEMU runs it from now on.

use egui::Ui;
use snaptree_core::engine::Command;
use snaptree_core::snapshot::{Computer, DiskBus, Hardware as Devices, MachineId};
use snaptree_core::units::ByteCount;

use super::{Foot, facts};
use crate::action::Action;
use crate::model::{MachineEntry, Model};
use crate::text;
use crate::widgets::whole_number;

/// What is typed of a computer's parts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parts {
    memory_mib: u64,
    devices: Devices,
}

impl Parts {
    /// For disks that another program wrote: they may have no driver for virtio.
    pub fn usual() -> Self {
        Self { memory_mib: 2048, devices: Devices { network: true, bus: DiskBus::Sata, ..Devices::default() } }
    }

    /// Fields for all of it.
    pub fn show(&mut self, ui: &mut Ui) {
        egui::Grid::new("hardware").num_columns(2).spacing([16.0, 8.0]).show(ui, |ui| {
            processors(ui, &mut self.devices);
            let label = ui.label("Memory");
            ui.add(whole_number(&mut self.memory_mib, 1..=65_536, 16, " MiB")).labelled_by(label.id);
            ui.end_row();
            connections(ui, &mut self.devices);
        });
    }

    /// Why it can't have so many disks, in a sentence.
    pub fn problem(&self, disks: usize) -> Option<String> {
        self.devices.problem(disks).map(|problem| format!("{}.", text::sentence(problem)))
    }

    pub fn computer(&self) -> Computer {
        Computer { memory: ByteCount::mib(self.memory_mib), hardware: self.devices.clone() }
    }
}

/// What it has, and what it shall have.
#[derive(Debug, Clone, PartialEq)]
pub struct Hardware {
    pub machine: MachineId,
    disks: usize,
    parts: Parts,
    /// What it had, if QEMU ran it before.
    had: Option<Parts>,
}

impl Hardware {
    /// As the machine has it, or as is usual.
    pub fn new(machine: &MachineEntry) -> Self {
        let configuration = &machine.state.machine.configuration;
        let memory_mib = configuration.memory.0 >> 20;
        let had = configuration.hardware.clone().map(|devices| Parts { memory_mib, devices });
        let parts = had.clone().unwrap_or_else(Parts::usual);
        Self { machine: machine.state.machine.id, disks: configuration.disks.len(), parts, had }
    }

    pub(super) fn show(&mut self, ui: &mut Ui, _: &Model, foot: &mut Foot) {
        self.parts.show(ui);
        let first = match &self.had {
            Some(_) => "Its snapshots keep what they had: applying one puts that back.",
            None => "QEMU runs it from now on. Nothing else may run on these disks: not the machine that they came from.",
        };
        facts(ui, [first.to_owned(), "QEMU must be installed, 8.2 or later.".into()]);
        foot.label = if self.had.is_some() { "Change".into() } else { "Let QEMU run it".into() };
        foot.unfilled = self.had.as_ref() == Some(&self.parts);
        let nothing = || foot.unfilled.then(|| "Nothing is changed yet.".into());
        foot.refused = self.parts.problem(self.disks).or_else(nothing);
        let Computer { memory, hardware } = self.parts.computer();
        foot.action = Some(Action::Send(Command::SetHardware { machine: self.machine, memory, hardware }));
    }
}

/// A row with the number of processors.
pub(super) fn processors(ui: &mut Ui, parts: &mut Devices) {
    let label = ui.label("Processors");
    ui.add(whole_number(&mut parts.processors, 1..=255, 1, "")).labelled_by(label.id);
    ui.end_row();
}

/// Rows with what disks and network are connected to.
pub(super) fn connections(ui: &mut Ui, parts: &mut Devices) {
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
