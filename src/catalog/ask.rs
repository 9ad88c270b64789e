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
    Catalog, Entry, Ids, Keeping, KnownFiles, Listed, NEWEST, Offline, STALE, Said, Search, Source, Store,
    Topic, Way, is_silence,
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

    /// Writes what is still to be kept.
    pub fn shutdown(&self) {
        if let Some(store) = &self.store {
            store.shutdown();
        }
    }

    pub(super) fn ask_record(&self, id: &RecordId) -> Result<Said<Entry>> {
        let whole = |entry: &Arc<Entry>| entry.is_whole();
        let known = self.records.peek(id).filter(whole);
        let known = known.or_else(|| self.kept_record(id).filter(whole));
        self.said(known, |repository| match repository.record(id) {
            Ok(record) => {
                let entry = Arc::new(self.renewed(record, Source::Single));
                self.keep_record(id, &entry);
                Ok(entry)
            }
            Err(error) => Err(self.dropping_kept(id, error)),
        })
    }

    /// Drops what is kept of a record, if the repository says that it is not there or not for us.
    fn dropping_kept(&self, id: &RecordId, error: Error) -> Error {
        if matches!(error.kind(), Kind::NotFound | Kind::Denied) {
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
        self.said(known, |repository| {
            let listed = repository
                .record_files(id)
                .map(Listed::now)
                .map_err(|error| self.dropping_kept(id, error))?;
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
        let known = self.newest.peek(&()).or_else(|| {
            let kept = self.store.as_ref()?.load(Topic::Newest, NEWEST_NAME)?;
            let ids: Vec<String> = serde_json::from_slice(&kept.text).ok()?;
            Some(Arc::new(Ids {
                ids: ids.iter().filter_map(|id| RecordId::new(id)).collect(),
                asked: kept.asked,
            }))
        });
        self.said(known, |repository| {
            let search = Search {
                sort: Some("newest"),
                size: NEWEST,
                ..Search::default()
            };
            let page = repository.search(&search)?;
            let ids = page
                .records
                .into_iter()
                .map(|record| self.learn_record(record))
                .collect();
            let newest = Ids::now(ids);
            if let Some(store) = &self.store {
                let ids: Vec<&str> = newest.ids.iter().map(RecordId::as_str).collect();
                let text = serde_json::json!(ids).to_string();
                store.save(Topic::Newest, NEWEST_NAME, newest.asked, text.into());
            }
            Ok(Arc::new(newest))
        })
    }

    /// What is known while it is current; else what is asked for; and if there is no answer, what is known all the same.
    fn said<V: Dated>(
        &self,
        known: Option<Arc<V>>,
        ask: impl FnOnce(&Repository) -> Result<Arc<V>>,
    ) -> Result<Said<V>> {
        if let Some(value) = &known
            && let Some(life) = self.life_left(value.asked())
        {
            return Ok(Said {
                value: Arc::clone(value),
                life: Some(life),
            });
        }
        let way = self.reach.way();
        if way == Way::Open {
            let repository = if known.is_some() {
                &self.hasty
            } else {
                &self.repository
            };
            return match self.heard(ask(repository)) {
                Ok(value) => Ok(Said { value, life: None }),
                Err(error) if is_silence(&error) => known.map(|value| self.stale(value)).ok_or(error),
                Err(error) => Err(error),
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

    /// Takes note of whether the repository has answered.
    pub(super) fn heard<T>(&self, answer: Result<T>) -> Result<T> {
        match &answer {
            Err(error) if is_silence(error) => self.reach.silent(),
            _ => self.reach.answered(),
        }
        answer
    }

    /// Finds out whether the repository answers again. Nobody waits for it.
    fn probe(&self) {
        let (repository, reach) = (Arc::clone(&self.repository), Arc::clone(&self.reach));
        let started = std::thread::Builder::new()
            .name("probe".to_owned())
            .spawn(move || match repository.identify() {
                Err(error) if is_silence(&error) => reach.silent(),
                _ => reach.answered(),
            });
        if let Err(error) = started {
            log::warn!("can't start a thread: {error}");
            self.reach.silent();
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
    pub(super) fn renewed(&self, record: Record, source: Source) -> Entry {
        let mut entry = Entry::new(record, source);
        if let Some(older) = self.records.peek(&entry.id)
            && matches!(entry.files, KnownFiles::Listed(_))
        {
            entry.share_files(&older);
        }
        entry
    }
}
