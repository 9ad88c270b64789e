//! `search/<query>/`: links to the records that a search finds, best match first.
//!
//! Any name is a query, so looking one up asks nobody: the search is made when the folder is listed, page by page.

use std::sync::Arc;

use super::pages::Source;
use super::{Spot, is_nothing};
use crate::catalog::Scope;
use crate::error::{Error, Kind, Result};
use crate::repository::Search;
use crate::repository::model::RecordId;
use crate::tree::view::Listing;
use crate::tree::{Tree, names};

impl Tree {
    pub(super) fn search_named(&self, name: &str) -> Result<Option<Spot>> {
        if is_nothing(name) {
            return Ok(None);
        }
        if !names::is_showable_name(name) {
            return Err(Error::new(
                Kind::Refused,
                format!("{name:?} is no search: it holds control characters"),
            ));
        }
        Search::typed(name)?;
        Ok(Some(Spot::Search(name.into())))
    }

    pub(super) fn hit_of_search(&self, query: &Arc<str>, name: &str) -> Result<Option<Spot>> {
        if RecordId::new(name).is_none() {
            return Ok(None);
        }
        let found = self.find(&self.search_source(query)?, self.rules.search_limit, name)?;
        if found.is_some() {
            self.seen.searches.lock().put(Arc::clone(query), ());
        }
        Ok(found)
    }

    pub(super) fn list_search(&self, query: &Arc<str>) -> Result<Listing> {
        let listing = self.begin(self.search_source(query)?, self.rules.search_limit)?;
        self.seen.searches.lock().put(Arc::clone(query), ());
        Ok(listing)
    }

    /// What was searched in this mount.
    pub(super) fn list_searches(&self) -> Listing {
        let mut queries: Vec<Arc<str>> = {
            let seen = self.seen.searches.lock();
            seen.iter().map(|(query, ())| Arc::clone(query)).collect()
        };
        queries.sort();
        let lines = queries
            .into_iter()
            .map(|query| self.line_of_folder(&query, Spot::Search(Arc::clone(&query))));
        Listing::of(lines.collect())
    }

    fn search_source(&self, query: &str) -> Result<Source> {
        let mut search = Search::typed(query)?;
        if !says_size(query) {
            search.size = self.floors.repository.largest_page();
        }
        Ok(Source::Hits {
            scope: Scope::All,
            search,
            up: 2,
        })
    }
}

/// Whether a query string says how long its pages are.
fn says_size(query: &str) -> bool {
    let parameters = query.strip_prefix('?').unwrap_or_default();
    parameters.split('&').any(|pair| pair.starts_with("size="))
}
