//! The page as a person would use it, on made-up machines and the plan that the engine would make of them.

use std::path::Path;

use egui::accesskit::Role;
use egui_kittest::kittest::{NodeT, Queryable};
use snaptree_core::cost::MergeMode;
use snaptree_core::engine::{Command, Event, Expected, MachineState, Pin, PlanState};
use snaptree_core::snapshot::DiskId;
use snaptree_core::window::{MaintenanceWindow, OccurrenceKey, PlannedMerge, Scope, When};

use super::axis::Axis;
use super::rows::{Row, Rows, bars, tried};
use crate::model::fabricated::{self, plan as made};
use crate::tests::{Fake, Window, verb, window};

const SIZE: [f32; 2] = [1280.0, 800.0];

fn shown(events: Vec<Event>) -> (Window, Fake) {
    let (mut window, fake) = window(SIZE, 1.0, egui::Theme::Dark, events);
    window.run_steps(4);
    window.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::Num2);
    window.run_steps(4);
    (window, fake)
}

fn machines() -> Vec<MachineState> {
    made::three(Path::new("/nowhere"))
}

fn plan_of(pins: Vec<Pin>) -> PlanState {
    made::planned(&machines(), made::windows(), pins)
}

fn three() -> (Window, Fake, PlanState) {
    let plan = plan_of(Vec::new());
    let (window, fake) = shown(made::told(machines(), plan.clone()));
    (window, fake, plan)
}

fn merge_of<'p>(plan: &'p PlanState, name: &str) -> &'p PlannedMerge {
    let id = fabricated::machine_id(name);
    plan.plan.merges.iter().find(|m| m.machine == id).expect("it is due")
}

/// The taking place that begins at an hour of a day of that month.
fn occurrence(plan: &PlanState, day: u32, hour: u32) -> OccurrenceKey {
    let at = |key: &OccurrenceKey| key.start.format("%-d %-H").to_string() == format!("{day} {hour}");
    plan.occurrences.iter().map(|o| o.key).find(at).expect("a window")
}

fn pinned(name: &str, occurrence: Option<OccurrenceKey>) -> Command {
    Command::PinMerge { machine: fabricated::machine_id(name), disk: DiskId("disk0".into()), occurrence }
}

fn keep(window: &mut Window, name: &str) {
    if let Some(out) = std::env::var_os("SNAPTREE_PICTURES").map(std::path::PathBuf::from) {
        let picture = window.render().expect("a picture of the window");
        picture.save(out.join(format!("{name}.png"))).expect("the picture can be written");
    }
}

#[test]
fn pictures() {
    for (name, theme) in [("dark", egui::Theme::Dark), ("light", egui::Theme::Light)] {
        for count in [3, 200] {
            let machines = if count == 3 { machines() } else { made::many(count, Path::new("/nowhere")) };
            let plan = made::planned(&machines, made::windows(), Vec::new());
            let (mut window, _) = window(SIZE, 1.0, theme, made::told(machines, plan));
            window.run_steps(3);
            window.get_by_role_and_label(Role::Tab, "Plan").click();
            window.run_steps(5);
            assert_eq!(window.render().expect("a picture of the window").width(), 1280);
            keep(&mut window, &format!("plan-{name}-{count}"));
        }
    }
}

#[test]
fn verdicts_stand_at_rows_and_bars() {
    let (mut window, _, plan) = three();
    for name in ["SQL02", "BUILD-07", "ARCHIVE"] {
        let short = crate::text::plan::short_verdict(&merge_of(&plan, name).verdict);
        let start = format!("{name}, merge due, ");
        let row = window.get_by_label_contains(&start);
        assert_eq!(row.accesskit_node().role(), Role::ListItem);
        assert!(
            row.accesskit_node().label().expect("a name").ends_with(&short),
            "{:?} and {short}",
            row.accesskit_node().label()
        );
        let piece = &merge_of(&plan, name).pieces[0];
        let span = piece.start.format("%H:%M").to_string();
        let start = format!("{name} merge, ");
        let bar = window.get_all_by_label_contains(&start).next().expect("a bar");
        assert!(bar.accesskit_node().label().expect("a name").contains(&format!(" {span}-")), "{span}");
        assert!(bar.rect().width() >= 5.0, "{:?}", bar.rect());
    }
    // The band is where the window is: four hours of seven days wide.
    let band = window.get_by_label_contains("Weekend night, window, today 22:00-02:00").rect();
    assert!((band.width() - (SIZE[0] - 280.0 - super::NAMES) / 42.0).abs() < 3.0, "{band:?}");
    window.get_by_label_contains("ARCHIVE, merge due").click();
    window.run_steps(3);
    let app = window.state().app.as_ref().expect("the window");
    let names = super::words::names(&app.model);
    let sentence = crate::text::plan::verdict(merge_of(&plan, "ARCHIVE"), &plan, &names, &app.model.when);
    assert!(sentence.starts_with("Merge ARCHIVE in 2 windows: "), "{sentence}");
    window.get_by_label_contains("ARCHIVE merge, part 2 of 2, ");
    window.get_by_label(&sentence);
    window.get_by_label_contains("Free space of the library's volume: 148 GiB now");
}

/// Moves a merge to a place, and lets it go there.
fn drag(window: &mut Window, bar: &str, to: egui::Pos2, half_way: impl Fn(&mut Window)) {
    let from = window.get_by_label_contains(bar).rect().center();
    window.hover_at(from);
    window.run_steps(1);
    window.drag_at(from);
    window.run_steps(1);
    for share in [0.1, 0.5, 1.0] {
        window.hover_at(from + (to - from) * share);
        window.run_steps(1);
    }
    half_way(window);
    window.drop_at(to);
    window.run_steps(3);
}

#[test]
fn a_bar_that_is_dragged_onto_another_window_is_put_there() {
    let (mut window, fake, plan) = three();
    let tuesday = window.get_by_label_contains("Tuesday, long, window").rect().center();
    drag(&mut window, "SQL02 merge, ", tuesday, |window| keep(window, "plan-dragged"));
    assert_eq!(fake.done(), [pinned("SQL02", Some(occurrence(&plan, 26, 20)))]);
}

#[test]
fn a_bar_that_is_let_go_beside_the_windows_stays_where_it_is() {
    let (mut window, fake, plan) = three();
    let beside = window.get_by_label_contains("Tuesday, long, window").rect().left_center() - egui::vec2(40.0, 0.0);
    drag(&mut window, "SQL02 merge, ", beside, |_| {});
    assert_eq!(fake.done(), []);
    let own = super::words::occurrence(&plan, merge_of(&plan, "SQL02").pieces[0].occurrence).expect("its window");
    let when = window.state().app.as_ref().expect("the window").model.when;
    let own = format!(", window, {}", crate::text::plan::span(own.start(), own.end, &when));
    let own = window.get_by_label_contains(&own).rect().center();
    drag(&mut window, "SQL02 merge, ", own, |_| {});
    assert_eq!(fake.done(), [], "nor where it is planned already");
}

#[test]
fn a_window_that_is_not_for_the_machine_is_no_target() {
    let mut windows = made::windows();
    windows[1].scope = Scope::Machines([fabricated::machine_id("ARCHIVE")].into());
    let plan = made::planned(&machines(), windows, Vec::new());
    let (mut window, fake) = shown(made::told(machines(), plan));
    let tuesday = window.get_by_label_contains("Tuesday, long, window").rect().center();
    drag(&mut window, "SQL02 merge, ", tuesday, |_| {});
    assert_eq!(fake.done(), []);
}

#[test]
fn the_menu_puts_a_merge_elsewhere_and_leaves_it_to_the_planner_again() {
    let (mut window, fake, plan) = three();
    window.get_by_label_contains("BUILD-07, merge due").click();
    window.run_steps(3);
    verb(&window, "Other window…");
    window.run_steps(3);
    window.get_by_role_and_label(Role::Button, "Tue 20:00-06:00 · Tuesday, long").click();
    window.run_steps(3);
    let tuesday = occurrence(&plan, 26, 20);
    assert_eq!(fake.done(), [pinned("BUILD-07", Some(tuesday))]);
    assert!(window.query_by_label("Leave it to the planner").is_none(), "nobody has put it anywhere yet");

    let pin = Pin { machine: fabricated::machine_id("BUILD-07"), disk: DiskId("disk0".into()), occurrence: tuesday };
    let plan = plan_of(vec![pin]);
    fake.events.borrow_mut().push_back(Event::Plan(std::sync::Arc::new(plan)));
    window.run_steps(3);
    window.get_by_label_contains("BUILD-07 merge, Tue 20:");
    window.get_by_label_contains("put there by somebody");
    keep(&mut window, "plan-pinned");
    verb(&window, "Leave it to the planner");
    window.run_steps(3);
    assert_eq!(fake.done()[1..], [pinned("BUILD-07", None)]);
}

fn sent(fake: &Fake) -> Vec<MaintenanceWindow> {
    let done = fake.done();
    done.into_iter().map(|c| if let Command::SetWindow(w) = c { w } else { panic!("{c:?}") }).collect()
}

#[test]
fn the_dialog_of_windows_makes_one_and_says_beside_the_field_what_is_wrong() {
    let plan = made::planned(&machines(), Vec::new(), Vec::new());
    let (mut window, fake) = shown(made::told(machines(), plan));
    verb(&window, "Make a window…");
    window.run_steps(3);
    keep(&mut window, "plan-window");
    verb(&window, "Sat");
    window.run_steps(3);
    window.get_by_label("No day of the week is chosen.");
    let make = window.get_by_role_and_label(Role::Button, "Make it");
    assert!(make.accesskit_node().is_disabled());
    window.key_press(egui::Key::Enter);
    window.run_steps(3);
    assert_eq!(sent(&fake), [], "nor by key");
    verb(&window, "Wed");
    window.run_steps(3);
    window.get_by_role_and_label(Role::RadioButton, "may be shut down, merged, and started again by the window's end").click();
    window.run_steps(3);
    verb(&window, "Make it");
    window.run_steps(3);
    let made = sent(&fake);
    let [MaintenanceWindow { when: When::Weekly { days, from, to }, mode: MergeMode::Stopped, scope: Scope::All, .. }] =
        made.as_slice()
    else {
        panic!("{made:?}");
    };
    let clock = |time: &chrono::NaiveTime| time.format("%H:%M").to_string();
    assert_eq!((days.as_slice(), clock(from), clock(to)), ([chrono::Weekday::Wed].as_slice(), "22:00".into(), "02:00".into()));
    assert!(window.query_by_label("Make a maintenance window").is_none(), "it closes");
}

#[test]
fn the_list_of_windows_switches_changes_and_removes() {
    let (mut window, fake, plan) = three();
    verb(&window, "Windows…");
    window.run_steps(3);
    keep(&mut window, "plan-windows");
    window.get_by_label("Tuesday, long takes place").click();
    window.run_steps(3);
    assert_eq!(sent(&fake), [MaintenanceWindow { enabled: false, ..plan.windows[1].clone() }]);
    window.get_all_by_label("Change").next().expect("the first").click();
    window.run_steps(3);
    verb(&window, "Sat");
    window.run_steps(2);
    verb(&window, "Change it");
    window.run_steps(3);
    let When::Weekly { days, .. } = &sent(&fake)[1].when else { panic!("{:?}", sent(&fake)) };
    assert_eq!(days.as_slice(), [chrono::Weekday::Sun]);
    window.get_by_label("Maintenance windows");
    window.get_all_by_label("Remove").next().expect("the first").click();
    window.run_steps(3);
    verb(&window, "Remove it");
    window.run_steps(3);
    assert_eq!(fake.done()[2..], [Command::RemoveWindow(plan.windows[0].id)]);
    window.key_press(egui::Key::Escape);
    window.run_steps(3);
    assert!(window.query_by_label("Maintenance windows").is_none());
}

#[test]
fn the_strip_tells_what_the_plan_found_and_what_was_missed() {
    let mut windows = made::windows();
    windows.truncate(1);
    windows[0].scope = Scope::Machines([fabricated::machine_id("BUILD-07")].into());
    let mut plan = made::planned(&machines(), windows, Vec::new());
    let missed = Expected {
        machine: fabricated::machine_id("BUILD-07"),
        disk: DiskId("disk0".into()),
        occurrence: OccurrenceKey { window: plan.windows[0].id, start: fabricated::today() - chrono::TimeDelta::hours(158) },
        end: fabricated::today() - chrono::TimeDelta::hours(154),
    };
    plan.agent.missed.push(missed);
    let first = plan.findings.iter().position(|f| f.severity > snaptree_core::cost::Severity::Note).expect("no window");
    plan.findings.swap(0, first);
    let (mut window, fake) = shown(made::told(machines(), plan));
    window.get_by_label_contains("has a merge due and no window for it");
    window.get_all_by_label("Add window…").next().expect("a button").click();
    window.run_steps(3);
    window.get_by_label("Make a maintenance window");
    window.key_press(egui::Key::Escape);
    window.run_steps(3);
    // What there is no room for is only counted; alone it stands there.
    let mut plan = plan_of(Vec::new());
    plan.agent.missed.push(Expected { end: fabricated::today(), ..missed_of(&plan) });
    fake.events.borrow_mut().push_back(Event::Plan(std::sync::Arc::new(plan)));
    window.run_steps(3);
    window.get_by_label_contains("BUILD-07 was to be merged");
    window.get_by_label("Forget").click();
    window.run_steps(3);
    assert_eq!(fake.done(), [Command::ForgetMissed]);
}

fn missed_of(plan: &PlanState) -> Expected {
    let occurrence = OccurrenceKey { window: plan.windows[0].id, start: fabricated::today() - chrono::TimeDelta::hours(4) };
    Expected { machine: fabricated::machine_id("BUILD-07"), disk: DiskId("disk0".into()), occurrence, end: fabricated::today() }
}

#[test]
fn what_is_missing_is_said() {
    let (mut window, fake) = shown(made::told(machines(), plan_of(Vec::new())).into_iter().take(4).collect());
    window.get_by_label_contains("The machines are being counted");
    let nothing = made::planned(&[], made::windows(), Vec::new());
    fake.events.borrow_mut().push_back(Event::Plan(std::sync::Arc::new(nothing)));
    window.run_steps(3);
    window.get_by_label_contains("No merge is due.");
    keep(&mut window, "plan-nothing-due");
    let windowless = made::planned(&machines(), Vec::new(), Vec::new());
    fake.events.borrow_mut().push_back(Event::Plan(std::sync::Arc::new(windowless)));
    window.run_steps(3);
    window.get_by_label_contains("there is no maintenance window");
    keep(&mut window, "plan-no-window");
}

#[test]
fn keys_walk_rows_days_and_pages() {
    let (mut window, _, plan) = three();
    let shown = |window: &Window| {
        let view = &window.state().app.as_ref().expect("the window").view;
        (view.page, view.machine)
    };
    let order: Vec<_> = {
        let app = window.state().app.as_ref().expect("the window");
        Rows::of(&plan, &app.model).merges().map(|i| plan.plan.merges[i].machine).collect()
    };
    let first = shown(&window).1.and_then(|m| order.iter().position(|o| *o == m)).expect("one is selected");
    window.key_press(egui::Key::ArrowDown);
    window.run_steps(3);
    assert_eq!(shown(&window).1, Some(order[(first + 1).min(2)]));
    window.get_by_label("7 days");
    window.key_press(egui::Key::Minus);
    window.run_steps(3);
    window.get_by_label("14 days");
    let before = window.get_by_label_contains("Tuesday, long, window, Tue 20:00").rect();
    window.key_press(egui::Key::ArrowRight);
    window.run_steps(3);
    let after = window.get_by_label_contains("Tuesday, long, window, Tue 20:00").rect();
    assert!(after.left() < before.left() - 50.0, "{before:?} {after:?}");
    window.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::Num1);
    window.run_steps(3);
    assert_eq!(shown(&window).0, crate::view::Page::Machines);
}

/// Not a limit, since the computer may be busy, but printed: CPU of a frame of 200 merges.
#[test]
fn two_hundred_rows_are_drawn_by_what_is_in_sight() {
    let frame = |count| {
        let machines = made::many(count, Path::new("/nowhere"));
        let plan = made::planned(&machines, made::windows(), Vec::new());
        let (mut window, _) = shown(made::told(machines, plan));
        window.run_steps(20);
        window
    };
    let mut window = frame(200);
    let bars = window.query_all_by_label_contains(" merge, ").count();
    assert!((3..40).contains(&bars), "{bars} bars are drawn");
    assert_eq!(window.query_all_by_label_contains(", merge due, ").count(), 200, "all are known to screen readers");
    let (many, few) = (window.output().shapes.len(), frame(40).output().shapes.len());
    assert!(many < few + few / 4, "{many} shapes are painted, and {few} of 40 merges");
    let mut times: Vec<_> = (0..21)
        .map(|_| {
            let start = std::time::Instant::now();
            window.run_steps(1);
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("a frame of 200 merges: {:?} (median of 21), {many} shapes", times[10]);
}

#[test]
fn a_tail_that_leaves_its_window_is_cut_there() {
    let plan = plan_of(Vec::new());
    let axis = Axis::new(fabricated::today(), 7.0, 0.0, 700.0);
    let merge = merge_of(&plan, "ARCHIVE");
    let planned = bars(merge, &plan, &axis);
    assert!(planned.iter().all(|(bar, _)| bar.over.is_none()), "a plan keeps within its windows: {planned:?}");
    // The same merge in a window that ends after half of it.
    let time = merge.time.expect("it is known").p50;
    let mut short = plan.occurrences[0].clone();
    short.end = short.start() + chrono::TimeDelta::seconds((time / 2.0) as i64);
    let bar = tried(merge, Some(&short), fabricated::today(), &axis);
    assert_eq!(bar.over, Some(axis.x(short.end)));
    assert!(bar.left < axis.x(short.end) && axis.x(short.end) < bar.p90, "{bar:?}");
}

#[test]
fn rows_are_found_by_height() {
    let machines = made::many(40, Path::new("/nowhere"));
    let plan = made::planned(&machines, made::windows(), Vec::new());
    let model = crate::model::Model::new(fabricated::today(), chrono::FixedOffset::east_opt(0).expect("UTC"));
    let rows = Rows::of(&plan, &model);
    assert_eq!(rows.merges().count(), 40);
    assert_eq!(rows.rows.iter().filter(|(row, _)| matches!(row, Row::Volume(_))).count(), 4);
    for (top, bottom) in [(0.0, 10.0), (300.0, 700.0), (rows.height - 60.0, rows.height + 400.0)] {
        let seen = rows.between(top, bottom);
        let height = |i: usize| rows.rows.get(i + 1).map_or(rows.height, |(_, y)| *y);
        let wanted: Vec<usize> = (0..rows.rows.len()).filter(|i| height(*i) > top && rows.rows[*i].1 < bottom).collect();
        assert_eq!(seen.collect::<Vec<_>>(), wanted, "{top} to {bottom}");
    }
}
