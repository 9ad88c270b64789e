//! One entry of a central directory: what a member is called, how large it is, when it was changed.
//!
//! Called by `directory` with untrusted bytes. Which names can be shown is not decided here but in `tree/`.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{u16_at, u32_at, u64_at};

/// The fixed part of an entry.
const FIXED: usize = 46;

/// A member's flags: encrypted, strongly encrypted, name in UTF-8, header masked.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
const UTF_8: u16 = 1 << 11;

/// Systems whose names are bytes as the file system had them: Unix and macOS.
const UNIX: [u8; 2] = [3, 19];

/// What follows some fields of an entry.
const ZIP64: u16 = 0x0001;
const NTFS: u16 = 0x000a;
const TIMES: u16 = 0x5455;
const INFO_ZIP_UNIX: u16 = 0x5855;
const UNICODE_PATH: u16 = 0x7075;
const AES: u16 = 0x9901;

/// Seconds from 1601 to 1970.
const NTFS_EPOCH: u64 = 11_644_473_600;

/// What a member is, as the directory says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name, as the archive has it; a folder's ends with `/`.
    pub name: Box<str>,
    /// How its bytes are kept.
    pub method: Method,
    /// Whether they are encrypted.
    pub is_encrypted: bool,
    /// The CRC-32 of its bytes.
    pub crc32: u32,
    /// How many bytes it takes in the archive.
    pub compressed: u64,
    /// How many bytes it has.
    pub size: u64,
    /// Where its own header is.
    pub header: u64,
    /// When it was changed, if it says so.
    pub modified: Option<SystemTime>,
}

/// How a member's bytes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// As they are.
    Stored,
    /// Deflated.
    Deflate,
    /// In another way, by its number.
    Other(u16),
}

impl Method {
    pub(super) fn of(number: u16) -> Method {
        match number {
            0 => Method::Stored,
            8 => Method::Deflate,
            other => Method::Other(other),
        }
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Method::Stored => "stored",
            Method::Deflate | Method::Other(8) => "Deflate",
            Method::Other(1) => "Shrink",
            Method::Other(6) => "Implode",
            Method::Other(9) => "Deflate64",
            Method::Other(12) => "bzip2",
            Method::Other(14) => "LZMA",
            Method::Other(20 | 93) => "Zstandard",
            Method::Other(95) => "xz",
            Method::Other(98) => "PPMd",
            Method::Other(number) => return write!(f, "method {number}"),
        };
        f.write_str(name)
    }
}

/// How long the entry at the front of these bytes is; `None` if they are not all of it.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let fixed = bytes.get(..FIXED)?;
    let variable: usize = [28, 30, 32]
        .iter()
        .map(|at| usize::from(u16_at(fixed, *at)))
        .sum();
    (bytes.len() - FIXED >= variable).then_some(FIXED + variable)
}

/// Reads an entry of exactly its length. `shift` is added to where its header is. The error says why it can't be shown.
pub(super) fn parse(entry: &[u8], shift: u64) -> Result<Member, &'static str> {
    let flags = u16_at(entry, 8);
    let extra = extra_of(entry);
    let wide = Wide::of(entry, extra);
    if i64::try_from(wide.size).is_err() {
        return Err("says that it is larger than a file can be");
    }
    let header = wide
        .header
        .checked_add(shift)
        .ok_or("says that it lies outside of the archive")?;
    Ok(Member {
        name: name_of(entry, flags, extra).into(),
        method: Method::of(u16_at(entry, 10)),
        is_encrypted: flags & ENCRYPTED != 0 || find(extra, AES).is_some(),
        crc32: u32_at(entry, 16),
        compressed: wide.compressed,
        size: wide.size,
        header,
        modified: modified(entry, extra),
    })
}

/// A name for the log.
pub(super) fn shown_name(entry: &[u8]) -> String {
    name_of(entry, u16_at(entry, 8), extra_of(entry))
        .chars()
        .take(100)
        .collect()
}

fn raw_name(entry: &[u8]) -> &[u8] {
    &entry[FIXED..FIXED + usize::from(u16_at(entry, 28))]
}

fn extra_of(entry: &[u8]) -> &[u8] {
    let start = FIXED + usize::from(u16_at(entry, 28));
    &entry[start..start + usize::from(u16_at(entry, 30))]
}

/// The first extra field of this kind.
fn find(mut extra: &[u8], kind: u16) -> Option<&[u8]> {
    while extra.len() >= 4 {
        let (found, length) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let field = extra.get(4..4 + length)?;
        if found == kind {
            return Some(field);
        }
        extra = &extra[4 + length..];
    }
    None
}

/// Sizes and place, which may be in a ZIP64 field.
struct Wide {
    size: u64,
    compressed: u64,
    header: u64,
}

impl Wide {
    fn of(entry: &[u8], extra: &[u8]) -> Wide {
        let mut field = find(extra, ZIP64).unwrap_or_default();
        // Only the numbers that don't fit are in the field, in this order.
        let mut number = |narrow: u32| {
            if narrow == u32::MAX && field.len() >= 8 {
                let wide = u64_at(field, 0);
                field = &field[8..];
                wide
            } else {
                u64::from(narrow)
            }
        };
        Wide {
            size: number(u32_at(entry, 24)),
            compressed: number(u32_at(entry, 20)),
            header: number(u32_at(entry, 42)),
        }
    }
}

fn name_of<'a>(entry: &'a [u8], flags: u16, extra: &'a [u8]) -> Cow<'a, str> {
    let raw = raw_name(entry);
    // It says of which name it is a better one: a tool that renames may not know of it.
    if let Some(field) = find(extra, UNICODE_PATH)
        && field.len() > 5
        && field[0] == 1
        && u32_at(field, 1) == crc32fast::hash(raw)
        && let Ok(name) = std::str::from_utf8(&field[5..])
    {
        return name.into();
    }
    let host = entry[5];
    if (flags & UTF_8 != 0 || UNIX.contains(&host))
        && let Ok(name) = std::str::from_utf8(raw)
    {
        return name.into();
    }
    cp437(raw)
}

/// The upper half of the character set of the first PCs, which is the format's own.
const CP437: [char; 128] = [
    'Ç', 'ü', 'é', 'â', 'ä', 'à', 'å', 'ç', 'ê', 'ë', 'è', 'ï', 'î', 'ì', 'Ä', 'Å', 'É', 'æ', 'Æ', 'ô', 'ö',
    'ò', 'û', 'ù', 'ÿ', 'Ö', 'Ü', '¢', '£', '¥', '₧', 'ƒ', 'á', 'í', 'ó', 'ú', 'ñ', 'Ñ', 'ª', 'º', '¿', '⌐',
    '¬', '½', '¼', '¡', '«', '»', '░', '▒', '▓', '│', '┤', '╡', '╢', '╖', '╕', '╣', '║', '╗', '╝', '╜', '╛',
    '┐', '└', '┴', '┬', '├', '─', '┼', '╞', '╟', '╚', '╔', '╩', '╦', '╠', '═', '╬', '╧', '╨', '╤', '╥', '╙',
    '╘', '╒', '╓', '╫', '╪', '┘', '┌', '█', '▄', '▌', '▐', '▀', 'α', 'ß', 'Γ', 'π', 'Σ', 'σ', 'µ', 'τ', 'Φ',
    'Θ', 'Ω', 'δ', '∞', 'φ', 'ε', '∩', '≡', '±', '≥', '≤', '⌠', '⌡', '÷', '≈', '°', '∙', '·', '√', 'ⁿ', '²',
    '■', '\u{a0}',
];

fn cp437(raw: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(raw) {
        Ok(name) if name.is_ascii() => name.into(),
        _ => raw
            .iter()
            .map(|byte| match byte {
                0..0x80 => char::from(*byte),
                _ => CP437[usize::from(byte - 0x80)],
            })
            .collect(),
    }
}

/// The time in UTC where an extra field has it, else the DOS time, which has no zone and is taken for UTC.
fn modified(entry: &[u8], extra: &[u8]) -> Option<SystemTime> {
    let from_unix = |field: &[u8], at: usize| {
        let seconds = u32_at(field, at).cast_signed();
        let distance = Duration::from_secs(u64::from(seconds.unsigned_abs()));
        if seconds < 0 {
            UNIX_EPOCH.checked_sub(distance)
        } else {
            UNIX_EPOCH.checked_add(distance)
        }
    };
    if let Some(field) = find(extra, TIMES)
        && field.len() >= 5
        && field[0] & 1 != 0
    {
        return from_unix(field, 1);
    }
    if let Some(field) = find(extra, NTFS)
        && field.len() >= 16
        && u16_at(field, 4) == 1
    {
        // In units of 100 ns.
        let ticks = u64_at(field, 8);
        let since = Duration::new(ticks / 10_000_000, (ticks % 10_000_000) as u32 * 100);
        return UNIX_EPOCH.checked_add(since.checked_sub(Duration::from_secs(NTFS_EPOCH))?);
    }
    if let Some(field) = find(extra, INFO_ZIP_UNIX)
        && field.len() >= 8
    {
        return from_unix(field, 4);
    }
    dos_time(u16_at(entry, 14), u16_at(entry, 12))
}

fn dos_time(date: u16, time: u16) -> Option<SystemTime> {
    let small = |number: u16| i8::try_from(number).ok();
    let date = jiff::civil::Date::new(
        i16::try_from(1980 + (date >> 9)).ok()?,
        small(date >> 5 & 15)?,
        small(date & 31)?,
    );
    let time = jiff::civil::Time::new(
        small(time >> 11)?,
        small(time >> 5 & 63)?,
        small((time & 31) * 2)?,
        0,
    );
    let at = date.ok()?.to_datetime(time.ok()?);
    let zoned = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(zoned.timestamp().into())
}
