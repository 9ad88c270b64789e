//! `records/<id>/archives`: the archives among a record's files as folders, and what is in them.
//!
//! Which archives there are comes from the list of files. What is in one is read when somebody looks into it, and kept by
//! what names its bytes, so that versions share it. Its locks are leaves, never held while another floor is called.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;

use super::members::{Contents, Item};
use super::names::{self, Layout};
use super::node::{Archived, Attributes, Kind, Node};
use super::open::{Handle, Opened, identity_of};
use super::served::{MemberId, Served, Way};
use super::view::Line;
use super::{ARCHIVES, Tree};
use crate::archives::{Directory, Member, Memory, OpenMember, Shared};
use crate::catalog::timed::{Lifetimes, Timed};
use crate::catalog::{self, FileList};
use crate::content::Identity;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::repository::model::{FileEntry, FilePlace, FileStatus, Owner, RecordId};

/// What is known of archives.
pub(super) struct Archives {
    /// What they hold.
    known: Timed<Identity, Contents>,
    /// What was read of those that the repository has told of.
    read: Timed<Identity, Contents>,
    pub(super) served: Served,
    shelves: Mutex<LruCache<RecordId, Arc<Shelf>>>,
    members: Mutex<Members>,
    memory: Arc<Memory>,
}

/// The archives of one record, by name.
struct Shelf {
    list: Arc<FileList>,
    layout: Layout,
    /// By their numbers in the layout.
    keys: Vec<Arc<str>>,
}

struct Members {
    open: HashMap<MemberId, Weak<Shared>>,
    /// When to look for closed ones next: at this many.
    sweep_at: usize,
    /// Whether all of a member was once read and compared with its sum: then the kernel may keep its pages.
    right: LruCache<MemberId, Arc<AtomicBool>>,
}

/// Memory for what archives hold: about half a million members. The newest stays even if it alone takes more.
const CAPACITY: usize = 128 << 20;
/// Bytes never change, so neither does what they hold.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// As long as a passing failure is repeated to those who ask again.
const FAILED: Duration = Duration::from_secs(1);
/// Records whose shelves are kept.
const SHELVES: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// Members that are known to be right.
const RIGHT: NonZeroUsize = NonZeroUsize::new(16 << 10).unwrap();
/// The types of ZIP archives whose keys don't say so.
const TYPES: [&str; 3] = [
    "application/zip",
    "application/x-zip",
    "application/x-zip-compressed",
];

impl Archives {
    /// `refused` is how long it counts that something is no archive.
    pub(super) fn new(refused: Duration) -> Self {
        let lifetimes = Lifetimes {
            found: LIFE,
            refused,
            failed: FAILED,
        };
        Archives {
            known: Timed::new(CAPACITY, lifetimes),
            read: Timed::new(CAPACITY / 4, lifetimes),
            served: Served::default(),
            shelves: Mutex::new(LruCache::new(SHELVES)),
            members: Mutex::new(Members {
                open: HashMap::new(),
                sweep_at: 64,
                right: LruCache::new(RIGHT),
            }),
            memory: Arc::default(),
        }
    }

    /// Looks anew the next time.
    pub(super) fn expire(&self) {
        self.known.expire();
        self.read.expire();
    }

    /// What all who have this member open share.
    fn shared(&self, id: &MemberId, member: &Member, what: String) -> Result<Arc<Shared>> {
        let mut members = self.members.lock();
        if let Some(shared) = members.open.get(id).and_then(Weak::upgrade)
            && !shared.is_wrong()
        {
            return Ok(shared);
        }
        let right = Arc::clone(members.right.get_or_insert(id.clone(), Arc::default));
        let shared = Arc::new(Shared::new(
            member.clone(),
            what,
            right,
            Arc::clone(&self.memory),
        )?);
        members.open.insert(id.clone(), Arc::downgrade(&shared));
        if members.open.len() >= members.sweep_at {
            members.open.retain(|_, shared| shared.strong_count() > 0);
            members.sweep_at = (members.open.len() * 2).max(64);
        }
        Ok(shared)
    }
}

impl Shelf {
    fn new(list: Arc<FileList>) -> Self {
        let archives = list.iter().filter(|entry| is_archive(entry));
        let keys: Vec<Arc<str>> = archives.map(|entry| Arc::clone(&entry.key)).collect();
        Shelf {
            layout: Layout::new(keys.iter().map(|key| &**key), &[]),
            keys,
            list,
        }
    }

    fn place(&self, path: &str, name: &str, item: &names::Item) -> Archived {
        match item {
            names::Item::Folder => Archived::Shelf(names::join(path, name).into()),
            names::Item::File(number) => Archived::Folder(Arc::clone(&self.keys[*number]), 0),
        }
    }
}

impl Tree {
    /// `records/<id>/archives`, unless it is known that there are none.
    pub(super) fn archives_of(&self, record: &RecordId) -> Option<Node> {
        let known = self.floors.catalog.known_files(&Owner::Record(record.clone()));
        known
            .is_none_or(|list| list.iter().any(is_archive))
            .then(|| Node::Archived(record.clone(), Archived::Shelf("".into())))
    }

    /// The same as a line of the record's listing.
    pub(super) fn archives_line(&self, record: &RecordId, entry: &catalog::Entry) -> Option<Line> {
        let node = self.archives_of(record)?;
        Some(Line {
            name: ARCHIVES.to_owned(),
            attributes: self.folder_attributes(&node, entry),
            node,
        })
    }

    /// The node that a name stands for.
    pub(super) fn archived_child(
        &self,
        record: &RecordId,
        place: &Archived,
        name: &str,
    ) -> Result<Option<Node>> {
        let is_probe = names::is_probe(name);
        let found = match place {
            Archived::Shelf(path) => {
                let shelf = match self.known_shelf(record) {
                    None if is_probe => return Ok(None),
                    None => self.shelf(record)?,
                    Some(shelf) => shelf,
                };
                let items = shelf.layout.folder(path);
                items
                    .and_then(|items| items.get(name))
                    .map(|item| shelf.place(path, name, item))
            }
            Archived::Folder(key, number) => {
                let contents = if is_probe {
                    self.known_contents(record, key)
                } else {
                    Some(self.contents(record, key)?)
                };
                contents.and_then(|contents| {
                    let item = contents.folder(*number)?.items.get(name)?;
                    Some(place_of(key, *item))
                })
            }
            Archived::File(..) => return Err(Error::call(libc::ENOTDIR)),
        };
        Ok(found.map(|place| Node::Archived(record.clone(), place)))
    }

    /// What stat(2) says. Of the archives themselves it is said without looking into them.
    pub(super) fn archived_attributes(&self, record: &RecordId, place: &Archived) -> Result<Attributes> {
        let node = Node::Archived(record.clone(), place.clone());
        let entry = self.floors.catalog.record(record)?;
        let folder = self.folder_attributes(&node, &entry);
        let gone = || Error::call(libc::ENOENT);
        match place {
            Archived::Shelf(path) if path.is_empty() => Ok(folder),
            Archived::Shelf(path) => {
                let shelf = self.shelf(record)?;
                shelf.layout.folder(path).map(|_| folder).ok_or_else(gone)
            }
            Archived::Folder(key, 0) => self.archive(record, key).map(|_| folder),
            Archived::Folder(key, number) => {
                let contents = self.contents(record, key)?;
                let item = Item::Folder(*number);
                attributes_in(&contents, item, &folder).ok_or_else(gone)
            }
            Archived::File(key, number) => {
                let contents = self.contents(record, key)?;
                let item = Item::File(*number);
                attributes_in(&contents, item, &folder).ok_or_else(gone)
            }
        }
    }

    /// The lines of a listing.
    pub(super) fn list_archived(&self, record: &RecordId, place: &Archived) -> Result<Vec<Line>> {
        let entry = self.floors.catalog.record(record)?;
        let here = Node::Archived(record.clone(), place.clone());
        let folder = self.folder_attributes(&here, &entry);
        let line = |name: &str, place: Archived, attributes: Attributes| Line {
            name: name.to_owned(),
            node: Node::Archived(record.clone(), place),
            attributes,
        };
        let gone = || Error::call(libc::ENOENT);
        match place {
            Archived::Shelf(path) => {
                let shelf = self.shelf(record)?;
                let items = shelf.layout.folder(path).ok_or_else(gone)?;
                Ok(items
                    .iter()
                    .map(|(name, item)| line(name, shelf.place(path, name, item), folder.clone()))
                    .collect())
            }
            Archived::Folder(key, number) => {
                let contents = self.contents(record, key)?;
                let items = &contents.folder(*number).ok_or_else(gone)?.items;
                Ok(items
                    .iter()
                    .filter_map(|(name, item)| {
                        let attributes = attributes_in(&contents, *item, &folder)?;
                        Some(line(name, place_of(key, *item), attributes))
                    })
                    .collect())
            }
            Archived::File(..) => Err(Error::call(libc::ENOTDIR)),
        }
    }

    /// Opens a member to read.
    pub(super) fn open_member(&self, record: &RecordId, key: &Arc<str>, number: u32) -> Result<Opened> {
        let entry = self.archive(record, key)?;
        let contents = self.contents(record, key)?;
        let gone = || Error::call(libc::ENOENT);
        let member = contents.member(number).ok_or_else(gone)?;
        let owner = Owner::Record(record.clone());
        let place = FilePlace {
            owner: owner.clone(),
            key: Arc::clone(key),
        };
        let id = (identity_of(&place, &entry), number);
        let read;
        let member = if contents.is_told() {
            if let Some(bytes) = self.extracted(&place, &id, member)? {
                return Ok(Opened {
                    direct: true,
                    ..Opened::plain(Handle::Text(bytes))
                });
            }
            let from = || {
                let what = place.to_string();
                let directory = Directory::read(&self.reader(&owner, &entry), &what)?;
                Contents::new(directory.members, &what)
            };
            read = self.archives.read.get(&id.0, from)?;
            read.member_called(&member.name).ok_or_else(gone)?
        } else {
            member
        };
        let name: String = member.name.chars().take(200).collect();
        let what = format!("{name:?} in {place}");
        let shared = self.archives.shared(&id, member, what)?;
        let open = OpenMember::new(shared, Box::new(self.reader(&owner, &entry)));
        Ok(Opened {
            keep_cache: open.is_right(),
            ..Opened::plain(Handle::Member(record.clone(), open))
        })
    }

    /// The archives of a record.
    fn shelf(&self, record: &RecordId) -> Result<Arc<Shelf>> {
        let list = self.floors.catalog.files(&Owner::Record(record.clone()))?;
        Ok(self.shelf_of(record, list))
    }

    fn known_shelf(&self, record: &RecordId) -> Option<Arc<Shelf>> {
        let list = self.floors.catalog.known_files(&Owner::Record(record.clone()))?;
        Some(self.shelf_of(record, list))
    }

    fn shelf_of(&self, record: &RecordId, list: Arc<FileList>) -> Arc<Shelf> {
        let mut shelves = self.archives.shelves.lock();
        if let Some(shelf) = shelves.get(record)
            && Arc::ptr_eq(&shelf.list, &list)
        {
            return Arc::clone(shelf);
        }
        let shelf = Arc::new(Shelf::new(list));
        shelves.put(record.clone(), Arc::clone(&shelf));
        shelf
    }

    /// The entry of an archive among the record's files.
    fn archive(&self, record: &RecordId, key: &str) -> Result<FileEntry> {
        let view = self.view(&Owner::Record(record.clone()))?;
        view.file(key)
            .map(|file| file.entry.clone())
            .filter(is_archive)
            .ok_or_else(|| Error::call(libc::ENOENT))
    }

    /// What an archive holds.
    fn contents(&self, record: &RecordId, key: &Arc<str>) -> Result<Arc<Contents>> {
        let entry = self.archive(record, key)?;
        let owner = Owner::Record(record.clone());
        let place = FilePlace {
            owner: owner.clone(),
            key: Arc::clone(key),
        };
        let identity = identity_of(&place, &entry);
        let read = || {
            let what = place.to_string();
            match self.way_into(&place, &identity, self.reader(&owner, &entry)) {
                Way::Told(contents) => Ok(contents),
                Way::Read(source) => Contents::new(Directory::read(&source, &what)?.members, &what),
            }
        };
        let contents = self.archives.known.get(&identity, read);
        contents.inspect_err(|error| {
            if matches!(error.kind(), ErrorKind::Changed | ErrorKind::NotFound) {
                self.floors.catalog.forget_files(&owner);
            }
        })
    }

    /// What an archive holds as far as it is known, without a request.
    fn known_contents(&self, record: &RecordId, key: &Arc<str>) -> Option<Arc<Contents>> {
        let owner = Owner::Record(record.clone());
        let view = self.known_view(&owner)?;
        let place = FilePlace {
            owner,
            key: Arc::clone(key),
        };
        let entry = &view.file(key)?.entry;
        self.archives.known.current(&identity_of(&place, entry))
    }
}

/// Whether a file's members are shown.
fn is_archive(entry: &FileEntry) -> bool {
    let has_ending = entry
        .key
        .get(entry.key.len().saturating_sub(4)..)
        .is_some_and(|ending| ending.eq_ignore_ascii_case(".zip"));
    let has_type = || {
        let mimetype = entry.mimetype.as_deref();
        mimetype.is_some_and(|mimetype| TYPES.contains(&mimetype))
    };
    entry.status == FileStatus::Completed && entry.size.is_some() && (has_ending || has_type())
}

fn place_of(key: &Arc<str>, item: Item) -> Archived {
    match item {
        Item::Folder(number) => Archived::Folder(Arc::clone(key), number),
        Item::File(number) => Archived::File(Arc::clone(key), number),
    }
}

/// What stat(2) says of something in an archive: what it says of the archive's folder, with its own size and time.
fn attributes_in(contents: &Contents, item: Item, archive: &Attributes) -> Option<Attributes> {
    let (kind, size, modified) = match item {
        Item::Folder(number) => (Kind::Folder, 0, contents.folder(number)?.modified),
        Item::File(number) => {
            let member = contents.member(number)?;
            (Kind::File, member.size, member.modified)
        }
    };
    Some(Attributes {
        kind,
        size,
        mtime: modified.unwrap_or(archive.mtime),
        ..archive.clone()
    })
}
