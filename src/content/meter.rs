//! How much came lately, and how much in all: what the status shows.
//!
//! Lives in a content's state and in the store. It only counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// How far back a speed looks, in seconds: long enough to be steady, short enough to tell that nothing comes any more.
const SECONDS: u64 = 4;

/// Bytes of the last seconds.
#[derive(Debug)]
pub(super) struct Meter {
    began: Instant,
    /// The second, counted from the beginning, and the bytes that came in it.
    seconds: [(u64, u64); SECONDS as usize + 1],
}

impl Default for Meter {
    fn default() -> Self {
        Meter {
            began: Instant::now(),
            seconds: Default::default(),
        }
    }
}

impl Meter {
    /// So many bytes came.
    pub(super) fn note(&mut self, bytes: u64, now: Instant) {
        let second = now.saturating_duration_since(self.began).as_secs();
        let slot = &mut self.seconds[(second % (SECONDS + 1)) as usize];
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 += bytes;
    }

    /// Bytes a second.
    pub(super) fn rate(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.began);
        let second = elapsed.as_secs();
        let bytes: u64 = self
            .seconds
            .iter()
            .filter(|(at, _)| *at <= second && second - at <= SECONDS)
            .map(|(_, bytes)| bytes)
            .sum();
        // The present second is not over.
        let full = second.min(SECONDS) as f64;
        let time = full + f64::from(elapsed.subsec_millis()) / 1000.0;
        (bytes as f64 / time.max(0.05)) as u64
    }
}

/// Bytes since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Read by programs, and there when they asked.
    from_cache: AtomicU64,
    /// Fetched.
    from_network: AtomicU64,
}

impl Tally {
    /// So many bytes were there for a program that asked for them.
    pub(super) fn read(&self, bytes: u64) {
        self.from_cache.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes came.
    pub(super) fn fetched(&self, bytes: u64) {
        self.from_network.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Both.
    pub(super) fn get(&self) -> (u64, u64) {
        (
            self.from_cache.load(Ordering::Relaxed),
            self.from_network.load(Ordering::Relaxed),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_speed_is_that_of_the_last_seconds() {
        let mut meter = Meter::default();
        let begin = meter.began;
        let time = |seconds: f64| begin + Duration::from_secs_f64(seconds);
        assert_eq!(meter.rate(time(0.0)), 0);
        for second in 0..10 {
            meter.note(1000, time(f64::from(second) + 0.5));
        }
        assert_eq!(meter.rate(time(10.0)), 1000);
        assert_eq!(meter.rate(time(14.9)), 0, "nothing came for a while");
        meter.note(500, time(100.0));
        assert_eq!(meter.rate(time(100.0)), 125);
    }
}
