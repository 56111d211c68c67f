//! The bar at the top: pages, search, tasks, theme.

use egui::{Align, Align2, Button, Layout, Popup, RichText, Sense, Stroke, Ui, vec2};

use super::tasks;
use crate::action::{Action, Verb, key_text};
use crate::model::Model;
use crate::theme;
use crate::view::{Page, View};
use crate::widgets::{explain, menu_button, put};

/// Shows it.
pub fn show(ui: &mut Ui, model: &Model, view: &View, actions: &mut Vec<Action>) {
    let p = theme::palette(ui);
    ui.horizontal(|ui| {
        ui.label(RichText::new("Snaptree").font(egui::FontId::new(15.0, theme::strong().family)));
        ui.add_space(6.0);
        ui.spacing_mut().item_spacing.x = 2.0;
        let pages = [
            (Page::Machines, Verb::ShowMachines, "Machines"),
            (Page::Plan, Verb::ShowPlan, "Plan"),
            (Page::Files, Verb::ShowFiles, "Files"),
        ];
        for (page, verb, name) in pages {
            let is_shown = view.page == page;
            let words = if is_shown { theme::bold(name) } else { RichText::new(name).color(p.weak) };
            let fill = if is_shown { p.raised } else { egui::Color32::TRANSPARENT };
            let tab = ui.add(Button::new(words).fill(fill).stroke(Stroke::NONE));
            tab.widget_info(|| egui::WidgetInfo::selected(egui::Role::Tab, true, is_shown, name));
            if explain(tab, verb, &Ok(())).clicked() {
                actions.push(Action::Verb(verb));
            }
        }
        ui.spacing_mut().item_spacing.x = 8.0;
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let theme = theme_button(ui, view);
            theme.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, format!("Theme: {}", view.theme.name())));
            let theme = theme.on_hover_text(format!("Theme: {}", view.theme.name()));
            Popup::menu(&theme).show(|ui| {
                ui.set_min_width(180.0);
                for verb in [Verb::Theme, Verb::Larger, Verb::Smaller, Verb::NormalSize, Verb::ResetView] {
                    let key = key_text(ui.ctx(), verb.entry());
                    let label = if verb == Verb::Theme {
                        format!("Theme: {}", view.theme.next().name().to_lowercase())
                    } else {
                        verb.entry().label.into()
                    };
                    if ui.add(menu_button(label, key)).clicked() {
                        actions.push(Action::Verb(verb));
                    }
                }
            });
            let under_way = model.jobs.under_way().count();
            let label = match under_way {
                0 => "Tasks".to_owned(),
                n => crate::text::count(n, "task"),
            };
            let open = ui.add(Button::new(label.clone()));
            open.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, &label));
            Popup::menu(&open).close_behavior(egui::PopupCloseBehavior::CloseOnClickOutside).show(|ui| {
                let margin = egui::Margin::symmetric(10, 8);
                egui::Frame::NONE.inner_margin(margin).show(ui, |ui| {
                    ui.with_layout(Layout::top_down(Align::Min), |ui| tasks::list(ui, model, actions));
                });
            });
            search(ui, actions);
        });
    });
}

/// A circle: half full follows the system, empty is light, full is dark.
fn theme_button(ui: &mut Ui, view: &View) -> egui::Response {
    let p = theme::palette(ui);
    let (rect, response) = ui.allocate_exact_size(vec2(30.0, 27.0), Sense::click());
    let line = if response.hovered() || response.has_focus() { p.line_strong } else { p.line };
    let painter = ui.painter();
    painter.rect(rect, theme::CORNER, p.raised, Stroke::new(1.0, line), egui::StrokeKind::Inside);
    let (at, radius) = (rect.center(), 6.0);
    let full = match view.theme {
        theme::ThemeChoice::System => 0.5,
        theme::ThemeChoice::Light => 0.0,
        theme::ThemeChoice::Dark => 1.0,
    };
    if full > 0.0 {
        let from = at.x + radius - 2.0 * radius * full;
        let clip = egui::Rect::from_min_max(egui::pos2(from, rect.top()), rect.max);
        painter.with_clip_rect(clip.intersect(painter.clip_rect())).circle_filled(at, radius, p.text);
    }
    painter.circle_stroke(at, radius, Stroke::new(1.3, p.text));
    response
}

/// Looks like a field, opens the palette.
fn search(ui: &mut Ui, actions: &mut Vec<Action>) {
    let p = theme::palette(ui);
    let width = (ui.available_width() - 20.0).clamp(60.0, 280.0);
    let (rect, response) = ui.allocate_exact_size(vec2(width, 27.0), Sense::click());
    let line = if response.hovered() || response.has_focus() { p.line_strong } else { p.line };
    ui.painter().rect(rect, theme::CORNER, p.field, Stroke::new(1.0, line), egui::StrokeKind::Inside);
    let key = key_text(ui.ctx(), Verb::Palette.entry());
    let key = put(ui.painter(), rect.right_center() - vec2(10.0, 0.0), Align2::RIGHT_CENTER, &key, theme::small(), p.weak, 60.0);
    let room = key.left() - rect.left() - 18.0;
    put(
        ui.painter(),
        rect.left_center() + vec2(10.0, 0.0),
        Align2::LEFT_CENTER,
        Verb::Palette.entry().label,
        theme::body(),
        p.weak,
        room,
    );
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, Verb::Palette.entry().label));
    if explain(response, Verb::Palette, &Ok(())).clicked() {
        actions.push(Action::Verb(Verb::Palette));
    }
}
