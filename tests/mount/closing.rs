//! What closing a file does: one close of one writer is one upload.

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use rdm_sandbox::{ALICE, Effect, Fault, NewRecord, Route, Sandbox};

use crate::support::{LONG, close, draft, errno, how, mount, noise, shell};

fn uploads_of(line: &str) -> (usize, Vec<u8>) {
    let (sandbox, draft, mount) = draft();
    shell(&line.replace(
        "FILE",
        &mount.path(format!("drafts/{draft}/f")).display().to_string(),
    ));
    mount.wait_for("all is sent", |status| status.uploads.is_empty());
    let bytes = sandbox.draft_file(&draft, "f").unwrap().bytes();
    (sandbox.count(Route::PutContent), bytes)
}

#[test]
fn echo_is_one_upload() {
    assert_eq!(uploads_of("echo hi > FILE"), (1, b"hi\n".to_vec()));
}

#[test]
fn dd_is_one_upload() {
    let (uploads, bytes) = uploads_of("dd if=/dev/zero of=FILE bs=100k count=7 status=none");
    assert_eq!((uploads, bytes.len()), (1, 716_800));
}

#[test]
fn a_shell_group_is_one_upload() {
    let expected = b"a\nb\nc\n".to_vec();
    assert_eq!(
        uploads_of("{ /bin/echo a; /bin/echo b; /bin/echo c; } > FILE"),
        (1, expected)
    );
}

#[test]
fn python_with_a_subprocess_is_one_upload() {
    let line = "python3 -c '
import subprocess
with open(\"FILE\", \"wb\") as f:
    f.write(b\"one\\n\"); f.flush()
    subprocess.run([\"/bin/echo\", \"two\"], stdout=f)
    f.write(b\"three\\n\")
'";
    assert_eq!(uploads_of(line), (1, b"one\ntwo\nthree\n".to_vec()));
}

#[test]
fn an_empty_file_is_one_upload() {
    assert_eq!(uploads_of(": > FILE"), (1, Vec::new()));
}

#[test]
fn a_file_closed_by_another_thread_than_opened_it_is_one_upload() {
    let line = "python3 -c '
import os, threading
fd = os.open(\"FILE\", os.O_WRONLY | os.O_CREAT)
def work():
    os.write(fd, b\"threaded\"); os.close(fd)
t = threading.Thread(target=work); t.start(); t.join()
'";
    assert_eq!(uploads_of(line), (1, b"threaded".to_vec()));
}

#[test]
fn the_last_of_two_writers_sends_what_both_wrote() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/f"));
    let mut first = File::create(&path).unwrap();
    let second = fs::OpenOptions::new().write(true).open(&path).unwrap();
    first.write_all(b"first").unwrap();
    drop(first);
    assert_eq!(
        sandbox.count(Route::PutContent),
        0,
        "the other one may still write"
    );
    std::os::unix::fs::FileExt::write_all_at(&second, b"second", 5).unwrap();
    drop(second);
    mount.wait_for("all is sent", |status| status.uploads.is_empty());
    assert_eq!(sandbox.draft_file(&draft, "f").unwrap().bytes(), b"firstsecond");
    assert_eq!(sandbox.count(Route::PutContent), 1);
}

#[test]
fn a_file_written_again_while_it_is_sent_ends_with_the_last_bytes() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--close-wait", "0s"])
        .start();
    let path = mount.path(format!("drafts/{draft}/f"));
    sandbox.fault(
        Fault::on(Route::PutContent)
            .times(1)
            .then(Effect::Delay(Duration::from_millis(500))),
    );
    fs::write(&path, noise(400_000, 1)).unwrap();
    sandbox.wait_until("the first upload runs", |sandbox| {
        sandbox.count(Route::PutContent) == 1
    });
    fs::write(&path, noise(300_000, 2)).unwrap();
    mount.wait_for("all is sent", |status| status.uploads.is_empty());
    assert!(sandbox.draft_file(&draft, "f").unwrap().bytes() == noise(300_000, 2));
}

#[test]
fn close_waits_no_longer_than_it_is_told_and_the_upload_goes_on() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--close-wait", "200ms"])
        .start();
    let slow = sandbox.fault(Fault::on(Route::PutContent).then(Effect::StallUpload { after: 0 }));
    let path = mount.path(format!("drafts/{draft}/f"));
    let began = Instant::now();
    fs::write(&path, noise(100_000, 1)).unwrap();
    assert!(began.elapsed() < LONG / 4);
    let status = mount.wait_for("the upload is shown", |status| status.uploads.len() == 1);
    assert_eq!(
        (status.uploads[0].key.as_str(), status.uploads[0].size),
        ("f", 100_000)
    );
    // Still there to read and to look at.
    assert_eq!(fs::metadata(&path).unwrap().len(), 100_000);
    assert!(fs::read(&path).unwrap() == noise(100_000, 1));
    sandbox.remove_fault(slow);
}

#[test]
fn a_refused_file_fails_its_close_and_is_kept_with_the_reason() {
    let (sandbox, draft, mount) = draft();
    sandbox.knobs(|knobs| knobs.quota = 1000);
    let path = mount.path(format!("drafts/{draft}/f"));
    let mut file = File::create(&path).unwrap();
    file.write_all(&noise(5000, 1)).unwrap();
    assert_eq!(close(file), libc::EDQUOT);
    let status = mount.status();
    assert_eq!(status.uploads[0].state, rdmfs::status::UploadState::Refused);
    assert!(
        status.uploads[0].reason.as_ref().unwrap().contains("quota"),
        "{status:?}"
    );
    assert!(fs::read(&path).unwrap() == noise(5000, 1), "the bytes are kept");
    assert!(
        sandbox.draft_keys(&draft).is_empty(),
        "nothing half-made is left in the draft"
    );
    // With room again, writing it again sends it.
    sandbox.knobs(|knobs| knobs.quota = 1_000_000);
    fs::write(&path, noise(5000, 2)).unwrap();
    assert!(sandbox.draft_file(&draft, "f").unwrap().bytes() == noise(5000, 2));
}

#[test]
fn too_many_files_are_enospc_and_too_large_ones_efbig() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("one", "1"));
    let mount = mount(&sandbox);
    sandbox.knobs(|knobs| knobs.max_files = 1);
    let mut file = File::create(mount.path(format!("drafts/{draft}/two"))).unwrap();
    file.write_all(b"2").unwrap();
    assert_eq!(close(file), libc::ENOSPC);
    sandbox.knobs(|knobs| {
        knobs.max_files = 100;
        knobs.max_body = Some(1_000_000);
    });
    let mut file = File::create(mount.path(format!("drafts/{draft}/large"))).unwrap();
    file.write_all(&noise(3_000_000, 1)).unwrap();
    assert_eq!(close(file), libc::EFBIG);
}

#[test]
fn what_unmount_now_leaves_is_sent_by_the_next_mount() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let first = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--close-wait", "0s"])
        .start();
    let fault = sandbox.fault(Fault::on(Route::StartFiles).then(Effect::ServerError(503)));
    fs::write(first.path(format!("drafts/{draft}/f")), "left behind").unwrap();
    let folder = first.unmount(&["--now"]);
    assert!(sandbox.draft_file(&draft, "f").is_none());
    sandbox.remove_fault(fault);
    let second = how(&sandbox.url()).token(ALICE).folder(folder).start();
    second.wait_for("all is sent", |status| status.uploads.is_empty());
    assert_eq!(sandbox.draft_file(&draft, "f").unwrap().bytes(), b"left behind");
}

#[test]
fn unmount_waits_for_the_uploads() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--close-wait", "0s"])
        .start();
    sandbox.fault(
        Fault::on(Route::PutContent)
            .times(2)
            .then(Effect::ServerError(503)),
    );
    fs::write(mount.path(format!("drafts/{draft}/f")), "waited for").unwrap();
    mount.unmount(&[]);
    assert_eq!(sandbox.draft_file(&draft, "f").unwrap().bytes(), b"waited for");
}

#[test]
fn a_refused_file_can_be_removed() {
    let (sandbox, draft, mount) = draft();
    sandbox.knobs(|knobs| knobs.quota = 1000);
    let path = mount.path(format!("drafts/{draft}/f"));
    let mut file = File::create(&path).unwrap();
    file.write_all(&noise(5000, 1)).unwrap();
    assert_eq!(close(file), libc::EDQUOT);
    fs::remove_file(&path).unwrap();
    assert_eq!(errno(fs::metadata(&path)), libc::ENOENT);
    assert!(mount.status().uploads.is_empty());
    let left = fs::read_dir(mount.status().staging.join("data")).unwrap().count();
    assert_eq!(left, 0, "its bytes are gone too");
}

#[test]
fn a_file_removed_while_it_waits_to_be_sent_is_not_sent() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--close-wait", "0s"])
        .start();
    let fault = sandbox.fault(Fault::on(Route::StartFiles).then(Effect::ServerError(503)));
    let path = mount.path(format!("drafts/{draft}/f"));
    fs::write(&path, "1").unwrap();
    sandbox.wait_until("it is tried", |sandbox| sandbox.count(Route::StartFiles) > 0);
    fs::remove_file(&path).unwrap();
    sandbox.remove_fault(fault);
    assert!(mount.status().uploads.is_empty());
    assert!(sandbox.draft_keys(&draft).is_empty());
    assert_eq!(sandbox.count(Route::PutContent), 0);
}

#[test]
fn nothing_is_left_on_the_local_disk_when_all_is_sent() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("old", "1"));
    let mount = mount(&sandbox);
    for name in ["new", "old", "new"] {
        fs::write(mount.path(format!("drafts/{draft}/{name}")), noise(10_000, 1)).unwrap();
        shell(&format!(
            "echo more >> {}",
            mount.path(format!("drafts/{draft}/{name}")).display()
        ));
    }
    let staging = mount
        .wait_for("all is sent", |status| status.uploads.is_empty())
        .staging;
    let deadline = Instant::now() + LONG;
    for folder in ["data", "journal"] {
        // RELEASE comes after close(2) has returned.
        while fs::read_dir(staging.join(folder)).unwrap().count() > 0 {
            assert!(Instant::now() < deadline, "{folder} is not emptied");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
