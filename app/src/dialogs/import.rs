//! Import images, adopt a machine of a folder, open a folder.

use std::path::{Path, PathBuf};

use egui::Ui;
use snaptree_core::engine::{Command, ImportMode};

use super::{Foot, PickFor, facts, field, focus_first};
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
}

impl Default for Import {
    fn default() -> Self {
        Self { path: String::new(), name: String::new(), mode: ImportMode::Copy, adopted: None }
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

    pub(super) fn show(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        if self.adopted.is_none() {
            let path = field(ui, "VHD or VHDX file (the newest of its chain), or a folder", &mut self.path, "/path/to/disk.vhdx");
            focus_first(ui, &path, &self.path);
            if ui.button("Browse…").clicked() {
                foot.other = Some(Action::Pick(PickFor::Import));
            }
        }
        field(ui, "Name of the machine", &mut self.name, "WEB01");
        ui.radio_value(&mut self.mode, ImportMode::Copy, "Copy the files; the originals stay untouched");
        ui.radio_value(&mut self.mode, ImportMode::Move, "Move the files into the library");
        if self.mode == ImportMode::Move {
            facts(ui, ["Other programs no longer find the files where they were.".to_owned()]);
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
        foot.danger = self.mode == ImportMode::Move;
        let name = self.name.trim().to_owned();
        foot.unfilled = self.path.trim().is_empty() || name.is_empty();
        if self.path.trim().is_empty() {
            foot.refused = Some("Choose a file or a folder.".into());
        } else if name.is_empty() {
            foot.refused = Some("A machine needs a name.".into());
        } else if model.machines.values().any(|m| m.name() == name && !m.read_only()) {
            foot.refused = Some(format!("There is a machine called “{name}” already."));
        }
        foot.action = Some(Action::Send(Command::Import { path: PathBuf::from(self.path.trim()), name, mode: self.mode }));
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
