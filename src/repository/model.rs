//! What the server sends, typed where we look at it and kept whole where we don't.
//!
//! Everything here is untrusted: ids are checked before they become part of a URL or a path, missing fields are
//! `None`, unknown fields stay in the document. Made by the resource files of this floor, read by `catalog/` and `tree/`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

pub use crate::error::FieldError;
use crate::error::{Error, Kind, Result};

/// The id of a record or draft: letters, digits, `-` and `_` only, so that it is safe in a URL and as a file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(Arc<str>);

impl RecordId {
    /// Ids in use: `abcde-12345` (InvenioRDM, the last two characters are check digits), `1234567` (Zenodo).
    /// All of them hold a digit, which words that programs probe for (`HEAD`, `objects`) don't.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && text.bytes().any(|b| b.is_ascii_digit());
        fits.then(|| RecordId(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where files hang: a published record or a draft. The same id can be both, with different files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A published record.
    Record(RecordId),
    /// A draft.
    Draft(RecordId),
}

impl Owner {
    /// The id, whichever it is.
    #[must_use]
    pub fn id(&self) -> &RecordId {
        match self {
            Owner::Record(id) | Owner::Draft(id) => id,
        }
    }
}

/// Where a file's bytes are to be had.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FilePlace {
    /// The record or draft.
    pub owner: Owner,
    /// The file's key in it; may hold `/`.
    pub key: Arc<str>,
}

impl fmt::Display for FilePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = on_one_line(&self.key);
        match &self.owner {
            Owner::Record(id) => write!(f, "{key} of record {id}"),
            Owner::Draft(id) => write!(f, "{key} of draft {id}"),
        }
    }
}

/// A key as it may be shown: it can hold what moves a terminal's cursor.
pub(super) fn on_one_line(key: &str) -> String {
    key.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// The MD5 of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Md5(pub [u8; 16]);

impl Md5 {
    /// Reads 32 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; 16];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Md5(bytes))
    }
}

impl fmt::Display for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// How far a file has come on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileStatus {
    /// Started; its bytes may or may not be there. It can't be read.
    Pending,
    /// Committed: size and checksum hold.
    Completed,
    /// The server gave it up.
    Failed,
}

/// A file of a record or draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its name in the record; may hold `/` and anything else.
    pub key: Arc<str>,
    /// Bytes. Unknown while pending and for some remote files.
    pub size: Option<u64>,
    /// The MD5 of its bytes. Unknown while pending, for other algorithms, and for a short while after a multipart
    /// commit (`multipart:…`).
    pub md5: Option<Md5>,
    /// As guessed by the server from the key.
    pub mimetype: Option<Arc<str>>,
    /// When it was last changed; search hits don't say.
    pub updated: Option<SystemTime>,
    /// How far it has come; entries of records and hits don't say and are complete.
    pub status: FileStatus,
}

impl FileEntry {
    /// Reads an entry of a list, a record, a hit or an answer to an upload. `None` without a key.
    #[must_use]
    pub fn from_value(value: &Value) -> Option<Self> {
        let key = value.get("key")?.as_str()?;
        let status = match value.get("status").and_then(Value::as_str) {
            None | Some("completed") => FileStatus::Completed,
            Some("failed") => FileStatus::Failed,
            Some(_) => FileStatus::Pending,
        };
        Some(FileEntry {
            key: key.into(),
            size: value.get("size").and_then(Value::as_u64),
            md5: value
                .get("checksum")
                .and_then(Value::as_str)
                .and_then(|text| text.strip_prefix("md5:"))
                .and_then(Md5::from_hex),
            mimetype: text_of(value, "mimetype").map(Into::into),
            updated: value.get("updated").and_then(Value::as_str).and_then(parse_time),
            status,
        })
    }
}

/// The files of a record as its own document tells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// A metadata-only record.
    Disabled,
    /// The document doesn't list them: restricted for this user, or a draft, or a record too large for its hit.
    Unlisted,
    /// All of them.
    Listed(Vec<FileEntry>),
}

/// A record or draft: the whole document, and what we read out of it.
#[derive(Clone, Debug)]
pub struct Record {
    /// The record's id, checked.
    pub id: RecordId,
    /// `metadata.title`; empty if the draft has none yet.
    pub title: String,
    /// When this version was published, or the draft begun.
    pub created: Option<SystemTime>,
    /// When the document last changed. Uploads to a draft don't count (API notes, section 3).
    pub updated: Option<SystemTime>,
    /// The revision, as `If-Match` wants it.
    pub revision: Option<u64>,
    /// Published at least once under this id.
    pub is_published: bool,
    /// This document is a draft (it may be published as well: then it is an edit).
    pub is_draft: bool,
    /// Whether files can be read by all: `access.files` is `public` and so is the record.
    pub is_open: bool,
    /// Its files.
    pub files: Files,
    document: Map<String, Value>,
}

impl Record {
    /// Reads a document.
    ///
    /// # Errors
    /// `ServerFailed` if it is no object, or has no usable id.
    pub fn from_value(value: Value) -> Result<Self> {
        let Value::Object(document) = value else {
            return Err(Error::new(
                Kind::ServerFailed,
                "the answer is JSON, but not a record",
            ));
        };
        // Zenodo's ids may be JSON numbers.
        let id = match document.get("id") {
            Some(Value::String(text)) => RecordId::new(text),
            Some(Value::Number(number)) => RecordId::new(&number.to_string()),
            _ => None,
        }
        .ok_or_else(|| Error::new(Kind::ServerFailed, "the answer is JSON, but has no record id"))?;
        let flag = |name: &str| document.get(name).and_then(Value::as_bool).unwrap_or(false);
        let time = |name: &str| document.get(name).and_then(Value::as_str).and_then(parse_time);
        let access = |name: &str| {
            document
                .get("access")
                .and_then(|access| access.get(name))
                .and_then(Value::as_str)
                .unwrap_or("public")
        };
        Ok(Record {
            id,
            title: document
                .get("metadata")
                .and_then(|metadata| text_of(metadata, "title"))
                .unwrap_or_default(),
            created: time("created"),
            updated: time("updated"),
            revision: document.get("revision_id").and_then(Value::as_u64),
            is_published: flag("is_published"),
            is_draft: flag("is_draft"),
            is_open: access("record") == "public" && access("files") == "public",
            files: files_of(&document),
            document,
        })
    }

    /// The document as the server sent it.
    #[must_use]
    pub fn document(&self) -> &Map<String, Value> {
        &self.document
    }

    /// Takes the document out, and leaves an empty one.
    #[must_use]
    pub fn take_document(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.document)
    }

    /// Its DOI: registered, or reserved for a draft.
    #[must_use]
    pub fn doi(&self) -> Option<&str> {
        let pids = self.document.get("pids")?;
        pids.pointer("/doi/identifier")?
            .as_str()
            .filter(|doi| !doi.is_empty())
    }

    /// The id that all versions of it share.
    #[must_use]
    pub fn concept(&self) -> Option<RecordId> {
        RecordId::new(self.document.get("parent")?.get("id")?.as_str()?)
    }
}

fn files_of(document: &Map<String, Value>) -> Files {
    let Some(files) = document.get("files") else {
        return Files::Unlisted;
    };
    if files.get("enabled").and_then(Value::as_bool) == Some(false) {
        return Files::Disabled;
    }
    // A draft's document says "count 0" whatever was uploaded (API notes, section 6).
    if document.get("is_draft").and_then(Value::as_bool) == Some(true) {
        return Files::Unlisted;
    }
    match files.get("entries") {
        // A published record with files enabled has at least one. A hit of a record with restricted files shows its
        // owner an empty list and a count of 0 (seen on version 14), where GET shows them.
        Some(Value::Object(entries)) if entries.is_empty() => Files::Unlisted,
        Some(Value::Array(entries)) if entries.is_empty() => Files::Unlisted,
        Some(Value::Object(entries)) => {
            Files::Listed(entries.values().filter_map(FileEntry::from_value).collect())
        }
        Some(Value::Array(entries)) => {
            Files::Listed(entries.iter().filter_map(FileEntry::from_value).collect())
        }
        _ => Files::Unlisted,
    }
}

/// One page of a listing or search.
#[derive(Clone, Debug)]
pub struct Page {
    /// The records, in the order asked for.
    pub records: Vec<Record>,
    /// How many there are in all.
    pub total: u64,
    /// Whether another page follows.
    pub has_next: bool,
}

/// Reads an `errors` list. Its items are `{"field", "messages"}`, or name a community (`{"community_id", "message"}`), or
/// (version 12) hold such items as their messages; anything else becomes one error without a field.
#[must_use]
pub fn field_errors(value: &Value) -> Vec<FieldError> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.iter().flat_map(errors_of).collect(),
        other => vec![FieldError {
            field: String::new(),
            messages: vec![plain_text(other)],
        }],
    }
}

fn errors_of(item: &Value) -> Vec<FieldError> {
    let messages = match item.get("messages") {
        Some(Value::Array(messages)) => messages.iter(),
        _ => std::slice::from_ref(item.get("message").unwrap_or(item)).iter(),
    };
    let (inner, own): (Vec<&Value>, Vec<&Value>) =
        messages.partition(|message| !std::ptr::eq(*message, item) && message.is_object());
    let mut errors: Vec<FieldError> = inner.into_iter().flat_map(errors_of).collect();
    if !own.is_empty() || errors.is_empty() {
        let field = ["field", "community_id", "community"]
            .iter()
            .find_map(|name| text_of(item, name))
            .unwrap_or_default();
        let messages = own.into_iter().map(plain_text).collect();
        errors.push(FieldError { field, messages });
    }
    errors
}

fn plain_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The server's times: RFC 3339, with a blank for the `T` in `expires_at`, without offset (UTC) on version 12.
#[must_use]
pub fn parse_time(text: &str) -> Option<SystemTime> {
    let timestamp = text
        .parse::<jiff::Timestamp>()
        .or_else(|_| format!("{text}Z").parse::<jiff::Timestamp>())
        .ok()?;
    let since = timestamp.as_duration();
    if since.is_negative() {
        return UNIX_EPOCH.checked_sub(since.unsigned_abs());
    }
    UNIX_EPOCH.checked_add(Duration::new(
        since.as_secs().unsigned_abs(),
        since.subsec_nanos().unsigned_abs(),
    ))
}

pub(super) fn text_of(value: &Value, name: &str) -> Option<String> {
    value.get(name)?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_id_is_safe_in_a_url_and_unlike_the_words_programs_probe_for() {
        for good in ["7z9wp-jvq84", "1234567", "k6jjf-pwh48"] {
            assert!(RecordId::new(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "..",
            "a/b1",
            "HEAD",
            "objects",
            ".git1",
            "autorun.inf",
            "a%201",
            "é1",
        ] {
            assert!(RecordId::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn times_are_read_in_each_form_the_servers_use() {
        for text in [
            "2026-11-21T22:59:43.453600+00:00",
            "2026-11-21 22:59:43.453600+00:00",
            "2026-11-21T22:59:43.453600",
            "2026-11-21 22:59:43.453600",
        ] {
            let read = parse_time(text);
            assert!(read.is_some(), "{text}");
            assert_eq!(
                read,
                Some(UNIX_EPOCH + Duration::from_micros(1_795_301_983_453_600)),
                "{text}"
            );
        }
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn a_record_without_a_usable_id_is_no_record() {
        assert!(Record::from_value(json!({"id": "../etc"})).is_err());
        assert!(Record::from_value(json!([])).is_err());
        assert_eq!(
            Record::from_value(json!({"id": 12345})).unwrap().id.as_str(),
            "12345"
        );
    }

    #[test]
    fn files_are_listed_hidden_or_disabled() {
        let files = |value: Value| {
            Record::from_value(json!({"id": "abcde-12345", "files": value}))
                .unwrap()
                .files
        };
        assert_eq!(files(json!({"enabled": false})), Files::Disabled);
        assert_eq!(files(json!({"enabled": true})), Files::Unlisted);
        let Files::Listed(entries) = files(
            json!({"enabled": true, "entries": {"a": {"key": "a", "size": 3, "checksum": "md5:900150983cd24fb0d6963f7d28e17f72"}}}),
        ) else {
            panic!("not listed")
        };
        assert_eq!(entries[0].size, Some(3));
        assert_eq!(
            entries[0].md5.unwrap().to_string(),
            "900150983cd24fb0d6963f7d28e17f72"
        );
    }

    #[test]
    fn an_empty_list_of_a_published_record_is_a_hidden_one() {
        let hit = json!({"id": "abcde-12345", "is_published": true, "is_draft": false,
                         "files": {"enabled": true, "count": 0, "entries": {}}});
        assert_eq!(Record::from_value(hit).unwrap().files, Files::Unlisted);
    }

    #[test]
    fn errors_are_read_in_each_form_the_servers_use() {
        let read = |value: Value| {
            let errors = field_errors(&value);
            let pairs = errors.into_iter().map(|one| (one.field, one.messages.join("|")));
            pairs.collect::<Vec<_>>()
        };
        let pair = |field: &str, messages: &str| (field.to_owned(), messages.to_owned());
        assert_eq!(
            read(json!([{"field": "slug", "messages": ["a", "b"]}])),
            [pair("slug", "a|b")]
        );
        assert_eq!(
            read(json!([{"community_id": "x", "message": "Community not found."}])),
            [pair("x", "Community not found.")]
        );
        assert_eq!(
            read(json!([{"field": "_schema", "messages": [{"field": "pids.doi", "message": "No."}]}])),
            [pair("pids.doi", "No.")]
        );
        assert_eq!(read(json!(["odd"])), [pair("", "odd")]);
        assert_eq!(read(json!([{"field": "x", "messages": []}])), [pair("x", "")]);
        assert_eq!(read(json!([{"a": {"b": 1}}])), [pair("", r#"{"a":{"b":1}}"#)]);
        assert_eq!(read(json!(null)), []);
    }

    #[test]
    fn a_multipart_checksum_is_no_md5() {
        let entry =
            FileEntry::from_value(&json!({"key": "a", "checksum": "multipart:abc-3-5242880"})).unwrap();
        assert_eq!(entry.md5, None);
    }
}
