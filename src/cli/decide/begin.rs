//! `rdmfs edit`, `new-version` and `import-files`: drafts of what is published.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};

use super::{About, curation, document, draft_lines, draft_value, tell};
use crate::cli::ask::Consent;
use crate::cli::target::{Target, What, advised};
use crate::cli::terminal::{self, printable};
use crate::cli::units::Size;
use crate::error::{Error, Kind, Result};
use crate::repository::Repository;
use crate::repository::model::{FileEntry, Files, Record, RecordId};
use crate::staging;

/// Begin to edit a published record, or change the metadata of a draft
#[derive(Args)]
#[command(after_help = EDIT_EXAMPLES)]
pub struct Edit {
    #[command(flatten)]
    pub(super) about: About,
    /// JSON file with metadata to save over the draft's: what it leaves out stays; - is stdin
    #[arg(long, value_name = "FILE")]
    metadata: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
}

const EDIT_EXAMPLES: &str = "\
Examples:
  rdmfs edit abcde-12345
  rdmfs edit ~/zenodo/records/1234567
  echo '{\"title\": \"Ozone over Vienna\"}' | rdmfs edit ~/zenodo/drafts/abcde-12345 --metadata -

The draft's id is printed, and its folder in a mount. Nobody else sees the change until
rdmfs publish; rdmfs discard drops it. Files of a published record can't be changed: that
takes rdmfs new-version. A change of a draft whose curation was accepted takes the
acceptance back, so it is asked for first.";

/// Make a new version of a published record
#[derive(Args)]
pub struct NewVersion {
    #[command(flatten)]
    pub(super) about: About,
    /// Take the files of the version before into it; no bytes are moved
    #[arg(long)]
    import_files: bool,
}

/// Take the files of the version before into a new version; no bytes are moved
#[derive(Args)]
pub struct ImportFiles {
    #[command(flatten)]
    pub(super) about: About,
}

const REMOVE_FIRST: &str =
    "Files are taken over into a new version that has none; remove its files first, or leave it as it is.";

/// Runs `edit`.
///
/// # Errors
/// If it is refused.
pub fn edit(arguments: &Edit) -> Result<ExitCode> {
    let given = arguments.metadata.as_deref().map(document::read).transpose()?;
    let target = arguments.about.find()?;
    let repository = &target.place.repository;
    let (mut draft, is_new) = begin(&target, given.as_ref())?;
    if let Some(given) = given {
        let consent = arguments.consent;
        let before = draft.clone();
        let saved = staging::save_now(repository, &draft.id, &Value::Object(given), || {
            if curation::allows_change(repository, &before, consent)? {
                return Ok(());
            }
            Err(Error::new(
                Kind::Local(libc::ECANCELED),
                "the draft stays as it was",
            ))
        });
        tell(&target.place, &draft);
        draft = match saved {
            Ok(saved) => saved,
            Err(error) => {
                if is_new {
                    terminal::note(format_args!("the edit of {} was begun", draft.id));
                }
                let error = match error.kind() {
                    // The words are those of a mount.
                    Kind::Refused if error.attempt().is_none() => error.with_advice(
                        "Correct what is named, which is empty in the draft now, and save it again; the rest was saved.",
                    ),
                    _ => error,
                };
                let value = draft_value(&target.place, &draft);
                return Ok(arguments.about.output.end_refused(value, &advised(error)));
            }
        };
    } else {
        tell(&target.place, &draft);
    }
    arguments.about.output.say(
        &draft_value(&target.place, &draft),
        draft_lines(&target.place, &draft),
    );
    Ok(ExitCode::SUCCESS)
}

/// The document of another record would replace this one wholly, its DOI too.
fn refuse_another(given: &Map<String, Value>, id: &RecordId) -> Result<()> {
    let of = match given.get("id") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::String(of)) => of.clone(),
        Some(of) => of.to_string(),
    };
    if of == id.as_str() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Usage,
        format!("the metadata is that of {}, and not of {id}", printable(&of)),
    )
    .with_advice("To take it over, give what is in its \"metadata\" alone: jq .metadata record.json."))
}

/// The draft that is there, or else the edit of the record, for which `given` may be saved; and whether it was begun by this.
fn begin(target: &Target, given: Option<&Map<String, Value>>) -> Result<(Record, bool)> {
    let repository = &target.place.repository;
    let may_be_saved = |id: &RecordId| given.map_or(Ok(()), |given| refuse_another(given, id));
    if target.what != What::Record {
        match repository.draft(&target.id) {
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
            Ok(draft) => {
                may_be_saved(&draft.id)?;
                return Ok((draft, false));
            }
        }
    }
    // An id of all versions is no record's own.
    let record = repository.record(&target.id)?;
    may_be_saved(&record.id)?;
    Ok((repository.edit(&record.id)?, true))
}

/// Runs `new-version`.
///
/// # Errors
/// If it is refused.
pub fn new_version(arguments: &NewVersion) -> Result<ExitCode> {
    let target = arguments.about.find()?;
    let repository = &target.place.repository;
    let record = repository
        .record(&target.id)
        .map_err(|error| match error.kind() {
            Kind::NotFound => error.with_advice("A draft has no versions until it is published."),
            _ => error,
        })?;
    let record = latest(repository, record)?;
    let draft = repository.new_version_for_sure(&record)?;
    let mut value = draft_value(&target.place, &draft);
    let imported = if arguments.import_files {
        take_over_unless_there(&target, &record, &draft)
    } else {
        Ok(None)
    };
    tell(&target.place, &draft);
    let lines = draft_lines(&target.place, &draft);
    match imported {
        Ok(files) => {
            if let Some(files) = files {
                value["files"] = files_value(&files);
            }
            arguments.about.output.say(&value, lines);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let error = error.during(format!(
                "no files were taken over into the new version {}",
                draft.id
            ));
            Ok(arguments.about.output.end_halfway(value, lines, &error))
        }
    }
}

/// The version that a new one comes after, whichever was named.
fn latest(repository: &Repository, record: Record) -> Result<Record> {
    let versions = record.document().get("versions");
    let is_latest = versions.and_then(|versions| versions.get("is_latest")?.as_bool());
    let (Some(false), Some(concept)) = (is_latest, record.concept()) else {
        return Ok(record);
    };
    let latest = repository.record(&concept)?;
    terminal::note(format_args!(
        "{} is not the latest version; the new one comes after {}",
        record.id, latest.id
    ));
    Ok(latest)
}

/// Takes the files over, unless that was done when the version was begun: then the files are those that are there.
fn take_over_unless_there(
    target: &Target,
    record: &Record,
    draft: &Record,
) -> Result<Option<Vec<FileEntry>>> {
    let repository = &target.place.repository;
    if draft.files == Files::Disabled {
        terminal::note(format_args!("{} has no files to take over", record.id));
        return Ok(None);
    }
    let there = repository.draft_files(&draft.id)?;
    if there.is_empty() {
        return take_over(target, draft).map(Some);
    }
    let before = repository.record_files(&record.id)?;
    let is_there = |file: &FileEntry| {
        there
            .iter()
            .any(|other| (&other.key, other.md5) == (&file.key, file.md5))
    };
    if before.iter().all(is_there) {
        return Ok(Some(there));
    }
    Err(Error::new(
        Kind::Refused,
        format!("it was begun before, and has {} files of its own", there.len()),
    )
    .with_advice(REMOVE_FIRST))
}

/// Runs `import-files`.
///
/// # Errors
/// If it is refused.
pub fn import_files(arguments: &ImportFiles) -> Result<ExitCode> {
    let target = arguments.about.find()?;
    let draft = super::draft_of(&target)?;
    if draft.is_published {
        return Err(Error::new(
            Kind::Published,
            format!(
                "{} is the edit of a published record, whose files stay as they are",
                draft.id
            ),
        )
        .with_advice(format!(
            "rdmfs new-version --import-files {} makes a new version with them.",
            draft.id
        )));
    }
    let files = take_over(&target, &draft)?;
    tell(&target.place, &draft);
    let bytes = files.iter().filter_map(|file| file.size).sum();
    let mut value = draft_value(&target.place, &draft);
    value["files"] = files_value(&files);
    arguments.about.output.say(
        &value,
        format_args!("{} files, {}, are in {} now", files.len(), Size(bytes), draft.id),
    );
    Ok(ExitCode::SUCCESS)
}

fn take_over(target: &Target, draft: &Record) -> Result<Vec<FileEntry>> {
    target
        .place
        .repository
        .import_files_for_sure(&draft.id)
        .map_err(|error| match error.kind() {
            Kind::Refused => error.with_advice(REMOVE_FIRST),
            // The draft is there, so it is what it should come after that is not.
            Kind::NotFound => error.with_advice("There is no version before it whose files it could take."),
            _ => error,
        })
}

/// Files for programs.
pub(super) fn files_value(files: &[FileEntry]) -> Value {
    files
        .iter()
        .map(|file| {
            json!({
                "key": &*file.key,
                "size": file.size,
                "checksum": file.md5.map(|md5| format!("md5:{md5}")),
            })
        })
        .collect()
}
