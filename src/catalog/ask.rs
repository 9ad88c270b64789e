//! From where an answer comes: the disk while it is current, else the repository, and if that can't be reached, what was
//! known last.
//!
//! This holds for what is published. Drafts change under our hands: nothing is said of them that the repository has not
//! said in this mount.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::entry::{list_from_text, list_to_text};
use super::store::Kept;
use super::{
    Catalog, Entry, Heard, INDEX_LAG, Ids, Keeping, KnownFiles, Listed, NEWEST, OVERDUE, Offline, Overdue,
    Probing, STALE, Said, Search, Source, Store, Topic, UNSURE, Way, heard,
};
use crate::error::{Error, Kind, Result};
use crate::repository::Repository;
use crate::repository::model::{Owner, Record, RecordId};

/// What has a time at which the repository said it.
pub(super) trait Dated {
    fn asked(&self) -> SystemTime;
}

impl Dated for Entry {
    fn asked(&self) -> SystemTime {
        self.asked
    }
}

impl Dated for Listed {
    fn asked(&self) -> SystemTime {
        self.asked
    }
}

impl Dated for Ids {
    fn asked(&self) -> SystemTime {
        self.asked
    }
}

/// Whether a failure says nothing of what was asked for, so that what is known of it still holds.
fn is_no_answer(error: &Error) -> bool {
    error.kind().is_passing() || error.is_foreign()
}

/// The name that the newest page is kept under.
const NEWEST_NAME: &str = "newest";

/// Opens the store. A mount without one works as well, so that is no error.
pub(super) fn open_store(keeping: &Keeping) -> Option<Store> {
    if keeping.limit == 0 {
        return None;
    }
    match Store::open(&keeping.directory, &keeping.account, keeping.limit) {
        Ok(store) => Some(store),
        Err(error) => {
            let place = keeping.directory.display();
            log::warn!("can't keep what is known of records below {place}: {error}");
            None
        }
    }
}

impl Catalog {
    /// Whether anything was kept of this account's view, so that there is something to show without the repository.
    #[must_use]
    pub fn is_kept(keeping: &Keeping) -> bool {
        keeping.limit > 0 && Store::has_any(&keeping.directory, &keeping.account)
    }

    /// The repository did not answer when it was asked by somebody else a moment ago.
    pub fn begin_offline(&self) {
        self.reach.silent();
    }

    /// Since when the repository can't be reached, if so.
    #[must_use]
    pub fn offline(&self) -> Option<Offline> {
        self.reach.offline()
    }

    /// Drops what is kept on disk for the next mount. Returns how many bytes that is.
    #[must_use]
    pub fn clear_kept(&self) -> u64 {
        self.store.as_ref().map_or(0, Store::clear)
    }

    /// What is shown although it is not current, while the repository can be reached.
    #[must_use]
    pub fn overdue(&self) -> Option<Overdue> {
        self.reach.overdue()
    }

    /// Writes what is still to be kept.
    pub fn shutdown(&self) {
        if let Some(store) = &self.store {
            store.shutdown();
        }
    }

    pub(super) fn ask_record(&self, id: &RecordId) -> Result<Said<Entry>> {
        if let Some(said) = self.by_its_page(id) {
            return Ok(said);
        }
        let whole = |entry: &Arc<Entry>| entry.is_whole();
        let newest = self.records.peek(id);
        let known = newest.clone().filter(whole);
        let known = known.or_else(|| self.kept_record(id).filter(whole));
        let ask = |repository: &Repository, asked| match repository.record(id) {
            Ok(record) => {
                let entry = Arc::new(self.renewed(record, Source::Single, asked));
                self.keep_record(id, &entry);
                Ok(entry)
            }
            Err(error) => Err(self.dropping_kept(id, error)),
        };
        // A listing may have told of a newer state than that on disk, but not all of it. And what is known here, and was
        // not enough, is not current any more.
        let is_outdated = |known: &Arc<Entry>| {
            let newest = newest.as_ref();
            newest.is_some_and(|newest| newest.updated > known.updated || newest.is_whole())
        };
        if known.as_ref().is_some_and(is_outdated) {
            return self.asked_for(known, ask);
        }
        self.said(known, ask)
    }

    /// Drops what is kept of a record, if the repository itself says that it is not there or not for us.
    fn dropping_kept(&self, id: &RecordId, error: Error) -> Error {
        if matches!(error.kind(), Kind::NotFound | Kind::Denied) && !error.is_foreign() {
            self.drop_kept(id);
        }
        error
    }

    /// Drops what is kept of a record.
    pub(super) fn drop_kept(&self, id: &RecordId) {
        if let Some(store) = &self.store {
            for topic in [Topic::Record, Topic::Hit, Topic::Files, Topic::Concept] {
                store.remove(topic, id.as_str());
            }
        }
    }

    pub(super) fn ask_files(&self, id: &RecordId) -> Result<Said<Listed>> {
        let known = self.files.peek(&Owner::Record(id.clone())).or_else(|| {
            let kept = self.store.as_ref()?.load(Topic::Files, id.as_str())?;
            Some(Arc::new(Listed {
                files: Arc::new(list_from_text(&kept.text)?),
                asked: kept.asked,
            }))
        });
        self.said(known, |repository, asked| {
            let files = repository
                .record_files(id)
                .map_err(|error| self.dropping_kept(id, error))?;
            let files = Arc::new(files.into());
            let listed = Listed { files, asked };
            if let Some(store) = &self.store {
                store.save(
                    Topic::Files,
                    id.as_str(),
                    listed.asked,
                    list_to_text(&listed.files),
                );
            }
            Ok(Arc::new(listed))
        })
    }

    pub(super) fn ask_newest(&self) -> Result<Said<Ids>> {
        let kept = || {
            let kept = self.store.as_ref()?.load(Topic::Newest, NEWEST_NAME)?;
            let ids: Vec<String> = serde_json::from_slice(&kept.text).ok()?;
            Some(Arc::new(Ids {
                ids: ids.iter().filter_map(|id| RecordId::new(id)).collect(),
                asked: kept.asked,
            }))
        };
        let ask = |repository: &Repository, asked| {
            let search = Search {
                sort: Some("newest"),
                size: NEWEST,
                ..Search::default()
            };
            let page = repository.search(&search)?;
            let ids = page
                .records
                .into_iter()
                .map(|record| self.learn_record(record, asked))
                .collect();
            let newest = Ids { ids, asked };
            if let Some(store) = &self.store {
                let ids: Vec<&str> = newest.ids.iter().map(RecordId::as_str).collect();
                let text = serde_json::json!(ids).to_string();
                store.save(Topic::Newest, NEWEST_NAME, newest.asked, text.into());
            }
            Ok(Arc::new(newest))
        };
        match self.newest.peek(&()) {
            // It is asked for because that is not current any more.
            Some(known) => self.listed(Some(known), ask),
            None => self.said(kept(), ask),
        }
    }

    /// As [`Catalog::asked_for`], of what the repository looks up in its index: that learns of a change a while later, and what
    /// it says until then counts for a moment alone.
    pub(super) fn listed<V: Dated>(
        &self,
        known: Option<Arc<V>>,
        ask: impl FnOnce(&Repository, SystemTime) -> Result<Arc<V>>,
    ) -> Result<Said<V>> {
        let mut said = self.asked_for(known, ask)?;
        said.life = said.life.or(self.index_lags().then_some(UNSURE));
        Ok(said)
    }

    /// Whether the repository's index may not know yet of a change that we know of.
    pub(super) fn index_lags(&self) -> bool {
        let changed = *self.changed.lock();
        changed.is_some_and(|changed| changed.elapsed() < INDEX_LAG)
    }

    /// What is known while it is current; else what is asked for; and if there is no answer, what is known all the same.
    pub(super) fn said<V: Dated>(
        &self,
        known: Option<Arc<V>>,
        ask: impl FnOnce(&Repository, SystemTime) -> Result<Arc<V>>,
    ) -> Result<Said<V>> {
        if let Some(value) = &known
            && let Some(life) = self.life_left(value.asked())
        {
            return Ok(Said {
                value: Arc::clone(value),
                life: Some(life),
            });
        }
        self.asked_for(known, ask)
    }

    /// What is asked for; and if there is no answer, what is known. `ask` is told when it began.
    fn asked_for<V: Dated>(
        &self,
        known: Option<Arc<V>>,
        ask: impl FnOnce(&Repository, SystemTime) -> Result<Arc<V>>,
    ) -> Result<Said<V>> {
        let way = self.reach.way();
        let has_to_ask = way == Way::Open || (way == Way::Doubtful && known.is_none());
        if has_to_ask {
            let repository = if known.is_some() {
                &self.hasty
            } else {
                &self.repository
            };
            // What changes between question and answer may be missing in the answer.
            let asked = SystemTime::now();
            return match self.heard(ask(repository, asked)) {
                Ok(value) => Ok(Said { value, life: None }),
                Err(error) => match known {
                    Some(value) if is_no_answer(&error) => Ok(self.instead(value, &error)),
                    _ => Err(error),
                },
            };
        }
        if way == Way::Probe {
            self.probe();
        }
        known.map(|value| self.stale(value)).ok_or_else(|| {
            let what = format!(
                "{} can't be reached, and nothing is known of this",
                self.repository.url()
            );
            Error::new(Kind::Unreachable, what)
                .with_advice("Check the network; it is tried again within a minute.")
        })
    }

    fn stale<V: Dated>(&self, value: Arc<V>) -> Said<V> {
        self.reach.shown(value.asked());
        Said {
            value,
            life: Some(STALE),
        }
    }

    /// What is known, in place of an answer that did not come.
    fn instead<V: Dated>(&self, value: Arc<V>, error: &Error) -> Said<V> {
        if heard(error) == Heard::Silence {
            return self.stale(value);
        }
        let life = error.retry_after().unwrap_or(OVERDUE).max(STALE);
        log::warn!("{error}; what is known is shown for another {} s", life.as_secs());
        self.reach.put_off(value.asked(), life, error);
        Said {
            value,
            life: Some(life),
        }
    }

    /// Takes note of whether the repository has answered.
    pub(super) fn heard<T>(&self, answer: Result<T>) -> Result<T> {
        match answer.as_ref().map_or_else(heard, |_| Heard::Word) {
            Heard::Word => self.reach.answered(),
            Heard::Silence => self.reach.silent(),
            Heard::Doubt => {
                if self.reach.doubt() {
                    self.probe();
                }
            }
            Heard::Nothing => {}
        }
        answer
    }

    /// Finds out whether the repository answers. Nobody waits for it. Who calls it was told to by `reach`.
    pub(super) fn probe(&self) {
        let (repository, probing) = (Arc::clone(&self.hasty), Probing(Arc::clone(&self.reach)));
        let started = std::thread::Builder::new()
            .name("probe".to_owned())
            .spawn(move || probing.end(repository.identify().err().as_ref()));
        if let Err(error) = started {
            log::warn!("can't start a thread: {error}");
        }
    }

    /// How long something that was said then is current.
    pub(super) fn life_left(&self, asked: SystemTime) -> Option<Duration> {
        if asked < *self.kept_since.lock() {
            return None;
        }
        // What is of the future is of a clock that was wrong.
        let age = asked.elapsed().ok()?;
        self.times.records.checked_sub(age).filter(|left| !left.is_zero())
    }

    /// What is kept is to be asked for again.
    pub(super) fn distrust_kept(&self) {
        *self.kept_since.lock() = SystemTime::now();
    }

    /// A record as it was kept, however long ago.
    pub(super) fn kept_record(&self, id: &RecordId) -> Option<Arc<Entry>> {
        let store = self.store.as_ref()?;
        let read = |kept: Kept| {
            let source = match kept.topic {
                Topic::Hit => Source::Hit,
                _ => Source::Single,
            };
            Entry::kept(kept.text, source, kept.asked).ok()
        };
        let Some(kept) = store.load(Topic::Record, id.as_str()) else {
            return store.load(Topic::Hit, id.as_str()).and_then(read).map(Arc::new);
        };
        if kept.topic != Topic::Concept {
            return read(kept).map(Arc::new);
        }
        let latest = RecordId::new(std::str::from_utf8(&kept.text).ok()?)?;
        let mut entry = read(store.load(Topic::Record, latest.as_str())?)?;
        entry.asked = entry.asked.min(kept.asked);
        Some(Arc::new(entry))
    }

    /// Keeps what the repository said of a record, under the id that was asked for.
    pub(super) fn keep_record(&self, id: &RecordId, entry: &Entry) {
        let Some(store) = &self.store else {
            return;
        };
        let topic = if entry.is_whole() {
            Topic::Record
        } else {
            Topic::Hit
        };
        store.save(topic, entry.id.as_str(), entry.asked, entry.document.clone());
        if entry.id != *id {
            let latest = entry.id.to_string();
            store.save(Topic::Concept, id.as_str(), entry.asked, latest.into());
        }
    }

    /// What the repository says of a record now, with what has stayed the same shared.
    pub(super) fn renewed(&self, record: Record, source: Source, asked: SystemTime) -> Entry {
        let mut entry = Entry::new(record, source, asked);
        if let Some(older) = self.records.peek(&entry.id)
            && matches!(entry.files, KnownFiles::Listed(_))
        {
            entry.share_files(&older);
        }
        entry
    }
}

#[cfg(test)]
mod tests;
