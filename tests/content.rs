//! The laws of the content floor, against a repository that misbehaves on demand.

mod floor;

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdm_sandbox::{
    ALICE, ContentMode, Data, Effect, Fault, Generator, NewRecord, RateLimit, Request, Route, Sandbox,
    md5_hex,
};
use rdmfs::content::{Content, Identity, Reader, Settings, Store};
use rdmfs::error::{Kind, Result};
use rdmfs::repository::model::{FilePlace, Owner, RecordId};
use rdmfs::repository::{self, Limits, Repository, Token};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const BLOCK: u64 = 256 * KIB;
/// What the kernel asks for at a time.
const PIECE: u64 = 128 * KIB;

/// Longer than anything may take; a test that runs into it has found a hang.
const HANG: Duration = Duration::from_secs(60);

struct World {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
    record: String,
    files: Vec<(String, Generator)>,
}

impl World {
    /// A record with files of these sizes, named a, b, c …
    fn new(mode: ContentMode, sizes: &[u64]) -> World {
        let sandbox = Sandbox::start();
        sandbox.set_content_mode(mode);
        let mut record = NewRecord::titled("Snow depths");
        let mut files = Vec::new();
        for (i, size) in sizes.iter().enumerate() {
            let key = format!("{}{}.bin", char::from(b'a' + (i % 26) as u8), i / 26);
            let bytes = Generator::new(*size, 7 + i as u64);
            record = record.file(&key, Data::Generated(bytes.clone()));
            files.push((key, bytes));
        }
        let record = sandbox.publish(record);
        sandbox.reset_counts();
        World {
            sandbox,
            folder: tempfile::tempdir().unwrap(),
            record,
            files,
        }
    }

    fn settings(&self) -> Settings {
        floor::settings(self.folder.path().join("cache"))
    }

    fn repository(&self) -> Arc<Repository> {
        let settings = repository::Settings {
            url: self.sandbox.url(),
            limits: Limits {
                connect: Duration::from_secs(5),
                stall: Duration::from_secs(1),
                whole: Duration::from_secs(30),
                tries: 4,
                first_pause: Duration::from_millis(10),
            },
            ..repository::Settings::default()
        };
        Arc::new(Repository::connect(settings).unwrap())
    }

    fn store(&self) -> Arc<Store> {
        self.store_with(|_| {})
    }

    fn store_with(&self, change: impl FnOnce(&mut Settings)) -> Arc<Store> {
        let mut settings = self.settings();
        change(&mut settings);
        Store::open(settings, self.repository()).unwrap()
    }

    fn place(&self, file: usize) -> FilePlace {
        floor::place(&self.record, &self.files[file].0)
    }

    fn identity(&self, file: usize) -> Identity {
        floor::identity(&self.files[file].1)
    }

    fn content(&self, store: &Arc<Store>, file: usize) -> Arc<Content> {
        store.content(self.identity(file), self.place(file))
    }

    fn open(&self, store: &Arc<Store>, file: usize) -> Reader {
        self.content(store, file).reader()
    }

    fn expected(&self, file: usize, offset: u64, length: u64) -> Vec<u8> {
        let bytes = &self.files[file].1;
        let end = (offset + length).min(bytes.size());
        bytes
            .read_at(offset, end.saturating_sub(offset) as usize)
            .to_vec()
    }

    #[track_caller]
    fn check(&self, reader: &Reader, file: usize, offset: u64, length: u64) {
        let got = read(reader, offset, length).unwrap_or_else(|e| panic!("at {offset}: {e}"));
        assert!(
            got == self.expected(file, offset, length),
            "wrong bytes at {offset}"
        );
    }

    #[track_caller]
    fn check_all(&self, reader: &Reader, file: usize) {
        let size = self.files[file].1.size();
        for offset in (0..size).step_by(PIECE as usize) {
            self.check(reader, file, offset, PIECE);
        }
        assert_eq!(read(reader, size, 10).unwrap(), b"");
    }

    /// Requests for bytes, to the API or to the second origin, that were answered with bytes.
    fn downloads(&self) -> Vec<Request> {
        let mut all = self.sandbox.requests();
        all.retain(|request| request.status == 200 || request.status == 206);
        all
    }

    fn bytes_sent(&self) -> u64 {
        self.downloads().iter().map(|request| request.sent).sum()
    }

    /// The copy of a file on disk.
    fn copy(&self, file: usize, ending: &str) -> PathBuf {
        let md5 = self.files[file].1.md5();
        let size = self.files[file].1.size();
        self.folder
            .path()
            .join(format!("cache/content/{}/{md5}-{size}.{ending}", &md5[..2]))
    }

    fn fault(&self, effect: Effect) {
        self.sandbox.fault(Fault::on(Route::Content).then(effect));
    }

    fn fault_once(&self, effect: Effect) {
        self.sandbox
            .fault(Fault::on(Route::Content).times(1).then(effect));
    }
}

fn ask(reader: &Reader, offset: u64, length: u64) -> mpsc::Receiver<Result<Vec<u8>>> {
    let (tell, told) = mpsc::channel();
    let reply = Box::new(move |result| {
        let _ = tell.send(result);
    });
    reader.read(offset, u32::try_from(length).unwrap(), reply);
    told
}

fn read(reader: &Reader, offset: u64, length: u64) -> Result<Vec<u8>> {
    ask(reader, offset, length)
        .recv_timeout(HANG)
        .expect("a read was not answered")
}

/// Ends a store as an unmount does, so that the next may have its folder.
fn close(store: Arc<Store>) {
    store.shutdown();
}

#[track_caller]
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + HANG;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn files_below(folder: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        count += if entry.path().is_dir() {
            files_below(&entry.path())
        } else {
            1
        };
    }
    count
}

const MODES: [ContentMode; 4] = [
    ContentMode::Ranges,
    ContentMode::Ignored,
    ContentMode::V12,
    ContentMode::Redirect,
];

#[test]
fn every_kind_of_server_gives_the_right_bytes_once() {
    for mode in MODES {
        let world = World::new(mode, &[5 * MIB + 17]);
        // How many ranges there are at once depends on how busy this machine is.
        let store = world.store_with(|settings| settings.connections = 1);
        let reader = world.open(&store, 0);
        world.check_all(&reader, 0);
        assert!(reader.content().is_verified(), "{mode:?}");
        assert!(
            world.bytes_sent() <= 5 * MIB + 17 + 2 * KIB,
            "{mode:?}: {} bytes",
            world.bytes_sent()
        );
        assert!(
            world.downloads().len() <= 8,
            "{mode:?}: {:?}",
            world.sandbox.requests()
        );
        assert_eq!(world.sandbox.leaked_authorizations(), 0);
        // What is there is not asked for again.
        world.sandbox.reset_counts();
        world.check_all(&reader, 0);
        assert_eq!(world.sandbox.total(), 0, "{mode:?}");
    }
}

#[test]
fn reads_are_cut_at_the_end() {
    let world = World::new(ContentMode::Ranges, &[1000, 0]);
    let store = world.store();
    let reader = world.open(&store, 0);
    assert_eq!(read(&reader, 1000, 10).unwrap(), b"");
    assert_eq!(read(&reader, u64::MAX, 10).unwrap(), b"");
    assert_eq!(world.sandbox.total(), 0, "nothing was needed for that");
    world.check(&reader, 0, 990, 100);
    let empty = world.open(&store, 1);
    assert_eq!(read(&empty, 0, 10).unwrap(), b"");
    assert!(empty.content().is_verified());
    empty.fetch_all().unwrap();
    let mut bytes = Vec::new();
    empty
        .content()
        .complete_file()
        .unwrap()
        .file()
        .read_to_end(&mut bytes)
        .unwrap();
    assert_eq!(bytes, b"");
    assert_eq!(world.sandbox.total(), 1);
}

#[test]
fn the_first_read_asks_for_exactly_its_blocks() {
    for mode in [ContentMode::Ranges, ContentMode::V12] {
        let world = World::new(mode, &[16 * MIB]);
        let store = world.store();
        let reader = world.open(&store, 0);
        world.check(&reader, 0, 5 * MIB + 10, 4096);
        let ranges: Vec<_> = world.sandbox.requests().into_iter().map(|r| r.range).collect();
        assert_eq!(ranges, [Some("bytes=5242880-5505023".to_owned())]);
        // Over a border between two blocks.
        world.check(&reader, 0, 8 * MIB - 10, 4096);
        let last = world.sandbox.requests().pop().unwrap();
        assert_eq!(last.range.as_deref(), Some("bytes=8126464-8650751"));
    }
}

#[test]
fn a_small_file_is_one_plain_request_and_verified_before_its_first_byte() {
    let world = World::new(ContentMode::Ranges, &[MIB]);
    let store = world.store();
    let reader = world.open(&store, 0);
    world.check(&reader, 0, 300 * KIB, 4096);
    world.check_all(&reader, 0);
    assert!(reader.content().is_verified());
    let requests = world.sandbox.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].range, None);
}

#[test]
fn random_readers_get_their_blocks_and_no_more() {
    let world = World::new(ContentMode::Ranges, &[32 * MIB]);
    let store = world.store();
    let reader = world.open(&store, 0);
    for block in [100, 3, 77, 20, 50] {
        world.check(&reader, 0, block * BLOCK + 1000, 4096);
    }
    assert_eq!(world.sandbox.total(), 5);
    assert_eq!(world.bytes_sent(), 5 * BLOCK);
    assert!(!reader.content().is_verified());
    assert!(reader.content().complete_file().is_none());
}

#[test]
fn a_reader_that_reads_on_earns_a_stream() {
    let world = World::new(ContentMode::Ranges, &[16 * MIB]);
    let store = world.store_with(|settings| settings.connections = 1);
    let reader = world.open(&store, 0);
    // Slightly out of order, as the kernel asks.
    for pair in 0..64 {
        let second = ask(&reader, (2 * pair + 1) * PIECE, PIECE);
        let first = ask(&reader, 2 * pair * PIECE, PIECE);
        for (told, offset) in [(first, 2 * pair * PIECE), (second, (2 * pair + 1) * PIECE)] {
            let got = told.recv_timeout(HANG).unwrap().unwrap();
            assert!(got == world.expected(0, offset, PIECE));
        }
    }
    assert!(reader.content().is_verified());
    assert!(world.sandbox.total() <= 12, "{:?}", world.sandbox.requests());
    assert!(world.bytes_sent() <= 16 * MIB);
}

#[test]
fn a_stream_stays_within_its_window() {
    let world = World::new(ContentMode::Ranges, &[64 * MIB]);
    let store = world.store_with(|settings| {
        settings.window = 2 * MIB;
        settings.connections = 1;
    });
    let reader = world.open(&store, 0);
    for offset in (0..4 * MIB).step_by(PIECE as usize) {
        world.check(&reader, 0, offset, PIECE);
    }
    // It pauses somewhere; give it every chance to run away before looking.
    thread::sleep(Duration::from_millis(300));
    let have: u64 = store.downloads().iter().map(|d| d.have).max().unwrap_or(0);
    assert!(have <= 4 * MIB + 2 * MIB + BLOCK, "{have}");
    // And goes on from there when the reader does.
    for offset in (4 * MIB..12 * MIB).step_by(PIECE as usize) {
        world.check(&reader, 0, offset, PIECE);
    }
    // Half a window each.
    assert!(world.sandbox.total() <= 16, "{:?}", world.sandbox.requests());
}

/// A line on which one connection is slow: far away, and held back.
fn far_away(world: &World, bandwidth: u64) {
    world.sandbox.knobs(|knobs| {
        knobs.latency = Duration::from_millis(30);
        knobs.bandwidth = Some(bandwidth);
    });
}

/// Reads all of a file in order and returns the most requests that were answered at once.
fn read_all_and_count(world: &World, reader: &Reader, size: u64) -> u64 {
    let mut most = 0;
    for offset in (0..size).step_by(PIECE as usize) {
        world.check(reader, 0, offset, PIECE);
        most = most.max(world.sandbox.in_flight() as u64);
    }
    most
}

#[test]
fn a_sequential_reader_is_fetched_for_over_parallel_ranges_and_every_byte_is_checked() {
    for mode in [ContentMode::Ranges, ContentMode::V12, ContentMode::Redirect] {
        let world = World::new(mode, &[32 * MIB + 5]);
        far_away(&world, 8 * MIB);
        let store = world.store();
        let reader = world.open(&store, 0);
        let most = read_all_and_count(&world, &reader, 32 * MIB + 5);
        // Half of them may be in their last round trip, with a successor.
        assert!((3..=6).contains(&most), "{mode:?}: {most} at once");
        assert!(reader.content().is_verified(), "{mode:?}");
        // The stream that was first is cut where the ranges begin; what was under way in it is lost.
        assert!(world.bytes_sent() <= 40 * MIB, "{mode:?}: {}", world.bytes_sent());
    }
}

#[test]
fn over_one_connection_one_range_follows_the_other() {
    let world = World::new(ContentMode::Ranges, &[12 * MIB]);
    far_away(&world, 16 * MIB);
    let store = world.store_with(|settings| settings.connections = 1);
    let reader = world.open(&store, 0);
    assert_eq!(read_all_and_count(&world, &reader, 12 * MIB), 1);
    assert!(world.sandbox.total() <= 12, "{:?}", world.sandbox.requests());
    assert_eq!(world.bytes_sent(), 12 * MIB);
}

/// So many requests are allowed in a minute.
fn limited(world: &World, requests: u32) {
    let limit = RateLimit {
        requests,
        seconds: 60,
    };
    world.sandbox.knobs(|knobs| knobs.rate_limit = Some(limit));
}

#[test]
fn a_fast_reader_takes_no_more_than_about_half_of_a_rate_limit() {
    for (latency, connections) in [(0, 1), (20, 4)] {
        // In ranges as long as the window allows, this file takes more than the limit.
        let world = World::new(ContentMode::Ranges, &[48 * MIB]);
        limited(&world, 24);
        world
            .sandbox
            .knobs(|knobs| knobs.latency = Duration::from_millis(latency));
        let store = world.store_with(|settings| {
            settings.connections = connections;
            settings.window = 2 * MIB;
        });
        let reader = world.open(&store, 0);
        world.check_all(&reader, 0);
        assert!(reader.content().is_verified());
        let requests = world.sandbox.requests();
        assert!(
            requests.iter().all(|request| request.status == 206),
            "{requests:?}"
        );
        assert!(requests.len() <= 14, "{}: {requests:?}", requests.len());
        assert!(world.bytes_sent() <= 49 * MIB, "{}", world.bytes_sent());
    }
}

#[test]
fn under_a_rate_limit_a_stream_stays_within_its_window_too() {
    let world = World::new(ContentMode::Ranges, &[64 * MIB]);
    limited(&world, 20);
    let store = world.store_with(|settings| {
        settings.window = 4 * MIB;
        settings.connections = 1;
    });
    let reader = world.open(&store, 0);
    let have = || store.downloads().iter().map(|d| d.have).max().unwrap_or(0);
    for offset in (0..12 * MIB).step_by(PIECE as usize) {
        world.check(&reader, 0, offset, PIECE);
        assert!(have() <= offset + 4 * MIB + 2 * BLOCK, "{} at {offset}", have());
    }
    wait_for("the window to be full", || have() >= 16 * MIB);
    // It is not left to run away before looking once more.
    thread::sleep(Duration::from_millis(100));
    assert!(have() <= 16 * MIB + 2 * BLOCK, "{}", have());
    assert!(world.sandbox.total() <= 12, "{:?}", world.sandbox.requests());
}

#[test]
fn the_repositorys_rate_limit_is_not_that_of_its_storage() {
    let world = World::new(ContentMode::Redirect, &[16 * MIB]);
    limited(&world, 20);
    let store = world.store_with(|settings| {
        settings.connections = 1;
        settings.window = 2 * MIB;
    });
    let reader = world.open(&store, 0);
    world.check_all(&reader, 0);
    let at_storage = world
        .sandbox
        .requests()
        .iter()
        .filter(|request| request.status == 206)
        .count();
    assert!(at_storage > 10, "{:?}", world.sandbox.requests());
}

#[test]
fn whoever_waits_for_all_of_a_file_is_fetched_for_over_parallel_ranges_too() {
    let world = World::new(ContentMode::Ranges, &[32 * MIB]);
    far_away(&world, 8 * MIB);
    let store = world.store();
    let reader = world.open(&store, 0);
    reader.fetch_all().unwrap();
    assert!(reader.content().is_verified());
    assert!(world.sandbox.total() >= 4, "{:?}", world.sandbox.requests());
    world.check_all(&reader, 0);
}

#[test]
fn ranges_that_come_out_of_order_are_checked_all_the_same() {
    let late = || {
        Fault::on(Route::Content)
            .skip(3)
            .times(1)
            .then(Effect::Delay(Duration::from_millis(400)))
    };
    let world = World::new(ContentMode::Ranges, &[32 * MIB]);
    far_away(&world, 8 * MIB);
    world.sandbox.fault(late());
    let store = world.store();
    let reader = world.open(&store, 0);
    world.check_all(&reader, 0);
    assert!(reader.content().is_verified());

    // One wrong byte, in whichever range it comes: the file is never there as a whole.
    let world = World::new(ContentMode::Ranges, &[32 * MIB]);
    far_away(&world, 8 * MIB);
    world.sandbox.fault(late());
    world.fault(Effect::FlipByte { offset: 20 * MIB });
    let store = world.store();
    let reader = world.open(&store, 0);
    let errors: Vec<Kind> = (0..32 * MIB)
        .step_by(PIECE as usize)
        .filter_map(|offset| read(&reader, offset, PIECE).err())
        .map(|error| error.kind())
        .collect();
    assert!(!errors.is_empty() && errors.iter().all(|kind| *kind == Kind::Corrupt));
    assert!(!reader.content().is_verified());
    drop(reader);
    wait_for("nothing is kept of it", || {
        files_below(&world.folder.path().join("cache/content")) == 0
    });
}

#[test]
fn one_budget_holds_for_all_readers() {
    let sizes = [32 * MIB; 8];
    let world = World::new(ContentMode::Ranges, &sizes);
    let store = world.store_with(|settings| settings.memory = 8 * MIB);
    let readers: Vec<_> = (0..8).map(|file| world.open(&store, file)).collect();
    for offset in (0..3 * MIB).step_by(PIECE as usize) {
        for (file, reader) in readers.iter().enumerate() {
            world.check(reader, file, offset, PIECE);
        }
    }
    // Give the streams every chance to run away before looking.
    thread::sleep(Duration::from_millis(300));
    let usage = store.usage().bytes;
    // What was read, and the budget; each stream has a block in hand.
    assert!(usage <= 8 * 3 * MIB + 8 * MIB + 8 * BLOCK, "{usage}");
}

#[test]
fn without_a_budget_a_reader_still_gets_its_blocks() {
    let world = World::new(ContentMode::Ranges, &[8 * MIB]);
    let store = world.store_with(|settings| settings.memory = 0);
    let reader = world.open(&store, 0);
    for offset in (0..4 * MIB).step_by(PIECE as usize) {
        world.check(&reader, 0, offset, PIECE);
    }
    assert_eq!(world.bytes_sent(), 4 * MIB);
    assert_eq!(world.sandbox.total(), 16);
}

/// Reads on until several ranges are fetched at the same time. Returns how far it read.
fn read_until_several_ranges(world: &World, reader: &Reader) -> u64 {
    let mut offset = 0;
    wait_for("several ranges", || {
        world.check(reader, 0, offset, PIECE);
        offset += PIECE;
        world.sandbox.in_flight() >= 3
    });
    offset
}

#[test]
fn a_closed_reader_stops_its_ranges() {
    let world = World::new(ContentMode::Ranges, &[200 * MIB]);
    far_away(&world, 4 * MIB);
    let store = world.store();
    let reader = world.open(&store, 0);
    let offset = read_until_several_ranges(&world, &reader);
    drop(reader);
    world
        .sandbox
        .wait_until("the ranges end", |sandbox| sandbox.in_flight() == 0);
    wait_for("the threads", || store.downloads().is_empty());
    assert!(world.bytes_sent() < offset + 40 * MIB, "{}", world.bytes_sent());
}

#[test]
fn a_reader_that_jumps_away_stops_its_ranges() {
    let world = World::new(ContentMode::Ranges, &[200 * MIB]);
    far_away(&world, 4 * MIB);
    let store = world.store();
    let reader = world.open(&store, 0);
    read_until_several_ranges(&world, &reader);
    world.check(&reader, 0, 190 * MIB, 4096);
    wait_for("the ranges end", || world.sandbox.in_flight() == 0);
}

#[test]
fn a_backward_reader_gets_its_blocks_and_no_more() {
    for piece in [4 * KIB, PIECE, MIB] {
        let world = World::new(ContentMode::Ranges, &[16 * MIB]);
        let store = world.store();
        let reader = world.open(&store, 0);
        for n in (12 * MIB / piece..16 * MIB / piece).rev() {
            let offset = n * piece;
            world.check(&reader, 0, offset, piece);
        }
        assert_eq!(world.bytes_sent(), 4 * MIB, "{piece}");
    }
}

#[test]
fn a_strided_reader_gets_no_streams_beyond_what_it_uses() {
    let world = World::new(ContentMode::Ranges, &[200 * MIB]);
    let store = world.store();
    let reader = world.open(&store, 0);
    for stride in 0..20 {
        for piece in 0..8 {
            world.check(&reader, 0, stride * 10 * MIB + piece * PIECE, PIECE);
        }
    }
    wait_for("the requests end", || {
        world.sandbox.in_flight() == 0 || store.downloads().len() <= 1
    });
    // The first run may have been the beginning of a long one.
    let most = 20 * MIB + 8 * MIB;
    assert!(store.usage().bytes <= most, "{}", store.usage().bytes);
}

#[test]
fn a_far_offset_of_a_server_without_ranges_costs_one_download_and_nothing_the_second_time() {
    let world = World::new(ContentMode::Ignored, &[8 * MIB, 8 * MIB]);
    let store = world.store();
    let reader = world.open(&store, 0);
    world.check(&reader, 0, 7 * MIB, 4096);
    for offset in [0, 3 * MIB, 8 * MIB - 100] {
        world.check(&reader, 0, offset, 4096);
    }
    wait_for("the rest", || reader.content().is_verified());
    assert_eq!(world.sandbox.total(), 1);
    // The host is known now: the next file is asked for from its start.
    let other = world.open(&store, 1);
    world.check(&other, 1, 5 * MIB, 4096);
    let ranges: Vec<_> = world.sandbox.requests().into_iter().map(|r| r.range).collect();
    assert_eq!(
        ranges,
        [
            Some("bytes=7340032-7602175".to_owned()),
            Some("bytes=0-8388607".to_owned())
        ]
    );
}

#[test]
fn without_ranges_a_reader_waits_for_its_own_bytes_only() {
    let world = World::new(ContentMode::Ignored, &[24 * MIB]);
    world.sandbox.knobs(|knobs| knobs.bandwidth = Some(8 * MIB));
    let store = world.store();
    let (far, near) = (world.open(&store, 0), world.open(&store, 0));
    let told = ask(&far, 23 * MIB, 4096);
    for offset in [0, 200 * KIB, MIB, 3 * MIB] {
        world.check(&near, 0, offset, 4096);
        assert!(told.try_recv().is_err(), "the stream is at {offset}");
    }
    assert!(told.recv_timeout(HANG).unwrap().unwrap() == world.expected(0, 23 * MIB, 4096));
    assert_eq!(world.sandbox.total(), 1);
}

#[test]
fn without_ranges_a_later_open_goes_on_from_the_cache() {
    let world = World::new(ContentMode::Ignored, &[100 * MIB]);
    world.sandbox.knobs(|knobs| knobs.bandwidth = Some(16 * MIB));
    let store = world.store();
    let reader = world.open(&store, 0);
    for offset in (0..3 * MIB).step_by(PIECE as usize) {
        world.check(&reader, 0, offset, PIECE);
    }
    drop(reader);
    wait_for("the stream ends", || store.downloads().is_empty());
    world.sandbox.reset_counts();
    let reader = world.open(&store, 0);
    for offset in (0..2 * MIB).step_by(PIECE as usize) {
        world.check(&reader, 0, offset, PIECE);
    }
    // What is there is read at once, and what is not is asked for from where it begins.
    let first_missing = reader.content().size() - 1;
    world.check(&reader, 0, first_missing, 1);
    assert!(reader.content().is_verified());
    let requests = world.sandbox.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    let range = requests[0].range.as_deref().unwrap();
    let from: u64 = range["bytes=".len()..]
        .split('-')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((3 * MIB..100 * MIB).contains(&from), "{range}");
}

#[test]
fn a_stream_that_breaks_is_asked_for_from_where_it_broke_and_skipped_through() {
    let world = World::new(ContentMode::Ignored, &[6 * MIB]);
    world.fault_once(Effect::ResetBody { after: 3 * MIB / 2 });
    let store = world.store();
    let reader = world.open(&store, 0);
    world.check_all(&reader, 0);
    assert!(reader.content().is_verified());
    let requests = world.sandbox.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    let range = requests[1].range.as_deref().unwrap();
    let from: u64 = range["bytes=".len()..]
        .split('-')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=3 * MIB / 2).contains(&from), "{range}");
    assert_eq!(requests[1].sent, 6 * MIB, "it was ignored");
}

#[test]
fn a_reader_without_ranges_is_streamed_for_to_the_end_however_slowly_it_reads() {
    let world = World::new(ContentMode::Ignored, &[24 * MIB]);
    let store = world.store_with(|settings| settings.window = MIB);
    let reader = world.open(&store, 0);
    for offset in [0, PIECE, 2 * PIECE] {
        world.check(&reader, 0, offset, PIECE);
    }
    // A stream that paused would be given up, and the next begin at the first byte.
    wait_for("all of it", || reader.content().is_verified());
    assert_eq!(world.sandbox.total(), 1);
}

#[test]
fn a_server_that_learns_ranges_is_noticed() {
    let world = World::new(ContentMode::Ignored, &[8 * MIB, 100 * MIB, 100 * MIB]);
    let store = world.store();
    world.check(&world.open(&store, 0), 0, 7 * MIB, 4096);
    world.sandbox.set_content_mode(ContentMode::Ranges);
    world.check(&world.open(&store, 1), 1, 80 * MIB, 4096);
    world.check(&world.open(&store, 2), 2, 80 * MIB, 4096);
    let last = world.sandbox.requests().pop().unwrap();
    assert_eq!(last.range.as_deref(), Some("bytes=83886080-84148223"));
    assert!(world.bytes_sent() < 100 * MIB, "{}", world.bytes_sent());
}

#[test]
fn a_stream_that_always_breaks_at_the_same_byte_ends_in_an_error() {
    for mode in [ContentMode::Ignored, ContentMode::Ranges] {
        let world = World::new(mode, &[8 * MIB]);
        world.fault(Effect::ResetBody { after: 3 * MIB / 2 });
        let store = world.store();
        let reader = world.open(&store, 0);
        let result = read(&reader, 4 * MIB - 100, 100);
        if mode == ContentMode::Ignored {
            // Each try begins at the first byte, so that none gets further.
            assert_eq!(result.unwrap_err().kind(), Kind::Unreachable);
            world.check(&reader, 0, MIB, 1000);
        } else {
            // Each try goes on where the last one broke.
            result.unwrap();
            reader.fetch_all().unwrap();
            world.check_all(&reader, 0);
        }
    }
}

#[test]
fn a_disk_that_is_nearly_full_holds_no_more_than_what_is_open() {
    let world = World::new(ContentMode::Ranges, &[MIB, 12 * MIB]);
    let store = world.store_with(|settings| settings.keep_free = 1.0);
    world.check_all(&world.open(&store, 0), 0);
    let reader = world.open(&store, 1);
    world.check_all(&reader, 1);
    assert!(!world.copy(0, "map").exists());
    assert!(store.usage().bytes < 12 * MIB);
}

#[test]
fn the_status_says_that_a_server_ignores_ranges() {
    let world = World::new(ContentMode::Ignored, &[8 * MIB]);
    world.sandbox.knobs(|knobs| knobs.bandwidth = Some(8 * MIB));
    let store = world.store();
    let reader = world.open(&store, 0);
    let told = ask(&reader, 7 * MIB, 4096);
    wait_for("the note", || {
        store
            .downloads()
            .iter()
            .any(|d| d.note == "the server ignores ranges: reading from the start" && d.total == 8 * MIB)
    });
    assert!(told.recv_timeout(HANG).unwrap().is_ok());
}

#[test]
fn sixty_four_readers_of_one_cold_file_cause_one_download() {
    for mode in MODES {
        let world = World::new(mode, &[6 * MIB]);
        let store = world.store();
        thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| world.check_all(&world.open(&store, 0), 0));
            }
        });
        assert!(
            world.bytes_sent() <= 6 * MIB + 20 * KIB,
            "{mode:?}: {} bytes",
            world.bytes_sent()
        );
        assert!(world.content(&store, 0).is_verified());
    }
}

#[test]
fn readers_all_over_a_file_of_a_server_without_ranges_share_one_stream() {
    let world = World::new(ContentMode::Ignored, &[6 * MIB]);
    let store = world.store();
    thread::scope(|scope| {
        for n in 0..64 {
            let (world, store) = (&world, &store);
            scope.spawn(move || {
                let reader = world.open(store, 0);
                for i in 0..10 {
                    world.check(&reader, 0, (n * 7919 * KIB + i * 700 * KIB) % (6 * MIB), 5000);
                }
            });
        }
    });
    wait_for("the rest", || world.content(&store, 0).is_verified());
    assert_eq!(world.sandbox.total(), 1);
}

#[test]
fn different_files_do_not_wait_for_each_other() {
    let world = World::new(ContentMode::Ranges, &[4 * MIB, 4 * MIB]);
    world.sandbox.fault(
        Fault::on(Route::Content)
            .key(&world.files[0].0)
            .then(Effect::Stall),
    );
    let store = world.store();
    let stuck = world.open(&store, 0);
    let told = ask(&stuck, 2 * MIB, 100);
    world.check_all(&world.open(&store, 1), 1);
    assert!(told.try_recv().is_err(), "the other is still waiting");
    drop(stuck);
    assert!(told.recv_timeout(HANG).unwrap().is_err());
}

#[test]
fn more_files_than_connections_are_all_served() {
    let world = World::new(ContentMode::Ranges, &[2 * MIB; 40]);
    world
        .sandbox
        .knobs(|knobs| knobs.latency = Duration::from_millis(20));
    let store = world.store();
    let readers: Vec<_> = (0..40).map(|file| world.open(&store, file)).collect();
    let asked: Vec<_> = readers.iter().map(|reader| ask(reader, MIB + 5, 1000)).collect();
    for (file, told) in asked.into_iter().enumerate() {
        let got = told.recv_timeout(HANG).unwrap().unwrap();
        assert!(got == world.expected(file, MIB + 5, 1000));
    }
    assert_eq!(world.sandbox.total(), 40);
}

#[test]
fn a_broken_stream_goes_on_where_it_stopped() {
    for mode in MODES {
        for effect in [
            Effect::ResetBody { after: 1_500_000 },
            Effect::ShortBody { after: 1_500_000 },
            Effect::StallBody { after: 1_500_000 },
        ] {
            let world = World::new(mode, &[5 * MIB]);
            let route = if mode == ContentMode::Redirect {
                Route::Object
            } else {
                Route::Content
            };
            world
                .sandbox
                .fault(Fault::on(route).skip(1).times(1).then(effect.clone()));
            if mode == ContentMode::Ignored {
                // Its first answer is the stream.
                world.sandbox.clear_faults();
                world.fault_once(effect.clone());
            }
            let store = world.store();
            let reader = world.open(&store, 0);
            world.check_all(&reader, 0);
            assert!(reader.content().is_verified(), "{mode:?} {effect:?}");
            if mode != ContentMode::Ignored {
                assert!(
                    world.bytes_sent() < 7 * MIB,
                    "{mode:?} {effect:?}: {} bytes",
                    world.bytes_sent()
                );
            }
        }
    }
}

#[test]
fn passing_failures_pass_unseen() {
    for effect in [
        Effect::ServerError(503),
        Effect::TooManyRequests { retry_after: 0 },
        Effect::Reset,
        Effect::HtmlPage,
        Effect::HtmlError(502),
        Effect::Stall,
    ] {
        let world = World::new(ContentMode::Ranges, &[3 * MIB]);
        world.fault_once(effect.clone());
        let store = world.store();
        let reader = world.open(&store, 0);
        let got = read(&reader, 2 * MIB, 100).unwrap_or_else(|e| panic!("{effect:?}: {e}"));
        assert!(got == world.expected(0, 2 * MIB, 100), "{effect:?}");
    }
}

#[test]
fn lasting_failures_are_told_and_the_next_read_tries_anew() {
    for (effect, kind) in [
        (Effect::ServerError(503), Kind::ServerFailed),
        (Effect::HtmlPage, Kind::ServerFailed),
        (Effect::StallBody { after: 1000 }, Kind::TimedOut),
        (Effect::ResetBody { after: 1000 }, Kind::Unreachable),
        (Effect::ServerError(404), Kind::NotFound),
        (Effect::ServerError(403), Kind::Denied),
    ] {
        let world = World::new(ContentMode::Ranges, &[3 * MIB]);
        world.fault(effect.clone());
        let store = world.store();
        let reader = world.open(&store, 0);
        // Behind the bytes that some of the faults let through, which may be read.
        let at = 2 * MIB + 5000;
        let told = (ask(&reader, at, 100), ask(&reader, at + 50, 100));
        for told in [told.0, told.1] {
            let error = told.recv_timeout(HANG).unwrap().unwrap_err();
            assert_eq!(error.kind(), kind, "{effect:?}: {error}");
        }
        world.sandbox.clear_faults();
        world.check(&reader, 0, 2 * MIB, 100);
        assert!(store.downloads().is_empty() || world.sandbox.in_flight() <= 1);
    }
}

#[test]
fn wrong_bytes_nobody_saw_are_fetched_again_unseen() {
    for offset in [0, MIB / 2, MIB - 1] {
        let world = World::new(ContentMode::Ranges, &[MIB]);
        world.fault_once(Effect::FlipByte { offset });
        let store = world.store();
        let reader = world.open(&store, 0);
        // One block of the small file is not served before all of it is there when it is the last that is missing;
        // the first ones are. A reader that wants all of it sees none of the bad copy.
        reader.fetch_all().unwrap();
        assert_eq!(world.sandbox.total(), 2, "at {offset}");
        world.check_all(&reader, 0);
        assert!(reader.content().is_verified());
    }
}

#[test]
fn a_file_of_one_block_is_never_served_wrong() {
    let world = World::new(ContentMode::Ignored, &[BLOCK]);
    world.fault_once(Effect::FlipByte { offset: 7 });
    let store = world.store();
    let reader = world.open(&store, 0);
    world.check_all(&reader, 0);
    assert_eq!(world.sandbox.total(), 2);
}

#[test]
fn who_saw_bytes_of_a_wrong_copy_gets_an_error_and_never_a_mix() {
    for offset in [0, 2 * MIB, 4 * MIB - 1] {
        let world = World::new(ContentMode::Ranges, &[4 * MIB]);
        let fault = world
            .sandbox
            .fault(Fault::on(Route::Content).then(Effect::FlipByte { offset }));
        let store = world.store();
        let reader = world.open(&store, 0);
        let bystander = world.open(&store, 0);
        let mut failed = None;
        for at in (0..4 * MIB).step_by(PIECE as usize) {
            if let Err(error) = read(&reader, at, PIECE) {
                failed = Some(error);
                break;
            }
        }
        let error = failed.expect("the last block of a wrong copy is not served");
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        world.sandbox.remove_fault(fault);
        // For good, and also for who was open then and may have the pages from the kernel.
        for reader in [&reader, &bystander] {
            assert_eq!(read(reader, 0, 10).unwrap_err().kind(), Kind::Corrupt);
        }
        assert!(!world.copy(0, "map").exists());
        // Opening again fetches it anew.
        let again = world.open(&store, 0);
        world.check_all(&again, 0);
        assert!(again.content().is_verified());
        assert_eq!(read(&reader, 0, 10).unwrap_err().kind(), Kind::Corrupt);
    }
}

#[test]
fn a_file_that_is_wrong_twice_is_left_alone_for_a_while() {
    let world = World::new(ContentMode::Ignored, &[3 * MIB]);
    world.fault(Effect::FlipByte { offset: MIB });
    let store = world.store();
    let reader = world.open(&store, 0);
    assert_eq!(reader.fetch_all().unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(world.sandbox.total(), 2);
    drop(reader);
    let again = world.open(&store, 0);
    assert_eq!(read(&again, 0, 10).unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(again.fetch_all().unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(world.sandbox.total(), 2);
    wait_for("no copy", || {
        files_below(&world.folder.path().join("cache/content")) == 0
    });
}

#[test]
fn a_file_that_changed_on_the_server_is_stale_and_not_kept() {
    for mode in MODES {
        let world = World::new(mode, &[3 * MIB, 3 * MIB + 1]);
        let store = world.store();
        // The place holds another file now.
        let stale = store.content(world.identity(0), world.place(1)).reader();
        let error = read(&stale, 0, PIECE).unwrap_err();
        assert_eq!(error.kind(), Kind::Changed, "{mode:?}: {error}");
        assert!(
            !world.copy(0, "map").exists()
                || fs::read(world.copy(0, "data")).unwrap() == vec![0; 3 * MIB as usize]
        );
    }
}

#[test]
fn a_file_of_the_same_size_but_another_checksum_is_stale() {
    let world = World::new(ContentMode::Ranges, &[3 * MIB, 3 * MIB]);
    let store = world.store();
    let stale = store.content(world.identity(0), world.place(1)).reader();
    assert_eq!(read(&stale, 0, PIECE).unwrap_err().kind(), Kind::Changed);
    // Where no header tells, the checksum of what came does.
    let world = World::new(ContentMode::Redirect, &[3 * MIB, 3 * MIB]);
    let store = world.store();
    let stale = store.content(world.identity(0), world.place(1)).reader();
    assert_eq!(stale.fetch_all().unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn what_was_fetched_outlives_the_daemon() {
    let world = World::new(ContentMode::Ranges, &[4 * MIB, 16 * MIB]);
    let store = world.store();
    world.check_all(&world.open(&store, 0), 0);
    world.check(&world.open(&store, 1), 1, 9 * MIB, 1000);
    wait_for("the block in hand", || store.downloads().is_empty());
    close(store);
    world.sandbox.reset_counts();
    let store = world.store();
    assert!(world.content(&store, 0).is_verified());
    world.check_all(&world.open(&store, 0), 0);
    world.check(&world.open(&store, 1), 1, 9 * MIB, 1000);
    assert_eq!(world.sandbox.total(), 0);
    wait_for("the count", || {
        let usage = store.usage();
        usage.files == 2 && usage.bytes >= 4 * MIB + BLOCK && usage.bytes < 5 * MIB
    });
}

#[test]
fn a_byte_that_rots_on_disk_is_never_served() {
    let world = World::new(ContentMode::Ranges, &[4 * MIB]);
    let store = world.store();
    world.check_all(&world.open(&store, 0), 0);
    close(store);
    let copy = fs::File::options()
        .read(true)
        .write(true)
        .open(world.copy(0, "data"))
        .unwrap();
    let mut byte = [0];
    copy.read_exact_at(&mut byte, 2 * MIB + 1).unwrap();
    copy.write_all_at(&[!byte[0]], 2 * MIB + 1).unwrap();
    world.sandbox.reset_counts();
    let store = world.store();
    let reader = world.open(&store, 0);
    assert!(
        reader.content().complete_file().is_none(),
        "nor handed out as a file"
    );
    world.check_all(&reader, 0);
    assert!(reader.content().is_verified(), "it is whole again");
    assert_eq!(world.sandbox.total(), 1);
    assert_eq!(world.bytes_sent(), BLOCK);
    assert!(reader.content().complete_file().is_some());
}

/// Reads from a complete copy, on this thread. `None` if it is not complete or not right.
fn read_complete(reader: &Reader, offset: u64, length: u64) -> Option<Vec<u8>> {
    let (tell, told) = mpsc::channel();
    let answer = move |bytes: Option<&[u8]>| tell.send(bytes.map(<[u8]>::to_vec)).unwrap();
    reader.read_complete(offset, u32::try_from(length).unwrap(), &mut Vec::new(), answer);
    told.recv_timeout(HANG).unwrap()
}

#[test]
fn a_complete_copy_is_read_at_once_by_many_and_an_incomplete_one_is_not() {
    let world = World::new(ContentMode::Ranges, &[4 * MIB + 77]);
    let size = world.files[0].1.size();
    let store = world.store();
    let reader = world.open(&store, 0);
    read(&reader, 2 * MIB, PIECE).unwrap();
    assert!(read_complete(&reader, 2 * MIB, PIECE).is_none());
    world.check_all(&reader, 0);
    drop(reader);
    close(store);
    let store = world.store();
    world.sandbox.reset_counts();
    // Pieces that share blocks, that end with the file, and that go over borders of blocks.
    thread::scope(|scope| {
        for step in [PIECE, PIECE, 100_000, 4096, MIB, 300_001] {
            let reader = world.open(&store, 0);
            let file = &world.files[0].1;
            scope.spawn(move || {
                for at in (0..size).step_by(step as usize) {
                    // A block may be compared twice in vain only if the copy changes.
                    let bytes = read_complete(&reader, at, step).or_else(|| read(&reader, at, step).ok());
                    assert!(bytes.unwrap() == file.read_at(at, step as usize), "{at} {step}");
                }
                assert_eq!(read_complete(&reader, size, 10).unwrap(), b"");
            });
        }
    });
    assert_eq!(world.sandbox.total(), 0);
}

#[test]
fn a_copy_that_changes_while_it_is_open_is_compared_again() {
    let world = World::new(ContentMode::Ranges, &[4 * MIB]);
    let store = world.store();
    let reader = world.open(&store, 0);
    world.check_all(&reader, 0);
    let is_read_at_once = |at| read_complete(&reader, at, PIECE).is_some();
    wait_for("the download has ended", || is_read_at_once(2 * MIB));
    let copy = fs::File::options()
        .read(true)
        .write(true)
        .open(world.copy(0, "data"))
        .unwrap();
    let mut byte = [0];
    copy.read_exact_at(&mut byte, 2 * MIB + 1).unwrap();
    copy.write_all_at(&[!byte[0]], 2 * MIB + 1).unwrap();
    assert!(is_read_at_once(MIB), "another block");
    assert!(!is_read_at_once(2 * MIB));
    world.check_all(&reader, 0);
    wait_for("the download has ended", || is_read_at_once(2 * MIB));
}

#[test]
fn only_what_was_compared_in_this_run_of_the_machine_is_handed_out() {
    let world = World::new(ContentMode::Ranges, &[12 * MIB]);
    let store = world.store();
    let reader = world.open(&store, 0);
    assert!(reader.content().hand_out().is_none(), "it is not complete");
    world.check_all(&reader, 0);
    wait_for("it is compared after its last byte", || {
        reader.content().hand_out().is_some()
    });
    drop(reader);
    close(store);
    // As after a restart, which gives the machine another number.
    let map = fs::File::options()
        .write(true)
        .open(world.copy(0, "map"))
        .unwrap();
    map.write_all_at(&[7; 8], 84).unwrap();
    world.sandbox.reset_counts();
    let store = world.store();
    let reader = world.open(&store, 0);
    assert!(reader.content().hand_out().is_none(), "it is compared first");
    wait_for("it is compared", || {
        let handed_out = reader.content().hand_out();
        assert_eq!(store.handed_out(), u64::from(handed_out.is_some()));
        handed_out.is_some()
    });
    assert_eq!(store.handed_out(), 0);
    assert_eq!(world.sandbox.total(), 0);
}

#[test]
fn a_map_without_its_data_or_the_other_way_round_is_no_copy() {
    let world = World::new(ContentMode::Ranges, &[4 * MIB]);
    for ending in ["data", "map"] {
        let store = world.store();
        world.check_all(&world.open(&store, 0), 0);
        close(store);
        fs::remove_file(world.copy(0, ending)).unwrap();
    }
    let store = world.store();
    world.check_all(&world.open(&store, 0), 0);
}

#[test]
fn two_daemons_do_not_share_a_folder() {
    let world = World::new(ContentMode::Ranges, &[1]);
    let store = world.store();
    let second = Store::open(world.settings(), world.repository());
    assert_eq!(second.unwrap_err().kind(), Kind::Local(libc::EWOULDBLOCK));
    close(store);
    world.store();
}

#[test]
fn the_least_recently_closed_file_goes_first_and_open_ones_stay() {
    let world = World::new(ContentMode::Ranges, &[MIB, MIB, MIB, MIB]);
    let store = world.store_with(|settings| settings.limit = 3 * MIB + 300 * KIB);
    let held = world.open(&store, 0);
    world.check_all(&held, 0);
    // Closed in this order; the ages are made plain because a disk's clock is coarse.
    for (file, age) in [(1, 100), (2, 200)] {
        world.check_all(&world.open(&store, file), file);
        let map = fs::File::options()
            .write(true)
            .open(world.copy(file, "map"))
            .unwrap();
        map.set_modified(std::time::SystemTime::now() - Duration::from_secs(age))
            .unwrap();
    }
    world.check_all(&world.open(&store, 3), 3);
    assert!(!world.copy(2, "map").exists(), "the oldest is gone");
    assert!(world.copy(1, "map").exists());
    assert!(
        world.copy(0, "map").exists(),
        "the open one stays although it is older"
    );
    assert!(store.usage().bytes <= 3 * MIB + 300 * KIB);
    world.sandbox.reset_counts();
    world.check_all(&held, 0);
    assert_eq!(world.sandbox.total(), 0);
    world.check_all(&world.open(&store, 2), 2);
    assert_eq!(world.sandbox.total(), 1);
}

#[test]
fn without_a_cache_nothing_is_kept_after_close() {
    let world = World::new(ContentMode::Ranges, &[4 * MIB]);
    let store = world.store_with(|settings| settings.limit = 0);
    let reader = world.open(&store, 0);
    world.check_all(&reader, 0);
    world.sandbox.reset_counts();
    world.check_all(&reader, 0);
    assert_eq!(world.sandbox.total(), 0, "while it is open it is kept");
    drop(reader);
    wait_for("no file", || {
        files_below(&world.folder.path().join("cache/content")) == 0
    });
}

#[test]
fn without_a_cache_every_byte_is_right_however_little_memory_there_is() {
    for mode in [ContentMode::Ranges, ContentMode::Ignored] {
        for memory in [0, 12 * BLOCK, 128 * MIB] {
            // Of one all fits into the room that there is, so that it becomes complete; of the other it does not.
            for size in [3 * MIB, 12 * MIB + 5] {
                let world = World::new(mode, &[size]);
                let store = world.store_with(|settings| {
                    settings.limit = 0;
                    settings.window = 2 * MIB;
                    settings.memory = memory;
                });
                let reader = world.open(&store, 0);
                world.check_all(&reader, 0);
                for n in 0..20 {
                    world.check(&reader, 0, n * 7_777_777 % size, 300_000);
                }
                let copy = reader.content().complete_file();
                assert!(size > 4 * MIB || copy.is_some());
                if let Some(copy) = copy {
                    let mut bytes = Vec::new();
                    copy.file().read_to_end(&mut bytes).unwrap();
                    assert!(bytes == world.expected(0, 0, size), "the copy of {size} bytes");
                }
            }
        }
    }
}

#[test]
fn a_file_larger_than_the_cache_can_be_read() {
    for mode in [ContentMode::Ranges, ContentMode::Ignored] {
        let world = World::new(mode, &[24 * MIB]);
        let store = world.store_with(|settings| settings.limit = 6 * MIB);
        let reader = world.open(&store, 0);
        let mut most = 0;
        for offset in (0..24 * MIB).step_by(PIECE as usize) {
            world.check(&reader, 0, offset, PIECE);
            most = most.max(store.usage().bytes);
        }
        if mode == ContentMode::Ranges {
            assert!(most <= 7 * MIB, "{most}");
        }
        // And from the start again.
        world.check(&reader, 0, 0, PIECE);
        assert!(!reader.content().is_verified());
    }
}

#[test]
fn a_file_larger_than_the_cache_is_checked_as_it_passes() {
    for mode in [ContentMode::Ranges, ContentMode::Ignored] {
        for (limit, flipped) in [(6 * MIB, 0), (6 * MIB, 10 * MIB), (0, 24 * MIB - 1)] {
            let world = World::new(mode, &[24 * MIB]);
            world.fault(Effect::FlipByte { offset: flipped });
            let store = world.store_with(|settings| {
                settings.limit = limit;
                settings.window = 3 * MIB;
            });
            let reader = world.open(&store, 0);
            let mut errors = Vec::new();
            for offset in (0..24 * MIB).step_by(PIECE as usize) {
                errors.extend(read(&reader, offset, PIECE).err());
            }
            let kinds: Vec<Kind> = errors.iter().map(rdmfs::error::Error::kind).collect();
            assert!(
                kinds.contains(&Kind::Corrupt),
                "{mode:?} with {limit}, at {flipped}: {kinds:?}"
            );
            drop(reader);
            wait_for("nothing is kept of it", || {
                files_below(&world.folder.path().join("cache/content")) == 0
            });
        }
    }
}

#[test]
fn readers_who_jump_about_in_a_file_larger_than_the_cache_get_the_right_bytes() {
    let world = World::new(ContentMode::Ranges, &[12 * MIB]);
    let store = world.store_with(|settings| settings.limit = 4 * MIB);
    thread::scope(|scope| {
        for n in 0..6u64 {
            let (world, store) = (&world, &store);
            scope.spawn(move || {
                let reader = world.open(store, 0);
                for i in 0..150u64 {
                    let offset = (n + 1) * 1_000_003 * (i * i + 1) % (12 * MIB);
                    world.check(&reader, 0, offset, 70_000);
                }
            });
        }
    });
}

#[test]
fn closing_ends_what_nobody_wants_and_finishes_what_is_nearly_there() {
    let world = World::new(ContentMode::Ranges, &[100 * MIB]);
    world.sandbox.knobs(|knobs| knobs.bandwidth = Some(4 * MIB));
    let store = world.store();
    let reader = world.open(&store, 0);
    for offset in (0..MIB).step_by(PIECE as usize) {
        world.check(&reader, 0, offset, PIECE);
    }
    drop(reader);
    world
        .sandbox
        .wait_until("the download ends", |sandbox| sandbox.in_flight() == 0);
    wait_for("the thread", || store.downloads().is_empty());
    assert!(world.bytes_sent() < 50 * MIB);

    let world = World::new(ContentMode::Ignored, &[6 * MIB]);
    world.sandbox.knobs(|knobs| knobs.bandwidth = Some(8 * MIB));
    let store = world.store();
    let reader = world.open(&store, 0);
    world.check(&reader, 0, 0, PIECE);
    drop(reader);
    wait_for("the rest", || world.content(&store, 0).is_verified());
    assert_eq!(world.sandbox.total(), 1);
}

#[test]
fn a_read_that_waits_is_answered_at_shutdown_and_at_close() {
    let world = World::new(ContentMode::Ranges, &[4 * MIB]);
    world.fault(Effect::Stall);
    let store = world.store();
    let reader = world.open(&store, 0);
    let told = ask(&reader, 0, 100);
    drop(reader);
    assert!(told.recv_timeout(HANG).unwrap().is_err());
    let reader = world.open(&store, 0);
    let told = ask(&reader, 0, 100);
    store.shutdown();
    assert!(told.recv_timeout(HANG).unwrap().is_err());
    assert!(read(&reader, 0, 100).is_err(), "nothing waits after the end");
    assert!(reader.fetch_all().is_err());
}

#[test]
fn bytes_without_a_checksum_are_served_and_end_with_the_mount() {
    for mode in MODES {
        let world = World::new(mode, &[3 * MIB + 5]);
        let store = world.store();
        let identity = Identity::Unverified {
            tag: "record/a: 2026-11-22".into(),
            size: 3 * MIB + 5,
        };
        let reader = store.content(identity.clone(), world.place(0)).reader();
        world.check_all(&reader, 0);
        assert!(!reader.content().is_verified());
        reader.fetch_all().unwrap();
        assert!(reader.content().complete_file().is_some());
        drop(reader);
        world.sandbox.reset_counts();
        let again = store.content(identity, world.place(0)).reader();
        world.check_all(&again, 0);
        assert_eq!(world.sandbox.total(), 0, "kept while the mount lasts");
        drop(again);
        close(store);
        assert_eq!(files_below(&world.folder.path().join("cache/content")), 0);
    }
}

#[test]
fn a_whole_file_can_be_had_for_copying() {
    for mode in MODES {
        let world = World::new(mode, &[7 * MIB + 3]);
        let store = world.store();
        let reader = world.open(&store, 0);
        // Some blocks out of order first.
        world.check(&reader, 0, 5 * MIB, 1000);
        reader.fetch_all().unwrap();
        let mut bytes = Vec::new();
        let file = reader.content().complete_file().unwrap();
        file.file().read_to_end(&mut bytes).unwrap();
        assert_eq!(md5_hex(&bytes), world.files[0].1.md5());
        assert!(
            world.bytes_sent() <= 7 * MIB + 3 + 2 * KIB,
            "{mode:?}: {:?}",
            world.sandbox.requests()
        );
    }
}

#[test]
fn a_whole_file_that_cannot_be_had_is_told() {
    let world = World::new(ContentMode::Ranges, &[7 * MIB]);
    world.fault(Effect::ServerError(503));
    let store = world.store();
    let reader = world.open(&store, 0);
    assert_eq!(reader.fetch_all().unwrap_err().kind(), Kind::ServerFailed);
}

#[test]
fn a_link_that_expired_is_renewed() {
    let world = World::new(ContentMode::Redirect, &[64 * MIB]);
    // Links are given up a few seconds before they expire, so this one is good for a second or two.
    world.sandbox.knobs(|knobs| knobs.link_seconds = 7);
    let store = world.store();
    let reader = world.open(&store, 0);
    let mut block = 0;
    wait_for("the second link", || {
        block += 37;
        world.check(&reader, 0, block % 256 * BLOCK + 9, 100);
        thread::sleep(Duration::from_millis(20));
        world.sandbox.count(Route::Content) >= 2
    });
    assert_eq!(world.sandbox.leaked_authorizations(), 0);
}

#[test]
fn a_link_is_used_as_long_as_it_is_good() {
    let world = World::new(ContentMode::Redirect, &[8 * MIB]);
    let store = world.store();
    let reader = world.open(&store, 0);
    for block in [7, 3, 20, 11] {
        world.check(&reader, 0, block * BLOCK, 100);
    }
    assert_eq!(world.sandbox.count(Route::Content), 1);
    assert_eq!(world.sandbox.count(Route::Object), 4);
}

#[test]
fn versions_of_a_record_share_their_bytes() {
    let world = World::new(ContentMode::Ranges, &[3 * MIB]);
    let second = world.sandbox.publish(
        NewRecord::titled("Snow depths")
            .version_of(&world.record)
            .file("renamed.bin", Data::Generated(world.files[0].1.clone())),
    );
    world.sandbox.reset_counts();
    let store = world.store();
    world.check_all(&world.open(&store, 0), 0);
    let before = world.sandbox.total();
    let elsewhere = FilePlace {
        owner: Owner::Record(RecordId::new(&second).unwrap()),
        key: "renamed.bin".into(),
    };
    let reader = store.content(world.identity(0), elsewhere).reader();
    world.check_all(&reader, 0);
    assert_eq!(world.sandbox.total(), before);
}

#[test]
fn committed_files_of_drafts_are_read_the_same_way() {
    let world = World::new(ContentMode::Ranges, &[3 * MIB]);
    let draft = world.sandbox.draft(
        NewRecord::titled("Snow depths, continued")
            .file("draft.bin", Data::Generated(world.files[0].1.clone())),
    );
    let settings = repository::Settings {
        url: world.sandbox.url(),
        token: Some(Token::new(ALICE).unwrap()),
        ..repository::Settings::default()
    };
    let repository = Arc::new(Repository::connect(settings).unwrap());
    let store = Store::open(world.settings(), repository).unwrap();
    let place = FilePlace {
        owner: Owner::Draft(RecordId::new(&draft).unwrap()),
        key: "draft.bin".into(),
    };
    let reader = store.content(world.identity(0), place).reader();
    world.check_all(&reader, 0);
    assert!(reader.content().is_verified());
    assert!(world.sandbox.count(Route::DraftContent) > 0);
}

#[test]
fn a_reply_that_panics_harms_no_other() {
    let world = World::new(ContentMode::Ranges, &[3 * MIB]);
    let store = world.store();
    let reader = world.open(&store, 0);
    reader.read(2 * MIB, 100, Box::new(|_| panic!("on purpose")));
    world.check(&reader, 0, 2 * MIB + 200, 100);
    world.check(&reader, 0, 2 * MIB, 100);
}
