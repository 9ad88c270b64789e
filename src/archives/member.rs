//! An open member: reads that wait in line, whose turn it is, and the bytes they get.
//!
//! `tree/` makes one [`OpenMember`] for each open handle, and one [`Shared`] for all handles of a member. A read whose
//! handle is busy leaves its question and goes; the thread that is at work answers all. So one thread waits for the
//! network for each handle, and no lock is held meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::entry::{Member, Method};
use super::inflate::{Inflater, Points};
use super::seen::Seen;
use super::{Source, damaged, u16_at};
use crate::error::{Error, Kind, Result};

/// Members that take up to this many bytes are asked for at once, with their header: a block more or less costs less than
/// a round trip.
const SMALL: u64 = 1 << 20;

/// How much of a larger one is asked for at first, and at most at once.
const FIRST_INPUT: u64 = 256 << 10;
const MOST_INPUT: u64 = 1 << 20;

/// A member's own header, without name and extra fields.
const HEADER: u64 = 30;
const HEADER_SIGNATURE: &[u8] = b"PK\x03\x04";

/// Extra fields of a header that the directory may not have.
const SLACK: u64 = 256;

/// How much is decoded at once.
const PIECE: usize = 64 << 10;

/// How much of what was decoded is kept: the kernel asks for pieces out of order.
const RECENT: usize = 512 << 10;

/// Most decoders that are kept between reads, each with up to 2 MB; and most points in all members, each with 45 KB.
const MOST_DECODERS: usize = 64;
const MOST_POINTS: usize = 1024;

/// How long one read may decode: as long as a read in a file may wait.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Where the answer to a read goes. It is called once.
pub type Reply = Box<dyn FnOnce(Result<Vec<u8>>) + Send>;

/// What open members take of the memory.
#[derive(Debug, Default)]
pub struct Memory {
    decoders: AtomicUsize,
    points: AtomicUsize,
}

impl Memory {
    /// Whether there is room for another point; if so it is taken.
    pub(super) fn takes_point(&self) -> bool {
        let taken = self.points.fetch_add(1, Ordering::Relaxed) < MOST_POINTS;
        if !taken {
            self.points.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    pub(super) fn give_points_back(&self, count: usize) {
        self.points.fetch_sub(count, Ordering::Relaxed);
    }
}

/// What all handles of a member share.
pub struct Shared {
    member: Member,
    what: String,
    memory: Arc<Memory>,
    /// The place of its first byte, from its own header.
    start: OnceLock<u64>,
    points: Points,
    seen: Mutex<Seen>,
    wrong: Mutex<Option<Error>>,
    right: Arc<AtomicBool>,
}

impl Shared {
    /// A member called `what`. `right` is set when all of it was read and compared.
    ///
    /// # Errors
    /// `Denied` for an encrypted one; `Local(EOPNOTSUPP)` for one that is kept in a way rdmfs doesn't know.
    pub fn new(member: Member, what: String, right: Arc<AtomicBool>, memory: Arc<Memory>) -> Result<Self> {
        if member.is_encrypted {
            let error = Error::new(Kind::Denied, format!("{what} is encrypted"));
            return Err(error.with_advice("Copy the archive from files/ and unpack it with its password."));
        }
        if let Method::Other(_) = member.method {
            let what = format!("{what} is compressed with {}", member.method);
            return Err(Error::new(Kind::Local(libc::EOPNOTSUPP), what).with_advice(
                "rdmfs reads stored and deflated members; copy the archive from files/ and unpack it.",
            ));
        }
        Ok(Shared {
            points: Points::new(Arc::clone(&memory)),
            member,
            what,
            memory,
            start: OnceLock::new(),
            seen: Mutex::default(),
            wrong: Mutex::new(None),
            right,
        })
    }

    /// Finds the first byte, and returns those after it that came with the header.
    fn begin(&self, source: &dyn Source) -> Result<(u64, Vec<u8>)> {
        if let Some(start) = self.start.get() {
            return Ok((*start, Vec::new()));
        }
        let member = &self.member;
        let left = source
            .size()
            .checked_sub(member.header)
            .filter(|left| *left >= HEADER);
        let left = left.ok_or_else(|| damaged("it lies outside of the archive"))?;
        let around = HEADER + member.name.len() as u64 + SLACK;
        let want = match around.checked_add(member.compressed) {
            Some(all) if all <= SMALL => all,
            _ if member.method == Method::Deflate => around + FIRST_INPUT,
            _ => HEADER,
        };
        // Fits: no more than a MiB.
        let mut bytes = source.read_at(member.header, want.min(left) as u32)?;
        if !bytes.starts_with(HEADER_SIGNATURE) || Method::of(u16_at(&bytes, 8)) != member.method {
            return Err(damaged("its header is not where the directory says"));
        }
        let variable = u64::from(u16_at(&bytes, 26)) + u64::from(u16_at(&bytes, 28));
        let start = member.header + HEADER + variable;
        let end = start.checked_add(member.compressed);
        if end.is_none_or(|end| end > source.size()) {
            return Err(damaged("it ends outside of the archive"));
        }
        if member.method == Method::Stored && member.compressed != member.size {
            return Err(damaged("it has two sizes"));
        }
        bytes.drain(..((HEADER + variable) as usize).min(bytes.len()));
        bytes.truncate(usize::try_from(member.compressed).unwrap_or(usize::MAX));
        Ok((*self.start.get_or_init(|| start), bytes))
    }

    /// Compares the sum of all bytes with the directory's, before the last of them are handed out.
    fn compare(&self, crc: u32, source: &dyn Source) -> Result<()> {
        if crc == self.member.crc32 {
            self.right.store(true, Ordering::Release);
            return Ok(());
        }
        let said = self.member.crc32;
        Err(self.fail(
            damaged(format!("its CRC-32 is {crc:08x}, not {said:08x}")),
            source,
        ))
    }

    /// It is wrong, for all who have it open.
    fn fail(&self, error: Error, source: &dyn Source) -> Error {
        let mut wrong = self.wrong.lock();
        if wrong.is_none()
            && let Some(start) = self.start.get()
        {
            // Should the bytes have come wrong, the next one who opens it gets others.
            source.doubt(self.member.header, start.saturating_add(self.member.compressed));
        }
        wrong.get_or_insert(error).clone()
    }

    /// Whether it turned out wrong: who opens it now may get other bytes.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.wrong.lock().is_some()
    }

    fn refusal(&self) -> Option<Error> {
        self.wrong.lock().clone()
    }
}

/// One open handle of a member.
pub struct OpenMember {
    shared: Arc<Shared>,
    source: Box<dyn Source>,
    line: Mutex<Line>,
}

/// Who waits.
#[derive(Default)]
struct Line {
    asks: Vec<Ask>,
    /// A thread is at work, and has the decoder.
    is_busy: bool,
    decoder: Option<Decoder>,
}

/// A read.
struct Ask {
    offset: u64,
    end: u64,
    reply: Reply,
}

impl OpenMember {
    /// A handle that reads from `source`.
    #[must_use]
    pub fn new(shared: Arc<Shared>, source: Box<dyn Source>) -> Self {
        OpenMember {
            shared,
            source,
            line: Mutex::default(),
        }
    }

    /// Whether all of it was once read and compared.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.shared.right.load(Ordering::Acquire)
    }

    /// Reads; cut at the end of the member. Waits for the network and decodes, or leaves both to the thread that does so
    /// already for this handle.
    pub fn read(&self, offset: u64, length: u32, reply: Reply) {
        let end = offset
            .saturating_add(u64::from(length))
            .min(self.shared.member.size);
        if offset >= end {
            return reply(Ok(Vec::new()));
        }
        let decoder = {
            let mut line = self.line.lock();
            line.asks.push(Ask { offset, end, reply });
            if line.is_busy {
                return;
            }
            line.is_busy = true;
            line.decoder.take()
        };
        let mut turn = Turn {
            line: &self.line,
            decoder,
            is_over: false,
        };
        while let Some(ask) = turn.next(&self.shared) {
            let answer = self.answer(&ask, &mut turn.decoder);
            (ask.reply)(answer);
        }
    }

    fn answer(&self, ask: &Ask, decoder: &mut Option<Decoder>) -> Result<Vec<u8>> {
        let shared = &self.shared;
        let read = match (shared.refusal(), shared.member.method) {
            (Some(error), _) => Err(error),
            (None, Method::Stored) => self.stored(ask),
            (None, _) => self.inflated(ask, decoder),
        };
        read.map_err(|error| match error.kind() {
            Kind::Corrupt => shared.fail(error, &*self.source),
            _ => error,
        })
        .map_err(|error| error.during(&shared.what))
    }

    fn stored(&self, ask: &Ask) -> Result<Vec<u8>> {
        let (shared, source) = (&self.shared, &*self.source);
        let (start, _) = shared.begin(source)?;
        source.stop_at(start + shared.member.size);
        let length = (ask.end - ask.offset) as u32;
        let bytes = source.read_at(start + ask.offset, length)?;
        let sum = {
            let mut seen = shared.seen.lock();
            seen.note(ask.offset, &bytes);
            seen.sum(shared.member.size)
        };
        match sum {
            Some(crc) => shared.compare(crc, source).map(|()| bytes),
            None => Ok(bytes),
        }
    }

    fn inflated(&self, ask: &Ask, kept: &mut Option<Decoder>) -> Result<Vec<u8>> {
        let (shared, source) = (&self.shared, &*self.source);
        let decoder = match kept {
            Some(decoder) => decoder,
            None => {
                let (start, input) = shared.begin(source)?;
                source.stop_at(start + shared.member.compressed);
                kept.insert(Decoder::new(start, input, Arc::clone(&shared.memory)))
            }
        };
        let begun = Instant::now();
        decoder.go_to(ask.offset, &shared.points);
        while decoder.inflater.produced < ask.end {
            if begun.elapsed() > PATIENCE {
                return Err(Error::new(
                    Kind::TimedOut,
                    "so far into it takes longer than 15 minutes",
                ));
            }
            decoder.step(shared, source)?;
            if decoder.inflater.produced == shared.member.size {
                shared.compare(decoder.inflater.crc.clone().finalize(), source)?;
            }
            decoder.trim(ask.offset);
        }
        Ok(decoder.recent(ask.offset, ask.end))
    }
}

/// The right to answer the line. Given back also when an answer panics.
struct Turn<'a> {
    line: &'a Mutex<Line>,
    decoder: Option<Decoder>,
    is_over: bool,
}

impl Turn<'_> {
    /// The next read: one that the decoder has, else the nearest before it, else the first behind. `None` ends the turn.
    fn next(&mut self, shared: &Shared) -> Option<Ask> {
        let at = self.decoder.as_ref().map_or(0, |decoder| decoder.recent_at);
        let mut line = self.line.lock();
        let distance = |ask: &Ask| match ask.offset.checked_sub(at) {
            Some(ahead) => (false, ahead),
            None => (true, ask.offset),
        };
        let nearest = (0..line.asks.len()).min_by_key(|place| distance(&line.asks[*place]));
        if let Some(place) = nearest {
            return Some(line.asks.remove(place));
        }
        self.is_over = true;
        line.is_busy = false;
        line.decoder = self.decoder.take();
        if shared.memory.decoders.load(Ordering::Relaxed) > MOST_DECODERS {
            // The next read begins at a point.
            line.decoder = None;
        }
        None
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let mut line = self.line.lock();
            line.is_busy = false;
            // Dropped, their replies say EIO.
            line.asks.clear();
        }
    }
}

/// The decoder of a handle, with what it reads from and what it has just decoded.
struct Decoder {
    inflater: Inflater,
    /// The place of the first compressed byte.
    start: u64,
    /// Compressed bytes, read up to `used`.
    input: Vec<u8>,
    used: usize,
    /// How much to ask for next.
    ask: u64,
    /// The last bytes decoded, from this one on.
    recent: Vec<u8>,
    recent_at: u64,
    memory: Arc<Memory>,
}

impl Decoder {
    fn new(start: u64, input: Vec<u8>, memory: Arc<Memory>) -> Self {
        memory.decoders.fetch_add(1, Ordering::Relaxed);
        Decoder {
            inflater: Inflater::new(),
            start,
            input,
            used: 0,
            ask: FIRST_INPUT,
            recent: Vec::new(),
            recent_at: 0,
            memory,
        }
    }

    /// Gets to where decoding on leads to `offset` soonest.
    fn go_to(&mut self, offset: u64, points: &Points) {
        if offset >= self.recent_at && points.reach(offset) <= self.inflater.produced {
            return;
        }
        let from = points.before(offset);
        self.inflater = from.unwrap_or_else(Inflater::new);
        self.input = Vec::new();
        self.used = 0;
        self.recent = Vec::new();
        self.recent_at = self.inflater.produced;
    }

    /// Decodes a piece.
    fn step(&mut self, shared: &Shared, source: &dyn Source) -> Result<()> {
        let left = shared.member.size - self.inflater.produced;
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
        let had = self.recent.len();
        self.recent.resize(had + piece, 0);
        let step = self
            .inflater
            .decode(&self.input[self.used..], &mut self.recent[had..]);
        let written = step.as_ref().map_or(0, |(_, written)| *written);
        self.recent.truncate(had + written);
        let (read, _) = step?;
        self.used += read;
        if written > 0 {
            shared.points.note(&self.inflater);
        } else if !self.inflater.has_ended() && self.used == self.input.len() {
            self.fill(shared, source)?;
        }
        Ok(())
    }

    /// Gets more of the compressed bytes.
    fn fill(&mut self, shared: &Shared, source: &dyn Source) -> Result<()> {
        let left = shared.member.compressed - self.inflater.consumed;
        if left == 0 {
            return Err(damaged("its bytes end before its size"));
        }
        let length = left.min(self.ask);
        self.input = source.read_at(self.start + self.inflater.consumed, length as u32)?;
        self.used = 0;
        self.ask = (self.ask * 2).min(MOST_INPUT);
        Ok(())
    }

    /// Forgets what lies far behind, but nothing from `wanted` on.
    fn trim(&mut self, wanted: u64) {
        let wanted = usize::try_from(wanted.saturating_sub(self.recent_at)).unwrap_or(usize::MAX);
        let old = self.recent.len().saturating_sub(RECENT).min(wanted);
        if old >= RECENT {
            self.recent.drain(..old);
            self.recent_at += old as u64;
        }
    }

    /// Bytes that are there.
    fn recent(&self, from: u64, to: u64) -> Vec<u8> {
        let from = (from - self.recent_at) as usize;
        let to = (to - self.recent_at) as usize;
        self.recent[from..to].to_vec()
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.memory.decoders.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
