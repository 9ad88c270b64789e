//! A read that waits, and how it is answered: once, whatever becomes of what it waits for.
//!
//! Made by `reader.rs`, kept in the state, answered by `file.rs`. An answer is never given under a lock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::error::{Error, Kind, Result};

/// Called with the bytes of a read.
pub(super) type ReadReply = Box<dyn FnOnce(Result<Vec<u8>>) + Send>;

/// What is asked for, and how to answer.
pub(super) enum Purpose {
    /// Bytes of the file.
    Read(ReadReply),
    /// The whole file, there and verified.
    Complete(Box<dyn FnOnce(Result<()>) + Send>),
}

/// A read that waits. It is answered exactly once, at the latest when it is dropped.
pub(super) struct Ask {
    /// Who asks.
    pub(super) reader: u64,
    /// From where.
    pub(super) offset: u64,
    /// To where, exclusive, not past the end of the file.
    pub(super) end: u64,
    /// When.
    pub(super) since: Instant,
    /// Its bytes were not there when it was asked.
    pub(super) has_waited: bool,
    purpose: Option<Purpose>,
}

impl Ask {
    /// A new question.
    pub(super) fn new(reader: u64, offset: u64, end: u64, purpose: Purpose) -> Self {
        Ask {
            reader,
            offset,
            end,
            since: Instant::now(),
            has_waited: false,
            purpose: Some(purpose),
        }
    }

    /// Whether the whole file is asked for.
    pub(super) fn wants_all(&self) -> bool {
        matches!(self.purpose, Some(Purpose::Complete(_)))
    }

    /// Answers. No lock may be held.
    pub(super) fn answer(mut self, result: Result<Vec<u8>>) {
        self.settle(result);
    }

    /// Answers with an error.
    pub(super) fn fail(self, error: Error) {
        self.answer(Err(error));
    }

    fn settle(&mut self, result: Result<Vec<u8>>) {
        let reply = self.purpose.take();
        // One that panics must not take the download and the other replies with it.
        let outcome = catch_unwind(AssertUnwindSafe(|| match reply {
            Some(Purpose::Read(reply)) => reply(result),
            Some(Purpose::Complete(reply)) => reply(result.map(drop)),
            None => {}
        }));
        if outcome.is_err() {
            log::error!("the answer to a read panicked");
        }
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        if self.purpose.is_some() {
            self.settle(Err(Error::new(Kind::Internal, "a read was forgotten")));
        }
    }
}
