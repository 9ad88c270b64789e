//! `rdmfs api`: any endpoint of the repository, with the token, the limits and the retries of everything else.
//!
//! The body is printed as it came, so that it can be piped on. It does what it is told and asks nobody.

use std::fs;
use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;

use crate::cli::server::connection_advice;
use crate::cli::target::{Access, Place};
use crate::cli::{tell, terminal};
use crate::error::{Error, Kind, Result};
use crate::repository::{AnyAnswer, AnyCall};

/// Call any endpoint of the repository's API, with your token, within its limits
#[derive(Args)]
#[command(after_help = EXAMPLES, allow_missing_positional = true)]
pub struct Arguments {
    /// GET, POST, PUT, PATCH, DELETE or HEAD [default: GET, or POST with --data]
    method: Option<String>,
    /// The path below /api, such as records/abcde-12345/draft, or a link to the API in one of its answers
    path: String,
    /// What to send: the text itself, @FILE, or - for stdin
    #[arg(short, long, value_name = "TEXT|@FILE|-", allow_hyphen_values = true)]
    data: Option<String>,
    /// A header, also in place of those that say that JSON is sent and wanted; can be given often
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Print the status and the headers of the answer too
    #[arg(short, long)]
    include: bool,
    /// Get all pages of a list, and print one after the other
    #[arg(long)]
    paginate: bool,
    #[command(flatten)]
    access: Access,
}

const EXAMPLES: &str = "\
Examples:
  rdmfs api GET records/abcde-12345 | jq .metadata.title
  rdmfs api GET 'user/records?q=ozone' --paginate | jq -r '.hits.hits[].id'
  rdmfs api PUT records/abcde-12345/draft --data @record.json
  rdmfs api GET records/abcde-12345 -H 'Accept: application/x-bibtex'
  rdmfs api DELETE records/abcde-12345/draft/pids/doi

The file that a record shows first is a field of its draft's JSON, like all of its files' settings:
  jq '.files.default_preview = \"figure.png\"' record.json > new && mv new record.json

Nothing is asked, whatever the request does. An answer that is no success is printed all the same; the
exit code is 1 then, and stderr says why. What may have passed unseen (POST, PATCH) is not sent twice.
Files are read and written better in a mount: nothing is kept of what comes here, nor begun again.";

/// Runs the command.
///
/// # Errors
/// `Usage` for what is no request to the API; what kept the repository from answering.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let call = arguments.call()?;
    let place = Place::of(&arguments.access)?;
    let mut last = None;
    if arguments.paginate {
        place
            .repository
            .call_pages(&call, |page| {
                arguments.print(page);
                if !page.body.ends_with(b"\n") {
                    terminal::print("\n");
                }
                last = Some(page.clone());
                Ok(true)
            })
            .map_err(connection_advice)?;
    } else if call.method == "GET" && !std::io::stdout().is_terminal() {
        let mut body = place.repository.open_call(&call).map_err(connection_advice)?;
        arguments.print(&body.answer);
        while let Some(piece) = body.piece()? {
            terminal::print_bytes(&piece);
        }
        last = Some(body.answer);
    } else {
        let answer = place.repository.call(&call).map_err(connection_advice)?;
        if answer.is_success() && !matches!(call.method.as_str(), "GET" | "HEAD") {
            // Told first: who reads the answer may not read it to its end.
            let about = about(&call.path);
            let places: Vec<&str> = std::iter::once("").chain(about.as_deref()).collect();
            tell::changed_at(&place, &places);
        }
        arguments.print(&answer);
        last = Some(answer);
    }
    match last.as_ref().and_then(|answer| failure(&call, answer)) {
        Some(error) => Ok(terminal::fail(&error)),
        None => Ok(ExitCode::SUCCESS),
    }
}

impl Arguments {
    fn call(&self) -> Result<AnyCall> {
        let method = match (&self.method, &self.data) {
            (Some(method), _) => method.to_ascii_uppercase(),
            (None, Some(_)) => "POST".to_owned(),
            (None, None) => "GET".to_owned(),
        };
        if self.paginate && method != "GET" {
            return Err(Error::new(Kind::Usage, "only lists that are GET have pages"));
        }
        Ok(AnyCall {
            method,
            path: self.path.clone(),
            headers: self
                .headers
                .iter()
                .map(|text| header(text))
                .collect::<Result<_>>()?,
            body: self.data.as_deref().map(data).transpose()?,
        })
    }

    fn print(&self, answer: &AnyAnswer) {
        if self.include {
            terminal::say(answer.status);
            for (name, value) in &answer.headers {
                terminal::say(format_args!("{name}: {}", terminal::printable(value)));
            }
            terminal::print("\n");
        }
        if !std::io::stdout().is_terminal() {
            return terminal::print_bytes(&answer.body);
        }
        match (answer.json(), std::str::from_utf8(&answer.body)) {
            (Some(value), _) => terminal::say(format_args!("{value:#}")),
            (None, Ok(text)) if !text.contains('\0') => terminal::print(text),
            _ => terminal::note(format_args!(
                "{} bytes that are no text are not shown on a terminal; send them to a file (> FILE)",
                answer.body.len()
            )),
        }
    }
}

fn header(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once(':').ok_or_else(|| {
        Error::new(Kind::Usage, format!("{text:?} is no header"))
            .with_advice("Write it like 'Accept: application/json'.")
    })?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// What `--data` means: the text itself, `@FILE`, or `-` (`@-` too) for stdin.
///
/// # Errors
/// If the file can't be read.
pub fn data(text: &str) -> Result<Bytes> {
    match text.strip_prefix('@') {
        _ if text == "-" || text == "@-" => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .read_to_end(&mut bytes)
                .map_err(|error| Error::local("can't read what to send", &error))?;
            Ok(bytes.into())
        }
        Some(path) => fs::read(path)
            .map(Bytes::from)
            .map_err(|error| Error::local(format!("can't read {path}"), &error)),
        None => Ok(Bytes::copy_from_slice(text.as_bytes())),
    }
}

/// The place in a mount that a call may be about. What else it changed, only the server knows.
fn about(path: &str) -> Option<String> {
    let path = path.split(['?', '#']).next()?;
    let path = path.split_once("/api/").map_or(path, |(_, below)| below);
    let mut parts = path.trim_matches('/').split('/');
    let (kind, name) = (parts.next()?, parts.next()?);
    let is_plain = |name: &str| name.chars().all(|c| c.is_alphanumeric() || "-_.~".contains(c));
    (matches!(kind, "records" | "communities") && is_plain(name)).then(|| format!("{kind}/{name}"))
}

/// Why an answer is no success, in the server's words.
fn failure(call: &AnyCall, answer: &AnyAnswer) -> Option<Error> {
    let refusal = answer.refusal.as_ref()?;
    let path = call.path.split('?').next().unwrap_or_default();
    let what = format!("{} {}: {}", call.method, terminal::printable(path), answer.status);
    let error = Error::new(refusal.kind(), what)
        .with_fields(refusal.fields().to_vec())
        .with_advice(refusal.advice().to_owned());
    Some(match refusal.server_message() {
        Some(message) => error.with_server(message),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_is_about_is_read_from_its_path() {
        for (path, place) in [
            (
                "records/abcde-12345/draft?x=/api/y/z",
                Some("records/abcde-12345"),
            ),
            ("/api/communities/glaciers/rename", Some("communities/glaciers")),
            ("https://example.org/rdm/api/records/1/draft", Some("records/1")),
            ("records", None),
            ("communities/a%20b", None),
            ("user/records", None),
        ] {
            assert_eq!(about(path).as_deref(), place, "{path}");
        }
    }

    #[test]
    fn a_header_has_a_name_and_a_value() {
        assert_eq!(
            header("Accept:  text/csv; a:b").unwrap(),
            ("Accept".to_owned(), "text/csv; a:b".to_owned())
        );
        assert_eq!(header("nothing").unwrap_err().kind(), Kind::Usage);
    }
}
