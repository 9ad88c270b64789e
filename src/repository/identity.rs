//! Who answers: whether it is an InvenioRDM repository, which kind, and whether it takes the token.
//!
//! Asked once by `mount`, `login` and `doctor`. Everything here comes from two cheap searches.

use std::sync::atomic::Ordering;

use reqwest::Url;
use serde_json::Value;

use super::pacing::RateLimit;
use super::transport::{Ask, JSON};
use super::urls::Origin;
use super::{Repository, answer};
use crate::error::{Attempt, Error, Kind, Result};

/// The kind of installation, as far as it matters to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// InvenioRDM as it is packaged, or near to it.
    Invenio,
    /// Zenodo: numeric ids, small pages, ranges only elsewhere.
    Zenodo,
}

/// The release, as far as its answers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionHint {
    /// 12 or older: search results don't name their page.
    TwelveOrOlder,
    /// 13 or newer.
    ThirteenOrNewer,
}

/// What answers at the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The kind of installation.
    pub flavour: Flavour,
    /// The release.
    pub version: VersionHint,
    /// How many records it has, as far as this user sees.
    pub records: u64,
    /// Its rate limit, if it says so.
    pub rate_limit: Option<RateLimit>,
}

impl Repository {
    /// Finds out whether an InvenioRDM repository answers at the address.
    ///
    /// # Errors
    /// `NotARepository` if something else answers, `Usage` if it redirects to another address (where the token would
    /// not go), else as any request.
    pub fn identify(&self) -> Result<Identity> {
        let mut url = self.transport.base.api("records")?;
        url.set_query(Some("size=1"));
        // In the plain form: the one that records are read in does not name its page in any release.
        let mut ask = Ask::get(url, format!("look for a repository at {}", self.url())).accept(JSON);
        ask.json = false;
        let answer = self.ask(ask).map_err(|error| match error.kind() {
            Kind::NotFound | Kind::Refused | Kind::NotSupported => self.no_repository(error.attempt()),
            _ => error,
        })?;
        let origin = Origin::of(&answer.url);
        if origin != *self.transport.base.origin() {
            return Err(Error::new(
                Kind::Usage,
                format!("{} sends its visitors on to {origin}", self.url()),
            )
            .with_advice(format!(
                "Give {origin} as the address; a token goes only to the address given."
            )));
        }
        let hits = answer.value.pointer("/hits/hits").and_then(Value::as_array);
        let total = answer.value.pointer("/hits/total").and_then(Value::as_u64);
        let (Some(hits), Some(records)) = (hits, total) else {
            let attempt = Attempt {
                method: "GET",
                url: super::urls::shown(&answer.url),
                status: Some(answer.status),
                tries: 1,
                elapsed: std::time::Duration::ZERO,
            };
            let what = if answer::is_html(&answer.headers) {
                self.no_repository(Some(&attempt)).during("an HTML page came")
            } else {
                self.no_repository(Some(&attempt))
            };
            return Err(what);
        };
        let zenodo = self.is_zenodo.load(Ordering::Relaxed) || hits.iter().any(is_zenodo_record);
        self.is_zenodo.store(zenodo, Ordering::Relaxed);
        Ok(Identity {
            flavour: if zenodo { Flavour::Zenodo } else { Flavour::Invenio },
            // Zenodo's plain form is its own and tells nothing; it runs ahead of the releases.
            version: if zenodo || answer.value.get("page").is_some() {
                VersionHint::ThirteenOrNewer
            } else {
                VersionHint::TwelveOrOlder
            },
            records,
            rate_limit: RateLimit::from_headers(&answer.headers),
        })
    }

    /// The kind of installation, as far as its address and its answers have told.
    #[must_use]
    pub fn flavour_so_far(&self) -> Flavour {
        if self.is_zenodo.load(Ordering::Relaxed) {
            Flavour::Zenodo
        } else {
            Flavour::Invenio
        }
    }

    fn no_repository(&self, attempt: Option<&Attempt>) -> Error {
        let error = Error::new(
            Kind::NotARepository,
            format!("no InvenioRDM repository answers at {}", self.url()),
        );
        match attempt {
            Some(attempt) => error.with_attempt(attempt.clone()),
            None => error,
        }
    }

    /// Finds out whether the repository takes the token. A wrong one is otherwise silently ignored, and everything looks
    /// as it does to strangers.
    ///
    /// # Errors
    /// `Denied` if there is none or it is not taken, else as any request.
    pub fn check_token(&self) -> Result<()> {
        if !self.has_token() {
            return Err(Error::new(Kind::Denied, "no token is given").with_advice(
                "Make one in the repository (your profile, Applications, Personal access tokens) and give it with \
                 --token-file.",
            ));
        }
        let mut url = self.transport.base.api("user/records")?;
        url.set_query(Some("size=1"));
        let outcome = self.ask(Ask::get(url, "check the token"));
        match outcome {
            Err(error)
                if error.kind() == Kind::Denied && error.attempt().is_some_and(|a| a.status != Some(407)) =>
            {
                let mut denied = Error::new(Kind::Denied, "the repository does not accept this token")
                    .with_advice(
                        "It may be mistyped, expired or for another repository; make a new one there (your profile, \
                         Applications, Personal access tokens) and give it with --token-file.",
                    );
                if let Some(attempt) = error.attempt() {
                    denied = denied.with_attempt(attempt.clone());
                }
                Err(denied)
            }
            other => other.map(drop),
        }
    }
}

pub(super) fn is_zenodo_host(url: &Url) -> bool {
    url.host_str()
        .is_some_and(|host| host == "zenodo.org" || host.ends_with(".zenodo.org"))
}

fn is_zenodo_record(hit: &Value) -> bool {
    hit.get("conceptrecid").is_some()
        || hit
            .pointer("/pids/doi/identifier")
            .and_then(Value::as_str)
            .zip(hit.get("id").and_then(Value::as_str))
            .is_some_and(|(doi, id)| super::lists::is_zenodo_doi(doi, id))
}
