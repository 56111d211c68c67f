//! What works on a thread of its own: steered like any other job, and nothing is left of what was ended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::chain::Target;
use crate::disk::{self, CreateOptions, ImageType};
use crate::engine::{ConvertImage, JobAction, JobKind, JobPhase, Plan, RefusalKind};

fn target(format: ImageFormat) -> Target {
    Target::Image { format, kind: ImageType::Dynamic, block_size: None }
}

/// A chain whose base lies in another folder.
fn chain(bench: &Bench) -> (PathBuf, PathBuf) {
    let (host, top) = (OsHost::shared(), bench.folder.path());
    let (bases, leaves) = (top.join("bases"), top.join("leaves"));
    std::fs::create_dir(&bases).expect("a folder");
    std::fs::create_dir(&leaves).expect("a folder");
    let options = CreateOptions::dynamic(ByteCount::mib(24));
    let base = disk::create(&host, &bases.join("base.vhd"), ImageFormat::Vhd, &options).expect("a base");
    base.write_at(&[7; 4096], 1 << 20).expect("written");
    base.freeze().expect("complete");
    let leaf = leaves.join("leaf.avhd");
    let child = disk::create_child(&host, &leaf, &*base, None).expect("a child");
    child.write_at(&[8; 512], 20 << 20).expect("written");
    child.freeze().expect("complete");
    (leaf, bases)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

#[test]
fn a_chain_becomes_one_file_of_another_format() {
    let mut bench = Bench::new();
    let (image, bases) = chain(&bench);
    let to = bench.folder.path().join("flat.vhdx");
    let request = |folders: &[PathBuf]| {
        let (image, to, target) = (image.clone(), to.clone(), target(ImageFormat::Vhdx));
        Command::Convert(ConvertImage { image, raw: false, folders: folders.into(), to, target })
    };
    let refused = bench.ask(request(&[])).expect_err("the base is elsewhere");
    assert_eq!(refused.kind, RefusalKind::Failed);
    let planned = bench.submit(request(std::slice::from_ref(&bases)), Mode::WhatIf);
    let Answer::Plan(plan) = bench.wait(planned).expect("it can be") else { panic!("a plan") };
    let Plan::Convert { most } = *plan else { panic!("{plan:?}") };
    assert!(most >= ByteCount(4096 + 512) && !to.exists(), "{most}");
    bench.done(request(std::slice::from_ref(&bases)));
    let last = bench.jobs.last().expect("a job");
    assert_eq!((last.kind, last.done, last.total), (JobKind::Convert, most, most));
    assert!(matches!(&last.phase, JobPhase::Done(text) if text.contains("flat.vhdx")), "{last:?}");
    let flat = Chain::open(&OsHost::shared(), &to, Access::Look, &Gate::around(&to)).expect("an image");
    let mut sector = [0; 512];
    for (at, byte) in [(0, 0), (1 << 20, 7), (20 << 20, 8)] {
        flat.read_at(&mut sector, at).expect("readable");
        assert_eq!(sector, [byte; 512], "at {at}");
    }
    let refused = bench.ask(request(&[bases])).expect_err("it is there already");
    assert_eq!(refused.kind, RefusalKind::Rule);
}

/// The disk is so large that it isn't read to its end before it is steered.
#[test]
fn a_conversion_is_paused_goes_on_and_is_cancelled() {
    let mut bench = Bench::new();
    let folder = bench.folder.path().join("raw");
    std::fs::create_dir(&folder).expect("a folder");
    let image = folder.join("disk.raw");
    std::fs::File::create(&image).expect("a file").set_len(1 << 40).expect("a length");
    let (to, target) = (folder.join("new.vhd"), target(ImageFormat::Vhd));
    let request = ConvertImage { image, raw: true, folders: Vec::new(), to, target };
    let before = files(&folder);
    let id = bench.submit(Command::Convert(request), Mode::Do);
    bench.until("it is told of", |bench| bench.jobs.iter().any(|job| job.done > ByteCount::ZERO));
    let machine = bench.jobs.last().expect("a job").machine;
    bench.done(Command::Job { machine, action: JobAction::Pause });
    // What was under way may end yet.
    bench.pass(Duration::from_millis(300));
    let last = |bench: &Bench| bench.jobs.last().expect("a job").clone();
    let paused = last(&bench);
    assert_eq!(paused.phase, JobPhase::Paused);
    bench.pass(Duration::from_millis(300));
    assert_eq!(last(&bench).done, paused.done);
    bench.done(Command::Job { machine, action: JobAction::Resume });
    bench.until("it goes on", |bench| last(bench).done > paused.done);
    bench.done(Command::Job { machine, action: JobAction::Cancel });
    let refused = bench.wait(id).expect_err("it was cancelled");
    assert_eq!((refused.kind, &*refused.reason), (RefusalKind::Failed, "nothing is left of the new file"));
    assert_eq!(last(&bench).phase, JobPhase::Cancelled(refused.reason));
    assert_eq!(files(&folder), before);
}

#[test]
fn an_image_is_looked_into_without_being_a_job() {
    let mut bench = Bench::new();
    let (image, bases) = chain(&bench);
    let before = (files(&bases), files(image.parent().expect("a folder")));
    for (folders, images) in [(vec![], 1), (vec![bases.clone()], 2)] {
        let Answer::Inspected(seen) = bench.done(Command::Inspect { image: image.clone(), folders }) else { panic!("a look") };
        assert_eq!((seen.images.len(), seen.broken.is_some()), (images, images == 1));
    }
    assert!(bench.jobs.is_empty());
    assert_eq!((files(&bases), files(image.parent().expect("a folder"))), before);
    bench.ask(Command::Inspect { image: bases.join("nothing.vhd"), folders: Vec::new() }).expect_err("nothing is there");
}

#[test]
fn a_folder_is_diagnosed_repaired_as_it_was_shown_and_put_back() {
    use crate::engine::RepairFolder;
    use crate::repair::Choices;
    let mut bench = Bench::new();
    let (image, bases) = chain(&bench);
    let folder = bench.folder.path().canonicalize().expect("a folder").join("all");
    std::fs::create_dir(&folder).expect("a folder");
    let (leaf, base) = (folder.join("leaf.avhd"), folder.join("elsewhere.vhd"));
    std::fs::rename(&image, &leaf).expect("moved");
    std::fs::rename(bases.join("base.vhd"), &base).expect("moved");
    let bytes = || (std::fs::read(&leaf).expect("a file"), std::fs::read(&base).expect("a file"));
    let before = bytes();

    let Answer::Diagnosed(found) = bench.done(Command::Diagnose(folder.clone())) else { panic!("a diagnosis") };
    assert_eq!(found.defects().count(), 1, "{found:?}");
    let request = |plan| Command::Repair(RepairFolder { folder: folder.clone(), choices: Choices::default(), plan });
    let refused = bench.ask(request(None)).expect_err("nobody has seen what would be done");
    assert_eq!(refused.kind, RefusalKind::Rule);
    let asked = bench.submit(request(None), Mode::WhatIf);
    let Answer::RepairPlanned(view) = bench.wait(asked).expect("it can be") else { panic!("a plan") };
    assert_eq!((view.plan.steps.len(), view.past.len(), view.kept), (1, 0, ByteCount::ZERO));
    assert!(bench.jobs.iter().all(|job| job.kind != JobKind::Repair || !matches!(job.phase, JobPhase::Done(_))), "only a look");
    let plan = Box::new(view.plan);
    bench.done(request(Some(plan.clone())));
    let asked = bench.submit(request(None), Mode::WhatIf);
    let Answer::RepairPlanned(view) = bench.wait(asked).expect("it can be") else { panic!("a plan") };
    assert!(view.past.len() == 1 && view.kept > ByteCount::ZERO, "{view:?}");
    let job = bench.jobs.last().expect("a job");
    assert!((job.kind, job.pausable) == (JobKind::Repair, false), "nobody can stop it in between: {job:?}");
    let Answer::Diagnosed(found) = bench.done(Command::Diagnose(folder.clone())) else { panic!("a diagnosis") };
    assert_eq!(found.defects().count(), 0, "{found:?}");
    let refused = bench.ask(request(Some(plan))).expect_err("it isn't what was planned for any more");
    assert_eq!(refused.kind, RefusalKind::Rule);
    bench.done(Command::UndoRepair(folder.clone()));
    assert!(bytes() == before, "byte for byte");
    assert_eq!(files(&folder), [base.clone(), leaf.clone()], "nothing is left of it");

    let asked = bench.submit(request(None), Mode::WhatIf);
    let Answer::RepairPlanned(view) = bench.wait(asked).expect("it can be") else { panic!("a plan") };
    bench.done(request(Some(Box::new(view.plan))));
    let repaired = bytes();
    bench.done(Command::ForgetRepairs(folder.clone()));
    assert!(bytes() == repaired && files(&folder) == [base, leaf], "what was kept is gone, the images are as they were");
    bench.ask(Command::UndoRepair(folder.clone())).expect_err("it can't be taken back any more");
}
