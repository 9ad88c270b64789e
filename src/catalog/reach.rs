//! Whether the repository can be reached, as its answers have told.
//!
//! One request without an answer makes it unreachable for a while. Until then nothing is asked that can be answered from
//! what is known, and of those who look meanwhile one sends a probe when the while is over; it grows with each that
//! fails. Used by `catalog/` alone. Its lock is a leaf.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::error::{Error, Kind};

/// What is shown while the repository can't be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offline {
    /// Since when.
    pub since: SystemTime,
    /// When the oldest of what was shown since then was asked for.
    pub known_at: Option<SystemTime>,
}

/// What somebody who wants to ask should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Ask.
    Open,
    /// Don't ask.
    Shut,
    /// Don't ask, but send a probe: nobody else does.
    Probe,
}

/// The state.
#[derive(Default)]
pub struct Reach {
    down: Mutex<Option<Down>>,
}

struct Down {
    offline: Offline,
    pause: Duration,
    until: Instant,
    probing: bool,
}

/// The first pause; each is twice as long as the one before.
const FIRST: Duration = Duration::from_secs(5);
/// The longest.
const LONGEST: Duration = Duration::from_secs(60);

/// Whether a failure says that the repository can't be reached, and is no answer of it.
pub fn is_silence(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unreachable | Kind::TimedOut)
        && error.attempt().is_none_or(|attempt| attempt.status.is_none())
}

impl Reach {
    /// Whether to ask now.
    pub fn way(&self) -> Way {
        let mut down = self.down.lock();
        match &mut *down {
            None => Way::Open,
            Some(down) if down.probing || Instant::now() < down.until => Way::Shut,
            Some(down) => {
                down.probing = true;
                Way::Probe
            }
        }
    }

    /// The repository has answered, whatever it said.
    pub fn answered(&self) {
        if let Some(down) = self.down.lock().take() {
            let since = down.offline.since.elapsed().unwrap_or_default();
            log::info!("the repository answers again, after {} s", since.as_secs());
        }
    }

    /// It has not.
    pub fn silent(&self) {
        let mut down = self.down.lock();
        let now = Instant::now();
        match &mut *down {
            // Others may have asked at the same time: only the first of them, and each probe, counts.
            Some(down) if down.probing || now >= down.until => {
                down.pause = (down.pause * 2).min(LONGEST);
                down.until = now + down.pause;
                down.probing = false;
            }
            Some(_) => {}
            None => {
                log::warn!("the repository can't be reached; what is known is shown meanwhile");
                *down = Some(Down {
                    offline: Offline {
                        since: SystemTime::now(),
                        known_at: None,
                    },
                    pause: FIRST,
                    until: now + FIRST,
                    probing: false,
                });
            }
        }
    }

    /// Something that was asked for then was shown now.
    pub fn shown(&self, asked: SystemTime) {
        if let Some(down) = &mut *self.down.lock() {
            let known_at = &mut down.offline.known_at;
            *known_at = Some(known_at.map_or(asked, |oldest| oldest.min(asked)));
        }
    }

    /// Since when it can't be reached, if so.
    pub fn offline(&self) -> Option<Offline> {
        self.down.lock().as_ref().map(|down| down.offline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Attempt;

    /// As if the pause were over.
    fn wait(reach: &Reach) {
        if let Some(down) = &mut *reach.down.lock() {
            down.until = Instant::now();
        }
    }

    fn pause(reach: &Reach) -> Duration {
        reach.down.lock().as_ref().unwrap().pause
    }

    #[test]
    fn one_failure_shuts_and_one_probe_at_a_time_is_sent() {
        let reach = Reach::default();
        assert_eq!(reach.way(), Way::Open);
        reach.silent();
        assert_eq!(reach.way(), Way::Shut);
        wait(&reach);
        assert_eq!([reach.way(), reach.way()], [Way::Probe, Way::Shut]);
        reach.silent();
        assert_eq!(reach.way(), Way::Shut);
        wait(&reach);
        assert_eq!(reach.way(), Way::Probe);
        reach.answered();
        assert_eq!((reach.way(), reach.offline()), (Way::Open, None));
    }

    #[test]
    fn pauses_grow_to_a_minute_and_failures_at_the_same_time_are_one() {
        let reach = Reach::default();
        reach.silent();
        reach.silent();
        assert_eq!(pause(&reach), FIRST);
        for _ in 0..10 {
            wait(&reach);
            assert_eq!(reach.way(), Way::Probe);
            reach.silent();
        }
        assert_eq!(pause(&reach), LONGEST);
    }

    #[test]
    fn the_oldest_of_what_was_shown_is_told() {
        let reach = Reach::default();
        reach.silent();
        let (old, new) = (SystemTime::UNIX_EPOCH, SystemTime::now());
        for asked in [new, old, new] {
            reach.shown(asked);
        }
        assert_eq!(reach.offline().unwrap().known_at, Some(old));
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let attempt = |status| Attempt {
            method: "GET",
            url: String::new(),
            status,
            tries: 1,
            elapsed: Duration::ZERO,
        };
        let error = |kind, status| Error::new(kind, "").with_attempt(attempt(status));
        assert!(is_silence(&error(Kind::Unreachable, None)));
        assert!(is_silence(&error(Kind::TimedOut, None)));
        for (kind, status) in [
            (Kind::NotFound, 404),
            (Kind::Denied, 403),
            (Kind::ServerFailed, 503),
            (Kind::TimedOut, 408),
        ] {
            assert!(!is_silence(&error(kind, Some(status))), "{status}");
        }
    }
}
