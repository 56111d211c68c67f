//! An [`Action`] changes the view or becomes a request. Nothing here waits.

mod picker;
mod verbs;

pub use picker::{Picked, Picker};
pub use verbs::{command_of, step};

use std::path::{Path, PathBuf};

use snaptree_core::disk::ImageFormat;
use snaptree_core::engine::{Command, EngineHandle, Event, Mode, Refusal, Request, RequestId, powershell};
use snaptree_core::vm::qemu::OtherFormat;

use crate::action::Action;
use crate::dialogs::{Dialog, PickFor};
use crate::model::{MachineEntry, Model};
use crate::view::{Page, View};

/// The engine, as the window needs it: requests in, events out, neither ever waiting.
pub trait Engine {
    /// Sends a request; the answer comes as an event.
    fn send(&self, request: Request) -> Result<(), Refusal>;
    /// The next event, if there is one.
    fn next_event(&self) -> Option<Event>;
    /// What is called, from another thread, when there are new events.
    fn set_waker(&self, waker: Box<dyn Fn() + Send + Sync>);
}

impl Engine for EngineHandle {
    fn send(&self, request: Request) -> Result<(), Refusal> {
        Self::send(self, request)
    }
    fn next_event(&self) -> Option<Event> {
        self.events().try_recv().ok()
    }
    fn set_waker(&self, waker: Box<dyn Fn() + Send + Sync>) {
        Self::set_waker(self, waker);
    }
}

/// The engine, the names of requests, and the system's dialogs.
pub struct Dispatch {
    engine: Box<dyn Engine>,
    next: u64,
    picker: Picker,
}

impl Dispatch {
    /// Works on this engine.
    pub fn new(engine: Box<dyn Engine>) -> Self {
        Self { engine, next: 1, picker: Picker::default() }
    }

    /// Calls for a frame whenever there is something new.
    pub fn wake(&self, ctx: &egui::Context) {
        let ctx = ctx.clone();
        self.engine.set_waker(Box::new(move || ctx.request_repaint()));
    }

    /// Takes in what the engine has said, and what was chosen in the system's dialogs.
    pub fn receive(&mut self, model: &mut Model, view: &mut View) {
        while let Some(event) = self.engine.next_event() {
            model.apply(event);
        }
        match self.picker.poll() {
            Some(Picked::Path(why, path)) => self.picked(why, path, model, view),
            Some(Picked::Told(Ok(said))) => model.jobs.tell(said, false),
            Some(Picked::Told(Err(why))) => model.jobs.tell(why, true),
            None => {}
        }
        if std::mem::take(&mut model.jobs.repaired) {
            view.files.look_again();
        }
        if let Some(created) = model.jobs.created.take() {
            view.machine = Some(created);
        }
        if let Some(opened) = model.jobs.opened.take() {
            let found = model.folders().into_iter().find(|(folder, _)| *folder == opened);
            view.machine = found.and_then(|(_, machines)| machines.first().copied()).or(view.machine);
        }
        for notice in model.jobs.take_notices() {
            view.toasts.add(notice, model);
        }
    }

    fn picked(&mut self, why: PickFor, path: PathBuf, model: &mut Model, view: &mut View) {
        match (why, &mut view.dialog) {
            (PickFor::OpenFolder, Some(Dialog::OpenFolder(_))) => {
                view.dialog = None;
                self.run(Action::OpenPath(path), model, view, None);
            }
            (PickFor::Import, Some(Dialog::Import(import))) => import.chosen(&path),
            (_, Some(Dialog::Convert(convert))) => convert.chosen(why, &path),
            (_, Some(Dialog::Inspect(inspect))) => inspect.chosen(why, &path),
            _ => {}
        }
    }

    fn name(&mut self) -> RequestId {
        self.next += 1;
        RequestId(self.next - 1)
    }

    /// Asks the engine to do something to what is shown now.
    fn ask(&mut self, command: Command, mode: Mode, id: RequestId, model: &mut Model) {
        let expected_generation = command
            .machine()
            .and_then(|m| model.machine(Some(m)))
            .map(|m| m.state.machine.generation)
            .filter(|_| is_about_the_tree(&command));
        model.jobs.sent(id, command.clone(), mode == Mode::WhatIf);
        if let Err(refusal) = self.engine.send(Request { id, command, mode, expected_generation }) {
            model.jobs.tell(refusal.reason, true);
        }
    }

    /// Carries an action out. `ctx` is there but in tests of what needs no window.
    pub fn run(&mut self, action: Action, model: &mut Model, view: &mut View, ctx: Option<&egui::Context>) {
        match action {
            Action::Verb(verb) => self.verb(verb, model, view, ctx),
            Action::ShowMachine(id) => {
                view.machine = Some(id);
                view.files.folder = None;
                view.page = Page::Machines;
                view.compared = None;
                view.reveal = true;
            }
            Action::ShowFilesOf(folder) => {
                let here = |entry: &&MachineEntry| entry.files_folder() == folder;
                view.machine = model.machines.values().find(here).map(|entry| entry.state.machine.id).or(view.machine);
                view.files.folder = Some(folder);
                view.page = Page::Files;
            }
            Action::ShowMerge(machine, disk) => {
                view.machine = Some(machine);
                view.page = Page::Plan;
                view.plan.choose(disk);
            }
            Action::Select(node) => {
                if let Some(machine) = view.machine {
                    view.select(machine, node);
                }
            }
            Action::SelectIn(machine, node) => {
                view.machine = Some(machine);
                view.page = Page::Machines;
                view.select(machine, node);
                view.reveal = true;
            }
            Action::CompareWith(node) => view.compared = Some(node),
            Action::Tick(id) => {
                if !view.ticked.remove(&id) {
                    view.ticked.insert(id);
                }
            }
            Action::Untick => view.ticked.clear(),
            Action::Expand(first) => {
                if !view.expanded.remove(&first) {
                    view.expanded.insert(first);
                }
            }
            Action::Diagnose(folder) => {
                if let Some(old) = view.files.asked.take() {
                    model.jobs.forget_plan(old.1);
                }
                let id = self.name();
                view.files.asked = Some((folder.clone(), id));
                self.ask(Command::Diagnose(folder), Mode::WhatIf, id, model);
            }
            Action::TakeRepairBack(folder) => {
                self.close(model, view);
                let id = self.name();
                self.ask(Command::UndoRepair(folder), Mode::Do, id, model);
            }
            Action::Open(dialog) => self.open(*dialog, model, view),
            Action::Close => self.close(model, view),
            Action::Send(command) => {
                let id = self.name();
                self.ask(command, Mode::Do, id, model);
            }
            Action::Job(machine, action) => {
                let id = self.name();
                self.ask(Command::Job { machine, action }, Mode::Do, id, model);
            }
            Action::OpenPath(path) => {
                let id = self.name();
                self.ask(Command::OpenFolder(folder_of(path)), Mode::Do, id, model);
            }
            Action::CopyPowerShell(command) => {
                let machine = model.machine(command.machine()).map(|entry| (&*entry.state.machine, &*entry.state.folder));
                match (powershell(&command, machine), ctx) {
                    (Some(typed), Some(ctx)) => {
                        ctx.copy_text(typed);
                        model.jobs.tell("Copied: paste it into PowerShell on the Hyper-V host.", false);
                    }
                    (Some(_), None) => {}
                    (None, _) => model.jobs.tell("There is nothing to do for it on a Hyper-V host.", true),
                }
            }
            Action::Pick(why) => self.picker.ask(why, ctx),
        }
    }

    /// Opens a dialog, and asks the engine what it would do, where it says so.
    fn open(&mut self, mut dialog: Dialog, model: &mut Model, view: &mut View) {
        self.close(model, view);
        view.palette = None;
        if let Some(command) = dialog.command_to_plan(model) {
            let id = self.name();
            dialog.set_plan(id);
            self.ask(command, Mode::WhatIf, id, model);
        }
        view.dialog = Some(dialog);
    }

    fn close(&mut self, model: &mut Model, view: &mut View) {
        if let Some(plan) = view.dialog.take().and_then(|d| d.plan()) {
            model.jobs.forget_plan(plan);
        }
        view.played = None;
    }
}

/// Whether what is done depends on the tree that was shown.
fn is_about_the_tree(command: &Command) -> bool {
    matches!(
        command,
        Command::Apply { .. } | Command::Delete { .. } | Command::Merge { .. } | Command::Undelete { .. } | Command::UndoApply(_)
    )
}

/// A folder as it is; of an image or a configuration, by its name, the folder that it lies in.
fn folder_of(path: PathBuf) -> PathBuf {
    let extension = path.extension().unwrap_or_default();
    let is_configuration = ["vmcx", "vmrs", "xml"].iter().any(|known| extension.eq_ignore_ascii_case(known));
    let is_file = is_configuration || ImageFormat::of_name(&path).is_some() || OtherFormat::of(&path).is_some();
    if is_file { path.parent().map_or(path.clone(), Path::to_path_buf) } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fabricated;
    use crate::tests::Fake;

    #[test]
    fn a_folder_that_was_chosen_is_opened_and_the_dialog_is_gone() {
        let fake = Fake::default();
        let mut dispatch = Dispatch::new(Box::new(fake.clone()));
        let mut model = Model::new(fabricated::today(), chrono::FixedOffset::east_opt(0).expect("UTC"));
        let mut view = View::default();
        view.dialog = Some(Dialog::OpenFolder(String::new()));
        dispatch.picked(PickFor::OpenFolder, "/vms/of 2019.old".into(), &mut model, &mut view);
        assert!(view.dialog.is_none());
        assert_eq!(fake.done(), [Command::OpenFolder("/vms/of 2019.old".into())]);
        // Whoever has closed the dialog meanwhile wants none.
        dispatch.picked(PickFor::OpenFolder, "/vms".into(), &mut model, &mut view);
        assert_eq!(fake.done().len(), 1);
    }

    #[test]
    fn of_a_file_its_folder_is_opened() {
        for (path, folder) in [
            ("/vms/a.AVHDX", "/vms"),
            ("/vms/a.qcow2", "/vms"),
            ("/vms/a.vmcx", "/vms"),
            ("/vms/v1.2", "/vms/v1.2"),
            ("/vms", "/vms"),
        ] {
            assert_eq!(folder_of(path.into()), Path::new(folder));
        }
    }
}
