//! The window: what we know, what is shown, and the engine. Three fields, one circle.

use snaptree_core::clock::SharedClock;

use crate::action::{self, Action};
use crate::dispatch::{Dispatch, Engine};
use crate::model::Model;
use crate::pages::making::Making;
use crate::text::Zone;
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
        Self { model: Model::new(clock.now(), Zone::Local), view, engine }
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

/// What the window shows.
pub enum Content {
    /// The demo, while it is made.
    Making(Box<Making>),
    /// The desktop program.
    Open(Box<App>),
}

/// The window with its clock, as eframe runs it.
pub struct Window {
    pub content: Content,
    pub clock: SharedClock,
}

impl eframe::App for Window {
    fn logic(&mut self, ctx: &egui::Context, _frame: &mut eframe::Frame) {
        if let Content::Making(making) = &mut self.content {
            ctx.set_theme(making.view.theme.preference());
            ctx.set_zoom_factor(making.view.scale());
            if let Some(engine) = making.take_in() {
                let view = std::mem::take(&mut making.view);
                self.content = Content::Open(Box::new(App::new(ctx, view, engine, &self.clock)));
            }
        }
        if let Content::Open(app) = &mut self.content {
            app.take_in(ctx, self.clock.now());
        }
    }

    fn ui(&mut self, ui: &mut egui::Ui, _frame: &mut eframe::Frame) {
        match &mut self.content {
            Content::Making(making) => making.show(ui),
            Content::Open(app) => app.show(ui),
        }
    }

    /// Shows in seams between panels, where the scale isn't whole.
    fn clear_color(&self, visuals: &egui::Visuals) -> [f32; 4] {
        visuals.panel_fill.to_normalized_gamma_f32()
    }

    fn save(&mut self, storage: &mut dyn eframe::Storage) {
        let view = match &self.content {
            Content::Making(making) => &making.view,
            Content::Open(app) => &app.view,
        };
        if let Ok(text) = serde_json::to_string(view) {
            storage.set_string(STORAGE_KEY, text);
        }
    }
}
