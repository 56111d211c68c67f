//! Jobs: a line at the foot, and the drop-down.

use egui::{Align, Layout, RichText, Ui};
use snaptree_core::engine::{JobAction, JobKind, JobPhase, JobState};

use crate::action::{Action, Verb, to_undo};
use crate::model::{Model, is_ended};
use crate::text;
use crate::theme::{self, Tone};
use crate::widgets::{bar, link};

fn share(job: &JobState) -> f32 {
    if job.total.0 == 0 { 0.0 } else { (job.done.0 as f64 / job.total.0 as f64) as f32 }
}

/// "2.5 of 4.0 GiB · 120 MiB/s · 13 s left".
fn figures(job: &JobState) -> String {
    let mut parts = Vec::new();
    if job.total.0 > 0 {
        parts.push(format!("{} of {}", text::bytes(job.done), text::bytes(job.total)));
    }
    if job.phase == JobPhase::Paused {
        parts.push("paused".into());
    } else {
        if job.rate.0 > 0.0 {
            parts.push(text::rate(job.rate));
        }
        if let Some(left) = job.left {
            parts.push(format!("{} left", text::duration(left)));
        }
    }
    parts.join(" · ")
}

fn name(job: &JobState, model: &Model) -> String {
    let what = if job.title.is_empty() { text::job(job.kind).to_owned() } else { job.title.clone() };
    match model.machine(Some(job.machine)) {
        Some(machine) => format!("{} · {what}", machine.name()),
        None => what,
    }
}

/// What it was about, once its steps don't matter any more.
fn kind(job: &JobState, model: &Model) -> String {
    match model.machine(Some(job.machine)) {
        Some(machine) => format!("{} · {}", machine.name(), text::job(job.kind)),
        None => text::job(job.kind).to_owned(),
    }
}

fn buttons(ui: &mut Ui, job: &JobState, actions: &mut Vec<Action>) {
    if !job.pausable {
        return;
    }
    if link(ui, "Cancel").on_hover_text("Stop and end it. What a merge has moved stays moved.").clicked() {
        actions.push(Action::Job(job.machine, JobAction::Cancel));
    }
    let (label, action) = match job.phase {
        JobPhase::Paused => ("Resume", JobAction::Resume),
        _ => ("Pause", JobAction::Pause),
    };
    if link(ui, label).clicked() {
        actions.push(Action::Job(job.machine, action));
    }
}

/// The line at the foot: the newest job under way.
pub fn line(ui: &mut Ui, model: &Model, actions: &mut Vec<Action>) {
    let Some(job) = model.jobs.under_way().last() else { return };
    let more = model.jobs.under_way().count() - 1;
    ui.horizontal(|ui| {
        ui.set_height(20.0);
        let label = ui.label(name(job, model));
        label.on_hover_text(text::job(job.kind));
        if more > 0 {
            ui.weak(format!("and {more} more"));
        }
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            buttons(ui, job, actions);
            if job.total.0 > 0 {
                let tone = if job.phase == JobPhase::Paused { Tone::Weak } else { Tone::Accent };
                bar(ui, 160.0, share(job), tone, &name(job, model));
            }
            ui.weak(figures(job));
        });
    });
}

/// The drop-down: what is under way, and what has ended.
pub fn list(ui: &mut Ui, model: &Model, actions: &mut Vec<Action>) {
    let p = theme::palette(ui);
    ui.set_width(380.0);
    if model.jobs.all().is_empty() {
        ui.weak("Nothing is under way, and nothing has ended since the start.");
        return;
    }
    egui::ScrollArea::vertical().max_height(420.0).show(ui, |ui| {
        for (i, job) in model.jobs.all().iter().rev().enumerate() {
            if i > 0 {
                ui.separator();
            }
            let title = if is_ended(job) { kind(job, model) } else { name(job, model) };
            ui.label(RichText::new(title).font(theme::strong()));
            match &job.phase {
                JobPhase::Running | JobPhase::Paused => {
                    if job.total.0 > 0 {
                        bar(ui, ui.available_width(), share(job), Tone::Accent, &job.title);
                    }
                    ui.horizontal(|ui| {
                        ui.weak(figures(job));
                        ui.with_layout(Layout::right_to_left(Align::Center), |ui| buttons(ui, job, actions));
                    });
                }
                JobPhase::Done(says) => {
                    said(ui, says, &text::duration(job.elapsed), p.weak);
                    if can_be_undone(job, model) && link(ui, "Undo").clicked() {
                        actions.extend([Action::ShowMachine(job.machine), Action::Verb(Verb::Undo)]);
                    }
                }
                JobPhase::Cancelled(says) => said(ui, says, "cancelled", p.weak),
                JobPhase::Failed(says) => said(ui, says, "failed", p.bad),
            }
        }
    });
}

/// Whether Undo would take back just this job.
fn can_be_undone(job: &JobState, model: &Model) -> bool {
    use JobKind::{Apply, Delete, Undelete, UndoApply};
    let of_history = |j: &&JobState| j.machine == job.machine && matches!(j.kind, Apply | Delete | Undelete | UndoApply);
    let is_last = model.jobs.all().iter().rfind(of_history).is_some_and(|last| last.id == job.id);
    is_last && matches!(job.kind, Apply | Delete) && to_undo(model, job.machine).is_some()
}

fn said(ui: &mut Ui, says: &str, how: &str, color: egui::Color32) {
    let text = if says.is_empty() { text::sentence(how) } else { format!("{} ({how})", text::sentence(says)) };
    ui.label(RichText::new(text).font(theme::small()).color(color));
}
