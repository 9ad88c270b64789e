//! What is decided about a draft: its DOI, whether it is ready, and publishing it for sure.
//!
//! Called by `cli/`. What can't be undone is sent once; when its answer is lost, the state on the server tells what became of
//! it.

use std::time::Duration;

use reqwest::{Method, Url};
use serde_json::Value;

use super::Repository;
use super::model::{FieldError, FileEntry, FileStatus, Files, Record, RecordId};
use super::records::read_record;
use super::transport::Ask;
use crate::error::{Error, Kind, Result};

/// How often it is looked whether what has a lost answer was carried out; the pauses double up to [`LONGEST`]. That is
/// 75 s in all: a record with many files takes the server about a minute.
const LOOKS: u32 = 10;
/// The same after a 500: that is the server's own answer, and it is at it no longer.
const LOOKS_AT_500: u32 = 3;
/// The longest of these pauses, in first pauses.
const LONGEST: u32 = 60;

/// What became of a publish.
#[derive(Clone, Debug)]
pub enum Published {
    /// It was published by this call.
    Now(Record),
    /// There was no draft: it had been published before.
    Before(Record),
}

impl Published {
    /// The published record.
    #[must_use]
    pub fn record(&self) -> &Record {
        match self {
            Published::Now(record) | Published::Before(record) => record,
        }
    }
}

/// What is still in the way of publishing a draft.
#[derive(Clone, Debug)]
pub struct Check {
    /// The draft as it is.
    pub draft: Record,
    /// Fields that the server does not accept or misses.
    pub problems: Vec<FieldError>,
    /// Its files.
    pub files: Vec<FileEntry>,
    /// Files that were started and not committed.
    pub pending: Vec<FileEntry>,
    /// It has no files, and is not marked as metadata-only.
    pub lacks_files: bool,
}

impl Check {
    /// Whether nothing is in the way, as far as the repository tells beforehand. Reviews and curations are apart.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.problems.is_empty() && self.pending.is_empty() && !self.lacks_files
    }
}

impl Repository {
    /// Reserves a DOI for a draft, and gives the draft with it.
    ///
    /// # Errors
    /// `Refused` if it has one, `NotFound` (also for a published record), `Denied`, else as any request.
    pub fn reserve_doi(&self, id: &RecordId) -> Result<Record> {
        let doing = format!("reserve a DOI for draft {id}");
        let ask = Ask::new(Method::POST, self.doi_url(id)?, doing.as_str());
        self.ask_for_draft(ask, id, &doing, |draft| draft.doi().is_some())
    }

    /// Gives a reserved DOI back, and gives the draft without it.
    ///
    /// # Errors
    /// `NotFound` if none is reserved, `Refused` for one that is registered, `Denied`, else as any request.
    pub fn release_doi(&self, id: &RecordId) -> Result<Record> {
        let doing = format!("release the DOI of draft {id}");
        let ask = Ask::new(Method::DELETE, self.doi_url(id)?, doing.as_str());
        self.ask_for_draft(ask, id, &doing, |draft| draft.doi().is_none())
    }

    /// Changes a draft that is the answer. Of one whose answer was lost it is looked whether it `is_done`.
    fn ask_for_draft(
        &self,
        ask: Ask,
        id: &RecordId,
        doing: &str,
        is_done: impl Fn(&Record) -> bool,
    ) -> Result<Record> {
        match self.ask(ask) {
            Ok(answer) => read_record(answer, doing),
            Err(error) if error.kind().is_passing() => match self.draft(id) {
                Ok(draft) if is_done(&draft) => Ok(draft),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    fn doi_url(&self, id: &RecordId) -> Result<Url> {
        self.draft_url(id, "/pids/doi")
    }

    /// Asks the server what it misses in a draft, and looks at its files. There is no other way to ask than to save the draft
    /// as it is: its content stays, its revision and its date grow. (That is no change to a curation, either: API notes,
    /// section 9.)
    ///
    /// # Errors
    /// `Changed` if the draft is no longer as `before`, `NotFound`, `Denied`, else as any request.
    pub fn check_draft(&self, before: Record) -> Result<Check> {
        let document = Value::Object(before.document().clone());
        match self.update_draft(&before.id, &document, before.revision) {
            Ok(saved) => self.checked(saved.record, saved.problems),
            // A value that was good once: what it is about is in the message alone.
            Err(error) if error.kind() == Kind::Refused => {
                let problem = FieldError {
                    field: String::new(),
                    messages: vec![error.server_message().unwrap_or_default().to_owned()],
                };
                let fields = match error.fields() {
                    [] => vec![problem],
                    fields => fields.to_vec(),
                };
                self.checked(before, fields)
            }
            Err(error) => Err(error),
        }
    }

    /// The same without a save, where that might be taken for a change: only fields that every repository wants are missed.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, else as any request.
    pub fn look_at_draft(&self, draft: Record) -> Result<Check> {
        let problems = missing_in(&draft);
        self.checked(draft, problems)
    }

    fn checked(&self, draft: Record, mut problems: Vec<FieldError>) -> Result<Check> {
        let disabled = draft.files == Files::Disabled;
        let files = self.draft_files(&draft.id)?;
        // Told by `lacks_files`.
        problems.retain(|problem| !(problem.field == "files.enabled" && files.is_empty() && !disabled));
        let pending = files
            .iter()
            .filter(|file| file.status != FileStatus::Completed)
            .cloned()
            .collect();
        Ok(Check {
            lacks_files: files.is_empty() && !disabled,
            draft,
            problems,
            files,
            pending,
        })
    }

    /// Publishes a draft, once, and makes sure of it: when the answer is lost (504, a reset), the server is asked whether it
    /// was done. A draft that was published before is no failure.
    ///
    /// # Errors
    /// As [`Repository::publish`]. After a lost answer, the draft was still there each time it was looked at.
    pub fn publish_for_sure(&self, id: &RecordId) -> Result<Published> {
        let error = match self.publish(id) {
            Ok(record) => return Ok(Published::Now(record)),
            Err(error) => error,
        };
        if error.kind() == Kind::NotFound {
            return match self.published_without_draft(id) {
                Ok(Some(record)) => Ok(Published::Before(record)),
                _ => Err(error),
            };
        }
        if !error.kind().is_passing() || error.kind() == Kind::RateLimited {
            return Err(error);
        }
        log::warn!("{error}; looking whether it was published nevertheless");
        let look = || self.published_without_draft(id).ok().flatten();
        if let Some(record) = self.look_for(&error, look) {
            return Ok(Published::Now(record));
        }
        Err(error.with_advice(
            "The answer to publishing was lost, and it was not published so far. Look again in a minute, and publish it again \
             if the draft is still there.",
        ))
    }

    /// The record, if it is published and no draft of it is there: of an edit, a record is there in any case.
    fn published_without_draft(&self, id: &RecordId) -> Result<Option<Record>> {
        match self.draft(id) {
            Ok(_) => Ok(None),
            Err(error) if error.kind() == Kind::NotFound => match self.record(id) {
                Ok(record) => Ok(Some(record).filter(|record| record.id == *id)),
                Err(error) if error.kind() == Kind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Begins a new version after the latest one, which `record` is, or gives the one that was begun. Sent once: when the
    /// answer is lost, it is asked for again only where the record says that there is one.
    ///
    /// # Errors
    /// As [`Repository::new_version`].
    pub fn new_version_for_sure(&self, record: &Record) -> Result<Record> {
        let error = match self.new_version(&record.id) {
            Err(error) if error.kind().is_passing() && error.kind() != Kind::RateLimited => error,
            outcome => return outcome,
        };
        log::warn!("{error}; looking whether it was made nevertheless");
        let is_begun = || {
            let record = self.record(&record.id).ok()?;
            let is_last = record
                .document()
                .get("versions")?
                .get("is_latest_draft")?
                .as_bool();
            (is_last == Some(false)).then_some(())
        };
        match self.look_for(&error, is_begun) {
            Some(()) => self.new_version(&record.id),
            None => Err(error),
        }
    }

    /// Looks again and again, with growing pauses, for what a request that ended with `lost` may have done.
    pub(super) fn look_for<T>(&self, lost: &Error, look: impl Fn() -> Option<T>) -> Option<T> {
        let status = lost.attempt().and_then(|attempt| attempt.status);
        let looks = if status == Some(500) { LOOKS_AT_500 } else { LOOKS };
        let first = self.transport.limits.first_pause;
        let mut pause = first;
        for _ in 0..looks {
            if let Some(found) = look() {
                return Some(found);
            }
            self.wait_a_while(pause);
            pause = (pause * 2).min(first * LONGEST);
        }
        None
    }

    /// Takes the files of the version before into a new version, once, and makes sure of it: when the answer is lost, the
    /// files are looked at.
    ///
    /// # Errors
    /// As [`Repository::import_files`].
    pub fn import_files_for_sure(&self, id: &RecordId) -> Result<Vec<FileEntry>> {
        match self.import_files(id) {
            Err(error) if error.kind().is_passing() => match self.draft_files(id) {
                Ok(files) if !files.is_empty() => Ok(files),
                _ => Err(error),
            },
            outcome => outcome,
        }
    }

    fn wait_a_while(&self, pause: Duration) {
        self.engine.wait(async { tokio::time::sleep(pause).await });
    }
}

/// The fields that a draft is never published without and lacks, in the server's words.
fn missing_in(draft: &Record) -> Vec<FieldError> {
    let metadata = draft.document().get("metadata").unwrap_or(&Value::Null);
    let is_there = |path: &str| match metadata.pointer(path) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    };
    [
        ("metadata.title", "/title"),
        ("metadata.creators", "/creators"),
        ("metadata.publication_date", "/publication_date"),
        ("metadata.resource_type", "/resource_type/id"),
    ]
    .into_iter()
    .filter(|(_, path)| !is_there(path))
    .map(|(field, _)| FieldError {
        field: field.to_owned(),
        messages: vec!["Missing data for required field.".to_owned()],
    })
    .collect()
}

/// TU Wien's refusal to publish without an accepted curation request is told apart by its emptiness.
impl Error {
    /// Whether this is a publish that waits for a curation.
    #[must_use]
    pub fn waits_for_curation(&self) -> bool {
        self.kind() == Kind::NotReady && self.server_message().is_none() && self.fields().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Server, answer};
    use super::*;

    const JSON: &str = "Content-Type: application/json\r\n";

    fn id() -> RecordId {
        RecordId::new("abcde-12345").unwrap()
    }

    #[test]
    fn a_lost_answer_to_publishing_is_no_failure_if_the_server_has_done_it() {
        for status in [502, 504, 0] {
            let server = Server::start(move |number, head, stream| {
                let draft = head.line.contains("/draft HTTP");
                match (number, draft) {
                    (1, _) if status == 0 => {}
                    (1, _) => answer(stream, status, JSON, b"{}"),
                    // Still at it.
                    (2, true) => answer(stream, 200, JSON, br#"{"id": "abcde-12345", "is_draft": true}"#),
                    (_, true) => answer(stream, 404, JSON, b"{}"),
                    _ => answer(
                        stream,
                        200,
                        JSON,
                        br#"{"id": "abcde-12345", "is_published": true}"#,
                    ),
                }
            });
            let published = server.repository().publish_for_sure(&id()).unwrap();
            assert!(matches!(published, Published::Now(_)), "{status}: {published:?}");
            let posts = server
                .heads
                .lock()
                .iter()
                .filter(|head| head.line.starts_with("POST"))
                .count();
            assert_eq!(posts, 1, "published once");
        }
    }

    #[test]
    fn after_a_500_it_is_looked_for_a_moment_only() {
        let server = Server::start(move |number, _, stream| match number {
            1 => answer(stream, 500, JSON, b"{}"),
            _ => answer(stream, 200, JSON, br#"{"id": "abcde-12345", "is_draft": true}"#),
        });
        server.repository().publish_for_sure(&id()).unwrap_err();
        assert_eq!(server.count(), 1 + LOOKS_AT_500 as usize);
    }

    #[test]
    fn a_new_version_is_asked_for_again_only_where_there_is_one() {
        for is_made in [true, false] {
            let server = Server::start(move |number, head, stream| {
                let versions = serde_json::json!({"id": "abcde-12345", "is_published": true,
                    "versions": {"is_latest_draft": !is_made}});
                match (number, head.line.starts_with("POST")) {
                    (1, _) => answer(stream, 504, JSON, b"{}"),
                    (_, true) => answer(stream, 201, JSON, br#"{"id": "abcde-99999", "is_draft": true}"#),
                    (_, false) => answer(stream, 200, JSON, versions.to_string().as_bytes()),
                }
            });
            let record = Record::from_value(serde_json::json!({"id": "abcde-12345"})).unwrap();
            let draft = server.repository().new_version_for_sure(&record);
            assert_eq!(draft.is_ok(), is_made);
            let heads = server.heads.lock();
            let posts = heads.iter().filter(|head| head.line.starts_with("POST")).count();
            assert_eq!(posts, if is_made { 2 } else { 1 });
        }
    }

    #[test]
    fn what_every_record_needs_is_missed_without_asking() {
        let of = |metadata: Value| {
            let draft = serde_json::json!({"id": "abcde-12345", "is_draft": true, "metadata": metadata});
            let missing = missing_in(&Record::from_value(draft).unwrap());
            missing.into_iter().map(|one| one.field).collect::<Vec<_>>()
        };
        assert_eq!(
            of(serde_json::json!({"title": "", "creators": [], "resource_type": {"id": "dataset"}})),
            ["metadata.title", "metadata.creators", "metadata.publication_date"]
        );
        let whole = serde_json::json!({"title": "Snow", "creators": [{}], "resource_type": {"id": "dataset"},
            "publication_date": "2026"});
        assert!(of(whole).is_empty());
    }

    #[test]
    fn a_publish_that_was_not_carried_out_is_a_failure_and_is_not_sent_again() {
        let server = Server::start(move |number, _, stream| match number {
            1 => answer(stream, 504, JSON, b"{}"),
            _ => answer(stream, 200, JSON, br#"{"id": "abcde-12345", "is_draft": true}"#),
        });
        let error = server.repository().publish_for_sure(&id()).unwrap_err();
        assert_eq!(error.kind(), Kind::ServerFailed);
        assert!(error.advice().contains("Look again"), "{}", error.advice());
        let posts = server
            .heads
            .lock()
            .iter()
            .filter(|head| head.line.starts_with("POST"))
            .count();
        assert_eq!(posts, 1);
    }
}
