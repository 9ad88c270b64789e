//! Drafts: making, changing, publishing and dropping them.
//!
//! Called by `staging/`, `tree/` (metadata saved through `record.json`) and `cli/`. What can't be undone is never
//! repeated by itself: after a passing failure of such a call, the caller looks at what is there.

use reqwest::{Method, Url};
use serde_json::Value;

use super::Repository;
use super::model::{FieldError, FileEntry, Page, Record, RecordId, field_errors};
use super::records::{Search, read_files, read_record};
use super::transport::{Answer, Ask, Repeat};
use crate::error::{Error, Kind, Result};

/// A draft as the server stored it. What it names in `problems` it has dropped from what was sent.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The draft as it is now.
    pub record: Record,
    /// What was not accepted.
    pub problems: Vec<FieldError>,
}

impl Repository {
    /// The user's own drafts and records, and those shared with them. `published` picks one kind; a published record
    /// under edit is listed once, as its draft.
    ///
    /// # Errors
    /// `Denied` without a valid token, else as any request.
    pub fn user_records(&self, search: &Search, published: Option<bool>) -> Result<Page> {
        let filter: &[(&str, &str)] = match published {
            None => &[],
            Some(true) => &[("is_published", "true")],
            Some(false) => &[("is_published", "false")],
        };
        self.page("user/records", search, filter, "list your drafts and records")
    }

    /// A draft: of a new record, of a new version, or the edit of a published record.
    ///
    /// # Errors
    /// `NotFound` if there is none (also for strangers), `Denied`, else as any request.
    pub fn draft(&self, id: &RecordId) -> Result<Record> {
        let doing = format!("read draft {id}");
        let answer = self.ask(Ask::get(self.draft_url(id, "")?, doing.as_str()))?;
        read_record(answer, &doing)
    }

    /// Makes a new draft. Not repeated: after a passing failure it may exist, and [`Repository::user_records`] shows it.
    ///
    /// # Errors
    /// `Denied` if the user may not make any, `Refused` for unknown vocabulary ids and the like, else as any request.
    pub fn create_draft(&self, document: &Value) -> Result<Saved> {
        let url = self.transport.base.api("records")?;
        let doing = "make a draft";
        let answer = self.ask(Ask::new(Method::POST, url, doing).body(document))?;
        read_saved(answer, doing)
    }

    /// Replaces the draft's metadata with `document`, wholly: what it leaves out is emptied. With `revision`, only if
    /// nobody changed the draft since.
    ///
    /// Of several at once, one wins and the others get `Refused` with `"Invalid value dataset."`, the same words as for an
    /// unknown vocabulary id (API notes, section 3). Whether it was the one or the other shows a fresh [`Repository::draft`]:
    /// repeating it once is the caller's part.
    ///
    /// # Errors
    /// `Changed` if the revision is not the current one, `Refused`, `NotFound`, `Denied`, else as any request.
    pub fn update_draft(&self, id: &RecordId, document: &Value, revision: Option<u64>) -> Result<Saved> {
        let doing = format!("save draft {id}");
        let mut ask = Ask::new(Method::PUT, self.draft_url(id, "")?, doing.as_str()).body(document);
        ask.if_match = revision;
        // With a revision, a repeated one would be refused because of the first, if that was carried out.
        if revision.is_none() {
            ask = ask.repeat(Repeat::Safe);
        }
        read_saved(self.ask(ask)?, &doing)
    }

    /// Drops a draft, its files with it; of a published record, only the edit.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, else as any request.
    pub fn delete_draft(&self, id: &RecordId) -> Result<()> {
        let url = self.draft_url(id, "")?;
        let mut ask = Ask::new(Method::DELETE, url, format!("delete draft {id}")).repeat(Repeat::Safe);
        ask.gone_is_done = true;
        self.ask(ask).map(drop)
    }

    /// Publishes a draft. Not repeated: after a passing failure, [`Repository::record`] shows whether it happened.
    ///
    /// # Errors
    /// `NotReady` while files are in transfer or a curation is not accepted, `Refused` with the fields that are missing,
    /// `NotFound` (also if it is published already), `Denied`, else as any request.
    pub fn publish(&self, id: &RecordId) -> Result<Record> {
        let doing = format!("publish draft {id}");
        let url = self.draft_url(id, "/actions/publish")?;
        match self.ask(Ask::new(Method::POST, url, doing.as_str())) {
            Ok(answer) => read_record(answer, &doing),
            Err(error) => Err(self.why_not_published(id, error)),
        }
    }

    /// Version 12 refuses to publish a draft that is under review without a word.
    fn why_not_published(&self, id: &RecordId, error: Error) -> Error {
        let wordless =
            error.kind() == Kind::Refused && error.server_message().is_none() && error.fields().is_empty();
        let under_review =
            || matches!(self.review(id), Ok(Some(review)) if review.is_open || review.status == "created");
        if !wordless || !under_review() {
            return error;
        }
        let reviewed = Error::new(
            Kind::Refused,
            format!(
                "can't publish draft {id}: it is submitted, or to be submitted, to a community for review"
            ),
        )
        .with_advice("Wait for the community's decision, or cancel the request (rdmfs requests cancel).");
        match error.attempt() {
            Some(attempt) => reviewed.with_attempt(attempt.clone()),
            None => reviewed,
        }
    }

    /// Begins to edit a published record, or gives the edit that was begun. Its metadata can change, its files can't.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, else as any request.
    pub fn edit(&self, id: &RecordId) -> Result<Record> {
        let doing = format!("edit record {id}");
        let ask = Ask::new(Method::POST, self.draft_url(id, "")?, doing.as_str()).repeat(Repeat::Safe);
        read_record(self.ask(ask)?, &doing)
    }

    /// Begins a new version of a published record, or gives the one that was begun. It has no files yet.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, else as any request.
    pub fn new_version(&self, id: &RecordId) -> Result<Record> {
        let doing = format!("make a new version of record {id}");
        let url = self.transport.base.api(&format!("records/{id}/versions"))?;
        read_record(self.ask(Ask::new(Method::POST, url, doing.as_str()))?, &doing)
    }

    /// Takes the files of the version before into a new version that has none yet. No bytes are moved.
    ///
    /// # Errors
    /// `Refused` if it has files already, `NotFound`, `Denied`, else as any request.
    pub fn import_files(&self, id: &RecordId) -> Result<Vec<FileEntry>> {
        let doing = format!("import files into draft {id}");
        let url = self.draft_url(id, "/actions/files-import")?;
        let answer = self.ask(Ask::new(Method::POST, url, doing.as_str()))?;
        read_files(&answer.value, &doing)
    }

    /// An endpoint of a draft; `rest` begins with a slash or is empty, and is encoded.
    pub(super) fn draft_url(&self, id: &RecordId, rest: &str) -> Result<Url> {
        self.transport.base.api(&format!("records/{id}/draft{rest}"))
    }
}

fn read_saved(mut answer: Answer, doing: &str) -> Result<Saved> {
    // Not part of the draft: a later GET doesn't have it.
    let errors = answer
        .value
        .as_object_mut()
        .and_then(|document| document.remove("errors"));
    Ok(Saved {
        record: read_record(answer, doing)?,
        problems: field_errors(&errors.unwrap_or(Value::Null)),
    })
}
