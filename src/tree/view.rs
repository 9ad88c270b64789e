//! The files of one record or draft as folders and names, and what a listing of a folder shows.
//!
//! A view joins what the server has with what is staged here and with folders that exist only here. It is made anew
//! when one of these has changed, and shared by all who look meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::names::{self, Item, Layout};
use super::node::{Attributes, Node};
use super::{DOCUMENT, REASONS, REJECTED, Tree};
use crate::catalog::{self, FileList};
use crate::error::{Error, Result};
use crate::repository::model::{FileEntry, FileStatus, Owner, RecordId};
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
    files: Vec<File>,
    by_key: HashMap<Arc<str>, usize>,
}

impl View {
    fn new(files: Vec<File>, folders: &BTreeSet<String>, reserved: &[&str]) -> Self {
        let mut layout = Layout::new(files.iter().map(|file| &*file.entry.key), reserved);
        for folder in folders {
            layout.add_folder(folder);
        }
        let by_key = files
            .iter()
            .enumerate()
            .map(|(index, file)| (Arc::clone(&file.entry.key), index))
            .collect();
        View {
            layout,
            files,
            by_key,
        }
    }

    /// A file by its key.
    pub(super) fn file(&self, key: &str) -> Option<&File> {
        self.by_key.get(key).map(|index| &self.files[*index])
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
                        let key = &self.files[*index].entry.key;
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

    /// The node a name in a folder stands for.
    pub(super) fn child(&self, owner: &Owner, path: &str, name: &str) -> Option<Node> {
        let item = self.layout.folder(path)?.get(name)?;
        Some(self.node(owner, path, name, item))
    }

    fn node(&self, owner: &Owner, path: &str, name: &str, item: &Item) -> Node {
        match item {
            Item::Folder => Node::Folder(owner.clone(), names::join(path, name).into()),
            Item::File(index) => Node::File(owner.clone(), Arc::clone(&self.files[*index].entry.key)),
        }
    }
}

/// The views in use, and the folders that exist only here.
pub(super) struct Views {
    state: Mutex<State>,
}

struct State {
    made: LruCache<Owner, Made>,
    /// Folders of drafts that no key makes: made by mkdir, or left when their last file was removed.
    folders: HashMap<RecordId, BTreeSet<String>>,
    /// Counts the changes of `folders`.
    epoch: u64,
}

struct Made {
    view: Arc<View>,
    /// What it was made from.
    list: Arc<FileList>,
    staging: u64,
    folders: u64,
}

/// Records and drafts whose views are kept at the same time.
const VIEWS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

impl Default for Views {
    fn default() -> Self {
        let state = State {
            made: LruCache::new(VIEWS),
            folders: HashMap::new(),
            epoch: 0,
        };
        Views {
            state: Mutex::new(state),
        }
    }
}

impl Views {
    /// Makes a folder of a draft that no key needs to make.
    pub(super) fn add_folder(&self, draft: &RecordId, path: &str) {
        let mut state = self.state.lock();
        state
            .folders
            .entry(draft.clone())
            .or_default()
            .insert(path.to_owned());
        state.epoch += 1;
    }

    /// Gives such a folder, and those in it, another name. There is one of that name then, whatever was there.
    pub(super) fn rename_folder(&self, draft: &RecordId, from: &str, to: &str) {
        let mut state = self.state.lock();
        let folders = state.folders.entry(draft.clone()).or_default();
        let moved: Vec<(String, String)> = folders
            .iter()
            .filter_map(|path| {
                let rest = path.strip_prefix(from)?;
                (rest.is_empty() || rest.starts_with('/')).then(|| (path.clone(), format!("{to}{rest}")))
            })
            .collect();
        for (old, new) in moved {
            folders.remove(&old);
            folders.insert(new);
        }
        folders.insert(to.to_owned());
        state.epoch += 1;
    }

    /// A draft is gone.
    pub(super) fn forget(&self, draft: &RecordId) {
        let mut state = self.state.lock();
        state.folders.remove(draft);
        state.made.pop(&Owner::Draft(draft.clone()));
        state.epoch += 1;
    }

    /// Removes such a folder.
    pub(super) fn remove_folder(&self, draft: &RecordId, path: &str) {
        let mut state = self.state.lock();
        if let Some(folders) = state.folders.get_mut(draft) {
            folders.remove(path);
            if folders.is_empty() {
                state.folders.remove(draft);
            }
        }
        state.epoch += 1;
    }
}

/// A listed folder, as it was when it was opened.
#[derive(Debug, Default)]
pub struct Listing {
    /// Its entries, without `.` and `..`.
    pub lines: Vec<Line>,
}

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
    /// The files of a record or draft, as they are now.
    pub(super) fn view(&self, owner: &Owner) -> Result<Arc<View>> {
        // Counted before it is looked at: what changes meanwhile makes the view old, not wrong.
        let staging = self.floors.staging.epoch();
        let list = self.floors.catalog.files(owner)?;
        Ok(self.view_of(owner, list, staging))
    }

    /// The files as far as they are known, without a request.
    pub(super) fn known_view(&self, owner: &Owner) -> Option<Arc<View>> {
        let staging = self.floors.staging.epoch();
        let list = self.floors.catalog.known_files(owner)?;
        Some(self.view_of(owner, list, staging))
    }

    fn view_of(&self, owner: &Owner, list: Arc<FileList>, staging: u64) -> Arc<View> {
        let (folders, epoch) = {
            let mut state = self.views.state.lock();
            let epoch = state.epoch;
            let is_published = matches!(owner, Owner::Record(_));
            if let Some(made) = state.made.get(owner)
                && Arc::ptr_eq(&made.list, &list)
                && (is_published || (made.staging == staging && made.folders == epoch))
            {
                return Arc::clone(&made.view);
            }
            (state.folders.get(owner.id()).cloned().unwrap_or_default(), epoch)
        };
        let view = Arc::new(match owner {
            Owner::Record(_) => View::new(
                list.iter()
                    .cloned()
                    .map(|entry| File { entry, staged: None })
                    .collect(),
                &BTreeSet::new(),
                &[],
            ),
            Owner::Draft(id) => {
                let reserved: &[&str] = match self.floors.staging.rejected(id) {
                    Some(_) => &[DOCUMENT, REJECTED, REASONS],
                    None => &[DOCUMENT],
                };
                View::new(self.draft_files(id, &list), &folders, reserved)
            }
        });
        let made = Made {
            view: Arc::clone(&view),
            list,
            staging,
            folders: epoch,
        };
        self.views.state.lock().made.put(owner.clone(), made);
        view
    }

    /// What the server has completed, and what is staged here. Pending entries can't be read and are not shown, nor is
    /// what was renamed and is deleted under its old key soon.
    fn draft_files(&self, draft: &RecordId, list: &FileList) -> Vec<File> {
        let staged = self.floors.staging.of_draft(draft);
        let mut hidden = self.floors.staging.left(draft);
        hidden.extend(staged.iter().map(|staged| staged.key()));
        let mut files: Vec<File> = list
            .iter()
            .filter(|entry| entry.status == FileStatus::Completed && !hidden.contains(&entry.key))
            .cloned()
            .map(|entry| File { entry, staged: None })
            .collect();
        files.extend(staged.into_iter().map(|staged| File {
            entry: FileEntry {
                key: staged.key(),
                size: None,
                md5: None,
                mimetype: None,
                updated: None,
                status: FileStatus::Pending,
            },
            staged: Some(staged),
        }));
        files
    }

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
            ],
            Node::Control => vec![own("control", Node::Commands), own("status.json", Node::Status)],
            Node::Records => self.list_records()?,
            Node::Drafts => self.list_drafts()?,
            Node::Home(owner @ Owner::Record(_)) => {
                let entry = self.entry_of(owner)?;
                let files = Node::Folder(owner.clone(), "".into());
                vec![
                    Line {
                        name: "files".to_owned(),
                        attributes: self.folder_attributes(&files, &entry),
                        node: files,
                    },
                    self.document_line(owner, &entry),
                ]
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
            Node::Folder(owner, path) => self.list_view(owner, path, &*self.entry_of(owner)?)?,
            Node::Concept(_)
            | Node::Status
            | Node::Commands
            | Node::Document(_)
            | Node::Rejected(_)
            | Node::Reasons(_)
            | Node::File(..) => return Err(Error::call(libc::ENOTDIR)),
        };
        Ok(Listing { lines })
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
        let folder = view
            .layout
            .folder(path)
            .ok_or_else(|| Error::call(libc::ENOENT))?;
        Ok(folder
            .iter()
            .map(|(name, item)| {
                let node = view.node(owner, path, name, item);
                Line {
                    name: name.clone(),
                    attributes: match item {
                        Item::Folder => self.folder_attributes(&node, entry),
                        Item::File(index) => self.line_attributes(&node, owner, entry, &view.files[*index]),
                    },
                    node,
                }
            })
            .collect())
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
