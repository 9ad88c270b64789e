//! `refresh PATH` and `which PATH`: commands that change something on the server tell a mount of it, and ask what a path
//! stands for.
//!
//! What changed is asked for at once, because listings of the server learn of it seconds later. The kernel is told to drop
//! names that mean something else now, through a listener of `mount/`: this floor knows nothing of FUSE.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::Tree;
use super::browse::{self, LOGO, Spot};
use super::inodes::Inodes;
use super::node::{Archived, Kind, Node};
use crate::catalog;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::repository::model::{Owner, RecordId};

/// What the kernel must not rely on any more.
#[derive(Debug, Default)]
pub struct Stale {
    /// Names, with the numbers of their folders.
    pub names: Vec<(u64, String)>,
    /// Numbers whose attributes and content are to be asked for again.
    pub inodes: Vec<u64>,
}

/// Who hears of it.
#[derive(Default)]
pub(super) struct Listener(OnceLock<Box<dyn Fn(Stale) + Send + Sync>>);

/// More numbers than that of one record are not told one by one: they are asked for when their time is over.
const MOST: usize = 20_000;

impl Tree {
    /// Sets who tells the kernel; once.
    pub fn on_stale(&self, listener: impl Fn(Stale) + Send + Sync + 'static) {
        drop(self.listener.0.set(Box::new(listener)));
    }

    /// Asks anew for what is at a place: for a record or draft its id alone counts, for anything else, all.
    ///
    /// # Errors
    /// None so far as the place can be read: what can't be asked for now is asked for when somebody looks.
    pub(super) fn refresh(&self, path: &str) -> Result<()> {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let id = match *names {
            ["records", name, ..] => RecordId::new(name),
            ["drafts", name, ..] => self.draft_called(name),
            _ => None,
        };
        match id {
            Some(id) => self.refresh_one(&id),
            None => {
                self.floors.catalog.changed_somewhere();
                self.refresh_all(names.get(1).copied());
            }
        }
        Ok(())
    }

    /// What the catalog says is asked for anew: so is what the kernel knows of it. `slug` is a community that may have come or
    /// gone.
    pub(super) fn refresh_all(&self, slug: Option<&str>) {
        self.archives.expire();
        let stale = {
            let state = self.state.lock();
            let communities = [Spot::Communities, Spot::UserCommunities].map(Node::Around);
            let folders = communities.iter().filter_map(|node| state.inodes.number(node));
            let mut names: Vec<_> = folders
                .flat_map(|folder| slug.map(|slug| (folder, slug.to_owned())))
                .collect();
            if let Some(slug) = slug
                && let Some(folder) = state.inodes.number(&Node::Around(Spot::Community(slug.into())))
            {
                // A logo may be there now, or gone.
                names.push((folder, LOGO.to_owned()));
            }
            Stale {
                names,
                inodes: numbers_of(&state.inodes, |node| node.is_published() || *node == Node::Drafts),
            }
        };
        self.tell_of(stale);
    }

    fn tell_of(&self, stale: Stale) {
        if let Some(listener) = self.listener.0.get() {
            listener(stale);
        }
    }

    fn draft_called(&self, name: &str) -> Option<RecordId> {
        let titled = self.state.lock().titles.id_of(name);
        titled.or_else(|| RecordId::new(name))
    }

    fn refresh_one(&self, id: &RecordId) {
        let catalog = &self.floors.catalog;
        let draft = Owner::Draft(id.clone());
        let title = self.state.lock().titles.title_of(id).cloned();
        let changed = catalog.changed_elsewhere(id);
        // Both are asked for now: what fails is asked for again by who looks.
        let has_draft = match catalog.draft(id) {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.views.forget(id);
                let mut state = self.state.lock();
                state.titles.forget(id);
                state.used.pop(&draft);
                false
            }
            Err(_) => true,
        };
        let record = catalog.record(id);
        let mut state = self.state.lock();
        if record.as_ref().is_ok_and(|record| record.id == *id) {
            state.used.put(Owner::Record(id.clone()), ());
        }
        // A folder that is still there may be somebody's working directory, and keeps its name.
        let mut stale = Stale::default();
        let is_known = |owner: &Owner| state.inodes.number(&Node::Home(owner.clone())).is_some();
        if let Some(records) = state.inodes.number(&Node::Records)
            && !is_known(&Owner::Record(id.clone()))
        {
            stale.names.push((records, id.to_string()));
        }
        if let Some(drafts) = state.inodes.number(&Node::Drafts)
            && (!has_draft || !is_known(&draft))
        {
            stale.names.push((drafts, id.to_string()));
            stale.names.extend(title.map(|title| (drafts, title)));
        }
        stale
            .names
            .extend(names_around(&state.inodes, id, &changed, record.ok().as_deref()));
        stale.inodes = numbers_of(&state.inodes, |node| changed.iter().any(|id| node.is_of(id)));
        let folders = [Node::Records, Node::Drafts];
        stale
            .inodes
            .extend(folders.iter().filter_map(|node| state.inodes.number(node)));
        if !has_draft {
            state.inodes.detach(&Node::Home(draft));
        }
        drop(state);
        self.tell_of(stale);
    }

    /// What is at a place below the mount point: a record or a draft, and what of it.
    ///
    /// # Errors
    /// `Call(ENOENT)` if nothing is, or nothing of a record or draft; what kept the repository from answering.
    pub(super) fn which(&self, path: &str) -> Result<Value> {
        let missing = || {
            let what = format!("/{path} is no record or draft, nor in one");
            Error::new(ErrorKind::Call(libc::ENOENT), what)
                .with_advice("Name the folder of a record or draft, such as drafts/abcde-12345.")
        };
        let mut node = Node::Root;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let found = self.child(&node, name).or_else(|error| match error.kind() {
                ErrorKind::NotFound => Ok(None),
                _ => Err(error),
            })?;
            node = found.ok_or_else(missing)?;
            if node.kind() == Kind::Link {
                let target = self.target_of(&node)?;
                let id = target
                    .rsplit('/')
                    .next()
                    .and_then(RecordId::new)
                    .ok_or_else(missing)?;
                node = Node::Home(Owner::Record(id));
            }
        }
        let (owner, key) = owner_and_key(&node).ok_or_else(missing)?;
        Ok(match owner {
            Owner::Draft(id) => json!({"draft": id.as_str(), "key": key}),
            Owner::Record(id) => json!({"record": id.as_str(), "key": key}),
        })
    }
}

/// The numbers of some nodes. The bytes of a published file are always the same: the kernel keeps those.
fn numbers_of(inodes: &Inodes, wanted: impl Fn(&Node) -> bool) -> Vec<u64> {
    let is_file = |node: &Node| {
        matches!(
            node,
            Node::File(Owner::Record(_), _) | Node::Archived(_, Archived::File(..))
        )
    };
    inodes
        .nodes()
        .filter(|node| !is_file(node) && wanted(node))
        .filter_map(|node| inodes.number(node))
        .take(MOST)
        .collect()
}

/// The names that stand for something else, or for nothing any more, since a record was changed: links to it wherever
/// records are found, its DOI, and in `changed`, its versions.
fn names_around(
    inodes: &Inodes,
    id: &RecordId,
    changed: &[RecordId],
    record: Option<&catalog::Entry>,
) -> Vec<(u64, String)> {
    let mut names = Vec::new();
    for node in inodes.nodes() {
        let Node::Around(spot) = node else { continue };
        let in_it: Vec<String> = match spot {
            Spot::Versions(of) if changed.contains(of) => {
                let number = record.and_then(|record| record.version);
                let number = number.map(|number| number.to_string());
                number.into_iter().chain(["latest".to_owned()]).collect()
            }
            spot if spot.has_links_to_records() => vec![id.to_string()],
            _ => continue,
        };
        if let Some(folder) = inodes.number(node) {
            names.extend(in_it.into_iter().map(|name| (folder, name)));
        }
        if names.len() > MOST {
            break;
        }
    }
    let doi = record.and_then(catalog::Entry::doi);
    let steps = doi.map(|doi| browse::steps_of(&doi)).unwrap_or_default();
    names.extend(
        steps
            .into_iter()
            .filter_map(|(folder, name)| Some((inodes.number(&Node::Around(folder))?, name))),
    );
    names
}

/// Whose a node is, and its key.
fn owner_and_key(node: &Node) -> Option<(Owner, &str)> {
    match node {
        Node::Home(owner) | Node::Document(owner) => Some((owner.clone(), "")),
        Node::Folder(owner, key) | Node::File(owner, key) => Some((owner.clone(), key)),
        Node::Sums(id) => Some((Owner::Record(id.clone()), "")),
        Node::Rejected(id) | Node::Reasons(id) => Some((Owner::Draft(id.clone()), "")),
        _ => None,
    }
}
