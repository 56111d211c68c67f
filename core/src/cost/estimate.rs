//! How long a merge takes, learnt from those that finished on the volume.
//!
//! The interval is the one that a next observation falls into: it holds the spread of the past and the doubt about the
//! model (`fit.rs`) for this very work, so it is wide after few merges, and for work unlike them. A live merge of this
//! engine always converges: what the guest costs it is time, and comparing the live with the stopped estimate says how
//! much.

use std::ops::Add;

use serde::{Deserialize, Serialize};

use super::fit::{Fit, Observed};
use crate::units::ByteRate;

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
    /// Whether the machine ran meanwhile.
    #[serde(default)]
    pub mode: MergeMode,
    /// Of a live merge: bytes that the guest wrote meanwhile, where they were counted.
    #[serde(default)]
    pub guest_bytes: Option<u64>,
}

/// Whether a machine runs while its images are merged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeMode {
    /// It doesn't run.
    #[default]
    Stopped,
    /// It runs, and its guest writes.
    Live,
}

/// What a merge has to share the volume with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeLoad {
    /// The machine doesn't run.
    #[default]
    Stopped,
    /// The machine runs, and its guest writes so much; if that isn't known, as much as during past live merges.
    Live(Option<ByteRate>),
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
    /// This many finished merges on the volume, none of them in this mode (stopped, live): a guess.
    OtherMode(u32),
    /// This many finished merges on the volume in this mode.
    Merges(u32),
}

impl Basis {
    /// Whether it is to be called a guess.
    pub fn is_guess(self) -> bool {
        !matches!(self, Self::Merges(_))
    }
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

/// How many samples are kept.
const KEPT: usize = 64;
/// Each newer merge takes this share of an older one's weight.
const RECENCY: f64 = 0.95;
/// The weight of a probe, while there is nothing better.
const PROBE_WEIGHT: f64 = 0.2;
impl Calibration {
    /// Takes a finished merge (or a probe) in; the oldest are forgotten. What moved nothing teaches nothing.
    pub fn record(&mut self, sample: MergeSample) {
        if !sample.is_usable() {
            return;
        }
        self.samples.push(sample);
        if self.samples.len() > KEPT {
            self.samples.remove(0);
        }
    }

    /// How long the work takes; `None` if nothing is known yet.
    pub fn estimate(&self, work: MergeWork, load: MergeLoad) -> Option<Estimate> {
        Some(self.learn()?.estimate(work, load))
    }

    /// What the samples say together, for many estimates; `None` if nothing is known yet.
    pub fn learn(&self) -> Option<Learnt> {
        let usable = || self.samples.iter().filter(|s| s.is_usable());
        let is_real = usable().any(|s| !s.probe);
        let samples: Vec<&MergeSample> = usable().filter(|s| !s.probe || !is_real).collect();
        let newest = samples.len().checked_sub(1)? as i32;
        let weight = |i: usize| if is_real { RECENCY.powi(newest - i as i32) } else { PROBE_WEIGHT };
        let observed: Vec<_> = samples
            .iter()
            .enumerate()
            .map(|(i, s)| Observed {
                work: s.work().features(),
                guest_bytes: (s.mode == MergeMode::Live).then_some(s.guest_bytes.unwrap_or(0) as f64),
                log_seconds: s.seconds.ln(),
                weight: weight(i),
            })
            .collect();
        let merges = |mode: MergeMode| samples.iter().filter(|s| is_real && s.mode == mode).count() as u32;
        let mut rates: Vec<f64> = samples.iter().filter_map(|s| Some(s.guest_bytes? as f64 / s.seconds)).collect();
        rates.sort_by(f64::total_cmp);
        Some(Learnt {
            fit: Fit::of(&observed),
            stopped: merges(MergeMode::Stopped),
            live: merges(MergeMode::Live),
            guest: rates.get(rates.len() / 2).copied().unwrap_or(0.0),
        })
    }

    /// How far past estimates of a mode were off; `None` before the first.
    pub fn past_error(&self, mode: MergeMode) -> Option<PastError> {
        let mut errors: Vec<f64> = self
            .samples
            .iter()
            .filter(|s| s.is_usable() && !s.probe && s.mode == mode)
            .filter_map(|s| Some((s.seconds - s.estimated_seconds?).abs() / s.seconds))
            .collect();
        errors.sort_by(f64::total_cmp);
        let middle = *errors.get(errors.len() / 2)?;
        let median = if errors.len() % 2 == 1 { middle } else { (middle + errors[errors.len() / 2 - 1]) / 2.0 };
        Some(PastError { merges: errors.len() as u32, median })
    }
}

/// What the samples of a volume say together.
#[derive(Debug, Clone)]
pub struct Learnt {
    fit: Fit,
    /// Finished merges by mode.
    stopped: u32,
    live: u32,
    /// Bytes per second that guests wrote during live merges: the median.
    guest: f64,
}

impl Learnt {
    /// How long the work takes.
    pub fn estimate(&self, work: MergeWork, load: MergeLoad) -> Estimate {
        let (of_mode, guest) = match load {
            MergeLoad::Stopped => (self.stopped, None),
            MergeLoad::Live(rate) => (self.live, Some(rate.map_or(self.guest, |rate| rate.0))),
        };
        let basis = match (self.stopped + self.live, of_mode) {
            (0, _) => Basis::Probe,
            (others, 0) => Basis::OtherMode(others),
            (_, merges) => Basis::Merges(merges),
        };
        if work == MergeWork::default() {
            return Estimate { p10: 0.0, p50: 0.0, p90: 0.0, basis };
        }
        let (log_seconds, reach) = self.fit.predict(work.features(), guest);
        let at = |log: f64| log.clamp(-20.0, 40.0).exp();
        Estimate { p10: at(log_seconds - reach), p50: at(log_seconds), p90: at(log_seconds + reach), basis }
    }
}

impl MergeSample {
    fn is_usable(&self) -> bool {
        self.bytes > 0 && self.seconds.is_finite() && self.seconds > 0.0
    }

    fn work(&self) -> MergeWork {
        MergeWork { bytes: self.bytes, stretches: self.stretches, merges: u64::from(!self.probe) }
    }
}

impl MergeWork {
    fn features(self) -> [f64; 3] {
        [self.bytes as f64, self.stretches as f64, self.merges as f64]
    }
}

impl Add for MergeWork {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, stretches: self.stretches + other.stretches, merges: self.merges + other.merges }
    }
}
