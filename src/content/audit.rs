//! Reading a copy against its checksums because somebody asked, not because a block is wanted.
//!
//! Called by `chores`. It holds the copy open as a reader does, so that it is not dropped meanwhile, and drops what is
//! wrong; what it can't read it leaves alone. It never fetches, and holds no lock while it reads.

use std::sync::Arc;

use super::Identity;
use super::blocks::{Blocks, Names, ReadFault, blocks_in, span_of};
use super::file::Content;
use super::state::Copy;
use super::verify::OrderedHash;
use crate::error::{Error, Kind, Result};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Audit {
    /// Nothing of it is here.
    Nothing,
    /// All that is here is right.
    Sound {
        /// Bytes.
        bytes: u64,
    },
    /// Blocks were damaged, and were dropped.
    Damaged {
        /// How many.
        blocks: u64,
    },
    /// All blocks are as they were written, but the file has another checksum. The copy was dropped.
    Wrong {
        /// Its MD5.
        found: String,
    },
    /// What is here can't be used, and was dropped.
    Useless,
    /// Not finished.
    Stopped,
}

impl Content {
    /// Reads every block that is here. `progress` is told how many bytes were read, and says whether to go on.
    pub(super) fn audit(self: &Arc<Self>, mut progress: impl FnMut(u64) -> bool) -> Result<Audit> {
        let _open = self.reader();
        let (blocks, is_complete) = {
            let mut state = self.lock();
            match &state.copy {
                Copy::Partial(blocks) => (Arc::clone(blocks), false),
                Copy::Complete(blocks) => (Arc::clone(blocks), true),
                Copy::Unopened | Copy::Nothing => {
                    let names = Names::new(self.store.root(), &self.stem);
                    if !names.map.exists() && !names.data.exists() {
                        return Ok(Audit::Nothing);
                    }
                    // It could not be opened when it was to be, which may have passed: too many open files, a fault of the
                    // disk, no memory. Only what opens and is no copy is of no use.
                    let opened = Blocks::open(&names, self.size())
                        .map_err(|error| Error::local(format!("open {} in the cache", self.stem), &error))?;
                    if opened.is_some() {
                        let what = format!("{} could not be opened a moment ago", self.stem);
                        return Err(Error::new(Kind::NotReady, what).with_advice("Check it again."));
                    }
                    // Under the lock: nobody may make a copy of this name meanwhile.
                    let gone = self.drop_files(&mut state);
                    drop(state);
                    self.store.discard(gone);
                    return Ok(Audit::Useless);
                }
            }
        };
        let size = self.size();
        // What was hashed and then removed may come back changed.
        let removals = blocks.removals();
        let mut hash = is_complete.then(OrderedHash::new);
        let (mut bytes, mut damaged) = (0, 0);
        for block in 0..blocks_in(size) {
            let stamp = {
                let state = self.lock();
                // What is in memory alone is no matter of the disk.
                if !state.presence.has(block) || state.fresh.sole(block).is_some() {
                    continue;
                }
                state.stamp
            };
            if !progress(bytes) {
                return Ok(Audit::Stopped);
            }
            let (start, end) = span_of(block, size);
            match self.check(&blocks, block, blocks.removals(), stamp) {
                Ok(read) => {
                    if let Some(hash) = &mut hash {
                        hash.feed(start, &read);
                    }
                    bytes += end - start;
                }
                Err(ReadFault::Damaged(_)) => damaged += 1,
                Err(ReadFault::Io(error)) => {
                    return Err(Error::local(format!("read {} from the cache", self.stem), &error));
                }
            }
        }
        if damaged > 0 {
            return Ok(Audit::Damaged { blocks: damaged });
        }
        if let (Some(hash), Identity::Md5 { md5, .. }) = (hash, &self.identity)
            && blocks.removals() == removals
        {
            let found = hash.finish();
            if found != *md5 {
                self.mismatch(&format!("has the MD5 {found}"));
                return Ok(Audit::Wrong {
                    found: found.to_string(),
                });
            }
        }
        Ok(Audit::Sound { bytes })
    }
}
