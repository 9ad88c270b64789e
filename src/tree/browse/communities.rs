//! `communities/<slug>/`: its document, its logo, and links to its records.

use std::sync::Arc;
use std::time::Duration;

use super::pages::Source;
use super::{Link, Spot, is_nothing};
use crate::catalog::Scope;
use crate::error::{Kind, Result};
use crate::repository::Search;
use crate::repository::model::RecordId;
use crate::tree::node::{Access, Attributes, Node};
use crate::tree::view::{Line, Listing};
use crate::tree::{Tree, names};

/// As many communities are listed; any other opens by its slug.
const LISTED: usize = 200;

const DOCUMENT: &str = "community.json";
pub(in crate::tree) const LOGO: &str = "logo";
const RECORDS: &str = "records";

impl Tree {
    pub(super) fn community_named(&self, name: &str) -> Result<Option<Spot>> {
        let Some(slug) = names::id_of_name(name, "") else {
            return Ok(None);
        };
        let slug: Arc<str> = slug.into();
        if is_nothing(name) {
            let known = self.floors.catalog.known_community(&slug);
            return Ok(known.map(|_| Spot::Community(slug)));
        }
        match self.floors.catalog.community(&slug) {
            Ok(_) => Ok(Some(Spot::Community(slug))),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn community_child(&self, slug: &Arc<str>, name: &str) -> Option<Spot> {
        let slug = Arc::clone(slug);
        Some(match name {
            DOCUMENT => Spot::CommunityDocument(slug),
            LOGO => Spot::CommunityLogo(slug),
            RECORDS => Spot::CommunityRecords(slug),
            _ => return None,
        })
    }

    pub(super) fn record_of_community(&self, slug: &Arc<str>, name: &str) -> Result<Option<Spot>> {
        if RecordId::new(name).is_none() {
            return Ok(None);
        }
        self.find(&self.records_of(slug), self.rules.search_limit, name)
    }

    pub(super) fn list_communities(&self) -> Result<Listing> {
        self.begin(Source::Communities { own: false }, LISTED)
    }

    pub(super) fn list_community(&self, slug: &Arc<str>) -> Result<Listing> {
        let mut lines = Vec::new();
        for name in [DOCUMENT, LOGO, RECORDS] {
            // Whether there is a logo is known once it was looked for.
            if name == LOGO && matches!(self.floors.catalog.known_logo(slug), Some((None, _))) {
                continue;
            }
            if let Some(spot) = self.community_child(slug, name) {
                lines.push(Line {
                    name: name.to_owned(),
                    attributes: self.community_attributes(&spot, slug)?,
                    node: Node::Around(spot),
                });
            }
        }
        Ok(Listing::of(lines))
    }

    pub(super) fn list_records_of(&self, slug: &Arc<str>) -> Result<Listing> {
        self.begin(self.records_of(slug), self.rules.search_limit)
    }

    pub(super) fn community_attributes(&self, spot: &Spot, slug: &Arc<str>) -> Result<Attributes> {
        let community = self.floors.catalog.community(slug)?;
        let access = if community.what.is_open {
            Access::Open
        } else {
            Access::Private
        };
        let known = self.plain(spot, access, community.what.updated, self.rules.times.records);
        Ok(match spot {
            Spot::CommunityDocument(_) => Attributes {
                size: community.what.document.len() as u64,
                ..known
            },
            Spot::CommunityLogo(_) => {
                let logo = self.floors.catalog.known_logo(slug);
                Attributes {
                    size: logo.and_then(|(length, _)| length).unwrap_or(0),
                    valid: logo.map_or(Duration::ZERO, |(_, life)| life),
                    ..known
                }
            }
            _ => known,
        })
    }

    /// The lines of communities, or links to them from `user`. A slug that can't be shown is left out.
    pub(super) fn lines_of_communities(&self, slugs: &[Arc<str>], own: bool) -> Vec<Line> {
        let line = |slug: &Arc<str>| {
            let name = names::name_of_id(slug, "");
            if name.is_none() {
                log::warn!("a community is not shown: its slug has {} bytes", slug.len());
            }
            let name = name?;
            if own {
                return Some(self.line_of_link(&name, Link::to_community(2, slug)?));
            }
            let spot = Spot::Community(Arc::clone(slug));
            let known = self.floors.catalog.known_community(slug)?;
            let access = if known.what.is_open {
                Access::Open
            } else {
                Access::Private
            };
            Some(Line {
                name,
                attributes: self.plain(&spot, access, known.what.updated, self.rules.times.records),
                node: Node::Around(spot),
            })
        };
        slugs.iter().filter_map(line).collect()
    }

    fn records_of(&self, slug: &Arc<str>) -> Source {
        Source::Hits {
            scope: Scope::Community(Arc::clone(slug)),
            search: Search {
                sort: Some("newest"),
                size: self.floors.repository.largest_page(),
                ..Search::default()
            },
            up: 3,
        }
    }
}
