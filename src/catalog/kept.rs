//! How much of the catalog lies below a cache directory, and its removal, with or without a daemon.
//!
//! Called by `cli/`; `store` alone writes there.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::store::collect;

/// Bytes of all that is kept below a cache directory, of whatever account.
#[must_use]
pub fn kept_bytes(cache: &Path) -> u64 {
    bytes_below(&cache.join("catalog"))
}

/// Drops all that is kept below a cache directory, of whatever account, and returns how many bytes that were. A mount that
/// writes there goes on with nothing.
///
/// # Errors
/// If it can't be removed.
pub fn remove_kept(cache: &Path) -> io::Result<u64> {
    let bytes = kept_bytes(cache);
    match fs::remove_dir_all(cache.join("catalog")) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(bytes),
    }
}

pub(super) fn bytes_below(folder: &Path) -> u64 {
    let mut files = Vec::new();
    collect(folder, &mut files);
    files.iter().map(|(_, size, _)| size).sum()
}
