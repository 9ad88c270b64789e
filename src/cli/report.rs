//! What the daemon's processes tell the one that started them, one line of JSON through a pipe, and how they log.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};

/// How the start went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The mount answers.
    Ready,
    /// It does not, and why.
    Failed {
        /// Decides the exit code.
        kind: Kind,
        /// What happened, whole.
        what: String,
        /// What the user can do.
        advice: String,
    },
}

impl Report {
    /// A failed start.
    #[must_use]
    pub fn failed(error: &Error) -> Self {
        Report::Failed {
            kind: error.kind(),
            what: error.to_string(),
            advice: error.advice().to_owned(),
        }
    }

    /// The error that made it fail, as it was on the other side.
    #[must_use]
    pub fn into_error(self) -> Option<Error> {
        match self {
            Report::Ready => None,
            Report::Failed { kind, what, advice } => Some(Error::new(kind, what).with_advice(advice)),
        }
    }

    /// Sends it down a pipe.
    ///
    /// # Errors
    /// If nobody is at the other end any more.
    pub fn send(&self, mut pipe: impl Write) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        pipe.write_all(&line)?;
        pipe.flush()
    }

    /// Waits for one. `None` if the other side ended without.
    #[must_use]
    pub fn receive(mut pipe: impl BufRead) -> Option<Self> {
        let mut line = String::new();
        pipe.read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }
}

/// Logs to stderr, which is the terminal in the foreground and the log file behind it. What other libraries say is
/// shown from warnings on.
pub fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => log::LevelFilter::Info,
        1 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    let logger = env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .filter_module("rdmfs", level)
        .format_target(false)
        .try_init();
    // A logger that is there already serves as well.
    drop(logger);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_arrives_as_it_was_sent() {
        let error = Error::new(Kind::Local(libc::EBUSY), "in use\nby another")
            .with_server("no")
            .with_advice("wait");
        let mut pipe = Vec::new();
        Report::failed(&error).send(&mut pipe).unwrap();
        let arrived = Report::receive(&pipe[..]).unwrap().into_error().unwrap();
        assert_eq!(arrived.kind(), error.kind());
        assert_eq!(arrived.to_string(), error.to_string());
        assert_eq!(arrived.advice(), "wait");
    }

    #[test]
    fn a_pipe_that_ends_early_is_no_report() {
        assert_eq!(Report::receive(&b""[..]), None);
        assert_eq!(Report::receive(&b"{\"Rea"[..]), None);
    }
}
