//! What is left of a write when something is odd about its end: copies of a descriptor, killed programs, refusals,
//! full disks, and what the next mount makes of it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rdm_sandbox::{ALICE, BOB, Effect, Fault, NewRecord, Route, Sandbox};
use rdmfs::mount::device::{How, detach};
use rdmfs::status::UploadState;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{
    LONG, Mount, close, draft, ended, errno, hasty, how, kill, mount, mount_again, names, noise,
    out_of_order, settled, shell, stored, until,
};

#[test]
fn closing_a_copy_of_a_descriptor_sends_what_is_there_and_the_rest_is_sent_again_whole() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/f"));
    let mut file = File::create(&path).unwrap();
    file.write_all(b"one").unwrap();
    let copy = file.try_clone().unwrap();
    assert_eq!(close(copy), 0);
    assert_eq!(stored(&sandbox, &draft, "f").unwrap(), b"one");
    file.write_all(b"two").unwrap();
    assert_eq!(close(file), 0);
    assert_eq!(stored(&sandbox, &draft, "f").unwrap(), b"onetwo");
    assert_eq!(sandbox.count(Route::PutContent), 2);
}

#[test]
fn what_a_child_writes_after_the_opener_closed_is_sent_again_whole() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/f"));
    let mut file = File::create(&path).unwrap();
    file.write_all(b"one\n").unwrap();
    let mut child = Command::new("sh")
        .args(["-c", "read go; echo two"])
        .stdin(std::process::Stdio::piped())
        .stdout(file.try_clone().unwrap())
        .spawn()
        .unwrap();
    assert_eq!(close(file), 0);
    assert_eq!(stored(&sandbox, &draft, "f").unwrap(), b"one\n");
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert!(child.wait().unwrap().success());
    until("the child's line is there", || {
        stored(&sandbox, &draft, "f").is_some_and(|bytes| bytes == b"one\ntwo\n")
    });
}

#[test]
fn what_a_killed_program_had_written_is_sent() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/f"));
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("exec 3> {}; printf half >&3; kill -9 $$", path.display()))
        .status()
        .unwrap();
    assert!(!status.success());
    until("what it wrote is there", || {
        stored(&sandbox, &draft, "f").is_some_and(|bytes| bytes == b"half")
    });
}

#[test]
fn fsync_puts_bytes_and_journal_on_disk_and_sends_nothing() {
    let (sandbox, draft, mount) = draft();
    let mut file = File::create(mount.path(format!("drafts/{draft}/f"))).unwrap();
    file.write_all(b"precious").unwrap();
    file.sync_all().unwrap();
    assert_eq!(sandbox.count(Route::StartFiles), 0);
    let staging = mount.status().staging;
    let journal = fs::read_dir(staging.join("journal")).unwrap().next().unwrap();
    let entry: serde_json::Value =
        serde_json::from_slice(&fs::read(journal.unwrap().path()).unwrap()).unwrap();
    assert_eq!(
        (&entry["key"], &entry["state"], &entry["size"]),
        (&"f".into(), &"open".into(), &8.into())
    );
    let data = fs::read_dir(staging.join("data")).unwrap().next().unwrap();
    assert_eq!(fs::read(data.unwrap().path()).unwrap(), b"precious");
}

#[test]
fn truncating_a_closed_file_does_not_wait_for_the_upload() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/f"));
    fs::write(&path, "0123456789").unwrap();
    sandbox.fault(Fault::on(Route::StartFiles).then(Effect::Stall));
    let began = Instant::now();
    // truncate(2), not ftruncate(2).
    shell(&format!(
        "python3 -c 'import os; os.truncate(\"{}\", 4)'",
        path.display()
    ));
    assert!(began.elapsed() < LONG / 4);
    assert_eq!(fs::read(&path).unwrap(), b"0123");
    assert_eq!(mount.status().uploads.len(), 1);
}

#[test]
fn a_failure_that_passes_is_no_error_of_close() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--close-wait", "200ms"])
        .start();
    let fault = out_of_order(&sandbox);
    let mut file = File::create(mount.path(format!("drafts/{draft}/f"))).unwrap();
    file.write_all(b"late").unwrap();
    assert_eq!(close(file), 0);
    sandbox.remove_fault(fault);
    mount.wait_for("all is sent", |status| status.uploads.is_empty());
    assert_eq!(stored(&sandbox, &draft, "f").unwrap(), b"late");
}

#[test]
fn an_upload_that_begins_after_close_is_refused_in_the_status_only() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("one", "1"));
    let mount = mount(&sandbox);
    sandbox.knobs(|knobs| knobs.max_files = 1);
    let empty = File::create(mount.path(format!("drafts/{draft}/f"))).unwrap();
    assert_eq!(close(empty), 0);
    let status = mount.wait_for("it is refused", |status| {
        status
            .uploads
            .iter()
            .any(|upload| upload.state == UploadState::Refused)
    });
    assert_eq!(status.uploads[0].key, "f");
}

#[test]
fn if_the_new_bytes_of_a_file_are_refused_the_old_ones_are_gone_and_the_new_ones_kept() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("f", "old"));
    let mount = mount(&sandbox);
    sandbox.knobs(|knobs| knobs.quota = 1000);
    let path = mount.path(format!("drafts/{draft}/f"));
    let mut file = File::create(&path).unwrap();
    file.write_all(&noise(5000, 1)).unwrap();
    assert_eq!(close(file), libc::EDQUOT);
    assert!(sandbox.draft_keys(&draft).is_empty());
    assert!(fs::read(&path).unwrap() == noise(5000, 1));
}

#[test]
fn removing_a_file_that_is_being_sent_stops_its_upload() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = hasty(&sandbox);
    sandbox.fault(Fault::on(Route::PutContent).then(Effect::StallUpload { after: 1000 }));
    let path = mount.path(format!("drafts/{draft}/f"));
    fs::write(&path, noise(20_000_000, 1)).unwrap();
    sandbox.wait_until("bytes are sent", |sandbox| {
        sandbox.requests().iter().any(|request| request.received > 0)
    });
    fs::remove_file(&path).unwrap();
    assert_eq!(errno(fs::metadata(&path)), libc::ENOENT);
    assert!(mount.status().uploads.is_empty());
    assert!(sandbox.draft_keys(&draft).is_empty());
    assert_eq!(sandbox.count(Route::Commit), 0);
}

#[test]
fn a_folder_without_a_committed_file_is_gone_after_unmounting() {
    let (sandbox, draft, first) = draft();
    fs::create_dir(first.path(format!("drafts/{draft}/d"))).unwrap();
    let folder = first.unmount(&[]);
    let second = how(&sandbox.url()).token(ALICE).folder(folder).start();
    assert_eq!(names(&second.path("drafts").join(&draft)), ["record.json"]);
}

#[test]
fn a_refused_file_is_shown_by_the_next_mount_and_not_sent() {
    let (sandbox, draft, first) = draft();
    sandbox.knobs(|knobs| knobs.quota = 1000);
    let mut file = File::create(first.path(format!("drafts/{draft}/f"))).unwrap();
    file.write_all(&noise(5000, 1)).unwrap();
    assert_eq!(close(file), libc::EDQUOT);
    let folder = first.unmount(&[]);
    sandbox.knobs(|knobs| knobs.quota = 1_000_000);
    sandbox.reset_counts();
    let second = how(&sandbox.url()).token(ALICE).folder(folder).start();
    let status = second.status();
    assert_eq!(status.uploads.len(), 1, "{status:#?}");
    assert_eq!(status.uploads[0].state, UploadState::Refused);
    assert!(status.uploads[0].reason.as_ref().unwrap().contains("quota"));
    let path = second.path(format!("drafts/{draft}/f"));
    assert!(fs::read(&path).unwrap() == noise(5000, 1));
    // What comes after it is sent, it is not.
    fs::write(second.path(format!("drafts/{draft}/g")), "1").unwrap();
    assert_eq!(sandbox.draft_keys(&draft), ["g"]);
    assert_eq!(sandbox.count(Route::StartFiles), 1);
    fs::remove_file(&path).unwrap();
    assert!(second.status().uploads.is_empty());
}

#[test]
fn what_was_staged_with_another_token_or_for_another_address_is_left_alone() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let of_bob = sandbox.draft(NewRecord::titled("Bob's").owner("bob"));
    let alice = hasty(&sandbox);
    let fault = out_of_order(&sandbox);
    fs::write(alice.path(format!("drafts/{draft}/f")), "alice's").unwrap();
    let folder = alice.unmount(&["--now"]);
    sandbox.remove_fault(fault);
    let bob = how(&sandbox.url()).token(BOB).folder(folder).start();
    assert!(bob.log().contains("f of draft"), "{}", bob.log());
    assert!(bob.status().uploads.is_empty());
    fs::write(bob.path(format!("drafts/{of_bob}/g")), "bob's").unwrap();
    assert_eq!(stored(&sandbox, &of_bob, "g").unwrap(), b"bob's");
    let folder = bob.unmount(&[]);
    let address = sandbox.url().replace("127.0.0.1", "localhost");
    let moved = how(&address).token(ALICE).folder(folder).start();
    assert!(moved.status().uploads.is_empty());
    fs::write(moved.path(format!("drafts/{draft}/h")), "1").unwrap();
    assert_eq!(sandbox.draft_keys(&draft), ["h"]);
    let folder = moved.unmount(&[]);
    let again = how(&sandbox.url()).token(ALICE).folder(folder).start();
    again.wait_for("all is sent", |status| status.uploads.is_empty());
    assert_eq!(stored(&sandbox, &draft, "f").unwrap(), b"alice's");
}

#[test]
fn a_file_that_was_never_closed_before_a_crash_is_kept_and_told_and_neither_shown_nor_sent() {
    let (sandbox, draft, first) = draft();
    let mut file = File::create(first.path(format!("drafts/{draft}/f"))).unwrap();
    file.write_all(b"unfinished").unwrap();
    file.sync_all().unwrap();
    kill(&first);
    drop(file);
    let second = mount_again(&sandbox, ended(first));
    assert!(second.log().contains("was never closed"), "{}", second.log());
    let status = second.status();
    let [upload] = &status.uploads[..] else {
        panic!("{status:#?}");
    };
    assert_eq!((upload.key.as_str(), upload.size), ("f", 10));
    assert_eq!(upload.state, UploadState::Unclosed);
    assert_eq!(fs::read(&upload.kept).unwrap(), b"unfinished");
    assert_eq!(names(&second.path("drafts").join(&draft)), ["record.json"]);
    fs::write(second.path(format!("drafts/{draft}/g")), "1").unwrap();
    assert_eq!(sandbox.draft_keys(&draft), ["g"]);
}

#[test]
fn of_a_file_that_was_open_again_in_a_crash_the_closed_bytes_are_sent_and_the_others_kept() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let first = hasty(&sandbox);
    let fault = out_of_order(&sandbox);
    let path = first.path(format!("drafts/{draft}/f"));
    fs::write(&path, "closed").unwrap();
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b", and more").unwrap();
    file.sync_all().unwrap();
    kill(&first);
    drop(file);
    let folder = ended(first);
    sandbox.remove_fault(fault);
    let second = mount_again(&sandbox, folder);
    let status = second.wait_for("what was closed is sent", |status| status.uploads.len() == 1);
    assert_eq!(stored(&sandbox, &draft, "f").unwrap(), b"closed");
    assert_eq!(status.uploads[0].state, UploadState::Unclosed);
    assert_eq!(fs::read(&status.uploads[0].kept).unwrap(), b"closed, and more");
}

#[test]
fn umount_waits_for_nothing_and_the_next_mount_sends_it() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let first = hasty(&sandbox);
    let fault = out_of_order(&sandbox);
    let path = first.path(format!("drafts/{draft}/f"));
    fs::write(&path, "left behind").unwrap();
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    let began = Instant::now();
    shell(&format!("fusermount3 -u {}", first.path("").display()));
    let folder = ended(first);
    assert!(began.elapsed() < LONG / 2);
    assert!(stored(&sandbox, &draft, "f").is_none());
    let second = mount_again(&sandbox, folder);
    let path = second.path(format!("drafts/{draft}/f"));
    let shown = fs::metadata(&path).unwrap().modified().unwrap();
    let between = shown.max(written).duration_since(shown.min(written)).unwrap();
    assert!(between < Duration::from_secs(1), "{shown:?}, {written:?}");
    sandbox.remove_fault(fault);
    settled(&second);
    assert_eq!(stored(&sandbox, &draft, "f").unwrap(), b"left behind");
}

#[test]
fn a_second_signal_ends_the_daemon_at_once_and_the_next_mount_sends_what_is_left() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let first = hasty(&sandbox);
    let fault = out_of_order(&sandbox);
    fs::write(first.path(format!("drafts/{draft}/f")), "left behind").unwrap();
    let worker = Pid::from_raw(i32::try_from(first.worker()).unwrap()).unwrap();
    let process = PathBuf::from(format!("/proc/{}", first.worker()));
    let began = Instant::now();
    // Two that come at the same time are one.
    until("the daemon ends", || {
        let _ = kill_process(worker, Signal::TERM);
        !process.exists()
    });
    assert!(began.elapsed() < LONG / 2, "it does not wait for the upload");
    let folder = ended(first);
    sandbox.remove_fault(fault);
    let second = how(&sandbox.url()).token(ALICE).folder(folder).start();
    second.wait_for("all is sent", |status| status.uploads.is_empty());
    assert_eq!(stored(&sandbox, &draft, "f").unwrap(), b"left behind");
}

#[test]
fn a_second_mount_with_the_same_cache_says_that_it_uses_a_private_one() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "published"));
    let first = mount(&sandbox);
    let folder = tempfile::tempdir().unwrap();
    symlink(first.local("cache"), folder.path().join("cache")).unwrap();
    let second = how(&sandbox.url()).token(ALICE).folder(folder).start();
    let problems = second.status().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(format!("{problems:?}").contains("another rdmfs uses the cache"));
    let text = fs::read_to_string(second.path(format!("records/{id}/files/a"))).unwrap();
    assert_eq!(text, "published");
    let private = format!("private-{}", second.worker());
    assert!(names(&first.local("cache")).contains(&private));
    second.unmount(&[]);
    assert!(!names(&first.local("cache")).contains(&private));
}

#[test]
fn a_mode_without_write_permission_keeps_an_ordinary_user_from_nothing() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run as root: another user can't be tried");
        return;
    }
    let nobody = 65534;
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = how(&sandbox.url()).token(ALICE).user(nobody).start();
    let path = mount.path(format!("drafts/{draft}/f"));
    let line = "exec 3> $0; printf one >&3; chmod 400 $0; stat -c %a $0; printf two >> $0";
    let output = Command::new("sh")
        .args(["-c", line])
        .arg(&path)
        .uid(nobody)
        .gid(nobody)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"400\n");
    until("all is sent", || {
        stored(&sandbox, &draft, "f").is_some_and(|bytes| bytes == b"onetwo")
    });
}

/// A small disk, for as long as this lives.
struct Disk(TempDir);

impl Disk {
    fn new(bytes: u64) -> Option<Disk> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run as root: a small disk can't be mounted");
            return None;
        }
        let disk = Disk(tempfile::tempdir().unwrap());
        let line = format!("mount -t tmpfs -o size={bytes} tmpfs {}", disk.path().display());
        shell(&line);
        Some(disk)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = detach(self.path(), How::Lazily);
    }
}

/// As [`draft`], with the staged files on a disk of its own.
fn draft_staged_on(disk: &Disk) -> (Sandbox, String, Mount) {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let folder = tempfile::tempdir().unwrap();
    symlink(disk.path(), folder.path().join("state")).unwrap();
    let mount = how(&sandbox.url()).token(ALICE).folder(folder).start();
    (sandbox, draft, mount)
}

#[test]
fn a_full_disk_is_enospc_for_the_writer_and_works_again_when_there_is_room() {
    let Some(disk) = Disk::new(4 << 20) else {
        return;
    };
    let (sandbox, draft, mount) = draft_staged_on(&disk);
    let path = mount.path(format!("drafts/{draft}/large"));
    let file = File::create(&path).unwrap();
    assert_eq!(errno(file.write_all_at(&noise(8 << 20, 1), 0)), libc::ENOSPC);
    // No other call is worse off.
    assert_eq!(mount.status().uploads.len(), 1);
    fs::remove_file(&path).unwrap();
    drop(file);
    let path = mount.path(format!("drafts/{draft}/small"));
    until("there is room again", || {
        fs::write(&path, noise(1 << 20, 2)).is_ok()
    });
    let mut back = Vec::new();
    File::open(&path).unwrap().read_to_end(&mut back).unwrap();
    assert!(back == noise(1 << 20, 2));
    assert!(stored(&sandbox, &draft, "small").unwrap() == back);
    assert_eq!(sandbox.draft_keys(&draft), ["small"]);
    mount.wait_for("all is sent", |status| status.uploads.is_empty());
}

#[test]
fn a_file_whose_write_failed_is_not_sent_until_it_is_written_anew() {
    let Some(disk) = Disk::new(4 << 20) else {
        return;
    };
    let (sandbox, draft, mount) = draft_staged_on(&disk);
    let path = mount.path(format!("drafts/{draft}/f"));
    let file = File::create(&path).unwrap();
    assert_eq!(errno(file.write_all_at(&noise(8 << 20, 1), 0)), libc::ENOSPC);
    assert_eq!(close(file), libc::ENOSPC, "not what the program meant");
    let status = mount.wait_for("it is released", |status| {
        status
            .uploads
            .iter()
            .any(|upload| upload.state == UploadState::Refused)
    });
    assert!(
        status.uploads[0]
            .reason
            .as_ref()
            .unwrap()
            .contains("No space left"),
        "{status:?}"
    );
    assert!(sandbox.draft_keys(&draft).is_empty());
    until("there is room again", || {
        fs::write(&path, noise(1 << 20, 2)).is_ok()
    });
    mount.wait_for("all is sent", |status| status.uploads.is_empty());
    assert!(stored(&sandbox, &draft, "f").unwrap() == noise(1 << 20, 2));
}
