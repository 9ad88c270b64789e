//! Lists of published records, as `search` and `community records` print them.
//!
//! Pages are asked for as far as the limit reaches; nothing is changed.

use std::collections::HashSet;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::ask::Output;
use crate::cli::target::Place;
use crate::cli::{table, terminal};
use crate::error::{Error, Kind, Result};
use crate::repository::model::{Page, Record};
use crate::repository::{Listing, Search};

/// Which records, and how they are printed.
#[derive(Args)]
pub struct How {
    /// As many at most
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Order: bestmatch, newest, oldest, updated-desc, updated-asc, version ... [default: best match first]
    #[arg(long, value_name = "ORDER")]
    sort: Option<String>,
    /// Every version, and not only the latest of each record
    #[arg(long)]
    all_versions: bool,
    /// Print the records' paths in a running mount
    #[arg(long, conflicts_with = "json")]
    paths: bool,
    #[command(flatten)]
    output: Output,
}

impl How {
    /// The search that a user typed, or all there is.
    ///
    /// # Errors
    /// `Usage` for an order that is given twice; as [`Search::typed`].
    pub fn search(&self, typed: Option<&str>) -> Result<Search> {
        let mut search = match typed {
            Some(typed) => Search::typed(typed)?,
            None => Search::default(),
        };
        search.all_versions |= self.all_versions;
        if let Some(sort) = &self.sort {
            if search.more.iter().any(|(name, _)| name == "sort") {
                return Err(Error::new(
                    Kind::Usage,
                    "the query says an order, and so does --sort",
                ));
            }
            search.more.push(("sort".into(), sort.clone()));
        }
        Ok(search)
    }

    /// How the list is printed.
    #[must_use]
    pub fn output(&self) -> Output {
        self.output
    }

    /// Prints what `page` finds, up to the limit.
    ///
    /// # Errors
    /// What kept the repository from answering; `NotFound` if paths are wanted and it is not mounted.
    pub fn show(
        &self,
        place: &Place,
        search: Search,
        mut page: impl FnMut(&Search) -> Result<Page>,
    ) -> Result<()> {
        let mounted = match self.paths {
            true => Some(mount_of(place)?),
            false => None,
        };
        let found = up_to(self.limit, place.repository.largest_page(), search, |search| {
            page(search).map(|page| Listing {
                items: page.records,
                total: page.total,
                has_next: page.has_next,
            })
        })?;
        let mut known = HashSet::new();
        let records: Vec<&Record> = found
            .items
            .iter()
            // A record published meanwhile moves the others to the next page.
            .filter(|record| known.insert(&record.id))
            .collect();
        if self.output.json {
            let hits: Vec<&serde_json::Map<String, Value>> =
                records.iter().map(|record| record.document()).collect();
            terminal::say(format_args!("{:#}", json!({"total": found.total, "hits": hits})));
        } else if let Some(mounted) = mounted {
            for record in records {
                terminal::say(mounted.join("records").join(record.id.as_str()).display());
            }
        } else {
            let rows: Vec<[String; 4]> = records.iter().map(|record| row(record)).collect();
            table::show(["ID", "DATE", "TITLE", "CREATORS"], &rows);
            note_rest(rows.len(), found.total);
        }
        Ok(())
    }
}

/// Tells a person that there is more than what is shown.
pub fn note_rest(shown: usize, total: u64) {
    match shown {
        _ if !terminal::is_watched() => {}
        0 => terminal::note("nothing was found"),
        _ if (shown as u64) < total => {
            terminal::note(format_args!("{shown} of {total} shown; --limit shows more"));
        }
        _ => {}
    }
}

/// As much of a list as is wanted, page by page.
///
/// # Errors
/// What `page` returns.
pub fn up_to<T>(
    limit: u32,
    largest: u32,
    mut search: Search,
    mut page: impl FnMut(&Search) -> Result<Listing<T>>,
) -> Result<Listing<T>> {
    search.size = limit.min(largest);
    let mut all = page(&search)?;
    while all.has_next && all.items.len() < limit as usize {
        search.page += 1;
        let next = page(&search)?;
        all.has_next = next.has_next;
        all.items.extend(next.items);
    }
    all.items.truncate(limit as usize);
    Ok(all)
}

fn mount_of(place: &Place) -> Result<std::path::PathBuf> {
    let mounts = place.mounts();
    mounts
        .into_iter()
        .next()
        .map(|mounted| mounted.mountpoint)
        .ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!("{} is not mounted, so there are no paths", place.repository.url()),
            )
            .with_advice("Mount it first (rdmfs mount), or leave --paths out.")
        })
}

fn row(record: &Record) -> [String; 4] {
    let document = record.document();
    let metadata = document.get("metadata").unwrap_or(&Value::Null);
    let date = metadata.get("publication_date").and_then(Value::as_str);
    [
        record.id.to_string(),
        date.unwrap_or("-").to_owned(),
        record.title.clone(),
        creators(metadata),
    ]
}

/// `Carberry, Josiah; Doe, Jane` in each form that servers write.
fn creators(metadata: &Value) -> String {
    let creators = metadata.get("creators").and_then(Value::as_array);
    let names: Vec<&str> = creators
        .into_iter()
        .flatten()
        .filter_map(|one| {
            one.pointer("/person_or_org/name")
                .or_else(|| one.get("name"))?
                .as_str()
        })
        .collect();
    match names.is_empty() {
        true => "-".to_owned(),
        false => names.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(total: u32) -> impl FnMut(&Search) -> Result<Listing<u32>> {
        move |search| {
            let first = (search.page - 1) * search.size;
            let last = (first + search.size).min(total);
            Ok(Listing {
                items: (first..last).collect(),
                total: total.into(),
                has_next: last < total,
            })
        }
    }

    #[test]
    fn pages_are_asked_for_up_to_the_limit_and_no_further() {
        for (limit, largest, total, expected) in [
            (10, 100, 50, 10),
            (60, 25, 200, 60),
            (60, 25, 40, 40),
            (1, 25, 0, 0),
        ] {
            let mut asked = 0;
            let mut page = pages(total);
            let found = up_to(limit, largest, Search::default(), |search| {
                asked += 1;
                assert!(search.size <= largest);
                page(search)
            })
            .unwrap();
            assert_eq!(found.items, (0..expected).collect::<Vec<_>>());
            assert!(asked <= limit.div_ceil(largest), "{asked}");
        }
    }

    #[test]
    fn creators_are_named_in_each_form() {
        let metadata =
            json!({"creators": [{"person_or_org": {"name": "Carberry, Josiah"}}, {"name": "Doe, Jane"}]});
        assert_eq!(creators(&metadata), "Carberry, Josiah; Doe, Jane");
        assert_eq!(creators(&json!({})), "-");
    }
}
