//! The real view function, clicked by label and by key, on a made-up library.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use snaptree_core::clock::{Clock, SharedClock};
use snaptree_core::engine::{Answer, Command, Event, Mode, Refusal, Request};

use crate::app::App;
use crate::dispatch::Engine;
use crate::model::fabricated;
use crate::view::View;

/// Keeps what was asked, and says what it is told to say.
#[derive(Default, Clone)]
pub struct Fake {
    pub asked: Rc<RefCell<Vec<Request>>>,
    pub events: Rc<RefCell<VecDeque<Event>>>,
}

impl Fake {
    /// What was asked to be done (plans not counted).
    fn done(&self) -> Vec<Command> {
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

struct Today;

impl Clock for Today {
    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        fabricated::today()
    }
    fn elapsed(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

struct Shown {
    app: Option<App>,
    view: Option<View>,
    fake: Fake,
}

type Window = Harness<'static, Shown>;

fn window(size: [f32; 2], scale: f32, theme: egui::Theme, events: Vec<Event>) -> (Window, Fake) {
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
                app.model.when.zone = chrono::FixedOffset::east_opt(0).expect("UTC");
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
