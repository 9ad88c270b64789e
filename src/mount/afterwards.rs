//! The lanes that a mount has, and what is left to do in them when the kernel sends nothing more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answers::Shared;
use super::lanes::Lane;

/// Where calls wait.
pub(super) struct Lanes {
    /// Calls that may ask the repository.
    pub(super) metadata: Lane,
    /// Reads of what the server has: local disk only; those that need the network are answered by the floor that
    /// fetches.
    pub(super) data: Lane,
    /// Reads in members of archives, which wait for the network: one for each handle.
    pub(super) archives: Lane,
    /// Reads and writes of staged files. One of them may have to copy a large file first.
    pub(super) staged: Lane,
    /// Calls that may wait for an upload.
    pub(super) closing: Lane,
}

/// What is left to do when the kernel sends nothing more.
pub(super) struct Afterwards {
    pub(super) shared: Arc<Shared>,
    pub(super) lanes: Arc<Lanes>,
}

impl Afterwards {
    /// Waits for the calls under way, and closes what programs had open: the kernel need not tell at an unmount.
    pub(super) fn finish(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        for lane in [&self.lanes.staged, &self.lanes.closing] {
            if !lane.wait_idle(deadline) {
                log::warn!("calls are still under way; what was closed is in the journal");
            }
        }
        for handle in self.shared.files.take_all() {
            if let Err(error) = self.shared.tree.release(&handle) {
                self.shared.tree.board().post(&error);
            }
        }
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Lanes {
            metadata: Lane::new("metadata", 128),
            data: Lane::new("data", 4),
            archives: Lane::new("archives", 64),
            staged: Lane::new("staged", 64),
            closing: Lane::new("closing", 256),
        }
    }
}
