//! Searches: all records, a user's own, and the versions of one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use crate::app::App;
use crate::errors::Problem;
use crate::lists::page_and_size;
use crate::mimetypes;
use crate::query::Query;
use crate::records::{self, is_owner, may_read};
use crate::render::{self, Place};
use crate::reply::{Call, Failure, Reply, encode_value};
use crate::store::{Document, Store};
use crate::vocabularies;

/// What searches see: every change reaches it after the index delay.
#[derive(Default)]
pub(crate) struct Index {
    documents: HashMap<(String, bool), Arc<Document>>,
}

impl Index {
    fn refresh(&mut self, app: &App, store: &mut Store) {
        let delay = app.knobs.lock().index_delay;
        let now = Instant::now();
        let due = store
            .changes
            .iter()
            .take_while(|change| now.duration_since(change.at) >= delay)
            .count();
        for change in store.changes.drain(..due) {
            let key = (change.id, change.draft);
            match change.document {
                Some(document) => self.documents.insert(key, document),
                None => self.documents.remove(&key),
            };
        }
    }

    fn records(&self) -> impl Iterator<Item = &Arc<Document>> {
        self.documents
            .iter()
            .filter(|((_, draft), _)| !draft)
            .map(|(_, document)| document)
    }

    fn has_draft(&self, id: &str) -> bool {
        self.documents.contains_key(&(id.to_string(), true))
    }
}

/// A document found, and whether it is a draft.
type Hit = (Arc<Document>, bool);

/// The parameters that all searches share.
struct Params {
    query: Query,
    page: usize,
    size: usize,
    sort: String,
    all_versions: bool,
}

/// The orders that every list of records knows.
const SORTS: [&str; 6] = [
    "bestmatch",
    "newest",
    "oldest",
    "version",
    "updated-desc",
    "updated-asc",
];

/// Results beyond this one can't be reached.
const WINDOW: usize = 10_000;

impl Params {
    fn parse(call: &Call, with_query: &str, without: &str, sorts: &[&str]) -> Result<Params, Problem> {
        if call.param("q").is_some() && call.param("suggest").is_some() {
            return Err(Problem::query());
        }
        let query = Query::parse(call.param("q").unwrap_or_default());
        let (page, size) = page_and_size(call, |_| Problem::query())?;
        if (page - 1).saturating_mul(size) >= WINDOW {
            return Err(Problem::query());
        }
        let default = if query.is_empty() { without } else { with_query };
        let sort = call
            .param("sort")
            .filter(|sort| !sort.is_empty())
            .unwrap_or(default)
            .to_string();
        if !sorts.contains(&sort.as_str()) {
            return Err(Problem::query());
        }
        let all_versions = matches!(call.param("allversions"), Some("true" | "True" | "1"));
        Ok(Params {
            query,
            page,
            size,
            sort,
            all_versions,
        })
    }
}

/// The records that one may see: the latest version of each, or all.
fn shown<'a>(
    index: &'a Index,
    store: &'a Store,
    call: &'a Call,
    params: &'a Params,
) -> impl Iterator<Item = &'a Arc<Document>> {
    let latest = latest_of_each(index.records().map(|record| (record.clone(), false)));
    index.records().filter(move |record| {
        let newest = latest.get(&record.parent);
        let is_newest = || newest.is_some_and(|(newest, _)| newest.id == record.id);
        may_read(store, record, call.user) && (params.all_versions || is_newest())
    })
}

/// `GET /records`: the latest version of each record that one may see.
pub(crate) fn records(app: &App, call: &Call) -> Result<Reply, Failure> {
    let kind = call.accepts(records::JSON)?;
    let sorts = [&SORTS[..], &["mostviewed", "mostdownloaded"]].concat();
    let params = Params::parse(call, "bestmatch", "newest", &sorts)?;
    let (mut store, mut index) = (app.store.lock(), app.index.lock());
    index.refresh(app, &mut store);
    let hits = shown(&index, &store, call, &params).filter(|record| {
        (params.query.matches(record, true) || params.query.is_of_parent_doi(&store, record))
            && call.param("resource_type").is_none_or(|wanted| {
                record
                    .metadata
                    .get("resource_type")
                    .is_some_and(|kind| kind["id"] == wanted)
            })
    });
    let hits = hits.map(|record| (record.clone(), false)).collect();
    let body = page(app, &store, call, &params, hits, "/api/records", true);
    Ok(found(kind, body))
}

/// `GET /communities/{id}/records`
pub(crate) fn of_community(app: &App, call: &Call) -> Result<Reply, Failure> {
    let kind = call.accepts(records::JSON)?;
    let params = Params::parse(call, "bestmatch", "newest", &SORTS)?;
    let (mut store, mut index) = (app.store.lock(), app.index.lock());
    index.refresh(app, &mut store);
    let community = store.communities.readable(&call.target.id, call.user)?.id.clone();
    let hits = shown(&index, &store, call, &params).filter(|record| {
        store.parent_of(record).communities.contains(&community) && params.query.matches(record, true)
    });
    let hits = hits.map(|record| (record.clone(), false)).collect();
    let path = format!("/api/communities/{}/records", call.target.id);
    let body = page(app, &store, call, &params, hits, &path, true);
    Ok(found(kind, body))
}

/// `GET /user/records`: own drafts and records. A record under edit appears as its draft, and only
/// the newest draft or version of each record does at all.
pub(crate) fn of_user(app: &App, call: &Call) -> Result<Reply, Failure> {
    let kind = call.accepts(records::JSON)?;
    call.signed_in()?;
    let params = Params::parse(call, "bestmatch", "updated-desc", &SORTS)?;
    let (mut store, mut index) = (app.store.lock(), app.index.lock());
    index.refresh(app, &mut store);
    let own = index.documents.iter().filter(|((id, draft), document)| {
        is_owner(&store, document, call.user) && (*draft || !index.has_draft(id))
    });
    let own: Vec<Hit> = own
        .map(|((_, draft), document)| (document.clone(), *draft))
        .collect();
    let latest = latest_of_each(own.iter().cloned());
    let wanted = match call.param("is_published") {
        Some("true" | "1") => Some(true),
        Some("false" | "0") => Some(false),
        _ => None,
    };
    let hits = own.into_iter().filter(|(document, _)| {
        let published = store.records.contains_key(&document.id);
        (params.all_versions
            || latest
                .get(&document.parent)
                .is_some_and(|(latest, _)| latest.id == document.id))
            && wanted.is_none_or(|wanted| wanted == published)
            && params.query.matches(document, published)
    });
    let hits = hits.collect();
    let body = page(app, &store, call, &params, hits, "/api/user/records", true);
    Ok(found(kind, body))
}

/// `GET /records/{id}/versions`: published ones, newest first.
pub(crate) fn versions(app: &App, call: &Call) -> Result<Reply, Failure> {
    let kind = call.accepts(records::JSON)?;
    let params = Params::parse(call, "version", "version", &["version"])?;
    let (mut store, mut index) = (app.store.lock(), app.index.lock());
    index.refresh(app, &mut store);
    let id = &call.target.id;
    let of = store
        .records
        .get(id)
        .or_else(|| store.drafts.get(id))
        .ok_or_else(Problem::unknown_id)?;
    if !may_read(&store, of, call.user)
        || (!store.records.contains_key(id) && !is_owner(&store, of, call.user))
    {
        return Err(Problem::denied().into());
    }
    let hits = index.records().filter(|record| {
        record.parent == of.parent
            && may_read(&store, record, call.user)
            && params.query.matches(record, true)
    });
    let hits = hits.map(|record| (record.clone(), false)).collect();
    let path = format!("/api/records/{id}/versions");
    let body = page(app, &store, call, &params, hits, &path, false);
    Ok(found(kind, body))
}

/// The highest version of each parent.
fn latest_of_each(documents: impl Iterator<Item = Hit>) -> HashMap<String, Hit> {
    let mut latest: HashMap<String, Hit> = HashMap::new();
    for hit in documents {
        match latest.get_mut(&hit.0.parent) {
            Some(known) if known.0.index >= hit.0.index => {}
            Some(known) => *known = hit,
            None => {
                latest.insert(hit.0.parent.clone(), hit);
            }
        }
    }
    latest
}

fn page(
    app: &App,
    store: &Store,
    call: &Call,
    params: &Params,
    mut hits: Vec<Hit>,
    path: &str,
    facets: bool,
) -> Value {
    let newest = |a: &Hit, b: &Hit| b.0.created.cmp(&a.0.created);
    match params.sort.as_str() {
        "oldest" => hits.sort_by_key(|hit| hit.0.created),
        "updated-desc" => hits.sort_by_key(|hit| Reverse(hit.0.updated)),
        "updated-asc" => hits.sort_by_key(|hit| hit.0.updated),
        "version" => hits.sort_by(|a, b| b.0.index.cmp(&a.0.index).then_with(|| newest(a, b))),
        "bestmatch" => {
            let score = |hit: &Hit| params.query.score(&hit.0);
            hits.sort_by(|a, b| score(b).cmp(&score(a)).then_with(|| newest(a, b)));
        }
        _ => hits.sort_by(newest),
    }
    let total = hits.len();
    let start = (params.page - 1) * params.size;
    let end = start.saturating_add(params.size).min(WINDOW).min(total);
    let shown = hits
        .get(start..end)
        .unwrap_or_default()
        .iter()
        .map(|(document, draft)| {
            let place = if *draft { Place::DraftHit } else { Place::Hit };
            render::document(app, store, document, place, call.user)
        });
    let shown: Vec<Value> = shown.collect();
    let mut links = json!({"self": link(app, call, params, path, params.page)});
    if params.page > 1 {
        links["prev"] = json!(link(app, call, params, path, params.page - 1));
    }
    if params.page * params.size < total.min(WINDOW) {
        links["next"] = json!(link(app, call, params, path, params.page + 1));
    }
    let mut body = json!({
        "hits": {"hits": shown, "total": total},
        "sortBy": params.sort,
        "page": params.page,
        "links": links,
    });
    if facets {
        body["aggregations"] = aggregations(store, &hits, path.ends_with("/user/records"));
    }
    body
}

/// A search's answer: in the form with `ui` it has no `page`.
fn found(kind: &'static str, mut body: Value) -> Reply {
    if kind != records::JSON[0]
        && let Some(body) = body.as_object_mut()
    {
        body.remove("page");
    }
    Reply::new(200, kind, body.to_string())
}

fn link(app: &App, call: &Call, params: &Params, path: &str, page: usize) -> String {
    let mut all: BTreeMap<&str, String> = call
        .query
        .iter()
        .map(|(key, value)| (key.as_str(), value.clone()))
        .collect();
    all.insert("page", page.to_string());
    all.insert("size", params.size.to_string());
    all.insert("sort", params.sort.clone());
    let all: Vec<String> = all
        .iter()
        .map(|(key, value)| format!("{}={}", encode_value(key), encode_value(value)))
        .collect();
    format!("{}{path}?{}", app.site, all.join("&"))
}

fn aggregations(store: &Store, hits: &[Hit], of_user: bool) -> Value {
    let bucket = |label: &str, buckets: Vec<Value>| json!({"buckets": buckets, "label": label});
    let count = |keys: Vec<String>| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for key in keys {
            *counts.entry(key).or_default() += 1;
        }
        counts
    };
    let entry = |key: Value, count: usize, label: Value| json!({"key": key, "doc_count": count, "label": label, "is_selected": false});
    let statuses = count(
        hits.iter()
            .map(|(document, _)| document.access_status().to_string())
            .collect(),
    );
    let statuses = statuses.iter().map(|(key, count)| {
        let mut label = key.clone();
        label[..1].make_ascii_uppercase();
        entry(json!(key), *count, json!(label))
    });
    let kinds = hits
        .iter()
        .filter_map(|(document, _)| document.metadata.get("resource_type")?["id"].as_str());
    let kinds = count(kinds.map(str::to_string).collect());
    let kinds = kinds.iter().map(|(key, count)| {
        let mut entry = entry(json!(key), *count, json!(vocabularies::resource_type_title(key)));
        entry["inner"] = json!({"buckets": []});
        entry
    });
    let types = hits.iter().filter(|(_, draft)| !draft).flat_map(|(document, _)| {
        let mut types: Vec<String> = document
            .files
            .entries
            .iter()
            .map(|entry| mimetypes::extension(&entry.key))
            .collect();
        types.sort();
        types.dedup();
        types
    });
    let types = count(types.filter(|kind| !kind.is_empty()).collect());
    let types = types
        .iter()
        .map(|(key, count)| entry(json!(key), *count, json!(key.to_uppercase())));
    let mut all = json!({
        "publication_date": bucket("Publication date", Vec::new()),
        "access_status": bucket("Access status", statuses.collect()),
        "file_type": bucket("File type", types.collect()),
        "resource_type": bucket("Resource types", kinds.collect()),
    });
    if of_user {
        let published = hits
            .iter()
            .filter(|(document, _)| store.records.contains_key(&document.id))
            .count();
        let counts = [(1, published), (0, hits.len() - published)];
        let buckets = counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(key, count)| entry(json!(key), *count, json!(key)));
        all["is_published"] = bucket("Status", buckets.collect());
    }
    all
}
