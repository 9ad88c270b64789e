//! A table of answers: least recently used out first, each good for a time, each question in flight once.
//!
//! Used by `catalog/` for every kind of metadata, and by `tree/` for what archives hold. It never holds its lock while a question is asked.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Kind, Result};
use crate::memory;

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

/// An answer, and for how long it counts as current if that is not as long as for any other.
pub struct Said<V> {
    /// The answer.
    pub value: Arc<V>,
    /// How long it is current.
    pub life: Option<Duration>,
}

impl<V> From<V> for Said<V> {
    fn from(value: V) -> Self {
        Said {
            value: Arc::new(value),
            life: None,
        }
    }
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
    state: Mutex<FlightState<V>>,
    arrival: Condvar,
}

enum FlightState<V> {
    UnderWay,
    /// The thing was changed here meanwhile: the answer may be older than what we know, and nobody may have it.
    Overtaken,
    Landed(Result<Arc<V>>),
}

/// How a caller gets an answer.
enum Begun<V> {
    Known(Result<Arc<V>>),
    Joined(Arc<Flight<V>>),
    Lead(Arc<Flight<V>>),
}

/// A question that is overtaken is asked again, within reason.
const ROUNDS: u32 = 4;

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
    pub fn get(&self, key: &K, ask: impl Fn() -> Result<V>) -> Result<Arc<V>> {
        self.get_if(key, |_| true, || ask().map(Said::from))
    }

    /// As [`Timed::get`], where not every answer that is known is enough.
    ///
    /// # Errors
    /// As for [`Timed::get`].
    pub fn get_if(
        &self,
        key: &K,
        enough: impl Fn(&V) -> bool,
        ask: impl Fn() -> Result<Said<V>>,
    ) -> Result<Arc<V>> {
        for _ in 0..ROUNDS {
            match self.begin(key, &enough) {
                Begun::Known(answer) => return answer,
                Begun::Joined(flight) => {
                    if let Some(answer) = flight.wait() {
                        return answer;
                    }
                }
                Begun::Lead(flight) => {
                    let landing = Landing {
                        table: self,
                        key,
                        flight: &flight,
                    };
                    if let Some(answer) = landing.land(ask()) {
                        return answer;
                    }
                }
            }
        }
        // It changes faster than it can be asked for: what was true a moment ago has to do.
        ask().map(|said| said.value)
    }

    fn begin(&self, key: &K, enough: impl Fn(&V) -> bool) -> Begun<V> {
        let mut state = self.state.lock();
        if let Some(known) = state.known.get(key)
            && Instant::now() < known.until
            && known.answer.as_ref().map_or(true, |value| enough(value))
        {
            return Begun::Known(known.answer.clone());
        }
        if let Some(flight) = state.flights.get(key) {
            return Begun::Joined(Arc::clone(flight));
        }
        let flight = Arc::new(Flight::new());
        state.flights.insert(key.clone(), Arc::clone(&flight));
        Begun::Lead(flight)
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

    /// Whether it is known that there is no such thing, or none for us.
    pub fn is_refused(&self, key: &K) -> bool {
        let state = self.state.lock();
        let known = state.known.peek(key);
        known.is_some_and(|known| {
            Instant::now() < known.until
                && known
                    .answer
                    .as_ref()
                    .is_err_and(|error| !error.kind().is_passing())
        })
    }

    /// How long the answer still counts as current.
    pub fn life(&self, key: &K) -> Duration {
        let state = self.state.lock();
        let until = state.known.peek(key).map(|known| known.until);
        until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    /// Remembers something that was learned by the way.
    pub fn put(&self, key: &K, value: V) -> Arc<V> {
        let value = Arc::new(value);
        let mut state = self.state.lock();
        state.overtake(key);
        self.store(&mut state, key, Ok(Arc::clone(&value)), None);
        value
    }

    /// Remembers something that was learned by the way, for as long as it says.
    pub fn put_said(&self, key: &K, said: Said<V>) {
        let mut state = self.state.lock();
        state.overtake(key);
        self.store(&mut state, key, Ok(said.value), said.life);
    }

    /// Remembers something older, unless more is known or asked by now.
    pub fn put_if_unknown(&self, key: &K, said: Said<V>) {
        let mut state = self.state.lock();
        let is_known = state.known.peek(key).is_some_and(|known| known.answer.is_ok());
        if !is_known && !state.flights.contains_key(key) {
            self.store(&mut state, key, Ok(said.value), said.life);
        }
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
        self.store(&mut state, key, Ok(Arc::new(change(&old))), None);
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

    /// Forgets what is known of which this holds. Returns what it was known under.
    pub fn forget_if(&self, gone: impl Fn(&K, &V) -> bool) -> Vec<K> {
        let known = self.state.lock();
        let gone = known.known.iter().filter(|(key, known)| {
            let value = known.answer.as_ref();
            value.is_ok_and(|value| gone(key, value))
        });
        let keys: Vec<K> = gone.map(|(key, _)| key.clone()).collect();
        drop(known);
        keys.iter().for_each(|key| self.forget(key));
        keys
    }

    /// Asks anew for everything the next time; until then it is still known.
    pub fn expire(&self) {
        let mut state = self.state.lock();
        let flying: Vec<K> = state.flights.keys().cloned().collect();
        flying.iter().for_each(|key| state.overtake(key));
        let now = Instant::now();
        for (_, known) in state.known.iter_mut() {
            known.until = known.until.min(now);
        }
    }

    fn store(&self, state: &mut State<K, V>, key: &K, answer: Result<Arc<V>>, life: Option<Duration>) {
        let given = life;
        let (life, weight) = match &answer {
            Ok(value) => (self.lifetimes.found, value.weight() + OVERHEAD),
            Err(error) if error.kind().is_passing() => (self.lifetimes.failed, OVERHEAD),
            Err(_) => (self.lifetimes.refused, OVERHEAD),
        };
        let known = Known {
            answer,
            until: Instant::now() + given.unwrap_or(life),
            weight,
        };
        state.weight += weight;
        if let Some(old) = state.known.put(key.clone(), known) {
            state.weight -= old.weight;
        }
        // The newest stays even if it alone is over the capacity: somebody is about to use it.
        while state.weight > self.capacity && state.known.len() > 1 {
            if let Some((_, old)) = state.known.pop_lru() {
                memory::freed(old.weight);
                state.weight -= old.weight;
            }
        }
    }
}

impl<K: Hash + Eq, V> State<K, V> {
    /// Whatever is being asked about `key` is old news. Who asks from now on asks anew.
    fn overtake(&mut self, key: &K) {
        if let Some(flight) = self.flights.remove(key) {
            flight.end(FlightState::Overtaken);
        }
    }
}

impl<V> Flight<V> {
    fn new() -> Self {
        Flight {
            state: Mutex::new(FlightState::UnderWay),
            arrival: Condvar::new(),
        }
    }

    /// The answer; `None` if it was overtaken.
    fn wait(&self) -> Option<Result<Arc<V>>> {
        let deadline = Instant::now() + LONGEST_FLIGHT;
        let mut state = self.state.lock();
        loop {
            match &*state {
                FlightState::Landed(answer) => return Some(answer.clone()),
                FlightState::Overtaken => return None,
                FlightState::UnderWay => {}
            }
            if self.arrival.wait_until(&mut state, deadline).timed_out() {
                let what = "no answer to a question asked by another thread";
                return Some(Err(Error::new(Kind::TimedOut, what)));
            }
        }
    }

    /// Ends it, unless it has ended. Returns whether it counts.
    fn end(&self, end: FlightState<V>) -> bool {
        let mut state = self.state.lock();
        let counts = matches!(*state, FlightState::UnderWay);
        if counts {
            *state = end;
            self.arrival.notify_all();
        }
        counts
    }
}

/// Lands a flight, also when the question panics: whoever waits must not wait for ever.
struct Landing<'a, K: Hash + Eq + Clone, V: Weigh> {
    table: &'a Timed<K, V>,
    key: &'a K,
    flight: &'a Arc<Flight<V>>,
}

impl<K: Hash + Eq + Clone, V: Weigh> Landing<'_, K, V> {
    /// The answer; `None` if it was overtaken.
    fn land(self, answer: Result<Said<V>>) -> Option<Result<Arc<V>>> {
        let life = answer.as_ref().ok().and_then(|said| said.life);
        let answer = answer.map(|said| said.value);
        // While the table is held nobody can overtake it.
        let mut state = self.table.state.lock();
        let counts = self.flight.end(FlightState::Landed(answer.clone()));
        if counts {
            self.table.store(&mut state, self.key, answer.clone(), life);
        }
        drop(state);
        counts.then_some(answer)
    }
}

impl<K: Hash + Eq + Clone, V: Weigh> Drop for Landing<'_, K, V> {
    fn drop(&mut self) {
        let mut state = self.table.state.lock();
        if state
            .flights
            .get(self.key)
            .is_some_and(|flight| Arc::ptr_eq(flight, self.flight))
        {
            state.flights.remove(self.key);
        }
        drop(state);
        let what = "a question to the repository panicked";
        self.flight
            .end(FlightState::Landed(Err(Error::new(Kind::Internal, what))));
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
        assert_eq!(
            *table
                .get_if(&"a", |known| *known == 1, || never().map(Said::from))
                .unwrap(),
            1
        );
        assert_eq!(
            *table
                .get_if(&"a", |known| *known == 2, || Ok(Said::from(2)))
                .unwrap(),
            2
        );
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
    fn an_answer_overtaken_by_a_change_is_given_to_nobody() {
        let table = table(HOUR);
        let answer = table.get(&"a", || {
            table.put(&"a", 2);
            Ok(1)
        });
        assert_eq!(*answer.unwrap(), 2);
        let asked = AtomicUsize::new(0);
        let answer = table.get(&"b", || {
            if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                table.forget(&"b");
                return Ok(1);
            }
            Ok(2)
        });
        assert_eq!(*answer.unwrap(), 2, "asked again");
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
