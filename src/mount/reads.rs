//! A read of a file: answered by the thread that took it in if it is of published bytes, else handed on.
//!
//! Used by `adapter`.

use std::cell::RefCell;
use std::sync::Arc;

use fuser::ReplyData;

use super::afterwards::Lanes;
use super::answers::Shared;
use super::inline::Inline;
use super::lanes::survive;
use crate::error::Result;
use crate::tree::Handle;

thread_local! {
    /// What a thread reads into: as much as the kernel asks for at once, and the blocks around it.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Calls with this thread's buffer. The thread takes in what the kernel asks for: without it the mount would end, so a panic
/// ends no more than the call.
fn with_buffer(call: impl FnOnce(&mut Vec<u8>)) {
    survive("the mount", || BUFFER.with_borrow_mut(call));
}

/// What is to be read.
pub(super) struct Read {
    pub(super) shared: Arc<Shared>,
    pub(super) lanes: Arc<Lanes>,
    pub(super) ino: u64,
    pub(super) handle: Arc<Handle>,
    pub(super) offset: u64,
    pub(super) size: u32,
}

impl Read {
    /// Answers. Most threads may read what is on the local disk by themselves, and have the rest fetched, because handing on
    /// takes longer than either. Should the disk keep them waiting, one still takes in what comes.
    pub(super) fn answer(self, inline: &Inline, reply: ReplyData) {
        let handle = Arc::clone(&self.handle);
        let Some(reader) = handle.published() else {
            return self.hand_on(reply);
        };
        let Some(_entered) = inline.enter() else {
            return self.hand_on(reply);
        };
        let (offset, size) = (self.offset, self.size);
        let answer = move |bytes: Option<&[u8]>| match bytes {
            Some(bytes) => reply.data(bytes),
            None => self.read(reply),
        };
        with_buffer(|buffer| reader.read_complete(offset, size, buffer, answer));
    }

    /// Reads in a lane what may keep a thread waiting.
    fn hand_on(self, reply: ReplyData) {
        let lanes = Arc::clone(&self.lanes);
        let lane = match *self.handle {
            Handle::Staged { .. } => &lanes.staged,
            Handle::Member(..) => &lanes.archives,
            Handle::Stored { .. } | Handle::Text(_) | Handle::Commands(_) => &lanes.data,
        };
        lane.run(move || self.read(reply));
    }

    /// Has it answered, perhaps by the floor that fetches.
    fn read(self, reply: ReplyData) {
        let shared = Arc::clone(&self.shared);
        let answer = move |answer: Result<Vec<u8>>| match answer {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(shared.errno(&error)),
        };
        let Read {
            shared,
            ino,
            handle,
            offset,
            size,
            ..
        } = self;
        shared.tree.read(ino, &handle, offset, size, Box::new(answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_panic_ends_its_read_and_neither_the_thread_nor_the_next() {
        let (reply, answered) = mpsc::channel::<()>();
        with_buffer(move |_| {
            let _reply = reply;
            panic!("on purpose");
        });
        assert!(answered.recv().is_err(), "the reply was dropped");
        let mut length = 0;
        with_buffer(|buffer| {
            buffer.push(1);
            length = buffer.len();
        });
        assert_eq!(length, 1);
    }
}
