//! Asks a mount for its status without the risk of hanging with it.
//!
//! A program that waits for a stuck FUSE daemon may not even be killable, and a thread in that state keeps its whole
//! process from ending. So a child process does the reading; past the limit it is left behind, and the command goes
//! on. The child is this program with the hidden command `peek`.

use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::cli::terminal;
use crate::error::{Error, Result};
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
    let mut child = Command::new("/proc/self/exe")
        .arg("peek")
        .arg(mountpoint)
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
        let _ = sender.send((bytes, code));
    });
    Ok(match receiver.recv_timeout(LIMIT) {
        Err(_) => Answer::Stuck,
        Ok((bytes, Some(0))) => match serde_json::from_slice(&bytes) {
            Ok(status) => Answer::Status(status),
            Err(error) => Answer::Failed(format!("its status can't be understood ({error})")),
        },
        Ok((_, Some(libc::ENOTCONN))) => Answer::Dead,
        Ok((_, Some(libc::EACCES | libc::EPERM))) => Answer::NotAllowed,
        Ok((_, Some(errno))) => Answer::Failed(std::io::Error::from_raw_os_error(errno).to_string()),
        Ok((_, None)) => Answer::Failed("the process that looked at it was killed".into()),
    })
}

/// The child's side: copies the status to stdout; the exit code is the errno.
pub fn peek(mountpoint: &Path) -> ExitCode {
    match std::fs::read_to_string(mountpoint.join(".rdmfs/status.json")) {
        Ok(text) => {
            terminal::print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            ExitCode::from(u8::try_from(errno).unwrap_or(u8::MAX))
        }
    }
}
