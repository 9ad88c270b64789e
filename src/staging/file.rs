//! One staged file: its bytes on local disk, who writes it, and when it is complete. Its uploads are in `turns`.
//!
//! Made and driven by [`super::Area`], which owns the journal and the queue. A generation of its bytes that the journal
//! calls closed is frozen: the next write goes to a new generation, so that what is sent never changes under way.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::journal::{Entry, Journal, State};
use super::turns::Upload;
use crate::error::{Error, Kind, Result};
use crate::repository::model::{Md5, RecordId};

/// A file that was written here, from its creation to its confirmation by the server.
pub struct Staged {
    /// Its number in the journal.
    pub(super) id: u64,
    /// The draft it belongs to.
    pub(super) draft: RecordId,
    /// Its key in the draft.
    pub(super) key: Arc<str>,
    pub(super) space: Arc<Space>,
    pub(super) inner: Mutex<Inner>,
    pub(super) changed: Condvar,
    /// Handles that may write. Outside the lock: it goes up only while the table of files is held, so that nobody drops a
    /// file that somebody opens.
    writers: AtomicUsize,
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
}

pub(super) struct Inner {
    pub(super) data: Arc<File>,
    pub(super) generation: u64,
    /// What the journal on disk calls closed: what a restart would send.
    pub(super) closed: Option<Closed>,
    pub(super) size: u64,
    pub(super) mtime: SystemTime,
    pub(super) mode: Option<u16>,
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
}

/// A generation that was closed and has not arrived.
#[derive(Clone, Copy)]
pub(super) struct Closed {
    generation: u64,
    size: u64,
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
    /// What chmod(2) said.
    pub mode: Option<u16>,
}

impl Staged {
    /// A new, empty file. Its journal entry is written, so that a crash leaves a trace of it; on disk it is with the
    /// first sync.
    pub(super) fn create(space: &Arc<Space>, id: u64, draft: RecordId, key: Arc<str>) -> Result<Self> {
        let (data, generation) = space.journal.create_data(id, 0)?;
        let staged = Staged::assemble(space, id, draft, key, data, generation);
        let noted = staged.note_unsynced(&mut staged.inner.lock());
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
        let staged = Staged::assemble(space, id, draft, key, data, generation);
        {
            let mut inner = staged.inner.lock();
            match copied {
                Ok(size) => inner.size = size,
                Err(e) => {
                    space.journal.remove_data(id, generation);
                    return Err(Error::local(
                        format_args!("copy {} to the staged files", staged.key),
                        &e,
                    ));
                }
            }
            inner.mtime = mtime.unwrap_or(inner.mtime);
            inner.dirty = false;
            inner.synced = inner.written;
            inner.upload = Upload::Done;
        }
        Ok(staged)
    }

    /// A file that an earlier mount left closed and unsent, or refused.
    pub(super) fn recover(space: &Arc<Space>, entry: &Entry, draft: RecordId) -> Result<Self> {
        let data = space.journal.open_data(entry.id, entry.generation)?;
        let key = entry.key.as_str().into();
        let staged = Staged::assemble(space, entry.id, draft, key, data, entry.generation);
        {
            let mut inner = staged.inner.lock();
            inner.size = entry.size;
            inner.closed = Some(Closed {
                generation: entry.generation,
                size: entry.size,
            });
            inner.dirty = false;
            inner.synced = inner.written;
            inner.noted = Some(inner.written);
            inner.turn = 1;
            inner.upload = match &entry.state {
                State::Refused(reason) => Upload::Refused(Error::new(Kind::Refused, reason.clone())),
                State::Open | State::Closed => Upload::Queued,
            };
        }
        Ok(staged)
    }

    fn assemble(
        space: &Arc<Space>,
        id: u64,
        draft: RecordId,
        key: Arc<str>,
        data: File,
        generation: u64,
    ) -> Self {
        Staged {
            id,
            draft,
            key,
            space: Arc::clone(space),
            inner: Mutex::new(Inner {
                data: Arc::new(data),
                generation,
                closed: None,
                size: 0,
                mtime: SystemTime::now(),
                mode: None,
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
            }),
            changed: Condvar::new(),
            writers: AtomicUsize::new(0),
            opens: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &Arc<str> {
        &self.key
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
            mode: inner.mode,
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
                Err(e) => return Err(Error::local(format_args!("read staged {}", self.key), &e)),
            }
        }
        buffer.truncate(filled);
        Ok(buffer)
    }

    /// What was remembered of chmod(2) and utimes(2). The server keeps neither.
    pub fn set_facts(&self, mode: Option<u16>, mtime: Option<SystemTime>) {
        let mut inner = self.inner.lock();
        inner.mode = mode.or(inner.mode);
        inner.mtime = mtime.unwrap_or(inner.mtime);
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
        inner.mtime = SystemTime::now();
        wrote.map_err(|e| {
            let error = Error::local(format_args!("write staged {}", self.key), &e);
            inner.broken = Some(error.clone());
            error
        })
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
            .map_err(|e| Error::local(format_args!("truncate staged {}", self.key), &e))?;
        inner.size = size;
        inner.mtime = SystemTime::now();
        if size == 0 {
            inner.broken = None;
        }
        Ok(())
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
                    return Err(Error::local(format_args!("copy staged {}", self.key), &e));
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
        self.writers.fetch_sub(1, Ordering::AcqRel);
    }

    /// Syncs the bytes, and the journal entry.
    ///
    /// # Errors
    /// `DiskFull` or `Local`.
    pub fn sync(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        self.sync_bytes(&mut inner)?;
        let synced = inner.synced;
        if !inner.unlinked && inner.dirty && inner.noted.is_none_or(|noted| noted < synced) {
            self.space.journal.write(&self.entry(&inner, State::Open))?;
            inner.noted = Some(synced);
        }
        Ok(())
    }

    /// Brings all that is written now to the disk. The lock is let go meanwhile, because a large file takes long and
    /// others want to look at this one.
    fn sync_bytes(&self, inner: &mut MutexGuard<'_, Inner>) -> Result<()> {
        if inner.unlinked || inner.synced >= inner.written {
            return Ok(());
        }
        let (data, written) = (Arc::clone(&inner.data), inner.written);
        MutexGuard::unlocked(inner, || data.sync_all())
            .map_err(|e| Error::local(format_args!("sync staged {}", self.key), &e))?;
        inner.synced = inner.synced.max(written);
        Ok(())
    }

    /// Asks for the upload of what was written, after syncing bytes and journal. `None` if there is nothing to
    /// send, or it is not the time: at a FLUSH (`released` is false) other writers may follow, and an empty file
    /// may be about to be written (`echo > f` sends a FLUSH before its first WRITE).
    pub(super) fn close(&self, released: bool) -> Result<Option<u64>> {
        let mut inner = self.inner.lock();
        while self.is_complete(&inner, released) {
            if let Some(error) = inner.broken.clone() {
                self.stop_upload(&mut inner);
                inner.upload = Upload::Refused(error.clone());
                inner.dirty = false;
                drop(inner);
                self.journal_refusal(&error);
                return Err(error);
            }
            if inner.synced < inner.written {
                // Somebody else may close, open, write or remove it meanwhile: asked again after.
                self.sync_bytes(&mut inner)?;
                continue;
            }
            self.space.journal.write(&self.entry(&inner, State::Closed))?;
            let closed = Closed {
                generation: inner.generation,
                size: inner.size,
            };
            if let Some(old) = inner.closed.replace(closed)
                && old.generation != closed.generation
            {
                self.space.journal.remove_data(self.id, old.generation);
            }
            inner.noted = Some(inner.synced);
            inner.dirty = false;
            inner.tries = 0;
            inner.turn += 1;
            inner.upload = Upload::Queued;
            return Ok(Some(inner.turn));
        }
        drop(inner);
        self.sync().map(|()| None)
    }

    fn is_complete(&self, inner: &Inner, released: bool) -> bool {
        let writers = self.writers.load(Ordering::Acquire);
        let all_here = if released {
            writers == 0
        } else {
            writers <= 1 && inner.size > 0
        };
        inner.dirty && !inner.unlinked && all_here
    }

    /// Removes its bytes and its journal entry. Open handles can still read.
    pub(super) fn drop_data(&self) {
        let inner = self.inner.lock();
        let journal = &self.space.journal;
        journal.remove(self.id);
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
        Entry {
            id: self.id,
            repository: self.space.repository.clone(),
            account: self.space.account.clone(),
            draft: self.draft.to_string(),
            key: self.key.to_string(),
            generation,
            size,
            state,
            open,
        }
    }
}

/// Copies the first bytes, whatever the position of the file is; the kernel shares the blocks where it can.
fn copy_bytes(from: &File, to: &File, most: u64) -> std::io::Result<u64> {
    let from = File::open(format!("/proc/self/fd/{}", from.as_raw_fd()))?;
    std::io::copy(&mut from.take(most), &mut &*to)
}

impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Staged({} of {})", self.key, self.draft)
    }
}
