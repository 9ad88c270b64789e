//! Uploads in parts: to the API, as local storage takes them, or along signed links to the second origin, as object
//! storage does. What either of them does not check, this does not check.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::{self, HeaderMap};
use hyper::{Method, Uri};
use jiff::{SignedDuration, Timestamp};
use md5::{Digest, Md5};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::app::App;
use crate::blobs::Blob;
use crate::data::{hex, md5_hex};
use crate::errors::Problem;
use crate::files;
use crate::objects::{object_path, refusal};
use crate::reply::{Call, Failure, Reply, parse_query};
use crate::settings::Multipart;
use crate::store::{Unsummed, iso};
use crate::upload::{RequestBody, octet_stream};

/// The smallest part but the last that object storage puts together.
const SMALLEST: u64 = 5 << 20;

/// A multipart transfer that was not committed yet.
#[derive(Clone)]
pub(crate) struct Parts {
    count: u64,
    /// Declared bytes of all parts but the last; object storage does without.
    size: Option<u64>,
    file_id: String,
    place: Place,
}

#[derive(Clone)]
enum Place {
    /// One file, into which each part is written at its place.
    File { file: Arc<NamedTempFile>, refused: bool },
    /// All that was sent along the links, in that order: what was sent twice is there twice.
    Objects {
        upload: String,
        sent: Arc<Mutex<Vec<Object>>>,
    },
}

struct Object {
    number: u64,
    file: NamedTempFile,
    size: u64,
    md5: [u8; 16],
}

/// The whole of an upload in parts.
pub(crate) struct Joined {
    pub blob: Blob,
    pub unsummed: Option<Unsummed>,
}

impl Parts {
    pub fn begin(
        folder: &Path,
        multipart: Multipart,
        count: u64,
        size: Option<u64>,
        whole: u64,
        file_id: String,
    ) -> std::io::Result<Parts> {
        let place = if multipart == Multipart::Presigned {
            Place::Objects {
                upload: format!("{0}_{0}", md5_hex(file_id.as_bytes())),
                sent: Arc::default(),
            }
        } else {
            let file = temporary(folder)?;
            file.as_file().set_len(whole)?;
            Place::File {
                file: Arc::new(file),
                refused: multipart == Multipart::Refused,
            }
        };
        Ok(Parts {
            count,
            size,
            file_id,
            place,
        })
    }

    pub fn file_id(&self) -> &str {
        &self.file_id
    }

    /// `transfer` of the entry.
    pub fn transfer(&self) -> Value {
        json!({"type": "M", "parts": self.count, "part_size": self.size})
    }

    /// `links.parts` of the entry at `url`, each time signed anew.
    pub fn links(&self, app: &App, url: &str) -> Value {
        let seconds = app.knobs.lock().link_seconds;
        let (date, expiration) = match self.place {
            Place::File { .. } => (
                String::new(),
                iso(Timestamp::now() + SignedDuration::from_hours(14 * 24)),
            ),
            Place::Objects { .. } => {
                let now = Timestamp::now();
                let until = now + Duration::from_secs(seconds);
                (compact(now), until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
            }
        };
        let link = |number| match &self.place {
            Place::File { .. } => format!("{url}/content/{number}"),
            Place::Objects { upload, .. } => {
                let target = signed(&object_path(&self.file_id), upload, number, &date, seconds);
                format!("{}{target}", app.objects)
            }
        };
        (1..=self.count)
            .map(|number| json!({"part": number, "url": link(number), "expiration": expiration}))
            .collect()
    }

    /// Puts the parts together.
    pub fn joined(
        &self,
        folder: &Path,
        size: Option<u64>,
        checksum: Option<&str>,
        delay: Duration,
    ) -> Result<Joined, Failure> {
        // A checksum given at the start is kept as it is, right or wrong.
        let declared = checksum.map(|sum| sum.trim_start_matches("md5:").to_string());
        match &self.place {
            Place::File { file, .. } => {
                let size = size.unwrap_or_default();
                let md5 = match declared {
                    Some(md5) => md5,
                    None => sum(file.as_file(), size)?,
                };
                // A name of its own: the temporary one is removed with the last reference to the parts.
                let path = file.path().with_extension("joined");
                std::fs::hard_link(file.path(), &path)?;
                let blob = Blob::on_disk(self.file_id.clone(), path, size, md5);
                Ok(Joined { blob, unsummed: None })
            }
            Place::Objects { sent, .. } => self.concatenated(folder, &sent.lock(), size, declared, delay),
        }
    }

    fn concatenated(
        &self,
        folder: &Path,
        sent: &[Object],
        size: Option<u64>,
        declared: Option<String>,
        delay: Duration,
    ) -> Result<Joined, Failure> {
        // "got 5 out of 3 parts"
        if sent.len() as u64 != self.count {
            return Err(Problem::server_error(500).into());
        }
        let mut parts: Vec<&Object> = sent.iter().collect();
        parts.sort_by_key(|part| part.number);
        let too_small = |part: &&Object| part.number < self.count && part.size < SMALLEST;
        if parts.iter().any(too_small) {
            return Err(Problem::server_error(500).into()); // EntityTooSmall
        }
        let (mut whole, mut tags) = (temporary(folder)?, Md5::new());
        for part in &parts {
            std::io::copy(&mut part.file.reopen()?, &mut whole)?;
            tags.update(part.md5);
        }
        let length = parts.iter().map(|part| part.size).sum();
        let unsummed = Unsummed {
            size: size.unwrap_or(length),
            checksum: format!(
                "multipart:{}-{}-{}",
                hex(&tags.finalize()),
                self.count,
                self.size.unwrap_or_default()
            ),
            until: match declared {
                Some(_) => Instant::now(),
                None => Instant::now() + delay,
            },
        };
        let md5 = match declared {
            Some(md5) => md5,
            None => sum(whole.as_file(), length)?,
        };
        let (_, path) = whole.keep().map_err(|error| error.error)?;
        Ok(Joined {
            blob: Blob::on_disk(self.file_id.clone(), path, length, md5),
            unsummed: Some(unsummed),
        })
    }
}

fn temporary(folder: &Path) -> std::io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix("parts-").tempfile_in(folder)
}

fn sum(file: &std::fs::File, size: u64) -> std::io::Result<String> {
    let (mut md5, mut at) = (Md5::new(), 0);
    let mut piece = vec![0; 1 << 20];
    while at < size {
        let length = piece.len().min((size - at) as usize);
        file.read_exact_at(&mut piece[..length], at)?;
        md5.update(&piece[..length]);
        at += length as u64;
    }
    Ok(hex(&md5.finalize()))
}

/// What goes wrong with a part, besides its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Mishap {
    #[default]
    None,
    /// It is answered with `errors`.
    Lost,
    /// Only so many bytes are kept, and nobody says so.
    KeepOnly(u64),
}

/// `PUT …/draft/files/{key}/content/{n}`: a part, written at its place in the file.
pub(crate) async fn put_part(app: &App, call: &mut Call, mishap: Mishap) -> Result<Reply, Failure> {
    octet_stream(call)?;
    let (id, key, number) = (call.target.id.clone(), call.target.key.clone(), call.target.part);
    let (parts, mut body) = {
        let store = app.store.lock();
        let (draft, entry) = files::of_draft(&store, &id, &key, call.user, &call.method)?;
        if draft.files.locked {
            return Err(Problem::locked().into());
        }
        let parts = entry.parts.clone().ok_or_else(Problem::denied)?;
        (parts, files::entry_json(app, draft, entry, true))
    };
    let Place::File { file, refused: false } = &parts.place else {
        return Err(Problem::denied().into());
    };
    let part_size = parts.size.unwrap_or_default();
    if number == 0 {
        return Err(Problem::server_error(500).into());
    }
    let fits = number <= parts.count && (number == parts.count || call.body.length == Some(part_size));
    if !fits || mishap == Mishap::Lost {
        // Unlike a whole file's, a part's failure leaves the entry alone.
        body["errors"] = json!("File upload transfer failed.");
        return Ok(Reply::json(200, &body));
    }
    let start = (number - 1) * part_size;
    let end = match mishap {
        Mishap::KeepOnly(bytes) => start + bytes,
        _ => u64::MAX,
    };
    let mut at = start;
    while let Some(piece) = call.body.next().await? {
        let kept = piece.len().min(end.saturating_sub(at) as usize);
        file.as_file().write_all_at(&piece[..kept], at)?;
        at += piece.len() as u64;
    }
    Ok(Reply::json(200, &body))
}

/// The draft, the key and the number of the part that a link to the second origin is for.
pub(crate) fn of_link(app: &App, uri: &Uri) -> Option<(String, String, u64)> {
    let query = parse_query(uri.query().unwrap_or_default());
    let value = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let (wanted, number) = (value("uploadId")?, value("partNumber")?.parse().ok()?);
    let store = app.store.lock();
    store.drafts.values().find_map(|draft| {
        let entry = draft.files.entries.iter().find(|entry| {
            let place = entry.parts.as_ref().map(|parts| &parts.place);
            matches!(place, Some(Place::Objects { upload, .. }) if upload == wanted)
        })?;
        Some((draft.id.clone(), entry.key.clone(), number))
    })
}

/// `PUT` to the second origin. Whoever has the link may send, until it expires.
pub(crate) async fn put_object(
    app: &App,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &mut RequestBody,
    mishap: Mishap,
) -> Result<Reply, Failure> {
    let path = uri.path();
    if headers.contains_key(header::AUTHORIZATION) {
        app.links.lock().leaks += 1;
        return Ok(crate::objects::two_mechanisms(path));
    }
    if let Err(reply) = check_link(method, uri) {
        return Ok(*reply);
    }
    let found = of_link(app, uri);
    let parts = found.and_then(|(id, key, number)| {
        let store = app.store.lock();
        let parts = store.draft(&id).ok()?.entry(&key).ok()?.parts.clone()?;
        Some((parts, number))
    });
    let Some((parts, number)) = parts else {
        let message = "The specified multipart upload does not exist.";
        return Ok(refusal(404, "NoSuchUpload", message, path));
    };
    let Place::Objects { sent, .. } = &parts.place else {
        return Err(Problem::server_error(500).into());
    };
    let end = match mishap {
        Mishap::KeepOnly(bytes) => bytes,
        _ => u64::MAX,
    };
    let (mut file, mut md5, mut told, mut size) = (temporary(app.data.path())?, Md5::new(), Md5::new(), 0);
    while let Some(piece) = body.next().await? {
        let kept = piece.len().min(end.saturating_sub(size) as usize);
        file.write_all(&piece[..kept])?;
        md5.update(&piece[..kept]);
        told.update(&piece);
        size += kept as u64;
    }
    file.flush()?;
    let object = Object {
        number,
        file,
        size,
        md5: md5.finalize().into(),
    };
    sent.lock().push(object);
    let etag = format!("\"{}\"", hex(&told.finalize()));
    Ok(Reply::empty(200).with(header::ETAG, etag))
}

fn check_link(method: &Method, uri: &Uri) -> Result<(), Box<Reply>> {
    let path = uri.path();
    let query = parse_query(uri.query().unwrap_or_default());
    let value = |name: &str| {
        let found = query.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    let (date, seconds) = (value("X-Amz-Date"), value("X-Amz-Expires").parse().unwrap_or(0));
    let number = value("partNumber").parse().unwrap_or(0);
    let target = signed(path, value("uploadId"), number, date, seconds);
    if uri.path_and_query().is_none_or(|sent| sent.as_str() != target) || *method != Method::PUT {
        let message = "The request signature we calculated does not match the signature you provided. Check \
                       your key and signing method.";
        return Err(Box::new(refusal(403, "SignatureDoesNotMatch", message, path)));
    }
    let issued = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date)
        .and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC))
        .map(|date| date.timestamp());
    let good = issued.is_ok_and(|issued| Timestamp::now() < issued + Duration::from_secs(seconds));
    if !good {
        return Err(Box::new(refusal(
            403,
            "AccessDenied",
            "Request has expired",
            path,
        )));
    }
    Ok(())
}

fn compact(time: Timestamp) -> String {
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Path and query of a link to put a part. What signs it can be recomputed, so no list of links is kept.
fn signed(path: &str, upload: &str, number: u64, date: &str, seconds: u64) -> String {
    let plain = format!(
        "{path}?uploadId={upload}&partNumber={number}&X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=invenio%2F{}%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date={date}&X-Amz-Expires={seconds}\
         &X-Amz-SignedHeaders=host",
        date.get(..8).unwrap_or_default(),
    );
    let signature = [0, 1]
        .map(|half| md5_hex(format!("{half}{plain}").as_bytes()))
        .concat();
    format!("{plain}&X-Amz-Signature={signature}")
}
