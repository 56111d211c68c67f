//! Maintenance windows: when merging is allowed, in the computer's own time.
//!
//! Times of day are local. Where the clock is put forward, a time that doesn't exist is the first instant after the
//! gap; where it is put back, a time that comes twice is its first instant, at the start as at the end: so a window never
//! runs over, and what is left empty by that doesn't take place.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, Days, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc, Weekday};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::cost::MergeMode;
use crate::snapshot::MachineId;
use crate::units::ByteRate;

/// A maintenance window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WindowId(pub Uuid);

impl WindowId {
    /// A new one.
    #[expect(clippy::new_without_default, reason = "a default that differs each time would surprise")]
    pub fn new() -> Self {
        Self(crate::fresh::uuid())
    }
}

/// A period, once or every week, in which merging is allowed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MaintenanceWindow {
    /// Stays the same when the window is renamed or moved.
    pub id: WindowId,
    /// For people.
    pub name: String,
    /// When.
    pub when: When,
    /// For which machines.
    pub scope: Scope,
    /// What happens to machines that run: they go on ([`MergeMode::Live`]), or they may be shut down, merged, and
    /// started again, up by the window's end ([`MergeMode::Stopped`]).
    pub mode: MergeMode,
    /// No more than this is moved in a second.
    pub limit: Option<ByteRate>,
    /// Whether it takes place.
    pub enabled: bool,
}

/// When a window is, in local time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// On these days of every week.
    Weekly {
        /// The days on which it starts.
        days: Vec<Weekday>,
        /// It starts at this time of day.
        from: NaiveTime,
        /// It ends at the next such time of day after the start: on the next day if that is not later than `from`.
        to: NaiveTime,
    },
    /// Once.
    Once {
        /// It starts.
        from: NaiveDateTime,
        /// It ends.
        to: NaiveDateTime,
    },
}

/// For which machines a window is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All.
    #[default]
    All,
    /// Only these.
    Machines(BTreeSet<MachineId>),
}

impl Scope {
    /// Whether it holds for a machine.
    pub fn covers(&self, machine: MachineId) -> bool {
        match self {
            Self::All => true,
            Self::Machines(machines) => machines.contains(&machine),
        }
    }
}

/// Names one taking place of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OccurrenceKey {
    /// The window.
    pub window: WindowId,
    /// When it starts.
    pub start: DateTime<Utc>,
}

/// One taking place of a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Occurrence {
    /// Names it.
    pub key: OccurrenceKey,
    /// When it ends.
    pub end: DateTime<Utc>,
    /// As the window's.
    pub mode: MergeMode,
    /// As the window's.
    pub limit: Option<ByteRate>,
    /// As the window's.
    pub scope: Scope,
}

impl Occurrence {
    /// When it starts.
    pub fn start(&self) -> DateTime<Utc> {
        self.key.start
    }
}

/// What is wrong with a window, in words for the person who made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WindowProblem {
    /// No name.
    #[error("the window has no name")]
    NoName,
    /// Weekly on no day.
    #[error("no day of the week is chosen")]
    NoDays,
    /// A one-off window that ends before it starts.
    #[error("the window ends before it starts")]
    EndsFirst,
    /// For no machine.
    #[error("the window is for no machine: choose some, or all")]
    NoMachines,
    /// The rate limit is nothing, or no number.
    #[error("the rate limit is too low: a merge would take days for a few blocks; at least 64 KiB a second")]
    LimitTooLow,
}

/// The lowest rate limit: the smallest step, of a mebibyte, takes a quarter of a minute.
const LOWEST_LIMIT: f64 = 65_536.0;
/// The longest gap that clocks have skipped: a whole day, when a country crossed the date line.
const LONGEST_GAP_MINUTES: i64 = 25 * 60;

impl MaintenanceWindow {
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), WindowProblem> {
        if self.name.trim().is_empty() {
            return Err(WindowProblem::NoName);
        }
        match &self.when {
            When::Weekly { days, .. } if days.is_empty() => return Err(WindowProblem::NoDays),
            When::Once { from, to } if to <= from => return Err(WindowProblem::EndsFirst),
            _ => {}
        }
        if matches!(&self.scope, Scope::Machines(machines) if machines.is_empty()) {
            return Err(WindowProblem::NoMachines);
        }
        if self.limit.is_some_and(|limit| limit.0.is_nan() || limit.0 < LOWEST_LIMIT) {
            return Err(WindowProblem::LimitTooLow);
        }
        Ok(())
    }

    /// When it takes place, in order: all that end after `from` and start before `until`.
    pub fn occurrences<Z: TimeZone>(&self, zone: &Z, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<Occurrence> {
        if !self.enabled || until <= from {
            return Vec::new();
        }
        let times = self.local_times(zone, from, until).into_iter();
        let mut found: Vec<Occurrence> = times
            .filter_map(|(start, end)| Some((instant(zone, start)?, instant(zone, end)?)))
            .filter(|(start, end)| start < end && *end > from && *start < until)
            .map(|(start, end)| Occurrence {
                key: OccurrenceKey { window: self.id, start },
                end,
                mode: self.mode,
                limit: self.limit,
                scope: self.scope.clone(),
            })
            .collect();
        found.sort_by_key(|o| o.key.start);
        found
    }

    /// Local starts and ends, those around the time asked for among them.
    fn local_times<Z: TimeZone>(
        &self,
        zone: &Z,
        from: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Vec<(NaiveDateTime, NaiveDateTime)> {
        match &self.when {
            When::Once { from, to } => vec![(*from, *to)],
            When::Weekly { days, from: start, to: end } => {
                let date = |at: DateTime<Utc>| at.with_timezone(zone).date_naive();
                // One more on each side: a window reaches into the next day, and a clock may have skipped a whole one.
                let first = date(from).checked_sub_days(Days::new(2)).unwrap_or(NaiveDate::MIN);
                let last = date(until).checked_add_days(Days::new(1)).unwrap_or(NaiveDate::MAX);
                let dates = first.iter_days().take_while(|d| *d <= last).filter(|d| days.contains(&d.weekday()));
                dates
                    .filter_map(|date| {
                        let end_date = if end <= start { date.checked_add_days(Days::new(1))? } else { date };
                        Some((date.and_time(*start), end_date.and_time(*end)))
                    })
                    .collect()
            }
        }
    }
}

/// All windows' occurrences, in the order of their starts.
pub fn occurrences<Z: TimeZone>(
    windows: &[MaintenanceWindow],
    zone: &Z,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Vec<Occurrence> {
    let mut all: Vec<Occurrence> = windows.iter().flat_map(|w| w.occurrences(zone, from, until)).collect();
    all.sort_by_key(|o| (o.key.start, o.end, o.key.window));
    all
}

/// The instant of a local time: its first, where the clock shows it twice; the end of the gap, where it never does.
fn instant<Z: TimeZone>(zone: &Z, local: NaiveDateTime) -> Option<DateTime<Utc>> {
    let first = |local: NaiveDateTime| match zone.from_local_datetime(&local) {
        LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => Some(at.with_timezone(&Utc)),
        LocalResult::None => None,
    };
    if let Some(at) = first(local) {
        return Some(at);
    }
    // Gaps end on whole minutes.
    let minute = local.date().and_hms_opt(chrono::Timelike::hour(&local), chrono::Timelike::minute(&local), 0)?;
    (1..=LONGEST_GAP_MINUTES).find_map(|n| first(minute.checked_add_signed(TimeDelta::minutes(n))?))
}
