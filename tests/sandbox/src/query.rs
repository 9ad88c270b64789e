//! The small part of the query language that the sandbox understands.
//!
//! Words and `field:value` terms, all of which must match; `OR` between groups of them. Words are
//! looked for in id, title, creators and description. A term about a field nobody knows matches
//! nothing, as short names such as `title:` do on a real server.

use serde_json::Value;

use crate::store::{Document, Store, iso};

/// A parsed query: one of the groups has to match, with all its terms.
#[derive(Debug, Default)]
pub(crate) struct Query {
    groups: Vec<Vec<Term>>,
}

#[derive(Debug, PartialEq)]
enum Term {
    Word(String),
    Field(String, String),
    Not(Box<Term>),
}

impl Query {
    pub fn parse(text: &str) -> Query {
        let mut groups = vec![Vec::new()];
        let mut negate = false;
        for token in tokens(text) {
            match token.as_str() {
                "AND" | "&&" => {}
                "OR" | "||" => groups.push(Vec::new()),
                "NOT" => negate = true,
                _ => {
                    let term = parse_term(&token);
                    let term = if negate { Term::Not(Box::new(term)) } else { term };
                    negate = false;
                    if let Some(group) = groups.last_mut() {
                        group.push(term);
                    }
                }
            }
        }
        Query { groups }
    }

    pub fn is_empty(&self) -> bool {
        self.groups.iter().all(Vec::is_empty)
    }

    pub fn matches(&self, document: &Document, published: bool) -> bool {
        self.groups
            .iter()
            .any(|group| group.iter().all(|term| term.matches(document, published)))
    }

    /// The DOI of all versions stands in the parent, which a document alone does not have.
    pub fn is_of_parent_doi(&self, store: &Store, document: &Document) -> bool {
        let doi = &store.parent_of(document).pids["doi"]["identifier"];
        self.groups.iter().any(|group| {
            matches!(group.as_slice(), [Term::Field(field, value)]
                if field == "parent.pids.doi.identifier" && doi == value.as_str())
        })
    }

    /// Whether the words and `field:value` terms of a query fit something that is no document; `look` gives a field's
    /// text.
    pub fn fits(&self, text: &str, look: impl Fn(&str) -> Option<String>) -> bool {
        fn fit(term: &Term, text: &str, look: &impl Fn(&str) -> Option<String>) -> bool {
            match term {
                Term::Not(term) => !fit(term, text, look),
                Term::Word(word) => word == "*" || text.contains(word.trim_matches('*')),
                Term::Field(field, value) => look(field).is_some_and(|found| match value.strip_suffix('*') {
                    Some(start) => found.starts_with(start),
                    None => found == *value,
                }),
            }
        }
        self.groups
            .iter()
            .any(|group| group.iter().all(|term| fit(term, text, &look)))
    }

    /// How well it matches: words in the title count.
    pub fn score(&self, document: &Document) -> usize {
        let title = document.title().to_lowercase();
        let words = self.groups.iter().flatten().filter_map(|term| match term {
            Term::Word(word) => Some(word.trim_matches('*')),
            _ => None,
        });
        words.filter(|word| title.contains(word)).count()
    }
}

/// Splits at blanks outside of quotes and brackets.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = vec![String::new()];
    let (mut quoted, mut bracket) = (false, false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => bracket = true,
            ']' | '}' if !quoted => bracket = false,
            _ => {}
        }
        match c {
            '(' | ')' if !quoted => {}
            c if c.is_whitespace() && !quoted && !bracket => tokens.push(String::new()),
            c => {
                if let Some(token) = tokens.last_mut() {
                    token.push(c);
                }
            }
        }
    }
    tokens.retain(|token| !token.is_empty());
    tokens
}

fn parse_term(token: &str) -> Term {
    let plain = |text: &str| text.trim_matches('"').replace('\\', "");
    if let Some(rest) = token.strip_prefix('-').filter(|rest| !rest.is_empty()) {
        return Term::Not(Box::new(parse_term(rest)));
    }
    match token.split_once(':') {
        Some((field, value)) if !field.is_empty() && !field.starts_with('"') && !value.is_empty() => {
            Term::Field(field.replace('\\', ""), plain(value))
        }
        _ => Term::Word(plain(token.trim_start_matches('+')).to_lowercase()),
    }
}

impl Term {
    fn matches(&self, document: &Document, published: bool) -> bool {
        match self {
            Term::Not(term) => !term.matches(document, published),
            Term::Word(word) if word == "*" => true,
            Term::Word(word) => {
                let word = word.trim_matches('*');
                searched_text(document).contains(word)
            }
            Term::Field(field, value) => field_matches(document, published, field, value),
        }
    }
}

fn searched_text(document: &Document) -> String {
    let mut text = format!("{} {}", document.id, document.title());
    if let Some(description) = document.metadata.get("description").and_then(Value::as_str) {
        text.push(' ');
        text.push_str(description);
    }
    if let Some(creators) = document.metadata.get("creators").and_then(Value::as_array) {
        for creator in creators {
            text.push(' ');
            text.push_str(creator["person_or_org"]["name"].as_str().unwrap_or_default());
        }
    }
    text.to_lowercase()
}

fn field_matches(document: &Document, published: bool, field: &str, value: &str) -> bool {
    let is = |known: &str| value == known || value == "*";
    match field {
        "id" => is(&document.id),
        "parent.id" => is(&document.parent),
        "pids.doi.identifier" => {
            let doi = document
                .pids
                .get("doi")
                .and_then(|doi| doi["identifier"].as_str());
            // A keyword: `10.5072\/a\/*` finds all that begin so.
            doi.is_some_and(|doi| {
                is(doi)
                    || value
                        .strip_suffix('*')
                        .is_some_and(|start| doi.starts_with(start))
            })
        }
        "is_published" => value == published.to_string(),
        "access.status" => is(document.access_status()),
        "versions.index" => value == document.index.to_string(),
        "created" => in_range(&iso(document.created), value),
        "updated" => in_range(&iso(document.updated), value),
        "files.entries.key" => document.files.entries.iter().any(|entry| is(&entry.key)),
        "_exists_" => value.strip_prefix("metadata.").is_some_and(|name| {
            document
                .metadata
                .contains_key(name.split('.').next().unwrap_or(name))
        }),
        _ => match field.strip_prefix("metadata.") {
            Some(path) => {
                let mut found = document.metadata.get(path.split('.').next().unwrap_or(path));
                for part in path.split('.').skip(1) {
                    found = found.and_then(|value| value.get(part));
                }
                let Some(text) = found.and_then(Value::as_str) else {
                    return false;
                };
                if value.starts_with(['[', '{']) {
                    return in_range(text, value);
                }
                value == "*"
                    || text
                        .to_lowercase()
                        .contains(value.trim_matches('*').to_lowercase().as_str())
            }
            None => false,
        },
    }
}

/// `[a TO b]` on dates and other texts that sort like what they mean; `*` is open.
fn in_range(text: &str, range: &str) -> bool {
    let inner = range.trim_matches(['[', ']', '{', '}']);
    let Some((from, to)) = inner.split_once(" TO ") else {
        return text.starts_with(range);
    };
    let (from, to) = (from.trim().trim_matches('"'), to.trim().trim_matches('"'));
    // An upper end such as 2025 takes in all of that year.
    let after = from == "*" || text >= from.trim_end_matches('Z');
    let before = to == "*" || text <= to.trim_end_matches('Z') || text.starts_with(to);
    let open_start = range.starts_with('{') && text == from;
    let open_end = range.ends_with('}') && text.starts_with(to);
    after && before && !open_start && !open_end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms() {
        let query = Query::parse(r#"id:"a-b" Snow  AND "two words" OR created:[2024 TO *]"#);
        let word = |text: &str| Term::Word(text.to_string());
        let expected = vec![
            vec![
                Term::Field("id".into(), "a-b".into()),
                word("snow"),
                word("two words"),
            ],
            vec![Term::Field("created".into(), "[2024 TO *]".into())],
        ];
        assert_eq!(query.groups, expected);
    }

    #[test]
    fn ranges_of_times() {
        let time = "2026-11-21T22:59:43.453600+00:00";
        for range in [
            "[2026 TO *]",
            "[2026-11-21 TO 2026-11-21]",
            "[* TO 2026-12-01T00:00:00Z]",
        ] {
            assert!(in_range(time, range), "{range}");
        }
        for range in ["[2027 TO *]", "[* TO 2026-11-20]", "{* TO 2026-11-21}"] {
            assert!(!in_range(time, range), "{range}");
        }
    }
}
