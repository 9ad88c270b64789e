//! What a command is about: a repository, and a record or draft in it, named by a path in a mount, an id, a DOI or the
//! address of its page.
//!
//! A path's mount tells the repository, and where its token is kept; the daemon tells which record or draft the path
//! stands for. An id is of the repository that the settings name, or else of the only mount. Used by all commands that
//! decide something; nothing is changed here.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::address::parse_url;
use crate::cli::mountinfo::{self, Mount};
use crate::cli::named::{self, Named};
use crate::cli::probe::{self, Answer};
use crate::cli::settings::{Credentials, Sources};
use crate::cli::sources::Layer;
use crate::cli::within::{self, Within};
use crate::cli::{control, server};
use crate::error::{Error, Kind, Result};
use crate::repository::model::{Record, RecordId};
use crate::repository::{Repository, Settings, Token};
use crate::status::Status;

/// Which repository is meant, and how to get in.
#[derive(Args, Clone, Default)]
pub struct Access {
    /// The repository's address [default: that of the mount, or INVENIORDM_URL, or config.toml]
    #[arg(long, value_name = "URL", conflicts_with = "mount")]
    pub repository: Option<String>,
    /// The mount whose repository is meant
    #[arg(long, value_name = "MOUNTPOINT")]
    pub mount: Option<PathBuf>,
    #[command(flatten)]
    pub credentials: Credentials,
}

/// A repository, and how it is mounted.
pub struct Place {
    /// The client, with the user's token.
    pub repository: Repository,
    /// The settings it was made from.
    pub sources: Sources,
    /// The mount that a path lies in, or that was named.
    pub mountpoint: Option<PathBuf>,
}

/// A mount of the repository that answers.
pub struct Mounted {
    /// Where.
    pub mountpoint: PathBuf,
    /// What it says of itself.
    pub status: Box<Status>,
}

/// What a word stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An id, a DOI or a page alone: of a record, a draft or both.
    Id,
    /// A path below a published record.
    Record,
    /// A path below a draft.
    Draft,
}

/// A record or draft of a repository.
pub struct Target {
    /// Where it is.
    pub place: Place,
    /// Its id.
    pub id: RecordId,
    /// What the word said of it.
    pub what: What,
}

impl Place {
    /// The repository that the settings name, or else that of the only mount.
    ///
    /// # Errors
    /// `Usage` if none or several are meant; if settings can't be read or a mount doesn't answer.
    pub fn of(access: &Access) -> Result<Place> {
        if let Some(place) = &access.mount {
            return Place::of_mount(&mountinfo::ours(Some(place))?[0], access);
        }
        let layer = Layer {
            url: access.repository.clone(),
            ..access.credentials.layer()
        };
        let sources = Sources::read(vec![layer], access.credentials.profile.as_deref())?;
        if sources.names_one() {
            return Place::connect(sources, None);
        }
        match mountinfo::ours(None)?.as_slice() {
            [only] => Place::of_mount(only, access),
            [] => Err(Error::new(Kind::Usage, "no repository given").with_advice(
                "Give a path in a mount, or name the repository with --repository, INVENIORDM_URL or config.toml.",
            )),
            _ => Err(Error::new(Kind::Usage, "several repositories are mounted")
                .with_advice("Say which one is meant with --mount or --repository, or give a path in it.")),
        }
    }

    /// The repository that a page is of: the one that is meant anyway, or else one that is mounted. A token goes nowhere
    /// only because a page is named.
    fn of_page(page: &str, access: &Access) -> Result<Place> {
        let is_it = |place: &Place| named::is_of(page, place.repository.url());
        let meant = Place::of(access);
        if let Ok(place) = &meant
            && is_it(place)?
        {
            return meant;
        }
        if access.mount.is_none() && access.repository.is_none() {
            for mount in mountinfo::ours(None)?
                .iter()
                .filter(|mount| mount.may_be_of(page))
            {
                if let Ok(place) = Place::of_mount(mount, access)
                    && is_it(&place)?
                {
                    return Ok(place);
                }
            }
        }
        let instead = match &meant {
            Ok(place) => format!("is no address of {}, which is meant", place.repository.url()),
            Err(error) if error.kind() == Kind::Usage => {
                "is of a repository that is neither named nor mounted".to_owned()
            }
            Err(_) => return meant,
        };
        let shown = named::without_query(page);
        Err(Error::new(Kind::Usage, format!("{shown} {instead}"))
            .with_advice("To go there with your token, name its repository with --repository."))
    }

    /// The record or draft that has a DOI.
    fn look_up(&self, doi: &str) -> Result<(RecordId, What)> {
        match self.repository.record_by_doi(doi) {
            Ok(record) => Ok((record.id, What::Id)),
            Err(error) if error.kind() == Kind::NotFound && self.repository.has_token() => {
                // One that is only reserved is known to whom the draft belongs.
                let draft = self.repository.draft_by_doi(doi)?;
                draft.map(|draft| (draft.id, What::Draft)).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The repository of a mount. What the command line says of the token goes before what the mount uses.
    fn of_mount(mount: &Mount, access: &Access) -> Result<Place> {
        let status = probe::status(&mount.mountpoint)?;
        let shown = mount.mountpoint.display();
        let url = parse_url(&status.repository)?;
        if let Some(given) = &access.repository
            && address(given)? != address(url.as_str())?
        {
            return Err(Error::new(
                Kind::Usage,
                format!("{shown} is a mount of {}, not of {given}", status.repository),
            ));
        }
        let credentials = &access.credentials;
        let given = Layer {
            url: Some(status.repository.clone()),
            ..credentials.layer()
        };
        let mut layers = vec![given];
        let says_token = credentials.token_file.is_some()
            || credentials.env_file.is_some()
            || credentials.profile.is_some();
        let of_mount = Layer {
            name: format!("the mount on {shown}"),
            url: Some(status.repository.clone()),
            ca_certificate: status.access.ca_certificate.clone(),
            insecure: status.access.insecure.then_some(true),
            ..Layer::default()
        };
        layers.push(if says_token {
            of_mount
        } else {
            Layer {
                token_file: status.access.token_file.clone(),
                env_file: status.access.env_file.clone(),
                ..of_mount
            }
        });
        let sources = Sources::read(layers, credentials.profile.as_deref())?;
        Place::connect(sources, Some(mount.mountpoint.clone()))
    }

    fn connect(sources: Sources, mountpoint: Option<PathBuf>) -> Result<Place> {
        let url = sources.url()?;
        let token = sources.token(&url)?;
        let repository = Repository::connect(Settings {
            url: url.as_str().trim_end_matches('/').to_owned(),
            token: token.as_deref().map(Token::new).transpose()?,
            ca_certificate: sources.ca_certificate(),
            insecure: sources.insecure(),
            ..Settings::default()
        })?;
        Ok(Place {
            repository,
            sources,
            mountpoint,
        })
    }

    /// The client, for what needs a user.
    ///
    /// # Errors
    /// `Denied` if there is no token; no request is made.
    pub fn signed_in(&self) -> Result<&Repository> {
        if self.repository.has_token() {
            return Ok(&self.repository);
        }
        Err(Error::new(
            Kind::Denied,
            format!("there is no token for {}", self.repository.url()),
        )
        .with_advice(
            "Name the file that holds it with --token-file, or set INVENIORDM_TOKEN beside INVENIORDM_URL, or token_file in \
             config.toml.",
        ))
    }

    /// The mounts of this repository that answer, the one that is meant first.
    #[must_use]
    pub fn mounts(&self) -> Vec<Mounted> {
        self.mounts_and_stuck().0
    }

    /// The mounts of this repository that answer, the one that is meant first; and those that may be of it and say nothing.
    #[must_use]
    pub fn mounts_and_stuck(&self) -> (Vec<Mounted>, Vec<PathBuf>) {
        let url = self.repository.url();
        let (mut found, mut stuck) = (Vec::new(), Vec::new());
        let Ok(mounts) = mountinfo::ours(None) else {
            return (found, stuck);
        };
        let here: Vec<Mount> = mounts
            .into_iter()
            .filter(|mount| mount.may_be_of(url) || self.mountpoint.as_ref() == Some(&mount.mountpoint))
            .collect();
        let answers = probe::ask_all(&here).unwrap_or_default();
        for (mount, answer) in here.into_iter().zip(answers) {
            match answer {
                Answer::Status(status) if status.repository == url => found.push(Mounted {
                    mountpoint: mount.mountpoint,
                    status,
                }),
                Answer::Stuck => stuck.push(mount.mountpoint),
                _ => {}
            }
        }
        found.sort_by_key(|mounted| self.mountpoint.as_ref() != Some(&mounted.mountpoint));
        (found, stuck)
    }

    /// Where a draft is to be found in a mount that can write to it; `None` if there is none.
    #[must_use]
    pub fn path_of_draft(&self, id: &RecordId) -> Option<PathBuf> {
        self.path_in(Path::new("drafts").join(id.as_str()))
    }

    /// Where a published record is to be found in a mount.
    #[must_use]
    pub fn path_of_record(&self, id: &RecordId) -> Option<PathBuf> {
        let mounted = self.mounts().into_iter().next()?;
        Some(mounted.mountpoint.join("records").join(id.as_str()))
    }

    fn path_in(&self, below: PathBuf) -> Option<PathBuf> {
        let mounted = self
            .mounts()
            .into_iter()
            .find(|mounted| mounted.status.signed_in && !mounted.status.read_only)?;
        Some(mounted.mountpoint.join(below))
    }

    /// The address of a record's page.
    #[must_use]
    pub fn page_of(&self, record: &Record) -> String {
        let kind = if record.is_draft { "uploads" } else { "records" };
        format!("{}/{kind}/{}", self.repository.url(), record.id)
    }
}

impl Target {
    /// Finds what a word stands for: a path in a mount, an id, a DOI or the address of a page.
    ///
    /// # Errors
    /// `NotFound` for a path that is of no record or draft; `Usage` for a word that is neither; as [`Place::of`].
    pub fn find(word: &Path, access: &Access) -> Result<Target> {
        let text = word.to_str().unwrap_or_default();
        if named::is_page(text) {
            return Target::named(text, Place::of_page(text, access)?);
        }
        let mounts = mountinfo::ours(None)?;
        let id = RecordId::new(text);
        let by_id = |place: Place, id: RecordId| Target {
            place,
            id,
            what: What::Id,
        };
        let Some(within) = within::locate(word, &mounts)? else {
            return match id {
                Some(id) => Ok(by_id(Place::of(access)?, id)),
                None if named::is_one(text) => Target::named(text, Place::of(access)?),
                None => Err(neither(word)),
            };
        };
        // The one on top, if several lie on each other.
        let mount = mounts
            .iter()
            .rev()
            .find(|mount| mount.mountpoint == within.mountpoint)
            .ok_or_else(|| neither(word))?;
        let place = Place::of_mount(mount, access)?;
        match (meant(&within), id) {
            (Ok((id, what)), _) => Ok(Target { place, id, what }),
            // In a folder of the mount, an id is an id.
            (Err(error), Some(id)) if error.kind() == Kind::Local(libc::ENOENT) => Ok(by_id(place, id)),
            (Err(error), None) if error.kind() == Kind::Local(libc::ENOENT) && named::is_one(text) => {
                Target::named(text, place)
            }
            (Err(error), _) if error.kind() == Kind::Local(libc::ENOENT) => {
                Err(Error::new(Kind::NotFound, error.to_string()).with_advice(error.advice().to_owned()))
            }
            (Err(error), _) => Err(error),
        }
    }
}

impl Target {
    /// What a DOI, or the address of a page of the repository, stands for.
    fn named(word: &str, place: Place) -> Result<Target> {
        let (id, what) = match named::read(word, place.repository.url())? {
            Named::Record(id) => (id, What::Record),
            Named::Draft(id) => (id, What::Draft),
            Named::Doi(doi) => place.look_up(&doi)?,
            Named::Community(_) | Named::Request(_) => {
                return Err(Error::new(
                    Kind::Usage,
                    "a record or draft is wanted, and that is the address of something else",
                ));
            }
        };
        Ok(Target { place, id, what })
    }
}

/// What the daemon says a path in its mount stands for.
fn meant(within: &Within) -> Result<(RecordId, What)> {
    let path = within.below_as_text().ok_or_else(|| neither(&within.below))?;
    let answer = control::ask(&within.mountpoint, &format!("which {path}"))?;
    let text = |name: &str| answer.get(name).and_then(serde_json::Value::as_str);
    let odd = || {
        Error::new(
            Kind::Internal,
            format!(
                "the daemon of {} does not tell what {path} is",
                within.mountpoint.display()
            ),
        )
        .with_advice("It may be of another version than this program: unmount it, then mount it again.")
    };
    let (what, id) = match (text("draft"), text("record")) {
        (Some(id), _) => (What::Draft, id),
        (None, Some(id)) => (What::Record, id),
        (None, None) => return Err(odd()),
    };
    Ok((RecordId::new(id).ok_or_else(odd)?, what))
}

/// An address as two of them can be compared.
fn address(text: &str) -> Result<String> {
    let url = parse_url(text)?;
    let text = url.as_str().trim_end_matches('/');
    Ok(text.strip_suffix("/api").unwrap_or(text).to_owned())
}

fn neither(word: &Path) -> Error {
    Error::new(
        Kind::Usage,
        format!("{} is in no mount, and no id of a record or draft", word.display()),
    )
    .with_advice(
        "Give the path of a record or draft in a mount (rdmfs status lists them), an id such as abcde-12345, a DOI or the \
         address of its page.",
    )
}

/// Advice for a failed request that fits the commands.
#[must_use]
pub fn advised(error: Error) -> Error {
    server::connection_advice(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_without_slashes_and_api() {
        let same = |one: &str, other: &str| address(one).unwrap() == address(other).unwrap();
        assert!(same("https://zenodo.org/", "https://zenodo.org"));
        assert!(same("https://example.org/api", "https://EXAMPLE.org"));
        assert!(!same("https://example.org/deep", "https://example.org"));
    }
}
