//! `rdmfs vocabulary`: the words that metadata may use, searched and read.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::ask::Output;
use crate::cli::records::{note_rest, up_to};
use crate::cli::server::connection_advice;
use crate::cli::target::{Access, Place};
use crate::cli::{table, terminal};
use crate::error::Result;
use crate::repository::Search;

/// Look words up that metadata may use: languages, licences, affiliations, funders, subjects ...
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

const EXAMPLES: &str = "\
Examples:
  rdmfs vocabulary types
  rdmfs vocabulary search licenses creative commons
  rdmfs vocabulary search affiliations '?suggest=tu wien'
  rdmfs vocabulary get licenses cc-by-4.0";

#[derive(Subcommand)]
enum What {
    Types(TypesArguments),
    Search(SearchArguments),
    Get(GetArguments),
}

/// List the vocabularies that there are
#[derive(Args)]
struct TypesArguments {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    access: Access,
}

/// Search a vocabulary
#[derive(Args)]
struct SearchArguments {
    /// The vocabulary, such as licenses
    #[arg(value_name = "TYPE")]
    kind: String,
    /// What to search for; with a ? before it, a whole query string. All words without
    query: Vec<String>,
    /// As many at most
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    access: Access,
}

/// Print a word of a vocabulary, as the repository has it, as JSON
#[derive(Args)]
struct GetArguments {
    /// The vocabulary, such as licenses
    #[arg(value_name = "TYPE")]
    kind: String,
    /// The word's id, such as cc-by-4.0
    id: String,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    access: Access,
}

/// Runs the command.
///
/// # Errors
/// If there is no such vocabulary or word, or the repository doesn't answer.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (output, outcome) = match &arguments.what {
        What::Types(types) => (types.output, list_types(types)),
        What::Search(search) => (search.output, search_words(search)),
        What::Get(get) => (get.output, print_word(get)),
    };
    output.end(outcome.map_err(connection_advice).map(|()| ExitCode::SUCCESS))
}

fn list_types(arguments: &TypesArguments) -> Result<()> {
    let place = Place::of(&arguments.access)?;
    let types = place.repository.vocabulary_types()?;
    if arguments.output.json {
        let types: Vec<Value> = types
            .iter()
            .map(|one| json!({"id": one.name, "count": one.count}))
            .collect();
        terminal::say(format_args!("{:#}", Value::Array(types)));
        return Ok(());
    }
    let rows: Vec<[String; 2]> = types
        .into_iter()
        .map(|one| {
            [
                one.name,
                one.count
                    .map_or_else(|| "-".to_owned(), |count| count.to_string()),
            ]
        })
        .collect();
    table::show(["TYPE", "WORDS"], &rows);
    Ok(())
}

fn search_words(arguments: &SearchArguments) -> Result<()> {
    let typed = arguments.query.join(" ");
    let search = match typed.is_empty() {
        true => Search::default(),
        false => Search::typed(&typed)?,
    };
    let place = Place::of(&arguments.access)?;
    let largest = place.repository.largest_page();
    let found = up_to(arguments.limit, largest, search, |search| {
        place.repository.vocabulary(&arguments.kind, search)
    })?;
    if arguments.output.json {
        let hits: Vec<_> = found.items.into_iter().map(|word| word.document).collect();
        terminal::say(format_args!("{:#}", json!({"total": found.total, "hits": hits})));
        return Ok(());
    }
    let rows: Vec<[String; 2]> = found
        .items
        .into_iter()
        .map(|word| [word.id, word.title])
        .collect();
    table::show(["ID", "TITLE"], &rows);
    note_rest(rows.len(), found.total);
    Ok(())
}

fn print_word(arguments: &GetArguments) -> Result<()> {
    let place = Place::of(&arguments.access)?;
    let word = place.repository.term(&arguments.kind, &arguments.id)?;
    terminal::say(format_args!("{:#}", Value::Object(word.document)));
    Ok(())
}
