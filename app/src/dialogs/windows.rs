//! Maintenance windows: a list, and a form for one of them in its place.

use std::collections::BTreeSet;

use chrono::{Datelike, Days, NaiveDate, NaiveTime, Weekday};
use egui::{RichText, ScrollArea, TextEdit, Ui, vec2};
use snaptree_core::cost::MergeMode;
use snaptree_core::engine::Command;
use snaptree_core::snapshot::MachineId;
use snaptree_core::units::{ByteCount, ByteRate};
use snaptree_core::window::{MaintenanceWindow, Scope, When, WindowId, WindowProblem};

use super::{Foot, field, focus_first};
use crate::action::Action;
use crate::model::Model;
use crate::pages::plan::words;
use crate::text;
use crate::theme;
use crate::widgets::{Kind, button, link, whole_number};

/// The list, or one window of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Windows {
    form: Option<Form>,
    /// A window that may be removed with the next click.
    removing: Option<WindowId>,
    /// Whether the form was opened from the list, and leads back to it.
    from_list: bool,
}

/// A window as it is typed.
#[derive(Debug, Clone, PartialEq)]
struct Form {
    id: WindowId,
    is_new: bool,
    name: String,
    weekly: bool,
    days: Vec<Weekday>,
    date: String,
    from: String,
    to: String,
    some: bool,
    machines: BTreeSet<MachineId>,
    mode: MergeMode,
    limited: bool,
    limit_mib: u32,
    enabled: bool,
}

const WEEK: [Weekday; 7] = [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat, Weekday::Sun];

/// What is wrong with the times as they are typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unreadable {
    Date,
    From,
    To,
}

impl Windows {
    /// The list; where there is none yet, a new window.
    pub fn new(model: &Model) -> Self {
        let is_empty = model.plan.as_ref().is_none_or(|plan| plan.windows.is_empty());
        let form = is_empty.then(|| Form::new(model, None));
        Self { form, removing: None, from_list: false }
    }

    /// A new window: for one machine, where others have theirs.
    pub fn add(model: &Model, machine: MachineId) -> Self {
        let is_first = model.plan.as_ref().is_none_or(|plan| plan.windows.is_empty());
        Self { form: Some(Form::new(model, (!is_first).then_some(machine))), removing: None, from_list: false }
    }

    pub(super) fn title(&self) -> String {
        match &self.form {
            None => "Maintenance windows".into(),
            Some(form) if form.is_new => "Make a maintenance window".into(),
            Some(_) => "Change a maintenance window".into(),
        }
    }

    /// From the form back to the list; answers whether that was possible.
    pub(super) fn step_back(&mut self) -> bool {
        let goes_back = self.from_list && self.form.is_some();
        if goes_back {
            self.form = None;
        }
        goes_back
    }

    pub(super) fn show(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        match &mut self.form {
            Some(form) => form.show(ui, model, foot),
            None => self.list(ui, model, foot),
        }
    }

    fn list(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        let p = theme::palette(ui);
        foot.close = "Close";
        let windows = model.plan.as_ref().map(|plan| plan.windows.as_slice()).unwrap_or_default();
        if windows.is_empty() {
            ui.label("None yet. A window is a time in which merging is allowed.");
        }
        let mut edited = None;
        ScrollArea::vertical().max_height(360.0).auto_shrink([false, true]).show(ui, |ui| {
            for window in windows {
                let mut enabled = window.enabled;
                ui.horizontal(|ui| {
                    let tick = ui.checkbox(&mut enabled, "");
                    tick.widget_info(|| {
                        egui::WidgetInfo::selected(egui::Role::CheckBox, true, enabled, format!("{} takes place", window.name))
                    });
                    if tick.on_hover_text("Whether it takes place").changed() {
                        foot.other = Some(Action::Send(Command::SetWindow(MaintenanceWindow { enabled, ..window.clone() })));
                    }
                    ui.vertical(|ui| {
                        ui.spacing_mut().item_spacing.y = 1.0;
                        ui.set_width(ui.available_width() - 130.0);
                        let color = if window.enabled { p.text } else { p.weak };
                        ui.add(egui::Label::new(theme::bold(&window.name).color(color)).truncate());
                        let said = text::sentence(text::plan::window(window, &words::names(model)));
                        ui.add(egui::Label::new(RichText::new(said).font(theme::small()).color(p.weak)).wrap());
                    });
                    if link(ui, "Change").clicked() {
                        edited = Some(Form::of(window, model));
                    }
                    if link(ui, "Remove").clicked() {
                        self.removing = Some(window.id);
                    }
                });
                if self.removing == Some(window.id) {
                    ui.horizontal(|ui| {
                        ui.label("What is planned for it is planned anew.");
                        if button(ui, Kind::Danger, "Remove it", true).clicked() {
                            foot.other = Some(Action::Send(Command::RemoveWindow(window.id)));
                            self.removing = None;
                        }
                        if ui.button("Keep it").clicked() {
                            self.removing = None;
                        }
                    });
                }
                ui.separator();
            }
        });
        if ui.button("Add a window…").clicked() {
            edited = Some(Form::new(model, None));
        }
        if edited.is_some() {
            (self.form, self.from_list, self.removing) = (edited, true, None);
        }
    }
}

impl Form {
    /// Next Saturday night, as a suggestion.
    fn new(model: &Model, machine: Option<MachineId>) -> Self {
        let today = words::local(&model.when, model.when.now).date_naive();
        let ahead = (Weekday::Sat.num_days_from_monday() + 7 - today.weekday().num_days_from_monday()) % 7;
        let saturday = today.checked_add_days(Days::new(ahead.into())).unwrap_or(today);
        Self {
            id: WindowId::new(),
            is_new: true,
            name: "Weekend night".into(),
            weekly: true,
            days: vec![Weekday::Sat],
            date: saturday.format("%Y-%m-%d").to_string(),
            from: "22:00".into(),
            to: "02:00".into(),
            some: machine.is_some(),
            machines: machine.into_iter().collect(),
            mode: MergeMode::Live,
            limited: false,
            limit_mib: 50,
            enabled: true,
        }
    }

    fn of(window: &MaintenanceWindow, model: &Model) -> Self {
        let time = |time: NaiveTime| time.format("%H:%M").to_string();
        let mut form = Self { id: window.id, is_new: false, name: window.name.clone(), ..Self::new(model, None) };
        match &window.when {
            When::Weekly { days, from, to } => (form.days, form.from, form.to) = (days.clone(), time(*from), time(*to)),
            When::Once { from, to } => {
                (form.weekly, form.date) = (false, from.date().format("%Y-%m-%d").to_string());
                (form.from, form.to) = (time(from.time()), time(to.time()));
            }
        }
        if let Scope::Machines(machines) = &window.scope {
            (form.some, form.machines) = (true, machines.clone());
        }
        if let Some(limit) = window.limit {
            (form.limited, form.limit_mib) = (true, (limit.0 / (1 << 20) as f64).round().max(1.0) as u32);
        }
        (form.mode, form.enabled) = (window.mode, window.enabled);
        form
    }

    fn when(&self) -> Result<When, Unreadable> {
        let time = |text: &str, which| NaiveTime::parse_from_str(text.trim(), "%H:%M").map_err(|_| which);
        let (from, to) = (time(&self.from, Unreadable::From)?, time(&self.to, Unreadable::To)?);
        if self.weekly {
            let days = WEEK.into_iter().filter(|day| self.days.contains(day)).collect();
            return Ok(When::Weekly { days, from, to });
        }
        let date = self.date().ok_or(Unreadable::Date)?;
        let end = if to <= from { date.checked_add_days(Days::new(1)).ok_or(Unreadable::Date)? } else { date };
        Ok(When::Once { from: date.and_time(from), to: end.and_time(to) })
    }

    fn date(&self) -> Option<NaiveDate> {
        NaiveDate::parse_from_str(self.date.trim(), "%Y-%m-%d").ok()
    }

    fn window(&self, when: When) -> MaintenanceWindow {
        MaintenanceWindow {
            id: self.id,
            name: self.name.trim().into(),
            when,
            scope: if self.some { Scope::Machines(self.machines.clone()) } else { Scope::All },
            mode: self.mode,
            limit: self.limited.then(|| ByteRate(ByteCount::mib(self.limit_mib.into()).0 as f64)),
            enabled: self.enabled,
        }
    }

    fn show(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        let when = self.when();
        let problem = when.clone().ok().and_then(|when| self.window(when).check().err());
        let name = field(ui, "Name", &mut self.name, "Weekend night");
        focus_first(ui, &name, &self.name);
        said(ui, problem, WindowProblem::NoName);
        self.time(ui, &when, problem);
        ui.add_space(6.0);
        self.scope(ui, model);
        said(ui, problem, WindowProblem::NoMachines);
        ui.add_space(6.0);
        ui.label(theme::bold("Machines that run"));
        ui.radio_value(&mut self.mode, MergeMode::Live, "go on: they are merged while they run");
        let stopped = "may be shut down, merged, and started again by the window's end";
        ui.radio_value(&mut self.mode, MergeMode::Stopped, stopped);
        ui.add_space(6.0);
        ui.horizontal(|ui| {
            ui.checkbox(&mut self.limited, "Move at most");
            let value = whole_number(&mut self.limit_mib, 1..=10_000, 1, " MiB/s");
            ui.add_enabled(self.limited, value);
        });
        said(ui, problem, WindowProblem::LimitTooLow);
        ui.checkbox(&mut self.enabled, "It takes place");
        foot.label = if self.is_new { "Make it" } else { "Change it" }.into();
        // What is wrong stands beside its field.
        foot.action = match (self.when(), problem) {
            (Ok(when), None) => Some(Action::Send(Command::SetWindow(self.window(when)))),
            _ => None,
        };
    }

    fn time(&mut self, ui: &mut Ui, when: &Result<When, Unreadable>, problem: Option<WindowProblem>) {
        let p = theme::palette(ui);
        ui.horizontal(|ui| {
            ui.radio_value(&mut self.weekly, true, "Every week");
            ui.radio_value(&mut self.weekly, false, "Once");
        });
        if self.weekly {
            ui.horizontal(|ui| {
                ui.spacing_mut().item_spacing.x = 4.0;
                for day in WEEK {
                    let is_chosen = self.days.contains(&day);
                    let name = if is_chosen { theme::bold(day.to_string()) } else { RichText::new(day.to_string()) };
                    let response = ui.add(egui::Button::selectable(is_chosen, name).min_size(vec2(44.0, 26.0)));
                    if response.clicked() {
                        if is_chosen { self.days.retain(|d| *d != day) } else { self.days.push(day) }
                    }
                }
            });
            said(ui, problem, WindowProblem::NoDays);
        } else {
            ui.horizontal(|ui| {
                let label = ui.label("On");
                ui.add(TextEdit::singleline(&mut self.date).desired_width(96.0).hint_text("2026-05-30")).labelled_by(label.id);
                match self.date() {
                    Some(date) => ui.label(RichText::new(date.format("%A %-d %B %Y").to_string()).color(p.weak)),
                    None => ui.label(RichText::new("Year, month and day, such as 2026-05-30.").color(p.bad)),
                };
            });
        }
        ui.horizontal(|ui| {
            for (name, text) in [("From", &mut self.from), ("to", &mut self.to)] {
                let label = ui.label(name);
                ui.add(TextEdit::singleline(text).desired_width(56.0).hint_text("22:00")).labelled_by(label.id);
            }
            let next_day = match when {
                Ok(When::Weekly { from, to, .. }) => to <= from,
                Ok(When::Once { from, to }) => to.date() > from.date(),
                Err(Unreadable::From | Unreadable::To) => {
                    ui.label(RichText::new("Hours and minutes, such as 22:00.").color(p.bad));
                    false
                }
                Err(Unreadable::Date) => false,
            };
            if next_day {
                ui.label(RichText::new("on the next day").color(p.weak));
            }
        });
        said(ui, problem, WindowProblem::EndsFirst);
    }

    fn scope(&mut self, ui: &mut Ui, model: &Model) {
        ui.horizontal(|ui| {
            ui.radio_value(&mut self.some, false, "All machines");
            ui.radio_value(&mut self.some, true, "Some");
        });
        if !self.some {
            return;
        }
        ScrollArea::vertical().id_salt("window-machines").max_height(110.0).auto_shrink([false, true]).show(ui, |ui| {
            ui.spacing_mut().item_spacing.y = 2.0;
            for id in model.library_machines() {
                let Some(machine) = model.machine(Some(id)) else { continue };
                let mut is_in = self.machines.contains(&id);
                if ui.checkbox(&mut is_in, machine.name()).changed() {
                    if is_in {
                        self.machines.insert(id)
                    } else {
                        self.machines.remove(&id)
                    };
                }
            }
        });
    }
}

/// A problem, if it is this one, under its field.
fn said(ui: &mut Ui, problem: Option<WindowProblem>, which: WindowProblem) {
    if let Some(problem) = problem.filter(|problem| *problem == which) {
        let p = theme::palette(ui);
        let words = format!("{}.", text::sentence(problem.to_string()));
        let response = ui.label(RichText::new(&words).font(theme::small()).color(p.bad));
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Status, true, &words));
    }
}
