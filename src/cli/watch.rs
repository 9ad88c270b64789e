//! `rdmfs status --watch`: goes on showing how transfers get on.
//!
//! Each mount is asked as `probe` asks, so a stuck one is said to be stuck and hangs nobody. Nothing is changed here.

use std::process::ExitCode;
use std::time::Instant;

use crate::cli::mountinfo::{self, Mount};
use crate::cli::probe::{self, Answer};
use crate::cli::progress::{PACE, Progress, Seen};
use crate::cli::terminal;
use crate::error::Result;
use crate::status::Status;

/// A mount that is watched.
struct Watched {
    mount: Mount,
    /// What stands before the names of its files; nothing, if it is the only one.
    prefix: String,
    /// What it said last.
    status: Option<Box<Status>>,
    is_silent: bool,
}

/// Watches until all of `mounts` are gone; Ctrl-C ends it before.
///
/// # Errors
/// If `/proc` can't be read or no process can be started.
pub fn run(mounts: &[Mount]) -> Result<ExitCode> {
    if mounts.is_empty() {
        terminal::say("nothing is mounted");
        return Ok(ExitCode::SUCCESS);
    }
    let mut watched: Vec<Watched> = mounts
        .iter()
        .map(|mount| watch(mount, mounts.len() > 1))
        .collect();
    let mut progress = Progress::new();
    while !watched.is_empty() {
        let began = Instant::now();
        let asked: Vec<Mount> = watched.iter().map(|one| one.mount.clone()).collect();
        let answers = probe::ask_all(&asked)?;
        let there = mountinfo::all()?;
        let mut left = Vec::new();
        for (mut one, answer) in watched.into_iter().zip(answers) {
            let goes_on = there.contains(&one.mount) && one.take(answer, &progress);
            if goes_on {
                left.push(one);
            } else {
                let place = one.mount.mountpoint.display();
                progress.say(&format!(
                    "{place} is no longer watched: it is unmounted or has no daemon"
                ));
                progress.forget(&one.prefix);
            }
        }
        watched = left;
        let seen: Vec<Seen<'_>> = watched
            .iter()
            .filter_map(|one| Some(Seen::of(&one.prefix, one.status.as_ref()?)))
            .collect();
        if !seen.is_empty() {
            progress.update(&seen);
        }
        std::thread::sleep(PACE.saturating_sub(began.elapsed()));
    }
    Ok(ExitCode::SUCCESS)
}

fn watch(mount: &Mount, one_of_several: bool) -> Watched {
    let place = mount.mountpoint.display();
    terminal::note(format_args!(
        "watching {} on {place} (Ctrl-C ends it)",
        mount.source
    ));
    Watched {
        prefix: if one_of_several {
            format!("{place}: ")
        } else {
            String::new()
        },
        mount: mount.clone(),
        status: None,
        is_silent: false,
    }
}

impl Watched {
    /// Takes its answer; false if there will be no other one. Of a mount that is silent for a while, what it said last
    /// is shown: that it says nothing doesn't mean that anything has arrived.
    fn take(&mut self, answer: Answer, progress: &Progress) -> bool {
        let (why, goes_on) = match answer {
            Answer::Status(status) => {
                self.status = Some(status);
                self.is_silent = false;
                return true;
            }
            Answer::Dead => return false,
            Answer::NotAllowed => ("belongs to another user".to_owned(), false),
            Answer::Stuck => (
                format!("does not answer within {} s", probe::LIMIT.as_secs()),
                true,
            ),
            Answer::Failed(reason) => (format!("can't be asked: {reason}"), true),
        };
        if !std::mem::replace(&mut self.is_silent, true) {
            progress.say(&format!("{} {why}", self.mount.mountpoint.display()));
        }
        goes_on
    }
}
