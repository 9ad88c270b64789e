//! What is going on now: the document that `.rdmfs/status.json` shows and `rdmfs status` and `rdmfs unmount` read.
//!
//! The types are both what the daemon writes and what the commands parse, so that they can't drift apart. [`Board`]
//! holds what no floor owns: the last problems. Nothing here may hold a token or a signed link.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The whole document. A field that is missing has its empty value: after an upgrade, commands and a daemon of another
/// version must still understand each other.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The version of the daemon.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// The repository's address, without `/api`.
    pub repository: String,
    /// Whether a token is in use; the token itself is never shown.
    pub signed_in: bool,
    /// Where the token is to be found again, and what is trusted.
    pub access: Access,
    /// Whether nothing can be written.
    pub read_only: bool,
    /// When the mount began, RFC 3339.
    pub started: String,
    /// What is not safe on the server yet, oldest first.
    pub uploads: Vec<Upload>,
    /// What is being fetched.
    pub downloads: Vec<Download>,
    /// The cache of published bytes.
    pub cache: Cache,
    /// Where written files wait for their upload.
    pub staging: PathBuf,
    /// What was read since the mount began.
    pub totals: Totals,
    /// The repository's rate limit, as last seen.
    pub rate_limit: Option<RateLimit>,
    /// Whether the repository can't be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline: Option<Offline>,
    /// Inode numbers that the kernel holds.
    pub inodes: u64,
    /// The last problems, newest last.
    pub problems: Vec<Problem>,
}

/// How a mount gets into its repository: names of files, never what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    /// The file that holds the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The file with address and token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_file: Option<PathBuf>,
    /// A CA certificate that is trusted besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_certificate: Option<PathBuf>,
    /// Certificates are not checked.
    pub insecure: bool,
}

impl Status {
    /// How many uploads will still move by themselves; a refused one waits for the user.
    #[must_use]
    pub fn moving_uploads(&self) -> usize {
        self.uploads.iter().filter(|upload| upload.state.moves()).count()
    }
}

/// A written file on its way to the server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Upload {
    /// Its number in the journal, by which commands name it. 0: the daemon is of a version that doesn't tell.
    #[serde(default)]
    pub id: u64,
    /// The draft.
    pub draft: String,
    /// The file's key in it.
    pub key: String,
    /// How far it has come.
    pub state: UploadState,
    /// Bytes sent of this try.
    pub sent: u64,
    /// Bytes in all.
    pub size: u64,
    /// How often it was tried.
    pub tries: u32,
    /// When it is tried again, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_try: Option<String>,
    /// Why it waits or was refused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Where its bytes are on the local disk.
    #[serde(default)]
    pub kept: PathBuf,
}

/// The states of an upload that a user can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UploadState {
    /// Still open in a program.
    Open,
    /// Waiting for its turn.
    Queued,
    /// Bytes are on their way.
    Sending,
    /// All sent; the server is asked to keep it and its checksum is compared.
    Checking,
    /// It failed and is tried again.
    Waiting,
    /// The server refuses it; the bytes are kept until the user decides.
    Refused,
    /// Never closed before the daemon ended; kept until the user decides.
    Unclosed,
}

impl UploadState {
    /// The state in one word, as JSON has it too.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            UploadState::Open => "open",
            UploadState::Queued => "queued",
            UploadState::Sending => "sending",
            UploadState::Checking => "checking",
            UploadState::Waiting => "waiting",
            UploadState::Refused => "refused",
            UploadState::Unclosed => "unclosed",
        }
    }

    /// Whether it goes on without the user.
    #[must_use]
    pub fn moves(self) -> bool {
        !matches!(
            self,
            UploadState::Refused | UploadState::Unclosed | UploadState::Open
        )
    }
}

/// A file being fetched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Download {
    /// The record or draft, and the key.
    pub file: String,
    /// Bytes that are here.
    pub have: u64,
    /// Bytes in all.
    pub size: u64,
    /// Bytes a second, over the last seconds.
    pub rate: u64,
    /// Reads that wait for bytes of it.
    #[serde(default)]
    pub waiting: u64,
    /// What slows it down, if something does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
}

/// What was read since the mount began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Bytes that programs read and that were in the cache when they asked. What the kernel had is not counted.
    pub from_cache: u64,
    /// Bytes of files that were fetched.
    pub from_network: u64,
    /// Requests sent, of every kind.
    pub requests: u64,
}

/// The cache of published bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cache {
    /// Its directory.
    pub directory: PathBuf,
    /// Bytes on disk.
    pub used: u64,
    /// At most that many.
    pub limit: u64,
    /// Files in it, whole or in part.
    pub files: u64,
    /// Open files of it that the kernel reads by itself.
    pub handed_out: u64,
    /// Whether `used` and `files` are all there is, and not only what came since the mount began.
    pub counted: bool,
    /// Bytes of files that stay until they are unpinned.
    pub pinned: u64,
    /// Bytes of its disk that it leaves free.
    pub kept_free: u64,
}

/// A piece of work on the cache that was asked for, and how far it has come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Work {
    /// By which the daemon knows it.
    pub number: u64,
    /// All is done and told.
    pub finished: bool,
    /// Files in all, as far as known.
    pub files: u64,
    /// Files done.
    pub files_done: u64,
    /// Bytes in all, as far as known.
    pub bytes: u64,
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes of the disk that came free.
    pub freed: u64,
    /// How many files became what.
    pub counts: BTreeMap<Fate, u64>,
    /// What became of single files: those that were named, and otherwise those of which there is something to say.
    pub outcomes: Vec<Outcome>,
    /// Why it could not be done.
    pub error: String,
    /// What can be done about that.
    pub advice: String,
}

/// What became of a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Its path in the mount, or, where that is not known, its checksum and size.
    pub name: String,
    /// Its MD5, if it has one.
    pub md5: Option<String>,
    /// Its size.
    pub size: u64,
    /// Bytes of it that are here.
    pub have: u64,
    /// All of it is here and was compared with its checksum.
    pub verified: bool,
    /// It stays until it is unpinned.
    pub pinned: bool,
    /// What was done.
    pub fate: Fate,
    /// Why, where that is not plain.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub reason: String,
}

impl Outcome {
    /// One with nothing else to say.
    #[must_use]
    pub fn new(name: &str, size: u64, fate: Fate) -> Self {
        Outcome {
            name: name.to_owned(),
            md5: None,
            size,
            have: 0,
            verified: false,
            pinned: false,
            fate,
            reason: String::new(),
        }
    }
}

/// What can become of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It came, and is right.
    Fetched,
    /// All of it was here.
    Here,
    /// Not all of it is here.
    Partial,
    /// It came, and is kept until the mount ends only.
    Unkept,
    /// What is here is right.
    Sound,
    /// Something was wrong and was dropped.
    Dropped,
    /// Its room was given back.
    Freed,
    /// It is open in a program, so it was left alone.
    Open,
    /// It is pinned, so it was left alone.
    Pinned,
    /// It may be dropped again when room is needed.
    Unpinned,
    /// There was nothing to do.
    Absent,
    /// It was not finished.
    Stopped,
    /// It failed.
    Failed,
}

/// The repository can't be reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offline {
    /// Since when, RFC 3339.
    pub since: String,
    /// When the oldest of what was shown since then was asked for, RFC 3339; nothing if nothing was shown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub known_at: Option<String>,
}

/// The repository's rate limit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct RateLimit {
    /// Requests in a window.
    pub limit: u64,
    /// Requests left in it.
    pub remaining: u64,
    /// When the window ends, seconds since 1970.
    pub reset: u64,
}

/// Something that went wrong, as a user can read it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// When, RFC 3339.
    pub time: String,
    /// What happened.
    pub what: String,
    /// What can be done.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub advice: String,
}

/// Where the floors post their problems. Its lock is a leaf: nothing else is taken while it is held.
#[derive(Debug, Default)]
pub struct Board {
    problems: Mutex<VecDeque<Problem>>,
}

/// As many problems as a person reads.
const PROBLEMS_KEPT: usize = 20;

impl Board {
    /// Logs an error and keeps it for the status.
    pub fn post(&self, error: &Error) {
        log::warn!("{error}. {}", error.advice());
        let mut problems = self.problems.lock();
        if problems.back().is_some_and(|last| last.what == error.to_string()) {
            return;
        }
        if problems.len() == PROBLEMS_KEPT {
            problems.pop_front();
        }
        problems.push_back(Problem {
            time: rfc3339(SystemTime::now()),
            what: error.to_string(),
            advice: error.advice().to_owned(),
        });
    }

    /// The problems kept, oldest first.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.lock().iter().cloned().collect()
    }
}

/// A time as the status shows it, in UTC to the second.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .ok()
        .and_then(|t| t.round(jiff::Unit::Second).ok())
        .map_or_else(String::new, |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn an_upload_of_a_daemon_that_tells_neither_number_nor_place_is_understood() {
        let text =
            r#"{"draft": "abcde-12345", "key": "a", "state": "queued", "sent": 0, "size": 1, "tries": 0}"#;
        let upload: Upload = serde_json::from_str(text).unwrap();
        assert_eq!((upload.id, upload.kept), (0, PathBuf::new()));
        assert!(upload.state.moves());
    }

    #[test]
    fn only_the_last_problems_are_kept_and_repeats_are_one() {
        let board = Board::default();
        for i in 0..PROBLEMS_KEPT + 5 {
            for _ in 0..2 {
                board.post(&Error::new(Kind::Unreachable, format!("problem {i}")));
            }
        }
        let problems = board.problems();
        assert_eq!(problems.len(), PROBLEMS_KEPT);
        assert_eq!(
            problems[PROBLEMS_KEPT - 1].what,
            format!("problem {}", PROBLEMS_KEPT + 4)
        );
    }
}
