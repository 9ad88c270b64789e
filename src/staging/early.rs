//! Bringing large files to the local disk while they are still written, so that close() has less to wait for.
//!
//! A thread of its own tells the kernel to begin: that may wait for the disk, and who writes must not. Nothing depends on
//! it: close() syncs whatever is not there yet.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::error::{Error, Result};

/// Tells the kernel.
pub(super) struct Early {
    due: SyncSender<Piece>,
}

/// A part of a file that was written.
struct Piece {
    data: Arc<File>,
    begin: u64,
}

/// So many bytes of a file go to the disk together. Small files are done when they are closed.
const PIECE: u64 = 16 << 20;
/// More pieces than this in waiting are more than the disk takes: close() does the rest.
const WAITING: usize = 16;

impl Early {
    /// Starts the thread; it ends with this.
    ///
    /// # Errors
    /// `Local` if there are no more threads.
    pub(super) fn start() -> Result<Self> {
        let (due, pieces) = sync_channel(WAITING);
        std::thread::Builder::new()
            .name("early".to_owned())
            .spawn(move || bring(&pieces))
            .map_err(|e| Error::local("start a thread", &e))?;
        Ok(Early { due })
    }

    /// Some bytes were written. Never waits.
    pub(super) fn wrote(&self, data: &Arc<File>, begin: u64, end: u64) {
        if begin / PIECE == end / PIECE {
            return;
        }
        let piece = Piece {
            data: Arc::clone(data),
            begin: (end / PIECE - 1) * PIECE,
        };
        // If there is no room, the disk is busy enough.
        drop(self.due.try_send(piece));
    }
}

fn bring(pieces: &Receiver<Piece>) {
    while let Ok(Piece { data, begin }) = pieces.recv() {
        // SAFETY: a call with plain numbers; `data` keeps its descriptor open. What it answers is of no consequence.
        unsafe {
            libc::sync_file_range(
                data.as_raw_fd(),
                begin.cast_signed(),
                PIECE.cast_signed(),
                libc::SYNC_FILE_RANGE_WRITE,
            )
        };
    }
}
