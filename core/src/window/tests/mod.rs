//! Tests of the room.

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use uuid::Uuid;

use super::*;
use crate::cost::{Calibration, Growth, Line, MergeMode, MergeSample};
use crate::snapshot::{DiskId, ImageId, MachineId};
use crate::testing::Random;
use crate::units::{ByteCount, ByteRate};

mod advice;
mod exhaustive;
mod plan;
mod schedule;
mod simulated;

const GB: u64 = 1_000_000_000;

/// A Thursday.
fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 5, 21, 8, 0, 0).unwrap()
}

fn after(hours: f64) -> DateTime<Utc> {
    now() + TimeDelta::seconds((hours * 3600.0) as i64)
}

fn hours_until(at: DateTime<Utc>) -> f64 {
    (at - now()).as_seconds_f64() / 3600.0
}

fn id(n: u64) -> Uuid {
    Uuid::from_u128(u128::from(n))
}

fn machine(n: u64) -> MachineId {
    MachineId(id(n))
}

/// Ten merges that each moved about 100 MB a second.
fn taught() -> Calibration {
    let mut calibration = Calibration::default();
    for n in 1..=10 {
        let seconds = n as f64 * 100.0 * if n % 2 == 0 { 1.04 } else { 0.96 };
        calibration.record(MergeSample {
            bytes: 10 * n * GB,
            stretches: 100,
            seconds,
            estimated_seconds: None,
            probe: false,
            mode: MergeMode::Stopped,
            guest_bytes: None,
        });
    }
    calibration
}

/// So many bytes a day, told by a month of samples.
fn growing(daily: u64) -> Growth {
    Growth::of((0..60).map(|n| (now() - TimeDelta::hours(12 * (60 - n)), ByteCount(daily * n as u64 / 2))))
}

/// A window for all machines, live, in hours from now.
fn occurrence(n: u64, from: f64, to: f64) -> Occurrence {
    Occurrence {
        key: OccurrenceKey { window: WindowId(id(1000 + n)), start: after(from) },
        end: after(to),
        mode: MergeMode::Live,
        limit: None,
        scope: Scope::All,
    }
}

/// A merge of a stopped machine, of so many GB.
fn due(n: u64, gb: u64) -> DueMerge {
    DueMerge {
        machine: machine(n),
        disk: DiskId("disk0".into()),
        volume: "data".into(),
        running: false,
        guest: None,
        options: vec![option(n * 10, gb)],
        growth: Growth::default(),
        pinned: None,
    }
}

fn option(n: u64, gb: u64) -> MergeOption {
    MergeOption {
        target: ImageId(id(n)),
        bytes: ByteCount(gb * GB),
        stretches: 100,
        scratch: ByteCount::mib(66),
        comes_back: ByteCount(gb * GB / 2),
        live: true,
        grows: false,
        scratch_grows: false,
    }
}

fn input(work: Vec<DueMerge>, occurrences: Vec<Occurrence>) -> PlanInput {
    PlanInput {
        now: now(),
        until: after(7.0 * 24.0),
        occurrences,
        volumes: vec![PlanVolume {
            id: "data".into(),
            free: ByteCount(100 * GB),
            floor: ByteCount(GB / 5),
            growth: Growth::default(),
            calibration: taught(),
        }],
        work,
        parameters: PlanParameters::default(),
    }
}

/// Whether a plan keeps the rules; it doesn't ask whether it is good.
fn check(input: &PlanInput, plan: &MergePlan) {
    let slack = TimeDelta::milliseconds(3);
    assert_eq!(plan.merges.len(), input.work.len());
    for volume in &input.volumes {
        let mut all = Vec::new();
        for (due, merge) in input.work.iter().zip(&plan.merges).filter(|(due, _)| due.volume == volume.id) {
            let Some(option) = due.options.iter().find(|o| Some(o.target) == merge.target) else { panic!("no target") };
            let moved: ByteCount = merge.pieces.iter().map(|p| p.bytes).sum();
            assert!(merge.pieces.is_empty() || moved == merge.bytes, "{merge:?}");
            assert!(option.grows || merge.bytes == option.bytes);
            for (i, piece) in merge.pieces.iter().enumerate() {
                let window = input.occurrences.iter().find(|o| o.key == piece.occurrence).expect("a window of the input");
                assert!(window.scope.covers(due.machine));
                assert!(piece.start >= window.start() && piece.start >= input.now && piece.p90_end <= window.end, "{piece:?}");
                assert!(piece.start <= piece.p50_end && piece.p50_end <= piece.p90_end && piece.p90_end <= input.until);
                let stops = due.running && window.mode == MergeMode::Stopped;
                assert_eq!(stops, piece.down.is_some());
                assert!(stops || !due.running || option.live, "not while it runs");
                if let Some((from, to)) = piece.down {
                    assert!(from >= window.start() - slack && to <= window.end, "up in time: {piece:?}");
                }
                assert_eq!(piece.resumes, merge.pieces.get(i + 1).map(|p| p.occurrence));
                assert!(i > 0 || due.pinned.is_none_or(|pinned| pinned == piece.occurrence), "it stays where it was put");
                if let Some(limit) = window.limit {
                    let seconds = (piece.p90_end - piece.start).as_seconds_f64();
                    assert!(piece.bytes.0 as f64 <= limit.0 * (seconds + 0.01) + 1.0, "faster than the limit");
                }
                all.push((piece.start, piece.p90_end, option, piece.resumes.is_none()));
            }
        }
        all.sort_by_key(|piece| piece.0);
        let mut gained = 0;
        for (i, (start, end, option, ends)) in all.iter().enumerate() {
            assert!(i == 0 || all[i - 1].1 <= *start + slack, "two at a time");
            let used = volume.growth.added_along(Line::Safe, (*start - input.now).as_seconds_f64() / 86_400.0);
            assert!(option.scratch.0 as f64 <= (volume.free.0 + gained) as f64 - used + 1.0, "it doesn't fit");
            assert!(start < end);
            gained += if *ends { option.comes_back.0 } else { 0 };
        }
    }
}

fn planned(input: &PlanInput) -> MergePlan {
    let plan = super::plan(input);
    check(input, &plan);
    assert_eq!(plan, super::plan(input), "the same again");
    plan
}
