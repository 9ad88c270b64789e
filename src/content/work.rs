//! A longer piece of work on the cache that somebody asked for, and how far it has come.
//!
//! `chores` reports to it, `tree/` and `cli/` look. Its locks are leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, Kind};
use crate::status::{self, Fate, Outcome};

/// How many outcomes are told at a time.
const MOST_TOLD: usize = 500;
/// Bytes of outcomes told at a time, as JSON: what a command reads of an answer is limited.
const LONGEST_TOLD: usize = 512 << 10;

/// Bytes of memory that an outcome takes: itself, its name and its checksum.
const WEIGHT: usize = 300;

/// Sees to it that a piece of work ends, also if whoever does it panics or never begins.
#[must_use]
pub struct Ending(Arc<Work>);

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.0.is_finished() {
            self.0
                .finish(Err(Error::new(Kind::Internal, "the work on the cache broke off")));
        }
    }
}

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

    /// When this is dropped, it has ended.
    pub fn ending(self: &Arc<Self>) -> Ending {
        Ending(Arc::clone(self))
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

    /// About how many bytes of memory it takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.state.lock().outcomes.len() * WEIGHT
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
        let mut length = 0;
        let told = state.outcomes[from..].iter().take(MOST_TOLD);
        let told = told.take_while(|outcome| {
            length += serde_json::to_string(outcome).map_or(0, |text| text.len());
            length <= LONGEST_TOLD
        });
        // One at least, or nobody gets on.
        let to = (from + told.count().max(1)).min(state.outcomes.len());
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

    /// Something that was named can't be worked on.
    pub fn fail(&self, name: &str, error: &Error) {
        self.plan(1, 0);
        self.settle(Outcome {
            reason: with_advice(error),
            ..Outcome::new(name, 0, Fate::Failed)
        });
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
    pub fn freed(&self, bytes: u64) {
        self.state.lock().told.freed += bytes;
    }
}

/// Why, and what can be done about it.
pub(super) fn with_advice(error: &Error) -> String {
    match error.advice() {
        "" => error.to_string(),
        advice => format!("{error}. {advice}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_panics_or_never_begins_has_ended_and_says_that_it_broke_off() {
        let work = Arc::new(Work::new(7));
        let ending = work.ending();
        let worker = std::thread::spawn(move || {
            let _ending = ending;
            panic!("as a bug would");
        });
        assert!(worker.join().is_err());
        let told = work.tell(0);
        assert!(told.finished && told.error.contains("broke off"), "{told:?}");
        let work = Arc::new(Work::new(8));
        let ending = work.ending();
        work.finish(Ok(()));
        drop(ending);
        assert_eq!(work.tell(0).error, "");
    }

    #[test]
    fn what_is_told_at_a_time_fits_an_answer_however_long_the_names_are() {
        let work = Work::new(7);
        let name = "\u{1}".repeat(4000);
        (0..50).for_each(|_| work.settle(Outcome::new(&name, 2, Fate::Failed)));
        work.finish(Ok(()));
        let mut seen = 0;
        loop {
            let told = work.tell(seen);
            assert!(serde_json::to_string(&told).unwrap().len() < 1 << 20);
            assert!(!told.outcomes.is_empty());
            seen += told.outcomes.len();
            if told.finished {
                break;
            }
        }
        assert_eq!(seen, 50);
    }

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
