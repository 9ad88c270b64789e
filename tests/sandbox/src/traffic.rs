//! What came in: counts by route, a bounded log of requests, and how many are under way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use crate::routes::Route;
use crate::trace::Trace;

/// Requests kept in the log; older ones are forgotten, but stay counted.
const LOG: usize = 10_000;

/// A request that was made.
#[derive(Clone, Debug, Serialize)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path as it was sent, with its query.
    pub path: String,
    /// The route's stable name.
    pub route: String,
    /// The status answered; 0 while there is none, and if the connection was cut instead.
    pub status: u16,
    /// The `Range` header.
    pub range: Option<String>,
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// The `Accept` header.
    pub accept: Option<String>,
    /// Whether an `Authorization` header came along.
    pub authorization: bool,
    /// Bytes of the answer's body that were handed to the connection.
    pub sent: u64,
    /// Bytes of the request's body that were read.
    pub received: u64,
    /// Whether it is still being served.
    pub in_flight: bool,
    /// When it came, in milliseconds since the sandbox started.
    pub began_ms: u64,
    /// When its answer was handed to the connection.
    pub ended_ms: Option<u64>,
}

/// The counters of a request under way.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub sent: AtomicU64,
    pub received: AtomicU64,
}

pub(crate) struct Traffic {
    trace: Trace,
    started: Instant,
    state: Mutex<State>,
    /// Grows with every start and end of a request.
    events: Mutex<u64>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    counts: BTreeMap<Route, usize>,
    log: VecDeque<(u64, Request, Arc<Meter>)>,
    next: u64,
    in_flight: usize,
}

impl State {
    fn find(&mut self, number: u64) -> Option<&mut (u64, Request, Arc<Meter>)> {
        let first = self.log.front()?.0;
        self.log.get_mut(number.checked_sub(first)? as usize)
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Traffic {
            trace: Trace::default(),
            started: Instant::now(),
            state: Mutex::default(),
            events: Mutex::default(),
            changed: Condvar::default(),
        }
    }
}

impl Traffic {
    pub fn traced(trace: Trace) -> Traffic {
        Traffic {
            trace,
            ..Traffic::default()
        }
    }

    /// Milliseconds since the start. They fit for longer than any sandbox runs.
    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Notes a request's start. The guard notes its end when it is dropped.
    pub fn begin(self: &Arc<Self>, route: Route, mut request: Request) -> InFlight {
        request.began_ms = self.now();
        let meter = Arc::new(Meter::default());
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        *state.counts.entry(route).or_default() += 1;
        state.in_flight += 1;
        state.log.push_back((number, request, meter.clone()));
        if state.log.len() > LOG {
            state.log.pop_front();
        }
        drop(state);
        self.signal();
        InFlight {
            traffic: self.clone(),
            number,
            meter,
        }
    }

    pub fn count(&self, route: Route) -> usize {
        self.state.lock().counts.get(&route).copied().unwrap_or(0)
    }

    pub fn total(&self) -> usize {
        self.state.lock().counts.values().sum()
    }

    pub fn counts(&self) -> BTreeMap<String, usize> {
        self.state
            .lock()
            .counts
            .iter()
            .map(|(route, count)| (route.name().to_string(), *count))
            .collect()
    }

    pub fn requests(&self) -> Vec<Request> {
        let state = self.state.lock();
        let current = state.log.iter().map(|(_, request, meter)| Request {
            sent: meter.sent.load(Ordering::Relaxed),
            received: meter.received.load(Ordering::Relaxed),
            ..request.clone()
        });
        current.collect()
    }

    pub fn in_flight(&self) -> usize {
        self.state.lock().in_flight
    }

    /// Forgets counts and log; requests under way stay in flight.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        state.counts.clear();
        state.log.clear();
    }

    /// The number of starts and ends so far.
    pub fn events(&self) -> u64 {
        *self.events.lock()
    }

    /// Waits for a start or end after `seen`, for at most `time`.
    pub fn wait(&self, seen: u64, time: Duration) {
        let mut events = self.events.lock();
        if *events == seen {
            self.changed.wait_for(&mut events, time);
        }
    }

    fn signal(&self) {
        *self.events.lock() += 1;
        self.changed.notify_all();
    }
}

/// A request under way.
pub(crate) struct InFlight {
    traffic: Arc<Traffic>,
    number: u64,
    pub meter: Arc<Meter>,
}

impl InFlight {
    pub fn answered(&self, status: u16) {
        if let Some((_, request, _)) = self.traffic.state.lock().find(self.number) {
            request.status = status;
            self.traffic.trace.note(request);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.traffic.state.lock();
        state.in_flight -= 1;
        if let Some((_, request, _)) = state.find(self.number) {
            request.in_flight = false;
            request.ended_ms = Some(self.traffic.now());
        }
        drop(state);
        self.traffic.signal();
    }
}
