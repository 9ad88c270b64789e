//! What becomes of the metadata that a client sends.
//!
//! The server keeps what is valid, drops what is not and says so in `errors`, with status 200 or
//! 201. Unknown vocabulary ids are the exception: they refuse the whole request.

use serde_json::{Map, Value, json};

use crate::errors::{FieldError, Problem};
use crate::vocabularies;

const MISSING: &str = "Missing data for required field.";

/// Fields whose values are kept as they are; each must be a list.
const LISTS: &[&str] = &[
    "additional_titles",
    "additional_descriptions",
    "dates",
    "funding",
    "identifiers",
    "references",
    "related_identifiers",
    "sizes",
    "formats",
    "subjects",
];

/// The metadata as it will be stored, and what is wrong with the rest.
pub(crate) struct Checked {
    pub metadata: Map<String, Value>,
    pub errors: Vec<FieldError>,
}

/// Checks a `metadata` object.
pub(crate) fn check(input: &Map<String, Value>) -> Result<Checked, Problem> {
    let mut checked = Checked {
        metadata: Map::new(),
        errors: Vec::new(),
    };
    checked.resource_type(input.get("resource_type"))?;
    for (field, required) in [("creators", true), ("contributors", false)] {
        checked.people(field, required, input.get(field))?;
    }
    checked.text(input, "title", 3, true);
    checked.text(input, "publisher", 0, false);
    checked.publication_date(input.get("publication_date"));
    checked.text(input, "version", 0, false);
    checked.text(input, "description", 3, false);
    checked.text(input, "copyright", 1, false);
    checked.vocabulary_list(input, "languages", vocabularies::language)?;
    checked.vocabulary_list(input, "rights", vocabularies::license)?;
    for field in LISTS {
        match input.get(*field) {
            Some(Value::Array(list)) if list.is_empty() => {}
            Some(list @ Value::Array(_)) => checked.store(field, list.clone()),
            Some(_) => checked.error(field, "Not a valid list."),
            None => {}
        }
    }
    if let Some(locations) = input.get("locations") {
        checked.store("locations", locations.clone());
    }
    for field in input.keys() {
        if !is_known(field) {
            checked.error(field, "Unknown field.");
        }
    }
    Ok(checked)
}

/// What keeps stored metadata from being published. Stored values are valid, so only what is
/// missing counts, and what was kept though incomplete.
pub(crate) fn missing_for_publishing(metadata: &Map<String, Value>) -> Vec<FieldError> {
    match check(metadata) {
        Ok(checked) => checked.errors,
        Err(_) => Vec::new(),
    }
}

/// DataCite refuses a DOI without a publisher; reported whenever a draft is saved.
pub(crate) fn publisher_error(metadata: &Map<String, Value>) -> Option<FieldError> {
    let missing = !metadata.contains_key("publisher");
    missing.then(|| {
        FieldError::new(
            "metadata.publisher",
            "Missing publisher field required for DOI registration.",
        )
    })
}

fn is_known(field: &str) -> bool {
    const OTHERS: &[&str] = &[
        "resource_type",
        "creators",
        "contributors",
        "title",
        "publisher",
        "publication_date",
        "version",
        "description",
        "copyright",
        "languages",
        "rights",
        "locations",
    ];
    OTHERS.contains(&field) || LISTS.contains(&field)
}

fn unknown_value(id: &str) -> Problem {
    Problem::new(400, format!("Invalid value {id}."))
}

impl Checked {
    fn store(&mut self, field: &str, value: Value) {
        self.metadata.insert(field.to_string(), value);
    }

    fn error(&mut self, field: &str, message: &str) {
        self.errors
            .push(FieldError::new(format!("metadata.{field}"), message));
    }

    fn resource_type(&mut self, value: Option<&Value>) -> Result<(), Problem> {
        match value {
            None => self.error("resource_type", MISSING),
            Some(value) => match value.get("id").and_then(Value::as_str) {
                Some(id) => {
                    let found = vocabularies::resource_type(id).ok_or_else(|| unknown_value(id))?;
                    self.store("resource_type", found);
                }
                None => self.error("resource_type", "Invalid input type."),
            },
        }
        Ok(())
    }

    fn text(&mut self, input: &Map<String, Value>, field: &str, shortest: usize, required: bool) {
        match input.get(field) {
            None if required => self.error(field, MISSING),
            None => {}
            Some(Value::String(text)) => {
                let text = text.trim();
                if text.chars().count() < shortest {
                    self.error(field, &format!("Shorter than minimum length {shortest}."));
                } else {
                    self.store(field, json!(text));
                }
            }
            Some(Value::Null) => self.error(field, "Field may not be null."),
            Some(_) => self.error(field, "Not a valid string."),
        }
    }

    fn publication_date(&mut self, value: Option<&Value>) {
        match value {
            None => self.error("publication_date", MISSING),
            Some(value) => match value.as_str().map(str::trim).filter(|text| is_edtf(text)) {
                Some(text) => self.store("publication_date", json!(text)),
                None => self.error("publication_date", "Please provide a valid date or interval."),
            },
        }
    }

    fn vocabulary_list(
        &mut self,
        input: &Map<String, Value>,
        field: &str,
        find: fn(&str) -> Option<Value>,
    ) -> Result<(), Problem> {
        let list = match input.get(field) {
            None => return Ok(()),
            Some(Value::Array(list)) => list,
            Some(_) => {
                self.error(field, "Not a valid list.");
                return Ok(());
            }
        };
        let mut found = Vec::new();
        for (number, item) in list.iter().enumerate() {
            match item.get("id").and_then(Value::as_str) {
                Some(id) => found.push(find(id).ok_or_else(|| unknown_value(id))?),
                // A license may be given in words instead.
                None if item.get("title").is_some() => found.push(item.clone()),
                None => self.error(
                    &format!("{field}.{number}"),
                    "An existing id or a free text title must be present",
                ),
            }
        }
        if !found.is_empty() {
            self.store(field, found.into());
        }
        Ok(())
    }

    fn people(&mut self, field: &str, required: bool, value: Option<&Value>) -> Result<(), Problem> {
        let list = match value {
            None if !required => return Ok(()),
            Some(Value::Array(list)) if !list.is_empty() || !required => list,
            None | Some(Value::Array(_)) => {
                self.error(field, MISSING);
                return Ok(());
            }
            Some(_) => {
                self.error(field, "Not a valid list.");
                return Ok(());
            }
        };
        let mut people = Vec::new();
        for (number, item) in list.iter().enumerate() {
            let at = format!("{field}.{number}");
            let Some(given) = item.get("person_or_org").and_then(Value::as_object) else {
                self.error(&format!("{at}.person_or_org"), MISSING);
                continue;
            };
            let mut person = json!({"person_or_org": self.person(&at, given)});
            if let Some(role) = item.get("role") {
                person["role"] = role.clone();
            }
            if let Some(list) = item.get("affiliations").and_then(Value::as_array) {
                let found: Result<Vec<Value>, Problem> = list.iter().map(affiliation).collect();
                person["affiliations"] = found?.into();
            }
            people.push(person);
        }
        self.store(field, people.into());
        Ok(())
    }

    /// A person's or organisation's valid parts, with its display name computed anew.
    fn person(&mut self, at: &str, given: &Map<String, Value>) -> Value {
        let mut person = Map::new();
        for name in ["type", "name", "given_name", "family_name"] {
            if let Some(text) = given.get(name).and_then(Value::as_str) {
                person.insert(name.to_string(), json!(text.trim()));
            }
        }
        if let Some(identifiers) = given.get("identifiers") {
            person.insert("identifiers".to_string(), identifiers.clone());
        }
        let text = |name: &str| {
            person
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_string()
        };
        match text("type").as_str() {
            "personal" if text("family_name").is_empty() => {
                self.error(
                    &format!("{at}.person_or_org.family_name"),
                    "Family name cannot be blank.",
                );
            }
            "personal" => {
                let names = [text("family_name"), text("given_name")];
                let names: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
                person.insert("name".to_string(), json!(names.join(", ")));
            }
            "organizational" => {
                if text("name").is_empty() {
                    self.error(&format!("{at}.person_or_org.name"), "Name cannot be blank.");
                }
                person.remove("family_name");
                person.remove("given_name");
            }
            _ => {
                let message = "Invalid value. Choose one of ['organizational', 'personal'].";
                self.error(&format!("{at}.person_or_org.type"), message);
                person.remove("type");
            }
        }
        person.into()
    }
}

fn affiliation(given: &Value) -> Result<Value, Problem> {
    match given.get("id").and_then(Value::as_str) {
        Some(id) => vocabularies::affiliation(id).ok_or_else(|| unknown_value(id)),
        None => Ok(given.clone()),
    }
}

/// `2024`, `2024-05`, `2024-05-17`, or an interval of two of these.
fn is_edtf(text: &str) -> bool {
    let single = |date: &str| {
        let parts: Vec<&str> = date.split('-').collect();
        let widths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        let numbers: Option<Vec<u32>> = parts
            .iter()
            .map(|part| {
                part.bytes()
                    .all(|byte| byte.is_ascii_digit())
                    .then(|| part.parse().ok())
                    .flatten()
            })
            .collect();
        let Some(numbers) = numbers else { return false };
        matches!(widths.as_slice(), [4] | [4, 2] | [4, 2, 2])
            && numbers.get(1).is_none_or(|month| (1..=12).contains(month))
            && numbers.get(2).is_none_or(|day| (1..=31).contains(day))
    };
    match text.split_once('/') {
        Some((from, to)) => single(from) && single(to),
        None => single(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for good in ["2024", "2024-05", "2024-05-17", "2023/2024", "2023-01/2024-12-31"] {
            assert!(is_edtf(good), "{good}");
        }
        for bad in [
            "",
            "today",
            "24",
            "2024-13",
            "2024-5-1",
            "2024-05-17T00:00:00",
            "+024",
        ] {
            assert!(!is_edtf(bad), "{bad}");
        }
    }

    #[test]
    fn bad_values_are_dropped_and_reported_in_the_order_of_the_fields() {
        let input = json!({
            "title": " xyz ", "creators": [{"person_or_org": {"type": "personal"}}],
            "languages": [{"id": "eng"}], "foo": 1, "publication_date": "someday"});
        let checked = check(input.as_object().unwrap()).ok().unwrap();
        assert_eq!(checked.metadata["title"], "xyz");
        assert!(!checked.metadata.contains_key("publication_date"));
        let fields: Vec<&str> = checked.errors.iter().map(|error| error.field.as_str()).collect();
        let expected = [
            "metadata.resource_type",
            "metadata.creators.0.person_or_org.family_name",
            "metadata.publication_date",
            "metadata.foo",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn an_unknown_vocabulary_id_refuses_everything() {
        let input = json!({"resource_type": {"id": "nope"}});
        let problem = check(input.as_object().unwrap()).err().unwrap();
        assert_eq!(problem.body["message"], "Invalid value nope.");
    }
}
