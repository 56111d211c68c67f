//! The pages, and what stands around them: top bar, attention, tasks.

mod attention;
mod details;
pub mod files;
mod first_start;
pub mod machines;
pub mod making;
pub mod plan;
pub use details::node_name;
mod tasks;
mod topbar;

use egui::{Frame, Panel, Ui};

use crate::action::Action;
use crate::model::Model;
use crate::theme;
use crate::view::{Page, View};

/// Shows the window's content.
pub fn show(ui: &mut Ui, model: &Model, view: &mut View, actions: &mut Vec<Action>) {
    let p = theme::palette(ui);
    let bar = Frame::NONE.fill(p.panel).inner_margin(egui::Margin::symmetric(14, 7));
    Panel::top("top").frame(bar).show(ui, |ui| topbar::show(ui, model, view, actions));
    if model.library.is_none() {
        egui::CentralPanel::default().show(ui, |ui| ui.centered_and_justified(|ui| ui.weak("Reading the library…")));
        return;
    }
    if model.is_empty() {
        first_start::show(ui, actions);
        return;
    }
    if !model.attention().is_empty() {
        let strip = Frame::NONE.fill(p.strip).inner_margin(egui::Margin::symmetric(14, 4));
        Panel::top("attention").frame(strip).show(ui, |ui| attention::show(ui, model, actions));
    }
    if model.jobs.under_way().next().is_some() {
        let foot = Frame::NONE.fill(p.panel).inner_margin(egui::Margin::symmetric(14, 6));
        Panel::bottom("tasks").frame(foot).show(ui, |ui| tasks::line(ui, model, actions));
    }
    match view.page {
        Page::Machines => machines::show(ui, model, view, actions),
        Page::Plan => plan::show(ui, model, view, actions),
        Page::Files => files::show(ui, model, view, actions),
    }
}
