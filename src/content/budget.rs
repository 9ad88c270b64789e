//! One budget for all that is fetched before it is asked for, shared evenly by the readers that read on.
//!
//! Held by `state.rs` for each such reader. Nothing is locked: a share is looked at anew with every read, so that one more
//! reader makes the others' windows smaller with their next read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::blocks::BLOCK;

/// The budget.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: u64,
    takers: AtomicU64,
}

impl Budget {
    /// So many bytes for all.
    pub(super) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Budget {
            bytes,
            takers: AtomicU64::new(0),
        })
    }

    /// One more reader takes part.
    pub(super) fn join(self: &Arc<Self>) -> Share {
        self.takers.fetch_add(1, Ordering::Relaxed);
        Share(Arc::clone(self))
    }

    /// What a reader that does not take part yet would get.
    pub(super) fn next(&self) -> u64 {
        self.split(self.takers.load(Ordering::Relaxed) + 1)
    }

    /// Less than a block is nothing: such readers get what they ask for, when they ask.
    fn split(&self, takers: u64) -> u64 {
        Some(self.bytes / takers.max(1))
            .filter(|share| *share >= BLOCK)
            .unwrap_or(0)
    }
}

/// A reader's part in the budget, until it is dropped.
#[derive(Debug)]
pub(super) struct Share(Arc<Budget>);

impl Share {
    /// How many bytes it is now.
    pub(super) fn bytes(&self) -> u64 {
        self.0.split(self.0.takers.load(Ordering::Relaxed))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.takers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_never_exceed_the_budget_and_come_back() {
        let budget = Budget::new(100 * BLOCK);
        let mut shares = Vec::new();
        for takers in 1..=300 {
            shares.push(budget.join());
            assert!(shares.iter().all(|share| share.bytes() == shares[0].bytes()));
            assert!(shares[0].bytes() * takers <= 100 * BLOCK);
        }
        assert_eq!(shares[0].bytes(), 0, "less than a block is nothing");
        shares.truncate(2);
        assert_eq!(shares[0].bytes(), 50 * BLOCK);
        drop(shares);
        assert_eq!(budget.next(), 100 * BLOCK);
    }
}
