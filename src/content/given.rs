//! Files of complete copies that are in use beside the cache: by the kernel, or by who copies from them.
//!
//! `whole.rs` gives them, `mount/` and `tree/` hold them. While there is one, no block is taken from the copy.

use std::fs::File;

use super::reader::Reader;
use super::state::State;

/// A complete copy that the kernel reads by itself. While there is one, the copy is neither dropped nor are its blocks.
#[derive(Debug)]
pub struct HandedOut {
    given: Given,
    file: File,
}

impl HandedOut {
    pub(super) fn new(given: Given, file: File) -> Self {
        given.reader.content.store.comparer.count(|open| open + 1);
        HandedOut { given, file }
    }

    /// The data file, for reading.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether it is still the copy that is in the cache, and not one that was dropped and fetched anew.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.given.reader.content.lock().generation == self.given.generation
    }
}

impl Drop for HandedOut {
    fn drop(&mut self) {
        self.given
            .reader
            .content
            .store
            .comparer
            .count(|open| open.saturating_sub(1));
    }
}

/// A complete copy whose file is in use beside the cache: no block is taken from it until this is dropped.
#[derive(Debug)]
pub(super) struct Given {
    reader: Reader,
    generation: u64,
}

impl Given {
    /// Under the lock of the reader's content.
    pub(super) fn new(reader: Reader, state: &mut State) -> Self {
        state.handed_out += 1;
        Given {
            reader,
            generation: state.generation,
        }
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let mut state = self.reader.content.lock();
        // Another copy counts anew.
        if state.generation == self.generation {
            state.handed_out = state.handed_out.saturating_sub(1);
        }
    }
}

/// A complete file, to be copied from. Its bytes stay as long as there is one.
#[derive(Debug)]
pub struct CompleteFile {
    file: File,
    /// None of an empty file.
    _given: Option<Given>,
}

impl CompleteFile {
    pub(super) fn new(file: File, given: Option<Given>) -> Self {
        CompleteFile { file, _given: given }
    }

    /// It, for reading.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}
