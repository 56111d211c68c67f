//! A volume and its load, made up: what the estimates and forecasts are tried against. It is written apart from them,
//! steps through time instead of using formulas, and has habits that they aren't told.

use super::Random;

/// Seconds of a day.
const DAY: f64 = 86_400.0;
/// What is moved at a time.
const PIECE: f64 = (4u64 << 20) as f64;

/// One volume.
#[derive(Debug, Clone)]
pub struct SimulatedVolume {
    /// Seconds since the beginning.
    pub seconds: f64,
    /// Free bytes; below zero is full.
    pub free: f64,
    rng: Random,
    /// Growth of a day at the beginning; it wanders.
    pub daily: f64,
    wander: f64,
    burst_daily: f64,
    burst_bytes: f64,
    /// What bursts took and give back, and when.
    borrowed: Vec<(f64, f64)>,
    /// Bytes a second that a merge moves; it wanders too.
    rate: f64,
    per_stretch: f64,
    per_merge: f64,
    /// The first bytes go to a cache.
    cache: f64,
    /// Other load: how often it begins (a second), how long it lasts, and what it leaves.
    load: (f64, f64, f64),
    noise: f64,
    slow: f64,
    speed: f64,
}

/// What a merge took.
#[derive(Debug, Clone, Copy)]
pub struct SimulatedMerge {
    /// How long.
    pub seconds: f64,
    /// Bytes that were moved.
    pub bytes: u64,
    /// Bytes that the guest wrote meanwhile.
    pub guest_bytes: u64,
}

impl SimulatedVolume {
    /// Everything follows from the seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Random::new(seed);
        let mut unit = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let daily = 0.3e9 * 40f64.powf(unit());
        Self {
            seconds: 0.0,
            free: 0.0,
            daily,
            wander: 0.04 * unit(),
            burst_daily: 0.02 + 0.2 * unit(),
            burst_bytes: daily * (0.3 + 1.2 * unit()),
            borrowed: Vec::new(),
            rate: 20e6 * 30f64.powf(unit()),
            per_stretch: 10e-6 * 60f64.powf(unit()),
            per_merge: 0.02 * 20f64.powf(unit()),
            cache: 1e9 * unit(),
            load: (1.0 / (120.0 + 1800.0 * unit()), 5.0 + 60.0 * unit(), 0.3 + 0.4 * unit()),
            noise: 0.05 + 0.2 * unit(),
            slow: 1.0 + unit(),
            speed: 0.0,
            rng,
        }
    }

    fn unit(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About normal.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// Lets an hour pass.
    pub fn hour(&mut self) {
        self.seconds += DAY / 24.0;
        self.daily *= (self.normal() * self.wander / 24f64.sqrt()).exp();
        // By day more than by night.
        let hour = (self.seconds / 3600.0) % 24.0;
        let share = if (8.0..18.0).contains(&hour) { 1.7 } else { 0.5 };
        self.free -= self.daily / 24.0 * share * (self.normal() * 0.5).exp();
        if self.unit() < self.burst_daily / 24.0 {
            let bytes = self.burst_bytes * 2.0 * self.unit();
            self.free -= bytes;
            if self.unit() < 0.5 {
                let until = self.seconds + DAY * (0.2 + 3.0 * self.unit());
                self.borrowed.push((until, bytes));
            }
        }
        let now = self.seconds;
        let back: f64 = self.borrowed.iter().filter(|(until, _)| *until <= now).map(|(_, bytes)| bytes).sum();
        self.borrowed.retain(|(until, _)| *until > now);
        self.free += back;
    }

    /// Free bytes, as somebody sees them who looks: files that come and go blur it.
    pub fn look(&mut self) -> u64 {
        let blur = self.normal().abs() * 20e6;
        (self.free - blur).max(0.0) as u64
    }

    /// Carries out a merge, piece by piece; `guest` is what the guest writes in a second, if the machine runs.
    pub fn merge(&mut self, bytes: u64, stretches: u64, guest: Option<f64>) -> SimulatedMerge {
        self.speed = 0.92 * self.speed + 0.03 * self.normal();
        let today = (self.normal() * self.noise + self.speed).exp();
        let (mut seconds, mut left, mut guest_bytes) = (self.per_merge, bytes as f64, 0.0);
        let mut loaded = 0.0f64;
        while left > 0.0 {
            let piece = left.min(PIECE.max(bytes as f64 / 2000.0));
            let cached = if bytes as f64 - left < self.cache { 0.7 } else { 1.0 };
            let stretch = stretches as f64 * piece / bytes as f64 * self.per_stretch;
            let mut took = (piece / self.rate * cached + stretch) * today;
            if loaded > 0.0 {
                loaded -= took;
                took /= self.load.2;
            } else if self.unit() < took * self.load.0 {
                loaded = self.load.1;
            }
            if let Some(guest) = guest {
                // Each byte of the guest's takes as long as one of the merge's and a half; it comes while we wait, too.
                took *= self.slow / (1.0 - (1.5 * guest / self.rate).min(0.7));
                guest_bytes += guest * took;
            }
            seconds += took;
            left -= piece;
        }
        SimulatedMerge { seconds, bytes, guest_bytes: guest_bytes as u64 }
    }

    /// Some merge: bytes and stretches.
    pub fn any_merge(&mut self) -> (u64, u64) {
        let bytes = (16u64 << 20) << self.rng.below(9);
        (bytes + self.rng.below(bytes), 1 + (bytes >> (16 + self.rng.below(6))))
    }

    /// Bytes a second of a guest on this volume.
    pub fn any_guest(&mut self) -> f64 {
        self.rate * (0.02 + 0.25 * self.unit())
    }
}
