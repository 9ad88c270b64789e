//! Files that the kernel reads by itself, from the cache's own (FUSE passthrough), and whose pages it keeps.
//!
//! Used by `adapter`. All opens of one inode have to be of one kind while any of them is open: the kernel answers a mixture
//! with EIO. So the first one decides, and what is lent stays lent until the last is released. Only files of records are
//! lent: those of drafts can be opened for writing at any time. No lock is held while file data are read.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{BackingId, FopenFlags, INodeNo, ReplyOpen};
use lru::LruCache;
use parking_lot::Mutex;

use super::afterwards::Lanes;
use super::answers::Shared;
use crate::content::{Content, HandedOut, Reader};
use crate::error::{Error, Kind, Result};
use crate::repository::model::{Md5, Owner};
use crate::tree::{Handle, Opened};

/// Of so many inodes it is known which bytes the kernel has pages of.
const MOST_PAGES: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// A cached file that the kernel has.
pub(super) struct Lent {
    // In this order: the kernel gives it back before the cache may drop it.
    id: BackingId,
    _given: HandedOut,
}

/// How the opens of an inode are served.
enum Way {
    /// By reads that come here.
    Here,
    /// By the kernel.
    Kernel(Arc<Lent>),
}

/// A stored file that programs have open.
struct Open {
    handles: usize,
    content: Arc<Content>,
    md5: Option<Md5>,
    way: Way,
}

/// The stored files that programs have open, by inode.
pub(super) struct Backing {
    /// Whether the kernel takes files, as far as is known.
    able: AtomicBool,
    open: Mutex<HashMap<u64, Open>>,
    /// Which bytes the kernel's pages are of. Its lock is held with no other.
    pages: Mutex<LruCache<u64, Md5>>,
}

impl Default for Backing {
    fn default() -> Self {
        Backing {
            able: AtomicBool::new(false),
            open: Mutex::default(),
            pages: Mutex::new(LruCache::new(MOST_PAGES)),
        }
    }
}

impl Backing {
    /// The kernel has agreed to take files. Whether it takes them from this process shows with the first one.
    pub(super) fn enable(&self) {
        self.able.store(true, Ordering::Relaxed);
    }

    /// One more open of an inode: what of the kernel is to read, if it is not to ask.
    ///
    /// # Errors
    /// `Changed` if other bytes are open under this number; `Corrupt` if the kernel has a file that was changed on the disk
    /// and can't be mended.
    fn open(
        &self,
        ino: u64,
        reader: &Reader,
        (is_record, md5): (bool, Option<Md5>),
        lend: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> Result<Option<Arc<Lent>>> {
        let content = reader.content();
        let offered = self.offer(ino, content, is_record);
        let lent = {
            let mut table = self.open.lock();
            let open = match table.entry(ino) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(Open {
                    handles: 0,
                    content: Arc::clone(content),
                    md5,
                    way: self.first_way(offered, lend),
                }),
            };
            if is_record && open.md5.is_some() && md5.is_some() && open.md5 != md5 {
                let what = "the record has another file under this name, while this one is still open";
                return Err(Error::new(Kind::Changed, what));
            }
            open.handles += 1;
            match &open.way {
                Way::Here => return Ok(None),
                Way::Kernel(lent) => Arc::clone(lent),
            }
        };
        // Nobody compares what the kernel reads: so it is not offered more of what was changed.
        let right = content.is_still_right() || {
            let mended = reader.fetch_all();
            mended.is_ok() && content.is_still_right()
        };
        if right {
            return Ok(Some(lent));
        }
        self.close(ino);
        Err(Error::new(
            Kind::Corrupt,
            "the copy in the cache was changed while it is open",
        )
        .with_advice("Close it in all programs, then it is fetched again."))
    }

    /// A file to lend, if this is to be the first open. May compare a small one.
    fn offer(&self, ino: u64, content: &Arc<Content>, is_record: bool) -> Option<HandedOut> {
        let is_able = is_record && self.able.load(Ordering::Relaxed);
        if !is_able || self.open.lock().contains_key(&ino) {
            return None;
        }
        content.hand_out()
    }

    fn first_way(
        &self,
        offered: Option<HandedOut>,
        lend: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> Way {
        let Some(given) = offered else {
            return Way::Here;
        };
        match lend(given.file()) {
            Ok(id) => Way::Kernel(Arc::new(Lent { id, _given: given })),
            Err(error) => {
                // Not allowed, or not from this disk: neither will change. All else is of this file.
                let is_final = matches!(
                    error.raw_os_error(),
                    Some(libc::EPERM | libc::ELOOP | libc::EOPNOTSUPP | libc::ENOTTY | libc::ENOSYS)
                );
                if is_final && self.able.swap(false, Ordering::Relaxed) {
                    log::info!("the kernel takes no files from this mount: {error}");
                }
                Way::Here
            }
        }
    }

    /// One open less.
    fn close(&self, ino: u64) {
        let mut table = self.open.lock();
        let Entry::Occupied(mut entry) = table.entry(ino) else {
            return;
        };
        entry.get_mut().handles -= 1;
        let last = (entry.get().handles == 0).then(|| entry.remove());
        // Giving back takes other locks.
        drop(table);
        drop(last);
    }

    /// Whether the pages that the kernel may have of an inode are of these bytes. They are from now on.
    fn keeps_pages(&self, ino: u64, md5: Option<Md5>) -> bool {
        let mut pages = self.pages.lock();
        let before = match md5 {
            Some(md5) => pages.put(ino, md5),
            None => pages.pop(&ino),
        };
        before.is_some() && before == md5
    }

    /// The inodes under which a content is open.
    fn inodes_of(&self, content: &Content) -> Vec<u64> {
        let table = self.open.lock();
        table
            .iter()
            .filter(|(_, open)| std::ptr::eq(&raw const *open.content, content))
            .map(|(ino, _)| *ino)
            .collect()
    }
}

impl Shared {
    /// Answers an open.
    pub(super) fn answer_open(&self, ino: u64, opened: Opened, reply: ReplyOpen) {
        let Handle::Stored { reader, place, md5 } = &*opened.handle else {
            let (fh, flags) = self.opened(opened);
            return reply.opened(fh, flags);
        };
        let (is_record, md5) = (matches!(place.owner, Owner::Record(_)), *md5);
        let way = self
            .backing
            .open(ino, reader, (is_record, md5), |file| reply.open_backing(file));
        match way {
            Ok(Some(lent)) => {
                let (fh, _) = self.opened(opened);
                reply.opened_passthrough(fh, FopenFlags::empty(), &lent.id);
            }
            Ok(None) => {
                let same = self.backing.keeps_pages(ino, md5);
                let keep_cache = opened.keep_cache && same;
                let (fh, flags) = self.opened(Opened { keep_cache, ..opened });
                reply.opened(fh, flags);
            }
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    /// A handle is released.
    pub(super) fn released(&self, ino: u64, handle: Arc<Handle>) -> Result<()> {
        let is_stored = matches!(*handle, Handle::Stored { .. });
        let released = self.tree.release(&handle);
        drop(handle);
        if is_stored {
            self.backing.close(ino);
        }
        released
    }

    /// Hears when wrong bytes were served: the kernel must not go on serving them from its pages.
    pub(super) fn listen(self: &Arc<Self>, lanes: &Arc<Lanes>) {
        let (shared, lanes) = (Arc::downgrade(self), Arc::downgrade(lanes));
        self.tree.content().on_wrong(move |content| {
            let (Some(shared), Some(lanes)) = (shared.upgrade(), lanes.upgrade()) else {
                return;
            };
            let inodes = shared.backing.inodes_of(content);
            // The kernel waits for reads that are under way, which may wait for the thread that calls this.
            lanes.closing.run(move || shared.drop_pages(&inodes));
        });
        let shared = Arc::downgrade(self);
        // Told by who writes to `.rdmfs/control`, on a lane: no folder that is named here waits for that.
        self.tree.on_stale(move |stale| {
            let Some(shared) = shared.upgrade() else { return };
            {
                let mut told = shared.told.lock();
                for ino in &stale.inodes {
                    told.pop(ino);
                }
            }
            shared.drop_pages(&stale.inodes);
            for (folder, name) in &stale.names {
                shared.forget_name(*folder, name);
            }
        });
    }

    fn drop_pages(&self, inodes: &[u64]) {
        for ino in inodes {
            self.backing.pages.lock().pop(ino);
            if let Some(notifier) = self.notifier.get()
                && let Err(error) = notifier.inval_inode(INodeNo(*ino), 0, 0)
            {
                log::debug!("the kernel keeps its pages of inode {ino}: {error}");
            }
        }
    }
}
