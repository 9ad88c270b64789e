//! Reviews of drafts by communities, curation requests, and data management plans.

use serde_json::{Value, json};

use crate::app::App;
use crate::drafts::check_ready;
use crate::errors::Problem;
use crate::lists;
use crate::records::{is_owner, may_preview};
use crate::reply::{Call, Failure, Reply};
use crate::requests::{self, Kind};
use crate::store::Store;

const OPEN: &str = "An open review cannot be deleted.";

fn no_review() -> Problem {
    Problem::new(404, "Review for draft not found")
}

/// The parent of the draft that the call is about, for its owner.
fn owned_draft(store: &Store, call: &Call) -> Result<String, Problem> {
    let draft = store.draft(&call.target.id)?;
    if !is_owner(store, draft, call.user) {
        return Err(Problem::denied());
    }
    Ok(draft.parent.clone())
}

/// `GET …/draft/review`
pub(crate) fn read(app: &App, call: &Call) -> Result<Reply, Failure> {
    let store = app.store.lock();
    let draft = store.draft(&call.target.id)?;
    if !may_preview(&store, draft, call.user) {
        return Err(Problem::denied().into());
    }
    let review = store.parent_of(draft).review.clone().ok_or_else(no_review)?;
    let shown = requests::shown(app, &store, &store.requests[&review], call.user);
    Ok(Reply::json(200, &shown))
}

/// `PUT …/draft/review`: chooses a community, by its UUID alone.
pub(crate) async fn set(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    let body = json!(call.json_object().await?);
    let mut store = app.store.lock();
    let parent = owned_draft(&store, call)?;
    if store.records.contains_key(&call.target.id) {
        let message = "You cannot create a review for an already published record.";
        return Err(Problem::new(400, message).into());
    }
    if body["type"] != "community-submission" {
        return Err(Problem::invalid("type", "Invalid review type.").into());
    }
    let name = body["receiver"]["community"].as_str().unwrap_or_default();
    let community = store
        .communities
        .find(name)
        .map_err(|_| Problem::no_result())?
        .id
        .clone();
    if community != name {
        return Err(Problem::no_result().into());
    }
    drop_review(&mut store, &parent)?;
    let receiver = ("community", community.as_str());
    let id = requests::make(
        &mut store,
        Kind::Submission,
        call.user,
        receiver,
        &call.target.id,
        "",
    );
    if let Some(parent) = store.parents.get_mut(&parent) {
        parent.review = Some(id.clone());
    }
    let shown = requests::shown(app, &store, &store.requests[&id], call.user);
    Ok(Reply::json(200, &shown))
}

/// Takes a review away that nobody has been asked for, or that was declined.
fn drop_review(store: &mut Store, parent: &str) -> Result<(), Problem> {
    let Some(id) = store.parents.get(parent).and_then(|parent| parent.review.clone()) else {
        return Ok(());
    };
    let request = &store.requests[&id];
    if request.is_open() {
        return Err(Problem::new(400, OPEN));
    }
    if request.status == "created" {
        store.requests.remove(&id);
    }
    if let Some(parent) = store.parents.get_mut(parent) {
        parent.review = None;
    }
    Ok(())
}

/// `DELETE …/draft/review`
pub(crate) fn delete(app: &App, call: &Call) -> Result<Reply, Failure> {
    let mut store = app.store.lock();
    let parent = owned_draft(&store, call)?;
    if store.parents[&parent].review.is_none() {
        return Err(no_review().into());
    }
    drop_review(&mut store, &parent)?;
    Ok(Reply::empty(204))
}

/// `POST …/draft/actions/submit-review`
pub(crate) async fn submit(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    let body = json!(call.json_object().await?);
    let mut store = app.store.lock();
    let parent = owned_draft(&store, call)?;
    let review = store.parents[&parent].review.clone();
    // A bug of the real server's.
    let review = review
        .filter(|id| store.requests[id].status == "created")
        .ok_or_else(|| Problem::server_error(500))?;
    check_ready(store.draft(&call.target.id)?)?;
    requests::submit(&mut store, &review, call.user, Some(&body));
    let community = store.requests[&review].receiver.1.clone();
    let community = store.communities.find(&community)?;
    if community.is_open() && community.is_owned_by(call.user) && body["require_review"] != true {
        requests::accept(&mut store, &review, None)?;
    }
    let shown = requests::shown(app, &store, &store.requests[&review], call.user);
    Ok(Reply::json(202, &shown))
}

fn curates(app: &App) -> Result<(), Problem> {
    if app.knobs.lock().curations {
        Ok(())
    } else {
        Err(Problem::no_route())
    }
}

/// `GET /curations/data`
pub(crate) fn curation_data(app: &App, _: &Call) -> Result<Reply, Failure> {
    curates(app)?;
    Ok(Reply::json(
        200,
        &json!({"is_privileged": false, "publishing_edits": true}),
    ))
}

/// `GET /curations/`: guests see none.
pub(crate) fn curations(app: &App, call: &Call) -> Result<Reply, Failure> {
    curates(app)?;
    let store = app.store.lock();
    let topic = call
        .param("topic")
        .map(|topic| topic.trim_start_matches("record:"));
    requests::list(app, &store, call, "/api/curations/", |request| {
        request.kind == Kind::Curation && topic.is_none_or(|topic| request.topic == topic)
    })
}

/// `POST /curations/`: made and submitted at once.
pub(crate) async fn curate(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    curates(app)?;
    let body = json!(call.json_object().await?);
    call.signed_in()?;
    let mut store = app.store.lock();
    let Some(draft) = body["topic"]["record"].as_str() else {
        return Err(Problem::server_error(500).into());
    };
    let title = match store.drafts.get(draft) {
        Some(draft) => draft.title().to_string(),
        None => store.record(draft)?.title().to_string(),
    };
    if store.requests.curation_of(draft).is_some() {
        return Err(Problem::new(400, "").into());
    }
    let title = match body["title"].as_str() {
        Some(title) => title.to_string(),
        None => format!("RDM Curation: {title}"),
    };
    let id = requests::make(
        &mut store,
        Kind::Curation,
        call.user,
        ("group", "reviewer"),
        draft,
        &title,
    );
    requests::submit(&mut store, &id, call.user, None);
    let shown = requests::shown(app, &store, &store.requests[&id], call.user);
    Ok(Reply::json(201, &shown))
}

/// Two plans, as a DAMAP server would list them.
const PLANS: &[(&str, &str)] = &[("p1", "Snow and ice"), ("p2", "Glaciers")];

fn plans_there(app: &App) -> Result<(), Problem> {
    if app.knobs.lock().plans {
        Ok(())
    } else {
        Err(Problem::no_route())
    }
}

/// `GET /invenio_damap/damap/dmp`
pub(crate) fn plans(app: &App, call: &Call) -> Result<Reply, Failure> {
    plans_there(app)?;
    call.signed_in().map_err(|_| Problem::server_error(500))?;
    let hits: Vec<Value> = PLANS
        .iter()
        .map(|(id, title)| json!({"id": id, "project": {"title": title}, "links": {}}))
        .collect();
    lists::page(app, call, "/api/invenio_damap/damap/dmp", hits)
}

/// `POST /invenio_damap/damap/dmp/{plan}/dataset/{id}`
pub(crate) fn link_plan(app: &App, call: &Call) -> Result<Reply, Failure> {
    plans_there(app)?;
    call.signed_in().map_err(|_| Problem::server_error(500))?;
    let mut store = app.store.lock();
    store.record(&call.target.id)?;
    if !PLANS.iter().any(|(id, _)| *id == call.target.key) {
        return Err(Problem::server_error(500).into());
    }
    store
        .plans
        .push((call.target.key.clone(), call.target.id.clone()));
    Ok(Reply::json(201, &json!({})))
}
