//! Names of a record or draft that are no path: an id, a DOI, the address of its page.
//!
//! Used by `target` alone. Nothing is asked here; a name is only taken apart.

use percent_encoding::percent_decode_str;
use reqwest::Url;

use crate::repository::model::RecordId;

/// What a name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// An id.
    Id(RecordId),
    /// A DOI, without anything before it.
    Doi(String),
}

/// A name, and the repository that it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The record or draft.
    pub named: Named,
    /// The address of the repository, if the name is that of a page in it.
    pub repository: Option<String>,
}

/// Where DOIs are looked up.
const RESOLVERS: [&str; 3] = ["doi.org", "dx.doi.org", "www.doi.org"];
/// What stands before an id in the address of a page: of a record, of a draft, and both on Zenodo before it was InvenioRDM.
const PAGES: [&str; 4] = ["records", "uploads", "record", "deposit"];

impl Name {
    /// Takes a name apart; `None` if it is none.
    #[must_use]
    pub fn parse(word: &str) -> Option<Name> {
        let of = |named| Name {
            named,
            repository: None,
        };
        if is_page(word) {
            return of_page(&Url::parse(word).ok()?);
        }
        RecordId::new(word)
            .map(Named::Id)
            .or_else(|| doi(word).map(Named::Doi))
            .map(of)
    }
}

/// Whether it is an address, and so no path.
#[must_use]
pub fn is_page(word: &str) -> bool {
    word.starts_with("https://") || word.starts_with("http://")
}

fn doi(word: &str) -> Option<String> {
    let doi = match word.get(..4) {
        Some(scheme) if scheme.eq_ignore_ascii_case("doi:") => word[4..].trim_start(),
        _ => word,
    };
    let (prefix, suffix) = doi.split_once('/')?;
    (prefix.starts_with("10.") && !suffix.is_empty()).then(|| doi.to_owned())
}

fn of_page(page: &Url) -> Option<Name> {
    let decoded = |part: &str| percent_decode_str(part).decode_utf8().ok().map(String::from);
    if page.host_str().is_some_and(|host| RESOLVERS.contains(&host)) {
        return Some(Name {
            named: Named::Doi(doi(&decoded(page.path().trim_start_matches('/'))?)?),
            repository: None,
        });
    }
    let parts: Vec<&str> = page.path_segments()?.collect();
    // The first place that fits: a repository may lie below a folder, and a file be called as it likes.
    let (at, named) = parts.iter().enumerate().find_map(|(at, part)| {
        let rest = &parts[at + 1..];
        let named = match *part {
            "doi" => Named::Doi(doi(&decoded(&rest.join("/"))?)?),
            part if PAGES.contains(&part) => Named::Id(RecordId::new(rest.first()?)?),
            _ => return None,
        };
        Some((at, named))
    })?;
    let before: Vec<&str> = match &parts[..at] {
        [before @ .., "api"] => before.to_vec(),
        before => before.to_vec(),
    };
    let mut repository = page.clone();
    repository.set_path(&before.join("/"));
    repository.set_query(None);
    repository.set_fragment(None);
    Some(Name {
        named,
        repository: Some(repository.as_str().trim_end_matches('/').to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Named {
        Named::Id(RecordId::new(text).unwrap())
    }

    #[test]
    fn a_page_names_its_record_and_its_repository() {
        for (page, named, repository) in [
            ("https://zenodo.org/records/123", id("123"), "https://zenodo.org"),
            (
                "https://zenodo.org/record/123#files",
                id("123"),
                "https://zenodo.org",
            ),
            (
                "http://127.0.0.1:5000/uploads/abcde-12345?tab=files",
                id("abcde-12345"),
                "http://127.0.0.1:5000",
            ),
            (
                "https://example.org/rdm/api/records/abcde-12345/draft",
                id("abcde-12345"),
                "https://example.org/rdm",
            ),
            (
                "https://example.org/records/abcde-12345/files/records/x.csv",
                id("abcde-12345"),
                "https://example.org",
            ),
            (
                "https://example.org/doi/10.5072/abcde-12345",
                Named::Doi("10.5072/abcde-12345".into()),
                "https://example.org",
            ),
        ] {
            let name = Name::parse(page).unwrap();
            assert_eq!(
                (name.named, name.repository.as_deref()),
                (named, Some(repository)),
                "{page}"
            );
        }
        for none in [
            "https://example.org/",
            "https://example.org/communities/x",
            "https://example.org/records/",
        ] {
            assert_eq!(Name::parse(none), None, "{none}");
        }
    }

    #[test]
    fn a_doi_is_known_in_each_of_its_spellings() {
        for text in [
            "10.5072/a/b",
            "doi:10.5072/a/b",
            "DOI: 10.5072/a/b",
            "https://doi.org/10.5072/a%2Fb",
            "http://dx.doi.org/10.5072/a/b",
        ] {
            let name = Name::parse(text).unwrap();
            assert_eq!(name.named, Named::Doi("10.5072/a/b".into()), "{text}");
            assert_eq!(name.repository, None, "{text}");
        }
        assert_eq!(Name::parse("abcde-12345").unwrap().named, id("abcde-12345"));
        for none in ["a/b", "10.5072", "10.5072/", "no such thing", "https://doi.org/"] {
            assert_eq!(Name::parse(none), None, "{none}");
        }
    }
}
