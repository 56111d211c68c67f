//! A maintenance window, in words.

use chrono::{NaiveDateTime, NaiveTime, TimeDelta, Weekday};
use snaptree_core::cost::MergeMode;
use snaptree_core::window::{MaintenanceWindow, Scope, When};

use super::{Names, all};
use crate::text::rate;

/// "Saturdays and Sundays 22:00 to 02:00, all machines, live, at most 50 MiB/s".
pub fn window(window: &MaintenanceWindow, names: Names<'_>) -> String {
    let scope = match &window.scope {
        Scope::All => "all machines".into(),
        Scope::Machines(machines) => {
            let mut names: Vec<String> = machines.iter().map(|machine| names(*machine)).collect();
            names.sort();
            all(&names)
        }
    };
    let mode = match window.mode {
        MergeMode::Live => "live",
        MergeMode::Stopped => "machines are shut down for it",
    };
    let mut said = format!("{}, {scope}, {mode}", window_time(&window.when));
    if let Some(limit) = window.limit {
        said += &format!(", at most {}", rate(limit));
    }
    if !window.enabled {
        said += ", switched off";
    }
    said
}

/// "Saturdays and Sundays 22:00 to 02:00", "Sat 6 Jun 2026 22:00 to 02:00".
pub fn window_time(when: &When) -> String {
    match when {
        When::Weekly { days, from, to } => format!("{} {} to {}", weekdays(days), hour(*from), hour(*to)),
        When::Once { from, to } => {
            let is_short = *to - *from < TimeDelta::days(1);
            let end = if is_short { hour(to.time()) } else { date(*to) };
            format!("{} to {end}", date(*from))
        }
    }
}

fn hour(time: NaiveTime) -> String {
    time.format("%H:%M").to_string()
}

fn date(at: NaiveDateTime) -> String {
    at.format("%a %-d %b %Y %H:%M").to_string()
}

/// "every day", "Mondays to Fridays", "Saturdays and Sundays".
fn weekdays(days: &[Weekday]) -> String {
    let mut numbers: Vec<u32> = days.iter().map(|day| day.num_days_from_monday()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let names: Vec<String> = numbers.iter().filter_map(|n| NAMES.get(*n as usize)).map(|name| (*name).to_owned()).collect();
    let in_a_row = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
    match names.as_slice() {
        [_, _, _, _, _, _, _] => "every day".into(),
        [first, _, .., last] if in_a_row && names.len() > 2 => format!("{first} to {last}"),
        _ => all(&names),
    }
}

const NAMES: [&str; 7] = ["Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays"];
