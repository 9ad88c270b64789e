//! Closing a staged file: when it is complete, what is synced and journalled then, and what is to be done about it.
//!
//! Called by [`super::Area`]. What it says is closed is on the local disk, bytes and journal; nothing is sent here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::crash::{Point, point};
use super::file::{Closed, Inner, Staged};
use super::journal::State;
use super::junk::Nature;
use super::save::Base;
use super::turns::Upload;
use crate::error::{Error, Result};

/// Why a file may be complete now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// A FLUSH from the process that opened it, which [rests](Staged::rest) now: other writers may follow, and an empty file may be about to be written
    /// (`echo > f` sends a FLUSH before its first WRITE).
    Flush,
    /// Its last handle is gone.
    Release,
    /// It gets another name; the caller counts as one writer.
    Rename,
}

/// What is to be done about a file that was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// Nothing: it is not complete, not changed, or junk.
    Nothing,
    /// This upload.
    Send(u64),
    /// This upload, unless it gets another name soon.
    SendLater(u64),
}

/// How long a file rests whose name looks as if it were about to change. rsync and editors rename at once.
pub(super) const PASSING_PAUSE: Duration = Duration::from_secs(5);

impl Staged {
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
            .map_err(|e| Error::local(format_args!("sync staged {}", self.key()), &e))?;
        inner.synced = inner.synced.max(written);
        Ok(())
    }

    /// Asks for the upload of what was written, after syncing bytes and journal, if it is complete at this moment.
    pub(super) fn close(&self, moment: Moment) -> Result<Closing> {
        let mut inner = self.inner.lock();
        while self.is_complete(&inner, moment) {
            let nature = self.nature();
            if nature == Nature::Junk {
                return self.close_junk(&mut inner).map(|()| Closing::Nothing);
            }
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
            self.journal_closed(&mut inner)?;
            inner.dirty = false;
            inner.keep = false;
            inner.tries = 0;
            inner.turn += 1;
            let turn = inner.turn;
            if nature == Nature::Passing {
                let until = Instant::now() + PASSING_PAUSE;
                inner.upload = Upload::Resting { until };
                return Ok(Closing::SendLater(turn));
            }
            inner.upload = Upload::Queued;
            return Ok(Closing::Send(turn));
        }
        drop(inner);
        self.sync().map(|()| Closing::Nothing)
    }

    /// Writes down that a restart is to send the bytes as they are now, all of which are synced.
    fn journal_closed(&self, inner: &mut Inner) -> Result<()> {
        point(Point::Synced);
        self.space.journal.write(&self.entry(inner, State::Closed))?;
        point(Point::Closed);
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
        Ok(())
    }

    /// Of a file that was closed while it is being renamed or removed, writes down that a restart is to send it: whoever
    /// does that asks for its upload afterwards.
    pub(super) fn note_closed(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        let by_programs = || self.active.load(Ordering::Acquire) > self.errands.load(Ordering::Acquire);
        let waits = |inner: &Inner| {
            inner.dirty
                && !inner.unlinked
                && !inner.thawing
                && inner.size > 0
                && inner.broken.is_none()
                && !inner.is_frozen()
                && (inner.held || self.errands.load(Ordering::Acquire) > 0)
                && !by_programs()
                && self.nature() != Nature::Junk
        };
        while waits(&inner) {
            if inner.synced < inner.written {
                self.sync_bytes(&mut inner)?;
                continue;
            }
            self.journal_closed(&mut inner)?;
        }
        Ok(())
    }

    /// Of a new file that is closed and empty, writes down that a restart is to send it: this may have been its only
    /// close, and the end of its handle comes later. The next write takes that back.
    pub(super) fn note_empty(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        let may_be_over = self.active.load(Ordering::Acquire) == 0
            && inner.size == 0
            && inner.dirty
            && !inner.unlinked
            && inner.closed.is_none()
            && inner.broken.is_none();
        if may_be_over && self.nature() != Nature::Junk {
            self.space.journal.write(&self.entry(&inner, State::Closed))?;
            // As if there were none: the next write notes that it is open.
            inner.noted = None;
        }
        Ok(())
    }

    /// Junk is nobody's work: no sync, no upload. What was meant for the server before it got this name is kept.
    fn close_junk(&self, inner: &mut Inner) -> Result<()> {
        inner.keep |= inner.closed.is_some();
        let keep = inner.keep;
        let old = inner.closed.take();
        self.stop_upload(inner);
        let entry = self.entry(inner, State::Local { keep });
        if keep {
            self.space.journal.write(&entry)?;
        } else {
            self.space.journal.write_unsynced(&entry)?;
        }
        if let Some(old) = old
            && old.generation != inner.generation
        {
            self.space.journal.remove_data(self.id, old.generation);
        }
        inner.noted = Some(inner.written);
        inner.dirty = false;
        inner.upload = Upload::Local;
        Ok(())
    }

    fn is_complete(&self, inner: &Inner, moment: Moment) -> bool {
        let active = self.active.load(Ordering::Acquire);
        let all_here = match moment {
            Moment::Flush => active == 0 && inner.size > 0,
            Moment::Release => self.writers.load(Ordering::Acquire) == 0,
            Moment::Rename => active <= 1,
        };
        inner.dirty && !inner.unlinked && !inner.held && !inner.thawing && all_here
    }

    /// Counts as written, because its name is about to change: the server must get it anew.
    pub(super) fn mark_written(&self) {
        let mut inner = self.inner.lock();
        inner.held = false;
        inner.dirty = true;
        inner.written += 1;
        inner.noted = inner.noted.map(|_| 0);
    }

    /// Of a document: what it was made from.
    pub(super) fn base(&self) -> Option<Base> {
        self.inner.lock().base.clone()
    }

    /// Says what a document was made from.
    pub(super) fn set_base(&self, base: Option<Base>) {
        self.inner.lock().base = base;
    }

    /// Writes into the journal that a document is about to be saved over this base.
    pub(super) fn journal_base(&self, base: Base) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.base = Some(base);
        if inner.closed.is_none() || inner.unlinked {
            return Ok(());
        }
        let state = if inner.dirty { State::Open } else { State::Closed };
        self.space.journal.write(&self.entry(&inner, state))
    }

    /// Writes its entry again, after its address has changed.
    pub(super) fn journal_address(&self) -> Result<()> {
        let inner = self.inner.lock();
        if inner.noted.is_none() || inner.unlinked {
            return Ok(());
        }
        let state = match &inner.upload {
            _ if inner.dirty => State::Open,
            Upload::Done => return Ok(()),
            Upload::Local => State::Local { keep: inner.keep },
            Upload::Refused(error) => State::Refused(error.to_string()),
            _ => State::Closed,
        };
        self.space.journal.write(&self.entry(&inner, state))
    }
}
