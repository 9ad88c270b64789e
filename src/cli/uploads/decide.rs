//! `rdmfs uploads retry` and `discard`: what a user decides about kept files, carried to the daemon that keeps them.
//!
//! A daemon must run: it alone changes its journal. Nothing is discarded without having asked a person, or `--yes`.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::control;
use crate::cli::mountinfo;
use crate::cli::progress;
use crate::cli::terminal;
use crate::cli::uploads::inventory::{Inventory, Item, Listed, Of, named, resolve_state_dir};
use crate::cli::uploads::{DiscardArguments, RetryArguments, Which};
use crate::error::{Error, Kind, Result};
use crate::status::UploadState;

/// Runs `retry`.
///
/// # Errors
/// If an item isn't there; nothing is tried then.
pub fn retry(arguments: &RetryArguments) -> Result<ExitCode> {
    let chosen = choose(&arguments.which, |state| state == UploadState::Refused)?;
    Ok(carry_out("retry", "is tried again", &chosen, arguments.json))
}

/// Runs `discard`.
///
/// # Errors
/// If an item isn't there or nobody can be asked; nothing is discarded then.
pub fn discard(arguments: &DiscardArguments) -> Result<ExitCode> {
    let chosen = choose(&arguments.which, |state| {
        matches!(state, UploadState::Refused | UploadState::Unclosed)
    })?;
    if !arguments.yes && !chosen.is_empty() && !terminal::ask(&question(&chosen))? {
        terminal::note("nothing was discarded");
        return Ok(ExitCode::FAILURE);
    }
    Ok(carry_out("discard", "discarded", &chosen, arguments.json))
}

/// One number of a daemon, and all that it stands for.
#[derive(Debug)]
struct Chosen {
    listed: Vec<Listed>,
}

impl Chosen {
    fn names(&self) -> String {
        let names: Vec<String> = self.listed.iter().map(|listed| named(&listed.upload)).collect();
        names.join(" and ")
    }
}

/// Finds what is meant. Each number is there once, however often it was named.
fn choose(which: &Which, by_all: fn(UploadState) -> bool) -> Result<Vec<Chosen>> {
    let mounts = mountinfo::ours(None)?;
    if mounts.is_empty() {
        return Err(
            Error::new(Kind::NotFound, "no repository is mounted").with_advice(
                "Mount it first: the daemon of the mount does this. rdmfs uploads recover works without.",
            ),
        );
    }
    let of = which
        .mount
        .as_ref()
        .map(|word| Of::parse(word, &mounts))
        .transpose()?;
    let items: Vec<Item> = which.items.iter().map(|word| Item::parse(word)).collect();
    let found = Inventory::of_mounts(mounts, &items, of.as_ref())?;
    if which.all {
        if let Some(silent) = found.silent.first() {
            return Err(Error::new(
                Kind::TimedOut,
                format!("nothing was done, because {}", silent.why),
            )
            .with_advice("Name a mount that answers with --mount."));
        }
        return Ok(all_of(&found, of.as_ref(), by_all));
    }
    let mut chosen: Vec<Chosen> = Vec::new();
    for item in &items {
        let listed = found
            .find(item, of.as_ref())
            .map_err(|error| explain_unmounted(error, item))?;
        add(&mut chosen, &listed);
    }
    Ok(chosen)
}

/// Every number that stands for nothing but what `wanted` says: with what still moves, nobody means to do away.
fn all_of(found: &Inventory, of: Option<&Of>, wanted: fn(UploadState) -> bool) -> Vec<Chosen> {
    let mut chosen = Vec::new();
    for listed in found.listed.iter().filter(|listed| wanted(listed.upload.state)) {
        let group = group_of(found, listed);
        if of.is_none_or(|of| listed.is_of(of)) && group.iter().all(|listed| wanted(listed.upload.state)) {
            add(&mut chosen, &group);
        }
    }
    chosen
}

/// All that has the number of `listed`.
fn group_of<'a>(found: &'a Inventory, listed: &Listed) -> Vec<&'a Listed> {
    found
        .listed
        .iter()
        .filter(|other| other.mountpoint == listed.mountpoint && other.upload.id == listed.upload.id)
        .collect()
}

fn add(chosen: &mut Vec<Chosen>, listed: &[&Listed]) {
    let Some(first) = listed.first() else { return };
    let is_same = |other: &Listed| other.mountpoint == first.mountpoint && other.upload.id == first.upload.id;
    if !chosen.iter().any(|chosen| chosen.listed.iter().any(is_same)) {
        chosen.push(Chosen {
            listed: listed.iter().map(|&listed| listed.clone()).collect(),
        });
    }
}

/// A number that no mount has may be one of a repository that is not mounted.
fn explain_unmounted(error: Error, item: &Item) -> Error {
    if error.kind() != Kind::NotFound || matches!(item, Item::Path(_)) {
        return error;
    }
    let mut left = Inventory::default();
    let read = resolve_state_dir(None).and_then(|state_dir| left.add_left(&state_dir));
    match read.and_then(|()| left.find(item, None).map(|found| found[0].repository.clone())) {
        Ok(repository) => error.with_advice(format!(
            "A file of {repository}, which is not mounted, has it: mount that first. rdmfs uploads recover works without."
        )),
        Err(_) => error,
    }
}

fn question(chosen: &[Chosen]) -> String {
    match chosen {
        [one] => format!("Discard {}? Its bytes are kept nowhere else.", one.names()),
        several => {
            let names: Vec<String> = several
                .iter()
                .map(|chosen| format!("  {}\n", chosen.names()))
                .collect();
            format!(
                "{}Discard these {}? Their bytes are kept nowhere else.",
                names.concat(),
                several.len()
            )
        }
    }
}

/// Sends a command for each; one that fails does not keep the others from being done.
fn carry_out(verb: &str, done: &str, chosen: &[Chosen], json: bool) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let mut outcomes: Vec<Value> = Vec::new();
    for chosen in chosen {
        // There is at least one, or it would not have been chosen.
        let Some(listed) = chosen.listed.first() else {
            continue;
        };
        let result = send(verb, listed);
        if !json && result.is_ok() {
            terminal::say(format_args!("{}: {done}", progress::file(&listed.upload)));
        }
        outcomes.push(json!({
            "id": listed.upload.id,
            "mountpoint": listed.mountpoint,
            "draft": listed.upload.draft,
            "key": listed.upload.key,
            "ok": result.is_ok(),
            "error": result.as_ref().err().map(ToString::to_string),
            "advice": result.as_ref().err().map(Error::advice),
        }));
        if let Err(error) = result {
            terminal::fail(&error.during(progress::file(&listed.upload)));
            code = ExitCode::FAILURE;
        }
    }
    if json {
        terminal::say(format_args!("{:#}", Value::Array(outcomes)));
    } else if chosen.is_empty() {
        terminal::say("there is nothing that waits for a decision");
    }
    code
}

fn send(verb: &str, listed: &Listed) -> Result<()> {
    let Some(mountpoint) = &listed.mountpoint else {
        return Err(
            Error::new(Kind::NotFound, "its repository is not mounted").with_advice("Mount it first.")
        );
    };
    if listed.upload.id == 0 {
        let shown = mountpoint.display();
        return Err(Error::new(
            Kind::NotReady,
            format!("the daemon of {shown} is of another version than this program"),
        )
        .with_advice(format!("rdmfs unmount {shown}, then mount it again.")));
    }
    control::send(mountpoint, &format!("{verb} {}", listed.upload.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::uploads::inventory::tests::listed;

    fn inventory() -> Inventory {
        Inventory {
            listed: vec![
                listed(Some("/a"), "https://a", 1, UploadState::Refused),
                listed(Some("/a"), "https://a", 2, UploadState::Queued),
                listed(Some("/a"), "https://a", 2, UploadState::Unclosed),
                listed(Some("/a"), "https://a", 3, UploadState::Unclosed),
                listed(Some("/b"), "https://b", 1, UploadState::Refused),
                listed(Some("/b"), "https://b", 1, UploadState::Unclosed),
            ],
            ..Inventory::default()
        }
    }

    #[test]
    fn all_leaves_out_what_still_moves_and_names_each_number_once() {
        let found = inventory();
        let wanted = |state| matches!(state, UploadState::Refused | UploadState::Unclosed);
        let chosen = |of| -> Vec<(u64, usize)> {
            all_of(&found, of, wanted)
                .iter()
                .map(|chosen| (chosen.listed[0].upload.id, chosen.listed.len()))
                .collect()
        };
        assert_eq!(chosen(None), [(1, 1), (3, 1), (1, 2)]);
        assert_eq!(chosen(Some(&Of::Mount("/b".into()))), [(1, 2)]);
    }

    #[test]
    fn the_question_names_every_file_and_its_size() {
        let found = inventory();
        let mut chosen = Vec::new();
        add(&mut chosen, &[&found.listed[0]]);
        assert_eq!(
            question(&chosen),
            "Discard abc/dir/1.csv (2.0 KiB, refused)? Its bytes are kept nowhere else."
        );
        add(&mut chosen, &[&found.listed[1], &found.listed[2]]);
        add(&mut chosen, &[&found.listed[0]]);
        let question = question(&chosen);
        assert!(
            question.contains("dir/2.csv (2.0 KiB, queued) and abc/dir/2.csv (2.0 KiB, unclosed)"),
            "{question}"
        );
        assert!(question.contains("Discard these 2?"), "{question}");
    }
}
