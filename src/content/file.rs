//! One file's bytes and its open readers: reads that are answered from disk or wait, and what becomes of them.
//!
//! `mount/` and `staging/` call `Content` and `Reader`; `fetch.rs` calls the rest when bytes came or a download ended.
//! A reply must never be called, and neither network nor file data waited for, under the lock.

use std::fs::File;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::blocks::{BLOCK, Blocks, Names, ReadFault};
use super::plan;
use super::state::{Ask, Copy, Path, Purpose, ReadReply, Reading, State};
use super::{DownloadStatus, Identity, Result, Store, View};
use crate::error::{Error, Kind};
use crate::repository::model::{FilePlace, Owner};

/// How long one read may wait although bytes keep coming, as they do when a server sends whole files only and the
/// read is for the end of a large one. A program in such a read can't even be killed.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The bytes of one file, named by what they are. All who open the same bytes share it.
pub struct Content {
    /// The cache it belongs to.
    pub(super) store: Arc<Store>,
    /// What names the bytes.
    pub(super) identity: Identity,
    /// The name of its files below the cache folder, without ending.
    pub(super) stem: Arc<str>,
    state: Mutex<State>,
    /// A reader advanced or left, or the store shuts down: paused downloads look again.
    changed: Condvar,
    /// A block came, or the thread that hashes has to look up or has ended.
    grown: Condvar,
}

impl Content {
    /// Nothing is opened yet.
    pub(super) fn new(store: Arc<Store>, identity: Identity, stem: Arc<str>, place: FilePlace) -> Self {
        let checked = matches!(identity, Identity::Md5 { .. });
        Content {
            state: Mutex::new(State::new(place, identity.size(), checked)),
            store,
            identity,
            stem,
            changed: Condvar::new(),
            grown: Condvar::new(),
        }
    }

    /// The file's size.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.identity.size()
    }

    /// Complete, and its MD5 was compared: the kernel may keep its pages.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        if !matches!(self.identity, Identity::Md5 { .. }) {
            return false;
        }
        let mut state = self.lock_open();
        let verified = state.is_complete();
        self.rest(&mut state);
        verified
    }

    /// A reader for one open handle. The bytes are not dropped while there is one; dropping it is closing.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> Reader {
        let mut state = self.lock_open();
        let id = state.fresh_id();
        let since = state.served;
        state.readers.insert(
            id,
            Reading {
                pattern: super::readahead::Pattern::Fresh,
                limit: u64::MAX,
                share: None,
                since,
                failed: None,
            },
        );
        drop(state);
        Reader {
            content: Arc::clone(self),
            id,
        }
    }

    /// Bytes turned out wrong by another sum than the file's own: unless that one was compared, they are fetched again
    /// when somebody asks.
    pub fn doubt(&self, offset: u64, end: u64) {
        let mut state = self.state.lock();
        if state.is_complete() {
            return;
        }
        for block in offset / BLOCK..end.min(self.size()).div_ceil(BLOCK) {
            self.store.ledger().give_back(state.lose(block));
        }
    }

    /// The file on disk, if it is complete and, where it has a checksum, verified. Blocks that an earlier daemon wrote
    /// are checked first, so this may read the whole file from disk. Its bytes stay, whatever becomes of the cache.
    #[must_use]
    pub fn complete_file(self: &Arc<Self>) -> Option<File> {
        if self.size() == 0 {
            return tempfile::tempfile_in(self.store.root()).ok();
        }
        // Open as a reader, so that nothing is dropped meanwhile.
        let reader = self.reader();
        let blocks = {
            let mut state = self.state.lock();
            state.handed_out = true;
            match &state.copy {
                Copy::Complete(blocks) => Arc::clone(blocks),
                _ => return None,
            }
        };
        let removals = blocks.removals();
        for block in 0..super::blocks::blocks_in(self.size()) {
            if !self.state.lock().presence.is_trusted(block)
                && let Err(fault) = self.check(&blocks, block, removals)
            {
                log::warn!("cache: {}: {fault:?}", self.stem);
                return None;
            }
        }
        let file = blocks.reopen();
        drop(reader);
        file.map_err(|error| log::warn!("cache: {}: {error}", self.stem))
            .ok()
    }

    /// Compares a block with its CRC, and remembers the outcome.
    fn check(&self, blocks: &Arc<Blocks>, block: u64, removals: u64) -> Result<(), ReadFault> {
        let read = blocks.read_checked(block);
        let mut state = self.state.lock();
        // What is there now may be another copy than the one looked at.
        let is_current = state.blocks().is_some_and(|now| Arc::ptr_eq(now, blocks));
        if is_current && blocks.removals() == removals {
            match &read {
                Ok(_) => state.presence.trust(block),
                Err(ReadFault::Damaged(block)) => {
                    log::warn!(
                        "cache: block {block} of {} is damaged and is fetched again",
                        state.place
                    );
                    self.store.ledger().give_back(state.lose(*block));
                }
                Err(ReadFault::Io(_)) => {}
            }
        }
        read.map(drop)
    }

    /// Answers a read if its bytes are there, else lets it wait and makes sure that they are on their way. Never waits.
    pub(super) fn attempt(self: &Arc<Self>, ask: Ask) {
        loop {
            let mut state = self.state.lock();
            if let Some(error) = state
                .readers
                .get(&ask.reader)
                .map_or_else(|| Some(closed()), |reading| reading.failed.clone())
            {
                drop(state);
                return ask.fail(error);
            }
            if state.lacks(&ask).is_some() {
                if let Some(error) = self.store.refusal(&self.stem) {
                    drop(state);
                    return ask.fail(error);
                }
                state.waiters.push(ask);
                self.changed.notify_all();
                let reader = state.waiters.last().map_or(0, |ask| ask.reader);
                let mut view = View::of(self);
                let mut start = plan::for_waiters(&mut state, &mut view);
                start.append(&mut plan::for_reader(&mut state, reader, &mut view));
                drop(state);
                return self.start(start);
            }
            if ask.wants_all() || ask.offset == ask.end {
                drop(state);
                return ask.answer(Ok(Vec::new()));
            }
            state.served += 1;
            let start = plan::for_reader(&mut state, ask.reader, &mut View::of(self));
            if !state.fetches.is_empty() {
                self.changed.notify_all();
            }
            let untrusted: Vec<u64> = (ask.offset / BLOCK..ask.end.div_ceil(BLOCK))
                .filter(|block| state.presence.has(*block) && !state.presence.is_trusted(*block))
                .collect();
            // Something is there, so there are blocks.
            let Some(blocks) = state.blocks().cloned() else {
                drop(state);
                return ask.fail(Error::new(Kind::Internal, "bytes are present without a copy"));
            };
            let removals = blocks.removals();
            drop(state);
            self.start(start);
            let read = untrusted
                .iter()
                .try_for_each(|block| self.check(&blocks, *block, removals))
                .and_then(|()| Ok(blocks.read(ask.offset, (ask.end - ask.offset) as usize)?));
            match read {
                // A block taken away meanwhile may have been read as zeros.
                _ if blocks.removals() != removals => {}
                Ok(bytes) => return ask.answer(Ok(bytes)),
                Err(ReadFault::Damaged(_)) => {}
                Err(ReadFault::Io(error)) => {
                    return ask.fail(Error::local(format!("read {} from the cache", self.stem), &error));
                }
            }
        }
    }

    /// Plans anew for all that read on: more may be fetched at once now, or a range is about to end.
    pub(super) fn plan_ahead(self: &Arc<Self>) {
        let start = plan::for_readers(&mut self.state.lock(), &mut View::of(self));
        self.start(start);
    }

    /// Plans anew for all that wait: an answer told what the server can do.
    pub(super) fn replan(self: &Arc<Self>) {
        let start = plan::for_waiters(&mut self.state.lock(), &mut View::of(self));
        self.start(start);
    }

    /// Takes over a slot from a download that ended. False if nothing needs it.
    pub(super) fn take_over_slot(self: &Arc<Self>) -> bool {
        let mut view = View::with_slot(self);
        let start = {
            let mut state = self.state.lock();
            state.queued = false;
            plan::for_waiters(&mut state, &mut view)
        };
        self.start(start);
        !view.has_slot()
    }

    fn start(self: &Arc<Self>, fetches: Vec<u64>) {
        for id in fetches {
            if let Err(error) = super::fetch::start(self, id) {
                self.fetch_ended(id, Err(error));
            }
        }
    }

    /// A download is over: its waiters are told if it failed, and what others still need is started.
    pub(super) fn fetch_ended(self: &Arc<Self>, id: u64, result: Result<()>) {
        let (failed, was_ending) = {
            let mut state = self.state.lock();
            let Some(at) = state.fetches.iter().position(|fetch| fetch.id == id) else {
                return;
            };
            let fetch = state.fetches.swap_remove(at);
            let is_current = fetch.generation == state.generation;
            let failed = if result.is_err() && is_current {
                state.take_waiters(|state, ask| {
                    state
                        .lacks(ask)
                        .is_some_and(|byte| fetch.covers(byte) && !state.is_coming(byte))
                })
            } else {
                Vec::new()
            };
            self.changed.notify_all();
            self.grown.notify_all();
            (failed, fetch.ending)
        };
        if was_ending {
            self.store.end_ending();
        }
        self.store.release_slot();
        let start = {
            let mut state = self.state.lock();
            let mut view = View::of(self);
            let mut start = plan::for_waiters(&mut state, &mut view);
            // What failed is not tried again until somebody asks.
            if result.is_ok() {
                start.append(&mut plan::for_readers(&mut state, &mut view));
            }
            self.rest(&mut state);
            start
        };
        if let Err(error) = result {
            log::debug!("fetch of {}: {error}", self.stem);
            for ask in failed {
                ask.fail(error.clone());
            }
        }
        self.start(start);
    }

    /// The whole file came and its checksum is another one: whoever may have seen a byte of it is told, the copy goes,
    /// and the others, who saw nothing, get a second one.
    pub(super) fn mismatch(self: &Arc<Self>, found: &str) {
        let again = self.store.note_mismatch(&self.stem);
        let (told, gone) = {
            let mut state = self.state.lock();
            let error = Error::new(
                Kind::Corrupt,
                format!("{} has the MD5 {found}, not {}", state.place, self.stem),
            );
            log::warn!("{error}; the copy is dropped");
            let served = state.served;
            for reading in state.readers.values_mut() {
                if served > reading.since {
                    reading.failed = Some(error.clone());
                }
            }
            let told = state.take_waiters(|state, ask| {
                !again
                    || state
                        .readers
                        .get(&ask.reader)
                        .is_none_or(|reading| reading.failed.is_some())
            });
            let told: Vec<_> = told.into_iter().map(|ask| (ask, error.clone())).collect();
            (told, self.drop_copy(&mut state))
        };
        self.store.discard(gone);
        for (ask, error) in told {
            ask.fail(error);
        }
        // The others' download starts when the one that noticed ends.
    }

    /// Forgets the copy and takes its files away; they are to be deleted after unlocking.
    pub(super) fn drop_copy(&self, state: &mut State) -> Option<super::evict::Trash> {
        let bytes = state.presence.bytes();
        let names = Names::new(self.store.root(), &self.stem);
        let had = state.blocks().is_some();
        state.copy = if state.readers.is_empty() {
            Copy::Unopened
        } else {
            Copy::Nothing
        };
        state.presence = super::blocks::Presence::none(state.size);
        state.generation += 1;
        state.hash = None;
        state.handed_out = false;
        had.then(|| self.store.trash(&names, bytes)).flatten()
    }

    /// Makes the copy on disk if there is none, for a download.
    pub(super) fn copy_to_fill(&self, generation: u64) -> Result<Option<Arc<Blocks>>> {
        let mut state = self.state.lock();
        if state.generation != generation {
            return Ok(None);
        }
        if let Some(blocks) = state.blocks() {
            return Ok(Some(Arc::clone(blocks)));
        }
        let names = Names::new(self.store.root(), &self.stem);
        let blocks = Blocks::create(&names, state.size)
            .map_err(|error| Error::local(format!("make {}", names.data.display()), &error))?;
        let blocks = Arc::new(blocks);
        state.copy = Copy::Partial(Arc::clone(&blocks));
        self.store.ledger().count_file();
        Ok(Some(blocks))
    }

    /// The lock, after looking at what is on disk.
    fn lock_open(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        if matches!(state.copy, Copy::Unopened) {
            let names = Names::new(self.store.root(), &self.stem);
            let found = Blocks::open(&names, state.size).unwrap_or_else(|error| {
                log::warn!("cache: {}: {error}", names.data.display());
                None
            });
            state.copy = match found {
                None => {
                    // At rest its presence was of no file at all; of nothing on disk, it would never be complete.
                    state.presence = super::blocks::Presence::none(state.size);
                    Copy::Nothing
                }
                Some(found) => {
                    state.presence = found.presence;
                    let blocks = Arc::new(found.blocks);
                    if found.verified || (!state.checked && state.presence.missing() == 0) {
                        Copy::Complete(blocks)
                    } else {
                        if state.presence.missing() == 0 {
                            // Killed between the last block and its verification. Fetching that block again is
                            // the way to verification that exists anyhow.
                            let last = super::blocks::blocks_in(state.size) - 1;
                            state.presence.clear(last);
                        }
                        Copy::Partial(blocks)
                    }
                }
            };
        }
        state
    }

    /// After a reader left or a download ended: if that was the last, the files are closed.
    fn rest(&self, state: &mut State) {
        if !state.is_idle() {
            return;
        }
        self.store.ledger().count_close();
        if self.store.keeps_nothing() {
            let gone = self.drop_copy(state);
            self.store.discard(gone);
        }
        state.copy = Copy::Unopened;
        state.presence = super::blocks::Presence::none(0);
        state.hash = None;
    }

    fn close(self: &Arc<Self>, id: u64) {
        let left = {
            let mut state = self.state.lock();
            state.readers.remove(&id);
            let left = state.take_waiters(|_, ask| ask.reader == id);
            if state.readers.is_empty()
                && let Some(blocks) = state.blocks()
                && let Err(error) = blocks.touch()
            {
                log::debug!("cache: {}: {error}", self.stem);
            }
            self.rest(&mut state);
            self.changed.notify_all();
            left
        };
        for ask in left {
            ask.fail(closed());
        }
    }

    /// Takes the copy away if nobody uses it. Tells whether it did, and what is to be deleted.
    pub(super) fn evict(&self) -> (bool, Option<super::evict::Trash>) {
        let mut state = self.state.lock();
        if !state.is_idle() {
            return (false, None);
        }
        state.copy = Copy::Unopened;
        state.generation += 1;
        let names = Names::new(self.store.root(), &self.stem);
        (true, self.store.trash(&names, 0))
    }

    /// The store shuts down: all that wait are told.
    pub(super) fn stop(&self) {
        let waiters = {
            let mut state = self.state.lock();
            self.changed.notify_all();
            self.grown.notify_all();
            std::mem::take(&mut state.waiters)
        };
        for ask in waiters {
            ask.fail(stopping());
        }
    }

    /// Tells those that waited too long.
    pub(super) fn expire(&self) {
        let late = self.state.lock().take_waiters(|state, ask| {
            if ask.wants_all() {
                // Whoever wants all of it may wait as long as it comes.
                state.progress.max(ask.since).elapsed() > PATIENCE
            } else {
                ask.since.elapsed() > PATIENCE
            }
        });
        for ask in late {
            ask.fail(Error::new(
                Kind::TimedOut,
                format!(
                    "{} did not come in {} minutes",
                    self.stem,
                    PATIENCE.as_secs() / 60
                ),
            ));
        }
    }

    /// What is being downloaded.
    pub(super) fn downloads(&self) -> Vec<DownloadStatus> {
        let state = self.state.lock();
        state
            .fetches
            .iter()
            .map(|fetch| DownloadStatus {
                place: state.place.clone(),
                have: state.presence.bytes(),
                total: state.size,
                started: std::time::SystemTime::now()
                    .checked_sub(fetch.started.elapsed())
                    .unwrap_or(std::time::UNIX_EPOCH),
                rate: fetch.received as f64 / fetch.started.elapsed().as_secs_f64().max(0.001),
                note: fetch.note.unwrap_or(match fetch.path {
                    Path::Part { .. } => "reading a part",
                    Path::Range { .. } | Path::Ahead => "reading ahead",
                    Path::Whole => "reading the whole file",
                }),
            })
            .collect()
    }

    /// Asks for the bytes there from now on, unless they are published: a draft's file may go any moment.
    pub(super) fn set_place(&self, place: FilePlace) {
        let mut state = self.state.lock();
        if !matches!(state.place.owner, Owner::Record(_)) || matches!(place.owner, Owner::Record(_)) {
            state.place = place;
        }
    }

    /// The state, for the downloads.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// A block came, or the thread that hashes ended.
    pub(super) fn announce_hash(&self) {
        self.grown.notify_all();
    }

    /// Waits for such an announcement.
    pub(super) fn wait_for_bytes(&self, state: &mut MutexGuard<'_, State>, limit: Duration) {
        self.grown.wait_until(state, Instant::now() + limit);
    }

    /// Waits until something changed, for a paused download.
    pub(super) fn wait(&self, state: &mut MutexGuard<'_, State>, limit: Duration) {
        self.changed.wait_until(state, Instant::now() + limit);
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content({})", self.stem)
    }
}

/// One open handle of a file.
#[derive(Debug)]
pub struct Reader {
    content: Arc<Content>,
    id: u64,
}

impl Reader {
    /// What is read.
    #[must_use]
    pub fn content(&self) -> &Arc<Content> {
        &self.content
    }

    /// Reads. Answers at once if the bytes are on disk; else `reply` is called when they came, or with the reason why
    /// they can't. Reads past the end are cut there. This never waits for the network.
    pub fn read(&self, offset: u64, length: u32, reply: ReadReply) {
        let size = self.content.size();
        let end = offset.saturating_add(u64::from(length)).min(size);
        if offset >= end {
            return reply(Ok(Vec::new()));
        }
        self.note(offset, end - offset);
        self.content
            .attempt(Ask::new(self.id, offset, end, Purpose::Read(reply)));
    }

    /// Says that it will stop at this byte: what follows is not fetched ahead for it.
    pub fn stop_at(&self, end: u64) {
        if let Some(reading) = self.content.state.lock().readers.get_mut(&self.id) {
            reading.limit = end;
        }
    }

    /// Notes a read in the reader's pattern. Who reads on takes part in the budget until it jumps, or all is there.
    fn note(&self, offset: u64, length: u64) {
        let store = &self.content.store;
        let mut state = self.content.state.lock();
        let is_complete = state.is_complete();
        let Some(reading) = state.readers.get_mut(&self.id) else {
            return;
        };
        let largest = store.window_of(reading.share.as_ref());
        reading.pattern.note(offset, length, largest);
        let width = store.width();
        if width > 1 {
            reading.pattern.widen(largest.min(plan::WIDE * width as u64));
        }
        if is_complete || !reading.pattern.is_sequential() {
            reading.share = None;
        } else if reading.share.is_none() {
            reading.share = Some(store.budget.join());
        }
    }

    /// Waits until all of it is on disk and verified, for as long as bytes keep coming.
    ///
    /// # Errors
    /// Why they don't.
    pub fn fetch_all(&self) -> Result<()> {
        let (tell, told) = mpsc::channel();
        let reply = Box::new(move |result| {
            // The receiver waits below.
            let _ = tell.send(result);
        });
        self.content.attempt(Ask::new(
            self.id,
            0,
            self.content.size(),
            Purpose::Complete(reply),
        ));
        // Bounded: every ask is answered, when it is done, when the download fails, by `expire` or by `stop`.
        told.recv()
            .unwrap_or_else(|_| Err(Error::new(Kind::Internal, "a read was forgotten")))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.content.close(self.id);
    }
}

fn closed() -> Error {
    Error::call(libc::EBADF)
}

/// What readers are told when the mount ends.
pub(super) fn stopping() -> Error {
    Error::new(Kind::Local(libc::EIO), "the mount is ending")
}
