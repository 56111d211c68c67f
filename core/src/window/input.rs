//! What the plan is made from.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Occurrence, OccurrenceKey};
use crate::cost::{Calibration, Growth, MachineFacts, MergeCost, merge_costs};
use crate::snapshot::{DiskId, ImageId, MachineId};
use crate::units::{ByteCount, ByteRate};

/// What a merge moves before it can pause, where that would otherwise take longer than a second.
const STEP: ByteCount = ByteCount::mib(64);

/// All that a plan follows from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanInput {
    /// The time.
    pub now: DateTime<Utc>,
    /// Nothing is planned from here on.
    pub until: DateTime<Utc>,
    /// When merging is allowed, until then.
    pub occurrences: Vec<Occurrence>,
    /// The volumes that the merges are on.
    pub volumes: Vec<PlanVolume>,
    /// The merges that are due.
    pub work: Vec<DueMerge>,
    /// How the plan is made.
    pub parameters: PlanParameters,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanVolume {
    /// Names it, as `VolumeState` does.
    pub id: String,
    /// Free bytes now.
    pub free: ByteCount,
    /// Below this, machines stop.
    pub floor: ByteCount,
    /// How what it holds grows.
    pub growth: Growth,
    /// What merges on it have taught.
    pub calibration: Calibration,
}

/// A merge that is due.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DueMerge {
    /// The machine.
    pub machine: MachineId,
    /// The disk.
    pub disk: DiskId,
    /// The volume.
    pub volume: String,
    /// Whether the machine runs, and is to run again after a merge.
    pub running: bool,
    /// What its guest writes in a second, where it is known.
    pub guest: Option<ByteRate>,
    /// One for each image that everything may move into.
    pub options: Vec<MergeOption>,
    /// How the machine's leaf grows.
    pub growth: Growth,
    /// The occurrence that somebody has put it into: it starts there or not at all.
    pub pinned: Option<OccurrenceKey>,
}

/// One way to carry out a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeOption {
    /// The image that everything moves into.
    pub target: ImageId,
    /// Data bytes to move, were it now.
    pub bytes: ByteCount,
    /// Separate stretches to move.
    pub stretches: u64,
    /// Free space that it needs.
    pub scratch: ByteCount,
    /// Bytes that come back at the end.
    pub comes_back: ByteCount,
    /// Whether it can be done while the machine runs.
    pub live: bool,
    /// Whether what the leaf grows by until the start moves, too.
    pub grows: bool,
    /// Whether that needs free space as well.
    pub scratch_grows: bool,
}

/// How a plan is made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PlanParameters {
    /// Seconds that are allowed for shutting a machine down.
    pub shutdown_seconds: f64,
    /// Seconds that are allowed for starting it again.
    pub start_seconds: f64,
    /// What a merge finishes before it pauses; a stretch too short for it isn't used.
    pub batch: ByteCount,
}

impl Default for PlanParameters {
    fn default() -> Self {
        Self { shutdown_seconds: 300.0, start_seconds: 180.0, batch: STEP }
    }
}

impl MergeOption {
    /// The options of a run (bottom to top), those for which the machine has to be stopped among them; of a merge that
    /// has started, its target alone; none if the disk isn't counted yet.
    pub fn all(facts: &MachineFacts<'_>, disk: &DiskId, run: &[ImageId]) -> Vec<Self> {
        let stopped = MachineFacts { running: false, ..*facts };
        let costs = merge_costs(&stopped, disk, run);
        let has_started = |cost: &&MergeCost| facts.machine.merges.iter().any(|m| m.disk == *disk && m.target == cost.target);
        match costs.iter().find(has_started) {
            Some(started) => vec![Self::of(facts, started)],
            None => costs.iter().map(|cost| Self::of(facts, cost)).collect(),
        }
    }

    /// An option from its cost, for the machine as it is (or would be, were it stopped).
    pub fn of(facts: &MachineFacts<'_>, cost: &MergeCost) -> Self {
        let top = cost.run.last().copied();
        let place = cost.run.iter().position(|image| *image == cost.target).unwrap_or(0);
        let grows = top.is_some_and(|top| facts.is_written(top)) && top != Some(cost.target);
        Self {
            target: cost.target,
            bytes: cost.bytes.data,
            stretches: cost.bytes.stretches,
            scratch: cost.scratch,
            comes_back: cost.comes_back,
            live: facts.may_be_target(&cost.run, place),
            grows,
            scratch_grows: grows && !facts.volume.punches_holes,
        }
    }
}
