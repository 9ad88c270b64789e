//! The files of one record or draft as folders and names, and what a listing of a folder shows.
//!
//! A view joins what the server has with what is staged here and with folders that exist only here. Those in use are
//! kept in `views`.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::browse::Growing;
use super::names::{self, Item, Layout};
use super::node::{Attributes, Node};
use super::{DOCUMENT, REASONS, REJECTED, SUMS, Tree};
use crate::catalog;
use crate::error::{Error, Result};
use crate::memory;
use crate::repository::model::{FileEntry, Owner, RecordId};
use crate::staging::Staged;

/// A file in a view.
#[derive(Clone, Debug)]
pub struct File {
    /// What the server says of it; for a staged file, just the key.
    pub entry: FileEntry,
    /// Its bytes, if it was staged when the view was made. They can be read even if it is on the server by now.
    pub staged: Option<Arc<Staged>>,
}

/// The files of one record or draft.
pub struct View {
    layout: Layout,
    /// By their numbers in the layout.
    files: HashMap<usize, File>,
    numbers: HashMap<Arc<str>, usize>,
    /// The next free number.
    next: usize,
    reserved: Reserved,
    /// No other has it.
    serial: u64,
    /// Of a record, which never changes: the size of its `md5sums.txt`, once somebody wanted to know.
    pub(super) sums_size: OnceLock<u64>,
}

/// The number of the next view.
static SERIAL: AtomicU64 = AtomicU64::new(1);

/// Names that no file in the top folder has.
pub(super) type Reserved = &'static [&'static str];

impl View {
    pub(super) fn new(files: Vec<File>, folders: &BTreeSet<Arc<str>>, reserved: Reserved) -> Self {
        let mut layout = Layout::new(files.iter().map(|file| &*file.entry.key), reserved);
        for folder in folders {
            layout.add_folder(folder);
        }
        let keys = files.iter().map(|file| Arc::clone(&file.entry.key));
        View {
            layout,
            numbers: keys.zip(0..).collect(),
            next: files.len(),
            files: files.into_iter().enumerate().collect(),
            reserved,
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            sums_size: OnceLock::new(),
        }
    }

    /// The names that were reserved when it was made.
    pub(super) fn reserved(&self) -> Reserved {
        self.reserved
    }

    /// Adds a file, or says what a file is by now. `None` if others change their names by that: then a new view is to
    /// be made.
    #[must_use]
    pub(super) fn put(&mut self, file: File) -> Option<()> {
        let key = &file.entry.key;
        let number = match self.numbers.get(key) {
            Some(number) => *number,
            None => {
                self.layout.add_key(key, self.next, self.reserved)?;
                self.numbers.insert(Arc::clone(key), self.next);
                self.next += 1;
                self.next - 1
            }
        };
        self.files.insert(number, file);
        Some(())
    }

    /// Removes a file, if it is there, and the folders that are not among `folders` and empty now. `None` as for
    /// [`View::put`].
    #[must_use]
    pub(super) fn remove(&mut self, key: &str, folders: &BTreeSet<Arc<str>>) -> Option<()> {
        let Some(number) = self.numbers.remove(key) else {
            return Some(());
        };
        self.files.remove(&number);
        self.layout.remove_key(key, |path| folders.contains(path))
    }

    /// Brings a folder into line with `folders`, to which it was added or from which it was removed. `None` as for
    /// [`View::put`].
    #[must_use]
    pub(super) fn update_folder(&mut self, path: &str, folders: &BTreeSet<Arc<str>>) -> Option<()> {
        if folders.contains(path) {
            self.layout.add_folder(path);
            return Some(());
        }
        self.layout.remove_empty(path, |path| folders.contains(path))
    }

    /// A file by its key.
    pub(super) fn file(&self, key: &str) -> Option<&File> {
        self.numbers.get(key).map(|number| &self.files[number])
    }

    /// Whether there is a folder of this path.
    pub(super) fn has_folder(&self, path: &str) -> bool {
        self.layout.folder(path).is_some()
    }

    /// Whether a folder has no entries.
    pub(super) fn is_empty_folder(&self, path: &str) -> bool {
        self.layout.folder(path).is_some_and(names::Folder::is_empty)
    }

    /// How many folders are in a folder.
    pub(super) fn count_folders(&self, path: &str) -> u32 {
        let folder = self.layout.folder(path).into_iter().flatten();
        let count = folder.filter(|(_, item)| matches!(item, Item::Folder)).count();
        u32::try_from(count).unwrap_or(u32::MAX - 2)
    }

    /// The keys of all files in a folder and below.
    ///
    /// # Errors
    /// `Call(EXDEV)` if one of them is not shown as it is: then its new key can't be told from the new name.
    pub(super) fn keys_below(&self, path: &str) -> Result<Vec<Arc<str>>> {
        let mut keys = Vec::new();
        let mut folders = vec![path.to_owned()];
        while let Some(path) = folders.pop() {
            for (name, item) in self.layout.folder(&path).into_iter().flatten() {
                let path = names::join(&path, name);
                match item {
                    Item::Folder => folders.push(path),
                    Item::File(index) => {
                        let key = &self.files[index].entry.key;
                        if **key != *path {
                            return Err(Error::call(libc::EXDEV));
                        }
                        keys.push(Arc::clone(key));
                    }
                }
            }
        }
        Ok(keys)
    }

    /// All files in a folder and below, by their paths from there, as they are shown.
    pub(super) fn files_below(&self, path: &str) -> Vec<(String, &File)> {
        let mut found = Vec::new();
        let mut left = vec![(path.to_owned(), String::new())];
        while let Some((folder, shown)) = left.pop() {
            for (name, item) in self.layout.folder(&folder).into_iter().flatten() {
                let shown = names::join(&shown, name);
                match item {
                    Item::Folder => left.push((names::join(&folder, name), shown)),
                    Item::File(index) => found.push((shown, &self.files[index])),
                }
            }
        }
        found.sort_by(|one, other| one.0.cmp(&other.0));
        found
    }

    /// The node a name in a folder stands for.
    pub(super) fn child(&self, owner: &Owner, path: &str, name: &str) -> Option<Node> {
        let item = self.layout.folder(path)?.get(name)?;
        Some(self.node(owner, path, name, item))
    }

    fn node(&self, owner: &Owner, path: &str, name: &str, item: &Item) -> Node {
        match item {
            Item::Folder => Node::Folder(owner.clone(), names::join(path, name).into()),
            Item::File(index) => Node::File(owner.clone(), Arc::clone(&self.files[index].entry.key)),
        }
    }
}

/// A listed folder, as it was when it was opened.
#[derive(Default)]
pub struct Listing {
    lines: OnceLock<Vec<Line>>,
    /// What the lines of a published folder are made from, when somebody wants to know: often the kernel knows them still.
    from: Option<Published>,
    /// Where more lines come from while somebody reads on.
    growing: Option<Growing>,
}

/// A folder of a published record, of which nothing changes but by another view.
struct Published {
    owner: Owner,
    path: Arc<str>,
    entry: Arc<catalog::Entry>,
    view: Arc<View>,
}

impl Listing {
    /// Folders with the same number hold the same names. Only those of published records have one.
    #[must_use]
    pub fn serial(&self) -> Option<u64> {
        self.from.as_ref().map(|from| from.view.serial)
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        let lines = self.lines.get().map_or(0, Vec::len) + self.growing.as_ref().map_or(0, Growing::count);
        memory::freed(lines * LINE_WEIGHT);
    }
}

impl Listing {
    /// A listing of which all is known.
    pub(super) fn of(lines: Vec<Line>) -> Self {
        Listing {
            lines: lines.into(),
            from: None,
            growing: None,
        }
    }

    /// A listing that is asked for by the page.
    pub(super) fn growing(growing: Growing) -> Self {
        Listing {
            lines: OnceLock::new(),
            from: None,
            growing: Some(growing),
        }
    }
}

/// Some lines of a listing.
pub enum Lines<'a> {
    /// Of one that holds them.
    Here(&'a [Line]),
    /// A page from the repository, from this one on.
    Page(Arc<Vec<Line>>, usize),
}

impl std::ops::Deref for Lines<'_> {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        match self {
            Lines::Here(lines) => lines,
            Lines::Page(lines, start) => &lines[(*start).min(lines.len())..],
        }
    }
}

/// A line with its name and attributes, in bytes of memory.
const LINE_WEIGHT: usize = 400;

/// An entry of a listed folder.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// What it is.
    pub node: Node,
    /// What stat(2) says of it.
    pub attributes: Attributes,
}

impl Tree {
    /// Lists a folder.
    ///
    /// # Errors
    /// `Call(ENOTDIR)`; what kept the repository from answering.
    pub fn list(&self, ino: u64) -> Result<Listing> {
        let node = self.place(ino)?;
        let own = |name: &str, node: Node| {
            let attributes = self.own_attributes(&node);
            Line {
                name: name.to_owned(),
                node,
                attributes,
            }
        };
        let lines = match &node {
            Node::Root => vec![
                own(".rdmfs", Node::Control),
                own("drafts", Node::Drafts),
                own("records", Node::Records),
            ]
            .into_iter()
            .chain(self.lines_at_the_top())
            .collect(),
            Node::Control => vec![own("control", Node::Commands), own("status.json", Node::Status)],
            Node::Records => self.list_records()?,
            Node::Drafts => self.list_drafts()?,
            Node::Home(owner @ Owner::Record(id)) => {
                let entry = self.entry_of(owner)?;
                let files = Node::Folder(owner.clone(), "".into());
                vec![
                    Line {
                        name: "files".to_owned(),
                        attributes: self.folder_attributes(&files, &entry),
                        node: files,
                    },
                    Line {
                        name: SUMS.to_owned(),
                        attributes: self.sums_line(id, &entry),
                        node: Node::Sums(id.clone()),
                    },
                    self.document_line(owner, &entry),
                ]
                .into_iter()
                .chain(self.archives_line(owner.id(), &entry))
                .chain(self.lines_of_record(&entry))
                .collect()
            }
            Node::Home(owner @ Owner::Draft(_)) => {
                let entry = self.entry_of(owner)?;
                let mut lines = self.list_view(owner, "", &entry)?;
                for (name, node) in [
                    (REJECTED, Node::Rejected(owner.id().clone())),
                    (REASONS, Node::Reasons(owner.id().clone())),
                ] {
                    if let Ok(attributes) = self.rejected_attributes(&node, owner.id()) {
                        lines.push(Line {
                            name: name.to_owned(),
                            node,
                            attributes,
                        });
                    }
                }
                // The last: `rm -r` unlinks it when all else is gone.
                if !self.is_document_hidden(owner) {
                    lines.push(self.document_line(owner, &entry));
                }
                lines
            }
            Node::Folder(owner @ Owner::Record(_), path) => {
                let view = self.view(owner)?;
                if !view.has_folder(path) {
                    return Err(Error::call(libc::ENOENT));
                }
                let from = Published {
                    owner: owner.clone(),
                    path: Arc::clone(path),
                    entry: self.entry_of(owner)?,
                    view,
                };
                return Ok(Listing {
                    lines: OnceLock::new(),
                    from: Some(from),
                    growing: None,
                });
            }
            Node::Folder(owner, path) => self.list_view(owner, path, &*self.entry_of(owner)?)?,
            Node::Archived(record, place) => self.list_archived(record, place)?,
            Node::Around(spot) => return self.list_around(spot),
            Node::Concept(_)
            | Node::Status
            | Node::Commands
            | Node::Document(_)
            | Node::Sums(_)
            | Node::Rejected(_)
            | Node::Reasons(_)
            | Node::File(..) => return Err(Error::call(libc::ENOTDIR)),
        };
        Ok(Listing::of(lines))
    }

    /// The entries of a listed folder from the `start`th on, without `.` and `..`: some of them, and none at the end. Where
    /// the repository tells them by the page, the next page may be asked for.
    ///
    /// # Errors
    /// What kept the repository from answering.
    pub fn lines_from<'a>(&self, listing: &'a Listing, start: usize) -> Result<Lines<'a>> {
        if let Some(growing) = &listing.growing {
            return self.grown(growing, start);
        }
        let lines = self.lines(listing);
        Ok(Lines::Here(&lines[start.min(lines.len())..]))
    }

    /// The entries of a listed folder that are known when it is opened. Asks nobody.
    fn lines<'a>(&self, listing: &'a Listing) -> &'a [Line] {
        listing.lines.get_or_init(|| match &listing.from {
            Some(from) => self.lines_of(&from.view, &from.owner, &from.path, &from.entry),
            None => Vec::new(),
        })
    }

    /// How long the attributes in a listing count as current; nothing for one that may change any moment.
    #[must_use]
    pub fn life_of_listing(&self, listing: &Listing) -> Duration {
        listing
            .from
            .as_ref()
            .map_or(Duration::ZERO, |from| self.life_of(&from.owner))
    }

    fn document_line(&self, owner: &Owner, entry: &catalog::Entry) -> Line {
        let node = Node::Document(owner.clone());
        let staged = match owner {
            Owner::Draft(id) => self.floors.staging.document(id),
            Owner::Record(_) => None,
        };
        Line {
            name: DOCUMENT.to_owned(),
            attributes: match staged {
                Some(staged) => self.staged_attributes(&node, &staged),
                None => self.entry_attributes(&node, entry),
            },
            node,
        }
    }

    /// The newest page and what was used, the used ones without asking about them again.
    fn list_records(&self) -> Result<Vec<Line>> {
        let newest = self.floors.catalog.newest()?;
        let is_record = |owner: &Owner| matches!(owner, Owner::Record(_));
        Ok(self
            .with_used(newest, is_record)
            .into_iter()
            .filter_map(|id| {
                let entry = self.floors.catalog.known_record(&id)?;
                let node = Node::Home(Owner::Record(id.clone()));
                Some(Line {
                    name: id.to_string(),
                    attributes: self.entry_attributes(&node, &entry),
                    node,
                })
            })
            .collect())
    }

    fn list_drafts(&self) -> Result<Vec<Line>> {
        let own = self.floors.catalog.own_drafts()?;
        let is_draft = |owner: &Owner| matches!(owner, Owner::Draft(_));
        Ok(self
            .with_used(own, is_draft)
            .into_iter()
            .filter_map(|id| {
                let entry = self.floors.catalog.known_draft(&id)?;
                let node = Node::Home(Owner::Draft(id.clone()));
                let title = self.state.lock().titles.title_of(&id).cloned();
                Some(Line {
                    name: title.unwrap_or_else(|| id.to_string()),
                    attributes: self.entry_attributes(&node, &entry),
                    node,
                })
            })
            .collect())
    }

    fn with_used(&self, listed: Vec<RecordId>, wanted: impl Fn(&Owner) -> bool) -> BTreeSet<RecordId> {
        let mut ids: BTreeSet<RecordId> = listed.into_iter().collect();
        let state = self.state.lock();
        ids.extend(
            state
                .used
                .iter()
                .map(|(owner, ())| owner)
                .filter(|o| wanted(o))
                .map(|o| o.id().clone()),
        );
        ids
    }

    fn list_view(&self, owner: &Owner, path: &str, entry: &catalog::Entry) -> Result<Vec<Line>> {
        let view = self.view(owner)?;
        if !view.has_folder(path) {
            return Err(Error::call(libc::ENOENT));
        }
        Ok(self.lines_of(&view, owner, path, entry))
    }

    fn lines_of(&self, view: &View, owner: &Owner, path: &str, entry: &catalog::Entry) -> Vec<Line> {
        let folder = view.layout.folder(path).into_iter().flatten();
        folder
            .map(|(name, item)| {
                let node = view.node(owner, path, name, item);
                Line {
                    name: name.clone(),
                    attributes: match item {
                        Item::Folder => self.folder_attributes(&node, entry),
                        Item::File(index) => self.line_attributes(&node, owner, entry, &view.files[index]),
                    },
                    node,
                }
            })
            .collect()
    }

    fn line_attributes(&self, node: &Node, owner: &Owner, entry: &catalog::Entry, file: &File) -> Attributes {
        match self.staged_now(owner, file) {
            Some(staged) => self.staged_attributes(node, &staged),
            None => self.file_attributes(node, owner, entry, file),
        }
    }

    /// The staged bytes of a file: those of this moment, else those it had when the view was made.
    pub(super) fn staged_now(&self, owner: &Owner, file: &File) -> Option<Arc<Staged>> {
        let Owner::Draft(id) = owner else {
            return None;
        };
        self.floors
            .staging
            .find(id, &file.entry.key)
            .or_else(|| file.staged.clone())
    }
}
