//! `rdmfs curation`: the request by which a draft is curated before it is published, where a repository wants that.
//!
//! `check` and `publish` ask here whether one is in the way, `edit` whether a change would take an acceptance back.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::check::Obstacle;
use super::{About, draft_of, tell};
use crate::cli::ask::{Consent, Output};
use crate::cli::target::Target;
use crate::cli::terminal::{self, printable};
use crate::error::{Error, Kind, Result};
use crate::repository::model::{Record, RecordId};
use crate::repository::{Repository, Request};

/// What somebody should know who has an accepted draft.
pub const WARNING: &str = "its curation is accepted; a change of its metadata takes that back, also one that is saved to record.json in a mount";

/// Have a draft curated, where the repository wants that before it is published
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

const EXAMPLES: &str = "\
Examples:
  rdmfs curation submit ~/tuwien/drafts/abcde-12345
  rdmfs curation status abcde-12345
  rdmfs curation resubmit abcde-12345 --comment 'Units added'

A request is submitted, taken in review, then accepted, or critiqued and resubmitted. Changing
the metadata of an accepted draft takes the acceptance back. review, critique, accept and
decline are for curators.";

#[derive(Subcommand)]
enum What {
    /// Ask for a draft to be curated; asks first, because the curators can see it then
    Submit(Submit),
    /// Show how the request for a draft stands
    Status(Status),
    /// Submit it again, after a critique or when the request was closed
    Resubmit(Step),
    /// Take the request back
    Cancel(Step),
    /// As a curator: take a request in review
    Review(Step),
    /// As a curator: say what is to be changed
    Critique(Step),
    /// As a curator: let the draft be published
    Accept(Step),
    /// As a curator: close the request
    Decline(Step),
}

#[derive(Args)]
struct Submit {
    #[command(flatten)]
    about: About,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Args)]
struct Status {
    #[command(flatten)]
    about: About,
}

#[derive(Args)]
struct Step {
    #[command(flatten)]
    about: About,
    /// What is said with it
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

impl Arguments {
    fn about(&self) -> &About {
        match &self.what {
            What::Submit(submit) => &submit.about,
            What::Status(status) => &status.about,
            What::Resubmit(step)
            | What::Cancel(step)
            | What::Review(step)
            | What::Critique(step)
            | What::Accept(step)
            | What::Decline(step) => &step.about,
        }
    }

    /// How it is printed.
    pub fn output(&self) -> Output {
        self.about().output
    }
}

/// Runs the command.
///
/// # Errors
/// If there is no such request, or it is refused.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let target = arguments.about().find()?;
    let (request, text) = match &arguments.what {
        What::Submit(submit) => match self::submit(&target, submit.consent)? {
            Some(request) => (request, "submitted"),
            None => return Ok(ExitCode::FAILURE),
        },
        What::Status(_) => (request_of(&target)?, ""),
        What::Resubmit(step) => (act(&target, "resubmit", step)?, "resubmitted"),
        What::Cancel(step) => (act(&target, "cancel", step)?, "cancelled"),
        What::Review(step) => (act(&target, "review", step)?, "in review"),
        What::Critique(step) => (act(&target, "critique", step)?, "critiqued"),
        What::Accept(step) => (act(&target, "accept", step)?, "accepted"),
        What::Decline(step) => (act(&target, "decline", step)?, "declined"),
    };
    let text = if text.is_empty() {
        request.status.as_str()
    } else {
        text
    };
    arguments.output().say(
        &value(&target, &request),
        format_args!("{}\t{}\t{}", target.id, printable(text), request.id),
    );
    if request.status == "accepted" {
        terminal::note(WARNING);
    } else if target.place.repository.acceptance_was_taken_back(&request)? {
        terminal::note("a change of the draft took its acceptance back");
    }
    Ok(ExitCode::SUCCESS)
}

fn value(target: &Target, request: &Request) -> Value {
    json!({
        "draft": target.id.as_str(),
        "id": request.id.as_str(),
        "status": request.status,
        "is_open": request.is_open,
        "title": request.title,
        "actions": request.actions,
    })
}

fn submit(target: &Target, consent: Consent) -> Result<Option<Request>> {
    let repository = &target.place.repository;
    let draft = draft_of(target)?;
    let question = format!(
        "Submit draft {} \"{}\" for curation? The curators can see it then.",
        draft.id,
        printable(&draft.title)
    );
    if !consent.to(&question)? {
        return Ok(None);
    }
    let request = match repository.submit_curation(&draft.id) {
        // Was it carried out?
        Err(error) if error.kind().is_passing() => match repository.curation_of(&draft.id) {
            Ok(Some(request)) => request,
            _ => return Err(error),
        },
        outcome => outcome?,
    };
    tell(&target.place, &draft);
    Ok(Some(request))
}

fn act(target: &Target, action: &str, step: &Step) -> Result<Request> {
    let repository = &target.place.repository;
    let request = request_of(target)?;
    let outcome = match repository.act_on_request(&request.id, action, step.comment.as_deref()) {
        // Was it carried out?
        Err(error) if error.kind().is_passing() => match repository.request(&request.id) {
            Ok(now) if now.status == status_after(action) && now.status != request.status => Ok(now),
            _ => Err(error),
        },
        outcome => outcome,
    };
    outcome.map_err(|error| match error.kind() {
        Kind::Refused | Kind::Denied => {
            let allowed = if request.actions.is_empty() {
                "nothing".to_owned()
            } else {
                request.actions.join(", ")
            };
            error.with_advice(format!(
                "The request is '{}'; what you can do with it now: {allowed}.",
                request.status
            ))
        }
        _ => error,
    })
}

/// The status that an action leads to.
fn status_after(action: &str) -> &str {
    match action {
        "resubmit" => "resubmitted",
        "cancel" => "cancelled",
        "critique" => "critiqued",
        "accept" => "accepted",
        "decline" => "declined",
        // `review` is called like its status.
        other => other,
    }
}

fn request_of(target: &Target) -> Result<Request> {
    let id = &target.id;
    target.place.repository.curation_of(id)?.ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            format!("there is no curation request for draft {id}"),
        )
        .with_advice(format!(
            "rdmfs curation submit {id} makes one; one that was made a second ago may not be listed yet."
        ))
    })
}

/// How a draft stands with the curators.
#[derive(Default)]
pub struct Standing {
    /// Its request, if there is one.
    pub request: Option<Request>,
    /// What is in the way of publishing it.
    pub obstacle: Option<Obstacle>,
}

/// How a draft stands with the curators. That there is no request may only mean that it is not listed yet: the server decides
/// then.
///
/// # Errors
/// If the repository can't be asked.
pub fn standing(repository: &Repository, draft: &Record) -> Result<Standing> {
    let Some(rules) = repository.curation_rules()? else {
        return Ok(Standing::default());
    };
    let request = repository.curation_of(&draft.id)?;
    if rules.is_privileged || (draft.is_published && rules.publishing_edits) {
        return Ok(Standing {
            request,
            obstacle: None,
        });
    }
    let id = &draft.id;
    let obstacle = match &request {
        None => Some(Obstacle {
            what: "it has to be curated before it is published".into(),
            advice: format!("submit it (rdmfs curation submit {id})"),
        }),
        Some(request) if request.status == "accepted" => None,
        Some(request) => Some(Obstacle {
            what: format!(
                "it has to be accepted by the curators; the request is '{}'{}",
                printable(&request.status),
                if repository.acceptance_was_taken_back(request)? {
                    ", because a change of the draft took an acceptance back"
                } else {
                    ""
                }
            ),
            advice: if request.allows("resubmit") {
                format!("change what they ask for, then rdmfs curation resubmit {id}")
            } else {
                format!("wait for them (rdmfs curation status {id})")
            },
        }),
    };
    Ok(Standing { request, obstacle })
}

/// The server's empty refusal to publish, in words.
#[must_use]
pub fn needed(repository: &Repository, id: &RecordId, error: &Error) -> Error {
    let status = match repository.curation_of(id) {
        Ok(Some(request)) => format!("its curation request is '{}'", printable(&request.status)),
        Ok(None) => "it has no curation request".to_owned(),
        Err(_) => "how its curation request stands is not known".to_owned(),
    };
    let needed = Error::new(
        Kind::NotReady,
        format!("draft {id} can't be published until the curators have accepted it; {status}"),
    )
    .with_advice(format!(
        "rdmfs curation submit {id} asks them, rdmfs curation status {id} tells how it stands."
    ));
    match error.attempt() {
        Some(attempt) => needed.with_attempt(attempt.clone()),
        None => needed,
    }
}

/// Whether a change of a draft's metadata may be sent: it takes an acceptance back, so that is asked for.
///
/// # Errors
/// `Usage` if there is nobody to ask; if the repository can't be asked.
pub fn allows_change(repository: &Repository, draft: &Record, consent: Consent) -> Result<bool> {
    let Some(rules) = repository.curation_rules()? else {
        return Ok(true);
    };
    if rules.is_privileged || (draft.is_published && rules.publishing_edits) {
        return Ok(true);
    }
    let accepted = repository
        .curation_of(&draft.id)?
        .is_some_and(|request| request.status == "accepted");
    if !accepted {
        return Ok(true);
    }
    let id = &draft.id;
    terminal::note(format_args!(
        "the curation of draft {id} is accepted; a change of its metadata takes that back"
    ));
    consent.to("Change it all the same? The curators have to accept it again.")
}
