//! Records in communities: submitted, taken out, listed.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::change::{community_at, find, shown, tell_of};
use super::{RecordsArguments, RemoveArguments, SubmitArguments};
use crate::cli::ask::field_lines;
use crate::cli::decide::pending;
use crate::cli::target::{Place, Target, What};
use crate::cli::tell;
use crate::cli::terminal::{self, printable};
use crate::error::{Error, Kind, Result};
use crate::repository::{Inclusion, Inclusions, Request};

/// Runs `submit`.
///
/// # Errors
/// `Refused` with the fields; `NotReady` if files of the draft don't arrive.
pub(super) fn submit(arguments: &SubmitArguments) -> Result<ExitCode> {
    let target = Target::find(&arguments.target, &arguments.access)?;
    let names = names(&arguments.communities, &target.place)?;
    match is_draft(&target)? {
        true => submit_draft(arguments, &names, &target),
        false => submit_record(arguments, &names, &target),
    }
}

fn is_draft(target: &Target) -> Result<bool> {
    let repository = target.place.signed_in()?;
    match target.what {
        What::Draft => Ok(true),
        What::Record => Ok(false),
        What::Id => match repository.record(&target.id) {
            Ok(_) => Ok(false),
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Denied) => Ok(true),
            Err(error) => Err(error),
        },
    }
}

/// The communities by their slugs or UUIDs, also where the addresses of their pages are given.
fn names(given: &[String], place: &Place) -> Result<Vec<String>> {
    given
        .iter()
        .map(|word| match word.contains("://") {
            true => community_at(word, place),
            false => Ok(word.clone()),
        })
        .collect()
}

/// A draft goes to one community, which publishes it when it accepts.
fn submit_draft(arguments: &SubmitArguments, names: &[String], target: &Target) -> Result<ExitCode> {
    let (repository, id) = (target.place.signed_in()?, &target.id);
    let [name] = names else {
        return Err(
            Error::new(Kind::Usage, format!("draft {id} can go to one community only"))
                .with_advice("Once it is published, the others can be asked too."),
        );
    };
    let draft = repository.draft(id)?;
    if draft.is_published {
        return Err(Error::new(
            Kind::Refused,
            format!("draft {id} is an edit of a published record"),
        )
        .with_advice(format!(
            "Publish the edit, and submit the record: rdmfs community submit {id} {}",
            printable(name)
        )));
    }
    let community = repository.community(name)?;
    // What is not sent yet would be missing in what is reviewed, and published.
    pending::drain(&target.place, id)?;
    let at_once = match arguments.review {
        true => "It is published when they accept.",
        false => {
            "It is published when they accept, or at once where you need no review, and that can't be undone."
        }
    };
    let question = format!(
        "Submit draft {id} ({}) to {}? {at_once}",
        printable(&draft.title),
        shown(&community)
    );
    let before = repository.review(id)?;
    if let Some(request) = before.as_ref().filter(|request| request.is_open) {
        return Err(Error::new(
            Kind::Refused,
            format!("draft {id} is submitted already: request {}", request.id),
        )
        .with_advice(format!("rdmfs requests cancel {} takes it back.", request.id)));
    }
    // Servers take drafts in that can't be published, and fail when they are accepted.
    let check = repository
        .draft(id)
        .and_then(|draft| repository.check_draft(draft));
    if let Ok(check) = check
        && !check.problems.is_empty()
    {
        terminal::note(format_args!("as draft {id} is now, it could not be published:"));
        field_lines(&check.problems).iter().for_each(terminal::complain);
    }
    if !arguments.consent.to(&question)? {
        return Ok(ExitCode::FAILURE);
    }
    let chosen = repository.set_review(id, &community.id)?;
    let submitted = repository.submit_review(id, arguments.comment.as_deref(), !arguments.review);
    let request = match submitted {
        Ok(request) => request,
        // Publishing large drafts takes longer than some proxies wait.
        Err(error) if error.kind().is_passing() => match repository.request(&chosen.id) {
            Ok(request) if request.status != "created" => request,
            _ => return Err(error),
        },
        Err(error) => {
            // A community that was chosen and not asked would be in the way of publishing without it. That it can't be taken
            // back is nothing to add to why it was refused.
            if before.is_none() {
                let _ = repository.delete_review(id);
            }
            return Err(error);
        }
    };
    tell::changed(&target.place, &[id]);
    tell_of(&target.place, &[&community.slug]);
    let text = match request.status.as_str() {
        "accepted" => format!("{id} is published in {}", printable(&community.slug)),
        _ => format!(
            "{id} is submitted to {}: request {}, {}",
            printable(&community.slug),
            request.id,
            printable(&request.status)
        ),
    };
    arguments.output.say(&Value::Object(request.document), text);
    Ok(ExitCode::SUCCESS)
}

fn submit_record(arguments: &SubmitArguments, names: &[String], target: &Target) -> Result<ExitCode> {
    let (repository, id) = (target.place.signed_in()?, &target.id);
    if arguments.review {
        return Err(Error::new(
            Kind::Usage,
            format!("{id} is published: whether it is reviewed, the community decides"),
        ));
    }
    let record = repository.record(id)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let listed = printable(&names.join(", "));
    let question = format!(
        "Ask for record {} ({}) to be in {listed}?",
        record.id,
        printable(&record.title)
    );
    if !arguments.consent.to(&question)? {
        return Ok(ExitCode::FAILURE);
    }
    let asked = repository.submit_to_communities(&record.id, &names, arguments.comment.as_deref())?;
    tell::changed(&target.place, &[&record.id]);
    tell_of(&target.place, &names);
    let Inclusions { asked, refused } = asked;
    if arguments.output.json && refused.is_none() {
        let asked: Vec<Value> = asked.iter().map(inclusion).collect();
        terminal::say(format_args!("{:#}", Value::Array(asked)));
    } else if !arguments.output.json {
        for one in &asked {
            let name = printable(&one.community);
            match &one.request {
                Some(request) if request.status == "accepted" => {
                    terminal::say(format_args!("{} is in {name}", record.id));
                }
                Some(Request {
                    id: request, status, ..
                }) => terminal::say(format_args!(
                    "{name} is asked: request {request}, {}",
                    printable(status)
                )),
                None => terminal::say(format_args!("{name} is asked")),
            }
        }
    }
    refused.map_or(Ok(ExitCode::SUCCESS), Err)
}

fn inclusion(one: &Inclusion) -> Value {
    let request = one.request.as_ref().map(|request| &request.document);
    json!({"community": one.community, "request": request})
}

/// Runs `remove`.
///
/// # Errors
/// `Refused` with the communities it is not in, and for a draft that a community has been asked about.
pub(super) fn remove(arguments: &RemoveArguments) -> Result<ExitCode> {
    let target = Target::find(&arguments.target, &arguments.access)?;
    if is_draft(&target)? {
        return take_choice_back(arguments, &target);
    }
    let Target { place, id, .. } = target;
    let repository = place.signed_in()?;
    let record = repository.record(&id)?;
    let names = names(&arguments.communities, &place)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let listed = printable(&names.join(", "));
    let question = format!(
        "Take record {} ({}) out of {listed}? Only they can let it in again.",
        record.id,
        printable(&record.title)
    );
    if !arguments.consent.to(&question)? {
        return Ok(ExitCode::FAILURE);
    }
    let removed = repository.remove_from_communities(&record.id, &names);
    // Out of some of several it may be all the same.
    tell::changed(&place, &[&record.id]);
    tell_of(&place, &names);
    removed?;
    arguments.output.say(
        &json!({"record": record.id.as_str(), "removed": names}),
        format_args!("{} is not in {listed} any more", record.id),
    );
    Ok(ExitCode::SUCCESS)
}

/// The community that was chosen for a draft is no more. Nobody was asked yet, so nothing is lost by it.
fn take_choice_back(arguments: &RemoveArguments, target: &Target) -> Result<ExitCode> {
    let (repository, id) = (target.place.signed_in()?, &target.id);
    // Whether it is a draft at all.
    repository.draft(id)?;
    let Some(review) = repository.review(id)? else {
        return Err(Error::new(
            Kind::Refused,
            format!("no community was chosen for draft {id}"),
        ));
    };
    if review.is_open {
        let request = &review.id;
        return Err(Error::new(
            Kind::Refused,
            format!("draft {id} is submitted already: request {request}"),
        )
        .with_advice(format!("rdmfs requests cancel {request} takes it back.")));
    }
    let names = names(&arguments.communities, &target.place)?;
    for name in &names {
        let uuid = repository.community(name)?.id;
        if review.receiver.as_ref().is_none_or(|(_, chosen)| *chosen != uuid) {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "{} is not the community that was chosen for draft {id}",
                    printable(name)
                ),
            ));
        }
    }
    repository.delete_review(id)?;
    tell::changed(&target.place, &[id]);
    let listed = printable(&names.join(", "));
    arguments.output.say(
        &json!({"record": id.as_str(), "removed": names}),
        format_args!("draft {id} goes to {listed} no more"),
    );
    Ok(ExitCode::SUCCESS)
}

/// Runs `records`.
///
/// # Errors
/// `NotFound`, `Denied`, `Refused` for what can't be searched.
pub(super) fn list(arguments: &RecordsArguments) -> Result<ExitCode> {
    let typed = Some(arguments.query.join(" ")).filter(|query| !query.is_empty());
    let search = arguments.how.search(typed.as_deref())?;
    let (place, name) = find(&arguments.community, &arguments.access)?;
    arguments.how.show(&place, search, |search| {
        place.repository.community_records(&name, search)
    })?;
    Ok(ExitCode::SUCCESS)
}
