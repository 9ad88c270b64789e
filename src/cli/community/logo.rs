//! Logos of communities.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::LogoArguments;
use super::change::{find, shown, tell_of};
use crate::cli::terminal::printable;
use crate::error::{Error, FieldError, Kind, Result};

/// Runs `logo`.
///
/// # Errors
/// `TooLarge` or `Refused` with the field; if a file can't be read or written; `NotFound` if there is none to be saved.
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

/// Servers take 1 MB as packaged. More than this is a file that was named by mistake.
const LARGEST: u64 = 16 << 20;

/// Reads an image. Servers store whatever they are sent, and show it as a broken picture.
fn read(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    let refused = |kind, why: &str| {
        let field = FieldError {
            field: "logo".into(),
            messages: vec![why.to_owned()],
        };
        Error::new(kind, format!("{shown} can be no logo")).with_fields(vec![field])
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
        .map_err(|error| Error::local(format!("can't read {shown}"), &error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(refused(
            Kind::TooLarge,
            "It is larger than any repository takes (1 MB as packaged).",
        ));
    }
    if !is_image(&bytes) {
        return Err(refused(
            Kind::Refused,
            "It is no image: PNG, JPEG, GIF, WebP, AVIF or SVG.",
        ));
    }
    Ok(bytes)
}

/// By how the formats begin that web browsers show.
fn is_image(bytes: &[u8]) -> bool {
    let begins: [&[u8]; 4] = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM"];
    let is_webp = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    let is_avif =
        bytes.get(4..8) == Some(b"ftyp") && matches!(bytes.get(8..12), Some(b"avif" | b"avis" | b"mif1"));
    let is_svg = || {
        let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]).to_ascii_lowercase();
        begin.trim_start_matches('\u{feff}').trim_start().starts_with('<') && begin.contains("<svg")
    };
    begins.iter().any(|begin| bytes.starts_with(begin)) || is_webp || is_avif || is_svg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_from_what_is_none() {
        for image in [
            b"\x89PNG\r\n\x1a\n...".as_slice(),
            b"\xff\xd8\xff\xe0",
            b"GIF89a",
            b"RIFF\0\0\0\0WEBPVP8 ",
            b"\0\0\0\x1cftypavif",
            b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- x -->\n<SVG xmlns=''/>",
        ] {
            assert!(is_image(image), "{image:?}");
        }
        for other in [
            b"".as_slice(),
            b"<html><body>404",
            b"%PDF-1.7",
            b"PK\x03\x04",
            b"a,b\n<svg",
        ] {
            assert!(!is_image(other), "{other:?}");
        }
    }
}
