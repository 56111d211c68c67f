//! A bandwidth limit: how long to wait before the next step.

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

#[cfg(test)]
mod tests {
    use super::*;

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
