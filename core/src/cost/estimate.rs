//! How long a merge takes, learnt from those that finished.
//!
//! The model: seconds = bytes x a + stretches x c + merges x d. It is fitted to the logarithms of what
//! finished merges took (so that all errors count as shares, and nothing becomes negative), newer ones
//! weighing more, outliers less, with wide priors in place of what the samples can't tell yet. The
//! interval is the one that a next observation falls into: it holds the spread of the past and the
//! doubt about a, c and d for this very work, so it is wide after few merges, and for work unlike them.

use std::ops::Add;

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

/// How many samples are kept.
const KEPT: usize = 64;
/// Each newer merge takes this share of an older one's weight.
const RECENCY: f64 = 0.95;
/// The weight of a probe, while there is nothing better.
const PROBE_WEIGHT: f64 = 0.2;
/// Before anything is known: seconds per byte, per stretch and per merge, and how far each may be off (as the
/// logarithm's standard deviation).
const PRIOR: [(f64, f64); 3] = [(1.0 / 200e6, 1.5), (100e-6, 2.0), (0.05, 1.5)];
/// The spread that is assumed before samples show theirs, and how many samples that assumption is worth.
const SPREAD: (f64, f64) = (0.3, 2.0);
/// Beyond so many spreads, a sample pulls no harder.
const HUBER: f64 = 1.5;
/// What that leaves of a normal distribution's variance.
const HUBER_SHARE: f64 = 0.867;

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
    pub fn estimate(&self, work: MergeWork) -> Option<Estimate> {
        let real: Vec<&MergeSample> = self.samples.iter().filter(|s| s.is_usable() && !s.probe).collect();
        let (samples, basis) = match real.len() {
            0 => (self.samples.iter().filter(|s| s.is_usable()).collect(), Basis::Probe),
            n => (real, Basis::Merges(n as u32)),
        };
        if samples.is_empty() {
            return None;
        }
        if work == MergeWork::default() {
            return Some(Estimate { p10: 0.0, p50: 0.0, p90: 0.0, basis });
        }
        let newest = samples.len() as i32 - 1;
        let weight = |i: usize| if basis == Basis::Probe { PROBE_WEIGHT } else { RECENCY.powi(newest - i as i32) };
        let observed: Vec<_> = samples
            .iter()
            .enumerate()
            .map(|(i, s)| Observed { work: s.work().features(), log_seconds: s.seconds.ln(), weight: weight(i) })
            .collect();
        let fit = Fit::of(&observed);
        let (log_seconds, spread) = fit.predict(work.features());
        let reach = student_p90(fit.freedom) * spread;
        let at = |log: f64| log.clamp(-20.0, 40.0).exp();
        Some(Estimate { p10: at(log_seconds - reach), p50: at(log_seconds), p90: at(log_seconds + reach), basis })
    }

    /// How far past estimates were off; `None` before the first.
    pub fn past_error(&self) -> Option<PastError> {
        let mut errors: Vec<f64> = self
            .samples
            .iter()
            .filter(|s| s.is_usable() && !s.probe)
            .filter_map(|s| Some((s.seconds - s.estimated_seconds?).abs() / s.seconds))
            .collect();
        errors.sort_by(f64::total_cmp);
        let middle = *errors.get(errors.len() / 2)?;
        let median = if errors.len() % 2 == 1 { middle } else { (middle + errors[errors.len() / 2 - 1]) / 2.0 };
        Some(PastError { merges: errors.len() as u32, median })
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

/// One sample, to the fit.
struct Observed {
    work: [f64; 3],
    log_seconds: f64,
    weight: f64,
}

/// The fitted model.
struct Fit {
    /// Logarithms of a, c and d.
    log: [f64; 3],
    /// What is known of them: the inverse of their covariance, in units of the variance.
    information: [[f64; 3]; 3],
    variance: f64,
    freedom: f64,
}

impl Fit {
    fn of(observed: &[Observed]) -> Self {
        let (spread, worth) = SPREAD;
        let mut fit = Self {
            log: PRIOR.map(|(value, _)| value.ln()),
            information: [[0.0; 3]; 3],
            variance: spread * spread,
            freedom: worth,
        };
        for _ in 0..40 {
            let pull = fit.gather(observed);
            let step = solve(fit.information, pull);
            for (log, by) in fit.log.iter_mut().zip(step) {
                *log += by.clamp(-1.0, 1.0);
            }
            if step.iter().all(|by| by.abs() < 1e-6) {
                break;
            }
        }
        fit.gather(observed);
        fit
    }

    /// Information and spread at the present values; the direction in which the samples pull them.
    fn gather(&mut self, observed: &[Observed]) -> [f64; 3] {
        let (spread, worth) = SPREAD;
        let mut pull = [0.0; 3];
        self.information = [[0.0; 3]; 3];
        for (i, (value, doubt)) in PRIOR.into_iter().enumerate() {
            let weight = (spread / doubt).powi(2);
            self.information[i][i] = weight;
            pull[i] = weight * (value.ln() - self.log[i]);
        }
        let (mut squares, mut weights) = (0.0, 0.0);
        let limit = HUBER * self.variance.sqrt();
        for o in observed {
            let (log_seconds, slope) = self.at(o.work);
            let off = o.log_seconds - log_seconds;
            let weight = o.weight * (limit / off.abs().max(limit));
            for i in 0..3 {
                pull[i] += weight * slope[i] * off;
                for j in 0..3 {
                    self.information[i][j] += weight * slope[i] * slope[j];
                }
            }
            squares += weight * off * off;
            weights += o.weight;
        }
        // One of the samples is spent on the rate.
        let seen = (weights - 1.0).max(0.0);
        self.freedom = worth + seen;
        self.variance = (worth * spread * spread + squares / HUBER_SHARE) / self.freedom;
        pull
    }

    /// Logarithm of the seconds, and its slope in each parameter's logarithm.
    fn at(&self, work: [f64; 3]) -> (f64, [f64; 3]) {
        let parts = [0, 1, 2].map(|i| work[i] * self.log[i].exp());
        let seconds: f64 = parts.iter().sum::<f64>().max(1e-12);
        (seconds.ln(), parts.map(|part| part / seconds))
    }

    /// Logarithm of the seconds, and the standard deviation of a next observation.
    fn predict(&self, work: [f64; 3]) -> (f64, f64) {
        let (log_seconds, slope) = self.at(work);
        let spread = solve(self.information, slope);
        let doubt: f64 = slope.iter().zip(spread).map(|(a, b)| a * b).sum();
        (log_seconds, (self.variance * (1.0 + doubt.max(0.0))).sqrt())
    }
}

/// Solves a symmetric, positive definite system of three.
fn solve(mut m: [[f64; 3]; 3], mut v: [f64; 3]) -> [f64; 3] {
    for i in 0..3 {
        for j in i + 1..3 {
            let factor = m[j][i] / m[i][i];
            let row = m[i];
            m[j].iter_mut().zip(row).for_each(|(a, b)| *a -= factor * b);
            v[j] -= factor * v[i];
        }
    }
    for i in (0..3).rev() {
        let known: f64 = (i + 1..3).map(|j| m[i][j] * v[j]).sum();
        v[i] = (v[i] - known) / m[i][i];
    }
    v
}

/// The 90th percentile of Student's distribution (Cornish-Fisher; freedom of 2 or more).
fn student_p90(freedom: f64) -> f64 {
    let z: f64 = 1.281_551_6;
    z + (z.powi(3) + z) / (4.0 * freedom) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * freedom * freedom)
}
