//! Acceptances by curators that a save of `record.json` takes back.
//!
//! Used by the upload workers. A program that saves can't be asked, and the server says nothing of it: so it is noted before
//! a change is sent whether the draft's curation is accepted, and looked at afterwards. What is found out never keeps a save
//! from being made.
//!
//! Its lock is a leaf, and not held over the network.

use std::num::NonZeroUsize;
use std::sync::OnceLock;

use lru::LruCache;
use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};
use crate::repository::model::RecordId;
use crate::repository::{CurationRules, Repository, RequestId};

/// What is known of the drafts' acceptances.
pub(super) struct Acceptances {
    /// How the repository curates; asked once, at the first change.
    rules: OnceLock<Option<CurationRules>>,
    drafts: Mutex<LruCache<RecordId, Known>>,
}

enum Known {
    /// Accepted, and about to be changed.
    Given(RequestId),
    /// A save took it back.
    TakenBack(Error),
}

/// Drafts that are remembered.
const DRAFTS: NonZeroUsize = NonZeroUsize::new(256).unwrap();

impl Default for Acceptances {
    fn default() -> Self {
        Acceptances {
            rules: OnceLock::new(),
            drafts: Mutex::new(LruCache::new(DRAFTS)),
        }
    }
}

impl Acceptances {
    /// A change of the draft is about to be sent.
    pub(super) fn note(&self, repository: &Repository, draft: &RecordId) {
        match self.given(repository, draft) {
            Ok(Some(request)) => {
                self.drafts.lock().put(draft.clone(), Known::Given(request));
            }
            Ok(None) => {}
            Err(error) => log::info!("{error}"),
        }
    }

    fn given(&self, repository: &Repository, draft: &RecordId) -> Result<Option<RequestId>> {
        let rules = match self.rules.get() {
            Some(rules) => *rules,
            None => {
                let rules = repository.curation_rules()?;
                *self.rules.get_or_init(|| rules)
            }
        };
        if rules.is_none() {
            return Ok(None);
        }
        let request = repository.curation_of(draft)?;
        Ok(request
            .filter(|request| request.status == "accepted")
            .map(|request| request.id))
    }

    /// The draft was saved. What is returned is to be told: that its acceptance is gone.
    pub(super) fn saved(&self, repository: &Repository, draft: &RecordId) -> Option<Error> {
        let request = match self.drafts.lock().get(draft) {
            Some(Known::Given(request)) => request.clone(),
            _ => return None,
        };
        let known = match repository.request(&request) {
            Ok(request) if request.status == "accepted" => None,
            Ok(_) => Some(taken_back(draft)),
            Err(error) => {
                log::info!("{error}");
                return None;
            }
        };
        let mut drafts = self.drafts.lock();
        match &known {
            Some(error) => drop(drafts.put(draft.clone(), Known::TakenBack(error.clone()))),
            None => drop(drafts.pop(draft)),
        }
        known
    }

    /// That the last save of the draft took its acceptance back.
    pub(super) fn lost(&self, draft: &RecordId) -> Option<Error> {
        match self.drafts.lock().peek(draft) {
            Some(Known::TakenBack(error)) => Some(error.clone()),
            _ => None,
        }
    }
}

fn taken_back(draft: &RecordId) -> Error {
    Error::new(
        Kind::NotReady,
        format!("saving record.json of draft {draft} took back that its curation was accepted"),
    )
    .with_advice(format!(
        "The curators have to accept it again; rdmfs curation status {draft} tells how it stands."
    ))
}
