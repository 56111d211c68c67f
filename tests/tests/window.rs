//! The real program in a real window: the demo, worked through as a person would, and the files afterwards.
#![cfg(unix)]

use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use egui::accesskit::Role;
use egui::{Key, Modifiers};
use snaptree_core::snapshot::{Machine, SnapshotId};
use snaptree_tests::desktop::{Desktop, Display};
use snaptree_tests::kept::MachineFolder;
use snaptree_tests::program::{Home, plain_program};
use snaptree_tests::witness::{skip, tool};

const NO_DISPLAY: &str = "Xvfb isn't installed";

fn labelled(machine: &Machine, label: &str) -> Option<SnapshotId> {
    machine.snapshots.iter().find(|(_, snapshot)| snapshot.label == label).map(|(id, _)| *id)
}

/// Waits until the manifest says so.
fn wait_until(folder: &MachineFolder, what: &str, holds: impl Fn(&Machine) -> bool) -> Result<Machine> {
    let started = Instant::now();
    loop {
        let machine = folder.machine()?;
        if holds(&machine) {
            return Ok(machine);
        }
        ensure!(started.elapsed() < Duration::from_secs(300), "waited in vain until {what}; the manifest is {machine:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_person_works_through_the_demo() -> Result<()> {
    let Some(mut desktop) = Desktop::open(&["demo"], 1280, 800, &[]) else {
        skip(NO_DISPLAY);
        return Ok(());
    };
    desktop.click_row("WEB01, machine");
    desktop.wait_for("the running machine's tree", |seen| seen.row("Second try, snapshot").map(drop));
    let web = MachineFolder::find(desktop.home().path(), "WEB01").context("WEB01's folder")?;
    desktop.picture("1-demo");

    // Take, by key.
    desktop.press(Modifiers::COMMAND, Key::T);
    desktop.wait_to_read("Take a snapshot of WEB01");
    desktop.fill("Label", "By hand");
    desktop.picture("2-take");
    desktop.click("Take snapshot");
    let machine = wait_until(&web, "the snapshot is taken", |m| labelled(m, "By hand").is_some())?;
    let by_hand = labelled(&machine, "By hand").context("By hand")?;
    ensure!(machine.snapshots[&by_hand].memory.is_some(), "its memory wasn't saved");
    ensure!(machine.now.parent == Some(by_hand));

    // Spoil, by mouse.
    desktop.click("Bad update");
    desktop.watch(Duration::from_secs(2));
    desktop.picture("3-spoiled");

    // Apply: select by mouse, go by key, confirm by mouse. What was spoiled is kept.
    let before = web.contents(false)?;
    desktop.click_row("By hand, snapshot");
    desktop.press(Modifiers::COMMAND, Key::Enter);
    desktop.wait_to_read("Apply “By hand”");
    desktop.picture("4-apply");
    desktop.click("Keep Now and apply");
    let machine = wait_until(&web, "it is applied", |m| m.now.parent == Some(by_hand) && m.snapshots.len() == before.len() + 1)?;
    let safety = machine.snapshots.values().find(|s| s.label.starts_with("Before applying By hand")).context("what Now held")?;
    ensure!(safety.parent == Some(by_hand), "what Now held hangs from the wrong snapshot");
    desktop.watch(Duration::from_secs(2));
    desktop.picture("5-applied");

    // Delete by key, and take it back by key.
    desktop.click_row("Update tried, snapshot");
    desktop.press(Modifiers::NONE, Key::Delete);
    desktop.wait_to_read("Delete “Update tried”");
    desktop.picture("6-delete");
    desktop.click("Delete");
    wait_until(&web, "it is deleted", |m| labelled(m, "Update tried").is_none())?;
    desktop.wait_for("the row to go", |seen| seen.row("Update tried, snapshot").is_none().then_some(()));
    desktop.press(Modifiers::COMMAND, Key::Z);
    wait_until(&web, "the deletion is undone", |m| labelled(m, "Update tried").is_some())?;
    desktop.wait_for("the row to come back", |seen| seen.row("Update tried, snapshot").map(drop));

    // Delete one that another reads through: its bytes stay, as a ghost, until they are merged.
    desktop.click_row("Second try, snapshot");
    desktop.click("Delete…");
    desktop.wait_to_read("Delete “Second try”");
    desktop.picture("7-delete-with-a-merge");
    desktop.click("Delete");
    let machine = wait_until(&web, "it is deleted", |m| labelled(m, "Second try").is_none())?;
    ensure!(machine.ghosts.len() == 1, "{} ghosts", machine.ghosts.len());
    let images = machine.images.len();
    desktop.wait_for("the ghost", |seen| seen.row("Second try, deleted").map(drop));
    desktop.picture("8-ghost");

    // Merge, with the machine off.
    desktop.click("Stop");
    desktop.wait_for("the machine to be off", |seen| seen.control("Start").map(drop));
    let before = web.contents(true)?;
    desktop.press(Modifiers::COMMAND, Key::M);
    desktop.wait_to_read("Merge what is due on WEB01");
    desktop.picture("9-merge");
    desktop.click("Merge");
    let machine = wait_until(&web, "it is merged", |m| m.ghosts.is_empty() && m.merges.is_empty() && m.images.len() < images)?;
    desktop.wait_for("the ghost to go", |seen| seen.row("Second try, deleted").is_none().then_some(()));
    desktop.picture("10-merged");
    ensure!(machine.images.len() == images - 1, "{} images of {images}", machine.images.len());

    // The files: every node that is left is what it was, byte for byte, and what the machine wrote.
    ensure!(web.contents(true)? == before, "a node holds something else after the merge");
    ensure!(web.verify()? == machine.snapshots.len() + 1);
    ensure!(labelled(&machine, "By hand") == Some(by_hand));
    ensure!(machine.snapshots[&by_hand].parent == labelled(&machine, "Before update"));

    // And from there it goes on.
    desktop.click("Start");
    desktop.wait_for("the machine to run", |seen| seen.control("Stop").filter(|stop| !stop.disabled).map(drop));
    Ok(())
}

#[test]
fn a_demo_that_was_cut_short_is_made_anew_and_two_starts_share_it() -> Result<()> {
    let home = Rc::new(Home::new());
    let open = || Desktop::open_in(&home, &["demo"], 1280, 800, &[]);
    let Some(mut killed) = open() else {
        skip(NO_DISPLAY);
        return Ok(());
    };
    killed.wait_to_read("Making the demo");
    killed.wait_to_read("2 of ");
    killed.picture("0-making");
    killed.kill();
    ensure!(MachineFolder::find(home.path(), "FILES01").is_none(), "it was complete already");
    let (Some(mut first), Some(mut second)) = (open(), open()) else {
        skip(NO_DISPLAY);
        return Ok(());
    };
    for window in [&mut first, &mut second] {
        window.wait_for("the demo", |seen| seen.row("FILES01, machine").map(drop));
    }
    let web = MachineFolder::find(home.path(), "WEB01").context("WEB01's folder")?;
    ensure!(web.machine()?.snapshots.len() == 4, "{:?}", web.machine()?.snapshots);
    Ok(())
}

/// From one theme to the next, by the menu of the theme's button, until it is this one.
fn choose_theme(desktop: &mut Desktop, theme: &str) {
    let wanted = format!("Theme: {theme}");
    loop {
        let now = desktop.wait_for("the theme's button", |seen| seen.row("Theme: ").map(|button| button.name.clone()));
        if now == wanted {
            break;
        }
        desktop.click(&now);
        let next = desktop.wait_for("the next theme", |seen| {
            let offered =
                seen.all(|widget| widget.role == Role::Button && widget.name.starts_with("Theme: ") && widget.name != now);
            offered.first().map(|button| button.name.clone())
        });
        desktop.click(&next);
        desktop.wait_for("another theme", |seen| seen.row("Theme: ").filter(|button| button.name != now).map(drop));
    }
    desktop.watch(Duration::from_secs(1));
}

/// The window at one size, in both themes: what can be clicked lies inside it, and pictures are kept to be looked at.
fn in_both_themes(size: (u32, u32), scale: u32) -> Result<()> {
    let (width, height) = (size.0 / scale, size.1 / scale);
    let factor = scale.to_string();
    let Some(mut desktop) = Desktop::open(&["demo"], size.0, size.1, &[("WINIT_X11_SCALE_FACTOR", &factor)]) else {
        skip(NO_DISPLAY);
        return Ok(());
    };
    desktop.resize(width, height);
    desktop.click_row("SQL02, machine");
    desktop.wait_for("SQL02's tree", |seen| seen.row("After migration, snapshot").map(drop));
    desktop.click_row("After migration, snapshot");
    for theme in ["Dark", "Light"] {
        choose_theme(&mut desktop, theme);
        let picture = desktop.picture(&format!("{}-{}x{}", theme.to_lowercase(), size.0, size.1));
        let pixels = image::open(&picture)?.into_luma8();
        ensure!(pixels.dimensions() == size, "{} isn't {size:?} large", picture.display());
        let brightness = pixels.iter().map(|&pixel| u64::from(pixel)).sum::<u64>() / pixels.len() as u64;
        ensure!((brightness > 128) == (theme == "Light"), "{theme}: a brightness of {brightness}");
        let seen = desktop.look();
        for widget in seen.all(|widget| widget.role == Role::Button) {
            let bounds = widget.bounds.with_context(|| format!("{widget} isn't drawn"))?;
            let inside = bounds.min.x >= 0.0 && bounds.max.x <= width as f32;
            ensure!(inside, "{widget} lies outside of the window: {bounds:?}");
        }
    }
    Ok(())
}

#[test]
fn pictures_of_a_small_window() -> Result<()> {
    in_both_themes((1280, 800), 1)
}

#[test]
fn pictures_of_a_fine_window() -> Result<()> {
    in_both_themes((2560, 1440), 2)
}

#[test]
fn a_screen_reader_finds_and_uses_the_released_program() -> Result<()> {
    const PYTHON: &str = "/usr/bin/python3";
    let Some(display) = Display::open(1280, 800) else {
        skip(NO_DISPLAY);
        return Ok(());
    };
    let Some(program) = plain_program() else {
        skip("snaptree-plain isn't built; tests/run builds it");
        return Ok(());
    };
    let imports = Command::new(PYTHON).args(["-c", "import pyatspi"]).stderr(Stdio::null()).status();
    if tool("dbus-run-session").is_none() || !imports.is_ok_and(|status| status.success()) {
        skip("dbus-run-session or python3-pyatspi isn't installed");
        return Ok(());
    }
    let home = Home::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/desktop/screen_reader.py");
    let output = home
        .command("dbus-run-session".as_ref())
        .args(["--", PYTHON, script])
        .arg(&program)
        .env("DISPLAY", display.name())
        .env("LIBGL_ALWAYS_SOFTWARE", "1")
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the screen reader ended with {}:\n{said}\n{errors}", output.status);
    let name = said.lines().find_map(|line| line.strip_prefix("created ")).context("which machine was created")?;
    let created = MachineFolder::find(home.path(), name).context("the machine's folder")?.machine()?;
    ensure!(created.name == name && created.images.len() == 1);
    Ok(())
}
