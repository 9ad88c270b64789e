//! Changes of a draft's names: removing files, making and removing folders, truncating, modes and times.

use std::sync::Arc;
use std::time::SystemTime;

use super::inodes::Meaning;
use super::node::{Attributes, Found, Node, Orphan};
use super::open::check_key;
use super::{Facts, Tree, names};
use crate::error::{Error, Result};
use crate::repository::model::{Owner, RecordId};
use crate::staging::Staged;
use crate::staging::crash::{Point, point};

impl Tree {
    /// Removes a file from a draft, here and on the server. Open handles can still use it.
    ///
    /// # Errors
    /// `Published`, `Call`; what kept the server from removing it.
    pub fn unlink(&self, parent: u64, name: &str) -> Result<()> {
        let parent = self.place(parent)?;
        let (draft, path) = self.draft_folder(&parent)?;
        let node = self
            .child(&parent, name)?
            .ok_or_else(|| Error::call(libc::ENOENT))?;
        let (owner, key) = match &node {
            Node::File(owner, key) => (owner, key),
            Node::Folder(..) => return Err(Error::call(libc::EISDIR)),
            Node::Document(_) => return self.hide_document(draft),
            Node::Rejected(_) | Node::Reasons(_) => return self.drop_rejected(draft),
            _ => return Err(Error::call(libc::EPERM)),
        };
        let mut attributes = self.attributes_of(&node)?;
        attributes.links = 0;
        attributes.told.ctime = Some(SystemTime::now());
        let staged = self.floors.staging.find(draft, key);
        let known = self.floors.catalog.known_files(owner);
        let mut on_server = known.is_none_or(|files| files.iter().any(|entry| entry.key == *key));
        if let Some(staged) = &staged {
            on_server |= self.floors.staging.hold(staged)?;
        }
        if let Err(error) = self.delete_on_server(draft, key, on_server, staged.as_ref()) {
            // What was written here stays, and goes on its way.
            staged
                .iter()
                .for_each(|staged| self.floors.staging.resume(staged));
            return Err(error);
        }
        point(Point::Unlinked);
        if let Some(staged) = &staged {
            self.floors.staging.remove(staged);
        }
        // The folder stays when its last file goes: `rm -r` comes back to remove it.
        if !path.is_empty() {
            self.views.add_folder(draft, path);
        }
        self.state
            .lock()
            .inodes
            .orphan(&node, Orphan { staged, attributes });
        self.floors.told.forget(&node);
        self.labels.forget(&node);
        self.floors.told.touch(&parent);
        Ok(())
    }

    /// Deletes a file on the server, also under the keys that it had before a rename.
    fn delete_on_server(
        &self,
        draft: &RecordId,
        key: &str,
        on_server: bool,
        staged: Option<&Arc<Staged>>,
    ) -> Result<()> {
        if on_server {
            self.floors.staging.delete(draft, key)?;
        }
        staged.map_or(Ok(()), |staged| self.floors.staging.delete_old_keys(staged))
    }

    /// Makes a folder in a draft, or a draft. The server has no folders: one exists here until a file in it does there.
    ///
    /// # Errors
    /// `Published`, `Refused`, `Call`; of drafts, what kept the repository from making one.
    pub fn make_folder(&self, parent: u64, name: &str, told: Facts) -> Result<Found> {
        let parent = self.place(parent)?;
        if parent == Node::Drafts && !self.rules.read_only {
            return self.make_draft(name);
        }
        let (draft, path) = self.draft_folder(&parent)?;
        if self.child(&parent, name)?.is_some() {
            return Err(Error::call(libc::EEXIST));
        }
        let path = names::join(path, name);
        check_key(&path, name)?;
        self.views.add_folder(draft, &path);
        let node = Node::Folder(Owner::Draft(draft.clone()), path.into());
        self.floors.told.forget(&node);
        self.labels.forget(&node);
        self.floors.told.say(&node, told.begun(), None);
        self.floors.told.touch(&parent);
        Ok(self.remember(&node, self.attributes_of(&node)?))
    }

    /// Removes an empty folder of a draft.
    ///
    /// # Errors
    /// `Published`; `Call(ENOTEMPTY)` and the like.
    pub fn remove_folder(&self, parent: u64, name: &str) -> Result<()> {
        let parent = self.place(parent)?;
        if parent == Node::Drafts && !self.rules.read_only {
            return self.discard_draft(name);
        }
        let (draft, _) = self.draft_folder(&parent)?;
        let node = self
            .child(&parent, name)?
            .ok_or_else(|| Error::call(libc::ENOENT))?;
        let Node::Folder(owner, path) = &node else {
            return Err(Error::call(libc::ENOTDIR));
        };
        if !self.view(owner)?.is_empty_folder(path) {
            return Err(Error::call(libc::ENOTEMPTY));
        }
        self.views.remove_folder(draft, path);
        self.state.lock().inodes.detach(&node);
        self.floors.told.forget(&node);
        self.labels.forget(&node);
        self.floors.told.touch(&parent);
        // The folder above may have been there only because of this one.
        if let Some((draft, above)) = parent.draft_folder()
            && !above.is_empty()
        {
            self.views.add_folder(draft, above);
        }
        Ok(())
    }

    /// Changes a file's size: ftruncate(2) with a staged file open, truncate(2) without.
    ///
    /// # Errors
    /// `Published`, `Call`, `DiskFull`, `Local`; what kept the repository from giving the bytes that stay.
    pub fn resize(&self, ino: u64, size: u64) -> Result<()> {
        if i64::try_from(size).is_err() {
            return Err(Error::call(libc::EFBIG));
        }
        match self.meaning(ino)? {
            Meaning::Gone(orphan) => match orphan.staged {
                Some(staged) => staged.truncate(size),
                None => Err(Error::call(libc::ESTALE)),
            },
            Meaning::Here(node) => {
                self.refuse_write(&node)?;
                // As one more writer, who closes it again: of a closed file, it is a write of its own, and sent; of an
                // open one, it goes out with the rest.
                let staged = match &node {
                    Node::File(Owner::Draft(draft), key) => self.stage(draft, key, size == 0)?,
                    Node::Document(Owner::Draft(draft)) => self.stage_document(draft, size == 0)?,
                    Node::Commands => return Ok(()),
                    _ => return Err(Error::call(libc::EINVAL)),
                };
                let truncated = staged.truncate(size);
                self.floors.told.written(&node);
                self.floors.staging.release(&staged)?;
                truncated
            }
        }
    }

    /// Remembers chmod(2), chown(2) and utimes(2) for as long as the mount lives. The server keeps nothing of it, and tools
    /// that copy files call all of them: so they succeed for all that belongs to a draft.
    ///
    /// # Errors
    /// `Published`, `Call(EPERM)`.
    pub fn set_facts(&self, ino: u64, facts: Facts) -> Result<Attributes> {
        match self.meaning(ino)? {
            Meaning::Here(node) => {
                self.refuse_write(&node)?;
                if let Node::File(owner @ Owner::Draft(draft), key) = &node {
                    let staged = self.floors.staging.find(draft, key);
                    let md5 = match &staged {
                        Some(_) => None,
                        None => self.view(owner)?.file(key).and_then(|file| file.entry.md5),
                    };
                    if let (Some(staged), Some(mtime)) = (staged, facts.mtime) {
                        staged.set_mtime(mtime);
                    }
                    self.floors.told.say(&node, facts, md5);
                } else if node.draft().is_some() {
                    self.floors.told.say(&node, facts, None);
                }
                self.attributes_of(&node)
            }
            Meaning::Gone(mut orphan) => {
                if let (Some(staged), Some(mtime)) = (&orphan.staged, facts.mtime) {
                    staged.set_mtime(mtime);
                }
                orphan.attributes.told = facts.over(orphan.attributes.told);
                self.state.lock().inodes.set_orphan(ino, *orphan);
                self.attributes(ino)
            }
        }
    }
}
