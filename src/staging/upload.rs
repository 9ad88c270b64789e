//! One try to bring a staged file to the server: a state machine whose transitions are all here.
//!
//! Called by the queue's workers. It looks before it repeats anything, because a failed answer may hide a success,
//! and a PUT to a committed key destroys the file (API notes, section 3). It knows nothing of handles or journals.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use md5::{Digest, Md5 as Hasher};

use super::crash::{Point, point};
use crate::error::{Error, Kind, Result};
use crate::repository::model::{FileEntry, FileStatus, Md5, RecordId};
use crate::repository::{Repository, Upload};

/// What to send, and where.
pub(super) struct Job<'a> {
    pub(super) draft: &'a RecordId,
    pub(super) key: &'a str,
    pub(super) data: &'a File,
    pub(super) size: u64,
    /// Set from outside to stop.
    pub(super) cancelled: &'a AtomicBool,
    /// Told how many bytes are sent.
    pub(super) sent: &'a AtomicU64,
    /// What the server is known to have under this key.
    pub(super) known: Known,
}

/// What the server is known to have under a key when a try begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing is known.
    Nothing,
    /// It has no entry.
    Absent,
    /// The key was announced, and nothing was sent.
    Started,
}

/// Where a try stands.
enum Step {
    /// See what the server has under the key.
    Look,
    /// Remove what it has: there is no overwriting.
    Clear,
    /// Announce the key.
    Start,
    /// Send the bytes.
    Send,
    /// Ask the server to keep them.
    Commit(Md5),
    /// Compare what it kept.
    Compare(Md5, FileEntry),
}

/// How often one try may find something else than it expected before it gives way to a pause: other clients may
/// work on the same key.
const SURPRISES: u32 = 3;

/// Brings the bytes to the server; returns the entry it then has.
///
/// # Errors
/// A passing kind: try again later. `Corrupt`: the server kept something else. Others: the server refuses it. If it was
/// stopped from outside, the kind says nothing.
pub(super) fn run(
    repository: &Repository,
    job: &Job<'_>,
    mut checking: impl FnMut(bool),
) -> Result<FileEntry> {
    let mut surprises = 0;
    let mut started = job.known == Known::Started;
    let mut step = match job.known {
        Known::Nothing => Step::Look,
        Known::Absent => Step::Start,
        Known::Started => Step::Send,
    };
    loop {
        if job.cancelled.load(Ordering::Relaxed) {
            return Err(Error::call(libc::ECANCELED));
        }
        let next = match step {
            Step::Look => look(repository, job),
            Step::Clear => clear(repository, job),
            Step::Start => start(repository, job).inspect(|_| started = true),
            Step::Send => {
                checking(false);
                send(repository, job)
            }
            Step::Commit(md5) => {
                checking(true);
                commit(repository, job, md5)
            }
            Step::Compare(md5, entry) => compare(job, md5, entry),
        };
        match next {
            Ok(Next::Go(next)) => step = next,
            Ok(Next::Done(entry)) => return Ok(entry),
            Ok(Next::Surprise(error)) => {
                surprises += 1;
                if surprises > SURPRISES {
                    return Err(error);
                }
                log::info!("{error}; looking again");
                step = Step::Look;
            }
            Err(error) => {
                // A pending entry of ours would keep the draft from being published.
                if started
                    && !job.cancelled.load(Ordering::Relaxed)
                    && super::turns::is_final(error.kind())
                    && let Err(e) = repository.delete_file(job.draft, job.key)
                {
                    log::warn!("{e}");
                }
                return Err(error);
            }
        }
    }
}

/// The outcome of a step.
enum Next {
    Go(Step),
    Done(FileEntry),
    /// The server is not as this try thought: look again.
    Surprise(Error),
}

fn look(repository: &Repository, job: &Job<'_>) -> Result<Next> {
    let files = repository.draft_files(job.draft)?;
    let Some(entry) = files.into_iter().find(|entry| *entry.key == *job.key) else {
        return Ok(Next::Go(Step::Start));
    };
    let same_size = entry.status == FileStatus::Completed && entry.size == Some(job.size);
    if same_size && entry.md5.is_some() && entry.md5 == Some(hash(job)?) {
        return Ok(Next::Done(entry));
    }
    Ok(Next::Go(Step::Clear))
}

fn clear(repository: &Repository, job: &Job<'_>) -> Result<Next> {
    match repository.delete_file(job.draft, job.key) {
        // Somebody else was faster.
        Err(error) if error.kind() == Kind::NotFound => Ok(Next::Go(Step::Start)),
        removed => removed.map(|()| {
            point(Point::Cleared);
            Next::Go(Step::Start)
        }),
    }
}

fn start(repository: &Repository, job: &Job<'_>) -> Result<Next> {
    match repository.start_files(job.draft, &[job.key]) {
        Ok(_) => {
            point(Point::Started);
            Ok(Next::Go(Step::Send))
        }
        // "File with key … already exists.": somebody was faster, or an earlier try of ours got further than we saw.
        Err(error)
            if error
                .server_message()
                .is_some_and(|m| m.contains("already exists")) =>
        {
            Ok(Next::Surprise(error))
        }
        Err(error) => Err(error),
    }
}

fn send(repository: &Repository, job: &Job<'_>) -> Result<Next> {
    let upload = Upload {
        file: job.data,
        size: job.size,
        progress: &|sent| job.sent.store(sent, Ordering::Relaxed),
        cancelled: job.cancelled,
    };
    match repository.put_content(job.draft, job.key, upload) {
        Ok(md5) => {
            point(Point::Sent);
            Ok(Next::Go(Step::Commit(md5)))
        }
        Err(error) if error.kind() == Kind::NotFound => Ok(Next::Surprise(error)),
        Err(error) => Err(error),
    }
}

fn commit(repository: &Repository, job: &Job<'_>, md5: Md5) -> Result<Next> {
    match repository.commit_file(job.draft, job.key) {
        Ok(entry) => {
            point(Point::Committed);
            Ok(Next::Go(Step::Compare(md5, entry)))
        }
        // The PUT answered 200, but the server had dropped the entry (API notes, section 3).
        Err(error) if error.kind() == Kind::NotFound => Ok(Next::Surprise(error)),
        Err(error) => Err(error),
    }
}

fn compare(job: &Job<'_>, md5: Md5, entry: FileEntry) -> Result<Next> {
    if entry.size == Some(job.size) && entry.md5 == Some(md5) {
        return Ok(Next::Done(entry));
    }
    // Looking again finds the wrong file, clears it and sends it anew.
    Ok(Next::Surprise(Error::new(
        Kind::Corrupt,
        format!(
            "the repository stored {} of draft {} as {:?} bytes with MD5 {:?}, sent were {} bytes with {md5}",
            job.key, job.draft, entry.size, entry.md5, job.size
        ),
    )))
}

/// The MD5 of the staged bytes, read in pieces.
fn hash(job: &Job<'_>) -> Result<Md5> {
    use std::os::unix::fs::FileExt;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        if job.cancelled.load(Ordering::Relaxed) {
            return Err(Error::call(libc::ECANCELED));
        }
        match job.data.read_at(&mut buffer, offset) {
            Ok(0) => return Ok(Md5(hasher.finalize().into())),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                offset += count as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::local(format_args!("read staged {}", job.key), &e)),
        }
    }
}
