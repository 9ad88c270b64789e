//! What programs meet less often: attributes, changes of what can't be changed, and calls that are not there.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rdm_sandbox::{ADMIN, ALICE, BOB, Effect, Fault, NewRecord, Route, Sandbox};
use rdmfs::repository::model::{RecordId, parse_time};
use rdmfs::repository::{Repository, Settings, Token};
use rustix::fs::{FallocateFlags, FlockOperation, XattrFlags, fallocate, flock, setxattr, statvfs};

use crate::support::{Mount, close, errno, how, mount, names, noise, shell, until};

fn draft() -> (Sandbox, String, Mount) {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", "committed"));
    let mount = mount(&sandbox);
    (sandbox, draft, mount)
}

/// The repository as another program of alice's sees it.
fn elsewhere(sandbox: &Sandbox) -> Repository {
    Repository::connect(Settings {
        url: sandbox.url(),
        token: Some(Token::new(ALICE).unwrap()),
        ..Settings::default()
    })
    .unwrap()
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
        (format!("records/{open}"), 0o555),
        (format!("records/{open}/record.json"), 0o444),
        (format!("records/{open}/files"), 0o555),
        (format!("records/{open}/files/README.md"), 0o444),
        (format!("records/{closed}"), 0o500),
        (format!("records/{closed}/files"), 0o500),
        (format!("records/{closed}/files/secret.bin"), 0o400),
        (format!("records/{}", samples.concept_of_three), 0o777),
        (format!("drafts/{draft}"), 0o700),
        (format!("drafts/{draft}/record.json"), 0o400),
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
fn chmod_and_touch_last_until_the_file_is_sent() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/b"));
    let mut file = File::create(&path).unwrap();
    file.write_all(b"one").unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_934_245);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
    file.set_modified(old).unwrap();
    assert_eq!(mode(&path), 0o400);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), old);
    // Not enforced on the user.
    fs::write(&path, "two").unwrap();
    assert_eq!(mode(&path), 0o400);
    drop(file);
    mount.wait_for("the upload ends", |status| status.uploads.is_empty());
    until("mode and time are the server's", || {
        mode(&path) == 0o600 && fs::metadata(&path).unwrap().modified().unwrap() != old
    });
    assert_eq!(sandbox.draft_file(&draft, "b").unwrap().bytes(), b"two");
}

#[test]
fn chmod_and_touch_of_a_committed_file_succeed_and_change_nothing() {
    let (_sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
    File::open(&path)
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
    assert!(mount.status().uploads.is_empty());
}

#[test]
fn attributes_of_anything_published_are_erofs_and_of_a_drafts_document_eperm() {
    let (sandbox, draft, mount) = draft();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "12345"));
    let change = |path: &Path| {
        let touched = File::open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH);
        [
            errno(fs::set_permissions(path, PermissionsExt::from_mode(0o666))),
            errno(touched),
        ]
    };
    for path in ["files/a", "files", "record.json"] {
        let path = mount.path(format!("records/{id}/{path}"));
        assert_eq!(change(&path), [libc::EROFS; 2], "{}", path.display());
    }
    let path = mount.path(format!("records/{id}/files/a"));
    assert_eq!(errno(truncate(&path, 2)), libc::EROFS);
    assert_eq!(fs::read(&path).unwrap(), b"12345");
    assert_eq!(
        change(&mount.path(format!("drafts/{draft}/record.json"))),
        [libc::EPERM; 2]
    );
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
fn renaming_is_exdev_and_mv_copies() {
    let (sandbox, draft, mount) = draft();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let folder = mount.path("drafts").join(&draft);
    assert_eq!(errno(fs::rename(folder.join("a"), folder.join("b"))), libc::EXDEV);
    let published = mount.path("records").join(&id).join("files/a");
    assert_eq!(errno(fs::rename(&published, folder.join("b"))), libc::EXDEV);
    assert_eq!(
        errno(fs::rename(&folder, mount.path("drafts/other"))),
        libc::EXDEV
    );
    fs::create_dir(folder.join("d")).unwrap();
    shell(&format!("cd {}; mv a b; mv b d/c", folder.display()));
    assert_eq!(sandbox.draft_keys(&draft), ["d/c"]);
    assert_eq!(sandbox.draft_file(&draft, "d/c").unwrap().bytes(), b"committed");
}

#[test]
fn rsync_sends_its_temporary_file_too_unless_it_writes_in_place() {
    let (sandbox, draft, mount) = draft();
    fs::write(mount.local("b"), "synced").unwrap();
    let (from, to) = (mount.local("b"), mount.path("drafts").join(&draft));
    for (option, uploads) in [("", 2), ("--inplace", 1)] {
        sandbox.reset_counts();
        fs::write(&from, format!("synced {option}")).unwrap();
        shell(&format!("rsync {option} {} {}/", from.display(), to.display()));
        mount.wait_for("all is sent", |status| status.uploads.is_empty());
        assert_eq!(sandbox.draft_keys(&draft), ["a", "b"]);
        let bytes = sandbox.draft_file(&draft, "b").unwrap().bytes();
        assert_eq!(bytes, fs::read(&from).unwrap());
        assert_eq!(sandbox.count(Route::PutContent), uploads, "rsync {option}");
    }
    // The time is the server's, so that an rsync with times finds the copy different.
    shell(&format!("touch -d 2020-01-02 {}", from.display()));
    let copy = format!("rsync -ti --inplace {} {}/", from.display(), to.display());
    shell(&copy);
    until("the time is the server's", || !shell(&copy).is_empty());
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
    let made = Command::new("mkfifo").arg(folder.join("p")).output().unwrap();
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(said.contains("Operation not permitted"), "{said}");
    assert_eq!(names(&folder), ["a", "record.json"]);
    assert!(!fs::metadata(folder.join("a")).unwrap().file_type().is_fifo());
}

#[test]
fn extended_attributes_and_fallocate_are_eopnotsupp() {
    let (_sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    let set = setxattr(&path, "user.colour", b"blue", XattrFlags::empty());
    assert_eq!(set.unwrap_err().raw_os_error(), libc::EOPNOTSUPP);
    let mut buffer = [0_u8; 100];
    let got = rustix::fs::getxattr(&path, "user.colour", &mut buffer[..]);
    assert_eq!(got.unwrap_err().raw_os_error(), libc::EOPNOTSUPP);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let room = fallocate(&file, FallocateFlags::empty(), 0, 1 << 20);
    assert_eq!(room.unwrap_err().raw_os_error(), libc::EOPNOTSUPP);
}

#[test]
fn drafts_are_not_made_or_discarded_as_folders() {
    let (_sandbox, draft, mount) = draft();
    for path in ["new", "drafts/new", "drafts/abcde-12345"] {
        assert_eq!(errno(fs::create_dir(mount.path(path))), libc::EPERM, "{path}");
    }
    for path in ["drafts", "records", &format!("drafts/{draft}")] {
        assert_eq!(errno(fs::remove_dir(mount.path(path))), libc::EPERM, "{path}");
    }
}

#[test]
fn removing_a_draft_removes_its_files_and_stops_at_its_document() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path("drafts").join(&draft);
    fs::write(path.join("b"), "1").unwrap();
    let removed = Command::new("rm").arg("-r").arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&removed.stderr).into_owned();
    assert!(
        said.contains("record.json") && said.contains("Operation not permitted"),
        "{said}"
    );
    assert!(sandbox.draft_keys(&draft).is_empty());
    assert_eq!(names(&path), ["record.json"]);
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
fn locks_hold_on_this_machine() {
    let (_sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    let (first, second) = (File::open(&path).unwrap(), File::open(&path).unwrap());
    flock(&first, FlockOperation::LockExclusive).unwrap();
    let held = flock(&second, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(held.unwrap_err().raw_os_error(), libc::EWOULDBLOCK);
}

#[test]
fn junk_is_sent_like_any_other_file() {
    let (sandbox, draft, mount) = draft();
    let junk = [".DS_Store", "._a", ".a.swp", "a.part"];
    for name in junk {
        fs::write(mount.path(format!("drafts/{draft}/{name}")), name).unwrap();
        let file = sandbox.draft_file(&draft, name).unwrap();
        assert_eq!(file.bytes(), name.as_bytes());
    }
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
