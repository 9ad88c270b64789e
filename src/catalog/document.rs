//! The bytes of a `record.json`: the same for a record, whichever request it was learned from.
//!
//! Search hits, lists and single records carry the same document with small differences. What differs for one and
//! the same revision is left out or brought to one form, keys are sorted, and the text is indented for reading.

use bytes::Bytes;
use serde_json::{Map, Value};

/// Keys that are not part of the record, but of the answer: view counters (different with every look), resolved
/// references, the web interface's own texts, messages about the last save.
const OF_THE_ANSWER: [&str; 4] = ["stats", "expanded", "ui", "errors"];

/// Fields of a file entry that a search hit leaves out (API notes, section 6).
const OF_THE_FILE_LIST: [&str; 2] = ["storage_class", "links"];

/// What a draft's document says of its files. A hit says "none", whatever was uploaded; the folder shows them.
const OF_A_DRAFTS_FILES: [&str; 3] = ["entries", "count", "total_bytes"];

/// Renders a document as `record.json` shows it.
#[must_use]
pub fn render(mut document: Map<String, Value>) -> Bytes {
    for key in OF_THE_ANSWER {
        document.remove(key);
    }
    // Made when an image has been looked at; missing in some hits.
    object(&mut document, "links").map(|links| links.remove("thumbnails"));
    // Of the communities, the ids belong to the record. Their titles are copies, which hits renew when they are
    // indexed next.
    object(&mut document, "parent")
        .and_then(|parent| object(parent, "communities"))
        .map(|communities| communities.remove("entries"));
    let is_draft = document.get("is_draft").and_then(Value::as_bool) == Some(true);
    if let Some(files) = object(&mut document, "files") {
        if is_draft {
            OF_A_DRAFTS_FILES.iter().for_each(|key| drop(files.remove(*key)));
        } else if let Some(entries) = object(files, "entries") {
            entries
                .values_mut()
                .filter_map(Value::as_object_mut)
                .for_each(settle_entry);
        }
    }
    // Without the feature "preserve_order", which we don't ask for, there is nothing to sort.
    let mut value = Value::Object(document);
    value.sort_all_objects();
    // A value made of JSON can always be written as JSON.
    let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
    text.push('\n');
    Bytes::from(text)
}

/// Renders a document that is no record: sorted and indented in the same way.
#[must_use]
pub fn render_plain(mut document: Map<String, Value>) -> Bytes {
    for key in OF_THE_ANSWER {
        document.remove(key);
    }
    let mut value = Value::Object(document);
    value.sort_all_objects();
    let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
    text.push('\n');
    Bytes::from(text)
}

fn settle_entry(entry: &mut Map<String, Value>) {
    for key in OF_THE_FILE_LIST {
        entry.remove(key);
    }
    // A hit says {} where the record says null.
    if let Some(metadata) = entry.get_mut("metadata")
        && metadata.is_null()
    {
        *metadata = Value::Object(Map::new());
    }
}

fn object<'a>(document: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    document.get_mut(key)?.as_object_mut()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(value: Value) -> Bytes {
        let Value::Object(document) = value else {
            panic!("no object")
        };
        render(document)
    }

    #[test]
    fn a_record_and_its_hit_are_rendered_to_the_same_bytes() {
        let record = json!({"id": "a", "stats": {"views": 7}, "links": {"self": "x", "thumbnails": {}},
            "parent": {"communities": {"ids": ["c"], "entries": [{"title": "new"}]}}, "ui": {},
            "files": {"enabled": true, "entries": {"k": {"key": "k", "metadata": null, "storage_class": "L", "links": {}}}}});
        let hit = json!({"files": {"entries": {"k": {"metadata": {}, "key": "k"}}, "enabled": true},
            "parent": {"communities": {"ids": ["c"], "entries": [{"title": "old"}]}},
            "links": {"self": "x"}, "stats": {"views": 6}, "id": "a"});
        assert_eq!(text(record), text(hit));
    }

    #[test]
    fn a_draft_and_its_hit_are_rendered_to_the_same_bytes() {
        let draft = json!({"is_draft": true, "files": {"enabled": true, "count": 2, "total_bytes": 9, "entries": {"k": {}}}});
        let hit = json!({"is_draft": true, "files": {"enabled": true, "count": 0, "total_bytes": 0, "entries": {}}});
        assert_eq!(text(draft), text(hit));
    }

    #[test]
    fn keys_are_sorted_and_the_text_ends_with_a_line() {
        assert_eq!(
            text(json!({"b": 1, "a": {"d": 2, "c": 3}})),
            "{\n  \"a\": {\n    \"c\": 3,\n    \"d\": 2\n  },\n  \"b\": 1\n}\n"
        );
    }
}
