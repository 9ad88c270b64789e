//! What the commands print, and how an error ends one.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use crate::error::{Error, Kind};

/// Prints to stdout. A reader that has seen enough (`rdmfs status | head -1`) ends the command quietly, where
/// `print!` would panic.
pub fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .is_err()
    {
        std::process::exit(0);
    }
}

/// Prints a line to stdout.
pub fn say(line: impl Display) {
    print(&format!("{line}\n"));
}

/// Prints a line to stderr. That nobody reads it is no reason to stop.
pub fn note(line: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "rdmfs: {line}");
}

/// Prints an error with its advice, and says how the command ends: 2 for wrong usage, 1 for the rest.
pub fn fail(error: &Error) -> ExitCode {
    note(error);
    if !error.advice().is_empty() {
        let _ = writeln!(std::io::stderr().lock(), "       {}", error.advice());
    }
    if error.kind() == Kind::Usage {
        ExitCode::from(2)
    } else {
        ExitCode::FAILURE
    }
}
