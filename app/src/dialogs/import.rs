//! Import images, adopt a machine of a folder, open a folder.

use std::path::{Path, PathBuf};

use egui::Ui;
use snaptree_core::engine::{self, Command, ImportMode, RequestId};
use snaptree_core::vm::qemu::OtherFormat;

use super::hardware::Parts;
use super::{Dialog, Foot, PickFor, facts, field, focus_first, name_refused, refuse};
use crate::action::Action;
use crate::model::{MachineEntry, Model};
use crate::text;
use crate::widgets::{caption, figure_line};

/// What is typed.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    path: String,
    name: String,
    mode: ImportMode,
    /// A machine of an opened folder: its files, each with its bytes.
    adopted: Option<Vec<(String, String)>>,
    /// Whether QEMU shall run it.
    runs: bool,
    parts: Parts,
    /// What the plan is of.
    asked: Option<engine::Import>,
    pub(super) plan: Option<RequestId>,
}

impl Default for Import {
    fn default() -> Self {
        Self {
            path: String::new(),
            name: String::new(),
            mode: ImportMode::Copy,
            adopted: None,
            runs: false,
            parts: Parts::usual(),
            asked: None,
            plan: None,
        }
    }
}

impl Import {
    /// A machine of an opened folder.
    pub fn adopt(machine: &MachineEntry) -> Self {
        let m = &machine.state.machine;
        let leaf = m.now.images.values().next().and_then(|i| m.images.get(i)).map(|i| machine.path(&i.file));
        let files = m.images.iter().map(|(id, i)| (i.file.display().to_string(), text::bytes(machine.figures.image_held(*id))));
        Self {
            path: leaf.unwrap_or_else(|| machine.state.folder.clone()).display().to_string(),
            name: m.name.clone(),
            mode: ImportMode::Copy,
            adopted: Some(files.collect()),
            ..Self::default()
        }
    }

    /// A file was chosen in the system's dialog.
    pub fn chosen(&mut self, path: &Path) {
        self.path = path.display().to_string();
        if self.name.is_empty() {
            self.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        }
    }

    pub(super) fn title(&self) -> String {
        match self.adopted {
            Some(_) => format!("Adopt {}", self.name),
            None => "Import images".into(),
        }
    }

    /// What it asks for, once that is known.
    pub fn command(&self) -> Option<Command> {
        self.request().map(Command::Import)
    }

    fn request(&self) -> Option<engine::Import> {
        let (path, name) = (PathBuf::from(self.path.trim()), self.name.trim().to_owned());
        let mode = if self.is_converted() { ImportMode::Copy } else { self.mode };
        let computer = self.runs.then(|| self.parts.computer());
        (path.is_absolute() && !name.is_empty()).then_some(engine::Import { path, name, mode, computer })
    }

    pub(super) fn show(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        let mut typing = false;
        if self.adopted.is_none() {
            let what = "Disk image (of a chain the newest), or a folder";
            let path = field(ui, what, &mut self.path, "/path/to/disk.vhdx");
            focus_first(ui, &path, &self.path);
            typing |= path.has_focus();
            if ui.button("Browse…").clicked() {
                foot.other = Some(Action::Pick(PickFor::Import));
            }
        }
        typing |= field(ui, "Name of the machine", &mut self.name, "WEB01").has_focus();
        if self.is_converted() {
            facts(ui, ["It is converted to VHDX; the original stays untouched.".to_owned()]);
        } else {
            ui.radio_value(&mut self.mode, ImportMode::Copy, "Copy the files; the originals stay untouched");
            ui.radio_value(&mut self.mode, ImportMode::Move, "Move the files into the library");
            if self.mode == ImportMode::Move {
                facts(ui, ["Other programs no longer find the files where they were.".to_owned()]);
            }
        }
        ui.checkbox(&mut self.runs, "Let QEMU run it");
        if self.runs {
            self.parts.show(ui);
            facts(ui, ["Nothing else may run on these disks: not the machine that they came from.".to_owned()]);
        }
        if let Some(files) = &self.adopted {
            caption(ui, if self.mode == ImportMode::Copy { "Files that are copied" } else { "Files that are moved" });
            egui::ScrollArea::vertical().max_height(180.0).show(ui, |ui| {
                for (file, held) in files {
                    figure_line(ui, file, held, false);
                }
            });
        }
        foot.label = if self.adopted.is_some() { "Adopt" } else { "Import" }.into();
        let request = self.request();
        foot.danger = request.as_ref().is_some_and(|request| request.mode == ImportMode::Move);
        foot.unfilled = self.path.trim().is_empty() || self.name.trim().is_empty();
        foot.refused = if self.path.trim().is_empty() {
            Some("Choose a file or a folder.".into())
        } else {
            let relative = || request.is_none().then(|| "Give the whole path.".into());
            let problem = || self.runs.then(|| self.parts.problem(1)).flatten();
            name_refused(model, self.name.trim()).or_else(relative).or_else(problem)
        };
        if foot.refused.is_none() {
            refuse(foot, model, self.plan.filter(|_| request == self.asked));
        }
        foot.action = request.clone().map(|request| Action::Send(Command::Import(request)));
        // The engine looks again once nobody types.
        if !typing && foot.other.is_none() && request.is_some() && request != self.asked {
            self.asked = request;
            foot.other = Some(Action::Open(Box::new(Dialog::Import(self.clone()))));
        }
    }

    /// Whether it is of another program's format.
    fn is_converted(&self) -> bool {
        self.adopted.is_none() && OtherFormat::of(Path::new(self.path.trim())).is_some()
    }
}

/// Type a path, or browse.
pub(super) fn open_folder(ui: &mut Ui, path: &mut String, foot: &mut Foot) {
    let response = field(ui, "Folder", path, "/path/to/machine");
    focus_first(ui, &response, path);
    if ui.button("Browse…").clicked() {
        foot.other = Some(Action::Pick(PickFor::OpenFolder));
    }
    facts(ui, ["Its disk images are looked at where they are. Nothing in the folder is changed.".to_owned()]);
    foot.label = "Open".into();
    foot.unfilled = path.trim().is_empty();
    if foot.unfilled {
        foot.refused = Some("Choose a folder.".into());
    }
    foot.action = Some(Action::OpenPath(PathBuf::from(path.trim())));
}
