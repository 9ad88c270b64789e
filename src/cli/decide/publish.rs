//! `rdmfs publish`: sends what is left, checks, shows what everybody will see, asks, publishes once and makes sure.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::check::Findings;
use super::{About, curation, draft_of, pending};
use crate::cli::ask::Consent;
use crate::cli::target::Target;
use crate::cli::tell;
use crate::cli::terminal::{self, printable};
use crate::cli::units::Size;
use crate::error::{Error, Kind, Result};
use crate::repository::model::{Files, Record};
use crate::repository::{Check, Published};

/// Publish a draft: waits for its uploads, checks it, shows what everybody will see, and asks
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) about: About,
    #[command(flatten)]
    consent: Consent,
}

const EXAMPLES: &str = "\
Examples:
  rdmfs publish ~/zenodo/drafts/abcde-12345
  rdmfs publish --yes --json abcde-12345

Published files can't be changed or taken back, and the DOI is registered. If the answer
gets lost, the repository is asked whether it was done; it is never published twice.";

/// As many files are shown one by one.
const FILES_SHOWN: usize = 20;

/// Runs the command.
///
/// # Errors
/// If something is in the way, or it is refused.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let target = arguments.about.find()?;
    let repository = &target.place.repository;
    match repository.draft(&target.id) {
        Err(error) if error.kind() == Kind::NotFound => {
            return match repository.record(&target.id) {
                Ok(record) if record.id == target.id => {
                    // A mount may not know it, if who published it did not live to tell.
                    super::tell(&target.place, &record);
                    Ok(say(arguments, &target, &Published::Before(record)))
                }
                _ => Err(draft_of(&target).err().unwrap_or(error)),
            };
        }
        draft => drop(draft?),
    }
    pending::drain(&target.place, &target.id)?;
    let found = Findings::of(&target)?;
    if !found.is_ready() {
        found.lines_besides_fields().iter().for_each(terminal::complain);
        let error = Error::new(
            Kind::NotReady,
            format!("draft {} can't be published yet", target.id),
        )
        .with_fields(found.check.problems.clone())
        .with_advice("Correct what is named; rdmfs check looks again.");
        return Ok(arguments.about.output.end_refused(found.value(&target), &error));
    }
    let shown = what_becomes_public(&target, &found.check);
    terminal::tell(&shown);
    if !arguments.consent.to("Publish this? It can't be undone.")? {
        return Ok(ExitCode::FAILURE);
    }
    // While it was asked, something may have been written.
    let late = pending::of(&target.place, &target.id)?;
    if !late.is_empty() {
        pending::lines(&late).iter().for_each(terminal::complain);
        return Err(Error::new(
            Kind::NotReady,
            format!("files were written to draft {} since they were shown", target.id),
        )
        .with_advice("Publish again: it waits for them, and shows them too."));
    }
    let published = match repository.publish_for_sure(&target.id) {
        Ok(published) => published,
        Err(error) if error.waits_for_curation() => {
            return Err(curation::needed(repository, &target.id, &error));
        }
        Err(error) => return Err(error),
    };
    // Lists of what is published have one more; first, because what is known of the record itself is newer than they are.
    tell::changed_at(&target.place, &["user/records"]);
    super::tell(&target.place, published.record());
    Ok(say(arguments, &target, &published))
}

fn say(arguments: &Arguments, target: &Target, published: &Published) -> ExitCode {
    let record = published.record();
    let before = matches!(published, Published::Before(_));
    let path = target.place.path_of_record(&record.id);
    let url = target.place.page_of(record);
    let value = json!({
        "id": record.id.as_str(),
        "concept": record.concept().map(|id| id.to_string()),
        "title": record.title,
        "doi": record.doi(),
        "url": url,
        "path": path,
        "published_before": before,
    });
    let mut text = format!(
        "{} {}\n{url}",
        if before {
            "was published before:"
        } else {
            "published"
        },
        record.doi().unwrap_or(record.id.as_str()),
    );
    if let Some(path) = &path {
        text.push_str(&format!("\n{}", path.display()));
    }
    arguments.about.output.say(&value, text);
    ExitCode::SUCCESS
}

/// What everybody will see.
fn what_becomes_public(target: &Target, check: &Check) -> String {
    let draft = &check.draft;
    let mut text = format!(
        "{}\n  title:   {}\n  id:      {} ({})\n  DOI:     {}\n  access:  {}\n",
        target.place.repository.url(),
        printable(&draft.title),
        draft.id,
        kind_of(draft),
        draft.doi().unwrap_or("a new one, if the repository gives one"),
        access_of(draft),
    );
    for community in communities_of(draft) {
        text.push_str(&format!("  in:      {community}\n"));
    }
    if draft.files == Files::Disabled {
        text.push_str("  files:   none, metadata only\n");
        return text;
    }
    let bytes = check.files.iter().filter_map(|file| file.size).sum();
    text.push_str(&format!("  files:   {}, {}\n", check.files.len(), Size(bytes)));
    for file in check.files.iter().take(FILES_SHOWN) {
        let size = file
            .size
            .map_or_else(|| "?".to_owned(), |size| Size(size).to_string());
        text.push_str(&format!("    {size:>12}  {}\n", printable(&file.key)));
    }
    if check.files.len() > FILES_SHOWN {
        text.push_str(&format!("    and {} more\n", check.files.len() - FILES_SHOWN));
    }
    text
}

/// The communities that all versions of it are in, by title and name, or by what is known of them.
fn communities_of(draft: &Record) -> Vec<String> {
    let communities = draft
        .document()
        .get("parent")
        .and_then(|parent| parent.get("communities"));
    let list = |name: &str| communities.and_then(|all| all.get(name)?.as_array().cloned());
    let text = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).map(printable);
    match list("entries") {
        Some(entries) => entries
            .iter()
            .filter_map(|entry| {
                let slug = text(entry, "/slug")?;
                Some(match text(entry, "/metadata/title") {
                    Some(title) => format!("{title} ({slug})"),
                    None => slug,
                })
            })
            .collect(),
        None => list("ids")
            .unwrap_or_default()
            .iter()
            .filter_map(|id| id.as_str().map(printable))
            .collect(),
    }
}

fn kind_of(draft: &Record) -> &'static str {
    let version = draft
        .document()
        .get("versions")
        .and_then(|versions| versions.get("index"))
        .and_then(Value::as_u64);
    match (draft.is_published, version) {
        (true, _) => "an edit of what is published",
        (false, Some(2..)) => "a new version",
        (false, _) => "a new record",
    }
}

fn access_of(draft: &Record) -> String {
    let of = |name: &str| {
        draft
            .document()
            .get("access")
            .and_then(|access| access.get(name))
            .and_then(Value::as_str)
            .unwrap_or("public")
            .to_owned()
    };
    let embargo = draft
        .document()
        .get("access")
        .and_then(|access| access.pointer("/embargo/until"))
        .and_then(Value::as_str)
        .map_or_else(String::new, |until| format!(", under embargo until {until}"));
    printable(&format!(
        "record {}, files {}{embargo}",
        of("record"),
        of("files")
    ))
}
