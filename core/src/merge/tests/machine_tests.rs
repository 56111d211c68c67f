//! Whole merges of machines, on the images and manifests that the product writes: every target, crashes at any
//! step of the file system, and the rules that a machine's folder needs.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::machine::{Contents, Counted, DIR, Shape, build, clock, contents, open, runs};
use crate::disk::{self, ImageFormat};
use crate::host_file::{Access, Host};
use crate::merge::{Execution, MergeError, Merged, Rule, Rules, StepOutcome, plan, plan_into};
use crate::snapshot::{ImageId, ImageRecord, Machine, Run, Snapshot, SnapshotId};
use crate::store::MachineStore;
use crate::testing::{CrashMode, CrashPoint, MemHost, Random, for_some_crash_points};
use crate::units::ByteCount;

/// Small, so that a merge has several batches.
const BUDGET: ByteCount = ByteCount::kib(256);

/// Bytes moved, and planned for the first time, over all merges of one opening.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    moved: u64,
    planned: u64,
}

/// Any image of the run, but the same one each time; a merge that has started keeps its target.
fn choose(seed: u64, machine: &Machine, run: &Run) -> ImageId {
    let started = machine.merges.iter().find(|merge| merge.run == run.images);
    let drawn = Random::new(seed ^ run.images.last().unwrap().0.as_u64_pair().0).below(run.images.len() as u64);
    started.map_or(run.images[drawn as usize], |merge| merge.target)
}

/// Merges what is due until nothing is.
fn merge_all(store: &mut MachineStore, seed: u64, rules: Rules, tally: &mut Tally) -> Result<(), MergeError> {
    loop {
        let counted = Counted::of(store.host(), store.machine());
        let Some(run) = runs(store.machine()).into_iter().next() else { return Ok(()) };
        let target = choose(seed, store.machine(), &run);
        let plan = plan_into(&counted.facts(), &run, target)?;
        tally.planned += plan.data_bytes_to_move.0;
        let mut execution = Execution::begin_with(store, &plan, clock().now(), rules)?;
        let before = tally.moved;
        loop {
            let outcome = execution.step(store, BUDGET);
            tally.moved = before + execution.progress().moved.0;
            if let StepOutcome::Done(Merged { progress, .. }) = outcome? {
                assert_eq!(progress.moved, plan.data_bytes_to_move);
                assert_eq!(store.path(&plan.kept_file), store.image_path(*run.images.last().unwrap()).unwrap());
                break;
            }
        }
    }
}

/// Every kept image shows what it did; by name, for messages.
fn check(host: &MemHost, machine: &Machine, expected: &Contents, when: &str) {
    let found = contents(host, machine);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "other images are kept {when}");
    for (id, bytes) in found {
        let differs = bytes.iter().zip(&expected[&id]).position(|(a, b)| a != b);
        let file = machine.images[&id].file.display();
        assert!(bytes.len() == expected[&id].len() && differs.is_none(), "{file} differs {when}, first at {differs:?}");
    }
}

/// No file is left that nothing names.
fn check_files(host: &MemHost, machine: &Machine, when: &str) {
    let named: BTreeSet<PathBuf> = machine.images.values().map(|record| Path::new(DIR).join(&record.file)).collect();
    let images = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "vhdx" || extension == "avhdx");
    let found: BTreeSet<PathBuf> = host.files().into_iter().filter(images).collect();
    assert_eq!(found, named, "{when}");
    let journal = Path::new(DIR).join("journal.json");
    assert!(!host.exists(&journal), "the journal is left {when}");
}

fn shape(random: &mut Random) -> Shape {
    Shape { depth: 3 + random.below(4), uneven: random.chance(2, 3), sector: if random.chance(1, 4) { 4096 } else { 512 } }
}

#[test]
fn merges_move_what_was_planned_and_lose_nothing() {
    let mut moved = 0;
    for seed in 0..30 {
        println!("seed {seed}");
        let random = &mut Random::new(seed);
        let host = MemHost::new();
        let expected = build(&host, shape(random), random);
        let mut store = open(&host);
        let mut tally = Tally::default();
        merge_all(&mut store, seed, Rules::default(), &mut tally).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(tally.moved, tally.planned);
        moved += tally.moved;
        check(&host, store.machine(), &expected, "after the merges");
        check_files(&host, store.machine(), "after the merges");
        for record in store.machine().images.values() {
            let image = disk::open(store.host(), &store.path(&record.file), record.format, Access::Look).unwrap();
            assert_eq!(image.check().unwrap(), Vec::<String>::new(), "{}", record.file.display());
        }
        assert!(store.machine().merges.is_empty());
        drop(store);
        check(&host, open(&host).machine(), &expected, "after opening again");
    }
    assert!(moved > 5 << 20, "only {moved} bytes moved");
}

/// Cuts the merges of a random machine off at some of their steps (all, if there are no more than `points`), and goes on.
fn crash_case(seed: u64, points: u64) {
    let setup = |host: &MemHost| {
        let random = &mut Random::new(seed);
        let expected = build(host, shape(random), random);
        let mut tally = Tally::default();
        merge_all(&mut open(&host.fork()), seed, Rules::default(), &mut tally).unwrap_or_else(|error| panic!("{error}"));
        (expected, tally)
    };
    let operation = |host: &MemHost, _: &(Contents, Tally)| {
        let mut tally = Tally::default();
        // It may be cut off while it is opened, too.
        if let Ok(mut store) = MachineStore::open(&host.shared(), &clock(), Path::new(DIR)) {
            let _ = merge_all(&mut store, seed, Rules::default(), &mut tally);
        }
        tally
    };
    let check_after = |host: &MemHost, (expected, whole): &(Contents, Tally), before: Tally, _: CrashPoint| {
        let mut store = open(host);
        check(host, store.machine(), expected, "after the crash");
        let mut tally = Tally::default();
        merge_all(&mut store, seed, Rules::default(), &mut tally).unwrap_or_else(|error| panic!("{error}"));
        check(host, store.machine(), expected, "at the end");
        check_files(host, store.machine(), "at the end");
        let (moved, most) = (before.moved + tally.moved, whole.moved + BUDGET.0);
        assert!(moved <= most, "{moved} bytes were moved in all, at most {most} are right");
    };
    for_some_crash_points(seed, points, setup, operation, check_after);
}

#[test]
fn a_crash_at_any_step_loses_nothing() {
    for seed in 100..103 {
        println!("seed {seed}");
        crash_case(seed, 24);
    }
}

/// A machine whose merge into its base leaves the base's name: a base full of data, and two images read through the top.
fn two_branches(host: &MemHost) -> Contents {
    let shape = Shape { depth: 3, uneven: false, sector: 512 };
    for seed in 0..500 {
        let trial = MemHost::new();
        let expected = build(&trial, shape, &mut Random::new(seed));
        let machine = MachineStore::look(&trial.shared(), Path::new(DIR)).unwrap();
        let fits =
            |run: &Run| machine.images[&run.images[0]].parent.is_none() && children(&machine, *run.images.last().unwrap()) > 0;
        if runs(&machine).iter().any(fits) {
            assert_eq!(build(host, shape, &mut Random::new(seed)), expected);
            return expected;
        }
    }
    panic!("no seed gives such a machine");
}

fn children(machine: &Machine, image: ImageId) -> usize {
    machine.images.values().filter(|record| record.parent == Some(image)).count()
}

/// Merges into the base while, once the plan is made, another image is made that reads through the top.
fn a_child_comes_late(rules: Rules) -> Result<(), String> {
    let host = MemHost::new();
    two_branches(&host);
    let mut store = open(&host);
    let counted = Counted::of(store.host(), store.machine());
    let run = runs(store.machine()).into_iter().find(|run| store.machine().images[&run.images[0]].parent.is_none()).unwrap();
    let top = *run.images.last().unwrap();
    let plan = plan_into(&counted.facts(), &run, run.images[0]).unwrap();
    assert!(plan.relinks_children);
    let mut execution = Execution::begin_with(&mut store, &plan, clock().now(), rules).unwrap();
    execution.step(&mut store, BUDGET).unwrap();
    let (mut machine, late) = (store.machine().clone(), ImageId::new());
    let top_record = machine.images[&top].clone();
    let file = PathBuf::from("Snapshots/late.avhdx");
    let parent = disk::open(store.host(), &store.path(&top_record.file), ImageFormat::Vhdx, Access::Look).unwrap();
    disk::create_child(store.host(), &store.path(&file), &*parent, None).unwrap().freeze().unwrap();
    machine.images.insert(late, ImageRecord { file, parent: Some(top), ..top_record });
    let leaf = machine.now.images[&super::machine::disk_id()];
    let snapshot = Snapshot {
        label: "late".into(),
        note: String::new(),
        taken: machine.created,
        parent: None,
        images: [(super::machine::disk_id(), late)].into(),
        configuration: machine.configuration.clone(),
        memory: None,
        screen: None,
        protected: false,
    };
    assert_ne!(leaf, late);
    machine.snapshots.insert(SnapshotId::new(), snapshot);
    store.publish(machine).unwrap();
    let expected = contents(&host, store.machine());
    while !matches!(execution.step(&mut store, BUDGET).unwrap(), StepOutcome::Done(_)) {}
    let reads = AssertUnwindSafe(|| check(&host, store.machine(), &expected, "after the switch"));
    let opens = catch_unwind(reads);
    opens.map_err(|_| "the late child doesn't open".into())
}

#[test]
fn children_are_read_at_the_switch() {
    a_child_comes_late(Rules::default()).unwrap();
    assert!(a_child_comes_late(Rules::without(Rule::Children)).is_err());
}

/// Kills the merges of one machine at each of their last steps, which are a switch's; at how many it didn't come right.
fn switches_left_half_done(rules: Rules) -> usize {
    let prepared = MemHost::new();
    let shape = Shape { depth: 4, uneven: false, sector: 512 };
    let seed = (0..).find(|seed| {
        let trial = MemHost::new();
        build(&trial, shape, &mut Random::new(*seed));
        !runs(open(&trial).machine()).is_empty()
    });
    let seed = seed.unwrap();
    let expected = build(&prepared, shape, &mut Random::new(seed));
    let run = |host: &MemHost| {
        let mut store = MachineStore::open(&host.shared(), &clock(), Path::new(DIR))?;
        merge_all(&mut store, seed, rules, &mut Tally::default())
    };
    let whole = prepared.fork();
    run(&whole).unwrap();
    let killed_at = |step: u64| {
        let host = prepared.fork();
        host.crash_at(step);
        let _ = run(&host);
        let host = host.crash(CrashMode::Kill, 0);
        let right = AssertUnwindSafe(|| {
            let mut store = open(&host);
            merge_all(&mut store, seed, rules, &mut Tally::default()).unwrap();
            check(&host, store.machine(), &expected, "at the end");
            check_files(&host, store.machine(), "at the end");
        });
        catch_unwind(right).is_err()
    };
    (whole.steps().saturating_sub(40)..whole.steps()).filter(|step| killed_at(*step)).count()
}

#[test]
fn a_switch_is_completed_from_the_journal() {
    assert_eq!(switches_left_half_done(Rules::default()), 0);
    assert!(switches_left_half_done(Rules::without(Rule::Journal)) > 0);
}

/// Whether undelete is refused once a merge has moved something.
fn undelete_is_refused(rules: Rules) -> bool {
    for seed in 0.. {
        let host = MemHost::new();
        build(&host, Shape { depth: 4, uneven: false, sector: 512 }, &mut Random::new(seed));
        let mut store = open(&host);
        let Some(run) = runs(store.machine()).into_iter().next() else { continue };
        let counted = Counted::of(store.host(), store.machine());
        let plan = plan(&counted.facts(), &run).unwrap();
        let ghost =
            store.machine().ghosts.iter().find(|(_, ghost)| ghost.snapshot.images.values().any(|id| *id == run.images[0]));
        let Some(ghost) = ghost.map(|(id, _)| *id) else { continue };
        let mut execution = Execution::begin_with(&mut store, &plan, clock().now(), rules).unwrap();
        execution.step(&mut store, BUDGET).unwrap();
        drop(execution);
        return store.undelete(ghost).is_err();
    }
    unreachable!("some seed has a run");
}

#[test]
fn what_is_being_merged_cannot_be_undeleted() {
    assert!(undelete_is_refused(Rules::default()));
    assert!(!undelete_is_refused(Rules::without(Rule::Started)));
}
