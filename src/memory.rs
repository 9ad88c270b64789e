//! Gives memory back to the system after much of it was freed.
//!
//! The C library keeps what is freed between what is not, and a set of its own for each of many threads: a walk through
//! half a million files would leave the daemon large for ever. So whoever lets go of much says so, and a thread of its own
//! has the library give it back, seldom enough not to be felt. Used by all floors; called only with numbers.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

/// What was freed since it was last given back.
static FREED: AtomicUsize = AtomicUsize::new(0);
/// Who gives it back; nothing if it can't be started.
static GIVER: OnceLock<Option<Thread>> = OnceLock::new();

/// Less than this is kept for what comes next.
const WORTH_IT: usize = 16 << 20;
/// Time for what is being freed with it, and between two times.
const PAUSE: Duration = Duration::from_millis(500);

/// Threads share a few sets of memory instead of having many.
pub fn tune() {
    // SAFETY: the call takes two plain numbers, and is made before there are threads that could be in malloc.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 4)
    };
}

/// About so many bytes were freed, or are about to be. Never blocks.
pub fn freed(bytes: usize) {
    let before = FREED.fetch_add(bytes, Ordering::Relaxed);
    if before < WORTH_IT && before + bytes >= WORTH_IT {
        let giver = GIVER.get_or_init(|| {
            let builder = std::thread::Builder::new().name("memory".to_owned());
            builder
                .stack_size(64 << 10)
                .spawn(give)
                .map(|handle| handle.thread().clone())
                .ok()
        });
        if let Some(giver) = giver {
            giver.unpark();
        }
    }
}

fn give() {
    loop {
        if FREED.load(Ordering::Relaxed) < WORTH_IT {
            std::thread::park();
            continue;
        }
        std::thread::sleep(PAUSE);
        FREED.store(0, Ordering::Relaxed);
        // SAFETY: the call takes a plain number and may be made at any time.
        #[cfg(target_env = "gnu")]
        unsafe {
            libc::malloc_trim(0)
        };
    }
}
