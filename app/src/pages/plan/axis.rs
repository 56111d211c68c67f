//! Days from left to right. Pure.

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Timelike, Utc};

use super::words::local;
use crate::text::When;

/// How many days can be shown: what the buttons go through.
pub const SPANS: [f32; 6] = [1.0, 2.0, 4.0, 7.0, 14.0, 28.0];

/// This share of the axis stands before now, where nobody has moved it.
const PAST: f64 = 0.12;
/// Room that a label takes.
const LABEL: f32 = 66.0;
/// Distances between labels, in hours.
const STEPS: [i64; 8] = [1, 2, 3, 6, 12, 24, 48, 168];

/// Which instant stands where.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    pub left: f32,
    pub right: f32,
}

/// A line of the axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    pub x: f32,
    /// A day begins.
    pub is_day: bool,
    /// "Sat 30", "06:00"; nothing where there is no room.
    pub label: String,
}

/// So many days.
pub fn days(n: f32) -> TimeDelta {
    TimeDelta::milliseconds((f64::from(n) * 86_400_000.0) as i64)
}

/// Where the axis begins if nobody has moved it.
pub fn usual_start(now: DateTime<Utc>, span: f32) -> DateTime<Utc> {
    now - days(span * PAST as f32)
}

impl Axis {
    /// From an instant on, so many days.
    pub fn new(from: DateTime<Utc>, span: f32, left: f32, right: f32) -> Self {
        Self { from, to: from + days(span), left, right: right.max(left + 1.0) }
    }

    /// Where an instant stands; also outside of the axis.
    pub fn x(&self, at: DateTime<Utc>) -> f32 {
        let share = (at - self.from).as_seconds_f64() / (self.to - self.from).as_seconds_f64();
        self.left + (share * f64::from(self.right - self.left)) as f32
    }

    /// The instant at a place.
    pub fn time(&self, x: f32) -> DateTime<Utc> {
        let share = f64::from((x - self.left) / (self.right - self.left));
        self.from + TimeDelta::milliseconds(((self.to - self.from).num_milliseconds() as f64 * share) as i64)
    }

    /// Whether something between two instants can be seen.
    pub fn shows(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> bool {
        from < self.to && to > self.from
    }

    /// The lines, with labels where there is room.
    pub fn ticks(&self, when: &When) -> Vec<Tick> {
        let hour = (self.right - self.left) / (self.to - self.from).as_seconds_f64() as f32 * 3600.0;
        let step = STEPS.into_iter().find(|step| *step as f32 * hour >= LABEL).unwrap_or(168);
        let mut ticks = Vec::new();
        for date in local(when, self.from).date_naive().iter_days().take(self.days() + 2) {
            let Some(midnight) = start_of(date, when) else { continue };
            // Labels of several days stand on the same days wherever the axis begins.
            let day = i64::from(date.num_days_from_ce());
            let labelled = step <= 24 || day % (step / 24) == 0;
            let mut tick = |at: DateTime<Utc>, is_day, label| {
                if at >= self.from && at < self.to {
                    ticks.push(Tick { x: self.x(at), is_day, label });
                }
            };
            tick(midnight, true, if labelled { date.format("%a %-d").to_string() } else { String::new() });
            if step < 24 {
                let hours = (step..24).step_by(step as usize).map(|h| midnight + TimeDelta::hours(h));
                for at in hours {
                    // Where the clock is changed on that day, the hours are as it shows them.
                    tick(at, false, format!("{:02}:00", local(when, at).hour()));
                }
            }
        }
        ticks
    }

    fn days(&self) -> usize {
        (self.to - self.from).num_days().unsigned_abs() as usize + 1
    }
}

/// When a day begins: at midnight, or where the clock skips that, at the first full hour that it shows.
fn start_of(date: NaiveDate, when: &When) -> Option<DateTime<Utc>> {
    let at = |hour| date.and_hms_opt(hour, 0, 0)?.and_local_timezone(when.zone).earliest();
    (0..24).find_map(at).map(|at| at.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fabricated::today;

    fn when() -> When {
        When { now: today(), zone: chrono::FixedOffset::east_opt(7200).expect("a zone").into() }
    }

    #[test]
    fn a_place_and_its_instant_belong_together() {
        let axis = Axis::new(today(), 7.0, 100.0, 800.0);
        assert_eq!(axis.x(today() + TimeDelta::days(1)), 200.0);
        let off = axis.time(150.0) - (today() + TimeDelta::hours(12));
        assert!(off.abs() < TimeDelta::seconds(1), "{off}");
        assert!(axis.shows(today() - TimeDelta::hours(1), today() + TimeDelta::hours(1)));
        assert!(!axis.shows(today() - TimeDelta::hours(1), today()));
    }

    #[test]
    fn days_begin_at_midnight_where_the_computer_is() {
        // Saturday 14:00 where the computer is: the next day begins ten hours later.
        let axis = Axis::new(today(), 7.0, 0.0, 700.0);
        let ticks = axis.ticks(&when());
        let days: Vec<_> = ticks.iter().filter(|t| t.is_day).collect();
        assert_eq!(days.len(), 7);
        assert_eq!(days[0].label, "Sun 24");
        assert!((days[0].x - 100.0 * 10.0 / 24.0).abs() < 0.1, "{}", days[0].x);
    }

    #[test]
    fn labels_have_room_at_any_number_of_days() {
        for span in SPANS {
            let ticks = Axis::new(today(), span, 0.0, 700.0).ticks(&when());
            let labels: Vec<_> = ticks.iter().filter(|t| !t.label.is_empty()).map(|t| t.x).collect();
            assert!(labels.len() >= 3, "{span}: {labels:?}");
            assert!(labels.windows(2).all(|w| w[1] - w[0] >= LABEL - 1.0), "{span}: {labels:?}");
        }
    }
}
