//! What lies in a cache folder, seen from outside: for people who ask, also while a daemon uses it.
//!
//! `tree/` asks for single files, `cli/` for the whole folder. Nothing is opened to write, locked, or checked here: what
//! is said may be old by a moment.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use super::Identity;
use super::blocks::{Names, peek};
use super::evict::for_each_copy;
use super::pins::Pins;
use crate::repository::model::Md5;

/// How many of the largest files are told.
const LARGEST: usize = 5;

/// One file's copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyFacts {
    /// Bytes that are here.
    pub have: u64,
    /// All of it is here, and was compared with its checksum.
    pub is_verified: bool,
    /// It stays until it is unpinned.
    pub is_pinned: bool,
}

/// A whole cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// Files, whole and in part.
    pub files: u64,
    /// Those that are whole and compared with their checksum.
    pub complete: u64,
    /// Those of which something is missing.
    pub partial: u64,
    /// Bytes on disk, maps included.
    pub used: u64,
    /// Files that are pinned.
    pub pinned_files: u64,
    /// Their bytes.
    pub pinned: u64,
    /// The largest, by what they take.
    pub largest: Vec<Large>,
}

/// One of the largest files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Large {
    /// Its MD5; none if it has no checksum.
    pub md5: Option<String>,
    /// Its size.
    pub size: u64,
    /// What it takes on disk.
    pub used: u64,
}

/// What of a file is in the cache at `directory`.
#[must_use]
pub fn look_at(directory: &Path, identity: &Identity) -> CopyFacts {
    let root = directory.join("content");
    let stem = identity.stem();
    let is_checked = matches!(identity, Identity::Md5 { .. });
    let found = match identity.size() {
        // There is nothing to keep of it.
        0 => Some((0, true)),
        size => peek(&Names::new(&root, &stem))
            .filter(|found| found.size == size)
            .map(|found| (found.have, found.is_verified)),
    };
    let (have, is_verified) = found.unwrap_or_default();
    CopyFacts {
        have,
        is_verified: is_verified && is_checked,
        is_pinned: is_checked && Pins::of(&root).has(&stem),
    }
}

/// Looks at the whole cache at `directory`; one that is not there is empty.
#[must_use]
pub fn survey(directory: &Path) -> Survey {
    let root = directory.join("content");
    let mut survey = Survey::default();
    for_each_copy(&root, |entry| {
        survey.files += 1;
        survey.used += entry.bytes;
        let found = peek(&Names::new(&root, &entry.stem));
        match found {
            Some(found) if found.is_verified => survey.complete += 1,
            _ => survey.partial += 1,
        }
        let name = entry.stem.rsplit_once('/').map_or("", |(_, name)| name);
        let md5 = name
            .split_once('-')
            .and_then(|(md5, _)| Md5::from_hex(md5))
            .filter(|_| !entry.stem.starts_with(super::UNVERIFIED));
        let at = survey.largest.partition_point(|large| large.used >= entry.bytes);
        if at < LARGEST {
            let large = Large {
                md5: md5.map(|md5| md5.to_string()),
                size: found.map_or(0, |found| found.size),
                used: entry.bytes,
            };
            survey.largest.insert(at, large);
            survey.largest.truncate(LARGEST);
        }
    });
    (survey.pinned_files, survey.pinned) = Pins::of(&root).count();
    survey
}

/// Whether there is a cache at `directory`.
#[must_use]
pub fn is_cache(directory: &Path) -> bool {
    fs::metadata(directory.join("content.lock")).is_ok_and(|lock| lock.is_file() && lock.uid() == user())
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}
