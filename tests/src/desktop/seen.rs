//! What the window tells a person who can't see it: its widgets by role and name.

use std::collections::BTreeMap;
use std::fmt;

use egui::accesskit::{Node, NodeId, Role, Toggled, TreeUpdate};
use egui::{Pos2, Rect, pos2};

/// A widget of the window.
#[derive(Debug, Clone)]
pub struct Widget {
    /// What it is.
    pub role: Role,
    /// What it is called: its label, or where it has none, its text.
    pub name: String,
    /// What was typed into it, or its figure.
    pub value: Option<String>,
    /// Whether it can't be used now.
    pub disabled: bool,
    /// Whether it is chosen or ticked, where it can be.
    pub on: Option<bool>,
    /// Why, or what it does, as a tooltip or a reader says.
    pub description: Option<String>,
    /// Where it is, in points; `None` where it isn't drawn.
    pub bounds: Option<Rect>,
}

impl Widget {
    fn of(node: &Node, nodes: &BTreeMap<NodeId, &Node>) -> Self {
        let value = node.value().map(str::to_owned);
        let said = |node: &Node| node.label().or_else(|| node.value()).map(str::to_owned);
        // A field has its name from the words beside it.
        let beside = || node.labelled_by().iter().find_map(|id| nodes.get(id).and_then(|node| said(node)));
        let label = node.label().map(str::to_owned).or_else(beside);
        let on = match (node.toggled(), node.is_selected()) {
            (Some(toggled), _) => Some(toggled == Toggled::True),
            (None, selected) => selected,
        };
        Self {
            role: node.role(),
            name: label.or_else(|| value.clone()).unwrap_or_default(),
            value,
            disabled: node.is_disabled(),
            on,
            description: node.description().map(str::to_owned),
            bounds: node.bounds().map(|b| Rect { min: pos2(b.x0 as f32, b.y0 as f32), max: pos2(b.x1 as f32, b.y1 as f32) }),
        }
    }

    /// Its middle, where a person would click.
    pub fn middle(&self) -> Option<Pos2> {
        self.bounds.map(|bounds| bounds.center())
    }
}

impl fmt::Display for Widget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.role, self.name)?;
        if let Some(value) = self.value.as_ref().filter(|&value| *value != self.name) {
            write!(f, " = {value:?}")?;
        }
        if let Some(description) = &self.description {
            write!(f, " ({description})")?;
        }
        if let Some(on) = self.on {
            f.write_str(if on { " on" } else { " off" })?;
        }
        if self.disabled {
            f.write_str(" disabled")?;
        }
        Ok(())
    }
}

/// All widgets of one frame, in the order in which a reader walks through them.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The widgets that have a name.
    pub widgets: Vec<Widget>,
    /// Pixels a point.
    pub pixels_per_point: f32,
}

impl Seen {
    /// What a whole tree says.
    pub fn of(update: &TreeUpdate, pixels_per_point: f32) -> Self {
        let nodes: BTreeMap<NodeId, &Node> = update.nodes.iter().map(|(id, node)| (*id, node)).collect();
        let mut widgets = Vec::new();
        let mut ahead: Vec<NodeId> = update.tree.iter().map(|tree| tree.root).collect();
        while let Some(node) = ahead.pop().and_then(|id| nodes.get(&id)) {
            let widget = Widget::of(node, &nodes);
            if !widget.name.is_empty() || widget.role == Role::TextInput {
                widgets.push(widget);
            }
            ahead.extend(node.children().iter().rev());
        }
        Self { widgets, pixels_per_point }
    }

    /// The widgets for which this holds.
    pub fn all(&self, wanted: impl Fn(&Widget) -> bool) -> Vec<&Widget> {
        self.widgets.iter().filter(|widget| wanted(widget)).collect()
    }

    /// Whether some widget's name contains this.
    pub fn says(&self, text: &str) -> bool {
        self.widgets.iter().any(|widget| widget.name.contains(text) || widget.value.as_ref().is_some_and(|v| v.contains(text)))
    }

    /// The button (or row, box, tab: whatever can be clicked) with this name.
    pub fn control(&self, name: &str) -> Option<&Widget> {
        let mut found = self.widgets.iter().filter(|widget| widget.name == name && !is_text(widget.role));
        found.next_back()
    }

    /// The first row of a tree or list whose name starts so.
    pub fn row(&self, start: &str) -> Option<&Widget> {
        self.widgets.iter().find(|widget| widget.name.starts_with(start) && !is_text(widget.role))
    }
}

fn is_text(role: Role) -> bool {
    matches!(role, Role::Label | Role::TextRun | Role::Unknown | Role::Window | Role::Paragraph)
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.widgets.iter().filter(|widget| widget.role != Role::TextRun).try_for_each(|widget| writeln!(f, "  {widget}"))
    }
}
