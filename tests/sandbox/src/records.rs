//! Published records, and who may see them.

use hyper::header;
use serde_json::json;

use crate::app::{App, User};
use crate::errors::Problem;
use crate::exports;
use crate::files::api_url;
use crate::render::{self, Place};
use crate::reply::{Call, Failure, Reply};
use crate::requests;
use crate::store::{Document, Store, iso};

/// What records and drafts can be asked for.
pub(crate) const JSON: &[&str] = &["application/json", "application/vnd.inveniordm.v1+json"];

pub(crate) fn is_owner(store: &Store, document: &Document, user: Option<User>) -> bool {
    user.is_some_and(|user| user.id == store.parent_of(document).owner)
}

/// Whether the request came with an access link to this that lets do so.
fn link_lets(store: &Store, document: &Document, user: Option<User>, permissions: &[&str]) -> bool {
    let Some(number) = user.and_then(|user| user.link) else {
        return false;
    };
    let links = &store.parent_of(document).links;
    links
        .iter()
        .any(|link| link.number == number && permissions.contains(&link.permission.as_str()))
}

/// Owners change drafts, whoever has a link for it, and reviewers while there is a curation request.
pub(crate) fn may_edit(store: &Store, document: &Document, user: Option<User>) -> bool {
    is_owner(store, document, user)
        || link_lets(store, document, user, &["edit"])
        || requests::is_curator_of(store, &document.id, user)
}

/// Those who may read a draft.
pub(crate) fn may_preview(store: &Store, document: &Document, user: Option<User>) -> bool {
    may_edit(store, document, user) || link_lets(store, document, user, &["preview"])
}

const ANY_LINK: &[&str] = &["view", "preview", "edit"];

pub(crate) fn may_read(store: &Store, record: &Document, user: Option<User>) -> bool {
    record.access.record == "public"
        || is_owner(store, record, user)
        || link_lets(store, record, user, ANY_LINK)
}

pub(crate) fn may_read_files(store: &Store, record: &Document, user: Option<User>) -> bool {
    let open = record.access.files == "public" && record.access.record == "public" && !record.embargoed();
    open || is_owner(store, record, user) || link_lets(store, record, user, ANY_LINK)
}

/// `GET /ping`
pub(crate) fn ping() -> Reply {
    Reply::new(200, "text/plain; charset=utf-8", "OK")
}

/// `GET /me`
pub(crate) fn me(call: &Call) -> Result<Reply, Failure> {
    let Ok(user) = call.signed_in() else {
        let message = "The server could not verify that you are authorized to access the URL requested. You either \
                       supplied the wrong credentials (e.g. a bad password), or your browser doesn't understand how to \
                       supply the credentials required.";
        return Err(Problem::new(401, message).into());
    };
    let body = json!({"id": user.id, "email": format!("{}@example.org", user.name), "username": user.name,
        "confirmed_at": "2026-01-01T00:00:00+00:00", "last_login_at": null, "profile": {"full_name": ""}, "roles": []});
    Ok(Reply::json(200, &body))
}

/// `GET /records/{id}`; the id of all versions leads to the latest.
pub(crate) fn read(app: &App, call: &Call) -> Result<Reply, Failure> {
    let offered = [JSON, exports::KINDS].concat();
    let kind = call.accepts(&offered)?;
    let store = app.store.lock();
    let id = &call.target.id;
    if let Some(latest) = store.parents.get(id).and_then(|parent| store.latest(parent)) {
        let location = format!("/api/records/{}", latest.id);
        let page = format!(
            "<!doctype html>\n<html lang=en>\n<title>Redirecting...</title>\n<h1>Redirecting...</h1>\n<p>You should \
             be redirected automatically to the target URL: <a href=\"{location}\">{location}</a>. If not, click the link.\n"
        );
        return Ok(Reply::new(302, "text/html; charset=utf-8", page).with(header::LOCATION, location));
    }
    let record = store.record(id)?;
    if !may_read(&store, record, call.user) {
        return Err(Problem::denied().into());
    }
    if let Some(body) = exports::export(kind, record) {
        return Ok(Reply::new(200, exports::sent_as(kind), body)
            .with(header::ETAG, format!("\"{}\"", record.revision)));
    }
    let body = render::document(app, &store, record, Place::Record, call.user);
    Ok(of_kind(kind, 200, body, record))
}

/// A document's answer: the revision as ETag, which no conditional request heeds.
pub(crate) fn of_kind(kind: &str, status: u16, mut body: serde_json::Value, document: &Document) -> Reply {
    if kind == JSON[1] {
        body["ui"] = json!({"publication_date_l10n_long": document.metadata.get("publication_date"),
                            "version": document.metadata.get("version"), "is_draft": body["is_draft"]});
    }
    Reply::new(status, kind, body.to_string()).with(header::ETAG, format!("\"{}\"", document.revision))
}

/// `GET /records/{id}/versions/latest`: 301, with JSON in it.
pub(crate) fn latest(app: &App, call: &Call) -> Result<Reply, Failure> {
    call.accepts(JSON)?;
    let store = app.store.lock();
    let parent = match store.parents.get(&call.target.id) {
        Some(parent) => parent,
        None => store.parent_of(store.record(&call.target.id)?),
    };
    let latest = store.latest(parent).ok_or_else(Problem::unknown_id)?;
    if !may_read(&store, latest, call.user) {
        return Err(Problem::denied().into());
    }
    let location = api_url(app, &latest.id, false);
    let body = json!({"status": 301, "message": "Redirecting...", "location": location});
    Ok(Reply::json(301, &body).with(header::LOCATION, location))
}

/// `DELETE /records/{id}/delete`: administrators only; a tombstone stays.
pub(crate) async fn delete(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    let body = call.json_object().await?;
    let mut store = app.store.lock();
    store.record(&call.target.id)?;
    let admin = call.user.filter(|user| user.admin).ok_or_else(Problem::denied)?;
    let now = store.now();
    let Some(record) = store.records.get_mut(&call.target.id) else {
        return Err(Problem::unknown_id().into());
    };
    let creator = record
        .metadata
        .get("creators")
        .map(|list| list[0]["person_or_org"]["name"].clone());
    let year: String = record
        .metadata
        .get("publication_date")
        .and_then(|date| date.as_str())
        .unwrap_or("")
        .chars()
        .take(4)
        .collect();
    let citation = format!(
        "{} ({year}). {} [Dataset]. Example. https://handle.test.datacite.org/10.5072/{}",
        creator.as_ref().and_then(|name| name.as_str()).unwrap_or(""),
        record.title(),
        record.id
    );
    record.tombstone = Some(json!({
        "note": body.get("note").cloned().unwrap_or(json!("")),
        "removed_by": {"user": admin.id.to_string()},
        "removal_date": iso(now),
        "citation_text": citation,
        "is_visible": body.get("is_visible").cloned().unwrap_or(json!(true)),
        "removal_reason": body.get("removal_reason").cloned().unwrap_or(json!({"id": "spam"})),
    }));
    record.revision += 1;
    store.changed(&call.target.id, false);
    Ok(Reply::empty(204))
}
