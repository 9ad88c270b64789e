//! Published records: by id, by search, their versions and their files.
//!
//! Called by `catalog/` and `cli/`. Answers are whole; caching is the catalog's.

use std::collections::HashSet;

use reqwest::Url;
use serde_json::Value;

use super::Repository;
use super::lists::{Listing, read_listing};
use super::model::{FileEntry, Page, Record, RecordId};
use super::transport::{Answer, Ask, JSON, RDM_JSON, is_redirect, location};
use crate::error::{Error, Kind, Result};

/// The most versions that are listed.
const MOST_VERSIONS: usize = 2_000;

/// What to search for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Search {
    /// In the repository's query syntax; broken syntax is searched as words.
    pub query: Option<String>,
    /// `newest`, `oldest`, `bestmatch`, `updated-desc` …; the server's default without.
    pub sort: Option<&'static str>,
    /// From 1.
    pub page: u32,
    /// Records on a page; at most [`Repository::largest_page`] are asked for.
    pub size: u32,
    /// Every version, and not just each record's latest.
    pub all_versions: bool,
    /// More parameters of the query string, as they are: facets, `suggest`, `tags`. A `sort` here is taken in place of
    /// [`Search::sort`].
    pub more: Vec<(String, String)>,
}

impl Default for Search {
    fn default() -> Self {
        Search {
            query: None,
            sort: None,
            page: 1,
            size: 25,
            all_versions: false,
            more: Vec::new(),
        }
    }
}

impl Repository {
    /// A published record. For the id all its versions share (the concept id), the latest version: its id then differs
    /// from `id`.
    ///
    /// # Errors
    /// `NotFound` (deleted ones too, with the reason the server gives), `Denied` for restricted ones, else as any
    /// request.
    pub fn record(&self, id: &RecordId) -> Result<Record> {
        self.record_or_redirect(&format!("records/{id}"), format!("read record {id}"))
    }

    /// The latest published version of the record that `id` is a version of.
    ///
    /// # Errors
    /// As [`Repository::record`].
    pub fn latest_version(&self, id: &RecordId) -> Result<Record> {
        self.record_or_redirect(
            &format!("records/{id}/versions/latest"),
            format!("find the latest version of record {id}"),
        )
    }

    /// The server answers with a redirect to the record that is meant. Only its id is taken from that: the address in it
    /// is built from the server's settings and may name a host where the token must not go.
    fn record_or_redirect(&self, path: &str, doing: String) -> Result<Record> {
        let mut url = self.transport.base.api(path)?;
        // The latest version of a concept may itself be replaced between two requests.
        for _ in 0..3 {
            let mut ask = Ask::get(url.clone(), doing.clone());
            ask.follow = false;
            let answer = self.ask(ask)?;
            if !is_redirect(answer.status) {
                return read_record(answer, &doing);
            }
            let id = location(&url, &answer.headers)
                .and_then(|target| record_id_in(&target))
                .ok_or_else(|| {
                    Error::new(
                        Kind::ServerFailed,
                        format!("can't {doing}: it redirects to no record"),
                    )
                    .from_elsewhere()
                })?;
            url = self.transport.base.api(&format!("records/{id}"))?;
        }
        Err(Error::new(
            Kind::ServerFailed,
            format!("can't {doing}: it redirects in circles"),
        ))
    }

    /// Searches published records.
    ///
    /// # Errors
    /// `Refused` for a page beyond the 10 000 records that a search reaches, else as any request.
    pub fn search(&self, search: &Search) -> Result<Page> {
        self.page("records", search, &[], "search records")
    }

    /// All published versions of the record that `id` is a version of, newest first.
    ///
    /// # Errors
    /// As [`Repository::record`].
    pub fn versions(&self, id: &RecordId) -> Result<Page> {
        let path = format!("records/{id}/versions");
        let doing = format!("list the versions of record {id}");
        let mut search = Search {
            size: self.largest_page(),
            ..Search::default()
        };
        let mut all = self.page(&path, &search, &[], &doing)?;
        // A version published meanwhile moves the others back by one.
        let mut known: HashSet<RecordId> = all.records.iter().map(|record| record.id.clone()).collect();
        while all.has_next && all.records.len() < MOST_VERSIONS {
            search.page += 1;
            let next = self.page(&path, &search, &[], &doing)?;
            all.has_next = next.has_next && !next.records.is_empty();
            all.records.extend(
                next.records
                    .into_iter()
                    .filter(|record| known.insert(record.id.clone())),
            );
        }
        Ok(all)
    }

    /// The files of a published record; none for a metadata-only one.
    ///
    /// # Errors
    /// `Denied` if the files are restricted, `NotFound` if there is no such record, else as any request.
    pub fn record_files(&self, id: &RecordId) -> Result<Vec<FileEntry>> {
        let url = self.transport.base.api(&format!("records/{id}/files"))?;
        let doing = format!("list the files of record {id}");
        let answer = self.ask(Ask::get(url, doing.as_str()).accept(JSON))?;
        read_files(&answer.value, &doing)
    }

    /// One page of any list of records.
    pub(super) fn page(
        &self,
        path: &str,
        search: &Search,
        more: &[(&str, &str)],
        doing: &str,
    ) -> Result<Page> {
        let (answer, end) = self.ask_page(path, search, more, RDM_JSON, doing)?;
        let page = read_page(answer.value, end, doing)?;
        self.notice_zenodo(&page.records);
        Ok(page)
    }
}

/// The id in `…/api/records/ID`, and nothing else.
fn record_id_in(url: &Url) -> Option<RecordId> {
    let parts: Vec<&str> = url.path_segments()?.filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [.., "api", "records", id] => RecordId::new(id),
        _ => None,
    }
}

/// A record in an answer.
pub(super) fn read_record(answer: Answer, doing: &str) -> Result<Record> {
    record_in(answer.value).map_err(|error| error.during(format_args!("can't {doing}")))
}

/// Takes out `ui`, which comes with the type that every flavour understands: with it, what GET and a search say of one
/// record would differ by the reader's language.
fn record_in(mut value: Value) -> Result<Record> {
    if let Value::Object(document) = &mut value {
        document.remove("ui");
    }
    Record::from_value(value)
}

fn read_page(value: Value, end: u64, doing: &str) -> Result<Page> {
    let Listing {
        items,
        total,
        has_next,
    } = read_listing(value, end, doing, |hit| match record_in(hit) {
        Ok(record) => Some(record),
        Err(error) => {
            log::warn!("{doing}: one of the records is left out: {error}");
            None
        }
    })?;
    Ok(Page {
        records: items,
        total,
        has_next,
    })
}

/// The entries of a list of files, which is a list here and an object in a record.
pub(super) fn read_files(value: &Value, doing: &str) -> Result<Vec<FileEntry>> {
    match value.get("entries") {
        Some(Value::Array(entries)) => Ok(entries.iter().filter_map(FileEntry::from_value).collect()),
        Some(Value::Object(entries)) => Ok(entries.values().filter_map(FileEntry::from_value).collect()),
        _ if value.get("enabled").and_then(Value::as_bool).is_some() => Ok(Vec::new()),
        _ => Err(Error::new(
            Kind::ServerFailed,
            format!("can't {doing}: the answer is JSON, but no list of files"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_id_is_taken_from_a_redirect() {
        for (target, id) in [
            (
                "https://other.example/api/records/abcde-12345",
                Some("abcde-12345"),
            ),
            (
                "http://h/deep/api/records/abcde-12345?expand=1",
                Some("abcde-12345"),
            ),
            ("https://h/api/records/abcde-12345/draft", None),
            ("https://h/records/abcde-12345", None),
            ("https://h/login", None),
        ] {
            let url = Url::parse(target).unwrap();
            assert_eq!(record_id_in(&url).as_ref().map(RecordId::as_str), id, "{target}");
        }
    }

    #[test]
    fn a_page_knows_whether_another_follows() {
        let hit = json!({"id": "abcde-12345", "ui": {"x": 1}});
        let page = |links: Value, total: u64, end: u64| {
            read_page(
                json!({"hits": {"hits": [hit], "total": total}, "links": links}),
                end,
                "search",
            )
            .unwrap()
        };
        assert!(page(json!({"next": "…"}), 30, 25).has_next);
        assert!(!page(json!({}), 30, 25).has_next);
        assert!(page(Value::Null, 30, 25).has_next);
        assert!(
            !page(json!({"next": "…"}), 30_000, 10_000).has_next,
            "beyond the window"
        );
        assert!(!page(json!({}), 1, 25).records[0].document().contains_key("ui"));
    }

    #[test]
    fn a_list_of_files_is_read_in_each_form_and_is_empty_for_metadata_only() {
        let read = |value: Value| read_files(&value, "list files").map(|entries| entries.len());
        assert_eq!(
            read(json!({"enabled": true, "entries": [{"key": "a"}]})).unwrap(),
            1
        );
        assert_eq!(
            read(json!({"enabled": true, "entries": {"a": {"key": "a"}}})).unwrap(),
            1
        );
        assert_eq!(read(json!({"enabled": false, "links": {}})).unwrap(), 0);
        assert_eq!(read(json!({})).unwrap_err().kind(), Kind::ServerFailed);
    }
}
