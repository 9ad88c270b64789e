//! The table of staged files: which one is at which place.
//!
//! Used by [`super::Area`] under one lock, which is never held while another is taken or the disk is used.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::file::Staged;
use super::journal::Entry;
use super::place::Place;
use super::queue::Spot;
use crate::history::History;
use crate::repository::model::RecordId;

/// The table.
#[derive(Default)]
pub(super) struct Files {
    drafts: HashMap<RecordId, Draft>,
    /// Counts the changes of all drafts, so that a number is never used again.
    changes: u64,
    /// Files whose keys the server is known not to have, because this mount created them there.
    absent: HashSet<u64>,
    /// What was never closed before a crash.
    unclosed: BTreeMap<u64, Entry>,
}

/// What is staged for one draft.
#[derive(Default)]
struct Draft {
    by_place: HashMap<Place, Arc<Staged>>,
    /// Keys that files had before, and that the server may still have. No staged file is at any of them.
    left: HashMap<Arc<str>, Arc<Staged>>,
    /// The last document that the server refused.
    rejected: Option<Arc<Staged>>,
    /// The keys to which files came, or from which they went.
    history: History,
}

/// What is staged under a key.
#[derive(Clone)]
pub enum Standing {
    /// A file.
    Staged(Arc<Staged>),
    /// Nothing, but what the server has there is deleted soon: it was renamed.
    Left,
    /// Nothing.
    Unstaged,
}

/// The files of a draft that stand otherwise than at an earlier moment.
pub struct Changes {
    /// The moment to ask from the next time.
    pub moment: u64,
    /// How they stand now, by key. `None` if too much has changed since to be told.
    pub files: Option<Vec<(Arc<str>, Standing)>>,
}

/// All files of a draft at one moment.
pub struct Snapshot {
    /// Which.
    pub moment: u64,
    /// The staged files by key.
    pub staged: Vec<(Arc<str>, Arc<Staged>)>,
    /// The keys that files had before, and that the server may still have.
    pub left: HashSet<Arc<str>>,
}

impl Draft {
    fn standing(&self, key: &Arc<str>) -> Standing {
        match self.by_place.get(&Place::File(Arc::clone(key))) {
            Some(staged) => Standing::Staged(Arc::clone(staged)),
            None if self.left.contains_key(key) => Standing::Left,
            None => Standing::Unstaged,
        }
    }

    fn is_rejected(&self, staged: &Arc<Staged>) -> bool {
        self.rejected
            .as_ref()
            .is_some_and(|there| Arc::ptr_eq(there, staged))
    }
}

impl Files {
    /// The file at a place.
    pub(super) fn at(&self, (draft, place): &Spot) -> Option<&Arc<Staged>> {
        self.drafts.get(draft)?.by_place.get(place)
    }

    /// All of them, the rejected documents too.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Staged>> {
        self.drafts
            .values()
            .flat_map(|draft| draft.by_place.values().chain(&draft.rejected))
    }

    /// The files of a draft.
    pub(super) fn of_draft(&self, draft: &RecordId) -> impl Iterator<Item = &Arc<Staged>> {
        let places = self.drafts.get(draft).map(|draft| &draft.by_place);
        places
            .into_iter()
            .flatten()
            .filter_map(|(place, staged)| place.key().map(|_| staged))
    }

    /// The files of a draft that stand otherwise than at a moment.
    pub(super) fn changes(&self, draft: &RecordId, since: u64) -> Changes {
        let files = match self.drafts.get(draft) {
            None => Some(Vec::new()),
            Some(draft) => draft.history.since(since).map(|keys| {
                let keys: HashSet<&Arc<str>> = keys.collect();
                keys.into_iter()
                    .map(|key| (Arc::clone(key), draft.standing(key)))
                    .collect()
            }),
        };
        Changes {
            moment: self.changes,
            files,
        }
    }

    /// The file that had this key before, and is to delete it on the server.
    pub(super) fn left_by(&self, draft: &RecordId, key: &Arc<str>) -> Option<&Arc<Staged>> {
        self.drafts.get(draft)?.left.get(key)
    }

    /// The keys of a draft that files had before.
    pub(super) fn left(&self, draft: &RecordId) -> HashSet<Arc<str>> {
        let draft = self.drafts.get(draft);
        draft.map_or_else(HashSet::new, |draft| draft.left.keys().cloned().collect())
    }

    /// All files of a draft at this moment.
    pub(super) fn snapshot(&self, draft: &RecordId) -> Snapshot {
        let left = self.left(draft);
        let places = self.drafts.get(draft).map(|draft| &draft.by_place);
        let places = places.into_iter().flatten();
        Snapshot {
            moment: self.changes,
            staged: places
                .filter_map(|(place, staged)| Some((Arc::clone(place.key()?), Arc::clone(staged))))
                .collect(),
            left,
        }
    }

    /// What is staged under a key.
    pub(super) fn standing(&self, draft: &RecordId, key: &Arc<str>) -> Standing {
        let draft = self.drafts.get(draft);
        draft.map_or(Standing::Unstaged, |draft| draft.standing(key))
    }

    /// A draft that is about to be changed at a key.
    fn changing(&mut self, draft: &RecordId, key: Option<&Arc<str>>) -> &mut Draft {
        self.changes += 1;
        let changes = self.changes;
        let draft = self.drafts.entry(draft.clone()).or_default();
        if let Some(key) = key {
            draft.history.note(changes, key);
        }
        draft
    }

    /// Puts a file at its place and returns the one that was there.
    pub(super) fn put(&mut self, (draft, place): Spot, staged: &Arc<Staged>) -> Option<Arc<Staged>> {
        let draft = self.changing(&draft, place.key());
        draft.by_place.insert(place, Arc::clone(staged))
    }

    /// Takes a file away, unless another one has its place by now.
    pub(super) fn take(&mut self, staged: &Arc<Staged>) {
        self.take_from(&(staged.draft.clone(), staged.place()), staged);
        self.absent.remove(&staged.id);
        let Some(draft) = self.drafts.get_mut(&staged.draft) else {
            return;
        };
        if draft.is_rejected(staged) {
            draft.rejected = None;
        }
        let mut keys = Vec::new();
        draft.left.retain(|key, by| {
            let stays = !Arc::ptr_eq(by, staged);
            if !stays {
                keys.push(Arc::clone(key));
            }
            stays
        });
        for key in &keys {
            self.changing(&staged.draft, Some(key));
        }
    }

    /// Takes a file from one place only.
    pub(super) fn take_from(&mut self, spot: &Spot, staged: &Arc<Staged>) {
        if self.is_at(spot, staged) {
            let (draft, place) = spot;
            self.changing(draft, place.key()).by_place.remove(place);
        }
    }

    /// Whether it is this file that is at a place.
    pub(super) fn is_at(&self, spot: &Spot, staged: &Arc<Staged>) -> bool {
        self.at(spot).is_some_and(|there| Arc::ptr_eq(there, staged))
    }

    /// Says whether the server is known to have nothing under a file's key.
    pub(super) fn set_absent(&mut self, staged: &Staged, absent: bool) {
        if absent {
            self.absent.insert(staged.id);
        } else {
            self.absent.remove(&staged.id);
        }
    }

    /// Whether the server is known to have nothing under a file's key.
    pub(super) fn is_absent(&self, staged: &Staged) -> bool {
        self.absent.contains(&staged.id)
    }

    /// A key that a file had before.
    pub(super) fn leave(&mut self, draft: &RecordId, key: &Arc<str>, by: &Arc<Staged>) {
        let left = &mut self.changing(draft, Some(key)).left;
        left.insert(Arc::clone(key), Arc::clone(by));
    }

    /// The file that had this key before; it is not that file's to delete on the server any more.
    pub(super) fn settle(&mut self, draft: &RecordId, key: &Arc<str>) -> Option<Arc<Staged>> {
        let is_left = self.drafts.get(draft)?.left.contains_key(key);
        is_left.then(|| self.changing(draft, Some(key)).left.remove(key))?
    }

    /// A key that this file had before is deleted on the server.
    pub(super) fn settle_by(&mut self, staged: &Arc<Staged>, key: &Arc<str>) {
        let of_draft = self.drafts.get(&staged.draft);
        let by = of_draft.and_then(|of_draft| of_draft.left.get(key));
        if by.is_some_and(|by| Arc::ptr_eq(by, staged)) {
            self.settle(&staged.draft, key);
        }
    }

    /// The refused document of a draft.
    pub(super) fn rejected(&self, draft: &RecordId) -> Option<&Arc<Staged>> {
        self.drafts.get(draft)?.rejected.as_ref()
    }

    /// Makes a document the refused one of its draft and returns the one before.
    pub(super) fn reject(&mut self, staged: &Arc<Staged>) -> Option<Arc<Staged>> {
        self.take_from(&(staged.draft.clone(), Place::Document), staged);
        self.changing(&staged.draft, None)
            .rejected
            .replace(Arc::clone(staged))
            .filter(|older| !Arc::ptr_eq(older, staged))
    }

    /// Makes a refused document the draft's written one again, unless there is another one by now.
    pub(super) fn take_back(&mut self, staged: &Arc<Staged>) {
        if let Some(draft) = self.drafts.get_mut(&staged.draft)
            && draft.is_rejected(staged)
            && !draft.by_place.contains_key(&Place::Document)
        {
            draft.rejected = None;
            draft.by_place.insert(Place::Document, Arc::clone(staged));
        }
    }

    /// Takes the refused document of a draft away.
    pub(super) fn take_rejected(&mut self, draft: &RecordId) -> Option<Arc<Staged>> {
        self.drafts.get_mut(draft)?.rejected.take()
    }

    /// What was never closed before a crash, by number.
    pub(super) fn unclosed(&mut self) -> &mut BTreeMap<u64, Entry> {
        &mut self.unclosed
    }
}
