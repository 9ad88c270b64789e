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

use parking_lot::{Condvar, Mutex};
use rustix::fs::FallocateFlags;

use super::crash::{Point, point};
use super::journal::{Entry, Journal, Role, State};
use super::junk::{Nature, Rules};
use super::place::{Address, Place};
use super::save::Base;
use super::turns::Upload;
use crate::error::{Error, Kind, Result};
use crate::repository::model::{Md5, RecordId};

/// A file that was written here, from its creation to its confirmation by the server.
pub struct Staged {
    /// Its number in the journal.
    pub(super) id: u64,
    /// The draft it belongs to.
    pub(super) draft: RecordId,
    /// Where it is in the draft. A leaf lock, so that a listing never waits for bytes.
    address: Mutex<Address>,
    pub(super) space: Arc<Space>,
    pub(super) inner: Mutex<Inner>,
    pub(super) changed: Condvar,
    /// Handles that may write. Outside the lock: it goes up only while the table of files is held, so that nobody drops a
    /// file that somebody opens.
    pub(super) writers: AtomicUsize,
    /// Those of them that were not closed by the process that opened them, or that wrote since. The kernel tells of the end
    /// of a handle some time after its close, and of a mapped one later still.
    pub(super) active: AtomicUsize,
    /// How often it was opened to write, ever.
    opens: AtomicU64,
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

/// So many bytes of a large file are on their way to the disk together while it is written.
const EARLY: u64 = 16 << 20;

impl Inner {
    fn touch(&mut self) {
        self.mtime = SystemTime::now();
        self.ctime = self.mtime;
    }
}

impl Staged {
    /// A new, empty file. Its journal entry is written, so that a crash leaves a trace of it; on disk it is with the
    /// first sync.
    pub(super) fn create(space: &Arc<Space>, id: u64, draft: RecordId, place: Place) -> Result<Self> {
        let (data, generation) = space.journal.create_data(id, 0)?;
        point(Point::Created);
        let staged = Staged::assemble(space, id, draft, Address::first(place, id), data, generation);
        let noted = staged.note_unsynced(&mut staged.inner.lock());
        point(Point::Noted);
        match noted {
            Ok(()) => Ok(staged),
            Err(error) => {
                staged.drop_data();
                Err(error)
            }
        }
    }

    /// A file that begins with the bytes the server has.
    pub(super) fn adopt(
        space: &Arc<Space>,
        id: u64,
        draft: RecordId,
        key: Arc<str>,
        bytes: &File,
        mtime: Option<SystemTime>,
    ) -> Result<Self> {
        let (data, generation) = space.journal.create_data(id, 0)?;
        let copied = copy_bytes(bytes, &data, u64::MAX);
        let address = Address::first(Place::File(key), id);
        let staged = Staged::assemble(space, id, draft, address, data, generation);
        {
            let mut inner = staged.inner.lock();
            match copied {
                Ok(size) => inner.size = size,
                Err(e) => {
                    space.journal.remove_data(id, generation);
                    return Err(Error::local(
                        format_args!("copy {} to the staged files", staged.key()),
                        &e,
                    ));
                }
            }
            inner.mtime = mtime.unwrap_or(inner.mtime);
            inner.ctime = inner.mtime;
            inner.dirty = false;
            inner.synced = inner.written;
            inner.upload = Upload::Done;
        }
        Ok(staged)
    }

    /// A draft's document: with the text that the server has, or empty.
    pub(super) fn document(
        space: &Arc<Space>,
        id: u64,
        draft: RecordId,
        text: Option<&[u8]>,
        base: Base,
    ) -> Result<Self> {
        let (data, generation) = space.journal.create_data(id, 0)?;
        let staged = Staged::assemble(
            space,
            id,
            draft,
            Address::first(Place::Document, id),
            data,
            generation,
        );
        {
            let mut inner = staged.inner.lock();
            inner.base = Some(base);
            let Some(text) = text else {
                drop(inner);
                return Ok(staged);
            };
            if let Err(e) = inner.data.write_all_at(text, 0) {
                space.journal.remove_data(id, generation);
                return Err(Error::local(
                    format_args!("copy {} to the staged files", staged.key()),
                    &e,
                ));
            }
            inner.size = text.len() as u64;
            inner.dirty = false;
            inner.synced = inner.written;
            inner.upload = Upload::Done;
        }
        Ok(staged)
    }

    /// A file that an earlier mount left closed and unsent, refused, or as junk.
    pub(super) fn recover(space: &Arc<Space>, entry: &Entry, draft: RecordId) -> Result<Self> {
        let data = space.journal.open_data(entry.id, entry.generation)?;
        let address = Address {
            place: match entry.role {
                Role::File => Place::File(entry.key.as_str().into()),
                Role::Document => Place::Document,
            },
            replaces: entry.replaces.iter().map(|key| key.as_str().into()).collect(),
            order: entry.since(),
        };
        let reading =
            |e: std::io::Error| Error::local(format_args!("look at the staged bytes of {}", entry.key), &e);
        let metadata = data.metadata().map_err(reading)?;
        let staged = Staged::assemble(space, entry.id, draft, address, data, entry.generation);
        {
            let mut inner = staged.inner.lock();
            inner.size = entry.size;
            inner.closed = Some(Closed {
                generation: entry.generation,
                size: entry.size,
            });
            inner.mtime = metadata.modified().unwrap_or(inner.mtime);
            inner.dirty = false;
            inner.synced = inner.written;
            inner.noted = Some(inner.written);
            inner.turn = 1;
            inner.base = entry.base.clone();
            inner.upload = match &entry.state {
                State::Refused(reason) => Upload::Refused(Error::new(Kind::Refused, reason.clone())),
                State::Open | State::Closed => Upload::Queued,
                State::Local { keep } => {
                    // Its size is not kept up: nobody but this mount cares.
                    inner.size = metadata.len();
                    inner.closed = None;
                    inner.keep = *keep;
                    Upload::Local
                }
            };
        }
        Ok(staged)
    }

    fn assemble(
        space: &Arc<Space>,
        id: u64,
        draft: RecordId,
        address: Address,
        data: File,
        generation: u64,
    ) -> Self {
        let now = SystemTime::now();
        Staged {
            id,
            draft,
            address: Mutex::new(address),
            space: Arc::clone(space),
            inner: Mutex::new(Inner {
                data: Arc::new(data),
                generation,
                closed: None,
                size: 0,
                mtime: now,
                ctime: now,
                dirty: true,
                // A new file is a change, even if nothing is ever written to it.
                written: 1,
                synced: 0,
                noted: None,
                unlinked: false,
                broken: None,
                upload: Upload::NotYet,
                confirmed: None,
                turn: 0,
                tries: 0,
                keep: false,
                base: None,
            }),
            changed: Condvar::new(),
            writers: AtomicUsize::new(0),
            active: AtomicUsize::new(0),
            opens: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        }
    }

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

    /// Gives it another place, and returns the one it had. The journal doesn't know yet.
    pub(super) fn set_address(&self, address: Address) -> Address {
        std::mem::replace(&mut *self.address.lock(), address)
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
        let mut inner = self.inner.lock();
        let offset = match position {
            Position::At(offset) => offset,
            Position::End => inner.size,
        };
        let end = offset
            .checked_add(bytes.len() as u64)
            .filter(|end| i64::try_from(*end).is_ok());
        let end = end.ok_or_else(|| Error::call(libc::EFBIG))?;
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
        if offset / EARLY != end / EARLY {
            let data = Arc::clone(&inner.data);
            drop(inner);
            begin_to_disk(&data, end - end % EARLY);
        }
        Ok(())
    }

    /// Cuts the file, or lets it grow with zeros.
    ///
    /// # Errors
    /// `DiskFull` or `Local`.
    pub fn truncate(&self, size: u64) -> Result<()> {
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
    fn thaw(&self, inner: &mut Inner, keep: u64) -> Result<()> {
        let journal = &self.space.journal;
        match (&inner.upload, inner.closed) {
            (Upload::Done, Some(_)) => {
                // The server has the closed bytes: nothing is lost if a restart doesn't send them.
                inner.closed = None;
                journal.write(&self.entry(inner, State::Open))?;
            }
            (_, Some(closed)) if closed.generation == inner.generation => {
                let (copy, generation) = journal.create_data(self.id, inner.generation + 1)?;
                if let Err(e) = copy_bytes(&inner.data, &copy, keep) {
                    journal.remove_data(self.id, generation);
                    return Err(Error::local(format_args!("copy staged {}", self.key()), &e));
                }
                inner.data = Arc::new(copy);
                inner.generation = generation;
                self.stop_upload(inner);
            }
            (_, Some(_)) => {}
            (_, None) if inner.noted.is_none() => self.note_unsynced(inner)?,
            (_, None) => {}
        }
        inner.dirty = true;
        inner.written += 1;
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

    fn note_unsynced(&self, inner: &mut Inner) -> Result<()> {
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
            base: inner.base.clone(),
        }
    }
}

/// Lets the disk begin with the bytes before `end`, so that close() has less to wait for.
fn begin_to_disk(data: &File, end: u64) {
    let (begin, length) = (end.saturating_sub(EARLY).cast_signed(), EARLY.cast_signed());
    // SAFETY: a call with plain numbers; the descriptor is open for as long as `data` is borrowed.
    // What it returns is of no consequence: close() syncs.
    unsafe { libc::sync_file_range(data.as_raw_fd(), begin, length, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Copies the first bytes, whatever the position of the file is; the kernel shares the blocks where it can.
fn copy_bytes(from: &File, to: &File, most: u64) -> std::io::Result<u64> {
    let from = File::open(format!("/proc/self/fd/{}", from.as_raw_fd()))?;
    std::io::copy(&mut from.take(most), &mut &*to)
}

impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Staged({} of {})", self.key(), self.draft)
    }
}
