//! The link that all connections share: so many bytes a second, first come, first served.

use std::time::Duration;

use tokio::time::Instant;

/// What a link that was idle may send at once, in time: timers are no finer than a few milliseconds.
const SLACK: Duration = Duration::from_millis(5);

/// When the link is free again.
#[derive(Default)]
pub(crate) struct Link {
    free: Option<Instant>,
}

impl Link {
    /// Takes the link for some bytes; tells when they have passed.
    pub fn pass(&mut self, bytes: u64, rate: u64, now: Instant) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let passed = self.free.map_or(earliest, |free| free.max(earliest)) + takes;
        self.free = Some(passed);
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_together_takes_as_long_as_one_after_the_other() {
        let mut link = Link::default();
        let now = Instant::now();
        let last = (0..100).map(|_| link.pass(1000, 100_000, now)).last();
        let took = last.unwrap_or(now).duration_since(now);
        assert!(
            took >= Duration::from_secs(1) - 2 * SLACK && took <= Duration::from_secs(1),
            "{took:?}"
        );
    }

    #[test]
    fn a_rest_is_not_saved_up() {
        let mut link = Link::default();
        let now = Instant::now();
        link.pass(1000, 100_000, now);
        let later = now + Duration::from_secs(60);
        let passed = link.pass(100_000, 100_000, later);
        assert!(passed >= later + Duration::from_secs(1) - 2 * SLACK);
    }
}
