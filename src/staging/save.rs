//! Saving a draft's metadata: what a user wrote to `record.json`, merged over what the server has.
//!
//! Called by the queue's workers. A PUT replaces the draft's metadata wholly and a field that the server does not like is
//! dropped without a failure (API reference, section 4): so what is sent is made from a fresh copy, and what comes
//! back is looked at.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::crash::{Point, point};
use crate::error::{Error, Kind, Result};
use crate::md5;
use crate::repository::Repository;
use crate::repository::model::{FieldError, Record, RecordId};

/// What a user's document was made from, to see whether the draft was changed by somebody else meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The digests of the documents that it may be made from.
    pub digests: BTreeSet<String>,
    /// The revision over which it was about to be saved when this was written.
    pub saving: Option<u64>,
}

/// What came of a save.
pub(super) enum Outcome {
    /// The draft is now as the user wrote.
    Saved(Box<Record>),
    /// Not, or not all of it. What the draft is now, if that is known, and what to tell the user.
    Refused(Option<Box<Record>>, Error),
}

/// The keys of a document that a user can change. All others are the server's (API reference, section 4).
const SETTABLE: [&str; 6] = [
    "metadata",
    "custom_fields",
    "access",
    "files",
    "pids",
    "media_files",
];
/// Of `files`, what a user can change.
const SETTABLE_OF_FILES: [&str; 2] = ["enabled", "default_preview"];
/// Of `access`, what the server works out.
const COMPUTED_ACCESS: &str = "status";
/// By so much one save raises the revision at most (API notes, section 3).
const OF_ONE_SAVE: u64 = 2;
/// The largest document that is saved. Those of records with hundreds of authors have some hundred KiB.
pub const LARGEST_DOCUMENT: u64 = 16 << 20;
/// As often another save may come between reading the draft and writing it.
const RACES: u32 = 4;

/// Saves. `base` says what the document was made from; `about_to` is told before anything is sent.
///
/// # Errors
/// A passing kind: try again later.
pub(super) fn run(
    repository: &Repository,
    draft: &RecordId,
    text: &[u8],
    base: &Base,
    mut about_to: impl FnMut(Base) -> Result<()>,
) -> Result<Outcome> {
    let wanted = match parse(text) {
        Ok(wanted) => wanted,
        Err(error) => return Ok(Outcome::Refused(None, error)),
    };
    let mut races = 0;
    let mut saving = base.saving;
    loop {
        let fresh = repository.draft(draft)?;
        let current = fresh.document();
        let merged = merge(&wanted, current);
        if settable(&merged) == settable(current) {
            return Ok(Outcome::Saved(Box::new(fresh)));
        }
        // Of a save whose answer was lost, the changes are our own.
        let was_saved = saving.is_some_and(|before| {
            fresh
                .revision
                .is_some_and(|now| (before + 1..=before + OF_ONE_SAVE).contains(&now))
        });
        let is_base = base.digests.contains(&digest(current))
            || fresh
                .revision
                .is_some_and(|now| base.digests.contains(&exactly(now)));
        if !was_saved && !base.digests.is_empty() && !is_base {
            let error = Error::new(
                Kind::Changed,
                format!("draft {draft} was changed by somebody else since its record.json was read"),
            )
            .with_advice(
                "Compare record.json.rejected, which is yours, with record.json, and save what is right.",
            );
            return Ok(Outcome::Refused(Some(Box::new(fresh)), error));
        }
        saving = fresh.revision;
        about_to(Base {
            digests: base.digests.clone(),
            saving,
        })?;
        point(Point::Saving);
        match repository.update_draft(draft, &Value::Object(merged.clone()), fresh.revision) {
            Ok(saved) => {
                point(Point::Saved);
                let problems: Vec<FieldError> = saved
                    .problems
                    .into_iter()
                    .filter(|problem| was_given(&merged, &problem.field))
                    .collect();
                let record = Box::new(saved.record);
                return Ok(if problems.is_empty() {
                    Outcome::Saved(record)
                } else {
                    Outcome::Refused(Some(record), not_accepted(draft, &problems))
                });
            }
            // Two at once: the loser is told that a value is wrong (API notes, section 3).
            Err(error) if matches!(error.kind(), Kind::Changed | Kind::Refused) && races < RACES => {
                races += 1;
                saving = forget_saving(base, &mut about_to)?;
                let now = repository.draft(draft)?;
                if now.revision == fresh.revision {
                    return Ok(Outcome::Refused(Some(Box::new(now)), error));
                }
            }
            Err(error) if super::turns::is_final(error.kind()) || error.kind() == Kind::Changed => {
                return Ok(Outcome::Refused(Some(Box::new(fresh)), error));
            }
            Err(error) => {
                if error.kind() == Kind::RateLimited {
                    forget_saving(base, &mut about_to)?;
                }
                return Err(error);
            }
        }
    }
}

/// Saves a document over a draft at once, for a command: without a journal, and without a claim of what it was made from.
/// `about_to` is asked before a change is sent; without a change, nothing is sent.
///
/// # Errors
/// What the server did not accept, by field: the rest is saved then. What `about_to` says.
pub fn save_now(
    repository: &Repository,
    draft: &RecordId,
    document: &Value,
    mut about_to: impl FnMut() -> Result<()>,
) -> Result<Record> {
    let mut is_asked = false;
    let about_to = |_| {
        if std::mem::replace(&mut is_asked, true) {
            return Ok(());
        }
        about_to()
    };
    let text = document.to_string();
    match run(repository, draft, text.as_bytes(), &Base::default(), about_to)? {
        Outcome::Saved(record) => Ok(*record),
        Outcome::Refused(_, error) => Err(error),
    }
}

/// It was not carried out: what the draft is next is somebody else's doing.
fn forget_saving(base: &Base, about_to: &mut impl FnMut(Base) -> Result<()>) -> Result<Option<u64>> {
    about_to(Base {
        digests: base.digests.clone(),
        saving: None,
    })?;
    Ok(None)
}

fn parse(text: &[u8]) -> Result<Map<String, Value>> {
    let refused = |what: String| {
        Error::new(Kind::Refused, what).with_advice(
            "What was written is in record.json.rejected; correct it and save it as record.json.",
        )
    };
    match serde_json::from_slice::<Value>(text) {
        Ok(Value::Object(document)) => Ok(document),
        Ok(_) => Err(refused("record.json must be a JSON object".to_owned())),
        Err(_) if text.is_empty() => Err(refused("record.json was saved empty".to_owned())),
        Err(error) => Err(refused(format!("record.json is no JSON: {error}"))),
    }
}

/// What is to be sent: the user's keys over the current ones. A key that the user left out stays what it is, because the
/// server would empty it. A document with an id is a whole one: what its metadata leaves out is removed. One without
/// an id is a change: what its metadata leaves out stays.
fn merge(wanted: &Map<String, Value>, current: &Map<String, Value>) -> Map<String, Value> {
    let is_whole = wanted.contains_key("id");
    let mut merged = current.clone();
    for key in SETTABLE {
        let Some(value) = wanted.get(key) else { continue };
        let by_part = matches!(key, "files" | "access" | "media_files")
            || (!is_whole && matches!(key, "metadata" | "custom_fields"));
        match (value, merged.get_mut(key)) {
            (Value::Object(new), Some(Value::Object(old))) if by_part => {
                old.extend(new.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            _ => {
                merged.insert(key.to_owned(), value.clone());
            }
        }
    }
    if let Some(Value::Object(metadata)) = merged.get_mut("metadata") {
        // What a user empties with null is left out: some fields refuse null.
        metadata.retain(|_, value| !value.is_null());
    }
    merged
}

/// The part of a document that a user can change.
fn settable(document: &Map<String, Value>) -> Map<String, Value> {
    let mut part = Map::new();
    for key in SETTABLE {
        let mut value = document.get(key).cloned().unwrap_or(Value::Null);
        if let Value::Object(object) = &mut value {
            match key {
                "files" | "media_files" => object.retain(|key, _| SETTABLE_OF_FILES.contains(&key.as_str())),
                "access" => drop(object.remove(COMPUTED_ACCESS)),
                _ => {}
            }
            object.retain(|_, value| !value.is_null());
        }
        let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        if !is_empty {
            part.insert(key.to_owned(), value);
        }
    }
    part
}

/// A digest of what a user can change in a document.
#[must_use]
pub fn digest(document: &Map<String, Value>) -> String {
    let mut value = Value::Object(settable(document));
    value.sort_all_objects();
    md5::of(value.to_string()).to_string()
}

/// Stands for one revision of which the digest is not known.
pub(super) fn exactly(revision: u64) -> String {
    format!("revision {revision}")
}

/// The revision that a document says it is of, if it is one of this draft.
pub(super) fn revision_in(text: &[u8], draft: &RecordId) -> Option<u64> {
    let document: Value = serde_json::from_slice(text).ok()?;
    let id = match document.get("id")? {
        Value::String(id) => id.clone(),
        id => id.to_string(),
    };
    (id == draft.as_str()).then(|| document.get("revision_id")?.as_u64())?
}

/// Whether a field was in what was sent, so that its refusal takes something away. A field that is only missing
/// matters when the draft is published.
fn was_given(sent: &Map<String, Value>, field: &str) -> bool {
    if field == "files.enabled" {
        // Of `true` it says that there are no files yet, which is how every draft begins.
        return sent.get("files").and_then(|files| files.get("enabled")) == Some(&Value::Bool(false));
    }
    let mut parts = field.split('.');
    let Some(mut value) = parts.next().and_then(|key| sent.get(key)) else {
        // No field, or not one of the document: it is about the whole.
        return !field.starts_with("files");
    };
    let mut depth = 1;
    for part in parts {
        let next = match value {
            Value::Object(object) => object.get(part),
            Value::Array(list) => part.parse::<usize>().ok().and_then(|index| list.get(index)),
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => break,
        }
        depth += 1;
    }
    let is_empty = match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    };
    depth > 1 && !is_empty
}

fn not_accepted(draft: &RecordId, problems: &[FieldError]) -> Error {
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}: {}", problem.field, problem.messages.join(" ")))
        .collect();
    Error::new(
        Kind::Refused,
        format!("the repository did not accept all of record.json of draft {draft}"),
    )
    .with_server(lines.join("\n"))
    .with_fields_of_words(problems.to_vec(), "")
    .with_advice(
        "The rest is saved. What was written is in record.json.rejected, the reasons in record.json.errors.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            _ => panic!("no object"),
        }
    }

    fn current() -> Map<String, Value> {
        object(json!({
            "id": "abcde-12345", "revision_id": 4, "links": {},
            "metadata": {"title": "Old", "description": "Text"},
            "custom_fields": {"a": 1},
            "access": {"record": "public", "files": "public", "status": "open"},
            "files": {"enabled": true, "default_preview": "a.csv", "count": 2},
            "pids": {"doi": {"identifier": "10.1/x"}},
        }))
    }

    #[test]
    fn a_key_that_is_left_out_is_never_emptied() {
        let merged = merge(&object(json!({"metadata": {"title": "New"}})), &current());
        assert_eq!(merged["metadata"], json!({"title": "New", "description": "Text"}));
        assert_eq!(merged["files"]["default_preview"], "a.csv");
        assert_eq!(merged["pids"], current()["pids"]);
        assert_eq!(merged["custom_fields"], json!({"a": 1}));
        let whole = merge(
            &object(json!({"id": "x", "metadata": {"title": "New"}})),
            &current(),
        );
        assert_eq!(whole["metadata"], json!({"title": "New"}));
        assert_eq!(whole["custom_fields"], json!({"a": 1}));
    }

    #[test]
    fn null_empties_a_field() {
        let merged = merge(&object(json!({"metadata": {"description": null}})), &current());
        assert_eq!(merged["metadata"], json!({"title": "Old"}));
    }

    #[test]
    fn what_the_server_works_out_is_no_change() {
        let mut other = current();
        other.insert("revision_id".into(), json!(9));
        other["access"]["status"] = json!("restricted");
        other["files"]["count"] = json!(7);
        assert_eq!(digest(&other), digest(&current()));
        other["metadata"]["title"] = json!("New");
        assert_ne!(digest(&other), digest(&current()));
    }

    #[test]
    fn a_refusal_of_what_was_given_is_told_from_what_is_missing() {
        let sent = object(
            json!({"metadata": {"title": "ab", "creators": [{"person_or_org": {"name": "A"}}], "dates": []}}),
        );
        assert!(was_given(&sent, "metadata.title"));
        assert!(was_given(&sent, "metadata.creators.0.person_or_org.family_name"));
        assert!(!was_given(&sent, "metadata.publication_date"));
        assert!(!was_given(&sent, "metadata.dates"));
        assert!(!was_given(&sent, "files.enabled"));
        let enabled = |enabled: bool| object(json!({"files": {"enabled": enabled}}));
        assert!(!was_given(&enabled(true), "files.enabled"));
        assert!(was_given(&enabled(false), "files.enabled"));
        assert!(was_given(&sent, "access.record"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "{", "[]", "7"] {
            assert_eq!(
                parse(text.as_bytes()).unwrap_err().kind(),
                Kind::Refused,
                "{text}"
            );
        }
    }
}
