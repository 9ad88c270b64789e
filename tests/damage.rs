//! What becomes of a cache that is damaged on the disk while nobody looks: nothing wrong of it is ever served.
//!
//! On the content floor, against the sandbox repository. Damage in a running mount is in `tests/cli/cache.rs`.

mod floor;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use rdm_sandbox::{Data, Generator, NewRecord, Sandbox};
use rdmfs::content::{Identity, Reader, Settings, Store, Wanted, Work};
use rdmfs::repository::model::FilePlace;
use rdmfs::repository::{self, Repository};
use rdmfs::status::Fate;

const BLOCK: u64 = 256 * 1024;
/// Five blocks, the last one short.
const SIZE: u64 = 4 * BLOCK + 1000;
const HEADER: u64 = 96;
/// What a reader of parts reads: blocks 1 and 2, and the last.
const PARTS: [(u64, u32); 2] = [(BLOCK, 2 * BLOCK as u32), (4 * BLOCK, 1000)];

struct World {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
    record: String,
    files: Vec<Generator>,
}

impl World {
    /// A record with two files of the same size.
    fn new() -> World {
        let sandbox = Sandbox::start();
        let files: Vec<Generator> = (0..2).map(|i| Generator::new(SIZE, 40 + i)).collect();
        let record = files
            .iter()
            .enumerate()
            .fold(NewRecord::titled("Depths"), |record, (i, file)| {
                record.file(&format!("{i}"), Data::Generated(file.clone()))
            });
        let record = sandbox.publish(record);
        World {
            sandbox,
            folder: tempfile::tempdir().unwrap(),
            record,
            files,
        }
    }

    fn store(&self) -> Arc<Store> {
        let repository = Repository::connect(repository::Settings {
            url: self.sandbox.url(),
            ..repository::Settings::default()
        });
        let settings = Settings {
            connections: 2,
            window: 1 << 20,
            memory: 8 << 20,
            ..floor::settings(self.folder.path().to_owned())
        };
        Store::open(settings, Arc::new(repository.unwrap())).unwrap()
    }

    fn place(&self, file: usize) -> FilePlace {
        floor::place(&self.record, &file.to_string())
    }

    fn identity(&self, file: usize) -> Identity {
        floor::identity(&self.files[file])
    }

    fn open(&self, store: &Arc<Store>, file: usize) -> Reader {
        store.content(self.identity(file), self.place(file)).reader()
    }

    fn wanted(&self, file: usize) -> Wanted {
        Wanted {
            name: file.to_string(),
            identity: self.identity(file),
            place: self.place(file),
        }
    }

    #[track_caller]
    fn check(&self, reader: &Reader, file: usize, offset: u64, length: u32, what: &str) {
        let (tell, told) = mpsc::channel();
        reader.read(offset, length, Box::new(move |bytes| tell.send(bytes).unwrap()));
        let bytes = told
            .recv()
            .unwrap()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let expected = self.files[file].read_at(offset, length.min((SIZE - offset) as u32) as usize);
        assert!(bytes == expected, "{what}: wrong bytes at {offset} of {file}");
    }

    #[track_caller]
    fn check_all(&self, reader: &Reader, file: usize, what: &str) {
        for offset in (0..SIZE).step_by(128 * 1024) {
            self.check(reader, file, offset, 128 * 1024, what);
        }
    }

    /// Leaves both files in the cache, whole or in part.
    fn fill(&self, whole: bool) {
        let store = self.store();
        for file in 0..2 {
            let reader = self.open(&store, file);
            if whole {
                self.check_all(&reader, file, "at first");
            } else {
                for (offset, length) in PARTS {
                    self.check(&reader, file, offset, length, "at first");
                }
            }
        }
        store.shutdown();
    }

    fn copy(&self, file: usize, ending: &str) -> PathBuf {
        let md5 = self.files[file].md5();
        let name = format!("content/{}/{md5}-{SIZE}.{ending}", &md5[..2]);
        self.folder.path().join(name)
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn flip(path: &Path, at: u64) {
    let file = open(path);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

fn swap(one: &Path, other: &Path) {
    let aside = one.with_extension("aside");
    fs::rename(one, &aside).unwrap();
    fs::rename(other, one).unwrap();
    fs::rename(&aside, other).unwrap();
}

type Damage = (String, Box<dyn Fn(&World)>);

/// Ways to damage the copy of the first file.
fn damages() -> Vec<Damage> {
    let mut all: Vec<Damage> = Vec::new();
    let mut add = |what: String, how: Box<dyn Fn(&World)>| all.push((what, how));
    for at in [0, 2 * BLOCK - 1, 2 * BLOCK + 77_777, SIZE - 1] {
        add(
            format!("byte {at} of the data"),
            Box::new(move |world| flip(&world.copy(0, "data"), at)),
        );
    }
    // The header, whose copy it is, and for each block its CRC and its mark.
    let entries = [0, 2, 4]
        .into_iter()
        .flat_map(|block| [HEADER + 8 * block, HEADER + 8 * block + 3, HEADER + 8 * block + 7]);
    for at in [0, 8, 12, 16, 24, 31, 32, 47, 59, 60, 95]
        .into_iter()
        .chain(entries)
    {
        add(
            format!("byte {at} of the map"),
            Box::new(move |world| flip(&world.copy(0, "map"), at)),
        );
    }
    for ending in ["data", "map"] {
        for keep in [0, 1, 50] {
            add(
                format!("{ending} cut to {keep} %"),
                Box::new(move |world| {
                    let file = open(&world.copy(0, ending));
                    let length = file.metadata().unwrap().len();
                    file.set_len(length * keep / 100).unwrap();
                }),
            );
        }
        add(
            format!("{ending} that is longer"),
            Box::new(move |world| {
                let file = open(&world.copy(0, ending));
                file.set_len(file.metadata().unwrap().len() + 8).unwrap();
            }),
        );
        add(
            format!("{ending} all zeros"),
            Box::new(move |world| {
                let file = open(&world.copy(0, ending));
                let length = file.metadata().unwrap().len();
                file.set_len(0).unwrap();
                file.set_len(length).unwrap();
            }),
        );
        add(
            format!("no {ending}"),
            Box::new(move |world| fs::remove_file(world.copy(0, ending)).unwrap()),
        );
        add(
            format!("{ending} of another file"),
            Box::new(move |world| swap(&world.copy(0, ending), &world.copy(1, ending))),
        );
    }
    add(
        "data and map of another file".into(),
        Box::new(|world| {
            for ending in ["data", "map"] {
                swap(&world.copy(0, ending), &world.copy(1, ending));
            }
        }),
    );
    all
}

#[test]
fn no_damage_to_a_copy_is_ever_served_and_each_is_repaired() {
    for whole in [true, false] {
        for (what, damage) in damages() {
            let what = format!("{what}, {}", if whole { "whole" } else { "in part" });
            let world = World::new();
            world.fill(whole);
            damage(&world);
            let store = world.store();
            for file in 0..2 {
                let reader = world.open(&store, file);
                if !whole {
                    for (offset, length) in PARTS {
                        world.check(&reader, file, offset, length, &what);
                    }
                }
                world.check_all(&reader, file, &what);
                assert!(reader.content().is_verified(), "{what}");
            }
            store.shutdown();
            // Whoever comes next finds it whole.
            world.sandbox.reset_counts();
            let store = world.store();
            for file in 0..2 {
                world.check_all(&world.open(&store, file), file, &what);
            }
            assert_eq!(world.sandbox.total(), 0, "{what}");
        }
    }
}

#[test]
fn no_damage_to_a_copy_is_handed_out_as_a_file() {
    for (what, damage) in damages() {
        let world = World::new();
        world.fill(true);
        damage(&world);
        let store = world.store();
        for file in 0..2 {
            let Some(copy) = world.open(&store, file).content().complete_file() else {
                continue;
            };
            let mut bytes = vec![0; SIZE as usize];
            copy.file().read_exact_at(&mut bytes, 0).unwrap();
            assert!(bytes == world.files[file].read_at(0, SIZE as usize), "{what}");
        }
    }
}

#[test]
fn verifying_finds_and_drops_each_damage_that_would_matter() {
    for (what, damage) in damages() {
        let world = World::new();
        world.fill(true);
        damage(&world);
        let store = world.store();
        let verify = || {
            let work = Work::new(1);
            store.verify(None, &work);
            work.tell(0).counts
        };
        let first = verify();
        let again = verify();
        assert_eq!(again.get(&Fate::Dropped), None, "{what}: {first:?} {again:?}");
        // What is left is right, and what is not left was dropped.
        world.sandbox.reset_counts();
        for file in 0..2 {
            world.check_all(&world.open(&store, file), file, &what);
        }
        let was_found = first.contains_key(&Fate::Dropped);
        // Where a mark or the flag of being verified is gone, the map only says less than there is: that block comes again.
        let requests = world.sandbox.total();
        assert_eq!(
            requests > usize::from(!was_found),
            was_found,
            "{what}: {first:?}, {requests}"
        );
    }
}

#[test]
fn verifying_drops_nothing_that_it_merely_could_not_open() {
    for ending in ["data", "map"] {
        let world = World::new();
        world.fill(true);
        let (path, aside) = (world.copy(0, ending), world.copy(0, "aside"));
        fs::rename(&path, &aside).unwrap();
        // A link to itself can't be opened, as if there were too many open files or a fault of the disk.
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let store = world.store();
        let verify = |wanted| {
            let work = Work::new(1);
            store.verify(wanted, &work);
            work.tell(0).counts
        };
        assert_eq!(verify(Some(vec![world.wanted(0)])), [(Fate::Failed, 1)].into());
        assert_eq!(verify(None), [(Fate::Failed, 1), (Fate::Sound, 1)].into());
        fs::rename(&aside, &path).unwrap();
        assert_eq!(verify(None), [(Fate::Sound, 2)].into(), "{ending}");
    }
}

#[test]
fn what_has_no_checksum_is_fetched_and_said_not_to_be_kept() {
    let world = World::new();
    let store = world.store();
    let wanted = Wanted {
        identity: Identity::Unverified {
            tag: "0 of it".into(),
            size: SIZE,
        },
        ..world.wanted(0)
    };
    let work = Work::new(1);
    store.keep(vec![wanted, world.wanted(1)], true, &work).unwrap();
    let told = work.tell(0);
    let of = |name: &str| told.outcomes.iter().find(|outcome| outcome.name == name).unwrap();
    assert_eq!(of("0").fate, Fate::Unkept);
    assert!(!of("0").pinned && of("0").reason.contains("no MD5"), "{told:?}");
    assert_eq!(of("1").fate, Fate::Fetched);
    assert!(of("1").pinned && of("1").verified, "{told:?}");
    assert_eq!(store.usage().pinned, SIZE);
}

#[test]
fn totals_tell_what_came_from_the_cache_and_what_from_the_network() {
    let world = World::new();
    let store = world.store();
    let work = Work::new(1);
    store.keep(vec![world.wanted(0)], false, &work).unwrap();
    assert_eq!(
        (store.totals().from_cache, store.totals().from_network),
        (0, SIZE)
    );
    world.check_all(&world.open(&store, 0), 0, "from the cache");
    assert_eq!(
        (store.totals().from_cache, store.totals().from_network),
        (SIZE, SIZE)
    );
}
