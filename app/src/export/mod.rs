//! A plan for other programs and for paper: pure functions from the plan and the machines' names to text.
//!
//! ```text
//! PlanState + names + span ─> rows, one for each piece ─┬─> .ics   (RFC 5545)
//!                                                       └─> .csv   (RFC 4180)
//! PlanState + names ────────────────────────────────────┬─> JSON   (its shape: json::Document)
//!                                                       └─> .html  (a change request to print)
//! ```
//!
//! Names are whatever somebody has written: each format escapes them.

mod change_request;
mod csv;
mod ics;
pub mod json;

#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use snaptree_core::engine::PlanState;
use snaptree_core::window::{PlannedMerge, PlannedPiece};

use crate::text::When;
use crate::text::plan::{Names, window_name};

/// What a plan is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A calendar.
    Ics,
    /// A table.
    Csv,
    /// All of it, as `snaptree plan --json` prints it.
    Json,
    /// A page to print.
    ChangeRequest,
}

impl Format {
    /// The name that a file of it is offered under.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Ics => "merges.ics",
            Self::Csv => "merges.csv",
            Self::Json => "merges.json",
            Self::ChangeRequest => "change-request.html",
        }
    }
}

/// The part of the plan that is wanted: what is done from `from` on and begun before `to`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    pub from: Option<DateTime<Utc>>,
    pub to: Option<DateTime<Utc>>,
}

impl Span {
    /// Whether some of this time is in it.
    pub fn meets(&self, start: DateTime<Utc>, end: DateTime<Utc>) -> bool {
        self.from.is_none_or(|from| end > from) && self.to.is_none_or(|to| start < to)
    }

    /// Whether a piece is in it.
    pub fn has(&self, piece: &PlannedPiece) -> bool {
        self.meets(piece.start, piece.p90_end)
    }

    /// Whether some of a merge is in it, or it isn't planned at all.
    pub fn concerns(&self, merge: &PlannedMerge) -> bool {
        merge.pieces.is_empty() || merge.pieces.iter().any(|piece| self.has(piece))
    }
}

/// The plan in a format.
pub fn export(format: Format, plan: &PlanState, names: Names<'_>, span: Span, when: &When) -> String {
    match format {
        Format::Ics => ics::ics(plan, names, span, when),
        Format::Csv => csv::csv(plan, names, span),
        Format::Json => {
            let document = json::document(plan, names, span, when);
            serde_json::to_string_pretty(&document)
                .unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }).to_string())
        }
        Format::ChangeRequest => change_request::change_request(plan, names, span, when),
    }
}

/// One piece of a merge, with what belongs to it.
struct Row<'a> {
    machine: String,
    window: &'a str,
    /// When the window ends, where that is known.
    window_end: Option<DateTime<Utc>>,
    merge: &'a PlannedMerge,
    piece: &'a PlannedPiece,
    /// Which of how many, from 1 on.
    number: usize,
    of: usize,
}

/// Each piece that is in the span, in the order of time.
fn rows<'a>(plan: &'a PlanState, names: Names<'_>, span: Span) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for merge in &plan.plan.merges {
        for (at, piece) in merge.pieces.iter().enumerate().filter(|(_, piece)| span.has(piece)) {
            let occurrence = plan.occurrences.iter().find(|occurrence| occurrence.key == piece.occurrence);
            rows.push(Row {
                machine: names(merge.machine),
                window: window_name(plan, piece.occurrence.window),
                window_end: occurrence.map(|occurrence| occurrence.end),
                merge,
                piece,
                number: at + 1,
                of: merge.pieces.len(),
            });
        }
    }
    rows.sort_by_key(|row| row.piece.start);
    rows
}
