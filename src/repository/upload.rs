//! Sending a file's content: from a local file, in pieces, with its length known before.
//!
//! Called by `staging/`; `multipart` sends ranges of a file the same way. A PUT is never repeated here: on a key that is
//! committed already it destroys the file, so the caller reads the server's state first.

use std::fs::File;
use std::future::Future;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::{Either, select};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use reqwest::{Body, Method, Url};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use super::Repository;
use super::model::{Md5, RecordId, field_errors, on_one_line};
use super::retry::Failure;
use super::transport::{RDM_JSON, Transport, broken, refused};
use super::urls::{Origin, shown};
use crate::error::{Error, Kind, Result};
use crate::md5::Hasher;

/// What is read and hashed at once.
const PIECE: usize = 1024 * 1024;

/// What is handed to the connection at once. A stall is noticed by these: smaller than a piece, so that a slow line is
/// not taken for a dead one; larger while the line is fast, for fewer turns per byte.
const SLICE: usize = 64 * 1024;
const FAST_SLICE: usize = 256 * 1024;

/// A line that takes a slice in less than this is a fast one.
const FAST: Duration = Duration::from_millis(50);

/// A server behind a buffering proxy gets the body only when the proxy has all of it: the answer is waited for as long as
/// handing it on takes at this rate (bytes per second), beside the stall limit.
const HANDED_ON: u64 = 20 * 1000 * 1000;

/// The most that the kernel holds back of what was handed to it. This much may still be on its way, as slowly as all
/// before it, when the last byte was handed on.
const BUFFERED: u64 = 8 * 1024 * 1024;

/// A body at least this large waits a moment after its first slice. What refuses it (a limit, a quota) goes by its length,
/// answers at once and closes, and an answer is lost if it comes while we write.
const LARGE: u64 = 16 * 1024 * 1024;

/// That moment; it ends when an answer comes.
const MOMENT: Duration = Duration::from_millis(50);

/// How often it is looked whether an upload still moves and is still wanted.
const LONGEST_TICK: Duration = Duration::from_millis(100);

/// What to send, and how to tell and to stop.
pub struct Upload<'a> {
    /// The bytes, from 0 on; read with positional reads.
    pub file: &'a File,
    /// How many.
    pub size: u64,
    /// Called on the calling thread with how many bytes were handed to the connection so far.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// When this becomes true, the upload is cut off soon after.
    pub cancelled: &'a AtomicBool,
}

/// One PUT of a range of a local file.
pub(super) struct Put<'a> {
    pub(super) url: &'a Url,
    /// For errors: `"send file a.csv of draft abcde-12345"`.
    pub(super) doing: &'a str,
    /// Whether the token may go along; it never leaves the repository's origin.
    pub(super) with_token: bool,
    pub(super) file: &'a File,
    pub(super) range: Range<u64>,
    /// Called on the calling thread with how many bytes of the range were handed to the connection so far.
    pub(super) progress: &'a (dyn Fn(u64) + Sync),
    /// When this becomes true, the request is cut off soon after.
    pub(super) stopped: &'a (dyn Fn() -> bool + Sync),
}

impl Put<'_> {
    fn size(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// The failure of what was stopped from outside.
    pub(super) fn cancelled(&self) -> Failure {
        Failure::lasting(Error::new(
            Kind::Local(libc::ECANCELED),
            format!("can't {}: it was cancelled", self.doing),
        ))
    }

    fn passing(&self, what: &str, status: u16) -> Failure {
        Failure::passing(Error::new(
            Kind::ServerFailed,
            format!("can't {}: {what}", self.doing),
        ))
        .at(self.url, Some(status))
    }
}

/// The successful answer to a PUT, and what was sent for it.
pub(super) struct Sent {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    body: Bytes,
    /// Whether every byte was handed to the connection.
    whole: bool,
    md5: Md5,
}

impl Sent {
    /// The MD5 of what was sent, if InvenioRDM has it.
    ///
    /// # Errors
    /// Passing: the answer is no JSON, says that the bytes were dropped, or came before they were sent.
    pub(super) fn taken_by_repository(self, put: &Put<'_>) -> std::result::Result<Md5, Failure> {
        let answer: Value = serde_json::from_slice(&self.body)
            .map_err(|_| put.passing("the answer is no JSON, so it may not have arrived", self.status))?;
        // A PUT on a committed key, or one that the server lost: 200, and the file is gone (API reference, traps 1 and 2).
        // A part that it did not take: 200 as well, but the entry stays (API reference, section 3).
        let errors = field_errors(answer.get("errors").unwrap_or(&Value::Null));
        if !errors.is_empty() {
            let words: Vec<String> = errors.iter().map(|error| error.messages.join(" ")).collect();
            let mut failure = put.passing("the server dropped what was sent", self.status);
            failure.error = failure.error.with_server(words.join("; "));
            return Err(failure);
        }
        self.whole(put)
    }

    /// The MD5 of what was sent, if all of it was before the answer came.
    pub(super) fn whole(self, put: &Put<'_>) -> std::result::Result<Md5, Failure> {
        if !self.whole {
            return Err(put.passing("it was answered before everything was sent", self.status));
        }
        Ok(self.md5)
    }
}

/// The answer to a PUT, wholly read.
struct Reaction {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

type Outcome = std::result::Result<Reaction, Failure>;

impl Repository {
    /// Sends the content of a file that was started and not committed, and gives the MD5 of what was sent. Blocks as long as
    /// bytes move; ends when none did for the stall limit.
    ///
    /// After any error but a refusal the caller has to read the draft's files before a repeat: the bytes may have arrived, the
    /// entry may be pending or gone.
    ///
    /// # Errors
    /// Refused for good: `Quota`, `TooLarge`, `Refused`, `Denied`. `NotFound`: no such entry, start it first. Passing:
    /// `RateLimited` (with how long to wait), `ServerFailed` (also when the server took the bytes and dropped the file),
    /// `Unreachable`, `TimedOut`. `Local`: the file could not be read, or `ECANCELED`.
    pub fn put_content(&self, id: &RecordId, key: &str, upload: Upload<'_>) -> Result<Md5> {
        let doing = format!("send file {} of draft {id}", on_one_line(key));
        let url = self.draft_file_url(id, key, "/content")?;
        let put = Put {
            url: &url,
            doing: &doing,
            with_token: true,
            file: upload.file,
            range: 0..upload.size,
            progress: upload.progress,
            stopped: &|| upload.cancelled.load(Ordering::Relaxed),
        };
        let begun = Instant::now();
        let outcome = self
            .put_once(&put)
            .and_then(|sent| sent.taken_by_repository(&put));
        outcome.map_err(|failure| {
            if failure.status == Some(413) {
                self.transfers.body_refused(upload.size);
            }
            failure.into_error(&Method::PUT, &url, 1, begun.elapsed())
        })
    }

    /// One try of a PUT, after the pause that the repository's rate limit asks for.
    pub(super) fn put_once(&self, put: &Put<'_>) -> std::result::Result<Sent, Failure> {
        let begun = Instant::now();
        let outcome = self.engine.wait(async {
            if put.with_token {
                let deadline = begun + self.transport.limits.whole;
                let turn = pin!(self.transport.wait_for_turn(put.doing, deadline));
                unless_stopped(put, turn).await??;
            }
            self.send_pieces(put).await
        });
        log::debug!(
            "PUT {}: {}, {} ms, {} bytes",
            shown(put.url),
            if outcome.is_ok() { "sent" } else { "failed" },
            begun.elapsed().as_millis(),
            put.size()
        );
        outcome
    }

    /// Waits, unless the upload is stopped meanwhile.
    pub(super) fn pause(&self, put: &Put<'_>, pause: Duration) -> std::result::Result<(), Failure> {
        self.engine
            .wait(async { unless_stopped(put, pin!(tokio::time::sleep(pause))).await })
    }

    /// Feeds the pieces to the task that sends them. The calling thread reads and hashes, the network threads send.
    async fn send_pieces(&self, put: &Put<'_>) -> std::result::Result<Sent, Failure> {
        let (pieces, queue) = mpsc::channel(2);
        let handed = Arc::new(AtomicU64::new(0));
        let body = if put.size() == 0 {
            Body::from(Bytes::new())
        } else {
            Body::wrap_stream(Slices {
                queue,
                piece: Bytes::new(),
                handed: handed.clone(),
                gave_way: false,
                since: Instant::now(),
                moment: (put.size() >= LARGE).then_some(None),
            })
        };
        let sending = request(
            self.transport.clone(),
            put.url.clone(),
            put.with_token,
            put.doing.to_owned(),
            put.size(),
            body,
        );
        let mut task = Task(self.engine.runtime().spawn(sending));
        let mut watch = Watch::new(put, &handed, self.transport.limits.stall);

        let mut hasher = Hasher::new();
        let mut offset = put.range.start;
        while offset < put.range.end {
            let piece = read_piece(put, offset).map_err(|error| {
                Failure::lasting(Error::local(format!("can't {}: read it", put.doing), &error))
            })?;
            offset += piece.len() as u64;
            hasher.update(&piece);
            let outcome = loop {
                let room = pin!(pieces.reserve());
                match tokio::time::timeout(watch.tick(), select(&mut task.0, room)).await {
                    Ok(Either::Left((outcome, _))) => break Some(joined(outcome, put.doing)),
                    Ok(Either::Right((Ok(permit), _))) => {
                        permit.send(piece);
                        break None;
                    }
                    // The body was dropped: the task is about to say why.
                    Ok(Either::Right((Err(_), _))) => break Some(watch.last_word(&mut task).await?),
                    Err(_) => watch.check(Duration::ZERO)?,
                }
            };
            if let Some(outcome) = outcome {
                return finish(outcome, put, false, hasher);
            }
            watch.check(Duration::ZERO)?;
        }
        drop(pieces);
        let still_on_its_way = match put.size() {
            0..=BUFFERED => watch.begun.elapsed(),
            size => watch.begun.elapsed().mul_f64(BUFFERED as f64 / size as f64),
        };
        let patience = still_on_its_way + Duration::from_millis(put.size() / (HANDED_ON / 1000));
        let outcome = loop {
            match tokio::time::timeout(watch.tick(), &mut task.0).await {
                Ok(outcome) => break joined(outcome, put.doing),
                Err(_) => watch.check(patience)?,
            }
        };
        watch.tell();
        let all = handed.load(Ordering::Relaxed) == put.size();
        finish(outcome, put, all, hasher)
    }
}

/// Waits for something that ends by itself, or until the upload is stopped.
async fn unless_stopped<F: Future + Unpin>(
    put: &Put<'_>,
    mut future: F,
) -> std::result::Result<F::Output, Failure> {
    loop {
        if (put.stopped)() {
            return Err(put.cancelled());
        }
        if let Ok(output) = tokio::time::timeout(LONGEST_TICK, &mut future).await {
            return Ok(output);
        }
    }
}

/// The request, on the network threads. There is no limit here: who feeds the body watches over it.
async fn request(
    transport: Arc<Transport>,
    url: Url,
    with_token: bool,
    doing: String,
    size: u64,
    body: Body,
) -> Outcome {
    let request = transport
        .request(Method::PUT, &url, with_token)
        .header(ACCEPT, if with_token { RDM_JSON } else { "*/*" })
        .header(CONTENT_TYPE, "application/octet-stream")
        // Always: without a length, a body that is cut off would be stored as it is (API reference, trap 3).
        .header(CONTENT_LENGTH, size)
        .body(body);
    let mut response = request.send().await.map_err(|error| broken(&doing, error))?;
    let status = response.status().as_u16();
    // What another host says of its limits is no matter of the repository's.
    if Origin::of(&url) == *transport.base.origin() {
        transport.pacer.heed(status, response.headers());
    }
    let headers = std::mem::take(response.headers_mut());
    // A server that refuses a body early often closes at once: the status counts even if its words are lost.
    let body = match transport.body(&doing, response).await {
        Ok(body) => body,
        Err(_) if status >= 400 => Bytes::new(),
        Err(failure) => return Err(failure.at(&url, Some(status))),
    };
    Ok(Reaction {
        status,
        headers,
        body,
    })
}

fn joined(outcome: std::result::Result<Outcome, tokio::task::JoinError>, doing: &str) -> Outcome {
    outcome.unwrap_or_else(|error| {
        Err(Failure::lasting(Error::new(
            Kind::Internal,
            format!("can't {doing}: {error}"),
        )))
    })
}

fn finish(
    outcome: Outcome,
    put: &Put<'_>,
    whole: bool,
    hasher: Hasher,
) -> std::result::Result<Sent, Failure> {
    let Reaction {
        status,
        headers,
        body,
    } = outcome?;
    if !(200..300).contains(&status) {
        return Err(refused(put.doing, status, &headers, &body).at(put.url, Some(status)));
    }
    Ok(Sent {
        status,
        headers,
        body,
        whole,
        md5: hasher.finish(),
    })
}

fn read_piece(put: &Put<'_>, offset: u64) -> std::io::Result<Bytes> {
    // At most a piece, so it fits.
    let length = (put.range.end - offset).min(PIECE as u64) as usize;
    let mut piece = vec![0; length];
    put.file.read_exact_at(&mut piece, offset)?;
    Ok(piece.into())
}

/// The MD5 of the first `size` bytes of a file.
///
/// # Errors
/// `Local`: the file could not be read, is shorter, or `ECANCELED`.
pub fn md5_of(file: &File, size: u64, stopped: &dyn Fn() -> bool) -> Result<Md5> {
    let mut hasher = Hasher::new();
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    while offset < size {
        if stopped() {
            return Err(Error::new(Kind::Local(libc::ECANCELED), "the sum was cancelled"));
        }
        // At most a piece, so it fits.
        let length = (size - offset).min(PIECE as u64) as usize;
        file.read_exact_at(&mut piece[..length], offset)
            .map_err(|error| Error::local("can't read what is to be sent", &error))?;
        hasher.update(&piece[..length]);
        offset += length as u64;
    }
    Ok(hasher.finish())
}

/// Aborts the request when the one who feeds it gives up: the connection is then closed in the middle of the body.
struct Task(JoinHandle<Outcome>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Watches over progress, stalls and cancelling.
struct Watch<'a> {
    put: &'a Put<'a>,
    handed: &'a AtomicU64,
    stall: Duration,
    seen: u64,
    begun: Instant,
    moved: Instant,
}

impl<'a> Watch<'a> {
    fn new(put: &'a Put<'a>, handed: &'a AtomicU64, stall: Duration) -> Self {
        Watch {
            put,
            handed,
            stall,
            seen: 0,
            begun: Instant::now(),
            moved: Instant::now(),
        }
    }

    /// How often to look.
    fn tick(&self) -> Duration {
        (self.stall / 4).clamp(Duration::from_millis(5), LONGEST_TICK)
    }

    fn tell(&mut self) {
        let handed = self.handed.load(Ordering::Relaxed);
        if handed != self.seen {
            self.seen = handed;
            self.moved = Instant::now();
            (self.put.progress)(handed);
        }
    }

    fn check(&mut self, extra: Duration) -> std::result::Result<(), Failure> {
        self.tell();
        if (self.put.stopped)() {
            return Err(self.put.cancelled());
        }
        if self.moved.elapsed() > self.stall + extra {
            let what = if self.seen == self.put.size() {
                "no answer after everything was sent"
            } else {
                "nothing could be sent"
            };
            return Err(Failure::passing(Error::new(
                Kind::TimedOut,
                format!(
                    "can't {}: {what} for {:.1} s",
                    self.put.doing,
                    self.moved.elapsed().as_secs_f64()
                ),
            )));
        }
        Ok(())
    }

    /// The connection takes no more of the body: what the server said, if it says it within the stall limit.
    async fn last_word(&mut self, task: &mut Task) -> std::result::Result<Outcome, Failure> {
        loop {
            match tokio::time::timeout(self.tick(), &mut task.0).await {
                Ok(outcome) => return Ok(joined(outcome, self.put.doing)),
                Err(_) => self.check(Duration::ZERO)?,
            }
        }
    }
}

/// The body: pieces as they come, handed on in slices.
struct Slices {
    queue: mpsc::Receiver<Bytes>,
    piece: Bytes,
    handed: Arc<AtomicU64>,
    gave_way: bool,
    since: Instant,
    /// The moment after the first slice: still to come, or begun.
    moment: Option<Option<Pin<Box<Sleep>>>>,
}

impl Stream for Slices {
    type Item = std::result::Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // hyper forgets an answer that has arrived when a write fails before it has looked for one, and a server that
        // refuses a body answers and closes. So it gets the chance to look before every slice.
        if !self.gave_way {
            self.gave_way = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(Some(moment)) = &mut self.moment {
            ready!(moment.as_mut().poll(cx));
            self.moment = None;
        }
        if self.piece.is_empty() {
            match ready!(self.queue.poll_recv(cx)) {
                Some(piece) => self.piece = piece,
                None => return Poll::Ready(None),
            }
        }
        self.gave_way = false;
        if let Some(moment @ None) = &mut self.moment {
            *moment = Some(Box::pin(tokio::time::sleep(MOMENT)));
        }
        let most = if self.since.elapsed() < FAST {
            FAST_SLICE
        } else {
            SLICE
        };
        self.since = Instant::now();
        let length = self.piece.len().min(most);
        let slice = self.piece.split_to(length);
        self.handed.fetch_add(length as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(slice)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Server, answer, read_body};
    use super::*;
    use std::io::Write;
    use std::thread::sleep;

    const ENTRY: &[u8] = br#"{"key": "a", "status": "pending"}"#;

    fn file_of(size: usize) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; size]).unwrap();
        file
    }

    fn send(server: &Server, size: usize) -> Result<Md5> {
        send_watched(server, size, &|_| (), &AtomicBool::new(false))
    }

    fn send_watched(
        server: &Server,
        size: usize,
        progress: &(dyn Fn(u64) + Sync),
        cancelled: &AtomicBool,
    ) -> Result<Md5> {
        let id = RecordId::new("abcde-12345").unwrap();
        let upload = Upload {
            file: &file_of(size),
            size: size as u64,
            progress,
            cancelled,
        };
        server.repository().put_content(&id, "a", upload)
    }

    #[test]
    fn the_bytes_arrive_with_their_length_and_their_md5_is_told() {
        for size in [0, 1, 5 * PIECE + 17] {
            let server = Server::start(move |_, head, stream| {
                assert_eq!(head.length(), size);
                assert_eq!(head.header("transfer-encoding"), None);
                assert_eq!(read_body(stream, size), vec![7; size]);
                answer(stream, 200, "", ENTRY);
            });
            let told = AtomicU64::new(0);
            let md5 = send_watched(
                &server,
                size,
                &|sent| told.store(sent, Ordering::Relaxed),
                &AtomicBool::new(false),
            )
            .unwrap();
            assert_eq!(md5, crate::md5::of(vec![7; size]));
            assert_eq!(told.load(Ordering::Relaxed), size as u64);
            assert_eq!(
                server.heads.lock()[0].header("authorization"),
                Some("Bearer s3cret")
            );
        }
    }

    #[test]
    fn a_refusal_is_seen_while_the_body_is_still_being_sent() {
        for _ in 0..20 {
            let server = Server::start(|_, _, stream| {
                answer(
                    stream,
                    413,
                    "Content-Type: application/json\r\n",
                    br#"{"message": "too large"}"#,
                );
                // Closed with the body unread: the connection is reset.
            });
            let error = send(&server, 30 * PIECE).unwrap_err();
            assert_eq!(error.kind(), Kind::TooLarge, "{error}");
        }
    }

    #[test]
    fn a_file_that_the_server_dropped_is_no_success() {
        let server = Server::start(|_, head, stream| {
            read_body(stream, head.length());
            answer(
                stream,
                200,
                "",
                br#"{"key": "a", "status": "completed", "errors": "File upload transfer failed."}"#,
            );
        });
        let error = send(&server, 10).unwrap_err();
        assert_eq!(error.kind(), Kind::ServerFailed);
        assert_eq!(error.server_message(), Some("File upload transfer failed."));
        assert_eq!(server.count(), 1, "a PUT is never repeated here");
    }

    #[test]
    fn passing_failures_are_told_apart_and_not_repeated() {
        let limited = Server::start(|_, head, stream| {
            read_body(stream, head.length());
            answer(stream, 429, "Retry-After: 7\r\n", b"{}");
        });
        let error = send(&limited, 10).unwrap_err();
        assert_eq!(error.kind(), Kind::RateLimited);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(limited.count(), 1);

        let silent = Server::start(|_, head, stream| {
            read_body(stream, head.length());
            sleep(Duration::from_secs(3));
        });
        let error = send(&silent, 10).unwrap_err();
        assert_eq!(error.kind(), Kind::TimedOut, "{error}");

        let stuck = Server::start(|_, _, _| sleep(Duration::from_secs(3)));
        let error = send(&stuck, 30 * PIECE).unwrap_err();
        assert_eq!(error.kind(), Kind::TimedOut, "{error}");

        let dead = Server::start(|_, head, stream| drop(read_body(stream, head.length() / 2)));
        let error = send(&dead, 30 * PIECE).unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    }

    #[test]
    fn an_upload_as_slow_as_it_may_be_is_not_taken_for_a_dead_one() {
        let server = Server::start(|_, head, stream| {
            for _ in 0..head.length() / PIECE {
                read_body(stream, PIECE);
                sleep(Duration::from_millis(100));
            }
            answer(stream, 200, "", ENTRY);
        });
        assert!(send(&server, 16 * PIECE).is_ok());
    }

    #[test]
    fn a_cancelled_upload_ends_before_it_counts_as_stalled() {
        let server = Server::start(|_, _, _| sleep(Duration::from_secs(3)));
        let cancelled = AtomicBool::new(false);
        let error = std::thread::scope(|scope| {
            scope.spawn(|| {
                sleep(Duration::from_millis(50));
                cancelled.store(true, Ordering::Relaxed);
            });
            send_watched(&server, 30 * PIECE, &|_| (), &cancelled).unwrap_err()
        });
        assert_eq!(error.kind(), Kind::Local(libc::ECANCELED), "{error}");
    }

    #[test]
    fn a_file_shorter_than_said_is_an_error_and_is_not_padded() {
        let server = Server::start(|_, head, stream| {
            let mut rest = Vec::new();
            let _ = std::io::Read::take(stream, head.length() as u64).read_to_end(&mut rest);
            assert!(rest.len() < head.length());
        });
        use std::io::Read;
        let id = RecordId::new("abcde-12345").unwrap();
        let upload = Upload {
            file: &file_of(10),
            size: 20,
            progress: &|_| (),
            cancelled: &AtomicBool::new(false),
        };
        let error = server.repository().put_content(&id, "a", upload).unwrap_err();
        assert!(matches!(error.kind(), Kind::Local(_)), "{error}");
    }
}
