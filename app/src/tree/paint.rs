//! Paints the rows that can be seen. Everything that a row says comes from `row`, every line from `lanes`.

use std::rc::Rc;

use crate::model::Node;
use egui::{
    Align2, EventFilter, Id, Key, Modifiers, Rect, Response, Role, ScrollArea, Sense, Stroke, StrokeKind, Ui, pos2, vec2,
};
use snaptree_core::engine::JobKind;
use snaptree_core::snapshot::MachineId;
use snaptree_core::units::ByteCount;

use super::fate::{self, Played};
use super::lanes::{self, Dot, Lanes, Line};
use super::row::{self, RowText};
use super::rows::{Row, Rows};
use crate::action::{Action, Place, Verb};
use crate::model::{MachineEntry, Model};
use crate::text::Said;
use crate::theme::{self, Palette, Tone};
use crate::view::View;
use crate::widgets::{self, pictures::Picture, put, put_parts};
use crate::{dispatch, text};

/// Height of a row.
pub const ROW: f32 = 50.0;
/// When figures are on their way, the next frame comes after this.
const SOON: std::time::Duration = std::time::Duration::from_millis(15);
/// From this many rows on, only those in sight are told to screen readers.
const TELL_ALL: usize = 1000;

/// From this width on, there is room for bars beside the bytes.
const BARS: f32 = 620.0;
/// Pictures give way to names that have less room than this.
const NAME: f32 = 130.0;

/// Where the columns stand. Where it is narrow, bars and pictures give way to words.
struct Columns {
    lanes: Lanes,
    tick: f32,
    picture: Option<Rect>,
    name: (f32, f32),
    held: f32,
    bar: Option<(f32, f32)>,
    reads: f32,
    outcome: (f32, f32),
}

impl Columns {
    fn new(area: Rect, lanes: u32) -> Self {
        let lanes = Lanes::new(area.left() + 10.0, lanes, (area.width() * 0.16).clamp(40.0, 150.0));
        let tick = area.left() + 14.0 + lanes.width;
        let picture = Rect::from_min_size(pos2(tick + 24.0, 0.0), vec2(54.0, 34.0));
        let right = area.right() - 14.0;
        let outcome = (area.width() * 0.27).clamp(150.0, 320.0);
        let outcome_left = right - outcome;
        let reads = outcome_left - 22.0;
        let bar_right = reads - 52.0;
        let (bar, held) = if area.width() > BARS {
            let bar = if area.width() > 900.0 { 90.0 } else { 44.0 };
            (Some((bar_right - bar, bar_right)), bar_right - bar - 10.0)
        } else {
            (None, bar_right)
        };
        let room = |left: f32| held - 62.0 - left;
        let picture = Some(picture).filter(|picture| room(picture.right() + 12.0) >= NAME);
        let name_left = picture.map_or(tick + 24.0, |picture| picture.right() + 12.0);
        Self {
            lanes,
            tick,
            picture,
            name: (name_left, room(name_left).max(40.0)),
            held,
            bar,
            reads,
            outcome: (outcome_left, outcome),
        }
    }
}

/// A stable name of a row for egui.
fn row_id(machine: MachineId, node: Node) -> Id {
    Id::unique(("row", machine, node))
}

/// Shows the tree of a machine.
pub fn show(ui: &mut Ui, machine: &MachineEntry, model: &Model, view: &mut View, actions: &mut Vec<Action>) {
    if machine.figures.new_frame() {
        ui.ctx().request_repaint_after(SOON);
    }
    let rows = view.rows.rows(machine, &view.expanded);
    let area = ui.available_rect_before_wrap();
    let columns = Columns::new(area, rows.lanes);
    header(ui, &columns);
    walk_by_keys(ui, machine, model, view, &rows, actions);
    let played = fate::played(machine, &view.played);
    let mut scroll = ScrollArea::vertical().id_salt(("tree", machine.state.machine.id)).auto_shrink(false);
    if std::mem::take(&mut view.reveal)
        && let Some(node) = view.selected_in(machine).and_then(|n| machine.tree.place(n))
    {
        let middle = rows.row_of[node] as f32 * ROW - ui.available_height() / 2.0 + ROW / 2.0;
        scroll = scroll.vertical_scroll_offset(middle.max(0.0));
    }
    scroll.show_viewport(ui, |ui, viewport| {
        let height = ROW * rows.rows.len() as f32 + 34.0;
        let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::hover());
        let frame = Frame { ui, machine, model, rows: &rows, columns: &columns, top: rect.top(), area, played: played.as_ref() };
        frame.show(viewport, view, actions);
    });
}

fn header(ui: &mut Ui, c: &Columns) {
    let p = theme::palette(ui);
    let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), 24.0), Sense::hover());
    let y = rect.center().y;
    let font = theme::small();
    let painter = ui.painter().clone();
    let left = |x: f32, text: &str| painter.text(pos2(x, y), Align2::LEFT_CENTER, text, font.clone(), p.weak);
    let right = |x: f32, text: &str| painter.text(pos2(x, y), Align2::RIGHT_CENTER, text, font.clone(), p.weak);
    left(c.name.0, "snapshot");
    right(c.held, "held");
    let reads = right(c.reads, if c.bar.is_some() { "images a read" } else { "reads" });
    left(c.outcome.0, "if deleted");
    let told = ui.interact(reads, ui.scope_id().with("reads-header"), Sense::hover());
    told.on_hover_text(
        "What a plain stack such as Hyper-V's looks through for one read, on average over the disk's data. \
         Here every read finds its image in one step, at any depth. Below it, where the machine runs: how long its reads \
         really take, on average.",
    );
    painter.hline(rect.x_range(), rect.bottom(), Stroke::new(1.0, p.line));
}

/// Up and down walk the rows, left goes to the parent, right to the first child, space ticks.
fn walk_by_keys(ui: &mut Ui, machine: &MachineEntry, model: &Model, view: &mut View, rows: &Rc<Rows>, actions: &mut Vec<Action>) {
    if view.dialog.is_some() || view.palette.is_some() || ui.ctx().text_edit_focused() {
        return;
    }
    let keys = |ui: &Ui, key| ui.input_mut(|i| i.count_and_consume_key(Modifiers::NONE, key)) as isize;
    let page = ((ui.available_height() / ROW) as isize - 1).max(1);
    let by = keys(ui, Key::ArrowDown) - keys(ui, Key::ArrowUp) + page * (keys(ui, Key::PageDown) - keys(ui, Key::PageUp));
    let (home, end) = (keys(ui, Key::Home) > 0, keys(ui, Key::End) > 0);
    let all = isize::try_from(rows.rows.len()).unwrap_or(isize::MAX);
    let by = if home {
        -all
    } else if end {
        all
    } else {
        by
    };
    let mut to = None;
    if by != 0 {
        to = dispatch::step(model, view, by, &rows.keys(&machine.tree));
    }
    let selected = view.selected_in(machine).and_then(|n| machine.tree.place(n));
    if let Some(at) = selected {
        if keys(ui, Key::ArrowLeft) > 0 {
            to = machine.tree.nodes[at].parent.map(|p| machine.tree.nodes[p].key).or(to);
        }
        if keys(ui, Key::ArrowRight) > 0 {
            to = machine.tree.nodes.get(at + 1).filter(|n| n.parent == Some(at)).map(|n| n.key).or(to);
        }
        if keys(ui, Key::Space) > 0
            && let (Node::Snapshot(id), false) = (machine.tree.nodes[at].key, machine.tree.nodes[at].ghost)
        {
            actions.push(Action::Tick(id));
        }
    }
    if let Some(node) = to {
        view.select(machine.state.machine.id, node);
        view.reveal = !in_sight(ui, machine, node);
        ui.memory_mut(|m| m.request_focus(row_id(machine.state.machine.id, node)));
    }
}

/// Whether the row of a node was painted wholly in the last frame.
fn in_sight(ui: &Ui, machine: &MachineEntry, node: Node) -> bool {
    let id = row_id(machine.state.machine.id, node);
    ui.ctx().read_response(id).is_some_and(|r| r.interact_rect.height() >= ROW - 1.0)
}

/// What painting needs to know.
struct Frame<'a> {
    ui: &'a mut Ui,
    machine: &'a MachineEntry,
    model: &'a Model,
    rows: &'a Rows,
    columns: &'a Columns,
    top: f32,
    area: Rect,
    played: Option<&'a Played>,
}

impl Frame<'_> {
    fn y(&self, row: usize) -> f32 {
        self.top + ROW * row as f32
    }

    fn show(self, viewport: Rect, view: &mut View, actions: &mut Vec<Action>) {
        let p = theme::palette(self.ui);
        let count = self.rows.rows.len();
        let first = ((viewport.top() / ROW).floor().max(0.0) as usize).min(count);
        let last = ((viewport.bottom() / ROW).ceil().max(0.0) as usize).min(count);
        let mut responses = Vec::with_capacity(last - first);
        for r in first..last {
            let text = RowText::of(self.model, self.machine, self.rows.rows[r], self.played);
            let response = self.touch(r, view, || text.accessible(self.rows.rows[r], self.machine));
            self.ground(r, &response, view, p);
            responses.push((r, text, response));
        }
        if count <= TELL_ALL {
            for r in (0..first).chain(last..count) {
                self.touch(r, view, || {
                    RowText::of(self.model, self.machine, self.rows.rows[r], self.played)
                        .accessible(self.rows.rows[r], self.machine)
                });
            }
        }
        self.lines(first, last, p);
        let most = self.most(first, last);
        let Self { ui, machine, model, rows, columns, top, .. } = self;
        for (r, text, response) in responses {
            let y = top + ROW * r as f32;
            let cell = Cell { machine, row: rows.rows[r], columns, y, most };
            cell.paint(ui, &text, &response, view, actions, p);
            cell.react(ui, model, response, view, actions);
        }
        if last == count {
            let at = pos2(columns.name.0, top + ROW * count as f32 + 18.0);
            let legend = "line: thickness = bytes, colour = images a read, dashed = merge due";
            put(
                ui.painter(),
                at,
                Align2::LEFT_CENTER,
                legend,
                theme::small(),
                p.weak,
                columns.outcome.0 + columns.outcome.1 - columns.name.0,
            );
        }
    }

    /// The row as egui and screen readers know it.
    fn touch(&self, r: usize, view: &View, name: impl Fn() -> String) -> Response {
        let row = self.rows.rows[r];
        let node = &self.machine.tree.nodes[row.first()];
        let rect = Rect::from_x_y_ranges(self.area.x_range(), self.y(r)..=self.y(r) + ROW);
        let id = row_id(self.machine.state.machine.id, node.key);
        let response = self.ui.interact(rect, id, Sense::click());
        let selected = view.selected_in(self.machine) == Some(node.key);
        response.widget_info(|| egui::WidgetInfo::selected(Role::TreeItem, true, selected, name()));
        self.ui.ctx().accesskit_node_builder(id, |n| {
            n.set_level(node.level as usize);
            n.set_position_in_set(r + 1);
            n.set_size_of_set(self.rows.rows.len());
        });
        response
    }

    fn ground(&self, r: usize, response: &Response, view: &View, p: &Palette) {
        let node = &self.machine.tree.nodes[self.rows.rows[r].first()];
        let rect = response.rect;
        let color = if view.selected_in(self.machine) == Some(node.key) || view.compared == Some(node.key) {
            p.selected
        } else if node.key == Node::Now {
            p.now
        } else if response.hovered() || response.context_menu_opened() {
            p.pointed
        } else {
            p.ground
        };
        let painter = self.ui.painter();
        painter.rect_filled(rect, 0.0, color);
        painter.hline(rect.x_range(), rect.bottom() - 0.5, Stroke::new(1.0, p.line.gamma_multiply(0.6)));
        if view.selected_in(self.machine) == Some(node.key) {
            painter.rect_filled(Rect::from_min_size(rect.min, vec2(3.0, rect.height())), 0.0, p.accent);
        }
        if response.has_focus() {
            painter.rect_stroke(rect.shrink(1.0), 3.0, Stroke::new(1.0, p.accent), StrokeKind::Inside);
        }
    }

    /// The most bytes that a row in sight holds: what bars and lines are drawn against.
    fn most(&self, first: usize, last: usize) -> ByteCount {
        self.rows.rows[first..last].iter().map(|r| row::held(self.machine, *r)).max().unwrap_or_default()
    }

    /// Every line that crosses what can be seen.
    fn lines(&self, first: usize, last: usize, p: &Palette) {
        let most = self.most(first, last);
        let painter = self.ui.painter();
        let clip = painter.clip_rect();
        let merging = self.model.jobs.of(self.machine.state.machine.id).filter(|j| j.kind == JobKind::Merge && j.total.0 > 0);
        let progress = merging.map(|j| (j.done.0 as f64 / j.total.0 as f64).clamp(0.0, 1.0) as f32);
        let mut on_way = Vec::new();
        for (r, row) in self.rows.rows.iter().enumerate() {
            let node = &self.machine.tree.nodes[row.first()];
            let Some(parent) = node.parent else { continue };
            let from = self.rows.row_of[parent];
            if r < first || from >= last {
                continue;
            }
            let straight = self.machine.tree.nodes[parent].lane == node.lane;
            if !straight && (r > last) {
                continue;
            }
            let cost = row::cost(self.machine, row.last());
            let tone = lanes::tone_of_reads(cost.as_ref().and_then(|c| c.read_mean));
            let due = self.is_due(parent, row.first()) || self.played.is_some_and(|p| p.due.contains(&row.first()));
            let line = Line {
                from: pos2(self.columns.lanes.x(self.machine.tree.nodes[parent].lane), self.y(from) + ROW / 2.0),
                to: pos2(self.columns.lanes.x(node.lane), self.y(r) + ROW / 2.0),
                row: ROW,
                width: lanes::width(row::held(self.machine, *row), most),
                color: if node.on_way { p.tone(tone) } else { p.tone(tone).gamma_multiply(0.6) },
                due,
                progress: progress.filter(|_| due),
            };
            if node.on_way { on_way.push(line) } else { line.paint(painter, clip, p) }
        }
        on_way.iter().for_each(|l| l.paint(painter, clip, p));
        for r in first..last {
            let node = &self.machine.tree.nodes[self.rows.rows[r].first()];
            let dot = match (node.key, node.ghost) {
                (Node::Now, _) => Dot::Now,
                (_, true) => Dot::Ghost,
                _ => Dot::Snapshot,
            };
            let at = pos2(self.columns.lanes.x(node.lane), self.y(r) + ROW / 2.0);
            dot.paint(painter, at, p, p.ground, node.on_way);
        }
    }

    fn is_due(&self, parent: usize, child: usize) -> bool {
        let images = |n: usize| images_of(self.machine, n);
        images(parent).iter().any(|lower| images(child).iter().any(|upper| self.machine.figures.is_due(*lower, *upper)))
    }
}

fn images_of(machine: &MachineEntry, node: usize) -> Vec<snaptree_core::snapshot::ImageId> {
    let m = &machine.state.machine;
    let images = match machine.tree.nodes[node].key {
        Node::Now => Some(&m.now.images),
        Node::Snapshot(id) => crate::model::snapshot(m, id).map(|s| &s.images),
    };
    images.map(|i| i.values().copied().collect()).unwrap_or_default()
}

/// One row, being painted.
struct Cell<'a> {
    machine: &'a MachineEntry,
    row: Row,
    columns: &'a Columns,
    y: f32,
    most: ByteCount,
}

impl Cell<'_> {
    fn paint(&self, ui: &mut Ui, text: &RowText, response: &Response, view: &mut View, actions: &mut Vec<Action>, p: &Palette) {
        let c = self.columns;
        let (upper, lower, middle) = (self.y + 17.0, self.y + 34.0, self.y + ROW / 2.0);
        self.tick(ui, response, view, actions, p);
        self.picture(ui, view, p);
        let painter = ui.painter().clone();
        let name_color = if text.weak { p.weak } else { p.text };
        // The name comes first: badges for which it leaves no room aren't shown.
        let name = painter.layout_no_wrap(text.name.clone(), theme::strong(), name_color).size().x.min(c.name.1 * 0.6);
        let mut room = c.name.1 - name;
        let fitting =
            text.badges.iter().map(|badge| (badge, widgets::pill_width(ui, &badge.text) + 6.0)).take_while(|(_, width)| {
                room -= width;
                room >= 0.0
            });
        let badges: Vec<_> = fitting.collect();
        let name_room = c.name.1 - badges.iter().map(|(_, width)| width).sum::<f32>();
        let name = put(&painter, pos2(c.name.0, upper), Align2::LEFT_CENTER, &text.name, theme::strong(), name_color, name_room);
        let mut x = name.right() + 8.0;
        for (badge, _) in badges {
            x += widgets::paint_pill(&painter, pos2(x, upper), &badge.text, badge.tone, p) + 6.0;
        }
        put_parts(&painter, pos2(c.name.0, lower), &text.second, theme::small(), p.weak, c.name.1);

        let held = text::bytes(text.held);
        put(&painter, pos2(c.held, middle), Align2::RIGHT_CENTER, &held, theme::body(), name_color, 70.0);
        if let Some((left, right)) = c.bar {
            let share = if self.most.0 == 0 { 0.0 } else { text.held.0 as f32 / self.most.0 as f32 };
            let track = Rect::from_x_y_ranges(left..=right, middle - 2.5..=middle + 2.5);
            widgets::paint_bar(&painter, track, share, if text.weak { p.warn } else { p.bar }, p);
        }

        if let Some(reads) = text.reads {
            let tone = lanes::tone_of_reads(Some(reads));
            let (color, mark) = if tone == Tone::Bad { (p.bad, "▲ ") } else { (p.text, "") };
            let line = if text.measured.is_some() { upper } else { middle };
            put(&painter, pos2(c.reads, line), Align2::RIGHT_CENTER, &format!("{mark}{reads:.1}"), theme::body(), color, 60.0);
        }
        if let Some(measured) = text.measured {
            let took = text::short_duration(measured);
            put(&painter, pos2(c.reads, lower), Align2::RIGHT_CENTER, &took, theme::small(), p.weak, 60.0);
        }
        let color = p.tone(text.outcome.tone);
        let Said { text: said, detail, .. } = &text.outcome;
        let line = if detail.is_empty() { middle } else { upper };
        put_parts(&painter, pos2(c.outcome.0, line), said, theme::body(), color, c.outcome.1);
        put_parts(&painter, pos2(c.outcome.0, lower), detail, theme::small(), p.weak, c.outcome.1);
    }

    fn tick(&self, ui: &mut Ui, response: &Response, view: &View, actions: &mut Vec<Action>, p: &Palette) {
        let node = &self.machine.tree.nodes[self.row.first()];
        let Node::Snapshot(id) = node.key else { return };
        let middle = self.y + ROW / 2.0;
        if node.ghost {
            self.disclose(ui, id, actions, p);
            return;
        }
        let ticked = view.ticked.contains(&id);
        let rect = Rect::from_center_size(pos2(self.columns.tick + 8.0, middle), vec2(15.0, 15.0));
        let label = self.machine.state.machine.snapshots.get(&id).map(|s| s.label.as_str()).unwrap_or_default();
        let answer = ui.interact(rect.expand(5.0), response.id.with("tick"), Sense::click());
        answer.widget_info(|| egui::WidgetInfo::selected(Role::CheckBox, true, ticked, format!("Tick {label}")));
        let shown = ticked || response.contains_pointer() || answer.has_focus() || !view.ticked.is_empty();
        let painter = ui.painter();
        if ticked {
            painter.rect_filled(rect, 3.0, p.primary);
            let check = vec![rect.min + vec2(3.5, 8.0), rect.min + vec2(6.5, 11.0), rect.min + vec2(11.5, 4.5)];
            painter.add(egui::Shape::line(check, Stroke::new(1.8, p.on_primary)));
        } else if shown {
            painter.rect_stroke(rect, 3.0, Stroke::new(1.0, p.faint), StrokeKind::Inside);
        }
        if answer.clicked() {
            actions.push(Action::Tick(id));
        }
    }

    /// The triangle of a run of ghosts.
    fn disclose(&self, ui: &mut Ui, id: snaptree_core::snapshot::SnapshotId, actions: &mut Vec<Action>, p: &Palette) {
        let tree = &self.machine.tree;
        let length = super::rows::run_length(tree, self.row.first());
        let starts =
            tree.nodes[self.row.first()].parent.is_none_or(|up| super::rows::run_length(tree, up) < 2 || !tree.nodes[up].ghost);
        if length < 2 || !starts {
            return;
        }
        let open = matches!(self.row, Row::Node(_));
        let at = pos2(self.columns.tick + 8.0, self.y + ROW / 2.0);
        let rect = Rect::from_center_size(at, vec2(24.0, 24.0));
        let answer = ui.interact(rect, Id::unique(("disclose", id)), Sense::click());
        let label = if open { "Show the deleted snapshots in one row" } else { "Show each deleted snapshot" };
        answer.widget_info(|| egui::WidgetInfo::labeled(Role::DisclosureTriangle, true, label));
        let color = if answer.hovered() { p.text } else { p.weak };
        let points = if open {
            vec![at + vec2(-4.0, -2.0), at + vec2(0.0, 2.5), at + vec2(4.0, -2.0)]
        } else {
            vec![at + vec2(-2.0, -4.0), at + vec2(2.5, 0.0), at + vec2(-2.0, 4.0)]
        };
        ui.painter().add(egui::Shape::line(points, Stroke::new(1.6, color)));
        if answer.on_hover_text(label).clicked() {
            actions.push(Action::Expand(id));
        }
    }

    fn picture(&self, ui: &mut Ui, view: &mut View, p: &Palette) {
        let m = &self.machine.state.machine;
        let picture = match self.machine.tree.nodes[self.row.first()].key {
            Node::Now => self.machine.live.as_ref().map(|(screen, _)| Picture::Live(m.id, screen.clone())),
            Node::Snapshot(id) => {
                m.snapshots.get(&id).and_then(|s| s.screen.as_ref()).map(|s| Picture::File(self.machine.path(s)))
            }
        };
        let Some(rect) = self.columns.picture.map(|rect| rect.translate(vec2(0.0, self.y + 8.0))) else { return };
        if self.machine.tree.nodes[self.row.first()].ghost {
            return;
        }
        match picture.and_then(|pic| view.pictures.texture(ui.ctx(), &pic)) {
            Some(texture) => {
                widgets::paint_picture(ui.painter(), rect, 3, &texture);
            }
            None => {
                ui.painter().rect_filled(rect, 3.0, p.panel);
                widgets::paint_disk(ui.painter(), rect.center(), 8.0, p);
            }
        }
        ui.painter().rect_stroke(rect, 3.0, Stroke::new(1.0, p.line), StrokeKind::Outside);
    }

    fn react(&self, ui: &Ui, model: &Model, response: Response, view: &mut View, actions: &mut Vec<Action>) {
        let node = self.machine.tree.nodes[self.row.first()].key;
        if response.clicked() {
            response.request_focus();
            let held = ui.input(|i| i.modifiers);
            match (held.command, held.shift, node) {
                (true, _, Node::Snapshot(id)) if !self.machine.tree.nodes[self.row.first()].ghost => {
                    actions.push(Action::Tick(id))
                }
                (_, true, other) if view.selected_in(self.machine) != Some(other) => actions.push(Action::CompareWith(other)),
                _ => actions.push(Action::Select(node)),
            }
        }
        if response.secondary_clicked() {
            view.select(self.machine.state.machine.id, node);
        }
        if response.has_focus() {
            let filter = EventFilter { horizontal_arrows: true, vertical_arrows: true, ..Default::default() };
            ui.memory_mut(|m| m.set_focus_lock_filter(response.id, filter));
        }
        response.context_menu(|ui| {
            if let Some(action) = widgets::verb_menu(ui, Place::Row, model, view) {
                actions.push(action);
            }
        });
    }
}

/// The snapshots whose deletion is played while the pointer rests on a verb.
pub fn played_by(
    verb: Verb,
    machine: &MachineEntry,
    model: &Model,
    view: &View,
) -> Option<(Vec<snaptree_core::snapshot::SnapshotId>, bool)> {
    let chosen = crate::action::selected(model, view);
    let ticked = view.ticked_in(&machine.state.machine);
    match verb {
        Verb::Delete if !ticked.is_empty() => Some((ticked, false)),
        Verb::Delete => Some((vec![chosen?], false)),
        Verb::DeleteSubtree => Some((vec![chosen?], true)),
        _ => None,
    }
}
