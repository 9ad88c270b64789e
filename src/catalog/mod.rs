//! What we know of the repository: records, drafts, lists of files, listings.
//!
//! Called by `tree/`; asks `repository/`. Listings fill it with the records they carry, so that walking a listing
//! costs pages, not records. What is published is kept on disk too, for the next mount and for when the repository can't be
//! reached. It never says what a thing is called in the tree.

mod around;
mod ask;
mod document;
mod entry;
mod kept;
mod list;
mod reach;
mod renew;
mod store;
pub(crate) mod timed;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};
use crate::repository::model::{FileEntry, Owner, Record, RecordId};
use crate::repository::{Repository, Search};
use around::Around;
use entry::{FILE_WEIGHT, KnownFiles, Source};
use reach::{Heard, Probing, Reach, Way, heard};
use store::{Store, Topic};
use timed::{Lifetimes, Said, Timed, Weigh};

pub use around::{CommunityEntry, DoiEntry, Piece, Question, Scope, Told};
pub use entry::Entry;
pub use kept::{kept_bytes, remove_kept};
pub use list::FileList;
pub use reach::{Offline, Overdue, is_silence};

/// A list that is shared with those who look at it.
struct Listed {
    files: Arc<FileList>,
    asked: SystemTime,
}

impl Listed {
    fn now(files: impl Into<FileList>) -> Self {
        Listed {
            files: Arc::new(files.into()),
            asked: SystemTime::now(),
        }
    }
}

impl Weigh for Listed {
    fn weight(&self) -> usize {
        self.files.len() * FILE_WEIGHT
    }
}

struct Ids {
    ids: Vec<RecordId>,
    asked: SystemTime,
}

impl Ids {
    fn now(ids: Vec<RecordId>) -> Self {
        Ids {
            ids,
            asked: SystemTime::now(),
        }
    }
}

impl Weigh for Ids {
    fn weight(&self) -> usize {
        self.ids.len() * 32
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

/// Where what is known is kept, and whether it is all there is.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// The cache directory.
    pub directory: PathBuf,
    /// Whose view of the repository it is: what one user may see another may not.
    pub account: String,
    /// Bytes on disk at most; 0 keeps nothing.
    pub limit: u64,
}

/// The catalog of one repository.
pub struct Catalog {
    repository: Arc<Repository>,
    /// For what is known already: nobody waits long for a newer state of it.
    hasty: Arc<Repository>,
    times: Times,
    store: Option<Store>,
    reach: Arc<Reach>,
    /// What was kept before this is to be asked for again.
    kept_since: Mutex<SystemTime>,
    /// When we last heard that something was changed on the server.
    changed: Mutex<Option<Instant>>,
    records: Timed<RecordId, Entry>,
    drafts: Timed<RecordId, Entry>,
    files: Timed<Owner, Listed>,
    draft_files: Timed<RecordId, Listed>,
    newest: Timed<(), Ids>,
    own_drafts: Timed<(), Ids>,
    around: Around,
}

/// Memory for published records: about 4,000 of them with their documents.
const RECORDS_CAPACITY: usize = 32 << 20;
/// Memory for each of the other tables.
const CAPACITY: usize = 8 << 20;
/// As long as an answer is waited for by who has an older one: large documents come slowly over slow lines, and every look
/// waits for the first one after the network has gone.
const PATIENCE: Duration = Duration::from_secs(15);
/// As long as something old counts that is shown because its newer state didn't come although the repository answers: each
/// try may take as long as `PATIENCE`.
const OVERDUE: Duration = Duration::from_secs(60);
/// As long as something old counts that was shown because the repository can't be reached: when it answers again, that is
/// seen soon.
const STALE: Duration = Duration::from_secs(1);
/// As long as a passing failure is repeated to those who ask again.
const FAILED: Duration = Duration::from_secs(1);
/// As long as the repository's index may take to learn of a change: a second by itself (reference, section 5), more while
/// the server is busy.
const INDEX_LAG: Duration = Duration::from_secs(10);
/// As long as something counts that the index said then.
const UNSURE: Duration = Duration::from_secs(1);
/// The page that `ls records` shows; the server's own default, and the most that Zenodo gives to guests.
const NEWEST: u32 = 25;
/// A page of the user's own records; the most that Zenodo gives.
const OWN_PAGE: u32 = 100;
/// A user with more records than this sees the newest drafts among them; any other still opens by its id.
const OWN_PAGES: u32 = 20;

impl Catalog {
    /// A catalog that begins with what an earlier one has kept.
    #[must_use]
    pub fn new(repository: Arc<Repository>, times: Times, keeping: Option<&Keeping>) -> Self {
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
        let words = repository.words();
        Catalog {
            hasty: Arc::new(repository.hasty(PATIENCE)),
            repository,
            times,
            store: keeping.and_then(ask::open_store),
            reach: Arc::new(Reach::of(words)),
            kept_since: Mutex::new(SystemTime::UNIX_EPOCH),
            changed: Mutex::default(),
            records: Timed::new(RECORDS_CAPACITY, records),
            drafts: Timed::new(CAPACITY, drafts),
            files: Timed::new(CAPACITY, records),
            draft_files: Timed::new(CAPACITY, drafts),
            newest: Timed::new(CAPACITY, records),
            own_drafts: Timed::new(CAPACITY, drafts),
            around: Around::new(records),
        }
    }

    /// A published record. If `id` is a concept id, this is its latest version, with another id.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, or what kept the repository from answering.
    pub fn record(&self, id: &RecordId) -> Result<Arc<Entry>> {
        let entry = self.records.get_if(id, Entry::is_whole, || self.ask_record(id))?;
        if entry.id != *id && self.records.current(&entry.id).is_none() {
            let said = Said {
                value: Arc::clone(&entry),
                life: Some(self.records.life(id)),
            };
            self.records.put_said(&entry.id, said);
        }
        Ok(entry)
    }

    /// A record as far as it is known, without a request.
    #[must_use]
    pub fn known_record(&self, id: &RecordId) -> Option<Arc<Entry>> {
        if let Some(entry) = self.records.peek(id) {
            return Some(entry);
        }
        let entry = self.kept_record(id)?;
        let life = self.life_left(entry.asked).unwrap_or_default();
        let said = Said {
            value: Arc::clone(&entry),
            life: Some(life),
        };
        self.records.put_if_unknown(id, said);
        Some(entry)
    }

    /// A draft.
    ///
    /// # Errors
    /// As for [`Catalog::record`].
    pub fn draft(&self, id: &RecordId) -> Result<Arc<Entry>> {
        self.drafts.get(id, || {
            let asked = SystemTime::now();
            self.heard(self.repository.draft(id))
                .map(|draft| Entry::new(draft, Source::Single, asked))
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
                self.files
                    .get_if(owner, |_| true, || self.ask_files(id))
                    .map(|listed| Arc::clone(&listed.files))
            }
            Owner::Draft(id) => {
                let ask = || self.heard(self.repository.draft_files(id)).map(Listed::now);
                self.draft_files
                    .get(id, ask)
                    .map(|listed| Arc::clone(&listed.files))
            }
        }
    }

    /// The files as far as they are known, without a request.
    #[must_use]
    pub fn known_files(&self, owner: &Owner) -> Option<Arc<FileList>> {
        match owner {
            Owner::Record(id) => match &self.records.peek(id)?.files {
                KnownFiles::Listed(files) => Some(Arc::clone(files)),
                _ => self.files.peek(owner).map(|listed| Arc::clone(&listed.files)),
            },
            Owner::Draft(id) => self.draft_files.peek(id).map(|listed| Arc::clone(&listed.files)),
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
        self.newest
            .get_if(&(), |_| true, || self.ask_newest())
            .map(|newest| newest.ids.clone())
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
                let page = self.heard(self.repository.user_records(&search, None))?;
                ids.extend(
                    page.records
                        .into_iter()
                        .filter(|r| r.is_draft && !self.drafts.is_refused(&r.id))
                        .map(|r| self.learn_draft(r)),
                );
                if !page.has_next {
                    break;
                }
            }
            Ok(Ids::now(ids))
        };
        self.own_drafts.get(&(), ask).map(|own| own.ids.clone())
    }

    /// A draft was made or changed here, and is this now.
    pub fn draft_saved(&self, record: Record) -> Arc<Entry> {
        let id = record.id.clone();
        self.own_drafts.change(&(), |known| {
            let mut ids = known.ids.clone();
            if !ids.contains(&id) {
                ids.push(id.clone());
            }
            Ids { ids, ..*known }
        });
        self.drafts
            .put(&id, Entry::new(record, Source::Single, SystemTime::now()))
    }

    /// A draft is gone.
    pub fn draft_discarded(&self, id: &RecordId) {
        self.own_drafts.change(&(), |known| {
            let others = known.ids.iter().filter(|own| *own != id);
            Ids {
                ids: others.cloned().collect(),
                ..*known
            }
        });
        self.drafts.forget(id);
        self.draft_files.forget(id);
    }

    /// A file of a draft was committed.
    pub fn file_committed(&self, draft: &RecordId, entry: &FileEntry) {
        self.draft_files
            .change(draft, |listed| Listed::now(listed.files.with(entry)));
    }

    /// A file of a draft is gone from the server.
    pub fn file_removed(&self, draft: &RecordId, key: &str) {
        self.draft_files
            .change(draft, |listed| Listed::now(listed.files.without(key)));
    }

    /// Asks anew for everything the next time: somebody changed things elsewhere. If the repository can't be reached, that
    /// is tried at once.
    pub fn expire(&self) {
        self.distrust_kept();
        self.records.expire();
        self.drafts.expire();
        self.files.expire();
        self.draft_files.expire();
        self.newest.expire();
        self.own_drafts.expire();
        if self.reach.hurry() {
            self.probe();
        }
        self.around.expire();
    }

    /// Something was changed elsewhere just now: asks anew for everything the next time, and does not rely for long on what
    /// listings say until they have learned of it.
    pub fn changed_somewhere(&self) {
        *self.changed.lock() = Some(Instant::now());
        self.expire();
    }

    /// A record or draft with this id, or that all its versions share, was changed, published or discarded by somebody else:
    /// asks anew for both the next time, for all its versions, and for all lists that they may be in. That a draft is there,
    /// or is not there any more, is known from then on: the server's listings learn of it later.
    ///
    /// Returns the ids of what is not as it was: this one, and the others that were known.
    pub fn changed_elsewhere(&self, id: &RecordId) -> Vec<RecordId> {
        *self.changed.lock() = Some(Instant::now());
        let known = self.records.peek(id).or_else(|| self.drafts.peek(id));
        let concept = known.and_then(|entry| entry.concept.clone());
        self.records.forget(id);
        self.files.forget(&Owner::Record(id.clone()));
        self.drop_kept(id);
        self.drafts.forget(id);
        self.draft_files.forget(id);
        self.newest.expire();
        self.around.changed(id);
        let mut changed = vec![id.clone()];
        if self.repository.has_token() {
            self.ask_for_changed_draft(id);
        }
        // Of one that nobody has looked at, the record itself tells which its other versions are.
        let concept = concept.or_else(|| self.record(id).ok()?.concept.clone());
        // It may itself be the id that they share.
        changed.extend(self.other_versions_changed(id, &concept.unwrap_or_else(|| id.clone())));
        changed
    }

    /// Asks anew for all that share this id, but for one of them.
    fn other_versions_changed(&self, but: &RecordId, concept: &RecordId) -> Vec<RecordId> {
        let is_other = |id: &RecordId, entry: &Entry| id != but && entry.concept.as_ref() == Some(concept);
        let mut others = self.records.forget_if(is_other);
        if concept != but && !others.contains(concept) {
            others.push(concept.clone());
        }
        for id in &others {
            self.files.forget(&Owner::Record(id.clone()));
            self.drop_kept(id);
            self.around.changed(id);
        }
        others
    }

    fn ask_for_changed_draft(&self, id: &RecordId) {
        match self.heard(self.repository.draft(id)) {
            Ok(draft) => drop(self.draft_saved(draft)),
            Err(error) if error.kind() == Kind::NotFound => {
                self.draft_discarded(id);
                // Remembered as an answer, so that a listing that lags doesn't bring it back.
                drop(self.drafts.get(id, || Err(error.clone())));
            }
            Err(_) => self.own_drafts.expire(),
        }
    }

    /// Asks anew for the files of a draft the next time: something there was not as we thought.
    pub fn forget_files(&self, owner: &Owner) {
        match owner {
            Owner::Record(id) => {
                self.distrust_kept();
                self.records.forget(id);
                self.files.forget(owner);
            }
            Owner::Draft(id) => self.draft_files.forget(id),
        }
    }

    fn learn_record(&self, record: Record, asked: SystemTime) -> RecordId {
        let id = record.id.clone();
        // The index lags behind what was asked for by itself.
        if (self.records.peek(&id)).is_some_and(|known| known.updated > record.updated) {
            return id;
        }
        let value = Arc::new(self.renewed(record, Source::Hit, asked));
        let known = self.records.current(&id);
        if !value.is_whole() && known.is_some_and(|known| known.updated == value.updated) {
            return id;
        }
        let lags = self.index_lags();
        if !lags {
            self.keep_record(&id, &value);
        }
        let life = lags.then_some(UNSURE);
        self.records.put_said(&id, Said { value, life });
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
            self.drafts
                .put(&id, Entry::new(record, Source::Hit, SystemTime::now()));
        }
        id
    }
}
