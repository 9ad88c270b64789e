//! How long ranges have to be for a fast reader to keep well below a repository's rate limit. Pure.
//!
//! `hosts.rs` keeps what is known of the limit and of a connection's speed, `plan.rs` asks how to cut a window. Where no limit
//! is known, nothing changes. With one, ranges take about half of it: the rest is for looking around, and for others who
//! share an address. If the window has no room for ranges that long, fewer are fetched at once; a single one that has none
//! either is asked for beyond the window and held back there.

use std::time::{Duration, SystemTime};

use super::plan;
use crate::repository::RateLimit;

/// The window of all limits in use, but for those that last longer, by what they say of their end.
const SHORTEST_WINDOW: Duration = Duration::from_secs(60);
const LONGEST_WINDOW: Duration = Duration::from_secs(3600);

/// The part of a limit that is for ranges.
const SHARE: f64 = 0.5;

/// How a window is cut into ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// How many at once.
    pub(super) width: usize,
    /// A range has at least so many bytes, even if they are beyond the window; 0 for no matter.
    pub(super) least: u64,
}

/// What a host allows, and how fast it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Thrift {
    /// Requests a second; `None` if there is no limit, or nobody said so.
    allowed: Option<f64>,
    /// The most bytes a second that one connection brought. It never falls: a slow hour is no reason to ask more often.
    fastest: f64,
}

impl Thrift {
    /// What the last answer said of the limit.
    pub(super) fn heed(&mut self, limit: Option<RateLimit>, now: SystemTime) {
        self.allowed = limit.map(|limit| {
            let left = limit.reset.and_then(|reset| reset.duration_since(now).ok());
            let window = left.unwrap_or_default().clamp(SHORTEST_WINDOW, LONGEST_WINDOW);
            // Others may have taken more than their half. What is left is never nothing: that would be a pause, and pauses are
            // kept by who sends the requests.
            let ours = (limit.limit as f64 * SHARE).min(limit.remaining as f64).max(1.0);
            ours / window.as_secs_f64()
        });
    }

    /// An answer brought so many bytes in that time, counted from when it was asked for.
    pub(super) fn brought(&mut self, bytes: u64, time: Duration) {
        if time > Duration::ZERO {
            self.fastest = self.fastest.max(bytes as f64 / time.as_secs_f64());
        }
    }

    /// How to cut a window of so many bytes, for at most so many ranges at once.
    pub(super) fn shape(&self, window: u64, most: usize) -> Shape {
        let free = Shape {
            width: most,
            least: 0,
        };
        let Some(allowed) = self.allowed else { return free };
        // What one connection brings from one request to the next if it alone may ask.
        let alone = self.fastest / allowed;
        let fits = |width: &usize| plan::part_of(window, *width) as f64 >= alone * *width as f64;
        match (1..=most).rev().find(fits) {
            Some(width) => Shape { width, least: 0 },
            None => Shape {
                width: 1,
                least: alone as u64,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn limited(requests: u64, remaining: u64, reset: u64) -> Thrift {
        let now = SystemTime::now();
        let mut thrift = Thrift::default();
        let limit = RateLimit {
            limit: requests,
            remaining,
            reset: Some(now + Duration::from_secs(reset)),
        };
        thrift.heed(Some(limit), now);
        thrift
    }

    /// Requests a minute of a reader for whom so many bytes a second come over each connection.
    fn in_a_minute(shape: Shape, window: u64, each: u64) -> f64 {
        let length = plan::part_of(window, shape.width).max(shape.least);
        60.0 * (each * shape.width as u64) as f64 / length as f64
    }

    #[test]
    fn half_of_the_limit_holds_for_every_speed_and_window() {
        for limit in [60, 133, 500, 1000] {
            for speed in [MIB / 10, MIB, 25 * MIB, 500 * MIB] {
                for window in [MIB, 4 * MIB, 32 * MIB, 96 * MIB] {
                    let mut thrift = limited(limit, limit, 60);
                    thrift.brought(speed, Duration::from_secs(1));
                    let shape = thrift.shape(window, 8);
                    let took = in_a_minute(shape, window, speed);
                    assert!(
                        took <= 1.01 * limit as f64 / 2.0,
                        "{limit} {speed} {window}: {shape:?} takes {took}"
                    );
                }
            }
        }
    }

    #[test]
    fn without_a_limit_nothing_changes() {
        let mut thrift = Thrift::default();
        thrift.brought(1000 * MIB, Duration::from_secs(1));
        let free = Shape { width: 8, least: 0 };
        assert_eq!(thrift.shape(MIB, 8), free);
        thrift.heed(None, SystemTime::now());
        assert_eq!(thrift.shape(MIB, 8), free);
    }

    #[test]
    fn a_slow_line_keeps_its_connections_and_a_fast_one_gets_one_long_range() {
        let mut thrift = limited(600, 600, 60);
        thrift.brought(4 * MIB, Duration::from_secs(1));
        assert_eq!(thrift.shape(32 * MIB, 4), Shape { width: 4, least: 0 });
        thrift.brought(500 * MIB, Duration::from_secs(1));
        let shape = thrift.shape(32 * MIB, 4);
        assert_eq!((shape.width, shape.least), (1, 100 * MIB));
    }

    #[test]
    fn what_others_take_is_left_to_them_and_a_limit_for_an_hour_is_one() {
        let allowed = |requests, remaining, reset| limited(requests, remaining, reset).allowed.unwrap();
        assert_eq!(allowed(60, 60, 60), 0.5);
        assert_eq!(allowed(60, 6, 60), 0.1);
        assert_eq!(allowed(60, 0, 5), 1.0 / 60.0);
        assert!((allowed(7200, 7200, 3600) - 1.0).abs() < 0.01);
    }
}
