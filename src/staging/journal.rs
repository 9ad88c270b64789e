//! The journal: one small file on disk for each staged file, so that no crash loses what a user wrote.
//!
//! An entry is written to a temporary name, synced, renamed over the old one, and the folder synced: what is on disk
//! is always one whole entry. Used by `staging/` alone; it never talks to the network.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::crash::{Point, point};
use super::save::Base;
use crate::error::{Error, Kind, Result};

/// What is known of a staged file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The number of the staged file in this journal.
    pub id: u64,
    /// The repository's address; an entry never goes to another one.
    pub repository: String,
    /// Who staged it, as a hash; an entry never goes out with another token.
    pub account: String,
    /// The draft.
    pub draft: String,
    /// The key in it.
    pub key: String,
    /// What it is in the draft.
    #[serde(default, skip_serializing_if = "Role::is_file")]
    pub role: Role,
    /// When it came to this key, among all entries: of two with one key, the later one counts. 0: with its number.
    #[serde(default)]
    pub order: u64,
    /// Keys that it had before and that the server may still have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<String>,
    /// Which of its data files holds the bytes.
    pub generation: u64,
    /// Bytes, when it was last synced.
    pub size: u64,
    /// How far it has come.
    pub state: State,
    /// A later generation that was being written and never closed; kept beside the closed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<u64>,
    /// A write of it failed: these bytes are not what the program meant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub broken: bool,
    /// Of a document: what it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
}

impl Entry {
    /// When it came to its key.
    #[must_use]
    pub fn since(&self) -> u64 {
        self.order.max(self.id)
    }
}

/// What a staged file is in its draft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// One of its files.
    #[default]
    File,
    /// Its metadata, `record.json`.
    Document,
}

impl Role {
    fn is_file(&self) -> bool {
        *self == Role::File
    }
}

/// How far a staged file has come, as far as a restart must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// A program has it open; never sent by itself.
    Open,
    /// Closed: it is to be sent.
    Closed,
    /// The server refused it, with this reason; kept until the user decides.
    Refused(String),
    /// Junk: not for the server. Dropped at the unmount, unless it holds what was meant for the server once.
    Local {
        /// Not dropped.
        keep: bool,
    },
}

/// The journal's folders on disk.
#[derive(Debug)]
pub struct Journal {
    entries: PathBuf,
    data: PathBuf,
    /// Held locked for as long as the journal is in use.
    _lock: File,
}

impl Journal {
    /// Opens or creates the journal in `directory` and locks it: one daemon for each.
    ///
    /// # Errors
    /// `Local` if the folder can't be made or written, or another daemon has it.
    pub fn open(directory: &Path) -> Result<Self> {
        let entries = directory.join("journal");
        let data = directory.join("data");
        for folder in [&entries, &data] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|e| Error::local(format_args!("create {}", folder.display()), &e))?;
        }
        let path = directory.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::local(format_args!("open {}", path.display()), &e))?;
        if lock.try_lock().is_err() {
            return Err(Error::new(
                Kind::Local(libc::EWOULDBLOCK),
                format!("another rdmfs uses the state directory {}", directory.display()),
            )
            .with_advice("Unmount the other one, or give this one a --state-dir of its own."));
        }
        Ok(Journal {
            entries,
            data,
            _lock: lock,
        })
    }

    /// Where the bytes of a generation are.
    #[must_use]
    pub fn data_path(&self, id: u64, generation: u64) -> PathBuf {
        self.data.join(format!("{id}-{generation}"))
    }

    /// Creates a file for the bytes of a new generation, readable by the user alone: the first from `generation` on
    /// that no crash has left a file of.
    ///
    /// # Errors
    /// `DiskFull` or `Local`.
    pub fn create_data(&self, id: u64, generation: u64) -> Result<(File, u64)> {
        let mut generation = generation;
        loop {
            let path = self.data_path(id, generation);
            let created = OpenOptions::new()
                .create_new(true)
                .read(true)
                .write(true)
                .mode(0o600)
                .open(&path);
            match created {
                Ok(file) => return Ok((file, generation)),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => generation += 1,
                Err(e) => return Err(Error::local(format_args!("create {}", path.display()), &e)),
            }
        }
    }

    /// A number that no staged file has, whatever crashes left behind; `entries` are all that [`Journal::load`] gives.
    ///
    /// # Errors
    /// `Local` if the folders can't be read.
    pub fn free_id(&self, entries: &[Entry]) -> Result<u64> {
        let mut free = 1;
        for folder in [&self.entries, &self.data] {
            let reading = |e: std::io::Error| Error::local(format_args!("read {}", folder.display()), &e);
            for item in fs::read_dir(folder).map_err(reading)? {
                let name = item.map_err(reading)?.file_name();
                let number = name
                    .to_str()
                    .and_then(|name| name.split(['-', '.']).next()?.parse::<u64>().ok());
                free = free.max(number.map_or(0, |number| number + 1));
            }
        }
        let last = entries.iter().map(Entry::since).max();
        Ok(free.max(last.map_or(0, |last| last + 1)))
    }

    /// Opens the bytes of a generation.
    ///
    /// # Errors
    /// `Local`, for example if it is not there.
    pub fn open_data(&self, id: u64, generation: u64) -> Result<File> {
        let path = self.data_path(id, generation);
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| Error::local(format_args!("open {}", path.display()), &e))
    }

    /// Whether there are bytes of a generation; true if that can't be known.
    #[must_use]
    pub fn has_data(&self, id: u64, generation: u64) -> bool {
        self.data_path(id, generation).try_exists().unwrap_or(true)
    }

    /// Gives the bytes of a generation to another staged file, as its first.
    ///
    /// # Errors
    /// `Local`, for example if they are not there.
    pub fn hand_over(&self, id: u64, generation: u64, to: u64) -> Result<()> {
        let path = self.data_path(id, generation);
        fs::rename(&path, self.data_path(to, 0))
            .map_err(|e| Error::local(format_args!("rename {}", path.display()), &e))
    }

    /// Removes the bytes of a generation; it may be gone already.
    pub fn remove_data(&self, id: u64, generation: u64) {
        remove(&self.data_path(id, generation));
    }

    /// Writes an entry. When it returns, the entry is on disk, and so are the names of the data files.
    ///
    /// # Errors
    /// `DiskFull` or `Local`.
    pub fn write(&self, entry: &Entry) -> Result<()> {
        let sync = || {
            File::open(&self.data)?
                .sync_all()
                .and_then(|()| File::open(&self.entries)?.sync_all())
        };
        self.replace(entry, File::sync_all)
            .and_then(|()| sync().map_err(|e| self.failed(entry, &e)))
    }

    /// Writes an entry that survives a crash of this process, but perhaps not one of the machine.
    ///
    /// # Errors
    /// `DiskFull` or `Local`.
    pub fn write_unsynced(&self, entry: &Entry) -> Result<()> {
        self.replace(entry, |_| Ok(()))
    }

    fn replace(&self, entry: &Entry, sync: impl FnOnce(&File) -> std::io::Result<()>) -> Result<()> {
        let path = self.entry_path(entry.id);
        let temporary = path.with_extension("new");
        let put = || -> std::io::Result<()> {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&serde_json::to_vec_pretty(entry)?)?;
            sync(&file)?;
            point(Point::EntryWritten);
            fs::rename(&temporary, &path)?;
            point(Point::EntryRenamed);
            Ok(())
        };
        put().map_err(|e| {
            // Half an entry takes room that is needed now.
            remove(&temporary);
            self.failed(entry, &e)
        })
    }

    fn failed(&self, entry: &Entry, error: &std::io::Error) -> Error {
        let path = self.entry_path(entry.id);
        Error::local(format_args!("write the journal entry {}", path.display()), error)
    }

    /// Removes what crashes left and no entry names: bytes of files that have arrived, halves of entries.
    ///
    /// # Errors
    /// `Local` if the folders can't be read.
    pub fn sweep(&self) -> Result<()> {
        for folder in [&self.entries, &self.data] {
            let reading = |e: std::io::Error| Error::local(format_args!("read {}", folder.display()), &e);
            for item in fs::read_dir(folder).map_err(reading)? {
                let path = item.map_err(reading)?.path();
                let name = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
                let half = name
                    .strip_suffix(".new")
                    .is_some_and(|id| id.parse::<u64>().is_ok());
                let bytes_of = name.split_once('-').and_then(|(id, _)| id.parse::<u64>().ok());
                // An entry that can't be read counts: its bytes are all that is left of a file.
                if half || bytes_of.is_some_and(|id| !self.entry_path(id).exists()) {
                    log::info!("{} belongs to nothing any more", path.display());
                    remove(&path);
                }
            }
        }
        Ok(())
    }

    /// Removes an entry; it may be gone already.
    pub fn remove(&self, id: u64) {
        remove(&self.entry_path(id));
    }

    /// All entries, in the order in which they came to their keys. An entry that can't be read is left alone and logged.
    ///
    /// # Errors
    /// `Local` if the folder can't be read.
    pub fn load(&self) -> Result<Vec<Entry>> {
        let reading = |e: std::io::Error| Error::local(format_args!("read {}", self.entries.display()), &e);
        let mut found = Vec::new();
        for item in fs::read_dir(&self.entries).map_err(reading)? {
            let path = item.map_err(reading)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let parsed = fs::read(&path)
                .map_err(|e| e.to_string())
                .and_then(|bytes| serde_json::from_slice::<Entry>(&bytes).map_err(|e| e.to_string()));
            match parsed {
                Ok(entry) => found.push(entry),
                Err(reason) => log::warn!("journal entry {} can't be read: {reason}", path.display()),
            }
        }
        found.sort_by_key(Entry::since);
        Ok(found)
    }

    fn entry_path(&self, id: u64) -> PathBuf {
        self.entries.join(format!("{id}.json"))
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        log::warn!("can't remove {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64) -> Entry {
        Entry {
            id,
            repository: "https://example.org".into(),
            account: "abc".into(),
            draft: "abcde-12345".into(),
            key: "dir/Größe\n.txt".into(),
            role: Role::Document,
            order: 9,
            replaces: vec!["old".into()],
            generation: 2,
            size: 17,
            state: State::Refused("Bucket quota exceeded.".into()),
            open: Some(3),
            broken: true,
            base: Some(Base::default()),
        }
    }

    #[test]
    fn an_entry_is_read_back_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        journal.write(&entry(7)).unwrap();
        journal.write(&entry(3)).unwrap();
        let mut later = entry(3);
        later.order = 12;
        journal.write(&later).unwrap();
        assert_eq!(journal.load().unwrap(), [entry(7), later]);
        assert_eq!(journal.free_id(&journal.load().unwrap()).unwrap(), 13);
        journal.remove(3);
        journal.remove(3);
        assert_eq!(journal.load().unwrap(), [entry(7)]);
    }

    #[test]
    fn a_torn_entry_does_not_hide_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        journal.write(&entry(1)).unwrap();
        fs::write(directory.path().join("journal/2.json"), b"{\"id\": 2,").unwrap();
        fs::write(directory.path().join("journal/3.new"), b"").unwrap();
        assert_eq!(journal.load().unwrap(), [entry(1)]);
    }

    #[test]
    fn what_a_crash_left_is_never_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        assert_eq!(journal.free_id(&journal.load().unwrap()).unwrap(), 1);
        journal.write(&entry(3)).unwrap();
        fs::write(directory.path().join("data/17-0"), b"left").unwrap();
        assert_eq!(journal.free_id(&journal.load().unwrap()).unwrap(), 18);
        let (_, generation) = journal.create_data(17, 0).unwrap();
        assert_eq!(generation, 1);
        assert_eq!(fs::read(directory.path().join("data/17-0")).unwrap(), b"left");
    }

    #[test]
    fn what_no_entry_names_is_swept_away_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        journal.write(&entry(3)).unwrap();
        for path in [
            "data/3-2",
            "data/3-3",
            "data/9-0",
            "data/8-1",
            "data/note",
            "journal/7.new",
            "journal/8.json",
        ] {
            fs::write(directory.path().join(path), b"?").unwrap();
        }
        journal.sweep().unwrap();
        for (path, left) in [
            ("data/3-2", true),
            ("data/3-3", true),
            ("data/9-0", false),
            ("data/8-1", true),
            ("data/note", true),
            ("journal/3.json", true),
            ("journal/7.new", false),
            ("journal/8.json", true),
        ] {
            assert_eq!(directory.path().join(path).exists(), left, "{path}");
        }
    }

    #[test]
    fn a_state_directory_has_one_user() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        let second = Journal::open(directory.path()).unwrap_err();
        assert_eq!(second.kind(), Kind::Local(libc::EWOULDBLOCK));
        drop(journal);
        Journal::open(directory.path()).unwrap();
    }
}
