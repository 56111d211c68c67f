//! The page as a person would use it, on made-up machines and the plan that the engine would make of them.

use std::path::Path;
use std::sync::Arc;

use egui::accesskit::Role;
use egui_kittest::kittest::{NodeT, Queryable};
use snaptree_core::cost::MergeMode;
use snaptree_core::engine::{Command, Event, Expected, MachineState, Pin};
use snaptree_core::snapshot::DiskId;
use snaptree_core::window::{Scope, When};

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

fn three() -> (Window, Fake) {
    let plan = made::planned(&machines(), made::windows(), Vec::new());
    shown(made::told(machines(), plan))
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
            let picture = window.render().expect("a picture of the window");
            assert_eq!(picture.width(), 1280);
            keep(&mut window, &format!("plan-{name}-{count}"));
        }
    }
}
