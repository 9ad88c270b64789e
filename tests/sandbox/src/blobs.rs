//! Stored bytes: on disk when uploaded, in memory or generated when put there by a test.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::data::{Data, Generator, md5_hex};

/// The bytes of one file, which never change. Shared by the versions that hold them.
pub(crate) struct Blob {
    /// The `file_id`, and the path at the second origin.
    pub id: String,
    pub size: u64,
    /// The MD5 in hex.
    pub md5: String,
    source: Source,
}

enum Source {
    Memory(Bytes),
    Generated(Generator),
    Disk(PathBuf),
    /// Belongs to somebody else and is only read.
    Lent(PathBuf),
}

impl Blob {
    /// Takes bytes in. Hashing them may take a while.
    pub fn of(id: String, data: Data) -> Blob {
        let size = data.size();
        match data {
            Data::Bytes(bytes) => {
                let md5 = md5_hex(&bytes);
                Blob {
                    id,
                    size,
                    md5,
                    source: Source::Memory(bytes.into()),
                }
            }
            Data::Generated(generator) => {
                let md5 = generator.md5();
                Blob {
                    id,
                    size,
                    md5,
                    source: Source::Generated(generator),
                }
            }
            Data::Lent { path, size, md5 } => Blob {
                id,
                size,
                md5,
                source: Source::Lent(path),
            },
        }
    }

    /// Takes over a file written in the data directory.
    pub fn on_disk(id: String, path: PathBuf, size: u64, md5: String) -> Blob {
        Blob {
            id,
            size,
            md5,
            source: Source::Disk(path),
        }
    }

    pub fn open(&self) -> io::Result<Reader> {
        Ok(match &self.source {
            Source::Memory(bytes) => Reader::Memory(bytes.clone()),
            Source::Generated(generator) => Reader::Generated(generator.clone()),
            Source::Disk(path) | Source::Lent(path) => Reader::Disk(File::open(path)?),
        })
    }

    /// All of it, for tests to look at.
    pub fn bytes(&self) -> io::Result<Bytes> {
        self.open()?.read_at(0, self.size as usize)
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        if let Source::Disk(path) = &self.source {
            // The directory may be gone already, when the sandbox itself is being dropped.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// An open blob.
pub(crate) enum Reader {
    Memory(Bytes),
    Generated(Generator),
    Disk(File),
}

impl Reader {
    /// Reads `length` bytes at `offset`; the caller keeps to the blob's size.
    pub fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        match self {
            Reader::Memory(bytes) => {
                let start = bytes.len().min(offset as usize);
                Ok(bytes.slice(start..bytes.len().min(start + length)))
            }
            Reader::Generated(generator) => Ok(generator.read_at(offset, length)),
            Reader::Disk(file) => {
                let mut piece = vec![0; length];
                file.read_exact_at(&mut piece, offset)?;
                Ok(piece.into())
            }
        }
    }
}

/// The directory uploads are written to.
pub(crate) enum DataDir {
    Temporary(tempfile::TempDir),
    Given(PathBuf),
}

impl DataDir {
    pub fn new(given: Option<PathBuf>) -> io::Result<DataDir> {
        match given {
            Some(path) => {
                std::fs::create_dir_all(&path)?;
                Ok(DataDir::Given(path))
            }
            None => Ok(DataDir::Temporary(
                tempfile::Builder::new().prefix("rdm-sandbox-").tempdir()?,
            )),
        }
    }

    pub fn path(&self) -> &Path {
        match self {
            DataDir::Temporary(dir) => dir.path(),
            DataDir::Given(path) => path,
        }
    }
}
