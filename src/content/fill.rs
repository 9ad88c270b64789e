//! What a download does with the bytes that come: onto the disk, past the hash, out to those who wait.
//!
//! The second half of `fetch.rs`, on the same threads. Nothing here may wait for the network, and no file data be read or
//! written under the content's lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::blocks::{BLOCK, Blocks, ReadFault, span_of};
use super::fetch::{Break, Fetcher, Filler};
use super::file::{Content, stopping};
use super::fresh::Pieces;
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
    pub(super) fn take(&mut self, mut offset: u64, piece: &Bytes, blocks: &Arc<Blocks>) -> Result<(), Break> {
        let mut rest = &piece[..];
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
                    if let Some(pieces) = self.filler.as_mut().and_then(|filler| filler.pieces.as_mut()) {
                        pieces.push(piece.slice_ref(now));
                    }
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
        let (pieces, half) = {
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
            fetch.shown = false;
            let hashed = state.hashed / BLOCK;
            let pieces = match state.hasher {
                Hasher::Follows => state.fresh.collect(block, hashed, &self.store.fresh),
                Hasher::Idle | Hasher::Leaves => None,
            };
            (pieces, state.half_of(block))
        };
        let (start, end) = span_of(block, self.size);
        self.wait_for_hash(start);
        self.store.make_room(self.content, end - start);
        self.filler = Some(Filler {
            block,
            filled: 0,
            crc: crc32fast::Hasher::new(),
            pieces,
            half,
        });
        Ok(())
    }

    /// What is not hashed yet can't be dropped, so a file without room must not run away from its hash.
    fn wait_for_hash(&self, position: u64) {
        let most = self.store.limits().most / 2;
        let until = Instant::now() + LONGEST_WAIT_FOR_HASH;
        let mut state = self.content.lock();
        while !state.has_room
            && state.hasher == Hasher::Follows
            && !state.unhashed().is_empty()
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
        let Some(filler) = &mut self.filler else {
            return Ok(());
        };
        filler.filled += bytes.len() as u64;
        let block = filler.block;
        match filler.half {
            Some(half) if filler.filled >= half.length => {
                // No longer than these bytes, or it would have been compared with those before.
                let beyond = (filler.filled - half.length) as usize;
                let (again, rest) = bytes.split_at(bytes.len() - beyond);
                filler.crc.update(again);
                let is_same = filler.crc.clone().finalize() == half.crc;
                filler.crc.update(rest);
                if !is_same {
                    return Err(self.differs(block));
                }
                filler.half = None;
                self.content.lock().forget_half(block);
            }
            _ => filler.crc.update(bytes),
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
        let kept = self.keep(filler.block, filler.crc.finalize(), filler.pieces, blocks);
        if !matches!(kept, Ok(true)) {
            let (start, end) = span_of(filler.block, self.size);
            self.store.ledger().give_back(end - start);
        }
        kept.map(drop)
    }

    /// Tells whether the block is there now.
    fn keep(
        &mut self,
        block: u64,
        crc: u32,
        pieces: Option<Pieces>,
        blocks: &Arc<Blocks>,
    ) -> Result<bool, Break> {
        self.compare_with_first(block, crc)?;
        // Before anybody reads it back and compares.
        self.mark(block, crc, blocks)?;
        if !self.settle(block, false, pieces)? {
            return self.complete(block, blocks);
        }
        self.note_complete(blocks);
        self.content.announce_hash();
        Ok(true)
    }

    fn mark(&self, block: u64, crc: u32, blocks: &Blocks) -> Result<(), Break> {
        let what = || format!("write the map of {} in the cache", self.content.stem);
        let Err(error) = blocks.mark(block, crc) else {
            return Ok(());
        };
        let error = Error::local(what(), &error);
        if error.kind() != Kind::DiskFull || !self.store.make_room_on_full_disk(self.content) {
            return Err(Break::Failed(error));
        }
        let again = blocks.mark(block, crc);
        again.map_err(|error| Break::Failed(Error::local(what(), &error)))
    }

    /// A block that was there before has to be what it was: it may have been served, or hashed.
    fn compare_with_first(&mut self, block: u64, crc: u32) -> Result<(), Break> {
        {
            let mut state = self.content.lock();
            if state.generation != self.generation {
                return Err(Break::Stop);
            }
            if state.note_sum(block, crc) {
                return Ok(());
            }
        }
        Err(self.differs(block))
    }

    /// A block that was there before, or the beginning of it, came as another one.
    fn differs(&mut self, block: u64) -> Break {
        let (start, end) = span_of(block, self.size);
        let (place, proved) = {
            let mut state = self.content.lock();
            if state.generation != self.generation {
                return Break::Stop;
            }
            if let Some(fetch) = state.fetch(self.id) {
                fetch.filling = None;
                fetch.position = start;
            }
            (state.place.clone(), state.proved)
        };
        let what = format!("sent other bytes for block {block} than before");
        if proved {
            // What was there was right, so this is not, and nobody has seen it.
            self.written -= end - start;
            let what = format!("{place} {what}");
            return Break::Broken(Error::new(Kind::Corrupt, what));
        }
        self.content.mismatch(&what);
        Break::Stop
    }

    /// If all is there and was compared, the map says so.
    fn note_complete(&self, blocks: &Blocks) {
        let is_verified = {
            let state = self.content.lock();
            state.checked && state.is_complete()
        };
        if !is_verified {
            return;
        }
        if let Err(error) = blocks.set_verified(true) {
            log::warn!("cache: the map of {}: {error}", self.content.stem);
        }
        self.content.compare_later();
    }

    /// The block is there from now on. False, and nothing is done, if it completes a file with a checksum and the
    /// file is not `verified` yet.
    fn settle(&self, block: u64, verified: bool, pieces: Option<Pieces>) -> Result<bool, Break> {
        let mut state = self.content.lock();
        if state.generation != self.generation {
            return Err(Break::Stop);
        }
        if !verified && state.checked && state.completes(block) {
            return Ok(false);
        }
        state.presence.set(block, true);
        if let (Hasher::Follows, Some(pieces)) = (state.hasher, pieces) {
            state.fresh.push(pieces);
        }
        if verified {
            state.proved = true;
            state.hashed = state.size;
        }
        if state.presence.missing() == 0
            && let Copy::Partial(blocks) = &state.copy
        {
            state.copy = Copy::Complete(Arc::clone(blocks));
            // Nothing is fetched ahead for them any more.
            for reading in state.readers.values_mut() {
                reading.share = None;
            }
        }
        if let Some(fetch) = state.fetch(self.id) {
            fetch.filling = None;
            fetch.position = (block + 1) * BLOCK;
        }
        Ok(true)
    }

    /// Compares the checksum of the whole file, whose last block was written. Tells whether the block is there now.
    fn complete(&self, block: u64, blocks: &Arc<Blocks>) -> Result<bool, Break> {
        let Identity::Md5 { md5, .. } = self.content.identity else {
            return Ok(false);
        };
        let mut ending = self.take_hash();
        log::debug!("{}: the last block came", self.content.stem);
        let damaged = match self.hash_rest(&mut ending, blocks)? {
            None => None,
            Some(damaged) if damaged == block => {
                let what = format!("the cache lost what was just written of {}", self.content.stem);
                return Err(Break::Failed(Error::new(Kind::Local(libc::EIO), what)));
            }
            damaged => damaged,
        };
        if let Some(damaged) = damaged {
            // The disk lost it: now that one is the last.
            log::warn!("cache: block {damaged} of {} is damaged", self.content.stem);
            drop(ending);
            let lost = self.content.lock().lose(damaged);
            self.store.ledger().give_back(lost);
            return self.settle(block, false, None);
        }
        let Some(hash) = ending.hash.take() else {
            return Ok(false);
        };
        let found = hash.finish();
        if found != md5 {
            self.content.mismatch(&format!("has the MD5 {found}"));
            return Err(Break::Stop);
        }
        self.store.forget_mismatch(&self.content.stem);
        self.settle(block, true, None)?;
        self.note_complete(blocks);
        Ok(true)
    }

    /// Hashes to the end of the file. Tells a block that is not what it was.
    fn hash_rest(&self, ending: &mut Ending<'_>, blocks: &Arc<Blocks>) -> Result<Option<u64>, Break> {
        let Some(hash) = &mut ending.hash else {
            return Ok(None);
        };
        while hash.position() < self.size {
            if self.store.is_stopping() {
                return Err(Break::Failed(stopping()));
            }
            let before = hash.position();
            let caught_up = hash.catch_up(self.size, CATCH_UP_AT_END, |at| {
                hashing::read_back(self.content, at, blocks)
            });
            self.content.lock().progress = Instant::now();
            match caught_up {
                Ok(()) if hash.position() > before => {}
                // A block shorter than its place.
                Ok(()) => return Ok(Some(before / BLOCK)),
                Err(ReadFault::Damaged(damaged)) => return Ok(Some(damaged)),
                Err(ReadFault::Io(error)) => {
                    let what = format!("read {} back from the cache", self.content.stem);
                    return Err(Break::Failed(Error::local(what, &error)));
                }
            }
        }
        Ok(None)
    }

    /// The hash as far as it got, if there is one. Waits for the thread that hashes to let go of it, a few blocks long.
    fn take_hash(&self) -> Ending<'_> {
        let mut state = self.content.lock();
        while state.hasher != Hasher::Idle {
            state.hasher = Hasher::Leaves;
            self.content.announce_hash();
            self.content.wait_for_bytes(&mut state, LONGEST_STEP);
        }
        state.hasher = Hasher::Leaves;
        Ending {
            content: self.content,
            generation: state.generation,
            hash: Some(hashing::take(&mut state)),
        }
    }
}

/// The hash with the thread that ends it. Nobody else begins one meanwhile, and what is not hashed stays. Unless all of it
/// was right, it goes back as far as it got.
struct Ending<'a> {
    content: &'a Content,
    generation: u64,
    hash: Option<OrderedHash>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        {
            let mut state = self.content.lock();
            state.hasher = Hasher::Idle;
            if state.generation == self.generation && !state.proved {
                match self.hash.take() {
                    Some(hash) => {
                        state.hashed = hash.position();
                        state.hash = Some(hash);
                    }
                    None => state.forget_hash(),
                }
            }
        }
        self.content.announce_hash();
    }
}
