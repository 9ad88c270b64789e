//! Room: how much the cache takes, and what goes first when it is too much.
//!
//! Downloads ask for room for each block (`make_room`); copies that nobody has open go, the one closed longest ago
//! first, then blocks behind the readers of the file that wants the room. What is open is never dropped whole. The folder
//! itself is the index: it is read when room is needed, not kept in memory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

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

/// What the cache takes, as far as is known: exact after each look at the folder, counted in between.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    bytes: AtomicU64,
    files: AtomicU64,
    /// Counts closed files: before another is closed, a look that found nothing to drop needs no repetition.
    closes: AtomicU64,
    fruitless_at: AtomicU64,
    /// Somebody is looking already.
    busy: AtomicBool,
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

    /// A file was closed, so there may be something to drop.
    pub(super) fn count_close(&self) {
        self.closes.fetch_add(1, Ordering::Relaxed);
    }

    fn is_fruitless(&self) -> bool {
        self.fruitless_at.load(Ordering::Relaxed) == self.closes.load(Ordering::Relaxed)
    }
}

/// A copy found in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    stem: String,
    /// When it was closed last.
    used: SystemTime,
    bytes: u64,
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
        // A share of a disk's size; a byte more or less is no matter.
        let reserve = (disk.total as f64 * keep_free.clamp(0.0, 1.0)) as u64;
        reserve.saturating_add(more).saturating_sub(disk.free)
    });
    over.max(short)
}

/// The disk below the cache.
#[derive(Clone, Copy, Debug)]
struct Disk {
    total: u64,
    free: u64,
}

fn disk_of(path: &Path) -> Option<Disk> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(Disk {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

/// Reads the folder. Files that belong to no copy are listed as well: half a copy is as old as it looks.
fn list(root: &Path) -> Vec<Entry> {
    let mut found: std::collections::HashMap<String, Entry> = std::collections::HashMap::new();
    let folders = fs::read_dir(root).into_iter().flatten().flatten();
    for folder in folders {
        let Some(folder_name) = folder.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        if !(folder_name.len() == 2 || folder_name == UNVERIFIED) {
            continue;
        }
        for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let name = file.file_name();
            let Some((stem, ending)) = name.to_str().and_then(|name| name.rsplit_once('.')) else {
                continue;
            };
            let Ok(meta) = file.metadata() else { continue };
            let stem = format!("{folder_name}/{stem}");
            let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            // stat counts in units of 512 bytes, whatever the disk's own are.
            let bytes = meta.blocks() * 512;
            let entry = found
                .entry(stem.clone())
                .or_insert(Entry { stem, used, bytes: 0 });
            entry.bytes += bytes;
            if ending == "map" {
                entry.used = used;
            }
        }
    }
    found.into_values().collect()
}

/// Which of `entries` go so that `excess` bytes come free, least recently used first; `drop` tells whether it could.
fn drop_oldest(mut entries: Vec<Entry>, excess: u64, mut drop: impl FnMut(&Entry) -> bool) -> u64 {
    entries.sort_by(|a, b| (a.used, &a.stem).cmp(&(b.used, &b.stem)));
    let mut freed = 0;
    for entry in entries {
        if freed >= excess {
            break;
        }
        if drop(&entry) {
            freed += entry.bytes;
        }
    }
    freed
}

impl Store {
    /// Makes room for `bytes` that are about to be written to `content`, and counts them. If there is none to be had,
    /// because all is open, the limit gives way: the disk itself is the last one.
    pub(super) fn make_room(&self, content: &Arc<Content>, bytes: u64) {
        let limits = self.limits();
        let (used, _) = self.ledger().usage();
        if excess(used, bytes, limits.most, disk_of(self.root()), limits.keep_free) > 0 {
            self.drop_closed(bytes);
            let (used, _) = self.ledger().usage();
            let excess = excess(used, bytes, limits.most, disk_of(self.root()), limits.keep_free);
            if excess > 0 {
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

    /// Looks at the folder, corrects the count, and drops closed copies as far as needed. Returns what came free.
    pub(super) fn drop_closed(&self, more: u64) -> u64 {
        let ledger = self.ledger();
        if ledger.is_fruitless() || ledger.busy.swap(true, Ordering::Acquire) {
            return 0;
        }
        let closes = ledger.closes.load(Ordering::Relaxed);
        let entries = list(self.root());
        let used = entries.iter().map(|entry| entry.bytes).sum();
        ledger.bytes.store(used, Ordering::Relaxed);
        ledger.files.store(entries.len() as u64, Ordering::Relaxed);
        let limits = self.limits();
        let excess = excess(used, more, limits.most, disk_of(self.root()), limits.keep_free);
        let mut freed = 0;
        if excess > 0 {
            // Some more, so that the next block doesn't need another look.
            let some_more = limits.most / 20;
            freed = drop_oldest(entries, excess + some_more, |entry| self.drop_if_closed(entry));
            ledger.give_back(freed);
            if freed < excess {
                ledger.fruitless_at.store(closes, Ordering::Relaxed);
            }
        }
        ledger.busy.store(false, Ordering::Release);
        freed
    }

    fn drop_if_closed(&self, entry: &Entry) -> bool {
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
    fn punch_behind(&self, content: &Arc<Content>, excess: u64) -> u64 {
        let mut state = content.lock();
        if state.handed_out || state.is_complete() {
            return 0;
        }
        let mut freed = 0;
        for block in passed(&state, excess) {
            let lost = state.lose(block);
            // Under the lock: otherwise the block could be fetched again before the hole is made. It is a matter of
            // the file system's bookkeeping, not of data.
            let punched = state.blocks().map(|blocks| blocks.punch(block));
            match punched {
                Some(Ok(())) => freed += lost,
                Some(Err(error)) => {
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
    let present = |range: std::ops::Range<u64>| range.filter(|block| state.presence.has(*block));
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

    fn entry(stem: &str, age: u64, bytes: u64) -> Entry {
        Entry {
            stem: stem.into(),
            used: SystemTime::UNIX_EPOCH + Duration::from_secs(1000 - age),
            bytes,
        }
    }

    #[test]
    fn the_least_recently_used_goes_first_and_no_more_than_needed() {
        let entries = vec![entry("new", 1, 10), entry("old", 9, 10), entry("middle", 5, 10)];
        let mut gone = Vec::new();
        let freed = drop_oldest(entries, 15, |entry| {
            gone.push(entry.stem.clone());
            true
        });
        assert_eq!(gone, ["old", "middle"]);
        assert_eq!(freed, 20);
    }

    #[test]
    fn what_is_open_is_passed_over() {
        let entries = vec![entry("open", 9, 10), entry("closed", 1, 10)];
        assert_eq!(drop_oldest(entries, 10, |entry| entry.stem == "closed"), 10);
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
        blocks.write(0, &vec![1; BLOCK as usize]).unwrap();
        fs::create_dir(folder.path().join("trash")).unwrap();
        fs::write(folder.path().join("trash/1"), "x").unwrap();
        let entries = list(folder.path());
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].stem, "ab/abcd-262144");
        assert!(entries[0].bytes >= BLOCK && entries[0].bytes <= 2 * BLOCK);
        assert!(entries[0].used > SystemTime::UNIX_EPOCH);
    }
}
