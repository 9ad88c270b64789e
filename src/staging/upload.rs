//! One try to bring a staged file to the server: a state machine whose transitions are all here.
//!
//! Called by the queue's workers. It looks before it repeats anything, because a failed answer may hide a success,
//! and a PUT to a committed key destroys the file (API notes, section 3). A file goes in one request or in parts, as
//! `repository/` has learned of the server; when the server refuses one way, the try goes on in the next. It knows nothing
//! of handles or journals.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::crash::{Point, point};
use crate::error::{Error, Kind, Result};
use crate::repository::model::{FileEntry, FileStatus, Md5, RecordId};
use crate::repository::{Layout, Multipart, Repository, Upload, Way, md5_of};

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
    /// What the server is known to have under the key: saves the first look.
    pub(super) known: Known,
}

/// What is known beforehand of a key on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing is known.
    Nothing,
    /// It has nothing there.
    Absent,
    /// The key was started there, to be sent in one request, and nothing was sent.
    Started,
}

/// Where a try stands.
enum Step {
    /// See what the server has under the key.
    Look,
    /// Remove what it has: there is no overwriting.
    Clear,
    /// Announce the key, for the way that the bytes will go.
    Start(Way),
    /// Send the bytes in one request.
    Send,
    /// Send them in parts.
    SendParts(Multipart),
    /// Ask the server to keep them.
    Commit(Md5),
    /// Compare what it kept.
    Compare(Md5, FileEntry),
}

/// How often one try may find something else than it expected before it gives way to a pause: other clients may
/// work on the same key.
const SURPRISES: u32 = 3;

/// After a commit in parts the server sums up the file in the background: 2 s for a GiB on a server with local storage, 10
/// s on one with S3. Longer than this nobody waits; the next try finds the file there and goes on waiting.
const LONGEST_SUM: Duration = Duration::from_secs(600);

/// The pauses between two looks at whether it is done.
const FIRST_LOOK: Duration = Duration::from_millis(200);
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// How often a wait looks whether it was stopped.
const TICK: Duration = Duration::from_millis(50);

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
    let way = repository.way(job.size);
    let mut step = match (job.known, way) {
        (Known::Nothing, _) => Step::Look,
        (Known::Absent, way) => Step::Start(way),
        (Known::Started, Way::Whole) => Step::Send,
        (Known::Started, Way::Parts(_)) => Step::Clear,
    };
    loop {
        if job.cancelled.load(Ordering::Relaxed) {
            return Err(Error::call(libc::ECANCELED));
        }
        let next = match step {
            Step::Look => look(repository, job, &mut checking),
            Step::Clear => clear(repository, job),
            Step::Start(way) => start(repository, job, way).inspect(|_| started = true),
            Step::Send => {
                checking(false);
                send(repository, job)
            }
            Step::SendParts(multipart) => {
                checking(false);
                send_parts(repository, job, &multipart)
            }
            Step::Commit(md5) => {
                checking(true);
                commit(repository, job, md5)
            }
            Step::Compare(md5, entry) => compare(repository, job, md5, entry),
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

fn look(repository: &Repository, job: &Job<'_>, checking: &mut impl FnMut(bool)) -> Result<Next> {
    let files = repository.draft_files(job.draft)?;
    let Some(entry) = files.into_iter().find(|entry| *entry.key == *job.key) else {
        return Ok(start_next(repository, job));
    };
    if entry.status != FileStatus::Completed || entry.size != Some(job.size) {
        return Ok(Next::Go(Step::Clear));
    }
    if entry.md5.is_none() {
        checking(true); // An earlier try committed it in parts, and saw no checksum yet.
    }
    match summed(repository, job, entry) {
        Ok(entry) if entry.md5 == Some(hash(job)?) => Ok(Next::Done(entry)),
        Ok(_) => Ok(Next::Go(Step::Clear)),
        Err(error) if error.kind() == Kind::NotFound => Ok(Next::Surprise(error)),
        Err(error) => Err(error),
    }
}

fn clear(repository: &Repository, job: &Job<'_>) -> Result<Next> {
    match repository.delete_file(job.draft, job.key) {
        // Somebody else was faster.
        Err(error) if error.kind() == Kind::NotFound => Ok(start_next(repository, job)),
        removed => removed.map(|()| {
            point(Point::Cleared);
            start_next(repository, job)
        }),
    }
}

/// There is nothing under the key.
fn start_next(repository: &Repository, job: &Job<'_>) -> Next {
    Next::Go(Step::Start(repository.way(job.size)))
}

fn start(repository: &Repository, job: &Job<'_>, way: Way) -> Result<Next> {
    let started = match way {
        Way::Whole => repository.start_files(job.draft, &[job.key]).map(|_| Step::Send),
        Way::Parts(layout) => start_parts(repository, job, layout),
    };
    match started {
        Ok(step) => {
            point(Point::Started);
            Ok(Next::Go(step))
        }
        // "File with key … already exists.": somebody was faster, or an earlier try of ours got further than we saw.
        Err(error)
            if error
                .server_message()
                .is_some_and(|m| m.contains("already exists")) =>
        {
            Ok(Next::Surprise(error))
        }
        Err(error) => another_way(repository, job, way, error),
    }
}

fn start_parts(repository: &Repository, job: &Job<'_>, layout: Layout) -> Result<Step> {
    log::info!(
        "{} of draft {} goes in {} parts of {} bytes",
        job.key,
        job.draft,
        layout.count(),
        layout.part_size()
    );
    repository
        .start_multipart(job.draft, job.key, layout)
        .map(Step::SendParts)
}

fn send(repository: &Repository, job: &Job<'_>) -> Result<Next> {
    let sent = repository.put_content(job.draft, job.key, upload_of(job, &told(job)));
    after_sending(repository, job, Way::Whole, sent)
}

fn send_parts(repository: &Repository, job: &Job<'_>, multipart: &Multipart) -> Result<Next> {
    let layout = multipart.layout();
    let told = |sent| {
        job.sent.store(sent, Ordering::Relaxed);
        if sent > layout.part_size() {
            point(Point::PartSent);
        }
    };
    let sent = repository.put_parts(multipart, &upload_of(job, &told));
    after_sending(repository, job, Way::Parts(layout), sent)
}

fn told(job: &Job<'_>) -> impl Fn(u64) + Sync {
    |sent| job.sent.store(sent, Ordering::Relaxed)
}

fn upload_of<'a>(job: &'a Job<'_>, progress: &'a (dyn Fn(u64) + Sync)) -> Upload<'a> {
    Upload {
        file: job.data,
        size: job.size,
        progress,
        cancelled: job.cancelled,
    }
}

fn after_sending(repository: &Repository, job: &Job<'_>, way: Way, sent: Result<Md5>) -> Result<Next> {
    match sent {
        Ok(md5) => {
            point(Point::Sent);
            Ok(Next::Go(Step::Commit(md5)))
        }
        Err(error) if error.kind() == Kind::NotFound => Ok(Next::Surprise(error)),
        Err(error) => another_way(repository, job, way, error),
    }
}

/// The server refused a way. If that has taught another one, the try goes on with it. This comes to an end: every such
/// refusal leaves smaller parts, or none.
fn another_way(repository: &Repository, job: &Job<'_>, refused: Way, error: Error) -> Result<Next> {
    let about_the_way = matches!(error.kind(), Kind::TooLarge | Kind::Denied | Kind::Refused);
    if about_the_way && repository.way(job.size) != refused {
        log::info!("{error}; trying another way");
        return Ok(Next::Go(Step::Clear));
    }
    Err(error)
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

fn compare(repository: &Repository, job: &Job<'_>, md5: Md5, entry: FileEntry) -> Result<Next> {
    let entry = match summed(repository, job, entry) {
        Err(error) if error.kind() == Kind::NotFound => return Ok(Next::Surprise(error)),
        entry => entry?,
    };
    if entry.status == FileStatus::Completed && entry.size == Some(job.size) && entry.md5 == Some(md5) {
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

/// A committed file with its MD5, which the server may only be computing (API notes, sections 3 and 10).
///
/// # Errors
/// `TimedOut` if it does not come; `NotFound` if the file goes meanwhile.
fn summed(repository: &Repository, job: &Job<'_>, mut entry: FileEntry) -> Result<FileEntry> {
    let deadline = Instant::now() + LONGEST_SUM;
    let mut pause = FIRST_LOOK;
    while entry.status == FileStatus::Completed && entry.md5.is_none() {
        if Instant::now() >= deadline {
            return Err(Error::new(
                Kind::TimedOut,
                format!(
                    "the repository has not told the checksum of {} of draft {} within {} s of its commit",
                    job.key,
                    job.draft,
                    LONGEST_SUM.as_secs()
                ),
            ));
        }
        wait(job, pause)?;
        pause = (pause * 2).min(LONGEST_LOOK);
        entry = repository.draft_file(job.draft, job.key)?;
    }
    Ok(entry)
}

fn wait(job: &Job<'_>, pause: Duration) -> Result<()> {
    let until = Instant::now() + pause;
    loop {
        if job.cancelled.load(Ordering::Relaxed) {
            return Err(Error::call(libc::ECANCELED));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(TICK));
    }
}

/// The MD5 of the staged bytes.
fn hash(job: &Job<'_>) -> Result<Md5> {
    md5_of(job.data, job.size, &|| job.cancelled.load(Ordering::Relaxed))
        .map_err(|error| error.during(format_args!("look at staged {}", job.key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::{Settings, Token};
    use rdm_sandbox::{ALICE, Multipart as Style, NewRecord, Route, Sandbox};
    use std::io::Write;

    struct Try {
        sandbox: Sandbox,
        draft: RecordId,
        repository: Repository,
    }

    impl Try {
        fn new() -> Try {
            let sandbox = Sandbox::start();
            let draft = RecordId::new(&sandbox.draft(NewRecord::titled("Draft"))).unwrap();
            let repository = Repository::connect(Settings {
                url: sandbox.url(),
                token: Some(Token::new(ALICE).unwrap()),
                ..Settings::default()
            })
            .unwrap();
            Try {
                sandbox,
                draft,
                repository,
            }
        }

        fn send(&self, key: &str, bytes: &[u8], known: Known) -> Result<FileEntry> {
            let mut data = tempfile::tempfile().unwrap();
            data.write_all(bytes).unwrap();
            let job = Job {
                draft: &self.draft,
                key,
                data: &data,
                size: bytes.len() as u64,
                cancelled: &AtomicBool::new(false),
                sent: &AtomicU64::new(0),
                known,
            };
            run(&self.repository, &job, |_| ())
        }

        #[track_caller]
        fn assert_stored(&self, key: &str, bytes: &[u8]) {
            let file = self.sandbox.draft_file(self.draft.as_str(), key).unwrap();
            assert!(file.status == "completed" && file.bytes() == bytes);
        }

        #[track_caller]
        fn assert_counts(&self, wanted: &[(Route, usize)]) {
            for (route, count) in wanted {
                assert_eq!(
                    self.sandbox.count(*route),
                    *count,
                    "{route}: {:?}",
                    self.sandbox.counts()
                );
            }
        }
    }

    #[test]
    fn what_is_known_of_a_key_saves_requests() {
        let here = Try::new();
        here.send("nothing", b"1", Known::Nothing).unwrap();
        here.assert_counts(&[
            (Route::DraftFiles, 1),
            (Route::StartFiles, 1),
            (Route::PutContent, 1),
        ]);
        here.sandbox.reset_counts();
        here.send("absent", b"2", Known::Absent).unwrap();
        here.assert_counts(&[
            (Route::DraftFiles, 0),
            (Route::StartFiles, 1),
            (Route::PutContent, 1),
        ]);
        here.repository.start_files(&here.draft, &["started"]).unwrap();
        here.sandbox.reset_counts();
        here.send("started", b"3", Known::Started).unwrap();
        here.assert_counts(&[
            (Route::DraftFiles, 0),
            (Route::StartFiles, 0),
            (Route::PutContent, 1),
        ]);
        for (key, bytes) in [("nothing", b"1"), ("absent", b"2"), ("started", b"3")] {
            here.assert_stored(key, bytes);
        }
    }

    #[test]
    fn what_is_known_wrongly_is_found_out() {
        let here = Try::new();
        here.send("a", b"there", Known::Absent).unwrap();
        here.send("a", b"other", Known::Absent).unwrap();
        here.assert_stored("a", b"other");
        here.send("b", b"gone", Known::Started).unwrap();
        here.assert_stored("b", b"gone");
        // Sending to a committed key destroys the file there, and this one is sent in its place.
        here.repository.start_files(&here.draft, &["c"]).unwrap();
        here.send("c", b"first", Known::Started).unwrap();
        assert!(here.send("c", b"second", Known::Started).is_err());
        here.send("c", b"second", Known::Nothing).unwrap();
        here.assert_stored("c", b"second");
    }

    #[test]
    fn a_started_key_goes_in_parts_after_all_if_the_file_is_too_large() {
        let here = Try::new();
        here.sandbox.knobs(|knobs| {
            knobs.max_body = Some(6 << 20);
            knobs.multipart = Style::Presigned;
        });
        let bytes = vec![7; 12 << 20];
        for key in ["not learned yet", "learned"] {
            here.repository.start_files(&here.draft, &[key]).unwrap();
            here.send(key, &bytes, Known::Started).unwrap();
            here.assert_stored(key, &bytes);
        }
        here.assert_counts(&[
            (Route::PutContent, 1),
            (Route::PutObjectPart, 6),
            (Route::DeleteFile, 2),
        ]);
    }
}
