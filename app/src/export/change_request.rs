//! A change request: one page that stands alone, to be printed or sent.

use std::time::Duration;

use chrono::{DateTime, Utc};
use snaptree_core::engine::PlanState;
use snaptree_core::units::ByteCount;
use snaptree_core::window::{PlannedMerge, PlannedPiece};

use super::Span;
use crate::text::plan::{Names, merge_name, reason, verdict, volume, volume_name, window, window_of};
use crate::text::{When, bytes, count, duration, sentence};

const STYLE: &str = "body{font:11pt/1.4 sans-serif;max-width:46em;margin:2em auto;padding:0 1em;color:#111;background:#fff}\
h1{font-size:18pt}h2{font-size:13pt;margin:1.5em 0 .3em;break-after:avoid}section{break-inside:avoid}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.25em .6em .25em 0;\
border-bottom:1px solid #ccc}th{width:11em;font-weight:600}.sign td{height:2.5em}";

pub fn change_request(plan: &PlanState, names: Names<'_>, span: Span, when: &When) -> String {
    let concerned = || plan.plan.merges.iter().filter(|merge| span.concerns(merge));
    let planned: Vec<&PlannedMerge> = concerned().filter(|merge| !merge.pieces.is_empty()).collect();
    let unplanned: Vec<&PlannedMerge> = concerned().filter(|merge| merge.pieces.is_empty()).collect();
    let title = format!("Change request: {}", count(planned.len(), "merge"));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n<h1>{title}</h1>\n"
    );
    page += &format!("<p>Generated {}, by Snaptree {}.</p>\n", stamp(plan.plan.made, when), env!("CARGO_PKG_VERSION"));
    page += &summary(&planned, names);
    for merge in &planned {
        page += &section(merge, plan, names, span, when);
    }
    if !unplanned.is_empty() {
        page += "<h2>Due, and not part of this change</h2>\n<ul>\n";
        for merge in unplanned {
            page += &format!("<li>{}</li>\n", escaped(&verdict(merge, plan, names, when)));
        }
        page += "</ul>\n";
    }
    page += "<h2>Volumes</h2>\n<ul>\n";
    for outlook in &plan.plan.volumes {
        page += &format!(
            "<li>{}: {}</li>\n",
            escaped(&sentence(volume_name(&outlook.id, plan, names))),
            escaped(&volume(outlook, plan, when))
        );
    }
    page += "</ul>\n<h2>How it is undone</h2>\n<p>A merge can be paused at any instant and goes on where it was, also after a \
             power cut; nothing is lost, and nothing is moved twice. While it runs every snapshot that is still in the tree stays \
             as it was, and so does what the machine sees. What was deleted before it can't be brought back once its merge has \
             started; until then the deletion can be taken back.</p>\n";
    page += "<h2>Approval</h2>\n<table class=\"sign\">\n<tr><th>Asked for by</th><td></td></tr>\n<tr><th>Approved by</th><td></td>\
             </tr>\n<tr><th>Carried out on</th><td></td></tr>\n</table>\n</body>\n</html>\n";
    page
}

fn summary(planned: &[&PlannedMerge], names: Names<'_>) -> String {
    let moved: ByteCount = planned.iter().map(|merge| merge.bytes).sum();
    let back: ByteCount = planned.iter().map(|merge| merge.comes_back).sum();
    let mut machines: Vec<String> = planned.iter().map(|merge| name(&names(merge.machine))).collect();
    machines.sort();
    machines.dedup();
    if machines.is_empty() {
        return "<p>Nothing is planned.</p>\n".into();
    }
    format!(
        "<p>What deleted snapshots still hold is merged, so that its space comes back: {} are moved, {} come back. Machines: {}.</p>\n",
        bytes(moved),
        bytes(back),
        machines.join(", ")
    )
}

fn section(merge: &PlannedMerge, plan: &PlanState, names: Names<'_>, span: Span, when: &When) -> String {
    let mut lines = vec![("What", format!("The disk {}: {} to move", name(&merge.disk.0), bytes(merge.bytes)))];
    for (at, piece) in merge.pieces.iter().enumerate().filter(|(_, piece)| span.has(piece)) {
        let part = if merge.pieces.len() > 1 { format!("Part {} of {}", at + 1, merge.pieces.len()) } else { "When".into() };
        lines.push(("", format!("<b>{part}</b>: {}", piece_line(piece, plan, names, when))));
    }
    let stops = merge.pieces.iter().any(|piece| piece.down.is_some());
    let machine = if stops { "Is shut down for it, and started again" } else { "Stays as it is: if it runs, it goes on running" };
    lines.push(("The machine", machine.into()));
    let time = merge.time.map(|time| format!("{}, in 9 of 10 cases at most {}", seconds(time.p50), seconds(time.p90)));
    lines.push(("Duration", time.unwrap_or_else(|| "not known yet".into())));
    lines.push(("Free space", format!("needs {}; gives {} back at its end", bytes(merge.scratch), bytes(merge.comes_back))));
    if let Some(deadline) = merge.deadline {
        let start = merge.latest_safe_start.map(|start| format!("; last start in time {}", stamp(start, when)));
        lines.push(("Deadline", format!("{}{}", stamp(deadline, when), start.unwrap_or_default())));
    }
    if let Some(reason) = reason(merge, plan, names, when) {
        lines.push(("Why then", escaped(&reason)));
    }
    lines.push(("Verdict, and risk if it is skipped", escaped(&verdict(merge, plan, names, when))));
    let rows: String = lines.iter().map(|(what, text)| format!("<tr><th>{what}</th><td>{text}</td></tr>\n")).collect();
    format!("<section>\n<h2>{}</h2>\n<table>\n{rows}</table>\n</section>\n", name(&merge_name(merge, plan, names)))
}

fn piece_line(piece: &PlannedPiece, plan: &PlanState, names: Names<'_>, when: &When) -> String {
    let mut line = format!(
        "{} to {} (in 9 of 10 cases at the latest; probably {}), {}",
        stamp(piece.start, when),
        stamp(piece.p90_end, when),
        stamp(piece.p50_end, when),
        bytes(piece.bytes)
    );
    if let Some((from, to)) = piece.down {
        line += &format!("; shut down from {}, up again by {}", stamp(from, when), stamp(to, when));
    }
    if piece.resumes.is_some() {
        line += "; it pauses here, and goes on in the next part";
    }
    if let Some(known) = window_of(plan, piece.occurrence.window) {
        line += &format!(". Window {}: {}", name(&known.name), escaped(&window(known, names)));
    }
    line
}

/// Whole, with the offset from UTC: a page is read elsewhere, and later.
fn stamp(at: DateTime<Utc>, when: &When) -> String {
    at.with_timezone(&when.zone).format("%a %-d %b %Y %H:%M (UTC%:z)").to_string()
}

fn seconds(s: f64) -> String {
    Duration::try_from_secs_f64(s).map(duration).unwrap_or_else(|_| "years".into())
}

/// A name, which also can't turn around what stands beside it.
fn name(name: &str) -> String {
    format!("<bdi>{}</bdi>", escaped(name))
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}
