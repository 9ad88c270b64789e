//! What the user wants to keep: one empty file for each pinned copy, named by checksum and size.
//!
//! `chores` writes them, `evict` looks before it drops. They are beside the copies and not in them, so that a pin
//! outlives a copy that turned out damaged, a crash and the mount. Only the daemon that holds the cache's lock writes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

/// The folder of pins, beside those of the copies.
const FOLDER: &str = "pins";

/// The pins of one cache.
pub(super) struct Pins {
    folder: PathBuf,
    /// Bytes of all pinned files, once they were counted. A leaf.
    bytes: Mutex<Option<u64>>,
}

impl Pins {
    /// Those of the cache in `root`.
    pub(super) fn of(root: &Path) -> Self {
        Pins {
            folder: root.join(FOLDER),
            bytes: Mutex::new(None),
        }
    }

    /// Whether the copy with this name is pinned.
    pub(super) fn has(&self, stem: &str) -> bool {
        self.path(stem).exists()
    }

    /// Bytes of all pinned files, whether they are here or not.
    pub(super) fn bytes(&self) -> u64 {
        *self.bytes.lock().get_or_insert_with(|| self.count().1)
    }

    /// How many files are pinned, and their bytes.
    pub(super) fn count(&self) -> (u64, u64) {
        self.all()
            .iter()
            .filter_map(|name| size_in(name))
            .fold((0, 0), |(files, bytes), size| (files + 1, bytes + size))
    }

    /// The names of all pins, as `<md5>-<size>`.
    pub(super) fn all(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| size_in(name).is_some())
            .collect()
    }

    /// Pins a copy. It is on disk when this returns.
    pub(super) fn add(&self, stem: &str) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        match options.open(self.path(stem)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(error),
        }
        self.adjust(stem, u64::saturating_add);
        File::open(&self.folder)?.sync_all()
    }

    /// Lets a copy go. Tells whether it was pinned.
    pub(super) fn remove(&self, stem: &str) -> io::Result<bool> {
        match fs::remove_file(self.path(stem)) {
            Ok(()) => {
                self.adjust(stem, u64::saturating_sub);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn adjust(&self, stem: &str, how: impl Fn(u64, u64) -> u64) {
        if let (Some(bytes), Some(size)) = (self.bytes.lock().as_mut(), size_in(stem)) {
            *bytes = how(*bytes, size);
        }
    }

    fn path(&self, stem: &str) -> PathBuf {
        self.folder
            .join(stem.rsplit_once('/').map_or(stem, |(_, name)| name))
    }
}

/// The size that is part of a copy's name.
fn size_in(name: &str) -> Option<u64> {
    name.rsplit_once('-')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_there_for_the_next_daemon_and_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let pins = Pins::of(folder.path());
        assert_eq!(pins.bytes(), 0);
        pins.add("ab/abcd-100").unwrap();
        pins.add("ab/abcd-100").unwrap();
        pins.add("cd/cdef-7").unwrap();
        assert_eq!(pins.bytes(), 107);
        let next = Pins::of(folder.path());
        assert!(next.has("ab/abcd-100") && !next.has("ab/abcd-101"));
        assert_eq!(next.count(), (2, 107));
        assert!(next.remove("ab/abcd-100").unwrap());
        assert!(!next.remove("ab/abcd-100").unwrap());
        assert_eq!(next.bytes(), 7);
    }
}
