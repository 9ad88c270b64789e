//! `rdmfs status`: what is mounted and what goes on in it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::mountinfo::{self, Mount};
use crate::cli::probe::{self, Answer};
use crate::cli::units::Size;
use crate::cli::{mountpoint, progress, terminal};
use crate::error::{Error, Kind, Result};
use crate::status::Status;

/// Show what is mounted, what is being uploaded and downloaded, and the last problems
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Only the mount at this place
    mountpoint: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  rdmfs status
  rdmfs status --json ~/zenodo | jq '.[0].status.uploads'

The exit code is 1 if a mount does not answer.";

/// Runs the command.
///
/// # Errors
/// If the mount asked for isn't there.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mounts = match &arguments.mountpoint {
        None => mountinfo::all()?.into_iter().filter(Mount::is_ours).collect(),
        Some(place) => {
            let place = mountpoint::resolve(place)?;
            let mount = mountinfo::at(&place)?.filter(Mount::is_ours).ok_or_else(|| {
                Error::new(
                    Kind::NotFound,
                    format!("nothing of rdmfs is mounted on {}", place.display()),
                )
                .with_advice("rdmfs status, without a place, lists what is.")
            })?;
            vec![mount]
        }
    };
    // All at once: several stuck ones cost one time limit together.
    let answers: Vec<Result<Answer>> = std::thread::scope(|scope| {
        let asked: Vec<_> = mounts
            .iter()
            .map(|mount| scope.spawn(|| probe::ask(&mount.mountpoint)))
            .collect();
        asked
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Error::new(Kind::Internal, "looking at a mount failed")))
            })
            .collect()
    });
    let answers: Vec<Answer> = answers.into_iter().collect::<Result<_>>()?;
    let all_well = answers
        .iter()
        .all(|answer| matches!(answer, Answer::Status(_) | Answer::NotAllowed));
    if arguments.json {
        let list: Vec<Value> = mounts.iter().zip(&answers).map(|(m, a)| as_json(m, a)).collect();
        terminal::say(format_args!("{:#}", Value::Array(list)));
    } else if mounts.is_empty() {
        terminal::say("nothing is mounted");
    } else {
        let texts: Vec<String> = mounts.iter().zip(&answers).map(|(m, a)| as_text(m, a)).collect();
        terminal::print(&texts.join("\n"));
    }
    Ok(if all_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn as_json(mount: &Mount, answer: &Answer) -> Value {
    let (state, status, reason) = match answer {
        Answer::Status(status) => ("ok", Some(status), None),
        Answer::Dead => ("dead", None, None),
        Answer::NotAllowed => ("another user's", None, None),
        Answer::Stuck => ("stuck", None, None),
        Answer::Failed(reason) => ("failed", None, Some(reason)),
    };
    json!({
        "mountpoint": mount.mountpoint.to_string_lossy(),
        "repository": mount.source,
        "state": state,
        "reason": reason,
        "status": status,
    })
}

fn as_text(mount: &Mount, answer: &Answer) -> String {
    let place = mount.mountpoint.display();
    let head = format!("{} on {place}", mount.source);
    match answer {
        Answer::Status(status) => status_text(&format!("{} on {place}", status.repository), status),
        Answer::Dead => format!("{head}\n  dead: its daemon is gone; rdmfs unmount {place} takes it off\n"),
        Answer::NotAllowed => format!("{head}\n  belongs to another user\n"),
        Answer::Stuck => format!(
            "{head}\n  does not answer within {} s; its log may tell why\n",
            probe::LIMIT.as_secs()
        ),
        Answer::Failed(reason) => format!("{head}\n  can't be asked: {reason}\n"),
    }
}

fn status_text(head: &str, status: &Status) -> String {
    let mut text = String::new();
    let user = if status.signed_in {
        "signed in"
    } else {
        "without a token"
    };
    let mode = if status.read_only { ", read-only" } else { "" };
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "{head}\n  {user}{mode}, since {}, pid {}",
        status.started, status.pid
    );
    if status.uploads.is_empty() {
        text.push_str("  uploads: none; everything written has arrived\n");
    } else {
        let _ = writeln!(text, "  uploads: {} not on the server yet", status.uploads.len());
    }
    for upload in &status.uploads {
        let _ = writeln!(
            text,
            "    {}/{}  {} of {}  {}",
            upload.draft,
            upload.key,
            Size(upload.sent),
            Size(upload.size),
            progress::describe(upload)
        );
    }
    for download in &status.downloads {
        let _ = write!(
            text,
            "  download: {}  {} of {}, {}/s",
            download.file,
            Size(download.have),
            Size(download.size),
            Size(download.rate)
        );
        text.push_str(
            &download
                .note
                .as_ref()
                .map_or("\n".into(), |note| format!("  {note}\n")),
        );
    }
    let cache = &status.cache;
    let _ = writeln!(
        text,
        "  cache: {} of {} in {} files, {}",
        Size(cache.used),
        Size(cache.limit),
        cache.files,
        cache.directory.display()
    );
    if let Some(limit) = &status.rate_limit {
        let _ = writeln!(
            text,
            "  rate limit: {} of {} requests left",
            limit.remaining, limit.limit
        );
    }
    for problem in &status.problems {
        let _ = writeln!(
            text,
            "  problem at {}: {}\n    {}",
            problem.time, problem.what, problem.advice
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Cache, Upload, UploadState};

    #[test]
    fn an_upload_that_was_refused_is_shown_with_the_reason() {
        let status = Status {
            version: "0".into(),
            pid: 1,
            mountpoint: "/mnt".into(),
            repository: "https://example.org".into(),
            signed_in: true,
            read_only: false,
            started: "2026-11-22T00:00:00Z".into(),
            uploads: vec![Upload {
                id: 1,
                kept: "/state/data/1-1".into(),
                draft: "abcde-12345".into(),
                key: "a.csv".into(),
                state: UploadState::Refused,
                sent: 0,
                size: 2048,
                tries: 1,
                next_try: None,
                reason: Some("Bucket quota exceeded.".into()),
            }],
            downloads: Vec::new(),
            cache: Cache::default(),
            staging: "/state".into(),
            rate_limit: None,
            inodes: 1,
            problems: Vec::new(),
        };
        let text = status_text("https://example.org on /mnt", &status);
        assert!(text.contains("abcde-12345/a.csv"), "{text}");
        assert!(text.contains("refused: Bucket quota exceeded."), "{text}");
    }
}
