//! `rdmfs requests`: what is asked of the user and of others, and what the user decides.
//!
//! `find` tells which request is meant, `show` prints them, `decide` acts.

mod decide;
mod find;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::ask::{Consent, Output};
use crate::cli::server::connection_advice;
use crate::cli::target::Access;
use crate::error::Result;

/// List requests (reviews, inclusions in communities, curations), and accept, decline, cancel or comment on them
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

const EXAMPLES: &str = "\
Examples:
  rdmfs requests list
  rdmfs requests list --community glaciers
  rdmfs requests show 43b14e4f-05eb-4903-87b6-b80b225383ed
  rdmfs requests comment ~/zenodo/drafts/abcde-12345 'The units are corrected.'
  rdmfs requests accept 43b14e4f-05eb-4903-87b6-b80b225383ed --comment 'Thank you'

A REQUEST is its id as listed or the address of its page, or the id or the path of the record or draft
that it is about, if there is only one.";

#[derive(Subcommand)]
enum What {
    List(ListArguments),
    Show(ShowArguments),
    /// Accept a request; that of a draft publishes it. Asks first
    Accept(ActArguments),
    /// Decline a request. Asks first
    Decline(ActArguments),
    /// Cancel a request of your own. Asks first
    Cancel(ActArguments),
    Comment(CommentArguments),
}

/// List requests that wait for a decision
#[derive(Args)]
struct ListArguments {
    /// Those that are decided
    #[arg(long, conflicts_with = "all")]
    closed: bool,
    /// The decided ones too
    #[arg(long)]
    all: bool,
    /// Those to this community: its slug, its UUID, the address of its page, or its path in a mount
    #[arg(long, value_name = "COMMUNITY")]
    community: Option<PathBuf>,
    /// Only what this query finds
    #[arg(long, value_name = "QUERY")]
    query: Option<String>,
    /// As many at most
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    access: Access,
}

#[derive(Args)]
struct Which {
    /// The request's id, or the id or path of what it is about
    #[arg(value_name = "REQUEST")]
    request: PathBuf,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    access: Access,
}

/// Show a request: what it is about, what was said of it, and what you may do
#[derive(Args)]
struct ShowArguments {
    #[command(flatten)]
    which: Which,
}

#[derive(Args)]
struct ActArguments {
    #[command(flatten)]
    which: Which,
    /// What to say with it
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    #[command(flatten)]
    consent: Consent,
}

/// Say something of a request, in plain text
#[derive(Args)]
struct CommentArguments {
    #[command(flatten)]
    which: Which,
    /// What to say; - for stdin, @FILE for a file
    text: String,
}

/// Runs the command.
///
/// # Errors
/// If there is no such request, it is not the user's part, or its state does not allow it.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (output, outcome) = match &arguments.what {
        What::List(list) => (list.output, show::list(list)),
        What::Show(one) => (one.which.output, show::one(one)),
        What::Accept(act) => (act.which.output, decide::act(act, &decide::ACCEPT)),
        What::Decline(act) => (act.which.output, decide::act(act, &decide::DECLINE)),
        What::Cancel(act) => (act.which.output, decide::act(act, &decide::CANCEL)),
        What::Comment(comment) => (comment.which.output, decide::comment(comment)),
    };
    output.end(outcome.map_err(connection_advice))
}
