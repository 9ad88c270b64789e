//! What the hosts that serve bytes can do, and how many downloads run at once.
//!
//! Part of the store's table, under its lock; `plan.rs` asks, `fetch.rs` tells. It must never wait.

use std::collections::{HashMap, VecDeque};
use std::sync::Weak;
use std::time::{Duration, Instant};

use super::file::Content;
use super::width::Width;

/// Demanded downloads at once. Browsers keep to 6 for each host; a researcher's parallel jobs may need more, a
/// repository's worker pool is rarely larger.
const MOST: usize = 16;

/// Hosts to remember; one repository has one or two.
const MOST_HOSTS: usize = 64;

/// Whether a host answers a range with the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ranges {
    /// It does.
    Honoured,
    /// It answers with the whole file.
    Ignored,
}

/// What was learned from answers.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    learned: HashMap<String, Ranges>,
    last: Option<Ranges>,
    widths: HashMap<String, Width>,
    last_width: usize,
}

impl Hosts {
    /// Remembers how `host` answered a range.
    pub(super) fn learn(&mut self, host: &str, ranges: Ranges) {
        if self.learned.get(host) != Some(&ranges) {
            match ranges {
                Ranges::Honoured => log::debug!("{host} honours ranges"),
                Ranges::Ignored => log::info!("{host} ignores ranges: files are read from their start"),
            }
            if self.learned.len() >= MOST_HOSTS {
                self.learned.clear();
            }
            self.learned.insert(host.to_owned(), ranges);
        }
        self.last = Some(ranges);
    }

    /// `host` began to answer after so long; `most` ranges at once are allowed.
    pub(super) fn answered(&mut self, host: &str, after: Duration, most: usize) {
        if !self.widths.contains_key(host) && self.widths.len() >= MOST_HOSTS {
            self.widths.clear();
        }
        let width = self.widths.entry(host.to_owned()).or_default();
        width.answered(after);
        self.last_width = width.ranges(most);
    }

    /// Bytes came from `host`. Tells whether more ranges are to be fetched at once from now on.
    pub(super) fn came(&mut self, host: &str, bytes: u64, now: Instant, most: usize) -> bool {
        let Some(width) = self.widths.get_mut(host) else {
            return false;
        };
        let grew = width.came(bytes, now, most);
        self.last_width = width.ranges(most);
        grew
    }

    /// How many ranges to fetch at once, from the host that answered last.
    pub(super) fn width(&self) -> usize {
        self.last_width.max(1)
    }

    /// What the next answer will likely do. Which host will give it is known only then, because the repository may
    /// redirect; it is nearly always the one that answered last.
    pub(super) fn expected(&self) -> Option<Ranges> {
        self.last
    }
}

/// Who may download now.
#[derive(Debug, Default)]
pub(super) struct Slots {
    active: usize,
    /// Downloads that are going on without anybody waiting for them.
    ahead: usize,
    /// Ranges of which only the last round trip is left.
    ending: usize,
    queue: VecDeque<Weak<Content>>,
}

impl Slots {
    /// A slot for bytes that somebody waits for; false if there is none now or others wait for one already.
    pub(super) fn take(&mut self) -> bool {
        let free = self.active < MOST && self.queue.is_empty();
        if free {
            self.active += 1;
        }
        free
    }

    /// A slot for read-ahead, which has to leave room for demand.
    pub(super) fn take_ahead(&mut self, connections: usize) -> bool {
        self.active.saturating_sub(self.ending) < connections.min(MOST) && self.take()
    }

    /// A range is about to end: its successor may be asked for, so that its connection's share of the line does not lie
    /// idle for a round trip. Only every second at a time, so that they end one after the other and not all at once; and
    /// a single connection is one connection.
    pub(super) fn begin_ending(&mut self, connections: usize) -> bool {
        let free = self.ending < connections / 2;
        if free {
            self.ending += 1;
        }
        free
    }

    /// It ended.
    pub(super) fn end_ending(&mut self) {
        self.ending = self.ending.saturating_sub(1);
    }

    /// Stands in line for the next free slot.
    pub(super) fn wait(&mut self, content: Weak<Content>) {
        self.queue.push_back(content);
    }

    /// Whether anybody stands in line.
    pub(super) fn is_contended(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Gives a slot back, or hands it over to the first in line, who must take it or give it back in turn.
    pub(super) fn release(&mut self) -> Option<Weak<Content>> {
        let next = self.queue.pop_front();
        if next.is_none() {
            self.active = self.active.saturating_sub(1);
        }
        next
    }

    /// How many downloads run.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// Permission to go on while nobody waits for the bytes.
    pub(super) fn begin_ahead(&mut self, connections: usize) -> bool {
        let free = self.ahead < connections.max(1);
        if free {
            self.ahead += 1;
        }
        free
    }

    /// Gives that permission back.
    pub(super) fn end_ahead(&mut self) {
        self.ahead = self.ahead.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_does_is_remembered_until_it_does_otherwise() {
        let mut hosts = Hosts::default();
        assert_eq!(hosts.expected(), None);
        hosts.learn("a", Ranges::Ignored);
        assert_eq!(hosts.expected(), Some(Ranges::Ignored));
        hosts.learn("a", Ranges::Honoured);
        assert_eq!(hosts.expected(), Some(Ranges::Honoured));
    }

    #[test]
    fn demand_has_sixteen_slots_and_read_ahead_only_the_first_few() {
        let mut slots = Slots::default();
        assert!((0..4).all(|_| slots.take_ahead(4)));
        assert!(!slots.take_ahead(4));
        assert!((4..16).all(|_| slots.take()));
        assert!(!slots.take());
    }

    #[test]
    fn a_free_slot_goes_to_the_first_in_line() {
        let mut slots = Slots::default();
        assert!((0..16).all(|_| slots.take()));
        slots.wait(Weak::new());
        assert!(slots.release().is_some());
        assert_eq!(slots.active(), 16);
        assert!(slots.release().is_none());
        assert_eq!(slots.active(), 15);
        slots.wait(Weak::new());
        assert!(!slots.take(), "nobody jumps the queue");
    }

    #[test]
    fn going_on_without_demand_is_limited() {
        let mut slots = Slots::default();
        assert!((0..4).all(|_| slots.begin_ahead(4)));
        assert!(!slots.begin_ahead(4));
        slots.end_ahead();
        assert!(slots.begin_ahead(4));
    }
}
