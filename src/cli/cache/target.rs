//! Which caches, and which files in them, a command means.
//!
//! Mounts are asked as `probe` asks. A cache belongs to the mount that uses it; the others are found where mounts keep
//! theirs unless told otherwise.

use std::path::{Component, Path, PathBuf};

use crate::cli::cache::Where;
use crate::cli::mountinfo::{self, Mount};
use crate::cli::probe::{self, Answer};
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
        return Ok(vec![in_directory(directory)?]);
    }
    let mounts = mountinfo::ours(None)?;
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
        let below = below(&within)?;
        let place = &within.mountpoint;
        let at = match targets
            .iter()
            .position(|target| target.mountpoint.as_ref() == Some(place))
        {
            Some(at) if targets[at].is_whole() => continue,
            Some(at) => at,
            None => {
                // The one on top, if several lie on each other.
                let mount = mounts.iter().rev().find(|mount| mount.mountpoint == *place);
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

/// The mount's cache, all of it.
fn of_mount(mount: &Mount) -> Result<Target> {
    let place = mount.mountpoint.display();
    let failed = |kind, what: String| Err(Error::new(kind, format!("{place} {what}")));
    match probe::ask(&mount.mountpoint)? {
        Answer::Status(status) => Ok(Target {
            mountpoint: Some(mount.mountpoint.clone()),
            directory: status.cache.directory.clone(),
            status: Some(status),
            paths: Vec::new(),
        }),
        Answer::Dead => failed(
            Kind::NotFound,
            format!("has no daemon; rdmfs unmount {place} takes it off"),
        ),
        Answer::NotAllowed => failed(Kind::Denied, "belongs to another user".into()),
        Answer::Stuck => failed(
            Kind::TimedOut,
            format!("does not answer within {} s", probe::LIMIT.as_secs()),
        ),
        Answer::Failed(reason) => failed(Kind::Internal, format!("can't be asked: {reason}")),
    }
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

/// A record's id, which is no path.
fn by_id(path: &Path, of: &Where, mounts: &[Mount]) -> Result<Within> {
    let id = path
        .to_str()
        .and_then(RecordId::new)
        .ok_or_else(|| missing(path))?;
    let mount = match (&of.mount, mounts) {
        (Some(place), _) => mountinfo::ours(Some(place))?.swap_remove(0),
        (None, [only]) => only.clone(),
        (None, []) => return Err(missing(path)),
        (None, _) => {
            return Err(
                Error::new(Kind::Usage, format!("{id} may be a record of several mounts"))
                    .with_advice("Name the mount with --mount, or the path of the record in it."),
            );
        }
    };
    Ok(Within {
        mountpoint: mount.mountpoint,
        below: Path::new("records").join(id.as_str()),
    })
}

/// The place below the mount point, as the daemon understands it.
fn below(within: &Within) -> Result<String> {
    let mut names = Vec::new();
    for part in within.below.components() {
        match part {
            Component::Normal(name) => names.push(name.to_str().ok_or_else(|| missing(&within.below))?),
            Component::ParentDir => drop(names.pop()),
            _ => {}
        }
    }
    Ok(names.join("/"))
}

fn missing(path: &Path) -> Error {
    Error::new(
        Kind::NotFound,
        format!("{} is in no mount, and no id of a record", path.display()),
    )
    .with_advice(
        "Mount the repository first: which bytes a name stands for, the repository tells. Without paths, rdmfs cache works \
         on whole caches, also without a mount.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_without_dots() {
        let place = |text: &str| {
            below(&Within {
                mountpoint: "/mnt".into(),
                below: text.into(),
            })
            .unwrap()
        };
        assert_eq!(place("records/a/../b/./files/"), "records/b/files");
        assert_eq!(place(""), "");
    }
}
