//! What there is to say about a merge.

use std::time::Duration;

use chrono::{DateTime, Utc};
use snaptree_core::cost::Estimate;
use snaptree_core::engine::PlanState;
use snaptree_core::snapshot::MachineId;
use snaptree_core::window::{OccurrenceKey, OrderReason, PlannedMerge, PlannedPiece, Verdict};

use super::dates::{minute, on, span, spare};
use super::{Names, merge_name};
use crate::text::{When, bytes, count, duration, estimate, sentence, to_move};
use crate::theme::Tone;

/// A merge in one or two sentences: "Merge WEB01 Sat 22:00-01:10, window to 02:00, 50 min to spare. If it is skipped, the
/// volume is full on Tue about 14:00."
pub fn verdict(merge: &PlannedMerge, plan: &PlanState, names: Names<'_>, when: &When) -> String {
    let said = [Some(what(merge, plan, names, when)), late(merge, when), if_skipped(merge, plan, when)];
    said.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// What is to be said of a machine: of each of its merges, those that don't fit first.
pub fn machine_verdict(machine: MachineId, plan: &PlanState, names: Names<'_>, when: &When) -> String {
    let mut merges: Vec<&PlannedMerge> = plan.plan.merges.iter().filter(|merge| merge.machine == machine).collect();
    if merges.is_empty() {
        return format!("Nothing is due for {}.", names(machine));
    }
    merges.sort_by_key(|merge| std::cmp::Reverse(merge.verdict.rank()));
    merges.iter().map(|merge| verdict(merge, plan, names, when)).collect::<Vec<_>>().join(" ")
}

fn what(merge: &PlannedMerge, plan: &PlanState, names: Names<'_>, when: &When) -> String {
    let name = merge_name(merge, plan, names);
    match &merge.verdict {
        Verdict::NothingDue => format!("Nothing is due for {name}."),
        Verdict::Fits { spare_seconds } => {
            format!("Merge {name} {}, {}.", pieces(merge, plan, when), spare(*spare_seconds))
        }
        Verdict::NeedsWindows { windows, pauses, resumes, spare_seconds } => format!(
            "Merge {name} in {}: {}, {}. It pauses {} and resumes {}: nothing is moved twice.",
            count(*windows as usize, "window"),
            pieces(merge, plan, when),
            spare(*spare_seconds),
            minute(*pauses, when),
            minute(*resumes, when),
        ),
        Verdict::FitsOnlyStopped { spare_seconds, is_planned: true, .. } => {
            format!("Merge {name} {}, {}: it fits only stopped.", pieces(merge, plan, when), spare(*spare_seconds))
        }
        Verdict::FitsOnlyStopped { windows, spare_seconds, is_planned: false } => format!(
            "{name} fits only stopped: then it takes {}, with {}, but its windows don't shut it down.",
            count(*windows as usize, "window"),
            spare(*spare_seconds),
        ),
        Verdict::FitsNoWindow { needs_seconds, windows_seconds } => {
            let (needs, have) = (seconds(*needs_seconds), seconds(*windows_seconds));
            let others = if needs_seconds < windows_seconds { ", in stretches too short, or taken by others" } else { "" };
            let until = when.day(plan.until);
            format!("{name} fits no window: it needs up to {needs}, and its windows have {have} until {until}{others}.")
        }
        Verdict::NoWindows => format!("There is no window for {name}: {}.", load(merge)),
        Verdict::TimeUnknown if merge.target.is_none() => format!("{name} is still being counted."),
        Verdict::TimeUnknown => {
            format!("How long {name} takes isn't known yet, so it isn't planned: {}.", to_move(merge.bytes))
        }
        Verdict::WontFitInFreeSpace { needs, free, at } => format!(
            "{name} won't fit in free space: it needs {}, and only {} are sure to be free {}.",
            bytes(*needs),
            bytes(*free),
            minute(*at, when)
        ),
    }
}

/// "31 GiB to move, 1 min 30 s, 12 GiB come back".
fn load(merge: &PlannedMerge) -> String {
    let time = estimate(merge.time).map(|time| format!(", {time}")).unwrap_or_default();
    format!("{}{time}, {} come back", to_move(merge.bytes), bytes(merge.comes_back))
}

/// "Sat 22:00-01:10, window to 02:00"; with when the machine is down, where it is shut down.
fn pieces(merge: &PlannedMerge, plan: &PlanState, when: &When) -> String {
    let said: Vec<String> = merge.pieces.iter().map(|piece| span(piece.start, piece.p90_end, when)).collect();
    let end = merge.pieces.last().and_then(|last| end_of(plan, last.occurrence)).map(|end| clock(end, when));
    let window = end.map(|end| format!(", window to {end}")).unwrap_or_default();
    format!("{}{window}{}", said.join(", then "), downs(&merge.pieces, when))
}

/// ", shut down Sat 21:55-01:15".
fn downs(pieces: &[PlannedPiece], when: &When) -> String {
    let down: Vec<String> = pieces.iter().filter_map(|piece| piece.down).map(|(from, to)| span(from, to, when)).collect();
    if down.is_empty() { String::new() } else { format!(", shut down {}", down.join(" and ")) }
}

fn clock(t: DateTime<Utc>, when: &When) -> String {
    t.with_timezone(&when.zone).format("%H:%M").to_string()
}

/// When one taking place of a window ends.
fn end_of(plan: &PlanState, key: OccurrenceKey) -> Option<DateTime<Utc>> {
    plan.occurrences.iter().find(|occurrence| occurrence.key == key).map(|occurrence| occurrence.end)
}

fn late(merge: &PlannedMerge, when: &When) -> Option<String> {
    let deadline = merge.deadline.filter(|_| merge.is_late)?;
    let start = match merge.latest_safe_start {
        Some(start) if start > when.now => format!("; the last start in time is {}", minute(start, when)),
        _ => String::new(),
    };
    Some(format!("That is too late: it should have ended by {}{start}.", minute(deadline, when)))
}

/// What comes of it where it isn't done, if that makes a difference to the volume.
fn if_skipped(merge: &PlannedMerge, plan: &PlanState, when: &When) -> Option<String> {
    let full = merge.if_skipped;
    let planned = plan.plan.volumes.iter().find(|volume| volume.id == merge.volume).map(|volume| volume.full_as_planned);
    let is_planned = !merge.pieces.is_empty();
    if is_planned && planned == Some(full) {
        return None;
    }
    let start = if is_planned { "If it is skipped, the volume is" } else { "The volume is" };
    match (full.middle, full.earliest) {
        (Some(middle), _) if middle <= when.now => Some(format!("{start} full now.")),
        (Some(middle), _) => Some(format!("{start} full {}.", on(middle, when))),
        (None, Some(earliest)) => Some(format!("{start} full {} at the earliest.", on(earliest, when))),
        (None, None) => None,
    }
}

fn seconds(s: f64) -> String {
    Duration::try_from_secs_f64(s).map(duration).unwrap_or_else(|_| "years".into())
}

/// A verdict in a few words, for under a bar: "fits, 50 min to spare".
pub fn short_verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::NothingDue => "nothing due".into(),
        Verdict::Fits { spare_seconds } => format!("fits, {}", spare(*spare_seconds)),
        Verdict::NeedsWindows { windows, spare_seconds, .. } => {
            format!("needs {}, {}", count(*windows as usize, "window"), spare(*spare_seconds))
        }
        Verdict::FitsOnlyStopped { spare_seconds, is_planned: true, .. } => {
            format!("fits only stopped, {}", spare(*spare_seconds))
        }
        Verdict::FitsOnlyStopped { is_planned: false, .. } => "fits only stopped, and isn't".into(),
        Verdict::FitsNoWindow { .. } => "fits no window".into(),
        Verdict::NoWindows => "no window".into(),
        Verdict::TimeUnknown => "time not known yet".into(),
        Verdict::WontFitInFreeSpace { needs, free, .. } => format!("needs {}, {} free then", bytes(*needs), bytes(*free)),
    }
}

/// How a verdict is shown; a merge that ends too late is bad whatever it says.
pub fn tone(verdict: &Verdict) -> Tone {
    match verdict {
        Verdict::NothingDue => Tone::Weak,
        Verdict::Fits { .. } => Tone::Good,
        Verdict::NeedsWindows { .. } | Verdict::FitsOnlyStopped { .. } | Verdict::NoWindows | Verdict::TimeUnknown => Tone::Warn,
        Verdict::FitsNoWindow { .. } | Verdict::WontFitInFreeSpace { .. } => Tone::Bad,
    }
}

/// Why a merge is done when it is, in one sentence; `None` where it isn't planned.
pub fn reason(merge: &PlannedMerge, plan: &PlanState, names: Names<'_>, when: &When) -> Option<String> {
    let other = |place: &usize| plan.plan.merges.get(*place);
    let name = |place: &usize| other(place).map_or_else(|| "another".into(), |other| merge_name(other, plan, names));
    let said = match merge.reason.as_ref()? {
        OrderReason::Pinned => "somebody has put it there.".to_owned(),
        OrderReason::AfterSpaceOf { merge: place } => {
            let back = other(place).map(|other| other.comes_back).unwrap_or_default();
            let needs = bytes(merge.scratch);
            format!("it needs {needs} of free space, which it has only after {} has given {} back.", name(place), bytes(back))
        }
        OrderReason::WaitsFor { merge } => {
            format!("it waits for {}, which comes first: one merge at a time on a volume.", name(merge))
        }
        OrderReason::EarliestDeadline { at } => format!("it comes first: it must have ended by {}.", minute(*at, when)),
        OrderReason::FewestBytes => "it comes first: it moves the fewest bytes of those that could.".to_owned(),
        OrderReason::FitsBest => "it comes first: so more fits, or less is moved.".to_owned(),
        OrderReason::OnlyOne => "it is the only merge on its volume.".to_owned(),
    };
    Some(sentence(said))
}

/// How much of a live merge is because of the guest: "3 min 10 s because of the guest, 1 min 20 s with the machine off";
/// `None` where the guest costs nothing that could be told.
pub fn live(time: Option<Estimate>, idle_time: Option<Estimate>) -> Option<String> {
    let (whole, idle) = (time?.p50, idle_time?.p50);
    let guest = whole - idle;
    (guest >= 0.5).then(|| format!("{} because of the guest, {} with the machine off", seconds(guest), seconds(idle)))
}
