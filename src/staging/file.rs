//! One staged file: its bytes on local disk, who writes it, and when it is complete. Its uploads are in `turns`.
//!
//! Made and driven by [`super::Area`], which owns the journal and the queue; it is closed in `closing`. A generation of its bytes that the journal
//! calls closed is frozen: the next write goes to a new generation, so that what is sent never changes under way.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::fs::FallocateFlags;

use super::crash::{Point, point};
use super::early::Early;
use super::journal::{Entry, Journal, Role, State};
use super::junk::{Nature, Rules};
use super::place::{Address, Place};
use super::save::{Base, LARGEST_DOCUMENT};
use super::turns::Upload;
use crate::error::{Error, Result};
use crate::repository::model::{Md5, RecordId};

/// A file that was written here, from its creation to its confirmation by the server.
pub struct Staged {
    /// Its number in the journal.
    pub(super) id: u64,
    /// The draft it belongs to.
    pub(super) draft: RecordId,
    /// Where it is in the draft. A leaf lock, so that a listing never waits for bytes.
    pub(super) address: Mutex<Address>,
    pub(super) space: Arc<Space>,
    pub(super) inner: Mutex<Inner>,
    pub(super) changed: Condvar,
    /// Handles that may write. Outside the lock: it goes up only while the table of files is held, so that nobody drops a
    /// file that somebody opens.
    pub(super) writers: AtomicUsize,
    /// Those of them that were not closed by the process that opened them, or that wrote since. The kernel tells of the end
    /// of a handle some time after its close, and of a mapped one later still.
    pub(super) active: AtomicUsize,
    /// Those of the active ones that are no program's, but a rename's.
    pub(super) errands: AtomicUsize,
    /// How often it was opened to write, ever.
    pub(super) opens: AtomicU64,
    /// Bytes of the running upload that are sent.
    pub(super) sent: AtomicU64,
}

/// What all staged files of a mount share.
pub(super) struct Space {
    pub(super) journal: Journal,
    /// The repository's address.
    pub(super) repository: String,
    /// Who stages, as a hash.
    pub(super) account: String,
    /// What is never sent.
    pub(super) rules: Rules,
    /// Brings large files to the disk while they are written.
    pub(super) early: Early,
}

pub(super) struct Inner {
    pub(super) data: Arc<File>,
    pub(super) generation: u64,
    /// What the journal on disk calls closed: what a restart would send.
    pub(super) closed: Option<Closed>,
    pub(super) size: u64,
    pub(super) mtime: SystemTime,
    /// When its bytes last changed.
    pub(super) ctime: SystemTime,
    /// Something was written that no upload has been given.
    pub(super) dirty: bool,
    /// Counts the changes of the bytes.
    pub(super) written: u64,
    /// As many of them are on disk.
    pub(super) synced: u64,
    /// As many of them the journal on disk knows of. `None`: there is no entry yet.
    pub(super) noted: Option<u64>,
    pub(super) unlinked: bool,
    /// About to be renamed or removed: no upload is asked for until that is decided.
    pub(super) held: bool,
    /// Its bytes are being copied to a new generation; who wants to write waits.
    pub(super) thawing: bool,
    /// Why a write failed: what is here is not what the program meant, and is not sent.
    pub(super) broken: Option<Error>,
    pub(super) upload: Upload,
    /// What the server said of the last bytes it confirmed.
    pub(super) confirmed: Option<Md5>,
    /// Counts the uploads asked for; the last one is the one that counts.
    pub(super) turn: u64,
    pub(super) tries: u32,
    /// Junk by its name, but it holds what was meant for the server: not dropped at the unmount.
    pub(super) keep: bool,
    /// Of a document: what it was made from.
    pub(super) base: Option<Base>,
}

/// A generation that was closed and has not arrived.
#[derive(Clone, Copy)]
pub(super) struct Closed {
    pub(super) generation: u64,
    pub(super) size: u64,
}

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// At this offset.
    At(u64),
    /// At the end, wherever that is by now (`O_APPEND`).
    End,
}

/// Something that is done with a file while programs may close it.
pub struct Errand(Arc<Staged>);

impl Drop for Errand {
    fn drop(&mut self) {
        self.0.errands.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What stat(2) wants to know.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Bytes.
    pub size: u64,
    /// When it was last written, or what utimes(2) said.
    pub mtime: SystemTime,
    /// When its bytes last changed.
    pub ctime: SystemTime,
}

impl Inner {
    /// Whether the journal calls these bytes closed: then they must not change.
    pub(super) fn is_frozen(&self) -> bool {
        self.closed
            .is_some_and(|closed| closed.generation == self.generation)
    }

    fn touch(&mut self) {
        self.mtime = SystemTime::now();
        self.ctime = self.mtime;
    }
}

impl Staged {
    /// Its key, or what its draft's document is called.
    #[must_use]
    pub fn key(&self) -> Arc<str> {
        self.address.lock().place.name()
    }

    /// Where it is in its draft.
    #[must_use]
    pub fn place(&self) -> Place {
        self.address.lock().place.clone()
    }

    pub(super) fn address(&self) -> Address {
        self.address.lock().clone()
    }

    /// Gives it another place. The journal doesn't know yet.
    pub(super) fn set_address(&self, address: Address) {
        *self.address.lock() = address;
    }

    /// Changes its address. The journal doesn't know yet.
    pub(super) fn update_address<T>(&self, change: impl FnOnce(&mut Address) -> T) -> T {
        change(&mut self.address.lock())
    }

    /// What its name says of it.
    pub(super) fn nature(&self) -> Nature {
        match self.place() {
            Place::File(key) => self.space.rules.nature_of(&key),
            Place::Document => Nature::Real,
        }
    }

    /// Its draft.
    #[must_use]
    pub fn draft(&self) -> &RecordId {
        &self.draft
    }

    /// What stat(2) wants to know.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let inner = self.inner.lock();
        Facts {
            size: inner.size,
            mtime: inner.mtime,
            ctime: inner.ctime,
        }
    }

    /// Reads up to `length` bytes; fewer at the end of the file.
    ///
    /// # Errors
    /// `Local`.
    pub fn read(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
        let (data, size) = {
            let inner = self.inner.lock();
            (Arc::clone(&inner.data), inner.size)
        };
        let length = u64::from(length).min(size.saturating_sub(offset));
        // At most the u32 it came from.
        let mut buffer = vec![0; usize::try_from(length).unwrap_or(0)];
        let mut filled = 0;
        while filled < buffer.len() {
            match data.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::local(format_args!("read staged {}", self.key()), &e)),
            }
        }
        buffer.truncate(filled);
        Ok(buffer)
    }

    /// What utimes(2) said. The server keeps no such time.
    pub fn set_mtime(&self, mtime: SystemTime) {
        self.inner.lock().mtime = mtime;
    }

    /// Writes; the file grows as needed.
    ///
    /// # Errors
    /// `DiskFull` or `Local`; `Call(EFBIG)` past the largest offset.
    pub fn write(&self, position: Position, bytes: &[u8]) -> Result<()> {
        self.write_locked(self.inner.lock(), position, bytes)
    }

    /// Writes, if that is quick: nobody else is at these bytes, and nothing has to be copied or journalled first.
    /// `None` if it is not.
    ///
    /// # Errors
    /// As for [`Staged::write`].
    pub fn write_quickly(&self, position: Position, bytes: &[u8]) -> Option<Result<()>> {
        let inner = self.inner.try_lock()?;
        let is_quick = inner.dirty && inner.noted.is_some() && !inner.thawing && !inner.is_frozen();
        is_quick.then(|| self.write_locked(inner, position, bytes))
    }

    fn write_locked(&self, mut inner: MutexGuard<'_, Inner>, position: Position, bytes: &[u8]) -> Result<()> {
        let offset = match position {
            Position::At(offset) => offset,
            Position::End => inner.size,
        };
        let end = offset
            .checked_add(bytes.len() as u64)
            .filter(|end| i64::try_from(*end).is_ok());
        let end = end.ok_or_else(|| Error::call(libc::EFBIG))?;
        self.refuse_too_large(end)?;
        self.thaw(&mut inner, u64::MAX)?;
        let wrote = inner.data.write_all_at(bytes, offset);
        inner.size = match &wrote {
            Ok(()) => inner.size.max(end),
            Err(_) => inner.data.metadata().map_or(inner.size, |m| m.len()),
        };
        inner.touch();
        if let Err(e) = wrote {
            let error = Error::local(format_args!("write staged {}", self.key()), &e);
            inner.broken = Some(error.clone());
            return Err(error);
        }
        self.space.early.wrote(&inner.data, offset, end);
        Ok(())
    }

    /// Cuts the file, or lets it grow with zeros.
    ///
    /// # Errors
    /// `DiskFull` or `Local`.
    pub fn truncate(&self, size: u64) -> Result<()> {
        self.refuse_too_large(size)?;
        let mut inner = self.inner.lock();
        self.thaw(&mut inner, size)?;
        inner
            .data
            .set_len(size)
            .map_err(|e| Error::local(format_args!("truncate staged {}", self.key()), &e))?;
        inner.size = size;
        inner.touch();
        if size == 0 {
            inner.broken = None;
        }
        Ok(())
    }

    /// A document is sent in one piece from memory.
    fn refuse_too_large(&self, size: u64) -> Result<()> {
        if size > LARGEST_DOCUMENT && self.place() == Place::Document {
            return Err(Error::call(libc::EFBIG));
        }
        Ok(())
    }

    /// Makes room, or holes, as fallocate(2) does on the disk of the staged files.
    ///
    /// # Errors
    /// `Call(EOPNOTSUPP)` for what that disk can't; `DiskFull` or `Local`.
    pub fn allocate(&self, offset: u64, length: u64, flags: i32) -> Result<()> {
        let mut inner = self.inner.lock();
        self.thaw(&mut inner, u64::MAX)?;
        let flags = FallocateFlags::from_bits_retain(flags.cast_unsigned());
        let done = rustix::fs::fallocate(&*inner.data, flags, offset, length);
        inner.size = inner
            .data
            .metadata()
            .map_or(inner.size, |metadata| metadata.len());
        inner.touch();
        match done {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP) => Err(Error::call(libc::EOPNOTSUPP)),
            Err(e) => Err(Error::local(
                format_args!("make room for staged {}", self.key()),
                &e.into(),
            )),
        }
    }

    /// Makes the bytes writable, of which the first `keep` are still needed. What the journal calls closed must not
    /// change any more, because a restart would send it: writing goes on in a copy, and an upload of the old bytes is
    /// stopped, but not before there is a copy.
    fn thaw(&self, inner: &mut MutexGuard<'_, Inner>, keep: u64) -> Result<()> {
        loop {
            while inner.thawing {
                self.changed.wait(inner);
            }
            match (&inner.upload, inner.closed) {
                // Only its handles know it: nothing of it is sent or kept.
                _ if inner.unlinked => {}
                (Upload::Done, Some(_)) => {
                    // The server has the closed bytes: nothing is lost if a restart doesn't send them.
                    let closed = inner.closed.take();
                    let noted = self.space.journal.write(&self.entry(inner, State::Open));
                    if let Err(error) = noted {
                        inner.closed = closed;
                        return Err(error);
                    }
                }
                (_, Some(closed)) if closed.generation == inner.generation => {
                    self.copy_generation(inner, keep)?;
                    continue;
                }
                (_, Some(_)) => {}
                (_, None) if inner.noted.is_none() => self.note_unsynced(inner)?,
                (_, None) => {}
            }
            inner.dirty = true;
            inner.written += 1;
            return Ok(());
        }
    }

    /// Goes on in a copy of the closed bytes. The lock is let go meanwhile, because a large file takes long and others want
    /// to look at this one: should the closed bytes arrive or go before it is done, there is no need for it any more.
    fn copy_generation(&self, inner: &mut MutexGuard<'_, Inner>, keep: u64) -> Result<()> {
        let journal = &self.space.journal;
        let (data, old) = (Arc::clone(&inner.data), inner.generation);
        inner.thawing = true;
        let copied = MutexGuard::unlocked(inner, || {
            let (copy, generation) = journal.create_data(self.id, old + 1)?;
            match copy_bytes(&data, &copy, keep) {
                Ok(_) => Ok((copy, generation)),
                Err(e) => {
                    journal.remove_data(self.id, generation);
                    Err(Error::local(format_args!("copy staged {}", self.key()), &e))
                }
            }
        });
        inner.thawing = false;
        self.changed.notify_all();
        let (copy, generation) = copied?;
        let is_needed = !inner.unlinked
            && inner.generation == old
            && !matches!(inner.upload, Upload::Done)
            && inner.is_frozen();
        if is_needed {
            inner.data = Arc::new(copy);
            inner.generation = generation;
            // So that a restart knows of what is written from now on.
            if let Err(error) = journal.write(&self.entry(inner, State::Open)) {
                inner.data = data;
                inner.generation = old;
                journal.remove_data(self.id, generation);
                return Err(error);
            }
            self.stop_upload(inner);
        } else {
            journal.remove_data(self.id, generation);
        }
        Ok(())
    }

    /// One more writer. Only while the table of files is held.
    pub(super) fn add_writer(&self) {
        self.opens.fetch_add(1, Ordering::AcqRel);
        self.writers.fetch_add(1, Ordering::AcqRel);
        self.wake();
    }

    /// A writer that was closed by the process that opened it goes on after all.
    pub fn wake(&self) {
        self.active.fetch_add(1, Ordering::AcqRel);
    }

    /// A writer was closed by the process that opened it; its handle is still there.
    pub fn rest(&self) {
        self.active.fetch_sub(1, Ordering::AcqRel);
    }

    /// How often it was opened to write, ever.
    pub(super) fn opens(&self) -> u64 {
        self.opens.load(Ordering::Acquire)
    }

    /// Whether somebody has it open for writing, who will close it.
    #[must_use]
    pub fn has_writers(&self) -> bool {
        self.writers.load(Ordering::Acquire) > 0
    }

    /// The caller's writer is no program's.
    #[must_use]
    pub fn errand(self: &Arc<Self>) -> Errand {
        self.errands.fetch_add(1, Ordering::AcqRel);
        Errand(Arc::clone(self))
    }

    /// Whether somebody has it open for writing and has not closed it.
    pub(super) fn is_written(&self) -> bool {
        self.active.load(Ordering::Acquire) > 0
    }

    /// One writer less.
    pub(super) fn remove_writer(&self) {
        self.rest();
        self.writers.fetch_sub(1, Ordering::AcqRel);
    }

    /// Removes its bytes and its journal entry. Open handles can still read.
    pub(super) fn drop_data(&self) {
        let inner = self.inner.lock();
        let journal = &self.space.journal;
        journal.remove(self.id);
        point(Point::EntryDropped);
        journal.remove_data(self.id, inner.generation);
        if let Some(closed) = inner.closed {
            journal.remove_data(self.id, closed.generation);
        }
    }

    pub(super) fn note_unsynced(&self, inner: &mut Inner) -> Result<()> {
        self.space
            .journal
            .write_unsynced(&self.entry(inner, State::Open))?;
        inner.noted = Some(0);
        Ok(())
    }

    /// The journal entry of this moment. While an older generation is closed and unsent, a restart must send that one:
    /// the open one is only named beside it.
    pub(super) fn entry(&self, inner: &Inner, state: State) -> Entry {
        let (generation, size, state, open) = match (inner.closed, state) {
            // Held, and not written since: a restart sends it.
            (Some(closed), State::Open) if closed.generation == inner.generation => {
                (closed.generation, closed.size, State::Closed, None)
            }
            (Some(closed), State::Open) => (
                closed.generation,
                closed.size,
                State::Closed,
                Some(inner.generation),
            ),
            (_, state) => (inner.generation, inner.size, state, None),
        };
        let address = self.address.lock();
        Entry {
            id: self.id,
            repository: self.space.repository.clone(),
            account: self.space.account.clone(),
            draft: self.draft.to_string(),
            key: address.place.name().to_string(),
            role: match address.place {
                Place::File(_) => Role::File,
                Place::Document => Role::Document,
            },
            order: address.order,
            replaces: address.replaces.iter().map(ToString::to_string).collect(),
            generation,
            size,
            state,
            open,
            broken: inner.broken.is_some(),
            base: inner.base.clone(),
        }
    }
}

/// Copies the first bytes, whatever the position of the file is; the kernel shares the blocks where it can.
pub(super) fn copy_bytes(from: &File, to: &File, most: u64) -> std::io::Result<u64> {
    let from = File::open(format!("/proc/self/fd/{}", from.as_raw_fd()))?;
    std::io::copy(&mut from.take(most), &mut &*to)
}

impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Staged({} of {})", self.key(), self.draft)
    }
}
