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
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
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
                Err(failure)
                    if ask.gone_is_done && tries > 1 && matches!(failure.status, Some(404 | 410)) =>
                {
                    Ok(Answer {
                        status: 204,
                        headers: reqwest::header::HeaderMap::new(),
                        value: serde_json::Value::Null,
                        body: bytes::Bytes::new(),
                        url: ask.url.clone(),
                    })
                }
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

#[cfg(test)]
mod tests {
    use super::super::Search;
    use super::super::model::RecordId;
    use super::super::testing::{Server, answer};
    use super::*;
    use serde_json::json;

    const RECORD: &[u8] = br#"{"id": "abcde-12345"}"#;
    const JSON: &str = "Content-Type: application/json\r\n";

    fn id() -> RecordId {
        RecordId::new("abcde-12345").unwrap()
    }

    #[test]
    fn a_read_is_repeated_whatever_passing_failure_it_meets() {
        for trouble in [408, 429, 500, 502, 503, 504, 0, 1, 200] {
            let server = Server::start(move |number, _, stream| match (number, trouble) {
                (1, 0) => {} // Closed without an answer.
                (1, 1) => std::thread::sleep(Duration::from_secs(3)),
                (1, status) => answer(stream, status, "Content-Type: text/html\r\n", b"<html>"),
                _ => answer(stream, 200, JSON, RECORD),
            });
            let limits = super::super::testing::quick();
            let record = server.repository().record(&id());
            assert!(record.is_ok(), "{trouble}: {record:?}");
            assert_eq!(server.count(), 2, "{trouble} {limits:?}");
        }
    }

    #[test]
    fn what_is_answered_for_good_is_not_repeated() {
        for status in [400, 401, 403, 404, 405, 410, 412, 501] {
            let server = Server::start(move |_, _, stream| answer(stream, status, JSON, b"{}"));
            let error = server.repository().record(&id()).unwrap_err();
            assert_eq!(server.count(), 1, "{status}");
            assert_eq!(error.attempt().unwrap().status, Some(status));
        }
    }

    #[test]
    fn what_may_have_been_carried_out_is_not_repeated() {
        let server = Server::start(|_, _, stream| answer(stream, 503, JSON, b"{}"));
        let repository = server.repository();
        assert!(repository.create_draft(&json!({})).is_err());
        assert!(repository.publish(&id()).is_err());
        assert!(repository.new_version(&id()).is_err());
        assert!(repository.start_files(&id(), &["a"]).is_err());
        assert!(repository.update_draft(&id(), &json!({}), Some(4)).is_err());
        assert_eq!(server.count(), 5);
    }

    #[test]
    fn a_commit_is_repeated_but_for_500_which_is_an_answer() {
        let server = Server::start(|number, _, stream| match number {
            1 => answer(stream, 503, JSON, b"{}"),
            2 => answer(stream, 200, JSON, br#"{"key": "a"}"#),
            _ => answer(stream, 500, JSON, b"{}"),
        });
        let repository = server.repository();
        assert!(repository.commit_file(&id(), "a").is_ok());
        assert!(repository.commit_file(&id(), "a").is_err());
        assert_eq!(server.count(), 3);
    }

    #[test]
    fn what_is_gone_after_a_failed_delete_was_deleted_by_it() {
        let server = Server::start(|number, _, stream| {
            answer(stream, if number == 1 { 502 } else { 404 }, JSON, b"{}");
        });
        let repository = server.repository();
        assert!(repository.delete_file(&id(), "a").is_ok());
        assert_eq!(
            repository.delete_file(&id(), "a").unwrap_err().kind(),
            Kind::NotFound
        );
    }

    #[test]
    fn a_short_pause_is_waited_for_by_all_and_a_long_one_by_none() {
        let server = Server::start(|number, _, stream| match number {
            1 => answer(stream, 429, "Retry-After: 1\r\n", b"{}"),
            2 => answer(stream, 200, JSON, RECORD),
            _ => answer(
                stream,
                429,
                "Retry-After: 600\r\n",
                br#"{"message": "5 per 1 minute"}"#,
            ),
        });
        let repository = server.repository();
        let begun = Instant::now();
        assert!(repository.record(&id()).is_ok());
        assert!(begun.elapsed() >= Duration::from_secs(1));

        let error = repository.create_draft(&json!({})).unwrap_err();
        assert_eq!(error.kind(), Kind::RateLimited);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(600)));
        assert!(error.to_string().contains("600 s"), "{error}");
        assert_eq!(server.count(), 3);

        let other = repository.search(&Search::default()).unwrap_err();
        assert_eq!(other.kind(), Kind::RateLimited, "{other}");
        assert!(other.retry_after() > Some(Duration::from_secs(590)));
        assert_eq!(server.count(), 3, "not asked while the limit is spent");
    }

    #[test]
    fn a_limiter_stopped_what_it_answered_so_even_a_publish_is_repeated() {
        let server = Server::start(|number, _, stream| match number {
            1 => answer(stream, 429, "Retry-After: 0\r\n", b"{}"),
            _ => answer(stream, 202, JSON, RECORD),
        });
        assert!(server.repository().publish(&id()).is_ok());
    }

    #[test]
    fn an_error_tells_how_hard_it_was_tried_and_never_the_token_or_the_query() {
        let server = Server::start(|_, _, stream| answer(stream, 502, "", b""));
        let search = Search {
            query: Some("my secret research".into()),
            ..Search::default()
        };
        let error = server.repository().search(&search).unwrap_err();
        let attempt = error.attempt().unwrap();
        assert_eq!(attempt.tries, 3);
        let shown = format!("{error} {error:?}");
        assert!(
            !shown.contains("s3cret") && !shown.contains("research"),
            "{shown}"
        );
        assert!(shown.contains("tried 3 times"), "{shown}");
    }

    #[test]
    fn nobody_there_is_said_within_the_limits() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let repository = super::super::Repository::connect(super::super::Settings {
            url,
            limits: super::super::testing::quick(),
            ..Default::default()
        })
        .unwrap();
        let error = repository.record(&id()).unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
        assert_eq!(error.attempt().unwrap().tries, 3);
    }
}
