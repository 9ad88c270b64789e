//! Handle numbers: what an open file or folder is, by the number the kernel has of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// A table of handles. Numbers are never used twice.
pub(super) struct Handles<T> {
    open: RwLock<HashMap<u64, Arc<T>>>,
    next: AtomicU64,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Handles {
            open: RwLock::default(),
            next: AtomicU64::new(1),
        }
    }
}

impl<T> Handles<T> {
    /// A number for a new handle.
    pub(super) fn insert(&self, handle: Arc<T>) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.write().insert(number, handle);
        number
    }

    /// The handle of a number.
    pub(super) fn get(&self, number: u64) -> Option<Arc<T>> {
        self.open.read().get(&number).cloned()
    }

    /// Takes all handles out of the table.
    pub(super) fn take_all(&self) -> Vec<Arc<T>> {
        self.open.write().drain().map(|(_, handle)| handle).collect()
    }

    /// Takes a handle out of the table.
    pub(super) fn remove(&self, number: u64) -> Option<Arc<T>> {
        self.open.write().remove(&number)
    }
}
