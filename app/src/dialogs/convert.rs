//! Write the disk that an image shows to one new file, of any format.

use std::path::{Path, PathBuf};

use egui::Ui;
use snaptree_core::chain::Target;
use snaptree_core::disk::{ImageFormat, ImageType};
use snaptree_core::engine::{Command, ConvertImage, Plan, RequestId};

use super::{Disks, Foot, PickFor, facts, field, focus_first, refuse};
use crate::action::Action;
use crate::dialogs::Dialog;
use crate::model::Model;
use crate::text;
use crate::view::View;

/// What is typed and chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Convert {
    disks: Disks,
    to: String,
    format: Option<ImageFormat>,
    fixed: bool,
    /// What the plan that is shown is of.
    asked: Option<ConvertImage>,
    pub(super) plan: Option<RequestId>,
}

impl Convert {
    /// Of the disk that is selected.
    pub fn new(model: &Model, view: &View) -> Self {
        let (disks, format) = (Disks::of_selected(model, view), Some(ImageFormat::Vhdx));
        Self { disks, to: String::new(), format, fixed: false, asked: None, plan: None }
    }

    /// A file was chosen in the system's dialog.
    pub fn chosen(&mut self, why: PickFor, path: &Path) {
        match why {
            PickFor::NewFile => {
                self.to = path.display().to_string();
                self.name_it();
            }
            _ => self.disks.choose(path),
        }
    }

    fn ending(&self) -> &'static str {
        self.format.map_or("raw", ImageFormat::extension)
    }

    /// The name says the format.
    fn name_it(&mut self) {
        if !self.to.trim().is_empty() {
            self.to = Path::new(self.to.trim()).with_extension(self.ending()).display().to_string();
        }
    }

    fn request(&self) -> Option<ConvertImage> {
        let image = self.disks.image()?;
        let to = PathBuf::from(self.to.trim());
        let kind = if self.fixed { ImageType::Fixed } else { ImageType::Dynamic };
        let target = self.format.map_or(Target::Raw, |format| Target::Image { format, kind, block_size: None });
        let raw = image.extension().is_some_and(|end| end.eq_ignore_ascii_case("raw") || end.eq_ignore_ascii_case("img"));
        let complete = image.is_absolute() && to.is_absolute();
        complete.then(|| ConvertImage { image, raw, folders: self.disks.folders.clone(), to, target })
    }

    /// What it asks for, once that is known.
    pub fn command(&self) -> Option<Command> {
        self.request().map(Command::Convert)
    }

    pub(super) fn show(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        let mut typing = self.disks.show(ui, foot);
        let hint = format!("/path/to/disk.{}", self.ending());
        let to = field(ui, "New file", &mut self.to, &hint);
        focus_first(ui, &to, &self.to);
        typing |= to.has_focus();
        if ui.button("Choose where…").clicked() {
            foot.other = Some(Action::Pick(PickFor::NewFile));
        }
        let before = self.format;
        ui.radio_value(&mut self.format, Some(ImageFormat::Vhdx), "VHDX, which is recommended");
        ui.radio_value(&mut self.format, Some(ImageFormat::Vhd), "VHD, for hosts before 2012: disks of 2040 GiB at most");
        ui.radio_value(&mut self.format, None, "Raw: the disk's bytes alone");
        if self.format != before {
            self.name_it();
        }
        ui.add_enabled_ui(self.format.is_some(), |ui| {
            ui.checkbox(&mut self.fixed, "Of fixed size: every block has its place from the start");
        });
        let most = match self.plan.and_then(|id| model.jobs.plan(id)) {
            Some(Ok(Plan::Convert { most })) => {
                Some(format!("Up to {} are written. What is zero takes no space.", text::bytes(*most)))
            }
            _ => None,
        };
        facts(
            ui,
            most.into_iter().chain([
                "It holds all that the image shows, through all that it reads through. Those files stay as they are.".to_owned(),
                "Until it is whole it has another name; nothing is left of one that is cancelled.".to_owned(),
            ]),
        );
        foot.label = "Write".into();
        let request = self.request();
        match &request {
            None => {
                let filled = self.disks.image().is_some() && !self.to.trim().is_empty();
                foot.unfilled = !filled;
                foot.refused = Some(if filled { "Give whole paths." } else { "Choose an image, and the new file." }.into());
            }
            Some(_) => refuse(foot, model, self.plan),
        }
        foot.action = request.clone().map(|request| Action::Send(Command::Convert(request)));
        // The engine looks again once nobody types.
        if !typing && foot.other.is_none() && request.is_some() && request != self.asked {
            self.asked = request;
            foot.other = Some(Action::Open(Box::new(Dialog::Convert(self.clone()))));
        }
    }
}
