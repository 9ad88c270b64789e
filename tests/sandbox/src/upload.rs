//! Request bodies, and the upload of file content with all its traps. Uploads in parts are in `parts`.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header;
use md5::{Digest, Md5};
use serde_json::{Value, json};

use crate::app::App;
use crate::blobs::Blob;
use crate::data::hex;
use crate::errors::Problem;
use crate::files;
use crate::reply::{Call, Failure, Reply};
use crate::traffic::Meter;

/// A request's body, read piece by piece.
pub(crate) struct RequestBody {
    incoming: Incoming,
    /// `Content-Length`; a chunked body has none.
    pub length: Option<u64>,
    pub chunked: bool,
    /// The largest body the server takes.
    limit: Option<u64>,
    /// What a fault does, and after how many bytes.
    cut: Option<(u64, Cut)>,
    read: u64,
    ended: bool,
    pub meter: Arc<Meter>,
}

/// How a body can end before its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cut {
    /// The peer closed the connection.
    Closed,
    /// The peer reset the connection.
    Reset,
    TooLarge,
    /// A fault: the server closes the connection.
    Close,
    /// A fault: the server resets the connection.
    Kill,
    /// A fault: the server reads no more.
    Stall,
}

impl From<Cut> for Failure {
    fn from(cut: Cut) -> Failure {
        match cut {
            Cut::TooLarge => Problem::too_large().into(),
            Cut::Kill => Failure::HangUp { reset: true },
            Cut::Closed | Cut::Reset | Cut::Close => Failure::HangUp { reset: false },
            Cut::Stall => Failure::Stall,
        }
    }
}

impl RequestBody {
    pub fn new(
        incoming: Incoming,
        headers: &hyper::HeaderMap,
        limit: Option<u64>,
        cut: Option<(u64, Cut)>,
        meter: Arc<Meter>,
    ) -> RequestBody {
        let length = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let chunked = headers.contains_key(header::TRANSFER_ENCODING);
        RequestBody {
            incoming,
            length,
            chunked,
            limit,
            cut,
            read: 0,
            ended: false,
            meter,
        }
    }

    /// The next piece, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Cut> {
        // With a fixed length the limit applies at once, else when that much has come.
        if let Some(limit) = self.limit
            && (self.length.unwrap_or(0) > limit || self.read > limit)
        {
            return Err(Cut::TooLarge);
        }
        if let Some((after, cut)) = self.cut
            && self.read >= after
        {
            return Err(cut);
        }
        match self.incoming.frame().await {
            None => {
                self.ended = true;
                Ok(None)
            }
            Some(Ok(frame)) => {
                let piece = frame.into_data().unwrap_or_default();
                self.read += piece.len() as u64;
                self.meter.received.store(self.read, Ordering::Relaxed);
                Ok(Some(piece))
            }
            Some(Err(error)) => Err(if was_reset(&error) {
                Cut::Reset
            } else {
                Cut::Closed
            }),
        }
    }

    pub async fn collect(&mut self) -> Result<Vec<u8>, Cut> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    /// Reads what an early answer has left of the body, for a moment: closing a connection with
    /// unread bytes in it resets it, and the peer might never see the answer.
    pub async fn drain(mut self) {
        if self.ended || (self.length.is_none() && !self.chunked) {
            return;
        }
        (self.limit, self.cut) = (None, None);
        let rest = async { while let Ok(Some(_)) = self.next().await {} };
        let _ = tokio::time::timeout(Duration::from_secs(2), rest).await;
    }
}

fn was_reset(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::ConnectionReset
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// What is to be done with a PUT of content, decided before its body is read.
enum Plan {
    Store {
        free: u64,
    },
    /// The trap: content for a committed (or multipart) key destroys the file.
    Destroy,
}

/// `PUT …/draft/files/{key}/content`
pub(crate) async fn put_content(app: &App, call: &mut Call, lost: bool) -> Result<Reply, Failure> {
    octet_stream(call)?;
    let (id, key) = (call.target.id.clone(), call.target.key.clone());
    let plan = {
        let store = app.store.lock();
        let (draft, entry) = files::of_draft(&store, &id, &key, call.user, &call.method)?;
        if draft.files.locked {
            return Err(Problem::locked().into());
        }
        if entry.completed || entry.parts.is_some() {
            Plan::Destroy
        } else {
            Plan::Store {
                free: app.knobs.lock().quota.saturating_sub(draft.total_bytes()),
            }
        }
    };
    let Plan::Store { free } = plan else {
        return Ok(destroy(app, &id, &key)?);
    };
    if key.chars().count() > 255 {
        return Err(Problem::new(400, "Filename is too long.").into());
    }
    let received = receive(app, call, free).await;
    if lost && !matches!(received, Err(Failure::HangUp { .. } | Failure::Stall)) {
        return Ok(destroy(app, &id, &key)?);
    }
    let blob = Arc::new(received?);
    let mut store = app.store.lock();
    let version_id = store.new_uuid();
    let draft = store.draft_mut(&id)?;
    let entry = draft.entry_mut(&key)?;
    entry.blob = Some(blob);
    entry.version_id = version_id;
    let body = files::entry_json(app, &store.drafts[&id], store.draft(&id)?.entry(&key)?, true);
    Ok(Reply::json(200, &body))
}

/// Writes a body to disk. If the connection breaks, what is left of the entry depends on how it
/// broke and how the body was sent, as observed on a real server.
async fn receive(app: &App, call: &mut Call, free: u64) -> Result<Blob, Failure> {
    let quota = || Problem::new(400, "Bucket quota exceeded.");
    if let Some(length) = call.body.length {
        // A body over the limit for all is refused as such when its first byte is asked for.
        let passes = call.body.limit.is_none_or(|limit| length <= limit);
        if passes && length > free {
            return Err(quota().into());
        }
    }
    let mut file = tempfile::Builder::new()
        .prefix("file-")
        .tempfile_in(app.data.path())?;
    let (mut md5, mut size) = (Md5::new(), 0);
    loop {
        match call.body.next().await {
            Ok(Some(piece)) => {
                size += piece.len() as u64;
                if size > free {
                    return Err(quota().into());
                }
                md5.update(&piece);
                file.write_all(&piece)?;
            }
            Ok(None) => break,
            Err(cut) => {
                let gone = match cut {
                    Cut::Reset | Cut::Kill => true,
                    Cut::Closed | Cut::Close => call.body.chunked,
                    Cut::TooLarge | Cut::Stall => false,
                };
                if gone && let Ok(draft) = app.store.lock().draft_mut(&call.target.id) {
                    draft
                        .files
                        .entries_mut()
                        .retain(|entry| entry.key != call.target.key);
                }
                return Err(cut.into());
            }
        }
    }
    let (_, path) = file.keep().map_err(|error| error.error)?;
    let id = app.store.lock().new_uuid();
    Ok(Blob::on_disk(id, path, size, hex(&md5.finalize())))
}

/// Removes an entry and answers 200 with `errors` as a string, the entry's last state included.
fn destroy(app: &App, id: &str, key: &str) -> Result<Reply, Problem> {
    let mut store = app.store.lock();
    let draft = store.draft(id)?;
    let mut body = files::entry_json(app, draft, draft.entry(key)?, true);
    body["errors"] = json!("File upload transfer failed.");
    store
        .draft_mut(id)?
        .files
        .entries_mut()
        .retain(|entry| entry.key != key);
    Ok(Reply::json(200, &body))
}

pub(crate) fn octet_stream(call: &Call) -> Result<(), Problem> {
    match call.header(header::CONTENT_TYPE) {
        None | Some("application/octet-stream") => Ok(()),
        Some(_) => Err(Problem::media_type("application/octet-stream")),
    }
}

/// `POST …/draft/files/{key}/commit`
pub(crate) fn commit(app: &App, call: &Call) -> Result<Reply, Failure> {
    call.accepts(files::JSON)?;
    let (id, key) = (&call.target.id, &call.target.key);
    let mut store = app.store.lock();
    let (draft, entry) = files::of_draft(&store, id, key, call.user, &call.method)?;
    if entry.completed {
        return Ok(Reply::json(200, &files::entry_json(app, draft, entry, true)));
    }
    if draft.files.locked {
        return Err(Problem::locked().into());
    }
    let multipart = entry.parts.is_some();
    let mut unsummed = None;
    let blob = match (&entry.blob, &entry.parts) {
        (Some(blob), _) => blob.clone(),
        (None, Some(parts)) => {
            let joined = parts.joined(
                app.data.path(),
                entry.declared_size,
                entry.declared_checksum.as_deref(),
                app.knobs.lock().checksum_delay,
            )?;
            unsummed = joined.unsummed;
            Arc::new(joined.blob)
        }
        (None, None) => return Err(Problem::server_error(500).into()),
    };
    let now = store.now();
    let entry = store.draft_mut(id)?.entry_mut(key)?;
    entry.blob = Some(blob);
    entry.parts = None;
    entry.unsummed = unsummed;
    entry.completed = true;
    entry.updated = now;
    if multipart && entry.metadata.is_null() {
        entry.metadata = json!({});
    }
    let body = files::entry_json(app, store.draft(id)?, store.draft(id)?.entry(key)?, true);
    // A background task of the real server fills in `metadata` a moment after the commit.
    let now = store.now();
    let entry = store.draft_mut(id)?.entry_mut(key)?;
    if entry.metadata.is_null() {
        entry.metadata = Value::Object(Default::default());
        entry.updated = now;
    }
    Ok(Reply::json(200, &body))
}
