//! Which revisions of a draft's document were seen here, to tell a user's own changes from somebody else's.
//!
//! An editor keeps what it read, and saves it again and again: each save makes a new revision, and the next one is still
//! made from the first. Used by `staging/` under a lock of its own, which is a leaf.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use lru::LruCache;

use crate::repository::model::RecordId;

/// What was seen of the drafts' documents.
pub(super) struct Documents {
    drafts: LruCache<RecordId, BTreeMap<u64, BTreeSet<String>>>,
}

/// Drafts that are remembered.
const DRAFTS: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// Revisions of a draft that are remembered: an editor that is older must read it again.
const REVISIONS: usize = 64;

impl Default for Documents {
    fn default() -> Self {
        Documents {
            drafts: LruCache::new(DRAFTS),
        }
    }
}

impl Documents {
    /// A revision was shown, with this digest.
    pub(super) fn seen(&mut self, draft: &RecordId, revision: u64, digest: String) {
        let revisions = self.drafts.get_or_insert_mut(draft.clone(), BTreeMap::new);
        revisions.entry(revision).or_default().insert(digest);
        if revisions.len() > REVISIONS {
            revisions.pop_first();
        }
    }

    /// A document that was made from one with these digests was saved, and is now this.
    pub(super) fn follows(&mut self, draft: &RecordId, before: &BTreeSet<String>, digest: &str) {
        for digests in self
            .drafts
            .get_mut(draft)
            .into_iter()
            .flat_map(BTreeMap::values_mut)
        {
            if !digests.is_disjoint(before) {
                digests.insert(digest.to_owned());
            }
        }
    }

    /// What the draft may be like for a document that was made from a revision: as it was then, or as our own saves have
    /// made it since. `None` if the revision was never seen here.
    pub(super) fn digests(&mut self, draft: &RecordId, revision: u64) -> Option<BTreeSet<String>> {
        self.drafts.get(draft)?.get(&revision).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_saves_are_no_conflict_and_others_are() {
        let draft = RecordId::new("abcde-12345").unwrap();
        let mut documents = Documents::default();
        documents.seen(&draft, 1, "one".into());
        let before = documents.digests(&draft, 1).unwrap();
        documents.seen(&draft, 2, "two".into());
        documents.follows(&draft, &before, "two");
        assert!(documents.digests(&draft, 1).unwrap().contains("two"));
        documents.seen(&draft, 3, "of somebody else".into());
        assert!(!documents.digests(&draft, 1).unwrap().contains("of somebody else"));
        assert!(documents.digests(&draft, 9).is_none());
    }
}
