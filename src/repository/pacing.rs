//! Keeping to the repository's rate limits: what its answers say about them, and one shared pause for all requests.
//!
//! Fed by `transport` with the headers of every answer; `retry` waits here before each request. It never waits longer
//! than the caller may.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// No pause that a server asks for is believed beyond this; limits in use are per hour at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What the last answer said about the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests in a window.
    pub limit: u64,
    /// Requests left in this window.
    pub remaining: u64,
    /// When the window ends, by the server's clock.
    pub reset: Option<SystemTime>,
}

impl RateLimit {
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
        Some(RateLimit {
            limit: number("x-ratelimit-limit")?,
            remaining: number("x-ratelimit-remaining")?,
            // Bounded, because it becomes a time: year 2200.
            reset: number("x-ratelimit-reset")
                .filter(|seconds| *seconds < 7_258_118_400)
                .map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)),
        })
    }
}

/// How long an answer asks us to stay away, from now.
///
/// `Retry-After` counts on 429, and on others only without rate-limit headers: a limiting server sends it with every
/// answer, meaning the window. `X-RateLimit-Reset` is compared with the server's own `Date`, so that a wrong local
/// clock does no harm.
pub(super) fn pause_asked_for(status: u16, headers: &HeaderMap) -> Option<Duration> {
    let limit = RateLimit::from_headers(headers);
    let now = || {
        header_text(headers, DATE.as_str())
            .and_then(|text| httpdate::parse_http_date(text).ok())
            .unwrap_or_else(SystemTime::now)
    };
    let until_reset = || limit?.reset?.duration_since(now()).ok();
    let pause = match status {
        429 => retry_after(headers, now).or_else(until_reset),
        503 | 413 if limit.is_none() => retry_after(headers, now),
        _ if limit.is_some_and(|limit| limit.remaining == 0) => until_reset(),
        _ => None,
    }?;
    Some(pause.min(LONGEST_PAUSE))
}

fn retry_after(headers: &HeaderMap, now: impl Fn() -> SystemTime) -> Option<Duration> {
    let text = header_text(headers, RETRY_AFTER.as_str())?;
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let at = httpdate::parse_http_date(text).ok()?;
            Some(at.duration_since(now()).unwrap_or_default())
        }
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// The pause that all requests to one repository share.
#[derive(Default)]
pub(super) struct Pacer {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    until: Option<Instant>,
    last: Option<RateLimit>,
    /// How many have been held back by this pause: each wakes a little later than the one before.
    waiting: u32,
}

impl Pacer {
    /// Takes in the headers of an answer.
    pub(super) fn heed(&self, status: u16, headers: &HeaderMap) {
        let mut state = self.state.lock();
        if let Some(limit) = RateLimit::from_headers(headers) {
            state.last = Some(limit);
        }
        if matches!(status, 503 | 413) {
            return; // One busy backend or one large body is no reason to hold everybody.
        }
        if let Some(pause) = pause_asked_for(status, headers).filter(|pause| !pause.is_zero()) {
            let until = Instant::now() + pause;
            if state.until.is_none_or(|now| now < until) {
                if state.until.is_none_or(|now| now < Instant::now()) {
                    state.waiting = 0;
                    log::warn!(
                        "the repository's rate limit is reached: all requests wait for {:.1} s",
                        pause.as_secs_f64()
                    );
                }
                state.until = Some(until);
            }
        }
    }

    /// How long a request has to wait now. Zero in the usual case.
    pub(super) fn pause(&self) -> Duration {
        let mut state = self.state.lock();
        let Some(until) = state.until else {
            return Duration::ZERO;
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            state.until = None;
            return Duration::ZERO;
        }
        state.waiting = state.waiting.saturating_add(1);
        // Not all at once when the pause ends: a growing spread, a second at most.
        let spread = Duration::from_millis(u64::from(state.waiting.min(20)) * 50);
        left + random_part(spread)
    }

    pub(super) fn last(&self) -> Option<RateLimit> {
        self.state.lock().last
    }
}

/// Searches a minute: Zenodo allows 30, counted apart from all other requests, and commands make a few of their own, as does
/// who mounts before it is known that it is Zenodo.
const SEARCHES_A_MINUTE: u32 = 27;

/// How many of them may follow each other at once. The rest of the minute's is spread over it, so that no minute, wherever
/// it begins, holds more than is allowed.
const SEARCHES_AT_ONCE: u32 = 10;

/// Spreads searches where they are limited more than other requests.
#[derive(Default)]
pub(super) struct SearchPace {
    /// When the searches asked for so far would be done at the even pace.
    done: Mutex<Option<Instant>>,
}

impl SearchPace {
    /// Takes a turn, and tells how long it is until then. If it is longer than `most`, no turn is taken.
    pub(super) fn take_turn(&self, most: Duration) -> std::result::Result<Duration, Duration> {
        let step = Duration::from_secs(60) / (SEARCHES_A_MINUTE - SEARCHES_AT_ONCE);
        let now = Instant::now();
        let mut done = self.done.lock();
        let ready = done.map_or(now, |done| done.max(now)) + step;
        let wait = ready.saturating_duration_since(now + step * SEARCHES_AT_ONCE);
        if wait > most {
            return Err(wait);
        }
        *done = Some(ready);
        Ok(wait)
    }
}

/// A random duration up to `most`.
pub(super) fn random_part(most: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    // Each `RandomState` has other keys; this is not for secrets.
    let random = RandomState::new().hash_one(0_u8) >> 32;
    most.mul_f64(random as f64 / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn retry_after_on_a_success_means_nothing() {
        let sent = headers(&[
            ("x-ratelimit-limit", "1000"),
            ("x-ratelimit-remaining", "7"),
            ("x-ratelimit-reset", "1795301983"),
            ("retry-after", "60"),
        ]);
        assert_eq!(pause_asked_for(200, &sent), None);
        assert_eq!(
            pause_asked_for(503, &sent),
            None,
            "the limiter's header, not the backend's"
        );
        assert_eq!(pause_asked_for(429, &sent), Some(Duration::from_secs(60)));
        let pacer = Pacer::default();
        pacer.heed(200, &sent);
        assert_eq!(pacer.pause(), Duration::ZERO);
        assert_eq!(pacer.last().unwrap().remaining, 7);
    }

    #[test]
    fn the_end_of_a_window_is_read_by_the_servers_own_clock() {
        let sent = headers(&[
            ("date", "Sun, 22 Nov 2026 00:06:30 GMT"),
            ("x-ratelimit-limit", "5"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1795306000"),
        ]);
        assert_eq!(pause_asked_for(200, &sent), Some(Duration::from_secs(10)));
        assert_eq!(pause_asked_for(429, &sent), Some(Duration::from_secs(10)));
    }

    #[test]
    fn searches_are_spread_so_that_no_minute_holds_too_many() {
        let pace = SearchPace::default();
        let most = Duration::from_secs(60);
        let waits: Vec<Duration> = (0..24).map(|_| pace.take_turn(most).unwrap()).collect();
        assert!(waits[..10].iter().all(Duration::is_zero), "{waits:?}");
        assert!(waits[10] > Duration::from_secs(2), "{waits:?}");
        let within = waits.iter().filter(|wait| **wait < most).count();
        assert!(within <= SEARCHES_A_MINUTE as usize);
        let wait = pace.take_turn(Duration::from_secs(1)).unwrap_err();
        assert_eq!(
            pace.take_turn(most).unwrap().as_secs(),
            wait.as_secs(),
            "a turn that was not taken costs nothing"
        );
    }

    #[test]
    fn a_spent_window_holds_every_request_and_nonsense_holds_none() {
        let pacer = Pacer::default();
        pacer.heed(429, &headers(&[("retry-after", "2")]));
        let pause = pacer.pause();
        assert!(
            pause > Duration::from_secs(1) && pause < Duration::from_secs(4),
            "{pause:?}"
        );
        let other = Pacer::default();
        other.heed(429, &headers(&[("retry-after", "soon")]));
        assert_eq!(other.pause(), Duration::ZERO);
        other.heed(429, &headers(&[("retry-after", "999999999")]));
        assert!(other.pause() <= LONGEST_PAUSE + Duration::from_secs(1));
    }
}
