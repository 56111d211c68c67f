//! The model of a merge's time, fitted to merges that finished.
//!
//! ```text
//! idle    = bytes x a + stretches x c + merges x d
//! stopped = idle
//! live    = idle x m + bytes that the guest writes meanwhile x e
//! ```
//!
//! It is fitted to the logarithms (so that all errors count as shares, and nothing becomes negative), newer merges
//! weighing more, outliers less, with wide priors in place of what the samples can't tell yet. Stopped and live
//! merges share a, c and d: what the volume does is learnt from both. Ahead of a live merge the guest's bytes are
//! its rate x the time, so live = idle x m / (1 - rate x e); a merge always gets some of the volume.

/// How many parameters there are: a, c, d, e, m.
pub(super) const PARTS: usize = 5;
/// Those of the idle merge: a, c, d.
const IDLE: usize = 3;
/// Seconds for each byte that the guest writes.
const GUEST: usize = 3;
/// How many times longer a live merge takes where the guest is quiet.
const LIVE: usize = 4;

/// Before anything is known: seconds per byte, per stretch, per merge, per byte of the guest, and times as long for a
/// live merge; and how far each may be off (as the logarithm's standard deviation).
const PRIOR: [(f64, f64); PARTS] = [(1.0 / 200e6, 1.5), (100e-6, 2.0), (0.05, 1.5), (1.0 / 200e6, 1.0), (1.2, 0.4)];
/// The spread that is assumed before samples show theirs, and how many samples that assumption is worth.
const SPREAD: (f64, f64) = (0.3, 2.0);
/// Beyond so many spreads, a sample pulls no harder.
const HUBER: f64 = 1.5;
/// What that leaves of a normal distribution's variance.
const HUBER_SHARE: f64 = 0.867;
/// The largest share of the time that a guest's writes may take: the merge gets the rest.
const MOST_GUEST: f64 = 0.8;

/// One sample, to the fit.
pub(super) struct Observed {
    /// Bytes, stretches, merges.
    pub work: [f64; IDLE],
    /// Of a live merge: bytes that the guest wrote meanwhile.
    pub guest_bytes: Option<f64>,
    /// Logarithm of the seconds that it took.
    pub log_seconds: f64,
    /// How much it counts.
    pub weight: f64,
}

/// The fitted model.
#[derive(Debug, Clone)]
pub(super) struct Fit {
    /// Logarithms of a, c, d, e and m.
    log: [f64; PARTS],
    /// What is known of them: the inverse of their covariance, in units of the variance.
    information: [[f64; PARTS]; PARTS],
    variance: f64,
    /// Degrees of freedom of the variance.
    freedom: f64,
}

impl Fit {
    pub(super) fn of(observed: &[Observed]) -> Self {
        let (spread, worth) = SPREAD;
        let mut fit = Self {
            log: PRIOR.map(|(value, _)| value.ln()),
            information: [[0.0; PARTS]; PARTS],
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
    fn gather(&mut self, observed: &[Observed]) -> [f64; PARTS] {
        let (spread, worth) = SPREAD;
        let mut pull = [0.0; PARTS];
        self.information = [[0.0; PARTS]; PARTS];
        for (i, (value, doubt)) in PRIOR.into_iter().enumerate() {
            let weight = (spread / doubt).powi(2);
            self.information[i][i] = weight;
            pull[i] = weight * (value.ln() - self.log[i]);
        }
        let (mut squares, mut weights) = (0.0, 0.0);
        let limit = HUBER * self.variance.sqrt();
        for o in observed {
            let (log_seconds, slope) = self.at(o);
            let off = o.log_seconds - log_seconds;
            let weight = o.weight * (limit / off.abs().max(limit));
            for i in 0..PARTS {
                pull[i] += weight * slope[i] * off;
                for j in 0..PARTS {
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

    /// The parts of an idle merge, in seconds.
    fn idle(&self, work: [f64; IDLE]) -> [f64; IDLE] {
        std::array::from_fn(|i| work[i] * self.log[i].exp())
    }

    /// Logarithm of a sample's seconds, and its slope in each parameter's logarithm.
    fn at(&self, o: &Observed) -> (f64, [f64; PARTS]) {
        let times = if o.guest_bytes.is_some() { self.log[LIVE].exp() } else { 1.0 };
        let idle = self.idle(o.work).map(|part| part * times);
        let guest = o.guest_bytes.unwrap_or(0.0) * self.log[GUEST].exp();
        let seconds = (idle.iter().sum::<f64>() + guest).max(1e-12);
        let mut slope = [0.0; PARTS];
        slope[..IDLE].copy_from_slice(&idle.map(|part| part / seconds));
        slope[GUEST] = guest / seconds;
        slope[LIVE] = if o.guest_bytes.is_some() { 1.0 - slope[GUEST] } else { 0.0 };
        (seconds.ln(), slope)
    }

    /// Logarithm of the seconds of a next merge, and how far it reaches to the 10th and 90th percentile; of a live one
    /// with the guest's bytes per second.
    pub(super) fn predict(&self, work: [f64; IDLE], guest: Option<f64>) -> (f64, f64) {
        let idle = self.idle(work);
        let seconds = idle.iter().sum::<f64>().max(1e-12);
        let mut slope = [0.0; PARTS];
        slope[..IDLE].copy_from_slice(&idle.map(|part| part / seconds));
        let mut log_seconds = seconds.ln();
        if let Some(rate) = guest {
            let share = (rate.max(0.0) * self.log[GUEST].exp()).min(MOST_GUEST);
            log_seconds += self.log[LIVE] - (1.0 - share).ln();
            slope[GUEST] = share / (1.0 - share);
            slope[LIVE] = 1.0;
        }
        let spread = solve(self.information, slope);
        let doubt: f64 = slope.iter().zip(spread).map(|(a, b)| a * b).sum();
        (log_seconds, student_p90(self.freedom) * (self.variance * (1.0 + doubt.max(0.0))).sqrt())
    }
}

/// Solves a symmetric, positive definite system.
fn solve(mut m: [[f64; PARTS]; PARTS], mut v: [f64; PARTS]) -> [f64; PARTS] {
    for i in 0..PARTS {
        for j in i + 1..PARTS {
            let factor = m[j][i] / m[i][i];
            let row = m[i];
            m[j].iter_mut().zip(row).for_each(|(a, b)| *a -= factor * b);
            v[j] -= factor * v[i];
        }
    }
    for i in (0..PARTS).rev() {
        let known: f64 = (i + 1..PARTS).map(|j| m[i][j] * v[j]).sum();
        v[i] = (v[i] - known) / m[i][i];
    }
    v
}

/// The 90th percentile of Student's distribution (Cornish-Fisher; freedom of 2 or more).
pub(super) fn student_p90(freedom: f64) -> f64 {
    let z: f64 = 1.281_551_6;
    z + (z.powi(3) + z) / (4.0 * freedom) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * freedom * freedom)
}
