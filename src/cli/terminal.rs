//! What the commands print, and how an error ends one.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use crate::cli::ask;
use crate::error::{Error, Kind, Result};

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

/// Prints bytes to stdout, as [`print`] does.
pub fn print_bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err() {
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

/// Prints a line to stderr as it is: one of several that belong to a note.
pub fn complain(line: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Prints a text to stderr, before a question about it.
pub fn tell(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// A name or a server's words as they can be shown: a control character in them must neither break a line nor reach
/// the terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Whether a person watches both what is said and what is noted.
#[must_use]
pub fn is_watched() -> bool {
    std::io::stdout().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks a person a question that only `yes` answers with yes.
///
/// # Errors
/// `Usage` if there is no person to ask; `--yes` is what a script says instead.
pub fn ask(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Error::new(
            Kind::Usage,
            "there is no terminal to ask on, and nothing was done",
        )
        .with_advice("Give --yes to do it without being asked."));
    }
    let _ = write!(std::io::stderr().lock(), "{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Error::local("can't read the answer", &error))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Prints an error with what was said of single fields and its advice, and says how the command ends: 2 for wrong usage, 1 for the rest.
pub fn fail(error: &Error) -> ExitCode {
    note(error.without_fields());
    ask::field_lines(error.fields()).iter().for_each(complain);
    if !error.advice().is_empty() {
        let _ = writeln!(std::io::stderr().lock(), "       {}", error.advice());
    }
    if error.kind() == Kind::Usage {
        ExitCode::from(2)
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_letters_stay() {
        assert_eq!(
            printable("Größe\n\u{1b}[2J\t\u{9b}.csv"),
            "Größe\\n\\u{1b}[2J\\t\\u{9b}.csv"
        );
    }
}
