//! How large the steps of a merge are, and with a bandwidth limit how long to wait before the next one.

use std::time::Duration;

use crate::units::{ByteCount, ByteRate};

/// Keeps the mean rate since it was made at or below a limit; pauses don't earn credit for a burst.
#[derive(Debug, Clone)]
pub struct RateLimit {
    rate: Option<ByteRate>,
    /// On the caller's clock ([`crate::clock::Clock::elapsed`]): when the bytes moved so far are paid for.
    paid_until: Duration,
}

impl RateLimit {
    /// At most `rate`; `None` is no limit. A rate that isn't positive is none either.
    pub fn new(rate: Option<ByteRate>) -> Self {
        Self { rate: rate.filter(|rate| rate.0 > 0.0), paid_until: Duration::ZERO }
    }

    /// How large a step should be so that the limit is kept smoothly: about half a second's worth.
    pub fn budget(&self, batch: ByteCount) -> ByteCount {
        match self.rate {
            Some(rate) => ByteCount(batch.0.min(((rate.0 / 2.0) as u64).max(1 << 20))),
            None => batch,
        }
    }

    /// Says that `bytes` were moved in a step that began at `began`; returns when the next step may begin.
    pub fn moved(&mut self, bytes: ByteCount, began: Duration) -> Duration {
        if let Some(rate) = self.rate {
            let seconds = (bytes.0 as f64 / rate.0).min(86_400.0);
            self.paid_until = self.paid_until.max(began) + Duration::from_secs_f64(seconds);
        }
        self.paid_until
    }
}

/// Makes steps as large as they may be without keeping somebody who wants to pause or cancel waiting.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    most: ByteCount,
    next: ByteCount,
}

/// Data moved in one step while the machine runs. Each step flushes what it moved, and on most file systems a guest's flush
/// waits for that: 8 ms at 500 MB/s. With less, the steps' own flushes would make the merge slower.
const LIVE_STEP: ByteCount = ByteCount::mib(4);

/// How long a step should take, about.
const STEP_TIME: Duration = Duration::from_secs(1);
/// The first step, and the smallest that time alone makes.
const FIRST_STEP: ByteCount = ByteCount::mib(64);

impl Pace {
    /// Steps of `most` bytes at most.
    pub fn new(most: ByteCount) -> Self {
        Self { most, next: most.min(FIRST_STEP) }
    }

    /// The same while the machine runs.
    pub fn live(most: ByteCount) -> Self {
        Self::new(most.min(LIVE_STEP))
    }

    /// How large the next step may be.
    pub fn budget(&self) -> ByteCount {
        self.next
    }

    /// Says that `bytes` were moved in a step that took so long. What moved little says nothing.
    pub fn moved(&mut self, bytes: ByteCount, took: Duration) {
        if bytes.0 >= FIRST_STEP.0 / 2 {
            let fits = bytes.0 as f64 * (STEP_TIME.as_secs_f64() / took.as_secs_f64().max(1e-3));
            self.next = ByteCount((fits as u64).max(FIRST_STEP.0)).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_take_about_a_second() {
        let (mib, second) = (ByteCount::mib, Duration::from_secs(1));
        let mut pace = Pace::new(mib(256));
        assert_eq!(pace.budget(), mib(64));
        pace.moved(mib(64), second / 10);
        assert_eq!(pace.budget(), mib(256));
        pace.moved(mib(256), 2 * second);
        assert_eq!(pace.budget(), mib(128));
        pace.moved(mib(1), 2 * second);
        assert_eq!(pace.budget(), mib(128), "a step that had little to do says nothing");
        pace.moved(mib(128), 60 * second);
        assert_eq!(pace.budget(), mib(64));
        assert_eq!(Pace::new(mib(2)).budget(), mib(2));
        let mut live = Pace::live(mib(256));
        live.moved(mib(64), second / 1000);
        assert_eq!(live.budget(), LIVE_STEP, "a guest's flush waits for no more");
    }

    #[test]
    fn keeps_the_rate_and_earns_nothing_in_a_pause() {
        let mut limit = RateLimit::new(Some(ByteRate(10.0 * 1024.0 * 1024.0)));
        assert_eq!(limit.budget(ByteCount::mib(64)), ByteCount::mib(5));
        let second = Duration::from_secs(1);
        assert_eq!(limit.moved(ByteCount::mib(10), second), 2 * second);
        assert_eq!(limit.moved(ByteCount::mib(20), second), 4 * second);
        assert_eq!(limit.moved(ByteCount::mib(10), 60 * second), 61 * second);
        assert_eq!(RateLimit::new(None).moved(ByteCount::gib(1), second), Duration::ZERO);
    }
}
