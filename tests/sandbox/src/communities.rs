//! Communities: documents, logos, and which records are in them.

use std::collections::HashMap;

use bytes::Bytes;
use hyper::header;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::app::{App, User};
use crate::errors::{FieldError, Problem, field_errors};
use crate::lists;
use crate::query::Query;
use crate::records::{is_owner, may_read};
use crate::reply::{Call, Failure, Reply};
use crate::requests::{self, Kind};
use crate::settings::Flavour;
use crate::store::{Parent, Store, iso};

const MISSING: &str = "Missing data for required field.";
const BAD_SLUG: &str = "The identifier should contain only letters, numbers, or dashes.";
const LARGEST_LOGO: usize = 1_000_000;

/// All communities by UUID.
#[derive(Default)]
pub(crate) struct Communities(HashMap<String, Community>);

/// A community.
#[derive(Clone)]
pub(crate) struct Community {
    pub id: String,
    pub slug: String,
    pub created: Timestamp,
    pub updated: Timestamp,
    pub revision: u64,
    pub metadata: Value,
    pub access: Value,
    pub owner: u32,
    pub logo: Option<Bytes>,
    pub deleted: bool,
}

impl Community {
    /// Records of its owner are let in without a review.
    pub fn is_open(&self) -> bool {
        self.access["review_policy"] == "open"
    }

    pub fn is_owned_by(&self, user: Option<User>) -> bool {
        user.is_some_and(|user| user.id == self.owner)
    }
}

impl Communities {
    /// A community by its UUID or slug; 410 if it was deleted.
    pub fn find(&self, name: &str) -> Result<&Community, Problem> {
        let found = match self.0.get(name) {
            Some(found) => Some(found),
            None => self
                .0
                .values()
                .filter(|community| community.slug == name)
                .min_by_key(|community| community.deleted),
        };
        match found {
            Some(community) if community.deleted => Err(Problem::new(410, "The record has been deleted.")),
            Some(community) => Ok(community),
            None => Err(Problem::unknown_id()),
        }
    }

    pub fn readable(&self, name: &str, user: Option<User>) -> Result<&Community, Problem> {
        let community = self.find(name)?;
        if community.access["visibility"] == "restricted" && !community.is_owned_by(user) {
            return Err(Problem::denied());
        }
        Ok(community)
    }

    fn owned(&mut self, name: &str, user: Option<User>) -> Result<&mut Community, Problem> {
        let community = self.find(name)?;
        if !community.is_owned_by(user) {
            return Err(Problem::denied());
        }
        let id = community.id.clone();
        self.0.get_mut(&id).ok_or_else(Problem::unknown_id)
    }
}

/// `parent.communities` of a record.
pub(crate) fn of_parent(store: &Store, parent: &Parent) -> Value {
    if parent.communities.is_empty() {
        return json!({});
    }
    let entries = parent
        .communities
        .iter()
        .filter_map(|id| store.communities.0.get(id));
    let entries: Vec<Value> = entries
        .map(|one| json!({"id": one.id, "slug": one.slug, "metadata": one.metadata, "access": one.access}))
        .collect();
    json!({"ids": parent.communities, "default": parent.communities[0], "entries": entries})
}

fn shown(app: &App, community: &Community) -> Value {
    let url = format!("{}/api/communities/{}", app.site, community.id);
    let page = format!("{}/communities/{}", app.site, community.slug);
    json!({
        "id": community.id,
        "created": iso(community.created),
        "updated": iso(community.updated),
        "links": {"self": url, "self_html": format!("{page}/"), "settings_html": format!("{page}/settings"),
                  "logo": format!("{url}/logo"), "rename": format!("{url}/rename"), "members": format!("{url}/members"),
                  "requests": format!("{url}/requests"), "records": format!("{url}/records")},
        "revision_id": community.revision,
        "slug": community.slug,
        "metadata": community.metadata,
        "access": community.access,
        "custom_fields": {},
        "deletion_status": {"is_deleted": false, "status": "P"},
        "children": {"allow": false},
    })
}

/// `GET /communities`
pub(crate) fn search(app: &App, call: &Call) -> Result<Reply, Failure> {
    let store = app.store.lock();
    list(app, call, &store, "/api/communities", |community| {
        community.access["visibility"] == "public" || community.is_owned_by(call.user)
    })
}

/// `GET /user/communities`
pub(crate) fn of_user(app: &App, call: &Call) -> Result<Reply, Failure> {
    call.signed_in()?;
    let store = app.store.lock();
    list(app, call, &store, "/api/user/communities", |community| {
        community.is_owned_by(call.user)
    })
}

/// `GET /records/{id}/communities`
pub(crate) fn of_record(app: &App, call: &Call) -> Result<Reply, Failure> {
    let store = app.store.lock();
    let record = store.record(&call.target.id)?;
    if !may_read(&store, record, call.user) {
        return Err(Problem::denied().into());
    }
    let ids = store.parent_of(record).communities.clone();
    list(app, call, &store, "/api/communities", |community| {
        ids.contains(&community.id)
    })
}

fn list(
    app: &App,
    call: &Call,
    store: &Store,
    path: &str,
    mut wanted: impl FnMut(&Community) -> bool,
) -> Result<Reply, Failure> {
    let query = Query::parse(call.param("q").unwrap_or_default());
    let mut found: Vec<&Community> = store
        .communities
        .0
        .values()
        .filter(|one| !one.deleted && wanted(one))
        .filter(|one| {
            let text = format!("{} {}", one.slug, one.metadata).to_lowercase();
            query.fits(&text, |field| match field {
                "slug" => Some(one.slug.clone()),
                "id" => Some(one.id.clone()),
                "metadata.title" => one.metadata["title"].as_str().map(str::to_string),
                _ => None,
            })
        })
        .collect();
    let sort = lists::sorted(
        call,
        &["bestmatch", "newest", "oldest", "updated-desc", "updated-asc"],
    )?;
    found.sort_by_key(|one| std::cmp::Reverse(one.created));
    if sort.as_deref() == Some("oldest") {
        found.reverse();
    }
    let hits = found.into_iter().map(|one| shown(app, one)).collect();
    lists::page(app, call, path, hits)
}

/// `POST /communities`
pub(crate) async fn create(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    let body = call.json_object().await?;
    let flavour = app.knobs.lock().flavour;
    let user = call.signed_in()?;
    if flavour == Flavour::TuWien {
        return Err(Problem::denied().into());
    }
    let mut store = app.store.lock();
    let mut errors = Vec::new();
    let slug = slug_of(&body, &mut errors);
    let (metadata, access) = check(&body, flavour, &mut errors)?;
    refuse(&store, &slug, errors)?;
    let (id, now) = (store.new_uuid(), store.now());
    let community = Community {
        id: id.clone(),
        slug,
        created: now,
        updated: now,
        revision: 2,
        metadata,
        access,
        owner: user.id,
        logo: None,
        deleted: false,
    };
    let reply = Reply::json(201, &shown(app, &community));
    store.communities.0.insert(id, community);
    Ok(reply)
}

/// `GET /communities/{id}`
pub(crate) fn read(app: &App, call: &Call) -> Result<Reply, Failure> {
    let store = app.store.lock();
    let community = store.communities.readable(&call.target.id, call.user)?;
    Ok(Reply::json(200, &shown(app, community)))
}

/// `PUT /communities/{id}`: everything but the slug.
pub(crate) async fn update(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    let body = call.json_object().await?;
    let flavour = app.knobs.lock().flavour;
    let wanted = call
        .header(header::IF_MATCH)
        .map(|value| {
            value
                .parse::<u64>()
                .map_err(|_| Problem::invalid("if_match", "Not a valid integer."))
        })
        .transpose()?;
    let mut store = app.store.lock();
    let now = store.now();
    let community = store.communities.owned(&call.target.id, call.user)?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != community.revision) {
        let message = format!(
            "Revision id provided({wanted}) doesn't match record's one({})",
            community.revision
        );
        return Err(Problem::new(412, message).into());
    }
    let mut errors = Vec::new();
    let slug = slug_of(&body, &mut errors);
    let (metadata, access) = check(&body, flavour, &mut errors)?;
    if errors.is_empty() && slug != community.slug {
        let message = "The ID should be modified through the renaming URL instead.";
        errors.push(FieldError::new("slug", message));
    }
    if !errors.is_empty() {
        return Err(Problem::validation(&errors).into());
    }
    (community.metadata, community.access) = (metadata, access);
    community.revision += 1;
    community.updated = now;
    Ok(Reply::json(200, &shown(app, community)))
}

/// `DELETE /communities/{id}`
pub(crate) fn delete(app: &App, call: &Call) -> Result<Reply, Failure> {
    let mut store = app.store.lock();
    let id = store.communities.owned(&call.target.id, call.user)?.id.clone();
    let open = store.requests.open_for_community(&id);
    if open > 0 {
        let message = format!(
            "There {} {open} request{} open for this community. Please, resolve {} before deleting this community.",
            if open == 1 { "is" } else { "are" },
            if open == 1 { "" } else { "s" },
            if open == 1 { "it" } else { "them" },
        );
        return Err(Problem::new(400, message).into());
    }
    store.communities.owned(&id, call.user)?.deleted = true;
    for parent in store.parents.values_mut() {
        parent.communities.retain(|one| *one != id);
    }
    Ok(Reply::empty(204))
}

/// `POST /communities/{id}/rename`
pub(crate) async fn rename(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    let body = call.json_object().await?;
    let mut store = app.store.lock();
    store.communities.owned(&call.target.id, call.user)?;
    let mut errors = Vec::new();
    let slug = slug_of(&body, &mut errors);
    refuse(&store, &slug, errors)?;
    let now = store.now();
    let community = store.communities.owned(&call.target.id, call.user)?;
    community.slug = slug;
    community.revision += 1;
    community.updated = now;
    Ok(Reply::json(200, &shown(app, community)))
}

/// `GET /communities/{id}/logo`: the bytes.
pub(crate) fn logo(app: &App, call: &Call) -> Result<Reply, Failure> {
    let store = app.store.lock();
    let community = store.communities.readable(&call.target.id, call.user)?;
    let logo = community.logo.clone().ok_or_else(no_logo)?;
    Ok(Reply::new(200, "application/octet-stream", logo))
}

fn no_logo() -> Problem {
    Problem::new(404, "No logo exists for this community.")
}

/// `PUT /communities/{id}/logo`
pub(crate) async fn put_logo(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    let body = call.body.collect().await?;
    let mut store = app.store.lock();
    let community = store.communities.owned(&call.target.id, call.user)?;
    if body.len() > LARGEST_LOGO {
        let given = body.len() as f64 / 1e6;
        let message = format!("Logo size limit exceeded. Limit: 1.00 MB Given: {given:.2} MB");
        return Err(Problem::new(400, message).into());
    }
    let size = body.len();
    community.logo = Some(body.into());
    community.revision += 1;
    let shown =
        json!({"key": "logo", "size": size, "status": "completed", "mimetype": "application/octet-stream"});
    Ok(Reply::json(200, &shown))
}

/// `DELETE /communities/{id}/logo`
pub(crate) fn delete_logo(app: &App, call: &Call) -> Result<Reply, Failure> {
    let mut store = app.store.lock();
    let community = store.communities.owned(&call.target.id, call.user)?;
    community.logo.take().ok_or_else(no_logo)?;
    Ok(Reply::empty(204))
}

/// `POST /records/{id}/communities`: a request for each, accepted at once where the policy allows it.
pub(crate) async fn add(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    let names = names_in(&call.json_object().await?)?;
    let mut store = app.store.lock();
    let record = store.record(&call.target.id)?;
    if !is_owner(&store, record, call.user) {
        return Err(Problem::denied().into());
    }
    let (id, title) = (record.id.clone(), record.title().to_string());
    let parent = record.parent.clone();
    let (mut processed, mut errors) = (Vec::new(), Vec::new());
    for (name, comment) in names {
        let refused = |message: &str| json!({"community_id": name, "message": message});
        let Ok(community) = store.communities.find(&name).cloned() else {
            errors.push(refused("Community not found."));
            continue;
        };
        if store.parents[&parent].communities.contains(&community.id) {
            errors.push(refused("The record is already included in this community."));
            continue;
        }
        if store.requests.open_inclusion(&id, &community.id) {
            errors.push(refused(
                "There is already an open inclusion request for this community.",
            ));
            continue;
        }
        let receiver = ("community", community.id.as_str());
        let request = requests::make(&mut store, Kind::Inclusion, call.user, receiver, &id, &title);
        requests::submit(&mut store, &request, call.user, comment.as_ref());
        if community.is_open() && community.is_owned_by(call.user) {
            requests::accept(&mut store, &request, None)?;
        }
        let shown = requests::shown(app, &store, &store.requests[&request], call.user);
        processed.push(json!({"community_id": name, "request_id": request, "request": shown}));
    }
    let mut body = json!({});
    if !processed.is_empty() {
        body["processed"] = json!(processed);
    }
    if !errors.is_empty() {
        body["errors"] = json!(errors);
    }
    Ok(Reply::json(if processed.is_empty() { 400 } else { 200 }, &body))
}

/// `DELETE /records/{id}/communities`
pub(crate) async fn take(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    let names = names_in(&call.json_object().await?)?;
    let mut store = app.store.lock();
    let record = store.record(&call.target.id)?;
    if !is_owner(&store, record, call.user) {
        return Err(Problem::denied().into());
    }
    let (id, parent) = (record.id.clone(), record.parent.clone());
    let (mut processed, mut errors) = (Vec::new(), Vec::new());
    for (name, _) in names {
        let members = store
            .parents
            .get_mut(&parent)
            .map(|parent| &mut parent.communities);
        // By their UUIDs alone, unlike when they are added.
        match members {
            Some(members) if members.contains(&name) => {
                members.retain(|one| *one != name);
                processed.push(json!({"community": name}));
            }
            _ => {
                let message = format!("The record {id} in not included in the community {name}.");
                errors.push(json!({"community": name, "message": message}));
            }
        }
    }
    store.changed(&id, false);
    let mut body = json!({"processed": processed});
    if !errors.is_empty() {
        body = json!({"errors": errors});
    }
    Ok(Reply::json(if processed.is_empty() { 400 } else { 200 }, &body))
}

fn names_in(body: &Map<String, Value>) -> Result<Vec<(String, Option<Value>)>, Problem> {
    let list = body.get("communities").and_then(Value::as_array);
    let names: Vec<(String, Option<Value>)> = list
        .into_iter()
        .flatten()
        .filter_map(|one| Some((one["id"].as_str()?.to_string(), one.get("comment").cloned())))
        .collect();
    match names.len() {
        0 => Err(Problem::invalid("communities", "Shorter than minimum length 1.")),
        1..=10 => Ok(names),
        _ => Err(Problem::invalid("communities", "Longer than maximum length 10.")),
    }
}

/// The errors, or that the slug is taken, if so.
fn refuse(store: &Store, slug: &str, mut errors: Vec<FieldError>) -> Result<(), Problem> {
    if errors.is_empty() && store.communities.0.values().any(|one| one.slug == slug) {
        let taken = "A community with this identifier already exists.";
        errors.push(FieldError::new("slug", taken));
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Problem::validation(&errors)),
    }
}

fn slug_of(body: &Map<String, Value>, errors: &mut Vec<FieldError>) -> String {
    let Some(slug) = body.get("slug").and_then(Value::as_str) else {
        errors.push(FieldError::new("slug", MISSING));
        return String::new();
    };
    let fits = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    if slug.is_empty() || slug.len() > 100 || !slug.chars().all(fits) {
        errors.push(FieldError::new("slug", BAD_SLUG));
    }
    slug.to_lowercase()
}

fn check(
    body: &Map<String, Value>,
    flavour: Flavour,
    errors: &mut Vec<FieldError>,
) -> Result<(Value, Value), Problem> {
    const LENGTH: &str = "Field cannot be blank or longer than 250 characters.";
    let mut metadata = json!({});
    match body.get("metadata") {
        Some(given @ Value::Object(_)) => {
            match given["title"].as_str() {
                None => errors.push(FieldError::new("metadata.title", MISSING)),
                Some(title) if title.trim().is_empty() || title.chars().count() > 250 => {
                    errors.push(FieldError::new("metadata.title", LENGTH));
                }
                Some(_) => {}
            }
            if given["description"]
                .as_str()
                .is_some_and(|text| text.chars().count() > 250)
            {
                errors.push(FieldError::new("metadata.description", LENGTH));
            }
            metadata = given.clone();
        }
        _ => errors.push(FieldError::new("metadata", MISSING)),
    }
    let mut access = json!({
        "visibility": "public", "members_visibility": "public", "member_policy": "closed", "review_policy": "closed"});
    let policy = if flavour == Flavour::V12 {
        "record_policy"
    } else {
        "record_submission_policy"
    };
    access[policy] = json!("open");
    match body.get("access") {
        Some(Value::Object(given)) => {
            if !matches!(
                given.get("visibility").and_then(Value::as_str),
                Some("public" | "restricted")
            ) {
                errors.push(FieldError::new(
                    "access.visibility",
                    "Must be one of: public, restricted.",
                ));
            }
            for (name, value) in given {
                if access.get(name).is_none() {
                    errors.push(FieldError::new(format!("access.{name}"), "Unknown field."));
                }
                access[name] = value.clone();
            }
        }
        _ => errors.push(FieldError::new("access", MISSING)),
    }
    let kind = metadata["type"]["id"].as_str();
    if errors.is_empty()
        && kind.is_some_and(|kind| !["organization", "event", "topic", "project"].contains(&kind))
    {
        return Err(Problem::new(400, "Not a valid value."));
    }
    debug_assert!(field_errors(errors).is_array());
    Ok((metadata, access))
}
