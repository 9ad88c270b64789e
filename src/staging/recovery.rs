//! What an earlier mount left in the journal: sent, shown or kept, and never another user's.
//!
//! Called when the area opens, before its first worker starts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::file::Staged;
use super::journal::{Entry, Role, State};
use super::junk::Nature;
use super::place::Place;
use super::upload::Known;
use crate::error::{Error, Kind, Result};
use crate::repository::model::RecordId;

impl Shared {
    /// Goes on with what an earlier mount left. Of two files with one key, the later one counts.
    pub(super) fn recover(self: &Arc<Self>, entries: Vec<Entry>) {
        for entry in entries {
            if entry.repository != self.space.repository || entry.account != self.space.account {
                log::info!(
                    "{} of draft {} was staged by another user; left alone",
                    entry.key,
                    entry.draft
                );
                continue;
            }
            if let Err(error) = self.recover_one(entry) {
                self.board.post(&error);
            }
        }
        self.recover_old_keys();
    }

    fn recover_one(self: &Arc<Self>, entry: Entry) -> Result<()> {
        let mut entry = self.split(entry)?;
        let is_junk = entry.role == Role::File && self.space.rules.nature_of(&entry.key) == Nature::Junk;
        if entry.state == State::Open {
            if !is_junk {
                if self.space.journal.has_data(entry.id, entry.generation) {
                    if !entry.replaces.is_empty() {
                        // Its rename was never completed: whatever is under the old keys stays.
                        entry.replaces.clear();
                        self.space.journal.write(&entry)?;
                    }
                    self.keep_unclosed(entry);
                } else {
                    // A crash came while it was told from the closed one, or dropped.
                    self.space.journal.remove(entry.id);
                }
                return Ok(());
            }
            // An editor's swap file is what its user hopes to find after a crash.
            entry.state = State::Local { keep: false };
        }
        let staged = Arc::new(Staged::recover(&self.space, &entry, draft_of(&entry)?)?);
        match (&entry.state, entry.role) {
            (State::Refused(_), Role::Document) => self.put_rejected(&staged),
            (State::Closed, _) => self.readmit(&staged, true),
            _ => self.readmit(&staged, false),
        }
        Ok(())
    }

    /// Tells a closed generation from a later one that was never closed: that gets an entry of its own.
    fn split(&self, mut entry: Entry) -> Result<Entry> {
        let Some(open) = entry.open.take() else {
            return Ok(entry);
        };
        let journal = &self.space.journal;
        if open == entry.generation || !journal.has_data(entry.id, open) {
            // The crash came before its first byte, or when this was nearly done.
            entry.broken = false;
            journal.write(&entry)?;
            return Ok(entry);
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let unclosed = Entry {
            id,
            generation: 0,
            order: id,
            replaces: Vec::new(),
            state: State::Open,
            ..entry.clone()
        };
        // The write that failed was to the later one.
        entry.broken = false;
        // In this order, so that at each moment one of the two entries names the bytes.
        journal.write(&unclosed)?;
        journal.hand_over(entry.id, open, id)?;
        journal.write(&entry)?;
        self.keep_unclosed(unclosed);
        Ok(entry)
    }

    fn keep_unclosed(&self, entry: Entry) {
        let path = self.space.journal.data_path(entry.id, entry.generation);
        log::warn!(
            "{} of draft {} was never closed; what was written is kept in {}",
            entry.key,
            entry.draft,
            path.display()
        );
        self.files.lock().unclosed().insert(entry.id, entry);
    }

    fn readmit(self: &Arc<Self>, staged: &Arc<Staged>, send: bool) {
        let spot = (staged.draft.clone(), staged.place());
        let older = self.files.lock().put(spot, staged);
        if let Some(older) = older {
            older.unlink();
            older.drop_data();
        }
        if send {
            self.enqueue(staged, staged.turn(), Some(Known::Nothing));
        }
    }

    /// Old keys that nobody has taken since are still to be deleted on the server.
    fn recover_old_keys(&self) {
        let mut changed = Vec::new();
        {
            let mut files = self.files.lock();
            let all: Vec<Arc<Staged>> = files.all().cloned().collect();
            for staged in all {
                let is_taken = |key: &Arc<str>| {
                    let spot = (staged.draft.clone(), Place::File(Arc::clone(key)));
                    files.at(&spot).is_some()
                };
                let before = staged.address().replaces.len();
                let left = staged.update_address(|address| {
                    address.replaces.retain(|key| !is_taken(key));
                    address.replaces.clone()
                });
                if left.len() != before {
                    changed.push(Arc::clone(&staged));
                }
                for key in &left {
                    files.leave(&staged.draft, key, &staged);
                }
            }
        }
        for staged in changed {
            self.note_address(&staged);
        }
    }

    /// What a file that was never closed looks like in the status.
    pub(super) fn unclosed_status(&self) -> Vec<crate::status::Upload> {
        let entries: Vec<Entry> = self.files.lock().unclosed().values().cloned().collect();
        entries
            .into_iter()
            .map(|entry| {
                let kept = self.space.journal.data_path(entry.id, entry.generation);
                crate::status::Upload {
                    id: entry.id,
                    draft: entry.draft,
                    key: entry.key,
                    state: crate::status::UploadState::Unclosed,
                    sent: 0,
                    size: kept.metadata().map_or(entry.size, |metadata| metadata.len()),
                    tries: 0,
                    next_try: None,
                    reason: None,
                    kept,
                }
            })
            .collect()
    }

    /// Sends what was never closed, because its user says that it is complete.
    pub(super) fn send_unclosed(self: &Arc<Self>, id: u64) -> Result<()> {
        let entry = self.files.lock().unclosed().get(&id).cloned();
        let entry = entry.ok_or_else(|| not_listed(id))?;
        let draft = draft_of(&entry)?;
        let keeping = |e: std::io::Error| Error::local(format_args!("keep {}", entry.key), &e);
        let data = self.space.journal.open_data(entry.id, entry.generation)?;
        data.sync_all().map_err(keeping)?;
        let mut closed = entry.clone();
        closed.size = data.metadata().map_err(keeping)?.len();
        closed.state = State::Closed;
        // Its user has looked at it.
        closed.broken = false;
        let staged = Arc::new(Staged::recover(&self.space, &closed, draft)?);
        let spot = (staged.draft.clone(), staged.place());
        // From here on it has its place, and nobody else can take that.
        let left = {
            let mut files = self.files.lock();
            if files.at(&spot).is_some() {
                return Err(Error::new(
                    Kind::Call(libc::EEXIST),
                    format!("{} of draft {} was written anew since", entry.key, entry.draft),
                )
                .with_advice("Take the older bytes out with rdmfs uploads recover, or drop them."));
            }
            files.unclosed().remove(&id);
            files.put(spot.clone(), &staged);
            let key = spot.1.key();
            key.and_then(|key| Some((files.settle(&staged.draft, key)?, Arc::clone(key))))
        };
        if let Some((by, key)) = left {
            self.forget_old_key(&by, &staged, &key);
        }
        if let Err(error) = staged.journal_address() {
            let mut files = self.files.lock();
            files.take(&staged);
            files.unclosed().insert(id, entry);
            return Err(error);
        }
        self.enqueue(&staged, staged.turn(), Some(Known::Nothing));
        Ok(())
    }

    /// Drops what was never closed. False if there is none of this number.
    pub(super) fn drop_unclosed(&self, id: u64) -> bool {
        let Some(entry) = self.files.lock().unclosed().remove(&id) else {
            return false;
        };
        self.space.journal.remove(id);
        self.space.journal.remove_data(id, entry.generation);
        true
    }
}

/// Nothing of this number waits.
pub(super) fn not_listed(id: u64) -> Error {
    Error::new(Kind::Call(libc::ENOENT), format!("there is no upload {id}"))
        .with_advice("rdmfs uploads list shows what there is.")
}

fn draft_of(entry: &Entry) -> Result<RecordId> {
    RecordId::new(&entry.draft).ok_or_else(|| {
        Error::new(
            Kind::Internal,
            format!("journal entry {} names no draft", entry.id),
        )
    })
}
