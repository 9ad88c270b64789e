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
//! | `state` | what is known of them, as data |
//! | `plan` | the ladder's decisions: what to fetch for whom, whether to go on |
//! | `fetch` | one download on its thread: what it asks for, when it pauses or ends |
//! | `fill` | what it does with the bytes |
//! | `blocks` | one copy on disk: data and map |
//! | `readahead` | whether a reader reads on |
//! | `budget` | one budget for what is fetched ahead |
//! | `width` | how many ranges at once pay |
//! | `hashing` | the thread that hashes what came |
//! | `verify` | the MD5 of bytes that come in any order |
//! | `evict` | room: what goes first |
//! | `hosts` | what hosts can do, and how many downloads run |
//!
//! # Locks
//!
//! Two: each content's state, and the store's table. The state is taken first; whoever holds the table takes nothing
//! else. The budget has none. A content's condition variables (`changed` for paused downloads, `grown` for the thread that
//! hashes and who waits for it) go with its state, the store's `idle` with the table; nothing else is held in such a wait.
//! Neither is held while waiting for the network, reading or writing file data, or calling a reply. (Renaming a
//! copy away and punching holes happen under a lock: they must not be seen half done, and they are quick.)

mod blocks;
mod budget;
mod evict;
mod fetch;
mod file;
mod fill;
mod hashing;
mod hosts;
mod plan;
mod readahead;
mod reader;
mod state;
mod verify;
mod width;

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use md5::Digest;
use parking_lot::{Condvar, Mutex};

pub use file::Content;
pub use reader::Reader;

use crate::error::{Error, Kind};
use crate::repository::Repository;
use crate::repository::model::{FilePlace, Md5};
use budget::{Budget, Share};
use evict::{Ledger, Limits, Trash};
use hosts::{Hosts, Ranges, Slots};

type Result<T, E = Error> = std::result::Result<T, E>;

/// The folder of copies without a checksum, which end with the mount.
const UNVERIFIED: &str = "unverified";

/// How long a file that came wrong twice is not fetched again: a program that tries again at once would download it
/// over and over.
const WRONG_FOR: Duration = Duration::from_secs(30);

/// How many wrong files to remember.
const MOST_WRONG: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// How often waits are looked at. They are limited by many minutes.
const LOOK_AT_WAITS: Duration = Duration::from_secs(5);

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
                let name = Md5(md5::Md5::digest(tag.as_bytes()).into());
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
}

/// A download that is going on.
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
    /// Bytes a second on average.
    pub rate: f64,
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
    budget: Arc<Budget>,
    trash_names: AtomicU64,
    /// Held until `shutdown`: two daemons must not write to one folder.
    lock: File,
}

impl Store {
    /// Opens the cache, and makes its folder if need be.
    ///
    /// # Errors
    /// `Local(EWOULDBLOCK)` if another daemon uses the folder; `Local` or `DiskFull` if it can't be written.
    pub fn open(settings: Settings, repository: Arc<Repository>) -> Result<Arc<Store>> {
        let directory = &settings.directory;
        let fault = |error: &std::io::Error| Error::local(format!("cache {}", directory.display()), error);
        let root = directory.join("content");
        for folder in [&root, &root.join(UNVERIFIED), &root.join("trash")] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|error| fault(&error))?;
        }
        // It may have been made by somebody less careful: what was read from restricted records lies here.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).map_err(|error| fault(&error))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(directory.join("content.lock"))
            .map_err(|error| fault(&error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = format!("the cache {} is in use by another rdmfs", directory.display());
                return Err(Error::new(Kind::Local(libc::EWOULDBLOCK), what));
            }
            Err(TryLockError::Error(error)) => return Err(fault(&error)),
        }
        let store = Arc::new(Store {
            root,
            repository,
            table: Mutex::new(Table {
                contents: HashMap::new(),
                sweep_at: 64,
                hosts: Hosts::default(),
                slots: Slots::default(),
                wrong: lru::LruCache::new(MOST_WRONG),
            }),
            idle: Condvar::new(),
            stopping: AtomicBool::new(false),
            ledger: Ledger::new(),
            budget: Budget::new(settings.memory),
            trash_names: AtomicU64::new(0),
            lock,
            settings,
        });
        let leftovers = store.take_unverified();
        let weak = Arc::downgrade(&store);
        thread::Builder::new()
            .name("rdmfs-cache".into())
            .spawn(move || keep_house(&weak, leftovers))
            .map_err(|error| Error::local("start the cache's thread", &error))?;
        Ok(store)
    }

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
        }
    }

    /// What is being downloaded now.
    #[must_use]
    pub fn downloads(&self) -> Vec<DownloadStatus> {
        self.contents()
            .iter()
            .flat_map(|content| content.downloads())
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
        if let Err(error) = self.lock.unlock() {
            log::debug!("cache: {error}");
        }
    }

    fn contents(&self) -> Vec<Arc<Content>> {
        let table = self.table.lock();
        table.contents.values().filter_map(Weak::upgrade).collect()
    }

    /// Renames the folder of unverified copies away.
    fn take_unverified(&self) -> Option<Trash> {
        let folder = self.root.join(UNVERIFIED);
        let gone = self.fresh_trash();
        fs::rename(&folder, &gone).ok()?;
        if let Err(error) = DirBuilder::new().mode(0o700).create(&folder) {
            log::warn!("cache: {}: {error}", folder.display());
        }
        Some(Trash::new(gone))
    }

    /// A name for something that is to be deleted.
    fn fresh_trash(&self) -> PathBuf {
        let number = self.trash_names.fetch_add(1, Ordering::Relaxed);
        // With the process id: an earlier daemon may have left the same number.
        self.root
            .join("trash")
            .join(format!("{}-{number}", std::process::id()))
    }

    /// The content with this name if somebody holds it; else its files are renamed away at once, before somebody can.
    fn known_or_trashed(&self, stem: &str) -> Result<Arc<Content>, Option<Trash>> {
        let table = self.table.lock();
        match table.contents.get(stem).and_then(Weak::upgrade) {
            Some(content) => Ok(content),
            None => Err(self.trash(&blocks::Names::new(&self.root, stem), 0)),
        }
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
        self.table.lock().hosts.answered(host, after, most);
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
        // No content is left, so no download and no wait either.
        self.stopping.store(true, Ordering::SeqCst);
        self.discard(self.take_unverified());
    }
}

/// The store's own thread: counts what is there, deletes what an earlier daemon left, and ends waits that last too long.
fn keep_house(store: &Weak<Store>, leftovers: Option<Trash>) {
    if let Some(store) = store.upgrade() {
        store.discard(leftovers);
        let trash = fs::read_dir(store.root.join("trash"));
        for file in trash.into_iter().flatten().flatten() {
            Trash::new(file.path()).empty();
        }
        store.drop_closed(0);
    }
    loop {
        // Not held while waiting, so that the store can end.
        thread::sleep(LOOK_AT_WAITS);
        let Some(store) = store.upgrade() else { return };
        if store.is_stopping() {
            return;
        }
        for content in store.contents() {
            content.expire();
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
