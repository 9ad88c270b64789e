//! The upload queue: which staged file is sent next, by whom, and when a failed one is tried again.
//!
//! A few worker threads; first come, first served; never two uploads of one place at a time. New files of one draft are
//! announced to the server together, as many as have gathered while the one before was announced. It knows files by
//! their [`Ticket`] only and never looks into them while it holds its lock.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
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
    /// For the workers: there may be something to do. One is called at a time, and each that finds work calls the next.
    bell: Condvar,
    /// For those who wait for a spot: one has become free.
    free: Condvar,
}

#[derive(Default)]
struct State {
    /// What is done one by one.
    ready: Line,
    /// New files, by draft: they are announced together. No line is empty.
    new: HashMap<RecordId, Line>,
    delayed: BinaryHeap<Reverse<Delayed>>,
    /// Numbers of tickets, in the order in which they are served: of the last one, and of one before all others.
    last: i64,
    first: i64,
    /// Where something is being done: the number in the journal would not do, a new file may have the same key.
    busy: HashSet<Spot>,
    /// Drafts to which files are being announced.
    announcing: HashSet<RecordId>,
    stopped: bool,
}

/// Tickets by number.
type Line = VecDeque<(i64, Ticket)>;

/// A ticket that comes later.
struct Delayed {
    when: Instant,
    ticket: Ticket,
}

/// As many files are announced at once. Packaged repositories take 100 files in a record.
const ANNOUNCED: usize = 100;

impl Queue {
    /// Asks for an upload.
    pub(super) fn push(&self, ticket: Ticket) {
        let mut state = self.state.lock();
        let waits = state.comes_with_the_next(&ticket);
        state.push_back(ticket);
        if !waits {
            self.bell.notify_one();
        }
    }

    /// Asks for uploads that come before all others: their files are announced already.
    pub(super) fn push_first(&self, tickets: impl DoubleEndedIterator<Item = Ticket>) {
        let mut state = self.state.lock();
        for ticket in tickets.rev() {
            state.first -= 1;
            let first = state.first;
            state.line(&ticket).push_front((first, ticket));
        }
        self.bell.notify_one();
    }

    /// Asks for an upload after a pause.
    pub(super) fn push_later(&self, ticket: Ticket, pause: Duration) {
        let when = Instant::now() + pause;
        self.state.lock().delayed.push(Reverse(Delayed { when, ticket }));
        // It looks when to wake up.
        self.bell.notify_one();
    }

    /// The next work for a worker; waits for some. `None` once the queue is stopped.
    pub(super) fn next(&self) -> Option<Work> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            state.end_pauses(Instant::now());
            if let Some(work) = state.take() {
                if state.has_tickets() {
                    // Another one looks for more, or waits for the next delayed one instead of this one.
                    self.bell.notify_one();
                }
                return Some(work);
            }
            match state.delayed.peek().map(|Reverse(next)| next.when) {
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
        if state.has_tickets() {
            self.bell.notify_one();
        }
        self.free.notify_all();
    }

    /// A worker is through with announcing files to a draft.
    pub(super) fn announced(&self, draft: &RecordId) {
        self.state.lock().announcing.remove(draft);
        self.bell.notify_one();
    }

    /// Waits until nothing is being done at a spot any more, at most for `limit`.
    pub(super) fn wait_idle(&self, spot: &Spot, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock();
        while state.busy.contains(spot) {
            if self.free.wait_until(&mut state, deadline).timed_out() {
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
            if self.free.wait_until(&mut state, deadline).timed_out() {
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
    /// The line in which a ticket stands.
    fn line(&mut self, ticket: &Ticket) -> &mut Line {
        if ticket.is_new() {
            self.new.entry(ticket.staged.draft.clone()).or_default()
        } else {
            &mut self.ready
        }
    }

    fn push_back(&mut self, ticket: Ticket) {
        self.last += 1;
        let last = self.last;
        self.line(&ticket).push_back((last, ticket));
    }

    fn end_pauses(&mut self, now: Instant) {
        while let Some(Reverse(next)) = self.delayed.peek()
            && next.when <= now
            && let Some(Reverse(next)) = self.delayed.pop()
        {
            self.push_back(next.ticket);
        }
    }

    fn has_tickets(&self) -> bool {
        !(self.ready.is_empty() && self.new.is_empty() && self.delayed.is_empty())
    }

    /// Whether a file is announced after those that are being announced now.
    fn comes_with_the_next(&self, ticket: &Ticket) -> bool {
        ticket.is_new() && self.announcing.contains(&ticket.staged.draft)
    }

    /// The first thing that can be done now.
    fn take(&mut self) -> Option<Work> {
        let single = self.first_free(&self.ready);
        let new = self
            .new
            .iter()
            .filter(|(draft, _)| !self.announcing.contains(*draft))
            .filter_map(|(draft, line)| Some((line[self.first_free(line)?].0, draft)))
            .min_by_key(|(number, _)| *number);
        let single = single.filter(|index| new.is_none_or(|(number, _)| self.ready[*index].0 < number));
        if let Some(index) = single {
            // The index was just found.
            let (_, ticket) = self.ready.remove(index)?;
            let spot = spot(&ticket);
            self.busy.insert(spot.clone());
            return Some(Work::One(spot, ticket));
        }
        let draft = new?.1.clone();
        let taken = self.take_new(&draft);
        self.announcing.insert(draft.clone());
        Some(Work::Announce(draft, taken))
    }

    /// Which of a line is the first that nobody's work is in the way of.
    fn first_free(&self, line: &Line) -> Option<usize> {
        line.iter()
            .position(|(_, ticket)| !self.busy.contains(&spot(ticket)))
    }

    /// The new files of a draft that can be announced now.
    fn take_new(&mut self, draft: &RecordId) -> Vec<(Spot, Ticket)> {
        let mut line = self.new.remove(draft).unwrap_or_default();
        let mut taken = Vec::new();
        let mut skipped = Line::new();
        while taken.len() < ANNOUNCED
            && let Some((number, ticket)) = line.pop_front()
        {
            let spot = spot(&ticket);
            if self.busy.insert(spot.clone()) {
                taken.push((spot, ticket));
            } else {
                skipped.push_back((number, ticket));
            }
        }
        while let Some(earlier) = skipped.pop_back() {
            line.push_front(earlier);
        }
        if !line.is_empty() {
            self.new.insert(draft.clone(), line);
        }
        taken
    }
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        self.when == other.when
    }
}

impl Eq for Delayed {}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.when.cmp(&other.when)
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

#[cfg(test)]
mod tests {
    use super::super::early::Early;
    use super::super::file::Space;
    use super::super::journal::Journal;
    use super::super::junk::Rules;
    use super::*;

    /// Makes tickets for files of two drafts.
    struct Office {
        space: Arc<Space>,
        _directory: tempfile::TempDir,
    }

    impl Office {
        fn open() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let space = Arc::new(Space {
                journal: Journal::open(directory.path()).unwrap(),
                repository: "https://example.org".to_owned(),
                account: "abc".to_owned(),
                rules: Rules::new::<&str>(&[]).unwrap(),
                early: Early::start().unwrap(),
            });
            Office {
                space,
                _directory: directory,
            }
        }

        fn ticket(&self, id: u64, draft: &str, known: Known) -> Ticket {
            let draft = RecordId::new(draft).unwrap();
            let place = Place::File(id.to_string().into());
            Ticket {
                staged: Arc::new(Staged::create(&self.space, id, draft, place).unwrap()),
                task: Task::Send { turn: 1, known },
            }
        }
    }

    const ONE: &str = "aaaaa-11111";
    const TWO: &str = "bbbbb-22222";

    /// The numbers of the files of some work.
    fn ids(work: &Work) -> Vec<u64> {
        match work {
            Work::One(_, ticket) => vec![ticket.staged.id],
            Work::Announce(_, taken) => taken.iter().map(|(_, ticket)| ticket.staged.id).collect(),
        }
    }

    /// The numbers of what could be done now, one work after the other, none of which ends.
    fn served(queue: &Queue) -> Vec<Vec<u64>> {
        let mut state = queue.state.lock();
        std::iter::from_fn(|| state.take())
            .map(|work| ids(&work))
            .collect()
    }

    #[test]
    fn who_comes_first_is_served_first_and_new_files_of_a_draft_together() {
        let office = Office::open();
        let queue = Queue::default();
        for (id, draft, known) in [
            (1, ONE, Known::Nothing),
            (2, TWO, Known::Absent),
            (3, ONE, Known::Absent),
            (4, ONE, Known::Nothing),
            (5, TWO, Known::Absent),
            (6, ONE, Known::Absent),
        ] {
            queue.push(office.ticket(id, draft, known));
        }
        assert_eq!(served(&queue), [vec![1], vec![2, 5], vec![3, 6], vec![4]]);
    }

    #[test]
    fn announced_files_go_before_new_ones() {
        let office = Office::open();
        let queue = Queue::default();
        queue.push(office.ticket(1, TWO, Known::Nothing));
        queue.push(office.ticket(2, ONE, Known::Absent));
        let announced = [3, 4].map(|id| office.ticket(id, ONE, Known::Started));
        queue.push_first(announced.into_iter());
        assert_eq!(served(&queue), [[3], [4], [1], [2]]);
    }

    #[test]
    fn a_draft_is_announced_to_by_one_and_a_hundred_files_at_most() {
        let office = Office::open();
        let queue = Queue::default();
        for id in 0..150 {
            queue.push(office.ticket(id, ONE, Known::Absent));
        }
        let first = queue.next().unwrap();
        assert_eq!(ids(&first), Vec::from_iter(0..100));
        assert!(served(&queue).is_empty());
        queue.announced(&RecordId::new(ONE).unwrap());
        assert_eq!(served(&queue), [Vec::from_iter(100..150)]);
    }

    #[test]
    fn nobody_works_where_somebody_works() {
        let office = Office::open();
        let queue = Queue::default();
        let ticket = office.ticket(1, ONE, Known::Nothing);
        let held = spot(&ticket);
        assert!(queue.claim(&held, Duration::ZERO));
        queue.push(ticket);
        queue.push(office.ticket(1, ONE, Known::Absent));
        queue.push(office.ticket(2, ONE, Known::Absent));
        assert_eq!(served(&queue), [[2]]);
        assert!(!queue.claim(&held, Duration::from_millis(1)));
        assert!(!queue.wait_idle(&held, Duration::from_millis(1)));
        queue.done([&held]);
        assert!(queue.wait_idle(&held, Duration::ZERO));
        assert_eq!(served(&queue), [[1]]);
    }

    #[test]
    fn a_pause_ends_in_time_also_when_who_waited_for_that_has_other_work() {
        let office = Office::open();
        let queue = Queue::default();
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let worker = || queue.next().map(|work| (ids(&work), begun.elapsed()));
            let workers = [scope.spawn(worker), scope.spawn(worker)];
            std::thread::sleep(Duration::from_millis(50));
            queue.push_later(office.ticket(1, ONE, Known::Nothing), Duration::from_millis(200));
            std::thread::sleep(Duration::from_millis(50));
            queue.push(office.ticket(2, ONE, Known::Nothing));
            let mut done = workers.map(|worker| worker.join().unwrap().unwrap());
            done.sort();
            assert_eq!(done[0].0, [1]);
            assert_eq!(done[1].0, [2]);
            assert!(done[1].1 < Duration::from_millis(200));
        });
    }

    #[test]
    fn what_is_paused_comes_back_the_earliest_first() {
        let office = Office::open();
        let queue = Queue::default();
        for (id, millis) in [(1, 30), (2, 10), (3, 20)] {
            queue.push_later(
                office.ticket(id, ONE, Known::Nothing),
                Duration::from_millis(millis),
            );
        }
        let order: Vec<Vec<u64>> = (0..3).map(|_| ids(&queue.next().unwrap())).collect();
        assert_eq!(order, [[2], [3], [1]]);
        assert!(queue.state.lock().delayed.is_empty());
    }
}
