//! Extended attributes: what a repository says of a record, a draft or a file, and how far a written file has come.
//!
//! Read-only but for `user.*` names that programs set by themselves on things in drafts: those are kept as long as the
//! mount lives, because copying fails without.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;
use serde_json::Value;

use super::Tree;
use super::inodes::Meaning;
use super::node::Node;
use super::view::File;
use crate::catalog;
use crate::error::{Error, Result};
use crate::repository::model::{Owner, RecordId};
use crate::staging::Staged;

/// What programs set.
pub(super) struct Labels {
    set: Mutex<LruCache<Node, Vec<Label>>>,
}

/// A name and its value.
type Label = (String, Vec<u8>);

/// Things whose labels are kept.
const KEPT: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Bytes of labels of one thing.
const MOST: usize = 64 << 10;
/// What programs may set.
const USER: &str = "user.";
/// What only we set.
const OURS: &str = "user.rdm.";
/// The type of a file's content, as desktops look for it.
const MIME: &str = "user.mime_type";
/// Where it comes from, as browsers say.
const ORIGIN: &str = "user.xdg.origin.url";

impl Default for Labels {
    fn default() -> Self {
        Labels {
            set: Mutex::new(LruCache::new(KEPT)),
        }
    }
}

impl Labels {
    /// The thing is gone: another one of its name is another one.
    pub(super) fn forget(&self, node: &Node) {
        self.set.lock().pop(node);
    }

    /// The thing has another name.
    pub(super) fn rename(&self, from: &Node, to: &Node) {
        let mut set = self.set.lock();
        set.pop(to);
        if let Some(labels) = set.pop(from) {
            set.put(to.clone(), labels);
        }
    }

    /// A folder has another name; its files had theirs before.
    pub(super) fn rename_folder(&self, draft: &RecordId, from: &str, to: &str) {
        let mut set = self.set.lock();
        let moved: Vec<(Node, Node)> = set
            .iter()
            .filter_map(|(node, _)| Some((node.clone(), node.moved(draft, from, to)?)))
            .collect();
        for (from, to) in moved {
            if let Some(labels) = set.pop(&from) {
                set.put(to, labels);
            }
        }
    }
}

impl Tree {
    /// The value of an extended attribute.
    ///
    /// # Errors
    /// `Call(ENODATA)` if there is none; what kept the repository from answering.
    pub fn label(&self, ino: u64, name: &str) -> Result<Vec<u8>> {
        // Asked for by the kernel before each write, and by `ls -l`: answered without looking.
        if !name.starts_with(USER) {
            return Err(Error::call(libc::EOPNOTSUPP));
        }
        let node = self.labelled(ino)?;
        let found = self
            .labels_of(&node)?
            .into_iter()
            .find(|(known, _)| known == name);
        found
            .map(|(_, value)| value)
            .ok_or_else(|| Error::call(libc::ENODATA))
    }

    /// The names of the extended attributes.
    ///
    /// # Errors
    /// What kept the repository from answering.
    pub fn label_names(&self, ino: u64) -> Result<Vec<String>> {
        let node = self.labelled(ino)?;
        Ok(self.labels_of(&node)?.into_iter().map(|(name, _)| name).collect())
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// `Published`; `Call(EPERM)` for what only the repository says; `Call(EOPNOTSUPP)` for all but `user.*`.
    pub fn set_label(&self, ino: u64, name: &str, value: &[u8], mode: LabelMode) -> Result<()> {
        let node = self.writable_label(ino, name)?;
        let mut set = self.labels.set.lock();
        let known = set.get_or_insert_mut(node, Vec::new);
        let place = known.iter().position(|(known, _)| known == name);
        match (place, mode) {
            (Some(_), LabelMode::New) => return Err(Error::call(libc::EEXIST)),
            (None, LabelMode::Known) => return Err(Error::call(libc::ENODATA)),
            _ => {}
        }
        let used: usize = known.iter().map(|(name, value)| name.len() + value.len()).sum();
        if used + name.len() + value.len() > MOST {
            return Err(Error::call(libc::ENOSPC));
        }
        match place {
            Some(place) => known[place].1 = value.to_vec(),
            None => known.push((name.to_owned(), value.to_vec())),
        }
        Ok(())
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// As for [`Tree::set_label`]; `Call(ENODATA)` if there is none.
    pub fn remove_label(&self, ino: u64, name: &str) -> Result<()> {
        let node = self.writable_label(ino, name)?;
        let mut set = self.labels.set.lock();
        let known = set.get_or_insert_mut(node, Vec::new);
        let before = known.len();
        known.retain(|(known, _)| known != name);
        if known.len() == before {
            return Err(Error::call(libc::ENODATA));
        }
        Ok(())
    }

    fn writable_label(&self, ino: u64, name: &str) -> Result<Node> {
        let node = self.labelled(ino)?;
        self.refuse_write(&node)?;
        if name.starts_with(OURS) {
            return Err(Error::call(libc::EPERM));
        }
        if !name.starts_with(USER) {
            return Err(Error::call(libc::EOPNOTSUPP));
        }
        Ok(node)
    }

    fn labelled(&self, ino: u64) -> Result<Node> {
        match self.meaning(ino)? {
            Meaning::Here(node) => Ok(node),
            Meaning::Gone(_) => Err(Error::call(libc::ENODATA)),
        }
    }

    fn labels_of(&self, node: &Node) -> Result<Vec<Label>> {
        let mut labels = Vec::new();
        let mut say = |name: &str, value: &str| {
            if !value.is_empty() {
                labels.push((name.to_owned(), value.as_bytes().to_vec()));
            }
        };
        match node {
            Node::Home(owner) | Node::Document(owner) | Node::Folder(owner, _) => {
                self.say_of_record(owner, &*self.entry_of(owner)?, &mut say);
                if let Node::Document(Owner::Draft(id)) = node {
                    self.say_of_document(id, &mut say);
                }
            }
            Node::File(owner, key) => {
                self.say_of_record(owner, &*self.entry_of(owner)?, &mut say);
                let view = self.view(owner)?;
                let file = view.file(key).ok_or_else(|| Error::call(libc::ENOENT))?;
                self.say_of_file(owner, file, &mut say);
            }
            _ => {}
        }
        for (name, value) in self.labels.set.lock().get(node).into_iter().flatten() {
            labels.retain(|(known, _)| known != name);
            labels.push((name.clone(), value.clone()));
        }
        Ok(labels)
    }

    fn say_of_record(&self, owner: &Owner, entry: &catalog::Entry, say: &mut impl FnMut(&str, &str)) {
        let document: Value = serde_json::from_slice(&entry.document).unwrap_or_default();
        let text = |path: &str| document.pointer(path).and_then(Value::as_str).unwrap_or_default();
        say("user.rdm.id", entry.id.as_str());
        say("user.rdm.doi", text("/pids/doi/identifier"));
        say("user.rdm.url", &self.web_address(owner));
        if matches!(owner, Owner::Draft(_)) && entry.is_published {
            say("user.rdm.status", "edit of a published record");
        } else {
            say("user.rdm.status", text("/status"));
        }
    }

    fn say_of_document(&self, draft: &RecordId, say: &mut impl FnMut(&str, &str)) {
        let staging = &self.floors.staging;
        match (staging.document(draft), staging.rejected(draft)) {
            (Some(staged), _) => say_of_staged(&staged, say),
            (None, Some(rejected)) => {
                let error = rejected
                    .refusal()
                    .map(|error| error.to_string())
                    .unwrap_or_default();
                say("user.rdm.error", &error);
            }
            (None, None) => {
                say("user.rdm.state", "saved");
                // It is saved, and yet somebody should know.
                if let Some(lost) = staging.acceptance_lost(draft) {
                    say("user.rdm.error", &lost.to_string());
                }
            }
        }
    }

    fn say_of_file(&self, owner: &Owner, file: &File, say: &mut impl FnMut(&str, &str)) {
        if let Some(staged) = self.staged_now(owner, file)
            && staged.is_unsent()
        {
            say_of_staged(&staged, say);
            return;
        }
        // Of one that has just arrived, the view says nothing but that it was written here.
        let known = file
            .staged
            .as_ref()
            .and_then(|_| self.floors.catalog.known_files(owner));
        let arrived = known
            .as_ref()
            .and_then(|files| files.iter().find(|entry| entry.key == file.entry.key));
        let entry = arrived.unwrap_or(&file.entry);
        say(
            "user.rdm.state",
            match owner {
                Owner::Record(_) => "published",
                Owner::Draft(_) => "committed",
            },
        );
        if let Some(md5) = entry.md5 {
            say("user.rdm.checksum", &format!("md5:{md5}"));
        }
        let mime = entry.mimetype.as_deref().unwrap_or_default();
        say("user.rdm.mimetype", mime);
        say(MIME, mime);
        say(ORIGIN, &self.web_address(owner));
    }

    fn web_address(&self, owner: &Owner) -> String {
        let url = self.floors.repository.url();
        match owner {
            Owner::Record(id) => format!("{url}/records/{id}"),
            Owner::Draft(id) => format!("{url}/uploads/{id}"),
        }
    }
}

/// How far a written file has come, in the words of the status.
fn say_of_staged(staged: &Staged, say: &mut impl FnMut(&str, &str)) {
    let status = staged.status();
    say("user.rdm.state", status.state.word());
    say("user.rdm.error", status.reason.as_deref().unwrap_or_default());
}

/// What setxattr(2) asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelMode {
    /// Set it.
    Any,
    /// It must be new.
    New,
    /// It must be there.
    Known,
}
