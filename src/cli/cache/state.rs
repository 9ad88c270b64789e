//! `rdmfs cache status`: whole caches, or how much of single files is here.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::cache::Where;
use crate::cli::cache::show::Show;
use crate::cli::cache::target::{self, Target};
use crate::cli::cache::task::{self, Done, Order, What};
use crate::cli::settings;
use crate::cli::terminal::{self, printable};
use crate::cli::units::Size;
use crate::content::{self, Survey};
use crate::error::Result;
use crate::status::Outcome;

/// Runs the command.
///
/// # Errors
/// If what is named isn't there, or its mount doesn't answer.
pub fn run(paths: &[PathBuf], of: &Where) -> Result<ExitCode> {
    let targets = target::find(paths, of)?;
    if targets.is_empty() && !of.json {
        terminal::say("there is no cache");
    }
    let mut told: Vec<Value> = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for target in &targets {
        if target.is_whole() {
            let survey = content::survey(&target.directory);
            if of.json {
                told.push(whole_json(target, &survey));
            } else {
                terminal::print(&whole_text(target, &survey));
            }
            continue;
        }
        let order = Order {
            what: What::Look,
            pins: false,
        };
        let mut show = Show::new(What::Look, of.json);
        let done = task::run(target, order, &mut show)?;
        show.end(&done);
        if !done.work.error.is_empty() {
            code = ExitCode::FAILURE;
        }
        if of.json {
            told.push(files_json(target, &done));
        } else {
            terminal::print(&files_text(&done.outcomes));
        }
    }
    if of.json {
        terminal::say(format_args!("{:#}", Value::Array(told)));
    }
    Ok(code)
}

fn whole_json(target: &Target, survey: &Survey) -> Value {
    let status = target.status.as_ref();
    json!({
        "directory": target.directory,
        "mountpoint": target.mountpoint,
        "repository": status.map(|status| &status.repository),
        "limit": status.map(|status| status.cache.limit),
        "kept_free": status.map(|status| status.cache.kept_free),
        "disk_free": settings::disk(&target.directory).map(|(_, free)| free),
        "used": survey.used,
        "files": survey.files,
        "complete": survey.complete,
        "partial": survey.partial,
        "pinned_files": survey.pinned_files,
        "pinned": survey.pinned,
        "largest": survey.largest,
    })
}

fn whole_text(target: &Target, survey: &Survey) -> String {
    let of = match (&target.status, &target.mountpoint) {
        (Some(status), Some(place)) => format!("{} on {}", status.repository, place.display()),
        _ => "not mounted".into(),
    };
    let limit = match &target.status {
        Some(status) => format!(
            " of {}, {} of the disk stay free",
            Size(status.cache.limit),
            Size(status.cache.kept_free)
        ),
        None => String::new(),
    };
    let free = settings::disk(&target.directory).map_or(0, |(_, free)| free);
    let mut text = format!(
        "{}\n  {of}\n  used: {}{limit}; {} free there now\n  files: {}, {} complete and verified, {} in part\n",
        target.directory.display(),
        Size(survey.used),
        Size(free),
        survey.files,
        survey.complete,
        survey.partial,
    );
    text.push_str(&format!(
        "  pinned: {} files, {}\n",
        survey.pinned_files,
        Size(survey.pinned)
    ));
    for large in &survey.largest {
        let name = large
            .md5
            .as_ref()
            .map_or("no checksum".into(), |md5| format!("md5:{md5}"));
        text.push_str(&format!(
            "  large: {} of {}  {name}\n",
            Size(large.used),
            Size(large.size)
        ));
    }
    text
}

fn files_json(target: &Target, done: &Done) -> Value {
    json!({
        "directory": target.directory,
        "mountpoint": target.mountpoint,
        "files": done.outcomes,
        "error": (!done.work.error.is_empty()).then_some(&done.work.error),
    })
}

fn files_text(files: &[Outcome]) -> String {
    let mut text = String::new();
    let (mut have, mut size) = (0, 0);
    for file in files {
        have += file.have;
        size += file.size;
        let state = match (file.verified, file.have) {
            (true, _) => "verified",
            (false, 0) => "not here",
            (false, have) if have == file.size => "not verified",
            (false, _) => "in part",
        };
        let pinned = if file.pinned { ", pinned" } else { "" };
        text.push_str(&format!(
            "{}: {} of {}, {state}{pinned}\n",
            printable(&file.name),
            Size(file.have),
            Size(file.size)
        ));
    }
    text.push_str(&format!(
        "{} files: {} of {}\n",
        files.len(),
        Size(have),
        Size(size)
    ));
    text
}
