//! The demo while it is made: what is being done, and how far it is.

use crossbeam_channel::Receiver;
use egui::{CentralPanel, RichText, Ui};

use crate::demo::Progress;
use crate::dispatch::Engine;
use crate::theme::{self, Tone};
use crate::view::View;
use crate::widgets::bar;

/// What is heard of the making.
pub enum News {
    Progress(Progress),
    Ready(Box<dyn Engine + Send>),
    Failed(String),
}

/// The making, as the window sees it; and the view that the demo will be shown with.
pub struct Making {
    news: Receiver<News>,
    progress: Progress,
    failed: Option<String>,
    pub view: View,
}

impl Making {
    /// Nothing is heard yet.
    pub fn new(news: Receiver<News>, view: View) -> Self {
        Self { news, progress: Progress::default(), failed: None, view }
    }

    /// Takes in what is new: the engine, once the demo is ready.
    pub fn take_in(&mut self) -> Option<Box<dyn Engine>> {
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Progress(progress) => self.progress = progress,
                News::Failed(why) => self.failed = Some(why),
                News::Ready(engine) => return Some(engine),
            }
        }
        None
    }

    /// Shows how far it is.
    pub fn show(&self, ui: &mut Ui) {
        CentralPanel::default().show(ui, |ui| {
            let p = theme::palette(ui);
            ui.vertical_centered(|ui| {
                ui.add_space((ui.available_height() * 0.3).max(20.0));
                let title = if self.failed.is_some() { "The demo could not be made" } else { "Making the demo" };
                ui.label(RichText::new(title).font(egui::FontId::new(22.0, theme::strong().family)));
                ui.add_space(10.0);
                if let Some(why) = &self.failed {
                    ui.label(RichText::new(crate::text::sentence(why)).color(p.bad));
                    ui.add_space(6.0);
                    ui.label(
                        RichText::new("Close the window, and start it again: what isn't complete is made anew.").color(p.weak),
                    );
                    return;
                }
                let Progress { what, done, of } = &self.progress;
                let share = if *of == 0 { 0.0 } else { *done as f32 / *of as f32 };
                bar(ui, ui.available_width().min(460.0), share, Tone::Accent, "How far it is");
                ui.add_space(6.0);
                ui.label(what);
                if *of > 0 {
                    ui.label(RichText::new(format!("{done} of {of} snapshots")).color(p.weak));
                }
                ui.add_space(16.0);
                let says = "All of it is really created, run, taken, applied and deleted. The next time it opens at once.";
                ui.label(RichText::new(says).font(theme::small()).color(p.weak));
            });
        });
    }
}
