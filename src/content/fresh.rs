//! Blocks that came a moment ago, as they came: the thread that hashes takes them from memory and not from the disk. Where
//! nothing is kept, they are nowhere else: they go to the disk only when there is no room for them here.
//!
//! Filled by `fill.rs`, emptied by `hashing.rs` and by `evict.rs`, under the content's lock. Bounded for all files together.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::blocks::BLOCK;

/// The part of the memory for what is fetched ahead that these may take. A block may keep alive what came with it, and
/// so take more than its length.
const PART: u64 = 3;

/// How far ahead of the hash a block may be to be kept for it: about what a third of the usual memory holds.
const NEAR: u64 = 160;

/// Room for blocks of all files.
#[derive(Debug)]
pub(super) struct Room {
    most: u64,
    taken: AtomicU64,
}

impl Room {
    /// A part of so much memory.
    pub(super) fn of(memory: u64) -> Arc<Self> {
        Arc::new(Room {
            most: memory / PART,
            taken: AtomicU64::new(0),
        })
    }

    /// How many bytes of it are taken.
    #[cfg(test)]
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// For one block, if there is any left.
    pub(super) fn take(self: &Arc<Self>) -> Option<Held> {
        let taken = self.taken.fetch_add(BLOCK, Ordering::Relaxed);
        let held = Held(Arc::clone(self));
        (taken + BLOCK <= self.most).then_some(held)
    }
}

/// Room for one block, until it is dropped.
#[derive(Debug)]
pub(super) struct Held(Arc<Room>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(BLOCK, Ordering::Relaxed);
    }
}

/// The bytes of a block, in order.
#[derive(Debug)]
pub(super) struct Pieces {
    /// Which.
    pub(super) block: u64,
    /// Its bytes.
    pub(super) pieces: Vec<Bytes>,
    /// The CRC of a whole block.
    pub(super) crc: u32,
    _held: Option<Held>,
}

impl Pieces {
    /// A whole block.
    pub(super) fn new(block: u64, pieces: Vec<Bytes>, crc: u32, held: Held) -> Arc<Self> {
        Arc::new(Pieces {
            block,
            pieces,
            crc,
            _held: Some(held),
        })
    }

    /// The first bytes of a block, of which the rest is still to come.
    pub(super) fn begun(block: u64, pieces: Vec<Bytes>) -> Arc<Self> {
        Arc::new(Pieces {
            block,
            pieces,
            crc: 0,
            _held: None,
        })
    }

    /// Where each begins in the file.
    pub(super) fn each(&self, mut with: impl FnMut(u64, &[u8])) {
        let mut offset = self.block * BLOCK;
        for piece in &self.pieces {
            with(offset, piece);
            offset += piece.len() as u64;
        }
    }

    /// Appends those of its bytes that are between these places in the file.
    pub(super) fn append_to(&self, bytes: &mut Vec<u8>, from: u64, to: u64) {
        self.each(|offset, piece| {
            // Both are within the piece.
            let place = |at: u64| at.clamp(offset, offset + piece.len() as u64) - offset;
            bytes.extend_from_slice(&piece[place(from) as usize..place(to) as usize]);
        });
    }
}

#[derive(Debug)]
struct Entry {
    pieces: Arc<Pieces>,
    /// They are nowhere else.
    is_sole: bool,
}

/// The blocks of one file that are in memory.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    blocks: BTreeMap<u64, Entry>,
}

impl Fresh {
    /// Whether a block is worth keeping for the hash, which is there.
    pub(super) fn is_near(block: u64, hashed: u64) -> bool {
        (hashed..hashed + NEAR).contains(&block)
    }

    /// The block is there; if it is the sole copy, it stays until it is removed, else until it was taken.
    pub(super) fn put(&mut self, pieces: Arc<Pieces>, is_sole: bool) {
        self.blocks.insert(pieces.block, Entry { pieces, is_sole });
    }

    /// Takes the blocks that continue with `next`; of those before it only sole copies stay.
    pub(super) fn take(&mut self, next: u64, most: u64) -> Vec<Arc<Pieces>> {
        let mut taken = Vec::new();
        self.blocks.retain(|block, entry| {
            if *block == next + taken.len() as u64 && (taken.len() as u64) < most {
                taken.push(Arc::clone(&entry.pieces));
            }
            entry.is_sole || *block >= next + taken.len() as u64
        });
        taken
    }

    /// The first block from `next` on.
    pub(super) fn first(&self, next: u64) -> Option<u64> {
        self.blocks.range(next..).next().map(|(block, _)| *block)
    }

    /// The block, if this is its sole copy.
    pub(super) fn sole(&self, block: u64) -> Option<&Arc<Pieces>> {
        let entry = self.blocks.get(&block)?;
        entry.is_sole.then_some(&entry.pieces)
    }

    /// The sole copies among these blocks.
    pub(super) fn soles(&self, blocks: Range<u64>) -> Vec<Arc<Pieces>> {
        let soles = self.blocks.range(blocks).filter(|(_, entry)| entry.is_sole);
        soles.map(|(_, entry)| Arc::clone(&entry.pieces)).collect()
    }

    /// Whether there are any.
    pub(super) fn has_soles(&self) -> bool {
        self.blocks.values().any(|entry| entry.is_sole)
    }

    /// The block is on disk too from now on.
    pub(super) fn is_written(&mut self, block: u64) {
        if let Some(entry) = self.blocks.get_mut(&block) {
            entry.is_sole = false;
        }
    }

    /// The block is of no use any more. Tells whether this was its sole copy.
    pub(super) fn remove(&mut self, block: u64) -> bool {
        self.blocks.remove(&block).is_some_and(|entry| entry.is_sole)
    }

    /// Nobody hashes: only sole copies stay.
    pub(super) fn clear_copies(&mut self) {
        self.blocks.retain(|_, entry| entry.is_sole);
    }

    /// Keeps nothing.
    pub(super) fn clear(&mut self) {
        self.blocks.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u64, room: &Arc<Room>) -> Option<Arc<Pieces>> {
        let pieces = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"cde")];
        Some(Pieces::new(number, pieces, 7, room.take()?))
    }

    fn numbers(taken: &[Arc<Pieces>]) -> Vec<u64> {
        taken.iter().map(|pieces| pieces.block).collect()
    }

    #[test]
    fn what_the_hash_takes_is_in_order_and_only_sole_copies_stay() {
        let (mut fresh, room) = (Fresh::default(), Room::of(u64::MAX));
        for (number, is_sole) in [(0, false), (1, true), (2, false), (4, false), (5, true)] {
            fresh.put(block(number, &room).unwrap(), is_sole);
        }
        assert_eq!(numbers(&fresh.take(1, 1)), [1]);
        assert_eq!(fresh.first(0), Some(1), "what was passed is forgotten");
        assert_eq!(numbers(&fresh.take(2, 9)), [2]);
        assert!(fresh.take(3, 9).is_empty());
        assert_eq!(fresh.first(3), Some(4));
        assert_eq!(numbers(&fresh.take(4, 9)), [4, 5]);
        assert_eq!(numbers(&fresh.soles(0..9)), [1, 5]);
        assert!(fresh.sole(1).is_some() && fresh.sole(4).is_none());
        fresh.is_written(1);
        assert!(!fresh.remove(1) && fresh.remove(5) && !fresh.remove(5));
        drop(fresh);
        assert_eq!(room.taken(), 0);
    }

    #[test]
    fn a_part_of_a_block_is_what_lies_between_two_places() {
        let pieces = block(3, &Room::of(u64::MAX)).unwrap();
        let begin = 3 * BLOCK;
        for (from, to, expected) in [
            (0, u64::MAX, "abcde"),
            (begin + 1, begin + 3, "bc"),
            (begin + 4, begin + 9, "e"),
        ] {
            let mut bytes = Vec::new();
            pieces.append_to(&mut bytes, from, to);
            assert_eq!(bytes, expected.as_bytes());
        }
    }

    #[test]
    fn what_is_kept_is_bounded_for_all_files() {
        let room = Room::of(PART * 20 * BLOCK);
        let mut files: Vec<Fresh> = (0..3).map(|_| Fresh::default()).collect();
        for number in 0..100 {
            for file in &mut files {
                if let Some(pieces) = block(number, &room) {
                    file.put(pieces, number % 2 == 0);
                }
            }
        }
        assert_eq!(files.iter().map(|file| file.blocks.len()).sum::<usize>(), 20);
        files.iter_mut().for_each(Fresh::clear_copies);
        assert!(
            files
                .iter()
                .all(|file| file.soles(0..100).len() == file.blocks.len())
        );
        files.iter_mut().for_each(Fresh::clear);
        assert_eq!(room.taken(), 0);
        assert!(Room::of(0).take().is_none(), "without memory nothing is kept");
    }
}
