//! The command line: one file per subcommand, and what they share.
//!
//! It is the top floor: it reads settings, talks to people, starts the daemon and asks running ones. Two processes
//! make a mount: the guardian (`guard`), which stays small and cleans up whatever happens, and the worker (`worker`),
//! which serves the file system. Only here an error becomes an exit code.

mod address;
mod api;
mod ask;
mod cache;
mod community;
mod control;
mod damap;
mod decide;
mod doctor;
mod fuse;
mod guard;
mod mount;
mod mountinfo;
mod mountpoint;
mod named;
mod probe;
mod progress;
mod records;
mod report;
mod requests;
mod search;
mod server;
mod settings;
mod share;
mod sources;
mod status;
mod table;
mod target;
mod tell;
mod terminal;
mod units;
mod unmount;
mod uploads;
mod vocabulary;
mod watch;
mod within;
mod worker;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Result;

/// Mounts an InvenioRDM research-data repository (Zenodo, TU Wien, CERN, Caltech and many others) as a file system.
///
/// Published records are folders to read from; your own drafts are folders to drop files into.
#[derive(Parser)]
#[command(name = "rdmfs", version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  mkdir -p ~/zenodo
  rdmfs mount https://zenodo.org ~/zenodo
  ls ~/zenodo/records/1234567/files
  rdmfs unmount ~/zenodo

The exit code is 0 when it is done, 1 when it was refused or failed, 2 when the command makes no sense.";

#[derive(Subcommand)]
enum Command {
    Mount(Box<mount::Arguments>),
    #[command(visible_alias = "umount")]
    Unmount(unmount::Arguments),
    Status(status::Arguments),
    Uploads(uploads::Arguments),
    Cache(cache::Arguments),
    Share(share::Arguments),
    Community(Box<community::Arguments>),
    #[command(visible_alias = "request")]
    Requests(requests::Arguments),
    Search(search::Arguments),
    Vocabulary(vocabulary::Arguments),
    Damap(damap::Arguments),
    Api(api::Arguments),
    #[command(flatten)]
    Decide(decide::Decision),
    Doctor(doctor::Arguments),
    /// The small process that outlives the worker
    #[command(hide = true)]
    Guard(Daemon),
    /// The process that serves the file system
    #[command(hide = true)]
    Worker(Daemon),
    /// Prints a mount's status document
    #[command(hide = true)]
    Peek {
        /// The mount point
        mountpoint: PathBuf,
    },
    /// Tells a mount to do something
    #[command(hide = true)]
    Tell {
        /// The mount point
        mountpoint: PathBuf,
        /// What to do
        line: String,
    },
}

/// What the daemon's processes have in their command line, for people who look at `ps`. All else comes by a pipe.
#[derive(clap::Args)]
struct Daemon {
    /// Log more
    #[arg(short, action = clap::ArgAction::Count)]
    verbose: u8,
    /// The mount point
    mountpoint: PathBuf,
}

/// Runs the command line.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse_from(as_mount_helper(std::env::args_os().collect()));
    let done = |result: Result<ExitCode>| result.unwrap_or_else(|error| terminal::fail(&error));
    match cli.command {
        Command::Mount(arguments) => done(mount::run(&arguments)),
        Command::Unmount(arguments) => done(unmount::run(&arguments)),
        Command::Status(arguments) => done(status::run(&arguments)),
        Command::Cache(arguments) => done(cache::run(&arguments)),
        Command::Uploads(arguments) => done(uploads::run(&arguments)),
        Command::Share(arguments) => done(share::run(&arguments)),
        Command::Community(arguments) => done(community::run(&arguments)),
        Command::Requests(arguments) => done(requests::run(&arguments)),
        Command::Search(arguments) => done(search::run(&arguments)),
        Command::Vocabulary(arguments) => done(vocabulary::run(&arguments)),
        Command::Damap(arguments) => done(damap::run(&arguments)),
        Command::Api(arguments) => done(api::run(&arguments)),
        Command::Decide(decision) => done(decide::run(&decision)),
        Command::Doctor(arguments) => done(doctor::run(&arguments)),
        Command::Guard(daemon) => guard::run(daemon.verbose),
        Command::Worker(daemon) => worker::run(daemon.verbose),
        Command::Peek { mountpoint } => probe::peek(&mountpoint),
        Command::Tell { mountpoint, line } => control::tell(&mountpoint, &line),
    }
}

/// mount(8) runs `/sbin/mount.rdmfs URL MOUNTPOINT -o OPTIONS`, a link to this program, for lines of `/etc/fstab`.
fn as_mount_helper(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let called_as = arguments.first().map(Path::new).and_then(Path::file_name);
    if called_as.is_some_and(|name| name == "mount.rdmfs" || name == "mount.fuse.rdmfs") {
        arguments.insert(1, "mount".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_takes_a_token_as_an_argument() {
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments() {
                assert_ne!(argument.get_long(), Some("token"), "{}", command.get_name());
            }
        }
    }

    #[test]
    fn called_by_mount_it_mounts() {
        let arguments = as_mount_helper(
            ["/sbin/mount.rdmfs", "https://zenodo.org", "/mnt", "-o", "ro"]
                .map(Into::into)
                .into(),
        );
        assert!(matches!(Cli::parse_from(arguments).command, Command::Mount(_)));
    }
}
