//! What the person has chosen to see: selection, ticks, scale, theme. Kept between starts.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Node;
use serde::{Deserialize, Serialize};
use snaptree_core::snapshot::{Machine, MachineId, SnapshotId};

use crate::dialogs::Dialog;
use crate::model::MachineEntry;
use crate::pages::files::FilesView;
use crate::pages::plan::PlanView;
use crate::start::Opening;
use crate::theme::ThemeChoice;
use crate::widgets::palette::Palette;
use crate::widgets::pictures::Pictures;
use crate::widgets::tail::Tail;
use crate::widgets::toasts::Toasts;

/// Where it is kept in the window's storage.
pub const STORAGE_KEY: &str = "snaptree-view";

/// The smallest and largest scale.
pub const SCALES: std::ops::RangeInclusive<f32> = 0.6..=2.5;

/// Which page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Page {
    #[default]
    Machines,
    Plan,
    Files,
}

/// What is shown, and how.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub struct View {
    pub theme: ThemeChoice,
    pub page: Page,
    pub plan: PlanView,
    #[serde(skip)]
    pub files: FilesView,
    scale: Option<f32>,
    /// The machine that is shown.
    pub machine: Option<MachineId>,
    selected: BTreeMap<MachineId, Node>,
    /// A second row, compared with the selected one.
    #[serde(skip)]
    pub compared: Option<Node>,
    /// Ticked rows, of any machine.
    #[serde(skip)]
    pub ticked: BTreeSet<SnapshotId>,
    /// Collapsed runs that are shown row by row, by their first ghost.
    #[serde(skip)]
    pub expanded: BTreeSet<SnapshotId>,
    #[serde(skip)]
    pub dialog: Option<Dialog>,
    #[serde(skip)]
    pub palette: Option<Palette>,
    /// Snapshots whose deletion is played on the rows.
    #[serde(skip)]
    pub played: Option<(Vec<SnapshotId>, bool)>,
    /// Bring the selected row into sight.
    #[serde(skip)]
    pub reveal: bool,
    #[serde(skip)]
    pub rows: crate::tree::RowCache,
    #[serde(skip)]
    pub pictures: Pictures,
    /// What a machine's serial port said.
    #[serde(skip)]
    pub console: Tail,
    #[serde(skip)]
    pub toasts: Toasts,
    /// What the window was opened with.
    #[serde(skip)]
    pub opening: Opening,
}

impl View {
    /// What was kept, or the usual.
    pub fn load(storage: Option<&dyn eframe::Storage>) -> Self {
        storage.and_then(|s| s.get_string(STORAGE_KEY)).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// The scale, 1 is normal.
    pub fn scale(&self) -> f32 {
        self.scale.unwrap_or(1.0)
    }

    /// Sets the scale, within reason.
    pub fn set_scale(&mut self, scale: f32) {
        self.scale = Some(((scale * 10.0).round() / 10.0).clamp(*SCALES.start(), *SCALES.end()));
    }

    /// Forgets theme and scale.
    pub fn reset(&mut self) {
        self.theme = ThemeChoice::default();
        self.scale = None;
    }

    /// The selected row; Now where nothing else was selected or it is gone.
    pub fn selected_in(&self, machine: &MachineEntry) -> Option<Node> {
        let chosen = self.selected.get(&machine.state.machine.id).copied();
        chosen.filter(|n| machine.tree.place(*n).is_some()).or(Some(Node::Now))
    }

    /// Selects a row.
    pub fn select(&mut self, machine: MachineId, node: Node) {
        self.selected.insert(machine, node);
        self.compared = None;
    }

    /// The ticked snapshots that this machine has.
    pub fn ticked_in(&self, machine: &Machine) -> Vec<SnapshotId> {
        self.ticked.iter().filter(|id| machine.snapshots.contains_key(id)).copied().collect()
    }
}
