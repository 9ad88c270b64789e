//! How many of the threads that read from the kernel may do something by themselves at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// A door that lets only so many in, and one of them to write.
pub(super) struct Inline {
    most: usize,
    inside: AtomicUsize,
    writing: Mutex<()>,
}

/// Who is inside, until it is dropped.
pub(super) struct Entered<'a>(&'a Inline);

/// Who is inside to write.
pub(super) struct Writes<'a> {
    _only: MutexGuard<'a, ()>,
    _entered: Entered<'a>,
}

impl Inline {
    /// For so many threads at most.
    pub(super) fn new(most: usize) -> Self {
        Inline {
            most,
            inside: AtomicUsize::new(0),
            writing: Mutex::default(),
        }
    }

    /// Goes in to write, if there is room and nobody else does. Never waits.
    pub(super) fn enter_to_write(&self) -> Option<Writes<'_>> {
        let entered = self.enter()?;
        Some(Writes {
            _only: self.writing.try_lock()?,
            _entered: entered,
        })
    }

    /// Goes in, if there is room. Never waits.
    pub(super) fn enter(&self) -> Option<Entered<'_>> {
        let entered = self
            .inside
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |inside| {
                (inside < self.most).then_some(inside + 1)
            });
        entered.ok().map(|_| Entered(self))
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_is_always_left() {
        let inline = Inline::new(2);
        let first = inline.enter();
        let second = inline.enter();
        assert!(first.is_some() && second.is_some() && inline.enter().is_none());
        drop(first);
        assert!(inline.enter().is_some());
    }

    #[test]
    fn one_at_a_time_writes() {
        let inline = Inline::new(3);
        let writes = inline.enter_to_write();
        assert!(writes.is_some() && inline.enter_to_write().is_none());
        assert!(inline.enter().is_some());
        drop(writes);
        assert!(inline.enter_to_write().is_some());
    }
}
