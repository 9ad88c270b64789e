//! A longer piece of work on the cache that somebody asked for, and how far it has come.
//!
//! `chores` reports to it, `tree/` and `cli/` look. Its locks are leaves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::Error;
use crate::status::{self, Fate, Outcome};

/// How many outcomes are told at a time.
const MOST_TOLD: usize = 500;

/// One piece of work.
#[derive(Debug)]
pub struct Work {
    state: Mutex<State>,
    stopped: AtomicBool,
}

#[derive(Debug)]
struct State {
    told: status::Work,
    outcomes: Vec<Outcome>,
    /// Bytes of what is finished.
    settled: u64,
    asked: Instant,
}

impl Work {
    /// It begins.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Work {
            state: Mutex::new(State {
                told: status::Work {
                    number,
                    ..status::Work::default()
                },
                outcomes: Vec::new(),
                settled: 0,
                asked: Instant::now(),
            }),
            stopped: AtomicBool::new(false),
        }
    }

    /// Which it is.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.state.lock().told.number
    }

    /// It is to end soon. What is done stays done.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Whether it is to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.state.lock().told.finished
    }

    /// For how long nobody has asked how far it is.
    #[must_use]
    pub fn unasked_for(&self) -> Duration {
        self.state.lock().asked.elapsed()
    }

    /// How far it is, with the outcomes from number `since` on: some hundred at a time.
    #[must_use]
    pub fn tell(&self, since: usize) -> status::Work {
        let mut state = self.state.lock();
        state.asked = Instant::now();
        let from = since.min(state.outcomes.len());
        let to = (from + MOST_TOLD).min(state.outcomes.len());
        status::Work {
            outcomes: state.outcomes[from..to].to_vec(),
            // Not before everything was told.
            finished: state.told.finished && to == state.outcomes.len(),
            ..state.told.clone()
        }
    }

    /// It ended, or could not begin.
    pub fn finish(&self, result: Result<(), Error>) {
        let mut state = self.state.lock();
        state.told.finished = true;
        if let Err(error) = result {
            state.told.error = error.to_string();
            state.told.advice = error.advice().to_owned();
        }
    }

    /// So much there is to do.
    pub(super) fn plan(&self, files: u64, bytes: u64) {
        let mut state = self.state.lock();
        state.told.files += files;
        state.told.bytes += bytes;
    }

    /// So many bytes of what is not finished are done.
    pub(super) fn is_at(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.told.bytes_done = state.settled + bytes;
    }

    /// A file is done, and its bytes count as done.
    pub(super) fn settle(&self, outcome: Outcome) {
        self.count(outcome.fate, outcome.size);
        self.state.lock().outcomes.push(outcome);
    }

    /// A file is done that nobody asked for by its name.
    pub(super) fn count(&self, fate: Fate, bytes: u64) {
        let mut state = self.state.lock();
        state.told.files_done += 1;
        state.settled += bytes;
        state.told.bytes_done = state.settled;
        *state.told.counts.entry(fate).or_default() += 1;
    }

    /// So many bytes of the disk came free.
    pub(super) fn freed(&self, bytes: u64) {
        self.state.lock().told.freed += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_told_in_parts_and_the_end_after_the_last() {
        let work = Work::new(7);
        for i in 0..MOST_TOLD + 3 {
            work.settle(Outcome::new(&i.to_string(), 2, Fate::Here));
        }
        work.finish(Ok(()));
        let first = work.tell(0);
        assert_eq!((first.outcomes.len(), first.finished), (MOST_TOLD, false));
        let rest = work.tell(MOST_TOLD);
        assert_eq!((rest.outcomes.len(), rest.finished), (3, true));
        assert_eq!(rest.bytes_done, 2 * (MOST_TOLD as u64 + 3));
        assert_eq!(rest.counts[&Fate::Here], MOST_TOLD as u64 + 3);
        assert!(work.tell(9999).outcomes.is_empty());
    }
}
