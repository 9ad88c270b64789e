//! A table of answers: least recently used out first, each good for a time, each question in flight once.
//!
//! Used by `catalog/` for every kind of metadata. It never holds its lock while a question is asked.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Kind, Result};

/// How much memory a value takes, roughly, in bytes.
pub trait Weigh {
    /// The estimate.
    fn weight(&self) -> usize;
}

/// How long answers count as current.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// An answer.
    pub found: Duration,
    /// "No such thing" and "not allowed".
    pub refused: Duration,
    /// A passing failure: long enough that a program that asks in a loop doesn't become a load on the server.
    pub failed: Duration,
}

/// The table. `K` asks, `V` answers.
pub struct Timed<K, V> {
    lifetimes: Lifetimes,
    capacity: usize,
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    known: LruCache<K, Known<V>>,
    weight: usize,
    flights: HashMap<K, Arc<Flight<V>>>,
}

struct Known<V> {
    answer: Result<Arc<V>>,
    until: Instant,
    weight: usize,
}

/// A question that is being asked, and who waits for it.
struct Flight<V> {
    landed: Mutex<Landing<V>>,
    arrival: Condvar,
}

struct Landing<V> {
    answer: Option<Result<Arc<V>>>,
    /// The thing was changed here while the question was under way: its answer may be older than what we know.
    overtaken: bool,
}

/// A little for the key, the links of the table and the `Arc`.
const OVERHEAD: usize = 200;

/// No question takes longer: each is bounded by the limits of `repository/`. This only guards against a bug there.
const LONGEST_FLIGHT: Duration = Duration::from_secs(300);

impl<K: Hash + Eq + Clone, V: Weigh> Timed<K, V> {
    /// A table that holds about `capacity` bytes.
    #[must_use]
    pub fn new(capacity: usize, lifetimes: Lifetimes) -> Self {
        Timed {
            lifetimes,
            capacity,
            state: Mutex::new(State {
                known: LruCache::unbounded(),
                weight: 0,
                flights: HashMap::new(),
            }),
        }
    }

    /// The current answer, or the one that `ask` gives. Concurrent callers share one question.
    ///
    /// # Errors
    /// What `ask` failed with, also for those who only waited for it.
    pub fn get(&self, key: &K, ask: impl FnOnce() -> Result<V>) -> Result<Arc<V>> {
        self.get_if(key, |_| true, ask)
    }

    /// As [`Timed::get`], where not every answer that is known is enough.
    ///
    /// # Errors
    /// As for [`Timed::get`].
    pub fn get_if(
        &self,
        key: &K,
        enough: impl FnOnce(&V) -> bool,
        ask: impl FnOnce() -> Result<V>,
    ) -> Result<Arc<V>> {
        let flight = {
            let mut state = self.state.lock();
            if let Some(known) = state.known.get(key)
                && Instant::now() < known.until
                && known.answer.as_ref().map_or(true, |value| enough(value))
            {
                return known.answer.clone();
            }
            if let Some(flight) = state.flights.get(key) {
                let flight = Arc::clone(flight);
                drop(state);
                return flight.wait();
            }
            let flight = Arc::new(Flight::new());
            state.flights.insert(key.clone(), Arc::clone(&flight));
            flight
        };
        let guard = Landed {
            table: self,
            key,
            flight: &flight,
        };
        let answer = ask().map(Arc::new);
        guard.land(answer)
    }

    /// What is known, current or not, without asking anybody.
    pub fn peek(&self, key: &K) -> Option<Arc<V>> {
        self.state.lock().known.get(key)?.answer.as_ref().ok().cloned()
    }

    /// What is known and current, without asking anybody.
    pub fn current(&self, key: &K) -> Option<Arc<V>> {
        let mut state = self.state.lock();
        let known = state.known.get(key)?;
        if Instant::now() >= known.until {
            return None;
        }
        known.answer.as_ref().ok().cloned()
    }

    /// Remembers something that was learned by the way.
    pub fn put(&self, key: &K, value: V) -> Arc<V> {
        let value = Arc::new(value);
        let mut state = self.state.lock();
        state.overtake(key);
        self.store(&mut state, key, Ok(Arc::clone(&value)));
        value
    }

    /// Changes what is known, if it is, without making it any younger.
    pub fn change(&self, key: &K, change: impl FnOnce(&V) -> V) {
        let mut state = self.state.lock();
        state.overtake(key);
        let Some(known) = state.known.peek(key) else {
            return;
        };
        let Ok(old) = known.answer.clone() else {
            return;
        };
        let until = known.until;
        self.store(&mut state, key, Ok(Arc::new(change(&old))));
        if let Some(known) = state.known.peek_mut(key) {
            known.until = until;
        }
    }

    /// Forgets what is known, so that the next caller asks.
    pub fn forget(&self, key: &K) {
        let mut state = self.state.lock();
        state.overtake(key);
        if let Some(old) = state.known.pop(key) {
            state.weight -= old.weight;
        }
    }

    fn store(&self, state: &mut State<K, V>, key: &K, answer: Result<Arc<V>>) {
        let (life, weight) = match &answer {
            Ok(value) => (self.lifetimes.found, value.weight() + OVERHEAD),
            Err(error) if error.kind().is_passing() => (self.lifetimes.failed, OVERHEAD),
            Err(_) => (self.lifetimes.refused, OVERHEAD),
        };
        let known = Known {
            answer,
            until: Instant::now() + life,
            weight,
        };
        state.weight += weight;
        if let Some(old) = state.known.put(key.clone(), known) {
            state.weight -= old.weight;
        }
        // The newest stays even if it alone is over the capacity: somebody is about to use it.
        while state.weight > self.capacity && state.known.len() > 1 {
            if let Some((_, old)) = state.known.pop_lru() {
                state.weight -= old.weight;
            }
        }
    }
}

impl<K: Hash + Eq, V> State<K, V> {
    fn overtake(&mut self, key: &K) {
        if let Some(flight) = self.flights.get(key) {
            flight.landed.lock().overtaken = true;
        }
    }
}

impl<V> Flight<V> {
    fn new() -> Self {
        Flight {
            landed: Mutex::new(Landing {
                answer: None,
                overtaken: false,
            }),
            arrival: Condvar::new(),
        }
    }

    fn wait(&self) -> Result<Arc<V>> {
        let deadline = Instant::now() + LONGEST_FLIGHT;
        let mut landed = self.landed.lock();
        loop {
            if let Some(answer) = &landed.answer {
                return answer.clone();
            }
            if self.arrival.wait_until(&mut landed, deadline).timed_out() {
                return Err(Error::new(
                    Kind::TimedOut,
                    "no answer to a question asked by another thread",
                ));
            }
        }
    }
}

/// Lands a flight, also when the question panics: whoever waits must not wait for ever.
struct Landed<'a, K: Hash + Eq + Clone, V: Weigh> {
    table: &'a Timed<K, V>,
    key: &'a K,
    flight: &'a Arc<Flight<V>>,
}

impl<K: Hash + Eq + Clone, V: Weigh> Landed<'_, K, V> {
    fn land(self, answer: Result<Arc<V>>) -> Result<Arc<V>> {
        let mut state = self.table.state.lock();
        let overtaken = self.flight.landed.lock().overtaken;
        if !overtaken {
            self.table.store(&mut state, self.key, answer.clone());
        }
        drop(state);
        self.flight.landed.lock().answer = Some(answer.clone());
        answer
    }
}

impl<K: Hash + Eq + Clone, V: Weigh> Drop for Landed<'_, K, V> {
    fn drop(&mut self) {
        self.table.state.lock().flights.remove(self.key);
        let mut landed = self.flight.landed.lock();
        if landed.answer.is_none() {
            landed.answer = Some(Err(Error::new(
                Kind::Internal,
                "a question to the repository panicked",
            )));
        }
        self.flight.arrival.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    impl Weigh for u32 {
        fn weight(&self) -> usize {
            1000
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn table(found: Duration) -> Timed<&'static str, u32> {
        Timed::new(
            10_000,
            Lifetimes {
                found,
                refused: HOUR,
                failed: Duration::ZERO,
            },
        )
    }

    fn never() -> Result<u32> {
        panic!("asked")
    }

    #[test]
    fn a_current_answer_is_not_asked_for_again() {
        let table = table(HOUR);
        assert_eq!(*table.get(&"a", || Ok(1)).unwrap(), 1);
        assert_eq!(*table.get(&"a", never).unwrap(), 1);
    }

    #[test]
    fn an_old_answer_is_asked_for_again_but_still_known() {
        let table = table(Duration::ZERO);
        table.get(&"a", || Ok(1)).unwrap();
        assert_eq!(table.peek(&"a").as_deref(), Some(&1));
        assert!(table.current(&"a").is_none());
        assert_eq!(*table.get(&"a", || Ok(2)).unwrap(), 2);
    }

    #[test]
    fn an_answer_that_is_not_enough_is_asked_for_again() {
        let table = table(HOUR);
        table.put(&"a", 1);
        assert_eq!(*table.get_if(&"a", |known| *known == 1, never).unwrap(), 1);
        assert_eq!(*table.get_if(&"a", |known| *known == 2, || Ok(2)).unwrap(), 2);
    }

    #[test]
    fn no_such_thing_is_an_answer_too() {
        let table = table(HOUR);
        let refused = table.get(&"a", || Err(Error::new(Kind::NotFound, "no a")));
        assert_eq!(refused.unwrap_err().kind(), Kind::NotFound);
        assert_eq!(table.get(&"a", never).unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn many_callers_share_one_question() {
        let table = table(HOUR);
        let asked = AtomicUsize::new(0);
        let barrier = Barrier::new(16);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    barrier.wait();
                    let answer = table.get(&"a", || {
                        asked.fetch_add(1, Ordering::SeqCst);
                        Ok(7)
                    });
                    assert_eq!(*answer.unwrap(), 7);
                });
            }
        });
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_panicking_question_leaves_nobody_waiting() {
        let table = table(HOUR);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| table.get(&"a", never)));
        assert!(result.is_err());
        assert_eq!(*table.get(&"a", || Ok(3)).unwrap(), 3);
    }

    #[test]
    fn an_answer_overtaken_by_a_change_is_not_kept() {
        let table = table(HOUR);
        let answer = table.get(&"a", || {
            table.put(&"a", 2);
            Ok(1)
        });
        assert_eq!(*answer.unwrap(), 1);
        assert_eq!(*table.get(&"a", never).unwrap(), 2);
    }

    #[test]
    fn the_least_recently_used_go_first_when_it_gets_heavy() {
        let table = table(HOUR);
        let names: Vec<&'static str> = vec!["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        for name in &names {
            table.put(name, 1);
            table.get(&"a", never).unwrap();
        }
        assert!(table.peek(&"a").is_some());
        assert!(table.peek(&"b").is_none());
        assert!(table.state.lock().weight <= 10_000);
    }
}
