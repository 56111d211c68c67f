//! What a machine is warned about, paused for and refused: each with its default, and where that comes from.

use std::ops::RangeInclusive;

use egui::{Grid, RichText, Ui};
use snaptree_core::engine::Command;
use snaptree_core::snapshot::{self, MachineId};
use snaptree_core::units::ByteCount;

use super::Foot;
use crate::action::Action;
use crate::model::MachineEntry;
use crate::theme;
use crate::widgets::{link, whole_number};

/// The settings as they are typed.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub(super) machine: MachineId,
    had: snapshot::Settings,
    now: snapshot::Settings,
}

const MIB: u64 = 1 << 20;
/// More free space than this nobody asks for.
const MOST: u64 = 1 << 20;
const TEN_YEARS: u32 = 10 * 366 * 24;

impl Settings {
    /// Starts from what the machine has.
    pub fn new(entry: &MachineEntry) -> Self {
        let had = entry.state.machine.settings.clone();
        Self { machine: entry.state.machine.id, now: had.clone(), had }
    }

    pub(super) fn show(&mut self, ui: &mut Ui, foot: &mut Foot) {
        let now = &mut self.now;
        let usual = snapshot::Settings::default();
        Grid::new("settings").num_columns(2).spacing([16.0, 10.0]).show(ui, |ui| {
            let (least, most) = (2..=now.max_depth.max(2), now.warn_depth.max(2)..=4096);
            let why = "Xen flags more than 5, VMware advises 2 to 3";
            number(ui, ("Warn at this depth", ""), &mut now.warn_depth, least, (usual.warn_depth, why));
            let why = "Hyper-V allows 50, VMware 32";
            number(ui, ("Refuse to take at this depth", ""), &mut now.max_depth, most, (usual.max_depth, why));
            let why = "VMware's advice, as a snapshot is no backup";
            number(ui, ("Warn about snapshots of", " h"), &mut now.warn_age_hours, 1..=TEN_YEARS, (usual.warn_age_hours, why));
            let why = "our own choice, a day to undo in";
            number(ui, ("Empty the trash after", " h"), &mut now.trash_hours, 0..=TEN_YEARS, (usual.trash_hours, why));
            let why = "our own choice, time to act";
            let least = now.urgent_free.0 / MIB;
            bytes(ui, "Warn with less free than", &mut now.warn_free, least..=MOST, (usual.warn_free, why));
            let range = now.pause_free.0 / MIB..=now.warn_free.0 / MIB;
            bytes(ui, "Urgent with less free than", &mut now.urgent_free, range, (usual.urgent_free, "Hyper-V warns here"));
            let range = 1..=now.urgent_free.0 / MIB;
            bytes(ui, "Pause with less free than", &mut now.pause_free, range, (usual.pause_free, "Hyper-V pauses here"));
        });
        if *now != usual && link(ui, "All as they were made").clicked() {
            *now = usual;
        }
        foot.label = "Keep the settings".into();
        foot.unfilled = *now == self.had;
        foot.refused = foot.unfilled.then(|| "Nothing is changed yet.".into());
        foot.action = Some(Action::Send(Command::SetSettings { machine: self.machine, settings: now.clone() }));
    }
}

/// A figure, with its name; its default and where that is from stand below it.
fn number(ui: &mut Ui, (name, unit): (&str, &str), value: &mut u32, range: RangeInclusive<u32>, (usual, why): (u32, &str)) {
    let label = ui.label(name);
    ui.vertical(|ui| {
        ui.add(whole_number(value, range, 1, unit).clamp_existing_to_range(false)).labelled_by(label.id);
        origin(ui, &format!("{usual}{unit}"), why);
    });
    ui.end_row();
}

/// The same for bytes.
fn bytes(ui: &mut Ui, name: &str, value: &mut ByteCount, range: RangeInclusive<u64>, (usual, why): (ByteCount, &str)) {
    let label = ui.label(name);
    ui.vertical(|ui| {
        let mut mib = value.0 / MIB;
        let field = whole_number(&mut mib, range, 8, " MiB").clamp_existing_to_range(false);
        if ui.add(field).labelled_by(label.id).changed() {
            *value = ByteCount::mib(mib);
        }
        origin(ui, &format!("{} MiB", usual.0 / MIB), why);
    });
    ui.end_row();
}

fn origin(ui: &mut Ui, usual: &str, why: &str) {
    let p = theme::palette(ui);
    ui.label(RichText::new(format!("usually {usual}: {why}")).font(theme::small()).color(p.weak));
}
