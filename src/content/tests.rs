//! Laws of the read path that hold between two steps of a thread: the test takes each step itself, no server is asked.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::blocks::{BLOCK, Blocks, span_of};
use super::fetch::{Break, Fetcher};
use super::reader::Reader;
use super::state::{Fetch, Hasher, Path};
use super::{Content, Identity, Settings, Store};
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
        let folder = tempfile::tempdir().unwrap();
        let size = (blocks - 1) * BLOCK + 1;
        let bytes: Bytes = (0..size).map(|at| (at % 251) as u8).collect();
        let settings = Settings {
            directory: folder.path().join("cache"),
            limit: 1 << 30,
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
