//! The page of machines: list, toolbar, tree, sums.

use std::path::Path;

use egui::{Align2, CentralPanel, Frame, Margin, Panel, RichText, ScrollArea, Sense, Ui, pos2, vec2};
use snaptree_core::engine::Power;
use snaptree_core::snapshot::MachineId;
use snaptree_core::units::ByteCount;

use super::details;
use crate::action::{Action, Place, TABLE, Verb};
use crate::model::{MachineEntry, Model};
use crate::theme::{self, Tone};
use crate::view::View;
use crate::widgets::{self, Kind, explain, paint_pill, put};
use crate::{text, tree};

/// The machine that is shown when none was chosen: the one of that name, else the library's first.
pub fn first(model: &Model, wanted: Option<&str>) -> Option<MachineId> {
    let library = model.library_machines();
    let named = library.iter().find(|id| model.machine(Some(**id)).is_some_and(|m| Some(m.name()) == wanted));
    named.or(library.first()).copied().or_else(|| model.folders().into_iter().flat_map(|(_, m)| m).next())
}

/// Shows the page.
pub fn show(ui: &mut Ui, model: &Model, view: &mut View, actions: &mut Vec<Action>) {
    let p = theme::palette(ui);
    let side = |margin| Frame::NONE.fill(p.panel).inner_margin(margin);
    Panel::left("machines").frame(side(Margin::symmetric(7, 8))).default_size(196.0).size_range(150.0..=340.0).show(ui, |ui| {
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| list(ui, model, view, actions));
    });
    let Some(machine) = model.machine(view.machine) else {
        CentralPanel::default().show(ui, |ui| ui.centered_and_justified(|ui| ui.weak("No machine is here to be shown.")));
        return;
    };
    Panel::right("details").frame(side(Margin::symmetric(14, 10))).default_size(280.0).size_range(220.0..=460.0).show(ui, |ui| {
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| details::show(ui, machine, model, view, actions));
    });
    let sums = Frame::NONE.fill(p.panel).inner_margin(Margin::symmetric(14, 7));
    Panel::bottom("sums").frame(sums).show(ui, |ui| footer(ui, machine, view, actions));
    CentralPanel::default().frame(Frame::NONE.fill(p.ground)).show(ui, |ui| {
        Frame::NONE
            .inner_margin(Margin { left: 14, right: 14, top: 9, bottom: 5 })
            .show(ui, |ui| toolbar(ui, machine, model, view, actions));
        notices(ui, machine, view);
        tree::show(ui, machine, model, view, actions);
    });
}

fn list(ui: &mut Ui, model: &Model, view: &View, actions: &mut Vec<Action>) {
    let p = theme::palette(ui);
    ui.spacing_mut().item_spacing.y = 3.0;
    for id in model.library_machines() {
        row(ui, model, view, id, actions);
    }
    let folders = model.folders();
    if !folders.is_empty() {
        widgets::caption(ui, "Folders");
    }
    for (folder, machines) in &folders {
        let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
        if machines.is_empty() {
            let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 42.0), Sense::click());
            let room = rect.width() - 16.0;
            put(
                ui.painter(),
                rect.min + vec2(f32::from(ROW_INSET), 13.0),
                Align2::LEFT_CENTER,
                &name,
                theme::strong(),
                p.text,
                room,
            );
            put(
                ui.painter(),
                rect.min + vec2(f32::from(ROW_INSET), 30.0),
                Align2::LEFT_CENTER,
                "no disk images found",
                theme::small(),
                p.weak,
                room,
            );
            let response = response.on_hover_text(folder.display().to_string());
            response.context_menu(|ui| {
                if ui.button(Verb::CloseFolder.entry().label).clicked() {
                    actions.push(Action::Send(snaptree_core::engine::Command::CloseFolder(folder.clone())));
                }
            });
        }
        for id in machines {
            row(ui, model, view, *id, actions);
        }
    }
    volumes(ui, model);
    let problems = model.library.as_ref().map(|l| l.problems.as_slice()).unwrap_or_default();
    if !problems.is_empty() {
        widgets::caption(ui, "Could not be read");
        for problem in problems {
            ui.label(RichText::new(problem).font(theme::small()).color(p.bad));
        }
    }
}

/// Names stand so far inside of what marks their row.
const ROW_INSET: i8 = 9;

/// A machine: name, state, depth, held, merge due.
fn row(ui: &mut Ui, model: &Model, view: &View, id: MachineId, actions: &mut Vec<Action>) {
    let Some(machine) = model.machine(Some(id)) else { return };
    let p = theme::palette(ui);
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 46.0), Sense::click());
    let chosen = view.machine == Some(id);
    if chosen || response.hovered() || response.has_focus() {
        ui.painter().rect_filled(rect, 6.0, if chosen { p.selected } else { p.hover.gamma_multiply(0.5) });
    }
    let up = machine.is_up();
    let power = if machine.read_only() { "read only" } else { text::power(&machine.state.power) };
    let mut pills = vec![(power.to_owned(), if up { Tone::Good } else { Tone::Weak })];
    if matches!(machine.state.power, Power::Failed(_) | Power::NoRoom) {
        pills[0].1 = Tone::Bad;
    }
    let depth = machine.figures.now.depth;
    if depth >= machine.state.machine.settings.warn_depth {
        pills.push((format!("{depth} deep"), Tone::Bad));
    }
    let width: f32 = pills.iter().map(|(t, _)| widgets::pill_width(ui, t) + 5.0).sum();
    let painter = ui.painter().clone();
    let top = rect.top() + 15.0;
    let room = (rect.width() - width - 22.0).max(36.0);
    let name = put(&painter, pos2(rect.left() + 9.0, top), Align2::LEFT_CENTER, machine.name(), theme::strong(), p.text, room);
    let mut x = name.right() + 7.0;
    for (word, tone) in &pills {
        x += paint_pill(&painter, pos2(x, top), word, *tone, p) + 5.0;
    }
    let mut second = format!("{} held", text::bytes(machine.figures.held));
    if machine.figures.due_total.merges > 0 {
        second += " · merge due";
    } else if depth < machine.state.machine.settings.warn_depth {
        second = format!("{depth} deep · {second}");
    }
    put(
        &painter,
        pos2(rect.left() + 9.0, rect.top() + 33.0),
        Align2::LEFT_CENTER,
        &second,
        theme::small(),
        p.weak,
        rect.width() - 18.0,
    );
    let said = format!("{}, machine, {power}, {depth} deep, {second}", machine.name());
    response.widget_info(|| egui::WidgetInfo::selected(egui::Role::ListItem, true, chosen, &said));
    if response.clicked() {
        actions.push(Action::ShowMachine(id));
    }
    if response.secondary_clicked() {
        actions.push(Action::ShowMachine(id));
    }
    response.on_hover_text(machine.state.folder.display().to_string()).context_menu(|ui| {
        if chosen && let Some(action) = widgets::verb_menu(ui, Place::Machine, model, view) {
            actions.push(action);
        }
    });
}

/// A volume, known to people by the folders on it.
struct Volume<'a> {
    id: &'a str,
    free: ByteCount,
    held: ByteCount,
    /// Below this, some machine on it soon stops.
    urgent: ByteCount,
    folders: Vec<&'a Path>,
}

impl Volume<'_> {
    fn is_of(&self, library: Option<&Path>) -> bool {
        library.is_some_and(|l| self.folders.contains(&l))
    }

    fn paths(&self) -> String {
        let mut paths: Vec<String> = self.folders.iter().map(|f| f.display().to_string()).collect();
        paths.sort();
        paths.dedup();
        paths.join("\n")
    }
}

fn volumes(ui: &mut Ui, model: &Model) {
    let p = theme::palette(ui);
    let library = model.library.as_ref().map(|l| l.folder.as_path());
    let mut seen: Vec<Volume<'_>> = Vec::new();
    for machine in model.machines.values() {
        let volume = &machine.state.volume;
        let held = machine.figures.held + machine.figures.trash;
        let folder = match &machine.state.place {
            snaptree_core::engine::Place::Library => library.unwrap_or(&machine.state.folder),
            snaptree_core::engine::Place::Folder(folder) => folder,
        };
        match seen.iter_mut().find(|v| v.id == volume.id) {
            Some(known) => {
                known.free = volume.free;
                known.urgent = known.urgent.max(machine.state.machine.settings.urgent_free);
                known.held += held;
                known.folders.push(folder);
            }
            None => {
                let urgent = machine.state.machine.settings.urgent_free;
                seen.push(Volume { id: &volume.id, free: volume.free, held, urgent, folders: vec![folder] });
            }
        }
    }
    // The library's own comes first.
    seen.sort_by_key(|v| !v.is_of(library));
    for volume in seen {
        let (free, held) = (volume.free, volume.held);
        let of_library = volume.is_of(library);
        let name = match volume.folders.first().and_then(|f| f.file_name()) {
            Some(name) if !of_library => format!("Volume of {}", name.to_string_lossy()),
            _ => "This library's volume".to_owned(),
        };
        // In line with the names above.
        egui::Frame::NONE.inner_margin(egui::Margin::symmetric(ROW_INSET, 0)).show(ui, |ui| {
            widgets::caption(ui, &name);
            // Of the machines' bytes and the free ones, the part that the machines hold.
            let share = if held.0 + free.0 == 0 { 0.0 } else { held.0 as f32 / (held.0 + free.0) as f32 };
            let tone = if free < volume.urgent {
                Tone::Bad
            } else if share > 0.85 {
                Tone::Warn
            } else {
                Tone::Plain
            };
            widgets::bar(ui, ui.available_width(), share, tone, "What machines hold of the volume")
                .on_hover_text(format!("What machines hold, against that and what is free\n{}", volume.paths()));
            let says = format!("{} free · {} held", text::bytes(free), text::bytes(held));
            ui.label(RichText::new(says).font(theme::small()).color(p.weak));
        });
    }
}

fn toolbar(ui: &mut Ui, machine: &MachineEntry, model: &Model, view: &mut View, actions: &mut Vec<Action>) {
    let mut played = None;
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing = vec2(6.0, 6.0);
        ui.label(RichText::new(machine.name()).font(theme::heading()));
        ui.add_space(4.0);
        let shown = TABLE.iter().filter(|e| e.places.contains(&Place::Toolbar)).filter(|e| e.verb.fits(machine));
        for entry in shown {
            let verb = entry.verb;
            let enabled = verb.enabled(model, view);
            let kind = if verb == Verb::Take || verb == Verb::Adopt { Kind::Primary } else { Kind::Usual };
            // The time comes when the blocks are counted: nobody must hit Pause instead of Stop then.
            let other = if verb == Verb::Merge { format!("Merge due · {}", text::ESTIMATE_SHORT) } else { String::new() };
            let response = widgets::button_with_room(ui, kind, verb.label(model, view), &other, enabled.is_ok());
            if enabled.is_ok() && (response.hovered() || response.has_focus()) {
                played = tree::played_by(verb, machine, model, view);
            }
            if explain(response, verb, &enabled).clicked() {
                actions.push(Action::Verb(verb));
            }
        }
        let more = ui.button("More");
        more.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, "More"));
        egui::Popup::menu(&more).show(|ui| {
            actions.extend(widgets::verb_menu(ui, Place::Machine, model, view));
        });
    });
    if view.dialog.is_none() {
        view.played = played;
    }
}

/// What stands between toolbar and tree: problems, the demo's hint, read-only.
fn notices(ui: &mut Ui, machine: &MachineEntry, view: &View) {
    let p = theme::palette(ui);
    let mut lines: Vec<(String, Tone)> = Vec::new();
    match &machine.state.power {
        Power::Failed(why) => lines.push((format!("It is off: {why}"), Tone::Bad)),
        Power::NoRoom => {
            let state = &machine.state;
            let why = text::no_room(state.volume.free, state.machine.settings.go_on_free());
            lines.push((format!("It is paused: {why}."), Tone::Bad));
        }
        _ => {}
    }
    lines.extend(machine.state.problems.iter().map(|why| (why.clone(), Tone::Bad)));
    for facts in machine.state.files.values() {
        lines.extend(facts.problem.iter().map(|why| (why.clone(), Tone::Bad)));
    }
    if machine.read_only() {
        let says = "Only looked at, in place: nothing in this folder is changed. Adopt it to take, apply, delete and merge.";
        lines.push((says.into(), Tone::Plain));
    }
    let is_opening = view.opening.machine.as_deref().is_none_or(|name| name == machine.name());
    lines.extend(view.opening.hint.iter().filter(|_| is_opening).map(|h| (h.clone(), Tone::Accent)));
    let more = lines.len().saturating_sub(4);
    lines.truncate(4);
    if more > 0 {
        lines.push((format!("and {more} more"), Tone::Weak));
    }
    for (line, tone) in lines {
        Frame::NONE.inner_margin(Margin::symmetric(14, 3)).show(ui, |ui| {
            let words = RichText::new(line).color(if tone == Tone::Plain { p.weak } else { p.tone(tone) });
            let margin = Margin { left: 11, ..Margin::ZERO };
            let rect = Frame::NONE.inner_margin(margin).show(ui, |ui| ui.label(words)).response.rect;
            ui.painter().rect_filled(rect.with_max_x(rect.left() + 3.0), 1.0, p.tone(tone));
        });
    }
}

/// What snapshots hold, and the sums of ticked rows.
fn footer(ui: &mut Ui, machine: &MachineEntry, view: &View, actions: &mut Vec<Action>) {
    let p = theme::palette(ui);
    let m = &machine.state.machine;
    let ticked = view.ticked_in(m);
    ui.horizontal(|ui| {
        ui.set_height(20.0);
        ui.spacing_mut().item_spacing.x = 4.0;
        if ticked.is_empty() {
            let alive = machine.tree.snapshots();
            ui.label(match (alive, m.ghosts.len()) {
                (0, 0) => "Now holds",
                (0, _) => "Now and deleted snapshots hold",
                _ => "Snapshots hold",
            });
            ui.label(theme::bold(text::bytes(machine.figures.held)));
            if alive > 0 {
                ui.label(RichText::new(format!("in {}", text::count(alive, "snapshot"))).color(p.weak));
            }
            if machine.figures.trash > ByteCount::ZERO {
                ui.label(RichText::new(format!("· {} more in the trash", text::bytes(machine.figures.trash))).color(p.weak));
            }
            return;
        }
        let Some(cost) = machine.figures.deletion_now(&ticked, false) else { return };
        ui.label(theme::bold(format!("Ticked {}:", ticked.len())));
        let back = cost.frees + cost.merges.comes_back;
        ui.label(format!("−{}", text::bytes(back)));
        if cost.merges.merges > 0 {
            ui.label(format!("· {}", text::merge(&cost.merges)));
        }
        ui.label(match text::reads_change(&cost) {
            Some(change) => format!("· then {change}"),
            None => format!("· {} deep as before", cost.after.depth),
        });
        if widgets::link(ui, "Untick").clicked() {
            actions.push(Action::Untick);
        }
    });
}
