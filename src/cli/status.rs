//! `rdmfs status`: what is mounted and what goes on in it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::mountinfo::{self, Mount};
use crate::cli::probe::{self, Answer};
use crate::cli::terminal::printable;
use crate::cli::units::Size;
use crate::cli::{progress, terminal, watch};
use crate::error::Result;
use crate::status::{Download, Status, Upload, UploadState};

/// Show what is mounted, what is being uploaded and downloaded, and the last problems
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Only the mount at this place
    mountpoint: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
    /// Go on showing how transfers get on, until Ctrl-C or until nothing is mounted any more
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

const EXAMPLES: &str = "\
Examples:
  rdmfs status
  rdmfs status --watch ~/zenodo
  rdmfs status --json ~/zenodo | jq '.[0].status.uploads'

The exit code is 1 if a mount does not answer.";

/// Runs the command.
///
/// # Errors
/// If the mount asked for isn't there.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mounts = mountinfo::ours(arguments.mountpoint.as_deref())?;
    if arguments.watch {
        return watch::run(&mounts);
    }
    let answers = probe::ask_all(&mounts)?;
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
    if let Some(offline) = &status.offline {
        let shown = match &offline.known_at {
            Some(time) => format!(", showing what was known at {time}"),
            None => String::new(),
        };
        let _ = writeln!(text, "  offline since {}{shown}", offline.since);
    }
    text.push_str(&uploads_text(&status.uploads));
    status
        .downloads
        .iter()
        .for_each(|download| text.push_str(&download_line(download)));
    text.push_str(&cache_text(status));
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

fn download_line(download: &Download) -> String {
    let waiting = progress::waiting_readers(download).map_or_else(String::new, |text| format!(", {text}"));
    let note = download
        .note
        .as_deref()
        .map(|note| format!("  {}", printable(note)));
    format!(
        "  download: {}  {} of {}, {}/s{waiting}{}\n",
        printable(&download.file),
        Size(download.have),
        Size(download.size),
        Size(download.rate),
        note.unwrap_or_default()
    )
}

fn cache_text(status: &Status) -> String {
    let (cache, totals) = (&status.cache, &status.totals);
    let counting = if cache.counted { "" } else { " (still counting)" };
    let pinned = match cache.pinned {
        0 => String::new(),
        bytes => format!(", {} pinned", Size(bytes)),
    };
    format!(
        "  cache: {} of {} in {} files{counting}{pinned}, {}\n  read: {} from the cache, {} from the network; {} requests\n",
        Size(cache.used),
        Size(cache.limit),
        cache.files,
        cache.directory.display(),
        Size(totals.from_cache),
        Size(totals.from_network),
        totals.requests
    )
}

/// What is on its way, and apart from it what waits for a decision, with the commands to decide by.
fn uploads_text(uploads: &[Upload]) -> String {
    if uploads.is_empty() {
        return "  uploads: none; everything written has arrived\n".into();
    }
    let of = |wanted: fn(UploadState) -> bool| -> Vec<&Upload> {
        uploads.iter().filter(|upload| wanted(upload.state)).collect()
    };
    let on_their_way = of(|state| state.moves() || state == UploadState::Open);
    let refused = of(|state| state == UploadState::Refused);
    let unclosed = of(|state| state == UploadState::Unclosed);
    let mut text = String::new();
    if !on_their_way.is_empty() {
        text.push_str(&format!(
            "  uploads: {} not on the server yet\n",
            on_their_way.len()
        ));
        on_their_way
            .iter()
            .for_each(|upload| text.push_str(&upload_line(upload)));
    }
    if !refused.is_empty() {
        text.push_str(&format!("  refused: {}, kept until you decide\n", refused.len()));
        for upload in refused {
            let id = upload.id;
            text.push_str(&upload_line(upload));
            text.push_str(&format!(
                "      rdmfs uploads retry {id} tries it again, discard {id} drops it, recover {id} copies it\n"
            ));
        }
    }
    if !unclosed.is_empty() {
        text.push_str(&format!(
            "  never closed: {}, kept until you decide\n",
            unclosed.len()
        ));
        for upload in unclosed {
            let id = upload.id;
            text.push_str(&format!(
                "    {}  {}\n",
                progress::file(upload),
                Size(upload.size)
            ));
            text.push_str(&format!(
                "      rdmfs uploads recover {id} --unclosed copies what was written, rdmfs uploads discard {id} drops it\n"
            ));
        }
    }
    text
}

fn upload_line(upload: &Upload) -> String {
    format!(
        "    {}  {} of {}  {}\n",
        progress::file(upload),
        Size(upload.sent),
        Size(upload.size),
        progress::describe(upload)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Cache;

    #[test]
    fn an_upload_that_was_refused_is_shown_with_the_reason() {
        let status = Status {
            version: "0".into(),
            pid: 1,
            mountpoint: "/mnt".into(),
            repository: "https://example.org".into(),
            signed_in: true,
            access: crate::status::Access::default(),
            read_only: false,
            started: "2026-11-22T00:00:00Z".into(),
            uploads: vec![Upload {
                id: 7,
                draft: "abcde-12345".into(),
                key: "a.csv".into(),
                state: UploadState::Refused,
                sent: 0,
                size: 2048,
                tries: 1,
                next_try: None,
                reason: Some("Bucket quota exceeded.".into()),
                kept: "/state/data/7-0".into(),
            }],
            downloads: Vec::new(),
            cache: Cache::default(),
            staging: "/state".into(),
            totals: crate::status::Totals::default(),
            rate_limit: None,
            offline: None,
            inodes: 1,
            problems: Vec::new(),
        };
        let text = status_text("https://example.org on /mnt", &status);
        assert!(text.contains("abcde-12345/a.csv"), "{text}");
        assert!(text.contains("refused: Bucket quota exceeded."), "{text}");
    }

    #[test]
    fn a_download_is_shown_with_its_speed_who_waits_and_why_it_is_slow() {
        let status = Status {
            downloads: vec![Download {
                file: "big.nc of record abcde-12345".into(),
                have: 5 << 20,
                size: 9 << 20,
                rate: 1 << 20,
                waiting: 2,
                note: Some("the server ignores ranges: reading from the start".into()),
            }],
            cache: Cache {
                pinned: 1 << 20,
                ..Cache::default()
            },
            totals: crate::status::Totals {
                from_cache: 3 << 20,
                from_network: 5 << 20,
                requests: 12,
            },
            ..Status::default()
        };
        let text = status_text("https://example.org on /mnt", &status);
        let line = "download: big.nc of record abcde-12345  5.0 MiB of 9.0 MiB, 1.0 MiB/s, 2 reads wait  the server ignores";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("(still counting), 1.0 MiB pinned"), "{text}");
        let line = "read: 3.0 MiB from the cache, 5.0 MiB from the network; 12 requests";
        assert!(text.contains(line), "{text}");
    }

    fn upload(id: u64, state: UploadState) -> Upload {
        Upload {
            id,
            draft: "abcde-12345".into(),
            key: format!("{id}.csv"),
            state,
            sent: 0,
            size: 2048,
            tries: 3,
            next_try: Some("2026-11-22T00:00:00Z".into()),
            reason: None,
            kept: format!("/state/data/{id}-0").into(),
        }
    }

    #[test]
    fn what_waits_for_a_decision_stands_apart_with_the_commands_to_decide_by() {
        let text = uploads_text(&[
            upload(1, UploadState::Waiting),
            upload(2, UploadState::Refused),
            upload(3, UploadState::Unclosed),
        ]);
        for part in [
            "uploads: 1 not on the server yet",
            "will be tried again at 2026-11-22T00:00:00Z, tried 3 times",
            "refused: 1",
            "rdmfs uploads retry 2",
            "never closed: 1",
            "rdmfs uploads recover 3 --unclosed",
            "rdmfs uploads discard 3",
        ] {
            assert!(text.contains(part), "no \"{part}\" in {text}");
        }
    }
}
