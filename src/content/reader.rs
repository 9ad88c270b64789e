//! One open handle of a file: notes what its reads look like, and hands them to the content.
//!
//! `tree/` and `staging/` hold one for each open file. It must never wait, but for the whole file in `fetch_all`.

use std::sync::{Arc, mpsc};

use super::Result;
use super::ask::{Ask, Purpose, ReadReply};
use super::file::Content;
use crate::error::{Error, Kind};

/// One open handle of a file.
#[derive(Debug)]
pub struct Reader {
    pub(super) content: Arc<Content>,
    pub(super) id: u64,
}

impl Reader {
    /// The reader of that number, which the content knows already.
    pub(super) fn new(content: Arc<Content>, id: u64) -> Self {
        Reader { content, id }
    }

    /// What is read.
    #[must_use]
    pub fn content(&self) -> &Arc<Content> {
        &self.content
    }

    /// Reads. Answers at once if the bytes are on disk; else `reply` is called when they came, or with the reason why
    /// they can't. Reads past the end are cut there. This never waits for the network.
    pub fn read(&self, offset: u64, length: u32, reply: ReadReply) {
        let size = self.content.size();
        let end = offset.saturating_add(u64::from(length)).min(size);
        if offset >= end {
            return reply(Ok(Vec::new()));
        }
        self.note(offset, end - offset);
        self.content
            .attempt(Ask::new(self.id, offset, end, Purpose::Read(reply)));
    }

    /// Says that it will stop at this byte: what follows is not fetched ahead for it.
    pub fn stop_at(&self, end: u64) {
        if let Some(reading) = self.content.lock().readers.get_mut(&self.id) {
            reading.limit = end;
        }
    }

    /// Notes a read in the reader's pattern. Who reads on takes part in the budget until it jumps, or all is there.
    fn note(&self, offset: u64, length: u64) {
        let store = &self.content.store;
        log::trace!(
            "{}: reader {} wants {length} at {offset}",
            self.content.stem,
            self.id
        );
        let mut state = self.content.lock();
        let is_complete = state.is_complete();
        let Some(reading) = state.readers.get_mut(&self.id) else {
            return;
        };
        let largest = store.window_of(reading.share.as_ref());
        reading.pattern.note(offset, length, largest);
        reading.pattern.widen(store.first_window());
        if is_complete || !reading.pattern.is_sequential() {
            reading.share = None;
        } else if reading.share.is_none() {
            reading.share = Some(store.budget.join());
        }
    }

    /// Has all of it fetched and verified. `reply` is called when that is done, or with the reason why it can't be, at the
    /// latest when the reader is dropped.
    pub fn complete(&self, reply: Box<dyn FnOnce(Result<()>) + Send>) {
        self.content.attempt(Ask::new(
            self.id,
            0,
            self.content.size(),
            Purpose::Complete(reply),
        ));
    }

    /// Waits until all of it is on disk and verified, for as long as bytes keep coming.
    ///
    /// # Errors
    /// Why they don't.
    pub fn fetch_all(&self) -> Result<()> {
        let (tell, told) = mpsc::channel();
        self.complete(Box::new(move |result| {
            // The receiver waits below.
            let _ = tell.send(result);
        }));
        // Bounded: every ask is answered, when it is done, when the download fails, by `expire` or by `stop`.
        told.recv()
            .unwrap_or_else(|_| Err(Error::new(Kind::Internal, "a read was forgotten")))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.content.close(self.id);
    }
}
