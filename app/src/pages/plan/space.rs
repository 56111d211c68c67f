//! Free space of each volume, on the same axis as the merges: history, and forecast with the plan and without.

use chrono::{DateTime, Utc};
use egui::{Align2, Pos2, Rect, Role, Sense, Shape, Stroke, Ui, pos2, vec2};
use snaptree_core::engine::{PlanState, VolumeHistory};
use snaptree_core::units::ByteCount;
use snaptree_core::window::VolumeOutlook;

use super::axis::Axis;
use super::{paint, words};
use crate::model::Model;
use crate::text::{self, bytes};
use crate::theme::{self, Palette, Tone};
use crate::widgets::put;

/// Height of a volume.
const HEIGHT: std::ops::RangeInclusive<f32> = 148.0..=250.0;
/// Room above the highest line, for labels.
const ABOVE: f32 = 20.0;
/// Room below the floor.
const BELOW: f32 = 22.0;

/// Room that all volumes take at least.
pub fn height(plan: &PlanState) -> f32 {
    HEIGHT.start() * plan.plan.volumes.len() as f32
}

/// Shows all volumes.
pub fn show(ui: &mut Ui, plan: &PlanState, model: &Model, axis: &Axis) {
    let volumes = &plan.plan.volumes;
    let height = (ui.available_height() / volumes.len().max(1) as f32).clamp(*HEIGHT.start(), *HEIGHT.end());
    for volume in volumes {
        let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::hover());
        if !ui.is_rect_visible(rect) {
            continue;
        }
        let history = plan.volumes.iter().find(|h| h.id == volume.id);
        let graph = Graph::new(rect, axis, volume, history);
        let said = graph.said(plan, model);
        response.widget_info(|| egui::WidgetInfo::labeled(Role::Image, true, &said));
        let pointed = response.hover_pos().filter(|at| axis.left <= at.x && at.x <= axis.right);
        graph.paint(ui, plan, model, pointed.map(|at| axis.time(at.x)));
    }
}

struct Graph<'a> {
    rect: Rect,
    axis: &'a Axis,
    volume: &'a VolumeOutlook,
    history: Option<&'a VolumeHistory>,
    /// The most that is free in what is shown.
    most: f64,
}

impl<'a> Graph<'a> {
    fn new(rect: Rect, axis: &'a Axis, volume: &'a VolumeOutlook, history: Option<&'a VolumeHistory>) -> Self {
        let past = history.into_iter().flat_map(|h| &h.free).map(|(at, free)| (*at, *free));
        let ahead = volume.points.iter().map(|p| (p.at, p.planned.p90));
        let seen = past.chain(ahead).filter(|(at, _)| axis.from <= *at && *at <= axis.to).map(|(_, free)| free.0).max();
        let now = volume.points.first().map_or(0, |p| p.planned.p50.0);
        let most = seen.unwrap_or(now).max(volume.floor.0 * 2).max(1) as f64;
        Self { rect, axis, volume, history, most }
    }

    fn y(&self, free: ByteCount) -> f32 {
        let (top, bottom) = (self.rect.top() + ABOVE, self.rect.bottom() - BELOW);
        bottom - (free.0 as f64 / self.most) as f32 * (bottom - top)
    }

    fn at(&self, time: DateTime<Utc>, free: ByteCount) -> Pos2 {
        pos2(self.axis.x(time), self.y(free))
    }

    /// The points of a line between which something can be seen.
    fn seen(&self, points: Vec<Pos2>) -> Vec<Pos2> {
        let first = points.partition_point(|at| at.x < self.axis.left).saturating_sub(1);
        let last = points.partition_point(|at| at.x <= self.axis.right);
        points.into_iter().take(last + 1).skip(first).collect()
    }

    /// The last safe start of all merges on the volume.
    fn latest_start(&self, plan: &PlanState) -> Option<DateTime<Utc>> {
        plan.plan.merges.iter().filter(|m| m.volume == self.volume.id).filter_map(|m| m.latest_safe_start).min()
    }

    fn said(&self, plan: &PlanState, model: &Model) -> String {
        let now = self.volume.points.first().map_or(ByteCount::ZERO, |p| p.planned.p50);
        let mut said =
            format!("Free space of {}: {} now", text::plan::volume_name(&self.volume.id, plan, &words::names(model)), bytes(now));
        let about = |time| text::plan::about(time, &model.when);
        match (self.volume.full_as_planned.middle, self.volume.full.middle) {
            (Some(planned), Some(without)) if planned != without => {
                said += &format!(", full {} as planned, {} without merging", about(planned), about(without));
            }
            (_, Some(without)) => said += &format!(", full {}", about(without)),
            _ => {}
        }
        if let Some(start) = self.latest_start(plan) {
            said += &format!(", latest safe start {}", text::plan::minute(start, &model.when));
        }
        said + &format!(", machines pause below {}", bytes(self.volume.floor))
    }

    fn paint(&self, ui: &Ui, plan: &PlanState, model: &Model, pointed: Option<DateTime<Utc>>) {
        let p = theme::palette(ui);
        let painter = ui.painter();
        painter.hline(self.rect.x_range(), self.rect.top(), Stroke::new(1.0, p.line));
        self.names(ui, plan, model, p);
        let days = Rect::from_x_y_ranges(self.axis.left..=self.axis.right, self.rect.y_range());
        let inside = painter.with_clip_rect(days.intersect(ui.clip_rect()));
        paint::grid(&inside, days.with_min_y(days.top() + 1.0), self.axis, &model.when, p);
        self.band(&inside, p);
        if let Some(history) = self.history {
            let points: Vec<Pos2> = history.free.iter().map(|(at, free)| self.at(*at, *free)).collect();
            let to_now = self.volume.points.first().map(|first| self.at(first.at, first.planned.p50));
            let points = points.into_iter().chain(to_now).collect();
            inside.add(Shape::line(self.seen(points), Stroke::new(1.5, p.weak)));
        }
        let planned: Vec<Pos2> = self.volume.points.iter().map(|x| self.at(x.at, x.planned.p50)).collect();
        inside.add(Shape::line(self.seen(planned), Stroke::new(1.8, p.good)));
        let without: Vec<Pos2> = self.volume.points.iter().map(|x| self.at(x.at, x.without.p50)).collect();
        inside.extend(Shape::dashed_line(&self.seen(without), Stroke::new(1.4, p.bad), 5.0, 4.0));
        let floor = self.y(self.volume.floor);
        inside.hline(days.x_range(), floor, Stroke::new(1.2, p.bad));
        let below = format!("machines pause below {}", bytes(self.volume.floor));
        put(&inside, pos2(days.left() + 6.0, floor + 10.0), Align2::LEFT_CENTER, &below, theme::small(), p.bad, days.width());
        self.marks(&inside, plan, model, days, p);
        if let Some(at) = pointed {
            self.figures(&inside, model, at, days, p);
        }
    }

    fn names(&self, ui: &Ui, plan: &PlanState, model: &Model, p: &Palette) {
        let left = self.rect.left() + 14.0;
        let room = self.axis.left - left - 10.0;
        let mut y = self.rect.top() + 18.0;
        let mut line = |words: &str, font, color| {
            put(ui.painter(), pos2(left, y), Align2::LEFT_CENTER, words, font, color, room);
            y += 17.0;
        };
        let name = text::plan::volume_name(&self.volume.id, plan, &words::names(model));
        line(&text::sentence(name), theme::strong(), p.text);
        let now = self.volume.points.first().map_or(ByteCount::ZERO, |p| p.planned.p50);
        line(&format!("{} free now", bytes(now)), theme::small(), p.weak);
        match self.history.and_then(|h| h.growth.per_day()) {
            Some(daily) => line(&format!("grows {} a day", bytes(daily.p50)), theme::small(), p.weak),
            None => line("growth not known yet", theme::small(), p.weak),
        }
        // What the lines are.
        for (words, color, dashed) in [("as planned", p.good, false), ("without merging", p.bad, true)] {
            let ends = [pos2(left, y + 4.0), pos2(left + 18.0, y + 4.0)];
            match dashed {
                true => ui.painter().extend(Shape::dashed_line(&ends, Stroke::new(1.6, color), 5.0, 3.0)),
                false => drop(ui.painter().line_segment(ends, Stroke::new(1.8, color))),
            }
            put(ui.painter(), pos2(left + 25.0, y + 4.0), Align2::LEFT_CENTER, words, theme::small(), p.weak, room - 25.0);
            y += 16.0;
        }
    }

    /// Between P10 and P90 of what is planned.
    fn band(&self, painter: &egui::Painter, p: &Palette) {
        let color = p.good.gamma_multiply(0.12);
        for pair in self.volume.points.windows(2).filter(|pair| pair[0].at < pair[1].at) {
            let (a, b) = (&pair[0], &pair[1]);
            let corners = vec![
                self.at(a.at, a.planned.p90),
                self.at(b.at, b.planned.p90),
                self.at(b.at, b.planned.p10),
                self.at(a.at, a.planned.p10),
            ];
            painter.add(Shape::convex_polygon(corners, color, Stroke::NONE));
        }
    }

    /// When it is full, and when merging has to have begun: lines with words.
    fn marks(&self, painter: &egui::Painter, plan: &PlanState, model: &Model, days: Rect, p: &Palette) {
        let full = self
            .volume
            .full
            .middle
            .map(|at| (at, format!("full {} without merging", text::plan::about(at, &model.when)), Tone::Bad));
        let start = self.latest_start(plan);
        let start = start.map(|at| (at, format!("latest safe start {}", text::plan::minute(at, &model.when)), Tone::Warn));
        for (row, (at, words, tone)) in [start, full].into_iter().enumerate().filter_map(|(row, mark)| Some((row, mark?))) {
            let x = self.axis.x(at);
            let y = days.top() + 11.0 + 15.0 * row as f32;
            let color = p.tone(tone);
            if x < days.left() {
                continue;
            }
            if x > days.right() {
                // Beyond what is shown: told at the edge.
                let words = format!("{words} ▶");
                put(painter, pos2(days.right() - 4.0, y), Align2::RIGHT_CENTER, &words, theme::small(), color, days.width());
                continue;
            }
            let line = [pos2(x, y), pos2(x, self.y(self.volume.floor))];
            painter.extend(Shape::dashed_line(&line, Stroke::new(1.2, color), 2.5, 3.0));
            let width = painter.layout_no_wrap(words.clone(), theme::small(), color).size().x;
            let left = if x + width + 10.0 > days.right() { x - width - 6.0 } else { x + 6.0 };
            put(painter, pos2(left, y), Align2::LEFT_CENTER, &words, theme::small(), color, width + 2.0);
        }
    }

    /// What is free at the time that is pointed at.
    fn figures(&self, painter: &egui::Painter, model: &Model, at: DateTime<Utc>, days: Rect, p: &Palette) {
        let x = self.axis.x(at);
        painter.vline(x, days.y_range(), Stroke::new(1.0, p.line_strong));
        let points = &self.volume.points;
        let said = match points.iter().position(|point| point.at > at) {
            Some(0) => {
                let free = self.history.and_then(|h| h.free.iter().rev().find(|(then, _)| *then <= at)).map(|(_, free)| *free);
                free.map(|free| format!("{}: {} free", text::plan::minute(at, &model.when), bytes(free)))
            }
            next => points.get(next.unwrap_or(points.len()).saturating_sub(1)).map(|point| {
                let (planned, without) = (point.planned, point.without.p50);
                format!(
                    "{}: {} free ({} to {}), without merging {}",
                    text::plan::minute(at, &model.when),
                    bytes(planned.p50),
                    bytes(planned.p10),
                    bytes(planned.p90),
                    bytes(without)
                )
            }),
        };
        let Some(said) = said else { return };
        let width = painter.layout_no_wrap(said.clone(), theme::small(), p.text).size().x;
        let left = (x + 6.0).min(days.right() - width - 4.0);
        put(painter, pos2(left, days.bottom() - 9.0), Align2::LEFT_CENTER, &said, theme::small(), p.text, width + 2.0);
    }
}
