//! Records that came on a page of hits, asked for again by the page.
//!
//! Who walks through what a search found for longer than that counts as current would else ask for each record by itself.
//! Used by `ask` and `around`. Its lock is a leaf.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lru::LruCache;
use parking_lot::Mutex;

use super::{Catalog, Entry, Question, Said};
use crate::repository::model::RecordId;

/// Records of which it is known on which page they came, about 150 bytes each.
const MOST: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
/// So many records of a page are asked for by themselves before the page is: a page is as long as a hundred of them, and who
/// opens one or two wants no others.
const ALONE: u32 = 4;
/// If the page did not help, it is asked for again after so many. Zenodo's have 25 records for guests.
const AGAIN: u32 = 10;

/// On which page a record came last.
pub(super) struct Pages(Mutex<LruCache<RecordId, Arc<Page>>>);

struct Page {
    question: Question,
    /// How many of its records were asked for since it came.
    again: AtomicU32,
}

impl Default for Pages {
    fn default() -> Self {
        Pages(Mutex::new(LruCache::new(MOST)))
    }
}

impl Pages {
    /// These came on a page.
    pub(super) fn came(&self, question: &Question, ids: &[RecordId]) {
        let page = Arc::new(Page {
            question: question.clone(),
            again: AtomicU32::new(0),
        });
        let mut known = self.0.lock();
        for id in ids {
            known.put(id.clone(), Arc::clone(&page));
        }
    }

    /// The page to ask for in place of the record, if enough of it were asked for by themselves. While a page itself is current,
    /// it says nothing new.
    fn due(&self, id: &RecordId, is_current: impl FnOnce(&Question) -> bool) -> Option<Question> {
        let page = Arc::clone(self.0.lock().get(id)?);
        if is_current(&page.question) {
            return None;
        }
        let before = page.again.fetch_add(1, Ordering::Relaxed);
        (before % AGAIN == ALONE).then(|| page.question.clone())
    }
}

impl Catalog {
    /// A record that is known and not current any more, if its page renewed it.
    pub(super) fn by_its_page(&self, id: &RecordId) -> Option<Said<Entry>> {
        if self.times.records.is_zero() || !self.records.peek(id)?.is_whole() {
            return None;
        }
        let around = &self.around;
        let is_current = |page: &Question| around.hits.current(page).is_some();
        let question = around.pages.due(id, is_current)?;
        self.hits(&question).ok()?;
        let value = self.records.current(id).filter(|entry| entry.is_whole())?;
        let life = Some(self.records.life(id));
        Some(Said { value, life })
    }
}
