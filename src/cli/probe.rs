//! Asks a mount for its status without the risk of hanging with it.
//!
//! A program that waits for a stuck FUSE daemon may not even be killable, and a thread in that state keeps its whole
//! process from ending. So a child process does the reading; past the limit it is left behind, and the command goes
//! on. The child is this program with the hidden command `peek`. `control` writes to mounts in the same way.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use crate::cli::mountinfo::Mount;
use crate::cli::terminal;
use crate::error::{Error, Kind, Result};
use crate::status::Status;

/// How long a daemon may take to say how it is. It does so from memory; a healthy one answers in milliseconds.
pub const LIMIT: Duration = Duration::from_secs(5);

/// What a mount answered.
#[derive(Debug)]
pub enum Answer {
    /// Its status.
    Status(Box<Status>),
    /// "Transport endpoint is not connected": the daemon is gone, the mount is left.
    Dead,
    /// It belongs to another user.
    NotAllowed,
    /// No answer within the limit.
    Stuck,
    /// Something else went wrong.
    Failed(String),
}

/// Reads `.rdmfs/status.json` below `mountpoint`, for [`LIMIT`] at most.
///
/// # Errors
/// If the child can't be started.
pub fn ask(mountpoint: &Path) -> Result<Answer> {
    let child = start(&["peek".as_ref(), mountpoint.as_os_str()])?;
    Ok(match child.recv_timeout(LIMIT) {
        Err(_) => Answer::Stuck,
        Ok(Said { bytes, code: Some(0) }) => match serde_json::from_slice(&bytes) {
            Ok(status) => Answer::Status(status),
            Err(error) => Answer::Failed(format!("its status can't be understood ({error})")),
        },
        Ok(Said { code, .. }) => match code {
            Some(libc::ENOTCONN) => Answer::Dead,
            Some(libc::EACCES | libc::EPERM) => Answer::NotAllowed,
            Some(errno) => Answer::Failed(std::io::Error::from_raw_os_error(errno).to_string()),
            None => Answer::Failed("the process that looked at it was killed".into()),
        },
    })
}

/// The status of a mount that has to answer.
///
/// # Errors
/// Why it does not: it has no daemon, belongs to somebody else, or is stuck.
pub fn status(mountpoint: &Path) -> Result<Box<Status>> {
    let place = mountpoint.display();
    let failed = |kind, what: String| Err(Error::new(kind, format!("{place} {what}")));
    match ask(mountpoint)? {
        Answer::Status(status) => Ok(status),
        Answer::Dead => failed(
            Kind::NotFound,
            format!("has no daemon; rdmfs unmount {place} takes it off"),
        ),
        Answer::NotAllowed => failed(Kind::Denied, "belongs to another user".into()),
        Answer::Stuck => failed(
            Kind::TimedOut,
            format!("does not answer within {} s", LIMIT.as_secs()),
        ),
        Answer::Failed(reason) => failed(Kind::Internal, format!("can't be asked: {reason}")),
    }
}

/// Asks several mounts at once, so that several stuck ones cost one time limit together.
///
/// # Errors
/// If a child can't be started.
pub fn ask_all(mounts: &[Mount]) -> Result<Vec<Answer>> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = mounts
            .iter()
            .map(|mount| scope.spawn(|| ask(&mount.mountpoint)))
            .collect();
        asked
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Error::new(Kind::Internal, "looking at a mount failed")))
            })
            .collect()
    })
}

/// How a child that touched a mount ended.
pub struct Said {
    /// What it printed.
    pub bytes: Vec<u8>,
    /// Its exit code, which is an errno unless it is 0; `None` if it was killed.
    pub code: Option<i32>,
}

/// Starts this program with one of the commands that touch a mount. Whoever waits decides how long; the child is never
/// waited for by dropping the receiver.
///
/// # Errors
/// If it can't be started.
pub fn start(arguments: &[&OsStr]) -> Result<Receiver<Said>> {
    let mut child = Command::new("/proc/self/exe")
        .args(arguments)
        // A child that stays behind must not hold the caller's directory or terminal.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Error::local("can't start a process to look at the mount", &error))?;
    let (sender, receiver) = mpsc::channel();
    let stdout = child.stdout.take();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stdout) = stdout {
            // An error here shows as a document that is no JSON.
            let _ = stdout.read_to_end(&mut bytes);
        }
        let code = child.wait().ok().and_then(|status| status.code());
        // Nobody listens any more after the limit.
        let _ = sender.send(Said { bytes, code });
    });
    Ok(receiver)
}

/// The child's side: copies the status to stdout; the exit code is the errno.
pub fn peek(mountpoint: &Path) -> ExitCode {
    match std::fs::read_to_string(mountpoint.join(".rdmfs/status.json")) {
        Ok(text) => {
            terminal::print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => exit_with(&error),
    }
}

/// The exit code by which a child tells its parent the errno.
#[must_use]
pub fn exit_with(error: &std::io::Error) -> ExitCode {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    ExitCode::from(u8::try_from(errno).unwrap_or(u8::MAX))
}
