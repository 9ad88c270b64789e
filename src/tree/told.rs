//! What programs said of files and folders in drafts: modes, owners, times. A repository keeps none of it.
//!
//! Remembered for as long as the mount lives, because programs look whether it holds: rsync compares times, editors look
//! whether somebody else wrote. Used by `tree/`; `mount/` hands on the news of files that arrived. Its lock is a leaf.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::SystemTime;

use lru::LruCache;
use parking_lot::Mutex;

use super::node::{Attributes, Node};
use crate::repository::model::{FileEntry, Md5, Owner, RecordId};
use crate::staging;

/// What was said of one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Permission bits.
    pub mode: Option<u16>,
    /// The user it belongs to.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
    /// When it was last read.
    pub atime: Option<SystemTime>,
    /// When it was last written.
    pub mtime: Option<SystemTime>,
    /// When any of this last changed.
    pub ctime: Option<SystemTime>,
}

/// The memory of a mount.
pub struct Told {
    nodes: Mutex<LruCache<Node, Entry>>,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    facts: Facts,
    /// The bytes that `mtime` is of, if the server has them.
    of: Option<Md5>,
}

/// Files and folders that are remembered, about 200 bytes each.
const MOST: NonZeroUsize = NonZeroUsize::new(50_000).unwrap();

/// Set user and set group: who writes to a file takes them away.
const SET_ID: u16 = 0o6000;

impl Facts {
    /// What is true of something that begins now, besides this.
    pub(super) fn begun(self) -> Facts {
        let now = SystemTime::now();
        Facts {
            atime: Some(now),
            mtime: Some(now),
            ctime: Some(now),
            ..self
        }
    }

    /// These facts, and where they say nothing, `older` ones.
    pub(super) fn over(self, older: Facts) -> Facts {
        Facts {
            mode: self.mode.or(older.mode),
            uid: self.uid.or(older.uid),
            gid: self.gid.or(older.gid),
            atime: self.atime.or(older.atime),
            mtime: self.mtime.or(older.mtime),
            ctime: Some(self.ctime.unwrap_or_else(SystemTime::now)),
        }
    }
}

impl Default for Told {
    fn default() -> Self {
        Told {
            nodes: Mutex::new(LruCache::new(MOST)),
        }
    }
}

impl Told {
    /// Remembers what was said; what is `None` stays. A time of writing is of the bytes with this checksum.
    pub(super) fn say(&self, node: &Node, facts: Facts, md5: Option<Md5>) {
        self.change(node, |entry| {
            if facts.mtime.is_some() {
                entry.of = md5;
            }
            entry.facts = facts.over(entry.facts);
        });
    }

    /// A name in a folder was made or removed.
    pub(super) fn touch(&self, folder: &Node) {
        let now = Some(SystemTime::now());
        self.say(
            folder,
            Facts {
                mtime: now,
                ctime: now,
                ..Facts::default()
            },
            None,
        );
    }

    /// A file was written.
    pub(super) fn written(&self, node: &Node) {
        let mut nodes = self.nodes.lock();
        if let Some(entry) = nodes.get_mut(node) {
            entry.facts.mode = entry.facts.mode.map(|mode| mode & !SET_ID);
        }
    }

    /// A file has arrived at the server: its time stays the one it was written at, for as long as it has these bytes.
    pub fn arrived(&self, draft: &RecordId, entry: &FileEntry, facts: &staging::Facts) {
        let node = Node::File(Owner::Draft(draft.clone()), Arc::clone(&entry.key));
        self.change(&node, |known| {
            let told = &mut known.facts;
            told.mtime = Some(facts.mtime);
            told.ctime = Some(told.ctime.map_or(facts.ctime, |told| told.max(facts.ctime)));
            known.of = entry.md5;
        });
    }

    /// The thing is gone: another one of its name is another one.
    pub(super) fn forget(&self, node: &Node) {
        self.nodes.lock().pop(node);
    }

    /// The thing has another name.
    pub(super) fn rename(&self, from: &Node, to: &Node) {
        let mut nodes = self.nodes.lock();
        nodes.pop(to);
        let mut entry = nodes.pop(from).unwrap_or_default();
        entry.facts.ctime = Some(SystemTime::now());
        nodes.put(to.clone(), entry);
    }

    /// A folder and all that is in it have another name.
    pub(super) fn rename_folder(&self, draft: &RecordId, from: &str, to: &str) {
        let mut nodes = self.nodes.lock();
        let moved: Vec<(Node, Node)> = nodes
            .iter()
            .filter_map(|(node, _)| Some((node.clone(), node.moved(draft, from, to)?)))
            .collect();
        for (from, to) in moved {
            if let Some(entry) = nodes.pop(&from) {
                nodes.put(to, entry);
            }
        }
        let folder = Node::Folder(Owner::Draft(draft.clone()), to.into());
        let entry = nodes.get_or_insert_mut(folder, Entry::default);
        entry.facts.ctime = Some(SystemTime::now());
    }

    /// What was said of a thing whose bytes the server has under this checksum, if it is a file.
    pub(super) fn of(&self, node: &Node, md5: Option<Md5>) -> Facts {
        let mut nodes = self.nodes.lock();
        let Some(entry) = nodes.get(node) else {
            return Facts::default();
        };
        let mut facts = entry.facts;
        if matches!(node, Node::File(..)) && entry.of != md5 {
            facts.mtime = None;
        }
        facts
    }

    fn change(&self, node: &Node, change: impl FnOnce(&mut Entry)) {
        let mut nodes = self.nodes.lock();
        change(nodes.get_or_insert_mut(node.clone(), Entry::default));
    }
}

impl Attributes {
    /// When it was last read: nobody counts, so when it was last written, unless a program said otherwise.
    #[must_use]
    pub fn atime(&self) -> SystemTime {
        self.told.atime.unwrap_or_else(|| self.mtime())
    }

    /// When it was last written.
    #[must_use]
    pub fn mtime(&self) -> SystemTime {
        self.told.mtime.unwrap_or(self.mtime)
    }

    /// When anything about it last changed.
    #[must_use]
    pub fn ctime(&self) -> SystemTime {
        self.told.ctime.unwrap_or(self.mtime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::model::FileStatus;
    use std::time::{Duration, UNIX_EPOCH};

    fn node(key: &str) -> Node {
        Node::File(Owner::Draft(RecordId::new("abcde-12345").unwrap()), key.into())
    }

    #[test]
    fn the_time_of_a_file_that_arrived_counts_for_its_bytes_only() {
        let told = Told::default();
        let draft = RecordId::new("abcde-12345").unwrap();
        let entry = FileEntry {
            key: "a".into(),
            size: Some(1),
            md5: Some(Md5([1; 16])),
            mimetype: None,
            updated: None,
            status: FileStatus::Completed,
        };
        let time = UNIX_EPOCH + Duration::from_secs(7);
        let facts = staging::Facts {
            size: 1,
            mtime: time,
            ctime: time,
        };
        told.arrived(&draft, &entry, &facts);
        assert_eq!(told.of(&node("a"), entry.md5).mtime, Some(time));
        assert_eq!(told.of(&node("a"), Some(Md5([2; 16]))).mtime, None);
    }

    #[test]
    fn a_renamed_folder_takes_what_was_said_along() {
        let told = Told::default();
        let draft = RecordId::new("abcde-12345").unwrap();
        let mode = |key: &str| told.of(&node(key), None).mode;
        for key in ["a/b", "ab"] {
            let facts = Facts {
                mode: Some(0o640),
                ..Facts::default()
            };
            told.say(&node(key), facts, None);
        }
        told.rename_folder(&draft, "a", "c/d");
        assert_eq!((mode("c/d/b"), mode("a/b")), (Some(0o640), None));
        assert_eq!(mode("ab"), Some(0o640), "only its name begins alike");
    }
}
