//! The panel at the right: the selected snapshot, a ghost, or Now.

use crate::model::Node;
use egui::{Frame, RichText, Sense, Stroke, Ui, vec2};
use snaptree_core::engine::Outside;
use snaptree_core::snapshot::{DiskId, Ghost, ImageId, MachineKind, Snapshot, SnapshotId};

use crate::action::{Action, Verb};
use crate::model::{MachineEntry, Model};
use crate::text;
use crate::theme::{self, Tone};
use crate::view::View;
use crate::widgets::{self, caption, figure_line, pictures::Picture, pill};

/// So many lines of a console are shown; all of it is in its file.
const CONSOLE_LINES: usize = 200;

/// Shows the selected row.
pub fn show(ui: &mut Ui, machine: &MachineEntry, model: &Model, view: &mut View, actions: &mut Vec<Action>) {
    ui.spacing_mut().item_spacing.y = 4.0;
    let m = &machine.state.machine;
    if let Some(other) = view.compared {
        compare(ui, machine, model, view, other);
        return;
    }
    match view.selected_in(machine) {
        Some(Node::Snapshot(id)) => match (m.snapshots.get(&id), m.ghosts.get(&id)) {
            (Some(s), _) => snapshot(ui, machine, model, view, id, s, actions),
            (None, Some(ghost)) => self::ghost(ui, machine, model, view, id, ghost, actions),
            (None, None) => {}
        },
        Some(Node::Now) => now(ui, machine, model, view),
        None => {}
    }
}

fn title(ui: &mut Ui, name: &str, second: &str) {
    let p = theme::palette(ui);
    ui.label(RichText::new(name).font(theme::heading()));
    ui.label(RichText::new(second).color(p.weak));
    ui.add_space(4.0);
}

fn paragraph(ui: &mut Ui, text: impl Into<String>) {
    ui.label(RichText::new(text.into()).line_height(Some(18.0)));
}

fn screen(ui: &mut Ui, view: &mut View, picture: Option<Picture>, missing: &str) {
    let p = theme::palette(ui);
    let width = ui.available_width();
    let (rect, response) = ui.allocate_exact_size(vec2(width, width * 0.625), Sense::hover());
    let texture = picture.and_then(|pic| view.pictures.texture(ui.ctx(), &pic));
    match texture {
        Some(texture) => {
            widgets::paint_picture(ui.painter(), rect, 5, &texture);
            response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, "The machine's screen"));
        }
        None => {
            ui.painter().rect_filled(rect, theme::CORNER, p.ground);
            widgets::paint_disk(ui.painter(), rect.center() - vec2(0.0, 10.0), 16.0, p);
            let below = rect.center() + vec2(0.0, 22.0);
            ui.painter().text(below, egui::Align2::CENTER_CENTER, missing, theme::small(), p.weak);
        }
    }
    ui.painter().rect_stroke(rect, theme::CORNER, Stroke::new(1.0, p.line), egui::StrokeKind::Outside);
    ui.add_space(2.0);
}

fn snapshot(
    ui: &mut Ui,
    machine: &MachineEntry,
    model: &Model,
    view: &mut View,
    id: SnapshotId,
    s: &Snapshot,
    actions: &mut Vec<Action>,
) {
    let m = &machine.state.machine;
    let kind = if s.memory.is_some() { "with memory" } else { "disks only" };
    title(ui, &s.label, &format!("{} · {} · {kind}", model.when.short(s.taken), model.when.age(s.taken)));
    let picture = s.screen.as_ref().map(|file| Picture::File(machine.path(file)));
    screen(ui, view, picture, "no picture of its screen");

    caption(ui, "Apply");
    paragraph(ui, text::apply(s, machine, &model.when));
    caption(ui, "Delete");
    match machine.figures.deletion(id) {
        Some(cost) => {
            for fact in text::deletion(&cost, |n| node_name(machine, n), m.settings.trash_hours) {
                paragraph(ui, fact);
            }
            if let Some(change) = text::reads_change(&cost) {
                paragraph(ui, format!("Now, once all that is due is merged: {change}."));
            }
            paragraph(ui, "It can be undone until its merge has started, or the trash is emptied.");
        }
        None => paragraph(ui, "Being counted…"),
    }
    chain(ui, machine, Node::Snapshot(id));
    caption(ui, "Note");
    if s.note.is_empty() {
        ui.weak("None yet.");
    } else {
        paragraph(ui, &s.note);
    }
    if !machine.read_only() && widgets::link(ui, if s.note.is_empty() { "Write one" } else { "Change it" }).clicked() {
        actions.push(Action::Verb(Verb::Note));
    }
}

fn ghost(
    ui: &mut Ui,
    machine: &MachineEntry,
    model: &Model,
    view: &View,
    id: SnapshotId,
    ghost: &Ghost,
    actions: &mut Vec<Action>,
) {
    let when = &model.when;
    title(
        ui,
        &ghost.snapshot.label,
        &format!("taken {} · deleted {}", when.short(ghost.snapshot.taken), when.short(ghost.deleted)),
    );
    caption(ui, "What is left of it");
    let merge = ghost.snapshot.images.values().find_map(|image| machine.figures.merge_of(*image));
    match merge {
        Some(merge) => {
            paragraph(
                ui,
                format!(
                    "A merge is due: {} images become one. {}, {}. {} of scratch while it runs, {} come back at the end.",
                    merge.run.len(),
                    text::sentence(text::to_move(merge.bytes.data)),
                    text::estimate_long(merge.time),
                    text::bytes(merge.scratch),
                    text::bytes(merge.comes_back)
                ),
            );
            if !merge.fits {
                paragraph(ui, "The scratch space doesn't fit on the volume now.");
            }
        }
        None => paragraph(ui, "Several branches read through it, so nothing comes back until one is left."),
    }
    caption(ui, "Undelete");
    let enabled = Verb::Undelete.enabled(model, view);
    match &enabled {
        Ok(()) => paragraph(ui, "It becomes a snapshot again, just as it was, with all that was deleted together with it."),
        Err(why) => paragraph(ui, why),
    }
    ui.horizontal(|ui| {
        if widgets::button(ui, widgets::Kind::Usual, Verb::Undelete.entry().label, enabled.is_ok()).clicked() {
            actions.push(Action::Verb(Verb::Undelete));
        }
        let merge_enabled = Verb::Merge.enabled(model, view);
        if merge.is_some() {
            let button = widgets::button(ui, widgets::Kind::Usual, Verb::Merge.label(model, view), merge_enabled.is_ok());
            if widgets::explain(button, Verb::Merge, &merge_enabled).clicked() {
                actions.push(Action::Verb(Verb::Merge));
            }
        }
    });
    chain(ui, machine, Node::Snapshot(id));
}

fn now(ui: &mut Ui, machine: &MachineEntry, model: &Model, view: &mut View) {
    let m = &machine.state.machine;
    let second = match m.now.parent.and_then(|id| m.snapshots.get(&id)) {
        Some(s) => format!("since “{}”, {}", s.label, model.when.short(s.taken)),
        None => "no snapshot below it".into(),
    };
    title(ui, "Now", &second);
    let picture = machine.live.as_ref().map(|(s, _)| Picture::Live(m.id, s.clone()));
    screen(ui, view, picture, if machine.is_up() { "waiting for its screen" } else { "it doesn't run" });
    if let Some((screen, counters)) = machine.live.as_ref().filter(|_| m.kind == MachineKind::Workload) {
        ui.horizontal(|ui| {
            pill(ui, &format!("generation {}", screen.generation), Tone::Plain);
            pill(ui, &format!("checksum {:08x}", screen.checksum), Tone::Plain);
        });
        caption(ui, "Since its start");
        figure_line(ui, "Memory pages written", &counters.page_writes.to_string(), false);
        figure_line(ui, "Disk writes", &counters.disk_writes.to_string(), false);
        let mean = |d| if counters.disk_reads > 0 { text::short_duration(d) } else { "none yet".into() };
        figure_line(ui, "Disk reads, measured here", &mean(counters.read_latency), false);
        figure_line(ui, "Read back and right", &text::bytes(counters.verified), false);
        if counters.wrong.0 > 0 {
            figure_line(ui, "Read back and WRONG", &text::bytes(counters.wrong), false);
        }
    }
    if let Some(outside) = &machine.state.outside {
        computer(ui, outside, view);
    }
    caption(ui, "What it costs");
    let now = &machine.figures.now;
    figure_line(ui, "Images in its chain", &now.depth.to_string(), false);
    // Where there is no image, there is nothing to count.
    if now.depth > 0 {
        let figure = |v: Option<f64>| v.map_or("being counted".into(), |v| format!("{v:.1}"));
        figure_line(ui, "Images a read, plain stack", &figure(now.read_mean), false);
        let p95 = now.read_p95.map_or("being counted".into(), |v| v.to_string());
        figure_line(ui, "The same, 95 of 100 reads", &p95, false);
        let here = figure_line(ui, "Images a read, here", "1", false);
        here.on_hover_text("The owner map finds the image in one step, at any depth.");
    }
    if let Some(share) = now.first_write {
        figure_line(ui, "First writes that allocate", &format!("{:.0} %", share * 100.0), false);
    }
    let configuration = &m.configuration;
    caption(ui, "Configuration");
    if let Some(hardware) = &configuration.hardware {
        paragraph(ui, text::sentence(text::hardware(hardware)) + ".");
    }
    if let Some(processors) = machine.state.processors {
        figure_line(ui, "Processors", &processors.to_string(), false);
    }
    figure_line(ui, "Memory", &text::memory(configuration.memory), false);
    for disk in &configuration.disks {
        figure_line(ui, &disk.id.0, &text::bytes(disk.size), false);
    }
    chain(ui, machine, Node::Now);
}

/// What is known of a machine that QEMU runs, and what it says.
fn computer(ui: &mut Ui, outside: &Outside, view: &mut View) {
    let p = theme::palette(ui);
    ui.horizontal(|ui| match outside.accelerated {
        true => pill(ui, "runs on the processor itself (KVM)", Tone::Good),
        false => pill(ui, "emulated: many times slower", Tone::Warn),
    });
    if let Some(why) = &outside.stands_still_to_save {
        paragraph(ui, format!("It stands still while a snapshot saves its memory: {why}."));
        if let Some(command) = &outside.remedy {
            widgets::remedy(ui, command);
        }
    }
    let Some(file) = &outside.console else { return };
    caption(ui, "Console (serial port)");
    let lines = view.console.lines(ui.ctx(), file);
    if lines.is_empty() {
        ui.weak("It has said nothing yet.");
        return;
    }
    let shown = lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n");
    Frame::NONE.fill(p.ground).stroke(Stroke::new(1.0, p.line)).corner_radius(theme::CORNER).inner_margin(6).show(ui, |ui| {
        ui.set_width(ui.available_width());
        let said = egui::Label::new(RichText::new(shown).monospace().size(10.5)).wrap_mode(egui::TextWrapMode::Extend);
        egui::ScrollArea::both().id_salt("console").max_height(180.0).auto_shrink([false, true]).stick_to_bottom(true).show(
            ui,
            |ui| {
                ui.add(said);
            },
        );
    });
}

/// The name of a row.
pub fn node_name(machine: &MachineEntry, node: Node) -> String {
    match node {
        Node::Now => "Now".into(),
        Node::Snapshot(id) => crate::model::snapshot(&machine.state.machine, id).map_or("?".into(), |s| s.label.clone()),
    }
}

/// The images behind a node, disk by disk, the newest first.
fn chain(ui: &mut Ui, machine: &MachineEntry, node: Node) {
    let m = &machine.state.machine;
    let images = match node {
        Node::Now => Some(&m.now.images),
        Node::Snapshot(id) => crate::model::snapshot(m, id).map(|s| &s.images),
    };
    for (disk, leaf) in images.into_iter().flatten() {
        let from = if node == Node::Now { "from Now down".to_owned() } else { "from here down".into() };
        caption(ui, &format!("{disk}, {from}"));
        for line in chain_lines(machine, disk, *leaf) {
            let response = figure_line(ui, &line.name, &text::bytes(line.held), line.weak);
            response.on_hover_text(line.file);
        }
    }
}

struct ChainLine {
    name: String,
    held: snaptree_core::units::ByteCount,
    weak: bool,
    file: String,
}

/// Long chains show their first and last images.
const CHAIN_SHOWN: usize = 40;

fn chain_lines(machine: &MachineEntry, _disk: &DiskId, leaf: ImageId) -> Vec<ChainLine> {
    let m = &machine.state.machine;
    let mut lines: Vec<ChainLine> = Vec::new();
    let mut at = Some(leaf);
    let mut deleted = 0;
    while let Some((id, image)) = at.and_then(|id| m.images.get(&id).map(|i| (id, i))) {
        if lines.len() >= CHAIN_SHOWN {
            lines.push(ChainLine { name: "and more below".into(), held: Default::default(), weak: true, file: String::new() });
            break;
        }
        let held = machine.figures.image_held(id);
        let file = image.file.display().to_string();
        let owner = machine.tree.owner(id).map(|n| &machine.tree.nodes[n]);
        match owner {
            Some(node) if !node.ghost => {
                deleted = 0;
                let base = if image.parent.is_none() {
                    format!(" · {}", image.file.file_name().unwrap_or_default().to_string_lossy())
                } else {
                    String::new()
                };
                lines.push(ChainLine { name: format!("{}{base}", node_name(machine, node.key)), held, weak: false, file });
            }
            _ => {
                deleted += 1;
                if deleted > 1
                    && let Some(last) = lines.last_mut()
                {
                    last.name = format!("{deleted} deleted");
                    last.held += held;
                } else {
                    lines.push(ChainLine { name: "1 deleted".into(), held, weak: true, file });
                }
            }
        }
        at = image.parent;
    }
    lines
}

/// Two rows, side by side.
fn compare(ui: &mut Ui, machine: &MachineEntry, model: &Model, view: &View, other: Node) {
    let m = &machine.state.machine;
    let Some(one) = view.selected_in(machine) else { return };
    title(ui, "Compared", &format!("“{}” and “{}”", node_name(machine, one), node_name(machine, other)));
    let of = |n: Node| match n {
        Node::Now => (None, &m.configuration, m.now.memory.is_some() || machine.is_up()),
        Node::Snapshot(id) => match crate::model::snapshot(m, id) {
            Some(s) => (Some(s.taken), &s.configuration, s.memory.is_some()),
            None => (None, &m.configuration, false),
        },
    };
    let (a, b) = (of(one), of(other));
    let pair = |ui: &mut Ui, what: &str, left: String, right: String| {
        let same = left == right;
        let said = if same { left } else { format!("{left} → {right}") };
        figure_line(ui, what, &said, same);
    };
    let taken = |t: Option<chrono::DateTime<chrono::Utc>>| t.map_or("now".into(), |t| model.when.short(t));
    pair(ui, "Taken", taken(a.0), taken(b.0));
    if let (Some(x), Some(y)) = (a.0.or(Some(model.when.now)), b.0.or(Some(model.when.now))) {
        let apart = (y - x).abs().to_std().unwrap_or_default();
        figure_line(ui, "Apart", &text::duration(apart), false);
    }
    let costs = (machine.figures.node(one), machine.figures.node(other));
    if let (Some(x), Some(y)) = costs {
        pair(ui, "Held", text::bytes(x.held), text::bytes(y.held));
        pair(ui, "Depth", x.depth.to_string(), y.depth.to_string());
        let reads = |v: Option<f64>| v.map_or("…".into(), |v| format!("{v:.1}"));
        pair(ui, "Images a read", reads(x.read_mean), reads(y.read_mean));
    }
    let kept = |memory| if memory { "saved" } else { "not saved" }.to_owned();
    pair(ui, "Memory", kept(a.2), kept(b.2));
    pair(ui, "Memory size", text::memory(a.1.memory), text::memory(b.1.memory));
    pair(ui, "Disks", a.1.disks.len().to_string(), b.1.disks.len().to_string());
    ui.add_space(6.0);
    ui.weak("Select a row to end the comparison.");
}
