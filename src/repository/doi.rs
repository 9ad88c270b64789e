//! Records by their DOIs.
//!
//! Called by `catalog/` and `cli/`. There is no look-up by DOI in the API: it is a search on `pids`, except for DOIs that
//! hold the record's id.

use super::model::{Record, RecordId, on_one_line};
use super::{Flavour, Repository, Search};
use crate::error::{Error, Kind, Result};

/// What Zenodo's DOIs begin with; a record's id follows.
pub(super) const ZENODO: &str = "10.5281/zenodo.";

impl Repository {
    /// The id that a DOI holds, if it does: Zenodo's do, on Zenodo. It may be the id of all versions.
    #[must_use]
    pub fn id_in_doi(&self, doi: &str) -> Option<RecordId> {
        if self.flavour_so_far() != Flavour::Zenodo {
            return None;
        }
        let start = doi.get(..ZENODO.len())?;
        let id = doi
            .strip_prefix(start)
            .filter(|_| start.eq_ignore_ascii_case(ZENODO))?;
        id.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| RecordId::new(id))
            .flatten()
    }

    /// The record with this DOI (`10.5072/abcde-12345`, without `doi:` or an address before it). For the DOI that all
    /// versions share, the latest one.
    ///
    /// # Errors
    /// `NotFound` if no record here has it, else as any request.
    pub fn record_by_doi(&self, doi: &str) -> Result<Record> {
        if let Some(id) = self.id_in_doi(doi) {
            return self.record(&id);
        }
        let not_found = || {
            Error::new(
                Kind::NotFound,
                format!("no record here has the DOI {}", on_one_line(doi)),
            )
            .with_advice("Check the DOI; a record just published may take a few seconds to be found.")
        };
        if !is_doi(doi) {
            return Err(not_found());
        }
        // DOIs are the same in any case of their letters; the index is not, and most are registered in lower case.
        let lower = doi.to_ascii_lowercase();
        let spellings: &[&str] = if lower == doi { &[doi] } else { &[doi, &lower] };
        for spelling in spellings {
            let quoted = quoted(spelling);
            for (field, all_versions) in [
                ("pids.doi.identifier", true),
                ("parent.pids.doi.identifier", false),
            ] {
                let search = Search {
                    query: Some(format!("{field}:{quoted}")),
                    all_versions,
                    ..Search::default()
                };
                // Where the index takes DOIs apart, one that goes on after this one is found as well.
                let mut found = self.search(&search)?.records.into_iter();
                if let Some(record) = found.find(|record| has_doi(record, doi)) {
                    return Ok(record);
                }
            }
        }
        Err(not_found())
    }

    /// The user's draft for which this DOI is reserved, if there is one.
    ///
    /// # Errors
    /// `Denied` without a valid token, else as any request.
    pub fn draft_by_doi(&self, doi: &str) -> Result<Option<Record>> {
        if !is_doi(doi) {
            return Ok(None);
        }
        let search = Search {
            query: Some(format!("pids.doi.identifier:{}", quoted(doi))),
            ..Search::default()
        };
        let found = self.user_records(&search, None)?.records.into_iter();
        Ok(found
            .filter(|record| record.is_draft)
            .find(|draft| has_doi(draft, doi)))
    }
}

/// Whether it is the DOI of this record, or of all its versions.
fn has_doi(record: &Record, doi: &str) -> bool {
    let parent = record.document().get("parent");
    let of_all = parent.and_then(|parent| parent.pointer("/pids/doi/identifier")?.as_str());
    [record.doi(), of_all]
        .into_iter()
        .flatten()
        .any(|known| known.eq_ignore_ascii_case(doi))
}

/// A directory indicator, a prefix and something behind the slash.
fn is_doi(text: &str) -> bool {
    let Some((prefix, suffix)) = text.split_once('/') else {
        return false;
    };
    prefix.strip_prefix("10.").is_some_and(|registrant| {
        !registrant.is_empty() && registrant.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    }) && !suffix.is_empty()
        && !suffix.contains(char::is_control)
        && text.len() <= 2048
}

/// As one phrase of the query language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doi_has_a_prefix_and_a_suffix() {
        for good in ["10.5072/abcde-12345", "10.48436/x/y", "10.1000.10/(a)<b>"] {
            assert!(is_doi(good), "{good}");
        }
        for bad in [
            "",
            "10.5072",
            "10.5072/",
            "11.5072/x",
            "doi:10.5072/x",
            "10./x",
            "10.50x/y",
            "10.5/a\nb",
        ] {
            assert!(!is_doi(bad), "{bad}");
        }
    }

    #[test]
    fn a_record_has_its_own_doi_and_that_of_all_its_versions() {
        let record = Record::from_value(serde_json::json!({
            "id": "abcde-12345", "pids": {"doi": {"identifier": "10.1/A/b"}},
            "parent": {"pids": {"doi": {"identifier": "10.1/all"}}},
        }))
        .unwrap();
        assert!(has_doi(&record, "10.1/a/b") && has_doi(&record, "10.1/all"));
        assert!(!has_doi(&record, "10.1/a") && !has_doi(&record, "10.1/a/b/c"));
    }

    #[test]
    fn a_doi_can_not_end_its_phrase() {
        assert_eq!(quoted("10.1/a\" OR \\x"), "\"10.1/a\\\" OR \\\\x\"");
    }
}
