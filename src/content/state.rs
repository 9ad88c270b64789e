//! What is known of one file's bytes: what is there, who reads, who waits, what is being fetched. Data and questions.
//!
//! Lives under the lock of its `Content`; `file.rs` changes it for readers, `fetch.rs` for downloads, `plan.rs`
//! decides on it. Nothing here may wait, do I/O on data, or call a reply.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::ask::Ask;
use super::blocks::{BLOCK, Blocks, Presence, blocks_in, span_of};
use super::budget::Share;
use super::fresh::{Fresh, Pieces};
use super::meter::Meter;
use super::readahead::Pattern;
use super::stamp::Stamp;
use super::verify::OrderedHash;
use super::whole::Later;
use crate::error::Error;
use crate::repository::model::FilePlace;

/// How far before a stream a byte may lie for a reader to wait for the stream instead of asking for the byte itself:
/// what a fast line delivers in one round trip.
pub(super) const SOON: u64 = 4 * 1024 * 1024;

/// What is left of a whole stream that is worth finishing although nobody reads any more.
const WORTH_FINISHING: u64 = 64 * 1024 * 1024;

/// The copy on disk.
pub(super) enum Copy {
    /// Nobody looked yet.
    Unopened,
    /// There is none.
    Nothing,
    /// Some of it is there.
    Partial(Arc<Blocks>),
    /// All of it is there and, where there is a checksum, compared with it.
    Complete(Arc<Blocks>),
}

/// An open file.
pub(super) struct Reading {
    /// What its reads look like.
    pub(super) pattern: Pattern,
    /// Where it will stop, if before the end: nothing from there on is fetched for it before it is asked for.
    pub(super) limit: u64,
    /// Its part in the budget, while it reads on.
    pub(super) share: Option<Share>,
    /// The count of served reads, of anybody, when this copy began for this reader. If the count has moved on, the
    /// reader may have seen bytes of the copy, through the kernel's page cache even those that others asked for.
    pub(super) since: u64,
    /// Why every later read fails.
    pub(super) failed: Option<Error>,
}

impl Reading {
    /// The bytes worth having before they are asked for, within what it will read.
    pub(super) fn ahead(&self) -> Option<(u64, u64)> {
        let (position, to) = self.pattern.ahead()?;
        let to = to.min(self.limit);
        (to > position).then_some((position, to))
    }
}

/// Which bytes a download goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// The missing blocks up to and with `last`, by a range.
    Part {
        /// The last block.
        last: u64,
    },
    /// The missing blocks up to and with `last`, ahead of a reader, maybe beside others of the kind.
    Range {
        /// The last block.
        last: u64,
    },
    /// The whole file, one stream from its first byte: every reader can wait for it.
    Whole,
}

/// What the thread does that hashes the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hasher {
    /// There is none.
    Idle,
    /// It follows what comes.
    Follows,
    /// It is to end, because the last block came and its thread needs the hash, or that thread has it.
    Leaves,
}

/// A block that is coming.
#[derive(Clone, Debug)]
pub(super) struct Filling {
    /// Which.
    pub(super) block: u64,
    /// How many of its bytes came.
    pub(super) filled: u64,
    /// They. On disk the block is when it is whole, or never.
    pub(super) pieces: Vec<Bytes>,
}

/// The first bytes of a block whose download ended in its middle, when reads had been answered from them. They are in no
/// checksum, so they have to come again as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Half {
    /// Of which block.
    block: u64,
    /// How many bytes.
    pub(super) length: u64,
    /// Their CRC.
    pub(super) crc: u32,
}

/// A download.
pub(super) struct Fetch {
    /// Tells it from others of the same content.
    pub(super) id: u64,
    /// The copy it writes to.
    pub(super) generation: u64,
    /// What it goes through.
    pub(super) path: Path,
    /// The server's answer began, so that what it can do is known.
    pub(super) answered: bool,
    /// Where it began.
    pub(super) begin: u64,
    /// The next byte it deals with.
    pub(super) position: u64,
    /// The block that comes by it now.
    pub(super) filling: Option<Filling>,
    /// Reads were answered from that block.
    pub(super) shown: bool,
    /// And what they saw was doubted: it is not kept.
    pub(super) doubted: bool,
    /// When it began.
    pub(super) started: Instant,
    /// Bytes received.
    pub(super) received: u64,
    /// What the user should know about it.
    pub(super) note: Option<&'static str>,
    /// Only its last round trip is left, and its successor may have begun.
    pub(super) ending: bool,
    /// It goes beyond its reader's window, and pauses there.
    pub(super) held_back: bool,
}

impl Fetch {
    /// The first byte that is still to come by it: a block is taken whole.
    pub(super) fn floor(&self) -> u64 {
        match &self.filling {
            Some(filling) => filling.block * BLOCK,
            None => self.position,
        }
    }

    /// Whether a missing byte comes by it, and soon enough to wait for.
    pub(super) fn covers(&self, byte: u64) -> bool {
        let floor = self.floor();
        byte >= floor
            && match self.path {
                Path::Part { last } => byte < (last + 1) * BLOCK,
                Path::Range { last } => byte < (floor + SOON).min((last + 1) * BLOCK),
                Path::Whole => true,
            }
    }

    /// Whether it will bring this block, if not soon: no other range is asked for then.
    pub(super) fn holds(&self, block: u64) -> bool {
        matches!(self.path, Path::Range { last } if block <= last && block >= self.floor() / BLOCK)
    }

    /// Whether it alone writes this block.
    fn claims(&self, block: u64) -> bool {
        match &self.filling {
            Some(filling) if filling.block == block => true,
            _ => {
                matches!(self.path, Path::Part { last } if block <= last && block >= self.position.div_ceil(BLOCK))
            }
        }
    }
}

/// All of it.
pub(super) struct State {
    /// The file's size.
    pub(super) size: u64,
    /// Whether there is a checksum to compare with.
    pub(super) checked: bool,
    /// Whether all of it has room in the cache.
    pub(super) has_room: bool,
    /// Where to ask for the bytes: the place given last, as others may be gone by now.
    pub(super) place: FilePlace,
    /// The copy on disk.
    pub(super) copy: Copy,
    /// What of it is there.
    pub(super) presence: Presence,
    /// Counts copies: what a download of an earlier one brings is thrown away.
    pub(super) generation: u64,
    /// Counts served reads.
    pub(super) served: u64,
    /// Open files.
    pub(super) readers: HashMap<u64, Reading>,
    /// Reads that wait.
    pub(super) waiters: Vec<Ask>,
    /// Downloads.
    pub(super) fetches: Vec<Fetch>,
    /// How many bytes of this copy were hashed.
    pub(super) hashed: u64,
    /// All of it was hashed and was right, although not all of it is there any more.
    pub(super) proved: bool,
    /// The hash as far as it got, while no thread has it.
    pub(super) hash: Option<OrderedHash>,
    /// Who has it else.
    pub(super) hasher: Hasher,
    /// Counts how often what was hashed was forgotten: what a thread has in hand then is worth nothing.
    pub(super) hash_age: u64,
    /// Up to this block was there, without a gap, what the hash has to catch up with: since the thread that hashes began,
    /// or since a gap closed before it. No download waits for that.
    pub(super) behind: u64,
    /// Blocks that are still in memory.
    pub(super) fresh: Fresh,
    /// The CRC of each block that was written or checked, 0 of the others: what comes again has to be the same, as it was
    /// served or hashed.
    pub(super) sums: Vec<u32>,
    /// Blocks of which only the beginning came, and was served. One for each download that ended like that.
    pub(super) halves: Vec<Half>,
    /// How often the data file was given away: no block may be taken from it.
    pub(super) handed_out: u64,
    /// What the data file of a complete copy was when its trusted blocks were compared.
    pub(super) stamp: Option<Stamp>,
    /// Blocks of a complete copy that are being compared, and the reads that wait for that.
    pub(super) comparing: Vec<(u64, Vec<Later>)>,
    /// The content stands in line for a slot.
    pub(super) queued: bool,
    /// When bytes last came.
    pub(super) progress: Instant,
    /// How fast they come.
    pub(super) meter: Meter,
    next_id: u64,
}

impl State {
    /// Nothing is known yet.
    pub(super) fn new(place: FilePlace, size: u64, checked: bool) -> Self {
        State {
            size,
            checked,
            has_room: true,
            place,
            copy: Copy::Unopened,
            presence: Presence::none(size),
            generation: 0,
            served: 0,
            readers: HashMap::new(),
            waiters: Vec::new(),
            fetches: Vec::new(),
            hashed: 0,
            proved: false,
            hash: None,
            hasher: Hasher::Idle,
            hash_age: 0,
            behind: 0,
            fresh: Fresh::default(),
            sums: Vec::new(),
            halves: Vec::new(),
            handed_out: 0,
            stamp: None,
            comparing: Vec::new(),
            queued: false,
            progress: Instant::now(),
            meter: Meter::default(),
            next_id: 0,
        }
    }

    /// A number not used before.
    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The files of the copy, if there is one.
    pub(super) fn blocks(&self) -> Option<&Arc<Blocks>> {
        match &self.copy {
            Copy::Partial(blocks) | Copy::Complete(blocks) => Some(blocks),
            Copy::Unopened | Copy::Nothing => None,
        }
    }

    /// Whether all is there.
    pub(super) fn is_complete(&self) -> bool {
        self.size == 0 || matches!(self.copy, Copy::Complete(_))
    }

    /// Nobody reads it and nothing writes it.
    pub(super) fn is_idle(&self) -> bool {
        self.readers.is_empty() && self.fetches.is_empty()
    }

    /// The first byte from `offset` to `end` that can't be served now.
    pub(super) fn first_missing(&self, offset: u64, end: u64) -> Option<u64> {
        let mut at = offset;
        while at < end {
            let block = at / BLOCK;
            if self.presence.has(block) {
                at = (block + 1) * BLOCK;
                continue;
            }
            match self.readable_end(block) {
                Some(readable) if at < readable => at = readable,
                _ => return Some(at),
            }
        }
        None
    }

    /// Reads are answered from blocks that are being written, up to and with the one at `end`.
    pub(super) fn note_shown(&mut self, offset: u64, end: u64) {
        let touched = offset / BLOCK..end.div_ceil(BLOCK);
        for fetch in &mut self.fetches {
            fetch.shown |= fetch.generation == self.generation
                && fetch
                    .filling
                    .as_ref()
                    .is_some_and(|filling| touched.contains(&filling.block));
        }
    }

    /// Download `id` leaves a block of which so many bytes came.
    pub(super) fn keep_half(&mut self, id: u64, block: u64, length: u64, crc: u32) {
        let generation = self.generation;
        let is_shown = self
            .fetch(id)
            .is_some_and(|fetch| fetch.shown && !fetch.doubted && fetch.generation == generation);
        if self.checked && is_shown && length > 0 {
            self.halves.push(Half { block, length, crc });
        }
    }

    /// What was served of a block that is not there.
    pub(super) fn half_of(&self, block: u64) -> Option<Half> {
        self.halves.iter().find(|half| half.block == block).copied()
    }

    /// It came again, and was the same, or may be another.
    pub(super) fn forget_half(&mut self, block: u64) {
        self.halves.retain(|half| half.block != block);
    }

    /// How far a block that is being written may be read. The block that completes the file only after the checksum, and
    /// one that comes again only if it is the same.
    fn readable_end(&self, block: u64) -> Option<u64> {
        let is_compared = self.sum_of(block).is_some() || self.half_of(block).is_some();
        if self.checked && (self.completes(block) || is_compared) {
            return None;
        }
        self.fillings()
            .find(|filling| filling.block == block)
            .map(|filling| block * BLOCK + filling.filled)
    }

    /// The blocks that are coming, and may be shown.
    fn fillings(&self) -> impl Iterator<Item = &Filling> {
        self.fetches
            .iter()
            .filter(|fetch| fetch.generation == self.generation && !fetch.doubted)
            .filter_map(|fetch| fetch.filling.as_ref())
    }

    /// What of these bytes is in memory alone, in order.
    pub(super) fn in_memory(&self, offset: u64, end: u64) -> Vec<Arc<Pieces>> {
        let touched = offset / BLOCK..end.div_ceil(BLOCK);
        let mut found = self.fresh.soles(touched.clone());
        let begun = self
            .fillings()
            .filter(|filling| touched.contains(&filling.block) && !self.presence.has(filling.block));
        found.extend(begun.map(|filling| Pieces::begun(filling.block, filling.pieces.clone())));
        found.sort_by_key(|pieces| pieces.block);
        found
    }

    /// The first byte that an ask still lacks.
    pub(super) fn lacks(&self, ask: &Ask) -> Option<u64> {
        if ask.wants_all() {
            if self.is_complete() {
                return None;
            }
            return Some(self.presence.next_missing(0).map_or(0, |block| block * BLOCK));
        }
        let missing = self.first_missing(ask.offset, ask.end);
        if missing.is_none() && ask.end.div_ceil(BLOCK) == blocks_in(self.size) {
            return self.lost_unhashed().map(|block| block * BLOCK);
        }
        missing
    }

    /// A download by its number.
    pub(super) fn fetch(&mut self, id: u64) -> Option<&mut Fetch> {
        self.fetches.iter_mut().find(|fetch| fetch.id == id)
    }

    /// Whether a missing byte is on its way.
    pub(super) fn is_coming(&self, byte: u64) -> bool {
        self.fetches.iter().any(|fetch| self.comes_by(fetch, byte))
    }

    /// Whether it comes by this download.
    pub(super) fn comes_by(&self, fetch: &Fetch, byte: u64) -> bool {
        fetch.generation == self.generation && fetch.covers(byte)
    }

    /// Whether a download other than `id` writes this block.
    pub(super) fn is_claimed(&self, block: u64, id: u64) -> bool {
        self.fetches
            .iter()
            .any(|fetch| fetch.id != id && fetch.generation == self.generation && fetch.claims(block))
    }

    /// Where the gap that begins with `block` ends for download `id`: at a block that is there or that another brings.
    pub(super) fn end_of_gap(&self, block: u64, id: u64) -> u64 {
        self.fetches
            .iter()
            .filter(|fetch| fetch.id != id && fetch.generation == self.generation)
            .map(|fetch| fetch.floor() / BLOCK)
            .filter(|other| *other > block)
            .fold(self.presence.next_present(block), u64::min)
    }

    /// The first block from `block` on that is missing and that no download but `id` writes.
    pub(super) fn next_unclaimed(&self, block: u64, id: u64) -> Option<u64> {
        let mut next = self.presence.next_missing(block)?;
        while self.is_claimed(next, id) {
            next = self.presence.next_missing(next + 1)?;
        }
        Some(next)
    }

    /// The first block from `from` on that is missing and that no download brings.
    pub(super) fn next_unplanned(&self, from: u64) -> Option<u64> {
        let mut next = self.presence.next_missing(from)?;
        while let Some(end) = self.planned_to(next) {
            next = self.presence.next_missing(end)?;
        }
        Some(next)
    }

    /// Tells the budget what is there or on its way within a reader's window, and not yet read.
    pub(super) fn count_ahead(&mut self, reader: u64) {
        let ahead = self.readers.get(&reader).and_then(Reading::ahead);
        let bytes = ahead.map_or(0, |(position, to)| {
            let end = match self.next_unplanned(position / BLOCK) {
                Some(block) => (block * BLOCK).min(to),
                None => to.min(self.size),
            };
            end.saturating_sub(position)
        });
        if let Some(share) = self
            .readers
            .get_mut(&reader)
            .and_then(|reading| reading.share.as_mut())
        {
            share.count(bytes);
        }
    }

    /// Where the blocks end that one download brings, if `block` is one of them.
    fn planned_to(&self, block: u64) -> Option<u64> {
        self.fetches
            .iter()
            .filter(|fetch| fetch.generation == self.generation)
            .find_map(|fetch| {
                let floor = fetch.floor() / BLOCK;
                let end = match fetch.path {
                    Path::Part { last } | Path::Range { last } => last + 1,
                    Path::Whole => u64::MAX,
                };
                (floor..end).contains(&block).then_some(end)
            })
    }

    /// The first block from `from` on, up to `end`, that is there or that another download begins with.
    pub(super) fn end_of_run(&self, from: u64, end: u64) -> u64 {
        let there = self.presence.next_present(from).min(end);
        self.fetches
            .iter()
            .filter(|fetch| fetch.generation == self.generation)
            .map(|fetch| fetch.floor() / BLOCK)
            .filter(|other| *other > from)
            .fold(there, u64::min)
    }

    /// Whether a range other than `id` will bring this block.
    pub(super) fn is_held(&self, block: u64, id: u64) -> bool {
        self.fetches
            .iter()
            .any(|fetch| fetch.id != id && fetch.generation == self.generation && fetch.holds(block))
    }

    /// Whether a download that passes through the whole file runs.
    pub(super) fn has_whole(&self) -> bool {
        self.fetches
            .iter()
            .any(|fetch| fetch.path == Path::Whole && fetch.generation == self.generation)
    }

    /// Whether so much of the file is there that the rest is worth having.
    pub(super) fn is_worth_finishing(&self) -> bool {
        let have = self.presence.bytes();
        have >= self.size - have || self.size - have <= WORTH_FINISHING
    }

    /// A block turned out damaged, or its room is needed: it is not there any more. Returns how many bytes
    /// that were.
    pub(super) fn lose(&mut self, block: u64) -> u64 {
        if !self.presence.clear(block) {
            return 0;
        }
        let (start, end) = span_of(block, self.size);
        let Some(blocks) = self.blocks().cloned() else {
            return 0;
        };
        if self.fresh.remove(block) {
            // The map knows nothing of it.
            return end - start;
        }
        // If the map can't be written, the block's CRC still tells.
        if let Err(error) = blocks.unmark(block) {
            log::warn!("cache: can't write the map of {}: {error}", self.place);
        }
        if self.is_complete() {
            if let Err(error) = blocks.set_verified(false) {
                log::warn!("cache: can't write the map of {}: {error}", self.place);
            }
            self.copy = Copy::Partial(blocks);
        }
        end - start
    }

    /// Takes the waiters that can be answered now.
    pub(super) fn take_ready(&mut self) -> Vec<Ask> {
        self.take_waiters(|state, ask| state.lacks(ask).is_none())
    }

    /// Takes the waiters for which `which` holds.
    pub(super) fn take_waiters(&mut self, which: impl Fn(&State, &Ask) -> bool) -> Vec<Ask> {
        if self.waiters.is_empty() {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.waiters);
        let (taken, kept) = all.into_iter().partition(|ask| which(self, ask));
        self.waiters = kept;
        taken
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::ask::Purpose;
    use super::*;
    use crate::repository::model::{Owner, RecordId};

    /// A file of four blocks with a checksum, of which these are there.
    pub(in crate::content) fn state_with(blocks: &[u64]) -> State {
        let place = FilePlace {
            owner: Owner::Record(RecordId::new("abcde-12345").unwrap()),
            key: "a".into(),
        };
        let mut state = State::new(place, 4 * BLOCK, true);
        for block in blocks {
            state.presence.set(*block, true);
        }
        state
    }

    fn lacks(state: &State, block: u64) -> Option<u64> {
        let read = Purpose::Read(Box::new(drop));
        state.lacks(&Ask::new(1, block * BLOCK, (block + 1) * BLOCK, read))
    }

    #[test]
    fn the_last_block_waits_for_what_was_lost_before_it_was_hashed() {
        let mut state = state_with(&[0, 2, 3]);
        assert_eq!(
            lacks(&state, 3),
            None,
            "nobody was served the block that is missing"
        );
        assert!(state.note_sum(1, 7));
        assert_eq!(lacks(&state, 3), Some(BLOCK));
        assert_eq!(lacks(&state, 2), None);
        state.hashed = 2 * BLOCK;
        assert_eq!(lacks(&state, 3), None, "it was hashed before it went");
        state.hashed = 0;
        state.proved = true;
        assert_eq!(lacks(&state, 3), None);
    }
}
