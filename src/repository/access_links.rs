//! Access links: shares of one record, all its versions and drafts, with whoever has the link.
//!
//! Called by `cli/` (making them) and with `Repository::connect_with_link` (using one). A link's token is a secret like a
//! user's: it goes only to the repository's own origin, and into no log or error.

use std::fmt;

use reqwest::{Method, Url};
use serde_json::{Map, Value, json};

use super::Repository;
use super::model::{RecordId, text_of};
use super::transport::{Ask, JSON, Repeat};
use super::urls::{Base, encode_part};
use crate::error::{Error, Kind, Result};

/// The secret in a link.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkToken(String);

impl LinkToken {
    /// Takes a token as it stands in a link.
    ///
    /// # Errors
    /// `Usage` for what no link holds. The message doesn't repeat it.
    pub fn new(text: &str) -> Result<Self> {
        let fits = (1..=4096).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.~=+/".contains(&b));
        if fits {
            return Ok(LinkToken(text.to_owned()));
        }
        Err(Error::new(Kind::Usage, "the link holds no token that can be one")
            .with_advice("Give the whole link as it was sent to you, with ?token=… in it."))
    }

    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for LinkToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkToken(…)")
    }
}

/// A link to a shared record, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedLink {
    /// The repository's address.
    pub url: String,
    /// The record or draft it leads to.
    pub id: RecordId,
    /// Its secret.
    pub token: LinkToken,
}

impl SharedLink {
    /// The address in its shortest form, with the secret in it: links that lead to the same by the same secret have the
    /// same one.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}/records/{}?token={}", self.url, self.id, self.token.secret())
    }

    /// Reads `https://repository/records/ID?token=…`, also with `/api`, `uploads` or `preview=1`.
    ///
    /// # Errors
    /// `Usage` if it is no such link. The message doesn't repeat it.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &'static str| {
            Error::new(Kind::Usage, why).with_advice(
                "Give the whole link as it was sent to you, such as https://repository/records/abcde-12345?token=….",
            )
        };
        let url =
            Url::parse(text.trim()).map_err(|_| wrong("the link to the shared record is no web address"))?;
        let path = url.path().to_owned();
        let (before, rest) = ["/records/", "/uploads/"]
            .iter()
            .find_map(|part| path.split_once(part))
            .ok_or_else(|| wrong("the link leads to no record"))?;
        let id = rest.split('/').next().unwrap_or_default();
        let id = RecordId::new(id).ok_or_else(|| wrong("the link leads to no record"))?;
        let token = url
            .query_pairs()
            .find(|(name, _)| name == "token")
            .ok_or_else(|| wrong("the link holds no token"))?
            .1
            .into_owned();
        let mut base = url.clone();
        base.set_path(before);
        let base = Base::parse(base.as_str())?;
        Ok(SharedLink {
            url: base.as_str().to_owned(),
            id,
            token: LinkToken::new(&token)?,
        })
    }
}

/// What a link lets its holder do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Read the published versions and their files.
    View,
    /// Read drafts too.
    Preview,
    /// Change drafts too.
    Edit,
}

impl Permission {
    /// The server's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Permission::View => "view",
            Permission::Preview => "preview",
            Permission::Edit => "edit",
        }
    }

    /// Reads the server's name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Permission::View, Permission::Preview, Permission::Edit]
            .into_iter()
            .find(|permission| permission.name() == name)
    }
}

/// A link that is there.
#[derive(Clone, Debug)]
pub struct AccessLink {
    /// Its id, which is no secret.
    pub id: String,
    /// What it lets its holder do. `None` for what only the server knows.
    pub permission: Option<Permission>,
    /// The day when it ends, at 00:00 UTC, such as `2030-01-01`; it never does without.
    pub expires: Option<String>,
    /// What its owner noted.
    pub description: String,
    /// When it was made, as the server writes it.
    pub created: String,
    /// Its secret.
    pub token: Option<LinkToken>,
    /// The document, without the secret.
    pub document: Map<String, Value>,
}

/// A link to be made.
#[derive(Clone, Debug)]
pub struct NewLink<'a> {
    /// What it lets its holder do.
    pub permission: Permission,
    /// The day when it ends, as `YYYY-MM-DD`: the server makes it 00:00 UTC of that day (invenio-rdm-records,
    /// `SecretLink.create`).
    pub expires: Option<&'a str>,
    /// A note to oneself.
    pub description: &'a str,
}

/// A change of a link: what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct LinkChange<'a> {
    /// What it lets its holder do.
    pub permission: Option<Permission>,
    /// An earlier day; a later one is refused.
    pub expires: Option<&'a str>,
    /// The note.
    pub description: Option<&'a str>,
}

impl Repository {
    /// Makes a link to a record or draft. Not repeated: after a passing failure it may exist, and
    /// [`Repository::access_links`] shows it.
    ///
    /// # Errors
    /// `Refused` with the fields (a day that has begun or is none), `Denied` for whom it does not belong to, `NotFound`, else
    /// as any request.
    pub fn create_access_link(&self, id: &RecordId, new: &NewLink<'_>) -> Result<AccessLink> {
        let doing = format!("share {id}");
        let mut body = json!({"permission": new.permission.name()});
        if let Some(day) = new.expires {
            body["expires_at"] = json!(day);
        }
        if !new.description.is_empty() {
            body["description"] = json!(new.description);
        }
        let ask = Ask::new(Method::POST, self.links_url(id, None)?, doing.as_str())
            .accept(JSON)
            .body(&body);
        read_link(self.ask(ask)?.value).ok_or_else(|| no_link(&doing))
    }

    /// All links to a record or draft: they count for all its versions.
    ///
    /// # Errors
    /// `Denied` for whom it does not belong to, `NotFound`, else as any request.
    pub fn access_links(&self, id: &RecordId) -> Result<Vec<AccessLink>> {
        let doing = format!("list the links to {id}");
        let answer = self.ask(Ask::get(self.links_url(id, None)?, doing.as_str()).accept(JSON))?;
        match answer.value.pointer("/hits/hits").cloned() {
            Some(Value::Array(links)) => Ok(links.into_iter().filter_map(read_link).collect()),
            _ => Err(no_link(&doing)),
        }
    }

    /// One link.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, else as any request.
    pub fn access_link(&self, id: &RecordId, link: &str) -> Result<AccessLink> {
        let doing = format!("read a link to {id}");
        let answer = self.ask(Ask::get(self.links_url(id, Some(link))?, doing.as_str()).accept(JSON))?;
        read_link(answer.value).ok_or_else(|| no_link(&doing))
    }

    /// Changes a link. Its end can only come nearer.
    ///
    /// # Errors
    /// `Refused` with the fields, `NotFound`, `Denied`, else as any request.
    pub fn update_access_link(
        &self,
        id: &RecordId,
        link: &str,
        change: &LinkChange<'_>,
    ) -> Result<AccessLink> {
        let doing = format!("change a link to {id}");
        let mut body = json!({});
        if let Some(permission) = change.permission {
            body["permission"] = json!(permission.name());
        }
        if let Some(day) = change.expires {
            body["expires_at"] = json!(day);
        }
        if let Some(description) = change.description {
            body["description"] = json!(description);
        }
        let ask = Ask::new(Method::PATCH, self.links_url(id, Some(link))?, doing.as_str())
            .accept(JSON)
            .body(&body)
            .repeat(Repeat::Safe);
        read_link(self.ask(ask)?.value).ok_or_else(|| no_link(&doing))
    }

    /// Revokes a link: its holders are strangers again.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, else as any request.
    pub fn revoke_access_link(&self, id: &RecordId, link: &str) -> Result<()> {
        let url = self.links_url(id, Some(link))?;
        let mut ask = Ask::new(Method::DELETE, url, format!("revoke a link to {id}"))
            .accept(JSON)
            .repeat(Repeat::Safe);
        ask.gone_is_done = true;
        self.ask(ask).map(drop)
    }

    /// The address to send to those who shall have it, with the secret in it. `draft` leads to the preview of a draft.
    #[must_use]
    pub fn shared_address(&self, id: &RecordId, token: &LinkToken, draft: bool) -> String {
        let preview = if draft { "&preview=1" } else { "" };
        format!("{}/records/{id}?token={}{preview}", self.url(), token.secret())
    }

    fn links_url(&self, id: &RecordId, link: Option<&str>) -> Result<Url> {
        let mut path = format!("records/{id}/access/links");
        if let Some(link) = link {
            path.push('/');
            path.push_str(&encode_part("link", link)?);
        }
        self.transport.base.api(&path)
    }
}

fn read_link(value: Value) -> Option<AccessLink> {
    let Value::Object(mut document) = value else {
        return None;
    };
    let token = document
        .remove("token")
        .and_then(|token| LinkToken::new(token.as_str()?).ok());
    let value = Value::Object(document);
    let link = AccessLink {
        id: text_of(&value, "id")?,
        permission: text_of(&value, "permission").and_then(|name| Permission::named(&name)),
        expires: text_of(&value, "expires_at").filter(|day| !day.is_empty()),
        description: text_of(&value, "description").unwrap_or_default(),
        created: text_of(&value, "created_at").unwrap_or_default(),
        token,
        document: match value {
            Value::Object(document) => document,
            _ => Map::new(),
        },
    };
    Some(link)
}

fn no_link(doing: &str) -> Error {
    Error::new(
        Kind::ServerFailed,
        format!("can't {doing}: the answer is JSON, but no link"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Server, answer, quick};
    use super::super::{Settings, Token};
    use super::*;

    #[test]
    fn a_link_is_read_in_the_forms_people_send() {
        for text in [
            "https://example.org/records/abcde-12345?token=a.b-c_d",
            " https://example.org/records/abcde-12345?preview=1&token=a.b-c_d#x ",
            "https://example.org/uploads/abcde-12345?token=a.b-c_d",
            "https://example.org/api/records/abcde-12345/draft?token=a.b-c_d",
        ] {
            let link = SharedLink::parse(text).unwrap();
            assert_eq!(link.url, "https://example.org", "{text}");
            assert_eq!(link.id.as_str(), "abcde-12345");
            assert_eq!(link.token.secret(), "a.b-c_d");
            assert!(!format!("{link:?}").contains("a.b-c_d"));
            assert_eq!(
                link.address(),
                "https://example.org/records/abcde-12345?token=a.b-c_d"
            );
            assert_eq!(SharedLink::parse(&link.address()).unwrap(), link);
        }
    }

    #[test]
    fn what_is_no_link_is_refused_without_repeating_it() {
        for text in [
            "s3cret",
            "https://example.org/records/abcde-12345",
            "https://example.org/?token=s3cret",
            "https://example.org/records/..?token=s3cret",
            "https://example.org/records/abcde-12345?token=s3cret%0a",
        ] {
            let error = SharedLink::parse(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{text}");
            assert!(!error.to_string().contains("s3cret"));
        }
    }

    #[test]
    fn the_token_goes_with_what_is_about_records_and_to_no_other_origin() {
        let elsewhere = Server::start(|_, _, stream| answer(stream, 200, "Content-Length: 1\r\n", b"x"));
        let there = format!("Location: {}/bucket/data?sig=1\r\n", elsewhere.url);
        let server = Server::start(move |_, head, stream| {
            if head.line.contains("/content") {
                answer(stream, 302, &there, b"");
            } else if head.line.contains("/user/") {
                answer(
                    stream,
                    200,
                    "Content-Type: application/json\r\n",
                    br#"{"hits":{"hits":[],"total":0}}"#,
                );
            } else {
                answer(
                    stream,
                    200,
                    "Content-Type: application/json\r\n",
                    br#"{"id": "abcde-12345"}"#,
                );
            }
        });
        let repository = Repository::connect_with_link(
            Settings {
                url: server.url.clone(),
                token: Some(Token::new("user-token").unwrap()),
                limits: quick(),
                ..Settings::default()
            },
            LinkToken::new("link.secret").unwrap(),
        )
        .unwrap();
        let id = RecordId::new("abcde-12345").unwrap();
        repository.record(&id).unwrap();
        repository.check_token().unwrap();
        let place = super::super::model::FilePlace {
            owner: super::super::model::Owner::Record(id),
            key: "a".into(),
        };
        repository.open_content(&place, None).unwrap();
        let lines: Vec<String> = server.heads.lock().iter().map(|head| head.line.clone()).collect();
        assert!(
            lines[0].contains("/records/abcde-12345?token=link.secret "),
            "{lines:?}"
        );
        assert!(!lines[1].contains("link.secret"), "{lines:?}");
        assert!(lines[2].contains("?token=link.secret "), "{lines:?}");
        let heads = elsewhere.heads.lock();
        assert_eq!(heads[0].line, "GET /bucket/data?sig=1 HTTP/1.1");
        assert_eq!(heads[0].header("authorization"), None);
    }
}
