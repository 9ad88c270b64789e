//! What tests put into a sandbox: records to be made, and the bytes of their files.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, OnceLock};

use bytes::{Bytes, BytesMut};
use md5::{Digest, Md5};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

/// The bytes of a file.
#[derive(Clone, Debug)]
pub enum Data {
    /// Bytes as they are.
    Bytes(Vec<u8>),
    /// Bytes that are a function of a seed and their offset; see [`Data::generated`].
    Generated(Generator),
    /// A file on disk that is read where it lies; see [`Data::lent`].
    Lent {
        /// Where it is.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// Its MD5 in hex.
        md5: String,
    },
}

impl Data {
    /// A file of any size that takes no memory: the same size and seed give the same bytes.
    pub fn generated(size: u64, seed: u64) -> Data {
        Data::Generated(Generator::new(size, seed))
    }

    /// A file on disk, which stays there and must not change. It is hashed now, which may take a while.
    pub fn lent(path: PathBuf) -> io::Result<Data> {
        let mut file = File::open(&path)?;
        let (mut md5, mut size) = (Md5::new(), 0);
        let mut piece = vec![0; BLOCK as usize];
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                break;
            }
            md5.update(&piece[..read]);
            size += read as u64;
        }
        let md5 = hex(&md5.finalize());
        Ok(Data::Lent { path, size, md5 })
    }

    /// A file with this text.
    pub fn text(text: impl Into<String>) -> Data {
        Data::Bytes(text.into().into_bytes())
    }

    /// The file's size.
    pub fn size(&self) -> u64 {
        match self {
            Data::Bytes(bytes) => bytes.len() as u64,
            Data::Generated(generator) => generator.size,
            Data::Lent { size, .. } => *size,
        }
    }
}

impl From<&str> for Data {
    fn from(text: &str) -> Data {
        Data::Bytes(text.as_bytes().to_vec())
    }
}

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Data {
        Data::Bytes(bytes)
    }
}

impl From<&[u8]> for Data {
    fn from(bytes: &[u8]) -> Data {
        Data::Bytes(bytes.to_vec())
    }
}

const BLOCK: u64 = 1 << 20;

/// A source of pseudo-random bytes that can be read at any offset.
///
/// One block of 1 MiB is computed from the seed; the file repeats it, with the block's number
/// mixed into its first 8 bytes so that no two blocks are alike.
#[derive(Clone)]
pub struct Generator {
    size: u64,
    seed: u64,
    block: Arc<OnceLock<Vec<u8>>>,
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generator")
            .field("size", &self.size)
            .field("seed", &self.seed)
            .finish()
    }
}

/// MD5 sums of generated files by size and seed: hashing one takes a while in a debug build,
/// and many tests use the same ones.
static SUMS: LazyLock<Mutex<HashMap<(u64, u64), String>>> = LazyLock::new(|| {
    Mutex::new(HashMap::from([(
        crate::samples::BIG,
        crate::samples::BIG_MD5.to_string(),
    )]))
});

impl Generator {
    /// A file of `size` bytes.
    pub fn new(size: u64, seed: u64) -> Generator {
        Generator {
            size,
            seed,
            block: Arc::new(OnceLock::new()),
        }
    }

    /// The file's size.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn block(&self) -> &[u8] {
        self.block.get_or_init(|| {
            let mut state = self.seed ^ 0x9e37_79b9_7f4a_7c15;
            let mut block = Vec::with_capacity(BLOCK as usize);
            while block.len() < BLOCK as usize {
                block.extend_from_slice(&splitmix(&mut state).to_le_bytes());
            }
            block
        })
    }

    /// Up to `length` bytes from `offset` on; fewer at the end of the file.
    pub fn read_at(&self, offset: u64, length: usize) -> Bytes {
        let end = self.size.min(offset.saturating_add(length as u64));
        let mut out = BytesMut::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            let (number, start) = (at / BLOCK, (at % BLOCK) as usize);
            let stop = (BLOCK as usize).min(start + (end - at) as usize);
            let filled = out.len();
            out.extend_from_slice(&self.block()[start..stop]);
            if start < 8 {
                let mut mixed = number;
                let mixed = splitmix(&mut mixed).to_le_bytes();
                for (place, byte) in out[filled..].iter_mut().zip(&mixed[start..]) {
                    *place ^= byte;
                }
            }
            at += (stop - start) as u64;
        }
        out.freeze()
    }

    /// The MD5 of the whole file, in hex; computed once for each size and seed.
    pub fn md5(&self) -> String {
        if let Some(sum) = SUMS.lock().get(&(self.size, self.seed)) {
            return sum.clone();
        }
        let sum = self.compute_md5();
        SUMS.lock().insert((self.size, self.seed), sum.clone());
        sum
    }

    pub(crate) fn compute_md5(&self) -> String {
        let mut md5 = Md5::new();
        let mut at = 0;
        while at < self.size {
            let piece = self.read_at(at, BLOCK as usize);
            md5.update(&piece);
            at += piece.len() as u64;
        }
        hex(&md5.finalize())
    }
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The MD5 of some bytes, in hex.
pub fn md5_hex(bytes: &[u8]) -> String {
    hex(&Md5::digest(bytes))
}

/// A record or draft to be made without going through HTTP.
#[derive(Clone, Debug)]
pub struct NewRecord {
    pub(crate) metadata: Map<String, Value>,
    pub(crate) files: Vec<(String, Data)>,
    pub(crate) owner: String,
    pub(crate) files_enabled: Option<bool>,
    pub(crate) record_access: &'static str,
    pub(crate) file_access: &'static str,
    pub(crate) version_of: Option<String>,
    pub(crate) default_preview: Option<String>,
}

impl NewRecord {
    /// A public record of alice's with this title, and all other required metadata filled in.
    pub fn titled(title: &str) -> NewRecord {
        let metadata = json!({
            "title": title,
            "resource_type": {"id": "dataset"},
            "publication_date": "2024-05-17",
            "publisher": "Example Repository",
            "creators": [{"person_or_org": {
                "type": "personal", "family_name": "Carberry", "given_name": "Josiah",
                "identifiers": [{"scheme": "orcid", "identifier": "0000-0002-1825-0097"}]}}],
        });
        let Value::Object(metadata) = metadata else {
            unreachable!("an object is written above")
        };
        NewRecord {
            metadata,
            files: Vec::new(),
            owner: "alice".to_string(),
            files_enabled: None,
            record_access: "public",
            file_access: "public",
            version_of: None,
            default_preview: None,
        }
    }

    /// Adds a file.
    pub fn file(mut self, key: &str, data: impl Into<Data>) -> NewRecord {
        self.files.push((key.to_string(), data.into()));
        self
    }

    /// The user who owns it: `alice`, `bob` or `admin`.
    pub fn owner(mut self, user: &str) -> NewRecord {
        self.owner = user.to_string();
        self
    }

    /// Sets one field of the metadata, in the form the REST API takes; `null` removes it.
    pub fn metadata(mut self, field: &str, value: Value) -> NewRecord {
        if value.is_null() {
            self.metadata.remove(field);
        } else {
            self.metadata.insert(field.to_string(), value);
        }
        self
    }

    /// Sets the description, which is HTML.
    pub fn description(self, html: &str) -> NewRecord {
        self.metadata("description", json!(html))
    }

    /// Sets the creators: "Family, Given" each.
    pub fn creators(self, names: &[&str]) -> NewRecord {
        let creators = names.iter().map(|name| {
            let (family, given) = name.split_once(", ").unwrap_or((name, ""));
            let mut person = json!({"type": "personal", "family_name": family});
            if !given.is_empty() {
                person["given_name"] = json!(given);
            }
            json!({"person_or_org": person})
        });
        let creators = creators.collect();
        self.metadata("creators", creators)
    }

    /// Everybody sees the record, only its owner the files.
    pub fn restricted_files(mut self) -> NewRecord {
        self.file_access = "restricted";
        self
    }

    /// Only its owner sees the record.
    pub fn restricted(mut self) -> NewRecord {
        self.record_access = "restricted";
        self.file_access = "restricted";
        self
    }

    /// A record that has no files and never will (`files.enabled` false). A published record
    /// without files is one in any case, because the server publishes no other.
    pub fn metadata_only(mut self) -> NewRecord {
        self.files_enabled = Some(false);
        self
    }

    /// Makes it the next version of this record. Files of the earlier version are not taken over
    /// but for those with the same key and the same bytes, which keep their `file_id`.
    pub fn version_of(mut self, record: &str) -> NewRecord {
        self.version_of = Some(record.to_string());
        self
    }

    /// The file to be previewed first.
    pub fn default_preview(mut self, key: &str) -> NewRecord {
        self.default_preview = Some(key.to_string());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_file_reads_alike_in_any_pieces() {
        let file = Generator::new(2 * BLOCK + 100, 7);
        let whole = file.read_at(0, usize::MAX >> 1);
        assert_eq!(whole.len() as u64, file.size());
        for (offset, length) in [(0, 5), (3, 20), (BLOCK - 3, 10), (BLOCK + 5, 9), (2 * BLOCK, 500)] {
            let end = (offset as usize + length).min(whole.len());
            assert_eq!(file.read_at(offset, length), whole[offset as usize..end]);
        }
        assert_ne!(whole[..100], whole[BLOCK as usize..BLOCK as usize + 100]);
        assert_eq!(file.md5(), md5_hex(&whole));
    }

    #[test]
    fn the_sum_of_the_large_sample_is_right() {
        let (size, seed) = crate::samples::BIG;
        assert_eq!(Generator::new(size, seed).compute_md5(), crate::samples::BIG_MD5);
    }
}
