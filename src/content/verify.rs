//! The MD5 of a file whose bytes arrive in any order: hashed in order as they pass, and from the disk where they didn't.
//!
//! Owned by one thread at a time (`hashing.rs`, at the end `fill.rs`). It must never hold a lock or know about the network.

use super::blocks::{BLOCK, span_of};
use crate::md5::Hasher;
use crate::repository::model::Md5;

/// A hash of the first `position` bytes of a file.
pub(super) struct OrderedHash {
    md5: Hasher,
    position: u64,
}

impl OrderedHash {
    /// Begins at the first byte.
    pub(super) fn new() -> Self {
        OrderedHash {
            md5: Hasher::new(),
            position: 0,
        }
    }

    /// How many bytes were hashed.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Takes of `bytes` what continues the hash; the rest is left to `catch_up`.
    pub(super) fn feed(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        if offset <= self.position && self.position < end {
            // It is less than the length of a slice.
            let skip = (self.position - offset) as usize;
            self.md5.update(&bytes[skip..]);
            self.position = end;
        }
    }

    /// Hashes up to `most` blocks from the disk until `end` is reached.
    pub(super) fn catch_up<E>(
        &mut self,
        end: u64,
        most: u64,
        mut read: impl FnMut(u64) -> Result<Vec<u8>, E>,
    ) -> Result<(), E> {
        for _ in 0..most {
            if self.position >= end {
                break;
            }
            let block = self.position / BLOCK;
            let bytes = read(block)?;
            let (start, block_end) = span_of(block, end);
            let length = ((block_end - start) as usize).min(bytes.len());
            let before = self.position;
            self.feed(start, &bytes[..length]);
            if self.position == before {
                // A block shorter than its place: the caller's comparison will fail, but this must end.
                break;
            }
        }
        Ok(())
    }

    /// The checksum of what was hashed.
    pub(super) fn finish(self) -> Md5 {
        self.md5.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn file() -> Vec<u8> {
        (0..3 * BLOCK + 77).map(|i| (i % 251) as u8).collect()
    }

    fn plain(bytes: &[u8]) -> Md5 {
        crate::md5::of(bytes)
    }

    fn block_of(file: &[u8], block: u64) -> Vec<u8> {
        let (start, end) = span_of(block, file.len() as u64);
        file[start as usize..end as usize].to_vec()
    }

    #[test]
    fn bytes_in_order_are_hashed_as_they_pass() {
        let file = file();
        let mut hash = OrderedHash::new();
        for (i, piece) in file.chunks(10_007).enumerate() {
            hash.feed(i as u64 * 10_007, piece);
        }
        assert_eq!(hash.position(), file.len() as u64);
        assert_eq!(hash.finish(), plain(&file));
    }

    #[test]
    fn bytes_out_of_order_are_hashed_from_the_disk() {
        let file = file();
        let size = file.len() as u64;
        let mut hash = OrderedHash::new();
        hash.feed(2 * BLOCK, &file[2 * BLOCK as usize..]);
        assert_eq!(hash.position(), 0);
        hash.feed(0, &file[..1000]);
        // What was there already is not hashed twice.
        hash.feed(500, &file[500..1500]);
        assert_eq!(hash.position(), 1500);
        let mut read = Vec::new();
        hash.catch_up(size, u64::MAX, |block| {
            read.push(block);
            Ok::<_, Infallible>(block_of(&file, block))
        })
        .unwrap();
        assert_eq!(read, [0, 1, 2, 3]);
        assert_eq!(hash.finish(), plain(&file));
    }

    #[test]
    fn catching_up_is_bounded_and_stops_at_damage() {
        let file = file();
        let mut hash = OrderedHash::new();
        hash.catch_up(file.len() as u64, 2, |block| {
            Ok::<_, Infallible>(block_of(&file, block))
        })
        .unwrap();
        assert_eq!(hash.position(), 2 * BLOCK);
        assert_eq!(hash.catch_up(file.len() as u64, 9, Err::<Vec<u8>, _>), Err(2));
        assert_eq!(hash.position(), 2 * BLOCK);
        hash.catch_up(file.len() as u64, u64::MAX, |_| Ok::<_, Infallible>(Vec::new()))
            .unwrap();
    }
}
