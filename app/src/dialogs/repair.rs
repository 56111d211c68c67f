//! Put the links of a folder's images right: the list of changes first, then all of them or none.

use std::path::{Path, PathBuf};

use egui::{CollapsingHeader, ComboBox, RichText, ScrollArea, Ui};
use snaptree_core::diagnose::Finding;
use snaptree_core::engine::{Command, RepairFolder, RepairView, RequestId};
use snaptree_core::repair::{Change, Choices, Refused, Step};
use snaptree_core::units::ByteCount;

use super::{Dialog, Foot, facts};
use crate::action::Action;
use crate::model::Model;
use crate::text;
use crate::theme;
use crate::widgets::{caption, figure_line, link};

/// Which folder, and what was decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Repair {
    folder: PathBuf,
    choices: Choices,
    pub(super) plan: Option<RequestId>,
}

impl Repair {
    /// Of this folder.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), choices: Choices::default(), plan: None }
    }

    pub(super) fn title(&self) -> String {
        format!("Repair {}", text::file_name(&self.folder))
    }

    /// What is asked to see what would be done.
    pub(super) fn to_plan(&self) -> Command {
        Command::Repair(RepairFolder { folder: self.folder.clone(), choices: self.choices.clone(), plan: None })
    }

    pub(super) fn show(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        foot.label = "Repair".into();
        let p = theme::palette(ui);
        let Some(id) = self.plan else { return };
        let view = match (model.jobs.repair(id), model.jobs.plan(id)) {
            (Some(view), _) => view,
            (None, Some(Err(why))) => {
                foot.refused = Some(text::sentence(why));
                return;
            }
            _ => {
                ui.horizontal(|ui| {
                    ui.spinner();
                    ui.weak("Looking at the images…");
                });
                return;
            }
        };
        let chosen = self.choices.clone();
        ScrollArea::vertical().max_height(420.0).show(ui, |ui| {
            if !view.plan.steps.is_empty() {
                caption(ui, "What is changed");
            }
            view.plan.steps.iter().for_each(|step| self::step(ui, step, &self.folder));
            if !view.plan.refused.is_empty() {
                caption(ui, "What stays as it is");
            }
            for refused in &view.plan.refused {
                self.refused(ui, refused, view);
            }
            if view.plan.steps.is_empty() && view.plan.refused.is_empty() {
                ui.label("Nothing is wrong with how these images are linked.");
            }
        });
        ui.checkbox(
            &mut self.choices.set_aside,
            "Set aside what nothing needs: orphans, and left-overs that no node reads through",
        );
        facts(
            ui,
            [
                "What is overwritten is kept in the folder, so that it can be taken back, byte for byte.".to_owned(),
                "All of it is done, or nothing.".into(),
            ],
        );
        if let Some(last) = view.past.last() {
            let what = if last.cut_short { "A repair was cut short" } else { "The last repair" };
            ui.horizontal(|ui| {
                ui.label(RichText::new(format!("{what}: {}.", text::count(last.done.len(), "change"))).color(p.weak));
                if link(ui, "Take it back").clicked() {
                    foot.other = Some(Action::TakeRepairBack(self.folder.clone()));
                }
                if !last.cut_short && link(ui, &format!("Free the {} kept for that…", text::bytes(view.kept))).clicked() {
                    let dialog = Dialog::ForgetRepairs(self.folder.clone(), view.kept);
                    foot.other = Some(Action::Open(Box::new(dialog)));
                }
            });
        }
        if self.choices != chosen {
            foot.other = Some(Action::Open(Box::new(Dialog::Repair(self.clone()))));
        }
        let cut_short = view.past.iter().any(|past| past.cut_short);
        foot.refused = match (&view.plan.in_use, view.plan.steps.is_empty()) {
            (Some(why), _) => Some(format!("The folder is in use: {why}.")),
            (None, _) if cut_short => Some("Take back first what was cut short.".into()),
            (None, true) => Some("There is nothing that can be repaired.".into()),
            (None, false) => None,
        };
        foot.unfilled = view.plan.in_use.is_none() && !cut_short;
        let (folder, choices) = (self.folder.clone(), self.choices.clone());
        let plan = Some(Box::new(view.plan.clone()));
        foot.action = Some(Action::Send(Command::Repair(RepairFolder { folder, choices, plan })));
    }

    /// What can't be repaired without somebody who says which image is the parent.
    fn refused(&mut self, ui: &mut Ui, refused: &Refused, view: &RepairView) {
        let p = theme::palette(ui);
        ui.label(theme::bold(text::inside(&refused.image, &self.folder)));
        ui.add(egui::Label::new(RichText::new(format!("{}.", text::sentence(&refused.reason))).color(p.weak)).wrap());
        let info = |finding: &Finding| finding.info.as_ref().map(|info| (info.format, info.parent.is_some()));
        let own = view.found.of(&refused.image).and_then(info);
        let Some((format, true)) = own else { return };
        let others: Vec<&Finding> = view
            .found
            .images
            .iter()
            .filter(|other| other.path != refused.image && info(other).is_some_and(|(other, _)| other == format))
            .collect();
        if others.is_empty() {
            return;
        }
        let chosen = self.choices.parents.get(&refused.image).map_or("not said".into(), |path| text::inside(path, &self.folder));
        ui.horizontal(|ui| {
            let label = ui.label("Its parent is");
            let list = ComboBox::from_id_salt(&refused.image).selected_text(chosen).width(360.0).show_ui(ui, |ui| {
                for other in others {
                    let words = text::inside(&other.path, &self.folder);
                    if ui.selectable_label(self.choices.parents.get(&refused.image) == Some(&other.path), words).clicked() {
                        self.choices.parents.insert(refused.image.clone(), other.path.clone());
                    }
                }
            });
            list.response.labelled_by(label.id);
        });
        ui.add_space(6.0);
    }
}

/// Free what repairs keep.
pub(super) fn forget(ui: &mut Ui, (folder, kept): (&Path, ByteCount), foot: &mut Foot) {
    facts(
        ui,
        [
            format!("{} come back at once. No image is changed.", text::bytes(kept)),
            "The repairs of this folder can't be taken back any more.".into(),
        ],
    );
    (foot.label, foot.danger) = ("Free it".into(), true);
    foot.action = Some(Action::Send(Command::ForgetRepairs(folder.to_owned())));
}

fn step(ui: &mut Ui, step: &Step, folder: &Path) {
    let p = theme::palette(ui);
    let image = step.change.image();
    ui.label(theme::bold(text::inside(image, folder)));
    // Its name stands above.
    let words = step.words.strip_prefix(&format!("{}: ", image.display())).unwrap_or(&step.words);
    ui.add(egui::Label::new(text::sentence(words)).wrap());
    for warning in &step.warnings {
        ui.add(egui::Label::new(RichText::new(format!("{}.", text::sentence(warning))).color(p.warn)).wrap());
    }
    if let Change::Relink { child, may_differ, .. } = &step.change
        && !may_differ.ranges.is_empty()
    {
        CollapsingHeader::new("Which").id_salt(child).show(ui, |ui| {
            for range in &may_differ.ranges {
                figure_line(ui, &format!("From byte {}", range.offset), &text::bytes(ByteCount(range.length)), false);
            }
            if may_differ.more > 0 {
                ui.weak(format!("and {} more", may_differ.more));
            }
        });
    }
    ui.add_space(6.0);
}
