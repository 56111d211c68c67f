//! Plans against volumes whose habits nobody is told: what was planned is carried out there.

use super::*;
use crate::cost::MergeLoad;
use crate::testing::SimulatedVolume;

/// A volume with a past, the merges that are due on it, and a plan.
struct Run {
    volume: SimulatedVolume,
    input: PlanInput,
    plan: MergePlan,
    /// What the guest of each machine that runs writes in a second.
    guests: Vec<Option<f64>>,
}

fn run(seed: u64) -> Run {
    let mut rng = Random::new(seed ^ 0x51A1);
    let mut volume = SimulatedVolume::new(seed);
    // Merges of the past: stopped ones, and live ones under some guest.
    let mut calibration = Calibration::default();
    let guest = volume.any_guest();
    for n in 0..4 + rng.below(16) {
        let (bytes, stretches) = volume.any_merge();
        let live = n % 3 == 2 && !seed.is_multiple_of(4);
        let took = volume.merge(bytes, stretches, live.then_some(guest));
        calibration.record(MergeSample {
            bytes,
            stretches,
            seconds: took.seconds,
            estimated_seconds: None,
            probe: false,
            mode: if live { MergeMode::Live } else { MergeMode::Stopped },
            guest_bytes: live.then_some(took.guest_bytes),
        });
    }
    // Sizes of the past, looked at now and then.
    let days = 5 + rng.below(30);
    volume.free = volume.daily * (days + 3 + rng.below(25)) as f64;
    let (mut sizes, mut next) = (Vec::new(), 0);
    for hour in 0..days * 24 {
        if hour >= next {
            sizes.push((now() - TimeDelta::hours((days * 24 - hour) as i64), volume.look()));
            next = hour + 1 + rng.below(20);
        }
        volume.hour();
    }
    let free = volume.look();
    sizes.push((now(), free));
    let most = sizes.iter().map(|size| size.1).max().unwrap_or(0);
    let growth = Growth::of(sizes.iter().map(|(at, free)| (*at, ByteCount(most - free))));

    let mut guests = Vec::new();
    let work = (0..1 + rng.below(4)).map(|n| {
        let (bytes, stretches) = volume.any_merge();
        let running = rng.chance(1, 2);
        guests.push(running.then_some(guest));
        let scratch = if rng.chance(1, 3) { ByteCount(free / (1 + rng.below(8))) } else { ByteCount::mib(66) };
        let option = MergeOption { bytes: ByteCount(bytes), stretches, scratch, ..option(n * 10, 1) };
        DueMerge { running, guest: running.then_some(ByteRate(guest)), options: vec![option], ..due(n, 1) }
    });
    let work: Vec<DueMerge> = work.collect();
    let mut at = 0.0;
    let occurrences = (0..2 + rng.below(5)).map(|n| {
        at += 1.0 + rng.below(40) as f64;
        let long = 0.003 + rng.below(30) as f64 / 300.0;
        let mode = if rng.chance(1, 3) { MergeMode::Stopped } else { MergeMode::Live };
        let window = Occurrence { mode, ..occurrence(n, at, at + long) };
        at += long;
        window
    });
    let mut input = input(work, occurrences.collect());
    input.volumes[0] = PlanVolume { free: ByteCount(free), growth, calibration, ..input.volumes[0].clone() };
    let plan = planned(&input);
    Run { volume, input, plan, guests }
}

/// Lets a volume live until a time (hours from now), from a time on.
fn live(volume: &mut SimulatedVolume, from: &mut f64, to: f64) {
    while *from + 1.0 <= to {
        volume.hour();
        *from += 1.0;
    }
}

#[test]
fn plans_hold_on_volumes_that_nobody_knows() {
    let (mut merges, mut inside, mut below, mut above) = (0, 0, 0, 0);
    let (mut pieces, mut paused, mut deadlines, mut refused) = (0, 0, 0, 0);
    let (mut guessed, mut guessed_inside) = (0, 0);
    for seed in 0..500 {
        let Run { volume, input, plan, guests } = run(seed);

        // What each merge really takes, as it is planned.
        for ((merge, due), guest) in plan.merges.iter().zip(&input.work).zip(&guests) {
            let is_live = merge.pieces.first().map_or(due.running, |p| p.down.is_none() && due.running);
            let took = volume.clone().merge(merge.bytes.0, due.options[0].stretches, guest.filter(|_| is_live));
            let estimate = merge.time.expect("it was taught");
            let load = if is_live { MergeLoad::Live(due.guest) } else { MergeLoad::Stopped };
            let work = crate::cost::MergeWork { bytes: took.bytes, stretches: due.options[0].stretches, merges: 1 };
            assert_eq!(Some(estimate), input.volumes[0].calibration.estimate(work, load), "as planned");
            let is_inside = (estimate.p10..=estimate.p90).contains(&took.seconds);
            if estimate.basis.is_guess() {
                guessed += 1;
                guessed_inside += usize::from(is_inside);
                continue;
            }
            merges += 1;
            inside += usize::from(is_inside);
            below += usize::from(took.seconds < estimate.p10);
            above += usize::from(took.seconds > estimate.p90);
        }

        // The plan is carried out: in each piece as much as there is time for, nothing twice, nothing that doesn't fit.
        let mut real = volume.clone();
        let mut hour = 0.0;
        let mut all: Vec<_> =
            plan.merges.iter().enumerate().flat_map(|(m, merge)| merge.pieces.iter().map(move |p| (m, p))).collect();
        all.sort_by_key(|(_, piece)| piece.start);
        let mut left: Vec<u64> = plan.merges.iter().map(|merge| merge.bytes.0).collect();
        let mut moved = vec![0; left.len()];
        for (m, piece) in all {
            live(&mut real, &mut hour, hours_until(piece.start));
            let (due, option) = (&input.work[m], &input.work[m].options[0]);
            assert!(real.free >= option.scratch.0 as f64, "seed {seed}: begun without space for it");
            pieces += 1;
            paused += usize::from(piece.resumes.is_some());
            let stretches = option.stretches * left[m] / option.bytes.0.max(1);
            let took = real.merge(left[m], stretches, guests[m].filter(|_| piece.down.is_none() && due.running));
            let window = input.occurrences.iter().find(|o| o.key == piece.occurrence).expect("it is there");
            let until = piece.down.map_or(window.end, |_| window.end - TimeDelta::seconds(180));
            let share = ((until - piece.start).as_seconds_f64() / took.seconds).min(1.0);
            let step = if piece.resumes.is_none() || share >= 1.0 { left[m] } else { (left[m] as f64 * share) as u64 };
            moved[m] += step;
            left[m] -= step;
            if left[m] == 0 {
                real.free += option.comes_back.0 as f64;
            }
        }
        for (m, merge) in plan.merges.iter().enumerate().filter(|(_, merge)| !merge.pieces.is_empty()) {
            assert_eq!(
                (moved[m], merge.bytes, merge.scratch),
                (merge.bytes.0, input.work[m].options[0].bytes, input.work[m].options[0].scratch)
            );
        }
        refused += plan.merges.iter().filter(|m| matches!(m.verdict, Verdict::WontFitInFreeSpace { .. })).count();

        // Nothing is merged: the volume is never short before the deadline.
        let mut real = volume.clone();
        let mut hour = 0.0;
        let needs = |due: &DueMerge| due.options[0].scratch.max(input.volumes[0].floor).0 as f64;
        let mut open: Vec<usize> = (0..input.work.len()).collect();
        while !open.is_empty() && hour < 24.0 * 300.0 {
            open.retain(|&m| {
                let is_short = real.free < needs(&input.work[m]);
                if is_short {
                    let deadline = plan.merges[m].deadline.expect("it fills");
                    assert!(deadline <= after(hour), "seed {seed}: deadline {deadline}, short at {}", after(hour));
                    deadlines += 1;
                }
                !is_short
            });
            real.hour();
            hour += 1.0;
        }

        // Less free space never gives a later deadline.
        let mut before: Vec<Option<DateTime<Utc>>> = plan.merges.iter().map(|m| m.deadline).collect();
        for share in [0.8, 0.5, 0.2, 0.0] {
            let mut less = input.clone();
            less.volumes[0].free = ByteCount((less.volumes[0].free.0 as f64 * share) as u64);
            let deadlines: Vec<_> = planned(&less).merges.iter().map(|m| m.deadline).collect();
            for (less, more) in deadlines.iter().zip(&before) {
                assert!(less.is_some() >= more.is_some() && (more.is_none() || less <= more), "seed {seed}: {less:?} {more:?}");
            }
            before = deadlines;
        }
    }
    let share = inside as f64 / merges as f64;
    println!(
        "{merges} merges: {share:.3} inside, {below} quicker, {above} slower; of {guessed} guesses {guessed_inside} inside;\n\
         {pieces} pieces, {paused} paused, none without space; {refused} merges didn't fit; 0 of {deadlines} deadlines too late"
    );
    assert!((0.72..=0.90).contains(&share), "{share}");
    assert!(merges > 900 && pieces > 600 && paused > 20 && refused > 20 && deadlines > 1000, "the runs say something");
}
