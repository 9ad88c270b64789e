//! What the commands that decide something share: asking before it is done, and telling why it was refused.
//!
//! Used by `cli/` alone. Nothing is asked in a script: without a terminal, `--yes` is the answer or nothing is done.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::terminal::{self, printable};
use crate::error::{Error, FieldError, Result};

/// `--json`, for all commands that print something.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Output {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// `--yes`, for what can't be undone.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Consent {
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
}

impl Consent {
    /// Asks a person, unless `--yes` was given. A `no` is noted here: the command ends with exit code 1.
    ///
    /// # Errors
    /// `Usage` if there is nobody to ask.
    pub fn to(self, question: &str) -> Result<bool> {
        if self.yes || terminal::ask(question)? {
            return Ok(true);
        }
        terminal::note("nothing was done");
        Ok(false)
    }
}

impl Output {
    /// Prints what was done: `value` for programs, `text` for people.
    pub fn say(self, value: &Value, text: impl std::fmt::Display) {
        if self.json {
            terminal::say(format_args!("{value:#}"));
        } else {
            terminal::say(text);
        }
    }

    /// Ends a command that got halfway: `done` for programs, with the error in the same object, `text` for people.
    pub fn end_halfway(self, done: Value, text: impl std::fmt::Display, error: &Error) -> ExitCode {
        if !self.json {
            terminal::say(text);
        }
        self.end_refused(done, error)
    }

    /// Ends a command that was refused: for programs, `known` and the error are one object.
    pub fn end_refused(self, known: Value, error: &Error) -> ExitCode {
        if self.json {
            let mut value = error_value(error);
            if let (Value::Object(value), Value::Object(known)) = (&mut value, known) {
                value.extend(known);
            }
            terminal::say(format_args!("{value:#}"));
        }
        terminal::fail(error)
    }

    /// Ends a command: for programs, an error is told on stdout too.
    ///
    /// # Errors
    /// The same.
    pub fn end(self, outcome: Result<ExitCode>) -> Result<ExitCode> {
        if let (true, Err(error)) = (self.json, &outcome) {
            terminal::say(format_args!("{:#}", error_value(error)));
        }
        outcome
    }
}

/// One line for each message of each field: `metadata.title: Missing data for required field.`
#[must_use]
pub fn field_lines(fields: &[FieldError]) -> Vec<String> {
    let line = |field: &str, message: &str| match field {
        "" => printable(message),
        field => format!("{}: {}", printable(field), printable(message)),
    };
    fields
        .iter()
        .flat_map(|one| one.messages.iter().map(move |message| line(&one.field, message)))
        .collect()
}

/// The same for programs.
#[must_use]
pub fn fields_value(fields: &[FieldError]) -> Value {
    fields
        .iter()
        .map(|one| json!({"field": one.field, "messages": one.messages}))
        .collect()
}

/// An error for programs.
#[must_use]
pub fn error_value(error: &Error) -> Value {
    json!({
        "error": error.to_string(),
        "kind": error.kind(),
        "message": error.server_message(),
        "advice": error.advice(),
        "fields": fields_value(error.fields()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_of_a_field_is_a_line_of_its_own_that_nothing_breaks() {
        let fields = [
            FieldError {
                field: "metadata.title".into(),
                messages: vec!["Missing data for required field.".into(), "Too\nshort".into()],
            },
            FieldError {
                field: String::new(),
                messages: vec!["No.".into()],
            },
        ];
        assert_eq!(
            field_lines(&fields),
            [
                "metadata.title: Missing data for required field.",
                "metadata.title: Too\\nshort",
                "No."
            ]
        );
    }
}
