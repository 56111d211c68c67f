//! What each row of the table of actions does.

use crate::model::Node;
use snaptree_core::engine::Command;

use super::Dispatch;
use crate::action::{Action, Undoable, Verb, last_undoable, selected, to_apply};
use crate::dialogs::{self, Dialog};
use crate::export::{self, Format};
use crate::model::Model;
use crate::pages::plan::words;
use crate::view::{Page, View};
use crate::widgets::palette::Palette;

impl Dispatch {
    /// Carries out a row of the table, if it is enabled; otherwise says why not.
    pub(super) fn verb(&mut self, verb: Verb, model: &mut Model, view: &mut View, ctx: Option<&egui::Context>) {
        if !verb.applies(model, view) {
            return;
        }
        if let Err(why) = verb.enabled(model, view) {
            model.jobs.tell(format!("{}: {why}", verb.entry().label.trim_end_matches('…')), true);
            return;
        }
        match verb {
            Verb::Palette => view.palette = Some(Palette::new(false)),
            Verb::Find => view.palette = Some(Palette::new(true)),
            Verb::Larger => view.set_scale(view.scale() + 0.1),
            Verb::Smaller => view.set_scale(view.scale() - 0.1),
            Verb::NormalSize => view.set_scale(1.0),
            Verb::Theme => view.theme = view.theme.next(),
            Verb::ResetView => {
                view.reset();
                if let Some(ctx) = ctx {
                    ctx.memory_mut(|m| m.data = Default::default());
                }
            }
            Verb::ShowMachines => view.page = Page::Machines,
            Verb::ShowPlan => {
                view.page = Page::Plan;
                view.plan.reveal();
            }
            Verb::ShowFiles => {
                view.page = Page::Files;
                view.files.look_again();
            }
            Verb::Windows => self.open(Dialog::Windows(dialogs::Windows::new(model)), model, view),
            Verb::MakePlan => self.run(Action::Send(Command::MakePlan), model, view, ctx),
            Verb::ExportCalendar => self.export(Format::Ics, model, ctx),
            Verb::ExportTable => self.export(Format::Csv, model, ctx),
            Verb::ExportJson => self.export(Format::Json, model, ctx),
            Verb::ExportChange => self.export(Format::ChangeRequest, model, ctx),
            Verb::StartAgent | Verb::StopAgent => {
                if let Some(library) = &model.library {
                    self.picker.agent(&library.folder, verb == Verb::StartAgent, ctx);
                }
            }
            Verb::PlanCloser => view.plan.zoom(-1),
            Verb::PlanWider => view.plan.zoom(1),
            Verb::PlanToday => view.plan.from = None,
            Verb::Demo => self.demo(model),
            Verb::OpenFolder => self.open(Dialog::OpenFolder(String::new()), model, view),
            Verb::CreateMachine => self.open(Dialog::Create(dialogs::Create::new(model)), model, view),
            Verb::Import => self.open(Dialog::Import(dialogs::Import::default()), model, view),
            Verb::Convert => self.open(Dialog::Convert(dialogs::Convert::new(model, view)), model, view),
            Verb::Inspect => self.open(Dialog::Inspect(dialogs::Inspect::new(model, view)), model, view),
            Verb::Viewer => {
                if let Some(outside) = model.machine(view.machine).and_then(|machine| machine.state.outside.as_ref()) {
                    self.picker.viewer(&outside.viewer, ctx);
                }
            }
            Verb::Rescan => {
                view.files.look_again();
                self.run(Action::Send(Command::Rescan), model, view, ctx);
            }
            _ => {
                if let Some(action) = on_machine(verb, model, view) {
                    self.run(action, model, view, ctx);
                }
            }
        }
    }

    /// Writes the plan where the person says.
    fn export(&mut self, format: Format, model: &Model, ctx: Option<&egui::Context>) {
        if let Some(plan) = &model.plan {
            let text = export::export(format, plan, &words::names(model), export::Span::default(), &model.when);
            self.picker.save(format.file_name(), text, ctx);
        }
    }

    /// Opens the demo in a window of its own: the same program, told so.
    fn demo(&self, model: &mut Model) {
        let started = std::env::current_exe().and_then(|program| std::process::Command::new(program).arg("demo").spawn());
        match started {
            Ok(_) => model.jobs.tell("The demo opens in a window of its own.", false),
            Err(error) => model.jobs.tell(format!("The demo could not be started: {error}"), true),
        }
    }
}

/// What a verb asks of the engine for the machine at hand, where that follows from what is selected.
pub fn command_of(verb: Verb, model: &Model, view: &View) -> Option<Command> {
    match on_machine(verb, model, view)? {
        Action::Send(command) => Some(command),
        Action::Open(dialog) => match *dialog {
            Dialog::TurnOff(machine) => Some(Command::TurnOff(machine)),
            dialog => dialog.command_to_plan(model),
        },
        _ => None,
    }
}

/// What a verb about the machine at hand comes down to.
fn on_machine(verb: Verb, model: &Model, view: &View) -> Option<Action> {
    let entry = model.machine(view.machine)?;
    let machine = entry.state.machine.id;
    let chosen = selected(model, view);
    let open = |dialog| Some(Action::Open(Box::new(dialog)));
    let send = |command| Some(Action::Send(command));
    match verb {
        Verb::Take => open(Dialog::Take(dialogs::Take::new(entry, model.when))),
        Verb::Apply => open(Dialog::Apply(dialogs::Apply::new(entry, to_apply(model, view)?, model.when))),
        Verb::Delete => {
            let ticked = view.ticked_in(&entry.state.machine);
            let which = if ticked.is_empty() { vec![chosen?] } else { ticked };
            open(Dialog::Delete(dialogs::Delete::new(machine, which, false)))
        }
        Verb::DeleteSubtree => open(Dialog::Delete(dialogs::Delete::new(machine, vec![chosen?], true))),
        Verb::Undelete => send(Command::Undelete { machine, snapshot: chosen? }),
        Verb::Merge => open(Dialog::Merge(dialogs::Merge::new(entry))),
        Verb::Start => send(Command::Start(machine)),
        Verb::Stop => send(Command::Stop(machine)),
        Verb::TurnOff => open(Dialog::TurnOff(machine)),
        Verb::Pause => send(Command::Pause(machine)),
        Verb::Resume => send(Command::Resume(machine)),
        Verb::BadUpdate => send(Command::BadUpdate(machine)),
        Verb::Rename => open(Dialog::Rename(dialogs::Rename::new(entry, chosen?))),
        Verb::Note => open(Dialog::Note(dialogs::Note::new(entry, chosen?))),
        Verb::Protect => {
            let snapshot = chosen?;
            let protected = !entry.state.machine.snapshots.get(&snapshot)?.protected;
            send(Command::Protect { machine, snapshot, protected })
        }
        Verb::Undo => match last_undoable(&entry.state.machine)? {
            Undoable::Delete(snapshot) => send(Command::Undelete { machine, snapshot }),
            Undoable::Apply => send(Command::UndoApply(machine)),
        },
        Verb::Resize => open(Dialog::Resize(dialogs::Resize::new(entry)?)),
        Verb::Settings => open(Dialog::Settings(dialogs::Settings::new(entry))),
        Verb::Hardware => open(Dialog::Hardware(dialogs::Hardware::new(entry))),
        Verb::EmptyTrash => open(Dialog::EmptyTrash(dialogs::Plain::new(machine))),
        Verb::Verify => send(Command::Verify { machine, at: None }),
        Verb::Adopt => open(Dialog::Import(dialogs::Import::adopt(entry))),
        Verb::Remove => open(Dialog::Remove(dialogs::Remove::new(machine))),
        Verb::CloseFolder => match &entry.state.place {
            snaptree_core::engine::Place::Folder(folder) => send(Command::CloseFolder(folder.clone())),
            snaptree_core::engine::Place::Library => None,
        },
        _ => None,
    }
}

/// The neighbour of the selected row.
pub fn step(model: &Model, view: &View, by: isize, rows: &[Node]) -> Option<Node> {
    let selected = view.selected_in(model.machine(view.machine)?);
    let at = rows.iter().position(|n| Some(*n) == selected);
    let to = match at {
        Some(at) => at.saturating_add_signed(by).min(rows.len().checked_sub(1)?),
        None => 0,
    };
    rows.get(to).copied()
}
