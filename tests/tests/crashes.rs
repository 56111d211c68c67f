//! Every operation on a machine's folder, cut off at every single step of it (each write, flush, rename, removal and
//! hole), by a kill and by losses of power that lose, keep and tear what wasn't flushed. Then the machine is opened as the
//! program does it (in some cases that is cut off too): the operation happened or it didn't, every kept node reads as it
//! did, byte for byte, and no file is left over. Each prints how many points it was cut off at.
//!
//! Operations of many steps are cut off at some of them, which a seed draws; with `SNAPTREE_EVERY_STEP=1`, at every one:
//! that takes less than five minutes of processor time.

use std::path::Path;

use snaptree_core::chain::{Chain, Gate};
use snaptree_core::disk::ImageFormat;
use snaptree_core::host_file::{Access, Host};
use snaptree_core::merge::complete_switch;
use snaptree_core::snapshot::{NodeRef, Tree};
use snaptree_core::store::{ImportRequest, MachineStore};
use snaptree_core::testing::{CrashMode, CrashPoint, EveryStep, MemHost, Random};
use snaptree_core::units::ByteCount;
use snaptree_tests::content::Content;
use snaptree_tests::lab::{self, Contents, FOREIGN, Moved, NOW, Shape};

/// Small, so that a merge has several batches.
const BUDGET: ByteCount = ByteCount::kib(256);

const EVEN: Shape =
    Shape { format: ImageFormat::Vhdx, sectors: 12_291, sector: 512, blocks: &[2, 1, 2, 1, 2], fixed: false, grows: 0 };
const UNEVEN: Shape =
    Shape { format: ImageFormat::Vhdx, sectors: 6_001, sector: 512, blocks: &[1, 2, 1, 2, 1], fixed: true, grows: 700 };
const LARGE: Shape =
    Shape { format: ImageFormat::Vhdx, sectors: 69_632, sector: 512, blocks: &[32, 2, 32, 1, 2], fixed: false, grows: 0 };
const COARSE: Shape =
    Shape { format: ImageFormat::Vhdx, sectors: 1_537, sector: 4096, blocks: &[2, 2, 1, 2], fixed: false, grows: 0 };
/// The same as VHD.
const VHD: Shape = Shape { format: ImageFormat::Vhd, ..EVEN };
const VHD_UNEVEN: Shape = Shape { format: ImageFormat::Vhd, ..UNEVEN };
const VHD_LARGE: Shape = Shape { format: ImageFormat::Vhd, ..LARGE };

fn every_step(name: &str, seed: u64, least_steps: u64) -> EveryStep<'_> {
    let every = std::env::var_os("SNAPTREE_EVERY_STEP").is_some();
    let (power_losses, most_points) = if every { (3, u64::MAX) } else { (2, 30) };
    EveryStep { name, seed, power_losses, least_steps, most_points }
}

fn open_again(host: &MemHost, point: CrashPoint) -> (MemHost, MachineStore) {
    let host = lab::recover(host, point, true);
    let store = lab::open(&host).unwrap_or_else(|error| panic!("it doesn't open: {error}"));
    lab::check_folder(&store);
    (host, store)
}

/// What an operation starts from: what was before it, and what is after it.
struct Case {
    before: Contents,
    after: Contents,
}

/// Crashes an operation of a machine that is off at every step.
fn crash(
    every: EveryStep<'_>,
    shape: &Shape,
    prepare: impl FnOnce(&mut MachineStore, Contents) -> Case,
    operation: impl Fn(&mut MachineStore) -> Result<(), String>,
) {
    every.crash(
        |host| {
            let contents = lab::make_machine(host, shape, every.seed);
            let mut store = lab::open(host).expect("a machine");
            let case = prepare(&mut store, contents);
            assert_eq!(lab::difference(&store, &case.before), None, "before");
            case
        },
        |host, _| match lab::open(host) {
            Ok(mut store) => operation(&mut store).is_ok(),
            Err(_) => false,
        },
        |host, case, done, point| {
            let (_host, mut store) = open_again(host, point);
            let not_after = lab::difference(&store, &case.after);
            if let Some(not_after) = not_after {
                assert!(!done, "it was done, but {not_after}");
                let not_before = lab::difference(&store, &case.before);
                assert_eq!(not_before, None, "it neither happened ({not_after}) nor didn't");
                if point.mode == CrashMode::Kill {
                    operation(&mut store).unwrap_or_else(|error| panic!("it can't be done afterwards: {error}"));
                    assert_eq!(lab::difference(&store, &case.after), None, "done once more");
                    lab::check_folder(&store);
                }
            }
            assert!(*done || point.step < point.steps);
        },
    );
}

fn text<T>(result: snaptree_core::store::Result<T>) -> Result<(), String> {
    result.map(drop).map_err(|error| error.to_string())
}

fn with(contents: &Contents, label: &str, content: Content) -> Contents {
    let mut contents = contents.clone();
    contents.insert(label.into(), content);
    contents
}

fn without(contents: &Contents, label: &str) -> Contents {
    let mut contents = contents.clone();
    contents.remove(label);
    contents
}

/// Writes to Now, and flushes.
fn write_now(store: &MachineStore, contents: &mut Contents, seed: u64) {
    let chain = lab::chain(store, NodeRef::Now, Access::Write).expect("Now's disk");
    let now = contents.get_mut(NOW).expect("Now");
    let random = &mut Random::new(seed);
    for _ in 0..6 {
        let (offset, length) = (random.below(now.size() / 4096) * 4096, 4096);
        if random.chance(1, 3) {
            chain.write_zeroes(offset, length).expect("zeroed");
            now.zero(offset, length);
        } else {
            let bytes = random.bytes(length as usize);
            chain.write_at(&bytes, offset).expect("written");
            now.write(&bytes, offset);
        }
    }
    chain.flush().expect("flushed");
}

fn take(store: &mut MachineStore, label: &str) -> Result<(), String> {
    let taken = store.clock().now();
    let prepared = store.prepare_take(label, "", &Default::default(), ByteCount::ZERO).map_err(|error| error.to_string())?;
    text(store.publish_take(&prepared, None, false, taken))
}

#[test]
fn a_take() {
    for (shape, seed) in [(&EVEN, 1), (&COARSE, 2), (&LARGE, 3), (&VHD, 41)] {
        let prepare = |store: &mut MachineStore, mut before: Contents| {
            write_now(store, &mut before, seed);
            Case { after: with(&before, "new", before[NOW].clone()), before }
        };
        crash(every_step("take", seed, 25), shape, prepare, |store| take(store, "new"));
    }
}

#[test]
fn an_apply_and_its_undoing() {
    let changed = |store: &mut MachineStore, mut before: Contents| {
        write_now(store, &mut before, 4);
        Case { after: with(&before, NOW, before["x1"].clone()), before }
    };
    crash(every_step("apply", 4, 25), &EVEN, changed, |store| text(store.apply(lab::labelled(store, "x1"))));
    let applied = |store: &mut MachineStore, mut contents: Contents| {
        write_now(store, &mut contents, 5);
        store.apply(lab::labelled(store, "x2")).expect("applied");
        let mut before = with(&contents, NOW, contents["x2"].clone());
        write_now(store, &mut before, 6);
        Case { before, after: contents }
    };
    crash(every_step("undo apply", 5, 12), &UNEVEN, applied, |store| text(store.undo_apply()));
}

#[test]
fn deleting_and_undeleting() {
    // x3 is read through by Now alone, y by nothing.
    let branched = |store: &mut MachineStore, contents: Contents| {
        store.apply(lab::labelled(store, "x1")).expect("applied");
        let mut contents = with(&contents, NOW, contents["x1"].clone());
        write_now(store, &mut contents, 7);
        take(store, "y").expect("taken");
        contents.insert("y".into(), contents[NOW].clone());
        store.apply(lab::labelled(store, "x3")).expect("applied");
        contents.insert(NOW.into(), contents["x3"].clone());
        contents
    };
    for (name, free_now, least) in [("delete", false, 8), ("delete and free", true, 8)] {
        let prepare = |store: &mut MachineStore, contents: Contents| {
            let before = branched(store, contents);
            Case { after: without(&before, "y"), before }
        };
        let operation = |store: &mut MachineStore| text(store.delete(&[lab::labelled(store, "y")], false, free_now));
        crash(every_step(name, 7, least), &EVEN, prepare, operation);
    }
    let prepare = |store: &mut MachineStore, contents: Contents| {
        let before = branched(store, contents);
        let mut after = before.clone();
        after.retain(|label, _| !["x2", "x3", "y"].contains(&label.as_str()));
        Case { before, after }
    };
    let subtree = |store: &mut MachineStore| {
        let both = [lab::labelled(store, "x2"), lab::labelled(store, "y")];
        text(store.delete(&both, true, false))
    };
    crash(every_step("delete a subtree", 8, 8), &UNEVEN, prepare, subtree);
    let prepare = |store: &mut MachineStore, contents: Contents| {
        let contents = branched(store, contents);
        let both = [lab::labelled(store, "x2"), lab::labelled(store, "y")];
        store.delete(&both, true, false).expect("deleted");
        let mut before = contents.clone();
        before.retain(|label, _| !["x2", "x3", "y"].contains(&label.as_str()));
        Case { before, after: contents }
    };
    let undelete = |store: &mut MachineStore| {
        let ghost = store.machine().ghosts.iter().find(|(_, ghost)| ghost.snapshot.label == "y").map(|(id, _)| *id);
        text(store.undelete(ghost.ok_or("it isn't deleted")?))
    };
    crash(every_step("undelete", 8, 8), &UNEVEN, prepare, undelete);
}

#[test]
fn emptying_the_trash() {
    let prepare = |store: &mut MachineStore, contents: Contents| {
        store.apply(lab::labelled(store, "x1")).expect("applied");
        let mut contents = with(&contents, NOW, contents["x1"].clone());
        let upper = [lab::labelled(store, "x2")];
        store.delete(&upper, true, false).expect("deleted");
        contents.retain(|label, _| !["x2", "x3"].contains(&label.as_str()));
        assert_eq!(store.trash_files().len(), 3, "x2, x3, and what Now was");
        Case { before: contents.clone(), after: contents }
    };
    crash(every_step("empty the trash", 9, 8), &EVEN, prepare, |store| {
        text(store.empty_trash(true))?;
        let left = store.host().list(&store.path(Path::new("Deleted"))).map_err(|error| error.to_string())?;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} are left")) }
    });
}

#[test]
fn growing_a_disk() {
    for (shape, seed, by) in
        [(&EVEN, 10, 5 << 20), (&LARGE, 11, 40 << 20), (&UNEVEN, 12, 512), (&VHD, 42, 5 << 20), (&VHD_UNEVEN, 43, 512)]
    {
        let size = (shape.sectors + shape.grows * (shape.blocks.len() as u64 - 1)) * u64::from(shape.sector);
        let larger = (size + by).next_multiple_of(4096);
        let prepare = |store: &mut MachineStore, mut before: Contents| {
            write_now(store, &mut before, seed);
            let mut now = before[NOW].clone();
            now.resize(larger);
            Case { after: with(&before, NOW, now), before }
        };
        crash(every_step("resize", seed, 15), shape, prepare, |store| text(store.resize(&lab::disk0(), ByteCount(larger))));
    }
}

/// Images of others are copied in, or adopted: moved. The machine is whole then, or isn't there and the originals are. A
/// move removes them once the machine is whole, what reads through others first.
#[test]
fn importing() {
    for (name, moves, branches, seed, shape) in [
        ("import", false, false, 13, &EVEN),
        ("adopt, by moving", true, false, 14, &UNEVEN),
        ("adopt a folder with branches, by moving", true, true, 15, &COARSE),
        ("adopt a folder of VHDs with branches, by moving", true, true, 44, &VHD_UNEVEN),
    ] {
        let request = || ImportRequest { path: FOREIGN.into(), name: lab::NAME.into(), remove_originals: moves, computer: None };
        let file_of = |label: &str| {
            Path::new(FOREIGN).join(format!(
                "{label}.{}",
                if label == "x0" { shape.format.extension() } else { shape.format.child_extension() }
            ))
        };
        every_step(name, seed, 60).crash(
            |host| {
                // By the name of its file.
                let contents = lab::make_foreign(host, shape, seed).into_iter().enumerate();
                let mut contents: Contents = contents.map(|(place, content)| (format!("x{place}"), content)).collect();
                if branches {
                    let content = lab::add_foreign(host, shape.format, "x1", "y", &contents["x1"], seed);
                    contents.insert("y".into(), content);
                }
                drop(lab::library(host).expect("a library"));
                let last = format!("x{}", shape.blocks.len() - 1);
                (contents, last)
            },
            |host, _| lab::library(host).is_ok_and(|library| library.import(&request(), &mut |_, _| true).is_ok()),
            |host, (contents, last), done, point| {
                let host = lab::recover(host, point, true);
                let library = lab::library(&host).unwrap_or_else(|error| panic!("{error}"));
                let found = library.scan().expect("a list");
                assert_eq!(found.problems, Vec::<String>::new());
                let is_there = !found.machines.is_empty();
                assert!(is_there || !done);
                for (label, content) in contents {
                    let path = file_of(label);
                    if moves && is_there && !host.exists(&path) {
                        continue;
                    }
                    let chain = Chain::open(&host.shared(), &path, Access::Look, &Gate::new([FOREIGN.into()]));
                    let chain = chain.unwrap_or_else(|error| panic!("the original: {error}"));
                    assert_eq!(content.difference(&chain), None, "the original");
                }
                if !is_there {
                    drop(library.import(&request(), &mut |_, _| true).unwrap_or_else(|error| panic!("{error}")));
                }
                let store = lab::open(&host).unwrap_or_else(|error| panic!("{error}"));
                lab::check_folder(&store);
                let mut contents = contents.clone();
                let now = contents.remove(last).expect("the last one");
                assert_eq!(lab::difference(&store, &with(&contents, NOW, now)), None);
                if moves && (!is_there || point.step == point.steps) {
                    assert_eq!(host.list(Path::new(FOREIGN)).expect("a list"), [], "it was moved");
                }
                let inside = host.list(Path::new(lab::LIBRARY)).expect("a list");
                assert!(inside.iter().all(|entry| !entry.is_dir || entry.name == lab::NAME), "{inside:?}");
            },
        );
    }
}

/// Deletes all but the last of the snapshots: a run of four that ends in x3, which Now reads through.
fn make_run(host: &MemHost, shape: &Shape, seed: u64) -> Contents {
    let mut contents = lab::make_machine(host, shape, seed);
    let mut store = lab::open(host).expect("a machine");
    let last = shape.blocks.len() - 2;
    for place in 0..last {
        let label = format!("x{place}");
        let snapshot = lab::labelled(&store, &label);
        store.delete(&[snapshot], false, false).expect("deleted");
        contents.remove(&label);
    }
    let runs = Tree::of(store.machine()).runs();
    assert!(runs.len() == 1 && runs[0].images.len() == last + 1, "{runs:?}");
    contents
}

fn merge(every: EveryStep<'_>, shape: &Shape, place: usize) {
    every.crash(
        |host| {
            let contents = make_run(host, shape, every.seed);
            let (fork, mut moved) = (host.fork(), Moved::default());
            lab::merge_all(&mut lab::open(&fork).expect("a machine"), place, BUDGET, &mut moved).expect("merged");
            assert_eq!(moved.moved, moved.planned);
            assert!(moved.moved > BUDGET.0, "only {} bytes moved", moved.moved);
            (contents, moved)
        },
        |host, _| {
            let mut moved = Moved::default();
            let done = lab::open(host).is_ok_and(|mut store| lab::merge_all(&mut store, place, BUDGET, &mut moved).is_ok());
            (moved.moved, done)
        },
        |host, (contents, whole), (before, done), point| {
            let (host, mut store) = open_again(host, point);
            assert_eq!(lab::difference(&store, contents), None, "after the crash");
            let mut moved = Moved::default();
            lab::merge_all(&mut store, place, BUDGET, &mut moved).unwrap_or_else(|error| panic!("{error}"));
            assert!(Tree::of(store.machine()).runs().is_empty() && (moved.moved == 0 || !done));
            drop(store);
            let store = lab::open(&host).unwrap_or_else(|error| panic!("{error}"));
            lab::check_folder(&store);
            assert_eq!(lab::difference(&store, contents), None, "at the end");
            let (all, most) = (before + moved.moved, whole.moved + BUDGET.0);
            assert!(all <= most, "{all} bytes were moved in all, at most {most} are right");
        },
    );
}

#[test]
fn a_merge_into_the_lowest() {
    merge(every_step("merge into the lowest", 20, 120), &EVEN, 0);
    merge(every_step("merge into the lowest, fixed", 21, 100), &UNEVEN, 0);
}

#[test]
fn a_merge_into_one_in_the_middle() {
    merge(every_step("merge into the middle", 22, 120), &EVEN, 1);
    merge(every_step("merge into the middle, sizes differ", 23, 100), &UNEVEN, 2);
}

#[test]
fn a_merge_into_the_topmost() {
    merge(every_step("merge into the topmost", 24, 120), &EVEN, 3);
    merge(every_step("merge into the topmost, coarse sectors", 25, 80), &COARSE, 2);
}

#[test]
fn a_merge_of_large_blocks() {
    merge(every_step("merge of large blocks", 26, 80), &LARGE, 1);
}

#[test]
fn a_merge_of_vhds() {
    merge(every_step("merge of VHDs into the lowest", 50, 120), &VHD, 0);
    merge(every_step("merge of VHDs into the lowest, fixed", 51, 100), &VHD_UNEVEN, 0);
    merge(every_step("merge of VHDs into the middle", 52, 120), &VHD, 1);
    merge(every_step("merge of VHDs into the middle, sizes differ", 53, 100), &VHD_UNEVEN, 2);
    merge(every_step("merge of VHDs into the topmost", 54, 120), &VHD, 3);
    merge(every_step("merge of VHDs of large blocks", 55, 80), &VHD_LARGE, 1);
}

/// The last step of a merge alone: the journal names it, and nothing of it is done yet.
#[test]
fn a_switch() {
    for (name, shape, place, least) in [
        ("switch to the lowest", &EVEN, 0, 15),
        ("switch to the middle", &EVEN, 1, 15),
        ("switch to the topmost", &EVEN, 3, 8),
        ("switch of VHDs to the lowest", &VHD, 0, 15),
        ("switch of VHDs to the middle", &VHD, 1, 15),
        ("switch of VHDs to the topmost", &VHD, 3, 8),
    ] {
        let seed = 30 + place as u64;
        let run = |host: &MemHost| {
            lab::open(host)
                .is_ok_and(|mut store| lab::merge_all(&mut store, place, ByteCount::mib(64), &mut Moved::default()).is_ok())
        };
        // Durably: whatever a loss of power makes of it.
        let is_pending = |host: &MemHost| {
            let found = |seed| host.crash(CrashMode::PowerLoss, seed);
            let open = |host: MemHost| MachineStore::open(&host.shared(), &lab::clock(), &lab::folder());
            (0..8).all(|seed| open(found(seed)).is_ok_and(|store| store.pending_switch().is_some()))
        };
        every_step(name, seed, least).crash(
            |host| {
                let contents = make_run(host, shape, seed);
                let whole = host.fork();
                assert!(run(&whole));
                // The first step before which the switch is left to be done.
                let killed_before = |step| {
                    let fork = host.fork();
                    fork.crash_at(step);
                    run(&fork);
                    fork.crash(CrashMode::Kill, 0)
                };
                let begun = (0..=whole.steps()).rev().map(killed_before).skip_while(|host| !is_pending(host));
                let begun = begun.take_while(is_pending).last().expect("a switch");
                assert!(!is_pending(&whole));
                host.become_like(&begun);
                contents
            },
            |host, _| {
                let store = MachineStore::open(&host.shared(), &lab::clock(), &lab::folder());
                store.is_ok_and(|mut store| complete_switch(&mut store).is_ok())
            },
            |host, contents, done, point| {
                assert!(*done || point.step < point.steps);
                let (_host, mut store) = open_again(host, point);
                assert_eq!(lab::difference(&store, contents), None);
                assert!(Tree::of(store.machine()).runs().is_empty(), "the switch is to be completed by opening");
                take(&mut store, "it goes on").unwrap_or_else(|error| panic!("{error}"));
            },
        );
    }
}
