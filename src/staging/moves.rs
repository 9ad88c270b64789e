//! Renaming staged files: what was at the new place is gone, what is at the old one is deleted on the server later.
//!
//! Called by `tree/`, which has brought a committed file here before. The order: the journal has the new name, then the
//! table, then the replaced file is dropped: a crash in between leaves two files at one place, and the later one counts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::closing::{Closing, Moment};
use super::crash::{Point, point};
use super::file::Staged;
use super::junk::Nature;
use super::place::{Address, Place};
use super::queue::{Task, Ticket};
use super::{Area, save::Base};
use crate::error::Result;

/// A rename that is done here; its upload is still to come.
#[must_use]
pub struct Moved {
    staged: Arc<Staged>,
    closing: Closing,
}

impl Area {
    /// Gives a file another place in its draft, and drops the file that was there. The caller counts as a writer, and has
    /// stopped its upload ([`Area::hold`]). `was_there` says whether the server may have something under the old key,
    /// `is_there` under the new one. `base` is for what becomes a document.
    ///
    /// # Errors
    /// `DiskFull`, `Local`: then it is where it was.
    pub fn rename(
        &self,
        staged: &Arc<Staged>,
        to: Place,
        was_there: bool,
        is_there: bool,
        base: Option<Base>,
    ) -> Result<Moved> {
        let shared = &self.shared;
        point(Point::Fetched);
        let old = staged.address();
        let mut replaces = old.replaces.clone();
        if was_there && let Some(key) = old.place.key() {
            replaces.push(Arc::clone(key));
        }
        let replaced = self.at(&staged.draft, to.clone());
        if let Some(replaced) = replaced.filter(|replaced| !Arc::ptr_eq(replaced, staged)) {
            // What it was to delete is this one's to delete.
            replaces.extend(replaced.address().replaces);
        }
        replaces.retain(|key| to.key() != Some(key));
        replaces.sort();
        replaces.dedup();
        let new = Address {
            place: to,
            replaces,
            order: shared.next_id.fetch_add(1, Ordering::Relaxed),
        };
        let spot = (staged.draft.clone(), new.place.clone());
        let old_spot = (staged.draft.clone(), old.place.clone());
        staged.set_address(new.clone());
        let old_base = staged.base();
        staged.set_base(base);
        staged.mark_written();
        let closing = staged.close(Moment::Rename).inspect_err(|_| {
            staged.set_address(old);
            staged.set_base(old_base);
        })?;
        point(Point::Renamed);
        let replaced = {
            let mut files = shared.files.lock();
            files.take_from(&old_spot, staged);
            let replaced = files.put(spot, staged);
            files.set_absent(staged, !is_there && new.place != Place::Document);
            let mut by = Vec::new();
            if let Some(key) = new.place.key() {
                by.extend(files.settle(&staged.draft, key).map(|by| (by, Arc::clone(key))));
            }
            // Those that nobody has taken since: syncing may have taken long.
            let is_ours = |key: &Arc<str>| {
                let just_left = old_spot.1.key() == Some(key);
                let by = files.left_by(&staged.draft, key);
                let left_by_us = by.is_some_and(|by| {
                    Arc::ptr_eq(by, staged)
                        || replaced
                            .as_ref()
                            .is_some_and(|replaced| Arc::ptr_eq(by, replaced))
                });
                let spot = (staged.draft.clone(), Place::File(Arc::clone(key)));
                (just_left || left_by_us) && files.at(&spot).is_none()
            };
            let left = staged.update_address(|address| {
                address.replaces.retain(is_ours);
                address.replaces.clone()
            });
            for key in &left {
                files.leave(&staged.draft, key, staged);
            }
            (replaced, by, left.len() < new.replaces.len())
        };
        if replaced.2 {
            shared.note_address(staged);
        }
        for (by, key) in replaced.1 {
            shared.forget_old_key(&by, staged, &key);
        }
        if let Some(replaced) = replaced.0.filter(|replaced| !Arc::ptr_eq(replaced, staged)) {
            replaced.update_address(|address| address.replaces.clear());
            replaced.unlink();
            shared.drop_if_over(&replaced);
        }
        if was_there && staged.nature() == Nature::Junk {
            shared.queue.push(Ticket {
                staged: Arc::clone(staged),
                task: Task::Sweep,
            });
        }
        shared.enqueue_closing(staged, closing);
        Ok(Moved {
            staged: Arc::clone(staged),
            closing,
        })
    }

    /// Waits for the upload that a rename asked for, until `deadline`. The caller is no writer any more.
    ///
    /// # Errors
    /// Why the server refuses the file.
    pub fn wait_for(&self, moved: &Moved, deadline: Instant) -> Result<()> {
        match moved.closing {
            Closing::Send(turn) => moved.staged.wait(turn, deadline),
            Closing::Nothing | Closing::SendLater(_) => Ok(()),
        }
    }
}
