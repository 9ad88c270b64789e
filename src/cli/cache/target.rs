//! Which caches, and which files in them, a command means.
//!
//! Mounts are asked as `probe` asks. A cache belongs to the mount that uses it; the others are found where mounts keep
//! theirs unless told otherwise.

use std::path::{Path, PathBuf};

use crate::cli::cache::Where;
use crate::cli::mountinfo::{self, Mount};
use crate::cli::probe;
use crate::cli::settings;
use crate::cli::within::{self, Within};
use crate::content;
use crate::error::{Error, Kind, Result};
use crate::repository::model::RecordId;
use crate::status::Status;

/// A cache, and what of it is meant.
#[derive(Debug)]
pub struct Target {
    /// The mount that uses it.
    pub mountpoint: Option<PathBuf>,
    /// Where it is.
    pub directory: PathBuf,
    /// What that mount says of itself.
    pub status: Option<Box<Status>>,
    /// Places below the mount point; none means all of the cache.
    pub paths: Vec<String>,
}

impl Target {
    /// Whether all of the cache is meant.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.paths.is_empty()
    }
}

/// Finds what is meant by paths and ids; by none, all caches there are, or the one that is named otherwise.
///
/// # Errors
/// If something that is named isn't there, or a mount that is meant doesn't answer.
pub fn find(paths: &[PathBuf], of: &Where) -> Result<Vec<Target>> {
    if let Some(directory) = &of.cache_dir {
        return Ok(vec![Target {
            paths: checksums(paths)?,
            ..in_directory(directory)?
        }]);
    }
    let mounts = on_top(mountinfo::ours(None)?);
    if paths.is_empty() {
        return match &of.mount {
            Some(place) => Ok(vec![of_mount(&mountinfo::ours(Some(place))?[0])?]),
            None => everywhere(&mounts),
        };
    }
    let mut targets: Vec<Target> = Vec::new();
    for path in paths {
        let within = match within::locate(path, &mounts)? {
            Some(within) => within,
            None => by_id(path, of, &mounts)?,
        };
        let below = within.below_as_text().ok_or_else(|| missing(&within.below))?;
        let place = &within.mountpoint;
        let at = match targets
            .iter()
            .position(|target| target.mountpoint.as_ref() == Some(place))
        {
            Some(at) if targets[at].is_whole() => continue,
            Some(at) => at,
            None => {
                let mount = mounts.iter().find(|mount| mount.mountpoint == *place);
                let mount = mount.ok_or_else(|| missing(path))?;
                targets.push(of_mount(mount)?);
                targets.len() - 1
            }
        };
        if below.is_empty() {
            targets[at].paths.clear();
        } else {
            targets[at].paths.push(below);
        }
    }
    Ok(targets)
}

/// Of mounts that lie on each other the one on top, which is the last: the others can't be asked.
fn on_top(mounts: Vec<Mount>) -> Vec<Mount> {
    let mut on_top: Vec<Mount> = Vec::new();
    for mount in mounts {
        on_top.retain(|other| other.mountpoint != mount.mountpoint);
        on_top.push(mount);
    }
    on_top
}

/// The mount's cache, all of it.
fn of_mount(mount: &Mount) -> Result<Target> {
    let status = probe::status(&mount.mountpoint)?;
    Ok(Target {
        mountpoint: Some(mount.mountpoint.clone()),
        directory: status.cache.directory.clone(),
        status: Some(status),
        paths: Vec::new(),
    })
}

/// The cache in a directory, with the mount that uses it, if one does.
fn in_directory(directory: &Path) -> Result<Target> {
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let answering = mountinfo::ours(None)?;
    for mount in &answering {
        if let Ok(target) = of_mount(mount)
            && target.directory == directory
        {
            return Ok(target);
        }
    }
    if !content::is_cache(&directory) {
        return Err(Error::new(
            Kind::NotFound,
            format!("there is no cache of yours in {}", directory.display()),
        )
        .with_advice("Name the directory that was given to rdmfs mount as --cache-dir."));
    }
    Ok(unused(directory))
}

/// The caches of all mounts that answer, and those that none uses.
fn everywhere(mounts: &[Mount]) -> Result<Vec<Target>> {
    let mut targets: Vec<Target> = mounts.iter().filter_map(|mount| of_mount(mount).ok()).collect();
    for directory in settings::cache_dirs()? {
        let is_used = targets.iter().any(|target| target.directory == directory);
        if !is_used && content::is_cache(&directory) {
            targets.push(unused(directory));
        }
    }
    Ok(targets)
}

fn unused(directory: PathBuf) -> Target {
    Target {
        mountpoint: None,
        directory,
        status: None,
        paths: Vec::new(),
    }
}

/// What can be named without a mount.
fn checksums(paths: &[PathBuf]) -> Result<Vec<String>> {
    let checksum = |path: &PathBuf| {
        let name = path.to_str().filter(|name| content::checksum_in(name).is_some());
        name.map(str::to_owned).ok_or_else(|| {
            Error::new(
                Kind::Usage,
                format!(
                    "{} is no checksum, and --cache-dir names no mount",
                    path.display()
                ),
            )
            .with_advice("Name md5:CHECKSUM as rdmfs cache status tells it, or the mount with --mount.")
        })
    };
    paths.iter().map(checksum).collect()
}

/// A record's id or a checksum, which is no path.
fn by_id(path: &Path, of: &Where, mounts: &[Mount]) -> Result<Within> {
    let text = path.to_str().ok_or_else(|| missing(path))?;
    let below = match (content::checksum_in(text), RecordId::new(text)) {
        (Some(_), _) => path.to_owned(),
        (None, Some(id)) => Path::new("records").join(id.as_str()),
        (None, None) => return Err(missing(path)),
    };
    let mount = match (&of.mount, mounts) {
        (Some(place), _) => mountinfo::ours(Some(place))?.swap_remove(0),
        (None, [only]) => only.clone(),
        (None, []) => return Err(missing(path)),
        (None, _) => {
            return Err(
                Error::new(Kind::Usage, format!("{text} may be in several mounts"))
                    .with_advice("Name the mount with --mount, or the path of the record in it."),
            );
        }
    };
    Ok(Within {
        mountpoint: mount.mountpoint,
        below,
    })
}

fn missing(path: &Path) -> Error {
    Error::new(
        Kind::NotFound,
        format!("{} is in no mount, and no id of a record", path.display()),
    )
    .with_advice(
        "Mount the repository first: which bytes a name stands for, the repository tells. Without paths, rdmfs cache works \
         on whole caches, also without a mount, and with --cache-dir on single files by md5:CHECKSUM.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_mounts_on_one_place_the_one_on_top_is_meant_once() {
        let mount = |place: &str, device: &str| Mount {
            device: device.into(),
            mountpoint: place.into(),
            fs_type: "fuse.rdmfs".into(),
            source: "https://example.org".into(),
        };
        let mounts = vec![mount("/a", "0:1"), mount("/b", "0:2"), mount("/a", "0:3")];
        assert_eq!(on_top(mounts), [mount("/b", "0:2"), mount("/a", "0:3")]);
    }
}
