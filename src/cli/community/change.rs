//! Communities made, changed, renamed and deleted.

use std::path::{Component, Path};
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::{CreateArguments, DeleteArguments, EditArguments, Fields, RenameArguments, ShowArguments};
use crate::cli::api::data;
use crate::cli::named::{self, Named};
use crate::cli::target::{Access, Place};
use crate::cli::terminal::{self, printable};
use crate::cli::{mountinfo, tell, within};
use crate::error::{Error, Kind, Result};
use crate::repository::Community;

/// The repository, and the community's slug or UUID in it: a word is one of these, the address of its page, or a path in a
/// mount.
///
/// # Errors
/// `Usage` for a path that is of no community; as [`Place::of`].
pub fn find(word: &Path, access: &Access) -> Result<(Place, String)> {
    let no_community = || is_none(&word.to_string_lossy());
    if let Some(address) = word.to_str().filter(|word| word.contains("://")) {
        let place = Place::of(access)?;
        let name = community_at(address, &place)?;
        return Ok((place, name));
    }
    let Some(within) = within::locate(word, &mountinfo::ours(None)?)? else {
        let name = word.to_str().filter(|name| !name.contains('/'));
        return Ok((Place::of(access)?, name.ok_or_else(no_community)?.to_owned()));
    };
    let plain = word
        .to_str()
        .filter(|name| !name.contains('/') && !matches!(*name, "." | ".."));
    let parts: Vec<Component<'_>> = within.below.components().collect();
    let name = match (parts.as_slice(), plain) {
        // Where the shell stands matters to a path, and not to a name.
        ([_, _, _, ..], Some(name)) => Some(name),
        ([Component::Normal(top), Component::Normal(name), ..], _) if *top == "communities" => name.to_str(),
        (_, plain) => plain,
    };
    let name = name.ok_or_else(no_community)?.to_owned();
    let access = Access {
        mount: Some(within.mountpoint),
        ..access.clone()
    };
    Ok((Place::of(&access)?, name))
}

/// The community whose page, or whose place in the API, has this address.
///
/// # Errors
/// `Usage` for the address of something else.
pub(super) fn community_at(address: &str, place: &Place) -> Result<String> {
    match named::read(address, place.repository.url())? {
        Named::Community(name) => Ok(name),
        _ => Err(is_none(address)),
    }
}

fn is_none(word: &str) -> Error {
    let shown = printable(word.split('?').next().unwrap_or_default());
    Error::new(Kind::Usage, format!("{shown} is no community")).with_advice(
        "Give its slug, its UUID, the address of its page, or its path in a mount (communities/SLUG).",
    )
}

/// Runs `create`.
///
/// # Errors
/// `Refused` with the fields; `Denied` where users make no communities.
pub(super) fn create(arguments: &CreateArguments) -> Result<ExitCode> {
    let place = Place::of(&arguments.access)?;
    let repository = place.signed_in()?;
    let mut document = match &arguments.fields.data {
        Some(text) => parsed(text)?,
        // What is not said is public; all else the repository asks for.
        None => json!({"metadata": {}, "access": {"visibility": "public"}}),
    };
    if let Some(slug) = &arguments.slug {
        document["slug"] = json!(slug);
    }
    arguments.fields.write_to(&mut document);
    let made = repository
        .create_community(&document)
        .map_err(|error| match error.kind() {
            Kind::Denied => error.with_advice(
                "Some repositories leave that to their operators (TU Wien does); whether the token is good, rdmfs doctor tells.",
            ),
            _ => error,
        })?;
    let address = format!("{}/communities/{}", repository.url(), made.slug);
    tell_of(&place, &[&made.slug]);
    arguments.output.say(
        &Value::Object(made.document.clone()),
        format_args!("made {}: {}", printable(&made.slug), printable(&address)),
    );
    Ok(ExitCode::SUCCESS)
}

/// Runs `show`.
///
/// # Errors
/// `NotFound`, `Denied`.
pub(super) fn show(arguments: &ShowArguments) -> Result<ExitCode> {
    let (place, name) = find(&arguments.community, &arguments.access)?;
    let community = place.repository.community(&name)?;
    terminal::say(format_args!("{:#}", Value::Object(community.document)));
    Ok(ExitCode::SUCCESS)
}

/// Runs `edit`: what is given is laid over the document as it is now.
///
/// # Errors
/// `Refused` with the fields; `Changed` if somebody else changes it at the same time; `Usage` if nothing is to be changed.
pub(super) fn edit(arguments: &EditArguments) -> Result<ExitCode> {
    if arguments.fields.are_empty() {
        return Err(Error::new(Kind::Usage, "nothing is to be changed")
            .with_advice("Name a field (--title ...), or give a part of the document with --data."));
    }
    let given = arguments.fields.data.as_deref().map(parsed).transpose()?;
    let (place, name) = find(&arguments.community, &arguments.access)?;
    let repository = place.signed_in()?;
    let known = repository.community(&name)?;
    if let Some(slug) = given.as_ref().and_then(|given| given.get("slug"))
        && *slug != json!(known.slug)
    {
        return Err(
            Error::new(Kind::Usage, "a slug is not changed in the document").with_advice(format!(
                "rdmfs community rename {} NEW does it.",
                printable(&known.slug)
            )),
        );
    }
    let before = writable(&known);
    let mut document = before.clone();
    merge(&mut document, given.unwrap_or_else(|| json!({})));
    arguments.fields.write_to(&mut document);
    if document == before {
        arguments.output.say(
            &Value::Object(known.document.clone()),
            format_args!("{} is as that says already", printable(&known.slug)),
        );
        return Ok(ExitCode::SUCCESS);
    }
    // By its UUID: it may be renamed meanwhile.
    let changed = repository.update_community(&known.id, &document, known.revision)?;
    tell_of(&place, &[&changed.slug]);
    arguments.output.say(
        &Value::Object(changed.document.clone()),
        format_args!("changed {}", printable(&changed.slug)),
    );
    Ok(ExitCode::SUCCESS)
}

/// Runs `rename`.
///
/// # Errors
/// `Refused` with the field.
pub(super) fn rename(arguments: &RenameArguments) -> Result<ExitCode> {
    let (place, name) = find(&arguments.community, &arguments.access)?;
    let repository = place.signed_in()?;
    let known = repository.community(&name)?;
    let question = format!(
        "Rename {}? Addresses with {} lead nowhere then, and others may take that name.",
        shown(&known),
        printable(&known.slug)
    );
    if !arguments.consent.to(&question)? {
        return Ok(ExitCode::FAILURE);
    }
    let renamed = repository.rename_community(&known.id, &arguments.slug)?;
    tell_of(&place, &[&known.slug, &renamed.slug]);
    arguments.output.say(
        &Value::Object(renamed.document.clone()),
        format_args!("{} is {} now", printable(&known.slug), printable(&renamed.slug)),
    );
    Ok(ExitCode::SUCCESS)
}

/// Runs `delete`.
///
/// # Errors
/// `Refused` while requests to it are open.
pub(super) fn delete(arguments: &DeleteArguments) -> Result<ExitCode> {
    let (place, name) = find(&arguments.community, &arguments.access)?;
    let repository = place.signed_in()?;
    let known = repository.community(&name)?;
    let question = format!(
        "Delete {}? It can't be brought back; its records stay, without it.",
        shown(&known)
    );
    if !arguments.consent.to(&question)? {
        return Ok(ExitCode::FAILURE);
    }
    repository.delete_community(&known.id)?;
    tell_of(&place, &[&known.slug]);
    arguments.output.say(
        &json!({"deleted": known.slug, "id": known.id}),
        format_args!("deleted {}", printable(&known.slug)),
    );
    Ok(ExitCode::SUCCESS)
}

/// A community as a question names it.
pub(super) fn shown(community: &Community) -> String {
    format!(
        "community {} ({})",
        printable(&community.slug),
        printable(&community.title)
    )
}

/// Tells mounts that communities are not as they were.
pub(super) fn tell_of(place: &Place, slugs: &[&str]) {
    let mut paths: Vec<String> = vec!["user".into()];
    // A slug comes from the server; a blank would end the path there.
    paths.extend(
        slugs
            .iter()
            .filter(|slug| !slug.contains(|c: char| c.is_whitespace() || c.is_control()))
            .map(|slug| format!("communities/{slug}")),
    );
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    tell::changed_at(place, &paths);
}

impl Fields {
    fn are_empty(&self) -> bool {
        let texts = [
            &self.title,
            &self.description,
            &self.kind,
            &self.website,
            &self.visibility,
            &self.review_policy,
            &self.data,
        ];
        texts.iter().all(|text| text.is_none())
    }

    /// Writes what the flags say into a document.
    fn write_to(&self, document: &mut Value) {
        let texts = [
            (["metadata", "title"], &self.title),
            (["metadata", "description"], &self.description),
            (["metadata", "website"], &self.website),
            (["access", "visibility"], &self.visibility),
            (["access", "review_policy"], &self.review_policy),
        ];
        for ([part, name], text) in texts {
            if let Some(text) = text {
                merge(document, json!({part: {name: text}}));
            }
        }
        if let Some(kind) = &self.kind {
            merge(document, json!({"metadata": {"type": {"id": kind}}}));
        }
    }
}

/// The parts of a document that are the owner's to write.
fn writable(community: &Community) -> Value {
    let parts = ["slug", "metadata", "access", "custom_fields", "theme"];
    let document: Map<String, Value> = community
        .document
        .iter()
        .filter(|(name, _)| parts.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut document = Value::Object(document);
    // The server tells a type's title too, and takes it by its id alone.
    if let Some(kind) = document.pointer("/metadata/type/id").cloned() {
        document["metadata"]["type"] = json!({"id": kind});
    }
    document
}

fn parsed(text: &str) -> Result<Value> {
    let bytes = data(text)?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(document)) => Ok(Value::Object(document)),
        Ok(_) => Err(Error::new(
            Kind::Usage,
            "what --data gives is JSON, but no object",
        )),
        Err(error) => Err(Error::new(
            Kind::Usage,
            format!("what --data gives is no JSON: {error}"),
        )),
    }
}

/// Lays one document over another (a JSON merge patch): objects part by part, all else whole; `null` takes away.
fn merge(document: &mut Value, over: Value) {
    match (document, over) {
        (Value::Object(document), Value::Object(over)) => {
            for (name, value) in over {
                if value.is_null() {
                    document.remove(&name);
                } else {
                    let place = document.entry(name).or_insert_with(|| json!({}));
                    merge(place, value);
                }
            }
        }
        (document, over) => *document = over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_laid_over_a_document_leaves_the_rest() {
        let mut document =
            json!({"metadata": {"title": "A", "page": "x"}, "access": {"visibility": "public"}});
        merge(
            &mut document,
            json!({"metadata": {"title": "B", "page": null}, "access": {"review_policy": "open"}}),
        );
        assert_eq!(
            document,
            json!({"metadata": {"title": "B"}, "access": {"visibility": "public", "review_policy": "open"}})
        );
    }
}
