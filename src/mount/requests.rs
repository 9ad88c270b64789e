//! What a request of the kernel says, in the tree's terms: names, modes, who asks and what for.
//!
//! Used by `adapter` alone. It asks the tree nothing.

use std::ffi::OsStr;
use std::time::SystemTime;

use fuser::{Errno, OpenAccMode, OpenFlags, ReplyXattr, Request, TimeOrNow};

use super::answers::Shared;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::tree::{Facts, Intent};

/// Names that are no UTF-8 can't be keys, so nothing is there under them.
pub(super) fn text(name: &OsStr) -> Result<String> {
    name.to_str().map(str::to_owned).ok_or_else(|| {
        Error::new(
            ErrorKind::Refused,
            format!("{} is no UTF-8, as keys must be", name.display()),
        )
    })
}

/// The process of a thread. The kernel tells threads, and one thread may close what another opened.
pub(super) fn process_of(thread: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
        .unwrap_or(thread)
}

/// A time that is to be set.
pub(super) fn moment(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

/// The permission bits of a mode; its type is not ours to keep.
pub(super) fn permissions(mode: u32) -> u16 {
    // The mask makes it fit.
    (mode & 0o7777) as u16
}

/// What is remembered of something that this process makes.
pub(super) fn made_by(req: &Request, mode: u32) -> Facts {
    Facts {
        mode: Some(permissions(mode)),
        uid: Some(req.uid()),
        gid: Some(req.gid()),
        ..Facts::default()
    }
}

/// Answers a question for an extended attribute: with its size, or with as much as the caller has room for.
pub(super) fn xattr(shared: &Shared, answer: Result<Vec<u8>>, room: u32, reply: ReplyXattr) {
    match answer {
        // At most a few KiB.
        Ok(value) if room == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > room as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(shared.errno(&error)),
    }
}

pub(super) fn intent(flags: i32, thread: u32) -> Intent {
    let write = OpenFlags(flags).acc_mode() != OpenAccMode::O_RDONLY;
    Intent {
        write,
        truncate: write && flags & libc::O_TRUNC != 0,
        exclusive: flags & libc::O_EXCL != 0,
        process: if write { process_of(thread) } else { thread },
        told: Facts::default(),
    }
}
