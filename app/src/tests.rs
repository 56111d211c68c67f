//! The real view function, clicked by label and by key, on a made-up library.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT, Queryable};
use snaptree_core::clock::{Clock, SharedClock};
use snaptree_core::engine::{Answer, Command, Event, MachineState, Mode, Power, Refusal, Request};
use snaptree_core::units::ByteCount;

use crate::app::App;
use crate::demo::Progress;
use crate::dispatch::Engine;
use crate::model::fabricated;
use crate::pages::making::{Making, News};
use crate::view::View;

/// Keeps what was asked, and says what it is told to say.
#[derive(Default, Clone)]
pub struct Fake {
    pub asked: Rc<RefCell<Vec<Request>>>,
    pub events: Rc<RefCell<VecDeque<Event>>>,
}

impl Fake {
    /// What was asked to be done (plans not counted).
    pub fn done(&self) -> Vec<Command> {
        self.asked.borrow().iter().filter(|r| r.mode == Mode::Do).map(|r| r.command.clone()).collect()
    }
}

impl Engine for Fake {
    fn send(&self, request: Request) -> Result<(), Refusal> {
        if request.mode == Mode::Do {
            let answer = Event::Answer { request: request.id, answer: Ok(Answer::Done("It is done.".into())) };
            self.events.borrow_mut().push_back(answer);
        }
        self.asked.borrow_mut().push(request);
        Ok(())
    }
    fn next_event(&self) -> Option<Event> {
        self.events.borrow_mut().pop_front()
    }
    fn set_waker(&self, _: Box<dyn Fn() + Send + Sync>) {}
}

#[derive(Debug)]
struct Today;

impl Clock for Today {
    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        fabricated::today()
    }
    fn elapsed(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

pub struct Shown {
    pub app: Option<App>,
    view: Option<View>,
    fake: Fake,
}

pub type Window = Harness<'static, Shown>;

pub fn window(size: [f32; 2], scale: f32, theme: egui::Theme, events: Vec<Event>) -> (Window, Fake) {
    let fake = Fake::default();
    fake.events.borrow_mut().extend(events);
    let mut view = View::default();
    view.theme = match theme {
        egui::Theme::Dark => crate::theme::ThemeChoice::Dark,
        egui::Theme::Light => crate::theme::ThemeChoice::Light,
    };
    let shown = Shown { app: None, view: Some(view), fake: fake.clone() };
    let harness = Harness::builder().with_size(size).with_pixels_per_point(scale).with_theme(theme).wgpu().build_ui_state(
        |ui, shown: &mut Shown| {
            let clock: SharedClock = std::sync::Arc::new(Today);
            let ctx = ui.ctx().clone();
            let app = shown.app.get_or_insert_with(|| {
                let mut app = App::new(&ctx, shown.view.take().unwrap_or_default(), Box::new(shown.fake.clone()), &clock);
                app.model.when.zone = chrono::FixedOffset::east_opt(0).expect("UTC").into();
                app
            });
            app.take_in(&ctx, clock.now());
            app.show(ui);
        },
        shown,
    );
    (harness, fake)
}

fn usual() -> (Window, Fake, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fabricated::write_screens(folder.path());
    let (mut window, fake) = window([1280.0, 800.0], 1.0, egui::Theme::Dark, fabricated::events(folder.path()));
    window.run_steps(4);
    (window, fake, folder)
}

#[test]
fn pictures() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fabricated::write_screens(folder.path());
    let out = std::env::var_os("SNAPTREE_PICTURES").map(std::path::PathBuf::from);
    for (name, size, scale, theme) in [
        ("dark-1280", [1280.0, 800.0], 1.0, egui::Theme::Dark),
        ("light-1280", [1280.0, 800.0], 1.0, egui::Theme::Light),
        ("dark-2560", [1280.0, 720.0], 2.0, egui::Theme::Dark),
        ("light-2560", [1280.0, 720.0], 2.0, egui::Theme::Light),
    ] {
        let (mut window, _) = window(size, scale, theme, fabricated::events(folder.path()));
        window.run_steps(3);
        window.get_by_label_contains("SQL02, machine").click();
        window.run_steps(3);
        window.get_by_label_contains("After migration, snapshot").click();
        for _ in 0..6 {
            window.run_steps(2);
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        let picture = window.render().expect("a picture of the window");
        assert_eq!(picture.width(), (size[0] * scale) as u32);
        if let Some(out) = &out {
            picture.save(out.join(format!("{name}.png"))).expect("the picture can be written");
        }
    }
}

pub fn verb(window: &Window, label: &str) {
    window.get_by_role_and_label(egui::accesskit::Role::Button, label).click();
}

#[test]
fn rows_have_names_levels_and_are_selected_by_a_click() {
    let (mut window, _, _folder) = usual();
    window.get_by_label_contains("SQL02, machine").click();
    window.run_steps(6);
    let row = window.get_by_label_contains("Before SP1, snapshot, 2 of 15");
    assert_eq!(row.accesskit_node().role(), egui::accesskit::Role::TreeItem);
    assert_eq!(row.accesskit_node().level(), Some(2));
    row.click();
    window.run_steps(3);
    window.get_by_label_contains("8 deleted snapshots, deleted, 5 of 15, 40.1 GiB, merge due: ");
}

#[test]
fn delete_states_facts_and_enter_does_not_delete() {
    let (mut window, fake, _folder) = usual();
    window.get_by_label_contains("SQL02, machine").click();
    window.run_steps(6);
    window.get_by_label_contains("Test branch, snapshot").click();
    window.run_steps(3);
    verb(&window, "Delete…");
    window.run_steps(3);
    window.get_by_label("Delete “Test branch”");
    window.key_press(egui::Key::Enter);
    window.run_steps(3);
    assert!(window.query_by_label("Delete “Test branch”").is_none(), "Enter closes");
    assert_eq!(fake.done(), [], "and deletes nothing");
    window.key_press(egui::Key::Delete);
    window.run_steps(3);
    verb(&window, "Delete");
    window.run_steps(3);
    let done = fake.done();
    let [Command::Delete { snapshots, subtree: false, free_now: false, .. }] = done.as_slice() else {
        panic!("{:?}", fake.done());
    };
    assert_eq!(snapshots.as_slice(), [fabricated::snapshot_id("SQL02", 13)]);
    window.get_by_label("It is done.");
}

#[test]
fn take_by_key_with_a_label_typed() {
    let (mut window, fake, _folder) = usual();
    window.get_by_label_contains("FILES01, machine").click();
    window.run_steps(3);
    window.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::T);
    window.run_steps(3);
    let field = window.get_by_role_and_label(egui::accesskit::Role::TextInput, "Label");
    field.focus();
    window.run_steps(2);
    window.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::A);
    window.get_by_role_and_label(egui::accesskit::Role::TextInput, "Label").type_text("Before the move");
    window.run_steps(2);
    window.key_press(egui::Key::Enter);
    window.run_steps(3);
    let done = fake.done();
    let [Command::Take { label, memory: false, .. }] = done.as_slice() else {
        panic!("{:?}", fake.done());
    };
    assert_eq!(label, "Before the move");
}

#[test]
fn the_palette_runs_a_command_and_says_why_another_cannot_be_run() {
    let (mut window, fake, _folder) = usual();
    window.get_by_label_contains("FILES01, machine").click();
    window.run_steps(2);
    window.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::P);
    window.run_steps(3);
    window.get_by_role(egui::accesskit::Role::SearchInput).type_text("start");
    window.run_steps(3);
    window.key_press(egui::Key::Enter);
    window.run_steps(3);
    assert_eq!(fake.done(), [Command::Start(fabricated::machine_id("FILES01"))]);
    window.get_by_role_and_label(egui::accesskit::Role::Button, "Bad update").hover();
    window.run_steps(2);
    let spoil = window.get_by_role_and_label(egui::accesskit::Role::Button, "Bad update");
    assert!(spoil.accesskit_node().is_disabled());
}

#[test]
fn what_a_machine_is_warned_about_is_set_in_a_dialog() {
    let (mut window, fake, _folder) = usual();
    window.get_by_label_contains("FILES01, machine").click();
    window.run_steps(2);
    window.get_by_label("More").click();
    window.run_steps(3);
    window.get_by_label("Settings…").click();
    window.run_steps(3);
    window.get_by_label("usually 72 h: VMware's advice, as a snapshot is no backup");
    window.get_by_label("Nothing is changed yet.");
    let button = |window: &Window| window.get_by_label("Keep the settings").accesskit_node().is_disabled();
    assert!(button(&window));
    window.get_by_role_and_label(egui::accesskit::Role::SpinButton, "Warn at this depth").focus();
    window.run_steps(2);
    for _ in 0..3 {
        window.key_press(egui::Key::ArrowUp);
        window.run_steps(2);
    }
    assert!(!button(&window));
    window.get_by_role_and_label(egui::accesskit::Role::SpinButton, "Empty the trash after").focus();
    window.run_steps(2);
    window.event(egui::Event::Text("48".into()));
    window.run_steps(2);
    window.get_by_label("Keep the settings").click();
    window.run_steps(3);
    let done = fake.done();
    let [Command::SetSettings { machine, settings }] = done.as_slice() else { panic!("{done:?}") };
    assert_eq!(*machine, fabricated::machine_id("FILES01"));
    let usual = snaptree_core::snapshot::Settings::default();
    assert_eq!(*settings, snaptree_core::snapshot::Settings { warn_depth: 9, trash_hours: 48, ..usual });
}

#[test]
fn arrows_walk_the_tree_and_space_ticks() {
    let (mut window, _, _folder) = usual();
    window.get_by_label_contains("SQL02, machine").click();
    window.run_steps(3);
    window.get_by_label_contains("Installed, snapshot").click();
    window.run_steps(3);
    window.key_press(egui::Key::ArrowDown);
    window.run_steps(3);
    window.key_press(egui::Key::ArrowDown);
    window.run_steps(3);
    let app = window.state().app.as_ref().expect("the window");
    let machine = app.model.machine(app.view.machine).expect("a machine");
    let third = crate::model::Node::Snapshot(fabricated::snapshot_id("SQL02", 2));
    assert_eq!(app.view.selected_in(machine), Some(third));
    window.key_press(egui::Key::Space);
    window.run_steps(3);
    window.get_by_label("Ticked 1:");
}

#[test]
fn the_first_start_offers_three_ways() {
    let empty = snaptree_core::engine::LibraryState::default();
    let (mut window, _) = window([1000.0, 700.0], 1.0, egui::Theme::Light, vec![Event::Library(std::sync::Arc::new(empty))]);
    window.run_steps(3);
    for label in ["Look at the demo", "Open a folder", "Create a machine"] {
        window.get_by_label(label);
    }
    window.get_by_label("Create a machine").click();
    window.run_steps(3);
    window.get_by_role_and_label(egui::accesskit::Role::Button, "Create");
}

#[test]
fn the_demo_says_how_far_it_is_and_opens_or_says_why_not() {
    let (news, heard) = crossbeam_channel::unbounded();
    let mut window = Harness::builder().with_size([900.0, 600.0]).wgpu().build_ui_state(
        |ui, making: &mut Making| {
            crate::theme::install(ui.ctx());
            assert!(making.take_in().is_none());
            making.show(ui);
        },
        Making::new(heard, View::default()),
    );
    window.run_steps(2);
    window.get_by_label("Making the demo");
    news.send(News::Progress(Progress { what: "DB01: snapshots".into(), done: 3, of: 12 })).expect("it listens");
    window.run_steps(2);
    window.get_by_label("DB01: snapshots");
    window.get_by_label("3 of 12 snapshots");
    let bar = window.get_by_role(egui::accesskit::Role::ProgressIndicator);
    assert_eq!(bar.accesskit_node().numeric_value(), Some(25.0));
    news.send(News::Failed("no space is left".into())).expect("it listens");
    window.run_steps(2);
    window.get_by_label("The demo could not be made");
    window.get_by_label("No space is left");
    assert!(window.query_by_label("3 of 12 snapshots").is_none());
}

#[test]
fn a_notice_offers_undo_only_while_it_can_be_done() {
    let (mut window, fake, folder) = usual();
    window.get_by_label_contains("SQL02, machine").click();
    window.run_steps(6);
    window.get_by_label_contains("Test branch, snapshot").click();
    window.run_steps(3);
    verb(&window, "Delete…");
    window.run_steps(3);
    verb(&window, "Delete");
    window.run_steps(3);
    window.get_by_label("Undo");
    // A merge starts, of its deletion too.
    let Some(Event::Machine(state)) = fabricated::events(folder.path())
        .into_iter()
        .find(|event| matches!(event, Event::Machine(state) if state.machine.name == "SQL02"))
    else {
        panic!("SQL02 is made up")
    };
    let mut machine = (*state.machine).clone();
    machine.ghosts.values_mut().for_each(|ghost| ghost.sealed = true);
    let sealed = MachineState { machine: std::sync::Arc::new(machine), ..(*state).clone() };
    fake.events.borrow_mut().push_back(Event::Machine(std::sync::Arc::new(sealed)));
    window.run_steps(3);
    window.get_by_label("It is done.");
    assert!(window.query_by_label("Undo").is_none(), "it can't be undone any more");
}

/// Not a limit, but printed: how long a frame takes in which a key moves the selection among 10,000 rows.
#[test]
fn keys_walk_ten_thousand_rows() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let state = std::sync::Arc::new(fabricated::large(10_000, folder.path()));
    let id = state.machine.id;
    let library = snaptree_core::engine::LibraryState { machines: vec![id], ..Default::default() };
    let (mut window, _) = window(
        [1280.0, 800.0],
        1.0,
        egui::Theme::Dark,
        vec![Event::Library(std::sync::Arc::new(library)), Event::Machine(state)],
    );
    window.run_steps(60);
    window.key_press(egui::Key::Home);
    window.run_steps(2);
    let mut times: Vec<_> = (0..21)
        .map(|_| {
            window.key_press(egui::Key::ArrowDown);
            let start = std::time::Instant::now();
            window.run_steps(1);
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("the next of 10,000 rows: {:?} (median of 21), {:?} at most", times[10], times[20]);
    let app = window.state().app.as_ref().expect("the window");
    let machine = app.model.machine(Some(id)).expect("the machine");
    let at = app.view.selected_in(machine).and_then(|node| machine.tree.place(node));
    assert_eq!(at, Some(21));
}

/// The median of frames that each bring other rows into sight.
fn scrolled(window: &mut Window) -> std::time::Duration {
    window.get_all_by_role(egui::accesskit::Role::TreeItem).next().expect("a row").hover();
    window.run_steps(2);
    let mut times: Vec<_> = (0..21)
        .map(|_| {
            window.event(egui::Event::MouseWheel {
                unit: egui::MouseWheelUnit::Page,
                delta: egui::vec2(0.0, -1.0),
                phase: egui::TouchPhase::Move,
                source: egui::MouseWheelSource::Wheel,
                modifiers: egui::Modifiers::NONE,
            });
            let start = std::time::Instant::now();
            window.run_steps(1);
            start.elapsed()
        })
        .collect();
    times.sort();
    times[10]
}

/// Not a limit, since the computer may be busy, but printed: CPU of a frame of 10,000 snapshots.
#[test]
fn ten_thousand_snapshots_are_drawn_by_what_is_in_sight() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let state = std::sync::Arc::new(fabricated::large(10_000, folder.path()));
    let library = snaptree_core::engine::LibraryState { machines: vec![state.machine.id], ..Default::default() };
    let events = vec![Event::Library(std::sync::Arc::new(library)), Event::Machine(state)];
    let (mut window, _) = window([1280.0, 800.0], 1.0, egui::Theme::Dark, events);
    window.run_steps(10);
    let rows = window.query_all_by_role(egui::accesskit::Role::TreeItem).count();
    assert!((5..100).contains(&rows), "{rows} rows are known to screen readers");
    let first = scrolled(&mut window);
    println!("scrolling through 10,000 snapshots: {first:?} a frame (median of 21)");
    // What rows cost is computed bit by bit; then frames only paint.
    window.run_steps(60);
    let mut times: Vec<_> = (0..21)
        .map(|_| {
            let start = std::time::Instant::now();
            window.run_steps(1);
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("a frame of 10,000 snapshots: {:?} (median of 21)", times[10]);
}

#[test]
fn the_toolbar_stays_where_it_is_when_a_merges_time_becomes_known() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let counted = fabricated::sql02(folder.path());
    let counting = MachineState { census: Default::default(), ..counted.clone() };
    let mut events = fabricated::events(folder.path());
    events.push(Event::Machine(std::sync::Arc::new(counting)));
    let (mut window, fake) = window([1280.0, 800.0], 1.0, egui::Theme::Dark, events);
    window.run_steps(4);
    window.get_by_label_contains("SQL02, machine").click();
    window.run_steps(4);
    let button = |window: &Window, label| window.get_by_role_and_label(egui::accesskit::Role::Button, label).rect();
    let (merge, stop) = (button(&window, "Merge due…"), button(&window, "Stop"));
    fake.events.borrow_mut().push_back(Event::Machine(std::sync::Arc::new(counted)));
    window.run_steps(4);
    let mut timed = window.query_all_by_label_contains("Merge due ·");
    let timed = timed.find(|node| node.accesskit_node().role() == egui::accesskit::Role::Button).expect("the time is known");
    assert_eq!((timed.rect(), button(&window, "Stop")), (merge, stop), "{:?}", timed.accesskit_node().label());
}

#[test]
fn a_machine_that_waits_for_room_says_so_everywhere() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fabricated::write_screens(folder.path());
    let mut state = fabricated::sql02(folder.path());
    state.power = Power::NoRoom;
    state.volume.free = ByteCount::mib(180);
    let mut events = fabricated::events(folder.path());
    events.push(Event::Machine(std::sync::Arc::new(state)));
    let (mut window, _) = window([1280.0, 800.0], 1.0, egui::Theme::Dark, events);
    window.run_steps(4);
    window.get_by_label_contains("SQL02, machine, no room").click();
    window.run_steps(4);
    let why = "only 180 MiB are free on its volume, and it goes on by itself at 250 MiB";
    assert!(window.query_all_by_label_contains(&format!("It is paused: {why}")).next().is_some(), "above the tree");
    assert!(window.query_all_by_label_contains(&format!("is paused: {why}. ")).next().is_some(), "in the strip");
    assert!(window.get_by_label("Resume").accesskit_node().is_disabled(), "it goes on by itself");
    assert!(!window.get_by_label("Stop").accesskit_node().is_disabled());
    if let Some(out) = std::env::var_os("SNAPTREE_PICTURES").map(std::path::PathBuf::from) {
        let picture = window.render().expect("a picture of the window");
        picture.save(out.join("no-room.png")).expect("the picture can be written");
    }
}
