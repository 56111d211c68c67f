//! What can be done: ONE table. Toolbar, menus, keys and palette show it, in this order.

use std::path::PathBuf;

use crate::model::Node;
use egui::{Key, KeyboardShortcut, Modifiers};
use snaptree_core::engine::{Command, JobAction, JobKind, JobState, Power};
use snaptree_core::snapshot::{DiskId, Machine, MachineId, MachineKind, SnapshotId, rules};
use snaptree_core::units::ByteCount;
use uuid::Uuid;

use crate::dialogs::Dialog;
use crate::model::{MachineEntry, Model, Question};
use crate::text;
use crate::view::{Page, View};

/// Something that a click, a key or the palette asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A row of the table.
    Verb(Verb),
    /// Show a machine.
    ShowMachine(MachineId),
    /// Show the files of a folder.
    ShowFilesOf(PathBuf),
    /// Show a merge of the plan.
    ShowMerge(MachineId, DiskId),
    /// Choose a row of the tree.
    Select(Node),
    /// Choose a row of another machine's tree.
    SelectIn(MachineId, Node),
    /// Choose a second row, to compare.
    CompareWith(Node),
    /// Tick a row, or no longer.
    Tick(SnapshotId),
    /// Tick none.
    Untick,
    /// Show the rows of a collapsed run of ghosts, or no longer.
    Expand(SnapshotId),
    /// Look at the images of a folder anew.
    Diagnose(PathBuf),
    /// Take the last repair of a folder back, and close the dialog.
    TakeRepairBack(PathBuf),
    /// Open a dialog.
    Open(Box<Dialog>),
    /// Close the dialog.
    Close,
    /// Ask the engine.
    Send(Command),
    /// Copy what one would type for it on a Hyper-V host.
    CopyPowerShell(Command),
    /// Pause, resume or cancel a machine's job.
    Job(MachineId, JobAction),
    /// Look at a folder or the folder of a file, in place.
    OpenPath(PathBuf),
    /// Let the person choose a folder (or a file) in the system's dialog.
    Pick(crate::dialogs::PickFor),
}

/// Where a verb is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Above the tree.
    Toolbar,
    /// On a row's right click.
    Row,
    /// On a machine's right click, and in the toolbar's menu.
    Machine,
    /// Only in the palette and by key.
    Palette,
}

macro_rules! verbs {
    ($($name:ident: $label:expr, $tooltip:expr, $key:expr, [$($place:ident),*];)*) => {
        /// What can be done.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Verb { $($name),* }

        /// All of them, in the order in which they are shown.
        pub const TABLE: &[Entry] = &[$(Entry {
            verb: Verb::$name,
            label: $label,
            tooltip: $tooltip,
            shortcut: $key,
            places: &[$(Place::$place),*],
        }),*];
    };
}

/// A row of the table.
#[derive(Debug)]
pub struct Entry {
    pub verb: Verb,
    pub label: &'static str,
    pub tooltip: &'static str,
    pub shortcut: Option<KeyboardShortcut>,
    pub places: &'static [Place],
}

const fn ctrl(key: Key) -> Option<KeyboardShortcut> {
    Some(KeyboardShortcut::new(Modifiers::COMMAND, key))
}

const fn shift(key: Key) -> Option<KeyboardShortcut> {
    Some(KeyboardShortcut::new(Modifiers::SHIFT, key))
}

const fn plain(key: Key) -> Option<KeyboardShortcut> {
    Some(KeyboardShortcut::new(Modifiers::NONE, key))
}

verbs! {
    Take: "Take snapshot", "Keep disks, memory and configuration as they are now (a checkpoint, in Hyper-V's words)", ctrl(Key::T), [Toolbar, Row];
    Apply: "Apply…", "Continue from the selected snapshot; with Now selected, from the one below it", ctrl(Key::Enter), [Toolbar, Row];
    Delete: "Delete…", "Delete the selected or ticked snapshots; says before what that frees, and what it costs", plain(Key::Delete), [Toolbar, Row];
    DeleteSubtree: "Delete with all that hangs from it…", "Delete the selected snapshot and everything that hangs from it", shift(Key::Delete), [Row];
    Undelete: "Undelete", "Take the deletion back, as long as its merge hasn't started", None, [Row];
    Merge: "Merge due…", "Move what deleted snapshots still hold to where it belongs, and give their space back", ctrl(Key::M), [Toolbar, Row];
    Start: "Start", "Start the machine", None, [Toolbar, Machine];
    Pause: "Pause", "Let the machine stand still for a while", None, [Toolbar, Machine];
    Resume: "Resume", "Let the machine go on", None, [Toolbar, Machine];
    Stop: "Stop", "Stop the machine; its disks are flushed", None, [Toolbar, Machine];
    TurnOff: "Turn off…", "Turn this machine off at once, as by pulling the plug; its operating system isn't asked", None, [Machine];
    Viewer: "Open its screen", "Show this machine's screen in a viewer, with keys and mouse", None, [Toolbar, Machine];
    BadUpdate: "Bad update", "Scramble memory and disk of this built-in machine visibly, to see Apply put them back", None, [Toolbar, Machine];
    Rename: "Rename…", "Give the selected snapshot another label", plain(Key::F2), [Row];
    Note: "Note…", "Write a note on the selected snapshot", None, [Row];
    Protect: "Protect from deletion", "Refuse to delete the selected snapshot, or allow it again", None, [Row];
    Convert: "Write a disk to a file…", "One file of any format in place of all that the selected row, or another image, reads through", None, [Row];
    Inspect: "Look into an image…", "The parts of an image, its blocks, and what it reads through; nothing is changed", None, [Row];
    Undo: "Undo", "Take back the last deletion or apply of this machine", ctrl(Key::Z), [Row, Machine];
    Resize: "Resize a disk…", "Make a disk of this machine larger; snapshots keep the size that they had", None, [Machine];
    Settings: "Settings…", "From where on this machine is warned about, paused, or refused a snapshot", None, [Machine];
    Hardware: "Hardware…", "Processors, memory, disks and network of this machine, which QEMU runs", None, [Machine];
    EmptyTrash: "Empty the trash…", "Remove what went to this machine's trash, and give its space back now", None, [Machine];
    Verify: "Verify", "Read every byte of this machine's disks back and compare it", None, [Machine];
    Adopt: "Adopt…", "Bring this machine into the library, so that it can be changed", None, [Toolbar, Machine];
    Remove: "Remove machine…", "Forget this machine, or delete its files too", None, [Machine];
    CloseFolder: "Close this folder", "Look at this folder no longer; nothing in it is changed", None, [Machine];
    ShowMachines: "Show the machines", "The machines, each with its tree of snapshots", ctrl(Key::Num1), [Palette];
    ShowPlan: "Show the plan", "Which merge is done when, and how long the volumes hold out", ctrl(Key::Num2), [Palette];
    StartAgent: "Carry out the plan by itself", "Sets the agent up as a service of yours: it merges in the windows, also while no window of this program is open", None, [Palette];
    StopAgent: "No longer carry out the plan by itself", "Ends the agent's service and removes it", None, [Palette];
    ShowFiles: "Show the files", "What each image of a folder is, and what is wrong with it", ctrl(Key::Num4), [Palette];
    Windows: "Maintenance windows…", "When merging is allowed, for which machines, and how", ctrl(Key::Num3), [Palette];
    MakePlan: "Plan anew", "Make the plan of all merges anew, now", None, [Palette];
    ExportCalendar: "Export the plan as a calendar…", "Each merge as an event (.ics), for calendars", None, [Palette];
    ExportTable: "Export the plan as a table…", "Each merge as a row (.csv), for spreadsheets", None, [Palette];
    ExportJson: "Export the plan as JSON…", "All of the plan, for other programs", None, [Palette];
    ExportChange: "Export the plan as a change request…", "A page to print and sign (.html)", None, [Palette];
    PlanCloser: "Show fewer days", "Look closer at the plan's days", plain(Key::Plus), [Palette];
    PlanWider: "Show more days", "Look at more of the plan's days", plain(Key::Minus), [Palette];
    PlanToday: "Show today", "Go back to the days from now on", plain(Key::Num0), [Palette];
    CreateMachine: "Create a machine…", "A new machine with its disks", ctrl(Key::N), [Palette];
    OpenFolder: "Open a folder…", "Look at disk images in place; nothing is changed", ctrl(Key::O), [Palette];
    Import: "Import images…", "Bring disk images into the library as a machine", ctrl(Key::I), [Palette];
    Demo: "Look at the demo", "A library that shows the whole idea, made by really taking, applying and deleting", None, [Palette];
    Palette: "Search or run a command", "Find a machine, a snapshot or a command", ctrl(Key::P), [Palette];
    Find: "Find a snapshot", "Find a snapshot in any machine", ctrl(Key::F), [Palette];
    Rescan: "Look again", "Read the library and the opened folders again", plain(Key::F5), [Palette];
    Larger: "Larger", "Show everything larger", ctrl(Key::Plus), [Palette];
    Smaller: "Smaller", "Show everything smaller", ctrl(Key::Minus), [Palette];
    NormalSize: "Normal size", "Show everything at its normal size", ctrl(Key::Num0), [Palette];
    Theme: "Change the theme", "Light, dark, or as the system has it", None, [Palette];
    ResetView: "Reset the window", "Forget sizes of panels, scale and theme", None, [Palette];
}

impl Verb {
    /// Its row of the table.
    pub fn entry(self) -> &'static Entry {
        // The table is made in the order of the verbs.
        &TABLE[self as usize]
    }

    /// The label, with what it says about the machine at hand.
    pub fn label(self, model: &Model, view: &View) -> String {
        let plain = || self.entry().label.to_owned();
        let Some(machine) = model.machine(view.machine) else { return plain() };
        match self {
            Self::Delete if view.ticked_in(&machine.state.machine).len() > 1 => {
                format!("Delete {}…", view.ticked_in(&machine.state.machine).len())
            }
            Self::Merge => {
                match text::estimate_short(machine.figures.due_total.time).filter(|_| machine.figures.due_total.merges > 0) {
                    Some(time) => format!("Merge due · {time}"),
                    None => plain(),
                }
            }
            Self::Protect => match selected(model, view).and_then(|id| machine.state.machine.snapshots.get(&id)) {
                Some(s) if s.protected => "Protect no longer".into(),
                _ => plain(),
            },
            Self::Undo => match last_undoable(&machine.state.machine) {
                Some(Undoable::Delete(_)) => "Undo the deletion".into(),
                Some(Undoable::Apply) => "Undo the apply".into(),
                None => plain(),
            },
            _ => plain(),
        }
    }

    /// Whether it is shown for the machine at hand at all (an action of another kind of machine isn't).
    pub fn applies(self, model: &Model, view: &View) -> bool {
        // What is selected in a tree can't be seen beside the plan.
        if view.page != Page::Machines && self.is_about_the_selection() {
            return false;
        }
        let machine = model.machine(view.machine);
        let read_only = machine.is_some_and(MachineEntry::read_only);
        let power = machine.map(|m| &m.state.power);
        match self {
            Self::Start => !read_only && !power.is_some_and(Power::is_up),
            Self::Stop => !read_only && machine.is_some(),
            Self::BadUpdate | Self::Verify => !read_only && machine.is_some_and(|m| m.state.machine.kind != MachineKind::Qemu),
            Self::Hardware => !read_only && machine.is_some_and(|m| m.state.machine.kind != MachineKind::Workload),
            Self::TurnOff | Self::Viewer => !read_only && machine.is_some_and(|m| m.state.machine.kind == MachineKind::Qemu),
            Self::Pause => !read_only && !matches!(power, Some(Power::Paused | Power::NoRoom)),
            Self::Resume => matches!(power, Some(Power::Paused | Power::NoRoom)),
            Self::Adopt | Self::CloseFolder => read_only,
            Self::Remove => !read_only,
            Self::PlanCloser | Self::PlanWider | Self::PlanToday => view.page == Page::Plan,
            Self::Undelete => selected(model, view).zip(machine).is_some_and(|(id, m)| m.state.machine.ghosts.contains_key(&id)),
            _ => true,
        }
    }

    /// Whether it stands in the toolbar while the machine is in its present state: what starts, pauses and stops takes turns.
    pub fn fits(self, machine: &MachineEntry) -> bool {
        let up = machine.is_up();
        match self {
            Self::Start => !machine.read_only() && !up,
            Self::Pause => !machine.read_only() && up && !matches!(machine.state.power, Power::Paused | Power::NoRoom),
            Self::Stop => !machine.read_only() && up,
            Self::Resume => matches!(machine.state.power, Power::Paused | Power::NoRoom),
            Self::Adopt => machine.read_only(),
            Self::BadUpdate => !machine.read_only() && machine.state.machine.kind != MachineKind::Qemu,
            Self::Viewer => machine.state.outside.is_some(),
            Self::Take | Self::Apply | Self::Delete | Self::Merge => !machine.read_only(),
            _ => true,
        }
    }

    /// Whether it can be done now, or why not and what would make it possible.
    pub fn enabled(self, model: &Model, view: &View) -> Result<(), String> {
        match self {
            Self::ExportCalendar | Self::ExportTable | Self::ExportJson | Self::ExportChange => match &model.plan {
                Some(_) => Ok(()),
                None => Err("There is no plan yet: the machines are being counted.".into()),
            },
            Self::ShowMachines
            | Self::ShowPlan
            | Self::ShowFiles
            | Self::Windows
            | Self::MakePlan
            | Self::StartAgent
            | Self::StopAgent
            | Self::PlanCloser
            | Self::PlanWider
            | Self::PlanToday
            | Self::CreateMachine
            | Self::OpenFolder
            | Self::Import
            | Self::Convert
            | Self::Inspect
            | Self::Demo
            | Self::Palette
            | Self::Find
            | Self::Rescan
            | Self::Larger
            | Self::Smaller
            | Self::NormalSize
            | Self::Theme
            | Self::ResetView => Ok(()),
            _ => {
                let machine = model.machine(view.machine).ok_or("No machine is selected.")?;
                self.enabled_on(machine, model, view)
            }
        }
    }

    /// The rules look at the whole tree, so each answer is kept until something that it depends on changes.
    fn enabled_on(self, machine: &MachineEntry, model: &Model, view: &View) -> Result<(), String> {
        let m = &machine.state.machine;
        let chosen = self.is_about_the_selection();
        let question = Question {
            verb: self.entry().label,
            chosen: selected(model, view).filter(|_| chosen),
            ticked: if chosen { view.ticked_in(m) } else { Vec::new() },
            job: self.is_held_up(model.jobs.of(m.id)),
        };
        machine.figures.verdict(question, || self.judge(machine, model, view))
    }

    /// Whether a job has to end first. A merge waits for everything but another merge.
    fn is_held_up(self, job: Option<&JobState>) -> bool {
        job.is_some_and(|job| job.kind != JobKind::Merge || matches!(self, Self::Merge | Self::Remove))
    }

    /// Whether it depends on what is selected or ticked.
    fn is_about_the_selection(self) -> bool {
        matches!(
            self,
            Self::Apply | Self::Delete | Self::DeleteSubtree | Self::Undelete | Self::Rename | Self::Note | Self::Protect
        )
    }

    fn judge(self, machine: &MachineEntry, model: &Model, view: &View) -> Result<(), String> {
        let m = &machine.state.machine;
        let held_up = self.is_held_up(model.jobs.of(m.id));
        let context = rules_context(machine, held_up);
        let no = |reason: &str| Err(reason.to_owned());
        let chosen = || selected(model, view).ok_or("Select a snapshot. Now itself is never applied or deleted.");
        let said = |verdict: rules::Verdict| verdict.map_err(|why| why.to_string());
        if context.read_only && !matches!(self, Self::Adopt | Self::CloseFolder) {
            return no("This folder is only looked at. Adopt the machine to change it.");
        }
        match self {
            Self::Take => said(rules::take(m, &context, None)),
            Self::Apply => match to_apply(model, view) {
                Some(snapshot) => said(rules::apply(m, &context, snapshot)),
                None => no("There is no snapshot below Now. Take one first, or select one."),
            },
            Self::Delete => {
                let ticked = view.ticked_in(m);
                let which = if ticked.is_empty() { vec![chosen()?] } else { ticked };
                said(rules::delete(m, &context, &which, false))
            }
            Self::DeleteSubtree => said(rules::delete(m, &context, &[chosen()?], true)),
            Self::Undelete => said(rules::undelete(m, &context, chosen()?)),
            Self::Merge => said(rules::merge(m, &context, None)),
            Self::Rename => said(rules::rename(m, &context, chosen()?, None)),
            Self::Note | Self::Protect => said(rules::edit(m, &context, chosen()?)),
            Self::Resize => match m.configuration.disks.first() {
                // Any size that is larger would do.
                Some(disk) => said(rules::resize(m, &context, &disk.id, ByteCount(disk.size.0 + (1 << 20)))),
                None => no("It has no disk."),
            },
            Self::Settings => said(rules::settings(&context)),
            Self::Hardware => said(rules::hardware(m, &context)),
            Self::EmptyTrash => said(rules::empty_trash(m, &context)),
            Self::Remove => said(rules::remove(m, &context, false)),
            Self::Undo => match last_undoable(m) {
                Some(undoable) => said(judge_undo(machine, model, undoable)),
                None => no("There is nothing to undo."),
            },
            Self::Adopt | Self::CloseFolder if !context.read_only => no("This machine is in the library already."),
            Self::Start if rules::run(m).is_err() => said(rules::run(m)),
            Self::Verify | Self::BadUpdate if rules::workload(m).is_err() => said(rules::workload(m)),
            Self::Start | Self::Verify if held_up => no("A job is under way on this machine. Wait for it, or cancel it."),
            Self::Start => match machine.state.power {
                Power::Off | Power::Saved | Power::Failed(_) => Ok(()),
                _ => no("It runs already."),
            },
            Self::Stop | Self::TurnOff if machine.state.power.is_up() => Ok(()),
            Self::Viewer => match machine.state.outside {
                Some(_) => Ok(()),
                None => no("It doesn't run. Start it first."),
            },
            Self::Resume | Self::BadUpdate if machine.state.power == Power::NoRoom => {
                Err(text::sentence(text::no_room(machine.state.volume.free, m.settings.go_on_free())) + ".")
            }
            Self::Stop | Self::TurnOff | Self::BadUpdate | Self::Pause => match machine.state.power {
                Power::Running => Ok(()),
                Power::Starting => no("It is still starting."),
                Power::Paused | Power::NoRoom => no("It stands still. Resume it first."),
                _ => no("It doesn't run. Start it first."),
            },
            Self::Resume if machine.state.power != Power::Paused => no("It isn't paused."),
            _ => Ok(()),
        }
    }
}

/// The selected snapshot (or ghost) of the machine that is shown.
pub fn selected(model: &Model, view: &View) -> Option<SnapshotId> {
    let machine = model.machine(view.machine)?;
    match view.selected_in(machine)? {
        Node::Snapshot(id) => Some(id),
        Node::Now => None,
    }
}

/// What Apply goes back to: the selected snapshot, or the one that Now stands on.
pub fn to_apply(model: &Model, view: &View) -> Option<SnapshotId> {
    let machine = model.machine(view.machine)?;
    selected(model, view).or(machine.state.machine.now.parent)
}

/// What Ctrl+Z would take back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undoable {
    /// A deletion, named by one of its ghosts.
    Delete(SnapshotId),
    /// The last apply.
    Apply,
}

/// The last thing that can be taken back.
pub fn last_undoable(machine: &Machine) -> Option<Undoable> {
    last_action(machine).map(|(undoable, _)| undoable)
}

/// The same, with the action's own name: another one of the same kind has another name.
fn last_action(machine: &Machine) -> Option<(Undoable, Uuid)> {
    let deleted = machine.ghosts.iter().filter(|(_, g)| !g.sealed).max_by_key(|(id, g)| (g.deleted, **id));
    match (deleted, &machine.applied) {
        (Some((_, ghost)), Some(applied)) if applied.applied > ghost.deleted => Some((Undoable::Apply, applied.action)),
        (Some((id, ghost)), _) => Some((Undoable::Delete(*id), ghost.action)),
        (None, Some(applied)) => Some((Undoable::Apply, applied.action)),
        (None, None) => None,
    }
}

/// The name of the action that Undo would take back on a machine, if it would take back anything now.
pub fn to_undo(model: &Model, machine: MachineId) -> Option<Uuid> {
    let entry = model.machine(Some(machine))?;
    let (undoable, action) = last_action(&entry.state.machine)?;
    judge_undo(entry, model, undoable).ok().map(|()| action)
}

fn judge_undo(machine: &MachineEntry, model: &Model, undoable: Undoable) -> rules::Verdict {
    let m = &machine.state.machine;
    let context = rules_context(machine, Verb::Undo.is_held_up(model.jobs.of(m.id)));
    match undoable {
        Undoable::Apply => rules::undo_apply(m, &context),
        Undoable::Delete(id) => rules::undelete(m, &context, id),
    }
}

fn rules_context(machine: &MachineEntry, job_under_way: bool) -> rules::Context {
    rules::Context {
        power: if machine.is_up() { rules::PowerState::Running } else { rules::PowerState::Off },
        job_under_way,
        read_only: machine.read_only(),
    }
}

/// The key as it is written, such as "Ctrl+T".
pub fn key_text(ctx: &egui::Context, entry: &Entry) -> String {
    entry.shortcut.map(|s| ctx.format_shortcut(&s)).unwrap_or_default()
}

/// The verbs whose keys were pressed. Keys without Ctrl wait while text is being typed.
pub fn pressed(ctx: &egui::Context) -> Vec<Verb> {
    let typing = ctx.text_edit_focused();
    let mut found = Vec::new();
    ctx.input_mut(|input| {
        // Longer combinations first: Shift+Del also holds Del.
        for shifted in [true, false] {
            for entry in TABLE {
                let Some(shortcut) = entry.shortcut.filter(|s| s.modifiers.shift == shifted) else { continue };
                let waits = typing && (!shortcut.modifiers.command || entry.verb == Verb::Undo);
                if !waits && input.consume_shortcut(&shortcut) {
                    found.push(entry.verb);
                }
            }
        }
        // Ctrl and the = key, where + needs Shift.
        if input.consume_key(Modifiers::COMMAND, Key::Equals) {
            found.push(Verb::Larger);
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_verbs() {
        for (i, entry) in TABLE.iter().enumerate() {
            assert_eq!(entry.verb as usize, i);
            assert!(!entry.tooltip.is_empty() && !entry.label.is_empty());
        }
    }

    #[test]
    fn no_key_means_two_things() {
        for (i, a) in TABLE.iter().enumerate() {
            for b in &TABLE[i + 1..] {
                assert!(a.shortcut.is_none() || a.shortcut != b.shortcut, "{:?} and {:?}", a.verb, b.verb);
            }
        }
    }
}
