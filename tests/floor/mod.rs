//! What the tests of the content floor share: generated files of a record of the sandbox, as the store is asked for them.

use std::path::PathBuf;

use rdm_sandbox::Generator;
use rdmfs::content::{Identity, Settings};
use rdmfs::repository::model::{FilePlace, Md5, Owner, RecordId};

/// A store with room enough for any test.
pub fn settings(directory: PathBuf) -> Settings {
    Settings {
        directory,
        limit: 1 << 30,
        keep_free: 0.0,
        connections: 4,
        window: 32 << 20,
        memory: 128 << 20,
        is_private: false,
    }
}

/// Where a file of a record is.
pub fn place(record: &str, key: &str) -> FilePlace {
    FilePlace {
        owner: Owner::Record(RecordId::new(record).unwrap_or_else(|| panic!("{record}"))),
        key: key.into(),
    }
}

/// What a file is known by.
pub fn identity(file: &Generator) -> Identity {
    Identity::Md5 {
        md5: Md5::from_hex(&file.md5()).unwrap(),
        size: file.size(),
    }
}
