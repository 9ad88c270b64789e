//! Requests as the handlers see them, and their answers.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::app::User;
use crate::blobs::Blob;
use crate::errors::Problem;
use crate::routes::Target;
use crate::upload::RequestBody;

/// A request.
pub(crate) struct Call {
    /// HEAD counts as GET.
    pub method: Method,
    pub target: Target,
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub user: Option<User>,
    pub body: RequestBody,
}

impl Call {
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn param(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The signed-in user, or 403: a server has no other word for a missing token.
    pub fn signed_in(&self) -> Result<User, Problem> {
        self.user.filter(|user| user.id != 0).ok_or_else(Problem::denied)
    }

    /// Content negotiation: the client must accept one of these types, or anything. The first is
    /// also what `*/*` gets. A wildcard such as `text/*` counts for nothing.
    pub fn accepts(&self, offered: &[&'static str]) -> Result<&'static str, Problem> {
        let Some(accept) = self
            .header(header::ACCEPT)
            .filter(|accept| !accept.trim().is_empty())
        else {
            return Ok(offered[0]);
        };
        // Parameters but `q` count, so that a type with a profile is not the type without.
        let names: Vec<String> = accept
            .split(',')
            .map(|item| {
                let parts = item
                    .split(';')
                    .map(str::trim)
                    .filter(|part| !part.starts_with("q="));
                parts.collect::<Vec<_>>().join(";")
            })
            .collect();
        let named = names
            .iter()
            .find_map(|name| offered.iter().find(|offer| **offer == name));
        match named {
            Some(name) => Ok(name),
            None if names.iter().any(|name| name == "*/*") => Ok(offered[0]),
            None => Err(Problem::not_acceptable(offered)),
        }
    }

    /// The request's JSON; `null` if there is no body.
    pub async fn json(&mut self) -> Result<Value, Failure> {
        let kind = self.header(header::CONTENT_TYPE).unwrap_or("application/json");
        let kind = kind
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        if kind != "application/json" {
            return Err(Problem::media_type("application/json").into());
        }
        let body = self.body.collect().await?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        let broken = || Problem::new(400, "Unable to decode JSON data in request body.");
        Ok(serde_json::from_slice(&body).map_err(|_| broken())?)
    }

    /// The request's JSON object; an absent one is empty.
    pub async fn json_object(&mut self) -> Result<Map<String, Value>, Failure> {
        match self.json().await? {
            Value::Object(object) => Ok(object),
            Value::Null => Ok(Map::new()),
            _ => Err(Problem::invalid("_schema", "Invalid input type.").into()),
        }
    }
}

/// Why there is no good answer.
#[derive(Debug)]
pub(crate) enum Failure {
    Problem(Problem),
    /// No answer at all: the connection is cut, by a reset or by closing it.
    HangUp {
        reset: bool,
    },
    /// No answer at all, and the connection stays open.
    Stall,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure::Problem(problem)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        eprintln!("rdm-sandbox: {error}");
        Problem::server_error(500).into()
    }
}

/// An answer.
pub(crate) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Payload,
}

pub(crate) enum Payload {
    Bytes(Bytes),
    /// A part of a stored file, sent piece by piece.
    File(Arc<Blob>, Range<u64>),
}

impl Payload {
    pub fn length(&self) -> u64 {
        match self {
            Payload::Bytes(bytes) => bytes.len() as u64,
            Payload::File(_, range) => range.end - range.start,
        }
    }
}

impl Reply {
    pub fn new(status: u16, kind: &str, body: impl Into<Bytes>) -> Reply {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut reply = Reply {
            status,
            headers: HeaderMap::new(),
            body: Payload::Bytes(body.into()),
        };
        if !kind.is_empty() {
            reply.set(header::CONTENT_TYPE, kind);
        }
        reply
    }

    pub fn json(status: u16, body: &Value) -> Reply {
        Reply::new(status, "application/json", body.to_string())
    }

    /// 204, or another answer without a body.
    pub fn empty(status: u16) -> Reply {
        Reply::new(status, "", Bytes::new())
    }

    pub fn set(&mut self, name: HeaderName, value: impl AsRef<str>) {
        // A value that can't stand in a header is left out, as a proxy would do.
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.insert(name, value);
        }
    }

    pub fn with(mut self, name: HeaderName, value: impl AsRef<str>) -> Reply {
        self.set(name, value);
        self
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Reply {
        let mut reply = Reply::json(problem.status.as_u16(), &problem.body);
        for (name, value) in problem.headers {
            reply.set(HeaderName::from_static(name), value);
        }
        reply
    }
}

/// Decodes a path as a WSGI server does, before routing.
pub(crate) fn decode(text: &str) -> Option<String> {
    percent_decode_str(text)
        .decode_utf8()
        .ok()
        .map(|text| text.into_owned())
}

pub(crate) fn parse_query(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let plain = |text: &str| decode(&text.replace('+', " ")).unwrap_or_default();
        (plain(key), plain(value))
    });
    pairs.collect()
}

/// Encodes a file key for a link: slashes and `+;:&='*!$(),@` stay as they are.
pub(crate) fn encode_key(key: &str) -> String {
    const KEPT: AsciiSet = NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~')
        .remove(b'/')
        .remove(b'+')
        .remove(b';')
        .remove(b':')
        .remove(b'&')
        .remove(b'=')
        .remove(b'\'')
        .remove(b'*')
        .remove(b'!')
        .remove(b'$')
        .remove(b'(')
        .remove(b')')
        .remove(b',')
        .remove(b'@');
    utf8_percent_encode(key, &KEPT).to_string()
}

/// Encodes a value of a query string; colons stay as they are.
pub(crate) fn encode_value(value: &str) -> String {
    const KEPT: AsciiSet = NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~')
        .remove(b'/')
        .remove(b':');
    utf8_percent_encode(value, &KEPT).to_string()
}

/// Encodes everything but unreserved characters.
pub(crate) fn encode_all(value: &str) -> String {
    const KEPT: AsciiSet = NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(value, &KEPT).to_string()
}
