//! What a download does with the bytes that come: onto the disk, past the hash, out to those who wait.
//!
//! The second half of `fetch.rs`, on the same threads. Nothing here may wait for the network, and no file data be read or
//! written under the content's lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::blocks::{BLOCK, Blocks, ReadFault, span_of};
use super::fetch::{Break, Fetcher, Filler};
use super::file::stopping;
use super::hashing;
use super::state::{Copy, Filling, Hasher};
use super::verify::OrderedHash;
use super::{Identity, Result};
use crate::error::{Error, Kind};

/// How many blocks to hash before looking up, once the last one came.
const CATCH_UP_AT_END: u64 = 64;

/// How long a download waits for the hash of a file without room, to go on then. Longer than hashing all that is there
/// takes.
const LONGEST_WAIT_FOR_HASH: Duration = Duration::from_secs(10);

/// How long to wait for the thread that hashes before telling it again to end.
const LONGEST_STEP: Duration = Duration::from_secs(1);

impl Fetcher<'_> {
    /// Writes a piece: blocks that are missing and not another's, the rest passes.
    pub(super) fn take(&mut self, mut offset: u64, piece: &[u8], blocks: &Arc<Blocks>) -> Result<(), Break> {
        let mut rest = piece;
        while !rest.is_empty() {
            let block = offset / BLOCK;
            let (start, end) = span_of(block, self.size);
            let length = ((end - offset) as usize).min(rest.len());
            let (mut now, later) = rest.split_at(length);
            if self.filler.is_none() && offset == start {
                self.begin(block)?;
            }
            if let Some(filler) = &mut self.filler
                && filler.block == block
            {
                // What is there already comes again when a whole file is sent where the rest was asked for.
                let known = filler.position().saturating_sub(offset).min(now.len() as u64);
                now = &now[known as usize..];
                let at = filler.position();
                if !now.is_empty() {
                    self.write(blocks, at, now)?;
                }
                if self.filler.as_ref().is_some_and(|f| f.position() == end) {
                    self.finish(blocks)?;
                }
            }
            offset += length as u64;
            rest = later;
        }
        self.publish(offset);
        Ok(())
    }

    /// Takes a block on, if it is missing and nobody else writes it.
    fn begin(&mut self, block: u64) -> Result<(), Break> {
        {
            let mut state = self.content.lock();
            if state.generation != self.generation {
                return Err(Break::Stop);
            }
            let is_mine = !state.presence.has(block) && !state.is_claimed(block, self.id);
            let Some(fetch) = state.fetch(self.id) else {
                return Err(Break::Stop);
            };
            fetch.position = block * BLOCK;
            if !is_mine {
                return Ok(());
            }
            fetch.filling = Some(Filling { block, filled: 0 });
        }
        let (start, end) = span_of(block, self.size);
        self.wait_for_hash(start);
        self.store.make_room(self.content, end - start);
        self.filler = Some(Filler {
            block,
            filled: 0,
            crc: crc32fast::Hasher::new(),
        });
        Ok(())
    }

    /// What is not hashed yet can't be dropped, so a file without room must not run away from its hash.
    fn wait_for_hash(&self, position: u64) {
        let most = self.store.limits().most / 2;
        let until = Instant::now() + LONGEST_WAIT_FOR_HASH;
        let mut state = self.content.lock();
        while state.first_unhashed().is_some()
            && position.saturating_sub(state.hashed) > most
            && Instant::now() < until
            && !self.store.is_stopping()
        {
            self.content.wait_for_bytes(&mut state, LONGEST_STEP);
        }
    }

    fn write(&mut self, blocks: &Blocks, at: u64, bytes: &[u8]) -> Result<(), Break> {
        if let Err(error) = blocks.write(at, bytes) {
            let error = Error::local(format!("write {} to the cache", self.content.stem), &error);
            if error.kind() != Kind::DiskFull || !self.store.make_room_on_full_disk(self.content) {
                return Err(Break::Failed(error));
            }
            blocks
                .write(at, bytes)
                .map_err(|error| Error::local(format!("write {} to the cache", self.content.stem), &error))?;
        }
        self.written += bytes.len() as u64;
        if let Some(filler) = &mut self.filler {
            filler.crc.update(bytes);
            filler.filled += bytes.len() as u64;
        }
        Ok(())
    }

    /// Tells readers how far the bytes are.
    fn publish(&self, position: u64) {
        let ready = {
            let mut state = self.content.lock();
            state.progress = Instant::now();
            let filled = self.filler.as_ref().map(|filler| Filling {
                block: filler.block,
                filled: filler.filled,
            });
            let received = self.received;
            if let Some(fetch) = state.fetch(self.id) {
                fetch.position = fetch.position.max(position);
                fetch.filling = filled;
                let more = received.saturating_sub(fetch.received);
                fetch.received = received;
                let now = state.progress;
                state.meter.note(more, now);
            }
            state.take_ready()
        };
        for ask in ready {
            self.content.attempt(ask);
        }
    }

    /// The block is written: it is there, unless it completes the file. Then the checksum comes first.
    fn finish(&mut self, blocks: &Arc<Blocks>) -> Result<(), Break> {
        let Some(filler) = self.filler.take() else {
            return Ok(());
        };
        let (block, crc) = (filler.block, filler.crc.finalize());
        if !self.settle(block, false)? {
            self.complete(block, crc, blocks)?;
        } else {
            if let Err(error) = blocks.mark(block, crc) {
                // It is served while the file is open, and fetched again by the next.
                log::warn!("cache: the map of {}: {error}", self.content.stem);
            }
            self.content.announce_hash();
        }
        Ok(())
    }

    /// The block is there from now on. False, and nothing is done, if it completes a file with a checksum and the
    /// file is not `verified` yet.
    fn settle(&mut self, block: u64, verified: bool) -> Result<bool, Break> {
        let mut state = self.content.lock();
        if state.generation != self.generation {
            return Err(Break::Stop);
        }
        if !verified && state.checked && state.completes(block) {
            return Ok(false);
        }
        state.presence.set(block, true);
        if verified {
            state.proved = true;
            state.hashed = state.size;
        }
        if state.presence.missing() == 0
            && let Copy::Partial(blocks) = &state.copy
        {
            state.copy = Copy::Complete(Arc::clone(blocks));
        }
        if let Some(fetch) = state.fetch(self.id) {
            fetch.filling = None;
            fetch.position = (block + 1) * BLOCK;
        }
        Ok(true)
    }

    /// Compares the checksum of the whole file, whose last block was written.
    fn complete(&mut self, block: u64, crc: u32, blocks: &Arc<Blocks>) -> Result<(), Break> {
        let Identity::Md5 { md5, .. } = self.content.identity else {
            return Ok(());
        };
        let removals = blocks.removals();
        let (has_room, proved) = {
            let state = self.content.lock();
            (state.has_room, state.proved)
        };
        let mut hash = match self.take_hash() {
            Some(hash) if hash.holds(removals) || !(has_room || proved) => hash,
            _ => OrderedHash::new(removals),
        };
        log::debug!(
            "{}: the last block came, {} bytes are to be hashed",
            self.content.stem,
            self.size - hash.position()
        );
        while hash.position() < self.size {
            if self.store.is_stopping() {
                return Err(Break::Failed(stopping()));
            }
            let before = hash.position();
            let caught_up = hash.catch_up(self.size, CATCH_UP_AT_END, |at| {
                hashing::read_back(self.content, at, Some(block), blocks)
            });
            self.content.lock().progress = Instant::now();
            match caught_up {
                Ok(()) if hash.position() > before => {}
                // The file on disk is shorter than it was made: no bytes to hash.
                Ok(()) => break,
                Err(ReadFault::Damaged(damaged)) => {
                    // An earlier daemon wrote it and the disk lost it: now that one is the last.
                    log::warn!("cache: block {damaged} of {} is damaged", self.content.stem);
                    let lost = self.content.lock().lose(damaged);
                    self.store.ledger().give_back(lost);
                    break;
                }
                Err(ReadFault::Io(error)) => {
                    let what = format!("read {} back from the cache", self.content.stem);
                    return Err(Break::Failed(Error::local(what, &error)));
                }
            }
        }
        if has_room && blocks.removals() != removals {
            if self.settle(block, false)?
                && let Err(error) = blocks.mark(block, crc)
            {
                log::warn!("cache: the map of {}: {error}", self.content.stem);
            }
            return Ok(());
        }
        let found = hash.finish();
        if found != md5 {
            self.content.mismatch(&found.to_string());
            return Err(Break::Stop);
        }
        let is_whole = self.content.lock().presence.missing() == 1;
        let noted = blocks.mark(block, crc).and_then(|()| {
            if is_whole {
                blocks.set_verified(true)
            } else {
                Ok(())
            }
        });
        if let Err(error) = noted {
            log::warn!("cache: the map of {}: {error}", self.content.stem);
        }
        self.store.forget_mismatch(&self.content.stem);
        self.settle(block, true)?;
        Ok(())
    }

    /// The hash as far as it got, if there is one. Waits for the thread that hashes to let go of it, a few blocks long.
    fn take_hash(&self) -> Option<OrderedHash> {
        let mut state = self.content.lock();
        while state.hasher != Hasher::Idle {
            state.hasher = Hasher::Leaves;
            self.content.announce_hash();
            self.content.wait_for_bytes(&mut state, LONGEST_STEP);
        }
        state.hash.take()
    }
}
