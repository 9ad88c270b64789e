//! How many ranges of a file to fetch side by side from one host: as many as pay. Pure: the time is the caller's.
//!
//! Part of what is known of a host (`hosts.rs`), under the store's table; `fetch.rs` tells what came. On a line whose
//! answers come at once, one stream brings all there is, and more of them only cost. On a long line a connection is
//! held back by its window or by a limit of the server, so there more are tried, and kept if they bring more.

use std::time::{Duration, Instant};

/// Hosts that answer faster are in the same room: one connection fills that line.
const NEAR: Duration = Duration::from_millis(5);

/// What one stream has to show before more are tried. Longer than the batches in which slow lines deliver.
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// And how many bytes of it.
const FIRST_BYTES: u64 = 1024 * 1024;

/// More ranges are given so long to get going, at least, before they are measured: their first bytes take a round trip,
/// and the window has to grow.
const RAMP: Duration = Duration::from_millis(500);
/// How long they are measured.
const TRIAL: Duration = Duration::from_secs(1);
/// They stay if they bring this much more than what there was before; shared lines vary by less.
const GAIN: f64 = 1.2;

/// Lines change; after so long without more ranges they are tried again.
const RETRY: Duration = Duration::from_secs(60);

/// How many ranges at once, and what that is based on.
#[derive(Debug, Default)]
pub(super) struct Width {
    stage: Stage,
    /// The shortest wait for a first byte.
    latency: Option<Duration>,
}

#[derive(Debug, Default)]
enum Stage {
    /// Nothing came yet.
    #[default]
    Fresh,
    /// One stream is measured.
    One(Sample),
    /// `ranges` are measured; `before` is the rate without them.
    Trial {
        ranges: usize,
        before: f64,
        sample: Sample,
    },
    /// This many it is.
    Settled { ranges: usize, since: Instant },
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    since: Instant,
    bytes: u64,
}

impl Sample {
    fn new(since: Instant) -> Self {
        Sample { since, bytes: 0 }
    }

    fn rate(&self, now: Instant) -> f64 {
        self.bytes as f64 / (now - self.since).as_secs_f64().max(0.001)
    }
}

impl Width {
    /// How many ranges at once.
    pub(super) fn ranges(&self) -> usize {
        match self.stage {
            Stage::Fresh | Stage::One(_) => 1,
            Stage::Trial { ranges, .. } | Stage::Settled { ranges, .. } => ranges,
        }
    }

    /// An answer began after so long.
    pub(super) fn answered(&mut self, after: Duration) {
        self.latency = Some(self.latency.map_or(after, |latency| latency.min(after)));
    }

    /// A download stood still because its readers did: what came meanwhile says nothing of the line.
    pub(super) fn paused(&mut self, now: Instant) {
        match &mut self.stage {
            Stage::One(sample) | Stage::Trial { sample, .. } => *sample = Sample::new(now),
            Stage::Fresh | Stage::Settled { .. } => {}
        }
    }

    /// Bytes came that a reader was in need of. Tells whether the number of ranges grew.
    pub(super) fn came(&mut self, bytes: u64, now: Instant, most: usize) -> bool {
        match &mut self.stage {
            Stage::Fresh => self.stage = Stage::One(Sample::new(now)),
            Stage::One(sample) => {
                sample.bytes += bytes;
                let is_far = self.latency.is_some_and(|latency| latency >= NEAR);
                if most > 1 && is_far && sample.bytes >= FIRST_BYTES && now - sample.since >= FIRST_LOOK {
                    self.stage = Stage::Trial {
                        ranges: most,
                        before: sample.rate(now),
                        // In the future: until then the new ranges get going.
                        sample: Sample::new(now + RAMP),
                    };
                    return true;
                }
            }
            Stage::Trial {
                ranges,
                before,
                sample,
            } => {
                if now < sample.since {
                    return false;
                }
                sample.bytes += bytes;
                if now - sample.since >= TRIAL {
                    let (ranges, before) = (*ranges, *before);
                    if sample.rate(now) >= before * GAIN {
                        self.stage = Stage::Settled { ranges, since: now };
                    } else if ranges > 2 {
                        self.stage = Stage::Trial {
                            ranges: ranges / 2,
                            before,
                            sample: Sample::new(now + RAMP),
                        };
                    } else {
                        self.stage = Stage::Settled {
                            ranges: 1,
                            since: now,
                        };
                    }
                }
            }
            Stage::Settled { ranges: 1, since } if now - *since >= RETRY => self.stage = Stage::Fresh,
            Stage::Settled { .. } => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// Ten seconds of a line: `rate` in MiB/s for so many ranges.
    fn ten_seconds(width: &mut Width, latency_ms: u64, rate: impl Fn(usize) -> u64) -> usize {
        let start = Instant::now();
        width.answered(Duration::from_millis(latency_ms));
        for tick in 0..1000 {
            let now = start + Duration::from_millis(10 * tick);
            width.came(rate(width.ranges()) * MIB / 100, now, 8);
        }
        width.ranges()
    }

    #[test]
    fn a_limit_for_each_connection_is_met_with_more_of_them() {
        assert_eq!(ten_seconds(&mut Width::default(), 40, |n| 25 * n as u64), 8);
    }

    #[test]
    fn a_line_that_is_full_gets_no_more_ranges() {
        assert_eq!(ten_seconds(&mut Width::default(), 40, |_| 100), 1);
    }

    #[test]
    fn a_host_in_the_same_room_gets_one_stream() {
        assert_eq!(ten_seconds(&mut Width::default(), 1, |n| 25 * n as u64), 1);
    }

    #[test]
    fn a_slow_reader_says_nothing_of_the_line() {
        let (mut width, start) = (Width::default(), Instant::now());
        width.answered(Duration::from_millis(40));
        for tick in 0..1000 {
            let now = start + Duration::from_millis(50 * tick);
            width.came(MIB, now, 8);
            width.paused(now);
        }
        assert_eq!(width.ranges(), 1);
    }
}
