//! Look into an image: what it reads through, its parts, its blocks, and where the disk's data is. The engine looks.

use std::path::Path;

use egui::{Color32, CornerRadius, Rect, RichText, Sense, Stroke, Ui, pos2, vec2};
use snaptree_core::chain::{BlockMap, Inspected, Inspection};
use snaptree_core::disk::{ImageFormat, ImageType, Structure};
use snaptree_core::engine::{Command, RequestId};

use super::{Disks, Foot, PickFor};
use crate::action::Action;
use crate::dialogs::Dialog;
use crate::model::Model;
use crate::text;
use crate::theme;
use crate::view::View;
use crate::widgets::{caption, figure_line};

/// Squares of the map in a row, and how far they are apart.
const COLUMNS: usize = 64;
const PITCH: f32 = 11.0;

/// Which image, and what is shown of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspect {
    disks: Disks,
    /// The image whose parts are shown, by its place; the last one at first.
    shown: Option<usize>,
    /// Of which file the answer is.
    asked: Option<std::path::PathBuf>,
    pub(super) plan: Option<RequestId>,
}

impl Inspect {
    /// Into the image that is selected.
    pub fn new(model: &Model, view: &View) -> Self {
        let disks = Disks::of_selected(model, view);
        let asked = disks.image();
        Self { disks, shown: None, asked, plan: None }
    }

    /// Into this one, whose parents are in this folder.
    pub fn of_file(image: &Path, folder: &Path) -> Self {
        let disks = Disks::of_file(image, folder);
        let asked = disks.image();
        Self { disks, shown: None, asked, plan: None }
    }

    /// A file was chosen in the system's dialog.
    pub fn chosen(&mut self, _: PickFor, path: &Path) {
        self.disks.choose(path);
    }

    /// What it asks for, where an image is chosen.
    pub fn command(&self) -> Option<Command> {
        let image = self.disks.image().filter(|image| image.is_absolute())?;
        Some(Command::Inspect { image, folders: self.disks.folders.clone() })
    }

    pub(super) fn show(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        foot.close = "Close";
        let typing = self.disks.show(ui, foot);
        let image = self.disks.image();
        if !typing && foot.other.is_none() && image != self.asked {
            (self.asked, self.shown) = (image, None);
            foot.other = Some(Action::Open(Box::new(Dialog::Inspect(self.clone()))));
        }
        let p = theme::palette(ui);
        let Some(plan) = self.plan else {
            ui.weak("Choose an image.");
            return;
        };
        match (model.jobs.inspection(plan), model.jobs.plan(plan)) {
            (Some(seen), _) => self.of(ui, seen),
            (None, Some(Err(why))) => {
                let said = ui.colored_label(p.bad, why);
                said.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Status, true, why));
            }
            _ => {
                ui.horizontal(|ui| {
                    ui.spinner();
                    ui.weak("Looking…");
                });
            }
        }
    }

    fn of(&mut self, ui: &mut Ui, seen: &Inspection) {
        let p = theme::palette(ui);
        let last = seen.images.len().saturating_sub(1);
        let shown = self.shown.filter(|shown| *shown <= last).unwrap_or(last);
        caption(ui, "Reads through, the newest first");
        egui::ScrollArea::vertical().id_salt("chain").max_height(98.0).show(ui, |ui| {
            for (place, image) in seen.images.iter().enumerate().rev() {
                ui.horizontal(|ui| {
                    let (rect, _) = ui.allocate_exact_size(vec2(12.0, 18.0), Sense::hover());
                    let swatch = Rect::from_center_size(rect.center(), vec2(10.0, 10.0));
                    ui.painter().rect_filled(swatch, CornerRadius::same(2), color_of(ui, place, last));
                    let name = image.path.file_name().unwrap_or_default().to_string_lossy();
                    let wrong = if image.problems.is_empty() { "" } else { ", damaged" };
                    let words = format!("{name}: {}{wrong}, {} held", kind(image), text::bytes(image.held));
                    if ui.selectable_label(place == shown, words).on_hover_text(image.path.display().to_string()).clicked() {
                        self.shown = Some(place);
                    }
                });
            }
        });
        if let Some(why) = &seen.broken {
            let said = ui.colored_label(p.bad, format!("The chain is broken: {why}"));
            said.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Status, true, format!("The chain is broken: {why}")));
        }
        caption(ui, "Where the disk's data is");
        map(ui, &seen.map, last);
        let Some(image) = seen.images.get(shown) else { return };
        caption(ui, &image.path.file_name().unwrap_or_default().to_string_lossy());
        for problem in &image.problems {
            ui.colored_label(p.bad, problem);
        }
        let b = &image.blocks;
        let blocks = format!(
            "{} with data, {} in part, {} of zeros, {} without a place",
            number(b.data),
            number(b.partial),
            number(b.zero),
            number(b.absent)
        );
        let all = b.data + b.partial + b.zero + b.absent;
        figure_line(ui, &format!("{} blocks of {}", number(all), text::bytes(image.info.block_size)), &blocks, false);
        let file = format!("{}, of which {} are held", text::bytes(image.length), text::bytes(image.held));
        figure_line(ui, &format!("Disk of {}", text::bytes(image.info.virtual_size)), &format!("file of {file}"), false);
        ui.add_space(4.0);
        egui::ScrollArea::vertical().id_salt("parts").max_height(130.0).auto_shrink([false, true]).show(ui, |ui| {
            for (number, part) in image.parts.iter().enumerate() {
                self::part(ui, (shown, number), part);
            }
        });
    }
}

/// A part of the file, opened by a click.
fn part(ui: &mut Ui, id: (usize, usize), part: &Structure) {
    let place = format!("{}, {} bytes at {}", part.name, number(part.length), number(part.offset));
    egui::CollapsingHeader::new(place).id_salt(id).show(ui, |ui| {
        for (name, value) in &part.says {
            figure_line(ui, name, value, true);
        }
    });
}

fn kind(image: &Inspected) -> String {
    let format = match image.info.format {
        ImageFormat::Vhdx => "VHDX",
        ImageFormat::Vhd => "VHD",
    };
    let kind = match image.info.kind {
        ImageType::Fixed => "fixed",
        ImageType::Dynamic => "dynamic",
        ImageType::Differencing => "differencing",
    };
    format!("{kind} {format}")
}

/// "1 234 567".
fn number(n: u64) -> String {
    let digits = n.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group).into_owned());
    groups.collect::<Vec<_>>().join("\u{202f}")
}

/// The colour of an image of a chain: from the newest on, each its own.
fn color_of(ui: &Ui, place: usize, last: usize) -> Color32 {
    let depth = (last - place.min(last)) as f32;
    let (saturation, value) = if ui.visuals().dark_mode { (0.55, 0.85) } else { (0.7, 0.7) };
    egui::ecolor::Hsva::new((0.58 + depth * 0.381_966).fract(), saturation, value, 1.0).into()
}

/// The map as a picture: a square's colour is its image's, and the more of it is data the fuller it is.
fn map(ui: &mut Ui, map: &BlockMap, last: usize) {
    let p = theme::palette(ui);
    let rows = map.squares.len().div_ceil(COLUMNS);
    let size = vec2(COLUMNS as f32 * PITCH, rows as f32 * PITCH);
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    let painter = ui.painter_at(rect);
    for (place, square) in map.squares.iter().enumerate() {
        let at = rect.min + vec2((place % COLUMNS) as f32, (place / COLUMNS) as f32) * PITCH;
        let cell = Rect::from_min_size(at, vec2(PITCH - 1.0, PITCH - 1.0));
        painter.rect_filled(cell, CornerRadius::ZERO, p.track);
        let Some(owner) = square.owner else { continue };
        let color = color_of(ui, owner.into(), last);
        if square.data == 0 {
            painter.rect_stroke(cell, CornerRadius::ZERO, Stroke::new(1.0, color), egui::StrokeKind::Inside);
            continue;
        }
        // From the foot, so that a bit of data can be seen.
        let height = (cell.height() * f32::from(square.data) / 255.0).max(2.0);
        let full = Rect::from_min_max(pos2(cell.left(), cell.bottom() - height), cell.max);
        painter.rect_filled(full, CornerRadius::ZERO, color);
    }
    let held = map.squares.iter().filter(|square| square.owner.is_some()).count();
    let words = format!(
        "Block map: {} squares of {}, {} of them held by an image",
        number(map.squares.len() as u64),
        text::bytes(map.square),
        number(held as u64)
    );
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, &words));
    let legend = format!("A square is {} of the disk, filled as far as it is data", text::bytes(map.square));
    ui.label(RichText::new(legend).font(theme::small()).color(p.weak));
}
