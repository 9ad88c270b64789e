//! The settings of a mount, as the command line hands them to the daemon.
//!
//! `cli/` makes them from flags, environment and files; `mount/` and the floors below only read them.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::status::Access;

/// Everything that `mount::serve` needs. It is handed to the daemon through a pipe, because it holds the token.
#[derive(Clone, Serialize, Deserialize)]
pub struct MountSettings {
    /// The repository's address.
    pub url: String,
    /// The token, if the user gave one. Never in argv, a log line, an error or `.rdmfs/`.
    pub token: Option<String>,
    /// The link to a shared record that is mounted, if one is. As secret as the token.
    #[serde(default)]
    pub share_link: Option<String>,
    /// Absolute path of the mount point.
    pub mountpoint: PathBuf,
    /// A CA certificate to trust besides the system's.
    pub ca_certificate: Option<PathBuf>,
    /// Don't check certificates.
    pub insecure: bool,
    /// Where published bytes are cached.
    pub cache_dir: PathBuf,
    /// Bytes of cache on disk at most.
    pub cache_size: u64,
    /// Where written files are staged.
    pub state_dir: PathBuf,
    /// How long close() waits for the upload.
    pub close_wait: Duration,
    /// How long what is known of published records counts as current.
    pub metadata_ttl: Duration,
    /// How long what is known of drafts counts as current.
    pub draft_ttl: Duration,
    /// Parallel connections for reading ahead.
    pub connections: usize,
    /// How far sequential readers are read ahead of, at most, each.
    pub read_ahead: u64,
    /// Bytes fetched before they are asked for, at most, for all readers together.
    pub memory: u64,
    /// Let the kernel read verified files of the cache by itself, where it takes them.
    pub passthrough: bool,
    /// Uploads at the same time.
    pub uploads: usize,
    /// Patterns for names of files that are never sent.
    pub junk: Vec<String>,
    /// As many records of a search are listed.
    pub search_limit: usize,
    /// Refuse every write.
    pub read_only: bool,
    /// Let other users in, as the modes say.
    pub allow_other: bool,
    /// The repository did not answer when the mount was asked for: begin with what is known.
    #[serde(default)]
    pub begin_offline: bool,
    /// Where the token came from: told to commands on a path in the mount.
    #[serde(default)]
    pub access: Access,
    /// Options for the kernel, as after `-o`.
    pub options: Vec<String>,
}

impl std::fmt::Debug for MountSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MountSettings")
            .field("url", &self.url)
            .field("signed_in", &self.token.is_some())
            .field("shared", &self.share_link.is_some())
            .field("mountpoint", &self.mountpoint)
            .finish_non_exhaustive()
    }
}
