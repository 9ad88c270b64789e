//! Addresses: the repository's base, the origin the token may go to, and file keys as parts of a URL.
//!
//! Used by every resource file of this floor. URLs are built here from checked parts; links that a server sends are
//! never used for this (they may name another host, or leave `#` and `?` of a key as they are).

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;

use crate::error::{Error, Kind, Result};

/// All but the unreserved characters of RFC 3986; `/` too, which servers decode before they route.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The longest key InvenioRDM stores, in characters. Longer ones are accepted at start and refused at PUT.
const LONGEST_KEY: usize = 255;

/// No id or name is longer; web servers refuse long addresses.
const LONGEST_PART: usize = 1024;

/// Scheme, host and port.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    pub(super) fn of(url: &Url) -> Self {
        Origin {
            scheme: url.scheme().to_owned(),
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default(),
        }
    }

    pub(super) fn is_secure(&self) -> bool {
        self.scheme == "https"
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        match (self.scheme.as_str(), self.port) {
            ("http", Some(80)) | ("https", Some(443)) | (_, None) => Ok(()),
            (_, Some(port)) => write!(f, ":{port}"),
        }
    }
}

/// The repository's address.
#[derive(Clone)]
pub(super) struct Base {
    text: String,
    url: Url,
    origin: Origin,
}

impl Base {
    /// Reads what a user gave: `https://host`, with or without `/`, `/api`, a query.
    pub(super) fn parse(given: &str) -> Result<Self> {
        let given = given.trim();
        let wrong = |why: String| {
            Error::new(Kind::Usage, why)
                .with_advice("Give the address of an InvenioRDM repository, such as https://zenodo.org.")
        };
        if !given.contains("://") {
            return Err(wrong(format!(
                "the address \"{given}\" does not begin with https:// or http://"
            )));
        }
        // The address itself is not repeated: it may hold a password.
        let mut url =
            Url::parse(given).map_err(|error| wrong(format!("the address is no web address: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(format!(
                "the address begins with {}://, but only https:// and http:// are possible",
                url.scheme()
            )));
        }
        if url.host_str().unwrap_or_default().is_empty() {
            return Err(wrong("the address has no host".into()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(
                "the address holds a user name or password, which InvenioRDM does not use".into(),
            )
            .with_advice("Leave it out and use a token (--token-file)."));
        }
        url.set_query(None);
        url.set_fragment(None);
        let path = url.path().trim_end_matches('/');
        let path = path.strip_suffix("/api").unwrap_or(path).trim_end_matches('/');
        let path = path.to_owned();
        url.set_path(&path);
        Ok(Base {
            text: url.as_str().trim_end_matches('/').to_owned(),
            origin: Origin::of(&url),
            url,
        })
    }

    /// Without `/api` and without a slash at the end.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Where the token may go.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether a URL of this repository is about one record or draft.
    pub(super) fn is_of_a_record(&self, url: &Url) -> bool {
        let records = format!("{}/api/records/", self.url.path().trim_end_matches('/'));
        url.path().starts_with(&records)
    }

    /// The URL of an endpoint; `path` is relative to `/api/` and already encoded.
    pub(super) fn api(&self, path: &str) -> Result<Url> {
        Url::parse(&format!("{}/api/{path}", self.text))
            .map_err(|error| Error::new(Kind::Internal, format!("no URL for {path}: {error}")))
    }
}

/// A key as one part of a path.
///
/// # Errors
/// `Refused`, before any request, for keys that no request can reach: servers and proxies resolve `.` and `..`, redirect
/// away from a leading `/`, and do not route an empty key, a line end or NUL (API notes, section 3).
pub(super) fn encode_key(key: &str) -> Result<String> {
    let why = if key.is_empty() {
        "it is empty"
    } else if key.starts_with('/') {
        "it begins with a slash"
    } else if key.contains(['\n', '\0']) {
        "it holds a line end or a NUL"
    } else if key.split('/').any(|part| part == "." || part == "..") {
        "it holds a . or .. as a part"
    } else {
        return Ok(utf8_percent_encode(key, UNRESERVED).to_string());
    };
    Err(Error::new(
        Kind::Refused,
        format!("the repository can't hold a file named {key:?}: {why}"),
    )
    .with_advice("Choose another name."))
}

/// The id or name of anything but a file, as one part of a path.
///
/// # Errors
/// `NotFound`, before any request, for what no server can have: nothing at all, `.`, `..`, or control characters.
pub(super) fn encode_part(what: &str, name: &str) -> Result<String> {
    if name.is_empty()
        || name == "."
        || name == ".."
        || name.contains(char::is_control)
        || name.len() > LONGEST_PART
    {
        return Err(Error::new(
            Kind::NotFound,
            format!(
                "no {what} can be named {:?}",
                name.chars().take(80).collect::<String>()
            ),
        ));
    }
    Ok(utf8_percent_encode(name, UNRESERVED).to_string())
}

/// Checks a key for a file to be made: reachable, and short enough to be stored.
pub(super) fn check_new_key(key: &str) -> Result<()> {
    encode_key(key)?;
    let length = key.chars().count();
    if length > LONGEST_KEY {
        return Err(Error::new(
            Kind::Refused,
            format!("the repository can't hold a file whose name has {length} characters; the most is {LONGEST_KEY}"),
        )
        .with_advice("Choose a shorter name; folders count."));
    }
    Ok(())
}

/// A URL as it may be shown: without query (it may be signed), fragment and credentials.
pub(super) fn shown(url: &Url) -> String {
    format!("{}{}", Origin::of(url), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_in_the_forms_people_give() {
        for given in [
            "https://example.org",
            "https://example.org/",
            " https://EXAMPLE.org/api/ ",
            "https://example.org/api?x=1#y",
            "https://example.org:443//",
        ] {
            let base = Base::parse(given).unwrap();
            assert_eq!(base.as_str(), "https://example.org", "{given}");
            assert_eq!(
                base.api("records").unwrap().as_str(),
                "https://example.org/api/records"
            );
        }
        let deeper = Base::parse("http://127.0.0.1:5000/rdm/api").unwrap();
        assert_eq!(deeper.as_str(), "http://127.0.0.1:5000/rdm");
        assert_eq!(deeper.origin().to_string(), "http://127.0.0.1:5000");
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_a_password() {
        for given in [
            "",
            "zenodo.org",
            "ftp://example.org",
            "https://",
            "http://[",
            "https://u:hunter2@example.org",
        ] {
            let error = Base::parse(given).err().unwrap();
            assert_eq!(error.kind(), Kind::Usage, "{given}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn a_key_is_one_part_of_the_path_whatever_it_holds() {
        assert_eq!(encode_key("a/b c%2F#?é").unwrap(), "a%2Fb%20c%252F%23%3F%C3%A9");
        let base = Base::parse("https://example.org").unwrap();
        for key in [
            "a//b",
            "trail/",
            "%2E%2E",
            "..x",
            "a\\b",
            "x\t'\"<>`",
            "...",
            "~_-.",
        ] {
            let encoded = encode_key(key).unwrap();
            let url = base.api(&format!("files/{encoded}/content")).unwrap();
            assert_eq!(
                url.path(),
                format!("/api/files/{encoded}/content"),
                "{key} is changed on the way"
            );
        }
    }

    #[test]
    fn keys_that_no_request_can_reach_are_refused_before_any() {
        for key in ["", "/lead", "a\nb", "a\0b", ".", "..", "../x", "a/../b", "a/."] {
            assert_eq!(encode_key(key).unwrap_err().kind(), Kind::Refused, "{key:?}");
        }
        assert!(check_new_key(&"é".repeat(255)).is_ok());
        assert_eq!(check_new_key(&"é".repeat(256)).unwrap_err().kind(), Kind::Refused);
    }

    #[test]
    fn a_signed_link_is_shown_without_what_signs_it() {
        let url = Url::parse("https://s3.example.org:9000/b/data?X-Amz-Signature=abc").unwrap();
        assert_eq!(shown(&url), "https://s3.example.org:9000/b/data");
    }
}
