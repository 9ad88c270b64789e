//! One exchange with the server: the HTTP client, the token, redirects, limits on every wait.
//!
//! The resource files describe a request (`Ask`) and get an `Answer` through `retry`, or a `Reply` whose body is still
//! to be read (`content`). The token goes to the repository's own origin and nowhere else; a link's query is never
//! shown.

use std::borrow::Cow;
use std::error::Error as _;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, IF_MATCH, LOCATION, RANGE,
};
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde_json::Value;

use super::access_links::LinkToken;
use super::answer;
use super::pacing::{self, Pacer};
use super::proxy::Proxies;
use super::retry::Failure;
use super::urls::{Base, Origin, shown};
use super::{Limits, Settings};
use crate::error::{Error, Kind, Result};

/// No JSON answer is larger; a page of full records is a few MB.
const LONGEST_BODY: usize = 64 * 1024 * 1024;

/// More redirects than this are a loop.
const MOST_HOPS: usize = 5;

/// Records, drafts and their lists. Zenodo gives its legacy form for plain `application/json`; with this type every
/// server sends the same form, plus a `ui` key that `records` takes out.
pub(super) const RDM_JSON: &str = "application/vnd.inveniordm.v1+json, application/json;q=0.9";

/// The lists of files, which don't know the other type (406).
pub(super) const JSON: &str = "application/json";

/// Whether a request may be sent again after a passing failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// A second one does no harm.
    Safe,
    /// Safe, but 500 is an answer here and not a failure that passes.
    SafeBut500,
    /// Only if it certainly was not carried out: no connection was made, or the rate limiter stopped it. Otherwise the
    /// caller has to look at what is there.
    Unsent,
}

/// A request for JSON.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) accept: Cow<'static, str>,
    pub(super) body: Option<Bytes>,
    /// The media type of the body.
    pub(super) content_type: Cow<'static, str>,
    /// More headers, which the caller has checked.
    pub(super) headers: HeaderMap,
    pub(super) if_match: Option<u64>,
    pub(super) repeat: Repeat,
    /// For errors: `"read record abcde-12345"`.
    pub(super) doing: String,
    /// Whether to go after redirects. If not, they are answers.
    pub(super) follow: bool,
    /// Whether anything but JSON is a failure.
    pub(super) json: bool,
    /// Whether the body is wanted as it came, and not read as JSON.
    pub(super) bytes: bool,
    /// Whether an answer that will not change by repeating the request is an answer, whatever its status.
    pub(super) any_status: bool,
    /// Whether 404 or 410 on a repeated request means that the one before was carried out.
    pub(super) gone_is_done: bool,
}

impl Ask {
    pub(super) fn new(method: Method, url: Url, doing: impl Into<String>) -> Self {
        let repeat = if method == Method::GET {
            Repeat::Safe
        } else {
            Repeat::Unsent
        };
        Ask {
            follow: method == Method::GET,
            method,
            url,
            accept: RDM_JSON.into(),
            body: None,
            content_type: JSON.into(),
            headers: HeaderMap::new(),
            if_match: None,
            repeat,
            doing: doing.into(),
            json: true,
            bytes: false,
            any_status: false,
            gone_is_done: false,
        }
    }

    pub(super) fn get(url: Url, doing: impl Into<String>) -> Self {
        Ask::new(Method::GET, url, doing)
    }

    pub(super) fn body(mut self, value: &Value) -> Self {
        self.body = Some(value.to_string().into());
        self
    }

    pub(super) fn accept(mut self, accept: impl Into<Cow<'static, str>>) -> Self {
        self.accept = accept.into();
        self
    }

    /// A body that is no JSON.
    pub(super) fn bytes_body(mut self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self.content_type = content_type.into();
        self
    }

    /// The body is wanted as it comes.
    pub(super) fn for_bytes(mut self) -> Self {
        self.bytes = true;
        self.json = false;
        self
    }

    pub(super) fn repeat(mut self, repeat: Repeat) -> Self {
        self.repeat = repeat;
        self
    }
}

/// A success, wholly read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// `Null` if there was no body or it was no JSON and needn't be.
    pub(super) value: Value,
    /// The body itself, if it was wanted as it came.
    pub(super) body: Bytes,
    /// Where it came from, after redirects.
    pub(super) url: Url,
}

/// An answer whose body is still to be read.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) url: Url,
    pub(super) response: Response,
}

/// The client of one repository.
pub(super) struct Transport {
    client: Client,
    pub(super) base: Base,
    authorization: Option<HeaderValue>,
    /// The token of a link to a shared record.
    link: Option<LinkToken>,
    pub(super) limits: Limits,
    pub(super) pacer: Arc<Pacer>,
    pub(super) proxy: Option<Url>,
    /// Requests sent.
    pub(super) sent: Arc<AtomicU64>,
    /// Those that the repository itself answered as it should.
    pub(super) words: Arc<AtomicU64>,
}

impl Transport {
    pub(super) fn new(settings: &Settings, link: Option<LinkToken>) -> Result<Self> {
        let base = Base::parse(&settings.url)?;
        let proxies = Proxies::from_env()?;
        let limits = settings.limits.clone();
        let own_name = || {
            format!(
                "rdmfs/{} (+{})",
                env!("CARGO_PKG_VERSION"),
                env!("CARGO_PKG_HOMEPAGE")
            )
        };
        let mut builder = Client::builder()
            .user_agent(settings.user_agent.clone().unwrap_or_else(own_name))
            // One request a connection: parallel ranges are then parallel connections, and no stream holds up another.
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(limits.connect)
            .tcp_keepalive(Duration::from_secs(30))
            // Shorter than nginx's 75 s and the like, so that we close an idle connection and not the server.
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(16)
            .tls_danger_accept_invalid_certs(settings.insecure);
        let proxy = proxies.for_url(base.url()).cloned();
        builder = builder.proxy(proxies.into_rule());
        if let Some(path) = &settings.ca_certificate {
            let pem = std::fs::read(path).map_err(|error| {
                Error::local(format!("read the CA certificate {}", path.display()), &error)
            })?;
            let wrong = || {
                Error::new(
                    Kind::Usage,
                    format!("{} holds no certificate in PEM form", path.display()),
                )
            };
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|_| wrong())?;
            if certificates.is_empty() {
                return Err(wrong());
            }
            builder = builder.tls_certs_merge(certificates);
        }
        let client = builder.build().map_err(|error| {
            Error::new(
                Kind::Usage,
                format!("no HTTPS client can be made: {}", root_cause(&error)),
            )
            .with_advice(
                "Install the system's CA certificates (ca-certificates), or give them with --ca-certificate.",
            )
        })?;
        Ok(Transport {
            client,
            base,
            authorization: settings.token.as_ref().map(|token| token.header()).transpose()?,
            link,
            limits,
            pacer: Arc::default(),
            proxy,
            sent: Arc::default(),
            words: Arc::default(),
        })
    }

    /// The same, but that no request for JSON takes longer than this. Connections and pace are shared.
    pub(super) fn hasty(&self, whole: Duration) -> Self {
        Transport {
            client: self.client.clone(),
            base: self.base.clone(),
            authorization: self.authorization.clone(),
            link: self.link.clone(),
            limits: Limits {
                whole: whole.min(self.limits.whole),
                ..self.limits.clone()
            },
            pacer: Arc::clone(&self.pacer),
            proxy: self.proxy.clone(),
            sent: Arc::clone(&self.sent),
            words: Arc::clone(&self.words),
        }
    }

    /// Who holds a link alone is told of that, and not of a token.
    pub(super) fn advised(&self, error: Error) -> Error {
        if self.link.is_none() || self.has_token() || error.kind() != Kind::Denied || error.is_foreign() {
            return error;
        }
        error.with_advice(
            "The link to the shared record does not open this, or was revoked or has ended: ask whoever shared it for another, \
             and mount that.",
        )
    }

    pub(super) fn has_token(&self) -> bool {
        self.authorization.is_some()
    }

    /// A request to the repository or to where it sent us; the token goes along only to its own origin.
    pub(super) fn request(&self, method: Method, url: &Url, with_token: bool) -> RequestBuilder {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let own = with_token && Origin::of(url) == *self.base.origin();
        let mut url = url.clone();
        if let Some(link) = self
            .link
            .as_ref()
            .filter(|_| own && self.base.is_of_a_record(&url))
        {
            // The only form in which the server takes it (API notes, section 5).
            url.query_pairs_mut().append_pair("token", link.secret());
        }
        let request = self.client.request(method, url);
        match &self.authorization {
            Some(value) if own => request.header(AUTHORIZATION, value.clone()),
            _ => request,
        }
    }

    /// Sends a request once and waits for the head of the answer, at most for the connect and stall limits.
    pub(super) async fn send(
        &self,
        doing: &str,
        request: RequestBuilder,
    ) -> std::result::Result<Response, Failure> {
        let limit = self.limits.connect + self.limits.stall;
        match tokio::time::timeout(limit, request.send()).await {
            Ok(Ok(response)) => {
                // What another host says of its limits is no matter of the repository's.
                if Origin::of(response.url()) == *self.base.origin() {
                    self.pacer.heed(response.status().as_u16(), response.headers());
                }
                Ok(response)
            }
            Ok(Err(error)) => Err(broken(doing, error)),
            Err(_) => Err(Failure::passing(Error::new(
                Kind::TimedOut,
                format!("can't {doing}: no answer within {} s", limit.as_secs_f64()),
            ))),
        }
    }

    /// GET, with redirects followed: at most five, never from https to http, without the token once another origin was
    /// visited.
    pub(super) async fn get(
        &self,
        doing: &str,
        url: &Url,
        accept: &str,
        range: Option<&HeaderValue>,
    ) -> std::result::Result<Reply, Failure> {
        self.get_with(doing, url, accept, range, Some(&HeaderMap::new()))
            .await
    }

    /// As [`Transport::get`], without the token.
    pub(super) async fn get_as_guest(
        &self,
        doing: &str,
        url: &Url,
        accept: &str,
        range: Option<&HeaderValue>,
    ) -> std::result::Result<Reply, Failure> {
        self.get_with(doing, url, accept, range, None).await
    }

    /// With the token and more headers, or without either.
    pub(super) async fn get_with(
        &self,
        doing: &str,
        url: &Url,
        accept: &str,
        range: Option<&HeaderValue>,
        headers: Option<&HeaderMap>,
    ) -> std::result::Result<Reply, Failure> {
        let mut url = url.clone();
        let mut with_token = headers.is_some();
        for _ in 0..=MOST_HOPS {
            let begun = Instant::now();
            with_token &= Origin::of(&url) == *self.base.origin();
            let mut request = self.request(Method::GET, &url, with_token).header(ACCEPT, accept);
            if let Some(range) = range {
                request = request.header(RANGE, range.clone());
            }
            if let Some(headers) = headers.filter(|_| with_token) {
                request = request.headers(headers.clone());
            }
            let response = self.send(doing, request).await?;
            let status = response.status().as_u16();
            if !is_redirect(status) {
                return Ok(Reply {
                    status,
                    url,
                    response,
                });
            }
            log::debug!(
                "GET {}: {status}, {} ms, sent on",
                shown(&url),
                begun.elapsed().as_millis()
            );
            url = self.next_hop(doing, &url, &response)?;
        }
        Err(Failure::lasting(Error::new(
            Kind::ServerFailed,
            format!("can't {doing}: more than {MOST_HOPS} redirects"),
        )))
    }

    fn next_hop(&self, doing: &str, from: &Url, response: &Response) -> std::result::Result<Url, Failure> {
        let wrong = |why: &str| {
            Failure::lasting(Error::new(
                Kind::ServerFailed,
                format!("can't {doing}: the repository redirects {why}"),
            ))
        };
        let next = location(from, response.headers()).ok_or_else(|| wrong("to nowhere"))?;
        if !matches!(next.scheme(), "http" | "https") || next.host_str().is_none() {
            return Err(wrong("to something that is no web address"));
        }
        if Origin::of(from).is_secure() && !Origin::of(&next).is_secure() {
            return Err(wrong(&format!(
                "from https to {}, which others on the way could read and change",
                Origin::of(&next)
            )));
        }
        Ok(next)
    }

    /// One try of a request for JSON, wholly read.
    pub(super) async fn exchange(&self, ask: &Ask) -> std::result::Result<Answer, Failure> {
        let begun = Instant::now();
        let reply = if ask.follow {
            self.get_with(&ask.doing, &ask.url, &ask.accept, None, Some(&ask.headers))
                .await?
        } else {
            let mut request = self
                .request(ask.method.clone(), &ask.url, true)
                .header(ACCEPT, &*ask.accept);
            if let Some(body) = &ask.body {
                request = request
                    .header(CONTENT_TYPE, &*ask.content_type)
                    .body(body.clone());
            }
            request = request.headers(ask.headers.clone());
            if let Some(revision) = ask.if_match {
                // A bare number: the quoted form that the ETag has is refused (API notes, section 3).
                request = request.header(IF_MATCH, revision);
            }
            let response = self.send(&ask.doing, request).await?;
            Reply {
                status: response.status().as_u16(),
                url: ask.url.clone(),
                response,
            }
        };
        let Reply {
            status,
            url,
            mut response,
        } = reply;
        let headers = std::mem::take(response.headers_mut());
        let body = self
            .body(&ask.doing, response)
            .await
            .map_err(|failure| failure.at(&url, Some(status)))?;
        log::debug!(
            "{} {}: {status}, {} ms, {} bytes",
            ask.method,
            shown(&url),
            begun.elapsed().as_millis(),
            body.len()
        );
        let success = (200..300).contains(&status) || (!ask.follow && is_redirect(status));
        if !success {
            let failure = refused(&ask.doing, status, &headers, &body).at(&url, Some(status));
            if !ask.any_status || failure.passing {
                return Err(failure);
            }
        }
        if ask.bytes {
            return Ok(Answer {
                status,
                headers,
                value: Value::Null,
                body,
                url,
            });
        }
        let value = match serde_json::from_slice(&body) {
            Ok(value) => {
                if success {
                    self.note_word(&url);
                }
                value
            }
            Err(_) if body.is_empty() || !ask.json || is_redirect(status) => Value::Null,
            Err(_) => {
                return Err(Failure::passing(answer::not_json(&ask.doing, &headers)).at(&url, Some(status)));
            }
        };
        Ok(Answer {
            status,
            headers,
            value,
            body: Bytes::new(),
            url,
        })
    }

    /// What was asked for came from here. It counts if that is the repository, and not another host that it sent us to.
    pub(super) fn note_word(&self, from: &Url) {
        if Origin::of(from) == *self.base.origin() {
            self.words.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads a body: bounded in size, and in the time without a byte.
    pub(super) async fn body(
        &self,
        doing: &str,
        mut response: Response,
    ) -> std::result::Result<Bytes, Failure> {
        let mut body = BytesMut::new();
        while let Some(piece) = self.piece(doing, response.chunk()).await? {
            if body.len() + piece.len() > LONGEST_BODY {
                return Err(Failure::lasting(Error::new(
                    Kind::ServerFailed,
                    format!("can't {doing}: the answer is larger than {LONGEST_BODY} bytes"),
                )));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    /// Waits for the next piece of a body, at most for the stall limit.
    pub(super) async fn piece(
        &self,
        doing: &str,
        next: impl Future<Output = reqwest::Result<Option<Bytes>>>,
    ) -> std::result::Result<Option<Bytes>, Failure> {
        match tokio::time::timeout(self.limits.stall, next).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(broken(doing, error)),
            Err(_) => Err(Failure::passing(Error::new(
                Kind::TimedOut,
                format!("can't {doing}: no byte for {} s", self.limits.stall.as_secs_f64()),
            ))),
        }
    }
}

pub(super) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads.
pub(super) fn location(from: &Url, headers: &HeaderMap) -> Option<Url> {
    from.join(headers.get(LOCATION)?.to_str().ok()?).ok()
}

/// An answer that is no success.
pub(super) fn refused(doing: &str, status: u16, headers: &HeaderMap, body: &[u8]) -> Failure {
    let error = answer::refusal(doing, status, headers, body);
    let mut failure = if matches!(status, 408 | 429 | 500 | 502 | 503 | 504) {
        Failure::passing(error)
    } else {
        Failure::lasting(error)
    };
    failure.pause = pacing::pause_asked_for(status, headers).filter(|_| matches!(status, 429 | 503));
    failure.unsent = status == 429;
    failure
}

/// No answer at all. The URL is taken out of the library's message: it may be signed.
pub(super) fn broken(doing: &str, error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let cause = root_cause(&error);
    if error.is_timeout() {
        let mut failure = Failure::passing(Error::new(
            Kind::TimedOut,
            format!("can't {doing}: no connection in time"),
        ));
        failure.unsent = error.is_connect();
        return failure;
    }
    if error.is_connect() {
        let failed = Error::new(
            Kind::Unreachable,
            format!("can't {doing}: no connection: {cause}"),
        );
        if cause.contains("certificate") {
            return Failure::lasting(failed.with_advice(
                "The server's certificate is not trusted here. If it is signed by your institution's own CA, give that with \
                 --ca-certificate.",
            ));
        }
        let mut failure = Failure::passing(failed);
        failure.unsent = true;
        return failure;
    }
    if error.is_builder() {
        return Failure::lasting(Error::new(Kind::Internal, format!("can't {doing}: {cause}")));
    }
    Failure::passing(Error::new(
        Kind::Unreachable,
        format!("can't {doing}: the connection broke: {cause}"),
    ))
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if error.source().is_none() {
        return error.to_string();
    }
    cause.to_string()
}
