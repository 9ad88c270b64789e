//! From a status and a body to an error: what the server's own words mean for the user.
//!
//! Called by `transport` and `upload` for every answer that is no success. It knows the messages InvenioRDM sends
//! (API notes, section 1) and doubts everything else: an HTML page, an empty message, a body of any length.

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde_json::Value;

use super::model::{FieldError, field_errors};
use super::pacing;
use crate::error::{Error, Kind};

/// Longer messages are cut; nobody reads them and they fill logs.
const LONGEST_MESSAGE: usize = 600;

/// Whether the body is a page for people.
pub(super) fn is_html(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| {
            let kind = kind.trim_start().to_ascii_lowercase();
            kind.starts_with("text/html") || kind.starts_with("application/xhtml")
        })
}

/// The error for an answer that is no success. `doing` is what was asked for: `"read record abcde-12345"`.
pub(super) fn refusal(doing: &str, status: u16, headers: &HeaderMap, body: &[u8]) -> Error {
    let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let given = value.get("message").and_then(Value::as_str);
    let message = given.unwrap_or_default();
    let problems = field_errors(value.get("errors").unwrap_or(&Value::Null));
    let words = words(status, message, &problems, &value);

    // Without any `errors`, an empty message means something else: a draft under review (version 12), a second request.
    let uncurated = status == 400 && given == Some("") && !problems.is_empty() && says_nothing(&problems);
    let kind = match status {
        400 if uncurated => Kind::NotReady,
        405 | 406 => Kind::NotSupported,
        400 | 409 | 415 | 422 => kind_of_words(message, &problems),
        401 | 403 | 407 | 451 => Kind::Denied,
        404 | 410 => Kind::NotFound,
        408 => Kind::TimedOut,
        412 => Kind::Changed,
        413 => Kind::TooLarge,
        429 => Kind::RateLimited,
        507 => Kind::Quota,
        _ => Kind::ServerFailed,
    };
    let pause = pacing::pause_asked_for(status, headers).filter(|_| matches!(status, 429 | 503));
    let reason = match pause {
        Some(pause) if status == 429 => format!(
            ": the rate limit is used up for another {:.0} s",
            pause.as_secs_f64().ceil()
        ),
        _ => reason(status, uncurated, &words),
    };
    let mut error = Error::new(kind, format!("can't {doing}{reason}"));
    if !words.is_empty() {
        error = error.with_server(words);
    }
    if let Some(advice) = advice(status, kind, uncurated, headers, message) {
        error = error.with_advice(advice);
    }
    if let Some(pause) = pause {
        error = error.with_retry_after(pause);
    }
    if !uncurated {
        let besides = self::words(status, message, &[], &value);
        error = error.with_fields_of_words(problems, besides);
    }
    if !is_own(status, headers, &value) {
        error = error.from_elsewhere();
    }
    error
}

/// Whether it is the repository that refuses, in the form in which it does. Limiters before it speak for it.
fn is_own(status: u16, headers: &HeaderMap, value: &Value) -> bool {
    let is_word = value.get("message").is_some() || value.get("status").is_some();
    status == 429 || (status != 407 && !is_html(headers) && is_word)
}

/// The error for a success that is no answer.
pub(super) fn not_json(doing: &str, headers: &HeaderMap) -> Error {
    let what = if is_html(headers) {
        "an HTML page came where JSON was due"
    } else {
        "the answer is no JSON"
    };
    Error::new(Kind::ServerFailed, format!("can't {doing}: {what}")).from_elsewhere()
}

/// The server's words, with the field errors behind them.
fn words(status: u16, message: &str, problems: &[FieldError], value: &Value) -> String {
    let mut words = message.trim().to_owned();
    for problem in problems {
        let text = problem.messages.join(" ");
        if text == "." {
            continue; // TU Wien's way of saying nothing.
        }
        if !words.is_empty() {
            words.push_str("; ");
        }
        if !problem.field.is_empty() {
            words.push_str(&problem.field);
            words.push_str(": ");
        }
        words.push_str(&text);
    }
    if status == 410
        && let Some(note) = value.pointer("/tombstone/note").and_then(Value::as_str)
        && !note.is_empty()
    {
        words.push_str(": ");
        words.push_str(note);
    }
    if let Some(id) = value.get("error_id").and_then(Value::as_str) {
        words.push_str(&format!(" (error id {id})"));
    }
    printable(&words)
}

/// One line without control characters: this goes to terminals and logs.
fn printable(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST_MESSAGE)
        .collect();
    if text.chars().nth(LONGEST_MESSAGE).is_some() {
        line.push('…');
    }
    line
}

fn kind_of_words(message: &str, problems: &[FieldError]) -> Kind {
    let says = |part: &str| {
        message.contains(part)
            || problems
                .iter()
                .any(|p| p.messages.iter().any(|text| text.contains(part)))
    };
    if says("not completed their transfer") {
        Kind::NotReady
    } else if says("upload transfer failed") {
        Kind::ServerFailed // Version 12 says so with a 400, later ones within a 200; the file is gone either way.
    } else if says("quota exceeded") {
        Kind::Quota
    } else if says("Maximum file size exceeded") || says("Logo size limit exceeded") {
        Kind::TooLarge
    } else if says("max amount per record") {
        Kind::TooMany
    } else {
        Kind::Refused
    }
}

/// TU Wien refuses to publish without an accepted curation request with an empty message and an error on a title that is
/// fine: `{"message": "", "errors": [{"field": "metadata.title", "messages": ["."]}]}` (API notes, section 9).
fn says_nothing(problems: &[FieldError]) -> bool {
    problems
        .iter()
        .all(|p| p.messages.iter().all(|text| text == "." || text.is_empty()))
}

/// What to say beside, or instead of, the server's words.
fn reason(status: u16, uncurated: bool, words: &str) -> String {
    match status {
        410 => ": it was deleted".into(),
        _ if uncurated => ": its curation is not accepted yet".into(),
        400 if words.is_empty() => ": the repository refuses it and does not say why".into(),
        _ if words.is_empty() => format!(": the repository answered {status}"),
        _ => String::new(),
    }
}

fn advice(
    status: u16,
    kind: Kind,
    uncurated: bool,
    headers: &HeaderMap,
    message: &str,
) -> Option<&'static str> {
    match status {
        403 if is_html(headers) => Some(
            "Something before the repository blocks this program (its name or your address); wait a while, set another \
             user agent, or ask the repository's operators.",
        ),
        403 if message.contains("Bucket is locked") => {
            Some("The files of a published record never change; make a new version of it instead.")
        }
        403 if message.contains("Files are not enabled") => {
            Some("The draft is marked as metadata-only; set files.enabled in its record.json to true.")
        }
        407 => Some("The proxy wants a user name and password; put them into the proxy variable."),
        400 if uncurated => Some(
            "This repository publishes a draft only after a reviewer accepted its curation request; \
             submit one in its web interface.",
        ),
        400 if kind == Kind::NotReady => Some(
            "Wait until all uploads are done (rdmfs status); a file that was started and never sent has to be deleted.",
        ),
        400 if message.starts_with("Invalid value ") => Some(
            "Correct the value if the vocabulary has no such entry; the repository says the same if the draft was changed by \
             another program at the same moment.",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(status: u16, body: &Value) -> Error {
        refusal(
            "publish draft abcde-12345",
            status,
            &HeaderMap::new(),
            body.to_string().as_bytes(),
        )
    }

    #[test]
    fn each_answer_of_the_servers_has_its_kind() {
        for (status, message, kind) in [
            (400, "Bucket quota exceeded.", Kind::Quota),
            (400, "Maximum file size exceeded.", Kind::TooLarge),
            (
                400,
                "Uploading selected files will result in exceeding the max amount per record.",
                Kind::TooMany,
            ),
            (400, "Filename is too long.", Kind::Refused),
            (400, "Invalid value nope.", Kind::Refused),
            (401, "", Kind::Denied),
            (403, "Permission denied.", Kind::Denied),
            (403, "Bucket is locked for modifications.", Kind::Denied),
            (404, "The persistent identifier does not exist.", Kind::NotFound),
            (
                412,
                "Revision id provided(99) doesn't match record's one(5)",
                Kind::Changed,
            ),
            (
                413,
                "The data value transmitted exceeds the capacity limit.",
                Kind::TooLarge,
            ),
            (429, "5 per 1 minute", Kind::RateLimited),
            (
                500,
                "The server encountered an internal error",
                Kind::ServerFailed,
            ),
            (502, "", Kind::ServerFailed),
        ] {
            let error = refused(status, &json!({"status": status, "message": message}));
            assert_eq!(error.kind(), kind, "{status} {message}");
            assert_eq!(error.server_message().unwrap_or_default(), message);
        }
    }

    #[test]
    fn field_errors_stand_behind_the_message() {
        let error = refused(
            400,
            &json!({"status": 400, "message": "A validation error occurred.",
                    "errors": [{"field": "metadata.title", "messages": ["Shorter than minimum length 3."]}]}),
        );
        assert_eq!(
            error.to_string(),
            "can't publish draft abcde-12345: the repository says \"A validation error occurred.; metadata.title: \
             Shorter than minimum length 3.\""
        );
    }

    #[test]
    fn an_empty_refusal_to_publish_is_a_missing_curation() {
        let error = refused(
            400,
            &json!({"status": 400, "message": "", "errors": [{"field": "metadata.title", "messages": ["."]}]}),
        );
        assert_eq!(error.kind(), Kind::NotReady);
        assert!(error.to_string().contains("curation"), "{error}");
        assert!(error.advice().contains("reviewer"));
    }

    #[test]
    fn pending_files_are_not_ready() {
        let error = refused(
            400,
            &json!({"message": "A validation error occurred.", "errors": [{"field": "files",
                "messages": ["One or more files have not completed their transfer, please wait."]}]}),
        );
        assert_eq!(error.kind(), Kind::NotReady);
    }

    #[test]
    fn a_tombstone_tells_why() {
        let error = refused(
            410,
            &json!({"status": 410, "message": "Record deleted", "tombstone": {"note": "spam"}}),
        );
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(
            error.to_string().contains("deleted") && error.to_string().contains("spam"),
            "{error}"
        );
    }

    #[test]
    fn a_page_for_people_is_no_message() {
        let headers: HeaderMap = [(CONTENT_TYPE, "text/html; charset=utf-8".parse().unwrap())]
            .into_iter()
            .collect();
        let error = refusal("search", 403, &headers, b"<html>unusual traffic</html>");
        assert_eq!(error.kind(), Kind::Denied);
        assert_eq!(error.server_message(), None);
        assert!(error.advice().contains("user agent"));
    }

    #[test]
    fn only_the_repositorys_own_form_is_its_word() {
        let html: HeaderMap = [(CONTENT_TYPE, "text/html".parse().unwrap())]
            .into_iter()
            .collect();
        let json: HeaderMap = [(CONTENT_TYPE, "application/json".parse().unwrap())]
            .into_iter()
            .collect();
        let word = br#"{"status": 403, "message": "Permission denied."}"#.as_slice();
        for (status, headers, body, is_foreign) in [
            (403, &json, word, false),
            (404, &json, word, false),
            (429, &html, b"<html>".as_slice(), false),
            (403, &html, b"<html>", true),
            (404, &html, word, true),
            (407, &json, word, true),
            (451, &json, b"{}", true),
            (502, &json, b"", true),
        ] {
            let error = refusal("read it", status, headers, body);
            assert_eq!(error.is_foreign(), is_foreign, "{status}");
        }
        assert!(not_json("read it", &html).is_foreign());
    }

    #[test]
    fn a_message_is_one_short_line_without_control_characters() {
        let error = refused(
            500,
            &json!({"message": format!("a\n\u{1b}[31m{}", "x".repeat(5000))}),
        );
        let shown = error.to_string();
        assert!(!shown.contains(['\n', '\u{1b}']) && shown.len() < 1000);
    }
}
