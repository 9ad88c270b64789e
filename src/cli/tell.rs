//! Tells running mounts of a repository that a command changed something there, so that they show it at once.
//!
//! Called after the change, by every command that makes one. That a mount can't be told is no failure of the command:
//! it is noted, and the mount shows the change when what it knows is no longer current.

use crate::cli::target::Place;
use crate::cli::{control, terminal};
use crate::error::Kind;
use crate::repository::model::RecordId;

/// Records and drafts with these ids are not as they were; a concept id is one too.
pub fn changed(place: &Place, ids: &[&RecordId]) {
    let lines: Vec<String> = ids.iter().map(|id| format!("refresh records/{id}")).collect();
    tell(place, &lines);
}

/// Something below these places of a mount (`communities/SLUG`, `user`) is not as it was.
pub fn changed_at(place: &Place, paths: &[&str]) {
    let lines: Vec<String> = paths.iter().map(|path| format!("refresh {path}")).collect();
    tell(place, &lines);
}

fn tell(place: &Place, lines: &[String]) {
    let (mounts, stuck) = place.mounts_and_stuck();
    for mountpoint in stuck {
        terminal::note(format_args!(
            "{} does not answer; it may show for a while what was before",
            mountpoint.display()
        ));
    }
    for mount in mounts {
        for line in lines {
            match control::send(&mount.mountpoint, line) {
                Ok(()) => {}
                // It went meanwhile.
                Err(error) if error.kind() == Kind::NotFound => break,
                Err(error) => {
                    terminal::note(format_args!(
                        "{} may show for a while what was before: {error}",
                        mount.mountpoint.display()
                    ));
                    break;
                }
            }
        }
    }
}
