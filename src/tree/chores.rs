//! Work on the cache that commands ask for by paths: which files are meant, and the threads that do it.
//!
//! `control` hands on the commands. Finding the files of a record may ask the repository, and fetching takes long, so all
//! of it is done on a thread for each piece of work; commands ask again and again how far it is. The list of works is a
//! leaf lock.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;

use super::Tree;
use super::browse::Spot;
use super::node::{Archived, Node};
use super::open::identity_of;
use crate::content::{Wanted, Work};
use crate::error::{Error, Kind, Result};
use crate::memory;
use crate::repository::model::{FilePlace, FileStatus, Owner};

/// As many pieces of work are remembered, the finished ones as well.
const MOST: usize = 32;
/// Work that nobody asks about for so long is stopped, and forgotten when it has ended: whoever wanted it is gone, and
/// what became of ten thousand files takes some megabytes.
const FORGOTTEN: Duration = Duration::from_secs(15);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The pieces of work of a mount.
#[derive(Default)]
pub(super) struct Chores {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    works: Vec<Arc<Work>>,
    last: u64,
}

/// What is asked for.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Order {
    #[serde(rename = "do")]
    what: What,
    /// Places below the mount point, or checksums as `md5:CHECKSUM`; none means the whole cache.
    #[serde(default)]
    paths: Vec<String>,
    /// Fetch: and keep until they are unpinned. Clear: also what is pinned.
    #[serde(default)]
    pins: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum What {
    Look,
    Fetch,
    Verify,
    Clear,
    Unpin,
}

impl Chores {
    /// The work with this number.
    pub(super) fn find(&self, number: u64) -> Result<Arc<Work>> {
        let known = self.known.lock();
        let found = known.works.iter().find(|work| work.number() == number);
        found.cloned().ok_or_else(|| {
            Error::new(
                Kind::Call(libc::ENOENT),
                format!("no work on the cache has the number {number}"),
            )
            .with_advice("Run the command again: what nobody asked about for 15 s is forgotten.")
        })
    }

    /// Forgets a piece of work if it has ended and nobody has asked about it for so long. Tells whether it is forgotten.
    fn forget(&self, work: &Work, unasked_for: Duration) -> bool {
        let is_left = work.is_finished() && work.unasked_for() >= unasked_for;
        if is_left {
            let number = work.number();
            self.known.lock().works.retain(|known| known.number() != number);
        }
        is_left
    }

    fn begin(&self) -> Result<Arc<Work>> {
        let mut known = self.known.lock();
        if known.works.len() >= MOST {
            let at = known.works.iter().position(|work| work.is_finished());
            let at = at.ok_or_else(|| {
                Error::new(
                    Kind::Call(libc::EBUSY),
                    format!("{MOST} commands work on the cache already"),
                )
                .with_advice("Wait until one of them has ended.")
            })?;
            let gone = known.works.remove(at);
            memory::freed(gone.weight());
        }
        known.last += 1;
        let work = Arc::new(Work::new(known.last));
        known.works.push(Arc::clone(&work));
        Ok(work)
    }
}

impl Tree {
    /// Begins a piece of work, and returns its number.
    pub(super) fn begin_chore(self: &Arc<Self>, order: &str) -> Result<u64> {
        let order: Order = serde_json::from_str(order).map_err(|error| {
            Error::new(
                Kind::Call(libc::EINVAL),
                format!("that is no order for the cache: {error}"),
            )
        })?;
        let work = self.chores.begin()?;
        let number = work.number();
        let starting = |error: &std::io::Error| Error::local("start a thread for the cache", error);
        let (tree, watched, ending) = (Arc::downgrade(self), Arc::clone(&work), work.ending());
        thread::Builder::new()
            .name("rdmfs-chore".into())
            .spawn(move || {
                let _ending = ending;
                let done = do_it(&tree, &order, &watched);
                let done = done.and_then(|()| {
                    if watched.is_stopped() {
                        Err(stopped())
                    } else {
                        Ok(())
                    }
                });
                watched.finish(done);
            })
            .map_err(|error| starting(&error))?;
        let tree = Arc::downgrade(self);
        thread::Builder::new()
            .name("rdmfs-chore-watch".into())
            .spawn(move || watch(&tree, &work))
            .map_err(|error| starting(&error))?;
        Ok(number)
    }

    /// The files at all the places of an order. A place at which nothing can be done is settled; if there is no other, that
    /// is the error.
    fn all_wanted(&self, order: &Order, work: &Work) -> Result<Vec<Wanted>> {
        let mut wanted = Vec::new();
        let mut failed = Vec::new();
        for path in &order.paths {
            if work.is_stopped() {
                return Err(stopped());
            }
            let named = self.content().named(path).map(|found| match order.what {
                What::Fetch => Err(by_checksum(path)),
                _ => found,
            });
            match named.unwrap_or_else(|| self.wanted(path, work)) {
                Ok(mut found) => wanted.append(&mut found),
                Err(error) => failed.push((path, error)),
            }
        }
        let is_all = failed.len() == order.paths.len();
        let mut failed = failed.into_iter();
        let first = if is_all { failed.next() } else { None };
        failed.for_each(|(path, error)| work.fail(path, &error));
        if let Some((path, error)) = first {
            return Err(error.during(path));
        }
        // What was named twice is done once.
        let mut seen = std::collections::HashSet::new();
        wanted.retain(|one| seen.insert(one.name.clone()));
        Ok(wanted)
    }

    /// The files at a place below the mount point, and below it. What is no file of the repository's is left out.
    fn wanted(&self, path: &str, work: &Work) -> Result<Vec<Wanted>> {
        let missing = || Error::new(Kind::NotFound, format!("there is no {path}"));
        let mut node = Node::Root;
        let mut shown = Vec::new();
        for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
            node = self.child(&node, name)?.ok_or_else(missing)?;
            shown.push(name.to_owned());
            let linked = match &node {
                Node::Concept(id) => Some(id),
                Node::Around(Spot::Link(link)) => link.record(),
                _ => None,
            };
            if let Some(id) = linked {
                let record = self.floors.catalog.record(id)?.id.clone();
                shown = vec!["records".to_owned(), record.to_string()];
                node = Node::Home(Owner::Record(record));
            }
        }
        let shown = shown.join("/");
        match &node {
            Node::Home(owner @ Owner::Record(_)) => self.wanted_below(owner, "", &format!("{shown}/files")),
            Node::Home(owner) => self.wanted_below(owner, "", &shown),
            Node::Folder(owner, folder) => {
                if !self.view(owner)?.has_folder(folder) {
                    return Err(missing());
                }
                self.wanted_below(owner, folder, &shown)
            }
            Node::File(owner, key) => {
                let view = self.view(owner)?;
                let file = view.file(key).ok_or_else(missing)?;
                Ok(wanted_file(owner, file, shown).into_iter().collect())
            }
            Node::Root | Node::Records | Node::Drafts => Err(Error::new(
                Kind::Refused,
                format!("/{shown} is a whole repository"),
            )
            .with_advice("Name records, drafts, folders or files in it.")),
            Node::Around(spot) => match spot {
                Spot::User => self.wanted_by_links(&Spot::UserRecords, work),
                Spot::Community(slug) => {
                    self.wanted_by_links(&Spot::CommunityRecords(Arc::clone(slug)), work)
                }
                spot if spot.has_links_to_records() => self.wanted_by_links(spot, work),
                Spot::Searches
                | Spot::Communities
                | Spot::UserCommunities
                | Spot::Dois
                | Spot::DoiFolder(_) => Err(Error::new(
                    Kind::Refused,
                    format!("/{shown} is no record and no list of records"),
                )
                .with_advice("Name what is in it: a search, a community, the whole of a DOI.")),
                _ => Ok(Vec::new()),
            },
            // Its bytes are those of the archive.
            Node::Archived(id, Archived::Folder(key, _) | Archived::File(key, _)) => {
                let owner = Owner::Record(id.clone());
                let view = self.view(&owner)?;
                let file = view.file(key).ok_or_else(missing)?;
                Ok(wanted_file(&owner, file, shown).into_iter().collect())
            }
            // What stands beside the files, as a pattern of a shell may name it.
            _ => Ok(Vec::new()),
        }
    }

    /// The files of all records that a folder holds links to. A record of which they can't be had is settled.
    fn wanted_by_links(&self, folder: &Spot, work: &Work) -> Result<Vec<Wanted>> {
        let mut wanted = Vec::new();
        for id in self.records_in(folder)? {
            if work.is_stopped() {
                return Err(stopped());
            }
            let shown = format!("records/{id}");
            match self.wanted_below(&Owner::Record(id), "", &format!("{shown}/files")) {
                Ok(mut found) => wanted.append(&mut found),
                Err(error) => work.fail(&shown, &error),
            }
        }
        Ok(wanted)
    }

    fn wanted_below(&self, owner: &Owner, folder: &str, shown: &str) -> Result<Vec<Wanted>> {
        let view = self.view(owner)?;
        let files = view.files_below(folder).into_iter();
        Ok(files
            .filter_map(|(path, file)| wanted_file(owner, file, format!("{shown}/{path}")))
            .collect())
    }
}

/// A file that the server has; what was written here and not sent is no matter of the cache.
fn wanted_file(owner: &Owner, file: &super::view::File, name: String) -> Option<Wanted> {
    if file.staged.is_some() || file.entry.status != FileStatus::Completed {
        return None;
    }
    let place = FilePlace {
        owner: owner.clone(),
        key: Arc::clone(&file.entry.key),
    };
    Some(Wanted {
        name,
        identity: identity_of(&place, &file.entry),
        place,
    })
}

fn do_it(tree: &Weak<Tree>, order: &Order, work: &Work) -> Result<()> {
    let (store, catalog, wanted) = {
        let Some(tree) = tree.upgrade() else {
            return Err(stopped());
        };
        let (store, catalog) = (Arc::clone(tree.content()), Arc::clone(tree.catalog()));
        (store, catalog, tree.all_wanted(order, work)?)
    };
    let of_all = order.paths.is_empty();
    match order.what {
        What::Look => store.tell_of(&wanted, work),
        What::Fetch => store.keep(wanted, order.pins, work)?,
        What::Verify => store.verify((!of_all).then_some(wanted), work),
        What::Clear => {
            store.clear((!of_all).then_some(&*wanted), order.pins, work);
            // What is pinned is found, without the repository, by what is known of its record.
            if of_all && !work.is_stopped() && !store.is_ending() && !store.has_pins() {
                work.freed(catalog.clear_kept());
            }
        }
        What::Unpin => store.unpin((!of_all).then_some(&*wanted), work),
    }
    Ok(())
}

/// What is fetched has to be somewhere.
fn by_checksum(name: &str) -> Error {
    Error::new(
        Kind::Call(libc::EINVAL),
        format!("{name} can't be fetched by its checksum"),
    )
    .with_advice("Name a place in the mount where it is, or the id of its record.")
}

/// Work that was stopped may have left anything undone.
fn stopped() -> Error {
    Error::new(
        Kind::Call(libc::EINTR),
        "it was stopped before all was done, or nobody asked any more how far it was",
    )
    .with_advice("Run the command again; what is done is not done twice.")
}

/// Stops work that nobody asks about any more, and all when the mount ends. When it has ended and was told, or nobody
/// wants to know, it is forgotten.
fn watch(tree: &Weak<Tree>, work: &Work) {
    loop {
        // Not held while waiting, so that the mount can end.
        let is_over = {
            let tree = tree.upgrade();
            let ends = tree.as_ref().is_none_or(|tree| tree.content().is_ending());
            if ends || work.unasked_for() > FORGOTTEN {
                work.stop();
            }
            tree.map_or(work.is_finished(), |tree| tree.chores.forget(work, FORGOTTEN))
        };
        if is_over {
            return memory::freed(work.weight());
        }
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_has_ended_is_forgotten_when_nobody_asks_about_it_any_more() {
        let chores = Chores::default();
        let work = chores.begin().unwrap();
        let other = chores.begin().unwrap();
        assert!(!chores.forget(&work, Duration::ZERO), "it has not ended");
        work.finish(Ok(()));
        assert!(!chores.forget(&work, FORGOTTEN), "somebody asked just now");
        assert!(chores.forget(&work, Duration::ZERO));
        assert!(chores.find(work.number()).is_err());
        assert!(chores.find(other.number()).is_ok());
    }
}
