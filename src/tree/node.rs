//! What a name can stand for: the enum of kinds, and what stat(2) says of each.
//!
//! Plain data, made by `tree/` and turned into kernel replies by `mount/`. No request is made here.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::browse::Spot;
use super::told::Facts;
use crate::repository::model::{Owner, RecordId};
use crate::staging::Staged;

/// A place in the tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// The mount point.
    Root,
    /// `records/`
    Records,
    /// `drafts/`
    Drafts,
    /// `.rdmfs/`
    Control,
    /// `.rdmfs/status.json`
    Status,
    /// `.rdmfs/control`, to which commands are written.
    Commands,
    /// `records/<concept id>`, a link to the latest version.
    Concept(RecordId),
    /// `records/<id>` or `drafts/<id>`
    Home(Owner),
    /// `record.json`
    Document(Owner),
    /// `records/<id>/md5sums.txt`
    Sums(RecordId),
    /// `record.json.rejected`: what a user saved last, if the server did not accept it.
    Rejected(RecordId),
    /// `record.json.errors`: why.
    Reasons(RecordId),
    /// `records/<id>/files` (path `""`), and the folders that the `/` in keys make, in a record or a draft.
    Folder(Owner, Arc<str>),
    /// A file, by its key.
    File(Owner, Arc<str>),
    /// `records/<id>/archives`, and what is below.
    Archived(RecordId, Archived),
    /// What one finds by looking around.
    Around(Spot),
}

/// A place among the archives of a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Archived {
    /// `archives` (path `""`), and the folders that the `/` in the archives' keys make.
    Shelf(Arc<str>),
    /// A folder in an archive, by the archive's key and its number; 0 is the archive itself.
    Folder(Arc<str>, u32),
    /// A file in an archive, likewise.
    File(Arc<str>, u32),
}

/// What a program can do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Look into it.
    Folder,
    /// Read it, and in drafts write it.
    File,
    /// Follow it.
    Link,
}

impl Node {
    /// What it is to programs.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Node::Root | Node::Records | Node::Drafts | Node::Control | Node::Home(_) | Node::Folder(..) => {
                Kind::Folder
            }
            Node::Status
            | Node::Commands
            | Node::Document(_)
            | Node::Sums(_)
            | Node::Rejected(_)
            | Node::Reasons(_)
            | Node::File(..)
            | Node::Archived(_, Archived::File(..)) => Kind::File,
            Node::Archived(..) => Kind::Folder,
            Node::Concept(_) => Kind::Link,
            Node::Around(spot) => spot.kind(),
        }
    }

    /// The draft that it belongs to.
    #[must_use]
    pub fn draft(&self) -> Option<&RecordId> {
        match self {
            Node::Home(Owner::Draft(id))
            | Node::Document(Owner::Draft(id))
            | Node::Folder(Owner::Draft(id), _)
            | Node::File(Owner::Draft(id), _)
            | Node::Rejected(id)
            | Node::Reasons(id) => Some(id),
            _ => None,
        }
    }

    /// Whether it belongs to the record or the draft of this id, or leads to one.
    #[must_use]
    pub fn is_of(&self, id: &RecordId) -> bool {
        match self {
            Node::Home(owner) | Node::Document(owner) | Node::Folder(owner, _) | Node::File(owner, _) => {
                owner.id() == id
            }
            Node::Concept(of)
            | Node::Sums(of)
            | Node::Rejected(of)
            | Node::Reasons(of)
            | Node::Archived(of, _) => of == id,
            Node::Around(spot) => spot.record() == Some(id),
            Node::Root | Node::Records | Node::Drafts | Node::Control | Node::Status | Node::Commands => {
                false
            }
        }
    }

    /// The node that a rename of a folder in a draft makes of this one, if it is in that folder or is it.
    #[must_use]
    pub fn moved(&self, draft: &RecordId, from: &str, to: &str) -> Option<Node> {
        let below = |path: &str| -> Option<Arc<str>> {
            let rest = path.strip_prefix(from)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{to}{rest}").into())
        };
        match self {
            Node::Folder(owner @ Owner::Draft(id), path) if id == draft => {
                Some(Node::Folder(owner.clone(), below(path)?))
            }
            Node::File(owner @ Owner::Draft(id), key) if id == draft && **key != *from => {
                Some(Node::File(owner.clone(), below(key)?))
            }
            _ => None,
        }
    }

    /// The draft and the folder path in it, if names can be made and removed here.
    #[must_use]
    pub fn draft_folder(&self) -> Option<(&RecordId, &str)> {
        match self {
            Node::Home(Owner::Draft(id)) => Some((id, "")),
            Node::Folder(Owner::Draft(id), path) => Some((id, path)),
            _ => None,
        }
    }

    /// Whether it belongs to something published, which never changes.
    #[must_use]
    pub fn is_published(&self) -> bool {
        matches!(
            self,
            Node::Records
                | Node::Concept(_)
                | Node::Home(Owner::Record(_))
                | Node::Document(Owner::Record(_))
                | Node::Sums(_)
                | Node::Folder(Owner::Record(_), _)
                | Node::File(Owner::Record(_), _)
                | Node::Archived(..)
                | Node::Around(_)
        )
    }
}

/// Who may do what. The owner is always the user who mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// All may read.
    Open,
    /// Only the mounting user may read.
    Private,
    /// Only the mounting user may read and write.
    Writable,
}

/// What stat(2) says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Folder, file or link.
    pub kind: Kind,
    /// Who may.
    pub access: Access,
    /// What programs said of it, where that counts more.
    pub told: Facts,
    /// Names that it has. Folders of a draft count themselves and those in them; others say 1, "not counted", so that
    /// find(1) doesn't skip subfolders by their number.
    pub links: u32,
    /// Bytes.
    pub size: u64,
    /// When it last changed, by the server's clock.
    pub mtime: SystemTime,
    /// How long the kernel may rely on all this.
    pub valid: Duration,
}

/// A node as the kernel knows it.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its inode number.
    pub ino: u64,
    /// What stat(2) says of it.
    pub attributes: Attributes,
}

/// A file that was unlinked while open: it has no place in the tree any more, only what its handles share.
#[derive(Clone)]
pub struct Orphan {
    /// The bytes, if it was being written.
    pub staged: Option<Arc<Staged>>,
    /// What stat(2) said last.
    pub attributes: Attributes,
}
