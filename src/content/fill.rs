//! What a download does with the bytes that come: onto the disk, past the hash, out to those who wait.
//!
//! The second half of `fetch.rs`, on the same threads. Nothing here may wait for the network, and no file data be read or
//! written under the content's lock.

use std::sync::Arc;
use std::time::Instant;

use super::blocks::{BLOCK, Blocks, ReadFault, span_of};
use super::fetch::{Break, Fetcher, Filler};
use super::file::stopping;
use super::state::{Copy, Filling};
use super::verify::OrderedHash;
use super::{Identity, Result};
use crate::error::{Error, Kind};

/// How many blocks to hash from the disk beside each block written, and before looking up at the end.
const CATCH_UP: u64 = 2;
const CATCH_UP_AT_END: u64 = 64;

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
        self.store.make_room(self.content, end - start);
        self.filler = Some(Filler {
            block,
            filled: 0,
            crc: crc32fast::Hasher::new(),
        });
        Ok(())
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
        if let Some(hash) = &mut self.hash {
            hash.feed(at, bytes);
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
                fetch.received = received;
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
            self.catch_up(block, blocks);
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
        let completes = !state.presence.has(block) && state.presence.missing() == 1;
        if completes && state.checked && !verified {
            return Ok(false);
        }
        state.presence.set(block, true);
        if completes && let Copy::Partial(blocks) = &state.copy {
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
        self.take_hash(blocks);
        let removals = blocks.removals();
        let mut hash = match self.hash.take() {
            Some(hash) if hash.holds(removals) => hash,
            _ => OrderedHash::new(removals),
        };
        while hash.position() < self.size {
            if self.store.is_stopping() {
                return Err(Break::Failed(stopping()));
            }
            let before = hash.position();
            let caught_up = hash.catch_up(self.size, CATCH_UP_AT_END, |at| self.read_back(at, block, blocks));
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
        if blocks.removals() != removals {
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
        let noted = blocks.mark(block, crc).and_then(|()| blocks.set_verified(true));
        if let Err(error) = noted {
            log::warn!("cache: the map of {}: {error}", self.content.stem);
        }
        self.store.forget_mismatch(&self.content.stem);
        self.settle(block, true)?;
        Ok(())
    }

    /// Reads a block for the hash; what an earlier daemon wrote is compared with its CRC. `fresh` was written just now.
    fn read_back(&self, block: u64, fresh: u64, blocks: &Blocks) -> Result<Vec<u8>, ReadFault> {
        if block != fresh && !self.content.lock().presence.is_trusted(block) {
            return blocks.read_checked(block);
        }
        let (start, end) = span_of(block, self.size);
        Ok(blocks.read(start, (end - start) as usize)?)
    }

    /// Takes the hash, if no other download of this content has it.
    pub(super) fn take_hash(&mut self, blocks: &Blocks) {
        if self.hash.is_none() {
            let mut state = self.content.lock();
            let kept = state.hash.take();
            if state.checked {
                self.hash = Some(kept.unwrap_or_else(|| OrderedHash::new(blocks.removals())));
            }
        }
    }

    /// Hashes blocks that came before their turn, a few at a time, so that little is left to do at the end.
    fn catch_up(&mut self, done: u64, blocks: &Blocks) {
        let Some(mut hash) = self.hash.take() else { return };
        let next = hash.position() / BLOCK;
        let is_there = {
            let state = self.content.lock();
            (next..next + CATCH_UP).all(|block| state.presence.has(block))
        };
        // If it can't be read, the end will tell.
        if next < done && is_there {
            let end = self.size;
            let _ = hash.catch_up(end, CATCH_UP, |block| self.read_back(block, done, blocks));
        }
        self.hash = Some(hash);
    }
}
