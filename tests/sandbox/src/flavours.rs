//! What kinds of installations answer otherwise than a packaged version 14.

use hyper::header::{self, HeaderMap};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::errors::Problem;
use crate::reply::{Call, Payload, Reply};
use crate::routes::Route;
use crate::settings::{Flavour, RateLimit};

/// Zenodo counts searches apart.
pub(crate) const SEARCHES: RateLimit = RateLimit {
    requests: 30,
    seconds: 60,
};

const BLOCKED: &str = "<!DOCTYPE html>\n<html><head><title>Unusual traffic</title></head>\n<body><h1>Unusual traffic from \
                       your network</h1><p>Please identify your program by its User-Agent.</p></body></html>\n";

/// Zenodo's page for programs that do not say who they are.
pub(crate) fn blocked(headers: &HeaderMap) -> Option<Reply> {
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|agent| agent.to_str().ok());
    let known = agent.is_some_and(|agent| {
        !agent.is_empty() && !agent.starts_with("python-requests") && !agent.starts_with("aria2")
    });
    (!known).then(|| Reply::new(403, "text/html; charset=utf-8", BLOCKED))
}

/// What one kind of installation refuses and others take.
pub(crate) fn refused(app: &App, call: &Call, flavour: Flavour) -> Option<Problem> {
    match flavour {
        Flavour::Zenodo => {
            let most = if call.signed_in().is_ok() { 100 } else { 25 };
            let size: u64 = call.param("size")?.parse().ok()?;
            (is_list(call.target.route) && size > most).then(|| {
                let message = format!(
                    "Page size cannot be greater than {most}. Please use authenticated requests to increase the limit \
                     to 100."
                );
                Problem::invalid("size", message)
            })
        }
        Flavour::V14 | Flavour::V12 | Flavour::TuWien => {
            debug_assert!(app.knobs.lock().flavour == flavour);
            None
        }
    }
}

fn is_list(route: Route) -> bool {
    matches!(
        route,
        Route::Search | Route::UserRecords | Route::Versions | Route::CommunityRecords
    )
}

/// An answer as one kind of installation gives it.
pub(crate) fn shaped(reply: Reply, route: Route, flavour: Flavour) -> Reply {
    match flavour {
        Flavour::Zenodo => reshaped(reply, |body| legacy(body, route)),
        Flavour::V12 => reshaped(reply, |body| Some(older(body))),
        Flavour::V14 | Flavour::TuWien => reply,
    }
}

fn reshaped(mut reply: Reply, change: impl FnOnce(Value) -> Option<Value>) -> Reply {
    let plain = reply
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/json");
    let changed = match &reply.body {
        Payload::Bytes(bytes) if plain && reply.status.is_success() => {
            serde_json::from_slice(bytes).ok().and_then(change)
        }
        _ => None,
    };
    if let Some(body) = changed {
        reply.body = Payload::Bytes(body.to_string().into());
    }
    reply
}

/// Zenodo's own form of records and drafts, which stands under `application/json` there.
fn legacy(mut body: Value, route: Route) -> Option<Value> {
    if is_list(route) {
        let hits = body.pointer_mut("/hits/hits")?.as_array_mut()?;
        for hit in hits {
            *hit = legacy_record(hit);
        }
        return Some(body);
    }
    let is_record = matches!(
        route,
        Route::Record
            | Route::GetDraft
            | Route::PutDraft
            | Route::CreateDraft
            | Route::EditRecord
            | Route::NewVersion
            | Route::Publish
            | Route::ReserveDoi
            | Route::DropDoi
    );
    is_record.then(|| legacy_record(&body))
}

fn legacy_record(record: &Value) -> Value {
    let number = |id: &Value| id.as_str().and_then(|id| id.parse::<u64>().ok());
    let metadata = &record["metadata"];
    let creators: Vec<Value> = metadata["creators"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|creator| json!({"name": creator["person_or_org"]["name"], "affiliation": null}))
        .collect();
    let files: Vec<Value> = record["files"]["entries"]
        .as_object()
        .into_iter()
        .flat_map(Map::values)
        .map(|file| {
            json!({"id": file["id"], "key": file["key"], "size": file["size"], "checksum": file["checksum"],
                   "links": {"self": file["links"]["content"]}})
        })
        .collect();
    let mut shown = json!({
        "created": record["created"],
        "modified": record["updated"],
        "id": number(&record["id"]),
        "recid": record["id"],
        "conceptrecid": record["parent"]["id"],
        "conceptdoi": record["parent"]["pids"]["doi"]["identifier"],
        "doi": record["pids"]["doi"]["identifier"],
        "title": metadata["title"],
        "links": record["links"],
        "updated": record["updated"],
        "revision": record["revision_id"],
        "metadata": {"title": metadata["title"], "doi": record["pids"]["doi"]["identifier"],
                     "publication_date": metadata["publication_date"], "creators": creators,
                     "description": metadata["description"], "access_right": record["access"]["status"],
                     "resource_type": {"title": "Dataset", "type": "dataset"}},
        "owners": [{"id": record["parent"]["access"]["owned_by"]["user"]}],
        "status": record["status"],
        "state": if record["is_published"] == true { "done" } else { "unsubmitted" },
        "submitted": record["is_published"],
        "files": files,
    });
    if let Some(errors) = record.get("errors") {
        shown["errors"] = errors.clone();
    }
    shown
}

/// Version 12: lists do not name their page, and some times have no offset.
fn older(mut body: Value) -> Value {
    if body.get("hits").is_some()
        && let Some(body) = body.as_object_mut()
    {
        body.remove("page");
    }
    if let Some(Value::String(time)) = body.get_mut("expires_at") {
        *time = time.trim_end_matches("+00:00").to_string();
    }
    body
}
