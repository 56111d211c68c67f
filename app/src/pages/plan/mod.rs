//! The page of the plan: which merge is done when, and how long the volumes hold out.
//!
//! ```text
//! words   axis ─> rows ─> paint (bands, rows, bars)
//!           └───> space (free space per volume)        details (the selected merge)
//! ```

mod axis;
mod details;
mod paint;
mod rows;
mod space;
#[cfg(test)]
mod tests;
pub mod words;

use chrono::{DateTime, Utc};
use egui::{
    CentralPanel, EventFilter, Frame, Id, Key, Margin, Modifiers, Panel, Popup, Rect, RichText, ScrollArea, Sense, Ui, pos2, vec2,
};
use serde::{Deserialize, Serialize};
use snaptree_core::engine::{Command, PlanState};
use snaptree_core::snapshot::{DiskId, MachineId};
use snaptree_core::window::PlannedMerge;

use crate::action::{Action, Verb};
use crate::model::Model;
use crate::text;
use crate::theme;
use crate::view::View;
use crate::widgets::{self, Kind, explain};
use axis::{Axis, SPANS};
use rows::{Row, Rows};

/// What is shown of the plan, and how.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanView {
    /// How many days, if not the usual.
    span: Option<f32>,
    /// Where they begin, if somebody has moved them.
    #[serde(skip)]
    pub from: Option<DateTime<Utc>>,
    /// Which of the machine's disks.
    #[serde(skip)]
    disk: Option<DiskId>,
    /// A merge that is being moved.
    #[serde(skip)]
    dragged: Option<(MachineId, DiskId)>,
    /// Bring the selected row into sight.
    #[serde(skip)]
    reveal: bool,
    /// Which row was the selected merge's when it was painted last.
    #[serde(skip)]
    place: Option<(MachineId, DiskId, usize)>,
    #[serde(skip)]
    orders: details::Orders,
}

/// So many days are shown at first.
const USUAL: f32 = 7.0;

impl PlanView {
    fn span(&self) -> f32 {
        self.span.filter(|s| (SPANS[0]..=SPANS[SPANS.len() - 1]).contains(s)).unwrap_or(USUAL)
    }

    /// Shows the next larger (or smaller) number of days.
    pub fn zoom(&mut self, by: i32) {
        let span = self.span();
        let next = match by > 0 {
            true => SPANS.iter().find(|s| **s > span + 0.05),
            false => SPANS.iter().rev().find(|s| **s < span - 0.05),
        };
        self.span = next.copied().or(self.span);
    }

    /// Brings the selected merge into sight.
    pub fn reveal(&mut self) {
        self.reveal = true;
    }

    /// Shows a merge of this disk.
    pub fn choose(&mut self, disk: DiskId) {
        self.disk = Some(disk);
        self.reveal = true;
    }

    /// The merge that is selected: of the machine that is shown.
    pub fn selected<'p>(&self, plan: &'p PlanState, machine: Option<MachineId>) -> Option<&'p PlannedMerge> {
        let own = || plan.plan.merges.iter().filter(|m| Some(m.machine) == machine);
        own().find(|m| Some(&m.disk) == self.disk.as_ref()).or_else(|| own().next())
    }
}

/// Room for the names of the rows.
const NAMES: f32 = 172.0;

/// Shows the page.
pub fn show(ui: &mut Ui, model: &Model, view: &mut View, actions: &mut Vec<Action>) {
    let p = theme::palette(ui);
    let Some(plan) = model.plan.clone() else {
        CentralPanel::default()
            .show(ui, |ui| ui.centered_and_justified(|ui| ui.weak("The machines are being counted; the plan comes after that.")));
        return;
    };
    let selected = view.plan.selected(&plan, view.machine).or_else(|| {
        let rows = Rows::of(&plan, model);
        rows.merges().next().map(|i| &plan.plan.merges[i])
    });
    if let Some(merge) = selected {
        // The page's actions are about the machine that it shows.
        view.machine = Some(merge.machine);
        let side = Frame::NONE.fill(p.panel).inner_margin(Margin::symmetric(14, 10));
        Panel::right("merge").frame(side).default_size(280.0).size_range(230.0..=460.0).show(ui, |ui| {
            ScrollArea::vertical().auto_shrink(false).show(ui, |ui| details::show(ui, merge, &plan, model, view, actions));
        });
    }
    CentralPanel::default().frame(Frame::NONE.fill(p.ground)).show(ui, |ui| {
        let margin = Margin { left: 14, right: 14, top: 9, bottom: 5 };
        Frame::NONE.inner_margin(margin).show(ui, |ui| header(ui, &plan, model, view, actions));
        hints(ui, &plan, actions);
        chart(ui, &plan, model, view, selected, actions);
    });
}

/// Title, days, windows.
fn header(ui: &mut Ui, plan: &PlanState, model: &Model, view: &mut View, actions: &mut Vec<Action>) {
    let p = theme::palette(ui);
    ui.horizontal(|ui| {
        ui.vertical(|ui| {
            ui.spacing_mut().item_spacing.y = 2.0;
            ui.label(RichText::new("Plan of merges").font(theme::heading()));
            let (due, windows) = (plan.plan.merges.len(), plan.windows.iter().filter(|w| w.enabled).count());
            let (due, windows) = (text::count(due, "merge"), text::count(windows, "window"));
            let ran = text::plan::agent(&plan.agent, &model.when);
            let said = format!("{due} due · {windows} · one merge at a time on a volume · {ran}");
            ui.add(egui::Label::new(RichText::new(said).font(theme::small()).color(p.weak)).truncate());
        });
    });
    ui.add_space(4.0);
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 6.0;
        let span = view.plan.span();
        let step = axis::days(span * 0.5);
        let from = view.plan.from.unwrap_or_else(|| axis::usual_start(model.when.now, span));
        if named(ui, "◀", "Earlier").clicked() {
            view.plan.from = Some(clamp(plan, from - step, span, model));
        }
        let today = ui.add_enabled(view.plan.from.is_some(), egui::Button::new("Today"));
        if explain(today, Verb::PlanToday, &Ok(())).clicked() {
            actions.push(Action::Verb(Verb::PlanToday));
        }
        if named(ui, "▶", "Later").clicked() {
            view.plan.from = Some(clamp(plan, from + step, span, model));
        }
        ui.add_space(8.0);
        if explain(named(ui, "+", Verb::PlanCloser.entry().label), Verb::PlanCloser, &Ok(())).clicked() {
            actions.push(Action::Verb(Verb::PlanCloser));
        }
        let shown = text::count(span.round().max(1.0) as usize, "day");
        ui.add_sized(vec2(50.0, 20.0), egui::Label::new(shown));
        if explain(named(ui, "−", Verb::PlanWider.entry().label), Verb::PlanWider, &Ok(())).clicked() {
            actions.push(Action::Verb(Verb::PlanWider));
        }
        ui.add_space(8.0);
        let windows = widgets::button(ui, Kind::Usual, "Windows…", true);
        if explain(windows, Verb::Windows, &Ok(())).clicked() {
            actions.push(Action::Verb(Verb::Windows));
        }
        let (label, verb) = match plan.agent.is_at_work {
            true => ("Stop the agent", Verb::StopAgent),
            false => ("Start the agent", Verb::StartAgent),
        };
        let agent = widgets::button(ui, Kind::Usual, label, true);
        if explain(agent, verb, &Ok(())).clicked() {
            actions.push(Action::Verb(verb));
        }
        let export = ui.button("Export");
        export.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, "Export"));
        Popup::menu(&export).show(|ui| {
            ui.set_min_width(230.0);
            for verb in [Verb::ExportCalendar, Verb::ExportTable, Verb::ExportJson, Verb::ExportChange] {
                let label = verb.entry().label.trim_start_matches("Export ");
                let button = ui.add(widgets::menu_button(text::sentence(label), String::new()));
                if explain(button, verb, &Ok(())).clicked() {
                    actions.push(Action::Verb(verb));
                }
            }
        });
    });
}

/// A button of a sign, with a name.
fn named(ui: &mut Ui, sign: &str, name: &str) -> egui::Response {
    let response = ui.add(egui::Button::new(sign).min_size(vec2(28.0, 26.0)));
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, name));
    response.on_hover_text(name)
}

/// What stands in the way of a plan.
fn hints(ui: &mut Ui, plan: &PlanState, actions: &mut Vec<Action>) {
    let p = theme::palette(ui);
    let due = !plan.plan.merges.is_empty();
    let windows = plan.windows.iter().any(|w| w.enabled);
    if due && !windows {
        Frame::NONE.fill(p.strip).inner_margin(Margin::symmetric(14, 8)).show(ui, |ui| {
            ui.horizontal(|ui| {
                ui.set_width(ui.available_width());
                ui.label("Nothing can be planned yet: there is no maintenance window, no time in which merging is allowed.");
                if widgets::button(ui, Kind::Primary, "Make a window…", true).clicked() {
                    actions.push(Action::Verb(Verb::Windows));
                }
            });
        });
    } else if !due {
        Frame::NONE.inner_margin(Margin::symmetric(14, 8)).show(ui, |ui| {
            ui.label("No merge is due. When a snapshot is deleted whose bytes are still held, its merge is planned here.");
        });
    }
}

/// Not further than there is a past and a plan.
fn clamp(plan: &PlanState, from: DateTime<Utc>, span: f32, model: &Model) -> DateTime<Utc> {
    let first = plan.volumes.iter().filter_map(|v| v.free.first()).map(|(at, _)| *at).min().unwrap_or(model.when.now);
    let first = first.max(model.when.now - axis::days(SPANS[SPANS.len() - 1]));
    let first = first.min(axis::usual_start(model.when.now, span));
    from.clamp(first, (plan.until - axis::days(span * 0.5)).max(first))
}

/// Days, bands, rows; below them the volumes.
fn chart(
    ui: &mut Ui,
    plan: &PlanState,
    model: &Model,
    view: &mut View,
    selected: Option<&PlannedMerge>,
    actions: &mut Vec<Action>,
) {
    ui.spacing_mut().item_spacing.y = 0.0;
    let area = ui.available_rect_before_wrap();
    move_by_pointer(ui, area, plan, model, &mut view.plan);
    let rows = Rows::of(plan, model);
    move_by_keys(ui, plan, model, view, selected, &rows, actions);
    let span = view.plan.span();
    let from = view.plan.from.unwrap_or_else(|| axis::usual_start(model.when.now, span));
    let axis = Axis::new(from, span, area.left() + NAMES, area.right() - 14.0);
    let strip = ui.allocate_exact_size(vec2(area.width(), 24.0), Sense::hover()).0;
    let dragged = ui.interact(strip, Id::unique("plan-days"), Sense::drag());
    if dragged.dragged() {
        let moved = axis.time(axis.left) - axis.time(axis.left + dragged.drag_delta().x);
        view.plan.from = Some(clamp(plan, from + moved, span, model));
    }
    dragged.on_hover_cursor(egui::CursorIcon::Grab);
    paint::days(ui, strip, &axis, &model.when);
    // Few rows leave the rest to the volumes; many scroll, and leave them a third.
    let all = ui.available_height();
    let volumes = space::height(plan);
    let height = rows.height.min((all - volumes.min(all * 0.4)).max(ROW_LEAST)).max(0.0);
    let rows_area = Rect::from_min_size(pos2(area.left(), ui.cursor().top()), vec2(area.width(), height));
    let mut chart = paint::Chart { plan, model, axis: &axis, area: rows_area, selected };
    let mut scroll = ScrollArea::vertical().id_salt("plan-rows").max_height(height).auto_shrink([false, false]);
    let in_sight =
        |merge| ui.ctx().read_response(paint::row_id(merge)).is_some_and(|r| r.interact_rect.height() >= rows::ROW - 1.0);
    if std::mem::take(&mut view.plan.reveal)
        && let Some(merge) = selected.filter(|merge| !in_sight(merge))
        && let Some((_, y)) =
            rows.rows.iter().find(|(row, _)| matches!(row, Row::Merge(i) if std::ptr::eq(&plan.plan.merges[*i], merge)))
    {
        scroll = scroll.vertical_scroll_offset((y - height / 2.0 + rows::ROW / 2.0).clamp(0.0, (rows.height - height).max(0.0)));
    }
    // A selected row that was in sight is followed to where a new plan puts it.
    let place = selected.and_then(|merge| Some((merge.machine, merge.disk.clone(), rows.place(plan, merge)?)));
    let moved = match (&place, &view.plan.place) {
        (Some(now), Some(before)) => (now.0, &now.1) == (before.0, &before.1) && now.2 != before.2,
        _ => false,
    };
    if moved && selected.is_some_and(in_sight) {
        view.plan.reveal = true;
        ui.ctx().request_repaint();
    }
    view.plan.place = place;
    scroll.show_viewport(ui, |ui, viewport| {
        let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), rows.height), Sense::hover());
        chart.area = rows_area.intersect(ui.clip_rect());
        chart.show(ui, &rows, rect.top(), viewport, &mut view.plan, actions);
    });
    ScrollArea::vertical().id_salt("plan-space").auto_shrink(false).show(ui, |ui| {
        space::show(ui, plan, model, &axis);
    });
}

/// Rows keep at least this height.
const ROW_LEAST: f32 = rows::ROW;

/// Ctrl and the wheel zoom around the pointer, the wheel sideways (or with Shift) moves the days.
fn move_by_pointer(ui: &Ui, area: Rect, plan: &PlanState, model: &Model, view: &mut PlanView) {
    let Some(pointer) = ui.ctx().pointer_hover_pos().filter(|at| area.contains(*at) && ui.rect_contains_pointer(area)) else {
        return;
    };
    let (zoom, sideways) = ui.input(|i| (i.zoom_delta(), i.smooth_scroll_delta().x));
    if zoom == 1.0 && sideways == 0.0 {
        return;
    }
    let span = view.span();
    let from = view.from.unwrap_or_else(|| axis::usual_start(model.when.now, span));
    let axis = Axis::new(from, span, area.left() + NAMES, area.right() - 14.0);
    let next = (span / zoom).clamp(SPANS[0], SPANS[SPANS.len() - 1]);
    let under = axis.time(pointer.x.max(axis.left) - sideways);
    // What is under the pointer stays there.
    let share = f64::from((pointer.x.max(axis.left) - axis.left) / (axis.right - axis.left));
    view.span = Some(next);
    view.from = Some(clamp(plan, under - axis::days((f64::from(next) * share) as f32), next, model));
}

/// Up and down walk the rows, left and right the days.
fn move_by_keys(
    ui: &Ui,
    plan: &PlanState,
    model: &Model,
    view: &mut View,
    selected: Option<&PlannedMerge>,
    rows: &Rows,
    actions: &mut Vec<Action>,
) {
    if view.dialog.is_some() || view.palette.is_some() || ui.ctx().text_edit_focused() || Popup::is_any_open(ui.ctx()) {
        return;
    }
    let keys = |key| ui.input_mut(|i| i.count_and_consume_key(Modifiers::NONE, key)) as i32;
    let (down, right) = (keys(Key::ArrowDown) - keys(Key::ArrowUp), keys(Key::ArrowRight) - keys(Key::ArrowLeft));
    if right != 0 {
        let span = view.plan.span();
        let from = view.plan.from.unwrap_or_else(|| axis::usual_start(model.when.now, span));
        view.plan.from = Some(clamp(plan, from + axis::days(span / 7.0 * right as f32), span, model));
    }
    if down != 0 {
        let order: Vec<usize> = rows.merges().collect();
        let place = order.iter().position(|i| selected.is_some_and(|m| std::ptr::eq(&plan.plan.merges[*i], m))).unwrap_or(0);
        let next = place.saturating_add_signed(down as isize).min(order.len().saturating_sub(1));
        if let Some(merge) = order.get(next).map(|i| &plan.plan.merges[*i]) {
            actions.push(Action::ShowMerge(merge.machine, merge.disk.clone()));
            ui.memory_mut(|m| {
                let id = paint::row_id(merge);
                m.request_focus(id);
                let arrows = EventFilter { vertical_arrows: true, horizontal_arrows: true, ..Default::default() };
                m.set_focus_lock_filter(id, arrows);
            });
        }
    }
}

/// Puts a merge somewhere.
fn put_into(merge: &PlannedMerge, occurrence: Option<snaptree_core::window::OccurrenceKey>) -> Action {
    Action::Send(Command::PinMerge { machine: merge.machine, disk: merge.disk.clone(), occurrence })
}
