//! Mount points: finding out what is at one, and making it ready for a mount.

use std::path::{Path, PathBuf};

use crate::cli::probe::{self, Answer};
use crate::cli::{mountinfo, terminal};
use crate::error::{Error, Kind, Result};
use crate::mount::device::{How, detach};

/// The absolute path of a mount point, links resolved. Works for a dead mount too.
///
/// # Errors
/// If it isn't there.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    let absolute =
        std::path::absolute(path).map_err(|error| Error::local(format!("can't resolve {shown}"), &error))?;
    // Without a slash at the end, so that messages and the log's name are the same however it was typed.
    let absolute: PathBuf = absolute.components().collect();
    // Before anything else, because looking at a mount whose daemon is gone or stuck fails or hangs.
    if mountinfo::at(&absolute)?.is_some() {
        return Ok(absolute);
    }
    absolute.canonicalize().map_err(|error| {
        let failed = Error::local(format!("the mount point {shown} can't be used"), &error);
        match error.raw_os_error() {
            Some(libc::ENOENT) => {
                Error::new(Kind::NotFound, format!("the mount point {shown} does not exist"))
                    .with_advice(format!("Make it first: mkdir -p {shown}"))
            }
            Some(libc::ENOTCONN) => {
                failed.with_advice("A dead mount is in the way; rdmfs status lists them.")
            }
            _ => failed,
        }
    })
}

/// Makes sure that something can be mounted there, and returns its absolute path. A dead mount of ours is taken off.
///
/// # Errors
/// If it is missing, no directory, or one of our mounts is there.
pub fn prepare(path: &Path) -> Result<PathBuf> {
    let mountpoint = resolve(path)?;
    let shown = mountpoint.display();
    if mountpoint.to_str().is_none() {
        return Err(Error::new(
            Kind::Usage,
            format!("the name of the mount point {shown} is not UTF-8"),
        ));
    }
    if let Some(mount) = mountinfo::at(&mountpoint)?.filter(mountinfo::Mount::is_ours) {
        match probe::ask(&mountpoint)? {
            Answer::Dead => {
                detach(&mountpoint, How::Lazily).map_err(|error| {
                    error
                        .during(format!("a dead mount is left on {shown} and can't be taken off"))
                        .with_advice(format!(
                            "As the user who mounted it, or as root: rdmfs unmount {shown}"
                        ))
                })?;
                terminal::note(format_args!("took a dead mount off {shown}"));
                return prepare(path);
            }
            Answer::Status(_) | Answer::NotAllowed | Answer::Stuck | Answer::Failed(_) => {
                return Err(Error::new(
                    Kind::Local(libc::EBUSY),
                    format!("{} is already mounted on {shown}", mount.source),
                )
                .with_advice(format!(
                    "Unmount it first (rdmfs unmount {shown}), or choose another directory."
                )));
            }
        }
    }
    let metadata = mountpoint
        .metadata()
        .map_err(|error| Error::local(format!("the mount point {shown} can't be used"), &error))?;
    if !metadata.is_dir() {
        return Err(Error::new(
            Kind::Local(libc::ENOTDIR),
            format!("the mount point {shown} is not a directory"),
        )
        .with_advice("Give an empty directory."));
    }
    if mountpoint
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some())
    {
        terminal::note(format_args!(
            "{shown} is not empty; what is in it is hidden until the unmount"
        ));
    }
    Ok(mountpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_mount_point_is_named_with_the_command_that_makes_it() {
        let error = prepare(Path::new("/nonexistent/place")).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.advice().contains("mkdir -p /nonexistent/place"));
    }

    #[test]
    fn a_file_is_no_mount_point() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = prepare(file.path()).unwrap_err();
        assert!(error.to_string().contains("is not a directory"), "{error}");
    }
}
