//! The page of files: what each image of a folder is, and what is wrong with it. The engine looks; nothing is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use egui::{Align2, CentralPanel, Frame, Key, Margin, Panel, RichText, ScrollArea, Sense, Ui, pos2, vec2};
use snaptree_core::diagnose::{Diagnosis, Finding, FolderKind, Standing};
use snaptree_core::disk::{ImageFormat, ImageType};
use snaptree_core::engine::RequestId;
use snaptree_core::units::ByteCount;

use crate::action::{Action, Verb};
use crate::dialogs::{Dialog, Inspect, Repair};
use crate::model::{MachineEntry, Model};
use crate::text;
use crate::theme::{self, Tone};
use crate::view::View;
use crate::widgets::{self, Kind, caption, figure_line, paint_pill, pill, pill_width, put};

/// What is shown of the files.
#[derive(Debug, Default)]
pub struct FilesView {
    /// Which folder was chosen; otherwise it is that of the machine that is shown.
    pub folder: Option<PathBuf>,
    /// Which folder was looked at, and under which name its answer comes.
    pub asked: Option<(PathBuf, RequestId)>,
    selected: Option<PathBuf>,
    rows: Option<(RequestId, Vec<Row>)>,
}

/// A row: an image by its place in the diagnosis, below what it reads through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    image: usize,
    depth: usize,
}

impl FilesView {
    /// What is known may be old.
    pub fn look_again(&mut self) {
        if let Some((folder, _)) = &mut self.asked {
            // No folder is there, so the page asks again.
            folder.clear();
        }
    }
}

/// Shows the page.
pub fn show(ui: &mut Ui, model: &Model, view: &mut View, actions: &mut Vec<Action>) {
    let p = theme::palette(ui);
    let side = |margin| Frame::NONE.fill(p.panel).inner_margin(margin);
    Panel::left("folders").frame(side(Margin::symmetric(7, 8))).default_size(196.0).size_range(150.0..=340.0).show(ui, |ui| {
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| folders(ui, model, view, actions));
    });
    let Some(folder) = shown(model, view).map(Path::to_owned) else {
        CentralPanel::default().show(ui, |ui| ui.centered_and_justified(|ui| ui.weak("Choose a machine or a folder.")));
        return;
    };
    let asked = view.files.asked.clone().filter(|(asked, _)| *asked == folder);
    let Some((_, id)) = asked else {
        actions.push(Action::Diagnose(folder));
        waiting(ui);
        return;
    };
    match (model.jobs.diagnosis(id), model.jobs.plan(id)) {
        (Some(found), _) => {
            if view.files.rows.as_ref().is_none_or(|(of, _)| *of != id) {
                view.files.rows = Some((id, rows(found)));
            }
            diagnosis(ui, found, view, actions);
        }
        (None, Some(Err(why))) => {
            CentralPanel::default().show(ui, |ui| {
                let said = ui.colored_label(p.bad, text::sentence(why));
                said.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Status, true, why));
            });
        }
        _ => waiting(ui),
    }
}

/// The folder that is shown.
fn shown<'a>(model: &'a Model, view: &'a View) -> Option<&'a Path> {
    view.files.folder.as_deref().or_else(|| model.machine(view.machine).map(MachineEntry::files_folder))
}

fn waiting(ui: &mut Ui) {
    CentralPanel::default().show(ui, |ui| {
        ui.centered_and_justified(|ui| ui.weak("Looking at the images…"));
    });
}

/// The machines of the library and the opened folders.
fn folders(ui: &mut Ui, model: &Model, view: &View, actions: &mut Vec<Action>) {
    ui.spacing_mut().item_spacing.y = 3.0;
    let shown = shown(model, view);
    for id in model.library_machines() {
        let Some(machine) = model.machine(Some(id)) else { continue };
        if folder(ui, machine.name(), &machine.state.folder, shown) {
            actions.push(Action::ShowFilesOf(machine.state.folder.clone()));
        }
    }
    let opened = model.folders();
    if !opened.is_empty() {
        caption(ui, "Folders");
    }
    for (path, _) in opened {
        if folder(ui, &text::file_name(&path), &path, shown) {
            actions.push(Action::ShowFilesOf(path));
        }
    }
    ui.add_space(6.0);
    if widgets::link(ui, "Open a folder…").clicked() {
        actions.push(Action::Verb(Verb::OpenFolder));
    }
}

fn folder(ui: &mut Ui, name: &str, path: &Path, shown: Option<&Path>) -> bool {
    let p = theme::palette(ui);
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 42.0), Sense::click());
    let chosen = shown == Some(path);
    if chosen || response.hovered() || response.has_focus() {
        ui.painter().rect_filled(rect, 6.0, if chosen { p.selected } else { p.hover.gamma_multiply(0.5) });
    }
    let (left, room) = (rect.left() + 9.0, rect.width() - 18.0);
    put(ui.painter(), pos2(left, rect.top() + 13.0), Align2::LEFT_CENTER, name, theme::strong(), p.text, room);
    let where_ = path.parent().unwrap_or(path).display().to_string();
    put(ui.painter(), pos2(left, rect.top() + 30.0), Align2::LEFT_CENTER, &where_, theme::small(), p.weak, room);
    response.widget_info(|| egui::WidgetInfo::selected(egui::Role::ListItem, true, chosen, format!("{name}, folder")));
    response.on_hover_text(path.display().to_string()).clicked()
}

/// Each image below its parent; what is wrong about parents doesn't hide any.
fn rows(found: &Diagnosis) -> Vec<Row> {
    let place: BTreeMap<&Path, usize> = found.images.iter().enumerate().map(|(at, image)| (&*image.path, at)).collect();
    let parent = |image: &Finding| image.parent.as_deref().and_then(|parent| place.get(parent).copied());
    let mut children: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, image) in found.images.iter().enumerate() {
        if let Some(parent) = parent(image) {
            children.entry(parent).or_default().push(at);
        }
    }
    let roots = (0..found.images.len()).filter(|at| parent(&found.images[*at]).is_none());
    let (mut rows, mut seen) = (Vec::new(), BTreeSet::new());
    // Those in a circle hang from nothing.
    for root in roots.chain(0..found.images.len()) {
        let mut open = vec![Row { image: root, depth: 0 }];
        while let Some(row) = open.pop() {
            if !seen.insert(row.image) {
                continue;
            }
            rows.push(row);
            let below = children.get(&row.image).into_iter().flatten().rev();
            open.extend(below.map(|child| Row { image: *child, depth: row.depth + 1 }));
        }
    }
    rows
}

/// How a state is shown.
fn tone(standing: Standing) -> Tone {
    match standing {
        Standing::Owned | Standing::Shared => Tone::Good,
        Standing::Held => Tone::Accent,
        Standing::LeftOver | Standing::Pending => Tone::Warn,
        Standing::Unclaimed => Tone::Weak,
        Standing::Orphaned | Standing::Broken => Tone::Bad,
    }
}

fn diagnosis(ui: &mut Ui, found: &Diagnosis, view: &mut View, actions: &mut Vec<Action>) {
    let p = theme::palette(ui);
    let rows = view.files.rows.take();
    let shown: &[Row] = rows.as_ref().map_or(&[], |(_, rows)| rows);
    let selected = view.files.selected.clone();
    let at = |path: &Option<PathBuf>| shown.iter().position(|row| Some(&found.images[row.image].path) == path.as_ref());
    if let Some(row) = at(&selected).or(if shown.is_empty() { None } else { Some(0) }) {
        let side = Frame::NONE.fill(p.panel).inner_margin(Margin::symmetric(14, 10));
        Panel::right("file").frame(side).default_size(300.0).size_range(220.0..=480.0).show(ui, |ui| {
            ScrollArea::vertical().auto_shrink(false).show(ui, |ui| details(ui, &found.images[shown[row].image], found, actions));
        });
    }
    CentralPanel::default().frame(Frame::NONE.fill(p.ground)).show(ui, |ui| {
        let margin = Margin { left: 14, right: 14, top: 9, bottom: 5 };
        Frame::NONE.inner_margin(margin).show(ui, |ui| head(ui, found, actions));
        let chosen = at(&selected).unwrap_or(0);
        if let Some(next) = list(ui, found, shown, chosen, view.dialog.is_none() && view.palette.is_none()) {
            view.files.selected = Some(found.images[shown[next].image].path.clone());
        }
    });
    view.files.rows = rows;
}

/// The folder, how many files of each state, and what else is wrong.
fn head(ui: &mut Ui, found: &Diagnosis, actions: &mut Vec<Action>) {
    let p = theme::palette(ui);
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing = vec2(6.0, 6.0);
        ui.label(RichText::new(text::file_name(&found.folder)).font(theme::heading()))
            .on_hover_text(found.folder.display().to_string());
        let kind = match found.kind {
            FolderKind::Machine => "a machine of this library",
            FolderKind::HyperV => "Hyper-V's machines",
            FolderKind::Images => "images without a configuration",
        };
        ui.label(RichText::new(kind).color(p.weak));
        if ui.button("Look again").clicked() {
            actions.push(Action::Diagnose(found.folder.clone()));
        }
        let is_wrong = found.defects().next().is_some();
        let kind = if is_wrong { Kind::Primary } else { Kind::Usual };
        let repair = widgets::button(ui, kind, "Repair…", found.kind != FolderKind::Machine);
        let repair = repair.on_hover_text("Says first what would be changed; nothing is done yet");
        let own = "A machine of the library puts itself right: open it, and what was cut short is completed";
        if repair.on_disabled_hover_text(own).clicked() {
            actions.push(Action::Open(Box::new(Dialog::Repair(Repair::new(&found.folder)))));
        }
    });
    ui.horizontal_wrapped(|ui| {
        let mut counts: BTreeMap<Standing, (usize, ByteCount)> = BTreeMap::new();
        for image in &found.images {
            let of = counts.entry(image.standing()).or_default();
            (of.0, of.1) = (of.0 + 1, of.1 + image.held);
        }
        for (standing, (count, held)) in &counts {
            pill(ui, &format!("{count} {} · {}", standing.word(), text::bytes(*held)), tone(*standing));
        }
        if counts.is_empty() {
            ui.weak("There are no images in it.");
        }
    });
    for problem in found.in_use.iter().chain(&found.problems).take(4) {
        ui.label(RichText::new(text::sentence(problem)).color(p.warn));
    }
    let more = (found.problems.len() + usize::from(found.in_use.is_some())).saturating_sub(4);
    if more > 0 {
        ui.weak(format!("and {more} more"));
    }
}

const ROW: f32 = 46.0;
/// How far a child is set in, and how often at most.
const SET_IN: f32 = 14.0;
const MOST_SET_IN: usize = 12;

/// The rows; answers which one was chosen.
fn list(ui: &mut Ui, found: &Diagnosis, rows: &[Row], chosen: usize, is_in_front: bool) -> Option<usize> {
    let step = |ui: &Ui, key| is_in_front && ui.input(|i| i.key_pressed(key));
    let mut next = match (step(ui, Key::ArrowDown), step(ui, Key::ArrowUp)) {
        (true, _) => Some((chosen + 1).min(rows.len().saturating_sub(1))),
        (_, true) => Some(chosen.saturating_sub(1)),
        _ => None,
    };
    let moved = next;
    ui.spacing_mut().item_spacing.y = 0.0;
    ScrollArea::vertical().auto_shrink(false).show_viewport(ui, |ui, sight| {
        let height = rows.len() as f32 * ROW;
        ui.set_height(height);
        let top = ui.min_rect().top();
        let first = (sight.top() / ROW).floor().max(0.0) as usize;
        let last = ((sight.bottom() / ROW).ceil() as usize).min(rows.len());
        for (at, row) in rows.iter().enumerate().take(last).skip(first) {
            let from = pos2(ui.min_rect().left(), top + at as f32 * ROW);
            let rect = egui::Rect::from_min_size(from, vec2(ui.available_width(), ROW));
            let image = &found.images[row.image];
            let response = file(ui, rect, image, row.depth, at == chosen);
            if response.clicked() {
                next = Some(at);
            }
            // A hint that is open stays as long as the pointer rests, also over what is opened by a key.
            if is_in_front {
                response.on_hover_text(format!("{}\n{}", image.path.display(), text::sentence(&image.reason)));
            }
        }
        if let Some(at) = moved {
            let from = pos2(ui.min_rect().left(), top + at as f32 * ROW);
            ui.scroll_to_rect(egui::Rect::from_min_size(from, vec2(10.0, ROW)), None);
        }
    });
    next.filter(|next| *next < rows.len() && *next != chosen)
}

/// A file: its state and name, what it holds, and why.
fn file(ui: &mut Ui, rect: egui::Rect, image: &Finding, depth: usize, chosen: bool) -> egui::Response {
    let p = theme::palette(ui);
    let response = ui.interact(rect, egui::Id::unique(("file", &image.path)), Sense::click());
    let painter = ui.painter().clone();
    if chosen {
        painter.rect_filled(rect, 0.0, p.selected);
        painter.rect_filled(rect.with_max_x(rect.left() + 3.0), 0.0, p.accent);
    } else if response.hovered() || response.has_focus() {
        painter.rect_filled(rect, 0.0, p.hover.gamma_multiply(0.5));
    }
    painter.hline(rect.x_range(), rect.bottom() - 0.5, egui::Stroke::new(1.0, p.line));
    let (standing, name) = (image.standing(), text::file_name(&image.path));
    let left = rect.left() + 16.0 + depth.min(MOST_SET_IN) as f32 * SET_IN;
    let (first, second) = (rect.top() + 15.0, rect.top() + 33.0);
    let held = text::bytes(image.held);
    let figure = put(&painter, pos2(rect.right() - 16.0, first), Align2::RIGHT_CENTER, &held, theme::body(), p.text, 90.0);
    let width = pill_width(ui, standing.word());
    let room = (figure.left() - left - width - 24.0).max(40.0);
    let name_at = put(&painter, pos2(left, first), Align2::LEFT_CENTER, &name, theme::strong(), p.text, room);
    paint_pill(&painter, pos2(name_at.right() + 8.0, first), standing.word(), tone(standing), p);
    let reason = text::sentence(&image.reason);
    let color = if image.defect.is_some() { p.bad } else { p.weak };
    put(&painter, pos2(left, second), Align2::LEFT_CENTER, &reason, theme::small(), color, rect.right() - left - 16.0);
    let said = format!("{name}, {}, {held}, {}", standing.word(), image.reason);
    response.widget_info(|| egui::WidgetInfo::selected(egui::Role::ListItem, true, chosen, &said));
    response
}

/// All that is known of one file.
fn details(ui: &mut Ui, image: &Finding, found: &Diagnosis, actions: &mut Vec<Action>) {
    let p = theme::palette(ui);
    ui.spacing_mut().item_spacing.y = 4.0;
    let relative = |path: &Path| text::inside(path, &found.folder);
    ui.label(RichText::new(text::file_name(&image.path)).font(theme::heading()));
    ui.label(RichText::new(relative(&image.path)).color(p.weak));
    ui.add_space(4.0);
    pill(ui, image.standing().word(), tone(image.standing()));
    for sentence in image.reason.split("; ") {
        ui.label(RichText::new(format!("{}.", text::sentence(sentence))).line_height(Some(18.0)));
    }
    if image.info.is_some() && ui.button("Look into it…").clicked() {
        actions.push(Action::Open(Box::new(Dialog::Inspect(Inspect::of_file(&image.path, &found.folder)))));
    }
    if let Some(info) = &image.info {
        caption(ui, "Image");
        let format = match info.format {
            ImageFormat::Vhdx => "VHDX",
            ImageFormat::Vhd => "VHD",
        };
        let kind = match info.kind {
            ImageType::Fixed => "fixed",
            ImageType::Dynamic => "dynamic",
            ImageType::Differencing => "differencing",
        };
        figure_line(ui, "Format", &format!("{kind} {format}"), false);
        figure_line(ui, "Disk", &text::bytes(info.virtual_size), false);
        figure_line(ui, "Held", &text::bytes(image.held), false);
        let id = info.data_write_id.hyphenated().to_string();
        figure_line(ui, "Identifier", &id, false).on_hover_text(&id);
        if let Some(expects) = image.expects {
            let expects = expects.hyphenated().to_string();
            figure_line(ui, "Expects of its parent", &expects, false).on_hover_text(&expects);
        }
    }
    let files = |ui: &mut Ui, title: &str, paths: &[PathBuf]| {
        if paths.is_empty() {
            return;
        }
        caption(ui, title);
        for path in paths.iter().take(20) {
            ui.label(relative(path));
        }
        if paths.len() > 20 {
            ui.weak(format!("and {} more", paths.len() - 20));
        }
    };
    files(ui, "Reads through", image.parent.as_slice());
    files(ui, "Read through by", &image.children);
    files(ui, "May be its parent too", &image.candidates);
}

#[cfg(test)]
mod tests;
