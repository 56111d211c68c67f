//! Import images, adopt a machine of a folder, open a folder.

use std::path::{Path, PathBuf};

use egui::Ui;
use snaptree_core::engine::{self, Command, ImportMode};
use snaptree_core::vm::qemu::OtherFormat;

use super::hardware::Parts;
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
    /// Whether QEMU shall run it.
    runs: bool,
    parts: Parts,
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

    pub(super) fn show(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        if self.adopted.is_none() {
            let what = "Disk image (of a chain the newest), or a folder";
            let path = field(ui, what, &mut self.path, "/path/to/disk.vhdx");
            focus_first(ui, &path, &self.path);
            if ui.button("Browse…").clicked() {
                foot.other = Some(Action::Pick(PickFor::Import));
            }
        }
        field(ui, "Name of the machine", &mut self.name, "WEB01");
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
        let mode = if self.is_converted() { ImportMode::Copy } else { self.mode };
        foot.danger = mode == ImportMode::Move;
        let name = self.name.trim().to_owned();
        foot.unfilled = self.path.trim().is_empty() || name.is_empty();
        if self.path.trim().is_empty() {
            foot.refused = Some("Choose a file or a folder.".into());
        } else if name.is_empty() {
            foot.refused = Some("A machine needs a name.".into());
        } else if model.machines.values().any(|m| m.name() == name && !m.read_only()) {
            foot.refused = Some(format!("There is a machine called “{name}” already."));
        }
        if let Some(problem) = self.parts.problem(1).filter(|_| self.runs && foot.refused.is_none()) {
            foot.refused = Some(problem);
        }
        let computer = self.runs.then(|| self.parts.computer());
        let path = PathBuf::from(self.path.trim());
        foot.action = Some(Action::Send(Command::Import(engine::Import { path, name, mode, computer })));
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
