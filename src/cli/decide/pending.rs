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
/// `NotReady` with a line for each file that does not arrive by itself.
pub fn drain(place: &Place, id: &RecordId) -> Result<()> {
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
            lines(&pending).iter().for_each(terminal::complain);
            return Err(Error::new(
                Kind::NotReady,
                format!(
                    "{} of draft {id} is not on the server, and does not get there by itself",
                    printable(&stuck.upload.key)
                ),
            )
            .with_advice(
                "Close it, decide about it (rdmfs uploads), or mount the repository; then try again.",
            ));
        }
        if began.elapsed() > PATIENCE {
            let uploads: Vec<Upload> = pending.into_iter().map(|listed| listed.upload).collect();
            let seen = Seen {
                prefix: "",
                uploads: &uploads,
                downloads: &[],
            };
            shown.get_or_insert_with(Progress::new).update(&[seen]);
        }
        std::thread::sleep(PACE.saturating_sub(round.elapsed()));
    }
}

/// Drops what was not sent of a draft that is gone.
pub fn drop_all(pending: &[Listed]) {
    let mut told: Vec<(&std::path::Path, u64)> = Vec::new();
    for listed in pending {
        let Some(mountpoint) = listed.mountpoint.as_deref() else {
            continue;
        };
        // One number may stand for a closed and an unclosed version.
        if told.contains(&(mountpoint, listed.upload.id)) {
            continue;
        }
        told.push((mountpoint, listed.upload.id));
        match control::send(mountpoint, &format!("discard {}", listed.upload.id)) {
            Ok(()) => {}
            Err(error) => terminal::note(format_args!(
                "{} is still kept on this machine: {error}",
                printable(&listed.upload.key)
            )),
        }
    }
}
