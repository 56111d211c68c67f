//! Sizes, rates, days and times as people write them.

use chrono::{NaiveDateTime, NaiveTime, Weekday};
use snaptree_core::units::{ByteCount, ByteRate};

/// `4096`, `64K`, `512M`, `20G`, `1.5TiB`: powers of 1024.
pub fn size(text: &str) -> Result<ByteCount, String> {
    let bad = || format!("{text} isn't a size; write 4096, 64K, 512M, 20G or 1T");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(bad()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).map(ByteCount).ok_or_else(bad);
    }
    let bytes = number.parse::<f64>().map_err(|_| bad())? * (1u64 << shift) as f64;
    if bytes < 9e18 { Ok(ByteCount(bytes.round() as u64)) } else { Err(bad()) }
}

/// A size per second: `20M`, `20MB/s`.
pub fn rate(text: &str) -> Result<ByteRate, String> {
    let plain = text.strip_suffix("/s").unwrap_or(text);
    match size(plain) {
        Ok(bytes) if bytes > ByteCount::ZERO => Ok(ByteRate(bytes.0 as f64)),
        _ => Err(format!("{text} isn't a rate; write 20M or 500K, per second")),
    }
}

/// `sat`, `Saturday`.
pub fn weekday(text: &str) -> Result<Weekday, String> {
    text.trim().parse().map_err(|_| format!("{text:?} isn't a day of the week; write mon, tue, wed, thu, fri, sat or sun"))
}

/// `22:00`, `22:00:30`.
pub fn time(text: &str) -> Result<NaiveTime, String> {
    let exact = |_| NaiveTime::parse_from_str(text, "%H:%M:%S");
    NaiveTime::parse_from_str(text, "%H:%M").or_else(exact).map_err(|_| format!("{text} isn't a time of day; write 22:00"))
}

/// When something ends: at a time of day, or at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Time(NaiveTime),
    Instant(NaiveDateTime),
}

impl End {
    pub fn time(self) -> NaiveTime {
        match self {
            Self::Time(time) => time,
            Self::Instant(at) => at.time(),
        }
    }
}

/// `02:00`, `2026-06-07T02:00`.
pub fn end(text: &str) -> Result<End, String> {
    let exact = |_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S");
    match NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M").or_else(exact) {
        Ok(at) => Ok(End::Instant(at)),
        Err(_) => time(text).map(End::Time).map_err(|_| format!("{text} isn't a time; write 02:00 or 2026-06-07T02:00")),
    }
}
