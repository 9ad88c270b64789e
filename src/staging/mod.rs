//! Bytes the user wrote: staged files, their journal, their uploads.
//!
//! Called by `tree/`; sends through `repository/`. What is in here is on disk until the server has confirmed it by
//! size and MD5. It never decides what a file is called and never touches the cache of published bytes.
//!
//! Locks: the table of files, the seen documents, the acceptances, each staged file's bytes and its address, the queue's. The address is
//! taken under each of the others; else none is held while another is taken, nor over the network. That of a file's
//! bytes is held while they are written or copied.

mod acceptance;
mod closing;
pub mod crash;
mod decisions;
mod documents;
mod early;
mod file;
mod journal;
mod junk;
mod left;
mod moves;
mod origins;
mod place;
mod queue;
mod recovery;
mod save;
mod table;
mod turns;
mod upload;
mod work;

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};
use crate::md5::Hasher;
use crate::repository::Repository;
use crate::repository::model::{FileEntry, Record, RecordId};
use crate::status::Board;
use acceptance::Acceptances;
use closing::{Closing, Moment};
use documents::Documents;
use early::Early;
use file::Space;
pub use file::{Facts, Position, Staged};
use journal::Journal;
pub use junk::{JUNK, Rules};
pub use left::{Left, left_in};
pub use moves::Moved;
pub use place::Place;
use queue::{Queue, Task, Ticket};
pub use save::{Base, LARGEST_DOCUMENT, digest, save_now};
use table::Files;
pub use table::{Changes, Snapshot, Standing};
pub use turns::Upload;
use upload::Known;

/// How a staging area is set up.
pub struct Settings {
    /// Where staged files and the journal are; each repository gets a folder of its own in it.
    pub directory: PathBuf,
    /// A hash of the token: nothing goes out under another one.
    pub account: String,
    /// Whether that account is one of many that are used beside each other: then it has a folder to itself.
    pub apart: bool,
    /// Uploads at the same time.
    pub uploads: usize,
    /// How long close() waits for the upload.
    pub close_wait: Duration,
    /// What is never sent.
    pub rules: Rules,
}

/// Something that changed on the server because of what was written here.
pub enum News<'a> {
    /// A file is committed.
    Arrived {
        /// As the server has it.
        entry: &'a FileEntry,
        /// As it was here.
        facts: Facts,
    },
    /// A file is gone.
    Removed {
        /// Its key.
        key: &'a str,
    },
    /// The draft's document is this now.
    Saved {
        /// The draft.
        record: Box<Record>,
    },
}

/// Told of what changed in a draft on the server.
pub type Listener = Box<dyn Fn(&RecordId, News<'_>) + Send + Sync>;

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
    news: Listener,
    files: Mutex<Files>,
    documents: Mutex<Documents>,
    acceptances: Acceptances,
    queue: Queue,
    next_id: AtomicU64,
}

/// The pause before a file that could not be brought to disk is closed again.
const CLOSE_PAUSE: Duration = Duration::from_secs(5);
/// As long as a rename() waits for the upload of what it renamed.
const RENAME_WAIT: Duration = Duration::from_secs(5);
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
        news: Listener,
    ) -> Result<Area> {
        let mut folder = folder_of(repository.url());
        if settings.apart {
            folder.push('-');
            folder.push_str(&settings.account);
        }
        let directory = settings.directory.join(folder);
        let journal = Journal::open(&directory)?;
        journal.sweep()?;
        let entries = journal.load()?;
        let space = Arc::new(Space {
            journal,
            repository: repository.url().to_owned(),
            account: settings.account,
            rules: settings.rules,
            early: Early::start()?,
        });
        let shared = Arc::new(Shared {
            next_id: AtomicU64::new(space.journal.free_id(&entries)?),
            space,
            directory,
            repository,
            board,
            close_wait: settings.close_wait,
            news,
            files: Mutex::default(),
            documents: Mutex::default(),
            acceptances: Acceptances::default(),
            queue: Queue::default(),
        });
        shared.recover(entries);
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

    /// The staged file of a key, if there is one.
    #[must_use]
    pub fn find(&self, draft: &RecordId, key: &str) -> Option<Arc<Staged>> {
        self.at(draft, Place::File(Arc::from(key)))
    }

    /// The document of a draft, if it was written and is not saved yet.
    #[must_use]
    pub fn document(&self, draft: &RecordId) -> Option<Arc<Staged>> {
        self.staged_document(draft).filter(|staged| staged.is_unsent())
    }

    /// The staged document of a draft, also one that was saved a moment ago or only opened to be written.
    #[must_use]
    pub fn staged_document(&self, draft: &RecordId) -> Option<Arc<Staged>> {
        self.at(draft, Place::Document)
    }

    fn at(&self, draft: &RecordId, place: Place) -> Option<Arc<Staged>> {
        self.shared.files.lock().at(&(draft.clone(), place)).cloned()
    }

    /// The last document of a draft that the server refused, until a good one is saved.
    #[must_use]
    pub fn rejected(&self, draft: &RecordId) -> Option<Arc<Staged>> {
        self.shared.files.lock().rejected(draft).cloned()
    }

    /// That the last save of a draft's document took back that its curation was accepted.
    #[must_use]
    pub fn acceptance_lost(&self, draft: &RecordId) -> Option<Error> {
        self.shared.acceptances.lost(draft)
    }

    /// All staged files of a draft.
    #[must_use]
    pub fn of_draft(&self, draft: &RecordId) -> Vec<Arc<Staged>> {
        self.shared.files.lock().of_draft(draft).cloned().collect()
    }

    /// The keys of a draft that files had before they were renamed, and that the server may still have.
    #[must_use]
    pub fn left(&self, draft: &RecordId) -> HashSet<Arc<str>> {
        self.shared.files.lock().left(draft)
    }

    /// The files of a draft that stand otherwise than at a moment.
    #[must_use]
    pub fn changes(&self, draft: &RecordId, since: u64) -> Changes {
        self.shared.files.lock().changes(draft, since)
    }

    /// All files of a draft at this moment.
    #[must_use]
    pub fn snapshot(&self, draft: &RecordId) -> Snapshot {
        self.shared.files.lock().snapshot(draft)
    }

    /// What is staged under a key.
    #[must_use]
    pub fn standing(&self, draft: &RecordId, key: &Arc<str>) -> Standing {
        self.shared.files.lock().standing(draft, key)
    }

    /// A new, empty staged file with one writer. `absent` says that the server has nothing under this key.
    ///
    /// # Errors
    /// `Call(EEXIST)` if one is there already; `DiskFull`, `Local`.
    pub fn create(&self, draft: &RecordId, key: &Arc<str>, absent: bool) -> Result<Arc<Staged>> {
        let place = Place::File(Arc::clone(key));
        let staged = Staged::create(&self.shared.space, self.shared.number(), draft.clone(), place)?;
        self.shared.insert(staged, absent)
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
        let number = self.shared.number();
        let key = Arc::clone(key);
        let staged = Staged::adopt(&self.shared.space, number, draft.clone(), key, bytes, mtime)?;
        self.shared.insert(staged, false)
    }

    /// A draft's document with one writer: empty, or with the text that the server has.
    ///
    /// # Errors
    /// As for [`Area::create`].
    pub fn create_document(&self, draft: &RecordId, text: Option<&[u8]>, base: Base) -> Result<Arc<Staged>> {
        let number = self.shared.number();
        let staged = Staged::document(&self.shared.space, number, draft.clone(), text, base)?;
        self.shared.insert(staged, false)
    }

    /// A revision of a draft's document was shown.
    pub fn document_seen(&self, draft: &RecordId, revision: u64, digest: String) {
        self.shared.documents.lock().seen(draft, revision, digest);
    }

    /// One more writer of a staged file. `None` if its upload ended a moment ago and it is staged no more.
    #[must_use]
    pub fn reopen(&self, staged: &Arc<Staged>) -> Option<()> {
        let files = self.shared.files.lock();
        let spot = (staged.draft.clone(), staged.place());
        files.is_at(&spot, staged).then(|| staged.add_writer())
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
        let closing = staged.close(Moment::Flush)?;
        self.shared.enqueue_closing(staged, closing);
        match closing {
            Closing::Send(turn) => staged.wait(turn, Instant::now() + self.shared.close_wait),
            Closing::Nothing => {
                staged.note_closed()?;
                if self.may_be_on_server(staged) {
                    return Ok(());
                }
                staged.note_empty()
            }
            Closing::SendLater(_) => Ok(()),
        }
    }

    /// RELEASE: a writing handle is gone. After the last one, what is left to send is sent; nobody waits for it. If it
    /// can't be brought to disk, that is tried again.
    ///
    /// # Errors
    /// `DiskFull`, `Local`.
    pub fn release(&self, staged: &Arc<Staged>) -> Result<()> {
        staged.remove_writer();
        self.shared.close(staged)
    }

    /// Whether the server may have something under a file's key.
    #[must_use]
    pub fn may_be_on_server(&self, staged: &Staged) -> bool {
        !self.shared.files.lock().is_absent(staged)
    }

    /// When a rename() that begins now stops waiting: earlier than a close(), because the kernel lets nobody list the
    /// folder meanwhile.
    #[must_use]
    pub fn patience(&self) -> Instant {
        Instant::now() + self.shared.close_wait.min(RENAME_WAIT)
    }

    /// Stops the upload of a file that is about to be renamed or removed; when this returns, none runs. Returns whether
    /// the server may have something under the key. [`Area::rename`], [`Area::remove`] or [`Area::resume`] must follow.
    ///
    /// # Errors
    /// `NotReady` if a running upload doesn't stop in time; then it goes on.
    pub fn hold(&self, staged: &Arc<Staged>) -> Result<bool> {
        staged.hold();
        let spot = (staged.draft.clone(), staged.place());
        if !self.shared.queue.wait_idle(&spot, LONGEST_STOP) {
            self.resume(staged);
            return Err(Error::new(
                Kind::NotReady,
                format!("the upload of {} doesn't stop", staged.key()),
            ));
        }
        crash::point(crash::Point::Held);
        Ok(!self.shared.files.lock().is_absent(staged))
    }

    /// Goes on with a file whose removal failed.
    pub fn resume(&self, staged: &Arc<Staged>) {
        staged.let_go();
        if let Err(error) = self.shared.close(staged) {
            self.shared.board.post(&error);
        }
    }

    /// Deletes a file on the server, if it is there.
    ///
    /// # Errors
    /// What kept the server from deleting it.
    pub fn delete(&self, draft: &RecordId, key: &str) -> Result<()> {
        self.shared.delete(draft, key)
    }

    /// Deletes what a file that is about to be removed left on the server under the keys it had before.
    ///
    /// # Errors
    /// What kept the server from deleting it.
    pub fn delete_old_keys(&self, staged: &Arc<Staged>) -> Result<()> {
        self.shared.delete_old_keys(staged)
    }

    /// Takes a staged file off the tree. Its bytes go when its last handle does.
    pub fn remove(&self, staged: &Arc<Staged>) {
        // Whoever comes to one of these keys from now on can't tell it.
        staged.update_address(|address| address.replaces.clear());
        self.shared.files.lock().take(staged);
        staged.unlink();
        self.shared.drop_if_over(staged);
    }

    /// A draft is gone: so is all that was staged for it.
    pub fn forget_draft(&self, draft: &RecordId) {
        let all = self.shared.all();
        for staged in all.iter().filter(|staged| staged.draft == *draft) {
            self.remove(staged);
        }
    }

    /// Ends the workers, each after the request in hand. What is not sent stays in the journal; junk goes.
    pub fn shutdown(&self) {
        self.shared.queue.stop();
        self.shared.all().iter().for_each(|staged| staged.interrupt());
        for worker in self.workers.lock().drain(..) {
            if worker.join().is_err() {
                log::error!("an upload thread panicked");
            }
        }
        for staged in self.shared.all().iter().filter(|staged| !staged.has_writers()) {
            // What is complete, but could not be written down so far, is the next mount's to send.
            if let Err(error) = staged.close(Moment::Release) {
                log::error!("{error}");
            }
            if staged.is_droppable_junk() {
                self.remove(staged);
            }
        }
    }
}

impl Shared {
    fn number(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn all(&self) -> Vec<Arc<Staged>> {
        self.files.lock().all().cloned().collect()
    }

    fn numbered(&self, id: u64) -> Option<Arc<Staged>> {
        self.files.lock().all().find(|staged| staged.id == id).cloned()
    }

    /// Puts a new staged file into the table, with one writer. It was made before: the disk may be slow.
    fn insert(&self, staged: Staged, absent: bool) -> Result<Arc<Staged>> {
        let spot = (staged.draft.clone(), staged.place());
        let mut files = self.files.lock();
        if files.at(&spot).is_some() {
            drop(files);
            staged.drop_data();
            return Err(Error::call(libc::EEXIST));
        }
        let staged = Arc::new(staged);
        staged.add_writer();
        files.set_absent(&staged, absent);
        files.put(spot.clone(), &staged);
        let left = spot
            .1
            .key()
            .and_then(|key| Some((files.settle(&staged.draft, key)?, key)));
        if left.is_some() {
            // A renamed file was to be deleted under this key: it is this one's now, with what the server has there.
            files.set_absent(&staged, false);
        }
        drop(files);
        if let Some((by, key)) = left {
            self.forget_old_key(&by, &staged, key);
        }
        Ok(staged)
    }

    /// A key that a file had before is `now`'s: nothing is deleted there any more.
    fn forget_old_key(&self, by: &Arc<Staged>, now: &Arc<Staged>, key: &Arc<str>) {
        if Arc::ptr_eq(by, now) {
            return;
        }
        by.update_address(|address| address.replaces.retain(|old| old != key));
        self.note_address(by);
    }

    /// Writes a changed address into the journal; if that can't be done now, soon.
    fn note_address(&self, staged: &Arc<Staged>) {
        if let Err(error) = staged.journal_address() {
            self.board.post(&error);
            let ticket = Ticket {
                staged: Arc::clone(staged),
                task: Task::Note,
            };
            self.queue.push_later(ticket, CLOSE_PAUSE);
        }
    }

    /// Asks for an upload. Without `known`, what is known of the server is what this mount has made of it.
    fn enqueue(&self, staged: &Arc<Staged>, turn: u64, known: Option<Known>) {
        let known = known.unwrap_or_else(|| {
            let mut files = self.files.lock();
            let absent = files.is_absent(staged);
            files.set_absent(staged, false);
            if absent { Known::Absent } else { Known::Nothing }
        });
        self.queue.push(Ticket {
            staged: Arc::clone(staged),
            task: Task::Send { turn, known },
        });
    }

    fn enqueue_closing(&self, staged: &Arc<Staged>, closing: Closing) {
        match closing {
            Closing::Nothing => {}
            Closing::Send(turn) => self.enqueue(staged, turn, None),
            Closing::SendLater(turn) => {
                let ticket = Ticket {
                    staged: Arc::clone(staged),
                    task: Task::Send {
                        turn,
                        known: Known::Nothing,
                    },
                };
                self.queue.push_later(ticket, closing::PASSING_PAUSE);
            }
        }
    }

    /// Asks for the upload of a file that nobody writes any more. If it can't be brought to disk, that is tried again.
    fn close(&self, staged: &Arc<Staged>) -> Result<()> {
        if staged.is_written() {
            return Ok(());
        }
        // A mapping may keep a handle for long after it was closed.
        let moment = if staged.has_writers() {
            Moment::Flush
        } else {
            Moment::Release
        };
        match staged.close(moment) {
            Ok(Closing::Nothing) => self.drop_if_over(staged),
            Ok(closing) => self.enqueue_closing(staged, closing),
            Err(error) => {
                let ticket = Ticket {
                    staged: Arc::clone(staged),
                    task: Task::Close,
                };
                self.queue.push_later(ticket, CLOSE_PAUSE);
                return Err(error);
            }
        }
        Ok(())
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
            files.take(staged);
        }
        staged.drop_data();
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        self.shutdown();
    }
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
    hasher.finish().to_string()
}
