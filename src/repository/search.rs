//! Searches as people write them: a query in the repository's syntax, or a whole query string.
//!
//! Made by `tree/` from the name of a folder and by `cli/` from what was typed.

use percent_encoding::percent_decode_str;

use super::Search;
use crate::error::{Error, Kind, Result};

impl Search {
    /// Reads what a user typed. What begins with `?` is a query string (`?q=climate&sort=newest&allversions=true`), all
    /// else is a query in the repository's own syntax; best match first.
    ///
    /// # Errors
    /// `Refused` for a query string that is none, or that holds what is no matter of a search (a token).
    pub fn typed(text: &str) -> Result<Search> {
        match text.strip_prefix('?') {
            Some(rest) => Search::from_query_string(rest),
            None => Ok(Search {
                query: Some(text.to_owned()),
                sort: Some("bestmatch"),
                ..Search::default()
            }),
        }
    }

    /// Reads a query string without its `?`.
    fn from_query_string(text: &str) -> Result<Search> {
        let refused = |why: String| Error::new(Kind::Refused, format!("?{text} is no search: {why}"));
        let plain = |part: &str| {
            percent_decode_str(&part.replace('+', " "))
                .decode_utf8()
                .map(|text| text.into_owned())
                .map_err(|_| refused("it holds bytes that are no text".into()))
        };
        let mut search = Search::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (plain(name)?, plain(value)?);
            let number = || {
                value
                    .parse::<u32>()
                    .ok()
                    .filter(|number| *number > 0)
                    .ok_or_else(|| refused(format!("{name} is no number from 1")))
            };
            match name.as_str() {
                "q" => search.query = Some(value),
                "page" => search.page = number()?,
                "size" => search.size = number()?,
                "allversions" | "all_versions" => {
                    search.all_versions = match value.to_ascii_lowercase().as_str() {
                        "" | "1" | "true" | "t" | "yes" | "on" => true,
                        "0" | "false" | "f" | "no" | "off" => false,
                        _ => return Err(refused(format!("{name} is neither true nor false"))),
                    }
                }
                "token" | "access_token" => return Err(refused(format!("{name} has no place in it"))),
                "" => return Err(refused("a parameter has no name".into())),
                _ => search.more.push((name, value)),
            }
        }
        Ok(search)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_a_query_as_it_is() {
        let search = Search::typed("metadata.title:\"a & b\" AND x?y=%20").unwrap();
        assert_eq!(
            search.query.as_deref(),
            Some("metadata.title:\"a & b\" AND x?y=%20")
        );
        assert_eq!(search.sort, Some("bestmatch"));
        assert!(search.more.is_empty());
    }

    #[test]
    fn a_query_string_is_read_parameter_by_parameter() {
        let search =
            Search::typed("?q=climate+change%26&sort=newest&allversions=true&resource_type=dataset&size=50")
                .unwrap();
        assert_eq!(search.query.as_deref(), Some("climate change&"));
        assert!(search.all_versions);
        assert_eq!((search.page, search.size), (1, 50));
        let more: Vec<(&str, &str)> = search
            .more
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        assert_eq!(more, [("sort", "newest"), ("resource_type", "dataset")]);
    }

    #[test]
    fn what_is_no_matter_of_a_search_is_refused() {
        for text in [
            "?token=x",
            "?access_token=x",
            "?size=0",
            "?page=x",
            "?=x",
            "?q=%ff",
            "?allversions=maybe",
        ] {
            assert_eq!(Search::typed(text).unwrap_err().kind(), Kind::Refused, "{text}");
        }
    }
}
