//! A made-up plan, for tests: Thursday 28 May 2026, 14:00, two hours east of UTC.

use std::collections::BTreeSet;

use chrono::{DateTime, FixedOffset, NaiveTime, TimeDelta, TimeZone, Utc, Weekday};
use snaptree_core::cost::{Basis, Estimate, Growth, MergeMode, UsedUp};
use snaptree_core::engine::{AgentState, PlanState, VolumeHistory};
use snaptree_core::snapshot::{DiskId, ImageId, MachineId};
use snaptree_core::units::ByteCount;
use snaptree_core::window::{
    MaintenanceWindow, MergePlan, Occurrence, OccurrenceKey, OrderReason, PlannedMerge, PlannedPiece, Scope, Verdict,
    VolumeOutlook, When as WindowWhen, WindowId,
};
use uuid::Uuid;

use crate::text::When;

/// UTC.
pub fn at(day: u32, hour: u32, minute: u32) -> DateTime<Utc> {
    // Days from the first of May on.
    let first = Utc.with_ymd_and_hms(2026, 5, 1, hour, minute, 0).single().unwrap_or_default();
    first + TimeDelta::days(i64::from(day) - 1)
}

pub fn when() -> When {
    When { now: at(28, 12, 0), zone: FixedOffset::east_opt(7200).expect("a zone").into() }
}

pub fn machine(number: u128) -> MachineId {
    MachineId(Uuid::from_u128(number))
}

/// WEB01, DB01 and so on.
pub fn names(id: MachineId) -> String {
    match id.0.as_u128() {
        1 => "WEB01".into(),
        2 => "DB01".into(),
        3 => "SQL02".into(),
        n => format!("VM{n}"),
    }
}

/// Saturdays and Sundays, 22:00 to 02:00.
pub fn nights() -> MaintenanceWindow {
    let hour = |h| NaiveTime::from_hms_opt(h, 0, 0).unwrap_or_default();
    MaintenanceWindow {
        id: WindowId(Uuid::from_u128(7)),
        name: "Nights".into(),
        when: WindowWhen::Weekly { days: vec![Weekday::Sun, Weekday::Sat], from: hour(22), to: hour(2) },
        scope: Scope::All,
        mode: MergeMode::Live,
        limit: None,
        enabled: true,
    }
}

/// One taking place of it: Saturday is 30, Sunday 31.
pub fn night(day: u32) -> OccurrenceKey {
    OccurrenceKey { window: nights().id, start: at(day, 20, 0) }
}

pub fn full(day: u32) -> UsedUp {
    let middle = at(day, 12, 0);
    let around = |days| Some(middle + TimeDelta::days(days));
    UsedUp { earliest: around(-1), middle: Some(middle), late: around(2), safe: around(-2) }
}

pub fn piece(day: u32, start: (u32, u32), hours: f64, bytes: u64) -> PlannedPiece {
    let start = at(day, start.0, start.1);
    let after = |hours: f64| start + TimeDelta::seconds((hours * 3600.0) as i64);
    PlannedPiece {
        occurrence: night(day),
        start,
        p50_end: after(hours * 0.8),
        p90_end: after(hours),
        bytes: ByteCount::gib(bytes),
        resumes: None,
        down: None,
    }
}

/// A merge of WEB01 that fits, Saturday 22:00 to 01:10.
pub fn fits() -> PlannedMerge {
    PlannedMerge {
        machine: machine(1),
        disk: DiskId("disk0".into()),
        volume: "data".into(),
        verdict: Verdict::Fits { spare_seconds: 3000.0 },
        pieces: vec![piece(30, (20, 0), 19.0 / 6.0, 31)],
        target: Some(ImageId(Uuid::from_u128(9))),
        bytes: ByteCount::gib(31),
        scratch: ByteCount::gib(2),
        comes_back: ByteCount::gib(12),
        time: Some(Estimate { p10: 8000.0, p50: 9000.0, p90: 11400.0, basis: Basis::Merges(4) }),
        idle_time: Some(Estimate { p10: 7000.0, p50: 8000.0, p90: 10000.0, basis: Basis::Merges(4) }),
        deadline: Some(at(32, 12, 0)),
        latest_safe_start: Some(at(31, 20, 30)),
        is_late: false,
        if_skipped: full(33),
        reason: Some(OrderReason::EarliestDeadline { at: at(32, 12, 0) }),
    }
}

/// DB01 in two windows.
pub fn two_windows() -> PlannedMerge {
    let first = PlannedPiece { resumes: Some(night(31)), ..piece(30, (20, 0), 3.5, 40) };
    let verdict = Verdict::NeedsWindows { windows: 2, pauses: first.p90_end, resumes: at(31, 20, 0), spare_seconds: 9000.0 };
    PlannedMerge {
        machine: machine(2),
        verdict,
        pieces: vec![first, piece(31, (20, 0), 1.5, 20)],
        bytes: ByteCount::gib(60),
        reason: Some(OrderReason::WaitsFor { merge: 0 }),
        if_skipped: UsedUp::default(),
        ..fits()
    }
}

/// SQL02, which nothing is planned for.
pub fn unplanned(verdict: Verdict) -> PlannedMerge {
    PlannedMerge { machine: machine(3), verdict, pieces: Vec::new(), if_skipped: UsedUp::default(), reason: None, ..fits() }
}

pub fn history(samples: u32, minutes: i64) -> Growth {
    let end = when().now;
    Growth { samples, history: Some((end - TimeDelta::minutes(minutes), end)), rate: None }
}

/// Grown by so many GiB a day for so many days.
pub fn grown(gib: u64, days: u64) -> Growth {
    let end = when().now;
    Growth::of((0..=days).map(|day| (end - TimeDelta::days((days - day) as i64), ByteCount::gib(gib * day))))
}

/// A plan of these merges.
pub fn plan(merges: Vec<PlannedMerge>) -> PlanState {
    let occurrence = |day| Occurrence {
        key: night(day),
        end: at(day + 1, 0, 0),
        mode: MergeMode::Live,
        limit: None,
        scope: Scope::Machines(BTreeSet::new()),
    };
    let outlook = VolumeOutlook {
        id: "data".into(),
        floor: ByteCount::gib(1),
        points: Vec::new(),
        full: full(33),
        full_as_planned: UsedUp::default(),
    };
    PlanState {
        windows: vec![nights()],
        pins: Vec::new(),
        until: at(56, 12, 0),
        occurrences: vec![occurrence(30), occurrence(31)],
        plan: MergePlan { made: when().now, merges, volumes: vec![outlook] },
        findings: Vec::new(),
        volumes: vec![VolumeHistory {
            id: "data".into(),
            floor: ByteCount::gib(1),
            free: vec![(when().now, ByteCount::gib(80))],
            growth: grown(8, 19),
        }],
        agent: AgentState::default(),
    }
}
