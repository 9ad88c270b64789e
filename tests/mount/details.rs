//! What programs meet less often: attributes, changes of what can't be changed, and calls that are not there.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use rdm_sandbox::{ADMIN, ALICE, BOB, Effect, Fault, NewRecord, Route, Sandbox};
use rdmfs::repository::model::{RecordId, parse_time};
use rustix::fs::{
    CWD, FallocateFlags, FileType, FlockOperation, Mode, fallocate, fcntl_lock, flock, mknodat, statvfs,
};

use crate::support::{
    Mount, close, elsewhere, errno, how, mount, names, noise, settled, shell, stored, until,
};

fn draft() -> (Sandbox, String, Mount) {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", "committed"));
    let mount = mount(&sandbox);
    (sandbox, draft, mount)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// truncate(2), which does not open the file.
fn truncate(path: &Path, size: i64) -> std::io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path ends with a zero byte and outlives the call.
    match unsafe { libc::truncate(path.as_ptr(), size) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[test]
fn modes_say_who_may_do_what() {
    let sandbox = Sandbox::start();
    let samples = sandbox.seed_samples();
    let (open, closed, draft) = (&samples.csv, &samples.restricted, &samples.draft);
    let writable = mount(&sandbox);
    for (path, expected) in [
        (String::new(), 0o555),
        ("records".to_owned(), 0o555),
        ("drafts".to_owned(), 0o700),
        (".rdmfs".to_owned(), 0o500),
        (".rdmfs/status.json".to_owned(), 0o400),
        (".rdmfs/control".to_owned(), 0o600),
        (format!("records/{open}"), 0o555),
        (format!("records/{open}/record.json"), 0o444),
        (format!("records/{open}/files"), 0o555),
        (format!("records/{open}/files/README.md"), 0o444),
        (format!("records/{closed}"), 0o500),
        (format!("records/{closed}/files"), 0o500),
        (format!("records/{closed}/files/secret.bin"), 0o400),
        (format!("records/{}", samples.concept_of_three), 0o777),
        (format!("drafts/{draft}"), 0o700),
        (format!("drafts/{draft}/record.json"), 0o600),
        (format!("drafts/{draft}/draft.txt"), 0o600),
    ] {
        assert_eq!(mode(&writable.path(&path)), expected, "{path}");
    }
    let read_only = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--read-only"])
        .start();
    for (path, expected) in [
        ("drafts".to_owned(), 0o500),
        (format!("drafts/{draft}"), 0o500),
        (format!("drafts/{draft}/draft.txt"), 0o400),
    ] {
        assert_eq!(mode(&read_only.path(&path)), expected, "{path}, read-only");
    }
}

#[test]
fn all_times_of_a_thing_are_one_and_folders_have_size_0() {
    let (sandbox, draft, mount) = draft();
    let id = sandbox.publish(NewRecord::titled("Snow").file("d/a", "12345"));
    let text = fs::read(mount.path(format!("records/{id}/record.json"))).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let text = fs::read(mount.path(format!("drafts/{draft}/record.json"))).unwrap();
    let draft_record: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let time = |document: &serde_json::Value, name: &str| parse_time(document[name].as_str().unwrap());
    let files = elsewhere(&sandbox)
        .draft_files(&RecordId::new(&draft).unwrap())
        .unwrap();
    for (path, expected) in [
        (format!("records/{id}"), time(&record, "updated")),
        (format!("records/{id}/files"), time(&record, "created")),
        (format!("records/{id}/files/d"), time(&record, "created")),
        (format!("records/{id}/files/d/a"), time(&record, "created")),
        (format!("drafts/{draft}"), time(&draft_record, "updated")),
        (format!("drafts/{draft}/a"), files[0].updated),
    ] {
        let found = fs::metadata(mount.path(&path)).unwrap();
        assert_eq!(found.modified().unwrap(), expected.unwrap(), "{path}");
        assert_eq!((found.atime(), found.ctime()), (found.mtime(), found.mtime()));
        assert_eq!((found.nlink(), found.blksize()), (1, 128 << 10), "{path}");
        assert_eq!(found.uid(), rustix::process::geteuid().as_raw());
        assert!(found.is_file() || found.size() == 0, "{path}");
    }
    let root = fs::metadata(mount.path("")).unwrap().modified().unwrap();
    for path in ["records", "drafts", ".rdmfs"] {
        let found = fs::metadata(mount.path(path)).unwrap().modified().unwrap();
        assert_eq!(found, root, "{path}: the time of mounting");
    }
    assert!(root <= SystemTime::now());
}

#[test]
fn the_room_is_that_of_the_disk_with_the_staged_files() {
    let (_sandbox, _, mount) = draft();
    let here = statvfs(mount.path("drafts")).unwrap();
    let disk = statvfs(&mount.status().staging).unwrap();
    assert_eq!(
        here.f_blocks * here.f_frsize / 4096,
        disk.f_blocks * disk.f_frsize / 4096
    );
}

#[test]
fn attributes_of_anything_published_are_erofs() {
    let (sandbox, _, mount) = draft();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "12345"));
    for path in ["files/a", "files", "record.json", ""] {
        let path = mount.path(format!("records/{id}/{path}"));
        let touched = File::open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH);
        assert_eq!(errno(touched), libc::EROFS, "{}", path.display());
        let changed = fs::set_permissions(&path, PermissionsExt::from_mode(0o666));
        assert_eq!(errno(changed), libc::EROFS, "{}", path.display());
    }
    let path = mount.path(format!("records/{id}/files/a"));
    assert_eq!(errno(truncate(&path, 2)), libc::EROFS);
    assert_eq!(fs::read(&path).unwrap(), b"12345");
}

#[test]
fn an_edit_of_a_published_record_is_listed_and_its_files_are_locked() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "published"));
    elsewhere(&sandbox).edit(&RecordId::new(&id).unwrap()).unwrap();
    let mount = mount(&sandbox);
    assert_eq!(names(&mount.path("drafts")), [id.as_str()]);
    let folder = mount.path("drafts").join(&id);
    // Until it is closed, it works.
    let mut file = File::create(folder.join("b")).unwrap();
    file.write_all(b"no").unwrap();
    assert_eq!(close(file), libc::EACCES);
    assert!(sandbox.draft_file(&id, "b").is_none());
    assert_eq!(sandbox.record_file(&id, "a").unwrap().bytes(), b"published");
}

#[test]
fn a_removal_that_the_server_refuses_keeps_the_new_bytes() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "published"));
    elsewhere(&sandbox).edit(&RecordId::new(&id).unwrap()).unwrap();
    let mount = mount(&sandbox);
    let path = mount.path("drafts").join(&id).join("a");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"new").unwrap();
    assert_eq!(close(file), libc::EACCES);
    assert_eq!(errno(fs::remove_file(&path)), libc::EACCES);
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(mount.status().uploads.len(), 1);
}

#[test]
fn a_file_that_was_started_and_never_committed_is_not_shown() {
    let (sandbox, draft, mount) = draft();
    let elsewhere = elsewhere(&sandbox);
    let id = RecordId::new(&draft).unwrap();
    elsewhere.start_files(&id, &["pending"]).unwrap();
    let folder = mount.path("drafts").join(&draft);
    assert_eq!(names(&folder), ["a", "record.json"]);
    assert_eq!(errno(fs::metadata(folder.join("pending"))), libc::ENOENT);
    // It is not in the way either.
    fs::write(folder.join("pending"), "now").unwrap();
    assert_eq!(sandbox.draft_file(&draft, "pending").unwrap().bytes(), b"now");
}

#[test]
fn a_listing_is_what_the_folder_held_when_it_was_opened() {
    let (_sandbox, draft, mount) = draft();
    let folder = mount.path("drafts").join(&draft);
    let before = fs::read_dir(&folder).unwrap();
    fs::write(folder.join("b"), "new").unwrap();
    let after = fs::read_dir(&folder).unwrap();
    assert_eq!(before.count(), 2);
    assert_eq!(after.count(), 3);
}

#[test]
fn an_open_document_stays_what_it_was() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("The old title"));
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--draft-ttl", "100ms"])
        .start();
    let path = mount.path(format!("drafts/{draft}/record.json"));
    let before = fs::read_to_string(&path).unwrap();
    let mut open = File::open(&path).unwrap();
    let mut document: serde_json::Value = serde_json::from_str(&before).unwrap();
    document["metadata"]["title"] = "The new title".into();
    elsewhere(&sandbox)
        .update_draft(&RecordId::new(&draft).unwrap(), &document, None)
        .unwrap();
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, before);
    until("who opens it anew sees the new title", || {
        fs::read_to_string(&path).unwrap().contains("The new title")
    });
}

#[test]
fn a_deleted_record_is_enoent() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Withdrawn").file("a", "1"));
    shell(&format!(
        "curl -sf -X DELETE -H 'Authorization: Bearer {ADMIN}' -H 'Content-Type: application/json' -d '{{}}' \
         {}/api/records/{id}/delete",
        sandbox.url()
    ));
    let mount = mount(&sandbox);
    let path = mount.path("records").join(&id);
    assert_eq!(errno(fs::metadata(&path)), libc::ENOENT);
    assert_eq!(errno(fs::read(path.join("files/a"))), libc::ENOENT);
}

#[test]
fn a_rate_limit_that_wants_a_long_pause_is_eio() {
    let (sandbox, _, mount) = draft();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    sandbox.fault(Fault::on(Route::Record).then(Effect::TooManyRequests { retry_after: 3600 }));
    assert_eq!(errno(fs::metadata(mount.path("records").join(&id))), libc::EIO);
}

#[test]
fn a_draft_of_somebody_else_is_eacces_and_a_problem_but_what_is_not_there_is_none() {
    let (sandbox, draft, _) = draft();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = how(&sandbox.url()).token(BOB).start();
    assert_eq!(
        errno(fs::metadata(mount.path("records/zzzzz-99999"))),
        libc::ENOENT
    );
    let file = mount.path("records").join(&id).join("files/a");
    assert_eq!(errno(File::create(file)), libc::EROFS);
    assert_eq!(errno(File::create(mount.path("drafts/b"))), libc::EPERM);
    assert!(mount.status().problems.is_empty(), "{:?}", mount.status());
    let path = mount.path("drafts").join(&draft);
    assert_eq!(errno(fs::metadata(path)), libc::EACCES);
    assert_eq!(mount.status().problems.len(), 1);
}

#[test]
fn a_folder_that_no_key_can_have_is_refused() {
    let (_sandbox, draft, mount) = draft();
    let folder = mount.path("drafts").join(&draft);
    assert_eq!(errno(fs::create_dir(folder.join("a\nb"))), libc::EINVAL);
    let no_text = std::ffi::OsStr::from_bytes(b"no utf-8 \xff");
    assert_eq!(errno(fs::create_dir(folder.join(no_text))), libc::EINVAL);
    fs::create_dir(folder.join("d".repeat(200))).unwrap();
    let long = folder.join("d".repeat(200)).join("e".repeat(100));
    assert_eq!(errno(fs::create_dir(long)), libc::ENAMETOOLONG);
}

#[test]
fn opening_to_empty_a_file_fetches_nothing_and_cutting_it_does() {
    let sandbox = Sandbox::start();
    let bytes = noise(300_000, 4);
    let draft = sandbox.draft(
        NewRecord::titled("Draft")
            .file("a", bytes.clone())
            .file("b", bytes),
    );
    let mount = mount(&sandbox);
    fs::write(mount.path(format!("drafts/{draft}/a")), "new").unwrap();
    truncate(&mount.path(format!("drafts/{draft}/a")), 0).unwrap();
    assert_eq!(sandbox.count(Route::DraftContent), 0);
    truncate(&mount.path(format!("drafts/{draft}/b")), 1000).unwrap();
    assert!(sandbox.count(Route::DraftContent) > 0);
    mount.wait_for("all is sent", |status| status.uploads.is_empty());
    assert!(sandbox.draft_file(&draft, "a").unwrap().bytes().is_empty());
    assert!(sandbox.draft_file(&draft, "b").unwrap().bytes() == noise(300_000, 4)[..1000]);
}

#[test]
fn a_write_past_the_largest_offset_is_refused_by_the_kernel() {
    let (_sandbox, draft, mount) = draft();
    let file = File::create(mount.path(format!("drafts/{draft}/b"))).unwrap();
    let largest = u64::try_from(i64::MAX).unwrap();
    assert_eq!(errno(file.write_at(b"1", largest)), libc::EINVAL);
    assert_eq!(file.metadata().unwrap().len(), 0);
}

#[test]
fn a_committed_file_removed_while_open_is_readable_as_far_as_it_was_fetched() {
    let (_sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    let mut file = File::open(&path).unwrap();
    let mut first = [0; 1];
    file.read_exact(&mut first).unwrap();
    fs::remove_file(&path).unwrap();
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();
    assert_eq!((&first, rest.as_str()), (b"c", "ommitted"));
}

#[test]
fn links_and_special_files_are_eperm() {
    let (_sandbox, draft, mount) = draft();
    let folder = mount.path("drafts").join(&draft);
    assert_eq!(
        errno(std::os::unix::fs::symlink("a", folder.join("s"))),
        libc::EPERM
    );
    assert_eq!(
        errno(fs::hard_link(folder.join("a"), folder.join("h"))),
        libc::EPERM
    );
    for kind in [FileType::Fifo, FileType::Socket] {
        let made = mknodat(CWD, folder.join("p"), kind, Mode::RUSR, 0);
        assert_eq!(made.unwrap_err().raw_os_error(), libc::EPERM, "{kind:?}");
    }
    assert_eq!(names(&folder), ["a", "record.json"]);
}

#[test]
fn a_regular_file_made_with_mknod_is_a_file_that_is_sent() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/b"));
    let make = || mknodat(CWD, &path, FileType::RegularFile, Mode::RUSR | Mode::WUSR, 0);
    make().unwrap();
    assert_eq!(make().unwrap_err().raw_os_error(), libc::EEXIST);
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    fs::write(&path, "written").unwrap();
    settled(&mount);
    assert_eq!(stored(&sandbox, &draft, "b").unwrap(), b"written");
}

#[test]
fn flock_and_fcntl_locks_hold_on_this_machine() {
    let (_sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let (first, second) = (open(), open());
    flock(&first, FlockOperation::LockExclusive).unwrap();
    let held = flock(&second, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(held.unwrap_err().raw_os_error(), libc::EWOULDBLOCK);
    flock(&first, FlockOperation::Unlock).unwrap();
    flock(&second, FlockOperation::NonBlockingLockExclusive).unwrap();
    // These belong to processes: only another one is kept out.
    fcntl_lock(&first, FlockOperation::LockExclusive).unwrap();
    let line = format!(
        "python3 -c 'import fcntl; fcntl.lockf(open(\"{}\", \"r+\"), fcntl.LOCK_EX | fcntl.LOCK_NB)'",
        path.display()
    );
    let locked = || Command::new("sh").args(["-c", &line]).output().unwrap();
    let said = String::from_utf8(locked().stderr).unwrap();
    assert!(said.contains("BlockingIOError"), "{said}");
    fcntl_lock(&first, FlockOperation::Unlock).unwrap();
    assert!(locked().status.success());
}

#[test]
fn fallocate_makes_room_and_holes_as_the_local_disk_can() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/b"));
    let file = File::create(&path).unwrap();
    file.write_all_at(b"0123456789", 0).unwrap();
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10);
    fallocate(&file, FallocateFlags::empty(), 0, 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 20);
    fallocate(
        &file,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        2,
        3,
    )
    .unwrap();
    fallocate(&file, FallocateFlags::ZERO_RANGE, 8, 1).unwrap();
    let expected = b"01\x00\x00\x00567\x009\0\0\0\0\0\0\0\0\0\0";
    assert_eq!(fs::read(&path).unwrap(), expected);
    assert_eq!(close(file), 0);
    assert_eq!(stored(&sandbox, &draft, "b").unwrap(), expected);
    let reader = File::open(&path).unwrap();
    let refused = fallocate(&reader, FallocateFlags::empty(), 0, 30);
    assert_eq!(refused.unwrap_err().raw_os_error(), libc::EBADF);
}

#[test]
fn copy_file_range_copies_within_a_draft_and_out_of_a_record() {
    let (sandbox, draft, mount) = draft();
    let bytes = noise(500_000, 1);
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", bytes.clone()));
    let from = File::open(mount.path(format!("records/{id}/files/a"))).unwrap();
    let to = File::create(mount.path(format!("drafts/{draft}/b"))).unwrap();
    let mut copied = 0;
    while copied < bytes.len() {
        copied += rustix::fs::copy_file_range(&from, None, &to, None, bytes.len() - copied).unwrap();
    }
    assert_eq!(close(to), 0);
    assert!(stored(&sandbox, &draft, "b").unwrap() == bytes);
}
