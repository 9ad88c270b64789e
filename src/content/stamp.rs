//! What tells that a data file was not touched: inode, size and times, together with the boot they were seen in.
//!
//! `blocks.rs` keeps one in the map of a verified copy, and `whole.rs` compares it. No program can set a file's ctime, so
//! a write that puts the mtime back is seen too. A stamp says nothing about bytes that the disk loses by itself, and none
//! holds over a restart of the machine: what a power failure left is compared block by block.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

/// The bytes of a stamp in a map, its CRC among them.
pub(super) const LENGTH: usize = 36;

/// File systems that keep whole seconds can't tell two writes in one second apart. Younger stamps than this are none then.
const COARSE: Duration = Duration::from_secs(3);

/// A data file as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    size: u64,
    /// Nanoseconds since 1970.
    mtime: i64,
    /// As above.
    ctime: i64,
}

impl Stamp {
    /// The file as it is now.
    pub(super) fn of(file: &File) -> io::Result<Stamp> {
        let meta = file.metadata()?;
        // Enough until 2262.
        let nanoseconds = |seconds: i64, rest: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(rest);
        Ok(Stamp {
            inode: meta.ino(),
            size: meta.size(),
            mtime: nanoseconds(meta.mtime(), meta.mtime_nsec()),
            ctime: nanoseconds(meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// Whether a change from now on makes it another stamp.
    fn is_telling(&self, now: SystemTime) -> bool {
        if self.ctime % 1_000_000_000 != 0 {
            return true;
        }
        let then = SystemTime::UNIX_EPOCH + Duration::from_nanos(self.ctime.unsigned_abs());
        now.duration_since(then).is_ok_and(|age| age >= COARSE)
    }

    /// For the map, which knows the size. Zeros, which are no stamp, if it would not tell a change.
    pub(super) fn to_bytes(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        let (Some(boot), true) = (*BOOT, self.is_telling(SystemTime::now())) else {
            return bytes;
        };
        bytes[..8].copy_from_slice(&self.inode.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.mtime.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.ctime.to_le_bytes());
        bytes[24..32].copy_from_slice(&boot.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..32]);
        bytes[32..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Whether these bytes of a map are of this stamp, and of this boot.
    pub(super) fn is_in(self, bytes: &[u8; LENGTH]) -> bool {
        BOOT.is_some() && self.to_bytes() == *bytes && bytes.iter().any(|byte| *byte != 0)
    }
}

/// Which run of the kernel this is.
static BOOT: LazyLock<Option<u64>> = LazyLock::new(|| {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).ok()
});

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_write_is_told_also_when_its_time_is_put_back() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let before = Stamp::of(&file).unwrap();
        let times = file.metadata().unwrap().modified().unwrap();
        assert!(before.is_in(&before.to_bytes()));
        // Clocks of older kernels move in steps of some milliseconds.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            file.write_all_at(b"x", 1).unwrap();
            file.set_modified(times).unwrap();
            let after = Stamp::of(&file).unwrap();
            assert_eq!((after.mtime, after.size), (before.mtime, before.size));
            if after != before {
                assert!(!after.is_in(&before.to_bytes()));
                return;
            }
            assert!(std::time::Instant::now() < deadline);
        }
    }

    #[test]
    fn whole_seconds_tell_nothing_while_they_are_young() {
        let stamp = Stamp {
            inode: 1,
            size: 2,
            mtime: 0,
            ctime: 5_000_000_000,
        };
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(!stamp.is_telling(at(4)) && !stamp.is_telling(at(5)) && stamp.is_telling(at(9)));
        assert!(
            Stamp {
                ctime: 5_000_000_001,
                ..stamp
            }
            .is_telling(at(5))
        );
    }

    #[test]
    fn a_stamp_of_another_boot_is_none() {
        let stamp = Stamp::of(&tempfile::tempfile().unwrap()).unwrap();
        let mut bytes = stamp.to_bytes();
        assert!(stamp.is_in(&bytes));
        bytes[24] ^= 1;
        let crc = crc32fast::hash(&bytes[..32]);
        bytes[32..].copy_from_slice(&crc.to_le_bytes());
        assert!(!stamp.is_in(&bytes));
    }

    #[test]
    fn zeros_are_no_stamp() {
        let stamp = Stamp::of(&tempfile::tempfile().unwrap()).unwrap();
        assert!(!stamp.is_in(&[0; LENGTH]));
    }
}
