//! What is known of one record or draft.
//!
//! Made from what the repository sent, or from what was kept of it. Used by `catalog/`; `tree/` reads it.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Value, json};

use super::timed::Weigh;
use super::{FileList, document};
use crate::error::Result;
use crate::memory;
use crate::repository::model::{FileEntry, FileStatus, Files, Record, RecordId};

/// What the tree needs of a record or draft.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its id; differs from the one asked for if that was a concept id.
    pub id: RecordId,
    /// Its title.
    pub title: String,
    /// When this version was published, or the draft begun.
    pub created: Option<SystemTime>,
    /// When the document last changed.
    pub updated: Option<SystemTime>,
    /// Whether all may read record and files.
    pub is_open: bool,
    /// Published at least once: a draft with it is an edit.
    pub is_published: bool,
    /// The id that all its versions share.
    pub concept: Option<RecordId>,
    /// Which of the versions it is, from 1, if it says so.
    pub version: Option<u64>,
    /// Whether it is the latest of them, if it says so.
    pub is_latest: Option<bool>,
    /// The revision of the document.
    pub revision: Option<u64>,
    /// Its `record.json`.
    pub document: Bytes,
    /// When the repository was asked for all this: it may have changed since, also before the answer came.
    pub asked: SystemTime,
    pub(super) files: KnownFiles,
}

/// What a record's document says of its files.
#[derive(Clone, Debug)]
pub(super) enum KnownFiles {
    /// All of them.
    Listed(Arc<FileList>),
    /// Nothing, and whoever wants to know has to ask for the list.
    Unlisted,
    /// Nothing, because this user may not see them.
    Restricted,
    /// Nothing, because this is a hit: the record itself says more. Its document is not the whole one.
    LeftOut,
}

/// Where a document comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Single,
    Hit,
}

impl Entry {
    /// What the repository said when it was asked then.
    pub(super) fn new(mut record: Record, source: Source, asked: SystemTime) -> Self {
        let place = Place::of(&record);
        let document = document::render(record.take_document());
        // What it was made from takes several times its room.
        memory::freed(document.len() * 6);
        Entry::made(record, document, place, source, asked)
    }

    /// What it said once: its `record.json`, as it was kept.
    pub(super) fn kept(document: Bytes, source: Source, asked: SystemTime) -> Result<Self> {
        // The checksum was right, so it is what was written.
        let value: Value = serde_json::from_slice(&document).unwrap_or_default();
        let record = Record::from_value(value)?;
        let place = Place::of(&record);
        Ok(Entry::made(record, document, place, source, asked))
    }

    fn made(record: Record, document: Bytes, place: Place, source: Source, asked: SystemTime) -> Self {
        Entry {
            document,
            asked,
            files: match record.files {
                Files::Disabled => KnownFiles::Listed(Arc::default()),
                Files::Listed(entries) => KnownFiles::Listed(Arc::new(entries.into())),
                Files::Unlisted if record.is_draft => KnownFiles::Unlisted,
                Files::Unlisted if source == Source::Hit => KnownFiles::LeftOut,
                // The record lists its files for those who may see them (API notes, section 2).
                Files::Unlisted if !record.is_open => KnownFiles::Restricted,
                Files::Unlisted => KnownFiles::Unlisted,
            },
            id: record.id,
            title: record.title,
            created: record.created,
            updated: record.updated,
            is_open: record.is_open,
            is_published: record.is_published,
            revision: record.revision,
            concept: place.concept,
            version: place.version,
            is_latest: place.is_latest,
        }
    }

    /// Its DOI, if it has one. Read from the document.
    #[must_use]
    pub fn doi(&self) -> Option<String> {
        let document: Value = serde_json::from_slice(&self.document).ok()?;
        let doi = document.pointer("/pids/doi/identifier")?.as_str()?;
        (!doi.is_empty()).then(|| doi.to_owned())
    }

    /// Whether nothing more is to be learned by asking for the record itself.
    pub(super) fn is_whole(&self) -> bool {
        !matches!(self.files, KnownFiles::LeftOut)
    }

    /// Shares the list of files with an older state, if it is the same: then all that was made of it still holds.
    pub(super) fn share_files(&mut self, older: &Entry) {
        if let (KnownFiles::Listed(files), KnownFiles::Listed(known)) = (&mut self.files, &older.files)
            && files == known
        {
            *files = Arc::clone(known);
        }
    }
}

/// What a document says of its place among the versions.
struct Place {
    concept: Option<RecordId>,
    version: Option<u64>,
    is_latest: Option<bool>,
}

impl Place {
    fn of(record: &Record) -> Self {
        let versions = record.document().get("versions");
        let of = |name: &str| versions.and_then(|versions| versions.get(name));
        Place {
            concept: record.concept(),
            version: of("index").and_then(Value::as_u64),
            is_latest: of("is_latest").and_then(Value::as_bool),
        }
    }
}

/// A list of files as it is kept.
pub(super) fn list_to_text(files: &FileList) -> Bytes {
    let entries: Value = files
        .iter()
        .map(|file| {
            json!({
                "key": *file.key,
                "size": file.size,
                "checksum": file.md5.map(|md5| format!("md5:{md5}")),
                "mimetype": file.mimetype.as_deref(),
                "updated": file.updated.map(crate::status::rfc3339),
                "status": match file.status {
                    FileStatus::Completed => "completed",
                    FileStatus::Pending => "pending",
                    FileStatus::Failed => "failed",
                },
            })
        })
        .collect();
    entries.to_string().into()
}

/// Reads such a list.
pub(super) fn list_from_text(text: &[u8]) -> Option<FileList> {
    let entries: Vec<Value> = serde_json::from_slice(text).ok()?;
    entries.iter().map(FileEntry::from_value).collect()
}

/// A file entry with its key, MIME type and place in the list, in bytes of memory.
pub(super) const FILE_WEIGHT: usize = 200;

impl Weigh for Entry {
    fn weight(&self) -> usize {
        let files = match &self.files {
            KnownFiles::Listed(files) => files.len() * FILE_WEIGHT,
            KnownFiles::Unlisted | KnownFiles::Restricted | KnownFiles::LeftOut => 0,
        };
        self.document.len() + self.title.len() + files
    }
}
