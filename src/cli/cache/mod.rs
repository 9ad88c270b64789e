//! `rdmfs cache`: what is kept of published files, and what to keep, check and drop.
//!
//! `target` finds out which caches and which files are meant; `task` has it done, by the daemon of a mount or, where no
//! daemon uses the cache, here; `show` tells how it goes; `state` is `cache status`. What is decided about a copy is
//! decided by `content/`, in either case.

mod show;
mod state;
mod target;
mod task;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::terminal;
use crate::cli::units::Size;
use crate::content;
use crate::error::{Error, Kind, Result};
use crate::status::Fate;
use show::Show;
use target::Target;
use task::{Done, Order, What};

/// See what is kept of published files; keep files offline, check them, drop them
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    what: Command,
}

const EXAMPLES: &str = "\
Examples:
  rdmfs cache status
  rdmfs cache fetch --pin ~/zenodo/records/1234567
  rdmfs cache status ~/zenodo/records/1234567/files
  rdmfs cache unpin 1234567
  rdmfs cache verify ~/zenodo
  rdmfs cache clear --yes

A PATH is a file, a folder or a record in a mount, or the id of a record; the mount point itself
stands for all that its cache holds. Nothing in a cache is the only copy: what is dropped is
fetched again when it is read. Files written and not sent yet are not in it (rdmfs uploads).";

#[derive(Subcommand)]
enum Command {
    Status(StatusArguments),
    Fetch(FetchArguments),
    Unpin(UnpinArguments),
    Verify(VerifyArguments),
    Clear(ClearArguments),
}

#[derive(Args)]
struct Where {
    /// The mount that ids are of, or whose cache is meant
    #[arg(long, value_name = "MOUNTPOINT")]
    mount: Option<PathBuf>,
    /// The cache in this directory
    #[arg(long, value_name = "DIR", conflicts_with_all = ["mount", "paths"])]
    cache_dir: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// How much a cache holds, or how much of files is here, whether it is verified, and what is pinned
#[derive(Args)]
struct StatusArguments {
    /// Files, folders or records in a mount, or ids of records; none: whole caches
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    of: Where,
}

/// Keep files offline: fetch all there are at these places, and check them
#[derive(Args)]
struct FetchArguments {
    /// Files, folders or records in a mount, or ids of records
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Keep them until they are unpinned, whatever else is read
    #[arg(long)]
    pin: bool,
    /// The mount that ids are of
    #[arg(long, value_name = "MOUNTPOINT")]
    mount: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Let pinned files go: they may be dropped again when room is needed
#[derive(Args)]
struct UnpinArguments {
    /// Files, folders or records in a mount, or ids of records
    #[arg(value_name = "PATH", required_unless_present = "all")]
    paths: Vec<PathBuf>,
    /// All that are pinned
    #[arg(long, conflicts_with = "paths")]
    all: bool,
    #[command(flatten)]
    of: Where,
}

/// Read what is kept against its checksums, and drop what is wrong
#[derive(Args)]
struct VerifyArguments {
    /// Files, folders or records in a mount, or ids of records; none: whole caches
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    of: Where,
}

/// Drop what is kept and not open; asks first
#[derive(Args)]
struct ClearArguments {
    /// Files, folders or records in a mount, or ids of records; none: whole caches
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Also what is pinned
    #[arg(long)]
    pinned: bool,
    /// Don't ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    of: Where,
}

/// Runs the command.
///
/// # Errors
/// If what is named isn't there, or nothing can be done.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.what {
        Command::Status(status) => state::run(&status.paths, &status.of),
        Command::Fetch(fetch) => run_fetch(fetch),
        Command::Unpin(unpin) => {
            let targets = target::find(&unpin.paths, &unpin.of)?;
            act(&targets, What::Unpin, false, unpin.of.json)
        }
        Command::Verify(verify) => {
            let targets = target::find(&verify.paths, &verify.of)?;
            act(&targets, What::Verify, false, verify.of.json)
        }
        Command::Clear(clear) => run_clear(clear),
    }
}

fn run_fetch(fetch: &FetchArguments) -> Result<ExitCode> {
    let of = Where {
        mount: fetch.mount.clone(),
        cache_dir: None,
        json: fetch.json,
    };
    let targets = target::find(&fetch.paths, &of)?;
    if targets.iter().any(Target::is_whole) {
        return Err(Error::new(Kind::Usage, "that is a whole repository")
            .with_advice("Name records, folders or files in it, or ids of records."));
    }
    act(&targets, What::Fetch, fetch.pin, fetch.json)
}

fn run_clear(clear: &ClearArguments) -> Result<ExitCode> {
    let targets = target::find(&clear.paths, &clear.of)?;
    if !clear.yes && !targets.is_empty() && !terminal::ask(&question(&targets))? {
        terminal::note("nothing was dropped");
        return Ok(ExitCode::FAILURE);
    }
    act(&targets, What::Clear, clear.pinned, clear.of.json)
}

fn question(targets: &[Target]) -> String {
    let lines: Vec<String> = targets
        .iter()
        .map(|target| {
            if target.is_whole() {
                let found = content::survey(&target.directory);
                format!(
                    "  {} files, {}, in {}\n",
                    found.files,
                    Size(found.used),
                    target.directory.display()
                )
            } else {
                target.paths.iter().map(|path| format!("  {path}\n")).collect()
            }
        })
        .collect();
    format!(
        "{}Drop what is kept of this? It is fetched again when it is read.",
        lines.concat()
    )
}

/// Has it done, one cache after the other, and says what became of it.
fn act(targets: &[Target], what: What, pins: bool, json: bool) -> Result<ExitCode> {
    if targets.is_empty() && !json {
        terminal::say("there is no cache");
    }
    let mut all_well = true;
    let mut told: Vec<Value> = Vec::new();
    for target in targets {
        let mut show = Show::new(what, json);
        let order = Order { what, pins };
        let done = task::run(target, order, &mut show)?;
        show.end(&done);
        all_well &= is_well(what, &done);
        told.push(as_json(target, &done));
        if done.interrupted {
            break;
        }
    }
    if json {
        terminal::say(format_args!("{:#}", Value::Array(told)));
    }
    Ok(if all_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn is_well(what: What, done: &Done) -> bool {
    let count = |fate| done.work.counts.get(&fate).copied().unwrap_or(0);
    let is_wrong = what == What::Verify && count(Fate::Dropped) > 0;
    !done.interrupted && done.work.error.is_empty() && count(Fate::Failed) == 0 && !is_wrong
}

fn as_json(target: &Target, done: &Done) -> Value {
    let work = &done.work;
    json!({
        "directory": target.directory,
        "mountpoint": target.mountpoint,
        "interrupted": done.interrupted,
        "files": work.files_done,
        "bytes": work.bytes_done,
        "freed": work.freed,
        "counts": work.counts,
        "outcomes": done.outcomes,
        "error": (!work.error.is_empty()).then_some(&work.error),
        "advice": (!work.advice.is_empty()).then_some(&work.advice),
    })
}
