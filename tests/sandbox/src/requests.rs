//! Requests: their states, who may do what with them, and what was said of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::app::{App, USERS, User};
use crate::errors::Problem;
use crate::lists::{page, sorted};
use crate::query::Query;
use crate::reply::{Call, Failure, Reply};
use crate::settings::Flavour;
use crate::store::{Document, Parent, Store, iso};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// A draft to be published in a community.
    Submission,
    /// A record to be in a community.
    Inclusion,
    /// A draft to be published at all.
    Curation,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Submission => "community-submission",
            Kind::Inclusion => "community-inclusion",
            Kind::Curation => "rdm-curation",
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub id: String,
    pub kind: Kind,
    pub status: &'static str,
    pub title: String,
    pub number: u64,
    pub creator: u32,
    pub receiver: (String, String),
    pub topic: String,
    pub created: Timestamp,
    pub updated: Timestamp,
    pub events: Vec<Event>,
}

/// Something that happened to it.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub id: String,
    pub at: Timestamp,
    pub author: String,
    pub payload: Value,
}

impl Event {
    fn is_comment(&self) -> bool {
        self.payload.get("event").is_none()
    }
}

impl Request {
    pub fn is_open(&self) -> bool {
        matches!(self.status, "submitted" | "review" | "critiqued" | "resubmitted")
    }

    fn is_closed(&self) -> bool {
        matches!(self.status, "accepted" | "declined" | "cancelled")
    }
}

/// All requests by id.
#[derive(Default)]
pub(crate) struct Requests(BTreeMap<String, Request>);

impl std::ops::Index<&String> for Requests {
    type Output = Request;

    fn index(&self, id: &String) -> &Request {
        &self.0[id]
    }
}

impl Requests {
    pub fn open_for_community(&self, id: &str) -> usize {
        let open = |request: &&Request| request.is_open() && request.receiver.1 == id;
        self.0.values().filter(open).count()
    }

    pub fn open_inclusion(&self, record: &str, community: &str) -> bool {
        self.0.values().any(|request| {
            request.kind == Kind::Inclusion
                && request.is_open()
                && request.topic == record
                && request.receiver.1 == community
        })
    }

    pub fn curation_of(&self, draft: &str) -> Option<&Request> {
        let of_draft = |request: &&Request| request.kind == Kind::Curation && request.topic == draft;
        self.0.values().find(of_draft)
    }

    pub fn all(&self) -> impl Iterator<Item = &Request> {
        self.0.values()
    }

    pub fn remove(&mut self, id: &str) {
        self.0.remove(id);
    }
}

/// The reviewer of curation requests.
pub(crate) fn is_reviewer(user: Option<User>) -> bool {
    user.is_some_and(|user| user.name == "bob")
}

/// Whether somebody may read and change a draft because it is to be curated.
pub(crate) fn is_curator_of(store: &Store, draft: &str, user: Option<User>) -> bool {
    is_reviewer(user) && store.requests.curation_of(draft).is_some()
}

/// `status` of a draft under review.
pub(crate) fn review_status(store: &Store, parent: &Parent) -> Option<&'static str> {
    let request = store.requests.0.get(parent.review.as_ref()?)?;
    match request.status {
        "created" => Some("draft_with_review"),
        "declined" => Some("declined"),
        _ => Some("in_review"),
    }
}

/// Why a draft can't be published now.
pub(crate) fn publish_may_go(
    store: &Store,
    draft: &Document,
    curations: bool,
    flavour: Flavour,
) -> Result<(), Problem> {
    let parent = store.parent_of(draft);
    let review = parent.review.as_ref().and_then(|id| store.requests.0.get(id));
    if review.is_some_and(|request| !request.is_closed()) {
        let message =
            "You cannot publish a draft with an open review request. Please cancel the review request first.";
        let message = if flavour == Flavour::V12 { "" } else { message };
        return Err(Problem::new(400, message));
    }
    let accepted = store.requests.all().any(|request| {
        request.kind == Kind::Curation && request.topic == draft.id && request.status == "accepted"
    });
    if curations && !store.records.contains_key(&draft.id) && !accepted {
        // That is all it says.
        let mut problem = Problem::invalid("metadata.title", ".");
        problem.body["message"] = json!("");
        return Err(problem);
    }
    Ok(())
}

/// Why a draft can't be deleted now.
pub(crate) fn draft_may_go(store: &Store, parent: &str, id: &str) -> Result<(), Problem> {
    let parent = &store.parents[parent];
    let review = parent.review.as_ref().and_then(|id| store.requests.0.get(id));
    if review.is_some_and(|request| request.is_open() && request.topic == id) {
        let message = "You cannot delete a draft with an open review. Please cancel the review first.";
        return Err(Problem::new(400, message));
    }
    Ok(())
}

/// The requests about an unpublished draft go with it.
pub(crate) fn forget_draft(store: &mut Store, parent: &str, id: &str) {
    if store.records.contains_key(id) {
        return;
    }
    store
        .requests
        .0
        .retain(|_, request| request.topic != id || request.kind == Kind::Inclusion);
    if let Some(parent) = store.parents.get_mut(parent) {
        parent.review = None;
    }
}

/// A saved draft: its request is named after it, and a change takes an acceptance back.
pub(crate) fn draft_changed(store: &mut Store, id: &str, changed: bool, title: &str) {
    if store.records.contains_key(id) {
        return;
    }
    let now = store.now();
    let event = store.new_uuid();
    let request = store
        .requests
        .0
        .values_mut()
        .find(|request| request.kind == Kind::Curation && request.topic == id);
    let Some(request) = request else { return };
    request.title = format!("RDM Curation: {title}");
    if changed && matches!(request.status, "accepted" | "cancelled") {
        request.status = "resubmitted";
        request.updated = now;
        request.events.push(Event {
            id: event,
            at: now,
            author: "system".to_string(),
            payload: json!({"event": "resubmitted", "format": "html"}),
        });
    }
}

/// Makes a request, which nobody is told of before [`submit`].
pub(crate) fn make(
    store: &mut Store,
    kind: Kind,
    creator: Option<User>,
    receiver: (&str, &str),
    topic: &str,
    title: &str,
) -> String {
    let (id, now) = (store.new_uuid(), store.now());
    let request = Request {
        id: id.clone(),
        kind,
        status: "created",
        title: title.to_string(),
        number: store.requests.0.len() as u64 + 1,
        creator: creator.map_or(0, |user| user.id),
        receiver: (receiver.0.to_string(), receiver.1.to_string()),
        topic: topic.to_string(),
        created: now,
        updated: now,
        events: Vec::new(),
    };
    store.requests.0.insert(id.clone(), request);
    id
}

pub(crate) fn submit(store: &mut Store, id: &str, user: Option<User>, comment: Option<&Value>) {
    say(store, id, user, comment);
    set_status(store, id, "submitted");
}

/// Does what a request asks for.
pub(crate) fn accept(store: &mut Store, id: &str, event_by: Option<User>) -> Result<(), Problem> {
    let request = store.requests.0.get(id).cloned().ok_or_else(Problem::no_result)?;
    if request.kind == Kind::Submission {
        crate::drafts::check_ready(store.draft(&request.topic)?)?;
        store.publish(&request.topic)?;
    }
    if request.kind != Kind::Curation {
        let parent = store.record(&request.topic)?.parent.clone();
        if let Some(parent) = store.parents.get_mut(&parent) {
            parent.communities.push(request.receiver.1.clone());
            if request.kind == Kind::Submission {
                parent.review = None;
            }
        }
        store.changed(&request.topic, false);
    }
    set_status(store, id, "accepted");
    note(store, id, event_by, "accepted");
    Ok(())
}

fn set_status(store: &mut Store, id: &str, status: &'static str) {
    let now = store.now();
    if let Some(request) = store.requests.0.get_mut(id) {
        request.status = status;
        request.updated = now;
    }
}

fn note(store: &mut Store, id: &str, by: Option<User>, event: &str) {
    push(store, id, by, json!({"event": event, "format": "html"}));
}

fn say(store: &mut Store, id: &str, by: Option<User>, comment: Option<&Value>) {
    let payload = comment.and_then(|comment| comment.get("payload"));
    if let Some(payload) = payload.filter(|payload| payload.get("content").is_some()) {
        push(store, id, by, payload.clone());
    }
}

fn push(store: &mut Store, id: &str, by: Option<User>, payload: Value) -> Option<Event> {
    let (event, at) = (store.new_uuid(), store.now());
    let author = by.map_or("system".to_string(), |user| user.id.to_string());
    let event = Event {
        id: event,
        at,
        author,
        payload,
    };
    store.requests.0.get_mut(id)?.events.push(event.clone());
    Some(event)
}

/// What somebody may do with a request now.
fn actions(store: &Store, request: &Request, user: Option<User>) -> Vec<&'static str> {
    let creator = user.is_some_and(|user| user.id == request.creator);
    let decides = decides(store, request, user);
    let mut actions = Vec::new();
    let mut add = |may: bool, names: &[&'static str]| actions.extend(names.iter().filter(|_| may));
    match (request.kind, request.status) {
        (Kind::Curation, "submitted" | "resubmitted") => {
            add(creator, &["cancel"]);
            add(decides, &["review"]);
        }
        (Kind::Curation, "review") => {
            add(creator, &["cancel"]);
            add(decides, &["accept", "critique"]);
        }
        (Kind::Curation, "critiqued") => add(creator, &["cancel", "resubmit"]),
        (Kind::Curation, "accepted") => add(creator, &["cancel", "pending_resubmission"]),
        (Kind::Curation, "cancelled") => add(creator, &["pending_resubmission", "resubmit"]),
        (_, "created") => add(creator, &["submit"]),
        (_, "submitted") => {
            add(decides, &["accept", "decline"]);
            add(creator, &["cancel"]);
        }
        _ => {}
    }
    actions
}

fn decides(store: &Store, request: &Request, user: Option<User>) -> bool {
    match request.kind {
        Kind::Curation => is_reviewer(user),
        _ => store
            .communities
            .find(&request.receiver.1)
            .is_ok_and(|community| community.is_owned_by(user)),
    }
}

fn may_see(store: &Store, request: &Request, user: Option<User>) -> bool {
    user.is_some_and(|user| user.id != 0 && user.id == request.creator)
        || (request.status != "created" && decides(store, request, user))
}

pub(crate) fn shown(app: &App, store: &Store, request: &Request, user: Option<User>) -> Value {
    let url = format!("{}/api/requests/{}", app.site, request.id);
    let actions: serde_json::Map<String, Value> = actions(store, request, user)
        .into_iter()
        .map(|name| (name.to_string(), json!(format!("{url}/actions/{name}"))))
        .collect();
    let mut receiver = json!({});
    receiver[&request.receiver.0] = json!(request.receiver.1);
    json!({
        "id": request.id,
        "created": iso(request.created),
        "updated": iso(request.updated),
        "links": {"self": url, "self_html": format!("{}/me/requests/{}", app.site, request.id),
                  "comments": format!("{url}/comments"), "timeline": format!("{url}/timeline"), "actions": actions},
        "revision_id": request.events.len() + 2,
        "type": request.kind.name(),
        "title": request.title,
        "number": request.number.to_string(),
        "status": request.status,
        "is_closed": request.is_closed(),
        "is_open": request.is_open(),
        "expires_at": null,
        "is_expired": false,
        "last_reply": null,
        "created_by": {"user": request.creator.to_string()},
        "receiver": receiver,
        "topic": {"record": request.topic},
    })
}

/// A request that the asking user may see.
fn seen<'a>(store: &'a Store, call: &Call) -> Result<&'a Request, Problem> {
    let id = &call.target.id;
    let uuid = id.len() == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let request = store.requests.0.get(id);
    let request = request.ok_or_else(|| {
        if uuid {
            Problem::no_result()
        } else {
            Problem::no_route()
        }
    })?;
    if !may_see(store, request, call.user) {
        return Err(Problem::denied());
    }
    Ok(request)
}

/// `GET /requests/{id}`
pub(crate) fn read(app: &App, call: &Call) -> Result<Reply, Failure> {
    let store = app.store.lock();
    let request = seen(&store, call)?;
    let mut shown = shown(app, &store, request, call.user);
    if expands(call) {
        shown["expanded"] = json!({"created_by": expanded_user(&request.creator.to_string())});
        if let Ok(community) = store.communities.find(&request.receiver.1) {
            shown["expanded"]["receiver"] =
                json!({"id": community.id, "slug": community.slug, "metadata": community.metadata});
        }
    }
    Ok(Reply::json(200, &shown))
}

/// Whether names are wanted beside ids.
fn expands(call: &Call) -> bool {
    call.param("expand")
        .is_some_and(|value| matches!(value, "1" | "true"))
}

/// A user with a name to be shown.
fn expanded_user(id: &str) -> Value {
    USERS
        .iter()
        .find(|user| user.id.to_string() == id)
        .map_or(Value::Null, |user| {
            json!({"id": id, "username": user.name, "profile": {"full_name": format!("{} Example", user.name)}})
        })
}

/// `GET /requests/` and `GET /user/requests`
pub(crate) fn search(app: &App, call: &Call) -> Result<Reply, Failure> {
    call.signed_in()?;
    let store = app.store.lock();
    list(app, &store, call, "/api/requests/", |_| true)
}

/// `GET /communities/{id}/requests`
pub(crate) fn of_community(app: &App, call: &Call) -> Result<Reply, Failure> {
    let store = app.store.lock();
    let community = store.communities.find(&call.target.id)?;
    // By its slug, nobody may.
    if !community.is_owned_by(call.user) || call.target.id != community.id {
        return Err(Problem::denied().into());
    }
    let id = community.id.clone();
    let path = format!("/api/communities/{}/requests", call.target.id);
    list(app, &store, call, &path, |request| request.receiver.1 == id)
}

pub(crate) fn list(
    app: &App,
    store: &Store,
    call: &Call,
    path: &str,
    wanted: impl Fn(&Request) -> bool,
) -> Result<Reply, Failure> {
    let query = Query::parse(call.param("q").unwrap_or_default());
    let open = call.param("is_open").map(|value| matches!(value, "true" | "1"));
    let mut found: Vec<&Request> = store
        .requests
        .all()
        .filter(|request| wanted(request) && may_see(store, request, call.user))
        .filter(|request| open.is_none_or(|open| request.is_open() == open))
        .filter(|request| {
            query.fits(&request.title.to_lowercase(), |field| match field {
                "status" => Some(request.status.to_string()),
                "type" => Some(request.kind.name().to_string()),
                "topic.record" => Some(request.topic.clone()),
                _ => None,
            })
        })
        .collect();
    let sort = sorted(
        call,
        &[
            "bestmatch",
            "newest",
            "oldest",
            "newestactivity",
            "oldestactivity",
        ],
    )?;
    found.sort_by_key(|request| std::cmp::Reverse(request.created));
    if sort.as_deref() == Some("oldest") {
        found.reverse();
    }
    let hits = found
        .into_iter()
        .map(|request| shown(app, store, request, call.user))
        .collect();
    page(app, call, path, hits)
}

/// `POST /requests/{id}/actions/{action}`
pub(crate) async fn act(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    const ALL: &[&str] = &[
        "accept",
        "cancel",
        "critique",
        "decline",
        "pending_resubmission",
        "resubmit",
        "review",
        "submit",
    ];
    let body = json!(call.json_object().await?);
    let mut store = app.store.lock();
    let request = seen(&store, call)?.clone();
    let (id, action) = (request.id.clone(), call.target.key.clone());
    let refused = |why: &str| Problem::new(400, format!("Error for action '{action}': {why}"));
    if !ALL.contains(&action.as_str()) {
        return Err(refused("No such action available").into());
    }
    let now = store.requests.0[&id].status;
    if !actions(&store, &request, call.user).contains(&action.as_str()) {
        let others = USERS
            .into_iter()
            .any(|user| actions(&store, &request, Some(user)).contains(&action.as_str()));
        return Err(if others {
            Problem::denied()
        } else {
            refused("Could not execute the action")
        }
        .into());
    }
    say(&mut store, &id, call.user, Some(&body));
    match action.as_str() {
        "accept" => accept(&mut store, &id, call.user)?,
        "submit" => set_status(&mut store, &id, "submitted"),
        other => {
            let (status, event) = match other {
                "decline" => ("declined", "declined"),
                "cancel" => ("cancelled", "cancelled"),
                "review" => ("review", "review"),
                "critique" => ("critiqued", "critiqued"),
                _ => ("resubmitted", "resubmitted"),
            };
            set_status(&mut store, &id, status);
            note(&mut store, &id, call.user, event);
        }
    }
    if action == "cancel" && request.kind == Kind::Submission && now != "cancelled" {
        for parent in store.parents.values_mut() {
            parent.review.take_if(|review| *review == id);
        }
    }
    Ok(Reply::json(
        200,
        &shown(app, &store, &store.requests[&id], call.user),
    ))
}

/// `GET /requests/{id}/timeline`: oldest first.
pub(crate) fn timeline(app: &App, call: &Call) -> Result<Reply, Failure> {
    let store = app.store.lock();
    let request = seen(&store, call)?;
    let hits = request
        .events
        .iter()
        .map(|event| {
            let mut shown = event_shown(app, request, event);
            if expands(call) {
                shown["expanded"] = json!({"created_by": expanded_user(&event.author)});
            }
            shown
        })
        .collect();
    page(app, call, &format!("/api/requests/{}/timeline", request.id), hits)
}

fn event_shown(app: &App, request: &Request, event: &Event) -> Value {
    json!({
        "id": event.id,
        "created": iso(event.at),
        "updated": iso(event.at),
        "links": {"self": format!("{}/api/requests/{}/comments/{}", app.site, request.id, event.id)},
        "revision_id": 1,
        "type": if event.is_comment() { "C" } else { "L" },
        "created_by": {"user": event.author},
        "parent_id": null,
        "payload": event.payload,
    })
}

/// `POST /requests/{id}/comments`
pub(crate) async fn comment(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    let payload = payload(json!(call.json_object().await?))?;
    let mut store = app.store.lock();
    let id = seen(&store, call)?.id.clone();
    let event = push(&mut store, &id, call.user, payload).ok_or_else(Problem::no_result)?;
    Ok(Reply::json(201, &event_shown(app, &store.requests[&id], &event)))
}

fn payload(body: Value) -> Result<Value, Problem> {
    match body.get("payload") {
        Some(payload) if payload.get("content").is_some() => {
            Ok(json!({"content": payload["content"], "format": "html"}))
        }
        _ => Err(Problem::invalid("payload", "Missing data for required field.")),
    }
}

/// `GET`, `PUT` and `DELETE /requests/{id}/comments/{comment}`
pub(crate) async fn one_comment(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    let body = match call.method {
        hyper::Method::PUT => Some(payload(json!(call.json_object().await?))?),
        _ => None,
    };
    let mut store = app.store.lock();
    let request = seen(&store, call)?.id.clone();
    let user = call.user.map(|user| user.id.to_string());
    let missing = || Problem::new(404, "Not found.");
    let events = &mut store.requests.0.get_mut(&request).ok_or_else(missing)?.events;
    let event = events
        .iter_mut()
        .find(|event| event.id == call.target.key)
        .ok_or_else(missing)?;
    let own = user.as_ref() == Some(&event.author);
    match (&call.method, body) {
        (&hyper::Method::PUT, Some(payload)) => {
            if !own || !event.is_comment() {
                return Err(Problem::new(403, "You do not have permission to update this comment.").into());
            }
            event.payload = payload;
        }
        (&hyper::Method::DELETE, _) => {
            if !own || !event.is_comment() {
                return Err(Problem::new(403, "You cannot delete this event.").into());
            }
            event.payload =
                json!({"event": "comment_deleted", "format": "html", "content": "deleted a comment"});
            return Ok(Reply::empty(204));
        }
        _ => {}
    }
    let event = event.clone();
    Ok(Reply::json(
        200,
        &event_shown(app, &store.requests[&request], &event),
    ))
}
