//! The page of files in the real window, with what the engine's diagnosis of real images says.

use std::path::Path;

use egui::accesskit::Role;
use egui_kittest::kittest::Queryable;
use snaptree_core::diagnose::diagnose;
use snaptree_core::disk::{self, CreateOptions, ImageFormat};
use snaptree_core::engine::{Answer, Command, Event, Mode, RepairFolder, RepairView};
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::repair;
use snaptree_core::units::ByteCount;

use crate::model::fabricated;
use crate::tests::{Fake, Window, window};

/// A folder with a chain of three whose middle was lost, an image without one, and a file that is none.
fn broken(folder: &Path) {
    let host = OsHost::shared();
    let options = CreateOptions::dynamic(ByteCount::mib(8));
    let base = disk::create(&host, &folder.join("sql.vhdx"), ImageFormat::Vhdx, &options).expect("a base");
    base.freeze().expect("frozen");
    let middle = disk::create_child(&host, &folder.join("middle.avhdx"), &*base, None).expect("a child");
    middle.freeze().expect("frozen");
    drop(disk::create_child(&host, &folder.join("top.avhdx"), &*middle, None).expect("a child"));
    drop(disk::create(&host, &folder.join("other.vhdx"), ImageFormat::Vhdx, &options).expect("an image"));
    std::fs::remove_file(folder.join("middle.avhdx")).expect("removed");
    std::fs::write(folder.join("garbage.vhd"), vec![7; 4096]).expect("written");
}

fn answer(window: &mut Window, fake: &Fake, files: &Path) {
    let (id, folder) = fake
        .asked
        .borrow()
        .iter()
        .rev()
        .find_map(|request| match &request.command {
            Command::Diagnose(folder) => Some((request.id, folder.clone())),
            _ => None,
        })
        .expect("a folder is looked at");
    assert!(!folder.as_os_str().is_empty());
    let found = diagnose(&OsHost::shared(), files).expect("a diagnosis");
    fake.events.borrow_mut().push_back(Event::Answer { request: id, answer: Ok(Answer::Diagnosed(Box::new(found))) });
    window.run_steps(4);
}

#[test]
fn what_is_wrong_is_shown_file_by_file() {
    let (screens, files) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    broken(files.path());
    let (mut window, fake) = window([1280.0, 800.0], 1.0, egui::Theme::Dark, fabricated::events(screens.path()));
    window.run_steps(4);
    window.get_by_role_and_label(Role::Tab, "Files").click();
    window.run_steps(4);
    window.get_by_label("Looking at the images…");
    answer(&mut window, &fake, files.path());
    window.get_by_label_contains("top.avhdx, orphaned");
    window.get_by_label_contains("garbage.vhd, broken");
    window.get_by_label_contains("other.vhdx, unclaimed");
    if let Some(out) = std::env::var_os("SNAPTREE_PICTURES").map(std::path::PathBuf::from) {
        window.get_by_label_contains("top.avhdx, orphaned").click();
        window.run_steps(4);
        window.render().expect("a picture").save(out.join("files.png")).expect("written");
    }
    let asked = || fake.asked.borrow().iter().filter(|request| matches!(request.command, Command::Diagnose(_))).count();
    assert_eq!(asked(), 1, "it is asked once");

    window.get_by_label_contains("other.vhdx, unclaimed").click();
    window.run_steps(4);
    window.key_press(egui::Key::ArrowDown);
    window.run_steps(4);
    window.get_by_role_and_label(Role::Button, "Look into it…").click();
    window.run_steps(4);
    let looked = fake
        .asked
        .borrow()
        .iter()
        .any(|request| matches!(&request.command, Command::Inspect { image, .. } if image.ends_with("sql.vhdx")));
    assert!(looked, "the next row was chosen by its key: {:?}", fake.asked.borrow().last());
    window.key_press(egui::Key::Escape);
    window.run_steps(4);

    window.get_by_label_contains("OLDHOST (Hyper-V), folder").click();
    window.run_steps(4);
    assert_eq!(asked(), 2, "another folder is looked at");
    window.key_press(egui::Key::F5);
    window.run_steps(4);
    assert_eq!(asked(), 3, "and again when somebody says so");
}

/// The last repair that was asked to be planned, answered by what the engine would say.
fn plan(window: &mut Window, fake: &Fake, files: &Path) -> RepairFolder {
    let asked = fake.asked.borrow().iter().rev().find_map(|request| match &request.command {
        Command::Repair(repair) if request.mode == Mode::WhatIf => Some((request.id, repair.clone())),
        _ => None,
    });
    let (id, asked) = asked.expect("a repair is planned");
    let found = diagnose(&OsHost::shared(), files).expect("a diagnosis");
    let past = repair::past(&OsHost::shared(), files).expect("no repairs of before");
    let kept = repair::kept_bytes(&OsHost::shared(), files).expect("a number");
    let view = RepairView { plan: repair::plan(&OsHost::shared(), &found, &asked.choices), past, kept, found };
    fake.events.borrow_mut().push_back(Event::Answer { request: id, answer: Ok(Answer::RepairPlanned(Box::new(view))) });
    window.run_steps(4);
    asked
}

#[test]
fn a_repair_is_a_list_first_and_then_what_was_shown() {
    let (screens, files) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    broken(files.path());
    let moved = files.path().join("moved");
    std::fs::create_dir(&moved).expect("a folder");
    let host = OsHost::shared();
    let other = disk::open(&host, &files.path().join("other.vhdx"), ImageFormat::Vhdx, Access::Write).expect("an image");
    other.freeze().expect("frozen");
    drop(disk::create_child(&host, &files.path().join("child.avhdx"), &*other, None).expect("a child"));
    drop(other);
    std::fs::rename(files.path().join("other.vhdx"), moved.join("other.vhdx")).expect("moved");

    let (mut window, fake) = window([1280.0, 800.0], 1.0, egui::Theme::Dark, fabricated::events(screens.path()));
    window.run_steps(4);
    window.get_by_role_and_label(Role::Tab, "Files").click();
    window.run_steps(4);
    answer(&mut window, &fake, files.path());
    window.get_by_role_and_label(Role::Button, "Repair…").click();
    window.run_steps(4);
    plan(&mut window, &fake, files.path());
    window.get_by_label("child.avhdx");
    assert!(window.query_all_by_label_contains("The path of its parent becomes").count() > 0);
    window.get_by_label("top.avhdx");
    if let Some(out) = std::env::var_os("SNAPTREE_PICTURES").map(std::path::PathBuf::from) {
        window.run_steps(6);
        window.render().expect("a picture").save(out.join("repair.png")).expect("written");
    }

    window.get_by_role_and_label(Role::ComboBox, "Its parent is").click();
    window.run_steps(4);
    window.get_by_role_and_label(Role::Button, "sql.vhdx").click();
    window.run_steps(6);
    let asked = plan(&mut window, &fake, files.path());
    assert_eq!(asked.choices.parents.values().next().map(|path| path.ends_with("sql.vhdx")), Some(true), "{asked:?}");
    assert!(window.query_all_by_label_contains("Its parent becomes").count() > 0);

    window.get_by_role_and_label(Role::Button, "Repair").click();
    window.run_steps(6);
    let done = fake.done();
    let asked_folder = asked.folder.clone();
    let Some(Command::Repair(RepairFolder { plan: Some(plan), choices, .. })) = done.last() else { panic!("{done:?}") };
    assert_eq!((plan.steps.len(), choices), (2, &asked.choices));
    let looks = fake.asked.borrow().iter().filter(|request| matches!(request.command, Command::Diagnose(_))).count();
    assert_eq!(looks, 2, "what was repaired is looked at again");

    // What it keeps can be freed, after a question.
    repair::execute(&host, plan, choices).expect("repaired");
    answer(&mut window, &fake, files.path());
    window.get_by_role_and_label(Role::Button, "Repair…").click();
    window.run_steps(4);
    self::plan(&mut window, &fake, files.path());
    window.get_by_label_contains("kept for that…").click();
    window.run_steps(6);
    window.get_by_label_contains("can't be taken back any more");
    window.get_by_role_and_label(Role::Button, "Free it").click();
    window.run_steps(6);
    let done = fake.done();
    let Some(Command::ForgetRepairs(folder)) = done.last() else { panic!("{done:?}") };
    assert_eq!(folder, &asked_folder);
}
