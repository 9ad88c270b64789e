//! Worker lanes: where calls wait, so that the threads that read from the kernel never do.
//!
//! A lane has threads of its own and a bounded queue. Threads are made when all are busy, up to a limit, and end when
//! idle: waiting threads cost little, and a lane full of callers that wait for one slow record still serves others.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// What a lane does: answer one call.
type Job = Box<dyn FnOnce() + Send>;

/// A lane.
pub(super) struct Lane {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    most_threads: usize,
    state: Mutex<State>,
    bell: Condvar,
    /// A thread has nothing to do.
    rest: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

/// More calls than this waiting means that something is badly stuck: the next ones fail at once. A program has one
/// call under way for each of its threads, so this is far above what people do.
const LONGEST_QUEUE: usize = 10_000;
/// How long an idle thread stays.
const IDLE: Duration = Duration::from_secs(10);
/// The deepest thing a worker does is to render JSON.
const STACK: usize = 512 << 10;

impl Lane {
    /// A lane with at most so many threads.
    pub(super) fn new(name: &'static str, most_threads: usize) -> Self {
        let shared = Shared {
            name,
            most_threads,
            state: Mutex::default(),
            bell: Condvar::new(),
            rest: Condvar::new(),
        };
        Lane {
            shared: Arc::new(shared),
        }
    }

    /// Has a job done, soon. A job that can't be taken is dropped, and with it its reply: fuser then answers EIO.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state.lock();
        if state.queue.len() >= LONGEST_QUEUE {
            drop(state);
            log::error!("the {} lane is full: a call fails", self.shared.name);
            return;
        }
        state.queue.push_back(Box::new(job));
        if state.queue.len() > state.idle && state.threads < self.shared.most_threads {
            state.threads += 1;
            let number = state.threads;
            drop(state);
            self.add_thread(number);
        } else {
            drop(state);
            self.shared.bell.notify_one();
        }
    }

    /// Waits until all jobs are done. False if the deadline comes first.
    pub(super) fn wait_idle(&self, deadline: Instant) -> bool {
        let mut state = self.shared.state.lock();
        while !state.queue.is_empty() || state.idle < state.threads {
            if self.shared.rest.wait_until(&mut state, deadline).timed_out() {
                return false;
            }
        }
        true
    }

    fn add_thread(&self, number: usize) {
        let shared = Arc::clone(&self.shared);
        let name = format!("{}-{number}", shared.name);
        let made = std::thread::Builder::new()
            .name(name)
            .stack_size(STACK)
            .spawn(move || shared.work());
        if let Err(error) = made {
            log::error!("can't start a thread of the {} lane: {error}", self.shared.name);
            let mut state = self.shared.state.lock();
            state.threads -= 1;
            if state.threads == 0 {
                // Nobody would ever come for them; dropped, their replies say EIO.
                state.queue.clear();
            }
        }
    }
}

/// Answers one call on a thread of this name. A panic drops the reply, which answers EIO; the thread lives on.
pub(super) fn survive(thread: &str, call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        log::error!("a call panicked on a thread of {thread}; this is a bug in rdmfs");
    }
}

impl Shared {
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                survive(self.name, job);
                state = self.state.lock();
                continue;
            }
            state.idle += 1;
            self.rest.notify_all();
            let timed_out = self.bell.wait_for(&mut state, IDLE).timed_out();
            state.idle -= 1;
            if timed_out && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_job_does_not_wait_for_one_that_waits() {
        let lane = Lane::new("test", 4);
        let (release, held) = mpsc::channel::<()>();
        let (done, finished) = mpsc::channel();
        lane.run(move || held.recv_timeout(LONG).unwrap());
        lane.run(move || done.send(()).unwrap());
        finished.recv_timeout(LONG).unwrap();
        release.send(()).unwrap();
    }

    #[test]
    fn a_panic_ends_its_job_only() {
        let lane = Lane::new("test", 1);
        let (done, finished) = mpsc::channel();
        lane.run(|| panic!("on purpose"));
        lane.run(move || done.send(()).unwrap());
        finished.recv_timeout(LONG).unwrap();
    }

    #[test]
    fn threads_stay_within_their_limit() {
        let lane = Lane::new("test", 2);
        let (done, finished) = mpsc::channel();
        for _ in 0..100 {
            let done = done.clone();
            lane.run(move || done.send(()).unwrap());
        }
        for _ in 0..100 {
            finished.recv_timeout(LONG).unwrap();
        }
        assert!(lane.shared.state.lock().threads <= 2);
    }
}
