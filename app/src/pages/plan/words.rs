//! What the plan says, in words.

use std::time::Duration;

use chrono::{DateTime, FixedOffset, NaiveTime, Utc, Weekday};
use snaptree_core::cost::{MergeMode, Severity};
use snaptree_core::engine::{Expected, PlanState};
use snaptree_core::units::ByteCount;
use snaptree_core::window::{
    MaintenanceWindow, Occurrence, OccurrenceKey, OrderReason, PlanAction, PlanFinding, PlanFindingKind, PlannedMerge, Scope,
    Verdict, When as WindowTime,
};

use crate::model::Model;
use crate::text::{self, Advised, When, bytes, count};
use crate::theme::Tone;

/// A time where the computer is.
pub fn local(when: &When, at: DateTime<Utc>) -> DateTime<FixedOffset> {
    at.with_timezone(&when.zone)
}

/// "Sat 22:00"; from a week on with the date, too: "Sat 13 Jun 22:00".
pub fn at(when: &When, time: DateTime<Utc>) -> String {
    let is_far = (time - when.now).num_days().abs() >= 7;
    local(when, time).format(if is_far { "%a %-d %b %H:%M" } else { "%a %H:%M" }).to_string()
}

/// "Sat 22:00 to 02:00"; with the day of the end where that is another, and not just the night after.
pub fn span(when: &When, from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    let is_near = to - from < chrono::TimeDelta::hours(20);
    let end = if is_near { local(when, to).format("%H:%M").to_string() } else { at(when, to) };
    format!("{} to {end}", at(when, from))
}

/// Seconds as people say them.
pub fn seconds(seconds: f64) -> String {
    text::duration(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}

fn spare(seconds: f64) -> String {
    if seconds < 60.0 { "with no time to spare".into() } else { format!("{} to spare", self::seconds(seconds)) }
}

/// The verdict in a few words, and how it is to be taken.
pub fn short(merge: &PlannedMerge, when: &When) -> (String, Tone) {
    let (said, tone) = match merge.verdict {
        Verdict::NothingDue => ("nothing due".into(), Tone::Good),
        Verdict::Fits { spare_seconds } => (format!("fits, {}", spare(spare_seconds)), Tone::Good),
        Verdict::NeedsWindows { windows, pauses, resumes, .. } => (
            format!("needs {windows} windows: pauses {}, resumes {}", at(when, pauses), at(when, resumes)),
            Tone::Warn,
        ),
        Verdict::FitsOnlyStopped { spare_seconds, is_planned: true, .. } => {
            (format!("fits only stopped, {}", spare(spare_seconds)), Tone::Warn)
        }
        Verdict::FitsOnlyStopped { .. } => ("would fit only stopped".into(), Tone::Bad),
        Verdict::FitsNoWindow { needs_seconds, windows_seconds } => (
            format!("fits no window: needs {}, they have {}", seconds(needs_seconds), seconds(windows_seconds)),
            Tone::Bad,
        ),
        Verdict::NoWindows => ("no window".into(), Tone::Bad),
        Verdict::TimeUnknown => ("time not known yet".into(), Tone::Warn),
        Verdict::WontFitInFreeSpace { needs, free, .. } => {
            (format!("needs {} free, there are {}", bytes(needs), bytes(free)), Tone::Bad)
        }
    };
    if merge.is_late { (format!("too late, {said}"), Tone::Bad) } else { (said, tone) }
}

/// The verdict in full.
pub fn verdict(merge: &PlannedMerge, plan: &PlanState, when: &When) -> String {
    let time = merge.time.map(|t| seconds(t.p50)).unwrap_or_else(|| "an unknown time".into());
    let planned = merge.pieces.first().zip(merge.pieces.last()).map(|(first, last)| span(when, first.start, last.p90_end));
    let planned = planned.unwrap_or_default();
    let window_end = merge.pieces.last().and_then(|piece| occurrence(plan, piece.occurrence)).map(|o| o.end);
    let window_end = window_end.map(|end| format!(", window to {}", local(when, end).format("%H:%M"))).unwrap_or_default();
    let mut said = match merge.verdict {
        Verdict::NothingDue => "Nothing is due.".into(),
        Verdict::Fits { spare_seconds } => format!("It is merged {planned}{window_end}: {}.", spare(spare_seconds)),
        Verdict::NeedsWindows { windows, pauses, resumes, .. } => format!(
            "It takes {time}, more than one window has. It is split over {windows}: it pauses {}, goes on {}, and keeps all \
             that it has moved.",
            at(when, pauses),
            at(when, resumes)
        ),
        Verdict::FitsOnlyStopped { spare_seconds, is_planned: true, .. } => format!(
            "While it runs it doesn't fit. It is shut down for it, merged {planned}, and started again: {}.",
            spare(spare_seconds)
        ),
        Verdict::FitsOnlyStopped { windows, .. } => format!(
            "While it runs it doesn't fit its windows. Stopped, it would fit into {}: change a window so that it may shut \
             machines down.",
            count(windows as usize, "window")
        ),
        Verdict::FitsNoWindow { needs_seconds, windows_seconds } => format!(
            "Its windows are too short, or others need them: it takes up to {}, and they have {}.",
            seconds(needs_seconds),
            seconds(windows_seconds)
        ),
        Verdict::NoWindows => "There is no window for it.".into(),
        Verdict::TimeUnknown => "How long it takes isn't known yet: nothing was merged or measured on its volume.".into(),
        Verdict::WontFitInFreeSpace { needs, free, at: time } => format!(
            "It needs {} of free space, and there are at most {} that are sure to be free at a window ({}).",
            bytes(needs),
            bytes(free),
            at(when, time)
        ),
    };
    if let (true, Some(deadline)) = (merge.is_late, merge.deadline) {
        said += &format!(" That may be too late: it should have ended by {}.", at(when, deadline));
    }
    if let Some(full) = merge.if_skipped.middle {
        said += &format!(" If it is skipped, the volume is full {} about {}.", day(when, full), hour(when, full));
    }
    said
}

fn day(when: &When, time: DateTime<Utc>) -> String {
    let is_far = (time - when.now).num_days() >= 7;
    local(when, time).format(if is_far { "%a %-d %b" } else { "%a" }).to_string()
}

fn hour(when: &When, time: DateTime<Utc>) -> String {
    local(when, time).format("%H:00").to_string()
}

/// Why it is done when it is.
pub fn reason(reason: &OrderReason, plan: &PlanState, model: &Model) -> String {
    let name = |merge: usize| {
        let machine = plan.plan.merges.get(merge).and_then(|m| model.machine(Some(m.machine)));
        machine.map_or("another", |m| m.name()).to_owned()
    };
    match reason {
        OrderReason::Pinned => "Somebody has put it there.".into(),
        OrderReason::AfterSpaceOf { merge } => format!("It fits only after the space that {} gives back.", name(*merge)),
        OrderReason::WaitsFor { merge } => {
            format!("It waits for {}: merges on one volume are done one at a time.", name(*merge))
        }
        OrderReason::EarliestDeadline { at: time } => {
            format!("It is first because its deadline is the earliest: {}.", at(&model.when, *time))
        }
        OrderReason::FewestBytes => "It is first because it moves fewest bytes.".into(),
        OrderReason::FitsBest => "In this order more fits, or less is moved.".into(),
        OrderReason::OnlyOne => "There is no other merge on its volume.".into(),
    }
}

/// "Every Mon, Tue and Sat, 22:00 to 02:00"; "Sat 30 May 2026, 22:00 to 02:00".
pub fn when(window: &MaintenanceWindow) -> String {
    match &window.when {
        WindowTime::Weekly { days, from, to } => {
            let all = [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat, Weekday::Sun];
            let mut names: Vec<String> = all.iter().filter(|d| days.contains(d)).map(ToString::to_string).collect();
            let said = match names.len() {
                7 => "Every day".into(),
                n => {
                    let last = names.pop().unwrap_or_default();
                    if n < 2 { format!("Every {last}") } else { format!("Every {} and {last}", names.join(", ")) }
                }
            };
            format!("{said}, {} to {}", clock(*from), clock(*to))
        }
        WindowTime::Once { from, to } => {
            let end = if from.date() == to.date() || to.time() <= from.time() { "%H:%M" } else { "%a %-d %b %H:%M" };
            format!("{}, {} to {}", from.format("%a %-d %b %Y"), clock(from.time()), to.format(end))
        }
    }
}

fn clock(time: NaiveTime) -> String {
    time.format("%H:%M").to_string()
}

/// "all machines", "SQL02 and WEB01".
pub fn scope(scope: &Scope, model: &Model) -> String {
    match scope {
        Scope::All => "all machines".into(),
        Scope::Machines(ids) => {
            let name = |id: &_| model.machine(Some(*id)).map_or("a machine that is gone".into(), |m| m.name().to_owned());
            text::list(&ids.iter().map(name).collect::<Vec<_>>())
        }
    }
}

/// "all machines, they go on, at most 50 MiB/s".
pub fn terms(window: &MaintenanceWindow, model: &Model) -> String {
    let mode = match window.mode {
        MergeMode::Live => "live",
        MergeMode::Stopped => "may shut machines down",
    };
    let limit = window.limit.map(|limit| format!(", at most {}", text::rate(limit))).unwrap_or_default();
    format!("{}, {mode}{limit}", scope(&window.scope, model))
}

/// The window of a taking place, and that itself.
pub fn occurrence(plan: &PlanState, key: OccurrenceKey) -> Option<&Occurrence> {
    plan.occurrences.iter().find(|o| o.key == key)
}

/// A window's name.
pub fn window_name(plan: &PlanState, key: OccurrenceKey) -> &str {
    plan.windows.iter().find(|w| w.id == key.window).map_or("a window that is gone", |w| &w.name)
}

/// A volume, known to people by the machines on it.
pub fn volume(plan: &PlanState, model: &Model, id: &str) -> String {
    if plan.plan.volumes.len() == 1 {
        return "This library's volume".into();
    }
    let here = model.library_machines().into_iter().filter_map(|m| model.machine(Some(m)));
    let names: Vec<String> = here.filter(|m| m.state.volume.id == id).map(|m| m.name().to_owned()).collect();
    if names.is_empty() { id.to_owned() } else { format!("Volume of {}", text::list(&names)) }
}

/// A finding in words, with its subject in front.
pub fn finding(finding: &PlanFinding, plan: &PlanState, model: &Model) -> (String, Advised) {
    let when = &model.when;
    let name = |id| model.machine(Some(id)).map_or("A machine", |m| m.name()).to_owned();
    let (subject, said) = match &finding.kind {
        PlanFindingKind::VolumeFills { volume: id, full, full_without } => {
            let about = |time| format!("{} about {}", day(when, time), hour(when, time));
            let said = match (full.middle.or(full.earliest), full_without.middle) {
                (Some(time), Some(without)) if without < time => {
                    format!("full {} as planned, {} without", about(time), about(without))
                }
                (Some(time), _) => format!("full {}", about(time)),
                (None, _) => "fills".into(),
            };
            (volume(plan, model, id), said)
        }
        PlanFindingKind::NoWindowFits { machine, verdict, deadline } => {
            let why = match verdict {
                Verdict::NoWindows => "has a merge due and no window for it",
                Verdict::FitsOnlyStopped { .. } => "fits its windows only stopped",
                _ => "fits no window",
            };
            let until = deadline.map(|d| format!(", due by {}", at(when, d))).unwrap_or_default();
            (name(*machine), format!("{why}{until}"))
        }
        PlanFindingKind::WontFit { machine, needs, free, .. } => {
            (name(*machine), format!("needs {} to merge, {} are sure to be free", bytes(*needs), bytes(*free)))
        }
        PlanFindingKind::MissesDeadline { machine, deadline, ends, .. } => {
            let ends = ends.map_or("isn't planned".into(), |ends| format!("ends {}", at(when, ends)));
            (name(*machine), format!("has to be merged by {}, and {ends}", at(when, *deadline)))
        }
    };
    let button = match finding.action {
        PlanAction::ShowPlan => "See plan",
        PlanAction::MergeNow(_) => "Merge now…",
        PlanAction::AddWindow(_) => "Add a window…",
        PlanAction::FreeSpace => "Free space",
    };
    let tone = match finding.severity {
        Severity::Note => Tone::Plain,
        Severity::Warning => Tone::Warn,
        Severity::Urgent => Tone::Bad,
    };
    (subject, Advised { text: said, button: Some(button), tone })
}

/// What nobody did in windows that are over.
pub fn missed(missed: &[Expected], model: &Model) -> String {
    let last = missed.iter().max_by_key(|m| m.end);
    let day = last.map(|m| local(&model.when, m.occurrence.start).format("%A").to_string()).unwrap_or_default();
    let mut names: Vec<String> =
        missed.iter().map(|m| model.machine(Some(m.machine)).map_or("a machine", |m| m.name()).to_owned()).collect();
    names.sort();
    names.dedup();
    format!("{day}'s window passed and nothing ran: {} not merged", text::list(&names))
}

/// "7.6 GiB a day".
pub fn a_day(n: ByteCount) -> String {
    format!("{} a day", bytes(n))
}

/// "Tue about 14:00".
pub fn about(when: &When, time: DateTime<Utc>) -> String {
    format!("{} about {}", day(when, time), hour(when, time))
}
