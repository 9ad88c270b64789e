//! Changes of a draft's names: removing files, making and removing folders, truncating, modes and times.

use std::sync::Arc;
use std::time::SystemTime;

use super::inodes::Meaning;
use super::node::{Attributes, Found, Node, Orphan};
use super::open::check_key;
use super::{Tree, names};
use crate::error::{Error, Kind, Result};
use crate::repository::model::Owner;

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
        let Node::File(owner, key) = &node else {
            return Err(Error::call(if matches!(node, Node::Folder(..)) {
                libc::EISDIR
            } else {
                libc::EPERM
            }));
        };
        let attributes = self.attributes_of(&node)?;
        let staged = self.floors.staging.find(draft, key);
        let known = self.floors.catalog.known_files(owner);
        let mut on_server = known.is_none_or(|files| files.iter().any(|entry| entry.key == *key));
        if let Some(staged) = &staged {
            on_server |= self.floors.staging.hold(staged)?;
        }
        if on_server {
            match self.floors.repository.delete_file(draft, key) {
                // It never came that far, or somebody else was faster.
                Err(error) if error.kind() == Kind::NotFound => {}
                // What was written here stays, and goes on its way.
                Err(error) => {
                    staged
                        .iter()
                        .for_each(|staged| self.floors.staging.resume(staged));
                    return Err(error);
                }
                Ok(()) => {}
            }
            self.floors.catalog.file_removed(draft, key);
        }
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
        Ok(())
    }

    /// Makes a folder in a draft. The server has no folders: it exists here until a file in it does there.
    ///
    /// # Errors
    /// `Published`, `Refused`, `Call`.
    pub fn make_folder(&self, parent: u64, name: &str) -> Result<Found> {
        let parent = self.place(parent)?;
        let (draft, path) = self.draft_folder(&parent)?;
        if self.child(&parent, name)?.is_some() {
            return Err(Error::call(libc::EEXIST));
        }
        let path = names::join(path, name);
        check_key(&path, name)?;
        self.views.add_folder(draft, &path);
        let node = Node::Folder(Owner::Draft(draft.clone()), path.into());
        Ok(self.remember(&node, self.attributes_of(&node)?))
    }

    /// Removes an empty folder of a draft.
    ///
    /// # Errors
    /// `Published`; `Call(ENOTEMPTY)` and the like.
    pub fn remove_folder(&self, parent: u64, name: &str) -> Result<()> {
        let parent = self.place(parent)?;
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
                let Node::File(Owner::Draft(draft), key) = &node else {
                    return Err(Error::call(libc::EINVAL));
                };
                // As one more writer, who closes it again: of a closed file, it is a write of its own, and sent; of an
                // open one, it goes out with the rest.
                let staged = self.stage(draft, key, size == 0)?;
                let truncated = staged.truncate(size);
                self.floors.staging.release(&staged)?;
                truncated
            }
        }
    }

    /// Remembers chmod(2) and utimes(2) for as long as the file is staged. The server keeps neither, and tools that
    /// copy files call both: so they succeed for all that belongs to a draft.
    ///
    /// # Errors
    /// `Published`, `Call(EPERM)`.
    pub fn set_facts(&self, ino: u64, mode: Option<u16>, mtime: Option<SystemTime>) -> Result<Attributes> {
        match self.meaning(ino)? {
            Meaning::Here(node) => {
                self.refuse_write(&node)
                    .map_err(|error| match (error.kind(), &node) {
                        (Kind::Call(libc::EACCES), Node::Document(_)) => Error::call(libc::EPERM),
                        _ => error,
                    })?;
                if let Node::File(Owner::Draft(draft), key) = &node
                    && let Some(staged) = self.floors.staging.find(draft, key)
                {
                    staged.set_facts(mode, mtime);
                }
            }
            Meaning::Gone(orphan) => {
                if let Some(staged) = &orphan.staged {
                    Arc::clone(staged).set_facts(mode, mtime);
                }
            }
        }
        self.attributes(ino)
    }
}
