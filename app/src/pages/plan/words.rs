//! What only this page says; all else about a plan is told by `text::plan`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use snaptree_core::engine::PlanState;
use snaptree_core::snapshot::MachineId;
use snaptree_core::window::{Occurrence, OccurrenceKey, PlannedMerge};

use crate::model::Model;
use crate::text::{self, When, Zone};
use crate::theme::Tone;

/// A time where the computer is.
pub fn local(when: &When, at: DateTime<Utc>) -> DateTime<Zone> {
    at.with_timezone(&when.zone)
}

/// The names of machines, as `text::plan` asks for them.
pub fn names(model: &Model) -> impl Fn(MachineId) -> String {
    |id| model.machine(Some(id)).map_or("A machine that is gone", |m| m.name()).to_owned()
}

/// Seconds as people say them.
pub fn seconds(seconds: f64) -> String {
    text::duration(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}

/// The verdict in a few words, and how it is to be taken.
pub fn short(merge: &PlannedMerge) -> (String, Tone) {
    let said = text::plan::short_verdict(&merge.verdict);
    match merge.is_late {
        true => (format!("too late; {said}"), Tone::Bad),
        false => (said, text::plan::tone(&merge.verdict)),
    }
}

/// A window's taking place.
pub fn occurrence(plan: &PlanState, key: OccurrenceKey) -> Option<&Occurrence> {
    plan.occurrences.iter().find(|o| o.key == key)
}

/// A window's taking place: "Nights, window, Sat 22:00-02:00; Saturdays 22:00 to 02:00, all machines, live".
pub fn band(occurrence: &Occurrence, plan: &PlanState, model: &Model) -> String {
    let name = text::plan::window_name(plan, occurrence.key.window);
    let span = text::plan::span(occurrence.start(), occurrence.end, &model.when);
    let window = text::plan::window_of(plan, occurrence.key.window);
    let terms = window.map(|w| format!("; {}", text::plan::window(w, &names(model)))).unwrap_or_default();
    format!("{name}, window, {span}{terms}")
}
