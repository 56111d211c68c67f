//! How long a merge takes, learnt from those that finished.

use serde::{Deserialize, Serialize};

/// What finished merges have taught about a volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Finished merges (and, before the first, a probe), newest last.
    pub samples: Vec<MergeSample>,
}

/// One finished merge, or a probe of the volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MergeSample {
    /// Data bytes moved.
    pub bytes: u64,
    /// Separate stretches moved.
    pub stretches: u64,
    /// How long it took, pauses not counted.
    pub seconds: f64,
    /// What had been estimated (the middle), in seconds.
    pub estimated_seconds: Option<f64>,
    /// Whether it is only a short probe of the volume.
    pub probe: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeWork {
    /// Data bytes to move.
    pub bytes: u64,
    /// Separate stretches.
    pub stretches: u64,
    /// Merges, each with its start and switch.
    pub merges: u64,
}

/// What an estimate stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Only a short probe of the volume: a guess.
    Probe,
    /// This many finished merges on the volume.
    Merges(u32),
}

/// Seconds, with an interval: in 8 of 10 cases it takes between `p10` and `p90`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Shorter than this in 1 of 10 cases.
    pub p10: f64,
    /// The middle.
    pub p50: f64,
    /// Longer than this in 1 of 10 cases.
    pub p90: f64,
    /// What it stands on.
    pub basis: Basis,
}

/// How far past estimates were off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PastError {
    /// Finished merges that had an estimate.
    pub merges: u32,
    /// Median of |took - estimated| / took.
    pub median: f64,
}

impl Calibration {
    /// Takes a finished merge (or a probe) in; the oldest are forgotten.
    pub fn record(&mut self, sample: MergeSample) {
        let _ = sample;
        todo!()
    }

    /// How long the work takes; `None` if nothing is known yet.
    pub fn estimate(&self, work: MergeWork) -> Option<Estimate> {
        let _ = work;
        todo!()
    }

    /// How far past estimates were off; `None` before the first.
    pub fn past_error(&self) -> Option<PastError> {
        todo!()
    }
}
