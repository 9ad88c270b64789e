//! The daemon dies at each of the named points during each kind of change; the next mount goes on. Judged at the server.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use parking_lot::Mutex;
use rdm_sandbox::{ALICE, NewRecord, Sandbox};
use rdmfs::staging::crash::Point;
use rdmfs::status::{Status, UploadState};
use serde_json::{Map, Value};

use crate::support::{LONG, Mount, close, ended, how, kill, names, noise, until};

/// What a user does when the daemon dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    NewFile,
    /// Its only close comes before anything is sent.
    EmptyFile,
    Overwrite,
    Rename,
    Document,
    Delete,
    /// Written and synced, never closed.
    Open,
}

impl Change {
    const ALL: [Change; 7] = [
        Change::NewFile,
        Change::EmptyFile,
        Change::Overwrite,
        Change::Rename,
        Change::Document,
        Change::Delete,
        Change::Open,
    ];

    fn name(self) -> &'static str {
        match self {
            Change::NewFile => "new file",
            Change::EmptyFile => "empty file",
            Change::Overwrite => "overwrite",
            Change::Rename => "rename",
            Change::Document => "record.json",
            Change::Delete => "delete",
            Change::Open => "open file",
        }
    }
}

/// How the daemon dies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Death {
    /// At a named point.
    At(String),
    /// By a signal as soon as the call has returned.
    Killed,
}

impl Death {
    /// All that is tried. The journal is written several times for one change.
    fn all() -> Vec<Death> {
        let named = Point::ALL.iter().flat_map(|point| {
            let passes = match point {
                Point::EntryWritten | Point::EntryRenamed => 1..=3,
                _ => 1..=1,
            };
            passes.map(|pass| Death::At(format!("{}:{pass}", point.name())))
        });
        named.chain([Death::Killed]).collect()
    }

    fn name(&self) -> &str {
        match self {
            Death::At(name) => name.trim_end_matches(":1"),
            Death::Killed => "kill -9 after it",
        }
    }
}

/// What there was in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Old,
    New,
    /// The point is not on the way of this change, which succeeded.
    OffPath,
}

/// The files of a draft and its metadata.
#[derive(Clone, PartialEq)]
struct Content {
    files: BTreeMap<String, Vec<u8>>,
    metadata: Map<String, Value>,
}

impl Content {
    /// As the server has it now, or what is wrong with it.
    fn of(sandbox: &Sandbox, draft: &str) -> Result<Content, String> {
        let keys = sandbox.draft_keys(draft);
        let files = keys.iter().map(|key| {
            let file = sandbox
                .draft_file(draft, key)
                .ok_or("a file that comes and goes")?;
            if file.status == "completed" {
                Ok((key.clone(), file.bytes()))
            } else {
                Err(format!("{key} is {}", file.status))
            }
        });
        Ok(Content {
            files: files.collect::<Result<_, String>>()?,
            metadata: sandbox.draft_metadata(draft).ok_or("no draft")?,
        })
    }

    fn changed(&self, change: Change) -> Content {
        let mut content = self.clone();
        match change {
            Change::NewFile => drop(content.files.insert("new".into(), new_bytes())),
            Change::EmptyFile => drop(content.files.insert("new".into(), Vec::new())),
            Change::Overwrite => drop(content.files.insert("old".into(), new_bytes())),
            Change::Rename => {
                let bytes = content.files.remove("old").unwrap();
                content.files.insert("new".into(), bytes);
            }
            Change::Document => edit(&mut content.metadata),
            Change::Delete => drop(content.files.remove("old")),
            // It is not closed: nothing changes.
            Change::Open => {}
        }
        content
    }

    fn shown(&self) -> String {
        let files: Vec<String> = self
            .files
            .iter()
            .map(|(key, bytes)| format!("{key}: {} bytes", bytes.len()))
            .collect();
        format!("{}; metadata {:?}", files.join(", "), self.metadata)
    }
}

fn old_bytes() -> Vec<u8> {
    noise(100_000, 1)
}

fn new_bytes() -> Vec<u8> {
    noise(150_000, 2)
}

/// In the middle of the open file.
const PLACE: usize = 30_000;

/// What the open file is in the end.
fn opened_bytes() -> Vec<u8> {
    let mut bytes = old_bytes();
    bytes[PLACE..PLACE + 20_000].copy_from_slice(&noise(20_000, 3));
    bytes
}

fn edit(metadata: &mut Map<String, Value>) {
    for (field, value) in [("title", "After"), ("publisher", "Somebody"), ("version", "2")] {
        metadata.insert(field.to_owned(), value.into());
    }
}

/// Does a change in a draft's folder, up to the end of its last call. What stays open is returned.
fn act(folder: &Path, change: Change) -> io::Result<Option<File>> {
    let (old, new) = (folder.join("old"), folder.join("new"));
    match change {
        Change::NewFile => write(File::create(new)?)?,
        Change::EmptyFile => closed(File::create(new)?)?,
        Change::Overwrite => write(File::create(old)?)?,
        Change::Rename => fs::rename(old, new)?,
        Change::Document => {
            let path = folder.join("record.json");
            let mut document: Value = serde_json::from_slice(&fs::read(&path)?)?;
            edit(document["metadata"].as_object_mut().unwrap());
            let file = File::create(path)?;
            file.write_all_at(&serde_json::to_vec_pretty(&document)?, 0)?;
            closed(file)?;
        }
        Change::Delete => fs::remove_file(old)?,
        Change::Open => {
            let file = OpenOptions::new().read(true).write(true).open(old)?;
            file.write_all_at(&opened_bytes()[PLACE..PLACE + 20_000], PLACE as u64)?;
            file.sync_all()?;
            return Ok(Some(file));
        }
    }
    Ok(None)
}

fn write(file: File) -> io::Result<()> {
    let bytes = new_bytes();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    file.write_all_at(second, first.len() as u64)?;
    file.write_all_at(first, 0)?;
    closed(file)
}

fn closed(file: File) -> io::Result<()> {
    match close(file) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Does a change in a thread of its own: a call that hangs must not hang the test.
fn begin(folder: PathBuf, change: Change) -> Receiver<io::Result<Option<File>>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        // Nobody listens any more if it took too long.
        let _ = sender.send(act(&folder, change));
    });
    receiver
}

/// Tries one death during one change. Whatever is lost or mixed is an error.
fn try_one(death: &Death, change: Change) -> Result<Found, String> {
    // Uploads in parts, which only a larger file than `max_body` needs, can be made to happen here by a small one.
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Before").file("old", old_bytes()));
    let before = Content::of(&sandbox, &draft)?;
    let after = before.changed(change);

    let mut plan = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--close-wait", "0s"]);
    if let Death::At(name) = death {
        plan = plan.environment("RDMFS_CRASH_AT", name);
    }
    let first = plan.start();
    let outcome = begin(first.path(format!("drafts/{draft}")), change)
        .recv_timeout(LONG)
        .map_err(|_| "the call hangs".to_owned())?;
    let returned = outcome.is_ok();
    if *death == Death::Killed {
        kill(&first);
    }
    let settled = settle(&first);
    let was_open = outcome.ok().flatten();
    if settled == Settled::Quiet && was_open.is_some() {
        kill(&first);
    } else if settled == Settled::Quiet {
        unmount_now(&first);
    }
    drop(was_open);
    let folder = ended(first);
    let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    let died = *death == Death::Killed || log.contains("crash at ");

    let second = how(&sandbox.url()).token(ALICE).folder(folder).start();
    let status = second.wait_for("all is sent", |status| status.moving_uploads() == 0);
    let content = Content::of(&sandbox, &draft)?;
    if content != before && content != after {
        return Err(format!("neither old nor new: {}", content.shown()));
    }
    if returned && content != after {
        return Err("the call had succeeded, and the change is lost".into());
    }
    if change == Change::Open && returned {
        kept(&status)?;
    }
    if let Some(upload) = status
        .uploads
        .iter()
        .find(|upload| upload.state != UploadState::Unclosed)
    {
        return Err(format!(
            "{} is left {:?}: {:?}",
            upload.key, upload.state, upload.reason
        ));
    }
    compare_view(&second, &draft, &content)?;
    Ok(match died {
        false => Found::OffPath,
        // What is kept of an open file is what is new of it.
        true if change == Change::Open && returned => Found::New,
        true if content == before => Found::Old,
        true => Found::New,
    })
}

/// How it goes on after the change.
#[derive(PartialEq, Eq)]
enum Settled {
    /// It died.
    Dead,
    /// It has nothing left to do.
    Quiet,
}

fn settle(mount: &Mount) -> Settled {
    let mut settled = Settled::Dead;
    until("it is dead or has nothing to do", || {
        match mount.status_if_alive() {
            Err(_) => true,
            Ok(status) if status.moving_uploads() == 0 => {
                settled = Settled::Quiet;
                true
            }
            Ok(_) => false,
        }
    });
    settled
}

/// Unmounts, unless it dies before.
fn unmount_now(mount: &Mount) {
    let _ = Command::new(env!("CARGO_BIN_EXE_rdmfs"))
        .args(["unmount", "--now"])
        .arg(mount.path(""))
        .output();
}

/// The bytes of a file that was synced and not closed are named in the status.
fn kept(status: &Status) -> Result<(), String> {
    let upload = status
        .uploads
        .iter()
        .find(|upload| upload.state == UploadState::Unclosed && upload.key == "old")
        .ok_or("what was synced and not closed is not listed")?;
    let bytes = fs::read(&upload.kept).map_err(|e| format!("what is kept can't be read: {e}"))?;
    if bytes == opened_bytes() {
        Ok(())
    } else {
        Err(format!("what is kept is something else, {} bytes", bytes.len()))
    }
}

/// The mount shows what the server has.
fn compare_view(mount: &Mount, draft: &str, content: &Content) -> Result<(), String> {
    let folder = mount.path(format!("drafts/{draft}"));
    let mut expected: Vec<String> = content.files.keys().cloned().collect();
    expected.push("record.json".into());
    expected.sort();
    let shown = names(&folder);
    if shown != expected {
        return Err(format!("the mount shows {shown:?}, the server has {expected:?}"));
    }
    for (key, bytes) in &content.files {
        let read = fs::read(folder.join(key)).map_err(|e| format!("{key} can't be read: {e}"))?;
        if read != *bytes {
            return Err(format!(
                "the mount shows other bytes of {key} than the server has"
            ));
        }
    }
    Ok(())
}

type Results = BTreeMap<(usize, Change), Result<Found, String>>;

/// As many are tried at the same time.
const AT_ONCE: usize = 6;

fn try_all(deaths: &[Death]) -> Results {
    let cells = deaths
        .iter()
        .enumerate()
        .flat_map(|(row, death)| Change::ALL.map(|change| (row, death, change)));
    let cells = Mutex::new(cells);
    let results = Mutex::new(Results::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = cells.lock().next();
                    let Some((row, death, change)) = next else { return };
                    // A wait in vain panics; the other cells are still to be tried.
                    let result = catch_unwind(AssertUnwindSafe(|| try_one(death, change)))
                        .unwrap_or_else(|panic| Err(words(&*panic)));
                    results.lock().insert((row, change), result);
                }
            });
        }
    });
    results.into_inner()
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    match panic.downcast_ref::<String>() {
        Some(text) => text.clone(),
        None => "a panic".to_owned(),
    }
}

/// The results as a table, and what is wrong.
fn table(deaths: &[Death], results: &Results) -> (String, Vec<String>) {
    let mut text = format!("{:18}", "");
    let mut wrong = Vec::new();
    for change in Change::ALL {
        text += &format!("{:13}", change.name());
    }
    for (row, death) in deaths.iter().enumerate() {
        text += &format!("\n{:18}", death.name());
        for change in Change::ALL {
            let shown = match &results[&(row, change)] {
                Ok(Found::Old) => "old",
                Ok(Found::New) if change == Change::Open => "kept",
                Ok(Found::New) => "new",
                Ok(Found::OffPath) => "-",
                Err(reason) => {
                    wrong.push(format!("{}, {}: {reason}", death.name(), change.name()));
                    "LOST"
                }
            };
            text += &format!("{shown:13}");
        }
    }
    (text, wrong)
}

#[test]
fn no_crash_at_any_point_loses_or_mixes_a_file() {
    let _alone = crate::alone();
    if !cfg!(debug_assertions) {
        eprintln!("NOT RUN: a release build has no points to crash at");
        return;
    }
    let began = Instant::now();
    let deaths = Death::all();
    let results = try_all(&deaths);
    let (table, wrong) = table(&deaths, &results);
    println!("{table}");
    println!(
        "{} lost of {} tried, in {:.0} s",
        wrong.len(),
        results.len(),
        began.elapsed().as_secs_f64()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let died = results
        .values()
        .filter(|result| **result != Ok(Found::OffPath))
        .count();
    assert!(died > results.len() / 4, "the daemon has died {died} times only");
}
