//! The few things that need somebody, worst first, each with figures and one action.

use egui::{RichText, Ui};
use snaptree_core::cost;

use crate::action::{Action, Verb};
use crate::dialogs::{self, Dialog};
use crate::model::Model;
use crate::text;
use crate::theme;
use crate::widgets::link;

/// Shows the strip, one line; what doesn't fit is counted.
pub fn show(ui: &mut Ui, model: &Model, actions: &mut Vec<Action>) {
    let p = theme::palette(ui);
    let all = model.attention();
    ui.horizontal(|ui| {
        ui.set_height(26.0);
        let need = if all.len() == 1 { "1 needs you".to_owned() } else { format!("{} need you", all.len()) };
        ui.label(RichText::new(need).font(theme::strong()).color(p.warn));
        ui.add_space(8.0);
        let right = ui.max_rect().right();
        for (n, (id, i)) in all.iter().enumerate() {
            let Some(machine) = model.machine(Some(*id)) else { continue };
            let finding = &machine.figures.findings[*i];
            let label = |s| machine.state.machine.snapshots.get(&s).map(|s| s.label.clone()).unwrap_or_default();
            let said = text::advice(finding, label);
            // Roughly what it takes; the first always stands there, shortened if it must be.
            let needed = 6.6 * (machine.name().len() + said.text.len() + said.button.map_or(0, str::len) + 4) as f32;
            if n > 0 && ui.cursor().left() + needed > right - 60.0 {
                ui.weak(format!("+ {} more", all.len() - n)).on_hover_ui(|ui| {
                    for (id, i) in &all[n..] {
                        let Some(machine) = model.machine(Some(*id)) else { continue };
                        ui.label(format!("{} {}", machine.name(), text::advice(&machine.figures.findings[*i], label).text));
                    }
                });
                break;
            }
            let name = ui.add(
                egui::Button::new(RichText::new(machine.name()).font(theme::strong()).color(p.tone(said.tone))).frame(false),
            );
            if name.clicked() {
                actions.push(Action::ShowMachine(*id));
            }
            ui.add(egui::Label::new(&said.text).truncate());
            if let Some(button) = said.button
                && link(ui, button).clicked()
            {
                actions.push(Action::ShowMachine(*id));
                actions.extend(finding.action.as_ref().map(|a| act(*id, a)));
            }
            ui.add_space(12.0);
        }
    });
}

fn act(machine: snaptree_core::snapshot::MachineId, action: &cost::Action) -> Action {
    match action {
        cost::Action::Merge => Action::Verb(Verb::Merge),
        cost::Action::Delete(which) => {
            Action::Open(Box::new(Dialog::Delete(dialogs::Delete::new(machine, which.clone(), false))))
        }
        cost::Action::Show(which) => Action::SelectIn(machine, crate::model::Node::Snapshot(*which)),
        cost::Action::EmptyTrash => Action::Verb(Verb::EmptyTrash),
    }
}
