//! `md5sums.txt` of a record, and that md5sum(1) itself agrees with it.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use rdm_sandbox::{Data, NewRecord, Route, Sandbox};

use crate::support::{errno, how, mount, names, shell};

/// Keys that shells, md5sum or URLs care about; some can't be shown as they are.
const HOSTILE: &[&str] = &[
    "plain.csv",
    "with  two spaces.txt",
    " lead",
    "trail ",
    "back\\slash.txt",
    "dir\\with/back\\slash",
    "return\rand\ttab",
    "Größe 日本語.txt",
    "-n",
    "*",
    "a",
    "a/b",
    "d/e/f.txt",
    "quote\"'`$(x).txt",
    "100%.txt",
];

#[test]
fn md5sum_accepts_the_list_of_a_record_whatever_its_files_are_called() {
    let sandbox = Sandbox::start();
    let record = HOSTILE.iter().fold(NewRecord::titled("Names"), |record, key| {
        record.file(key, Data::text(format!("of {key}")))
    });
    let id = sandbox.publish(record);
    let mount = mount(&sandbox);
    let folder = mount.path("records").join(&id);
    let said = shell(&format!(
        "cd {}/files && LC_ALL=C md5sum -c --strict ../md5sums.txt",
        folder.display()
    ));
    assert_eq!(said.lines().count(), HOSTILE.len(), "{said}");
    assert!(said.lines().all(|line| line.ends_with(": OK")), "{said}");
    // It is what md5sum itself would write.
    let own = shell(&format!(
        "cd {}/files && find . -type f -printf '%P\\0' | LC_ALL=C xargs -0 md5sum -- | LC_ALL=C sort",
        folder.display()
    ));
    let mut listed: Vec<String> = fs::read_to_string(folder.join("md5sums.txt"))
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    listed.sort();
    assert_eq!(own.lines().collect::<Vec<_>>(), listed);
}

#[test]
fn the_size_of_the_list_is_known_before_it_is_opened_and_costs_the_list_of_files_at_most() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1").file("b/c", "22"));
    let mount = mount(&sandbox);
    sandbox.reset_counts();
    let path = mount.path("records").join(&id).join("md5sums.txt");
    let size = fs::metadata(&path).unwrap().len();
    let text = fs::read(&path).unwrap();
    assert_eq!(size, text.len() as u64);
    assert_eq!(size, 2 * 35 + "a".len() as u64 + "b/c".len() as u64);
    assert!(sandbox.total() <= 2, "{:?}", sandbox.counts());
    assert_eq!(sandbox.count(Route::Content), 0);
}

#[test]
fn listing_a_record_does_not_ask_for_its_list_of_files() {
    let sandbox = Sandbox::start();
    sandbox.knobs(|knobs| knobs.unlisted_files = true);
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1").file("b/c", "22"));
    let mount = mount(&sandbox);
    let folder = mount.path("records").join(&id);
    // Whether there are archives is not known without it.
    assert_eq!(
        names(&folder),
        [
            "archives",
            "exports",
            "files",
            "md5sums.txt",
            "record.json",
            "versions"
        ]
    );
    assert_eq!(sandbox.count(Route::RecordFiles), 0, "{:?}", sandbox.counts());
    // Who wants to know the size is told it.
    let path = folder.join("md5sums.txt");
    assert_eq!(fs::metadata(&path).unwrap().len(), 2 * 35 + 4);
    assert_eq!(fs::read(&path).unwrap().len(), 2 * 35 + 4);
    assert_eq!(sandbox.count(Route::RecordFiles), 1, "{:?}", sandbox.counts());
}

#[test]
fn the_list_and_the_extended_attribute_agree() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = mount(&sandbox);
    let folder = mount.path("records").join(&id);
    let text = fs::read_to_string(folder.join("md5sums.txt")).unwrap();
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(
        folder.join("files/a").as_os_str().as_bytes(),
        "user.rdm.checksum",
        &mut value,
    )
    .unwrap();
    let label = std::str::from_utf8(&value[..length]).unwrap();
    assert_eq!(
        Some(label),
        text.split(' ').next().map(|md5| format!("md5:{md5}")).as_deref()
    );
}

#[test]
fn the_list_cannot_be_written_and_drafts_have_none() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = mount(&sandbox);
    let path = mount.path("records").join(&id).join("md5sums.txt");
    assert_eq!(errno(fs::write(&path, "x")), libc::EROFS);
    assert_eq!(errno(fs::remove_file(&path)), libc::EROFS);
    let of_draft = mount.path("drafts").join(&draft).join("md5sums.txt");
    assert_eq!(errno(fs::read(of_draft)), libc::ENOENT);
}

#[test]
fn the_list_of_restricted_files_is_there_and_denied() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(
        NewRecord::titled("Hidden")
            .restricted_files()
            .owner("bob")
            .file("a", "1"),
    );
    let mount = how(&sandbox.url()).start();
    let folder = mount.path("records").join(&id);
    assert_eq!(fs::metadata(folder.join("md5sums.txt")).unwrap().len(), 0);
    assert_eq!(errno(fs::read(folder.join("md5sums.txt"))), libc::EACCES);
    assert!(fs::read(folder.join("record.json")).is_ok());
}
