//! The few things that need somebody, worst first, each with figures and one action.

use egui::{Button, Label, RichText, Ui};
use snaptree_core::cost::{self, freeable};
use snaptree_core::engine::Command;
use snaptree_core::snapshot::MachineId;
use snaptree_core::window::{PlanAction, PlanFinding, PlanFindingKind};

use super::plan::words;
use crate::action::{Action, Verb};
use crate::dialogs::{self, Dialog};
use crate::model::{Concern, Model};
use crate::text::{self, Advised};
use crate::theme::{self, Tone};
use crate::widgets::link;

/// One of them: about whom, in words.
struct Item {
    subject: String,
    said: Advised,
}

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
        for (n, concern) in all.iter().enumerate() {
            let Some(Item { subject, said }) = item(*concern, model) else { continue };
            // Roughly what it takes; the first always stands there, shortened if it must be.
            let needed = 6.6 * (subject.len() + said.text.len() + said.button.map_or(0, str::len) + 4) as f32;
            if n > 0 && ui.cursor().left() + needed > right - 60.0 {
                ui.weak(format!("+ {} more", all.len() - n)).on_hover_ui(|ui| {
                    for item in all[n..].iter().take(SHOWN).filter_map(|concern| item(*concern, model)) {
                        ui.label(format!("{} {}", item.subject, item.said.text));
                    }
                    if all.len() - n > SHOWN {
                        ui.weak(format!("and {} more", all.len() - n - SHOWN));
                    }
                });
                break;
            }
            let words = RichText::new(&subject).font(theme::strong()).color(p.tone(said.tone));
            if ui.add(Button::new(words).frame(false)).clicked() {
                actions.push(show_subject(*concern, model));
            }
            // The button is never pushed out of sight by the words.
            let room = ui.available_width() - 7.5 * said.button.map_or(0, str::len) as f32 - 90.0;
            ui.scope(|ui| {
                ui.set_max_width(room.max(60.0));
                ui.add(Label::new(&said.text).truncate()).on_hover_text(&said.text);
            });
            if let Some(button) = said.button
                && link(ui, button).clicked()
            {
                actions.extend(answer(*concern, model));
            }
            ui.add_space(12.0);
        }
    });
}

/// So many are told of those for which there is no room.
const SHOWN: usize = 20;

fn item(concern: Concern, model: &Model) -> Option<Item> {
    match concern {
        Concern::Machine(id, i) => {
            let machine = model.machine(Some(id))?;
            let label = |s| machine.state.machine.snapshots.get(&s).map(|s| s.label.clone()).unwrap_or_default();
            let said = text::advice(machine.figures.findings.get(i)?, label);
            Some(Item { subject: machine.name().to_owned(), said })
        }
        Concern::Plan(i) => {
            let plan = model.plan.as_ref()?;
            let said = text::plan::finding(plan.findings.get(i)?, plan, &words::names(model), &model.when);
            Some(Item { subject: "Plan".into(), said })
        }
        Concern::Missed => {
            let plan = model.plan.as_ref()?;
            let [others @ .., last] = plan.agent.missed.as_slice() else { return None };
            let mut text = text::plan::missed(last, plan, &words::names(model), &model.when);
            if !others.is_empty() {
                text += &format!(" (and {} more)", others.len());
            }
            let said = Advised { text, button: Some("Forget"), tone: Tone::Warn };
            Some(Item { subject: "Missed".into(), said })
        }
    }
}

/// What its name leads to.
fn show_subject(concern: Concern, model: &Model) -> Action {
    match concern {
        Concern::Machine(id, _) => Action::ShowMachine(id),
        Concern::Missed => Action::Verb(Verb::ShowPlan),
        Concern::Plan(i) => show_in_plan(model.plan.as_ref().and_then(|plan| plan.findings.get(i)), model),
    }
}

/// A finding's place on the page of the plan.
fn show_in_plan(finding: Option<&PlanFinding>, model: &Model) -> Action {
    let merges = model.plan.as_ref().map(|plan| plan.plan.merges.as_slice()).unwrap_or_default();
    let merge = finding.and_then(|finding| match &finding.kind {
        PlanFindingKind::VolumeFills { volume, .. } => merges.iter().find(|m| m.volume == *volume),
        PlanFindingKind::NoWindowFits { machine, .. }
        | PlanFindingKind::WontFit { machine, .. }
        | PlanFindingKind::MissesDeadline { machine, .. } => merges.iter().find(|m| m.machine == *machine),
    });
    merge.map_or(Action::Verb(Verb::ShowPlan), |merge| Action::ShowMerge(merge.machine, merge.disk.clone()))
}

/// What its button does.
fn answer(concern: Concern, model: &Model) -> Vec<Action> {
    match concern {
        Concern::Machine(id, i) => {
            let finding = model.machine(Some(id)).and_then(|m| m.figures.findings.get(i));
            let action = finding.and_then(|finding| finding.action.as_ref()).map(|action| act(id, action));
            std::iter::once(Action::ShowMachine(id)).chain(action).collect()
        }
        Concern::Missed => vec![Action::Send(Command::ForgetMissed)],
        Concern::Plan(i) => {
            let finding = model.plan.as_ref().and_then(|plan| plan.findings.get(i));
            finding.map(|finding| plan_act(finding, model)).unwrap_or_default()
        }
    }
}

fn plan_act(finding: &PlanFinding, model: &Model) -> Vec<Action> {
    let open = |dialog| Action::Open(Box::new(dialog));
    match finding.action {
        PlanAction::ShowPlan => vec![show_in_plan(Some(finding), model)],
        PlanAction::MergeNow(id) => {
            let dialog = model.machine(Some(id)).map(|entry| Dialog::Merge(dialogs::Merge::new(entry)));
            std::iter::once(show_in_plan(Some(finding), model)).chain(dialog.map(open)).collect()
        }
        PlanAction::AddWindow(id) => {
            vec![show_in_plan(Some(finding), model), open(Dialog::Windows(dialogs::Windows::add(model, id)))]
        }
        PlanAction::FreeSpace => free_space(finding, model),
    }
}

/// Where most can be given back on the volume at once: a trash, or snapshots that nothing stands on.
fn free_space(finding: &PlanFinding, model: &Model) -> Vec<Action> {
    let volume = match &finding.kind {
        PlanFindingKind::VolumeFills { volume, .. } => Some(volume.as_str()),
        PlanFindingKind::NoWindowFits { machine, .. }
        | PlanFindingKind::WontFit { machine, .. }
        | PlanFindingKind::MissesDeadline { machine, .. } => model.machine(Some(*machine)).map(|m| m.state.volume.id.as_str()),
    };
    let here = model.machines.iter().filter(|(_, m)| !m.read_only() && Some(m.state.volume.id.as_str()) == volume);
    let most = here.map(|(id, m)| (*id, freeable(&m.state.facts()))).max_by_key(|(_, can)| can.trash.max(can.deletable));
    let Some((id, can)) = most else { return vec![show_in_plan(Some(finding), model)] };
    let dialog = match can.trash >= can.deletable {
        _ if can.trash.max(can.deletable).0 == 0 => None,
        true => Some(Dialog::EmptyTrash(dialogs::Plain::new(id))),
        false => Some(Dialog::Delete(dialogs::Delete::new(id, can.snapshots, false))),
    };
    std::iter::once(Action::ShowMachine(id)).chain(dialog.map(|dialog| Action::Open(Box::new(dialog)))).collect()
}

fn act(machine: MachineId, action: &cost::Action) -> Action {
    match action {
        cost::Action::Merge => Action::Verb(Verb::Merge),
        cost::Action::Delete(which) => {
            Action::Open(Box::new(Dialog::Delete(dialogs::Delete::new(machine, which.clone(), false))))
        }
        cost::Action::Show(which) => Action::SelectIn(machine, crate::model::Node::Snapshot(*which)),
        cost::Action::EmptyTrash => Action::Verb(Verb::EmptyTrash),
    }
}
