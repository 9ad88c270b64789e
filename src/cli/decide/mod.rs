//! What is decided about a record or draft: made, edited, versioned, given a DOI, checked, published, discarded, curated.
//!
//! One file for each decision; `document` reads what a user wrote, `pending` knows what this machine has not sent yet.
//! Each finds its target by `target`, asks by `ask`, and tells running mounts by `tell` when the server has said yes.
//! None of them repeats what can't be undone.

mod begin;
mod check;
mod curation;
mod discard;
mod document;
mod doi;
mod new;
pub(in crate::cli) mod pending;
mod publish;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::ask::Output;
use crate::cli::target::{Access, Place, Target, advised};
use crate::error::{Error, Kind, Result};
use crate::repository::model::{Record, RecordId};

/// The commands, as they stand beside the others.
#[derive(Subcommand)]
pub enum Decision {
    New(new::Arguments),
    Edit(begin::Edit),
    NewVersion(begin::NewVersion),
    ImportFiles(begin::ImportFiles),
    ReserveDoi(doi::Reserve),
    ReleaseDoi(doi::Release),
    Check(check::Arguments),
    Publish(publish::Arguments),
    Discard(discard::Arguments),
    Curation(curation::Arguments),
}

/// A record or draft, and how to get at it.
#[derive(Args)]
struct About {
    /// An id, the path of a record or draft in a mount, a DOI, or the address of a page
    #[arg(value_name = "ID|PATH|DOI|URL")]
    target: PathBuf,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    output: Output,
}

impl About {
    /// What is meant, with a token to get in.
    fn find(&self) -> Result<Target> {
        let target = Target::find(&self.target, &self.access)?;
        target.place.signed_in()?;
        Ok(target)
    }
}

/// Runs the command.
///
/// # Errors
/// If what is named isn't there, or it is refused.
pub fn run(decision: &Decision) -> Result<ExitCode> {
    let (output, done) = match decision {
        Decision::New(new) => (new.output, new::run(new)),
        Decision::Edit(edit) => (edit.about.output, begin::edit(edit)),
        Decision::NewVersion(version) => (version.about.output, begin::new_version(version)),
        Decision::ImportFiles(import) => (import.about.output, begin::import_files(import)),
        Decision::ReserveDoi(reserve) => (reserve.about.output, doi::reserve(reserve)),
        Decision::ReleaseDoi(release) => (release.about.output, doi::release(release)),
        Decision::Check(check) => (check.about.output, check::run(check)),
        Decision::Publish(publish) => (publish.about.output, publish::run(publish)),
        Decision::Discard(discard) => (discard.about.output, discard::run(discard)),
        Decision::Curation(curation) => (curation.output(), curation::run(curation)),
    };
    output.end(done.map_err(advised))
}

/// A draft for programs: what it is, and where.
fn draft_value(place: &Place, draft: &Record) -> Value {
    json!({
        "id": draft.id.as_str(),
        "title": draft.title,
        "doi": draft.doi(),
        "url": place.page_of(draft),
        "path": place.path_of_draft(&draft.id),
        "is_published": draft.is_published,
    })
}

/// A draft for people and pipes: its id, and on a second line its path, if it is in a mount.
fn draft_lines(place: &Place, draft: &Record) -> String {
    match place.path_of_draft(&draft.id) {
        Some(path) => format!("{}\n{}", draft.id, path.display()),
        None => draft.id.to_string(),
    }
}

/// The draft, and if there is none, whether there is a record to make one of.
fn draft_of(target: &Target) -> Result<Record> {
    let repository = &target.place.repository;
    let id = &target.id;
    let error = match repository.draft(id) {
        Ok(draft) => return Ok(draft),
        Err(error) => error,
    };
    if error.kind() != Kind::NotFound {
        return Err(error);
    }
    let Ok(record) = repository.record(id) else {
        return Err(error);
    };
    let id = &record.id;
    let what = if *id == target.id {
        format!("{id} is published, and no draft of it is there")
    } else {
        format!("{} stands for all versions of {id}, and is no draft", target.id)
    };
    Err(Error::new(Kind::NotFound, what).with_advice(format!(
        "rdmfs edit {id} begins to edit it, rdmfs new-version {id} makes a new version."
    )))
}

/// What all that show a record or draft ask for anew, when it was changed.
fn all_of(record: &Record) -> Vec<RecordId> {
    std::iter::once(record.id.clone())
        .chain(record.concept())
        .collect()
}

/// Tells mounts that a record or draft was changed.
fn tell(place: &Place, record: &Record) {
    let ids = all_of(record);
    crate::cli::tell::changed(place, &ids.iter().collect::<Vec<_>>());
}
