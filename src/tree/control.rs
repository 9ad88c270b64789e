//! `.rdmfs/`: what the mount says about itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};

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
    /// Where commands find the token.
    pub access: status::Access,
}

impl Tree {
    /// What is going on now.
    #[must_use]
    pub fn status(&self) -> Status {
        let usage = self.floors.content.usage();
        let totals = self.floors.content.totals();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            mountpoint: self.facts.mountpoint.clone(),
            repository: self.floors.repository.url().to_owned(),
            signed_in: self.floors.repository.has_token(),
            access: self.facts.access.clone(),
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
                    rate: download.rate,
                    waiting: download.waiting as u64,
                    note: (!download.note.is_empty()).then(|| download.note.to_owned()),
                })
                .collect(),
            cache: status::Cache {
                directory: self.facts.cache_dir.clone(),
                used: usage.bytes,
                limit: usage.limit,
                files: usage.files,
                handed_out: self.floors.content.handed_out(),
                counted: usage.counted,
                pinned: usage.pinned,
                kept_free: usage.kept_free,
            },
            totals: status::Totals {
                from_cache: totals.from_cache,
                from_network: totals.from_network,
                requests: self.floors.repository.requests_sent(),
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
            offline: self.floors.catalog.offline().map(|offline| status::Offline {
                since: status::rfc3339(offline.since),
                known_at: offline.known_at.map(status::rfc3339),
            }),
            overdue: self.floors.catalog.overdue().map(|overdue| status::Overdue {
                known_at: status::rfc3339(overdue.known_at),
                until: status::rfc3339(overdue.until),
                reason: overdue.reason,
            }),
            inodes: self.inode_count() as u64,
            problems: self.floors.board.problems(),
        }
    }

    /// Carries out a line written to `.rdmfs/control`: `retry ID`, `discard ID`, `refresh`, `refresh PATH`,
    /// `which PATH`, `cache ORDER`, `work ID SINCE`,
    /// `stop ID`. Returns what there is to answer besides that it is done.
    ///
    /// # Errors
    /// `Call(EINVAL)` for what is no command; else as the command says.
    pub(super) fn command(self: &Arc<Self>, line: &[u8]) -> Result<Value> {
        let line = String::from_utf8_lossy(line);
        let (verb, argument) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let number_in = |text: &str, of: &str| -> Result<u64> {
            text.trim().parse().map_err(|_| {
                let what = format!("{text:?} is no number of {of}");
                Error::new(Kind::Call(libc::EINVAL), what)
            })
        };
        let upload = || number_in(argument, "an upload");
        match verb {
            "retry" => self.floors.staging.retry(upload()?)?,
            "discard" => self.floors.staging.discard(upload()?)?,
            "refresh" if argument.trim().is_empty() => {
                self.floors.catalog.expire();
                self.refresh_all(None);
            }
            "refresh" => self.refresh(argument)?,
            "which" => return self.which(argument),
            "cache" => return Ok(json!({"work": self.begin_chore(argument)?})),
            "work" => {
                let (work, since) = argument.split_once(' ').unwrap_or((argument, "0"));
                let work = self.chores.find(number_in(work, "any work")?)?;
                let since = number_in(since, "an outcome")?;
                let told = work.tell(usize::try_from(since).unwrap_or(usize::MAX));
                return Ok(json!({"work": told}));
            }
            "stop" => self.chores.find(number_in(argument, "any work")?)?.stop(),
            _ => {
                return Err(
                    Error::new(Kind::Call(libc::EINVAL), format!("{verb:?} is no command")).with_advice(
                        "There are: retry ID, discard ID, refresh, refresh PATH, which PATH, cache ORDER, work ID SINCE, \
                         stop ID.",
                    ),
                );
            }
        }
        Ok(json!({}))
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
pub(super) fn answer(done: &Result<Value>) -> Bytes {
    let answer = match done {
        Ok(more) => {
            let mut answer = json!({"ok": true});
            if let (Value::Object(answer), Value::Object(more)) = (&mut answer, more) {
                answer.extend(more.clone());
            }
            answer
        }
        Err(error) => json!({"ok": false, "error": error.to_string(), "advice": error.advice()}),
    };
    Bytes::from(format!("{answer}\n"))
}
