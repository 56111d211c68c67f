//! The demo's history took seconds, not a year: this clock says what day it was.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use snaptree_core::clock::{Clock, SharedClock, SystemClock};
use snaptree_core::locks::lock;

/// Tells a day that was set; measures time as it really passes.
#[derive(Debug)]
pub struct StoryClock {
    day: Mutex<DateTime<Utc>>,
    real: SharedClock,
}

impl StoryClock {
    /// A clock that shows the present until it is set back.
    pub fn shared() -> Arc<Self> {
        let real = SystemClock::shared();
        Arc::new(Self { day: Mutex::new(real.now()), real })
    }

    /// Sets the clock to so many hours before the present.
    pub fn set_hours_ago(&self, hours: i64) {
        *lock(&self.day) = self.real.now() - chrono::Duration::hours(hours);
    }
}

impl Clock for StoryClock {
    fn now(&self) -> DateTime<Utc> {
        *lock(&self.day)
    }

    fn elapsed(&self) -> Duration {
        self.real.elapsed()
    }
}
