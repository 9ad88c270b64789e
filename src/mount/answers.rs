//! How an answer of the tree looks in FUSE's terms: attributes, flags, errnos, lines of listings.
//!
//! Used by `adapter` alone. It asks the tree nothing.

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, Notifier, ReplyEmpty, ReplyEntry,
};
use lru::LruCache;
use parking_lot::Mutex;

use super::backing::Backing;
use super::handles::Handles;
use super::listings::{Folder, Told};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::tree::{Access, Attributes, Found, Handle, Kind, Opened, Tree};

/// Numbers are never used twice, so all are of the first generation.
pub(super) const GENERATION: Generation = Generation(0);
/// The unit of `st_blocks`, fixed by POSIX.
const BLOCK: u64 = 512;
/// What programs that size their buffers by stat(2) should read at once.
const PREFERRED_READ: u32 = 128 << 10;

/// What all calls need: the tree, and what the kernel's numbers mean.
pub(super) struct Shared {
    pub(super) tree: Arc<Tree>,
    pub(super) files: Handles<Handle>,
    pub(super) folders: Handles<Folder>,
    /// Published folders of which the kernel was told everything, by their numbers.
    pub(super) told: Mutex<LruCache<u64, Told>>,
    pub(super) backing: Backing,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// To tell the kernel what it must not rely on any more. Set as soon as there is a session.
    pub(super) notifier: OnceLock<Notifier>,
}

/// As many folders are remembered as known to the kernel.
const TOLD: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

impl Shared {
    pub(super) fn new(tree: Arc<Tree>) -> Self {
        Shared {
            tree,
            files: Handles::default(),
            folders: Handles::default(),
            told: Mutex::new(LruCache::new(TOLD)),
            backing: Backing::default(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            notifier: OnceLock::new(),
        }
    }

    pub(super) fn attr(&self, ino: u64, attributes: &Attributes) -> FileAttr {
        let (kind, perm) = match (attributes.kind, attributes.access) {
            (Kind::Folder, Access::Open) => (FileType::Directory, 0o555),
            (Kind::Folder, Access::Private) => (FileType::Directory, 0o500),
            (Kind::Folder, Access::Writable) => (FileType::Directory, 0o700),
            (Kind::File, Access::Open) => (FileType::RegularFile, 0o444),
            (Kind::File, Access::Private) => (FileType::RegularFile, 0o400),
            (Kind::File, Access::Writable) => (FileType::RegularFile, 0o600),
            (Kind::Link, _) => (FileType::Symlink, 0o777),
        };
        FileAttr {
            ino: INodeNo(ino),
            size: attributes.size,
            blocks: attributes.size.div_ceil(BLOCK),
            atime: attributes.atime(),
            mtime: attributes.mtime(),
            ctime: attributes.ctime(),
            crtime: attributes.mtime(),
            kind,
            perm: attributes.told.mode.unwrap_or(perm),
            nlink: attributes.links,
            uid: attributes.told.uid.unwrap_or(self.uid),
            gid: attributes.told.gid.unwrap_or(self.gid),
            rdev: 0,
            blksize: PREFERRED_READ,
            flags: 0,
        }
    }

    pub(super) fn found(&self, found: &Found) -> FileAttr {
        self.attr(found.ino, &found.attributes)
    }

    /// The errno of an error; what a user may want to read about is posted.
    pub(super) fn errno(&self, error: &Error) -> Errno {
        if !matches!(
            error.kind(),
            ErrorKind::Call(_) | ErrorKind::NotFound | ErrorKind::Published
        ) {
            self.tree.board().post(error);
        }
        Errno::from_i32(error.errno())
    }

    pub(super) fn file(&self, fh: FileHandle) -> Result<Arc<Handle>> {
        self.files.get(fh.0).ok_or_else(|| Error::call(libc::EBADF))
    }

    pub(super) fn folder(&self, fh: FileHandle) -> Result<Arc<Folder>> {
        self.folders.get(fh.0).ok_or_else(|| Error::call(libc::EBADF))
    }

    pub(super) fn opened(&self, opened: Opened) -> (FileHandle, FopenFlags) {
        let mut flags = FopenFlags::empty();
        if opened.keep_cache {
            flags |= FopenFlags::FOPEN_KEEP_CACHE;
        }
        if opened.direct {
            flags |= FopenFlags::FOPEN_DIRECT_IO;
        }
        (FileHandle(self.files.insert(opened.handle)), flags)
    }

    /// A name may mean something else than the kernel thinks. Not while the kernel waits for an answer about it.
    pub(super) fn forget_name(&self, parent: u64, name: &str) {
        if let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_entry(INodeNo(parent), OsStr::new(name))
        {
            log::debug!("the kernel goes on relying on {name}: {error}");
        }
    }

    pub(super) fn entry(&self, answer: Result<Found>, reply: ReplyEntry) {
        match answer {
            Ok(found) => reply.entry(&found.attributes.valid, &self.found(&found), GENERATION),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    pub(super) fn empty(&self, answer: Result<()>, reply: ReplyEmpty) {
        match answer {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.errno(&error)),
        }
    }
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Folder => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Link => FileType::Symlink,
    }
}

/// Inode number 0 says "nothing here" and lets the kernel remember it for the given time.
pub(super) fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}
