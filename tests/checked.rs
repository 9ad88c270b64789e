//! What is compared before it is served, and what happens to what is not right: whatever was given back of the cache
//! meanwhile, nobody reads a wrong file to its end without an error.
//!
//! On the content floor, against the sandbox repository, as `tests/content.rs`.

mod floor;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdm_sandbox::{ALICE, ContentMode, Data, Effect, Fault, Generator, NewRecord, Request, Route, Sandbox};
use rdmfs::content::{Content, Identity, Reader, Settings, Store, Wanted, Work};
use rdmfs::error::{Kind, Result};
use rdmfs::repository::model::{FilePlace, Md5, Owner, RecordId};
use rdmfs::repository::{self, Repository, Token};

const MIB: u64 = 1024 * 1024;
const BLOCK: u64 = 256 * 1024;
/// What the kernel asks for at a time.
const PIECE: u64 = 128 * 1024;
/// Longer than anything may take; a test that runs into it has found a hang.
const HANG: Duration = Duration::from_secs(60);

struct World {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
    record: String,
    files: Vec<Generator>,
}

impl World {
    /// A record with files of these sizes.
    fn new(mode: ContentMode, sizes: &[u64]) -> World {
        let sandbox = Sandbox::start();
        sandbox.set_content_mode(mode);
        let files: Vec<Generator> = (7..)
            .zip(sizes)
            .map(|(seed, size)| Generator::new(*size, seed))
            .collect();
        let record = (0..)
            .zip(&files)
            .fold(NewRecord::titled("Snow depths"), |record, (i, file): (u64, _)| {
                record.file(&i.to_string(), Data::Generated(file.clone()))
            });
        let record = sandbox.publish(record);
        sandbox.reset_counts();
        World {
            sandbox,
            folder: tempfile::tempdir().unwrap(),
            record,
            files,
        }
    }

    fn store(&self) -> Arc<Store> {
        self.store_with(|_| {})
    }

    fn store_with(&self, change: impl FnOnce(&mut Settings)) -> Arc<Store> {
        let repository = Repository::connect(repository::Settings {
            url: self.sandbox.url(),
            token: Some(Token::new(ALICE).unwrap()),
            ..repository::Settings::default()
        });
        let mut settings = floor::settings(self.folder.path().join("cache"));
        change(&mut settings);
        Store::open(settings, Arc::new(repository.unwrap())).unwrap()
    }

    fn place(&self, file: usize) -> FilePlace {
        floor::place(&self.record, &file.to_string())
    }

    fn identity(&self, file: usize) -> Identity {
        floor::identity(&self.files[file])
    }

    fn content(&self, store: &Arc<Store>, file: usize) -> Arc<Content> {
        store.content(self.identity(file), self.place(file))
    }

    fn open(&self, store: &Arc<Store>, file: usize) -> Reader {
        self.content(store, file).reader()
    }

    fn expected(&self, file: usize, offset: u64) -> Vec<u8> {
        let bytes = &self.files[file];
        let end = (offset + PIECE).min(bytes.size());
        bytes.read_at(offset, (end - offset) as usize).to_vec()
    }

    #[track_caller]
    fn check(&self, reader: &Reader, file: usize, range: std::ops::Range<u64>) {
        for offset in range.step_by(PIECE as usize) {
            let got = read(reader, offset).unwrap_or_else(|e| panic!("at {offset}: {e}"));
            assert!(got == self.expected(file, offset), "wrong bytes at {offset}");
        }
    }

    #[track_caller]
    fn check_all(&self, reader: &Reader, file: usize) {
        self.check(reader, file, 0..self.files[file].size());
    }

    fn downloads(&self) -> Vec<Request> {
        let mut all = self.sandbox.requests();
        all.retain(|request| request.status == 200 || request.status == 206);
        all
    }

    fn copy(&self, file: usize, ending: &str) -> PathBuf {
        let (md5, size) = (self.files[file].md5(), self.files[file].size());
        let name = format!("cache/content/{}/{md5}-{size}.{ending}", &md5[..2]);
        self.folder.path().join(name)
    }

    /// Changes a byte of the copy on disk.
    fn flip(&self, file: usize, at: u64) {
        let path = self.copy(file, "data");
        let copy = File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        copy.read_exact_at(&mut byte, at).unwrap();
        copy.write_all_at(&[!byte[0]], at).unwrap();
    }

    fn serve_wrong(&self, at: u64) {
        let wrong = Effect::FlipByte { offset: at };
        self.sandbox.fault(Fault::on(Route::Content).then(wrong));
    }

    fn serve_wrong_once(&self, at: u64) {
        let wrong = Effect::FlipByte { offset: at };
        self.sandbox.fault(Fault::on(Route::Content).times(1).then(wrong));
    }

    fn serve_right(&self) {
        self.sandbox.clear_faults();
    }
}

fn read(reader: &Reader, offset: u64) -> Result<Vec<u8>> {
    read_some(reader, offset, PIECE as u32)
}

fn read_some(reader: &Reader, offset: u64, length: u32) -> Result<Vec<u8>> {
    let (tell, told) = mpsc::channel();
    reader.read(
        offset,
        length,
        Box::new(move |result| {
            let _ = tell.send(result);
        }),
    );
    told.recv_timeout(HANG).expect("a read was not answered")
}

/// As the mount reads what may be complete.
fn read_complete(reader: &Reader, offset: u64) -> Option<Vec<u8>> {
    let (tell, told) = mpsc::channel();
    reader.read_complete(
        offset,
        PIECE as u32,
        &mut Vec::new(),
        move |bytes: Option<&[u8]>| {
            let _ = tell.send(bytes.map(<[u8]>::to_vec));
        },
    );
    told.recv_timeout(HANG).expect("a read was not answered")
}

#[track_caller]
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + HANG;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Reads files in turns, a piece of each, and tells which were read to their end without an error.
fn read_to_the_end(readers: &[&Reader]) -> Vec<bool> {
    let mut whole = vec![true; readers.len()];
    let size = readers[0].content().size();
    for offset in (0..size).step_by(PIECE as usize) {
        for (reader, whole) in readers.iter().zip(&mut whole) {
            *whole &= read(reader, offset).is_ok();
        }
    }
    whole
}

#[test]
fn on_a_nearly_full_disk_a_wrong_file_is_not_read_to_its_end() {
    for mode in [ContentMode::Ranges, ContentMode::Ignored] {
        let world = World::new(mode, &[24 * MIB]);
        world.serve_wrong(10 * MIB);
        let store = world.store_with(|settings| settings.keep_free = 1.0);
        let reader = world.open(&store, 0);
        assert_eq!(read_to_the_end(&[&reader]), [false], "{mode:?}");
        assert!(!reader.content().is_verified());
    }
}

#[test]
fn files_that_fit_one_by_one_are_compared_although_together_they_do_not() {
    let world = World::new(ContentMode::Ranges, &[24 * MIB; 2]);
    world.serve_wrong(2 * MIB);
    let store = world.store_with(|settings| {
        settings.limit = 0;
        settings.window = 16 * MIB;
    });
    let (a, b) = (world.open(&store, 0), world.open(&store, 1));
    assert_eq!(read_to_the_end(&[&a, &b]), [false; 2]);
    let world = World::new(ContentMode::Ranges, &[8 * MIB; 4]);
    world.serve_wrong(2 * MIB);
    let store = world.store_with(|settings| settings.limit = 16 * MIB);
    let readers: Vec<_> = (0..4).map(|file| world.open(&store, file)).collect();
    let readers: Vec<_> = readers.iter().collect();
    assert_eq!(read_to_the_end(&readers), [false; 4]);
}

#[test]
fn what_comes_a_second_time_has_to_be_what_it_was() {
    let world = World::new(ContentMode::Ranges, &[24 * MIB]);
    let store = world.store_with(|settings| {
        settings.limit = 8 * MIB;
        settings.window = 3 * MIB;
    });
    let reader = world.open(&store, 0);
    world.check_all(&reader, 0);
    // The first blocks were given back for the last ones.
    world.serve_wrong(BLOCK + 5);
    let second = world.open(&store, 0);
    assert!(read(&second, BLOCK).is_err());
    world.serve_right();
    let third = world.open(&store, 0);
    world.check_all(&third, 0);
}

/// A file of which one reader has seen the beginning of a block when the download of that block ended, as it was for
/// another reader who left. With the wrong byte, if `is_wrong`.
fn who_saw_half_a_block(is_wrong: bool) -> (World, Arc<Store>, Reader) {
    let world = World::new(ContentMode::Ranges, &[24 * MIB]);
    let store = world.store();
    let (leaving, staying) = (world.open(&store, 0), world.open(&store, 0));
    world.check(&leaving, 0, 0..1);
    if is_wrong {
        world.serve_wrong(BLOCK + 10);
    }
    // The block takes many times as long as its beginning.
    world.sandbox.knobs(|knobs| knobs.bandwidth = Some(30_000));
    // It reads on, so that what follows is on its way.
    world.check(&leaving, 0, PIECE..PIECE + 1);
    let seen = read_some(&staying, BLOCK, 4096).unwrap();
    assert_eq!(seen != world.expected(0, BLOCK)[..4096], is_wrong);
    drop(leaving);
    wait_for("the end of the download", || store.downloads().is_empty());
    world.sandbox.knobs(|knobs| knobs.bandwidth = None);
    world.serve_right();
    (world, store, staying)
}

#[test]
fn what_was_served_of_half_a_block_has_to_come_again_as_it_was() {
    let (world, store, reader) = who_saw_half_a_block(true);
    let told = read(&reader, BLOCK).map(drop).map_err(|error| error.kind());
    assert_eq!(told, Err(Kind::Corrupt));
    assert!(read(&reader, 0).is_err(), "never a mix");
    world.check_all(&world.open(&store, 0), 0);
    let (world, _store, reader) = who_saw_half_a_block(false);
    world.check_all(&reader, 0);
}

#[test]
fn nothing_in_a_folder_is_changed_once_it_was_left_to_the_next() {
    let world = World::new(ContentMode::Ranges, &[2 * MIB; 2]);
    let wanted: Vec<Wanted> = (0..2)
        .map(|file| Wanted {
            name: file.to_string(),
            identity: world.identity(file),
            place: world.place(file),
        })
        .collect();
    let (work, late) = (Work::new(1), Work::new(2));
    let earlier = world.store();
    earlier.keep(wanted[..1].to_vec(), true, &work).unwrap();
    earlier.keep(wanted[1..].to_vec(), false, &work).unwrap();
    earlier.shutdown();
    let next = world.store();
    world.flip(0, MIB);
    // Work that a command began goes on for a moment.
    for wanted in [None, Some(&*wanted)] {
        earlier.clear(wanted, true, &late);
        earlier.unpin(wanted, &late);
        earlier.verify(wanted.map(<[Wanted]>::to_vec), &late);
    }
    for file in 0..2 {
        assert!(world.copy(file, "map").exists() && world.copy(file, "data").exists());
    }
    assert!(next.has_pins());
    assert_eq!(late.tell(0).freed, 0);
}

#[test]
fn damage_in_a_file_larger_than_the_cache_is_mended_and_no_wrong_md5() {
    for skipped in [false, true] {
        let world = World::new(ContentMode::Ranges, &[12 * MIB]);
        let small = |settings: &mut Settings| {
            settings.limit = 8 * MIB;
            settings.window = 3 * MIB;
        };
        let store = world.store_with(small);
        let reader = world.open(&store, 0);
        for at in [3 * MIB, 11 * MIB] {
            world.check(&reader, 0, at..at + 1);
        }
        drop(reader);
        wait_for("the end of the downloads", || store.downloads().is_empty());
        store.shutdown();
        for at in [3 * MIB, 11 * MIB] {
            world.flip(0, at + 5);
        }
        let store = world.store_with(small);
        let reader = world.open(&store, 0);
        let skip = 11 * MIB / BLOCK * BLOCK;
        if skipped {
            world.check(&reader, 0, 0..skip);
            world.check(&reader, 0, skip + BLOCK..12 * MIB);
        } else {
            world.check_all(&reader, 0);
        }
    }
}

#[test]
fn damage_behind_the_reader_is_mended_before_it_gets_the_last_block() {
    let world = World::new(ContentMode::Ranges, &[16 * MIB]);
    let store = world.store();
    let reader = world.open(&store, 0);
    world.check(&reader, 0, 0..6 * MIB);
    world.flip(0, 5 * MIB + 7);
    let (rest, last) = (6 * MIB..16 * MIB - PIECE, 16 * MIB - PIECE..16 * MIB);
    world.check(&reader, 0, rest);
    world.check(&reader, 0, last);
    world.check_all(&world.open(&store, 0), 0);
}

#[test]
fn a_byte_changed_in_the_cache_while_the_rest_comes_is_never_taken_for_verified() {
    let world = World::new(ContentMode::Ranges, &[16 * MIB]);
    let store = world.store();
    let reader = world.open(&store, 0);
    world.check(&reader, 0, 0..6 * MIB);
    // Most of it is hashed by now or will be in a moment: whichever comes first, the law holds.
    thread::sleep(Duration::from_millis(200));
    world.flip(0, MIB + 7);
    for offset in (6 * MIB..16 * MIB).step_by(PIECE as usize) {
        let _ = read(&reader, offset);
    }
    let other = world.open(&store, 0);
    if let Some(bytes) = read_complete(&other, MIB) {
        assert!(bytes == world.expected(0, MIB));
    }
    if let Some(given) = other.content().hand_out() {
        let mut bytes = vec![0; PIECE as usize];
        given.file().read_exact_at(&mut bytes, MIB).unwrap();
        assert!(bytes == world.expected(0, MIB));
    }
    world.check(&other, 0, MIB..MIB + 1);
}

#[test]
fn a_byte_changed_in_a_complete_copy_is_not_served_by_reads_that_may_wait() {
    let world = World::new(ContentMode::Ranges, &[2 * MIB]);
    let store = world.store();
    let reader = world.open(&store, 0);
    world.check_all(&reader, 0);
    world.flip(0, MIB + 7);
    world.check_all(&reader, 0);
}

#[test]
fn an_absurd_size_is_an_error() {
    let world = World::new(ContentMode::Ranges, &[MIB]);
    let store = world.store();
    for size in [(1 << 46) + 1, 1 << 62, u64::MAX] {
        let md5 = Md5::from_hex(&world.files[0].md5()).unwrap();
        let tag = "a".to_owned();
        for identity in [Identity::Md5 { md5, size }, Identity::Unverified { tag, size }] {
            let reader = store.content(identity, world.place(0)).reader();
            for offset in [0, size - 1] {
                assert_eq!(read(&reader, offset).unwrap_err().kind(), Kind::ServerFailed);
            }
            assert_eq!(reader.fetch_all().unwrap_err().kind(), Kind::ServerFailed);
            assert!(read_complete(&reader, 0).is_none());
            assert!(reader.content().hand_out().is_none() && !reader.content().is_verified());
        }
    }
    let folder = world.folder.path().join("cache/content/7d");
    fs::create_dir(&folder).unwrap();
    let stray = folder.join(format!("{}-{}.map", "7d".repeat(16), 1_u64 << 62));
    fs::write(&stray, "x").unwrap();
    store.verify(None, &Work::new(1));
    assert!(!stray.exists());
    world.check_all(&world.open(&store, 0), 0);
}

#[test]
fn what_was_handed_out_of_a_dropped_copy_is_not_current() {
    let world = World::new(ContentMode::Ranges, &[4 * MIB]);
    let store = world.store();
    let reader = world.open(&store, 0);
    world.check_all(&reader, 0);
    assert!(reader.content().hand_out().is_some());
    drop(reader);
    store.shutdown();
    // Of what an earlier daemon compared, this one does not know what it was.
    let store = world.store();
    let held = world.content(&store, 0).hand_out().unwrap();
    assert!(held.is_current());
    world.flip(0, MIB + 7);
    world.serve_wrong_once(MIB + 7);
    let other = world.open(&store, 0);
    assert!(!other.content().is_still_right());
    other.fetch_all().unwrap();
    assert!(other.content().is_still_right() && !held.is_current());
}

#[test]
fn a_pinned_copy_stays_in_a_mount_that_keeps_nothing() {
    let world = World::new(ContentMode::Ranges, &[2 * MIB]);
    let store = world.store();
    let wanted = vec![Wanted {
        name: "0".into(),
        identity: world.identity(0),
        place: world.place(0),
    }];
    store.keep(wanted, true, &Work::new(1)).unwrap();
    store.shutdown();
    let store = world.store_with(|settings| settings.limit = 0);
    let reader = world.open(&store, 0);
    world.check_all(&reader, 0);
    drop(reader);
    assert!(world.copy(0, "map").exists());
}

#[test]
fn verifying_all_does_not_change_where_a_drafts_file_is_asked_for() {
    let world = World::new(ContentMode::Ranges, &[8 * MIB]);
    let file = Data::Generated(world.files[0].clone());
    let draft = world
        .sandbox
        .draft(NewRecord::titled("x").file("draft.bin", file));
    let store = world.store();
    let place = FilePlace {
        owner: Owner::Draft(RecordId::new(&draft).unwrap()),
        key: "draft.bin".into(),
    };
    let reader = store.content(world.identity(0), place).reader();
    world.check(&reader, 0, 0..PIECE);
    store.verify(None, &Work::new(1));
    world.check(&reader, 0, 5 * MIB..5 * MIB + 1);
}

#[test]
fn readers_of_complete_files_leave_the_budget_to_others() {
    let world = World::new(ContentMode::Ranges, &[8 * MIB; 12]);
    let store = world.store_with(|settings| settings.memory = 8 * MIB);
    let mut readers = Vec::new();
    let mut requests = Vec::new();
    for file in 0..12 {
        let reader = world.open(&store, file);
        world.sandbox.reset_counts();
        world.check(&reader, file, 0..6 * MIB);
        wait_for("the rest", || store.downloads().is_empty());
        for offset in (6 * MIB..8 * MIB).step_by(PIECE as usize) {
            if read_complete(&reader, offset).is_none() {
                world.check(&reader, file, offset..offset + 1);
            }
        }
        requests.push(world.downloads().len());
        readers.push(reader);
    }
    // With its share of what eleven others hold, the last one would ask for each half megabyte.
    assert!(requests[11] <= requests[1].max(8), "{requests:?}");
}

#[test]
fn what_is_read_from_a_complete_copy_is_counted() {
    let world = World::new(ContentMode::Ranges, &[MIB]);
    let store = world.store();
    let reader = world.open(&store, 0);
    world.check_all(&reader, 0);
    wait_for("the end of the download", || store.downloads().is_empty());
    let before = store.totals().from_cache;
    assert!(read_complete(&reader, 0).is_some());
    assert_eq!(store.totals().from_cache, before + PIECE);
}

#[test]
fn nothing_is_counted_for_a_file_that_came_wrong() {
    let world = World::new(ContentMode::Ranges, &[4 * MIB]);
    world.serve_wrong(10);
    let store = world.store();
    wait_for("the first look", || store.usage().counted);
    let reader = world.open(&store, 0);
    assert_eq!(read_to_the_end(&[&reader]), [false]);
    drop(reader);
    wait_for("the end of the downloads", || store.downloads().is_empty());
    wait_for("the count", || {
        store.usage().bytes == 0 && store.usage().files == 0
    });
}
