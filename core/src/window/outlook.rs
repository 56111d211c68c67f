//! Free space over time, with the plan and without.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::plan::time;
use super::volume::{Piece, Problem};
use crate::cost::{Band, Line, UsedUp};
use crate::units::ByteCount;

/// A volume over the time of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeOutlook {
    /// Names it.
    pub id: String,
    /// Below this, machines stop.
    pub floor: ByteCount,
    /// Free space, in the order of time; where a merge gives space back there are two points at one time.
    pub points: Vec<FreePoint>,
    /// When it is below its floor if nothing is merged.
    pub full: UsedUp,
    /// And if all is done as planned.
    pub full_as_planned: UsedUp,
}

/// Free space at a time. `p10` is what is free at least in 9 of 10 cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreePoint {
    /// When.
    pub at: DateTime<Utc>,
    /// As planned.
    pub planned: Band<ByteCount>,
    /// If nothing is merged.
    pub without: Band<ByteCount>,
}

/// Points at regular times; those at which something happens come on top.
const POINTS: u32 = 48;

/// When merges end, and what they give back.
pub(super) fn gains<'p>(problem: &Problem<'_>, pieces: impl Iterator<Item = &'p Piece>) -> Vec<(f64, f64)> {
    let ends = pieces.filter(|piece| piece.ends);
    ends.map(|piece| (piece.p90_end, problem.jobs[piece.job].options[piece.option].comes_back.0 as f64)).collect()
}

/// When the volume is below its floor, with these gains (in the order of time).
pub(super) fn used_up(problem: &Problem<'_>, gains: &[(f64, f64)]) -> UsedUp {
    let (volume, now) = (problem.volume, problem.input.now);
    let line = |of: fn(UsedUp) -> Option<DateTime<Utc>>| {
        let mut gained = 0.0;
        for (at, bytes) in gains.iter().copied().chain([(f64::INFINITY, 0.0)]) {
            let room = volume.free.0 as f64 + gained - volume.floor.0 as f64;
            volume.growth.rate?;
            let full = if room < 0.0 { Some(now) } else { of(volume.growth.uses_up(ByteCount(room as u64), now)) };
            // Only what is reached before the next one gives space back.
            if let Some(full) = full.filter(|full| at.is_infinite() || *full < time(problem, at)) {
                return Some(full);
            }
            gained += bytes;
        }
        None
    };
    UsedUp { earliest: line(|u| u.earliest), middle: line(|u| u.middle), late: line(|u| u.late), safe: line(|u| u.safe) }
}

pub(super) fn outlook(problem: &Problem<'_>, pieces: &[Piece]) -> VolumeOutlook {
    let gains = gains(problem, pieces.iter());
    let horizon = (problem.input.until - problem.input.now).as_seconds_f64().max(0.0);
    let mut times: Vec<(f64, bool)> = (0..=POINTS).map(|n| (horizon * f64::from(n) / f64::from(POINTS), true)).collect();
    times.extend(gains.iter().flat_map(|(at, _)| [(*at, false), (*at, true)]));
    times.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let free = |line, at: f64, gained: f64| {
        let added = problem.volume.growth.added_along(line, at / 86_400.0);
        ByteCount((problem.volume.free.0 as f64 + gained - added).max(0.0) as u64)
    };
    // What grows most leaves least.
    let band = |at, gained| Band {
        p10: free(Line::P90, at, gained),
        p50: free(Line::P50, at, gained),
        p90: free(Line::P10, at, gained),
    };
    let points = times.into_iter().map(|(at, after)| {
        let gained = gains.iter().filter(|(end, _)| *end < at || (after && *end <= at)).map(|(_, bytes)| bytes).sum();
        FreePoint { at: time(problem, at), planned: band(at, gained), without: band(at, 0.0) }
    });
    VolumeOutlook {
        id: problem.volume.id.clone(),
        floor: problem.volume.floor,
        points: points.collect(),
        full: used_up(problem, &[]),
        full_as_planned: used_up(problem, &gains),
    }
}
