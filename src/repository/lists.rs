//! Lists of any kind: their query strings, and their pages.
//!
//! Used by the resource files of this floor. Pages are asked for by number; `links.next` only tells whether there is one.

use std::sync::atomic::Ordering;
use std::time::Instant;

use reqwest::Url;
use serde_json::Value;

use super::model::Record;
use super::transport::{Answer, Ask, JSON};
use super::{Repository, Search};
use crate::error::{Error, Kind, Result};

/// No list goes further than this (the index window of InvenioRDM).
pub(super) const WINDOW: u64 = 10_000;

/// One page of a list of anything but records, which have [`super::model::Page`].
#[derive(Clone, Debug, PartialEq)]
pub struct Listing<T> {
    /// What is listed, in the order asked for.
    pub items: Vec<T>,
    /// How many there are in all.
    pub total: u64,
    /// Whether another page follows.
    pub has_next: bool,
}

impl Repository {
    /// The address of one page, and how many there are up to its end.
    pub(super) fn list_url(&self, path: &str, search: &Search, more: &[(&str, &str)]) -> Result<(Url, u64)> {
        let mut url = self.transport.base.api(path)?;
        let size = search.size.clamp(1, self.largest_page());
        let page = search.page.max(1);
        {
            let mut query = url.query_pairs_mut();
            if let Some(text) = search.query.as_deref().filter(|text| !text.is_empty()) {
                query.append_pair("q", text);
            }
            let own_sort = search.more.iter().any(|(name, _)| name == "sort");
            if let Some(sort) = search.sort.filter(|_| !own_sort) {
                query.append_pair("sort", sort);
            }
            query.append_pair("page", &page.to_string());
            query.append_pair("size", &size.to_string());
            if search.all_versions {
                query.append_pair("allversions", "true");
            }
            query.extend_pairs(&search.more);
            query.extend_pairs(more);
        }
        Ok((url, u64::from(page) * u64::from(size)))
    }

    /// One page of any list; what `read` makes nothing of is left out.
    pub(super) fn list<T>(
        &self,
        path: &str,
        search: &Search,
        more: &[(&str, &str)],
        doing: &str,
        read: impl FnMut(Value) -> Option<T>,
    ) -> Result<Listing<T>> {
        let (answer, end) = self.ask_page(path, search, more, JSON, doing)?;
        read_listing(answer.value, end, doing, read)
    }

    /// One page as the server gives it, and how many there are up to its end. A server that refuses the size of a first page is
    /// asked for the size that it names, now and from now on.
    pub(super) fn ask_page(
        &self,
        path: &str,
        search: &Search,
        more: &[(&str, &str)],
        accept: &'static str,
        doing: &str,
    ) -> Result<(Answer, u64)> {
        let mut largest = self.largest_page();
        loop {
            let (url, end) = self.list_url(path, search, more)?;
            self.wait_to_search(path, doing)?;
            let error = match self.ask(Ask::get(url, doing).accept(accept)) {
                Ok(answer) => return Ok((answer, end)),
                Err(error) => error,
            };
            match largest_named(&error) {
                // What a later page of shorter ones begins with is not what was asked for.
                Some(named) if named < largest.min(search.size) && search.page <= 1 => {
                    self.page_limit.fetch_min(named, Ordering::Relaxed);
                    largest = named;
                }
                _ => return Err(error),
            }
        }
    }

    /// Where searches of records are limited apart from all else, they wait for their turn.
    pub(super) fn wait_to_search(&self, path: &str, doing: &str) -> Result<()> {
        let searches = path == "records" || (path.starts_with("communities/") && path.ends_with("/records"));
        if !searches || !self.is_zenodo.load(Ordering::Relaxed) {
            return Ok(());
        }
        let begun = Instant::now();
        match self.search_pace.take_turn(self.transport.limits.whole) {
            Ok(wait) => {
                if !wait.is_zero() {
                    log::debug!(
                        "{doing}: waiting for {:.1} s, to keep to the search limit",
                        wait.as_secs_f64()
                    );
                    self.engine
                        .wait(async { tokio::time::sleep_until((begun + wait).into()).await });
                }
                Ok(())
            }
            Err(wait) => Err(Error::new(
                Kind::RateLimited,
                format!(
                    "can't {doing}: too many searches are waiting already, for {:.0} s",
                    wait.as_secs_f64().ceil()
                ),
            )
            .with_retry_after(wait)),
        }
    }

    /// Zenodo's records tell of it by their DOIs, which hold their ids. (Others have records with DOIs of Zenodo's, too.)
    pub(super) fn notice_zenodo(&self, records: &[Record]) {
        if records.iter().any(|record| {
            record
                .doi()
                .is_some_and(|doi| is_zenodo_doi(doi, record.id.as_str()))
        }) {
            self.is_zenodo.store(true, Ordering::Relaxed);
        }
    }
}

/// The size of a page that a server names when it refuses a larger one: `size: Page size cannot be greater than 25. …`
/// (reference, section 8).
fn largest_named(error: &Error) -> Option<u32> {
    let field = error.fields().iter().find(|field| field.field == "size")?;
    let (_, rest) = field.messages.first()?.split_once("greater than ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|size| *size > 0)
}

/// Whether it is the DOI that Zenodo gives a record with this id.
pub(super) fn is_zenodo_doi(doi: &str, id: &str) -> bool {
    doi.strip_prefix(super::doi::ZENODO) == Some(id)
}

/// Reads a page that ends with the `end`th item, if it is full.
pub(super) fn read_listing<T>(
    mut value: Value,
    end: u64,
    doing: &str,
    read: impl FnMut(Value) -> Option<T>,
) -> Result<Listing<T>> {
    let hits = value.pointer_mut("/hits/hits").map(Value::take);
    let Some(Value::Array(hits)) = hits else {
        return Err(Error::new(
            Kind::ServerFailed,
            format!("can't {doing}: the answer is JSON, but no list"),
        ));
    };
    let found = hits.len() as u64;
    let items = hits.into_iter().filter_map(read).collect();
    let total = value
        .pointer("/hits/total")
        .and_then(Value::as_u64)
        .unwrap_or(found);
    // `links.next` goes by the page size that the server really used; without links, we count.
    let has_next = match value.get("links") {
        Some(Value::Object(links)) => links.contains_key("next"),
        _ => end < total,
    };
    Ok(Listing {
        items,
        total,
        has_next: has_next && found > 0 && end < WINDOW,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Server, answer};
    use super::*;

    #[test]
    fn a_server_that_names_its_largest_page_is_asked_for_that_from_then_on() {
        let server = Server::start(|_, head, stream| {
            let kind = "Content-Type: application/json\r\n";
            let refused = br#"{"status": 400, "message": "A validation error occurred.", "errors": [{"field": "size",
                "messages": ["Page size cannot be greater than 25. Please log in to increase the limit to 100."]}]}"#;
            match head.line.contains("size=25") {
                true => answer(stream, 200, kind, br#"{"hits": {"hits": [], "total": 0}}"#),
                false => answer(stream, 400, kind, refused),
            }
        });
        let repository = server.repository();
        let search = Search {
            size: 60,
            ..Search::default()
        };
        repository.search(&search).unwrap();
        repository.communities(&search).unwrap();
        assert_eq!(server.count(), 3);
        assert_eq!(repository.largest_page(), 25);
    }

    #[test]
    fn a_record_with_a_doi_of_zenodos_makes_no_zenodo() {
        assert!(is_zenodo_doi("10.5281/zenodo.1234567", "1234567"));
        assert!(!is_zenodo_doi("10.5281/zenodo.1234567", "abcde-12345"));
        assert!(!is_zenodo_doi("10.5072/1234567", "1234567"));
    }
}
