//! The bytes of a `record.json`: the same for a record, whichever request it was learned from.
//!
//! Search hits, lists and single records carry the same document with small differences. What differs for one and
//! the same revision is left out or brought to one form, keys are sorted, and the text is indented for reading.

use bytes::Bytes;
use serde_json::{Map, Value};

/// Keys that are not part of the record, but of the answer: view counters (different with every look), resolved
/// references, the web interface's own texts, messages about the last save.
const OF_THE_ANSWER: [&str; 4] = ["stats", "expanded", "ui", "errors"];

/// Fields of a file entry that a search hit leaves out (API notes, section 6), or that the server adds later.
const OF_THE_FILE_LIST: [&str; 2] = ["storage_class", "links"];

/// Renders a document as `record.json` shows it.
#[must_use]
pub fn render(document: &Map<String, Value>) -> Bytes {
    let mut document = document.clone();
    for key in OF_THE_ANSWER {
        document.remove(key);
    }
    if let Some(Value::Object(entries)) = document
        .get_mut("files")
        .and_then(|files| files.get_mut("entries"))
    {
        for entry in entries.values_mut().filter_map(Value::as_object_mut) {
            for key in OF_THE_FILE_LIST {
                entry.remove(key);
            }
        }
    }
    let mut value = Value::Object(document);
    value.sort_all_objects();
    // A value made of JSON can always be written as JSON.
    let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
    text.push('\n');
    Bytes::from(text)
}
