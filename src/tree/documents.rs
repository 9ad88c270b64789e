//! `record.json` of a draft: reading it, writing it, and what is beside it when the server did not accept it.
//!
//! What is written is staged like a file and saved by `staging/` when it is closed. A refused document is shown as
//! `record.json.rejected`, the reasons as `record.json.errors`, until the next good save.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::node::{Access, Attributes, Kind, Node};
use super::open::{Handle, Intent, Opened, Writer};
use super::{Facts, REASONS, REJECTED, STAGED, Tree};
use crate::catalog;
use crate::error::{Error, Result};
use crate::repository::model::{Owner, RecordId};
use crate::staging::{Base, LARGEST_DOCUMENT, Staged, digest};

impl Tree {
    /// Opens a draft's document to write. What is not overwritten stays what the server has.
    pub(super) fn open_document(&self, draft: &RecordId, intent: Intent) -> Result<Opened> {
        let staged = self.stage_document(draft, intent.truncate)?;
        self.state.lock().titles.show_document(draft);
        Ok(Opened {
            direct: true,
            ..Opened::plain(Handle::Staged {
                staged,
                writer: Some(Writer::new(intent.process)),
            })
        })
    }

    /// The staged document of a draft, with one more writer.
    pub(super) fn stage_document(&self, draft: &RecordId, truncate: bool) -> Result<Arc<Staged>> {
        let area = &self.floors.staging;
        loop {
            if let Some(staged) = area.staged_document(draft)
                && area.reopen(&staged).is_some()
            {
                if truncate && let Err(error) = staged.truncate(0) {
                    area.release(&staged)?;
                    return Err(error);
                }
                return Ok(staged);
            }
            let entry = self.floors.catalog.draft(draft)?;
            let base = self.document_base(draft, &entry);
            let text = (!truncate).then_some(&*entry.document);
            match area.create_document(draft, text, base) {
                // Somebody else was faster; theirs is as good.
                Err(error) if error.errno() == libc::EEXIST => {}
                made => return made,
            }
        }
    }

    /// What a document that is written now is made from: the one that is shown.
    pub(super) fn document_base(&self, draft: &RecordId, entry: &catalog::Entry) -> Base {
        let shown = digest_of(&entry.document);
        if let Some(revision) = entry.revision {
            self.floors.staging.document_seen(draft, revision, shown.clone());
        }
        Base {
            digests: [shown].into(),
            saving: None,
        }
    }

    /// Opens a document to read.
    pub(super) fn open_document_to_read(&self, owner: &Owner) -> Result<Opened> {
        let direct = |handle| Opened {
            direct: true,
            ..Opened::plain(handle)
        };
        if let Owner::Draft(id) = owner
            && let Some(staged) = self.floors.staging.document(id)
        {
            return Ok(direct(Handle::Staged { staged, writer: None }));
        }
        let entry = self.entry_of(owner)?;
        if let Owner::Draft(id) = owner {
            self.document_base(id, &entry);
        }
        Ok(direct(Handle::Text(entry.document.clone())))
    }

    /// Whether a name is shown because a document was refused.
    pub(super) fn is_about_rejected(&self, draft: &RecordId, name: &str) -> bool {
        matches!(name, REJECTED | REASONS) && self.floors.staging.rejected(draft).is_some()
    }

    /// The refused document of a draft, or the reasons.
    pub(super) fn open_rejected(&self, node: &Node, draft: &RecordId) -> Result<Opened> {
        let staged = self.rejected(draft)?;
        let handle = match node {
            Node::Rejected(_) => Handle::Staged { staged, writer: None },
            _ => Handle::Text(reasons(&staged)),
        };
        Ok(Opened {
            direct: true,
            ..Opened::plain(handle)
        })
    }

    /// What stat(2) says of the refused document or the reasons.
    pub(super) fn rejected_attributes(&self, node: &Node, draft: &RecordId) -> Result<Attributes> {
        let staged = self.rejected(draft)?;
        let facts = staged.facts();
        Ok(Attributes {
            kind: Kind::File,
            access: Access::Private,
            told: Facts::default(),
            links: 1,
            size: match node {
                Node::Rejected(_) => facts.size,
                _ => reasons(&staged).len() as u64,
            },
            mtime: facts.mtime,
            valid: STAGED,
        })
    }

    /// Drops the refused document of a draft.
    pub(super) fn drop_rejected(&self, draft: &RecordId) -> Result<()> {
        let staged = self.rejected(draft)?;
        self.floors.staging.remove(&staged);
        Ok(())
    }

    /// Whether a draft's document was unlinked, on the way to discarding the draft.
    pub(super) fn is_document_hidden(&self, owner: &Owner) -> bool {
        match owner {
            Owner::Draft(id) => self.state.lock().titles.is_document_hidden(id),
            Owner::Record(_) => false,
        }
    }

    /// Unlinks a draft's document: only where nothing else is left, so that `rm -r` can discard the draft.
    pub(super) fn hide_document(&self, draft: &RecordId) -> Result<()> {
        let owner = Owner::Draft(draft.clone());
        if !self.view(&owner)?.is_empty_folder("") {
            return Err(Error::call(libc::EPERM));
        }
        if let Some(staged) = self.floors.staging.staged_document(draft) {
            self.floors.staging.remove(&staged);
        }
        self.state.lock().titles.hide_document(draft);
        Ok(())
    }

    /// Copies a document to a new file beside it, as its text is now. The document itself can't go away: it is there again
    /// at the next look, for the editor that moved it aside to write it anew.
    pub(super) fn copy_document(&self, draft: &RecordId, key: &Arc<str>) -> Result<Arc<Staged>> {
        let text = match self.floors.staging.document(draft) {
            Some(staged) => staged.read(0, u32::try_from(LARGEST_DOCUMENT).unwrap_or(u32::MAX))?,
            None => self.floors.catalog.draft(draft)?.document.to_vec(),
        };
        let staged = self.stage(draft, key, true)?;
        let copied = staged.write(crate::staging::Position::At(0), &text);
        staged.set_mtime(SystemTime::now());
        if let Err(error) = copied {
            self.floors.staging.release(&staged)?;
            return Err(error);
        }
        Ok(staged)
    }

    fn rejected(&self, draft: &RecordId) -> Result<Arc<Staged>> {
        self.floors
            .staging
            .rejected(draft)
            .ok_or_else(|| Error::call(libc::ENOENT))
    }
}

/// Why a document was refused, a line for each field.
fn reasons(staged: &Staged) -> Bytes {
    let Some(error) = staged.refusal() else {
        return Bytes::new();
    };
    let mut text = match error.server_message() {
        Some(words) => words.to_owned(),
        None => error.to_string(),
    };
    text.push('\n');
    Bytes::from(text)
}

fn digest_of(document: &[u8]) -> String {
    let document: Map<String, Value> = serde_json::from_slice(document).unwrap_or_default();
    digest(&document)
}
