//! One download on its own thread: asks for a gap, writes what comes to disk as it comes, asks again when it breaks.
//!
//! Started by `file.rs` for what `plan.rs` decided. It waits for the network and the disk, so it must never do so
//! with the content's lock held; every wait for the network is limited by `repository/`, every pause here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::blocks::{BLOCK, Blocks, blocks_in, span_of};
use super::file::Content;
use super::hashing;
use super::hosts::Ranges;
use super::judge::{Verdict, judge};
use super::plan;
use super::state::{Half, Path};
use super::{Identity, Result, Store};
use crate::error::{Error, Kind};
use crate::repository::{Coverage, Download};

/// Enough for a TLS handshake in a debug build; only what is used of it takes memory.
const STACK: usize = 1024 * 1024;

/// Pauses before asking again after a connection broke. Failures to connect were repeated by `repository/` already.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// How much new must have come for a broken connection not to count as one more failure in a row.
const PROGRESS: u64 = BLOCK;

/// How long to go on without that. Each try has limits of its own, but their sum is what a program waits, and it can't
/// be killed meanwhile.
const LONGEST_DROUGHT: Duration = Duration::from_secs(60);

/// How long a download may stand still, far enough ahead of its readers, before its connection is given up. Servers
/// close idle connections after a minute or so; a held one occupies one of their few workers.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How many bytes that are there already are passed over in an answer; beyond that, asking anew is faster.
const LONGEST_SKIP: u64 = 2 * 1024 * 1024;

/// How often a paused download looks for a free read-ahead permit, which no condition variable announces.
const LOOK: Duration = Duration::from_millis(250);

/// Starts the thread of download `id`, which must have its slot.
pub(super) fn start(content: &Arc<Content>, id: u64) -> Result<()> {
    let content = Arc::clone(content);
    thread::Builder::new()
        .name("rdmfs-fetch".into())
        .stack_size(STACK)
        .spawn(move || {
            let mut fetcher = Fetcher::new(&content, id);
            let outcome = catch_unwind(AssertUnwindSafe(|| fetcher.run()));
            fetcher.finish_up();
            let result = outcome.unwrap_or_else(|_| {
                let what = format!("the download of {} panicked", content.stem);
                Err(Error::new(Kind::Internal, what))
            });
            content.fetch_ended(id, result);
        })
        .map(drop)
        .map_err(|error| Error::local("start a download", &error))
}

/// Why a response is left before its end.
pub(super) enum Break {
    /// Nobody wants it any more.
    Stop,
    /// It may work if asked again.
    Broken(Error),
    /// It won't.
    Failed(Error),
}

impl From<Error> for Break {
    fn from(error: Error) -> Self {
        Break::Failed(error)
    }
}

/// A gap to ask for.
#[derive(Clone, Copy, Debug)]
struct Request {
    from: u64,
    /// Exclusive.
    end: u64,
}

impl Request {
    fn is_all_of(&self, size: u64) -> bool {
        self.from == 0 && self.end == size
    }
}

/// How one answer flows.
struct Flow {
    /// How long its first byte took.
    latency: Duration,
    since: Instant,
    bytes: u64,
    /// So many of them were told of.
    told: u64,
}

impl Flow {
    fn begin(latency: Duration) -> Self {
        Flow {
            latency,
            since: Instant::now(),
            bytes: 0,
            told: 0,
        }
    }

    /// Whether its speed is to be told, with more bytes of how many are left.
    fn add(&mut self, bytes: u64, rest: u64) -> bool {
        self.bytes += bytes;
        let is_due = self.bytes - self.told >= plan::SMALL || rest == 0;
        if is_due {
            self.told = self.bytes;
        }
        is_due
    }

    /// How long it took since it was asked for.
    fn time(&self) -> Duration {
        self.latency + self.since.elapsed()
    }

    /// Whether the rest comes within a round trip, going by what came so far. A little more, as bytes come in batches and
    /// asking takes time too.
    fn is_last_round_trip(&self, rest: u64) -> bool {
        let rate = self.bytes as f64 / self.since.elapsed().as_secs_f64().max(0.001);
        rest as f64 <= rate * self.latency.as_secs_f64() * 1.25 + BLOCK as f64
    }
}

/// The block that is coming.
pub(super) struct Filler {
    pub(super) block: u64,
    /// How many of its bytes came.
    pub(super) filled: u64,
    pub(super) crc: crc32fast::Hasher,
    /// They.
    pub(super) pieces: Vec<Bytes>,
    /// What was served of it before, until it came again.
    pub(super) half: Option<Half>,
}

impl Filler {
    pub(super) fn new(block: u64, half: Option<Half>) -> Self {
        Filler {
            block,
            filled: 0,
            crc: crc32fast::Hasher::new(),
            pieces: Vec::new(),
            half,
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.block * BLOCK + self.filled
    }
}

/// A download as its thread sees it. What it does with bytes is in `fill.rs`.
pub(super) struct Fetcher<'a> {
    pub(super) content: &'a Arc<Content>,
    pub(super) store: &'a Arc<Store>,
    pub(super) id: u64,
    pub(super) size: u64,
    pub(super) generation: u64,
    pub(super) filler: Option<Filler>,
    /// Holds one of the few permissions to go on without demand.
    pub(super) may_run_ahead: bool,
    pub(super) received: u64,
    /// The hash did not go on for so long that it is not waited for again.
    pub(super) gave_up_on_hash: bool,
    /// Bytes of blocks that were missing. What is received again, to get to what is missing, is no progress.
    pub(super) written: u64,
}

impl<'a> Fetcher<'a> {
    pub(super) fn new(content: &'a Arc<Content>, id: u64) -> Self {
        let generation = content
            .lock()
            .fetch(id)
            .map_or(u64::MAX, |fetch| fetch.generation);
        Fetcher {
            content,
            store: &content.store,
            id,
            size: content.size(),
            generation,
            filler: None,
            may_run_ahead: false,
            gave_up_on_hash: false,
            received: 0,
            written: 0,
        }
    }

    /// Gives back what it holds.
    pub(super) fn finish_up(&mut self) {
        if std::mem::take(&mut self.may_run_ahead) {
            self.store.end_ahead();
        }
        if let Some(filler) = self.filler.take() {
            let (start, end) = span_of(filler.block, self.size);
            self.store.ledger().give_back(end - start);
            let mut state = self.content.lock();
            // An earlier half that did not come again is longer.
            if state.generation == self.generation && filler.half.is_none() {
                state.keep_half(self.id, filler.block, filler.filled, filler.crc.finalize());
            }
            // What was served of it is noted: nothing more may be.
            if let Some(fetch) = state.fetch(self.id) {
                fetch.filling = None;
                fetch.position = start;
            }
        }
    }

    fn run(&mut self) -> Result<()> {
        let Some(blocks) = self.content.copy_to_fill(self.generation)? else {
            return Ok(());
        };
        let mut failures = 0;
        let mut last_progress = Instant::now();
        loop {
            if !self.may_go_on() {
                return Ok(());
            }
            let Some(request) = self.next_request() else {
                return Ok(());
            };
            let before = self.written;
            match self.one_response(request, &blocks) {
                Ok(()) => {
                    failures = 0;
                    last_progress = Instant::now();
                }
                Err(Break::Stop) => return Ok(()),
                Err(Break::Failed(error)) => return Err(error),
                Err(Break::Broken(error)) => {
                    if self.written - before >= PROGRESS {
                        failures = 0;
                        last_progress = Instant::now();
                    }
                    let Some(pause) = PAUSES.get(failures) else {
                        return Err(error);
                    };
                    if last_progress.elapsed() > LONGEST_DROUGHT {
                        return Err(error);
                    }
                    log::debug!("{}: {error}; asking again", self.content.stem);
                    self.set_note("the connection broke; asking again");
                    failures += 1;
                    self.rest(*pause);
                }
            }
        }
    }

    /// Parts are mostly for readers here and there, whose file is never whole.
    fn have_it_hashed(&self, blocks: &Arc<Blocks>) {
        let is_worth_it = {
            let mut state = self.content.lock();
            // What is to be hashed stays until it is.
            !state.unhashed().is_empty()
                || state
                    .fetch(self.id)
                    .is_some_and(|fetch| !matches!(fetch.path, Path::Part { .. }))
        };
        if is_worth_it {
            hashing::start(self.content, blocks);
        }
    }

    /// The first gap that this download is for and that nobody else fills.
    fn next_request(&mut self) -> Option<Request> {
        let mut state = self.content.lock();
        let path = state.fetch(self.id)?.path;
        let position = state.fetch(self.id)?.position;
        let count = blocks_in(self.size);
        let limit = match path {
            Path::Part { last } | Path::Range { last } => last + 1,
            Path::Whole => count,
        };
        let from = match &self.filler {
            Some(filler) => filler.position(),
            None => {
                let block = state.next_unclaimed(position.div_ceil(BLOCK), self.id)?;
                if block >= limit {
                    return None;
                }
                block * BLOCK
            }
        };
        let end = (state.end_of_gap(from / BLOCK, self.id).min(limit) * BLOCK).min(self.size);
        state.fetch(self.id)?.position = from;
        Some(Request { from, end })
    }

    fn one_response(&mut self, request: Request, blocks: &Arc<Blocks>) -> Result<(), Break> {
        let want = self
            .asks_for_range(request)
            .then_some((request.from, request.end - 1));
        let place = self.content.lock().place.clone();
        log::trace!(
            "{}: {} asks for {} to {}",
            self.content.stem,
            self.id,
            request.from,
            request.end
        );
        let asked = Instant::now();
        let mut download = self.store.repository().open_content(&place, want)?;
        let mut flow = Flow::begin(asked.elapsed());
        self.store.answered(download.host(), flow.latency);
        let (mut offset, end) = self.check_answer(request, want.is_some(), &download)?;
        self.have_it_hashed(blocks);
        loop {
            if !self.may_go_on() {
                return Err(Break::Stop);
            }
            let piece = match download.next() {
                Ok(Some(piece)) => piece,
                Ok(None) if offset >= end => return Ok(()),
                Ok(None) => {
                    let what = format!("{} broke off at byte {offset} of {end}", self.content.stem);
                    return Err(Break::Broken(Error::new(Kind::Unreachable, what)));
                }
                Err(error) if error.kind().is_passing() => return Err(Break::Broken(error)),
                Err(error) => return Err(Break::Failed(error)),
            };
            if self.store.is_stopping() {
                // The folder may be another daemon's by now.
                return Err(Break::Stop);
            }
            let length = piece.len() as u64;
            if length > end - offset {
                return Err(Break::Failed(self.changed(format!("more than {end} bytes came"))));
            }
            self.received += length;
            self.store.tally().fetched(length);
            self.take(offset, &piece, blocks)?;
            offset += length;
            if flow.add(length, end - offset) {
                self.store.brought(download.host(), flow.bytes, flow.time());
            }
            if self.store.came(download.host(), length) {
                self.content.plan_ahead();
            }
            if flow.is_last_round_trip(end - offset) {
                self.hand_over();
            }
            if self.is_gap_closed(offset, end) {
                return Ok(());
            }
        }
    }

    /// Lets the next range be asked for while the last bytes of this one are under way.
    fn hand_over(&self) {
        {
            let mut state = self.content.lock();
            let Some(fetch) = state.fetch(self.id) else { return };
            if !matches!(fetch.path, Path::Range { .. }) || fetch.ending || !self.store.begin_ending() {
                return;
            }
            fetch.ending = true;
        }
        self.content.plan_ahead();
    }

    /// Looks at what the answer is, learns from it, and tells from where to where its bytes are.
    fn check_answer(
        &mut self,
        request: Request,
        range_asked: bool,
        download: &Download,
    ) -> Result<(u64, u64), Break> {
        if let (Some(sent), Identity::Md5 { md5, .. }) = (download.etag_md5, self.content.identity.clone())
            && sent != md5
        {
            return Err(Break::Failed(self.changed(format!("its MD5 is {sent} now"))));
        }
        let (from, end, learned) = match download.coverage {
            Coverage::Part { first, last, total } => {
                if let Some(total) = total
                    && total != self.size
                {
                    return Err(Break::Failed(self.changed(format!("it has {total} bytes now"))));
                }
                if first > request.from || last < request.from || last >= request.end {
                    let what = format!(
                        "the server sent bytes {first} to {last} of {} when asked for {} to {}",
                        self.content.stem,
                        request.from,
                        request.end - 1
                    );
                    return Err(Break::Failed(Error::new(Kind::ServerFailed, what)));
                }
                (first, last + 1, Some(Ranges::Honoured))
            }
            Coverage::Whole { length } => {
                if let Some(length) = length
                    && length != self.size
                {
                    return Err(Break::Failed(self.changed(format!("it has {length} bytes now"))));
                }
                // A server may send all where all was asked for, whatever it does with ranges.
                let is_ignored = range_asked && !request.is_all_of(self.size);
                (0, self.size, is_ignored.then_some(Ranges::Ignored))
            }
        };
        let mut state = self.content.lock();
        let other_whole = state.fetches.iter().any(|other| {
            other.id != self.id
                && other.generation == self.generation
                && other.path == Path::Whole
                && other.answered
        });
        let Some(fetch) = state.fetch(self.id) else {
            return Err(Break::Stop);
        };
        fetch.answered = true;
        match download.coverage {
            Coverage::Part { .. } => {
                fetch.note = None;
                if fetch.path == Path::Whole {
                    let path = plan::cut(&state, from);
                    if let Some(fetch) = state.fetch(self.id) {
                        fetch.path = path;
                    }
                }
            }
            Coverage::Whole { .. } if other_whole => {
                // Everybody waits for that one, which taught the same.
                return Err(Break::Stop);
            }
            Coverage::Whole { .. } => {
                fetch.path = Path::Whole;
                if range_asked {
                    fetch.note = Some("the server ignores ranges: reading from the start");
                }
                // It passes through every gap, also through those before the one it was sent for.
                if self.filler.is_none() {
                    fetch.position = 0;
                }
            }
        }
        // Only now, and still under the lock: whoever plans for this content on what is learned must see the stream too.
        if let Some(ranges) = learned {
            self.store.learn(download.host(), ranges);
        }
        drop(state);
        self.content.replan();
        self.content.plan_ahead();
        Ok((from, end))
    }

    /// Whether the rest of this answer is not worth waiting for: nothing in it is missing, or not for a long while.
    fn is_gap_closed(&self, offset: u64, end: u64) -> bool {
        if self.filler.is_some() {
            return false;
        }
        let mut state = self.content.lock();
        let Some(path) = state.fetch(self.id).map(|fetch| fetch.path) else {
            return true;
        };
        let is_whole = path == Path::Whole;
        let next = match path {
            Path::Whole => state.presence.next_missing(offset / BLOCK),
            Path::Part { last } | Path::Range { last } => state
                .next_unclaimed(offset / BLOCK, self.id)
                .filter(|block| *block <= last),
        };
        next.is_none_or(|block| {
            let next = block * BLOCK;
            // A host that sends whole files only would begin at the first byte again.
            next >= end || (!is_whole && next.saturating_sub(offset) > LONGEST_SKIP)
        })
    }

    /// Whether to go on. A stream of the whole file waits while its readers are far behind, and while too many of the kind
    /// go on that nobody waits for.
    fn may_go_on(&mut self) -> bool {
        let mut paused: Option<Instant> = None;
        let mut state = self.content.lock();
        loop {
            if self.store.is_stopping() {
                return false;
            }
            match judge(&state, self.id) {
                Verdict::Stop => return false,
                Verdict::Demanded => return true,
                Verdict::Ahead => {
                    self.may_run_ahead = self.may_run_ahead || self.store.begin_ahead();
                    if self.may_run_ahead {
                        return true;
                    }
                    paused = None;
                }
                Verdict::Enough => {
                    if std::mem::take(&mut self.may_run_ahead) {
                        self.store.end_ahead();
                    }
                    let since = *paused.get_or_insert_with(Instant::now);
                    if since.elapsed() > LONGEST_PAUSE || self.store.is_contended() {
                        return false;
                    }
                }
            }
            self.content.wait(&mut state, LOOK);
        }
    }

    /// A pause before asking again; ends early when nobody wants it any more.
    fn rest(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = self.content.lock();
        while !self.store.is_stopping() && judge(&state, self.id) != Verdict::Stop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.content.wait(&mut state, left);
        }
    }

    /// A small file is asked for plainly. A large one never is: if the server ignores the range, nothing is lost, and
    /// if it has learned ranges since, or another host answers, that is how it is noticed.
    fn asks_for_range(&self, request: Request) -> bool {
        let is_whole = self
            .content
            .lock()
            .fetch(self.id)
            .is_some_and(|fetch| fetch.path == Path::Whole);
        !(is_whole && request.is_all_of(self.size) && self.size <= 2 * plan::SMALL)
    }

    fn set_note(&self, note: &'static str) {
        if let Some(fetch) = self.content.lock().fetch(self.id) {
            fetch.note = Some(note);
        }
    }

    fn changed(&self, how: String) -> Error {
        let place = self.content.lock().place.clone();
        Error::new(Kind::Changed, format!("{place} changed on the server: {how}"))
    }
}
