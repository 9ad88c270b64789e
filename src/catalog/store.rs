//! What is known, on disk: so that a mount begins with it, and shows it while the repository can't be reached.
//!
//! One file for each thing, made under another name and renamed, so that a kill at any moment leaves the old one or the
//! new one. There is no index: a thing is looked up when memory has forgotten it. Each file says what it is of, when the
//! repository said it, and a checksum over all that; whatever doesn't fit is removed and not believed. Nothing is synced:
//! what a power cut loses is asked for again. Used by `catalog/` alone. Writing is done by a thread of its own; nobody
//! waits for it but the unmount.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;

use super::kept;

/// What a file is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// The document of a published record.
    Record,
    /// The same, as a listing told it.
    Hit,
    /// The id of the latest version.
    Concept,
    /// The list of files of a published record whose document doesn't list them.
    Files,
    /// Ids of the newest records.
    Newest,
    /// The forms that records are to be had in.
    Forms,
}

impl Topic {
    const ALL: [Topic; 6] = [
        Topic::Record,
        Topic::Hit,
        Topic::Concept,
        Topic::Files,
        Topic::Newest,
        Topic::Forms,
    ];

    fn word(self) -> &'static str {
        match self {
            Topic::Record => "record",
            Topic::Hit => "hit",
            Topic::Concept => "concept",
            Topic::Files => "files",
            Topic::Newest => "newest",
            Topic::Forms => "forms",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Topic::Record | Topic::Concept => "records",
            // It may say less than the record that is kept.
            Topic::Hit => "hits",
            Topic::Files => "files",
            Topic::Newest => "listings",
            Topic::Forms => FORMS,
        }
    }
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    /// What it is.
    pub topic: Topic,
    /// When the repository said it.
    pub asked: SystemTime,
    /// What it said.
    pub text: Bytes,
}

/// The files of one account at one repository.
pub struct Store {
    directory: PathBuf,
    limit: u64,
    jobs: Mutex<Option<Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Bytes that wait to be written.
    waiting: Arc<AtomicU64>,
}

enum Job {
    Write(PathBuf, Vec<Bytes>),
    Remove(PathBuf),
    Clear,
}

/// A first line of another form is of another version, and not read.
const MAGIC: &str = "rdmfs-catalog-1";
/// The longest first line: it holds five words, of which the longest is an id.
const LONGEST_HEAD: usize = 256;
/// While so much waits to be written, the rest is not kept: a disk that slow must not cost memory.
const MOST_WAITING: u64 = 16 << 20;
/// The catalog of an account that was not written for so long is removed when that of another is.
const LONG_AGO: Duration = Duration::from_secs(90 * 24 * 3600);
/// No file takes longer to write.
const LEFT: Duration = Duration::from_secs(3600);
/// What is over the limit goes in one sweep down to this part of it.
const AFTER_SWEEP: f64 = 0.9;

impl Store {
    /// The store of an account below a cache directory. Nothing is read yet.
    ///
    /// # Errors
    /// If its directory or its thread can't be made.
    pub fn open(cache: &Path, account: &str, limit: u64) -> std::io::Result<Self> {
        let directory = cache.join("catalog").join(account);
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let (jobs, queue) = channel();
        let waiting = Arc::new(AtomicU64::new(0));
        let mut worker = Worker {
            directory: directory.clone(),
            limit,
            waiting: Arc::clone(&waiting),
            used: None,
            written: 0,
        };
        let writer = std::thread::Builder::new()
            .name("catalog".to_owned())
            .spawn(move || worker.run(&queue))?;
        Ok(Store {
            directory,
            limit,
            jobs: Mutex::new(Some(jobs)),
            writer: Mutex::new(Some(writer)),
            waiting,
        })
    }

    /// Whether anything is known of an account, so that it can be shown without the repository.
    #[must_use]
    pub fn has_any(cache: &Path, account: &str) -> bool {
        fs::read_dir(cache.join("catalog").join(account))
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.file_name() != OUTSIDE && entry.file_name() != FORMS)
    }

    /// What was kept under a name. Damaged and foreign files are removed.
    pub fn load(&self, topic: Topic, name: &str) -> Option<Kept> {
        let path = self.path(topic, name)?;
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    log::warn!("can't read {}: {error}", path.display());
                }
                return None;
            }
        };
        match parse(&bytes, name) {
            Some((kept, at)) if kept.topic.folder() == topic.folder() => Some(Kept {
                text: Bytes::from(bytes).slice(at..),
                ..kept
            }),
            _ => {
                log::warn!(
                    "{} is damaged or of another version: it is dropped",
                    path.display()
                );
                self.send(Job::Remove(path), 0);
                None
            }
        }
    }

    /// Keeps something, soon.
    pub fn save(&self, topic: Topic, name: &str, asked: SystemTime, text: Bytes) {
        let size = text.len() as u64;
        let Some(path) = self.path(topic, name).filter(|_| size < self.limit) else {
            return;
        };
        if self.waiting.load(Ordering::Relaxed) + size > MOST_WAITING.max(size) {
            return;
        }
        let head = head(topic, name, asked, &text);
        self.send(Job::Write(path, vec![Bytes::from(head), text]), size);
    }

    /// Drops what is kept under a name: the repository says that it is not there, or not for us.
    pub fn remove(&self, topic: Topic, name: &str) {
        if let Some(path) = self.path(topic, name) {
            self.send(Job::Remove(path), 0);
        }
    }

    /// Drops all that is kept of this account, after what waits to be written. Returns how many bytes are there now.
    pub fn clear(&self) -> u64 {
        self.send(Job::Clear, 0);
        kept::bytes_below(&self.directory)
    }

    /// Ends, when what waits is written.
    pub fn shutdown(&self) {
        drop(self.jobs.lock().take());
        if let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            log::error!("the thread that keeps the catalog panicked; this is a bug in rdmfs");
        }
    }

    fn send(&self, job: Job, size: u64) {
        if let Some(jobs) = &*self.jobs.lock() {
            self.waiting.fetch_add(size, Ordering::Relaxed);
            // The writer ends only when this does.
            let _ = jobs.send(job);
        }
    }

    /// Names are ids, which are safe as file names; `None` for anything else.
    fn path(&self, topic: Topic, name: &str) -> Option<PathBuf> {
        let is_safe = !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let folder = format!("{:02x}", crc32fast::hash(name.as_bytes()) & 0xff);
        is_safe.then(|| self.directory.join(topic.folder()).join(folder).join(name))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Where the forms are kept, which say nothing of any record.
const FORMS: &str = "forms";
/// Where files are made before they are renamed.
const OUTSIDE: &str = "new";

/// The thread that writes.
struct Worker {
    directory: PathBuf,
    limit: u64,
    waiting: Arc<AtomicU64>,
    /// Bytes of all files, as far as they were counted.
    used: Option<u64>,
    written: u64,
}

impl Worker {
    fn run(&mut self, queue: &Receiver<Job>) {
        for job in queue {
            match job {
                Job::Write(path, parts) => {
                    let size: u64 = parts.iter().map(|part| part.len() as u64).sum();
                    if let Err(error) = self.write(&path, &parts) {
                        log::warn!("can't keep {}: {error}", path.display());
                    }
                    let text = parts.last().map_or(0, |text| text.len() as u64);
                    self.waiting.fetch_sub(text, Ordering::Relaxed);
                    drop(parts);
                    self.grow(size);
                }
                Job::Remove(path) => drop(fs::remove_file(path)),
                Job::Clear => {
                    for topic in Topic::ALL {
                        // Folders of several topics are gone the second time; the rest is found by the next sweep.
                        let _ = fs::remove_dir_all(self.directory.join(topic.folder()));
                    }
                    self.used = None;
                }
            }
        }
    }

    fn write(&mut self, path: &Path, parts: &[Bytes]) -> std::io::Result<()> {
        let outside = self.directory.join(OUTSIDE);
        let temporary = outside.join(format!("{}-{}", std::process::id(), self.written));
        self.written += 1;
        let make = |folder: &Path| DirBuilder::new().recursive(true).mode(0o700).create(folder);
        let open = || {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)
        };
        let mut file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make(&outside)?;
                open()?
            }
            opened => opened?,
        };
        let done = write_all(&mut file, parts).and_then(|()| match fs::rename(&temporary, path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                path.parent().map_or(Ok(()), make)?;
                fs::rename(&temporary, path)
            }
            done => done,
        });
        if done.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        done
    }

    /// Counts what was written, twice if it replaced something: only a sweep knows. Then removes the oldest over the
    /// limit.
    fn grow(&mut self, size: u64) {
        let used = match self.used {
            Some(used) => used + size,
            None => {
                self.remove_left_accounts();
                self.sweep(self.limit)
            }
        };
        // Well below the limit, or else each file that is replaced just below it would cost a sweep.
        self.used = Some(if used > self.limit {
            self.sweep(self.goal())
        } else {
            used
        });
    }

    /// What a sweep leaves at most.
    fn goal(&self) -> u64 {
        (self.limit as f64 * AFTER_SWEEP) as u64
    }

    /// Removes what was kept for tokens that nobody has used for long.
    fn remove_left_accounts(&self) {
        let all = self.directory.parent().map(fs::read_dir);
        for account in all.into_iter().flatten().flatten().flatten() {
            let path = account.path();
            let written = fs::metadata(path.join(OUTSIDE)).and_then(|metadata| metadata.modified());
            let is_left = written.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > LONG_AGO));
            if is_left && path != self.directory && fs::remove_dir_all(&path).is_ok() {
                log::info!("removed {}, which was not used for long", path.display());
            }
        }
    }

    /// Looks at all files, and removes the oldest if they are more than `most` bytes. Returns what is left, in bytes.
    fn sweep(&self, most: u64) -> u64 {
        let mut files = Vec::new();
        collect(&self.directory, &mut files);
        let outside = self.directory.join(OUTSIDE);
        files.retain(|(written, _, path)| {
            let is_left = path.parent() == Some(&outside) && is_left_behind(path, *written);
            if is_left {
                let _ = fs::remove_file(path);
            }
            !is_left
        });
        let mut used: u64 = files.iter().map(|(_, size, _)| size).sum();
        if used > most {
            files.sort();
            let goal = self.goal();
            for (_, size, path) in files {
                if used <= goal {
                    break;
                }
                if fs::remove_file(&path).is_ok() {
                    used -= size;
                }
            }
        }
        used
    }
}

/// Whether who began to write this file won't finish it: its daemon was killed.
fn is_left_behind(path: &Path, written: SystemTime) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let lives = |(pid, _): (&str, &str)| Path::new("/proc").join(pid).exists();
    // Another process may have the number by now.
    let is_old = written.elapsed().is_ok_and(|age| age > LEFT);
    is_old || !name.split_once('-').is_some_and(lives)
}

fn write_all(file: &mut File, parts: &[Bytes]) -> std::io::Result<()> {
    parts.iter().try_for_each(|part| file.write_all(part))
}

/// All files below a folder: when written, how large, where.
pub(super) fn collect(folder: &Path, files: &mut Vec<(SystemTime, u64, PathBuf)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => collect(&entry.path(), files),
            Ok(metadata) => files.push((
                metadata.modified().unwrap_or(UNIX_EPOCH),
                metadata.len(),
                entry.path(),
            )),
            Err(_) => {}
        }
    }
}

/// `rdmfs-catalog-1 TOPIC NAME MILLISECONDS CHECKSUM`, the checksum over the words before it and the text.
fn head(topic: Topic, name: &str, asked: SystemTime, text: &[u8]) -> String {
    let millis = asked
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    let words = format!("{MAGIC} {} {name} {millis}", topic.word());
    let sum = sum(&words, text);
    format!("{words} {sum:08x}\n")
}

fn sum(words: &str, text: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(words.as_bytes());
    hasher.update(text);
    hasher.finalize()
}

/// Reads a file of this name, but for its text, which begins at the place returned.
fn parse(bytes: &[u8], name: &str) -> Option<(Kept, usize)> {
    let end = bytes.iter().take(LONGEST_HEAD).position(|b| *b == b'\n')?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let (words, given) = head.rsplit_once(' ')?;
    let text = &bytes[end + 1..];
    if u32::from_str_radix(given, 16).ok()? != sum(words, text) {
        return None;
    }
    let mut words = words.split(' ');
    let (magic, topic, of, millis) = (words.next()?, words.next()?, words.next()?, words.next()?);
    if magic != MAGIC || of != name {
        return None;
    }
    let kept = Kept {
        topic: *Topic::ALL.iter().find(|known| known.word() == topic)?,
        asked: UNIX_EPOCH.checked_add(Duration::from_millis(millis.parse().ok()?))?,
        text: Bytes::new(),
    };
    Some((kept, end + 1))
}

#[cfg(test)]
mod tests {
    use super::kept::{kept_bytes, remove_kept};
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const LARGE: u64 = 1 << 20;

    fn time() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    /// A store in which this text is kept under the name `a1`, and where.
    fn kept(text: &'static str) -> (tempfile::TempDir, PathBuf) {
        let cache = tempfile::tempdir().unwrap();
        let store = Store::open(cache.path(), "account", LARGE).unwrap();
        store.save(Topic::Record, "a1", time(), text.into());
        let path = store.path(Topic::Record, "a1").unwrap();
        (cache, path)
    }

    fn load(cache: &tempfile::TempDir, account: &str) -> Option<Kept> {
        let store = Store::open(cache.path(), account, LARGE).unwrap();
        store.load(Topic::Record, "a1")
    }

    #[test]
    fn what_is_kept_outlives_the_daemon_with_the_time_it_was_said() {
        let (cache, _) = kept("text\nof two lines\n");
        let found = load(&cache, "account").unwrap();
        assert_eq!((found.topic, found.asked), (Topic::Record, time()));
        assert_eq!(found.text, "text\nof two lines\n");
        assert!(Store::has_any(cache.path(), "account"));
    }

    #[test]
    fn another_account_sees_nothing_of_it() {
        let (cache, _) = kept("text");
        assert_eq!(load(&cache, "other"), None);
        assert!(!Store::has_any(cache.path(), "other"));
    }

    #[test]
    fn only_the_user_may_read_it() {
        let (cache, path) = kept("text");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        for folder in path
            .ancestors()
            .skip(1)
            .take_while(|folder| *folder != cache.path())
        {
            assert_eq!(mode(folder), 0o700, "{}", folder.display());
        }
    }

    #[test]
    fn torn_and_flipped_and_foreign_bytes_are_dropped() {
        let (cache, path) = kept("text");
        let good = fs::read(&path).unwrap();
        let mut wrong: Vec<Vec<u8>> = (0..good.len()).map(|end| good[..end].to_vec()).collect();
        for place in 0..good.len() {
            let mut flipped = good.clone();
            flipped[place] ^= 1;
            wrong.push(flipped);
        }
        wrong.push([&good[..], b"more"].concat());
        let (record, old) = (b"rdmfs-catalog-1".as_slice(), b"rdmfs-catalog-0");
        assert!(good.starts_with(record));
        wrong.push([old, &good[record.len()..]].concat());
        // Right by itself, but of something else.
        wrong.push([head(Topic::Record, "b1", time(), b"text").as_bytes(), b"text"].concat());
        wrong.push([head(Topic::Files, "a1", time(), b"text").as_bytes(), b"text"].concat());
        for bytes in wrong {
            fs::write(&path, &bytes).unwrap();
            assert_eq!(
                load(&cache, "account"),
                None,
                "{}",
                String::from_utf8_lossy(&bytes)
            );
            assert!(!path.exists(), "it is removed");
        }
        fs::write(&path, good).unwrap();
        assert!(load(&cache, "account").is_some());
    }

    #[test]
    fn a_file_that_was_never_renamed_is_not_read_and_goes_with_the_next_write() {
        let (cache, path) = kept("old");
        let outside = cache.path().join("catalog/account").join(OUTSIDE);
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let left = outside.join(format!("{}-0", ended.id()));
        // Process 1 lives. It may have a number that another had.
        let [other, old] = [outside.join("1-0"), outside.join("1-1")];
        for path in [&left, &other, &old] {
            fs::write(path, "half of the ne").unwrap();
        }
        let long_ago = SystemTime::now() - 2 * LEFT;
        File::options()
            .write(true)
            .open(&old)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        let store = Store::open(cache.path(), "account", LARGE).unwrap();
        assert_eq!(store.load(Topic::Record, "a1").unwrap().text, "old");
        store.save(Topic::Record, "a1", time(), "new".into());
        drop(store);
        assert_eq!(load(&cache, "account").unwrap().text, "new");
        assert!(path.exists() && !left.exists() && !old.exists());
        assert!(other.exists(), "another daemon is about to rename it");
    }

    #[test]
    fn the_oldest_go_when_it_gets_too_large() {
        let cache = tempfile::tempdir().unwrap();
        let store = Store::open(cache.path(), "account", 5_000).unwrap();
        let text = Bytes::from(vec![b'x'; 900]);
        for number in 0..20 {
            store.save(Topic::Record, &format!("a{number}"), time(), text.clone());
        }
        drop(store);
        let mut files = Vec::new();
        collect(cache.path(), &mut files);
        let used: u64 = files.iter().map(|(_, size, _)| size).sum();
        assert!((2_000..=5_000).contains(&used), "{used}");
        assert!(files.iter().any(|(_, _, path)| path.ends_with("a19")));
    }

    #[test]
    fn what_is_cleared_is_gone_with_what_waited_and_what_comes_then_is_kept() {
        let (cache, path) = kept("text");
        assert_eq!(kept_bytes(cache.path()), fs::metadata(&path).unwrap().len());
        let store = Store::open(cache.path(), "account", LARGE).unwrap();
        store.save(Topic::Files, "a1", time(), "waits".into());
        assert!(store.clear() > 0);
        store.save(Topic::Hit, "b1", time(), "new".into());
        drop(store);
        let store = Store::open(cache.path(), "account", LARGE).unwrap();
        assert_eq!(store.load(Topic::Record, "a1"), None);
        assert_eq!(store.load(Topic::Files, "a1"), None);
        assert_eq!(store.load(Topic::Hit, "b1").unwrap().text, "new");
        drop(store);
        assert!(remove_kept(cache.path()).unwrap() > 0);
        assert_eq!(remove_kept(cache.path()).unwrap(), 0);
    }

    #[test]
    fn replacing_files_just_below_the_limit_does_not_cost_a_sweep_each_time() {
        let cache = tempfile::tempdir().unwrap();
        for number in 0..10 {
            fs::write(cache.path().join(number.to_string()), [b'x'; 98]).unwrap();
        }
        let mut worker = Worker {
            directory: cache.path().to_owned(),
            limit: 1_000,
            waiting: Arc::default(),
            used: Some(980),
            written: 0,
        };
        worker.grow(98);
        // What was replaced counted twice; now there is room for as much again.
        assert_eq!(worker.used, Some(9 * 98));
    }

    #[test]
    fn what_was_kept_for_a_token_that_is_not_used_any_more_goes_some_day() {
        let (cache, path) = kept("text");
        for (days, is_there) in [(10, true), (100, false)] {
            let outside = cache.path().join("catalog/account").join(OUTSIDE);
            let time = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
            File::open(outside).unwrap().set_modified(time).unwrap();
            let store = Store::open(cache.path(), "other", LARGE).unwrap();
            store.save(Topic::Record, "a1", time, "text".into());
            drop(store);
            assert_eq!(path.exists(), is_there, "after {days} days");
        }
    }

    #[test]
    fn what_is_removed_is_gone_and_names_never_lead_elsewhere() {
        let (cache, _) = kept("text");
        let store = Store::open(cache.path(), "account", LARGE).unwrap();
        store.remove(Topic::Record, "a1");
        drop(store);
        assert_eq!(load(&cache, "account"), None);
        let store = Store::open(cache.path(), "account", LARGE).unwrap();
        for name in ["", "..", "a/b", "../a1"] {
            assert_eq!(store.path(Topic::Record, name), None);
        }
    }
}
