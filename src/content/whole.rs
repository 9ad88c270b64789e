//! Complete copies: reading them at once, comparing them with their checksums, handing them to the kernel.
//!
//! `mount/` and `staging/` call it; the bytes of a copy that is not complete are `file.rs`'s matter. Nothing here asks the
//! network, and no file data is read under the content's lock.
//!
//! Two rules say what is served without comparing it again. A block that was compared, or written, since the copy was
//! opened counts as right while the data file keeps the stamp it had (`stamp`). And the kernel gets a data file only with
//! the stamp that it had when all of it was compared in this run of the machine, because what it reads nobody compares.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use super::blocks::{BLOCK, Blocks, ReadFault, blocks_in, span_of};
use super::file::Content;
use super::given::{CompleteFile, Given, HandedOut};
use super::reader::Reader;
use super::stamp::Stamp;
use super::state::{Copy, State};
use super::{Identity, Result, Store};

/// A copy of up to this size is compared while its open waits, which takes a few milliseconds.
const AT_ONCE: u64 = 8 * 1024 * 1024;

/// So many copies wait for being compared at most; who finds no room asks again with the next open.
const LONGEST_QUEUE: usize = 64;

/// Reads and hashes one block at a time.
const STACK: usize = 256 * 1024;

impl Content {
    /// Complete, and its MD5 was compared: the kernel may keep its pages.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        if !self.has_checksum() {
            return false;
        }
        let mut state = self.lock_open();
        let verified = state.is_complete();
        let gone = self.rest(&mut state);
        drop(state);
        self.store.discard(gone);
        verified
    }

    fn has_checksum(&self) -> bool {
        matches!(self.identity, Identity::Md5 { .. })
    }

    /// The file on disk, if it is complete and, where it has a checksum, verified. Blocks that an earlier daemon wrote
    /// are checked first, so this may read the whole file from disk.
    #[must_use]
    pub fn complete_file(self: &Arc<Self>) -> Option<CompleteFile> {
        if self.size() == 0 {
            let file = tempfile::tempfile_in(self.store.root()).ok()?;
            return Some(CompleteFile::new(file, None));
        }
        // Open as a reader, so that nothing is dropped meanwhile.
        let reader = self.reader();
        let mut state = self.lock();
        let blocks = complete(&state)?;
        let given = Given::new(reader, &mut state);
        drop(state);
        if !self.compare_untrusted(&blocks) {
            return None;
        }
        let file = blocks
            .reopen()
            .map_err(|error| log::warn!("cache: {}: {error}", self.stem))
            .ok()?;
        Some(CompleteFile::new(file, Some(given)))
    }

    /// Hands the copy to the kernel if it is complete and is what it was when all of it was compared. If only the latter is
    /// not known, it is compared now if it is small, else in the background, so that a later open finds it known.
    #[must_use]
    pub fn hand_out(self: &Arc<Self>) -> Option<HandedOut> {
        if self.size() == 0 || !self.has_checksum() {
            return None;
        }
        let reader = self.reader();
        let blocks = complete(&self.lock())?;
        if !self.is_untouched(&blocks) {
            if self.size() > AT_ONCE {
                self.store.comparer.add(reader);
                return None;
            }
            if !self.compare_all(&blocks) {
                return None;
            }
        }
        let file = blocks
            .reopen()
            .map_err(|error| log::warn!("cache: {}: {error}", self.stem))
            .ok()?;
        let mut state = self.lock();
        let now = complete(&state)?;
        if !Arc::ptr_eq(&now, &blocks) {
            return None;
        }
        let given = Given::new(reader, &mut state);
        drop(state);
        Some(HandedOut::new(given, file))
    }

    /// Whether what was handed out is still what it was then. Compares all of it if the file was touched: the kernel may go
    /// on serving it, so this may wait for the local disk, and what is wrong is noted.
    #[must_use]
    pub fn is_still_right(self: &Arc<Self>) -> bool {
        let blocks = complete(&self.lock());
        blocks.is_some_and(|blocks| self.is_untouched(&blocks) || self.compare_all(&blocks))
    }

    /// Has a copy that has just become complete compared in the background, so that the next open finds it known. A small
    /// one is compared when it is opened, and none for a cache that keeps nothing.
    pub(super) fn compare_later(self: &Arc<Self>) {
        if self.size() > AT_ONCE && !self.store.keeps_nothing() {
            self.store.comparer.add(self.reader());
        }
    }

    fn is_untouched(&self, blocks: &Blocks) -> bool {
        let untouched = blocks.stamp().and_then(|now| blocks.is_right_with(now));
        untouched.unwrap_or_else(|error| {
            log::debug!("cache: {}: {error}", self.stem);
            false
        })
    }

    /// Compares all blocks, whatever was known of them, and keeps the stamp if all are right.
    fn compare_all(&self, blocks: &Arc<Blocks>) -> bool {
        let Ok(stamp) = blocks.stamp() else {
            return false;
        };
        {
            let mut state = self.lock();
            if state.blocks().is_some_and(|now| Arc::ptr_eq(now, blocks)) {
                state.presence.distrust();
                state.stamp = Some(stamp);
            }
        }
        let right = self.compare_untrusted(blocks);
        // A change meanwhile makes it another stamp, so that this one is worth nothing.
        if right && let Err(error) = blocks.keep_stamp(stamp) {
            log::debug!("cache: the map of {}: {error}", self.stem);
        }
        right
    }

    /// Compares the blocks that nobody compared yet. False if one is wrong, or the copy another, or the mount ends.
    fn compare_untrusted(&self, blocks: &Arc<Blocks>) -> bool {
        let removals = blocks.removals();
        for block in 0..blocks_in(self.size()) {
            if self.store.is_stopping() {
                return false;
            }
            let (is_trusted, stamp) = {
                let state = self.lock();
                (state.presence.is_trusted(block), state.stamp)
            };
            if !is_trusted && let Err(fault) = self.check(blocks, block, removals, stamp) {
                log::warn!("cache: {}: {fault:?}", self.stem);
                return false;
            }
        }
        true
    }

    /// Reads a block and compares it with its CRC, and remembers the outcome. What was removed, and the stamp, are those of
    /// before.
    pub(super) fn check(
        &self,
        blocks: &Arc<Blocks>,
        block: u64,
        removals: u64,
        stamp: Option<Stamp>,
    ) -> Result<Vec<u8>, ReadFault> {
        let read = blocks.read_summed(block);
        let compared = read.as_ref().map(|(_, crc)| *crc);
        self.note_compared(blocks, block, removals, stamp, compared);
        read.map(|(bytes, _)| bytes)
    }

    fn note_compared(
        &self,
        blocks: &Arc<Blocks>,
        block: u64,
        removals: u64,
        stamp: Option<Stamp>,
        compared: Result<u32, &ReadFault>,
    ) {
        let mut state = self.lock();
        // What is there now may be another copy than the one looked at.
        let is_current = state.blocks().is_some_and(|now| Arc::ptr_eq(now, blocks));
        if !is_current || blocks.removals() != removals {
            return;
        }
        match compared {
            Ok(crc) => {
                // Whoever found the file changed meanwhile trusts nothing that was compared before.
                if state.stamp == stamp {
                    state.presence.trust(block);
                }
                state.note_sum(block, crc);
            }
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
}

/// The files of a copy that is complete.
fn complete(state: &State) -> Option<Arc<Blocks>> {
    match &state.copy {
        Copy::Complete(blocks) => Some(Arc::clone(blocks)),
        _ => None,
    }
}

/// Called with the bytes of a read, or with nothing if they have to be asked for in another way.
type Answer = Box<dyn FnOnce(Option<&[u8]>) + Send>;

/// A read of a block that another thread is comparing: it is answered with what that thread has read.
pub(super) struct Later {
    offset: u64,
    end: u64,
    reply: Answer,
}

/// Counts what is answered from a complete copy.
fn count(content: &Content, offset: u64, end: u64) {
    content.store.tally().read(end - offset);
}

/// Blocks that one thread reads and compares, with the reads that wait for it. They are answered at the latest when it is
/// dropped.
struct Turn<'a> {
    content: &'a Content,
    blocks: &'a [u64],
    answered: bool,
}

impl Turn<'_> {
    /// Answers with these bytes, which begin at `from`, or that there are none. Only once: after that, what waits for the
    /// same blocks waits for another thread.
    fn answer(&mut self, bytes: Option<&[u8]>, from: u64) {
        if std::mem::replace(&mut self.answered, true) {
            return;
        }
        let later: Vec<Later> = {
            let mut state = self.content.lock();
            let (mine, others) = std::mem::take(&mut state.comparing)
                .into_iter()
                .partition(|(block, _)| self.blocks.contains(block));
            state.comparing = others;
            mine.into_iter().flat_map(|(_, later)| later).collect()
        };
        for Later { offset, end, reply } in later {
            if bytes.is_some() {
                count(self.content, offset, end);
            }
            // They are within one of the blocks that were read.
            reply(bytes.map(|bytes| &bytes[(offset - from) as usize..(end - from) as usize]));
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.answer(None, 0);
    }
}

/// What a read of a complete copy has to do.
struct Task {
    blocks: Arc<Blocks>,
    stamp: Option<Stamp>,
    untrusted: Vec<u64>,
}

impl Reader {
    /// Reads from a complete copy, on this thread: no longer than the local disk takes. `reply` is called with the bytes,
    /// perhaps on another thread that is reading the same block; with `None`, and [`Reader::read`] is to be asked, if the
    /// copy is not complete or not right. The buffer grows as needed and is meant to be used again.
    pub fn read_complete(
        &self,
        offset: u64,
        length: u32,
        buffer: &mut Vec<u8>,
        reply: impl FnOnce(Option<&[u8]>) + Send + 'static,
    ) {
        let content = &self.content;
        let end = offset.saturating_add(u64::from(length)).min(content.size());
        if offset >= end {
            return reply(Some(&[]));
        }
        let mut reply = Some(reply);
        // A file that changes with every look is not for this thread.
        for _ in 0..2 {
            let Some(task) = self.task(offset, end, &mut reply) else {
                break;
            };
            let removals = task.blocks.removals();
            let is_same = || {
                let now = task.blocks.stamp().ok();
                now.is_some() && now == task.stamp && task.blocks.removals() == removals
            };
            let done = if task.untrusted.is_empty() && task.stamp.is_some() {
                // Both are within one read.
                let part = grown(buffer, (end - offset) as usize);
                // Looked at afterwards: with the same stamp nothing was changed before.
                let read = task.blocks.read_into(offset, part).is_ok() && is_same();
                read.then_some((&*part, offset))
            } else {
                let mut turn = Turn {
                    content,
                    blocks: &task.untrusted,
                    answered: false,
                };
                let read = is_same()
                    .then(|| self.read_and_compare(&task, (offset, end), buffer))
                    .flatten()
                    .filter(|_| is_same());
                turn.answer(read.map(|(bytes, _)| bytes), read.map_or(0, |(_, from)| from));
                read
            };
            if let Some((bytes, from)) = done {
                if let Some(reply) = reply.take() {
                    count(content, offset, end);
                    reply(Some(&bytes[(offset - from) as usize..(end - from) as usize]));
                }
                return;
            }
            content.renew_stamp(&task.blocks);
        }
        if let Some(reply) = reply.take() {
            reply(None);
        }
    }

    /// What is to be done for these bytes, if that is to be done here: the reply is taken if another thread does it.
    fn task<R>(&self, offset: u64, end: u64, reply: &mut Option<R>) -> Option<Task>
    where
        R: FnOnce(Option<&[u8]>) + Send + 'static,
    {
        let mut state = self.content.lock();
        let failed = state
            .readers
            .get(&self.id)
            .is_none_or(|reading| reading.failed.is_some());
        if failed || !state.fetches.is_empty() {
            return None;
        }
        let blocks = complete(&state)?;
        state.served += 1;
        let touched = offset / BLOCK..end.div_ceil(BLOCK);
        let is_one = touched.end - touched.start == 1;
        let untrusted: Vec<u64> = touched
            .filter(|block| !state.presence.is_trusted(*block))
            .collect();
        if let (true, [block]) = (is_one, &*untrusted)
            && let Some((_, waiting)) = state.comparing.iter_mut().find(|(other, _)| other == block)
        {
            let reply = reply.take()?;
            waiting.push(Later {
                offset,
                end,
                reply: Box::new(reply),
            });
            return None;
        }
        for block in &untrusted {
            state.comparing.push((*block, Vec::new()));
        }
        Some(Task {
            blocks,
            stamp: state.stamp,
            untrusted,
        })
    }

    /// Reads the blocks around these bytes and compares those that are not trusted. Returns them, and where they begin.
    fn read_and_compare<'b>(
        &self,
        task: &Task,
        (offset, end): (u64, u64),
        buffer: &'b mut Vec<u8>,
    ) -> Option<(&'b [u8], u64)> {
        let (content, blocks) = (&self.content, &task.blocks);
        let removals = blocks.removals();
        let (from, _) = span_of(offset / BLOCK, content.size());
        let (_, to) = span_of((end - 1) / BLOCK, content.size());
        // A read and two blocks at most.
        let bytes = grown(buffer, (to - from) as usize);
        blocks.read_into(from, bytes).ok()?;
        for block in &task.untrusted {
            let (start, end) = span_of(*block, content.size());
            let compared = blocks.compare(*block, &bytes[(start - from) as usize..(end - from) as usize]);
            content.note_compared(blocks, *block, removals, task.stamp, compared.as_ref().copied());
            compared.ok()?;
        }
        Some((bytes, from))
    }
}

/// So much of the buffer. It is not made smaller again: it is used for the next read too.
fn grown(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    &mut buffer[..length]
}

impl Content {
    /// The data file is not what it was, or nobody looked yet: what was compared before counts only if the map has the
    /// file's stamp from when all of it was.
    pub(super) fn renew_stamp(&self, blocks: &Arc<Blocks>) {
        let Ok(stamp) = blocks.stamp() else { return };
        // It may have been written, by this process and the last time, after it was looked at last.
        let is_right = blocks.is_right_with(stamp).unwrap_or(false);
        let mut state = self.lock();
        if !state.blocks().is_some_and(|now| Arc::ptr_eq(now, blocks)) {
            return;
        }
        if !is_right {
            state.presence.distrust();
        }
        state.stamp = Some(stamp);
    }
}

/// Copies that wait for being compared, for the kernel to get them. One thread works on them, while there are any.
#[derive(Debug, Default)]
pub(super) struct Comparer {
    state: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Open as long as they wait, so that they are not dropped.
    waiting: VecDeque<Reader>,
    /// What is compared now.
    busy: Option<Arc<str>>,
    /// How many copies the kernel has.
    handed_out: u64,
}

impl Comparer {
    fn add(&self, reader: Reader) {
        let mut queue = self.state.lock();
        let stem = &reader.content.stem;
        let is_known = queue.busy.as_ref() == Some(stem)
            || queue.waiting.iter().any(|waiting| waiting.content.stem == *stem);
        if is_known || queue.waiting.len() >= LONGEST_QUEUE {
            // Unlocked before it is closed, which takes other locks.
            drop(queue);
            return;
        }
        let store = Arc::clone(&reader.content.store);
        let is_idle = queue.busy.is_none();
        if is_idle {
            queue.busy = Some(Arc::clone(stem));
        }
        queue.waiting.push_back(reader);
        drop(queue);
        if !is_idle {
            return;
        }
        let started = thread::Builder::new()
            .name("rdmfs-compare".into())
            .stack_size(STACK)
            .spawn(move || while store.comparer.compare_next() {});
        if let Err(error) = started {
            log::warn!("cache: can't start a thread to compare what is there: {error}");
            let left = {
                let mut queue = self.state.lock();
                queue.busy = None;
                std::mem::take(&mut queue.waiting)
            };
            drop(left);
        }
    }

    /// Compares one copy. False if there is none.
    fn compare_next(&self) -> bool {
        let reader = {
            let mut queue = self.state.lock();
            let reader = queue.waiting.pop_front();
            queue.busy = reader.as_ref().map(|reader| Arc::clone(&reader.content.stem));
            reader
        };
        let Some(reader) = reader else { return false };
        let content = &reader.content;
        let blocks = complete(&content.lock());
        if let Some(blocks) = blocks
            && catch_unwind(AssertUnwindSafe(|| content.compare_all(&blocks))).is_err()
        {
            // The others still have their turn.
            log::error!("comparing {} panicked", content.stem);
        }
        true
    }

    /// The kernel has so many copies now.
    pub(super) fn count(&self, change: impl FnOnce(u64) -> u64) {
        let mut queue = self.state.lock();
        queue.handed_out = change(queue.handed_out);
    }
}

impl Store {
    /// How many copies the kernel reads by itself now.
    #[must_use]
    pub fn handed_out(&self) -> u64 {
        self.comparer.state.lock().handed_out
    }

    /// Calls `hear` for each content of which wrong bytes were served: what the kernel keeps of them is to go. It is called
    /// without a lock, on a thread that must not wait. Only the first listener counts.
    pub fn on_wrong(&self, hear: impl Fn(&Content) + Send + Sync + 'static) {
        drop(self.wrong_told.set(Box::new(hear)));
    }

    pub(super) fn tell_wrong(&self, content: &Content) {
        if let Some(hear) = self.wrong_told.get() {
            hear(content);
        }
    }
}
