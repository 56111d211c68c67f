//! When windows take place, in time zones whose clocks are put forward and back.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc, Weekday};
use chrono_tz::Tz;

use crate::cost::MergeMode;
use crate::snapshot::MachineId;
use crate::units::ByteRate;
use crate::window::*;

fn time(h: u32, m: u32) -> NaiveTime {
    NaiveTime::from_hms_opt(h, m, 0).unwrap()
}

fn local(y: i32, mo: u32, d: u32, h: u32, m: u32) -> NaiveDateTime {
    NaiveDate::from_ymd_opt(y, mo, d).unwrap().and_time(time(h, m))
}

fn utc(y: i32, mo: u32, d: u32, h: u32, m: u32) -> DateTime<Utc> {
    Utc.from_utc_datetime(&local(y, mo, d, h, m))
}

fn window(when: When) -> MaintenanceWindow {
    MaintenanceWindow {
        id: WindowId::new(),
        name: "Night".into(),
        when,
        scope: Scope::All,
        mode: MergeMode::Live,
        limit: None,
        enabled: true,
    }
}

fn weekly(days: &[Weekday], from: NaiveTime, to: NaiveTime) -> MaintenanceWindow {
    window(When::Weekly { days: days.to_vec(), from, to })
}

/// Starts and ends in the zone's own time with its offset.
fn told(window: &MaintenanceWindow, zone: Tz, from: DateTime<Utc>, days: i64) -> Vec<String> {
    let said = |at: DateTime<Utc>| at.with_timezone(&zone).format("%a %d %H:%M%z").to_string();
    let found = window.occurrences(&zone, from, from + TimeDelta::days(days));
    found.iter().map(|o| format!("{} to {}", said(o.start()), said(o.end))).collect()
}

const BERLIN: Tz = chrono_tz::Europe::Berlin;

#[test]
fn a_week_has_its_windows() {
    let window = weekly(&[Weekday::Sat, Weekday::Mon], time(22, 0), time(2, 0));
    let told = told(&window, BERLIN, utc(2026, 1, 14, 0, 0), 7);
    assert_eq!(told, ["Sat 17 22:00+0100 to Sun 18 02:00+0100", "Mon 19 22:00+0100 to Tue 20 02:00+0100"]);
    // In the middle of one, it is still there; at its end it is over.
    let at = |h, m| window.occurrences(&BERLIN, utc(2026, 1, 18, h, m), utc(2026, 1, 18, 12, 0)).len();
    assert_eq!((at(0, 59), at(1, 0)), (1, 0));
    let off = MaintenanceWindow { enabled: false, ..window };
    assert!(off.occurrences(&BERLIN, utc(2026, 1, 1, 0, 0), utc(2026, 2, 1, 0, 0)).is_empty());
    // From a time to the same time is a whole day.
    let day = weekly(&[Weekday::Sun], time(0, 0), time(0, 0)).occurrences(&Utc, utc(2026, 1, 14, 0, 0), utc(2026, 1, 20, 0, 0));
    assert_eq!(day.iter().map(|o| (o.start(), o.end)).collect::<Vec<_>>(), [(utc(2026, 1, 18, 0, 0), utc(2026, 1, 19, 0, 0))]);
}

#[test]
fn clocks_put_forward() {
    // 2026-03-29: 02:00 becomes 03:00.
    let from = utc(2026, 3, 28, 12, 0);
    let one = |a, b| told(&weekly(&[Weekday::Sun], a, b), BERLIN, from, 1);
    assert_eq!(one(time(1, 0), time(4, 0)), ["Sun 29 01:00+0100 to Sun 29 04:00+0200"], "an hour shorter");
    assert_eq!(one(time(2, 30), time(4, 0)), ["Sun 29 03:00+0200 to Sun 29 04:00+0200"], "starts after the gap");
    assert_eq!(one(time(1, 0), time(2, 30)), ["Sun 29 01:00+0100 to Sun 29 03:00+0200"], "ends with the gap, an hour long");
    assert!(one(time(2, 10), time(2, 50)).is_empty(), "all of it is skipped");
    let night = told(&weekly(&[Weekday::Sat], time(22, 0), time(5, 0)), BERLIN, from, 1);
    assert_eq!(night, ["Sat 28 22:00+0100 to Sun 29 05:00+0200"]);
}

#[test]
fn clocks_put_back() {
    // 2026-10-25: 03:00 becomes 02:00.
    let from = utc(2026, 10, 24, 12, 0);
    let one = |a, b| told(&weekly(&[Weekday::Sun], a, b), BERLIN, from, 1);
    assert_eq!(one(time(1, 0), time(4, 0)), ["Sun 25 01:00+0200 to Sun 25 04:00+0100"], "an hour longer");
    assert_eq!(one(time(2, 30), time(4, 0)), ["Sun 25 02:30+0200 to Sun 25 04:00+0100"], "starts the first time");
    assert_eq!(one(time(1, 0), time(2, 30)), ["Sun 25 01:00+0200 to Sun 25 02:30+0200"], "ends the first time");
    assert_eq!(one(time(2, 10), time(2, 50)), ["Sun 25 02:10+0200 to Sun 25 02:50+0200"], "takes place once");
}

#[test]
fn half_hours_and_a_skipped_day() {
    // Lord Howe puts its clocks forward by half an hour at 02:00 on 2026-10-04.
    let howe =
        told(&weekly(&[Weekday::Sun], time(2, 10), time(3, 0)), chrono_tz::Australia::Lord_Howe, utc(2026, 10, 3, 0, 0), 2);
    assert_eq!(howe, ["Sun 04 02:30+1100 to Sun 04 03:00+1100"]);
    // Samoa had no 2011-12-30, a Friday.
    let apia = chrono_tz::Pacific::Apia;
    let days = [Weekday::Thu, Weekday::Fri, Weekday::Sat];
    let samoa = told(&weekly(&days, time(10, 0), time(12, 0)), apia, utc(2011, 12, 29, 12, 0), 2);
    assert_eq!(samoa, ["Thu 29 10:00-1000 to Thu 29 12:00-1000", "Sat 31 10:00+1400 to Sat 31 12:00+1400"]);
    let over = told(&weekly(&[Weekday::Thu], time(22, 0), time(2, 0)), apia, utc(2011, 12, 29, 12, 0), 3);
    assert_eq!(over, ["Thu 29 22:00-1000 to Sat 31 00:00+1400"], "ends at the first instant after the gap");
}

#[test]
fn every_window_of_two_years_is_right_in_many_zones() {
    let zones = [
        BERLIN,
        chrono_tz::America::New_York,
        chrono_tz::America::Santiago,
        chrono_tz::Asia::Kolkata,
        chrono_tz::Australia::Lord_Howe,
        chrono_tz::Africa::Casablanca,
        chrono_tz::Asia::Beirut,
        chrono_tz::UTC,
    ];
    let (from, until) = (utc(2025, 1, 1, 0, 0), utc(2027, 1, 1, 0, 0));
    let days = [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat, Weekday::Sun];
    for zone in zones {
        for minute in (0..24 * 60).step_by(50) {
            let (start, end) = (time(minute / 60, minute % 60), time((minute / 60 + 3) % 24, minute % 60));
            let found = weekly(&days, start, end).occurrences(&zone, from, until);
            assert!((729..=731).contains(&found.len()), "{zone} {start}: {}", found.len());
            for pair in found.windows(2) {
                assert!(pair[0].end <= pair[1].start(), "{zone}: {pair:?}");
            }
            for o in found {
                let length = o.end - o.start();
                assert!((2 * 60..=4 * 60).contains(&length.num_minutes()), "{zone}: {o:?}");
                // Nobody reads a time before the start on the clock at the start, nor one after the end at the end.
                let (a, b) = (o.start().with_timezone(&zone).time(), o.end.with_timezone(&zone).time());
                let gap = |at: NaiveTime, wanted: NaiveTime| (at - wanted).num_minutes().rem_euclid(24 * 60);
                assert!(gap(a, start) <= 60 && gap(b, end) <= 60, "{zone}: {a} for {start}, {b} for {end}");
                let before = (o.start() - TimeDelta::minutes(1)).with_timezone(&zone).time();
                assert!(a == start || gap(before, start) > 60, "{zone}: {a} is not the first instant after the gap");
            }
        }
    }
}

#[test]
fn what_is_wrong_is_said() {
    let good = weekly(&[Weekday::Sat], time(22, 0), time(2, 0));
    assert_eq!(good.check(), Ok(()));
    let wrong = |change: &dyn Fn(&mut MaintenanceWindow)| {
        let mut window = good.clone();
        change(&mut window);
        window.check().expect_err("it is wrong").to_string()
    };
    let said = [
        wrong(&|w| w.name = "  ".into()),
        wrong(&|w| w.when = When::Weekly { days: vec![], from: time(1, 0), to: time(2, 0) }),
        wrong(&|w| w.when = When::Once { from: local(2026, 1, 2, 0, 0), to: local(2026, 1, 2, 0, 0) }),
        wrong(&|w| w.scope = Scope::Machines(BTreeSet::new())),
        wrong(&|w| w.limit = Some(ByteRate(1000.0))),
        wrong(&|w| w.limit = Some(ByteRate(f64::NAN))),
    ];
    let words = ["no name", "no day", "ends before it starts", "for no machine", "rate limit", "rate limit"];
    for (said, word) in said.iter().zip(words) {
        assert!(said.contains(word), "{said}: {word}");
    }
}

#[test]
fn windows_are_kept_as_they_are() {
    let mut window = window(When::Once { from: local(2026, 1, 2, 22, 0), to: local(2026, 1, 3, 2, 30) });
    window.scope = Scope::Machines(BTreeSet::from([MachineId::new()]));
    window.limit = Some(ByteRate(20e6));
    let text = serde_json::to_string(&window).unwrap();
    assert_eq!(serde_json::from_str::<MaintenanceWindow>(&text).unwrap(), window, "{text}");
    let weekly = weekly(&[Weekday::Sat], time(22, 0), time(2, 0));
    let text = serde_json::to_string(&weekly).unwrap();
    assert!(text.contains(r#"{"weekly":{"days":["Sat"],"from":"22:00:00","to":"02:00:00"}}"#), "{text}");
    assert_eq!(serde_json::from_str::<MaintenanceWindow>(&text).unwrap(), weekly);
    let all = occurrences(&[weekly, window], &Utc, utc(2026, 1, 1, 0, 0), utc(2026, 1, 9, 0, 0));
    assert!(all.len() == 2 && all[0].start() < all[1].start(), "{all:?}");
}
