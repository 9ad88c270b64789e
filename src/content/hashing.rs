//! The thread that hashes a file while it is fetched: it follows the bytes that are there without a gap, from the disk.
//!
//! Started by `fetch.rs`, one for each content at most. Network threads bring blocks in any order and hash nothing. What
//! comes is handed over in memory (`fresh.rs`); for what has no room there, reading back what was written a moment ago
//! costs a copy from the page cache, a tenth of what its MD5 does.
//! Whoever brings the last block takes the hash over and hashes what is left (`fill.rs`).
//!
//! The hash is either in the state or, for a few blocks at a time, on this thread. No lock is held while hashing. What was
//! hashed may be given back: the state keeps the CRC of each block, and takes nothing else in its place.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::blocks::{BLOCK, Blocks, ReadFault};
use super::file::Content;
use super::fresh::Pieces;
use super::state::{Hasher, State};
use super::verify::OrderedHash;

/// Reads blocks and feeds a hash.
const STACK: usize = 256 * 1024;

/// How many blocks to hash before looking up: about 3 ms, which is what a waiting last block may have to wait for.
const STEP: u64 = 8;

/// How long to wait for the next block before looking whether anything is still fetched. All that matters is announced;
/// this is for what is not.
const LOOK: Duration = Duration::from_secs(1);

/// Starts the thread, unless it runs or there is nothing to compare with.
pub(super) fn start(content: &Arc<Content>, blocks: &Arc<Blocks>) {
    {
        let mut state = content.lock();
        if !state.checked || state.proved || state.hasher != Hasher::Idle {
            return;
        }
        state.begin_to_hash();
    }
    let (follower, blocks) = (Arc::clone(content), Arc::clone(blocks));
    let started = thread::Builder::new()
        .name("rdmfs-hash".into())
        .stack_size(STACK)
        .spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| follow(&follower, &blocks))).is_err() {
                log::error!("hashing {} panicked", follower.stem);
                let mut state = follower.lock();
                state.forget_hash();
                end(&mut state);
            }
            follower.announce_hash();
        });
    if let Err(error) = started {
        // The last block's thread hashes all of it then.
        log::warn!("can't start a thread to hash {}: {error}", content.stem);
        content.lock().hasher = Hasher::Idle;
        content.announce_hash();
    }
}

/// Hashes until nothing is fetched any more, the hash is wanted, or the copy is another.
fn follow(content: &Arc<Content>, blocks: &Arc<Blocks>) {
    while let Some((mut taken, step)) = next_step(content, blocks) {
        let hash = &mut taken.hash;
        let result = match step {
            Step::InMemory(blocks) => {
                for pieces in blocks {
                    pieces.each(|offset, bytes| hash.feed(offset, bytes));
                }
                Ok(())
            }
            Step::OnDisk(most) => {
                hash.catch_up(content.size(), most, |block| read_back(content, block, blocks))
            }
        };
        let mut state = content.lock();
        if !state.blocks().is_some_and(|now| Arc::ptr_eq(now, blocks)) {
            end(&mut state);
            return;
        }
        // What was hashed before a block that can't be read counts, and goes on when that one came again.
        taken.give_back(&mut state);
        if let Err(fault) = &result {
            end(&mut state);
            if let ReadFault::Damaged(block) = fault {
                log::warn!("cache: block {block} of {} is damaged", content.stem);
                let lost = state.lose(*block);
                content.store.ledger().give_back(lost);
            }
            return;
        }
        drop(state);
        content.announce_hash();
    }
}

/// The thread counts as ended.
fn end(state: &mut State) {
    state.hasher = Hasher::Idle;
    state.fresh.clear_copies();
}

/// Blocks to go on with.
pub(super) enum Step {
    /// These.
    InMemory(Vec<Arc<Pieces>>),
    /// So many.
    OnDisk(u64),
}

/// Waits for blocks that continue the hash, and takes it, with what there is. If there is nothing to wait for, the thread
/// counts as ended.
pub(super) fn next_step(content: &Content, blocks: &Arc<Blocks>) -> Option<(Taken, Step)> {
    let mut state = content.lock();
    loop {
        let is_current = state.blocks().is_some_and(|now| Arc::ptr_eq(now, blocks));
        let is_over = state.fetches.is_empty() || state.is_complete() || content.store.is_stopping();
        if !is_current || is_over || state.hasher != Hasher::Follows {
            end(&mut state);
            return None;
        }
        let next = state.hash.as_ref().map_or(0, |hash| hash.position() / BLOCK);
        let in_memory = state.fresh.take(next, STEP);
        // Those that are in memory come after what is not.
        let end = (next + STEP).min(state.fresh.first(next).unwrap_or(u64::MAX));
        let there = (next..end).take_while(|block| state.presence.has(*block)).count() as u64;
        if there > 0 || !in_memory.is_empty() {
            let step = match in_memory.is_empty() {
                true => Step::OnDisk(there),
                false => Step::InMemory(in_memory),
            };
            return Some((take(&mut state), step));
        }
        content.wait_for_bytes(&mut state, LOOK);
    }
}

/// Takes the hash as far as it got, or begins one.
pub(super) fn take(state: &mut State) -> Taken {
    let hash = state.hash.take().unwrap_or_else(|| {
        state.hashed = 0;
        OrderedHash::new()
    });
    Taken {
        hash,
        age: state.hash_age,
    }
}

/// The hash in the hands of a thread.
pub(super) struct Taken {
    pub(super) hash: OrderedHash,
    /// The state's `hash_age` when it was taken.
    pub(super) age: u64,
}

impl Taken {
    /// Goes back as far as it got, unless it was forgotten meanwhile.
    pub(super) fn give_back(self, state: &mut State) {
        if self.age == state.hash_age {
            state.hashed = self.hash.position();
            state.hash = Some(self.hash);
        }
    }
}

/// Reads a block for the hash. What the disk made of it since it came is not hashed, and not what was not served.
pub(super) fn read_back(content: &Content, block: u64, blocks: &Arc<Blocks>) -> Result<Vec<u8>, ReadFault> {
    let sole = content.lock().fresh.sole(block).cloned();
    if let Some(pieces) = sole {
        let mut bytes = Vec::with_capacity(BLOCK as usize);
        pieces.append_to(&mut bytes, 0, u64::MAX);
        return Ok(bytes);
    }
    let (bytes, crc) = blocks.read_summed(block)?;
    let mut state = content.lock();
    let is_current = state.blocks().is_some_and(|now| Arc::ptr_eq(now, blocks));
    // Of a block that was taken away meanwhile these bytes may be doubted: another one may come.
    let is_same = match state.presence.has(block) {
        true => state.note_sum(block, crc),
        false => state.sum_of(block).is_none_or(|sum| sum == crc),
    };
    if is_current && !is_same {
        return Err(ReadFault::Damaged(block));
    }
    Ok(bytes)
}
