//! `rdmfs check`: what publishing would refuse, as far as it can be known beforehand.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::{About, begin, curation, draft_of, draft_value, pending};
use crate::cli::ask;
use crate::cli::target::Target;
use crate::cli::terminal::{self, printable};
use crate::cli::uploads::Listed;
use crate::error::{Kind, Result};
use crate::repository::Check;
use crate::repository::{Repository, Request};

/// Check a draft: what the server misses, files in transfer, files of this machine that were not sent yet
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) about: About,
}

const EXAMPLES: &str = "\
Examples:
  rdmfs check ~/zenodo/drafts/abcde-12345
  rdmfs check --json abcde-12345 | jq .problems

What is wrong with a field is said as 'field: message'. The exit code is 0 if it can be
published, and 1 if not. The draft is saved as it is for that, since a repository tells what it misses
in no other way: its content stays, its date and revision grow. One that curators have
accepted is not saved, and looked at here alone.";

/// What was found.
pub struct Findings {
    /// What the server says.
    pub check: Check,
    /// What was not sent.
    pub pending: Vec<Listed>,
    /// What has to be decided by others first.
    pub others: Vec<Obstacle>,
    /// The curation request, if there is one.
    pub curation: Option<Request>,
}

/// A decision of others.
pub struct Obstacle {
    /// What is in the way.
    pub what: String,
    /// What the user can do.
    pub advice: String,
}

impl Findings {
    /// Asks all who know.
    ///
    /// # Errors
    /// If one of them doesn't answer.
    pub fn of(target: &Target) -> Result<Findings> {
        let repository = &target.place.repository;
        let draft = draft_of(target)?;
        let curation::Standing { request, obstacle } = curation::standing(repository, &draft)?;
        let accepted = request
            .as_ref()
            .is_some_and(|request| request.status == "accepted");
        // What was accepted is not touched, not even by saving the same again.
        let check = if accepted && !draft.is_published {
            repository.look_at_draft(draft)?
        } else {
            repository.check_draft(draft)?
        };
        let mut others = Vec::new();
        if let Some(review) = review_in_the_way(repository, &check)? {
            others.push(review);
        }
        others.extend(obstacle);
        Ok(Findings {
            pending: pending::of(&target.place, &target.id)?,
            check,
            others,
            curation: request,
        })
    }

    /// Whether nothing is in the way.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.check.is_ready() && self.pending.is_empty() && self.others.is_empty()
    }

    /// A line for each thing in the way.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = ask::field_lines(&self.check.problems);
        lines.extend(self.lines_besides_fields());
        lines
    }

    /// The same, without the fields of the metadata.
    #[must_use]
    pub fn lines_besides_fields(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.check.lacks_files {
            lines.push("files.enabled: it has no files, and is not marked as metadata-only".into());
        }
        let in_transfer = |key: &str| self.pending.iter().any(|listed| listed.upload.key == *key);
        lines.extend(
            self.check
                .pending
                .iter()
                .filter(|file| !in_transfer(&file.key))
                .map(|file| {
                    format!(
                        "{}: its upload was begun, and never finished; send it again or remove it",
                        printable(&file.key)
                    )
                }),
        );
        lines.extend(pending::lines(&self.pending));
        for obstacle in &self.others {
            lines.push(format!("{}: {}", obstacle.what, obstacle.advice));
        }
        lines
    }

    /// All of it for programs.
    #[must_use]
    pub fn value(&self, target: &Target) -> Value {
        let mut value = draft_value(&target.place, &self.check.draft);
        value["ready"] = json!(self.is_ready());
        value["problems"] = ask::fields_value(&self.check.problems);
        value["lacks_files"] = json!(self.check.lacks_files);
        value["files"] = begin::files_value(&self.check.files);
        value["unfinished"] = self
            .check
            .pending
            .iter()
            .map(|file| file.key.to_string())
            .collect();
        value["uploads"] = json!(self.pending);
        value["waits_for"] = self.others.iter().map(|one| one.what.clone()).collect();
        value["curation"] = self.curation.as_ref().map_or(
            Value::Null,
            |request| json!({"id": request.id.as_str(), "status": request.status}),
        );
        value
    }
}

/// Runs the command.
///
/// # Errors
/// If the repository can't be asked.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let target = arguments.about.find()?;
    let found = Findings::of(&target)?;
    let title = printable(&found.check.draft.title);
    let id = &target.id;
    let text = if found.is_ready() {
        format!("{id} \"{title}\" can be published")
    } else {
        found.lines().join("\n")
    };
    arguments.about.output.say(&found.value(&target), text);
    if found
        .curation
        .as_ref()
        .is_some_and(|request| request.status == "accepted")
    {
        terminal::note(curation::WARNING);
    }
    Ok(if found.is_ready() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A community that was chosen decides, not the user.
fn review_in_the_way(repository: &Repository, check: &Check) -> Result<Option<Obstacle>> {
    if check.draft.is_published {
        return Ok(None);
    }
    let id = &check.draft.id;
    let review = match repository.review(id) {
        Ok(Some(review)) => review,
        Ok(None) => return Ok(None),
        // Not every repository has reviews.
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::NotSupported) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(if review.is_open {
        Some(Obstacle {
            what: "it is under review by a community, which publishes it by accepting it".into(),
            advice: format!("wait, or take it back (rdmfs requests cancel {})", review.id),
        })
    } else if review.status == "created" {
        Some(Obstacle {
            what: "a community was chosen for it, which publishes it".into(),
            advice: format!(
                "submit it (rdmfs community submit {id} COMMUNITY), or choose none (rdmfs community remove {id} COMMUNITY)"
            ),
        })
    } else {
        None
    })
}
