//! The worker: the process in which `mount::serve` runs.
//!
//! It ends when the mount is taken off. On a signal `serve` finishes its uploads and unmounts; here the end of the
//! guardian becomes such a signal, so that nobody has to look after a mount that has lost its guardian.

use std::io::Read;
use std::process::ExitCode;

use rustix::process::{Signal, getpid, kill_process};

use crate::cli::guard;
use crate::cli::report::{self, Report};
use crate::error::Result;
use crate::mount;

/// Runs the worker: settings come from stdin, the report goes to stdout, the log to stderr.
pub fn run(verbose: u8) -> ExitCode {
    guard::name_process();
    report::log_to_stderr(verbose);
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}. {}", error.advice());
            // The guardian reads one report; after the start it knows by the exit code.
            let _ = Report::failed(&error).send(std::io::stdout());
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<()> {
    let settings = guard::read_settings()?;
    std::thread::spawn(end_with_the_guardian);
    mount::serve(settings, || {
        if Report::Ready.send(std::io::stdout()).is_err() {
            // Its end of our stdin is closed too, and `end_with_the_guardian` sees that.
            log::warn!("the guardian is gone");
        }
    })
}

/// The guardian holds our stdin open as long as it lives, and sends nothing more.
fn end_with_the_guardian() {
    let mut nothing = [0; 64];
    let mut stdin = std::io::stdin();
    while stdin.read(&mut nothing).is_ok_and(|n| n > 0) {}
    log::warn!("the guardian was killed: finishing uploads, then unmounting");
    if let Err(error) = kill_process(getpid(), Signal::TERM) {
        log::error!("can't ask for the end: {error}");
    }
}
