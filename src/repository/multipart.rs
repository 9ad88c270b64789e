//! Uploads in parts (transfer type M): starting a file as one, the links of its parts, and sending one part.
//!
//! Called by `staging/`, and by `parts` for all parts of a file. Where a part goes says the server: to the repository
//! itself, whose URL is built here and gets the token, or along a signed link to an object store, which is used byte for
//! byte, never gets the token and is never shown. The server checks little: local storage commits a missing part as
//! zeros, S3 a wrong last part under its declared size, and a `checksum` given at the start is never verified, so none is
//! given (API notes, sections 3 and 10). Whoever commits has to have seen every part accepted, and compares at the end.

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use reqwest::header::{ETAG, HeaderMap};
use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::Repository;
use super::model::{Md5, RecordId, on_one_line};
use super::retry::Failure;
use super::transfers::Layout;
use super::transport::Ask;
use super::upload::{Put, Upload};
use super::urls::{Origin, check_new_key};
use crate::error::{Error, Kind, Result};

/// A file that was started in parts and waits for them.
pub struct Multipart {
    id: RecordId,
    key: Arc<str>,
    layout: Layout,
    places: Mutex<Places>,
    /// Held while new links are fetched, so that all who need them share one request.
    refreshing: Mutex<()>,
}

/// Where the parts go.
#[derive(Clone, Debug, PartialEq)]
enum Places {
    /// To the repository.
    Repository,
    /// Along signed links, in the order of the parts.
    Links(Arc<[Url]>),
}

/// How one part is sent, of which file, and who is told.
pub(super) struct Feed<'a> {
    pub(super) file: &'a File,
    /// Told how many bytes of the part were sent so far.
    pub(super) progress: &'a (dyn Fn(u64) + Sync),
    pub(super) stopped: &'a (dyn Fn() -> bool + Sync),
}

impl Multipart {
    /// How the file is cut up.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    fn doing(&self, number: u64) -> String {
        format!(
            "send part {number} of {} of file {} of draft {}",
            self.layout.count(),
            on_one_line(&self.key),
            self.id
        )
    }
}

impl Repository {
    /// Starts a file whose content will come in parts. Not repeated: after a passing failure it may have been started.
    ///
    /// # Errors
    /// `Refused` for a key that can't be stored or reached, for one that exists already, and from a server that knows no
    /// parts; `TooMany`, `NotFound`, `Denied`; `ServerFailed` if the links it gives can't be used. Once the server has
    /// shown that parts don't work, [`Repository::way`] says so.
    pub fn start_multipart(&self, id: &RecordId, key: &str, layout: Layout) -> Result<Multipart> {
        check_new_key(key)?;
        let doing = format!(
            "start file {} in draft {id}, in {} parts",
            on_one_line(key),
            layout.count()
        );
        let body = json!([{
            "key": key,
            "size": layout.size(),
            "transfer": {"type": "M", "parts": layout.count(), "part_size": layout.part_size()},
        }]);
        let ask = Ask::new(Method::POST, self.draft_url(id, "/files")?, doing.as_str()).body(&body);
        let answer = self.ask(ask).inspect_err(|error| {
            let exists = error
                .server_message()
                .is_some_and(|message| message.contains("already exists"));
            if error.kind() == Kind::Refused && !exists {
                self.transfers.parts_refused();
            }
        })?;
        let entry = match answer.value.get("entries") {
            Some(Value::Array(entries)) => entries.iter().find(|entry| entry["key"] == key),
            Some(Value::Object(entries)) => entries.get(key),
            _ => None,
        };
        let places = entry
            .ok_or("it is not in the answer")
            .and_then(|entry| self.places(entry, layout))
            .map_err(|why| {
                self.transfers.parts_refused();
                Error::new(Kind::ServerFailed, format!("can't {doing}: {why}"))
            })?;
        if matches!(places, Places::Links(_)) {
            self.transfers.parts_elsewhere();
        }
        Ok(Multipart {
            id: id.clone(),
            key: key.into(),
            layout,
            places: Mutex::new(places),
            refreshing: Mutex::new(()),
        })
    }

    /// Sends one part and gives its MD5. Passing failures are repeated within the limits; a part may be sent again, even
    /// if it arrived and only the answer was lost: a later one replaces it. (A server that lists both fails the commit, and
    /// giving up here instead would cost the same.)
    ///
    /// `upload` describes the whole file; its progress is told for this part alone.
    ///
    /// # Errors
    /// Refused for good: `TooLarge`, `Denied` (Zenodo starts a file in parts and then refuses each). `NotFound`: the entry is
    /// gone. Passing, after all tries: `RateLimited`, `ServerFailed`, `Unreachable`, `TimedOut`. `Local`: the file could not
    /// be read, or `ECANCELED`.
    pub fn put_part(&self, multipart: &Multipart, number: u64, upload: &Upload<'_>) -> Result<Md5> {
        let stopped = || upload.cancelled.load(std::sync::atomic::Ordering::Relaxed);
        let feed = Feed {
            file: upload.file,
            progress: upload.progress,
            stopped: &stopped,
        };
        self.send_part(multipart, number, &feed)
    }

    pub(super) fn send_part(&self, multipart: &Multipart, number: u64, feed: &Feed<'_>) -> Result<Md5> {
        let doing = multipart.doing(number);
        let limits = &self.transport.limits;
        let Some(range) = multipart.layout.range(number) else {
            return Err(Error::new(
                Kind::Internal,
                format!("can't {doing}: there is no such part"),
            ));
        };
        let begun = Instant::now();
        let mut growing = limits.first_pause;
        let mut renewed = false;
        let mut tries = 0;
        loop {
            let places = multipart.places.lock().clone();
            let url = self.place_of(multipart, &places, number)?;
            let put = Put {
                url: &url,
                doing: &doing,
                with_token: places == Places::Repository,
                file: feed.file,
                range: range.clone(),
                progress: feed.progress,
                stopped: feed.stopped,
            };
            tries += 1;
            let sent = self.put_once(&put);
            let failure = match sent.and_then(|sent| match places {
                Places::Repository => sent.taken_by_repository(&put),
                Places::Links(_) => taken_by_store(sent, &put),
            }) {
                Ok(md5) => return Ok(md5),
                Err(failure) => failure,
            };
            // A link that has expired is refused as a wrong one is. New ones cost a request, so once.
            if failure.status == Some(403) && !renewed && places != Places::Repository {
                renewed = true;
                self.renew_links(multipart, &places)?;
                continue;
            }
            let wait = failure
                .pause
                .unwrap_or_default()
                .max(growing / 2 + super::pacing::random_part(growing));
            if tries >= limits.tries || !failure.passing || wait > limits.whole {
                self.learn_from(&failure, &places, &range);
                return Err(failure.into_error(&Method::PUT, &url, tries, begun.elapsed()));
            }
            log::warn!("{}; trying again in {:.1} s", failure.error, wait.as_secs_f64());
            self.pause(&put, wait)
                .map_err(|failure| failure.into_error(&Method::PUT, &url, tries, begun.elapsed()))?;
            growing *= 2;
        }
    }

    fn learn_from(&self, failure: &Failure, places: &Places, range: &std::ops::Range<u64>) {
        // The files of a published record are locked: that says nothing of parts.
        let locked = failure
            .error
            .server_message()
            .is_some_and(|message| message.contains("locked"));
        match failure.status {
            Some(413) if *places == Places::Repository => {
                self.transfers.body_refused(range.end - range.start);
            }
            Some(403) if !locked => self.transfers.parts_refused(),
            _ => {}
        }
    }

    fn place_of(&self, multipart: &Multipart, places: &Places, number: u64) -> Result<Url> {
        match places {
            Places::Repository => {
                self.draft_file_url(&multipart.id, &multipart.key, &format!("/content/{number}"))
            }
            Places::Links(links) => usize::try_from(number - 1)
                .ok()
                .and_then(|index| links.get(index))
                .cloned()
                .ok_or_else(|| Error::new(Kind::Internal, format!("part {number} has no link"))),
        }
    }

    /// Every look at the entry signs new links.
    fn renew_links(&self, multipart: &Multipart, old: &Places) -> Result<()> {
        let _alone = multipart.refreshing.lock();
        if *multipart.places.lock() != *old {
            return Ok(()); // Another part's sender has just done it.
        }
        let doing = format!(
            "get new links for the parts of file {} of draft {}",
            on_one_line(&multipart.key),
            multipart.id
        );
        let url = self.draft_file_url(&multipart.id, &multipart.key, "")?;
        let entry = self.ask(Ask::get(url, doing.as_str()))?.value;
        let places = self
            .places(&entry, multipart.layout)
            .map_err(|why| Error::new(Kind::ServerFailed, format!("can't {doing}: {why}")))?;
        *multipart.places.lock() = places;
        Ok(())
    }

    /// Where the parts of an entry go. The server's links decide between the two ways; that of the repository's own parts
    /// is not used itself.
    fn places(&self, entry: &Value, layout: Layout) -> std::result::Result<Places, &'static str> {
        const NO_LINKS: &str = "the server gives no links for its parts";
        let links = entry.pointer("/links/parts").and_then(Value::as_array);
        let mut urls = vec![None; usize::try_from(layout.count()).map_err(|_| NO_LINKS)?];
        for link in links.ok_or(NO_LINKS)? {
            let place = link["part"]
                .as_u64()
                .and_then(|number| usize::try_from(number).ok()?.checked_sub(1))
                .and_then(|index| urls.get_mut(index))
                .ok_or("the server gives a link for a part that there is not")?;
            *place = link["url"].as_str().and_then(|text| Url::parse(text).ok());
        }
        let urls: Vec<Url> = urls.into_iter().collect::<Option<_>>().ok_or(NO_LINKS)?;
        // A server behind a proxy may call itself by another name than we do.
        let own_name = entry
            .pointer("/links/self")
            .and_then(Value::as_str)
            .and_then(|text| Url::parse(text).ok())
            .map(|url| Origin::of(&url));
        let base = self.transport.base.origin();
        let is_own = |url: &Url| {
            let origin = Origin::of(url);
            // An object store under the repository's own name still signs its links.
            url.query().is_none() && (origin == *base || Some(&origin) == own_name.as_ref())
        };
        if urls.iter().all(is_own) {
            return Ok(Places::Repository);
        }
        for url in &urls {
            if !matches!(url.scheme(), "http" | "https")
                || url.host_str().is_none()
                || !url.username().is_empty()
                || url.password().is_some()
            {
                return Err("a link of a part is no plain web address");
            }
            if base.is_secure() && !Origin::of(url).is_secure() {
                return Err("the parts would leave https for a host that others on the way could listen to");
            }
        }
        Ok(Places::Links(urls.into()))
    }
}

/// The MD5 of a part that the object store has: it tells the MD5 of what it got as the ETag.
fn taken_by_store(sent: super::upload::Sent, put: &Put<'_>) -> std::result::Result<Md5, Failure> {
    let (told, status) = (md5_told(&sent.headers), sent.status);
    let md5 = sent.whole(put)?;
    match told {
        Some(told) if told != md5 => Err(Failure::passing(Error::new(
            Kind::ServerFailed,
            format!(
                "can't {}: sent was {md5}, and {told} arrived at {}",
                put.doing,
                Origin::of(put.url)
            ),
        ))
        .at(put.url, Some(status))),
        _ => Ok(md5),
    }
}

/// The ETag, where it is an MD5: with a key of the user's or of a key service, S3 gives something that only looks like
/// one (S3's documentation of ETags).
fn md5_told(headers: &HeaderMap) -> Option<Md5> {
    let encrypted = headers.contains_key("x-amz-server-side-encryption-customer-algorithm")
        || headers
            .get("x-amz-server-side-encryption")
            .is_some_and(|method| method.as_bytes().starts_with(b"aws:kms"));
    if encrypted {
        return None;
    }
    Md5::from_hex(headers.get(ETAG)?.to_str().ok()?.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::super::Way;
    use super::super::testing::{Head, Server, answer, read_body};
    use super::*;
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    const SIZE: u64 = 25;
    const PART: u64 = 10;
    const JSON: &str = "Content-Type: application/json\r\n";
    const SIGNATURE: &str = "X-Amz-Signature=5ecre7";

    fn id() -> RecordId {
        RecordId::new("abcde-12345").unwrap()
    }

    fn layout() -> Layout {
        Layout::new(SIZE, PART).unwrap()
    }

    fn content() -> Vec<u8> {
        (0..SIZE as u8).collect()
    }

    fn md5(bytes: &[u8]) -> Md5 {
        crate::md5::of(bytes)
    }

    /// An entry with links of three parts below `place`.
    fn entry(own: &str, link: impl Fn(u64) -> String) -> Value {
        let links: Vec<Value> = (1..=3).map(|n| json!({"part": n, "url": link(n)})).collect();
        json!({"key": "a", "status": "pending", "transfer": {"type": "M"},
               "links": {"self": format!("{own}/api/records/abcde-12345/draft/files/a"), "parts": links}})
    }

    fn own_links(origin: &str) -> Value {
        entry(origin, |n| {
            format!("{origin}/api/records/abcde-12345/draft/files/a/content/{n}")
        })
    }

    fn signed_links(origin: &str, store: &str, round: usize) -> Value {
        entry(origin, |n| {
            format!("{store}/b/data?partNumber={n}&round={round}&{SIGNATURE}")
        })
    }

    /// Answers the start with these links, and the parts as told.
    fn repository_with(
        links: impl Fn(usize) -> Value + Send + Sync + 'static,
        part: impl Fn(usize, &Head, &mut std::net::TcpStream) + Send + Sync + 'static,
    ) -> Server {
        let puts = AtomicU64::new(0);
        Server::start(move |number, head, stream| {
            if head.line.starts_with("POST") {
                read_body(stream, head.length());
                let list = json!({"entries": [links(number)]});
                return answer(stream, 201, JSON, list.to_string().as_bytes());
            }
            if head.line.starts_with("GET") {
                return answer(stream, 200, JSON, links(number).to_string().as_bytes());
            }
            let number = puts.fetch_add(1, Ordering::Relaxed) as usize + 1;
            part(number, head, stream);
        })
    }

    /// An object store that keeps nothing.
    fn store(status: impl Fn(usize) -> u16 + Send + Sync + 'static) -> Server {
        Server::start(move |number, head, stream| {
            let body = read_body(stream, head.length());
            let tag = format!("ETag: \"{}\"\r\n", md5(&body));
            answer(stream, status(number), &tag, b"");
        })
    }

    fn send_all(repository: &Repository, multipart: &Multipart) -> Result<Md5> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content()).unwrap();
        let sent = AtomicU64::new(0);
        let upload = Upload {
            file: &file,
            size: SIZE,
            progress: &|bytes| {
                sent.fetch_max(bytes, Ordering::Relaxed);
            },
            cancelled: &AtomicBool::new(false),
        };
        let outcome = repository.put_parts(multipart, &upload);
        if outcome.is_ok() {
            assert_eq!(sent.load(Ordering::Relaxed), SIZE);
        }
        outcome
    }

    fn taken(stream: &mut std::net::TcpStream, head: &Head) -> Vec<u8> {
        let body = read_body(stream, head.length());
        answer(stream, 200, JSON, br#"{"key": "a"}"#);
        body
    }

    #[test]
    fn parts_of_a_repository_go_to_its_own_url_with_the_token_whatever_it_calls_itself() {
        for origin in ["https://rdm.example.org", "http://internal:5000"] {
            let got = Arc::new(Mutex::new(Vec::new()));
            let seen = got.clone();
            let server = repository_with(
                move |_| own_links(origin),
                move |_, head, stream| {
                    let part = head.line.split(' ').nth(1).unwrap().to_owned();
                    let token = head.header("authorization").unwrap().to_owned();
                    seen.lock().push((part, token, taken(stream, head)));
                },
            );
            let repository = server.repository();
            let multipart = repository.start_multipart(&id(), "a", layout()).unwrap();
            assert_eq!(send_all(&repository, &multipart).unwrap(), md5(&content()));
            let mut got = got.lock();
            got.sort();
            let all: Vec<u8> = got.iter().flat_map(|(_, _, body)| body.clone()).collect();
            assert_eq!(all, content());
            assert_eq!(got.len(), 3);
            for (number, (path, token, _)) in got.iter().enumerate() {
                let wanted = format!("/api/records/abcde-12345/draft/files/a/content/{}", number + 1);
                assert_eq!((path, token.as_str()), (&wanted, "Bearer s3cret"));
            }
        }
    }

    #[test]
    fn signed_links_get_no_token_and_are_never_shown() {
        let store = store(|_| 500);
        let at = store.url.clone();
        let server = repository_with(move |_| signed_links("http://rdm", &at, 0), |_, _, _| ());
        let repository = server.repository();
        let multipart = repository.start_multipart(&id(), "a", layout()).unwrap();
        let error = send_all(&repository, &multipart).unwrap_err();
        assert_eq!(error.kind(), Kind::ServerFailed);
        assert_eq!(error.attempt().unwrap().tries, 3);
        assert!(!format!("{error} {error:?}").contains("5ecre7"), "{error}");
        let heads = store.heads.lock();
        assert!(heads.iter().all(|head| head.header("authorization").is_none()));
        assert!(heads.iter().all(|head| head.line.contains(SIGNATURE)));
        assert!(matches!(repository.way(200 << 20), Way::Parts(_)), "learned");
    }

    #[test]
    fn an_expired_link_is_renewed_once_for_all_parts() {
        // The links that came first are refused, whichever parts they are for.
        let store = Server::start(|_, head, stream| {
            let body = read_body(stream, head.length());
            let status = if head.line.contains("round=1&") { 403 } else { 200 };
            answer(stream, status, &format!("ETag: \"{}\"\r\n", md5(&body)), b"");
        });
        let at = store.url.clone();
        let server = repository_with(
            move |number| signed_links("http://rdm", &at, number),
            |_, _, _| (),
        );
        let repository = server.repository();
        let multipart = repository.start_multipart(&id(), "a", layout()).unwrap();
        assert_eq!(send_all(&repository, &multipart).unwrap(), md5(&content()));
        // Three parts, of which at least one was refused.
        assert!((4..=6).contains(&store.count()), "{}", store.count());
        let renewals = server.count() - 1;
        assert!((1..=3).contains(&renewals), "{renewals}");
    }

    #[test]
    fn what_arrives_otherwise_at_the_store_is_sent_again() {
        let store = Server::start(|number, head, stream| {
            let body = read_body(stream, head.length());
            let told = if number == 1 { md5(b"else") } else { md5(&body) };
            answer(stream, 200, &format!("ETag: \"{told}\"\r\n"), b"");
        });
        let at = store.url.clone();
        let server = repository_with(move |_| signed_links("http://rdm", &at, 0), |_, _, _| ());
        let repository = server.repository();
        let multipart = repository.start_multipart(&id(), "a", layout()).unwrap();
        assert!(send_all(&repository, &multipart).is_ok());
        assert_eq!(store.count(), 4);
    }

    #[test]
    fn an_etag_that_is_no_md5_is_not_compared() {
        let headers = |pairs: &[(&'static str, &str)]| -> HeaderMap {
            pairs
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect()
        };
        let hex = "\"900150983cd24fb0d6963f7d28e17f72\"";
        assert!(md5_told(&headers(&[("etag", hex)])).is_some());
        assert!(md5_told(&headers(&[("etag", "\"900150983cd24fb0d6963f7d28e17f72-2\"")])).is_none());
        assert!(
            md5_told(&headers(&[
                ("etag", hex),
                ("x-amz-server-side-encryption", "aws:kms")
            ]))
            .is_none()
        );
        assert!(
            md5_told(&headers(&[
                ("etag", hex),
                ("x-amz-server-side-encryption", "AES256")
            ]))
            .is_some()
        );
    }

    #[test]
    fn only_the_part_that_failed_is_sent_again() {
        for trouble in [429, 500, 503, 0, 1, 200] {
            let server = repository_with(
                |_| own_links("http://rdm"),
                move |number, head, stream| match (number, trouble) {
                    (1, 0) => drop(read_body(stream, 3)),
                    (1, 1) => std::thread::sleep(std::time::Duration::from_secs(1)),
                    (1, 200) => {
                        read_body(stream, head.length());
                        answer(
                            stream,
                            200,
                            JSON,
                            br#"{"errors": "File upload transfer failed."}"#,
                        );
                    }
                    (1, status) => {
                        read_body(stream, head.length());
                        answer(stream, status, JSON, b"{}");
                    }
                    _ => drop(taken(stream, head)),
                },
            );
            let repository = server.repository();
            let multipart = repository.start_multipart(&id(), "a", layout()).unwrap();
            let sent = send_all(&repository, &multipart);
            assert!(sent.is_ok(), "{trouble}: {sent:?}");
            assert_eq!(server.count(), 1 + 4, "{trouble}");
        }
    }

    #[test]
    fn one_part_that_can_not_be_sent_stops_all_and_is_the_reason() {
        for (status, kind) in [(403, Kind::Denied), (404, Kind::NotFound), (413, Kind::TooLarge)] {
            let server = repository_with(
                |_| own_links("http://rdm"),
                move |_, head, stream| {
                    read_body(stream, head.length());
                    answer(stream, status, JSON, br#"{"message": "Permission denied."}"#);
                },
            );
            let repository = server.repository();
            let multipart = repository.start_multipart(&id(), "a", layout()).unwrap();
            let error = send_all(&repository, &multipart).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(server.count() <= 4);
        }
    }

    #[test]
    fn a_stopped_upload_is_never_a_success() {
        let server = repository_with(
            |_| own_links("http://rdm"),
            |_, _, _| std::thread::sleep(std::time::Duration::from_secs(2)),
        );
        let repository = server.repository();
        let multipart = repository.start_multipart(&id(), "a", layout()).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        let cancelled = AtomicBool::new(false);
        let upload = Upload {
            file: &file,
            size: SIZE,
            progress: &|_| cancelled.store(true, Ordering::Relaxed),
            cancelled: &cancelled,
        };
        let error = repository.put_parts(&multipart, &upload).unwrap_err();
        assert_eq!(error.kind(), Kind::Local(libc::ECANCELED), "{error}");
    }

    #[test]
    fn links_that_can_not_be_used_are_refused_before_a_byte_is_sent() {
        let unusable = [
            json!({"key": "a"}),
            json!({"key": "a", "links": {"parts": []}}),
            entry("http://rdm", |n| format!("http://user:word@s3.example/{n}?x")),
            entry("http://rdm", |n| format!("ftp://s3.example/{n}?x")),
            entry("http://rdm", |_| "nonsense".into()),
            json!({"key": "a", "links": {"parts": [{"part": 4, "url": "http://s3.example/?x"}]}}),
        ];
        for links in unusable {
            let shown = links.to_string();
            let server = repository_with(move |_| links.clone(), |_, _, _| ());
            let repository = server.repository();
            let error = repository.start_multipart(&id(), "a", layout()).err().unwrap();
            assert_eq!(error.kind(), Kind::ServerFailed, "{shown}");
            assert_eq!(server.count(), 1);
        }
    }

    #[test]
    fn the_parts_of_an_https_repository_never_leave_https() {
        let settings = super::super::Settings {
            url: "https://rdm.example".into(),
            ..Default::default()
        };
        let repository = Repository::connect(settings).unwrap();
        let places =
            |store: &str| repository.places(&signed_links("https://rdm.example", store, 0), layout());
        assert!(matches!(places("https://s3.example"), Ok(Places::Links(_))));
        assert!(places("http://s3.example").is_err());
        // An object store behind the repository's own name.
        assert!(matches!(places("https://rdm.example"), Ok(Places::Links(_))));
    }
}
