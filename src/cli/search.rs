//! `rdmfs search`: published records, as a table, as paths in a mount, or as JSON.

use std::process::ExitCode;

use clap::Args;

use crate::cli::records::How;
use crate::cli::server::connection_advice;
use crate::cli::target::{Access, Place};
use crate::error::Result;

/// Search published records
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// What to search for, in the repository's query syntax; with a ? before it, a whole query string
    #[arg(value_name = "QUERY", required = true)]
    query: Vec<String>,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    access: Access,
}

const EXAMPLES: &str = "\
Examples:
  rdmfs search --repository https://zenodo.org ozone Vienna
  rdmfs search 'metadata.title:ozone AND metadata.publication_date:[2020 TO *]' --sort newest
  rdmfs search '?q=ozone&resource_type=dataset&allversions=true' --json | jq -r '.hits[].id'
  rdmfs search ozone --paths | while read -r record; do ls \"$record/files\"; done

In a pipe, each record is a line: id, date, title and creators with tabs between them.
In a mount, search/QUERY/ is the same as a folder.";

/// Runs the command.
///
/// # Errors
/// If the query can't be searched, or the repository doesn't answer.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    arguments
        .how
        .output()
        .end(search(arguments).map_err(connection_advice))
}

fn search(arguments: &Arguments) -> Result<ExitCode> {
    let search = arguments.how.search(Some(&arguments.query.join(" ")))?;
    let place = Place::of(&arguments.access)?;
    arguments
        .how
        .show(&place, search, |search| place.repository.search(search))?;
    Ok(ExitCode::SUCCESS)
}
