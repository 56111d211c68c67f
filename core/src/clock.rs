//! The only caller of the system clock, so that tests decide what time it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

/// Tells the time of day, and how long things take.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The time of day.
    fn now(&self) -> DateTime<Utc>;
    /// Time since some fixed instant; never goes back.
    fn elapsed(&self) -> Duration;
}

/// The computer's time zone, in which windows are.
pub fn zone() -> chrono::Local {
    chrono::Local
}

/// A clock that is handed around.
pub type SharedClock = Arc<dyn Clock>;

/// The computer's own clock.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// A clock whose `elapsed` starts at zero now.
    pub fn shared() -> SharedClock {
        Arc::new(Self(Instant::now()))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
