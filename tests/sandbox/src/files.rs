//! Files of records and drafts: lists, entries, and everything about drafts' files but content.

use std::time::Instant;

use hyper::Method;
use serde_json::{Map, Value, json};

use crate::app::{App, User};
use crate::errors::{FieldError, Problem};
use crate::mimetypes;
use crate::parts::Parts;
use crate::records::{may_edit, may_preview, may_read, may_read_files};
use crate::reply::{Call, Failure, Reply, encode_key};
use crate::settings::Multipart;
use crate::store::{Document, Entry, Store, iso};

/// What file routes can be asked for. `application/vnd.inveniordm.v1+json` is not among it for
/// records, which is one of the real server's traps; drafts take it.
pub(crate) const JSON: &[&str] = &["application/json", "application/vnd.inveniordm.v1+json"];
const JSON_ONLY: &[&str] = &["application/json"];

/// A file of a draft. As in the real server the file is looked for before permissions are, so
/// strangers learn which keys exist.
pub(crate) fn of_draft<'a>(
    store: &'a Store,
    id: &str,
    key: &str,
    user: Option<User>,
    method: &Method,
) -> Result<(&'a Document, &'a Entry), Problem> {
    let draft = store.draft(id)?;
    let entry = draft.entry(key)?;
    let may = if method == Method::GET {
        may_preview
    } else {
        may_edit
    };
    if !may(store, draft, user) {
        return Err(Problem::denied());
    }
    if !draft.files.enabled {
        return Err(Problem::files_disabled());
    }
    Ok((draft, entry))
}

/// A file of a published record.
pub(crate) fn of_record<'a>(
    store: &'a Store,
    id: &str,
    key: &str,
    user: Option<User>,
) -> Result<(&'a Document, &'a Entry), Problem> {
    let record = store.record(id)?;
    let entry = record.entry(key)?;
    if !may_read(store, record, user) || !may_read_files(store, record, user) {
        return Err(Problem::denied());
    }
    Ok((record, entry))
}

/// `GET /records/{id}/files`
pub(crate) fn list_record(app: &App, call: &Call) -> Result<Reply, Failure> {
    call.accepts(JSON_ONLY)?;
    let store = app.store.lock();
    let record = store.record(&call.target.id)?;
    if !may_read(&store, record, call.user) || !may_read_files(&store, record, call.user) {
        return Err(Problem::denied().into());
    }
    Ok(Reply::json(200, &list_json(app, record, false)))
}

/// `GET /records/{id}/files/{key}`
pub(crate) fn read_record(app: &App, call: &Call) -> Result<Reply, Failure> {
    call.accepts(JSON_ONLY)?;
    let store = app.store.lock();
    let (record, entry) = of_record(&store, &call.target.id, &call.target.key, call.user)?;
    Ok(Reply::json(200, &entry_json(app, record, entry, false)))
}

/// `GET …/draft/files`
pub(crate) fn list_draft(app: &App, call: &Call) -> Result<Reply, Failure> {
    call.accepts(JSON)?;
    let store = app.store.lock();
    let draft = editable(&store, call)?;
    Ok(Reply::json(200, &list_json(app, draft, true)))
}

/// `GET …/draft/files/{key}`
pub(crate) fn read_draft(app: &App, call: &Call) -> Result<Reply, Failure> {
    call.accepts(JSON)?;
    let store = app.store.lock();
    let (draft, entry) = of_draft(&store, &call.target.id, &call.target.key, call.user, &call.method)?;
    Ok(Reply::json(200, &entry_json(app, draft, entry, true)))
}

fn editable<'a>(store: &'a Store, call: &Call) -> Result<&'a Document, Problem> {
    let draft = store.draft(&call.target.id)?;
    let may = if call.method == Method::GET {
        may_preview
    } else {
        may_edit
    };
    if may(store, draft, call.user) {
        Ok(draft)
    } else {
        Err(Problem::denied())
    }
}

/// `POST …/draft/files`: starts uploads. Answers with all files of the draft, not just the new.
pub(crate) async fn start(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    call.accepts(JSON)?;
    let body = call.json().await?;
    let multipart = app.knobs.lock().multipart;
    let starts = parse_starts(&body, multipart)?;
    let mut store = app.store.lock();
    let draft = editable(&store, call)?;
    if !draft.files.enabled {
        return Err(Problem::files_disabled().into());
    }
    for (number, start) in starts.iter().enumerate() {
        let taken = draft.files.entries.iter().any(|entry| entry.key == start.key)
            || starts[..number].iter().any(|earlier| earlier.key == start.key);
        if taken {
            return Err(Problem::new(400, format!("File with key {} already exists.", start.key)).into());
        }
    }
    if draft.files.entries.len() + starts.len() > app.knobs.lock().max_files {
        let message = "Uploading selected files will result in exceeding the max amount per record.";
        return Err(Problem::new(400, message).into());
    }
    for start in starts {
        let created = store.now();
        let mut entry = Entry::new(&start.key, created, store.new_uuid());
        entry.updated = store.now();
        entry.metadata = start.metadata;
        entry.hidden = start.hidden;
        entry.declared_size = start.size;
        entry.declared_checksum = start.checksum;
        if let Some((count, size)) = start.parts {
            let file_id = store.new_uuid();
            let whole = start.size.unwrap_or(0);
            entry.parts = Some(Parts::begin(
                app.data.path(),
                multipart,
                count,
                size,
                whole,
                file_id,
            )?);
        }
        // Neither `updated` nor `revision_id` of the draft changes, here or at the commit.
        store.draft_mut(&call.target.id)?.files.entries_mut().push(entry);
    }
    Ok(Reply::json(
        201,
        &list_json(app, store.draft(&call.target.id)?, true),
    ))
}

/// A file to be started.
struct Start {
    key: String,
    size: Option<u64>,
    checksum: Option<String>,
    metadata: Value,
    hidden: bool,
    /// Count and size of the parts of a multipart transfer.
    parts: Option<(u64, Option<u64>)>,
}

fn parse_starts(body: &Value, multipart: Multipart) -> Result<Vec<Start>, Problem> {
    let list = body
        .as_array()
        .ok_or_else(|| Problem::invalid("_schema", "Invalid input type."))?;
    if list.is_empty() {
        return Err(Problem::invalid("_schema", "No files to upload."));
    }
    let mut errors = Vec::new();
    let mut starts = Vec::new();
    for (number, item) in list.iter().enumerate() {
        let Some(item) = item.as_object() else {
            errors.push(FieldError::new(
                format!("{number}._schema"),
                "Invalid input type.",
            ));
            continue;
        };
        const KNOWN: &[&str] = &[
            "key",
            "size",
            "checksum",
            "metadata",
            "access",
            "transfer",
            "storage_class",
            "links",
        ];
        let unknown =
            |field: &str| !KNOWN.contains(&field) || (field == "transfer" && multipart == Multipart::Unknown);
        for field in item.keys().filter(|field| unknown(field)) {
            errors.push(FieldError::new(format!("{number}.{field}"), "Unknown field."));
        }
        match item.get("key").map(Value::as_str) {
            None => errors.push(FieldError::new(
                format!("{number}.key"),
                "Missing data for required field.",
            )),
            Some(None) => errors.push(FieldError::new(format!("{number}.key"), "Not a valid string.")),
            Some(Some(key)) if key.contains('\0') => return Err(Problem::server_error(500)),
            Some(Some(key)) => starts.push(Start {
                key: key.to_string(),
                size: item.get("size").and_then(Value::as_u64),
                checksum: item.get("checksum").and_then(Value::as_str).map(str::to_string),
                metadata: item.get("metadata").cloned().unwrap_or(Value::Null),
                hidden: item.get("access").is_some_and(|access| access["hidden"] == true),
                parts: parse_transfer(item, multipart)?,
            }),
        }
    }
    if errors.is_empty() {
        Ok(starts)
    } else {
        Err(Problem::validation(&errors))
    }
}

fn parse_transfer(
    item: &Map<String, Value>,
    multipart: Multipart,
) -> Result<Option<(u64, Option<u64>)>, Problem> {
    let Some(transfer) = item.get("transfer") else {
        return Ok(None);
    };
    match transfer.get("type").and_then(Value::as_str).unwrap_or("L") {
        "L" => Ok(None),
        "M" => {
            let number = |value: Option<&Value>| value.and_then(Value::as_u64).filter(|number| *number > 0);
            let missing = |field: &str| Problem::invalid(field, "Missing data for required field.");
            let count = number(transfer.get("parts")).ok_or_else(|| missing("0.transfer.parts"))?;
            number(item.get("size"))
                .ok_or_else(|| Problem::new(400, "Multipart file transfer requires file size."))?;
            let size = number(transfer.get("part_size"));
            // Object storage takes parts as they come.
            if size.is_none() && multipart != Multipart::Presigned {
                return Err(Problem::new(
                    400,
                    "Multipart file transfer to local storage requires part_size.",
                ));
            }
            Ok(Some((count, size)))
        }
        "F" | "R" => Err(Problem::new(400, "Domain not allowed")),
        other => Err(Problem::invalid(
            "0.transfer.type",
            format!("Unsupported value: {other}"),
        )),
    }
}

/// `PUT …/draft/files/{key}`: changes `metadata` and `access`, never the key.
pub(crate) async fn update(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    call.accepts(JSON)?;
    let body = call.json_object().await?;
    let mut store = app.store.lock();
    of_draft(&store, &call.target.id, &call.target.key, call.user, &call.method)?;
    let errors: Vec<FieldError> = body
        .keys()
        .filter(|field| !matches!(field.as_str(), "metadata" | "access" | "links"))
        .map(|field| FieldError::new(field.as_str(), "Unknown field."))
        .collect();
    if !errors.is_empty() {
        return Err(Problem::validation(&errors).into());
    }
    let now = store.now();
    let entry = store.draft_mut(&call.target.id)?.entry_mut(&call.target.key)?;
    if let Some(metadata) = body.get("metadata") {
        entry.metadata = metadata.clone();
    }
    if let Some(access) = body.get("access") {
        entry.hidden = access["hidden"] == true;
    }
    entry.updated = now;
    let (draft, entry) = of_draft(&store, &call.target.id, &call.target.key, call.user, &call.method)?;
    Ok(Reply::json(200, &entry_json(app, draft, entry, true)))
}

/// `DELETE …/draft/files/{key}`
pub(crate) fn delete(app: &App, call: &Call) -> Result<Reply, Failure> {
    let mut store = app.store.lock();
    let (draft, entry) = of_draft(&store, &call.target.id, &call.target.key, call.user, &call.method)?;
    // A new key that was started on a published record's draft can go, what is published can't.
    if draft.files.locked && entry.completed {
        return Err(Problem::locked().into());
    }
    let draft = store.draft_mut(&call.target.id)?;
    draft
        .files
        .entries_mut()
        .retain(|entry| entry.key != call.target.key);
    if draft.files.default_preview.as_deref() == Some(call.target.key.as_str()) {
        draft.files.default_preview = None;
    }
    draft.revision += 1;
    Ok(Reply::empty(204))
}

/// `DELETE …/draft/files`: the only way to be rid of keys no URL leads to.
pub(crate) fn delete_all(app: &App, call: &Call) -> Result<Reply, Failure> {
    let mut store = app.store.lock();
    let draft = editable(&store, call)?;
    if draft.files.locked {
        return Err(Problem::locked().into());
    }
    let draft = store.draft_mut(&call.target.id)?;
    draft.files.entries_mut().clear();
    draft.files.default_preview = None;
    draft.revision += 1;
    Ok(Reply::empty(204))
}

/// `POST …/draft/actions/files-import`: files of the latest published version, no bytes copied.
pub(crate) fn import(app: &App, call: &Call) -> Result<Reply, Failure> {
    call.accepts(JSON)?;
    let mut store = app.store.lock();
    let draft = editable(&store, call)?;
    if !draft.files.enabled {
        return Err(Problem::invalid("files.enabled", "Files support must be enabled.").into());
    }
    if !draft.files.entries.is_empty() {
        return Err(Problem::invalid("files.enabled", "Please remove all files first.").into());
    }
    let latest = store
        .latest(store.parent_of(draft))
        .ok_or_else(Problem::no_result)?;
    if !latest.files.enabled {
        return Err(Problem::invalid("files.enabled", "The record has no files.").into());
    }
    let mut entries = latest.files.entries.to_vec();
    for entry in &mut entries {
        entry.created = store.now();
        entry.updated = store.now();
        entry.version_id = store.new_uuid();
    }
    store.draft_mut(&call.target.id)?.files.entries = entries.into();
    Ok(Reply::json(
        201,
        &list_json(app, store.draft(&call.target.id)?, true),
    ))
}

/// The URL of a record or draft at the API.
pub(crate) fn api_url(app: &App, id: &str, draft: bool) -> String {
    let draft = if draft { "/draft" } else { "" };
    format!("{}/api/records/{id}{draft}", app.site)
}

/// A list of files. Without files enabled there are no `entries` at all.
pub(crate) fn list_json(app: &App, document: &Document, draft: bool) -> Value {
    let url = api_url(app, &document.id, draft);
    let mut list = json!({
        "enabled": document.files.enabled,
        "links": {"self": format!("{url}/files"), "archive": format!("{url}/files-archive")},
    });
    if document.files.enabled {
        let entries = document
            .files
            .entries
            .iter()
            .map(|entry| entry_json(app, document, entry, draft));
        list["entries"] = entries.collect();
        list["default_preview"] = json!(document.files.default_preview);
        list["order"] = json!([]);
    }
    list
}

/// An entry as it stands in a list of files.
pub(crate) fn entry_json(app: &App, document: &Document, entry: &Entry, draft: bool) -> Value {
    let url = format!(
        "{}/files/{}",
        api_url(app, &document.id, draft),
        encode_key(&entry.key)
    );
    let multipart = app.knobs.lock().multipart;
    let mut links = json!({"self": url});
    if draft {
        links["commit"] = json!(format!("{url}/commit"));
    }
    let mut shown = json!({
        "created": iso(entry.created),
        "updated": iso(entry.updated),
        "metadata": entry.metadata,
        "access": {"hidden": entry.hidden},
        "key": entry.key,
        "transfer": {"type": "L"},
        "status": if entry.completed { "completed" } else { "pending" },
    });
    let stored = |shown: &mut Value, file_id: &str| {
        shown["mimetype"] = json!(mimetypes::guess(&entry.key));
        shown["version_id"] = json!(entry.version_id);
        shown["file_id"] = json!(file_id);
        shown["bucket_id"] = json!(document.files.bucket);
        shown["storage_class"] = json!("L");
    };
    if let Some(blob) = entry.content() {
        stored(&mut shown, &blob.id);
        let unsummed = entry.unsummed.as_ref();
        shown["checksum"] = match unsummed.filter(|unsummed| Instant::now() < unsummed.until) {
            Some(unsummed) => json!(unsummed.checksum),
            None => json!(format!("md5:{}", blob.md5)),
        };
        shown["size"] = json!(unsummed.map_or(blob.size, |unsummed| unsummed.size));
    } else if let Some(parts) = &entry.parts {
        stored(&mut shown, parts.file_id());
        shown["checksum"] = json!(entry.declared_checksum);
        shown["size"] = json!(entry.declared_size);
        shown["transfer"] = parts.transfer();
        links["parts"] = parts.links(app, &url);
    } else {
        if let Some(checksum) = &entry.declared_checksum {
            shown["checksum"] = json!(checksum);
        }
        if let Some(size) = entry.declared_size {
            shown["size"] = json!(size);
        }
    }
    if entry.parts.is_none() {
        links["content"] = json!(format!("{url}/content"));
    }
    shown["links"] = links;
    if multipart == Multipart::Unknown
        && let Some(shown) = shown.as_object_mut()
    {
        shown.remove("transfer");
    }
    shown
}
