//! Communities: finding, making and changing them, their logos, and which records are in them.
//!
//! Called by `catalog/` (reading) and `cli/` (all that others see). A community is named by its slug or its UUID; the slug can
//! change, the UUID can't.

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Url};
use serde_json::{Map, Value, json};

use super::model::{FieldError, Page, RecordId, field_errors, on_one_line, text_of};
use super::requests::{Request, comment_payload};
use super::transport::{Ask, JSON, Repeat};
use super::urls::encode_part;
use super::{Listing, Repository, Search};
use crate::error::{Error, Kind, Result};

/// A community: the whole document, and what we read out of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Community {
    /// Its UUID.
    pub id: String,
    /// Its name in addresses.
    pub slug: String,
    /// Its title.
    pub title: String,
    /// The revision, as `If-Match` wants it.
    pub revision: Option<u64>,
    /// The document as the server sent it.
    pub document: Map<String, Value>,
}

impl Community {
    fn from_value(mut value: Value) -> Option<Self> {
        if let Value::Object(document) = &mut value {
            document.remove("ui");
        }
        Some(Community {
            id: text_of(&value, "id")?,
            slug: text_of(&value, "slug")?,
            title: value
                .get("metadata")
                .and_then(|metadata| text_of(metadata, "title"))
                .unwrap_or_default(),
            revision: value.get("revision_id").and_then(Value::as_u64),
            document: match value {
                Value::Object(document) => document,
                _ => return None,
            },
        })
    }
}

/// A community's logo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logo {
    /// As the server says; often `application/octet-stream`, whatever it is.
    pub media_type: String,
    /// The image.
    pub bytes: Bytes,
}

/// What became of the wish to have a record in several communities.
#[derive(Clone, Debug)]
pub struct Inclusions {
    /// Those that were asked.
    pub asked: Vec<Inclusion>,
    /// Why others were not, with them as fields.
    pub refused: Option<Error>,
}

/// What became of the wish to have a record in a community.
#[derive(Clone, Debug)]
pub struct Inclusion {
    /// The community as it was named.
    pub community: String,
    /// The request, which is accepted at once where the community's policy allows it.
    pub request: Option<Request>,
}

impl Repository {
    /// A community by its slug or UUID.
    ///
    /// # Errors
    /// `NotFound` (deleted ones too), `Denied` for restricted ones, else as any request.
    pub fn community(&self, name: &str) -> Result<Community> {
        let doing = format!("read community {}", on_one_line(name));
        let url = self.community_url(name, "")?;
        self.one_community(Ask::get(url, doing))
    }

    /// Searches communities.
    ///
    /// # Errors
    /// `Refused` for an order there isn't or a page beyond the 10 000 that a search reaches, else as any request.
    pub fn communities(&self, search: &Search) -> Result<Listing<Community>> {
        self.list(
            "communities",
            search,
            &[],
            "search communities",
            Community::from_value,
        )
    }

    /// The communities that the user is a member of.
    ///
    /// # Errors
    /// `Denied` without a valid token, else as any request.
    pub fn user_communities(&self, search: &Search) -> Result<Listing<Community>> {
        self.list(
            "user/communities",
            search,
            &[],
            "list your communities",
            Community::from_value,
        )
    }

    /// The published records in a community, of each the latest version.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, else as a search.
    pub fn community_records(&self, name: &str, search: &Search) -> Result<Page> {
        let path = format!("communities/{}/records", encode_part("community", name)?);
        let doing = format!("list the records of community {}", on_one_line(name));
        self.page(&path, search, &[], &doing)
    }

    /// Makes a community. Not repeated: after a passing failure it may exist.
    ///
    /// # Errors
    /// `Refused` with the fields that the server does not accept ([`Error::fields`]), `Denied` where users make none
    /// (TU Wien), else as any request.
    pub fn create_community(&self, document: &Value) -> Result<Community> {
        let url = self.transport.base.api("communities")?;
        self.one_community(Ask::new(Method::POST, url, "make a community").body(document))
    }

    /// Replaces a community's document. It must hold the slug as it is; see [`Repository::rename_community`].
    ///
    /// # Errors
    /// `Refused` with the fields, `Changed` if the revision is not the current one, `NotFound`, `Denied`, else as any
    /// request.
    pub fn update_community(&self, name: &str, document: &Value, revision: Option<u64>) -> Result<Community> {
        let doing = format!("change community {}", on_one_line(name));
        let mut ask = Ask::new(Method::PUT, self.community_url(name, "")?, doing).body(document);
        ask.if_match = revision;
        if revision.is_none() {
            ask = ask.repeat(Repeat::Safe);
        }
        self.one_community(ask)
    }

    /// Gives a community another slug. The old one leads nowhere from then on.
    ///
    /// # Errors
    /// `Refused` with the field, `NotFound`, `Denied`, else as any request.
    pub fn rename_community(&self, name: &str, slug: &str) -> Result<Community> {
        let doing = format!("rename community {}", on_one_line(name));
        let url = self.community_url(name, "/rename")?;
        self.one_community(Ask::new(Method::POST, url, doing).body(&json!({"slug": slug})))
    }

    /// Deletes a community. Its records stay.
    ///
    /// # Errors
    /// `Refused` while requests to it are open, `NotFound`, `Denied`, else as any request.
    pub fn delete_community(&self, name: &str) -> Result<()> {
        let doing = format!("delete community {}", on_one_line(name));
        let mut ask = Ask::new(Method::DELETE, self.community_url(name, "")?, doing).repeat(Repeat::Safe);
        ask.gone_is_done = true;
        self.ask(ask).map(drop)
    }

    /// A community's logo; `None` if it has none.
    ///
    /// # Errors
    /// `NotFound` if there is no such community, `Denied`, else as any request.
    pub fn community_logo(&self, name: &str) -> Result<Option<Logo>> {
        let doing = format!("read the logo of community {}", on_one_line(name));
        let ask = Ask::get(self.community_url(name, "/logo")?, doing)
            .accept("*/*")
            .for_bytes();
        match self.ask(ask) {
            Ok(answer) => Ok(Some(Logo {
                media_type: answer
                    .headers
                    .get(CONTENT_TYPE)
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or("application/octet-stream")
                    .to_owned(),
                bytes: answer.body,
            })),
            Err(error)
                if error.kind() == Kind::NotFound
                    && error
                        .server_message()
                        .is_some_and(|text| text.contains("No logo")) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Sets a community's logo.
    ///
    /// # Errors
    /// `TooLarge` beyond the server's limit (1 MB as packaged), `NotFound`, `Denied`, else as any request.
    pub fn set_community_logo(&self, name: &str, image: impl Into<Bytes>) -> Result<()> {
        let doing = format!("set the logo of community {}", on_one_line(name));
        let ask = Ask::new(Method::PUT, self.community_url(name, "/logo")?, doing)
            .accept(JSON)
            .bytes_body("application/octet-stream", image)
            .repeat(Repeat::Safe);
        self.ask(ask)
            .map(drop)
            .map_err(|error| match error.server_message() {
                // What is wrong with a logo is said of no field.
                Some(words)
                    if error.fields().is_empty()
                        && matches!(error.kind(), Kind::TooLarge | Kind::Refused) =>
                {
                    let field = FieldError {
                        field: "logo".into(),
                        messages: vec![words.to_owned()],
                    };
                    error.with_fields_of_words(vec![field], "")
                }
                _ => error,
            })
    }

    /// Takes a community's logo away.
    ///
    /// # Errors
    /// `NotFound` if it has none, `Denied`, else as any request.
    pub fn delete_community_logo(&self, name: &str) -> Result<()> {
        let doing = format!("delete the logo of community {}", on_one_line(name));
        let url = self.community_url(name, "/logo")?;
        let mut ask = Ask::new(Method::DELETE, url, doing)
            .accept(JSON)
            .repeat(Repeat::Safe);
        ask.gone_is_done = true;
        self.ask(ask).map(drop)
    }

    /// Asks for a published record to be in communities. (A draft goes along the review: [`Repository::set_review`].) Not
    /// repeated.
    ///
    /// # Errors
    /// `Refused` with the communities as fields if none could be asked: unknown ones, those it is in, those where a request is
    /// open. `NotFound`, `Denied`, else as any request.
    pub fn submit_to_communities(
        &self,
        id: &RecordId,
        names: &[&str],
        comment: Option<&str>,
    ) -> Result<Inclusions> {
        let doing = format!("submit record {id} to {}", listed(names));
        let communities: Vec<Value> = names
            .iter()
            .map(|name| match comment {
                Some(comment) => json!({"id": name, "comment": comment_payload(comment)}),
                None => json!({"id": name}),
            })
            .collect();
        let url = self.transport.base.api(&format!("records/{id}/communities"))?;
        let body = json!({"communities": communities});
        let answer = self.ask(
            Ask::new(Method::POST, url, doing.as_str())
                .accept(JSON)
                .body(&body),
        )?;
        let processed = answer.value.get("processed").and_then(Value::as_array);
        let asked: Vec<Inclusion> = processed
            .into_iter()
            .flatten()
            .map(|one| Inclusion {
                community: text_of(one, "community_id").unwrap_or_default(),
                request: one.get("request").cloned().and_then(Request::from_value),
            })
            .collect();
        let refused = refused_some(&doing, &answer.value).err();
        match refused {
            Some(error) if asked.is_empty() => Err(error),
            refused => Ok(Inclusions { asked, refused }),
        }
    }

    /// Takes a published record out of communities, named by their slugs or UUIDs.
    ///
    /// # Errors
    /// `Refused` with the communities it is not in as fields, `NotFound`, `Denied`, else as any request.
    pub fn remove_from_communities(&self, id: &RecordId, names: &[&str]) -> Result<()> {
        let doing = format!("take record {id} out of {}", listed(names));
        // The server knows them by their UUIDs alone here.
        let ids = names
            .iter()
            .map(|name| self.community(name).map(|community| community.id))
            .collect::<Result<Vec<String>>>()?;
        let communities: Vec<Value> = ids.iter().map(|id| json!({"id": id})).collect();
        let url = self.transport.base.api(&format!("records/{id}/communities"))?;
        let body = json!({"communities": communities});
        let ask = Ask::new(Method::DELETE, url, doing.as_str())
            .accept(JSON)
            .body(&body);
        let outcome = self
            .ask(ask)
            .and_then(|answer| refused_some(&doing, &answer.value));
        outcome.map_err(|error| {
            let mut fields = error.fields().to_vec();
            for field in &mut fields {
                if let Some(at) = ids.iter().position(|id| *id == field.field) {
                    field.field = names[at].to_owned();
                }
            }
            error.with_fields(fields)
        })
    }

    /// The communities that a record is in.
    ///
    /// # Errors
    /// As [`Repository::record`].
    pub fn communities_of(&self, id: &RecordId) -> Result<Listing<Community>> {
        let doing = format!("list the communities of record {id}");
        let search = Search {
            size: self.largest_page(),
            ..Search::default()
        };
        let path = format!("records/{id}/communities");
        self.list(&path, &search, &[], &doing, Community::from_value)
    }

    fn one_community(&self, ask: Ask) -> Result<Community> {
        let doing = ask.doing.clone();
        Community::from_value(self.ask(ask.accept(JSON))?.value).ok_or_else(|| {
            Error::new(
                Kind::ServerFailed,
                format!("can't {doing}: the answer is JSON, but no community"),
            )
        })
    }

    fn community_url(&self, name: &str, rest: &str) -> Result<Url> {
        let name = encode_part("community", name)?;
        self.transport.base.api(&format!("communities/{name}{rest}"))
    }
}

/// A success in which some of what was asked for was not done.
fn refused_some(doing: &str, answer: &Value) -> Result<()> {
    let fields: Vec<FieldError> = field_errors(answer.get("errors").unwrap_or(&Value::Null));
    if fields.is_empty() {
        return Ok(());
    }
    let words: Vec<String> = fields
        .iter()
        .map(|field| format!("{}: {}", field.field, field.messages.join(" ")))
        .collect();
    Err(Error::new(Kind::Refused, format!("can't {doing}"))
        .with_server(on_one_line(&words.join("; ")))
        .with_fields_of_words(fields, ""))
}

fn listed(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| on_one_line(name)).collect();
    match names.as_slice() {
        [one] => format!("community {one}"),
        many => format!("communities {}", many.join(", ")),
    }
}
