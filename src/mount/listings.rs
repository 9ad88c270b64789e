//! How a listed folder is told to the kernel: names alone, or with their attributes.
//!
//! Used by `adapter` alone. What does not fit into one answer is asked for again, with an offset.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::answers::{GENERATION, Shared, file_type};
use crate::tree::{Access, Attributes, Facts, Kind, Listing};

/// Tells the names from `offset` on, as many as fit.
pub(super) fn fill(listing: &Listing, folder: INodeNo, offset: u64, reply: &mut ReplyDirectory) {
    for (position, line) in lines_from(listing, offset) {
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
    /// Tells names and attributes from `offset` on, as many as fit. Each that is told counts as looked up.
    pub(super) fn fill_with_attributes(
        &self,
        listing: &Listing,
        folder: INodeNo,
        offset: u64,
        reply: &mut ReplyDirectoryPlus,
    ) {
        for (position, line) in lines_from(listing, offset) {
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
                break;
            }
        }
    }
}

/// `.` and `..`, then the listing.
enum Place<'a> {
    Dot(&'static str),
    Line(&'a crate::tree::Line),
}

/// The places of a folder after `offset`, each with the offset that comes after it.
fn lines_from(listing: &Listing, offset: u64) -> impl Iterator<Item = (u64, Place<'_>)> {
    [".", ".."]
        .into_iter()
        .map(Place::Dot)
        .chain(listing.lines.iter().map(Place::Line))
        .zip(1u64..)
        .map(|(place, position)| (position, place))
        .skip(usize::try_from(offset).unwrap_or(usize::MAX))
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
