//! `rdmfs damap`: naming published records in data management plans, where the repository knows a DAMAP server.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::ask::{Consent, Output};
use crate::cli::records::{note_rest, up_to};
use crate::cli::server::connection_advice;
use crate::cli::target::{Access, Place, Target};
use crate::cli::{table, tell, terminal};
use crate::error::Result;
use crate::repository::Search;

/// Name published records in your data management plans (TU Wien)
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

const EXAMPLES: &str = "\
Examples:
  rdmfs damap list
  rdmfs damap link ~/tuw/records/abcde-12345 1234";

#[derive(Subcommand)]
enum What {
    List(ListArguments),
    Link(LinkArguments),
}

/// List your plans
#[derive(Args)]
struct ListArguments {
    /// As many at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    access: Access,
}

/// Name a published record in a plan. Asks first: rdmfs can't take it out again
#[derive(Args)]
struct LinkArguments {
    /// The record: its id, or its path in a mount
    record: PathBuf,
    /// The plan's id, as rdmfs damap list prints it
    plan: String,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    access: Access,
}

/// Runs the command.
///
/// # Errors
/// If the repository knows no plans, or refuses.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.what {
        What::List(list) => list.output.end(plans(list).map_err(connection_advice)),
        What::Link(link) => link.output.end(name(link).map_err(connection_advice)),
    }
}

fn plans(arguments: &ListArguments) -> Result<ExitCode> {
    let place = Place::of(&arguments.access)?;
    let repository = place.signed_in()?;
    let found = up_to(
        arguments.limit,
        repository.largest_page(),
        Search::default(),
        |search| repository.plans(search),
    )?;
    if arguments.output.json {
        let plans: Vec<Value> = found.items.into_iter().map(|plan| plan.document.into()).collect();
        terminal::say(format_args!("{:#}", json!({"total": found.total, "hits": plans})));
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 2]> = found
        .items
        .into_iter()
        .map(|plan| [plan.id, plan.title])
        .collect();
    table::show(["ID", "TITLE"], &rows);
    note_rest(rows.len(), found.total);
    Ok(ExitCode::SUCCESS)
}

fn name(arguments: &LinkArguments) -> Result<ExitCode> {
    let Target { place, id, .. } = Target::find(&arguments.record, &arguments.access)?;
    let repository = place.signed_in()?;
    let record = repository.record(&id)?;
    let plan = terminal::printable(&arguments.plan);
    let question = format!(
        "Name record {} ({}) in plan {plan}?",
        record.id,
        terminal::printable(&record.title)
    );
    if !arguments.consent.to(&question)? {
        return Ok(ExitCode::FAILURE);
    }
    repository.link_to_plan(&arguments.plan, &record.id)?;
    tell::changed(&place, &[&record.id]);
    arguments.output.say(
        &json!({"record": record.id.as_str(), "plan": arguments.plan}),
        format_args!("record {} is named in plan {plan}", record.id),
    );
    Ok(ExitCode::SUCCESS)
}
