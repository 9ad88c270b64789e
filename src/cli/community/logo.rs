//! Logos of communities.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::LogoArguments;
use super::change::{find, shown, tell_of};
use crate::cli::terminal::printable;
use crate::error::{Error, Kind, Result};

/// Runs `logo`.
///
/// # Errors
/// `TooLarge` with the field; if a file can't be read or written; `NotFound` if there is none to be saved.
pub(super) fn run(arguments: &LogoArguments) -> Result<ExitCode> {
    let image = arguments.image.as_deref().map(read).transpose()?;
    let (place, name) = find(&arguments.community, &arguments.access)?;
    if let Some(path) = &arguments.save {
        let logo = place.repository.community_logo(&name)?.ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!("community {} has no logo", printable(&name)),
            )
        })?;
        fs::write(path, &logo.bytes)
            .map_err(|error| Error::local(format!("can't write {}", path.display()), &error))?;
        arguments.output.say(
            &json!({"community": name, "saved": path, "bytes": logo.bytes.len()}),
            format_args!("saved {}", path.display()),
        );
        return Ok(ExitCode::SUCCESS);
    }
    let repository = place.signed_in()?;
    let known = repository.community(&name)?;
    let done = match image {
        Some(image) => {
            repository.set_community_logo(&known.id, image)?;
            "has the logo now"
        }
        None => {
            let question = format!("Take the logo of {} away?", shown(&known));
            if !arguments.consent.to(&question)? {
                return Ok(ExitCode::FAILURE);
            }
            repository.delete_community_logo(&known.id)?;
            "has no logo any more"
        }
    };
    tell_of(&place, &[&known.slug]);
    arguments.output.say(
        &json!({"community": known.slug, "logo": arguments.image.is_some()}),
        format_args!("{} {done}", printable(&known.slug)),
    );
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Error::local(format!("can't read {}", path.display()), &error))
}
