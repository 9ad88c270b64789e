//! One cached copy on disk: a sparse data file and a map file that says which blocks are there.
//!
//! Called by `file.rs` and `fetch.rs`, which keep what is present in memory (`Presence`) under the content's lock.
//! This file must never decide what to fetch or drop, and never lock anything: it is plain positioned I/O.
//!
//! The map: a header, then 8 bytes for each block, its CRC-32 and a mark. A block's entry is written after its data,
//! so that a daemon killed at any moment leaves no entry for a block that is not there. What a crash of the whole
//! machine reorders, the CRC finds out: a block that an earlier daemon wrote is checked when it is first read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fresh::Pieces;
use super::stamp::{self, Stamp};

/// The unit of fetching, checking and dropping.
pub(super) const BLOCK: u64 = 256 * 1024;

const MAGIC: &[u8; 8] = b"rdmfs-bk";
const VERSION: u32 = 2;
/// Magic, version, block size, file size, flags, whose copy it is, and the data file's stamp when it was found right.
const HEADER: u64 = 96;
const FLAGS_AT: u64 = 24;
const NAME_AT: u64 = 32;
const NAME_END: u64 = 48;
const STAMP_AT: u64 = HEADER - stamp::LENGTH as u64;
const VERIFIED: u32 = 1;
const ENTRY: u64 = 8;
/// Marks an entry as written; zeros (a hole) mean "not there".
const MARK: u32 = 0x4b4c_4221;

/// As many pieces as the system writes in one go.
const MOST_SLICES: usize = 1024;

/// Larger files than this (64 TiB) there are not: what is known of their blocks would take all memory.
pub(super) const LARGEST: u64 = 1 << 46;

/// How many blocks a file of `size` bytes has.
pub(super) fn blocks_in(size: u64) -> u64 {
    size.div_ceil(BLOCK)
}

/// Where block `block` of a file of `size` bytes starts and ends.
pub(super) fn span_of(block: u64, size: u64) -> (u64, u64) {
    let start = block * BLOCK;
    (start, (start + BLOCK).min(size))
}

/// Which blocks are there, and which of them were checked or written by this process. Two bits for each block.
#[derive(Clone, Debug)]
pub(super) struct Presence {
    size: u64,
    present: Vec<u64>,
    trusted: Vec<u64>,
    missing: u64,
}

impl Presence {
    /// Nothing is there. Of a file larger than `LARGEST` there are no blocks; nobody may ask for any.
    pub(super) fn none(size: u64) -> Self {
        let size = if size > LARGEST { 0 } else { size };
        let words = usize::try_from(blocks_in(size).div_ceil(64)).unwrap_or(usize::MAX);
        Presence {
            size,
            present: vec![0; words],
            trusted: vec![0; words],
            missing: blocks_in(size),
        }
    }

    fn at(block: u64) -> (usize, u64) {
        // A Vec index: `none` allocated that many words.
        ((block / 64) as usize, 1 << (block % 64))
    }

    /// Whether the block is there.
    pub(super) fn has(&self, block: u64) -> bool {
        let (word, bit) = Self::at(block);
        self.present.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Whether the block was written or checked by this process.
    pub(super) fn is_trusted(&self, block: u64) -> bool {
        let (word, bit) = Self::at(block);
        self.trusted.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// The block is there; `trusted` if this process wrote it.
    pub(super) fn set(&mut self, block: u64, trusted: bool) {
        let (word, bit) = Self::at(block);
        if self.present[word] & bit == 0 {
            self.present[word] |= bit;
            self.missing -= 1;
        }
        if trusted {
            self.trusted[word] |= bit;
        }
    }

    /// The block, if it is there, was checked.
    pub(super) fn trust(&mut self, block: u64) {
        let (word, bit) = Self::at(block);
        self.trusted[word] |= bit & self.present[word];
    }

    /// No block counts as checked any more.
    pub(super) fn distrust(&mut self) {
        self.trusted.fill(0);
    }

    /// The block is no longer there. Tells whether it was.
    pub(super) fn clear(&mut self, block: u64) -> bool {
        let (word, bit) = Self::at(block);
        let was = self.present[word] & bit != 0;
        if was {
            self.present[word] &= !bit;
            self.trusted[word] &= !bit;
            self.missing += 1;
        }
        was
    }

    /// How many blocks are not there.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    /// How many bytes are there.
    pub(super) fn bytes(&self) -> u64 {
        let count = blocks_in(self.size);
        let full = (count - self.missing) * BLOCK;
        // The last block is mostly shorter than the others.
        if count > 0 && self.has(count - 1) {
            full - (count * BLOCK - self.size)
        } else {
            full
        }
    }

    /// The first block from `from` on that is not there.
    pub(super) fn next_missing(&self, from: u64) -> Option<u64> {
        let count = blocks_in(self.size);
        let mut block = from;
        while block < count {
            let (word, _) = Self::at(block);
            let absent = !self.present[word] & (u64::MAX << (block % 64));
            if absent != 0 {
                let found = block / 64 * 64 + u64::from(absent.trailing_zeros());
                return (found < count).then_some(found);
            }
            block = (block / 64 + 1) * 64;
        }
        None
    }

    /// The first block from `from` on that is there, or the number of blocks.
    pub(super) fn next_present(&self, from: u64) -> u64 {
        let count = blocks_in(self.size);
        let mut block = from;
        while block < count {
            let (word, _) = Self::at(block);
            let there = self.present[word] & (u64::MAX << (block % 64));
            if there != 0 {
                return (block / 64 * 64 + u64::from(there.trailing_zeros())).min(count);
            }
            block = (block / 64 + 1) * 64;
        }
        count
    }
}

/// The two file names of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// The bytes.
    pub(super) data: PathBuf,
    /// What of them is there.
    pub(super) map: PathBuf,
}

impl Names {
    /// The names for `stem`, such as `7d/7d42…-5000`, below `root`.
    pub(super) fn new(root: &Path, stem: &str) -> Self {
        Names {
            data: root.join(format!("{stem}.data")),
            map: root.join(format!("{stem}.map")),
        }
    }
}

/// A copy as found on disk.
pub(super) struct Found {
    /// Its files.
    pub(super) blocks: Blocks,
    /// What of it is there.
    pub(super) presence: Presence,
    /// It was complete, and its checksum was right.
    pub(super) verified: bool,
}

/// What the map of a copy says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peeked {
    /// The file's size.
    pub(super) size: u64,
    /// Bytes that are there.
    pub(super) have: u64,
    /// It is whole, and was compared with its checksum.
    pub(super) is_verified: bool,
}

/// Looks at a copy without opening it for use. `None` if there is none, or what is there is of no use.
pub(super) fn peek(names: &Names) -> Option<Peeked> {
    let map = File::open(&names.map).ok()?;
    let data = fs::metadata(&names.data).ok()?;
    let mut header = [0; HEADER as usize];
    map.read_exact_at(&mut header, 0).ok()?;
    let size = data.len();
    let is_whole = size <= LARGEST && map.metadata().ok()?.len() == HEADER + blocks_in(size) * ENTRY;
    if !is_whole || !is_header_of(&header, names, size) {
        return None;
    }
    let presence = read_presence(&map, size).ok()?;
    Some(Peeked {
        size,
        have: presence.bytes(),
        is_verified: presence.missing() == 0 && header[FLAGS_AT as usize] & VERIFIED as u8 != 0,
    })
}

/// The open files of one copy.
#[derive(Debug)]
pub(super) struct Blocks {
    data: File,
    map: File,
    size: u64,
    /// Counts blocks taken away, so that a read without a lock knows whether what it read was still there.
    removals: AtomicU64,
}

/// Why a block could not be read back.
#[derive(Debug)]
pub(super) enum ReadFault {
    /// Its bytes are not those that were written.
    Damaged(u64),
    /// The disk failed.
    Io(io::Error),
}

impl From<io::Error> for ReadFault {
    fn from(error: io::Error) -> Self {
        ReadFault::Io(error)
    }
}

impl Blocks {
    /// Opens the copy that an earlier open or daemon left. `None` if there is none, or what is there is of no use.
    pub(super) fn open(names: &Names, size: u64) -> io::Result<Option<Found>> {
        let open = |path: &Path| match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let Some(map) = open(&names.map)? else {
            return Ok(None);
        };
        let Some(data) = open(&names.data)? else {
            return Ok(None);
        };
        let mut header = [0; HEADER as usize];
        if size > LARGEST {
            return Ok(None);
        }
        let whole = HEADER + blocks_in(size) * ENTRY;
        if map.metadata()?.len() != whole || data.metadata()?.len() != size {
            return Ok(None);
        }
        map.read_exact_at(&mut header, 0)?;
        if !is_header_of(&header, names, size) {
            return Ok(None);
        }
        let verified = header[FLAGS_AT as usize] & VERIFIED as u8 != 0;
        let presence = read_presence(&map, size)?;
        let blocks = Blocks {
            data,
            map,
            size,
            removals: AtomicU64::new(0),
        };
        Ok(Some(Found {
            verified: verified && presence.missing() == 0,
            blocks,
            presence,
        }))
    }

    /// Makes an empty copy, in place of whatever had its name.
    pub(super) fn create(names: &Names, size: u64) -> io::Result<Blocks> {
        if let Some(folder) = names.data.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let create = |path: &Path| {
            // A name that is in use belongs to a copy that somebody may still read: a new inode, not a truncation.
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
        };
        let data = create(&names.data)?;
        data.set_len(size)?;
        let map = create(&names.map)?;
        map.set_len(HEADER + blocks_in(size) * ENTRY)?;
        map.write_all_at(&header_for(names, size), 0)?;
        Ok(Blocks {
            data,
            map,
            size,
            removals: AtomicU64::new(0),
        })
    }

    /// Writes bytes of a block, in one go if the system lets it.
    pub(super) fn write(&self, mut offset: u64, pieces: &[impl AsRef<[u8]>]) -> io::Result<()> {
        let mut slices: Vec<IoSlice> = pieces.iter().map(|piece| IoSlice::new(piece.as_ref())).collect();
        let mut rest = &mut slices[..];
        // Pieces without a byte would look like a write of nothing.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match rustix::io::pwritev(&self.data, &rest[..rest.len().min(MOST_SLICES)], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Notes that a block is there, after its last byte was written.
    pub(super) fn mark(&self, block: u64, crc: u32) -> io::Result<()> {
        let mut entry = [0; ENTRY as usize];
        entry[..4].copy_from_slice(&crc.to_le_bytes());
        entry[4..].copy_from_slice(&MARK.to_le_bytes());
        self.map.write_all_at(&entry, HEADER + block * ENTRY)
    }

    /// Notes that a block is not there any more, before its bytes go.
    pub(super) fn unmark(&self, block: u64) -> io::Result<()> {
        self.removals.fetch_add(1, Ordering::SeqCst);
        self.map
            .write_all_at(&[0; ENTRY as usize], HEADER + block * ENTRY)
    }

    /// How often blocks were taken away.
    pub(super) fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }

    /// Notes that the whole was compared with its checksum, or that this no longer holds. The data file may have been
    /// changed since its first bytes were compared, so that this keeps no stamp.
    pub(super) fn set_verified(&self, verified: bool) -> io::Result<()> {
        let flags = if verified { VERIFIED } else { 0 };
        self.map.write_all_at(&flags.to_le_bytes(), FLAGS_AT)?;
        if verified {
            return Ok(());
        }
        self.map.write_all_at(&[0; stamp::LENGTH], STAMP_AT)
    }

    /// The data file as it is now.
    pub(super) fn stamp(&self) -> io::Result<Stamp> {
        Stamp::of(&self.data)
    }

    /// Notes that all blocks were found right when the data file had this stamp or later.
    pub(super) fn keep_stamp(&self, stamp: Stamp) -> io::Result<()> {
        self.map.write_all_at(&stamp.to_bytes(), STAMP_AT)
    }

    /// Whether all its blocks were found right when the data file had this stamp.
    pub(super) fn is_right_with(&self, stamp: Stamp) -> io::Result<bool> {
        let mut kept = [0; stamp::LENGTH];
        self.map.read_exact_at(&mut kept, STAMP_AT)?;
        Ok(stamp.is_in(&kept))
    }

    /// Reads `length` bytes, which the caller knows to be there.
    pub(super) fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        self.append(&mut bytes, offset, offset + length as u64)?;
        Ok(bytes)
    }

    /// Goes on reading to `end`, with bytes from `offset` on. Not into a zeroed buffer: this is the hot path of reads.
    fn append(&self, bytes: &mut Vec<u8>, offset: u64, end: u64) -> io::Result<()> {
        // No longer than the room that the caller made.
        let length = end.saturating_sub(offset) as usize;
        while bytes.len() < length {
            let at = offset + bytes.len() as u64;
            if rustix::io::pread(&self.data, rustix::buffer::spare_capacity(bytes), at)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        // The room may be for more.
        bytes.truncate(length);
        Ok(())
    }

    /// Reads bytes that the caller knows to be there: those of these blocks, in order, from memory.
    pub(super) fn read_with(&self, offset: u64, end: u64, in_memory: &[Arc<Pieces>]) -> io::Result<Vec<u8>> {
        // A read is some blocks long at most.
        let mut bytes = Vec::with_capacity((end - offset) as usize);
        for pieces in in_memory {
            let (from, to) = span_of(pieces.block, self.size);
            self.append(&mut bytes, offset, from)?;
            pieces.append_to(&mut bytes, offset, end.min(to));
        }
        self.append(&mut bytes, offset, end)?;
        Ok(bytes)
    }

    /// As [`Blocks::read`], into a buffer that is used again and again.
    pub(super) fn read_into(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.data.read_exact_at(buffer, offset)
    }

    /// Reads a whole block and compares it with the CRC in the map. Tells both.
    pub(super) fn read_summed(&self, block: u64) -> Result<(Vec<u8>, u32), ReadFault> {
        let (start, end) = span_of(block, self.size);
        // A block has at most 256 KiB.
        let bytes = match self.read(start, (end - start) as usize) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(ReadFault::Damaged(block));
            }
            other => other?,
        };
        let crc = self.compare(block, &bytes)?;
        Ok((bytes, crc))
    }

    /// Compares a whole block, as read from the disk, with the CRC in the map, and tells it.
    pub(super) fn compare(&self, block: u64, bytes: &[u8]) -> Result<u32, ReadFault> {
        let mut entry = [0; ENTRY as usize];
        self.map.read_exact_at(&mut entry, HEADER + block * ENTRY)?;
        let mut expected = [0; ENTRY as usize];
        let crc = crc32fast::hash(bytes);
        expected[..4].copy_from_slice(&crc.to_le_bytes());
        expected[4..].copy_from_slice(&MARK.to_le_bytes());
        if entry == expected {
            Ok(crc)
        } else {
            Err(ReadFault::Damaged(block))
        }
    }

    /// Gives a block's room on disk back. Its mark must be gone already.
    pub(super) fn punch(&self, block: u64) -> io::Result<()> {
        use rustix::fs::FallocateFlags;
        let (start, end) = span_of(block, self.size);
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.data, how, start, end - start)?)
    }

    /// Notes that the copy was just used: the age by which copies are dropped is the time of the map file.
    pub(super) fn touch(&self) -> io::Result<()> {
        self.map.set_modified(std::time::SystemTime::now())
    }

    /// Another handle of the data file, for reading.
    pub(super) fn reopen(&self) -> io::Result<File> {
        // By /proc and not by name: the name may be another copy's by now. And not a dup: it would share the offset.
        use std::os::fd::AsRawFd;
        File::open(format!("/proc/self/fd/{}", self.data.as_raw_fd()))
    }
}

/// Whether a map's header is that of the copy with these names: a map that came under another's name describes blocks that
/// are as they were written, and another file's.
fn is_header_of(header: &[u8; HEADER as usize], names: &Names, size: u64) -> bool {
    let expected = header_for(names, size);
    let parts = [0..FLAGS_AT as usize, NAME_AT as usize..NAME_END as usize];
    parts
        .into_iter()
        .all(|part| header[part.clone()] == expected[part])
}

fn header_for(names: &Names, size: u64) -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&(BLOCK as u32).to_le_bytes());
    header[16..24].copy_from_slice(&size.to_le_bytes());
    let name = names.map.file_name().unwrap_or_default();
    let digest = crate::md5::of(name.as_encoded_bytes()).0;
    header[NAME_AT as usize..NAME_END as usize].copy_from_slice(&digest);
    header
}

fn read_presence(map: &File, size: u64) -> io::Result<Presence> {
    let mut presence = Presence::none(size);
    let count = blocks_in(size);
    // 64 KiB of the map at a time: it describes 2 GiB of the file.
    let mut buffer = vec![0; 64 * 1024];
    let mut block = 0;
    while block < count {
        let entries = (count - block).min(buffer.len() as u64 / ENTRY);
        let part = &mut buffer[..(entries * ENTRY) as usize];
        map.read_exact_at(part, HEADER + block * ENTRY)?;
        for (i, entry) in part.chunks_exact(ENTRY as usize).enumerate() {
            if entry[4..] == MARK.to_le_bytes() {
                presence.set(block + i as u64, false);
            }
        }
        block += entries;
    }
    Ok(presence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (tempfile::TempDir, Names) {
        let folder = tempfile::tempdir().unwrap();
        let names = Names::new(folder.path(), "ab/abcd-1");
        (folder, names)
    }

    #[test]
    fn what_was_marked_is_there_after_reopening_and_nothing_else() {
        let (_folder, names) = names();
        let size = 2 * BLOCK + 100;
        let blocks = Blocks::create(&names, size).unwrap();
        let tail = vec![7; 100];
        blocks.write(2 * BLOCK, &[&tail]).unwrap();
        blocks.write(0, &[[1; 1000]]).unwrap();
        blocks.mark(2, crc32fast::hash(&tail)).unwrap();
        drop(blocks);
        let found = Blocks::open(&names, size).unwrap().unwrap();
        assert!(!found.verified);
        assert_eq!(
            (0..3).map(|b| found.presence.has(b)).collect::<Vec<_>>(),
            [false, false, true]
        );
        assert!(!found.presence.is_trusted(2));
        assert_eq!(found.presence.bytes(), 100);
        assert_eq!(found.blocks.read_summed(2).unwrap().0, tail);
    }

    #[test]
    fn a_damaged_block_is_told_apart() {
        let (_folder, names) = names();
        let blocks = Blocks::create(&names, 100).unwrap();
        blocks.write(0, &[&[7; 40][..], &[], &[7; 60]]).unwrap();
        blocks.mark(0, crc32fast::hash(&[7; 100])).unwrap();
        assert!(blocks.read_summed(0).is_ok());
        blocks.write(50, &[[8]]).unwrap();
        assert!(matches!(blocks.read_summed(0), Err(ReadFault::Damaged(0))));
        // A block without a mark is damaged, whatever its bytes.
        blocks.write(50, &[[7]]).unwrap();
        blocks.unmark(0).unwrap();
        assert!(matches!(blocks.read_summed(0), Err(ReadFault::Damaged(0))));
    }

    #[test]
    fn a_copy_that_does_not_fit_its_name_is_no_copy() {
        let (_folder, names) = names();
        drop(Blocks::create(&names, 100).unwrap());
        assert!(Blocks::open(&names, 100).unwrap().is_some());
        assert!(Blocks::open(&names, 101).unwrap().is_none());
        fs::write(&names.map, vec![0; (HEADER + ENTRY) as usize]).unwrap();
        assert!(Blocks::open(&names, 100).unwrap().is_none());
        fs::remove_file(&names.map).unwrap();
        assert!(Blocks::open(&names, 100).unwrap().is_none());
    }

    #[test]
    fn verified_holds_only_while_every_block_is_there() {
        let (_folder, names) = names();
        let blocks = Blocks::create(&names, 100).unwrap();
        blocks.mark(0, 0).unwrap();
        blocks.set_verified(true).unwrap();
        assert!(Blocks::open(&names, 100).unwrap().unwrap().verified);
        blocks.unmark(0).unwrap();
        assert!(!Blocks::open(&names, 100).unwrap().unwrap().verified);
    }

    #[test]
    fn only_the_user_may_read_the_cache() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, names) = names();
        drop(Blocks::create(&names, 100).unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&names.data), 0o600);
        assert_eq!(mode(&names.map), 0o600);
        assert_eq!(mode(names.data.parent().unwrap()), 0o700);
    }

    #[test]
    fn presence_counts_and_finds_over_word_borders() {
        let size = 200 * BLOCK - 5;
        let mut presence = Presence::none(size);
        assert_eq!(presence.next_missing(0), Some(0));
        assert_eq!(presence.next_present(0), 200);
        for block in 0..130 {
            presence.set(block, true);
        }
        assert_eq!(presence.next_missing(0), Some(130));
        assert_eq!(presence.next_missing(131), Some(131));
        assert_eq!(presence.next_present(130), 200);
        assert_eq!(presence.bytes(), 130 * BLOCK);
        presence.set(199, false);
        assert_eq!(presence.next_present(130), 199);
        assert_eq!(presence.bytes(), 131 * BLOCK - 5);
        assert_eq!(presence.missing(), 69);
        assert!(presence.clear(64));
        assert!(!presence.clear(64));
        assert_eq!(presence.next_missing(0), Some(64));
        for block in 0..200 {
            presence.set(block, true);
        }
        assert_eq!(presence.next_missing(0), None);
        assert_eq!(presence.missing(), 0);
        assert_eq!(presence.bytes(), size);
    }

    #[test]
    fn a_punched_block_gives_its_room_back() {
        use std::os::unix::fs::MetadataExt;
        let (_folder, names) = names();
        let blocks = Blocks::create(&names, 2 * BLOCK).unwrap();
        blocks.write(0, &[vec![1; 2 * BLOCK as usize]]).unwrap();
        let before = blocks.data.metadata().unwrap().blocks();
        blocks.punch(0).unwrap();
        assert!(blocks.data.metadata().unwrap().blocks() < before);
        assert_eq!(blocks.read(BLOCK, 4).unwrap(), [1; 4]);
    }
}
