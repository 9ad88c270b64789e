//! The files of a draft: starting, committing and deleting them. Their content is sent in `upload`, or in parts in
//! `multipart`.
//!
//! Called by `staging/`, which owns the order of the calls: start, PUT, commit, compare. Nothing here decides what to do
//! after a failure.

use std::collections::HashSet;

use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::Repository;
use super::model::{FileEntry, FilePlace, Owner, RecordId, on_one_line};
use super::records::read_files;
use super::transport::{Ask, RDM_JSON, Repeat};
use super::urls::{check_new_key, encode_key};
use crate::error::{Error, Kind, Result};

impl Repository {
    /// All files of a draft, those that were only started too.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, else as any request.
    pub fn draft_files(&self, id: &RecordId) -> Result<Vec<FileEntry>> {
        let doing = format!("list the files of draft {id}");
        let ask = Ask::get(self.draft_url(id, "/files")?, doing.as_str()).accept(RDM_JSON);
        let answer = self.ask(ask)?;
        self.transfers.entry_seen(&answer.value);
        read_files(&answer.value, &doing)
    }

    /// One file of a draft. Asks for less than the list of all.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, else as any request.
    pub fn draft_file(&self, id: &RecordId, key: &str) -> Result<FileEntry> {
        let doing = format!("look at file {} of draft {id}", on_one_line(key));
        let answer = self.ask(Ask::get(self.draft_file_url(id, key, "")?, doing.as_str()))?;
        FileEntry::from_value(&answer.value).ok_or_else(|| no_file(&doing))
    }

    /// Starts files, so that their content can be sent, and gives the entries of these keys. Not repeated: after a
    /// passing failure they may have been started.
    ///
    /// # Errors
    /// `Refused` for a key that can't be stored or reached (before any request) and for one that exists already (none is
    /// started then), `TooMany`, `NotFound`, `Denied`, else as any request.
    pub fn start_files(&self, id: &RecordId, keys: &[&str]) -> Result<Vec<FileEntry>> {
        for key in keys {
            check_new_key(key)?;
        }
        if keys.is_empty() {
            return Ok(Vec::new()); // Version 14 refuses an empty list.
        }
        let doing = match keys {
            [key] => format!("start file {} in draft {id}", on_one_line(key)),
            _ => format!("start {} files in draft {id}", keys.len()),
        };
        let body: Value = keys.iter().map(|key| json!({"key": key})).collect();
        let ask = Ask::new(Method::POST, self.draft_url(id, "/files")?, doing.as_str()).body(&body);
        let answer = self.ask(ask)?;
        self.transfers.entry_seen(&answer.value);
        let mut entries = read_files(&answer.value, &doing)?;
        // The answer lists all files of the draft.
        let asked: HashSet<&str> = keys.iter().copied().collect();
        entries.retain(|entry| asked.contains(&*entry.key));
        Ok(entries)
    }

    /// Commits a file whose content was sent, and gives its entry: the caller compares size and checksum. Committing
    /// twice changes nothing, so this is repeated when it fails; but 500 is the answer to a commit before any content.
    ///
    /// # Errors
    /// `NotFound` if the entry is gone (a PUT that broke off takes it along), `ServerFailed` if no content came, `Denied`,
    /// else as any request.
    pub fn commit_file(&self, id: &RecordId, key: &str) -> Result<FileEntry> {
        let doing = format!("commit file {} of draft {id}", on_one_line(key));
        let url = self.draft_file_url(id, key, "/commit")?;
        let answer = self.ask(Ask::new(Method::POST, url, doing.as_str()).repeat(Repeat::SafeBut500))?;
        self.forget_link(id, key);
        FileEntry::from_value(&answer.value).ok_or_else(|| no_file(&doing))
    }

    /// Deletes a file, committed or not.
    ///
    /// # Errors
    /// `NotFound`, `Denied` (the files of a published record under edit are locked), else as any request.
    pub fn delete_file(&self, id: &RecordId, key: &str) -> Result<()> {
        let url = self.draft_file_url(id, key, "")?;
        let doing = format!("delete file {} of draft {id}", on_one_line(key));
        let mut ask = Ask::new(Method::DELETE, url, doing).repeat(Repeat::Safe);
        ask.gone_is_done = true;
        self.forget_link(id, key);
        self.ask(ask).map(drop)
    }

    /// A link to the bytes that a draft's file had so far leads to the wrong ones from now on.
    fn forget_link(&self, id: &RecordId, key: &str) {
        let owner = Owner::Draft(id.clone());
        self.presigned.forget(&FilePlace {
            owner,
            key: key.into(),
        });
    }

    pub(super) fn draft_file_url(&self, id: &RecordId, key: &str, rest: &str) -> Result<Url> {
        self.draft_url(id, &format!("/files/{}{rest}", encode_key(key)?))
    }
}

pub(super) fn no_file(doing: &str) -> Error {
    Error::new(
        Kind::ServerFailed,
        format!("can't {doing}: the answer is JSON, but no file"),
    )
}
