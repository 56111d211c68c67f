//! A table: a row for each piece (RFC 4180), in bytes, seconds and UTC.

use chrono::{DateTime, SecondsFormat, Utc};
use snaptree_core::engine::PlanState;

use super::{Row, Span, rows};
use crate::text::plan::{Names, short_verdict};

const HEADINGS: [&str; 21] = [
    "machine",
    "machine_id",
    "disk",
    "volume",
    "window",
    "window_start",
    "window_end",
    "part",
    "parts",
    "start",
    "p50_end",
    "p90_end",
    "down_from",
    "down_to",
    "bytes",
    "merge_bytes",
    "scratch_bytes",
    "comes_back_bytes",
    "p50_seconds",
    "p90_seconds",
    "verdict",
];

pub fn csv(plan: &PlanState, names: Names<'_>, span: Span) -> String {
    let line = |cells: &[String]| cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",") + "\r\n";
    let rows = rows(plan, names, span);
    std::iter::once(line(&HEADINGS.map(str::to_owned))).chain(rows.iter().map(|row| line(&cells(row)))).collect()
}

fn cells(row: &Row<'_>) -> [String; HEADINGS.len()] {
    let (merge, piece) = (row.merge, row.piece);
    let instant = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let maybe = |at: Option<DateTime<Utc>>| at.map(instant).unwrap_or_default();
    let seconds =
        |of: fn(&snaptree_core::cost::Estimate) -> f64| merge.time.map(|time| format!("{:.0}", of(&time))).unwrap_or_default();
    [
        harmless(&row.machine),
        merge.machine.to_string(),
        harmless(&merge.disk.0),
        harmless(&merge.volume),
        harmless(row.window),
        instant(piece.occurrence.start),
        maybe(row.window_end),
        row.number.to_string(),
        row.of.to_string(),
        instant(piece.start),
        instant(piece.p50_end),
        instant(piece.p90_end),
        maybe(piece.down.map(|down| down.0)),
        maybe(piece.down.map(|down| down.1)),
        piece.bytes.0.to_string(),
        merge.bytes.0.to_string(),
        merge.scratch.0.to_string(),
        merge.comes_back.0.to_string(),
        seconds(|time| time.p50),
        seconds(|time| time.p90),
        short_verdict(&merge.verdict),
    ]
}

/// A name that a spreadsheet would take for a formula gets an apostrophe in front.
fn harmless(name: &str) -> String {
    if name.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{name}") } else { name.to_owned() }
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\r', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}
