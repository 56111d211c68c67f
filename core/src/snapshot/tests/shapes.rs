//! What the tree says about known shapes.

use super::*;

/// Base A - B - C - Now on one disk, and a branch B - D.
fn branched() -> (World, [SnapshotId; 4]) {
    let mut world = World::new(1);
    world.write(0, 0);
    let a = world.take("A", false);
    world.write(0, 1);
    let b = world.take("B", true);
    world.write(0, 2);
    let c = world.take("C", false);
    world.apply(b);
    world.write(0, 3);
    let d = world.take("D", false);
    world.apply(c);
    (world, [a, b, c, d])
}

#[test]
fn rows_follow_time_and_hang_below_their_parents() {
    let (world, [a, b, c, d]) = branched();
    assert_eq!(world.drawn(), "0:A* 1:B* 2:C* 3:Now* 2:D");
    let tree = world.tree();
    assert_eq!(tree.children(Some(b)), [c, d]);
    assert_eq!(tree.ancestors(d), [b, a]);
    assert_eq!(tree.path_from_now(), [c, b, a]);
    assert_eq!(tree.subtree(b), [b, c, d]);
    assert_eq!(tree.chain_depth(NodeRef::Now), 4);
    assert!(tree.runs().is_empty() && tree.retained().is_empty());
}

#[test]
fn a_middle_node_with_one_reader_merges() {
    let (mut world, [a, b, ..]) = branched();
    let image = world.image(a);
    let outcome = world.delete(&[a], false);
    let run = Run { disk: DiskId("disk0".into()), images: vec![image, world.image(b)], top_kept: true };
    assert_eq!(outcome.images.len(), 1);
    assert_eq!(outcome.images[0].fate, Fate::Merges(run.clone()));
    assert_eq!(outcome.images[0].of, Some(a));
    assert_eq!(outcome.runs, std::slice::from_ref(&run));
    assert_eq!(world.tree().runs(), std::slice::from_ref(&run));
    assert_eq!(world.drawn(), "0:(A)* 1:B* 2:C* 3:Now* 2:D");
    world.merge(&run);
    assert_eq!(world.drawn(), "0:B* 1:C* 2:Now* 1:D");
    assert!(world.machine.ghosts.is_empty() && world.tree().runs().is_empty());
}

#[test]
fn a_node_with_two_readers_frees_nothing_until_one_branch_is_left() {
    let (mut world, [_, b, c, d]) = branched();
    let image = world.image(b);
    let outcome = world.delete(&[b], false);
    assert_eq!(outcome.images[0].fate, Fate::FreesNothing(vec![NodeRef::Snapshot(c), NodeRef::Snapshot(d)]));
    assert_eq!(outcome.memory.len(), 1, "its memory goes all the same");
    assert!(outcome.runs.is_empty());
    // The other branch goes: its own image frees, and the retained one becomes due. It cascades.
    let leaf = world.image(d);
    let outcome = world.delete(&[d], false);
    assert_eq!(outcome.images.len(), 2);
    assert_eq!((outcome.images[0].image, outcome.images[0].of), (image, Some(b)));
    assert!(matches!(&outcome.images[0].fate, Fate::Merges(run) if run.images[0] == image));
    assert_eq!((outcome.images[1].image, &outcome.images[1].fate), (leaf, &Fate::FreesNow));
    assert_eq!(world.tree().runs().len(), 1);
}

#[test]
fn deleting_a_leaf_frees_the_retained_image_below_it() {
    let mut world = World::new(2);
    let a = world.take("A", false);
    let b = world.take("B", false);
    world.apply(a);
    let c = world.take("C", false);
    // B's branch: delete B's only reader on it, which is B itself; nothing reads through it any more.
    let outcome = world.delete(&[b], false);
    assert!(outcome.images.iter().all(|image| image.fate == Fate::FreesNow) && outcome.images.len() == 2);
    let _ = world.delete(&[c], false);
    assert_eq!(world.tree().runs().len(), 2, "C has one reader on each disk: Now's leaf");
    assert_eq!(world.drawn(), "0:A* 1:(C)* 2:Now*");
    assert_eq!(world.tree().trashed_snapshots(), [b]);
}

#[test]
fn a_run_ends_below_an_image_that_two_read_through() {
    let mut world = World::new(1);
    let a = world.take("A", false);
    let b = world.take("B", false);
    let c = world.take("C", false);
    world.apply(b);
    let d = world.take("D", false);
    let _ = (c, d);
    let images = [world.image(a), world.image(b)];
    world.delete(&[a, b], false);
    let runs = world.tree().runs();
    assert_eq!(runs.len(), 1);
    assert_eq!((&runs[0].images[..], runs[0].top_kept), (&images[..], false));
    world.merge(&runs[0]);
    assert_eq!(world.drawn(), "0:(B)* 1:C 1:D* 2:Now*", "B's bytes are still held by two branches");
}

#[test]
fn a_broken_manifest_is_told_with_its_field() {
    let (world, [a, b, c, d]) = branched();
    let broken = |change: &dyn Fn(&mut Machine), wanted: &str| {
        let mut machine = world.machine.clone();
        change(&mut machine);
        let problems = validate(&machine).expect_err(wanted).join("; ");
        assert!(problems.contains(wanted), "{wanted:?} not in {problems:?}");
    };
    let image = world.image(a);
    broken(&|m| m.version = 2, "version: is 2");
    broken(&|m| m.format = "x".into(), "format");
    broken(&|m| m.images.get_mut(&image).unwrap().parent = Some(world.image(b)), "circle");
    broken(&|m| m.images.get_mut(&image).unwrap().parent = Some(ImageId::new()), "there is no image");
    broken(&|m| m.images.get_mut(&image).unwrap().file = "../x".into(), "stay inside");
    broken(&|m| m.images.get_mut(&image).unwrap().file = "/etc/passwd".into(), "stay inside");
    broken(&|m| m.images.get_mut(&image).unwrap().file = "machine.json".into(), "another purpose");
    broken(&|m| m.images.get_mut(&image).unwrap().file = "a\\..\\b".into(), "stay inside");
    broken(&|m| m.images.get_mut(&image).unwrap().file = m.images[&world.image(b)].file.clone(), "another image");
    broken(&|m| m.snapshots.get_mut(&a).unwrap().parent = Some(d), "circle");
    broken(&|m| m.snapshots.get_mut(&a).unwrap().label = "B".into(), "there twice");
    broken(&|m| m.snapshots.get_mut(&a).unwrap().images.clear(), "one image for each disk");
    broken(&|m| m.snapshots.get_mut(&a).unwrap().images = m.snapshots[&b].images.clone(), "content of");
    broken(&|m| m.now.images = m.snapshots[&c].images.clone(), "content of");
    broken(&|m| drop(m.snapshots.remove(&d)), "nothing reads through it");
    broken(&|m| m.configuration.disks[0].id = DiskId("../x".into()), "disk name");
    broken(&|m| m.now.parent = Some(SnapshotId::new()), "now.parent");
    broken(&|m| m.now.memory = Some(SavedMemory { file: "/x".into(), held: ByteCount::ZERO }), "now.memory");
    broken(
        &|m| {
            m.snapshots.remove(&c);
            m.snapshots.get_mut(&d).unwrap().images = m.now.images.clone();
        },
        "content of",
    );
}

#[test]
fn hardware_that_cannot_be_is_refused() {
    let mut machine = World::new(1).machine;
    machine.kind = MachineKind::Qemu;
    machine.configuration.hardware = Some(Hardware::default());
    validate(&machine).unwrap();
    machine.configuration.hardware = Some(Hardware { processors: 1 << 20, ..Hardware::default() });
    let problems = validate(&machine).unwrap_err();
    assert!(problems[0].contains("configuration: hardware: 1048576 processors"), "{problems:?}");
}
