//! The selected merge: what is planned for it, why, and what else could be done.

use std::sync::Arc;

use egui::{Frame, Label, Margin, Popup, RichText, ScrollArea, Ui};
use snaptree_core::cost::{Census, MergeMode, MergeOrders, merge_orders};
use snaptree_core::engine::PlanState;
use snaptree_core::snapshot::ImageId;
use snaptree_core::units::ByteRate;
use snaptree_core::window::PlannedMerge;

use super::{put_into, rows, words};
use crate::action::{Action, Verb};
use crate::model::{MachineEntry, Model};
use crate::text::{self, bytes};
use crate::theme;
use crate::view::View;
use crate::widgets::{Kind, button, caption, explain, figure_line, menu_button};

/// What other orders would move of the merge that is shown: counted once.
#[derive(Debug, Default)]
pub struct Orders(Option<(Arc<Census>, Vec<ImageId>, Option<MergeOrders>)>);

/// Of two images there is but one order; longer runs take too long for a frame.
const ORDERS_OF: std::ops::RangeInclusive<usize> = 3..=100;

impl Orders {
    fn of(&mut self, machine: &MachineEntry, merge: &PlannedMerge) -> Option<MergeOrders> {
        let due = machine.figures.due.iter().find(|due| due.disk == merge.disk)?;
        let census = machine.state.census.get(&merge.disk)?;
        match &self.0 {
            Some((known, run, orders)) if Arc::ptr_eq(known, census) && *run == due.run => *orders,
            _ => {
                let orders = if ORDERS_OF.contains(&due.run.len()) { merge_orders(census, &due.run) } else { None };
                self.0 = Some((census.clone(), due.run.clone(), orders));
                orders
            }
        }
    }
}

/// Shows it.
pub fn show(ui: &mut Ui, merge: &PlannedMerge, plan: &PlanState, model: &Model, view: &mut View, actions: &mut Vec<Action>) {
    let Some(machine) = model.machine(Some(merge.machine)) else {
        ui.weak("This machine is gone; the plan will be made anew.");
        return;
    };
    let p = theme::palette(ui);
    ui.add(Label::new(RichText::new(machine.name()).font(theme::heading())).truncate());
    let images = machine.figures.due.iter().find(|due| due.disk == merge.disk).map(|due| due.run.len());
    let into = images.map(|n| format!("merge of {n} images into 1")).unwrap_or_else(|| "merge".into());
    ui.label(RichText::new(format!("{into} · {}", merge.disk)).color(p.weak));
    ui.add_space(4.0);
    verdict(ui, merge, plan, model);
    buttons(ui, merge, plan, model, view, actions);
    figures(ui, merge, plan, machine, view);
    if let Some(reason) = text::plan::reason(merge, plan, &words::names(model), &model.when) {
        caption(ui, "Why this order");
        ui.add(Label::new(reason).wrap());
    }
    caption(ui, "What the forecast stands on");
    history(ui, merge, plan);
}

/// The verdict, in a box with a mark of its own shape.
fn verdict(ui: &mut Ui, merge: &PlannedMerge, plan: &PlanState, model: &Model) {
    let p = theme::palette(ui);
    let (_, tone) = words::short(merge);
    let said = text::plan::verdict(merge, plan, &words::names(model), &model.when);
    let color = p.tone(tone);
    let margin = Margin { left: 26, right: 10, top: 8, bottom: 8 };
    let boxed = Frame::NONE.fill(color.gamma_multiply(0.1)).corner_radius(4.0).inner_margin(margin).show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.add(Label::new(RichText::new(said).line_height(Some(18.0))).wrap());
    });
    let rect = boxed.response.rect;
    ui.painter().rect_filled(rect.with_max_x(rect.left() + 3.0), 1.0, color);
    super::paint::mark(ui.painter(), egui::pos2(rect.left() + 10.0, rect.top() + 17.0), tone, p);
}

fn buttons(ui: &mut Ui, merge: &PlannedMerge, plan: &PlanState, model: &Model, view: &View, actions: &mut Vec<Action>) {
    ui.add_space(4.0);
    ui.horizontal_wrapped(|ui| {
        let enabled = Verb::Merge.enabled(model, view);
        let now = button(ui, Kind::Primary, "Merge now…", enabled.is_ok());
        if explain(now, Verb::Merge, &enabled).clicked() {
            actions.push(Action::Verb(Verb::Merge));
        }
        let others: Vec<_> = plan.occurrences.iter().filter(|o| o.scope.covers(merge.machine)).collect();
        let other = button(ui, Kind::Usual, "Other window…", !others.is_empty());
        other.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, !others.is_empty(), "Other window…"));
        let other = other.on_disabled_hover_text("There is no window for this machine.");
        let planned = merge.pieces.first().map(|piece| piece.occurrence);
        Popup::menu(&other).show(|ui| {
            ui.set_min_width(230.0);
            ScrollArea::vertical().max_height(320.0).show(ui, |ui| {
                for occurrence in others {
                    let is_here = planned == Some(occurrence.key);
                    let span = text::plan::span(occurrence.start(), occurrence.end, &model.when);
                    let here = if is_here { " · as planned" } else { "" };
                    let label = format!("{span} · {}{here}", text::plan::window_name(plan, occurrence.key.window));
                    if ui.add(menu_button(label, String::new())).clicked() {
                        actions.push(put_into(merge, Some(occurrence.key)));
                        ui.close();
                    }
                }
            });
        });
        if rows::pin(plan, merge).is_some() && button(ui, Kind::Usual, "Leave it to the planner", true).clicked() {
            actions.push(put_into(merge, None));
        }
    });
}

fn figures(ui: &mut Ui, merge: &PlannedMerge, plan: &PlanState, machine: &MachineEntry, view: &mut View) {
    caption(ui, "What it takes");
    figure_line(ui, "To move, in one pass", &bytes(merge.bytes), false);
    if let Some(orders) = view.plan.orders.of(machine, merge) {
        figure_line(ui, "Oldest first would move", &bytes(orders.oldest_first), true);
        figure_line(ui, "Newest first would move", &bytes(orders.newest_first), true);
    }
    figure_line(ui, "Scratch", &bytes(merge.scratch), false);
    figure_line(ui, "Comes back", &bytes(merge.comes_back), false);
    let middle = merge.time.map_or("not known yet".into(), |time| words::seconds(time.p50));
    let limited = limited(merge, plan);
    figure_line(ui, if limited.is_some() { "Time, without a limit" } else { "Time" }, &middle, false);
    if let Some(time) = merge.time {
        let between = format!("{} to {}", words::seconds(time.p10), words::seconds(time.p90));
        figure_line(ui, "8 of 10 cases", &between, true);
    }
    if let Some((seconds, limit)) = limited {
        figure_line(ui, &format!("Limited to {}", text::rate(limit)), &words::seconds(seconds), false);
    }
    if let (Some(time), Some(idle), true) = (merge.time, merge.idle_time, text::plan::live(merge.time, merge.idle_time).is_some())
    {
        figure_line(ui, "With the machine off", &words::seconds(idle.p50), true);
        figure_line(ui, "Because of the guest", &words::seconds(time.p50 - idle.p50), true);
    }
    if let Some(time) = merge.time.filter(|time| time.p50 > 0.0 && merge.bytes.0 > 0) {
        let rate = ByteRate(merge.bytes.0 as f64 / time.p50);
        let basis = match time.basis {
            snaptree_core::cost::Basis::Probe => "a probe".into(),
            snaptree_core::cost::Basis::OtherMode(n) => format!("{}, other mode", text::count(n as usize, "merge")),
            snaptree_core::cost::Basis::Merges(n) => text::count(n as usize, "merge"),
        };
        figure_line(ui, "Rate here", &format!("{}, {basis}", text::rate(rate)), false);
    }
    let stops = merge.pieces.iter().any(|piece| piece.down.is_some());
    let mode = if machine.is_up() && !stops { MergeMode::Live } else { MergeMode::Stopped };
    if let Some(error) = machine.state.calibration.past_error(mode) {
        let said = format!("{:.0} %, median of {}", error.median * 100.0, error.merges);
        figure_line(ui, "Estimates off by", &said, false);
    }
}

/// How long it takes as planned, and the lowest limit of its windows, where one has a limit.
fn limited(merge: &PlannedMerge, plan: &PlanState) -> Option<(f64, ByteRate)> {
    let limits = merge.pieces.iter().filter_map(|piece| words::occurrence(plan, piece.occurrence)?.limit);
    let lowest = limits.min_by(|a, b| a.0.total_cmp(&b.0))?;
    Some((merge.pieces.iter().map(|piece| (piece.p50_end - piece.start).as_seconds_f64()).sum(), lowest))
}

fn history(ui: &mut Ui, merge: &PlannedMerge, plan: &PlanState) {
    if let Some(volume) = plan.volumes.iter().find(|v| v.id == merge.volume) {
        let said = format!("Growth of its volume: {}.", text::plan::growth(&volume.growth));
        ui.add(Label::new(said).wrap());
    }
}
