//! Dialogs state facts, not "are you sure". The destructive button is never the default;
//! Esc closes, Enter does the safe thing.

mod apply;
mod convert;
mod create;
mod delete;
mod disks;
mod edit;
mod hardware;
mod import;
mod inspect;
mod merge;
mod repair;
mod resize;
mod settings;
mod take;
#[cfg(test)]
mod tests;
mod windows;

use std::path::PathBuf;

pub use apply::Apply;
pub use convert::Convert;
pub use create::Create;
pub use delete::Delete;
pub use edit::{Note, Rename};
pub use hardware::Hardware;
pub use import::Import;
pub use inspect::Inspect;
pub use merge::{Merge, Plain, Remove};
pub use repair::Repair;
pub use resize::Resize;
pub use settings::Settings;
pub use take::Take;
pub use windows::Windows;

use disks::Disks;
use egui::{Context, Id, Key, Modal, Modifiers, RichText, Ui};
use snaptree_core::engine::{Command, RequestId, has_powershell};
use snaptree_core::snapshot::MachineId;
use snaptree_core::store::name_problem;
use snaptree_core::units::ByteCount;

use crate::action::Action;
use crate::model::Model;
use crate::text;
use crate::theme;
use crate::view::View;
use crate::widgets::{self, COPY_POWERSHELL, Kind};

/// What a path is chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PickFor {
    /// To be looked at.
    OpenFolder,
    /// To be imported.
    Import,
    /// An image that a dialog is about.
    Image,
    /// A file that isn't there yet.
    NewFile,
}

/// The dialog that is open.
#[derive(Debug, Clone, PartialEq)]
pub enum Dialog {
    Take(Take),
    Apply(Apply),
    Delete(Delete),
    Merge(Merge),
    Create(Create),
    Import(Import),
    Convert(Convert),
    Inspect(Inspect),
    Repair(Repair),
    /// What the repairs of a folder keep, and how much that is.
    ForgetRepairs(PathBuf, ByteCount),
    Rename(Rename),
    Note(Note),
    Remove(Remove),
    Resize(Resize),
    Settings(Settings),
    Hardware(Hardware),
    EmptyTrash(Plain),
    TurnOff(MachineId),
    Windows(Windows),
    /// The path as it is typed.
    OpenFolder(String),
}

impl Dialog {
    /// What the engine is asked to plan when the dialog opens.
    pub fn command_to_plan(&self, model: &Model) -> Option<Command> {
        match self {
            Self::Take(d) => Some(d.command()),
            Self::Apply(d) => Some(d.command()),
            Self::Delete(d) => Some(d.command()),
            Self::Merge(d) => Some(d.command()),
            Self::EmptyTrash(d) => Some(Command::EmptyTrash { machine: d.machine, all: true }),
            Self::Remove(d) => Some(d.command()),
            Self::Import(d) => d.command(),
            Self::Convert(d) => d.command(),
            Self::Inspect(d) => d.command(),
            Self::Repair(d) => Some(d.to_plan()),
            Self::Create(_)
            | Self::Rename(_)
            | Self::Note(_)
            | Self::Resize(_)
            | Self::Settings(_)
            | Self::Hardware(_)
            | Self::ForgetRepairs(..)
            | Self::TurnOff(_)
            | Self::Windows(_)
            | Self::OpenFolder(_) => {
                let _ = model;
                None
            }
        }
    }

    fn plan_place(&mut self) -> Option<&mut Option<RequestId>> {
        match self {
            Self::Take(d) => Some(&mut d.plan),
            Self::Apply(d) => Some(&mut d.plan),
            Self::Delete(d) => Some(&mut d.plan),
            Self::Merge(d) => Some(&mut d.plan),
            Self::EmptyTrash(d) => Some(&mut d.plan),
            Self::Remove(d) => Some(&mut d.plan),
            Self::Import(d) => Some(&mut d.plan),
            Self::Convert(d) => Some(&mut d.plan),
            Self::Inspect(d) => Some(&mut d.plan),
            Self::Repair(d) => Some(&mut d.plan),
            _ => None,
        }
    }

    /// The plan was asked for under this name.
    pub fn set_plan(&mut self, id: RequestId) {
        if let Some(place) = self.plan_place() {
            *place = Some(id);
        }
    }

    /// The name of the plan that it waits for.
    pub fn plan(mut self) -> Option<RequestId> {
        self.plan_place().copied().flatten()
    }

    fn width(&self) -> f32 {
        match self {
            Self::Inspect(_) | Self::Repair(_) => 704.0,
            _ => 460.0,
        }
    }

    /// Goes one step back inside of it; answers whether there was one. Otherwise it closes.
    fn step_back(&mut self) -> bool {
        match self {
            Self::Windows(d) => d.step_back(),
            _ => false,
        }
    }

    fn title(&self, model: &Model) -> String {
        let machine = |id| model.machine(Some(id)).map(|m| m.name().to_owned()).unwrap_or_default();
        match self {
            Self::Take(d) => format!("Take a snapshot of {}", machine(d.machine)),
            Self::Apply(d) => d.title(model),
            Self::Delete(d) => d.title(model),
            Self::Merge(d) => format!("Merge what is due on {}", machine(d.machine)),
            Self::Create(_) => "Create a machine".into(),
            Self::Import(d) => d.title(),
            Self::Convert(_) => "Write a disk to a file".into(),
            Self::Inspect(_) => "Look into an image".into(),
            Self::Repair(d) => d.title(),
            Self::ForgetRepairs(folder, _) => format!("Free what repairs of {} keep", text::file_name(folder)),
            Self::Rename(_) => "Rename a snapshot".into(),
            Self::Note(_) => "Note".into(),
            Self::Resize(d) => format!("Resize a disk of {}", machine(d.machine)),
            Self::Settings(d) => format!("Settings of {}", machine(d.machine)),
            Self::Hardware(d) => format!("Hardware of {}", machine(d.machine)),
            Self::Remove(d) => format!("Remove {}", machine(d.machine)),
            Self::EmptyTrash(d) => format!("Empty the trash of {}", machine(d.machine)),
            Self::TurnOff(id) => format!("Turn {} off", machine(*id)),
            Self::Windows(d) => d.title(),
            Self::OpenFolder(_) => "Open a folder".into(),
        }
    }

    /// Shows its content; says what was asked for.
    fn content(&mut self, ui: &mut Ui, model: &Model, foot: &mut Foot) {
        match self {
            Self::Take(d) => d.show(ui, model, foot),
            Self::Apply(d) => d.show(ui, model, foot),
            Self::Delete(d) => d.show(ui, model, foot),
            Self::Merge(d) => d.show(ui, model, foot),
            Self::Create(d) => d.show(ui, model, foot),
            Self::Import(d) => d.show(ui, model, foot),
            Self::Convert(d) => d.show(ui, model, foot),
            Self::Inspect(d) => d.show(ui, model, foot),
            Self::Repair(d) => d.show(ui, model, foot),
            Self::ForgetRepairs(folder, kept) => repair::forget(ui, (folder, *kept), foot),
            Self::Rename(d) => d.show(ui, model, foot),
            Self::Note(d) => d.show(ui, foot),
            Self::Resize(d) => d.show(ui, model, foot),
            Self::Settings(d) => d.show(ui, foot),
            Self::Hardware(d) => d.show(ui, model, foot),
            Self::Remove(d) => d.show(ui, model, foot),
            Self::EmptyTrash(d) => d.show_trash(ui, model, foot),
            Self::TurnOff(id) => merge::turn_off(ui, *id, foot),
            Self::Windows(d) => d.show(ui, model, foot),
            Self::OpenFolder(path) => import::open_folder(ui, path, foot),
        }
    }
}

/// The buttons at the foot of a dialog, and what they lead to.
pub struct Foot {
    /// The label of the button that does it; there is none without.
    pub label: String,
    /// The label of the button that closes.
    pub close: &'static str,
    /// Whether it destroys something: then Enter closes instead.
    pub danger: bool,
    /// Why it can't be done, if it can't.
    pub refused: Option<String>,
    /// Whether that is only because nothing was filled in yet.
    pub unfilled: bool,
    /// What it does.
    pub action: Option<Action>,
    /// Something else that was clicked.
    pub other: Option<Action>,
}

/// Why a machine can't have a name, in a sentence.
fn name_refused(model: &Model, name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("A machine needs a name.".into());
    }
    if model.machines.values().any(|machine| machine.name() == name && !machine.read_only()) {
        return Some(format!("There is a machine called “{name}” already."));
    }
    name_problem(name).map(|problem| format!("The name {problem}."))
}

/// Takes a plan's refusal over into the foot.
fn refuse(foot: &mut Foot, model: &Model, plan: Option<RequestId>) {
    if let Some(Err(why)) = plan.and_then(|id| model.jobs.plan(id)) {
        foot.refused = Some(why.clone());
    }
}

/// Sentences, each a fact.
fn facts(ui: &mut Ui, facts: impl IntoIterator<Item = String>) {
    let p = theme::palette(ui);
    for fact in facts {
        ui.horizontal_top(|ui| {
            ui.spacing_mut().item_spacing.x = 8.0;
            let (rect, _) = ui.allocate_exact_size(egui::vec2(5.0, 18.0), egui::Sense::hover());
            ui.painter().circle_filled(rect.center(), 2.0, p.weak);
            ui.add(egui::Label::new(RichText::new(fact).line_height(Some(18.0))).wrap());
        });
    }
}

/// A field with its label above it.
fn field(ui: &mut Ui, label: &str, text: &mut String, hint: &str) -> egui::Response {
    let p = theme::palette(ui);
    let said = ui.label(RichText::new(label).color(p.weak));
    let edit = egui::TextEdit::singleline(text).hint_text(hint).desired_width(f32::INFINITY).margin(egui::vec2(8.0, 6.0));
    let response = ui.add(edit).labelled_by(said.id);
    ui.add_space(4.0);
    response
}

/// Gives a field the keyboard when its dialog opens, and marks `text`: typing replaces it.
fn focus_first(ui: &Ui, response: &egui::Response, text: &str) {
    let id = Id::unique("dialog-focused");
    let focused = ui.data(|d| d.get_temp::<bool>(id)).unwrap_or(false);
    if !focused {
        response.request_focus();
        ui.data_mut(|d| d.insert_temp(id, true));
        let mut state = egui::text_edit::TextEditState::load(ui.ctx(), response.id).unwrap_or_default();
        let all = egui::text::CCursorRange::two(egui::text::CCursor::new(0), egui::text::CCursor::new(text.chars().count()));
        state.cursor.set_char_range(Some(all));
        state.store(ui.ctx(), response.id);
    }
}

/// Shows the dialog, if one is open.
pub fn show(ctx: &Context, model: &Model, view: &mut View, actions: &mut Vec<Action>) {
    let Some(mut dialog) = view.dialog.take() else {
        ctx.data_mut(|d| d.insert_temp(Id::unique("dialog-focused"), false));
        return;
    };
    // Keys for the dialog are taken before its fields see them, but not from a note of several lines.
    let many_lines = matches!(dialog, Dialog::Note(_));
    let enter = !many_lines && ctx.input_mut(|i| i.consume_key(Modifiers::NONE, Key::Enter));
    let mut foot =
        Foot { label: String::new(), close: "Cancel", danger: false, refused: None, unfilled: false, action: None, other: None };
    let mut clicked = None;
    let frame = egui::Frame::window(&ctx.global_style());
    let modal = Modal::new(Id::unique("dialog")).frame(frame).show(ctx, |ui| {
        ui.set_width(dialog.width());
        ui.spacing_mut().item_spacing.y = 6.0;
        let title = dialog.title(model);
        let heading = ui.label(RichText::new(&title).font(theme::heading()));
        heading.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Heading, true, &title));
        ui.add_space(6.0);
        dialog.content(ui, model, &mut foot);
        ui.add_space(10.0);
        clicked = buttons(ui, &mut foot, enter);
    });
    // A click beside it doesn't close it: it may be the second half of a double click, and typed text would be lost.
    let escaped = modal.should_close() && !modal.backdrop_response.clicked();
    let by_enter = enter && clicked.is_none();
    let confirmed = clicked == Some(true) || (by_enter && !foot.danger && foot.refused.is_none());
    let closed = clicked == Some(false) || (by_enter && foot.danger) || escaped;
    let ends = (confirmed && foot.action.is_some()) || closed;
    let stays = ends && dialog.step_back();
    view.dialog = Some(dialog);
    if let Some(other) = foot.other {
        actions.push(other);
    }
    if confirmed && let Some(action) = foot.action {
        actions.push(action);
    }
    if ends && !stays {
        actions.push(Action::Close);
    }
}

/// The buttons: which was clicked, the one that does it (true) or Cancel. Enter presses the one that has the keyboard.
fn buttons(ui: &mut Ui, foot: &mut Foot, enter: bool) -> Option<bool> {
    let p = theme::palette(ui);
    let mut clicked = None;
    if let Some(Action::Send(command)) = foot.action.as_ref().filter(|_| foot.refused.is_none())
        && has_powershell(command)
    {
        let link = widgets::link(ui, COPY_POWERSHELL).on_hover_text("What does the same on a Hyper-V host, to be pasted there");
        if link.clicked() {
            foot.other = Some(Action::CopyPowerShell(command.clone()));
        }
    }
    if let Some(why) = &foot.refused {
        let said = ui.label(RichText::new(why).color(if foot.unfilled { p.weak } else { p.bad }));
        said.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Status, true, why));
        ui.add_space(4.0);
    }
    // As high as a button, whatever the last dialog left free.
    let row = egui::vec2(ui.available_width(), ui.spacing().interact_size.y);
    ui.allocate_ui_with_layout(row, egui::Layout::right_to_left(egui::Align::Center), |ui| {
        let pressed = |r: &egui::Response| r.clicked() || (enter && r.has_focus() && r.enabled());
        if foot.label.is_empty() {
            if pressed(&ui.button(foot.close)) {
                clicked = Some(false);
            }
            return;
        }
        let kind = if foot.danger { Kind::Danger } else { Kind::Primary };
        let response = widgets::button(ui, kind, foot.label.as_str(), foot.refused.is_none() && foot.action.is_some());
        let response = match &foot.refused {
            Some(why) => response.on_disabled_hover_text(why),
            None => response,
        };
        if pressed(&response) {
            clicked = Some(true);
        }
        if pressed(&ui.button(foot.close)) {
            clicked = Some(false);
        }
    });
    clicked
}
