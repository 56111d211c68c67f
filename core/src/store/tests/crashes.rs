//! Every operation, crashed at its steps: after the next open it happened or it didn't, and every node reads as it was.

use super::*;
use crate::disk;
use crate::host_file::Host;
use crate::snapshot::ImageId;
use crate::testing::{CrashMode, CrashPoint, for_some_crash_points};

/// Steps at which each operation is crashed, about.
const STEPS: u64 = 24;

#[derive(Clone)]
struct Prepared {
    a: SnapshotId,
    b: SnapshotId,
    before: BTreeMap<String, Content>,
}

/// A - B - Now, and what Now was before it went back to A in the trash.
fn setup(host: &MemHost) -> Prepared {
    let mut store = library(host).create(&new_machine(1)).unwrap();
    write(&store, 0, 1);
    let a = take(&mut store, "A");
    write(&store, 1, 2);
    let b = take(&mut store, "B");
    write(&store, 2, 3);
    store.apply(a).unwrap();
    write(&store, 3, 4);
    Prepared { a, b, before: contents(&store) }
}

fn try_open(host: &MemHost) -> Option<MachineStore> {
    MachineStore::open(&host.shared(), &clock(), Path::new("/lib/web")).ok()
}

/// Crashes an operation everywhere; `after` is what the nodes read as when it happened.
fn crash(
    seed: u64,
    prepare: impl Fn(&mut MachineStore, &Prepared),
    operation: impl Fn(&mut MachineStore, &Prepared) -> Result<()>,
    after: impl Fn(&MachineStore, &Prepared) -> BTreeMap<String, Content>,
) {
    let ready = |host: &MemHost| {
        let mut prepared = setup(host);
        let mut store = open(host);
        prepare(&mut store, &prepared);
        prepared.before = contents(&store);
        prepared
    };
    for_some_crash_points(
        seed,
        STEPS,
        ready,
        |host, prepared| try_open(host).is_some_and(|mut store| operation(&mut store, prepared).is_ok()),
        |host, prepared, done, point| {
            let store = open(host);
            check_sound(&store);
            let found = contents(&store);
            let happened = after(&store, prepared);
            assert!(found == happened || found == prepared.before && !done, "{found:?}");
            assert!(point.step != point.steps || done);
        },
    );
}

fn with(before: &BTreeMap<String, Content>, label: &str, content: &Content) -> BTreeMap<String, Content> {
    let mut after = before.clone();
    after.insert(label.into(), content.clone());
    after
}

fn without(before: &BTreeMap<String, Content>, label: &str) -> BTreeMap<String, Content> {
    let mut after = before.clone();
    after.remove(label);
    after
}

#[test]
fn taking_while_off() {
    let operation = |store: &mut MachineStore, _: &Prepared| {
        let prepared = store.prepare_take("C", "", &BTreeMap::new(), ByteCount::ZERO)?;
        store.publish_take(&prepared, None, false, store.clock().now()).map(drop)
    };
    crash(1, |_, _| (), operation, |_, p| with(&p.before, "C", &p.before["Now"]));
}

#[test]
fn applying() {
    crash(2, |_, _| (), |store, p| store.apply(p.b), |_, p| with(&p.before, "Now", &p.before["B"]));
}

#[test]
fn undoing_an_apply() {
    let mut now = vec![0; BLOCKS as usize];
    now[..3].copy_from_slice(&[1, 2, 3]);
    crash(3, |_, _| (), |store, _| store.undo_apply(), move |_, p| with(&p.before, "Now", &now));
}

#[test]
fn deleting() {
    crash(4, |_, _| (), |store, p| store.delete(&[p.b], false, false).map(drop), |_, p| without(&p.before, "B"));
    crash(5, |_, _| (), |store, p| store.delete(&[p.b], false, true).map(drop), |_, p| without(&p.before, "B"));
}

#[test]
fn undeleting() {
    let mut b = vec![0; BLOCKS as usize];
    b[..2].copy_from_slice(&[1, 2]);
    let prepare = |store: &mut MachineStore, p: &Prepared| drop(store.delete(&[p.b], false, false).unwrap());
    crash(6, prepare, |store, p| store.undelete(p.b).map(drop), move |_, p| with(&p.before, "B", &b));
}

#[test]
fn emptying_the_trash() {
    let check = |store: &MachineStore, p: &Prepared| {
        assert!(store.machine().snapshots.contains_key(&p.a));
        p.before.clone()
    };
    crash(7, |_, _| (), |store, _| store.empty_trash(true).map(drop), check);
}

#[test]
fn creating() {
    for_some_crash_points(
        8,
        STEPS,
        |host| drop(library(host)),
        |host, ()| {
            Library::open(&host.shared(), &clock(), Path::new("/lib"))
                .is_ok_and(|library| library.create(&new_machine(1)).is_ok())
        },
        |host, (), done, _| {
            let library = library(host);
            let machines = library.scan().unwrap();
            assert!(machines.problems.is_empty() && machines.machines.len() <= 1);
            if machines.machines.is_empty() {
                assert!(!done);
                library.create(&new_machine(1)).unwrap();
            }
            let store = open(host);
            check_sound(&store);
            assert_eq!(read(&store, NodeRef::Now), vec![0; BLOCKS as usize]);
        },
    );
}

/// A running machine is switched to its new leaves and goes on writing. What it flushed must be there.
#[test]
fn taking_while_running() {
    let running = |host: &MemHost, abandon: bool| -> Option<u8> {
        let mut flushed = None;
        let mut store = try_open(host)?;
        let leaf = *store.machine().now.images.get(&disk0())?;
        let images: Vec<ImageId> = Tree::of(store.machine()).chain(leaf);
        let open = |(index, id): (usize, &ImageId)| {
            let access = if index + 1 == images.len() { Access::Write } else { Access::Read };
            disk::open(&host.shared(), &store.image_path(*id).unwrap(), ImageFormat::Vhdx, access).ok()
        };
        let opened: Option<Vec<Arc<dyn Image>>> = images.iter().enumerate().map(open).collect();
        let chain = Chain::from_images(opened?).ok()?;
        let mut write = |value: u8| {
            chain.write_at(&[value; BLOCK], 5 * BLOCK as u64).ok()?;
            chain.flush().ok()?;
            flushed = Some(value);
            Some(())
        };
        let mut work = || {
            write(10)?;
            let leaves = BTreeMap::from([(disk0(), chain.images().pop()?)]);
            let prepared = store.prepare_take("C", "", &leaves, ByteCount::ZERO).ok()?;
            write(11)?;
            chain.flush().ok()?;
            chain.push_leaf(prepared.leaves[&disk0()].new.clone()).ok()?;
            write(12)?;
            write(13)?;
            if abandon {
                store.abandon_take(prepared, true).ok()?;
            } else {
                store.publish_take(&prepared, None, false, store.clock().now()).ok()?;
            }
            write(14)
        };
        let _ = work();
        flushed
    };
    for abandon in [false, true] {
        for_some_crash_points(
            9,
            40,
            setup,
            |host, _| running(host, abandon),
            |host, prepared, flushed, point: CrashPoint| {
                let store = open(host);
                check_sound(&store);
                let found = contents(&store);
                let mut block = vec![0; BLOCK];
                chain(&store, NodeRef::Now, &disk0(), Access::Look).read_at(&mut block, 5 * BLOCK as u64).unwrap();
                // A write that was under way may have happened too, or (without power) a part of it.
                let least = flushed.unwrap_or(0);
                let next = least.max(9) + 1;
                assert!(block.iter().all(|byte| [least, next].contains(byte)), "after {flushed:?}");
                assert!(found["Now"][5] != TORN || point.mode == CrashMode::PowerLoss);
                let now = block.into_iter().max().unwrap_or(0);
                match found.get("C") {
                    Some(c) => assert_eq!((c[5], abandon), (11, false)),
                    None => assert!(now < 14 || abandon),
                }
                for label in ["A", "B"] {
                    assert_eq!(found[label], prepared.before[label]);
                }
                let retained = Tree::of(store.machine()).runs().len();
                assert!(retained <= 1 && !(found.contains_key("C") && retained > 0));
            },
        );
    }
}

#[test]
fn a_take_that_is_given_up_leaves_nothing() {
    let host = MemHost::new();
    let prepared = setup(&host);
    let mut store = open(&host);
    let files = host.files();
    let machine = store.machine().clone();
    let taken = store.prepare_take("C", "", &BTreeMap::new(), ByteCount::ZERO).unwrap();
    assert!(store.delete(&[prepared.a], false, false).unwrap_err().is_refusal(), "one operation at a time");
    store.abandon_take(taken, false).unwrap();
    assert_eq!((host.files(), store.machine()), (files, &machine));
    assert!(host.list(Path::new("/lib/web/Snapshots")).unwrap().iter().all(|entry| !entry.is_dir));
    take(&mut store, "C");
}
