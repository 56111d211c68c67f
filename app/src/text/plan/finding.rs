//! What somebody should look at because of the plan, in words.

use chrono::TimeDelta;
use snaptree_core::cost::Severity;
use snaptree_core::engine::{AgentState, Expected, PlanState};
use snaptree_core::window::{PlanAction, PlanFinding, PlanFindingKind, Verdict, VolumeOutlook};

use super::dates::{growth, minute, span, used_up};
use super::{Names, short_verdict, volume_name, window_name};
use crate::text::{Advised, When, bytes, sentence};
use crate::theme::Tone;

/// A finding in words, with the label of its one button. What it is about (a machine, a volume) is among the words.
pub fn finding(finding: &PlanFinding, plan: &PlanState, names: Names<'_>, when: &When) -> Advised {
    let text = match &finding.kind {
        PlanFindingKind::VolumeFills { volume, full, full_without } => {
            let growth =
                plan.volumes.iter().find(|known| known.id == *volume).map(|known| known.growth.clone()).unwrap_or_default();
            let said = |full| used_up(full, &growth, when);
            let volume = sentence(volume_name(volume, plan, names));
            match full == full_without {
                true => format!("{volume} is {}, whatever is merged", said(full)),
                false => {
                    let (planned, without) = (said(full), said(full_without));
                    format!("{volume} is {planned}, if all is merged as planned; otherwise {without}")
                }
            }
        }
        PlanFindingKind::NoWindowFits { machine, verdict, deadline } => {
            // What is due in a year says nothing yet.
            let soon = deadline.filter(|at| *at - when.now < TimeDelta::days(60));
            let by = soon.map(|at| format!(", and must have ended by {}", minute(at, when))).unwrap_or_default();
            match verdict {
                Verdict::NoWindows => format!("{} has a merge due and no window for it{by}", names(*machine)),
                _ => format!("{} has a merge due that {}{by}", names(*machine), short_verdict(verdict)),
            }
        }
        PlanFindingKind::WontFit { machine, needs, free, at } => format!(
            "{} needs {} of free space to merge, and only {} are sure to be free {}",
            names(*machine),
            bytes(*needs),
            bytes(*free),
            minute(*at, when)
        ),
        PlanFindingKind::MissesDeadline { machine, deadline, ends, latest_safe_start } => {
            let name = names(*machine);
            let by = minute(*deadline, when);
            let planned = match ends {
                Some(ends) => format!("{name} must have merged by {by}, and as planned it ends {}", minute(*ends, when)),
                None => format!("{name} must have merged by {by}, and isn't planned"),
            };
            match latest_safe_start {
                Some(start) if *start > when.now => format!("{planned}; the last start in time is {}", minute(*start, when)),
                _ => planned,
            }
        }
    };
    let button = match finding.action {
        PlanAction::ShowPlan => "See plan",
        PlanAction::MergeNow(_) => "Merge…",
        PlanAction::AddWindow(_) => "Add window…",
        PlanAction::FreeSpace => "Free space…",
    };
    let tone = match finding.severity {
        Severity::Note => Tone::Plain,
        Severity::Warning => Tone::Warn,
        Severity::Urgent => Tone::Bad,
    };
    Advised { text, button: Some(button), tone }
}

/// A window that nobody used: "WEB01 was to be merged Sat 6 Jun 22:00-02:00 (Nights), and nobody did it".
pub fn missed(missed: &Expected, plan: &PlanState, names: Names<'_>, when: &When) -> String {
    let window = window_name(plan, missed.occurrence.window);
    let time = span(missed.occurrence.start, missed.end, when);
    format!("{} was to be merged {time} ({window}), and nobody did it", names(missed.machine))
}

/// A volume: "80.0 GiB free, grows by 8.0 GiB a day; 19 days of history, 20 samples. If nothing is merged it is full on
/// Tue 2 Jun about 14:00, between Mon and Thu; if all is merged as planned, not full within ten years."
pub fn volume(outlook: &VolumeOutlook, plan: &PlanState, when: &When) -> String {
    let Some(seen) = plan.volumes.iter().find(|seen| seen.id == outlook.id) else { return String::new() };
    let free = seen.free.last().map(|(_, free)| format!("{} free; ", bytes(*free))).unwrap_or_default();
    let grows = format!("{free}growth {}.", growth(&seen.growth));
    let said = |full| used_up(full, &seen.growth, when);
    match (seen.growth.rate.is_none(), outlook.full == outlook.full_as_planned) {
        (true, _) => grows,
        (_, true) => format!("{grows} It is {}.", said(&outlook.full)),
        (_, false) => {
            let (without, planned) = (said(&outlook.full), said(&outlook.full_as_planned));
            format!("{grows} If nothing is merged it is {without}; if all is merged as planned, {planned}.")
        }
    }
}

/// Who carries the plan out.
pub fn agent(agent: &AgentState, when: &When) -> String {
    if agent.is_at_work {
        return "The agent is at work.".into();
    }
    match agent.seen {
        None => "No agent has been at work here yet: nothing is merged by itself. `snaptree agent` does.".into(),
        Some(seen) => match when.age(seen).as_str() {
            "just now" => "The agent was at work just now, and isn't any more: nothing is merged by itself.".into(),
            age => format!("No agent is at work since {age}: nothing is merged by itself."),
        },
    }
}
