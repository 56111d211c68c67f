//! `plan`: which merge is done when, in words, as data, and for other programs.

use std::path::PathBuf;

use chrono::{DateTime, Days, NaiveDate, TimeZone as _, Utc};
use clap::Args;
use snaptree_core::engine::{MachineState, PlanState};
use snaptree_core::snapshot::MachineId;
use snaptree_core::window::PlannedMerge;

use super::client::Client;
use super::output::{Align, Output, table};
use super::{Common, Done, Failure, json};
use crate::export::{self, Format, Span};
use crate::text::plan::{self as words, short_verdict};
use crate::text::{When, Zone, bytes, estimate, sentence};

/// Says when the merges that are due are done, and whether they fit.
#[derive(Debug, Args)]
pub struct Plan {
    /// Only what is done from this day on, such as 2026-06-06.
    #[arg(long, value_name = "DATE")]
    from: Option<NaiveDate>,
    /// Only what begins until the end of this day.
    #[arg(long, value_name = "DATE")]
    to: Option<NaiveDate>,
    /// Writes the plan for another program, or to print.
    #[arg(long, value_name = "FORMAT")]
    export: Option<Format>,
    /// The file that --export writes [default: the standard output].
    #[arg(requires = "export")]
    file: Option<PathBuf>,
}

/// Names of machines, from what is known of them.
pub struct Known(Vec<std::sync::Arc<MachineState>>);

impl Known {
    pub fn of(client: &mut Client) -> Result<Self, Failure> {
        Ok(Self(client.all()?))
    }

    pub fn name(&self, id: MachineId) -> String {
        let known = self.0.iter().find(|state| state.machine.id == id);
        known.map_or_else(|| id.to_string(), |state| state.machine.name.clone())
    }
}

/// Now, in the computer's time zone.
pub fn now() -> When {
    When { now: Utc::now(), zone: Zone::Local }
}

pub fn run(verb: &Plan, common: &Common, output: &Output) -> Done {
    let span = span(verb)?;
    let mut client = Client::open(common)?;
    let plan = client.plan()?;
    let known = Known::of(&mut client)?;
    let (names, when) = (|id| known.name(id), now());
    let Some(format) = verb.export else {
        output.say(&export::json::document(&plan, &names, span, &when), || lines(&plan, &names, span, &when));
        return Ok(());
    };
    let text = export::export(format, &plan, &names, span, &when);
    let Some(file) = &verb.file else {
        output.raw(&text);
        return Ok(());
    };
    if !client.is_what_if() {
        std::fs::write(file, &text).map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
    }
    let done = if client.is_what_if() { "would be written" } else { "is written" };
    let done = format!("{} {done}", file.display());
    output.say(&json::Done { done: done.clone() }, || vec![format!("{done}.")]);
    Ok(())
}

fn span(verb: &Plan) -> Result<Span, Failure> {
    let start = |date: NaiveDate| -> Option<DateTime<Utc>> {
        let local = date.and_time(chrono::NaiveTime::MIN);
        // Where the clock skips midnight, the day begins an hour later.
        let first = |local| Zone::Local.from_local_datetime(&local).earliest().map(|at| at.with_timezone(&Utc));
        first(local).or_else(|| first(local + chrono::TimeDelta::hours(1)))
    };
    if let (Some(from), Some(to)) = (verb.from, verb.to)
        && to < from
    {
        return Err(Failure::usage(format!("--to {to} is before --from {from}")));
    }
    let to = verb.to.and_then(|to| to.checked_add_days(Days::new(1)));
    Ok(Span { from: verb.from.and_then(start), to: to.and_then(start) })
}

/// The windows, the plan as a table, and what there is to say of each.
fn lines(plan: &PlanState, names: words::Names<'_>, span: Span, when: &When) -> Vec<String> {
    let mut lines = super::window::lines(plan, names, when);
    let merges: Vec<&PlannedMerge> = plan.plan.merges.iter().filter(|merge| span.concerns(merge)).collect();
    lines.push(String::new());
    if merges.is_empty() {
        lines.push(if plan.plan.merges.is_empty() { "No merge is due." } else { "Nothing is planned then." }.into());
    } else {
        let columns = [
            ("MACHINE", Align::Left),
            ("WHEN", Align::Left),
            ("HOW LONG", Align::Left),
            ("TO MOVE", Align::Right),
            ("VERDICT", Align::Left),
        ];
        let rows: Vec<Vec<String>> = merges.iter().flat_map(|merge| rows(merge, plan, names, span, when)).collect();
        lines.extend(table(&columns, &rows));
        lines.push(String::new());
        for merge in merges {
            let pin = plan.pins.iter().any(|pin| (pin.machine, &pin.disk) == (merge.machine, &merge.disk));
            let reason = words::reason(merge, plan, names, when).filter(|_| pin || plan.plan.merges.len() > 1);
            let guest = words::live(merge.time, merge.idle_time).map(|guest| format!("Of its time: {guest}."));
            let said = [Some(words::verdict(merge, plan, names, when)), reason, guest];
            lines.push(said.into_iter().flatten().collect::<Vec<_>>().join(" "));
        }
    }
    lines.push(String::new());
    lines.extend(plan.plan.volumes.iter().map(|volume| {
        let name = sentence(words::volume_name(&volume.id, plan, names));
        format!("{name}: {}", words::volume(volume, plan, when))
    }));
    lines.extend(plan.findings.iter().map(|found| format!("{}.", words::finding(found, plan, names, when).text)));
    lines.extend(plan.agent.missed.iter().map(|missed| format!("{}.", words::missed(missed, plan, names, when))));
    lines.push(words::agent(&plan.agent, when));
    lines
}

/// A merge's pieces, one a row; or why there is none.
fn rows(merge: &PlannedMerge, plan: &PlanState, names: words::Names<'_>, span: Span, when: &When) -> Vec<Vec<String>> {
    let name = words::merge_name(merge, plan, names);
    let verdict = short_verdict(&merge.verdict);
    let verdict = if merge.is_late { format!("{verdict}, too late") } else { verdict };
    if merge.pieces.is_empty() {
        let time = estimate(merge.time).unwrap_or_default();
        return vec![vec![name, "-".into(), time, bytes(merge.bytes), verdict]];
    }
    let of = merge.pieces.len();
    let pieces = merge.pieces.iter().enumerate().filter(|(_, piece)| span.has(piece));
    pieces
        .map(|(at, piece)| {
            let down = if piece.down.is_some() { ", shut down" } else { "" };
            let part = if of > 1 { format!(", part {} of {of}", at + 1) } else { String::new() };
            let long = (piece.p50_end - piece.start).to_std().map(crate::text::duration).unwrap_or_default();
            vec![
                format!("{name}{part}"),
                format!("{}{down}", words::span(piece.start, piece.p90_end, when)),
                long,
                bytes(piece.bytes),
                verdict.clone(),
            ]
        })
        .collect()
}
