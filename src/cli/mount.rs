//! `rdmfs mount`: checks everything that can be checked, starts the daemon, and returns when the mount answers.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::BufReader;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;

use crate::cli::probe::{self, Answer};
use crate::cli::report::{self, Report};
use crate::cli::server::Server;
use crate::cli::settings::{SourceArgs, Sources};
use crate::cli::sources::{self, Layer};
use crate::cli::units::{Size, Span};
use crate::cli::{fuse, guard, mountpoint, server, terminal};
use crate::config::MountSettings;
use crate::error::{Error, Kind, Result};

/// How long the daemon may take to start: it asks the server a few things, with limits of its own.
const START_LIMIT: Duration = Duration::from_secs(120);
/// A log of this size is put aside (`.1`) when the next mount begins.
const LOG_LIMIT: u64 = 10 << 20;

/// Mount a repository; returns when the files can be read
#[derive(Args)]
#[command(after_help = EXAMPLES, allow_missing_positional = true)]
pub struct Arguments {
    /// Address of the repository; may be left out if INVENIORDM_URL, the env file or config.toml has it
    url: Option<String>,
    /// Directory to mount it on
    mountpoint: PathBuf,
    #[command(flatten)]
    sources: SourceArgs,
    /// Mount the repository that this link to a shared record leads to, so that the record opens. Who looks at this
    /// machine's processes sees it: better put it into a file, or into INVENIORDM_SHARE_LINK
    #[arg(long, value_name = "LINK", conflicts_with = "share_link_file")]
    share_link: Option<String>,
    /// The same, with the link in a file; - for stdin
    #[arg(long, value_name = "FILE")]
    share_link_file: Option<PathBuf>,
    /// Room for files once read, such as 50G [default: the smaller of 20G and a tenth of the disk]
    #[arg(long, value_name = "SIZE")]
    cache_size: Option<Size>,
    /// How long closing a written file waits for its upload, before that goes on in the background [default: 30s]
    #[arg(long, value_name = "DURATION")]
    close_wait: Option<Span>,
    /// How long published records and listings count as current [default: 60s]
    #[arg(long, value_name = "DURATION")]
    metadata_ttl: Option<Span>,
    /// How long your drafts count as current [default: 5s]
    #[arg(long, value_name = "DURATION")]
    draft_ttl: Option<Span>,
    /// Parallel connections for reading one file [default: 4]
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// How far ahead of a sequential reader to fetch [default: 32M, or 8M for each connection if that is more]
    #[arg(long, value_name = "SIZE")]
    read_ahead: Option<Size>,
    /// Bytes fetched ahead for all readers together, shared evenly [default: 128M]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Never let the kernel read cached files by itself, so that each block is compared with its checksum when it is read
    #[arg(long)]
    no_passthrough: bool,
    /// Files uploaded at the same time [default: 4]
    #[arg(long, value_name = "N")]
    uploads: Option<usize>,
    /// Names of files that are never sent, instead of the built-in list (.DS_Store, *~, *.part ...); can be given often
    #[arg(long, value_name = "PATTERN")]
    junk: Vec<String>,
    /// Records listed of a search, at most; each page of 25 or 100 is a request [default: 500]
    #[arg(long, value_name = "N")]
    search_limit: Option<usize>,
    /// Refuse every write
    #[arg(long)]
    read_only: bool,
    /// Let other users of this machine in, as far as the modes of files and folders allow
    #[arg(long)]
    allow_other: bool,
    /// Options as mount(8) and /etc/fstab have them: ro, allow_other, nodev, token_file=FILE, ...
    #[arg(short, value_name = "OPTION[,OPTION]")]
    options: Vec<String>,
    /// Stay in the foreground and log to the terminal; Ctrl-C unmounts
    #[arg(short, long)]
    foreground: bool,
    /// Where the daemon logs [default: ~/.local/state/rdmfs/log/MOUNTPOINT.log]
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Log more; twice: everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

const EXAMPLES: &str = "\
Published records, without an account:
  mkdir -p ~/zenodo
  rdmfs mount https://zenodo.org ~/zenodo
  ls ~/zenodo/records/1234567/files

Your drafts as well. Make a token in the repository's account settings (Applications,
Personal access tokens), save it in a file that only you can read, and name the file:
  chmod 600 ~/.zenodo-token
  rdmfs mount --token-file ~/.zenodo-token https://zenodo.org ~/zenodo
  cp results.csv ~/zenodo/drafts/abcde-12345/

A record that somebody shares with you by a link, with or without an account; save the link
in a file that only you can read:
  rdmfs mount --share-link-file ~/link ~/shared
  ls ~/shared/records/abcde-12345/files

In /etc/fstab, with /sbin/mount.rdmfs a link to rdmfs:
  https://zenodo.org  /mnt/zenodo  rdmfs  ro,allow_other,_netdev  0  0

Flags win over the env file, that over INVENIORDM_URL and INVENIORDM_TOKEN in the
environment, that over ~/.config/rdmfs/config.toml. A token is only sent to the
repository it stands beside.";

/// Runs the command.
///
/// # Errors
/// Whatever keeps the repository from being mounted.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    arguments.check_places()?;
    let layers = vec![arguments.layer(), sources::mount_options(&arguments.options)?];
    let sources = Sources::read(layers, arguments.sources.credentials.profile.as_deref())?.follow_link()?;
    sources.url()?;
    if arguments.share_link.is_some() {
        terminal::note(
            "the link stood in the command line, where others could see it; --share-link-file and \
             INVENIORDM_SHARE_LINK keep it to yourself",
        );
    }
    let mountpoint = mountpoint::prepare(&arguments.mountpoint)?;
    let mut settings = sources.mount_settings(mountpoint)?;
    fuse::ready_to_mount(&settings.mountpoint, settings.allow_other)?;
    make_private_dir(&settings.state_dir)?;
    let server = server::check(&settings)?;
    settings.begin_offline = server.offline.is_some();
    let message = format!(
        "mounted {} on {} ({}{})",
        settings.url,
        settings.mountpoint.display(),
        server.user,
        if settings.read_only { ", read-only" } else { "" },
    );
    if arguments.foreground {
        report::log_to_stderr(arguments.verbose);
        let mut failed = None;
        let code = guard::guard(&settings, arguments.verbose, |report| {
            match report {
                Report::Ready => {
                    terminal::say(&message);
                    note_offline(&server);
                }
                Report::Failed { .. } => failed = report.clone().into_error(),
            }
            Ok(())
        });
        return failed.map_or(Ok(code), Err);
    }
    let log_file = sources.log_file(&settings.mountpoint)?;
    start_in_background(&settings, &log_file, arguments.verbose)
        .map_err(|error| error.clone().with_advice(advice_with_log(&error, &log_file)))?;
    terminal::say(message);
    server.shared.iter().for_each(|place| {
        terminal::say(settings.mountpoint.join(place).display());
    });
    note_offline(&server);
    note_beginnings(&settings.mountpoint);
    Ok(ExitCode::SUCCESS)
}

fn note_offline(server: &Server) {
    if let Some(error) = &server.offline {
        terminal::note(format_args!(
            "the repository can't be reached, so what was known of published records is shown ({error})"
        ));
    }
}

/// What the daemon noticed when it started: a cache that another one uses, files that an earlier mount left.
fn note_beginnings(mountpoint: &Path) {
    let Ok(Answer::Status(status)) = probe::ask(mountpoint) else {
        return;
    };
    for problem in &status.problems {
        terminal::note(&problem.what);
    }
    if !status.uploads.is_empty() {
        let count = status.uploads.len();
        terminal::note(format_args!(
            "{count} files of an earlier mount are not on the server yet (rdmfs uploads lists them)"
        ));
    }
}

fn advice_with_log(error: &Error, log_file: &Path) -> String {
    match error.kind() {
        Kind::Internal => format!("{} The log is {}.", error.advice(), log_file.display()),
        _ => error.advice().to_owned(),
    }
}

impl Arguments {
    /// Whoever swaps the address and the mount point, or forgets one, is told.
    fn check_places(&self) -> Result<()> {
        let is_address = |place: &str| place.contains("://");
        match &self.url {
            _ if !is_address(&self.mountpoint.to_string_lossy()) => Ok(()),
            None => Err(Error::new(Kind::Usage, "the mount point is missing")
                .with_advice("rdmfs mount URL MOUNTPOINT, such as: rdmfs mount https://zenodo.org ~/zenodo")),
            Some(_) => Err(Error::new(
                Kind::Usage,
                "the address comes first, then the mount point",
            )),
        }
    }

    fn layer(&self) -> Layer {
        Layer {
            url: self.url.clone(),
            share_link: self.share_link.clone(),
            share_link_file: self.share_link_file.clone(),
            cache_size: self.cache_size,
            close_wait: self.close_wait,
            metadata_ttl: self.metadata_ttl,
            draft_ttl: self.draft_ttl,
            connections: self.connections,
            read_ahead: self.read_ahead,
            memory: self.memory,
            passthrough: self.no_passthrough.then_some(false),
            uploads: self.uploads,
            junk: (!self.junk.is_empty()).then(|| self.junk.clone()),
            search_limit: self.search_limit,
            read_only: self.read_only.then_some(true),
            allow_other: self.allow_other.then_some(true),
            log_file: self.log_file.clone(),
            ..self.sources.layer()
        }
    }
}

/// Starts the guardian and waits for its report.
fn start_in_background(settings: &MountSettings, log_file: &Path, verbose: u8) -> Result<()> {
    let failed = |error: &std::io::Error| Error::local("can't start the daemon", error);
    let log = open_log(log_file)?;
    keep_files_from_children();
    let mut guardian = guard::daemon_command("guard", &settings.mountpoint, verbose)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| failed(&error))?;
    if let Some(mut stdin) = guardian.stdin.take() {
        guard::send_settings(settings, &mut stdin)?;
    }
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = guardian.stdout.take() {
        std::thread::spawn(move || {
            // Past the limit nobody listens.
            let _ = sender.send(Report::receive(BufReader::new(stdout)));
        });
    }
    match receiver.recv_timeout(START_LIMIT) {
        Ok(Some(report)) => report.into_error().map_or(Ok(()), Err),
        // Our end of its pipe closes with us, and it gives up when it finds nobody to tell.
        Err(mpsc::RecvTimeoutError::Timeout) => Err(Error::new(
            Kind::TimedOut,
            format!("the daemon did not get ready within {} s", START_LIMIT.as_secs()),
        )
        .with_advice(format!("Its log is {}.", log_file.display()))),
        Ok(None) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            Err(Error::new(Kind::Internal, "the daemon ended before it was ready"))
        }
    }
}

/// Pipes and locks that the caller's shell left open must not stay open for as long as the mount lives: whoever waits
/// for their end would wait for the unmount.
fn keep_files_from_children() {
    let (first, last): (libc::c_uint, libc::c_uint) = (3, libc::c_uint::MAX);
    // SAFETY: the call takes plain numbers and only sets close-on-exec on the process's descriptors; none is closed,
    // so no owner of one is cheated. Kernels before 5.11 refuse it, which leaves things as they are.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
}

fn open_log(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        make_private_dir(folder)?;
    }
    if path
        .metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.len() > LOG_LIMIT)
    {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".1");
        // If it can't be put aside it goes on growing, which is the lesser evil.
        let _ = std::fs::rename(path, aside);
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| {
            Error::local(format!("can't write the log {}", path.display()), &error)
                .with_advice("Give another place with --log-file.")
        })
}

/// Makes a directory that only the user can enter, and makes sure that it takes files.
fn make_private_dir(directory: &Path) -> Result<()> {
    let failed = |error: &std::io::Error| {
        Error::local(format!("can't write to {}", directory.display()), error).with_advice(
            "Written files and the log are kept there; give another place with --state-dir and --log-file.",
        )
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| failed(&error))?;
    tempfile::tempfile_in(directory).map_err(|error| failed(&error))?;
    Ok(())
}
