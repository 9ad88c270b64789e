//! The second origin: object storage behind links that soon expire.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::{self, HeaderMap};
use hyper::{Method, Uri};
use jiff::Timestamp;

use crate::app::App;
use crate::blobs::Blob;
use crate::content::{self, Wanted, parse_range};
use crate::data::md5_hex;
use crate::reply::{Reply, encode_all, parse_query};

/// The links given out so far.
#[derive(Default)]
pub(crate) struct Links {
    issued: HashMap<String, Link>,
    count: u64,
    /// Requests that brought an `Authorization` header along, which Amazon S3 refuses.
    pub leaks: usize,
}

struct Link {
    blob: Arc<Blob>,
    /// Path and query, which must come back byte for byte.
    target: String,
    kind: &'static str,
    disposition: String,
    expires: Instant,
}

/// When so many links have been given out, those that expired long ago are forgotten.
const MANY: usize = 10_000;

impl Links {
    pub fn issue(
        &mut self,
        origin: &str,
        blob: Arc<Blob>,
        kind: &'static str,
        disposition: &str,
        seconds: u64,
    ) -> String {
        let now = Instant::now();
        if self.issued.len() >= MANY {
            self.issued
                .retain(|_, link| link.expires + Duration::from_secs(60) > now);
        }
        self.count += 1;
        let date = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let path = object_path(&blob.id);
        let halves = [0, 1].map(|half| md5_hex(format!("{half}{}{path}{date}", self.count).as_bytes()));
        let signature = halves.concat();
        let target = format!(
            "{path}?response-content-type={}&response-content-disposition={}&X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=invenio%2F{}%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date={date}&X-Amz-Expires={seconds}\
             &X-Amz-SignedHeaders=host&X-Amz-Signature={signature}",
            encode_all(kind),
            encode_all(disposition),
            &date[..8],
        );
        let location = format!("{origin}{target}");
        let expires = now + Duration::from_secs(seconds);
        let link = Link {
            blob,
            target,
            kind,
            disposition: disposition.to_string(),
            expires,
        };
        self.issued.insert(signature, link);
        location
    }
}

pub(crate) fn object_path(id: &str) -> String {
    format!("/invenio/{}/{}/{}/data", &id[..2], &id[2..4], &id[4..])
}

/// A request to the second origin.
pub(crate) fn answer(app: &App, method: &Method, uri: &Uri, headers: &HeaderMap) -> Reply {
    let path = uri.path();
    let mut links = app.links.lock();
    if headers.contains_key(header::AUTHORIZATION) {
        links.leaks += 1;
        return two_mechanisms(path);
    }
    let query = parse_query(uri.query().unwrap_or_default());
    let signature = query
        .iter()
        .find(|(name, _)| name == "X-Amz-Signature")
        .map(|(_, value)| value);
    let Some(link) = signature.and_then(|signature| links.issued.get(signature)) else {
        return refusal(403, "AccessDenied", "Access Denied.", path);
    };
    let signed = uri.path_and_query().map_or("", |target| target.as_str()) == link.target;
    if !signed || method != Method::GET {
        let message = "The request signature we calculated does not match the signature you provided. Check \
                       your key and signing method.";
        return refusal(403, "SignatureDoesNotMatch", message, path);
    }
    if Instant::now() >= link.expires {
        return refusal(403, "AccessDenied", "Request has expired", path);
    }
    send(link, headers)
}

/// A token beside a signed link.
pub(crate) fn two_mechanisms(path: &str) -> Reply {
    let message = "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string \
                   parameter or the Authorization header should be specified";
    refusal(400, "InvalidArgument", message, path)
}

fn send(link: &Link, headers: &HeaderMap) -> Reply {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let blob = &link.blob;
    let size = blob.size;
    // Above 5 MiB the server uploads in parts, and the tag is no checksum.
    let etag = match size {
        0..=5_242_880 => format!("\"{}\"", blob.md5),
        _ => format!("\"{}-{}\"", md5_hex(blob.id.as_bytes()), size.div_ceil(5_242_880)),
    };
    if text(header::IF_NONE_MATCH).is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == etag)) {
        return Reply::empty(304).with(header::ETAG, etag);
    }
    let range = text(header::RANGE);
    let several = range.is_some_and(|range| range.contains(','));
    let wanted = match range {
        // Any range of an empty object is refused, unlike at the API.
        Some(_) if size == 0 => Wanted::Bad,
        Some(_) if several => Wanted::Whole,
        range => parse_range(range, size),
    };
    let reply = match wanted {
        Wanted::Whole => content::part(blob, 200, 0, size),
        Wanted::Part(start, end) => content::part(blob, 206, start, end)
            .with(header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1)),
        Wanted::Bad => {
            let path = object_path(&blob.id);
            return refusal(
                416,
                "InvalidRange",
                "The requested range is not satisfiable",
                &path,
            )
            .with(header::CONTENT_RANGE, format!("bytes */{size}"));
        }
    };
    reply
        .with(header::ACCEPT_RANGES, "bytes")
        .with(header::CONTENT_TYPE, link.kind)
        .with(header::CONTENT_DISPOSITION, &link.disposition)
        .with(header::ETAG, etag)
}

pub(crate) fn refusal(status: u16, code: &str, message: &str, path: &str) -> Reply {
    let key = path.strip_prefix("/invenio/").unwrap_or_default();
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
         <Resource>{path}</Resource><RequestId>18EA35583AB2BAB85A07DA9D</RequestId><Key>{key}</Key>\
         <BucketName>invenio</BucketName></Error>"
    );
    Reply::new(status, "application/xml", body)
}
