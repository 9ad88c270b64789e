//! What the upload workers do: announcing new files, sending files, saving documents, and what comes of it.
//!
//! The states of an upload are in `turns`, the steps of sending a file in `upload`, those of saving in `save`.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::crash::{Point, point};
use super::file::Staged;
use super::place::Place;
use super::queue::{Queue, Spot, Task, Ticket, Work};
use super::save::{self, Base, LARGEST_DOCUMENT};
use super::turns::{Snapshot, Upload, is_final};
use super::upload::{self, Known};
use super::{LONGEST_STOP, News, Shared};
use crate::error::{Error, Kind, Result};
use crate::repository::Way;
use crate::repository::model::{FileEntry, FileStatus, Md5, RecordId};

/// The first pause after a failed upload; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two tries; there is no last try.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

impl Shared {
    /// A worker's life.
    pub(super) fn work(self: Arc<Self>) {
        while let Some(work) = self.queue.next() {
            match work {
                Work::One(spot, ticket) => {
                    self.guarded([&ticket], || self.serve(&spot, &ticket));
                    self.queue.done([&spot]);
                    self.drop_if_over(&ticket.staged);
                }
                Work::Announce(draft, taken) => {
                    let spots: Vec<&Spot> = taken.iter().map(|(spot, _)| spot).collect();
                    self.guarded(taken.iter().map(|(_, ticket)| ticket), || {
                        self.announce(&draft, &taken)
                    });
                    self.queue.done(spots);
                    self.queue.announced(&draft);
                }
            }
        }
    }

    fn guarded<'a>(&self, tickets: impl IntoIterator<Item = &'a Ticket>, work: impl FnOnce()) {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_ok() {
            return;
        }
        for ticket in tickets {
            let what = format!("the upload of {} panicked", ticket.staged.key());
            let error = Error::new(Kind::Internal, what);
            self.board.post(&error);
            if let Task::Send { turn, .. } = ticket.task {
                // It may not have begun.
                ticket.staged.begin(turn);
                ticket.staged.advance(turn, Upload::Refused(error));
            }
        }
    }

    /// Announces new files together; their bytes come one by one.
    fn announce(self: &Arc<Self>, draft: &RecordId, taken: &[(Spot, Ticket)]) {
        // What goes in parts is announced as such, by its own upload. As `Absent` it would come back here.
        let (wanted, in_parts): (Vec<&Ticket>, Vec<&Ticket>) = taken
            .iter()
            .map(|(_, ticket)| ticket)
            .filter(|ticket| matches!(ticket.task, Task::Send { turn, .. } if ticket.staged.waits_for(turn)))
            .partition(|ticket| self.repository.way(ticket.staged.facts().size) == Way::Whole);
        self.queue
            .push_first(in_parts.into_iter().map(|ticket| ticket.with(Known::Nothing)));
        if wanted.is_empty() {
            return;
        }
        {
            let mut files = self.files.lock();
            wanted
                .iter()
                .for_each(|ticket| files.set_absent(&ticket.staged, false));
        }
        let keys: Vec<Arc<str>> = wanted.iter().map(|ticket| ticket.staged.key()).collect();
        let keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
        let known = match self.repository.start_files(draft, &keys) {
            Ok(_) => {
                point(Point::Started);
                Known::Started
            }
            Err(error) if error.kind().is_passing() => {
                for ticket in wanted {
                    if let Task::Send { turn, .. } = ticket.task
                        && let Some(snapshot) = ticket.staged.begin(turn)
                    {
                        self.failed(ticket, &snapshot, error.clone());
                    }
                }
                return;
            }
            // One of them is there already, or can't be: each for itself will tell.
            Err(error) => {
                log::info!("{error}");
                Known::Nothing
            }
        };
        self.queue
            .push_first(wanted.into_iter().map(|ticket| ticket.with(known)));
    }

    fn serve(self: &Arc<Self>, spot: &Spot, ticket: &Ticket) {
        match ticket.task {
            Task::Send { turn, known } => self.upload(spot, ticket, turn, known),
            Task::Note => self.note_address(&ticket.staged),
            Task::Sweep => {
                if let Err(error) = self.sweep_old_keys(&ticket.staged) {
                    self.board.post(&error);
                }
            }
            Task::Close => {
                if let Err(error) = self.close(&ticket.staged) {
                    self.board.post(&error);
                }
            }
        }
    }

    fn upload(&self, spot: &Spot, ticket: &Ticket, turn: u64, known: Known) {
        let staged = &ticket.staged;
        let Some(snapshot) = staged.begin(turn) else {
            return;
        };
        self.files.lock().set_absent(staged, false);
        if self.queue.is_stopped() {
            // All that ran were told to stop; this one only begins.
            snapshot.cancelled.store(true, Ordering::Relaxed);
        }
        let sent = match &spot.1 {
            Place::File(key) => self.send(staged, key, &snapshot, known).map(Some),
            Place::Document => self.save(staged, &snapshot).map(|()| None),
        };
        match sent {
            Ok(md5) => staged.confirm(turn, md5.flatten()),
            // Whatever it failed with after that: whoever stopped it knows what comes next, and the journal a restart.
            Err(_) if snapshot.cancelled.load(Ordering::Relaxed) => {
                log::debug!("the upload of {} was stopped", staged.key());
            }
            Err(error) => self.failed(ticket, &snapshot, error),
        }
    }

    /// What comes of an upload that failed.
    fn failed(&self, ticket: &Ticket, snapshot: &Snapshot, error: Error) {
        let staged = &ticket.staged;
        let error = error.during(match staged.place() {
            Place::File(key) => format!("upload {key} to draft {}", staged.draft),
            Place::Document => format!("save record.json of draft {}", staged.draft),
        });
        self.board.post(&error);
        let is_document = staged.place() == Place::Document;
        if is_final(error.kind()) || (is_document && error.kind() == Kind::Changed) {
            if is_document {
                // Before anybody is told: who hears of it looks at record.json.errors next.
                self.put_rejected(staged);
            }
            if staged.advance(snapshot.turn, Upload::Refused(error.clone())) {
                staged.journal_refusal(&error);
            } else if is_document {
                // It was written again at the last moment.
                self.files.lock().take_back(staged);
            }
            return;
        }
        let pause = error
            .retry_after()
            .unwrap_or_default()
            .max(pause_after(snapshot.tries));
        let until = Instant::now() + pause;
        if staged.advance(snapshot.turn, Upload::Waiting { until, error }) {
            self.queue.push_later(ticket.with(Known::Nothing), pause);
        }
    }

    /// Brings a file to the server, and takes it away there under the keys that it had before.
    fn send(
        &self,
        staged: &Arc<Staged>,
        key: &str,
        snapshot: &Snapshot,
        known: Known,
    ) -> Result<Option<Md5>> {
        let Snapshot {
            data,
            size,
            turn,
            cancelled,
            ..
        } = snapshot;
        let job = upload::Job {
            draft: &staged.draft,
            key,
            data,
            size: *size,
            cancelled,
            sent: &staged.sent,
            known,
        };
        let checking = |checking| {
            let cancelled = Arc::clone(cancelled);
            staged.advance(*turn, Upload::Running { cancelled, checking });
        };
        let entry = upload::run(&self.repository, &job, checking)?;
        point(Point::Compared);
        log::info!("{key} of draft {} is on the server, {size} bytes", staged.draft);
        // First the list, then the state: whoever waits for the upload looks at the list next.
        let facts = staged.facts();
        (self.news)(&staged.draft, News::Arrived { entry: &entry, facts });
        self.delete_old_keys(staged)?;
        Ok(entry.md5)
    }

    /// Deletes what a renamed file left behind on the server.
    pub(super) fn delete_old_keys(&self, staged: &Arc<Staged>) -> Result<()> {
        for key in staged.address().replaces {
            let is_ours = || staged.address().replaces.contains(&key);
            if !is_ours() {
                continue;
            }
            // A stopped upload of the old key may still be on its way, and a new file of that key is another one's.
            let _claimed = self.claim(&staged.draft, &key)?;
            if is_ours() {
                self.delete(&staged.draft, &key)?;
                point(Point::OldKeyDeleted);
                self.files.lock().settle_by(staged, &key);
                staged.update_address(|address| address.replaces.retain(|old| *old != key));
                // A new file may come to this key while the others are still to be deleted: a restart must not delete
                // that.
                self.note_address(staged);
            }
        }
        Ok(())
    }

    /// Deletes what was only begun under the keys that a file had before it became junk: nobody sees it here, and the draft
    /// could not be published.
    fn sweep_old_keys(&self, staged: &Arc<Staged>) -> Result<()> {
        for key in staged.address().replaces {
            let _claimed = self.claim(&staged.draft, &key)?;
            // Asked now: what was there before may be somebody else's by now.
            let entries = self.repository.draft_files(&staged.draft)?;
            let is_pending = |entry: &FileEntry| entry.key == key && entry.status == FileStatus::Pending;
            if staged.address().replaces.contains(&key) && entries.iter().any(is_pending) {
                self.delete(&staged.draft, &key)?;
            }
        }
        Ok(())
    }

    /// Keeps all others from a key until this is dropped.
    fn claim(&self, draft: &RecordId, key: &Arc<str>) -> Result<Claimed<'_>> {
        let spot = (draft.clone(), Place::File(Arc::clone(key)));
        if !self.queue.claim(&spot, LONGEST_STOP) {
            return Err(Error::new(
                Kind::TimedOut,
                format!("the upload of {key} doesn't stop"),
            ));
        }
        Ok(Claimed {
            queue: &self.queue,
            spot,
        })
    }

    /// Deletes a file on the server, if it is there.
    pub(super) fn delete(&self, draft: &RecordId, key: &str) -> Result<()> {
        match self.repository.delete_file(draft, key) {
            // It never came that far, or somebody else was faster.
            Err(error) if error.kind() == Kind::NotFound => {}
            deleted => deleted?,
        }
        (self.news)(draft, News::Removed { key });
        Ok(())
    }

    /// Saves a document.
    fn save(&self, staged: &Arc<Staged>, snapshot: &Snapshot) -> Result<()> {
        let draft = &staged.draft;
        if snapshot.size > LARGEST_DOCUMENT {
            return Err(Error::new(
                Kind::TooLarge,
                format!("record.json of draft {draft} is too large"),
            ));
        }
        let mut text = vec![0; usize::try_from(snapshot.size).unwrap_or(usize::MAX)];
        snapshot
            .data
            .read_exact_at(&mut text, 0)
            .map_err(|e| Error::local(format_args!("read staged {}", staged.key()), &e))?;
        let base = self.base_of(staged, &text);
        let mut is_noted = false;
        let outcome = save::run(&self.repository, draft, &text, &base, |base| {
            if !std::mem::replace(&mut is_noted, true) {
                self.acceptances.note(&self.repository, draft);
            }
            staged.journal_base(base)
        })?;
        let is_sent = |outcome: &save::Outcome| !matches!(outcome, save::Outcome::Refused(None, _));
        if is_sent(&outcome)
            && let Some(taken_back) = self.acceptances.saved(&self.repository, draft)
        {
            self.board.post(&taken_back);
        }
        match outcome {
            save::Outcome::Saved(record) => {
                self.learn(draft, &base, &record);
                (self.news)(draft, News::Saved { record });
                let older = self.files.lock().take_rejected(draft);
                self.succeed(older.as_ref(), staged);
                self.delete_old_keys(staged)
            }
            save::Outcome::Refused(record, error) => {
                if let Some(record) = record {
                    self.learn(draft, &base, &record);
                    (self.news)(draft, News::Saved { record });
                }
                Err(error)
            }
        }
    }

    /// What a document may have been made from: what its own text says, else what was there when it was opened.
    fn base_of(&self, staged: &Staged, text: &[u8]) -> Base {
        let base = staged.base().unwrap_or_default();
        if base.saving.is_some() {
            return base;
        }
        let Some(revision) = save::revision_in(text, &staged.draft) else {
            return base;
        };
        let seen = self.documents.lock().digests(&staged.draft, revision);
        Base {
            // Never seen here: then the draft must still be of that revision.
            digests: seen.unwrap_or_else(|| [save::exactly(revision)].into()),
            saving: None,
        }
    }

    /// A draft is now so because of a document that was made from `base`: another one made from it is no conflict.
    fn learn(&self, draft: &RecordId, base: &Base, record: &crate::repository::model::Record) {
        let digest = save::digest(record.document());
        let mut documents = self.documents.lock();
        if let Some(revision) = record.revision {
            documents.seen(draft, revision, digest.clone());
        }
        documents.follows(draft, &base.digests, &digest);
    }

    /// Keeps a refused document beside the draft's own, instead of the one before.
    pub(super) fn put_rejected(&self, staged: &Arc<Staged>) {
        let older = self.files.lock().reject(staged);
        self.succeed(older.as_ref(), staged);
    }

    /// A document takes the place of a refused one, and what that was to delete on the server.
    fn succeed(&self, older: Option<&Arc<Staged>>, staged: &Arc<Staged>) {
        let Some(older) = older.filter(|older| !Arc::ptr_eq(older, staged)) else {
            return;
        };
        let replaces = older.update_address(|address| std::mem::take(&mut address.replaces));
        {
            let mut files = self.files.lock();
            files.take(older);
            for key in &replaces {
                files.leave(&staged.draft, key, staged);
            }
        }
        staged.update_address(|address| address.replaces.extend(replaces));
        self.note_address(staged);
        older.unlink();
        older.drop_data();
    }
}

/// A spot that nobody else works at.
struct Claimed<'a> {
    queue: &'a Queue,
    spot: Spot,
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        self.queue.done([&self.spot]);
    }
}

impl Ticket {
    /// The same upload, with what is known of the server by now.
    fn with(&self, known: Known) -> Ticket {
        Ticket {
            staged: Arc::clone(&self.staged),
            task: match self.task {
                Task::Send { turn, .. } => Task::Send { turn, known },
                task => task,
            },
        }
    }
}

/// The pause after a number of tries, with up to a quarter of jitter so that many uploads don't come back at once.
fn pause_after(tries: u32) -> Duration {
    let doubled = FIRST_PAUSE
        .saturating_mul(1 << tries.saturating_sub(1).min(16))
        .min(LONGEST_PAUSE);
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos());
    doubled + doubled / 4 * (nanos % 1000) / 1000
}
