//! `refresh PATH` and `which PATH`: commands that change something on the server tell a mount of it, and ask what a path
//! stands for.
//!
//! What changed is asked for at once, because listings of the server learn of it seconds later. The kernel is told to drop
//! names that mean something else now, through a listener of `mount/`: this floor knows nothing of FUSE.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use super::Tree;
use super::browse::{LOGO, Spot};
use super::node::{Kind, Node};
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
        let mut names = path.split('/').filter(|name| !name.is_empty());
        let id = match (names.next(), names.next()) {
            (Some("records"), Some(name)) => RecordId::new(name),
            (Some("drafts"), Some(name)) => self.draft_called(name),
            _ => None,
        };
        match id {
            Some(id) => self.refresh_one(&id),
            None => {
                self.floors.catalog.expire();
                self.forget_place(path);
            }
        }
        Ok(())
    }

    /// Tells the kernel that a community may have come, changed or gone, or the lists of the user's own: it relies on what it
    /// was told for as long as published records count as current.
    fn forget_place(&self, path: &str) {
        let mut names = path.split('/').filter(|name| !name.is_empty());
        let slug: Option<Arc<str>> = match (names.next(), names.next()) {
            (Some("communities"), Some(name)) => Some(name.into()),
            (Some("user"), _) => None,
            _ => return,
        };
        let state = self.state.lock();
        let number = |spot: Spot| state.inodes.number(&Node::Around(spot));
        let mut stale = Stale::default();
        let folders = [Spot::Communities, Spot::UserCommunities, Spot::UserRecords];
        for folder in folders.into_iter().filter_map(number) {
            stale.inodes.push(folder);
            stale
                .names
                .extend(slug.iter().map(|slug| (folder, slug.to_string())));
        }
        if let Some(slug) = slug {
            let parts = [
                Spot::Community,
                Spot::CommunityDocument,
                Spot::CommunityLogo,
                Spot::CommunityRecords,
            ];
            stale
                .inodes
                .extend(parts.iter().filter_map(|part| number(part(Arc::clone(&slug)))));
            if let Some(folder) = number(Spot::Community(slug)) {
                // A logo may be there now, or gone.
                stale.names.push((folder, LOGO.to_owned()));
            }
        }
        drop(state);
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
        catalog.changed_elsewhere(id);
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
        if record.is_ok_and(|record| record.id == *id) {
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
        // The bytes of a published file are always the same.
        stale.inodes = state
            .inodes
            .nodes()
            .filter(|node| node.is_of(id) && !matches!(node, Node::File(Owner::Record(_), _)))
            .filter_map(|node| state.inodes.number(node))
            .take(MOST)
            .collect();
        let folders = [Node::Records, Node::Drafts];
        stale
            .inodes
            .extend(folders.iter().filter_map(|node| state.inodes.number(node)));
        if !has_draft {
            state.inodes.detach(&Node::Home(draft));
        }
        drop(state);
        if let Some(listener) = self.listener.0.get() {
            listener(stale);
        }
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
