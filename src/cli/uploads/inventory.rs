//! Finds what is not safe on the server: mounts are asked, and the state directory is read for those that are not
//! there. Also finds in it what somebody means by a number or a path. Nothing is changed here.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::mountinfo::Mount;
use crate::cli::probe::{self, Answer};
use crate::cli::progress;
use crate::cli::settings::Sources;
use crate::cli::sources::Layer;
use crate::cli::within::{self, Scope};
use crate::error::{Error, Kind, Result};
use crate::staging::left_in;
use crate::status::{Upload, UploadState};

/// One file that is not safe on the server.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// The mount whose daemon told of it; none if it was found in the state directory.
    pub mountpoint: Option<PathBuf>,
    /// The repository it is for.
    pub repository: String,
    /// The rest.
    #[serde(flatten)]
    pub upload: Upload,
}

impl Listed {
    /// `https://zenodo.org on /home/me/zenodo`.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.mountpoint {
            Some(mountpoint) => format!("{} on {}", self.repository, mountpoint.display()),
            None => format!("{}, not mounted", self.repository),
        }
    }

    /// Whether it is of the place that `--mount` names.
    #[must_use]
    pub fn is_of(&self, mount: &Of) -> bool {
        match mount {
            Of::Mount(mountpoint) => self.mountpoint.as_ref() == Some(mountpoint),
            Of::Repository(url) => is_same_address(&self.repository, url),
        }
    }
}

/// A mount that could not be asked.
#[derive(Clone, Debug)]
pub struct Silent {
    mount: Mount,
    /// Its daemon is gone, so that nothing is open any more.
    is_dead: bool,
    /// Why, in a sentence.
    pub why: String,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Inventory {
    /// The mounts there are, whether they answer or not.
    pub mounts: Vec<Mount>,
    /// The files, those of mounts first.
    pub listed: Vec<Listed>,
    /// The mounts that could not be asked.
    pub silent: Vec<Silent>,
    /// Journal entries that can't be understood.
    pub unreadable: Vec<PathBuf>,
    /// The state folders of the mounts that answered.
    pub folders: Vec<PathBuf>,
}

impl Inventory {
    /// Asks those of the mounts that `items`, or `of` if that is given, can be in.
    ///
    /// # Errors
    /// If no process can be started.
    pub fn of_mounts(mounts: Vec<Mount>, items: &[Item], of: Option<&Of>) -> Result<Self> {
        let asked = relevant(&mounts, items, of)?;
        let mut found = Inventory {
            mounts,
            ..Inventory::default()
        };
        for (mount, answer) in asked.iter().zip(probe::ask_all(&asked)?) {
            found.add_answer(mount, answer);
        }
        Ok(found)
    }

    fn add_answer(&mut self, mount: &Mount, answer: Answer) {
        let place = mount.mountpoint.display();
        let is_dead = matches!(answer, Answer::Dead);
        let why = match answer {
            Answer::Status(status) => {
                self.folders.push(status.staging);
                self.listed
                    .extend(status.uploads.into_iter().map(|upload| Listed {
                        mountpoint: Some(mount.mountpoint.clone()),
                        repository: status.repository.clone(),
                        upload,
                    }));
                return;
            }
            // What others have written is theirs to look at.
            Answer::NotAllowed => return,
            Answer::Dead => {
                format!(
                    "the mount on {place} is dead: its daemon is gone; rdmfs unmount {place} takes it off"
                )
            }
            Answer::Stuck => format!(
                "the mount on {place} does not answer within {} s; its log may tell why",
                probe::LIMIT.as_secs()
            ),
            Answer::Failed(reason) => format!("the mount on {place} can't be asked: {reason}"),
        };
        self.silent.push(Silent {
            mount: mount.clone(),
            is_dead,
            why,
        });
    }

    /// Adds what is in a state directory, but for the folders of mounts that answered: their daemons know better. What
    /// is of the repository of a silent mount counts as that mount's.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn add_left(&mut self, state_dir: &Path) -> Result<()> {
        for left in left_in(state_dir)? {
            if self.folders.contains(&left.folder) {
                continue;
            }
            self.unreadable.extend(left.unreadable);
            let silent = self
                .silent
                .iter()
                .find(|silent| silent.mount.may_be_of(&left.repository));
            self.listed.extend(left.uploads.into_iter().map(|mut upload| {
                if upload.state == UploadState::Unclosed && silent.is_some_and(|silent| !silent.is_dead) {
                    upload.state = UploadState::Open;
                }
                Listed {
                    mountpoint: silent.map(|silent| silent.mount.mountpoint.clone()),
                    repository: left.repository.clone(),
                    upload,
                }
            }));
        }
        Ok(())
    }

    /// What mounts tell, and what is left in the state directory.
    ///
    /// # Errors
    /// If the state directory is unknown or can't be read.
    pub fn everywhere(
        mounts: Vec<Mount>,
        items: &[Item],
        of: Option<&Of>,
        state_dir: Option<&PathBuf>,
    ) -> Result<Self> {
        let state_dir = resolve_state_dir(state_dir)?;
        let mut found = Inventory::of_mounts(mounts, items, of)?;
        found.add_left(&state_dir)?;
        Ok(found)
    }

    /// What an item stands for, in `of` alone if that is given: one file, which may be there as closed and as unclosed.
    ///
    /// # Errors
    /// `NotFound` if it is not there; `Usage` if a number is of several mounts.
    pub fn find(&self, item: &Item, of: Option<&Of>) -> Result<Vec<&Listed>> {
        let scope = match item {
            Item::Number(_) => None,
            Item::Path(path) => Some(scope_of(path, &self.mounts)?),
        };
        let found: Vec<&Listed> = self
            .listed
            .iter()
            .filter(|listed| of.is_none_or(|of| listed.is_of(of)))
            .filter(|listed| match (item, &scope) {
                (Item::Number(number), _) => listed.upload.id == *number,
                (Item::Path(_), Some(scope)) => {
                    listed.mountpoint.as_ref() == Some(&scope.mountpoint) && scope.is(&listed.upload)
                }
                (Item::Path(_), None) => false,
            })
            .collect();
        let Some(first) = found.first() else {
            let what = match self.silent.first() {
                None => item.not_found(),
                Some(silent) => format!("{}, as far as is known: {}", item.not_found(), silent.why),
            };
            return Err(Error::new(Kind::NotFound, what)
                .with_advice("rdmfs uploads lists what is not on the server yet."));
        };
        let others: Vec<String> = found
            .iter()
            .filter(|other| (&other.mountpoint, &other.repository) != (&first.mountpoint, &first.repository))
            .map(|other| other.place())
            .collect();
        if others.is_empty() {
            return Ok(found);
        }
        Err(Error::new(
            Kind::Usage,
            format!(
                "{} is in several places: {}; {}",
                item.shown(),
                first.place(),
                others.join("; ")
            ),
        )
        .with_advice("Say which one is meant with --mount, or give the path of the file."))
    }
}

/// The mounts that may hold what is meant. Others are not asked: they may be stuck.
fn relevant(mounts: &[Mount], items: &[Item], of: Option<&Of>) -> Result<Vec<Mount>> {
    let mut places = Vec::new();
    for item in items {
        match item {
            Item::Path(path) => places.push(scope_of(path, mounts)?.mountpoint),
            Item::Number(_) => places.extend(mounts.iter().map(|mount| mount.mountpoint.clone())),
        }
    }
    let is_meant = |mount: &&Mount| {
        let by_items = items.is_empty() || places.contains(&mount.mountpoint);
        by_items
            && match of {
                None => true,
                Some(Of::Mount(mountpoint)) => mount.mountpoint == *mountpoint,
                Some(Of::Repository(url)) => mount.may_be_of(url),
            }
    };
    Ok(mounts.iter().filter(is_meant).cloned().collect())
}

fn is_same_address(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

/// What somebody names a file by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Its number in the list.
    Number(u64),
    /// Its path in a mount.
    Path(PathBuf),
}

impl Item {
    /// A word of digits is a number; a file of such a name is `./7`.
    #[must_use]
    pub fn parse(word: &Path) -> Self {
        let digits = word
            .to_str()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(number) => Item::Number(number),
            None => Item::Path(word.to_owned()),
        }
    }

    fn shown(&self) -> String {
        match self {
            Item::Number(number) => format!("number {number}"),
            Item::Path(path) => path.display().to_string(),
        }
    }

    fn not_found(&self) -> String {
        match self {
            Item::Number(number) => format!("no upload has the number {number}"),
            Item::Path(path) => format!("nothing of {} waits for its upload", path.display()),
        }
    }
}

/// What `--mount` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// A mount point.
    Mount(PathBuf),
    /// A repository's address, for one that is not mounted.
    Repository(String),
}

impl Of {
    /// Reads what `--mount` says.
    ///
    /// # Errors
    /// `NotFound` if none of `mounts` is at that place.
    pub fn parse(word: &Path, mounts: &[Mount]) -> Result<Self> {
        if let Some(url) = word.to_str().filter(|text| text.contains("://")) {
            return Ok(Of::Repository(url.to_owned()));
        }
        match within::locate(word, mounts)? {
            Some(within) => Ok(Of::Mount(within.mountpoint)),
            None => Err(not_mounted(word)),
        }
    }
}

/// The part of a mount that a path stands for.
///
/// # Errors
/// `NotFound` if it is in none of `mounts`, or in a part where nothing is uploaded.
pub fn scope_of(path: &Path, mounts: &[Mount]) -> Result<Scope> {
    match within::locate(path, mounts)? {
        Some(within) => Scope::of(&within),
        None => Err(not_mounted(path)),
    }
}

fn not_mounted(path: &Path) -> Error {
    Error::new(
        Kind::NotFound,
        format!("{} is in no mount of rdmfs", path.display()),
    )
    .with_advice(
        "rdmfs status lists the mounts; rdmfs uploads, without a place, also lists what is not mounted, by numbers.",
    )
}

/// The state directory, as `mount` finds it.
///
/// # Errors
/// If none is given and there is no home, or the configuration can't be read.
pub fn resolve_state_dir(given: Option<&PathBuf>) -> Result<PathBuf> {
    let layer = Layer {
        state_dir: given.cloned(),
        ..Layer::default()
    };
    match given {
        Some(_) => Sources::of(vec![layer]).state_dir(),
        None => Sources::read(vec![layer], None)?.state_dir(),
    }
}

/// `abcde-12345/a.csv (5.0 MiB, refused)`, for questions and messages.
#[must_use]
pub fn named(upload: &Upload) -> String {
    format!(
        "{} ({}, {})",
        progress::file(upload),
        crate::cli::units::Size(upload.size),
        upload.state.word()
    )
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An upload as a list has it.
    pub fn listed(mountpoint: Option<&str>, repository: &str, id: u64, state: UploadState) -> Listed {
        Listed {
            mountpoint: mountpoint.map(Into::into),
            repository: repository.into(),
            upload: Upload {
                id,
                draft: "abc".into(),
                key: format!("dir/{id}.csv"),
                state,
                sent: 0,
                size: 2048,
                tries: 1,
                next_try: None,
                reason: None,
                kept: format!("/state/data/{id}-0").into(),
            },
        }
    }

    fn inventory() -> Inventory {
        Inventory {
            mounts: vec![Mount {
                device: "0:1".into(),
                mountpoint: "/a".into(),
                fs_type: crate::cli::mountinfo::OUR_TYPE.into(),
                source: "a:/".into(),
            }],
            listed: vec![
                listed(Some("/a"), "https://a", 1, UploadState::Refused),
                listed(Some("/a"), "https://a", 2, UploadState::Queued),
                listed(Some("/a"), "https://a", 2, UploadState::Unclosed),
                listed(None, "https://b", 1, UploadState::Queued),
                listed(None, "https://b", 3, UploadState::Queued),
            ],
            ..Inventory::default()
        }
    }

    #[test]
    fn a_word_of_digits_is_a_number_and_anything_else_a_path() {
        assert_eq!(Item::parse(Path::new("17")), Item::Number(17));
        for word in [
            "./17",
            "17.csv",
            "",
            "-1",
            "99999999999999999999999",
            "~/z/drafts/a/b",
        ] {
            assert_eq!(Item::parse(Path::new(word)), Item::Path(word.into()), "{word}");
        }
    }

    #[test]
    fn a_number_of_several_places_needs_the_place() {
        let all = inventory();
        let error = all.find(&Item::Number(1), None).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().contains("https://a on /a"), "{error}");
        assert!(error.to_string().contains("https://b, not mounted"), "{error}");
        let of = |word: &str| Of::parse(Path::new(word), &all.mounts).unwrap();
        let found = all.find(&Item::Number(1), Some(&of("https://b/"))).unwrap();
        assert_eq!(found[0].repository, "https://b");
        let found = all.find(&Item::Number(1), Some(&of("/a"))).unwrap();
        assert_eq!(found[0].repository, "https://a");
        assert!(Of::parse(Path::new("/b"), &all.mounts).is_err());
    }

    #[test]
    fn a_file_that_was_open_again_is_found_as_both() {
        let all = inventory();
        assert_eq!(all.find(&Item::Number(2), None).unwrap().len(), 2);
        assert_eq!(all.find(&Item::Number(3), None).unwrap().len(), 1);
        assert_eq!(
            all.find(&Item::Number(4), None).unwrap_err().kind(),
            Kind::NotFound
        );
    }

    #[test]
    fn only_mounts_that_may_hold_what_is_meant_are_asked() {
        let mount = |place: &str, source: &str| Mount {
            mountpoint: place.into(),
            source: source.into(),
            ..inventory().mounts[0].clone()
        };
        let mounts = [mount("/a", "a:/"), mount("/b", "b:/")];
        let asked = |items: &[&str], of: Option<Of>| -> Vec<PathBuf> {
            let items: Vec<Item> = items.iter().map(|item| Item::parse(Path::new(item))).collect();
            let asked = relevant(&mounts, &items, of.as_ref()).unwrap();
            asked.into_iter().map(|mount| mount.mountpoint).collect()
        };
        assert_eq!(asked(&["/b/drafts/x/f"], None), [Path::new("/b")]);
        assert_eq!(asked(&["7"], None).len(), 2);
        assert_eq!(asked(&["7"], Some(Of::Mount("/a".into()))), [Path::new("/a")]);
        assert_eq!(
            asked(&[], Some(Of::Repository("https://b/".into()))),
            [Path::new("/b")]
        );
        assert_eq!(asked(&[], None).len(), 2);
    }

    #[test]
    fn what_is_left_beside_a_stuck_mount_is_that_mounts_and_may_be_open() {
        let state = tempfile::tempdir().unwrap();
        let journal = state.path().join("a/journal");
        std::fs::create_dir_all(&journal).unwrap();
        let entry = r#"{"id": 1, "repository": "https://a", "account": "", "draft": "abc", "key": "k",
                        "generation": 0, "size": 1, "state": "open"}"#;
        std::fs::write(journal.join("1.json"), entry).unwrap();
        let found = |answer: Answer| {
            let mut found = inventory();
            found.listed.clear();
            let mount = found.mounts[0].clone();
            found.add_answer(&mount, answer);
            found.add_left(state.path()).unwrap();
            let listed = found.listed.pop().unwrap();
            (listed.mountpoint, listed.upload.state)
        };
        assert_eq!(found(Answer::Stuck), (Some("/a".into()), UploadState::Open));
        assert_eq!(found(Answer::Dead), (Some("/a".into()), UploadState::Unclosed));
        assert_eq!(found(Answer::NotAllowed), (None, UploadState::Unclosed));
    }

    #[test]
    fn a_path_in_a_mount_is_the_file_itself() {
        let all = inventory();
        let find = |path: &str| all.find(&Item::parse(Path::new(path)), None);
        assert_eq!(find("/a/drafts/abc/dir/1.csv").unwrap()[0].upload.id, 1);
        for wrong in [
            "/a/drafts/abc/dir",
            "/a/drafts/abc/dir/9.csv",
            "/a/records/abc",
            "/elsewhere/1.csv",
        ] {
            assert_eq!(find(wrong).unwrap_err().kind(), Kind::NotFound, "{wrong}");
        }
    }
}
