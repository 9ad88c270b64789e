//! The upload queue: which staged file is sent next, by whom, and when a failed one is tried again.
//!
//! A few worker threads; first come, first served; never two uploads of one key at a time. It knows files by their
//! [`Ticket`] only and never looks into them while it holds its lock.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::file::Staged;

/// Something to be done for a staged file.
#[derive(Clone)]
pub(super) struct Ticket {
    pub(super) staged: Arc<Staged>,
    pub(super) task: Task,
    /// Whether the server was known to have nothing under the key when this was asked for.
    pub(super) known_absent: bool,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// The upload of this turn.
    Send(u64),
    /// To close it: that failed when its last handle went, because the disk was full, say.
    Close,
}

/// The queue.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Ticket>,
    delayed: Vec<(Instant, Ticket)>,
    /// What is being sent: the number in the journal would not do, a new file may have the same key.
    busy: HashSet<(String, Arc<str>)>,
    stopped: bool,
}

impl Queue {
    /// Asks for an upload.
    pub(super) fn push(&self, ticket: Ticket) {
        self.state.lock().ready.push_back(ticket);
        // All: somebody who waits for an idle key may hear it first.
        self.bell.notify_all();
    }

    /// Asks for an upload after a pause.
    pub(super) fn push_later(&self, ticket: Ticket, pause: Duration) {
        self.state.lock().delayed.push((Instant::now() + pause, ticket));
        // All: somebody who waits for an idle key may hear it first.
        self.bell.notify_all();
    }

    /// The next upload for a worker; waits for one. `None` once the queue is stopped.
    pub(super) fn next(&self) -> Option<Ticket> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            let now = Instant::now();
            while let Some(index) = state.delayed.iter().position(|(when, _)| *when <= now) {
                let (_, ticket) = state.delayed.swap_remove(index);
                state.ready.push_back(ticket);
            }
            if let Some(index) = state
                .ready
                .iter()
                .position(|ticket| !state.busy.contains(&place(ticket)))
            {
                // The index was just found.
                let ticket = state.ready.remove(index)?;
                state.busy.insert(place(&ticket));
                return Some(ticket);
            }
            match state.delayed.iter().map(|(when, _)| *when).min() {
                Some(when) => {
                    self.bell.wait_until(&mut state, when);
                }
                None => self.bell.wait(&mut state),
            }
        }
    }

    /// A worker is through with an upload.
    pub(super) fn done(&self, ticket: &Ticket) {
        self.state.lock().busy.remove(&place(ticket));
        self.bell.notify_all();
    }

    /// Waits until nothing is being sent under a key any more, at most for `limit`.
    pub(super) fn wait_idle(&self, staged: &Staged, limit: Duration) -> bool {
        let place = (staged.draft.to_string(), Arc::clone(&staged.key));
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock();
        while state.busy.contains(&place) {
            if self.bell.wait_until(&mut state, deadline).timed_out() {
                return false;
            }
        }
        true
    }

    /// Lets the workers end.
    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.bell.notify_all();
    }
}

fn place(ticket: &Ticket) -> (String, Arc<str>) {
    (ticket.staged.draft.to_string(), Arc::clone(&ticket.staged.key))
}
