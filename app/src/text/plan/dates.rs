//! When something is, as exact as it can be known; and how much history that stands on.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use snaptree_core::cost::{Growth, UsedUp};

use crate::text::{When, Zone, bytes, count, duration};

/// The nearest days need only their weekday.
const NEAR_DAYS: i64 = 6;
/// So far ahead the hour of a forecast says something, and the day.
const HOUR_DAYS: i64 = 14;
const DAY_DAYS: i64 = 366;

impl When {
    fn local(&self, t: DateTime<Utc>) -> DateTime<Zone> {
        t.with_timezone(&self.zone)
    }

    fn date(&self, t: DateTime<Utc>) -> NaiveDate {
        self.local(t).date_naive()
    }

    fn days_ahead(&self, t: DateTime<Utc>) -> i64 {
        (self.date(t) - self.date(self.now)).num_days()
    }
}

/// A day ahead: "today", "Sat", "Sat 6 Jun", "Sat 2 Jan 2027".
pub fn day(t: DateTime<Utc>, when: &When) -> String {
    let weekday = when.local(t).format("%a");
    match when.days_ahead(t) {
        0 => "today".into(),
        1..=NEAR_DAYS => weekday.to_string(),
        _ => format!("{weekday} {}", when.day(t)),
    }
}

/// The day and the minute: "Sat 22:00".
pub fn minute(t: DateTime<Utc>, when: &When) -> String {
    format!("{} {}", day(t, when), time(t, when))
}

fn time(t: DateTime<Utc>, when: &When) -> String {
    when.local(t).format("%H:%M").to_string()
}

/// From when to when: "Sat 22:00-01:10"; what ends a day or more later says on which, and what is over within a minute
/// has no end.
pub fn span(from: DateTime<Utc>, to: DateTime<Utc>, when: &When) -> String {
    if to - from < TimeDelta::minutes(1) {
        return minute(from, when);
    }
    let end = if to - from < TimeDelta::days(1) { time(to, when) } else { minute(to, when) };
    format!("{}-{end}", minute(from, when))
}

/// "50 min to spare".
pub fn spare(seconds: f64) -> String {
    match Duration::try_from_secs_f64(seconds) {
        Ok(left) if left >= Duration::from_millis(500) => format!("{} to spare", duration(left)),
        _ => "nothing to spare".into(),
    }
}

/// A forecast's date, as exact as that can be: "Tue 2 Jun about 14:00", "about Tue 23 Jun", "about June 2028".
pub fn about(t: DateTime<Utc>, when: &When) -> String {
    match when.days_ahead(t) {
        0 => format!("today about {}", time(t, when)),
        days if days <= HOUR_DAYS => format!("{} {} about {}", when.local(t).format("%a"), when.day(t), time(t, when)),
        days if days <= DAY_DAYS => format!("about {} {}", when.local(t).format("%a"), when.day(t)),
        _ => when.local(t).format("about %B %Y").to_string(),
    }
}

/// When a volume is full: "full on Tue 2 Jun about 14:00, between Mon and Thu". The growth tells what isn't known from
/// what won't be.
pub fn used_up(full: &UsedUp, growth: &Growth, when: &When) -> String {
    if growth.rate.is_none() {
        return "when it is full isn't known yet".into();
    }
    let Some(middle) = full.middle else {
        return match full.earliest {
            Some(earliest) => format!("full {} at the earliest, probably not within ten years", on(earliest, when)),
            None => "not full within ten years".into(),
        };
    };
    if middle <= when.now {
        return "full now".into();
    }
    let band = match (full.earliest, full.late) {
        (Some(from), Some(to)) => format!(", {}", between(from, to, middle, when)),
        (Some(from), None) => format!(", {} at the earliest", bound(from, middle, when)),
        (None, Some(to)) => format!(", {} at the latest", bound(to, middle, when)),
        (None, None) => String::new(),
    };
    format!("full {}{band}", on(middle, when))
}

/// "on Tue 2 Jun about 14:00", "today about 14:00", "about June 2028".
pub fn on(t: DateTime<Utc>, when: &When) -> String {
    if (1..=HOUR_DAYS).contains(&when.days_ahead(t)) { format!("on {}", about(t, when)) } else { about(t, when) }
}

fn between(from: DateTime<Utc>, to: DateTime<Utc>, middle: DateTime<Utc>, when: &When) -> String {
    let from = from.max(when.now);
    if when.date(from) == when.date(to) {
        return format!("between {} and {}", time(from, when), time(to, when));
    }
    let (from, to) = (bound(from, middle, when), bound(to, middle, when));
    if from == to { format!("in {from}") } else { format!("between {from} and {to}") }
}

/// An end of a band, as its middle is told.
fn bound(t: DateTime<Utc>, middle: DateTime<Utc>, when: &When) -> String {
    let apart = (when.date(t) - when.date(middle)).num_days().abs();
    if when.date(t) == when.date(when.now) {
        "today".into()
    } else if when.days_ahead(middle) > DAY_DAYS || when.days_ahead(t) > DAY_DAYS {
        when.local(t).format("%B %Y").to_string()
    } else if apart < NEAR_DAYS && when.days_ahead(middle) <= HOUR_DAYS {
        when.local(t).format("%a").to_string()
    } else {
        when.day(t)
    }
}

/// How something grows, and on how much history that stands: "7.6 GiB a day; 19 days of history, 456 samples".
pub fn growth(growth: &Growth) -> String {
    let samples = count(growth.samples as usize, "sample");
    let over = growth.history.and_then(|(from, to)| (to - from).to_std().ok()).filter(|over| !over.is_zero()).map(duration);
    match (growth.per_day(), over) {
        (Some(daily), Some(over)) => format!("{} a day; {over} of history, {samples}", bytes(daily.p50)),
        (Some(daily), None) => format!("{} a day; {samples}", bytes(daily.p50)),
        (None, Some(over)) => format!("not known yet: {samples} over {over}"),
        (None, None) => format!("not known yet: {samples}"),
    }
}
