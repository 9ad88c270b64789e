//! The guardian: a small process that starts the worker, waits for it, and cleans up after it.
//!
//! A FUSE daemon that dies leaves a mount point on which every call fails ("Transport endpoint is not connected").
//! The guardian does nothing that could crash, so that whatever happens to the worker, somebody unmounts. If it is
//! killed itself, the worker notices (its stdin ends) and unmounts. Signals are passed on.

use std::io::{BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::probe::{self, Answer};
use crate::cli::report::{self, Report};
use crate::cli::{mountinfo, terminal};
use crate::config::MountSettings;
use crate::error::{Error, Kind, Result};
use crate::mount::device::{How, detach};

/// How long a mount that says it is ready may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// The guardian in the background: settings come from stdin, the report goes to stdout, the log to stderr.
pub fn run(verbose: u8) -> ExitCode {
    name_process();
    report::log_to_stderr(verbose);
    // A session of its own: the end of the terminal is not the end of the mount. It fails only for the leader of a
    // process group, which a process just started by `rdmfs mount` is not.
    if let Err(error) = rustix::process::setsid() {
        log::warn!("still in the session of the terminal: {error}");
    }
    match read_settings() {
        Ok(settings) => guard(&settings, verbose, |report| report.send(std::io::stdout())),
        Err(error) => terminal::fail(&error),
    }
}

/// Starts the worker and stays until it has ended and nothing is left of the mount. `tell` is called once, and failing
/// (nobody listens any more) means that the mount is not wanted.
pub fn guard(
    settings: &MountSettings,
    verbose: u8,
    tell: impl FnOnce(&Report) -> std::io::Result<()>,
) -> ExitCode {
    match start(settings, verbose) {
        Ok(worker) => worker.watch(settings, tell),
        Err(error) => {
            // Nothing runs, so there is nobody else to tell.
            let _ = tell(&Report::failed(&error));
            ExitCode::FAILURE
        }
    }
}

struct Worker {
    child: Child,
    handle: OwnedFd,
    /// Its end tells the worker that we are gone.
    lifeline: ChildStdin,
}

fn start(settings: &MountSettings, verbose: u8) -> Result<Worker> {
    let failed =
        |error: &std::io::Error| Error::local("can't start the process that serves the mount", error);
    // Before the worker exists, so that no signal falls between.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|error| failed(&error))?;
    let mut child = daemon_command("worker", &settings.mountpoint, verbose)
        // Out of the terminal's reach: it gets our signals from us alone, once.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let handle =
        pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|error| failed(&error.into()))?;
    let target = handle.try_clone().map_err(|error| failed(&error))?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            log::info!("signal {signal}: asking the worker to finish and unmount");
            if pidfd_send_signal(&target, Signal::TERM).is_err() {
                // It has ended already; the main thread sees that too.
                return;
            }
        }
    });
    let mut lifeline = child
        .stdin
        .take()
        .ok_or_else(|| Error::new(Kind::Internal, "the worker has no stdin"))?;
    send_settings(settings, &mut lifeline)?;
    Ok(Worker {
        child,
        handle,
        lifeline,
    })
}

impl Worker {
    fn watch(
        mut self,
        settings: &MountSettings,
        tell: impl FnOnce(&Report) -> std::io::Result<()>,
    ) -> ExitCode {
        let mountpoint = &settings.mountpoint;
        let told = self
            .child
            .stdout
            .take()
            .and_then(|stdout| Report::receive(BufReader::new(stdout)));
        let mut device = None;
        let started = match told {
            Some(Report::Ready) => answers(mountpoint, &mut self.child).map(|found| device = Some(found)),
            Some(Report::Failed { .. }) | None => {
                Err(told.and_then(Report::into_error).unwrap_or_else(|| {
                    Error::new(
                        Kind::Internal,
                        "the process that serves the mount ended before it was ready",
                    )
                }))
            }
        };
        if let Err(error) = &started {
            log::error!("not mounted: {error}");
        }
        let outcome = started.as_ref().map_or_else(Report::failed, |()| Report::Ready);
        if started.is_err() {
            // Usually it has ended by now. Nothing was written through a mount that never answered.
            let _ = self.child.kill();
        }
        let unheard = tell(&outcome).is_err();
        if unheard && started.is_ok() {
            log::warn!("whoever asked for the mount is gone; unmounting");
            // Fails only if it has ended, which is what is wanted.
            let _ = pidfd_send_signal(&self.handle, Signal::TERM);
        }
        let ended = self.child.wait();
        drop(self.lifeline);
        let ended_well = ended.as_ref().is_ok_and(ExitStatus::success) && started.is_ok();
        if started.is_ok() {
            log_end(&ended, settings);
        }
        clean_up(mountpoint, device.as_deref());
        if ended_well {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

fn log_end(ended: &std::io::Result<ExitStatus>, settings: &MountSettings) {
    let place = settings.mountpoint.display();
    match ended {
        Ok(status) if status.success() => log::info!("unmounted {place}"),
        Ok(status) => {
            let how = match (status.signal(), status.code()) {
                (Some(signal), _) => format!("was killed by signal {signal}"),
                (None, code) => format!("ended with code {}", code.unwrap_or_default()),
            };
            log::error!(
                "the process that served {place} {how}; what was written and not yet sent is kept in {}",
                settings.state_dir.display()
            );
        }
        Err(error) => log::error!("lost sight of the process that served {place}: {error}"),
    }
}

/// Waits until the new mount answers, and returns its device.
fn answers(mountpoint: &Path, worker: &mut Child) -> Result<String> {
    let began = Instant::now();
    loop {
        let mounted = mountinfo::at(mountpoint)?.filter(mountinfo::Mount::is_ours);
        let answer = match &mounted {
            Some(_) => Some(probe::ask(mountpoint)?),
            None => None,
        };
        match (mounted, answer) {
            (Some(mount), Some(Answer::Status(_))) => return Ok(mount.device),
            _ if matches!(worker.try_wait(), Ok(Some(_))) => {
                return Err(Error::new(
                    Kind::Internal,
                    format!("the process that served {} ended at once", mountpoint.display()),
                ));
            }
            (mounted, answer) if began.elapsed() > ANSWER_LIMIT => {
                let seen = match (mounted, answer) {
                    (None, _) => "nothing is mounted there".to_owned(),
                    (_, Some(Answer::Failed(reason))) => reason,
                    (_, other) => format!("{other:?}"),
                };
                return Err(Error::new(
                    Kind::Internal,
                    format!("the mount on {} does not answer: {seen}", mountpoint.display()),
                ));
            }
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Takes the dead mount off, if it is still the one we made: another daemon's has another device, or answers.
fn clean_up(mountpoint: &Path, device: Option<&str>) {
    let left = mountinfo::at(mountpoint)
        .ok()
        .flatten()
        .filter(|mount| mount.is_ours() && device.is_none_or(|device| mount.device == device));
    if left.is_none() || !matches!(probe::ask(mountpoint), Ok(Answer::Dead)) {
        return;
    }
    match detach(mountpoint, How::Lazily) {
        Ok(()) => log::warn!("took the dead mount off {}", mountpoint.display()),
        Err(error) => log::error!(
            "a dead mount is left: {error}. Take it off with: rdmfs unmount {}",
            mountpoint.display()
        ),
    }
}

/// The command for one of the daemon's processes. The token goes through the pipe only.
pub fn daemon_command(role: &str, mountpoint: &Path, verbose: u8) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("rdmfs")
        .arg(role)
        .args((0..verbose).map(|_| "-v"))
        .arg(mountpoint)
        // So that it keeps no other file system busy.
        .current_dir("/")
        .env_remove("INVENIORDM_TOKEN")
        .env_remove("INVENIORDM_SHARE_LINK");
    command
}

/// Hands the settings to a daemon process.
///
/// # Errors
/// If it has ended.
pub fn send_settings(settings: &MountSettings, pipe: &mut ChildStdin) -> Result<()> {
    let failed = |error: &std::io::Error| Error::local("can't hand the settings to the daemon", error);
    let mut line = serde_json::to_vec(settings).map_err(|error| failed(&error.into()))?;
    line.push(b'\n');
    pipe.write_all(&line).map_err(|error| failed(&error))
}

/// Takes the settings from stdin, which stays open.
///
/// # Errors
/// If there are none.
pub fn read_settings() -> Result<MountSettings> {
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .ok()
        .and_then(|_| serde_json::from_str(&line).ok())
        .ok_or_else(|| {
            Error::new(Kind::Usage, "this command is for rdmfs itself").with_advice("Use rdmfs mount.")
        })
}

/// The kernel names a process started through `/proc/self/exe` "exe"; `ps` and `pgrep` should show who it is.
pub fn name_process() {
    // Only a convenience.
    let _ = std::fs::write("/proc/self/comm", "rdmfs");
}
