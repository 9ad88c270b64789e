//! `rdmfs reserve-doi` and `release-doi`.

use std::process::ExitCode;

use clap::Args;

use super::{About, draft_of, draft_value, tell};
use crate::error::{Error, Kind, Result};

/// Reserve a DOI for a draft and print it; it is registered when the draft is published
#[derive(Args)]
pub struct Reserve {
    #[command(flatten)]
    pub(super) about: About,
}

/// Give the reserved DOI of a draft back
#[derive(Args)]
pub struct Release {
    #[command(flatten)]
    pub(super) about: About,
}

/// Runs `reserve-doi`. A DOI that is there already is printed: what was asked for is so.
///
/// # Errors
/// If it is refused.
pub fn reserve(arguments: &Reserve) -> Result<ExitCode> {
    let target = arguments.about.find()?;
    let mut draft = draft_of(&target)?;
    if draft.doi().is_none() {
        draft = target.place.repository.reserve_doi(&target.id)?;
        tell(&target.place, &draft);
    }
    let Some(doi) = draft.doi() else {
        return Err(Error::new(
            Kind::ServerFailed,
            format!("the repository reserved no DOI for draft {}", draft.id),
        ));
    };
    arguments
        .about
        .output
        .say(&draft_value(&target.place, &draft), doi);
    Ok(ExitCode::SUCCESS)
}

/// Runs `release-doi`.
///
/// # Errors
/// If it is refused; `NotFound` if there is none.
pub fn release(arguments: &Release) -> Result<ExitCode> {
    let target = arguments.about.find()?;
    let before = draft_of(&target)?;
    let Some(doi) = before.doi() else {
        return Err(Error::new(
            Kind::NotFound,
            format!("no DOI is reserved for draft {}", before.id),
        )
        .with_advice("There is nothing to give back."));
    };
    let draft = target
        .place
        .repository
        .release_doi(&target.id)
        .map_err(|error| match error.kind() {
            Kind::Refused => error.with_advice("A DOI that is registered stays for good."),
            _ => error,
        })?;
    tell(&target.place, &draft);
    arguments.about.output.say(
        &draft_value(&target.place, &draft),
        format_args!("{doi} is no longer reserved for {}", draft.id),
    );
    Ok(ExitCode::SUCCESS)
}
