//! How many ranges of a file to fetch side by side from one host: as many as pay. Pure: the time is the caller's.
//!
//! Part of what is known of a host (`hosts.rs`), under the store's table; `fetch.rs` tells what came. On a line whose
//! answers come at once, one stream brings all there is, and more of them only cost. On a long line a connection is
//! held back by its window or by a limit of the server, so there all are used from the start, and fewer are tried
//! when it has flowed for a while: they stay fewer if they bring as much.

use std::time::{Duration, Instant};

/// Hosts that answer faster are in the same room: one connection fills that line.
const NEAR: Duration = Duration::from_millis(5);

/// How long bytes come before fewer ranges are tried: most files are done by then.
const FLOWING: Duration = Duration::from_secs(10);
/// Fewer ranges are given so long before they are measured: what is under way by the others has to end.
const RAMP: Duration = Duration::from_millis(500);
/// How long they are measured.
const TRIAL: Duration = Duration::from_secs(1);
/// The others are missed if they brought this much more; shared lines vary by less.
const GAIN: f64 = 1.2;

/// Lines and readers change; after so long all are used again.
const RETRY: Duration = Duration::from_secs(60);

/// How many ranges at once, and what that is based on.
#[derive(Debug, Default)]
pub(super) struct Width {
    stage: Stage,
    /// How often their number was halved.
    halved: u32,
    /// The shortest wait for a first byte.
    latency: Option<Duration>,
}

#[derive(Debug, Default)]
enum Stage {
    /// Nothing came yet.
    #[default]
    Fresh,
    /// Bytes come.
    Flows { since: Instant },
    /// They are measured.
    Measured(Sample),
    /// Half as many ranges are measured; `before` is the rate of the others.
    Trial { before: f64, sample: Sample },
    /// It is known how many it takes.
    Settled { since: Instant },
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

    /// The rate, when it was measured for long enough. A sample may begin in the future.
    fn add(&mut self, bytes: u64, now: Instant) -> Option<f64> {
        if now < self.since {
            return None;
        }
        self.bytes += bytes;
        let elapsed = now - self.since;
        (elapsed >= TRIAL).then(|| self.bytes as f64 / elapsed.as_secs_f64())
    }
}

impl Width {
    /// How many ranges at once, of `most` allowed.
    pub(super) fn ranges(&self, most: usize) -> usize {
        match self.latency {
            Some(latency) if latency >= NEAR => most.checked_shr(self.halved).unwrap_or(0).max(1),
            _ => 1,
        }
    }

    /// An answer began after so long.
    pub(super) fn answered(&mut self, after: Duration) {
        self.latency = Some(self.latency.map_or(after, |latency| latency.min(after)));
    }

    /// Bytes came. Tells whether the number of ranges grew.
    pub(super) fn came(&mut self, bytes: u64, now: Instant, most: usize) -> bool {
        let ranges = self.ranges(most);
        match &mut self.stage {
            Stage::Fresh => self.stage = Stage::Flows { since: now },
            Stage::Flows { since } => {
                if ranges > 1 && now - *since >= FLOWING {
                    self.stage = Stage::Measured(Sample::new(now));
                }
            }
            Stage::Measured(sample) => {
                if let Some(before) = sample.add(bytes, now) {
                    self.halved += 1;
                    let sample = Sample::new(now + RAMP);
                    self.stage = Stage::Trial { before, sample };
                }
            }
            Stage::Trial { before, sample } => {
                if let Some(rate) = sample.add(bytes, now) {
                    let is_as_good = rate * GAIN >= *before;
                    if is_as_good && ranges > 1 {
                        self.stage = Stage::Measured(Sample::new(now));
                    } else {
                        self.stage = Stage::Settled { since: now };
                        if !is_as_good {
                            self.halved -= 1;
                        }
                        return !is_as_good;
                    }
                }
            }
            Stage::Settled { since } if now - *since >= RETRY => {
                self.stage = Stage::Flows { since: now };
                return std::mem::take(&mut self.halved) > 0;
            }
            Stage::Settled { .. } => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// So many seconds of a line: `rate` in MiB/s for so many ranges.
    fn flow(width: &mut Width, seconds: u64, latency_ms: u64, rate: impl Fn(usize) -> u64) -> usize {
        let start = Instant::now();
        width.answered(Duration::from_millis(latency_ms));
        for tick in 0..100 * seconds {
            let now = start + Duration::from_millis(10 * tick);
            width.came(rate(width.ranges(8)) * MIB / 100, now, 8);
        }
        width.ranges(8)
    }

    #[test]
    fn a_far_host_gets_all_ranges_at_once() {
        assert_eq!(flow(&mut Width::default(), 0, 40, |_| 1), 8);
    }

    #[test]
    fn a_limit_for_each_connection_is_met_with_all_of_them() {
        assert_eq!(flow(&mut Width::default(), 30, 40, |n| 25 * n as u64), 8);
    }

    #[test]
    fn a_line_that_one_connection_fills_gets_one_and_later_all_again() {
        let mut width = Width::default();
        assert_eq!(flow(&mut width, 30, 40, |_| 100), 1);
        let start = Instant::now() + Duration::from_secs(100);
        assert!(width.came(MIB, start, 8));
        assert_eq!(width.ranges(8), 8);
    }

    #[test]
    fn as_many_as_pay_are_used() {
        assert_eq!(flow(&mut Width::default(), 30, 40, |n| 25 * n.min(4) as u64), 4);
    }

    #[test]
    fn a_host_in_the_same_room_gets_one_stream() {
        assert_eq!(flow(&mut Width::default(), 30, 1, |n| 25 * n as u64), 1);
    }
}
