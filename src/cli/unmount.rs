//! `rdmfs unmount`: waits until everything written has arrived, unmounts, and waits for the daemon to be gone.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cli::mountpoint;
use crate::cli::probe::{self, Answer};
use crate::cli::progress::{self, PACE, Progress, Seen};
use crate::cli::{mountinfo, terminal};
use crate::error::{Error, Kind, Result};
use crate::mount::device::{How, detach};
use crate::status::{Status, Upload, UploadState};

/// How long the daemon may take to end after the unmount.
const END_LIMIT: Duration = Duration::from_secs(60);
/// How long a mount that is in use is tried again.
const BUSY_LIMIT: Duration = Duration::from_secs(2);

/// Unmount; waits for uploads first, and shows them
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Where the repository is mounted
    mountpoint: PathBuf,
    /// Don't wait for uploads; what has not arrived is kept for the next mount
    #[arg(long)]
    now: bool,
}

const EXAMPLES: &str = "\
When it returns with 0, everything that was written has arrived at the repository, but for
files that it refused, which are named and kept. Ctrl-C stops waiting and leaves it mounted.

Examples:
  rdmfs unmount ~/zenodo
  rdmfs unmount --now ~/zenodo";

/// Runs the command.
///
/// # Errors
/// If nothing of ours is mounted there, it is in use, or the daemon is stuck.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mountpoint = find(&arguments.mountpoint)?;
    let shown = mountpoint.display();
    let status = match probe::ask(&mountpoint)? {
        Answer::Dead => {
            detach(&mountpoint, How::Lazily).map_err(with_advice)?;
            terminal::say(format_args!("took the dead mount off {shown}"));
            return Ok(ExitCode::SUCCESS);
        }
        Answer::Status(status) if arguments.now => Some(status),
        Answer::Status(status) => Some(wait_for_uploads(&mountpoint, status)?),
        Answer::NotAllowed if !arguments.now => {
            return Err(Error::new(
                Kind::Denied,
                format!("{shown} belongs to another user, so its uploads can't be seen"),
            )
            .with_advice("Let that user unmount it, or use --now as root; what has not arrived is kept."));
        }
        _ if arguments.now => None,
        Answer::Failed(reason) => return Err(no_answer(&mountpoint, &reason)),
        Answer::Stuck | Answer::NotAllowed => {
            return Err(no_answer(
                &mountpoint,
                &format!("no answer within {} s", probe::LIMIT.as_secs()),
            ));
        }
    };
    // Before the unmount, so that the number can't have become another process's.
    let daemon = status.as_ref().and_then(|status| open_process(status.pid));
    detach_when_free(&mountpoint)?;
    if let Some(status) = &status {
        tell_what_is_left(status);
    }
    if daemon.is_some_and(|daemon| !ends(&daemon)) {
        return Err(Error::new(
            Kind::TimedOut,
            format!(
                "{shown} is unmounted, but the daemon still runs after {} s",
                END_LIMIT.as_secs()
            ),
        )
        .with_advice("It may still be storing what was written; its log says what it does."));
    }
    terminal::say(format_args!("unmounted {shown}"));
    Ok(ExitCode::SUCCESS)
}

/// Unmounts. Who has just closed a file, or is between fork and exec, holds the mount for a moment only, and nothing tells
/// when it lets go: so it is tried again for a short while.
fn detach_when_free(mountpoint: &Path) -> Result<()> {
    let begun = Instant::now();
    loop {
        match detach(mountpoint, How::WhenFree) {
            Err(error) if error.errno() != libc::EBUSY => return Err(with_advice(error)),
            Err(_) if begun.elapsed() >= BUSY_LIMIT => return Err(busy(mountpoint)),
            Err(_) => std::thread::sleep(PACE),
            Ok(()) => return Ok(()),
        }
    }
}

/// The mount point of one of our mounts, dead or alive.
fn find(path: &Path) -> Result<PathBuf> {
    let mountpoint = mountpoint::resolve(path)?;
    let mount = mountinfo::at(&mountpoint)?;
    if mount.as_ref().is_some_and(mountinfo::Mount::is_ours) {
        return Ok(mountpoint);
    }
    let what = match mount {
        Some(mount) => format!(
            "what is mounted on {} is not rdmfs's ({})",
            mountpoint.display(),
            mount.fs_type
        ),
        None => format!("nothing is mounted on {}", mountpoint.display()),
    };
    Err(Error::new(Kind::NotFound, what).with_advice("rdmfs status lists what is mounted."))
}

/// Waits until nothing moves any more, and returns the last status seen.
fn wait_for_uploads(mountpoint: &Path, mut status: Box<Status>) -> Result<Box<Status>> {
    if status.moving_uploads() > 0 {
        terminal::note(format_args!(
            "waiting for {} uploads (Ctrl-C leaves it mounted; --now would keep them for the next mount)",
            status.moving_uploads()
        ));
    }
    let mut progress = Progress::new();
    while status.moving_uploads() > 0 {
        progress.update(&[Seen::of("", &status)]);
        std::thread::sleep(PACE);
        status = match probe::ask(mountpoint)? {
            Answer::Status(status) => status,
            other => return Err(no_answer(mountpoint, &format!("{other:?}"))),
        };
    }
    // Whoever saw them on their way sees them arrive.
    progress.update(&[Seen::of("", &status)]);
    Ok(status)
}

fn tell_what_is_left(status: &Status) {
    for upload in &status.uploads {
        terminal::note(format_args!(
            "not uploaded: {}: {}",
            progress::file(upload),
            progress::describe(upload)
        ));
    }
    if status.uploads.is_empty() {
        return;
    }
    terminal::note(format_args!(
        "{} files are kept in {} (rdmfs uploads lists them)",
        status.uploads.len(),
        status.staging.display(),
    ));
    for line in what_to_decide(&status.uploads) {
        terminal::note(line);
    }
}

/// The commands for what will not go by itself.
fn what_to_decide(uploads: &[Upload]) -> Vec<String> {
    let ids = |state: UploadState| -> Option<String> {
        let ids: Vec<String> = uploads
            .iter()
            .filter(|upload| upload.state == state)
            .map(|upload| upload.id.to_string())
            .collect();
        (!ids.is_empty()).then(|| ids.join(" "))
    };
    let mut lines = Vec::new();
    if let Some(ids) = ids(UploadState::Refused) {
        lines.push(format!(
            "refused ones wait for you to correct what the repository names; then, mounted again: \
             rdmfs uploads retry {ids} (or: discard {ids})"
        ));
    }
    if let Some(ids) = ids(UploadState::Unclosed) {
        lines.push(format!(
            "files that were never closed are not sent; rdmfs uploads recover --unclosed ID copies what was written, \
             and, mounted again, rdmfs uploads discard {ids} drops it"
        ));
    }
    lines
}

fn no_answer(mountpoint: &Path, reason: &str) -> Error {
    let shown = mountpoint.display();
    Error::new(
        Kind::TimedOut,
        format!("the daemon of {shown} does not say whether uploads are done: {reason}"),
    )
    .with_advice(format!(
        "Its log may tell why. rdmfs unmount --now {shown} does not ask; what has not arrived is kept."
    ))
}

fn with_advice(error: Error) -> Error {
    if error.errno() == libc::EPERM {
        error.with_advice("Only the user who mounted it, or root, may unmount it.")
    } else {
        error
    }
}

fn busy(mountpoint: &Path) -> Error {
    let shown = mountpoint.display();
    let users = processes_in(mountpoint);
    let by = if users.is_empty() {
        String::new()
    } else {
        format!(" by {}", users.join(", "))
    };
    Error::new(Kind::Local(libc::EBUSY), format!("{shown} is in use{by}"))
        .with_advice("Close the files and leave the folders in it (cd elsewhere), then try again.")
}

/// Names the processes that have something open in a mount, as far as /proc lets us see. Only links are read, so
/// the mount itself is not asked.
fn processes_in(mountpoint: &Path) -> Vec<String> {
    let Ok(processes) = Path::new("/proc").read_dir() else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter(|process| process.file_name().to_string_lossy().parse::<u32>().is_ok())
        .filter(|process| uses(&process.path(), mountpoint))
        .map(|process| {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            format!("{} ({})", name.trim(), process.file_name().to_string_lossy())
        })
        .collect()
}

fn uses(process: &Path, mountpoint: &Path) -> bool {
    let inside = |link: PathBuf| {
        link.read_link()
            .is_ok_and(|target| target.starts_with(mountpoint))
    };
    ["cwd", "root", "exe"]
        .iter()
        .any(|name| inside(process.join(name)))
        || ["fd", "map_files"]
            .iter()
            .filter_map(|folder| process.join(folder).read_dir().ok())
            .flat_map(Iterator::flatten)
            .any(|entry| inside(entry.path()))
}

fn open_process(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    // A daemon of another container can't be seen, and is not waited for.
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Whether a process ends within [`END_LIMIT`].
fn ends(process: &OwnedFd) -> bool {
    let until = Instant::now() + END_LIMIT;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let limit = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&limit)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            // Can't be waited for; the unmount itself is done.
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_will_not_go_by_itself_is_told_with_its_commands() {
        let upload = |id, state| Upload {
            id,
            draft: "abc".into(),
            key: "a".into(),
            state,
            sent: 0,
            size: 1,
            tries: 1,
            next_try: None,
            reason: None,
            kept: PathBuf::new(),
        };
        assert!(what_to_decide(&[upload(1, UploadState::Waiting)]).is_empty());
        let lines = what_to_decide(&[
            upload(1, UploadState::Refused),
            upload(2, UploadState::Refused),
            upload(3, UploadState::Unclosed),
        ]);
        assert!(lines[0].contains("rdmfs uploads retry 1 2"), "{lines:?}");
        assert!(lines[1].contains("rdmfs uploads discard 3"), "{lines:?}");
    }

    #[test]
    fn a_process_that_has_a_folder_open_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let _open = std::fs::File::open(folder.path()).unwrap();
        let users = processes_in(folder.path());
        assert!(
            users
                .iter()
                .any(|user| user.contains(&std::process::id().to_string())),
            "{users:?}"
        );
    }

    #[test]
    fn a_process_that_is_gone_needs_no_waiting() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let handle = open_process(child.id()).unwrap();
        child.wait().unwrap();
        assert!(ends(&handle));
    }
}
