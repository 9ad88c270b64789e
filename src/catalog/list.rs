//! The files of a record or draft, in the server's order.
//!
//! A list never changes: who changes it has another one, which shares all but a piece with it. So each of thousands of
//! uploads to a draft costs a piece, and not the list. Made by `catalog/`, read by `tree/`.

use std::iter::FusedIterator;
use std::sync::Arc;

use crate::repository::model::FileEntry;

/// The files of a record or draft.
#[derive(Clone, Debug, Default)]
pub struct FileList {
    pieces: Vec<Arc<Vec<FileEntry>>>,
}

/// Entries in a piece: as many as are as fast to copy as the list of pieces of a large list.
const PIECE: usize = 128;

impl FileList {
    /// The entries.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &FileEntry> + FusedIterator {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The list with this entry at its end, and no other of its key.
    #[must_use]
    pub fn with(&self, entry: &FileEntry) -> FileList {
        let mut list = self.without(&entry.key);
        match list.pieces.last_mut() {
            Some(last) if last.len() < PIECE => Arc::make_mut(last).push(entry.clone()),
            _ => list.pieces.push(Arc::new(vec![entry.clone()])),
        }
        list
    }

    /// The list without the entries of this key.
    #[must_use]
    pub fn without(&self, key: &str) -> FileList {
        let mut list = self.clone();
        for piece in &mut list.pieces {
            if piece.iter().any(|entry| *entry.key == *key) {
                Arc::make_mut(piece).retain(|entry| *entry.key != *key);
            }
        }
        list.pieces.retain(|piece| !piece.is_empty());
        list
    }

    /// What follows the pieces that two lists begin with alike.
    pub fn differing<'a>(
        &'a self,
        other: &'a FileList,
    ) -> (
        impl Iterator<Item = &'a FileEntry>,
        impl Iterator<Item = &'a FileEntry>,
    ) {
        let alike = self
            .pieces
            .iter()
            .zip(&other.pieces)
            .take_while(|(one, other)| Arc::ptr_eq(one, other))
            .count();
        let rest = |list: &'a FileList| list.pieces[alike..].iter().flat_map(|piece| piece.iter());
        (rest(self), rest(other))
    }
}

impl From<Vec<FileEntry>> for FileList {
    fn from(entries: Vec<FileEntry>) -> Self {
        entries.into_iter().collect()
    }
}

impl FromIterator<FileEntry> for FileList {
    fn from_iter<I: IntoIterator<Item = FileEntry>>(entries: I) -> Self {
        let mut entries = entries.into_iter().peekable();
        let mut pieces = Vec::new();
        while entries.peek().is_some() {
            let mut piece: Vec<FileEntry> = entries.by_ref().take(PIECE).collect();
            piece.shrink_to_fit();
            pieces.push(Arc::new(piece));
        }
        FileList { pieces }
    }
}

impl PartialEq for FileList {
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = self.differing(other);
        one.eq(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::model::FileStatus;

    fn entry(key: usize, size: u64) -> FileEntry {
        FileEntry {
            key: key.to_string().into(),
            size: Some(size),
            md5: None,
            mimetype: None,
            updated: None,
            status: FileStatus::Completed,
        }
    }

    fn list(keys: std::ops::Range<usize>) -> FileList {
        keys.map(|key| entry(key, 1)).collect()
    }

    #[test]
    fn a_changed_list_says_what_a_new_one_would() {
        let mut model: Vec<FileEntry> = Vec::new();
        let mut changed = FileList::default();
        for step in 0..3000_usize {
            let key = step * 7 % 500;
            model.retain(|known| known.key != entry(key, 0).key);
            if step % 3 == 0 {
                changed = changed.without(&key.to_string());
            } else {
                model.push(entry(key, step as u64));
                changed = changed.with(&entry(key, step as u64));
            }
            assert_eq!(changed.len(), model.len());
        }
        assert!(changed.iter().eq(model.iter()));
        assert_eq!(changed, FileList::from(model.clone()));
        assert!(changed.iter().rev().eq(model.iter().rev()));
        let empty = model.iter().fold(changed, |list, entry| list.without(&entry.key));
        assert!(empty.is_empty());
    }

    #[test]
    fn one_more_in_a_large_list_copies_a_piece_of_it() {
        let before = list(0..10_000);
        let after = before.with(&entry(10_000, 1));
        let (gone, come) = before.differing(&after);
        assert!(gone.count() <= PIECE && come.count() <= PIECE + 1);
        let after = after.without("5000");
        let shared = before
            .pieces
            .iter()
            .zip(&after.pieces)
            .filter(|(one, other)| Arc::ptr_eq(one, other))
            .count();
        assert!(shared >= before.pieces.len() - 2, "{shared}");
    }
}
