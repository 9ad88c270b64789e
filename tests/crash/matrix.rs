//! The daemon dies at each of the named points during each kind of change; the next mount goes on. Judged at the server.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdm_sandbox::{ALICE, Effect, Fault, Multipart, NewRecord, Route, Sandbox};
use rdmfs::staging::crash::Point;
use rdmfs::status::{Status, UploadState};
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::support::{LONG, Mount, Plan, close, ended, how, kill, names, noise, until};

/// What a user does when the daemon dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    NewFile,
    /// A new file that is too large for one request.
    InParts,
    /// The same, to an object store.
    InPartsElsewhere,
    /// Its only close comes before anything is sent.
    EmptyFile,
    Overwrite,
    Rename,
    Document,
    Delete,
    /// Written and synced, never closed.
    Open,
    /// Closed, and then written again and synced.
    OpenAgain,
}

impl Change {
    const ALL: [Change; 10] = [
        Change::NewFile,
        Change::InParts,
        Change::InPartsElsewhere,
        Change::EmptyFile,
        Change::Overwrite,
        Change::Rename,
        Change::Document,
        Change::Delete,
        Change::Open,
        Change::OpenAgain,
    ];

    /// What is done here first and on the server later.
    const DEFERRED: [Change; 9] = [
        Change::NewFile,
        Change::InParts,
        Change::InPartsElsewhere,
        Change::EmptyFile,
        Change::Overwrite,
        Change::Rename,
        Change::Document,
        Change::Open,
        Change::OpenAgain,
    ];

    fn name(self) -> &'static str {
        match self {
            Change::NewFile => "new file",
            Change::InParts => "in parts",
            Change::InPartsElsewhere => "parts to S3",
            Change::EmptyFile => "empty file",
            Change::Overwrite => "overwrite",
            Change::Rename => "rename",
            Change::Document => "record.json",
            Change::Delete => "delete",
            Change::Open => "open file",
            Change::OpenAgain => "open again",
        }
    }

    /// What it leaves of an open file, which is not for the server.
    fn kept(self) -> Option<Vec<u8>> {
        let (mut bytes, seed) = match self {
            Change::Open => (old_bytes(), 3),
            Change::OpenAgain => (new_bytes(), 4),
            _ => return None,
        };
        bytes[PLACE..PLACE + PIECE].copy_from_slice(&noise(PIECE, seed));
        Some(bytes)
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

    /// Those that a mount can die that goes on with what another one left.
    fn of_a_next_mount() -> Vec<Death> {
        let of_calls = [
            Point::Created,
            Point::Noted,
            Point::Synced,
            Point::Closed,
            Point::Fetched,
            Point::Renamed,
            Point::Held,
            Point::Unlinked,
        ];
        let mut deaths = Death::all();
        deaths.retain(|death| !of_calls.iter().any(|point| death.name() == point.name()));
        deaths
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
            Change::InParts | Change::InPartsElsewhere => {
                content.files.insert("new".into(), large_bytes());
            }
            Change::EmptyFile => drop(content.files.insert("new".into(), Vec::new())),
            Change::Overwrite | Change::OpenAgain => drop(content.files.insert("old".into(), new_bytes())),
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

/// What the repository takes in one request, where it takes parts.
const LIMIT: u64 = 6 << 20;

fn large_bytes() -> Vec<u8> {
    noise(12_000_000, 5)
}

/// Where an open file is written, in its middle.
const PLACE: usize = 30_000;
/// So much of it.
const PIECE: usize = 20_000;

fn edit(metadata: &mut Map<String, Value>) {
    for (field, value) in [("title", "After"), ("publisher", "Somebody"), ("version", "2")] {
        metadata.insert(field.to_owned(), value.into());
    }
}

/// Does a change in a draft's folder, up to the end of its last call. What stays open is returned.
fn act(folder: &Path, change: Change) -> io::Result<Option<File>> {
    let (old, new) = (folder.join("old"), folder.join("new"));
    match change {
        Change::NewFile => write(File::create(new)?, &new_bytes())?,
        Change::InParts | Change::InPartsElsewhere => write(File::create(new)?, &large_bytes())?,
        Change::EmptyFile => closed(File::create(new)?)?,
        Change::Overwrite => write(File::create(old)?, &new_bytes())?,
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
        Change::Open => return reopened(&old, change).map(Some),
        Change::OpenAgain => {
            write(File::create(&old)?, &new_bytes())?;
            return reopened(&old, change).map(Some);
        }
    }
    Ok(None)
}

fn reopened(path: &Path, change: Change) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let bytes = change.kept().unwrap();
    file.write_all_at(&bytes[PLACE..PLACE + PIECE], PLACE as u64)?;
    file.sync_all()?;
    Ok(file)
}

fn write(file: File, bytes: &[u8]) -> io::Result<()> {
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

/// A repository with a draft, and what is in it.
struct Scene {
    sandbox: Sandbox,
    draft: String,
    before: Content,
}

impl Scene {
    fn new(change: Change) -> Scene {
        let sandbox = Sandbox::start();
        let multipart = match change {
            Change::InParts => Some(Multipart::Local),
            Change::InPartsElsewhere => Some(Multipart::Presigned),
            _ => None,
        };
        if let Some(multipart) = multipart {
            sandbox.knobs(|knobs| {
                knobs.max_body = Some(LIMIT);
                knobs.multipart = multipart;
            });
        }
        let draft = sandbox.draft(NewRecord::titled("Before").file("old", old_bytes()));
        let before = Content::of(&sandbox, &draft).unwrap();
        Scene {
            sandbox,
            draft,
            before,
        }
    }

    fn plan(&self, death: &Death) -> Plan {
        let plan = how(&self.sandbox.url())
            .token(ALICE)
            .arguments(&["--close-wait", "0s"]);
        match death {
            Death::At(name) => plan.environment("RDMFS_CRASH_AT", name),
            Death::Killed => plan,
        }
    }

    /// Does a change; an error if it does not end.
    fn change(&self, mount: &Mount, change: Change) -> Result<io::Result<Option<File>>, String> {
        begin(mount.path(format!("drafts/{}", self.draft)), change)
            .recv_timeout(LONG)
            .map_err(|_| "the call hangs".to_owned())
    }

    /// Mounts again, and judges by what there is when all is sent.
    fn judge(&self, folder: TempDir, change: Change, returned: bool) -> Result<Found, String> {
        let mount = self.plan(&Death::Killed).folder(folder).start();
        let status = mount.wait_for("all is sent", |status| status.moving_uploads() == 0);
        let content = Content::of(&self.sandbox, &self.draft)?;
        let after = self.before.changed(change);
        if content != self.before && content != after {
            return Err(format!("neither old nor new: {}", content.shown()));
        }
        if returned && content != after {
            return Err("the call had succeeded, and the change is lost".into());
        }
        if let Some(bytes) = change.kept().filter(|_| returned) {
            is_kept(&status, &bytes)?;
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
        compare_view(&mount, &self.draft, &content)?;
        Ok(match change.kept() {
            Some(_) if returned => Found::New,
            _ if content == self.before => Found::Old,
            _ => Found::New,
        })
    }
}

/// Ends a mount that is dead or has nothing to do. Whether it has died, and its folder.
fn end(mount: Mount, open: Option<File>) -> (bool, TempDir) {
    match settle(&mount) {
        Settled::Dead => {}
        Settled::Quiet if open.is_some() => kill(&mount),
        Settled::Quiet => unmount_now(&mount),
    }
    drop(open);
    let folder = ended(mount);
    (has_crashed(&folder), folder)
}

fn has_crashed(folder: &TempDir) -> bool {
    fs::read_to_string(folder.path().join("log")).is_ok_and(|log| log.contains("crash at "))
}

/// Tries one death during one change. Whatever is lost or mixed is an error.
fn try_during(death: &Death, change: Change) -> Result<Found, String> {
    let scene = Scene::new(change);
    let mount = scene.plan(death).start();
    let outcome = scene.change(&mount, change)?;
    let returned = outcome.is_ok();
    if *death == Death::Killed {
        kill(&mount);
    }
    let (crashed, folder) = end(mount, outcome.ok().flatten());
    let found = scene.judge(folder, change, returned)?;
    Ok(if crashed || *death == Death::Killed {
        found
    } else {
        Found::OffPath
    })
}

/// Tries one death of the mount that goes on with one change, which was done before the server could have it.
fn try_after(death: &Death, change: Change) -> Result<Found, String> {
    let scene = Scene::new(change);
    let first = scene.plan(&Death::Killed).start();
    for route in [Route::StartFiles, Route::PutDraft] {
        scene
            .sandbox
            .fault(Fault::on(route).then(Effect::ServerError(503)));
    }
    let outcome = scene.change(&first, change)?;
    let open = outcome.map_err(|error| format!("the change failed: {error}"))?;
    kill(&first);
    drop(open);
    let folder = ended(first);
    scene.sandbox.clear_faults();
    // So that it usually answers before it dies: of one that doesn't, the guardian waits long for an answer.
    for route in [Route::DraftFiles, Route::GetDraft] {
        let pause = Effect::Delay(Duration::from_millis(300));
        scene.sandbox.fault(Fault::on(route).times(1).then(pause));
    }
    let (crashed, folder) = match scene.plan(death).folder(folder).try_start() {
        Ok(second) if *death == Death::Killed => {
            kill(&second);
            (true, ended(second))
        }
        Ok(second) => end(second, None),
        Err((_, folder)) => (has_crashed(&folder), folder),
    };
    let found = scene.judge(folder, change, true)?;
    Ok(if crashed { found } else { Found::OffPath })
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
    let output = Command::new(env!("CARGO_BIN_EXE_rdmfs"))
        .args(["unmount", "--now"])
        .arg(mount.path(""))
        .output()
        .unwrap();
    // It may die on the way, and be gone.
    if !output.status.success() {
        eprintln!("unmount --now: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The bytes of a file that was synced and not closed are named in the status.
fn is_kept(status: &Status, bytes: &[u8]) -> Result<(), String> {
    let upload = status
        .uploads
        .iter()
        .find(|upload| upload.state == UploadState::Unclosed && upload.key == "old")
        .ok_or("what was synced and not closed is not listed")?;
    let kept = fs::read(&upload.kept).map_err(|e| format!("what is kept can't be read: {e}"))?;
    if kept == bytes {
        Ok(())
    } else {
        Err(format!("what is kept is something else, {} bytes", kept.len()))
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

fn try_all(
    deaths: &[Death],
    changes: &[Change],
    try_one: impl Fn(&Death, Change) -> Result<Found, String> + Sync,
) -> Results {
    let cells = deaths
        .iter()
        .enumerate()
        .flat_map(|(row, death)| changes.iter().map(move |change| (row, death, *change)));
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
fn table(deaths: &[Death], changes: &[Change], results: &Results) -> (String, Vec<String>) {
    let mut text = format!("{:18}", "");
    let mut wrong = Vec::new();
    for change in changes {
        text += &format!("{:13}", change.name());
    }
    for (row, death) in deaths.iter().enumerate() {
        text += &format!("\n{:18}", death.name());
        for change in changes {
            let shown = match &results[&(row, *change)] {
                Ok(Found::Old) => "old",
                Ok(Found::New) if change.kept().is_some() => "kept",
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

fn check(
    deaths: &[Death],
    changes: &[Change],
    try_one: impl Fn(&Death, Change) -> Result<Found, String> + Sync,
) {
    let _alone = crate::alone();
    if !cfg!(debug_assertions) {
        eprintln!("NOT RUN: a release build has no points to crash at");
        return;
    }
    let began = Instant::now();
    let results = try_all(deaths, changes, try_one);
    let (table, wrong) = table(deaths, changes, &results);
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

#[test]
fn no_crash_at_any_point_loses_or_mixes_a_file() {
    check(&Death::all(), &Change::ALL, try_during);
}

#[test]
fn no_crash_of_the_next_mount_loses_or_mixes_what_the_first_has_left() {
    check(&Death::of_a_next_mount(), &Change::DEFERRED, try_after);
}
