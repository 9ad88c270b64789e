//! Bodies of answers: at once, or in pieces with everything that can go wrong on the way.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::blobs::Reader;
use crate::link::Link;
use crate::reply::Payload;
use crate::traffic::InFlight;

/// Bytes read and sent at a time.
const PIECE: usize = 512 << 10;

/// How a body is sent.
#[derive(Clone, Default)]
pub(crate) struct Manner {
    pub trickle: Option<(usize, Duration)>,
    pub bandwidth: Option<u64>,
    /// Bytes per second of the link that all bodies share.
    pub link: Option<(u64, Arc<Mutex<Link>>)>,
    /// The offset, in the file, of a byte to invert.
    pub flip: Option<u64>,
    /// What happens after so many bytes.
    pub stop: Option<(u64, Stop)>,
}

/// How a body ends before its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Stop {
    Reset,
    Close,
    Stall,
}

/// The connection is to be cut.
#[derive(Debug)]
pub(crate) struct HangUp;

impl std::fmt::Display for HangUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection was cut on purpose")
    }
}

impl std::error::Error for HangUp {}

/// The body of an answer. The request counts as being served until it is dropped.
pub(crate) struct ReplyBody {
    source: Source,
    in_flight: Option<InFlight>,
    /// Set when the connection has to be reset, and not just closed, on its end.
    reset: Arc<AtomicBool>,
}

enum Source {
    Whole(Option<Bytes>),
    Pieces(mpsc::Receiver<Result<Bytes, Stop>>),
}

impl ReplyBody {
    pub fn new(
        payload: Payload,
        manner: Manner,
        in_flight: Option<InFlight>,
        reset: Arc<AtomicBool>,
    ) -> ReplyBody {
        let plain = manner.trickle.is_none()
            && manner.bandwidth.is_none()
            && manner.link.is_none()
            && manner.flip.is_none()
            && manner.stop.is_none();
        let source = match payload {
            Payload::Bytes(bytes) if plain => Source::Whole(Some(bytes)),
            payload => {
                let (sender, receiver) = mpsc::channel(1);
                tokio::spawn(produce(payload, manner, sender));
                Source::Pieces(receiver)
            }
        };
        ReplyBody {
            source,
            in_flight,
            reset,
        }
    }

    /// No body, as for HEAD.
    pub fn none(in_flight: Option<InFlight>, reset: Arc<AtomicBool>) -> ReplyBody {
        ReplyBody {
            source: Source::Whole(None),
            in_flight,
            reset,
        }
    }
}

/// Reads and sends pieces. Reading from disk here is quick enough, since what was written a moment
/// ago is in the page cache.
async fn produce(payload: Payload, manner: Manner, to: mpsc::Sender<Result<Bytes, Stop>>) {
    let (reader, range) = match payload {
        Payload::Bytes(bytes) => {
            let length = bytes.len() as u64;
            (Ok(Reader::Memory(bytes)), 0..length)
        }
        Payload::File(blob, range) => (blob.open(), range),
    };
    let Ok(reader) = reader else {
        let _ = to.send(Err(Stop::Close)).await;
        return;
    };
    let mut size = manner.trickle.map_or(PIECE, |(size, _)| size);
    if let Some(rate) = manner.bandwidth {
        // Twenty pieces a second, so that the flow is even.
        size = size.min((rate / 20).max(1) as usize);
    }
    if manner.link.is_some() {
        // Small, so that the connections take turns.
        size = size.min(64 << 10);
    }
    let end = manner.stop.map_or(range.end, |(after, _)| {
        range.end.min(range.start.saturating_add(after))
    });
    let began = Instant::now();
    let mut at = range.start;
    while at < end {
        let length = size.min((end - at) as usize);
        let piece = match reader.read_at(at, length) {
            Ok(piece) => flipped(piece, at, manner.flip),
            Err(_) => {
                let _ = to.send(Err(Stop::Close)).await;
                return;
            }
        };
        if let Some((_, pause)) = manner.trickle {
            tokio::time::sleep(pause).await;
        }
        if let Some(rate) = manner.bandwidth {
            let due = (at - range.start + length as u64) as f64 / rate.max(1) as f64;
            tokio::time::sleep_until(began + Duration::from_secs_f64(due)).await;
        }
        if let Some((rate, link)) = &manner.link {
            let due = link.lock().pass(length as u64, *rate, Instant::now());
            tokio::time::sleep_until(due).await;
        }
        if to.send(Ok(piece)).await.is_err() {
            return;
        }
        at += length as u64;
    }
    if let Some((_, stop)) = manner.stop {
        if stop == Stop::Stall {
            to.closed().await;
            return;
        }
        // What was sent should arrive before the connection breaks.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _ = to.send(Err(stop)).await;
    }
}

fn flipped(piece: Bytes, at: u64, flip: Option<u64>) -> Bytes {
    match flip.and_then(|flip| flip.checked_sub(at)) {
        Some(place) if place < piece.len() as u64 => {
            let mut changed = BytesMut::from(&piece[..]);
            changed[place as usize] ^= 0xff;
            changed.freeze()
        }
        _ => piece,
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = HangUp;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HangUp>>> {
        let next = match &mut self.source {
            Source::Whole(bytes) => bytes.take().filter(|bytes| !bytes.is_empty()).map(Ok),
            Source::Pieces(receiver) => match receiver.poll_recv(cx) {
                Poll::Ready(next) => next,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(match next {
            None => None,
            Some(Ok(piece)) => {
                if let Some(in_flight) = &self.in_flight {
                    in_flight
                        .meter
                        .sent
                        .fetch_add(piece.len() as u64, Ordering::Relaxed);
                }
                Some(Ok(Frame::data(piece)))
            }
            Some(Err(stop)) => {
                self.reset.store(stop == Stop::Reset, Ordering::Relaxed);
                Some(Err(HangUp))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.source, Source::Whole(bytes) if bytes.as_ref().is_none_or(Bytes::is_empty))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Source::Pieces(_) => SizeHint::default(),
        }
    }
}
