//! The central directory: where it is, and all that it lists.
//!
//! Called by `tree/` through [`Directory::read`]. It is read in pieces, so memory follows the entries that are really
//! there and not what a header says of them.

use super::entry::{self, Member};
use super::{Source, damaged, u16_at, u32_at, u64_at};
use crate::error::{Error, Kind, Result};

/// Most members and folders of one archive. Each takes about 200 bytes of memory.
pub const MOST_MEMBERS: usize = 1_000_000;

/// Most bytes of a central directory.
const MOST_BYTES: u64 = 64 << 20;

/// The end of the directory with the longest comment, and the two records that ZIP64 puts before it.
pub const TAIL: u64 = END as u64 + 65_535 + LOCATOR as u64 + END64 as u64;
const END: usize = 22;
const LOCATOR: usize = 20;
const END64: usize = 56;

/// How much of a directory is read at once.
const PIECE: u64 = 1 << 20;

/// How many entries that can't be shown are named in the log.
const NAMED: usize = 5;

const END_SIGNATURE: &[u8] = b"PK\x05\x06";
const LOCATOR_SIGNATURE: &[u8] = b"PK\x06\x07";
const END64_SIGNATURE: &[u8] = b"PK\x06\x06";
const ENTRY_SIGNATURE: &[u8] = b"PK\x01\x02";
const SIGNED_SIGNATURE: &[u8] = b"PK\x05\x05";

/// What an archive holds, in its own order.
#[derive(Debug, Default)]
pub struct Directory {
    /// All entries but those that can't be files.
    pub members: Vec<Member>,
}

/// Where the directory is.
#[derive(Debug, PartialEq, Eq)]
struct Span {
    /// Its first byte, if nothing was put before the archive.
    declared: u64,
    /// Its first byte, if the end of it is where it should be.
    by_end: u64,
    size: u64,
}

impl Directory {
    /// Reads the directory of an archive called `what`.
    ///
    /// # Errors
    /// `Corrupt` if it is no ZIP archive or a damaged one; `TooLarge` past the limits; `Local(EOPNOTSUPP)` for one part of
    /// several; why the bytes don't come.
    pub fn read(source: &dyn Source, what: &str) -> Result<Directory> {
        let span = find(source).map_err(|error| error.during(what))?;
        read(source, &span, what).map_err(|error| error.during(what))
    }
}

/// Finds the directory from the end of the archive.
fn find(source: &dyn Source) -> Result<Span> {
    let size = source.size();
    let length = size.min(TAIL);
    let start = size - length;
    let tail = read_span(source, start, length)?;
    let at = end_of_directory(&tail)
        .ok_or_else(|| damaged("no ZIP archive: it has no end of central directory"))?;
    let end = &tail[at..];
    let parts = [u16_at(end, 4), u16_at(end, 6)];
    let mut span = Span {
        size: u64::from(u32_at(end, 12)),
        declared: u64::from(u32_at(end, 16)),
        by_end: start + at as u64,
    };
    let needs_64 = span.size == u64::from(u32::MAX) || span.declared == u64::from(u32::MAX);
    let locator = at
        .checked_sub(LOCATOR)
        .map(|before| &tail[before..at])
        .filter(|locator| locator.starts_with(LOCATOR_SIGNATURE));
    let mut is_part = parts.iter().any(|part| !matches!(part, 0 | 0xffff));
    let end64 = match locator {
        Some(locator) => end64(source, u64_at(locator, 8), start + at as u64)?,
        None => None,
    };
    match end64 {
        Some((record_at, record)) => {
            is_part = u32_at(&record, 16) != 0 || u32_at(&record, 20) != 0;
            span = Span {
                size: u64_at(&record, 40),
                declared: u64_at(&record, 48),
                by_end: record_at,
            };
        }
        None if needs_64 => return Err(damaged("its ZIP64 directory can't be found")),
        None => is_part |= parts.contains(&0xffff),
    }
    if is_part {
        return Err(Error::new(
            Kind::Local(libc::EOPNOTSUPP),
            "one of several parts of an archive",
        )
        .with_advice("Join the parts first (zip -s 0)."));
    }
    if span.size > MOST_BYTES {
        let what = format!("its directory has {} bytes", span.size);
        return Err(too_large(what, format!("{} MiB", MOST_BYTES >> 20)));
    }
    span.by_end = span
        .by_end
        .checked_sub(span.size)
        .ok_or_else(|| damaged("its directory begins before the file does"))?;
    Ok(span)
}

/// The place of the end of the directory: the last one whose comment ends with the file, else the last one.
fn end_of_directory(tail: &[u8]) -> Option<usize> {
    let last = tail.len().checked_sub(END)?;
    let is_end = |at: &usize| tail[*at..].starts_with(END_SIGNATURE);
    let ends = |at: &usize| *at + END + usize::from(u16_at(tail, *at + 20));
    (0..=last)
        .rev()
        .find(|at| is_end(at) && ends(at) == tail.len())
        .or_else(|| (0..=last).rev().find(|at| is_end(at) && ends(at) <= tail.len()))
}

/// The ZIP64 record: where the locator says, or right before it if something was put before the archive.
fn end64(source: &dyn Source, told: u64, end_at: u64) -> Result<Option<(u64, Vec<u8>)>> {
    let before = end_at.checked_sub((LOCATOR + END64) as u64);
    for at in [Some(told), before].into_iter().flatten() {
        if at.checked_add(END64 as u64).is_none_or(|end| end > end_at) {
            continue;
        }
        let record = source.read_at(at, END64 as u32)?;
        if record.starts_with(END64_SIGNATURE) {
            return Ok(Some((at, record)));
        }
    }
    Ok(None)
}

/// Reads the entries.
fn read(source: &dyn Source, span: &Span, what: &str) -> Result<Directory> {
    let mut directory = Directory::default();
    if span.size == 0 {
        return Ok(directory);
    }
    let first_length = span.size.min(PIECE);
    let mut start = span.by_end;
    let mut piece = Vec::new();
    // An archive with something in front may have been told of it, or not.
    for at in [span.declared, span.by_end] {
        start = at;
        if at.checked_add(span.size).is_some_and(|end| end <= source.size()) {
            source.stop_at(at + span.size);
            piece = read_span(source, at, first_length)?;
            if piece.starts_with(ENTRY_SIGNATURE) {
                break;
            }
        }
    }
    if !piece.starts_with(ENTRY_SIGNATURE) && !piece.starts_with(SIGNED_SIGNATURE) {
        return Err(damaged("its central directory is not where it should be"));
    }
    // What was put before the archive moves all members by as much.
    let shift = start.saturating_sub(span.declared);
    let mut left_out = LeftOut::default();
    let mut done = first_length;
    let mut buffer = piece;
    loop {
        let used = entries(&buffer, shift, &mut directory, &mut left_out)?;
        buffer.drain(..used);
        let rest = span.size - done;
        if rest == 0 || buffer.starts_with(SIGNED_SIGNATURE) {
            break;
        }
        let length = rest.min(PIECE);
        buffer.extend(read_span(source, start + done, length)?);
        done += length;
    }
    if !buffer.is_empty() && !buffer.starts_with(SIGNED_SIGNATURE) {
        return Err(damaged(format!(
            "its central directory is damaged after {} entries",
            directory.members.len()
        )));
    }
    left_out.log(what);
    Ok(directory)
}

/// Takes the whole entries from the front of the buffer. Returns how many bytes they were.
fn entries(buffer: &[u8], shift: u64, directory: &mut Directory, left_out: &mut LeftOut) -> Result<usize> {
    let mut used = 0;
    while let Some(length) = entry::length(&buffer[used..]) {
        if !buffer[used..].starts_with(ENTRY_SIGNATURE) {
            break;
        }
        if directory.members.len() + left_out.count >= MOST_MEMBERS {
            let what = "it has more members".to_owned();
            return Err(too_large(what, format!("{MOST_MEMBERS} members")));
        }
        let entry = &buffer[used..used + length];
        match entry::parse(entry, shift) {
            Ok(member) => directory.members.push(member),
            Err(reason) => left_out.note(entry, reason),
        }
        used += length;
    }
    Ok(used)
}

/// Entries that can't be shown.
#[derive(Default)]
struct LeftOut {
    named: Vec<String>,
    count: usize,
}

impl LeftOut {
    fn note(&mut self, entry: &[u8], reason: &'static str) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named
                .push(format!("{:?} {reason}", entry::shown_name(entry)));
        }
    }

    fn log(&self, what: &str) {
        for named in &self.named {
            log::warn!("{what}: {named}: it is not shown");
        }
        if self.count > self.named.len() {
            log::warn!("{what}: {} entries are not shown in all", self.count);
        }
    }
}

/// A part of the archive that the directory named.
fn read_span(source: &dyn Source, offset: u64, length: u64) -> Result<Vec<u8>> {
    let length = u32::try_from(length).map_err(|_| damaged("a part of it is too long"))?;
    source.read_at(offset, length)
}

fn too_large(what: String, limit: String) -> Error {
    let what = format!("{what}; rdmfs reads archives up to {limit}");
    Error::new(Kind::TooLarge, what).with_advice("Copy it from files/ and unpack it.")
}

#[cfg(test)]
mod tests;
