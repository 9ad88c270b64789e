//! `rdmfs doctor`: checks one by one what a mount needs, and says what to do about what is missing.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde::Serialize;

use crate::cli::settings::{self, SourceArgs, Sources};
use crate::cli::sources::Layer;
use crate::cli::units::Size;
use crate::cli::{fuse, server, terminal};
use crate::error::{Error, Result};
use crate::mount::device;
use crate::repository::model::{FilePlace, Files, Owner};
use crate::repository::{Coverage, Flavour, Repository, Search, Settings, Token, VersionHint};
use crate::status;

/// Check what a mount needs: FUSE, the server, the token, the disk
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Address of the repository; may be left out if INVENIORDM_URL, the env file or config.toml has it
    url: Option<String>,
    #[command(flatten)]
    sources: SourceArgs,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  rdmfs doctor https://zenodo.org
  rdmfs doctor --token-file ~/.zenodo-token https://zenodo.org

Each line is ok, warn (it works, but ...) or FAIL (it does not work), with what to do.
The exit code is 1 if something fails.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

#[derive(Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    advice: String,
}

/// What was found so far; printed as it comes, because the server may take its time.
struct Findings {
    json: bool,
    list: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, check: &'static str, verdict: Verdict, found: impl ToString, advice: impl ToString) {
        let finding = Finding {
            check,
            verdict,
            found: found.to_string(),
            advice: advice.to_string(),
        };
        if !self.json {
            let word = match verdict {
                Verdict::Ok => "ok  ",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            terminal::say(format_args!("{word}  {check}: {}", finding.found));
            if !finding.advice.is_empty() {
                terminal::say(format_args!("      {}", finding.advice));
            }
        }
        self.list.push(finding);
    }

    fn ok(&mut self, check: &'static str, found: impl ToString) {
        self.add(check, Verdict::Ok, found, "");
    }

    fn error(&mut self, check: &'static str, verdict: Verdict, error: &Error) {
        self.add(check, verdict, error, error.advice());
    }

    fn result(&mut self, check: &'static str, found: impl ToString, result: Result<()>) -> bool {
        match &result {
            Ok(()) => self.ok(check, found),
            Err(error) => self.error(check, Verdict::Fail, error),
        }
        result.is_ok()
    }
}

/// Runs the command.
///
/// # Errors
/// If the settings themselves can't be read.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let layer = Layer {
        url: arguments.url.clone(),
        ..arguments.sources.layer()
    };
    let sources = Sources::read(vec![layer], arguments.sources.credentials.profile.as_deref())?;
    let url = sources.url()?;
    let mut findings = Findings {
        json: arguments.json,
        list: Vec::new(),
    };
    check_fuse(&mut findings);
    check_clock(&mut findings);
    check_directory(
        &mut findings,
        "cache directory",
        Verdict::Warn,
        &sources.cache_dir(&url)?,
    );
    check_directory(
        &mut findings,
        "state directory",
        Verdict::Fail,
        &sources.state_dir()?,
    );
    check_server(&mut findings, &sources, url.as_str())?;
    if arguments.json {
        let list = serde_json::to_string_pretty(&findings.list)
            .map_err(|error| Error::local("can't print the findings", &error.into()))?;
        terminal::say(list);
    }
    let failed = findings
        .list
        .iter()
        .any(|finding| finding.verdict == Verdict::Fail);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn check_fuse(findings: &mut Findings) {
    findings.result("FUSE device", "/dev/fuse opens", fuse::device());
    let helper = device::helper();
    if fuse::is_root() {
        findings.result("right to mount", "root may mount", fuse::capability());
    } else {
        let found = helper
            .as_ref()
            .map_or(String::new(), |path| path.display().to_string());
        findings.result("fusermount3", found, helper.map(drop));
    }
    if fuse::is_root() || fuse::user_allow_other() {
        findings.ok("--allow-other", "permitted");
    } else {
        findings.ok(
            "--allow-other",
            "not permitted to ordinary users (no user_allow_other in /etc/fuse.conf)",
        );
    }
}

/// A clock that is behind makes certificates invalid. This program can't be younger than now.
fn check_clock(findings: &mut Findings) {
    let now = SystemTime::now();
    let made = std::fs::metadata("/proc/self/exe").and_then(|metadata| metadata.modified());
    let text = status::rfc3339(now);
    if made.is_ok_and(|made| made > now + Duration::from_secs(3600)) {
        findings.add(
            "clock",
            Verdict::Warn,
            format!("{text} is before this program was made"),
            "Set the clock.",
        );
    } else {
        findings.ok("clock", text);
    }
}

fn check_directory(findings: &mut Findings, check: &'static str, otherwise: Verdict, directory: &Path) {
    let shown = directory.display();
    let free = settings::disk(directory).map_or(0, |(_, free)| free);
    let there = directory
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(directory);
    // In a folder that is missing a file can't be tried; the one it will be made in must take one.
    match tempfile::tempfile_in(there) {
        Ok(_) if free < 1 << 30 => findings.add(
            check,
            Verdict::Warn,
            format!("{shown}, only {} free", Size(free)),
            "Make room; written files wait there until they are uploaded.",
        ),
        Ok(_) => findings.ok(check, format!("{shown}, {} free", Size(free))),
        Err(error) => findings.add(
            check,
            otherwise,
            format!("{shown} can't be written to: {error}"),
            "Give another place with --cache-dir or --state-dir.",
        ),
    }
}

fn check_server(findings: &mut Findings, sources: &Sources, url: &str) -> Result<()> {
    let token = sources.token(&sources.url()?)?;
    let connected = Repository::connect(Settings {
        url: url.to_owned(),
        token: token.as_deref().map(Token::new).transpose()?,
        ca_certificate: sources.ca_certificate(),
        insecure: sources.insecure(),
        ..Settings::default()
    });
    let repository = match connected {
        Ok(repository) => repository,
        Err(error) => {
            findings.error("server", Verdict::Fail, &error);
            return Ok(());
        }
    };
    let proxy = repository.proxy_in_use();
    findings.ok("proxy", proxy.unwrap_or_else(|| "none".into()));
    if sources.insecure() {
        findings.add(
            "certificate",
            Verdict::Warn,
            "not checked",
            "Leave out --insecure.",
        );
    }
    let identity = match repository.identify() {
        Ok(identity) => identity,
        Err(error) => {
            findings.error("server", Verdict::Fail, &server::connection_advice(error));
            return Ok(());
        }
    };
    let kind = match (identity.flavour, identity.version) {
        (Flavour::Zenodo, _) => "Zenodo",
        (Flavour::Invenio, VersionHint::ThirteenOrNewer) => "InvenioRDM 13 or newer",
        (Flavour::Invenio, VersionHint::TwelveOrOlder) => "InvenioRDM 12 or older",
    };
    findings.ok(
        "server",
        format!("{} is {kind} with {} records", repository.url(), identity.records),
    );
    if token.is_some() {
        let checked = repository.check_token().map_err(server::token_advice);
        let is_good = checked.is_ok();
        findings.result("token", "the repository takes it", checked);
        // What a repository adds to InvenioRDM tells of itself only to those who are known there.
        if let (true, Ok(Some(_))) = (is_good, repository.curation_rules()) {
            findings.ok(
                "curation",
                "drafts are published here after their curation (rdmfs curation)",
            );
        }
    } else {
        findings.add(
            "token",
            Verdict::Warn,
            "none given",
            "Published records can be read; drafts need one (--token-file).",
        );
    }
    match repository.limits_seen().or(identity.rate_limit) {
        Some(limit) => findings.ok(
            "rate limit",
            format!("{} of {} requests left", limit.remaining, limit.limit),
        ),
        None => findings.ok("rate limit", "the server doesn't name one"),
    }
    check_ranges(findings, &repository);
    Ok(())
}

/// Reads one byte out of the middle of some small public file, to see whether the server sends just that.
fn check_ranges(findings: &mut Findings, repository: &Repository) {
    match find_file(repository) {
        Ok(Some(place)) => match honours_ranges(repository, &place) {
            Ok(true) => findings.ok("ranges", "parts of files can be read without the rest"),
            Ok(false) => findings.add(
                "ranges",
                Verdict::Warn,
                "the server sends whole files only",
                "Reading the end of a large file for the first time waits for all of it; afterwards it is cached.",
            ),
            Err(error) => findings.error("ranges", Verdict::Warn, &error),
        },
        Ok(None) => findings.ok("ranges", "not tried: no small public file was found"),
        Err(error) => findings.error("ranges", Verdict::Warn, &error),
    }
}

/// A file worth asking: if the range is ignored, all of it comes.
fn find_file(repository: &Repository) -> Result<Option<FilePlace>> {
    let sizes = 2..=1_000_000;
    let page = repository.search(&Search {
        sort: Some("newest"),
        size: 10,
        ..Search::default()
    })?;
    for record in page.records.iter().filter(|record| record.is_open) {
        let files = match &record.files {
            Files::Listed(files) => files.clone(),
            Files::Disabled => continue,
            Files::Unlisted => repository.record_files(&record.id)?,
        };
        for file in files {
            if file.size.is_some_and(|size| sizes.contains(&size)) {
                let owner = Owner::Record(record.id.clone());
                return Ok(Some(FilePlace { owner, key: file.key }));
            }
        }
    }
    Ok(None)
}

/// Asks for the second byte alone. What comes after it is not read.
fn honours_ranges(repository: &Repository, place: &FilePlace) -> Result<bool> {
    let download = repository.open_content(place, Some((1, 1)))?;
    Ok(matches!(download.coverage, Coverage::Part { .. }))
}
