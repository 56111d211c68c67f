//! A machine that is off.

use std::time::Duration;

use super::{Bench, quick};
use crate::engine::{Answer, Command, Import, ImportMode, JobAction, JobKind, JobPhase, Mode, Plan, Power, RefusalKind};
use crate::snapshot::Tree;
use crate::testing::{CrashMode, MemHost};
use crate::units::{ByteCount, ByteRate};

const DISKS: [ByteCount; 2] = [ByteCount::mib(24), ByteCount::mib(8)];

#[test]
fn take_apply_branch_delete_and_merge_keep_every_node() {
    let mut bench = Bench::new();
    let machine = bench.create("m", ByteCount::mib(16), &DISKS, quick());
    bench.work(machine, 300);
    let first = bench.take(machine, "first", false);
    bench.work(machine, 300);
    let second = bench.take(machine, "second", false);
    bench.work(machine, 300);
    let third = bench.take(machine, "third", false);
    bench.work(machine, 100);
    let was_first = bench.content(machine, Some(first));
    let was_third = bench.content(machine, Some(third));
    assert_ne!(was_first, was_third);
    bench.done(Command::Apply { machine, snapshot: first, safety: None });
    assert_eq!(bench.content(machine, None), was_first);
    bench.work(machine, 200);
    let branch = bench.take(machine, "branch", false);
    let was_branch = bench.content(machine, Some(branch));
    // The second is what the third reads through, and nobody else: a merge is due.
    bench.done(Command::Delete { machine, snapshots: vec![second], subtree: false, free_now: false });
    let state = bench.state(machine);
    assert!(state.machine.ghosts.contains_key(&second));
    assert_eq!(Tree::of(&state.machine).runs().len(), DISKS.len());
    bench.done(Command::Merge { machine, disk: None, limit: None, until: None });
    let state = bench.state(machine);
    assert!(state.machine.ghosts.is_empty(), "nothing of the second is left");
    assert!(Tree::of(&state.machine).runs().is_empty());
    assert_eq!(bench.content(machine, Some(first)), was_first);
    assert_eq!(bench.content(machine, Some(third)), was_third);
    assert_eq!(bench.content(machine, Some(branch)), was_branch);
    for at in [Some(first), Some(third), Some(branch), None] {
        assert!(bench.verify(machine, at).disk > ByteCount::ZERO);
    }
    let merged = bench.jobs.iter().rfind(|job| job.kind == JobKind::Merge).expect("a merge was told of");
    assert_eq!(merged.done, merged.total);
}

#[test]
fn a_deletion_and_an_apply_can_be_taken_back() {
    let mut bench = Bench::new();
    let machine = bench.create("m", ByteCount::mib(16), &DISKS[..1], quick());
    bench.work(machine, 200);
    let first = bench.take(machine, "first", false);
    bench.work(machine, 200);
    let second = bench.take(machine, "second", false);
    bench.work(machine, 200);
    let (was_second, was_now) = (bench.content(machine, Some(second)), bench.content(machine, None));
    bench.done(Command::Delete { machine, snapshots: vec![second], subtree: false, free_now: false });
    bench.done(Command::Undelete { machine, snapshot: second });
    assert_eq!(bench.content(machine, Some(second)), was_second);
    bench.done(Command::Apply { machine, snapshot: first, safety: None });
    assert_ne!(bench.content(machine, None), was_now);
    bench.done(Command::UndoApply(machine));
    assert_eq!(bench.content(machine, None), was_now);
    let mut bench = bench.reopen();
    assert_eq!(bench.content(machine, None), was_now);
}

#[test]
fn a_plan_says_what_is_then_done() {
    let mut bench = Bench::new();
    let machine = bench.create("m", ByteCount::mib(16), &DISKS[..1], quick());
    bench.work(machine, 300);
    bench.take(machine, "first", false);
    bench.work(machine, 300);
    let second = bench.take(machine, "second", false);
    bench.work(machine, 300);
    bench.take(machine, "third", false);
    bench.pass(std::time::Duration::from_millis(300));
    let delete = Command::Delete { machine, snapshots: vec![second], subtree: false, free_now: false };
    let id = bench.submit(delete.clone(), Mode::WhatIf);
    let Ok(Answer::Plan(plan)) = bench.wait(id) else { panic!("no plan") };
    let Plan::Delete(planned) = *plan else { panic!("not a deletion's plan") };
    let generation = bench.state(machine).machine.generation;
    assert!(bench.state(machine).machine.ghosts.is_empty(), "a plan changes nothing");
    bench.done(delete);
    assert!(bench.state(machine).machine.generation > generation);
    bench.done(Command::Merge { machine, disk: None, limit: None, until: None });
    let merged = bench.jobs.iter().rfind(|job| job.kind == JobKind::Merge).expect("a merge was told of").clone();
    assert!(planned.merges.data > ByteCount::ZERO);
    assert_eq!(merged.done, planned.merges.data);
}

#[test]
fn a_merge_is_paused_cancelled_and_goes_on_later() {
    let mut bench = Bench::new();
    let machine = bench.create("m", ByteCount::mib(16), &[ByteCount::mib(64)], quick());
    bench.work(machine, 3000);
    let first = bench.take(machine, "first", false);
    bench.work(machine, 3000);
    let second = bench.take(machine, "second", false);
    let was = bench.content(machine, Some(second));
    bench.done(Command::Delete { machine, snapshots: vec![first], subtree: false, free_now: false });
    let id = bench.submit(Command::Merge { machine, disk: None, limit: Some(ByteRate(400_000.0)), until: None }, Mode::Do);
    bench.pass(std::time::Duration::from_millis(700));
    bench.done(Command::Job { machine, action: JobAction::Pause });
    let paused = bench.jobs.last().expect("a job").clone();
    assert_eq!(paused.phase, JobPhase::Paused);
    assert!(paused.done > ByteCount::ZERO && paused.done < paused.total, "{paused:?}");
    bench.pass(std::time::Duration::from_millis(200));
    assert_eq!(bench.jobs.last().expect("a job").done, paused.done, "a paused merge moves nothing");
    let busy = bench.ask(Command::Merge { machine, disk: None, limit: None, until: None }).unwrap_err();
    assert_eq!(busy.kind, RefusalKind::Rule);
    bench.take(machine, "in between", false);
    assert_eq!(bench.jobs.iter().rfind(|job| job.kind == JobKind::Merge).map(|job| &job.phase), Some(&JobPhase::Paused));
    bench.done(Command::Job { machine, action: JobAction::Cancel });
    assert!(bench.wait(id).is_err());
    assert_eq!(bench.content(machine, Some(second)), was, "a cancelled merge has lost nothing");
    let mut bench = bench.reopen();
    bench.pass(std::time::Duration::from_millis(100));
    let refused = bench.ask(Command::Undelete { machine, snapshot: first }).unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Rule, "a merge that has started can't be taken back: {refused}");
    bench.done(Command::Merge { machine, disk: None, limit: None, until: None });
    let rest = bench.jobs.iter().rfind(|job| job.kind == JobKind::Merge).expect("a merge").clone();
    assert!(rest.total <= paused.total.saturating_sub(paused.done), "what was moved is not moved again: {rest:?}");
    assert_eq!(bench.content(machine, Some(second)), was);
}

#[test]
fn several_runs_of_one_disk_are_merged_by_one_job() {
    let mut bench = Bench::new();
    let machine = bench.create("m", ByteCount::mib(16), &DISKS[..1], quick());
    let mut taken = Vec::new();
    for number in 0..7 {
        bench.work(machine, 100);
        taken.push(bench.take(machine, &number.to_string(), false));
    }
    let deleted = vec![taken[0], taken[2], taken[4], taken[6]];
    let kept = [Some(taken[1]), Some(taken[3]), Some(taken[5]), None];
    let was = kept.map(|at| bench.content(machine, at));
    bench.done(Command::Delete { machine, snapshots: deleted, subtree: false, free_now: false });
    assert_eq!(Tree::of(&bench.state(machine).machine).runs().len(), 4);
    bench.done(Command::Merge { machine, disk: None, limit: None, until: None });
    assert!(Tree::of(&bench.state(machine).machine).runs().is_empty());
    for (at, was) in kept.into_iter().zip(was) {
        assert!(bench.content(machine, at) == was, "{at:?} has changed");
    }
}

#[test]
fn requests_that_cannot_be_are_refused_by_rule() {
    let mut bench = Bench::new();
    let machine = bench.create("m", ByteCount::mib(16), &DISKS[..1], quick());
    let first = bench.take(machine, "first", false);
    let mut refused = |command: Command| bench.ask(command).expect_err("refused");
    let take = |label: &str| Command::Take { machine, label: label.into(), note: String::new(), memory: false };
    assert_eq!(refused(take("first")).kind, RefusalKind::Rule);
    assert_eq!(refused(take("")).kind, RefusalKind::Rule);
    assert_eq!(refused(Command::Stop(machine)).kind, RefusalKind::Rule);
    assert_eq!(refused(Command::BadUpdate(machine)).kind, RefusalKind::Rule);
    assert_eq!(refused(Command::UndoApply(machine)).kind, RefusalKind::Rule);
    assert_eq!(refused(Command::Undelete { machine, snapshot: first }).kind, RefusalKind::Rule);
    bench.done(Command::Protect { machine, snapshot: first, protected: true });
    let delete = Command::Delete { machine, snapshots: vec![first], subtree: false, free_now: false };
    assert_eq!(bench.ask(delete).expect_err("refused").kind, RefusalKind::Rule);
    let generation = bench.state(machine).machine.generation;
    let id = crate::engine::RequestId(9999);
    let rename = Command::Rename { machine, snapshot: first, label: "x".into() };
    let old = crate::engine::Request { id, command: rename, mode: Mode::Do, expected_generation: Some(generation - 1) };
    bench.engine.submit(bench.me, old);
    assert!(bench.wait(id).is_err(), "the tree was another one when it was looked at");
}

#[test]
fn a_disk_grows_above_its_snapshots() {
    let mut bench = Bench::new();
    let machine = bench.create("m", ByteCount::mib(16), &DISKS, quick());
    let disk = bench.state(machine).machine.configuration.disks[0].id.clone();
    let resize = |mib| Command::Resize { machine, disk: disk.clone(), size: ByteCount::mib(mib) };
    bench.work(machine, 300);
    let small = bench.take(machine, "small", false);
    bench.work(machine, 300);
    let (was_small, was_now) = (bench.content(machine, Some(small)), bench.content(machine, None));
    bench.done(resize(70));
    let now = bench.content(machine, None);
    assert_eq!(now[&disk].len(), 70 << 20);
    assert_eq!(now[&disk][..24 << 20], was_now[&disk][..], "what was there stays");
    assert!(now[&disk][24 << 20..].iter().all(|byte| *byte == 0), "what is new is zero");
    for size in [70, 24, 0] {
        assert_eq!(bench.ask(resize(size)).expect_err("it isn't larger").kind, RefusalKind::Rule);
    }
    bench.work(machine, 600);
    let large = bench.take(machine, "large", false);
    let was_large = bench.content(machine, Some(large));
    bench.work(machine, 200);
    bench.done(Command::Apply { machine, snapshot: small, safety: None });
    assert_eq!(bench.content(machine, None), was_small);
    bench.done(Command::UndoApply(machine));
    // Merged into what was smaller, all of it shows.
    bench.done(Command::Delete { machine, snapshots: vec![small], subtree: false, free_now: true });
    bench.done(Command::Merge { machine, disk: None, limit: None, until: None });
    assert_eq!(bench.content(machine, Some(large)), was_large);
    bench.verify(machine, Some(large));
    bench.verify(machine, None);
    let mut bench = bench.reopen();
    bench.pass(std::time::Duration::from_millis(20));
    assert_eq!(bench.content(machine, Some(large)), was_large);
    bench.done(Command::Start(machine));
    assert_eq!(bench.ask(resize(80)).expect_err("it runs").kind, RefusalKind::Rule);
    bench.done(Command::Stop(machine));
}

#[test]
fn nothing_runs_the_disks_of_others() {
    let mut bench = Bench::new();
    let folder = bench.folder.path().join("others");
    std::fs::create_dir(&folder).expect("a folder");
    let host = crate::host_file::OsHost::shared();
    let options = crate::disk::CreateOptions::dynamic(ByteCount::mib(8));
    let path = folder.join("theirs.vhdx");
    let image = crate::disk::create(&host, &path, crate::disk::ImageFormat::Vhdx, &options).expect("an image");
    image.write_at(&[7; 4096], 1 << 20).expect("written");
    image.freeze().expect("complete");
    drop(image);
    let import = Command::Import(Import { path, name: "theirs".into(), mode: ImportMode::Copy, computer: None });
    bench.done(import);
    bench.pass(std::time::Duration::from_millis(20));
    bench.hear();
    let machine = *bench.states.keys().next().expect("it is there");
    let was = bench.content(machine, None);
    for command in [
        Command::Start(machine),
        Command::RunWorkload { machine, milliseconds: 10, seed: None },
        Command::Verify { machine, at: None },
    ] {
        let refused = bench.ask(command).expect_err("nothing here runs it");
        assert!(refused.kind == RefusalKind::Rule && refused.reason.contains("disks only"), "{refused}");
    }
    let taken = bench.take(machine, "kept", false);
    bench.done(Command::Apply { machine, snapshot: taken, safety: None });
    assert_eq!(bench.content(machine, None), was);
}

#[test]
fn a_run_that_is_killed_leaves_no_memory_that_is_older_than_the_disks() {
    let host = MemHost::new();
    let mut bench = Bench::in_memory(&host);
    let machine = bench.create("m", ByteCount::mib(1), &[ByteCount::mib(16)], quick());
    bench.done(Command::Start(machine));
    bench.pass(Duration::from_millis(200));
    let snapshot = bench.take(machine, "a", true);
    bench.done(Command::Stop(machine));
    bench.done(Command::Apply { machine, snapshot, safety: None });
    assert_eq!(bench.state(machine).power, Power::Saved);

    bench.submit(Command::RunWorkload { machine, milliseconds: 3_600_000, seed: None }, Mode::Do);
    bench.pass(Duration::from_millis(300));
    let host = host.crash(CrashMode::Kill, 1);
    let mut after = Bench::in_memory(&host);
    assert_eq!(after.state(machine).power, Power::Off);
    after.verify(machine, None);
}
