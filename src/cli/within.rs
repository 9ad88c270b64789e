//! Finds the mount that a path lies in, without asking the mount: it may be stuck.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use percent_encoding::percent_decode_str;

use crate::cli::mountinfo::Mount;
use crate::error::{Error, Kind, Result};
use crate::status::Upload;

/// As many links are followed as the kernel follows.
const MOST_LINKS: usize = 40;

/// A path in one of the mounts: the mount point, and what is below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Within {
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// The rest, without a slash in front; empty for the mount point itself.
    pub below: PathBuf,
}

impl Within {
    /// What is below the mount point, as the daemon understands it; `None` if a name is no UTF-8.
    #[must_use]
    pub fn below_as_text(&self) -> Option<String> {
        let mut names = Vec::new();
        for part in self.below.components() {
            match part {
                Component::Normal(name) => names.push(name.to_str()?),
                Component::ParentDir => drop(names.pop()),
                _ => {}
            }
        }
        Some(names.join("/"))
    }
}

/// The place of `path` in one of `mounts`; `None` if it lies in none. Links on the way there are followed, those
/// inside the mount are not.
///
/// # Errors
/// If the path can't be made absolute.
pub fn locate(path: &Path, mounts: &[Mount]) -> Result<Option<Within>> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Error::local(format!("can't resolve {}", path.display()), &error))?;
    let mut rest: VecDeque<OsString> = parts(&absolute);
    let mut so_far = PathBuf::from("/");
    let mut links = 0;
    loop {
        if mounts.iter().any(|mount| mount.mountpoint == so_far) {
            return Ok(Some(Within {
                mountpoint: so_far,
                below: rest.into_iter().collect(),
            }));
        }
        let Some(part) = rest.pop_front() else {
            return Ok(None);
        };
        if part == ".." {
            so_far.pop();
            continue;
        }
        so_far.push(&part);
        if mounts.iter().any(|mount| mount.mountpoint == so_far) {
            continue;
        }
        if let Ok(target) = so_far.read_link()
            && links < MOST_LINKS
        {
            links += 1;
            so_far.pop();
            if target.is_absolute() {
                so_far = PathBuf::from("/");
            }
            for part in parts(&target).into_iter().rev() {
                rest.push_front(part);
            }
        }
    }
}

/// The names in a path; `..` is kept.
fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

/// The part of a mount that somebody means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The mount.
    pub mountpoint: PathBuf,
    /// The draft, unless all are meant.
    draft: Option<String>,
    /// The file, or the folder, in it.
    key: Option<String>,
}

impl Scope {
    /// Reads a place in a mount.
    ///
    /// # Errors
    /// `NotFound` for a place where nothing can be uploaded to.
    pub fn of(within: &Within) -> Result<Self> {
        let nothing = || {
            Error::new(
                Kind::NotFound,
                format!(
                    "{} is in no draft",
                    within.mountpoint.join(&within.below).display()
                ),
            )
            .with_advice("Only files below drafts/ are uploaded; rdmfs uploads lists them.")
        };
        let mut names = Vec::new();
        for part in within.below.components() {
            match part {
                Component::Normal(name) => names.push(name.to_str().ok_or_else(nothing)?),
                Component::ParentDir => drop(names.pop().ok_or_else(nothing)?),
                _ => {}
            }
        }
        if names.first().is_some_and(|top| *top != "drafts") {
            return Err(nothing());
        }
        Ok(Scope {
            mountpoint: within.mountpoint.clone(),
            draft: names.get(1).map(|&name| name.to_owned()),
            key: (names.len() > 2).then(|| names[2..].join("/")),
        })
    }

    /// Whether it is this upload's file.
    #[must_use]
    pub fn is(&self, upload: &Upload) -> bool {
        self.draft.as_ref() == Some(&upload.draft)
            && self
                .key
                .as_ref()
                .is_some_and(|key| *key == upload.key || decoded(key) == upload.key)
    }

    /// Whether this upload's file is in it, or it itself.
    #[must_use]
    pub fn holds(&self, upload: &Upload) -> bool {
        let in_folder = |folder: &str| {
            upload
                .key
                .strip_prefix(folder)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        match (&self.draft, &self.key) {
            (None, _) => true,
            (Some(draft), None) => *draft == upload.draft,
            (Some(draft), Some(key)) => {
                *draft == upload.draft && (self.is(upload) || in_folder(key) || in_folder(&decoded(key)))
            }
        }
    }
}

/// A key that can't be a file's name is shown percent-encoded.
fn decoded(name: &str) -> String {
    percent_decode_str(name).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::mountinfo::OUR_TYPE;
    use crate::status::UploadState;

    fn mount(place: &Path) -> Mount {
        Mount {
            device: "0:1".into(),
            mountpoint: place.to_owned(),
            fs_type: OUR_TYPE.into(),
            source: "example.org:/".into(),
        }
    }

    fn upload(draft: &str, key: &str) -> Upload {
        Upload {
            id: 1,
            draft: draft.into(),
            key: key.into(),
            state: UploadState::Refused,
            sent: 0,
            size: 1,
            tries: 1,
            next_try: None,
            reason: None,
            kept: PathBuf::new(),
        }
    }

    fn scope(below: &str) -> Result<Scope> {
        Scope::of(&Within {
            mountpoint: "/mnt".into(),
            below: below.into(),
        })
    }

    #[test]
    fn a_path_is_found_in_its_mount_through_links_and_dots() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/mnt")).unwrap();
        std::os::unix::fs::symlink("a/mnt", root.join("relative")).unwrap();
        std::os::unix::fs::symlink(root.join("a"), root.join("absolute")).unwrap();
        let mounts = [mount(&root.join("a/mnt"))];
        for path in [
            "a/mnt/drafts/x/f",
            "relative/drafts/x/f",
            "absolute/mnt/drafts/x/f",
            "a/../relative/drafts/x/f",
        ] {
            let found = locate(&root.join(path), &mounts).unwrap().unwrap();
            assert_eq!(found.mountpoint, root.join("a/mnt"), "{path}");
            assert_eq!(found.below, Path::new("drafts/x/f"), "{path}");
        }
        let itself = locate(&root.join("relative/"), &mounts).unwrap().unwrap();
        assert_eq!(itself.below, Path::new(""));
        assert_eq!(locate(&root.join("a/mnt2/drafts"), &mounts).unwrap(), None);
    }

    #[test]
    fn links_in_a_circle_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("b", folder.path().join("a")).unwrap();
        std::os::unix::fs::symlink("a", folder.path().join("b")).unwrap();
        assert_eq!(locate(&folder.path().join("a/f"), &[]).unwrap(), None);
    }

    #[test]
    fn a_place_is_told_without_dots() {
        let place = |text: &str| {
            let within = Within {
                mountpoint: "/mnt".into(),
                below: text.into(),
            };
            within.below_as_text().unwrap()
        };
        assert_eq!(place("records/a/../b/./files/"), "records/b/files");
        assert_eq!(place(""), "");
    }

    #[test]
    fn a_place_means_a_file_a_folder_a_draft_or_all() {
        let (mine, sibling, other) = (
            upload("abc", "dir/a.csv"),
            upload("abc", "dirt"),
            upload("xyz", "dir/a.csv"),
        );
        let file = scope("drafts/abc/dir/a.csv").unwrap();
        assert!(file.is(&mine) && !file.is(&other) && !file.holds(&sibling));
        let dir = scope("drafts/abc/dir").unwrap();
        assert!(dir.holds(&mine) && !dir.is(&mine) && !dir.holds(&sibling) && !dir.holds(&other));
        let draft = scope("drafts/abc").unwrap();
        assert!(draft.holds(&sibling) && !draft.is(&sibling) && !draft.holds(&other));
        assert!(scope("").unwrap().holds(&other) && scope("drafts").unwrap().holds(&other));
        assert!(scope("records/abc/files/a").is_err());
    }

    #[test]
    fn a_name_that_is_shown_encoded_means_its_key() {
        let odd = upload("abc", "../a\n.csv");
        assert!(scope("drafts/abc/%2E%2E/a%0A.csv").unwrap().is(&odd));
        let percent = upload("abc", "100%25.csv");
        assert!(scope("drafts/abc/100%25.csv").unwrap().is(&percent));
    }
}
