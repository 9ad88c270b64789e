//! What this machine has written into a draft and not sent yet, in all mounts and in what earlier mounts left.
//!
//! `check` tells of it, `publish` waits for it, `discard` drops it. The journals are only read here.

use std::time::{Duration, Instant};

use crate::cli::control;
use crate::cli::mountinfo::{self, Mount};
use crate::cli::progress::{self, PACE, Progress, Seen};
use crate::cli::target::Place;
use crate::cli::terminal::{self, printable};
use crate::cli::uploads::{Inventory, Listed};
use crate::error::{Error, Kind, Result};
use crate::repository::model::RecordId;
use crate::status::{Upload, UploadState};

/// An upload that is done in this time needs no bar.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longer than any pause between two tries of an upload, and than most repositories limit requests for.
const STANDSTILL: Duration = Duration::from_secs(10 * 60);

/// The uploads of a draft.
///
/// # Errors
/// `TimedOut` if a mount does not answer: nobody knows then what it holds.
pub fn of(place: &Place, id: &RecordId) -> Result<Vec<Listed>> {
    let url = place.repository.url();
    let mounts: Vec<Mount> = mountinfo::ours(None)?
        .into_iter()
        .filter(|mount| mount.may_be_of(url) || place.mountpoint.as_ref() == Some(&mount.mountpoint))
        .collect();
    let state_dir = place.sources.state_dir().ok();
    let found = Inventory::everywhere(mounts, &[], None, state_dir.as_ref())?;
    if let Some(silent) = found.silent.first() {
        return Err(Error::new(
            Kind::TimedOut,
            format!("it is not known whether all files were sent: {}", silent.why),
        )
        .with_advice("rdmfs status tells more of it; rdmfs unmount --now takes it off."));
    }
    Ok(found
        .listed
        .into_iter()
        .filter(|listed| is_same(&listed.repository, url) && listed.upload.draft == id.as_str())
        .collect())
}

fn is_same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

/// A line for each: what it is, and why it is not sent.
#[must_use]
pub fn lines(pending: &[Listed]) -> Vec<String> {
    pending.iter().map(line).collect()
}

fn line(listed: &Listed) -> String {
    let upload = &listed.upload;
    let what = match (upload.state, &listed.mountpoint) {
        (UploadState::Open, _) => "is still open in a program".to_owned(),
        (UploadState::Refused | UploadState::Unclosed, _) => format!(
            "{} (rdmfs uploads retry {id} or rdmfs uploads discard {id})",
            progress::describe(upload),
            id = upload.id
        ),
        (_, None) => "was not sent by an earlier mount; the next mount sends it".to_owned(),
        (_, Some(_)) => format!("not sent yet: {}", progress::describe(upload)),
    };
    format!("{}: {}", printable(&upload.key), what)
}

/// Waits until all that moves has arrived, with bars if it takes over a second.
///
/// # Errors
/// `NotReady` with a line for each file that does not arrive by itself, or if nothing arrives for [`STANDSTILL`].
pub fn drain(place: &Place, id: &RecordId) -> Result<()> {
    let mut movement = Movement::default();
    let began = Instant::now();
    let mut shown: Option<Progress> = None;
    loop {
        let round = Instant::now();
        let pending = of(place, id)?;
        if pending.is_empty() {
            return Ok(());
        }
        let moves = |listed: &Listed| listed.upload.state.moves() && listed.mountpoint.is_some();
        if let Some(stuck) = pending.iter().find(|listed| !moves(listed)) {
            drop(shown);
            return Err(not_there(
                &pending,
                &format!(
                    "{} of draft {id} is not on the server, and does not get there by itself",
                    printable(&stuck.upload.key)
                ),
                "Close it, decide about it (rdmfs uploads), or mount the repository; then try again.",
            ));
        }
        if movement.stands_still(&pending, round) {
            drop(shown);
            return Err(not_there(
                &pending,
                &format!(
                    "no file of draft {id} has got on for {} minutes",
                    STANDSTILL.as_secs() / 60
                ),
                "They are kept and sent when the repository takes them (rdmfs status tells more); try again then.",
            ));
        }
        if began.elapsed() > PATIENCE {
            let uploads: Vec<Upload> = pending.into_iter().map(|listed| listed.upload).collect();
            let seen = Seen {
                prefix: "",
                uploads: &uploads,
                downloads: &[],
            };
            shown
                .get_or_insert_with(Progress::beside_a_result)
                .update(&[seen]);
        }
        std::thread::sleep(PACE.saturating_sub(round.elapsed()));
    }
}

/// Says for each file why it is not on the server.
fn not_there(pending: &[Listed], what: &str, advice: &'static str) -> Error {
    lines(pending).iter().for_each(terminal::complain);
    Error::new(Kind::NotReady, what.to_owned()).with_advice(advice)
}

/// Whether uploads get on: their number or their bytes change.
#[derive(Default)]
struct Movement {
    last: Option<(usize, u64, Instant)>,
}

impl Movement {
    fn stands_still(&mut self, pending: &[Listed], now: Instant) -> bool {
        let sent = pending.iter().map(|listed| listed.upload.sent).sum();
        match self.last {
            Some((count, before, since)) if (count, before) == (pending.len(), sent) => {
                now.saturating_duration_since(since) >= STANDSTILL
            }
            _ => {
                self.last = Some((pending.len(), sent, now));
                false
            }
        }
    }
}

/// Drops what was not sent of a draft that is gone. Returns how many files that were; what no daemon keeps is only named.
pub fn drop_all(pending: &[Listed]) -> usize {
    let mut told: Vec<(&std::path::Path, u64)> = Vec::new();
    let mut dropped = 0;
    for listed in pending {
        let key = printable(&listed.upload.key);
        let Some(mountpoint) = listed.mountpoint.as_deref() else {
            terminal::note(format_args!(
                "{key} of an earlier mount is still kept on this machine; once the repository is mounted, rdmfs uploads \
                 discard {} drops it",
                listed.upload.id
            ));
            continue;
        };
        // One number may stand for a closed and an unclosed version.
        if told.contains(&(mountpoint, listed.upload.id)) {
            continue;
        }
        told.push((mountpoint, listed.upload.id));
        match control::send(mountpoint, &format!("discard {}", listed.upload.id)) {
            Ok(()) => dropped += 1,
            Err(error) => terminal::note(format_args!("{key} is still kept on this machine: {error}")),
        }
    }
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::uploads::listed;

    #[test]
    fn what_moves_is_waited_for_and_what_stands_still_is_not_for_ever() {
        let mut movement = Movement::default();
        let begun = Instant::now();
        let mut pending = vec![listed(Some("/a"), "https://a", 1, UploadState::Waiting)];
        assert!(!movement.stands_still(&pending, begun));
        assert!(!movement.stands_still(&pending, begun + STANDSTILL / 2));
        pending[0].upload.sent += 1;
        assert!(!movement.stands_still(&pending, begun + STANDSTILL));
        assert!(!movement.stands_still(&pending, begun + STANDSTILL + STANDSTILL / 2));
        assert!(movement.stands_still(&pending, begun + 2 * STANDSTILL));
    }
}
