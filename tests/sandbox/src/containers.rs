//! The members of a ZIP file: their list, and one of them.

use serde_json::{Value, json};

use crate::app::App;
use crate::errors::Problem;
use crate::files::{self, api_url};
use crate::mimetypes;
use crate::reply::{Call, Failure, Reply, encode_key};
use crate::settings::Flavour;

/// More members are not listed.
const MOST: usize = 1000;

struct Member {
    name: String,
    method: u16,
    crc: u32,
    compressed: usize,
    size: usize,
    offset: usize,
}

/// `GET …/files/{key}/container`
pub(crate) fn list(app: &App, call: &Call) -> Result<Reply, Failure> {
    let archive = archive(app, call)?;
    let members = members(&archive).ok_or_else(|| Problem::server_error(500))?;
    let url = format!(
        "{}/files/{}/container",
        api_url(app, &call.target.id, call.target.draft),
        encode_key(&call.target.key)
    );
    let files: Vec<&Member> = members
        .iter()
        .filter(|member| !member.name.ends_with('/'))
        .collect();
    let entries: Vec<Value> = files
        .iter()
        .take(MOST)
        .map(|member| {
            json!({"key": member.name, "size": member.size, "compressed_size": member.compressed,
                   "mimetype": mimetypes::guess(&member.name), "crc": member.crc,
                   "links": {"content": format!("{url}/{}", encode_key(&member.name))}})
        })
        .collect();
    let body =
        json!({"entries": entries, "truncated": files.len() > MOST, "total": files.len(), "directories": []});
    Ok(Reply::json(200, &body))
}

/// `GET …/files/{key}/container/{member}`: whole, without a size before it is known.
pub(crate) fn extract(app: &App, call: &Call) -> Result<Reply, Failure> {
    let archive = archive(app, call)?;
    let members = members(&archive).ok_or_else(|| Problem::server_error(500))?;
    let member = members
        .iter()
        .find(|member| member.name == call.target.member)
        .ok_or_else(|| Problem::no_file(&call.target.id, &call.target.member))?;
    let content = content(&archive, member).ok_or_else(|| Problem::server_error(500))?;
    Ok(Reply::new(200, "application/octet-stream", content))
}

fn archive(app: &App, call: &Call) -> Result<Vec<u8>, Failure> {
    let (id, key) = (&call.target.id, &call.target.key);
    if app.knobs.lock().flavour == Flavour::V12 {
        // Taken for a key.
        let whole = match call.target.member.as_str() {
            "" => format!("{key}/container"),
            member => format!("{key}/container/{member}"),
        };
        return Err(Problem::no_file(id, &whole).into());
    }
    let blob = {
        let store = app.store.lock();
        let (_, entry) = if call.target.draft {
            files::of_draft(&store, id, key, call.user, &call.method)?
        } else {
            files::of_record(&store, id, key, call.user)?
        };
        entry
            .content()
            .cloned()
            .ok_or_else(|| Problem::server_error(500))?
    };
    Ok(blob.bytes()?.to_vec())
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
    )
}

/// Reads the central directory.
fn members(archive: &[u8]) -> Option<Vec<Member>> {
    let end = (0..archive.len().saturating_sub(21))
        .rev()
        .find(|at| archive[*at..].starts_with(b"PK\x05\x06"))?;
    let mut at = number(archive, end + 16, 4)?;
    let mut members = Vec::new();
    for _ in 0..number(archive, end + 10, 2)? {
        if !archive.get(at..)?.starts_with(b"PK\x01\x02") {
            return None;
        }
        let lengths = [28, 30, 32].map(|field| number(archive, at + field, 2));
        let name = archive.get(at + 46..at + 46 + lengths[0]?)?;
        members.push(Member {
            name: String::from_utf8_lossy(name).into_owned(),
            method: number(archive, at + 10, 2)? as u16,
            crc: number(archive, at + 16, 4)? as u32,
            compressed: number(archive, at + 20, 4)?,
            size: number(archive, at + 24, 4)?,
            offset: number(archive, at + 42, 4)?,
        });
        at += 46 + lengths[0]? + lengths[1]? + lengths[2]?;
    }
    Some(members)
}

fn content(archive: &[u8], member: &Member) -> Option<Vec<u8>> {
    let at = member.offset;
    let start = at + 30 + number(archive, at + 26, 2)? + number(archive, at + 28, 2)?;
    let stored = archive.get(start..start + member.compressed)?;
    match member.method {
        0 => Some(stored.to_vec()),
        8 => inflate(stored),
        _ => None,
    }
}

/// The bits of a deflated stream.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<usize> {
        let mut value = 0;
        for n in 0..count {
            let byte = *self.bytes.get(self.at / 8)?;
            value |= usize::from(byte >> (self.at % 8) & 1) << n;
            self.at += 1;
        }
        Some(value)
    }
}

/// A Huffman code: how many codes there are of each length, and their symbols in order.
struct Code {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

impl Code {
    fn of(lengths: &[usize]) -> Code {
        let mut counts = [0; 16];
        lengths.iter().for_each(|length| counts[*length] += 1);
        counts[0] = 0;
        let mut symbols: Vec<usize> = (0..lengths.len()).filter(|symbol| lengths[*symbol] > 0).collect();
        symbols.sort_by_key(|symbol| lengths[*symbol]);
        Code { counts, symbols }
    }

    fn read(&self, bits: &mut Bits<'_>) -> Option<usize> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for length in 1..16 {
            code |= bits.take(1)?;
            let count = self.counts[length];
            if code < first + count {
                return self.symbols.get(index + code - first).copied();
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

/// RFC 1951, slowly.
fn inflate(stream: &[u8]) -> Option<Vec<u8>> {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let mut bits = Bits { bytes: stream, at: 0 };
    let mut out = Vec::new();
    loop {
        let last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => {
                let start = bits.at.div_ceil(8);
                let length = number(stream, start, 2)?;
                out.extend_from_slice(stream.get(start + 4..start + 4 + length)?);
                bits.at = (start + 4 + length) * 8;
            }
            1 => {
                let lengths: Vec<usize> = (0..288)
                    .map(|symbol| match symbol {
                        0..=143 => 8,
                        144..=255 => 9,
                        256..=279 => 7,
                        _ => 8,
                    })
                    .collect();
                block(&mut bits, &mut out, &Code::of(&lengths), &Code::of(&[5; 30]))?;
            }
            2 => {
                let (literals, distances, codes) =
                    (bits.take(5)? + 257, bits.take(5)? + 1, bits.take(4)? + 4);
                let mut lengths = vec![0; 19];
                for place in &ORDER[..codes] {
                    lengths[*place] = bits.take(3)?;
                }
                let code = Code::of(&lengths);
                let mut lengths: Vec<usize> = Vec::new();
                while lengths.len() < literals + distances {
                    let (value, times) = match code.read(&mut bits)? {
                        16 => (*lengths.last()?, bits.take(2)? + 3),
                        17 => (0, bits.take(3)? + 3),
                        18 => (0, bits.take(7)? + 11),
                        length => (length, 1),
                    };
                    lengths.extend(std::iter::repeat_n(value, times));
                }
                let (literals, distances) = lengths.split_at(literals);
                block(&mut bits, &mut out, &Code::of(literals), &Code::of(distances))?;
            }
            _ => return None,
        }
        if last {
            return Some(out);
        }
    }
}

fn block(bits: &mut Bits<'_>, out: &mut Vec<u8>, literals: &Code, distances: &Code) -> Option<()> {
    loop {
        let symbol = literals.read(bits)?;
        let length = match symbol {
            0..=255 => {
                out.push(symbol as u8);
                continue;
            }
            256 => return Some(()),
            257..=264 => symbol - 254,
            285 => 258,
            _ => {
                let extra = (symbol - 261) / 4;
                (((symbol - 265) % 4 + 4) << extra) + 3 + bits.take(extra)?
            }
        };
        let symbol = distances.read(bits)?;
        let distance = match symbol {
            0..=3 => symbol + 1,
            _ => {
                let extra = symbol / 2 - 1;
                ((symbol % 2 + 2) << extra) + 1 + bits.take(extra)?
            }
        };
        let start = out.len().checked_sub(distance)?;
        for n in 0..length {
            out.push(out[start + n]);
        }
    }
}
