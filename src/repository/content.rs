//! Reading a file's bytes: ranges where the server does them, whole files where it doesn't, and links to other hosts.
//!
//! Called by `content/` and `staging/`. What came is judged by `Content-Range` and the number of bytes, never by the status
//! alone; nothing that is not the file's content is ever handed on as such.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue};
use reqwest::{Method, Response, Url};

use super::model::{FilePlace, Md5, Owner};
use super::retry::Failure;
use super::transport::{Reply, Transport, refused};
use super::urls::{Origin, encode_key, shown};
use super::{Engine, Repository, answer, transport::Repeat};
use crate::error::{Error, Kind, Result};

/// Which bytes of the file an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// A part, by its Content-Range (whatever the status: version 12 answers 200).
    Part {
        /// The first byte's place in the file.
        first: u64,
        /// The last byte's, inclusive.
        last: u64,
        /// The file's size, if the server says it.
        total: Option<u64>,
    },
    /// All of it, from the start. It may be asked for a part and come nevertheless.
    Whole {
        /// The file's size, if the server says it.
        length: Option<u64>,
    },
}

/// A file's bytes on their way.
pub struct Download {
    /// Which bytes these are.
    pub coverage: Coverage,
    /// The MD5 of the whole file, where the answer says it (local storage does, S3 doesn't).
    pub etag_md5: Option<Md5>,
    doing: String,
    host: String,
    url: Url,
    status: u16,
    begun: Instant,
    response: Response,
    /// Bytes still to come, if that is known.
    left: Option<u64>,
    /// How it ended: with nothing more, or with an error.
    ended: Option<Option<Error>>,
    engine: Arc<Engine>,
    transport: Arc<Transport>,
}

impl Repository {
    /// Begins to read a file. `want` is the first and the last byte, inclusive; without it no range is asked for. A server
    /// may send the whole file instead of a part, which `coverage` tells. Never ask a range of an empty file or one that
    /// begins beyond the end: some servers send the whole file then, others fail.
    ///
    /// Retried until the first byte may be read, and no further: a download that breaks off is the caller's to go on with.
    ///
    /// # Errors
    /// `Changed` if the file is shorter than `want` says (416), `NotFound`, `Denied`, `Refused` for a key that no request
    /// can reach, `ServerFailed` if what came is not the content asked for, else as any request.
    pub fn open_content(&self, place: &FilePlace, want: Option<(u64, u64)>) -> Result<Download> {
        let doing = format!("read {place}");
        let key = encode_key(&place.key)?;
        let (path, repeat) = match &place.owner {
            Owner::Record(id) => (format!("records/{id}/files/{key}/content"), Repeat::Safe),
            // 500 is what the content of a file without content is answered with (API notes, section 3).
            Owner::Draft(id) => (
                format!("records/{id}/draft/files/{key}/content"),
                Repeat::SafeBut500,
            ),
        };
        let url = self.transport.base.api(&path)?;
        let range = match want {
            None => None,
            Some((first, last)) if first <= last => {
                let range = HeaderValue::from_str(&format!("bytes={first}-{last}"))
                    .map_err(|_| Error::new(Kind::Internal, "a range does not fit a header"))?;
                Some(range)
            }
            Some((first, last)) => {
                return Err(Error::new(
                    Kind::Internal,
                    format!("can't {doing}: the range {first}-{last} is empty"),
                ));
            }
        };
        let begun = Instant::now();
        let attempt = async |_tries| {
            if let Some(part) = self.part_from_page(place, want, range.as_ref(), &doing).await {
                return Ok(part);
            }
            let reply = self.content_reply(place, &url, &doing, range.as_ref()).await?;
            self.judge(reply, &doing, want, begun).await
        };
        self.engine
            .wait(
                self.transport
                    .persist(&Method::GET, &url, repeat, &doing, attempt),
            )
            .map_err(|error| self.transport.advised(error))
    }

    /// Asks the host of a remembered link, else the repository, which may send us to such a host. A link that is refused
    /// there (expired, or the file is gone) is forgotten and the repository asked once more.
    async fn content_reply(
        &self,
        place: &FilePlace,
        url: &Url,
        doing: &str,
        range: Option<&HeaderValue>,
    ) -> std::result::Result<Reply, Failure> {
        let own = self.transport.base.origin();
        let mut last_chance = false;
        loop {
            let target = match self.presigned.get(place) {
                Some(link) if !last_chance => link,
                _ => url.clone(),
            };
            let reply = self.transport.get(doing, &target, "*/*", range).await?;
            let elsewhere = Origin::of(&reply.url) != *own;
            if elsewhere && matches!(reply.status, 400 | 403 | 404) {
                self.presigned.forget(place);
                if last_chance {
                    return Err(Failure::lasting(Error::new(
                        Kind::ServerFailed,
                        format!(
                            "can't {doing}: the repository's storage at {} refuses it",
                            Origin::of(&reply.url)
                        ),
                    ))
                    .at(&reply.url, Some(reply.status)));
                }
                last_chance = true;
                continue;
            }
            if elsewhere && (200..300).contains(&reply.status) {
                self.presigned.keep(place, &reply.url, reply.response.headers());
            }
            return Ok(reply);
        }
    }

    /// Decides whether an answer is content, and which part.
    pub(super) async fn judge(
        &self,
        reply: Reply,
        doing: &str,
        want: Option<(u64, u64)>,
        begun: Instant,
    ) -> std::result::Result<Download, Failure> {
        let Reply {
            status,
            url,
            mut response,
        } = reply;
        if status == 416 {
            return Err(Failure::lasting(Error::new(
                Kind::Changed,
                format!("can't {doing}: the file is shorter than it was"),
            ))
            .at(&url, Some(status)));
        }
        if !(200..300).contains(&status) {
            let headers = std::mem::take(response.headers_mut());
            let body = self.transport.body(doing, response).await?;
            return Err(refused(doing, status, &headers, &body).at(&url, Some(status)));
        }
        let headers = response.headers();
        let own = Origin::of(&url) == *self.transport.base.origin();
        let etag_md5 = if own { md5_of(headers) } else { None };
        if answer::is_html(headers) && etag_md5.is_none() && !asked_for_html(&url) {
            return Err(Failure::passing(Error::new(
                Kind::ServerFailed,
                format!("can't {doing}: an HTML page came where file content was due"),
            ))
            .at(&url, Some(status)));
        }
        let coverage = coverage(status, headers, want).map_err(|why| {
            Failure::lasting(Error::new(
                Kind::ServerFailed,
                format!("can't {doing}: the answer is not what was asked for: {why}"),
            ))
            .at(&url, Some(status))
        })?;
        self.transport.note_word(&url);
        log::debug!(
            "GET {}: {status}, {} ms, {coverage:?}",
            shown(&url),
            begun.elapsed().as_millis()
        );
        Ok(Download {
            left: match coverage {
                Coverage::Part { first, last, .. } => Some(last - first + 1),
                Coverage::Whole { length } => length,
            },
            coverage,
            etag_md5,
            doing: doing.to_owned(),
            host: Origin::of(&url).to_string(),
            url,
            status,
            begun,
            response,
            ended: None,
            engine: self.engine.clone(),
            transport: self.transport.clone(),
        })
    }
}

impl Download {
    /// The next piece, or `None` at the end. Blocks at most for the stall limit.
    ///
    /// # Errors
    /// `TimedOut` if no byte came for that long, `Unreachable` if the connection broke or ended early, `ServerFailed` if
    /// more came than was announced. The same again if asked again.
    #[allow(clippy::should_implement_trait)] // An iterator goes on after an error; this does not.
    pub fn next(&mut self) -> Result<Option<Bytes>> {
        if let Some(end) = &self.ended {
            return end.clone().map_or(Ok(None), Err);
        }
        let piece = self
            .engine
            .wait(self.transport.piece(&self.doing, self.response.chunk()));
        let outcome = match piece {
            Err(failure) => Err(failure),
            Ok(Some(bytes)) => match self.left {
                Some(left) if bytes.len() as u64 > left => Err(Failure::lasting(Error::new(
                    Kind::ServerFailed,
                    format!("can't {}: more bytes came than were announced", self.doing),
                ))),
                left => {
                    self.left = left.map(|left| left - bytes.len() as u64);
                    return Ok(Some(bytes));
                }
            },
            Ok(None) => match self.left {
                None | Some(0) => Ok(None),
                Some(left) => Err(Failure::passing(Error::new(
                    Kind::Unreachable,
                    format!("can't {}: the connection ended {left} bytes early", self.doing),
                ))),
            },
        };
        let elapsed = self.begun.elapsed();
        log::debug!(
            "GET {}: {} after {} ms",
            shown(&self.url),
            if outcome.is_ok() { "read" } else { "broke off" },
            elapsed.as_millis()
        );
        let outcome = outcome.map_err(|failure| {
            failure
                .at(&self.url, Some(self.status))
                .into_error(&Method::GET, &self.url, 1, elapsed)
        });
        self.ended = Some(outcome.as_ref().err().cloned());
        outcome
    }

    /// Scheme, host and port of who really answered: what a host can do is learned once.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download")
            .field("doing", &self.doing)
            .field("coverage", &self.coverage)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// Storage elsewhere is told by the link itself what type to say.
fn asked_for_html(url: &Url) -> bool {
    url.query_pairs()
        .any(|(name, value)| name == "response-content-type" && value.starts_with("text/html"))
}

fn coverage(
    status: u16,
    headers: &HeaderMap,
    want: Option<(u64, u64)>,
) -> std::result::Result<Coverage, &'static str> {
    if headers
        .get(CONTENT_ENCODING)
        .is_some_and(|encoding| encoding != "identity" && !encoding.is_empty())
    {
        return Err("it is compressed, which was not asked for");
    }
    if !matches!(status, 200 | 203 | 206) {
        return Err("this status has no content");
    }
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    let Some(range) = headers.get(CONTENT_RANGE) else {
        return match status {
            206 => Err("it is a part that does not say which"),
            _ => Ok(Coverage::Whole { length }),
        };
    };
    let (first, last, total) = range
        .to_str()
        .ok()
        .and_then(content_range)
        .ok_or("its Content-Range makes no sense")?;
    if length.is_some_and(|length| length != last - first + 1) {
        return Err("its Content-Range and Content-Length contradict each other");
    }
    match want {
        Some((from, to)) if first == from && last <= to => Ok(Coverage::Part { first, last, total }),
        Some(_) => Err("it is another part"),
        None if first == 0 && total == Some(last + 1) => Ok(Coverage::Whole { length: total }),
        None => Err("it is a part, and the whole was asked for"),
    }
}

/// `bytes 0-99/5000` or `bytes 0-99/*`.
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (
        first.trim().parse::<u64>().ok()?,
        last.trim().parse::<u64>().ok()?,
    );
    let total = match total.trim() {
        "*" => None,
        number => Some(number.parse::<u64>().ok()?),
    };
    // The end is below `u64::MAX`, so that `last + 1` can't overflow.
    let sane = first <= last && last < u64::MAX && total.is_none_or(|total| last < total);
    sane.then_some((first, last, total))
}

/// The whole file's MD5: `ETag: "md5:…"` or `Content-MD5` in hexadecimal, as InvenioRDM sends them.
fn md5_of(headers: &HeaderMap) -> Option<Md5> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    text(ETAG.as_str())
        .and_then(|tag| {
            tag.trim_start_matches("W/")
                .trim_matches('"')
                .strip_prefix("md5:")
        })
        .and_then(Md5::from_hex)
        .or_else(|| text("content-md5").and_then(Md5::from_hex))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn judged(
        status: u16,
        pairs: &[(&'static str, &str)],
        want: Option<(u64, u64)>,
    ) -> std::result::Result<Coverage, &'static str> {
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        coverage(status, &headers, want)
    }

    #[test]
    fn a_part_is_told_by_content_range_and_never_by_the_status() {
        let part = Ok(Coverage::Part {
            first: 0,
            last: 99,
            total: Some(5000),
        });
        let headers = [("content-range", "bytes 0-99/5000"), ("content-length", "100")];
        assert_eq!(judged(206, &headers, Some((0, 99))), part);
        assert_eq!(judged(200, &headers, Some((0, 99))), part, "version 12");
        assert_eq!(
            judged(200, &[("content-length", "5000")], Some((0, 99))),
            Ok(Coverage::Whole { length: Some(5000) })
        );
    }

    #[test]
    fn a_part_that_was_not_asked_for_is_refused() {
        for (status, headers, want) in [
            (206, vec![], Some((0, 99))),
            (206, vec![("content-range", "bytes 1-99/5000")], Some((0, 99))),
            (206, vec![("content-range", "bytes 0-100/5000")], Some((0, 99))),
            (206, vec![("content-range", "bytes 99-0/5000")], Some((0, 99))),
            (206, vec![("content-range", "bytes 0-99/50")], Some((0, 99))),
            (206, vec![("content-range", "nonsense")], Some((0, 99))),
            (
                206,
                vec![("content-range", "bytes 0-99/5000"), ("content-length", "99")],
                Some((0, 99)),
            ),
            (200, vec![("content-range", "bytes 0-99/5000")], None),
            (200, vec![("content-encoding", "gzip")], None),
            (204, vec![], None),
        ] {
            assert!(
                judged(status, &headers, want).is_err(),
                "{status} {headers:?} {want:?}"
            );
        }
        assert_eq!(
            judged(206, &[("content-range", "bytes 0-99/100")], None),
            Ok(Coverage::Whole { length: Some(100) })
        );
    }

    #[test]
    fn the_whole_files_md5_is_read_where_it_is_said() {
        let hex = "900150983cd24fb0d6963f7d28e17f72";
        for (name, value, found) in [
            ("etag", format!("\"md5:{hex}\""), true),
            ("content-md5", hex.to_owned(), true),
            ("etag", format!("\"{hex}\""), false),
            ("content-md5", "kAFQmDzST7DWlj99KOF/cg==".to_owned(), false),
        ] {
            let headers: HeaderMap = [(name.parse().unwrap(), value.parse().unwrap())]
                .into_iter()
                .collect();
            assert_eq!(md5_of(&headers).is_some(), found, "{name}: {value}");
        }
    }

    use super::super::model::RecordId;
    use super::super::testing::{Head, Server, answer};
    use std::io::Write;

    fn place() -> FilePlace {
        FilePlace {
            owner: Owner::Record(RecordId::new("abcde-12345").unwrap()),
            key: "a".into(),
        }
    }

    fn read(download: &mut Download) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(piece) = download.next()? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    /// A repository that sends its readers on to `storage`, with a link that is good for a minute.
    fn sending_on(storage: &Server) -> Server {
        let target = storage.url.clone();
        Server::start(move |number, _, stream| {
            let date = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
            let to = format!(
                "Location: {target}/bucket/data?X-Amz-Date={date}&X-Amz-Expires=60&X-Amz-Signature=n{number}\r\n"
            );
            answer(stream, 302, &to, b"");
        })
    }

    fn range_of(head: &Head) -> Option<&str> {
        head.header("range")
    }

    #[test]
    fn the_token_stays_at_home_and_a_link_is_used_again() {
        let storage = Server::start(|_, _, stream| {
            answer(stream, 206, "Content-Range: bytes 0-2/5\r\n", b"abc");
        });
        let server = sending_on(&storage);
        let repository = server.repository();
        for _ in 0..2 {
            let mut download = repository.open_content(&place(), Some((0, 2))).unwrap();
            assert_eq!(download.host(), storage.url);
            assert_eq!(read(&mut download).unwrap(), b"abc");
        }
        assert_eq!((server.count(), storage.count()), (1, 2));
        assert!(server.heads.lock()[0].header("authorization").is_some());
        for head in storage.heads.lock().iter() {
            assert_eq!(head.header("authorization"), None);
            assert_eq!(range_of(head), Some("bytes=0-2"));
            assert!(
                head.line.ends_with("X-Amz-Signature=n1 HTTP/1.1"),
                "{}",
                head.line
            );
        }
    }

    #[test]
    fn a_link_that_is_refused_is_asked_for_once_more() {
        let storage = Server::start(|number, _, stream| match number {
            1 | 3 => answer(stream, 200, "", b"abcde"),
            _ => answer(stream, 403, "", b"<Error/>"),
        });
        let server = sending_on(&storage);
        let repository = server.repository();
        assert!(repository.open_content(&place(), None).is_ok());
        assert!(repository.open_content(&place(), None).is_ok(), "the second link");
        assert_eq!((server.count(), storage.count()), (2, 3));
        let error = repository.open_content(&place(), None).unwrap_err();
        assert_eq!(error.kind(), Kind::ServerFailed);
        assert!(!format!("{error:?}").contains("X-Amz"), "{error:?}");
    }

    #[test]
    fn redirects_in_a_circle_end() {
        let server = Server::start(|_, _, stream| answer(stream, 302, "Location: /api/again\r\n", b""));
        let error = server.repository().open_content(&place(), None).unwrap_err();
        assert_eq!(error.kind(), Kind::ServerFailed);
        assert_eq!(server.count(), 6);
    }

    #[test]
    fn a_page_for_people_is_never_content() {
        let server = Server::start(|_, _, stream| {
            answer(stream, 200, "Content-Type: text/html\r\n", b"<html>busy</html>");
        });
        let error = server.repository().open_content(&place(), None).unwrap_err();
        assert_eq!(error.kind(), Kind::ServerFailed);
        assert_eq!(server.count(), 3, "it may pass");
    }

    #[test]
    fn a_body_that_ends_early_or_stops_is_an_error_and_stays_one() {
        for (stops, kind) in [(false, Kind::Unreachable), (true, Kind::TimedOut)] {
            let server = Server::start(move |_, _, stream| {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
                    .unwrap();
                if stops {
                    std::thread::sleep(Duration::from_secs(2));
                }
            });
            let mut download = server.repository().open_content(&place(), None).unwrap();
            assert_eq!(download.coverage, Coverage::Whole { length: Some(10) });
            let error = read(&mut download).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert_eq!(download.next().unwrap_err().kind(), kind);
        }
    }

    #[test]
    fn a_chunked_part_has_the_length_it_said() {
        for (sent, kind) in [("ab", Kind::Unreachable), ("abcd", Kind::ServerFailed)] {
            let server = Server::start(move |_, _, stream| {
                let _ = write!(
                    stream,
                    "HTTP/1.1 206 X\r\nContent-Range: bytes 0-2/9\r\nTransfer-Encoding: chunked\r\n\r\n{}\r\n{sent}\r\n0\r\n\r\n",
                    sent.len()
                );
            });
            let mut download = server.repository().open_content(&place(), Some((0, 2))).unwrap();
            assert_eq!(read(&mut download).unwrap_err().kind(), kind);
        }
    }

    #[test]
    fn a_range_beyond_the_end_means_that_the_file_changed() {
        let server = Server::start(|_, _, stream| answer(stream, 416, "", b"{}"));
        let error = server
            .repository()
            .open_content(&place(), Some((7, 9)))
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Changed);
    }
}
