//! The upload queue: which staged file is sent next, by whom, and when a failed one is tried again.
//!
//! A few worker threads; first come, first served; never two uploads of one place at a time. New files of one draft are
//! announced to the server together, as many as have gathered while the one before was announced. It knows files by
//! their [`Ticket`] only and never looks into them while it holds its lock.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::file::Staged;
use super::place::Place;
use super::upload::Known;
use crate::repository::model::RecordId;

/// Something to be done for a staged file.
#[derive(Clone)]
pub(super) struct Ticket {
    pub(super) staged: Arc<Staged>,
    pub(super) task: Task,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// The upload of this turn.
    Send {
        /// Which.
        turn: u64,
        /// What the server was known to have under the key when this was asked for.
        known: Known,
    },
    /// To write its address into the journal: that failed when it changed.
    Note,
    /// To delete what was only begun on the server under the keys it had before: it is junk now.
    Sweep,
    /// To close it: that failed when its last handle went, because the disk was full, say.
    Close,
}

/// Where something is in the repository.
pub(super) type Spot = (RecordId, Place);

/// What a worker is to do; nobody else works at these spots until [`Queue::done`].
pub(super) enum Work {
    /// One task.
    One(Spot, Ticket),
    /// Announce these new files of one draft.
    Announce(RecordId, Vec<(Spot, Ticket)>),
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
    /// Where something is being done: the number in the journal would not do, a new file may have the same key.
    busy: HashSet<Spot>,
    /// Drafts to which files are being announced.
    announcing: HashSet<RecordId>,
    stopped: bool,
}

/// As many files are announced at once. Packaged repositories take 100 files in a record.
const ANNOUNCED: usize = 100;

impl Queue {
    /// Asks for an upload.
    pub(super) fn push(&self, ticket: Ticket) {
        self.state.lock().ready.push_back(ticket);
        // All: somebody who waits for an idle place may hear it first.
        self.bell.notify_all();
    }

    /// Asks for uploads that come before all others: their files are announced already.
    pub(super) fn push_first(&self, tickets: impl DoubleEndedIterator<Item = Ticket>) {
        let mut state = self.state.lock();
        tickets.rev().for_each(|ticket| state.ready.push_front(ticket));
        self.bell.notify_all();
    }

    /// Asks for an upload after a pause.
    pub(super) fn push_later(&self, ticket: Ticket, pause: Duration) {
        self.state.lock().delayed.push((Instant::now() + pause, ticket));
        self.bell.notify_all();
    }

    /// The next work for a worker; waits for some. `None` once the queue is stopped.
    pub(super) fn next(&self) -> Option<Work> {
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
            if let Some(work) = state.take() {
                return Some(work);
            }
            match state.delayed.iter().map(|(when, _)| *when).min() {
                Some(when) => {
                    self.bell.wait_until(&mut state, when);
                }
                None => self.bell.wait(&mut state),
            }
        }
    }

    /// A worker is through with its work at these spots.
    pub(super) fn done<'a>(&self, spots: impl IntoIterator<Item = &'a Spot>) {
        let mut state = self.state.lock();
        for spot in spots {
            state.busy.remove(spot);
        }
        self.bell.notify_all();
    }

    /// A worker is through with announcing files to a draft.
    pub(super) fn announced(&self, draft: &RecordId) {
        self.state.lock().announcing.remove(draft);
        self.bell.notify_all();
    }

    /// Waits until nothing is being done at a spot any more, at most for `limit`.
    pub(super) fn wait_idle(&self, spot: &Spot, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock();
        while state.busy.contains(spot) {
            if self.bell.wait_until(&mut state, deadline).timed_out() {
                return false;
            }
        }
        true
    }

    /// Keeps all others from a spot until [`Queue::done`]. False if it is not free in time.
    pub(super) fn claim(&self, spot: &Spot, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock();
        while !state.busy.insert(spot.clone()) {
            if self.bell.wait_until(&mut state, deadline).timed_out() {
                return false;
            }
        }
        true
    }

    /// Whether the workers are to end.
    pub(super) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Lets the workers end.
    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.bell.notify_all();
    }
}

impl State {
    /// The first thing that can be done now.
    fn take(&mut self) -> Option<Work> {
        let index = self.ready.iter().position(|ticket| {
            let comes_with_the_next = ticket.is_new() && self.announcing.contains(&ticket.staged.draft);
            !comes_with_the_next && !self.busy.contains(&spot(ticket))
        })?;
        // The index was just found.
        let ticket = self.ready.remove(index)?;
        if !ticket.is_new() {
            let spot = spot(&ticket);
            self.busy.insert(spot.clone());
            return Some(Work::One(spot, ticket));
        }
        let draft = ticket.staged.draft.clone();
        let mut taken = vec![(spot(&ticket), ticket)];
        self.busy.insert(taken[0].0.clone());
        let mut index = 0;
        while taken.len() < ANNOUNCED && index < self.ready.len() {
            let ticket = &self.ready[index];
            let spot = spot(ticket);
            if ticket.is_new() && ticket.staged.draft == draft && !self.busy.contains(&spot) {
                self.busy.insert(spot.clone());
                // The index is in range.
                let ticket = self.ready.remove(index)?;
                taken.push((spot, ticket));
            } else {
                index += 1;
            }
        }
        self.announcing.insert(draft.clone());
        Some(Work::Announce(draft, taken))
    }
}

impl Ticket {
    /// An upload of a key that the server is known not to have.
    fn is_new(&self) -> bool {
        matches!(
            self.task,
            Task::Send {
                known: Known::Absent,
                ..
            }
        )
    }
}

fn spot(ticket: &Ticket) -> Spot {
    (ticket.staged.draft.clone(), ticket.staged.place())
}
