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
use super::fresh::{Fresh, Pieces};
use super::hashing;
use super::state::{Copy, Filling, Hasher, State};
use super::{Identity, Result};
use crate::error::{Error, Kind};

/// How many blocks to hash before looking up, once the last one came.
const CATCH_UP_AT_END: u64 = 64;

/// How long a download waits for the hash, to go on then, and not to wait for it again. Longer than hashing takes what
/// downloads may be ahead by.
const LONGEST_WAIT_FOR_HASH: Duration = Duration::from_secs(10);

/// How long to wait for the thread that hashes before telling it again to end.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// More pieces than this become one: each takes some memory, and may keep alive what came with it.
const MOST_PIECES: usize = 64;

/// What has to give way at least when there is no room in memory.
const ROOM_AT_ONCE: u64 = 16 * BLOCK;

/// A block that is kept in memory.
#[derive(Clone)]
pub(super) struct Held {
    pieces: Arc<Pieces>,
    /// And not on disk.
    is_sole: bool,
}

/// What became of a block that came.
pub(super) enum Settled {
    /// It is there.
    There,
    /// It completes a file that is not compared with its checksum yet, or is the last and in memory alone.
    Completes,
    /// It is the last, and others are in memory alone.
    HasSoles,
    /// It was doubted while it came, and has to come again.
    Doubted,
}

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
                if !now.is_empty() {
                    filler.pieces.push(piece.slice_ref(now));
                    if filler.pieces.len() > MOST_PIECES {
                        filler.pieces = vec![filler.pieces.concat().into()];
                    }
                    self.written += now.len() as u64;
                    self.sum(now)?;
                }
                if self
                    .filler
                    .as_ref()
                    .is_some_and(|filler| filler.position() == end)
                {
                    self.finish(blocks)?;
                }
            }
            offset += length as u64;
            rest = later;
        }
        self.publish(offset);
        Ok(())
    }

    /// Sums bytes of the block in hand. Those that were served of it before have to be the same.
    fn sum(&mut self, bytes: &[u8]) -> Result<(), Break> {
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
                filler.half = None;
                let filled = filler.filled;
                let mut state = self.content.lock();
                // Unless it was doubted meanwhile.
                let is_known = state.half_of(block).is_some();
                if is_known && !is_same {
                    drop(state);
                    let (start, end) = span_of(block, self.size);
                    self.filler = None;
                    self.store.ledger().give_back(end - start);
                    return Err(self.differs(block, filled));
                }
                state.forget_half(block);
            }
            _ => filler.crc.update(bytes),
        }
        Ok(())
    }

    /// Takes a block on, if it is missing and nobody else writes it.
    fn begin(&mut self, block: u64) -> Result<(), Break> {
        let half = {
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
            fetch.filling = Some(Filling {
                block,
                filled: 0,
                pieces: Vec::new(),
            });
            fetch.shown = false;
            fetch.doubted = false;
            state.half_of(block)
        };
        let (start, end) = span_of(block, self.size);
        self.wait_for_hash(start);
        self.store.make_room(self.content, end - start);
        self.filler = Some(Filler::new(block, half));
        Ok(())
    }

    /// A download must not run away from the hash. The last block waits for the hash of all others, which one core computes
    /// as fast as it can only if the rest leaves it that core. And what is not hashed yet can't be dropped if there is no
    /// room for the file.
    fn wait_for_hash(&mut self, position: u64) {
        if self.gave_up_on_hash {
            return;
        }
        let (content, store) = (self.content, self.store);
        let most = store.limits().most / 2;
        let until = Instant::now() + LONGEST_WAIT_FOR_HASH;
        let mut state = content.lock();
        let is_far = |state: &State| {
            state.runs_away() || (!state.has_room && position.saturating_sub(state.hashed) > most)
        };
        while state.hasher == Hasher::Follows
            && !state.unhashed().is_empty()
            && is_far(&state)
            && !store.is_stopping()
        {
            if Instant::now() >= until {
                self.gave_up_on_hash = true;
                break;
            }
            content.wait_for_bytes(&mut state, LONGEST_STEP);
        }
    }

    fn write(&self, blocks: &Blocks, at: u64, pieces: &[Bytes]) -> Result<(), Break> {
        self.with_room("write", || blocks.write(at, pieces))
    }

    /// Writes something of the copy, and once more if the disk was full and there was something to drop.
    fn with_room(&self, what: &str, write: impl Fn() -> std::io::Result<()>) -> Result<(), Break> {
        let failed = |error: &std::io::Error| {
            Error::local(format!("{what} {} in the cache", self.content.stem), error)
        };
        let Err(error) = write() else {
            return Ok(());
        };
        let error = failed(&error);
        if error.kind() != Kind::DiskFull || !self.store.make_room_on_full_disk(self.content) {
            return Err(Break::Failed(error));
        }
        write().map_err(|error| Break::Failed(failed(&error)))
    }

    /// Tells readers how far the bytes are.
    fn publish(&self, position: u64) {
        let ready = {
            let mut state = self.content.lock();
            state.progress = Instant::now();
            let filled = self.filler.as_ref().map(|filler| Filling {
                block: filler.block,
                filled: filler.filled,
                pieces: filler.pieces.clone(),
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

    /// The block came: it is there, unless it completes the file. Then the checksum comes first.
    fn finish(&mut self, blocks: &Arc<Blocks>) -> Result<(), Break> {
        let Some(filler) = self.filler.take() else {
            return Ok(());
        };
        let (start, end) = span_of(filler.block, self.size);
        let kept = self.keep(filler, blocks);
        if !matches!(kept, Ok(true)) {
            self.store.ledger().give_back(end - start);
        }
        kept.map(drop)
    }

    /// Tells whether the block is there now.
    fn keep(&mut self, filler: Filler, blocks: &Arc<Blocks>) -> Result<bool, Break> {
        let (block, crc) = (filler.block, filler.crc.clone().finalize());
        let mut is_written = false;
        self.compare_with_first(block, crc)?;
        let mut fresh = self.hold(&filler, crc);
        loop {
            if !fresh.as_ref().is_some_and(|fresh| fresh.is_sole) && !is_written {
                self.write(blocks, block * BLOCK, &filler.pieces)?;
                // Before anybody reads it back and compares.
                self.mark(block, crc, blocks)?;
                is_written = true;
            }
            match self.settle(block, None, fresh.clone())? {
                Settled::There => break,
                Settled::HasSoles => self.write_soles(blocks)?,
                Settled::Doubted => return Ok(self.leave_out(block, blocks)),
                Settled::Completes => match &mut fresh {
                    // It is read back from the disk.
                    Some(fresh) if fresh.is_sole => fresh.is_sole = false,
                    _ => return self.complete(block, blocks),
                },
            }
        }
        self.note_complete(blocks);
        self.content.announce_hash();
        Ok(true)
    }

    /// Keeps a block in memory, if there is room: for the hash that will come there soon or, where nothing is kept, in the
    /// place of the disk.
    fn hold(&self, filler: &Filler, crc: u32) -> Option<Held> {
        let is_sole = self.store.keeps_nothing() && !self.store.pins().has(&self.content.stem);
        let is_for_hash = {
            let state = self.content.lock();
            state.hasher == Hasher::Follows && Fresh::is_near(filler.block, state.hashed / BLOCK)
        };
        if !is_sole && !is_for_hash {
            return None;
        }
        let room = self.store.fresh.take().or_else(|| {
            // What was passed gives way, in a file of which it would go sooner or later.
            let may_go = is_sole && !self.content.lock().has_room;
            let freed = may_go && self.store.punch_behind(self.content, ROOM_AT_ONCE) > 0;
            freed.then(|| self.store.fresh.take()).flatten()
        })?;
        Some(Held {
            pieces: Pieces::new(filler.block, filler.pieces.clone(), crc, room),
            is_sole,
        })
    }

    /// Writes what is in memory alone: the copy is about to be complete, and such a copy is read from the disk.
    fn write_soles(&self, blocks: &Blocks) -> Result<(), Break> {
        let soles = self.content.lock().fresh.soles(0..u64::MAX);
        for pieces in soles {
            self.write(blocks, pieces.block * BLOCK, &pieces.pieces)?;
            self.mark(pieces.block, pieces.crc, blocks)?;
            let mut state = self.content.lock();
            if state.generation == self.generation {
                state.fresh.is_written(pieces.block);
            }
        }
        Ok(())
    }

    fn mark(&self, block: u64, crc: u32, blocks: &Blocks) -> Result<(), Break> {
        self.with_room("write the map of", || blocks.mark(block, crc))
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
        let (start, end) = span_of(block, self.size);
        Err(self.differs(block, end - start))
    }

    /// A block that was there before, or the beginning of it, came as another one: so many bytes of it.
    fn differs(&mut self, block: u64, came: u64) -> Break {
        let start = block * BLOCK;
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
            self.written -= came;
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

    /// The block is there from now on, unless something has to be done before. All of the file is right with it if it was
    /// `verified` by a hash of this age, and no byte was doubted since.
    pub(super) fn settle(
        &self,
        block: u64,
        verified: Option<u64>,
        fresh: Option<Held>,
    ) -> Result<Settled, Break> {
        let mut state = self.content.lock();
        if state.generation != self.generation {
            return Err(Break::Stop);
        }
        if let Some(fetch) = state.fetch(self.id)
            && std::mem::take(&mut fetch.doubted)
        {
            fetch.filling = None;
            fetch.position = (block + 1) * BLOCK;
            state.forget_sum(block);
            return Ok(Settled::Doubted);
        }
        let verified = verified == Some(state.hash_age);
        if !verified && state.checked && state.completes(block) {
            return Ok(Settled::Completes);
        }
        let is_last = state.presence.missing() == 1 && !state.presence.has(block);
        let is_sole = fresh.as_ref().is_some_and(|fresh| fresh.is_sole);
        if is_last && (is_sole || state.fresh.has_soles()) {
            return Ok(if is_sole {
                Settled::Completes
            } else {
                Settled::HasSoles
            });
        }
        state.presence.set(block, true);
        state.note_gap_closed(block);
        if let Some(Held { pieces, is_sole }) = fresh
            && (is_sole || state.hasher == Hasher::Follows)
        {
            state.fresh.put(pieces, is_sole);
        }
        if verified {
            state.proved = true;
            state.hashed = state.size;
        }
        if state.presence.missing() == 0
            && let Copy::Partial(blocks) = &state.copy
        {
            state.copy = Copy::Complete(Arc::clone(blocks));
            // All of it is on disk, and nothing is left to be hashed.
            state.fresh.clear();
            // Nothing is fetched ahead for them any more.
            for reading in state.readers.values_mut() {
                reading.share = None;
            }
        }
        if let Some(fetch) = state.fetch(self.id) {
            fetch.filling = None;
            fetch.position = (block + 1) * BLOCK;
        }
        Ok(Settled::There)
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
            return self.settle_last(block, None, blocks);
        }
        let Some(hashing::Taken { hash, age }) = ending.taken.take() else {
            return Ok(false);
        };
        let found = hash.finish();
        if found != md5 {
            if self.content.lock().hash_age != age {
                // Bytes of it were doubted meanwhile, and come again.
                drop(ending);
                return self.settle_last(block, None, blocks);
            }
            self.content.mismatch(&format!("has the MD5 {found}"));
            return Err(Break::Stop);
        }
        self.store.forget_mismatch(&self.content.stem);
        let is_there = self.settle_last(block, Some(age), blocks)?;
        self.note_complete(blocks);
        Ok(is_there)
    }

    /// Settles a block that is on disk. Tells whether it is there now.
    fn settle_last(&self, block: u64, verified: Option<u64>, blocks: &Blocks) -> Result<bool, Break> {
        loop {
            match self.settle(block, verified, None)? {
                Settled::There => return Ok(true),
                Settled::HasSoles => self.write_soles(blocks)?,
                Settled::Doubted => return Ok(self.leave_out(block, blocks)),
                Settled::Completes => return Ok(false),
            }
        }
    }

    /// A block that was written is not kept, and whoever waits for it is fetched for anew. False: it is not there.
    fn leave_out(&self, block: u64, blocks: &Blocks) -> bool {
        if let Err(error) = blocks.unmark(block) {
            log::warn!("cache: the map of {}: {error}", self.content.stem);
        }
        self.content.replan();
        false
    }

    /// Hashes to the end of the file. Tells a block that is not what it was.
    fn hash_rest(&self, ending: &mut Ending<'_>, blocks: &Arc<Blocks>) -> Result<Option<u64>, Break> {
        let Some(hashing::Taken { hash, .. }) = &mut ending.taken else {
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
            taken: Some(hashing::take(&mut state)),
        }
    }
}

/// The hash with the thread that ends it. Nobody else begins one meanwhile, and what is not hashed stays. Unless all of it
/// was right, it goes back as far as it got.
struct Ending<'a> {
    content: &'a Content,
    taken: Option<hashing::Taken>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        {
            let mut state = self.content.lock();
            state.hasher = Hasher::Idle;
            match self.taken.take() {
                Some(taken) => taken.give_back(&mut state),
                None if !state.proved => state.forget_hash(),
                None => {}
            }
        }
        self.content.announce_hash();
    }
}

#[cfg(test)]
mod tests;
