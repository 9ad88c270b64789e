//! `drafts/` as a folder in which drafts are made, named and discarded.
//!
//! `mkdir` with a title makes a draft, with the id of a published record it begins an edit; `rmdir` discards. What a
//! draft is called here by its title is forgotten at the unmount; its id always opens it.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::node::{Found, Node};
use super::{Tree, names};
use crate::error::{Error, Kind, Result};
use crate::repository::model::{FileStatus, Owner, RecordId};

/// What drafts are called in this mount, and whose document is out of sight.
#[derive(Default)]
pub(super) struct Titles {
    by_title: HashMap<String, RecordId>,
    /// Drafts whose document was unlinked, because they are about to be discarded.
    without_document: HashSet<RecordId>,
}

impl Titles {
    /// The draft of a title.
    pub(super) fn id_of(&self, title: &str) -> Option<RecordId> {
        self.by_title.get(title).cloned()
    }

    /// What a draft is called.
    pub(super) fn title_of(&self, id: &RecordId) -> Option<&String> {
        self.by_title
            .iter()
            .find(|(_, of)| *of == id)
            .map(|(title, _)| title)
    }

    fn set(&mut self, title: &str, id: &RecordId) {
        self.by_title.retain(|_, of| of != id);
        self.by_title.insert(title.to_owned(), id.clone());
    }

    pub(super) fn forget(&mut self, id: &RecordId) {
        self.by_title.retain(|_, of| of != id);
        self.without_document.remove(id);
    }

    pub(super) fn is_document_hidden(&self, id: &RecordId) -> bool {
        self.without_document.contains(id)
    }

    pub(super) fn hide_document(&mut self, id: &RecordId) {
        self.without_document.insert(id.clone());
    }

    pub(super) fn show_document(&mut self, id: &RecordId) {
        self.without_document.remove(id);
    }
}

/// The shortest title that the server keeps (API notes, section 3).
const SHORTEST_TITLE: usize = 3;

impl Tree {
    /// Makes a draft with this title, or begins to edit the record of this id.
    ///
    /// # Errors
    /// `Call(EEXIST)`, `Call(EPERM)` for names that no user means as a title, `Refused`, `Denied`; what kept the
    /// repository from answering.
    pub(super) fn make_draft(&self, name: &str) -> Result<Found> {
        if self.draft_child(name).or_else(absent)?.is_some() {
            return Err(Error::call(libc::EEXIST));
        }
        let id = match RecordId::new(name).map(|id| (self.begin_edit(&id), id)) {
            Some((Ok(id), _)) => id,
            Some((Err(error), id)) if error.kind() == Kind::NotFound && looks_made(&id) => {
                return Err(error.with_advice("To make a draft, give its title; to edit a record, its id."));
            }
            Some((Err(error), _)) if error.kind() != Kind::NotFound => return Err(error),
            _ => self.new_draft(name)?,
        };
        let node = Node::Home(Owner::Draft(id.clone()));
        self.state.lock().used.put(Owner::Draft(id), ());
        Ok(self.remember(&node, self.attributes_of(&node)?))
    }

    fn begin_edit(&self, id: &RecordId) -> Result<RecordId> {
        let record = self.floors.repository.edit(id)?;
        let id = record.id.clone();
        self.floors.catalog.draft_saved(record);
        Ok(id)
    }

    fn new_draft(&self, title: &str) -> Result<RecordId> {
        check_title(title)?;
        let document = json!({
            "access": {"record": "public", "files": "public"},
            "files": {"enabled": true},
            "metadata": {"title": title},
        });
        let saved = self.floors.repository.create_draft(&document)?;
        let id = saved.record.id.clone();
        self.floors.catalog.draft_saved(saved.record);
        self.state.lock().titles.set(title, &id);
        Ok(id)
    }

    /// Gives a draft another title.
    ///
    /// # Errors
    /// `Call`, `Refused`, `Changed` if somebody else changes it at the same time; what kept the repository from answering.
    pub(super) fn rename_draft(&self, from: &str, to: &str) -> Result<()> {
        let Some(Node::Home(Owner::Draft(id))) = self.draft_child(from)? else {
            return Err(Error::call(libc::ENOENT));
        };
        if self.draft_child(to).or_else(absent)?.is_some() {
            return Err(Error::call(libc::EEXIST));
        }
        check_title(to)?;
        let draft = self.floors.repository.draft(&id)?;
        let mut document = draft.document().clone();
        let metadata = document.entry("metadata").or_insert_with(|| json!({}));
        if let Value::Object(metadata) = metadata {
            metadata.insert("title".to_owned(), json!(to));
        }
        let saved = self
            .floors
            .repository
            .update_draft(&id, &Value::Object(document), draft.revision)?;
        self.floors.catalog.draft_saved(saved.record);
        self.state.lock().titles.set(to, &id);
        Ok(())
    }

    /// Discards a draft that has no files; of an edit, whose files are the record's, what was edited.
    ///
    /// # Errors
    /// `Call(ENOTEMPTY)`, `Denied`; what kept the repository from answering.
    pub(super) fn discard_draft(&self, name: &str) -> Result<()> {
        let Some(node @ Node::Home(Owner::Draft(_))) = self.draft_child(name)? else {
            return Err(Error::call(libc::ENOENT));
        };
        let Node::Home(owner) = &node else {
            return Err(Error::call(libc::ENOTDIR));
        };
        let id = owner.id();
        let is_edit = self.floors.catalog.draft(id)?.is_published;
        let staged = self.floors.staging.of_draft(id);
        let is_empty = self.view(owner)?.is_empty_folder("") || (is_edit && staged.is_empty());
        if !is_empty {
            return Err(Error::call(libc::ENOTEMPTY));
        }
        if !is_edit {
            // What is known may be some seconds old, and what is discarded is gone.
            let files = self.floors.repository.draft_files(id)?;
            if files.iter().any(|file| file.status == FileStatus::Completed) {
                self.floors.catalog.forget_files(owner);
                return Err(Error::call(libc::ENOTEMPTY));
            }
        }
        self.floors.repository.delete_draft(id)?;
        self.floors.staging.forget_draft(id);
        self.floors.catalog.draft_discarded(id);
        self.views.forget(id);
        let mut state = self.state.lock();
        state.titles.forget(id);
        state.used.pop(owner);
        state.inodes.detach(&node);
        Ok(())
    }
}

fn absent(error: Error) -> Result<Option<Node>> {
    if error.kind() == Kind::NotFound {
        Ok(None)
    } else {
        Err(error)
    }
}

/// What file managers and shells make for themselves, or what the server would not keep, makes no draft.
fn check_title(title: &str) -> Result<()> {
    if title.starts_with('.') || names::is_probe(title) {
        return Err(Error::call(libc::EPERM));
    }
    if title.trim() != title || title.chars().count() < SHORTEST_TITLE {
        return Err(
            Error::new(Kind::Refused, format!("{title:?} can't be the title of a draft"))
                .with_advice("A title has at least three characters and no blanks around it."),
        );
    }
    Ok(())
}

/// Whether it has the form of the ids that repositories make: nobody means it as a title.
fn looks_made(id: &RecordId) -> bool {
    let parts: Vec<&str> = id.as_str().split('-').collect();
    parts.len() == 2
        && parts
            .iter()
            .all(|part| part.len() == 5 && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_what_a_user_means_as_one() {
        for title in ["Ozone 2024", "2024", "Größe", "untitled folder"] {
            check_title(title).unwrap();
        }
        for title in ["ab", " Ozone", ".Trash-1000", ".git", "lost+found"] {
            check_title(title).unwrap_err();
        }
    }

    #[test]
    fn an_id_with_a_slip_makes_no_draft() {
        assert!(looks_made(&RecordId::new("abcde-12345").unwrap()));
        assert!(!looks_made(&RecordId::new("2024").unwrap()));
    }
}
