//! How something grows, from its sizes over time; when a volume gets full; what a merge will take later.
//!
//! ```text
//! sizes over time ─> steps, without what gave space back ─> blocks ─> rate and spread a day ─> Growth
//!                         Growth + time ─> bytes added (P10, P50, P90)
//!                         Growth + room ─> when it is used up (earliest, middle, late; and a date that is safe)
//! ```
//!
//! Between two samples something grows, or gives space back (a merge, a deletion, an emptied trash): a step down is no
//! negative growth, it only says nothing about that time. What is left is taken for a steady rate with chance around
//! it, so that the band opens with the root of the time for what chance does, and with the time for what so little
//! history can't know of the rate; and the rate itself may drift. Newer samples weigh more. Single bursts hardly move
//! the middle, but count in full for the upper end.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::fit::student_p90;
use super::{Estimate, Learnt, MergeLoad, MergeWork};
use crate::snapshot::ImageId;
use crate::units::ByteCount;

/// Sizes at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeSample {
    /// When.
    pub at: DateTime<Utc>,
    /// Bytes that each image takes.
    pub images: BTreeMap<ImageId, ByteCount>,
    /// Free bytes of the volume.
    pub free: ByteCount,
}

/// In 8 of 10 cases between `p10` and `p90`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Band<T> {
    /// Less in 1 of 10 cases.
    pub p10: T,
    /// The middle.
    pub p50: T,
    /// More in 1 of 10 cases.
    pub p90: T,
}

/// How something grows, and on how much history that stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// Samples of it.
    pub samples: u32,
    /// The first and the last of them.
    pub history: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// `None`: too little history to know yet.
    pub rate: Option<GrowthRate>,
}

/// What the history says, in bytes and days.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GrowthRate {
    /// Bytes a day, single bursts left aside.
    pub middle: f64,
    /// Bytes a day, with everything.
    pub mean: f64,
    /// How far a day is off (bytes, standard deviation).
    pub spread: f64,
    /// The largest burst that was seen (bytes of one block of history above the mean), or else what a day brings.
    pub burst: f64,
    /// Days of history that it stands on, older ones weighing less, and what gave space back left out.
    pub days: f64,
    /// Multiples of the spread to the 10th and 90th percentile: more where there are few samples.
    pub reach: f64,
}

/// When some room is used up. `None`: not within ten years.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedUp {
    /// Before this in 1 of 10 cases.
    pub earliest: Option<DateTime<Utc>>,
    /// The middle.
    pub middle: Option<DateTime<Utc>>,
    /// After this in 1 of 10 cases.
    pub late: Option<DateTime<Utc>>,
    /// What deadlines are made of: practically never before this.
    pub safe: Option<DateTime<Utc>>,
}

/// Which line of a forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Grows less in 1 of 10 cases.
    P10,
    /// The middle.
    P50,
    /// Grows more in 1 of 10 cases.
    P90,
    /// Practically never grows more: what deadlines, and what fits, are made of.
    Safe,
}

/// Fewer samples say nothing.
const FEWEST: usize = 3;
/// Nor does less history (days).
const SHORTEST: f64 = 0.25;
/// A sample of this age (days) counts half.
const HALF_LIFE: f64 = 21.0;
/// Samples are taken together into blocks of this share of the history, between a quarter of a day and a day.
const BLOCK: f64 = 1.0 / 24.0;
/// The spread that is assumed before blocks show theirs (share of the growth of a day), and how many blocks that is worth.
const SPREAD: (f64, f64) = (0.5, 2.0);
/// A block further off than so many times what three of four stay within pulls the middle no harder.
const BURST: f64 = 2.0;
/// The rate may drift by this share of itself in a day (as a random walk).
const DRIFT: f64 = 0.03;
/// The safe line lies so many times as far out as P90, and has room for one more burst as large as the largest.
const SAFE: f64 = 5.0;
/// Within so many days that burst may come.
const BURST_TIME: f64 = 0.125;
/// Steps down are noise where they are this share of all steps, and not larger than so many usual ones.
const NOISE: (f64, f64) = (0.2, 4.0);
/// How far is looked ahead, in days.
const FARTHEST: f64 = 3650.0;

/// A stretch of time in which something grew.
struct Block {
    days: f64,
    bytes: f64,
    /// How much it counts.
    weight: f64,
}

impl Growth {
    /// Growth of what a volume holds.
    pub fn of_volume(samples: &[SizeSample]) -> Self {
        let most = samples.iter().map(|s| s.free).max().unwrap_or_default();
        Self::of(samples.iter().map(|s| (s.at, most.saturating_sub(s.free))))
    }

    /// Growth of the image that a machine writes to; where that one is too young, of all its images.
    pub fn of_leaf(samples: &[SizeSample], leaf: ImageId) -> Self {
        let own = Self::of(samples.iter().filter_map(|s| Some((s.at, *s.images.get(&leaf)?))));
        if own.rate.is_some() {
            return own;
        }
        Self::of(samples.iter().map(|s| (s.at, s.images.values().copied().sum())))
    }

    /// Growth of anything whose sizes are known at some times, in any order.
    pub fn of(points: impl IntoIterator<Item = (DateTime<Utc>, ByteCount)>) -> Self {
        let mut points: Vec<_> = points.into_iter().collect();
        points.sort_by_key(|(at, _)| *at);
        points.dedup_by_key(|(at, _)| *at);
        let history = points.first().zip(points.last()).map(|(first, last)| (first.0, last.0));
        let enough = points.len() >= FEWEST && history.is_some_and(|(from, to)| days(to - from) >= SHORTEST);
        let rate = if enough { rate(&blocks(&points)) } else { None };
        Self { samples: points.len() as u32, history, rate }
    }

    /// Bytes a day, as a mean over as much time as there is history; `None` if it isn't known yet.
    pub fn per_day(&self) -> Option<Band<ByteCount>> {
        let days = self.rate?.days.max(1.0);
        let band = self.added(TimeDelta::seconds((days * 86_400.0) as i64))?;
        let daily = |bytes: ByteCount| ByteCount((bytes.0 as f64 / days) as u64);
        Some(Band { p10: daily(band.p10), p50: daily(band.p50), p90: daily(band.p90) })
    }

    /// Bytes that it grows by within a time; `None` if it isn't known yet.
    pub fn added(&self, within: TimeDelta) -> Option<Band<ByteCount>> {
        let rate = self.rate?;
        let at = |line| bytes(rate.added(line, days(within)));
        Some(Band { p10: at(Line::P10), p50: at(Line::P50), p90: at(Line::P90) })
    }

    /// Bytes that it grows by within so many days along a line: nothing if it isn't known yet.
    pub fn added_along(&self, line: Line, days: f64) -> f64 {
        self.rate.map_or(0.0, |rate| rate.added(line, days))
    }

    /// When this much room from now on is used up; all `None` also if it isn't known yet.
    pub fn uses_up(&self, room: ByteCount, now: DateTime<Utc>) -> UsedUp {
        let Some(rate) = self.rate else { return UsedUp::default() };
        let at = |line| {
            let seconds = rate.days_until(line, room.0 as f64)? * 86_400.0;
            now.checked_add_signed(TimeDelta::try_seconds(seconds as i64)?)
        };
        UsedUp { earliest: at(Line::P90), middle: at(Line::P50), late: at(Line::P10), safe: at(Line::Safe) }
    }
}

impl GrowthRate {
    /// Bytes added within so many days.
    fn added(&self, line: Line, days: f64) -> f64 {
        let t = days.max(0.0);
        let chance = self.spread.powi(2) * (t + t * t / self.days.max(1e-3));
        let drift = (DRIFT * self.mean).powi(2) * t.powi(3) / 3.0;
        let reach = self.reach * (chance + drift).sqrt();
        match line {
            Line::P10 => (self.middle * t - reach).max(0.0),
            Line::P50 => self.middle * t,
            Line::P90 => self.mean.max(self.middle) * t + reach,
            Line::Safe => self.mean.max(self.middle) * t + SAFE * reach + self.burst * (t / BURST_TIME).min(1.0),
        }
    }

    /// Days until so many bytes are added, rounded down.
    fn days_until(&self, line: Line, room: f64) -> Option<f64> {
        let (mut low, mut high) = (0.0, 1.0 / 24.0);
        while self.added(line, high) < room {
            (low, high) = (high, high * 1.1);
            if low > FARTHEST {
                return None;
            }
        }
        for _ in 0..40 {
            let middle = (low + high) / 2.0;
            if self.added(line, middle) < room { low = middle } else { high = middle }
        }
        Some(low)
    }
}

impl MergeWork {
    /// The same work with so many bytes more to move, in stretches as they are now.
    pub fn grown_by(self, added: f64) -> Self {
        let bytes = self.bytes as f64;
        let stretches = self.stretches as f64 * if bytes > 0.0 { 1.0 + added / bytes } else { 1.0 };
        Self { bytes: (bytes + added) as u64, stretches: stretches.round() as u64, ..self }
    }
}

impl Learnt {
    /// How long the work takes if it begins so many days later, and what it moves grows until then.
    pub fn estimate_later(&self, work: MergeWork, growth: &Growth, days: f64, load: MergeLoad) -> Estimate {
        let at = |line| self.estimate(work.grown_by(growth.added_along(line, days)), load);
        let middle = at(Line::P50);
        Estimate { p10: at(Line::P10).p10.min(middle.p50), p50: middle.p50, p90: at(Line::P90).p90, basis: middle.basis }
    }
}

fn days(time: TimeDelta) -> f64 {
    time.as_seconds_f64() / 86_400.0
}

fn bytes(value: f64) -> ByteCount {
    ByteCount(value.round() as u64)
}

/// What grew, in blocks of time; steps that gave space back left out.
fn blocks(points: &[(DateTime<Utc>, ByteCount)]) -> Vec<Block> {
    let steps =
        || points.windows(2).map(|pair| (pair[1].0, days(pair[1].0 - pair[0].0), pair[1].1.0 as f64 - pair[0].1.0 as f64));
    let mut down: Vec<f64> = steps().map(|(_, _, bytes)| -bytes).filter(|bytes| *bytes > 0.0).collect();
    down.sort_by(f64::total_cmp);
    let (often, large) = NOISE;
    let is_noise = down.len() >= FEWEST && down.len() as f64 >= often * points.len() as f64;
    let most_noise = if is_noise { large * down[down.len() / 2] } else { 0.0 };
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    let length = (days(last.0 - first.0) * BLOCK).clamp(0.25, 1.0);
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (at, days_long, bytes) in steps() {
        if -bytes > most_noise {
            continue;
        }
        if !std::mem::replace(&mut open, true) {
            blocks.push(Block { days: 0.0, bytes: 0.0, weight: 0.0 });
        }
        if let Some(block) = blocks.last_mut() {
            block.days += days_long;
            block.bytes += bytes;
            block.weight = 0.5f64.powf(days(last.0 - at) / HALF_LIFE);
            open = block.days < length;
        }
    }
    // What the last one lacks would count as a whole block's chance.
    if open && blocks.len() > 1 {
        let rest = blocks.pop();
        if let (Some(block), Some(rest)) = (blocks.last_mut(), rest) {
            (block.days, block.bytes) = (block.days + rest.days, block.bytes + rest.bytes);
        }
    }
    blocks
}

fn rate(blocks: &[Block]) -> Option<GrowthRate> {
    let weighted = |of: &dyn Fn(&Block) -> f64| blocks.iter().map(|b| b.weight * of(b)).sum::<f64>();
    let (time, weight) = (weighted(&|b| b.days), weighted(&|_| 1.0));
    if time <= 0.0 {
        return None;
    }
    let mean = (weighted(&|b| b.bytes) / time).max(0.0);
    let off = |b: &Block, rate: f64| (b.bytes - rate * b.days) / b.days.sqrt();
    // The middle: what is usual, from the middle of all, with what is far off cut to what is usual at most.
    let mut daily: Vec<f64> = blocks.iter().map(|b| b.bytes / b.days).collect();
    daily.sort_by(f64::total_cmp);
    let median = daily[daily.len() / 2];
    let mut offs: Vec<f64> = blocks.iter().map(|b| off(b, median).abs()).collect();
    offs.sort_by(f64::total_cmp);
    let usual = (BURST * offs[offs.len() * 3 / 4]).max(1.0);
    let cut = |b: &Block| median * b.days + off(b, median).clamp(-usual, usual) * b.days.sqrt();
    let middle = if blocks.len() < FEWEST { mean } else { (weighted(&cut) / time).max(0.0) };
    let (assumed, worth) = SPREAD;
    let squares = weighted(&|b| off(b, mean).powi(2));
    // One block is spent on the rate.
    let freedom = worth + (weight - 1.0).max(0.0);
    let spread = ((worth * (assumed * mean).powi(2) + squares) / freedom).sqrt();
    let effective = time * time / blocks.iter().map(|b| b.weight.powi(2) * b.days).sum::<f64>();
    let burst = blocks.iter().map(|b| b.bytes - mean * b.days).fold(mean, f64::max);
    Some(GrowthRate { middle, mean, spread, burst, days: effective, reach: student_p90(freedom) })
}
