//! Trying again: which failures pass, how long to wait, and when to give up.
//!
//! Every request of this floor but the upload of content goes through `persist`. It is bounded by a number of tries and
//! by one limit on the whole, and it never repeats what may have been carried out unless that does no harm.

use std::time::{Duration, Instant};

use reqwest::{Method, Url};

use super::pacing::random_part;
use super::transport::{Answer, Ask, Repeat, Transport};
use super::urls::shown;
use crate::error::{Attempt, Error, Kind, Result};

/// One try that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether the same request may succeed a little later.
    pub(super) passing: bool,
    /// Whether the request was certainly not carried out.
    pub(super) unsent: bool,
    /// How long the server wants to be left alone.
    pub(super) pause: Option<Duration>,
    /// The status of the answer, if there was one.
    pub(super) status: Option<u16>,
    /// Where it failed, if that is not where the request was sent first.
    url: Option<Url>,
}

impl Failure {
    pub(super) fn passing(error: Error) -> Self {
        Failure {
            error,
            passing: true,
            unsent: false,
            pause: None,
            status: None,
            url: None,
        }
    }

    pub(super) fn lasting(error: Error) -> Self {
        Failure {
            passing: false,
            ..Failure::passing(error)
        }
    }

    pub(super) fn at(mut self, url: &Url, status: Option<u16>) -> Self {
        self.url = Some(url.clone());
        self.status = status;
        self
    }

    fn may_repeat(&self, repeat: Repeat) -> bool {
        self.passing
            && match repeat {
                Repeat::Safe => true,
                Repeat::SafeBut500 => self.status != Some(500),
                Repeat::Unsent => self.unsent,
            }
    }

    /// The error, with which request failed and how hard it was tried.
    pub(super) fn into_error(self, method: &Method, url: &Url, tries: u32, elapsed: Duration) -> Error {
        let mut error = self.error.with_attempt(Attempt {
            method: name_of(method),
            url: shown(self.url.as_ref().unwrap_or(url)),
            status: self.status,
            tries,
            elapsed,
        });
        if let Some(pause) = self.pause {
            error = error.with_retry_after(pause);
        }
        error
    }
}

fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "?",
    }
}

impl Transport {
    /// Sends a request for JSON until it is answered or there is no hope within the limits.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<Answer> {
        self.persist(
            &ask.method,
            &ask.url,
            ask.repeat,
            &ask.doing,
            async |tries| match self.exchange(ask).await {
                Err(failure) if ask.gone_is_done && tries > 1 && failure.status == Some(404) => Ok(Answer {
                    status: 204,
                    headers: reqwest::header::HeaderMap::new(),
                    value: serde_json::Value::Null,
                    url: ask.url.clone(),
                }),
                outcome => outcome,
            },
        )
        .await
    }

    /// Calls `attempt` with 1, 2, … until it succeeds, fails for good, or the limits are reached.
    pub(super) async fn persist<T>(
        &self,
        method: &Method,
        url: &Url,
        repeat: Repeat,
        doing: &str,
        mut attempt: impl AsyncFnMut(u32) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let limits = &self.limits;
        let begun = Instant::now();
        let deadline = begun + limits.whole;
        let mut growing = limits.first_pause;
        let mut tries = 0;
        loop {
            self.wait_for_turn(doing, deadline)
                .await
                .map_err(|failure| failure.into_error(method, url, tries, begun.elapsed()))?;
            tries += 1;
            let outcome = tokio::time::timeout_at(deadline.into(), attempt(tries)).await;
            let failure = match outcome {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::lasting(Error::new(
                    Kind::TimedOut,
                    format!("can't {doing}: not done within {} s", limits.whole.as_secs_f64()),
                )),
            };
            // Half of it is random, so that those who failed together don't come back together.
            let own_pause = growing / 2 + random_part(growing);
            let wait = failure.pause.unwrap_or_default().max(own_pause);
            let left = deadline.saturating_duration_since(Instant::now());
            if tries >= limits.tries || !failure.may_repeat(repeat) || wait >= left {
                return Err(failure.into_error(method, url, tries, begun.elapsed()));
            }
            log::warn!(
                "{method} {}: {}; trying again in {:.1} s",
                shown(url),
                failure.error,
                wait.as_secs_f64()
            );
            // A pause that all share is waited for in `wait_for_turn`, which spreads those who wait.
            let shared = failure.status == Some(429) && failure.pause.is_some_and(|pause| pause >= own_pause);
            if !shared {
                tokio::time::sleep(wait).await;
            }
            growing *= 2;
        }
    }

    /// Waits while the rate limit is spent, or fails at once if that takes longer than there is time.
    pub(super) async fn wait_for_turn(
        &self,
        doing: &str,
        deadline: Instant,
    ) -> std::result::Result<(), Failure> {
        loop {
            let pause = self.pacer.pause();
            if pause.is_zero() {
                return Ok(());
            }
            if pause >= deadline.saturating_duration_since(Instant::now()) {
                let mut failure = Failure::lasting(Error::new(
                    Kind::RateLimited,
                    format!(
                        "can't {doing}: the repository's rate limit is used up for another {:.0} s",
                        pause.as_secs_f64().ceil()
                    ),
                ));
                failure.pause = Some(pause);
                return Err(failure);
            }
            tokio::time::sleep(pause).await;
        }
    }
}
