//! `fuser::Filesystem`: each call goes to a lane, from there to the tree, and its answer back to the kernel.
//!
//! Nothing is decided here but how a call and an answer look in FUSE's terms. The threads that come in wait for no
//! network: they copy what they need and hand it on, but for what the local disk answers at once (`inline`).

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, KernelConfig, LockOwner,
    Notifier, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::afterwards::{Afterwards, Lanes};
use super::answers::{GENERATION, Shared, absent};
use super::inline::Inline;
use super::kernel;
use super::listings::Folder;
use super::reads::Read;
use super::requests::{intent, made_by, moment, permissions, process_of, text, xattr};
use crate::error::Result;
use crate::staging::Position;
use crate::tree::{Facts, Handle, Intent, LabelMode, Lookup, Tree};

/// The adapter between the kernel and a tree.
pub(super) struct Adapter {
    shared: Arc<Shared>,
    lanes: Arc<Lanes>,
    /// Entered by the threads that do something by themselves.
    inline: Inline,
    /// Whether to let the kernel read cached files by itself.
    passthrough: bool,
}

impl Adapter {
    pub(super) fn new(tree: Arc<Tree>, passthrough: bool) -> Self {
        let shared = Arc::new(Shared::new(tree));
        let lanes = Arc::<Lanes>::default();
        shared.listen(&lanes);
        Adapter {
            shared,
            lanes,
            inline: Inline::new(kernel::READERS - 1),
            passthrough,
        }
    }

    /// Where the kernel can be told what it must not rely on any more.
    pub(super) fn hears(&self) -> impl FnOnce(Notifier) + use<> {
        let shared = Arc::clone(&self.shared);
        move |notifier| drop(shared.notifier.set(notifier))
    }

    /// What is left to do afterwards.
    pub(super) fn afterwards(&self) -> Afterwards {
        Afterwards {
            shared: Arc::clone(&self.shared),
            lanes: Arc::clone(&self.lanes),
        }
    }

    fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        kernel::negotiate(config);
        if self.passthrough && kernel::offer_files(config) {
            self.shared.backing.enable();
        }
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let Ok(name) = text(name) else {
            return reply.error(Errno::ENOENT);
        };
        let shared = self.shared();
        self.lanes
            .metadata
            .run(move || match shared.tree.lookup(parent.0, &name) {
                Ok(Lookup::Found(found)) => shared.entry(Ok(found), reply),
                Ok(Lookup::Absent(valid)) => reply.entry(&valid, &absent(), GENERATION),
                Err(error) => reply.error(shared.errno(&error)),
            });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.shared.tree.forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let shared = self.shared();
        self.lanes
            .metadata
            .run(move || match shared.tree.attributes(ino.0) {
                Ok(attributes) => reply.attr(&attributes.valid, &shared.attr(ino.0, &attributes)),
                Err(error) => reply.error(shared.errno(&error)),
            });
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let shared = self.shared();
        let facts = Facts {
            mode: mode.map(permissions),
            uid,
            gid,
            atime: atime.map(moment),
            // A change of size sets it by itself.
            mtime: mtime.filter(|_| size.is_none()).map(moment),
            ctime: None,
        };
        self.lanes.metadata.run(move || {
            let changed = size.map_or(Ok(()), |size| shared.tree.resize(ino.0, size));
            let changed = changed.and_then(|()| shared.tree.set_facts(ino.0, facts));
            match changed {
                Ok(attributes) => reply.attr(&attributes.valid, &shared.attr(ino.0, &attributes)),
                Err(error) => reply.error(shared.errno(&error)),
            }
        });
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let shared = self.shared();
        self.lanes
            .metadata
            .run(move || match shared.tree.link_target(ino.0) {
                Ok(target) => reply.data(target.as_bytes()),
                Err(error) => reply.error(shared.errno(&error)),
            });
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let shared = self.shared();
        let name = text(name);
        let told = made_by(req, mode & !umask);
        self.lanes.metadata.run(move || {
            let made = name.and_then(|name| shared.tree.make_folder(parent.0, &name, told));
            shared.entry(made, reply);
        });
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let shared = self.shared();
        let name = text(name);
        // May wait until a running upload of the file has stopped.
        self.lanes.closing.run(move || {
            let removed = name.and_then(|name| shared.tree.unlink(parent.0, &name));
            shared.empty(removed, reply);
        });
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let shared = self.shared();
        let name = text(name);
        self.lanes.metadata.run(move || {
            let removed = name.and_then(|name| shared.tree.remove_folder(parent.0, &name));
            shared.empty(removed, reply);
        });
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        // Exchanging two files would be two uploads, in none of which the other may be missing.
        if flags.intersects(!RenameFlags::RENAME_NOREPLACE) {
            return reply.error(Errno::EINVAL);
        }
        let shared = self.shared();
        let names = text(name).and_then(|name| Ok((name, text(newname)?)));
        let only_new = flags.contains(RenameFlags::RENAME_NOREPLACE);
        // May fetch a file and wait for its upload.
        self.lanes.closing.run(move || {
            let (name, newname) = match names {
                Ok(names) => names,
                Err(error) => return reply.error(shared.errno(&error)),
            };
            let moved = match shared
                .tree
                .rename((parent.0, &name), (newparent.0, &newname), only_new)
            {
                Ok(moved) => moved,
                Err(error) => return reply.error(shared.errno(&error)),
            };
            let arrived = shared.tree.wait_for(&moved);
            let is_refused = arrived.is_err();
            shared.empty(arrived, reply);
            if is_refused {
                // It has its new name all the same. Only then: a name that is forgotten comes back with another number.
                shared.forget_name(parent.0, &name);
                shared.forget_name(newparent.0, &newname);
            }
        });
    }

    /// Regular files are made as by open(2); a repository knows no others.
    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        if mode & libc::S_IFMT != libc::S_IFREG {
            return reply.error(Errno::EPERM);
        }
        let shared = self.shared();
        let name = text(name);
        let intent = Intent {
            write: true,
            truncate: false,
            exclusive: true,
            process: process_of(req.pid()),
            told: made_by(req, mode & !umask),
        };
        self.lanes.metadata.run(move || {
            let made = name.and_then(|name| {
                let (found, opened) = shared.tree.create(parent.0, &name, intent)?;
                shared.tree.release(&opened.handle)?;
                Ok(found)
            });
            shared.entry(made, reply);
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let shared = self.shared();
        let intent = intent(flags.0, req.pid());
        // Opening to write may first fetch what is there.
        let lane = if intent.write {
            &self.lanes.closing
        } else {
            &self.lanes.metadata
        };
        lane.run(move || match shared.tree.open(ino.0, intent) {
            Ok(opened) => shared.answer_open(ino.0, opened, reply),
            Err(error) => reply.error(shared.errno(&error)),
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let shared = self.shared();
        let name = text(name);
        // A new file is for writing, whatever the flags say.
        let intent = Intent {
            write: true,
            truncate: flags & libc::O_TRUNC != 0,
            exclusive: flags & libc::O_EXCL != 0,
            process: process_of(req.pid()),
            told: made_by(req, mode & !umask),
        };
        self.lanes.metadata.run(move || {
            match name.and_then(|name| shared.tree.create(parent.0, &name, intent)) {
                Ok((found, opened)) => {
                    let attr = shared.found(&found);
                    let (fh, flags) = shared.opened(opened);
                    reply.created(&found.attributes.valid, &attr, GENERATION, fh, flags);
                }
                Err(error) => reply.error(shared.errno(&error)),
            }
        });
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let handle = match self.shared.file(fh) {
            Ok(handle) => handle,
            Err(error) => return reply.error(self.shared.errno(&error)),
        };
        let read = Read {
            shared: self.shared(),
            lanes: Arc::clone(&self.lanes),
            ino: ino.0,
            handle,
            offset,
            size,
        };
        read.answer(&self.inline, reply);
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let shared = self.shared();
        // The kernel's idea of the end may be old, so an appending write goes where the end is. Pages of a mapped file
        // that are written back belong where they were mapped.
        let appends = flags.0 & libc::O_APPEND != 0 && !write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let position = if appends {
            Position::End
        } else {
            Position::At(offset)
        };
        let handle = match shared.file(fh) {
            Ok(handle) => handle,
            Err(error) => return reply.error(shared.errno(&error)),
        };
        let answer = move |shared: &Shared, written: Result<()>, length: usize| match written {
            // It came as a u32.
            Ok(()) => reply.written(u32::try_from(length).unwrap_or(u32::MAX)),
            Err(error) => reply.error(shared.errno(&error)),
        };
        // One of the readers at a time may write by itself, which saves handing on and copying what is most of the time
        // a copy to the page cache. Should the disk keep it waiting, the other readers go on.
        if let Some(_writes) = self.inline.enter_to_write()
            && let Some(written) = shared.tree.write_quickly(ino.0, &handle, position, data)
        {
            return answer(&shared, written, data.len());
        }
        // The buffer belongs to the thread that reads from the kernel; at most `kernel::LARGEST_WRITE`.
        let bytes = data.to_vec();
        self.lanes.staged.run(move || {
            let written = shared.tree.write(ino.0, &handle, position, &bytes);
            answer(&shared, written, bytes.len());
        });
    }

    fn flush(&self, req: &Request, _ino: INodeNo, fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        let shared = self.shared();
        let handle = match shared.file(fh) {
            Ok(handle) => handle,
            Err(error) => return reply.error(shared.errno(&error)),
        };
        // Closing what was only read costs nothing and doesn't queue behind uploads.
        if !matches!(*handle, Handle::Staged { writer: Some(_), .. }) {
            return reply.ok();
        }
        // Asked now: the process may be gone when the lane comes to it.
        let process = process_of(req.pid());
        self.lanes
            .closing
            .run(move || shared.empty(shared.tree.flush(&handle, process), reply));
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let shared = self.shared();
        self.lanes.closing.run(move || {
            let released = shared
                .files
                .remove(fh.0)
                .map_or(Ok(()), |handle| shared.released(ino.0, handle));
            shared.empty(released, reply);
        });
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let shared = self.shared();
        self.lanes.closing.run(move || {
            let synced = shared.file(fh).and_then(|handle| shared.tree.sync(&handle));
            shared.empty(synced, reply);
        });
    }

    /// A draft has no links, as tools find out by this errno.
    fn symlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, _target: &Path, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    /// As for [`Filesystem::symlink`].
    fn link(&self, _req: &Request, _ino: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    /// Not here: then the kernel copies by itself, and doesn't ask again.
    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let shared = self.shared();
        self.lanes.staged.run(move || {
            let done = shared
                .file(fh)
                .and_then(|handle| shared.tree.allocate(&handle, offset, length, mode));
            shared.empty(done, reply);
        });
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let shared = self.shared();
        let Some(name) = name.to_str().filter(|name| name.starts_with("user.")) else {
            // Asked for before writes and by each `ls -l`: answered at once, and in a way that has ls not ask again for
            // each file.
            return reply.error(Errno::EOPNOTSUPP);
        };
        let name = name.to_owned();
        self.lanes
            .metadata
            .run(move || xattr(&shared, shared.tree.label(ino.0, &name), size, reply));
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let shared = self.shared();
        self.lanes.metadata.run(move || {
            let names = shared.tree.label_names(ino.0).map(|names| {
                names
                    .into_iter()
                    .flat_map(|name| [name.into_bytes(), vec![0]].concat())
                    .collect()
            });
            xattr(&shared, names, size, reply);
        });
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let shared = self.shared();
        let (name, value) = (text(name), value.to_vec());
        let mode = match flags {
            libc::XATTR_CREATE => LabelMode::New,
            libc::XATTR_REPLACE => LabelMode::Known,
            _ => LabelMode::Any,
        };
        self.lanes.metadata.run(move || {
            let set = name.and_then(|name| shared.tree.set_label(ino.0, &name, &value, mode));
            shared.empty(set, reply);
        });
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let shared = self.shared();
        let name = text(name);
        self.lanes.metadata.run(move || {
            let removed = name.and_then(|name| shared.tree.remove_label(ino.0, &name));
            shared.empty(removed, reply);
        });
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let shared = self.shared();
        self.lanes.metadata.run(move || match shared.tree.list(ino.0) {
            Ok(listing) => {
                let flags = shared.folder_flags(ino.0, &listing);
                let fh = FileHandle(shared.folders.insert(Arc::new(Folder::new(listing))));
                reply.opened(fh, flags);
            }
            Err(error) => reply.error(shared.errno(&error)),
        });
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        let shared = self.shared();
        let folder = match shared.folder(fh) {
            Ok(folder) => folder,
            Err(error) => return reply.error(shared.errno(&error)),
        };
        // Long lists take a while to be made, and some are asked for as they are read.
        self.lanes
            .metadata
            .run(move || shared.tell_names(&folder, ino, offset, reply));
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let shared = self.shared();
        let folder = match shared.folder(fh) {
            Ok(folder) => folder,
            Err(error) => return reply.error(shared.errno(&error)),
        };
        self.lanes
            .metadata
            .run(move || shared.tell_lines(&folder, ino, offset, reply));
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.shared.folders.remove(fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let shared = self.shared();
        self.lanes.metadata.run(move || match shared.tree.room() {
            Ok((total, free)) => {
                // Bytes in blocks of 4 KiB; numbers of files are not limited by us.
                let (total, free) = (total / 4096, free / 4096);
                reply.statfs(total, free, free, 0, 0, 4096, 255, 4096);
            }
            Err(error) => reply.error(shared.errno(&error)),
        });
    }
}
