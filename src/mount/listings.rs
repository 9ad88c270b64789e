//! How a listed folder is told to the kernel: names alone, or with their attributes.
//!
//! Used by `adapter` alone. What does not fit into one answer is asked for again, with an offset.

use std::time::{Duration, Instant, SystemTime};

use fuser::{FileAttr, FileType, FopenFlags, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use parking_lot::Mutex;

use super::answers::{GENERATION, Shared, file_type};
use crate::error::Result;
use crate::tree::{Access, Attributes, Facts, Kind, Line, Listing};

/// Tells the names from `offset` on, as many as fit. `lines` begin there, after `.` and `..`.
fn fill(lines: &[Line], folder: INodeNo, offset: u64, reply: &mut ReplyDirectory) {
    for (position, line) in lines_from(lines, offset) {
        let (name, kind) = match line {
            Place::Dot(name) => (name, FileType::Directory),
            Place::Line(line) => (line.name.as_str(), file_type(line.attributes.kind)),
        };
        // The number is for information only; a lookup gives the real one.
        if reply.add(folder, position, kind, name) {
            break;
        }
    }
}

impl Shared {
    /// How the kernel may treat a folder that is opened. It keeps what it was told of a published one. It need not ask
    /// again while the names are the same and the attributes it was told with them count: later it has to, because
    /// asking once for all is so much faster than once for each.
    pub(super) fn folder_flags(&self, ino: u64, listing: &Listing) -> FopenFlags {
        let Some(serial) = listing.serial() else {
            return FopenFlags::empty();
        };
        let told = self.told.lock().get(&ino).copied();
        let is_known = told.is_some_and(|told| told.serial == serial && Instant::now() < told.until);
        if is_known {
            FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
        } else {
            FopenFlags::FOPEN_CACHE_DIR
        }
    }

    /// Answers with names alone.
    pub(super) fn tell_names(&self, folder: &Folder, ino: INodeNo, offset: u64, mut reply: ReplyDirectory) {
        folder.told_names();
        match self.tree.lines_from(&folder.listing, first_line(offset)) {
            Ok(lines) => {
                fill(&lines, ino, offset, &mut reply);
                reply.ok();
            }
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    /// Answers with names and attributes.
    pub(super) fn tell_lines(
        &self,
        folder: &Folder,
        ino: INodeNo,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        match self.fill_with_attributes(folder, ino, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    /// Tells names and attributes from `offset` on, as many as fit. Each that is told counts as looked up.
    fn fill_with_attributes(
        &self,
        folder_listing: &Folder,
        folder: INodeNo,
        offset: u64,
        reply: &mut ReplyDirectoryPlus,
    ) -> Result<()> {
        let listing = &folder_listing.listing;
        if offset == 0 {
            // Taken back until all is told.
            self.told.lock().pop(&folder.0);
            let until = Instant::now() + self.tree.life_of_listing(listing);
            folder_listing.begun(until);
        }
        let lines = self.tree.lines_from(listing, first_line(offset))?;
        for (position, line) in lines_from(&lines, offset) {
            let full = match line {
                // The kernel takes no lookup for these two.
                Place::Dot(name) => {
                    let attr = FileAttr {
                        kind: FileType::Directory,
                        ..self.attr(folder.0, &dot())
                    };
                    reply.add(folder, position, name, &Duration::ZERO, &attr, GENERATION)
                }
                Place::Line(line) => {
                    let found = self.tree.remember_line(line);
                    let (attr, valid) = (self.found(&found), found.attributes.valid);
                    let ino = INodeNo(found.ino);
                    let full = reply.add(ino, position, &line.name, &valid, &attr, GENERATION);
                    if full {
                        self.tree.forget(found.ino, 1);
                    }
                    full
                }
            };
            if full {
                return Ok(());
            }
        }
        if let Some(serial) = listing.serial()
            && let Some(until) = folder_listing.until()
        {
            self.told.lock().put(folder.0, Told { serial, until });
        }
        Ok(())
    }
}

/// An open folder.
pub(super) struct Folder {
    pub(super) listing: Listing,
    /// Until when all attributes that were told count; nothing if some names were told without.
    until: Mutex<Option<Instant>>,
}

/// What the kernel was told of a folder, with all attributes.
#[derive(Clone, Copy)]
pub(super) struct Told {
    serial: u64,
    until: Instant,
}

impl Folder {
    pub(super) fn new(listing: Listing) -> Self {
        Folder {
            listing,
            until: Mutex::default(),
        }
    }

    fn begun(&self, until: Instant) {
        *self.until.lock() = Some(until);
    }

    /// Names are told without their attributes.
    fn told_names(&self) {
        *self.until.lock() = None;
    }

    fn until(&self) -> Option<Instant> {
        *self.until.lock()
    }
}

/// `.` and `..`, then the listing.
enum Place<'a> {
    Dot(&'static str),
    Line(&'a Line),
}

/// The number of the first line after `offset`, which counts `.` and `..` as well.
fn first_line(offset: u64) -> usize {
    usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX)
}

/// The places of a folder after `offset`, each with the offset that comes after it. `lines` begin there.
fn lines_from(lines: &[Line], offset: u64) -> impl Iterator<Item = (u64, Place<'_>)> {
    let dots = usize::try_from(offset).unwrap_or(usize::MAX).min(2);
    [".", ".."]
        .into_iter()
        .skip(dots)
        .map(Place::Dot)
        .chain(lines.iter().map(Place::Line))
        .zip(offset.saturating_add(1)..)
        .map(|(place, position)| (position, place))
}

/// Attributes of no consequence, for `.` and `..`.
fn dot() -> Attributes {
    Attributes {
        kind: Kind::Folder,
        access: Access::Open,
        told: Facts::default(),
        links: 1,
        size: 0,
        mtime: SystemTime::UNIX_EPOCH,
        valid: Duration::ZERO,
    }
}
