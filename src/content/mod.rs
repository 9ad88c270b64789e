//! The bytes of published files and of committed files of drafts: on disk once, fetched as they are read, verified.
//!
//! `tree/`, `mount/` and `staging/` open a [`Content`] by what names its bytes and read through a [`Reader`]. The floor
//! below is `repository/`. Nothing here knows records, nodes or FUSE, and nothing a user wrote lives here: all of it
//! can be deleted at any time and be fetched again.
//!
//! | file | what |
//! |---|---|
//! | `file` | one file's bytes, reads that wait |
//! | `reader` | one open handle |
//! | `ask` | a read that waits |
//! | `whole` | complete copies: reading at once, comparing, handing to the kernel |
//! | `given` | their files while somebody else uses them |
//! | `stamp` | what tells that a data file was not touched |
//! | `state`, `sums` | what is known of them, as data |
//! | `plan` | the ladder's decisions: what to fetch for whom |
//! | `judge` | whether to go on with it |
//! | `fetch` | one download on its thread: what it asks for, when it pauses or ends |
//! | `fill` | what it does with the bytes |
//! | `blocks` | one copy on disk: data and map |
//! | `readahead` | whether a reader reads on |
//! | `budget` | one budget for what is fetched ahead |
//! | `width` | how many ranges at once pay |
//! | `thrift` | how long they are where requests are limited |
//! | `hashing`, `verify` | the thread that hashes what came, the MD5 of bytes that come in any order |
//! | `fresh` | blocks that are still in memory |
//! | `opening` | opening a cache, and what is done about it in the background |
//! | `evict` | room: what goes first |
//! | `pins` | what the user wants to keep |
//! | `chores`, `work` | what a user can have done to the cache, and how far it is |
//! | `audit` | reading a copy against its checksums |
//! | `inspect` | what lies in a cache folder |
//! | `meter` | how much came, lately and in all |
//! | `hosts` | what hosts can do, and how many downloads run |
//! | `end` | what reading the end of a file costs |
//!
//! # Locks
//!
//! Two: each content's state, and the store's table. The state is taken first; whoever holds the table takes nothing
//! else. The queue of copies to compare has a third, which is held with no other. The budget has none. The tenure of the
//! folder is a leaf that is read while files are made, renamed or deleted by their names, and written once. A content's
//! condition variables (`changed` for paused downloads, `grown` for the thread that hashes and who waits for it) go with
//! its state, the store's `idle` with the table; nothing else is held in such a wait.
//! Neither is held while waiting for the network, reading or writing file data, or calling a reply. (Renaming a
//! copy away and punching holes happen under a lock: they must not be seen half done, and they are quick.)

mod ask;
mod audit;
mod blocks;
mod budget;
mod chores;
mod end;
mod evict;
mod fetch;
mod file;
mod fill;
mod fresh;
mod given;
mod hashing;
mod hosts;
mod inspect;
mod judge;
mod meter;
mod opening;
mod pins;
mod plan;
mod readahead;
mod reader;
mod stamp;
mod state;
mod sums;
mod thrift;
mod verify;
mod whole;
mod width;
mod work;

use std::collections::HashMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex, RwLock, RwLockReadGuard};

pub use chores::{Wanted, checksum_in};
pub use end::End;
pub use file::Content;
pub use given::{CompleteFile, HandedOut};
pub use inspect::{CopyFacts, Large, Pinned, Survey, is_cache, look_at, survey};
pub use reader::Reader;
pub use work::{Ending, Work};

use crate::error::{Error, Kind};
use crate::repository::Repository;
use crate::repository::model::{FilePlace, Md5};
use budget::{Budget, Share};
use evict::{Ledger, Limits, Trash};
use fresh::Room;
use hosts::{Hosts, Ranges, Slots};
use meter::Tally;
use pins::Pins;
use whole::Comparer;

type Result<T, E = Error> = std::result::Result<T, E>;

/// The folder of copies without a checksum, which end with the mount.
const UNVERIFIED: &str = "unverified";

/// How long a file that came wrong twice is not fetched again: a program that tries again at once would download it
/// over and over.
const WRONG_FOR: Duration = Duration::from_secs(30);

/// How many wrong files to remember.
const MOST_WRONG: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// How long `shutdown` waits for downloads; one may be in the middle of a request with a limit of its own.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(5);

/// Where and how much.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cache's folder.
    pub directory: PathBuf,
    /// Most bytes on disk; 0 keeps nothing after a file is closed.
    pub limit: u64,
    /// The share of the disk that stays free.
    pub keep_free: f64,
    /// Parallel downloads for read-ahead.
    pub connections: usize,
    /// Most bytes of read-ahead.
    pub window: u64,
    /// Most bytes of read-ahead of all readers together.
    pub memory: u64,
    /// The folder is removed with the mount, because another mount has the common one.
    pub is_private: bool,
}

/// What names some bytes. Files without an MD5 (another algorithm, remote, a multipart just committed) are named by
/// something that changes when they do; they are not verified and not kept beyond the mount.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Bytes with a checksum.
    Md5 {
        /// It.
        md5: Md5,
        /// How many.
        size: u64,
    },
    /// Bytes without one.
    Unverified {
        /// Place, size and time, or whatever else tells versions apart.
        tag: String,
        /// How many.
        size: u64,
    },
}

impl Identity {
    /// How many bytes there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Identity::Md5 { size, .. } | Identity::Unverified { size, .. } => *size,
        }
    }

    /// The name of the copy's files, without ending.
    fn stem(&self) -> String {
        match self {
            Identity::Md5 { md5, size } => {
                let hex = md5.to_string();
                format!("{}/{hex}-{size}", &hex[..2])
            }
            Identity::Unverified { tag, size } => {
                // Hashed because a tag may hold anything.
                let name = crate::md5::of(tag);
                format!("{UNVERIFIED}/{name}-{size}")
            }
        }
    }
}

/// What the cache takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Most bytes on disk.
    pub limit: u64,
    /// Files, whole and in part.
    pub files: u64,
    /// Whether that is all, and not only what came since the cache was opened.
    pub counted: bool,
    /// Bytes of files that stay until they are unpinned.
    pub pinned: u64,
    /// Bytes of the disk that stay free.
    pub kept_free: u64,
}

/// What was read since the cache was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Bytes that programs read and that were here when they asked.
    pub from_cache: u64,
    /// Bytes fetched.
    pub from_network: u64,
}

/// A file that is being downloaded.
#[derive(Clone, Debug)]
pub struct DownloadStatus {
    /// Of what.
    pub place: FilePlace,
    /// Bytes on disk.
    pub have: u64,
    /// Bytes of the file.
    pub total: u64,
    /// Since when.
    pub started: SystemTime,
    /// Bytes a second, over the last seconds.
    pub rate: u64,
    /// Reads that wait for bytes.
    pub waiting: usize,
    /// What is going on.
    pub note: &'static str,
}

/// How often a file came wrong, and until when it is not tried again.
#[derive(Clone, Copy, Debug, Default)]
struct Wrong {
    times: u32,
    until: Option<Instant>,
}

struct Table {
    contents: HashMap<Arc<str>, Weak<Content>>,
    /// When to look for dead entries next: at this many.
    sweep_at: usize,
    hosts: Hosts,
    slots: Slots,
    wrong: lru::LruCache<Arc<str>, Wrong>,
}

/// Hears of contents of which wrong bytes were served.
type WrongTold = Box<dyn Fn(&Content) + Send + Sync>;

/// All cached bytes of one repository.
pub struct Store {
    settings: Settings,
    root: PathBuf,
    repository: Arc<Repository>,
    table: Mutex<Table>,
    /// A download ended, or the store shuts down.
    idle: Condvar,
    stopping: AtomicBool,
    ledger: Ledger,
    pins: Pins,
    tally: Tally,
    budget: Arc<Budget>,
    /// Room for blocks in memory.
    fresh: Arc<Room>,
    comparer: Comparer,
    wrong_told: OnceLock<WrongTold>,
    trash_names: AtomicU64,
    /// Whether the folder is ours still.
    tenure: RwLock<bool>,
    /// Held until `shutdown`: two daemons must not write to one folder.
    lock: File,
}

impl Store {
    /// The bytes that `identity` names, to be had at `place`. All who ask for the same get the same.
    #[must_use]
    pub fn content(self: &Arc<Self>, identity: Identity, place: FilePlace) -> Arc<Content> {
        let stem: Arc<str> = identity.stem().into();
        let known = {
            let mut table = self.table.lock();
            match table.contents.get(&stem).and_then(Weak::upgrade) {
                Some(content) => content,
                None => {
                    let content =
                        Arc::new(Content::new(Arc::clone(self), identity, Arc::clone(&stem), place));
                    table.contents.insert(stem, Arc::downgrade(&content));
                    if table.contents.len() >= table.sweep_at {
                        table.contents.retain(|_, content| content.strong_count() > 0);
                        table.sweep_at = (table.contents.len() * 2).max(64);
                    }
                    return content;
                }
            }
        };
        known.set_place(place);
        known
    }

    /// What the cache takes. Counted in the background after opening.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let (bytes, files) = self.ledger.usage();
        Usage {
            bytes,
            limit: self.settings.limit,
            files,
            counted: self.ledger.is_counted(),
            pinned: self.pins.bytes(),
            kept_free: evict::kept_free(&self.root, self.settings.keep_free),
        }
    }

    /// What was read since the cache was opened.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let (from_cache, from_network) = self.tally.get();
        Totals {
            from_cache,
            from_network,
        }
    }

    /// Whether a daemon is about to end: nothing that takes long should be begun.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.is_stopping()
    }

    /// What is being downloaded now.
    #[must_use]
    pub fn downloads(&self) -> Vec<DownloadStatus> {
        self.contents()
            .iter()
            .filter_map(|content| content.download())
            .collect()
    }

    /// Ends all downloads, answers all reads that wait, and leaves the folder to the next. What is on disk can still be
    /// read.
    pub fn shutdown(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for content in self.contents() {
            content.stop();
        }
        self.idle.notify_all();
        let until = Instant::now() + LONGEST_SHUTDOWN;
        {
            let mut table = self.table.lock();
            while table.slots.active() > 0 {
                if self.idle.wait_until(&mut table, until).timed_out() {
                    log::warn!("{} downloads did not end in time", table.slots.active());
                    break;
                }
            }
        }
        self.discard(self.take_unverified());
        // Whoever is in the middle of a step on its files ends it; nobody begins another one.
        *self.tenure.write() = false;
        if let Err(error) = self.lock.unlock() {
            log::debug!("cache: {error}");
        }
    }

    fn contents(&self) -> Vec<Arc<Content>> {
        let table = self.table.lock();
        table.contents.values().filter_map(Weak::upgrade).collect()
    }

    /// The content with this name if somebody holds it; else its files are renamed away at once, before somebody can.
    fn known_or_trashed(&self, stem: &str) -> Result<Arc<Content>, Option<Trash>> {
        let table = self.table.lock();
        match table.contents.get(stem).and_then(Weak::upgrade) {
            Some(content) => Ok(content),
            None => Err(self.trash(&blocks::Names::new(&self.root, stem), 0)),
        }
    }

    /// Permission to make, rename or delete files of the folder by their names, for one short step. `None` once it was left
    /// to the next, whose files have the same names. Nobody may ask for it twice.
    fn tenure(&self) -> Option<RwLockReadGuard<'_, bool>> {
        let is_ours = self.tenure.read();
        is_ours.then_some(is_ours)
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn repository(&self) -> &Repository {
        &self.repository
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn pins(&self) -> &Pins {
        &self.pins
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn keeps_nothing(&self) -> bool {
        self.settings.limit == 0
    }

    fn limits(&self) -> Limits {
        Limits {
            // Without a cache, an open file still needs some room for what its readers are about to read.
            most: match self.settings.limit {
                0 => self.settings.window.saturating_mul(2),
                limit => limit,
            },
            keep_free: self.settings.keep_free,
        }
    }

    /// The largest read-ahead: no more than half of the room, so that what is ahead never pushes out what is read.
    fn window(&self) -> u64 {
        self.settings
            .window
            .min((self.limits().most / 2).max(plan::SMALL))
    }

    /// How far ahead a reader may be read that has this share. The last range of a large window may end beyond it, so a
    /// quarter of the share is kept for that.
    fn window_of(&self, share: Option<&Share>) -> u64 {
        let share = share.map_or_else(|| self.budget.next(), Share::bytes);
        self.window().min(share / 4 * 3)
    }

    /// The first window of a reader that reads on.
    fn first_window(&self) -> u64 {
        plan::first_window(self.width())
    }

    /// How many ranges to fetch at once.
    fn width(&self) -> usize {
        self.table.lock().hosts.width()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn learn(&self, host: &str, ranges: Ranges) {
        self.table.lock().hosts.learn(host, ranges);
    }

    fn answered(&self, host: &str, after: Duration) {
        let most = self.settings.connections;
        // Storage elsewhere has limits of its own, which it doesn't tell.
        let limit = self
            .repository
            .is_own(host)
            .then(|| self.repository.limits_seen());
        let mut table = self.table.lock();
        table.hosts.answered(host, after, most, limit.flatten());
    }

    fn brought(&self, host: &str, bytes: u64, time: Duration) {
        self.table.lock().hosts.brought(host, bytes, time);
    }

    /// Bytes came. Tells whether more is to be asked for at once from now on.
    fn came(&self, host: &str, bytes: u64) -> bool {
        let most = self.settings.connections;
        self.table.lock().hosts.came(host, bytes, Instant::now(), most)
    }

    fn begin_ending(&self) -> bool {
        self.table.lock().slots.begin_ending(self.settings.connections)
    }

    fn end_ending(&self) {
        self.table.lock().slots.end_ending();
    }

    fn begin_ahead(&self) -> bool {
        self.table.lock().slots.begin_ahead(self.settings.connections)
    }

    fn end_ahead(&self) {
        self.table.lock().slots.end_ahead();
    }

    fn is_contended(&self) -> bool {
        self.table.lock().slots.is_contended()
    }

    /// Gives a slot back or hands it over to whoever stands in line and still needs it.
    fn release_slot(&self) {
        loop {
            let next = self.table.lock().slots.release();
            self.idle.notify_all();
            let Some(next) = next else { return };
            if next.upgrade().is_some_and(|content| content.take_over_slot()) {
                return;
            }
        }
    }

    /// Why nothing is fetched for this content now.
    fn refusal(&self, stem: &Arc<str>) -> Option<Error> {
        if self.is_stopping() {
            return Some(file::stopping());
        }
        let until = self.table.lock().wrong.get(stem)?.until?;
        (Instant::now() < until).then(|| {
            let what = format!("{stem} came twice with the wrong MD5 and is not fetched again yet");
            Error::new(Kind::Corrupt, what)
        })
    }

    /// A file came wrong. Tells whether it is worth another try.
    fn note_mismatch(&self, stem: &Arc<str>) -> bool {
        let mut table = self.table.lock();
        let wrong = table.wrong.get_or_insert_mut(Arc::clone(stem), Wrong::default);
        wrong.times += 1;
        let again = wrong.times < 2;
        if !again {
            wrong.until = Some(Instant::now() + WRONG_FOR);
        }
        again
    }

    fn forget_mismatch(&self, stem: &Arc<str>) {
        self.table.lock().wrong.pop(stem);
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.root.display())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // No content is left, so no download and no wait either. After `shutdown` the folder may be another daemon's.
        if !self.stopping.swap(true, Ordering::SeqCst) {
            self.discard(self.take_unverified());
        }
    }
}

/// What the plan sees of the store.
struct View<'a> {
    content: &'a Arc<Content>,
    gift: bool,
}

impl<'a> View<'a> {
    fn of(content: &'a Arc<Content>) -> Self {
        View { content, gift: false }
    }

    /// With a slot handed over by a download that ended.
    fn with_slot(content: &'a Arc<Content>) -> Self {
        View { content, gift: true }
    }

    fn has_slot(&self) -> bool {
        self.gift
    }
}

impl plan::Around for View<'_> {
    fn ranges(&self) -> Option<Ranges> {
        self.content.store.table.lock().hosts.expected()
    }

    fn width(&self) -> usize {
        self.content.store.width()
    }

    fn shape(&self, window: u64) -> thrift::Shape {
        self.content.store.table.lock().hosts.shape(window)
    }

    fn slot(&mut self) -> bool {
        if std::mem::take(&mut self.gift) {
            return true;
        }
        let mut table = self.content.store.table.lock();
        let taken = table.slots.take();
        if !taken {
            table.slots.wait(Arc::downgrade(self.content));
        }
        taken
    }

    fn slot_ahead(&mut self) -> bool {
        let store = &self.content.store;
        store.table.lock().slots.take_ahead(store.settings.connections)
    }
}
