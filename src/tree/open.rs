//! Open files: what a handle holds, reading, writing, closing.
//!
//! A published or committed file is read through `content/`; a file of a draft that is written becomes a staged one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::node::{Archived, Found, Node};
use super::{DOCUMENT, Facts, Meaning, Tree, control, names};
use crate::archives::OpenMember;
use crate::catalog::FileList;
use crate::content::{Identity, Reader};
use crate::error::{Error, Kind, Result};
use crate::repository::model::{FileEntry, FilePlace, FileStatus, Md5, Owner, RecordId};
use crate::staging::{self, Position, Staged};

/// What a program wants of a file.
#[derive(Clone, Copy, Debug)]
pub struct Intent {
    /// To write it, perhaps besides reading.
    pub write: bool,
    /// To empty it first.
    pub truncate: bool,
    /// That it is new.
    pub exclusive: bool,
    /// The process that opens it: its close is the one that counts.
    pub process: u32,
    /// Of a new file: what is to be remembered of it.
    pub told: Facts,
}

/// An open file.
pub enum Handle {
    /// A text made for this handle.
    Text(Bytes),
    /// Commands that are written, and the answer to the last one.
    Commands(Mutex<Bytes>),
    /// Bytes that the server has.
    Stored {
        /// Where they come from, and the state of this reader.
        reader: Reader,
        /// Where they belong.
        place: FilePlace,
        /// Their checksum, if they have one.
        md5: Option<Md5>,
    },
    /// A member of an archive.
    Member(RecordId, OpenMember),
    /// Bytes that were written here.
    Staged {
        /// The file.
        staged: Arc<Staged>,
        /// Who opened it for writing; `None` for a reader.
        writer: Option<Writer>,
    },
}

impl Handle {
    /// Who reads bytes that stay what they are, so that no look at anything else is due before a read.
    #[must_use]
    pub fn published(&self) -> Option<&Reader> {
        match self {
            Handle::Stored { reader, place, .. } if matches!(place.owner, Owner::Record(_)) => Some(reader),
            _ => None,
        }
    }

    /// The staged file that was opened to write, and by whom.
    fn writer(&self) -> Result<(&Arc<Staged>, &Writer)> {
        match self {
            Handle::Staged {
                staged,
                writer: Some(writer),
            } => Ok((staged, writer)),
            _ => Err(Error::call(libc::EBADF)),
        }
    }
}

/// Somebody who writes a staged file.
pub struct Writer {
    process: u32,
    /// Closed by that process, and not written since; the handle is still there.
    rests: AtomicBool,
}

impl Writer {
    /// A writer who has not closed yet.
    pub(super) fn new(process: u32) -> Self {
        Writer {
            process,
            rests: AtomicBool::new(false),
        }
    }

    /// It is about to write.
    fn wake(&self, staged: &Staged) {
        if self.rests.swap(false, Ordering::AcqRel) {
            staged.wake();
        }
    }

    /// Its process has closed it.
    fn rest(&self, staged: &Staged) {
        if !self.rests.swap(true, Ordering::AcqRel) {
            staged.rest();
        }
    }
}

/// An open file, and how the kernel should treat it.
pub struct Opened {
    /// The handle.
    pub handle: Arc<Handle>,
    /// The pages the kernel has of it are still right.
    pub keep_cache: bool,
    /// The size may not be what stat(2) said: read until the end, without the page cache.
    pub direct: bool,
}

/// Where the answer to a read goes. It is called once, perhaps later and on another thread.
pub type ReadReply = Box<dyn FnOnce(Result<Vec<u8>>) + Send>;

impl Tree {
    /// Opens a file.
    ///
    /// # Errors
    /// `Published`, `Denied`; `Call` with the usual errno; what kept the repository from answering.
    pub fn open(&self, ino: u64, intent: Intent) -> Result<Opened> {
        let node = match self.meaning(ino)? {
            Meaning::Here(node) => node,
            Meaning::Gone(orphan) => {
                let staged = orphan.staged.ok_or_else(|| Error::call(libc::ESTALE))?;
                return Ok(Opened::plain(Handle::Staged { staged, writer: None }));
            }
        };
        if intent.write {
            self.refuse_write(&node)?;
        }
        match &node {
            Node::Status => Ok(Opened {
                direct: true,
                ..Opened::plain(Handle::Text(self.status_text()))
            }),
            Node::Commands => Ok(Opened {
                direct: true,
                ..Opened::plain(Handle::Commands(Mutex::default()))
            }),
            Node::Document(Owner::Draft(id)) if intent.write => self.open_document(id, intent),
            Node::Document(owner) => self.open_document_to_read(owner),
            Node::Sums(id) => self.open_sums(id),
            Node::Rejected(id) | Node::Reasons(id) => self.open_rejected(&node, id),
            Node::File(Owner::Draft(id), key) if intent.write => self.open_to_write(id, key, intent),
            Node::File(owner, key) => self.open_to_read(owner, key),
            Node::Archived(record, Archived::File(key, number)) => self.open_member(record, key, *number),
            Node::Around(spot) => self.open_around(spot),
            _ => Err(Error::call(libc::EISDIR)),
        }
    }

    /// Creates a file in a draft and opens it for writing.
    ///
    /// # Errors
    /// As for [`Tree::open`]; `Refused` and `Call(ENAMETOOLONG)` for names that no key can have.
    pub fn create(&self, parent: u64, name: &str, intent: Intent) -> Result<(Found, Opened)> {
        let parent = self.place(parent)?;
        let (draft, path) = self.draft_folder(&parent)?;
        if let Some(node) = self.child(&parent, name)? {
            return self.create_over(&node, intent);
        }
        if path.is_empty() && name == DOCUMENT {
            // It was unlinked on the way to discarding the draft, and is written anew.
            let opened = self.open_document(draft, intent)?;
            let node = Node::Document(Owner::Draft(draft.clone()));
            let found = self.remember(&node, self.attributes_of(&node)?);
            return Ok((found, opened));
        }
        let key: Arc<str> = names::join(path, name).into();
        check_key(&key, name)?;
        let owner = Owner::Draft(draft.clone());
        let listed = self.floors.catalog.files(&owner)?;
        let known = listed.iter().find(|entry| entry.key == key);
        if known.is_some_and(|entry| entry.status == FileStatus::Completed)
            && !self.floors.staging.left(draft).contains(&key)
        {
            // A name that is not asked for when it is only looked up.
            return self.create_over(&Node::File(owner, key), intent);
        }
        // A pending entry of somebody else's is not shown, but it is in the way of a plain start.
        let absent = known.is_none();
        let staged = self.floors.staging.create(draft, &key, absent)?;
        let node = Node::File(owner, key);
        self.floors.told.forget(&node);
        self.labels.forget(&node);
        self.floors.told.say(&node, intent.told.begun(), None);
        self.floors.told.touch(&parent);
        self.state.lock().titles.show_document(draft);
        let found = self.remember(&node, self.staged_attributes(&node, &staged));
        let handle = Handle::Staged {
            staged,
            writer: Some(Writer::new(intent.process)),
        };
        Ok((found, Opened::plain(handle)))
    }

    /// Creates what is there already: opens it, unless it must be new.
    fn create_over(&self, node: &Node, intent: Intent) -> Result<(Found, Opened)> {
        if intent.exclusive {
            return Err(Error::call(libc::EEXIST));
        }
        let found = self.remember(node, self.attributes_of(node)?);
        let opened = self
            .open(found.ino, intent)
            .inspect_err(|_| self.forget(found.ino, 1))?;
        Ok((found, opened))
    }

    /// Reads. Local bytes are answered at once, others when they are there; it blocks for the network only in members of
    /// archives.
    pub fn read(self: &Arc<Self>, ino: u64, handle: &Handle, offset: u64, length: u32, reply: ReadReply) {
        match handle {
            Handle::Text(text) => reply(Ok(part(text, offset, length))),
            Handle::Commands(answer) => reply(Ok(part(&answer.lock(), offset, length))),
            Handle::Member(record, member) => {
                member.read(
                    offset,
                    length,
                    self.forgetting(&Owner::Record(record.clone()), reply),
                );
            }
            Handle::Staged {
                staged,
                writer: Some(_),
            } => reply(staged.read(offset, length)),
            Handle::Staged { staged, writer: None } => {
                let staging::Place::File(key) = staged.place() else {
                    return reply(staged.read(offset, length));
                };
                let owner = Owner::Draft(staged.draft().clone());
                let place = FilePlace { owner, key };
                match self.seen_now(ino, &place, staged.confirmed()) {
                    Now::Same => reply(staged.read(offset, length)),
                    Now::Written(newer) => reply(newer.read(offset, length)),
                    Now::Replaced => reply(Err(replaced(&place))),
                }
            }
            Handle::Stored { reader, place, md5 } => match self.seen_now(ino, place, *md5) {
                Now::Same => reader.read(offset, length, self.forgetting(&place.owner, reply)),
                Now::Written(newer) => reply(newer.read(offset, length)),
                Now::Replaced => reply(Err(replaced(place))),
            },
        }
    }

    /// What a file is by now that was opened to read when it had this checksum: all handles of a file see the same bytes,
    /// because the kernel keeps its pages for all of them together.
    fn seen_now(&self, ino: u64, place: &FilePlace, md5: Option<Md5>) -> Now {
        let Owner::Draft(draft) = &place.owner else {
            return Now::Same;
        };
        // By the number: it may have another name by now, and another file its name.
        let Ok(Meaning::Here(Node::File(_, key))) = self.meaning(ino) else {
            return Now::Same;
        };
        if let Some(staged) = self.floors.staging.find(draft, &key) {
            return Now::Written(staged);
        }
        let view = self.known_view(&place.owner);
        let entry = view
            .as_ref()
            .and_then(|view| view.file(&key))
            .map(|file| &file.entry);
        match (entry, md5) {
            (Some(entry), Some(_)) if entry.status == FileStatus::Completed && entry.md5 != md5 => {
                Now::Replaced
            }
            _ => Now::Same,
        }
    }

    /// A reply that forgets what we know of the files if it turns out to be wrong.
    fn forgetting(self: &Arc<Self>, owner: &Owner, reply: ReadReply) -> ReadReply {
        let (tree, owner) = (Arc::downgrade(self), owner.clone());
        Box::new(move |answer: Result<Vec<u8>>| {
            if let Err(error) = &answer
                && matches!(error.kind(), Kind::Changed | Kind::NotFound)
                && let Some(tree) = tree.upgrade()
            {
                tree.floors.catalog.forget_files(&owner);
            }
            reply(answer);
        })
    }

    /// Writes to a file opened for writing.
    ///
    /// # Errors
    /// `Call(EBADF)` if it is not; `DiskFull`, `Local`; `Call(EFBIG)` past the largest offset.
    pub fn write(
        self: &Arc<Self>,
        ino: u64,
        handle: &Handle,
        position: Position,
        bytes: &[u8],
    ) -> Result<()> {
        if let Handle::Commands(answer) = handle {
            let done = self.command(bytes);
            *answer.lock() = control::answer(&done);
            return done.map(drop);
        }
        let (staged, writer) = handle.writer()?;
        writer.wake(staged);
        self.note_written(ino);
        staged.write(position, bytes)
    }

    /// Who writes takes some of a file's mode away.
    fn note_written(&self, ino: u64) {
        if let Ok(Meaning::Here(node)) = self.meaning(ino) {
            self.floors.told.written(&node);
        }
    }

    /// Writes without waiting for anybody or copying anything, if that can be. Never blocks but for the page cache.
    ///
    /// # Errors
    /// As for [`Tree::write`].
    pub fn write_quickly(
        &self,
        ino: u64,
        handle: &Handle,
        position: Position,
        bytes: &[u8],
    ) -> Option<Result<()>> {
        let (staged, writer) = handle.writer().ok()?;
        writer.wake(staged);
        let written = staged.write_quickly(position, bytes)?;
        self.note_written(ino);
        Some(written)
    }

    /// fallocate(2): makes room, or holes.
    ///
    /// # Errors
    /// `Call(EBADF)` if the file is not open to write; `Call(EOPNOTSUPP)` for what the local disk can't; `DiskFull`, `Local`.
    pub fn allocate(&self, handle: &Handle, offset: u64, length: u64, flags: i32) -> Result<()> {
        let (staged, writer) = handle.writer()?;
        writer.wake(staged);
        staged.allocate(offset, length, flags)
    }

    /// FLUSH: a process closed a descriptor.
    ///
    /// # Errors
    /// Why what was written can't be kept or is refused by the server.
    pub fn flush(&self, handle: &Handle, process: u32) -> Result<()> {
        let Ok((staged, writer)) = handle.writer() else {
            return Ok(());
        };
        let by_opener = writer.process == process;
        if by_opener {
            writer.rest(staged);
        }
        self.floors.staging.flush(staged, by_opener)
    }

    /// fsync(2): what was written is on the local disk, and in the journal.
    ///
    /// # Errors
    /// `DiskFull`, `Local`.
    pub fn sync(&self, handle: &Handle) -> Result<()> {
        match handle {
            Handle::Staged { staged, .. } => staged.sync(),
            _ => Ok(()),
        }
    }

    /// RELEASE: a handle is gone.
    ///
    /// # Errors
    /// Why what was written can't be kept; nobody hears it but the log.
    pub fn release(&self, handle: &Handle) -> Result<()> {
        let Ok((staged, writer)) = handle.writer() else {
            return Ok(());
        };
        writer.wake(staged);
        self.floors.staging.release(staged)
    }

    /// Why nothing can be written to a node, if so.
    pub(super) fn refuse_write(&self, node: &Node) -> Result<()> {
        if node.is_published() {
            return Err(Error::new(Kind::Published, "published records are read-only"));
        }
        if self.rules.read_only {
            return Err(Error::call(libc::EROFS));
        }
        match node {
            Node::File(Owner::Draft(_), _)
            | Node::Document(Owner::Draft(_))
            | Node::Home(Owner::Draft(_))
            | Node::Folder(Owner::Draft(_), _)
            | Node::Commands => Ok(()),
            _ => Err(Error::call(libc::EPERM)),
        }
    }

    /// The draft and path of a folder in which files can be made.
    pub(super) fn draft_folder<'a>(&self, node: &'a Node) -> Result<(&'a RecordId, &'a str)> {
        self.refuse_write(node)?;
        node.draft_folder().ok_or_else(|| Error::call(libc::EPERM))
    }

    fn open_to_read(&self, owner: &Owner, key: &Arc<str>) -> Result<Opened> {
        let view = self.view(owner)?;
        let file = view.file(key).ok_or_else(|| Error::call(libc::ENOENT))?;
        if let Some(staged) = self.staged_now(owner, file) {
            return Ok(Opened::plain(Handle::Staged { staged, writer: None }));
        }
        let reader = self.reader(owner, &file.entry);
        // A draft's file may have had other bytes under the same number a moment ago.
        let keep_cache = matches!(owner, Owner::Record(_)) && reader.content().is_verified();
        let place = FilePlace {
            owner: owner.clone(),
            key: Arc::clone(key),
        };
        let handle = Handle::Stored {
            reader,
            place,
            md5: file.entry.md5,
        };
        Ok(Opened {
            keep_cache,
            ..Opened::plain(handle)
        })
    }

    pub(super) fn reader(&self, owner: &Owner, entry: &FileEntry) -> Reader {
        let place = FilePlace {
            owner: owner.clone(),
            key: Arc::clone(&entry.key),
        };
        let identity = identity_of(&place, entry);
        self.floors.content.content(identity, place).reader()
    }

    fn open_to_write(&self, draft: &RecordId, key: &Arc<str>, intent: Intent) -> Result<Opened> {
        let staged = self.stage(draft, key, intent.truncate)?;
        Ok(Opened::plain(Handle::Staged {
            staged,
            writer: Some(Writer::new(intent.process)),
        }))
    }

    /// The staged file of a key, with one more writer; a committed one is copied here first unless it is emptied.
    pub(super) fn stage(&self, draft: &RecordId, key: &Arc<str>, truncate: bool) -> Result<Arc<Staged>> {
        let area = &self.floors.staging;
        loop {
            if let Some(staged) = area.find(draft, key)
                && area.reopen(&staged).is_some()
            {
                if truncate && let Err(error) = staged.truncate(0) {
                    area.release(&staged)?;
                    return Err(error);
                }
                return Ok(staged);
            }
            let made = if truncate {
                area.create(draft, key, false)
            } else {
                self.copy_up(draft, key)
            };
            match made {
                // Somebody else was faster; theirs is as good.
                Err(error) if error.kind() == Kind::Call(libc::EEXIST) => {}
                made => return made,
            }
        }
    }

    /// A staged file that begins with the committed bytes.
    fn copy_up(&self, draft: &RecordId, key: &Arc<str>) -> Result<Arc<Staged>> {
        let area = &self.floors.staging;
        let owner = Owner::Draft(draft.clone());
        let committed = |tree: &Tree| -> Result<FileEntry> {
            let view = tree.view(&owner)?;
            let file = view.file(key).ok_or_else(|| Error::call(libc::ENOENT))?;
            Ok(file.entry.clone())
        };
        let entry = committed(self)?;
        if entry.status != FileStatus::Completed {
            // Staged a moment ago, and not in the list yet.
            return Err(Error::call(libc::EEXIST));
        }
        let reader = self.reader(&owner, &entry);
        reader.fetch_all()?;
        let stored = reader.content().complete_file().ok_or_else(|| {
            Error::new(
                Kind::Internal,
                format!("{key} was fetched, but is not in the cache"),
            )
        })?;
        let told = self.told_of(&Node::File(owner.clone(), Arc::clone(key)), entry.md5);
        // Fetching takes long: if the file was replaced or removed meanwhile, these are the wrong bytes to begin with.
        let is_same = |files: Arc<FileList>| {
            files
                .iter()
                .any(|now| now.key == *key && now.status == FileStatus::Completed && now.md5 == entry.md5)
        };
        if !is_same(self.floors.catalog.files(&owner)?) {
            return Err(Error::call(libc::EEXIST));
        }
        let staged = area.adopt(draft, key, stored.file(), told.mtime.or(entry.updated))?;
        if !self.floors.catalog.known_files(&owner).is_none_or(is_same) {
            area.release(&staged)?;
            return Err(Error::call(libc::EEXIST));
        }
        Ok(staged)
    }
}

impl Opened {
    pub(super) fn plain(handle: Handle) -> Self {
        Opened {
            handle: Arc::new(handle),
            keep_cache: false,
            direct: false,
        }
    }
}

/// What names the bytes of a file.
pub(super) fn identity_of(place: &FilePlace, entry: &FileEntry) -> Identity {
    let size = entry.size.unwrap_or(0);
    match entry.md5 {
        Some(md5) => Identity::Md5 { md5, size },
        None => Identity::Unverified {
            tag: format!("{place} {:?}", entry.updated),
            size,
        },
    }
}

/// A part of a text; shorter at its end.
fn part(text: &[u8], offset: u64, length: u32) -> Vec<u8> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    let end = start.saturating_add(length as usize).min(text.len());
    text[start..end].to_vec()
}

/// What a file is by now.
enum Now {
    /// What it was.
    Same,
    /// It was written here.
    Written(Arc<Staged>),
    /// The server has other bytes.
    Replaced,
}

fn replaced(place: &FilePlace) -> Error {
    Error::new(Kind::Changed, format!("{place} was replaced"))
}

/// Refuses keys that the server would take and then not give back, before anything is written to them.
pub(super) fn check_key(key: &str, name: &str) -> Result<()> {
    names::check_length(name)?;
    if key.chars().count() > names::LONGEST_KEY {
        return Err(Error::call(libc::ENAMETOOLONG));
    }
    if !names::is_showable_name(name) {
        return Err(Error::new(
            Kind::Refused,
            format!("the repository can't hold a file named {name:?}: it holds control characters"),
        ));
    }
    Ok(())
}
