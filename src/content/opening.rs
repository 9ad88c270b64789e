//! Opening a cache: what a mount waits for, and what is done about it in the background.
//!
//! Called by `mount/` and `cli/`. Nothing that a mount waits for may take longer the more there is in the cache.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};

use super::budget::Budget;
use super::evict::{Ledger, Trash};
use super::fresh::Room;
use super::hosts::{Hosts, Slots};
use super::meter::Tally;
use super::pins::Pins;
use super::whole::Comparer;
use super::{MOST_WRONG, Result, Settings, Store, Table, UNVERIFIED};
use crate::error::{Error, Kind};
use crate::repository::Repository;

/// How often waits are looked at. They are limited by many minutes.
const LOOK_AT_WAITS: Duration = Duration::from_secs(5);

impl Store {
    /// Opens the cache, and makes its folder if need be.
    ///
    /// # Errors
    /// `Local(EWOULDBLOCK)` if another daemon uses the folder; `Local` or `DiskFull` if it can't be written.
    pub fn open(settings: Settings, repository: Arc<Repository>) -> Result<Arc<Store>> {
        let (store, leftovers) = Store::prepare(settings, repository)?;
        let weak = Arc::downgrade(&store);
        thread::Builder::new()
            .name("rdmfs-cache".into())
            .spawn(move || keep_house(&weak, leftovers))
            .map_err(|error| Error::local("start the cache's thread", &error))?;
        Ok(store)
    }

    /// All that somebody has to wait for: it takes no longer however much there is in the folder. What is left is done
    /// in the background by `tidy_up`.
    fn prepare(settings: Settings, repository: Arc<Repository>) -> Result<(Arc<Store>, Option<Trash>)> {
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
            pins: Pins::of(&root),
            tally: Tally::default(),
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
            fresh: Room::of(settings.memory),
            comparer: Comparer::default(),
            wrong_told: OnceLock::new(),
            trash_names: AtomicU64::new(0),
            tenure: RwLock::new(true),
            lock,
            settings,
        });
        let leftovers = store.take_unverified();
        Ok((store, leftovers))
    }

    /// Deletes what an earlier daemon left, and counts what is there.
    fn tidy_up(&self, leftovers: Option<Trash>) {
        self.discard(leftovers);
        let trash = fs::read_dir(self.root.join("trash"));
        for file in trash.into_iter().flatten().flatten() {
            Trash::new(file.path()).empty();
        }
        self.count();
    }

    /// Renames the folder of unverified copies away.
    pub(super) fn take_unverified(&self) -> Option<Trash> {
        let folder = self.root.join(UNVERIFIED);
        let gone = self.fresh_trash();
        fs::rename(&folder, &gone).ok()?;
        if let Err(error) = DirBuilder::new().mode(0o700).create(&folder) {
            log::warn!("cache: {}: {error}", folder.display());
        }
        Some(Trash::new(gone))
    }

    /// A name for something that is to be deleted.
    pub(super) fn fresh_trash(&self) -> PathBuf {
        let number = self.trash_names.fetch_add(1, Ordering::Relaxed);
        // With the process id: an earlier daemon may have left the same number.
        self.root
            .join("trash")
            .join(format!("{}-{number}", std::process::id()))
    }
}

/// The store's own thread: counts what is there, deletes what an earlier daemon left, and ends waits that last too long.
fn keep_house(store: &Weak<Store>, leftovers: Option<Trash>) {
    if let Some(store) = store.upgrade() {
        store.tidy_up(leftovers);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Identity;
    use crate::content::blocks::{BLOCK, Blocks, Names};
    use crate::repository;
    use crate::repository::model::{FilePlace, Owner, RecordId};
    use std::path::Path;
    use std::sync::mpsc;
    use std::time::SystemTime;

    const COPIES: u8 = 40;
    const LIMIT: u64 = 10;

    fn identity(number: u8) -> Identity {
        Identity::Md5 {
            md5: crate::md5::of(vec![number; BLOCK as usize]),
            size: BLOCK,
        }
    }

    fn names(directory: &Path, number: u8) -> Names {
        Names::new(&directory.join("content"), &identity(number).stem())
    }

    /// What an earlier daemon left: files of one block, the first closed longest ago.
    fn leave_copies(directory: &Path) {
        for number in 0..COPIES {
            let names = names(directory, number);
            let bytes = vec![number; BLOCK as usize];
            let blocks = Blocks::create(&names, BLOCK).unwrap();
            blocks.write(0, &[&bytes]).unwrap();
            blocks.mark(0, crc32fast::hash(&bytes)).unwrap();
            blocks.set_verified(true).unwrap();
            let age = Duration::from_secs(1000 - u64::from(number));
            let map = OpenOptions::new().write(true).open(&names.map).unwrap();
            map.set_modified(SystemTime::now() - age).unwrap();
        }
    }

    fn settings(directory: &Path) -> Settings {
        Settings {
            directory: directory.to_owned(),
            limit: LIMIT * 2 * BLOCK,
            keep_free: 0.0,
            connections: 1,
            window: BLOCK,
            memory: BLOCK,
            is_private: false,
        }
    }

    fn nobody() -> Arc<Repository> {
        let settings = repository::Settings {
            url: "http://localhost".into(),
            ..repository::Settings::default()
        };
        Arc::new(Repository::connect(settings).unwrap())
    }

    fn place() -> FilePlace {
        FilePlace {
            owner: Owner::Record(RecordId::new("abcde-12345").unwrap()),
            key: "a".into(),
        }
    }

    #[test]
    fn nobody_waits_for_the_count_and_nothing_is_dropped_before_it() {
        let folder = tempfile::tempdir().unwrap();
        leave_copies(folder.path());
        let there = || (0..COPIES).filter(|number| names(folder.path(), *number).map.exists());
        let (store, leftovers) = Store::prepare(settings(folder.path()), nobody()).unwrap();
        assert!(!store.usage().counted);
        // What is there is served.
        let reader = store.content(identity(0), place()).reader();
        let (tell, told) = mpsc::channel();
        reader.read(0, 4, Box::new(move |bytes| tell.send(bytes).unwrap()));
        assert_eq!(told.recv().unwrap().unwrap(), [0; 4]);
        // And room is made for what comes without dropping anything.
        let other = store.content(identity(COPIES), place());
        store.make_room(&other, LIMIT * 3 * BLOCK);
        assert_eq!(there().count(), usize::from(COPIES));
        store.ledger().give_back(LIMIT * 3 * BLOCK);

        store.tidy_up(leftovers);
        let usage = store.usage();
        assert!(usage.counted && usage.bytes <= usage.limit, "{usage:?}");
        let left: Vec<u8> = there().collect();
        assert_eq!(left[0], 0, "the open one stays although it is the oldest");
        assert!(left[1..].is_sorted() && *left.last().unwrap() == COPIES - 1);
        assert_eq!(
            left[1..],
            (COPIES - left.len() as u8 + 1..COPIES).collect::<Vec<_>>()
        );
        drop(reader);
    }

    #[test]
    fn a_file_given_away_holds_its_blocks_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        leave_copies(folder.path());
        let (store, _leftovers) = Store::prepare(settings(folder.path()), nobody()).unwrap();
        let content = store.content(identity(0), place());
        let _reader = content.reader();
        let given = || content.lock().handed_out;
        let file = content.complete_file().unwrap();
        assert_eq!(
            (given(), file.file().metadata().unwrap().len()),
            (1, content.size())
        );
        drop(file);
        assert_eq!(given(), 0);
        // What turns out damaged is not given away.
        let path = names(folder.path(), 1).data;
        fs::write(&path, vec![7; fs::metadata(&path).unwrap().len() as usize]).unwrap();
        let content = store.content(identity(1), place());
        let _reader = content.reader();
        assert!(content.complete_file().is_none());
        assert_eq!(content.lock().handed_out, 0);
    }

    #[test]
    fn what_was_compared_before_the_file_changed_is_not_trusted_after() {
        let folder = tempfile::tempdir().unwrap();
        leave_copies(folder.path());
        let (store, _leftovers) = Store::prepare(settings(folder.path()), nobody()).unwrap();
        let content = store.content(identity(0), place());
        let _reader = content.reader();
        let blocks = content.lock().blocks().cloned().unwrap();
        content.renew_stamp(&blocks);
        let stamp_now = || content.lock().stamp;
        let stamp = stamp_now();
        let is_trusted = || content.lock().presence.is_trusted(0);
        let compared = |stamp| content.check(&blocks, 0, blocks.removals(), stamp).is_ok();
        assert!(!is_trusted() && compared(stamp) && is_trusted());
        // Somebody writes to it, and another read sees that while this one has read the block already.
        let path = names(folder.path(), 0).data;
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(SystemTime::UNIX_EPOCH)
            .unwrap();
        content.renew_stamp(&blocks);
        let renewed = stamp_now();
        assert!(renewed != stamp && !is_trusted());
        assert!(compared(stamp) && !is_trusted());
        assert!(compared(renewed) && is_trusted());
    }

    #[test]
    fn what_is_pinned_stays_although_it_is_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        leave_copies(folder.path());
        let pinned = [0, 1, 7];
        let (store, leftovers) = Store::prepare(settings(folder.path()), nobody()).unwrap();
        for number in pinned {
            store.pins().add(&identity(number).stem()).unwrap();
        }
        store.tidy_up(leftovers);
        assert!(store.usage().bytes <= store.usage().limit);
        for number in pinned {
            assert!(names(folder.path(), number).map.exists(), "{number}");
        }
        // If nothing else is left, the limit gives way.
        (0..COPIES).for_each(|number| store.pins().add(&identity(number).stem()).unwrap());
        let before = store.usage().files;
        store.ledger().count_close();
        let other = store.content(identity(COPIES), place());
        store.make_room(&other, LIMIT * 2 * BLOCK);
        assert_eq!(store.usage().files, before);
    }
}
