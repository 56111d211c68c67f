//! Growth and forecast, against a volume whose habits they aren't told.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, TimeZone, Utc};

use crate::cost::*;
use crate::snapshot::ImageId;
use crate::testing::{Random, SimulatedVolume};
use crate::units::ByteCount;

const GB: u64 = 1_000_000_000;

fn start() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 3, 2, 6, 0, 0).unwrap()
}

fn hours(n: i64) -> DateTime<Utc> {
    start() + TimeDelta::hours(n)
}

/// Points at these hours.
fn points(sizes: &[(i64, u64)]) -> Vec<(DateTime<Utc>, ByteCount)> {
    sizes.iter().map(|(hour, bytes)| (hours(*hour), ByteCount(*bytes))).collect()
}

fn middle(growth: &Growth) -> f64 {
    growth.per_day().expect("it is known").p50.0 as f64 / GB as f64
}

#[test]
fn one_or_two_samples_are_not_known_yet() {
    for sizes in [&[][..], &[(0, 5)], &[(0, 5), (48, 9 * GB)], &[(0, 5), (1, GB), (2, 2 * GB)]] {
        let growth = Growth::of(points(sizes));
        assert_eq!((growth.samples as usize, growth.rate), (sizes.len(), None));
        assert_eq!((growth.per_day(), growth.added(TimeDelta::days(3))), (None, None));
        assert_eq!(growth.uses_up(ByteCount(GB), start()), UsedUp::default());
    }
    let growth = Growth::of(points(&[(0, 0), (12, GB), (24, 2 * GB)]));
    assert_eq!(growth.history, Some((hours(0), hours(24))));
    assert!((1.9..2.1).contains(&middle(&growth)), "{growth:?}");
    let band = growth.per_day().expect("three samples of a day are something");
    assert!(band.p10 < band.p50 && band.p50 < band.p90, "{band:?}");
}

#[test]
fn more_history_is_a_narrower_band() {
    let width = |days: i64| {
        let growth = Growth::of((0..=days * 4).map(|n| (hours(6 * n), ByteCount(n as u64 * GB / 2 + (n as u64 % 3) * GB / 10))));
        let band = growth.added(TimeDelta::days(10)).expect("known");
        assert!((band.p10..=band.p90).contains(&ByteCount(20 * GB)), "{days} days: {band:?}");
        (band.p90.0 - band.p10.0) as f64 / GB as f64
    };
    assert!(width(1) > 1.5 * width(5) && width(5) > 1.2 * width(40), "{} {} {}", width(1), width(5), width(40));
}

#[test]
fn space_that_comes_back_is_no_negative_growth() {
    // 2 GB a day; a merge gives 15 GB back, twice.
    let sizes: Vec<(i64, u64)> = (0..40)
        .map(|n| (12 * n, n as u64 * GB + 40 * GB - if n > 9 { 15 * GB } else { 0 } - if n > 30 { 15 * GB } else { 0 }))
        .collect();
    let growth = Growth::of(points(&sizes));
    assert!((1.9..2.1).contains(&middle(&growth)), "{growth:?}");
    // And makes the band no wider.
    let rate = growth.rate.expect("known");
    assert!((1.9e9..2.1e9).contains(&rate.mean) && rate.spread < 0.4e9 && rate.burst < 2.1e9, "{rate:?}");
    let full = growth.uses_up(ByteCount(20 * GB), start());
    let day = |at: Option<DateTime<Utc>>| (at.expect("it grows") - start()).num_hours() as f64 / 24.0;
    assert!((9.5..10.5).contains(&day(full.middle)), "{full:?}");
    assert!(full.safe < full.earliest && full.earliest < full.middle && full.middle < full.late, "{full:?}");
}

#[test]
fn noise_and_a_burst_hardly_move_the_middle() {
    let mut rng = Random::new(5);
    let mut noisy = |n: i64| 100 * GB + n as u64 * GB / 24 + rng.below(GB / 5);
    let sizes: Vec<(i64, u64)> = (0..24 * 30).map(|n| (n, noisy(n))).collect();
    let plain = Growth::of(points(&sizes));
    assert!((0.9..1.1).contains(&middle(&plain)), "{plain:?}");
    let burst: Vec<(i64, u64)> = sizes.iter().map(|(n, bytes)| (*n, bytes + if *n > 200 { 10 * GB } else { 0 })).collect();
    let burst = Growth::of(points(&burst));
    assert!((0.9..1.3).contains(&middle(&burst)), "{burst:?}");
    // But it may come again, so the upper end counts it.
    let upper = |g: &Growth| g.added(TimeDelta::days(10)).expect("known").p90;
    assert!(upper(&burst).0 > upper(&plain).0 + 5 * GB, "{:?} {:?}", upper(&burst), upper(&plain));
}

#[test]
fn what_does_not_grow_is_never_full() {
    let growth = Growth::of((0..30).map(|n| (hours(12 * n), ByteCount(50 * GB))));
    assert_eq!(growth.uses_up(ByteCount(GB), start()), UsedUp::default());
    assert_eq!(growth.added(TimeDelta::days(99)).map(|band| band.p90), Some(ByteCount::ZERO));
}

#[test]
fn a_young_leaf_grows_as_its_machine_does() {
    let (old, leaf) = (ImageId::new(), ImageId::new());
    let mut samples: Vec<SizeSample> = (0..10u64)
        .map(|n| SizeSample {
            at: hours(12 * n as i64),
            images: BTreeMap::from([(old, ByteCount(n * GB))]),
            free: ByteCount(99 * GB),
        })
        .collect();
    samples.push(SizeSample {
        at: hours(120),
        images: BTreeMap::from([(old, ByteCount(9 * GB)), (leaf, ByteCount(GB))]),
        free: ByteCount(99 * GB),
    });
    assert!((1.9..2.1).contains(&middle(&Growth::of_leaf(&samples, leaf))));
    assert!((1.9..2.1).contains(&middle(&Growth::of_leaf(&samples, old))));
    assert_eq!(Growth::of_volume(&samples).per_day().map(|band| band.p90), Some(ByteCount::ZERO));
}

#[test]
fn a_merge_takes_longer_later() {
    let mut calibration = Calibration::default();
    for n in 1..9 {
        calibration.record(MergeSample {
            bytes: n * GB,
            stretches: 100,
            seconds: n as f64 * 10.0,
            estimated_seconds: None,
            probe: false,
            mode: MergeMode::Stopped,
            guest_bytes: None,
        });
    }
    let learnt = calibration.learn().expect("taught");
    let growth = Growth::of((0..30).map(|n| (hours(24 * n), ByteCount(n as u64 * GB))));
    let work = MergeWork { bytes: 5 * GB, stretches: 100, merges: 1 };
    let (now, later) = [0.0, 10.0].map(|days| learnt.estimate_later(work, &growth, days, MergeLoad::Stopped)).into();
    assert_eq!(now, learnt.estimate(work, MergeLoad::Stopped));
    assert!((2.8..3.2).contains(&(later.p50 / now.p50)), "{now:?} {later:?}");
    assert!(later.p90 - later.p10 > 3.0 * (now.p90 - now.p10));
}

/// A history of a simulated volume, looked at now and then; then what really happens.
struct Told {
    growth: Growth,
    now: DateTime<Utc>,
    /// What was seen last.
    free: u64,
    volume: SimulatedVolume,
}

fn told(seed: u64) -> Told {
    let mut rng = Random::new(seed ^ 0xF0CA);
    let mut volume = SimulatedVolume::new(seed);
    let days = 4 + rng.below(40);
    volume.free = volume.daily * (days + 10 + rng.below(60)) as f64;
    let (mut samples, mut hour, mut next) = (Vec::new(), 0, 0);
    while hour < days * 24 {
        if hour >= next {
            samples.push((hours(hour as i64), volume.look()));
            next = hour + 1 + rng.below(30);
        }
        volume.hour();
        hour += 1;
    }
    let now = hours(hour as i64);
    let free = volume.look();
    samples.push((now, free));
    let most = samples.iter().map(|s| s.1).max().unwrap_or(0);
    let growth = Growth::of(samples.iter().map(|(at, free)| (*at, ByteCount(most - free))));
    Told { growth, now, free, volume }
}

#[test]
fn a_volume_is_never_full_before_the_safe_date() {
    let floor = 200_000_000;
    let (mut early, mut inside, mut after, mut shares) = (0, 0, 0, Vec::new());
    let mut runs = 0;
    for seed in 0..500 {
        let Told { growth, now, free, mut volume } = told(seed);
        if free < floor + volume.daily as u64 {
            continue;
        }
        runs += 1;
        let forecast = growth.uses_up(ByteCount(free - floor), now);
        let mut hour = 0;
        while volume.free > floor as f64 && hour < 24 * 400 {
            volume.hour();
            hour += 1;
        }
        let full = now + TimeDelta::hours(hour);
        let safe = forecast.safe.expect("it grows");
        assert!(safe <= full, "seed {seed}: safe {safe}, full {full}, {growth:?}");
        early += usize::from(forecast.earliest.is_some_and(|at| full < at));
        after += usize::from(forecast.late.is_some_and(|at| full > at));
        inside += usize::from(forecast.earliest.is_some_and(|at| at <= full) && forecast.late.is_none_or(|at| full <= at));
        shares.push((safe - now).as_seconds_f64() / (full - now).as_seconds_f64());
    }
    shares.sort_by(f64::total_cmp);
    println!(
        "{runs} volumes: {inside} inside, {early} before, {after} after; safe at {:.2} of the time (median)",
        shares[runs / 2]
    );
    assert!(runs >= 400, "{runs}");
    let share = inside as f64 / runs as f64;
    assert!((0.72..=0.93).contains(&share), "{share}");
    // Safe, but not by crying wolf.
    assert!(shares[runs / 2] > 0.3, "{}", shares[runs / 2]);
}
