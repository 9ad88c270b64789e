//! What we know of the repository: records, drafts, lists of files, listings.
//!
//! Called by `tree/`; asks `repository/`. Listings fill it with the records they carry, so that walking a listing
//! costs pages, not records. It never says what a thing is called in the tree.

mod document;
pub(crate) mod timed;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::error::{Error, Kind, Result};
use crate::repository::model::{FileEntry, Files, Owner, Record, RecordId};
use crate::repository::{Repository, Search};
use timed::{Lifetimes, Timed, Weigh};

/// The files of a record or draft.
pub type FileList = Vec<FileEntry>;

/// What the tree needs of a record or draft.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its id; differs from the one asked for if that was a concept id.
    pub id: RecordId,
    /// Its title.
    pub title: String,
    /// When this version was published, or the draft begun.
    pub created: Option<SystemTime>,
    /// When the document last changed.
    pub updated: Option<SystemTime>,
    /// Whether all may read record and files.
    pub is_open: bool,
    /// Published at least once: a draft with it is an edit.
    pub is_published: bool,
    /// The revision of the document.
    pub revision: Option<u64>,
    /// Its `record.json`.
    pub document: Bytes,
    files: KnownFiles,
}

/// What a record's document says of its files.
#[derive(Clone, Debug)]
enum KnownFiles {
    /// All of them.
    Listed(Arc<FileList>),
    /// Nothing, and whoever wants to know has to ask for the list.
    Unlisted,
    /// Nothing, because this user may not see them.
    Restricted,
    /// Nothing, because this is a hit: the record itself says more. Its document is not the whole one.
    LeftOut,
}

/// Where a document comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Single,
    Hit,
}

impl Entry {
    fn new(record: Record, source: Source) -> Self {
        Entry {
            document: document::render(record.document()),
            files: match record.files {
                Files::Disabled => KnownFiles::Listed(Arc::default()),
                Files::Listed(entries) => KnownFiles::Listed(Arc::new(entries)),
                Files::Unlisted if record.is_draft => KnownFiles::Unlisted,
                Files::Unlisted if source == Source::Hit => KnownFiles::LeftOut,
                // The record lists its files for those who may see them (API notes, section 2).
                Files::Unlisted if !record.is_open => KnownFiles::Restricted,
                Files::Unlisted => KnownFiles::Unlisted,
            },
            id: record.id,
            title: record.title,
            created: record.created,
            updated: record.updated,
            is_open: record.is_open,
            is_published: record.is_published,
            revision: record.revision,
        }
    }
}

/// A file entry with its key, MIME type and place in the list, in bytes of memory.
const FILE_WEIGHT: usize = 200;

impl Weigh for Entry {
    fn weight(&self) -> usize {
        let files = match &self.files {
            KnownFiles::Listed(files) => files.len() * FILE_WEIGHT,
            KnownFiles::Unlisted | KnownFiles::Restricted | KnownFiles::LeftOut => 0,
        };
        self.document.len() + self.title.len() + files
    }
}

/// A list that is shared with those who look at it.
struct Listed(Arc<FileList>);

impl Weigh for Listed {
    fn weight(&self) -> usize {
        self.0.len() * FILE_WEIGHT
    }
}

struct Ids(Vec<RecordId>);

impl Weigh for Ids {
    fn weight(&self) -> usize {
        self.0.len() * 32
    }
}

/// How long what is known counts as current.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Published records and their listings.
    pub records: Duration,
    /// Drafts and their files.
    pub drafts: Duration,
}

/// The catalog of one repository.
pub struct Catalog {
    repository: Arc<Repository>,
    records: Timed<RecordId, Entry>,
    drafts: Timed<RecordId, Entry>,
    files: Timed<Owner, Listed>,
    draft_files: Timed<RecordId, Listed>,
    newest: Timed<(), Ids>,
    own_drafts: Timed<(), Ids>,
}

/// Memory for published records: about 4,000 of them with their documents.
const RECORDS_CAPACITY: usize = 32 << 20;
/// Memory for each of the other tables.
const CAPACITY: usize = 8 << 20;
/// As long as a passing failure is repeated to those who ask again.
const FAILED: Duration = Duration::from_secs(1);
/// The page that `ls records` shows; the server's own default, and the most that Zenodo gives to guests.
const NEWEST: u32 = 25;
/// A page of the user's own records; the most that Zenodo gives.
const OWN_PAGE: u32 = 100;
/// A user with more records than this sees the newest drafts among them; any other still opens by its id.
const OWN_PAGES: u32 = 20;

impl Catalog {
    /// An empty catalog.
    #[must_use]
    pub fn new(repository: Arc<Repository>, times: Times) -> Self {
        // A record that is not there may be published any moment: asked again as soon as a draft would be.
        let records = Lifetimes {
            found: times.records,
            refused: times.drafts,
            failed: FAILED,
        };
        let drafts = Lifetimes {
            found: times.drafts,
            refused: times.drafts,
            failed: FAILED,
        };
        Catalog {
            repository,
            records: Timed::new(RECORDS_CAPACITY, records),
            drafts: Timed::new(CAPACITY, drafts),
            files: Timed::new(CAPACITY, records),
            draft_files: Timed::new(CAPACITY, drafts),
            newest: Timed::new(CAPACITY, records),
            own_drafts: Timed::new(CAPACITY, drafts),
        }
    }

    /// A published record. If `id` is a concept id, this is its latest version, with another id.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, or what kept the repository from answering.
    pub fn record(&self, id: &RecordId) -> Result<Arc<Entry>> {
        let enough = |entry: &Entry| !matches!(entry.files, KnownFiles::LeftOut);
        let ask = || {
            self.repository
                .record(id)
                .map(|record| Entry::new(record, Source::Single))
        };
        let entry = self.records.get_if(id, enough, ask)?;
        if entry.id != *id && self.records.current(&entry.id).is_none() {
            self.records.put(&entry.id, Entry::clone(&entry));
        }
        Ok(entry)
    }

    /// A record as far as it is known, without a request.
    #[must_use]
    pub fn known_record(&self, id: &RecordId) -> Option<Arc<Entry>> {
        self.records.peek(id)
    }

    /// A draft.
    ///
    /// # Errors
    /// As for [`Catalog::record`].
    pub fn draft(&self, id: &RecordId) -> Result<Arc<Entry>> {
        self.drafts.get(id, || {
            self.repository
                .draft(id)
                .map(|draft| Entry::new(draft, Source::Single))
        })
    }

    /// A draft as far as it is known, without a request.
    #[must_use]
    pub fn known_draft(&self, id: &RecordId) -> Option<Arc<Entry>> {
        self.drafts.peek(id)
    }

    /// The files of a record or draft, in the server's order.
    ///
    /// # Errors
    /// As for [`Catalog::record`]; `Denied` where the files are restricted.
    pub fn files(&self, owner: &Owner) -> Result<Arc<FileList>> {
        match owner {
            Owner::Record(id) => {
                match &self.record(id)?.files {
                    KnownFiles::Listed(files) => return Ok(Arc::clone(files)),
                    KnownFiles::Restricted => {
                        let what = format!("the files of record {id} are restricted");
                        return Err(Error::new(Kind::Denied, what));
                    }
                    KnownFiles::Unlisted | KnownFiles::LeftOut => {}
                }
                let ask = || {
                    self.repository
                        .record_files(id)
                        .map(|files| Listed(Arc::new(files)))
                };
                self.files.get(owner, ask).map(|listed| Arc::clone(&listed.0))
            }
            Owner::Draft(id) => {
                let ask = || {
                    self.repository
                        .draft_files(id)
                        .map(|files| Listed(Arc::new(files)))
                };
                self.draft_files.get(id, ask).map(|listed| Arc::clone(&listed.0))
            }
        }
    }

    /// The files as far as they are known, without a request.
    #[must_use]
    pub fn known_files(&self, owner: &Owner) -> Option<Arc<FileList>> {
        match owner {
            Owner::Record(id) => match &self.records.peek(id)?.files {
                KnownFiles::Listed(files) => Some(Arc::clone(files)),
                _ => self.files.peek(owner).map(|listed| Arc::clone(&listed.0)),
            },
            Owner::Draft(id) => self.draft_files.peek(id).map(|listed| Arc::clone(&listed.0)),
        }
    }

    /// How long what is known of a record or draft and its files still counts as current.
    #[must_use]
    pub fn life_of(&self, owner: &Owner) -> Duration {
        match owner {
            Owner::Record(id) => self.records.life(id),
            Owner::Draft(id) => match self.draft_files.life(id) {
                Duration::ZERO => self.drafts.life(id),
                life => self.drafts.life(id).min(life),
            },
        }
    }

    /// The newest published records, one page.
    ///
    /// # Errors
    /// What kept the repository from answering.
    pub fn newest(&self) -> Result<Vec<RecordId>> {
        let ask = || {
            let search = Search {
                sort: Some("newest"),
                size: NEWEST,
                ..Search::default()
            };
            let page = self.repository.search(&search)?;
            Ok(Ids(page
                .records
                .into_iter()
                .map(|record| self.learn_record(record))
                .collect()))
        };
        self.newest.get(&(), ask).map(|ids| ids.0.clone())
    }

    /// The user's drafts, edits of published records among them.
    ///
    /// # Errors
    /// What kept the repository from answering.
    pub fn own_drafts(&self) -> Result<Vec<RecordId>> {
        if !self.repository.has_token() {
            return Ok(Vec::new());
        }
        let ask = || {
            let mut ids = Vec::new();
            for number in 1..=OWN_PAGES {
                // The server can't filter for drafts: an edit of a published record counts as published there.
                let search = Search {
                    page: number,
                    size: OWN_PAGE,
                    ..Search::default()
                };
                let page = self.repository.user_records(&search, None)?;
                ids.extend(
                    page.records
                        .into_iter()
                        .filter(|r| r.is_draft)
                        .map(|r| self.learn_draft(r)),
                );
                if !page.has_next {
                    break;
                }
            }
            Ok(Ids(ids))
        };
        self.own_drafts.get(&(), ask).map(|ids| ids.0.clone())
    }

    /// A draft was made or changed here, and is this now.
    pub fn draft_saved(&self, record: Record) -> Arc<Entry> {
        let id = record.id.clone();
        self.own_drafts.change(&(), |known| {
            let mut ids = known.0.clone();
            if !ids.contains(&id) {
                ids.push(id.clone());
            }
            Ids(ids)
        });
        self.drafts.put(&id, Entry::new(record, Source::Single))
    }

    /// A draft is gone.
    pub fn draft_discarded(&self, id: &RecordId) {
        self.own_drafts.change(&(), |known| {
            Ids(known.0.iter().filter(|own| *own != id).cloned().collect())
        });
        self.drafts.forget(id);
        self.draft_files.forget(id);
    }

    /// A file of a draft was committed.
    pub fn file_committed(&self, draft: &RecordId, entry: &FileEntry) {
        self.draft_files.change(draft, |listed| {
            let mut files: FileList = listed
                .0
                .iter()
                .filter(|file| file.key != entry.key)
                .cloned()
                .collect();
            files.push(entry.clone());
            Listed(Arc::new(files))
        });
    }

    /// A file of a draft is gone from the server.
    pub fn file_removed(&self, draft: &RecordId, key: &str) {
        self.draft_files.change(draft, |listed| {
            Listed(Arc::new(
                listed
                    .0
                    .iter()
                    .filter(|file| &*file.key != key)
                    .cloned()
                    .collect(),
            ))
        });
    }

    /// Asks anew for everything the next time: somebody changed things elsewhere.
    pub fn expire(&self) {
        self.records.expire();
        self.drafts.expire();
        self.files.expire();
        self.draft_files.expire();
        self.newest.expire();
        self.own_drafts.expire();
    }

    /// Asks anew for the files of a draft the next time: something there was not as we thought.
    pub fn forget_files(&self, owner: &Owner) {
        match owner {
            Owner::Record(id) => {
                self.records.forget(id);
                self.files.forget(owner);
            }
            Owner::Draft(id) => self.draft_files.forget(id),
        }
    }

    fn learn_record(&self, record: Record) -> RecordId {
        let id = record.id.clone();
        let newer = self
            .records
            .current(&id)
            .is_none_or(|known| known.updated < record.updated);
        if newer {
            self.records.put(&id, Entry::new(record, Source::Hit));
        }
        id
    }

    fn learn_draft(&self, record: Record) -> RecordId {
        let id = record.id.clone();
        // The index lags by a second or more: a draft that we know to be as new is not replaced.
        let newer = self
            .drafts
            .current(&id)
            .is_none_or(|known| known.updated < record.updated);
        if newer {
            self.drafts.put(&id, Entry::new(record, Source::Hit));
        }
        id
    }
}
