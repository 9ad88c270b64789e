//! Which request is meant: by its own id, or by that of the record or draft it is about.

use crate::cli::named::{self, Named};
use crate::cli::requests::Which;
use crate::cli::target::{Place, Target};
use crate::error::{Error, Kind, Result};
use crate::repository::model::RecordId;
use crate::repository::{Repository, Request, RequestFilter, RequestId, Search};

/// The repository and the request in it.
///
/// # Errors
/// `NotFound`, `Denied`; `Usage` if several are about the same record.
pub(super) fn find(which: &Which) -> Result<(Place, Request)> {
    if let Some(id) = which.request.to_str().and_then(RequestId::new) {
        let place = Place::of(&which.access)?;
        let request = place.signed_in()?.request(&id)?;
        return Ok((place, request));
    }
    if let Some(address) = which.request.to_str().filter(|word| word.contains("://")) {
        let place = Place::of(&which.access)?;
        if let Named::Request(id) = named::read(address, place.repository.url())? {
            let request = place.signed_in()?.request(&id)?;
            return Ok((place, request));
        }
    }
    let target = Target::find(&which.request, &which.access)?;
    let request = about(target.place.signed_in()?, &target.id)?;
    Ok((target.place, request))
}

/// The request about a record or draft.
fn about(repository: &Repository, id: &RecordId) -> Result<Request> {
    match repository.review(id) {
        // In full: only so it says what may be done with it.
        Ok(Some(review)) => return repository.request(&review.id),
        Ok(None) => {}
        // It may be published, or another's.
        Err(error) if !error.kind().is_passing() => {}
        Err(error) => return Err(error),
    }
    let search = Search {
        query: Some(format!("topic.record:\"{id}\"")),
        size: 10,
        ..Search::default()
    };
    let found = repository.requests(&search, RequestFilter::Open)?.items;
    // A query that the server doesn't understand may find others.
    let mut found = found.iter().filter(|request| request.topic.as_ref() == Some(id));
    match (found.next(), found.next()) {
        (Some(only), None) => repository.request(&only.id),
        (Some(_), Some(_)) => Err(Error::new(Kind::Usage, format!("several requests are about {id}"))
            .with_advice(format!(
                "Give the id of the one that is meant; rdmfs requests list --query 'topic.record:\"{id}\"' lists them."
            ))),
        (None, _) => Err(Error::new(Kind::NotFound, format!("no request about {id} waits for a decision"))
            .with_advice("rdmfs requests list shows what does, with --all what is decided too.")),
    }
}
