//! Nothing is there yet: three ways to begin.

use egui::{CentralPanel, RichText, Sense, Stroke, Ui, vec2};

use crate::action::{Action, Verb};
use crate::theme;
use crate::widgets::put;

/// Shows them.
pub fn show(ui: &mut Ui, actions: &mut Vec<Action>) {
    CentralPanel::default().show(ui, |ui| {
        let p = theme::palette(ui);
        ui.vertical_centered(|ui| {
            ui.add_space((ui.available_height() * 0.2).max(20.0));
            ui.label(RichText::new("Snaptree").font(egui::FontId::new(28.0, theme::strong().family)));
            ui.add_space(4.0);
            let says = "Takes, applies, deletes and merges snapshots of virtual machines, and says before what each step costs.";
            ui.label(RichText::new(says).color(p.weak));
            ui.add_space(26.0);
            for (verb, says) in [
                (Verb::Demo, "A small library made by really taking, spoiling, applying and deleting."),
                (Verb::OpenFolder, "VHD and VHDX files, or a Hyper-V machine, in place. Nothing is changed."),
                (Verb::CreateMachine, "A new machine with a disk and memory, to take snapshots of."),
            ] {
                if card(ui, verb.entry().label.trim_end_matches('…'), says) {
                    actions.push(Action::Verb(verb));
                }
                ui.add_space(4.0);
            }
            ui.add_space(12.0);
            ui.label(
                RichText::new("Or drop a folder, or VHD and VHDX files, onto this window.").font(theme::small()).color(p.weak),
            );
        });
    });
}

fn card(ui: &mut Ui, title: &str, says: &str) -> bool {
    let p = theme::palette(ui);
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width().min(460.0), 62.0), Sense::click());
    let line = if response.hovered() || response.has_focus() { p.accent } else { p.line };
    let fill = if response.hovered() { p.hover } else { p.panel };
    ui.painter().rect(rect, 7.0, fill, Stroke::new(1.0, line), egui::StrokeKind::Inside);
    let (left, room) = (rect.left() + 18.0, rect.width() - 36.0);
    put(ui.painter(), egui::pos2(left, rect.top() + 22.0), egui::Align2::LEFT_CENTER, title, theme::strong(), p.text, room);
    put(ui.painter(), egui::pos2(left, rect.top() + 42.0), egui::Align2::LEFT_CENTER, says, theme::small(), p.weak, room);
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, title));
    response.on_hover_cursor(egui::CursorIcon::PointingHand).clicked()
}
