//! `rdmfs discard`: drops a draft, or the edit of a published record.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{About, draft_of, pending, tell};
use crate::cli::ask::Consent;
use crate::cli::terminal::printable;
use crate::cli::units::Size;
use crate::error::{Kind, Result};

/// Drop a draft and its files, or the edit of a published record; asks first
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) about: About,
    #[command(flatten)]
    consent: Consent,
}

const EXAMPLES: &str = "\
Examples:
  rdmfs discard ~/zenodo/drafts/abcde-12345
  rdmfs discard --yes abcde-12345

What was published stays. Files of the draft that this machine has not sent yet are dropped
as well. rm -r drafts/abcde-12345 in a mount does the same, without asking.";

/// Runs the command.
///
/// # Errors
/// If there is no such draft, nobody can be asked, or it is refused.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let target = arguments.about.find()?;
    let repository = &target.place.repository;
    let draft = draft_of(&target)?;
    let unsent = pending::of(&target.place, &target.id)?;
    let title = printable(&draft.title);
    let id = &draft.id;
    let mut question = if draft.is_published {
        format!("Drop what was edited of record {id} \"{title}\"? What is published stays.")
    } else {
        let files = repository.draft_files(id)?;
        let bytes = files.iter().filter_map(|file| file.size).sum();
        format!(
            "Drop draft {id} \"{title}\" with {} files, {}? They are gone for good.",
            files.len(),
            Size(bytes)
        )
    };
    // What an earlier mount left, only a daemon drops.
    let in_mounts = unsent.iter().filter(|listed| listed.mountpoint.is_some()).count();
    if in_mounts > 0 {
        question.push_str(&format!(
            " {in_mounts} files that this machine has not sent yet are dropped, too."
        ));
    }
    if !arguments.consent.to(&question)? {
        return Ok(ExitCode::FAILURE);
    }
    repository.delete_draft(id).map_err(|error| {
        let review = || {
            repository
                .review(id)
                .ok()
                .flatten()
                .filter(|review| review.is_open)
        };
        match (error.kind(), review()) {
            (Kind::Refused | Kind::Denied, Some(review)) => error.with_advice(format!(
                "Take it back from the community first: rdmfs requests cancel {}.",
                review.id
            )),
            _ => error,
        }
    })?;
    let dropped = pending::drop_all(&unsent);
    tell(&target.place, &draft);
    arguments.about.output.say(
        &json!({
            "id": id.as_str(),
            "title": draft.title,
            "discarded": if draft.is_published { "edit" } else { "draft" },
            "unsent_files_dropped": dropped,
        }),
        format_args!("dropped {id}"),
    );
    Ok(ExitCode::SUCCESS)
}
