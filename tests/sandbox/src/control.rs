//! `/sandbox/…`: what scripts can ask for and change from outside of the process.

use std::path::PathBuf;

use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::data::{Data, NewRecord};
use crate::errors::Problem;
use crate::faults::{Fault, FaultId};
use crate::reply::Reply;
use crate::settings::{ContentMode, KnobsPatch};

#[derive(Deserialize)]
struct Mode {
    mode: ContentMode,
}

#[derive(Default, Deserialize)]
struct Which {
    id: Option<FaultId>,
}

/// A record to be published.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publication {
    title: String,
    files: Vec<Published>,
}

/// A file of it: its bytes are the text, or generated, or a file's on this machine.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Published {
    Text { key: String, text: String },
    Generated { key: String, size: u64, seed: u64 },
    Lent { key: String, path: PathBuf },
}

impl Publication {
    fn publish(self, app: &App) -> Result<String, Problem> {
        if self.title.chars().count() < 3 {
            return Err(Problem::new(400, "A title has three characters or more."));
        }
        let mut record = NewRecord::titled(&self.title);
        for file in self.files {
            let (key, data) = match file {
                Published::Text { key, text } => (key, Data::text(text)),
                Published::Generated { key, size, seed } => (key, Data::generated(size, seed)),
                Published::Lent { key, path } => {
                    let data = Data::lent(path.clone());
                    let told = |error| Problem::new(400, format!("{}: {error}", path.display()));
                    (key, data.map_err(told)?)
                }
            };
            record = record.file(&key, data);
        }
        Ok(app.make_record(record))
    }
}

/// Answers a request to the control routes.
pub(crate) async fn answer(app: &App, method: &Method, path: &str, incoming: Incoming) -> Reply {
    let body = match incoming.collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Problem::new(400, "The body was cut off.").into(),
    };
    // Publishing may have to hash a lot.
    match tokio::task::block_in_place(|| route(app, method, path, &body)) {
        Ok(value) => Reply::json(200, &value),
        Err(problem) => problem.into(),
    }
}

fn route(app: &App, method: &Method, path: &str, body: &[u8]) -> Result<Value, Problem> {
    match (method.as_str(), path) {
        ("GET", "/sandbox/counts") => {
            let traffic = &app.traffic;
            Ok(
                json!({"counts": traffic.counts(), "total": traffic.total(), "in_flight": traffic.in_flight(),
                      "leaked_authorizations": app.links.lock().leaks}),
            )
        }
        ("POST", "/sandbox/reset-counts") => {
            app.traffic.reset();
            Ok(json!({}))
        }
        ("GET", "/sandbox/requests") => Ok(json!(app.traffic.requests())),
        ("GET", "/sandbox/faults") => {
            let faults = app.faults.lock();
            Ok(faults
                .list()
                .iter()
                .map(|(id, fault)| json!({"id": id, "fault": fault}))
                .collect())
        }
        ("POST", "/sandbox/faults") => {
            let fault: Fault = parse(body)?;
            Ok(json!({"id": app.faults.lock().add(fault)}))
        }
        ("DELETE", "/sandbox/faults") => {
            let which: Which = if body.is_empty() {
                Which::default()
            } else {
                parse(body)?
            };
            match which.id {
                Some(id) if !app.faults.lock().remove(id) => Err(Problem::new(404, "No such fault.")),
                Some(_) => Ok(json!({})),
                None => {
                    app.faults.lock().clear();
                    Ok(json!({}))
                }
            }
        }
        ("POST", "/sandbox/mode") => {
            let wanted: Mode = parse(body)?;
            app.knobs.lock().mode = wanted.mode;
            Ok(json!({"mode": wanted.mode}))
        }
        ("POST", "/sandbox/knobs") => {
            let patch: KnobsPatch = parse(body)?;
            patch.apply(&mut app.knobs.lock());
            Ok(json!({}))
        }
        ("GET", "/sandbox/records") => Ok(titles(app)),
        ("POST", "/sandbox/publish") => {
            let wanted: Vec<Publication> = parse(body)?;
            let ids: Result<Vec<String>, Problem> =
                wanted.into_iter().map(|record| record.publish(app)).collect();
            Ok(json!({"ids": ids?}))
        }
        _ => Err(Problem::no_route()),
    }
}

/// Ids by title: published records and drafts apart, the newest of each title.
fn titles(app: &App) -> Value {
    let store = app.store.lock();
    let by_title = |documents: Vec<&crate::store::Document>| {
        let mut documents = documents;
        documents.sort_by_key(|document| document.created);
        let pairs = documents
            .into_iter()
            .map(|document| (document.title().to_string(), json!(document.id)));
        pairs.collect::<Map<String, Value>>()
    };
    json!({"records": by_title(store.records.values().collect()), "drafts": by_title(store.drafts.values().collect())})
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::new(400, error.to_string()))
}
