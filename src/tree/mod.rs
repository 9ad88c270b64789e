//! Names and nodes: what exists, what it is called, what may be done to it.
//!
//! Called by `mount/` (and by tests without a kernel); asks `catalog/`, `content/` and `staging/`. It knows neither
//! FUSE nor HTTP types. Calls block while the repository is asked, within its limits, except where they say so.
//!
//! Lock order: `state` is a leaf; it is never held while another floor is called.

mod archives;
mod browse;
mod change;
mod chores;
mod control;
mod documents;
mod drafts;
mod inodes;
mod labels;
mod members;
mod names;
mod node;
mod open;
mod refresh;
mod rename;
mod served;
mod sums;
mod told;
mod view;
mod views;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lru::LruCache;
use parking_lot::Mutex;

use crate::catalog::{self, Catalog};
use crate::content;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::repository::Repository;
use crate::repository::model::{Md5, Owner, RecordId};
use crate::staging::Area;
use crate::status::Board;
use browse::Spot;
pub use control::Facts as MountFacts;
pub use inodes::ROOT;
use inodes::{Inodes, Meaning};
pub use labels::LabelMode;
pub use names::LONGEST_NAME;
pub use node::{Access, Attributes, Found, Kind, Node};
pub use open::{Handle, Intent, Opened};
pub use refresh::Stale;
pub use told::{Facts, Told};
pub use view::{Line, Listing};
use views::Views;

/// What the tree is built on.
pub struct Floors {
    /// The REST client.
    pub repository: Arc<Repository>,
    /// What is known.
    pub catalog: Arc<Catalog>,
    /// Published bytes.
    pub content: Arc<content::Store>,
    /// Written bytes.
    pub staging: Arc<Area>,
    /// Where problems are posted.
    pub board: Arc<Board>,
    /// What programs said of drafts' files.
    pub told: Arc<Told>,
}

/// How the tree behaves.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long what is known counts as current.
    pub times: catalog::Times,
    /// Refuse every write.
    pub read_only: bool,
    /// As many records of a search are listed.
    pub search_limit: usize,
}

/// The tree.
pub struct Tree {
    floors: Floors,
    rules: Rules,
    facts: MountFacts,
    state: Mutex<State>,
    views: Views,
    labels: labels::Labels,
    archives: archives::Archives,
    chores: chores::Chores,
    seen: browse::Seen,
    listener: refresh::Listener,
}

struct State {
    inodes: Inodes,
    /// Records and drafts that were looked up by their id: `ls` shows them.
    used: LruCache<Owner, ()>,
    titles: drafts::Titles,
}

/// The answer to a lookup.
pub enum Lookup {
    /// It is there.
    Found(Found),
    /// It is not, and the kernel may rely on that for so long.
    Absent(Duration),
}

/// As many used records and drafts are listed.
const USED: NonZeroUsize = NonZeroUsize::new(1000).unwrap();
/// Things that are the same for as long as the mount lives.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// A staged file may become a committed one any moment.
const STAGED: Duration = Duration::from_secs(1);
/// The file with the metadata, in every record and draft.
const DOCUMENT: &str = "record.json";
/// The folder with what is in a record's archives.
const ARCHIVES: &str = "archives";
/// The checksums of a record's files.
const SUMS: &str = "md5sums.txt";
/// What a user saved last as that, if the server did not accept it.
const REJECTED: &str = "record.json.rejected";
/// Why.
const REASONS: &str = "record.json.errors";

impl Tree {
    /// A tree over these floors.
    #[must_use]
    pub fn new(floors: Floors, rules: Rules, facts: MountFacts) -> Self {
        Tree {
            floors,
            rules,
            facts,
            state: Mutex::new(State {
                inodes: Inodes::new(),
                used: LruCache::new(USED),
                titles: drafts::Titles::default(),
            }),
            views: Views::default(),
            labels: labels::Labels::default(),
            archives: archives::Archives::new(rules.times.drafts),
            chores: chores::Chores::default(),
            seen: browse::Seen::default(),
            listener: refresh::Listener::default(),
        }
    }

    /// Shows a record or draft that nobody has looked at yet, if it opens. It asks the repository.
    pub fn show(&self, owner: &Owner) {
        let found = match owner {
            Owner::Record(id) => self
                .floors
                .catalog
                .record(id)
                .map(|entry| Owner::Record(entry.id.clone())),
            Owner::Draft(id) => self
                .floors
                .catalog
                .draft(id)
                .map(|entry| Owner::Draft(entry.id.clone())),
        };
        if let Ok(owner) = found {
            self.state.lock().used.put(owner, ());
        }
    }

    /// Where problems are posted.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.floors.board
    }

    /// Published bytes.
    #[must_use]
    pub fn content(&self) -> &Arc<content::Store> {
        &self.floors.content
    }

    /// What is known.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.floors.catalog
    }

    /// Written bytes.
    #[must_use]
    pub fn staging(&self) -> &Arc<Area> {
        &self.floors.staging
    }

    /// Looks a name up; what is found counts as remembered by the kernel until it is forgotten.
    ///
    /// # Errors
    /// `Call(ENAMETOOLONG)`; what kept the repository from answering. Absence is no error.
    pub fn lookup(&self, parent: u64, name: &str) -> Result<Lookup> {
        names::check_length(name)?;
        let parent = self.place(parent)?;
        let absent = self.absence_of(&parent, name);
        let found = self.child(&parent, name).and_then(|node| {
            node.map(|node| Ok((self.attributes_of(&node)?, node)))
                .transpose()
        });
        match found {
            Ok(Some((attributes, node))) => Ok(Lookup::Found(self.remember(&node, attributes))),
            Ok(None) => Ok(Lookup::Absent(absent)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Lookup::Absent(absent)),
            Err(error) => Err(error),
        }
    }

    /// What stat(2) says.
    ///
    /// # Errors
    /// `Call(ESTALE)` for a number that was forgotten; what kept the repository from answering.
    pub fn attributes(&self, ino: u64) -> Result<Attributes> {
        match self.meaning(ino)? {
            Meaning::Here(node) => self.attributes_of(&node),
            Meaning::Gone(orphan) => {
                let mut attributes = orphan.attributes;
                if let Some(staged) = orphan.staged {
                    let facts = staged.facts();
                    attributes.size = facts.size;
                    attributes.mtime = facts.mtime;
                    attributes.told.mtime = None;
                }
                Ok(attributes)
            }
        }
    }

    /// The kernel forgot so many lookups of a number. Never blocks.
    pub fn forget(&self, ino: u64, lookups: u64) {
        self.state.lock().inodes.forget(ino, lookups);
    }

    /// Counts a listed line as looked up. Never blocks.
    pub fn remember_line(&self, line: &Line) -> Found {
        self.remember(&line.node, line.attributes.clone())
    }

    /// How many inode numbers the kernel holds.
    #[must_use]
    pub fn inode_count(&self) -> usize {
        self.state.lock().inodes.len()
    }

    /// Where a link points.
    ///
    /// # Errors
    /// `Call(EINVAL)` if it is no link.
    pub fn link_target(&self, ino: u64) -> Result<String> {
        self.target_of(&self.place(ino)?)
    }

    fn target_of(&self, node: &Node) -> Result<String> {
        match node {
            Node::Concept(id) => Ok(self.floors.catalog.record(id)?.id.to_string()),
            Node::Around(Spot::Link(link)) => Ok(link.text()),
            _ => Err(Error::call(libc::EINVAL)),
        }
    }

    /// Size and room of the disk that written files go to: total and free bytes.
    ///
    /// # Errors
    /// `Local`.
    pub fn room(&self) -> Result<(u64, u64)> {
        let directory = self.floors.staging.directory();
        let found = rustix::fs::statvfs(directory)
            .map_err(|e| Error::local(format_args!("look at {}", directory.display()), &e.into()))?;
        Ok((found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize))
    }

    /// The node that a name in a folder stands for.
    fn child(&self, parent: &Node, name: &str) -> Result<Option<Node>> {
        let fixed = |matches: bool, node: Node| Ok(matches.then_some(node));
        match parent {
            Node::Root => Ok(match name {
                "records" => Some(Node::Records),
                "drafts" => Some(Node::Drafts),
                ".rdmfs" => Some(Node::Control),
                _ => Spot::at_the_top(name).map(Node::Around),
            }),
            Node::Control => Ok(match name {
                "status.json" => Some(Node::Status),
                "control" => Some(Node::Commands),
                _ => None,
            }),
            Node::Records => self.record_child(name),
            Node::Drafts => self.draft_child(name),
            Node::Home(owner) if name == DOCUMENT => {
                fixed(!self.is_document_hidden(owner), Node::Document(owner.clone()))
            }
            Node::Home(Owner::Draft(id)) if self.is_about_rejected(id, name) => Ok(Some(match name {
                REJECTED => Node::Rejected(id.clone()),
                _ => Node::Reasons(id.clone()),
            })),
            Node::Home(owner @ Owner::Record(id)) => Ok(match name {
                "files" => Some(Node::Folder(owner.clone(), "".into())),
                SUMS => Some(Node::Sums(id.clone())),
                ARCHIVES => self.archives_of(id),
                _ => Spot::of_record(id, name).map(Node::Around),
            }),
            Node::Archived(record, place) => self.archived_child(record, place, name),
            Node::Home(owner @ Owner::Draft(_)) => self.child_in_view(owner, "", name),
            Node::Folder(owner, path) => self.child_in_view(owner, path, name),
            Node::Around(spot) => self.child_around(spot, name),
            Node::Concept(_)
            | Node::Status
            | Node::Commands
            | Node::Document(_)
            | Node::Sums(_)
            | Node::Rejected(_)
            | Node::Reasons(_)
            | Node::File(..) => Err(Error::call(libc::ENOTDIR)),
        }
    }

    fn record_child(&self, name: &str) -> Result<Option<Node>> {
        let Some(id) = RecordId::new(name) else {
            return Ok(None);
        };
        let entry = self.floors.catalog.record(&id)?;
        if entry.id != id {
            return Ok(Some(Node::Concept(id)));
        }
        let owner = Owner::Record(id);
        self.state.lock().used.put(owner.clone(), ());
        Ok(Some(Node::Home(owner)))
    }

    fn draft_child(&self, name: &str) -> Result<Option<Node>> {
        let titled = self.state.lock().titles.id_of(name);
        let Some(id) = titled.or_else(|| RecordId::new(name)) else {
            return Ok(None);
        };
        self.floors.catalog.draft(&id)?;
        let owner = Owner::Draft(id);
        self.state.lock().used.put(owner.clone(), ());
        Ok(Some(Node::Home(owner)))
    }

    fn child_in_view(&self, owner: &Owner, path: &str, name: &str) -> Result<Option<Node>> {
        // What is known is enough to answer a probe: nobody publishes a folder `.git` to be found by chance.
        let view = if names::is_probe(name) {
            self.known_view(owner)
        } else {
            Some(self.view(owner)?)
        };
        Ok(view.and_then(|view| view.child(owner, path, name)))
    }

    /// What stat(2) says of a place.
    fn attributes_of(&self, node: &Node) -> Result<Attributes> {
        let catalog = &self.floors.catalog;
        match node {
            Node::Root | Node::Records | Node::Drafts | Node::Control | Node::Status | Node::Commands => {
                Ok(self.own_attributes(node))
            }
            Node::Concept(id) => {
                let entry = catalog.record(id)?;
                let size = entry.id.as_str().len() as u64;
                Ok(Attributes {
                    kind: Kind::Link,
                    size,
                    ..self.entry_attributes(node, &entry)
                })
            }
            Node::Home(Owner::Record(id)) | Node::Document(Owner::Record(id)) => {
                Ok(self.entry_attributes(node, &*catalog.record(id)?))
            }
            Node::Home(Owner::Draft(id)) => Ok(self.entry_attributes(node, &*catalog.draft(id)?)),
            Node::Document(Owner::Draft(id)) => match self.floors.staging.document(id) {
                Some(staged) => Ok(self.staged_attributes(node, &staged)),
                None => Ok(self.entry_attributes(node, &*catalog.draft(id)?)),
            },
            Node::Sums(id) => Ok(self.sums_attributes(id, &*catalog.record(id)?)),
            Node::Around(spot) => self.attributes_around(spot),
            Node::Rejected(id) | Node::Reasons(id) => self.rejected_attributes(node, id),
            Node::Folder(owner, path) => {
                // `files` is there even where it can't be listed, so that asking for it gives the reason.
                let is_top = path.is_empty() && matches!(owner, Owner::Record(_));
                if !is_top && !self.view(owner)?.has_folder(path) {
                    return Err(Error::call(libc::ENOENT));
                }
                Ok(self.folder_attributes(node, &*self.entry_of(owner)?))
            }
            Node::File(owner, key) => {
                if let Owner::Draft(id) = owner
                    && let Some(staged) = self.floors.staging.find(id, key)
                {
                    return Ok(self.staged_attributes(node, &staged));
                }
                let view = self.view(owner)?;
                let file = view.file(key).ok_or_else(|| Error::call(libc::ENOENT))?;
                match self.staged_now(owner, file) {
                    Some(staged) => Ok(self.staged_attributes(node, &staged)),
                    None => Ok(self.file_attributes(node, owner, &*self.entry_of(owner)?, file)),
                }
            }
            Node::Archived(record, place) => self.archived_attributes(record, place),
        }
    }

    fn entry_of(&self, owner: &Owner) -> Result<Arc<catalog::Entry>> {
        match owner {
            Owner::Record(id) => self.floors.catalog.record(id),
            Owner::Draft(id) => self.floors.catalog.draft(id),
        }
    }

    /// Attributes of what is there without any repository.
    fn own_attributes(&self, node: &Node) -> Attributes {
        let (size, mtime, valid, access) = match node {
            Node::Status => (
                self.status_text().len() as u64,
                SystemTime::now(),
                Duration::ZERO,
                Access::Private,
            ),
            Node::Commands => (0, self.facts.started, FOREVER, Access::Writable),
            Node::Control => (0, self.facts.started, FOREVER, Access::Private),
            Node::Drafts => (0, self.facts.started, FOREVER, self.draft_access()),
            _ => (0, self.facts.started, FOREVER, Access::Open),
        };
        Attributes {
            kind: node.kind(),
            access,
            told: Facts::default(),
            links: 1,
            size,
            mtime,
            valid,
        }
    }

    fn entry_attributes(&self, node: &Node, entry: &catalog::Entry) -> Attributes {
        let is_document = matches!(node, Node::Document(_));
        let (access, valid) = match node {
            Node::Home(owner @ Owner::Draft(_)) => (self.draft_access(), self.life_of(owner)),
            Node::Document(owner @ Owner::Draft(_)) => (self.draft_access(), self.life_of(owner).min(STAGED)),
            _ => (access_of(entry), self.life_of(&Owner::Record(entry.id.clone()))),
        };
        Attributes {
            kind: node.kind(),
            access,
            told: self.told_of(node, None),
            links: self.links_of(node),
            size: if is_document {
                entry.document.len() as u64
            } else {
                0
            },
            mtime: entry.updated.unwrap_or(self.facts.started),
            valid,
        }
    }

    fn folder_attributes(&self, node: &Node, entry: &catalog::Entry) -> Attributes {
        let (access, mtime, valid) = match node.draft() {
            None => (
                access_of(entry),
                entry.created,
                self.life_of(&Owner::Record(entry.id.clone())),
            ),
            Some(id) => (
                self.draft_access(),
                entry.updated,
                self.life_of(&Owner::Draft(id.clone())),
            ),
        };
        let mtime = mtime.unwrap_or(self.facts.started);
        Attributes {
            kind: Kind::Folder,
            access,
            told: self.told_of(node, None),
            links: self.links_of(node),
            size: 0,
            mtime,
            valid,
        }
    }

    /// A published file is as old as its publication: a change of metadata doesn't change it.
    fn file_attributes(
        &self,
        node: &Node,
        owner: &Owner,
        entry: &catalog::Entry,
        file: &view::File,
    ) -> Attributes {
        let (access, mtime, valid) = match owner {
            Owner::Record(_) => (access_of(entry), entry.created, self.life_of(owner)),
            Owner::Draft(_) => (self.draft_access(), file.entry.updated, self.life_of(owner)),
        };
        Attributes {
            kind: Kind::File,
            access,
            told: self.told_of(node, file.entry.md5),
            links: 1,
            size: file.entry.size.unwrap_or(0),
            mtime: mtime.or(entry.updated).unwrap_or(self.facts.started),
            valid,
        }
    }

    fn staged_attributes(&self, node: &Node, staged: &crate::staging::Staged) -> Attributes {
        let facts = staged.facts();
        let told = self.told_of(node, None);
        Attributes {
            kind: Kind::File,
            access: self.draft_access(),
            told: Facts {
                mtime: None,
                ctime: Some(told.ctime.map_or(facts.ctime, |told| told.max(facts.ctime))),
                ..told
            },
            links: 1,
            size: facts.size,
            mtime: facts.mtime,
            valid: STAGED.min(self.rules.times.drafts),
        }
    }

    /// How many folders a folder of a draft is named by: itself twice, and each that is in it.
    fn links_of(&self, node: &Node) -> u32 {
        let Some((draft, path)) = node.draft_folder() else {
            return 1;
        };
        self.known_view(&Owner::Draft(draft.clone()))
            .map_or(1, |view| 2 + view.count_folders(path))
    }

    fn told_of(&self, node: &Node, md5: Option<Md5>) -> Facts {
        match node.draft() {
            Some(_) => self.floors.told.of(node, md5),
            None => Facts::default(),
        }
    }

    /// How long the kernel may rely on what it is told: no longer than we do.
    fn life_of(&self, owner: &Owner) -> Duration {
        self.floors.catalog.life_of(owner)
    }

    fn draft_access(&self) -> Access {
        if self.rules.read_only {
            Access::Private
        } else {
            Access::Writable
        }
    }

    /// How long the kernel may rely on a name not being there.
    fn absence_of(&self, parent: &Node, name: &str) -> Duration {
        match parent {
            Node::Root | Node::Control => FOREVER,
            Node::Around(spot) => self.absence_around(spot),
            // A save may be refused any moment, and who saved looks at once.
            Node::Home(Owner::Draft(_)) if matches!(name, REJECTED | REASONS) => Duration::ZERO,
            // It may hold even those, and was perhaps not looked into.
            Node::Archived(..) if names::is_probe(name) => Duration::ZERO,
            _ if names::is_probe(name) && parent.draft_folder().is_none() => self.rules.times.records,
            Node::Home(Owner::Record(_)) | Node::Folder(Owner::Record(_), _) | Node::Archived(..) => {
                self.rules.times.records
            }
            _ => self.rules.times.drafts,
        }
    }

    fn remember(&self, node: &Node, attributes: Attributes) -> Found {
        Found {
            ino: self.state.lock().inodes.remember(node),
            attributes,
        }
    }

    fn meaning(&self, ino: u64) -> Result<Meaning> {
        self.state
            .lock()
            .inodes
            .get(ino)
            .ok_or_else(|| Error::call(libc::ESTALE))
    }

    /// The place a number stands for; unlinked files have none.
    fn place(&self, ino: u64) -> Result<Node> {
        match self.meaning(ino)? {
            Meaning::Here(node) => Ok(node),
            Meaning::Gone(_) => Err(Error::call(libc::ENOENT)),
        }
    }
}

fn access_of(entry: &catalog::Entry) -> Access {
    if entry.is_open {
        Access::Open
    } else {
        Access::Private
    }
}
