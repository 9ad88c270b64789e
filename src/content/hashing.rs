//! The thread that hashes a file while it is fetched: it follows the bytes that are there without a gap, from the disk.
//!
//! Started by `fetch.rs`, one for each content at most. Network threads bring blocks in any order and hash nothing; the
//! blocks were written a moment ago, so reading them back costs a copy from the page cache, a tenth of what their MD5 does.
//! Whoever brings the last block takes the hash over and hashes what is left (`fill.rs`).
//!
//! The hash is either in the state or, for a few blocks at a time, on this thread. No lock is held while hashing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::blocks::{BLOCK, Blocks, ReadFault, span_of};
use super::file::Content;
use super::state::Hasher;
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
        state.hasher = Hasher::Follows;
    }
    let (follower, blocks) = (Arc::clone(content), Arc::clone(blocks));
    let started = thread::Builder::new()
        .name("rdmfs-hash".into())
        .stack_size(STACK)
        .spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| follow(&follower, &blocks))).is_err() {
                log::error!("hashing {} panicked", follower.stem);
            }
            follower.lock().hasher = Hasher::Idle;
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
    while let Some((mut hash, most)) = next_step(content, blocks) {
        let end = content.size();
        let result = hash.catch_up(end, most, |block| read_back(content, block, None, blocks));
        let mut state = content.lock();
        let is_current = state.blocks().is_some_and(|now| Arc::ptr_eq(now, blocks));
        // If a block can't be read, the end will tell.
        let is_of_what_is_there = !state.has_room || hash.holds(blocks.removals());
        if !is_current || result.is_err() || !is_of_what_is_there {
            return;
        }
        state.hashed = hash.position();
        state.hash = Some(hash);
        drop(state);
        content.announce_hash();
    }
}

/// Waits for blocks that continue the hash, and takes it, with how many there are.
fn next_step(content: &Content, blocks: &Arc<Blocks>) -> Option<(OrderedHash, u64)> {
    let mut state = content.lock();
    loop {
        let is_current = state.blocks().is_some_and(|now| Arc::ptr_eq(now, blocks));
        let is_over = state.fetches.is_empty() || state.is_complete() || content.store.is_stopping();
        if !is_current || is_over || state.hasher != Hasher::Follows {
            return None;
        }
        let next = state.hash.as_ref().map_or(0, |hash| hash.position() / BLOCK);
        let there = (next..next + STEP)
            .take_while(|block| state.presence.has(*block))
            .count() as u64;
        if there > 0 {
            let removals = blocks.removals();
            let hash = match state.hash.take() {
                Some(hash) if !state.has_room || hash.holds(removals) => hash,
                // What was hashed is gone from the disk, and may come back changed.
                Some(_) => return None,
                None if removals > 0 && state.has_room => return None,
                None => OrderedHash::new(removals),
            };
            return Some((hash, there));
        }
        content.wait_for_bytes(&mut state, LOOK);
    }
}

/// Reads a block for the hash; what an earlier daemon wrote is compared with its CRC. `fresh` was written just now.
pub(super) fn read_back(
    content: &Content,
    block: u64,
    fresh: Option<u64>,
    blocks: &Blocks,
) -> Result<Vec<u8>, ReadFault> {
    if fresh != Some(block) && !content.lock().presence.is_trusted(block) {
        return blocks.read_checked(block);
    }
    let (start, end) = span_of(block, content.size());
    // A block has at most 256 KiB.
    Ok(blocks.read(start, (end - start) as usize)?)
}
