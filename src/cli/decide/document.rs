//! Metadata as a user wrote it to a file: a whole record document, or its `metadata` alone.

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::{Error, Kind, Result};
use crate::staging::LARGEST_DOCUMENT;

/// Reads a file, `-` is stdin. What is not inside `metadata` is taken for that, unless it says `metadata` itself.
///
/// # Errors
/// If it can't be read; `Usage` if it is no JSON object.
pub fn read(path: &Path) -> Result<Map<String, Value>> {
    let shown = path.display();
    let failed = |error: std::io::Error| Error::local(format!("can't read {shown}"), &error);
    let mut text = Vec::new();
    if path == Path::new("-") {
        let stdin = std::io::stdin().lock();
        stdin
            .take(LARGEST_DOCUMENT + 1)
            .read_to_end(&mut text)
            .map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(LARGEST_DOCUMENT + 1)
            .read_to_end(&mut text)
            .map_err(failed)?;
    }
    if text.len() as u64 > LARGEST_DOCUMENT {
        return Err(Error::new(
            Kind::TooLarge,
            format!("{shown} is too large for metadata"),
        ));
    }
    understand(&text).map_err(|what| {
        Error::new(Kind::Usage, format!("{shown} {what}")).with_advice(
            "It should hold a JSON object: a record as in record.json, or what is in its \"metadata\" alone.",
        )
    })
}

fn understand(text: &[u8]) -> std::result::Result<Map<String, Value>, String> {
    let object = match serde_json::from_slice::<Value>(text) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err("holds JSON, but no object".into()),
        Err(error) => return Err(format!("is no JSON: {error}")),
    };
    match object.get("metadata") {
        Some(Value::Object(_)) => return Ok(object),
        Some(_) => return Err("has something in \"metadata\" that is no object".into()),
        None => {}
    }
    Ok(Map::from_iter([("metadata".to_owned(), Value::Object(object))]))
}

/// The document of a new draft: what the user wrote, with the server's defaults made plain.
#[must_use]
pub fn of_new_draft(given: Map<String, Value>, title: Option<&str>, without_files: bool) -> Value {
    let mut document = json!({
        "access": {"record": "public", "files": "public"},
        "files": {"enabled": true},
        "metadata": {},
    });
    for key in ["access", "files", "metadata", "custom_fields"] {
        if let Some(value) = given.get(key) {
            document[key] = value.clone();
        }
    }
    if let Some(title) = title {
        document["metadata"]["title"] = json!(title);
    }
    // A DOI that was given elsewhere can be taken along; one that this or another repository made can't be had again.
    if let Some(doi) = given.get("pids").and_then(|pids| pids.get("doi"))
        && doi.get("provider").and_then(Value::as_str) == Some("external")
    {
        document["pids"] = json!({"doi": {"identifier": doi["identifier"], "provider": "external"}});
    }
    if without_files {
        document["files"] = json!({"enabled": false});
    } else if let Some(files) = document["files"].as_object_mut() {
        // Of a whole record, what the server counts there.
        files.retain(|key, _| matches!(key.as_str(), "enabled" | "default_preview"));
    }
    document
}

/// Whether a field that the server names is one that the user gave: what is only missing matters when it is published.
#[must_use]
pub fn gives(document: &Value, field: &str) -> bool {
    let pointer = format!("/{}", field.replace('.', "/"));
    field.is_empty() || document.pointer(&pointer).is_some_and(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_alone_and_a_whole_record_are_both_understood() {
        for text in [
            r#"{"title": "Ozone"}"#,
            r#"{"id": "abcde-12345", "metadata": {"title": "Ozone"}}"#,
        ] {
            let given = understand(text.as_bytes()).unwrap();
            assert_eq!(given["metadata"]["title"], "Ozone", "{text}");
        }
        for wrong in [
            "",
            "[]",
            "{",
            "\"title\"",
            r#"{"metadata": []}"#,
            r#"{"metadata": null}"#,
        ] {
            understand(wrong.as_bytes()).unwrap_err();
        }
    }

    #[test]
    fn a_new_draft_takes_over_what_a_user_can_set_and_nothing_else() {
        let given = understand(
            br#"{"id": "x-1", "pids": {"doi": 1}, "files": {"enabled": true, "count": 3}, "metadata": {"title": "Old"}}"#,
        )
        .unwrap();
        let document = of_new_draft(given, Some("New"), false);
        assert_eq!(
            document,
            json!({
                "access": {"record": "public", "files": "public"},
                "files": {"enabled": true},
                "metadata": {"title": "New"},
            })
        );
        let document = of_new_draft(Map::new(), Some("New"), true);
        assert_eq!(document["files"], json!({"enabled": false}));
        let given = understand(
            br#"{"pids": {"doi": {"identifier": "10.1/x", "provider": "external"}}, "metadata": {"title": "Old"}}"#,
        )
        .unwrap();
        assert_eq!(
            of_new_draft(given, None, false)["pids"]["doi"]["identifier"],
            "10.1/x"
        );
        assert!(gives(&document, "metadata.title") && !gives(&document, "metadata.creators"));
    }
}
