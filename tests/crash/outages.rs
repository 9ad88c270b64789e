//! Many files written to a server that fails at random, by a daemon that is killed again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rdm_sandbox::{ALICE, Effect, Fault, FaultId, NewRecord, Route, Sandbox, md5_hex};
use rdmfs::status::UploadState;
use tempfile::TempDir;

use crate::support::{Mount, close, ended, how, kill, noise};

const FILES: usize = 500;
const WRITERS: usize = 8;
const KILLS: usize = 10;
const LARGEST: u64 = 20_000_000;
/// Of so many requests of a kind, one fails.
const FAILING: u64 = 12;
/// As many requests of a kind are planned for; later ones succeed.
const PLANNED: u64 = 1200;
/// Of so many files, one is empty.
const EMPTY: u64 = 8;
/// Set to have the same sizes, faults and deaths again.
const SEED: &str = "RDMFS_TEST_SEED";

/// Random numbers that are the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The sizes of the files: from nothing to the largest, most of them small.
fn sizes(random: &mut Random) -> Vec<usize> {
    let mut sizes: Vec<usize> = (0..FILES)
        .map(|_| {
            let part = random.below(1 << 20) as f64 / f64::from(1 << 20);
            // The logarithm is spread, so that there are some of each order of magnitude.
            let size = (LARGEST as f64).powf(part.powf(1.6)) as usize;
            if random.below(EMPTY) == 0 { 0 } else { size }
        })
        .collect();
    sizes[FILES / 2] = LARGEST as usize;
    sizes
}

/// What can go wrong with a request, but for what only ends at a time limit.
fn effects(route: Route, random: &mut Random) -> Effect {
    let any = [
        Effect::ServerError(500),
        Effect::ServerError(502),
        Effect::ServerError(503),
        Effect::Reset,
        Effect::HtmlPage,
        Effect::HtmlError(502),
        Effect::TooManyRequests { retry_after: 1 },
        Effect::Delay(Duration::from_millis(200)),
        Effect::ErrorAfterSuccess(504),
        Effect::ErrorAfterSuccess(500),
        Effect::ResetAfterSuccess,
    ];
    let after = random.below(100_000);
    let of_content = [
        Effect::UploadLost,
        Effect::ResetUpload { after },
        Effect::CloseUpload { after },
    ];
    let more = if route == Route::PutContent {
        &of_content[..]
    } else {
        &[]
    };
    let chosen = random.below((any.len() + more.len()) as u64) as usize;
    any.iter().chain(more).nth(chosen).unwrap().clone()
}

/// Orders the faults of a run.
fn order_faults(sandbox: &Sandbox, random: &mut Random) -> Vec<FaultId> {
    let routes = [
        Route::StartFiles,
        Route::PutContent,
        Route::Commit,
        Route::DraftFiles,
        Route::DeleteFile,
    ];
    let mut ordered = Vec::new();
    for route in routes {
        for number in 0..PLANNED {
            if random.below(FAILING) == 0 {
                let effect = effects(route, random);
                ordered.push(sandbox.fault(Fault::on(route).skip(number).times(1).then(effect)));
            }
        }
    }
    ordered
}

/// What writers and the one who kills tell each other.
#[derive(Default)]
struct Scene {
    state: Mutex<State>,
    changed: Condvar,
    next: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// Grows with each death, and again when the next mount is there: odd while there is none.
    era: u64,
    finished: usize,
    /// Calls that failed because of a death, by errno.
    failed: BTreeMap<i32, usize>,
    /// Calls that failed although there was a daemon all the time.
    wrong: Vec<String>,
    /// The sums of what was closed last, by key.
    sums: BTreeMap<String, String>,
}

impl Scene {
    /// Waits until there is a mount, and returns its era.
    fn wait_for_a_mount(&self) -> u64 {
        let mut state = self.state.lock();
        while state.era % 2 == 1 {
            self.changed.wait(&mut state);
        }
        state.era
    }

    fn wait_for_finished(&self, files: usize) {
        let mut state = self.state.lock();
        while state.finished < files && state.wrong.is_empty() {
            self.changed.wait(&mut state);
        }
    }

    fn next_era(&self) {
        self.state.lock().era += 1;
        self.changed.notify_all();
    }
}

/// Falls if the one who kills has failed: the writers must not wait for ever.
struct Curtain<'a>(&'a Scene);

impl Drop for Curtain<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut state = self.0.state.lock();
            state.wrong.push("the next mount did not start".to_owned());
            state.era += state.era % 2;
            self.0.changed.notify_all();
        }
    }
}

fn key_of(number: usize) -> String {
    match number % 4 {
        0 => format!("part {}/{number:03}.bin", number % 3),
        _ => format!("{number:03}.bin"),
    }
}

/// Writes files until there are none left. One that fails is written from its start, each time with other bytes, so that
/// what an earlier try has left can't pass for it.
fn write_files(scene: &Scene, folder: &Path, sizes: &[usize]) {
    loop {
        let number = scene.next.fetch_add(1, Ordering::Relaxed);
        let Some(size) = sizes.get(number) else { return };
        let key = key_of(number);
        for attempt in 0_u64.. {
            let era = scene.wait_for_a_mount();
            let bytes = noise(*size, number as u64 * 1000 + attempt);
            let written = write(&folder.join(&key), &bytes);
            let mut state = scene.state.lock();
            match written {
                Ok(()) => {
                    state.sums.insert(key, md5_hex(&bytes));
                    state.finished += 1;
                    scene.changed.notify_all();
                    break;
                }
                Err(error) => {
                    *state.failed.entry(error.raw_os_error().unwrap_or(0)).or_default() += 1;
                    if state.era == era {
                        state.wrong.push(format!("{key}: {error}"));
                        scene.changed.notify_all();
                    }
                    if !state.wrong.is_empty() {
                        return;
                    }
                }
            }
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent()
        && !folder.is_dir()
    {
        // Not those above: where nothing is mounted, they must not come to be.
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let mut file = File::create(path)?;
    for piece in bytes.chunks(1 << 20) {
        file.write_all(piece)?;
    }
    match close(file) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn mount(sandbox: &Sandbox, folder: Option<TempDir>) -> Mount {
    let plan = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--uploads", "8", "--close-wait", "5s"]);
    match folder {
        Some(folder) => plan.folder(folder),
        None => plan,
    }
    .start()
}

#[test]
fn no_outage_and_no_death_loses_doubles_or_mixes_one_of_many_files() {
    let _alone = crate::alone();
    let seed = std::env::var(SEED)
        .ok()
        .map_or(1, |seed| seed.parse().expect("a seed is a number"));
    println!("{SEED}={seed}");
    let mut random = Random(seed);
    let sizes = sizes(&mut random);
    let mut deaths = BTreeSet::new();
    while deaths.len() < KILLS {
        deaths.insert(5 + random.below(FILES as u64 - 10) as usize);
    }

    let sandbox = Sandbox::start();
    sandbox.knobs(|knobs| knobs.max_files = 2 * FILES);
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let faults = order_faults(&sandbox, &mut random);
    let began = Instant::now();
    let first = mount(&sandbox, None);
    let folder = first.path(format!("drafts/{draft}"));
    let mut mounted = Some(first);
    let scene = Scene::default();
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| write_files(&scene, &folder, &sizes));
        }
        let _curtain = Curtain(&scene);
        for finished in &deaths {
            scene.wait_for_finished(*finished);
            scene.next_era();
            let dying = mounted.take().unwrap();
            kill(&dying);
            mounted = Some(mount(&sandbox, Some(ended(dying))));
            scene.next_era();
        }
        scene.wait_for_finished(FILES);
    });
    let mounted = mounted.unwrap();
    let written = began.elapsed();
    let state = scene.state.into_inner();
    assert!(state.wrong.is_empty(), "{:?}", state.wrong);
    let status = mounted.wait_for("all is sent", |status| status.moving_uploads() == 0);
    let happened = faults
        .into_iter()
        .filter(|fault| !sandbox.remove_fault(*fault))
        .count();
    println!(
        "{FILES} files of {} to {} bytes, {} MB in all; {happened} faults, {KILLS} deaths; calls that failed because of \
         them, by errno: {:?}; {} PUTs, {} files left unclosed; {:.0} s to write, {:.0} s in all",
        sizes.iter().min().unwrap(),
        sizes.iter().max().unwrap(),
        sizes.iter().sum::<usize>() / 1_000_000,
        state.failed,
        sandbox.count(Route::PutContent),
        status.uploads.len(),
        written.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );

    assert_eq!(state.sums.len(), FILES);
    let mut keys = sandbox.draft_keys(&draft);
    keys.sort();
    let doubled: Vec<_> = keys.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(doubled.is_empty(), "there twice: {doubled:?}");
    let uncalled: Vec<_> = keys.iter().filter(|key| !state.sums.contains_key(*key)).collect();
    assert!(uncalled.is_empty(), "nobody wrote {uncalled:?}");
    let wrong: Vec<String> = state
        .sums
        .iter()
        .filter_map(|(key, sum)| match sandbox.draft_file(&draft, key) {
            Some(file) if file.status == "completed" && file.md5.as_ref() == Some(sum) => None,
            found => Some(format!("{key}: {found:?}, not {sum}")),
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}\n{:#?}", status.uploads);
    let stuck: Vec<_> = status
        .uploads
        .iter()
        .filter(|upload| upload.state != UploadState::Unclosed)
        .collect();
    assert!(stuck.is_empty(), "{stuck:#?}");
    mounted.unmount(&[]);
}
