//! The server under test, and what the tests put there.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use rdm_sandbox::{Flavour, Options, Sandbox};
use rdmfs::error::Result;
use rdmfs::repository::model::{FileEntry, FilePlace, Md5, Owner, RecordId};
use rdmfs::repository::{Check, Download, Limits, Repository, Settings, Token, Upload};
use serde_json::{Value, json};

/// A repository, seen by its owner of things, by another user and by a guest.
pub struct Server {
    pub owner: Repository,
    pub other: Option<Repository>,
    pub guest: Repository,
    pub url: String,
    /// Set on the sandbox.
    pub sandbox: Option<Sandbox>,
}

impl Server {
    pub fn sandbox() -> Server {
        Server::of(Sandbox::start())
    }

    /// One of a certain kind.
    pub fn sandbox_of(flavour: Flavour) -> Server {
        let options = Options {
            knobs: flavour.knobs(),
            ..Options::default()
        };
        Server::of(Sandbox::start_with(options))
    }

    fn of(sandbox: Sandbox) -> Server {
        let url = sandbox.url();
        Server {
            owner: connect(&url, Some(rdm_sandbox::ALICE)),
            other: Some(connect(&url, Some(rdm_sandbox::BOB))),
            guest: connect(&url, None),
            url,
            sandbox: Some(sandbox),
        }
    }

    /// `None` if none is given, which is said once, past the test harness's capture.
    pub fn real() -> Option<Server> {
        static SAID: Once = Once::new();
        Server::real_at("RDMFS_TEST", &SAID)
    }

    /// One where drafts are curated; the other user is a reviewer. `None` if none is given.
    pub fn real_that_curates() -> Option<Server> {
        static SAID: Once = Once::new();
        Server::real_at("RDMFS_TEST_CURATIONS", &SAID).filter(|server| server.other.is_some())
    }

    fn real_at(prefix: &str, said: &Once) -> Option<Server> {
        let variable = |name: &str| {
            std::env::var(format!("{prefix}_{name}"))
                .ok()
                .filter(|value| !value.is_empty())
        };
        let (Some(url), Some(token)) = (variable("URL"), variable("TOKEN")) else {
            said.call_once(|| {
                let _ = writeln!(
                    std::io::stderr(),
                    "\nNOT RUN against a real server: set {prefix}_URL and {prefix}_TOKEN (and _TOKEN_OTHER)"
                );
            });
            return None;
        };
        said.call_once(|| {
            let _ = writeln!(std::io::stderr(), "\nrun against the real server at {url}");
        });
        Some(Server {
            owner: connect(&url, Some(&token)),
            other: variable("TOKEN_OTHER").map(|token| connect(&url, Some(&token))),
            guest: connect(&url, None),
            url,
            sandbox: None,
        })
    }

    /// Another user; without one, a guest, to whom the same is forbidden.
    pub fn stranger(&self) -> &Repository {
        self.other.as_ref().unwrap_or(&self.guest)
    }

    /// A draft with these files, committed.
    pub fn draft(&self, title: &str, files: &[(&str, &[u8])]) -> RecordId {
        self.draft_like(&document(title), files)
    }

    /// A draft that lacks all that publishing asks for but a title and a file.
    pub fn draft_with_a_title_alone(&self) -> RecordId {
        let document = json!({"metadata": {"title": "Only a title"}});
        let id = self.owner.create_draft(&document).unwrap().record.id;
        self.add(&id, "a", b"1").unwrap();
        id
    }

    pub fn draft_like(&self, document: &Value, files: &[(&str, &[u8])]) -> RecordId {
        let saved = self.owner.create_draft(document).unwrap();
        assert_eq!(saved.problems, []);
        let id = saved.record.id;
        for (key, content) in files {
            self.add(&id, key, content).unwrap();
        }
        id
    }

    /// A published record with these files.
    pub fn record(&self, title: &str, files: &[(&str, &[u8])]) -> RecordId {
        let id = self.draft(title, files);
        self.owner.publish(&id).unwrap();
        id
    }

    /// What is still in the way of publishing a draft.
    pub fn check(&self, id: &RecordId) -> Check {
        let draft = self.owner.draft(id).unwrap();
        self.owner.check_draft(draft).unwrap()
    }

    /// Start, PUT, commit.
    pub fn add(&self, id: &RecordId, key: &str, content: &[u8]) -> Result<FileEntry> {
        self.owner.start_files(id, &[key])?;
        let md5 = self.put(id, key, content)?;
        let entry = self.owner.commit_file(id, key)?;
        assert_eq!(entry.md5, Some(md5));
        Ok(entry)
    }

    pub fn put(&self, id: &RecordId, key: &str, content: &[u8]) -> Result<Md5> {
        put(&self.owner, id, key, content)
    }
}

pub fn connect(url: &str, token: Option<&str>) -> Repository {
    Repository::connect(Settings {
        url: url.to_owned(),
        token: token.map(|text| Token::new(text).unwrap()),
        limits: Limits {
            first_pause: Duration::from_millis(20),
            ..Limits::default()
        },
        ..Settings::default()
    })
    .unwrap()
}

pub fn put(repository: &Repository, id: &RecordId, key: &str, content: &[u8]) -> Result<Md5> {
    let upload = Upload {
        file: &file_with(content),
        size: content.len() as u64,
        progress: &|_| (),
        cancelled: &AtomicBool::new(false),
    };
    repository.put_content(id, key, upload)
}

pub fn file_with(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

/// What a draft needs to be published.
pub fn document(title: &str) -> Value {
    json!({
        "access": {"record": "public", "files": "public"},
        "files": {"enabled": true},
        "metadata": {
            "title": title,
            "resource_type": {"id": "dataset"},
            "creators": [{"person_or_org": {"type": "personal", "family_name": "Curie", "given_name": "Marie"}}],
            "publication_date": "2024-05-17",
            "publisher": "rdmfs",
        },
    })
}

pub fn of_record(id: &RecordId, key: &str) -> FilePlace {
    FilePlace {
        owner: Owner::Record(id.clone()),
        key: key.into(),
    }
}

pub fn of_draft(id: &RecordId, key: &str) -> FilePlace {
    FilePlace {
        owner: Owner::Draft(id.clone()),
        key: key.into(),
    }
}

pub fn bytes_of(mut download: Download) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = download.next().unwrap() {
        all.extend_from_slice(&piece);
    }
    all
}

/// Whether this is a real server of version 12, which `RDMFS_TEST_VERSION=12` says.
pub fn is_real_twelve(server: &Server) -> bool {
    server.sandbox.is_none() && std::env::var("RDMFS_TEST_VERSION").is_ok_and(|text| text == "12")
}

/// Holds off other tests that must not run at the same time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Searches show a change after about a second.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(15), "never: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A title that no other test and no run before has.
pub fn unique(name: &str) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    format!("{name}{:x}", now.as_nanos())
}
