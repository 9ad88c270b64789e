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
use super::node::Node;
use super::open::identity_of;
use crate::content::{Wanted, Work};
use crate::error::{Error, Kind, Result};
use crate::repository::model::{FilePlace, FileStatus, Owner};

/// As many pieces of work are remembered, the finished ones as well.
const MOST: usize = 32;
/// Work that nobody asks about for so long is stopped: whoever wanted it is gone.
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
    /// Places below the mount point; none means the whole cache.
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
        })
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
            known.works.remove(at);
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
        let (tree, watched) = (Arc::downgrade(self), Arc::clone(&work));
        thread::Builder::new()
            .name("rdmfs-chore".into())
            .spawn(move || {
                let done = do_it(&tree, &order, &watched);
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

    /// The files at a place below the mount point, and below it. What is no file of the repository's is left out.
    fn wanted(&self, path: &str) -> Result<Vec<Wanted>> {
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
            // What stands beside the files, as a pattern of a shell may name it.
            _ => Ok(Vec::new()),
        }
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
    let (store, wanted) = {
        let Some(tree) = tree.upgrade() else { return Ok(()) };
        let mut wanted = Vec::new();
        for path in &order.paths {
            if work.is_stopped() {
                return Ok(());
            }
            wanted.append(&mut tree.wanted(path).map_err(|error| error.during(path))?);
        }
        // What was named twice is done once.
        let mut seen = std::collections::HashSet::new();
        wanted.retain(|one| seen.insert(one.name.clone()));
        (Arc::clone(tree.content()), wanted)
    };
    let of_all = order.paths.is_empty();
    match order.what {
        What::Look => store.tell_of(&wanted, work),
        What::Fetch => store.keep(wanted, order.pins, work)?,
        What::Verify => store.verify((!of_all).then_some(wanted), work),
        What::Clear => store.clear((!of_all).then_some(&*wanted), order.pins, work),
        What::Unpin => store.unpin((!of_all).then_some(&*wanted), work),
    }
    Ok(())
}

/// Stops work that nobody asks about any more, and all when the mount ends.
fn watch(tree: &Weak<Tree>, work: &Work) {
    while !work.is_finished() {
        let ends = tree.upgrade().is_none_or(|tree| tree.content().is_ending());
        if ends || work.unasked_for() > FORGOTTEN {
            work.stop();
        }
        thread::sleep(LOOK);
    }
}
