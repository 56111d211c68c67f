//! Operations, their undoing, and why not.

use super::*;

#[test]
fn undelete_puts_everything_back_as_it_was() {
    let mut world = World::new(2);
    let a = world.take("A", true);
    world.write(1, 1);
    let b = world.take("B", true);
    let c = world.take("C", false);
    world.apply(a);
    let before = world.machine.clone();
    for (selection, subtree) in [(vec![a], false), (vec![a], true), (vec![b], false), (vec![b, c], false), (vec![c], false)] {
        world.delete(&selection, subtree);
        assert!(world.machine != before);
        world.undelete(selection[0]);
        assert_eq!(world.machine, before);
    }
}

#[test]
fn deletions_may_be_taken_back_in_any_order() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for back in [[0, 1, 2], [1, 2, 0], [2, 1, 0]] {
            let mut world = World::new(1);
            let nodes = ["A", "B", "C"].map(|label| {
                world.write(0, label.as_bytes()[0]);
                world.take(label, true)
            });
            let before = world.drawn();
            for index in order {
                world.delete(&[nodes[index]], false);
            }
            assert_eq!(world.drawn(), "0:(A)* 1:(B)* 2:(C)* 3:Now*");
            for index in back {
                world.undelete(nodes[index]);
            }
            assert_eq!(world.drawn(), before, "deleted {order:?}, back {back:?}");
            assert!(world.machine.trash.is_empty());
        }
    }
}

#[test]
fn an_apply_can_be_undone_and_done_again() {
    let mut world = World::new(2);
    world.write(0, 1);
    let a = world.take("A", true);
    world.write(0, 2);
    world.apply(a);
    assert_eq!(world.machine.now.memory, world.machine.snapshots[&a].memory);
    world.write(1, 7);
    world.undo_apply();
    assert!(world.machine.applied.as_ref().unwrap().undo);
    world.undo_apply();
    assert_eq!(world.machine.trash.len(), 2, "one leaf of each disk");
    // The snapshot goes meanwhile; its image is the parent of both.
    world.delete(&[a], false);
    world.undo_apply();
    assert_eq!(world.drawn(), "0:(A)* 1:Now*");
    world.undelete(a);
    assert_eq!(world.drawn(), "0:A* 1:Now*");
}

#[test]
fn memory_that_now_continues_from_outlives_its_snapshot() {
    let mut world = World::new(1);
    let a = world.take("A", true);
    world.apply(a);
    let file = world.machine.now.memory.clone().unwrap().file;
    let outcome = world.delete(&[a], false);
    assert!(outcome.memory.is_empty(), "Now still needs it");
    assert!(!world.machine.trash.iter().any(|item| item.original == file));
    let change = clear_memory(&world.machine);
    assert_eq!(change.removes, [file]);
    world.follow(change);
    let stamp = world.stamp();
    let saved = SavedMemory { file: "Snapshots/x/memory.saved".into(), held: ByteCount::mib(1) };
    world.follow(save_memory(&world.machine, saved.clone()));
    let b = world.take("B", true);
    assert_eq!(world.machine.now.memory.as_ref(), Some(&saved));
    world.apply(b);
    assert!(world.machine.trash.iter().any(|item| item.original == saved.file), "it can come back");
    world.undo_apply();
    assert_eq!(world.machine.now.memory, Some(saved));
    drop(stamp);
}

#[test]
fn nothing_of_a_started_merge_can_be_undone() {
    let mut world = World::new(1);
    let a = world.take("A", true);
    let b = world.take("B", false);
    world.apply(a);
    world.take("C", false);
    world.delete(&[b], false);
    world.delete(&[a], false);
    assert!(world.machine.applied.is_some());
    let run = world.tree().runs().remove(0);
    let doomed: Vec<_> = doomed_by_merge(&world.machine, &run.images).into_iter().map(|item| item.reason).collect();
    assert_eq!(doomed.len(), 3, "B's image, Now's leaf before the apply, A's picture: {doomed:?}");
    let record = MergeRecord {
        disk: run.disk.clone(),
        run: run.images.clone(),
        target: run.images[0],
        new_ids: BTreeMap::new(),
        started: world.time,
        planned: ByteCount::ZERO,
    };
    let change = begin_merge(&world.machine, record);
    assert_eq!(change.removes.len(), doomed.len());
    world.follow(change);
    for id in [a, b] {
        let why = rules::undelete(&world.machine, &Context::default(), id).unwrap_err();
        assert!(!why.reason.is_empty() && !why.remedy.is_empty());
    }
    assert!(rules::undo_apply(&world.machine, &Context::default()).is_err());
    assert_eq!(world.drawn(), "0:(A)* 1:C* 2:Now*");
}

#[test]
fn what_is_emptied_from_the_trash_is_gone() {
    let mut world = World::new(1);
    let a = world.take("A", true);
    let b = world.take("B", true);
    world.apply(a);
    world.delete(&[b], false);
    let early = world.time;
    world.delete(&[a], false);
    let change = empty_trash(&world.machine, TrashSelection::Before(early));
    assert!(!change.removes.is_empty() && change.removes.iter().all(|file| file.starts_with("Deleted")));
    world.follow(change);
    assert!(world.machine.ghosts.contains_key(&b), "it went there at that time, not before");
    world.follow(empty_trash(&world.machine, TrashSelection::All));
    assert!(world.machine.trash.is_empty() && !world.machine.ghosts.contains_key(&b) && world.machine.applied.is_none());
    // A's image is still read through, so it can come back; its memory was needed by Now and stays.
    world.undelete(a);
    assert!(world.machine.snapshots[&a].memory.is_some() && world.machine.snapshots[&a].screen.is_none());
}

#[test]
fn freeing_at_once_leaves_nothing_in_the_trash() {
    let mut world = World::new(1);
    let a = world.take("A", true);
    let b = world.take("B", true);
    world.apply(a);
    let trash = world.machine.trash.len();
    let files: Vec<_> =
        world.machine.snapshots[&b].images.values().map(|image| world.machine.images[image].file.clone()).collect();
    let stamp = world.stamp();
    let change = delete(&world.machine, &[b], false, true, &stamp);
    assert!(change.moves.is_empty() && files.iter().all(|file| change.removes.contains(file)) && change.removes.len() == 3);
    world.follow(change);
    // Now's leaf before the apply read through B: it stays in the trash, but the apply can't be undone.
    assert_eq!((world.machine.trash.len(), world.machine.ghosts.len()), (trash, 0));
    assert!(world.machine.applied.is_none());
}

#[test]
fn a_failed_take_leaves_a_correct_chain_and_no_node() {
    let mut world = World::new(2);
    world.take("A", false);
    world.write(0, 3);
    let leaves = world.leaves(world.machine.now.images.clone());
    world.follow(keep_on_new_leaves(&world.machine, leaves));
    world.write(0, 4);
    assert_eq!(world.drawn(), "0:A* 1:Now*");
    let runs = world.tree().runs();
    assert_eq!(runs.len(), 2);
    for run in runs {
        world.merge(&run);
    }
    world.check();
}

#[test]
fn each_no_says_why_and_what_would_help() {
    let mut world = World::new(1);
    let a = world.take("A", false);
    let free = Context::default();
    let busy = Context { job_under_way: true, ..free };
    let foreign = Context { read_only: true, ..free };
    let running = Context { power: PowerState::Running, ..free };
    let m = &world.machine;
    let unknown = SnapshotId::new();
    let no = |verdict: rules::Verdict, wanted: &str| {
        let why = verdict.expect_err(wanted);
        assert!(why.to_string().contains(wanted), "{why}");
        assert!(why.reason.ends_with('.') && why.remedy.ends_with('.'), "{why:?}");
    };
    no(rules::take(m, &busy, None), "job");
    no(rules::take(m, &foreign, None), "only looked at");
    no(rules::take(m, &free, Some("A")), "already");
    no(rules::take(m, &free, Some(" ")), "empty");
    no(rules::apply(m, &free, unknown), "exist");
    no(rules::undo_apply(m, &free), "no apply");
    no(rules::delete(m, &free, &[], false), "selected");
    no(rules::undelete(m, &free, a), "deleted");
    no(rules::rename(m, &free, a, Some("x\ny")), "control");
    no(rules::merge(m, &free, None), "due");
    no(rules::empty_trash(m, &free), "empty");
    no(rules::remove(m, &running, false), "running");
    no(rules::remove(m, &foreign, true), "only looked at");
    assert!(rules::rename(m, &free, a, Some("A")).is_ok(), "its own label is free for it");
    assert!(rules::take(m, &running, Some("B")).is_ok() && rules::delete(m, &running, &[a], false).is_ok());

    let mut deep = world.machine.clone();
    deep.settings.max_depth = 2;
    no(rules::take(&deep, &free, None), "at most 2");
    world.follow(edit(&world.machine, a, |node| node.protected = true));
    no(rules::delete(&world.machine, &free, &[a], false), "protected");
    no(rules::remove(&world.machine, &free, true), "protected");
    world.follow(edit(&world.machine, a, |node| node.protected = false));
    world.delete(&[a], false);
    no(rules::merge(&world.machine, &free, Some(&DiskId("disk9".into()))), "due");
    assert!(rules::merge(&world.machine, &free, None).is_ok() && rules::merge(&world.machine, &running, None).is_ok());
}

#[test]
fn a_label_that_was_taken_meanwhile_gets_a_number() {
    let mut world = World::new(1);
    let a = world.take("A", false);
    world.delete(&[a], false);
    world.take("A", false);
    world.undelete(a);
    assert_eq!(world.machine.snapshots[&a].label, "A (2)");
}
