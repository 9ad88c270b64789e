//! Links: relative, so that they lead to the same thing wherever the mount is.

use std::sync::Arc;

use super::Spot;
use crate::repository::model::RecordId;
use crate::tree::node::{Access, Attributes};
use crate::tree::{Tree, names};

/// A link, which is told apart from others by where it leads alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Folders up.
    up: u8,
    goal: Goal,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Goal {
    /// From the top.
    Record(RecordId),
    /// From `records`.
    Version(RecordId),
    /// From the top, by the name it is shown under.
    Community(Arc<str>),
}

impl Link {
    /// To a record, from so many folders below the top.
    pub(super) fn to_record(up: usize, id: RecordId) -> Spot {
        Spot::Link(Link {
            up: u8::try_from(up).unwrap_or(u8::MAX),
            goal: Goal::Record(id),
        })
    }

    /// To another version, from a record's `versions`.
    pub(super) fn to_version(id: RecordId) -> Spot {
        Spot::Link(Link {
            up: 2,
            goal: Goal::Version(id),
        })
    }

    /// To a community, from so many folders below the top. `None` for a slug that can't be shown.
    pub(super) fn to_community(up: u8, slug: &str) -> Option<Spot> {
        let name = names::name_of_id(slug, "")?;
        Some(Spot::Link(Link {
            up,
            goal: Goal::Community(name.into()),
        }))
    }

    /// What readlink(2) says.
    #[must_use]
    pub fn text(&self) -> String {
        let up = "../".repeat(self.up.into());
        match &self.goal {
            Goal::Record(id) => format!("{up}records/{id}"),
            Goal::Version(id) => format!("{up}{id}"),
            Goal::Community(name) => format!("{up}communities/{name}"),
        }
    }

    /// The record it leads to.
    #[must_use]
    pub fn record(&self) -> Option<&RecordId> {
        match &self.goal {
            Goal::Record(id) | Goal::Version(id) => Some(id),
            Goal::Community(_) => None,
        }
    }
}

impl Tree {
    /// What lstat(2) says of a link. Nobody is asked.
    pub(super) fn link_attributes(&self, link: &Link) -> Attributes {
        let known = link.record().and_then(|id| self.floors.catalog.known_record(id));
        let updated = known.and_then(|entry| entry.updated);
        Attributes {
            size: link.text().len() as u64,
            ..self.plain(
                &Spot::Link(link.clone()),
                Access::Open,
                updated,
                self.rules.times.records,
            )
        }
    }
}
