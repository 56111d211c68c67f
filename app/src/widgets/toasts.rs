//! Notices of what ended, at the lower right, for a while.

use std::time::{Duration, Instant};

use egui::{Align2, Area, Button, Context, Frame, Id, Margin, Order, RichText, Stroke, vec2};

use uuid::Uuid;

use super::link;
use crate::action::{Action, Verb, to_undo};
use crate::model::{Model, Notice};
use crate::theme;
use crate::view::View;

/// How long a notice stays; a bad one stays until it is closed, but not for ever.
const STAYS: Duration = Duration::from_secs(8);
const UNDO_STAYS: Duration = Duration::from_secs(20);
const BAD_STAYS: Duration = Duration::from_secs(60);
/// No more at a time.
const MOST: usize = 4;

/// What is left for the cross at the right.
const CLOSE_WIDTH: f32 = 22.0;

/// The notices that are shown.
#[derive(Default)]
pub struct Toasts(Vec<Toast>);

struct Toast {
    notice: Notice,
    since: Instant,
    /// The action that its Undo takes back, by name.
    undo: Option<Uuid>,
}

impl Toast {
    fn life(&self) -> Duration {
        match (self.notice.bad, self.undo) {
            (true, _) => BAD_STAYS,
            (false, Some(_)) => UNDO_STAYS,
            (false, None) => STAYS,
        }
    }
}

impl Toasts {
    /// Shows one more.
    pub fn add(&mut self, notice: Notice, model: &Model) {
        let undo = notice.machine.filter(|_| notice.undo).and_then(|machine| to_undo(model, machine));
        self.0.retain(|toast| toast.notice != notice);
        self.0.push(Toast { notice, since: Instant::now(), undo });
        if self.0.len() > MOST {
            self.0.remove(0);
        }
    }
}

/// Shows the notices. Undo stands there as long as it would take back just what the notice is about.
pub fn show(ctx: &Context, model: &Model, view: &mut View, actions: &mut Vec<Action>) {
    view.toasts.0.retain(|toast| toast.since.elapsed() < toast.life());
    if view.toasts.0.is_empty() {
        return;
    }
    ctx.request_repaint_after(Duration::from_secs(1));
    let mut closed = None;
    Area::new(Id::unique("notices")).order(Order::Foreground).anchor(Align2::RIGHT_BOTTOM, vec2(-16.0, -52.0)).show(ctx, |ui| {
        let p = theme::palette(ui);
        for (i, Toast { notice, undo, .. }) in view.toasts.0.iter().enumerate() {
            let undo = notice.machine.filter(|machine| undo.is_some() && *undo == to_undo(model, *machine));
            let line = if notice.bad { p.bad } else { p.line_strong };
            let frame =
                Frame::NONE.fill(p.panel).stroke(Stroke::new(1.0, line)).corner_radius(7).inner_margin(Margin::symmetric(14, 10));
            frame.shadow(ui.visuals().popup_shadow).show(ui, |ui| {
                ui.set_width(330.0);
                ui.horizontal_top(|ui| {
                    let mark = if notice.bad { RichText::new("!").color(p.bad) } else { RichText::new("✓").color(p.good) };
                    ui.label(mark.font(theme::strong()));
                    ui.vertical(|ui| {
                        ui.set_width(ui.available_width() - CLOSE_WIDTH);
                        let label = ui.label(&notice.text);
                        label.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Status, true, &notice.text));
                        if let Some(machine) = undo
                            && link(ui, "Undo").clicked()
                        {
                            actions.push(Action::ShowMachine(machine));
                            actions.push(Action::Verb(Verb::Undo));
                            closed = Some(i);
                        }
                    });
                    let close = Button::new(RichText::new("×").size(18.0).color(p.weak)).frame(false).small();
                    let close = ui.add(close).on_hover_text("Close");
                    close.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, "Close"));
                    if close.clicked() {
                        closed = Some(i);
                    }
                });
            });
            ui.add_space(8.0);
        }
    });
    if let Some(i) = closed {
        view.toasts.0.remove(i);
    }
}
