//! Curation requests (invenio-curations, TU Wien): a draft that a reviewer has to accept before it can be published.
//!
//! Called by `cli/`. What is done with such a request goes along `requests`. Beware: a changed PUT of a draft takes its
//! acceptance back (API notes, section 9).

use reqwest::Method;
use serde_json::{Value, json};

use super::model::RecordId;
use super::requests::{Request, RequestFilter};
use super::transport::{Ask, JSON};
use super::{Repository, Search};
use crate::error::{Error, Kind, Result};

/// How a repository curates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurationRules {
    /// The user publishes without being asked.
    pub is_privileged: bool,
    /// Edits of published records are published without a request.
    pub publishing_edits: bool,
}

/// As many events of a request are looked at; few have more than ten.
const EVENTS: u32 = 100;

impl Repository {
    /// How this repository curates; `None` if it does not.
    ///
    /// # Errors
    /// As any request.
    pub fn curation_rules(&self) -> Result<Option<CurationRules>> {
        let url = self.transport.base.api("curations/data")?;
        let answer = match self.ask(Ask::get(url, "ask how the repository curates").accept(JSON)) {
            Ok(answer) => answer,
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::NotSupported) => return Ok(None),
            Err(error) => return Err(error),
        };
        let flag = |name: &str| answer.value.get(name).and_then(Value::as_bool).unwrap_or(false);
        Ok(Some(CurationRules {
            is_privileged: flag("is_privileged"),
            publishing_edits: flag("publishing_edits"),
        }))
    }

    /// The curation request of a draft, as it is now; of several, the open one or else the latest. `None` if there is none,
    /// or it was made within the last second: lists learn of it a little later.
    ///
    /// # Errors
    /// `NotSupported` where nothing is curated, else as any request.
    pub fn curation_of(&self, id: &RecordId) -> Result<Option<Request>> {
        let search = Search {
            sort: Some("newest"),
            ..Search::default()
        };
        let doing = format!("look for the curation request of draft {id}");
        let topic = format!("record:{id}");
        let found = self
            .list(
                "curations/",
                &search,
                &[("topic", &topic)],
                &doing,
                Request::from_value,
            )
            .map_err(|error| uncurated(error, &doing))?;
        let of_draft: Vec<Request> = found
            .items
            .into_iter()
            .filter(|request| request.topic.as_ref() == Some(id))
            .collect();
        let chosen = of_draft
            .iter()
            .find(|request| request.is_open)
            .or_else(|| of_draft.first());
        // What the list knows may be a second old.
        chosen.map(|request| self.request(&request.id)).transpose()
    }

    /// Whether a request waits for the curators again because the draft was changed after they had accepted it.
    ///
    /// # Errors
    /// As any request.
    pub fn acceptance_was_taken_back(&self, request: &Request) -> Result<bool> {
        if request.status != "resubmitted" {
            return Ok(false);
        }
        let search = Search {
            size: EVENTS,
            ..Search::default()
        };
        let events = self.request_timeline(&request.id, &search)?.items;
        let decided = |event: &&str| matches!(*event, "accepted" | "critiqued" | "cancelled");
        let last = events
            .iter()
            .rev()
            .filter_map(|one| one.event.as_deref())
            .find(decided);
        Ok(last == Some("accepted"))
    }

    /// All curation requests that the user may see.
    ///
    /// # Errors
    /// `NotSupported` where nothing is curated, else as any request.
    pub fn curations(&self, search: &Search, filter: RequestFilter) -> Result<super::Listing<Request>> {
        let doing = "list curation requests";
        self.list_requests("curations/", search, filter, doing)
            .map_err(|error| uncurated(error, doing))
    }

    /// Asks for a draft to be curated. Not repeated: after a passing failure, [`Repository::curation_of`] shows whether it
    /// was done.
    ///
    /// # Errors
    /// `Refused` if there is a request for it, open or not (one that is closed can be resubmitted), `NotFound` for an unknown
    /// draft, `NotSupported` where nothing is curated, `Denied`, else as any request.
    pub fn submit_curation(&self, id: &RecordId) -> Result<Request> {
        // With the slash: without it, a redirect that a POST does not follow.
        let url = self.transport.base.api("curations/")?;
        let doing = format!("submit draft {id} for curation");
        let body = json!({"topic": {"record": id.as_str()}});
        let ask = Ask::new(Method::POST, url, doing.as_str()).body(&body);
        self.one_request(ask).map_err(|error| match error.kind() {
            // The server says it with an empty message.
            Kind::Refused if error.server_message().is_none() => {
                let mut refused = Error::new(
                    Kind::Refused,
                    format!("can't {doing}: there is a curation request for it already"),
                )
                .with_advice("Look at it with rdmfs curation status; a closed one can be resubmitted.");
                if let Some(attempt) = error.attempt() {
                    refused = refused.with_attempt(attempt.clone());
                }
                refused
            }
            _ => uncurated(error, &doing),
        })
    }
}

/// Where the package is not installed, the address leads nowhere.
fn uncurated(error: Error, doing: &str) -> Error {
    let no_route = error.kind() == Kind::NotSupported
        || (error.kind() == Kind::NotFound
            && error
                .server_message()
                .is_none_or(|text| text.contains("requested URL was not found")));
    if !no_route {
        return error;
    }
    Error::new(
        Kind::NotSupported,
        format!("can't {doing}: this repository has no curation requests"),
    )
    .with_advice("Drafts are published here without one.")
}
