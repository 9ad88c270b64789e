//! The table of staged files: which one is at which place.
//!
//! Used by [`super::Area`] under one lock, which is never held while another is taken or the disk is used.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::file::Staged;
use super::journal::Entry;
use super::place::Place;
use super::queue::Spot;
use crate::repository::model::RecordId;

/// The table.
#[derive(Default)]
pub(super) struct Files {
    by_place: HashMap<Spot, Arc<Staged>>,
    /// Files whose keys the server is known not to have, because this mount created them there.
    absent: HashSet<u64>,
    /// Keys that files had before, and that the server may still have. No staged file is at any of them.
    left: HashMap<(RecordId, Arc<str>), Arc<Staged>>,
    /// Of each draft, the last document that the server refused.
    rejected: HashMap<RecordId, Arc<Staged>>,
    /// What was never closed before a crash.
    unclosed: BTreeMap<u64, Entry>,
}

impl Files {
    /// The file at a place.
    pub(super) fn at(&self, spot: &Spot) -> Option<&Arc<Staged>> {
        self.by_place.get(spot)
    }

    /// All of them, the rejected documents too.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Staged>> {
        self.by_place.values().chain(self.rejected.values())
    }

    /// The files of a draft.
    pub(super) fn of_draft(&self, draft: &RecordId) -> impl Iterator<Item = &Arc<Staged>> {
        self.by_place
            .iter()
            .filter(move |((of, place), _)| of == draft && matches!(place, Place::File(_)))
            .map(|(_, staged)| staged)
    }

    /// Puts a file at its place and returns the one that was there.
    pub(super) fn put(&mut self, spot: Spot, staged: &Arc<Staged>) -> Option<Arc<Staged>> {
        self.by_place.insert(spot, Arc::clone(staged))
    }

    /// Takes a file away, unless another one has its place by now.
    pub(super) fn take(&mut self, staged: &Arc<Staged>) {
        let spot = (staged.draft.clone(), staged.place());
        if self.is_at(&spot, staged) {
            self.by_place.remove(&spot);
        }
        if self
            .rejected
            .get(&staged.draft)
            .is_some_and(|there| Arc::ptr_eq(there, staged))
        {
            self.rejected.remove(&staged.draft);
        }
        self.absent.remove(&staged.id);
        self.left.retain(|_, by| !Arc::ptr_eq(by, staged));
    }

    /// Takes a file from one place only.
    pub(super) fn take_from(&mut self, spot: &Spot, staged: &Arc<Staged>) {
        if self.is_at(spot, staged) {
            self.by_place.remove(spot);
        }
    }

    /// Whether it is this file that is at a place.
    pub(super) fn is_at(&self, spot: &Spot, staged: &Arc<Staged>) -> bool {
        self.by_place
            .get(spot)
            .is_some_and(|there| Arc::ptr_eq(there, staged))
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
        self.left.insert((draft.clone(), Arc::clone(key)), Arc::clone(by));
    }

    /// The file that had this key before; it is not that file's to delete on the server any more.
    pub(super) fn settle(&mut self, draft: &RecordId, key: &Arc<str>) -> Option<Arc<Staged>> {
        self.left.remove(&(draft.clone(), Arc::clone(key)))
    }

    /// A key that this file had before is deleted on the server.
    pub(super) fn settle_by(&mut self, staged: &Arc<Staged>, key: &Arc<str>) {
        let at = (staged.draft.clone(), Arc::clone(key));
        if self.left.get(&at).is_some_and(|by| Arc::ptr_eq(by, staged)) {
            self.left.remove(&at);
        }
    }

    /// The keys of a draft that files had before.
    pub(super) fn left(&self, draft: &RecordId) -> HashSet<Arc<str>> {
        self.left
            .keys()
            .filter(|(of, _)| of == draft)
            .map(|(_, key)| Arc::clone(key))
            .collect()
    }

    /// The refused document of a draft.
    pub(super) fn rejected(&self, draft: &RecordId) -> Option<&Arc<Staged>> {
        self.rejected.get(draft)
    }

    /// Makes a document the refused one of its draft and returns the one before.
    pub(super) fn reject(&mut self, staged: &Arc<Staged>) -> Option<Arc<Staged>> {
        self.take_from(&(staged.draft.clone(), Place::Document), staged);
        self.rejected
            .insert(staged.draft.clone(), Arc::clone(staged))
            .filter(|older| !Arc::ptr_eq(older, staged))
    }

    /// Makes a refused document the draft's written one again, unless there is another one by now.
    pub(super) fn take_back(&mut self, staged: &Arc<Staged>) {
        let spot = (staged.draft.clone(), Place::Document);
        let is_rejected = self
            .rejected
            .get(&staged.draft)
            .is_some_and(|there| Arc::ptr_eq(there, staged));
        if is_rejected && !self.by_place.contains_key(&spot) {
            self.rejected.remove(&staged.draft);
            self.by_place.insert(spot, Arc::clone(staged));
        }
    }

    /// Takes the refused document of a draft away.
    pub(super) fn take_rejected(&mut self, draft: &RecordId) -> Option<Arc<Staged>> {
        self.rejected.remove(draft)
    }

    /// What was never closed before a crash, by number.
    pub(super) fn unclosed(&mut self) -> &mut BTreeMap<u64, Entry> {
        &mut self.unclosed
    }
}
