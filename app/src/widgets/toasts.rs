//! Notices of what ended, at the lower right, for a while.

use std::time::{Duration, Instant};

use egui::{Align2, Area, Context, Frame, Id, Margin, Order, RichText, Stroke, vec2};

use super::link;
use crate::action::{Action, Verb};
use crate::model::Notice;
use crate::theme;
use crate::view::View;

/// How long a notice stays; a bad one stays until it is closed, but not for ever.
const STAYS: Duration = Duration::from_secs(8);
const UNDO_STAYS: Duration = Duration::from_secs(20);
const BAD_STAYS: Duration = Duration::from_secs(60);
/// No more at a time.
const MOST: usize = 4;

/// The notices that are shown.
#[derive(Default)]
pub struct Toasts(Vec<(Notice, Instant)>);

impl Toasts {
    /// Shows one more.
    pub fn add(&mut self, notice: Notice) {
        self.0.retain(|(n, _)| *n != notice);
        // Undo takes back the last thing, so only the last notice about a machine offers it.
        for (older, _) in &mut self.0 {
            older.undo &= older.machine != notice.machine;
        }
        self.0.push((notice, Instant::now()));
        if self.0.len() > MOST {
            self.0.remove(0);
        }
    }
}

/// Shows the notices.
pub fn show(ctx: &Context, view: &mut View, actions: &mut Vec<Action>) {
    let life = |n: &Notice| match (n.bad, n.undo) {
        (true, _) => BAD_STAYS,
        (false, true) => UNDO_STAYS,
        (false, false) => STAYS,
    };
    view.toasts.0.retain(|(n, since)| since.elapsed() < life(n));
    if view.toasts.0.is_empty() {
        return;
    }
    ctx.request_repaint_after(Duration::from_secs(1));
    let mut closed = None;
    Area::new(Id::unique("notices")).order(Order::Foreground).anchor(Align2::RIGHT_BOTTOM, vec2(-16.0, -52.0)).show(ctx, |ui| {
        let p = theme::palette(ui);
        for (i, (notice, _)) in view.toasts.0.iter().enumerate() {
            let line = if notice.bad { p.bad } else { p.line_strong };
            let frame =
                Frame::NONE.fill(p.panel).stroke(Stroke::new(1.0, line)).corner_radius(7).inner_margin(Margin::symmetric(14, 10));
            frame.shadow(ui.visuals().popup_shadow).show(ui, |ui| {
                ui.set_width(330.0);
                ui.horizontal_top(|ui| {
                    let mark = if notice.bad { RichText::new("!").color(p.bad) } else { RichText::new("✓").color(p.good) };
                    ui.label(mark.font(theme::strong()));
                    ui.vertical(|ui| {
                        let label = ui.label(&notice.text);
                        label.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Status, true, &notice.text));
                        ui.horizontal(|ui| {
                            if notice.undo && link(ui, "Undo").clicked() {
                                actions.extend(notice.machine.map(Action::ShowMachine));
                                actions.push(Action::Verb(Verb::Undo));
                                closed = Some(i);
                            }
                            if link(ui, "Close").clicked() {
                                closed = Some(i);
                            }
                        });
                    });
                });
            });
            ui.add_space(8.0);
        }
    });
    if let Some(i) = closed {
        view.toasts.0.remove(i);
    }
}
