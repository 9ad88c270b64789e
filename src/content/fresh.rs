//! Blocks that came a moment ago, as they came: the thread that hashes takes them from memory and not from the disk.
//!
//! Filled by `fill.rs` and emptied by `hashing.rs`, under the content's lock. Bounded for each file and for all of them: what
//! has no room, or comes out of order, is read back from the disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::blocks::BLOCK;

/// Most blocks of one file.
const MOST: usize = 16;

/// Most bytes of all files; less if there is little memory for what is fetched ahead.
const MOST_OF_ALL: u64 = 16 * 1024 * 1024;

/// How far the hash may be behind the first block that is kept. What is farther away comes over another connection.
const NEAR: u64 = 16;

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
            most: (memory / 8).min(MOST_OF_ALL),
            taken: AtomicU64::new(0),
        })
    }

    fn take(self: &Arc<Self>) -> Option<Held> {
        let taken = self.taken.fetch_add(BLOCK, Ordering::Relaxed);
        let held = Held(Arc::clone(self));
        (taken + BLOCK <= self.most).then_some(held)
    }
}

/// Room for one block, until it is dropped.
#[derive(Debug)]
struct Held(Arc<Room>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(BLOCK, Ordering::Relaxed);
    }
}

/// The bytes of a block, in order.
#[derive(Debug)]
pub(super) struct Pieces {
    block: u64,
    pieces: Vec<Bytes>,
    _held: Held,
}

impl Pieces {
    /// More of them.
    pub(super) fn push(&mut self, piece: Bytes) {
        self.pieces.push(piece);
    }

    /// Where each begins in the file.
    pub(super) fn each(&self, mut with: impl FnMut(u64, &[u8])) {
        let mut offset = self.block * BLOCK;
        for piece in &self.pieces {
            with(offset, piece);
            offset += piece.len() as u64;
        }
    }
}

/// The blocks of one file, one after the other.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    blocks: VecDeque<Pieces>,
}

impl Fresh {
    /// For collecting the bytes of a block that begins to come, if it is worth it: it continues those that are here, or what
    /// was hashed.
    pub(super) fn collect(&self, block: u64, hashed: u64, room: &Arc<Room>) -> Option<Pieces> {
        let fits = match self.blocks.back() {
            Some(last) => last.block + 1 == block,
            None => (hashed..hashed + NEAR).contains(&block),
        };
        if !fits || self.blocks.len() >= MOST {
            return None;
        }
        Some(Pieces {
            block,
            pieces: Vec::new(),
            _held: room.take()?,
        })
    }

    /// The block is there.
    pub(super) fn push(&mut self, pieces: Pieces) {
        // Another may have come first since it began.
        if self
            .blocks
            .back()
            .is_none_or(|last| last.block + 1 == pieces.block)
        {
            self.blocks.push_back(pieces);
        }
    }

    /// Takes the blocks that continue with `next`; those before it are of no use any more.
    pub(super) fn take(&mut self, next: u64, most: u64) -> Vec<Pieces> {
        let passed = self
            .blocks
            .iter()
            .take_while(|pieces| pieces.block < next)
            .count();
        drop(self.blocks.drain(..passed));
        if self.first() != Some(next) {
            return Vec::new();
        }
        let count = self.blocks.len().min(most as usize);
        self.blocks.drain(..count).collect()
    }

    /// The first block.
    pub(super) fn first(&self) -> Option<u64> {
        self.blocks.front().map(|pieces| pieces.block)
    }

    /// Keeps nothing.
    pub(super) fn clear(&mut self) {
        self.blocks.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(fresh: &mut Fresh, block: u64, room: &Arc<Room>) -> bool {
        let pieces = fresh.collect(block, 0, room);
        let is_kept = pieces.is_some();
        if let Some(mut pieces) = pieces {
            pieces.push(Bytes::from_static(b"ab"));
            pieces.push(Bytes::from_static(b"c"));
            fresh.push(pieces);
        }
        is_kept
    }

    #[test]
    fn blocks_in_order_are_kept_and_taken_in_order() {
        let (mut fresh, room) = (Fresh::default(), Room::of(u64::MAX));
        assert!(!collected(&mut fresh, NEAR, &room), "too far ahead of the hash");
        assert!(collected(&mut fresh, 1, &room));
        assert!(collected(&mut fresh, 2, &room));
        assert!(!collected(&mut fresh, 4, &room), "a gap");
        assert!(fresh.take(0, 9).is_empty(), "the first is not here");
        let taken = fresh.take(1, 1);
        let mut seen = Vec::new();
        taken[0].each(|offset, bytes| seen.push((offset, bytes.to_vec())));
        assert_eq!(seen, [(BLOCK, b"ab".to_vec()), (BLOCK + 2, b"c".to_vec())]);
        assert!(collected(&mut fresh, 3, &room));
        assert_eq!(fresh.take(3, 9).len(), 1, "what was passed is forgotten");
        assert_eq!(fresh.first(), None);
    }

    #[test]
    fn what_is_kept_is_bounded_for_one_file_and_for_all() {
        let room = Room::of(8 * 20 * BLOCK);
        let mut files: Vec<Fresh> = (0..3).map(|_| Fresh::default()).collect();
        let mut kept = 0;
        for block in 0..100 {
            for file in &mut files {
                kept += usize::from(collected(file, block, &room));
            }
        }
        assert_eq!(kept, 20);
        drop(files);
        let mut one = Fresh::default();
        assert_eq!(
            (0..100)
                .filter(|block| collected(&mut one, *block, &room))
                .count(),
            MOST
        );
        one.clear();
        assert_eq!(room.taken.load(Ordering::Relaxed), 0);
        assert!(
            !collected(&mut one, 0, &Room::of(0)),
            "without memory nothing is kept"
        );
    }
}
