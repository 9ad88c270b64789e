//! What is decided of requests, and said of them.

use std::process::ExitCode;

use serde_json::Value;

use super::find::find;
use super::{ActArguments, CommentArguments};
use crate::cli::api::data;
use crate::cli::target::Place;
use crate::cli::tell;
use crate::cli::terminal::printable;
use crate::error::{Error, Kind, Result};
use crate::repository::Request;

/// Something to be done with a request.
pub(super) struct Action {
    name: &'static str,
    done: &'static str,
}

/// To accept.
pub(super) const ACCEPT: Action = Action {
    name: "accept",
    done: "accepted",
};
/// To decline.
pub(super) const DECLINE: Action = Action {
    name: "decline",
    done: "declined",
};
/// To cancel.
pub(super) const CANCEL: Action = Action {
    name: "cancel",
    done: "cancelled",
};

impl Action {
    /// What it will do, for who has to say yes to it.
    fn consequence(&self, request: &Request) -> &'static str {
        match (self.name, request.kind.as_str()) {
            ("accept", "community-submission") => "The draft is published by it, and that can't be undone.",
            ("accept", "community-inclusion") => "The record is in the community then.",
            ("accept", "community-invitation") => "The one who is invited is a member of the community then.",
            ("accept", "community-membership-request") => {
                "The one who asks is a member of the community then."
            }
            ("accept", "subcommunity" | "subcommunity-invitation") => {
                "The one community is a part of the other then."
            }
            ("accept", "guest-access-request" | "user-access-request") => {
                "The one who asks can open what is restricted then."
            }
            ("accept", "record-deletion") => "The record is deleted by it, and that can't be undone.",
            ("accept", "rdm-curation") => "The draft can be published then.",
            ("accept", _) => "It can't be undone.",
            _ => "It can't be undone; a new request can be made.",
        }
    }
}

/// Runs `accept`, `decline` or `cancel`.
///
/// # Errors
/// `Refused` if the request's state does not allow it.
pub(super) fn act(arguments: &ActArguments, action: &Action) -> Result<ExitCode> {
    let (place, request) = find(&arguments.which)?;
    // Told before anybody is asked; a list of nothing may be a server that tells none.
    if !request.actions.is_empty() && !request.allows(action.name) {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "can't {} request {}: it is {}, and you may {}",
                action.name,
                request.id,
                printable(&request.status),
                printable(&request.actions.join(", "))
            ),
        )
        .with_advice(format!("rdmfs requests show {} tells more.", request.id)));
    }
    let about = match &request.topic {
        Some(id) => format!(" about {id}"),
        None => String::new(),
    };
    let title = match request.title.as_str() {
        "" => String::new(),
        title => format!(" ({})", printable(title)),
    };
    let kind = printable(&request.kind);
    let by = match &request.creator_name {
        Some(name) => format!(" by {}", printable(name)),
        None => String::new(),
    };
    let to = match &request.receiver_name {
        Some(name) => format!(" to {}", printable(name)),
        None => String::new(),
    };
    let mut verb = action.name.to_owned();
    verb[..1].make_ascii_uppercase();
    let question = format!(
        "{verb} the {kind}{about}{title}{by}{to}? {}",
        action.consequence(&request)
    );
    if !arguments.consent.to(&question)? {
        return Ok(ExitCode::FAILURE);
    }
    let comment = arguments.comment.as_deref();
    let done = place
        .signed_in()?
        .act_on_request_for_sure(&request, action.name, comment)?;
    tell_of(&place, &done);
    arguments.which.output.say(
        &Value::Object(done.document.clone()),
        format_args!("request {} is {}", done.id, action.done),
    );
    Ok(ExitCode::SUCCESS)
}

/// What it was about may be published now, or be a plain draft again, and be in a community or not.
fn tell_of(place: &Place, request: &Request) {
    match &request.topic {
        Some(id) => tell::changed(place, &[id]),
        None => tell::changed_at(place, &[""]),
    }
    if let Some((kind, id)) = &request.receiver
        && kind == "community"
        && !id.contains(char::is_whitespace)
    {
        tell::changed_at(place, &[&format!("communities/{id}")]);
    }
}

/// Runs `comment`.
///
/// # Errors
/// `Usage` for an empty comment; `NotFound`, `Denied`.
pub(super) fn comment(arguments: &CommentArguments) -> Result<ExitCode> {
    let text = String::from_utf8(data(&arguments.text)?.into())
        .map_err(|_| Error::new(Kind::Usage, "the comment is no text"))?;
    if text.trim().is_empty() {
        return Err(Error::new(Kind::Usage, "the comment is empty"));
    }
    let (place, request) = find(&arguments.which)?;
    let said = place.signed_in()?.comment_on_request(&request.id, &text)?;
    arguments.which.output.say(
        &Value::Object(said.document),
        format_args!("said of request {}", request.id),
    );
    Ok(ExitCode::SUCCESS)
}
