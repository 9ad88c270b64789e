//! Inode numbers: which node a number means while the kernel remembers it.
//!
//! A number is given at the first lookup and never again for anything else; it is dropped when the kernel forgets
//! it. So memory follows what the kernel holds, not what was ever seen. Used by `tree/` alone.

use std::collections::HashMap;

use super::node::{Node, Orphan};

/// The number of the mount point, fixed by the protocol.
pub const ROOT: u64 = 1;

/// What a number means.
#[derive(Clone)]
pub enum Meaning {
    /// A place in the tree.
    Here(Node),
    /// A file that was unlinked, still open somewhere.
    Gone(Box<Orphan>),
}

/// The table of numbers.
pub struct Inodes {
    by_number: HashMap<u64, Slot>,
    by_node: HashMap<Node, u64>,
    next: u64,
}

struct Slot {
    meaning: Meaning,
    lookups: u64,
}

impl Inodes {
    /// A table that knows the mount point.
    #[must_use]
    pub fn new() -> Self {
        let root = Slot {
            meaning: Meaning::Here(Node::Root),
            lookups: 1,
        };
        Inodes {
            by_number: HashMap::from([(ROOT, root)]),
            by_node: HashMap::from([(Node::Root, ROOT)]),
            next: ROOT + 1,
        }
    }

    /// The number of a node, counted as one lookup that the kernel will forget some day.
    pub fn remember(&mut self, node: &Node) -> u64 {
        if let Some(&number) = self.by_node.get(node) {
            if let Some(slot) = self.by_number.get_mut(&number) {
                slot.lookups += 1;
            }
            return number;
        }
        let number = self.next;
        self.next += 1;
        self.by_number.insert(
            number,
            Slot {
                meaning: Meaning::Here(node.clone()),
                lookups: 1,
            },
        );
        self.by_node.insert(node.clone(), number);
        number
    }

    /// What a number means.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<Meaning> {
        self.by_number.get(&number).map(|slot| slot.meaning.clone())
    }

    /// The kernel forgot `lookups` of a number.
    pub fn forget(&mut self, number: u64, lookups: u64) {
        if number == ROOT {
            return;
        }
        let Some(slot) = self.by_number.get_mut(&number) else {
            return;
        };
        slot.lookups = slot.lookups.saturating_sub(lookups);
        if slot.lookups == 0 {
            if let Meaning::Here(node) = &slot.meaning
                && self.by_node.get(node) == Some(&number)
            {
                self.by_node.remove(node);
            }
            self.by_number.remove(&number);
        }
    }

    /// A file was unlinked: its number lives on without a place, and a new file of the name gets a new one.
    pub fn orphan(&mut self, node: &Node, orphan: Orphan) {
        if let Some(number) = self.by_node.remove(node)
            && let Some(slot) = self.by_number.get_mut(&number)
        {
            slot.meaning = Meaning::Gone(Box::new(orphan));
        }
    }

    /// What is known of an unlinked file has changed.
    pub fn set_orphan(&mut self, number: u64, orphan: Orphan) {
        if let Some(slot) = self.by_number.get_mut(&number)
            && matches!(slot.meaning, Meaning::Gone(_))
        {
            slot.meaning = Meaning::Gone(Box::new(orphan));
        }
    }

    /// A node has another name: its number goes along. What had that name before was orphaned or detached.
    pub fn rename(&mut self, from: &Node, to: Node) {
        let Some(number) = self.by_node.remove(from) else {
            return;
        };
        if let Some(slot) = self.by_number.get_mut(&number) {
            slot.meaning = Meaning::Here(to.clone());
        }
        self.by_node.insert(to, number);
    }

    /// The nodes that the kernel remembers.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.by_node.keys()
    }

    /// A folder was removed: one made in its place gets a new number, because the kernel calls the old one dead.
    pub fn detach(&mut self, node: &Node) {
        self.by_node.remove(node);
    }

    /// How many numbers the kernel holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_number.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::{Access, Attributes, Kind};
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_number_lives_as_long_as_the_kernel_remembers_it() {
        let mut inodes = Inodes::new();
        let number = inodes.remember(&Node::Records);
        assert_eq!(inodes.remember(&Node::Records), number);
        inodes.forget(number, 1);
        assert!(inodes.get(number).is_some());
        inodes.forget(number, 1);
        assert!(inodes.get(number).is_none());
        assert_eq!(inodes.len(), 1);
        assert_ne!(
            inodes.remember(&Node::Records),
            number,
            "numbers are never used again"
        );
    }

    #[test]
    fn the_root_is_never_forgotten() {
        let mut inodes = Inodes::new();
        inodes.forget(ROOT, u64::MAX);
        assert!(inodes.get(ROOT).is_some());
    }

    #[test]
    fn an_unlinked_file_keeps_its_number_and_its_name_gets_a_new_one() {
        let mut inodes = Inodes::new();
        let old = inodes.remember(&Node::Status);
        let attributes = Attributes {
            kind: Kind::File,
            access: Access::Writable,
            told: Default::default(),
            links: 1,
            size: 0,
            mtime: UNIX_EPOCH,
            valid: Duration::ZERO,
        };
        inodes.orphan(
            &Node::Status,
            Orphan {
                staged: None,
                attributes,
            },
        );
        let new = inodes.remember(&Node::Status);
        assert_ne!(old, new);
        assert!(matches!(inodes.get(old), Some(Meaning::Gone(_))));
        inodes.forget(old, 1);
        assert_eq!(inodes.remember(&Node::Status), new);
    }
}
