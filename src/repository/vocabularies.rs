//! Vocabularies: the words that metadata may use, by type.
//!
//! Called by `catalog/` and `cli/`. Some types ("specific vocabularies") have addresses of their own.

use reqwest::Url;
use serde_json::{Map, Value};

use super::model::{on_one_line, text_of};
use super::transport::{Ask, JSON};
use super::urls::encode_part;
use super::{Listing, Repository, Search};
use crate::error::{Error, Kind, Result};

/// Types with an address of their own.
const SPECIFIC: &[&str] = &["affiliations", "awards", "funders", "names", "subjects"];

/// What servers that don't list their types have (reference, section 1).
const COMMON: &[&str] = &[
    "communitytypes",
    "contributorsroles",
    "creatorsroles",
    "datetypes",
    "descriptiontypes",
    "languages",
    "licenses",
    "relationtypes",
    "removalreasons",
    "resourcetypes",
    "titletypes",
];

/// A type of vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VocabularyType {
    /// The server's name for it.
    pub name: String,
    /// How many words it has, if the server says it.
    pub count: Option<u64>,
}

/// A word of a vocabulary: the whole document, and what we read out of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// Its id: anything at all; subjects' are addresses.
    pub id: String,
    /// What it is called, in English if it is.
    pub title: String,
    /// The document as the server sent it.
    pub document: Map<String, Value>,
}

impl Term {
    fn from_value(value: Value) -> Option<Self> {
        let titles = value.get("title");
        let title = text_of(&value, "name")
            .or_else(|| text_of(&value, "subject"))
            .or_else(|| text_of(titles?, "en"))
            .or_else(|| Some(titles?.as_object()?.values().next()?.as_str()?.to_owned()))
            .unwrap_or_default();
        Some(Term {
            id: text_of(&value, "id")?,
            title,
            document: match value {
                Value::Object(document) => document,
                _ => return None,
            },
        })
    }
}

impl Repository {
    /// The types that the server has.
    ///
    /// # Errors
    /// As any request.
    pub fn vocabulary_types(&self) -> Result<Vec<VocabularyType>> {
        // Without the slash, a redirect.
        let url = self.transport.base.api("vocabularies/")?;
        let doing = "list the vocabularies";
        let unlisted = || {
            let mut names: Vec<&str> = COMMON.iter().chain(SPECIFIC).copied().collect();
            names.sort_unstable();
            let of = |name: &str| VocabularyType {
                name: name.to_owned(),
                count: None,
            };
            names.into_iter().map(of).collect()
        };
        let answer = match self.ask(Ask::get(url, doing).accept(JSON)) {
            Ok(answer) => answer,
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::NotSupported | Kind::Denied) => {
                return Ok(unlisted());
            }
            Err(error) => return Err(error),
        };
        let Some(types) = answer.value.pointer("/hits/hits").and_then(Value::as_array) else {
            return Ok(unlisted());
        };
        Ok(types
            .iter()
            .filter_map(|value| {
                Some(VocabularyType {
                    name: text_of(value, "id")?,
                    count: value.get("count").and_then(Value::as_u64),
                })
            })
            .collect())
    }

    /// Searches the words of a type. `suggest` in [`Search::more`] completes what is typed (and then no query may be there);
    /// `tags` picks some.
    ///
    /// # Errors
    /// `NotFound` for an unknown type, `Denied` for those that are not for guests (`names`), else as any request.
    pub fn vocabulary(&self, kind: &str, search: &Search) -> Result<Listing<Term>> {
        let doing = format!("search the vocabulary {}", on_one_line(kind));
        self.list(&vocabulary_path(kind)?, search, &[], &doing, Term::from_value)
    }

    /// A word by its id.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, else as any request.
    pub fn term(&self, kind: &str, id: &str) -> Result<Term> {
        let doing = format!("read {} of the vocabulary {}", on_one_line(id), on_one_line(kind));
        let url = self.term_url(kind, id)?;
        Term::from_value(self.ask(Ask::get(url, doing.as_str()).accept(JSON))?.value).ok_or_else(|| {
            Error::new(
                Kind::ServerFailed,
                format!("can't {doing}: the answer is JSON, but no word of a vocabulary"),
            )
        })
    }

    fn term_url(&self, kind: &str, id: &str) -> Result<Url> {
        // Ids with a part that is `.` or `..` would be resolved away by what lies between.
        if id.split('/').any(|part| part == "." || part == "..") {
            return Err(Error::new(
                Kind::NotFound,
                format!("no word of a vocabulary has the id {}", on_one_line(id)),
            ));
        }
        let id = encode_part("word", id)?;
        self.transport
            .base
            .api(&format!("{}/{id}", vocabulary_path(kind)?))
    }
}

fn vocabulary_path(kind: &str) -> Result<String> {
    if SPECIFIC.contains(&kind) {
        return Ok(kind.to_owned());
    }
    Ok(format!("vocabularies/{}", encode_part("vocabulary", kind)?))
}
