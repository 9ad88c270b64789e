//! ZIP archives as what is in them: the directory, and the bytes of one member, read here and there through ranges.
//!
//! `tree/` opens a [`Directory`] and members over a [`Source`], which is a reader of `content/` (or, in tests, bytes).
//! Everything in an archive is a stranger's: no number in it is allocated or waited for, every read is bounded, and a
//! member's last byte is handed out only after its CRC-32 was compared. Nothing here knows nodes, the kernel or HTTP.
//! Calls on a source wait for the network, so no lock is held over them.
//!
//! | file | what |
//! |---|---|
//! | `directory` | finds and reads the central directory |
//! | `entry` | one entry of it: names, times, sizes |
//! | `member` | an open member: whose read is next, and what it gets |
//! | `inflate` | a deflated member as it comes, and points in it to begin again from |
//! | `seen` | the CRC-32 of a stored member that is read in any order |

mod directory;
mod entry;
mod inflate;
mod member;
mod seen;

#[cfg(test)]
mod damaged;
#[cfg(test)]
mod sample;

use std::sync::mpsc;

pub use directory::{Directory, MOST_MEMBERS, TAIL};
pub use entry::{Member, Method};
pub use member::{Memory, OpenMember, Reply, Shared};

use crate::content;
use crate::error::{Error, Kind, Result};

/// The bytes of an archive.
pub trait Source: Send + Sync {
    /// How many there are.
    fn size(&self) -> u64;

    /// Exactly these bytes. Waits for them.
    ///
    /// # Errors
    /// Why they don't come; `Corrupt` past the end.
    fn read_at(&self, offset: u64, length: u32) -> Result<Vec<u8>>;

    /// Nothing from `end` on will be asked for.
    fn stop_at(&self, end: u64);

    /// These bytes turned out wrong.
    fn doubt(&self, offset: u64, end: u64);
}

impl Source for content::Reader {
    fn size(&self) -> u64 {
        self.content().size()
    }

    fn read_at(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
        let (tell, told) = mpsc::channel();
        let reply = Box::new(move |answer| {
            // The receiver waits below.
            let _ = tell.send(answer);
        });
        self.read(offset, length, reply);
        // Bounded: every read is answered, with an error if it waits too long or the mount ends.
        let bytes = told
            .recv()
            .unwrap_or_else(|_| Err(Error::new(Kind::Internal, "a read was forgotten")))?;
        if bytes.len() != length as usize {
            return Err(damaged("the archive ends in the middle of what it should hold"));
        }
        Ok(bytes)
    }

    fn stop_at(&self, end: u64) {
        content::Reader::stop_at(self, end);
    }

    fn doubt(&self, offset: u64, end: u64) {
        self.content().doubt(offset, end);
    }
}

/// An archive that doesn't hold what it says.
fn damaged(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::Corrupt, what).with_advice(
        "The file in files/ is as published; if it came whole, the archive was damaged before that: tell its authors.",
    )
}

/// Little-endian numbers.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
impl Source for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
        assert!(length <= 1 << 20, "a read of {length} bytes");
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = self.get(start..start.saturating_add(length as usize));
        part.map(<[u8]>::to_vec).ok_or_else(|| damaged("past the end"))
    }

    fn stop_at(&self, _end: u64) {}

    fn doubt(&self, _offset: u64, _end: u64) {}
}
