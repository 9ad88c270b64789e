//! Bytes the user wrote: staged files, their journal, their uploads.
//!
//! Called by `tree/`; sends through `repository/`. What is in here is on disk until the server has confirmed it by
//! size and MD5. It never decides what a file is called and never touches the cache of published bytes.
//!
//! Locks: the table of files, each staged file's, the queue's. None is held while another is taken, nor over the
//! network; that of a staged file is held while its bytes are written or copied.

mod file;
mod journal;
mod queue;
mod turns;
mod upload;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5 as Hasher};
use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};
use crate::repository::Repository;
use crate::repository::model::{FileEntry, RecordId};
use crate::status::Board;
use file::Space;
pub use file::{Facts, Position, Staged};
use journal::{Journal, State};
use queue::{Queue, Task, Ticket};
pub use turns::Upload;
use turns::{Snapshot, is_final};

/// How a staging area is set up.
pub struct Settings {
    /// Where staged files and the journal are; each repository gets a folder of its own in it.
    pub directory: PathBuf,
    /// A hash of the token: nothing goes out under another one.
    pub account: String,
    /// Uploads at the same time.
    pub uploads: usize,
    /// How long close() waits for the upload.
    pub close_wait: Duration,
}

/// Told of each file that the server confirmed.
pub type Confirmed = Box<dyn Fn(&RecordId, &FileEntry) + Send + Sync>;

/// The staging area of one repository and user.
pub struct Area {
    shared: Arc<Shared>,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    space: Arc<Space>,
    directory: PathBuf,
    repository: Arc<Repository>,
    board: Arc<Board>,
    close_wait: Duration,
    confirmed: Confirmed,
    files: Mutex<Files>,
    queue: Queue,
    next_id: AtomicU64,
    /// Counts the changes of the set of staged files, for those who list it.
    epoch: AtomicU64,
}

#[derive(Default)]
struct Files {
    by_place: HashMap<(RecordId, Arc<str>), Arc<Staged>>,
    /// Keys that the server is known not to have, because this mount created them there.
    absent: HashSet<u64>,
}

/// The first pause after a failed upload; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two tries; there is no last try.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// The pause before a file that could not be brought to disk is closed again.
const CLOSE_PAUSE: Duration = Duration::from_secs(5);
/// As long as an unlink waits for a running upload of the same key to stop. It stops between two pieces or steps,
/// each of which the limits of `repository/` bound.
const LONGEST_STOP: Duration = Duration::from_secs(90);

impl Area {
    /// Opens the area, locks it, and goes on with what an earlier mount left.
    ///
    /// # Errors
    /// `Local` if the directory can't be used, or another daemon uses it.
    pub fn open(
        settings: Settings,
        repository: Arc<Repository>,
        board: Arc<Board>,
        confirmed: Confirmed,
    ) -> Result<Area> {
        let directory = settings.directory.join(folder_of(repository.url()));
        let journal = Journal::open(&directory)?;
        let entries = journal.load()?;
        let space = Arc::new(Space {
            journal,
            repository: repository.url().to_owned(),
            account: settings.account,
        });
        let shared = Arc::new(Shared {
            next_id: AtomicU64::new(space.journal.free_id()?),
            space,
            directory,
            repository,
            board,
            close_wait: settings.close_wait,
            confirmed,
            files: Mutex::default(),
            queue: Queue::default(),
            epoch: AtomicU64::new(0),
        });
        shared.recover(&entries);
        let workers = (0..settings.uploads.max(1))
            .map(|number| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("upload-{number}"))
                    .spawn(move || shared.work())
                    .map_err(|e| Error::local("start an upload thread", &e))
            })
            .collect::<Result<_>>()?;
        Ok(Area {
            shared,
            workers: Mutex::new(workers),
        })
    }

    /// The directory of this repository's staged files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// Counts the changes of the set of staged files.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.shared.epoch.load(Ordering::Acquire)
    }

    /// The staged file of a key, if there is one.
    #[must_use]
    pub fn find(&self, draft: &RecordId, key: &str) -> Option<Arc<Staged>> {
        self.shared
            .files
            .lock()
            .by_place
            .get(&(draft.clone(), Arc::from(key)))
            .cloned()
    }

    /// All staged files of a draft.
    #[must_use]
    pub fn of_draft(&self, draft: &RecordId) -> Vec<Arc<Staged>> {
        let files = self.shared.files.lock();
        files
            .by_place
            .values()
            .filter(|staged| staged.draft == *draft)
            .cloned()
            .collect()
    }

    /// A new, empty staged file with one writer. `absent` says that the server has nothing under this key.
    ///
    /// # Errors
    /// `Call(EEXIST)` if one is there already; `DiskFull`, `Local`.
    pub fn create(&self, draft: &RecordId, key: &Arc<str>, absent: bool) -> Result<Arc<Staged>> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let staged = Staged::create(&self.shared.space, id, draft.clone(), Arc::clone(key))?;
        self.insert(staged, absent)
    }

    /// A staged file with one writer that begins with the bytes the server has.
    ///
    /// # Errors
    /// As for [`Area::create`].
    pub fn adopt(
        &self,
        draft: &RecordId,
        key: &Arc<str>,
        bytes: &File,
        mtime: Option<SystemTime>,
    ) -> Result<Arc<Staged>> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let staged = Staged::adopt(
            &self.shared.space,
            id,
            draft.clone(),
            Arc::clone(key),
            bytes,
            mtime,
        )?;
        self.insert(staged, false)
    }

    /// Puts a new staged file into the table, with one writer. It was made before: the disk may be slow.
    fn insert(&self, staged: Staged, absent: bool) -> Result<Arc<Staged>> {
        let mut files = self.shared.files.lock();
        let place = (staged.draft.clone(), Arc::clone(&staged.key));
        if files.by_place.contains_key(&place) {
            drop(files);
            staged.drop_data();
            return Err(Error::call(libc::EEXIST));
        }
        let staged = Arc::new(staged);
        staged.add_writer();
        if absent {
            files.absent.insert(staged.id);
        }
        files.by_place.insert(place, Arc::clone(&staged));
        self.shared.changed();
        Ok(staged)
    }

    /// One more writer of a staged file. `None` if its upload ended a moment ago and it is staged no more.
    #[must_use]
    pub fn reopen(&self, staged: &Arc<Staged>) -> Option<()> {
        let files = self.shared.files.lock();
        let current = files
            .by_place
            .get(&(staged.draft.clone(), Arc::clone(&staged.key)))?;
        Arc::ptr_eq(current, staged).then(|| staged.add_writer())
    }

    /// FLUSH: some process closed some descriptor. Bytes and journal are on disk when it returns. If it was the
    /// process that opened the file and nobody else writes, the upload begins and is waited for.
    ///
    /// # Errors
    /// Why the server refuses the file; `DiskFull`, `Local`.
    pub fn flush(&self, staged: &Arc<Staged>, by_opener: bool) -> Result<()> {
        if !by_opener {
            return staged.sync();
        }
        match staged.close(false)? {
            Some(turn) => {
                self.shared.enqueue(staged, turn);
                staged.wait(turn, Instant::now() + self.shared.close_wait)
            }
            None => Ok(()),
        }
    }

    /// RELEASE: a writing handle is gone. After the last one, what is left to send is sent; nobody waits for it. If it
    /// can't be brought to disk, that is tried again.
    ///
    /// # Errors
    /// `DiskFull`, `Local`.
    pub fn release(&self, staged: &Arc<Staged>) -> Result<()> {
        staged.remove_writer();
        if staged.has_writers() {
            return Ok(());
        }
        self.shared.close(staged)
    }

    /// Stops the upload of a file that is about to be removed; when this returns, none runs. Returns whether the server
    /// may have something under the key. [`Area::remove`] or [`Area::resume`] must follow.
    ///
    /// # Errors
    /// `NotReady` if a running upload doesn't stop in time; then it goes on.
    pub fn hold(&self, staged: &Arc<Staged>) -> Result<bool> {
        staged.hold();
        if !self.shared.queue.wait_idle(staged, LONGEST_STOP) {
            self.resume(staged);
            return Err(Error::new(
                Kind::NotReady,
                format!("the upload of {} doesn't stop", staged.key),
            ));
        }
        Ok(!self.shared.files.lock().absent.contains(&staged.id))
    }

    /// Goes on with a file whose removal failed.
    pub fn resume(&self, staged: &Arc<Staged>) {
        if !staged.has_writers()
            && let Err(error) = self.shared.close(staged)
        {
            self.shared.board.post(&error);
        }
    }

    /// Takes a staged file off the tree. Its bytes go when its last handle does.
    pub fn remove(&self, staged: &Arc<Staged>) {
        self.shared.take(&mut self.shared.files.lock(), staged);
        staged.unlink();
        self.shared.drop_if_over(staged);
    }

    /// What is not safe on the server, oldest first.
    #[must_use]
    pub fn uploads(&self) -> Vec<crate::status::Upload> {
        let mut files = self.shared.all();
        files.sort_by_key(|staged| staged.id);
        files
            .iter()
            .filter(|staged| staged.is_unsent())
            .map(|staged| staged.status())
            .collect()
    }

    /// Ends the workers, each after the request in hand. What is not sent stays in the journal.
    pub fn shutdown(&self) {
        self.shared.queue.stop();
        self.shared.all().iter().for_each(|staged| staged.interrupt());
        for worker in self.workers.lock().drain(..) {
            if worker.join().is_err() {
                log::error!("an upload thread panicked");
            }
        }
        // What is complete, but could not be written down so far, is the next mount's to send.
        for staged in self.shared.all().iter().filter(|staged| !staged.has_writers()) {
            if let Err(error) = staged.close(true) {
                log::error!("{error}");
            }
        }
    }
}

impl Shared {
    fn all(&self) -> Vec<Arc<Staged>> {
        self.files.lock().by_place.values().cloned().collect()
    }

    fn changed(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    fn enqueue(&self, staged: &Arc<Staged>, turn: u64) {
        let known_absent = self.files.lock().absent.remove(&staged.id);
        self.queue.push(Ticket {
            staged: Arc::clone(staged),
            task: Task::Send(turn),
            known_absent,
        });
    }

    /// The last writer is gone.
    fn close(&self, staged: &Arc<Staged>) -> Result<()> {
        match staged.close(true) {
            Ok(Some(turn)) => self.enqueue(staged, turn),
            Ok(None) => self.drop_if_over(staged),
            Err(error) => {
                let ticket = Ticket {
                    staged: Arc::clone(staged),
                    task: Task::Close,
                    known_absent: false,
                };
                self.queue.push_later(ticket, CLOSE_PAUSE);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Goes on with what an earlier mount left. Of two files with one key, the later one counts.
    fn recover(self: &Arc<Self>, entries: &[journal::Entry]) {
        for entry in entries {
            let shown = format!("{} of draft {}", entry.key, entry.draft);
            if entry.repository != self.space.repository || entry.account != self.space.account {
                log::info!("{shown} was staged by another user; left alone");
                continue;
            }
            if entry.state == State::Open || entry.open.is_some() {
                let generation = entry.open.unwrap_or(entry.generation);
                let path = self.space.journal.data_path(entry.id, generation);
                log::warn!(
                    "{shown} was never closed; what was written is kept in {}",
                    path.display()
                );
            }
            if entry.state == State::Open {
                continue;
            }
            let recovered = RecordId::new(&entry.draft)
                .ok_or_else(|| {
                    Error::new(
                        Kind::Internal,
                        format!("journal entry {} names no draft", entry.id),
                    )
                })
                .and_then(|draft| Staged::recover(&self.space, entry, draft));
            match recovered {
                Ok(staged) => self.readmit(Arc::new(staged), entry.state == State::Closed),
                Err(error) => self.board.post(&error),
            }
        }
    }

    fn readmit(&self, staged: Arc<Staged>, send: bool) {
        let place = (staged.draft.clone(), Arc::clone(&staged.key));
        let older = self.files.lock().by_place.insert(place, Arc::clone(&staged));
        if let Some(older) = older {
            older.unlink();
            older.drop_data();
        }
        if send {
            self.enqueue(&staged, staged.turn());
        }
    }

    fn work(self: Arc<Self>) {
        while let Some(ticket) = self.queue.next() {
            let run = std::panic::AssertUnwindSafe(|| self.serve(&ticket));
            if std::panic::catch_unwind(run).is_err() {
                let what = format!("the upload of {} panicked", ticket.staged.key);
                let error = Error::new(Kind::Internal, what);
                self.board.post(&error);
                if let Task::Send(turn) = ticket.task {
                    ticket.staged.advance(turn, Upload::Refused(error));
                }
            }
            self.queue.done(&ticket);
            self.drop_if_over(&ticket.staged);
        }
    }

    fn serve(&self, ticket: &Ticket) {
        match ticket.task {
            Task::Send(turn) => self.upload(ticket, turn),
            Task::Close if ticket.staged.has_writers() => {}
            Task::Close => {
                if let Err(error) = self.close(&ticket.staged) {
                    self.board.post(&error);
                }
            }
        }
    }

    fn upload(&self, ticket: &Ticket, turn: u64) {
        let staged = &ticket.staged;
        let Some(snapshot) = staged.begin(turn) else {
            return;
        };
        let Snapshot {
            data,
            size,
            turn,
            tries,
            cancelled,
        } = &snapshot;
        let job = upload::Job {
            draft: &staged.draft,
            key: &staged.key,
            data,
            size: *size,
            cancelled,
            sent: &staged.sent,
            known: match ticket.known_absent {
                true => upload::Known::Absent,
                false => upload::Known::Nothing,
            },
        };
        let checking = |checking| {
            staged.advance(
                *turn,
                Upload::Running {
                    cancelled: Arc::clone(cancelled),
                    checking,
                },
            );
        };
        match upload::run(&self.repository, &job, checking) {
            Ok(entry) => {
                log::info!(
                    "{} of draft {} is on the server, {size} bytes",
                    staged.key,
                    staged.draft
                );
                // First the list, then the state: whoever waits for the upload looks at the list next.
                (self.confirmed)(&staged.draft, &entry);
                staged.confirm(*turn, entry.md5);
            }
            // Whatever it failed with after that: whoever stopped it knows what comes next, and the journal a restart.
            Err(_) if cancelled.load(Ordering::Relaxed) => {
                log::debug!("the upload of {} was stopped", staged.key);
            }
            Err(error) if is_final(error.kind()) => {
                let error = error.during(format_args!("upload {} to draft {}", staged.key, staged.draft));
                self.board.post(&error);
                if staged.advance(*turn, Upload::Refused(error.clone())) {
                    staged.journal_refusal(&error);
                }
            }
            Err(error) => {
                let error = error.during(format_args!("upload {} to draft {}", staged.key, staged.draft));
                self.board.post(&error);
                let pause = error.retry_after().unwrap_or_default().max(pause_after(*tries));
                let until = Instant::now() + pause;
                if staged.advance(*turn, Upload::Waiting { until, error }) {
                    let ticket = Ticket {
                        known_absent: false,
                        ..ticket.clone()
                    };
                    self.queue.push_later(ticket, pause);
                }
            }
        }
    }

    /// Drops a staged file that nobody needs any more.
    fn drop_if_over(&self, staged: &Arc<Staged>) {
        let opens = staged.opens();
        if !staged.is_over() {
            return;
        }
        {
            let mut files = self.files.lock();
            // Only a writer can make it needed again, and writers come in only while the table is held.
            if staged.has_writers() || staged.opens() != opens {
                return;
            }
            self.take(&mut files, staged);
        }
        staged.drop_data();
    }

    /// Takes a staged file out of the table, unless another one has its place by now. Whoever lists the files sees the
    /// change before anybody can miss the file.
    fn take(&self, files: &mut Files, staged: &Arc<Staged>) {
        let place = (staged.draft.clone(), Arc::clone(&staged.key));
        if files
            .by_place
            .get(&place)
            .is_some_and(|current| Arc::ptr_eq(current, staged))
        {
            files.by_place.remove(&place);
        }
        files.absent.remove(&staged.id);
        self.changed();
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        self.shutdown();
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

/// A folder name for a repository: readable, and different for different addresses.
fn folder_of(url: &str) -> String {
    let host: String = url
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' || c == '-' {
                c
            } else {
                '_'
            }
        })
        .take(80)
        .collect();
    format!("{host}-{:08x}", crc32fast::hash(url.as_bytes()))
}

/// A hash that tells tokens apart without giving them away.
#[must_use]
pub fn account_of(url: &str, token: Option<&str>) -> String {
    let mut hasher = Hasher::new();
    hasher.update(url);
    hasher.update([0]);
    hasher.update(token.unwrap_or_default());
    crate::repository::model::Md5(hasher.finalize().into()).to_string()
}
