//! A repository's address: what can be one, and what its folder is called.

use reqwest::Url;

use crate::error::{Error, Kind, Result};

/// Reads a repository's address.
///
/// # Errors
/// `Usage` if it is none; a password in it is not repeated.
pub fn parse_url(text: &str) -> Result<Url> {
    // The text is not shown where it may hold a password.
    let shown = if text.contains('@') { "the address" } else { text };
    let wrong = |what: &str| {
        Err(Error::new(Kind::Usage, format!("{shown} {what}"))
            .with_advice("Give the repository's web address, such as https://zenodo.org."))
    };
    let Ok(url) = Url::parse(text.trim()) else {
        return wrong("is no web address");
    };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return wrong("is no web address (https://...)");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("has a user name or password in it, which belongs in a token file");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong("has a '?' or '#' in it; the address of the repository itself is wanted");
    }
    Ok(url)
}

/// `zenodo.org`, `127.0.0.1_5000`, `example.org_rdm`: a folder name for a repository.
#[must_use]
pub fn folder_name(url: &Url) -> String {
    let mut name = url
        .host_str()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    if let Some(port) = url.port().or((url.scheme() == "http").then_some(80)) {
        name.push_str(&format!("_{port}"));
    }
    for part in url
        .path_segments()
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
    {
        name.push('_');
        name.push_str(part);
    }
    name.replace(
        |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | '_'),
        "_",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_web_address_is_refused_and_a_password_in_it_not_repeated() {
        for wrong in [
            "zenodo.org",
            "ftp://zenodo.org",
            "file:///etc",
            "",
            "https://",
            "https://u:hunter2@zenodo.org",
            "https://a.example/?q=1",
        ] {
            let error = parse_url(wrong).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{wrong}");
            assert!(!error.to_string().contains("hunter2"));
        }
        assert!(parse_url(" https://zenodo.org/ ").is_ok());
    }

    #[test]
    fn each_repository_has_a_folder_of_its_own() {
        for (url, name) in [
            ("https://zenodo.org", "zenodo.org"),
            ("http://127.0.0.1:5000/", "127.0.0.1_5000"),
            ("http://zenodo.org", "zenodo.org_80"),
            ("https://example.org/my/rdm", "example.org_my_rdm"),
            ("http://[::1]:80", "__1_80"),
        ] {
            assert_eq!(folder_name(&Url::parse(url).unwrap()), name, "{url}");
        }
    }
}
