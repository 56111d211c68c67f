//! Paints days, bands, rows and bars, and says what was done with them.

use egui::{
    Align2, Color32, CursorIcon, EventFilter, Id, Mesh, Painter, Pos2, Rect, Response, Role, Sense, Shape, Stroke, StrokeKind,
    Ui, pos2, vec2,
};
use snaptree_core::cost::MergeMode;
use snaptree_core::engine::PlanState;
use snaptree_core::window::{Occurrence, PlannedMerge};

use super::axis::Axis;
use super::rows::{self, Bar, ROW, Row, Rows, bars, pin, tried};
use super::{PlanView, put_into, words};
use crate::action::Action;
use crate::model::Model;
use crate::text::{self, When, bytes};
use crate::theme::{self, Palette, Tone};
use crate::widgets::put;

/// A stable name of a row for egui.
pub fn row_id(merge: &PlannedMerge) -> Id {
    Id::unique(("plan-row", merge.machine, &merge.disk))
}

/// The days above the rows.
pub fn days(ui: &Ui, strip: Rect, axis: &Axis, when: &When) {
    let p = theme::palette(ui);
    let painter = ui.painter();
    painter.hline(strip.x_range(), strip.bottom(), Stroke::new(1.0, p.line));
    for tick in axis.ticks(when) {
        let color = if tick.is_day { p.text } else { p.weak };
        let room = (axis.right - tick.x - 4.0).min(90.0);
        if !tick.label.is_empty() && room > 40.0 {
            put(painter, pos2(tick.x + 5.0, strip.center().y), Align2::LEFT_CENTER, &tick.label, theme::small(), color, room);
        }
    }
    let now = pos2(axis.x(when.now), strip.bottom());
    if axis.left <= now.x && now.x <= axis.right {
        let tip = vec![now, now + vec2(-5.0, -6.0), now + vec2(5.0, -6.0)];
        painter.add(Shape::convex_polygon(tip, p.accent, Stroke::NONE));
    }
}

/// The lines of the days, and now.
pub fn grid(painter: &Painter, area: Rect, axis: &Axis, when: &When, p: &Palette) {
    for tick in axis.ticks(when) {
        let color = if tick.is_day { p.line } else { p.line.gamma_multiply(0.45) };
        painter.vline(tick.x, area.y_range(), Stroke::new(1.0, color));
    }
    let now = axis.x(when.now);
    if now >= axis.left && now <= axis.right {
        painter.vline(now, area.y_range(), Stroke::new(1.0, p.accent));
    }
}

/// Paints a mark for a tone: its shape says the same as its colour. Answers where the text begins.
pub fn mark(painter: &Painter, at: Pos2, tone: Tone, p: &Palette) -> f32 {
    let color = p.tone(tone);
    let (c, r) = (at + vec2(4.0, 0.0), 4.0);
    match tone {
        Tone::Good => {
            let points = vec![c + vec2(-r, 0.0), c + vec2(-1.0, r - 1.0), c + vec2(r, -r + 0.5)];
            painter.add(Shape::line(points, Stroke::new(1.6, color)));
        }
        Tone::Bad => {
            painter.line_segment([c + vec2(-r, -r) * 0.85, c + vec2(r, r) * 0.85], Stroke::new(1.8, color));
            painter.line_segment([c + vec2(-r, r) * 0.85, c + vec2(r, -r) * 0.85], Stroke::new(1.8, color));
        }
        _ => {
            let points = vec![c + vec2(0.0, -r), c + vec2(r, r - 0.5), c + vec2(-r, r - 0.5)];
            painter.add(Shape::convex_polygon(points, color, Stroke::NONE));
        }
    }
    at.x + 13.0
}

/// What painting the rows needs to know.
pub struct Chart<'a> {
    pub plan: &'a PlanState,
    pub model: &'a Model,
    pub axis: &'a Axis,
    /// What can be seen of the rows.
    pub area: Rect,
    pub selected: Option<&'a PlannedMerge>,
}

impl Chart<'_> {
    /// Shows the rows between two heights. From so few rows on all are told to screen readers, otherwise those in sight.
    pub fn show(&self, ui: &mut Ui, rows: &Rows, top: f32, viewport: Rect, view: &mut PlanView, actions: &mut Vec<Action>) {
        let p = theme::palette(ui);
        let sight = rows.between(viewport.top(), viewport.bottom());
        let dragged = self.dragged(view);
        self.grounds(ui, rows, sight.clone(), top, p);
        self.bands(ui, dragged, p);
        grid(&ui.painter().with_clip_rect(self.days_area()), self.area, self.axis, &self.model.when, p);
        for (place, (row, y)) in rows.rows.iter().enumerate() {
            let (y, is_seen) = (top + y, sight.contains(&place));
            match row {
                Row::Volume(v) if is_seen => self.heading(ui, *v, y, p),
                Row::Volume(_) => {}
                Row::Merge(i) => {
                    let merge = &self.plan.plan.merges[*i];
                    if is_seen || rows.rows.len() <= TELL_ALL {
                        let response = self.touch(ui, merge, y, actions);
                        if is_seen {
                            self.name(ui, merge, &response, y, p);
                            self.bars(ui, merge, y, view, actions, p);
                        }
                    }
                }
            }
        }
        if let Some(merge) = dragged {
            self.drag(ui, merge, rows, view, actions, p);
        }
    }

    fn days_area(&self) -> Rect {
        Rect::from_x_y_ranges(self.axis.left..=self.axis.right, self.area.y_range())
    }

    fn dragged(&self, view: &PlanView) -> Option<&PlannedMerge> {
        let (machine, disk) = view.dragged.as_ref()?;
        self.plan.plan.merges.iter().find(|m| m.machine == *machine && m.disk == *disk)
    }

    /// Where a merge would be put if it were let go here.
    fn aimed(&self, merge: &PlannedMerge, at: Pos2) -> Option<&Occurrence> {
        let is_on_days = self.axis.left <= at.x && at.x <= self.axis.right;
        is_on_days.then(|| rows::target(self.plan, merge, self.axis, at.x)).flatten()
    }

    fn is_selected(&self, merge: &PlannedMerge) -> bool {
        self.selected.is_some_and(|s| std::ptr::eq(s, merge))
    }

    fn grounds(&self, ui: &Ui, rows: &Rows, sight: std::ops::Range<usize>, top: f32, p: &Palette) {
        for (row, y) in &rows.rows[sight] {
            let Row::Merge(i) = row else { continue };
            let rect = Rect::from_x_y_ranges(self.area.x_range(), top + y..=top + y + ROW);
            if self.is_selected(&self.plan.plan.merges[*i]) {
                ui.painter().rect_filled(rect, 0.0, p.selected);
                ui.painter().rect_filled(rect.with_max_x(rect.left() + 3.0), 0.0, p.accent);
            }
            ui.painter().hline(rect.x_range(), rect.bottom() - 0.5, Stroke::new(1.0, p.line.gamma_multiply(0.6)));
        }
    }

    /// The windows. While a merge is moved, those that it can be put into stand out.
    fn bands(&self, ui: &Ui, dragged: Option<&PlannedMerge>, p: &Palette) {
        let painter = ui.painter().with_clip_rect(self.days_area());
        let aimed = dragged.zip(ui.ctx().pointer_latest_pos()).and_then(|(merge, at)| self.aimed(merge, at));
        for occurrence in self.plan.occurrences.iter().filter(|o| self.axis.shows(o.start(), o.end)) {
            let (left, right) = (self.axis.x(occurrence.start()), self.axis.x(occurrence.end));
            let rect = Rect::from_x_y_ranges(left..=right.max(left + 2.0), self.area.y_range());
            let is_target = dragged.is_some_and(|merge| occurrence.scope.covers(merge.machine));
            let strength = match (dragged.is_some(), is_target) {
                _ if aimed.is_some_and(|aimed| aimed.key == occurrence.key) => 0.42,
                (true, true) => 0.26,
                (true, false) => 0.05,
                (false, _) => 0.14,
            };
            painter.rect_filled(rect, 0.0, p.accent.gamma_multiply(strength));
            let line = Stroke::new(1.0, p.accent.gamma_multiply(if is_target { 1.0 } else { 0.4 }));
            for x in [rect.left(), rect.right()] {
                match occurrence.mode {
                    MergeMode::Live => drop(painter.vline(x, rect.y_range(), line)),
                    // May shut machines down: dashed.
                    MergeMode::Stopped => {
                        painter.extend(Shape::dashed_line(&[pos2(x, rect.top()), pos2(x, rect.bottom())], line, 4.0, 3.0));
                    }
                }
            }
            let seen = rect.intersect(self.days_area());
            let id = Id::unique(("plan-band", occurrence.key.window, occurrence.key.start));
            let response = ui.interact(seen, id, Sense::hover());
            response.widget_info(|| egui::WidgetInfo::labeled(Role::Label, true, words::band(occurrence, self.plan, self.model)));
        }
    }

    fn heading(&self, ui: &Ui, volume: usize, y: f32, p: &Palette) {
        let id = &self.plan.plan.volumes[volume].id;
        let name = text::plan::volume_name(id, self.plan, &words::names(self.model)).to_uppercase();
        let at = pos2(self.area.left() + 14.0, y + rows::HEADING / 2.0 + 2.0);
        put(ui.painter(), at, Align2::LEFT_CENTER, &name, theme::caption(), p.weak, self.area.width() - 28.0);
    }

    /// The row as egui and screen readers know it.
    fn touch(&self, ui: &Ui, merge: &PlannedMerge, y: f32, actions: &mut Vec<Action>) -> Response {
        let rect = Rect::from_x_y_ranges(self.area.x_range(), y..=y + ROW);
        let response = ui.interact(rect, row_id(merge), Sense::click());
        let said = || {
            let (name, second) = self.words(merge);
            format!("{name}, merge due, {second}: {}", words::short(merge).0)
        };
        response.widget_info(|| egui::WidgetInfo::selected(Role::ListItem, true, self.is_selected(merge), said()));
        if response.clicked() || response.secondary_clicked() {
            actions.push(Action::ShowMerge(merge.machine, merge.disk.clone()));
        }
        if response.has_focus() {
            let arrows = EventFilter { vertical_arrows: true, horizontal_arrows: true, ..Default::default() };
            ui.memory_mut(|m| m.set_focus_lock_filter(response.id, arrows));
        }
        response
    }

    /// Name, and what is to be done.
    fn words(&self, merge: &PlannedMerge) -> (String, String) {
        let machine = self.model.machine(Some(merge.machine));
        let name = text::plan::merge_name(merge, self.plan, &words::names(self.model));
        let stops = merge.pieces.iter().any(|piece| piece.down.is_some());
        let how = match machine.is_some_and(|m| m.is_up()) {
            true if stops => "shut down for it",
            true => "live",
            false => "stopped",
        };
        (name, format!("{}, {how}", bytes(merge.bytes)))
    }

    fn name(&self, ui: &Ui, merge: &PlannedMerge, response: &Response, y: f32, p: &Palette) {
        let (name, second) = self.words(merge);
        let left = self.area.left() + 14.0;
        let room = self.axis.left - left - 10.0;
        let painter = ui.painter();
        if response.hovered() && !self.is_selected(merge) {
            let rect = response.rect.with_max_x(self.axis.left - 2.0);
            painter.rect_filled(rect, 0.0, p.hover.gamma_multiply(0.5));
        }
        put(painter, pos2(left, y + 16.0), Align2::LEFT_CENTER, &name, theme::strong(), p.text, room);
        put(painter, pos2(left, y + 33.0), Align2::LEFT_CENTER, &second, theme::small(), p.weak, room);
        if response.has_focus() {
            painter.rect_stroke(response.rect.shrink(1.0), 3.0, Stroke::new(1.0, p.accent), StrokeKind::Inside);
        }
        // Rows lie on the bands: what is pointed at is told from here.
        let at = response.hover_pos().filter(|at| at.x >= self.axis.left);
        if let Some(band) = at.and_then(|at| rows::at(self.plan, self.axis, at.x, |_| true)) {
            response.clone().on_hover_text_at_pointer(words::band(band, self.plan, self.model));
        }
    }

    fn bars(&self, ui: &mut Ui, merge: &PlannedMerge, y: f32, view: &mut PlanView, actions: &mut Vec<Action>, p: &Palette) {
        let painter = ui.painter().with_clip_rect(self.days_area().intersect(ui.clip_rect()));
        let (said, tone) = words::short(merge);
        let own = bars(merge, self.plan, self.axis);
        let is_moved = view.dragged.as_ref().is_some_and(|(machine, disk)| *machine == merge.machine && *disk == merge.disk);
        let middle = y + 15.0;
        for pair in own.windows(2) {
            let line = [pos2(pair[0].0.p90, middle), pos2(pair[1].0.left, middle)];
            painter.extend(Shape::dashed_line(&line, Stroke::new(1.2, p.weak), 4.0, 4.0));
        }
        for (piece, (bar, _)) in own.iter().enumerate() {
            let color = if merge.is_late { p.bad } else { p.bar };
            bar.paint(&painter, middle, if is_moved { color.gamma_multiply(0.35) } else { color }, p);
            let name = self.bar_name(merge, piece, &said);
            self.take_hold(ui, merge, (piece, self.grip(bar, middle)), name, view, actions);
        }
        if own.is_empty() && merge.time.is_some() {
            // Nothing is planned: what could be put somewhere stands at now, as an outline.
            let bar = tried(merge, None, self.model.when.now, self.axis);
            bar.outline(&painter, middle, p.bad);
            let name = format!("{} merge, not planned: {said}", self.words(merge).0);
            self.take_hold(ui, merge, (0, self.grip(&bar, middle)), name, view, actions);
        }
        let start = own.first().map_or(self.axis.x(self.model.when.now), |(bar, _)| bar.left);
        if pin(self.plan, merge).is_some() {
            let head = pos2(start - 7.0, middle - 4.0);
            painter.circle_filled(head, 3.5, p.accent);
            painter.line_segment([head, head + vec2(0.0, 10.0)], Stroke::new(1.4, p.accent));
        }
        let width = painter.layout_no_wrap(said.clone(), theme::small(), p.text).size().x + 15.0;
        let left = start.min(self.axis.right - width).max(self.axis.left + 4.0);
        let words = mark(&painter, pos2(left, y + 34.0), tone, p);
        put(&painter, pos2(words, y + 34.0), Align2::LEFT_CENTER, &said, theme::small(), p.tone(tone), self.axis.right - words);
    }

    fn bar_name(&self, merge: &PlannedMerge, piece: usize, said: &str) -> String {
        let (name, planned) = (self.words(merge).0, &merge.pieces[piece]);
        let span = text::plan::span(planned.start, planned.p90_end, &self.model.when);
        let part = if merge.pieces.len() > 1 { format!(", part {} of {}", piece + 1, merge.pieces.len()) } else { String::new() };
        let pinned = if pin(self.plan, merge).is_some() { ", put there by somebody" } else { "" };
        format!("{name} merge{part}, {span}, {said}{pinned}")
    }

    /// Where a bar can be taken hold of.
    fn grip(&self, bar: &Bar, middle: f32) -> Rect {
        let rect = Rect::from_x_y_ranges(bar.left..=bar.p90.max(bar.left + 8.0), middle - 9.0..=middle + 9.0);
        rect.expand2(vec2(2.0, 0.0)).intersect(self.days_area())
    }

    /// A bar can be chosen, and moved to another window.
    fn take_hold(
        &self,
        ui: &Ui,
        merge: &PlannedMerge,
        (piece, seen): (usize, Rect),
        name: String,
        view: &mut PlanView,
        actions: &mut Vec<Action>,
    ) {
        if !seen.is_positive() {
            return;
        }
        let id = row_id(merge).with(("bar", piece));
        let response = ui.interact(seen, id, Sense::click_and_drag());
        response.widget_info(|| egui::WidgetInfo::labeled(Role::Button, true, &name));
        if response.clicked() {
            actions.push(Action::ShowMerge(merge.machine, merge.disk.clone()));
        }
        if response.drag_started() {
            view.dragged = Some((merge.machine, merge.disk.clone()));
        }
        if view.dragged.is_none() {
            response.on_hover_cursor(CursorIcon::Grab).on_hover_text(format!("{name}\nDrag it to another window."));
        }
    }

    /// A merge is being moved: what it would look like there; and where it is let go.
    fn drag(&self, ui: &Ui, merge: &PlannedMerge, rows: &Rows, view: &mut PlanView, actions: &mut Vec<Action>, p: &Palette) {
        let Some(pointer) = ui.ctx().pointer_latest_pos() else { return };
        let aimed = self.aimed(merge, pointer);
        ui.ctx().set_cursor_icon(if aimed.is_some() { CursorIcon::Grabbing } else { CursorIcon::NotAllowed });
        let painter = ui.painter().with_clip_rect(self.area);
        let said = match aimed {
            Some(occurrence) => {
                let bar = tried(merge, aimed, self.model.when.now, self.axis);
                bar.paint(&painter, pointer.y, p.accent, p);
                let span = text::plan::span(occurrence.start(), occurrence.end, &self.model.when);
                let over = if bar.over.is_some() { ", more than the window has" } else { "" };
                format!("{}, {span}{over}", text::plan::window_name(self.plan, occurrence.key.window))
            }
            None => "a window that is for this machine".to_owned(),
        };
        tip(&painter, pointer + vec2(12.0, 20.0), &format!("Put it into {said}"), self.area, p);
        if ui.input(|i| i.key_pressed(egui::Key::Escape)) {
            view.dragged = None;
        } else if ui.input(|i| i.pointer.any_released()) || !ui.input(|i| i.pointer.any_down()) {
            view.dragged = None;
            let now = merge.pieces.first().map(|piece| piece.occurrence);
            let pinned = pin(self.plan, merge);
            if let Some(occurrence) = aimed.filter(|o| Some(o.key) != now || (pinned.is_some() && pinned != now)) {
                actions.push(put_into(merge, Some(occurrence.key)));
                view.place = rows.place(self.plan, merge).map(|at| (merge.machine, merge.disk.clone(), at));
            }
            actions.push(Action::ShowMerge(merge.machine, merge.disk.clone()));
        }
    }
}

/// Up to this many rows, those out of sight are told to screen readers, too.
const TELL_ALL: usize = 1000;

/// Words beside the pointer.
fn tip(painter: &Painter, at: Pos2, words: &str, area: Rect, p: &Palette) {
    let galley = painter.layout_no_wrap(words.to_owned(), theme::small(), p.text);
    let left = at.x.min(area.right() - galley.size().x - 20.0);
    let top = if at.y + galley.size().y + 8.0 > area.bottom() { at.y - 50.0 } else { at.y };
    let rect = Rect::from_min_size(pos2(left, top), galley.size() + vec2(14.0, 8.0));
    painter.rect(rect, 4.0, p.raised, Stroke::new(1.0, p.line_strong), StrokeKind::Inside);
    painter.galley(rect.min + vec2(7.0, 4.0), galley, p.text);
}

/// Half of a bar's height.
const HALF: f32 = 7.0;

impl Bar {
    /// Solid to P50, fading to P90; what is over the window's end is red.
    fn paint(&self, painter: &Painter, middle: f32, color: Color32, p: &Palette) {
        let band = |from: f32, to: f32| Rect::from_x_y_ranges(from..=to, middle - HALF..=middle + HALF);
        let end = self.over.unwrap_or(f32::INFINITY);
        let rounded = egui::CornerRadius { nw: 3, sw: 3, ne: 0, se: 0 };
        painter.rect_filled(band(self.left, self.p50.min(end)), rounded, color);
        if end < self.p50 {
            painter.rect_filled(band(end, self.p50), 0.0, p.bad);
        }
        fade(painter, band(self.p50, self.p90), end, color, p.bad);
    }

    fn outline(&self, painter: &Painter, middle: f32, color: Color32) {
        let rect = Rect::from_x_y_ranges(self.left..=self.p90.max(self.left + 8.0), middle - HALF..=middle + HALF);
        let corners = [rect.left_top(), rect.right_top(), rect.right_bottom(), rect.left_bottom(), rect.left_top()];
        painter.extend(Shape::dashed_line(&corners, Stroke::new(1.3, color), 3.0, 2.5));
    }
}

/// From a colour to nothing; red from `end` on.
fn fade(painter: &Painter, rect: Rect, end: f32, color: Color32, red: Color32) {
    if rect.width() <= 0.0 {
        return;
    }
    let strength = |x: f32| 1.0 - 0.9 * (x - rect.left()) / rect.width();
    let mut mesh = Mesh::default();
    let mut part = |from: f32, to: f32, color: Color32| {
        if to <= from {
            return;
        }
        let first = mesh.vertices.len() as u32;
        for x in [from, to] {
            mesh.colored_vertex(pos2(x, rect.top()), color.gamma_multiply(strength(x)));
            mesh.colored_vertex(pos2(x, rect.bottom()), color.gamma_multiply(strength(x)));
        }
        mesh.add_triangle(first, first + 1, first + 2);
        mesh.add_triangle(first + 1, first + 2, first + 3);
    };
    let cut = end.clamp(rect.left(), rect.right());
    part(rect.left(), cut, color);
    part(cut, rect.right(), red);
    painter.add(Shape::mesh(mesh));
}
