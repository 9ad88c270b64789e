//! `records/<id>/versions/`: links to every version of a record, and to the latest.

use super::{Link, Spot};
use crate::error::Result;
use crate::repository::model::RecordId;
use crate::tree::Tree;
use crate::tree::view::Listing;

const LATEST: &str = "latest";

impl Tree {
    pub(super) fn version_child(&self, id: &RecordId, name: &str) -> Result<Option<Spot>> {
        let number = number_in(name);
        if number.is_none() && name != LATEST {
            return Ok(None);
        }
        // Of itself, the record knows enough.
        let entry = self.floors.catalog.record(id)?;
        let is_latest = entry.is_latest == Some(true);
        let itself = match (number, entry.version) {
            (None, _) => is_latest,
            (Some(number), Some(own)) if is_latest && number > own => return Ok(None),
            (Some(number), own) => Some(number) == own,
        };
        if itself {
            return Ok(Some(Link::to_version(entry.id.clone())));
        }
        let versions = self.floors.catalog.versions(id)?;
        let found = match number {
            Some(number) => versions.into_iter().find(|(known, _)| *known == number),
            None => versions.into_iter().next_back(),
        };
        Ok(found.map(|(_, id)| Link::to_version(id)))
    }

    pub(super) fn list_versions(&self, id: &RecordId) -> Result<Listing> {
        let versions = self.floors.catalog.versions(id)?;
        let latest = versions.last().map(|(_, id)| (LATEST.to_owned(), id.clone()));
        let lines = versions
            .into_iter()
            .map(|(number, id)| (number.to_string(), id))
            .chain(latest)
            .map(|(name, id)| self.line_of_link(&name, Link::to_version(id)))
            .collect();
        Ok(Listing::of(lines))
    }
}

/// A number from 1, as it is shown.
fn number_in(name: &str) -> Option<u64> {
    let number = name.parse().ok().filter(|number| *number > 0)?;
    (u64::to_string(&number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_name() {
        assert_eq!(number_in("12"), Some(12));
        for name in ["0", "01", "+1", "-1", "1 ", "", "x", "99999999999999999999999"] {
            assert_eq!(number_in(name), None, "{name:?}");
        }
    }
}
