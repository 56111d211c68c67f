//! Text in aligned columns, or one JSON document.

use std::io::{self, Write as _};

use serde::Serialize;

/// How a verb speaks.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// The same answer, as data or as lines.
    pub fn say(&self, data: &impl Serialize, lines: impl FnOnce() -> Vec<String>) {
        let text = if self.json {
            match serde_json::to_string_pretty(data) {
                Ok(text) => text,
                Err(error) => format!("{{\"error\": {{\"kind\": \"failed\", \"reason\": \"{error}\"}}}}"),
            }
        } else {
            lines().join("\n")
        };
        if !text.is_empty() {
            write_out(&text);
        }
    }

    /// What is for another program, as it is.
    pub fn raw(&self, text: &str) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// A failure: in words to the standard error, and as data where data is wanted.
    pub fn failure(&self, kind: &str, reason: &str) {
        eprintln!("snaptree: {reason}");
        if self.json {
            let error = serde_json::json!({ "error": { "kind": kind, "reason": reason } });
            write_out(&format!("{error:#}"));
        }
    }
}

/// Whoever reads may close the pipe early (`| head`): then there is nobody left to tell.
fn write_out(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Which way a column is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Rows in aligned columns, two spaces between; the first row is the heading.
pub fn table(columns: &[(&str, Align)], rows: &[Vec<String>]) -> Vec<String> {
    let heading: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let width = |column: usize| {
        rows.iter().chain([&heading]).filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let set = |row: &Vec<String>| {
        let cells = row.iter().zip(columns).zip(&widths).map(|((cell, (_, align)), width)| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    std::iter::once(&heading).chain(rows).map(set).collect()
}
