//! `.rdmfs/`: what the mount says about itself.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::Tree;
use crate::error::{Error, Kind, Result};
use crate::status::{self, Status};

/// What the tree can't know by itself.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// When.
    pub started: SystemTime,
    /// Where published bytes are cached.
    pub cache_dir: PathBuf,
}

impl Tree {
    /// What is going on now.
    #[must_use]
    pub fn status(&self) -> Status {
        let usage = self.floors.content.usage();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            mountpoint: self.facts.mountpoint.clone(),
            repository: self.floors.repository.url().to_owned(),
            signed_in: self.floors.repository.has_token(),
            read_only: self.rules.read_only,
            started: status::rfc3339(self.facts.started),
            uploads: self.floors.staging.uploads(),
            downloads: self
                .floors
                .content
                .downloads()
                .into_iter()
                .map(|download| status::Download {
                    file: download.place.to_string(),
                    have: download.have,
                    size: download.total,
                    rate: download.rate as u64,
                    note: (!download.note.is_empty()).then(|| download.note.to_owned()),
                })
                .collect(),
            cache: status::Cache {
                directory: self.facts.cache_dir.clone(),
                used: usage.bytes,
                limit: usage.limit,
                files: usage.files,
            },
            staging: self.floors.staging.directory().to_owned(),
            rate_limit: self
                .floors
                .repository
                .limits_seen()
                .map(|seen| status::RateLimit {
                    limit: seen.limit,
                    remaining: seen.remaining,
                    reset: seen
                        .reset
                        .and_then(|reset| reset.duration_since(UNIX_EPOCH).ok())
                        .map_or(0, |since| since.as_secs()),
                }),
            inodes: self.inode_count() as u64,
            problems: self.floors.board.problems(),
        }
    }

    /// Carries out a line written to `.rdmfs/control`: `retry ID`, `discard ID`, `refresh`.
    ///
    /// # Errors
    /// `Call(EINVAL)` for what is no command; else as the command says.
    pub(super) fn command(&self, line: &[u8]) -> Result<()> {
        let line = String::from_utf8_lossy(line);
        let (verb, argument) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let number = || -> Result<u64> {
            argument.trim().parse().map_err(|_| {
                Error::new(
                    Kind::Call(libc::EINVAL),
                    format!("{argument:?} is no number of an upload"),
                )
            })
        };
        match verb {
            "retry" => self.floors.staging.retry(number()?),
            "discard" => self.floors.staging.discard(number()?),
            "refresh" => {
                self.floors.catalog.expire();
                self.archives.expire();
                Ok(())
            }
            _ => Err(
                Error::new(Kind::Call(libc::EINVAL), format!("{verb:?} is no command"))
                    .with_advice("There are: retry ID, discard ID, refresh."),
            ),
        }
    }

    /// `status.json` of this moment.
    pub(super) fn status_text(&self) -> Bytes {
        // A struct of plain fields can always be written as JSON.
        let mut text = serde_json::to_string_pretty(&self.status()).unwrap_or_default();
        text.push('\n');
        Bytes::from(text)
    }
}

/// What is read after a command was written.
pub(super) fn answer(done: &Result<()>) -> Bytes {
    let answer = match done {
        Ok(()) => serde_json::json!({"ok": true}),
        Err(error) => serde_json::json!({"ok": false, "error": error.to_string(), "advice": error.advice()}),
    };
    Bytes::from(format!("{answer}\n"))
}
