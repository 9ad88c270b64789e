//! Any endpoint: a method and a path below `/api`, with the token, the limits and the retries of all other calls.
//!
//! Called by `cli/`, for what has no command of its own. The path can't lead away from the repository's API.

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, Url};
use serde_json::Value;

use super::transport::{Ask, RDM_JSON, Repeat, is_redirect, location, refused};
use super::urls::{Origin, shown};
use super::{Repository, answer};
use crate::error::{Error, Kind, Result};

/// Headers that are not a user's to set: the transport does, or they would send the token elsewhere.
const KEPT: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "host",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// A request to be made.
#[derive(Clone, Debug, Default)]
pub struct AnyCall {
    /// `GET`, `POST`, `PUT`, `PATCH`, `DELETE` or `HEAD`.
    pub method: String,
    /// Below `/api`, encoded, with or without `/api/` before it and a query behind it; or a whole address of this repository's
    /// API, such as the links in its answers.
    pub path: String,
    /// More headers, and `Accept` or `Content-Type` in place of those for JSON.
    pub headers: Vec<(String, String)>,
    /// What to send.
    pub body: Option<Bytes>,
}

/// The answer, whatever its status.
#[derive(Clone, Debug)]
pub struct AnyAnswer {
    /// The status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its body, as it came.
    pub body: Bytes,
    /// Why it is no success, with the server's words and what the user can do.
    pub refusal: Option<Error>,
}

impl AnyAnswer {
    /// Whether it is a success.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON, if it is.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Whether it is a page of a list and another follows.
    #[must_use]
    pub fn has_next(&self) -> bool {
        let Some(value) = self.json() else {
            return false;
        };
        let hits = value.pointer("/hits/hits").and_then(Value::as_array);
        value.pointer("/links/next").is_some() && hits.is_some_and(|hits| !hits.is_empty())
    }
}

/// An answer of which the body is still to be read, if it is a success.
pub struct AnyBody<'a> {
    /// The rest of it.
    pub answer: AnyAnswer,
    response: Option<Response>,
    repository: &'a Repository,
    doing: String,
    read: u64,
}

impl AnyBody<'_> {
    /// The next piece of the body; `None` after the last. A body that is cut off is never taken for a whole one.
    ///
    /// # Errors
    /// If the connection breaks or nothing comes for a while. It is not begun again: what came was given out.
    pub fn piece(&mut self) -> Result<Option<Bytes>> {
        let Some(response) = &mut self.response else {
            return Ok(None);
        };
        let next = self.repository.transport.piece(&self.doing, response.chunk());
        match self.repository.engine.wait(next) {
            Ok(Some(piece)) => {
                self.read += piece.len() as u64;
                Ok(Some(piece))
            }
            Ok(None) => {
                self.response = None;
                Ok(None)
            }
            Err(failure) => Err(failure
                .error
                .with_advice(format!("{} bytes came before that; try it again.", self.read))),
        }
    }
}

impl Repository {
    /// Makes a request. What the server refuses is an answer; only what may pass (limits, 5xx, no connection) is tried
    /// again, and that only where a second one does no harm: GET, HEAD, PUT and DELETE but not POST and PATCH.
    ///
    /// # Errors
    /// `Usage`, before any request, for a path that leads elsewhere, an unknown method or a header that is not to be set; else
    /// what kept the server from answering.
    pub fn call(&self, call: &AnyCall) -> Result<AnyAnswer> {
        let url = self.any_url(&call.path)?;
        self.call_url(call, url)
    }

    /// Makes a GET request for each page of a list, by number, and hands each to `page` until that returns false.
    ///
    /// # Errors
    /// As [`Repository::call`]; what `page` returned.
    pub fn call_pages(&self, call: &AnyCall, mut page: impl FnMut(&AnyAnswer) -> Result<bool>) -> Result<()> {
        let first = self.any_url(&call.path)?;
        let mut number = first
            .query_pairs()
            .find(|(name, _)| name == "page")
            .and_then(|(_, value)| value.parse::<u64>().ok())
            .unwrap_or(1);
        let mut url = first.clone();
        loop {
            let answer = self.call_url(call, url)?;
            if !page(&answer)? || !answer.is_success() || !answer.has_next() {
                return Ok(());
            }
            number += 1;
            url = with_page(&first, number);
        }
    }

    /// Makes a GET request, and leaves the body of a success to be read piece by piece, whatever its size. Of anything else the
    /// body is in the answer.
    ///
    /// # Errors
    /// As [`Repository::call`].
    pub fn open_call(&self, call: &AnyCall) -> Result<AnyBody<'_>> {
        let ask = self.any_ask(call, self.any_url(&call.path)?)?;
        let transport = &self.transport;
        let attempt = async |_tries| {
            let reply = transport
                .get_with(&ask.doing, &ask.url, &ask.accept, None, Some(&ask.headers))
                .await?;
            let (status, mut response) = (reply.status, reply.response);
            let headers = std::mem::take(response.headers_mut());
            if (200..300).contains(&status) {
                return Ok((status, headers, Bytes::new(), Some(response)));
            }
            let body = transport.body(&ask.doing, response).await?;
            let failure = refused(&ask.doing, status, &headers, &body).at(&reply.url, Some(status));
            match failure.passing {
                true => Err(failure),
                false => Ok((status, headers, body, None)),
            }
        };
        let opened = transport.persist(&Method::GET, &ask.url, Repeat::Safe, &ask.doing, attempt);
        let (status, headers, body, response) = self
            .engine
            .wait(opened)
            .map_err(|error| transport.advised(error))?;
        Ok(AnyBody {
            answer: self.any_answer(&ask.doing, &ask.url, status, &headers, body),
            response,
            repository: self,
            doing: ask.doing,
            read: 0,
        })
    }

    fn call_url(&self, call: &AnyCall, url: Url) -> Result<AnyAnswer> {
        let ask = self.any_ask(call, url)?;
        let (url, doing) = (ask.url.clone(), ask.doing.clone());
        let answer = self.ask(ask)?;
        Ok(self.any_answer(&doing, &url, answer.status, &answer.headers, answer.body))
    }

    fn any_ask(&self, call: &AnyCall, url: Url) -> Result<Ask> {
        let method = method(&call.method)?;
        let doing = format!("{method} {}", url.path());
        if method == Method::GET {
            let root = self.transport.base.api("")?;
            let below = url.path().strip_prefix(root.path()).unwrap_or_default();
            self.wait_to_search(below, &doing)?;
        }
        let mut ask = Ask::new(method.clone(), url, doing).for_bytes();
        ask.any_status = true;
        ask.body.clone_from(&call.body);
        let conditional = call
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("if-match"));
        ask.repeat = match method {
            // A second one would be refused because of the first, if that was carried out.
            Method::PUT | Method::DELETE if conditional => Repeat::Unsent,
            Method::GET | Method::HEAD | Method::PUT | Method::DELETE => Repeat::Safe,
            _ => Repeat::Unsent,
        };
        let mut accept = RDM_JSON.to_owned() + ", */*;q=0.1";
        for (name, value) in &call.headers {
            let (header, value) = header(name, value)?;
            match header.as_str() {
                "accept" => accept = value.to_str().unwrap_or("*/*").to_owned(),
                "content-type" => ask.content_type = value.to_str().unwrap_or_default().to_owned().into(),
                _ => {
                    ask.headers.append(header, value);
                }
            }
        }
        ask.accept = accept.into();
        Ok(ask)
    }

    fn any_answer(&self, doing: &str, url: &Url, status: u16, headers: &HeaderMap, body: Bytes) -> AnyAnswer {
        let refusal = match status {
            200..300 => None,
            status if is_redirect(status) => Some(self.sent_on(doing, url, headers)),
            status => Some(answer::refusal(doing, status, headers, &body)),
        };
        AnyAnswer {
            status,
            headers: listed(headers),
            body,
            refusal: refusal.map(|error| self.transport.advised(error)),
        }
    }

    /// What is sent is not sent again elsewhere without being told to.
    fn sent_on(&self, doing: &str, from: &Url, headers: &HeaderMap) -> Error {
        let error = Error::new(
            Kind::Refused,
            format!("can't {doing}: the repository redirects it"),
        );
        match location(from, headers) {
            Some(to) if Origin::of(&to) == *self.transport.base.origin() => {
                error.with_advice(format!("It leads to {}: call that.", shown(&to)))
            }
            _ => error.with_advice("It leads to another host."),
        }
    }

    /// The address of a path, which stays below this repository's `/api/`.
    fn any_url(&self, path: &str) -> Result<Url> {
        let wrong = |why: &str| {
            // A query may hold a secret.
            let path = path.split('?').next().unwrap_or_default();
            Error::new(Kind::Usage, format!("{path:?} is no path of the API: {why}"))
                .with_advice("Give the path below /api, such as records/abcde-12345/draft.")
        };
        if path.contains(|c: char| c.is_control() || c == '\\') {
            return Err(wrong("it holds characters that no address has"));
        }
        let base = &self.transport.base;
        let root = base.api("")?;
        let is_whole = ["http://", "https://"].iter().any(|scheme| {
            path.get(..scheme.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
        });
        let url = if is_whole {
            let mut url = Url::parse(path).map_err(|_| wrong("it is no address"))?;
            if Origin::of(&url) != *base.origin() || !url.username().is_empty() || url.password().is_some() {
                return Err(wrong(&format!(
                    "it is the address of another host than {}",
                    base.as_str()
                )));
            }
            url.set_fragment(None);
            url
        } else {
            let path_only = path.trim_start_matches('/');
            base.api(path_only.strip_prefix("api/").unwrap_or(path_only))?
        };
        // `..` and its encoded forms are resolved by now.
        if url.path().starts_with(root.path()) && url.path() != root.path() {
            return Ok(url);
        }
        Err(wrong("it leads away from the API"))
    }
}

fn with_page(url: &Url, number: u64) -> Url {
    let others: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| name != "page")
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let mut next = url.clone();
    next.query_pairs_mut()
        .clear()
        .extend_pairs(others)
        .append_pair("page", &number.to_string());
    next
}

fn method(name: &str) -> Result<Method> {
    match name.to_ascii_uppercase().as_str() {
        "" | "GET" => Ok(Method::GET),
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "PATCH" => Ok(Method::PATCH),
        "DELETE" => Ok(Method::DELETE),
        "HEAD" => Ok(Method::HEAD),
        other => Err(Error::new(
            Kind::Usage,
            format!("{other:?} is no method of the API"),
        )),
    }
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    let wrong = |why: &str| Error::new(Kind::Usage, format!("the header {name:?} can't be sent: {why}"));
    let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("no header has such a name"))?;
    if KEPT.contains(&header.as_str()) {
        return Err(wrong("rdmfs sets it itself"));
    }
    let value =
        HeaderValue::from_str(value).map_err(|_| wrong("its value holds characters that can't be"))?;
    Ok((header, value))
}

fn listed(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        // No cookies are kept; they are secrets, too.
        .filter(|(name, _)| *name != "set-cookie")
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Server, answer};
    use super::*;

    fn get(path: &str) -> AnyCall {
        AnyCall {
            path: path.into(),
            ..AnyCall::default()
        }
    }

    #[test]
    fn no_path_leads_away_from_the_api() {
        let server = Server::start(|_, _, stream| answer(stream, 200, "", b"{}"));
        let repository = server.repository();
        for path in [
            "",
            "/",
            "../admin",
            "records/../../x",
            "%2e%2e/x",
            "https://other.example/x",
            "https://other.example/api/records?q=a",
            "HTTPS://other.example/api/records",
            "records\\..",
            "a\nb",
        ] {
            assert_eq!(
                repository.call(&get(path)).unwrap_err().kind(),
                Kind::Usage,
                "{path:?}"
            );
        }
        let own = &server.url;
        for path in [
            format!("{own}/records/x"),
            format!("{own}.other.example/api/records"),
            format!("{own}/api/../records"),
            own.replace("http://", "http://me:pw@") + "/api/records",
            own.replace("http://", "https://") + "/api/records",
        ] {
            let error = repository.call(&get(&path)).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{path:?}");
        }
        assert_eq!(server.count(), 0);
        assert!(repository.call(&get(&format!("{own}/api/records?q=a#x"))).is_ok());
        for path in [
            "records",
            "/records?q=a",
            "/api/records",
            "api/records?q=http://x/y",
        ] {
            assert!(repository.call(&get(path)).is_ok(), "{path:?}");
        }
        assert!(
            server
                .heads
                .lock()
                .iter()
                .all(|head| head.line.starts_with("GET /api/records"))
        );
    }

    #[test]
    fn a_refusal_is_an_answer_and_what_passes_is_tried_again() {
        let server = Server::start(|number, _, stream| match number {
            1 => answer(stream, 503, "", b"{}"),
            2 => answer(
                stream,
                404,
                "Content-Type: application/json\r\nSet-Cookie: a=b\r\n",
                b"{\"message\": \"no\"}",
            ),
            _ => answer(stream, 503, "", b"{}"),
        });
        let repository = server.repository();
        let refused = repository.call(&get("records/x")).unwrap();
        assert_eq!(refused.status, 404);
        assert_eq!(&*refused.body, b"{\"message\": \"no\"}");
        assert!(refused.headers.iter().all(|(name, _)| name != "set-cookie"));
        let post = AnyCall {
            method: "post".into(),
            ..get("records")
        };
        assert!(repository.call(&post).is_err());
        assert_eq!(server.count(), 3, "a POST is not repeated");
    }

    #[test]
    fn what_is_sent_is_not_sent_on_and_a_download_goes_on_without_the_token() {
        let elsewhere = Server::start(|_, _, stream| answer(stream, 200, "", b"bytes"));
        let away = format!("Location: {}/bucket?sig=1\r\n", elsewhere.url);
        let server = Server::start(move |_, head, stream| match head.line.starts_with("GET") {
            true => answer(stream, 302, &away, b""),
            false => answer(stream, 308, "Location: /api/curations/?x=s3cret\r\n", b""),
        });
        let repository = server.repository();
        let read = repository.call(&get("records/x/files/a/content")).unwrap();
        assert_eq!((read.status, &*read.body), (200, b"bytes".as_slice()));
        assert_eq!(elsewhere.heads.lock()[0].header("authorization"), None);
        let post = AnyCall {
            method: "POST".into(),
            ..get("curations")
        };
        let sent = repository.call(&post).unwrap();
        let refusal = sent.refusal.unwrap();
        assert_eq!((sent.status, refusal.kind()), (308, Kind::Refused));
        assert!(
            refusal.advice().contains("/api/curations/: call that"),
            "{}",
            refusal.advice()
        );
        assert_eq!(server.count(), 2);
    }

    #[test]
    fn a_body_is_given_out_as_it_comes_and_one_that_is_cut_off_is_an_error() {
        let server = Server::start(|number, _, stream| match number {
            1 => answer(stream, 503, "", b"{}"),
            2 => answer(stream, 200, "", &vec![7; 1 << 20]),
            3 => answer(
                stream,
                404,
                "Content-Type: application/json\r\n",
                b"{\"message\": \"no\"}",
            ),
            _ => {
                let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort";
                std::io::Write::write_all(stream, head).unwrap();
            }
        });
        let repository = server.repository();
        let mut body = repository.open_call(&get("records/x/files/a/content")).unwrap();
        let mut read = 0;
        while let Some(piece) = body.piece().unwrap() {
            read += piece.len();
        }
        assert_eq!((body.answer.status, read), (200, 1 << 20));
        let mut refused = repository.open_call(&get("records/y")).unwrap();
        assert_eq!(&*refused.answer.body, b"{\"message\": \"no\"}");
        assert!(refused.piece().unwrap().is_none());
        assert_eq!(refused.answer.refusal.unwrap().kind(), Kind::NotFound);
        let mut cut = repository.open_call(&get("records/x/files/a/content")).unwrap();
        let error = loop {
            match cut.piece() {
                Ok(piece) => assert!(piece.is_some()),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), Kind::Unreachable);
        assert!(error.advice().contains("5 bytes"), "{}", error.advice());
    }

    #[test]
    fn headers_that_carry_secrets_are_not_a_users_to_set() {
        let server = Server::start(|_, _, stream| answer(stream, 200, "", b"{}"));
        let repository = server.repository();
        for name in ["Authorization", "Cookie", "Host", "bad name"] {
            let call = AnyCall {
                headers: vec![(name.into(), "x".into())],
                ..get("records")
            };
            assert_eq!(repository.call(&call).unwrap_err().kind(), Kind::Usage, "{name}");
        }
        let call = AnyCall {
            headers: vec![
                ("Accept".into(), "application/x-bibtex".into()),
                ("If-Match".into(), "4".into()),
            ],
            ..get("records")
        };
        repository.call(&call).unwrap();
        let heads = server.heads.lock();
        assert_eq!(heads[0].header("accept"), Some("application/x-bibtex"));
        assert_eq!(heads[0].header("if-match"), Some("4"));
        assert_eq!(heads[0].header("authorization"), Some("Bearer s3cret"));
    }

    #[test]
    fn pages_are_asked_for_by_number_wherever_the_links_lead() {
        let server = Server::start(|number, _, stream| {
            let next = if number < 3 {
                r#", "next": "https://other.example/steal?page=9""#
            } else {
                ""
            };
            let body = format!(r#"{{"hits": {{"hits": [{number}]}}, "links": {{"self": "x"{next}}}}}"#);
            answer(stream, 200, "Content-Type: application/json\r\n", body.as_bytes());
        });
        let mut seen = 0;
        server
            .repository()
            .call_pages(&get("records?q=a%20b&size=1"), |_| {
                seen += 1;
                Ok(true)
            })
            .unwrap();
        assert_eq!(seen, 3);
        let lines: Vec<String> = server.heads.lock().iter().map(|head| head.line.clone()).collect();
        assert_eq!(lines[2], "GET /api/records?q=a+b&size=1&page=3 HTTP/1.1");
    }
}
