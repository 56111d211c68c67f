//! Small things that several places show.

pub mod palette;
pub mod pictures;
pub mod tail;
pub mod toasts;

use std::ops::RangeInclusive;

use egui::emath::Numeric;
use egui::{
    Align2, Button, Color32, CornerRadius, DragValue, FontId, Painter, Pos2, Rect, Response, RichText, Sense, Stroke, Ui, pos2,
    vec2,
};

use snaptree_core::engine::has_powershell;

use crate::action::{Action, Place, TABLE, Verb, key_text};
use crate::dispatch::command_of;
use crate::model::Model;
use crate::theme::{self, Palette, Tone};
use crate::view::View;

/// What does the same on a Hyper-V host.
pub const COPY_POWERSHELL: &str = "Copy as PowerShell";

/// Paints one line of text, shortened with "…" where it doesn't fit. Answers where it stands.
pub fn put(painter: &Painter, at: Pos2, align: Align2, text: &str, font: FontId, color: Color32, room: f32) -> Rect {
    let mut job = egui::text::LayoutJob::simple_singleline(text.to_owned(), font, color);
    job.wrap = egui::text::TextWrapping::truncate_at_width(room.max(1.0));
    let galley = painter.layout_job(job);
    let rect = align.anchor_size(at, galley.size());
    painter.galley(rect.min, galley, color);
    rect
}

/// The same, at the left; where it doesn't fit, its last parts are left out before any letters are.
pub fn put_parts(painter: &Painter, at: Pos2, text: &str, font: FontId, color: Color32, room: f32) {
    let fits = |text: &str| painter.layout_no_wrap(text.to_owned(), font.clone(), color).size().x <= room;
    let mut shown = text;
    while !fits(shown)
        && let Some(end) = [" · ", ", ", ": "].iter().filter_map(|between| shown.rfind(between)).max()
    {
        shown = &shown[..end];
    }
    put(painter, at, Align2::LEFT_CENTER, shown, font, color, room);
}

/// Paints a picture with round corners. One of another shape than its place is framed in black, as on a screen.
pub fn paint_picture(painter: &Painter, rect: Rect, corner: u8, texture: &egui::TextureHandle) {
    let size = texture.size_vec2();
    let fitting = size * (rect.width() / size.x).min(rect.height() / size.y);
    let (rect, corner) = if (fitting - rect.size()).abs().max_elem() < 1.0 {
        (rect, corner)
    } else {
        painter.rect_filled(rect, CornerRadius::same(corner), Color32::BLACK);
        (Rect::from_center_size(rect.center(), fitting), 0)
    };
    let uv = Rect::from_min_max(pos2(0.0, 0.0), pos2(1.0, 1.0));
    let shape = egui::epaint::RectShape::filled(rect, CornerRadius::same(corner), Color32::WHITE);
    painter.add(shape.with_texture(texture.id(), uv));
}

/// Paints a disk, quietly: where a snapshot has no picture. `half` is half of its width.
pub fn paint_disk(painter: &Painter, at: Pos2, half: f32, p: &Palette) {
    let stroke = Stroke::new(1.2, p.faint);
    let (flat, high) = (half * 0.36, half * 0.62);
    let oval = |y: f32, from: f32, to: f32| {
        let points = (0..=24).map(|i| {
            let a = from + (to - from) * i as f32 / 24.0;
            pos2(at.x + half * a.cos(), y + flat * a.sin())
        });
        egui::Shape::line(points.collect(), stroke)
    };
    let half_turn = std::f32::consts::PI;
    painter.add(oval(at.y - high, 0.0, 2.0 * half_turn));
    painter.add(oval(at.y, 0.0, half_turn));
    painter.add(oval(at.y + high, 0.0, half_turn));
    for x in [at.x - half, at.x + half] {
        painter.line_segment([pos2(x, at.y - high), pos2(x, at.y + high)], stroke);
    }
}

/// How wide a pill is.
pub fn pill_width(ui: &Ui, text: &str) -> f32 {
    let galley = ui.painter().layout_no_wrap(text.to_owned(), theme::tiny(), Color32::WHITE);
    galley.size().x + 12.0
}

/// Paints a pill whose left end is at `at`; answers its width.
pub fn paint_pill(painter: &Painter, at: Pos2, text: &str, tone: Tone, p: &Palette) -> f32 {
    let color = p.tone(tone);
    let galley = painter.layout_no_wrap(text.to_owned(), theme::tiny(), color);
    let rect = Rect::from_min_size(pos2(at.x, at.y - 8.0), vec2(galley.size().x + 12.0, 16.0));
    let ground = if tone == Tone::Weak || tone == Tone::Plain { p.raised } else { color.gamma_multiply(0.17) };
    let line = if tone == Tone::Weak || tone == Tone::Plain { p.line } else { color.gamma_multiply(0.3) };
    painter.rect(rect, CornerRadius::same(8), ground, Stroke::new(1.0, line), egui::StrokeKind::Inside);
    painter.galley(pos2(rect.left() + 6.0, rect.center().y - galley.size().y / 2.0), galley, color);
    rect.width()
}

/// A pill in a layout.
pub fn pill(ui: &mut Ui, text: &str, tone: Tone) -> Response {
    let width = pill_width(ui, text);
    let (rect, response) = ui.allocate_exact_size(vec2(width, 18.0), Sense::hover());
    let p = theme::palette(ui);
    paint_pill(ui.painter(), rect.left_center(), text, tone, p);
    response
}

/// A whole number. An arrow key changes it by `step`: by egui's default, a quarter, it would change nothing.
pub fn whole_number<'a, N: Numeric>(value: &'a mut N, range: RangeInclusive<N>, step: u32, unit: &'a str) -> DragValue<'a> {
    DragValue::new(value).range(range).speed(step).suffix(unit)
}

/// Paints a bar of bytes.
pub fn paint_bar(painter: &Painter, track: Rect, share: f32, color: Color32, p: &Palette) {
    let round = CornerRadius::same((track.height() / 2.0) as u8);
    painter.rect_filled(track, round, p.track);
    if share > 0.0 {
        let width = (track.width() * share.clamp(0.0, 1.0)).max(3.0);
        painter.rect_filled(Rect::from_min_size(track.min, vec2(width, track.height())), round, color);
    }
}

/// A bar in a layout.
pub fn bar(ui: &mut Ui, width: f32, share: f32, tone: Tone, name: &str) -> Response {
    let (rect, response) = ui.allocate_exact_size(vec2(width, 12.0), Sense::hover());
    let p = theme::palette(ui);
    let color = if tone == Tone::Plain { p.bar } else { p.tone(tone) };
    paint_bar(ui.painter(), Rect::from_center_size(rect.center(), vec2(rect.width(), 6.0)), share, color, p);
    response.widget_info(|| {
        let mut info = egui::WidgetInfo::labeled(egui::Role::ProgressIndicator, true, name);
        info.value = Some(f64::from((share * 100.0).round()));
        info
    });
    response
}

/// The heading of a section.
pub fn caption(ui: &mut Ui, text: &str) {
    let p = theme::palette(ui);
    ui.add_space(8.0);
    let label = RichText::new(text.to_uppercase()).font(theme::caption()).color(p.weak).extra_letter_spacing(0.5);
    let response = ui.label(label);
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Heading, true, text));
}

/// What kind of button.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One of several.
    Usual,
    /// What one most probably wants.
    Primary,
    /// What destroys something.
    Danger,
}

/// A button of a kind.
pub fn button(ui: &mut Ui, kind: Kind, text: impl Into<String>, enabled: bool) -> Response {
    button_with_room(ui, kind, text, "", enabled)
}

/// The same with room for another text: what stands behind it doesn't move when it says that.
pub fn button_with_room(ui: &mut Ui, kind: Kind, text: impl Into<String>, other: &str, enabled: bool) -> Response {
    let p = theme::palette(ui);
    let text = text.into();
    let font = egui::TextStyle::Button.resolve(ui.style());
    let room = ui.painter().layout_no_wrap(other.to_owned(), font, p.text).size().x;
    let least = if other.is_empty() { 0.0 } else { room + 2.0 * ui.spacing().button_padding.x };
    let button = match kind {
        Kind::Usual => Button::new(text),
        Kind::Primary => Button::new(RichText::new(text).color(p.on_primary)).fill(p.primary).stroke(Stroke::new(1.0, p.primary)),
        Kind::Danger => Button::new(RichText::new(text).color(p.on_primary)).fill(p.danger).stroke(Stroke::new(1.0, p.danger)),
    };
    ui.add_enabled(enabled, button.min_size(vec2(least, 0.0)))
}

/// A button that looks like a link.
pub fn link(ui: &mut Ui, text: &str) -> Response {
    let p = theme::palette(ui);
    let button = Button::new(RichText::new(text).color(p.accent)).frame(false).small();
    ui.add(button).on_hover_cursor(egui::CursorIcon::PointingHand)
}

/// Copies the command that lets a machine run on while its memory is saved.
pub fn remedy(ui: &mut Ui, command: &str) {
    let tooltip = format!("{command}\n\nOnce, by somebody who may. It counts from the machine's next start on.");
    if link(ui, "Copy the command that lets it run on").on_hover_text(tooltip).clicked() {
        ui.ctx().copy_text(command.to_owned());
    }
}

/// Says what a verb does, or why it can't be done now.
pub fn explain(response: Response, verb: Verb, enabled: &Result<(), String>) -> Response {
    let entry = verb.entry();
    let key = key_text(&response.ctx, entry);
    match enabled {
        Ok(()) if key.is_empty() => response.on_hover_text(entry.tooltip),
        Ok(()) => response.on_hover_text(format!("{} ({key})", entry.tooltip)),
        Err(why) => response.on_disabled_hover_text(why),
    }
}

/// A line of a menu, with its key where it has one.
pub fn menu_button<'a>(label: impl Into<egui::WidgetText>, key: String) -> Button<'a> {
    let button = Button::new(label.into()).frame_when_inactive(false);
    // An empty key would be a part of its name.
    if key.is_empty() { button } else { button.shortcut_text(key) }
}

/// The verbs of a place as a menu; answers what was chosen.
pub fn verb_menu(ui: &mut Ui, place: Place, model: &Model, view: &View) -> Option<Action> {
    ui.set_min_width(230.0);
    let mut chosen = None;
    let copied = |ui: &mut Ui| {
        let mut copied = None;
        let shown = TABLE.iter().filter(|e| e.places.contains(&place)).filter(|e| e.verb.applies(model, view));
        for entry in shown.filter(|entry| entry.verb.enabled(model, view).is_ok()) {
            let command = command_of(entry.verb, model, view).filter(has_powershell);
            let Some(command) = command else { continue };
            if ui.button(entry.verb.entry().label.trim_end_matches('…')).clicked() {
                copied = Some(Action::CopyPowerShell(command));
                ui.close();
            }
        }
        copied
    };
    let shown = TABLE.iter().filter(|e| e.places.contains(&place)).filter(|e| e.verb.applies(model, view));
    for entry in shown {
        let enabled = entry.verb.enabled(model, view);
        let label = entry.verb.label(model, view);
        let button = menu_button(label, key_text(ui.ctx(), entry));
        let response = explain(ui.add_enabled(enabled.is_ok(), button), entry.verb, &enabled);
        if response.clicked() {
            chosen = Some(Action::Verb(entry.verb));
            ui.close();
        }
    }
    ui.separator();
    chosen.or(ui.menu_button(COPY_POWERSHELL, copied).inner.flatten())
}

/// A line of a table: words at the left, a figure at the right.
pub fn figure_line(ui: &mut Ui, left: &str, right: &str, weak: bool) -> Response {
    let p = theme::palette(ui);
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 24.0), Sense::hover());
    let painter = ui.painter();
    let color = if weak { p.weak } else { p.text };
    // Short words leave the figure their room.
    let words = painter.layout_no_wrap(left.to_owned(), theme::body(), color).size().x;
    let room = (rect.width() - words - 12.0).max(rect.width() * 0.45);
    let figure = put(painter, rect.right_center(), Align2::RIGHT_CENTER, right, theme::body(), color, room);
    put(painter, rect.left_center(), Align2::LEFT_CENTER, left, theme::body(), color, figure.left() - rect.left() - 10.0);
    painter.hline(rect.x_range(), rect.bottom(), Stroke::new(1.0, p.line));
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, format!("{left}: {right}")));
    response
}
