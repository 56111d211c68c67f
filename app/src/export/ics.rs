//! A calendar: an event for each piece (RFC 5545).

use chrono::{DateTime, Utc};
use snaptree_core::engine::PlanState;
use snaptree_core::snapshot::DiskId;

use super::{Row, Span, rows};
use crate::text::plan::{Names, spare, verdict};
use crate::text::{When, bytes, estimate_long};

/// A line has at most so many octets, its end not counted (section 3.1).
const LINE: usize = 75;

pub fn ics(plan: &PlanState, names: Names<'_>, span: Span, when: &When) -> String {
    let mut lines = vec![
        "BEGIN:VCALENDAR".to_owned(),
        "VERSION:2.0".to_owned(),
        format!("PRODID:-//Snaptree//Snaptree {}//EN", env!("CARGO_PKG_VERSION")),
    ];
    for row in rows(plan, names, span) {
        let (start, end) = row.piece.down.unwrap_or((row.piece.start, row.piece.p90_end));
        lines.extend([
            "BEGIN:VEVENT".to_owned(),
            format!("UID:{}", uid(&row)),
            format!("DTSTAMP:{}", instant(plan.plan.made)),
            format!("DTSTART:{}", instant(start)),
            format!("DTEND:{}", instant(end)),
            format!("SUMMARY:{}", text(&summary(&row))),
            format!("DESCRIPTION:{}", text(&description(&row, plan, names, when))),
            "END:VEVENT".to_owned(),
        ]);
    }
    lines.push("END:VCALENDAR".to_owned());
    lines.iter().map(|line| folded(line)).collect()
}

/// The same for the same merge in the same window, so that a newer plan replaces it in a calendar.
fn uid(row: &Row<'_>) -> String {
    let (machine, key) = (row.merge.machine.0.simple(), row.piece.occurrence);
    format!("{machine}-{}-{}-{}@snaptree", plain(&row.merge.disk), key.window.0.simple(), instant(key.start))
}

/// A disk's name of letters and digits alone: other bytes as `_` and two hexadecimal digits.
fn plain(disk: &DiskId) -> String {
    let byte = |byte: u8| if byte.is_ascii_alphanumeric() { (byte as char).to_string() } else { format!("_{byte:02x}") };
    disk.0.bytes().map(byte).collect()
}

fn summary(row: &Row<'_>) -> String {
    let part = if row.of > 1 { format!(", part {} of {}", row.number, row.of) } else { String::new() };
    let down = if row.piece.down.is_some() { " (shut down)" } else { "" };
    format!("Merge {} {}{part}{down}", row.machine, row.merge.disk)
}

fn description(row: &Row<'_>, plan: &PlanState, names: Names<'_>, when: &When) -> String {
    let end = row.window_end.map(|end| (end - row.piece.p90_end).as_seconds_f64());
    let left = end.map(|left| format!(", its end {} after this", spare(left).replace(" to spare", ""))).unwrap_or_default();
    [
        verdict(row.merge, plan, names, when),
        format!("Here: {} of {}.", bytes(row.piece.bytes), bytes(row.merge.bytes)),
        format!("All of it: {}; {} come back.", estimate_long(row.merge.time), bytes(row.merge.comes_back)),
        format!("Window: {}{left}.", row.window),
    ]
    .join("\n")
}

/// In UTC (section 3.3.5, form 2).
fn instant(at: DateTime<Utc>) -> String {
    at.format("%Y%m%dT%H%M%SZ").to_string()
}

/// Section 3.3.11; of control characters only the line's end has a meaning there.
fn text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.replace("\r\n", "\n").chars() {
        match letter {
            '\\' | ';' | ',' => escaped.extend(['\\', letter]),
            '\n' | '\r' => escaped.push_str("\\n"),
            letter if letter.is_control() => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// A content line with its end; a long one goes on after a space, never within a letter.
fn folded(line: &str) -> String {
    let mut folded = String::with_capacity(line.len() + 2);
    let mut octets = 0;
    for letter in line.chars() {
        if octets + letter.len_utf8() > LINE {
            folded.push_str("\r\n ");
            octets = 1;
        }
        folded.push(letter);
        octets += letter.len_utf8();
    }
    folded.push_str("\r\n");
    folded
}
