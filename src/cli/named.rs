//! What people paste where a command wants a record, a community or a request: its DOI, or the address of its page.
//!
//! Used by `target`, `community` and `requests`. An address has to be one of the repository that is meant anyway: the token
//! goes nowhere because of what was pasted.

use percent_encoding::percent_decode_str;
use reqwest::Url;

use crate::cli::address::parse_url;
use crate::error::{Error, Kind, Result};
use crate::repository::RequestId;
use crate::repository::model::RecordId;

/// What a DOI or an address names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A published record.
    Record(RecordId),
    /// A draft.
    Draft(RecordId),
    /// A record, by its DOI.
    Doi(String),
    /// A community, by its slug or UUID.
    Community(String),
    /// A request.
    Request(RequestId),
}

/// Whether it is the address of a page, and so neither a path nor a DOI.
#[must_use]
pub fn is_page(word: &str) -> bool {
    word.contains("://") && doi(word).is_none()
}

/// Whether it may be a DOI or an address, and is worth a look with [`read`].
#[must_use]
pub fn is_one(word: &str) -> bool {
    word.contains("://") || doi(word).is_some()
}

/// Whether an address is one of the repository at `url`.
///
/// # Errors
/// `Usage` for what is no address.
pub fn is_of(word: &str, url: &str) -> Result<bool> {
    Ok(below(&parse_url(without_query(word))?, &parse_url(url)?).is_some())
}

/// An address without what may be secret in it.
#[must_use]
pub fn without_query(word: &str) -> &str {
    word.split(['?', '#']).next().unwrap_or_default()
}

/// The path of an address below a repository's.
fn below<'a>(address: &'a Url, repository: &Url) -> Option<&'a str> {
    let base = repository.path().trim_end_matches('/');
    address
        .path()
        .strip_prefix(base.strip_suffix("/api").unwrap_or(base))
        .filter(|rest| address.origin() == repository.origin() && rest.starts_with('/'))
}

/// Reads a DOI, or an address of the repository at `url`.
///
/// # Errors
/// `Usage` for the address of something else. A query in it, which may hold a secret, is not repeated.
pub fn read(word: &str, url: &str) -> Result<Named> {
    if let Some(doi) = doi(word) {
        return Ok(Named::Doi(doi));
    }
    let shown = without_query(word);
    let wrong = |what: String| Error::new(Kind::Usage, format!("{shown} {what}"));
    let (_, query) = word.split_once('?').unwrap_or_default();
    let address = parse_url(shown)?;
    let below = below(&address, &parse_url(url)?).ok_or_else(|| {
        wrong(format!("is no address of {url}"))
            .with_advice("Say which repository is meant with --repository or --mount.")
    })?;
    let parts: Vec<String> = below
        .trim_matches('/')
        .split('/')
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
        .collect();
    let mut parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    if parts.first() == Some(&"api") {
        parts.remove(0);
    }
    let record = |id: &str| RecordId::new(id);
    let named = match parts.as_slice() {
        // Wherever it is shown: on its own, in a community, among one's own.
        [.., "requests", id] | [.., "requests", id, _] if RequestId::new(id).is_some() => {
            RequestId::new(id).map(Named::Request)
        }
        // Zenodo's addresses of before it was InvenioRDM still lead there.
        ["records", id, "draft", ..] | ["uploads" | "deposit", id, ..] => record(id).map(Named::Draft),
        ["records", id, ..] if query.split('&').any(|pair| pair == "preview=1") => {
            record(id).map(Named::Draft)
        }
        ["records" | "record", id, ..] => record(id).map(Named::Record),
        ["doi", doi @ ..] if doi.len() > 1 => Some(Named::Doi(doi.join("/"))),
        ["communities", name, ..] if !name.is_empty() => Some(Named::Community((*name).to_owned())),
        _ => None,
    };
    named.ok_or_else(|| wrong("is the address of no record, community or request".to_owned()))
}

/// Before a DOI in its address.
const RESOLVERS: [&str; 3] = ["doi.org", "dx.doi.org", "www.doi.org"];

/// The DOI in `10.5281/zenodo.1`, `doi:10.5281/zenodo.1` or `https://doi.org/10.5281/zenodo.1`.
fn doi(word: &str) -> Option<String> {
    let resolved = Url::parse(word)
        .ok()
        .filter(|url| url.host_str().is_some_and(|host| RESOLVERS.contains(&host)));
    let bare = match (&resolved, word.get(..4)) {
        (Some(url), _) => url.path().trim_start_matches('/'),
        (None, Some(scheme)) if scheme.eq_ignore_ascii_case("doi:") => word[4..].trim_start(),
        _ => word,
    };
    let bare = match resolved {
        Some(_) => percent_decode_str(bare).decode_utf8().ok()?,
        None => bare.into(),
    };
    let (prefix, suffix) = bare.split_once('/')?;
    let registrant = prefix.strip_prefix("10.")?;
    let fits = !registrant.is_empty()
        && registrant
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
        && !suffix.is_empty();
    fits.then(|| bare.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://example.org/rdm";
    const UUID: &str = "43b14e4f-05eb-4903-87b6-b80b225383ed";

    #[test]
    fn what_a_browser_shows_is_understood() {
        let record = || RecordId::new("abcde-12345").unwrap();
        let request = || Named::Request(RequestId::new(UUID).unwrap());
        for (address, named) in [
            ("records/abcde-12345", Named::Record(record())),
            (
                "records/abcde-12345/files/a.csv?download=1",
                Named::Record(record()),
            ),
            (
                "records/abcde-12345?preview=1&token=s3cret#x",
                Named::Draft(record()),
            ),
            ("uploads/abcde-12345", Named::Draft(record())),
            ("record/abcde-12345#files", Named::Record(record())),
            ("api/records/abcde-12345/draft", Named::Draft(record())),
            ("doi/10.1/a/b", Named::Doi("10.1/a/b".into())),
            (
                "communities/gl%61ciers/records",
                Named::Community("glaciers".into()),
            ),
            ("me/requests/43b14e4f-05eb-4903-87b6-b80b225383ed", request()),
            (
                "communities/x/requests/43b14e4f-05eb-4903-87b6-b80b225383ed",
                request(),
            ),
            (
                "api/requests/43b14e4f-05eb-4903-87b6-b80b225383ed/timeline",
                request(),
            ),
        ] {
            assert_eq!(
                read(&format!("{URL}/{address}"), URL).unwrap(),
                named,
                "{address}"
            );
        }
        for doi in [
            "10.5281/zenodo.1",
            "doi:10.5281/zenodo.1",
            "DOI: 10.5281/zenodo.1",
            "https://doi.org/10.5281/zenodo.1",
            "http://dx.doi.org/10.5281%2Fzenodo.1",
        ] {
            assert!(is_one(doi) && !is_page(doi));
            assert_eq!(read(doi, URL).unwrap(), Named::Doi("10.5281/zenodo.1".into()));
        }
        assert!(!is_one("abcde-12345") && !is_one("drafts/abcde-12345") && !is_one("10.5"));
    }

    #[test]
    fn the_address_of_anything_else_is_refused_without_its_query() {
        for address in [
            "https://example.org/records/abcde-12345?token=s3cret",
            "https://other.example/rdm/records/abcde-12345?token=s3cret",
            "https://example.org.other.example/rdm/records/abcde-12345?token=s3cret",
            "https://example.org/rdm/help?token=s3cret",
            "https://me:s3cret@example.org/rdm/records/abcde-12345",
        ] {
            let error = read(address, URL).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{address}");
            assert!(
                !format!("{error} {}", error.advice()).contains("s3cret"),
                "{error}"
            );
        }
    }
}
