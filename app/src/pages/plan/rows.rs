//! Which rows the plan has, and where bars stand on them. Pure.

use chrono::{DateTime, TimeDelta, Utc};
use snaptree_core::engine::PlanState;
use snaptree_core::snapshot::by_name;
use snaptree_core::window::{Occurrence, OccurrenceKey, PlannedMerge};

use super::axis::Axis;
use super::words;
use crate::model::Model;

/// Height of a merge's row, and of a volume's heading.
pub const ROW: f32 = 48.0;
pub const HEADING: f32 = 26.0;

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// A volume, by its place in the plan.
    Volume(usize),
    /// A merge, by its place in the plan.
    Merge(usize),
}

/// All rows, and where they begin.
#[derive(Debug, Default)]
pub struct Rows {
    pub rows: Vec<(Row, f32)>,
    pub height: f32,
}

impl Rows {
    /// The merges volume by volume; in a volume what is done first comes first, then what isn't planned, by name.
    pub fn of(plan: &PlanState, model: &Model) -> Self {
        let merges = &plan.plan.merges;
        let name = |i: usize| model.machine(Some(merges[i].machine)).map_or("", |m| m.name());
        let mut all = Self::default();
        let several = plan.plan.volumes.len() > 1;
        for (v, volume) in plan.plan.volumes.iter().enumerate() {
            let mut here: Vec<usize> = (0..merges.len()).filter(|i| merges[*i].volume == volume.id).collect();
            if here.is_empty() {
                continue;
            }
            let start = |i: usize| merges[i].pieces.first().map_or(DateTime::<Utc>::MAX_UTC, |p| p.start);
            here.sort_by(|a, b| {
                start(*a).cmp(&start(*b)).then_with(|| by_name(name(*a), name(*b))).then(merges[*a].disk.cmp(&merges[*b].disk))
            });
            if several {
                all.push(Row::Volume(v), HEADING);
            }
            here.into_iter().for_each(|i| all.push(Row::Merge(i), ROW));
        }
        all
    }

    fn push(&mut self, row: Row, height: f32) {
        self.rows.push((row, self.height));
        self.height += height;
    }

    /// The rows that stand between two heights, as places.
    pub fn between(&self, top: f32, bottom: f32) -> std::ops::Range<usize> {
        let first = self.rows.partition_point(|(_, y)| *y <= top).saturating_sub(1);
        let last = self.rows.partition_point(|(_, y)| *y < bottom);
        first..last.max(first)
    }

    /// Which of them is this merge's.
    pub fn place(&self, plan: &PlanState, merge: &PlannedMerge) -> Option<usize> {
        self.merges().position(|i| std::ptr::eq(&plan.plan.merges[i], merge))
    }

    /// The merges, in the order of their rows.
    pub fn merges(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().filter_map(|(row, _)| match row {
            Row::Merge(i) => Some(*i),
            Row::Volume(_) => None,
        })
    }
}

/// A stretch of a bar, in points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bar {
    pub left: f32,
    /// Where it probably ends.
    pub p50: f32,
    /// Where it has ended in 9 of 10 cases.
    pub p90: f32,
    /// Where the window ends, if before that.
    pub over: Option<f32>,
}

/// Narrower ones could be neither seen nor taken hold of.
const LEAST: f32 = 5.0;

impl Bar {
    fn new(axis: &Axis, start: DateTime<Utc>, p50: DateTime<Utc>, p90: DateTime<Utc>, window: Option<DateTime<Utc>>) -> Self {
        let left = axis.x(start);
        let p50 = axis.x(p50).max(left + LEAST);
        let over = window.filter(|end| *end < p90).map(|end| axis.x(end).max(left));
        Self { left, p50, p90: axis.x(p90).max(p50), over }
    }
}

/// The bars of a merge, each with the taking place that it is in.
pub fn bars(merge: &PlannedMerge, plan: &PlanState, axis: &Axis) -> Vec<(Bar, OccurrenceKey)> {
    let bar = |piece: &snaptree_core::window::PlannedPiece| {
        let end = words::occurrence(plan, piece.occurrence).map(|o| o.end);
        (Bar::new(axis, piece.start, piece.p50_end, piece.p90_end, end), piece.occurrence)
    };
    merge.pieces.iter().map(bar).collect()
}

/// The bar of a merge if it were started with a window (or now): what it would look like there.
pub fn tried(merge: &PlannedMerge, at: Option<&Occurrence>, now: DateTime<Utc>, axis: &Axis) -> Bar {
    let start = at.map_or(now, |o| o.start().max(now));
    let seconds = |s: f64| TimeDelta::try_milliseconds((s * 1000.0) as i64).unwrap_or_default();
    let (p50, p90) = merge.time.map_or((0.0, 0.0), |time| (time.p50, time.p90));
    Bar::new(axis, start, start + seconds(p50), start + seconds(p90), at.map(|o| o.end))
}

/// Short windows are a line on the screen: so far beside one still means it, in points.
const NEAR: f32 = 10.0;

/// The taking place at a place of the axis that is meant: the nearest of those that `counts`.
pub fn at<'p>(plan: &'p PlanState, axis: &Axis, x: f32, counts: impl Fn(&Occurrence) -> bool) -> Option<&'p Occurrence> {
    let beside = |o: &Occurrence| (axis.x(o.start()) - x).max(x - axis.x(o.end)).max(0.0);
    let near = plan.occurrences.iter().filter(|o| counts(o) && beside(o) <= NEAR);
    near.min_by(|a, b| beside(a).total_cmp(&beside(b)))
}

/// The taking place there that a merge could be put into.
pub fn target<'p>(plan: &'p PlanState, merge: &PlannedMerge, axis: &Axis, x: f32) -> Option<&'p Occurrence> {
    at(plan, axis, x, |o| o.scope.covers(merge.machine))
}

/// Whether somebody has put a merge somewhere.
pub fn pin(plan: &PlanState, merge: &PlannedMerge) -> Option<OccurrenceKey> {
    plan.pins.iter().find(|p| (p.machine, &p.disk) == (merge.machine, &merge.disk)).map(|p| p.occurrence)
}
