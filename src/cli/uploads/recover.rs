//! `rdmfs uploads recover`: copies the kept bytes of a file to another place on the local disk.
//!
//! It reads the state directory itself, so it works with a mount, without one, and beside one that is stuck. It never
//! changes what is kept, and never leaves half a file under the name that was asked for.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use crate::cli::mountinfo::{self, Mount};
use crate::cli::progress::{self, Copying};
use crate::cli::terminal::{self, printable};
use crate::cli::units::Size;
use crate::cli::uploads::RecoverArguments;
use crate::cli::uploads::inventory::{Inventory, Item, Listed, Of};
use crate::cli::within;
use crate::error::{Error, Kind, Result};
use crate::status::{Upload, UploadState};

/// Bytes copied between two looks at the clock.
const PIECE: usize = 1 << 20;

/// Runs the command.
///
/// # Errors
/// If the item isn't there, or the copy can't be made.
pub fn run(arguments: &RecoverArguments) -> Result<ExitCode> {
    let mounts = mountinfo::ours(None)?;
    let of = arguments
        .mount
        .as_ref()
        .map(|word| Of::parse(word, &mounts))
        .transpose()?;
    let item = [Item::parse(&arguments.item)];
    let found = Inventory::everywhere(mounts, &item, of.as_ref(), arguments.state.state_dir.as_ref())?;
    let candidates = found.find(&item[0], of.as_ref())?;
    let listed = pick(&candidates, arguments.unclosed)?;
    outside(&arguments.destination, &found.mounts)?;
    let destination = destination(&arguments.destination, &listed.upload)?;
    let copied = copy(&listed.upload, &destination, arguments.force)?;
    tell(listed, &destination, copied, arguments.json);
    if candidates.len() > 1 && !arguments.unclosed {
        terminal::note("it was written again later and not closed; --unclosed picks that version");
    }
    Ok(ExitCode::SUCCESS)
}

/// The version that is meant: the closed one, unless there is none or the other one is asked for.
fn pick<'a>(candidates: &[&'a Listed], unclosed: bool) -> Result<&'a Listed> {
    // Beside a daemon that doesn't answer, nobody knows whether it is still open.
    let is_unclosed =
        |listed: &&&Listed| matches!(listed.upload.state, UploadState::Unclosed | UploadState::Open);
    let closed = candidates.iter().find(|listed| !is_unclosed(listed));
    let open = candidates.iter().find(is_unclosed);
    let picked = if unclosed { open } else { closed.or(open) };
    picked.copied().ok_or_else(|| {
        Error::new(Kind::NotFound, "it has no version that was never closed")
            .with_advice("Leave out --unclosed.")
    })
}

/// The file to write: a folder that is there takes it under the last part of its key.
fn destination(given: &Path, upload: &Upload) -> Result<PathBuf> {
    if given.is_dir() {
        return Ok(given.join(file_name(upload)));
    }
    if given.to_string_lossy().ends_with('/') {
        return Err(
            Error::new(Kind::NotFound, format!("there is no folder {}", given.display()))
                .with_advice(format!("Make it first: mkdir -p {}", given.display())),
        );
    }
    Ok(given.to_owned())
}

/// The last part of the key, if that can be a file's name.
fn file_name(upload: &Upload) -> String {
    match upload.key.rsplit('/').next() {
        Some(name) if !matches!(name, "" | "." | "..") && name.len() <= 255 => name.to_owned(),
        _ => format!("recovered-{}", upload.id),
    }
}

/// What is copied into a mount would be uploaded at once, and a stuck mount would hold the command.
fn outside(destination: &Path, mounts: &[Mount]) -> Result<()> {
    match within::locate(destination, mounts)? {
        None => Ok(()),
        Some(_) => Err(Error::new(
            Kind::Usage,
            format!("{} is in a mount of rdmfs", destination.display()),
        )
        .with_advice("Give a place on the local disk; to upload the bytes again, use rdmfs uploads retry.")),
    }
}

/// Copies the bytes beside the destination, brings them to the disk, and only then gives them their name.
fn copy(upload: &Upload, destination: &Path, force: bool) -> Result<u64> {
    let shown = destination.display();
    if !force && destination.symlink_metadata().is_ok() {
        return Err(already_there(destination));
    }
    if upload.kept.as_os_str().is_empty() {
        return Err(
            Error::new(Kind::NotReady, "the daemon does not tell where the bytes are kept").with_advice(
                "It is of another version than this program; they are in the staging folder that rdmfs status --json names.",
            ),
        );
    }
    let mut kept = File::open(&upload.kept).map_err(|error| {
        let failed = Error::local(format_args!("can't read {}", upload.kept.display()), &error);
        match error.kind() {
            ErrorKind::NotFound => {
                failed.with_advice("It may have been uploaded meanwhile; rdmfs uploads shows how things are.")
            }
            _ => failed,
        }
    })?;
    let folder = match destination.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let writing = |error: &std::io::Error| Error::local(format_args!("can't write {shown}"), error);
    let mut file = tempfile::Builder::new()
        .prefix(".rdmfs-recover-")
        // As any new file of the user; the umask takes off what others may not.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(|error| writing(&error))?;
    let progress = Copying::new(&progress::file(upload), upload.size);
    let mut piece = vec![0; PIECE];
    let mut copied = 0;
    loop {
        let count = match kept.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                let what = format!("can't read {}", upload.kept.display());
                return Err(Error::local(what, &error));
            }
        };
        file.write_all(&piece[..count]).map_err(|error| writing(&error))?;
        copied += count as u64;
        progress.update(copied);
    }
    // Whoever discards it next must not lose it to a crash.
    file.as_file().sync_all().map_err(|error| writing(&error))?;
    let persisted = if force {
        file.persist(destination)
    } else {
        file.persist_noclobber(destination)
    };
    persisted.map_err(|failed| match failed.error.kind() {
        ErrorKind::AlreadyExists => already_there(destination),
        _ => writing(&failed.error),
    })?;
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| writing(&error))?;
    Ok(copied)
}

fn already_there(destination: &Path) -> Error {
    Error::new(
        Kind::Local(libc::EEXIST),
        format!("{} is there already", destination.display()),
    )
    .with_advice("Give another destination, or --force to replace it.")
}

fn tell(listed: &Listed, destination: &Path, copied: u64, json: bool) {
    let upload = &listed.upload;
    let shown = printable(&destination.to_string_lossy());
    if json {
        let text = json!({
            "id": upload.id,
            "repository": listed.repository,
            "draft": upload.draft,
            "key": upload.key,
            "state": upload.state,
            "size": copied,
            "destination": destination.to_string_lossy(),
        });
        terminal::say(format_args!("{text:#}"));
    } else {
        let file = progress::file(upload);
        terminal::say(format_args!("copied {file} ({}) to {shown}", Size(copied)));
    }
    match upload.state {
        UploadState::Open => {
            terminal::note("a program still has it open; the copy is what it had written by now");
        }
        UploadState::Unclosed | UploadState::Refused => terminal::note(format_args!(
            "it stays listed until you drop it: rdmfs uploads discard {}",
            upload.id
        )),
        _ => {}
    }
    if copied != upload.size && upload.state != UploadState::Open {
        terminal::note(format_args!(
            "WARNING: the list says that it has {}, but {} are kept",
            Size(upload.size),
            Size(copied)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::uploads::inventory::tests::listed;

    /// An upload whose kept bytes are in a folder of its own.
    fn kept(bytes: &str) -> (tempfile::TempDir, Upload) {
        let folder = tempfile::tempdir().unwrap();
        let mut upload = listed(None, "https://a", 7, UploadState::Refused).upload;
        upload.kept = folder.path().join("7-0");
        upload.size = bytes.len() as u64;
        fs::write(&upload.kept, bytes).unwrap();
        (folder, upload)
    }

    #[test]
    fn the_copy_has_the_bytes_and_what_is_kept_stays() {
        let (folder, upload) = kept("precious");
        let destination = destination(folder.path(), &upload).unwrap();
        assert_eq!(destination, folder.path().join("7.csv"));
        assert_eq!(copy(&upload, &destination, false).unwrap(), 8);
        assert_eq!(fs::read_to_string(&destination).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&upload.kept).unwrap(), "precious");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            2,
            "nothing else is left"
        );
    }

    #[test]
    fn a_file_that_is_there_is_replaced_only_by_force() {
        let (folder, upload) = kept("new");
        let destination = folder.path().join("there");
        fs::write(&destination, "old").unwrap();
        let error = copy(&upload, &destination, false).unwrap_err();
        assert!(error.advice().contains("--force"), "{error}");
        assert_eq!(fs::read_to_string(&destination).unwrap(), "old");
        copy(&upload, &destination, true).unwrap();
        assert_eq!(fs::read_to_string(&destination).unwrap(), "new");
        let dangling = folder.path().join("link");
        std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
        assert!(copy(&upload, &dangling, false).is_err());
    }

    #[test]
    fn bytes_that_are_gone_and_folders_that_are_missing_are_told() {
        let (folder, mut upload) = kept("x");
        assert!(destination(&folder.path().join("no/"), &upload).is_err());
        assert!(copy(&upload, &folder.path().join("no/f"), false).is_err());
        upload.kept = folder.path().join("gone");
        let error = copy(&upload, &folder.path().join("f"), false).unwrap_err();
        assert!(error.advice().contains("uploaded meanwhile"), "{error}");
        assert!(!folder.path().join("f").exists());
    }

    #[test]
    fn a_key_whose_end_is_no_name_gets_one() {
        let mut upload = listed(None, "https://a", 7, UploadState::Refused).upload;
        for (key, name) in [("a/b.csv", "b.csv"), ("..", "recovered-7"), ("a/", "recovered-7")] {
            upload.key = key.into();
            assert_eq!(file_name(&upload), name);
        }
    }

    #[test]
    fn the_closed_version_is_meant_unless_the_other_is_asked_for() {
        let closed = listed(None, "https://a", 7, UploadState::Queued);
        let open = listed(None, "https://a", 7, UploadState::Unclosed);
        let state =
            |candidates: &[&Listed], unclosed| pick(candidates, unclosed).map(|listed| listed.upload.state);
        assert_eq!(state(&[&closed, &open], false).unwrap(), UploadState::Queued);
        assert_eq!(state(&[&closed, &open], true).unwrap(), UploadState::Unclosed);
        assert_eq!(state(&[&open], false).unwrap(), UploadState::Unclosed);
        assert!(state(&[&closed], true).is_err());
    }
}
