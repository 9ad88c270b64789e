//! Inode numbers: which node a number means while the kernel remembers it.
//!
//! A number is given at the first lookup and never again for anything else; it is dropped when the kernel forgets
//! it. So memory follows what the kernel holds, not what was ever seen. Used by `tree/` alone.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::node::{Node, Orphan};
use crate::memory;

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

/// The table of numbers. The kernel may hold half a million of them, so each takes little: its meaning, once, in the chunk
/// of its neighbours, and 9 bytes in the table by which it is found.
pub struct Inodes {
    chunks: HashMap<u64, Chunk>,
    /// The numbers of places, by the hash of the place.
    by_node: HashTable<u64>,
    hasher: RandomState,
    next: u64,
    count: usize,
}

/// Numbers that were given one after the other. It goes with the last of them.
#[derive(Default)]
struct Chunk {
    slots: Vec<Option<Slot>>,
    used: usize,
}

struct Slot {
    meaning: Meaning,
    lookups: u64,
}

/// Numbers in a chunk: few, because one that the kernel goes on holding keeps the place of all.
const CHUNK: u64 = 32;
/// What a number takes, with its name.
const WEIGHT: usize = 120;
/// Tables of this many places are not worth making smaller.
const SMALL: usize = 4096;

impl Slot {
    fn node(&self) -> Option<&Node> {
        match &self.meaning {
            Meaning::Here(node) => Some(node),
            Meaning::Gone(_) => None,
        }
    }
}

impl Inodes {
    /// A table that knows the mount point.
    #[must_use]
    pub fn new() -> Self {
        let mut inodes = Inodes {
            chunks: HashMap::new(),
            by_node: HashTable::new(),
            hasher: RandomState::new(),
            next: ROOT,
            count: 0,
        };
        inodes.remember(&Node::Root);
        inodes
    }

    /// The number of a node, counted as one lookup that the kernel will forget some day.
    pub fn remember(&mut self, node: &Node) -> u64 {
        if let Some(number) = self.number_of(node) {
            if let Some(slot) = self.slot_mut(number) {
                slot.lookups += 1;
            }
            return number;
        }
        let number = self.next;
        self.next += 1;
        let chunk = self.chunks.entry(number / CHUNK).or_default();
        let place = (number % CHUNK) as usize;
        if chunk.slots.is_empty() {
            chunk.slots.reserve_exact(CHUNK as usize);
        }
        // Numbers are given in order, so that only the first chunk begins with places that nobody has.
        chunk.slots.resize_with(place, || None);
        chunk.slots.push(Some(Slot {
            meaning: Meaning::Here(node.clone()),
            lookups: 1,
        }));
        chunk.used += 1;
        self.count += 1;
        self.link(number);
        number
    }

    /// What a number means.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<Meaning> {
        self.slot(number).map(|slot| slot.meaning.clone())
    }

    /// The kernel forgot `lookups` of a number.
    pub fn forget(&mut self, number: u64, lookups: u64) {
        if number == ROOT {
            return;
        }
        let Some(slot) = self.slot_mut(number) else {
            return;
        };
        slot.lookups = slot.lookups.saturating_sub(lookups);
        if slot.lookups > 0 {
            return;
        }
        self.unlink(number);
        let id = number / CHUNK;
        if let Some(chunk) = self.chunks.get_mut(&id) {
            chunk.slots[(number % CHUNK) as usize] = None;
            chunk.used -= 1;
            // The last one may still get new numbers.
            if chunk.used == 0 && id != self.next / CHUNK {
                self.chunks.remove(&id);
            }
        }
        self.count -= 1;
        memory::freed(WEIGHT);
        self.shrink();
    }

    /// A file was unlinked: its number lives on without a place, and a new file of the name gets a new one.
    pub fn orphan(&mut self, node: &Node, orphan: Orphan) {
        if let Some(number) = self.number_of(node) {
            self.unlink(number);
            if let Some(slot) = self.slot_mut(number) {
                slot.meaning = Meaning::Gone(Box::new(orphan));
            }
        }
    }

    /// What is known of an unlinked file has changed.
    pub fn set_orphan(&mut self, number: u64, orphan: Orphan) {
        if let Some(slot) = self.slot_mut(number)
            && matches!(slot.meaning, Meaning::Gone(_))
        {
            slot.meaning = Meaning::Gone(Box::new(orphan));
        }
    }

    /// A node has another name: its number goes along. What had that name before was orphaned or detached.
    pub fn rename(&mut self, from: &Node, to: Node) {
        let Some(number) = self.number_of(from) else {
            return;
        };
        if let Some(other) = self.number_of(&to) {
            self.unlink(other);
        }
        self.unlink(number);
        if let Some(slot) = self.slot_mut(number) {
            slot.meaning = Meaning::Here(to);
        }
        self.link(number);
    }

    /// The nodes that the kernel remembers.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.by_node
            .iter()
            .filter_map(|number| self.slot(*number)?.node())
    }

    /// A folder was removed: one made in its place gets a new number, because the kernel calls the old one dead.
    pub fn detach(&mut self, node: &Node) {
        if let Some(number) = self.number_of(node) {
            self.unlink(number);
        }
    }

    /// The number of a place, if the kernel remembers it.
    #[must_use]
    pub fn number(&self, node: &Node) -> Option<u64> {
        self.number_of(node)
    }

    /// How many numbers the kernel holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    fn number_of(&self, node: &Node) -> Option<u64> {
        let hash = self.hasher.hash_one(node);
        let is_it = |number: &u64| self.slot(*number).and_then(Slot::node) == Some(node);
        self.by_node.find(hash, is_it).copied()
    }

    fn slot(&self, number: u64) -> Option<&Slot> {
        let chunk = self.chunks.get(&(number / CHUNK))?;
        chunk.slots.get((number % CHUNK) as usize)?.as_ref()
    }

    fn slot_mut(&mut self, number: u64) -> Option<&mut Slot> {
        let chunk = self.chunks.get_mut(&(number / CHUNK))?;
        chunk.slots.get_mut((number % CHUNK) as usize)?.as_mut()
    }

    /// A number is found by the place that it means now.
    fn link(&mut self, number: u64) {
        let Inodes {
            chunks,
            by_node,
            hasher,
            ..
        } = self;
        if let Some(hash) = hash_in(chunks, hasher, number) {
            // All numbers in the table mean a place.
            by_node.insert_unique(hash, number, |other| {
                hash_in(chunks, hasher, *other).unwrap_or_default()
            });
        }
    }

    /// A number is not found by its place any more.
    fn unlink(&mut self, number: u64) {
        if let Some(hash) = hash_in(&self.chunks, &self.hasher, number)
            && let Ok(entry) = self.by_node.find_entry(hash, |other| *other == number)
        {
            entry.remove();
        }
    }

    /// Gives room back that is not needed any more.
    fn shrink(&mut self) {
        let Inodes {
            chunks,
            by_node,
            hasher,
            ..
        } = self;
        if by_node.capacity() > SMALL && by_node.len() < by_node.capacity() / 8 {
            by_node.shrink_to(by_node.len() * 2, |other| {
                hash_in(chunks, hasher, *other).unwrap_or_default()
            });
        }
        if chunks.capacity() > SMALL && chunks.len() < chunks.capacity() / 8 {
            chunks.shrink_to(chunks.len() * 2);
        }
    }
}

/// The hash of the place that a number means.
fn hash_in(chunks: &HashMap<u64, Chunk>, hasher: &RandomState, number: u64) -> Option<u64> {
    let slot = chunks
        .get(&(number / CHUNK))?
        .slots
        .get((number % CHUNK) as usize)?;
    Some(hasher.hash_one(slot.as_ref()?.node()?))
}

#[cfg(test)]
mod tests {
    use super::super::node::{Access, Attributes, Kind};
    use super::*;
    use crate::repository::model::RecordId;
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
    fn what_the_kernel_has_forgotten_takes_no_room() {
        let mut inodes = Inodes::new();
        let node = |number: u64| Node::Rejected(RecordId::new(&number.to_string()).unwrap());
        let numbers: Vec<u64> = (0..50_000).map(|number| inodes.remember(&node(number))).collect();
        assert_eq!(inodes.len(), 50_001);
        assert_eq!(inodes.nodes().count(), 50_001);
        // All but a few here and there.
        for number in numbers.iter().filter(|number| **number % 5_000 != 0) {
            inodes.forget(*number, 1);
        }
        assert_eq!(inodes.len(), 11);
        assert!(inodes.chunks.len() <= 12, "{}", inodes.chunks.len());
        assert!(inodes.by_node.capacity() <= SMALL && inodes.chunks.capacity() <= SMALL);
        let kept = numbers.iter().position(|number| number % 5_000 == 0).unwrap();
        assert_eq!(
            inodes.remember(&node(kept as u64)),
            numbers[kept],
            "it is the same"
        );
        assert!(inodes.remember(&node(0)) > numbers[49_999], "and this a new one");
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
