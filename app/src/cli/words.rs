//! Figures in words.

use std::time::Duration;

use humansize::{BINARY, FormatSizeOptions, format_size};
use snaptree_core::cost::{Basis, Estimate};
use snaptree_core::engine::Power;
use snaptree_core::units::{ByteCount, ByteRate};

/// "41 GiB", "2.1 GiB", "512 B": three figures at most.
pub fn bytes(n: ByteCount) -> String {
    let mut unit = n.0;
    while unit >= 1024 {
        unit /= 1024;
    }
    let places = usize::from(n.0 >= 1024 && unit < 100);
    format_size(n.0, FormatSizeOptions::from(BINARY).decimal_places(places).decimal_zeroes(places))
}

/// "120 MiB/s".
pub fn rate(r: ByteRate) -> String {
    format!("{}/s", bytes(ByteCount(r.0.max(0.0) as u64)))
}

/// "under 1 s", "13 s", "1 min 30 s", "2 h 10 min", "3 days 4 h".
pub fn duration(d: Duration) -> String {
    let s = d.as_secs_f64().round() as u64;
    match s {
        0 => "under 1 s".into(),
        1..60 => format!("{s} s"),
        60..600 if s % 60 > 0 => format!("{} min {} s", s / 60, s % 60),
        60..3600 => format!("{} min", s / 60),
        3600..172_800 if s % 3600 >= 60 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        3600..172_800 => format!("{} h", s / 3600),
        _ if s % 86_400 >= 3600 => format!("{} days {} h", s / 86_400, s % 86_400 / 3600),
        _ => format!("{} days", s / 86_400),
    }
}

/// "7.3 ms", for figures below a second.
pub fn short_duration(d: Duration) -> String {
    match d.as_micros() {
        n if n < 1000 => format!("{n} µs"),
        n if n < 10_000 => format!("{:.1} ms", n as f64 / 1000.0),
        n if n < 1_000_000 => format!("{} ms", n / 1000),
        _ => duration(d),
    }
}

/// "1 snapshot", "3 snapshots".
pub fn count(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// "a", "a and b", "a, b and c".
pub fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [all @ .., last] => format!("{} and {last}", all.join(", ")),
    }
}

/// The state of a machine, one word.
pub fn power(power: &Power) -> &'static str {
    match power {
        Power::Off => "off",
        Power::Saved => "saved",
        Power::Starting => "starting",
        Power::Running => "running",
        Power::Paused => "paused",
        Power::Failed(_) => "failed",
    }
}

/// "1 min 30 s"; "about 1 min" where only a probe is known; "time unknown yet" where nothing is.
pub fn estimate(e: Option<Estimate>) -> String {
    let Some(e) = e else { return "time unknown yet".into() };
    let middle = duration(seconds(e.p50));
    if e.basis == Basis::Probe { format!("about {middle}") } else { middle }
}

/// "1 min 30 s (1 min 10 s to 2 min)", or "about 1 min (a guess from a probe of the volume)".
pub fn estimate_long(e: Option<Estimate>) -> String {
    let Some(known) = e else { return estimate(e) };
    let (low, high) = (duration(seconds(known.p10)), duration(seconds(known.p90)));
    match known.basis {
        Basis::Probe => format!("{} (a guess from a probe of the volume)", estimate(e)),
        Basis::Merges(_) if low == high => estimate(e),
        Basis::Merges(_) => format!("{} ({low} to {high})", estimate(e)),
    }
}

fn seconds(s: f64) -> Duration {
    Duration::try_from_secs_f64(s.max(0.0)).unwrap_or(Duration::MAX)
}
