//! Find a machine, a snapshot or a command by typing. Commands stand in the order of the table.

use crate::model::Node;
use egui::{Align2, Context, Id, Key, Modal, Modifiers, Role, ScrollArea, Sense, Stroke, TextEdit, Ui, vec2};

use super::put;
use crate::action::{Action, TABLE, key_text};
use crate::model::Model;
use crate::theme;
use crate::view::View;

/// The palette while it is open.
#[derive(Debug, Default)]
pub struct Palette {
    text: String,
    chosen: usize,
    /// Only snapshots.
    snapshots_only: bool,
    opened: Option<std::time::Instant>,
}

impl Palette {
    /// Opens it.
    pub fn new(snapshots_only: bool) -> Self {
        Self { snapshots_only, ..Self::default() }
    }
}

/// Something that was found.
struct Found {
    name: String,
    detail: String,
    /// Why it can't be done now.
    why_not: Option<String>,
    action: Action,
}

/// The second click of a double click comes within this.
const DOUBLE_CLICK: std::time::Duration = std::time::Duration::from_millis(400);

/// No more is listed.
const MOST: usize = 60;

fn matches(text: &str, name: &str) -> bool {
    let name = name.to_lowercase();
    text.split_whitespace().all(|word| name.contains(&word.to_lowercase()))
}

fn find(ctx: &Context, model: &Model, view: &View, palette: &Palette) -> Vec<Found> {
    let text = &palette.text;
    let mut found = Vec::new();
    if !palette.snapshots_only {
        for entry in TABLE.iter().filter(|e| e.verb.applies(model, view)) {
            let name = entry.verb.label(model, view).trim_end_matches('…').to_owned();
            if matches(text, &name) || matches(text, entry.tooltip) && text.len() > 2 {
                let why_not = entry.verb.enabled(model, view).err();
                found.push(Found { name, detail: key_text(ctx, entry), why_not, action: Action::Verb(entry.verb) });
            }
        }
        for (id, machine) in &model.machines {
            if matches(text, machine.name()) {
                let detail = "machine".into();
                found.push(Found { name: machine.name().into(), detail, why_not: None, action: Action::ShowMachine(*id) });
            }
        }
    }
    if palette.snapshots_only || !text.is_empty() {
        'all: for (id, machine) in &model.machines {
            for (snapshot, s) in &machine.state.machine.snapshots {
                if matches(text, &format!("{} {} {}", s.label, machine.name(), s.note)) {
                    let action = Action::SelectIn(*id, Node::Snapshot(*snapshot));
                    let detail = format!("{} · {}", machine.name(), model.when.short(s.taken));
                    found.push(Found { name: s.label.clone(), detail, why_not: None, action });
                    if found.len() >= MOST {
                        break 'all;
                    }
                }
            }
        }
    }
    found.truncate(MOST);
    found
}

/// Shows the palette, if it is open.
pub fn show(ctx: &Context, model: &Model, view: &mut View, actions: &mut Vec<Action>) {
    let Some(mut palette) = view.palette.take() else { return };
    let found = find(ctx, model, view, &palette);
    palette.chosen = palette.chosen.min(found.len().saturating_sub(1));
    let (down, up, enter) = ctx.input_mut(|i| {
        (
            i.count_and_consume_key(Modifiers::NONE, Key::ArrowDown),
            i.count_and_consume_key(Modifiers::NONE, Key::ArrowUp),
            i.consume_key(Modifiers::NONE, Key::Enter),
        )
    });
    palette.chosen = (palette.chosen + down).min(found.len().saturating_sub(1)).saturating_sub(up);
    let moved = down + up > 0;
    let mut run = enter.then_some(palette.chosen);
    let area = Modal::default_area(Id::unique("palette-area")).anchor(Align2::CENTER_TOP, vec2(0.0, 64.0));
    let frame = egui::Frame::window(&ctx.global_style()).inner_margin(10);
    let modal = Modal::new(Id::unique("palette")).area(area).frame(frame).show(ctx, |ui| {
        ui.set_width(540.0);
        let hint = if palette.snapshots_only { "Find a snapshot" } else { "Search or run a command" };
        let edit = TextEdit::singleline(&mut palette.text).hint_text(hint).desired_width(f32::INFINITY).margin(vec2(10.0, 7.0));
        let answer = ui.add(edit);
        answer.widget_info(|| egui::WidgetInfo::labeled(Role::SearchInput, true, hint));
        if palette.opened.is_none() {
            palette.opened = Some(std::time::Instant::now());
            answer.request_focus();
        }
        if answer.changed() {
            palette.chosen = 0;
        }
        ScrollArea::vertical().max_height(380.0).min_scrolled_height(380.0).auto_shrink([false, true]).show(ui, |ui| {
            ui.spacing_mut().item_spacing.y = 0.0;
            for (i, f) in found.iter().enumerate() {
                if line(ui, f, i == palette.chosen, moved) {
                    run = Some(i);
                }
            }
            if found.is_empty() {
                ui.add_space(6.0);
                ui.weak("Nothing is called that.");
            }
        });
    });
    // The second half of a double click on what opened it doesn't close it.
    let fresh = palette.opened.is_some_and(|since| since.elapsed() < DOUBLE_CLICK);
    let close = modal.should_close() && !(fresh && modal.backdrop_response.clicked());
    let chosen = run.and_then(|i| found.into_iter().nth(i));
    match chosen {
        Some(found) if found.why_not.is_none() => actions.push(found.action),
        _ if close => {}
        _ => view.palette = Some(palette),
    }
}

fn line(ui: &mut Ui, found: &Found, chosen: bool, reveal: bool) -> bool {
    let p = theme::palette(ui);
    let room = ui.available_width() - 20.0;
    let why = found.why_not.as_ref().map(|why| ui.painter().layout(why.clone(), theme::small(), p.weak, room));
    let height = why.as_ref().map_or(30.0, |why| 30.0 + why.size().y);
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::click());
    if chosen || response.hovered() {
        ui.painter().rect_filled(rect, 5.0, if chosen { p.selected } else { p.pointed });
    }
    if chosen && reveal {
        response.scroll_to_me(None);
    }
    let color = if found.why_not.is_some() { p.weak } else { p.text };
    let painter = ui.painter();
    let y = rect.top() + 15.0;
    let detail =
        put(painter, egui::pos2(rect.right() - 10.0, y), Align2::RIGHT_CENTER, &found.detail, theme::small(), p.weak, 220.0);
    let room = detail.left() - rect.left() - 20.0;
    put(painter, egui::pos2(rect.left() + 10.0, y), Align2::LEFT_CENTER, &found.name, theme::body(), color, room);
    if let Some(why) = why {
        painter.galley(egui::pos2(rect.left() + 10.0, y + 9.0), why, p.weak);
    }
    if chosen {
        ui.painter().rect_stroke(rect, 5.0, Stroke::new(1.0, p.accent.gamma_multiply(0.5)), egui::StrokeKind::Inside);
    }
    response.widget_info(|| egui::WidgetInfo::selected(Role::ListBoxOption, found.why_not.is_none(), chosen, &found.name));
    response.clicked()
}
