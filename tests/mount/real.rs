//! The mount against a real InvenioRDM, where one is named by `RDMFS_TEST_URL` and `RDMFS_TEST_TOKEN`.
//!
//! What is read is compared with what Python's own HTTP client downloads, what is written with what the API says.

use std::fs;
use std::path::Path;
use std::process::Command;

use rdmfs::repository::model::{FileEntry, FileStatus, RecordId};
use rdmfs::repository::{Repository, Settings, Token};
use serde_json::{Value, json};

use crate::support::{errno, how, names, noise, shell};

struct Real {
    url: String,
    token: String,
}

/// The real server, if there is one.
fn real() -> Option<Real> {
    let found = std::env::var("RDMFS_TEST_URL")
        .ok()
        .zip(std::env::var("RDMFS_TEST_TOKEN").ok());
    if found.is_none() {
        eprintln!("NOT RUN against a real server: set RDMFS_TEST_URL and RDMFS_TEST_TOKEN");
    }
    found.map(|(url, token)| Real { url, token })
}

impl Real {
    fn repository(&self) -> Repository {
        let token = Some(Token::new(&self.token).unwrap());
        Repository::connect(Settings {
            url: self.url.clone(),
            token,
            ..Settings::default()
        })
        .unwrap()
    }

    /// Every file of the user's published records, downloaded by somebody else: `{"id", "key", "sha256", "open"}`.
    fn downloads(&self) -> Vec<Value> {
        let output = Command::new("python3")
            .args(["-c", include_str!("real_download.py"), &self.url, &self.token])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg("--").arg(path).output().unwrap();
    assert!(
        output.status.success(),
        "{}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    // A name with a backslash in it makes sha256sum begin the line with one.
    String::from_utf8(output.stdout).unwrap().trim_start_matches('\\')[..64].to_owned()
}

#[test]
fn every_file_of_a_real_server_has_the_sha256_of_its_download() {
    let Some(real) = real() else { return };
    let downloads = real.downloads();
    assert!(!downloads.is_empty(), "the server has no records: seed it");
    let owner = how(&real.url).token(&real.token).start();
    for download in &downloads {
        let (id, key) = (
            download["id"].as_str().unwrap(),
            download["key"].as_str().unwrap(),
        );
        let path = owner.path(format!("records/{id}/files/{key}"));
        assert_eq!(sha256(&path), download["sha256"], "{id}: {key}");
        assert_eq!(
            fs::metadata(&path).unwrap().len(),
            download["size"].as_u64().unwrap(),
            "{id}: {key}"
        );
    }
    println!("{} files of a real server read", downloads.len());
    // Without a token: what is open reads the same, what is not is EACCES.
    let guest = how(&real.url).start();
    for download in &downloads {
        let (id, key) = (
            download["id"].as_str().unwrap(),
            download["key"].as_str().unwrap(),
        );
        let path = guest.path(format!("records/{id}/files/{key}"));
        if download["open"] == true {
            assert_eq!(sha256(&path), download["sha256"], "{id}: {key}");
        } else {
            assert_eq!(errno(fs::read(&path)), libc::EACCES, "{id}: {key}");
        }
    }
}

#[test]
fn a_folder_copied_to_a_real_server_is_committed_before_cp_returns() {
    let Some(real) = real() else { return };
    let repository = real.repository();
    let document = json!({"metadata": {"title": "A draft of the mount's tests"}, "files": {"enabled": true}});
    let draft = repository.create_draft(&document).unwrap().record.id;
    let mount = how(&real.url).token(&real.token).start();
    let source = mount.local("source");
    fs::create_dir_all(source.join("c/d")).unwrap();
    fs::write(source.join("a.bin"), noise(5_000_000, 1)).unwrap();
    fs::write(source.join("b.csv"), "x,y\n1,2\n").unwrap();
    fs::write(source.join("c/Größe ü.txt"), "unicode").unwrap();
    fs::write(source.join("c/d/100%#?.dat"), noise(70_000, 2)).unwrap();
    let folder = mount.path(format!("drafts/{draft}"));
    let (from, to) = (source.display(), folder.display());
    shell(&format!("cp {from}/a.bin {from}/b.csv {from}/c -r {to}/"));
    let keys = ["a.bin", "b.csv", "c/Größe ü.txt", "c/d/100%#?.dat"];
    assert_eq!(committed(&repository, &draft), expected(&source, &keys));

    fs::write(source.join("b.csv"), "x,y\n3,4\n5,6\n").unwrap();
    shell(&format!("cp {from}/b.csv {to}/b.csv"));
    assert_eq!(
        committed(&repository, &draft),
        expected(&source, &keys),
        "after the second cp"
    );

    shell(&format!("rm {to}/a.bin; rm -r {to}/c/d"));
    let left = ["b.csv", "c/Größe ü.txt"];
    assert_eq!(
        committed(&repository, &draft),
        expected(&source, &left),
        "after rm"
    );
    assert_eq!(
        fs::read(folder.join("b.csv")).unwrap(),
        fs::read(source.join("b.csv")).unwrap()
    );
    repository.delete_draft(&draft).unwrap();
}

/// Key, size and MD5 of all files of a draft, by the API.
fn committed(repository: &Repository, draft: &RecordId) -> Vec<(String, u64, String)> {
    let of = |file: FileEntry| {
        assert_eq!(file.status, FileStatus::Completed, "{}", file.key);
        (
            file.key.to_string(),
            file.size.unwrap(),
            file.md5.unwrap().to_string(),
        )
    };
    let mut files: Vec<_> = repository
        .draft_files(draft)
        .unwrap()
        .into_iter()
        .map(of)
        .collect();
    files.sort();
    files
}

/// The same of local files, by md5sum(1).
fn expected(source: &Path, keys: &[&str]) -> Vec<(String, u64, String)> {
    let of = |key: &&str| {
        let path = source.join(key);
        let sum = shell(&format!("md5sum < '{}'", path.display()));
        (
            (*key).to_owned(),
            fs::metadata(&path).unwrap().len(),
            sum[..32].to_owned(),
        )
    };
    let mut files: Vec<_> = keys.iter().map(of).collect();
    files.sort();
    files
}

#[test]
fn a_real_server_is_looked_around_in() {
    let Some(real) = real() else { return };
    let repository = real.repository();
    let stamp = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_micros();
    let word = format!("lookaround{stamp}");
    let publish = |draft: &RecordId, number: u32, doi: Option<&str>| {
        let mut document = json!({"files": {"enabled": false}, "access": {"record": "public", "files": "public"},
            "metadata": {"title": format!("About {word}"), "publication_date": "2026", "publisher": "Tests",
                "version": number.to_string(), "resource_type": {"id": "dataset"},
                "creators": [{"person_or_org": {"type": "personal", "given_name": "A", "family_name": "B"}}]}});
        if let Some(doi) = doi {
            document["pids"] = json!({"doi": {"identifier": doi, "provider": "external"}});
        }
        repository.update_draft(draft, &document, None).unwrap();
        repository.publish(draft).unwrap().id
    };
    let new = || {
        let document = json!({"metadata": {"title": word}, "files": {"enabled": false}});
        repository.create_draft(&document).unwrap().record.id
    };
    let first = publish(&new(), 1, None);
    let second = publish(&repository.new_version(&first).unwrap().id, 2, None);
    let slashes = format!("10.48436/{word}/b/c");
    let third = publish(&new(), 1, Some(&slashes));
    let mount = how(&real.url)
        .token(&real.token)
        .arguments(&["--metadata-ttl", "1s", "--draft-ttl", "1s"])
        .start();
    let search = mount.path("search").join(&word);
    // The index lags.
    crate::support::until("they are found", || names(&search).len() == 2);
    let mut expected = [second.to_string(), third.to_string()];
    expected.sort();
    assert_eq!(names(&search), expected);
    assert_eq!(
        names(&mount.path(format!("search/?q={word}&allversions=true"))).len(),
        3
    );
    assert_eq!(
        errno(fs::read_dir(mount.path("search/?sort=nonsense"))),
        libc::EINVAL
    );

    let versions = mount.path(format!("records/{first}/versions"));
    assert_eq!(names(&versions), ["1", "2", "latest"]);
    assert_eq!(
        fs::read_link(versions.join("latest")).unwrap(),
        Path::new("../..").join(second.as_str())
    );
    assert_eq!(
        fs::canonicalize(versions.join("1")).unwrap(),
        fs::canonicalize(mount.path(format!("records/{first}"))).unwrap()
    );

    let exports = mount.path(format!("records/{second}/exports"));
    assert!(names(&exports).len() > 5);
    for name in names(&exports) {
        let file = fs::File::open(exports.join(&name)).unwrap();
        let size = file.metadata().unwrap().len();
        assert!(size > 0);
        assert_eq!(
            fs::read(exports.join(&name)).unwrap().len() as u64,
            size,
            "{name}"
        );
    }

    let record = repository.record(&second).unwrap();
    let link = mount.path("doi").join(record.doi().unwrap());
    assert_eq!(
        fs::read_link(&link).unwrap(),
        Path::new(&format!("../../records/{second}"))
    );
    assert_eq!(
        fs::read_link(mount.path("doi").join(&slashes)).unwrap(),
        Path::new(&format!("../../../../records/{third}"))
    );
    assert_eq!(
        errno(fs::metadata(mount.path("doi/10.5072/nothing"))),
        libc::ENOENT
    );

    crate::support::until("they are the user's", || {
        let own = mount.path("user/records");
        fs::symlink_metadata(own.join(second.as_str())).is_ok()
    });
    assert!(names(&mount.path("vocabularies")).contains(&"languages".to_owned()));
    for kind in ["languages", "subjects", "resourcetypes"] {
        let folder = mount.path("vocabularies").join(kind);
        for name in names(&folder) {
            let document: Value = serde_json::from_slice(&fs::read(folder.join(&name)).unwrap()).unwrap();
            let id = document["id"].as_str().unwrap();
            assert_eq!(
                name,
                format!("{}.json", id.replace('%', "%25").replace('/', "%2F"))
            );
        }
    }
    assert_eq!(
        errno(fs::metadata(mount.path("communities/no-such-community"))),
        libc::ENOENT
    );
    for slug in names(&mount.path("communities")).iter().take(3) {
        let text = fs::read(mount.path("communities").join(slug).join("community.json")).unwrap();
        let document: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(document["slug"], **slug);
        fs::read_dir(mount.path("communities").join(slug).join("records"))
            .unwrap()
            .for_each(|entry| drop(entry.unwrap()));
    }
}
