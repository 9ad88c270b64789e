//! rename(2): within a draft. The server can't rename, so a committed file is brought here, sent under its new key and
//! then deleted under the old one, which `staging/` sees to; files that are not sent yet just change their key.

use std::collections::HashSet;
use std::sync::Arc;

use super::node::{Node, Orphan};
use super::open::check_key;
use super::{DOCUMENT, Tree, names};
use crate::catalog::FileList;
use crate::error::{Error, Result};
use crate::repository::model::{Owner, RecordId};
use crate::staging::{LARGEST_DOCUMENT, Moved, Place, Staged};

impl Tree {
    /// Gives something in a draft another name, or a draft another title. With `only_new`, nothing is replaced. What it
    /// returns has its new name here; [`Tree::wait_for`] says what the server makes of it.
    ///
    /// # Errors
    /// `Published`; `Call` with the usual errno, `EXDEV` between drafts; what kept the repository from answering.
    pub fn rename(&self, from: (u64, &str), to: (u64, &str), only_new: bool) -> Result<Vec<Moved>> {
        let (parent, new_parent) = (self.place(from.0)?, self.place(to.0)?);
        if matches!((&parent, &new_parent), (Node::Drafts, Node::Drafts)) {
            if self.rules.read_only {
                return Err(Error::call(libc::EROFS));
            }
            return self.rename_draft(from.1, to.1).map(|()| Vec::new());
        }
        let (draft, path) = self.draft_folder(&parent)?;
        let (new_draft, new_path) = self.draft_folder(&new_parent)?;
        if draft != new_draft {
            return Err(Error::call(libc::EXDEV));
        }
        // Also names that a lookup alone would not ask the server about.
        self.view(&Owner::Draft(draft.clone()))?;
        let node = self
            .child(&parent, from.1)?
            .ok_or_else(|| Error::call(libc::ENOENT))?;
        let target = self.child(&new_parent, to.1)?;
        if target.as_ref() == Some(&node) {
            return Ok(Vec::new());
        }
        if only_new && target.is_some() {
            return Err(Error::call(libc::EEXIST));
        }
        let key = match &target {
            // It may be shown under another name than its own.
            Some(Node::File(_, key)) => key.to_string(),
            _ => names::join(new_path, to.1),
        };
        check_key(&key, to.1)?;
        let is_document = match &target {
            Some(Node::File(..)) => false,
            _ => key == DOCUMENT,
        };
        match (&node, &target) {
            (Node::File(..) | Node::Document(_), Some(Node::Folder(..))) => {
                return Err(Error::call(libc::EISDIR));
            }
            (Node::Folder(..), Some(Node::Folder(owner, path)))
                if self.view(owner)?.is_empty_folder(path) => {}
            (Node::Folder(..), Some(Node::Folder(..))) => return Err(Error::call(libc::ENOTEMPTY)),
            (Node::Folder(..), Some(_)) => return Err(Error::call(libc::ENOTDIR)),
            (_, Some(Node::Rejected(_) | Node::Reasons(_))) => return Err(Error::call(libc::EPERM)),
            _ => {}
        }
        let moved = match &node {
            Node::File(_, old) if is_document => vec![self.rename_to_document(draft, old)?],
            Node::File(_, old) => vec![self.rename_file(draft, old, &key.as_str().into())?],
            Node::Document(owner) => {
                let staged = self.copy_document(draft, &key.as_str().into())?;
                // To the kernel it has moved: what it finds under the new name is the copy, under the old one something new.
                let copy = Node::File(owner.clone(), key.as_str().into());
                self.floors.staging.release(&staged)?;
                self.state.lock().inodes.rename(&node, copy);
                return Ok(Vec::new());
            }
            Node::Folder(_, old) if !is_document => self.rename_folder(draft, old, &key)?,
            _ => return Err(Error::call(libc::EPERM)),
        };
        for (path, folder) in [(path, &parent), (new_path, &new_parent)] {
            // A folder stays when its last file goes.
            if !path.is_empty() {
                self.views.add_folder(draft, path);
            }
            self.floors.told.touch(folder);
        }
        Ok(moved)
    }

    /// Waits for the uploads that a rename asked for, within limits.
    ///
    /// # Errors
    /// Why the server refuses a file under its new name.
    pub fn wait_for(&self, moved: &[Moved]) -> Result<()> {
        let deadline = self.floors.staging.patience();
        moved
            .iter()
            .try_for_each(|moved| self.floors.staging.wait_for(moved, deadline))
    }

    fn rename_file(&self, draft: &RecordId, old: &Arc<str>, new: &Arc<str>) -> Result<Moved> {
        let staged = self.stage(draft, old, false)?;
        let _errand = staged.errand();
        let owner = Owner::Draft(draft.clone());
        let moved = self.move_staged(draft, &staged, old, new, &mut |key| self.is_listed(&owner, key));
        self.floors.staging.release(&staged)?;
        moved
    }

    /// Moves a staged file of which the caller is a writer. `is_listed` says whether the server may have something under a
    /// key at that moment.
    fn move_staged(
        &self,
        draft: &RecordId,
        staged: &Arc<Staged>,
        old: &Arc<str>,
        new: &Arc<str>,
        is_listed: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Moved> {
        let owner = Owner::Draft(draft.clone());
        let area = &self.floors.staging;
        let (node, target) = (
            Node::File(owner.clone(), Arc::clone(old)),
            Node::File(owner.clone(), Arc::clone(new)),
        );
        let replaced = area.find(draft, new);
        let attributes = self.attributes_of(&target).ok();
        let was_there = area.hold(staged)? || is_listed(old);
        let is_there = is_listed(new)
            || area.left(draft).contains(new)
            || replaced
                .as_ref()
                .is_some_and(|replaced| area.may_be_on_server(replaced));
        // Before its upload can be done, which says more of it.
        self.floors.told.rename(&node, &target);
        let moved = area
            .rename(staged, Place::File(Arc::clone(new)), was_there, is_there, None)
            .inspect_err(|_| self.floors.told.rename(&target, &node))?;
        let mut state = self.state.lock();
        if let Some(mut attributes) = attributes {
            attributes.links = 0;
            state.inodes.orphan(
                &target,
                Orphan {
                    staged: replaced,
                    attributes,
                },
            );
        }
        state.inodes.rename(&node, target.clone());
        drop(state);
        self.labels.rename(&node, &target);
        Ok(moved)
    }

    /// What an editor wrote beside `record.json` becomes it: it is saved.
    fn rename_to_document(&self, draft: &RecordId, old: &Arc<str>) -> Result<Moved> {
        let owner = Owner::Draft(draft.clone());
        let area = &self.floors.staging;
        let entry = self.floors.catalog.draft(draft)?;
        let base = self.document_base(draft, &entry);
        let staged = self.stage(draft, old, false)?;
        let _errand = staged.errand();
        if staged.facts().size > LARGEST_DOCUMENT {
            area.release(&staged)?;
            return Err(Error::call(libc::EFBIG));
        }
        let renamed = area.hold(&staged).and_then(|was_there| {
            let was_there = was_there || self.is_listed(&owner, old);
            area.rename(&staged, Place::Document, was_there, true, Some(base))
        });
        if renamed.is_ok() {
            let (node, target) = (
                Node::File(owner.clone(), Arc::clone(old)),
                Node::Document(owner.clone()),
            );
            let attributes = self.entry_attributes(&target, &entry);
            let mut state = self.state.lock();
            state.inodes.orphan(
                &target,
                Orphan {
                    staged: None,
                    attributes,
                },
            );
            state.inodes.rename(&node, target);
            state.titles.show_document(draft);
            drop(state);
            self.floors.told.forget(&node);
            self.labels.forget(&node);
        }
        area.release(&staged)?;
        renamed
    }

    /// A folder is a part of its files' keys: each of them is renamed. First all are brought here, which may fail and
    /// changes nothing; then each has its new name.
    fn rename_folder(&self, draft: &RecordId, old: &str, new: &str) -> Result<Vec<Moved>> {
        let owner = Owner::Draft(draft.clone());
        let area = &self.floors.staging;
        let keys = self.view(&owner)?.keys_below(old)?;
        let mut held: Vec<Arc<Staged>> = Vec::new();
        let mut errands = Vec::new();
        let mut moved = Vec::new();
        let result = (|| -> Result<()> {
            for key in &keys {
                let renamed = format!("{new}{}", &key[old.len()..]);
                let (_, name) = names::split(&renamed);
                check_key(&renamed, name)?;
                let staged = self.stage(draft, key, false)?;
                errands.push(staged.errand());
                held.push(staged);
            }
            let mut listed = Listed::default();
            let mut is_listed = |key: &str| listed.has(self.floors.catalog.known_files(&owner), key);
            for (key, staged) in keys.iter().zip(&held) {
                let renamed = format!("{new}{}", &key[old.len()..]);
                moved.push(self.move_staged(draft, staged, key, &renamed.into(), &mut is_listed)?);
            }
            Ok(())
        })();
        if result.is_ok() {
            self.views.rename_folder(draft, old, new);
            self.floors.told.rename_folder(draft, old, new);
            self.labels.rename_folder(draft, old, new);
            let mut state = self.state.lock();
            // An empty folder that was in the way.
            state.inodes.detach(&Node::Folder(owner.clone(), Arc::from(new)));
            let renamed: Vec<(Node, Node)> = state
                .inodes
                .nodes()
                .filter_map(|node| Some((node.clone(), node.moved(draft, old, new)?)))
                .collect();
            for (from, to) in renamed {
                state.inodes.rename(&from, to);
            }
        }
        // All of them, also where one can't be brought to the disk.
        let released = held.iter().map(|staged| area.release(staged));
        let released = released.fold(Ok(()), Result::and);
        result.and(released).map(|()| moved)
    }

    /// Whether the server may have something under a key.
    fn is_listed(&self, owner: &Owner, key: &str) -> bool {
        self.floors
            .catalog
            .known_files(owner)
            .is_none_or(|files| files.iter().any(|entry| *entry.key == *key))
    }
}

/// All keys that a list had while somebody asked for many of them; it changes meanwhile.
#[derive(Default)]
struct Listed {
    list: Arc<FileList>,
    keys: HashSet<Arc<str>>,
}

impl Listed {
    /// Whether the server may have something under a key, now that this is its list. What is not known may be there.
    fn has(&mut self, now: Option<Arc<FileList>>, key: &str) -> bool {
        let Some(now) = now else {
            return true;
        };
        if !Arc::ptr_eq(&now, &self.list) {
            let new = now.since(&self.list).map(|entry| Arc::clone(&entry.key));
            self.keys.extend(new);
            self.list = now;
        }
        self.keys.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::model::{FileEntry, FileStatus};

    fn entry(key: usize) -> FileEntry {
        FileEntry {
            key: key.to_string().into(),
            size: Some(1),
            md5: None,
            mimetype: None,
            updated: None,
            status: FileStatus::Completed,
        }
    }

    #[test]
    fn what_is_committed_while_a_folder_is_renamed_is_known_to_be_there() {
        let mut listed = Listed::default();
        assert!(listed.has(None, "0"), "it is not known");
        let mut list: FileList = (0..1_000).map(entry).collect();
        for step in 0..1_000 {
            let (old, new) = (step.to_string(), (step + 1_000).to_string());
            let now = || Some(Arc::new(list.clone()));
            assert!(listed.has(now(), &old) && !listed.has(now(), &new), "{step}");
            list = list.without(&old).with(&entry(step + 1_000));
            assert!(listed.has(Some(Arc::new(list.clone())), &new), "{step}");
        }
    }
}
