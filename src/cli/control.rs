//! Tells a running mount to do something, through `.rdmfs/control`.
//!
//! One write of one line `VERB ARGUMENT` is a command; if it fails, the write fails. What is read from the same
//! descriptor says what became of it. As in `probe`, a child process does both (the hidden command `tell`), so that a
//! stuck daemon hangs nobody; the daemon decides what a command means, here it is only carried.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::cli::probe::{self, Answer, Said};
use crate::cli::terminal;
use crate::error::{Error, Kind, Result};

/// How long a daemon that still says how it is may take for a command: stopping a running upload takes up to 90 s.
const LONGEST: Duration = Duration::from_secs(120);
/// No reply is longer.
const REPLY_LIMIT: usize = 1 << 20;

/// What the daemon says of the last command.
#[derive(Deserialize)]
struct Reply {
    ok: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    advice: String,
    /// What else it says.
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// Sends one command and waits until it is done: as long as the daemon says how it is, for [`LONGEST`] at most.
///
/// # Errors
/// What the daemon says of it, with its advice; `TimedOut` if it says nothing.
pub fn send(mountpoint: &Path, line: &str) -> Result<()> {
    ask(mountpoint, line).map(drop)
}

/// As [`send`], and returns what the daemon says besides that it is done.
///
/// # Errors
/// As for [`send`].
pub fn ask(mountpoint: &Path, line: &str) -> Result<Map<String, Value>> {
    let shown = mountpoint.display();
    let child = probe::start(&["tell".as_ref(), mountpoint.as_os_str(), line.as_ref()])?;
    let began = Instant::now();
    loop {
        if let Ok(said) = child.recv_timeout(probe::LIMIT) {
            return understand(mountpoint, &said);
        }
        let is_well = matches!(probe::ask(mountpoint)?, Answer::Status(_));
        if !is_well || began.elapsed() > LONGEST {
            return Err(Error::new(
                Kind::TimedOut,
                format!(
                    "the daemon of {shown} did not answer within {} s",
                    began.elapsed().as_secs()
                ),
            )
            .with_advice("It may still do it; rdmfs uploads shows how things are. Its log may tell why."));
        }
    }
}

fn understand(mountpoint: &Path, said: &Said) -> Result<Map<String, Value>> {
    let shown = mountpoint.display();
    let reply = serde_json::from_slice::<Reply>(&said.bytes).ok();
    match (said.code, reply) {
        (Some(0), None) => Ok(Map::new()),
        (Some(0), Some(Reply { ok: true, more, .. })) => Ok(more),
        (
            code,
            Some(Reply {
                ok: false,
                error,
                advice,
                ..
            }),
        ) => {
            let errno = code.filter(|&code| code != 0).unwrap_or(libc::EIO);
            Err(Error::new(Kind::Local(errno), error).with_advice(advice))
        }
        (Some(libc::ENOENT), _) => Err(Error::new(
            Kind::NotFound,
            format!("the daemon of {shown} takes no commands"),
        )
        .with_advice(format!(
            "It is of another version than this program: rdmfs unmount {shown}, then mount it again."
        ))),
        (Some(libc::ENOTCONN | libc::ECONNABORTED), _) => Err(Error::new(
            Kind::NotFound,
            format!("the daemon of {shown} is gone"),
        )
        .with_advice("Mount it again; what was written and not sent is kept.")),
        (Some(libc::EACCES | libc::EPERM), _) => Err(Error::new(
            Kind::Denied,
            format!("the mount on {shown} belongs to another user"),
        )
        .with_advice("Only the user who mounted it may do that.")),
        (Some(errno), _) => Err(Error::local(
            format!("the daemon of {shown}"),
            &io::Error::from_raw_os_error(errno),
        )),
        (None, _) => Err(Error::new(
            Kind::Internal,
            format!("the process that spoke to the mount on {shown} was killed"),
        )),
    }
}

/// The child's side: writes the line and copies the reply to stdout; the exit code is the errno.
pub fn tell(mountpoint: &Path, line: &str) -> ExitCode {
    match exchange(&mountpoint.join(".rdmfs/control"), line) {
        Ok((written, reply)) => {
            terminal::print(&String::from_utf8_lossy(&reply));
            written.map_or_else(|error| probe::exit_with(&error), |()| ExitCode::SUCCESS)
        }
        Err(error) => probe::exit_with(&error),
    }
}

/// What the write said, and what was read then.
fn exchange(path: &Path, line: &str) -> io::Result<(io::Result<()>, Vec<u8>)> {
    let mut control = OpenOptions::new().read(true).write(true).open(path)?;
    // One write is one command.
    let written = control.write(format!("{line}\n").as_bytes()).map(drop);
    let mut reply = vec![0; REPLY_LIMIT];
    let mut length = 0;
    while length < reply.len() {
        match control.read_at(&mut reply[length..], length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What the write said is known all the same.
            Err(_) => break,
        }
    }
    reply.truncate(length);
    Ok((written, reply))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(code: Option<i32>, reply: &str) -> Result<()> {
        let said = Said {
            bytes: reply.into(),
            code,
        };
        understand(Path::new("/mnt"), &said).map(drop)
    }

    #[test]
    fn one_line_is_written_and_what_is_there_is_read_from_the_start() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (written, read) = exchange(file.path(), "retry 7").unwrap();
        written.unwrap();
        assert_eq!(read, b"retry 7\n");
        assert!(exchange(Path::new("/nonexistent/control"), "retry 7").is_err());
    }

    #[test]
    fn what_the_daemon_did_is_done() {
        outcome(Some(0), "{\"ok\": true}").unwrap();
        outcome(Some(0), "").unwrap();
    }

    #[test]
    fn why_it_did_not_is_told_with_its_advice() {
        let reply = r#"{"ok": false, "error": "no upload has the number 9", "advice": "Look again."}"#;
        let error = outcome(Some(libc::EINVAL), reply).unwrap_err();
        assert_eq!(error.to_string(), "no upload has the number 9");
        assert_eq!(error.advice(), "Look again.");
        assert_eq!(error.errno(), libc::EINVAL);
        // A write that seems to succeed doesn't hide what the daemon says.
        assert!(outcome(Some(0), reply).is_err());
    }

    #[test]
    fn a_daemon_without_the_file_a_dead_one_and_another_users_are_told_apart() {
        for (code, said) in [
            (Some(libc::ENOENT), "takes no commands"),
            (Some(libc::ENOTCONN), "is gone"),
            (Some(libc::EACCES), "another user"),
            (None, "was killed"),
        ] {
            let error = outcome(code, "").unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
