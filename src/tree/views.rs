//! The views in use, kept up with what changes on the server and here.
//!
//! Most changes are of one plain name, and are made in the view that is there; what may change other names makes a new
//! one. Each draft has a lock of its own, which is held while the staging area and the catalog are looked at, never
//! over the network; that of `Views` is a leaf.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::view::{File, Reserved, View};
use super::{DOCUMENT, REASONS, REJECTED, Tree};
use crate::catalog::FileList;
use crate::error::Result;
use crate::history::History;
use crate::memory;
use crate::repository::model::{FileEntry, FileStatus, Owner, RecordId};
use crate::staging::{Staged, Standing};

/// The views in use, and the folders that exist only here.
pub(super) struct Views {
    state: Mutex<State>,
}

struct State {
    made: LruCache<Owner, Arc<Mutex<Option<Made>>>>,
    folders: HashMap<RecordId, Folders>,
    /// Counts the changes of all `folders`, so that a number is never used again.
    changes: u64,
}

/// Folders of a draft that no key makes: made by mkdir, or left when their last file was removed.
#[derive(Default)]
struct Folders {
    paths: BTreeSet<Arc<str>>,
    history: History,
}

/// A view, and what it was made from.
struct Made {
    view: Arc<View>,
    list: Arc<FileList>,
    staging: u64,
    folders: u64,
}

/// Records and drafts whose views are kept at the same time.
const VIEWS: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// Files in all views that are kept, at about 400 bytes each.
const FILES: usize = 40_000;
const FILE_WEIGHT: usize = 400;
/// The folders of a draft without any of its own.
static NONE: BTreeSet<Arc<str>> = BTreeSet::new();
/// Where two lists differ in more entries than this, a new view is as fast.
const DIFFERENCES: usize = 500;

impl Default for Views {
    fn default() -> Self {
        let state = State {
            made: LruCache::new(VIEWS),
            folders: HashMap::new(),
            changes: 0,
        };
        Views {
            state: Mutex::new(state),
        }
    }
}

impl Views {
    /// Makes a folder of a draft that no key needs to make.
    pub(super) fn add_folder(&self, draft: &RecordId, path: &str) {
        self.state.lock().set_folder(draft, path, true);
    }

    /// Gives such a folder, and those in it, another name. There is one of that name then, whatever was there.
    pub(super) fn rename_folder(&self, draft: &RecordId, from: &str, to: &str) {
        let mut state = self.state.lock();
        let folders = state.folders.get(draft).map(|folders| &folders.paths);
        let moved: Vec<(Arc<str>, String)> = folders
            .into_iter()
            .flatten()
            .filter_map(|path| {
                let rest = path.strip_prefix(from)?;
                (rest.is_empty() || rest.starts_with('/')).then(|| (Arc::clone(path), format!("{to}{rest}")))
            })
            .collect();
        for (old, new) in moved {
            state.set_folder(draft, &old, false);
            state.set_folder(draft, &new, true);
        }
        state.set_folder(draft, to, true);
    }

    /// Removes such a folder.
    pub(super) fn remove_folder(&self, draft: &RecordId, path: &str) {
        self.state.lock().set_folder(draft, path, false);
    }

    /// A draft is gone.
    pub(super) fn forget(&self, draft: &RecordId) {
        let mut state = self.state.lock();
        state.folders.remove(draft);
        state.made.pop(&Owner::Draft(draft.clone()));
    }

    /// The view of a record or draft, if there is one.
    fn made(&self, owner: &Owner) -> Arc<Mutex<Option<Made>>> {
        let mut state = self.state.lock();
        Arc::clone(state.made.get_or_insert(owner.clone(), Arc::default))
    }

    /// Makes room for a view of so many files: the least recently used go.
    fn make_room(&self, owner: &Owner, files: usize) {
        let mut dropped = Vec::new();
        let mut state = self.state.lock();
        let size = |made: &Arc<Mutex<Option<Made>>>| {
            // One that is being made makes room itself.
            made.try_lock()
                .and_then(|made| made.as_ref().map(|made| made.list.len()))
                .unwrap_or(0)
        };
        let mut all: usize = files + state.made.iter().map(|(_, made)| size(made)).sum::<usize>();
        while all > FILES && state.made.peek_lru().is_some_and(|(oldest, _)| oldest != owner) {
            let Some((_, made)) = state.made.pop_lru() else {
                break;
            };
            all -= size(&made);
            memory::freed(size(&made) * FILE_WEIGHT);
            dropped.push(made);
        }
    }
}

impl State {
    fn set_folder(&mut self, draft: &RecordId, path: &str, is_there: bool) {
        let folders = self.folders.entry(draft.clone()).or_default();
        let path: Arc<str> = path.into();
        let is_changed = if is_there {
            folders.paths.insert(Arc::clone(&path))
        } else {
            folders.paths.remove(&path)
        };
        if is_changed {
            self.changes += 1;
            folders.history.note(self.changes, &path);
        }
    }

    /// Changes the folders of a view that was up to date at an earlier change. `None` if a new one is to be made.
    fn update(&self, draft: &RecordId, made: &mut Made) -> Option<()> {
        if let Some(folders) = self.folders.get(draft) {
            let changed: BTreeSet<&Arc<str>> = folders.history.since(made.folders)?.collect();
            // The deepest first: one that is above another may be empty only after that.
            for path in changed.into_iter().rev() {
                Arc::get_mut(&mut made.view)?.update_folder(path, &folders.paths)?;
            }
        }
        made.folders = self.changes;
        Some(())
    }
}

impl Tree {
    /// The files of a record or draft, as they are now.
    pub(super) fn view(&self, owner: &Owner) -> Result<Arc<View>> {
        let list = self.floors.catalog.files(owner)?;
        Ok(self.view_of(owner, list))
    }

    /// The files as far as they are known, without a request.
    pub(super) fn known_view(&self, owner: &Owner) -> Option<Arc<View>> {
        let list = self.floors.catalog.known_files(owner)?;
        Some(self.view_of(owner, list))
    }

    fn view_of(&self, owner: &Owner, list: Arc<FileList>) -> Arc<View> {
        let made = self.views.made(owner);
        let mut made = made.lock();
        if let Some(old) = made.as_mut()
            && self.update(owner, old, &list).is_some()
        {
            return Arc::clone(&old.view);
        }
        // What it had is gone before the new one is made.
        *made = None;
        self.views.make_room(owner, list.len());
        let new = match owner {
            Owner::Record(_) => made_of_record(list),
            Owner::Draft(id) => self.made_of_draft(id, list),
        };
        Arc::clone(&made.insert(new).view)
    }

    /// Brings a view up to date. `None` if a new one is to be made, or somebody looks at this one.
    fn update(&self, owner: &Owner, made: &mut Made, list: &Arc<FileList>) -> Option<()> {
        let Owner::Draft(draft) = owner else {
            return Arc::ptr_eq(&made.list, list).then_some(());
        };
        if made.view.reserved() != self.reserved(draft) {
            return None;
        }
        let staging = &self.floors.staging;
        let mut touched: HashMap<Arc<str>, Standing> = HashMap::new();
        let changes = staging.changes(draft, made.staging);
        touched.extend(changes.files?);
        // After what is staged: what has arrived on the server meanwhile is in one of them.
        let list = &self
            .floors
            .catalog
            .known_files(owner)
            .unwrap_or_else(|| Arc::clone(list));
        let Differences { gone, come } = Differences::between(&made.list, list)?;
        for entry in gone.iter().chain(&come) {
            let key = &entry.key;
            touched.insert(Arc::clone(key), staging.standing(draft, key));
        }
        let state = self.views.state.lock();
        if !touched.is_empty() {
            let view = Arc::get_mut(&mut made.view)?;
            let folders = state.folders.get(draft).map_or(&NONE, |folders| &folders.paths);
            for (key, standing) in touched {
                match file_of(&key, standing, list) {
                    Some(file) => view.put(file)?,
                    None => view.remove(&key, folders)?,
                }
            }
        }
        made.list = Arc::clone(list);
        made.staging = changes.moment;
        state.update(draft, made)
    }

    /// What the server has completed, and what is staged here. Pending entries can't be read and are not shown, nor is
    /// what was renamed and is deleted under its old key soon.
    fn made_of_draft(&self, draft: &RecordId, list: Arc<FileList>) -> Made {
        let reserved = self.reserved(draft);
        // Looked at first: what changes meanwhile makes the view old, not wrong.
        let (folders, changes) = {
            let state = self.views.state.lock();
            let folders = state.folders.get(draft);
            (
                folders.map(|folders| folders.paths.clone()).unwrap_or_default(),
                state.changes,
            )
        };
        let staged = self.floors.staging.snapshot(draft);
        let list = self
            .floors
            .catalog
            .known_files(&Owner::Draft(draft.clone()))
            .unwrap_or(list);
        let mut hidden = staged.left;
        hidden.extend(staged.staged.iter().map(|(key, _)| Arc::clone(key)));
        let on_server = list
            .iter()
            .filter(|entry| entry.status == FileStatus::Completed && !hidden.contains(&entry.key))
            .cloned()
            .map(stored);
        let here = staged
            .staged
            .into_iter()
            .map(|(key, staged)| written(key, staged));
        Made {
            view: Arc::new(View::new(on_server.chain(here).collect(), &folders, reserved)),
            list,
            staging: staged.moment,
            folders: changes,
        }
    }

    fn reserved(&self, draft: &RecordId) -> Reserved {
        match self.floors.staging.rejected(draft) {
            Some(_) => &[DOCUMENT, REJECTED, REASONS],
            None => &[DOCUMENT],
        }
    }
}

fn made_of_record(list: Arc<FileList>) -> Made {
    let files = list.iter().cloned().map(stored).collect();
    Made {
        view: Arc::new(View::new(files, &NONE, &[])),
        list,
        staging: 0,
        folders: 0,
    }
}

/// What is shown under a key of a draft.
fn file_of(key: &Arc<str>, standing: Standing, list: &FileList) -> Option<File> {
    match standing {
        Standing::Staged(staged) => Some(written(Arc::clone(key), staged)),
        Standing::Left => None,
        // From the end: what has just arrived is there.
        Standing::Unstaged => {
            let entry = list.iter().rev().find(|entry| entry.key == *key)?;
            (entry.status == FileStatus::Completed).then(|| stored(entry.clone()))
        }
    }
}

fn stored(entry: FileEntry) -> File {
    File { entry, staged: None }
}

fn written(key: Arc<str>, staged: Arc<Staged>) -> File {
    let entry = FileEntry {
        key,
        size: None,
        md5: None,
        mimetype: None,
        updated: None,
        status: FileStatus::Pending,
    };
    File {
        entry,
        staged: Some(staged),
    }
}

/// In what two lists of the files of a draft differ.
struct Differences<'a> {
    gone: Vec<&'a FileEntry>,
    come: Vec<&'a FileEntry>,
}

impl<'a> Differences<'a> {
    /// Fast where entries were taken out and appended, which is what our own uploads do. `None` if there are many.
    fn between(old: &'a Arc<FileList>, new: &'a Arc<FileList>) -> Option<Self> {
        let mut differences = Differences {
            gone: Vec::new(),
            come: Vec::new(),
        };
        if Arc::ptr_eq(old, new) {
            return Some(differences);
        }
        let (old, new) = old.differing(new);
        let mut rest = new.peekable();
        for entry in old {
            // A list that was changed shares the keys of what has stayed in it.
            let stays = |other: &&FileEntry| Arc::ptr_eq(&other.key, &entry.key) || **other == *entry;
            if rest.next_if(stays).is_none() {
                differences.gone.push(entry);
                differences
                    .come
                    .extend(rest.next_if(|other| other.key == entry.key));
                if differences.gone.len() > DIFFERENCES {
                    return None;
                }
            }
        }
        differences.come.extend(rest.take(DIFFERENCES + 1));
        (differences.come.len() <= DIFFERENCES).then_some(differences)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, size: u64) -> FileEntry {
        FileEntry {
            key: key.into(),
            size: Some(size),
            md5: None,
            mimetype: None,
            updated: None,
            status: FileStatus::Completed,
        }
    }

    /// The keys that are gone, and those that have come.
    fn between(old: &[FileEntry], new: &[FileEntry]) -> Option<(Vec<String>, Vec<String>)> {
        let [old, new] = [old, new].map(|list| Arc::new(FileList::from(list.to_vec())));
        let keys = |entries: Vec<&FileEntry>| entries.iter().map(|entry| entry.key.to_string()).collect();
        Differences::between(&old, &new).map(|differences| (keys(differences.gone), keys(differences.come)))
    }

    #[test]
    fn lists_are_compared_by_what_they_say() {
        let [a, b, c] = [entry("a", 1), entry("b", 1), entry("c", 1)];
        let strings = |keys: &[&str]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
        let told = |gone: &[&str], come: &[&str]| Some((strings(gone), strings(come)));
        let old = [a.clone(), b.clone()];
        // Read anew from the server: equal, but not shared.
        assert_eq!(between(&old, &[entry("a", 1), b.clone()]), told(&[], &[]));
        assert_eq!(between(&old, &[b.clone(), c.clone()]), told(&["a"], &["c"]));
        assert_eq!(between(&old, &[entry("a", 2), b.clone()]), told(&["a"], &["a"]));
        // Sent again: it is the last one then.
        assert_eq!(between(&old, &[b.clone(), entry("a", 2)]), told(&["a"], &["a"]));
        assert_eq!(between(&old, &[b, a]), told(&["a"], &["a"]));
    }

    #[test]
    fn many_differences_are_not_told() {
        let many: Vec<FileEntry> = (0..=DIFFERENCES as u64)
            .map(|number| entry(&number.to_string(), 1))
            .collect();
        assert_eq!(between(&many, &[]), None);
        assert_eq!(between(&[], &many), None);
        assert!(between(&many, &many[1..]).is_some());
    }
}
