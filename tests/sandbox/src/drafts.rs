//! Drafts: making, changing, publishing and discarding them.

use hyper::header;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::errors::{FieldError, Problem, field_errors};
use crate::exports;
use crate::metadata;
use crate::records::{JSON, may_edit, may_preview, of_kind};
use crate::render::{self, Place};
use crate::reply::{Call, Failure, Reply};
use crate::requests;
use crate::settings::Flavour;
use crate::store::{Access, Document, Store, doi};

const NO_FILES: &str =
    "Missing uploaded files. To disable files for this record please mark it as metadata-only.";

/// `POST /records`: accepted with any metadata, even none; what is wrong is dropped and reported.
pub(crate) async fn create(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    let kind = call.accepts(JSON)?;
    let user = call.signed_in()?;
    if app.knobs.lock().trusted_only && user.name == "newcomer" {
        return Err(Problem::denied().into());
    }
    let body = call.json_object().await?;
    let checked = check(&body)?;
    let access = parse_access(body.get("access"))?;
    let mut store = app.store.lock();
    let mut draft = store.new_draft(user.id, None);
    let mut errors = checked.1;
    draft.metadata = checked.0;
    draft.access = access.unwrap_or_default();
    draft.files.enabled = files_enabled(&body);
    if let Some(Value::Object(fields)) = body.get("custom_fields") {
        draft.custom_fields = json!(fields);
    }
    errors.extend(metadata::publisher_error(&draft.metadata));
    let id = draft.id.clone();
    store.drafts.insert(id.clone(), draft);
    store.changed(&id, true);
    let mut reply = shown(app, &store, call, kind, 201, &id, &errors)?;
    let draft = store.draft(&id)?;
    if draft.access_status() == "open" {
        // Just this once: the status is computed before the server knows that files are enabled.
        let mut body = render_draft(app, &store, call, &id, &errors)?;
        body["access"]["status"] = json!("metadata-only");
        reply = of_kind(kind, 201, body, draft);
    }
    Ok(reply)
}

/// `GET /records/{id}/draft`
pub(crate) fn read(app: &App, call: &Call) -> Result<Reply, Failure> {
    let offered = [JSON, exports::KINDS].concat();
    let kind = call.accepts(&offered)?;
    let store = app.store.lock();
    let draft = editable(&store, call)?;
    if let Some(body) = exports::export(kind, draft) {
        return Ok(Reply::new(200, exports::sent_as(kind), body));
    }
    shown(app, &store, call, kind, 200, &call.target.id, &[])
}

/// `PUT /records/{id}/draft`: replaces everything but what is said in the comments.
pub(crate) async fn update(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    let kind = call.accepts(JSON)?;
    let revision = if_match(call)?;
    let body = call.json_object().await?;
    let mut store = app.store.lock();
    check_revision(store.draft(&call.target.id)?, revision)?;
    editable(&store, call)?;
    let (metadata, mut errors) = check(&body)?;
    let access = parse_access(body.get("access"))?;
    let now = store.now();
    let before = store.draft(&call.target.id)?.clone();
    let draft = store.draft_mut(&call.target.id)?;
    draft.metadata = metadata;
    draft.custom_fields = match body.get("custom_fields") {
        Some(Value::Object(fields)) => json!(fields),
        _ => json!({}),
    };
    // Kept if left out: access and pids.
    if let Some(access) = access {
        draft.access = access;
    }
    if let Some(Value::Object(pids)) = body.get("pids") {
        draft.pids = pids.clone();
    }
    update_files(draft, &body, &mut errors);
    errors.extend(metadata::publisher_error(&draft.metadata));
    draft.revision += 2;
    draft.updated = now;
    let changed = before.metadata != draft.metadata
        || before.access != draft.access
        || before.custom_fields != draft.custom_fields
        || before.files.default_preview != draft.files.default_preview;
    let title = draft.title().to_string();
    requests::draft_changed(&mut store, &call.target.id, changed, &title);
    store.changed(&call.target.id, true);
    shown(app, &store, call, kind, 200, &call.target.id, &errors)
}

/// `files.enabled`, which is true if left out, and `files.default_preview`, which is reset then.
fn update_files(draft: &mut Document, body: &Map<String, Value>, errors: &mut Vec<FieldError>) {
    let enabled = files_enabled(body);
    if !enabled && !draft.files.entries.is_empty() {
        let message = "You must first delete all files to set the record to be metadata-only.";
        errors.push(FieldError::new("files.enabled", message));
        return;
    }
    draft.files.enabled = enabled;
    if enabled && draft.files.entries.is_empty() {
        errors.push(FieldError::new("files.enabled", NO_FILES));
    }
    let preview = body
        .get("files")
        .and_then(|files| files["default_preview"].as_str())
        .map(str::trim);
    let known = |key: &str| draft.files.entries.iter().any(|entry| entry.key == key);
    match preview {
        Some(key) if !key.is_empty() && !known(key) => {
            let message = format!("No file with key {key} has been uploaded.");
            errors.push(FieldError::new("files.default_preview", message));
        }
        _ => draft.files.default_preview = preview.filter(|key| !key.is_empty()).map(str::to_string),
    }
}

/// `DELETE /records/{id}/draft`
pub(crate) fn delete(app: &App, call: &Call) -> Result<Reply, Failure> {
    let revision = if_match(call)?;
    let mut store = app.store.lock();
    let id = &call.target.id;
    check_revision(store.draft(id)?, revision)?;
    let parent = editable(&store, call)?.parent.clone();
    requests::draft_may_go(&store, &parent, id)?;
    requests::forget_draft(&mut store, &parent, id);
    store.drafts.remove(id);
    if let Some(parent) = store.parents.get_mut(&parent) {
        parent.next_draft.take_if(|next| next == id);
    }
    store.changed(id, true);
    Ok(Reply::empty(204))
}

/// `POST /records/{id}/draft`: the draft of a published record; again the same one.
pub(crate) fn edit(app: &App, call: &Call) -> Result<Reply, Failure> {
    let kind = call.accepts(JSON)?;
    let mut store = app.store.lock();
    let id = &call.target.id;
    if store.drafts.contains_key(id) {
        editable(&store, call)?;
    } else {
        let record = store.record(id)?;
        if !may_edit(&store, record, call.user) {
            return Err(Problem::denied().into());
        }
        let mut draft = record.clone();
        draft.files.locked = true;
        draft.files.bucket = store.new_uuid();
        draft.revision += 5;
        draft.updated = store.now();
        store.drafts.insert(id.clone(), draft);
        store.changed(id, true);
    }
    shown(app, &store, call, kind, 201, id, &[])
}

/// `POST /records/{id}/versions`: the draft of a next version, without files; again the same one.
pub(crate) fn new_version(app: &App, call: &Call) -> Result<Reply, Failure> {
    let kind = call.accepts(JSON)?;
    let mut store = app.store.lock();
    let record = store.record(&call.target.id)?;
    if !may_edit(&store, record, call.user) {
        return Err(Problem::denied().into());
    }
    let parent = store.parent_of(record).clone();
    let id = match parent.next_draft {
        Some(id) => id,
        None => {
            let latest = store.latest(&parent).ok_or_else(Problem::no_result)?.clone();
            let mut draft = store.new_draft(parent.owner, Some(&parent.id));
            draft.metadata = latest.metadata;
            draft.metadata.remove("version");
            if app.knobs.lock().flavour == Flavour::V12 {
                draft.metadata.remove("publication_date");
            } else {
                let today = Timestamp::now().strftime("%Y-%m-%d").to_string();
                draft
                    .metadata
                    .insert("publication_date".to_string(), json!(today));
            }
            draft.custom_fields = latest.custom_fields;
            draft.access = latest.access;
            draft.files.enabled = latest.files.enabled;
            let id = draft.id.clone();
            store.drafts.insert(id.clone(), draft);
            store.changed(&id, true);
            id
        }
    };
    shown(app, &store, call, kind, 201, &id, &[])
}

/// `POST …/draft/actions/publish`
pub(crate) fn publish(app: &App, call: &Call) -> Result<Reply, Failure> {
    let kind = call.accepts(JSON)?;
    let mut store = app.store.lock();
    let id = &call.target.id;
    if !store.drafts.contains_key(id) && store.records.contains_key(id) {
        return Err(Problem::no_result().into());
    }
    let draft = editable(&store, call)?;
    check_ready(draft)?;
    let (curations, flavour) = {
        let knobs = app.knobs.lock();
        (knobs.curations, knobs.flavour)
    };
    requests::publish_may_go(&store, draft, curations, flavour)?;
    store.publish(id)?;
    let record = store.record(id)?;
    let body = render::document(app, &store, record, Place::Published, call.user);
    Ok(of_kind(kind, 202, body, record))
}

/// What a draft needs to be published.
pub(crate) fn check_ready(draft: &Document) -> Result<(), Problem> {
    let errors = metadata::missing_for_publishing(&draft.metadata);
    if !errors.is_empty() {
        return Err(Problem::validation(&errors));
    }
    if draft.files.enabled && draft.files.entries.is_empty() {
        return Err(Problem::invalid("files.enabled", NO_FILES));
    }
    if draft.files.enabled && draft.files.entries.iter().any(|entry| !entry.completed) {
        let message = "One or more files have not completed their transfer, please wait.";
        return Err(Problem::invalid("files", message));
    }
    if let Some(error) = metadata::publisher_error(&draft.metadata) {
        return Err(Problem::validation(&[error]));
    }
    Ok(())
}

/// `POST` and `DELETE …/draft/pids/doi`: answer with the whole draft.
pub(crate) fn doi_of_draft(app: &App, call: &Call, reserve: bool) -> Result<Reply, Failure> {
    let kind = call.accepts(JSON)?;
    let mut store = app.store.lock();
    let draft = editable(&store, call)?;
    let reserved = draft.pids.contains_key("doi");
    if reserve && reserved {
        return Err(Problem::invalid("pids.doi", "A PID already exists for type doi").into());
    }
    if !reserve && !reserved {
        return Err(Problem::unknown_id().into());
    }
    if !reserve && store.records.contains_key(&call.target.id) {
        let message = "Cannot discard a reserved or registered persistent identifier.";
        let mut problem = Problem::invalid("pids.doi", message);
        if app.knobs.lock().flavour == Flavour::V12 {
            let inner = json!({"field": "pids.doi", "message": message});
            problem.body["errors"] = json!([{"field": "_schema", "messages": [inner]}]);
        }
        return Err(problem.into());
    }
    let now = store.now();
    let draft = store.draft_mut(&call.target.id)?;
    if reserve {
        draft.pids.insert("doi".to_string(), doi(&call.target.id));
    } else {
        draft.pids.remove("doi");
    }
    draft.revision += 2;
    draft.updated = now;
    store.changed(&call.target.id, true);
    shown(
        app,
        &store,
        call,
        kind,
        if reserve { 201 } else { 200 },
        &call.target.id,
        &[],
    )
}

fn editable<'a>(store: &'a Store, call: &Call) -> Result<&'a Document, Problem> {
    let draft = store.draft(&call.target.id)?;
    let may = if call.method == hyper::Method::GET {
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

fn render_draft(
    app: &App,
    store: &Store,
    call: &Call,
    id: &str,
    errors: &[FieldError],
) -> Result<Value, Problem> {
    let mut body = render::document(app, store, store.draft(id)?, Place::Draft, call.user);
    if !errors.is_empty() {
        body["errors"] = field_errors(errors);
    }
    Ok(body)
}

fn shown(
    app: &App,
    store: &Store,
    call: &Call,
    kind: &str,
    status: u16,
    id: &str,
    errors: &[FieldError],
) -> Result<Reply, Failure> {
    let body = render_draft(app, store, call, id, errors)?;
    Ok(of_kind(kind, status, body, store.draft(id)?))
}

/// Checks the metadata of a body. Without the key `metadata` nothing is missed in it.
fn check(body: &Map<String, Value>) -> Result<(Map<String, Value>, Vec<FieldError>), Problem> {
    match body.get("metadata") {
        Some(Value::Object(metadata)) => {
            let checked = metadata::check(metadata)?;
            Ok((checked.metadata, checked.errors))
        }
        None => Ok((Map::new(), Vec::new())),
        Some(_) => Ok((
            Map::new(),
            vec![FieldError::new("metadata._schema", "Invalid input type.")],
        )),
    }
}

fn files_enabled(body: &Map<String, Value>) -> bool {
    body.get("files")
        .and_then(|files| files["enabled"].as_bool())
        .unwrap_or(true)
}

/// A bad `access` refuses the request, unlike bad metadata.
fn parse_access(given: Option<&Value>) -> Result<Option<Access>, Problem> {
    let Some(given) = given else { return Ok(None) };
    let refused = |message: String| Problem::invalid("access", message);
    let part = |name: &str| match given.get(name).and_then(Value::as_str) {
        Some(value @ ("public" | "restricted")) => Ok(value.to_string()),
        Some(_) => Err(refused(format!(
            "'{name}' must be either 'public' or 'restricted'"
        ))),
        None => Err(refused(format!("Missing data for required field '{name}'."))),
    };
    let (record, files) = (part("record")?, part("files")?);
    let embargo = given.get("embargo").cloned().unwrap_or(Value::Null);
    let mut shown = json!({"active": embargo["active"] == true, "reason": embargo["reason"]});
    if embargo["active"] == true {
        let until = embargo["until"].as_str().unwrap_or_default();
        let today = Timestamp::now().strftime("%Y-%m-%d").to_string();
        if until.len() != 10 || *until <= *today {
            return Err(refused(
                "Embargo end date must be set to a future date.".to_string(),
            ));
        }
        shown["until"] = json!(until);
    }
    Ok(Some(Access {
        record,
        files,
        embargo: shown,
    }))
}

/// `If-Match` is read as a bare integer; the quoted form that the ETag has is refused.
fn if_match(call: &Call) -> Result<Option<u64>, Problem> {
    let Some(value) = call.header(header::IF_MATCH) else {
        return Ok(None);
    };
    let number = value
        .trim()
        .parse()
        .map_err(|_| Problem::invalid("if_match", "Not a valid integer."))?;
    Ok(Some(number))
}

fn check_revision(draft: &Document, wanted: Option<u64>) -> Result<(), Problem> {
    match wanted {
        Some(wanted) if wanted != draft.revision => {
            let message = format!(
                "Revision id provided({wanted}) doesn't match record's one({})",
                draft.revision
            );
            Err(Problem::new(412, message))
        }
        _ => Ok(()),
    }
}
