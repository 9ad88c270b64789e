//! One file's bytes: reads that are answered from disk or wait, and what becomes of them.
//!
//! `mount/` and `staging/` call `Content` and `Reader`; `fetch.rs` calls the rest when bytes came or a download ended.
//! A reply must never be called, and neither network nor file data waited for, under the lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::ask::Ask;
use super::blocks::{BLOCK, Blocks, LARGEST, Names, ReadFault};
use super::plan;
use super::reader::Reader;
use super::state::{Copy, Path, Reading, State};
use super::{DownloadStatus, Identity, Result, Store, View};
use crate::error::{Error, Kind};
use crate::repository::model::{FilePlace, Owner};

/// How long one read may wait although bytes keep coming, as they do when a server sends whole files only and the
/// read is for the end of a large one. A program in such a read can't even be killed.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How often a read looks at a complete copy anew that is another with each look.
const MOST_LOOKS: u32 = 16;

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
        let mut state = State::new(place, identity.size(), checked);
        state.has_room = identity.size() <= store.limits().most;
        Content {
            state: Mutex::new(state),
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
        Reader::new(Arc::clone(self), id)
    }

    /// Bytes turned out wrong by another sum than the file's own: unless that one was compared, they are fetched again
    /// when somebody asks.
    pub fn doubt(&self, offset: u64, end: u64) {
        let mut state = self.state.lock();
        if state.is_complete() || state.proved {
            return;
        }
        for block in offset / BLOCK..end.min(self.size()).div_ceil(BLOCK) {
            self.store.ledger().give_back(state.lose(block));
            state.doubt(block);
        }
    }

    /// How many bytes are here.
    pub(super) fn have(&self) -> u64 {
        let state = self.state.lock();
        if state.is_complete() {
            state.size
        } else {
            state.presence.bytes()
        }
    }

    /// Answers a read if its bytes are there, else lets it wait and makes sure that they are on their way. Never waits.
    pub(super) fn attempt(self: &Arc<Self>, mut ask: Ask) {
        if self.size() > LARGEST {
            let place = self.state.lock().place.clone();
            let what = format!("the server says that {place} has {} bytes", self.size());
            return ask.fail(Error::new(Kind::ServerFailed, what));
        }
        let mut looks = 0;
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
                ask.has_waited = true;
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
            state.note_shown(ask.offset, ask.end);
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
            let in_memory = state.in_memory(ask.offset, ask.end);
            let (is_whole, stamp) = (state.is_complete(), state.stamp);
            drop(state);
            self.start(start);
            let read = untrusted
                .iter()
                .try_for_each(|block| self.check(&blocks, *block, removals, stamp).map(drop))
                .and_then(|()| Ok(blocks.read_with(ask.offset, ask.end, &in_memory)?));
            match read {
                // A block taken away meanwhile may have been read as zeros.
                _ if blocks.removals() != removals => {}
                // Nothing writes to a complete copy, so whoever did changed what was compared.
                Ok(_) if is_whole && (stamp.is_none() || blocks.stamp().ok() != stamp) => {
                    looks += 1;
                    if looks > MOST_LOOKS {
                        let what = format!("the copy of {} in the cache is being changed", self.stem);
                        return ask.fail(Error::new(Kind::Corrupt, what));
                    }
                    self.renew_stamp(&blocks);
                }
                Ok(bytes) => {
                    if !ask.has_waited {
                        self.store.tally().read(bytes.len() as u64);
                    }
                    return ask.answer(Ok(bytes));
                }
                Err(ReadFault::Damaged(_)) => {}
                Err(ReadFault::Io(error)) => {
                    return ask.fail(Error::local(format!("read {} from the cache", self.stem), &error));
                }
            }
        }
    }

    /// Plans anew for all that read on: more may be fetched at once now, or a range is about to end.
    pub(super) fn plan_ahead(self: &Arc<Self>) {
        let start = {
            let mut state = self.state.lock();
            let first = self.store.first_window();
            for reading in state.readers.values_mut() {
                reading.pattern.widen(first);
            }
            plan::for_readers(&mut state, &mut View::of(self))
        };
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
        let (start, gone) = {
            let mut state = self.state.lock();
            let mut view = View::of(self);
            let mut start = plan::for_waiters(&mut state, &mut view);
            // What failed is not tried again until somebody asks.
            if result.is_ok() {
                start.append(&mut plan::for_readers(&mut state, &mut view));
            }
            (start, self.rest(&mut state))
        };
        self.store.discard(gone);
        if let Err(error) = result {
            log::debug!("fetch of {}: {error}", self.stem);
            for ask in failed {
                ask.fail(error.clone());
            }
        }
        self.start(start);
    }

    /// The whole file came and its checksum is another one, or a part came twice and was not the same (`what` tells):
    /// whoever may have seen a byte of it is told, the copy goes, and the others, who saw nothing, get a second one.
    pub(super) fn mismatch(self: &Arc<Self>, what: &str) {
        let again = self.store.note_mismatch(&self.stem);
        let (told, gone) = {
            let mut state = self.state.lock();
            let error = Error::new(
                Kind::Corrupt,
                format!("{} {what}, and should be {}", state.place, self.stem),
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
        self.store.tell_wrong(self);
        // The others' download starts when the one that noticed ends.
    }

    /// Forgets the copy and takes its files away; they are to be deleted after unlocking.
    pub(super) fn drop_copy(&self, state: &mut State) -> Option<super::evict::Trash> {
        let had = state.blocks().is_some();
        let gone = self.drop_files(state);
        had.then_some(gone).flatten()
    }

    /// As `drop_copy`, also if the files are of no use as a copy.
    pub(super) fn drop_files(&self, state: &mut State) -> Option<super::evict::Trash> {
        let bytes = state.presence.bytes();
        let names = Names::new(self.store.root(), &self.stem);
        state.copy = if state.readers.is_empty() {
            Copy::Unopened
        } else {
            Copy::Nothing
        };
        state.presence = super::blocks::Presence::none(state.size);
        state.generation += 1;
        state.forget_bytes();
        state.handed_out = 0;
        self.store.trash(&names, bytes)
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
        let Some(_tenure) = self.store.tenure() else {
            return Err(stopping());
        };
        let names = Names::new(self.store.root(), &self.stem);
        let blocks = Blocks::create(&names, state.size)
            .map_err(|error| Error::local(format!("make {}", names.data.display()), &error))?;
        let blocks = Arc::new(blocks);
        state.copy = Copy::Partial(Arc::clone(&blocks));
        self.store.ledger().count_file();
        Ok(Some(blocks))
    }

    /// The lock, after looking at what is on disk.
    pub(super) fn lock_open(&self) -> MutexGuard<'_, State> {
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
                        if state.presence.missing() == 0 && state.size > 0 {
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

    /// After a reader left or a download ended: if that was the last, the files are closed. What it returns is to be
    /// deleted after unlocking.
    #[must_use]
    pub(super) fn rest(&self, state: &mut State) -> Option<super::evict::Trash> {
        if !state.is_idle() {
            return None;
        }
        self.store.ledger().count_close();
        let keeps = !self.store.keeps_nothing() || self.store.pins().has(&self.stem);
        let gone = if keeps { None } else { self.drop_copy(state) };
        state.copy = Copy::Unopened;
        state.presence = super::blocks::Presence::none(0);
        state.forget_bytes();
        gone
    }

    /// A reader leaves.
    pub(super) fn close(self: &Arc<Self>, id: u64) {
        let (left, gone) = {
            let mut state = self.state.lock();
            state.readers.remove(&id);
            let left = state.take_waiters(|_, ask| ask.reader == id);
            if state.readers.is_empty()
                && let Some(blocks) = state.blocks()
                && let Err(error) = blocks.touch()
            {
                log::debug!("cache: {}: {error}", self.stem);
            }
            let gone = self.rest(&mut state);
            self.changed.notify_all();
            (left, gone)
        };
        self.store.discard(gone);
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
        // What was given away is a file without a name from now on.
        state.handed_out = 0;
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

    /// How its download is, if it is being downloaded.
    pub(super) fn download(&self) -> Option<DownloadStatus> {
        let state = self.state.lock();
        let first = state.fetches.iter().min_by_key(|fetch| fetch.started)?;
        let noted = state.fetches.iter().find_map(|fetch| fetch.note);
        Some(DownloadStatus {
            place: state.place.clone(),
            have: state.presence.bytes(),
            total: state.size,
            started: std::time::SystemTime::now()
                .checked_sub(first.started.elapsed())
                .unwrap_or(std::time::UNIX_EPOCH),
            rate: state.meter.rate(Instant::now()),
            waiting: state.waiters.len(),
            note: noted.unwrap_or(match first.path {
                Path::Part { .. } => "reading a part",
                Path::Range { .. } => "reading ahead",
                Path::Whole => "reading the whole file",
            }),
        })
    }

    /// Asks for the bytes there from now on, unless they are published: a draft's file may go any moment. A place without
    /// a key is none.
    pub(super) fn set_place(&self, place: FilePlace) {
        if place.key.is_empty() {
            return;
        }
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

fn closed() -> Error {
    Error::call(libc::EBADF)
}

/// What readers are told when the mount ends.
pub(super) fn stopping() -> Error {
    Error::new(Kind::Local(libc::EIO), "the mount is ending")
}
