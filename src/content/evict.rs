//! Room: how much the cache takes, and what goes first when it is too much.
//!
//! Downloads ask for room for each block (`make_room`); copies that nobody has open go, the one closed longest ago
//! first, then blocks behind the readers of the file that wants the room. What is open is never dropped whole, what is
//! pinned never. The folder itself is the index: it is read once in the background, and then when the oldest copies that
//! it told of are gone. The time of a map file is when its copy was last used.

use std::collections::{BinaryHeap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::blocks::{BLOCK, Names, blocks_in};
use super::file::Content;
use super::state::State;
use super::{Store, UNVERIFIED};

/// Files that were renamed out of the way and are to be deleted.
#[must_use]
pub(super) struct Trash(PathBuf);

impl Trash {
    /// A file or folder to delete.
    pub(super) fn new(path: PathBuf) -> Self {
        Trash(path)
    }

    /// Deletes it.
    pub(super) fn empty(self) {
        let result = match fs::symlink_metadata(&self.0) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&self.0),
            _ => fs::remove_file(&self.0),
        };
        if let Err(error) = result
            && error.kind() != std::io::ErrorKind::NotFound
        {
            log::warn!("cache: can't delete {}: {error}", self.0.display());
        }
    }
}

/// How many copies to remember that may go: about 1 MB. When they are gone, the folder is looked at again.
const OLDEST: usize = 10_000;

/// What the cache takes, as far as is known: exact after each look at the folder, counted in between.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    bytes: AtomicU64,
    files: AtomicU64,
    /// The folder was looked at. Before that nobody knows what there is, and nothing is dropped.
    counted: AtomicBool,
    /// Counts closed files: before another is closed, a look that found nothing to drop needs no repetition.
    closes: AtomicU64,
    fruitless_at: AtomicU64,
    /// Somebody is looking already.
    busy: AtomicBool,
    /// The file system of the cache can't take single blocks back.
    punches_nothing: AtomicBool,
    /// The copies that were unused for longest at the last look, the oldest last. A leaf.
    oldest: Mutex<Vec<Entry>>,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Ledger {
            closes: AtomicU64::new(1),
            ..Ledger::default()
        }
    }

    /// Bytes and files.
    pub(super) fn usage(&self) -> (u64, u64) {
        (
            self.bytes.load(Ordering::Relaxed),
            self.files.load(Ordering::Relaxed),
        )
    }

    /// Whether that is all there is, and not only what came since the start.
    pub(super) fn is_counted(&self) -> bool {
        self.counted.load(Ordering::Acquire)
    }

    /// Bytes are about to be written.
    fn take(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes are gone, or were not written after all.
    pub(super) fn give_back(&self, bytes: u64) {
        // The closure always returns a value, so this can't fail.
        let _ = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                Some(now.saturating_sub(bytes))
            });
    }

    /// A copy was begun.
    pub(super) fn count_file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    /// A copy is gone.
    pub(super) fn discount_file(&self) {
        // As above.
        let _ = self
            .files
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                Some(now.saturating_sub(1))
            });
    }

    /// A file was closed or unpinned, so there may be something to drop.
    pub(super) fn count_close(&self) {
        self.closes.fetch_add(1, Ordering::Relaxed);
    }

    fn is_fruitless(&self) -> bool {
        self.fruitless_at.load(Ordering::Relaxed) == self.closes.load(Ordering::Relaxed)
    }

    /// Takes what a look found. What came while it lasted may be in it or not, and is counted once more to be safe.
    fn settle(&self, look: Look, before: u64) {
        let meanwhile = self.bytes.load(Ordering::Relaxed).saturating_sub(before);
        self.bytes.store(look.bytes + meanwhile, Ordering::Relaxed);
        self.files.store(look.files, Ordering::Relaxed);
        *self.oldest.lock() = look.oldest;
        self.counted.store(true, Ordering::Release);
    }
}

/// A copy found in the folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// When it was closed last.
    pub(super) used: SystemTime,
    /// Its name.
    pub(super) stem: String,
    /// What it takes.
    pub(super) bytes: u64,
}

/// What a look at the folder found.
#[derive(Debug, Default)]
struct Look {
    bytes: u64,
    files: u64,
    /// The oldest last.
    oldest: Vec<Entry>,
}

/// How much room there has to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of the cache.
    pub(super) most: u64,
    /// What of the disk stays free.
    pub(super) keep_free: f64,
}

/// How many bytes too many there are once `more` are written.
fn excess(used: u64, more: u64, most: u64, disk: Option<Disk>, keep_free: f64) -> u64 {
    let over = used.saturating_add(more).saturating_sub(most);
    let short = disk.map_or(0, |disk| {
        let reserve = disk.reserve(keep_free);
        reserve.saturating_add(more).saturating_sub(disk.free)
    });
    over.max(short)
}

/// Bytes of the disk below `root` that stay free.
pub(super) fn kept_free(root: &Path, share: f64) -> u64 {
    disk_of(root).map_or(0, |disk| disk.reserve(share))
}

/// The disk below the cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disk {
    /// Bytes in all.
    pub(super) total: u64,
    /// Bytes that this user may still take.
    pub(super) free: u64,
}

impl Disk {
    /// The share of it that stays free, in bytes.
    pub(super) fn reserve(self, share: f64) -> u64 {
        // A share of a disk's size; a byte more or less is no matter.
        (self.total as f64 * share.clamp(0.0, 1.0)) as u64
    }
}

pub(super) fn disk_of(path: &Path) -> Option<Disk> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(Disk {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

/// Calls `each` with every copy in the folder. Files that belong to no copy are told as well: half a copy is as old as
/// it looks. Only the names of one of the 256 subfolders are in memory at a time.
pub(super) fn for_each_copy(root: &Path, mut each: impl FnMut(Entry)) {
    let folders = fs::read_dir(root).into_iter().flatten().flatten();
    for folder in folders {
        let Some(folder_name) = folder.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        if !(folder_name.len() == 2 || folder_name == UNVERIFIED) {
            continue;
        }
        let mut found: HashMap<String, Entry> = HashMap::new();
        for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let name = file.file_name();
            let Some((stem, ending)) = name.to_str().and_then(|name| name.rsplit_once('.')) else {
                continue;
            };
            let Ok(meta) = file.metadata() else { continue };
            let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let entry = found.entry(stem.to_owned()).or_insert_with(|| Entry {
                stem: format!("{folder_name}/{stem}"),
                used,
                bytes: 0,
            });
            // stat counts in units of 512 bytes, whatever the disk's own are.
            entry.bytes += meta.blocks() * 512;
            if ending == "map" {
                entry.used = used;
            }
        }
        found.into_values().for_each(&mut each);
    }
}

/// Reads the folder. Of the copies for which `may_go` holds, the `most` that were unused for longest are remembered.
fn look(root: &Path, most: usize, may_go: impl Fn(&str) -> bool) -> Look {
    let mut found = Look::default();
    // The youngest of the oldest is on top.
    let mut oldest: BinaryHeap<Entry> = BinaryHeap::new();
    for_each_copy(root, |entry| {
        found.bytes += entry.bytes;
        found.files += 1;
        let is_older = oldest.len() < most || oldest.peek().is_some_and(|young| entry < *young);
        if is_older && may_go(&entry.stem) {
            oldest.push(entry);
            if oldest.len() > most {
                oldest.pop();
            }
        }
    });
    found.oldest = oldest.into_sorted_vec();
    found.oldest.reverse();
    found
}

/// How a copy is now: when it was used, and what it takes.
pub(super) fn look_again(root: &Path, entry: &Entry) -> Option<Entry> {
    let names = Names::new(root, &entry.stem);
    let data = fs::metadata(&names.data);
    let map = fs::metadata(&names.map);
    let metas = [&map, &data].into_iter().flatten();
    let used = metas.clone().find_map(|meta| meta.modified().ok())?;
    let bytes = metas.map(|meta| meta.blocks() * 512).sum();
    Some(Entry {
        stem: entry.stem.clone(),
        used,
        bytes,
    })
}

impl Store {
    /// Makes room for `bytes` that are about to be written to `content`, and counts them. If there is none to be had,
    /// because all is open or pinned, the limit gives way: the disk itself is the last one. It gives way too until
    /// somebody has counted what there is, which nobody waits for.
    pub(super) fn make_room(&self, content: &Arc<Content>, bytes: u64) {
        let limits = self.limits();
        let (used, _) = self.ledger().usage();
        let excess_now = |used| excess(used, bytes, limits.most, disk_of(self.root()), limits.keep_free);
        if self.ledger().is_counted() && excess_now(used) > 0 {
            self.drop_closed(bytes);
            let (used, _) = self.ledger().usage();
            let excess = excess_now(used);
            // Another one that looks for closed copies may find enough: what is open is not given back for its sake.
            if excess > 0 && !self.ledger().busy.load(Ordering::Acquire) {
                self.punch_behind(content, excess);
            }
        }
        self.ledger().take(bytes);
    }

    /// The disk is full. Tells whether something could be dropped.
    pub(super) fn make_room_on_full_disk(&self, content: &Arc<Content>) -> bool {
        // More than one block, so that this isn't needed for each.
        self.drop_closed(64 * BLOCK) > 0 || self.punch_behind(content, 16 * BLOCK) > 0
    }

    /// Drops closed copies as far as needed, those unused for longest first. Returns what came free.
    pub(super) fn drop_closed(&self, more: u64) -> u64 {
        let ledger = self.ledger();
        // Once it stops, the folder may be another daemon's.
        if self.is_stopping() || ledger.is_fruitless() || ledger.busy.swap(true, Ordering::Acquire) {
            return 0;
        }
        let freed = self.make_fit(more);
        ledger.busy.store(false, Ordering::Release);
        freed
    }

    /// Counts what is there, for the first time, and drops what is too much.
    pub(super) fn count(&self) {
        self.look();
        self.drop_closed(0);
    }

    fn look(&self) {
        let ledger = self.ledger();
        let (before, _) = ledger.usage();
        let found = look(self.root(), OLDEST, |stem| !self.pins().has(stem));
        ledger.settle(found, before);
    }

    fn make_fit(&self, more: u64) -> u64 {
        let ledger = self.ledger();
        let limits = self.limits();
        let closes = ledger.closes.load(Ordering::Relaxed);
        let excess_now = || {
            let (used, _) = ledger.usage();
            excess(used, more, limits.most, disk_of(self.root()), limits.keep_free)
        };
        let needed = excess_now();
        if needed == 0 {
            return 0;
        }
        // Some more, so that the next block doesn't need this again.
        let some_more = limits.most / 20;
        let mut freed = self.drop_oldest(needed + some_more);
        if freed < needed {
            // Those remembered are gone, or were used since.
            self.look();
            let needed = excess_now();
            if needed > 0 {
                let again = self.drop_oldest(needed + some_more);
                if again < needed {
                    ledger.fruitless_at.store(closes, Ordering::Relaxed);
                }
                freed += again;
            }
        }
        freed
    }

    /// Drops of the copies that were unused for longest at the last look, until `enough` bytes came free.
    fn drop_oldest(&self, enough: u64) -> u64 {
        let mut freed = 0;
        while freed < enough && !self.is_stopping() {
            let Some(entry) = self.ledger().oldest.lock().pop() else {
                break;
            };
            freed += match look_again(self.root(), &entry) {
                Some(now) if now.used <= entry.used => self.drop_if_unused(&now),
                // Gone, or used since: the next look will tell.
                _ => 0,
            };
        }
        freed
    }

    /// Drops a copy, unless it is open or pinned. Returns how many bytes came free.
    fn drop_if_unused(&self, entry: &Entry) -> u64 {
        if self.pins().has(&entry.stem) || !self.drop_if_closed(entry) {
            return 0;
        }
        self.ledger().give_back(entry.bytes);
        entry.bytes
    }

    /// Drops a copy, unless it is open. Tells whether it did; what it took is still counted.
    pub(super) fn drop_if_closed(&self, entry: &Entry) -> bool {
        let (dropped, trash) = match self.known_or_trashed(&entry.stem) {
            Ok(content) => content.evict(),
            Err(trash) => (true, trash),
        };
        self.discard(trash);
        if dropped {
            log::debug!("cache: dropped {} ({} bytes)", entry.stem, entry.bytes);
        }
        dropped
    }

    /// Gives back blocks of `content` that its readers have passed. Returns how many bytes.
    pub(super) fn punch_behind(&self, content: &Arc<Content>, excess: u64) -> u64 {
        let punches_nothing = self.ledger().punches_nothing.load(Ordering::Relaxed);
        let mut state = content.lock();
        if state.handed_out > 0 || state.is_complete() || self.pins().has(&content.stem) {
            return 0;
        }
        let mut freed = 0;
        for block in passed(&state, excess) {
            if state.fresh.sole(block).is_some() {
                freed += state.lose(block);
                continue;
            }
            if punches_nothing {
                continue;
            }
            let lost = state.lose(block);
            // Under the lock: otherwise the block could be fetched again before the hole is made. It is a matter of
            // the file system's bookkeeping, not of data.
            let punched = state.blocks().map(|blocks| blocks.punch(block));
            match punched {
                Some(Ok(())) => freed += lost,
                Some(Err(error)) => {
                    if error.kind() == std::io::ErrorKind::Unsupported {
                        log::info!("cache: its file system can't take parts of files back: {error}");
                        self.ledger().punches_nothing.store(true, Ordering::Relaxed);
                    }
                    log::debug!("cache: {}: {error}", content.stem);
                    break;
                }
                None => break,
            }
        }
        drop(state);
        self.ledger().give_back(freed);
        freed
    }

    /// Renames a copy out of the way, so that its name is free. Deleting it may take a while and is for later.
    pub(super) fn trash(&self, names: &Names, bytes: u64) -> Option<Trash> {
        let _tenure = self.tenure()?;
        // Without its map the data is no copy: so the map goes first, and a crash in between leaves nothing wrong.
        let had_map = fs::remove_file(&names.map).is_ok();
        let gone = self.fresh_trash();
        let had_data = fs::rename(&names.data, &gone).is_ok();
        if had_map || had_data {
            self.ledger().discount_file();
            self.ledger().give_back(bytes);
        }
        had_data.then(|| Trash::new(gone))
    }

    /// Deletes what was renamed away.
    pub(super) fn discard(&self, trash: Option<Trash>) {
        if let Some(trash) = trash {
            trash.empty();
        }
    }
}

/// Blocks that no reader is likely to ask for next, the lowest first: those behind the hindmost reader, or, where
/// readers jump about, those far from each.
fn passed(state: &State, excess: u64) -> Vec<u64> {
    /// Room around a reader that is left alone: the kernel reads a little out of order.
    const NEAR: u64 = 1024 * 1024;
    let enough = excess.div_ceil(BLOCK);
    let hindmost = state
        .readers
        .values()
        .map(|reading| reading.pattern.position())
        .chain(state.waiters.iter().map(|ask| ask.offset))
        .min()
        .unwrap_or(0);
    if state.waiters.iter().any(|ask| ask.wants_all()) {
        return Vec::new();
    }
    let stays = state.unhashed();
    let present = |range: std::ops::Range<u64>| {
        range.filter(|block| state.presence.has(*block) && !stays.contains(block))
    };
    let mut found: Vec<u64> = present(0..hindmost.saturating_sub(NEAR) / BLOCK)
        .take(enough as usize)
        .collect();
    if found.is_empty() {
        found = present(0..blocks_in(state.size))
            .filter(|block| {
                let at = block * BLOCK;
                let is_near = |position: u64| at + NEAR >= position && at <= position + NEAR;
                !state.readers.values().any(|reading| {
                    let ahead = reading.ahead();
                    is_near(reading.pattern.position())
                        || ahead.is_some_and(|(from, to)| (from..to).contains(&at))
                }) && !state
                    .waiters
                    .iter()
                    .any(|ask| is_near(ask.offset) || is_near(ask.end))
            })
            .take(enough as usize)
            .collect();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const AGES: [(&str, u64); 4] = [("new", 1), ("old", 9), ("middle", 5), ("older", 7)];

    /// Copies of one block, closed that many seconds ago.
    fn copies(root: &Path, ages: &[(&str, u64)]) {
        for (name, age) in ages {
            let names = Names::new(root, &format!("ab/{name}-{BLOCK}"));
            let blocks = super::super::blocks::Blocks::create(&names, BLOCK).unwrap();
            blocks.write(0, &[vec![1; BLOCK as usize]]).unwrap();
            let map = fs::File::options().write(true).open(&names.map).unwrap();
            map.set_modified(SystemTime::now() - Duration::from_secs(*age))
                .unwrap();
        }
    }

    fn names_of(entries: &[Entry]) -> Vec<&str> {
        let stems = entries.iter().map(|entry| entry.stem.as_str());
        stems.map(|stem| &stem[3..stem.len() - 7]).collect()
    }

    #[test]
    fn a_look_remembers_the_least_recently_used_and_counts_all() {
        let folder = tempfile::tempdir().unwrap();
        copies(folder.path(), &AGES);
        let found = look(folder.path(), 3, |_| true);
        assert_eq!(found.files, 4);
        assert!(found.bytes >= 4 * BLOCK);
        assert_eq!(
            names_of(&found.oldest),
            ["middle", "older", "old"],
            "the oldest last"
        );
    }

    #[test]
    fn what_may_not_go_takes_nobodys_place() {
        let folder = tempfile::tempdir().unwrap();
        copies(folder.path(), &AGES);
        let found = look(folder.path(), 2, |stem| !stem.contains("/old"));
        assert_eq!(names_of(&found.oldest), ["new", "middle"]);
    }

    #[test]
    fn a_copy_that_was_used_since_is_seen_to_be_younger() {
        let folder = tempfile::tempdir().unwrap();
        copies(folder.path(), &[("a", 100)]);
        let found = look(folder.path(), 9, |_| true);
        assert_eq!(
            look_again(folder.path(), &found.oldest[0]).unwrap(),
            found.oldest[0]
        );
        copies(folder.path(), &[("a", 1)]);
        assert!(look_again(folder.path(), &found.oldest[0]).unwrap().used > found.oldest[0].used);
        fs::remove_dir_all(folder.path().join("ab")).unwrap();
        assert_eq!(look_again(folder.path(), &found.oldest[0]), None);
    }

    #[test]
    fn the_limit_and_the_disk_both_count() {
        let disk = Some(Disk {
            total: 1000,
            free: 100,
        });
        assert_eq!(excess(50, 10, 100, disk, 0.05), 0);
        assert_eq!(excess(95, 10, 100, disk, 0.05), 5);
        assert_eq!(excess(50, 60, 1000, disk, 0.05), 10);
        assert_eq!(excess(0, 1, 0, None, 0.05), 1);
    }

    #[test]
    fn the_folder_tells_size_and_age_of_each_copy() {
        let folder = tempfile::tempdir().unwrap();
        let names = Names::new(folder.path(), "ab/abcd-262144");
        let blocks = super::super::blocks::Blocks::create(&names, BLOCK).unwrap();
        blocks.write(0, &[vec![1; BLOCK as usize]]).unwrap();
        fs::create_dir(folder.path().join("trash")).unwrap();
        fs::write(folder.path().join("trash/1"), "x").unwrap();
        let entries = look(folder.path(), 9, |_| true).oldest;
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].stem, "ab/abcd-262144");
        assert!(entries[0].bytes >= BLOCK && entries[0].bytes <= 2 * BLOCK);
        assert!(entries[0].used > SystemTime::UNIX_EPOCH);
    }
}
