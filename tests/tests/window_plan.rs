//! The plan in a real window: a merge is dragged into another window of maintenance, its verdict read, the plan exported.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::{NaiveTime, Weekday};
use egui::Rect;
use egui::accesskit::Role;
use serde_json::Value;
use snaptree_core::cost::MergeMode;
use snaptree_core::engine::Command;
use snaptree_core::fresh;
use snaptree_core::snapshot::WorkloadProfile;
use snaptree_core::units::ByteCount;
use snaptree_core::window::{MaintenanceWindow, Scope, When, WindowId};
use snaptree_tests::desktop::{Desktop, Seen};
use snaptree_tests::driver::Driver;
use snaptree_tests::program::Home;
use snaptree_tests::witness::skip;

/// So many machines, each with a merge that is due, and a window every night.
fn library(machines: usize) -> Driver {
    let mut driver = Driver::new();
    for n in 1..=machines {
        let workload = WorkloadProfile { seed: n as u64, disk_writes_per_second: 400, ..WorkloadProfile::default() };
        let name = format!("VM{n:03}");
        let machine = driver.create(&name, ByteCount::mib(1), &[ByteCount::mib(16)], workload);
        let mut taken = Vec::new();
        let work = Command::RunWorkload { machine, milliseconds: 100 + n as u64, seed: None };
        for label in ["one", "two"] {
            driver.done(work.clone());
            taken.push(driver.take(machine, label, false).0);
        }
        driver.done(work);
        driver.delete(machine, &taken[1..]);
    }
    let days = (0..7u8).filter_map(|day| Weekday::try_from(day).ok()).collect();
    let time = |hour| NaiveTime::from_hms_opt(hour, 0, 0).expect("a time of day");
    driver.done(Command::SetWindow(MaintenanceWindow {
        id: WindowId(fresh::uuid()),
        name: "Nights".into(),
        when: When::Weekly { days, from: time(22), to: time(2) },
        scope: Scope::All,
        mode: MergeMode::Live,
        limit: None,
        enabled: true,
    }));
    driver
}

/// A program that stands in for the desktop's dialog, which names the file to write.
fn stand_in(home: &Home, file: &Path) -> Result<String> {
    let folder = home.path().join("bin");
    fs::create_dir(&folder)?;
    let program = folder.join("zenity");
    fs::write(&program, format!("#!/bin/sh\nprintf '%s\\n' '{}'\n", file.display()))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default()))
}

/// The nights that can be seen, from left to right: what each is called, and where it is.
fn nights(seen: &Seen) -> Vec<(String, Rect)> {
    let bands = seen.all(|widget| widget.role == Role::Label && widget.name.starts_with("Nights, window, "));
    let mut bands: Vec<_> = bands.into_iter().filter_map(|band| Some((band.name.clone(), band.bounds?))).collect();
    bands.sort_by(|a, b| a.1.left().total_cmp(&b.1.left()));
    bands.dedup_by(|a, b| a.0 == b.0);
    bands
}

/// The bars of merges that can be seen: what each is called, and where it is.
fn bars(seen: &Seen) -> Vec<(String, Rect)> {
    let bars = seen.all(|widget| widget.role == Role::Button && widget.name.contains(" merge, "));
    bars.into_iter().filter_map(|bar| Some((bar.name.clone(), bar.bounds?))).collect()
}

fn pins(library: &Path) -> Result<usize> {
    let windows: Value = serde_json::from_slice(&fs::read(library.join("windows.json"))?)?;
    Ok(windows["pins"].as_array().context("pins")?.len())
}

fn a_merge_is_dragged_among(machines: usize) -> Result<()> {
    let driver = library(machines);
    let folder = driver.end();
    let library = folder.path().join("library");
    let home = Rc::new(Home::new());
    let exported = home.path().join("plan.json");
    let path = stand_in(&home, &exported)?;
    let arguments = ["--library", library.to_str().context("a path in UTF-8")?];
    let Some(mut desktop) = Desktop::open_in(&home, &arguments, 1280, 800, &[("PATH", &path)]) else {
        skip("Xvfb isn't installed");
        return Ok(());
    };
    desktop.wait_for("the machines", |seen| seen.row("VM001, machine").map(drop));
    desktop.click("Plan");
    desktop.wait_for("the plan of all merges", |seen| seen.says(&format!("{machines} merges due")).then_some(()));
    // Not the one that is chosen when the page opens, nor one that is cut off at the edge.
    let (before, held) = desktop.wait_for("bars", |seen| bars(seen).into_iter().nth(1));
    let name = before.split(' ').next().context("a machine's name")?.to_owned();
    // The third night from here; the last ones are cut off at the edge.
    let nights = desktop.wait_for("the nights", |seen| Some(nights(seen)).filter(|nights| nights.len() >= 5));
    let (target, there) = nights.iter().filter(|(_, band)| band.left() > held.right() + 20.0).nth(1).context("a later night")?;
    desktop.picture(&format!("plan-of-{machines}"));
    ensure!(pins(&library)? == 0, "somebody has put a merge somewhere already");

    desktop.drag(held.center(), egui::pos2(there.center().x, held.center().y));
    let night = target.trim_start_matches("Nights, window, ").split(' ').next().context("a day")?;
    let (moved, _) = desktop.wait_for(&format!("{name} to be planned for that night"), |seen| {
        let of_it = |bar: &String| bar.starts_with(&name) && bar.contains("put there by somebody") && bar.contains(night);
        bars(seen).into_iter().find(|(bar, _)| of_it(bar))
    });
    ensure!(moved != before && moved.contains("fits"), "{before:?}, then {moved:?}");
    desktop.wait_for("the verdict in details", |seen| seen.says(&format!("Merge {name} {night} 22:")).then_some(()));
    desktop.picture(&format!("plan-of-{machines}-dragged"));
    ensure!(pins(&library)? == 1, "windows.json doesn't say it");

    desktop.click("Export");
    desktop.click("The plan as JSON…");
    let started = Instant::now();
    while !exported.exists() {
        ensure!(started.elapsed() < Duration::from_secs(60), "nothing was exported");
        desktop.watch(Duration::from_millis(200));
    }
    desktop.wait_to_read("Written: ");
    let plan: Value = serde_json::from_slice(&fs::read(&exported)?)?;
    let merges = plan["merges"].as_array().context("merges")?;
    ensure!(merges.len() == machines, "{} merges are exported", merges.len());
    let moved: Vec<&Value> = merges.iter().filter(|merge| !merge["pinned"].is_null()).collect();
    ensure!(moved.len() == 1 && moved[0]["machine"] == *name && moved[0]["verdict"]["fits"].is_object(), "{moved:?}");
    Ok(())
}

#[test]
fn a_merge_is_dragged_among_3() -> Result<()> {
    a_merge_is_dragged_among(3)
}

#[test]
fn a_merge_is_dragged_among_200() -> Result<()> {
    a_merge_is_dragged_among(200)
}
