//! Lines and dots at the left of the rows. Thickness = bytes, colour = read cost, dashed = merge due.

use egui::{Color32, Painter, Pos2, Rect, Shape, Stroke, epaint::CubicBezierShape, pos2};
use snaptree_core::units::ByteCount;

use crate::theme::{Palette, Tone};

/// A due merge's dashes.
const DASH: f32 = 5.0;
const GAP: f32 = 4.0;

/// How many images a read looks through: what the colour says.
pub fn tone_of_reads(mean: Option<f64>) -> Tone {
    match mean {
        None => Tone::Weak,
        Some(m) if m < 3.0 => Tone::Good,
        Some(m) if m < 5.0 => Tone::Warn,
        Some(_) => Tone::Bad,
    }
}

/// The line's width for the bytes that it stands for, against the most of the tree.
pub fn width(held: ByteCount, most: ByteCount) -> f32 {
    let share = if most.0 == 0 { 0.0 } else { (held.0 as f64 / most.0 as f64).sqrt() as f32 };
    1.8 + 4.6 * share.min(1.0)
}

/// Where lanes stand.
#[derive(Debug, Clone, Copy)]
pub struct Lanes {
    left: f32,
    step: f32,
    /// Room that all lanes take.
    pub width: f32,
}

impl Lanes {
    /// Room for this many lanes, at most `room` wide: many lanes stand closer together.
    pub fn new(left: f32, lanes: u32, room: f32) -> Self {
        let step = (room / (lanes as f32 + 1.0)).min(22.0);
        Self { left, step, width: (step * lanes as f32 + 28.0).max(46.0) }
    }

    /// The middle of a lane.
    pub fn x(&self, lane: u32) -> f32 {
        self.left + 14.0 + self.step * lane as f32
    }
}

/// A line from a row up to the one that it hangs from.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// The dot of the upper (older) row.
    pub from: Pos2,
    /// The dot of the lower (newer) row.
    pub to: Pos2,
    /// Height of a row: a branch leaves its lane in the row before its own.
    pub row: f32,
    pub width: f32,
    pub color: Color32,
    /// A merge is due along it.
    pub due: bool,
    /// How far the merge along it has come.
    pub progress: Option<f32>,
}

impl Line {
    /// Paints it.
    pub fn paint(&self, painter: &Painter, clip: Rect, p: &Palette) {
        let straight = (self.from.x - self.to.x).abs() < 0.5;
        let points = if straight {
            // Only what can be seen: a line may pass thousands of rows. Whole dashes, so that they
            // keep their places while the tree is scrolled.
            let hidden = ((clip.top() - 20.0 - self.from.y) / (DASH + GAP)).floor().max(0.0);
            let top = self.from.y + hidden * (DASH + GAP);
            vec![pos2(self.from.x, top), pos2(self.to.x, self.to.y.min(clip.bottom() + 20.0))]
        } else {
            let start = pos2(self.from.x, self.from.y.max(self.to.y - self.row));
            let half = (self.to.y - start.y) * 0.55;
            let curve = CubicBezierShape::from_points_stroke(
                [start, pos2(start.x, start.y + half), pos2(self.to.x, self.to.y - half), self.to],
                false,
                Color32::TRANSPARENT,
                Stroke::NONE,
            );
            curve.flatten(Some(0.2))
        };
        let stroke = Stroke::new(self.width, self.color);
        if self.due {
            let stroke = Stroke::new(self.width.max(3.0), p.warn);
            painter.extend(Shape::dashed_line(&points, stroke, DASH, GAP));
            if let Some(done) = self.progress {
                let end = self.to.y + (self.from.y - self.to.y) * done;
                painter
                    .line_segment([pos2(self.to.x, self.to.y), pos2(self.to.x, end)], Stroke::new(self.width.max(3.0), p.accent));
            }
        } else {
            painter.add(Shape::line(points, stroke));
        }
    }
}

/// What a row's dot looks like: the shape says what it is, not only the colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dot {
    /// A full circle.
    Snapshot,
    /// A dashed ring.
    Ghost,
    /// A circle in a ring.
    Now,
}

impl Dot {
    /// Paints it.
    pub fn paint(self, painter: &Painter, at: Pos2, p: &Palette, ground: Color32, strong: bool) {
        let radius = if strong { 6.0 } else { 5.0 };
        match self {
            Self::Snapshot => {
                painter.circle(at, radius, if strong { p.dot } else { p.dot.gamma_multiply(0.75) }, Stroke::new(1.5, p.text));
            }
            Self::Ghost => {
                painter.circle_filled(at, radius, ground);
                let ring: Vec<Pos2> = (0..=24)
                    .map(|i| {
                        let a = i as f32 / 24.0 * std::f32::consts::TAU;
                        at + radius * egui::Vec2::angled(a)
                    })
                    .collect();
                painter.extend(Shape::dashed_line(&ring, Stroke::new(1.5, p.warn), 2.6, 2.2));
            }
            Self::Now => {
                painter.circle(at, radius + 2.5, ground, Stroke::new(1.5, p.good));
                painter.circle_filled(at, radius - 1.0, p.good);
            }
        }
    }
}
