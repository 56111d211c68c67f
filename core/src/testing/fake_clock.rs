//! Time that moves when the test says so.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, TimeZone, Utc};

use crate::clock::Clock;

/// A clock that stands still until [`FakeClock::advance`].
#[derive(Debug)]
pub struct FakeClock {
    start: DateTime<Utc>,
    elapsed: Mutex<Duration>,
}

impl FakeClock {
    /// A clock that starts at `start`.
    pub fn new(start: DateTime<Utc>) -> Arc<Self> {
        Arc::new(Self { start, elapsed: Mutex::default() })
    }

    /// A clock that starts at noon of 1 June 2026.
    pub fn noon() -> Arc<Self> {
        Self::new(Utc.with_ymd_and_hms(2026, 6, 1, 12, 0, 0).single().unwrap_or_default())
    }

    /// Moves time on.
    pub fn advance(&self, by: Duration) {
        *self.elapsed.lock().unwrap() += by;
    }
}

impl Clock for FakeClock {
    fn now(&self) -> DateTime<Utc> {
        self.start + TimeDelta::from_std(self.elapsed()).unwrap_or_default()
    }
    fn elapsed(&self) -> Duration {
        *self.elapsed.lock().unwrap()
    }
}
