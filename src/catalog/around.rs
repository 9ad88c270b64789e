//! What one finds by looking around: pages of hits, versions, other forms of a record, communities, vocabularies, DOIs.
//!
//! Each page is a question of its own, asked when somebody reads that far. The records in it fill the catalog, so that
//! walking through them asks nothing more. All of it is published: it may be shown stale while the repository can't be
//! reached.

use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::{Map, Value};

use super::ask::Dated;
use super::renew::Pages;
use super::timed::{Lifetimes, Timed, Weigh};
use super::{CAPACITY, Catalog, Said, Search, Topic, document};
use crate::error::{Error, Kind, Result};
use crate::repository::model::{Owner, RecordId, parse_time};
use crate::repository::{Community, ExportFormat, Repository, Term};

/// Something that the repository said.
#[derive(Debug)]
pub struct Told<T> {
    /// What.
    pub what: T,
    weight: usize,
    asked: SystemTime,
}

impl<T> Told<T> {
    fn new(what: T, weight: usize, asked: SystemTime) -> Self {
        Told { what, weight, asked }
    }
}

impl<T> Weigh for Told<T> {
    fn weight(&self) -> usize {
        self.weight
    }
}

impl<T> Dated for Told<T> {
    fn asked(&self) -> SystemTime {
        self.asked
    }
}

/// Where records are looked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everywhere.
    All,
    /// In a community, by its slug.
    Community(Arc<str>),
    /// Among the user's own published records.
    Own,
}

/// One page of hits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// Where.
    pub scope: Scope,
    /// What, and which page of it.
    pub search: Search,
}

/// A part of a list, in the order the repository gave.
#[derive(Debug)]
pub struct Piece<T> {
    /// What is in it.
    pub items: Vec<T>,
    /// Whether another follows.
    pub has_next: bool,
}

/// What the tree needs of a community.
#[derive(Debug)]
pub struct CommunityEntry {
    /// Its `community.json`.
    pub document: Bytes,
    /// When it last changed.
    pub updated: Option<SystemTime>,
    /// Whether all may see it.
    pub is_open: bool,
}

/// What a DOI, or the beginning of one, stands for.
#[derive(Debug, PartialEq, Eq)]
pub enum DoiEntry {
    /// A record.
    Record(RecordId),
    /// DOIs of records go on from here, after a `/`.
    Beginning,
}

/// A page of communities: whether of the user's own, and which.
type Whose = (bool, u32);
/// Slugs or ids.
type Names = Piece<Arc<str>>;

/// All that is known of this.
pub(super) struct Around {
    pub(super) hits: Timed<Question, Told<Piece<RecordId>>>,
    versions: Timed<RecordId, Told<Vec<(u64, RecordId)>>>,
    forms: Timed<(RecordId, &'static str), Told<Bytes>>,
    offered: Timed<(), Told<Vec<ExportFormat>>>,
    communities: Timed<Arc<str>, Told<CommunityEntry>>,
    community_pages: Timed<Whose, Told<Names>>,
    logos: Timed<Arc<str>, Told<Option<Bytes>>>,
    types: Timed<(), Told<Vec<Arc<str>>>>,
    term_pages: Timed<(Arc<str>, u32), Told<Names>>,
    terms: Timed<(Arc<str>, Arc<str>), Told<Bytes>>,
    dois: Timed<Arc<str>, Told<DoiEntry>>,
    pub(super) pages: Pages,
}

/// Which forms a repository has changes when it is upgraded: asked once in a day.
const FORMS_LIFE: Duration = Duration::from_secs(24 * 3600);
/// The name that they are kept under.
const FORMS_NAME: &str = "forms";
/// An id in a list, in bytes of memory.
const ID_WEIGHT: usize = 48;

impl Around {
    pub(super) fn new(lifetimes: Lifetimes) -> Self {
        Around {
            hits: Timed::new(CAPACITY, lifetimes),
            versions: Timed::new(CAPACITY / 4, lifetimes),
            forms: Timed::new(CAPACITY, lifetimes),
            offered: Timed::new(CAPACITY / 4, lifetimes),
            communities: Timed::new(CAPACITY, lifetimes),
            community_pages: Timed::new(CAPACITY / 4, lifetimes),
            logos: Timed::new(CAPACITY, lifetimes),
            types: Timed::new(CAPACITY / 4, lifetimes),
            term_pages: Timed::new(CAPACITY / 4, lifetimes),
            terms: Timed::new(CAPACITY, lifetimes),
            dois: Timed::new(CAPACITY / 4, lifetimes),
            pages: Pages::default(),
        }
    }

    /// A record is not as it was: neither are the lists that it may be in.
    pub(super) fn changed(&self, id: &RecordId) {
        self.hits.expire();
        self.versions.expire();
        self.dois.expire();
        self.forms.forget_if(|(of, _), _| of == id);
    }

    pub(super) fn expire(&self) {
        self.hits.expire();
        self.versions.expire();
        self.forms.expire();
        self.communities.expire();
        self.community_pages.expire();
        self.logos.expire();
        self.types.expire();
        self.term_pages.expire();
        self.terms.expire();
        self.dois.expire();
    }
}

impl Catalog {
    /// One page of hits, best first or as asked for.
    ///
    /// # Errors
    /// `Refused` for what the repository does not understand, `NotFound` for a community that is not there, or what kept the
    /// repository from answering.
    pub fn hits(&self, question: &Question) -> Result<Arc<Told<Piece<RecordId>>>> {
        self.told(&self.around.hits, question, |repository, asked| {
            let search = &question.search;
            let page = match &question.scope {
                Scope::All => repository.search(search)?,
                Scope::Community(slug) => repository.community_records(slug, search)?,
                Scope::Own => repository.user_records(search, Some(true))?,
            };
            let records = page.records.into_iter().filter(|record| record.is_published);
            let items: Vec<RecordId> = records
                .map(|record| {
                    // A record under edit is listed as its draft, which is not what is published.
                    if record.is_draft {
                        record.id
                    } else {
                        self.learn_record(record, asked)
                    }
                })
                .collect();
            self.around.pages.came(question, &items);
            let weight = items.len() * ID_WEIGHT;
            let has_next = page.has_next;
            Ok((Piece { items, has_next }, weight))
        })
    }

    /// A page of hits as far as it is known, current or not, without a request.
    #[must_use]
    pub fn known_hits(&self, question: &Question) -> Option<Arc<Told<Piece<RecordId>>>> {
        self.around.hits.peek(question)
    }

    /// All versions of a record, each with its number, in their order. Of one that says to be the only one, nobody is asked.
    ///
    /// # Errors
    /// As for [`Catalog::record`].
    pub fn versions(&self, id: &RecordId) -> Result<Vec<(u64, RecordId)>> {
        let entry = self.record(id)?;
        if entry.version == Some(1) && entry.is_latest == Some(true) {
            return Ok(vec![(1, entry.id.clone())]);
        }
        let listed = self.told(&self.around.versions, id, |repository, asked| {
            let found = repository.versions(id)?.records;
            let count = found.len() as u64;
            let numbered = found.into_iter().zip(0..).map(|(record, place)| {
                // Newest first, where they don't say their numbers.
                let number = record.document().get("versions").and_then(|own| own.get("index"));
                let number = number.and_then(Value::as_u64).unwrap_or(count - place);
                (number, self.learn_record(record, asked))
            });
            let mut versions: Vec<(u64, RecordId)> = numbered.collect();
            versions.sort();
            versions.dedup_by_key(|(number, _)| *number);
            let weight = versions.len() * (ID_WEIGHT + 8);
            Ok((versions, weight))
        })?;
        Ok(listed.what.clone())
    }

    /// A record in another form.
    ///
    /// # Errors
    /// `NotSupported` if the repository does not have it, else as for [`Catalog::record`].
    pub fn form(&self, id: &RecordId, format: ExportFormat) -> Result<Bytes> {
        let key = (id.clone(), format.name);
        let form = self.told(&self.around.forms, &key, |repository, _| {
            let owner = Owner::Record(id.clone());
            let bytes = repository.export(&owner, format)?.bytes;
            let weight = bytes.len();
            Ok((bytes, weight))
        })?;
        Ok(form.what.clone())
    }

    /// The length of a form that was fetched, and how long that counts as current.
    #[must_use]
    pub fn known_form(&self, id: &RecordId, format: ExportFormat) -> Option<(u64, Duration)> {
        let key = (id.clone(), format.name);
        let form = self.around.forms.current(&key)?;
        Some((form.what.len() as u64, self.around.forms.life(&key)))
    }

    /// The forms that the repository has. Asked once in a day, and kept.
    ///
    /// # Errors
    /// What kept the repository from answering.
    pub fn forms(&self, id: &RecordId) -> Result<Vec<ExportFormat>> {
        let ask = || {
            let known = self.around.offered.peek(&()).or_else(|| self.kept_forms());
            if let Some(value) = &known
                && let Some(life) = life_left_of_forms(value.asked)
            {
                let (value, life) = (Arc::clone(value), Some(life));
                return Ok(Said { value, life });
            }
            self.said(known, |_, asked| {
                // Always the same one: it remembers the answer.
                let forms = self.hasty.exports_offered(id)?;
                let told = Told::new(forms, ID_WEIGHT, asked);
                if let Some(store) = &self.store {
                    let names: Vec<&str> = told.what.iter().map(|form| form.name).collect();
                    let text = Value::from(names).to_string();
                    store.save(Topic::Forms, FORMS_NAME, told.asked, text.into());
                }
                Ok(Arc::new(told))
            })
        };
        let offered = self.around.offered.get_if(&(), |_| true, ask)?;
        Ok(offered.what.clone())
    }

    fn kept_forms(&self) -> Option<Arc<Told<Vec<ExportFormat>>>> {
        let kept = self.store.as_ref()?.load(Topic::Forms, FORMS_NAME)?;
        let names: Vec<String> = serde_json::from_slice(&kept.text).ok()?;
        let what = names
            .iter()
            .filter_map(|name| ExportFormat::named(name))
            .collect();
        Some(Arc::new(Told {
            what,
            weight: ID_WEIGHT,
            asked: kept.asked,
        }))
    }

    /// Learns which forms the repository has, before anybody wants to know: then looking into `exports` asks nothing.
    pub fn prepare_forms(&self) {
        // Which record it is does not matter: the repository compares the form before it looks for the record.
        if let Some(any) = RecordId::new("00000-00000")
            && let Err(error) = self.forms(&any)
        {
            log::debug!("{error}");
        }
    }

    /// A community, by its slug or UUID.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, or what kept the repository from answering.
    pub fn community(&self, slug: &Arc<str>) -> Result<Arc<Told<CommunityEntry>>> {
        self.told(&self.around.communities, slug, |repository, _| {
            let (_, told) = community_told(repository.community(slug)?);
            let weight = told.document.len();
            Ok((told, weight))
        })
    }

    /// A community as far as it is known, without a request.
    #[must_use]
    pub fn known_community(&self, slug: &Arc<str>) -> Option<Arc<Told<CommunityEntry>>> {
        self.around.communities.peek(slug)
    }

    /// A page of communities' slugs: of all, or of those that the user is a member of.
    ///
    /// # Errors
    /// What kept the repository from answering.
    pub fn communities(&self, own: bool, page: u32) -> Result<Arc<Told<Piece<Arc<str>>>>> {
        self.told(&self.around.community_pages, &(own, page), |repository, asked| {
            let search = Search {
                page,
                size: repository.largest_page(),
                ..Search::default()
            };
            let found = if own {
                repository.user_communities(&search)?
            } else {
                repository.communities(&search)?
            };
            let has_next = found.has_next;
            let items: Vec<Arc<str>> = found
                .items
                .into_iter()
                .map(|community| {
                    let (slug, told) = community_told(community);
                    let weight = told.document.len();
                    self.around.communities.put(&slug, Told::new(told, weight, asked));
                    slug
                })
                .collect();
            let weight = items.iter().map(|slug| slug.len() + ID_WEIGHT).sum();
            Ok((Piece { items, has_next }, weight))
        })
    }

    /// The logo of a community, if it has one.
    ///
    /// # Errors
    /// As for [`Catalog::community`].
    pub fn logo(&self, slug: &Arc<str>) -> Result<Option<Bytes>> {
        let logo = self.told(&self.around.logos, slug, |repository, _| {
            let bytes = repository.community_logo(slug)?.map(|logo| logo.bytes);
            let weight = bytes.as_ref().map_or(0, Bytes::len);
            Ok((bytes, weight))
        })?;
        Ok(logo.what.clone())
    }

    /// The length of a logo that was fetched, nothing for one that is not there, and how long that counts as current.
    #[must_use]
    pub fn known_logo(&self, slug: &Arc<str>) -> Option<(Option<u64>, Duration)> {
        let logo = self.around.logos.current(slug)?;
        let length = logo.what.as_ref().map(|bytes| bytes.len() as u64);
        Some((length, self.around.logos.life(slug)))
    }

    /// The types of vocabularies, as the server names them.
    ///
    /// # Errors
    /// What kept the repository from answering.
    pub fn vocabulary_types(&self) -> Result<Arc<Told<Vec<Arc<str>>>>> {
        self.told(&self.around.types, &(), |repository, _| {
            let types = repository.vocabulary_types()?;
            let mut names: Vec<Arc<str>> = types.into_iter().map(|kind| kind.name.into()).collect();
            names.sort();
            names.dedup();
            let weight = names.len() * ID_WEIGHT;
            Ok((names, weight))
        })
    }

    /// The types as far as they are known, without a request.
    #[must_use]
    pub fn known_vocabulary_types(&self) -> Option<Arc<Told<Vec<Arc<str>>>>> {
        self.around.types.peek(&())
    }

    /// A page of the ids of the words of a vocabulary.
    ///
    /// # Errors
    /// `Denied` for those that are not for guests, or what kept the repository from answering.
    pub fn terms(&self, kind: &Arc<str>, page: u32) -> Result<Arc<Told<Piece<Arc<str>>>>> {
        let key = (Arc::clone(kind), page);
        self.told(&self.around.term_pages, &key, |repository, asked| {
            let search = Search {
                page,
                size: repository.largest_page(),
                ..Search::default()
            };
            let found = repository.vocabulary(kind, &search)?;
            let has_next = found.has_next;
            let items: Vec<Arc<str>> = found
                .items
                .into_iter()
                .map(|term| {
                    let id: Arc<str> = term.id.as_str().into();
                    let (text, weight) = term_told(term);
                    let key = (Arc::clone(kind), Arc::clone(&id));
                    self.around.terms.put(&key, Told::new(text, weight, asked));
                    id
                })
                .collect();
            let weight = items.iter().map(|id| id.len() + ID_WEIGHT).sum();
            Ok((Piece { items, has_next }, weight))
        })
    }

    /// A word of a vocabulary: its document.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, or what kept the repository from answering.
    pub fn term(&self, kind: &Arc<str>, id: &Arc<str>) -> Result<Bytes> {
        let key = (Arc::clone(kind), Arc::clone(id));
        let term = self.told(&self.around.terms, &key, |repository, _| {
            Ok(term_told(repository.term(kind, id)?))
        })?;
        Ok(term.what.clone())
    }

    /// A word as far as it is known, without a request.
    #[must_use]
    pub fn known_term(&self, kind: &Arc<str>, id: &Arc<str>) -> Option<Bytes> {
        let key = (Arc::clone(kind), Arc::clone(id));
        Some(self.around.terms.peek(&key)?.what.clone())
    }

    /// What a DOI or the beginning of one stands for. Of one that holds the record's id, nobody is asked.
    ///
    /// # Errors
    /// `NotFound`, or what kept the repository from answering.
    pub fn doi(&self, doi: &Arc<str>) -> Result<Arc<Told<DoiEntry>>> {
        if let Some(id) = self.repository.id_in_doi(doi) {
            return Ok(Arc::new(Told::new(
                DoiEntry::Record(id),
                ID_WEIGHT,
                SystemTime::now(),
            )));
        }
        self.told(&self.around.dois, doi, |repository, asked| {
            let found = match repository.record_by_doi(doi) {
                Ok(record) => DoiEntry::Record(self.learn_record(record, asked)),
                Err(error) if error.kind() == Kind::NotFound => {
                    beginning(repository, doi, error)?;
                    DoiEntry::Beginning
                }
                Err(error) => return Err(error),
            };
            Ok((found, ID_WEIGHT + doi.len()))
        })
    }

    /// What is known while it is current, else what is asked for; one question at a time for each thing.
    fn told<K: Hash + Eq + Clone, T>(
        &self,
        table: &Timed<K, Told<T>>,
        key: &K,
        ask: impl Fn(&Repository, SystemTime) -> Result<(T, usize)>,
    ) -> Result<Arc<Told<T>>> {
        table.get_if(
            key,
            |_| true,
            || {
                self.listed(table.peek(key), |repository, asked| {
                    let (what, weight) = ask(repository, asked)?;
                    Ok(Arc::new(Told::new(what, weight, asked)))
                })
            },
        )
    }
}

/// How long the forms are current that were told then. What is of the future is of a clock that was wrong.
fn life_left_of_forms(asked: SystemTime) -> Option<Duration> {
    let left = FORMS_LIFE.checked_sub(asked.elapsed().ok()?)?;
    (!left.is_zero()).then_some(left)
}

/// Whether there are DOIs that go on after this and a `/`; if not, the error.
fn beginning(repository: &Repository, start: &str, error: Error) -> Result<()> {
    let search = Search {
        query: Some(format!("pids.doi.identifier:{}\\/*", escaped(start))),
        size: 1,
        all_versions: true,
        ..Search::default()
    };
    if repository.search(&search)?.records.is_empty() {
        return Err(error);
    }
    Ok(())
}

/// A text as one term of the query language.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        if !character.is_alphanumeric() && !matches!(character, '.' | '_') {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

fn community_told(community: Community) -> (Arc<str>, CommunityEntry) {
    let document = community.document;
    let time = |name: &str| document.get(name).and_then(Value::as_str).and_then(parse_time);
    let visibility = document.get("access").and_then(|access| access.get("visibility"));
    let told = CommunityEntry {
        updated: time("updated"),
        is_open: visibility.and_then(Value::as_str) != Some("restricted"),
        document: document::render_plain(document),
    };
    (community.slug.into(), told)
}

fn term_told(term: Term) -> (Bytes, usize) {
    let document: Map<String, Value> = term.document;
    let text = document::render_plain(document);
    let weight = text.len();
    (text, weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_doi_holds_is_one_term_of_a_query() {
        assert_eq!(escaped("10.1/a b*\"-_(x)"), "10.1\\/a\\ b\\*\\\"\\-_\\(x\\)");
    }
}
