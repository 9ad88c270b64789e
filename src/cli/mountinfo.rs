//! What is mounted, from `/proc/self/mountinfo`.
//!
//! Reading it asks no file system anything, so it works beside mounts that hang or whose daemon died.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::cli::mountpoint;
use crate::error::{Error, Kind, Result};

/// The type our mounts have there.
pub const OUR_TYPE: &str = "fuse.rdmfs";

/// One line of mountinfo, as far as we look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor` of the file system; tells two mounts at one place apart.
    pub device: String,
    /// Where it is.
    pub mountpoint: PathBuf,
    /// The type, such as `ext4` or `fuse.rdmfs`.
    pub fs_type: String,
    /// What is mounted; for ours `host:/` of the repository's address.
    pub source: String,
}

impl Mount {
    /// Whether a daemon of ours mounted it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.fs_type == OUR_TYPE
    }

    /// Whether it may be one of the repository at this address: it names only the host.
    #[must_use]
    pub fn may_be_of(&self, url: &str) -> bool {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = rest.split('/').next().unwrap_or_default();
        self.source.strip_suffix(":/") == Some(host)
    }
}

/// Everything mounted, in the order of mounting.
///
/// # Errors
/// If `/proc` can't be read.
pub fn all() -> Result<Vec<Mount>> {
    let path = "/proc/self/mountinfo";
    let bytes = std::fs::read(path).map_err(|error| Error::local(format!("can't read {path}"), &error))?;
    Ok(parse(&bytes))
}

/// The mount one sees at exactly this place: the last one, if several lie on top of each other.
///
/// # Errors
/// If `/proc` can't be read.
pub fn at(mountpoint: &Path) -> Result<Option<Mount>> {
    Ok(all()?
        .into_iter()
        .rev()
        .find(|mount| mount.mountpoint == mountpoint))
}

/// The mounts of ours, or the one at a place.
///
/// # Errors
/// `NotFound` if none is at that place; if `/proc` can't be read.
pub fn ours(place: Option<&Path>) -> Result<Vec<Mount>> {
    let Some(place) = place else {
        return Ok(all()?.into_iter().filter(Mount::is_ours).collect());
    };
    let place = mountpoint::resolve(place)?;
    let mount = at(&place)?.filter(Mount::is_ours).ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            format!("nothing of rdmfs is mounted on {}", place.display()),
        )
        .with_advice("rdmfs status, without a place, lists what is.")
    })?;
    Ok(vec![mount])
}

fn parse(bytes: &[u8]) -> Vec<Mount> {
    bytes.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /mountpoint rw,noatime shared:1 - type source options`; the number of fields before the
/// dash varies.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let device = text(fields.nth(2)?);
    let mountpoint = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    Some(Mount {
        device,
        mountpoint,
        fs_type: text(fields.next()?),
        source: text(fields.next()?),
    })
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// The kernel writes blank, tab, newline and backslash as `\040` and so on.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[u8] = b"22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n\
        96 22 0:52 / /mnt/my\\040data rw,nosuid,nodev shared:5 master:1 - fuse.rdmfs zenodo.org:/ rw,user_id=0\n";

    #[test]
    fn places_with_blanks_and_optional_fields_are_read() {
        let mounts = parse(SAMPLE);
        assert_eq!(mounts.len(), 2);
        assert!(!mounts[0].is_ours());
        assert_eq!(mounts[1].mountpoint, Path::new("/mnt/my data"));
        assert_eq!(mounts[1].device, "0:52");
        assert_eq!(mounts[1].source, "zenodo.org:/");
        assert!(mounts[1].is_ours());
        assert!(mounts[1].may_be_of("https://zenodo.org/") && !mounts[1].may_be_of("https://zenodo.org:444"));
    }

    #[test]
    fn the_root_is_found_on_the_running_system() {
        assert!(at(Path::new("/")).unwrap().is_some());
        assert_eq!(at(Path::new("/no/such/place")).unwrap(), None);
    }
}
