//! Whether the repository can be reached, as its answers have told.
//!
//! No connection makes it unreachable for a while. What is no answer either, a question that takes too long or a page of
//! something else, is a doubt that a probe settles. While it is unreachable nothing is asked that can be answered from what
//! is known, and of those who look one sends a probe when the while is over; it grows with each that fails. Whatever the
//! repository answers to anybody, a file that is read or an upload that is committed, ends it too. Used by `catalog/` alone.
//! Its lock is a leaf.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard};

use crate::error::{Error, Kind};

/// What is shown while the repository can't be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offline {
    /// Since when.
    pub since: SystemTime,
    /// When the oldest of what was shown since then was asked for.
    pub known_at: Option<SystemTime>,
}

/// What is shown although it is not current, because its newer state did not come: the repository as such answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// When the oldest of it was asked for.
    pub known_at: SystemTime,
    /// When all of it is asked for again by those who look.
    pub until: SystemTime,
    /// Why the last of it did not come.
    pub reason: String,
}

/// What an answer, or its lack, says of the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It answers.
    Word,
    /// It may not: one question took too long, or something else answered.
    Doubt,
    /// It can't be reached.
    Silence,
    /// Nothing: it was not asked.
    Nothing,
}

/// What somebody who wants to ask should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Ask.
    Open,
    /// Ask for what is not known: a probe is finding out whether there is an answer.
    Doubtful,
    /// Don't ask.
    Shut,
    /// Don't ask, but send a probe: nobody else does.
    Probe,
}

/// The state.
#[derive(Default)]
pub struct Reach {
    state: Mutex<State>,
    /// Counts what the repository answered to anybody.
    words: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    down: Option<Down>,
    probing: bool,
    overdue: Option<Overdue>,
}

struct Down {
    offline: Offline,
    pause: Duration,
    until: Instant,
    /// How many words there were before.
    words: u64,
}

/// A probe under way; it is over when this is dropped.
pub struct Probing(pub Arc<Reach>);

/// The first pause; each is twice as long as the one before.
const FIRST: Duration = Duration::from_secs(5);
/// The longest.
const LONGEST: Duration = Duration::from_secs(60);

/// Whether a failure says that the repository can't be reached, and is no answer of it.
pub fn is_silence(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unreachable | Kind::TimedOut)
        && error.attempt().is_none_or(|attempt| attempt.status.is_none())
}

/// What a failure says of the repository.
pub fn heard(error: &Error) -> Heard {
    let has_status = error.attempt().is_some_and(|attempt| attempt.status.is_some());
    match error.kind() {
        _ if error.is_foreign() => Heard::Doubt,
        Kind::Unreachable if !has_status => Heard::Silence,
        Kind::TimedOut if !has_status => Heard::Doubt,
        _ if has_status => Heard::Word,
        _ => Heard::Nothing,
    }
}

impl Reach {
    /// Of a repository whose answers are counted there.
    pub fn of(words: Arc<AtomicU64>) -> Self {
        Reach {
            state: Mutex::default(),
            words,
        }
    }

    /// The state, in view of what was heard since.
    fn now(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        let words = self.words.load(Ordering::Relaxed);
        if state.down.as_ref().is_some_and(|down| down.words != words) {
            state.answers_again();
        }
        state
    }

    /// Whether to ask now.
    pub fn way(&self) -> Way {
        let mut state = self.now();
        match &state.down {
            None if state.probing => Way::Doubtful,
            None => Way::Open,
            Some(down) if state.probing || Instant::now() < down.until => Way::Shut,
            Some(_) => {
                state.probing = true;
                Way::Probe
            }
        }
    }

    /// The repository has answered, whatever it said.
    pub fn answered(&self) {
        self.state.lock().answers_again();
    }

    /// It has not.
    pub fn silent(&self) {
        let mut state = self.now();
        let now = Instant::now();
        let overdue = state.overdue.take();
        match &mut state.down {
            // Others may have asked at the same time: only the first of them counts.
            Some(down) if now >= down.until => {
                down.pause = (down.pause * 2).min(LONGEST);
                down.until = now + down.pause;
            }
            Some(_) => {}
            down @ None => {
                log::warn!("the repository can't be reached; what is known is shown meanwhile");
                *down = Some(Down {
                    offline: Offline {
                        since: SystemTime::now(),
                        known_at: overdue.map(|overdue| overdue.known_at),
                    },
                    pause: FIRST,
                    until: now + FIRST,
                    words: self.words.load(Ordering::Relaxed),
                });
            }
        }
    }

    /// It may not have. Returns whether the caller is to send a probe.
    pub fn doubt(&self) -> bool {
        let mut state = self.now();
        state.down.is_none() && !std::mem::replace(&mut state.probing, true)
    }

    /// Somebody wants to know now. Returns whether the caller is to send a probe.
    pub fn hurry(&self) -> bool {
        let mut state = self.now();
        state.overdue = None;
        let Some(down) = &mut state.down else {
            return false;
        };
        down.until = Instant::now();
        !std::mem::replace(&mut state.probing, true)
    }

    /// Something that was asked for then was shown now.
    pub fn shown(&self, asked: SystemTime) {
        if let Some(down) = &mut self.now().down {
            let known_at = &mut down.offline.known_at;
            *known_at = Some(known_at.map_or(asked, |oldest| oldest.min(asked)));
        }
    }

    /// Something that was asked for then is shown for so long, because of this failure.
    pub fn put_off(&self, asked: SystemTime, life: Duration, error: &Error) {
        let mut state = self.state.lock();
        let now = SystemTime::now();
        let until = now.checked_add(life).unwrap_or(now);
        let before = state.overdue.take().filter(|before| before.until > now);
        state.overdue = Some(Overdue {
            known_at: before.as_ref().map_or(asked, |before| before.known_at.min(asked)),
            until: before.map_or(until, |before| before.until.max(until)),
            reason: error.to_string(),
        });
    }

    /// Since when it can't be reached, if so.
    pub fn offline(&self) -> Option<Offline> {
        self.now().down.as_ref().map(|down| down.offline)
    }

    /// What is shown although it is not current, if the repository can be reached.
    pub fn overdue(&self) -> Option<Overdue> {
        let state = self.now();
        let overdue = state.overdue.as_ref().filter(|_| state.down.is_none())?;
        (overdue.until > SystemTime::now()).then(|| overdue.clone())
    }
}

impl State {
    fn answers_again(&mut self) {
        if let Some(down) = self.down.take() {
            let since = down.offline.since.elapsed().unwrap_or_default();
            log::info!("the repository answers again, after {} s", since.as_secs());
        }
    }
}

impl Probing {
    /// It has ended, perhaps with an error.
    pub fn end(self, error: Option<&Error>) {
        let Some(error) = error else {
            self.0.answered();
            return;
        };
        match (heard(error), error.kind()) {
            // What answers is something else, or sends its visitors somewhere else.
            (_, Kind::NotARepository | Kind::Usage) => self.0.silent(),
            (Heard::Word, _) => self.0.answered(),
            (Heard::Nothing, _) if self.0.offline().is_none() => {}
            _ => self.0.silent(),
        }
    }
}

impl Drop for Probing {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.probing = false;
        // It ended without a word: not each who looks is to send the next one.
        if let Some(down) = &mut state.down
            && Instant::now() >= down.until
        {
            down.until = Instant::now() + down.pause;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Attempt;

    /// As if the pause were over.
    fn wait(reach: &Reach) {
        if let Some(down) = &mut reach.state.lock().down {
            down.until = Instant::now();
        }
    }

    /// What becomes of a probe that ends like this.
    fn end(reach: &Arc<Reach>, error: Option<Error>) {
        Probing(Arc::clone(reach)).end(error.as_ref());
    }

    fn broken() -> Option<Error> {
        Some(Error::new(Kind::Unreachable, ""))
    }

    fn pause(reach: &Reach) -> Duration {
        reach.state.lock().down.as_ref().unwrap().pause
    }

    #[test]
    fn one_failure_shuts_and_one_probe_at_a_time_is_sent() {
        let reach = Arc::<Reach>::default();
        assert_eq!(reach.way(), Way::Open);
        reach.silent();
        assert_eq!(reach.way(), Way::Shut);
        wait(&reach);
        assert_eq!([reach.way(), reach.way()], [Way::Probe, Way::Shut]);
        end(&reach, broken());
        assert_eq!(reach.way(), Way::Shut);
        wait(&reach);
        assert_eq!(reach.way(), Way::Probe);
        end(&reach, None);
        assert_eq!((reach.way(), reach.offline()), (Way::Open, None));
    }

    #[test]
    fn a_doubt_is_settled_by_a_probe() {
        let reach = Arc::<Reach>::default();
        assert!(reach.doubt());
        assert!(!reach.doubt(), "one at a time");
        assert_eq!((reach.way(), reach.offline()), (Way::Doubtful, None));
        end(&reach, None);
        assert_eq!(reach.way(), Way::Open);
        for error in [broken(), Some(Error::new(Kind::NotARepository, ""))] {
            assert!(reach.doubt());
            end(&reach, error);
            assert_eq!(reach.way(), Way::Shut);
            reach.answered();
        }
        // It was not asked at all.
        assert!(reach.doubt());
        end(&reach, Some(Error::new(Kind::RateLimited, "")));
        assert_eq!((reach.way(), reach.offline()), (Way::Open, None));
    }

    #[test]
    fn a_probe_that_panicked_is_over_too() {
        let reach = Arc::<Reach>::default();
        reach.silent();
        wait(&reach);
        assert_eq!(reach.way(), Way::Probe);
        drop(Probing(Arc::clone(&reach)));
        assert_eq!(reach.way(), Way::Shut, "not at once");
        wait(&reach);
        assert_eq!(reach.way(), Way::Probe);
    }

    #[test]
    fn who_wants_to_know_now_does_not_wait_for_the_pause() {
        let reach = Arc::<Reach>::default();
        assert!(!reach.hurry(), "it answers");
        reach.silent();
        assert!(reach.hurry());
        assert!(!reach.hurry(), "one at a time");
    }

    #[test]
    fn pauses_grow_to_a_minute_and_failures_at_the_same_time_are_one() {
        let reach = Arc::<Reach>::default();
        reach.silent();
        reach.silent();
        assert_eq!(pause(&reach), FIRST);
        for _ in 0..10 {
            wait(&reach);
            assert_eq!(reach.way(), Way::Probe);
            end(&reach, broken());
        }
        assert_eq!(pause(&reach), LONGEST);
    }

    #[test]
    fn a_word_to_anybody_ends_it_and_those_of_before_do_not() {
        let words = Arc::<AtomicU64>::default();
        let reach = Reach::of(Arc::clone(&words));
        words.fetch_add(1, Ordering::Relaxed);
        reach.silent();
        assert_eq!(reach.way(), Way::Shut);
        words.fetch_add(1, Ordering::Relaxed);
        assert_eq!((reach.way(), reach.offline()), (Way::Open, None));
        reach.silent();
        assert_eq!(reach.way(), Way::Shut, "it is silent again");
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
            assert_eq!(heard(&error(kind, Some(status))), Heard::Word, "{status}");
            let foreign = error(kind, Some(status)).from_elsewhere();
            assert_eq!(heard(&foreign), Heard::Doubt, "{status}");
        }
        assert_eq!(heard(&error(Kind::Unreachable, None)), Heard::Silence);
        assert_eq!(heard(&error(Kind::TimedOut, None)), Heard::Doubt);
        // Made here, without a request.
        for kind in [Kind::RateLimited, Kind::Internal] {
            assert_eq!(heard(&error(kind, None)), Heard::Nothing, "{kind:?}");
        }
    }
}
