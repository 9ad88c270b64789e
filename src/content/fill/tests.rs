//! Laws of the read path that hold between two steps of a thread: the test takes each step itself, no server is asked.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::super::blocks::{BLOCK, Blocks, span_of};
use super::super::fetch::{Break, Fetcher};
use super::super::hashing;
use super::super::reader::Reader;
use super::super::state::{Fetch, Hasher, Path};
use super::super::{Content, Identity, Settings, Store};
use crate::repository::model::{FilePlace, Owner, RecordId};
use crate::repository::{self, Repository};

/// An open file that the test downloads.
struct World {
    _folder: tempfile::TempDir,
    bytes: Bytes,
    content: Arc<Content>,
    reader: Option<Reader>,
}

impl World {
    /// So many blocks, the last of them one byte long.
    fn new(blocks: u64) -> World {
        World::with_limit(blocks, 1 << 30)
    }

    /// The same in a cache of so many bytes.
    fn with_limit(blocks: u64, limit: u64) -> World {
        let folder = tempfile::tempdir().unwrap();
        let size = (blocks - 1) * BLOCK + 1;
        let bytes: Bytes = (0..size).map(|at| (at % 251) as u8).collect();
        let settings = Settings {
            directory: folder.path().join("cache"),
            limit,
            keep_free: 0.0,
            connections: 4,
            window: 1 << 25,
            memory: 1 << 27,
            is_private: false,
        };
        // Nobody is asked.
        let address = repository::Settings {
            url: "http://127.0.0.1:9".into(),
            ..repository::Settings::default()
        };
        let repository = Arc::new(Repository::connect(address).unwrap());
        let store = Store::open(settings, repository).unwrap();
        let place = FilePlace {
            owner: Owner::Record(RecordId::new("abcde-12345").unwrap()),
            key: "a".into(),
        };
        let mut md5 = crate::md5::Hasher::new();
        md5.update(&bytes);
        let identity = Identity::Md5 {
            md5: md5.finish(),
            size,
        };
        let content = store.content(identity, place);
        let reader = Some(content.reader());
        World {
            _folder: folder,
            bytes,
            content,
            reader,
        }
    }

    fn size(&self) -> u64 {
        self.content.size()
    }

    /// A download that waits for its first byte, and the copy it writes to.
    fn fetcher(&self) -> (Fetcher<'_>, Arc<Blocks>) {
        let mut state = self.content.lock();
        let (id, generation) = (state.fresh_id(), state.generation);
        state.fetches.push(Fetch {
            id,
            generation,
            path: Path::Whole,
            answered: true,
            begin: 0,
            position: 0,
            filling: None,
            shown: false,
            doubted: false,
            started: Instant::now(),
            received: 0,
            note: None,
            ending: false,
            held_back: false,
        });
        drop(state);
        let blocks = self.content.copy_to_fill(generation).unwrap().unwrap();
        (Fetcher::new(&self.content, id), blocks)
    }

    /// The bytes of a block.
    fn block(&self, block: u64) -> Bytes {
        let (start, end) = span_of(block, self.size());
        self.bytes.slice(start as usize..end as usize)
    }

    /// Other bytes than are right.
    fn wrong_block(&self, block: u64) -> Bytes {
        self.block(block).iter().map(|byte| byte ^ 1).collect()
    }

    /// The first bytes of a block come and are served. Returns where they end.
    fn show_half(&self, fetcher: &mut Fetcher<'_>, blocks: &Arc<Blocks>, block: u64, bytes: &Bytes) -> u64 {
        let (start, half) = (block * BLOCK, bytes.slice(..bytes.len() / 2));
        bring(fetcher, blocks, block, &half);
        let end = start + half.len() as u64;
        let mut state = self.content.lock();
        assert_eq!(state.first_missing(start, end), None);
        state.note_shown(start, end);
        end
    }

    /// The rest of a block comes, of which these are the bytes.
    fn bring_rest(
        &self,
        fetcher: &mut Fetcher<'_>,
        blocks: &Arc<Blocks>,
        from: u64,
        bytes: &Bytes,
    ) -> Result<(), &'static str> {
        take(fetcher, blocks, from, &bytes.slice((from % BLOCK) as usize..))
    }

    fn doubt(&self, block: u64) {
        let (start, end) = span_of(block, self.size());
        self.content.doubt(start, end);
    }
}

/// A block comes.
#[track_caller]
fn bring(fetcher: &mut Fetcher<'_>, blocks: &Arc<Blocks>, block: u64, bytes: &Bytes) {
    assert!(
        take(fetcher, blocks, block * BLOCK, bytes).is_ok(),
        "block {block}"
    );
}

fn take(
    fetcher: &mut Fetcher<'_>,
    blocks: &Arc<Blocks>,
    offset: u64,
    bytes: &Bytes,
) -> Result<(), &'static str> {
    fetcher.take(offset, bytes, blocks).map_err(|end| match end {
        Break::Stop => "stopped",
        Break::Broken(_) => "broken",
        Break::Failed(_) => "failed",
    })
}

#[test]
fn no_download_waits_for_the_hash_of_what_an_earlier_open_left() {
    let mut world = World::new(50);
    {
        let (mut fetcher, blocks) = world.fetcher();
        for block in 0..40 {
            bring(&mut fetcher, &blocks, block, &world.block(block));
        }
        fetcher.finish_up();
    }
    world.content.lock().fetches.clear();
    world.reader = None;
    world.reader = Some(world.content.reader());
    let (mut fetcher, blocks) = world.fetcher();
    // The thread that hashes is there, and never goes on.
    world.content.lock().begin_to_hash();
    bring(&mut fetcher, &blocks, 48, &world.block(48));
    assert!(!fetcher.gave_up_on_hash);
    for block in 40..48 {
        bring(&mut fetcher, &blocks, block, &world.block(block));
    }
    assert!(!fetcher.gave_up_on_hash);
    world.content.lock().hasher = Hasher::Idle;
}

#[test]
fn what_is_doubted_while_it_is_hashed_is_in_no_hash() {
    let world = World::new(3);
    let (mut fetcher, blocks) = world.fetcher();
    bring(&mut fetcher, &blocks, 0, &world.wrong_block(0));
    bring(&mut fetcher, &blocks, 1, &world.block(1));
    world.content.lock().begin_to_hash();
    let (mut taken, _) = hashing::next_step(&world.content, &blocks).unwrap();
    let read = |block| hashing::read_back(&world.content, block, &blocks);
    assert!(taken.hash.catch_up(world.size(), 1, read).is_ok());
    world.doubt(0);
    {
        let mut state = world.content.lock();
        taken.give_back(&mut state);
        assert!(state.hash.is_none() && state.hashed == 0);
        state.hasher = Hasher::Idle;
    }
    bring(&mut fetcher, &blocks, 0, &world.block(0));
    bring(&mut fetcher, &blocks, 2, &world.block(2));
    assert!(world.content.is_verified());
}

#[test]
fn a_block_that_was_read_before_it_was_doubted_leaves_no_sum() {
    let world = World::new(3);
    let (mut fetcher, blocks) = world.fetcher();
    bring(&mut fetcher, &blocks, 0, &world.wrong_block(0));
    world.content.lock().presence.clear(0);
    world.content.lock().forget_sum(0);
    // As if it had been read before the map was changed.
    assert!(hashing::read_back(&world.content, 0, &blocks).is_ok());
    bring(&mut fetcher, &blocks, 0, &world.block(0));
    assert!(world.content.lock().presence.has(0));
}

#[test]
fn a_hash_proves_nothing_once_a_block_in_it_was_doubted() {
    let world = World::new(3);
    let (mut fetcher, blocks) = world.fetcher();
    bring(&mut fetcher, &blocks, 0, &world.block(0));
    bring(&mut fetcher, &blocks, 1, &world.block(1));
    let last = world.block(2);
    blocks.write(2 * BLOCK, std::slice::from_ref(&last)).unwrap();
    blocks.mark(2, crc32fast::hash(&last)).unwrap();
    // The last block's thread has the hash, and found all to be right, when an archive's own checksum says otherwise.
    let age = {
        let mut state = world.content.lock();
        state.hasher = Hasher::Leaves;
        hashing::take(&mut state).age
    };
    world.doubt(0);
    world.content.lock().hasher = Hasher::Idle;
    assert!(fetcher.settle(2, Some(age), None).is_ok());
    assert!(!world.content.lock().proved && !world.content.is_verified());
    // What comes in the place of that one is compared too.
    let other = take(&mut fetcher, &blocks, 0, &world.wrong_block(0));
    assert_eq!(other, Err("stopped"));
    assert!(!world.content.is_verified());
}

#[test]
fn what_was_proved_is_not_doubted() {
    let world = World::new(3);
    let (mut fetcher, blocks) = world.fetcher();
    for block in 0..3 {
        bring(&mut fetcher, &blocks, block, &world.block(block));
    }
    world.content.lock().lose(1);
    world.doubt(0);
    let state = world.content.lock();
    assert!(state.proved && state.presence.has(0) && state.sum_of(0).is_some());
}

#[test]
fn a_complete_file_takes_no_room_in_memory() {
    let world = World::with_limit(4, 0);
    let (mut fetcher, blocks) = world.fetcher();
    for block in 0..3 {
        bring(&mut fetcher, &blocks, block, &world.block(block));
    }
    let room = &world.content.store.fresh;
    assert_eq!(room.taken(), 3 * BLOCK, "nothing is on disk yet");
    bring(&mut fetcher, &blocks, 3, &world.block(3));
    assert!(world.content.is_verified());
    assert_eq!(room.taken(), 0);
}

#[test]
fn half_a_block_that_was_doubted_may_come_again_as_another() {
    let world = World::new(3);
    let (mut fetcher, blocks) = world.fetcher();
    world.show_half(&mut fetcher, &blocks, 1, &world.wrong_block(1));
    fetcher.finish_up();
    assert!(world.content.lock().half_of(1).is_some());
    world.doubt(1);
    bring(&mut fetcher, &blocks, 1, &world.block(1));
    assert!(world.content.lock().presence.has(1));
}

#[test]
fn half_a_block_may_be_doubted_while_it_comes_again() {
    let world = World::new(3);
    let (mut fetcher, blocks) = world.fetcher();
    let end = world.show_half(&mut fetcher, &blocks, 1, &world.wrong_block(1));
    fetcher.finish_up();
    let right = world.block(1);
    let early = right.slice(..10);
    bring(&mut fetcher, &blocks, 1, &early);
    assert!(end > BLOCK + 10);
    world.doubt(1);
    assert_eq!(
        world.bring_rest(&mut fetcher, &blocks, BLOCK + 10, &right),
        Ok(())
    );
    assert!(world.content.lock().presence.has(1), "nobody saw these bytes");
}

#[test]
fn a_block_that_was_doubted_while_it_came_is_not_kept() {
    let world = World::new(3);
    let (mut fetcher, blocks) = world.fetcher();
    bring(&mut fetcher, &blocks, 0, &world.block(0));
    let wrong = world.wrong_block(1);
    let end = world.show_half(&mut fetcher, &blocks, 1, &wrong);
    world.doubt(1);
    assert_eq!(world.content.lock().first_missing(BLOCK, end), Some(BLOCK));
    assert_eq!(world.bring_rest(&mut fetcher, &blocks, end, &wrong), Ok(()));
    {
        let state = world.content.lock();
        assert!(!state.presence.has(1) && state.sum_of(1).is_none());
    }
    assert!(blocks.read_summed(1).is_err(), "the map knows nothing of it");
    bring(&mut fetcher, &blocks, 1, &world.block(1));
    bring(&mut fetcher, &blocks, 2, &world.block(2));
    assert!(world.content.is_verified());
}

#[test]
fn half_a_block_that_was_doubted_is_not_noted_when_its_download_ends() {
    let world = World::new(3);
    let (mut fetcher, blocks) = world.fetcher();
    world.show_half(&mut fetcher, &blocks, 1, &world.wrong_block(1));
    world.doubt(1);
    fetcher.finish_up();
    assert!(world.content.lock().half_of(1).is_none());
}

#[test]
fn nothing_is_shown_of_half_a_block_once_it_was_noted_how_much_was() {
    let world = World::new(3);
    let (mut fetcher, blocks) = world.fetcher();
    bring(&mut fetcher, &blocks, 1, &world.block(1).slice(..100));
    assert_eq!(world.content.lock().first_missing(BLOCK, BLOCK + 100), None);
    fetcher.finish_up();
    let state = world.content.lock();
    // The download is not over yet.
    assert!(state.half_of(1).is_none() && state.fetches.len() == 1);
    assert_eq!(state.first_missing(BLOCK, BLOCK + 100), Some(BLOCK));
    assert!(state.is_coming(BLOCK), "who waits for it is told if it fails");
}

#[test]
fn half_a_block_that_comes_wrong_after_the_file_was_proved_may_come_once_more() {
    let world = World::new(3);
    let (mut fetcher, blocks) = world.fetcher();
    world.show_half(&mut fetcher, &blocks, 1, &world.block(1));
    fetcher.finish_up();
    world.content.lock().proved = true;
    assert_eq!(
        take(&mut fetcher, &blocks, BLOCK, &world.wrong_block(1)),
        Err("broken")
    );
    assert_eq!(fetcher.written, world.block(1).len() as u64 / 2);
    bring(&mut fetcher, &blocks, 1, &world.block(1));
    let right = crc32fast::hash(&world.block(1));
    assert_eq!(world.content.lock().sum_of(1), Some(right));
}
