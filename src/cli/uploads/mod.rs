//! `rdmfs uploads`: what is not safe on the server yet, and what to do about it.
//!
//! `inventory` finds it, in running mounts and in the state directories; `list` shows it, `decide` tells a daemon to
//! retry or discard, `recover` copies the kept bytes. The journals are only read here: what changes them is a daemon.

mod decide;
mod inventory;
mod list;
mod recover;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::error::Result;

#[cfg(test)]
pub use inventory::tests::listed;
pub use inventory::{Inventory, Listed};

/// List files that are not safe on the server, and retry, discard or recover them
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    list: ListArguments,
}

const EXAMPLES: &str = "\
Examples:
  rdmfs uploads
  rdmfs uploads retry 7
  rdmfs uploads recover 7 ~/rescued/
  rdmfs uploads discard ~/zenodo/drafts/abcde-12345/a.csv

An ITEM is a number as listed, or the path of the file in a mount. A file is listed until
the repository has confirmed it by size and checksum. Those that the repository refuses, and
those that were never closed because the daemon was killed, are kept until you decide.";

#[derive(Subcommand)]
enum What {
    /// List what is not safe on the server, of all mounts and of repositories that are not mounted now
    List(ListArguments),
    Retry(RetryArguments),
    Discard(DiscardArguments),
    Recover(RecoverArguments),
}

#[derive(Args)]
struct ListArguments {
    /// Only the mount at this place, or only what is below this path in a mount
    #[arg(value_name = "MOUNTPOINT|PATH")]
    place: Option<PathBuf>,
    #[command(flatten)]
    state: StateArguments,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct StateArguments {
    /// Where files of repositories that are not mounted now are kept [default: ~/.local/state/rdmfs]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Try uploads again that were refused or that wait
#[derive(Args)]
struct RetryArguments {
    #[command(flatten)]
    which: Which,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Give files up: their kept bytes are removed. Asks first
#[derive(Args)]
struct DiscardArguments {
    #[command(flatten)]
    which: Which,
    /// Don't ask
    #[arg(short, long)]
    yes: bool,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Which {
    /// Numbers as listed, or paths in a mount
    #[arg(value_name = "ITEM", required_unless_present = "all")]
    items: Vec<PathBuf>,
    /// All that were refused; discard: those that were never closed as well
    #[arg(long, conflicts_with = "items")]
    all: bool,
    /// The mount that the numbers are of, if there are several
    #[arg(long, value_name = "MOUNTPOINT")]
    mount: Option<PathBuf>,
}

/// Copy the kept bytes of a file to another place; works without a mount too
#[derive(Args)]
struct RecoverArguments {
    /// A number as listed, or the path in a mount
    item: PathBuf,
    /// A file or a folder
    #[arg(default_value = ".")]
    destination: PathBuf,
    /// What was written and never closed, where there is an earlier, closed version as well
    #[arg(long)]
    unclosed: bool,
    /// Replace a file that is there
    #[arg(short, long)]
    force: bool,
    /// The mount that the number is of, or the address of its repository
    #[arg(long, value_name = "MOUNTPOINT|URL")]
    mount: Option<PathBuf>,
    #[command(flatten)]
    state: StateArguments,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// If an item isn't there, or what is asked for fails.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.what {
        None => list::run(&arguments.list),
        Some(What::List(list)) => list::run(list),
        Some(What::Retry(retry)) => decide::retry(retry),
        Some(What::Discard(discard)) => decide::discard(discard),
        Some(What::Recover(recover)) => recover::run(recover),
    }
}
