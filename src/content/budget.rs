//! One budget for all that is fetched before it is asked for: what is on its way or there, and not yet read.
//!
//! Held by `state.rs` for each reader that reads on. Nothing is locked: a share is looked at anew with every read, so that
//! one more reader makes the others' windows smaller with their next read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::blocks::BLOCK;

/// The budget.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: u64,
    takers: AtomicU64,
    /// Bytes ahead of all takers.
    ahead: AtomicU64,
}

impl Budget {
    /// So many bytes for all.
    pub(super) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Budget {
            bytes,
            takers: AtomicU64::new(0),
            ahead: AtomicU64::new(0),
        })
    }

    /// One more reader takes part.
    pub(super) fn join(self: &Arc<Self>) -> Share {
        self.takers.fetch_add(1, Ordering::Relaxed);
        Share {
            budget: Arc::clone(self),
            ahead: 0,
        }
    }

    /// What a reader that does not take part yet would get.
    pub(super) fn next(&self) -> u64 {
        let others = self.ahead.load(Ordering::Relaxed);
        self.split(self.takers.load(Ordering::Relaxed) + 1, others)
    }

    /// What one of so many may have ahead if the others have so much: what they leave, but for the even part of one who
    /// wants more. Who has more than its even part gives it back by reading it. Less than a block is nothing: such
    /// readers get what they ask for, when they ask.
    fn split(&self, takers: u64, others: u64) -> u64 {
        let even = self.bytes / takers.max(1);
        let free = self.bytes.saturating_sub(others);
        let kept_for_another = if takers > 1 { even } else { 0 };
        let part = even.max(free.saturating_sub(kept_for_another)).min(free);
        if part >= BLOCK { part } else { 0 }
    }
}

/// A reader's part in the budget, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    ahead: u64,
}

impl Share {
    /// How many bytes may be ahead of it now.
    pub(super) fn bytes(&self) -> u64 {
        let all = self.budget.ahead.load(Ordering::Relaxed);
        let takers = self.budget.takers.load(Ordering::Relaxed);
        self.budget.split(takers, all.saturating_sub(self.ahead))
    }

    /// So many are.
    pub(super) fn count(&mut self, ahead: u64) {
        if ahead >= self.ahead {
            self.budget.ahead.fetch_add(ahead - self.ahead, Ordering::Relaxed);
        } else {
            self.budget.ahead.fetch_sub(self.ahead - ahead, Ordering::Relaxed);
        }
        self.ahead = ahead;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.count(0);
        self.budget.takers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each in turn takes all it may, over and over, as if it had read what it had.
    fn all_take(shares: &mut [Share], times: usize) {
        for _ in 0..times {
            for share in shares.iter_mut() {
                let bytes = share.bytes();
                share.count(bytes);
            }
        }
    }

    fn total(budget: &Budget) -> u64 {
        budget.ahead.load(Ordering::Relaxed)
    }

    #[test]
    fn shares_become_even_never_exceed_the_budget_and_come_back() {
        let budget = Budget::new(100 * BLOCK);
        let mut shares = Vec::new();
        for takers in 1..=50 {
            shares.push(budget.join());
            all_take(&mut shares, 1);
            assert!(total(&budget) <= 100 * BLOCK, "{takers}");
        }
        all_take(&mut shares, 500);
        assert!(total(&budget) <= 100 * BLOCK);
        let even = 2 * BLOCK;
        assert!(
            shares
                .iter()
                .all(|share| (even / 2..=even * 2).contains(&share.ahead)),
            "{:?}",
            shares.iter().map(|share| share.ahead).collect::<Vec<_>>()
        );
        drop(shares);
        assert_eq!(total(&budget), 0);
        assert_eq!(budget.next(), 100 * BLOCK);
    }

    #[test]
    fn what_an_idle_reader_does_not_use_is_the_others() {
        let budget = Budget::new(100 * BLOCK);
        let mut idle: Vec<Share> = (0..9).map(|_| budget.join()).collect();
        for share in &mut idle {
            share.count(2 * BLOCK);
        }
        let reader = budget.join();
        assert_eq!(reader.bytes(), (100 - 18 - 10) * BLOCK);
    }

    #[test]
    fn less_than_a_block_is_nothing() {
        let budget = Budget::new(100 * BLOCK);
        let mut one = budget.join();
        one.count(100 * BLOCK);
        assert_eq!(budget.next(), 0);
    }
}
