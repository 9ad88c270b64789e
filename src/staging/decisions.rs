//! What waits, is refused or was never closed, and what its user decides about it.
//!
//! Called by `tree/` for the status and for the commands that are written to `.rdmfs/control`.

use super::place::Place;
use super::upload::Known;
use super::{Area, recovery};
use crate::error::{Error, Kind, Result};
use crate::repository::model::{FileEntry, FileStatus};

impl Area {
    /// What is not safe on the server, oldest first.
    #[must_use]
    pub fn uploads(&self) -> Vec<crate::status::Upload> {
        let mut uploads: Vec<_> = self
            .shared
            .all()
            .iter()
            .filter(|staged| staged.is_unsent())
            .map(|staged| staged.status())
            .chain(self.shared.unclosed_status())
            .collect();
        uploads.sort_by_key(|upload| upload.id);
        uploads
    }

    /// Tries an upload again now: one that was refused, that waits, or that was never closed.
    ///
    /// # Errors
    /// `Call(ENOENT)` if there is none of this number; `Call(EBUSY)` if it is on its way; `Call(EEXIST)`, `Local`.
    pub fn retry(&self, id: u64) -> Result<()> {
        let Some(staged) = self.shared.numbered(id) else {
            return self.shared.send_unclosed(id);
        };
        let turn = staged.revive()?;
        if staged.place() == Place::Document {
            self.shared.files.lock().take_back(&staged);
        }
        self.shared.enqueue(&staged, turn, Some(Known::Nothing));
        Ok(())
    }

    /// Drops what was written: the bytes that are here, and an entry on the server that has none.
    ///
    /// # Errors
    /// `Call(ENOENT)` if there is none of this number; `Call(EBUSY)` if it is open; what kept the server from answering.
    pub fn discard(&self, id: u64) -> Result<()> {
        let Some(staged) = self.shared.numbered(id) else {
            return if self.shared.drop_unclosed(id) {
                Ok(())
            } else {
                Err(recovery::not_listed(id))
            };
        };
        if staged.is_written() {
            return Err(Error::new(
                Kind::Call(libc::EBUSY),
                format!("{} is open in a program", staged.key()),
            )
            .with_advice("Close it there first."));
        }
        let on_server = self.hold(&staged)?;
        if let Some(key) = staged.place().key()
            && on_server
        {
            // A pending entry would keep the draft from being published.
            let pending = |entry: &FileEntry| entry.key == *key && entry.status == FileStatus::Pending;
            let files = self.shared.repository.draft_files(&staged.draft);
            let deleted = files.and_then(|files| match files.iter().any(pending) {
                true => self.shared.delete(&staged.draft, key),
                false => Ok(()),
            });
            if let Err(error) = deleted
                && error.kind() != Kind::NotFound
            {
                self.resume(&staged);
                return Err(error);
            }
        }
        self.remove(&staged);
        Ok(())
    }
}
