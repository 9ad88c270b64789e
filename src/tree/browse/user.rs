//! `user/`: links to the user's own published records and to the communities the user is a member of.

use super::pages::Source;
use super::{Spot, is_nothing};
use crate::catalog::Scope;
use crate::error::Result;
use crate::repository::Search;
use crate::repository::model::RecordId;
use crate::tree::view::Listing;
use crate::tree::{Tree, names};

/// A user with more records than this sees the first of them.
const MOST: usize = 2000;

impl Tree {
    pub(super) fn own_record(&self, name: &str) -> Result<Option<Spot>> {
        if RecordId::new(name).is_none() || !self.floors.repository.has_token() {
            return Ok(None);
        }
        self.find(&self.own_records(), MOST, name)
    }

    pub(super) fn own_community(&self, name: &str) -> Result<Option<Spot>> {
        if !self.floors.repository.has_token() {
            return Ok(None);
        }
        // One of such a name is not looked for, but opens once it was listed.
        let is_known = |slug: String| self.floors.catalog.known_community(&slug.into()).is_some();
        if is_nothing(name) && !names::id_of_name(name, "").is_some_and(is_known) {
            return Ok(None);
        }
        self.find(&Source::Communities { own: true }, MOST, name)
    }

    pub(super) fn list_own_records(&self) -> Result<Listing> {
        if !self.floors.repository.has_token() {
            return Ok(Listing::of(Vec::new()));
        }
        self.begin(self.own_records(), MOST)
    }

    pub(super) fn list_own_communities(&self) -> Result<Listing> {
        if !self.floors.repository.has_token() {
            return Ok(Listing::of(Vec::new()));
        }
        self.begin(Source::Communities { own: true }, MOST)
    }

    fn own_records(&self) -> Source {
        Source::Hits {
            scope: Scope::Own,
            search: Search {
                size: self.floors.repository.largest_page(),
                ..Search::default()
            },
            up: 2,
        }
    }
}
