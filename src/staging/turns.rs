//! The uploads of one staged file: each is a turn, and only the last one asked for counts.
//!
//! The states are here, and all that changes them; `upload` does the work of one turn, `queue` says when. Called by
//! [`super::Area`] and, where a write makes an upload obsolete, by `file`.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use super::crash::{Point, point};
use super::file::{Inner, Staged};
use super::journal::State;
use super::junk::Nature;
use crate::error::{Error, Kind, Result};
use crate::repository::model::Md5;

/// How far the last upload has come.
#[derive(Clone, Debug)]
pub enum Upload {
    /// None was asked for: the file is open for the first time.
    NotYet,
    /// It waits for its turn.
    Queued,
    /// It looks as if it were about to be renamed: it waits for its turn from then on.
    Resting {
        /// When.
        until: Instant,
    },
    /// It is under way; the flag stops it.
    Running {
        /// Set to make it stop soon.
        cancelled: Arc<AtomicBool>,
        /// All bytes are sent.
        checking: bool,
    },
    /// It failed in passing and is tried again.
    Waiting {
        /// When.
        until: Instant,
        /// Why it failed.
        error: Error,
    },
    /// The server refuses it. The bytes are kept.
    Refused(Error),
    /// The server has it, with the right size and checksum.
    Done,
    /// Junk: the server never gets it.
    Local,
}

/// What the status says of a file that rests.
const RESTING: &str = "its name looks temporary; it is sent unless it is renamed or removed soon";

/// What an upload sends: one frozen generation.
pub(super) struct Snapshot {
    pub(super) data: Arc<File>,
    pub(super) size: u64,
    pub(super) turn: u64,
    pub(super) tries: u32,
    pub(super) cancelled: Arc<AtomicBool>,
}

impl Inner {
    fn waits_for(&self, turn: u64) -> bool {
        let waits = matches!(
            self.upload,
            Upload::Queued | Upload::Resting { .. } | Upload::Waiting { .. }
        );
        self.turn == turn && waits && !self.unlinked
    }
}

impl Staged {
    /// Whether it was written and the server doesn't have it yet.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        if self.nature() == Nature::Junk {
            return false;
        }
        let inner = self.inner.lock();
        inner.dirty || !matches!(inner.upload, Upload::Done | Upload::Local)
    }

    /// No upload that was asked for so far counts any more.
    pub(super) fn stop_upload(&self, inner: &mut Inner) {
        if let Upload::Running { cancelled, .. } = &inner.upload {
            cancelled.store(true, Ordering::Relaxed);
        }
        inner.upload = Upload::NotYet;
        inner.turn += 1;
        self.changed.notify_all();
    }

    /// Stops its upload for now. It counts as not sent, so that the next close sends it.
    pub(super) fn hold(&self) {
        let mut inner = self.inner.lock();
        inner.held = true;
        if !matches!(inner.upload, Upload::Done | Upload::Local) {
            self.stop_upload(&mut inner);
            inner.dirty = true;
        }
    }

    /// Whether the upload of `turn` is still to be done.
    pub(super) fn waits_for(&self, turn: u64) -> bool {
        self.inner.lock().waits_for(turn)
    }

    /// What was about to happen to it does not.
    pub(super) fn let_go(&self) {
        self.inner.lock().held = false;
    }

    /// The upload of `turn`, if nobody needs it any more in the last moment.
    pub(super) fn begin(&self, turn: u64) -> Option<Snapshot> {
        let mut inner = self.inner.lock();
        if !inner.waits_for(turn) {
            return None;
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        inner.upload = Upload::Running {
            cancelled: Arc::clone(&cancelled),
            checking: false,
        };
        inner.tries += 1;
        self.sent.store(0, Ordering::Relaxed);
        Some(Snapshot {
            data: Arc::clone(&inner.data),
            size: inner.size,
            turn,
            tries: inner.tries,
            cancelled,
        })
    }

    /// The next state of the upload of `turn`. False if it is not the one that counts any more.
    pub(super) fn advance(&self, turn: u64, upload: Upload) -> bool {
        self.advance_in(&mut self.inner.lock(), turn, upload)
    }

    fn advance_in(&self, inner: &mut Inner, turn: u64, upload: Upload) -> bool {
        let counts = inner.turn == turn && matches!(inner.upload, Upload::Running { .. });
        if counts {
            inner.upload = upload;
        }
        self.changed.notify_all();
        counts
    }

    /// The server has the bytes of `turn`, under this checksum.
    pub(super) fn confirm(&self, turn: u64, md5: Option<Md5>) {
        point(Point::Done);
        let mut inner = self.inner.lock();
        inner.confirmed = md5;
        if self.advance_in(&mut inner, turn, Upload::Done) && self.has_writers() {
            // Its handles may stay for long: after a crash much later, the next mount must not send it again.
            self.space.journal.remove(self.id);
            inner.closed = None;
            inner.noted = None;
        }
    }

    /// The checksum that the server confirmed last.
    #[must_use]
    pub fn confirmed(&self) -> Option<Md5> {
        self.inner.lock().confirmed
    }

    /// Waits until the upload of `turn` is over, at most until `deadline`: then it goes on behind the user's back.
    ///
    /// # Errors
    /// Why the server refused it.
    pub(super) fn wait(&self, turn: u64, deadline: Instant) -> Result<()> {
        let mut inner = self.inner.lock();
        loop {
            if inner.turn != turn {
                return Ok(());
            }
            match &inner.upload {
                Upload::Refused(error) => return Err(error.clone()),
                // Nobody waits for one that rests: it is about to be renamed, by the one who would wait.
                Upload::Done | Upload::Local | Upload::NotYet | Upload::Resting { .. } => return Ok(()),
                _ => {}
            }
            if self.changed.wait_until(&mut inner, deadline).timed_out() {
                return Ok(());
            }
        }
    }

    /// Stops a running upload; what it was to send stays in the journal.
    pub(super) fn interrupt(&self) {
        if let Upload::Running { cancelled, .. } = &self.inner.lock().upload {
            cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Takes it off the tree: its upload stops, a restart knows nothing of it, what its handles hold stays readable.
    pub(super) fn unlink(&self) {
        let mut inner = self.inner.lock();
        inner.unlinked = true;
        inner.dirty = false;
        self.stop_upload(&mut inner);
        self.space.journal.remove(self.id);
    }

    /// Asks for its upload again: it was refused, or waits. Returns the turn.
    ///
    /// # Errors
    /// `Call(EBUSY)` if it is open or on its way; `DiskFull`, `Local`.
    pub(super) fn revive(&self) -> Result<u64> {
        let mut inner = self.inner.lock();
        let waits = matches!(
            inner.upload,
            Upload::Refused(_) | Upload::Waiting { .. } | Upload::Resting { .. }
        );
        if inner.dirty || inner.unlinked || !waits {
            return Err(Error::new(
                Kind::Call(libc::EBUSY),
                format!("{} is open or on its way", self.key()),
            ));
        }
        if let Some(error) = &inner.broken {
            return Err(error.clone());
        }
        if let Some(base) = &mut inner.base {
            // The user has seen why it was refused.
            base.digests.clear();
        }
        self.space.journal.write(&self.entry(&inner, State::Closed))?;
        inner.turn += 1;
        inner.tries = 0;
        inner.upload = Upload::Queued;
        self.changed.notify_all();
        Ok(inner.turn)
    }

    /// Whether it is junk that nobody will miss.
    pub(super) fn is_droppable_junk(&self) -> bool {
        let inner = self.inner.lock();
        matches!(inner.upload, Upload::Local) && !inner.keep && !inner.dirty
    }

    /// Whether nobody needs it any more, unless somebody has it open to write: removed, or sent and not written since.
    pub(super) fn is_over(&self) -> bool {
        let inner = self.inner.lock();
        inner.unlinked || (!inner.dirty && matches!(inner.upload, Upload::Done))
    }

    /// Writes the server's refusal into the journal, so that a restart doesn't try again by itself.
    pub(super) fn journal_refusal(&self, error: &Error) {
        let inner = self.inner.lock();
        if inner.unlinked || inner.dirty {
            return;
        }
        if let Err(error) = self
            .space
            .journal
            .write(&self.entry(&inner, State::Refused(error.to_string())))
        {
            log::warn!("{error}");
        }
    }

    /// The turn that was asked for last.
    pub(super) fn turn(&self) -> u64 {
        self.inner.lock().turn
    }

    /// Why the server refused it, if it did.
    #[must_use]
    pub fn refusal(&self) -> Option<Error> {
        match &self.inner.lock().upload {
            Upload::Refused(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// What the status says of it.
    #[must_use]
    pub fn status(&self) -> crate::status::Upload {
        use crate::status::{Upload as Shown, UploadState};
        let inner = self.inner.lock();
        let (state, next, reason) = match &inner.upload {
            _ if inner.dirty => (UploadState::Open, None, None),
            Upload::NotYet => (UploadState::Open, None, None),
            Upload::Queued => (UploadState::Queued, None, None),
            Upload::Resting { until } => (UploadState::Waiting, Some(*until), Some(RESTING.to_owned())),
            Upload::Running { checking: false, .. } => (UploadState::Sending, None, None),
            Upload::Running { checking: true, .. } | Upload::Done | Upload::Local => {
                (UploadState::Checking, None, None)
            }
            Upload::Waiting { until, error } => (UploadState::Waiting, Some(*until), Some(error.to_string())),
            Upload::Refused(error) => (UploadState::Refused, None, Some(error.to_string())),
        };
        Shown {
            id: self.id,
            kept: self.space.journal.data_path(self.id, inner.generation),
            draft: self.draft.to_string(),
            key: self.key().to_string(),
            state,
            sent: self.sent.load(Ordering::Relaxed),
            size: inner.size,
            tries: inner.tries,
            next_try: next.map(|until| {
                crate::status::rfc3339(SystemTime::now() + until.saturating_duration_since(Instant::now()))
            }),
            reason,
        }
    }
}

/// Refusals that are about the file or the user and will not pass by themselves.
pub(super) fn is_final(kind: Kind) -> bool {
    !kind.is_passing() && !matches!(kind, Kind::Changed | Kind::Corrupt | Kind::Internal)
}
