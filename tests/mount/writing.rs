//! Writing to drafts.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use rdm_sandbox::{NewRecord, Route, Sandbox};

use crate::support::{draft, errno, mount, names, noise, shell, stored};

#[test]
fn a_closed_file_is_committed_with_its_bytes_before_close_returns() {
    let (sandbox, draft, mount) = draft();
    for (name, size) in [("small", 5), ("odd", 1_000_003), ("large", 20_000_000)] {
        let bytes = noise(size, 3);
        fs::write(mount.path(format!("drafts/{draft}/{name}")), &bytes).unwrap();
        assert!(stored(&sandbox, &draft, name).unwrap() == bytes, "{name}");
    }
    assert!(mount.status().uploads.is_empty());
}

#[test]
fn a_folder_is_a_part_of_the_key() {
    let (sandbox, draft, mount) = draft();
    let folder = mount.path(format!("drafts/{draft}/c"));
    fs::create_dir(&folder).unwrap();
    assert_eq!(errno(fs::create_dir(&folder)), libc::EEXIST);
    assert!(names(&folder).is_empty());
    fs::create_dir(folder.join("d")).unwrap();
    fs::write(folder.join("d/b.csv"), "1").unwrap();
    assert_eq!(sandbox.draft_keys(&draft), ["c/d/b.csv"]);
    assert_eq!(names(&folder), ["d"]);
    assert_eq!(errno(fs::remove_dir(folder.join("d"))), libc::ENOTEMPTY);
    fs::remove_file(folder.join("d/b.csv")).unwrap();
    assert!(folder.join("d").is_dir(), "the folder stays until it is removed");
    fs::remove_dir(folder.join("d")).unwrap();
    fs::remove_dir(&folder).unwrap();
    assert_eq!(names(&mount.path(format!("drafts/{draft}"))), ["record.json"]);
}

#[test]
fn writing_over_a_file_replaces_it() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    fs::write(&path, "the first, which is longer").unwrap();
    fs::write(&path, "the second").unwrap();
    assert_eq!(stored(&sandbox, &draft, "a").unwrap(), b"the second");
    assert_eq!(fs::read(&path).unwrap(), b"the second");
    assert_eq!(sandbox.draft_keys(&draft), ["a"]);
}

#[test]
fn the_same_bytes_again_are_not_sent_again() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    fs::write(&path, "the same").unwrap();
    sandbox.reset_counts();
    fs::write(&path, "the same").unwrap();
    assert_eq!(sandbox.count(Route::PutContent), 0, "{:?}", sandbox.counts());
    assert_eq!(stored(&sandbox, &draft, "a").unwrap(), b"the same");
}

#[test]
fn writes_in_any_order_are_kept() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    let bytes = noise(700_000, 6);
    let file = File::create(&path).unwrap();
    for start in [400_000, 0, 650_000, 100_000, 500_000, 399_999] {
        let end = (start + 120_000).min(bytes.len());
        file.write_all_at(&bytes[start..end], start as u64).unwrap();
    }
    file.write_all_at(&bytes, 0).unwrap();
    file.write_all_at(b"header again", 0).unwrap();
    drop(file);
    let mut expected = bytes;
    expected[..12].copy_from_slice(b"header again");
    assert!(stored(&sandbox, &draft, "a").unwrap() == expected);
}

#[test]
fn a_hole_reads_as_zeros() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    let file = File::create(&path).unwrap();
    file.write_all_at(b"end", 1_000_000).unwrap();
    drop(file);
    let bytes = stored(&sandbox, &draft, "a").unwrap();
    assert_eq!(bytes.len(), 1_000_003);
    assert!(bytes[..1_000_000].iter().all(|byte| *byte == 0));
}

#[test]
fn appending_keeps_what_was_there() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/log"));
    shell(&format!(
        "echo one > {0}; echo two >> {0}; echo three >> {0}",
        path.display()
    ));
    assert_eq!(stored(&sandbox, &draft, "log").unwrap(), b"one\ntwo\nthree\n");
}

#[test]
fn a_file_the_server_has_can_be_changed_in_part() {
    let sandbox = Sandbox::start();
    let bytes = noise(1_500_000, 2);
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", bytes.clone()));
    let mount = mount(&sandbox);
    let path = mount.path(format!("drafts/{draft}/a"));
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.write_all_at(b"changed", 700_000).unwrap();
    drop(file);
    let mut expected = bytes;
    expected[700_000..700_007].copy_from_slice(b"changed");
    assert!(stored(&sandbox, &draft, "a").unwrap() == expected);
}

#[test]
fn opening_to_write_and_not_writing_sends_nothing() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", "1"));
    let mount = mount(&sandbox);
    sandbox.reset_counts();
    let path = mount.path(format!("drafts/{draft}/a"));
    drop(OpenOptions::new().read(true).write(true).open(&path).unwrap());
    mount.wait_for("nothing staged", |status| status.uploads.is_empty());
    let written: Vec<_> = sandbox
        .requests()
        .into_iter()
        .filter(|request| request.method != "GET")
        .collect();
    assert!(written.is_empty(), "{written:?}");
    assert_eq!(fs::read(&path).unwrap(), b"1");
}

#[test]
fn truncation_goes_both_ways() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    let file = File::create(&path).unwrap();
    file.write_all_at(&noise(100_000, 1), 0).unwrap();
    file.set_len(10).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10);
    file.set_len(20).unwrap();
    drop(file);
    let mut expected = noise(10, 1);
    expected.extend([0; 10]);
    assert_eq!(stored(&sandbox, &draft, "a").unwrap(), expected);
}

#[test]
fn truncating_a_closed_file_is_a_write_of_its_own() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    fs::write(&path, "0123456789").unwrap();
    shell(&format!("truncate -s 4 {}", path.display()));
    mount.wait_for("the upload ends", |status| status.uploads.is_empty());
    assert_eq!(stored(&sandbox, &draft, "a").unwrap(), b"0123");
    assert_eq!(fs::metadata(&path).unwrap().len(), 4);
}

#[test]
fn what_is_written_is_read_back_before_it_is_sent() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .unwrap();
    file.write_all(&noise(300_000, 5)).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut back = Vec::new();
    file.read_to_end(&mut back).unwrap();
    assert!(back == noise(300_000, 5));
    // By another handle too, with its size.
    assert_eq!(fs::metadata(&path).unwrap().len(), 300_000);
    assert!(fs::read(&path).unwrap() == back);
    assert_eq!(sandbox.count(Route::PutContent), 0);
}

#[test]
fn a_mapped_file_can_be_written() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    shell(&format!(
        "python3 -c '
import mmap
with open(\"{}\", \"w+b\") as f:
    f.truncate(1000000)
    m = mmap.mmap(f.fileno(), 1000000)
    m[0:5] = b\"start\"
    m[999995:] = b\"ended\"
    m.close()
'",
        path.display()
    ));
    // The kernel writes mapped pages back after close; RELEASE sends them.
    mount.wait_for("the upload ends", |status| status.uploads.is_empty());
    let bytes = stored(&sandbox, &draft, "a").unwrap();
    assert_eq!(bytes.len(), 1_000_000);
    assert_eq!(&bytes[..5], b"start");
    assert_eq!(&bytes[999_995..], b"ended");
}

#[test]
fn removing_a_file_removes_it_on_the_server() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    fs::write(&path, "1").unwrap();
    fs::remove_file(&path).unwrap();
    assert!(sandbox.draft_keys(&draft).is_empty());
    assert_eq!(errno(fs::metadata(&path)), libc::ENOENT);
    assert_eq!(errno(fs::remove_file(&path)), libc::ENOENT);
}

#[test]
fn a_file_removed_while_open_is_never_sent_and_stays_readable() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.write_all(b"short-lived").unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all(b", but here").unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut back = String::new();
    file.read_to_string(&mut back).unwrap();
    assert_eq!(back, "short-lived, but here");
    // A new file of that name is another one.
    fs::write(&path, "new").unwrap();
    drop(file);
    mount.wait_for("the handle is released", |status| status.uploads.is_empty());
    assert_eq!(stored(&sandbox, &draft, "a").unwrap(), b"new");
    assert_eq!(sandbox.count(Route::PutContent), 1);
}

#[test]
fn removing_a_whole_folder_works() {
    let (sandbox, draft, mount) = draft();
    let folder = mount.path(format!("drafts/{draft}/c"));
    shell(&format!(
        "mkdir -p {0}/d/e; echo 1 > {0}/a; echo 2 > {0}/d/e/b; rm -r {0}",
        folder.display()
    ));
    assert!(!folder.exists());
    mount.wait_for("all is settled", |status| status.uploads.is_empty());
    assert!(sandbox.draft_keys(&draft).is_empty());
}

#[test]
fn creating_what_exists_is_eexist_only_if_asked_to() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    fs::write(&path, "1").unwrap();
    assert_eq!(
        errno(OpenOptions::new().write(true).create_new(true).open(&path)),
        libc::EEXIST
    );
    drop(
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .unwrap(),
    );
    assert_eq!(stored(&sandbox, &draft, "a").unwrap(), b"1");
}

#[test]
fn names_that_no_key_can_have_are_refused_before_anything_is_sent() {
    let (sandbox, draft, mount) = draft();
    let folder = mount.path(format!("drafts/{draft}"));
    sandbox.reset_counts();
    assert_eq!(errno(File::create(folder.join("a\nb"))), libc::EINVAL);
    fs::create_dir(folder.join("d".repeat(200))).unwrap();
    let long = folder.join("d".repeat(200)).join("f".repeat(100));
    assert_eq!(errno(File::create(long)), libc::ENAMETOOLONG);
    let bytes = std::os::unix::ffi::OsStrExt::from_bytes(b"no utf-8 \xff");
    let no_text: &std::ffi::OsStr = bytes;
    assert_eq!(errno(File::create(folder.join(no_text))), libc::EINVAL);
    assert_eq!(sandbox.count(Route::StartFiles), 0);
}

#[test]
fn modes_and_times_are_accepted() {
    let (_sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    fs::write(mount.local("source"), "1").unwrap();
    shell(&format!(
        "touch -d 2020-01-02 {0}; cp -p {0} {1}",
        mount.local("source").display(),
        path.display()
    ));
    shell(&format!(
        "chmod 644 {0}; touch {0}; chown $(id -u) {0}",
        path.display()
    ));
    assert_eq!(fs::read(&path).unwrap(), b"1");
}

#[test]
fn staged_bytes_and_journal_are_on_disk_when_close_returns() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = crate::support::how(&sandbox.url())
        .token(rdm_sandbox::ALICE)
        .arguments(&["--close-wait", "0s"])
        .start();
    // The server does not answer: what close() promises can't be its doing.
    sandbox.fault(rdm_sandbox::Fault::on(Route::StartFiles).then(rdm_sandbox::Effect::Stall));
    fs::write(mount.path(format!("drafts/{draft}/a")), "precious").unwrap();
    let staging = mount.status().staging;
    let entries: Vec<_> = fs::read_dir(staging.join("journal")).unwrap().collect();
    assert_eq!(entries.len(), 1);
    let entry: serde_json::Value =
        serde_json::from_slice(&fs::read(entries[0].as_ref().unwrap().path()).unwrap()).unwrap();
    assert_eq!(entry["key"], "a");
    assert_eq!(entry["state"], "closed");
    let data = staging
        .join("data")
        .join(format!("{}-{}", entry["id"], entry["generation"]));
    assert_eq!(fs::read(&data).unwrap(), b"precious");
    // Readable by the user alone.
    for path in [&data, &staging] {
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(path).unwrap());
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
}

#[test]
fn a_file_with_a_name_that_probes_have_is_appended_to_and_not_replaced() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file(".gitignore", "one\n"));
    let mount = mount(&sandbox);
    let path = mount.path("drafts").join(&draft).join(".gitignore");
    shell(&format!("echo two >> {}", path.display()));
    assert_eq!(stored(&sandbox, &draft, ".gitignore").unwrap(), b"one\ntwo\n");
}
