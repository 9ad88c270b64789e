//! Rate limits: a moving window, and the headers that tell of it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::errors::Problem;
use crate::settings::RateLimit;

/// Who asked when. Users are counted by name, guests by user agent (and address, which is the
/// same for all here).
#[derive(Default)]
pub(crate) struct Limiter {
    seen: HashMap<String, VecDeque<Instant>>,
}

pub(crate) type Headers = Vec<(&'static str, String)>;

impl Limiter {
    /// Counts a request. The headers go on every answer, good or bad; with some packaged
    /// settings `Retry-After` stands on a 200 too and means nothing there.
    pub fn take(&mut self, limit: RateLimit, who: &str) -> (Headers, Result<(), Problem>) {
        let window = Duration::from_secs(limit.seconds);
        let now = Instant::now();
        let seen = self.seen.entry(who.to_string()).or_default();
        while seen
            .front()
            .is_some_and(|first| now.duration_since(*first) >= window)
        {
            seen.pop_front();
        }
        let allowed = seen.len() < limit.requests as usize;
        if allowed {
            seen.push_back(now);
        }
        let oldest = seen
            .front()
            .map_or(Duration::ZERO, |first| now.duration_since(*first));
        let wait = window.saturating_sub(oldest).as_secs_f64().ceil() as u64;
        let remaining = (limit.requests as usize).saturating_sub(seen.len());
        let reset = Timestamp::now().as_second() + wait as i64;
        let headers = vec![
            ("x-ratelimit-limit", limit.requests.to_string()),
            ("x-ratelimit-remaining", remaining.to_string()),
            ("x-ratelimit-reset", reset.to_string()),
            ("retry-after", wait.to_string()),
        ];
        let window = match limit.seconds {
            60 => "1 minute".to_string(),
            3600 => "1 hour".to_string(),
            seconds => format!("{seconds} second"),
        };
        let answer = if allowed {
            Ok(())
        } else {
            Err(exceeded(limit.requests, &window))
        };
        (headers, answer)
    }
}

/// The 429 of a limit in words, such as `5 per 1 minute`.
pub(crate) fn exceeded(requests: u32, window: &str) -> Problem {
    Problem::new(429, format!("{requests} per {window}"))
}
