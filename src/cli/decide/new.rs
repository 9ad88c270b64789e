//! `rdmfs new`: makes a draft.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value};

use super::{document, draft_lines, draft_value};
use crate::cli::ask::{self, Output};
use crate::cli::target::{Access, Place};
use crate::cli::{tell, terminal};
use crate::error::{Error, FieldError, Kind, Result};

/// Make a draft; prints its id, and its path if the repository is mounted
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Its title; may be left out if the metadata has one
    title: Option<String>,
    /// JSON file with metadata: a record as in record.json, or its "metadata" alone; - is stdin
    #[arg(long, value_name = "FILE")]
    metadata: Option<PathBuf>,
    /// Choose this community for it; it is not submitted yet
    #[arg(long, value_name = "SLUG|UUID")]
    community: Option<String>,
    /// It will have no files
    #[arg(long)]
    metadata_only: bool,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    pub output: Output,
}

const EXAMPLES: &str = "\
Examples:
  rdmfs new \"Ozone over Vienna\"
  rdmfs new --metadata ozone.json --community climate
  cp *.csv \"$(rdmfs new 'Ozone over Vienna' | tail -1)\"

The first line printed is the id; the second, if the repository is mounted, the folder.
mkdir drafts/\"Ozone over Vienna\" in a mount makes one, too.";

/// Runs the command.
///
/// # Errors
/// If it is refused; `Refused` too if it was made and something of it was not accepted.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let given = match &arguments.metadata {
        Some(path) => document::read(path)?,
        None => Map::new(),
    };
    let document = document::of_new_draft(given, arguments.title.as_deref(), arguments.metadata_only);
    if document["metadata"]["title"]
        .as_str()
        .unwrap_or_default()
        .is_empty()
    {
        return Err(Error::new(Kind::Usage, "the draft has no title")
            .with_advice("Give one: rdmfs new \"Ozone over Vienna\"."));
    }
    let place = Place::of(&arguments.access)?;
    let repository = place.signed_in()?;
    // One that isn't there is better known before there is a draft for it.
    let community = arguments
        .community
        .as_deref()
        .map(|name| repository.community(name))
        .transpose()?;
    let saved = repository.create_draft(&document).map_err(maybe_made)?;
    let draft = saved.record;
    let chosen = community.as_ref().map_or(Ok(()), |community| {
        repository.set_review(&draft.id, &community.id).map(drop)
    });
    tell::changed(&place, &[&draft.id]);
    let mut value = draft_value(&place, &draft);
    let missing: Vec<FieldError>;
    let refused: Vec<FieldError>;
    (refused, missing) = saved
        .problems
        .into_iter()
        .filter(|problem| problem.field != "files.enabled")
        .partition(|problem| document::gives(&document, &problem.field));
    value["not_accepted"] = ask::fields_value(&refused);
    value["missing"] = ask::fields_value(&missing);
    value["community"] = community
        .filter(|_| chosen.is_ok())
        .map_or(Value::Null, |community| Value::from(community.slug));
    let id = &draft.id;
    // The draft is there, whatever else failed.
    let lines = draft_lines(&place, &draft);
    if !refused.is_empty() {
        let error = Error::new(
            Kind::Refused,
            format!("draft {id} was made, but not all of its metadata was accepted"),
        )
        .with_fields(refused)
        .with_advice(format!("rdmfs edit {id} --metadata FILE corrects it."));
        if let Err(error) = chosen {
            terminal::note(format_args!("the community was not chosen, either: {error}"));
        }
        return Ok(arguments.output.end_halfway(value, lines, &error));
    }
    if let Err(error) = chosen {
        let error = error.during(format!("draft {id} was made, but the community was not chosen"));
        return Ok(arguments.output.end_halfway(value, lines, &error));
    }
    arguments.output.say(&value, lines);
    Ok(ExitCode::SUCCESS)
}

fn maybe_made(error: Error) -> Error {
    if error.kind().is_passing() {
        return error.with_advice(
            "The answer was lost, so it may have been made: look at your drafts before you try again.",
        );
    }
    error
}
