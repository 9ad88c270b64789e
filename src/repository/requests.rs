//! Requests: what one user asks of another or of a community, what may be done with it, and what was said of it.
//!
//! Called by `cli/`. Reviews of drafts and curations are requests too; what is their own is in `reviews` and `curations`.

use std::fmt;

use reqwest::{Method, Url};
use serde_json::{Map, Value, json};

use super::model::{RecordId, text_of};
use super::transport::{Ask, JSON, Repeat};
use super::urls::encode_part;
use super::{Listing, Repository, Search};
use crate::error::{Error, Kind, Result};

/// A request's UUID.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// Checks a UUID.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = text.len() == 36
            && text.char_indices().all(|(at, c)| match at {
                8 | 13 | 18 | 23 => c == '-',
                _ => c.is_ascii_hexdigit(),
            });
        fits.then(|| RequestId(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A request: the whole document, and what we read out of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// `community-submission`, `community-inclusion`, `rdm-curation` …
    pub kind: String,
    /// `created`, `submitted`, `accepted`, `declined`, `cancelled`; of a curation also `review`, `critiqued`,
    /// `resubmitted`.
    pub status: String,
    /// Whether somebody has yet to decide.
    pub is_open: bool,
    /// Its title; may be empty.
    pub title: String,
    /// The record or draft it is about.
    pub topic: Option<RecordId>,
    /// Who decides: the kind (`community`, `user`, `group`) and the id.
    pub receiver: Option<(String, String)>,
    /// What that one is called, if the server told.
    pub receiver_name: Option<String>,
    /// Who asks, if the server told.
    pub creator_name: Option<String>,
    /// What the user may do with it now, by the names that [`Repository::act_on_request`] takes. A list may leave it out.
    pub actions: Vec<String>,
    /// The document as the server sent it.
    pub document: Map<String, Value>,
}

impl Request {
    pub(super) fn from_value(value: Value) -> Option<Self> {
        let one_of = |name: &str| {
            let (kind, id) = value.get(name)?.as_object()?.iter().next()?;
            Some((kind.clone(), id.as_str()?.to_owned()))
        };
        let actions = value.pointer("/links/actions").and_then(Value::as_object);
        Some(Request {
            id: RequestId::new(value.get("id")?.as_str()?)?,
            kind: text_of(&value, "type").unwrap_or_default(),
            status: text_of(&value, "status").unwrap_or_default(),
            is_open: value.get("is_open").and_then(Value::as_bool).unwrap_or(false),
            title: text_of(&value, "title").unwrap_or_default(),
            topic: one_of("topic").and_then(|(_, id)| RecordId::new(&id)),
            receiver: one_of("receiver"),
            receiver_name: name_of(&value, "receiver"),
            creator_name: name_of(&value, "created_by"),
            actions: actions
                .into_iter()
                .flat_map(|actions| actions.keys())
                // Not for clients: the server does it by itself (API notes, section 9).
                .filter(|name| *name != "pending_resubmission")
                .cloned()
                .collect(),
            document: match value {
                Value::Object(document) => document,
                _ => return None,
            },
        })
    }

    /// Whether the user may do this with it now.
    #[must_use]
    pub fn allows(&self, action: &str) -> bool {
        self.actions.iter().any(|name| name == action)
    }
}

/// What somebody is called in an answer with `expand=1`: a user's name, or a community's slug and title.
fn name_of(value: &Value, role: &str) -> Option<String> {
    let who = value.get("expanded")?.get(role)?;
    let title = || text_of(who.get("metadata")?, "title");
    let full = || text_of(who.get("profile")?, "full_name").filter(|name| !name.is_empty());
    match (text_of(who, "slug"), title()) {
        (Some(slug), Some(title)) => Some(format!("{slug} ({title})")),
        (Some(slug), None) => Some(slug),
        _ => full().or_else(|| text_of(who, "username")),
    }
}

/// Which requests to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestFilter {
    /// All of them.
    #[default]
    All,
    /// Those that wait for a decision.
    Open,
    /// Those that are decided.
    Closed,
}

/// Something that happened to a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its id, by which a comment is changed.
    pub id: String,
    /// What happened (`accepted`, `review` …); `None` for a comment.
    pub event: Option<String>,
    /// What was said, in HTML, by whoever said it: to be cleaned before it is shown.
    pub content: String,
    /// The user's id, or `system`.
    pub author: String,
    /// What the user is called, if the server told.
    pub author_name: Option<String>,
    /// When, as the server writes it.
    pub created: String,
    /// The document as the server sent it.
    pub document: Map<String, Value>,
}

impl Event {
    fn from_value(value: Value) -> Option<Self> {
        let payload = value.get("payload").unwrap_or(&Value::Null);
        let author = value.get("created_by").and_then(Value::as_object);
        Some(Event {
            id: text_of(&value, "id")?,
            event: text_of(payload, "event"),
            content: text_of(payload, "content").unwrap_or_default(),
            author_name: name_of(&value, "created_by"),
            author: author
                .and_then(|by| by.values().next()?.as_str())
                .unwrap_or_default()
                .to_owned(),
            created: text_of(&value, "created").unwrap_or_default(),
            document: match value {
                Value::Object(document) => document,
                _ => return None,
            },
        })
    }
}

impl Repository {
    /// The requests that the user made or is to decide.
    ///
    /// # Errors
    /// `Denied` without a valid token, else as any request.
    pub fn user_requests(&self, search: &Search, filter: RequestFilter) -> Result<Listing<Request>> {
        self.list_requests("user/requests", search, filter, "list your requests")
    }

    /// All requests that the user may see.
    ///
    /// # Errors
    /// `Denied` without a valid token, else as any request.
    pub fn requests(&self, search: &Search, filter: RequestFilter) -> Result<Listing<Request>> {
        // Without the slash, a redirect.
        self.list_requests("requests/", search, filter, "search requests")
    }

    /// The requests to a community, by its UUID: by its slug, the server denies them to everybody (seen in version 14).
    ///
    /// # Errors
    /// `Denied` for whom it does not belong to, `NotFound`, else as any request.
    pub fn community_requests(
        &self,
        id: &str,
        search: &Search,
        filter: RequestFilter,
    ) -> Result<Listing<Request>> {
        let path = format!("communities/{}/requests", encode_part("community", id)?);
        self.list_requests(&path, search, filter, "list the requests to a community")
    }

    pub(super) fn list_requests(
        &self,
        path: &str,
        search: &Search,
        filter: RequestFilter,
        doing: &str,
    ) -> Result<Listing<Request>> {
        let more: &[(&str, &str)] = match filter {
            RequestFilter::All => &[],
            RequestFilter::Open => &[("is_open", "true")],
            RequestFilter::Closed => &[("is_open", "false")],
        };
        self.list(path, search, more, doing, Request::from_value)
    }

    /// A request, with what the user may do with it.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, else as any request.
    pub fn request(&self, id: &RequestId) -> Result<Request> {
        let doing = format!("read request {id}");
        self.one_request(Ask::get(self.request_url(id, "?expand=1")?, doing))
    }

    /// Does something with a request: `accept`, `decline`, `cancel`, `submit`; on a curation also `review`, `critique`,
    /// `resubmit`. The comment is plain text. Not repeated: after a passing failure, [`Repository::request`] shows whether
    /// it was done.
    ///
    /// # Errors
    /// `Refused` if its state does not allow it (what it allows stands in [`Request::actions`]) or there is no such action,
    /// `Denied` if it is not the user's part, `NotFound`, else as any request.
    pub fn act_on_request(&self, id: &RequestId, action: &str, comment: Option<&str>) -> Result<Request> {
        let doing = format!("{} request {id}", super::model::on_one_line(action));
        let action = encode_part("action", action)?;
        let url = self.request_url(id, &format!("/actions/{action}"))?;
        let mut ask = Ask::new(Method::POST, url, doing);
        if let Some(comment) = comment {
            ask = ask.body(&comment_payload(comment));
        }
        self.one_request(ask)
    }

    /// As [`Repository::act_on_request`], and makes sure of it: when the answer is lost (504, a reset), as it may be when
    /// accepting publishes a large draft, the server is asked whether it was done.
    ///
    /// # Errors
    /// As [`Repository::act_on_request`]. After a lost answer, the request was as before each time it was looked at.
    pub fn act_on_request_for_sure(
        &self,
        before: &Request,
        action: &str,
        comment: Option<&str>,
    ) -> Result<Request> {
        let error = match self.act_on_request(&before.id, action, comment) {
            Err(error) if error.kind().is_passing() && error.kind() != Kind::RateLimited => error,
            outcome => return outcome,
        };
        log::warn!("{error}; looking whether it was done nevertheless");
        let changed = || {
            let now = self.request(&before.id).ok()?;
            (now.status != before.status).then_some(now)
        };
        if let Some(now) = self.look_for(&error, changed) {
            return Ok(now);
        }
        let mut advice = format!(
            "It was not done so far. Look again in a minute: rdmfs requests show {}",
            before.id
        );
        // Servers fail with 500 at what publishing a draft would refuse with a field (seen in version 14).
        if let Some(id) = before.topic.as_ref().filter(|_| action == "accept") {
            advice.push_str(&format!(
                ". If it stays so, look whether the draft can be published: rdmfs check {id}"
            ));
        }
        Err(error.with_advice(advice))
    }

    /// What happened to a request and what was said of it, oldest first.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, else as any request.
    pub fn request_timeline(&self, id: &RequestId, search: &Search) -> Result<Listing<Event>> {
        let path = format!("requests/{id}/timeline");
        let doing = format!("read what was said of request {id}");
        self.list(&path, search, &[("expand", "1")], &doing, Event::from_value)
    }

    /// Says something of a request, in plain text. Not repeated.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, else as any request.
    pub fn comment_on_request(&self, id: &RequestId, text: &str) -> Result<Event> {
        let url = self.request_url(id, "/comments")?;
        let doing = format!("comment on request {id}");
        self.one_event(Ask::new(Method::POST, url, doing).body(&comment_payload(text)))
    }

    /// Changes one's own comment.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, else as any request.
    pub fn update_comment(&self, id: &RequestId, comment: &str, text: &str) -> Result<Event> {
        let url = self.comment_url(id, comment)?;
        let doing = format!("change a comment on request {id}");
        let ask = Ask::new(Method::PUT, url, doing)
            .body(&comment_payload(text))
            .repeat(Repeat::Safe);
        self.one_event(ask)
    }

    /// Deletes one's own comment. That there was one stays in the timeline.
    ///
    /// # Errors
    /// `Denied` (of one that is deleted too), `NotFound`, else as any request.
    pub fn delete_comment(&self, id: &RequestId, comment: &str) -> Result<()> {
        let url = self.comment_url(id, comment)?;
        let doing = format!("delete a comment on request {id}");
        self.ask(Ask::new(Method::DELETE, url, doing).accept(JSON))
            .map(drop)
    }

    pub(super) fn one_request(&self, ask: Ask) -> Result<Request> {
        let doing = ask.doing.clone();
        Request::from_value(self.ask(ask.accept(JSON))?.value).ok_or_else(|| {
            Error::new(
                Kind::ServerFailed,
                format!("can't {doing}: the answer is JSON, but no request"),
            )
        })
    }

    fn one_event(&self, ask: Ask) -> Result<Event> {
        let doing = ask.doing.clone();
        Event::from_value(self.ask(ask.accept(JSON))?.value).ok_or_else(|| {
            Error::new(
                Kind::ServerFailed,
                format!("can't {doing}: the answer is JSON, but no comment"),
            )
        })
    }

    fn request_url(&self, id: &RequestId, rest: &str) -> Result<Url> {
        self.transport.base.api(&format!("requests/{id}{rest}"))
    }

    fn comment_url(&self, id: &RequestId, comment: &str) -> Result<Url> {
        let comment = encode_part("comment", comment)?;
        self.request_url(id, &format!("/comments/{comment}"))
    }
}

/// Plain text as the server wants comments: in HTML, a paragraph for each line.
pub(super) fn comment_payload(text: &str) -> Value {
    let paragraphs: String = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| format!("<p>{}</p>", escaped(line.trim())))
        .collect();
    json!({"payload": {"content": paragraphs, "format": "html"}})
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_what_was_typed_and_no_markup() {
        assert_eq!(
            comment_payload("a < b & c\n\n <script>"),
            json!({"payload": {"content": "<p>a &lt; b &amp; c</p><p>&lt;script&gt;</p>", "format": "html"}})
        );
    }

    #[test]
    fn a_request_is_named_by_a_uuid_and_nothing_else() {
        assert!(RequestId::new("43b14e4f-05eb-4903-87b6-b80b225383ed").is_some());
        for bad in [
            "",
            "nope",
            "43b14e4f-05eb-4903-87b6-b80b225383e/",
            "43b14e4f_05eb_4903_87b6_b80b225383ed",
        ] {
            assert!(RequestId::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_may_be_done_is_what_the_links_say() {
        let request = Request::from_value(json!({
            "id": "43b14e4f-05eb-4903-87b6-b80b225383ed", "status": "accepted", "type": "rdm-curation",
            "topic": {"record": "abcde-12345"}, "receiver": {"group": "reviewer"},
            "links": {"actions": {"cancel": "…", "pending_resubmission": "…"}},
        }))
        .unwrap();
        assert_eq!(request.actions, ["cancel"]);
        assert!(request.allows("cancel") && !request.allows("accept"));
        assert_eq!(request.topic.unwrap().as_str(), "abcde-12345");
        assert_eq!(
            request.receiver.unwrap(),
            ("group".to_owned(), "reviewer".to_owned())
        );
    }
}
