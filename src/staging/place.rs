//! Where a staged file belongs: which name in its draft, and which names it leaves behind.
//!
//! Plain data, shared by all files of `staging/`.

use std::sync::Arc;

/// A name in a draft.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A file, by its key.
    File(Arc<str>),
    /// The draft's metadata, `record.json`.
    Document,
}

/// What the document is called, in the journal and to people.
const DOCUMENT: &str = "record.json";

impl Place {
    /// The key, or what the document is called.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        match self {
            Place::File(key) => Arc::clone(key),
            Place::Document => Arc::from(DOCUMENT),
        }
    }

    /// The key of a file.
    #[must_use]
    pub fn key(&self) -> Option<&Arc<str>> {
        match self {
            Place::File(key) => Some(key),
            Place::Document => None,
        }
    }
}

/// Where a staged file is in its draft. A rename changes it.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) place: Place,
    /// Keys that it had before and that the server may still have: deleted there once the file has arrived here.
    pub(super) replaces: Vec<Arc<str>>,
    /// Counts who came to a place when: of two files that a crash left in one place, the later one counts.
    pub(super) order: u64,
}

impl Address {
    /// The address of a new file.
    pub(super) fn first(place: Place, id: u64) -> Self {
        Address {
            place,
            replaces: Vec::new(),
            order: id,
        }
    }
}
