//! The worker: the process in which `mount::serve` runs.
//!
//! It ends when the mount is taken off. A signal, or the end of the guardian, makes it finish its uploads and
//! unmount by itself; a second signal doesn't wait for uploads.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::mountpoint::{self, How};
use crate::cli::probe::{self, Answer};
use crate::cli::report::{self, Report};
use crate::cli::{guard, terminal};
use crate::error::{Error, Result};
use crate::mount;

/// How long uploads may go on after a signal. Service managers send SIGKILL 90 s after SIGTERM; by then the mount
/// should be off in good order.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// Runs the worker: settings come from stdin, the report goes to stdout, the log to stderr.
pub fn run(verbose: u8) -> ExitCode {
    guard::name_process();
    report::log_to_stderr(verbose);
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // After the start nobody reads it any more; the log has it too.
            let _ = Report::failed(&error).send(std::io::stdout());
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<()> {
    let settings = guard::read_settings()?;
    let mounted = Arc::new(AtomicBool::new(false));
    let wishes = wishes_to_end().map_err(|error| Error::local("can't watch for signals", &error))?;
    std::thread::spawn({
        let mountpoint = settings.mountpoint.clone();
        let mounted = Arc::clone(&mounted);
        move || end_on_wish(&wishes, &mountpoint, &mounted)
    });
    mount::serve(settings, || {
        mounted.store(true, Ordering::Release);
        if Report::Ready.send(std::io::stdout()).is_err() {
            // The end of the guardian's pipe to us says the same, and makes us unmount.
            log::warn!("the guardian is gone");
        }
    })
}

/// Each signal is a wish to end, and so is the end of stdin, which the guardian holds open as long as it lives.
fn wishes_to_end() -> std::io::Result<Receiver<&'static str>> {
    let (sender, receiver) = mpsc::channel();
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let from_signals = sender.clone();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if from_signals.send("asked to end").is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        let mut nothing = [0; 64];
        let mut stdin = std::io::stdin();
        while stdin.read(&mut nothing).is_ok_and(|n| n > 0) {}
        // The receiver lives as long as the process.
        let _ = sender.send("the guardian was killed");
    });
    Ok(receiver)
}

fn end_on_wish(wishes: &Receiver<&'static str>, mountpoint: &Path, mounted: &AtomicBool) {
    let Ok(reason) = wishes.recv() else { return };
    if !mounted.load(Ordering::Acquire) {
        // Nothing can have been written yet; the guardian takes off what may just have been mounted.
        terminal::note(format_args!("{reason} before the mount was ready"));
        std::process::exit(1);
    }
    log::info!(
        "{reason}: finishing uploads, then unmounting {}",
        mountpoint.display()
    );
    drain(wishes, mountpoint);
    let done = mountpoint::unmount(mountpoint, How::WhenFree).or_else(|error| {
        log::warn!("{error}; it disappears now, and open files stay usable until they are closed");
        mountpoint::unmount(mountpoint, How::Lazily)
    });
    if let Err(error) = done {
        log::error!("{error}. {}", error.advice());
    }
}

/// Waits until nothing is on its way any more, for [`DRAIN_LIMIT`] at most or until a second wish.
fn drain(wishes: &Receiver<&'static str>, mountpoint: &Path) {
    let began = Instant::now();
    let mut told = false;
    while began.elapsed() < DRAIN_LIMIT {
        let moving = match probe::ask(mountpoint) {
            Ok(Answer::Status(status)) => status.moving_uploads(),
            _ => return,
        };
        if moving == 0 {
            return;
        }
        if !told {
            log::info!("{moving} uploads are on their way; a second signal leaves them in the state directory");
            told = true;
        }
        match wishes.recv_timeout(Duration::from_millis(300)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
    log::warn!(
        "uploads were not done within {} s; they are kept",
        DRAIN_LIMIT.as_secs()
    );
}
