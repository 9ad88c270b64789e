//! What earlier mounts left in a state directory, read from the journals without a mount.
//!
//! `rdmfs uploads` asks for it where no daemon answers. It only looks: it never locks, changes, creates or removes
//! anything, and what it finds may change while it reads, because a daemon may be at work there.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::journal::{Entry, State};
use crate::error::{Error, Result};
use crate::status::{Upload, UploadState};

/// What is left for one repository.
#[derive(Clone, Debug)]
pub struct Left {
    /// The repository's address; the folder's name if no entry tells.
    pub repository: String,
    /// Its folder in the state directory, as the status of a mount names it too.
    pub folder: PathBuf,
    /// What is not safe on the server, oldest first. A file that was closed, and later written again and not closed,
    /// is two with one number.
    pub uploads: Vec<Upload>,
    /// Entries that can't be understood; the bytes that belong to them are beside them in `data`.
    pub unreadable: Vec<PathBuf>,
}

/// Everything that is left below a state directory. One that is missing holds nothing.
///
/// # Errors
/// `Local` if a folder can't be read.
pub fn left_in(state_dir: &Path) -> Result<Vec<Left>> {
    let mut all = Vec::new();
    for folder in names_in(state_dir)? {
        let left = left_of(folder)?;
        if !left.uploads.is_empty() || !left.unreadable.is_empty() {
            all.push(left);
        }
    }
    Ok(all)
}

fn left_of(folder: PathBuf) -> Result<Left> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut unreadable = Vec::new();
    for path in names_in(&folder.join("journal"))? {
        // Half-written entries have another ending; the whole one beside them is what counts.
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match fs::read(&path).map(|bytes| serde_json::from_slice(&bytes)) {
            Ok(Ok(entry)) => entries.push(entry),
            // It has arrived at the server in this moment.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(Err(_)) | Err(_) => unreadable.push(path),
        }
    }
    entries.sort_by_key(|entry| entry.id);
    let name = || {
        folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    Ok(Left {
        repository: entries
            .first()
            .map_or_else(name, |entry| entry.repository.clone()),
        uploads: entries.iter().flat_map(|entry| uploads(&folder, entry)).collect(),
        folder,
        unreadable,
    })
}

/// What an entry stands for: what the next mount sends or shows as refused, and what was never closed.
fn uploads(folder: &Path, entry: &Entry) -> impl Iterator<Item = Upload> {
    let upload = |state: UploadState, generation: u64, reason: Option<&String>| {
        let kept = folder.join("data").join(format!("{}-{generation}", entry.id));
        let size = match state {
            // The journal knows only how long it was when it was last synced.
            UploadState::Unclosed => fs::metadata(&kept).map_or(entry.size, |metadata| metadata.len()),
            _ => entry.size,
        };
        Upload {
            id: entry.id,
            draft: entry.draft.clone(),
            key: entry.key.clone(),
            state,
            sent: 0,
            size,
            tries: 0,
            next_try: None,
            reason: reason.cloned(),
            kept,
        }
    };
    let closed = match &entry.state {
        State::Open => None,
        State::Closed => Some(upload(UploadState::Queued, entry.generation, None)),
        State::Refused(reason) => Some(upload(UploadState::Refused, entry.generation, Some(reason))),
        // Junk was never meant for the server.
        State::Local { .. } => return None.into_iter().chain(None),
    };
    let unclosed = match entry.state {
        State::Open => Some(entry.open.unwrap_or(entry.generation)),
        State::Closed | State::Refused(_) | State::Local { .. } => entry.open,
    };
    let unclosed = unclosed.map(|generation| upload(UploadState::Unclosed, generation, None));
    closed.into_iter().chain(unclosed)
}

/// The paths in a folder, sorted. What is no folder holds none.
fn names_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let read =
        || -> io::Result<Vec<PathBuf>> { fs::read_dir(folder)?.map(|item| Ok(item?.path())).collect() };
    match read() {
        Ok(mut paths) => {
            paths.sort();
            Ok(paths)
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(Error::local(format_args!("read {}", folder.display()), &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::staging::journal::{Journal, Role};

    fn entry(id: u64, state: State, open: Option<u64>) -> Entry {
        Entry {
            id,
            repository: "https://example.org".into(),
            account: "abc".into(),
            draft: "abcde-12345".into(),
            key: format!("dir/{id}.csv"),
            role: Role::File,
            order: id,
            replaces: Vec::new(),
            generation: 0,
            size: 3,
            state,
            open,
            broken: false,
            base: None,
        }
    }

    /// A state directory with these entries; each data file of an entry holds its own name.
    fn state(entries: &[Entry]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(&directory.path().join("example.org-00000000")).unwrap();
        for entry in entries {
            journal.write(entry).unwrap();
            for generation in [Some(entry.generation), entry.open].into_iter().flatten() {
                let name = format!("{}-{generation}", entry.id);
                fs::write(journal.data_path(entry.id, generation), name.repeat(5)).unwrap();
            }
        }
        directory
    }

    #[test]
    fn each_state_of_an_entry_is_told_with_its_own_bytes() {
        let refused = State::Refused("Bucket quota exceeded.".into());
        let directory = state(&[
            entry(1, State::Open, None),
            entry(2, State::Closed, None),
            entry(3, refused.clone(), None),
            entry(4, State::Closed, Some(1)),
            entry(5, refused, Some(2)),
        ]);
        let left = left_in(directory.path()).unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].repository, "https://example.org");
        let told: Vec<_> = left[0]
            .uploads
            .iter()
            .map(|upload| (upload.id, upload.state, upload.size))
            .collect();
        assert_eq!(
            told,
            [
                (1, UploadState::Unclosed, 15),
                (2, UploadState::Queued, 3),
                (3, UploadState::Refused, 3),
                (4, UploadState::Queued, 3),
                (4, UploadState::Unclosed, 15),
                (5, UploadState::Refused, 3),
                (5, UploadState::Unclosed, 15),
            ]
        );
        for (upload, name) in left[0]
            .uploads
            .iter()
            .zip(["1-0", "2-0", "3-0", "4-0", "4-1", "5-0", "5-2"])
        {
            assert_eq!(fs::read_to_string(&upload.kept).unwrap(), name.repeat(5));
            assert_eq!(upload.reason.is_some(), upload.state == UploadState::Refused);
        }
    }

    #[test]
    fn a_torn_entry_is_named_and_does_not_hide_the_others() {
        let directory = state(&[entry(1, State::Closed, None)]);
        let journal = directory.path().join("example.org-00000000/journal");
        fs::write(journal.join("2.json"), b"{\"id\": 2,").unwrap();
        fs::write(journal.join("3.new"), b"").unwrap();
        let left = left_in(directory.path()).unwrap();
        assert_eq!(left[0].uploads.len(), 1);
        assert_eq!(left[0].unreadable, [journal.join("2.json")]);
    }

    #[test]
    fn an_entry_without_its_bytes_is_told_with_the_size_it_had() {
        let directory = state(&[entry(1, State::Open, None)]);
        fs::remove_file(directory.path().join("example.org-00000000/data/1-0")).unwrap();
        assert_eq!(left_in(directory.path()).unwrap()[0].uploads[0].size, 3);
    }

    #[test]
    fn what_is_no_journal_holds_nothing_and_looking_makes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("log")).unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        assert!(left_in(directory.path()).unwrap().is_empty());
        assert!(left_in(&directory.path().join("missing")).unwrap().is_empty());
        assert!(!directory.path().join("missing").exists());
        assert_eq!(fs::read_dir(directory.path().join("log")).unwrap().count(), 0);
    }

    #[test]
    fn a_journal_in_use_is_read_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(&directory.path().join("r")).unwrap();
        journal.write(&entry(1, State::Closed, None)).unwrap();
        assert_eq!(left_in(directory.path()).unwrap()[0].uploads.len(), 1);
    }
}
