//! Access links: shares of a record or draft and all its versions with whoever has the token.

use hyper::Method;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::errors::{FieldError, Problem};
use crate::records::is_owner;
use crate::reply::{Call, Failure, Reply};
use crate::store::{Parent, Store, iso};

/// A link.
#[derive(Clone, Debug)]
pub(crate) struct AccessLink {
    pub number: u64,
    pub id: String,
    pub created: Timestamp,
    pub permission: String,
    pub description: String,
    pub expires: Option<String>,
    pub token: String,
}

impl AccessLink {
    fn shown(&self) -> Value {
        let mut shown = json!({"id": self.id, "created_at": iso(self.created), "permission": self.permission,
                               "description": self.description, "token": self.token});
        if let Some(day) = &self.expires {
            shown["expires_at"] = json!(day);
        }
        shown
    }
}

/// The number of the link with this token, if it is still good.
pub(crate) fn number_of(store: &Store, token: &str) -> Option<u64> {
    let links = store.parents.values().flat_map(|parent| &parent.links);
    links
        // It ends when its day begins.
        .filter(|link| link.expires.as_ref().is_none_or(|day| *day > today()))
        .find(|link| link.token == token)
        .map(|link| link.number)
}

fn today() -> String {
    Timestamp::now().strftime("%Y-%m-%d").to_string()
}

/// `GET …/access/links`
pub(crate) fn list(app: &App, call: &Call) -> Result<Reply, Failure> {
    let mut store = app.store.lock();
    let links: Vec<Value> = owned(&mut store, call)?
        .links
        .iter()
        .map(AccessLink::shown)
        .collect();
    let total = links.len();
    Ok(Reply::json(
        200,
        &json!({"hits": {"hits": links, "total": total}}),
    ))
}

/// `POST …/access/links`
pub(crate) async fn create(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    let body = call.json_object().await?;
    let mut store = app.store.lock();
    owned(&mut store, call)?;
    let (permission, expires, description) = parse(&body)?;
    let Some(permission) = permission else {
        return Err(Problem::invalid("permission", "An access permission level is required").into());
    };
    let (id, random, created) = (store.new_uuid(), store.new_uuid(), store.now());
    let number = store.next_number();
    let link = AccessLink {
        number,
        token: format!(
            "eyJhbGciOiJIUzUxMiJ9.{}.{}",
            random.replace('-', ""),
            id.replace('-', "_")
        ),
        id,
        created,
        permission,
        description: description.unwrap_or_default(),
        expires,
    };
    let shown = link.shown();
    owned(&mut store, call)?.links.push(link);
    Ok(Reply::json(201, &shown))
}

/// `GET …/access/links/{link}`
pub(crate) fn read(app: &App, call: &Call) -> Result<Reply, Failure> {
    let mut store = app.store.lock();
    let parent = owned(&mut store, call)?;
    Ok(Reply::json(200, &one(parent, &call.target.key)?.shown()))
}

/// `PATCH …/access/links/{link}`: the end can only come nearer.
pub(crate) async fn update(app: &App, call: &mut Call) -> Result<Reply, Failure> {
    let body = call.json_object().await?;
    let mut store = app.store.lock();
    let parent = owned(&mut store, call)?;
    let (permission, expires, description) = parse(&body)?;
    let link = one(parent, &call.target.key)?;
    if let Some(day) = expires {
        if link.expires.as_ref().is_some_and(|until| *until < day) {
            return Err(Problem::invalid("expires_at", "Cannot postpone expiration of links").into());
        }
        link.expires = Some(day);
    }
    if let Some(permission) = permission {
        link.permission = permission;
    }
    if let Some(description) = description {
        link.description = description;
    }
    Ok(Reply::json(200, &link.shown()))
}

/// `DELETE …/access/links/{link}`
pub(crate) fn delete(app: &App, call: &Call) -> Result<Reply, Failure> {
    let mut store = app.store.lock();
    let parent = owned(&mut store, call)?;
    let id = one(parent, &call.target.key)?.id.clone();
    parent.links.retain(|link| link.id != id);
    debug_assert_eq!(call.method, Method::DELETE);
    Ok(Reply::empty(204))
}

fn one<'a>(parent: &'a mut Parent, id: &str) -> Result<&'a mut AccessLink, Problem> {
    parent
        .links
        .iter_mut()
        .find(|link| link.id == id)
        .ok_or_else(|| Problem::new(404, "No secret link found with the given ID."))
}

/// What all versions of the record or draft share, for its owner.
fn owned<'a>(store: &'a mut Store, call: &Call) -> Result<&'a mut Parent, Problem> {
    let id = &call.target.id;
    let document = match store.records.get(id) {
        Some(record) => record,
        None => store.draft(id)?,
    };
    if !is_owner(store, document, call.user) {
        return Err(Problem::denied());
    }
    let parent = document.parent.clone();
    store.parents.get_mut(&parent).ok_or_else(Problem::unknown_id)
}

type Fields = (Option<String>, Option<String>, Option<String>);

fn parse(body: &Map<String, Value>) -> Result<Fields, Problem> {
    let mut errors = Vec::new();
    let permission = body.get("permission").and_then(Value::as_str);
    if permission.is_some_and(|name| !["view", "preview", "edit"].contains(&name)) {
        errors.push(FieldError::new(
            "permission",
            "Must be one of: view, preview, edit.",
        ));
    }
    let expires = body.get("expires_at").map(|day| day.as_str());
    match expires {
        None => {}
        Some(None) => errors.push(FieldError::new("expires_at", "Field may not be null.")),
        Some(Some(day)) if day.len() != 10 || day.parse::<jiff::civil::Date>().is_err() => {
            errors.push(FieldError::new("expires_at", "Not a valid date."));
        }
        Some(Some(day)) if *day <= *today() => {
            errors.push(FieldError::new(
                "expires_at",
                "Expiration date must be set to the future",
            ));
        }
        Some(Some(_)) => {}
    }
    if !errors.is_empty() {
        return Err(Problem::validation(&errors));
    }
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_string);
    Ok((text("permission"), text("expires_at"), text("description")))
}
