//! `doi/<prefix>/<suffix>`: a record by its DOI. A `/` in a suffix makes folders.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Link, Spot, is_nothing};
use crate::catalog::DoiEntry;
use crate::error::{Kind, Result};
use crate::repository::model::RecordId;
use crate::tree::view::Listing;
use crate::tree::{Tree, names};

/// A name that DOIs can begin with.
pub(super) fn prefix(name: &str) -> Option<Arc<str>> {
    let registrant = name.strip_prefix("10.")?;
    let fits = !registrant.is_empty()
        && !registrant.starts_with('.')
        && registrant
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    fits.then(|| name.into())
}

impl Tree {
    pub(super) fn doi_child(&self, path: &Arc<str>, name: &str) -> Result<Option<Spot>> {
        if is_nothing(name) {
            return Ok(None);
        }
        let shown = names::join(path, name);
        let Some(doi) = doi_of(&shown) else {
            return Ok(None);
        };
        let entry = match self.floors.catalog.doi(&doi) {
            Ok(entry) => entry,
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let shown: Arc<str> = shown.into();
        Ok(Some(match &entry.what {
            DoiEntry::Beginning => Spot::DoiFolder(shown),
            DoiEntry::Record(id) => {
                self.seen.dois.lock().put(Arc::clone(&shown), id.clone());
                Link::to_record(depth(&shown), id.clone())
            }
        }))
    }

    /// What was used in this mount, below a path or at all.
    pub(super) fn list_dois(&self, path: Option<&str>) -> Listing {
        let seen: Vec<(Arc<str>, RecordId)> = {
            let seen = self.seen.dois.lock();
            seen.iter()
                .map(|(doi, id)| (Arc::clone(doi), id.clone()))
                .collect()
        };
        let mut lines = BTreeMap::new();
        for (doi, id) in seen {
            let below = match path {
                None => Some(&*doi),
                Some(path) => doi.strip_prefix(path).and_then(|rest| rest.strip_prefix('/')),
            };
            let Some(below) = below else { continue };
            let line = match below.split_once('/') {
                Some((folder, _)) => {
                    let shown = path.map_or_else(|| folder.to_owned(), |path| names::join(path, folder));
                    self.line_of_folder(folder, Spot::DoiFolder(shown.into()))
                }
                None => self.line_of_link(below, Link::to_record(depth(&doi), id)),
            };
            lines.insert(line.name.clone(), line);
        }
        Listing::of(lines.into_values().collect())
    }
}

/// The folders that a DOI goes through, each with the name in it that goes on.
pub(in crate::tree) fn steps_of(doi: &str) -> Vec<(Spot, String)> {
    let parts: Option<Vec<String>> = doi.split('/').map(|part| names::name_of_id(part, "")).collect();
    let Some(parts) = parts else {
        return Vec::new();
    };
    (1..parts.len())
        .map(|end| (Spot::DoiFolder(parts[..end].join("/").into()), parts[end].clone()))
        .collect()
}

/// Folders between a DOI as it is shown and the top.
fn depth(shown: &str) -> usize {
    shown.split('/').count()
}

/// The DOI that a path is of, if it can be one. Its parts are encoded as ids are.
fn doi_of(shown: &str) -> Option<Arc<str>> {
    let parts: Option<Vec<String>> = shown.split('/').map(|part| names::id_of_name(part, "")).collect();
    let doi = parts?.join("/");
    (!doi.contains(char::is_control)).then(|| doi.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_numbers() {
        for good in ["10.5072", "10.5281", "10.1000.10"] {
            assert!(prefix(good).is_some(), "{good}");
        }
        for bad in ["", "10.", "10..1", "11.5072", "10.x", "HEAD", ".git", "10.5072 "] {
            assert_eq!(prefix(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_path_is_of_one_doi() {
        assert_eq!(doi_of("10.1/a/b").as_deref(), Some("10.1/a/b"));
        assert_eq!(doi_of("10.1/a%2Fb").as_deref(), Some("10.1/a/b"));
        assert_eq!(doi_of("10.1/%2E%2E"), None, "only the first dot is encoded");
        assert_eq!(doi_of("10.1/%2E.").as_deref(), Some("10.1/.."));
        assert_eq!(doi_of("10.1/a%0Ab"), None);
    }
}
