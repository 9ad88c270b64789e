//! What is known of a file's bytes beyond that they are there: how far they were hashed, and the sums that what comes again
//! has to have.
//!
//! Under the content's lock, as all of `state.rs`; `fill.rs` and `hashing.rs` ask and change it. Nothing here hashes.

use std::ops::Range;

use super::blocks::{BLOCK, blocks_in};
use super::state::{Hasher, State};

/// How many blocks may wait for being hashed before downloads wait too: enough for the hash never to lack any.
const MOST_UNHASHED: u64 = 32;

impl State {
    /// Whether nothing else is missing for the checksum. What was hashed may be gone again: if it comes again, it is the
    /// same.
    pub(super) fn completes(&self, block: u64) -> bool {
        let from = self.hashed / BLOCK;
        !self.proved
            && self.presence.next_missing(from) == Some(block)
            && self.presence.next_missing(block + 1).is_none()
    }

    /// The blocks that have to stay until they are hashed: all that follow what was hashed without a gap, so all that
    /// somebody who reads in order was served. While they are being hashed also those after the gap, which comes next.
    pub(super) fn unhashed(&self) -> Range<u64> {
        let next = self.hashed / BLOCK;
        if !self.checked || self.proved || !self.presence.has(next) {
            return 0..0;
        }
        match self.hasher {
            Hasher::Idle => next..self.presence.next_missing(next).unwrap_or(u64::MAX),
            Hasher::Follows | Hasher::Leaves => next..u64::MAX,
        }
    }

    /// A thread hashes what is there, and follows what comes.
    pub(super) fn begin_to_hash(&mut self) {
        self.hasher = Hasher::Follows;
        self.behind = self.end_of_run_from(self.hashed / BLOCK);
    }

    /// Whether downloads run away from the hash: by what they brought that could be hashed at once.
    pub(super) fn runs_away(&self) -> bool {
        let next = self.hashed / BLOCK;
        self.end_of_run_from(next).saturating_sub(next.max(self.behind)) > MOST_UNHASHED
    }

    /// The block came. If it closes a gap before more than downloads may be ahead of the hash, they don't wait until all of
    /// that is hashed.
    pub(super) fn note_gap_closed(&mut self, block: u64) {
        let end = self.end_of_run_from(block);
        if end - block > MOST_UNHASHED && self.end_of_run_from(self.hashed / BLOCK) == end {
            self.behind = end;
        }
    }

    /// Where the blocks end that are there from this one on without a gap.
    fn end_of_run_from(&self, block: u64) -> u64 {
        let end = self.presence.next_missing(block);
        end.unwrap_or_else(|| blocks_in(self.size)).max(block)
    }

    /// A block that was there and was lost before it was hashed, because the disk changed it. Until it came again,
    /// nobody can tell whether what was served is right.
    pub(super) fn lost_unhashed(&self) -> Option<u64> {
        if !self.checked || self.proved || self.is_complete() {
            return None;
        }
        let next = self.presence.next_missing(self.hashed / BLOCK)?;
        self.sum_of(next).map(|_| next)
    }

    /// The CRC of a block that was written or checked, even if it is gone.
    pub(super) fn sum_of(&self, block: u64) -> Option<u32> {
        // An index of a Vec, if it is one.
        let sum = self.sums.get(block as usize).copied();
        sum.filter(|sum| *sum != 0)
    }

    /// Notes the CRC of a block. False, and nothing is done, if it had another one.
    pub(super) fn note_sum(&mut self, block: u64, crc: u32) -> bool {
        if let Some(known) = self.sum_of(block) {
            return known == crc;
        }
        if self.checked {
            if self.sums.is_empty() {
                self.sums = vec![0; blocks_in(self.size) as usize];
            }
            if let Some(sum) = self.sums.get_mut(block as usize) {
                *sum = crc;
            }
        }
        true
    }

    /// What readers saw of a block was wrong: another one may come in its place. Of one that is still coming nothing more is
    /// shown.
    pub(super) fn doubt(&mut self, block: u64) {
        self.forget_sum(block);
        let generation = self.generation;
        for fetch in &mut self.fetches {
            let is_it = fetch
                .filling
                .as_ref()
                .is_some_and(|filling| filling.block == block);
            fetch.doubted |= is_it && fetch.shown && fetch.generation == generation;
        }
    }

    /// Another block may come in the place of this one, and of what came of it.
    pub(super) fn forget_sum(&mut self, block: u64) {
        self.forget_half(block);
        if let Some(sum) = self.sums.get_mut(block as usize) {
            *sum = 0;
        }
        // A thread that hashes may have it in hand.
        if self.hashed > block * BLOCK || self.hasher != Hasher::Idle {
            self.forget_hash();
        }
    }

    /// Forgets what was hashed, also what a thread has in hand.
    pub(super) fn forget_hash(&mut self) {
        self.hash_age += 1;
        self.hash = None;
        self.fresh.clear_copies();
        self.hashed = 0;
        self.behind = self.end_of_run_from(0);
        self.proved = false;
    }

    /// Forgets all that was known of the bytes of a copy.
    pub(super) fn forget_bytes(&mut self) {
        self.forget_hash();
        self.fresh.clear();
        self.sums = Vec::new();
        self.halves = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::state_with;
    use super::*;

    #[test]
    fn a_block_has_one_sum_until_the_copy_is_another() {
        let mut state = state_with(&[]);
        assert!(state.note_sum(1, 7) && state.note_sum(1, 7) && !state.note_sum(1, 8));
        assert_eq!(
            (state.sum_of(0), state.sum_of(1), state.sum_of(9)),
            (None, Some(7), None)
        );
        state.forget_bytes();
        assert!(state.note_sum(1, 8));
    }

    #[test]
    fn what_follows_the_hash_without_a_gap_stays() {
        let mut state = state_with(&[0, 1, 3]);
        assert_eq!(state.unhashed(), 0..2);
        state.hasher = Hasher::Leaves;
        assert_eq!(state.unhashed(), 0..u64::MAX);
        state.hashed = 2 * BLOCK;
        assert!(state.unhashed().is_empty(), "what was hashed may go");
        state.proved = true;
        state.hashed = 0;
        assert!(state.unhashed().is_empty());
    }

    #[test]
    fn downloads_are_ahead_of_the_hash_by_what_they_bring_only() {
        let place = state_with(&[]).place;
        let mut state = State::new(place, 1000 * BLOCK, true);
        let come = |state: &mut State, blocks: Range<u64>| {
            for block in blocks {
                state.presence.set(block, true);
                state.note_gap_closed(block);
            }
        };
        come(&mut state, 0..100);
        state.begin_to_hash();
        assert!(!state.runs_away(), "it was there before");
        come(&mut state, 100..100 + MOST_UNHASHED);
        assert!(!state.runs_away());
        come(&mut state, 132..133);
        assert!(state.runs_away());
        state.hashed = 101 * BLOCK;
        assert!(!state.runs_away());
        come(&mut state, 200..300);
        come(&mut state, 133..199);
        assert!(state.runs_away());
        come(&mut state, 199..200);
        assert!(!state.runs_away(), "a gap closed before a long stretch");
        come(&mut state, 300..333);
        assert!(state.runs_away());
        state.forget_hash();
        assert!(!state.runs_away(), "all of it is to be hashed again");
    }
}
