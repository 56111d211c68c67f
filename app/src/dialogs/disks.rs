//! Which image a dialog is about: a disk of what is selected, or any file.

use std::path::{Path, PathBuf};

use egui::{ComboBox, Ui};

use super::{Foot, PickFor, field};
use crate::action::Action;
use crate::model::{Model, Node};
use crate::view::View;

/// The images to choose from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Disks {
    /// The disks of what was selected: how each is called, and its image.
    of_node: Vec<(String, PathBuf)>,
    /// Where parents may be, beside the image's own folder.
    pub(super) folders: Vec<PathBuf>,
    /// The image as it is typed.
    path: String,
}

impl Disks {
    /// Of the selected row; of none where no machine is shown, or the row has no images any more.
    pub(super) fn of_selected(model: &Model, view: &View) -> Self {
        let Some(entry) = model.machine(view.machine) else { return Self::default() };
        let machine = &entry.state.machine;
        let (label, images) = match view.selected_in(entry) {
            Some(Node::Snapshot(id)) => match machine.snapshots.get(&id) {
                Some(snapshot) => (&*snapshot.label, &snapshot.images),
                None => return Self::default(),
            },
            _ => ("Now", &machine.now.images),
        };
        let named = images.iter().filter_map(|(disk, image)| {
            let file = &machine.images.get(image)?.file;
            Some((format!("{disk} of {label}"), entry.path(file)))
        });
        let of_node: Vec<_> = named.collect();
        let files = machine.images.values().map(|image| entry.path(&image.file));
        let mut folders: Vec<_> = files.filter_map(|file| file.parent().map(Path::to_path_buf)).collect();
        folders.sort();
        folders.dedup();
        let path = of_node.first().map(|(_, path)| path.display().to_string()).unwrap_or_default();
        Self { of_node, folders, path }
    }

    /// This file, with parents in this folder.
    pub(super) fn of_file(image: &Path, folder: &Path) -> Self {
        Self { of_node: Vec::new(), folders: vec![folder.to_owned()], path: image.display().to_string() }
    }

    pub(super) fn image(&self) -> Option<PathBuf> {
        Some(self.path.trim()).filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    pub(super) fn choose(&mut self, path: &Path) {
        self.path = path.display().to_string();
    }

    /// Answers whether somebody types.
    pub(super) fn show(&mut self, ui: &mut Ui, foot: &mut Foot) -> bool {
        if self.of_node.len() > 1 {
            let label = ui.label("Disk");
            let is = |path: &Path| Path::new(self.path.trim()) == path;
            let chosen = self.of_node.iter().find(|(_, path)| is(path)).map_or("another file", |(name, _)| name);
            let chosen = ComboBox::from_id_salt("disk of node").selected_text(chosen.to_owned()).show_ui(ui, |ui| {
                for (name, path) in &self.of_node {
                    ui.selectable_value(&mut self.path, path.display().to_string(), name);
                }
            });
            chosen.response.labelled_by(label.id);
        }
        let image = field(ui, "Image that shows the disk", &mut self.path, "/path/to/disk.avhdx");
        if ui.button("Another file…").clicked() {
            foot.other = Some(Action::Pick(PickFor::Image));
        }
        image.has_focus()
    }
}
