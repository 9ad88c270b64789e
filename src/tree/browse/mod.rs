//! What one finds by looking around: searches, communities, vocabularies, DOIs, the versions and other forms of a record.
//!
//! One file for each kind of folder. All of it is published and read-only. Records are never shown twice: wherever one
//! is found, there is a link to it.

mod communities;
mod doi;
mod exports;
mod links;
mod pages;
mod search;
mod user;
mod versions;
mod vocabularies;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use super::node::{Access, Attributes, Kind, Node};
use super::open::{Handle, Opened};
use super::view::{Line, Listing};
use super::{FOREVER, Facts, Tree, names};
use crate::catalog;
use crate::error::{Error, Result};
use crate::repository::ExportFormat;
use crate::repository::model::RecordId;
pub(super) use communities::LOGO;
pub(super) use doi::steps_of;
pub use links::Link;
pub use pages::Growing;

/// A place in what one finds by looking around.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Spot {
    /// `records/<id>/versions`
    Versions(RecordId),
    /// `records/<id>/exports`
    Exports(RecordId),
    /// `records/<id>/exports/<name>`, by the name of one of [`crate::repository::EXPORTS`].
    Export(RecordId, &'static str),
    /// `search`
    Searches,
    /// `search/<query>`
    Search(Arc<str>),
    /// `user`
    User,
    /// `user/records`
    UserRecords,
    /// `user/communities`
    UserCommunities,
    /// `communities`
    Communities,
    /// `communities/<slug>`
    Community(Arc<str>),
    /// `communities/<slug>/community.json`
    CommunityDocument(Arc<str>),
    /// `communities/<slug>/logo`
    CommunityLogo(Arc<str>),
    /// `communities/<slug>/records`
    CommunityRecords(Arc<str>),
    /// `vocabularies`
    Vocabularies,
    /// `vocabularies/<type>`
    Vocabulary(Arc<str>),
    /// `vocabularies/<type>/<id>.json`
    Term(Arc<str>, Arc<str>),
    /// `doi`
    Dois,
    /// `doi/<prefix>`, and the folders that the `/` in suffixes make.
    DoiFolder(Arc<str>),
    /// To a record or a community.
    Link(Link),
}

/// What was looked up in this mount, and is listed therefore.
pub(super) struct Seen {
    searches: Mutex<LruCache<Arc<str>, ()>>,
    dois: Mutex<LruCache<Arc<str>, RecordId>>,
}

/// As many searches are listed.
const SEARCHES: NonZeroUsize = NonZeroUsize::new(100).unwrap();
/// As many DOIs are listed.
const DOIS: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

impl Default for Seen {
    fn default() -> Self {
        Seen {
            searches: Mutex::new(LruCache::new(SEARCHES)),
            dois: Mutex::new(LruCache::new(DOIS)),
        }
    }
}

impl Spot {
    /// What programs can do with it.
    pub fn kind(&self) -> Kind {
        match self {
            Spot::Export(..) | Spot::CommunityDocument(_) | Spot::CommunityLogo(_) | Spot::Term(..) => {
                Kind::File
            }
            Spot::Link(_) => Kind::Link,
            _ => Kind::Folder,
        }
    }

    /// The record that it belongs to, or that it leads to.
    pub(super) fn record(&self) -> Option<&RecordId> {
        match self {
            Spot::Versions(id) | Spot::Exports(id) | Spot::Export(id, _) => Some(id),
            Spot::Link(link) => link.record(),
            _ => None,
        }
    }

    /// Whether it holds links to records by their ids.
    pub(super) fn has_links_to_records(&self) -> bool {
        matches!(
            self,
            Spot::Search(_) | Spot::UserRecords | Spot::CommunityRecords(_)
        )
    }

    /// What stands at the top of the mount.
    pub(super) fn at_the_top(name: &str) -> Option<Spot> {
        Some(match name {
            "communities" => Spot::Communities,
            "doi" => Spot::Dois,
            "search" => Spot::Searches,
            "user" => Spot::User,
            "vocabularies" => Spot::Vocabularies,
            _ => return None,
        })
    }

    /// What stands beside a record's files.
    pub(super) fn of_record(id: &RecordId, name: &str) -> Option<Spot> {
        Some(match name {
            "exports" => Spot::Exports(id.clone()),
            "versions" => Spot::Versions(id.clone()),
            _ => return None,
        })
    }
}

impl Tree {
    /// The lines of all this at the top of the mount.
    pub(super) fn lines_at_the_top(&self) -> Vec<Line> {
        ["communities", "doi", "search", "user", "vocabularies"]
            .into_iter()
            .filter_map(|name| Some(self.line_of_folder(name, Spot::at_the_top(name)?)))
            .collect()
    }

    /// The lines of all this in a record.
    pub(super) fn lines_of_record(&self, entry: &catalog::Entry) -> Vec<Line> {
        let mut lines = vec![self.line_in_record("exports", Spot::Exports(entry.id.clone()), entry)];
        // Whoever follows links comes to all versions from the latest one, and would come to them in every order if each
        // showed the others. It opens in all of them.
        if entry.is_latest != Some(false) {
            lines.push(self.line_in_record("versions", Spot::Versions(entry.id.clone()), entry));
        }
        lines
    }

    fn line_in_record(&self, name: &str, spot: Spot, entry: &catalog::Entry) -> Line {
        let node = Node::Around(spot);
        Line {
            name: name.to_owned(),
            attributes: Attributes {
                links: 1,
                ..self.entry_attributes(&node, entry)
            },
            node,
        }
    }

    fn line_of_folder(&self, name: &str, spot: Spot) -> Line {
        Line {
            name: name.to_owned(),
            attributes: self.standing(&spot),
            node: Node::Around(spot),
        }
    }

    /// The node that a name in one of these folders stands for.
    pub(super) fn child_around(&self, parent: &Spot, name: &str) -> Result<Option<Node>> {
        let found = match parent {
            Spot::Versions(id) => self.version_child(id, name)?,
            Spot::Exports(id) => self.export_child(id, name)?,
            Spot::Searches => self.search_named(name)?,
            Spot::Search(query) => self.hit_of_search(query, name)?,
            Spot::User => match name {
                "communities" => Some(Spot::UserCommunities),
                "records" => Some(Spot::UserRecords),
                _ => None,
            },
            Spot::UserRecords => self.own_record(name)?,
            Spot::UserCommunities => self.own_community(name)?,
            Spot::Communities => self.community_named(name)?,
            Spot::Community(slug) => self.community_child(slug, name),
            Spot::CommunityRecords(slug) => self.record_of_community(slug, name)?,
            Spot::Vocabularies => self.vocabulary_named(name)?,
            Spot::Vocabulary(kind) => self.term_named(kind, name)?,
            Spot::Dois => doi::prefix(name).map(Spot::DoiFolder),
            Spot::DoiFolder(path) => self.doi_child(path, name)?,
            Spot::Export(..)
            | Spot::CommunityDocument(_)
            | Spot::CommunityLogo(_)
            | Spot::Term(..)
            | Spot::Link(_) => return Err(Error::call(libc::ENOTDIR)),
        };
        Ok(found.map(Node::Around))
    }

    /// How long the kernel may rely on a name not being in one of these folders.
    pub(super) fn absence_around(&self, parent: &Spot) -> Duration {
        match parent {
            Spot::User | Spot::Community(_) | Spot::Dois => FOREVER,
            Spot::Exports(_) | Spot::Vocabularies => self.rules.times.records,
            _ => self.rules.times.drafts,
        }
    }

    /// What stat(2) says of one of these places.
    pub(super) fn attributes_around(&self, spot: &Spot) -> Result<Attributes> {
        match spot {
            Spot::Versions(id) | Spot::Exports(id) => {
                let entry = self.floors.catalog.record(id)?;
                Ok(self.entry_attributes(&Node::Around(spot.clone()), &entry))
            }
            Spot::Export(id, name) => self.export_attributes(id, name),
            Spot::Community(slug)
            | Spot::CommunityDocument(slug)
            | Spot::CommunityLogo(slug)
            | Spot::CommunityRecords(slug) => self.community_attributes(spot, slug),
            Spot::Term(kind, id) => self.term_attributes(kind, id),
            Spot::Link(link) => Ok(self.link_attributes(link)),
            Spot::Searches
            | Spot::Search(_)
            | Spot::User
            | Spot::UserRecords
            | Spot::UserCommunities
            | Spot::Communities
            | Spot::Vocabularies
            | Spot::Vocabulary(_)
            | Spot::Dois
            | Spot::DoiFolder(_) => Ok(self.standing(spot)),
        }
    }

    /// Lists one of these folders.
    pub(super) fn list_around(&self, spot: &Spot) -> Result<Listing> {
        match spot {
            Spot::Versions(id) => self.list_versions(id),
            Spot::Exports(id) => self.list_exports(id),
            Spot::Searches => Ok(self.list_searches()),
            Spot::Search(query) => self.list_search(query),
            Spot::User => Ok(Listing::of(vec![
                self.line_of_folder("communities", Spot::UserCommunities),
                self.line_of_folder("records", Spot::UserRecords),
            ])),
            Spot::UserRecords => self.list_own_records(),
            Spot::UserCommunities => self.list_own_communities(),
            Spot::Communities => self.list_communities(),
            Spot::Community(slug) => self.list_community(slug),
            Spot::CommunityRecords(slug) => self.list_records_of(slug),
            Spot::Vocabularies => self.list_vocabularies(),
            Spot::Vocabulary(kind) => self.list_terms(kind),
            Spot::Dois => Ok(self.list_dois(None)),
            Spot::DoiFolder(path) => Ok(self.list_dois(Some(path))),
            Spot::Export(..)
            | Spot::CommunityDocument(_)
            | Spot::CommunityLogo(_)
            | Spot::Term(..)
            | Spot::Link(_) => Err(Error::call(libc::ENOTDIR)),
        }
    }

    /// Opens one of these files. What is read is what it was then.
    pub(super) fn open_around(&self, spot: &Spot) -> Result<Opened> {
        let text: Bytes = match spot {
            Spot::Export(id, name) => {
                let format = ExportFormat::named(name).ok_or_else(|| Error::call(libc::ENOENT))?;
                self.floors.catalog.form(id, format)?
            }
            Spot::CommunityDocument(slug) => self.floors.catalog.community(slug)?.what.document.clone(),
            Spot::CommunityLogo(slug) => {
                let logo = self.floors.catalog.logo(slug)?;
                logo.ok_or_else(|| Error::call(libc::ENOENT))?
            }
            Spot::Term(kind, id) => self.floors.catalog.term(kind, id)?,
            _ => return Err(Error::call(libc::EISDIR)),
        };
        Ok(Opened {
            direct: true,
            ..Opened::plain(Handle::Text(text))
        })
    }

    /// Attributes of a folder that is there whatever the repository says.
    fn standing(&self, spot: &Spot) -> Attributes {
        let access = match spot {
            Spot::User | Spot::UserRecords | Spot::UserCommunities => Access::Private,
            _ => Access::Open,
        };
        let valid = match spot {
            Spot::DoiFolder(_) | Spot::Vocabulary(_) => self.rules.times.records,
            _ => FOREVER,
        };
        self.plain(spot, access, None, valid)
    }

    /// Attributes with the size of nothing.
    fn plain(&self, spot: &Spot, access: Access, mtime: Option<SystemTime>, valid: Duration) -> Attributes {
        Attributes {
            kind: spot.kind(),
            access,
            told: Facts::default(),
            links: 1,
            size: 0,
            mtime: mtime.unwrap_or(self.facts.started),
            valid,
        }
    }
}

/// Whether a name in one of these folders is no name of anything, and nobody need be asked.
fn is_nothing(name: &str) -> bool {
    name.starts_with('.') || names::is_probe(name)
}
