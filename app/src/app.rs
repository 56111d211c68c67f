//! The window: what we know, what is shown, and the engine. Three fields, one circle.

use snaptree_core::clock::SharedClock;

use crate::action::{self, Action};
use crate::dispatch::{Dispatch, Engine};
use crate::model::Model;
use crate::view::{STORAGE_KEY, View};
use crate::{dialogs, pages, theme, widgets};

/// The desktop program.
pub struct App {
    pub model: Model,
    pub view: View,
    pub engine: Dispatch,
}

impl App {
    /// A window on an engine.
    pub fn new(ctx: &egui::Context, view: View, engine: Box<dyn Engine>, clock: &SharedClock) -> Self {
        theme::install(ctx);
        let engine = Dispatch::new(engine);
        engine.wake(ctx);
        let zone = *chrono::Local::now().offset();
        Self { model: Model::new(clock.now(), zone), view, engine }
    }

    /// Takes in what is new. No painting.
    pub fn take_in(&mut self, ctx: &egui::Context, now: chrono::DateTime<chrono::Utc>) {
        self.model.when.now = now;
        self.engine.receive(&mut self.model, &mut self.view);
        // What was chosen before may still be on its way.
        if self.model.machine(self.view.machine).is_none() && self.model.is_read() {
            self.view.machine = pages::machines::first(&self.model, self.view.opening.machine.as_deref());
        }
        ctx.set_theme(self.view.theme.preference());
        ctx.set_zoom_factor(self.view.scale());
        // Ages and times left move on by themselves, if slowly.
        ctx.request_repaint_after(std::time::Duration::from_secs(20));
    }

    /// Shows everything, and carries out what was asked for meanwhile.
    pub fn show(&mut self, ui: &mut egui::Ui) {
        let mut actions: Vec<Action> = Vec::new();
        if self.view.dialog.is_none() && self.view.palette.is_none() {
            actions.extend(action::pressed(ui.ctx()).into_iter().map(Action::Verb));
        }
        actions.extend(dropped(ui.ctx()));
        pages::show(ui, &self.model, &mut self.view, &mut actions);
        dialogs::show(ui.ctx(), &self.model, &mut self.view, &mut actions);
        widgets::palette::show(ui.ctx(), &self.model, &mut self.view, &mut actions);
        widgets::toasts::show(ui.ctx(), &self.model, &mut self.view, &mut actions);
        if !actions.is_empty() {
            for action in actions {
                self.engine.run(action, &mut self.model, &mut self.view, Some(ui.ctx()));
            }
            ui.ctx().request_repaint();
        }
    }
}

/// Folders and files that were dropped onto the window are opened where they are.
fn dropped(ctx: &egui::Context) -> Vec<Action> {
    let files = ctx.input(|i| i.raw.dropped_files.clone());
    files.into_iter().map(|f| Action::OpenPath(f.path().to_path_buf())).collect()
}

/// The window with its clock, as eframe runs it.
pub struct Window {
    pub app: App,
    pub clock: SharedClock,
}

impl eframe::App for Window {
    fn logic(&mut self, ctx: &egui::Context, _frame: &mut eframe::Frame) {
        let now = self.clock.now();
        self.app.take_in(ctx, now);
    }

    fn ui(&mut self, ui: &mut egui::Ui, _frame: &mut eframe::Frame) {
        self.app.show(ui);
    }

    fn save(&mut self, storage: &mut dyn eframe::Storage) {
        if let Ok(text) = serde_json::to_string(&self.app.view) {
            storage.set_string(STORAGE_KEY, text);
        }
    }
}
