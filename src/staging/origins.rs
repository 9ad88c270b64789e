//! How staged files come to be: new, with the bytes that the server has, or from the journal.
//!
//! Called by [`super::Area`], which puts them into the table.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::SystemTime;

use parking_lot::{Condvar, Mutex};

use super::crash::{Point, point};
use super::file::{Closed, Inner, Space, Staged, copy_bytes};
use super::journal::{Entry, Role, State};
use super::place::{Address, Place};
use super::save::Base;
use super::turns::Upload;
use crate::error::{Error, Kind, Result};
use crate::repository::model::RecordId;

impl Staged {
    /// A new, empty file. Its journal entry is written, so that a crash leaves a trace of it; on disk it is with the
    /// first sync.
    pub(super) fn create(space: &Arc<Space>, id: u64, draft: RecordId, place: Place) -> Result<Self> {
        let (data, generation) = space.journal.create_data(id, 0)?;
        point(Point::Created);
        let staged = Staged::assemble(space, id, draft, Address::first(place, id), data, generation);
        let noted = staged.note_unsynced(&mut staged.inner.lock());
        point(Point::Noted);
        match noted {
            Ok(()) => Ok(staged),
            Err(error) => {
                staged.drop_data();
                Err(error)
            }
        }
    }

    /// A file that begins with the bytes the server has.
    pub(super) fn adopt(
        space: &Arc<Space>,
        id: u64,
        draft: RecordId,
        key: Arc<str>,
        bytes: &File,
        mtime: Option<SystemTime>,
    ) -> Result<Self> {
        let (data, generation) = space.journal.create_data(id, 0)?;
        let copied = copy_bytes(bytes, &data, u64::MAX);
        let address = Address::first(Place::File(key), id);
        let staged = Staged::assemble(space, id, draft, address, data, generation);
        {
            let mut inner = staged.inner.lock();
            match copied {
                Ok(size) => inner.size = size,
                Err(e) => {
                    space.journal.remove_data(id, generation);
                    return Err(Error::local(
                        format_args!("copy {} to the staged files", staged.key()),
                        &e,
                    ));
                }
            }
            inner.mtime = mtime.unwrap_or(inner.mtime);
            inner.ctime = inner.mtime;
            inner.dirty = false;
            inner.synced = inner.written;
            inner.upload = Upload::Done;
        }
        Ok(staged)
    }

    /// A draft's document: with the text that the server has, or empty.
    pub(super) fn document(
        space: &Arc<Space>,
        id: u64,
        draft: RecordId,
        text: Option<&[u8]>,
        base: Base,
    ) -> Result<Self> {
        let (data, generation) = space.journal.create_data(id, 0)?;
        let staged = Staged::assemble(
            space,
            id,
            draft,
            Address::first(Place::Document, id),
            data,
            generation,
        );
        {
            let mut inner = staged.inner.lock();
            inner.base = Some(base);
            let Some(text) = text else {
                drop(inner);
                return Ok(staged);
            };
            if let Err(e) = inner.data.write_all_at(text, 0) {
                space.journal.remove_data(id, generation);
                return Err(Error::local(
                    format_args!("copy {} to the staged files", staged.key()),
                    &e,
                ));
            }
            inner.size = text.len() as u64;
            inner.dirty = false;
            inner.synced = inner.written;
            inner.upload = Upload::Done;
        }
        Ok(staged)
    }

    /// A file that an earlier mount left closed and unsent, refused, or as junk.
    pub(super) fn recover(space: &Arc<Space>, entry: &Entry, draft: RecordId) -> Result<Self> {
        let data = space.journal.open_data(entry.id, entry.generation)?;
        let address = Address {
            place: match entry.role {
                Role::File => Place::File(entry.key.as_str().into()),
                Role::Document => Place::Document,
            },
            replaces: entry.replaces.iter().map(|key| key.as_str().into()).collect(),
            order: entry.since(),
        };
        let reading =
            |e: std::io::Error| Error::local(format_args!("look at the staged bytes of {}", entry.key), &e);
        let metadata = data.metadata().map_err(reading)?;
        let staged = Staged::assemble(space, entry.id, draft, address, data, entry.generation);
        {
            let mut inner = staged.inner.lock();
            inner.size = entry.size;
            inner.closed = Some(Closed {
                generation: entry.generation,
                size: entry.size,
            });
            inner.mtime = metadata.modified().unwrap_or(inner.mtime);
            inner.dirty = false;
            inner.synced = inner.written;
            inner.noted = Some(inner.written);
            inner.turn = 1;
            inner.base = entry.base.clone();
            inner.broken = entry
                .broken
                .then(|| Error::new(Kind::Local(libc::EIO), format!("a write to {} failed", entry.key)));
            inner.upload = match &entry.state {
                State::Refused(reason) => Upload::Refused(Error::new(Kind::Refused, reason.clone())),
                State::Open | State::Closed => Upload::Queued,
                State::Local { keep } => {
                    // Its size is not kept up: nobody but this mount cares.
                    inner.size = metadata.len();
                    inner.closed = None;
                    inner.keep = *keep;
                    Upload::Local
                }
            };
        }
        Ok(staged)
    }

    fn assemble(
        space: &Arc<Space>,
        id: u64,
        draft: RecordId,
        address: Address,
        data: File,
        generation: u64,
    ) -> Self {
        let now = SystemTime::now();
        Staged {
            id,
            draft,
            address: Mutex::new(address),
            space: Arc::clone(space),
            inner: Mutex::new(Inner {
                data: Arc::new(data),
                generation,
                closed: None,
                size: 0,
                mtime: now,
                ctime: now,
                dirty: true,
                // A new file is a change, even if nothing is ever written to it.
                written: 1,
                synced: 0,
                noted: None,
                unlinked: false,
                held: false,
                thawing: false,
                broken: None,
                upload: Upload::NotYet,
                confirmed: None,
                turn: 0,
                tries: 0,
                keep: false,
                base: None,
            }),
            changed: Condvar::new(),
            writers: AtomicUsize::new(0),
            active: AtomicUsize::new(0),
            errands: AtomicUsize::new(0),
            opens: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        }
    }
}
