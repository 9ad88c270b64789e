//! What the commands print, and how an error ends one.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use crate::cli::ask;
use crate::error::{Error, Kind, Result};

/// Prints to stdout. A reader that has seen enough (`rdmfs status | head -1`) ends the command quietly, where
/// `print!` would panic; a full disk ends it with an error. A terminal gets no character that it would obey.
pub fn print(text: &str) {
    if std::io::stdout().is_terminal() {
        print_bytes(harmless(text).as_bytes());
    } else {
        print_bytes(text.as_bytes());
    }
}

/// Prints bytes to stdout as they are, and ends the command as [`print`] does.
pub fn print_bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            note(format_args!("can't write what was asked for: {error}"));
            std::process::exit(1);
        }
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
        if is_obeyed(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A text of several lines with nothing in it that a terminal obeys, in the notation that JSON has for it.
fn harmless(text: &str) -> Cow<'_, str> {
    let is_bad = |c: char| is_obeyed(c) && !matches!(c, '\n' | '\t');
    if !text.contains(is_bad) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_bad(c) {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            shown.push(c);
        }
    }
    shown.into()
}

/// Whether a terminal does something about a character instead of showing it: control characters, and those that turn the
/// direction of what follows, so that a line reads as what it is not.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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

    #[test]
    fn what_turns_the_direction_of_a_line_is_shown_and_scripts_from_right_to_left_stay() {
        assert_eq!(
            printable("invoice\u{202e}gpj.exe שלום 👩\u{200d}🔬"),
            "invoice\\u{202e}gpj.exe שלום 👩\u{200d}🔬"
        );
    }

    #[test]
    fn json_for_a_terminal_stays_json_and_holds_nothing_that_is_obeyed() {
        let value = serde_json::json!({"title": "a\u{9b}2J\u{7f}\u{202e}\u{1b}[31m", "é": [1, 2]});
        let shown = harmless(&format!("{value:#}")).into_owned();
        assert!(!shown.chars().any(|c| is_obeyed(c) && c != '\n'), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
