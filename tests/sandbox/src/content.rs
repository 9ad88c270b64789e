//! A file's content at the API, in the ways known servers send it.

use std::sync::Arc;

use hyper::header::{self, HeaderName};
use jiff::Timestamp;

use crate::app::App;
use crate::blobs::Blob;
use crate::errors::Problem;
use crate::files;
use crate::mimetypes;
use crate::reply::{Call, Failure, Payload, Reply, encode_all};
use crate::routes::Route;
use crate::settings::{ContentMode, Flavour};
use crate::store::http_date;

/// What is wanted of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wanted {
    Whole,
    /// First byte and the one after the last.
    Part(u64, u64),
    /// Beyond the end, several ranges, malformed, or not in bytes.
    Bad,
}

/// Reads a `Range` header as the server's library does.
pub(crate) fn parse_range(range: Option<&str>, size: u64) -> Wanted {
    let Some(range) = range else { return Wanted::Whole };
    if size == 0 {
        return Wanted::Whole;
    }
    let Some((unit, spec)) = range.split_once('=') else {
        return Wanted::Bad;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return Wanted::Bad;
    }
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Wanted::Bad;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    match (first.trim(), last.trim()) {
        ("", last) => match number(last) {
            Some(0) | None => Wanted::Bad,
            Some(count) => Wanted::Part(size.saturating_sub(count), size),
        },
        (first, "") => match number(first) {
            Some(first) if first < size => Wanted::Part(first, size),
            _ => Wanted::Bad,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last && first < size => {
                Wanted::Part(first, size.min(last.saturating_add(1)))
            }
            _ => Wanted::Bad,
        },
    }
}

/// `GET …/files/{key}/content`, of a record or a draft.
pub(crate) fn get(app: &App, call: &Call, draft: bool) -> Result<Reply, Failure> {
    call.accepts(files::JSON)?;
    let mut knobs = app.knobs.lock().clone();
    if call.target.route == Route::PageContent {
        // What people download goes another way, which does ranges and takes no tokens.
        if knobs.flavour != Flavour::Zenodo {
            return Err(Problem::no_route().into());
        }
        knobs.mode = ContentMode::Ranges;
    }
    let (blob, updated) = {
        let store = app.store.lock();
        let (id, key) = (&call.target.id, &call.target.key);
        let (_, entry) = if draft {
            files::of_draft(&store, id, key, call.user, &call.method)?
        } else {
            let user = call.user.filter(|_| call.target.route != Route::PageContent);
            files::of_record(&store, id, key, user)?
        };
        match entry.content() {
            Some(blob) => (blob.clone(), entry.updated),
            // A pending file is an error of the server's, except for multipart ones.
            None if entry.parts.is_some() => return Err(Problem::denied().into()),
            None => return Err(Problem::server_error(500).into()),
        }
    };
    let key = &call.target.key;
    let kind = mimetypes::sanitised(mimetypes::guess(key));
    let disposition = disposition(key, kind);
    if knobs.mode == ContentMode::Redirect {
        let location = app
            .links
            .lock()
            .issue(&app.objects, blob, kind, &disposition, knobs.link_seconds);
        return Ok(Reply::new(302, kind, location.clone())
            .with(header::LOCATION, location)
            .with(header::CONTENT_DISPOSITION, disposition)
            .with(header::CACHE_CONTROL, "no-cache"));
    }
    let etag = format!("\"md5:{}\"", blob.md5);
    let v12 = knobs.mode == ContentMode::V12;
    if !v12 && not_modified(call, &etag, updated) {
        return Ok(Reply::empty(304)
            .with(header::ETAG, etag)
            .with(header::LAST_MODIFIED, http_date(updated))
            .with(header::CACHE_CONTROL, "no-cache"));
    }
    let wanted = match knobs.mode {
        ContentMode::Ignored => Wanted::Whole,
        _ if !if_range(call, &etag, updated) => Wanted::Whole,
        _ => parse_range(call.header(header::RANGE), blob.size),
    };
    let size = blob.size;
    let mut reply = match wanted {
        Wanted::Whole => part(&blob, 200, 0, size),
        Wanted::Part(start, end) => part(&blob, if v12 { 200 } else { 206 }, start, end)
            .with(header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1)),
        Wanted::Bad if v12 => {
            let mut problem = Problem::server_error(500);
            problem.body["message"] = serde_json::Value::Null;
            return Err(problem.into());
        }
        Wanted::Bad => {
            return Err(Problem::new(416, "The server cannot provide the requested range.").into());
        }
    };
    match knobs.mode {
        ContentMode::Ranges => reply.set(header::ACCEPT_RANGES, "bytes"),
        ContentMode::V12 if matches!(wanted, Wanted::Part(..)) => reply.set(header::ACCEPT_RANGES, "none"),
        _ => {}
    }
    if !v12 {
        reply.set(header::CACHE_CONTROL, "no-cache");
    }
    reply.set(header::CONTENT_TYPE, kind);
    reply.set(header::CONTENT_DISPOSITION, disposition);
    // In hex, not in base64 as the header's standard has it.
    reply.set(HeaderName::from_static("content-md5"), &blob.md5);
    reply.set(header::ETAG, etag);
    reply.set(header::LAST_MODIFIED, http_date(updated));
    reply.set(header::CONTENT_SECURITY_POLICY, "default-src 'none';");
    reply.set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    Ok(reply)
}

pub(crate) fn part(blob: &Arc<Blob>, status: u16, start: u64, end: u64) -> Reply {
    let mut reply = Reply::empty(status);
    reply.body = Payload::File(blob.clone(), start..end);
    reply
}

fn not_modified(call: &Call, etag: &str, updated: Timestamp) -> bool {
    if let Some(tags) = call.header(header::IF_NONE_MATCH) {
        return tags
            .split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag);
    }
    let since = call.header(header::IF_MODIFIED_SINCE).and_then(parse_http_date);
    since.is_some_and(|since| updated.as_second() <= since)
}

/// Whether a range may be heeded: `If-Range` has to name this very content.
fn if_range(call: &Call, etag: &str, updated: Timestamp) -> bool {
    match call.header(header::IF_RANGE) {
        None => true,
        Some(value) => match parse_http_date(value) {
            Some(since) => updated.as_second() <= since,
            None => value.trim() == etag,
        },
    }
}

fn parse_http_date(value: &str) -> Option<i64> {
    let time = jiff::fmt::strtime::parse("%a, %d %b %Y %H:%M:%S GMT", value.trim()).ok()?;
    let zoned = time.to_datetime().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(zoned.timestamp().as_second())
}

fn disposition(key: &str, kind: &str) -> String {
    if kind != "application/octet-stream" {
        return "inline".to_string();
    }
    let plain = |name: &str| {
        let token = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        if token && !name.is_empty() {
            name.to_string()
        } else {
            format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
        }
    };
    if key.is_ascii() {
        format!("attachment; filename={}", plain(key))
    } else {
        let ascii: String = key.chars().filter(char::is_ascii).collect();
        format!(
            "attachment; filename={}; filename*=UTF-8''{}",
            plain(&ascii),
            encode_all(key)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let of = |range: &str| parse_range(Some(range), 5000);
        assert_eq!(of("bytes=0-99"), Wanted::Part(0, 100));
        assert_eq!(of("bytes=4900-"), Wanted::Part(4900, 5000));
        assert_eq!(of("bytes=-100"), Wanted::Part(4900, 5000));
        assert_eq!(of("bytes=4990-9999"), Wanted::Part(4990, 5000));
        for bad in [
            "bytes=5000-",
            "bytes=0-1,5-6",
            "bytes=9-3",
            "bytes=x-",
            "lines=0-1",
            "bytes",
            "bytes=-0",
        ] {
            assert_eq!(of(bad), Wanted::Bad, "{bad}");
        }
        assert_eq!(parse_range(Some("bytes=7-9"), 0), Wanted::Whole);
    }

    #[test]
    fn dispositions() {
        assert_eq!(
            disposition("data.bin", "application/octet-stream"),
            "attachment; filename=data.bin"
        );
        assert_eq!(
            disposition("a b.bin", "application/octet-stream"),
            "attachment; filename=\"a b.bin\""
        );
        let name = disposition("Größe.bin", "application/octet-stream");
        assert_eq!(
            name,
            "attachment; filename=Gre.bin; filename*=UTF-8''Gr%C3%B6%C3%9Fe.bin"
        );
        assert_eq!(disposition("a.txt", "text/plain; charset=utf-8"), "inline");
    }

    #[test]
    fn http_dates_are_read_back() {
        let now = Timestamp::now();
        assert_eq!(parse_http_date(&http_date(now)), Some(now.as_second()));
    }
}
